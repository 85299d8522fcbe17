//! An unmodified Linux with a disk on our own machine, whose buffers lie in CXL memory: several reads and
//! writes in flight, of 64 KiB to 4 MiB, direct where that memory is mirrored and bounced where it is not,
//! the same bytes either way.
//!
//! A small program in C does it there (`harness/tests/linux_dma/dma.c`); whether its buffers lie in the
//! window it looks up, and what went which way our own side counts.
//!
//! **Invariant**: without QEMU, a kernel, busybox or a C compiler every test here is shown as ignored, with
//! the remedy; none is silently green.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

mod program;
mod trial;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use cxl_harness::linux::{Installed, Task};
use cxl_harness::nested::Kernel;
use program::Folder;
use serde_json::Value;
use trial::{claim, unless};

const MIB: usize = 1 << 20;
/// Seconds that a boot may take on a host that has much else to do; half a minute is usual.
const LONGEST: &str = "1500";
/// The window of the scenario one-device, and the memory in it.
const WINDOW: &str = "0x100000000 0x20000000";

fn main() -> ExitCode {
    let lacks = Kernel::find(None, None).err().unwrap_or_default();
    let mut words: Vec<_> = lacks.iter().map(ToString::to_string).collect();
    if compiler().is_none() {
        words.push("no cc; install gcc".to_owned());
    }
    if !words.is_empty() {
        eprintln!("tests of a disk under Linux are ignored: {}", words.join("; "));
    }
    let lack = || (!words.is_empty()).then_some("needs QEMU, a kernel, busybox and a C compiler");
    let trials = [
        claim("buffers_in_mirrored_cxl_memory_are_direct", direct),
        claim("buffers_in_cxl_memory_that_traps_are_bounced", bounced),
        claim("linux_behind_the_host_has_what_the_library_planned", behind_the_host),
    ];
    trial::run(trials.into_iter().map(|trial| unless(lack(), trial)).collect())
}

fn compiler() -> Option<&'static str> {
    let there = |name: &&str| Command::new(name).arg("--version").output().is_ok();
    ["cc", "gcc", "clang"].into_iter().find(there)
}

/// What came of a boot with a disk: its report, its lines, and the disk afterwards.
struct Came {
    report: Value,
    lines: Vec<String>,
    disk: Vec<u8>,
}

impl Came {
    fn disk(&self, key: &str) -> u64 {
        self.report["measured"]["guest"]["disk"][key].as_u64().unwrap()
    }

    fn with(&self, start: &str) -> Vec<&str> {
        let lines = self.lines.iter().map(String::as_str);
        lines.filter(|line| line.starts_with(start)).collect()
    }
}

/// Half of the disk.
const HALF: usize = 32 * MIB;

/// A disk whose first half is a pattern.
fn pattern() -> Vec<u8> {
    let words = (0..HALF as u64 / 8).map(|word| word.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.resize(2 * HALF, 0);
    bytes
}

/// Boots Linux inside, which has the program do these transfers.
fn boot(compare: &str, transfers: &str, more: &[&str], append: &str) -> Came {
    tried(compare, transfers, more, append).unwrap_or_else(|words| panic!("{words}"))
}

/// The same, or how it ended otherwise.
fn tried(compare: &str, transfers: &str, more: &[&str], append: &str) -> Result<Came, String> {
    let folder = Folder::new();
    let installed = Installed::find().unwrap();
    let program = folder.name("dma");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/linux_dma/dma.c");
    let mut compile = Command::new(compiler().unwrap());
    compile.args(["-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", &program]);
    let compiled = compile.arg(source).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));

    let mut script = String::new();
    let mut files = vec![("dma".to_owned(), PathBuf::from(&program))];
    for path in installed.driver("virtio_blk").unwrap() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        script += &format!("$B insmod /task/{name}\n");
        files.push((name, path));
    }
    script += &format!(
        r#"
        # Requests go as they come, not one by one.
        echo none >/sys/block/vda/queue/scheduler
        read -r node </sys/bus/dax/devices/dax0.0/target_node
        /task/dma /dev/vda $node {WINDOW} {compare} {transfers}
        echo "dma ended with $?"
        $B grep virtio /proc/interrupts | while read -r line; do echo "interrupt $line"; done
        $B dmesg -r | $B grep -E '^<[0-4]>' | $B grep -iE 'vda|virtio|I/O error' | $B sed 's/^/warned /'
        $B poweroff -f
        "#
    );
    let task = Task { script: &script, files: &files };
    let initrd = folder.file("initrd", installed.initramfs("", &task).unwrap());
    let disk = folder.file("disk", pattern());
    let mut command = program::command(&["nested", "--timeout", LONGEST, "--", "boot"]);
    command
        .args(["one-device", "--json", "--linux"])
        .arg(&installed.kernel)
        .args(["--initrd", &initrd, "--disk", &disk]);
    let append = format!("memhp_default_state=online_movable loglevel=4 {append}");
    command.args(["--lock-by", "vmm", "--timeout", LONGEST, "--append", &append]).args(more);
    let (output, complaints, code) = program::ran(&mut command);
    if code != 0 {
        return Err(format!("exit code {code}: {complaints}\n{output}"));
    }
    let report: Value = serde_json::from_str(&output).unwrap();
    let console = report["measured"]["guest"]["console"].as_array().unwrap();
    let lines = console.iter().map(|line| line.as_str().unwrap().trim_end().to_owned()).collect();
    Ok(Came { lines, disk: fs::read(&disk).unwrap(), report })
}

/// What holds of both: Linux says that all was right, and so do the bytes that came out of it.
fn right(came: &Came, sizes: &[usize]) {
    let said = sizes.iter().map(|size| format!("dma: 4 times {size} bytes"));
    let said: Vec<_> = said.chain(["dma ended with 0".to_owned()]).collect();
    assert_eq!(came.with("dma"), said, "{:#?}", came.lines);
    assert_eq!(came.with("warned"), [""; 0]);
    // Each of the four is as far from the one before as it is long.
    let mut expected = pattern();
    let (first, second) = expected.split_at_mut(HALF);
    for size in sizes {
        for at in (0..4).map(|n| n * 2 * size) {
            second[at..at + size].copy_from_slice(&first[at..at + size]);
        }
    }
    assert!(came.disk == expected, "what was read is as it was, what was written is the same");
    assert_eq!((came.disk("failed"), came.disk("more_troubles")), (0, 0), "{}", came.report);
    assert!(came.disk("together") >= 4, "{}", came.report);
}

fn direct() {
    let sizes = [64 << 10, 256 << 10, MIB, 4 * MIB];
    let came = boot("all", "4x0x10000 4x0x40000 4x0x100000 4x0x400000", &[], "");
    right(&came, &sizes);
    // Each byte once in and once out.
    let moved = 2 * 4 * sizes.iter().sum::<usize>() as u64;
    assert_eq!((came.disk("direct"), came.disk("bounced")), (moved, 0));
    assert!(came.with("interrupt").iter().any(|line| line.contains("MSI")), "{:#?}", came.lines);
}

fn bounced() {
    // Without the mirror Linux lives on borrowed time: what it does with such memory by itself, an interrupt
    // at the wrong moment, may be more than KVM can emulate. That is another test's.
    let once = || tried("some", "4x0x10000", &["--mirror", "off"], "pci=nomsi");
    let dies = |words: &String| words.contains("KVM internal error");
    let mut came = once();
    for _ in 0..2 {
        came = match came {
            Err(words) if dies(&words) => once(),
            came => came,
        };
    }
    let came = came.unwrap_or_else(|words| panic!("{words}"));
    right(&came, &[64 << 10]);
    assert_eq!((came.disk("direct"), came.disk("bounced")), (0, 2 * (256 << 10)));
    // The same disk by its pin.
    let lines = came.with("interrupt");
    assert!(lines.len() == 1 && lines[0].contains("IO-APIC"), "{:#?}", came.lines);
}

/// The other way in; that our image boots first is what the tests of `nested` have.
fn behind_the_host() {
    let mut command = program::command(&["nested", "--timeout", LONGEST, "--", "linux"]);
    command.args(["one-device", "--on", "ours", "--by", "host", "--json", "--timeout", LONGEST]);
    let (output, complaints, code) = program::ran(&mut command);
    assert_eq!(code, 0, "{complaints}\n{output}");
    let verdict: Value = serde_json::from_str(&output).unwrap();
    assert_eq!((&verdict["result"], &verdict["as_planned"]), (&"ok".into(), &1.into()));
    assert_eq!(verdict["regions"][0]["linux"]["locked"], true);
}
