//! Text within XML.

use std::fmt::{self, Display, Formatter, Write as _};

use crate::terminal::harmless;

/// Text as an element or an attribute has it, where a reader makes a blank of a new line; what XML has
/// no place for is shown.
pub(crate) struct Xml<'a>(pub(crate) &'a str);

impl Display for Xml<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        harmless(self.0).chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\u{FFFE}' | '\u{FFFF}' => f.write_str("\u{FFFD}"),
            c => f.write_char(c),
        })
    }
}
