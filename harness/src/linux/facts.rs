//! What a Linux said of the machine, as `init.sh` prints it: files' texts, files' bytes, links.
//!
//! **Invariant**: nothing is interpreted here; a line that is none of the three is an error.

use cxl_model::words::counted;
use std::collections::BTreeMap;
use std::fmt;

/// All facts of one boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    texts: BTreeMap<String, String>,
    bytes: BTreeMap<String, Vec<u8>>,
    links: BTreeMap<String, String>,
}

/// Why the facts cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FactsError {
    /// The guest did not come to its end.
    CutOff {
        /// Lines that did come.
        lines: usize,
        /// The last of them.
        last: String,
    },
    /// A line says nothing.
    Line {
        /// Which, counted from 1.
        number: usize,
        /// What it holds.
        text: String,
    },
}

impl fmt::Display for FactsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutOff { lines: 0, .. } => f.write_str(
                "Linux did not come to its end: it never came to say anything of the machine",
            ),
            Self::CutOff { lines, last } => write!(
                f,
                "Linux did not come to its end: it stopped after {} about the machine, the last of \
                 them \"{last}\"",
                counted(lines, "line")
            ),
            Self::Line { number, text } => {
                write!(f, "fact {number}: expected PATH=, PATH: or PATH>, found \"{text}\"")
            }
        }
    }
}

impl std::error::Error for FactsError {}

/// The last fact.
const END: &str = "end";

impl Facts {
    /// Reads them.
    pub fn parse(text: &[u8]) -> Result<Self, FactsError> {
        let text = String::from_utf8_lossy(text);
        let mut facts = Self::default();
        let count = text.lines().count();
        let last = text.lines().last().unwrap_or_default();
        for (number, line) in (1..).zip(text.lines()) {
            // PCI addresses in paths have colons: hex digits only come behind the last one.
            let at = line.find(['=', '>']).or_else(|| line.rfind(':'));
            let (path, value) = at.map_or((line, ""), |at| line.split_at(at));
            let mut value = value.chars();
            let kind = value.next();
            let (path, value) = (path.to_owned(), value.as_str());
            let bytes = if kind == Some(':') { unhex(value) } else { None };
            match (kind, bytes) {
                (Some('='), _) => drop(facts.texts.insert(path, value.replace('|', "\n"))),
                (Some('>'), _) => drop(facts.links.insert(path, value.to_owned())),
                (Some(':'), Some(bytes)) => drop(facts.bytes.insert(path, bytes)),
                // The last line may be a part of one.
                _ if number == count => {}
                _ => return Err(FactsError::Line { number, text: shorten(line) }),
            }
        }
        match facts.texts.remove(END) {
            Some(_) => Ok(facts),
            None => Err(FactsError::CutOff { lines: count, last: shorten(last) }),
        }
    }

    /// A file's text, without the last newline.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// A file's bytes.
    pub fn bytes(&self, path: &str) -> Option<&[u8]> {
        self.bytes.get(path).map(Vec::as_slice)
    }

    /// Where a link leads.
    pub fn link(&self, path: &str) -> Option<&str> {
        self.links.get(path).map(String::as_str)
    }

    /// A number in a file: decimal, or hexadecimal with `0x`.
    pub fn number(&self, path: &str) -> Option<u64> {
        let text = self.text(path)?.trim();
        match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        }
    }

    /// Names of the devices on a bus, by name.
    pub fn devices<'f>(&'f self, bus: &str) -> impl Iterator<Item = &'f str> {
        let prefix = format!("/sys/bus/{bus}/devices/");
        let name = move |path: &'f str| path.strip_prefix(&prefix).filter(|n| !n.contains('/'));
        self.links.keys().filter_map(move |path| name(path))
    }

    /// Files with bytes whose path starts so, with the rest of the path.
    pub fn bytes_below<'f>(&'f self, prefix: &'f str) -> impl Iterator<Item = (&'f str, &'f [u8])> {
        let below = move |(path, bytes): (&'f String, &'f Vec<u8>)| {
            Some((path.strip_prefix(prefix)?, bytes.as_slice()))
        };
        self.bytes.iter().filter_map(below)
    }

    /// Texts whose path starts so, with the rest of the path.
    pub fn texts_below<'f>(&'f self, prefix: &'f str) -> impl Iterator<Item = (&'f str, &'f str)> {
        let below = move |(path, text): (&'f String, &'f String)| {
            Some((path.strip_prefix(prefix)?, text.as_str()))
        };
        self.texts.iter().filter_map(below)
    }

    /// Links whose path starts so, with the rest of the path, and where they lead.
    pub fn links_below<'f>(&'f self, prefix: &'f str) -> impl Iterator<Item = (&'f str, &'f str)> {
        let below = move |(path, to): (&'f String, &'f String)| {
            Some((path.strip_prefix(prefix)?, to.as_str()))
        };
        self.links.iter().filter_map(below)
    }

    /// The kernel's log.
    pub fn log(&self) -> &str {
        self.text("/log").unwrap_or_default()
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn shorten(line: &str) -> String {
    line.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_bytes_and_links_are_told_apart() {
        let facts = Facts::parse(
            b"/sys/bus/cxl/devices/port1>/sys/devices/pci0000:0c\n\
              /sys/bus/pci/devices/0000:0d:00.0/config:8680930d\n\
              /proc/iomem=0-1 : System RAM|  2-3 : Kernel=code\n\
              end=reached\n",
        );
        let facts = facts.expect("three facts and the end");
        assert_eq!(facts.link("/sys/bus/cxl/devices/port1"), Some("/sys/devices/pci0000:0c"));
        let config = facts.bytes("/sys/bus/pci/devices/0000:0d:00.0/config");
        assert_eq!(config, Some(&[0x86, 0x80, 0x93, 0x0D][..]));
        assert_eq!(facts.text("/proc/iomem"), Some("0-1 : System RAM\n  2-3 : Kernel=code"));
        assert!(facts.devices("cxl").eq(["port1"]));
    }

    #[test]
    fn a_guest_that_did_not_end_is_no_guest_to_believe() {
        let error = Facts::parse(b"a=1\nb=2\n/sys/bus/pci/dev");
        let last = "/sys/bus/pci/dev".to_owned();
        assert_eq!(error, Err(FactsError::CutOff { lines: 3, last }));
        let text = "what".to_owned();
        assert_eq!(Facts::parse(b"what\nend=x\n"), Err(FactsError::Line { number: 1, text }));
    }
}
