//! From what people have, to bytes: raw dumps, `xxd` and `hexdump -C` text, `lspci -xxxx` text.
//!
//! **Invariant**: every byte of a [`Section`] was in the input, at its offset. Gaps, overlaps and
//! odd digits are errors with their place, never filled in or skipped.

use std::fmt;

use cxl_regs::Size;

/// The most input that is read.
pub const MAX_INPUT: usize = 16 << 20;
/// The most bytes that one section may expand to.
const MAX_SECTION: usize = 1 << 20;

/// One dump of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// The PCI address in front of it, in `lspci` text.
    pub(super) address: Option<String>,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
}

impl Section {
    /// The section with the bytes of each dword in reverse order.
    pub(super) fn turned(&self) -> Self {
        let dwords = self.bytes.chunks(4);
        Self {
            address: self.address.clone(),
            bytes: dwords.flat_map(|dword| dword.iter().rev().copied()).collect(),
        }
    }
}

/// What is wrong with the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputError {
    /// There is nothing.
    Empty,
    /// There is more than is read.
    TooMuch {
        /// The limit.
        limit: usize,
    },
    /// A character that is no hexadecimal digit where one belongs.
    NotHex {
        /// Line number, from 1.
        line: usize,
        /// Offset of the byte that it would be part of.
        offset: u64,
        /// The character.
        found: char,
    },
    /// A group with an odd number of digits.
    OddDigits {
        /// Line number, from 1.
        line: usize,
        /// Offset of the first byte of the group.
        offset: u64,
        /// The number of digits.
        digits: usize,
    },
    /// A group of more than two digits where tools print words in the machine's byte order.
    Words {
        /// Line number, from 1.
        line: usize,
        /// Offset of the first byte of the group.
        offset: u64,
        /// The number of digits.
        digits: usize,
    },
    /// A line that starts at another offset than the one before it ends at.
    Jump {
        /// Line number, from 1.
        line: usize,
        /// Where it should start.
        expected: u64,
        /// Where it says that it starts.
        found: u64,
    },
    /// A `*` without lines round it that say what is repeated, and how far.
    Repeat {
        /// Line number, from 1.
        line: usize,
        /// Where the repeat would start.
        offset: u64,
    },
    /// A line that does not belong into such a dump.
    OtherLine {
        /// Line number, from 1.
        line: usize,
        /// Offset of the bytes that the line should have.
        offset: u64,
    },
    /// A heading of `lspci` without bytes.
    NoBytes {
        /// Line number, from 1.
        line: usize,
    },
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => f.write_str("offset 0x0: expected a register dump, found nothing"),
            Self::TooMuch { limit } => write!(
                f,
                "offset {limit:#x}: expected a dump of at most {}, found more",
                Size(limit as u64)
            ),
            Self::NotHex { line, offset, found } => {
                write!(f, "line {line}, offset {offset:#x}: expected a hex digit, found {found:?}")
            }
            Self::OddDigits { line, offset, digits } => write!(
                f,
                "line {line}, offset {offset:#x}: expected pairs of hex digits, \
                 found a group of {digits}"
            ),
            Self::Words { line, offset, digits } => write!(
                f,
                "line {line}, offset {offset:#x}: expected bytes as of hexdump -C, \
                 found a group of {digits} digits (words: their byte order is lost)"
            ),
            Self::Jump { line, expected, found } => write!(
                f,
                "line {line}, offset {found:#x}: expected the line of offset {expected:#x}, \
                 found {found:#x}"
            ),
            Self::Repeat { line, offset } => write!(
                f,
                "line {line}, offset {offset:#x}: expected whole lines round a '*', found an end"
            ),
            Self::OtherLine { line, offset } => write!(
                f,
                "line {line}, offset {offset:#x}: expected a line of hex bytes, found other text"
            ),
            Self::NoBytes { line } => write!(
                f,
                "line {line}, offset 0x0: expected lines of bytes below the address, found none \
                 (lspci -xxxx prints them)"
            ),
        }
    }
}

impl std::error::Error for InputError {}

/// What a line of text is.
enum Line<'a> {
    Blank,
    /// The lines between the one before and the one behind are as the one before.
    Repeat,
    /// `0d:00.0 Memory controller: …`
    Address(&'a str),
    /// `00000010: 1234 5678  ..4V`, `10: 12 34 56 78`
    Colon(u64, &'a str),
    /// `00000010  12 34 56 78  |.4Vx|`, and the offset alone at the end
    Columns(u64, &'a str),
    /// `12345678`
    Plain(&'a str),
    Other,
}

/// `dd:dd.d`, with an optional domain before it.
pub(super) fn is_address(word: &str) -> bool {
    let hex = |part: &str, len: std::ops::RangeInclusive<usize>| {
        len.contains(&part.len()) && part.bytes().all(|digit| digit.is_ascii_hexdigit())
    };
    let Some((slot, function)) = word.rsplit_once('.') else { return false };
    let mut parts = slot.rsplit(':');
    let (device, bus, domain) = (parts.next(), parts.next(), parts.next());
    device.is_some_and(|device| hex(device, 2..=2))
        && bus.is_some_and(|bus| hex(bus, 2..=2))
        && domain.is_none_or(|domain| hex(domain, 4..=8))
        && parts.next().is_none()
        && matches!(function.as_bytes(), [b'0'..=b'7'])
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Self {
        let line = line.trim_end();
        let digits = line.bytes().take_while(u8::is_ascii_hexdigit).count();
        let (offset, rest) = line.split_at(digits);
        let word = line.split(' ').next().unwrap_or(line);
        if line.is_empty() {
            Self::Blank
        } else if line == "*" {
            Self::Repeat
        } else if is_address(word) {
            Self::Address(word)
        } else if let (Ok(offset), Some(rest)) =
            (u64::from_str_radix(offset, 16), rest.strip_prefix(':'))
        {
            Self::Colon(offset, rest)
        } else if let (6.., Ok(offset), ' ') =
            (digits, u64::from_str_radix(offset, 16), rest.chars().next().unwrap_or('.'))
        {
            Self::Columns(offset, rest)
        } else if line.bytes().all(|c| c.is_ascii_hexdigit() || c == b' ') {
            Self::Plain(line)
        } else {
            Self::Other
        }
    }
}

/// Bytes as lines come in.
#[derive(Default)]
struct Builder {
    /// Offset of the first byte.
    start: u64,
    bytes: Vec<u8>,
    /// Length of the last line.
    last: usize,
    repeat: bool,
}

impl Builder {
    fn next(&self) -> u64 {
        self.start.saturating_add(self.bytes.len() as u64)
    }

    /// Brings the section up to the offset that a line names.
    fn seek(&mut self, line: usize, offset: u64) -> Result<(), InputError> {
        if self.bytes.is_empty() && !self.repeat {
            self.start = offset;
        }
        let expected = self.next();
        if !std::mem::take(&mut self.repeat) {
            let jump = InputError::Jump { line, expected, found: offset };
            return if offset == expected { Ok(()) } else { Err(jump) };
        }
        let jump = InputError::Jump { line, expected, found: offset };
        let fill = offset.checked_sub(expected).ok_or(jump)?;
        if self.last == 0 || !fill.is_multiple_of(self.last as u64) {
            return Err(jump);
        }
        if fill > (MAX_SECTION - self.bytes.len()) as u64 {
            return Err(InputError::TooMuch { limit: MAX_SECTION });
        }
        let template = self.bytes.split_off(self.bytes.len() - self.last);
        let copies = 1 + fill as usize / self.last;
        self.bytes.extend(template.iter().cycle().take(copies * self.last));
        Ok(())
    }

    /// Appends groups of digits.
    fn hex(&mut self, line: usize, groups: &str) -> Result<usize, InputError> {
        let before = self.bytes.len();
        for group in groups.split_ascii_whitespace() {
            if let Some(found) = group.chars().find(|c| !c.is_ascii_hexdigit()) {
                return Err(InputError::NotHex { line, offset: self.next(), found });
            }
            let digits = group.len();
            if !digits.is_multiple_of(2) {
                return Err(InputError::OddDigits { line, offset: self.next(), digits });
            }
            for pair in group.as_bytes().chunks_exact(2) {
                let value = pair.iter().filter_map(|&digit| char::from(digit).to_digit(16));
                self.bytes.push(value.fold(0, |byte, digit| byte << 4 | digit as u8));
            }
        }
        if self.bytes.len() > MAX_SECTION {
            return Err(InputError::TooMuch { limit: MAX_SECTION });
        }
        self.last = self.bytes.len() - before;
        Ok(self.last)
    }

    /// The part of an `xxd` line in front of its text column, which two spaces set off.
    fn colon(&mut self, line: usize, rest: &str) -> Result<(), InputError> {
        let hex = rest.trim_start().split("  ").next().unwrap_or("");
        match self.hex(line, hex)? {
            0 => Err(InputError::OtherLine { line, offset: self.next() }),
            _ => Ok(()),
        }
    }

    /// The part of a `hexdump -C` line in front of its text column.
    fn columns(&mut self, line: usize, rest: &str) -> Result<(), InputError> {
        let hex = rest.split(['|', '>']).next().unwrap_or("");
        let mut words = hex.split_ascii_whitespace();
        if let Some(word) = words.find(|word| word.len() > 2) {
            let (offset, digits) = (self.next(), word.len());
            return Err(InputError::Words { line, offset, digits });
        }
        self.hex(line, hex).map(|_| ())
    }

    fn finish(self, line: usize) -> Result<Vec<u8>, InputError> {
        if self.repeat {
            return Err(InputError::Repeat { line, offset: self.next() });
        }
        Ok(self.bytes)
    }
}

/// The dumps in some input. Text is recognised by its first line; all else is raw bytes.
pub(super) fn sections(input: &[u8]) -> Result<Vec<Section>, InputError> {
    if input.is_empty() {
        return Err(InputError::Empty);
    }
    if input.len() > MAX_INPUT {
        return Err(InputError::TooMuch { limit: MAX_INPUT });
    }
    let text = String::from_utf8_lossy(input);
    let lines = || text.trim_start_matches('\u{feff}').lines().zip(1..);
    let first = lines().map(|(line, _)| Line::of(line)).find(|line| !matches!(line, Line::Blank));
    match first {
        Some(Line::Address(_)) => lspci(lines()),
        Some(Line::Colon(..) | Line::Columns(..)) => hexdump(lines()),
        Some(Line::Plain(_)) => plain(lines()),
        _ => Ok(vec![Section { address: None, bytes: input.to_vec() }]),
    }
}

fn one(bytes: Vec<u8>) -> Result<Vec<Section>, InputError> {
    if bytes.is_empty() {
        Err(InputError::Empty)
    } else {
        Ok(vec![Section { address: None, bytes }])
    }
}

/// `xxd -p`.
fn plain<'a>(lines: impl Iterator<Item = (&'a str, usize)>) -> Result<Vec<Section>, InputError> {
    let mut builder = Builder::default();
    for (line, number) in lines {
        builder.hex(number, line)?;
    }
    one(builder.bytes)
}

/// `xxd`, `hexdump -C`, `od -A x -t x1z`.
fn hexdump<'a>(lines: impl Iterator<Item = (&'a str, usize)>) -> Result<Vec<Section>, InputError> {
    let mut builder = Builder::default();
    // An offset alone ends `hexdump` text, and looks like a line of plain digits.
    let mut ended = false;
    let mut last = 0;
    for (line, number) in lines {
        last = number;
        let kind = Line::of(line);
        if ended && !matches!(kind, Line::Blank) {
            return Err(InputError::OtherLine { line: number, offset: builder.next() });
        }
        match kind {
            Line::Blank => {}
            Line::Repeat if builder.bytes.is_empty() || builder.repeat => {
                return Err(InputError::Repeat { line: number, offset: builder.next() });
            }
            Line::Repeat => builder.repeat = true,
            Line::Colon(offset, rest) => {
                builder.seek(number, offset)?;
                builder.colon(number, rest)?;
            }
            Line::Columns(offset, rest) => {
                builder.seek(number, offset)?;
                builder.columns(number, rest)?;
            }
            Line::Plain(digits) if let Ok(offset) = u64::from_str_radix(digits, 16) => {
                builder.seek(number, offset)?;
                ended = true;
            }
            Line::Plain(_) | Line::Address(_) | Line::Other => {
                return Err(InputError::OtherLine { line: number, offset: builder.next() });
            }
        }
    }
    one(builder.finish(last)?)
}

/// `lspci -xxxx`, with or without `-v`: one function after the other, each below its address.
fn lspci<'a>(lines: impl Iterator<Item = (&'a str, usize)>) -> Result<Vec<Section>, InputError> {
    let mut sections: Vec<(usize, String, Builder)> = Vec::new();
    for (line, number) in lines {
        match (Line::of(line), sections.last_mut()) {
            (Line::Blank, _) => {}
            (Line::Address(address), _) => {
                sections.push((number, address.to_owned(), Builder::default()));
            }
            // The lines of `-v` are indented.
            _ if line.starts_with(['\t', ' ']) => {}
            (Line::Colon(offset, rest), Some((_, _, builder))) => {
                if builder.bytes.is_empty() && offset != 0 {
                    return Err(InputError::Jump { line: number, expected: 0, found: offset });
                }
                builder.seek(number, offset)?;
                builder.colon(number, rest)?;
            }
            (_, section) => {
                let offset = section.map_or(0, |(_, _, builder)| builder.next());
                return Err(InputError::OtherLine { line: number, offset });
            }
        }
    }
    let section = |(line, address, builder): (usize, String, Builder)| {
        if builder.bytes.is_empty() {
            return Err(InputError::NoBytes { line });
        }
        Ok(Section { address: Some(address), bytes: builder.bytes })
    };
    sections.into_iter().map(section).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Result<Vec<u8>, InputError> {
        sections(text.as_bytes()).map(|sections| {
            assert_eq!(sections.len(), 1, "{text:?}");
            sections.into_iter().next().map(|section| section.bytes).unwrap_or_default()
        })
    }

    #[test]
    fn every_text_format_gives_the_same_bytes() {
        let cases = [
            (
                "xxd",
                "00000000: 4142 4344 4546 4748 494a 4b4c 4d4e 4f50  ABCDEFGHIJKLMNOP\n\
                     00000010: 5152                                     QR\n",
            ),
            (
                "xxd -g1 -u",
                "00000000: 41 42 43 44 45 46 47 48 49 4A 4B 4C 4D 4E 4F 50  ABCD\n\
                            00000010: 51 52  QR\n",
            ),
            (
                "xxd from somewhere",
                "00001000: 4142434445464748494a4b4c4d4e4f50  cafe beef\n\
                                    00001010: 5152  aa\n",
            ),
            ("xxd -p", "4142434445464748494a4b4c4d4e4f50\n5152\n"),
            ("windows", "\u{feff}4142434445464748494a4b4c4d4e4f50\r\n5152\r\n"),
            (
                "hexdump -C",
                "00000000  41 42 43 44 45 46 47 48  49 4a 4b 4c 4d 4e 4f 50  |ABCD  89|\n\
                            00000010  51 52                                             |QR|\n\
                            00000012\n",
            ),
            (
                "od",
                "000000 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f 50  >AB  89<\n\
                    000010 51 52\n000012\n",
            ),
        ];
        for (name, text) in cases {
            assert_eq!(bytes(text).as_deref(), Ok(&b"ABCDEFGHIJKLMNOPQR"[..]), "{name}");
        }
    }

    #[test]
    fn star_repeats_the_line_before_it() {
        let text = "00000000  01 02  |..|\n*\n00000006  03  |.|\n00000007\n";
        assert_eq!(bytes(text), Ok(vec![1, 2, 1, 2, 1, 2, 3]));
        let text = "0000: 0102  ..\n*\n0006: 0304  ..\n";
        assert_eq!(bytes(text), Ok(vec![1, 2, 1, 2, 1, 2, 3, 4]));
    }

    #[test]
    fn raw_bytes_stay_as_they_are() {
        for raw in [&b"CEDT\x24\0\0\0"[..], b"\x12\x1b\0\0", b"\n\n\0", b"\xff\xff\xff\xff"] {
            let expected = vec![Section { address: None, bytes: raw.to_vec() }];
            assert_eq!(sections(raw), Ok(expected));
        }
    }

    #[test]
    fn lspci_gives_one_section_a_function() {
        let text = "0d:00.0 Memory controller [0502]: Intel\n\tSubsystem: Red Hat\n\
                    00: 86 80 93 0d\n04: 06 04\n\n0001:0e:1f.7 Bridge\n00: 01\n";
        let section = |address: &str, bytes: &[u8]| Section {
            address: Some(address.to_owned()),
            bytes: bytes.to_vec(),
        };
        let expected = vec![
            section("0d:00.0", &[0x86, 0x80, 0x93, 0x0D, 6, 4]),
            section("0001:0e:1f.7", &[1]),
        ];
        assert_eq!(sections(text.as_bytes()), Ok(expected));
    }

    #[test]
    fn broken_text_is_refused_with_its_place() {
        use InputError::*;
        let cases = [
            ("", Empty),
            ("00000000: 4142\n00000004: 43\n", Jump { line: 2, expected: 2, found: 4 }),
            ("00000000: 4142\n00000001: 43\n", Jump { line: 2, expected: 2, found: 1 }),
            ("10: 41\n00: 42\n", Jump { line: 2, expected: 0x11, found: 0 }),
            ("00: 41 4g\n", NotHex { line: 1, offset: 1, found: 'g' }),
            ("00: 41 \u{fffd}2\n", NotHex { line: 1, offset: 1, found: '\u{fffd}' }),
            ("00: 414 41\n", OddDigits { line: 1, offset: 0, digits: 3 }),
            ("414243\n4142434\n", OddDigits { line: 2, offset: 3, digits: 7 }),
            ("00:\n", OtherLine { line: 1, offset: 0 }),
            ("00: 41\nhello\n", OtherLine { line: 2, offset: 1 }),
            ("0000000 1b12 0000\n", Words { line: 1, offset: 0, digits: 4 }),
            ("00000000  41\n*\n", Repeat { line: 2, offset: 1 }),
            ("00000000  41 42\n*\n*\n00000006\n", Repeat { line: 3, offset: 2 }),
            ("00000000  41 42\n*\n00000005\n", Jump { line: 3, expected: 2, found: 5 }),
            ("00000000  41 42\n*\n00000000\n", Jump { line: 3, expected: 2, found: 0 }),
            ("00000000  41 42\n00000009\n", Jump { line: 2, expected: 2, found: 9 }),
            ("00000000  41\n00000001\n00000001  42\n", OtherLine { line: 3, offset: 1 }),
            ("00000000  41\n*\nffffffffffffffff\n", TooMuch { limit: MAX_SECTION }),
            ("ffffffffffffffff: 4142\n00: 41\n", Jump { line: 2, expected: u64::MAX, found: 0 }),
            ("0d:00.0 Bridge\n\n0e:00.0 Bridge\n00: 41\n", NoBytes { line: 1 }),
            ("0d:00.0 Bridge\n10: 41\n", Jump { line: 2, expected: 0, found: 0x10 }),
            ("0d:00.0 Bridge\n00: 41\nBridge\n", OtherLine { line: 3, offset: 1 }),
        ];
        for (text, error) in cases {
            assert_eq!(sections(text.as_bytes()), Err(error), "{text:?}");
        }
        let huge = vec![0; MAX_INPUT + 1];
        assert_eq!(sections(&huge), Err(TooMuch { limit: MAX_INPUT }));
    }
}
