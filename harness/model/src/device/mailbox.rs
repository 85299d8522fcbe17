//! The device registers of a Type 3 device: capability array, primary mailbox, memory device
//! status (CXL r3.1 section 8.2.8).
//!
//! **Invariant**: a command is done when the doorbell write is: software never sees it busy.

use std::io;

use cxl_regs::Component;
use cxl_regs::access::{Features, Register, Spec};
use cxl_regs::mailbox::{
    self, ArrayHigh, ArrayLow, Capabilities, Command, CommandHigh, CommandLow, Control,
    DeviceCapabilityId, EntryHeader, EntryLength, EntryOffset, MediaStatus, MemoryDeviceStatus,
    Opcode, PAYLOAD_OFFSET, ReturnCode, StatusHigh,
};

use super::Name;
use super::commands::Commands;
use super::media::Media;
use super::registers::Registers;
use crate::store::LabelFile;

/// Bytes of the block.
const SIZE: u16 = 0x1000;
/// Type field: a memory device.
const MEMORY_DEVICE: u8 = 1;
/// log2 of the payload's bytes.
const PAYLOAD_SIZE: u8 = 9;
const PAYLOAD_BYTES: usize = 1 << PAYLOAD_SIZE;

/// Where the structures are: ID, offset, length.
const STRUCTURES: [(DeviceCapabilityId, u16, u16); 3] = [
    (DeviceCapabilityId::DeviceStatus, 0x080, 0x008),
    (DeviceCapabilityId::PrimaryMailbox, MAILBOX, PAYLOAD_OFFSET + (1 << PAYLOAD_SIZE)),
    (DeviceCapabilityId::MemoryDeviceStatus, MEMORY_STATUS, 0x008),
];
const MAILBOX: u16 = 0x100;
const MEMORY_STATUS: u16 = 0x400;

/// The payload's dwords are a command's, and mean nothing by themselves.
const PAYLOAD: Spec = Spec { name: "Command Payload", offset: 0, bytes: 4, fields: &[] };

fn is_payload(offset: u16) -> bool {
    let start = MAILBOX + PAYLOAD_OFFSET;
    (start..start + (1 << PAYLOAD_SIZE)).contains(&offset)
}

/// The device registers of one Type 3 device.
#[derive(Clone, Debug)]
pub struct Mailbox {
    registers: Registers,
    commands: Commands,
}

impl Mailbox {
    /// The registers of a device with this memory.
    pub fn new(media: &Media) -> Self {
        let mut registers = Registers::new(Component::Device, Features::NONE, SIZE);
        let array = [ArrayLow::SPEC, ArrayHigh::SPEC];
        registers.add(&array, 0, |bytes| {
            let low = ArrayLow::new().with_version(1).with_kind(MEMORY_DEVICE);
            cxl_regs::block::put(bytes, 0, low)?;
            cxl_regs::block::put(bytes, 0, ArrayHigh::new().with_count(STRUCTURES.len() as u16))
        });
        let entry: [Spec; 3] = [EntryHeader::SPEC, EntryOffset::SPEC, EntryLength::SPEC];
        for (index, (id, offset, length)) in (0..).zip(STRUCTURES) {
            let at = EntryHeader::SPEC.offset * index;
            registers.add(&entry, at, |bytes| {
                let header = EntryHeader::new().with_id(id.code()).with_version(1);
                cxl_regs::block::put(bytes, at, header)?;
                cxl_regs::block::put(bytes, at, EntryOffset::new().with_offset(offset.into()))?;
                cxl_regs::block::put(bytes, at, EntryLength::new().with_length(length.into()))
            });
        }
        let capabilities =
            Capabilities::new().with_payload_size(PAYLOAD_SIZE).with_kind(MEMORY_DEVICE);
        let mailbox = mailbox::Mailbox { capabilities, ..mailbox::Mailbox::default() };
        registers.add(mailbox::Mailbox::REGISTERS, MAILBOX, |bytes| mailbox.put(bytes, MAILBOX));
        let status = MemoryDeviceStatus::new()
            .with_media_status(MediaStatus::Ready.code())
            .with_interface_ready(true);
        registers.add(&[MemoryDeviceStatus::SPEC], MEMORY_STATUS, |bytes| {
            cxl_regs::block::put(bytes, MEMORY_STATUS, status)
        });
        Self { registers, commands: Commands::new(media) }
    }

    /// What the dword at an offset is called.
    pub fn name(&self, offset: u16) -> Option<Name> {
        let named = self.registers.spec_at(offset).map(|spec| spec.name);
        let payload = || is_payload(offset).then_some(PAYLOAD.name);
        named.or_else(payload).map(Name::plain)
    }

    /// The registers of the dword at an offset.
    pub fn specs(&self, offset: u16) -> Vec<Spec> {
        if is_payload(offset) {
            return vec![Spec { offset, ..PAYLOAD }];
        }
        self.registers.specs(offset)
    }

    /// Reads the dword at an offset; 0 behind the registers.
    pub fn read(&self, offset: u16) -> u32 {
        if offset < SIZE { self.registers.read(offset) } else { 0 }
    }

    /// All of it, as stored.
    pub fn bytes(&self) -> &[u8] {
        self.registers.bytes()
    }

    /// A number that is another one after every change.
    pub fn version(&self) -> u64 {
        self.registers.version()
    }

    /// Writes the bytes that `enabled` masks of the dword at an offset.
    pub fn write(&mut self, offset: u16, value: u32, enabled: u32) {
        if is_payload(offset) {
            let old = self.registers.read(offset);
            self.registers.put(offset, old & !enabled | value & enabled);
            return;
        }
        self.registers.write(offset, value, enabled, false);
        let control: Control = self.registers.get(MAILBOX);
        if offset == MAILBOX + Control::SPEC.offset && control.doorbell() {
            let code = self.execute();
            self.registers.set(MAILBOX, StatusHigh::new().with_return_code(code.code()));
            self.registers.set(MAILBOX, control.with_doorbell(false));
        }
    }

    fn execute(&mut self) -> ReturnCode {
        let (low, high): (CommandLow, CommandHigh) =
            (self.registers.get(MAILBOX), self.registers.get(MAILBOX));
        let command = Command::decode(low, high);
        let start = usize::from(MAILBOX + PAYLOAD_OFFSET);
        let payload = self.registers.bytes().get(start..start + PAYLOAD_BYTES).unwrap_or(&[]);
        let Some(input) = payload.get(..command.length as usize) else {
            return ReturnCode::InvalidPayloadLength;
        };
        match self.commands.run(command.opcode, input, PAYLOAD_BYTES) {
            Ok(output) => self.answer(command.opcode, &output),
            Err(code) => code,
        }
    }

    fn answer(&mut self, opcode: Opcode, output: &[u8]) -> ReturnCode {
        for (at, chunk) in (MAILBOX + PAYLOAD_OFFSET..).step_by(4).zip(output.chunks(4)) {
            let mut dword = [0; 4];
            for (to, from) in dword.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.registers.put(at, u32::from_le_bytes(dword));
        }
        let Some((low, high)) = (Command { opcode, length: output.len() as u32 }).encode() else {
            return ReturnCode::InternalError;
        };
        self.registers.set(MAILBOX, low);
        self.registers.set(MAILBOX, high);
        ReturnCode::Success
    }

    /// From now on labels and shutdown state are those of a file, and go there.
    pub(crate) fn keep_labels(&mut self, file: LabelFile) -> io::Result<()> {
        self.commands.keep_labels(file)
    }

    /// Forgets everything but what the device is.
    pub fn reset(&mut self) {
        self.registers.reset(0..SIZE, |_| false);
        self.commands.reset();
    }
}
