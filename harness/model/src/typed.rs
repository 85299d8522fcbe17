//! A text in TOML as the values it stands for, and what is wrong with it as whoever typed it would say it.
//!
//! What serde finds wrong it says in words of Rust (`invalid type: map, expected u8`). What was typed is in
//! the text, so that is looked at again: which key it is, what stands there.
//!
//! **Invariant**: what is told has a place in the text, and names no type and no variant of Rust.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::words::{nearest_word, on_one_line};

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistyped {
    /// Where: bytes of the text.
    pub span: Range<usize>,
    /// The key, what was expected, what was found.
    pub message: String,
}

impl Mistyped {
    /// Line and column of its first byte, from 1.
    pub fn place(&self, text: &str) -> (usize, usize) {
        place(text, self.span.start)
    }
}

/// Line and column of a byte of a text, from 1; columns count characters.
pub fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let last = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, last.chars().count() + 1)
}

/// The values of a text.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, Mistyped> {
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let message = match DeTable::parse(text) {
            Ok(document) => told::<T>(text, document.get_ref(), &span, error.message()),
            Err(_) => no_toml(text, &span, error.message()),
        };
        Mistyped { span, message }
    })
}

/// A word that no key has.
const NO_WORD: &str = "?";

/// What is wrong with a value or a key of a text that is TOML.
fn told<T: DeserializeOwned>(
    text: &str,
    document: &DeTable<'_>,
    span: &Range<usize>,
    message: &str,
) -> String {
    let (what, expected) = message.rsplit_once(", expected ").unwrap_or((message, ""));
    if what.starts_with("unknown field ") {
        let found = shown(text, span);
        let of = holder(document, span).flatten();
        let of = of.map_or_else(String::new, |of| format!(" of `{}`", on_one_line(of)));
        let (keys, meant) = (listed(expected, '`'), meant(&found, expected, '`'));
        return format!("expected one of the keys{of} ({keys}), found `{found}`{meant}");
    }
    // A table that dots make has no place of its own: there its first key has it.
    let dotted = || holder(document, span).flatten().map(|key| (key, None));
    let found = nearest(document, span).map(|(key, value)| (key, Some(value))).or_else(dotted);
    let key = found.map(|(key, _)| on_one_line(key));
    if let Some(missing) = what.strip_prefix("missing field ") {
        let because = key.map_or_else(String::new, |key| format!(": every `{key}` has it"));
        return format!("expected the key {missing}, found none{because}");
    }
    let key = key.map_or_else(String::new, |key| format!("`{key}`: "));
    let value = found.and_then(|(_, value)| value);
    let found = value.map_or("a table".into(), |value| found_in(text, value));
    let word = value.and_then(|value| value.get_ref().as_str()).unwrap_or_default();
    if let Some(length) = what.strip_prefix("invalid length ") {
        let expected = in_plain_words(expected);
        format!("{key}expected {expected}, found {length}")
    } else if what.starts_with("unknown variant ") {
        let (words, meant) = (listed(expected, '"'), meant(word, expected, '"'));
        format!("{key}expected {words}, found {found}{meant}")
    } else if what == "wanted string or table" {
        format!("{key}expected {}, found {found}", words_there::<T>(text, span))
    } else if what.starts_with("invalid ") {
        format!("{key}expected {}, found {found}", in_plain_words(expected))
    } else {
        // Words of our own.
        format!("{key}{}", on_one_line(message))
    }
}

/// What a place of the text would take: what its reader says of a word that is none.
fn words_there<T: DeserializeOwned>(text: &str, span: &Range<usize>) -> String {
    let (before, behind) = (text.get(..span.start), text.get(span.end..));
    let other = [before.unwrap_or_default(), "\"", NO_WORD, "\"", behind.unwrap_or_default()];
    let error = toml::from_str::<T>(&other.concat()).err();
    let words = error.as_ref().and_then(|error| error.message().rsplit_once(", expected "));
    words.map_or_else(|| "a word in quotes".to_owned(), |(_, list)| listed(list, '"'))
}

/// The names in a list of serde's.
fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split('`').skip(1).step_by(2)
}

/// Such a list, in quotes of ours.
fn listed(list: &str, quote: char) -> String {
    let mut names: Vec<_> = names(list).map(|name| format!("{quote}{name}{quote}")).collect();
    match names.pop() {
        Some(last) if names.is_empty() => last,
        Some(last) => format!("{} or {last}", names.join(", ")),
        None => "none".to_owned(),
    }
}

/// The name in such a list that somebody mistyped.
fn meant(found: &str, list: &str, quote: char) -> String {
    let near = nearest_word(&found.to_lowercase(), names(list));
    near.map_or_else(String::new, |near| format!("; did you mean {quote}{near}{quote}?"))
}

/// What a type of Rust takes, for whoever knows none.
fn in_plain_words(expected: &str) -> Cow<'_, str> {
    Cow::Borrowed(match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" => "a whole number from 0 to 18446744073709551615",
        "a boolean" => "true or false",
        "a string" => "a text in quotes",
        "path string" => "the name of a file in quotes",
        "a sequence" => "a list",
        other if other.starts_with("struct ") || other == "a map" => "a table",
        other => match other.strip_prefix("an array of length ") {
            Some(length) => return format!("a list of {length}").into(),
            None => other,
        },
    })
}

/// What stands there.
fn found_in(text: &str, value: &Spanned<DeValue<'_>>) -> String {
    match value.get_ref() {
        DeValue::String(string) => format!("\"{}\"", cut(&on_one_line(string))),
        DeValue::Array(list) if list.is_empty() => "an empty list".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
        DeValue::Datetime(_) => format!("the date or time {}", shown(text, &value.span())),
        _ => shown(text, &value.span()),
    }
}

/// Bytes of the text, on one line and no longer than one.
fn shown(text: &str, span: &Range<usize>) -> String {
    cut(&on_one_line(text.get(span.clone()).unwrap_or_default()))
}

/// The most characters of a value that are repeated.
const MOST: usize = 60;

fn cut(text: &str) -> String {
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The value at a place, or the innermost one around it, with the key whose value or part it is.
fn nearest<'d, 'i>(
    document: &'d DeTable<'i>,
    span: &Range<usize>,
) -> Option<(&'d str, &'d Spanned<DeValue<'i>>)> {
    let entries = document.iter().map(|(key, value)| (key.get_ref().as_ref(), value));
    let mut left: Vec<(&str, &Spanned<DeValue<'_>>)> = entries.collect();
    let mut around: Option<(&str, &Spanned<DeValue<'_>>)> = None;
    while let Some((key, value)) = left.pop() {
        let at = value.span();
        if at == *span {
            return Some((key, value));
        }
        let innermost = around.is_none_or(|(_, other)| at.len() < other.span().len());
        if at.start <= span.start && span.end <= at.end && innermost {
            around = Some((key, value));
        }
        match value.get_ref() {
            DeValue::Table(table) => {
                left.extend(table.iter().map(|(key, value)| (key.get_ref().as_ref(), value)));
            }
            DeValue::Array(list) => left.extend(list.iter().map(|value| (key, value))),
            _ => {}
        }
    }
    around
}

/// What the table is called in which a key stands at this place: nothing, where that is the whole text.
fn holder<'d>(document: &'d DeTable<'_>, span: &Range<usize>) -> Option<Option<&'d str>> {
    let mut left: Vec<(Option<&str>, &DeTable<'_>)> = vec![(None, document)];
    while let Some((name, table)) = left.pop() {
        for (key, value) in table {
            if key.span() == *span {
                return Some(name);
            }
            let name = Some(key.get_ref().as_ref());
            match value.get_ref() {
                DeValue::Table(table) => left.push((name, table)),
                DeValue::Array(list) => {
                    let tables = list.iter().filter_map(|value| value.get_ref().as_table());
                    left.extend(tables.map(|table| (name, table)));
                }
                _ => {}
            }
        }
    }
    None
}

/// What is wrong with a text that is no TOML. The parser says it well, but for these.
fn no_toml(text: &str, span: &Range<usize>, message: &str) -> String {
    let before = text.get(..span.start).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    if message == "duplicate key" {
        let found = shown(text, span);
        // What there are several of has two brackets.
        let above =
            text.get(..before.len() - line.len()).and_then(|text| DeTable::parse(text).ok());
        let above = above.as_ref().and_then(|document| document.get_ref().get(&*found));
        let list = above.is_some_and(|value| value.get_ref().is_array());
        let brackets =
            if list { format!(": several are written [[{found}]]") } else { String::new() };
        return format!("expected `{found}` once, found it again{brackets}");
    }
    let key = line.split_once('=').map(|(key, _)| on_one_line(key.trim()));
    let key = key.map_or_else(String::new, |key| format!("`{key}`: "));
    if message.starts_with("string values must be quoted") {
        let found = shown(text, span);
        return format!(
            "{key}expected a number, true, false, a list, or a text in quotes, found {found}"
        );
    }
    let value = text.get(before.len() - line.len()..).and_then(|rest| rest.lines().next());
    let value = value.and_then(|line| line.split_once('=')).map(|(_, value)| value.trim());
    let found = value.filter(|value| !value.is_empty());
    let found =
        found.map_or_else(String::new, |found| format!(", found {}", cut(&on_one_line(found))));
    match message.rsplit_once(", expected ") {
        Some((what, "nothing")) => format!("{key}{what}{found}"),
        Some((what, expected)) => format!("{key}expected {expected}: {what}"),
        None => format!("{key}{message}{found}"),
    }
}
