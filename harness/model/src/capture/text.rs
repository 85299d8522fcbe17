//! What was found, in words and as JSON.
//!
//! **Invariant**: each thing says what it was taken for, in which lines.

use std::fmt::{self, Display};

use cxl_regs::Size;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::witness::{Decoder, Witness, port_of};
use crate::dump::DumpError;

use super::{Capture, Content, Found};

/// A thing in one line: where it stands, what it is, how it is written down.
#[derive(Debug)]
pub struct FoundText<'a>(pub &'a Found);

impl Display for FoundText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { lines, form, content, seat } = self.0;
        match lines {
            Some((first, last)) if first == last => write!(f, "line {first}: ")?,
            Some((first, last)) => write!(f, "lines {first}-{last}: ")?,
            None => {}
        }
        write!(f, "{} ({form})", content.what())?;
        let Some(seat) = seat else { return Ok(()) };
        write!(f, ", of the {} UID {}", seat.component, seat.uid)?;
        for (index, port) in seat.ports.iter().enumerate() {
            write!(f, "{}{port}", if index == 0 { " port " } else { "." })?;
        }
        Ok(())
    }
}

impl Display for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, found) in self.found.iter().enumerate() {
            writeln!(f, "{}{}", if index == 0 { "" } else { "\n" }, FoundText(found))?;
            match &found.content {
                Content::Dump(dump) => dump.fmt(f)?,
                Content::Witness(witness) => witness.fmt(f)?,
                Content::Dvsec(bytes) => {
                    let header = cxl_regs::block::image(bytes);
                    for offset in (0..bytes.len()).step_by(4) {
                        let at = u16::try_from(offset).unwrap_or(u16::MAX);
                        writeln!(f, "  +{offset:<#16x} {:#010x}", header(at))?;
                    }
                }
                Content::HandOff(_) | Content::Table { .. } | Content::Unknown { .. } => {}
            }
        }
        for remark in &self.remarks {
            writeln!(f, "\nremark: {remark}")?;
        }
        Ok(())
    }
}

fn fact(f: &mut fmt::Formatter<'_>, label: &str, text: impl Display) -> fmt::Result {
    writeln!(f, "  {label:<17} {text}")
}

/// What a decoder is, but for its address.
fn decoder_words(decoder: &Decoder) -> String {
    let mut words = Vec::new();
    words.extend(decoder.size.map(|size| Size(size).to_string()));
    if let Some(ways) = decoder.ways {
        let at = match decoder.granularity {
            Some(bytes) if ways > 1 => format!(" at {}", Size(bytes)),
            _ => String::new(),
        };
        words.push(format!("{ways}-way{at}"));
    }
    if !decoder.targets.is_empty() {
        let targets: Vec<_> = decoder.targets.iter().map(u32::to_string).collect();
        words.push(format!("to {}", targets.join(",")));
    }
    if let (Some(dpa), Some(size)) = (decoder.dpa, decoder.dpa_size.filter(|size| *size > 0)) {
        words.push(format!("DPA {dpa:#x}-{:#x}", dpa.saturating_add(size - 1)));
    }
    words.extend(decoder.mode.clone());
    words.extend((decoder.locked == Some(true)).then(|| "locked".to_owned()));
    words.extend(decoder.region.as_ref().map(|region| format!("of {region}")));
    words.join(", ")
}

impl Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (heading, windows) in [("windows", true), ("decoders", false)] {
            let wanted = |name: &&String| (port_of(name) == Some(0)) == windows;
            if self.decoders.keys().any(|name| wanted(&name)) {
                writeln!(f, "{heading}")?;
            }
            for (name, decoder) in self.decoders.iter().filter(|(name, _)| wanted(name)) {
                let base = decoder
                    .start
                    .map_or_else(|| "no address".to_owned(), |start| format!("{start:#018x}"));
                fact(f, name, format!("{base}  {}", decoder_words(decoder)))?;
            }
        }
        if !self.ports.is_empty() {
            writeln!(f, "ports")?;
        }
        for (name, port) in &self.ports {
            let mut words = Vec::new();
            words.extend(port.host.clone());
            words.extend(port.parent.as_ref().map(|parent| format!("below {parent}")));
            words.extend(port.parent_dport.as_ref().map(|dport| format!("at {dport}")));
            let dports = port.dports.iter().map(|(id, device)| match device {
                Some(device) => format!("{id} ({device})"),
                None => id.to_string(),
            });
            let dports: Vec<_> = dports.collect();
            if !dports.is_empty() {
                words.push(format!("ports {}", dports.join(", ")));
            }
            fact(f, name, words.join(", "))?;
        }
        if !self.memdevs.is_empty() {
            writeln!(f, "devices")?;
        }
        for (name, memdev) in &self.memdevs {
            let mut words = Vec::new();
            words.extend(memdev.host.clone());
            for (bytes, kind) in [(memdev.ram, "volatile"), (memdev.pmem, "persistent")] {
                let bytes = bytes.filter(|bytes| *bytes > 0);
                words.extend(bytes.map(|bytes| format!("{} {kind}", Size(bytes))));
            }
            words.extend(memdev.serial.map(|serial| format!("serial {serial:#x}")));
            fact(f, name, words.join(", "))?;
        }
        if !self.regions.is_empty() {
            writeln!(f, "regions")?;
        }
        for (name, region) in &self.regions {
            let decoder = Decoder {
                size: region.size,
                ways: region.ways,
                granularity: region.granularity,
                ..Decoder::default()
            };
            let start = region.start.unwrap_or_default();
            let state = match region.committed {
                Some(true) => ", committed",
                Some(false) => ", not committed",
                None => "",
            };
            fact(f, name, format!("{start:#018x}  {}{state}", decoder_words(&decoder)))?;
        }
        if !self.resources.is_empty() {
            writeln!(f, "addresses")?;
        }
        for range in &self.resources {
            let indent = "  ".repeat(range.depth.min(16));
            writeln!(f, "  {indent}{:#x}-{:#x}  {}", range.start, range.end, range.name)?;
        }
        Ok(())
    }
}

/// The JSON form: `found`, each with `lines`, `form`, `what` and the thing's own keys; `remarks`.
#[derive(Debug)]
pub struct JsonText<'a>(pub &'a Capture);

/// One of the things.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Thing {
    lines: Option<(usize, usize)>,
    form: String,
    what: String,
    place: Option<String>,
    /// By the kind of thing: those of a dump, of a witness, ...
    #[serde(flatten)]
    facts: Map<String, Value>,
}

/// What a capture has, in the order in which it lies there.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Object {
    found: Vec<Thing>,
    remarks: Vec<String>,
}

impl JsonText<'_> {
    /// The text; the first dump that cannot be read as a whole has none.
    pub fn pretty(&self) -> Result<String, DumpError> {
        Ok(serde_json::to_string_pretty(&self.value()?).unwrap_or_default() + "\n")
    }

    /// The value.
    pub fn value(&self) -> Result<Value, DumpError> {
        Ok(serde_json::to_value(self.object()?).unwrap_or_default())
    }

    /// What it is made of.
    pub fn object(&self) -> Result<Object, DumpError> {
        let mut found = Vec::new();
        for thing in &self.0.found {
            let facts = match &thing.content {
                Content::Dump(dump) => dump.value()?,
                Content::Witness(witness) => {
                    let mut value = serde_json::to_value(witness).unwrap_or_default();
                    if let Some(object) = value.as_object_mut() {
                        object.insert("kind".to_owned(), Value::from("witness"));
                    }
                    value
                }
                Content::Dvsec(bytes) => {
                    let dwords = bytes.chunks(4).map(|dword| {
                        let bytes = std::array::from_fn(|at| dword.get(at).copied().unwrap_or(0));
                        format!("{:#010x}", u32::from_le_bytes(bytes))
                    });
                    serde_json::json!({ "kind": "dvsec", "raw": dwords.collect::<Vec<_>>() })
                }
                Content::HandOff(bytes) => {
                    serde_json::json!({ "kind": "handoff", "length": bytes.len() })
                }
                Content::Table { signature, length } => {
                    serde_json::json!({ "kind": "table", "signature": signature, "length": length })
                }
                Content::Unknown { length } => {
                    serde_json::json!({ "kind": "unknown", "length": length })
                }
            };
            found.push(Thing {
                lines: thing.lines,
                form: thing.form.to_string(),
                what: thing.content.what(),
                place: thing.seat.as_ref().map(|seat| {
                    let ports: Vec<_> = seat.ports.iter().map(u8::to_string).collect();
                    format!("UID {} port {}", seat.uid, ports.join("."))
                }),
                facts: match facts {
                    Value::Object(facts) => facts,
                    _ => Map::new(),
                },
            });
        }
        Ok(Object { found, remarks: self.0.remarks.clone() })
    }
}
