//! Signals to commands that have children and temporary files: each that asks a program to end leaves
//! neither, says how far it came, and ends it with 128 and its number.
//!
//! **Invariant**: what is left is looked for in the system: processes by their parent, files in a folder
//! that nobody else has for temporary ones.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

mod program;
mod trial;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use cxl_harness::linux::Installed;
use cxl_harness::qemu::process;
use program::Folder;
use serde_json::Value;
use trial::{claim, unless};

const SIGNALS: [(&str, i32); 3] = [("-INT", 130), ("-TERM", 143), ("-HUP", 129)];

fn main() -> ExitCode {
    let qemu = process::available().err().map(|error| error.to_string());
    let linux = Installed::find().err().map(|error| error.to_string());
    trial::run(vec![
        unless(
            qemu.clone(),
            claim("a_signal_ends_a_run_on_qemu_and_leaves_nothing", || {
                ends(&["qemu", "two-way", "--run", "--json"]);
            }),
        ),
        unless(
            qemu.clone(),
            claim("a_command_that_is_killed_takes_its_qemu_along", || {
                let folder = Folder::new();
                let mut command = program::command(&["qemu", "two-way", "--run"]);
                command.env("TMPDIR", folder.path("")).stdout(Stdio::null()).stderr(Stdio::null());
                let mut child = command.spawn().unwrap();
                let qemu = booting(&child);
                child.kill().unwrap();
                child.wait().unwrap();
                // Whoever adopts it reaps it.
                let start = Instant::now();
                while alive(&qemu) {
                    assert!(start.elapsed() < Duration::from_secs(10), "QEMU goes on");
                    std::thread::sleep(Duration::from_millis(5));
                }
            }),
        ),
        unless(
            qemu.or(linux),
            claim("a_signal_ends_a_boot_of_linux_and_leaves_nothing", || {
                ends(&["linux", "one-device", "--json"]);
            }),
        ),
    ])
}

fn ends(words: &[&str]) {
    for (signal, code) in SIGNALS {
        let folder = Folder::new();
        let mut command = program::command(words);
        command.env("TMPDIR", folder.path("")).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let qemu = booting(&child);
        assert!(fs::read_dir(folder.path("")).unwrap().count() > 0, "it has temporary files");
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let start = Instant::now();
        let output = child.wait_with_output().unwrap();
        assert!(start.elapsed() < Duration::from_secs(20), "{signal}: {:?}", start.elapsed());
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{signal}: {complaints}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["result"], "refused", "{report}");
        let refusal = report["refusal"].as_str().unwrap();
        assert!(refusal.starts_with("interrupted"), "{refusal}");
        assert!(!qemu.exists(), "{signal}: QEMU goes on");
        assert_eq!(fs::read_dir(folder.path("")).unwrap().count(), 0, "{signal}: files are left");
    }
}

/// Whether a process of /proc runs; a dead one that nobody reaps does not.
fn alive(process: &Path) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ") && !status.contains("State:\tX")
}

/// The QEMU that boots the image, in /proc; not one that is asked a question.
fn booting(parent: &Child) -> PathBuf {
    let own = format!("PPid:\t{}\n", parent.id());
    let start = Instant::now();
    loop {
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        let mut children = processes.filter(|path| {
            let status = fs::read_to_string(path.join("status")).unwrap_or_default();
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            status.contains(&own) && line.split(|byte| *byte == 0).any(|word| word == b"-kernel")
        });
        if let Some(qemu) = children.next() {
            return qemu;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "no QEMU boots");
        std::thread::sleep(Duration::from_millis(20));
    }
}
