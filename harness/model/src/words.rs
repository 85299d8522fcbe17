//! Words of somebody else's, for a line of ours.

use std::borrow::Cow;
use std::fmt::Display;

/// The text on one line: breaks and tabs as they are written down. A name that had one could make a report
/// say what nobody has found.
pub fn on_one_line(text: &str) -> Cow<'_, str> {
    let breaks = |c: char| matches!(c, '\t'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    if !text.contains(breaks) {
        return Cow::Borrowed(text);
    }
    let mut output = String::with_capacity(text.len());
    for c in text.chars() {
        if breaks(c) { output.extend(c.escape_default()) } else { output.push(c) }
    }
    output.into()
}

/// So many of something: `1 port`, `2 ports`. What ends otherwise in the plural is not counted by this.
pub fn counted(number: impl Display, what: &str) -> String {
    let number = number.to_string();
    let ending = if number == "1" { "" } else { "s" };
    format!("{number} {what}{ending}")
}

/// Of some words the one that is at most a third different.
pub fn nearest_word<'w>(word: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let (distance, found) = words.map(|other| (distance(word, other), other)).min()?;
    (3 * distance <= word.chars().count()).then_some(found)
}

/// Letters to insert, drop or replace to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().take(64).enumerate() {
        let mut next = vec![line + 1];
        for (column, other) in to.iter().enumerate() {
            let replaced = row.get(column).copied().unwrap_or(0) + usize::from(letter != *other);
            let dropped = row.get(column + 1).copied().unwrap_or(0) + 1;
            let inserted = next.get(column).copied().unwrap_or(0) + 1;
            next.push(replaced.min(dropped).min(inserted));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_the_line() {
        assert_eq!(on_one_line("a\n\tb\r\u{2028}\u{85}c"), "a\\n\\tb\\r\\u{2028}\\u{85}c");
        assert!(matches!(on_one_line("plain \u{1b} \u{6f22}"), Cow::Borrowed(_)));
    }
}
