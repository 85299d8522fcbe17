//! Base64, as mail programs and consoles without a file transfer have it.
//!
//! **Invariant**: what decodes to nothing known is prose.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::lines::Lines;
use super::{Ask, CaptureError, Content, Form, Found, Notes, Result, Taken};

/// The shortest first line.
const LEAST: usize = 32;

fn engine() -> GeneralPurpose {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    GeneralPurpose::new(&alphabet::STANDARD, config)
}

fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    text.len() - body.len() <= 2
        && body.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'+' || c == b'/')
}

/// The whole input.
pub(super) fn all(text: &Lines<'_>) -> Result<Vec<u8>> {
    let mut digits = String::new();
    for line in text.from(0) {
        let body = line.text.trim();
        if let Some(bad) = body.find(|c: char| !c.is_ascii_alphanumeric() && !"+/=".contains(c)) {
            let found = body.get(bad..).and_then(|rest| rest.chars().next()).unwrap_or(' ');
            let column = line.column(line.text.find(body).unwrap_or(0) + bad);
            let (expected, found) = ("base64".to_owned(), format!("{found:?}"));
            return Err(CaptureError::Line { line: line.number, column, expected, found });
        }
        digits.push_str(body);
    }
    engine().decode(&digits).map_err(|error| CaptureError::Line {
        line: 1,
        column: 1,
        expected: "base64".to_owned(),
        found: error.to_string(),
    })
}

/// The lines of it from a line on.
pub(super) fn take(text: &Lines<'_>, start: usize, ask: Ask, notes: &mut Notes) -> Taken {
    let first = text.get(start).text.trim();
    if first.len() < LEAST || !is_base64(first) || notes.base64.are_spent(start) {
        return None;
    }
    let mut digits = String::new();
    let mut next = start;
    for line in text.from(start) {
        let body = line.text.trim();
        if body.is_empty() || !is_base64(body) {
            break;
        }
        digits.push_str(body);
        next += 1;
        // All lines but the last are as long as the first.
        if body.len() < first.len() || body.ends_with('=') {
            break;
        }
    }
    let lines = Some((start + 1, next));
    let bytes = engine().decode(&digits).ok();
    let capture = bytes.and_then(|bytes| super::nested(&bytes, ask, false).ok());
    let known = |found: &Found| !matches!(found.content, Content::Unknown { .. });
    let found: Vec<_> = capture
        .into_iter()
        .flat_map(|capture| capture.found)
        .filter(known)
        .map(|found| Found { lines, form: Form::Base64, ..found })
        .collect();
    if found.is_empty() {
        notes.base64.failed(start, next);
        return None;
    }
    Some(Ok((found, next)))
}
