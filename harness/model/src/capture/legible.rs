//! An input as its reader sees it: text without what the way here put in. Terminals colour and draw, serial
//! lines drop zeros, mailers and web pages have blanks and quotation marks of their own.
//!
//! **Invariant**: bytes that are no text are left as they are; lines stay the lines they were.

use std::borrow::Cow;

use crate::dump::MAX_INPUT;

/// What pages write for characters that mean something to them.
const ENTITIES: [(&str, char); 9] = [
    ("&quot;", '"'),
    ("&#34;", '"'),
    ("&apos;", '\''),
    ("&#39;", '\''),
    ("&lt;", '<'),
    ("&gt;", '>'),
    ("&nbsp;", ' '),
    ("&#160;", ' '),
    // Last, so that what it makes is no entity.
    ("&amp;", '&'),
];

/// The input as text, where it is text.
pub(super) fn legible(input: &[u8]) -> Cow<'_, [u8]> {
    if input.len() > MAX_INPUT {
        return Cow::Borrowed(input);
    }
    let Some(text) = narrow(input).or_else(|| text(input)) else { return Cow::Borrowed(input) };
    let seen = anstream::adapter::strip_str(&text).to_string();
    let mut seen: String = seen.chars().filter_map(plain).collect();
    if !seen.contains('\n') {
        seen = seen.replace('\r', "\n");
    }
    for (entity, character) in ENTITIES {
        if seen.contains(entity) {
            seen = seen.replace(entity, character.encode_utf8(&mut [0; 4]));
        }
    }
    if seen.contains("0x") {
        seen = seen
            .split_inclusive('\n')
            .map(|line| array(line).unwrap_or_else(|| line.to_owned()))
            .collect();
    }
    match seen.as_bytes() == input {
        true => Cow::Borrowed(input),
        false => Cow::Owned(seen.into_bytes()),
    }
}

/// What stands for a character; nothing for what has no width.
fn plain(c: char) -> Option<char> {
    match c {
        '\0' | '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FEFF}' | '\u{AD}' => None,
        '\u{A0}' | '\u{2000}'..='\u{200A}' | '\u{202F}' | '\u{205F}' | '\u{3000}' => Some(' '),
        '\u{201C}'..='\u{201F}' => Some('"'),
        _ => Some(c),
    }
}

/// UTF-16: a UEFI shell and PowerShell write that where they redirect into a file. Its first character says
/// so, and all of it has to be text.
fn narrow(input: &[u8]) -> Option<Cow<'_, str>> {
    let decode: fn([u8; 2]) -> u16 = match input {
        [0xFF, 0xFE, ..] => u16::from_le_bytes,
        [0xFE, 0xFF, ..] => u16::from_be_bytes,
        _ => return None,
    };
    let (units, rest) = input.as_chunks::<2>();
    let text = char::decode_utf16(units.iter().skip(1).map(|unit| decode(*unit)));
    let text = text.map(|c| c.ok().filter(|c| !c.is_control() || is_layout(*c)));
    text.collect::<Option<String>>().filter(|_| rest.is_empty()).map(Cow::Owned)
}

/// What is text but for zeros, which are half of it at most: that many has UTF-16 without a first character
/// that says so. Text that is no UTF-8 is of an older kind, in which all that is read here is the same.
fn text(input: &[u8]) -> Option<Cow<'_, str>> {
    let zeros = input.iter().filter(|byte| **byte == 0).count();
    let is_text = |byte: &u8| match *byte {
        0 => true,
        byte => (byte >= b' ' && byte != 0x7F) || is_layout(char::from(byte)),
    };
    if !input.iter().all(is_text) {
        return None;
    }
    // A block of zeros, or of 0xFF, has no lines.
    let has_lines = input.contains(&b'\n') || input.contains(&b'\r');
    if !has_lines || zeros > input.len().div_ceil(2) {
        return str::from_utf8(input).ok().filter(|_| zeros == 0).map(Cow::Borrowed);
    }
    let older = || input.iter().map(|byte| char::from(*byte)).collect();
    Some(str::from_utf8(input).map_or_else(|_| Cow::Owned(older()), Cow::Borrowed))
}

/// Control characters that text has: blanks, lines, what begins a terminal's sequences and ends some.
fn is_layout(c: char) -> bool {
    c.is_ascii_whitespace() || matches!(c, '\u{7}' | '\u{8}' | '\u{1B}')
}

/// A line of an array, as programs have it (`0x43, 0x45,`), as digits in the same columns.
fn array(line: &str) -> Option<String> {
    let code = line.split("/*").next()?.split("//").next()?.trim_end();
    if !code.is_ascii() || !code.contains(',') {
        return None;
    }
    let inner = code.trim_matches(|c: char| c.is_whitespace() || "{}[]();,".contains(c));
    let is_number = |word: &str| {
        let digits = word.trim().strip_prefix("0x").unwrap_or_default();
        [1, 2, 8, 16].contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_hexdigit())
    };
    if !inner.split(',').all(is_number) {
        return None;
    }
    let mut digits = String::with_capacity(line.len());
    for (at, c) in code.char_indices() {
        let rest = code.get(at..).unwrap_or_default();
        let alone =
            |rest: &str| rest.bytes().skip(1).take_while(u8::is_ascii_hexdigit).count() == 1;
        digits.push(match c {
            '0' if rest.starts_with("0x") => ' ',
            // A byte of one digit has two.
            'x' if alone(rest) => '0',
            c if c.is_ascii_hexdigit() => c,
            _ => ' ',
        });
    }
    digits.push('\n');
    Some(digits)
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_array_keeps_its_columns() {
        let line = "    0x07,0x0,0x00,0xFf,    /* 00000068    \"CEDT\" */\n";
        assert_eq!(super::array(line).as_deref(), Some("      07  00   00   Ff \n"));
    }
}
