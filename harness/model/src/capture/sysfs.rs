//! The CXL bus in sysfs: a tree of files, or a line an attribute (`PATH:VALUE`, as `grep -r . PATH`
//! prints), with links as `PATH -> TARGET`.
//!
//! **Invariant**: attributes that nothing here knows are passed over; a value of a known one that is no
//! value is an error with its place.

use std::collections::BTreeMap;

use super::lines::Line;
use super::witness::{Decoder, Memdev, Port, Region, Witness, index_of, number};
use super::{CaptureError, Result};

/// The attributes that are read, by their paths below an object.
const KNOWN: [&str; 21] = [
    "start",
    "size",
    "interleave_ways",
    "interleave_granularity",
    "locked",
    "target_list",
    "target_type",
    "cap_ram",
    "cap_pmem",
    "cap_type2",
    "cap_type3",
    "dpa_resource",
    "dpa_size",
    "mode",
    "region",
    "ram/size",
    "pmem/size",
    "serial",
    "resource",
    "commit",
    "numa_node",
];

/// What has been read of a tree.
#[derive(Debug, Default)]
pub struct Tree {
    witness: Witness,
    wrong: Option<CaptureError>,
    /// The value of each attribute that was read: a second one is another machine's.
    values: BTreeMap<(String, String), String>,
}

/// The object that a path leads to, the objects of the CXL bus above it, and what stands behind it.
struct Place<'a> {
    above: Vec<&'a str>,
    object: &'a str,
    rest: String,
}

fn is_object(segment: &str) -> bool {
    ["root", "port", "endpoint", "region", "mem"].iter().any(|kind| number(segment, kind).is_some())
        || index_of(segment).is_some()
}

fn place(path: &str) -> Option<Place<'_>> {
    let segments: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let at = segments.iter().rposition(|segment| is_object(segment))?;
    let (above, rest) = segments.split_at_checked(at + 1)?;
    let object = *above.last()?;
    let above = above.iter().copied().filter(|segment| is_object(segment)).collect::<Vec<_>>();
    let above = above.split_last().map(|(_, above)| above.to_vec()).unwrap_or_default();
    Some(Place { above, object, rest: rest.join("/") })
}

impl Tree {
    /// A line; whether it is one of a tree.
    pub(super) fn line(&mut self, line: Line<'_>) -> bool {
        let text = line.text.trim_start();
        if !text.contains('/') || text.len() > 4096 {
            return false;
        }
        if let Some((path, target)) = text.split_once(" -> ") {
            let path = path.split(' ').next_back().unwrap_or(path);
            return self.link(path, target);
        }
        // Paths have colons of their own (`pci0000:0c`): the one behind a known attribute counts.
        let ends = text.match_indices(':').map(|(at, _)| at);
        for at in ends.take(64) {
            let (Some(path), Some(value)) = (text.get(..at), text.get(at + 1..)) else { continue };
            if self.takes(path) {
                let column = line.column(line.text.len() - text.len() + at + 1);
                self.attribute_at(path, value, line.number, column);
                return true;
            }
        }
        false
    }

    fn takes(&self, path: &str) -> bool {
        place(path).is_some_and(|place| KNOWN.contains(&place.rest.as_str()))
    }

    /// Whether a path is one of an object of the bus, whatever the attribute.
    pub fn has(path: &str) -> bool {
        place(path).is_some()
    }

    /// A file of the tree; whether it is an attribute that is known.
    pub fn attribute(&mut self, path: &str, value: &str) -> bool {
        let takes = self.takes(path);
        if takes {
            self.attribute_at(path, value.trim_end(), 1, 1);
        }
        takes
    }

    fn attribute_at(&mut self, path: &str, value: &str, line: usize, column: usize) {
        let Some(place) = place(path) else { return };
        let value = value.trim();
        let of = format!("{}/{}", place.object, place.rest);
        let known = (place.object.to_owned(), place.rest.clone());
        let before = self.values.entry(known).or_insert_with(|| value.to_owned()).clone();
        let expected = match before == value {
            true if self.set(&place, value).is_some() => return,
            true => format!("a value of {of}"),
            false => {
                format!("one machine, in which {of} is {before:?} (others are files of their own)")
            }
        };
        if self.wrong.is_none() {
            let found = format!("{value:?}");
            self.wrong = Some(CaptureError::Line { line, column, expected, found });
        }
    }

    /// `None` for a value that is none.
    fn set(&mut self, place: &Place<'_>, value: &str) -> Option<()> {
        let hex = || match value.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => value.parse().ok(),
        };
        let flag = || match value {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        };
        let word = || Some(value.to_owned()).filter(|word| !word.is_empty());
        let name = place.object;
        if index_of(name).is_some() {
            self.above(place);
            let decoder: &mut Decoder = self.witness.decoders.entry(name.to_owned()).or_default();
            match place.rest.as_str() {
                "start" => decoder.start = Some(hex()?),
                "size" => decoder.size = Some(hex()?),
                "interleave_ways" => decoder.ways = Some(value.parse().ok()?),
                "interleave_granularity" => decoder.granularity = Some(hex()?),
                "locked" => decoder.locked = Some(flag()?),
                "target_list" => {
                    let targets = value.split(',').filter(|target| !target.is_empty());
                    let targets: Option<_> = targets.map(|id| id.trim().parse().ok()).collect();
                    decoder.targets = targets?;
                }
                "target_type" => decoder.target_type = word(),
                "cap_ram" => decoder.volatile = Some(flag()?),
                "cap_pmem" => decoder.persistent = Some(flag()?),
                "cap_type2" => decoder.accelerator = Some(flag()?),
                "cap_type3" => decoder.expander = Some(flag()?),
                "dpa_resource" => decoder.dpa = Some(hex()?),
                "dpa_size" => decoder.dpa_size = Some(hex()?),
                "mode" => decoder.mode = word().filter(|mode| mode != "none"),
                "region" => decoder.region = word(),
                _ => {}
            }
        } else if number(name, "mem").is_some() {
            let memdev: &mut Memdev = self.witness.memdevs.entry(name.to_owned()).or_default();
            match place.rest.as_str() {
                "ram/size" => memdev.ram = Some(hex()?),
                "pmem/size" => memdev.pmem = Some(hex()?),
                "serial" => memdev.serial = Some(hex()?),
                _ => {}
            }
        } else if number(name, "region").is_some() {
            let region: &mut Region = self.witness.regions.entry(name.to_owned()).or_default();
            match place.rest.as_str() {
                "resource" => region.start = Some(hex()?),
                "size" => region.size = Some(hex()?),
                "interleave_ways" => region.ways = Some(value.parse().ok()?),
                "interleave_granularity" => region.granularity = Some(hex()?),
                "commit" => region.committed = Some(flag()?),
                _ => {}
            }
        }
        Some(())
    }

    /// The ports that a path passes, each below the one before.
    fn above(&mut self, place: &Place<'_>) {
        let mut parent: Option<&str> = None;
        for name in &place.above {
            let is_port = ["root", "port", "endpoint"].iter().any(|k| number(name, k).is_some());
            if is_port {
                let known = self.witness.ports.entry((*name).to_owned()).or_default();
                known.parent = known.parent.take().or(parent.map(str::to_owned));
                parent = Some(name);
            }
        }
    }

    /// A link; whether it is one that is known: `uport`, `dportN`, `parent_dport`, or a device of the bus
    /// itself, whose target says where it hangs.
    pub fn link(&mut self, path: &str, target: &str) -> bool {
        let last =
            |path: &str| path.trim_end_matches('/').rsplit('/').next().unwrap_or("").to_owned();
        let target_name = last(target);
        let Some(found) = place(path) else { return false };
        let name = found.object.to_owned();
        let is_port = ["root", "port", "endpoint"].iter().any(|k| number(&name, k).is_some());
        match found.rest.as_str() {
            "" => {
                // .../devices/mem0 -> ../../../devices/pci0000:0c/0000:0c:00.0/0000:0d:00.0/mem0
                let Some(below) = place(target).filter(|below| below.object == name) else {
                    return false;
                };
                self.above(&below);
                if is_port {
                    let parent = below.above.last().map(|parent| (*parent).to_owned());
                    let known = self.witness.ports.entry(name).or_default();
                    known.parent = known.parent.take().or(parent);
                } else if number(&name, "mem").is_some() {
                    let mut parts = target.trim_end_matches('/').rsplit('/').skip(1);
                    let host = parts.next().map(str::to_owned);
                    let known: &mut Memdev = self.witness.memdevs.entry(name).or_default();
                    known.host = known.host.take().or(host);
                }
                true
            }
            "uport" | "parent_dport" if is_port => {
                self.above(&found);
                let known: &mut Port = self.witness.ports.entry(name).or_default();
                let field = match found.rest.as_str() {
                    "uport" => &mut known.host,
                    _ => &mut known.parent_dport,
                };
                *field = field.take().or(Some(target_name));
                true
            }
            rest if is_port && number(rest, "dport").is_some() => {
                let id = number(rest, "dport").and_then(|id| u32::try_from(id).ok());
                let known: &mut Port = self.witness.ports.entry(name).or_default();
                if let Some(id) = id {
                    known.dports.insert(id, Some(target_name));
                }
                true
            }
            _ => false,
        }
    }

    /// What the tree shows, if it shows anything; or the first value that is none.
    pub fn witness(self) -> Result<Option<Witness>> {
        match self.wrong {
            Some(error) => Err(error),
            None => Ok(Some(self.witness).filter(|witness| !witness.is_empty())),
        }
    }
}
