//! The machine from outside: what is found where, which accesses reach a register, what resets,
//! faults and hot-plug do, and that an access to a window ends where the bytes were dealt.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod rig;

use cxl_model::device::Reset;
use cxl_model::fabric::{Fabric, HdmImage};
use cxl_model::image;
use cxl_model::machine::{Changes, Machine, PlugError, PlugText};
use cxl_model::mapping::{Reach, mappings};
use cxl_model::scenario::{BridgeVersion, Partition, Place, builtin, builtins};
use cxl_model::store::Store;
use cxl_model::trace::{Count, Direction, Target};
use cxl_regs::component::{Capabilities, CapabilityId};
use cxl_regs::config::{PcieCapability, PortType};
use cxl_regs::dvsec::{DvsecId, Dvsecs, locator};
use cxl_regs::mmio::{Clock, Mmio};
use cxl_regs::{Dpa, Hpa, mailbox};
use proptest::prelude::*;
use rig::*;

fn store8(machine: &mut Machine, hpa: u64, byte: u8) {
    machine.store(hpa, &[byte]);
}

fn load8(machine: &Machine, hpa: u64) -> u8 {
    let mut byte = [0];
    machine.load(hpa, &mut byte);
    byte[0]
}

fn media8(machine: &Machine, device: usize, dpa: u64) -> u8 {
    let mut byte = [0xAA];
    assert!(machine.endpoint(device).unwrap().media.read(Dpa(dpa), &mut byte));
    byte[0]
}

/// A dword reader over configuration space or a component block at an address.
fn reader(machine: &mut Machine, base: u64) -> impl FnMut(u16) -> u32 {
    move |offset| machine.read(base + u64::from(offset))
}

// What is found.

#[test]
fn every_function_has_its_dvsecs_and_its_locator_leads_to_component_registers() {
    use DvsecId as Id;
    let text = format!(
        "{SMALL}\n[[port]]\nname = \"rp1\"\nbelow = \"hb0\"\n\
         [[switch]]\nname = \"sw0\"\nbelow = \"rp1\"\n\
         [[port]]\nname = \"dp0\"\nbelow = \"sw0\"\n[[device]]\nname = \"acc0\"\nbelow = \"dp0\"\n\
         kind = \"type2\"\nvolatile = \"256MiB\"\n"
    );
    let mut machine = machine(&text);
    let port = &[Id::PortExtensions, Id::GpfPort, Id::FlexBusPort, Id::RegisterLocator][..];
    let device = &[Id::Device, Id::GpfDevice, Id::FlexBusPort, Id::RegisterLocator][..];
    for (name, kind, dvsecs, hdm) in [
        ("rp0", PortType::RootPort, port, false),
        ("sw0", PortType::UpstreamPort, &[Id::FlexBusPort, Id::RegisterLocator][..], true),
        ("dp0", PortType::DownstreamPort, port, false),
        ("mem0", PortType::Endpoint, device, true),
        ("acc0", PortType::Endpoint, device, true),
    ] {
        let base = config(&machine, name);
        let found: Vec<_> =
            Dvsecs::new(reader(&mut machine, base)).map(|dvsec| dvsec.unwrap()).collect();
        assert_eq!(found.iter().map(|d| d.id).collect::<Vec<_>>(), dvsecs, "{name}");
        let pcie = PcieCapability::read(reader(&mut machine, base), 0x40);
        assert_eq!(pcie.port_type(), kind, "{name}");

        let entries = locator::Locations::new(found.last().unwrap(), reader(&mut machine, base));
        let first = entries.unwrap().next().unwrap().unwrap();
        assert_eq!((first.id, first.bar, first.offset), (locator::BlockId::Component, 0, 0));
        let at = component(&machine, name) + 0x1000;
        let capabilities = Capabilities::new(reader(&mut machine, at)).unwrap();
        let decoders = capabilities.find(CapabilityId::HdmDecoder);
        assert_eq!(decoders.map(|found| found.pointer), hdm.then_some(0x128), "{name}");
    }
}

#[test]
fn port_numbers_sit_in_link_capabilities() {
    let mut machine = machine(SMALL);
    let link = config(&machine, "rp0") + 0x40 + 0x0C;
    assert_eq!(machine.read(link) >> 24, 5);
}

#[test]
fn hidden_decoders_leave_a_null_entry_with_junk() {
    let text = SMALL.replace("decoders = 4", "decoders = 0");
    let mut machine = machine(&text);
    for (name, entry) in [("hb0", 1), ("rp0", 3)] {
        let entry = machine.read(component(&machine, name) + 0x1000 + 4 * entry);
        assert_eq!(entry & 0xFFFF, 0, "{name}");
        assert_ne!(entry, 0, "{name}");
    }
}

#[test]
fn root_port_with_idle_decoders_routes_nothing_by_them() {
    let text = SMALL.replace("number = 5", "number = 5\nhdm = true");
    let mut machine = machine(&text);
    let control = program(&mut machine, "rp0", 0, (1 << 32, UNIT, 0), HOST_ONLY | COMMIT);
    assert_eq!(control & COMMITTED, COMMITTED);
    assert_eq!(machine.resolve(1 << 32), None);
}

#[test]
fn back_invalidate_and_cache_id_structures_are_where_the_scenario_asks() {
    let text =
        SMALL.replace("decoders = 4", "decoders = 4\nback_invalidate = true\ncache_id = true");
    let text = format!(
        "{}\n[[switch]]\nname = \"sw0\"\nbelow = \"rp1\"\n[[port]]\nname = \"dp0\"\n\
         below = \"sw0\"\n[[port]]\nname = \"rp1\"\nbelow = \"hb0\"\n\
         [[device]]\nname = \"bi0\"\nbelow = \"dp0\"\nvolatile = \"256MiB\"\n\
         coherency = \"back-invalidate\"\n",
        text
    );
    let mut machine = machine(&text);
    use CapabilityId as Id;
    for (name, expected) in [
        ("hb0", &[Id::CacheIdRouteTable][..]),
        ("rp0", &[Id::BiDecoder, Id::CacheIdDecoder]),
        ("sw0", &[Id::BiRouteTable, Id::CacheIdRouteTable]),
        ("dp0", &[Id::BiDecoder, Id::CacheIdDecoder]),
        ("bi0", &[Id::BiDecoder]),
        ("mem0", &[]),
    ] {
        let at = component(&machine, name) + 0x1000;
        let found = Capabilities::new(reader(&mut machine, at)).unwrap().flatten();
        let found: Vec<_> =
            found.map(|found| found.id).filter(|id| id.code() >= Id::BiRouteTable.code()).collect();
        assert_eq!(found, expected, "{name}");
    }
    // A downstream port's BI decoder commits: Committed follows Commit.
    let status = component(&machine, "dp0") + 0x1000 + 0x620;
    for (control, committed) in [(0b010, 0), (0b110, 1), (0b010, 0)] {
        machine.write(status + 4, control);
        assert_eq!(machine.read(status + 8) & 1, committed, "{control:#b}");
        assert_eq!(machine.read(status + 4), control);
    }
    // A device's has no commit bit.
    let device = component(&machine, "bi0") + 0x1000 + 0x620;
    machine.write(device + 4, 0b111);
    assert_eq!(machine.read(device + 4), 0b010);
}

#[test]
fn mailbox_tells_partitions_and_type_2_has_none() {
    let mut machine = machine(SMALL);
    let registers = machine.function(Place::Device(0)).unwrap().bar(2).unwrap().base().0;
    let status = 0x400;
    assert_eq!(machine.read(registers + status) & 0x1C, 0x14, "media ready, interface ready");
    let mailbox_at = 0x100u16;
    let mut run = |opcode: u32, length: u32| {
        machine.write(registers + 0x108, opcode | length << 16);
        machine.write(registers + 0x10C, 0);
        machine.write(registers + 0x104, 1);
        assert_eq!(machine.read(registers + 0x104) & 1, 0, "doorbell");
        let code = machine.read(registers + 0x114) & 0xFFFF;
        (code, machine.read(registers + 0x108) >> 16)
    };
    assert_eq!(run(0x4000, 0), (0, 0x45));
    assert_eq!(run(0x4000, 4).0, 0x16, "input where none belongs");
    assert_eq!(run(0x0001, 0).0, 0x03, "no such command");
    assert_eq!(run(0x4100, 0), (0, 0x20));
    let info =
        mailbox::PartitionInfo::read(reader(&mut machine, registers), mailbox_at, 0x20).unwrap();
    assert_eq!((info.active_volatile.get(), info.active_persistent.get()), (1, 1));

    let machine = Machine::new(&scenario(
        &SMALL.replace("below = \"rp0\"\nvolatile", "below = \"rp0\"\nkind = \"type2\"\nvolatile"),
    ));
    assert_eq!(machine.function(Place::Device(0)).unwrap().bar(2), None);
    assert!(machine.endpoint(0).unwrap().mailbox.is_none());
}

/// Runs a command of the first device's mailbox: its code and its output.
fn command(machine: &mut Machine, opcode: u32, input: &[u8]) -> (u32, Vec<u8>) {
    let registers = machine.function(Place::Device(0)).unwrap().bar(2).unwrap().base().0;
    for (at, dword) in (registers + 0x120..).step_by(4).zip(input.chunks(4)) {
        let byte = |index| dword.get(index).copied().unwrap_or(0);
        machine.write(at, u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]));
    }
    // The Command register is one of 64 bits.
    let value = u64::from(opcode) | (input.len() as u64) << 16;
    machine.write_bytes(registers + 0x108, &value.to_le_bytes());
    machine.write(registers + 0x104, 1);
    let code = machine.read(registers + 0x114) & 0xFFFF;
    let length = machine.read(registers + 0x108) >> 16;
    let output = (0..length.div_ceil(4))
        .flat_map(|dword| machine.read(registers + 0x120 + u64::from(4 * dword)).to_le_bytes());
    let mut output: Vec<_> = if code == 0 { output.collect() } else { Vec::new() };
    output.truncate(length as usize);
    (code, output)
}

#[test]
fn a_mailbox_tells_its_commands_in_the_command_effects_log() {
    let mut machine = machine(SMALL);
    // 0da9c0b5-bf41-4b78-8f79-96b1623b3f17; one log, of 15 entries of 4 bytes.
    let name = *b"\x0d\xa9\xc0\xb5\xbf\x41\x4b\x78\x8f\x79\x96\xb1\x62\x3b\x3f\x17";
    let (code, logs) = command(&mut machine, 0x0400, &[]);
    assert_eq!((code, &logs[..8]), (0, &[1, 0, 0, 0, 0, 0, 0, 0][..]));
    assert_eq!((&logs[8..24], &logs[24..]), (&name[..], &[60, 0, 0, 0][..]));
    let ask = |offset: u8, length: u8| {
        let mut input = name.to_vec();
        input.extend([offset, 0, 0, 0, length, 0, 0, 0]);
        input
    };
    let log = [
        [0x00, 0x01, 0x00, 0x00],
        [0x01, 0x01, 0x10, 0x00],
        [0x02, 0x01, 0x00, 0x00],
        [0x03, 0x01, 0x08, 0x00],
        [0x00, 0x03, 0x00, 0x00],
        [0x01, 0x03, 0x08, 0x00],
        [0x00, 0x04, 0x00, 0x00],
        [0x01, 0x04, 0x00, 0x00],
        [0x00, 0x40, 0x00, 0x00],
        [0x00, 0x41, 0x00, 0x00],
        [0x02, 0x41, 0x00, 0x00],
        [0x03, 0x41, 0x06, 0x00],
        [0x00, 0x42, 0x00, 0x00],
        [0x03, 0x42, 0x00, 0x00],
        [0x04, 0x42, 0x08, 0x00],
    ];
    assert_eq!(command(&mut machine, 0x0401, &ask(0, 60)), (0, log.concat()));
    assert_eq!(command(&mut machine, 0x0401, &ask(4, 8)), (0, log[1..3].concat()));
    assert_eq!(command(&mut machine, 0x0401, &ask(4, 60)).0, 0x02, "past the end");
    assert_eq!(command(&mut machine, 0x0401, &[0; 24]).0, 0x17, "no such log");
    // What the log names is there, with or without the input that it wants; what it does not, is not.
    for opcode in 0..0x6000 {
        let named = log.iter().any(|entry| entry[..2] == u16::to_le_bytes(opcode as u16));
        assert_eq!(command(&mut machine, opcode, &[]).0 != 0x03, named, "{opcode:#06x}");
    }
}

#[test]
fn events_time_and_health_are_those_of_a_device_that_is_well() {
    let mut machine = machine(SMALL);
    assert_eq!(command(&mut machine, 0x0100, &[3]), (0, vec![0; 32]), "no fatal event");
    assert_eq!(command(&mut machine, 0x0100, &[4]).0, 0x02, "no such log");
    assert_eq!(command(&mut machine, 0x0101, &[0, 1, 0, 0, 0, 0]), (0, vec![]), "all of none");
    assert_eq!(command(&mut machine, 0x0101, &[0, 0, 1, 0, 0, 0, 7, 0]).0, 0x0E, "no event 7");
    assert_eq!(command(&mut machine, 0x0103, &[1, 0, 0, 0]).0, 0x02, "there is no MSI");
    assert_eq!(command(&mut machine, 0x0103, &[0; 4]).0, 0);
    assert_eq!(command(&mut machine, 0x0102, &[]), (0, vec![0; 4]));
    assert_eq!(command(&mut machine, 0x4200, &[]), (0, vec![0; 18]));
    let time = |machine: &mut Machine| {
        u64::from_le_bytes(command(machine, 0x0300, &[]).1.try_into().unwrap())
    };
    assert_eq!(time(&mut machine), 0);
    assert_eq!(command(&mut machine, 0x0301, &1_000_000_000_000u64.to_le_bytes()).0, 0);
    assert!((1_000_000_000_000..2_000_000_000_000).contains(&time(&mut machine)));
    machine.reset_device(0, Reset::Hot);
    machine.assign();
    assert_eq!(time(&mut machine), 0);
}

#[test]
fn labels_are_where_persistent_memory_is_and_outlive_resets() {
    let mut machine = machine(SMALL);
    let (_, identity) = command(&mut machine, 0x4000, &[]);
    assert_eq!(identity[0x38..0x3C], 65_536u32.to_le_bytes(), "bytes of labels");
    let set = |offset: u32, data: &[u8]| [&offset.to_le_bytes()[..], &[0; 4], data].concat();
    let get = |offset: u32, length: u32| [offset.to_le_bytes(), length.to_le_bytes()].concat();
    assert_eq!(command(&mut machine, 0x4103, &set(65_532, b"last")).0, 0);
    assert_eq!(command(&mut machine, 0x4103, &set(65_533, b"late")).0, 0x02, "past the end");
    for reset in Reset::ALL {
        machine.reset_device(0, reset);
        machine.assign();
        assert_eq!(command(&mut machine, 0x4102, &get(65_530, 6)), (0, b"\0\0last".to_vec()));
    }
    assert_eq!(command(&mut machine, 0x4102, &get(0, 513)).0, 0x02, "more than the payload holds");
    assert_eq!(command(&mut machine, 0x4102, &get(u32::MAX, 2)).0, 0x02);

    let mut volatile = Machine::new(&scenario(&SMALL.replace("persistent = \"256MiB\"", "")));
    assert_eq!(command(&mut volatile, 0x4000, &[]).1[0x38..0x3C], [0; 4]);
    assert_eq!(command(&mut volatile, 0x4102, &get(0, 4)).0, 0x03);
    assert_eq!(command(&mut volatile, 0x0400, &[]).1[24], 44);
}

#[test]
fn labels_are_kept_in_the_device_s_file_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let started = || {
        let mut machine = machine(SMALL);
        machine.keep_media(Store::open(folder.path()).unwrap()).unwrap();
        machine
    };
    let set = |offset: u32, data: &[u8]| [&offset.to_le_bytes()[..], &[0; 4], data].concat();
    let get = |offset: u32, length: u32| [offset.to_le_bytes(), length.to_le_bytes()].concat();
    let mut first = started();
    assert_eq!(command(&mut first, 0x4103, &set(256, b"kept")).0, 0);
    assert_eq!(command(&mut first, 0x4103, &set(65_533, b"late")).0, 0x02, "past the end");
    // Nothing is written when a machine ends: one that is killed has written it all.
    let file = std::fs::read(folder.path().join("mem0.media")).unwrap();
    assert_eq!(&file[0x10_0100..0x10_0104], b"kept");
    assert!(file[0x10_0104..0x20_0000].iter().all(|byte| *byte == 0));
    drop(first);
    let mut second = started();
    assert_eq!(command(&mut second, 0x4102, &get(254, 8)), (0, b"\0\0kept\0\0".to_vec()));
}

#[test]
fn the_shutdown_state_is_what_was_set_over_every_reset() {
    let mut machine = machine(SMALL);
    assert_eq!(command(&mut machine, 0x4203, &[]), (0, vec![0]), "clean");
    for reset in Reset::ALL {
        for state in [1, 0] {
            assert_eq!(command(&mut machine, 0x4204, &[state]), (0, vec![]));
            machine.reset_device(0, reset);
            machine.assign();
            assert_eq!(command(&mut machine, 0x4203, &[]), (0, vec![state]), "{reset:?}");
        }
    }
    assert_eq!(command(&mut machine, 0x4204, &[1]).0, 0);
    for bit in 1..8 {
        assert_eq!(command(&mut machine, 0x4204, &[1 << bit]).0, 0x02, "bit {bit} is reserved");
    }
    for wrong in [&[][..], &[0, 0]] {
        assert_eq!(command(&mut machine, 0x4204, wrong).0, 0x16, "{} bytes", wrong.len());
    }
    assert_eq!(command(&mut machine, 0x4203, &[0]).0, 0x16, "it takes no input");
    assert_eq!(command(&mut machine, 0x4203, &[]), (0, vec![1]), "what is refused changes nothing");

    let mut volatile = Machine::new(&scenario(&SMALL.replace("persistent = \"256MiB\"", "")));
    assert_eq!(command(&mut volatile, 0x4203, &[]).0, 0x03);
    assert_eq!(command(&mut volatile, 0x4204, &[1]).0, 0x03);
}

#[test]
fn the_shutdown_state_is_kept_in_the_device_s_file_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let started = || {
        let mut machine = machine(SMALL);
        machine.keep_media(Store::open(folder.path()).unwrap()).unwrap();
        machine
    };
    let mut first = started();
    assert_eq!(command(&mut first, 0x4203, &[]), (0, vec![0]), "clean");
    assert_eq!(command(&mut first, 0x4204, &[1]).0, 0);
    // Behind the labels, and nothing of them. A machine that is killed has written it, too.
    let file = std::fs::read(folder.path().join("mem0.media")).unwrap();
    assert_eq!(file[0x11_0000], 1);
    assert!(file[0x10_0000..0x11_0000].iter().all(|byte| *byte == 0));
    assert!(file[0x11_0001..0x20_0000].iter().all(|byte| *byte == 0));
    drop(first);
    let mut second = started();
    assert_eq!(command(&mut second, 0x4203, &[]), (0, vec![1]));
    assert_eq!(command(&mut second, 0x4204, &[0]).0, 0);
    drop(second);
    assert_eq!(command(&mut started(), 0x4203, &[]), (0, vec![0]));
}

#[test]
fn every_builtin_is_a_machine_whose_components_answer() {
    for found in builtins() {
        let scenario = scenario(builtin(found.name).unwrap().text);
        let mut machine = Machine::new(&scenario);
        for place in machine.places() {
            let absent = matches!(place, Place::Device(device) if !machine.present(device));
            // A CXL 1.1 bridge has no component registers of its own.
            if absent || machine.rcrb(place, 0).is_some() {
                continue;
            }
            let at = component(&machine, machine.name(place));
            let header = machine.read(at + 0x1000);
            assert_eq!(header & 0x00FF_FFFF, 0x0011_0001, "{}: {place:?}", found.name);
        }
    }
}

/// Every component's decoders as an access to its registers finds them: through the address map and
/// the capability array, none of the machine's own words.
fn found_by_reading(machine: &mut Machine) -> Vec<(String, Option<HdmImage>)> {
    let mut found = Vec::new();
    for place in machine.places() {
        let absent = matches!(place, Place::Device(device) if !machine.present(device));
        if absent || matches!(place, Place::Port(_)) {
            continue;
        }
        let name = machine.name(place).to_owned();
        let at = component(machine, &name) + 0x1000;
        let hdm = Capabilities::new(reader(machine, at))
            .ok()
            .and_then(|list| list.find(CapabilityId::HdmDecoder))
            .map(|found| {
                let at = at + u64::from(found.pointer);
                let count = usize::from(machine.read(at) as u16 & 0xF);
                let count = [1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32][count];
                let bytes: Vec<u8> = (0..4 + 8 * count)
                    .flat_map(|n| machine.read(at + 4 * n).to_le_bytes())
                    .collect();
                HdmImage::read(&bytes)
            });
        found.push((name, hdm));
    }
    found
}

fn decoders_of(fabric: &Fabric, name: &str) -> Option<HdmImage> {
    let bridge = fabric.bridges.iter().find(|b| b.name == name).map(|b| &b.hdm);
    let switch = fabric.switches.iter().find(|s| s.name == name).map(|s| &s.hdm);
    let device = fabric.devices.iter().find(|d| d.name == name).map(|d| &d.hdm);
    bridge.or(switch).or(device).unwrap().clone()
}

fn one_source(scenario: &cxl_model::scenario::Scenario) {
    let mut machine = Machine::new(scenario);
    let fabric = Fabric::of(scenario);
    assert_eq!(fabric, machine.fabric(), "{}", scenario.name);
    // Faults may keep registers from being read as they are, and nothing reaches those below a CXL 1.1
    // bridge.
    let reached = scenario.bridges.iter().all(|bridge| bridge.version == BridgeVersion::Cxl2);
    if scenario.faults.is_empty() && reached {
        for (name, hdm) in found_by_reading(&mut machine) {
            assert_eq!(decoders_of(&fabric, &name), hdm, "{}: {name}", scenario.name);
        }
    }
}

#[test]
fn the_fabric_of_a_scenario_is_that_of_its_machine() {
    for found in builtins() {
        one_source(&scenario(found.text));
    }
}

/// Machines of one or two bridges, with and without decoders and switches, and devices of any make.
fn any_text() -> impl Strategy<Value = String> {
    let decoders = || prop::sample::select(vec![0, 1, 4, 8, 10, 16, 32]);
    let bridge = (decoders(), prop::sample::select(vec![1, 2, 4, 8]), any::<(bool, bool, bool)>());
    let device = (
        prop::sample::select(vec!["type2", "type3"]),
        prop::sample::select(vec!["device", "host-only", "back-invalidate"]),
        prop::sample::select(vec!["11:8", "14:12", "14:8"]),
        1u32..=10,
        any::<(bool, bool, bool, bool)>(),
    );
    let devices = prop::collection::vec(device, 1..5);
    (prop::collection::vec(bridge, 1..3), devices, 0u64..4).prop_map(
        |(bridges, devices, window)| {
            let mut text = String::new();
            for (index, (decoders, targets, (bi, cache, switch))) in bridges.iter().enumerate() {
                let uid = 64 * index;
                text += &format!(
                    "[[bridge]]\nuid = {uid}\nname = \"hb{index}\"\ndecoders = {decoders}\n\
                 target_count = {targets}\nback_invalidate = {bi}\ncache_id = {cache}\n\
                 [[port]]\nname = \"rp{index}\"\nbelow = \"hb{index}\"\n"
                );
                if *switch {
                    text += &format!(
                        "[[switch]]\nname = \"sw{index}\"\nbelow = \"rp{index}\"\n\
                     target_count = {targets}\n"
                    );
                }
            }
            for (index, (kind, coherency, selects, decoders, flags)) in devices.iter().enumerate() {
                let bridge = index % bridges.len();
                let parent = if bridges[bridge].2.2 { "sw" } else { "hb" };
                let (three, sixteen, present, persistent) = flags;
                let media = if *persistent { "persistent" } else { "volatile" };
                let decoders = [1, 2, 4, 6, 8, 10][*decoders as usize % 6];
                text += &format!(
                    "[[port]]\nname = \"p{index}\"\nbelow = \"{parent}{bridge}\"\n\
                 [[device]]\nname = \"d{index}\"\nbelow = \"p{index}\"\nkind = \"{kind}\"\n\
                 coherency = \"{coherency}\"\nselects = \"{selects}\"\ndecoders = {decoders}\n\
                 ways_3_6_12 = {three}\nways_16 = {sixteen}\npresent = {present}\n\
                 {media} = \"256MiB\"\n"
                );
            }
            text + &format!("[[window]]\ntargets = [0]\nsize = \"{window}GiB\"\n")
                .replace("0GiB", "4GiB")
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_fabric_of_any_scenario_is_that_of_its_machine(text in any_text()) {
        one_source(&scenario(&text));
    }
}

// Configuration cycles and BARs.

#[test]
fn unassigned_machine_shows_root_ports_and_hides_what_is_behind_them() {
    let mut machine = machine(&format!("[platform]\nassigned = false\n{SMALL}"));
    let port = config(&machine, "rp0");
    assert_eq!(machine.read(port) & 0xFFFF, 0x1E98);
    assert_eq!(machine.read(port + 0x18), 0, "no bus numbers");
    let device = config(&machine, "mem0");
    assert_eq!(machine.read(device), u32::MAX);
    machine.write(port + 0x18, 0x0011_1110);
    assert_eq!(machine.read(device) & 0xFFFF, 0x1E98);
    // Another number, another place.
    machine.write(port + 0x18, 0x0012_1210);
    assert_eq!(machine.read(device), u32::MAX);
}

#[test]
fn registers_answer_only_through_bars_windows_and_memory_space() {
    let mut machine = machine(SMALL);
    let at = component(&machine, "mem0") + 0x1000;
    let header = machine.read(at);
    assert_ne!(header, u32::MAX);
    let (port, device) = (config(&machine, "rp0"), config(&machine, "mem0"));
    for (what, address, off) in [
        ("Memory Space of the device", device + 4, 0),
        ("Memory Space of the port", port + 4, 0),
        ("window of the port", port + 0x20, 0x0000_FFF0),
    ] {
        let on = machine.read(address);
        machine.write(address, off);
        assert_eq!(machine.read(at), u32::MAX, "{what}");
        machine.write(address, on);
        assert_eq!(machine.read(at), header, "{what}");
    }
}

#[test]
fn bar_tells_its_size_and_keeps_its_type() {
    let mut machine = machine(SMALL);
    let device = config(&machine, "mem0");
    for (bar, low, high) in
        [(0x10, 0xFFFF_0004, u32::MAX), (0x18, 0xFFFF_0004, u32::MAX), (0x20, 0, 0)]
    {
        machine.write(device + bar, u32::MAX);
        machine.write(device + bar + 4, u32::MAX);
        assert_eq!(machine.read(device + bar), low, "{bar:#x}");
        assert_eq!(machine.read(device + bar + 4), high, "{bar:#x}");
    }
    let port = config(&machine, "rp0");
    machine.write(port + 0x10, u32::MAX);
    assert_eq!(machine.read(port + 0x10), 0xFFFF_0004);
    // 0x18 of a bridge is bus numbers, not a BAR.
    machine.write(port + 0x18, 0xFF07_0605);
    assert_eq!(machine.read(port + 0x18), 0x0007_0605);
}

#[test]
fn moving_a_bar_moves_registers_and_no_memory() {
    let mut machine = small_path(LOCK);
    let (device, old) = (config(&machine, "mem0"), component(&machine, "mem0"));
    machine.store(1 << 32, b"here");
    let header = machine.read(old + 0x1000);
    let _ = machine.take_changes();
    machine.write(device + 0x10, (old + 0x10_0000) as u32);
    assert_eq!(machine.take_changes(), Changes { remap: false, relocate: true });
    assert_eq!(machine.read(old + 0x1000), u32::MAX);
    assert_eq!(machine.read(old + 0x10_1000), header);
    machine.write(device + 4, 0);
    assert_eq!(machine.take_changes(), Changes { remap: false, relocate: true });
    assert_eq!(machine.read(old + 0x10_1000), u32::MAX);
    let mut bytes = [0; 4];
    machine.load(1 << 32, &mut bytes);
    assert_eq!(&bytes, b"here");
}

#[test]
fn bar_over_another_loses_to_the_lower_one_in_the_tree() {
    let mut machine = machine(SMALL);
    let (device, port) = (config(&machine, "mem0"), component(&machine, "rp0"));
    machine.write(device + 0x10, port as u32);
    let place = Place::Port(0);
    assert_eq!(machine.target(port), Some(Target::Component { place, offset: 0 }));
}

// Access widths.

#[test]
fn only_aligned_dwords_reach_component_registers() {
    let mut machine = machine(SMALL);
    for name in ["mem0", "rp0", "hb0"] {
        let at = component(&machine, name) + 0x1000;
        let mut ragged = machine.traffic().ragged;
        for length in 1..=16usize {
            for offset in 0..4u64 {
                let mut bytes = vec![0; length];
                machine.read_bytes(at + offset, &mut bytes);
                let reached = length == 4 && offset == 0;
                assert_eq!(bytes.iter().all(|&b| b == 0xFF), !reached, "{name} {length} {offset}");
                ragged += u64::from(!reached);
                assert_eq!(machine.traffic().ragged, ragged, "{name} {length} {offset}");
            }
        }
    }
}

#[test]
fn other_widths_write_nothing() {
    let mut machine = machine(SMALL);
    for name in ["mem0", "hb0"] {
        let at = decoder(&machine, name, 0);
        for length in [1, 2, 3, 5, 6, 7, 8, 16] {
            for offset in 0..8 {
                machine.write_bytes(at + offset, &vec![0xFF; length]);
            }
        }
        for offset in 1..4 {
            machine.write_bytes(at + offset, &[0xFF; 4]);
        }
        assert_eq!(dwords(&mut machine, name, 0), [0; 8], "{name}");
        machine.write_bytes(at, &[0xFF; 4]);
        assert_eq!(machine.read(at), 0xF000_0000, "{name}");
    }
}

#[test]
fn configuration_space_takes_bytes_and_words_within_a_dword() {
    let mut machine = machine(SMALL);
    let at = config(&machine, "mem0");
    let dword = machine.read(at).to_le_bytes();
    for (length, offset, reached) in [
        (1, 0, true),
        (1, 3, true),
        (2, 0, true),
        (2, 2, true),
        (2, 1, false),
        (2, 3, false),
        (4, 0, true),
        (4, 2, false),
        (8, 0, false),
    ] {
        let mut bytes = vec![0; length];
        machine.read_bytes(at + offset as u64, &mut bytes);
        if reached {
            assert_eq!(bytes, dword[offset..offset + length], "{length} at {offset}");
        } else {
            assert_eq!(bytes, vec![0xFF; length], "{length} at {offset}");
        }
    }
    // A byte of Command: the others stay.
    let command = machine.read(at + 4) & 0xFFFF;
    machine.write_bytes(at + 5, &[0x04]);
    assert_eq!(machine.read(at + 4) & 0xFFFF, command | 0x0400);
}

#[test]
fn device_registers_take_pairs_of_dwords() {
    let mut machine = machine(SMALL);
    let at = machine.function(Place::Device(0)).unwrap().bar(2).unwrap().base().0;
    let mut bytes = [0; 8];
    machine.read_bytes(at, &mut bytes);
    assert_eq!(u64::from_le_bytes(bytes), 0x0000_0003_0101_0000);
    machine.write_bytes(at + 0x108, &0x0000_0000_0000_4100u64.to_le_bytes());
    machine.write(at + 0x104, 1);
    machine.read_bytes(at + 0x120, &mut bytes);
    assert_eq!(u64::from_le_bytes(bytes), 1, "volatile units");
}

#[test]
fn vendor_memory_of_a_type_2_device_takes_anything() {
    let text = SMALL.replace("below = \"rp0\"", "below = \"rp0\"\nkind = \"type2\"");
    let mut machine = machine(&text);
    let at = component(&machine, "mem0");
    for length in 1..=32usize {
        let pattern: Vec<u8> = (0..length as u8).collect();
        machine.write_bytes(at + 0x2000 + 3, &pattern);
        let mut bytes = vec![0; length];
        machine.read_bytes(at + 0x2000 + 3, &mut bytes);
        assert_eq!(bytes, pattern);
    }
    assert_eq!(
        machine.target(at + 0x1FFC).map(|t| matches!(t, Target::Component { .. })),
        Some(true)
    );
    assert_eq!(
        machine.target(at + 0xE000).map(|t| matches!(t, Target::Component { .. })),
        Some(true)
    );
    assert_eq!(machine.traffic().ragged, 0);
    // A Type 3 device has none: reserved registers, dwords only.
    let mut machine = rig::machine(SMALL);
    let at = component(&machine, "mem0") + 0x2000;
    machine.write(at, 7);
    assert_eq!(machine.read(at), 0);
}

#[test]
fn nothing_answers_where_nothing_is() {
    let mut machine = machine(SMALL);
    let ecam = machine.map().ecam[0].1.base().0;
    for address in [
        0,
        0x1000,
        ecam,                          // bus 0: nobody's
        ecam + (16 << 20) + (1 << 15), // no such device
        ecam + (16 << 20) + (1 << 12), // no such function
        ecam + (17 << 20) + (1 << 15), // a link has one device
        machine.map().bridges[0].registers.end().0,
        u64::MAX - 3,
        u64::MAX,
        1 << 45,
    ] {
        machine.write(address, 0);
        assert_eq!(machine.read(address), u32::MAX, "{address:#x}");
    }
    let mut bytes = [0; 64];
    machine.read_bytes(u64::MAX - 7, &mut bytes);
    assert_eq!(bytes, [0xFF; 64]);
}

// CXL memory.

#[test]
fn an_uncommitted_path_misses_and_a_committed_one_hits() {
    let mut machine = machine(SMALL);
    let hpa = 1 << 32;
    store8(&mut machine, hpa, 1);
    assert_eq!(load8(&machine, hpa), 0xFF);
    program(&mut machine, "mem0", 0, (hpa, 2 * UNIT, 0), HOST_ONLY | COMMIT);
    enable(&mut machine, "mem0");
    assert_eq!(load8(&machine, hpa), 0xFF, "bridge missing");
    program(&mut machine, "hb0", 0, (hpa, 2 * UNIT, 5), HOST_ONLY | COMMIT);
    assert_eq!(load8(&machine, hpa), 0, "nothing was stored before");
    store8(&mut machine, hpa + 2 * UNIT - 1, 7);
    assert_eq!(media8(&machine, 0, 2 * UNIT - 1), 7);
    assert_eq!(load8(&machine, hpa + 2 * UNIT), 0xFF);
    assert_eq!(load8(&machine, hpa - 1), 0xFF);
}

#[test]
fn target_list_holds_port_numbers() {
    for (target, hit) in [(5, true), (0, false), (1, false)] {
        let mut machine = small_path(0);
        program(&mut machine, "hb0", 0, (1 << 32, 2 * UNIT, target), 0);
        program(&mut machine, "hb0", 0, (1 << 32, 2 * UNIT, target), HOST_ONLY | COMMIT);
        assert_eq!(machine.resolve(1 << 32).is_some(), hit, "{target}");
    }
}

#[test]
fn bridge_without_decoders_passes_through_with_one_port_only() {
    let text = SMALL.replace("decoders = 4", "decoders = 0");
    let two = format!("{text}\n[[port]]\nbelow = \"hb0\"\n");
    for (text, passes) in [(text, true), (two, false)] {
        let mut machine = machine(&text);
        program(&mut machine, "mem0", 0, (1 << 32, UNIT, 0), HOST_ONLY | COMMIT);
        enable(&mut machine, "mem0");
        assert_eq!(machine.resolve(1 << 32).is_some(), passes);
    }
}

#[test]
fn memory_needs_mem_enable_and_follows_ranges_without_decoder_enable() {
    let hpa = 1u64 << 32;
    // (HDM Decoder Enable, Mem_Enable, where the address leads)
    for (decoder_enable, mem_enable, dpa) in [
        (true, true, Some(0)),
        (true, false, None),
        (false, false, None),
        // Range 2 lies there: persistent memory, behind 256 MiB of volatile.
        (false, true, Some(UNIT)),
    ] {
        let mut machine = small_path(0);
        let at = dvsec(&machine, "mem0");
        machine.write(at + 0x30, (hpa >> 32) as u32);
        machine.write(at + 0x34, hpa as u32);
        machine.write(at + 0x20, 0xFF);
        let global = component(&machine, "mem0") + GLOBAL;
        machine.write(global, if decoder_enable { 2 } else { 0 });
        machine.write(at + 0x0C, if mem_enable { 4 } else { 0 });
        let found = machine.resolve(hpa).map(|landing| landing.dpa.0);
        assert_eq!(found, dpa, "HDM Decoder Enable {decoder_enable}, Mem_Enable {mem_enable}");
    }
}

#[test]
fn range_of_memory_that_is_not_active_decodes_nothing() {
    use cxl_regs::dvsec::device::RangeSizeLow;
    let mut machine = small_path(0);
    let at = dvsec(&machine, "mem0");
    machine.write(at + 0x20, 1);
    let global = component(&machine, "mem0") + GLOBAL;
    machine.write(global, 0);
    assert!(machine.resolve(1 << 32).is_some());
    let function = machine.function_mut(Place::Device(0)).unwrap();
    let dvsec = function.device_dvsec().unwrap();
    let low: RangeSizeLow = function.get(dvsec);
    function.registers_mut().set(dvsec, low.with_active(false));
    assert_eq!(machine.resolve(1 << 32), None);
}

#[test]
fn two_decoders_with_a_skip_land_in_their_partitions() {
    let mut machine = machine(SMALL);
    let (volatile, persistent) = (1 << 32, (1 << 32) + 4 * UNIT);
    // Nothing volatile but a skip of all of it: the naive sum of sizes would say DPA 0.
    program(&mut machine, "mem0", 0, (volatile, UNIT, 0), HOST_ONLY | COMMIT);
    program(&mut machine, "mem0", 1, (persistent, UNIT, 0), HOST_ONLY | COMMIT);
    enable(&mut machine, "mem0");
    program(&mut machine, "hb0", 0, (volatile, 8 * UNIT, 5), HOST_ONLY | COMMIT);
    store8(&mut machine, volatile + 1, 0x11);
    store8(&mut machine, persistent + 1, 0x22);
    assert_eq!((media8(&machine, 0, 1), media8(&machine, 0, UNIT + 1)), (0x11, 0x22));

    let mut machine = rig::machine(SMALL);
    program(&mut machine, "mem0", 0, (volatile, UNIT, UNIT), HOST_ONLY | COMMIT);
    enable(&mut machine, "mem0");
    program(&mut machine, "hb0", 0, (volatile, 8 * UNIT, 5), HOST_ONLY | COMMIT);
    store8(&mut machine, volatile + 1, 0x33);
    assert_eq!((media8(&machine, 0, 1), media8(&machine, 0, UNIT + 1)), (0, 0x33));
}

#[test]
fn contents_follow_the_device_address_over_a_thousand_recreations() {
    let mut machine = small_path(0);
    machine.store(1 << 32, b"first bytes");
    for cycle in 0..1000u64 {
        for name in ["hb0", "mem0"] {
            let at = decoder(&machine, name, 0) + 0x10;
            machine.write(at, 0);
        }
        let base = (1 << 32) + cycle % 14 * UNIT;
        program(&mut machine, "mem0", 0, (base, 2 * UNIT, 0), HOST_ONLY | COMMIT);
        program(&mut machine, "hb0", 0, (base, 2 * UNIT, 5), HOST_ONLY | COMMIT);
        let mut bytes = [0; 11];
        machine.load(base, &mut bytes);
        assert_eq!(&bytes, b"first bytes", "{cycle}");
    }
    assert_eq!(machine.endpoint(0).unwrap().component.hdm().unwrap().misuse(), Default::default());
}

#[test]
fn memory_behind_the_end_of_the_device_misses() {
    let mut machine = machine(SMALL);
    program(&mut machine, "mem0", 0, (1 << 32, 4 * UNIT, 0), HOST_ONLY | COMMIT);
    enable(&mut machine, "mem0");
    program(&mut machine, "hb0", 0, (1 << 32, 4 * UNIT, 5), HOST_ONLY | COMMIT);
    let end = (1 << 32) + 2 * UNIT;
    machine.store(end - 2, &[1, 2, 3, 4]);
    let mut bytes = [0; 4];
    machine.load(end - 2, &mut bytes);
    assert_eq!(bytes, [1, 2, 0xFF, 0xFF]);
}

#[test]
fn registers_of_cxl_memory_are_memory() {
    let mut machine = small_path(LOCK);
    machine.write((1 << 32) + 0x123, 0xDEAD_BEEF);
    assert_eq!(machine.read((1 << 32) + 0x123), 0xDEAD_BEEF);
    assert_eq!(machine.traffic().ragged, 0);
}

/// `bridges` bridges with `ports` ports and one 256 MiB device each, one window over all bridges.
fn grid(bridges: usize, ports: usize, granularity: u64, extra: &str) -> String {
    let mut text = String::new();
    let names: Vec<String> = (0..bridges).map(|b| format!("\"hb{b}\"")).collect();
    for bridge in 0..bridges {
        let uid = 16 * bridge + 8;
        text += &format!("[[bridge]]\nname = \"hb{bridge}\"\nuid = {uid}\ntarget_count = 8\n");
        for port in 0..ports {
            text += &format!(
                "[[port]]\nname = \"rp{bridge}.{port}\"\nbelow = \"hb{bridge}\"\nnumber = {}\n\
                 [[device]]\nname = \"mem{bridge}.{port}\"\nbelow = \"rp{bridge}.{port}\"\n\
                 volatile = \"256MiB\"\n",
                port + 3
            );
        }
    }
    let size = bridges * ports * 256;
    text + &format!(
        "[[window]]\ntargets = [{}]\nsize = \"{size}MiB\"\nbase = \"0x300000000\"\n\
         granularity = \"{granularity}\"\n{extra}\n",
        names.join(", ")
    )
}

fn ways_code(ways: usize) -> u32 {
    [(1, 0), (2, 1), (4, 2), (8, 3), (16, 4), (3, 8), (6, 9), (12, 10)]
        .into_iter()
        .find(|(count, _)| *count == ways)
        .unwrap()
        .1
}

/// Programs a grid as one set, root fastest, as Linux orders it.
fn commit_grid(bridges: usize, ports: usize, granularity: u64, extra: &str) -> Machine {
    let mut machine = machine(&grid(bridges, ports, granularity, extra));
    let (base, size) = (0x3_0000_0000, (bridges * ports) as u64 * UNIT);
    let ig = (granularity / 256).trailing_zeros();
    let set = ways_code(bridges * ports) << 4 | ig;
    for bridge in 0..bridges {
        let mut targets = 0;
        for port in 0..ports {
            let name = format!("mem{bridge}.{port}");
            let control = HOST_ONLY | LOCK | COMMIT | set;
            let got = program(&mut machine, &name, 0, (base, size, 0), control);
            assert_eq!(got, control | COMMITTED, "{name}");
            enable(&mut machine, &name);
            targets |= (port as u64 + 3) << (8 * port);
        }
        // The bridge selects above the root's bits; three counts for nothing there.
        let root_bits = (bridges & bridges.wrapping_neg()).trailing_zeros();
        let level = if ports == 1 { 0 } else { ways_code(ports) << 4 | (ig + root_bits) };
        let name = format!("hb{bridge}");
        let control = HOST_ONLY | LOCK | COMMIT | level;
        let got = program(&mut machine, &name, 0, (base, size, targets), control);
        assert_eq!(got, control | COMMITTED, "{name}");
    }
    machine
}

#[test]
fn stores_by_host_address_land_where_granules_are_dealt() {
    for (bridges, ports, granularity) in [
        (1, 2, 256u64),
        (2, 1, 256),
        (2, 2, 256),
        (2, 2, 4096),
        (4, 4, 256),
        (4, 2, 1024),
        (1, 8, 512),
        (3, 1, 256),
        (3, 1, 16384),
        (6, 1, 512),
        (12, 1, 256),
        (8, 2, 256),
        (2, 1, 16384),
    ] {
        let mut machine = commit_grid(bridges, ports, granularity, "");
        let ways = bridges * ports;
        let rounds = 5;
        let length = rounds * ways as u64 * granularity;
        let bytes: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
        // One store over all granule borders, at an odd offset into a region that starts with 0.
        machine.store(0x3_0000_0000, &bytes);

        // The oracle: cards to players, in turn.
        let mut hands = vec![Vec::new(); ways];
        for (card, granule) in bytes.chunks(granularity as usize).enumerate() {
            hands[card % ways].extend_from_slice(granule);
        }
        for (position, hand) in hands.iter().enumerate() {
            let (bridge, port) = (position % bridges, position / bridges);
            let device = bridge * ports + port;
            let mut found = vec![0; hand.len()];
            assert!(machine.endpoint(device).unwrap().media.read(Dpa(0), &mut found));
            assert!(found == *hand, "{bridges}x{ports} at {granularity}: position {position}");
        }
        let mut back = vec![0; bytes.len()];
        machine.load(0x3_0000_0000, &mut back);
        assert!(back == bytes, "{bridges}x{ports} at {granularity}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any load sees the last store, whatever borders both cross.
    #[test]
    fn loads_see_stores_across_granules(
        (bridges, ports) in prop::sample::select(vec![(2, 2), (3, 1), (1, 4), (6, 1)]),
        stores in prop::collection::vec(
            (0u64..0x8000, prop::collection::vec(any::<u8>(), 1..2000)),
            1..8,
        ),
    ) {
        let mut machine = commit_grid(bridges, ports, 512, "");
        let mut expected = vec![0; 0x9000];
        for (offset, bytes) in stores {
            machine.store(0x3_0000_0000 + offset, &bytes);
            expected[offset as usize..offset as usize + bytes.len()].copy_from_slice(&bytes);
        }
        let mut found = vec![0; expected.len()];
        machine.load(0x3_0000_0000, &mut found);
        prop_assert!(found == expected);
    }
}

#[test]
fn mapping_and_walk_agree_on_every_direct_range() {
    let xor2 = "arithmetic = \"xor\"\nxor_maps = [\"0x10100\"]";
    let xor4 = "arithmetic = \"xor\"\nxor_maps = [\"0x10100\", \"0x20200\"]";
    let mut tried = 0;
    for (bridges, ports, granularity, extra) in [
        (1, 1, 256, ""),
        (1, 4, 1024, ""),
        (2, 2, 256, ""),
        (2, 2, 256, xor2),
        (4, 1, 256, xor4),
        (3, 1, 4096, ""),
        (6, 1, 256, ""),
        (12, 1, 512, ""),
        (4, 4, 256, ""),
    ] {
        let machine = commit_grid(bridges, ports, granularity, extra);
        let mappings = mappings(&machine.fabric());
        let direct = mappings.iter().filter_map(|mapping| match &mapping.how {
            Reach::Direct(direct) => Some((mapping, direct)),
            Reach::Trapped { .. } => None,
        });
        for (mapping, direct) in direct {
            for step in 0..2000u64 {
                let hpa = mapping.hpa.0 + step * 0x1_2345 % mapping.size;
                let (member, dpa) = direct.locate(Hpa(hpa)).unwrap();
                let landing = machine.resolve(hpa).unwrap();
                let found = (landing.device, landing.dpa);
                assert_eq!(found, (member.device, dpa), "{bridges}x{ports} {extra} {hpa:#x}");
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 9 * 2000, "every set is one direct range");
}

#[test]
fn windows_pick_targets_as_the_specification_says() {
    // (bridges, granularity, extra keys, base, [(address, target)])
    type Case = (usize, &'static str, &'static [(u64, usize)]);
    let cases: &[Case] = &[
        (
            2,
            "arithmetic = \"xor\"\nxor_maps = [\"0x10100\"]",
            &[(0, 0), (0x100, 1), (0x1_0000, 1), (0x1_0100, 0)],
        ),
        (
            4,
            "arithmetic = \"xor\"\nxor_maps = [\"0x10100\", \"0x20200\"]",
            &[(0x300, 3), (0x3_0300, 0), (0x1_0300, 2)],
        ),
        (3, "", &[(0, 1), (0x100, 2), (0x200, 0), (0x2FF, 0), (0x300, 1)]),
        (6, "", &[(0, 4), (0x100, 5), (0x200, 0), (0x500, 3), (0x700, 5)]),
        (
            6,
            "arithmetic = \"xor\"\nxor_maps = [\"0x100\"]",
            &[(0, 4), (0x100, 5), (0x200, 0), (0x700, 5)],
        ),
        (12, "", &[(0, 4), (0x700, 11), (0x800, 0), (0xD00, 5)]),
        (
            12,
            "arithmetic = \"xor\"\nxor_maps = [\"0x100\", \"0x200\"]",
            &[(0, 4), (0x700, 11), (0x800, 0), (0xD00, 5)],
        ),
    ];
    for (bridges, extra, vectors) in cases {
        let text = grid(*bridges, 1, 256, extra)
            .replace("base = \"0x300000000\"", "base = \"0x100000000\"")
            .replace("target_count = 8", "decoders = 0");
        let mut machine = machine(&text);
        for bridge in 0..*bridges {
            let name = format!("mem{bridge}.0");
            let range = (1 << 32, *bridges as u64 * UNIT, 0);
            let set = ways_code(*bridges) << 4;
            program(&mut machine, &name, 0, range, HOST_ONLY | COMMIT | set);
            enable(&mut machine, &name);
        }
        for (offset, target) in *vectors {
            let landing = machine.resolve((1 << 32) + offset).unwrap();
            assert_eq!(landing.device, *target, "{bridges} {extra} {offset:#x}");
        }
    }
}

#[test]
fn a_switch_routes_by_its_own_decoders() {
    let text = r#"
[[bridge]]
name = "hb0"
uid = 16
[[port]]
name = "rp0"
below = "hb0"
number = 9
[[switch]]
name = "sw0"
below = "rp0"
[[port]]
name = "dp0"
below = "sw0"
number = 4
[[port]]
name = "dp1"
below = "sw0"
number = 7
[[device]]
name = "mem0"
below = "dp0"
volatile = "256MiB"
[[device]]
name = "mem1"
below = "dp1"
volatile = "256MiB"
[[window]]
targets = ["hb0"]
size = "1GiB"
base = "0x100000000"
"#;
    let mut machine = machine(text);
    let range = (1 << 32, 2 * UNIT);
    for name in ["mem0", "mem1"] {
        program(&mut machine, name, 0, (range.0, range.1, 0), HOST_ONLY | COMMIT | 0x10);
        enable(&mut machine, name);
    }
    program(&mut machine, "hb0", 0, (range.0, range.1, 9), HOST_ONLY | COMMIT);
    assert_eq!(machine.resolve(range.0), None, "the switch is not committed");
    program(&mut machine, "sw0", 0, (range.0, range.1, 0x0704), HOST_ONLY | COMMIT | 0x10);
    for (offset, device, dpa) in [(0, 0, 0), (0x100, 1, 0), (0x200, 0, 0x100), (0x3FF, 1, 0x1FF)] {
        let landing = machine.resolve(range.0 + offset).unwrap();
        assert_eq!((landing.device, landing.dpa.0), (device, dpa), "{offset:#x}");
    }
}

#[test]
fn cxl_memory_lies_in_windows_and_nowhere_else() {
    let machine = small_path(LOCK);
    let map = machine.map();
    // A device that decodes beyond its window is not asked there.
    for span in map.ram.iter().chain(map.ecam.iter().map(|(_, span)| span)) {
        assert_eq!(machine.resolve(span.base().0), None);
    }
    let mut outside = rig::machine(SMALL);
    let base = 8 << 32;
    program(&mut outside, "mem0", 0, (base, UNIT, 0), HOST_ONLY | COMMIT);
    enable(&mut outside, "mem0");
    program(&mut outside, "hb0", 0, (base, UNIT, 5), HOST_ONLY | COMMIT);
    assert_eq!(outside.resolve(base), None);
}

// Locks, faults.

/// Every lockable field by decoder dword, typed from CXL r3.1 section 8.2.4.20.
const DEVICE_FIELDS: &[(&str, u64, u32)] = &[
    ("base_low", 0x00, 0xF000_0000),
    ("base_high", 0x04, 0xFFFF_FFFF),
    ("size_low", 0x08, 0xF000_0000),
    ("size_high", 0x0C, 0xFFFF_FFFF),
    ("control", 0x10, 0x0000_000F),
    ("control", 0x10, 0x0000_00F0),
    ("control", 0x10, 0x0000_0100),
    ("control", 0x10, 0x0000_0200),
    ("control", 0x10, 0x0000_1000),
    ("route_low", 0x14, 0xF000_0000),
    ("route_high", 0x18, 0xFFFF_FFFF),
];

#[test]
fn a_machine_for_every_leaking_decoder_field_leaks_that_field() {
    for name in ["mem0", "hb0"] {
        for (register, offset, mask) in DEVICE_FIELDS {
            let fault = format!(
                "[[fault]]\nat = \"{name}\"\nkind = \"leaks-field\"\nregister = \"{register}\"\n\
                 bits = \"{mask:#x}\"\n"
            );
            let mut machine = machine(&format!("{SMALL}\n{fault}"));
            program(&mut machine, name, 0, (1 << 32, UNIT, 5), HOST_ONLY | LOCK | COMMIT);
            let at = decoder(&machine, name, 0);
            let before = dwords(&mut machine, name, 0);
            for dword in 0..8u64 {
                let here = 4 * dword == *offset;
                let kept = before[dword as usize];
                machine.write(
                    at + 4 * dword,
                    !kept & if here { !mask } else { !0 } | if here { kept & mask } else { 0 },
                );
                assert_eq!(dwords(&mut machine, name, 0), before, "{name} {register} {mask:#x}");
            }
            machine.write(at + offset, before[(offset / 4) as usize] ^ mask);
            let after = dwords(&mut machine, name, 0)[(offset / 4) as usize];
            let changed = before[(offset / 4) as usize] ^ after;
            assert_ne!(changed & mask, 0, "{name} {register} {mask:#x}");
            let result = if *mask == 0x200 { COMMITTED } else { 0 };
            assert_eq!(changed & !(mask | result), 0, "{name} {register} {mask:#x}");
        }
    }
}

#[test]
fn a_machine_for_every_leaking_dvsec_field_leaks_that_field() {
    // (dword, lockable bits): Control, and the bases of both ranges.
    let fields = [
        (0x0C, 0x0000_0004u32),
        (0x0C, 0x0000_00F8),
        (0x0C, 0x0000_4000),
        (0x20, 0xFFFF_FFFF),
        (0x24, 0xF000_0000),
        (0x30, 0xFFFF_FFFF),
        (0x34, 0xF000_0000),
    ];
    for (offset, mask) in fields {
        let fault = format!(
            "[[fault]]\nat = \"mem0\"\nkind = \"leaks-field\"\nregister = \"dvsec\"\n\
             offset = {offset}\nbits = \"{mask:#x}\"\n"
        );
        for (leaks, text) in [(true, format!("{SMALL}\n{fault}")), (false, SMALL.to_owned())] {
            let mut machine = machine(&text);
            let at = dvsec(&machine, "mem0");
            machine.write(at + 0x14, 1);
            for (other, bits) in fields {
                let before = machine.read(at + other);
                machine.write(at + other, before ^ bits);
                let changed = machine.read(at + other) ^ before;
                let expected = if leaks && other == offset { bits & mask } else { 0 };
                assert_eq!(changed, expected, "{offset:#x} {mask:#x}: {other:#x} {bits:#x}");
            }
        }
    }
}

#[test]
fn each_fault_shows_and_touches_nothing_else() {
    let with = |fault: &str| machine(&format!("{SMALL}\n[[fault]]\nat = \"mem0\"\n{fault}"));
    let commit = HOST_ONLY | LOCK | COMMIT;
    let range = (1 << 32, UNIT, 0);

    let mut polls = with("kind = \"commit-polls\"\nafter = 3");
    assert_eq!(program(&mut polls, "mem0", 0, range, commit), commit);
    let at = decoder(&polls, "mem0", 0) + 0x10;
    assert_eq!(
        [polls.read(at), polls.read(at), polls.read(at)],
        [commit, commit, commit | COMMITTED]
    );
    assert_eq!(program(&mut polls, "hb0", 0, range, commit), commit | COMMITTED);

    let mut never = with("kind = \"commit-never\"");
    program(&mut never, "mem0", 0, range, commit);
    let at = decoder(&never, "mem0", 0) + 0x10;
    assert!((0..10_000).all(|_| never.read(at) == commit));

    let mut error = with("kind = \"commit-error\"\ndecoder = 0");
    assert_eq!(program(&mut error, "mem0", 0, range, commit), commit | 1 << 11);

    let mut dropped = with("kind = \"dropped-write\"\nregister = \"base_high\"\nafter = 1");
    let at = decoder(&dropped, "mem0", 0) + 4;
    for (value, read) in [(1, 1), (2, 1), (3, 1)] {
        dropped.write(at, value);
        assert_eq!(dropped.read(at), read);
    }
    dropped.write(at + 0x20, 9);
    assert_eq!(dropped.read(at + 0x20), 9, "decoder 1");

    let mut stuck = with("kind = \"stuck-bit\"\nregister = \"base_low\"\nbits = \"0x10000000\"");
    let at = decoder(&stuck, "mem0", 0);
    stuck.write(at, u32::MAX);
    assert_eq!(stuck.read(at), 0xE000_0000);

    let mut stuck = with("kind = \"stuck-bit\"\nregister = \"dvsec\"\noffset = 12\nbits = \"4\"");
    let at = dvsec(&stuck, "mem0") + 0x0C;
    stuck.write(at, 0x4004);
    assert_eq!(stuck.read(at) & 0xFFFF, 0x4002);

    let mut dying = with("kind = \"all-ones-after\"\nafter = 2");
    let at = component(&dying, "mem0") + 0x1000;
    assert_ne!(dying.read(at), u32::MAX);
    assert_ne!(dying.read(at), u32::MAX);
    assert_eq!(dying.read(at), u32::MAX);
    let (config, bridge) = (config(&dying, "mem0"), component(&dying, "hb0"));
    assert_eq!(dying.read(config), u32::MAX);
    assert_ne!(dying.read(bridge + 0x1000), u32::MAX);

    let mut open = with("kind = \"lock-not-enforced\"\ndecoder = 0");
    assert_eq!(program(&mut open, "mem0", 0, range, commit), commit | COMMITTED);
    let at = decoder(&open, "mem0", 0);
    open.write(at + 4, 7);
    assert_eq!(open.read(at + 4), 7);
}

#[test]
fn lenient_machine_commits_what_a_strict_one_refuses() {
    for (strict, status) in [(true, 1 << 11), (false, COMMITTED)] {
        let mut machine = machine(&format!("[platform]\nstrict = {strict}\n{SMALL}"));
        let control = HOST_ONLY | LOCK | COMMIT | 0xF0;
        for name in ["mem0", "hb0"] {
            let got = program(&mut machine, name, 1, (1 << 32, UNIT, 0), control);
            assert_eq!(got, control | status, "{name} {strict}");
        }
    }
}

proptest! {
    /// Integrity: whatever software writes to the registers of a locked path, its range leads where
    /// it led, or nowhere. (A port's reset of the link, which opens locks, stays masked.)
    #[test]
    fn no_writes_make_a_locked_range_lead_elsewhere(
        writes in prop::collection::vec(
            (
                prop::sample::select(vec!["mem0", "hb0", "mem0 config"]),
                0u64..0x90,
                prop_oneof![any::<u32>(), Just(0), Just(u32::MAX), (0u32..32).prop_map(|b| 1 << b)],
            ),
            0..100,
        ),
    ) {
        let mut machine = small_path(LOCK);
        let at = dvsec(&machine, "mem0");
        machine.write(at + 0x14, 1);
        let (config, hpa) = (config(&machine, "mem0"), (1u64 << 32) + UNIT + 0x345);
        let before = machine.resolve(hpa);
        prop_assert!(before.is_some());
        let locked = |machine: &Machine| {
            let fabric = machine.fabric();
            let first = |hdm: &Option<HdmImage>| hdm.as_ref().unwrap().decoders[0];
            (first(&fabric.devices[0].hdm), first(&fabric.bridges[0].hdm))
        };
        let images = locked(&machine);
        let blocks = [component(&machine, "mem0"), component(&machine, "hb0")];
        for (what, dword, value) in writes {
            let address = match what {
                "mem0" => blocks[0] + HDM + 4 * dword,
                "hb0" => blocks[1] + HDM + 4 * dword,
                _ => config + 4 * dword,
            };
            machine.write(address, value);
            prop_assert_eq!(locked(&machine), images);
            let after = machine.resolve(hpa);
            prop_assert!(after.is_none() || after == before, "{:?}", after);
        }
    }
}

// CONFIG_LOCK.

#[test]
fn undefined_uses_are_counted_by_component() {
    // Committed and unlocked: the base moves under traffic. Locked: the write is defined, and lost.
    for (control, expected) in [(0, vec![(Place::Device(0), 1)]), (LOCK, vec![])] {
        let mut machine = small_path(control);
        let base = decoder(&machine, "mem0", 0) + 4;
        machine.write(base, 2);
        let counts = machine.misuse();
        let counts: Vec<_> =
            counts.iter().map(|(place, misuse)| (*place, misuse.changed_while_committed)).collect();
        assert_eq!(counts, expected, "{control:#x}");
    }

    // Control again, before the commit has ended.
    let text = format!(
        "{SMALL}\n[[fault]]\nat = \"hb0\"\nkind = \"commit-polls\"\ndecoder = 0\nafter = 5\n"
    );
    let mut machine = machine(&text);
    program(&mut machine, "hb0", 0, (1 << 32, UNIT, 5), HOST_ONLY | COMMIT);
    let control = decoder(&machine, "hb0", 0) + 0x10;
    machine.write(control, HOST_ONLY | COMMIT);
    let counts = machine.misuse();
    assert_eq!(counts.len(), 1);
    assert_eq!((counts[0].0, counts[0].1.written_during_commit), (Place::Bridge(0), 1));
}

#[test]
fn config_lock_freezes_control_and_bases_and_nothing_else() {
    let mut machine = machine(SMALL);
    let at = dvsec(&machine, "mem0");
    let read = |machine: &mut Machine| -> Vec<u32> {
        (0..0x3C).step_by(4).map(|offset| machine.read(at + offset)).collect()
    };
    // Writable bits while open: Control without IO_Enable and the reserved bits, both bases.
    for (offset, mask) in
        [(0x0C, 0x0000_4FFD), (0x20, !0), (0x24, 0xF000_0000), (0x30, !0), (0x34, 0xF000_0000)]
    {
        let before = machine.read(at + offset);
        machine.write(at + offset, !before);
        assert_eq!(
            machine.read(at + offset) ^ before,
            mask & !before | mask & before,
            "{offset:#x}"
        );
        machine.write(at + offset, before);
    }
    machine.write(at + 0x14, 1);
    let before = read(&mut machine);
    for offset in (0x0C..0x3C).step_by(4) {
        if offset == 0x10 {
            continue;
        }
        machine.write(at + offset, !before[offset as usize / 4]);
        machine.write(at + offset, 0);
    }
    assert_eq!(read(&mut machine), before, "0 to CONFIG_LOCK is ignored");
    // Control2 and the decoders are open.
    machine.write(at + 0x10, 0x8);
    assert_eq!(machine.read(at + 0x10) & 0xFFFF, 0x8);
    let control = program(&mut machine, "mem0", 0, (1 << 32, UNIT, 0), HOST_ONLY | COMMIT);
    assert_eq!(control & COMMITTED, COMMITTED);
}

#[test]
fn config_lock_with_memory_off_keeps_it_off() {
    let mut machine = machine(SMALL);
    let at = dvsec(&machine, "mem0");
    machine.write(at + 0x14, 1);
    machine.write(at + 0x0C, 4);
    assert_eq!(machine.read(at + 0x0C) & 4, 0);
}

#[test]
fn write_of_zero_keeps_viral_and_a_one_clears_it() {
    use cxl_regs::dvsec::device::Status;
    let mut machine = machine(SMALL);
    let at = dvsec(&machine, "mem0") + 0x0C;
    let function = machine.function_mut(Place::Device(0)).unwrap();
    let offset = function.device_dvsec().unwrap();
    function.registers_mut().set(offset, Status::new().with_viral(true));
    machine.write(at, 0x0000_0004);
    assert_eq!(machine.read(at), 0x4000_0006);
    machine.write_bytes(at, &[0]);
    assert_eq!(machine.read(at), 0x4000_0002);
    machine.write(at, 0x4000_0000);
    assert_eq!(machine.read(at), 0x0000_0002);
}

// Resets.

/// What survives: bit per thing.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Survivors {
    locked_decoder: bool,
    open_decoder: bool,
    decoder_enable: bool,
    mem_enable: bool,
    range_base: bool,
    config_lock: bool,
    viral: bool,
    mem_clear: bool,
    preserve: bool,
    command_and_bars: bool,
    bridge_decoder: bool,
    port_buses: bool,
    volatile: bool,
    persistent: bool,
    reset_complete: bool,
}

const NOTHING: Survivors = Survivors {
    locked_decoder: false,
    open_decoder: false,
    decoder_enable: false,
    mem_enable: false,
    range_base: false,
    config_lock: false,
    viral: false,
    mem_clear: false,
    preserve: false,
    command_and_bars: false,
    bridge_decoder: false,
    port_buses: false,
    volatile: false,
    persistent: true,
    reset_complete: false,
};

/// A machine with all of it set, reset by `how`, and what is left.
fn left_after(config_locked: bool, how: impl FnOnce(&mut Machine)) -> Survivors {
    use cxl_regs::dvsec::device::{Control2, Lock, Status, Status2};
    let mut machine = machine(&format!("[platform]\nassigned = false\n{SMALL}"));
    machine.assign();
    let unit = UNIT;
    program(&mut machine, "mem0", 0, (1 << 32, unit, 0), HOST_ONLY | LOCK | COMMIT);
    program(&mut machine, "mem0", 1, (2 << 32, unit, 0), HOST_ONLY | COMMIT);
    program(&mut machine, "hb0", 0, (1 << 32, unit, 5), HOST_ONLY | LOCK | COMMIT);
    enable(&mut machine, "mem0");
    let (at, lock) = (dvsec(&machine, "mem0"), u32::from(config_locked));
    machine.write(at + 0x20, 1);
    machine.write(at + 0x10, 0x18);
    machine.write(at + 0x14, lock);
    let port = config(&machine, "rp0");
    let extensions = Dvsecs::new(reader(&mut machine, port)).find(DvsecId::PortExtensions);
    let extensions = extensions.unwrap().unwrap().offset;
    machine.write(port + u64::from(extensions) + 0x0C, 1);
    let function = machine.function_mut(Place::Device(0)).unwrap();
    let dvsec = function.device_dvsec().unwrap();
    function.registers_mut().set(dvsec, Status::new().with_viral(true));
    let media = &mut machine.endpoint_mut(0).unwrap().media;
    assert!(media.write(Dpa(0), b"v") && media.write(Dpa(unit), b"p"));

    how(&mut machine);

    let device = machine.endpoint(0).unwrap();
    let hdm = device.component.hdm().unwrap();
    let images: Vec<_> = hdm.images().collect();
    let function = &device.function;
    let control2: Control2 = function.get(dvsec);
    Survivors {
        locked_decoder: images[0].base() == 1 << 32 && images[0].control().locked(),
        open_decoder: images[1].base() == 2 << 32 && images[1].control().committed(),
        decoder_enable: hdm.global().decoder_enable(),
        mem_enable: function.read(dvsec + 0x0C) & 4 != 0,
        range_base: function.read(dvsec + 0x20) == 1,
        config_lock: function.get::<Lock>(dvsec).config_lock(),
        viral: function.get::<Status>(dvsec).viral(),
        mem_clear: control2.reset_mem_clear(),
        preserve: control2.preserve_volatile(),
        command_and_bars: function.read(4) & 6 == 6
            && function.bar(0).is_some_and(|b| b.base().0 != 0),
        bridge_decoder: machine
            .component(Place::Bridge(0))
            .and_then(|block| block.hdm())
            .is_some_and(|hdm| hdm.images().next().unwrap().control().locked()),
        port_buses: machine.function(Place::Port(0)).unwrap().buses_below().is_some(),
        volatile: media8(&machine, 0, 0) == b'v',
        persistent: media8(&machine, 0, unit) == b'p',
        reset_complete: function.get::<Status2>(dvsec).reset_complete(),
    }
}

#[test]
fn resets_clear_what_they_clear_and_nothing_else() {
    let all = Survivors {
        locked_decoder: true,
        open_decoder: true,
        decoder_enable: true,
        mem_enable: true,
        range_base: true,
        config_lock: true,
        viral: true,
        mem_clear: true,
        preserve: true,
        command_and_bars: true,
        bridge_decoder: true,
        port_buses: true,
        volatile: true,
        persistent: true,
        reset_complete: false,
    };
    let above = Survivors { bridge_decoder: true, port_buses: true, ..NOTHING };
    let hot = Survivors { viral: true, preserve: true, volatile: true, ..above };
    // Volatile memory goes where CXL Reset Mem Clr Enable is set, as it is here.
    let cxl = Survivors {
        open_decoder: false,
        decoder_enable: false,
        mem_clear: false,
        volatile: false,
        reset_complete: true,
        ..all
    };
    let cases: [(&str, Option<Reset>, bool, Survivors); 9] = [
        ("none", None, true, all),
        ("cold", Some(Reset::Cold), true, NOTHING),
        ("warm", Some(Reset::Warm), true, NOTHING),
        ("hot", Some(Reset::Hot), true, hot),
        ("CXL Reset", Some(Reset::Cxl), true, cxl),
        ("FLR", Some(Reset::Flr), true, Survivors { command_and_bars: false, ..all }),
        ("none, open", None, false, Survivors { config_lock: false, ..all }),
        (
            "CXL Reset, open",
            Some(Reset::Cxl),
            false,
            Survivors { mem_enable: false, range_base: false, config_lock: false, ..cxl },
        ),
        (
            "FLR, open",
            Some(Reset::Flr),
            false,
            Survivors { command_and_bars: false, config_lock: false, ..all },
        ),
    ];
    for (name, reset, locked, expected) in cases {
        let left = left_after(locked, |machine| {
            if let Some(reset) = reset {
                machine.reset(reset);
            }
        });
        assert_eq!(left, expected, "{name}");
    }
    // The same from software.
    let left = left_after(true, |machine| {
        let at = dvsec(machine, "mem0") + 0x10;
        machine.write(at, 0x18 | 4);
    });
    assert_eq!(left, cxl, "Control2");
    let left = left_after(true, |machine| {
        let at = config(machine, "mem0") + 0x48;
        machine.write_bytes(at, &0x8000u16.to_le_bytes());
    });
    assert_eq!(left, Survivors { command_and_bars: false, ..all }, "Device Control");
    let left = left_after(true, |machine| {
        let at = config(machine, "rp0") + 0x3C;
        machine.write(at, 0x0040_0000);
    });
    assert_eq!(left, hot, "Bridge Control");
}

#[test]
fn error_masks_are_sticky() {
    // RAS, Uncorrectable Error Mask.
    for (reset, kept) in [
        (Reset::Cold, false),
        (Reset::Warm, false),
        (Reset::Hot, true),
        (Reset::Cxl, true),
        (Reset::Flr, true),
    ] {
        let mut machine = machine(SMALL);
        let at = component(&machine, "mem0") + 0x1000 + 0x84;
        machine.write(at, 0xF);
        machine.reset_device(0, reset);
        machine.assign();
        assert_eq!(machine.read(at), if kept { 0xF } else { 0 }, "{reset:?}");
    }
    // What is not sticky: BI Enable.
    let text = SMALL.replace("volatile", "coherency = \"back-invalidate\"\nvolatile");
    for reset in Reset::ALL {
        let mut machine = machine(&text);
        let at = component(&machine, "mem0") + 0x1000 + 0x624;
        machine.write(at, 2);
        machine.reset_device(0, reset);
        machine.assign();
        assert_eq!(machine.read(at), if reset == Reset::Flr { 2 } else { 0 }, "{reset:?}");
    }
}

#[test]
fn events_do_what_they_say_or_are_errors() {
    use cxl_model::scenario::{Action, ResetKind};
    let mut machine = small_path(LOCK);
    let locked = |machine: &Machine| machine.fabric().devices[0].hdm.as_ref().unwrap().decoders[0];
    let device = Some(0);
    machine.act(Action::Reset { kind: ResetKind::Cxl, device }).unwrap();
    assert_eq!(locked(&machine).control, 0x1700);
    machine.act(Action::Reset { kind: ResetKind::Hot, device }).unwrap();
    assert_eq!(locked(&machine).control, 0);
    assert_eq!(machine.act(Action::HotAdd { device: 0 }), Err(PlugError::Present { device: 0 }));
    let nobody = Action::Reset { kind: ResetKind::Flr, device: Some(9) };
    assert_eq!(machine.act(nobody), Err(PlugError::NoSuchDevice { device: 9, devices: 1 }));
    machine.act(Action::HotRemove { device: 0 }).unwrap();
    machine.act(Action::Reset { kind: ResetKind::Cold, device: None }).unwrap();
    assert_eq!(dwords(&mut machine, "hb0", 0), [0; 8]);
}

#[test]
fn secondary_bus_reset_is_masked_until_it_is_unmasked() {
    let mut machine = small_path(LOCK);
    let port = config(&machine, "rp0");
    let control = decoder(&machine, "mem0", 0) + 0x10;
    machine.write(port + 0x3C, 0x0040_0000);
    assert_eq!(machine.read(control), 0x1700);
    machine.write(port + 0x3C, 0);
    let extensions = Dvsecs::new(reader(&mut machine, port)).find(DvsecId::PortExtensions);
    let extensions = u64::from(extensions.unwrap().unwrap().offset);
    machine.write(port + extensions + 0x0C, 1);
    machine.write(port + 0x3C, 0x0040_0000);
    assert_eq!(machine.read(control), u32::MAX, "BARs are gone");
    assert_eq!(
        machine.endpoint(0).unwrap().component.hdm().unwrap().images().next().unwrap().control,
        0
    );
}

#[test]
fn assigned_machine_is_assigned_again_after_a_platform_reset() {
    let mut machine = small_path(LOCK);
    let at = component(&machine, "mem0");
    machine.reset(Reset::Warm);
    assert_eq!(component(&machine, "mem0"), at);
    assert_eq!(dwords(&mut machine, "mem0", 0), [0; 8]);
    assert_eq!(dwords(&mut machine, "hb0", 0), [0; 8]);
}

// Hot-plug.

#[test]
fn surprise_removal_takes_the_device_and_leaves_the_bridge_locked() {
    let mut machine = small_path(LOCK);
    let (config, component) = (config(&machine, "mem0"), component(&machine, "mem0"));
    machine.store(1 << 32, b"x");
    let _ = machine.take_changes();
    machine.hot_remove(0).unwrap();
    assert!(machine.take_changes().remap);
    assert_eq!(machine.read(config), u32::MAX);
    assert_eq!(machine.read(component + 0x1000), u32::MAX);
    assert_eq!(load8(&machine, 1 << 32), 0xFF);
    assert_eq!(dwords(&mut machine, "hb0", 0)[4], 0x1700);
    assert!(!machine.fabric().devices[0].present);
    machine.hot_add(0).unwrap();
    assert_eq!(machine.read(config) & 0xFFFF, 0x1E98);
    assert_eq!(load8(&machine, 1 << 32), 0xFF, "nobody has programmed it");
}

#[test]
fn bad_hot_plug_is_an_error_to_the_caller_and_changes_nothing() {
    let text = format!(
        "{SMALL}\n[[device]]\nname = \"late\"\nbelow = \"rp0\"\nvolatile = \"256MiB\"\n\
         present = false\n"
    );
    let mut machine = machine(&text);
    let fabric = machine.fabric();
    let _ = machine.take_changes();
    let by = Place::Device(0);
    assert_eq!(machine.hot_add(1), Err(PlugError::PortTaken { port: 0, by }));
    assert_eq!(machine.hot_add(0), Err(PlugError::Present { device: 0 }));
    assert_eq!(machine.hot_remove(1), Err(PlugError::Absent { device: 1 }));
    assert_eq!(machine.hot_add(7), Err(PlugError::NoSuchDevice { device: 7, devices: 2 }));
    assert_eq!(machine.fabric(), fabric);
    assert_eq!(machine.take_changes(), Changes::default());
    machine.hot_remove(0).unwrap();
    machine.hot_add(1).unwrap();
    assert!(machine.present(1) && !machine.present(0));
}

/// Below two bridges; `mem0` is there, `late` is not.
fn plug(bridge: &str, mem0: &str, late: &str, windows: &str) -> String {
    format!(
        "[[bridge]]\nname = \"hb0\"\nuid = 16\n{bridge}\n\
         [[bridge]]\nname = \"hb1\"\nuid = 32\n\
         [[port]]\nname = \"rp0\"\nbelow = \"hb0\"\n[[port]]\nname = \"rp1\"\nbelow = \"hb0\"\n\
         [[port]]\nname = \"rp2\"\nbelow = \"hb1\"\n\
         [[device]]\nname = \"mem0\"\nbelow = \"rp0\"\n{mem0}\n\
         [[device]]\nname = \"late\"\npresent = false\n{late}\n{windows}"
    )
}

fn window(targets: &str, size: &str, more: &str) -> String {
    format!("[[window]]\ntargets = [{targets}]\nsize = \"{size}\"\n{more}\n")
}

/// Commits a range of the first window to `mem0`, at this many units from 4 GiB.
fn take(machine: &mut Machine, (at, units): (u64, u64)) {
    let base = (1 << 32) + at * UNIT;
    program(machine, "mem0", 0, (base, units * UNIT, 0), HOST_ONLY | COMMIT | LOCK);
    enable(machine, "mem0");
    let control = program(machine, "hb0", 0, (base, units * UNIT, 0), HOST_ONLY | COMMIT | LOCK);
    assert_eq!(control & COMMITTED, COMMITTED);
}

#[test]
fn a_device_without_a_place_is_refused_with_the_numbers_and_nothing_changes() {
    use cxl_regs::{Coherency, Granularity, Interleave, Ways};
    const GIB: u64 = 4 * UNIT;
    const LATE: usize = 1;
    let mem0 = "volatile = \"768MiB\"";
    let late = "below = \"rp1\"\nvolatile = \"512MiB\"";
    let large = "below = \"rp1\"\nvolatile = \"4GiB\"";
    let one = window("16", "1GiB", "base = \"4GiB\"");
    let only =
        |names: &str| window("16", "1GiB", &format!("base = \"4GiB\"\nrestrictions = [{names}]"));
    let hb0 = Place::Bridge(0);
    let nothing = |_: &mut Machine| {};
    let taken = |machine: &mut Machine| take(machine, (0, 3));
    let middle = |machine: &mut Machine| take(machine, (1, 1));
    let half = |machine: &mut Machine| take(machine, (0, 1));
    type Case<'a> = (&'a str, String, &'a dyn Fn(&mut Machine), PlugError, &'a str);
    let room = |need, free, waiting| PlugError::NoRoom {
        device: LATE,
        window: 0,
        need,
        free,
        share: GIB,
        waiting,
    };
    let cases: Vec<Case<'_>> = vec![
        (
            "no window targets the bridge",
            plug("", mem0, "below = \"rp2\"\nvolatile = \"512MiB\"", &one),
            &nothing,
            PlugError::NoWindow { device: LATE, bridge: 1, uid: 32 },
            "no window targets hb1 (UID 32), below which late would be",
        ),
        (
            "the window is smaller than the device",
            plug("", mem0, large, &one),
            &nothing,
            PlugError::WindowTooSmall {
                device: LATE,
                window: 0,
                partition: Partition::Volatile,
                need: 4 * GIB,
                share: GIB,
                ways: Ways::One,
            },
            "late has 4 GiB of volatile memory, window0 1 GiB for each of its 1 way",
        ),
        (
            "a bridge's share of it is",
            plug("", mem0, large, &window("16, 32", "4GiB", "")),
            &nothing,
            PlugError::WindowTooSmall {
                device: LATE,
                window: 0,
                partition: Partition::Volatile,
                need: 4 * GIB,
                share: 2 * GIB,
                ways: Ways::Two,
            },
            "late has 4 GiB of volatile memory, window0 2 GiB for each of its 2 ways",
        ),
        (
            "committed decoders have the room",
            plug("", mem0, late, &one),
            &taken,
            room(2 * UNIT, UNIT, 0),
            "late needs 512 MiB, window0 has 256 MiB left in one piece of 1 GiB",
        ),
        (
            "what is left is in two pieces",
            plug("", mem0, "below = \"rp1\"\nvolatile = \"768MiB\"", &one),
            &middle,
            room(3 * UNIT, 2 * UNIT, 0),
            "late needs 768 MiB, window0 has 512 MiB left in one piece of 1 GiB",
        ),
        (
            "another device waits for the room",
            plug("", mem0, late, &one),
            &nothing,
            room(2 * UNIT, GIB, 3 * UNIT),
            "late needs 512 MiB, window0 has 1 GiB left in one piece of 1 GiB, and devices without \
             decoders wait for 768 MiB",
        ),
        (
            "one of two partitions finds room, not both",
            plug("", mem0, &format!("{late}\npersistent = \"512MiB\""), &one),
            &half,
            room(4 * UNIT, 3 * UNIT, 0),
            "late needs 1 GiB, window0 has 768 MiB left in one piece of 1 GiB",
        ),
        (
            "coherency",
            plug(
                "",
                mem0,
                &format!("{late}\nkind = \"type2\""),
                &only("\"host-only\", \"volatile\""),
            ),
            &nothing,
            PlugError::CoherencyNotAdmitted {
                device: LATE,
                window: 0,
                coherency: Coherency::Device,
            },
            "late is device-coherent (HDM-D), which window0 does not admit",
        ),
        (
            "media",
            plug(
                "",
                mem0,
                "below = \"rp1\"\npersistent = \"256MiB\"",
                &only("\"host-only\", \"volatile\""),
            ),
            &nothing,
            PlugError::MediaNotAdmitted {
                device: LATE,
                window: 0,
                partition: Partition::Persistent,
            },
            "late has persistent memory, which window0 does not admit",
        ),
        (
            "media of the second partition",
            plug(
                "",
                mem0,
                &format!("{late}\npersistent = \"256MiB\""),
                &only("\"host-only\", \"volatile\""),
            ),
            &half,
            PlugError::MediaNotAdmitted {
                device: LATE,
                window: 0,
                partition: Partition::Persistent,
            },
            "late has persistent memory, which window0 does not admit",
        ),
        (
            "back-invalidate",
            plug(
                "",
                mem0,
                &format!("{late}\nkind = \"type2\"\ncoherency = \"back-invalidate\""),
                &one,
            ),
            &nothing,
            PlugError::NoBackInvalidate { device: LATE, at: Place::Port(1) },
            "late needs back-invalidate, which rp1 cannot do",
        ),
        (
            "ways",
            plug(
                "",
                mem0,
                &format!("{late}\nways_3_6_12 = false"),
                &window("16, 32, 48", "3GiB", ""),
            ),
            &nothing,
            PlugError::InterleaveNotSupported {
                device: LATE,
                window: 0,
                interleave: Interleave::new(Ways::Three, Granularity::B256),
            },
            "late cannot interleave as window0 does, 3-way at 256 B",
        ),
        (
            "granularity",
            plug(
                "",
                mem0,
                &format!("{late}\nselects = \"11:8\""),
                &window("16, 32", "4GiB", "granularity = 4096"),
            ),
            &nothing,
            PlugError::InterleaveNotSupported {
                device: LATE,
                window: 0,
                interleave: Interleave::new(Ways::Two, Granularity::K4),
            },
            "late cannot interleave as window0 does, 2-way at 4 KiB",
        ),
        (
            "the bridge's one decoder is committed",
            plug("decoders = 1", mem0, "below = \"rp1\"\nvolatile = \"256MiB\"", &one),
            &taken,
            PlugError::NoDecoder {
                device: LATE,
                at: hb0,
                decoders: 1,
                committed: 1,
                targets: 8,
                waiting: 0,
            },
            "hb0 has no decoder left for late: 1 of 1 are committed, each lists 8 ports",
        ),
        (
            "the bridge's one decoder can list one port, and a device waits for it",
            plug(
                "decoders = 1\ntarget_count = 1",
                "volatile = \"256MiB\"",
                "below = \"rp1\"\nvolatile = \"256MiB\"",
                &one,
            ),
            &nothing,
            PlugError::NoDecoder {
                device: LATE,
                at: hb0,
                decoders: 1,
                committed: 0,
                targets: 1,
                waiting: 1,
            },
            "hb0 has no decoder left for late: 0 of 1 are committed, each lists 1 port, and other \
             devices without decoders wait for them: 1",
        ),
        (
            "a bridge without decoders and with two ports",
            plug("decoders = 0", mem0, late, &one),
            &nothing,
            PlugError::NoDecoder {
                device: LATE,
                at: hb0,
                decoders: 0,
                committed: 0,
                targets: 0,
                waiting: 0,
            },
            "hb0 has no decoder left for late: 0 of 0 are committed, each lists 0 ports",
        ),
        (
            "a window without a base",
            format!(
                "[platform]\nphysical_bits = 36\n{}",
                plug("", mem0, late, &window("16", "64GiB", ""))
            ),
            &nothing,
            PlugError::WindowNotPlaced { window: 0, size: 64 * GIB },
            "window0 of 64 GiB has no base: it did not fit",
        ),
        (
            "a window beyond the width",
            format!(
                "[platform]\nphysical_bits = 36\n{}",
                plug("", mem0, late, &window("16", "1GiB", "base = \"64GiB\""))
            ),
            &nothing,
            PlugError::WindowBeyondWidth { window: 0, base: Hpa(64 * GIB), size: GIB, bits: 36 },
            "window0 did not fit: 1 GiB from 0x1000000000 pass the physical address width of 36 bits",
        ),
        (
            "of two windows, the one that came furthest is told about",
            plug(
                "",
                mem0,
                large,
                &format!(
                    "{}{}",
                    only("\"device-coherent\", \"volatile\""),
                    window("16", "2GiB", "")
                ),
            ),
            &nothing,
            PlugError::WindowTooSmall {
                device: LATE,
                window: 1,
                partition: Partition::Volatile,
                need: 4 * GIB,
                share: 2 * GIB,
                ways: Ways::One,
            },
            "late has 4 GiB of volatile memory, window1 2 GiB for each of its 1 way",
        ),
    ];
    for (name, text, prepare, error, words) in cases {
        let mut machine = machine(&text);
        prepare(&mut machine);
        let fabric = machine.fabric();
        let _ = machine.take_changes();
        assert_eq!(machine.hot_add(LATE), Err(error), "{name}");
        assert_eq!(PlugText(&machine, error).to_string(), words, "{name}");
        assert!(!machine.present(LATE), "{name}");
        assert_eq!(machine.fabric(), fabric, "{name}");
        assert_eq!(machine.take_changes(), Changes::default(), "{name}");
    }
}

#[test]
fn a_port_that_does_not_exist_is_an_error() {
    let mut scenario = scenario(&plug("", "", "below = \"rp1\"", ""));
    scenario.devices[1].port = 9;
    let mut machine = Machine::new(&scenario);
    let error = PlugError::NoSuchPort { device: 1, port: 9, ports: 3 };
    assert_eq!(machine.hot_add(1), Err(error));
    let words = "late goes below port 9, which does not exist: the machine has 3";
    assert_eq!(PlugText(&machine, error).to_string(), words);
}

#[test]
fn a_switch_needs_a_decoder_for_a_newcomer_too() {
    let text = "[[bridge]]\nname = \"hb0\"\nuid = 16\n[[port]]\nname = \"rp0\"\nbelow = \"hb0\"\n\
         [[switch]]\nname = \"sw0\"\nbelow = \"rp0\"\ndecoders = 1\n\
         [[port]]\nname = \"dp0\"\nbelow = \"sw0\"\n[[port]]\nname = \"dp1\"\nbelow = \"sw0\"\n\
         [[device]]\nname = \"mem0\"\nbelow = \"dp0\"\nvolatile = \"256MiB\"\n\
         [[device]]\nname = \"late\"\nbelow = \"dp1\"\nvolatile = \"256MiB\"\npresent = false\n\
         [[window]]\ntargets = [16]\nbase = \"4GiB\"\nsize = \"1GiB\"\n";
    let mut machine = machine(text);
    // The bridge sends all of the window down, the switch's one decoder has the first quarter.
    program(&mut machine, "hb0", 0, (1 << 32, 4 * UNIT, 0), HOST_ONLY | COMMIT | LOCK);
    program(&mut machine, "sw0", 0, (1 << 32, UNIT, 0), HOST_ONLY | COMMIT | LOCK);
    program(&mut machine, "mem0", 0, (1 << 32, UNIT, 0), HOST_ONLY | COMMIT | LOCK);
    let error = PlugError::NoDecoder {
        device: 1,
        at: Place::Switch(0),
        decoders: 1,
        committed: 1,
        targets: 8,
        waiting: 0,
    };
    assert_eq!(machine.hot_add(1), Err(error));
    let mut machine = rig::machine(&text.replace("decoders = 1", "decoders = 2"));
    program(&mut machine, "hb0", 0, (1 << 32, 4 * UNIT, 0), HOST_ONLY | COMMIT | LOCK);
    program(&mut machine, "sw0", 0, (1 << 32, UNIT, 0), HOST_ONLY | COMMIT | LOCK);
    program(&mut machine, "mem0", 0, (1 << 32, UNIT, 0), HOST_ONLY | COMMIT | LOCK);
    assert_eq!(machine.hot_add(1), Ok(()));
}

#[test]
fn a_device_with_a_place_is_plugged_in() {
    let late = "below = \"rp1\"\nvolatile = \"256MiB\"";
    let mem0 = "volatile = \"768MiB\"";
    let one = window("16", "1GiB", "base = \"4GiB\"");
    let small = window("16", "256MiB", "") + &window("16", "2GiB", "");
    let cases = [
        ("exactly the room that is left", plug("", mem0, late, &one)),
        ("the second of two windows", plug("", mem0, &late.replace("256MiB", "512MiB"), &small)),
        (
            "an expander with back-invalidate on a path without",
            plug("", mem0, &format!("{late}\ncoherency = \"back-invalidate\""), &one),
        ),
        ("no memory at all", plug("", mem0, "below = \"rp2\"", &one)),
        (
            "a member of a set",
            plug("", "volatile = \"256MiB\"", late, &window("16, 32", "1GiB", "")),
        ),
    ];
    for (name, text) in cases {
        let mut machine = machine(&text);
        assert_eq!(machine.hot_add(1), Ok(()), "{name}");
        assert!(machine.present(1), "{name}");
    }
    // With the first three quarters committed, the last one is still there.
    let mut machine = machine(&plug("", mem0, late, &one));
    take(&mut machine, (0, 3));
    assert_eq!(machine.hot_add(1), Ok(()));
}

#[test]
fn a_device_that_comes_back_finds_what_its_bridge_still_leads_to_it() {
    // Firmware mapped a quarter of the device, and the window is smaller than all of it.
    let one = window("16", "512MiB", "base = \"4GiB\"");
    let late = "below = \"rp0\"\nvolatile = \"1GiB\"";
    let mut machine = machine(&plug("decoders = 1", "volatile = \"1GiB\"", late, &one));
    take(&mut machine, (0, 1));
    machine.hot_remove(0).unwrap();
    assert_eq!(machine.hot_add(0), Ok(()));
    // A stranger at the same port was never made do with.
    machine.hot_remove(0).unwrap();
    let refused = machine.hot_add(1);
    assert!(matches!(refused, Err(PlugError::WindowTooSmall { device: 1, .. })), "{refused:?}");
}

#[test]
fn link_active_says_whether_something_is_there() {
    let mut machine = machine(SMALL);
    let link_status = config(&machine, "rp0") + 0x50;
    let active = |machine: &mut Machine| machine.read(link_status) >> 29 & 1;
    assert_eq!(active(&mut machine), 1);
    machine.hot_remove(0).unwrap();
    assert_eq!(active(&mut machine), 0);
}

// Counting.

#[test]
fn accesses_are_counted_by_decoder_and_recorded_with_names() {
    let mut machine = machine(SMALL);
    machine.recorder_mut().keep();
    program(&mut machine, "mem0", 1, (1 << 32, UNIT, 0), HOST_ONLY | COMMIT);
    let traffic = machine.traffic().clone();
    assert_eq!((traffic.all.writes, traffic.all.reads), (7, 1));
    let count = traffic.decoders[&(Place::Device(0), 1)];
    assert_eq!((count.program, count.after), (Count { reads: 0, writes: 6 }, Count::default()));
    assert_eq!(count.commit, Count { reads: 1, writes: 1 });
    let kept = machine.recorder_mut().take();
    assert_eq!(kept.len(), 8);
    assert_eq!(kept[6].direction, Direction::Write);
    assert_eq!(kept[6].name.unwrap().register, "HDM Decoder Control");
    assert_eq!(kept[6].name.unwrap().decoder, Some(1));
    assert_eq!(kept[6].value, HOST_ONLY | COMMIT);
    assert_eq!(
        kept.iter().map(|access| access.sequence).collect::<Vec<_>>(),
        (0..8).collect::<Vec<_>>()
    );
}

#[test]
fn an_access_without_a_register_is_called_what_it_is() {
    let mut machine = machine(SMALL);
    let (port, device) = (config(&machine, "rp0"), config(&machine, "mem0"));
    let (bridge, block) = (component(&machine, "hb0"), component(&machine, "mem0"));
    let registers = machine.function(Place::Device(0)).unwrap().bar(2).unwrap().base().0;
    machine.recorder_mut().keep();
    for (address, words) in [
        (port, "Vendor and Device ID: Vendor ID 0x1e98, Device ID 0x2"),
        (port + 0x8000, "no function answers at 0000:10:01.0"),
        (0xCFFF_F000, "no function answers at 0000:ff:1f.7"),
        (device + 0x24, "Base Address"),
        (device + 0x38, "configuration header, reserved"),
        (device + 0x90, "PCI Express capability at 0x040, offset 0x50: reserved"),
        (device + 0x104, "Serial Number (Lower DW)"),
        (device + 0x10C, "device serial number capability at 0x100, offset 0x0c: reserved"),
        (device + 0xFFC, "extended capability list, nothing there"),
        (block, "component register block, CXL.io registers: none"),
        (block + 0x1000, "CXL Capability Header: CXL_Capability_ID 0x1"),
        (block + 0x100C, "CXL Capability Array Entry 3: CXL_Capability_ID 0x5"),
        (block + 0x1128 + 0x2C, "HDM decoder structure, offset 0x02c: reserved"),
        (block + 0x1F00, "component register block, no structure has this offset"),
        (block + 0x2000, "component register block, the implementation's part: nothing there"),
        (block + 0xE000, "component register block, ARB/MUX registers: none"),
        (bridge + 0xFFFC, "component register block, reserved"),
        (registers + 0x120, "Command Payload"),
        (registers + 0x800, "device registers, no structure has this offset"),
        (0x8000_0000, "nothing decodes this address"),
        (block + 0x10_0000, "no BAR has this address"),
        (0x1000, "RAM, not a register"),
    ] {
        machine.read(address);
        let access = machine.recorder_mut().take().last().copied().unwrap();
        let meaning = access.meaning(&machine);
        assert!(meaning.starts_with(words), "{address:#x}: {meaning}");
    }
    // A bridge of CXL 1.1 has an RCRB, of which only what tells that it is one is there.
    let mut machine = Machine::new(&scenario(builtin("cxl-1-1").unwrap().text));
    machine.recorder_mut().keep();
    let bridge = machine.map().bridges[1].registers.base().0;
    let mut meaning = |offset| {
        machine.read(bridge + offset);
        let access = machine.recorder_mut().take().last().copied().unwrap();
        access.meaning(&machine)
    };
    assert_eq!(meaning(0), "Vendor and Device ID: Vendor ID 0x8086, Device ID 0x7075");
    assert_eq!(meaning(0x20), "RCRB of a CXL 1.1 bridge: nothing there");
    // Memory Space on, a BAR of 64 bits and 64 KiB; no upstream port, as nothing is plugged in.
    let dwords = [0x04, 0x10, 0x14, 0x1000].map(|offset| machine.read(bridge + offset));
    assert_eq!((dwords[0], dwords[1] & 0xFFFF, dwords[2], dwords[3]), (2, 4, 0, u32::MAX));
}

#[test]
fn clock_goes_on_with_each_access_and_each_look() {
    let mut machine = machine(SMALL);
    let mut clock = machine.clock();
    let start = clock.microseconds();
    machine.read(0);
    assert_eq!(clock.microseconds(), start + 2);
}

#[test]
fn fabric_shows_the_registers_as_they_are() {
    let machine = small_path(LOCK);
    let fabric = machine.fabric();
    let device = &fabric.devices[0];
    assert!(device.dvsec.unwrap().mem_enable() && device.dvsec.unwrap().mem_capable());
    let hdm = device.hdm.as_ref().unwrap();
    assert!(hdm.decoder_enable());
    assert_eq!(hdm.decoders[0].control, 0x1700);
    assert_eq!(fabric.bridges[0].hdm.as_ref().unwrap().decoders[0].route_low, 5);
}

#[test]
fn no_access_panics_whatever_its_address_and_width() {
    let mut machine = small_path(LOCK);
    let spots: Vec<u64> = machine
        .map()
        .ecam
        .iter()
        .map(|(_, span)| span.base().0 + (16 << 20))
        .chain(machine.map().bridges.iter().map(|bridge| bridge.registers.base().0))
        .chain([component(&machine, "mem0"), 1 << 32, u64::MAX - 16, 0])
        .collect();
    for spot in spots {
        for offset in (0..0x2000u64).step_by(7) {
            for length in 0..17 {
                let mut bytes = vec![0; length];
                machine.read_bytes(spot.wrapping_add(offset), &mut bytes);
            }
        }
    }
}

#[test]
fn components_are_found_by_name() {
    for found in builtins() {
        let machine = Machine::new(&scenario(found.text));
        for place in machine.places() {
            let name = machine.name(place).to_owned();
            assert_eq!(machine.find(&name), Some(place), "{}", found.name);
            if let Place::Device(device) = place
                && !machine.present(device)
            {
                continue;
            }
            match place {
                Place::Bridge(_) => assert_eq!(machine.config_of(place), None),
                _ => assert_eq!(machine.config_of(place), Some(config(&machine, &name))),
            }
            // A device of a machine that a BIOS has set up has an address, as a bridge always has.
            let sure = match place {
                Place::Bridge(_) => true,
                Place::Device(_) => machine.scenario().platform.assigned,
                Place::Port(_) | Place::Switch(_) => false,
            };
            match machine.registers_of(place) {
                Some(at) => assert_eq!(at, component(&machine, &name), "{} {name}", found.name),
                None => assert!(!sure, "{} {name}", found.name),
            }
        }
        assert_eq!(machine.find("nobody"), None);
    }
}

/// Whoever reads the text of a register image changes nothing and is not counted.
#[test]
fn images_show_configuration_space_and_decoders_and_count_nothing() {
    let machine = small_path(LOCK);
    let text = image::component(&machine, "mem0").unwrap();
    for line in [
        "  command           0x0006  Memory Space, Bus Master\n",
        "  control           0x0006  IO_Enable, Mem_Enable\n",
        "  lock              0x0000\n",
        "capability array: ",
        "  control           0x00001700  committed, locked\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    assert_eq!(image::component(&machine, "nobody"), None);
    let mut without = small_path(LOCK);
    without.hot_remove(0).unwrap();
    assert_eq!(image::component(&without, "mem0"), None, "it is not plugged in");
    let traffic = machine.traffic().all;
    image::component(&machine, "hb0").unwrap();
    assert_eq!(machine.traffic().all, traffic);
}
