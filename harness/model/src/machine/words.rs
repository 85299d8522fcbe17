//! What an access is called that reaches no register of a known name.
//!
//! **Invariant**: the words follow from the address map and from what the models are made of; no
//! access changes anything here.

use std::fmt;

use cxl_regs::Hpa;
use cxl_regs::component;
use cxl_regs::config::{Bdf, CONVENTIONAL_SIZE, Capabilities, ExtendedCapabilities};

use super::Machine;
use crate::device::bridge::HostBridge;
use crate::device::config::Function;
use crate::scenario::Place;
use crate::trace::Target;

/// Bytes of the header of configuration space.
const HEADER_SIZE: u16 = 0x40;

/// What lies at an address, if no register of a known name does.
#[derive(Clone, Copy, Debug)]
pub struct NoRegister<'m> {
    machine: &'m Machine,
    target: Option<Target>,
    address: u64,
}

impl Machine {
    /// What an access to this address reached, which led to this target, if it has no register of a
    /// known name.
    pub fn no_register(&self, target: Option<Target>, address: u64) -> NoRegister<'_> {
        NoRegister { machine: self, target, address }
    }

    /// The number of the dword in a component's capability array that an access reaches; the array's
    /// own header is 0.
    pub fn array_entry(&self, target: Target) -> Option<usize> {
        let Target::Component { place, offset } = target else { return None };
        self.component(place)?.array_index(offset)
    }
}

impl fmt::Display for NoRegister<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, target, address } = *self;
        match target {
            None => nobody(machine, address, f),
            Some(Target::Config { place, offset }) => match machine.function(place) {
                Some(function) => config(function, offset, f),
                None => f.write_str("no function answers there"),
            },
            Some(Target::Component { place, offset }) => component(machine, place, offset, f),
            Some(Target::DeviceRegisters { .. }) => {
                f.write_str("device registers, no structure has this offset")
            }
            Some(Target::VendorMemory { .. }) => f.write_str("memory behind a BAR, not a register"),
            Some(Target::Window) => f.write_str("a CXL window, not a register"),
        }
    }
}

fn nobody(machine: &Machine, address: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let map = machine.map();
    let at = Hpa(address);
    if map.ram.iter().any(|ram| ram.contains(at)) {
        return f.write_str("RAM, not a register");
    }
    let config = map.ecam.iter().find_map(|(segment, ecam)| Some((segment, ecam.offset_of(at)?)));
    if let Some((segment, offset)) = config {
        return match Bdf::from_ecam_offset(offset) {
            Some((bdf, _)) => write!(f, "no function answers at {segment:04x}:{bdf}"),
            None => f.write_str("no function answers there"),
        };
    }
    if map.bridges.iter().any(|bridge| bridge.bars.contains(at)) {
        return f.write_str("no BAR has this address");
    }
    f.write_str("nothing decodes this address")
}

fn config(function: &Function, offset: u16, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if offset < HEADER_SIZE {
        return f.write_str("configuration header, reserved");
    }
    let reader = |at| function.read(at);
    let list = if offset < CONVENTIONAL_SIZE {
        let found = Capabilities::new(reader).flatten();
        let last = found.filter(|found| found.offset <= offset).max_by_key(|found| found.offset);
        last.map(|found| (found.offset, found.id.to_string()))
    } else {
        let found = ExtendedCapabilities::new(reader).flatten();
        let last = found.filter(|found| found.offset <= offset).max_by_key(|found| found.offset);
        let inside = last.filter(|_| offset < function.end_of_extended());
        inside.map(|found| (found.offset, found.id.to_string()))
    };
    match list {
        Some((start, id)) => {
            write!(f, "{id} capability at {start:#05x}, offset {:#04x}: reserved", offset - start)
        }
        None if offset < CONVENTIONAL_SIZE => f.write_str("capability list, nothing there"),
        None => f.write_str("extended capability list, nothing there"),
    }
}

fn component(
    machine: &Machine,
    place: Place,
    offset: u32,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let Some(block) = machine.component(place) else {
        let name = HostBridge::rcrb_spec(offset).map_or("nothing there", |spec| spec.name);
        return write!(f, "RCRB of a CXL 1.1 bridge: {name}");
    };
    match component::Region::at(offset) {
        Some(component::Region::Io) => {
            f.write_str("component register block, CXL.io registers: none")
        }
        Some(component::Region::CacheMem) => match block.structure_at(offset) {
            Some((id, within)) => {
                write!(f, "{id} structure, offset {within:#05x}: reserved")
            }
            None => f.write_str("component register block, no structure has this offset"),
        },
        Some(component::Region::Implementation) => {
            f.write_str("component register block, the implementation's part: nothing there")
        }
        Some(component::Region::ArbMux) => {
            f.write_str("component register block, ARB/MUX registers: none")
        }
        Some(component::Region::Reserved) | None => {
            f.write_str("component register block, reserved")
        }
    }
}
