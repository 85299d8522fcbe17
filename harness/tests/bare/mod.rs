//! Programs without an operating system: a cargo that builds them, and bare aarch64, which is QEMU's machine
//! `virt`. `QEMU_AARCH64` is the QEMU, `AARCH64_CARGO` what `.ci/targets aarch64-unknown-none` printed, if
//! anything.
//!
//! **Invariant**: what is built here is built as users build it: nothing that the outer cargo asks of its
//! compiler has a part in it.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "helpers of tests")]

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What bare aarch64 is called.
pub const AARCH64: &str = "aarch64-unknown-none";

/// QEMU for aarch64.
pub fn qemu() -> OsString {
    env::var_os("QEMU_AARCH64").unwrap_or(OsString::from("qemu-system-aarch64"))
}

/// That QEMU's major version, if it is there.
pub fn qemu_version() -> Option<u32> {
    let output = Command::new(qemu()).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_once("version ")?.1.split('.').next()?.parse().ok()
}

/// What is missing to build for bare aarch64.
pub fn no_target() -> Option<String> {
    let print = ["--print", "target-libdir", "--target", AARCH64];
    let folder = Command::new("rustc").args(print).output();
    let folder = folder.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let there = folder.is_ok_and(|folder| Path::new(&folder).is_dir());
    (!there && env::var_os("AARCH64_CARGO").is_none())
        .then(|| format!("needs {AARCH64}, by .ci/targets"))
}

/// A folder that no outer cargo has locked.
pub fn folder(name: &str) -> PathBuf {
    // target/debug/deps/program
    let this = env::current_exe().unwrap();
    this.ancestors().nth(3).unwrap().join("tmp").join(name)
}

/// A cargo that builds for a target, there.
pub fn cargo(command: &str, target: &str, folder: &Path) -> Command {
    let words = env::var("AARCH64_CARGO").unwrap_or_default();
    let how = words.split_whitespace().filter_map(|word| word.split_once('='));
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or(OsString::from("cargo")));
    cargo
        .arg(command)
        .args(["--locked", "--target", target, "--target-dir"])
        .arg(folder)
        .envs(how.filter(|_| target == AARCH64))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET");
    cargo
}
