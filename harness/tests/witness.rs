//! Machines by what was printed of them: our image's dump and Linux's sysfs lead every address where the
//! machine's own registers lead it, and lint says the same of the dump as of the machine.
//!
//! **Invariant**: the texts are made here, from the machine's registers alone, in the forms that the image
//! and Linux print.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

mod program;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use cxl_harness::run;
use cxl_lint::{Input, Registers, lint};
use cxl_model::capture::{Ask, read};
use cxl_model::fabric::{Fabric, Parent};
use cxl_model::machine::Machine;
use cxl_model::mapping::{At, Path, Reason, resolve};
use cxl_model::scenario::{BridgeVersion, Scenario, builtin, builtins};
use cxl_regs::block::image;
use cxl_regs::dvsec::{DvsecId, Dvsecs};
use cxl_regs::{Hpa, Ways};
use program::Folder;

/// A machine that the library has set up, and its table.
fn brought_up(text: &str) -> (Machine, Vec<u8>) {
    let scenario = Scenario::parse(text, "built-in").unwrap();
    let mut machine = Machine::new(&scenario);
    let done = run::direct(&mut machine);
    (machine, done.cedt)
}

fn section(kind: &str, place: &str, bytes: &[u8]) -> String {
    let mut text = format!("dump begin {kind} 0x1000 {:#x}{place}\n", bytes.len());
    for (row, bytes) in bytes.chunks(32).enumerate() {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "dump {:#06x}: {digits}", 32 * row).unwrap();
    }
    text + &format!("dump end {kind}\n")
}

/// UID and port numbers down to a port.
fn way(fabric: &Fabric, port: usize) -> (u32, Vec<u8>) {
    let it = &fabric.ports[port];
    let (uid, mut ports) = match it.parent {
        Parent::Bridge(bridge) => (fabric.bridges[bridge].uid, vec![]),
        Parent::Switch(switch) => way(fabric, fabric.switches[switch].port),
    };
    ports.push(it.number);
    (uid, ports)
}

fn said(kind: &str, (uid, ports): &(u32, Vec<u8>)) -> String {
    let ports: Vec<_> = ports.iter().map(u8::to_string).collect();
    format!(" {kind} {uid} {}", ports.join(".")).trim_end().replace("  ", " ")
}

/// What the image prints of a machine.
fn image_dump(machine: &Machine, cedt: &[u8]) -> String {
    let fabric = machine.fabric();
    let mut text = format!("cxl firmware at ring 0\n{}", section("cedt", "", cedt));
    for bridge in &fabric.bridges {
        if let Some(hdm) = &bridge.hdm {
            let place = format!(" host-bridge {}", bridge.uid);
            text += &section("hdm", &place, &hdm.bytes());
        }
    }
    for switch in &fabric.switches {
        if let Some(hdm) = &switch.hdm {
            let place = said("upstream-port", &way(&fabric, switch.port));
            text += &section("hdm", &place, &hdm.bytes());
        }
    }
    for device in fabric.devices.iter().filter(|device| device.present) {
        let seat = said("device", &way(&fabric, device.port));
        if let Some(hdm) = &device.hdm {
            text += &section("hdm", &seat, &hdm.bytes());
        }
        let place = machine.find(&device.name).unwrap();
        let config = machine.function(place).unwrap().bytes();
        let at = Dvsecs::new(image(config)).find(DvsecId::Device).ok().flatten();
        if let Some(at) = at.map(|dvsec| usize::from(dvsec.offset)) {
            text += &section("dvsec", &seat, &config[at..at + 0x38]);
        }
    }
    text
}

/// What Linux shows of a machine whose devices it has taken: a line an attribute, links as `find` prints
/// them. Ports are numbered as they come up.
fn sysfs(fabric: &Fabric) -> String {
    let mut text = String::new();
    let root = "/sys/devices/platform/ACPI0017:00/root0";
    for (index, window) in fabric.windows.iter().enumerate() {
        let at = format!("{root}/decoder0.{index}");
        let targets: Vec<_> = window.targets.iter().map(u32::to_string).collect();
        let base = window.base.unwrap_or_default().0;
        writeln!(text, "{at}/start:{base:#x}\n{at}/size:{:#x}", window.size).unwrap();
        writeln!(text, "{at}/interleave_ways:{}", window.targets.len()).unwrap();
        let granularity = window.interleave.granularity.bytes();
        writeln!(text, "{at}/interleave_granularity:{granularity}").unwrap();
        writeln!(text, "{at}/target_list:{}", targets.join(",")).unwrap();
        let admits = window.restrictions;
        writeln!(text, "{at}/cap_ram:{}", u8::from(admits.volatile())).unwrap();
        writeln!(text, "{at}/cap_pmem:{}", u8::from(admits.persistent())).unwrap();
        writeln!(text, "{at}/cap_type2:{}", u8::from(admits.device_coherent())).unwrap();
        writeln!(text, "{at}/cap_type3:{}", u8::from(admits.host_only())).unwrap();
    }
    let mut next = 1;
    let mut switches = vec![String::new(); fabric.switches.len()];
    let mut bridges = Vec::new();
    for (index, bridge) in fabric.bridges.iter().enumerate() {
        let at = format!("{root}/port{next}");
        let host = format!("pci0000:{index:02x}");
        writeln!(text, "{root}/dport{} -> ../../../{host}", bridge.uid).unwrap();
        writeln!(text, "{at}/uport -> ../../../../{host}").unwrap();
        decoders(&mut text, &at, next, bridge.hdm.as_ref(), false);
        bridges.push(at);
        next += 1;
    }
    for index in 0..fabric.switches.len() {
        let switch = &fabric.switches[index];
        let above = match fabric.ports[switch.port].parent {
            Parent::Bridge(bridge) => bridges[bridge].clone(),
            Parent::Switch(switch) => switches[switch].clone(),
        };
        let at = format!("{above}/port{next}");
        writeln!(text, "{at}/uport -> ../../0000:{:02x}:00.0", 0x40 + index).unwrap();
        writeln!(text, "{at}/parent_dport -> ../../{}", dport(switch.port)).unwrap();
        decoders(&mut text, &at, next, switch.hdm.as_ref(), false);
        switches[index] = at;
        next += 1;
    }
    for (index, port) in fabric.ports.iter().enumerate() {
        let at = match port.parent {
            Parent::Bridge(bridge) => &bridges[bridge],
            Parent::Switch(switch) => &switches[switch],
        };
        writeln!(text, "{at}/dport{} -> ../../{}", port.number, dport(index)).unwrap();
    }
    for (index, device) in fabric.devices.iter().enumerate().filter(|(_, it)| it.present) {
        let above = match fabric.ports[device.port].parent {
            Parent::Bridge(bridge) => &bridges[bridge],
            Parent::Switch(switch) => &switches[switch],
        };
        let at = format!("{above}/endpoint{next}");
        let mem = format!("/sys/devices/pci0000:00/0000:80:{index:02x}.0/mem{index}");
        writeln!(text, "{at}/uport -> ../..{mem}").unwrap();
        writeln!(text, "{at}/parent_dport -> ../../{}", dport(device.port)).unwrap();
        writeln!(text, "{mem}/ram/size:{:#x}", device.volatile).unwrap();
        writeln!(text, "{mem}/pmem/size:{:#x}", device.persistent).unwrap();
        decoders(&mut text, &at, next, device.hdm.as_ref(), true);
        next += 1;
    }
    text
}

fn dport(port: usize) -> String {
    format!("0000:{:02x}:{:02x}.0", 0x20 + port / 32, port % 32)
}

fn decoders(
    text: &mut String,
    at: &str,
    port: usize,
    hdm: Option<&cxl_model::fabric::HdmImage>,
    device: bool,
) {
    let mut dpa = 0;
    for (index, image) in hdm.iter().flat_map(|hdm| hdm.decoders.iter().enumerate()) {
        let at = format!("{at}/decoder{port}.{index}");
        let control = image.control();
        if !control.committed() {
            writeln!(text, "{at}/start:0x0\n{at}/size:0x0").unwrap();
            continue;
        }
        let ways = Ways::decode(control.ways()).unwrap().count();
        writeln!(text, "{at}/start:{:#x}\n{at}/size:{:#x}", image.base(), image.size()).unwrap();
        writeln!(text, "{at}/interleave_ways:{ways}").unwrap();
        writeln!(text, "{at}/interleave_granularity:{}", 256 << control.granularity()).unwrap();
        writeln!(text, "{at}/locked:{}", u8::from(control.locked())).unwrap();
        let kind = if control.host_only() { "expander" } else { "accelerator" };
        writeln!(text, "{at}/target_type:{kind}").unwrap();
        if device {
            dpa += image.skip();
            let share = image.size() / u64::from(ways);
            writeln!(text, "{at}/dpa_resource:{dpa:#x}\n{at}/dpa_size:{share:#x}").unwrap();
            dpa += share;
        } else {
            let targets: Vec<_> =
                image.targets().iter().take(ways as usize).map(u8::to_string).collect();
            writeln!(text, "{at}/target_list:{}", targets.join(",")).unwrap();
        }
    }
}

fn input_of(text: &str) -> Input {
    let capture = read(text.as_bytes(), Ask::default()).unwrap_or_else(|e| panic!("{e}\n{text}"));
    Input::of_captures(&[(PathBuf::from("text"), capture)]).unwrap().0
}

/// Addresses round every end of a window and of a decoder, and between.
fn addresses(fabric: &Fabric) -> BTreeSet<u64> {
    let hdms = fabric.bridges.iter().map(|it| &it.hdm);
    let hdms = hdms.chain(fabric.devices.iter().map(|it| &it.hdm));
    let images = hdms.flatten().flat_map(|hdm| &hdm.decoders);
    let ends = images.flat_map(|image| [image.base(), image.base() + image.size()]);
    let windows = fabric.windows.iter().flat_map(|window| {
        let base = window.base.unwrap_or_default().0;
        [base, base + window.size]
    });
    let ends: Vec<_> = ends.chain(windows).collect();
    let near = [0u64.wrapping_sub(1), 0, 64, 256, 512, 0x1000, 0x1_2340, 0x1000_0100];
    ends.iter().flat_map(|end| near.map(|step| end.wrapping_add(step))).collect()
}

/// The window's way, each hop's way and decoder, the device's decoder, DPA.
type Led = (u32, Vec<(u32, Option<u8>)>, u8, u64);

/// Where an address leads, without names: those differ from text to text.
fn leads(found: Result<Path, Reason>) -> Option<Led> {
    let path = found.ok()?;
    let hops = path.hops.iter().map(|hop| (hop.way, hop.decoder.map(|(index, _)| index)));
    Some((path.root_way, hops.collect(), path.endpoint.index, path.dpa.0))
}

#[test]
fn the_images_dump_leads_every_address_where_the_machine_does() {
    let mut direct = 0;
    for builtin in builtins() {
        let (machine, cedt) = brought_up(builtin.text);
        let fabric = machine.fabric();
        if cedt.is_empty() {
            continue;
        }
        let reached = input_of(&image_dump(&machine, &cedt)).reached();
        for hpa in addresses(&fabric) {
            let [ours, theirs] = [&fabric, &reached.fabric].map(|it| leads(resolve(it, Hpa(hpa))));
            direct += usize::from(ours.is_some());
            // Whether memory is there is not in the dump: its end is where decoders end.
            assert_eq!(ours, theirs, "{} {hpa:#x}", builtin.name);
        }
    }
    assert!(direct > 300, "{direct}");
}

#[test]
fn what_linux_shows_leads_every_address_where_the_machine_does() {
    let mut direct = 0;
    for builtin in builtins() {
        let (machine, cedt) = brought_up(builtin.text);
        let fabric = machine.fabric();
        // Linux shows neither the maps of a window nor how coherent a device is.
        let plain = fabric.windows.iter().all(|window| window.xor_maps.is_empty());
        let old = machine.scenario().bridges.iter().any(|it| it.version == BridgeVersion::Cxl1);
        if cedt.is_empty() || !plain || old || builtin.text.contains("HDM-DB") {
            continue;
        }
        let mut reached = input_of(&sysfs(&fabric)).reached();
        // A pass-through bridge has a decoder in sysfs too once it is in use; this text leaves it out.
        reached.fabric.physical_bits = fabric.physical_bits;
        for hpa in addresses(&fabric) {
            let [ours, theirs] = [&fabric, &reached.fabric].map(|it| leads(resolve(it, Hpa(hpa))));
            if ours.is_some() {
                direct += 1;
                assert_eq!(ours, theirs, "{} {hpa:#x}\n{}", builtin.name, sysfs(&fabric));
            }
        }
    }
    assert!(direct > 200, "{direct}");
}

#[test]
fn lint_says_of_the_images_dump_what_it_says_of_the_machine() {
    for builtin in builtins() {
        let (machine, cedt) = brought_up(builtin.text);
        if cedt.is_empty() {
            continue;
        }
        let given = |input: &Input| -> BTreeSet<_> {
            let found = lint(input).into_iter().filter(|finding| finding.refused());
            found.map(|finding| (finding.rule.name(), finding.decoder)).collect()
        };
        let mut whole = Input::of(&machine, &cedt);
        let mut dumped = input_of(&image_dump(&machine, &cedt));
        // Capacity, status and range registers are not in the dump of this test.
        for device in whole.devices.iter_mut().chain(&mut dumped.devices) {
            (device.capacity, device.status, device.config) = (None, None, None);
        }
        assert_eq!(given(&whole), given(&dumped), "{}", builtin.name);
    }
}

#[test]
fn commands_take_a_dump_as_they_take_a_scenario() {
    let folder = Folder::new();
    let (machine, cedt) = brought_up(builtin("two-way").unwrap().text);
    let fabric = machine.fabric();
    let base = fabric.windows[0].base.unwrap();
    let console = folder.file("console.log", image_dump(&machine, &cedt));
    let shown = folder.file("sysfs.txt", sysfs(&fabric));
    for file in [&console, &shown] {
        let (output, _, code) =
            program::ran(&mut program::command(&["explain", file, &base.to_string()]));
        assert_eq!(code, 0, "{output}");
        assert!(output.contains(", DPA 0x0 (volatile)"), "{output}");
        let (output, _, code) = program::ran(&mut program::command(&["explain", file, "0x10"]));
        assert_eq!(
            (code, output.trim()),
            (1, "HPA 0x10 leads to no memory: no window has this address")
        );
        let (output, complaints, code) = program::ran(&mut program::command(&["lint", file]));
        assert_eq!(code, 0, "{output}{complaints}");
        assert!(output.contains("remark            "), "{output}");
    }
    // The directory that `dump` writes, and each file of it, too.
    let board = folder.name("board");
    let (_, complaints, code) = program::ran(&mut program::command(&["dump", "default", &board]));
    assert_eq!((code, complaints.as_str()), (0, ""));
    let address = base.to_string();
    let expected = program::ran(&mut program::command(&["explain", "default", &address]));
    assert_eq!(program::ran(&mut program::command(&["explain", &board, &address])), expected);
    let (lint, complaints, code) = program::ran(&mut program::command(&["lint", &board]));
    assert_eq!((code, complaints.as_str()), (0, ""), "{lint}");
    assert!(!lint.contains("not looked at"), "{lint}");
    for name in [
        "cedt.dat",
        "acpidump.txt",
        "hb0.bin",
        "mem0.bin",
        "mem0.lspci",
        "lspci.txt",
        "console.log",
    ] {
        let file = format!("{board}/{name}");
        let (output, complaints, code) = program::ran(&mut program::command(&["decode", &file]));
        assert_eq!((code, complaints.as_str()), (0, ""), "{name}: {output}");
    }
    let again = program::ran(&mut program::command(&["dump", "default", &board]));
    assert_eq!(again.2, 2, "a directory with files is not written to");
    // Registers that nobody gave are named, and not taken for registers that are not there.
    let table = folder.file("cedt.dat", &cedt);
    let bridges = format!(
        "images = \"a table\"\ncedt = \"{table}\"\n[[bridge]]\nuid = {}\n",
        fabric.windows[0].targets[0]
    );
    let set = folder.file("set.toml", bridges);
    let (output, _, code) =
        program::ran(&mut program::command(&["explain", &set, &base.to_string()]));
    assert_eq!(code, 1);
    assert!(output.contains("nobody gave the registers of hb0"), "{output}");
}

/// What `cxl list` prints of one device: `address` is what it has of a decoder's address, `decoders` whether it
/// was asked for those of ports.
fn listed(address: &str, decoders: bool) -> String {
    let shown = |name: &str, size: u64, rest: &str| {
        format!(r#"{{"decoder":"{name}",{address}"size":{size},"interleave_ways":1{rest}}}"#)
    };
    let to = |dport: &str, id: u32| {
        format!(r#","nr_targets":1,"targets":[{{"target":"{dport}","position":0,"id":{id}}}]"#)
    };
    let takes = r#","volatile_capable":true"#.to_owned();
    let window = shown("decoder0.0", 4 << 30, &(takes + &to("pci0000:10", 16)));
    let bridge = shown("decoder1.0", 256 << 20, &to("0000:10:00.0", 0));
    let device = shown("decoder2.0", 256 << 20, r#","dpa_resource":0,"dpa_size":268435456"#);
    let [bridge, device] = [("port1", bridge), ("endpoint2", device)].map(|(port, decoder)| {
        if decoders { format!(r#","decoders:{port}":[{decoder}]"#) } else { String::new() }
    });
    format!(
        r#"[{{"bus":"root0","provider":"ACPI.CXL","nr_dports":1,
"dports":[{{"dport":"pci0000:10","id":16}}],
"decoders:root0":[{window}],
"ports:root0":[{{"port":"port1","host":"pci0000:10","nr_dports":1,
"dports":[{{"dport":"0000:10:00.0","id":0}}]{bridge},
"endpoints:port1":[{{"endpoint":"endpoint2","host":"mem0","parent_dport":"0000:10:00.0",
"memdev":{{"memdev":"mem0","ram_size":268435456,"host":"0000:11:00.0"}}{device}}}]}}]}}]
"#
    )
}

#[test]
fn what_a_listing_leaves_out_is_not_looked_at_and_not_refused() {
    let base = r#""resource":4294967296,"#;
    let gaps = |input: &Input| -> Vec<String> {
        cxl_lint::unchecked(input).into_iter().map(|gap| gap.missing).collect()
    };
    // All of it, all but decoders, all but what only root is shown.
    for (address, decoders) in [(base, true), (base, false), ("", true)] {
        let input = input_of(&listed(address, decoders));
        let refused: Vec<_> = lint(&input).into_iter().filter(|it| it.refused()).collect();
        assert!(refused.is_empty(), "{address:?} {decoders}: {refused:#?}");
        // Linux shows neither of these, whatever it is asked.
        assert_eq!((&input.devices[0].config, input.devices[0].status), (&None, None));
        let gaps = gaps(&input);
        assert!(gaps.contains(&"configuration space of mem0".to_owned()), "{gaps:?}");
        let whole = decoders && !address.is_empty();
        for registers in [&input.bridges[0].registers, &input.devices[0].registers] {
            assert_eq!(*registers != Registers::Unknown, whole, "{address:?} {decoders}");
        }
        for name in ["registers of hb0", "registers of mem0"] {
            assert_eq!(gaps.contains(&name.to_owned()), !whole, "{address:?} {decoders}: {gaps:?}");
        }
        // A window without an address is none, and not one at 0.
        assert_eq!(input.cedt.is_none(), address.is_empty());
        let found = input.reached().resolve(Hpa(4 << 30));
        match (decoders, address.is_empty()) {
            (true, false) => assert_eq!(found.map(|path| path.dpa.0), Ok(0)),
            (false, _) => assert_eq!(found, Err(Reason::NotGiven { at: At::Device(0) })),
            (_, true) => assert_eq!(found, Err(Reason::WindowsNotGiven)),
        }
    }
}

#[test]
fn a_table_that_nobody_gave_is_said_not_to_be_given() {
    let folder = Folder::new();
    let list = folder.file("list.json", listed(r#""resource":4294967296,"#, true));
    let (text, _, code) = program::ran(&mut program::command(&["lint", &list]));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("the CEDT was not given"), "{text}");
    assert!(text.contains("without configuration space of mem0"), "{text}");
    let (text, _, _) = program::ran(&mut program::command(&["inspect", &list, "--json"]));
    let told = text.contains("CONFIG_LOCK") || text.contains("CXL.mem o");
    assert!(!told && text.contains("configuration space not given"), "{text}");
}

/// `cxl list` has no word of locks, and that is no word against them.
#[test]
fn a_lock_that_is_not_shown_is_not_shown_as_open() {
    let folder = Folder::new();
    let list = folder.file("list.json", listed(r#""resource":4294967296,"#, true));
    let (text, ..) = program::ran(&mut program::command(&["inspect", &list, "--json"]));
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    let shown = &told["shown"];
    let shown = if shown.is_null() { &told["locks"]["shown"] } else { shown };
    assert_eq!((&shown["locked"], &shown["open"]), (&0.into(), &0.into()), "{text}");
    assert!(shown["not_shown"].as_u64().is_some_and(|count| count > 0), "{text}");
    let (text, ..) = program::ran(&mut program::command(&["inspect", &list]));
    assert!(text.contains("0 decoders with a range locked, 0 not, "), "{text}");
}
