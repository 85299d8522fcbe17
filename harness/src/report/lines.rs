//! Lines of a report: headings, paragraphs and facts, no longer than the reader's line.

use std::fmt::{self, Display, Formatter};

/// Columns of a line, unless a width is asked for (`{report:80}`).
const WIDTH: usize = 100;
/// Columns below which nothing is legible any more.
const NARROWEST: usize = 60;
/// Columns of a label with the spaces around it.
const LABEL: usize = 20;

/// Columns that a line may have.
pub(super) fn width(f: &Formatter<'_>) -> usize {
    f.width().unwrap_or(WIDTH).clamp(NARROWEST, WIDTH)
}

/// A heading, with an empty line before it.
pub(super) fn heading(f: &mut Formatter<'_>, text: impl Display) -> fmt::Result {
    writeln!(f)?;
    paragraph(f, text)
}

/// A text in as many lines as it takes.
pub(super) fn paragraph(f: &mut Formatter<'_>, text: impl Display) -> fmt::Result {
    let text = text.to_string();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (now, behind) = wrap(rest, width(f));
        writeln!(f, "{now}")?;
        rest = behind;
    }
    Ok(())
}

/// A fact: two spaces, a label, a value that goes on in the next lines if it is long. A long label
/// moves the first line of the value to the right.
pub(crate) fn fact(f: &mut Formatter<'_>, label: impl Display, value: impl Display) -> fmt::Result {
    let mut label = label.to_string();
    let value = value.to_string();
    let mut rest = value.as_str();
    loop {
        let (column, width) = (LABEL.max(label.chars().count() + 3), width(f));
        let (now, behind) = wrap(rest, width.saturating_sub(column).max(width / 4));
        writeln!(f, "  {label:<17} {now}")?;
        if behind.is_empty() {
            return Ok(());
        }
        rest = behind;
        label.clear();
    }
}

/// As many words as fit into `room` columns, and the rest; a word that is too long is cut.
pub(super) fn wrap(text: &str, room: usize) -> (&str, &str) {
    let Some((limit, _)) = text.char_indices().nth(room) else { return (text, "") };
    let (head, tail) = text.split_at(limit);
    if tail.starts_with(' ') {
        return (head, tail.trim_start());
    }
    match head.rsplit_once(' ') {
        Some((words, _)) if !words.trim().is_empty() => {
            let (words, rest) = text.split_at(words.len());
            (words.trim_end(), rest.trim_start())
        }
        _ => (head, tail),
    }
}

/// Who observed what follows.
pub(super) fn seen_by(f: &mut Formatter<'_>, who: &str) -> fmt::Result {
    fact(f, "seen by", who)
}
