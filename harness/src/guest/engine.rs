//! A DMA engine as a guest finds it: a PCI function of class 08_01_00 (DMA controller) with one BAR,
//! on bus 0 of the first segment, beside the CXL hierarchies.
//!
//! ```text
//! offset  register of channel n, at 0x40 * n; dwords
//!   0x00  address of the scatter list, low
//!   0x04  address of the scatter list, high
//!   0x08  entries in the list
//!   0x0c  write 1: start. Read: 0 idle, 1 running, 2 done, 3 failed
//!   0x10  after a failure: 1 passes the end of the address space, 2 nothing decodes, 3 registers,
//!         4 the list is too long
//!   0x18  after a failure: the address, low
//!   0x1c  after a failure: the address, high
//! ```
//!
//! An entry of the list has 32 bytes: source, destination and length, each 64 bits, and 64 bits that
//! mean nothing. With every access of the guest that reaches the VMM each running channel moves on
//! by [`STEP`] bytes, so channels run side by side, and a run repeats exactly.
//!
//! **Invariant**: the engine moves bytes only while Bus Master is on, and only through
//! [`Memory`], which decides what is memory. It holds a list of at most 65,536 entries for each channel
//! and the first [`MOST_ENDED`] ends.

use cxl_regs::Hpa;
use cxl_regs::Span;
use cxl_regs::access::{Features, Register};
use cxl_regs::config::{Bar as BarRegister, BarKind, CONFIG_SIZE, Command};

use crate::dma::{DmaError, Entry, Memory, Moved, Transfer};
use cxl_model::device::config::{Bar, Function};
use cxl_model::kept::Kept;
use cxl_model::layout::bars_of_buses;
use cxl_model::machine::Machine;

/// Bytes that a channel moves at a time.
pub const STEP: u64 = 4096;
/// Channels.
pub const CHANNELS: usize = 4;
/// Entries in a list.
const MOST_ENTRIES: u32 = 1 << 16;
const ENTRY_SIZE: u64 = 32;

const CLASS: u32 = 0x08_01_00;
const BAR: Bar = Bar { index: 0, size: 4096 };
/// The bus; the platform uses it for nothing else, unless a scenario puts a host bridge there.
const BUS: u8 = 0;
const CHANNEL_SIZE: u64 = 0x40;

/// A transfer that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The channel.
    pub channel: usize,
    /// What was moved.
    pub moved: Moved,
    /// The most channels that were running while it was, itself included.
    pub together: usize,
    /// What stopped it.
    pub error: Option<Fault>,
}

/// Why a channel stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A range, or the list itself, is not in memory.
    Memory(DmaError),
    /// The list has more entries than a channel takes.
    List {
        /// Where it is.
        address: u64,
        /// Entries.
        entries: u32,
    },
}

impl Fault {
    fn code(self) -> u32 {
        match self {
            Self::Memory(DmaError::Wraps { .. }) => 1,
            Self::Memory(DmaError::NothingDecodes { .. }) => 2,
            Self::Memory(DmaError::Registers { .. }) => 3,
            Self::List { .. } => 4,
        }
    }

    fn address(self) -> u64 {
        match self {
            Self::Memory(error) => error.address(),
            Self::List { address, .. } => address,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory(error) => error.fmt(f),
            Self::List { address, entries } => {
                write!(f, "the list at {address:#x} has {entries} entries, {MOST_ENTRIES} at most")
            }
        }
    }
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    /// Started; the list is not read yet.
    Started,
    Running(Transfer),
    Done,
    Failed(Fault),
}

#[derive(Debug, Default)]
struct Channel {
    list: u64,
    entries: u32,
    state: State,
    /// The most channels that ran beside it since it was started, itself included.
    together: usize,
}

impl Channel {
    fn read(&self, register: u64) -> u32 {
        let fault = match self.state {
            State::Failed(fault) => Some(fault),
            _ => None,
        };
        match register {
            0x00 => self.list as u32,
            0x04 => (self.list >> 32) as u32,
            0x08 => self.entries,
            0x0C => match self.state {
                State::Idle => 0,
                State::Started | State::Running(_) => 1,
                State::Done => 2,
                State::Failed(_) => 3,
            },
            0x10 => fault.map_or(0, Fault::code),
            0x18 => fault.map_or(0, |fault| fault.address() as u32),
            0x1C => fault.map_or(0, |fault| (fault.address() >> 32) as u32),
            _ => 0,
        }
    }

    fn write(&mut self, register: u64, value: u32) {
        if self.running() {
            return;
        }
        match register {
            0x00 => self.list = self.list >> 32 << 32 | u64::from(value),
            0x04 => self.list = self.list & 0xFFFF_FFFF | u64::from(value) << 32,
            0x08 => self.entries = value,
            0x0C if value == 1 => (self.state, self.together) = (State::Started, 0),
            _ => {}
        }
    }

    fn running(&self) -> bool {
        matches!(self.state, State::Started | State::Running(_))
    }

    /// Moves on by a step; what was moved in all, if that was the last.
    fn step(&mut self, memory: &mut Memory<'_>) -> Option<(Moved, Option<Fault>)> {
        let mut transfer = match std::mem::take(&mut self.state) {
            State::Running(transfer) => transfer,
            State::Started => match self.fetch(memory) {
                Ok(list) => Transfer::new(list),
                Err(fault) => {
                    self.state = State::Failed(fault);
                    return Some((Moved::default(), Some(fault)));
                }
            },
            rest => {
                self.state = rest;
                return None;
            }
        };
        let stepped = transfer.step(memory, STEP);
        let moved = transfer.moved();
        let (state, ended) = match stepped {
            Ok(false) => (State::Running(transfer), None),
            Ok(true) => (State::Done, Some((moved, None))),
            Err(error) => {
                let fault = Fault::Memory(error);
                (State::Failed(fault), Some((moved, Some(fault))))
            }
        };
        self.state = state;
        ended
    }

    fn fetch(&self, memory: &mut Memory<'_>) -> Result<Vec<Entry>, Fault> {
        let (address, entries) = (self.list, self.entries);
        if entries > MOST_ENTRIES {
            return Err(Fault::List { address, entries });
        }
        let mut bytes = vec![0; (u64::from(entries) * ENTRY_SIZE) as usize];
        memory.read(address, &mut bytes).map_err(Fault::Memory)?;
        let (words, _) = bytes.as_chunks::<8>();
        let (list, _) = words.as_chunks::<{ ENTRY_SIZE as usize / 8 }>();
        let entry = |[from, to, length, _]: &[[u8; 8]; 4]| Entry {
            from: u64::from_le_bytes(*from),
            to: u64::from_le_bytes(*to),
            length: u64::from_le_bytes(*length),
        };
        Ok(list.iter().map(entry).collect())
    }
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    /// Its configuration space.
    config: Span,
    /// What the platform routes to its bus.
    bars: Span,
    function: Function,
    channels: [Channel; CHANNELS],
    /// Transfers that have ended, in order.
    pub ended: Kept<Ended, MOST_ENDED>,
}

/// Transfers that are kept: a guest can end one with every access.
pub const MOST_ENDED: usize = 1024;

/// What an access to the engine reaches.
enum Reached {
    Config(u16),
    Register(u64),
}

impl Engine {
    /// The engine of a machine, placed by the platform; `None` if its bus belongs to a host bridge
    /// or there is no segment.
    pub fn of(machine: &Machine) -> Option<Self> {
        let (segment, ecam) = machine.map().ecam.first().copied()?;
        let mut bridges = machine.scenario().bridges.iter();
        if bridges.any(|bridge| bridge.segment == segment && bridge.bus == BUS) {
            return None;
        }
        let config = Span::new(ecam.base(), u64::from(CONFIG_SIZE)).ok()?;
        let bars = bars_of_buses(segment, BUS, BUS);
        let mut function = Function::endpoint(CLASS, Features::NONE, &[BAR]);
        let at = BarRegister::SPEC.offset;
        let (low, high) = BarKind::Memory64 { prefetchable: false }.at(bars.base().0);
        let command = Command::new().with_memory_space(true).with_bus_master(true);
        for (offset, value) in [(at, low), (at + 4, high), (Command::SPEC.offset, command.raw())] {
            let _ = function.write(offset, value, u32::MAX);
        }
        Some(Self { config, bars, function, channels: Default::default(), ended: Kept::new() })
    }

    /// Whether an address is the engine's, provided that nothing of the machine claims it.
    pub fn claims(&self, address: u64) -> bool {
        self.reached(address).is_some()
    }

    fn reached(&self, address: u64) -> Option<Reached> {
        if let Some(offset) = self.config.offset_of(Hpa(address)) {
            return u16::try_from(offset).ok().map(Reached::Config);
        }
        if !self.bars.contains(Hpa(address)) {
            return None;
        }
        self.function.bar_at(address).map(|(_, offset)| Reached::Register(offset))
    }

    /// Answers a read.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xFF);
        match self.reached(address) {
            Some(Reached::Config(offset)) => {
                let dword = self.function.read(offset & !3).to_le_bytes();
                let lane = usize::from(offset & 3);
                if let Some(bytes) = dword.get(lane..lane + data.len()) {
                    data.copy_from_slice(bytes);
                }
            }
            Some(Reached::Register(offset)) => {
                let value = self.channels.get((offset / CHANNEL_SIZE) as usize);
                let value = value.map_or(0, |channel| channel.read(offset % CHANNEL_SIZE));
                if offset % 4 == 0 && data.len() == 4 {
                    data.copy_from_slice(&value.to_le_bytes());
                }
            }
            None => {}
        }
    }

    /// Takes a write.
    pub fn write(&mut self, address: u64, data: &[u8]) {
        match self.reached(address) {
            Some(Reached::Config(offset)) => {
                let lane = usize::from(offset & 3);
                let (mut value, mut enabled) = ([0; 4], [0; 4]);
                if let Some(bytes) = value.get_mut(lane..lane + data.len()) {
                    bytes.copy_from_slice(data);
                    enabled.iter_mut().skip(lane).take(data.len()).for_each(|byte| *byte = 0xFF);
                }
                let (value, enabled) = (u32::from_le_bytes(value), u32::from_le_bytes(enabled));
                // The function has no decoders, and where it is found is looked up every time.
                let _ = self.function.write(offset & !3, value, enabled);
            }
            Some(Reached::Register(offset)) => {
                let channel = self.channels.get_mut((offset / CHANNEL_SIZE) as usize);
                if let (Some(channel), Ok(value), 0) = (channel, data.try_into(), offset % 4) {
                    channel.write(offset % CHANNEL_SIZE, u32::from_le_bytes(value));
                }
            }
            None => {}
        }
    }

    /// Makes every channel idle, wherever its transfer is.
    pub fn stop(&mut self) {
        self.channels = Default::default();
    }

    /// Moves every running channel on.
    pub fn step(&mut self, memory: &mut Memory<'_>) {
        let running = self.channels.iter().filter(|channel| channel.running()).count();
        if running == 0 || !self.function.get::<Command>(0).bus_master() {
            return;
        }
        for (number, channel) in self.channels.iter_mut().enumerate() {
            if channel.running() {
                channel.together = channel.together.max(running);
            }
            if let Some((moved, error)) = channel.step(memory) {
                let together = channel.together;
                self.ended.push(Ended { channel: number, moved, together, error });
            }
        }
    }
}
