//! The UEFI driver on somebody else's machine, under somebody else's firmware: OVMF and AAVMF start
//! `cxl.efi` from a disk, on QEMU's CXL devices; it programs and locks, and starts an unmodified Linux,
//! whose sysfs is held against the library's plan and its memory against the bytes behind the devices.
//! And all that it leaves behind, registers, table and record, is to the byte what the bare-metal image
//! leaves on the same machine, but for addresses, which each platform chooses.
//!
//! **Invariant**: what is missing here, a firmware, a QEMU, a kernel or a compiler for the driver's
//! target, shows each test that needs it as ignored, with the remedy; none is silently green.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

#[allow(dead_code, reason = "the tests of Linux behind the image use all of it")]
#[path = "linux/judge.rs"]
mod judge;
mod trial;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cxl_firmware::topology::Partition;
use cxl_harness::console::{Collected, Registers};
use cxl_harness::linux::boot::{self, Boot, By, Options};
use cxl_harness::linux::uefi::Uefi;
use cxl_harness::linux::{Installed, Task};
use cxl_harness::qemu::line::Given;
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

/// What is left behind on the machines that are booted in more than one way, by machine and way.
static LEFT: Mutex<BTreeMap<(String, &str), Left>> = Mutex::new(BTreeMap::new());

fn booted(machine: &str, (from, to): (&str, &str), by: By) -> (Installed, Boot) {
    let text = builtin(machine).unwrap().text;
    let text = if from.is_empty() { text.to_owned() } else { text.replace(from, to) };
    let scenario = Scenario::parse(&text, machine).unwrap();
    let arch = match by {
        By::Image => Arch::X86,
        By::Uefi(arch) => arch,
    };
    let installed = Installed::find_for(arch).unwrap_or_else(|error| panic!("{error}"));
    let interrupted = &AtomicBool::new(false);
    let options = Options {
        before: "",
        task: Task::default(),
        timeout: LIMIT,
        interrupted,
        by,
        given: &Given::default(),
        append: "",
    };
    let boot = boot::boot(&installed, &scenario, &options).unwrap_or_else(|e| panic!("{e}"));
    (installed, boot)
}

/// Linux behind the driver has everything that is planned, from the driver's own table.
fn takes(machine: &str, change: (&str, &str), arch: Arch, way: &'static str) {
    let (installed, boot) = booted(machine, change, By::Uefi(arch));
    let left = Left::of(&boot.said);
    LEFT.lock().unwrap().insert((format!("{machine}{change:?}"), way), left);
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

/// Registers, table and record, without what a platform chooses: where windows, functions and tables
/// are, and who made the table. What is in a window counts from its base.
#[derive(Debug, PartialEq)]
struct Left {
    hdm: Vec<(String, Vec<u8>)>,
    dvsec: Vec<(String, Vec<u8>)>,
    cedt: Vec<u8>,
    record: Vec<u8>,
}

impl Left {
    fn of(said: &Collected) -> Self {
        let record = &said.handoff.as_ref().expect("a record").bytes;
        let number =
            |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().unwrap()) as usize;
        let (regions, decoders, components) = (number(16), number(20), number(36));
        let windows: Vec<(u64, u64)> = (0..regions)
            .map(|n| 64 + 32 * n)
            .map(|at| (dwords(record, at), dwords(record, at + 8) + dwords(record, at + 16)))
            .collect();
        assert!(!windows.is_empty());
        let from_its_window = |bytes: &mut [u8], high: usize, low: usize| {
            let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let address = u64::from(half(high)) << 32 | u64::from(half(low));
            let inside = |&&(base, end): &&(u64, u64)| base <= address && address < end;
            if let Some((base, _)) = windows.iter().find(inside) {
                let offset = address - base;
                bytes[high..high + 4].copy_from_slice(&((offset >> 32) as u32).to_le_bytes());
                bytes[low..low + 4].copy_from_slice(&(offset as u32).to_le_bytes());
            }
        };
        let named = |registers: &Registers| {
            let bytes = registers.section.bytes.clone();
            (format!("{:?} {}", registers.component, registers.place), bytes)
        };
        // CXL r3.1 sections 8.2.4.20 and 8.1.3.8: where they hold addresses.
        let mut hdm: Vec<_> = said.hdm.iter().map(named).collect();
        for (_, bytes) in &mut hdm {
            for base in (0x10..bytes.len()).step_by(0x20) {
                from_its_window(bytes, base + 4, base);
            }
        }
        let mut dvsec: Vec<_> = said.dvsec.iter().map(named).collect();
        for (_, bytes) in &mut dvsec {
            for base in [0x20, 0x30] {
                from_its_window(bytes, base, base + 4);
            }
        }
        hdm.sort();
        dvsec.sort();

        // Behind the header: bases of registers (CHBS), and of windows (CFMWS).
        let mut cedt = said.cedt.as_ref().expect("a table").bytes[36..].to_vec();
        let mut at = 0;
        while at < cedt.len() {
            match cedt[at] {
                0 => cedt[at + 16..at + 24].fill(0),
                1 => cedt[at + 8..at + 16].fill(0),
                _ => {}
            }
            at += usize::from(u16::from_le_bytes([cedt[at + 2], cedt[at + 3]]));
        }

        let mut fixed = record.clone();
        fixed[24..32].fill(0);
        fixed[48..64].fill(0);
        let mut at = 64;
        for _ in 0..regions {
            from_its_window(&mut fixed, at + 12, at + 8);
            fixed[at..at + 8].fill(0);
            at += 32;
        }
        for _ in 0..decoders {
            from_its_window(&mut fixed, at + 28, at + 24);
            at += 56;
        }
        for _ in 0..components {
            for base in [136, 144] {
                from_its_window(&mut fixed, at + base, at + base + 4);
            }
            // Bus, addresses of registers, Command and Bridge Control, and the header.
            for (first, end) in [(26, 28), (56, 80), (86, 90), (92, 124)] {
                fixed[at + first..at + end].fill(0);
            }
            at += 160;
        }
        Self { hdm, dvsec, cedt, record: fixed }
    }
}

fn dwords(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// What the driver left behind on both architectures, and what the image leaves.
fn same_everywhere(machine: &str) {
    let change = ("", "");
    let image = Left::of(&booted(machine, change, By::Image).1.said);
    assert!(image.hdm.len() > 2 && !image.dvsec.is_empty() && image.record.len() > 1000);
    for (way, arch) in ARCHITECTURES {
        let known = LEFT.lock().unwrap().remove(&(format!("{machine}{change:?}"), way));
        let left =
            known.unwrap_or_else(|| Left::of(&booted(machine, change, By::Uefi(arch)).1.said));
        assert_eq!(left, image, "{machine} by UEFI on {way}, and by the image");
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
                takes(machine, change, arch, processor);
                Ok(())
            });
            trials.push(unless(missing.clone(), test));
        }
    }
    // Last, as it takes what the boots above left.
    let missing = ARCHITECTURES.iter().find_map(|(_, arch)| missing(*arch));
    for machine in ["two-way", "switch"] {
        let name = format!("{machine}_is_left_alike_by_the_image_and_by_uefi_everywhere");
        let test = Trial::test(name, move || {
            same_everywhere(machine);
            Ok(())
        });
        trials.push(unless(missing.clone(), test));
    }
    trial::run(trials)
}
