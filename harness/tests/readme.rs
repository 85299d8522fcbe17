//! The READMEs as a stranger reads them: each command is typed into a shell and what it prints held
//! against what is written below it, each Rust example is compiled in a crate that has the
//! dependencies that its README names and no others.
//!
//! The pages of the guide are tried likewise, each in a directory of its own from its first block to its
//! last: a block whose first line names a file is that file, as the reader saves it. Its links lead
//! somewhere, its tables of a scenario's keys are what the parser takes, and its pictures what
//! `--svg` draws.
//!
//! A line `...` of an output stands for any lines. Files are written to a directory of its own.
//!
//! **Invariant**: no block is passed over: one that is neither a command, an example nor a crate's
//! dependencies fails, and so does a command that is excused without need.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

mod program;
mod trial;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use cxl_harness::linux::Installed;
use cxl_harness::nested::Kernel;
use cxl_harness::qemu::process;
use cxl_model::scenario::Scenario;
use trial::{claim, unless};

/// Tests run in their package's folder.
const ROOT: &str = "..";
/// What strangers depend on, and where it lies; each has a README.
const CRATES: [(&str, &str); 6] = [
    ("cxl-regs", "cxl-regs"),
    ("cxl-firmware", "firmware"),
    ("cxl-mmio", "firmware/mmio"),
    ("cxl-attack", "firmware/attack"),
    ("cxl-model", "harness/model"),
    ("cxl-lint", "harness/lint"),
];
const READMES: [&str; 7] = [
    "README.md",
    "cxl-regs/README.md",
    "firmware/README.md",
    "firmware/mmio/README.md",
    "firmware/attack/README.md",
    "harness/model/README.md",
    "harness/lint/README.md",
];

/// The guide.
const GUIDE: [&str; 8] = [
    "harness/docs/README.md",
    "harness/docs/cxl.md",
    "harness/docs/glossary.md",
    "harness/docs/link.md",
    "harness/docs/lock-down.md",
    "harness/docs/outputs.md",
    "harness/docs/scenarios.md",
    "harness/docs/snapshot.md",
];
/// What `--svg` draws there of the machine of that name; `CXL_PICTURES=write` draws anew.
const PICTURES: &str = "harness/docs/pictures";

/// Commands that are not run, and why.
const EXCUSED: [(&str, &str); 2] = [
    ("cargo test --workspace", "it is what runs this"),
    ("cargo run -- boot SCENARIO --image firmware.elf", "the reader's own scenario and firmware"),
];

/// A fenced block.
struct Block {
    readme: &'static str,
    line: usize,
    language: String,
    text: String,
}

fn blocks(readme: &'static str) -> Vec<Block> {
    let text = fs::read_to_string(Path::new(ROOT).join(readme)).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (line, content) in (1..).zip(text.lines()) {
        match (&mut open, content.strip_prefix("```")) {
            (None, Some(language)) => {
                let language = language.to_owned();
                open = Some(Block { readme, line, language, text: String::new() });
            }
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => block.text += &format!("{content}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{readme}: a block does not end");
    blocks
}

/// Commands of a console block, each with what it prints.
fn commands(block: &Block) -> Vec<(String, Vec<String>)> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    let mut goes_on = false;
    for line in block.text.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), Vec::new())),
            (None, Some((command, _))) if goes_on => *command += &format!("\n{line}"),
            (None, Some((_, output))) => output.push(line.to_owned()),
            (None, None) => panic!("{}:{}: output of no command", block.readme, block.line),
        }
        goes_on = line.ends_with('\\');
    }
    commands
}

/// Commands in the running text that give a command line of this program.
fn spans(readme: &'static str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(ROOT).join(readme)).unwrap();
    let outside: Vec<_> = text.split("```").step_by(2).collect();
    let outside = outside.join(" ");
    let spans = outside.split('`').skip(1).step_by(2);
    let spans = spans.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "));
    spans.filter(|span| span.starts_with("cargo run -- ")).collect()
}

/// What a command needs and this host does not have, with the remedy.
fn lack(command: &str) -> Option<String> {
    let kvm = || {
        let open = fs::File::options().read(true).write(true).open("/dev/kvm");
        open.err().map(|error| format!("/dev/kvm: {error}"))
    };
    let qemu = || process::available().err().map(|error| error.to_string());
    let linux = || Installed::find().err().map(|error| error.to_string());
    let nested = || {
        let lacks = Kernel::find(None, None).err().into_iter().flatten();
        lacks.map(|lack| lack.to_string()).reduce(|all, next| format!("{all}; {next}"))
    };
    if command.contains("run -- nested") {
        nested()
    } else if command.contains("run -- linux") {
        qemu().or_else(linux)
    } else if command.contains("qemu") {
        qemu()
    } else {
        let guest = command == "cargo run" || command.contains("run -- boot");
        let guest = guest || command.starts_with("cargo run -- --");
        if guest { kvm() } else { None }
    }
}

/// A directory to type in. `cargo run` and QEMU there are the ones under test.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(".bin")).unwrap();
        let desk = Self(directory);
        let program = program::path().canonicalize().unwrap();
        let cargo = format!(
            "[ \"$1\" = run ] || {{ echo \"cargo $1: not here\"; exit 2; }}\nshift\n[ \"$1\" != -- ] \
             || shift\nexec '{}' \"$@\"",
            program.display()
        );
        desk.tool("cargo", &cargo);
        let qemu = format!("exec '{}' \"$@\"", process::program().display());
        // The same program would find itself by the path that is set below.
        if env::var_os("QEMU").is_some() {
            desk.tool("qemu-system-x86_64", &qemu);
        }
        desk
    }

    fn tool(&self, name: &str, text: &str) {
        let path = self.0.path().join(".bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What a command prints on standard output, what on standard error, and its exit code.
    fn shell(&self, command: &str) -> (String, String, Option<i32>) {
        let mut path = self.0.path().join(".bin").into_os_string();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        let output = Command::new("sh")
            .args(["-euc", command])
            .current_dir(self.0.path())
            .env("PATH", path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\r', "");
        (text(&output.stdout), text(&output.stderr), output.status.code())
    }
}

/// The Linux that printed what the README shows. Another one says which it is in the same place.
const SHOWN: &str = "6.12.95+deb12-cloud-amd64";

/// Lines of the README as this machine's Linux prints them.
fn with_our_linux(expected: Vec<String>) -> Vec<String> {
    let Ok(ours) = Installed::find() else { return expected };
    expected.into_iter().map(|line| line.replace(SHOWN, &ours.version)).collect()
}

/// Whether lines are those that are expected, where `...` stands for any number of lines.
fn matches(expected: &[String], found: &[&str]) -> bool {
    match expected.split_first() {
        None => found.is_empty(),
        Some((any, rest)) if any == "..." => {
            (0..=found.len()).any(|skipped| matches(rest, &found[skipped..]))
        }
        Some((line, rest)) => found.first() == Some(&line.as_str()) && matches(rest, &found[1..]),
    }
}

/// Every command of a block, in one directory.
fn console(block: &Block) {
    console_at(&Desk::new(), block);
}

fn console_at(desk: &Desk, block: &Block) {
    for (command, expected) in commands(block) {
        if excuse(&command).is_some() {
            continue;
        }
        let place = format!("{}:{}: $ {command}", block.readme, block.line);
        let (out, errors, code) = desk.shell(&command);
        assert_eq!(code, Some(0), "{place}\n{out}\n{errors}");
        let (found, expected) = (out.lines().collect::<Vec<_>>(), with_our_linux(expected));
        let good = expected.is_empty() || matches(&expected, &found);
        assert!(good, "{place}\nshould print\n{}\nand prints\n{out}", expected.join("\n"));
    }
}

fn excuse(command: &str) -> Option<usize> {
    EXCUSED.iter().position(|(start, _)| command.starts_with(start))
}

/// A command of the running text: it is one that the program knows, and it comes to an end of its
/// own. What it says is told in words there.
fn runs(command: &str) {
    let (out, errors, code) = Desk::new().shell(command);
    assert!(matches!(code, Some(0 | 1)), "{command}: exit code {code:?}\n{out}\n{errors}");
}

/// The Rust blocks of a crate's README, compiled and run as documentation of a crate that depends on
/// what the README's TOML block names, and on nothing else.
fn examples(readme: &'static str) {
    let root = Path::new(ROOT).canonicalize().unwrap();
    let named: Vec<_> =
        blocks(readme).into_iter().filter(|block| block.language == "toml").collect();
    assert_eq!(named.len(), 1, "{readme}: one block says what to depend on");
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let patch = |(name, folder): &(&str, &str)| {
        format!("{name} = {{ path = '{}/{folder}' }}", root.display())
    };
    let patches: Vec<_> = CRATES.iter().map(patch).collect();
    let manifest = format!(
        "[workspace]\n[package]\nname = \"stranger\"\nversion = \"0.0.0\"\nedition = \
         \"2024\"\n\n{}\n[patch.crates-io]\n{}",
        named[0].text,
        patches.join("\n")
    );
    fs::write(at("Cargo.toml"), manifest).unwrap();
    // The versions that everything else is tested with.
    fs::copy(root.join("Cargo.lock"), at("Cargo.lock")).unwrap();
    fs::create_dir(at("src")).unwrap();
    fs::copy(root.join(readme), at("README.md")).unwrap();
    fs::write(at("src/lib.rs"), "#![doc = include_str!(\"../README.md\")]\n").unwrap();
    let output = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["test", "--doc", "--offline", "--manifest-path"])
        .arg(at("Cargo.toml"))
        .arg("--target-dir")
        .arg(target().join("tmp/stranger"))
        .current_dir(directory.path())
        // Built once, and nobody steps through it.
        .envs([("CARGO_PROFILE_DEV_DEBUG", "0"), ("CARGO_INCREMENTAL", "0")])
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{readme}:\n{out}\n{errors}");
    let count = blocks(readme).iter().filter(|block| block.language.starts_with("rust")).count();
    let ran = out.lines().filter(|line| line.starts_with("test ") && line.contains("README.md"));
    assert_eq!(ran.count(), count, "{readme}: every example is one\n{out}");
}

/// Cargo's folder: this is target/debug/deps/readme.
fn target() -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned()
}

/// What there is can be judged: every block is of a kind that is tried above, and what is excused is
/// there.
fn every_block_is_tried() {
    let mut excused = [false; EXCUSED.len()];
    for block in READMES.into_iter().flat_map(blocks) {
        let Block { readme, line, language, .. } = &block;
        match language.as_str() {
            "console" => {
                let met = commands(&block).into_iter().filter_map(|(command, _)| excuse(&command));
                met.for_each(|index| excused[index] = true);
            }
            "rust" | "rust,no_run" if *readme != "README.md" => {}
            "toml" if *readme != "README.md" => {}
            other => panic!("{readme}:{line}: a block that nobody tries: \"{other}\""),
        }
    }
    assert_eq!(excused, [true; EXCUSED.len()], "{EXCUSED:?}");
}

/// A block of the guide's whose words behind the language name the file that it is.
fn file_of(block: &Block) -> Option<&str> {
    block.language.split_once(' ').map(|(_, name)| name)
}

/// A page from top to bottom, in one directory.
fn page(readme: &'static str) {
    let desk = Desk::new();
    let program = format!("exec '{}' \"$@\"", program::path().canonicalize().unwrap().display());
    desk.tool("cxl-harness", &program);
    for block in blocks(readme) {
        if let Some(name) = file_of(&block) {
            fs::write(desk.0.path().join(name), &block.text).unwrap();
        } else if block.language == "console" {
            console_at(&desk, &block);
        }
    }
}

/// What a page needs.
fn page_lacks(readme: &'static str) -> Option<String> {
    let commands: Vec<_> = blocks(readme)
        .into_iter()
        .filter(|block| block.language == "console")
        .flat_map(|block| commands(&block))
        .map(|(command, _)| command.replace("cxl-harness ", "cargo run -- "))
        .collect();
    let assembler = || {
        let there = |name: &str| Command::new(name).arg("--version").output().is_ok();
        (!there("as") || !there("ld")).then(|| "as and ld: install binutils".to_owned())
    };
    let assembles = commands.iter().any(|command| command.starts_with("as "));
    let guest = |command: &&String| command.contains("--image");
    let lacks = assembles.then(assembler).flatten();
    lacks.or_else(|| commands.iter().find(guest).and_then(|command| lack(command)))
}

/// Every block is run, saved or compiled, or is a listing that nothing can run here; links lead to
/// files, and in the same page to headings.
fn the_guide_is_whole() {
    for readme in GUIDE {
        let folder = Path::new(ROOT).join(readme).parent().unwrap().to_owned();
        let text = fs::read_to_string(Path::new(ROOT).join(readme)).unwrap();
        for block in blocks(readme) {
            let kind = block.language.split(' ').next().unwrap_or_default();
            // What needs a network, a root or a machine: shells of the reader's, and a CI's file.
            let known = ["console", "rust", "toml", "gas", "text", "sh", "yaml"];
            assert!(known.contains(&kind), "{readme}:{}: \"{}\"", block.line, block.language);
        }
        let outside: String = text.split("```").step_by(2).collect();
        for link in outside.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if path.is_empty() { Path::new(ROOT).join(readme) } else { folder.join(path) };
            assert!(target.exists(), "{readme}: a link to {link}");
            let text = if heading.is_empty() { continue } else { fs::read_to_string(target) };
            let wanted = |line: &str| {
                line.starts_with('#')
                    && line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-")
                        == heading
            };
            assert!(text.unwrap().lines().any(wanted), "{readme}: a link to {link}");
        }
    }
    let index = fs::read_to_string(Path::new(ROOT).join(GUIDE[0])).unwrap();
    let pages = fs::read_dir(Path::new(ROOT).join("harness/docs")).unwrap();
    let pages = pages.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for page in pages.filter(|name| name.ends_with(".md") && name != "README.md") {
        assert!(
            GUIDE.iter().any(|known| known.ends_with(&format!("/{page}"))),
            "{page} is untried"
        );
        assert!(index.contains(&format!("]({page})")), "{page} is not in the guide's index");
    }
}

/// A machine with one of everything, for the tables to add to.
const ONE_OF_EACH: &str = r#"
bridge = [{ uid = 1 }]
port = [{ below = "hb0" }, { below = "sw0" }]
switch = [{ below = "port0" }]
device = [{ below = "port1" }]
window = [{ targets = ["hb0"], size = "1GiB" }]
region = [{ device = "mem0" }]
reserve = [{ at = "port1", size = "256MiB" }]
fault = [{ at = "mem0", kind = "unrouted" }]
leak = [{ at = "mem0", register = "control" }]
mode = [{ at = "mem0", register = "Command" }]
event = [{ at = 1, action = "hot-remove", device = "mem0" }]
"#;

/// Each table of keys has those that the parser takes, by its own words, and the defaults are its own.
fn the_keys_of_scenarios_are_those_of_the_parser() {
    let text = fs::read_to_string(Path::new(ROOT).join("harness/docs/scenarios.md")).unwrap();
    let plain = Scenario::parse(ONE_OF_EACH, "plain").unwrap_or_else(|error| panic!("{error}"));
    let mut tables = 0;
    for section in text.split("\n## ").skip(1) {
        let (heading, body) = section.split_once('\n').unwrap();
        let rows: Vec<Vec<&str>> = body
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
            .collect();
        let key = |row: &Vec<&str>| row[0].trim_matches('`').to_owned();
        // A key of the table itself, whichever way it is written.
        let with = |addition: &str| match heading {
            "The file itself" => format!("{addition}\n{ONE_OF_EACH}"),
            "platform" | "policy" => format!("{ONE_OF_EACH}\n[{heading}]\n{addition}"),
            one => {
                let begin = format!("{one} = [{{ ");
                ONE_OF_EACH.replace(&begin, &format!("{begin}{addition}, "))
            }
        };
        let wrong = Scenario::parse(&with("nonsense = 1"), "wrong").unwrap_err().to_string();
        let known = wrong.split_once(" (").and_then(|(_, list)| list.split_once(')'));
        let (known, _) = known.unwrap_or_else(|| panic!("{wrong}"));
        let known: BTreeSet<_> = known.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let documented: BTreeSet<_> = rows.iter().map(key).collect();
        assert_eq!(documented, known, "{heading}: left the guide, right the parser");
        for row in &rows {
            assert_eq!(row.len(), 4, "{row:?}");
            let (name, default) = (key(row), row[2]);
            if let Some(value) = default.strip_prefix('`').and_then(|d| d.strip_suffix('`')) {
                let text = with(&format!("{name} = {value}"));
                let mut given = Scenario::parse(&text, "plain").unwrap_or_else(|e| panic!("{e}"));
                given.name.clone_from(&plain.name);
                assert_eq!(given, plain, "{heading}: {name} = {value} is no default");
            } else {
                assert!(["needed", "-"].contains(&default), "{heading}: {name}: {default}");
            }
            // Words that a key may have stand in quotes, and each is one that the parser knows.
            let listed = row[1].split('`').skip(1).step_by(2).filter(|word| word.starts_with('"'));
            for word in listed.filter(|_| heading == "platform" || heading == "policy") {
                let parsed = Scenario::parse(&with(&format!("{name} = {word}")), "word");
                let words = parsed.err().map_or_else(String::new, |error| error.to_string());
                // A word may not suit this machine; that it is one, the parser would not deny.
                let denied = words.contains(&format!("found {word}"));
                assert!(!denied, "{heading}: {name} = {word}: {words}");
            }
        }
        tables += 1;
    }
    assert_eq!(tables, 14);
}

/// What is drawn of a machine of the guide.
fn the_pictures_are_what_is_drawn() {
    let folder = Path::new(ROOT).join(PICTURES);
    let mut seen = 0;
    for file in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let drawn = tempfile::tempdir().unwrap();
        let drawn = drawn.path().join("drawn.svg");
        let words = ["boot", &name, "--direct", "-q", "--svg", drawn.to_str().unwrap()];
        let (_, complaints, code) = program::ran(&mut program::command(&words));
        assert_eq!(code, 0, "{complaints}");
        let now = fs::read_to_string(&drawn).unwrap();
        if env::var_os("CXL_PICTURES").is_some_and(|value| value == "write") {
            fs::write(&file, &now).unwrap();
        }
        let there = fs::read_to_string(&file).unwrap();
        assert!(there == now, "{name}.svg is another: CXL_PICTURES=write draws it");
        seen += 1;
    }
    assert!(seen > 1);
}

fn main() -> ExitCode {
    let mut trials = vec![claim("every_block_is_tried", every_block_is_tried)];
    let mut add = |name: String, lack: Option<String>, test: Box<dyn FnOnce() + Send>| {
        trials.push(unless(lack, claim(name, test)));
    };
    for readme in READMES {
        for block in blocks(readme).into_iter().filter(|block| block.language == "console") {
            let lack = commands(&block).iter().find_map(|(command, _)| lack(command));
            let name = format!("{readme}, line {}: commands print what is below them", block.line);
            add(name, lack, Box::new(move || console(&block)));
        }
        for command in spans(readme) {
            // Upper-case words are the reader's.
            let own =
                |word: &str| word.chars().any(char::is_alphabetic) && word == word.to_uppercase();
            if !command.split(' ').any(own) {
                let name = format!("{readme}: `{command}` runs");
                add(name, lack(&command), Box::new(move || runs(&command)));
            }
        }
    }
    add("the_guide_is_whole".to_owned(), None, Box::new(the_guide_is_whole));
    let keys = "the_keys_of_scenarios_are_those_of_the_parser";
    add(keys.to_owned(), None, Box::new(the_keys_of_scenarios_are_those_of_the_parser));
    let pictures = "the_pictures_are_what_is_drawn";
    add(pictures.to_owned(), None, Box::new(the_pictures_are_what_is_drawn));
    for readme in GUIDE {
        let is = |language: &str| blocks(readme).iter().any(|block| block.language == language);
        if is("console") {
            let name = format!("{readme}: from top to bottom");
            add(name, page_lacks(readme), Box::new(move || page(readme)));
        }
        if is("rust") {
            let name = format!("{readme}: examples need no more than it names");
            add(name, None, Box::new(move || examples(readme)));
        }
    }
    for readme in READMES.into_iter().skip(1) {
        let name = format!("{readme}: examples need no more than it names");
        add(name, None, Box::new(move || examples(readme)));
    }
    trial::run(trials)
}
