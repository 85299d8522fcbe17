//! JSON outputs held to the schemas that are published.
//!
//! **Invariant**: a key that the schema does not name is a fault.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared by test binaries")]

use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value};

/// Where the schemas lie: tests run in their package's folder.
pub const FOLDER: &str = "schemas";

/// The file of a schema.
pub fn file(name: &str) -> PathBuf {
    PathBuf::from(FOLDER).join(format!("{name}.json"))
}

/// Fails unless the text is a document of the schema that it names, and has no key besides.
pub fn holds(name: &str, text: &str) {
    let document: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(document["schema"], name, "{text}");
    let schema = fs::read_to_string(file(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut schema: Value = serde_json::from_str(&schema).unwrap();
    strict(&mut schema);
    let validator = jsonschema::validator_for(&schema).unwrap_or_else(|e| panic!("{name}: {e}"));
    let problems: Vec<_> = validator
        .iter_errors(&document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(problems.is_empty(), "{name}: {}", problems.join("\n"));
}

/// The schema takes further keys, as a later program may print some; here each has to be known.
fn strict(schema: &mut Value) {
    match schema {
        Value::Array(list) => list.iter_mut().for_each(strict),
        Value::Object(object) => {
            let whole = object.get("properties").is_some_and(Value::is_object);
            for (key, part) in object.iter_mut() {
                // Parts of an object that is closed itself know their own keys alone.
                let parts = whole && ["anyOf", "oneOf", "allOf"].contains(&key.as_str());
                if parts { alternatives(part) } else { strict(part) }
            }
            if object.get("properties").is_some_and(Value::is_object)
                && !object.contains_key("additionalProperties")
            {
                close(object);
            }
        }
        _ => {}
    }
}

/// What is inside the keys of such a part is as strict as elsewhere.
fn alternatives(parts: &mut Value) {
    for part in parts.as_array_mut().into_iter().flatten() {
        for list in ["anyOf", "oneOf", "allOf"] {
            part.get_mut(list).into_iter().for_each(alternatives);
        }
        let properties = part.get_mut("properties").and_then(Value::as_object_mut);
        properties.into_iter().flat_map(Map::values_mut).for_each(strict);
    }
}

fn close(object: &mut Map<String, Value>) {
    object.insert("unevaluatedProperties".to_owned(), false.into());
}
