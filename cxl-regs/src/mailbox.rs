//! CXL device registers: the capability array, the primary mailbox, the memory device status
//! (CXL r3.1 section 8.2.8), and the two commands that tell how much memory there is (8.2.9.9).
//!
//! All of it is reached by dwords: 64-bit registers are two of them here.
//!
//! **Invariant**: payload lengths and capacities are checked where they are decoded; capacities
//! are bytes everywhere else.

use core::fmt;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::access::rules::{RO, RW};
use crate::access::{Register, register};
use crate::addr::DECODER_UNIT;
use crate::block::{self, block};
use crate::codes::codes;

register! {
    /// CXL Device Capabilities Array (31:0) Register, offset 0x00 (CXL r3.1 section 8.2.8.1).
    ArrayLow: u32, "CXL Device Capabilities Array (31:0)" at 0x00 {
        /// 0 for the array.
        id: u16, "Capability ID", RO;
        /// Version of the array.
        version: u8, "Version", RO;
        /// 0 unknown, 1 memory device, 2 switch mailbox.
        kind: u8[4], "Type", RO;
        __: u8[4];
    }
}

register! {
    /// CXL Device Capabilities Array (63:32) Register, offset 0x04 (CXL r3.1 section 8.2.8.1).
    ArrayHigh: u32, "CXL Device Capabilities Array (63:32)" at 0x04 {
        /// Entries that follow.
        count: u16, "Capabilities Count", RO;
        __: u16;
    }
}

register! {
    /// CXL Device Capability Header (31:0) Register, offset 0x10 (CXL r3.1 section 8.2.8.2). The
    /// first entry; each further one is 16 bytes on.
    EntryHeader: u32, "CXL Device Capability Header (31:0)" at 0x10 {
        /// See [`DeviceCapabilityId`].
        id: u16, "Capability ID", RO;
        /// Version of the structure.
        version: u8, "Version", RO;
        __: u8;
    }
}

register! {
    /// CXL Device Capability Header (63:32) Register, offset 0x14 (CXL r3.1 section 8.2.8.2).
    EntryOffset: u32, "CXL Device Capability Header (63:32)" at 0x14 {
        /// From the start of the register block.
        offset: u32, "Offset", RO;
    }
}

register! {
    /// CXL Device Capability Header (95:64) Register, offset 0x18 (CXL r3.1 section 8.2.8.2).
    EntryLength: u32, "CXL Device Capability Header (95:64)" at 0x18 {
        /// Of the structure in bytes.
        length: u32, "Length", RO;
    }
}

register! {
    /// Mailbox Capabilities Register, offset 0x00 (CXL r3.1 section 8.2.8.4.3).
    Capabilities: u32, "Mailbox Capabilities" at 0x00 {
        /// Log2 of the payload area's bytes: 8 to 20.
        payload_size: u8[5], "Payload Size", RO;
        /// Can tell when a command is done.
        doorbell_interrupt: bool, "MB Doorbell Interrupt Capable", RO;
        /// Can tell when a background command is done.
        background_interrupt: bool, "Background Command Complete Interrupt Capable", RO;
        /// MSI vector.
        interrupt_message: u8[4], "Interrupt Message Number", RO;
        /// Seconds after reset until the interface is ready; 0 not reported.
        ready_time: u8, "Mailbox Ready Time", RO;
        /// As in the capability array.
        kind: u8[4], "Type", RO;
        __: u16[9];
    }
}

register! {
    /// Mailbox Control Register, offset 0x04 (CXL r3.1 section 8.2.8.4.4).
    Control: u32, "Mailbox Control" at 0x04 {
        /// Software sets it to start a command, the device clears it when done.
        doorbell: bool, "Doorbell", RW;
        /// Tell when a command is done.
        doorbell_interrupt: bool, "MB Doorbell Interrupt", RW;
        /// Tell when a background command is done.
        background_interrupt: bool, "Background Command Complete Interrupt", RW;
        __: u32[29];
    }
}

register! {
    /// Command (31:0) Register, offset 0x08 (CXL r3.1 section 8.2.8.4.5).
    CommandLow: u32, "Command (31:0)" at 0x08 {
        /// See [`Opcode`].
        opcode: u16, "Command Opcode", RW;
        /// Low bits of the payload's bytes.
        length: u16, "Payload Length [15:0]", RW;
    }
}

register! {
    /// Command (63:32) Register, offset 0x0C (CXL r3.1 section 8.2.8.4.5).
    CommandHigh: u32, "Command (63:32)" at 0x0C {
        /// High bits of the payload's bytes.
        length: u8[5], "Payload Length [20:16]", RW;
        __: u32[27];
    }
}

register! {
    /// Mailbox Status (31:0) Register, offset 0x10 (CXL r3.1 section 8.2.8.4.6).
    StatusLow: u32, "Mailbox Status (31:0)" at 0x10 {
        /// A background command is running.
        background: bool, "Background Operation", RO;
        __: u32[31];
    }
}

register! {
    /// Mailbox Status (63:32) Register, offset 0x14 (CXL r3.1 section 8.2.8.4.6).
    StatusHigh: u32, "Mailbox Status (63:32)" at 0x14 {
        /// See [`ReturnCode`].
        return_code: u16, "Return Code", RO;
        /// The vendor's.
        vendor_status: u16, "Vendor Specific Extended Status", RO;
    }
}

register! {
    /// Background Command Status (31:0) Register, offset 0x18 (CXL r3.1 section 8.2.8.4.7).
    BackgroundLow: u32, "Background Command Status (31:0)" at 0x18 {
        /// The last background command.
        opcode: u16, "Command Opcode", RO;
        /// 0 to 100.
        percent: u8[7], "Percentage Complete", RO;
        __: u16[9];
    }
}

register! {
    /// Background Command Status (63:32) Register, offset 0x1C (CXL r3.1 section 8.2.8.4.7).
    BackgroundHigh: u32, "Background Command Status (63:32)" at 0x1C {
        /// See [`ReturnCode`].
        return_code: u16, "Return Code", RO;
        /// The vendor's.
        vendor_status: u16, "Vendor Specific Extended Status", RO;
    }
}

register! {
    /// Memory Device Status Register, offset 0x00 (CXL r3.1 section 8.2.8.5.1.1). The high dword is
    /// reserved.
    MemoryDeviceStatus: u32, "Memory Device Status" at 0x00 {
        /// The device is broken; replace it.
        fatal: bool, "Device Fatal", RO;
        /// The device's firmware has stopped; reset it.
        firmware_halt: bool, "FW Halt", RO;
        /// See [`MediaStatus`].
        media_status: u8[2], "Media Status", RO;
        /// The mailbox takes commands.
        interface_ready: bool, "Mailbox Interfaces Ready", RO;
        /// 0 none, 1 cold, 2 warm, 3 hot, 4 CXL Reset.
        reset_needed: u8[3], "Reset Needed", RO;
        __: u32[24];
    }
}

codes! {
    /// Device capability IDs (section 8.2.8.2.1).
    DeviceCapabilityId: u16 {
        /// Device status.
        DeviceStatus = 0x0001, "device status";
        /// Primary mailbox.
        PrimaryMailbox = 0x0002, "primary mailbox";
        /// Secondary mailbox.
        SecondaryMailbox = 0x0003, "secondary mailbox";
        /// Memory device status.
        MemoryDeviceStatus = 0x4000, "memory device status";
    }
}

codes! {
    /// Commands (section 8.2.9).
    Opcode: u16 {
        /// Get Event Records.
        GetEventRecords = 0x0100, "Get Event Records";
        /// Clear Event Records.
        ClearEventRecords = 0x0101, "Clear Event Records";
        /// Get Event Interrupt Policy.
        GetEventInterruptPolicy = 0x0102, "Get Event Interrupt Policy";
        /// Set Event Interrupt Policy.
        SetEventInterruptPolicy = 0x0103, "Set Event Interrupt Policy";
        /// Get Timestamp.
        GetTimestamp = 0x0300, "Get Timestamp";
        /// Set Timestamp.
        SetTimestamp = 0x0301, "Set Timestamp";
        /// Get Supported Logs.
        GetSupportedLogs = 0x0400, "Get Supported Logs";
        /// Get Log.
        GetLog = 0x0401, "Get Log";
        /// Identify Memory Device.
        IdentifyMemoryDevice = 0x4000, "Identify Memory Device";
        /// Get Partition Info.
        GetPartitionInfo = 0x4100, "Get Partition Info";
        /// Get Label Storage Area.
        GetLabels = 0x4102, "Get LSA";
        /// Set Label Storage Area.
        SetLabels = 0x4103, "Set LSA";
        /// Get Health Info.
        GetHealthInfo = 0x4200, "Get Health Info";
        /// Get Shutdown State.
        GetShutdownState = 0x4203, "Get Shutdown State";
        /// Set Shutdown State.
        SetShutdownState = 0x4204, "Set Shutdown State";
    }
}

codes! {
    /// Return codes (section 8.2.8.4.5.1).
    ReturnCode: u16 {
        /// Done.
        Success = 0x00, "success";
        /// Going on in the background.
        BackgroundStarted = 0x01, "background command started";
        /// Input makes no sense.
        InvalidInput = 0x02, "invalid input";
        /// No such command.
        Unsupported = 0x03, "unsupported";
        /// The device failed.
        InternalError = 0x04, "internal error";
        /// Try again.
        RetryRequired = 0x05, "retry required";
        /// A command is running.
        Busy = 0x06, "busy";
        /// Media is disabled.
        MediaDisabled = 0x07, "media disabled";
        /// No such event record.
        InvalidHandle = 0x0E, "invalid handle";
        /// Not on this mailbox.
        UnsupportedMailbox = 0x15, "unsupported mailbox";
        /// Input length makes no sense.
        InvalidPayloadLength = 0x16, "invalid payload length";
        /// No such log.
        InvalidLog = 0x17, "invalid log";
    }
}

codes! {
    /// State of the media (section 8.2.8.5.1.1).
    MediaStatus: u8 {
        /// Training, or not started.
        NotReady = 0, "not ready";
        /// Usable.
        Ready = 1, "ready";
        /// Failed.
        Error = 2, "error";
        /// Disabled.
        Disabled = 3, "disabled";
    }
}

block! {
    /// The mailbox registers, as far as the payload.
    Mailbox {
        /// Payload size.
        capabilities: Capabilities;
        /// Doorbell.
        control: Control;
        /// Opcode and length.
        command_low: CommandLow;
        /// Length.
        command_high: CommandHigh;
        /// Background operation.
        status_low: StatusLow;
        /// Return code.
        status_high: StatusHigh;
        /// Background command.
        background_low: BackgroundLow;
        /// Its return code.
        background_high: BackgroundHigh;
    }
}

/// Offset of the payload in the mailbox registers.
pub const PAYLOAD_OFFSET: u16 = Mailbox::EXTENT.end;
const _: () = assert!(PAYLOAD_OFFSET == 0x20);

impl Capabilities {
    /// Bytes of the payload area; `None` outside 256 bytes to 1 MiB.
    pub const fn payload_bytes(self) -> Option<u32> {
        match self.payload_size() {
            size @ 8..=20 => Some(1 << size),
            _ => None,
        }
    }
}

impl MemoryDeviceStatus {
    /// Whether commands and memory can be used.
    pub fn ready(self) -> bool {
        let media = MediaStatus::from_code(self.media_status());
        self.interface_ready()
            && media == MediaStatus::Ready
            && !self.fatal()
            && !self.firmware_halt()
    }
}

/// A command and the bytes of its payload: the Command register as one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// What to do.
    pub opcode: Opcode,
    /// Bytes of input before, of output after. 21 bits.
    pub length: u32,
}

impl Command {
    /// Bits of the length field that lie in the low dword.
    const LOW_BITS: u32 = CommandLow::LENGTH_BITS as u32;

    /// The value of the two dwords.
    pub fn decode(low: CommandLow, high: CommandHigh) -> Self {
        let length = u32::from(high.length()) << Self::LOW_BITS | u32::from(low.length());
        Self { opcode: Opcode::from_code(low.opcode()), length }
    }

    /// The two dwords, low first; `None` if the length has more than 21 bits.
    pub fn encode(self) -> Option<(CommandLow, CommandHigh)> {
        let high = CommandHigh::new().with_length_checked((self.length >> 16).try_into().ok()?);
        let low = CommandLow::new().with_opcode(self.opcode.code());
        Some((low.with_length(self.length as u16), high.ok()?))
    }
}

/// Output of Identify Memory Device (section 8.2.9.9.1.1). Capacities are in units of 256 MiB.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct IdentifyMemoryDevice {
    /// Firmware revision, ASCII.
    pub firmware_revision: [u8; 16],
    /// All memory.
    pub total: U64,
    /// Memory that is always volatile.
    pub volatile_only: U64,
    /// Memory that is always persistent.
    pub persistent_only: U64,
    /// Unit of what can be either; 0 if nothing can.
    pub partition_alignment: U64,
    /// Entries of the informational event log.
    pub informational_events: U16,
    /// Entries of the warning event log.
    pub warning_events: U16,
    /// Entries of the failure event log.
    pub failure_events: U16,
    /// Entries of the fatal event log.
    pub fatal_events: U16,
    /// Bytes of the label storage area.
    pub label_storage: U32,
    /// Most entries of the poison list, 24 bits.
    pub poison_list: [u8; 3],
    /// Most poison that can be injected; 0 for no limit.
    pub inject_poison_limit: U16,
    /// How poison is handled.
    pub poison_capabilities: u8,
    /// QoS telemetry.
    pub qos_capabilities: u8,
    /// Entries of the dynamic capacity event log (CXL r3.0 and later).
    pub dynamic_capacity_events: U16,
}

/// Output of Get Partition Info (section 8.2.9.9.2.1). Capacities are in units of 256 MiB.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct PartitionInfo {
    /// Volatile now.
    pub active_volatile: U64,
    /// Persistent now.
    pub active_persistent: U64,
    /// Volatile after the next reset; 0 with the next field 0 for no change.
    pub next_volatile: U64,
    /// Persistent after the next reset.
    pub next_persistent: U64,
}

const _: () = assert!(size_of::<IdentifyMemoryDevice>() == 0x45);
const _: () = assert!(size_of::<PartitionInfo>() == 0x20);

/// Length of the Identify output in CXL 2.0, which ends before dynamic capacity.
const IDENTIFY_CXL_2: u32 = 0x43;

/// A capacity field in bytes; `None` if it is more than 64 bits can count.
pub const fn capacity_bytes(units: U64) -> Option<u64> {
    units.get().checked_mul(DECODER_UNIT)
}

/// A payload that is too short for the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortPayload {
    /// The command.
    pub opcode: Opcode,
    /// The least its output has.
    pub need: u32,
    /// What the device gave.
    pub have: u32,
}

impl fmt::Display for ShortPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { opcode, need, have } = self;
        write!(f, "{opcode} gave {have} bytes of payload, it has at least {need}")
    }
}

impl core::error::Error for ShortPayload {}

/// Copies up to `length` bytes of the payload of the mailbox at `base`, a multiple of 4 as registers are, to
/// the front of `value`.
// Compiled once, whatever the payload is.
#[inline(never)]
fn payload(mut reader: impl FnMut(u16) -> u32, base: u16, length: u32, value: &mut [u8]) {
    let length = length.try_into().unwrap_or(usize::MAX).min(value.len());
    let dwords = value.get_mut(..length).unwrap_or_default().chunks_mut(size_of::<u32>());
    let start = base.wrapping_add(PAYLOAD_OFFSET);
    for (index, dword) in (0u16..).zip(dwords) {
        let found = reader(start.wrapping_add(4 * index) & !3).to_le_bytes();
        for (place, byte) in dword.iter_mut().zip(found) {
            *place = byte;
        }
    }
}

impl IdentifyMemoryDevice {
    /// Reads the output out of the payload of the mailbox at `base`, of which the device said
    /// that it has `length` bytes.
    pub fn read(
        reader: impl FnMut(u16) -> u32,
        base: u16,
        length: u32,
    ) -> Result<Self, ShortPayload> {
        let (opcode, need) = (Opcode::IdentifyMemoryDevice, IDENTIFY_CXL_2);
        if length < need {
            return Err(ShortPayload { opcode, need, have: length });
        }
        let mut value = Self::new_zeroed();
        payload(reader, base, length, value.as_mut_bytes());
        Ok(value)
    }
}

impl PartitionInfo {
    /// Reads the output out of the payload of the mailbox at `base`, of which the device said
    /// that it has `length` bytes.
    pub fn read(
        reader: impl FnMut(u16) -> u32,
        base: u16,
        length: u32,
    ) -> Result<Self, ShortPayload> {
        let (opcode, need) = (Opcode::GetPartitionInfo, size_of::<Self>() as u32);
        if length < need {
            return Err(ShortPayload { opcode, need, have: length });
        }
        let mut value = Self::new_zeroed();
        payload(reader, base, length, value.as_mut_bytes());
        Ok(value)
    }
}

/// Why the capability array, or an entry, makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceArrayError {
    /// Nothing answers.
    AllOnes,
    /// The array does not start with ID 0, version 1 or later.
    Header {
        /// The dword.
        found: u32,
    },
    /// A structure is not on a dword, or lies in the array, or is empty or passes the end.
    Place {
        /// Which entry, from 0.
        entry: u16,
        /// Its offset.
        offset: u32,
        /// Its length.
        length: u32,
    },
}

impl fmt::Display for DeviceArrayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllOnes => f.write_str("device registers read as all-ones: nothing answers"),
            Self::Header { found } => {
                write!(f, "device capability array starts with {found:#010x}, not ID 0 version 1")
            }
            // What was read says how it came about: no structure has such a place, or such a length.
            Self::Place { entry, offset, length } if *offset == u32::MAX || *length == u32::MAX => {
                write!(
                    f,
                    "device capability {entry} reads as all-ones (offset {offset:#x}, length \
                     {length:#x}): nothing answers there"
                )
            }
            Self::Place { entry, offset, length } => write!(
                f,
                "device capability {entry} at offset {offset:#x}, length {length:#x}, is no place \
                 for a structure: it has to lie behind the array, in whole dwords, with a length"
            ),
        }
    }
}

impl core::error::Error for DeviceArrayError {}

/// A structure of the device registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceCapability {
    /// What it is.
    pub id: DeviceCapabilityId,
    /// Version.
    pub version: u8,
    /// Offset from the start of the register block.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
}

/// The entries of the device capability array. Only those in the block's first 64 KiB are read.
#[derive(Clone, Debug)]
pub struct DeviceCapabilities<R> {
    reader: R,
    entries: core::ops::Range<u16>,
}

/// Bytes of one entry, and of what is in front of the first.
const ENTRY_SIZE: u16 = EntryHeader::SPEC.offset;

impl<R: FnMut(u16) -> u32> DeviceCapabilities<R> {
    /// Reads the header of the array at the start of the register block.
    pub fn new(mut reader: R) -> Result<Self, DeviceArrayError> {
        let low: ArrayLow = block::read(&mut reader, 0);
        if low.into_bits() == u32::MAX {
            return Err(DeviceArrayError::AllOnes);
        }
        if low.id() != 0 || low.version() == 0 {
            return Err(DeviceArrayError::Header { found: low.into_bits() });
        }
        let high: ArrayHigh = block::read(&mut reader, 0);
        let most = u16::MAX / ENTRY_SIZE;
        Ok(Self { reader, entries: 0..high.count().min(most) })
    }

    /// The first structure of a kind; broken entries in front of it are an error.
    pub fn find(
        mut self,
        id: DeviceCapabilityId,
    ) -> Result<Option<DeviceCapability>, DeviceArrayError> {
        self.find_map(|found| match found {
            Ok(found) => (found.id == id).then_some(Ok(found)),
            Err(error) => Some(Err(error)),
        })
        .transpose()
    }
}

impl<R: FnMut(u16) -> u32> Iterator for DeviceCapabilities<R> {
    type Item = Result<DeviceCapability, DeviceArrayError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        let at = ENTRY_SIZE.wrapping_mul(entry);
        let header: EntryHeader = block::read(&mut self.reader, at);
        let offset = block::read::<EntryOffset>(&mut self.reader, at).offset();
        let length = block::read::<EntryLength>(&mut self.reader, at).length();
        let array = u32::from(ENTRY_SIZE) * (u32::from(self.entries.end) + 1);
        let ends = offset.checked_add(length).is_some() && length != 0;
        Some(if offset.is_multiple_of(4) && offset >= array && ends {
            let id = DeviceCapabilityId::from_code(header.id());
            Ok(DeviceCapability { id, version: header.version(), offset, length })
        } else {
            Err(DeviceArrayError::Place { entry, offset, length })
        })
    }
}
