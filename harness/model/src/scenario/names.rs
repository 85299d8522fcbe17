//! Names and places: who is called what, and where in the text an error points.
//!
//! **Invariant**: no two components share a name, and no two windows do; no name has more than one line.

use std::collections::BTreeMap;
use std::ops::Range;

use cxl_regs::DECODER_UNIT;
use toml::Spanned;

use super::document::Document;
use super::{Parent, Place, Problem, ScenarioError};
use crate::typed::place;
use crate::words::on_one_line;

pub(super) type Result<T> = std::result::Result<T, ScenarioError>;

/// The text that errors point into.
pub(super) struct Source<'t> {
    pub(super) text: &'t str,
    pub(super) file: &'t str,
}

impl Source<'_> {
    pub(super) fn error(&self, span: Range<usize>, problem: Problem) -> ScenarioError {
        ScenarioError::at(self.text, self.file, span, problem)
    }

    /// A place, as errors have it.
    pub(super) fn place(&self, span: &Range<usize>) -> String {
        let (line, column) = place(self.text, span.start);
        format!("{}:{line}:{column}", self.file)
    }

    /// What an address at a place would have been with `0x` in front, where it is decimal and no window can
    /// be there, and that is where one could.
    pub(super) fn meant_in_hexadecimal(&self, span: &Range<usize>) -> Option<String> {
        let written = self.text.get(span.clone())?.trim_matches(['"', '\'']);
        let digits = written.replace('_', "");
        let [decimal, other] = [10, 16].map(|radix| u64::from_str_radix(&digits, radix).ok());
        let (decimal, other) = (decimal?, other?);
        let meant = !decimal.is_multiple_of(DECODER_UNIT) && other.is_multiple_of(DECODER_UNIT);
        meant.then(|| {
            format!("{written} is decimal, {decimal:#x}; the hexadecimal one is 0x{digits}")
        })
    }

    pub(super) fn out_of_range<T>(
        &self,
        span: Range<usize>,
        key: &'static str,
        expected: &'static str,
        found: impl ToString,
    ) -> Result<T> {
        Err(self.error(span, Problem::OutOfRange { key, expected, found: found.to_string() }))
    }

    pub(super) fn taken<T>(
        &self,
        span: Range<usize>,
        what: &'static str,
        found: impl ToString,
        by: &str,
    ) -> Result<T> {
        let (found, by) = (found.to_string(), by.to_owned());
        Err(self.error(span, Problem::Taken { what, found, by }))
    }
}

/// Every name of the document. Components share one space of names, windows have their own.
pub(super) struct Names {
    components: BTreeMap<String, Place>,
    pub(super) windows: Vec<String>,
    pub(super) bridges: Vec<String>,
    pub(super) ports: Vec<String>,
    pub(super) switches: Vec<String>,
    pub(super) devices: Vec<String>,
}

impl Names {
    pub(super) fn collect(source: &Source<'_>, document: &Document) -> Result<Self> {
        let mut spans: BTreeMap<String, Range<usize>> = BTreeMap::new();
        let mut components = BTreeMap::new();
        let mut list = |given: Vec<&Option<Spanned<String>>>, prefix, place: fn(usize) -> Place| {
            let mut names = Vec::new();
            for (index, given) in given.into_iter().enumerate() {
                let (name, span) = name_or_default(given, prefix, index);
                // Of two, blame the later one; a default name has no place in the text.
                if let Some(other) = spans.insert(name.clone(), span.clone()) {
                    let span = if other.start > span.start { other } else { span };
                    return source.taken(span, "name", format!("`{name}`"), "another component");
                }
                components.insert(name.clone(), place(index));
                names.push(name);
            }
            Ok(names)
        };
        let bridges = list(document.bridge.iter().map(|b| &b.name).collect(), "hb", Place::Bridge)?;
        let ports = list(document.port.iter().map(|p| &p.name).collect(), "port", Place::Port)?;
        let switches =
            list(document.switch.iter().map(|s| &s.name).collect(), "sw", Place::Switch)?;
        let devices =
            list(document.device.iter().map(|d| &d.name).collect(), "mem", Place::Device)?;
        let mut windows = Vec::new();
        for (index, window) in document.window.iter().enumerate() {
            let (name, span) = name_or_default(&window.name, "window", index);
            if windows.contains(&name) {
                return source.taken(span, "name", format!("`{name}`"), "another window");
            }
            windows.push(name);
        }
        Ok(Self { components, windows, bridges, ports, switches, devices })
    }

    fn of(&self, place: fn(usize) -> Place) -> Vec<String> {
        let wanted = std::mem::discriminant(&place(0));
        let kind = |place: &Place| std::mem::discriminant(place) == wanted;
        let known = self.components.iter().filter(|(_, place)| kind(place));
        known.map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn unknown<T>(
        &self,
        source: &Source<'_>,
        name: &Spanned<String>,
        expected: &'static str,
        known: Vec<String>,
    ) -> Result<T> {
        let found = name.get_ref().clone();
        Err(source.error(name.span(), Problem::UnknownName { expected, found, known }))
    }

    pub(super) fn port(&self, source: &Source<'_>, name: &Spanned<String>) -> Result<usize> {
        match self.components.get(&*on_one_line(name.get_ref())) {
            Some(&Place::Port(index)) => Ok(index),
            _ => self.unknown(source, name, "the name of a port", self.of(Place::Port)),
        }
    }

    pub(super) fn device(&self, source: &Source<'_>, name: &Spanned<String>) -> Result<usize> {
        match self.components.get(&*on_one_line(name.get_ref())) {
            Some(&Place::Device(index)) => Ok(index),
            _ => self.unknown(source, name, "the name of a device", self.of(Place::Device)),
        }
    }

    pub(super) fn place(&self, source: &Source<'_>, name: &Spanned<String>) -> Result<Place> {
        match self.components.get(&*on_one_line(name.get_ref())) {
            Some(&place) => Ok(place),
            None => {
                let all = self.components.keys().cloned().collect();
                self.unknown(source, name, "the name of a component", all)
            }
        }
    }

    pub(super) fn parent(&self, source: &Source<'_>, name: &Spanned<String>) -> Result<Parent> {
        match self.components.get(&*on_one_line(name.get_ref())) {
            Some(&Place::Bridge(index)) => Ok(Parent::Bridge(index)),
            Some(&Place::Switch(index)) => Ok(Parent::Switch(index)),
            _ => {
                let mut known = self.of(Place::Bridge);
                known.extend(self.of(Place::Switch));
                self.unknown(source, name, "the name of a bridge or switch", known)
            }
        }
    }

    pub(super) fn component(&self, source: &Source<'_>, name: &Spanned<String>) -> Result<Place> {
        match self.components.get(&*on_one_line(name.get_ref())) {
            Some(&place) => Ok(place),
            None => {
                let known = self.components.keys().cloned().collect();
                self.unknown(source, name, "the name of a component", known)
            }
        }
    }
}

fn name_or_default(
    given: &Option<Spanned<String>>,
    prefix: &str,
    index: usize,
) -> (String, Range<usize>) {
    match given {
        Some(name) => (on_one_line(name.get_ref()).into_owned(), name.span()),
        None => (format!("{prefix}{index}"), 0..0),
    }
}
