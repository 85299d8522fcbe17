//! The schemas of what is printed as JSON: they are the files that are published, commands print what
//! they say, and no key of a version goes away.
//!
//! `CXL_SCHEMAS=write` writes the files anew. It adds to the list of keys and takes none out of it.
//!
//! **Invariant**: every schema is held to at least one document that a command printed.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod program;
mod schema;

use std::collections::BTreeSet;
use std::fs;

use program::{Folder, command, ran};
use serde_json::Value;

/// The keys of version 1 that there ever were, a line for each.
const KEYS: &str = "schemas/keys-1.txt";

fn printed(words: &[&str]) -> String {
    ran(&mut command(words)).0
}

fn names() -> Vec<String> {
    printed(&["schema"]).lines().map(str::to_owned).collect()
}

fn writes() -> bool {
    std::env::var_os("CXL_SCHEMAS").is_some_and(|value| value == "write")
}

/// Every key below a part of a schema, with the types that its value may have.
fn keys(part: &Value, root: &Value, path: &str, depth: usize, found: &mut BTreeSet<String>) {
    // No output is so deep; a schema that leads to itself is.
    if depth > 24 {
        return;
    }
    if let Some(to) = part["$ref"].as_str() {
        let to = root.pointer(to.trim_start_matches('#')).unwrap();
        keys(to, root, path, depth + 1, found);
    }
    for list in ["anyOf", "oneOf", "allOf"] {
        for part in part[list].as_array().into_iter().flatten() {
            keys(part, root, path, depth + 1, found);
        }
    }
    for (key, part) in part["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        let types = match &part["type"] {
            Value::String(one) => one.clone(),
            Value::Array(several) => {
                several.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("|")
            }
            _ => String::new(),
        };
        found.insert(format!("{path} {types}").trim_end().to_owned());
        keys(part, root, &path, depth + 1, found);
    }
    keys_of_items(part, root, path, depth, found);
}

fn keys_of_items(
    part: &Value,
    root: &Value,
    path: &str,
    depth: usize,
    found: &mut BTreeSet<String>,
) {
    if part["items"].is_object() {
        keys(&part["items"], root, &format!("{path}[]"), depth + 1, found);
    }
    if part["additionalProperties"].is_object() {
        keys(&part["additionalProperties"], root, &format!("{path}.*"), depth + 1, found);
    }
}

#[test]
fn the_schemas_are_the_files_that_are_published() {
    let names = names();
    for name in &names {
        let now = printed(&["schema", name]);
        if writes() {
            fs::write(schema::file(name), &now).unwrap();
        }
        let file = fs::read_to_string(schema::file(name)).unwrap_or_default();
        assert!(file == now, "schemas/{name}.json is another: CXL_SCHEMAS=write writes it");
    }
    let files = fs::read_dir(schema::FOLDER).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    assert_eq!(files.count(), names.len(), "a schema that no output has any more");
}

#[test]
fn no_key_of_a_version_goes_away_or_changes_its_type() {
    let mut now = BTreeSet::new();
    for name in names() {
        let schema: Value = serde_json::from_str(&printed(&["schema", &name])).unwrap();
        keys(&schema, &schema, &name, 0, &mut now);
    }
    let known = fs::read_to_string(KEYS).unwrap_or_default();
    let mut known: BTreeSet<String> = known.lines().map(str::to_owned).collect();
    let gone: Vec<_> = known.difference(&now).cloned().collect();
    assert!(gone.is_empty(), "gone without a new version: {gone:#?}");
    if writes() {
        known.extend(now.iter().cloned());
        let lines: Vec<_> = known.iter().map(String::as_str).collect();
        fs::write(KEYS, lines.join("\n") + "\n").unwrap();
    }
    let new: Vec<_> = now.difference(&known).collect();
    assert!(new.is_empty(), "not in {KEYS} yet; CXL_SCHEMAS=write adds them: {new:#?}");
}

#[test]
fn commands_print_what_their_schemas_say() {
    let folder = Folder::new();
    let board = folder.name("board");
    printed(&["dump", "default", &board]);
    let at = |name: &str| format!("{board}/{name}");
    let (device, cedt, config) = (at("mem0.bin"), at("cedt.dat"), at("mem0.lspci"));
    let bridge = at("hb0.bin");
    let console = at("console.log");
    let missing = folder.name("no-qemu");
    let documents: &[(&str, &[&str])] = &[
        ("attack", &["attack", "one-device", "--direct", "--json"]),
        ("attack", &["attack", "lock-not-enforced", "--direct", "--json"]),
        ("attack", &["attack", "dead-device", "--direct", "--json"]),
        ("boot", &["boot", "default", "--direct", "--json"]),
        ("boot", &["boot", "switch-interleave", "--direct", "--trace", "--json"]),
        ("boot", &["boot", "dead-device", "--direct", "--require", "sealed", "--json"]),
        ("boot", &["boot", "sized-windows", "--direct", "--json"]),
        ("boot", &["boot", "passed-through", "--direct", "--json"]),
        // In a guest where there is KVM, and on the models elsewhere.
        ("boot", &["boot", "one-device", "--payload", "touch,attack", "--on-models", "--json"]),
        ("boot", &["boot", "hot-plug", "--payload", "count", "--on-models", "--json"]),
        (
            "boot",
            &[
                "boot",
                "one-device",
                "--mirror",
                "off",
                "--payload",
                "touch",
                "--trace",
                "--on-models",
                "--json",
            ],
        ),
        // Refused before it starts: it cannot be loaded, or asks for what the scenario has not.
        ("boot", &["boot", "default", "--payload", "sse", "--json"]),
        ("cedt", &["cedt", "xor-four-way", "--json"]),
        ("cedt", &["cedt", "dead-device", "--json"]),
        ("conformance", &["conformance", "--json"]),
        ("decode", &["decode", &device, "--json"]),
        ("decode", &["decode", &cedt, "--json"]),
        ("decode", &["decode", &config, "--json"]),
        ("decode", &["decode", &console, "--json"]),
        ("decode", &["decode", &board, "--json"]),
        ("decode", &["decode", "--diff", &device, &bridge, "--json"]),
        ("error", &["error", "--json"]),
        ("explain", &["explain", "four-way", "0x100000000", "--json"]),
        ("explain", &["explain", "four-way", "0x1000", "--json"]),
        ("explain", &["explain", "switch", "--device", "mem1", "--dpa", "0x40", "--json"]),
        ("inspect", &["inspect", &board, "--json"]),
        ("lint", &["lint", "default", "--json"]),
        ("lint", &["lint", "pass-through", "--json"]),
        ("lint", &["lint", &cedt, "--kernel", "6.12", "--json"]),
        ("plan", &["plan", "two-partitions", "--json"]),
        ("plan", &["plan", "ambiguous", "--json"]),
        ("plan", &["plan", "sized-windows", "--json"]),
        ("qemu", &["qemu", "two-way", "--files", &board, "--json"]),
        ("qemu", &["qemu", "default", "--json"]),
        ("scenarios", &["scenarios", "--json"]),
        ("linux", &["linux", "two-way", "--json"]),
    ];
    let mut seen = BTreeSet::new();
    for (name, words) in documents {
        // What Linux has is held to its schema where one is booted; here there is no QEMU.
        let mut program = command(words);
        let (text, complaints, _) = ran(program.env("QEMU", &missing));
        assert!(!text.is_empty(), "{words:?}: {complaints}");
        schema::holds(name, &text);
        seen.insert((*name).to_owned());
    }
    // A release build alone measures: `.ci/run` has its figures held to the schema.
    seen.extend(["bench", "bench-peer"].map(str::to_owned));
    assert_eq!(seen, names().into_iter().collect(), "a schema that nothing is held to");
}

/// Documents that somebody else had printed, as `.ci/run` does for `bench`: one file for each, in the
/// folder that `CXL_DOCUMENTS` names.
#[test]
fn documents_of_others_are_what_their_schemas_say() {
    let Some(folder) = std::env::var_os("CXL_DOCUMENTS") else { return };
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        schema::holds(document["schema"].as_str().unwrap(), &text);
    }
}
