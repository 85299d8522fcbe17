//! What the commands of a Type 3 device's mailbox do (CXL r3.1 section 8.2.9): those that an
//! operating system wants before it takes a memory device, and those that labels and persistent
//! memory need.
//!
//! The models have no events, no errors and no temperature of their own: event logs are empty,
//! health is good. What was stored is kept whatever the shutdown state is, so that no dirty
//! shutdown is ever counted.
//!
//! **Invariant**: a command either succeeds, or changes nothing.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use cxl_regs::DECODER_UNIT;
use cxl_regs::mailbox::{IdentifyMemoryDevice, Opcode, PartitionInfo, ReturnCode};
use zerocopy::{FromZeros, IntoBytes};

use super::media::Media;
use crate::store::{LABEL_STORAGE, LabelFile};

/// The Command Effects Log's name (section 8.2.9.5.2.1), as bytes on the wire.
const COMMAND_EFFECTS: [u8; 16] = [
    0x0D, 0xA9, 0xC0, 0xB5, 0xBF, 0x41, 0x4B, 0x78, 0x8F, 0x79, 0x96, 0xB1, 0x62, 0x3B, 0x3F, 0x17,
];

/// Command effects (table 8-75).
const NOTHING: u16 = 0;
const CONFIGURATION: u16 = 1 << 1;
const DATA: u16 = 1 << 2;
const POLICY: u16 = 1 << 3;
const LOG: u16 = 1 << 4;

/// Event logs: informational, warning, failure, fatal.
const EVENT_LOGS: u8 = 4;
/// Interrupt policy of one event log: how, and by which vector.
const INTERRUPT_MODE: u8 = 0b11;

/// The shutdown state's one bit (section 8.2.9.9.3.4); the others are reserved.
const DIRTY: u8 = 1;

/// How many bytes of input a command takes.
enum Input {
    Exactly(usize),
    AtLeast(usize),
}

/// A command of these devices: its effects, and its input. `None` for one that they lack.
fn command(opcode: Opcode, persistent: bool) -> Option<(u16, Input)> {
    use Input::{AtLeast, Exactly};
    Some(match opcode {
        Opcode::GetEventRecords => (NOTHING, Exactly(1)),
        Opcode::ClearEventRecords => (LOG, AtLeast(6)),
        Opcode::GetEventInterruptPolicy => (NOTHING, Exactly(0)),
        Opcode::SetEventInterruptPolicy => (POLICY, AtLeast(EVENT_LOGS.into())),
        Opcode::GetTimestamp => (NOTHING, Exactly(0)),
        Opcode::SetTimestamp => (POLICY, Exactly(8)),
        Opcode::GetSupportedLogs => (NOTHING, Exactly(0)),
        Opcode::GetLog => (NOTHING, Exactly(24)),
        Opcode::IdentifyMemoryDevice | Opcode::GetPartitionInfo => (NOTHING, Exactly(0)),
        Opcode::GetHealthInfo => (NOTHING, Exactly(0)),
        Opcode::GetLabels if persistent => (NOTHING, Exactly(8)),
        Opcode::SetLabels if persistent => (CONFIGURATION | DATA, AtLeast(8)),
        Opcode::GetShutdownState if persistent => (NOTHING, Exactly(0)),
        Opcode::SetShutdownState if persistent => (POLICY, Exactly(1)),
        _ => return None,
    })
}

/// In the order of their codes, as the Command Effects Log lists them.
const COMMANDS: [Opcode; 15] = [
    Opcode::GetEventRecords,
    Opcode::ClearEventRecords,
    Opcode::GetEventInterruptPolicy,
    Opcode::SetEventInterruptPolicy,
    Opcode::GetTimestamp,
    Opcode::SetTimestamp,
    Opcode::GetSupportedLogs,
    Opcode::GetLog,
    Opcode::IdentifyMemoryDevice,
    Opcode::GetPartitionInfo,
    Opcode::GetLabels,
    Opcode::SetLabels,
    Opcode::GetHealthInfo,
    Opcode::GetShutdownState,
    Opcode::SetShutdownState,
];

/// What the commands of one device know and keep.
#[derive(Clone, Debug)]
pub struct Commands {
    volatile: u64,
    persistent: u64,
    /// Labels; empty without persistent memory. Kept over every reset, as the memory is.
    labels: Arc<Vec<u8>>,
    /// The shutdown state that was set. Kept as labels are.
    dirty: bool,
    /// Where both are kept beyond the machine, if they are.
    label_file: Option<Arc<LabelFile>>,
    /// The time that was set, and when that was.
    timestamp: Option<(u64, Instant)>,
    interrupt_policy: [u8; EVENT_LOGS as usize],
}

impl Commands {
    /// Of a device with this memory.
    pub fn new(media: &Media) -> Self {
        let labels = if media.persistent() == 0 { 0 } else { LABEL_STORAGE };
        Self {
            volatile: media.volatile(),
            persistent: media.persistent(),
            labels: Arc::new(vec![0; labels]),
            dirty: false,
            label_file: None,
            timestamp: None,
            interrupt_policy: [0; EVENT_LOGS as usize],
        }
    }

    /// From now on labels and shutdown state are those of a file, and go there.
    pub(crate) fn keep_labels(&mut self, file: LabelFile) -> io::Result<()> {
        let labels: &mut Vec<u8> = Arc::make_mut(&mut self.labels);
        file.read(labels)?;
        self.dirty = file.shutdown_state()? & DIRTY != 0;
        self.label_file = Some(Arc::new(file));
        Ok(())
    }

    /// Forgets what a conventional reset forgets.
    pub fn reset(&mut self) {
        self.timestamp = None;
        self.interrupt_policy = Default::default();
    }

    /// Runs a command. Of its output the first `room` bytes can be told.
    pub fn run(
        &mut self,
        opcode: Opcode,
        input: &[u8],
        room: usize,
    ) -> Result<Vec<u8>, ReturnCode> {
        let Some((_, takes)) = command(opcode, !self.labels.is_empty()) else {
            return Err(ReturnCode::Unsupported);
        };
        let right = match takes {
            Input::Exactly(length) => input.len() == length,
            Input::AtLeast(length) => input.len() >= length,
        };
        if !right {
            return Err(ReturnCode::InvalidPayloadLength);
        }
        let output = match opcode {
            Opcode::GetEventRecords => {
                known_log(input)?;
                // No record, no overflow.
                vec![0; 32]
            }
            Opcode::ClearEventRecords => {
                known_log(input)?;
                // Clear All; there is no record that a handle could name.
                let all = byte(input, 1) & 1 != 0;
                if !all && byte(input, 2) != 0 {
                    return Err(ReturnCode::InvalidHandle);
                }
                Vec::new()
            }
            Opcode::GetEventInterruptPolicy => self.interrupt_policy.to_vec(),
            Opcode::SetEventInterruptPolicy => {
                let wanted = input.iter().take(self.interrupt_policy.len());
                // There is no vector that a device of ours could use, and no firmware that listens.
                if wanted.clone().any(|settings| settings & INTERRUPT_MODE != 0) {
                    return Err(ReturnCode::InvalidInput);
                }
                self.interrupt_policy.iter_mut().zip(wanted).for_each(|(to, from)| *to = *from);
                Vec::new()
            }
            Opcode::GetTimestamp => {
                let now = self.timestamp.map_or(0, |(set, when)| {
                    set.saturating_add(when.elapsed().as_nanos().try_into().unwrap_or(u64::MAX))
                });
                now.to_le_bytes().to_vec()
            }
            Opcode::SetTimestamp => {
                let set = u64::from(dword(input, 4)) << 32 | u64::from(dword(input, 0));
                self.timestamp = Some((set, Instant::now()));
                Vec::new()
            }
            Opcode::GetSupportedLogs => {
                let mut output = vec![1, 0, 0, 0, 0, 0, 0, 0];
                output.extend(COMMAND_EFFECTS);
                output.extend((self.command_effects().len() as u32).to_le_bytes());
                output
            }
            Opcode::GetLog => {
                if !input.starts_with(&COMMAND_EFFECTS) {
                    return Err(ReturnCode::InvalidLog);
                }
                part(&self.command_effects(), dword(input, 16), dword(input, 20), room)?.to_vec()
            }
            Opcode::IdentifyMemoryDevice => self.identity().as_bytes().to_vec(),
            Opcode::GetPartitionInfo => {
                let mut output = PartitionInfo::new_zeroed();
                output.active_volatile = units(self.volatile).into();
                output.active_persistent = units(self.persistent).into();
                output.as_bytes().to_vec()
            }
            Opcode::GetHealthInfo => vec![0; 18],
            Opcode::GetShutdownState => vec![if self.dirty { DIRTY } else { 0 }],
            Opcode::SetShutdownState => {
                let state = byte(input, 0);
                if state & !DIRTY != 0 {
                    return Err(ReturnCode::InvalidInput);
                }
                // First where it may fail.
                let kept =
                    self.label_file.as_ref().map_or(Ok(()), |file| file.set_shutdown_state(state));
                kept.map_err(|_| ReturnCode::InternalError)?;
                self.dirty = state != 0;
                Vec::new()
            }
            Opcode::GetLabels => {
                part(&self.labels, dword(input, 0), dword(input, 4), room)?.to_vec()
            }
            Opcode::SetLabels => {
                let data = input.get(8..).unwrap_or(&[]);
                let offset = dword(input, 0) as usize;
                let end = offset.saturating_add(data.len());
                if end > self.labels.len() {
                    return Err(ReturnCode::InvalidInput);
                }
                // First where it may fail.
                let kept = self.label_file.as_ref().map_or(Ok(()), |file| file.write(offset, data));
                kept.map_err(|_| ReturnCode::InternalError)?;
                let labels = Arc::make_mut(&mut self.labels);
                if let Some(to) = labels.get_mut(offset..end) {
                    to.copy_from_slice(data);
                }
                Vec::new()
            }
            _ => return Err(ReturnCode::Unsupported),
        };
        Ok(output)
    }

    fn identity(&self) -> IdentifyMemoryDevice {
        let mut output = IdentifyMemoryDevice::new_zeroed();
        output.firmware_revision = *b"model\0\0\0\0\0\0\0\0\0\0\0";
        output.total = units(self.volatile.saturating_add(self.persistent)).into();
        output.volatile_only = units(self.volatile).into();
        output.persistent_only = units(self.persistent).into();
        output.label_storage = (self.labels.len() as u32).into();
        output
    }

    /// Each command's opcode and effects.
    fn command_effects(&self) -> Vec<u8> {
        let entry = |&opcode: &Opcode| {
            let (effects, _) = command(opcode, !self.labels.is_empty())?;
            let [[a, b], [c, d]] = [opcode.code(), effects].map(u16::to_le_bytes);
            Some([a, b, c, d])
        };
        COMMANDS.iter().filter_map(entry).flatten().collect()
    }
}

fn units(bytes: u64) -> u64 {
    bytes / DECODER_UNIT
}

fn byte(input: &[u8], at: usize) -> u8 {
    input.get(at).copied().unwrap_or(0)
}

fn dword(input: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([0, 1, 2, 3].map(|index| byte(input, at + index)))
}

/// The event log that the first byte names.
fn known_log(input: &[u8]) -> Result<(), ReturnCode> {
    if byte(input, 0) < EVENT_LOGS { Ok(()) } else { Err(ReturnCode::InvalidInput) }
}

/// A part of something that is read piece by piece.
fn part(whole: &[u8], offset: u32, length: u32, room: usize) -> Result<&[u8], ReturnCode> {
    let (offset, length) = (offset as usize, length as usize);
    let end = offset.saturating_add(length);
    whole.get(offset..end).filter(|part| part.len() <= room).ok_or(ReturnCode::InvalidInput)
}
