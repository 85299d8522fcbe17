//! An input's lines without what mail, logs and `grep -n` put in front of them.
//!
//! **Invariant**: a line's number and its columns are those of the input, as a terminal shows it.

use crate::dump::Dump;

/// The most stamps of one line.
const MOST_STAMPS: usize = 6;
/// How far into a line its time may begin.
const MOST_STAMP: usize = 24;
/// In fewer lines than this nothing is said of what they share.
const LEAST_WITH_MARGIN: usize = 2;
/// Fewer lines one behind the other are not numbered, whatever stands in front of them.
const LEAST_NUMBERED: usize = 2;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The lines of a text.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    lines: Vec<Line<'a>>,
}

/// One line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: usize,
    /// Columns in front of the text.
    pub(super) before: usize,
    /// The text, without quotes and time stamps, and without blanks at its end.
    pub(super) text: &'a str,
}

impl<'a> Line<'a> {
    fn of(raw: &'a str, number: usize) -> Self {
        // Behind a carriage return a terminal writes over what stood there.
        let shown = raw.trim_end().rsplit('\r').next().unwrap_or_default();
        let mut line = Self { number, before: 0, text: shown };
        let text = quoted(shown);
        // A log that is indented as a whole begins its lines with stamps all the same.
        let body = stamped(text.trim_start());
        line.begin(if body.len() < text.trim_start().len() { body } else { text });
        line
    }

    /// Takes the end of the text for all of it.
    fn begin(&mut self, text: &'a str) {
        self.before += self.text.chars().count().saturating_sub(text.chars().count());
        self.text = text;
    }

    /// The column of a byte of the text.
    pub(super) fn column(&self, byte: usize) -> usize {
        self.before + self.text.get(..byte).map_or(0, |head| head.chars().count()) + 1
    }

    pub(super) fn is_blank(&self) -> bool {
        self.text.is_empty()
    }
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let lines = text.lines().zip(1..).map(|(line, number)| Line::of(line, number));
        let mut lines = lines.collect::<Vec<_>>();
        take_margin(&mut lines);
        take_numbers(&mut lines);
        Self { lines }
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The line at an index; an empty one behind the end.
    pub(super) fn get(&self, at: usize) -> Line<'a> {
        self.lines.get(at).copied().unwrap_or_default()
    }

    /// The lines from an index on.
    pub(super) fn from(&self, at: usize) -> &[Line<'a>] {
        self.lines.get(at..).unwrap_or_default()
    }

    /// The next line that is not blank, and its index.
    pub(super) fn next(&self, at: usize) -> Option<(usize, Line<'a>)> {
        let found = self.from(at).iter().position(|line| !line.is_blank())?;
        Some((at + found, self.get(at + found)))
    }

    /// The last line before an index that is not blank.
    pub(super) fn last_before(&self, at: usize) -> Line<'a> {
        let lines = self.lines.get(..at).unwrap_or_default();
        lines.iter().rev().take(3).find(|line| !line.is_blank()).copied().unwrap_or_default()
    }
}

/// Whether a line stands for others that somebody left out: `[...]`, `<snip>`, `... 12 more ...`.
pub(super) fn is_elision(line: &str) -> bool {
    let edges = |c: char| c.is_ascii_whitespace() || "[]()<>-".contains(c);
    let inner = line.trim_matches(edges);
    let words = ["snip", "snipped", "cut", "elided", "omitted", "truncated"];
    // More dots than three are a text column's.
    inner.starts_with("...") && !inner.starts_with("....")
        || inner.starts_with('\u{2026}')
        || words.iter().any(|word| inner.eq_ignore_ascii_case(word))
}

/// Without the `> ` of a mail that quotes, and of one that quotes that.
fn quoted(mut line: &str) -> &str {
    while let Some(rest) = line.strip_prefix('>') {
        line = rest.strip_prefix(' ').unwrap_or(rest);
    }
    line
}

/// Without the stamps of a log, of which there may be several, one of each program that it went through:
/// `<6>`, `[   12.345678] `, `[  T1] `, `[Tue Dec  1 12:34:56 2026] `, `2026-12-01T12:34:56.789Z `,
/// `Dec 01 12:34:56 host kernel: `.
fn stamped(line: &str) -> &str {
    let mut rest = line;
    for _ in 0..MOST_STAMPS {
        let Some(behind) =
            level(rest).or_else(|| host(rest)).or_else(|| brackets(rest)).or_else(|| date(rest))
        else {
            break;
        };
        rest = behind;
    }
    rest
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit())
}

/// Behind a kernel's level: `<6>`.
fn level(line: &str) -> Option<&str> {
    let (level, behind) = line.strip_prefix('<')?.split_once('>')?;
    is_number(level).then_some(behind)
}

/// Behind what journald and syslog have in front of a message: the host, and the kernel.
fn host(line: &str) -> Option<&str> {
    let (head, behind) = line.split_once(" kernel: ")?;
    (head.len() < 80 && head.contains(':')).then_some(behind)
}

/// Behind a time in brackets, or a kernel's thread or processor.
fn brackets(line: &str) -> Option<&str> {
    let (stamp, behind) = line.strip_prefix('[')?.split_once(']')?;
    let stamp = stamp.trim();
    let seconds =
        || stamp.split_once('.').is_some_and(|(whole, part)| is_number(whole) && is_number(part));
    let thread = || stamp.strip_prefix(['T', 'C']).is_some_and(is_number);
    let of_time = |c: char| c.is_ascii_alphanumeric() || " :.,+-/".contains(c);
    let is_stamp = seconds() || thread() || clock(stamp).is_some() && stamp.chars().all(of_time);
    is_stamp.then(|| behind.strip_prefix(' ').unwrap_or(behind))
}

/// Behind a date and a time, or a time alone, without brackets.
fn date(line: &str) -> Option<&str> {
    let at = clock(line)?;
    let (date, time) = line.split_at_checked(at)?;
    let is_month = |word: &str| MONTHS.contains(&word);
    let is_day = |word: &str| {
        word.len() == 10 && word.split('-').count() == 3 && word.split('-').all(is_number)
    };
    let is_date = match date.split_ascii_whitespace().collect::<Vec<_>>()[..] {
        [] => true,
        [day] => is_day(day.trim_end_matches('T')),
        [month, day] => is_month(month) && is_number(day),
        _ => false,
    };
    let (time, behind) = time.split_once([' ', '\t'])?;
    let of_time = |c: char| c.is_ascii_digit() || ":.,+-Z".contains(c);
    (is_date && time.chars().all(of_time)).then_some(behind)
}

/// Where `12:34:56` begins in a text; no PCI address is that.
fn clock(text: &str) -> Option<usize> {
    let is_clock = |time: &[u8]| {
        let digit = |at: usize| time.get(at).is_some_and(u8::is_ascii_digit);
        let colon = |at: usize| time.get(at) == Some(&b':');
        [0, 1, 3, 4, 6, 7].into_iter().all(digit) && [2, 5].into_iter().all(colon)
    };
    let found = text.as_bytes().windows(8).take(MOST_STAMP).position(is_clock)?;
    let digit_before =
        found.checked_sub(1).and_then(|at| text.as_bytes().get(at)).is_some_and(u8::is_ascii_digit);
    (!digit_before).then_some(found)
}

/// Takes away what every line begins with, where it ends as a margin does: `| ` of a table or of whoever
/// runs several programs, `+` of a patch, `- ` of a list, `# ` of a comment.
fn take_margin(lines: &mut [Line<'_>]) {
    let said = || lines.iter().map(|line| line.text).filter(|text| !text.is_empty());
    let Some(first) = said().next().filter(|_| said().count() >= LEAST_WITH_MARGIN) else { return };
    let shared = said().fold(first.len(), |most, text| {
        // The blank at the end of an empty line is no loss to anybody.
        let alike = first.bytes().zip(text.bytes().chain([b' '])).take(most);
        alike.take_while(|(one, other)| one == other).count()
    });
    let is_range = |head: &str| {
        head.contains(|c: char| c.is_ascii_hexdigit())
            && head.chars().all(|c| c.is_ascii_hexdigit() || " :-".contains(c))
    };
    // What is shared behind that may be digits of all rows; a path has no blanks.
    let is_margin = |head: &&str| {
        let sign = head.trim_end();
        sign == "+"
            || sign.ends_with(['|', '*', '#', '\u{2502}', '\u{2022}'])
            || sign.len() < head.len() && sign.ends_with(['-', ':', '/']) && !is_range(sign)
    };
    let heads = (1..=shared).rev().filter_map(|at| first.get(..at));
    let Some(margin) = { heads }.find(is_margin) else { return };
    for line in lines.iter_mut() {
        let is_empty = line.text == margin.trim_end();
        if let Some(text) = line.text.strip_prefix(margin).or(is_empty.then_some("")) {
            line.begin(stamped(quoted(text)));
        }
    }
}

/// A number in front of a line: `12:` and `12-` of `grep -n`, with a file's name in front where it looked
/// into several, or set off by blanks (`cat -n`, `less -N`).
struct Numbered<'a> {
    head: &'a str,
    number: usize,
    /// By blanks alone, as digits of a dump are.
    set_off: bool,
    text: &'a str,
}

impl<'a> Numbered<'a> {
    fn of(line: Line<'a>) -> Option<Self> {
        let alone = Self::at(line.text, 0);
        let named =
            || line.text.match_indices(':').take(2).find_map(|(at, _)| Self::at(line.text, at + 1));
        alone.or_else(named)
    }

    fn at(text: &'a str, start: usize) -> Option<Self> {
        let (head, rest) = text.split_at_checked(start)?;
        let body = rest.trim_start_matches(' ');
        let blanks = rest.len() - body.len();
        let digits = body.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = body.split_at_checked(digits)?;
        let text = match behind.strip_prefix([':', '-', '\t']) {
            Some(text) => text,
            None if behind.is_empty() => behind,
            None => behind
                .strip_prefix("  ")
                .or_else(|| behind.strip_prefix(' ').filter(|_| blanks >= 2))?,
        };
        let set_off = behind.starts_with(' ');
        let number = number.parse().ok().filter(|_| digits <= 6 && !number.starts_with('0'))?;
        Some(Self { head, number, set_off, text })
    }
}

/// Takes the numbers away that count lines: they grow from line to line, mostly by one. Offsets of a dump
/// do not.
fn take_numbers(lines: &mut [Line<'_>]) {
    let mut start = 0;
    while start < lines.len() {
        let (mut end, mut steps, mut last) = (start, 0, None::<Numbered<'_>>);
        for line in lines.iter().skip(start) {
            // grep sets off what lies apart.
            if last.is_some() && line.text == "--" {
                end += 1;
                continue;
            }
            let numbered = Numbered::of(*line);
            let grows = |next: &Numbered<'_>| {
                last.as_ref().is_none_or(|last| last.number < next.number && last.head == next.head)
            };
            let Some(next) = numbered.filter(grows) else { break };
            steps += usize::from(last.as_ref().is_some_and(|last| last.number + 1 == next.number));
            last = Some(next);
            end += 1;
        }
        let least =
            if last.is_some_and(|last| last.set_off) { 2 * LEAST_NUMBERED } else { LEAST_NUMBERED };
        let run = lines.get_mut(start..end).unwrap_or_default();
        // Of a list of buses the numbers are no lines'.
        let is_address =
            |line: &Line<'_>| line.text.split(' ').next().is_some_and(Dump::is_address);
        let are_lines = !run.iter().all(is_address);
        if run.len() >= least && 2 * steps >= run.len() && are_lines {
            for line in run {
                if let Some(Numbered { text, .. }) = Numbered::of(*line) {
                    line.begin(stamped(quoted(text)));
                }
            }
        }
        start = end.max(start + 1);
    }
}
