//! An error in words: its row's sentence with the holes filled.
//!
//! A hole is a field and how it is written: `{found:x8}` is eight digits, `{found:size}` bytes for
//! people. `{detail|one|two}` is the word of that number, or the last one; a word may have holes.
//!
//! **Invariant**: every hole of every row is known here; a test fills them all.

use core::fmt::{self, Display, Formatter};

use cxl_regs::acpi::TableError;
use cxl_regs::acpi::cedt::Problem;
use cxl_regs::acpi::mcfg::AllocationError;
use cxl_regs::acpi::rsdp::RsdpError;
use cxl_regs::component::ArrayError;
use cxl_regs::config::{Sbdf, WalkError, WindowError};
use cxl_regs::dvsec::device::RangeError;
use cxl_regs::dvsec::locator::LocatorError;
use cxl_regs::dvsec::{DvsecError, DvsecId};
use cxl_regs::hdm::Control;
use cxl_regs::mailbox::{DeviceArrayError, Opcode};
use cxl_regs::{Coherency, ComposeError, DecodeError, Hpa, Interleave, Size, Span, XorMapError};

use super::rows::row;
use super::{BarProblem, Error, Fact, Rule, registers};
use crate::path::RootBus;

/// What a register that reads all-ones means.
const SILENT: &str = " (all-ones: the component does not answer)";
/// What Commit says of a commit without a result. It counts only there: QEMU 7.1 to 8.0 clear it in
/// a decoder that they did commit.
const LOST: &str = ": Commit reads 0, the write was lost";

/// Writes an error's sentence.
pub(super) fn write(f: &mut Formatter<'_>, error: &Error) -> fmt::Result {
    match row(error.code) {
        Some(row) => sentence(f, row.sentence, error),
        None => {
            let Error { code, detail, at, expected, found } = error;
            write!(f, "{at}: error {:#06x}, expected ", code.number())?;
            write!(f, "{expected:#x}, found {found:#x}, detail {detail:#x}")
        }
    }
}

fn sentence(f: &mut Formatter<'_>, text: &str, error: &Error) -> fmt::Result {
    let mut rest = text;
    while let Some((before, from)) = rest.split_once('{') {
        f.write_str(before)?;
        let (hole, after) = split(from, '}').unwrap_or((from, ""));
        match split(hole, '|') {
            Some((field, words)) => {
                let index = number(error, field).unwrap_or(u64::MAX);
                sentence(f, nth(words, index), error)?;
            }
            None => fill(f, hole, error)?,
        }
        rest = after;
    }
    f.write_str(rest)
}

/// The text before and behind the first `sign` outside of braces.
fn split(text: &str, sign: char) -> Option<(&str, &str)> {
    let mut depth = 0u32;
    for (at, char) in text.char_indices() {
        match char {
            _ if char == sign && depth == 0 => {
                let (before, from) = text.split_at_checked(at)?;
                return Some((before, from.strip_prefix(sign)?));
            }
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// The word with this number, or the last one.
fn nth(words: &str, index: u64) -> &str {
    let mut rest = words;
    for _ in 0..index {
        match split(rest, '|') {
            Some((_, behind)) => rest = behind,
            None => return rest,
        }
    }
    split(rest, '|').map_or(rest, |(word, _)| word)
}

/// The number that a field is.
fn number(error: &Error, field: &str) -> Option<u64> {
    let half = |number: u64| (number & u64::from(u32::MAX), number >> 32);
    let [low, high] = error.detail.to_le_bytes();
    Some(match field {
        "expected" => error.expected,
        "expected.0" => half(error.expected).0,
        "expected.1" => half(error.expected).1,
        "found" => error.found,
        "found.0" => half(error.found).0,
        "found.1" => half(error.found).1,
        "detail" => error.detail.into(),
        "detail.0" => low.into(),
        "detail.1" => high.into(),
        _ => return None,
    })
}

/// One hole.
fn fill(f: &mut Formatter<'_>, hole: &str, error: &Error) -> fmt::Result {
    let (field, format) = hole.split_once(':').unwrap_or((hole, ""));
    match field {
        "at" => at(f, format, error),
        "rule" => rule(f, format, error),
        "span" => Span::new(Hpa(error.expected), error.found).map_or(Ok(()), |span| span.fmt(f)),
        "finding" => match error.finding() {
            // It has no finding inside.
            Some(finding) => write(f, &finding),
            None => unknown(f, hole),
        },
        "broken" => match error.broken_window() {
            Some(broken) => write(f, &broken),
            None => unknown(f, hole),
        },
        _ => match number(error, field) {
            Some(number) => numeral(f, format, number, error),
            None => unknown(f, hole),
        },
    }
}

fn unknown(f: &mut Formatter<'_>, hole: &str) -> fmt::Result {
    write!(f, "{{{hole}}}")
}

/// The place, or what is known of it.
fn at(f: &mut Formatter<'_>, format: &str, error: &Error) -> fmt::Result {
    let at = error.at;
    match format {
        "" => at.fmt(f),
        "uid" => at.uid().unwrap_or(0).fmt(f),
        "window" => at.window_base().unwrap_or_default().fmt(f),
        "above" => at.above(error.detail).fmt(f),
        "answers" if at.uid().is_some() => write!(f, ", where {at} is to answer"),
        "answers" => Ok(()),
        _ => unknown(f, format),
    }
}

/// A number in some form.
fn numeral(f: &mut Formatter<'_>, format: &str, number: u64, error: &Error) -> fmt::Result {
    /// A value as it is printed, or the number of none.
    fn value<F: Fact + Display>(f: &mut Formatter<'_>, number: u64) -> fmt::Result {
        match F::unpack(number) {
            Some(value) => value.fmt(f),
            None => write!(f, "unknown {number:#x}"),
        }
    }
    let ones = |there: bool| if there { SILENT } else { "" };
    match format {
        "" => number.fmt(f),
        "x" => write!(f, "{number:#x}"),
        "x2" => write!(f, "{number:#04x}"),
        "x3" => write!(f, "{number:#05x}"),
        "x4" => write!(f, "{number:#06x}"),
        "x8" => write!(f, "{number:#010x}"),
        "x16" => write!(f, "{number:#018x}"),
        "size" => Size(number).fmt(f),
        "power" => Size(1u64.checked_shl(number as u32).unwrap_or(0)).fmt(f),
        // Of 256 bytes, the finest granularity.
        "granules" => write!(f, "{:#x}", number.saturating_mul(256)),
        "bytes" => write!(f, "{:02x?}", number.to_le_bytes()),
        "bus" => value::<RootBus>(f, number),
        "function" => value::<Sbdf>(f, number),
        "dvsec" => value::<DvsecId>(f, number),
        "opcode" => value::<Opcode>(f, number),
        "coherency" => value::<Coherency>(f, number),
        "interleave" => value::<Interleave>(f, number),
        "range" => value::<Span>(f, number),
        "ends" => match Span::<Hpa>::unpack(number) {
            Some(span) => write!(f, "{:#x} to {:#x}", span.base().0, span.end().0),
            None => write!(f, "unknown {number:#x}"),
        },
        // As many pages as the detail says.
        "registers" => match Span::new(Hpa(number), u64::from(error.detail) << 12) {
            Ok(span) => span.fmt(f),
            Err(_) => write!(f, "{number:#x}"),
        },
        "register" => {
            let name = registers().find(|(other, _)| u64::from(*other) == number);
            match name {
                Some((_, name)) => f.write_str(name),
                None => write!(f, "register {number:#x}"),
            }
        }
        "ones" => f.write_str(ones(number == u64::from(u32::MAX))),
        // Registers of 16 bits lie in configuration space.
        "narrow-ones" => {
            let narrow = u64::from(u16::MAX);
            let wide = error.expected > narrow || number > narrow;
            f.write_str(ones(number == if wide { u64::from(u32::MAX) } else { narrow }))
        }
        "lost" => {
            let commit = Control::from_bits(number as u32).commit();
            f.write_str(if commit { "" } else { LOST })
        }
        _ => unknown(f, format),
    }
}

/// The rule whose number is the detail's lower half.
fn rule(f: &mut Formatter<'_>, of: &str, error: &Error) -> fmt::Result {
    fn words<R: Rule>(f: &mut Formatter<'_>, error: &Error) -> fmt::Result {
        let Error { detail, expected, found, .. } = *error;
        let [number, _] = detail.to_le_bytes();
        match R::unpack(number, expected, found) {
            Some(rule) => rule.words(f),
            None => write!(f, "rule {number} is broken ({expected:#x}, {found:#x})"),
        }
    }
    match of {
        "rsdp" => words::<RsdpError>(f, error),
        "table" => words::<TableError>(f, error),
        "allocation" => words::<AllocationError>(f, error),
        "cedt" => words::<Problem>(f, error),
        "walk" => words::<WalkError>(f, error),
        "dvsec" => words::<DvsecError>(f, error),
        "locator" => words::<LocatorError>(f, error),
        "bar" => words::<BarProblem>(f, error),
        "array" => words::<ArrayError>(f, error),
        "range" => words::<RangeError>(f, error),
        "device-array" => words::<DeviceArrayError>(f, error),
        "window" => words::<WindowError>(f, error),
        "compose" => words::<ComposeError>(f, error),
        "xor" => words::<XorMapError>(f, error),
        "decode" => words::<DecodeError>(f, error),
        _ => unknown(f, of),
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;
    use crate::error::{Code, Place};

    #[test]
    fn every_hole_of_every_row_is_known() {
        for &code in Code::ALL {
            // Each word of a choice is taken by one of these.
            for detail in 0..8u16 {
                let at = Place::in_window(crate::path::Path::default(), Hpa(1 << 32));
                let error = Error { code, detail, at, expected: u64::from(detail), found: 1 << 20 };
                let text = format!("{error}");
                assert!(!text.contains(['{', '}', '|']), "{code:?}: {text}");
            }
        }
    }

    #[test]
    fn a_number_without_a_row_is_printed_as_it_is() {
        let code = Code::new(0x0FF1).expect("a number");
        let error = code.at(Place::byte(16)).expected(5u32).found(6u32);
        assert_eq!(
            format!("{error}"),
            "byte 0x10: error 0x0ff1, expected 0x5, found 0x6, detail 0x0"
        );
        assert_eq!(format!("{code:?}"), "0x0ff1");
    }

    #[test]
    fn a_word_beyond_the_last_is_the_last() {
        let words = "a|{b|c}|d";
        let found = [0, 1, 2, 3, u64::MAX].map(|index| nth(words, index));
        assert_eq!(found, ["a", "{b|c}", "d", "d", "d"]);
    }
}
