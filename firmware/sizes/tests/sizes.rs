//! What each profile of the library costs, as a test: it is built as a freestanding program at opt-levels s
//! and z, measured, and held to its budget and to what `firmware/SIZES.md` says of it.
//!
//! A budget that is missed has the size that was reached, and a little more, as its limit: the file says so,
//! and where the bytes are.
//!
//! **Invariant**: the programs link only without a panic path, so what is measured can run anywhere. A size
//! that nobody wrote down is a failure, in either direction.

// Sizes are those of one architecture.
#![cfg(target_arch = "x86_64")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol};

/// A profile: its program, its features, and KiB at opt-level s: the aim, and what is a failure.
struct Profile {
    name: &'static str,
    program: &'static str,
    features: &'static str,
    aim: u64,
    limit: u64,
}

const PROFILES: [Profile; 4] = [
    Profile { name: "minimal", program: "minimal", features: "minimal", aim: 24, limit: 40 },
    Profile { name: "typical", program: "typical", features: "typical", aim: 56, limit: 175 },
    Profile { name: "full", program: "full", features: "full", aim: 80, limit: 227 },
    Profile {
        name: "full with sentences",
        program: "full",
        features: "full,sentences",
        aim: 96,
        limit: 296,
    },
];

/// How far a size may be from what is written down, in per cent.
const SLACK: u64 = 2;

/// Where programs are built: beside what the outer cargo builds, which holds no lock while tests run.
fn folder() -> PathBuf {
    let this = env::current_exe().expect("this program has a path");
    // target/debug/deps/sizes
    let target = this.ancestors().nth(3).expect("it lies in cargo's folder");
    target.join("tmp/sizes")
}

/// Builds a program with a nested cargo, alone, as a workspace would turn on all features.
fn build(profile: &Profile, opt_level: &str) -> Vec<u8> {
    let output = Command::new(env::var_os("CARGO").unwrap_or(OsString::from("cargo")))
        .args(["build", "--locked", "-p", "cxl-sizes", "--bin", profile.program])
        .args(["--no-default-features", "--features", profile.features])
        // What cannot panic at s is checked all the same at z.
        .args(if opt_level == "z" { &["--features", "panics"][..] } else { &[] })
        .args(["--profile", "image", "--target-dir"])
        .arg(folder())
        .env("CARGO_PROFILE_IMAGE_OPT_LEVEL", opt_level)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .expect("cargo starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    let name = profile.name;
    assert!(
        output.status.success(),
        "{name}: a panic path is left, or it does not build:\n{errors}"
    );
    fs::read(folder().join("image").join(profile.program)).expect("it was built")
}

fn elf(bytes: &[u8]) -> ElfFile64<'_, object::Endianness> {
    ElfFile64::parse(bytes).expect("an ELF file of 64 bits")
}

/// Bytes of what is loaded: code, constants and data.
fn size(program: &[u8]) -> u64 {
    const COUNTED: [&str; 4] = [".text", ".rodata", ".data", ".data.rel.ro"];
    let sections = elf(program);
    let sections = sections.sections();
    sections.filter(|s| COUNTED.contains(&s.name().unwrap_or(""))).map(|s| s.size()).sum()
}

/// The file that a function lies in, as its symbol says: `cxl_firmware::plan::place`. What is generic is the
/// library's of which it is made.
fn module(symbol: &str) -> String {
    let mut rest = symbol.strip_prefix("_ZN").unwrap_or("");
    let mut parts = vec![];
    while let Some(end) = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0) {
        let (length, behind) = rest.split_at(end);
        let length: usize = length.parse().unwrap_or(0);
        let Some((part, behind)) = behind.split_at_checked(length) else { break };
        parts.push(part);
        rest = behind;
    }
    let lower = |part: &&&str| part.starts_with(|c: char| c.is_ascii_lowercase());
    match parts.first() {
        Some(&("cxl_firmware" | "cxl_regs")) => {
            // The last one is a hash, the one before it the function.
            let modules = parts.iter().take(parts.len().saturating_sub(2)).take_while(lower);
            modules.take(3).copied().collect::<Vec<_>>().join("::")
        }
        _ => "generic code, and what is inlined into the program".into(),
    }
}

/// Bytes of functions by file, the most first.
fn by_file(program: &[u8]) -> Vec<(u64, String)> {
    let mut files = BTreeMap::<String, u64>::new();
    for symbol in elf(program).symbols().filter(|s| s.kind() == object::SymbolKind::Text) {
        *files.entry(module(symbol.name().unwrap_or(""))).or_default() += symbol.size();
    }
    let mut list: Vec<_> = files.into_iter().map(|(file, size)| (size, file)).collect();
    list.sort_by(|a, b| b.cmp(a));
    list
}

/// The sizes in the last row of the history.
fn written_down() -> Vec<u64> {
    let file = include_str!("../../SIZES.md");
    let mut rows = file.lines().filter(|line| line.starts_with("| "));
    let cells = rows.next_back().expect("a row").split('|').skip(2).map(str::trim);
    cells.filter(|cell| !cell.is_empty()).map(|cell| cell.parse().expect("bytes")).collect()
}

/// One test: all of it waits for the same folder.
#[test]
fn each_profile_keeps_to_its_budget_and_to_what_is_written_down() {
    let written = written_down();
    assert_eq!(written.len(), 2 * PROFILES.len(), "s and z of each profile");
    let (mut row, mut faults) = (vec![], vec![]);
    println!("profile                 s, bytes    KiB  aim  limit  z, bytes");
    for profile in &PROFILES {
        let program = build(profile, "s");
        let found = size(&program);
        let smaller = size(&build(profile, "z"));
        let Profile { name, aim, limit, .. } = profile;
        let kib = found.div_ceil(1024);
        println!("{name:22} {found:9} {kib:6} {aim:4} {limit:6} {smaller:9}");
        if kib > *aim {
            for (bytes, file) in by_file(&program).into_iter().take(12) {
                println!("{:22} {bytes:9} {file}", "");
            }
        }
        if kib > *limit {
            faults.push(format!("{name} takes {kib} KiB, at most {limit} are allowed"));
        }
        row.extend([found, smaller]);
    }
    for (found, stated) in row.iter().zip(&written) {
        if found.abs_diff(*stated) * 100 > stated * SLACK {
            let cells: Vec<_> = row.iter().map(u64::to_string).collect();
            faults.push(format!(
                "firmware/SIZES.md has {stated} where {found} are measured; its last row should be\n\
                 | what changed | {} |",
                cells.join(" | ")
            ));
            break;
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_symbol_names_its_file() {
    assert_eq!(
        module("_ZN12cxl_firmware4plan5place5place17h0123456789abcdefE"),
        "cxl_firmware::plan::place"
    );
    assert_eq!(
        module("_ZN12cxl_firmware8discover17Walk$LT$M$C$C$GT$4scan17h0123456789abcdefE"),
        "cxl_firmware::discover"
    );
}
