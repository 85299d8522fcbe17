//! The papers for whoever carries this on, held against the tree: what they name is there, and what
//! is there has its line.
//!
//! In `ARCHITECTURE.md` a heading that ends in a folder of sources is followed by a list of that
//! folder's modules. In all papers, what stands in backticks and has a slash, or ends like a file, is
//! a path of this repository (`*` stands for one name), and what ends in `()` is a function of the file that
//! was named last in the same paragraph, list item or table row. Links lead somewhere.
//!
//! **Invariant**: nothing is passed over for its form; a word that looks like a path or a function
//! and is none has to lose its backticks.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Tests run in their package's folder.
const ROOT: &str = "..";
const MAP: &str = "ARCHITECTURE.md";
const PAPERS: [&str; 4] = [MAP, "CONTRIBUTING.md", "SECURITY.md", "DECISIONS.md"];

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A paper's lines outside of fenced blocks, with their numbers.
fn lines(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let outside = (1..).zip(text.lines()).filter(|(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    outside.collect()
}

/// What belongs together: a paragraph, a list item, a row of a table. The line it starts in, and its
/// text in one line.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in lines(text) {
        let line = line.trim();
        let numbered = line.trim_start_matches(|c: char| c.is_ascii_digit());
        let item = line.starts_with("- ") || numbered != line && numbered.starts_with(". ");
        let alone = line.starts_with('|') || line.starts_with('#');
        match blocks.last_mut().filter(|_| open && !item && !alone && !line.is_empty()) {
            Some((_, block)) => *block += &format!(" {line}"),
            None if line.is_empty() => {}
            None => blocks.push((number, line.to_owned())),
        }
        open = !line.is_empty() && !alone;
    }
    blocks
}

/// What stands in backticks.
fn spans(block: &str) -> impl Iterator<Item = &str> {
    assert!(block.matches('`').count().is_multiple_of(2), "a backtick without its other: {block}");
    block.split('`').skip(1).step_by(2)
}

/// Whether it is meant to be a path of this repository. Devices and folders of a machine begin with
/// a slash or a tilde.
fn is_path(span: &str) -> bool {
    let plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "._-/*".contains(c));
    let file = [".rs", ".md", ".toml", ".snap", ".sh", ".ld"].iter().any(|end| span.ends_with(end));
    plain && !span.starts_with('/') && (span.contains('/') || file)
}

/// The files and folders that a path with `*` for any name leads to.
fn found(path: &str) -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from(ROOT)];
    for name in path.split('/').filter(|name| !name.is_empty()) {
        places = match name {
            "*" => places.iter().flat_map(|place| entries(place)).collect(),
            name => places.iter().map(|place| place.join(name)).collect(),
        };
        places.retain(|place| place.exists());
    }
    places
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut entries: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

/// The text of all Rust files at or below a place.
fn sources(place: &Path) -> String {
    if place.is_dir() {
        return entries(place).iter().map(|entry| sources(entry)).collect();
    }
    let rust = place.extension().is_some_and(|extension| extension == "rs");
    if rust { fs::read_to_string(place).unwrap() } else { String::new() }
}

/// Whether a text has this, and a word ends with it.
fn has(source: &str, start: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let mut found = source.match_indices(start).map(|(at, _)| at + start.len());
    found.any(|end| source.get(end..).is_some_and(ends))
}

/// Whether a function of this name is defined, or a test claimed under it; one of a type beside it.
fn defines(source: &str, name: &str) -> bool {
    let (owner, own) = name.rsplit_once("::").unwrap_or(("", name));
    let defined = has(source, &format!("fn {own}")) || has(source, &format!("\"{own}"));
    defined && (owner.is_empty() || has(source, &format!(" {owner}")))
}

/// Each folder of sources in the workspace, as its members say.
fn source_folders() -> Vec<String> {
    let manifest = text("Cargo.toml");
    let members = manifest.split_once("members = [").expect("the workspace has members").1;
    let members = members.split_once(']').expect("their list ends").0;
    let names = members.split('"').skip(1).step_by(2);
    let folders: Vec<_> = names.map(|name| format!("{name}/src")).collect();
    assert!(folders.len() > 5, "members: {folders:?}");
    folders
}

/// The modules of a folder of sources: its files and folders, the crate's root left out, and programs
/// in `bin`.
fn modules(folder: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for entry in entries(&Path::new(ROOT).join(folder)) {
        let name = entry.file_stem().unwrap().to_str().unwrap().to_owned();
        let rust = entry.extension().is_some_and(|extension| extension == "rs");
        match name.as_str() {
            "lib" | "main" => {}
            "bin" => modules.extend(
                entries(&entry).iter().map(|e| e.file_stem().unwrap().to_str().unwrap().to_owned()),
            ),
            _ if rust || entry.join("mod.rs").exists() => _ = modules.insert(name),
            _ => {}
        }
    }
    modules
}

/// The modules that are told of below the heading that ends in a folder, each at the beginning of a
/// list item; `None` without such a heading.
fn listed(map: &str, folder: &str) -> Option<BTreeSet<String>> {
    let ends = format!("`{folder}`");
    let mut below = lines(map).into_iter().map(|(_, line)| line);
    let heading = below.any(|line| line.starts_with('#') && line.ends_with(&ends));
    if !heading {
        return None;
    }
    let section = below.take_while(|line| !line.starts_with('#'));
    let items = section.filter_map(|line| line.strip_prefix("- `"));
    Some(items.filter_map(|item| Some(item.split_once('`')?.0.to_owned())).collect())
}

#[test]
fn every_module_has_its_line_and_every_line_its_module() {
    let map = text(MAP);
    let mut wrong = Vec::new();
    for folder in source_folders() {
        let Some(told) = listed(&map, &folder) else {
            wrong.push(format!("{folder}: no heading ends in it"));
            continue;
        };
        let there = modules(&folder);
        wrong.extend(there.difference(&told).map(|name| format!("{folder}: {name} has no line")));
        wrong.extend(told.difference(&there).map(|name| format!("{folder}: {name} is no module")));
    }
    assert!(wrong.is_empty(), "{MAP}: {wrong:#?}");
}

#[test]
fn every_path_in_the_papers_is_there() {
    let mut wrong = Vec::new();
    for paper in PAPERS {
        for (line, block) in blocks(&text(paper)) {
            let lost = spans(&block).filter(|span| is_path(span) && found(span).is_empty());
            wrong.extend(lost.map(|span| format!("{paper}:{line}: {span} is not there")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_function_in_the_papers_is_in_its_file() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for paper in PAPERS {
        for (line, block) in blocks(&text(paper)) {
            for (name, files) in functions(&block) {
                seen += 1;
                let source: String =
                    files.into_iter().flat_map(found).map(|f| sources(&f)).collect();
                if !defines(&source, name) {
                    wrong.push(format!("{paper}:{line}: {name}() is not where it is said to be"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 50, "{seen} functions: are they still written so?");
}

#[test]
fn every_type_and_constant_in_the_papers_is_in_some_source() {
    let folders = ["cxl-regs", "firmware", "harness"];
    let all: String = folders.iter().map(|folder| sources(&Path::new(ROOT).join(folder))).collect();
    let word = |span: &str| {
        span.starts_with(|c: char| c.is_ascii_uppercase())
            && span.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let mut wrong = Vec::new();
    for paper in PAPERS {
        for (line, block) in blocks(&text(paper)) {
            let lost = spans(&block).filter(|span| word(span) && !has(&all, span));
            wrong.extend(lost.map(|span| format!("{paper}:{line}: no source has {span}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The functions that a block names, each with the files in front of it: the last ones that stand in a
/// row. In front of all files it is those behind it.
fn functions(block: &str) -> Vec<(&str, Vec<&str>)> {
    let mut functions: Vec<(&str, Vec<&str>)> = Vec::new();
    let (mut files, mut goes_on) = (Vec::new(), false);
    for span in spans(block) {
        if is_path(span) {
            if !goes_on {
                files.clear();
            }
            files.push(span);
            goes_on = true;
            functions
                .iter_mut()
                .filter(|(_, own)| own.is_empty())
                .for_each(|(_, own)| own.push(span));
        } else if let Some(name) = span.strip_suffix("()") {
            functions.push((name, files.clone()));
            goes_on = false;
        }
    }
    functions
}

/// How GitHub calls a heading in a link.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    words.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for paper in PAPERS.into_iter().chain(["README.md"]) {
        let own = text(paper);
        for (line, block) in blocks(&own) {
            let targets = block.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for target in targets.filter(|target| !target.contains("://")) {
                let (file, heading) = target.split_once('#').unwrap_or((target, ""));
                let file = if file.is_empty() { paper } else { file };
                let there = Path::new(ROOT).join(file).exists();
                let has = |line: &&str| line.starts_with('#') && anchor(line) == heading;
                if !there || !heading.is_empty() && !text(file).lines().any(|line| has(&line)) {
                    wrong.push(format!("{paper}:{line}: {target} leads nowhere"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The image is a bare-metal program: it is told of as a whole.
#[test]
fn every_file_with_unsafe_code_is_told_of() {
    fn of(place: &Path) -> Vec<PathBuf> {
        if place.is_dir() {
            return entries(place).iter().flat_map(|entry| of(entry)).collect();
        }
        let text = sources(place);
        let found =
            ["unsafe {", "unsafe fn ", "unsafe impl "].iter().any(|word| text.contains(word));
        if found { vec![place.to_owned()] } else { Vec::new() }
    }
    let paper = text("SECURITY.md");
    let folders = source_folders().into_iter().filter(|folder| folder != "firmware/image/src");
    let files = folders.flat_map(|folder| of(&Path::new(ROOT).join(folder)));
    let names = files.map(|file| file.strip_prefix(ROOT).unwrap().display().to_string());
    let untold: Vec<_> = names.filter(|name| !paper.contains(&format!("`{name}`"))).collect();
    assert!(untold.is_empty(), "SECURITY.md says nothing of {untold:#?}");
}

#[test]
fn the_readme_leads_to_every_paper() {
    let readme = text("README.md");
    for paper in PAPERS {
        assert!(readme.contains(&format!("]({paper})")), "README.md has no link to {paper}");
    }
}
