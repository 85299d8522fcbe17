//! The proof that the library cannot panic, as a test: the image that links only without a panic
//! path links, and the same image with a panic path put in does not. Its size is the README's.
//!
//! **Invariant**: the second half is what the first is worth: a proof that cannot fail proves
//! nothing.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Where it is built: beside what the outer cargo builds, which holds no lock while tests run. All
/// builds share it, so what does not depend on the opt-level is built once.
fn folder() -> PathBuf {
    let this = env::current_exe().expect("this program has a path");
    // target/debug/deps/no_panic
    let target = this.ancestors().nth(3).expect("it lies in cargo's folder");
    target.join("tmp/nopanic")
}

/// Builds the program `nopanic` with a nested cargo, as `harness/build.rs` builds the image: with a
/// directory of its own, and nothing of what the outer build asks of its compiler. Tests run in
/// their package's folder, and so does this.
fn link(program: &str, opt_level: &str, arguments: &[&str]) -> Output {
    Command::new(env::var_os("CARGO").unwrap_or(OsString::from("cargo")))
        .args(["rustc", "--locked", "--bin", program, "--features", "nopanic"])
        .args(["--profile", "image", "--target-dir"])
        .arg(folder())
        .arg("--")
        .args(arguments)
        .env("CARGO_PROFILE_IMAGE_OPT_LEVEL", opt_level)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .expect("cargo starts")
}

/// One test: all of it waits for the same folder.
#[test]
fn an_image_of_every_verb_links_without_a_panic_path_and_not_with_one() {
    for opt_level in ["2", "3", "s"] {
        for program in ["nopanic", "restorer"] {
            let output = link(program, opt_level, &[]);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "at opt-level {opt_level} a panic path is left in {program}, or it does not \
                 build:\n{errors}"
            );
        }
    }
    #[cfg(target_arch = "x86_64")]
    for (program, title, sections) in [
        ("nopanic", "**Size**", &[".text", ".rodata"][..]),
        ("restorer", "**Restoring alone**", &[".text"]),
    ] {
        let elf = fs::read(folder().join("image").join(program)).expect("it was built");
        size_is_as_the_readme_says(&elf, title, sections);
    }

    let output = link("nopanic", "s", &["--cfg", "broken"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "a panic path was put in, and the image links");
    assert!(errors.contains("cxl_firmware_can_panic"), "it failed for another reason:\n{errors}");
}

/// Sections of a program at opt-level s keep to the numbers of the README's line with this title, which
/// are not much larger.
#[cfg(target_arch = "x86_64")]
fn size_is_as_the_readme_says(elf: &[u8], title: &str, sections: &[&str]) {
    let readme = include_str!("../../README.md");
    let (_, line) = readme.split_once(title).expect("a line about the size");
    let stated: Vec<u64> = line.split(" KiB").take(sections.len()).map(last_number).collect();
    for (name, stated) in sections.iter().zip(stated) {
        let found = section(elf, name).div_ceil(1024);
        let true_and_near = found <= stated && stated <= found + found / 8 + 1;
        assert!(true_and_near, "README: less than {stated} KiB of {name}, the image has {found}");
    }
}

#[cfg(target_arch = "x86_64")]
fn last_number(text: &str) -> u64 {
    let word = text.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    word.parse().expect("a number before KiB")
}

/// The size of a section of an ELF64 file, by the section headers (ELF-64, "Sections").
#[cfg(target_arch = "x86_64")]
fn section(elf: &[u8], wanted: &str) -> u64 {
    let number = |at: usize, size: usize| {
        let bytes = elf.get(at..at + size).expect("a whole file");
        bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let headers = number(0x28, 8) as usize;
    let (size, count) = (number(0x3A, 2) as usize, number(0x3C, 2) as usize);
    let header = |index: usize| headers + index * size;
    let names = number(header(number(0x3E, 2) as usize) + 0x18, 8) as usize;
    let mut found = (0..count).map(header).filter(|&at| {
        let name = elf.get(names + number(at, 4) as usize..).unwrap_or_default();
        name.starts_with(wanted.as_bytes()) && name.get(wanted.len()) == Some(&0)
    });
    number(found.next().unwrap_or_else(|| panic!("no {wanted}")) + 0x20, 8)
}
