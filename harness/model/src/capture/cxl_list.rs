//! What the program `cxl list` prints: JSON, of any verbosity, numbers as such or for people (`-u`).
//!
//! **Invariant**: what is not there is not made up; a size for people that was rounded is none.

use serde_json::{Map, Value};

use super::lines::{Lines, is_elision};
use super::witness::{Decoder, Memdev, Port, Region, Witness, index_of, number};
use super::{CaptureError, Content, Form, Found, Notes, Taken};

/// The most levels that are followed: a bus, eight levels of switches, and what hangs on each.
const MAX_DEPTH: usize = 64;

/// The first lines of what may be JSON, which tell most of what is none.
const FEW: usize = 4;

/// What is JSON from a line on, and how many lines that are; or what is wrong with it. It ends with its
/// last bracket, or at a blank line.
///
/// Ever more lines are read, twice as many each time, so that what is no JSON costs as much as the lines
/// up to the one that shows it.
fn json(text: &Lines<'_>, start: usize) -> (String, Result<(Value, usize), serde_json::Error>) {
    let mut read = String::new();
    let mut lines = text.from(start).iter().take_while(|line| !line.is_blank()).peekable();
    let mut more = FEW;
    loop {
        for line in lines.by_ref().take(more) {
            read.push_str(line.text);
            read.push('\n');
        }
        more *= 2;
        let mut values = serde_json::Deserializer::from_str(&read).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                let end = read.get(..values.byte_offset()).unwrap_or_default();
                let lines = end.matches('\n').count() + 1;
                return (read, Ok((value, lines)));
            }
            Some(Err(error)) if error.is_eof() && lines.peek().is_some() => {}
            Some(Err(error)) => return (read, Err(error)),
            // What starts with a bracket is something.
            None => return (read, Ok((Value::Null, 1))),
        }
    }
}

/// The listing from a line on.
pub(super) fn take(text: &Lines<'_>, start: usize, notes: &mut Notes) -> Taken {
    let first = text.get(start).text.trim_start();
    if !first.starts_with(['[', '{']) {
        return None;
    }
    let is_ours = |json: &str| {
        ["\"decoder", "\"memdev", "\"endpoint", "\"bus\"", "\"region"]
            .iter()
            .any(|word| json.contains(word))
    };
    let (json, value) = json(text, start);
    match value {
        Ok((value, count)) => {
            let next = start + count;
            let mut witness = Witness::default();
            walk(&mut witness, &value, None, 0);
            if witness.is_empty() {
                // JSON of another tool is nobody's; a line of it may be a line of something else.
                return (count > 1).then_some(Ok((vec![], next)));
            }
            let lines = Some((text.get(start).number, text.get(next - 1).number));
            let content = Content::Witness(witness);
            let found = Found { lines, form: Form::CxlList, content, seat: None };
            Some(Ok((vec![found], next)))
        }
        Err(error) => {
            let behind = error.line().saturating_sub(1);
            let upto = json.lines().take(behind + 1);
            let size = upto.map(|line| line.len() + 1).sum();
            if !is_ours(json.get(..size).unwrap_or(&json)) {
                // Up to there it is JSON, and what is in it is as little ours.
                return (behind > 0).then_some(Ok((vec![], start + behind)));
            }
            let line = text.get(start + behind.min(json.lines().count().saturating_sub(1)));
            let said = error.to_string();
            let mut found = plainly(said.split(" at line").next().unwrap_or_default()).to_owned();
            if error.is_eof() {
                found = "its end: it is cut off".to_owned();
            } else if is_elision(line.text) {
                found = format!("\"{}\": it was shortened", line.text.trim());
            }
            let expected = "JSON, as of cxl list".to_owned();
            let column = match error.is_eof() {
                true => line.column(line.text.len()),
                false => line.before + error.column().max(1),
            };
            let error = CaptureError::Line { line: line.number, column, expected, found };
            if is_elision(line.text) {
                // What is left of it is as little whole.
                let rest = text.from(start + behind).iter();
                let rest = rest.take_while(|line| !line.is_blank() && line.text != "]").count();
                return Some(notes.pass_over(error).map(|()| (vec![], start + behind + rest)));
            }
            Some(Err(error))
        }
    }
}

/// What a reader of JSON complains of, for whoever pasted it.
fn plainly(said: &str) -> &str {
    match said {
        "expected value" => "something that is no value",
        "key must be a string" => "a key without quotation marks",
        "trailing comma" => "a comma in front of an end",
        said if said.starts_with("control character") => "a line that ends inside quotation marks",
        said if said.starts_with("expected `") => "neither a comma nor an end behind a value",
        said => said,
    }
}

/// An object's number, which `-u` prints for people.
fn value(object: &Map<String, Value>, key: &str) -> Option<u64> {
    match object.get(key)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => human(text),
        _ => None,
    }
}

/// `0x100000000`, `1024`, `256.00 MiB (268.44 MB)`.
fn human(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok();
    }
    let mut words = text.split(' ');
    let (number, unit) = (words.next()?, words.next());
    let Some(unit) = unit else { return number.parse().ok() };
    let shift = match unit {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    // Two digits behind the point: hundredths, which are exact only where they are quarters.
    let (whole, part) = number.split_once('.').unwrap_or((number, "00"));
    let quarter = match part {
        "00" => 0,
        "25" => 1,
        "50" => 2,
        "75" => 3,
        _ => return None,
    };
    let quarters = whole.parse::<u64>().ok()?.checked_mul(4)?.checked_add(quarter)?;
    quarters.checked_mul(1 << (shift - 2))
}

fn text(object: &Map<String, Value>, key: &str) -> Option<String> {
    object.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn flag(object: &Map<String, Value>, key: &str) -> Option<bool> {
    object.get(key).and_then(Value::as_bool)
}

fn small(value: Option<u64>) -> Option<u32> {
    value.and_then(|value| u32::try_from(value).ok())
}

fn walk(witness: &mut Witness, value: &Value, above: Option<&str>, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Array(members) => {
            members.iter().for_each(|member| walk(witness, member, above, depth + 1));
        }
        Value::Object(object) => {
            let name = take_object(witness, object, above);
            let above = name.as_deref().or(above);
            for (key, member) in object {
                if key != "targets" && key != "dports" && key != "mappings" {
                    walk(witness, member, above, depth + 1);
                }
            }
        }
        _ => {}
    }
}

/// One object; the name of the port that it is, for what hangs below.
fn take_object(
    witness: &mut Witness,
    object: &Map<String, Value>,
    above: Option<&str>,
) -> Option<String> {
    // A region's mappings and a decoder's region are names of others, not objects.
    if let Some(name) = text(object, "memdev") {
        let known = witness.memdevs.entry(name).or_default();
        let had = std::mem::take(known);
        *known = Memdev {
            host: had.host.or(text(object, "host")),
            ram: had.ram.or(value(object, "ram_size")),
            pmem: had.pmem.or(value(object, "pmem_size")),
            serial: had.serial.or(value(object, "serial")),
        };
        // Without sizes a device has none of them: cxl list leaves 0 out.
        if known.ram.is_some() || known.pmem.is_some() {
            known.ram.get_or_insert(0);
            known.pmem.get_or_insert(0);
        }
        return None;
    }
    if let Some(name) = text(object, "decoder").filter(|name| index_of(name).is_some()) {
        let mut targets: Vec<(u64, u32)> = Vec::new();
        for target in object.get("targets").and_then(Value::as_array).into_iter().flatten() {
            let Value::Object(target) = target else { continue };
            let id = small(value(target, "id"));
            let at = value(target, "position").unwrap_or(targets.len() as u64);
            targets.extend(id.map(|id| (at, id)));
        }
        targets.sort_unstable();
        let is_root = name.starts_with("decoder0.");
        // cxl list leaves a flag out where it is false.
        let window = |key| is_root.then(|| flag(object, key).unwrap_or(false));
        let decoder = Decoder {
            start: value(object, "resource"),
            size: value(object, "size"),
            ways: small(value(object, "interleave_ways")),
            granularity: value(object, "interleave_granularity"),
            locked: flag(object, "locked"),
            targets: targets.into_iter().map(|(_, id)| id).collect(),
            volatile: window("volatile_capable"),
            persistent: window("pmem_capable"),
            accelerator: window("accelmem_capable"),
            expander: None,
            dpa: value(object, "dpa_resource"),
            dpa_size: value(object, "dpa_size"),
            mode: text(object, "mode"),
            target_type: None,
            region: text(object, "region"),
        };
        let one = Witness { decoders: [(name, decoder)].into(), ..Witness::default() };
        witness.merge(one);
        return None;
    }
    let region = text(object, "region").filter(|name| number(name, "region").is_some());
    if let Some(name) = region {
        let region = Region {
            start: value(object, "resource"),
            size: value(object, "size"),
            ways: small(value(object, "interleave_ways")),
            granularity: value(object, "interleave_granularity"),
            committed: text(object, "decode_state").map(|state| state == "commit"),
        };
        witness.regions.entry(name).or_insert(region);
        return None;
    }
    let name = ["bus", "port", "endpoint"].iter().find_map(|key| text(object, key))?;
    let mut port = Port {
        parent: above.map(str::to_owned),
        host: text(object, "host"),
        parent_dport: text(object, "parent_dport"),
        ..Port::default()
    };
    for dport in object.get("dports").and_then(Value::as_array).into_iter().flatten() {
        let Value::Object(dport) = dport else { continue };
        if let Some(id) = small(value(dport, "id")) {
            port.dports.insert(id, text(dport, "dport"));
        }
    }
    witness.merge(Witness { ports: [(name.clone(), port)].into(), ..Witness::default() });
    Some(name)
}
