//! `/proc/iomem`: ranges of physical addresses, one in the other.
//!
//! **Invariant**: a range that was hidden (without root all addresses are 0) is not taken for one.

use super::lines::Lines;
use super::witness::{Resource, Witness};
use super::{CaptureError, Content, Form, Found, Notes, Taken};

/// The most ranges.
const MOST: usize = 1 << 16;

fn resource(text: &str) -> Option<Resource> {
    let body = text.trim_start();
    let depth = (text.len() - body.len()) / 2;
    let (range, name) = body.split_once(" : ")?;
    let (start, end) = range.split_once('-')?;
    let digits = |part: &str| (8..=16).contains(&part.len());
    if !digits(start) || !digits(end) {
        return None;
    }
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    Some(Resource { start, end, depth, name: name.to_owned() })
}

/// The ranges from a line on.
pub(super) fn take(text: &Lines<'_>, start: usize, notes: &mut Notes) -> Taken {
    let lines = text.from(start).iter().take(MOST);
    let resources: Vec<_> = lines.map_while(|line| resource(line.text)).collect();
    if resources.len() < 2 {
        return None;
    }
    let next = start + resources.len();
    let line = text.get(start);
    if resources.iter().all(|range| range.start == 0 && range.end == 0) {
        let expected = "addresses".to_owned();
        let found = "zeros alone (root sees /proc/iomem as it is)".to_owned();
        let (line, column) = (line.number, line.column(0));
        let hidden = CaptureError::Line { line, column, expected, found };
        return Some(notes.pass_over(hidden).map(|()| (vec![], next)));
    }
    let lines = Some((line.number, text.get(next - 1).number));
    let content = Content::Witness(Witness { resources, ..Witness::default() });
    Some(Ok((vec![Found { lines, form: Form::Iomem, content, seat: None }], next)))
}
