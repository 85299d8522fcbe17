//! One kind of error: a number, a place, what was expected and what was found.
//!
//! A refusal of any phase is an [`Error`], a finding of the verifier and a remark of discovery
//! likewise: a plain value of 32 bytes that C can hold. Each kind is one row of [`Code`]'s table: its
//! number, its name and its sentence, which says what the numbers mean.
//!
//! **Invariant**: a number never changes its meaning; a new refusal gets a new number. Rows ascend,
//! so that none is there twice.

mod fact;
mod fault;
mod place;
mod register;
mod rows;
mod rule;
#[cfg(feature = "sentences")]
mod sentence;

use core::fmt;
use core::mem::{align_of, size_of};
use core::num::NonZeroU16;

pub use fact::Fact;
pub use place::Place;
pub use register::registers;
pub use rule::{BarProblem, Rule};

pub(crate) use fault::{Failed, Fault, Telling};
pub(crate) use register::{Numbered, decoder_register, range_base};

/// Why something was refused, what was found wrong, or what is worth knowing.
///
/// [`Code`] documents, with each number, the sentence it prints: `{at}` is the place, `{expected}`
/// and `{found}` are the two numbers, `{detail}` is a small one such as a [register](registers)'s, a
/// partition's or that of a [`Rule`]. A suffix `.0` or `.1` is the lower or the upper half.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Error {
    /// Which refusal it is.
    pub code: Code,
    /// A small number, if the kind has one.
    pub detail: u16,
    /// Where.
    pub at: Place,
    /// What it should be; in some rows a second thing that was found.
    pub expected: u64,
    /// What it is.
    pub found: u64,
}

/// The number of an [`Error`]. Its upper byte says which phase it is of.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(NonZeroU16);

/// Of the number of what is wrong with a window, in a detail's upper half: it is of the tables, not of the
/// plan. No such number of either has this bit.
const OF_TABLES: u8 = 0x80;

const _: () = {
    assert!(size_of::<Error>() <= 32 && align_of::<Error>() == 8);
    assert!(size_of::<Result<(), Error>>() <= 32, "0 is no number, so success needs no room");
};

/// What part of the work an error is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// The platform's tables: `0x01xx`.
    Platform,
    /// Discovery: `0x02xx`, its remarks from `0x0280` to `0x028F`.
    Discover,
    /// The plan: `0x03xx`, its notes from `0x0380` to `0x038F`.
    Plan,
    /// Programming, commit and locks: `0x04xx`.
    Commit,
    /// Verification: `0x05xx`.
    Verify,
    /// Tables, and their check against the registers: `0x06xx`.
    Tables,
    /// The hand-off record: `0x07xx`.
    Handoff,
    /// Memory that does not answer as the registers say: `0x09xx`.
    Probe,
    /// Putting back what a record has: `0x0Axx`.
    Restore,
    /// None that this version knows.
    Unknown,
}

impl Phase {
    /// In a word, as functions and modules are called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Discover => "discover",
            Self::Plan => "plan",
            Self::Commit => "commit",
            Self::Verify => "verify",
            Self::Tables => "tables",
            Self::Handoff => "handoff",
            Self::Probe => "probe",
            Self::Restore => "restore",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Code {
    /// The code with this number; `None` for 0, which is no error's.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// A row's number, which the table's check has seen.
    const fn of(number: u16) -> Self {
        match NonZeroU16::new(number) {
            Some(number) => Self(number),
            None => Self(NonZeroU16::MAX),
        }
    }

    /// The number, for logs and hand-off records; it never changes its meaning.
    pub const fn number(self) -> u16 {
        self.0.get()
    }

    /// The phase whose number it is.
    pub const fn phase(self) -> Phase {
        match self.number() >> 8 {
            1 => Phase::Platform,
            2 => Phase::Discover,
            3 => Phase::Plan,
            4 => Phase::Commit,
            5 => Phase::Verify,
            6 => Phase::Tables,
            7 => Phase::Handoff,
            9 => Phase::Probe,
            10 => Phase::Restore,
            _ => Phase::Unknown,
        }
    }

    /// Whether something is wrong, not just worth knowing.
    pub const fn is_failure(self) -> bool {
        let remark = matches!(self.number(), 0x0280..=0x028F | 0x0380..=0x038F);
        !remark && !matches!(self, Self::VERIFY_PASS_THROUGH | Self::VERIFY_UNUSED)
    }

    /// An error with this number that has no place yet, and whose numbers are 0.
    pub const fn error(self) -> Error {
        Error { code: self, detail: 0, at: Place::NOWHERE, expected: 0, found: 0 }
    }

    /// An error with this number at a place.
    pub fn at(self, place: impl Into<Place>) -> Error {
        Error { at: place.into(), ..self.error() }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#06x}", self.number()),
        }
    }
}

impl Error {
    /// The number, for logs and hand-off records; it never changes its meaning.
    pub const fn code(&self) -> u16 {
        self.code.number()
    }

    /// The phase that it is of.
    pub const fn phase(&self) -> Phase {
        self.code.phase()
    }

    /// Whether something is wrong, not just worth knowing.
    pub const fn is_failure(&self) -> bool {
        self.code.is_failure()
    }

    /// The error with another [`Error::expected`].
    pub fn expected(self, expected: impl Fact) -> Self {
        Self { expected: expected.pack(), ..self }
    }

    /// The error with another [`Error::found`].
    pub fn found(self, found: impl Fact) -> Self {
        Self { found: found.pack(), ..self }
    }

    /// The error with another [`Error::detail`].
    pub fn detail(self, detail: impl Fact) -> Self {
        Self { detail: u16::try_from(detail.pack()).unwrap_or(u16::MAX), ..self }
    }

    /// The error with a detail of two halves.
    pub fn halves(self, low: impl Fact, high: impl Fact) -> Self {
        Self { detail: Self::half(low) | Self::half(high) << 8, ..self }
    }

    fn half(fact: impl Fact) -> u16 {
        u8::try_from(fact.pack()).unwrap_or(u8::MAX).into()
    }

    /// The error with the rule that is broken: its number in the detail's lower half, and its facts.
    pub fn rule(mut self, rule: impl Rule) -> Self {
        self.set_rule(rule);
        self
    }

    // One copy of it for each kind of rule.
    #[cold]
    #[inline(never)]
    fn set_rule(&mut self, rule: impl Rule) {
        let (number, expected, found) = rule.pack();
        let [_, high] = self.detail.to_le_bytes();
        (self.expected, self.found) = (expected, found);
        self.detail = u16::from_le_bytes([number, high]);
    }

    /// The error with what is wrong with the window that its place names too.
    pub(crate) fn window_error(self, error: Self) -> Self {
        let [number, _] = error.code().to_le_bytes();
        let of_tables = if error.phase() == Phase::Tables { OF_TABLES } else { 0 };
        let detail = u16::from_le_bytes([error.detail as u8, number | of_tables]);
        Self { detail, expected: error.expected, found: error.found, ..self }
    }

    /// What is wrong with the window, where this says that something is.
    pub fn broken_window(&self) -> Option<Self> {
        let says =
            [Code::DISCOVER_WINDOW_BROKEN, Code::PLAN_WINDOW_BROKEN, Code::COMMIT_WINDOW_BROKEN];
        let [detail, number] = self.detail.to_le_bytes();
        let sort = if number & OF_TABLES == 0 { Code::PLAN_XOR } else { Code::TABLES_WINDOW };
        let [_, phase] = sort.number().to_le_bytes();
        let code = Code::new(u16::from_le_bytes([number & !OF_TABLES, phase]));
        let code = code.filter(|_| says.contains(&self.code))?;
        Some(Self {
            code,
            detail: detail.into(),
            at: Place::window(self.at.window_base()),
            ..*self
        })
    }

    /// The error with a second place: a component on the way from its own to the bridge, or one of
    /// that component's decoders.
    pub fn above(self, place: impl Into<Place>) -> Self {
        Self { detail: place.into().as_detail(), ..self }
    }

    /// What the verifier found, where this says that decoders and a CEDT disagree.
    pub fn finding(&self) -> Option<Self> {
        let number = Code::VERIFY_SILENT.number() & 0xFF00 | self.detail >> place::DETAIL_BITS;
        let code = Code::new(number).filter(|_| self.code == Code::TABLES_DISAGREES)?;
        Some(Self { code, detail: self.detail & place::DETAIL_MASK, ..*self })
    }

    /// What the verifier found, as a disagreement between the decoders and a CEDT.
    pub(crate) fn disagrees(self) -> Self {
        let [number, _] = self.code().to_le_bytes();
        let detail = u16::from(number) << place::DETAIL_BITS | self.detail & place::DETAIL_MASK;
        Self { code: Code::TABLES_DISAGREES, detail, ..self }
    }
}

/// The sentence of its row; without the feature `sentences`, its numbers.
impl fmt::Display for Error {
    #[cfg(feature = "sentences")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        sentence::write(f, self)
    }

    #[cfg(not(feature = "sentences"))]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, detail, at, expected, found } = self;
        write!(
            f,
            "{:#06x} at {at:x}: expected {expected:#x}, found {found:#x}, detail {detail:#x}",
            code.number()
        )
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;
    use std::format;

    use cxl_regs::acpi::cedt::Problem;
    use cxl_regs::component::{ArrayError, CapabilityId};
    use cxl_regs::config::WindowError;
    use cxl_regs::dvsec::device::{RangeError, RangeField};
    use cxl_regs::{DecodeError, Granularity, Hpa, Interleave, NotDecodable, Span, Ways};

    use super::*;
    use crate::topology::Path;

    #[test]
    fn c_finds_each_field_where_it_always_was() {
        let offsets = [
            offset_of!(Error, code),
            offset_of!(Error, detail),
            offset_of!(Error, at),
            offset_of!(Error, expected),
            offset_of!(Error, found),
        ];
        assert_eq!((offsets, size_of::<Error>()), ([0, 2, 4, 16, 24], 32));
    }

    #[test]
    fn a_rule_comes_out_as_it_went_in() {
        fn same<R: Rule + Copy + PartialEq + fmt::Debug>(rules: &[R]) {
            for &rule in rules {
                let (number, first, second) = rule.pack();
                assert_eq!(R::unpack(number, first, second), Some(rule));
                assert_eq!(R::unpack(0, first, second), None, "0 is no rule's number");
            }
        }
        let interleave = Interleave::new(Ways::Twelve, Granularity::K16);
        let span = |base, size| Span::new(Hpa(base), size).expect("a range");
        same(&[
            DecodeError::Wraps { base: u64::MAX, size: u64::MAX - 1 },
            DecodeError::NotDecodable(NotDecodable(interleave)),
            DecodeError::DuplicateTarget { port: 255, first: 3, second: 7 },
        ]);
        same(&[ArrayError::PastEnd {
            entry: 255,
            id: CapabilityId::HdmDecoder,
            pointer: 0xFFC,
            length: 0x234,
        }]);
        same(&[
            RangeError::Reserved { field: RangeField::MemoryClass, code: 7 },
            RangeError::NotValid,
        ]);
        same(&[WindowError::Above4GiB { span: span(0x10_0000, 0x30_0000) }]);
        let (window, other) = (span(0xFFFF_FFFF_0000_0000, 1 << 28), span(1 << 28, 1 << 55));
        same(&[
            Problem::Overlap { window, other },
            Problem::TargetCount { expected: 16, found: usize::MAX },
        ]);
    }

    #[test]
    fn a_place_keeps_six_ports_and_says_how_many_there_are() {
        let path = |ports: &[u8]| Path::new(7, ports).expect("a path");
        let deep = path(&[1, 2, 3, 4, 5, 6, 7, 8]);
        let whole = Place::from(path(&[1, 2, 3, 4, 5, 255]));
        assert_eq!(format!("{whole}"), "bridge 7 port 1.2.3.4.5.255");
        // The numbers behind the sixth are gone, the depth is not.
        assert_eq!(format!("{}", Place::from(deep)), "bridge 7 port 1.2.3.4.5.6.. (8 ports)");
        assert_ne!(Place::from(deep), Place::from(path(&[1, 2, 3, 4, 5, 6, 7])));
        let beside = Place::in_window(path(&[1, 2, 3]), Hpa(0x7FFF_FFFF_F000_0000));
        assert_eq!(beside.window_base(), Some(Hpa(0xFFF_FFFF_F000_0000)), "the most that is kept");
        let beside = Place::in_window(deep, Hpa(0x1_0000_0000));
        assert_eq!((beside.uid(), beside.window_base()), (Some(7), Some(Hpa(0x1_0000_0000))));
        assert_eq!(format!("{beside}"), "bridge 7 port 1.2.3.. (8 ports)");
    }

    #[cfg(not(feature = "sentences"))]
    #[test]
    fn without_sentences_an_error_is_its_numbers() {
        let at = Place::in_window(Path::new(7, &[3]).expect("a path"), Hpa(0x1_0000_0000));
        let error = Code::PLAN_WINDOW_FULL.at(at).expected(0x4000_0000).found(0x1000_0000);
        assert_eq!(
            format!("{error}"),
            "0x0309 at 00000315.00000010.00000007: expected 0x40000000, found 0x10000000, detail 0x0"
        );
        assert_eq!((format!("{:?}", error.code), error.code.name()), ("0x0309".into(), None));
    }
}
