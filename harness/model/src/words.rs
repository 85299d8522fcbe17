//! Words of somebody else's, for a line of ours.

use std::borrow::Cow;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_the_line() {
        assert_eq!(on_one_line("a\n\tb\r\u{2028}\u{85}c"), "a\\n\\tb\\r\\u{2028}\\u{85}c");
        assert!(matches!(on_one_line("plain \u{1b} \u{6f22}"), Cow::Borrowed(_)));
    }
}
