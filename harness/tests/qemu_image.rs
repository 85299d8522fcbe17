//! Our image on QEMU: a machine with firmware of its own, devices that are not ours, and nobody
//! inside who could vouch for us.
//!
//! Decoders are read from outside, through QEMU's qtest socket, by a walk that knows nothing of the
//! library: configuration space by ECAM, BAR 0, the capability array, the HDM structure. Values are
//! typed by hand from CXL r3.1 section 8.2.4.20. Most machines have no exit device: the image
//! switches them off, and `-no-shutdown` keeps them there to be looked at.
//!
//! **Invariant**: what the image says is compared with the registers, never believed. Every test
//! needs QEMU and is ignored, with the remedy, where there is none.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod peer;

#[path = "qemu_image/machine.rs"]
mod machine;
#[path = "qemu_image/outside.rs"]
mod outside;

use std::process::ExitCode;

use cxl_firmware::handoff;
use cxl_harness::console;
use cxl_harness::qemu::process;
use cxl_harness::qemu::qtest::Width;
use cxl_image::doorbell::Status;
use cxl_regs::Component;
use libtest_mimic::Trial;

use machine::{Booted, Machine, exit_code};
use outside::{Decoder, Outside};
use peer::claim;

const MIB: u64 = 1 << 20;
/// Committed, Commit and Lock On Commit, host-only.
const LOCKED: u32 = 0x1700;

fn main() -> ExitCode {
    let mut trials: Vec<Trial> = shapes()
        .into_iter()
        .map(|shape| {
            claim(format!("decoders_of_{}_are_as_planned", shape.name), move || shape.run())
        })
        .collect();
    trials.extend([
        claim("exit_device_gets_the_status", exit_status),
        claim("a_machine_without_exit_device_is_switched_off", switched_off),
        claim("bytes_land_in_the_device_whose_turn_it_is", turns),
        claim("dump_is_what_registers_and_memory_hold", dump),
        claim("locks_that_qemu_does_not_enforce_are_named", attack),
        claim("reset_clears_decoders_and_the_image_brings_them_back", reset),
        claim("memory_keeps_what_is_stored_and_nothing_answers_behind_it", touched),
        claim("memory_behind_two_switch_levels_is_there_or_refused", two_levels),
    ]);
    peer::main(trials)
}

/// A decoder that has to be there: window by number, offset in it, size in MiB, Control, and the
/// two dwords of target list or DPA skip.
type Expected = (usize, u64, u64, u32, [u32; 2]);

/// A machine, and the decoders in use on it after the image ran. A component is a bridge's number,
/// then the device numbers on the way; a trailing 0 is the device or upstream port below the port.
struct Shape {
    name: &'static str,
    arguments: String,
    line: &'static str,
    decoders: Vec<(&'static [u8], Vec<Expected>)>,
    /// Words on the console.
    says: &'static [&'static str],
}

impl Shape {
    fn run(self) {
        let mut booted = Machine::new(&self.arguments).boot(self.line);
        let console = booted.until_end(Status::Success);
        for words in self.says {
            assert!(console.contains(words), "{words:?} is missing:\n{console}");
        }
        assert!(console.contains("\nverifier: ok, "), "{console}");
        let mut outside = Outside::new(&mut booted.qtest);
        let windows = outside.windows();
        let mut components = outside.components();
        for (path, expected) in &self.decoders {
            let at = components.iter().position(|component| component.path == *path);
            let at = at.unwrap_or_else(|| panic!("nothing at {path:?}: {components:x?}"));
            let found = components.remove(at);
            let expected: Vec<Decoder> = expected
                .iter()
                .map(|&(window, offset, mib, control, route)| Decoder {
                    base: windows[window] + offset * MIB,
                    size: mib * MIB,
                    control,
                    route,
                })
                .collect();
            assert_eq!(found.used, expected, "{path:?}\n{console}");
            // What is not in use is untouched.
            assert!(found.spare.iter().all(|dwords| *dwords == [0; 7]), "{path:?}: {found:x?}");
            if let Some(device) = found.device {
                // Mem_Enable, HDM Decoder Enable, and range 1 as decoder 0, which no range can be
                // where the decoder interleaves.
                assert_eq!((device.control & 0x4, device.global & 0x2), (0x4, 0x2), "{path:?}");
                let interleaves = expected[0].control & 0xF0 != 0;
                let base = if interleaves { 0 } else { expected[0].base };
                assert_eq!(device.range_base, base, "{path:?}");
            }
        }
        let rest: Vec<_> = components.iter().filter(|c| !c.used.is_empty()).collect();
        assert!(rest.is_empty(), "decoders that nobody asked for: {rest:x?}");
        let cedt = outside.installed_cedt();
        assert!(cedt.sums, "a checksum of root table or CEDT is wrong");
        assert_eq!(cedt.windows(), windows);
        assert!(
            console.contains(&format!(" at {:#x}, in the root table", cedt.address)),
            "{console}"
        );
    }
}

fn bridge(number: u8, id: &str, kept: bool) -> String {
    let kept = if kept { ",hdm_for_passthrough=true" } else { "" };
    format!(" -device pxb-cxl,bus_nr={number},bus=pcie.0,id={id}{kept}")
}

fn port(number: u8, bus: &str, id: &str, slot: u8) -> String {
    format!(" -device cxl-rp,port={number},bus={bus},id={id},chassis=0,slot={slot}")
}

fn volatile(bus: &str, id: &str) -> String {
    format!(
        " -object memory-backend-ram,id={id}-mem,share=on,size=256M \
         -device cxl-type3,bus={bus},volatile-memdev={id}-mem,id={id}"
    )
}

fn memory(bus: &str, id: &str, volatile: &str, persistent: &str) -> String {
    let mut text = String::new();
    let mut device = format!(" -device cxl-type3,bus={bus},id={id},lsa={id}-lsa");
    for (kind, size) in [("volatile", volatile), ("persistent", persistent), ("lsa", "1M")] {
        if !size.is_empty() {
            text += &format!(" -object memory-backend-ram,id={id}-{kind},share=on,size={size}");
            if kind != "lsa" {
                device += &format!(",{kind}-memdev={id}-{kind}");
            }
        }
    }
    text + &device
}

/// RAM, and the windows: targets and size each.
fn board(ram: &str, windows: &[(&[&str], &str)]) -> String {
    let mut text = format!("-m {ram} -M q35,cxl=on");
    for (index, (targets, size)) in windows.iter().enumerate() {
        for (way, target) in targets.iter().enumerate() {
            text += &format!(",cxl-fmw.{index}.targets.{way}={target}");
        }
        text += &format!(",cxl-fmw.{index}.size={size}");
    }
    text
}

const RAM: &str = "1G,maxmem=8G,slots=4";

fn shapes() -> Vec<Shape> {
    let one = |ram: &str| {
        board(ram, &[(&["hb0"], "4G")])
            + &bridge(12, "hb0", true)
            + &port(0, "hb0", "rp0", 2)
            + &volatile("rp0", "mem0")
    };
    let two = |windows: &[(&[&str], &str)]| {
        board(RAM, windows)
            + &bridge(12, "hb0", true)
            + &bridge(20, "hb1", true)
            + &port(0, "hb0", "rp0", 2)
            + &port(0, "hb1", "rp1", 3)
            + &volatile("rp0", "mem0")
            + &volatile("rp1", "mem1")
    };
    let ports = || {
        board(RAM, &[(&["hb0"], "4G")])
            + &bridge(12, "hb0", false)
            + &port(0, "hb0", "rp0", 2)
            + &port(1, "hb0", "rp1", 3)
            + &volatile("rp0", "mem0")
            + &volatile("rp1", "mem1")
    };
    let switch = || {
        board(RAM, &[(&["hb0"], "4G")])
            + &bridge(12, "hb0", true)
            + &port(0, "hb0", "rp0", 2)
            + " -device cxl-upstream,bus=rp0,id=us0"
            + " -device cxl-downstream,port=0,bus=us0,id=dsp0,chassis=0,slot=4"
            + " -device cxl-downstream,port=1,bus=us0,id=dsp1,chassis=0,slot=5"
            + &volatile("dsp0", "mem0")
            + &volatile("dsp1", "mem1")
    };
    let alone = |window: usize| vec![(window, 0, 256, LOCKED, [0, 0])];
    vec![
        Shape {
            name: "one_device",
            arguments: one(RAM),
            line: "",
            decoders: vec![(&[12], alone(0)), (&[12, 0, 0], alone(0))],
            says: &["cxl firmware at ring 0\n", ": 256 MiB of volatile memory, 1-way, locked\n"],
        },
        Shape {
            // BARs lie above 4 GiB, and there is a second processor that nobody starts.
            name: "a_machine_with_5_gib_and_two_processors",
            arguments: one("5G") + " -smp 2",
            line: "",
            decoders: vec![(&[12], alone(0)), (&[12, 0, 0], alone(0))],
            says: &[": 256 MiB of volatile memory, 1-way, locked\n"],
        },
        Shape {
            // QEMU's CEDT lists bridge 20 first.
            name: "two_bridges",
            arguments: two(&[(&["hb0"], "4G"), (&["hb1"], "4G")]),
            line: "",
            decoders: vec![
                (&[12], alone(0)),
                (&[12, 0, 0], alone(0)),
                (&[20], alone(1)),
                (&[20, 0, 0], alone(1)),
            ],
            says: &["\nbridge 20: component registers at ", "\nbridge 12: component registers at "],
        },
        Shape {
            name: "two_devices_below_one_bridge",
            arguments: ports(),
            line: "",
            decoders: vec![
                (&[12], vec![(0, 0, 256, LOCKED, [0, 0]), (0, 256, 256, LOCKED, [1, 0])]),
                (&[12, 0, 0], alone(0)),
                (&[12, 1, 0], vec![(0, 256, 256, LOCKED, [0, 0])]),
            ],
            says: &[],
        },
        Shape {
            name: "a_switch",
            arguments: switch(),
            line: "",
            decoders: vec![
                (&[12], vec![(0, 0, 256, LOCKED, [0, 0]), (0, 256, 256, LOCKED, [0, 0])]),
                (&[12, 0, 0], vec![(0, 0, 256, LOCKED, [0, 0]), (0, 256, 256, LOCKED, [1, 0])]),
                (&[12, 0, 0, 0, 0], alone(0)),
                (&[12, 0, 0, 1, 0], vec![(0, 256, 256, LOCKED, [0, 0])]),
            ],
            says: &[],
        },
        Shape {
            // IW 1 in the switch; the bridge has one way, and its granularity is the window's.
            name: "an_interleaving_switch",
            arguments: switch(),
            line: "width=widest",
            decoders: vec![
                (&[12], vec![(0, 0, 512, LOCKED, [0, 0])]),
                (&[12, 0, 0], vec![(0, 0, 512, LOCKED | 0x10, [0x0100, 0])]),
                (&[12, 0, 0, 0, 0], vec![(0, 0, 512, LOCKED | 0x10, [0, 0])]),
                (&[12, 0, 0, 1, 0], vec![(0, 0, 512, LOCKED | 0x10, [0, 0])]),
            ],
            says: &[": 512 MiB of volatile memory, 2-way at 256 B, locked\n"],
        },
        Shape {
            // IG 1 in the bridges: behind the root's bit.
            name: "two_ways_across_bridges",
            arguments: two(&[(&["hb0", "hb1"], "4G")]),
            line: "width=widest",
            decoders: vec![
                (&[12], vec![(0, 0, 512, LOCKED | 0x01, [0, 0])]),
                (&[20], vec![(0, 0, 512, LOCKED | 0x01, [0, 0])]),
                (&[12, 0, 0], vec![(0, 0, 512, LOCKED | 0x10, [0, 0])]),
                (&[20, 0, 0], vec![(0, 0, 512, LOCKED | 0x10, [0, 0])]),
            ],
            says: &[": 512 MiB of volatile memory, 2-way at 256 B, locked\n"],
        },
        Shape {
            name: "two_ways_across_ports",
            arguments: ports(),
            line: "width=widest",
            decoders: vec![
                (&[12], vec![(0, 0, 512, LOCKED | 0x10, [0x0100, 0])]),
                (&[12, 0, 0], vec![(0, 0, 512, LOCKED | 0x10, [0, 0])]),
                (&[12, 1, 0], vec![(0, 0, 512, LOCKED | 0x10, [0, 0])]),
            ],
            says: &[": 512 MiB of volatile memory, 2-way at 256 B, locked\n"],
        },
        Shape {
            name: "four_ways_over_two_bridges_with_two_ports",
            arguments: four(volatile),
            line: "width=widest",
            decoders: [12u8, 20]
                .into_iter()
                .flat_map(|number| {
                    let paths: [&'static [u8]; 3] = match number {
                        12 => [&[12], &[12, 0, 0], &[12, 1, 0]],
                        _ => [&[20], &[20, 0, 0], &[20, 1, 0]],
                    };
                    let device = (0, 0, 1024, LOCKED | 0x20, [0, 0]);
                    let bridge = (0, 0, 1024, LOCKED | 0x11, [0x0100, 0]);
                    [(paths[0], vec![bridge]), (paths[1], vec![device]), (paths[2], vec![device])]
                })
                .collect(),
            says: &[": 1 GiB of volatile memory, 4-way at 256 B, locked\n"],
        },
        Shape {
            name: "persistent_memory",
            arguments: board(RAM, &[(&["hb0"], "4G")])
                + &bridge(12, "hb0", true)
                + &port(0, "hb0", "rp0", 2)
                + &memory("rp0", "mem0", "", "256M"),
            line: "",
            decoders: vec![(&[12], alone(0)), (&[12, 0, 0], alone(0))],
            says: &[": 256 MiB of persistent memory, 1-way, locked\n"],
        },
        Shape {
            name: "volatile_and_persistent_memory",
            arguments: board(RAM, &[(&["hb0"], "4G")])
                + &bridge(12, "hb0", true)
                + &port(0, "hb0", "rp0", 2)
                + &memory("rp0", "mem0", "256M", "512M"),
            line: "",
            decoders: vec![
                (&[12], vec![(0, 0, 256, LOCKED, [0, 0]), (0, 256, 512, LOCKED, [0, 0])]),
                (&[12, 0, 0], vec![(0, 0, 256, LOCKED, [0, 0]), (0, 256, 512, LOCKED, [0, 0])]),
            ],
            says: &[
                ": 256 MiB of volatile memory, 1-way, locked\n",
                ": 512 MiB of persistent memory, 1-way, locked\n",
            ],
        },
        Shape {
            // One port and no decoders: there is nothing else to lock.
            name: "a_pass_through_bridge",
            arguments: board(RAM, &[(&["hb0"], "4G")])
                + &bridge(12, "hb0", false)
                + &port(0, "hb0", "rp0", 2)
                + &volatile("rp0", "mem0"),
            line: "",
            decoders: vec![(&[12, 0, 0], alone(0))],
            says: &["\nnote: "],
        },
    ]
}

/// Two bridges with two ports each, one window over both.
fn four(device: impl Fn(&str, &str) -> String) -> String {
    let mut text = board(RAM, &[(&["hb0", "hb1"], "4G")]);
    text += &(bridge(12, "hb0", false) + &bridge(20, "hb1", false));
    for (index, (number, bus)) in
        [(0, "hb0"), (1, "hb0"), (0, "hb1"), (1, "hb1")].iter().enumerate()
    {
        text += &port(*number, bus, &format!("rp{index}"), 2 + index as u8);
        text += &device(&format!("rp{index}"), &format!("mem{index}"));
    }
    text
}

fn one_device() -> Machine {
    Machine::new(&shapes().swap_remove(0).arguments)
}

/// QEMU's `isa-debug-exit` makes twice the value and one of it.
fn exit_status() {
    for (line, status) in [("quiet", 0x10), ("pathe=unlocked", 0x11), ("exits=1", 0x10)] {
        let (code, console) = one_device().until_exit(line);
        assert_eq!(code, Some(exit_code(status)), "{line}: {console}");
        match status {
            0x11 => {
                let refused = "refused: command line: word 1, \"pathe=unlocked\": expected one of ";
                assert!(console.starts_with(refused), "{console}");
                assert!(console.ends_with("address-bits\nend: refused\n"), "{console}");
            }
            _ => assert_eq!(console, ""),
        }
    }
}

/// The payload expects what QEMU gives behind a region.
fn touched() {
    for shape in shapes().into_iter().filter(|shape| shape.line.is_empty()) {
        let (code, console) = Machine::new(&shape.arguments).until_exit("payload=touch");
        assert_eq!(code, Some(exit_code(0x10)), "{}: {console}", shape.name);
    }
}

/// Every decoder on the way says committed and locked. QEMU to 11.1 routes one switch level, and
/// memory behind two reads as 0; one that routes it keeps what the payload stores.
fn two_levels() {
    let arguments = board(RAM, &[(&["hb0"], "4G")])
        + &bridge(12, "hb0", false)
        + &port(0, "hb0", "rp0", 2)
        + &port(1, "hb0", "rp1", 3)
        + " -device cxl-upstream,bus=rp0,id=us0"
        + " -device cxl-downstream,port=0,bus=us0,id=dsp0,chassis=0,slot=4"
        + " -device cxl-upstream,bus=dsp0,id=us1"
        + " -device cxl-downstream,port=0,bus=us1,id=dsp1,chassis=0,slot=5"
        + &volatile("dsp1", "mem0")
        + &volatile("rp1", "mem1");
    let refused =
        ", where bridge 12 port 0.0.0 is to answer: no memory holds what is written there";
    let (code, console) = Machine::new(&arguments).until_exit("payload=touch");
    if code == Some(exit_code(0x10)) {
        return;
    }
    // The other device's memory is in use, and it is an end without success.
    assert_eq!(code, Some(exit_code(0x11)), "{console}");
    assert!(console.contains("\nlost: ") && console.contains(refused), "{console}");
    assert!(console.contains("verifier: ok, 1 region, 2 of 2"), "{console}");
    let (code, console) = Machine::new(&arguments).until_exit("strict payload=touch");
    assert_eq!(code, Some(exit_code(0x11)), "{console}");
    assert!(console.contains(refused) && console.contains("\nrefused: probe: "), "{console}");
    for fate in ["bridge 12 port 0.0.0, decoder 0: stranded", "bridge 12 port 1, decoder 0: done"] {
        assert!(console.contains(fate), "{console}");
    }
    // Nobody asks: then it is somebody else's to find out, and the payload does.
    let (code, console) = Machine::new(&arguments).until_exit("no-probe payload=touch");
    assert_eq!(code, Some(exit_code(0x11)), "{console}");
    assert!(console.contains("not probed (no-probe)"), "{console}");
    assert!(console.contains("\ncheck "), "{console}");
}

/// Without `-no-shutdown` QEMU ends when the machine is off.
fn switched_off() {
    let (code, console) = one_device().until_off("");
    assert_eq!(code, Some(0), "{console}");
    assert!(console.ends_with("\nend: success\n"), "{console}");
}

/// Each device's memory is a file: what is stored by host address lands in one, granule by granule.
fn turns() {
    let directory = tempfile::tempdir().unwrap();
    let file = |id: &str| directory.path().join(id);
    let arguments = four(|bus, id| {
        let path = file(id);
        format!(
            " -object memory-backend-file,id={id}-mem,share=on,size=256M,mem-path={} \
             -device cxl-type3,bus={bus},volatile-memdev={id}-mem,id={id}",
            path.display()
        )
    });
    let mut booted = Machine::new(&arguments).boot("width=widest");
    booted.until_end(Status::Success);
    let window = Outside::new(&mut booted.qtest).windows()[0];
    // Bridges take turns first, then the ports of each (CXL r3.1 section 9.13.1).
    let order = ["mem0", "mem2", "mem1", "mem3"];
    for granule in 0..32u64 {
        booted
            .qtest
            .store(window + 256 * granule + 8, 0xA5A5_0000 + granule, Width::Eight)
            .unwrap();
    }
    let last = window + 1024 * MIB - 8;
    booted.qtest.store(last, 0x5A5A, Width::Eight).unwrap();
    for (turn, id) in order.into_iter().enumerate() {
        let bytes = std::fs::read(file(id)).unwrap();
        let qword = |at: u64| {
            let at = at as usize;
            u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
        };
        for round in 0..8 {
            assert_eq!(qword(256 * round + 8), 0xA5A5_0000 + 4 * round + turn as u64, "{id}");
        }
        let end = if id == "mem3" { 0x5A5A } else { 0 };
        assert_eq!(qword(256 * MIB - 8), end, "{id}");
    }
}

fn dump() {
    let mut booted = Machine::new(&shapes().swap_remove(5).arguments).boot("width=widest dump");
    let console = booted.until_end(Status::Success);
    let collected =
        console::collect(console.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{console}"));
    assert_eq!(collected.end, Some(Status::Success));
    let kinds: Vec<Component> = collected.hdm.iter().map(|found| found.component).collect();
    let expected =
        [Component::HostBridge, Component::UpstreamPort, Component::Device, Component::Device];
    assert_eq!(kinds, expected, "a bridge, a switch, two devices");
    assert_eq!(collected.dvsec.len(), 2);
    let (record, cedt) = (collected.handoff.unwrap(), collected.cedt.unwrap());
    let qtest = &mut booted.qtest;
    let registers = collected.hdm.iter().chain(&collected.dvsec).map(|found| &found.section);
    for section in registers {
        let dwords = section.bytes.chunks_exact(4);
        for (address, dword) in (section.address..).step_by(4).zip(dwords) {
            let found = qtest.load(address, Width::Four).unwrap() as u32;
            assert_eq!(found.to_le_bytes(), dword, "{address:#x}");
        }
    }
    for section in [&record, &cedt] {
        let mut found = vec![0; section.bytes.len()];
        qtest.read_memory(section.address, &mut found).unwrap();
        assert_eq!(found, section.bytes);
    }
    let mut outside = Outside::new(qtest);
    assert_eq!(outside.installed_cedt().address, cedt.address);
    // The record's decoders are those that the walk from outside finds.
    let record = handoff::read(&record.bytes).unwrap();
    let mut said: Vec<(u64, u64, u32)> = record
        .decoders()
        .map(|d| (d.image.base(), d.image.size(), d.image.control().into_bits()))
        .collect();
    let mut found: Vec<(u64, u64, u32)> = outside
        .components()
        .iter()
        .flat_map(|component| component.used.iter().map(|d| (d.base, d.size, d.control)))
        .collect();
    said.sort_unstable();
    found.sort_unstable();
    assert_eq!(said, found);
    assert_eq!(found.len(), 4);
}

/// QEMU stores Lock On Commit and takes every write all the same (`hw/cxl/cxl-component-utils.c`):
/// the report says so, and a write from outside shows that it is right to.
fn attack() {
    let bits = process::dies_of_values(process::version().unwrap());
    let payload = if bits { "attack-bits" } else { "attack-judged" };
    let mut booted = one_device().boot(&format!("config-lock payload={payload}"));
    let console = booted.until_end(Status::Refused);
    let lines = [
        "\nverifier: ok, 1 region, 2 of 2 committed decoders locked\n",
        "\nattack: integrity: BROKEN, the machine does not enforce locks: ",
        "\nattack:   bridge 12, decoder 0\n",
        "\nattack:     HDM Decoder Base Low: 4 of 32 bits (0xf0000000)\n",
        "\nattack:     HDM Decoder Base High: 32 of 32 bits (0xffffffff)\n",
        "\nattack:     HDM Decoder Size Low: 4 of 32 bits (0xf0000000)\n",
        "\nattack:     HDM Decoder Size High: 32 of 32 bits (0xffffffff)\n",
        // IG, IW, Lock, Commit, Type, and Committed that follows Commit.
        "\nattack:     HDM Decoder Control: 12 of 32 bits (0x000017ff)\n",
        "\nattack:   bridge 12 port 0 device, decoder 0\n",
        "\nattack:   bridge 12 port 0 device, CONFIG_LOCK\n",
        "\nattack:     DVSEC CXL Lock: 1 of 16 bits (0x00000001)\n",
        "\nattack:   not tried: after CXL Reset: the component has no such reset ",
        "\nattack:   not tried: after Function Level Reset: the component has no such reset ",
        "a commit that has to be refused is accepted ",
        "\nattack:   bridge 12 port 0 root port: Secondary Bus Reset comes through though masked\n",
    ];
    for line in lines {
        assert!(console.contains(line), "{line:?} is missing:\n{console}");
    }
    let mut again = one_device().boot("");
    again.until_end(Status::Success);
    let (qtest, bridge) = (&mut again.qtest, 0x3_C000_1128 + 0x10);
    let control = bridge + 0x10;
    assert_eq!(qtest.load(control, Width::Four), Ok(LOCKED.into()));
    qtest.store(control, 0, Width::Four).unwrap();
    assert_eq!(qtest.load(control, Width::Four), Ok(0), "this QEMU enforces locks");
}

/// A reset clears decoders, but neither Mem_Enable nor the range bases (QEMU `hw/mem/cxl_type3.c`).
fn reset() {
    let mut booted: Booted = one_device().boot("config-lock");
    let first = booted.until_end(Status::Success);
    let before = Outside::new(&mut booted.qtest).components();
    booted.reset();
    let second = booted.until_end(Status::Success);
    let after = Outside::new(&mut booted.qtest).components();
    assert_eq!(before, after, "{second}");
    assert_eq!(after.iter().map(|c| c.used.len()).sum::<usize>(), 2, "{after:x?}");
    assert_eq!(first, second);
}
