//! What tests of the machine share: a machine from TOML text, and a hand that programs decoders
//! with dwords and offsets of its own.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared by test binaries")]

use cxl_model::machine::Machine;
use cxl_model::scenario::{Place, Scenario};
use cxl_regs::mmio::Mmio;

/// Offset of the HDM structure in every component block of the machine.
pub const HDM: u64 = 0x1128;
pub const GLOBAL: u64 = HDM + 4;
pub const LOCK: u32 = 1 << 8;
pub const COMMIT: u32 = 1 << 9;
pub const COMMITTED: u32 = 1 << 10;
pub const HOST_ONLY: u32 = 1 << 12;
pub const UNIT: u64 = 0x1000_0000;

pub fn scenario(text: &str) -> Scenario {
    Scenario::parse(text, "test").unwrap_or_else(|error| panic!("{error}"))
}

pub fn machine(text: &str) -> Machine {
    Machine::new(&scenario(text))
}

/// One bridge, one port, one device of 512 MiB, a window at 4 GiB.
pub const SMALL: &str = r#"
[[bridge]]
name = "hb0"
uid = 16
decoders = 4
[[port]]
name = "rp0"
below = "hb0"
number = 5
[[device]]
name = "mem0"
below = "rp0"
volatile = "256MiB"
persistent = "256MiB"
[[window]]
targets = ["hb0"]
base = "0x100000000"
size = "4GiB"
"#;

pub fn place(machine: &Machine, name: &str) -> Place {
    let place = machine.places().into_iter().find(|place| machine.name(*place) == name);
    place.unwrap_or_else(|| panic!("no component {name}"))
}

/// Address of a component's registers.
pub fn component(machine: &Machine, name: &str) -> u64 {
    match place(machine, name) {
        Place::Bridge(index) => machine.map().bridges[index].registers.base().0,
        other => machine.function(other).unwrap().bar(0).unwrap().base().0,
    }
}

/// Address of decoder `n` of a component.
pub fn decoder(machine: &Machine, name: &str, n: u64) -> u64 {
    component(machine, name) + HDM + 0x10 + 0x20 * n
}

/// Address of a component's configuration space.
pub fn config(machine: &Machine, name: &str) -> u64 {
    let map = machine.map();
    let (segment, bus, slot) = match place(machine, name) {
        Place::Port(index) => {
            let port = map.ports[index];
            (port.segment, port.bus, port.slot)
        }
        Place::Switch(index) => (map.switches[index].segment, map.switches[index].bus, 0),
        Place::Device(index) => {
            let port = map.ports[machine.scenario().devices[index].port];
            (port.segment, port.secondary, 0)
        }
        Place::Bridge(_) => panic!("a host bridge has no configuration space"),
    };
    let ecam = map.ecam.iter().find(|(of, _)| *of == segment).unwrap().1.base().0;
    ecam + (u64::from(bus) << 20) + (u64::from(slot) << 15)
}

/// Address of the Device DVSEC of a device.
pub fn dvsec(machine: &Machine, name: &str) -> u64 {
    let at = machine.function(place(machine, name)).unwrap().device_dvsec().unwrap();
    config(machine, name) + u64::from(at)
}

/// Writes a decoder and its control; returns control as it reads then.
pub fn program(
    machine: &mut Machine,
    name: &str,
    n: u64,
    (base, size, route): (u64, u64, u64),
    control: u32,
) -> u32 {
    let at = decoder(machine, name, n);
    for (offset, value) in [(0x00, base), (0x08, size), (0x14, route)] {
        machine.write(at + offset, value as u32);
        machine.write(at + offset + 4, (value >> 32) as u32);
    }
    machine.write(at + 0x10, control);
    machine.read(at + 0x10)
}

/// HDM Decoder Enable and Mem_Enable of a device.
pub fn enable(machine: &mut Machine, name: &str) {
    let global = component(machine, name) + GLOBAL;
    machine.write(global, 2);
    let control = dvsec(machine, name) + 0x0C;
    machine.write(control, 0x4);
}

/// All eight dwords of a decoder.
pub fn dwords(machine: &mut Machine, name: &str, n: u64) -> [u32; 8] {
    let at = decoder(machine, name, n);
    std::array::from_fn(|dword| machine.read(at + 4 * dword as u64))
}

/// [`SMALL`] with the whole path committed, `control` apart from the host-only bit.
pub fn small_path(control: u32) -> Machine {
    let mut machine = machine(SMALL);
    let range = (1 << 32, 2 * UNIT);
    program(&mut machine, "mem0", 0, (range.0, range.1, 0), HOST_ONLY | COMMIT | control);
    enable(&mut machine, "mem0");
    program(&mut machine, "hb0", 0, (range.0, range.1, 5), HOST_ONLY | COMMIT | control);
    machine
}
