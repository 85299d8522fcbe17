//! Which ranges are direct, and exactly why the others trap.
//!
//! **Invariant**: the oracles are independent: dwords typed by hand, granules dealt out one by one.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeSet;

use cxl_model::fabric::{Fabric, HdmImage};
use cxl_model::mapping::{
    At, Mapping, MappingsText, Path, PathText, Reach, Reason, ReasonText, addresses, mappings,
    resolve,
};
use cxl_model::scenario::{Partition, Place, Scenario, builtin, builtins};
use cxl_regs::hdm::DecoderImage;
use cxl_regs::{
    Coherency, ComposeError, DecodeError, Dpa, Granularity, Hpa, Interleave, Span, SpanError, Ways,
    XorMapError,
};
use proptest::prelude::*;

const M256: u64 = 256 << 20;
/// Control of a committed, host-only decoder: Commit (9), Committed (10), Type (12).
const COMMITTED: u32 = 0x1600;
/// The same, device-coherent with BI (13).
const BACK_INVALIDATE: u32 = 0x2600;
/// Supported Coherency Models (22:21) of the capability: unknown.
const ANY_COHERENCY: u32 = !(3 << 21);

fn fabric(name: &str) -> Fabric {
    let text = builtin(name).unwrap_or_else(|| panic!("no built-in {name}")).text;
    fabric_of(text)
}

fn fabric_of(text: &str) -> Fabric {
    Fabric::of(&Scenario::parse(text, "test").unwrap_or_else(|error| panic!("{error}")))
}

/// A decoder's dwords by hand. `route` is the target list, way 0 lowest, or the skip.
fn image(base: u64, size: u64, control: u32, route: u64) -> DecoderImage {
    DecoderImage::from_dwords([
        base as u32,
        (base >> 32) as u32,
        size as u32,
        (size >> 32) as u32,
        control,
        route as u32,
        (route >> 32) as u32,
        0,
    ])
}

fn hdm<'f>(fabric: &'f mut Fabric, name: &str) -> &'f mut HdmImage {
    let bridge = fabric.bridges.iter_mut().find(|b| b.name == name).map(|b| &mut b.hdm);
    let switch = fabric.switches.iter_mut().find(|s| s.name == name).map(|s| &mut s.hdm);
    let device = fabric.devices.iter_mut().find(|d| d.name == name).map(|d| &mut d.hdm);
    let found = bridge.or(switch).or(device).and_then(Option::as_mut);
    found.unwrap_or_else(|| panic!("no decoders in {name}"))
}

fn decoder<'f>(fabric: &'f mut Fabric, name: &str, index: usize) -> &'f mut DecoderImage {
    &mut hdm(fabric, name).decoders[index]
}

/// Switches every device on: HDM Decoder Enable (global control bit 1), Mem_Enable (bit 2).
fn enable(fabric: &mut Fabric) {
    for device in &mut fabric.devices {
        device.hdm.as_mut().unwrap().global_control = 2;
        device.dvsec.as_mut().unwrap().control |= 4;
    }
}

/// Programs a fabric: component, decoder, base, size, control, target list or skip.
fn program(fabric: &mut Fabric, rows: &[(&str, usize, u64, u64, u32, u64)]) {
    enable(fabric);
    for &(name, index, base, size, control, route) in rows {
        *decoder(fabric, name, index) = image(base, size, control, route);
    }
}

/// One bridge, ports 3 and 7, two devices: 512 MiB and 256 MiB, in a window of 2 GiB at 4 GiB.
fn flat() -> Fabric {
    let mut fabric = fabric("two-devices-one-bridge");
    program(
        &mut fabric,
        &[
            ("hb0", 0, 0x1_0000_0000, 2 * M256, COMMITTED, 3),
            ("hb0", 1, 0x1_2000_0000, M256, COMMITTED, 7),
            ("mem0", 0, 0x1_0000_0000, 2 * M256, COMMITTED, 0),
            ("mem1", 0, 0x1_2000_0000, M256, COMMITTED, 0),
        ],
    );
    fabric
}

/// A switch with two devices: 256 MiB and 512 MiB.
fn switched() -> Fabric {
    let mut fabric = fabric("switch");
    program(
        &mut fabric,
        &[
            ("hb0", 0, 0x1_0000_0000, 3 * M256, COMMITTED, 0),
            ("sw0", 0, 0x1_0000_0000, M256, COMMITTED, 0),
            ("sw0", 1, 0x1_1000_0000, 2 * M256, COMMITTED, 1),
            ("mem0", 0, 0x1_0000_0000, M256, COMMITTED, 0),
            ("mem1", 0, 0x1_1000_0000, 2 * M256, COMMITTED, 0),
        ],
    );
    fabric
}

fn passed_through() -> Fabric {
    let mut fabric = fabric("pass-through");
    program(&mut fabric, &[("mem0", 0, 0x1_0000_0000, 2 * M256, COMMITTED, 0)]);
    fabric
}

/// Two bridges, 2-way at 256 B, 512 MiB each.
fn two_way() -> Fabric {
    let mut fabric = fabric("two-way");
    program(
        &mut fabric,
        &[
            ("hb0", 0, 0x1_0000_0000, 4 * M256, COMMITTED | 0x01, 0),
            ("hb1", 0, 0x1_0000_0000, 4 * M256, COMMITTED | 0x01, 0),
            ("mem0", 0, 0x1_0000_0000, 4 * M256, COMMITTED | 0x10, 0),
            ("mem1", 0, 0x1_0000_0000, 4 * M256, COMMITTED | 0x10, 0),
        ],
    );
    fabric
}

/// Two bridges x two ports, 4-way at 256 B: the root by bit 8, the bridges by bit 9.
fn four_way() -> Fabric {
    let mut fabric = fabric("four-way");
    let (base, size) = (0x1_0000_0000, 8 * M256);
    program(
        &mut fabric,
        &[
            ("hb0", 0, base, size, COMMITTED | 0x11, 0x0100),
            ("hb1", 0, base, size, COMMITTED | 0x11, 0x0100),
            ("mem0", 0, base, size, COMMITTED | 0x20, 0),
            ("mem1", 0, base, size, COMMITTED | 0x20, 0),
            ("mem2", 0, base, size, COMMITTED | 0x20, 0),
            ("mem3", 0, base, size, COMMITTED | 0x20, 0),
        ],
    );
    fabric
}

/// Three bridges, 3-way at 4 KiB, in a window at 4.5 GiB or elsewhere.
fn three_way_at(base: u64) -> Fabric {
    let mut fabric = fabric("three-way");
    assert_eq!(fabric.windows[0].base, Some(Hpa(0x1_2000_0000)));
    fabric.windows[0].base = Some(Hpa(base));
    let rows: Vec<_> = ["hb0", "hb1", "hb2"]
        .map(|name| (name, 0, base, 6 * M256, COMMITTED | 0x04, 0))
        .into_iter()
        .chain(["mem0", "mem1", "mem2"].map(|n| (n, 0, base, 6 * M256, COMMITTED | 0x84, 0)))
        .collect();
    program(&mut fabric, &rows);
    fabric
}

/// Four bridges, 4-way XOR at 256 B.
fn xor_four_way() -> Fabric {
    let mut fabric = fabric("xor-four-way");
    let (base, size) = (0x1_0000_0000, 8 * M256);
    for index in 0..4 {
        program(
            &mut fabric,
            &[
                (&format!("hb{index}"), 0, base, size, COMMITTED | 0x02, 0),
                (&format!("mem{index}"), 0, base, size, COMMITTED | 0x20, 0),
            ],
        );
    }
    fabric
}

/// Two bridges, a switch each: 4-way at 2 KiB, the root by bit 11, the switches by bit 12.
fn switch_interleave() -> Fabric {
    let mut fabric = fabric("switch-interleave");
    let (base, size) = (0x1_0000_0000, 4 * M256);
    for (bridge, switch) in [("hb0", "sw0"), ("hb1", "sw1")] {
        program(
            &mut fabric,
            &[
                (bridge, 0, base, size, COMMITTED | 0x04, 0),
                (switch, 0, base, size, COMMITTED | 0x14, 0x0100),
            ],
        );
    }
    for device in ["mem0", "mem1", "mem2", "mem3"] {
        program(&mut fabric, &[(device, 0, base, size, COMMITTED | 0x23, 0)]);
    }
    fabric
}

/// Three bridges x two ports. `root_ig` and `bridge_ig` are granularity codes; the set is 6-way.
fn three_by_two(root_ig: u32, bridge_ig: u32) -> Fabric {
    let mut fabric = fabric_of(&format!(
        r#"
        bridge = [{{ uid = 16 }}, {{ uid = 32 }}, {{ uid = 48 }}]
        port = [
            {{ below = "hb0" }}, {{ below = "hb0" }}, {{ below = "hb1" }}, {{ below = "hb1" }},
            {{ below = "hb2" }}, {{ below = "hb2" }},
        ]
        device = [
            {{ below = "port0", volatile = "256MiB" }}, {{ below = "port1", volatile = "256MiB" }},
            {{ below = "port2", volatile = "256MiB" }}, {{ below = "port3", volatile = "256MiB" }},
            {{ below = "port4", volatile = "256MiB" }}, {{ below = "port5", volatile = "256MiB" }},
        ]
        window = [
            {{ targets = [16, 32, 48], size = "1536MiB", granularity = {} }},
        ]
        "#,
        256 << root_ig
    ));
    let (base, size) = (0x1_2000_0000, 6 * M256);
    for bridge in ["hb0", "hb1", "hb2"] {
        let control = COMMITTED | 0x10 | bridge_ig;
        program(&mut fabric, &[(bridge, 0, base, size, control, 0x0100)]);
    }
    for device in 0..6 {
        let control = COMMITTED | 0x90 | root_ig.min(bridge_ig);
        program(&mut fabric, &[(&format!("mem{device}"), 0, base, size, control, 0)]);
    }
    fabric
}

/// hb0 interleaves over its two ports, hb1 leaves that to a switch: the same bits at other levels.
fn lopsided() -> Fabric {
    let mut fabric = fabric_of(
        r#"
        bridge = [{ uid = 16 }, { uid = 32 }]
        switch = [{ below = "port2" }]
        port = [
            { below = "hb0" }, { below = "hb0" }, { below = "hb1" },
            { below = "sw0" }, { below = "sw0" },
        ]
        device = [
            { below = "port0", volatile = "256MiB" }, { below = "port1", volatile = "256MiB" },
            { below = "port3", volatile = "256MiB" }, { below = "port4", volatile = "256MiB" },
        ]
        window = [{ targets = [16, 32], size = "1GiB" }]
        "#,
    );
    let (base, size) = (0x1_0000_0000, 4 * M256);
    program(
        &mut fabric,
        &[
            ("hb0", 0, base, size, COMMITTED | 0x11, 0x0100),
            ("hb1", 0, base, size, COMMITTED, 0),
            ("sw0", 0, base, size, COMMITTED | 0x11, 0x0100),
            ("mem0", 0, base, size, COMMITTED | 0x20, 0),
            ("mem1", 0, base, size, COMMITTED | 0x20, 0),
            ("mem2", 0, base, size, COMMITTED | 0x20, 0),
            ("mem3", 0, base, size, COMMITTED | 0x20, 0),
        ],
    );
    fabric
}

fn at(list: &[Mapping], hpa: u64) -> &Reach {
    let has = |mapping: &&Mapping| mapping.span().is_some_and(|span| span.contains(Hpa(hpa)));
    &list.iter().find(has).unwrap_or_else(|| panic!("no mapping at {hpa:#x}")).how
}

const fn trapped(reason: Reason) -> Reach {
    Reach::Trapped { reason }
}

/// Everything A3 names, one flip each: what is changed, the reason, and the range that it hits as
/// first and last multiple of 256 MiB above the window's base (the last one excluded).
type Flip = (&'static str, fn(&mut Fabric), Reason, (u64, u64));

const HB0: At = At::Bridge(0);
const HB1: At = At::Bridge(1);
const SW0: At = At::Switch(0);
const MEM0: At = At::Device(0);

fn check_flips(good: &Fabric, covered: (u64, u64), flips: &[Flip]) {
    let base = good.windows[0].base.unwrap().0;
    let units = good.windows[0].size / M256;
    let before = mappings(good);
    for unit in 0..units {
        let direct = matches!(at(&before, base + unit * M256), Reach::Direct(_));
        assert_eq!(
            direct,
            (covered.0..covered.1).contains(&unit),
            "unit {unit} of the good fabric"
        );
    }
    for (name, change, reason, hit) in flips {
        let mut bad = good.clone();
        change(&mut bad);
        assert_ne!(*good, bad, "{name} changes nothing");
        let after = mappings(&bad);
        for unit in 0..units {
            let hpa = base + unit * M256;
            if (hit.0..hit.1).contains(&unit) {
                assert_eq!(*at(&after, hpa), trapped(*reason), "{name}: unit {unit}");
            } else {
                // A decoder that was cut leads to the same bytes as far as it goes.
                let (mut left, mut right) = (at(&after, hpa).clone(), at(&before, hpa).clone());
                for how in [&mut left, &mut right] {
                    if let Reach::Direct(direct) = how {
                        direct.size = 0;
                    }
                }
                assert_eq!(left, right, "{name}: unit {unit} is not hit");
            }
        }
    }
}

#[test]
fn each_condition_alone_traps_its_own_range_below_a_bridge() {
    check_flips(
        &flat(),
        (0, 3),
        &[
            (
                "window beyond the physical width",
                |f| f.physical_bits = 32,
                Reason::BeyondPhysicalWidth { bits: 32 },
                (0, 8),
            ),
            (
                "target bridge missing",
                |f| f.windows[0].targets = vec![99],
                Reason::NoSuchBridge { way: 0, uid: 99 },
                (0, 8),
            ),
            (
                "a target too many",
                |f| f.windows[0].targets.push(16),
                Reason::TargetCount { ways: Ways::One, targets: 2 },
                (0, 8),
            ),
            (
                "bridge decoder not committed",
                |f| decoder(f, "hb0", 0).control &= !0x400,
                Reason::NotCommitted { at: HB0, decoder: 0 },
                (0, 2),
            ),
            (
                "bridge decoder covers the first half",
                |f| decoder(f, "hb0", 0).size_low = 0x1000_0000,
                Reason::NotCovered { at: HB0 },
                (1, 2),
            ),
            (
                "bridge without decoders and with two ports",
                |f| f.bridges[0].hdm = None,
                Reason::NoDecoders { at: HB0, ports: 2 },
                (0, 8),
            ),
            (
                "port number that no port has",
                |f| decoder(f, "hb0", 0).route_low = 5,
                Reason::NoSuchPort { at: HB0, way: 0, number: 5 },
                (0, 2),
            ),
            (
                "port of the device not in the target list",
                |f| decoder(f, "hb0", 0).route_low = 7,
                Reason::NotInTargetList { at: HB0, port: 0 },
                (0, 2),
            ),
            (
                "nothing behind the port",
                |f| f.devices[1].present = false,
                Reason::NothingBehind { port: 1 },
                (2, 3),
            ),
            (
                "not a CXL device",
                |f| f.devices[0].dvsec = None,
                Reason::NotMemory { device: 0 },
                (0, 2),
            ),
            (
                "Mem_Capable clear",
                |f| f.devices[0].dvsec.as_mut().unwrap().capability &= !(4 << 16),
                Reason::NotMemory { device: 0 },
                (0, 2),
            ),
            (
                "device without decoders",
                |f| f.devices[0].hdm = None,
                Reason::NoDecoders { at: MEM0, ports: 0 },
                (0, 2),
            ),
            (
                "device decoder not committed",
                |f| decoder(f, "mem0", 0).control &= !0x400,
                Reason::NotCommitted { at: MEM0, decoder: 0 },
                (0, 2),
            ),
            (
                "device decoder covers the first half",
                |f| decoder(f, "mem0", 0).size_low = 0x1000_0000,
                Reason::NotCovered { at: MEM0 },
                (1, 2),
            ),
            (
                "HDM Decoder Enable clear",
                |f| hdm(f, "mem0").global_control = 0,
                Reason::DecodersDisabled { device: 0 },
                (0, 2),
            ),
            (
                "Mem_Enable clear",
                |f| f.devices[0].dvsec.as_mut().unwrap().control &= !4,
                Reason::MemoryDisabled { device: 0 },
                (0, 2),
            ),
            (
                "two bridge decoders",
                |f| *decoder(f, "hb0", 2) = image(0x1_1000_0000, M256, COMMITTED, 7),
                Reason::ClaimedTwice { at: HB0, first: 0, second: 2 },
                (1, 2),
            ),
            (
                "two device decoders",
                |f| *decoder(f, "mem0", 1) = image(0x1_0000_0000, M256, COMMITTED, 0),
                Reason::ClaimedTwice { at: MEM0, first: 0, second: 1 },
                (0, 1),
            ),
            (
                "a coherency that the device does not have",
                |f| decoder(f, "mem0", 0).control &= !0x1000,
                Reason::IllegalDecoder {
                    at: MEM0,
                    decoder: 0,
                    error: DecodeError::CoherencyNotSupported {
                        coherency: Coherency::Device,
                        models: 2,
                    },
                },
                (0, 2),
            ),
            (
                "bridge decoder device-coherent over host-only memory",
                |f| decoder(f, "hb0", 0).control &= !0x1000,
                Reason::CoherencyDiffers {
                    at: HB0,
                    coherency: Coherency::Device,
                    device: 0,
                    expected: Coherency::HostOnly,
                },
                (0, 2),
            ),
            (
                "bridge decoder host-only over device-coherent memory",
                |f| {
                    hdm(f, "mem1").capability &= ANY_COHERENCY;
                    decoder(f, "mem1", 0).control &= !0x1000;
                },
                Reason::CoherencyDiffers {
                    at: HB0,
                    coherency: Coherency::HostOnly,
                    device: 1,
                    expected: Coherency::Device,
                },
                (2, 3),
            ),
            (
                "bridge decoder device-coherent in a host-only window",
                |f| {
                    f.windows[0].restrictions.set_device_coherent(false);
                    decoder(f, "hb0", 1).control &= !0x1000;
                },
                Reason::CoherencyNotAllowed { at: HB0, coherency: Coherency::Device },
                (2, 3),
            ),
            (
                "persistent memory in a volatile window",
                |f| {
                    f.windows[0].restrictions.set_persistent(false);
                    (f.devices[1].volatile, f.devices[1].persistent) = (0, M256);
                },
                Reason::MediaNotAllowed { device: 1, partition: Partition::Persistent },
                (2, 3),
            ),
            (
                "less memory than the decoder maps",
                |f| f.devices[0].volatile = M256,
                Reason::BeyondCapacity { device: 0, end: 2 * M256, capacity: M256 },
                (0, 2),
            ),
            (
                "a skip pushes the range out of the device",
                |f| decoder(f, "mem0", 0).route_low = 0x1000_0000,
                Reason::BeyondCapacity { device: 0, end: 3 * M256, capacity: 2 * M256 },
                (0, 2),
            ),
            (
                "across the partition border",
                |f| (f.devices[0].volatile, f.devices[0].persistent) = (M256, M256),
                Reason::CrossesPartitions { device: 0, border: M256 },
                (0, 2),
            ),
            (
                "reserved granularity",
                |f| decoder(f, "hb0", 1).control |= 0x7,
                Reason::IllegalDecoder {
                    at: HB0,
                    decoder: 1,
                    error: DecodeError::ReservedGranularity(
                        cxl_regs::interleave::ReservedGranularity(7),
                    ),
                },
                (2, 3),
            ),
            (
                "unaligned base",
                |f| decoder(f, "mem1", 0).base_low |= 1,
                Reason::IllegalDecoder {
                    at: At::Device(1),
                    decoder: 0,
                    error: DecodeError::BaseUnaligned { base: 0x1_2000_0001 },
                },
                (2, 3),
            ),
            (
                "device set to two ways",
                |f| decoder(f, "mem0", 0).control |= 0x10,
                Reason::MembersMissing { device: 0, ways: Ways::Two, reached: 1 },
                (0, 2),
            ),
        ],
    );
}

#[test]
fn each_condition_alone_traps_its_own_range_below_a_switch() {
    check_flips(
        &switched(),
        (0, 3),
        &[
            (
                "switch decoder not committed",
                |f| decoder(f, "sw0", 1).control &= !0x400,
                Reason::NotCommitted { at: SW0, decoder: 1 },
                (1, 3),
            ),
            (
                "switch without decoders",
                |f| f.switches[0].hdm = None,
                Reason::NoDecoders { at: SW0, ports: 2 },
                (0, 3),
            ),
            (
                "switch without decoders and with one port",
                |f| {
                    f.switches[0].hdm = None;
                    f.ports.truncate(2);
                },
                Reason::NoDecoders { at: SW0, ports: 1 },
                (0, 3),
            ),
            (
                "switch port number that no port has",
                |f| decoder(f, "sw0", 0).route_low = 0xFE,
                Reason::NoSuchPort { at: SW0, way: 0, number: 0xFE },
                (0, 1),
            ),
            (
                "switch port not in the target list",
                |f| decoder(f, "sw0", 1).route_low = 0,
                Reason::NotInTargetList { at: SW0, port: 2 },
                (1, 3),
            ),
            (
                "two switch decoders",
                |f| *decoder(f, "sw0", 2) = image(0x1_2000_0000, M256, COMMITTED, 0),
                Reason::ClaimedTwice { at: SW0, first: 1, second: 2 },
                (2, 3),
            ),
            (
                "bridge decoder not committed",
                |f| decoder(f, "hb0", 0).control &= !0x400,
                Reason::NotCommitted { at: HB0, decoder: 0 },
                (0, 3),
            ),
            (
                "device decoder not committed",
                |f| decoder(f, "mem1", 0).control &= !0x400,
                Reason::NotCommitted { at: At::Device(1), decoder: 0 },
                (1, 3),
            ),
        ],
    );
}

#[test]
fn a_pass_through_needs_exactly_one_port() {
    let second = |f: &mut Fabric| {
        let mut port = f.ports[0].clone();
        port.number = 9;
        f.ports.push(port);
    };
    check_flips(
        &passed_through(),
        (0, 2),
        &[
            ("a second port", second, Reason::NoDecoders { at: HB0, ports: 2 }, (0, 4)),
            ("no port", |f| f.ports.clear(), Reason::NoDecoders { at: HB0, ports: 0 }, (0, 4)),
            (
                "device-coherent in a host-only window",
                |f| {
                    f.windows[0].restrictions.set_device_coherent(false);
                    hdm(f, "mem0").capability &= ANY_COHERENCY;
                    decoder(f, "mem0", 0).control &= !0x1000;
                },
                Reason::CoherencyNotAllowed { at: MEM0, coherency: Coherency::Device },
                (0, 2),
            ),
            (
                "host-only in a device-coherent window",
                |f| f.windows[0].restrictions.set_host_only(false),
                Reason::CoherencyNotAllowed { at: MEM0, coherency: Coherency::HostOnly },
                (0, 2),
            ),
            (
                "back-invalidate in a window without it",
                |f| {
                    hdm(f, "mem0").capability &= ANY_COHERENCY;
                    decoder(f, "mem0", 0).control = BACK_INVALIDATE;
                },
                Reason::CoherencyNotAllowed { at: MEM0, coherency: Coherency::BackInvalidate },
                (0, 2),
            ),
            (
                "volatile memory in a persistent window",
                |f| f.windows[0].restrictions.set_volatile(false),
                Reason::MediaNotAllowed { device: 0, partition: Partition::Volatile },
                (0, 2),
            ),
            (
                "device decoder not committed",
                |f| decoder(f, "mem0", 0).control &= !0x400,
                Reason::NotCommitted { at: MEM0, decoder: 0 },
                (0, 2),
            ),
        ],
    );
}

/// A switch with one device that can do without back-invalidate, all set to back-invalidate.
fn back_invalidating() -> Fabric {
    let mut fabric = fabric_of(
        r#"
        bridge = [{ uid = 16, back_invalidate = true }]
        switch = [{ below = "port0" }]
        port = [{ below = "hb0" }, { below = "sw0" }]
        device = [{ below = "port1", volatile = "512MiB", coherency = "back-invalidate" }]
        [[window]]
        targets = [16]
        size = "1GiB"
        restrictions = ["device-coherent", "host-only", "back-invalidate", "volatile"]
        "#,
    );
    let (base, size) = (0x1_0000_0000, 2 * M256);
    program(
        &mut fabric,
        &[
            ("hb0", 0, base, size, BACK_INVALIDATE, 0),
            ("sw0", 0, base, size, BACK_INVALIDATE, 0),
            ("mem0", 0, base, size, BACK_INVALIDATE, 0),
        ],
    );
    fabric
}

#[test]
fn types_that_differ_along_a_path_trap_it() {
    use Coherency::{BackInvalidate, Device, HostOnly};
    let differs =
        |at, coherency, expected| Reason::CoherencyDiffers { at, coherency, device: 0, expected };
    let lacks = |place| Reason::NoBackInvalidate { place };
    check_flips(
        &back_invalidating(),
        (0, 2),
        &[
            (
                "bridge without BI",
                |f| decoder(f, "hb0", 0).control = 0x0600,
                differs(HB0, Device, BackInvalidate),
                (0, 2),
            ),
            (
                "bridge host-only",
                |f| decoder(f, "hb0", 0).control = COMMITTED,
                differs(HB0, HostOnly, BackInvalidate),
                (0, 2),
            ),
            (
                "switch without BI",
                |f| decoder(f, "sw0", 0).control = 0x0600,
                differs(SW0, Device, BackInvalidate),
                (0, 2),
            ),
            (
                "switch host-only",
                |f| decoder(f, "sw0", 0).control = COMMITTED,
                differs(SW0, HostOnly, BackInvalidate),
                (0, 2),
            ),
            (
                "device without BI",
                |f| decoder(f, "mem0", 0).control = 0x0600,
                differs(HB0, BackInvalidate, Device),
                (0, 2),
            ),
            (
                "device host-only",
                |f| decoder(f, "mem0", 0).control = COMMITTED,
                differs(HB0, BackInvalidate, HostOnly),
                (0, 2),
            ),
            (
                "BI on a host-only range",
                |f| decoder(f, "mem0", 0).control = 0x3600,
                Reason::IllegalDecoder {
                    at: MEM0,
                    decoder: 0,
                    error: DecodeError::BackInvalidateHostOnly,
                },
                (0, 2),
            ),
            (
                "a device that is host-only by its capability",
                |f| hdm(f, "mem0").capability ^= 1 << 21,
                Reason::IllegalDecoder {
                    at: MEM0,
                    decoder: 0,
                    error: DecodeError::CoherencyNotSupported {
                        coherency: BackInvalidate,
                        models: 2,
                    },
                },
                (0, 2),
            ),
            (
                "a window without back-invalidate",
                |f| f.windows[0].restrictions.set_back_invalidate(false),
                Reason::CoherencyNotAllowed { at: HB0, coherency: BackInvalidate },
                (0, 2),
            ),
            (
                "a window without device-coherent memory",
                |f| f.windows[0].restrictions.set_device_coherent(false),
                Reason::CoherencyNotAllowed { at: HB0, coherency: BackInvalidate },
                (0, 2),
            ),
            (
                "a root port without a BI decoder",
                |f| f.ports[0].back_invalidate = false,
                lacks(Place::Port(0)),
                (0, 2),
            ),
            (
                "a switch without a BI route table",
                |f| f.switches[0].back_invalidate = false,
                lacks(Place::Switch(0)),
                (0, 2),
            ),
            (
                "a downstream port without a BI decoder",
                |f| f.ports[1].back_invalidate = false,
                lacks(Place::Port(1)),
                (0, 2),
            ),
            (
                "a device without a BI decoder",
                |f| f.devices[0].back_invalidate = false,
                lacks(Place::Device(0)),
                (0, 2),
            ),
        ],
    );
    // All of it host-only is a path as good as any, and needs no BI.
    let mut fabric = back_invalidating();
    for name in ["hb0", "sw0", "mem0"] {
        decoder(&mut fabric, name, 0).control = COMMITTED;
    }
    fabric.ports[0].back_invalidate = false;
    assert!(matches!(at(&mappings(&fabric), 0x1_0000_0000), Reach::Direct(_)));

    // One member's whole path is of another type than the first one's.
    check_flips(
        &two_way(),
        (0, 4),
        &[(
            "half of a set device-coherent",
            |f| {
                hdm(f, "mem1").capability &= ANY_COHERENCY;
                decoder(f, "hb1", 0).control &= !0x1000;
                decoder(f, "mem1", 0).control &= !0x1000;
            },
            Reason::CoherencyDiffers {
                at: At::Device(1),
                coherency: Device,
                device: 0,
                expected: HostOnly,
            },
            (0, 4),
        )],
    );
}

#[test]
fn an_interleave_that_the_capability_bits_rule_out_traps() {
    let illegal = |at, error| Reason::IllegalDecoder { at, decoder: 0, error };
    check_flips(
        &four_way(),
        (0, 8),
        &[
            (
                "a bridge that lists one target a decoder",
                |f| hdm(f, "hb1").capability = hdm(f, "hb1").capability & !0xF0 | 0x10,
                illegal(HB1, DecodeError::TooFewTargets { ways: Ways::Two, have: 1 }),
                (0, 8),
            ),
            (
                "a bridge that does not select on bits 11:8",
                |f| hdm(f, "hb0").capability &= !0x100,
                illegal(HB0, DecodeError::SelectorNotSupported { need: 0x200, have: 0x7000 }),
                (0, 8),
            ),
            (
                "a device that does not select on bits 11:8",
                |f| hdm(f, "mem2").capability &= !0x100,
                illegal(
                    At::Device(2),
                    DecodeError::SelectorNotSupported { need: 0x300, have: 0x7000 },
                ),
                (0, 8),
            ),
        ],
    );
    check_flips(
        &switch_interleave(),
        (0, 4),
        &[(
            "a switch that does not select on bits 14:12",
            |f| hdm(f, "sw0").capability &= !0x200,
            illegal(SW0, DecodeError::SelectorNotSupported { need: 0x1000, have: 0xF00 }),
            (0, 4),
        )],
    );
    check_flips(
        &three_way_at(0x1_2000_0000),
        (0, 6),
        &[(
            "a device that cannot do three ways",
            |f| hdm(f, "mem1").capability &= !0x800,
            illegal(At::Device(1), DecodeError::WaysNotSupported { ways: Ways::Three }),
            (0, 6),
        )],
    );
    check_flips(
        &root_set(Ways::Sixteen, Granularity::B256),
        (0, 16),
        &[(
            "a device that cannot do sixteen ways",
            |f| hdm(f, "mem15").capability &= !0x1000,
            illegal(At::Device(15), DecodeError::WaysNotSupported { ways: Ways::Sixteen }),
            (0, 16),
        )],
    );
}

/// Why a decoder over two windows is no proof: both deal to the same two devices, and where they
/// meet, the last granule of the one and the first of the other are one granule of one device.
#[test]
fn where_two_windows_meet_one_byte_could_have_two_addresses() {
    // The window of two neighbours is cut inside the first one's range.
    let mut fabric = flat();
    let mut second = fabric.windows[0].clone();
    fabric.windows[0].size = M256;
    (second.base, second.size) = (Some(Hpa(0x1_1000_0000)), 7 * M256);
    fabric.windows.push(second);
    let list = mappings(&fabric);
    for (hpa, other) in [(0x1_0000_0000, 1), (0x1_1000_0000, 0)] {
        assert_eq!(*at(&list, hpa), trapped(Reason::SpansWindows { device: 0, other }));
    }
    assert_eq!(at(&list, 0x1_2000_0000), at(&mappings(&flat()), 0x1_2000_0000));

    let mut fabric = three_way_at(0x1_2000_0000);
    let mut second = fabric.windows[0].clone();
    fabric.windows[0].size = M256;
    (second.base, second.size) = (Some(Hpa(0x1_3000_0000)), 5 * M256);
    second.targets.rotate_left(1);
    fabric.windows.push(second);
    let walk = |hpa| resolve(&fabric, Hpa(hpa)).map(|path| (path.endpoint.device, path.dpa));
    let doubled = (0x1_2fff_d000..0x1_3000_3000u64).step_by(4096).map(walk);
    let found: BTreeSet<_> =
        doubled.map(|at| at.map(|(device, dpa)| (device, dpa.0)).unwrap()).collect();
    assert!(found.len() < 6, "{found:x?}");
    let reason = |other| trapped(Reason::SpansWindows { device: 0, other });
    let list = mappings(&fabric);
    assert_eq!(*at(&list, 0x1_2000_0000), reason(1));
    let Reach::Trapped { reason: Reason::SpansWindows { other: 0, .. } } = at(&list, 0x1_3000_0000)
    else {
        panic!("{list:?}")
    };
}

#[test]
fn each_condition_alone_traps_a_whole_interleaved_set() {
    check_flips(
        &four_way(),
        (0, 8),
        &[
            (
                "one member not committed",
                |f| decoder(f, "mem3", 0).control &= !0x400,
                Reason::NotCommitted { at: At::Device(3), decoder: 0 },
                (0, 8),
            ),
            (
                "one member unplugged",
                |f| f.devices[2].present = false,
                Reason::NothingBehind { port: 2 },
                (0, 8),
            ),
            (
                "one member switched off",
                |f| f.devices[1].dvsec.as_mut().unwrap().control &= !4,
                Reason::MemoryDisabled { device: 1 },
                (0, 8),
            ),
            (
                "bridge on the root's bit",
                |f| decoder(f, "hb0", 0).control &= !0xF,
                Reason::Levels(ComposeError::SharedBits { bits: 0x100 }),
                (0, 8),
            ),
            (
                "bridge leaves a hole",
                |f| decoder(f, "hb0", 0).control = COMMITTED | 0x12,
                Reason::Levels(ComposeError::Hole { bits: 0x500 }),
                (0, 8),
            ),
            (
                "bridge with one way",
                |f| decoder(f, "hb0", 0).control = COMMITTED | 0x01,
                Reason::MembersMissing { device: 0, ways: Ways::Four, reached: 2 },
                (0, 8),
            ),
            (
                "both ways to one port",
                |f| decoder(f, "hb1", 0).route_low = 0,
                Reason::IllegalDecoder {
                    at: HB1,
                    decoder: 0,
                    error: DecodeError::DuplicateTarget { port: 0, first: 0, second: 1 },
                },
                (0, 8),
            ),
            (
                "one bridge twice in the window",
                |f| f.windows[0].targets = vec![16, 16],
                Reason::PositionDoubled { device: 0, position: 1 },
                (0, 8),
            ),
            (
                "a member with fewer ways",
                |f| decoder(f, "mem1", 0).control = COMMITTED | 0x10,
                Reason::InterleaveDiffers {
                    device: 1,
                    expected: Interleave::new(Ways::Four, Granularity::B256),
                    found: Interleave::new(Ways::Two, Granularity::B256),
                },
                (0, 8),
            ),
            (
                "a member with another granularity",
                |f| decoder(f, "mem2", 0).control = COMMITTED | 0x21,
                Reason::InterleaveDiffers {
                    device: 2,
                    expected: Interleave::new(Ways::Four, Granularity::B256),
                    found: Interleave::new(Ways::Four, Granularity::B512),
                },
                (0, 8),
            ),
            (
                "a window with another granularity",
                |f| f.windows[0].interleave.granularity = Granularity::K1,
                Reason::InterleaveDiffers {
                    device: 0,
                    expected: Interleave::new(Ways::Four, Granularity::B512),
                    found: Interleave::new(Ways::Four, Granularity::B256),
                },
                (0, 8),
            ),
        ],
    );

    let mut fabric = four_way();
    // The members disagree about the range; the part that all have is no set either.
    *decoder(&mut fabric, "mem1", 0) = image(0x1_0000_0000, 4 * M256, COMMITTED | 0x20, 0);
    let list = mappings(&fabric);
    let (expected, found) = (span(0x1_0000_0000, 8 * M256), span(0x1_0000_0000, 4 * M256));
    let differs = Reason::SpanDiffers { device: 1, expected, found };
    assert_eq!(*at(&list, 0x1_0000_0000), trapped(differs));
    assert_eq!(*at(&list, 0x1_4000_0000), trapped(Reason::NotCovered { at: At::Device(1) }));

    // The root divides by three above the bridge's bit: two granules would share one address.
    let coarse = mappings(&three_by_two(2, 0));
    let error = ComposeError::ThreeTooCoarse { divides_from: 10, highest: 9 };
    assert_eq!(*at(&coarse, 0x1_2000_0000), trapped(Reason::Levels(error)));

    let mut fabric = xor_four_way();
    fabric.windows[0].xor_maps = vec![0x10100];
    let reason = Reason::XorMaps(XorMapError::TooFew { need: 2, have: 1 });
    assert_eq!(*at(&mappings(&fabric), 0x1_0000_0000), trapped(reason));
}

fn span(base: u64, size: u64) -> Span {
    Span::new(Hpa(base), size).unwrap()
}

#[test]
fn a_window_without_a_place_has_no_address() {
    let mut fabric = flat();
    fabric.windows.push(fabric.windows[0].clone());
    fabric.windows[1].base = None;
    let list = mappings(&fabric);
    assert_eq!(list[0].how, trapped(Reason::WindowNotPlaced));
    assert_eq!((list[0].window, list[0].span()), (1, None));
    assert_eq!(list[1..], mappings(&flat()));
}

#[test]
fn a_window_that_is_no_window_says_so() {
    let with = |base, size| {
        let mut fabric = flat();
        (fabric.windows[0].base, fabric.windows[0].size) = (Some(Hpa(base)), size);
        mappings(&fabric)
    };
    let whole = |base, size, reason| {
        vec![Mapping { window: 0, hpa: Hpa(base), size, how: trapped(reason) }]
    };
    for (base, size) in [(0x1_0000_1000, 8 * M256), (0x1_0000_0000, 8 * M256 + 4096)] {
        let reason = Reason::WindowUnaligned { base: Hpa(base), size };
        assert_eq!(with(base, size), whole(base, size, reason));
    }
    for (base, size, error) in [
        (1 << 32, 0, SpanError::Empty { base: 1 << 32 }),
        (1 << 32, u64::MAX, SpanError::Wraps { base: 1 << 32, size: u64::MAX }),
    ] {
        let list = with(base, size);
        assert_eq!(list, whole(base, size, Reason::WindowRange(error)));
        assert_eq!(list[0].span(), None);
    }
    assert_eq!(resolve(&flat(), Hpa(0)), Err(Reason::NoWindow));
    assert_eq!(resolve(&flat(), Hpa(0x1_8000_0000)), Err(Reason::NoWindow));
}

/// A switch below a switch, two devices below the lower one and one beside it.
fn nested(upper: u32, lower: u32, device: u32) -> Fabric {
    let mut fabric = fabric_of(
        r#"
        bridge = [{ uid = 16 }]
        switch = [{ below = "port0" }, { below = "port1" }]
        port = [
            { below = "hb0" }, { below = "sw0" }, { below = "sw0" },
            { below = "sw1" }, { below = "sw1" },
        ]
        device = [
            { below = "port3", volatile = "512MiB" }, { below = "port4", volatile = "512MiB" },
            { below = "port2", volatile = "512MiB" },
        ]
        window = [{ targets = [16], size = "1GiB" }]
        "#,
    );
    let (base, size) = (0x1_0000_0000, 4 * M256);
    program(
        &mut fabric,
        &[
            ("hb0", 0, base, size, COMMITTED, 0),
            ("sw0", 0, base, size, COMMITTED | upper, 0x0100),
            ("sw1", 0, base, size, COMMITTED | lower, 0x0100),
            ("mem0", 0, base, size, COMMITTED | device, 0),
            ("mem1", 0, base, size, COMMITTED | device, 0),
            ("mem2", 0, base, size, COMMITTED | device, 0),
        ],
    );
    fabric
}

#[test]
fn of_nested_switches_one_may_interleave() {
    deal(&nested(0x00, 0x12, 0x12), 0x1_0000_0000, 1024, 2, |k| (k % 2) as usize);
    let both = mappings(&nested(0x11, 0x10, 0x20));
    let second = Reason::SwitchLevels { at: At::Switch(1) };
    assert_eq!(*at(&both, 0x1_0000_0000), trapped(second));
}

#[test]
fn windows_that_overlap_trap_where_they_do() {
    let mut fabric = flat();
    let mut other = fabric.windows[0].clone();
    (other.base, other.size) = (Some(Hpa(0x1_1000_0000)), M256);
    fabric.windows.push(other);
    let (list, before) = (mappings(&fabric), mappings(&flat()));
    let overlap = trapped(Reason::WindowsOverlap { other: 1 });
    assert_eq!(*at(&list, 0x1_1000_0000), overlap);
    assert_eq!(at(&list, 0x1_0fff_ffff), at(&before, 0x1_0fff_ffff));
    assert_eq!(at(&list, 0x1_2000_0000), at(&before, 0x1_2000_0000));
    assert_eq!(
        resolve(&fabric, Hpa(0x1_1000_0000)).map(|_| ()),
        Err(Reason::WindowsOverlap { other: 1 })
    );

    // The same with the small window first: what is left of the large one are two ranges.
    fabric.windows.swap(0, 1);
    fabric.windows[1].targets = vec![99];
    let list = mappings(&fabric);
    let spans: Vec<_> = list.iter().map(|mapping| (mapping.window, mapping.span())).collect();
    assert_eq!(
        spans,
        [
            (1, Some(span(0x1_0000_0000, M256))),
            (0, Some(span(0x1_1000_0000, M256))),
            (1, Some(span(0x1_2000_0000, 6 * M256))),
        ]
    );
}

#[test]
fn lock_error_and_commit_bits_do_not_decide() {
    let good = mappings(&four_way());
    let mut fabric = four_way();
    for name in ["hb0", "hb1", "mem0", "mem1", "mem2", "mem3"] {
        let control = &mut decoder(&mut fabric, name, 0).control;
        // Lock On Commit and Error set, Commit clear: Committed alone counts.
        *control = *control & !0x200 | 0x900;
    }
    assert_eq!(mappings(&fabric), good);
}

#[test]
fn the_list_depends_on_registers_only_and_not_on_file_order() {
    type Named = (u64, u64, Vec<(String, Dpa)>);
    let named = |fabric: &Fabric| -> Vec<Named> {
        let direct = mappings(fabric).into_iter().filter_map(|mapping| match mapping.how {
            Reach::Direct(direct) => Some((mapping.hpa.0, mapping.size, direct.members)),
            Reach::Trapped { .. } => None,
        });
        let name = |device: usize| fabric.devices[device].name.clone();
        let members = direct.map(|(hpa, size, members)| {
            (hpa, size, members.iter().map(|m| (name(m.device), m.dpa)).collect())
        });
        members.collect()
    };
    for fabric in [flat(), switched(), two_way(), four_way(), three_way_at(0x1_2000_0000)] {
        let mut reversed = fabric.clone();
        reversed.devices.reverse();
        assert_eq!(mappings(&fabric), mappings(&fabric));
        assert_eq!(named(&fabric), named(&reversed));
    }
}

#[test]
fn the_skip_counts_and_so_do_lower_decoders_by_share() {
    // 512 MiB volatile, 1 GiB persistent. Decoder 0 uses half of the volatile partition; decoder 1
    // skips the other half, decoder 2 skips 256 MiB of the persistent one.
    let mut fabric = fabric("dpa-skip");
    program(
        &mut fabric,
        &[
            ("hb0", 0, 0x1_0000_0000, M256, COMMITTED, 0),
            ("hb0", 1, 0x1_1000_0000, M256, COMMITTED, 0),
            ("hb0", 2, 0x1_2000_0000, M256, COMMITTED, 0),
            ("mem0", 0, 0x1_0000_0000, M256, COMMITTED, 0),
            ("mem0", 1, 0x1_1000_0000, M256, COMMITTED, M256),
            ("mem0", 2, 0x1_2000_0000, M256, COMMITTED, M256),
        ],
    );
    let walk = |hpa| resolve(&fabric, Hpa(hpa)).map(|path| (path.dpa.0, path.partition));
    assert_eq!(walk(0x1_0000_0040), Ok((0x40, Partition::Volatile)));
    // The naive sum of sizes says 0x1000_0040 here: volatile memory that nobody mapped.
    assert_eq!(walk(0x1_1000_0040), Ok((0x2000_0040, Partition::Persistent)));
    assert_eq!(walk(0x1_2000_0040), Ok((0x4000_0040, Partition::Persistent)));
    assert_eq!(addresses(&fabric, 0, Dpa(0x2000_0040)), [Hpa(0x1_1000_0040)]);
    assert_eq!(addresses(&fabric, 0, Dpa(0x1000_0040)), []);

    // A lower decoder of an interleaved range counts with its share, not with its size.
    let (base, size) = (0x1_0000_0000, 2 * M256);
    let mut fabric = two_way();
    program(
        &mut fabric,
        &[
            ("hb0", 0, base, size, COMMITTED, 0),
            ("hb1", 0, base, size, COMMITTED, 0),
            ("mem0", 0, base, size, COMMITTED | 0x10, 0),
            ("mem1", 0, base, size, COMMITTED | 0x10, 0),
            ("hb0", 1, base + size, size, COMMITTED, 0),
            ("hb1", 1, base + size, size, COMMITTED, 0),
            ("mem0", 1, base + size, size, COMMITTED | 0x10, 0),
            ("mem1", 1, base + size, size, COMMITTED | 0x10, 0),
        ],
    );
    let path = resolve(&fabric, Hpa(base + size + 0x100)).unwrap();
    assert_eq!((path.endpoint.device, path.dpa), (1, Dpa(M256)));

    // Committed at size 0, as spare decoders are burnt: takes no part.
    let mut fabric = flat();
    *decoder(&mut fabric, "mem1", 1) = *decoder(&mut fabric, "mem1", 0);
    *decoder(&mut fabric, "mem1", 0) = image(0x1_0000_0000, 0, COMMITTED | 0x100, 0);
    assert_eq!(resolve(&fabric, Hpa(0x1_2000_0000)).map(|path| path.dpa), Ok(Dpa(0)));

    // Not committed: takes no part either, whatever it says.
    *decoder(&mut fabric, "mem1", 0) = image(0x9_0000_0000, M256, COMMITTED & !0x400, M256);
    assert_eq!(resolve(&fabric, Hpa(0x1_2000_0000)).map(|path| path.dpa), Ok(Dpa(0)));

    // A lower decoder that makes no sense leaves the address of the upper one unknown.
    *decoder(&mut fabric, "mem1", 0) = image(0x9_0000_0000, M256, COMMITTED | 0xF0, 0);
    assert!(matches!(
        at(&mappings(&fabric), 0x1_2000_0000),
        Reach::Trapped { reason: Reason::IllegalDecoder { at: At::Device(1), decoder: 0, .. } }
    ));
}

/// Deals the granules of a set out one by one and asks `resolve`, the mapping and the way back.
///
/// `member` names the device that gets granule number K, counted from address 0.
fn deal(fabric: &Fabric, base: u64, granule: u64, ways: u64, member: impl Fn(u64) -> usize) {
    let list = mappings(fabric);
    let Reach::Direct(direct) = at(&list, base) else {
        let text = MappingsText(fabric, &list).to_string();
        panic!("not direct:\n{text}");
    };
    assert_eq!(
        direct.interleave(),
        Interleave::new(direct.interleave().ways, Granularity::from_bytes(granule).unwrap())
    );
    let mut next = vec![0u64; fabric.devices.len()];
    let mut turns = vec![0u64; fabric.devices.len()];
    let rounds = 16 * ways;
    for number in 0..rounds {
        let start = base + number * granule;
        let device = member(start / granule);
        // A device fills its memory granule by granule, in the order it is dealt to.
        let dpa = next[device];
        next[device] += granule;
        turns[device] += 1;
        for offset in [0, 1, granule / 2, granule - 1] {
            let hpa = Hpa(start + offset);
            let path = resolve(fabric, hpa)
                .unwrap_or_else(|reason| panic!("{hpa}: {}", ReasonText(fabric, reason)));
            assert_eq!((path.endpoint.device, path.dpa.0), (device, dpa + offset), "{hpa}");
            let located = direct.locate(hpa).map(|(member, dpa)| (member.device, dpa.0));
            assert_eq!(located, Some((device, dpa + offset)), "{hpa}");
            let position = direct.members.iter().position(|m| m.device == device).unwrap();
            assert_eq!(direct.hpa(position as u32, Dpa(dpa + offset)), Some(hpa));
            assert_eq!(addresses(fabric, device, Dpa(dpa + offset)), [hpa]);
        }
    }
    let members: BTreeSet<usize> = direct.members.iter().map(|member| member.device).collect();
    assert_eq!(members.len() as u64, ways);
    assert!(members.iter().all(|&device| turns[device] == rounds / ways), "{turns:?}");
}

#[test]
fn granules_land_where_dealing_them_out_says() {
    const LOW: u64 = 0x1_0000_0000;
    deal(&flat(), LOW, 256, 1, |_| 0);
    deal(&passed_through(), LOW, 256, 1, |_| 0);
    deal(&two_way(), LOW, 256, 2, |k| (k % 2) as usize);
    // Bridge by bit 0 of the granule number, port by bit 1.
    deal(&four_way(), LOW, 256, 4, |k| [0, 2, 1, 3][(k % 4) as usize]);
    deal(&lopsided(), LOW, 256, 4, |k| [0, 2, 1, 3][(k % 4) as usize]);
    deal(&switch_interleave(), LOW, 2048, 4, |k| [0, 2, 1, 3][(k % 4) as usize]);
    deal(&three_way_at(0x1_2000_0000), 0x1_2000_0000, 4096, 3, |k| (k % 3) as usize);
    // A base that is no multiple of a stripe: the first granule belongs to the second member.
    deal(&three_way_at(LOW), LOW, 4096, 3, |k| (k % 3) as usize);
    // Three bridges by the division, two ports by a bit: the same, a finer and a coarser root.
    deal(&three_by_two(0, 0), 0x1_2000_0000, 256, 6, |k| (2 * (k % 3) + k % 2) as usize);
    deal(&three_by_two(3, 3), 0x1_2000_0000, 2048, 6, |k| (2 * (k % 3) + k % 2) as usize);
    deal(&three_by_two(1, 0), 0x1_2000_0000, 256, 6, |k| (2 * (k / 2 % 3) + k % 2) as usize);
}

/// As many bridges as ways, one device each, in a window at a multiple of every stripe.
fn root_set(ways: Ways, granularity: Granularity) -> Fabric {
    let list = |row: &dyn Fn(u32) -> String| (0..ways.count()).map(row).collect::<String>();
    let mut fabric = fabric_of(&format!(
        "bridge = [{}]\nport = [{}]\ndevice = [{}]\n[[window]]\ntargets = [{}]\nbase = \"12GiB\"\n\
         size = {}\ngranularity = {}",
        list(&|i| format!("{{ uid = {} }},", 8 * i)),
        list(&|i| format!("{{ below = \"hb{i}\" }},")),
        list(&|i| format!("{{ below = \"port{i}\", persistent = \"256MiB\" }},")),
        list(&|i| format!("{},", 8 * i)),
        u64::from(ways.count()) * M256,
        granularity.bytes(),
    ));
    let size = u64::from(ways.count()) * M256;
    let codes = u32::from(ways.encode()) << 4 | u32::from(granularity.encode());
    for index in 0..ways.count() {
        program(
            &mut fabric,
            &[
                (&format!("hb{index}"), 0, 12 << 30, size, COMMITTED, 0),
                (&format!("mem{index}"), 0, 12 << 30, size, COMMITTED | codes, 0),
            ],
        );
    }
    fabric
}

#[test]
fn all_49_pairs_are_direct_and_the_other_7_are_refused() {
    let mut refused = Vec::new();
    for ways in Ways::ALL {
        for granularity in Granularity::ALL {
            let fabric = root_set(ways, granularity);
            let count = u64::from(ways.count());
            match at(&mappings(&fabric), 12 << 30) {
                // One way has no granularity, and the list says so.
                Reach::Direct(_) if ways == Ways::One => deal(&fabric, 12 << 30, 256, 1, |_| 0),
                Reach::Direct(_) => {
                    deal(&fabric, 12 << 30, granularity.bytes(), count, |k| (k % count) as usize);
                }
                Reach::Trapped { reason } => refused.push((count, granularity.bytes(), *reason)),
            }
        }
    }
    let pairs: Vec<_> = refused.iter().map(|&(ways, bytes, _)| (ways, bytes >> 10)).collect();
    assert_eq!(pairs, [(4, 16), (8, 8), (8, 16), (16, 4), (16, 8), (16, 16), (12, 16)]);
    for (_, _, reason) in refused {
        let error = matches!(
            reason,
            Reason::IllegalDecoder { at: MEM0, error: DecodeError::NotDecodable(_), .. }
        );
        assert!(error, "{reason:?}");
    }
}

#[test]
fn xor_granules_land_where_the_parities_say() {
    let fabric = xor_four_way();
    // Maps 0x10100 and 0x20200.
    for (hpa, device) in [
        (0x1_0000_0000, 0),
        (0x1_0000_0100, 1),
        (0x1_0000_0300, 3),
        (0x1_0003_0300, 0),
        (0x1_0001_0300, 2),
        (0x1_0001_0000, 1),
    ] {
        assert_eq!(resolve(&fabric, Hpa(hpa)).map(|path| path.endpoint.device), Ok(device));
    }
    let list = mappings(&fabric);
    let Reach::Direct(direct) = at(&list, 0x1_0000_0000) else { panic!("not direct") };
    // 256 KiB: no byte of a device is given out twice, and none is left out.
    let mut seen = BTreeSet::new();
    for granule in 0..1024 {
        let hpa = Hpa(0x1_0000_0000 + granule * 256);
        let path = resolve(&fabric, hpa).unwrap();
        let located = direct.locate(hpa).map(|(member, dpa)| (member.device, dpa));
        assert_eq!(located, Some((path.endpoint.device, path.dpa)));
        assert!(seen.insert((path.endpoint.device, path.dpa.0)));
        assert_eq!(addresses(&fabric, path.endpoint.device, path.dpa), [hpa]);
    }
    let last = |device| seen.iter().filter(|(d, _)| *d == device).map(|&(_, dpa)| dpa).max();
    assert!((0..4).all(|device| last(device) == Some(0xff00)));
}

#[test]
fn the_specifications_own_example_comes_out() {
    // 8-way at 512 B: decoder 0 has 32 GiB at 32 GiB, decoder 1 has 4 GiB at 128 GiB. HPA 129 GiB +
    // 1028 is decoder 1 of the third member, 0x0800_0004 behind 4 GiB (section 8.2.4.20.13).
    let bridges: String = (0..8).map(|i| format!("{{ uid = {} }},", 16 * i)).collect();
    let ports: String = (0..8).map(|i| format!("{{ below = \"hb{i}\" }},")).collect();
    let device = |i| format!("{{ below = \"port{i}\", volatile = \"8GiB\" }},");
    let devices: String = (0..8).map(device).collect();
    let mut fabric = fabric_of(&format!(
        "bridge = [{bridges}]\nport = [{ports}]\ndevice = [{devices}]\n[[window]]\n\
         targets = [0, 16, 32, 48, 64, 80, 96, 112]\ngranularity = 512\nbase = \"32GiB\"\n\
         size = \"128GiB\"\n"
    ));
    const GIB: u64 = 1 << 30;
    for i in 0..8 {
        for (name, iw) in [(format!("hb{i}"), 0), (format!("mem{i}"), 3)] {
            let control = COMMITTED | iw << 4 | 1;
            program(
                &mut fabric,
                &[
                    (&name, 0, 32 * GIB, 32 * GIB, control, 0),
                    (&name, 1, 128 * GIB, 4 * GIB, control, 0),
                ],
            );
        }
    }
    let path = resolve(&fabric, Hpa(129 * GIB + 1028)).unwrap();
    assert_eq!((path.endpoint.device, path.endpoint.index), (2, 1));
    assert_eq!(path.dpa, Dpa(4 * GIB + 0x0800_0004));
}

#[test]
fn four_large_windows_hold_one_small_device_each() {
    let mut fabric = fabric("four-bridges");
    for index in 0..4 {
        let (base, size) = (0x800_0000_0000 + index * 0x40_0000_0000, (index + 1) * M256);
        program(
            &mut fabric,
            &[
                (&format!("hb{index}"), 0, base, size, COMMITTED, 0),
                (&format!("mem{index}"), 0, base, size, COMMITTED, 0),
            ],
        );
    }
    insta::assert_snapshot!(MappingsText(&fabric, &mappings(&fabric)), @r"
    window0: 256 GiB at 0x80000000000, 1-way over UID 16
      direct            0x0000080000000000  256 MiB: mem0 decoder 0, from DPA 0x0
      trapped           0x0000080010000000  261888 MiB: no decoder of hb0 has the range
    window1: 256 GiB at 0x84000000000, 1-way over UID 32
      direct            0x0000084000000000  512 MiB: mem1 decoder 0, from DPA 0x0
      trapped           0x0000084020000000  261632 MiB: no decoder of hb1 has the range
    window2: 256 GiB at 0x88000000000, 1-way over UID 48
      direct            0x0000088000000000  768 MiB: mem2 decoder 0, from DPA 0x0
      trapped           0x0000088030000000  261376 MiB: no decoder of hb2 has the range
    window3: 256 GiB at 0x8c000000000, 1-way over UID 64
      direct            0x000008c000000000  1 GiB: mem3 decoder 0, from DPA 0x0
      trapped           0x000008c040000000  255 GiB: no decoder of hb3 has the range
    ");
}

#[test]
fn lists_and_walks_read_like_this() {
    let fabric = four_way();
    insta::assert_snapshot!(MappingsText(&fabric, &mappings(&fabric)), @r"
    window0: 2 GiB at 0x100000000, 2-way at 256 B over UID 16, 32
      direct            0x0000000100000000  2 GiB: 4-way at 256 B, set at 0x100000000
      position          0x00  mem0 decoder 0, from DPA 0x0
      position          0x01  mem2 decoder 0, from DPA 0x0
      position          0x02  mem1 decoder 0, from DPA 0x0
      position          0x03  mem3 decoder 0, from DPA 0x0
    ");
    let path = resolve(&fabric, Hpa(0x1_0000_1300)).unwrap();
    insta::assert_snapshot!(PathText(&fabric, &path), @r"
    HPA 0x100001300 is mem3, DPA 0x400 (volatile)
      window            0x0000000100001300  window0 at 0x100000000 + 0x1300
      way               0x01  (HPA / 256 B) mod 2: target 1 is UID 32
      hb1               0x0000000100000000  decoder 0: 0x100000000-0x17fffffff
      way               0x01  2-way at 512 B, HPA[9]: target 1 is port 0x01, rp3
      mem3              0x0000000100000000  decoder 0: 0x100000000-0x17fffffff
      offset            0x0000000000001300  HPA - base = 0x1300
      device offset     0x0000000000000400  4-way at 256 B: (0x1300 >> 10) << 8 | 0x0
      DPA               0x0000000000000400  skips and lower decoders 0x0 + 0x400, volatile
    ");
    let fabric = passed_through();
    let path = resolve(&fabric, Hpa(0x1_0123_4567)).unwrap();
    insta::assert_snapshot!(PathText(&fabric, &path), @r"
    HPA 0x101234567 is mem0, DPA 0x1234567 (volatile)
      window            0x0000000101234567  window0 at 0x100000000 + 0x1234567
      way               0x00  1-way: target 0 is UID 16
      hb0               0x00  passes everything to its one port, port0
      mem0              0x0000000100000000  decoder 0: 0x100000000-0x11fffffff
      offset            0x0000000001234567  HPA - base = 0x1234567
      device offset     0x0000000001234567  1-way: 0x1234567 as it is
      DPA               0x0000000001234567  skips and lower decoders 0x0 + 0x1234567, volatile
    ");
}

/// A dword that is often nearly right.
fn dword() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), Just(0), Just(u32::MAX), (0u32..16).prop_map(|n| n << 28)]
}

fn any_image() -> impl Strategy<Value = DecoderImage> {
    let control = prop_oneof![
        any::<u32>(),
        Just(COMMITTED),
        (0u32..0x100).prop_map(|low| COMMITTED | low),
        (0u32..4).prop_map(|kind| COMMITTED & !0x1000 | kind << 12),
        Just(0),
    ];
    let high = || prop_oneof![3 => Just(0u32), 3 => Just(1), 1 => dword()];
    let route = prop_oneof![Just(0u32), 0u32..0x400, any::<u32>()];
    (dword(), high(), dword(), high(), control, route, high()).prop_map(
        |(base_low, base_high, size_low, size_high, control, route_low, route_high)| {
            DecoderImage::from_dwords([
                base_low, base_high, size_low, size_high, control, route_low, route_high, 0,
            ])
        },
    )
}

/// Any built-in's topology with any dwords, and windows anywhere.
fn any_fabric() -> impl Strategy<Value = Fabric> {
    let images = prop::collection::vec(any_image(), 60);
    let bits = prop::collection::vec(any::<u32>(), 20);
    // Types alone, and what devices say of them.
    let types = prop::collection::vec(prop_oneof![8 => Just(0u32), 1 => any::<u32>()], 20);
    let bases = prop::collection::vec(
        prop_oneof![(0u64..32).prop_map(|n| n * M256), any::<u64>(), Just(1 << 32)],
        3,
    );
    let good = prop_oneof![Just(None), (0usize..9).prop_map(Some)];
    (0..builtins().len(), good, images, bits, bases, 0usize..8, types).prop_map(
        |(which, good, images, bits, bases, spoilt, types)| {
            let mut fabric = match good {
                None => fabric(builtins()[which].name),
                Some(0) => flat(),
                Some(1) => switched(),
                Some(2) => two_way(),
                Some(3) => four_way(),
                Some(4) => three_way_at(0x1_0000_0000),
                Some(5) => three_by_two(0, 0),
                Some(6) => lopsided(),
                Some(7) => back_invalidating(),
                Some(_) => xor_four_way(),
            };
            let all = good.is_none();
            let bridges = fabric.bridges.iter_mut().filter_map(|b| b.hdm.as_mut());
            let switches = fabric.switches.iter_mut().filter_map(|s| s.hdm.as_mut());
            let devices = fabric.devices.iter_mut().filter_map(|d| d.hdm.as_mut());
            let hdms = bridges.chain(switches).chain(devices);
            let decoders = hdms.flat_map(|hdm| hdm.decoders.iter_mut());
            // A good fabric is spoilt here and there, another is filled all over.
            for (index, (decoder, image)) in decoders.zip(images).enumerate() {
                if all || (spoilt > 0 && index % (spoilt * 5) == 3) {
                    *decoder = image;
                }
            }
            let bridges = fabric.bridges.iter_mut().filter_map(|b| b.hdm.as_mut());
            let switches = fabric.switches.iter_mut().filter_map(|s| s.hdm.as_mut());
            let devices = fabric.devices.iter_mut().filter_map(|d| d.hdm.as_mut());
            for (hdm, bits) in bridges.chain(switches).chain(devices).zip(types) {
                hdm.capability ^= bits & 3 << 21;
                hdm.decoders.iter_mut().for_each(|decoder| decoder.control ^= bits & 3 << 12);
            }
            if all {
                for (device, bits) in fabric.devices.iter_mut().zip(&bits) {
                    device.present = bits & 7 != 0;
                    device.hdm.as_mut().unwrap().global_control = bits >> 3 | 2;
                    device.dvsec.as_mut().unwrap().control |= bits & 4;
                }
                for (window, base) in fabric.windows.iter_mut().zip(bases) {
                    window.base = (base != 0).then_some(Hpa(base));
                }
            }
            fabric
        },
    )
}

/// Bits 13:12 of Control, BI and type, of every decoder on the way.
fn kinds(fabric: &Fabric, path: &Path) -> Vec<u32> {
    let hops = path.hops.iter().filter_map(|hop| {
        let (index, _) = hop.decoder?;
        let hdm = match hop.at {
            At::Bridge(bridge) => &fabric.bridges[bridge].hdm,
            At::Switch(switch) => &fabric.switches[switch].hdm,
            At::Device(_) => &None,
        };
        Some(hdm.as_ref()?.decoders[usize::from(index)])
    });
    let endpoint = &fabric.devices[path.endpoint.device].hdm.as_ref().unwrap().decoders;
    let endpoint = endpoint[usize::from(path.endpoint.index)];
    hops.chain([endpoint]).map(|decoder| decoder.control >> 12 & 3).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_dwords_give_a_sorted_list_that_covers_exactly_the_windows(fabric in any_fabric()) {
        let list = mappings(&fabric);
        let spans: Vec<Span> = list.iter().filter_map(Mapping::span).collect();
        for pair in spans.windows(2) {
            prop_assert!(pair[0].end() <= pair[1].base(), "{} {}", pair[0], pair[1]);
        }
        // The union of both sides is the same: walk the edges of one through the other.
        let windows: Vec<Span> = fabric
            .windows
            .iter()
            .filter_map(|window| Span::new(window.base?, window.size).ok())
            .collect();
        let in_windows = |hpa| windows.iter().any(|window| window.contains(hpa));
        let in_list = |hpa| spans.iter().any(|span| span.contains(hpa));
        let edges = windows.iter().chain(&spans);
        for edge in edges.flat_map(|span| [span.base().0, span.end().0, span.last().0]) {
            for hpa in [edge.saturating_sub(1), edge, edge.saturating_add(1)].map(Hpa) {
                prop_assert_eq!(in_windows(hpa), in_list(hpa), "{}", hpa);
            }
        }
        // Every window is in the list, if only to say that it has no place.
        let named: BTreeSet<usize> = list.iter().map(|mapping| mapping.window).collect();
        if windows.len() < fabric.windows.len() || fabric.windows.len() == 1 {
            prop_assert!(!named.is_empty() || fabric.windows.is_empty());
        }
        let _ = MappingsText(&fabric, &list).to_string();
    }

    #[test]
    fn what_is_direct_is_what_a_walk_finds_and_nothing_is_there_twice(
        fabric in any_fabric(),
        picks in prop::collection::vec(any::<u64>(), 8),
    ) {
        let list = mappings(&fabric);
        let mut bytes = BTreeSet::new();
        let mut hpas = BTreeSet::new();
        for mapping in &list {
            let Reach::Direct(direct) = &mapping.how else { continue };
            let ends = [0, 0x100, 0x1000, mapping.size - 1];
            for offset in ends.into_iter().chain(picks.iter().map(|pick| pick % mapping.size)) {
                let hpa = Hpa(mapping.hpa.0 + offset);
                let Some((member, dpa)) = direct.locate(hpa) else {
                    return Err(TestCaseError::fail(format!("{hpa} leads nowhere")));
                };
                let path = resolve(&fabric, hpa);
                let kinds: BTreeSet<u32> = path.iter().flat_map(|path| kinds(&fabric, path)).collect();
                prop_assert_eq!(kinds.len(), 1, "type and BI on the way to {}", hpa);
                let path = path.map(|path| {
                    (path.endpoint.device, path.endpoint.index, path.dpa)
                });
                prop_assert_eq!(path, Ok((member.device, member.decoder, dpa)));
                prop_assert_eq!(hpas.insert(hpa), bytes.insert((member.device, dpa)));
                let back = addresses(&fabric, member.device, dpa);
                prop_assert_eq!(back, vec![hpa]);
                let position = direct.members.iter().position(|m| *m == member);
                let position = position.unwrap_or_default() as u32;
                prop_assert_eq!(direct.hpa(position, dpa), Some(hpa));
            }
        }
    }

    #[test]
    fn a_walk_from_any_address_ends(
        fabric in any_fabric(),
        hpa in prop_oneof![any::<u64>(), 0x1_0000_0000u64..0x2_0000_0000],
        device in 0usize..20,
    ) {
        match resolve(&fabric, Hpa(hpa)) {
            Ok(path) => { let _ = PathText(&fabric, &path).to_string(); }
            Err(reason) => { let _ = ReasonText(&fabric, reason).to_string(); }
        }
        let _ = addresses(&fabric, device, Dpa(hpa));
    }
}
