//! The linter, one broken image for each rule: a good machine with one thing changed has to give
//! that rule and no other refusal. The lines of Linux's log are typed by hand here; those that are
//! marked so were seen in the log of Debian's 6.12.117 on QEMU with the same registers.
//!
//! **Invariant**: no expected line is made by the linter.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

mod program;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use cxl_harness::run;
use cxl_lint::{
    Bridge, Change, Finding, Input, Kernel, Port, Registers, Report, Rule, Severity, Switch, lint,
    lint_for, unchecked,
};
use cxl_model::dump::{Dump, Options};
use cxl_model::fabric::{HdmImage, Parent};
use cxl_model::machine::Machine;
use cxl_model::scenario::{Scenario, builtins};
use cxl_regs::hdm::DecoderImage;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What our firmware leaves of a scenario.
fn left(scenario: &Scenario) -> Input {
    let mut machine = Machine::new(scenario);
    let done = run::direct(&mut machine);
    Input::of(&machine, &done.cedt)
}

fn good(name: &str) -> Input {
    left(&Scenario::built_in(name).unwrap())
}

/// A machine whose registers a test writes: hb0 with two ports and hb1 with one, as it was on QEMU,
/// and a third port below hb0; windows of hb0 alone, and of both at 256 B.
fn bare() -> Input {
    const TEXT: &str = r#"
        description = "registers by hand"
        bridge = [{ name = "hb0", uid = 12 }, { name = "hb1", uid = 222 }]
        port = [
            { name = "rp0", below = "hb0", number = 0 },
            { name = "rp1", below = "hb0", number = 1 },
            { name = "rp2", below = "hb1", number = 0 },
            { name = "rp3", below = "hb0", number = 2 },
        ]
        device = [
            { name = "mem0", below = "rp0", volatile = "512MiB" },
            { name = "mem1", below = "rp1", volatile = "512MiB" },
            { name = "mem2", below = "rp2", volatile = "512MiB" },
            { name = "mem3", below = "rp3", volatile = "512MiB" },
        ]
        [[window]]
        targets = ["hb0"]
        size = "4GiB"
        [[window]]
        targets = ["hb0", "hb1"]
        granularity = "256"
        size = "4GiB"
    "#;
    let machine = Machine::new(&Scenario::parse(TEXT, "bare").unwrap());
    let mut input = Input::of(&machine, &[]);
    for device in &mut input.devices {
        hdm(&mut device.registers).global_control = 2;
    }
    input
}

/// Bases of the windows of [`bare`].
const W0: u64 = 4 * GIB;
const W1: u64 = 8 * GIB;

fn hdm(registers: &mut Registers) -> &mut HdmImage {
    match registers {
        Registers::Hdm(image) => image,
        other => panic!("{other:?}"),
    }
}

fn device(input: &mut Input, device: usize, decoder: usize) -> &mut DecoderImage {
    &mut hdm(&mut input.devices[device].registers).decoders[decoder]
}

fn bridge(input: &mut Input, bridge: usize, decoder: usize) -> &mut DecoderImage {
    &mut hdm(&mut input.bridges[bridge].registers).decoders[decoder]
}

/// Committed and locked, host-only, with these ways and this granularity.
const COMMITTED: u32 = 0x1700;

fn image(base: u64, size: u64, control: u32, route: u64) -> DecoderImage {
    DecoderImage { control, ..DecoderImage::default() }
        .with_base(base)
        .with_size(size)
        .with_targets(route.to_le_bytes())
}

/// Where the nth record of a kind is in a CEDT.
fn record(cedt: &[u8], kind: u8, nth: usize) -> usize {
    let mut at = 36;
    let mut left = nth;
    loop {
        let length = usize::from(u16::from_le_bytes([cedt[at + 2], cedt[at + 3]]));
        if cedt[at] == kind {
            if left == 0 {
                return at;
            }
            left -= 1;
        }
        at += length;
    }
}

const CFMWS: u8 = 1;

fn poke(input: &mut Input, kind: u8, nth: usize, offset: usize, bytes: &[u8]) {
    let cedt = input.cedt.as_mut().unwrap();
    let at = record(cedt, kind, nth) + offset;
    cedt[at..at + bytes.len()].copy_from_slice(bytes);
}

fn append(input: &mut Input, record: &[u8]) {
    let cedt = input.cedt.as_mut().unwrap();
    cedt.extend_from_slice(record);
    let length = cedt.len() as u32;
    cedt[4..8].copy_from_slice(&length.to_le_bytes());
}

/// A window that is not in the way, with these codes.
struct Window {
    base: u64,
    size: u64,
    eniw: u8,
    arithmetic: u8,
    hbig: u32,
    targets: &'static [u32],
    length: Option<u16>,
}

const SPARE: Window = Window {
    base: 0x40_0000_0000,
    size: GIB,
    eniw: 0,
    arithmetic: 0,
    hbig: 0,
    targets: &[16],
    length: None,
};

impl Window {
    fn append(&self, input: &mut Input) {
        let length = self.length.unwrap_or(0x24 + 4 * self.targets.len() as u16);
        let mut bytes = vec![1, 0];
        bytes.extend(length.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.base.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend([self.eniw, self.arithmetic, 0, 0]);
        bytes.extend(self.hbig.to_le_bytes());
        bytes.extend([0x06, 0, 0, 0]);
        bytes.extend(self.targets.iter().flat_map(|uid| uid.to_le_bytes()));
        append(input, &bytes);
    }
}

fn chbs(uid: u32, version: u32, base: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0x20, 0];
    bytes.extend(uid.to_le_bytes());
    bytes.extend(version.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(base.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes
}

/// XOR maps for windows of 256 B.
fn cxims(maps: &[u64]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 8 + 8 * maps.len() as u8, 0, 0, 0, 0, maps.len() as u8];
    bytes.extend(maps.iter().flat_map(|map| map.to_le_bytes()));
    bytes
}

/// A broken machine.
struct Case {
    rule: Rule,
    severity: Severity,
    /// All kernels, or this one.
    kernel: Option<&'static str>,
    input: Input,
    /// Lines of the log, in order, among others; numbers as the linter gives them.
    log: &'static [&'static str],
}

fn refused(rule: Rule, input: Input, log: &'static [&'static str]) -> Case {
    Case { rule, severity: Severity::Refused, kernel: None, input, log }
}

fn degraded(rule: Rule, input: Input, log: &'static [&'static str]) -> Case {
    Case { severity: Severity::Degraded, ..refused(rule, input, log) }
}

fn noted(rule: Rule, input: Input) -> Case {
    Case { severity: Severity::Note, ..refused(rule, input, &[]) }
}

impl Case {
    fn on(self, kernel: &'static str) -> Self {
        Self { kernel: Some(kernel), ..self }
    }
}

fn broken(name: &str, change: impl FnOnce(&mut Input)) -> Input {
    let mut input = good(name);
    change(&mut input);
    input
}

fn by_hand(change: impl FnOnce(&mut Input)) -> Input {
    let mut input = bare();
    change(&mut input);
    input
}

/// One device, decoder 0 of it and of its bridge, as in the first line of each experiment.
fn one(input: &mut Input) {
    *device(input, 0, 0) = image(W0, 512 * MIB, COMMITTED, 0);
    *bridge(input, 0, 0) = image(W0, 512 * MIB, COMMITTED, 0);
}

/// Two devices, two bridges, 256 B.
fn two(input: &mut Input) {
    for at in [0, 2] {
        *device(input, at, 0) = image(W1, GIB, COMMITTED | 0x10, 0);
    }
    for at in [0, 1] {
        *bridge(input, at, 0) = image(W1, GIB, COMMITTED | 1, 0);
    }
}

/// A device that decodes its own addresses, below a bridge that has them from the window.
fn normalized(input: &mut Input) {
    *device(input, 0, 0) = image(0, 512 * MIB, COMMITTED, 0);
    *bridge(input, 0, 0) = image(W0, 512 * MIB, COMMITTED, 0);
}

fn dvsec(input: &mut Input, change: impl FnOnce(&mut cxl_lint::DeviceDvsec)) {
    change(input.devices[0].config.as_mut().unwrap().dvsec.as_mut().unwrap());
}

/// A line behind which stands `[6.12.117]` was seen in that kernel's log.
fn table_cases() -> Vec<Case> {
    let window = |window: Window, log| {
        move |rule| refused(rule, broken("one-device", |input| window.append(input)), log)
    };
    vec![
        refused(
            Rule::NoCedt,
            broken("one-device", |input| {
                input.cedt.as_mut().unwrap().truncate(36);
                input.devices.clear();
                input.bridges.clear();
            }),
            &[],
        ),
        noted(Rule::Checksum, broken("one-device", |input| input.cedt.as_mut().unwrap()[9] ^= 1)),
        // [6.12.95] [7.3.4]: the whole driver gives up.
        refused(
            Rule::CedtRecord,
            broken("one-device", |input| append(input, &[9, 0, 0, 0, 0, 0, 0, 0])),
            &["[CEDT:0x00] Invalid zero length", "[CEDT:0x01] Invalid zero length"],
        ),
        // [6.12.95] [7.3.4]: the first is taken.
        degraded(
            Rule::ChbsTwice,
            broken("one-device", |input| append(input, &chbs(16, 1, 0xE100_0000, 0x1_0000))),
            &[],
        ),
        // The mixture is said of a table alone, too.
        degraded(
            Rule::MixedHosts,
            Input {
                cedt: broken("one-device", |input| {
                    append(input, &chbs(99, 0, 0xE100_0000, 0x2000));
                })
                .cedt,
                ..Input::default()
            },
            &["acpi ACPI0016:00: Unsupported platform config, mixed Virtual Host and Restricted \
               CXL Host hierarchy."],
        ),
        // [6.12.95] [7.3.4]: a record of 16 bytes; what lies behind its end is read all the same.
        refused(
            Rule::WindowLength,
            broken("one-device", |input| {
                append(input, &[1, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0]);
            }),
            &[
                "cxl_acpi ACPI0017:00: CFMWS length 16 less than expected 40",
                "cxl_acpi ACPI0017:00: Failed to add decode range: [0x4000000000 - 0x3fffffffff] (-22)",
            ],
        ),
        refused(
            Rule::WindowSize,
            broken("one-device", |input| {
                append(input, &[1, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0]);
                append(input, &[9, 0, 8, 0, 1, 0, 0, 0]);
            }),
            &["cxl_acpi ACPI0017:00: CFMWS Window Size not 256MB aligned"],
        ),
        // [6.12.95] [7.3.4]: -22, and not the -6 of the function that misses them.
        refused(
            Rule::NoCxims,
            broken("four-way", |input| {
                Window { eniw: 2, arithmetic: 1, targets: &[16, 32, 48, 64], ..SPARE }
                    .append(input);
                append(input, &[2, 0, 16, 0, 0, 0, 0, 1, 0, 0x41, 0x40, 0, 0, 0, 0, 0]);
            }),
            &[
                "cxl_acpi ACPI0017:00: CXIMS nr_xormaps[1] expected[2]",
                "cxl_acpi ACPI0017:00: Failed to add decode range: \
                 [0x4000000000 - 0x403fffffff] (-22)",
            ],
        ),
        // By `cxl_parse_cxims`: the one map that two ways need is another in the later one.
        degraded(
            Rule::CximsTwice,
            broken("two-way", |input| {
                Window { eniw: 1, arithmetic: 1, targets: &[16, 32], ..SPARE }.append(input);
                append(input, &cxims(&[0x0001_0100, 0x0002_0200]));
                append(input, &cxims(&[0x0004_0100, 0x0002_0200]));
            }),
            &[],
        ),
        noted(
            Rule::CximsTwice,
            broken("two-way", |input| {
                Window { eniw: 1, arithmetic: 1, targets: &[16, 32], ..SPARE }.append(input);
                append(input, &cxims(&[0x0001_0100]));
                append(input, &cxims(&[0x0001_0100]));
            }),
        ),
        refused(
            Rule::NoChbs,
            broken("one-device", |input| {
                let registers = Registers::NoHdm;
                let name = "hb9".to_owned();
                input.bridges.push(Bridge { name, uid: Some(99), address: None, registers });
            }),
            &["acpi ACPI0016:01: No CHBS found for Host Bridge (UID 99)"],
        ),
        Case {
            kernel: None,
            ..refused(
                Rule::NoChbs,
                broken("one-device", |input| {
                    let registers = Registers::NoHdm;
                    let name = "hb9".to_owned();
                    input.bridges.push(Bridge { name, uid: Some(99), address: None, registers });
                    append(input, &chbs(99, 1, 0xE100_0000, 0x2000));
                }),
                &["acpi ACPI0016:01: No CHBS found for Host Bridge (UID 99)"],
            )
        }
        .on("6.16"),
        degraded(
            Rule::MixedHosts,
            broken("one-device", |input| append(input, &chbs(99, 0, 0xE100_0000, 0x2000))),
            &["acpi ACPI0016:00: Unsupported platform config, mixed Virtual Host and Restricted \
               CXL Host hierarchy."],
        ),
        noted(
            Rule::RestrictedHost,
            broken("one-device", |input| {
                let name = "hb9".to_owned();
                let registers = Registers::NoBlock;
                input.bridges.push(Bridge { name, uid: Some(99), address: None, registers });
                append(input, &chbs(99, 0, 0xE100_0000, 0x2000));
            }),
        ),
        // Logs of a kernel say this of a CHBS of version 0 whose RCRB reads 0.
        refused(
            Rule::Rcrb,
            broken("one-device", |input| {
                let (name, address) = ("hb9".to_owned(), Some("pci0000:63".to_owned()));
                let registers = Registers::Rcrb([0; 4]);
                input.bridges.push(Bridge { name, uid: Some(99), address, registers });
                append(input, &chbs(99, 0, 0xE100_0000, 0x2000));
            }),
            &["pci0000:63: Invalid Component Registers in RCRB"],
        ),
        window(
            Window { arithmetic: 2, ..SPARE },
            &[
                "cxl_acpi ACPI0017:00: CFMWS Unknown Interleave Arithmetic: 2",
                "cxl_acpi ACPI0017:00: Failed to add decode range: \
                 [0x4000000000 - 0x403fffffff] (-22)",
            ],
        )(Rule::WindowArithmetic),
        window(
            Window { base: SPARE.base + MIB, ..SPARE },
            &["cxl_acpi ACPI0017:00: CFMWS Base HPA not 256MB aligned"],
        )(Rule::WindowBase),
        window(
            Window { size: GIB + MIB, ..SPARE },
            &["cxl_acpi ACPI0017:00: CFMWS Window Size not 256MB aligned"],
        )(Rule::WindowSize),
        window(
            Window { eniw: 5, ..SPARE },
            &["cxl_acpi ACPI0017:00: CFMWS Interleave Ways (5) invalid"],
        )(Rule::WindowWays),
        window(
            Window { eniw: 1, ..SPARE },
            &["cxl_acpi ACPI0017:00: CFMWS length 40 less than expected 44"],
        )(Rule::WindowLength),
        window(
            Window { hbig: 7, ..SPARE },
            &["cxl_acpi ACPI0017:00: Failed to add decode range: \
               [0x4000000000 - 0x403fffffff] (-22)"],
        )(Rule::WindowGranularity),
        window(
            Window { base: 4 * GIB - 256 * MIB, size: 512 * MIB, ..SPARE },
            &["cxl_acpi ACPI0017:00: Failed to add decode range: [0xf0000000 - 0x10fffffff] (-16)"],
        )(Rule::WindowOverlap),
        window(
            Window { eniw: 1, arithmetic: 1, hbig: 2, targets: &[16, 16], ..SPARE },
            &["cxl_acpi ACPI0017:00: No CXIMS for HBIG 1024"],
        )(Rule::NoCxims),
        window(
            Window { targets: &[17], ..SPARE },
            &[
                "cxl root0: Failed to populate active decoder targets",
                "cxl_acpi ACPI0017:00: Failed to add decode range: \
                 [0x4000000000 - 0x403fffffff] (-6)",
            ],
        )(Rule::WindowTarget),
        noted(
            Rule::WindowShare,
            broken("two-way", |input| {
                Window { eniw: 1, size: 768 * MIB, targets: &[16, 32], ..SPARE }.append(input);
            }),
        ),
    ]
}

fn port_cases() -> Vec<Case> {
    vec![
        refused(
            Rule::NoDecoderRegisters,
            broken("one-device", |input| input.devices[0].registers = Registers::NoHdm),
            &[
                "cxl_port endpoint2: HDM decoder registers not found",
                "cxl_mem mem0: endpoint2 failed probe",
            ],
        ),
        refused(
            Rule::NoDecoderRegisters,
            broken("two-devices-one-bridge", |input| input.bridges[0].registers = Registers::NoHdm),
            &["cxl_port port1: HDM decoder capability not found"],
        ),
        refused(
            Rule::DecoderCount,
            broken("one-device", |input| {
                hdm(&mut input.bridges[0].registers).capability |= 0xF;
            }),
            // [7.3.4]: the length of a negative number of decoders.
            &[
                "cxl_port port1: Failed to request region",
                "cxl_port port1: Failed to map HDM capability.",
                "cxl_port port1: Failed to map HDM decoder capability",
            ],
        )
        .on("7.1"),
        degraded(
            Rule::DecoderCount,
            broken("one-device", |input| {
                let hdm = hdm(&mut input.bridges[0].registers);
                hdm.capability = hdm.capability & !0xF | 9;
                hdm.decoders = (0..20)
                    .map(|n| image(4 * GIB + n * 512 * MIB, 512 * MIB, COMMITTED, 0))
                    .collect();
            }),
            &[],
        )
        .on("7.0"),
        refused(
            Rule::AllOnes,
            by_hand(|input| {
                one(input);
                *device(input, 0, 1) = DecoderImage::from_dwords([u32::MAX; 8]);
            }),
            &["cxl_port endpoint3: decoder3.1: Invalid resource range"],
        ),
        // [6.12.117]
        refused(
            Rule::CommitOrder,
            by_hand(|input| *device(input, 0, 1) = image(W0, 512 * MIB, COMMITTED, 0)),
            &[
                "cxl_port endpoint3: decoder3.1: Committed out of order",
                "cxl_port endpoint3: Failed to initialize decoder3.1",
                "cxl_mem mem0: endpoint3 failed probe",
            ],
        ),
        // [6.12.117]
        refused(
            Rule::ZeroSize,
            by_hand(|input| {
                one(input);
                *device(input, 0, 1) = image(W0 + 512 * MIB, 0, COMMITTED, 0);
            }),
            &[
                "cxl_port endpoint3: decoder3.1: Committed with zero size",
                "cxl_port endpoint3: Failed to initialize decoder3.1",
                "cxl_mem mem0: endpoint3 failed probe",
            ],
        ),
        // [6.12.117]: the second attempt included.
        refused(
            Rule::ZeroSize,
            by_hand(|input| {
                one(input);
                *bridge(input, 0, 1) = image(W0 + 512 * MIB, 0, COMMITTED, 0);
            }),
            &[
                "cxl_port port1: decoder1.1: Committed with zero size",
                "cxl_port port1: Failed to initialize decoder1.1",
                "cxl_port port1: decoder1.0: Committed out of order",
                "cxl_port port1: Failed to initialize decoder1.0",
            ],
        )
        .on("6.12.117"),
        // [6.12.117]: a switch's port is made anew for a second attempt.
        refused(
            Rule::ZeroSize,
            broken("switch", |input| {
                let hdm = hdm(&mut input.switches[0].registers);
                let free = hdm.decoders.iter().position(|image| image.control == 0).unwrap();
                hdm.decoders[free] = image(64 * GIB, 0, COMMITTED, 0);
            }),
            &["Committed with zero size", "Failed to initialize decoder"],
        )
        .on("6.12.117"),
        // [6.12.117]
        refused(
            Rule::Ways,
            by_hand(|input| {
                one(input);
                device(input, 0, 1).control = 0x50;
            }),
            &[
                "cxl_port endpoint3: decoder3.1: Invalid interleave ways (ctrl: 0x1050)",
                "cxl_port endpoint3: Failed to initialize decoder3.1",
                "cxl_port endpoint3: probe with driver cxl_port failed with error -22",
                "cxl_mem mem0: endpoint3 failed probe",
            ],
        ),
        // [6.12.117]
        refused(
            Rule::Ways,
            by_hand(|input| {
                one(input);
                bridge(input, 0, 1).control = 0x50;
            }),
            &[
                "cxl_port port1: decoder1.1: Invalid interleave ways (ctrl: 0x1050)",
                "cxl_port port1: Failed to initialize decoder1.1",
                "cxl_port port1: probe with driver cxl_port failed with error -22",
                "cxl_port port1: decoder1.0: Committed out of order",
                "cxl_port port1: Failed to initialize decoder1.0",
            ],
        )
        .on("6.12.117"),
        // [6.12.117]
        refused(
            Rule::Granularity,
            by_hand(|input| {
                one(input);
                device(input, 0, 2).control = 0x7;
            }),
            &[
                "cxl_port endpoint3: decoder3.2: Invalid interleave granularity (ctrl: 0x1007)",
                "cxl_port endpoint3: Failed to initialize decoder3.2",
                "cxl_port endpoint3: probe with driver cxl_port failed with error -22",
                "cxl_mem mem0: endpoint3 failed probe",
            ],
        ),
        // [6.12.117]
        refused(
            Rule::Targets,
            by_hand(|input| {
                one(input);
                bridge(input, 0, 0).route_low = 9;
            }),
            &[
                "cxl_port port1: Failed to populate active decoder targets",
                "cxl_port port1: Failed to add decoder",
                "cxl_port port1: Failed to add decoder1.0",
                "cxl_port port1: decoder1.0: Committed out of order",
                "cxl_port port1: Failed to initialize decoder1.0",
            ],
        )
        .on("6.12.117"),
        refused(
            Rule::NoDvsec,
            broken("one-device", |input| input.devices[0].config.as_mut().unwrap().dvsec = None),
            &[
                "Device DVSEC not present, skip CXL.mem init",
                "cxl_mem mem0: endpoint2 failed probe",
            ],
        ),
        refused(
            Rule::NotMemCapable,
            broken("one-device", |input| dvsec(input, |dvsec| dvsec.capability &= !4)),
            &["Not MEM Capable", "cxl_mem mem0: endpoint2 failed probe"],
        ),
        refused(
            Rule::HdmCount,
            broken("one-device", |input| dvsec(input, |dvsec| dvsec.capability &= !0x30)),
            &[
                "cxl_port endpoint2: probe with driver cxl_port failed with error -22",
                "cxl_mem mem0: endpoint2 failed probe",
            ],
        ),
        refused(
            Rule::InfoValid,
            broken("one-device", |input| dvsec(input, |dvsec| dvsec.ranges[0][1] &= !1)),
            &[
                "Timeout awaiting memory range 0 valid after 1s.",
                "Media not active (-110)",
                "cxl_mem mem0: probe with driver cxl_mem failed with error -16",
            ],
        ),
        refused(
            Rule::MemoryActive,
            broken("one-device", |input| dvsec(input, |dvsec| dvsec.ranges[0][1] &= !2)),
            &["timeout awaiting memory active after 60 seconds", "Media not active (-110)"],
        ),
        refused(
            Rule::MediaStatus,
            broken("one-device", |input| input.devices[0].status = Some(0x10)),
            &["Media not active (-5)"],
        ),
        refused(
            Rule::Capacity,
            broken("one-device", |input| input.devices[0].capacity = Some((512 * MIB + 1, 0))),
            &[],
        ),
        // [6.12.117]
        refused(
            Rule::RangeOutside,
            by_hand(|input| {
                one(input);
                hdm(&mut input.devices[0].registers).global_control = 0;
                dvsec(input, |dvsec| dvsec.control |= 4);
            }),
            &[
                "Range register decodes outside platform defined CXL ranges.",
                "cxl_mem mem0: endpoint3 failed probe",
            ],
        ),
        degraded(
            Rule::Emulated,
            broken("one-device", |input| {
                hdm(&mut input.devices[0].registers).global_control = 0;
                dvsec(input, |dvsec| {
                    dvsec.control |= 4;
                    dvsec.ranges[0][2] = 1;
                    dvsec.ranges[0][3] = 0;
                });
            }),
            &["cxl_port endpoint2: Fallback map 1 range register"],
        )
        .on("7.1"),
        // [6.12.117]
        refused(
            Rule::SizeDivisible,
            by_hand(|input| {
                one(input);
                device(input, 0, 0).control = COMMITTED | 0x80;
            }),
            &[
                "cxl_port endpoint3: decoder3.0: invalid committed configuration size: 0x20000000 \
                 ways: 3",
                "cxl_port endpoint3: Failed to initialize decoder3.0",
                "cxl_mem mem0: endpoint3 failed probe",
            ],
        ),
        // [6.12.117]
        refused(
            Rule::DpaRange,
            by_hand(|input| {
                *device(input, 0, 0) = image(W0, GIB, COMMITTED, 0);
                *bridge(input, 0, 0) = image(W0, GIB, COMMITTED, 0);
            }),
            &[
                "cxl_port endpoint3: decoder3.0: failed to reserve allocation",
                "cxl_port endpoint3: decoder3.0: Failed to reserve DPA range 0x0 - 0x3fffffff\n \
                 (-16)",
                "cxl_port endpoint3: Failed to initialize decoder3.0",
                "cxl_port endpoint3: probe with driver cxl_port failed with error -16",
                "cxl_mem mem0: endpoint3 failed probe",
            ],
        ),
        // A skip over the border of the volatile partition, before 6.15.
        refused(
            Rule::DpaRange,
            by_hand(|input| {
                input.devices[0].capacity = Some((256 * MIB, 1024 * MIB));
                *device(input, 0, 0) = image(W0, 512 * MIB, COMMITTED, 0).with_skip(512 * MIB);
                *bridge(input, 0, 0) = image(W0, 512 * MIB, COMMITTED, 0);
            }),
            &["cxl_port endpoint3: decoder3.0: failed to reserve skipped space"],
        )
        .on("6.12.117"),
        noted(Rule::SkippedMemory, good("dpa-skip")).on("7.3.4"),
    ]
}

fn region_cases() -> Vec<Case> {
    vec![
        // [6.12.117]
        refused(
            Rule::NoWindow,
            by_hand(|input| {
                one(input);
                device(input, 0, 0).base_high = 0x10;
                bridge(input, 0, 0).base_high = 0x10;
            }),
            &["mem0:decoder3.0 no CXL window for range 0x1000000000:0x101fffffff"],
        ),
        refused(
            Rule::InterleaveCapability,
            by_hand(|input| {
                two(input);
                // HPA bits 11:8 cannot select.
                hdm(&mut input.devices[2].registers).capability &= !0x100;
            }),
            &["cxl region1: decoder5.0 iw: 2 ig: 256 is not supported"],
        ),
        refused(
            Rule::MemoryMode,
            by_hand(|input| {
                two(input);
                input.devices[2].capacity = Some((0, 512 * MIB));
            }),
            &["cxl region1: decoder5.0 region mode: 0 mismatch"],
        )
        .on("7.1"),
        // [6.12.117]
        refused(
            Rule::DecoderType,
            by_hand(|input| {
                one(input);
                device(input, 0, 0).control = 0x700;
            }),
            &["cxl region0: mem0:decoder3.0 type mismatch: 2 vs 3"],
        )
        .on("6.12.117"),
        refused(
            Rule::NotATarget,
            broken("four-bridges", |input| {
                let uid = input.bridges[1].uid.unwrap();
                poke(input, CFMWS, 0, 0x24, &uid.to_le_bytes());
            }),
            &["in target list of decoder0.0"],
        ),
        refused(
            Rule::Share,
            by_hand(|input| {
                two(input);
                input.devices[2].capacity = Some((4 * GIB, 0));
                device(input, 2, 0).control = COMMITTED;
            }),
            &["cxl region1: mem2:decoder5.0-size-0x40000000 * ways-2 + cache-0x0 != \
               region-size-0x40000000"],
        )
        .on("7.1"),
        // [6.12.117]
        refused(
            Rule::TooManyMembers,
            by_hand(|input| {
                one(input);
                *device(input, 1, 0) = image(W0, 512 * MIB, COMMITTED, 0);
            }),
            &["cxl_region region0: region already active"],
        ),
        // [6.12.117]: no word, and no memory.
        refused(
            Rule::MissingMember,
            by_hand(|input| {
                two(input);
                device(input, 2, 0).control = 0;
            }),
            &[],
        ),
        // [6.12.117]
        refused(
            Rule::Mapping,
            by_hand(|input| {
                one(input);
                bridge(input, 0, 0).control = 0;
            }),
            &["cxl_mem mem0: failed to find decoder mapping 0x100000000-0x11fffffff"],
        ),
        // [6.12.117]
        refused(
            Rule::Mapping,
            by_hand(|input| {
                one(input);
                *bridge(input, 0, 0) = image(W0, GIB, COMMITTED, 0);
            }),
            &["cxl_mem mem0: failed to find decoder mapping 0x100000000-0x11fffffff"],
        ),
        // [6.12.117]: it is the switch that finds nothing above it, once for each member.
        refused(
            Rule::Mapping,
            broken("switch-interleave", |input| {
                for bridge in &mut input.bridges {
                    for image in &mut hdm(&mut bridge.registers).decoders {
                        *image = DecoderImage::default();
                    }
                }
            }),
            &["pcieport 0000:11:00.0: failed to find decoder mapping 0x100000000-"],
        ),
        // [6.12.117]
        refused(
            Rule::PassThrough,
            good("pass-through"),
            &[
                "cxl_mem mem0: failed to find decoder mapping 0x100000000-0x11fffffff",
                "cxl_port endpoint2: failed to attach decoder2.0 to region0: -6",
            ],
        ),
        // [6.12.117]
        refused(
            Rule::TargetList,
            by_hand(|input| {
                one(input);
                bridge(input, 0, 0).route_low = 1;
            }),
            &["in target list of decoder1.0"],
        ),
        // [6.12.117]
        refused(
            Rule::TargetPosition,
            by_hand(|input| {
                for at in [0, 1] {
                    *device(input, at, 0) = image(W1, GIB, COMMITTED | 0x10, 0);
                }
                *bridge(input, 0, 0) = image(W1, GIB, COMMITTED | 0x11, 0x0100);
            }),
            &["cxl region1: mem1:decoder4.0 invalid target position for decoder0.1"],
        ),
        // [6.12.117]
        refused(
            Rule::HpaOrder,
            by_hand(|input| {
                let quarter = 256 * MIB;
                for (decoder, base) in [(0, W0 + quarter), (1, W0)] {
                    *device(input, 0, decoder) = image(base, quarter, COMMITTED, 0);
                    *bridge(input, 0, decoder) = image(base, quarter, COMMITTED, 0);
                }
            }),
            &[
                "cxl region2: endpoint3: HPA order violation \
                 region0:[mem 0x110000000-0x11fffffff flags 0x200] vs \
                 [mem 0x100000000-0x10fffffff flags 0x200]",
                "cxl region2: endpoint3: failed to allocate region reference",
            ],
        ),
        refused(
            Rule::TargetOverflow,
            broken("two-way-ports", |input| {
                let hdm = hdm(&mut input.bridges[0].registers);
                hdm.capability = hdm.capability & !0xF0 | 0x10;
            }),
            &["overflows targets: 1"],
        ),
        refused(
            Rule::TargetCount,
            by_hand(|input| {
                let base = W0 + 512 * MIB;
                for at in [0, 1, 3] {
                    *device(input, at, 0) = image(base, 768 * MIB, COMMITTED | 0x80, 0);
                }
                *bridge(input, 0, 0) = image(base, 768 * MIB, COMMITTED | 0x20, 0x0002_0100);
            }),
            &["port1: invalid target count 3"],
        )
        .on("7.1"),
        refused(
            Rule::GranularityProduct,
            by_hand(|input| {
                two(input);
                poke(input, CFMWS, 1, 0x1C, &[6]);
                for at in [0, 2] {
                    device(input, at, 0).control = COMMITTED | 0x16;
                }
            }),
            &["cxl region1: root0: invalid granularity calculation (16384 * 2)"],
        ),
        // [6.12.117]
        refused(
            Rule::ExpectedInterleave,
            by_hand(|input| {
                two(input);
                *bridge(input, 0, 0) = image(W1, GIB, COMMITTED | 0x11, 0x0100);
            }),
            &[
                "cxl_port_setup_targets expected iw: 1 ig: 512 \
                 [mem 0x200000000-0x23fffffff flags 0x200]",
                "cxl_port_setup_targets got iw: 2 ig: 512 state: enabled 0x200000000:0x23fffffff",
            ],
        ),
        // [6.12.117]: the granularity of one way is compared before 6.16.
        refused(
            Rule::ExpectedInterleave,
            by_hand(|input| {
                two(input);
                bridge(input, 0, 0).control = COMMITTED;
            }),
            &[
                "cxl_port_setup_targets expected iw: 1 ig: 512 \
                 [mem 0x200000000-0x23fffffff flags 0x200]",
                "cxl_port_setup_targets got iw: 1 ig: 256 state: enabled 0x200000000:0x23fffffff",
            ],
        )
        .on("6.12.117"),
        degraded(
            Rule::RegionOverlap,
            by_hand(|input| {
                one(input);
                *device(input, 1, 0) = image(W0 + 256 * MIB, 512 * MIB, COMMITTED, 0);
                *bridge(input, 0, 1) = image(W0 + 256 * MIB, 512 * MIB, COMMITTED, 1);
            }),
            &["mem1:decoder4.0: __construct_region region2 cannot insert resource"],
        ),
        // Both members say it; it is one thing.
        refused(
            Rule::LowMemoryHole,
            by_hand(|input| {
                two(input);
                poke(input, CFMWS, 1, 8, &0u64.to_le_bytes());
                poke(input, CFMWS, 1, 16, &(768 * MIB).to_le_bytes());
                for at in [0, 2] {
                    *device(input, at, 0) = image(0, GIB, COMMITTED | 0x10, 0);
                }
                for at in [0, 1] {
                    *bridge(input, at, 0) = image(0, GIB, COMMITTED | 1, 0);
                }
            }),
            &[
                "mem0:decoder3.0 no CXL window for range 0x0:0x3fffffff",
                "decoder3.0: failed to add to region: 0x0-0x3fffffff",
                "mem2:decoder5.0 no CXL window for range 0x0:0x3fffffff",
            ],
        ),
        noted(Rule::Normalized, by_hand(normalized)).on("7.1"),
        refused(
            Rule::SerialNumber,
            broken("persistent-interleave", |input| {
                for device in &mut input.devices {
                    device.config.as_mut().unwrap().serial = Some(0);
                }
            }),
            &["invalid or missing serial number"],
        ),
        noted(Rule::WindowKind, broken("one-device", |input| poke(input, CFMWS, 0, 0x20, &[0x0A]))),
        degraded(
            Rule::GranularityDiffers,
            by_hand(|input| {
                two(input);
                for at in [0, 2] {
                    device(input, at, 0).control = COMMITTED | 0x11;
                }
            }),
            &[],
        )
        .on("7.1"),
        noted(Rule::TargetsOnce, good("default")).on("6.18.3"),
        noted(Rule::Locked, good("one-device")),
    ]
}

fn cases() -> Vec<Case> {
    let mut cases = table_cases();
    cases.extend(port_cases());
    cases.extend(region_cases());
    cases
}

fn findings(input: &Input, kernel: Option<&str>) -> Vec<Finding> {
    match kernel {
        Some(kernel) => lint_for(input, kernel.parse().unwrap()),
        None => lint(input),
    }
}

fn rules(findings: &[Finding], severity: Severity) -> BTreeSet<Rule> {
    findings.iter().filter(|f| f.severity == severity).map(|f| f.rule).collect()
}

#[test]
fn each_broken_image_gives_its_rule_and_no_other_refusal() {
    for (index, case) in cases().iter().enumerate() {
        let findings = findings(&case.input, case.kernel);
        let name = format!("case {index}, {}: {findings:#?}", case.rule.name());
        let refused = rules(&findings, Severity::Refused);
        let expected = (case.severity == Severity::Refused).then_some(case.rule);
        assert_eq!(refused, expected.into_iter().collect(), "{name}");
        let found = findings.iter().find(|f| f.rule == case.rule && f.severity == case.severity);
        let found = found.unwrap_or_else(|| panic!("{name}"));
        let mut said = found.messages.iter().map(|message| message.to_string());
        for line in case.log {
            assert!(said.any(|said| said.contains(line)), "{line}\n{name}");
        }
        assert!(!found.found.is_empty() && !found.lost.is_empty(), "{name}");
    }
}

/// [6.12.95] [7.3.4]: decoder 1 skips the rest of the volatile partition, decoder 2 some of the persistent one;
/// and a skip over the border is two of them.
#[test]
fn kernels_from_6_15_on_warn_of_what_a_decoder_skips_and_go_on() {
    let over = by_hand(|input| {
        input.devices[0].capacity = Some((256 * MIB, 1024 * MIB));
        *device(input, 0, 0) = image(W0, 512 * MIB, COMMITTED, 0).with_skip(512 * MIB);
        *bridge(input, 0, 0) = image(W0, 512 * MIB, COMMITTED, 0);
    });
    let line = |range| format!("resource: Trying to free nonexistent resource <{range}>");
    for (input, ranges) in [
        (
            good("dpa-skip"),
            ["0x0000000010000000-0x000000001fffffff", "0x0000000030000000-0x000000003fffffff"],
        ),
        (over, ["0x0000000000000000-0x000000000fffffff", "0x0000000010000000-0x000000001fffffff"]),
    ] {
        for (kernel, forgets) in [("6.12", false), ("6.14", false), ("6.15", true), ("7.3", true)] {
            let found = findings(&input, Some(kernel));
            let found = found.iter().filter(|f| f.rule == Rule::SkippedMemory);
            let said: Vec<_> =
                found.flat_map(|f| f.messages.iter()).map(ToString::to_string).collect();
            let expected = if forgets { ranges.map(line).to_vec() } else { Vec::new() };
            assert_eq!(said, expected, "{kernel}");
        }
        let refused = findings(&input, Some("7.3")).iter().any(Finding::refused);
        assert!(!refused);
    }
    // The rest of the volatile partition has nothing behind it there; what decoder 2 skips has.
    let found = findings(&good("dpa-skip"), Some("7.3"));
    let lost = found.iter().filter(|f| f.rule == Rule::SkippedMemory).map(|f| f.lost.as_str());
    let free: Vec<_> = lost.map(|lost| lost.contains("counts as free")).collect();
    assert_eq!(free, [true, false], "{found:#?}");
}

#[test]
fn kernels_before_6_16_take_a_chbs_of_any_length() {
    let mut input = good("one-device");
    poke(&mut input, 0, 0, 0x18, &0x2000u64.to_le_bytes());
    for (kernel, refused) in [("6.12", false), ("6.15", false), ("6.16", true), ("7.1", true)] {
        let found = findings(&input, Some(kernel));
        assert_eq!(found.iter().any(|f| f.rule == Rule::NoChbs), refused, "{kernel}: {found:#?}");
    }
}

/// As they said themselves: 6.12.95 leaves the window out, 7.3.4 takes it without the target.
#[test]
fn a_window_of_an_unknown_bridge_is_left_out_before_6_18_and_taken_from_then_on() {
    let input = broken("one-device", |input| Window { targets: &[17], ..SPARE }.append(input));
    for (kernel, severity) in [
        ("6.12", Severity::Refused),
        ("6.17", Severity::Refused),
        ("6.18", Severity::Degraded),
        ("7.3", Severity::Degraded),
    ] {
        let found = findings(&input, Some(kernel));
        let found: Vec<_> = found.iter().filter(|f| f.rule == Rule::WindowTarget).collect();
        assert_eq!(found.len(), 1, "{kernel}");
        assert_eq!(found[0].severity, severity, "{kernel}");
        assert_eq!(found[0].messages.is_empty(), severity == Severity::Degraded, "{kernel}");
    }
}

/// A record of length 0 costs every bridge: what hangs below one is not looked at any more.
#[test]
fn a_record_without_length_costs_everything() {
    let input = broken("pass-through", |input| append(input, &[9, 0, 0, 0, 0, 0, 0, 0]));
    for kernel in [None, Some("6.12"), Some("7.3")] {
        let found = findings(&input, kernel);
        let found: Vec<_> = found.into_iter().filter(Finding::refused).collect();
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].rule, Rule::CedtRecord);
        assert!(found[0].lost.contains("no bridge"), "{}", found[0].lost);
    }
}

/// [6.12.95] [7.3.4]: four bytes at the end of a table are no record, whatever they say.
#[test]
fn a_header_at_the_very_end_is_not_looked_at() {
    let input = broken("one-device", |input| append(input, &[12, 0, 0, 0]));
    for kernel in [None, Some("6.12"), Some("7.3")] {
        assert!(!findings(&input, kernel).iter().any(Finding::refused));
    }
}

/// [6.12.95] [7.3.4]: "No CHBS found".
#[test]
fn a_chbs_of_the_highest_version_is_none() {
    let mut input = good("one-device");
    poke(&mut input, 0, 0, 8, &u32::MAX.to_le_bytes());
    let found = findings(&input, Some("7.3"));
    assert!(found.iter().any(|f| f.rule == Rule::NoChbs), "{found:#?}");
}

/// Linux asks whether one resource fits into the other, and it does.
#[test]
fn regions_in_each_other_are_no_secret_of_the_linters() {
    let input = broken("two-devices-one-bridge", |input| {
        let first = *device(input, 0, 0);
        let (base, size) = (first.base(), first.size());
        *device(input, 1, 0) = image(base, size / 2, COMMITTED, 0);
    });
    let found = findings(&input, Some("7.3"));
    let nested = found.iter().find(|f| f.rule == Rule::RegionOverlap);
    let nested = nested.unwrap_or_else(|| panic!("{found:#?}"));
    assert_eq!((nested.severity, nested.messages.len()), (Severity::Degraded, 0));
}

/// From 7.2 on dax_hmem registers what CXL does not claim (7.2.12 and 7.3.4 did, 6.12.95 did not).
#[test]
fn memory_that_cxl_refuses_may_come_online_all_the_same_from_7_2_on() {
    let lost = |kernel| {
        let found = findings(&good("pass-through"), Some(kernel));
        found.iter().find(|f| f.rule == Rule::PassThrough).unwrap().lost.clone()
    };
    for kernel in ["6.12", "7.1"] {
        assert!(lost(kernel).ends_with("is missing"), "{}", lost(kernel));
    }
    for kernel in ["7.2", "7.3"] {
        assert!(lost(kernel).contains("comes online all the same"), "{}", lost(kernel));
    }
}

/// What a device decodes then is the platform's business from 7.0 on, where it has the handler.
#[test]
fn normalized_addresses_are_refused_where_nobody_translates_them() {
    for (kernel, prm, is_refused) in [
        ("6.12", None, true),
        ("6.19", Some(true), true),
        ("7.0", Some(false), true),
        ("7.0", None, false),
        ("7.3", Some(true), false),
    ] {
        let mut input = by_hand(normalized);
        input.prm = prm;
        let refused = rules(&findings(&input, Some(kernel)), Severity::Refused);
        let expected = is_refused.then_some(Rule::NoWindow).into_iter().collect();
        assert_eq!(refused, expected, "{kernel} {prm:?}");
    }
}

/// Queued for 7.4, and refused by 7.3.4: those that are locked, wherever they stand.
#[test]
fn a_locked_decoder_without_size_is_refused_up_to_7_3() {
    let input = |control: u32| {
        by_hand(|input| {
            one(input);
            *device(input, 0, 0) = image(W0, 0, control, 0);
            *device(input, 0, 1) = image(W0, 512 * MIB, COMMITTED, 0);
        })
    };
    for (kernel, control, is_refused) in [
        ("7.3", COMMITTED, true),
        ("7.4", COMMITTED, false),
        // Committed, and not locked.
        ("7.4", COMMITTED & !0x100, true),
    ] {
        let refused = rules(&findings(&input(control), Some(kernel)), Severity::Refused);
        assert_eq!(refused.contains(&Rule::ZeroSize), is_refused, "{kernel}: {refused:?}");
    }
    let found = lint(&input(COMMITTED));
    let found = found.iter().find(|found| found.rule == Rule::ZeroSize).unwrap();
    assert_eq!(found.kernels.until.unwrap().to_string(), "7.4 (queued)");
}

/// Who has only the table cannot look at an RCRB, and has to hear what hangs on it.
#[test]
fn a_table_alone_with_a_cxl_1_1_host_says_what_hangs_on_it() {
    let mut input = good("one-device");
    append(&mut input, &chbs(99, 0, 0xFED0_0000, 0x2000));
    let alone = Input { cedt: input.cedt.clone(), ..Input::default() };
    for input in [input, alone] {
        let found = findings(&input, Some("7.3"));
        let rcrb = found.iter().find(|found| found.rule == Rule::Rcrb);
        let rcrb = rcrb.unwrap_or_else(|| panic!("{found:#?}"));
        assert_eq!(rcrb.severity, Severity::Degraded);
        assert!(rcrb.found.contains("UID 99 at 0xfed00000"), "{}", rcrb.found);
        assert!(found.iter().any(|found| found.rule == Rule::MixedHosts), "{found:#?}");
    }
}

#[test]
fn what_is_beyond_the_verified_kernels_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let first = |kernel| ran(&["lint", "default", "--kernel", kernel], directory.path()).0;
    assert!(first("9.9").contains("  kernel            9.9 (rules verified to 7.3)\n"));
    assert!(first("7.3.4").contains("  kernel            7.3.4\n"));
}

/// Positions of members come from the very lists that are compared afterwards, so no single fault
/// gets this far.
const UNREACHED: [Rule; 1] = [Rule::TargetOrder];

#[test]
fn of_two_cxims_the_maps_that_a_window_needs_are_held_against_each_other() {
    let of = |eniw: u8, targets, arithmetic, records: &[&[u64]]| {
        let input = broken("four-way", |input| {
            Window { eniw, arithmetic, targets, ..SPARE }.append(input);
            records.iter().for_each(|maps| append(input, &cxims(maps)));
        });
        let found = lint(&input).into_iter().filter(|it| it.rule == Rule::CximsTwice);
        let found = found.map(|it| (it.severity, it.component, it.found));
        found.collect::<Vec<_>>()
    };
    let (two, four) = (&[16, 32][..], &[16, 32, 48, 64][..]);
    let (one, other): (&[u64], &[u64]) = (&[0x1_0100, 0x2_0200], &[0x1_0100, 0x4_0200]);
    // Two ways need the first map alone, which is the same; a window by modulo needs none.
    assert_eq!(of(1, two, 1, &[one, other]), []);
    assert_eq!(of(2, four, 0, &[one, other]), []);
    let window = format!("window {}", good("four-way").reached().fabric.windows.len());
    let told = |maps: [&str; 2]| {
        let [first, last] = maps;
        format!("a CXIMS of 256 B with maps {first}, and a later one with {last}")
    };
    let maps = ["0x10100, 0x20200", "0x10100, 0x40200"];
    let expected = [(Severity::Degraded, window.clone(), told(maps))];
    assert_eq!(of(2, four, 1, &[one, other]), expected);
    // The last counts, wherever the odd one is.
    let expected = [(Severity::Degraded, window, told([maps[1], maps[0]]))];
    assert_eq!(of(2, four, 1, &[other, one, one]), expected);
    let alike = "2 CXIMS of 256 B with the same maps".to_owned();
    let expected = [(Severity::Note, "CEDT".to_owned(), alike)];
    assert_eq!(of(2, four, 1, &[one, one]), expected);
}

#[test]
fn every_rule_has_a_broken_image() {
    let tried: BTreeSet<Rule> = cases().iter().map(|case| case.rule).collect();
    let all: BTreeSet<Rule> =
        Rule::ALL.iter().copied().filter(|rule| !UNREACHED.contains(rule)).collect();
    assert_eq!(tried, all);
}

#[test]
fn good_machines_are_not_refused() {
    // What Linux is known to refuse, and where our firmware stops: at a table that is broken, and
    // with a locked decoder in the device that nothing leads to any more.
    let refused = ["pass-through", "no-such-target", "lock-lost"];
    for builtin in builtins() {
        let findings = lint(&good(builtin.name));
        let found = findings.iter().any(Finding::refused);
        assert_eq!(found, refused.contains(&builtin.name), "{}: {findings:#?}", builtin.name);
    }
}

#[test]
fn hand_made_machines_are_good_before_they_are_broken() {
    for (name, make) in [("one", one as fn(&mut Input)), ("two", two)] {
        let mut input = bare();
        make(&mut input);
        let findings = lint(&input);
        assert_eq!(rules(&findings, Severity::Refused), BTreeSet::new(), "{name}: {findings:#?}");
        assert_eq!(rules(&findings, Severity::Degraded), BTreeSet::new(), "{name}");
        assert_eq!(rules(&findings, Severity::Note), [Rule::Locked].into(), "{name}");
    }
}

#[test]
fn burnt_spares_are_refused_as_linux_does() {
    let builtin = cxl_model::scenario::builtin("one-device").unwrap();
    let text =
        format!("{}\n[policy]\nburn_spares = true\ntarget = \"specification\"\n", builtin.text);
    let findings = lint(&left(&Scenario::parse(&text, "burnt").unwrap()));
    assert_eq!(rules(&findings, Severity::Refused), [Rule::ZeroSize].into(), "{findings:#?}");
}

// ---- kernels ----

#[test]
fn a_finding_says_which_kernels_it_is_of() {
    // Committed decoders, HDM Decoder Enable clear, Mem_Enable set, the range in the window.
    let input = broken("one-device", |input| {
        hdm(&mut input.devices[0].registers).global_control = 0;
        dvsec(input, |dvsec| {
            dvsec.control |= 4;
            dvsec.ranges[0][2] = 1;
        });
    });
    let findings = lint(&input);
    let emulated = findings.iter().find(|finding| finding.rule == Rule::Emulated).unwrap();
    assert_eq!(emulated.kernels.since, Some(Change::EnableDecides));
    assert_eq!(emulated.kernels.until, None);
    assert_eq!(emulated.kernels.since.unwrap().to_string(), "7.0 (6.12.80, 6.18.21, 6.19.11)");
    for (kernel, emulates) in [
        ("6.12.79", false),
        ("6.12.80", true),
        ("6.12", true),
        ("6.12.117+deb12-cloud-amd64", true),
        ("6.13.12", false),
        ("6.18.20", false),
        ("6.18.21", true),
        ("7.0", true),
        ("7.2.12", true),
    ] {
        let found = rules(&findings_of(&input, kernel), Severity::Degraded);
        assert_eq!(found.contains(&Rule::Emulated), emulates, "{kernel}");
    }
}

#[test]
fn what_only_a_stable_series_does_is_said_too() {
    // 6.12.80 took over that HDM Decoder Enable decides, and not that one way has no granularity.
    let input = by_hand(|input| {
        one(input);
        hdm(&mut input.devices[0].registers).global_control = 0;
        dvsec(input, |dvsec| {
            dvsec.control |= 4;
            dvsec.ranges[0][2] = 1;
        });
    });
    let findings = lint(&input);
    let last = findings.last().unwrap();
    assert_eq!(last.rule, Rule::ExpectedInterleave, "{findings:#?}");
    assert_eq!(last.kernels.only.unwrap().to_string(), "6.12");
    let said: Vec<_> = last.messages.iter().map(ToString::to_string).collect();
    // [6.12.117]
    assert_eq!(
        said,
        [
            "cxl region0: pci0000:0c:port1 cxl_port_setup_targets expected iw: 1 ig: 4096 \
             [mem 0x100000000-0x11fffffff flags 0x200]",
            "cxl region0: pci0000:0c:port1 cxl_port_setup_targets got iw: 1 ig: 256 state: enabled \
             0x100000000:0x11fffffff",
        ]
    );
    let new = lint_for(&input, "7.1".parse().unwrap());
    assert_eq!(rules(&new, Severity::Refused), BTreeSet::new());
}

fn findings_of(input: &Input, kernel: &str) -> Vec<Finding> {
    findings(input, Some(kernel))
}

#[test]
fn what_one_kernel_says_is_what_all_kernels_say_of_it() {
    // The merged findings, cut down to one main-line release, are that release's.
    let releases = ["6.12.0", "6.15.0", "6.16.0", "6.18.0", "6.19.0", "7.0.0", "7.1.0"];
    for (index, case) in cases().iter().enumerate() {
        let mut merged = lint(&case.input);
        merged.retain(|finding| finding.kernels.only.is_none());
        for release in releases {
            let kernel: Kernel = release.parse().unwrap();
            let here = |kernels: cxl_lint::Kernels| {
                kernels.since.is_none_or(|since| since.release() <= kernel)
                    && kernels.until.is_none_or(|until| until.release() > kernel)
            };
            let cut: Vec<_> = merged.iter().filter(|finding| here(finding.kernels)).collect();
            let own = lint_for(&case.input, kernel);
            let keys = |findings: &[&Finding]| -> Vec<_> {
                let key = |f: &&Finding| (f.rule, f.component.clone(), f.decoder, f.found.clone());
                findings.iter().map(key).collect()
            };
            let own_keys = keys(&own.iter().collect::<Vec<_>>());
            assert_eq!(keys(&cut), own_keys, "case {index} {}, {release}", case.rule.name());
            for (cut, own) in cut.iter().zip(&own) {
                let lines = |f: &Finding| -> Vec<_> {
                    let said = f.messages.iter().filter(|message| here(message.kernels));
                    said.map(ToString::to_string).collect()
                };
                assert_eq!(lines(cut), lines(own), "case {index}, {release}");
            }
        }
    }
}

#[test]
fn what_is_no_kernel_is_refused_with_what_was_found() {
    for (text, error) in [
        ("", "expected a kernel version like 6.12 or 6.18.21, found \"\""),
        ("six", "expected a kernel version like 6.12 or 6.18.21, found \"six\""),
        ("6", "expected a kernel version like 6.12 or 6.18.21, found \"6\""),
        ("6.12.", "expected a kernel version like 6.12 or 6.18.21, found \"6.12.\""),
        ("6.+12", "expected a kernel version like 6.12 or 6.18.21, found \"6.+12\""),
        ("6.1.2.3", "expected a kernel version like 6.12 or 6.18.21, found \"6.1.2.3\""),
        ("6.11.9", "expected kernel 6.12 or newer, found 6.11.9"),
        ("5.10", "expected kernel 6.12 or newer, found 5.10"),
    ] {
        let found = text.parse::<Kernel>().unwrap_err().to_string();
        assert_eq!(found, error);
    }
}

// ---- the log ----

#[test]
fn a_log_says_the_same_under_other_numbers() {
    let input = by_hand(|input| {
        one(input);
        *device(input, 0, 1) = image(W0 + 512 * MIB, 0, COMMITTED, 0);
    });
    let findings = lint(&input);
    let message = &findings[0].messages[0];
    // [6.12.117]
    for line in [
        "cxl_port endpoint5: decoder5.1: Committed with zero size",
        "[    9.123456] cxl_port endpoint12: decoder12.1: Committed with zero size\r",
    ] {
        assert!(message.is_said_by(line), "{line}");
    }
    for line in [
        "cxl_port endpoint5: decoder5.2: Committed with zero size",
        "cxl_port endpoint5: decoder5.1: Committed out of order",
        "cxl_port port5: decoder5.1: Committed with zero size",
        "",
    ] {
        assert!(!message.is_said_by(line), "{line}");
    }
}

#[test]
fn addresses_in_a_log_may_differ_too() {
    let input = by_hand(|input| {
        two(input);
        *bridge(input, 0, 0) = image(W1, GIB, COMMITTED | 0x11, 0x0100);
    });
    let findings = lint(&input);
    let expected = findings[0].messages.iter().find(|m| m.text.contains("expected")).unwrap();
    // [6.12.117], with the range of this machine.
    assert!(expected.is_said_by(
        "cxl region1: pci0000:de:port2 cxl_port_setup_targets expected iw: 1 ig: 512 \
         [mem 0x200000000-0x23fffffff flags 0x200]"
    ));
    assert!(!expected.is_said_by(
        "cxl region1: pci0000:de:port2 cxl_port_setup_targets expected iw: 2 ig: 512 \
         [mem 0x200000000-0x23fffffff flags 0x200]"
    ));
}

// ---- text ----

#[test]
fn the_report_of_a_pass_through_bridge() {
    insta::with_settings!({
        snapshot_path => "../../snapshots/lint",
        prepend_module_to_snapshot => false,
    }, {
        insta::assert_snapshot!("pass-through", text("pass-through", good("pass-through"), None));
    });
}

#[test]
fn the_report_of_decoders_that_are_not_enabled() {
    let input = broken("one-device", |input| {
        hdm(&mut input.devices[0].registers).global_control = 0;
        dvsec(input, |dvsec| {
            dvsec.control |= 4;
            dvsec.ranges[0][2] = 1;
        });
    });
    insta::with_settings!({
        snapshot_path => "../../snapshots/lint",
        prepend_module_to_snapshot => false,
    }, {
        insta::assert_snapshot!("not-enabled", text("not-enabled", input, None));
    });
}

fn text(subject: &str, input: Input, kernel: Option<Kernel>) -> String {
    let findings = lint(&input);
    let unchecked = unchecked(&input);
    Report { subject: format!("lint {subject}"), kernel, findings, unchecked, remarks: vec![] }
        .to_string()
}

// ---- no input is too bad ----

fn dwords(count: usize) -> impl Strategy<Value = Vec<u32>> {
    // Small numbers and single bits reach more than noise does.
    let dword = prop_oneof![any::<u32>(), 0u32..32, Just(0x1700), Just(0x1710), Just(u32::MAX)];
    proptest::collection::vec(dword, count)
}

fn registers() -> impl Strategy<Value = Registers> {
    prop_oneof![
        Just(Registers::Unknown),
        Just(Registers::NoBlock),
        proptest::array::uniform4(any::<u32>()).prop_map(Registers::Rcrb),
        Just(Registers::NoHdm),
        (any::<u32>(), any::<u32>(), dwords(8 * 4)).prop_map(|(capability, global, dwords)| {
            let decoders = dwords
                .chunks_exact(8)
                .map(|dwords| DecoderImage::from_dwords(dwords.try_into().unwrap()));
            let decoders = decoders.collect();
            Registers::Hdm(HdmImage { capability, global_control: global, decoders })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_registers_end_in_findings(
        all in proptest::collection::vec(registers(), 7),
        places in proptest::collection::vec(0usize..6, 12),
        cedt in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
        dvsec in dwords(14),
    ) {
        let mut input = good("switch-interleave");
        if let Some(noise) = cedt {
            input.cedt = Some(noise);
        }
        let mut registers = all.into_iter();
        for bridge in &mut input.bridges {
            bridge.registers = registers.next().unwrap_or_default();
        }
        for switch in &mut input.switches {
            switch.registers = registers.next().unwrap_or_default();
        }
        for device in &mut input.devices {
            device.registers = registers.next().unwrap_or_default();
        }
        if let Some(config) = input.devices[0].config.as_mut().and_then(|c| c.dvsec.as_mut()) {
            config.capability = dvsec[0] as u16;
            config.control = dvsec[1] as u16;
            config.ranges = [2, 6, 10].map(|at| dvsec[at..at + 4].try_into().unwrap());
        }
        // Topologies that cannot be: switches below themselves, ports of nothing.
        let mut places = places.into_iter();
        for port in &mut input.ports {
            match places.next() {
                Some(place @ 0..2) => port.parent = Parent::Switch(place),
                Some(2) => port.parent = Parent::Bridge(9),
                _ => {}
            }
        }
        input.switches.push(Switch {
            name: "loop".to_owned(),
            port: input.ports.len(),
            address: None,
            registers: Registers::NoHdm,
        });
        let parent = Parent::Switch(input.switches.len() - 1);
        input.ports.push(Port { name: "loop0".to_owned(), parent, number: 0, address: None });
        let _ = lint(&input);
        let _ = lint_for(&input, "6.12".parse().unwrap());
        let _ = unchecked(&input);
    }

    #[test]
    fn arbitrary_decoders_in_a_good_machine_end_in_findings(
        decoder in dwords(8), at in 0usize..4, which in 0usize..3,
    ) {
        let mut input = good("four-way");
        let image = DecoderImage::from_dwords(decoder.try_into().unwrap());
        match which {
            0 => *bridge(&mut input, at % 2, at / 2) = image,
            _ => *device(&mut input, at, which - 1) = image,
        }
        for finding in lint(&input) {
            prop_assert!(!finding.found.is_empty());
        }
    }
}

// ---- files ----

fn ran(arguments: &[&str], directory: &Path) -> (String, String, i32) {
    program::ran(program::command(arguments).current_dir(directory).stdin(Stdio::null()))
}

/// The files of a machine, and the set that names them.
fn write_set(directory: &Path, input: &Input) -> PathBuf {
    let mut set = String::from("images = \"written by a test\"\ncedt = \"cedt\"\n");
    fs::write(directory.join("cedt"), with_checksum(input.cedt.clone().unwrap())).unwrap();
    let registers = |name: &str, registers: &Registers| match registers {
        Registers::Hdm(image) => {
            fs::write(directory.join(name), image.bytes()).unwrap();
            format!("registers = \"{name}\"\n")
        }
        Registers::NoHdm | Registers::NoBlock | Registers::Rcrb(_) => {
            "registers = \"none\"\n".to_owned()
        }
        Registers::Unknown => String::new(),
    };
    for bridge in &input.bridges {
        let lines = registers(&bridge.name, &bridge.registers);
        set += &format!(
            "[[bridge]]\nname = \"{}\"\nuid = {}\n{lines}",
            bridge.name,
            bridge.uid.unwrap()
        );
    }
    for port in &input.ports {
        let below = match port.parent {
            Parent::Bridge(bridge) => &input.bridges[bridge].name,
            Parent::Switch(switch) => &input.switches[switch].name,
        };
        let (name, number) = (&port.name, port.number);
        set += &format!("[[port]]\nname = \"{name}\"\nbelow = \"{below}\"\nnumber = {number}\n");
    }
    for switch in &input.switches {
        let lines = registers(&switch.name, &switch.registers);
        let (name, below) = (&switch.name, &input.ports[switch.port].name);
        set += &format!("[[switch]]\nname = \"{name}\"\nbelow = \"{below}\"\n{lines}");
    }
    for device in &input.devices {
        let lines = registers(&device.name, &device.registers);
        let (name, below) = (&device.name, &input.ports[device.port.unwrap()].name);
        set += &format!("[[device]]\nname = \"{name}\"\nbelow = \"{below}\"\n{lines}");
        let (volatile, persistent) = device.capacity.unwrap();
        set += &format!("volatile = \"{volatile}\"\npersistent = \"{persistent}\"\n");
    }
    let path = directory.join("set.toml");
    fs::write(&path, set).unwrap();
    path
}

fn with_checksum(mut table: Vec<u8>) -> Vec<u8> {
    table[9] = 0;
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = sum.wrapping_neg();
    table
}

#[test]
fn an_image_set_is_held_to_the_same_rules_as_the_machine_it_was_taken_of() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["switch", "four-way", "pass-through"] {
        let mut input = good(name);
        let path = write_set(directory.path(), &input);
        // A set has what was put into it; files have no addresses and no configuration space.
        for device in &mut input.devices {
            (device.address, device.config, device.status) = (None, None, None);
        }
        let addresses = input.bridges.iter_mut().map(|bridge| &mut bridge.address);
        let addresses = addresses.chain(input.ports.iter_mut().map(|port| &mut port.address));
        for address in addresses.chain(input.switches.iter_mut().map(|s| &mut s.address)) {
            *address = None;
        }
        input.cedt = Some(with_checksum(input.cedt.unwrap()));
        let text = fs::read_to_string(&path).unwrap();
        let found = Input::of_set(&text, &path, &mut |file| fs::read(file)).unwrap();
        assert_eq!(found, input, "{name}");
        let (output, complaints, code) = ran(&["lint", "set.toml"], directory.path());
        assert_eq!(code, i32::from(name == "pass-through"), "{name}: {output}{complaints}");
        assert!(output.contains("without configuration space of"), "{output}");
    }
}

#[test]
fn dumps_alone_say_what_nobody_could_look_at() {
    let directory = tempfile::tempdir().unwrap();
    let input = by_hand(|input| {
        one(input);
        *device(input, 0, 1) = image(W0 + 512 * MIB, 0, COMMITTED, 0);
    });
    let Registers::Hdm(image) = &input.devices[0].registers else { panic!() };
    fs::write(directory.path().join("mem.bin"), image.bytes()).unwrap();
    fs::write(directory.path().join("cedt"), with_checksum(input.cedt.clone().unwrap())).unwrap();
    let (output, complaints, code) = ran(&["lint", "mem.bin"], directory.path());
    assert_eq!(code, 1, "{complaints}");
    assert!(output.contains("decoder1.1: Committed with zero size"), "{output}");
    assert!(output.contains("without CEDT: "), "{output}");
    let (output, _, code) = ran(&["lint", "cedt"], directory.path());
    assert_eq!(code, 0, "{output}");
    assert!(output.contains("without host bridges: "), "{output}");
    // A bridge's registers do not say which bridge it is.
    let Registers::Hdm(image) = &input.bridges[0].registers else { panic!() };
    fs::write(directory.path().join("hb.bin"), image.bytes()).unwrap();
    let (output, _, code) = ran(&["lint", "hb.bin", "cedt"], directory.path());
    assert_eq!(code, 0, "{output}");
    assert!(output.contains("without UID of hb: "), "{output}");
    let (output, _, code) = ran(&["lint", "mem.bin", "cedt", "--json"], directory.path());
    assert_eq!(code, 1);
    let report: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(report["findings"][0]["rule"], "zero-size");
    assert_eq!(report["findings"][0]["severity"], "refused");
    assert_eq!(report["findings"][0]["decoder"], 1);
    assert_eq!(report["findings"][0]["messages"][0]["level"], "warning");
    assert_eq!(
        report["findings"][0]["messages"][0]["line"],
        "cxl_port endpoint1: decoder1.1: Committed with zero size"
    );
    assert_eq!(report["findings"][0]["since"], serde_json::Value::Null);
    assert_eq!(report["findings"][0]["wants"], "A committed decoder has a size.");
}

#[test]
fn what_is_no_input_is_one_line_and_exit_2() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    file("no-name.toml", "images = \"x\"\n[[device]]\nbelow = \"port7\"\n");
    file("no-file.toml", "images = \"x\"\ncedt = \"gone\"\n");
    file(
        "twice.toml",
        "images = \"x\"\n[[bridge]]\nuid = 1\nname = \"a\"\n[[bridge]]\nuid = 2\nname = \"a\"\n",
    );
    file("uid.toml", "images = \"x\"\n[[bridge]]\nuid = 1\n[[bridge]]\nuid = 1\n");
    let bridge = "images = \"x\"\n[[bridge]]\naddress = ";
    file("root.toml", &format!("{bridge}\"0000:0c:00.0\"\n"));
    let device = "[[device]]\naddress = ";
    file("foo.toml", &format!("{bridge}\"pci0000:0c\"\n{device}\"foo\"\n"));
    let twice = format!("{device}\"0d:00.0\"\n{device}\"0000:0d:00.0\"\n");
    file("there.toml", &format!("{bridge}\"ACPI0016:00\"\n{twice}"));
    file("key.toml", "images = \"x\"\n[[bridge]]\nuid = 1\ncolour = 3\n");
    file("status.toml", "images = \"x\"\n[[device]]\nstatus = 0x100000014\n");
    fs::create_dir(directory.path().join("sets")).unwrap();
    file("sets/kind.toml", "images = \"x\"\n[[device]]\nregisters = \"config\"\n");
    let mut space = [0; 256];
    space[..4].copy_from_slice(&[0x86, 0x80, 0x93, 0x0D]);
    fs::write(directory.path().join("sets/config"), space).unwrap();
    file("noise", "no dump at all\n");
    for (arguments, error) in [
        (&["lint"][..], "required"),
        (&["lint", "defualt"], "did you mean default?"),
        (&["lint", "gone.bin"], "gone.bin"),
        (&["lint", "default", "--kernel", "6.11"], "expected kernel 6.12 or newer, found 6.11"),
        (&["lint", "no-name.toml"], "found \"port7\""),
        (&["lint", "no-file.toml"], "no-file.toml:2:8: gone: "),
        (&["lint", "twice.toml"], "twice.toml:7:8: expected different names, found \"a\" twice"),
        (
            &["lint", "key.toml"],
            "key.toml:4:1: expected one of the keys of `bridge` (`name`, `uid`, `address`, `registers` or \
             `rcrb`), found `colour`",
        ),
        (
            &["lint", "status.toml"],
            "status.toml:3:10: `status`: expected a whole number from 0 to 4294967295, found 0x100000014",
        ),
        (
            &["lint", "uid.toml"],
            "uid.toml:5:7: expected a UID that is free, found 1, which hb0 has",
        ),
        (
            &["lint", "root.toml"],
            "root.toml:3:11: `address`: expected a root bus as Linux prints it, such as pci0000:0c, found \
             \"0000:0c:00.0\"",
        ),
        (
            &["lint", "foo.toml"],
            "foo.toml:5:11: `address`: expected a PCI address as Linux prints it, such as 0000:0d:00.0, \
             found \"foo\"",
        ),
        (
            &["lint", "there.toml"],
            "there.toml:7:11: expected an address that is free, found 0000:0d:00.0, which mem0 has",
        ),
        (
            &["lint", "default", "one-device"],
            "default: expected a dump, a table, or what Linux shows",
        ),
        (&["lint", "uid.toml", "noise"], "uid.toml: expected a dump, a table, or what Linux shows"),
        (&["lint", "sets/kind.toml"], "sets/kind.toml:3:13: sets/config: expected a component"),
        (&["lint", "noise"], "noise: "),
        (&["lint", "noise", "--kind", "hdm"], "noise: "),
        (&["lint", "-"], "standard input: offset 0x0: expected a register dump, found nothing"),
        (&["lint", "noise", "default"], "default: expected a dump"),
    ] {
        let (output, complaints, code) = ran(arguments, directory.path());
        assert_eq!((code, output.as_str()), (2, ""), "{arguments:?}: {complaints}");
        assert!(complaints.contains(error), "{arguments:?}: {complaints}");
    }
}

#[test]
fn each_broken_record_is_named() {
    let input = broken("one-device", |input| {
        append(input, &[1, 0, 8, 0, 0, 0, 0, 0]);
        append(input, &[0, 0, 4, 0]);
        append(input, &[9, 0, 0, 0, 0, 0, 0, 0]);
    });
    let found = lint(&input).into_iter().filter(|finding| finding.rule == Rule::CedtRecord);
    let found: Vec<_> = found.map(|finding| finding.found).collect();
    // One CHBS and a window of one target come before them; a short window is one all the same, and so is
    // a short CHBS.
    assert_eq!(found, ["record at 0x78: length 0"]);
}

/// Nobody's machine, and everybody's fuzzer: work must not grow with the square of such a table.
#[test]
fn a_table_of_many_records_is_looked_at_in_part() {
    const RECORDS: u64 = 300_000;
    let mut input = Input { cedt: good("one-device").cedt, ..Input::default() };
    input.cedt.as_mut().unwrap().truncate(36);
    let mut window = Input { cedt: input.cedt.clone(), ..Input::default() };
    SPARE.append(&mut window);
    let window = window.cedt.unwrap().split_off(36);
    let mut records = Vec::new();
    for number in 0..RECORDS {
        let at = records.len();
        records.extend(&window);
        // No multiple of 256 MiB: each is refused.
        records[at + 8..at + 16].copy_from_slice(&(number << 28 | 1).to_le_bytes());
    }
    append(&mut input, &records);
    let findings = lint(&input);
    let refused = findings.iter().filter(|finding| finding.rule == Rule::WindowBase).count();
    assert_eq!(refused, 4096);
    let missing: Vec<_> = unchecked(&input).into_iter().map(|gap| gap.missing).collect();
    assert_eq!(missing, ["CEDT records behind the first 4096", "host bridges"]);
}

/// Linux takes a region's granularity from the member that comes first, be it the wrong one.
#[test]
fn of_a_set_the_member_that_differs_from_its_window_is_accused() {
    for wrong in [0, 2] {
        let input = by_hand(|input| {
            two(input);
            device(input, wrong, 0).control = COMMITTED | 0x11;
        });
        let found = findings(&input, Some("7.1"));
        let found: Vec<_> =
            found.iter().filter(|found| found.rule == Rule::GranularityDiffers).collect();
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].component, input.devices[wrong].name);
        assert_eq!(found[0].found, "granularity 512 B, the set has 256 B");
    }
}

/// Rows as `lspci` prints them.
fn lspci(address: &str, space: &[u8]) -> String {
    let rows = space.chunks(16).enumerate().map(|(line, bytes)| {
        let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:02x}: {}\n", 16 * line, bytes.join(" "))
    });
    format!("{address} CXL: a function\n{}\n", rows.collect::<String>())
}

#[test]
fn what_nobody_could_judge_is_no_good_end() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
    let mut table = with_checksum(good("one-device").cedt.unwrap());
    file("cedt", &table);
    table[..4].copy_from_slice(b"CEDX");
    file("cedx", &with_checksum(table));
    file("iomem", b"00000000-00000fff : Reserved\n00001000-0009ffff : System RAM\n");
    let mut network = [0; 64];
    network[..12].copy_from_slice(&[0x86, 0x80, 0xD3, 0x10, 0, 0, 0, 0, 0, 0, 0, 2]);
    file("nic", lspci("00:02.0", &network).as_bytes());
    for name in ["cedx", "iomem", "nic"] {
        for command in ["lint", "inspect"] {
            let (output, complaints, code) = ran(&[command, name], directory.path());
            assert_eq!((code, output.as_str()), (2, ""), "{command} {name}: {complaints}");
            assert!(complaints.contains("found nothing"), "{command} {name}: {complaints}");
        }
    }
    // A table alone can be held to rules, and is no machine that everything is known of.
    assert_eq!(ran(&["lint", "cedt"], directory.path()).2, 0);
    let (output, _, code) = ran(&["inspect", "cedt"], directory.path());
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("not given         registers of any component"), "{output}");
}

#[test]
fn configuration_space_that_was_shown_in_part_decides_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut machine = Machine::new(&Scenario::built_in("one-device").unwrap());
    run::direct(&mut machine);
    let space = machine.function(cxl_model::scenario::Place::Device(0)).unwrap().bytes();
    for bytes in [64, 256] {
        let text = lspci("0000:0d:00.0", &space[..bytes]);
        fs::write(directory.path().join("mem0.lspci"), text).unwrap();
        let (output, complaints, code) = ran(&["lint", "mem0.lspci"], directory.path());
        assert_eq!(code, 0, "{output}{complaints}");
        assert!(output.contains("without configuration space of 0000:0d:00.0: "), "{output}");
        assert!(output.contains(&format!("{bytes} bytes of configuration space")), "{output}");
        let (output, _, code) = ran(&["inspect", "mem0.lspci"], directory.path());
        assert_eq!(code, 1, "{output}");
        assert!(output.contains("locked            nobody can say"), "{output}");
    }
}

#[test]
fn decoders_that_read_as_all_ones_are_not_counted_as_locked() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("board");
    let (_, complaints, code) = ran(&["dump", "one-device", "board"], directory.path());
    assert_eq!(code, 0, "{complaints}");
    // The structure that does not answer, in a component that does.
    let mut bytes = fs::read(folder.join("mem0.bin")).unwrap();
    let (image, _) = Dump::read(&bytes, Options::default()).unwrap().hdm().unwrap();
    let structure = image.bytes();
    let at = bytes.windows(structure.len()).position(|part| part == structure).unwrap();
    bytes[at..].fill(0xFF);
    fs::write(folder.join("mem0.bin"), &bytes).unwrap();
    let (output, _, code) = ran(&["inspect", "board"], directory.path());
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("not given         registers of mem0"), "{output}");
    assert!(output.contains("decoders in use   1, 1 of them locked"), "{output}");
    assert!(output.contains("registers in mem0.bin"), "{output}");
    assert!(output.contains("they read as all-ones: nothing answers"), "{output}");
    assert!(!output.contains("32 decoders"), "{output}");
    // And alone.
    let (output, complaints, code) = ran(&["inspect", "board/mem0.bin"], directory.path());
    assert_eq!(code, 1, "{output}{complaints}");
    assert!(output.contains("board/mem0.bin: registers: they read as all-ones"), "{output}");
    assert!(output.contains("decoders in use   0, 0 of them locked"), "{output}");
}

#[test]
fn what_a_verdict_rests_on_is_in_every_form_of_it() {
    let remark = "the firmware stopped (plan: ";
    let directory = tempfile::tempdir().unwrap();
    for (format, mark) in [("sarif", "\"level\": \"note\""), ("junit", "<system-out>")] {
        let arguments = ["lint", "window-too-small", "--format", format];
        let (output, complaints, _) = ran(&arguments, directory.path());
        assert!(output.contains(remark), "{format}: {output}{complaints}");
        assert!(output.contains(mark), "{format}: {output}");
    }
}

#[test]
fn a_table_that_linux_reads_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let mut cedt = good("one-device").cedt.unwrap();
    let has = cedt[9];
    cedt[9] ^= 1;
    fs::write(directory.path().join("cedt"), &cedt).unwrap();
    let (output, complaints, code) = ran(&["lint", "cedt"], directory.path());
    assert_eq!(code, 0, "{complaints}");
    let line = format!(
        "  | ACPI BIOS Warning (bug): Incorrect checksum in table [CEDT] - 0x{:02X}, should be \
         0x{has:02X}\n",
        has ^ 1
    );
    assert!(output.contains(&line), "{output}");
}

#[test]
fn of_many_functions_a_device_is_the_one_at_its_address() {
    let directory = tempfile::tempdir().unwrap();
    let mut machine = Machine::new(&Scenario::built_in("two-devices-one-bridge").unwrap());
    run::direct(&mut machine);
    let mut text = String::new();
    for (device, address) in [(0, "0d:00.0"), (1, "0e:00.0")] {
        let space = machine.function(cxl_model::scenario::Place::Device(device)).unwrap().bytes();
        text += &format!("{address} CXL: memory\n");
        for (line, bytes) in space.chunks(16).enumerate() {
            let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            text += &format!("{:02x}: {}\n", 16 * line, bytes.join(" "));
        }
        text += "\n";
    }
    fs::write(directory.path().join("lspci"), text).unwrap();
    let set = |address: &str| {
        let set = format!("images = \"x\"\n[[device]]\nconfig = \"lspci\"\n{address}");
        let path = directory.path().join("set.toml");
        Input::of_set(&set, &path, &mut |file| fs::read(file))
    };
    for (given, found) in [("", "0000:0d:00.0"), ("address = \"0000:0e:00.0\"", "0000:0e:00.0")] {
        let input = set(given).unwrap();
        assert_eq!(input.devices[0].address.as_deref(), Some(found));
        assert_eq!(input.devices[0].config.as_ref().unwrap().class, 0x05_02_10);
    }
    let error = set("address = \"0000:0f:00.0\"").unwrap_err().to_string();
    let file = directory.path().join("lspci");
    let set = directory.path().join("set.toml");
    let (set, file) = (set.display(), file.display());
    let expected = format!("{set}:3:10: {file}: expected the function 0000:0f:00.0, found others");
    assert_eq!(error, expected);
}

#[test]
fn a_dump_may_come_through_a_pipe() {
    let input = good("one-device");
    let Registers::Hdm(image) = &input.devices[0].registers else { panic!() };
    for name in ["-", "/dev/stdin"] {
        let arguments = ["lint", name, "--kind", "hdm", "--component", "device"];
        let (text, _, code) = program::fed(&mut program::command(&arguments), &image.bytes());
        assert_eq!(code, 0, "{text}");
        let first = if name == "-" { "lint standard input" } else { "lint /dev/stdin" };
        assert!(text.starts_with(&format!("{first}: Linux refuses nothing\n")), "{text}");
    }
}

#[test]
fn a_dump_has_the_registers_that_it_was_made_of() {
    let input = good("one-device");
    let Registers::Hdm(image) = &input.devices[0].registers else { panic!() };
    let dump = Dump::read(&image.bytes(), Options::default()).unwrap();
    assert_eq!(dump.hdm().unwrap().0, *image);
    // All ones are registers too, to a linter.
    let ones = HdmImage::read(&[0xFF; 0x50]);
    assert_eq!(ones.decoders.len(), 2);
    assert_eq!(ones.decoders[0], DecoderImage::from_dwords([u32::MAX; 8]));
}
