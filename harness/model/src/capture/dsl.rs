//! The fields of a table as `iasl -d` writes them: `[024h 0036 001h]   Subtable Type : 00`.
//!
//! `iasl` prints the length of a record that it does not know and none of its fields, and of some that it
//! knows fields that are not there. All bytes of the table stand below, as its raw data.
//!
//! **Invariant**: fields lie end to end from offset 0; the one that does not is named. Where the fields
//! are no table, the raw data of the same table is taken for them, and that is said.

use super::lines::{Line, Lines, is_elision};
use super::{Ask, CaptureError, Form, Notes, Result, Taken, hex, judged};

/// The most bytes of a table.
const MAX_TABLE: usize = 1 << 20;

/// A field: offset, length, value.
struct Field<'a> {
    line: Line<'a>,
    offset: usize,
    length: usize,
    value: &'a str,
    /// It is one more member of a list.
    next: bool,
}

impl<'a> Field<'a> {
    fn of(line: Line<'a>) -> Option<Self> {
        let (place, rest) = line.text.trim_start().strip_prefix('[')?.split_once(']')?;
        let mut words = place.split_ascii_whitespace();
        let offset = words.next()?.strip_suffix('h')?;
        let offset = usize::from_str_radix(offset, 16).ok()?;
        let _decimal = words.next()?;
        let length = words.next()?;
        let length = match length.strip_suffix('h') {
            Some(length) => usize::from_str_radix(length, 16),
            None => length.parse(),
        };
        let length = length.ok().filter(|&length| length <= MAX_TABLE)?;
        let (name, value) = rest.split_once(" : ")?;
        let next = name.trim_start().starts_with("Next ");
        let value = value.trim();
        words.next().is_none().then_some(Self { line, offset, length, value, next })
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let column = || self.line.text.rfind(self.value).map_or(1, |at| self.line.column(at));
        let wrong = |expected: String| CaptureError::Line {
            line: self.line.number,
            column: column(),
            expected,
            found: format!("\"{}\"", self.value),
        };
        if let Some(rest) = self.value.strip_prefix('"') {
            let (text, _) =
                rest.split_once('"').ok_or_else(|| wrong("a closing quotation mark".to_owned()))?;
            let mut bytes = text.as_bytes().to_vec();
            if bytes.len() > self.length {
                return Err(wrong(format!("at most {} characters", self.length)));
            }
            // What is printed stops at the first zero.
            bytes.resize(self.length, 0);
            return Ok(bytes);
        }
        let digits = self.value.split_ascii_whitespace().next().unwrap_or_default();
        let fits = |digits: &str| digits.len() <= 2 * self.length && digits.len() <= 16;
        if self.length <= 8 && fits(digits) && !digits.is_empty() {
            let value = u64::from_str_radix(digits, 16)
                .map_err(|_| wrong("a hexadecimal number".to_owned()))?;
            return Ok(value.to_le_bytes().iter().copied().take(self.length).collect());
        }
        // A buffer: pairs of digits.
        let bytes: Option<Vec<u8>> = self
            .value
            .split_ascii_whitespace()
            .take(self.length)
            .map(|pair| u8::from_str_radix(pair, 16).ok().filter(|_| pair.len() == 2))
            .collect();
        let bytes = bytes.filter(|bytes| bytes.len() == self.length);
        bytes.ok_or_else(|| wrong(format!("{} bytes in hexadecimal", self.length)))
    }
}

/// The fields from a line on.
pub(super) fn take(text: &Lines<'_>, start: usize, ask: Ask, notes: &mut Notes) -> Taken {
    Field::of(text.get(start)).filter(|field| field.offset == 0)?;
    let error = match table(text, start, ask) {
        Ok(found) => return Some(Ok(found)),
        Err(error) => error,
    };
    if let Some(raw) = raw_data(text, start) {
        let (from, to) = (text.get(start).number, text.get(raw).number);
        notes.remarks.push(format!(
            "the fields of lines {from}-{to} are not the whole table ({error}); its raw data below them \
             is taken"
        ));
        return Some(Ok((vec![], raw)));
    }
    let behind = error.line().saturating_sub(1);
    let between = text.from(start).iter().take(behind.saturating_sub(start));
    if between.into_iter().any(|line| is_elision(line.text)) {
        return Some(notes.pass_over(error).map(|()| (vec![], behind)));
    }
    Some(Err(error))
}

/// The heading of the raw data behind the fields of a table, if rows follow it.
fn raw_data(text: &Lines<'_>, start: usize) -> Option<usize> {
    for (at, line) in text.from(start).iter().enumerate().skip(1) {
        if line.text.starts_with("Raw Table Data") {
            let (rows, _) = text.next(start + at + 1)?;
            return hex::is_row(text.get(rows)).then_some(start + at);
        }
        // Another table.
        if Field::of(*line).is_some_and(|field| field.offset == 0) {
            return None;
        }
    }
    None
}

fn table(text: &Lines<'_>, start: usize, ask: Ask) -> Result<(Vec<super::Found>, usize)> {
    let mut bytes: Vec<u8> = Vec::new();
    let (mut at, mut end) = (start, start);
    while at < text.len() {
        let line = text.get(at);
        at += 1;
        if line.text.starts_with("Raw Table Data") {
            break;
        }
        let Some(field) = Field::of(line) else { continue };
        if field.offset == 0 && !bytes.is_empty() {
            break;
        }
        // iasl counts the members of some lists by one, whatever their length (XOR maps).
        let listed = field.next && field.offset < bytes.len();
        if field.offset != bytes.len() && !listed || bytes.len() > MAX_TABLE {
            let expected = format!("the field at offset {:#x}", bytes.len());
            let found = format!("offset {:#x}", field.offset);
            let (line, column) = (line.number, line.column(0));
            return Err(CaptureError::Line { line, column, expected, found });
        }
        bytes.extend(field.bytes()?);
        end = at;
    }
    let lines = (text.get(start).number, text.get(end.saturating_sub(1)).number);
    judged(bytes, Form::IaslFields, lines, ask).map(|found| (vec![found], end))
}
