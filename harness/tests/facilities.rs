//! What was asked for is done, or the run says so and fails: each thing that can be asked of a guest,
//! with each facility that a guest needs taken away.
//!
//! **Invariant**: a run that leaves anything out that was asked for never ends with 0, unless it was
//! told that it may (`--on-models`); then its report says what was left out, and no demand of what came
//! after the hand-off is met.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

mod program;
mod trial;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::sync::Arc;

use program::Folder;
use serde_json::Value;
use trial::{claim, unless};

/// What can be asked of a guest, on a scenario that asks for nothing by itself.
const ASKED: [&[&str]; 9] = [
    &["one-device", "--payload", "touch"],
    &["one-device", "--payload", "attack"],
    &["one-device", "--payload", "count,dma"],
    &["one-device", "--mirror", "off"],
    &["one-device", "--mirror", "on"],
    &["one-device", "--budget", "1GiB"],
    &["one-device", "--lock-by", "vmm"],
    &["hot-plug"],
    &["one-device", "--payload", "touch", "--require", "sealed"],
];

/// A way to be without a guest, and the words that tell it.
struct Missing {
    name: &'static str,
    take: fn(&mut Command),
    says: &'static str,
}

const MISSING: [Missing; 2] = [
    Missing {
        name: "no permission",
        take: |command| {
            command.uid(65534).gid(65534);
        },
        says: "/dev/kvm does not open",
    },
    Missing {
        name: "no descriptors for a virtual machine",
        take: |command| {
            // Standard streams and /dev/kvm itself; the virtual machine would be one more.
            let limit = libc::rlimit { rlim_cur: 4, rlim_max: 4 };
            let lower = move || {
                // SAFETY: it reads a structure that outlives the call.
                match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            };
            // SAFETY: the child calls one function that is safe between fork and exec.
            unsafe { command.pre_exec(lower) };
        },
        says: "KVM_CREATE_VM failed",
    },
];

/// The program where anybody may run it. Made before any test runs: one that is still open for
/// writing somewhere cannot start.
fn copied() -> Folder {
    let folder = Folder::new();
    let copy = folder.path("cxl-harness");
    fs::copy(program::path(), &copy).unwrap();
    folder.file("x.elf", b"\x7fELF");
    for path in [&folder.path(""), &copy] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

fn boot(program: &Path, missing: &Missing, words: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.arg("boot").args(words).current_dir("/");
    (missing.take)(&mut command);
    command.output().unwrap()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn asked(copied: &Folder, missing: &Missing) {
    let program = copied.path("cxl-harness");
    for words in ASKED {
        let output = boot(&program, missing, words);
        let complaint = complaint(&output);
        assert_eq!(code(&output), Some(1), "{words:?}: {complaint}");
        for word in [missing.says, "It takes a guest to do what was asked: ", "--on-models"] {
            assert!(complaint.contains(word), "{words:?}: {word}: {complaint}");
        }
        assert!(output.stdout.is_empty(), "{words:?}: nothing was done, and nothing is reported");
        let output = boot(&program, missing, &[words, &["--json"]].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((code(&output), &report["result"]), (Some(1), &Value::from("refused")));
        let message = report["refusal"]["message"].as_str().unwrap();
        assert!(message.contains(missing.says), "{message}");
        // With leave it runs, and says what it left out: no demand is met by that.
        let words = [words, &["--on-models", "--json"]].concat();
        let output = boot(&program, missing, &words);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let ends = Some(i32::from(words.contains(&"--require")));
        assert_eq!((code(&output), &report["ran"]), (ends, &Value::from("models")), "{words:?}");
        let left_out = report["left_out"].as_array().unwrap().len();
        let done = words.contains(&"attack");
        assert_eq!(left_out == 0, done, "{words:?}: {}", report["left_out"]);
        assert_eq!(report["attack"].is_object(), done, "{words:?}");
    }
    // An image is nothing without a guest.
    let image = copied.name("x.elf");
    let output = boot(&program, missing, &["one-device", "--image", &image]);
    assert!(code(&output) != Some(0) && complaint(&output).contains("--image"), "{output:?}");
    let output = boot(&program, missing, &["one-device", "--image", &image, "--on-models"]);
    assert_eq!(code(&output), Some(2), "{output:?}");
}

fn nothing_asked(copied: &Folder, missing: &Missing) {
    let program = copied.path("cxl-harness");
    for words in [&["one-device"][..], &["two-way", "--require", "sealed"]] {
        let output = boot(&program, missing, &[words, &["--json"]].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((code(&output), &report["ran"]), (Some(0), &Value::from("models")), "{words:?}");
        assert_eq!(complaint(&output).lines().count(), 1, "{}", complaint(&output));
        let text = String::from_utf8(boot(&program, missing, words).stdout).unwrap();
        let first: Vec<&str> = text.lines().take(3).collect();
        assert!(first.iter().any(|line| line.contains("on the device models")), "{first:?}");
    }
    // What is demanded is judged there too.
    let output = boot(&program, missing, &["unlocked", "--require", "locked"]);
    assert_eq!(code(&output), Some(1));
}

fn main() -> ExitCode {
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let copied = Arc::new(copied());
    let trials = MISSING.iter().flat_map(|missing| {
        // Only root can become somebody else; without a KVM that opens there is nothing to run out of.
        let why = match missing.name {
            "no permission" if !root => Some("needs root, to be nobody"),
            "no permission" => None,
            _ => cxl_harness::kvm::available().err().map(|_| "no /dev/kvm that opens"),
        };
        let trial = |what: &str, run: fn(&Folder, &Missing)| {
            let copied = Arc::clone(&copied);
            let name = format!("{what}: {}", missing.name);
            unless(why, claim(name, move || run(&copied, missing)))
        };
        [
            trial("what takes a guest is an error, and left out only with leave", asked),
            trial("what asks nothing of a guest runs on the models and says so", nothing_asked),
        ]
    });
    trial::run(trials.collect())
}
