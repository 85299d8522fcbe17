//! An input's lines without what mail and logs put in front of them.
//!
//! **Invariant**: a line's number and its columns are those of the input.

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
        let text = stamped(quoted(raw.trim_start_matches('\u{feff}'))).trim_end();
        let before = raw.trim_end().chars().count().saturating_sub(text.chars().count());
        Self { number, before, text }
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
        Self { lines: lines.collect() }
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

/// Without the stamps of a kernel's log: `<6>`, `[   12.345678] `, `Nov 30 15:00:00 host kernel: `.
fn stamped(line: &str) -> &str {
    let mut rest = line;
    if let Some((level, after)) = rest.strip_prefix('<').and_then(|after| after.split_once('>'))
        && !level.is_empty()
        && level.bytes().all(|digit| digit.is_ascii_digit())
    {
        rest = after;
    }
    // journald and syslog name the host and the kernel in front of the message.
    if let Some((head, after)) = rest.split_once(" kernel: ")
        && head.len() < 80
        && head.contains(':')
    {
        rest = after;
    }
    let stamp = rest.strip_prefix('[').and_then(|after| after.split_once(']'));
    if let Some((stamp, after)) = stamp
        && stamp.contains('.')
        && stamp.contains(|c: char| c.is_ascii_digit())
        && stamp.trim().bytes().all(|digit| digit.is_ascii_digit() || digit == b'.')
    {
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    rest
}
