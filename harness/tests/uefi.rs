//! The UEFI driver on somebody else's machine, under somebody else's firmware: OVMF and AAVMF start
//! `cxl.efi` from a disk, on QEMU's CXL devices; it programs and locks, and starts an unmodified Linux,
//! whose sysfs is held against the library's plan and its memory against the bytes behind the devices.
//!
//! **Invariant**: what is missing here, a firmware, a QEMU, a kernel or a compiler for the driver's
//! target, shows each test that needs it as ignored, with the remedy; none is silently green.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

#[allow(dead_code, reason = "the tests of Linux behind the image use all of it")]
#[path = "linux/judge.rs"]
mod judge;
mod trial;

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cxl_firmware::topology::Partition;
use cxl_harness::linux::boot::{self, By, Options};
use cxl_harness::linux::uefi::Uefi;
use cxl_harness::linux::{Installed, Task};
use cxl_harness::qemu::process::{self, Arch};
use cxl_model::scenario::{Scenario, builtin};
use cxl_regs::Span;
use judge::{CEDT, Judged};
use libtest_mimic::Trial;
use trial::unless;

/// Software emulation on a busy host: twenty seconds are usual.
const LIMIT: Duration = Duration::from_secs(400);

/// A machine that Linux has to take: its name in a test's, the built-in, and a word of that to change.
const MACHINES: [(&str, &str, (&str, &str)); 5] = [
    ("one_device", "one-device", ("", "")),
    ("two_way_over_two_bridges", "two-way", ("", "")),
    ("two_devices_below_one_bridge", "two-devices-one-bridge", ("", "")),
    ("switch", "switch", ("", "")),
    ("persistent", "one-device", ("volatile", "persistent")),
];

const ARCHITECTURES: [(&str, Arch); 2] = [("x86_64", Arch::X86), ("aarch64", Arch::Arm)];

fn missing(arch: Arch) -> Option<String> {
    let qemu = || process::available_for(arch).err().map(|error| error.to_string());
    let linux = || Installed::find_for(arch).err().map(|error| error.to_string());
    let firmware = || Uefi::is_installed(arch).err().map(|error| error.to_string());
    // Built once, before the tests that share it.
    let driver = || Uefi::find(arch).err().map(|error| error.to_string());
    qemu().or_else(linux).or_else(firmware).or_else(driver)
}

/// Linux behind the driver has everything that is planned, from the driver's own table.
fn takes(machine: &str, (from, to): (&str, &str), arch: Arch) {
    let text = builtin(machine).unwrap().text;
    let text = if from.is_empty() { text.to_owned() } else { text.replace(from, to) };
    let scenario = Scenario::parse(&text, machine).unwrap();
    let installed = Installed::find_for(arch).unwrap_or_else(|error| panic!("{error}"));
    let interrupted = &AtomicBool::new(false);
    let (before, task, by) = ("", Task::default(), By::Uefi(arch));
    let options = Options { before, task, timeout: LIMIT, interrupted, by };
    let boot = boot::boot(&installed, &scenario, &options).unwrap_or_else(|e| panic!("{e}"));
    let verdict = boot.verdict();
    assert_eq!(verdict.gaps, [], "{verdict}");

    let made = boot.said.cedt.as_ref().expect("the driver's table").bytes.clone();
    assert_eq!(boot.facts.bytes(CEDT), Some(made.as_slice()), "the table that Linux has");
    assert!(made.windows(8).any(|id| id == b"UEFI    "), "a table by the driver");

    let judged = Judged::new(boot);
    judged.decoders();
    judged.windows();
    judged.assembled();
    let regions = &judged.done.room.plan.regions;
    assert_eq!(regions.len(), verdict.planned);
    if regions.iter().all(|region| region.partition == Partition::Persistent) {
        judged.nd_region();
        return;
    }
    let planned: u64 = regions.iter().map(|region| region.span.size()).sum();
    assert_eq!(verdict.online, planned, "{verdict}");
    // Without an SRAT all of a window is one node.
    if regions.len() == 1 {
        judged.online();
    }
    judged.bytes(&std::fs::read(&installed.busybox).unwrap());
    // Volatile memory came through the memory map: on x86-64 Linux says so. On Arm it may not.
    if arch == Arch::X86 {
        let log = judged.boot.facts.text("/log").unwrap_or_default();
        // Of two that touch, the first.
        let touches = |region: &Span| regions.iter().any(|r| r.span.end() == region.base());
        for region in regions.iter().filter(|region| !touches(&region.span)) {
            let (first, last) = (region.span.base().0, region.span.end().0 - 1);
            let line = format!("[mem {first:#018x}-{last:#018x}]");
            let said = log.split('|').any(|l| l.contains(&line) && l.contains("soft reserved"));
            assert!(said, "expected {line} soft reserved, in {log}");
        }
    }
}

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for (processor, arch) in ARCHITECTURES {
        let missing = missing(arch);
        if let Some(reason) = &missing {
            eprintln!("tests under UEFI on {processor} are ignored: {reason}");
        }
        for (name, machine, change) in MACHINES {
            let name = format!("linux_takes_{name}_from_the_driver_on_{processor}");
            let test = Trial::test(name, move || {
                takes(machine, change, arch);
                Ok(())
            });
            trials.push(unless(missing.clone(), test));
        }
    }
    trial::run(trials)
}
