//! Rows of digits with offsets: `xxd`, `xxd -e`, `od`, `hexdump`, `hexdump -C`, `acpidump`, iasl's raw
//! data, a kernel's `print_hex_dump`; and digits without offsets.
//!
//! Offsets are hexadecimal, octal (`od`) or decimal (`od -A d`): whichever makes the rows lie end to
//! end. Groups of one byte are bytes. Wider groups behind a bare offset are numbers, as `od` and
//! `hexdump` print them; behind a colon they are bytes (`xxd`), or numbers (`xxd -e`): whichever makes
//! something known of them.
//!
//! **Invariant**: rows lie end to end; the one that does not is named.

use super::lines::{Line, Lines};
use super::{Ask, CaptureError, Content, Form, Found, Reading, Result, Taken, judged};

/// The most bytes that one block may expand to.
const MAX_BLOCK: usize = 1 << 20;
/// Fewer bytes than this in a single row are no dump, but prose with digits in it.
const LEAST: usize = 16;

/// One row: an offset and groups of digits.
#[derive(Clone, Debug)]
struct Row<'a> {
    line: Line<'a>,
    offset: &'a str,
    /// A colon behind the offset.
    colon: bool,
    groups: Vec<&'a str>,
    /// The row before is repeated up to this one.
    star: bool,
}

impl<'a> Row<'a> {
    /// The row in a line; a kernel's `print_hex_dump` may have words with colons in front of it.
    fn of(line: Line<'a>) -> Option<Self> {
        let starts = line.text.match_indices(": ").take(4).map(|(at, _)| at + 2);
        std::iter::once(0).chain(starts).find_map(|start| Self::at(line, line.text.get(start..)?))
    }

    fn at(line: Line<'a>, text: &'a str) -> Option<Self> {
        let text = text.trim_start();
        let digits = text.bytes().take_while(u8::is_ascii_hexdigit).count();
        let (offset, rest) = text.split_at_checked(digits)?;
        if offset.is_empty() || offset.len() > 16 {
            return None;
        }
        let colon = rest.starts_with(':');
        let data = match rest.strip_prefix(':') {
            Some(rest) => {
                let rest = rest.trim_start();
                // Two blanks set off the text column, and so do iasl's slashes.
                rest.split("  ").next()?.split("//").next()?.split('\t').next()?
            }
            None if offset.len() >= 6 && (rest.is_empty() || rest.starts_with(' ')) => {
                rest.split(['|', '>']).next()?
            }
            None => return None,
        };
        let groups: Vec<_> = data.split_ascii_whitespace().collect();
        let even = |group: &&str| {
            group.len().is_multiple_of(2) && group.bytes().all(|digit| digit.is_ascii_hexdigit())
        };
        let alone = groups.is_empty() && colon;
        (!alone && groups.iter().all(even)).then_some(Self {
            line,
            offset,
            colon,
            groups,
            star: false,
        })
    }

    /// Digits of a group, if all groups but a last one are alike and stand for a number's bytes.
    fn width(&self) -> Option<usize> {
        let width = self.groups.first()?.len();
        let (_, others) = self.groups.split_last()?;
        others.iter().all(|group| group.len() == width).then_some(width)
    }

    fn length(&self) -> usize {
        self.groups.iter().map(|group| group.len() / 2).sum()
    }

    fn offset(&self, radix: u32) -> Option<u64> {
        u64::from_str_radix(self.offset, radix).ok()
    }

    fn jump(&self, expected: u64, radix: u32) -> CaptureError {
        let expected = match radix {
            8 => format!("the row of offset {expected:o}"),
            10 => format!("the row of offset {expected}"),
            _ => format!("the row of offset {expected:#x}"),
        };
        let column = self.line.text.find(self.offset).map_or(1, |at| self.line.column(at));
        let found = format!("offset {}", self.offset);
        CaptureError::Line { line: self.line.number, column, expected, found }
    }

    fn bytes(&self, words: bool, bytes: &mut Vec<u8>) {
        for group in &self.groups {
            let start = bytes.len();
            for pair in group.as_bytes().chunks_exact(2) {
                let value = pair.iter().filter_map(|&digit| char::from(digit).to_digit(16));
                bytes.push(value.fold(0, |byte, digit| byte << 4 | digit as u8));
            }
            if words && let Some(group) = bytes.get_mut(start..) {
                group.reverse();
            }
        }
    }
}

/// The rows from a line on that belong together, and the line behind them.
fn rows<'a>(text: &Lines<'a>, start: usize) -> Option<(Vec<Row<'a>>, usize)> {
    let first = Row::of(text.get(start))?;
    if first.groups.is_empty() {
        return None;
    }
    let mut rows = vec![first];
    let mut star = false;
    let mut at = start + 1;
    // A gap of blank lines may be a pasted one.
    while let Some((next, line)) = text.next(at) {
        if line.text.trim() == "*" {
            star = true;
            at = next + 1;
            continue;
        }
        let Some(row) = Row::of(line) else { break };
        let [Some(first), Some(last)] = [rows.first(), rows.last()] else { break };
        let restarts = row.offset.bytes().all(|digit| digit == b'0') && last.length() > 0;
        if row.colon != first.colon || restarts || last.groups.is_empty() {
            break;
        }
        rows.push(Row { star, ..row });
        star = false;
        at = next + 1;
        if rows.len() > MAX_BLOCK {
            break;
        }
    }
    Some((rows, at))
}

/// Rows as bytes; in words or not.
fn bytes(rows: &[Row<'_>], radix: u32, words: bool) -> Result<Vec<u8>> {
    let mut bytes: Vec<u8> = Vec::new();
    let base = rows.first().and_then(|row| row.offset(radix)).unwrap_or(0);
    let width = rows.first().and_then(Row::width).map_or(1, |digits| digits as u64 / 2);
    let mut last = 0;
    for row in rows {
        let expected = base.saturating_add(bytes.len() as u64);
        let jump = || row.jump(expected, radix);
        let offset = row.offset(radix).ok_or_else(jump)?;
        if row.star {
            let fill = offset.checked_sub(expected).ok_or_else(jump)?;
            if last == 0 || !fill.is_multiple_of(last as u64) || fill > MAX_BLOCK as u64 {
                return Err(jump());
            }
            let template = bytes.split_off(bytes.len() - last);
            let copies = 1 + fill as usize / last;
            bytes.extend(template.iter().cycle().take(copies * last));
        } else if row.groups.is_empty() && expected.wrapping_sub(offset) < width {
            // od fills the last number up with zeros, and then says where the input ended.
            bytes.truncate(offset.saturating_sub(base) as usize);
        } else if offset != expected {
            return Err(jump());
        }
        if bytes.len() > MAX_BLOCK {
            let found = "more".to_owned();
            let expected = format!("at most {MAX_BLOCK} bytes in one block");
            return Err(CaptureError::Line { line: row.line.number, column: 1, expected, found });
        }
        let before = bytes.len();
        row.bytes(words, &mut bytes);
        last = bytes.len() - before;
    }
    Ok(bytes)
}

/// The rows from a line on, as what they are.
pub(super) fn take(text: &Lines<'_>, start: usize, ask: Ask) -> Taken {
    let Some((rows, next)) = rows(text, start) else { return plain(text, start, ask) };
    let total: usize = rows.iter().map(Row::length).sum();
    if total < LEAST {
        return None;
    }
    Some(block(text, start, &rows, next, ask).map(|found| (vec![found], next)))
}

fn block(text: &Lines<'_>, start: usize, rows: &[Row<'_>], next: usize, ask: Ask) -> Result<Found> {
    let broken = broken(text, next, rows);
    let first = rows.first();
    let colon = first.is_some_and(|row| row.colon);
    let width = first.and_then(Row::width).unwrap_or(2);
    let uniform = rows.iter().all(|row| row.groups.is_empty() || row.width() == Some(width));
    let radixes: &[u32] = if colon { &[16] } else { &[16, 8, 10] };
    let mut jumped = None;
    let lines = (text.get(start).number, text.get(next - 1).number);
    for &radix in radixes {
        let words = match ask.reading {
            Some(Reading::Words) => true,
            Some(_) => false,
            None => !colon && width > 2,
        };
        let plain = match bytes(rows, radix, words) {
            Ok(bytes) => bytes,
            Err(error) => {
                // The radix by which most rows fit is the one that was meant.
                if line_of(&error) > jumped.as_ref().map_or(0, line_of) {
                    jumped = Some(error);
                }
                continue;
            }
        };
        if let Some(error) = broken {
            return Err(error);
        }
        let heading = text.last_before(start).text;
        let form = if words {
            Form::Words(u8::try_from(width / 2).unwrap_or(u8::MAX))
        } else if heading.contains(" @ 0x") {
            Form::Acpidump
        } else if heading.starts_with("Raw Table Data") {
            Form::IaslRaw
        } else {
            Form::Bytes
        };
        let found = judged(plain, form, lines, ask);
        let turned = colon && uniform && [4, 8, 16].contains(&width) && ask.reading.is_none();
        let unknown = match &found {
            Ok(found) => matches!(found.content, Content::Unknown { .. }),
            Err(_) => true,
        };
        if turned && unknown {
            let form = Form::Words(u8::try_from(width / 2).unwrap_or(u8::MAX));
            let words = judged(bytes(rows, radix, true)?, form, lines, ask);
            if let Ok(Found { content: Content::Dump(_) | Content::Table { .. }, .. }) = words {
                return words;
            }
        }
        return found;
    }
    match jumped {
        Some(error) => Err(error),
        None => judged(vec![], Form::Bytes, lines, ask),
    }
}

fn line_of(error: &CaptureError) -> usize {
    match error {
        CaptureError::Line { line, .. } | CaptureError::At { line, .. } => *line,
        _ => 0,
    }
}

/// What is wrong with the line behind a block, if it should be a row of it.
fn broken(text: &Lines<'_>, next: usize, rows: &[Row<'_>]) -> Option<CaptureError> {
    let line = text.get(next);
    let last = rows.last()?;
    let digits = line.text.trim_start();
    let end = digits.find(|c: char| !c.is_ascii_hexdigit())?;
    let (offset, rest) = digits.split_at_checked(end)?;
    if !last.colon || !rest.starts_with(':') || offset.len() != last.offset.len() {
        return None;
    }
    let expected = last.offset(16)?.checked_add(last.length() as u64)?;
    if u64::from_str_radix(offset, 16) != Ok(expected) {
        return None;
    }
    let data = rest.get(1..)?;
    let bad = data.char_indices().find(|(_, c)| !c.is_ascii_hexdigit() && *c != ' ');
    let (at, found) = match bad {
        Some((at, c)) => (at, format!("{c:?}")),
        None => (0, "an odd number of digits".to_owned()),
    };
    let column = line.column(line.text.len() - data.len() + at);
    let expected = "pairs of hex digits".to_owned();
    Some(CaptureError::Line { line: line.number, column, expected, found })
}

/// Digits without offsets; taken only where they are something known.
fn plain(text: &Lines<'_>, start: usize, ask: Ask) -> Taken {
    let digits = |line: &Line<'_>| -> Option<usize> {
        let count = line.text.bytes().filter(u8::is_ascii_hexdigit).count();
        let only = line.text.bytes().all(|c| c.is_ascii_hexdigit() || c == b' ');
        (only && count > 0 && count.is_multiple_of(2)).then_some(count)
    };
    if digits(&text.get(start)).is_none_or(|count| count < 2 * LEAST) {
        return None;
    }
    let lines: Vec<_> = text.from(start).iter().take_while(|line| digits(line).is_some()).collect();
    let mut bytes = Vec::new();
    for line in &lines {
        let groups = line.text.split_ascii_whitespace().collect::<Vec<_>>();
        if groups.iter().any(|group| group.len() % 2 != 0) || bytes.len() > MAX_BLOCK {
            return None;
        }
        let row = Row { line: **line, offset: "", colon: false, groups, star: false };
        row.bytes(ask.reading == Some(Reading::Words), &mut bytes);
    }
    let next = start + lines.len();
    let at = (start + 1, next);
    match judged(bytes, Form::Plain, at, ask) {
        Ok(Found { content: Content::Unknown { .. }, .. }) => None,
        result => Some(result.map(|found| (vec![found], next))),
    }
}
