//! The codes of ways and granularities, as tables and registers have them.
//!
//! **Invariant**: nothing here asks the crates that are judged: the numbers are typed by hand.

/// The number of ways behind a code; `None` for a reserved one.
pub(super) fn ways(code: u32) -> Option<u64> {
    match code {
        0..=4 => Some(1 << code),
        8..=10 => Some(3 << (code - 8)),
        _ => None,
    }
}

/// The code of a number of ways.
pub(super) fn ways_code(count: u64) -> Option<u32> {
    (0..=10).find(|&code| ways(code) == Some(count))
}

/// The granularity behind a code, in bytes; `None` for a reserved one.
pub(super) fn granularity(code: u32) -> Option<u64> {
    (code <= 6).then(|| 256 << code)
}

/// The code of a granularity.
pub(super) fn granularity_code(bytes: u64) -> Option<u32> {
    (0..=6).find(|&code| granularity(code) == Some(bytes))
}
