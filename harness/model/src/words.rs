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

/// The most characters of a word that are compared.
const MOST: usize = 64;

/// Of some words the one that is at most a third different.
pub fn nearest_word<'w>(word: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let typed: String = word.chars().take(MOST).collect();
    let (distance, found) = words.map(|other| (strsim::levenshtein(&typed, other), other)).min()?;
    (3 * distance <= word.chars().count()).then_some(found)
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
