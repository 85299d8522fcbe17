//! The rules of `cxl-regs` as numbers: which one is broken, and its facts.
//!
//! `cxl-regs` keeps an enum for each of its parts, with the words. An error has room for a small
//! number and two large ones, from which the enum's value is made again to say them.
//!
//! **Invariant**: a rule's number never changes its meaning. `unpack` gives the rule that was packed
//! with all its facts.

use core::fmt;

use cxl_regs::acpi::TableError;
use cxl_regs::acpi::cedt::Problem;
use cxl_regs::acpi::mcfg::AllocationError;
use cxl_regs::acpi::rsdp::RsdpError;
use cxl_regs::block::TooShort;
use cxl_regs::component::ArrayError;
use cxl_regs::config::{BarError, WalkError, WindowError};
use cxl_regs::dvsec::DvsecError;
use cxl_regs::dvsec::device::RangeError;
use cxl_regs::dvsec::locator::LocatorError;
use cxl_regs::interleave::{NotDecodable, ReservedArithmetic, ReservedGranularity, ReservedWays};
use cxl_regs::mailbox::DeviceArrayError;
use cxl_regs::{ComposeError, DecodeError, Hpa, Span, XorMapError};

use super::Fact;

/// A rule that something breaks, in three numbers.
pub trait Rule: Sized {
    /// Which rule, and its two numbers.
    fn pack(self) -> (u8, u64, u64);

    /// The rule out of its numbers; `None` for one that this version does not know.
    fn unpack(number: u8, first: u64, second: u64) -> Option<Self>;

    /// The rule in words.
    fn words(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// A rule's number apart from its facts: of an enum with many, a table that is compiled once, and the rules
/// of like facts share their code.
trait RuleNumber {
    fn number(&self) -> u8;
}

/// The number of a rule that has no row; `unpack` knows none of it.
const NO_ROW: u8 = u8::MAX;

/// Puts facts side by side, the first one lowest.
macro_rules! pack {
    () => { 0 };
    ($fact:ident $($rest:ident)*) => {{
        let (bits, number) = packed($fact);
        number | ({ let rest: u64 = pack!($($rest)*); rest }).checked_shl(bits).unwrap_or(0)
    }};
}

/// The opposite.
macro_rules! unpack {
    ($number:ident;) => { let _ = $number; };
    ($number:ident; $fact:ident $($rest:ident)*) => {
        let ($fact, $number) = unpacked($number)?;
        unpack!($number; $($rest)*);
    };
}

/// A row a rule: its number, its value, and which of its facts make the first and second number. Behind them
/// may stand the variant that has rules of another enum in it, and how much higher their numbers are here.
macro_rules! rules {
    (
        $(#[$how:meta])*
        $rule:ident { $($number:literal [$($form:tt)*] ($($first:ident)*) ($($second:ident)*),)* }
        $($below:literal + $inner:ident)?
    ) => {
        impl RuleNumber for $rule {
            $(#[$how])*
            #[allow(unused_variables, reason = "a rule's number does not depend on its facts")]
            fn number(&self) -> u8 {
                match *self {
                    $($($form)* => $number,)*
                    // Of a `cxl-regs` that is newer than this crate.
                    #[allow(unreachable_patterns, reason = "some of the enums are of this crate")]
                    _ => NO_ROW,
                }
            }
        }

        impl Rule for $rule {
            fn pack(self) -> (u8, u64, u64) {
                $(if let Self::$inner(rule) = self {
                    let (number, first, second) = rule.pack();
                    return (number.saturating_add($below), first, second);
                })?
                let number = self.number();
                let (first, second) = match self {
                    $($($form)* => (pack!($($first)*), pack!($($second)*)),)*
                    #[allow(unreachable_patterns, reason = "some of the enums are of this crate")]
                    _ => (0, 0),
                };
                (number, first, second)
            }

            fn unpack(number: u8, first: u64, second: u64) -> Option<Self> {
                Some(match number {
                    $($number => {
                        unpack!(first; $($first)*);
                        unpack!(second; $($second)*);
                        $($form)*
                    })*
                    $(_ if number > $below => {
                        Self::$inner(Rule::unpack(number.saturating_sub($below), first, second)?)
                    })?
                    _ => return None,
                })
            }

            fn words(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

/// A fact's number as far as it is kept, and how many bits that are.
fn packed<F: Fact>(fact: F) -> (u32, u64) {
    let most = u64::MAX >> 64u32.saturating_sub(F::BITS).min(63);
    (F::BITS, fact.pack().min(most))
}

/// The lowest fact of a number, and the others.
fn unpacked<F: Fact>(number: u64) -> Option<(F, u64)> {
    let most = u64::MAX >> 64u32.saturating_sub(F::BITS).min(63);
    Some((F::unpack(number & most)?, number.checked_shr(F::BITS).unwrap_or(0)))
}

rules! {
    RsdpError {
        1 [Self::TooShort { expected, found }] (expected) (found),
        2 [Self::Signature { found }] () (found),
        3 [Self::Checksum { expected, found }] (expected) (found),
        4 [Self::Length { found }] () (found),
        5 [Self::ExtendedChecksum { expected, found }] (expected) (found),
    }
}

rules! {
    TableError {
        1 [Self::NoHeader { expected, found }] (expected) (found),
        2 [Self::Signature { expected, found }] (expected) (found),
        3 [Self::Length { least, found }] (least) (found),
        4 [Self::Truncated { expected, found }] (expected) (found),
        5 [Self::Checksum { expected, found }] (expected) (found),
        6 [Self::Ragged { entry, length }] (entry) (length),
    }
}

rules! {
    AllocationError {
        1 [Self::Buses { first, last }] (first) (last),
        2 [Self::Wraps { base, last }] (base) (last),
    }
}

rules! {
    #[inline(never)]
    Problem {
        1 [Self::RecordHeader { left }] () (left),
        2 [Self::TooMany { limit }] (limit) (),
        3 [Self::RecordLength { found }] () (found),
        4 [Self::PastEnd { length, left }] (length) (left),
        5 [Self::RecordTooShort { kind, need, found }] (kind need) (found),
        6 [Self::ChbsVersion { found }] () (found),
        7 [Self::ChbsLength { version, expected, found }] (version expected) (found),
        8 [Self::ChbsWithoutBase] () (),
        9 [Self::ChbsWraps { base, length }] (base) (length),
        10 [Self::Ways(ReservedWays(code))] () (code),
        11 [Self::WindowGranularity(ReservedGranularity(code))] () (code),
        12 [Self::WindowArithmetic(ReservedArithmetic(code))] () (code),
        // 13 was a window with base 0.
        14 [Self::ZeroSize { base }] () (base),
        15 [Self::WindowWraps { base, size }] (base) (size),
        16 [Self::BaseAlignment { base }] () (base),
        17 [Self::SizeAlignment { size }] () (size),
        18 [Self::SizeNotDivisible { size, ways }] (ways) (size),
        19 [Self::TargetCount { expected, found }] (expected) (found),
        20 [Self::DuplicateTarget { index, uid }] (index) (uid),
        21 [Self::MapGranularity(ReservedGranularity(code))] () (code),
        22 [Self::MapCount { need, have }] (need) (have),
        23 [Self::RdpasProtocol { found }] () (found),
        24 [Self::DuplicateChbs { uid }] () (uid),
        25 [Self::DuplicateCxims { granularity }] () (granularity),
        26 [Self::Overlap { window, other }] (other) (window),
        27 [Self::NoCxims { granularity }] (granularity) (),
    }
    27 + Maps
}

rules! {
    WalkError {
        1 [Self::Loop { at, to }] (at) (to),
        2 [Self::Misaligned { at, to }] (at) (to),
        3 [Self::TooLow { at, to, lowest }] (at lowest) (to),
        4 [Self::AllOnes { at }] (at) (),
    }
}

rules! {
    DvsecError {
        1 [Self::Walk(WalkError::Loop { at, to })] (at) (to),
        2 [Self::Walk(WalkError::Misaligned { at, to })] (at) (to),
        3 [Self::Walk(WalkError::TooLow { at, to, lowest })] (at lowest) (to),
        4 [Self::Walk(WalkError::AllOnes { at })] (at) (),
        5 [Self::Length { at, length, least, most }] (at least most) (length),
    }
}

rules! {
    LocatorError {
        1 [Self::Length { at, length }] (at) (length),
        2 [Self::Bar { entry, bar }] (entry) (bar),
        3 [Self::Unaligned { entry, offset }] (entry) (offset),
        4 [Self::TooMany { entries }] () (entries),
        5 [Self::TooShort(TooShort { need, have })] (need) (have),
    }
}

rules! {
    ArrayError {
        1 [Self::AllOnes] () (),
        2 [Self::Header { found }] () (found),
        3 [Self::EntryAllOnes { entry }] (entry) (),
        4 [Self::Misaligned { entry, id, pointer }] (entry id) (pointer),
        5 [Self::InsideArray { entry, id, pointer, array_end }] (entry id array_end) (pointer),
        6 [Self::PastEnd { entry, id, pointer, length }] (entry id length) (pointer),
    }
}

rules! {
    RangeError {
        1 [Self::NotValid] () (),
        2 [Self::Reserved { field, code }] (field) (code),
        3 [Self::ActiveAndDegraded] () (),
        4 [Self::Unaligned { base, size }] (base) (size),
        5 [Self::Wraps { base, size }] (base) (size),
    }
}

rules! {
    DeviceArrayError {
        1 [Self::AllOnes] () (),
        2 [Self::Header { found }] () (found),
        3 [Self::Place { entry, offset, length }] (entry) (offset length),
    }
}

rules! {
    XorMapError {
        1 [Self::TooFew { need, have }] (need) (have),
        2 [Self::WrongLowestBit { index, map, expected_bit }] (expected_bit index) (map),
    }
}

rules! {
    ComposeError {
        1 [Self::PortWays { ways }] () (ways),
        2 [Self::SharedBits { bits }] () (bits),
        3 [Self::Hole { bits }] () (bits),
        4 [Self::NoSuchWays { product }] () (product),
        5 [Self::NotDecodable(NotDecodable(set))] () (set),
        6 [Self::ThreeTooCoarse { divides_from, highest }] (highest) (divides_from),
    }
}

rules! {
    #[inline(never)]
    DecodeError {
        1 [Self::BaseUnaligned { base }] () (base),
        2 [Self::SizeUnaligned { size }] () (size),
        3 [Self::SkipUnaligned { skip }] () (skip),
        4 [Self::ZeroSize { base }] (base) (),
        5 [Self::Wraps { base, size }] (base) (size),
        6 [Self::ReservedWays(ReservedWays(code))] () (code),
        7 [Self::ReservedGranularity(ReservedGranularity(code))] () (code),
        8 [Self::ReservedUioWays(ReservedWays(code))] () (code),
        9 [Self::ReservedUioGranularity(ReservedGranularity(code))] () (code),
        10 [Self::WaysNotAllowed { component, ways }] (component) (ways),
        11 [Self::WaysNotSupported { ways }] () (ways),
        12 [Self::TooFewTargets { ways, have }] (ways) (have),
        13 [Self::NotDecodable(NotDecodable(set))] () (set),
        14 [Self::SelectorNotSupported { need, have }] (need) (have),
        15 [Self::SizeNotDivisible { size, ways }] (ways) (size),
        16 [Self::DuplicateTarget { port, first, second }] (first second) (port),
        17 [Self::BackInvalidateHostOnly] () (),
        18 [Self::CoherencyNotSupported { coherency, models }] (models) (coherency),
        19 [Self::SetPositionTooLarge { position }] () (position),
        20 [Self::WrongRoute { component }] (component) (),
        21 [Self::ReservedControlBits { bits }] () (bits),
    }
}

/// Why the register block that the locator names is not in its BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BarProblem {
    /// The function has fewer BARs.
    NoSuchBar,
    /// It is the upper half of a 64-bit BAR.
    UpperHalf,
    /// It decodes I/O space.
    Io,
    /// Sizing says that it does not exist.
    NotThere,
    /// Its type bits make no sense, or sizing gave no size.
    Register(BarError),
}

impl fmt::Display for BarProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchBar => f.write_str("the function has no such BAR"),
            Self::UpperHalf => f.write_str("it is the upper half of a 64-bit BAR"),
            Self::Io => f.write_str("it decodes I/O space"),
            Self::Register(error) => error.fmt(f),
            Self::NotThere => f.write_str("no address bit of it can be written"),
        }
    }
}

rules! {
    BarProblem {
        1 [Self::NoSuchBar] () (),
        2 [Self::UpperHalf] () (),
        3 [Self::Io] () (),
        4 [Self::NotThere] () (),
        5 [Self::Register(BarError::ReservedType { register })] () (register),
        6 [Self::Register(BarError::Holes { bits })] () (bits),
    }
}

/// Their range is of 1 MiB units, so it is no packed one.
impl Rule for WindowError {
    fn pack(self) -> (u8, u64, u64) {
        match self {
            Self::Unaligned { span } => (1, span.base().0, span.size()),
            Self::Above4GiB { span } => (2, span.base().0, span.size()),
        }
    }

    fn unpack(number: u8, first: u64, second: u64) -> Option<Self> {
        let span = Span::new(Hpa(first), second).ok()?;
        match number {
            1 => Some(Self::Unaligned { span }),
            2 => Some(Self::Above4GiB { span }),
            _ => None,
        }
    }

    fn words(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
