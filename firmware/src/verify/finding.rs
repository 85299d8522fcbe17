//! What is wrong with a machine's decoders, or worth knowing. One variant a rule.
//!
//! **Invariant**: codes never change their meaning; a new finding gets a new code.

use core::fmt;

use cxl_regs::{Coherency, ComposeError, DecodeError, Interleave, Size, Span};
use heapless::Vec;

use crate::codes::codes;
use crate::committed::Place;
use crate::list::{Empty, List};
use crate::topology::{Partition, Path};

/// One thing that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are named for what they hold; Display says it in words")]
pub enum Finding {
    /// The registers read all-ones: the component does not answer.
    Silent { at: Path, register: &'static str },
    /// A committed decoder breaks a rule of its own.
    Illegal { place: Place, error: DecodeError },
    /// A decoder is committed and the one before it is not.
    OutOfOrder { place: Place },
    /// A range starts below the end of the range before it.
    Overlap { place: Place, base: u64, previous_end: u64 },
    /// A committed decoder of size 0: Linux gives up on the whole port.
    ZeroSize { place: Place },
    /// A device's range lies in no window, or not wholly.
    OutsideWindows { place: Place, span: Span },
    /// The window does not lead to the device's bridge.
    NotATarget { place: Place, window: u64, uid: u32 },
    /// The window does not allow the range's coherency.
    CoherencyNotAllowed { place: Place, window: u64, coherency: Coherency },
    /// The window does not allow this kind of memory.
    MediaNotAllowed { place: Place, window: u64, partition: Partition },
    /// The decoder's memory ends behind the device's.
    BeyondCapacity { place: Place, end: u64, capacity: u64 },
    /// The decoder's memory is volatile in one part and persistent in the other.
    CrossesPartition { place: Place, base: u64, end: u64, border: u64 },
    /// A component on the path has no decoders and more than one way to go.
    NoDecoders { device: Place, at: Path },
    /// No committed decoder of a component on the path claims the range.
    NotClaimed { device: Place, at: Path, span: Span },
    /// A component on the path claims a part of the range, or more where Linux wants it equal.
    RangeDiffers { device: Place, place: Place, expected: Span, found: Span },
    /// The decoder does not lead to the port that the device is behind.
    WrongTarget { device: Place, place: Place, port: u8 },
    /// The decoder has another coherency than the device's.
    CoherencyDiffers { place: Place, expected: Coherency, found: Coherency },
    /// The levels above make another interleave than the device has.
    InterleaveDiffers { place: Place, expected: Interleave, found: Interleave },
    /// The levels above do not make an interleave set.
    Compose { place: Place, error: ComposeError },
    /// Two switch levels interleave; the specification has one.
    SwitchesInterleave { place: Place },
    /// An interleave set has members missing, or too many.
    Members { span: Span, need: u32, have: u32 },
    /// A decoder on a path is not locked.
    UnlockedOnPath { place: Place, control: u32 },
    /// HDM Decoder Enable is 0: the device decodes by its range registers.
    DecodersDisabled { at: Path },
    /// Mem_Enable is 0: the device does not answer.
    MemoryDisabled { at: Path },
    /// CONFIG_LOCK is 0: anybody can switch the device off.
    ConfigUnlocked { at: Path },
    /// Back-invalidate does not get through.
    BackInvalidateBlocked { device: Path, at: Path },
    /// A bridge or switch claims a range that no device behind it does.
    LeadsNowhere { place: Place, span: Span },
    /// The plan's decoder is not committed.
    NotCommitted { place: Place },
    /// The decoder is not as planned.
    DiffersFromPlan { place: Place, register: &'static str, expected: u32, found: u32 },
    /// The decoder is committed and the plan does not use it.
    NotInPlan { place: Place },
    /// More decoders are committed than the caller's structure holds.
    Capacity { have: usize },
    /// Worth knowing: a bridge without decoders forwards everything to its only port.
    PassThrough { uid: u32 },
    /// Worth knowing: memory that no decoder in use leads to.
    Unused { at: Path, partition: Partition, size: u64 },
}

codes! {
    Finding {
        Silent = 0x0501,
        Illegal = 0x0502,
        OutOfOrder = 0x0503,
        Overlap = 0x0504,
        ZeroSize = 0x0505,
        OutsideWindows = 0x0506,
        NotATarget = 0x0507,
        CoherencyNotAllowed = 0x0508,
        MediaNotAllowed = 0x0509,
        BeyondCapacity = 0x050A,
        CrossesPartition = 0x050B,
        NoDecoders = 0x050C,
        NotClaimed = 0x050D,
        RangeDiffers = 0x050E,
        WrongTarget = 0x050F,
        CoherencyDiffers = 0x0510,
        InterleaveDiffers = 0x0511,
        Compose = 0x0512,
        SwitchesInterleave = 0x0513,
        Members = 0x0514,
        UnlockedOnPath = 0x0515,
        DecodersDisabled = 0x0516,
        MemoryDisabled = 0x0517,
        ConfigUnlocked = 0x0518,
        BackInvalidateBlocked = 0x0519,
        LeadsNowhere = 0x051A,
        NotCommitted = 0x051B,
        DiffersFromPlan = 0x051C,
        NotInPlan = 0x051D,
        Capacity = 0x051E,
        PassThrough = 0x051F,
        Unused = 0x0520,
    }
}

impl Finding {
    /// Whether it is a failure, not just worth knowing.
    pub const fn is_failure(&self) -> bool {
        !matches!(self, Self::PassThrough { .. } | Self::Unused { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Silent { at, register } => {
                write!(f, "{at}: {register} reads all-ones: the component does not answer")
            }
            Self::Illegal { place, error } => write!(f, "{place}: committed, but {error}"),
            Self::OutOfOrder { place } => {
                write!(f, "{place}: committed, and the decoder before it is not")
            }
            Self::Overlap { place, base, previous_end } => write!(
                f,
                "{place}: its range starts at {base:#x}, the one before ends at {previous_end:#x}"
            ),
            Self::ZeroSize { place } => write!(
                f,
                "{place}: committed with size 0; Linux gives up on the port (\"Committed with \
                 zero size\")"
            ),
            Self::OutsideWindows { place, span } => {
                write!(f, "{place}: {span} lies in no window")
            }
            Self::NotATarget { place, window, uid } => {
                write!(f, "{place}: window {window:#x} does not lead to bridge {uid}")
            }
            Self::CoherencyNotAllowed { place, window, coherency } => {
                write!(f, "{place}: window {window:#x} does not allow {coherency} memory")
            }
            Self::MediaNotAllowed { place, window, partition } => {
                write!(f, "{place}: window {window:#x} does not allow {partition} memory")
            }
            Self::BeyondCapacity { place, end, capacity } => write!(
                f,
                "{place}: its memory ends at DPA {end:#x}, the device has {}",
                Size(capacity)
            ),
            Self::CrossesPartition { place, base, end, border } => write!(
                f,
                "{place}: DPA {base:#x} to {end:#x} reaches over the end of volatile memory at \
                 {border:#x}"
            ),
            Self::NoDecoders { device, at } => write!(
                f,
                "{device}: {at} has no HDM decoders, and is no host bridge with a single port"
            ),
            Self::NotClaimed { device, at, span } => {
                write!(f, "{device}: no committed decoder of {at} claims {span}")
            }
            Self::RangeDiffers { device, place, expected, found } => {
                write!(f, "{place}: claims {found}, {device} has {expected}")
            }
            Self::WrongTarget { device, place, port } => {
                write!(f, "{place}: does not lead to port {port}, where {device} is")
            }
            Self::CoherencyDiffers { place, expected, found } => {
                write!(f, "{place}: {found}, the device's decoder is {expected}")
            }
            Self::InterleaveDiffers { place, expected, found } => {
                write!(f, "{place}: {found}, the levels above make {expected}")
            }
            Self::Compose { place, error } => write!(f, "{place}: {error}"),
            Self::SwitchesInterleave { place } => {
                write!(f, "{place}: a second switch level interleaves on this path")
            }
            Self::Members { span, need, have } => {
                write!(f, "{span}: the set has {have} of {need} members")
            }
            Self::UnlockedOnPath { place, control } => write!(
                f,
                "{place}: not locked, HDM Decoder Control is {control:#010x} (UnlockedOnPath)"
            ),
            Self::DecodersDisabled { at } => {
                write!(f, "{at}: HDM Decoder Enable is 0, its decoders are not used")
            }
            Self::MemoryDisabled { at } => {
                write!(f, "{at}: Mem_Enable is 0, the device does not answer")
            }
            Self::ConfigUnlocked { at } => write!(f, "{at}: CONFIG_LOCK is 0"),
            Self::BackInvalidateBlocked { device, at } => {
                write!(f, "{device}: back-invalidate does not get through at {at}")
            }
            Self::LeadsNowhere { place, span } => {
                write!(f, "{place}: claims {span}, and no device behind it does")
            }
            Self::NotCommitted { place } => write!(f, "{place}: planned, and not committed"),
            Self::DiffersFromPlan { place, register, expected, found } => {
                write!(f, "{place}: {register} is {found:#010x}, planned {expected:#010x}")
            }
            Self::NotInPlan { place } => write!(f, "{place}: committed, and not in the plan"),
            Self::Capacity { have } => write!(
                f,
                "more than {have} decoders are committed: give the library larger structures"
            ),
            Self::PassThrough { uid } => write!(
                f,
                "bridge {uid} is a pass-through without decoders, nothing to lock there; Linux \
                 refuses regions behind it (\"failed to find decoder mapping\")"
            ),
            Self::Unused { at, partition, size } => write!(
                f,
                "{at}: {} of {partition} memory unused: no decoder in use leads there",
                Size(size)
            ),
        }
    }
}

/// What a verification found: `F` findings, each once, and how many more there were.
#[derive(Clone, Debug, Default)]
pub struct Findings<const F: usize> {
    list: Vec<Finding, F>,
    tally: Tally,
}

/// How many findings there are, beside those that are listed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    more: u32,
    failures: u32,
}

impl<const F: usize> Findings<F> {
    /// None yet.
    pub const fn new() -> Self {
        Self { list: Vec::new(), tally: Tally { more: 0, failures: 0 } }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        FindingsMut::from(self).clear();
    }

    /// The findings in the order they were made.
    pub fn list(&self) -> &[Finding] {
        &self.list
    }

    /// How many did not fit; one that did not may be counted more than once.
    pub const fn more(&self) -> u32 {
        self.tally.more
    }

    /// Whether nothing is wrong; there may still be something worth knowing.
    pub const fn passed(&self) -> bool {
        self.tally.failures == 0
    }
}

/// What a verification finds, in memory of any size.
#[derive(Debug)]
pub struct FindingsMut<'a> {
    /// See [`Findings::list`].
    pub list: List<'a, Finding>,
    /// How many there are beside.
    pub tally: &'a mut Tally,
}

impl FindingsMut<'_> {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.list.clear();
        *self.tally = Tally::default();
    }

    /// See [`Findings::passed`].
    pub fn passed(&self) -> bool {
        self.tally.failures == 0
    }

    /// The same findings for a shorter time.
    pub fn reborrow(&mut self) -> FindingsMut<'_> {
        FindingsMut { list: self.list.reborrow(), tally: self.tally }
    }

    /// Adds a finding that is not there yet. Where there is no room a failure takes the place of
    /// what is merely worth knowing, so that a list of what failed is never empty.
    pub(crate) fn add(&mut self, finding: Finding) {
        let Self { list, tally } = self;
        if list.contains(&finding) {
            return;
        }
        tally.failures = tally.failures.saturating_add(u32::from(finding.is_failure()));
        let Err(finding) = list.push(finding) else { return };
        tally.more = tally.more.saturating_add(1);
        let note = list.iter_mut().rev().find(|other| !other.is_failure());
        if let Some(note) = note.filter(|_| finding.is_failure()) {
            *note = finding;
        }
    }
}

impl<'a> From<&'a mut FindingsMut<'_>> for FindingsMut<'a> {
    fn from(findings: &'a mut FindingsMut<'_>) -> Self {
        findings.reborrow()
    }
}

impl<'a, const F: usize> From<&'a mut Findings<F>> for FindingsMut<'a> {
    fn from(findings: &'a mut Findings<F>) -> Self {
        Self { list: (&mut findings.list).into(), tally: &mut findings.tally }
    }
}

impl Empty for Finding {
    const EMPTY: Self = Self::PassThrough { uid: 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_takes_the_place_of_what_is_merely_worth_knowing() {
        let note = |uid| Finding::PassThrough { uid };
        let failure = Finding::DecodersDisabled { at: Path::default() };
        let mut findings = Findings::<2>::new();
        for finding in [note(1), note(2), note(3), failure, failure, note(4)] {
            FindingsMut::from(&mut findings).add(finding);
        }
        assert_eq!(findings.list(), [note(1), failure]);
        assert_eq!((findings.more(), findings.passed()), (3, false));
        FindingsMut::from(&mut findings).add(Finding::MemoryDisabled { at: Path::default() });
        FindingsMut::from(&mut findings).add(Finding::ConfigUnlocked { at: Path::default() });
        assert!(findings.list().iter().all(Finding::is_failure), "{:?}", findings.list());
        assert_eq!(findings.list()[1], failure, "the first one stays");
    }
}
