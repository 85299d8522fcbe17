//! What moved between two dumps, in words.
//!
//! Works on the JSON form, so that whatever is printed is compared too. Members of a list are
//! matched by what they are (a decoder's index, a bridge's UID), not by where they stand.
//!
//! **Invariant**: no lines if and only if the two forms say the same, in whatever order.

use std::collections::HashMap;

use cxl_regs::Size;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

/// How the members of a list are told apart.
struct List {
    key: &'static str,
    /// What one member is called.
    noun: &'static str,
    /// The key that stays the same while the others may change.
    identity: &'static str,
    /// Members are called by their position, and one without its like on the other side is taken
    /// to be the one at the same position, moved.
    by_position: bool,
}

const fn list(key: &'static str, noun: &'static str, identity: &'static str) -> List {
    List { key, noun, identity, by_position: false }
}

const LISTS: [List; 14] = [
    list("decoders", "decoder", "index"),
    list("host_bridges", "host bridge", "uid"),
    List { by_position: true, ..list("windows", "window", "base") },
    list("xor_maps", "xor maps of granularity", "granularity"),
    list("port_associations", "port association", "bdf"),
    list("systems", "system", "index"),
    list("functions", "", "address"),
    list("capabilities", "capability", "name"),
    list("extended_capabilities", "extended capability", "name"),
    list("dvsecs", "DVSEC", "name"),
    list("registers", "", "name"),
    list("ranges", "range", "index"),
    list("blocks", "block", "name"),
    list("unknown", "unknown record at", "offset"),
];

/// Objects that a reader need not hear of: their members stand for themselves.
const TRANSPARENT: [&str; 2] = ["hdm", "fields"];
/// Values that say again what the other members of their object say: told if those are the same.
const SUMMARIES: [&str; 3] = ["raw", "checksum", "component_from"];
/// Numbers of bytes, for which the distance between old and new is of interest.
const BYTES: [&str; 5] = ["base", "size", "skip", "length", "limit"];
/// Flags that read as adjectives.
const ADJECTIVES: [&str; 2] = ["committed", "locked"];

/// Something that differs.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Change {
    /// What, as the sentence begins.
    pub what: String,
    /// What it was; null for what was not there.
    pub old: Value,
    /// What it is; null for what is gone.
    pub new: Value,
    /// The sentence.
    pub text: String,
}

/// Everything that differs; empty if nothing does.
pub(super) fn diff(old: &Value, new: &Value) -> Vec<Change> {
    let mut lines = Vec::new();
    walk(&mut lines, "", "", old, new);
    lines
}

/// A path with a word more. Our keys are words with underscores, names of the specification stay.
fn join(path: &str, word: &str) -> String {
    let space = if path.is_empty() || word.is_empty() { "" } else { " " };
    let ours = word.chars().all(|c| !c.is_ascii_uppercase());
    let word = if ours { word.replace('_', " ") } else { word.to_owned() };
    format!("{path}{space}{word}")
}

fn walk(lines: &mut Vec<Change>, path: &str, key: &str, old: &Value, new: &Value) {
    if old == new {
        return;
    }
    let known = LISTS.iter().find(|list| list.key == key);
    match (old, new, known) {
        (Value::Object(old), Value::Object(new), _) => objects(lines, path, old, new),
        (Value::Array(old), Value::Array(new), Some(list)) => members(lines, path, list, old, new),
        (Value::Bool(_), Value::Bool(set), _) => {
            let text = match (ADJECTIVES.contains(&key), set) {
                (true, true) => format!("{} now {key}", path.trim_end_matches(key).trim_end()),
                (true, false) => {
                    format!("{} no longer {key}", path.trim_end_matches(key).trim_end())
                }
                (false, true) => format!("{path} set"),
                (false, false) => format!("{path} cleared"),
            };
            lines.push(change(path, old, new, text));
        }
        _ => {
            let distance = if BYTES.contains(&key) { distance(old, new) } else { None };
            let distance = distance.unwrap_or_default();
            let text = format!("{path} {} -> {}{distance}", plain(old), plain(new));
            lines.push(change(path, old, new, text));
        }
    }
}

fn change(what: &str, old: &Value, new: &Value, text: String) -> Change {
    Change { what: what.to_owned(), old: old.clone(), new: new.clone(), text }
}

fn objects(
    lines: &mut Vec<Change>,
    path: &str,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
) {
    let before = lines.len();
    let added = new.keys().filter(|key| !old.contains_key(*key));
    let mut compare = |key: &str| {
        let silent = TRANSPARENT.contains(&key)
            || LISTS.iter().any(|list| list.key == key)
            || key == "raw" && old.get(key).is_some_and(Value::is_string);
        let word = if silent { "" } else { key };
        let [old, new] = [old, new].map(|side| side.get(key).unwrap_or(&Value::Null));
        walk(lines, &join(path, word), key, old, new);
        lines.len()
    };
    let (summaries, others): (Vec<_>, Vec<_>) =
        old.keys().chain(added).map(String::as_str).partition(|key| SUMMARIES.contains(key));
    let after = others.into_iter().map(&mut compare).last();
    if after.is_none_or(|after| after == before) {
        // Bits without a name are seen here alone.
        summaries.into_iter().for_each(|key| _ = compare(key));
    }
}

/// The members by what tells them apart: the identity, and a number if several share it.
struct Members<'a> {
    in_order: Vec<(String, &'a Value)>,
    places: HashMap<String, usize>,
}

impl<'a> Members<'a> {
    fn of(list: &List, members: &'a [Value]) -> Self {
        let mut twins: HashMap<String, usize> = HashMap::new();
        let mut name = |member: &Value| {
            let identity = member.get(list.identity).filter(|value| !value.is_null());
            let identity = identity.map(plain).unwrap_or_default();
            let number = twins.entry(identity.clone()).or_default();
            *number += 1;
            if *number == 1 { identity } else { format!("{identity} ({number})") }
        };
        let in_order: Vec<_> = members.iter().map(|member| (name(member), member)).collect();
        let places = in_order.iter().zip(0..).map(|((name, _), at)| (name.clone(), at)).collect();
        Self { in_order, places }
    }

    /// The member at a position that nothing in `others` is called like.
    fn unmatched(&self, position: usize, others: &Self) -> Option<&'a Value> {
        let (name, member) = self.in_order.get(position)?;
        (!others.places.contains_key(name)).then_some(member)
    }
}

fn members(lines: &mut Vec<Change>, path: &str, list: &List, old: &[Value], new: &[Value]) {
    let (old, new) = (Members::of(list, old), Members::of(list, new));
    let called = |position: usize, name: &str| {
        let name = if list.by_position { position.to_string() } else { name.to_owned() };
        join(&join(path, list.noun), &name)
    };
    let moved = |side: &Members<'_>, other: &Members<'_>, position| {
        list.by_position && side.unmatched(position, other).is_some()
    };
    for (position, (name, member)) in old.in_order.iter().enumerate() {
        let there = match new.places.get(name) {
            Some(&at) => Some(at),
            None => moved(&new, &old, position).then_some(position),
        };
        match there.and_then(|at| new.in_order.get(at)) {
            Some((_, other)) => walk(lines, &called(position, name), "", member, other),
            None => {
                let what = called(position, name);
                let text = format!("{what} removed{}", range(member));
                lines.push(change(&what, member, &Value::Null, text));
            }
        }
    }
    for (position, (name, member)) in new.in_order.iter().enumerate() {
        if !old.places.contains_key(name) && !moved(&old, &new, position) {
            let what = called(position, name);
            let text = format!("{what} added{}", range(member));
            lines.push(change(&what, &Value::Null, member, text));
        }
    }
}

/// Where a member lies, if it lies anywhere.
fn range(member: &Value) -> String {
    let words = ["base", "size", "length"].iter().filter_map(|&key| {
        member
            .get(key)
            .filter(|value| !value.is_null())
            .map(|value| format!("{key} {}", plain(value)))
    });
    let words: Vec<_> = words.collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

/// A value in a sentence.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(members) if members.is_empty() => "none".to_owned(),
        Value::Array(members) => members.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Object(members) => {
            let members = members.iter().map(|(key, value)| format!("{key} {}", plain(value)));
            members.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// How far a hexadecimal number of bytes moved. From or to 0 it did not move, but come or go.
fn distance(old: &Value, new: &Value) -> Option<String> {
    let number = |value: &Value| {
        u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok().filter(|&n| n != 0)
    };
    let (old, new) = (number(old)?, number(new)?);
    let sign = if new > old { '+' } else { '-' };
    Some(format!(" ({sign}{})", Size(new.abs_diff(old))))
}
