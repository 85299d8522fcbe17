//! What the board's firmware does before anybody thinks of CXL: bus numbers, windows and BARs.
//!
//! **Invariant**: everything goes through configuration writes, and where a function is found
//! depends on nothing but its place in the address map.

use cxl_regs::access::Register;
use cxl_regs::component::BLOCK_SIZE;
use cxl_regs::config::{
    Bar, BarKind, BridgeHeader, BusNumbers, Command, MemoryBase, PrefetchableBase,
    PrefetchableBaseUpper, PrefetchableLimitUpper, Windows,
};

use super::Machine;
use crate::device::config::Function;
use crate::layout::bars_of_buses;

impl Machine {
    /// Assigns bus numbers, forwarding windows and BARs of everything that is there.
    pub fn assign(&mut self) {
        let Self { map, ports, switches, devices, scenario, .. } = self;
        for (place, port) in map.ports.iter().zip(ports.iter_mut()) {
            let buses = (place.bus, place.secondary, place.subordinate);
            assign_bridge(&mut port.function, place.segment, buses, place.slot);
        }
        for (place, switch) in map.switches.iter().zip(switches.iter_mut()) {
            let buses = (place.bus, place.secondary, place.subordinate);
            assign_bridge(&mut switch.function, place.segment, buses, 0);
        }
        for (given, slot) in scenario.devices.iter().zip(devices.iter_mut()) {
            let Some(place) = map.ports.get(given.port).filter(|_| slot.present) else { continue };
            let first = bars_of_buses(place.segment, place.secondary, place.secondary).base().0;
            let function = &mut slot.endpoint.function;
            for (index, base) in [(0, first), (2, first + u64::from(BLOCK_SIZE))] {
                place_bar(function, index, base);
            }
            switch_on(function);
        }
        self.changes.relocate = true;
    }
}

fn write(function: &mut Function, offset: u16, value: u32) {
    let _ = function.write(offset, value, u32::MAX);
}

/// Memory Space and Bus Master, without a write to the status register beside them.
fn switch_on(function: &mut Function) {
    let command = Command::new().with_memory_space(true).with_bus_master(true);
    let _ = function.write(Command::SPEC.offset, command.raw(), 0xFFFF);
}

fn place_bar(function: &mut Function, index: u16, base: u64) {
    let at = Bar::SPEC.offset + 4 * index;
    let (low, high) = BarKind::Memory64 { prefetchable: false }.at(base);
    write(function, at, low);
    write(function, at + 4, high);
}

fn assign_bridge(
    function: &mut Function,
    segment: u16,
    (primary, secondary, subordinate): (u8, u8, u8),
    slot: u8,
) {
    let buses = BusNumbers::new()
        .with_primary(primary)
        .with_secondary(secondary)
        .with_subordinate(subordinate);
    write(function, BusNumbers::SPEC.offset, buses.raw());
    let own = bars_of_buses(segment, primary, primary).base().0;
    place_bar(function, 0, own + u64::from(slot) * u64::from(BLOCK_SIZE));
    let below = Windows {
        memory: Some(bars_of_buses(segment, secondary, subordinate)),
        prefetchable: None,
    };
    let header = BridgeHeader::read(|offset| function.read(offset), 0);
    if let Ok(header) = header.with_windows(below) {
        let dword = |low: u32, high: u32| low | high << 16;
        let memory = dword(header.memory_base.raw(), header.memory_limit.raw());
        let prefetchable = dword(header.pref_base.raw(), header.pref_limit.raw());
        write(function, MemoryBase::SPEC.offset, memory);
        write(function, PrefetchableBase::SPEC.offset, prefetchable);
        let (base, limit) = (header.pref_base_upper, header.pref_limit_upper);
        write(function, PrefetchableBaseUpper::SPEC.offset, base.raw());
        write(function, PrefetchableLimitUpper::SPEC.offset, limit.raw());
    }
    switch_on(function);
}
