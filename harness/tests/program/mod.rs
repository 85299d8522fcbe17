//! The program that the tests run, and files for it.
//!
//! **Invariant**: it is looked for when a test runs, so tests of a copied tree run the copy.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared by test binaries")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Where it is: as cargo says, or beside this test program's folder.
pub fn path() -> PathBuf {
    std::env::var_os("CARGO_BIN_EXE_cxl-harness").map_or_else(
        || {
            let this = std::env::current_exe().unwrap();
            this.ancestors().nth(2).unwrap().join("cxl-harness")
        },
        PathBuf::from,
    )
}

/// The program with arguments.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(path());
    command.args(arguments);
    command
}

/// What a command printed, its complaints and its exit code.
pub fn ran(command: &mut Command) -> (String, String, i32) {
    printed(command.output().unwrap())
}

/// The same of a command that reads these bytes.
pub fn fed(command: &mut Command, input: &[u8]) -> (String, String, i32) {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    // A child that refuses its arguments does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    printed(child.wait_with_output().unwrap())
}

fn printed(output: Output) -> (String, String, i32) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap_or_else(|| panic!("{}", output.status));
    (text(output.stdout), text(output.stderr), code)
}

/// A folder of a test's own.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path of a file as an argument.
    pub fn name(&self, name: &str) -> String {
        self.path(name).into_os_string().into_string().unwrap()
    }

    /// Writes a file, and gives its path as an argument.
    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), contents).unwrap();
        self.name(name)
    }
}
