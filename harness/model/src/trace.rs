//! Register traffic: counts always, a record of every access on demand. With the record comes one
//! of every access to CXL memory that the machine had to decode, and the way it took.
//!
//! **Invariant**: an access is counted once, whether or not anything answered it; accesses to CXL
//! memory are no register traffic and not counted here. Of accesses and of walks the first ones are
//! kept, up to [`MOST_ACCESSES`] and [`MOST_PARTS`], the rest is counted.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use cxl_regs::Hpa;
use cxl_regs::access::Register;
use cxl_regs::hdm::Control;
use serde::Serialize;

use crate::device::Name;
use crate::kept::Kept;
use crate::mapping::{Path, Reason};
use crate::scenario::Place;

/// Which way an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Out of the device.
    Read,
    /// Into it.
    Write,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// What answers at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Configuration space of a function.
    Config {
        /// Whose.
        place: Place,
        /// Offset in it.
        offset: u16,
    },
    /// Component registers.
    Component {
        /// Whose.
        place: Place,
        /// Offset in the block.
        offset: u32,
    },
    /// Memory behind a BAR: no registers, any access will do.
    VendorMemory {
        /// Index of the device.
        device: usize,
        /// Offset in the component block.
        offset: u32,
    },
    /// Device registers, with the mailbox.
    DeviceRegisters {
        /// Index of the device.
        device: usize,
        /// Offset in the block.
        offset: u16,
    },
    /// A fixed memory window.
    Window,
}

/// One access to a dword of registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Counted from 0.
    pub sequence: u64,
    /// Read or write.
    pub direction: Direction,
    /// Physical address.
    pub address: u64,
    /// What the address leads to; `None` if to nothing.
    pub target: Option<Target>,
    /// The component that answered; `None` if nothing did.
    pub place: Option<Place>,
    /// The register; `None` if no table names it.
    pub name: Option<Name>,
    /// What was read or written.
    pub value: u32,
}

/// Reads and writes.
#[cfg_attr(feature = "dump", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Count {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.reads += other.reads;
        self.writes += other.writes;
    }
}

impl Count {
    /// Counts one access.
    pub fn add(&mut self, direction: Direction) {
        match direction {
            Direction::Read => self.reads += 1,
            Direction::Write => self.writes += 1,
        }
    }
}

/// Reads and writes of one decoder, by what it had been through when they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecoderCount {
    /// Before anything was written to it.
    pub found: Count,
    /// From the first write up to the one that sets Commit.
    pub program: Count,
    /// That write, and the reads up to the one that shows how the commit ended.
    pub commit: Count,
    /// Taking the commit back to make it again with the lock.
    pub lock: Count,
    /// Everything else.
    pub after: Count,
    /// What came since Commit was last cleared, which is `lock`'s or `after`'s.
    taken_back: Count,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Found,
    Program,
    Commit,
    After,
    TakenBack,
    Lock,
}

/// Bits of a decoder's Control.
const LOCK: u32 = 1 << 8;
const COMMIT: u32 = 1 << 9;
const COMMITTED_OR_ERROR: u32 = 0b11 << 10;

impl DecoderCount {
    /// All of them.
    pub fn all(&self) -> Count {
        let parts = [self.found, self.program, self.commit, self.lock, self.taken_back, self.after];
        let mut all = Count::default();
        parts.into_iter().for_each(|part| all += part);
        all
    }

    /// What came after the commit, but for what made it a lock.
    pub fn after(&self) -> Count {
        let mut after = self.after;
        after += self.taken_back;
        after
    }

    /// Counts an access to one of the registers; `control` if it is Control.
    pub fn add(&mut self, direction: Direction, control: bool, value: u32) {
        let write = direction == Direction::Write;
        self.stage = match self.stage {
            Stage::Found | Stage::Program if write && control && value & COMMIT != 0 => {
                Stage::Commit
            }
            Stage::Found if write => Stage::Program,
            Stage::Commit | Stage::After if write && control && value & COMMIT == 0 => {
                Stage::TakenBack
            }
            Stage::TakenBack if write && control && value & (COMMIT | LOCK) == COMMIT | LOCK => {
                self.lock += std::mem::take(&mut self.taken_back);
                Stage::Lock
            }
            // It was no lock that followed.
            Stage::TakenBack if write => {
                self.after += std::mem::take(&mut self.taken_back);
                Stage::After
            }
            // A commit is one write, and reads of Control.
            Stage::Commit | Stage::Lock if write || !control => Stage::After,
            stage => stage,
        };
        let part = match self.stage {
            Stage::Found => &mut self.found,
            Stage::Program => &mut self.program,
            Stage::Commit => &mut self.commit,
            Stage::After => &mut self.after,
            Stage::TakenBack => &mut self.taken_back,
            Stage::Lock => &mut self.lock,
        };
        part.add(direction);
        if matches!(self.stage, Stage::Commit | Stage::Lock)
            && !write
            && value & COMMITTED_OR_ERROR != 0
        {
            self.stage = Stage::After;
        }
    }
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// All of it.
    pub all: Count,
    /// By component and decoder.
    pub decoders: BTreeMap<(Place, u8), DecoderCount>,
    /// Accesses to registers that were no aligned dwords, and were dropped.
    pub ragged: u64,
}

/// An access to a window that the machine decoded, and where it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked {
    /// The number of the register access that came next.
    pub before: u64,
    /// Read or write.
    pub direction: Direction,
    /// First address.
    pub hpa: Hpa,
    /// Bytes.
    pub length: u64,
    /// The walk of each part that leads to one run of one device's memory: bytes, and the way.
    pub parts: Vec<(u64, Result<Path, Reason>)>,
}

/// Accesses that a record has: some ten times what firmware makes on the largest machine.
pub const MOST_ACCESSES: usize = 1 << 15;
/// Parts that its walks have together: a transfer may take one for every 256 bytes.
pub const MOST_PARTS: usize = 1 << 13;

/// Counts, and keeps the accesses if it was told to.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    traffic: Traffic,
    kept: Option<Kept<Access, MOST_ACCESSES>>,
    walked: Kept<Walked, MOST_PARTS>,
    /// Of those that were kept.
    parts: usize,
}

impl Recorder {
    /// Keeps every access from now on.
    pub fn keep(&mut self) {
        self.kept.get_or_insert_default();
    }

    /// Whether accesses are kept.
    pub fn keeps(&self) -> bool {
        self.kept.is_some()
    }

    /// Takes the accesses kept so far.
    pub fn take(&mut self) -> Kept<Access, MOST_ACCESSES> {
        self.kept.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes the walks kept so far.
    pub fn take_walks(&mut self) -> Kept<Walked, MOST_PARTS> {
        self.parts = 0;
        std::mem::take(&mut self.walked)
    }

    /// What was counted.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Counts from 0 again.
    pub fn clear(&mut self) {
        self.traffic = Traffic::default();
    }

    /// An access to a window.
    pub(crate) fn walked(&mut self, mut walked: Walked) {
        walked.before = self.traffic.all.reads + self.traffic.all.writes;
        let parts = self.parts.saturating_add(walked.parts.len());
        if self.keeps() && parts <= MOST_PARTS {
            self.parts = parts;
            self.walked.push(walked);
        } else if self.keeps() {
            self.walked.pass(1);
        }
    }

    /// An access of the wrong width or alignment.
    pub(crate) fn ragged(&mut self) {
        self.traffic.ragged += 1;
    }

    /// An access to a dword.
    pub(crate) fn access(&mut self, mut access: Access) {
        access.sequence = self.traffic.all.reads + self.traffic.all.writes;
        self.traffic.all.add(access.direction);
        if let (Some(place), Some(Name { decoder: Some(decoder), register })) =
            (access.place, access.name)
        {
            let count = self.traffic.decoders.entry((place, decoder)).or_default();
            count.add(access.direction, register == Control::SPEC.name, access.value);
        }
        if let Some(kept) = &mut self.kept {
            kept.push(access);
        }
    }
}
