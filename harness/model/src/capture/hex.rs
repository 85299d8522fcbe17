//! Rows of digits with offsets: `xxd`, `xxd -e`, `od`, `hexdump`, `hexdump -C`, `acpidump`, iasl's raw
//! data, a kernel's `print_hex_dump`; and digits without offsets.
//!
//! Offsets are hexadecimal, octal (`od`) or decimal (`od -A d`): whichever makes the rows lie end to
//! end. Groups of one byte are bytes. Wider groups behind a bare offset are numbers, as `od` and
//! `hexdump` print them; behind a colon they are bytes (`xxd`), or numbers (`xxd -e`): whichever makes
//! something known of them. So do groups without offsets (`od -A n`).
//!
//! A mailer breaks long lines: where the rest of a row's text column stands on a line of its own, it is
//! passed over. Rows round a line that says that others were left out are named, and not read.
//!
//! **Invariant**: rows lie end to end; the one that does not is named.

use super::lines::{Line, Lines, is_elision};
use crate::dump::Dump;

use super::{Ask, CaptureError, Content, Form, Found, Notes, Reading, Result, Taken, judged};

/// The most bytes that one block may expand to.
const MAX_BLOCK: usize = 1 << 20;
/// Fewer bytes than this in a single row are no dump, but prose with digits in it.
const LEAST: usize = 16;
/// The fewest digits of a line without an offset: a dword.
const FEWEST: usize = 8;
/// The longest text column: 16 characters between bars.
const GUTTER: usize = 18;
/// The most lines of somebody else between two rows of a log.
const MOST_BETWEEN: usize = 16;

/// One row: an offset and groups of digits.
#[derive(Clone, Debug)]
struct Row<'a> {
    line: Line<'a>,
    /// The words in front.
    prefix: &'a str,
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
        std::iter::once(0).chain(starts).find_map(|start| Self::at(line, start))
    }

    fn at(line: Line<'a>, start: usize) -> Option<Self> {
        let (prefix, text) = line.text.split_at_checked(start)?;
        let text = text.trim_start();
        let text = text.strip_prefix("0x").unwrap_or(text);
        let digits = text.bytes().take_while(u8::is_ascii_hexdigit).count();
        let (offset, rest) = text.split_at_checked(digits)?;
        if offset.is_empty() || offset.len() > 16 {
            return None;
        }
        let colon = rest.starts_with(':');
        let data = match rest.strip_prefix(':') {
            Some(rest) => {
                let rest = rest.trim_start();
                if let Some(groups) = numbers(rest) {
                    return Some(Self { line, prefix, offset, colon, groups, star: false });
                }
                // Two blanks set off the text column, and so do iasl's slashes.
                rest.split("  ").next()?.split("//").next()?.split('\t').next()?
            }
            None if offset.len() >= 6 && (rest.is_empty() || rest.starts_with(' ')) => {
                rest.split(['|', '>']).next()?
            }
            None => return None,
        };
        let mut groups: Vec<_> = data.split_ascii_whitespace().collect();
        let even = |group: &&str| {
            group.len().is_multiple_of(2) && group.bytes().all(|digit| digit.is_ascii_hexdigit())
        };
        if !colon && !groups.iter().all(even) {
            groups = bytes_before_text(data);
            if groups.is_empty() {
                return None;
            }
        }
        let alone = groups.is_empty() && colon;
        (!alone && groups.iter().all(even)).then_some(Self {
            line,
            prefix,
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

    /// Whether the row starts where another ends, by their offsets of some radix.
    fn is_at(&self, last: &Self, radix: u32) -> bool {
        let end = last.offset(radix).and_then(|offset| offset.checked_add(last.length() as u64));
        end.is_some() && self.offset(radix) == end
    }

    /// Whether a log has it, in which others write as well.
    fn is_logged(&self) -> bool {
        self.line.before > 0 || !self.prefix.is_empty()
    }

    /// Whether the row lies behind another of the same block, its offset in hexadecimal.
    fn follows(&self, last: &Self) -> bool {
        self.colon == last.colon && self.is_at(last, 16)
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

/// The digits of numbers that say that they are hexadecimal: GDB's `x`, QEMU's `xp`.
fn numbers(data: &str) -> Option<Vec<&str>> {
    let words = data.split_ascii_whitespace();
    let is_number = |digits: &&str| {
        [2, 4, 8, 16].contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_hexdigit())
    };
    let digits = words.map(|word| word.strip_prefix("0x").filter(is_number));
    digits.collect::<Option<Vec<_>>>().filter(|digits| !digits.is_empty())
}

/// The bytes of a row whose text column nothing but blanks sets off: sixteen of them, or fewer and a gap
/// (PowerShell's `Format-Hex`).
fn bytes_before_text(data: &str) -> Vec<&str> {
    let is_byte =
        |group: &&str| group.len() == 2 && group.bytes().all(|digit| digit.is_ascii_hexdigit());
    let first = data.trim_start().split("  ").next().unwrap_or_default();
    let groups: Vec<_> = first.split(' ').take(16).take_while(is_byte).collect();
    let is_short = first.split(' ').count() == groups.len() && first.len() < data.trim().len();
    if groups.len() == 16 || is_short { groups } else { vec![] }
}

/// Whether a line is a row.
pub(super) fn is_row(line: Line<'_>) -> bool {
    Row::of(line).is_some()
}

/// Rows that belong together.
struct Rows<'a> {
    rows: Vec<Row<'a>>,
    /// The line behind them.
    next: usize,
    /// The line that stands for rows between them, or behind them.
    elided: Option<Line<'a>>,
    inside: bool,
}

/// The rows from a line on that belong together.
fn rows<'a>(text: &Lines<'a>, start: usize) -> Option<Rows<'a>> {
    let first = Row::of(text.get(start))?;
    if first.groups.is_empty() {
        return None;
    }
    let mut rows = vec![first];
    let mut star = false;
    let mut elided = None;
    let mut inside = false;
    let mut at = start + 1;
    // A gap of blank lines may be a pasted one.
    while let Some((next, line)) = text.next(at) {
        if line.text.trim() == "*" {
            star = true;
            at = next + 1;
            continue;
        }
        let [Some(first), Some(last)] = [rows.first(), rows.last()] else { break };
        let row = Row::of(line);
        let fits = row.as_ref().is_some_and(|row| row.follows(last));
        if !fits && !star && next == at && line.text.trim().chars().count() <= GUTTER {
            let behind = Row::of(text.get(next + 1));
            if behind.is_some_and(|behind| behind.follows(last) && !behind.groups.is_empty()) {
                at = next + 1;
                continue;
            }
        }
        let restarts = |row: &Row<'_>| row.offset.bytes().all(|digit| digit == b'0');
        if is_elision(line.text) {
            let behind = text.next(next + 1).and_then(|(_, line)| Row::of(line));
            elided = elided.or(Some(line));
            if behind.is_none_or(|row| row.colon != first.colon || restarts(&row)) {
                break;
            }
            inside = true;
            at = next + 1;
            continue;
        }
        let is_theirs = |row: &Row<'_>| row.is_logged() && row.prefix != first.prefix;
        // Behind a blank line another dump may begin, anywhere.
        let goes_on = |row: &Row<'_>| [16, 8, 10].iter().any(|&radix| row.is_at(last, radix));
        if next > at && !star && row.as_ref().is_some_and(|row| !goes_on(row)) {
            break;
        }
        let Some(row) = row.filter(|row| !is_theirs(row)) else {
            let Some(behind) = resumes(text, next, last) else { break };
            at = behind;
            continue;
        };
        let restarts = restarts(&row) && last.length() > 0;
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
    Some(Rows { rows, next: at, elided, inside })
}

/// Where rows of a log go on behind what somebody else wrote meanwhile.
fn resumes(text: &Lines<'_>, at: usize, last: &Row<'_>) -> Option<usize> {
    if !last.is_logged() {
        return None;
    }
    let lines = text.from(at).iter().take(MOST_BETWEEN);
    let goes_on = |row: Row<'_>| row.prefix == last.prefix && row.follows(last);
    let behind = lines.into_iter().position(|line| Row::of(*line).is_some_and(goes_on))?;
    Some(at + behind)
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
pub(super) fn take(text: &Lines<'_>, start: usize, ask: Ask, notes: &mut Notes) -> Taken {
    // Asked first: a run of numbers may be as long as the input, and each line begins one.
    if Row::of(text.get(start)).is_some_and(|first| are_numbers(text, start, &[first])) {
        return plain(text, start, ask, notes);
    }
    let Some(Rows { rows, next, elided, inside }) = rows(text, start) else {
        return plain(text, start, ask, notes);
    };
    let total: usize = rows.iter().map(Row::length).sum();
    if total < LEAST {
        return None;
    }
    if elided.is_none() && lie_apart(&rows) {
        return Some(Ok((vec![], next)));
    }
    let shortened = elided.map(|line| {
        let row = rows.iter().zip(rows.iter().skip(1)).find(|(last, row)| !row.follows(last));
        let last = row.map(|(last, _)| last).or(rows.last());
        let end = last.and_then(|last| last.offset(16)?.checked_add(last.length() as u64));
        let expected = format!("the row of offset {:#x}", end.unwrap_or_default());
        let found = format!("\"{}\": the dump was shortened", line.text.trim());
        let (line, column) = (line.number, line.column(0));
        CaptureError::Line { line, column, expected, found }
    });
    let found = match (shortened, inside) {
        (Some(shortened), true) => Err(shortened),
        // What is left out behind a dump that is whole was none of it.
        (shortened, _) => {
            block(text, start, &rows, next, ask).map_err(|error| shortened.unwrap_or(error))
        }
    };
    Some(match found {
        Ok(found) => Ok((vec![found], next)),
        Err(error) if elided.is_some() || !may_be_ours(&error, &rows) => {
            notes.pass_over(error).map(|()| (vec![], next))
        }
        Err(error) => Err(error),
    })
}

/// Whether rows that are no dump may be meant for one that is read here. Others log packets, programs and
/// pages of zeros.
fn may_be_ours(error: &CaptureError, rows: &[Row<'_>]) -> bool {
    match error {
        CaptureError::Line { .. } => {
            let mut bytes = Vec::new();
            rows.iter().for_each(|row| row.bytes(false, &mut bytes));
            bytes.starts_with(b"CEDT") || Dump::kind_of(&bytes).is_some()
        }
        error => error.is_recognised(),
    }
}

/// Whether no row lies behind the one before it, by any way of counting: a table of addresses, and no dump.
/// Of two rows, one that is missing may lie between; only as far as a block goes.
fn lie_apart(rows: &[Row<'_>]) -> bool {
    let mut pairs = rows.iter().zip(rows.iter().skip(1));
    let near = |last: &Row<'_>, row: &Row<'_>| {
        let gap = row.offset(16).zip(last.offset(16)).and_then(|(to, from)| to.checked_sub(from));
        rows.len() == 2 && gap.is_some_and(|gap| gap <= MAX_BLOCK as u64)
    };
    let follows = |last: &Row<'_>, row: &Row<'_>| [16, 8, 10].iter().any(|&r| row.is_at(last, r));
    // Whole rows that were left out everywhere (zeroes, by some filter) leave a dump that jumps.
    let left_out = |(last, row): (&Row<'_>, &Row<'_>)| {
        let gap = row.offset(16).zip(last.offset(16)).and_then(|(to, from)| to.checked_sub(from));
        let length = last.length() as u64;
        gap.is_some_and(|gap| gap > length && gap <= MAX_BLOCK as u64 && gap.is_multiple_of(length))
    };
    if rows.len() > 2 && pairs.clone().all(left_out) {
        return false;
    }
    rows.len() > 1 && !pairs.any(|(last, row)| row.star || near(last, row) || follows(last, row))
}

/// Whether what looks like an offset is a number like the others of its line (`od -A n`): all are as wide,
/// and the next line's does not follow.
fn are_numbers(text: &Lines<'_>, start: usize, rows: &[Row<'_>]) -> bool {
    let Some(first) = rows.first() else { return false };
    let width = Some(first.offset.len());
    let alike =
        |row: &Row<'_>| !row.colon && row.width() == width && Some(row.offset.len()) == width;
    let Some(second) = Row::of(text.get(start + 1)) else { return false };
    let follows = [16, 8, 10].iter().any(|&radix| second.is_at(first, radix));
    alike(first) && alike(&second) && !follows
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
        if turned && !is_known(&found) {
            let form = Form::Words(u8::try_from(width / 2).unwrap_or(u8::MAX));
            let words = bytes(rows, radix, true)?;
            // `xxd` prints bytes in pairs: they are numbers where that makes a table, which says so itself.
            let is_named = width > 4 || words.starts_with(b"CEDT");
            let words = judged(words, form, lines, ask);
            if is_named && (is_known(&words) || is_broken(&words) && !is_broken(&found)) {
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

/// Whether it is something, and not only because somebody said so.
fn is_known(found: &Result<Found>) -> bool {
    match found {
        Ok(found) => match &found.content {
            Content::Dump(dump) => !dump.is_doubtful(),
            content => !matches!(content, Content::Unknown { .. }),
        },
        Err(_) => false,
    }
}

/// Whether it is something for sure that is broken.
fn is_broken(found: &Result<Found>) -> bool {
    matches!(found, Err(error) if error.is_recognised())
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
fn plain(text: &Lines<'_>, start: usize, ask: Ask, notes: &mut Notes) -> Taken {
    let digits = |line: &Line<'_>| -> Option<usize> {
        let count = line.text.bytes().filter(u8::is_ascii_hexdigit).count();
        let only = line.text.bytes().all(|c| c.is_ascii_hexdigit() || c == b' ');
        (only && count > 0 && count.is_multiple_of(2)).then_some(count)
    };
    if digits(&text.get(start)).is_none_or(|count| count < FEWEST) || notes.digits.are_spent(start)
    {
        return None;
    }
    let lines: Vec<_> = text.from(start).iter().take_while(|line| digits(line).is_some()).collect();
    if lines.iter().filter_map(|line| digits(line)).sum::<usize>() < 2 * LEAST {
        return None;
    }
    let next = start + lines.len();
    let rows = lines.iter().map(|line| {
        let groups = line.text.split_ascii_whitespace().collect::<Vec<_>>();
        Row { line: **line, prefix: "", offset: "", colon: false, groups, star: false }
    });
    let rows: Vec<_> = rows.collect();
    let even = |row: &Row<'_>| row.groups.iter().all(|group| group.len().is_multiple_of(2));
    let small = rows.iter().map(Row::length).sum::<usize>() <= MAX_BLOCK;
    let found = (small && rows.iter().all(even)).then(|| plain_rows(&rows, (start + 1, next), ask));
    match found {
        None | Some(Ok(Found { content: Content::Unknown { .. }, .. })) => {
            notes.digits.failed(start, next);
            None
        }
        Some(result) => Some(result.map(|found| (vec![found], next))),
    }
}

fn plain_rows(rows: &[Row<'_>], lines: (usize, usize), ask: Ask) -> Result<Found> {
    let read = |words| {
        let mut bytes = Vec::new();
        rows.iter().for_each(|row| row.bytes(words, &mut bytes));
        bytes
    };
    let width = rows.first().and_then(Row::width).unwrap_or(2);
    let numbers = Form::Words(u8::try_from(width / 2).unwrap_or(u8::MAX));
    let uniform = rows.iter().all(|row| row.width() == Some(width));
    let spaced =
        rows.first().is_some_and(|row| row.groups.len() > 1) || rows.len() > 1 && width <= 16;
    match ask.reading {
        Some(Reading::Words) => return judged(read(true), numbers, lines, ask),
        Some(_) => return judged(read(false), Form::Plain, lines, ask),
        None => {}
    }
    let found = judged(read(false), Form::Plain, lines, ask);
    if uniform && spaced && [4, 8, 16].contains(&width) && !is_known(&found) {
        let words = judged(read(true), numbers, lines, ask);
        if is_known(&words) || is_broken(&words) && !is_broken(&found) {
            return words;
        }
    }
    found
}
