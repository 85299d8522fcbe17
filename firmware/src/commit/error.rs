//! Why decoders were not committed. One variant a reason, each with the place and the numbers.
//!
//! **Invariant**: codes never change their meaning; a new reason gets a new code.

use core::fmt;

use cxl_regs::hdm::Control;
use cxl_regs::{DecodeError, Size};

use crate::codes::codes;
use crate::committed::Place;
use crate::topology::Path;

/// Why decoders were not committed, or not all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are named for what they hold; Display says it in words")]
pub enum CommitError {
    /// The plan names a decoder that the topology does not have: they do not belong together.
    NoSuchDecoder { place: Place },
    /// The plan holds what the component cannot do.
    Illegal { place: Place, error: DecodeError },
    /// The registers read all-ones: the component does not answer.
    Silent { at: Path, register: &'static str },
    /// Somebody's commit was refused or has not ended; the decoder is not written to.
    Unsettled { place: Place, control: u32 },
    /// Somebody committed a decoder that the plan leaves alone.
    ForeignDecoder { place: Place, base: u64, size: u64 },
    /// Somebody committed the planned decoder with other contents, or locked it otherwise.
    ForeignContents { place: Place, register: &'static str, expected: u32, found: u32 },
    /// Somebody committed a part of the plan, and this decoder is not in it.
    ForeignPart { place: Place },
    /// All decoders are as planned, but the device is not switched on as the policy wants.
    ForeignEnables { at: Path, register: &'static str, expected: u32, found: u32 },
    /// CONFIG_LOCK freezes the device's enables at other values.
    ConfigLocked { at: Path, expected: u32, found: u32 },
    /// A register did not keep what was written, before anything was committed.
    NotKept { place: Place, register: &'static str, expected: u32, found: u32 },
    /// A register outside the decoders did not keep what was written.
    DeviceNotKept { at: Path, register: &'static str, expected: u32, found: u32 },
    /// The plan needs back-invalidate and the component has no structure for it.
    NoBackInvalidate { at: Path },
    /// The BI decoder or route table refused the commit.
    BackInvalidateRefused { at: Path, status: u32 },
    /// The BI decoder or route table did not answer the commit in time.
    BackInvalidateTimeout { at: Path, polls: u64, microseconds: u64 },
    /// The hardware refused to commit the decoder.
    Refused { place: Place, control: u32 },
    /// The hardware neither committed the decoder nor refused.
    Timeout { place: Place, control: u32, polls: u64, microseconds: u64 },
    /// The decoder is committed, but not with the control register that was written.
    CommittedOtherwise { place: Place, expected: u32, found: u32 },
    /// The plan has more decoders than there is room for to say what became of them.
    Capacity { need: usize, have: usize },
}

codes! {
    CommitError {
        NoSuchDecoder = 0x0401,
        Illegal = 0x0402,
        Silent = 0x0403,
        Unsettled = 0x0404,
        ForeignDecoder = 0x0405,
        ForeignContents = 0x0406,
        ForeignPart = 0x0407,
        ForeignEnables = 0x0408,
        ConfigLocked = 0x0409,
        NotKept = 0x040A,
        DeviceNotKept = 0x040B,
        NoBackInvalidate = 0x040C,
        BackInvalidateRefused = 0x040D,
        BackInvalidateTimeout = 0x040E,
        Refused = 0x040F,
        Timeout = 0x0410,
        CommittedOtherwise = 0x0411,
        Capacity = 0x0412,
    }
}

/// What a register that reads all-ones means. Those of 16 bits lie in configuration space.
fn silent(found: u32, all_ones: u32) -> &'static str {
    if found == all_ones { " (all-ones: the component does not answer)" } else { "" }
}

/// What Commit says of a commit without a result. It counts only here: QEMU 7.1 to 8.0 clear it in
/// a decoder that they did commit.
fn lost(control: u32) -> &'static str {
    if Control::from_bits(control).commit() { "" } else { ": Commit reads 0, the write was lost" }
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoSuchDecoder { place } => {
                write!(f, "{place}: planned, but the topology has no such decoder")
            }
            Self::Illegal { place, error } => write!(f, "{place}: {error}"),
            Self::Silent { at, register } => {
                write!(f, "{at}: {register} reads all-ones: the component does not answer")
            }
            Self::Unsettled { place, control } => write!(
                f,
                "{place}: control is {control:#010x}: a commit before this one was refused or has \
                 not ended"
            ),
            Self::ForeignDecoder { place, base, size } => write!(
                f,
                "{place}: somebody committed it for {} at {base:#x}; the plan does not use it",
                Size(size)
            ),
            Self::ForeignContents { place, register, expected, found } => write!(
                f,
                "{place}: somebody committed it with {register} {found:#010x}; the plan has \
                 {expected:#010x}"
            ),
            Self::ForeignPart { place } => write!(
                f,
                "{place}: not committed, while other decoders of the plan are; only a reset \
                 makes room for the whole"
            ),
            Self::ForeignEnables { at, register, expected, found } => write!(
                f,
                "{at}: all decoders are as planned, but {register} is {found:#06x} instead of \
                 {expected:#06x}"
            ),
            Self::ConfigLocked { at, expected, found } => write!(
                f,
                "{at}: CONFIG_LOCK keeps DVSEC CXL Control at {found:#06x}, {expected:#06x} is \
                 needed; only a reset clears it"
            ),
            Self::NotKept { place, register, expected, found } => write!(
                f,
                "{place}: {register} was written {expected:#010x} and reads {found:#010x}{}; \
                 nothing was committed",
                silent(found, u32::MAX)
            ),
            Self::DeviceNotKept { at, register, expected, found } => write!(
                f,
                "{at}: {register} was written {expected:#x} and reads {found:#x}{}",
                silent(found, if expected > 0xFFFF || found > 0xFFFF { u32::MAX } else { 0xFFFF })
            ),
            Self::NoBackInvalidate { at } => {
                write!(f, "{at}: memory with back-invalidate needs a BI structure here")
            }
            Self::BackInvalidateRefused { at, status } => {
                write!(f, "{at}: the BI commit was refused, status {status:#010x}")
            }
            Self::BackInvalidateTimeout { at, polls, microseconds } => write!(
                f,
                "{at}: the BI commit has no result after {microseconds} us and {polls} polls"
            ),
            Self::Refused { place, control } => write!(
                f,
                "{place}: the hardware refused the commit (Error Not Committed), control \
                 {control:#010x}"
            ),
            Self::Timeout { place, control, polls, microseconds } => write!(
                f,
                "{place}: the commit has no result after {microseconds} us and {polls} polls, \
                 control {control:#010x}{}",
                lost(control)
            ),
            Self::Capacity { need, have } => write!(
                f,
                "the plan has {need} decoders, and there is room for the fate of {have}: give the \
                 library larger structures"
            ),
            Self::CommittedOtherwise { place, expected, found } => write!(
                f,
                "{place}: committed, but control reads {found:#010x} instead of {expected:#010x}{}",
                silent(found, u32::MAX)
            ),
        }
    }
}

impl core::error::Error for CommitError {}
