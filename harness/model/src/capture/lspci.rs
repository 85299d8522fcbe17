//! `lspci -xxxx`, with or without `-v`, of a whole machine: one function after the other.
//!
//! **Invariant**: a function's bytes are the rows below its own heading.

use super::lines::{Line, Lines, is_elision};
use super::{Ask, CaptureError, Content, Form, Found, Notes, Taken};
use crate::dump::{Dump, DumpError, Kind};

/// The most lines that `-vvv` prints between a heading and its bytes.
const MOST_WORDS: usize = 1000;

/// The functions from a line on.
pub(super) fn take(text: &Lines<'_>, start: usize, ask: Ask, notes: &mut Notes) -> Taken {
    let is_heading = |at: usize| {
        let line = text.get(at).text.trim_start();
        let word = line.split([' ', '\t']).next().unwrap_or_default();
        word.len() < line.len() && Dump::is_address(word)
    };
    if !is_heading(start) {
        return None;
    }
    let mut functions = Vec::new();
    let mut headings = Vec::new();
    let (mut at, mut end) = (start, start + 1);
    while at < text.len() && is_heading(at) {
        let heading = text.get(at).text.trim_start();
        let address = heading.split([' ', '\t']).next().unwrap_or_default();
        headings.push((address, text.get(at).number));
        at += 1;
        let words = (at..text.len()).take(MOST_WORDS).take_while(|&at| !is_heading(at));
        let first = words.into_iter().find(|&at| byte_row(text.get(at).text).is_some());
        let Some(first) = first else {
            notes.without_bytes += 1;
            end = at;
            // The next heading may be far; what lies between is for other readers.
            if text.next(at).is_some_and(|(next, _)| is_heading(next)) {
                at = text.next(at).map_or(at, |(next, _)| next);
                continue;
            }
            break;
        };
        let mut bytes: Vec<u8> = Vec::new();
        at = first;
        while let Some((offset, row)) = byte_row(text.get(at).text) {
            if offset != bytes.len() as u64 {
                let line = text.get(at);
                let expected = format!("the row of offset {:#x}", bytes.len());
                let found = format!("offset {offset:#x}");
                let number = line.number;
                let column = line.column(0);
                return Some(Err(CaptureError::Line { line: number, column, expected, found }));
            }
            bytes.extend(row);
            at += 1;
            if bytes.len() > 4096 {
                break;
            }
        }
        let line = text.get(at);
        if let Some(error) = broken_row(line, bytes.len()) {
            return Some(Err(error));
        }
        if is_elision(line.text) && byte_row(text.get(at + 1).text).is_some() {
            let expected = format!("the row of offset {:#x}", bytes.len());
            let found = format!("\"{}\": {address} was shortened", line.text.trim());
            let (line, column) = (line.number, line.column(0));
            let error = CaptureError::Line { line, column, expected, found };
            if let Err(error) = notes.pass_over(error) {
                return Some(Err(error));
            }
            at += 1;
            while byte_row(text.get(at).text).is_some() || is_elision(text.get(at).text) {
                at += 1;
            }
        } else {
            functions.push((Some(address.to_owned()), bytes));
        }
        end = at;
        if let Some((next, _)) = text.next(at)
            && is_heading(next)
        {
            at = next;
        } else {
            break;
        }
        if functions.len() > super::MAX_FOUND * 64 {
            return Some(Err(CaptureError::TooMany));
        }
    }
    let asked = ask.options.kind.is_none_or(|kind| kind == Kind::Config);
    if functions.is_empty() || !asked {
        // A heading in front of nothing is prose, or lspci without bytes.
        return Some(Ok((vec![], end)));
    }
    let line = text.get(start).number;
    let lines = Some((line, text.get(end - 1).number));
    let dump = Dump::of_functions(functions, ask.options);
    let form = Form::Lspci;
    Some(match dump {
        Ok(dump) => {
            let content = Content::Dump(dump);
            Ok((vec![Found { lines, form, content, seat: None }], end))
        }
        Err(error) => {
            let of = |(heading, _): &&(&str, usize)| match &error {
                DumpError::Function { address, .. } => address == heading,
                _ => false,
            };
            let line = headings.iter().find(of).map_or(line, |(_, line)| *line);
            Err(CaptureError::At { line, form, error })
        }
    })
}

/// What is wrong with a line that should be the row of an offset, and begins as one.
fn broken_row(line: Line<'_>, offset: usize) -> Option<CaptureError> {
    let row = line.text.trim_start();
    let (digits, data) = row.split_once(':')?;
    let is_it = u64::from_str_radix(digits, 16) == Ok(offset as u64) && data.starts_with(' ');
    if !is_it || digits.len() > 3 {
        return None;
    }
    let is_pair = |word: &str| word.len() == 2 && u8::from_str_radix(word, 16).is_ok();
    let mut at = line.text.len() - data.len();
    let mut found = "nothing".to_owned();
    for word in data.split(' ') {
        if !word.is_empty() && !is_pair(word) {
            found = format!("{word:?}");
            break;
        }
        at += word.len() + 1;
    }
    let column = line.column(at.min(line.text.len()));
    let expected = "pairs of hex digits".to_owned();
    Some(CaptureError::Line { line: line.number, column, expected, found })
}

/// `10: 00 00 00 00`: its offset and bytes.
fn byte_row(line: &str) -> Option<(u64, Vec<u8>)> {
    let (offset, data) = line.trim_start().split_once(':')?;
    let offset = u64::from_str_radix(offset, 16).ok().filter(|_| offset.len() <= 3)?;
    let bytes: Option<Vec<u8>> = data
        .split_ascii_whitespace()
        .map(|pair| u8::from_str_radix(pair, 16).ok().filter(|_| pair.len() == 2))
        .collect();
    bytes.filter(|bytes| !bytes.is_empty()).map(|bytes| (offset, bytes))
}
