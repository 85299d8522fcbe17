//! The drawing of the house, held: which crate may name which, and no ring of modules in a crate.
//!
//! A module is a file or folder directly below a crate's `src`; `lib.rs` and `main.rs` draw them
//! together and belong to none. One refers to another where its code says `crate::other`, or `super`
//! as often as leads there, in a path or in a group, outside comments, strings and its own tests.
//!
//! **Invariant**: sources are read as text, so what no configuration compiles is held too; a crate
//! of the workspace that the table leaves out is a failure, as is one that is no longer there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate of the workspace, by folder and name, and the crates of the workspace that it may name
/// as dependencies: what lies below it in the drawing, and no more.
const CRATES: [(&str, &str, &[&str]); 11] = [
    ("cxl-regs", "cxl-regs", &[]),
    ("firmware", "cxl-firmware", &["cxl-regs"]),
    ("firmware/mmio", "cxl-mmio", &["cxl-regs"]),
    ("firmware/attack", "cxl-attack", &["cxl-regs", "cxl-firmware"]),
    ("firmware/c", "cxl-firmware-c", &["cxl-regs", "cxl-firmware"]),
    ("firmware/sizes", "cxl-sizes", &["cxl-regs", "cxl-firmware"]),
    ("firmware/image", "cxl-image", &["cxl-regs", "cxl-mmio", "cxl-firmware", "cxl-attack"]),
    ("firmware/uefi", "cxl-uefi", &["cxl-regs", "cxl-mmio", "cxl-firmware", "cxl-image"]),
    ("harness/model", "cxl-model", &["cxl-regs"]),
    ("harness/lint", "cxl-lint", &["cxl-regs", "cxl-model"]),
    (
        "harness",
        "cxl-harness",
        &["cxl-regs", "cxl-firmware", "cxl-attack", "cxl-image", "cxl-model", "cxl-lint"],
    ),
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names in a table of a manifest: those before the first dot or blank of each line.
fn keys(manifest: &str, table: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| line.trim() != table).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let named = lines.filter(|line| line.starts_with(|c: char| c.is_ascii_alphabetic()));
    let end = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
    named.filter_map(|line| line.split(end).next()).map(str::to_owned).collect()
}

/// Every Rust file below a folder, by path from there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        let entries = fs::read_dir(&next).unwrap_or_else(|e| panic!("{}: {e}", next.display()));
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            match path.extension() {
                None if path.is_dir() => folders.push(path),
                Some(extension) if extension == "rs" => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// Every folder below a folder that holds modules.
fn folders(source: &Path) -> BTreeSet<PathBuf> {
    let parents = files(source).into_iter().filter_map(|file| Some(file.parent()?.to_path_buf()));
    parents.filter(|folder| folder != source && !folder.ends_with("bin")).collect()
}

/// Code without comments, strings and characters, up to the tests of its own at its end.
fn code(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        let behind = |mark: &str, from: usize| {
            rest.get(from..).and_then(|tail| Some(from + tail.find(mark)? + mark.len()))
        };
        let skipped = if rest.starts_with("//") {
            behind("\n", 2).map(|end| end - 1)
        } else if rest.starts_with("/*") {
            behind("*/", 2)
        } else if let Some(raw) = rest.strip_prefix("r#").filter(|raw| raw.starts_with(['#', '"']))
        {
            let hashes = 1 + raw.len() - raw.trim_start_matches('#').len();
            behind(&format!("\"{}", "#".repeat(hashes)), hashes + 2)
        } else if next == '"' {
            let mut escaped = false;
            let end = rest.char_indices().skip(1).find(|(_, c)| {
                let ends = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            });
            end.map(|(at, _)| at + 1)
        } else if rest.starts_with("'\"'") {
            Some(3)
        } else if rest.starts_with("'\\\"'") {
            Some(4)
        } else {
            code.push(next);
            Some(next.len_utf8())
        };
        rest = skipped.and_then(|end| rest.get(end..)).unwrap_or_default();
    }
    let tests = code.find("#[cfg(test)]\nmod ").unwrap_or(code.len());
    code.truncate(tests);
    code
}

/// The modules that code refers to: the first name of each path that starts at their folder, `crate::`
/// or `crate::plan::`, or as many modules up as the code's own lies below it.
fn referred(code: &str, folder: &str, depth: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let up = "super::".repeat(depth);
    for (at, root) in code.match_indices(folder).chain(code.match_indices(&up)) {
        // `$crate::` in a macro is this crate too; `in_crate::` is another name.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':')) {
            continue;
        }
        let path = &code[at + root.len()..];
        let Some(group) = path.strip_prefix('{') else {
            found.extend(first_name(path));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                ',' | '}' if depth == 0 => {
                    found.extend(first_name(&group[start..at]));
                    start = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    found
}

fn first_name(path: &str) -> Option<String> {
    let path = path.trim_start();
    let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(path.len());
    (end > 0).then(|| path[..end].to_owned())
}

/// Which modules of a crate refer to which, each by name.
type Arrows = BTreeMap<String, BTreeSet<String>>;

fn arrows(source: &Path, folder: &str) -> Arrows {
    let mut arrows = Arrows::new();
    for file in files(source) {
        let within = file.strip_prefix(source).expect("a file below it");
        let top = within.iter().next().expect("a name").to_string_lossy();
        let module = top.trim_end_matches(".rs").to_owned();
        // Programs beside the library are crates of their own.
        if !matches!(&*module, "lib" | "main" | "bin") {
            arrows.entry(module).or_default().extend(referred(
                &code(&text(&file)),
                folder,
                within.iter().count(),
            ));
        }
    }
    let modules: BTreeSet<_> = arrows.keys().cloned().collect();
    for (module, others) in &mut arrows {
        others.retain(|other| other != module && modules.contains(other));
    }
    arrows
}

/// A ring, if there is one: modules each of which refers to the next, the first one also the last.
fn ring(arrows: &Arrows) -> Option<Vec<&str>> {
    fn visit<'a>(
        arrows: &'a Arrows,
        module: &'a str,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<&'a str>> {
        if let Some(at) = way.iter().position(|other| *other == module) {
            let mut ring = way.split_off(at);
            ring.push(module);
            return Some(ring);
        }
        if done.contains(module) {
            return None;
        }
        way.push(module);
        let found = arrows[module].iter().find_map(|next| visit(arrows, next, way, done));
        way.pop();
        done.insert(module);
        found
    }
    let mut done = BTreeSet::new();
    arrows.keys().find_map(|module| visit(arrows, module, &mut vec![], &mut done))
}

#[test]
fn modules_of_a_crate_form_no_ring() {
    let mut rings = vec![];
    for (folder, name, _) in CRATES {
        let source = workspace().join(folder).join("src");
        let arrows = arrows(&source, "crate::");
        assert!(!arrows.is_empty() || name == "cxl-mmio", "{name} has no modules");
        if let Some(ring) = ring(&arrows) {
            rings.push(format!("{name}: {}", ring.join(" refers to ")));
        }
        for inner in folders(&source) {
            let within = inner.strip_prefix(&source).expect("a folder below it");
            let path = within
                .iter()
                .fold("crate::".to_owned(), |path, part| path + &part.to_string_lossy() + "::");
            if let Some(ring) = ring(&self::arrows(&inner, &path)) {
                rings.push(format!("{name}, {path}: {}", ring.join(" refers to ")));
            }
        }
    }
    assert_eq!(rings, Vec::<String>::new(), "modules cannot be read one after the other");
}

#[test]
fn a_crate_names_only_what_lies_below_it() {
    let manifest = text(&workspace().join("Cargo.toml"));
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ["));
    let members = members.expect("a list in one line").trim_end_matches(']').split(", ");
    let members: BTreeSet<_> = members.map(|member| member.trim_matches('"')).collect();
    assert_eq!(members, CRATES.map(|(folder, ..)| folder).into(), "the table has every crate");

    let mut wrong = vec![];
    for (at, (folder, name, allowed)) in CRATES.into_iter().enumerate() {
        let manifest = text(&workspace().join(folder).join("Cargo.toml"));
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{folder} is {name}");
        let above = CRATES.iter().skip(at).map(|(_, name, _)| name);
        let upwards: Vec<_> = above.filter(|name| allowed.contains(name)).collect();
        assert_eq!(upwards, Vec::<&&str>::new(), "{name}: the table goes from the ground up");
        let named = keys(&manifest, "[dependencies]");
        let ours = named.iter().filter(|name| name.starts_with("cxl-"));
        wrong.extend(
            ours.filter(|ours| !allowed.contains(&ours.as_str()))
                .map(|ours| format!("{name} names {ours}, which does not lie below it")),
        );
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// The variants of the enum with this name in some source; `None` where none defines it.
fn variants(source: &str, name: &str) -> Option<Vec<String>> {
    let (_, body) = source.split_once(&format!("pub enum {name} {{\n"))?;
    let (body, _) = body.split_once("\n}")?;
    let own = body.lines().filter_map(|line| line.strip_prefix("    "));
    let own = own.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    Some(own.filter_map(first_name).collect())
}

/// `cxl-regs` may get rules, and an error of `cxl-firmware` has room for their numbers alone: a match
/// with a wildcard passes over one that has no row.
#[test]
fn every_rule_of_the_registers_has_its_row_in_an_error() {
    let sources: Vec<String> =
        files(&workspace().join("cxl-regs/src")).iter().map(|file| code(&text(file))).collect();
    let rows = code(&text(&workspace().join("firmware/src/error/rule.rs")));
    let (mut enums, mut missing) = (0, vec![]);
    for block in rows.split("rules! {\n").skip(1) {
        // How its number is made may stand in front.
        let block = block.strip_prefix("    #[inline(never)]\n").unwrap_or(block);
        let name = first_name(block).expect("a name");
        let block = block.split("\n}").next().expect("a table");
        let Some(variants) = sources.iter().find_map(|source| variants(source, &name)) else {
            continue;
        };
        enums += 1;
        assert!(!variants.is_empty(), "{name} has no variants");
        let rows = block.split("Self::").skip(1).filter_map(first_name);
        // A variant may stand behind the rows, with all rules of another enum in it.
        let inner = block.lines().filter_map(|line| first_name(line.split_once(" + ")?.1));
        let rows: BTreeSet<_> = rows.chain(inner).collect();
        missing
            .extend(variants.iter().filter(|v| !rows.contains(*v)).map(|v| format!("{name}::{v}")));
    }
    assert!(enums > 10, "{enums} enums of cxl-regs are in the tables");
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn a_ring_is_found_in_whatever_words() {
    let source = r##"
        //! crate::comment
        use crate::{one::Item, two::{self, three}, four as five};
        /* crate::block */
        macro_rules! six { () => { $crate::six::call!("crate::string") } }
        fn f(c: char) -> bool { c == '"' && crate::seven::f("\"crate::escaped") && my_crate::eight() }
        use super::super::nine; use super::below;
        const RAW: &str = r#"crate::raw "quoted" "#;
        #[cfg(test)]
        mod tests { use crate::tests_alone; }
    "##;
    // As files have it: what stands at the start of a line is the module's own.
    let source = source.replace("        #[cfg", "#[cfg").replace("        mod tests", "mod tests");
    let expected = ["four", "nine", "one", "seven", "six", "two"].map(str::to_owned);
    assert_eq!(referred(&code(&source), "crate::", 2), expected.into());
    let inner =
        "use super::one; use super::super::up; use crate::plan::{two, three::X}; crate::four";
    let expected = ["one", "three", "two"].map(str::to_owned);
    let mut found = referred(inner, "crate::plan::", 1);
    assert!(found.remove("super"), "what lies above is nobody's name here");
    assert_eq!(found, expected.into());

    let drawn = |arrows: &[(&str, &[&str])]| -> Arrows {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        arrows.iter().map(|(from, to)| ((*from).to_owned(), own(to))).collect()
    };
    let whole = drawn(&[("a", &["b", "c"]), ("b", &["c", "d"]), ("c", &["d"]), ("d", &[])]);
    assert_eq!(ring(&whole), None);
    let closed = drawn(&[("a", &["b"]), ("b", &["c", "d"]), ("c", &["d"]), ("d", &["b"])]);
    assert_eq!(ring(&closed), Some(vec!["b", "c", "d", "b"]));
}
