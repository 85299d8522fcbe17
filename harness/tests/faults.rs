//! The host fails: each KVM ioctl of a boot once, each call about a file of `--media` once, disks that
//! are full or do not take what they are given. No panic, no hang, no good end that is not one, and
//! nothing lost.
//!
//! **Invariant**: calls fail between the program and the C library (`faults/shim.c`, which the test
//! builds), so that no code of the harness knows; what files hold is read from the files.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

#[path = "guest/elf.rs"]
mod elf;
mod program;
#[path = "../model/tests/rig/mod.rs"]
mod rig;
mod trial;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cxl_harness::kvm;
use elf::image;
use program::{Folder, command};
use rig::{COMMIT, HOST_ONLY, UNIT, config, decoder, machine};
use serde_json::Value;
use trial::{claim, unless};

const EINTR: i32 = 4;
const EIO: i32 = 5;
const ENOMEM: i32 = 12;
const ENOSPC: i32 = 28;

fn main() -> ExitCode {
    let trials = [
        ("any_kvm_call_may_fail_once", kvm_calls as fn()),
        ("a_thread_that_cannot_be_had_is_a_failure_in_words", no_thread),
        ("any_call_about_a_file_may_fail_once_and_nothing_is_lost", file_calls),
        ("what_cannot_be_written_back_is_said_and_brought_back_next_time", not_written_back),
        ("a_full_disk_refuses_a_set_with_numbers", full_disk),
        ("a_store_that_the_disk_does_not_take_is_reported", lost_store),
    ];
    let lack = match (kvm::available(), Command::new("cc").arg("--version").output()) {
        (Err(_), _) => Some("needs /dev/kvm"),
        (_, Err(_)) => Some("needs cc"),
        _ => None,
    };
    trial::run(trials.map(|(name, test)| unless(lack, claim(name, test))).into())
}

/// The shim, and a folder for everything else.
struct Bench {
    files: Folder,
}

impl Bench {
    fn new() -> Self {
        let files = Folder::new();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/shim.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
        let built = cc.arg(files.path("shim.so")).arg(source).arg("-ldl").output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        files.file("two-way.toml", TWO_WAY);
        Self { files }
    }

    /// A command under the shim.
    fn under(&self, mut command: Command, settings: &[(&str, &str)]) -> Command {
        command.env("LD_PRELOAD", self.files.path("shim.so"));
        command.envs(settings.iter().copied());
        command
    }

    /// The calls that are counted in a run where none fails.
    fn calls(&self, command: Command, settings: &[(&str, &str)]) -> Vec<String> {
        let log = self.files.path("log");
        let _ = std::fs::remove_file(&log);
        let name = self.files.name("log");
        let mut all = settings.to_vec();
        all.push(("FAULT_LOG", &name));
        let output = self.under(command, &all).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        std::fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect()
    }

    /// `boot` of an image on the machine of [`TWO_WAY`] that keeps its memory in `media`.
    fn boot(&self, code: &[u8], media: &Path) -> Command {
        let file = self.files.file(&format!("{}.elf", code.len()), image(code));
        let mut command = command(&["boot", &self.files.name("two-way.toml"), "--image", &file]);
        command.args(["--timeout", "20", "--json", "--media"]).arg(media);
        command
    }
}

impl Bench {
    /// A run whose set is in order, and whose guest has had some time since.
    fn in_order(&self, code: &[u8], media: &Path) -> Child {
        let mut boot = self.boot(code, media);
        let child = boot.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (set, start) = (media.join("mem0@0x0.set"), Instant::now());
        let in_order = || {
            let mut state = [0; 8];
            let file = std::fs::File::open(&set).ok()?;
            file.read_exact_at(&mut state, 0x18).ok()?;
            (state == *b"in order").then_some(())
        };
        while in_order().is_none() {
            assert!(start.elapsed() < Duration::from_secs(20), "no set");
            sleep(Duration::from_millis(5));
        }
        sleep(Duration::from_millis(300));
        child
    }

    /// A run that is killed with its set in order.
    fn kill(&self, code: &[u8], media: &Path) {
        let mut child = self.in_order(code, media);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// The exit code; a signal, a panic (101) and more than some seconds are none.
fn ended(mut command: Command, what: &str) -> (i32, Output) {
    let start = Instant::now();
    let output = command.output().unwrap();
    let code = output.status.code();
    let code = code.unwrap_or_else(|| panic!("{what}: {}\n{}", output.status, text(&output)));
    assert!(matches!(code, 0..=2), "{what}: exit {code}\n{}", text(&output));
    assert!(start.elapsed() < Duration::from_secs(60), "{what}: it took {:?}", start.elapsed());
    (code, output)
}

fn kvm_calls() {
    let bench = Bench::new();
    // Our image, and one that commits and gives back.
    let boot = || command(&["boot", "one-device", "--json", "--timeout", "20"]);
    let settings = [("FAULT_KVM", "1")];
    let calls = bench.calls(boot(), &settings);
    // KVM_RUN is 0x80. Of those that enter the guest, the first ones and some of all.
    let mut entered = 0;
    let tried = calls.iter().enumerate().filter(|(index, name)| {
        entered += usize::from(*name == "80");
        name.as_str() != "80" || entered < 4 || index % 131 == 0
    });
    let mut ends: BTreeMap<(i32, i32), usize> = BTreeMap::new();
    for (index, name) in tried {
        for errno in [ENOMEM, EINTR] {
            let what = format!("ioctl {name}, call {index}, errno {errno}");
            let (at, how) = (index.to_string(), errno.to_string());
            let settings = [settings[0], ("FAULT_AT", &at), ("FAULT_ERRNO", &how)];
            let (code, output) = ended(bench.under(boot(), &settings), &what);
            *ends.entry((errno, code)).or_default() += 1;
            let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            match code {
                // Good is what came to its end, in a guest or, where there is none, as it says.
                0 => {
                    assert_eq!(report["result"], "ok", "{what}");
                    assert_eq!(report["locks"]["locked"], true, "{what}");
                    assert_eq!(report["locks"]["in_force"], 2, "{what}");
                    // Whether there is a KVM is asked by these two.
                    let why = report["ran_why"].as_str().unwrap_or_default();
                    let asked = ["KVM_GET_API_VERSION failed", "KVM_CREATE_VM failed"];
                    let none = asked.iter().any(|call| why.contains(call));
                    assert!(none || report["ran"] == "guest", "{what}: {}", report["ran"]);
                    // What is interrupted is done again.
                    assert!(errno != EINTR || report["ran"] == "guest", "{what}");
                }
                _ => {
                    let words = text(&output);
                    let named = ["os error 12", "os error 4", "Cannot allocate memory"];
                    assert!(named.iter().any(|word| words.contains(word)), "{what}: {words}");
                }
            }
        }
    }
    eprintln!("{} calls; (errno, exit code): {ends:?}", calls.len());
    assert_eq!(ends.keys().filter(|(errno, code)| (*errno, *code) == (EINTR, 2)).count(), 0);
}

/// Without the thread that keeps the time nothing could end a guest that never exits.
fn no_thread() {
    let bench = Bench::new();
    let boot = command(&["boot", "one-device", "--json"]);
    let (code, output) = ended(bench.under(boot, &[("FAULT_THREADS", "1")]), "no thread");
    assert_eq!(code, 1, "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failures = report["failures"].to_string();
    // EAGAIN is 11 on every Linux.
    assert!(failures.contains("no thread to keep the time limit: "), "{failures}");
    assert!(failures.contains("os error 11"), "{failures}");
}

/// Two devices with nothing but persistent memory, and a window that 32-bit code reaches.
const TWO_WAY: &str = r#"
[platform]
memory = "64MiB"
[[bridge]]
name = "hb0"
uid = 16
[[port]]
name = "rp0"
below = "hb0"
number = 5
[[port]]
name = "rp1"
below = "hb0"
number = 6
[[device]]
name = "mem0"
below = "rp0"
persistent = "256MiB"
[[device]]
name = "mem1"
below = "rp1"
persistent = "256MiB"
[[window]]
targets = ["hb0"]
base = "0x40000000"
size = "512MiB"
"#;
const WINDOW: u32 = 0x4000_0000;

/// mov dword [address], value
fn store(code: &mut Vec<u8>, address: u64, value: u32) {
    code.extend([0xC7, 0x05]);
    code.extend(u32::try_from(address).unwrap().to_le_bytes());
    code.extend(value.to_le_bytes());
}

/// Commits both devices as a set of two ways at 256 bytes.
fn commit(code: &mut Vec<u8>) {
    let machine = machine(TWO_WAY);
    for (name, route) in [("mem0", 0), ("mem1", 0), ("hb0", 5 | 6 << 8)] {
        let at = decoder(&machine, name, 0);
        for (offset, value) in [
            (0, WINDOW),
            (4, 0),
            (8, 2 * UNIT as u32),
            (12, 0),
            (20, route),
            (24, 0),
            (16, HOST_ONLY | COMMIT | 0x10),
        ] {
            store(code, at + offset, value);
        }
    }
    for name in ["mem0", "mem1"] {
        // HDM Decoder Enable, and Mem_Enable in the Device DVSEC's Control.
        store(code, rig::component(&machine, name) + rig::GLOBAL, 2);
        store(code, rig::dvsec(&machine, name) + 0x0C, 4);
        assert!(config(&machine, name) > 0);
    }
}

/// Stores: an offset into the set each, and a value.
type Stores = Vec<(u32, u32)>;

/// Some of them, far apart.
fn stores(seed: u32) -> Stores {
    let place = |n: u32| ((n * 0x12_3460 + seed * 64) % 0x2000_0000) & !3;
    (0..48).map(|n| (place(n), seed << 16 | n << 4 | 1)).collect()
}

/// mov al, 0; out 0xF4, al
const EXIT: [u8; 4] = [0xB0, 0x00, 0xE6, 0xF4];

/// An image that commits, stores and ends so.
fn storing(stores: &Stores, end: &[u8]) -> Vec<u8> {
    let mut code = Vec::new();
    commit(&mut code);
    for (offset, value) in stores {
        store(&mut code, u64::from(WINDOW + offset), *value);
    }
    code.extend(end);
    code
}

/// Which stores are not in the devices' files, where dealing out 256 bytes to each in turn puts them;
/// the bytes of a file are from 2 MiB on.
fn missing(media: &Path, stores: &Stores) -> Vec<u32> {
    let files = ["mem0.media", "mem1.media"].map(|name| std::fs::File::open(media.join(name)));
    let there = |(offset, value): &&(u32, u32)| {
        let (granule, within) = (offset / 256, u64::from(offset % 256));
        let at = (2 << 20) + u64::from(granule / 2 * 256) + within;
        let mut bytes = [0; 4];
        let file = files[(granule % 2) as usize].as_ref();
        file.is_ok_and(|file| file.read_exact_at(&mut bytes, at).is_ok())
            && u32::from_le_bytes(bytes) == *value
    };
    stores.iter().filter(|store| !there(store)).map(|(offset, _)| *offset).collect()
}

/// A copy of a directory, holes and all.
fn copy(from: &Path, to: &Path) {
    let mut cp = Command::new("cp");
    assert!(cp.args(["-r", "--sparse=always"]).arg(from).arg(to).status().unwrap().success());
}

fn file_calls() {
    let bench = Bench::new();
    let (first, second) = (stores(1), stores(2));
    // One run made the files; another one died with a set in order.
    let old = bench.files.path("old");
    let (code, output) = ended(bench.boot(&storing(&first, &EXIT), &old), "first");
    assert_eq!(code, 0, "{}", text(&output));
    assert_eq!(missing(&old, &first), [0; 0]);
    let media = bench.files.path("media");
    let prefix = bench.files.name("media");
    let died = bench.files.path("died");
    copy(&old, &died);
    bench.kill(&storing(&first, &[0xEB, 0xFE]), &died);
    assert!(died.join("mem0@0x0.set").exists());
    for (what, begin) in
        [("new files", None), ("files that are there", Some(&old)), ("a set in order", Some(&died))]
    {
        let afresh = || {
            let _ = std::fs::remove_dir_all(&media);
            if let Some(old) = begin {
                copy(old, &media);
            }
        };
        let settings = [("FAULT_FILES", prefix.as_str())];
        afresh();
        let calls = bench.calls(bench.boot(&storing(&second, &EXIT), &media), &settings);
        let mut ends: BTreeMap<i32, usize> = BTreeMap::new();
        // Some calls come again and again, page by page.
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, name) in calls.iter().enumerate() {
            let seen = seen.entry(name).or_default();
            *seen += 1;
            let many = matches!(name.as_str(), "seek" | "punch") && *seen > 8;
            let some = if many { 8 } else { 1 } * if begin == Some(&died) { 5 } else { 1 };
            if !index.is_multiple_of(some) {
                continue;
            }
            let what = format!("{what}: {name}, call {index}");
            afresh();
            let (at, how) = (index.to_string(), EIO.to_string());
            let settings = [settings[0], ("FAULT_AT", &at), ("FAULT_ERRNO", &how)];
            let boot = bench.boot(&storing(&second, &EXIT), &media);
            let (code, output) = ended(bench.under(boot, &settings), &what);
            *ends.entry(code).or_default() += 1;
            let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let ran = report["measured"]["guest"]["end"] == "it wrote 0x00 to the exit port";
            assert_eq!(ran, code != 2, "{what}: {}", text(&output));
            if code == 1 {
                assert!(text(&output).contains("nput/output error"), "{what}: {}", text(&output));
            }
            if code == 0 {
                assert_eq!(
                    missing(&media, &second),
                    [0; 0],
                    "{what}: it was good, and bytes are not"
                );
                assert!(!media.join("mem0@0x0.set").exists(), "{what}");
            }
            // Once all is well the next start has everything.
            let (code, output) = ended(bench.boot(&EXIT, &media), &what);
            assert_eq!(code, 0, "{what}: {}", text(&output));
            let kept = if ran { &second } else { &first };
            if ran || begin.is_some() {
                assert_eq!(missing(&media, kept), [0; 0], "{what}: lost");
            }
            let left: Vec<PathBuf> = std::fs::read_dir(&media)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|end| end == "set" || end == "new"))
                .collect();
            assert_eq!(left, [""; 0].map(PathBuf::from), "{what}");
        }
        eprintln!("{what}: {} calls; exit codes {ends:?}", calls.len());
    }
}

fn not_written_back() {
    let bench = Bench::new();
    let first = stores(3);
    for (call, errno, words) in [
        ("unlink", EIO, "it could not be deleted"),
        ("punch", EIO, "its bytes could not be brought back"),
        ("sync", EIO, "could not be brought to the disk"),
    ] {
        let media = bench.files.path(call);
        // The files are there, so that the calls are those of the end.
        let (code, output) = ended(bench.boot(&EXIT, &media), call);
        assert_eq!(code, 0, "{}", text(&output));
        let (prefix, how) = (bench.files.name(call), errno.to_string());
        let settings =
            [("FAULT_FILES", prefix.as_str()), ("FAULT_EVERY", call), ("FAULT_ERRNO", &how)];
        let boot = bench.under(bench.boot(&storing(&first, &EXIT), &media), &settings);
        let (code, output) = ended(boot, call);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let failures = report["failures"].to_string();
        assert_eq!(code, 1, "{call}: {}", text(&output));
        assert!(failures.contains(words) && failures.contains("os error 5"), "{call}: {failures}");
        let set = media.join("mem0@0x0.set");
        let (code, output) = ended(bench.boot(&EXIT, &media), call);
        assert_eq!(code, 0, "{}", text(&output));
        let said = text(&output).contains("the last run ended with mem0, mem1 in a set");
        assert_eq!(said, call == "punch", "{call}: {}", text(&output));
        assert_eq!(missing(&media, &first), [0; 0], "{call}");
        assert!(!set.exists(), "{call}");
    }
}

fn full_disk() {
    let bench = Bench::new();
    let first = stores(4);
    let media = bench.files.path("full");
    let (prefix, how) = (bench.files.name("full"), ENOSPC.to_string());
    let settings =
        [("FAULT_FILES", prefix.as_str()), ("FAULT_EVERY", "reserve"), ("FAULT_ERRNO", &how)];
    let boot = bench.under(bench.boot(&storing(&first, &EXIT), &media), &settings);
    let (code, output) = ended(boot, "a full disk");
    assert_eq!(code, 0, "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let reason = report["measured"]["guest"]["unmirrored"][0]["reason"].as_str().unwrap();
    let need = 2 * UNIT;
    let said = format!("its file: the guest may store to {need} bytes of it, and the disk has ");
    assert!(reason.starts_with(&said), "{reason}");
    // What is decoded access by access is in the files all the same.
    assert_eq!(missing(&media, &first), [0; 0]);
}

/// Somebody cuts the set's file while the guest stores to it.
fn lost_store() {
    let bench = Bench::new();
    let media = bench.files.path("cut");
    let mut code = Vec::new();
    commit(&mut code);
    // mov edi, WINDOW; again: mov [edi], edi; add edi, 4096; and edi, 0x5fffffff; jmp again
    code.push(0xBF);
    code.extend(WINDOW.to_le_bytes());
    code.extend([0x89, 0x3F, 0x81, 0xC7, 0, 0x10, 0, 0, 0x81, 0xE7, 0xFF, 0xFF, 0xFF, 0x5F]);
    code.extend([0xEB, 0xF0]);
    let child = bench.in_order(&code, &media);
    let set = media.join("mem0@0x0.set");
    let file = std::fs::OpenOptions::new().write(true).open(&set).unwrap();
    file.set_len(2 << 20).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}: {}", output.status, text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failures = report["failures"].to_string();
    assert!(failures.contains("the disk did not take"), "{failures}");
    assert!(failures.contains("mem0@0x0.set: "), "it says where: {failures}");
}
