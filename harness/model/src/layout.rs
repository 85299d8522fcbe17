//! The machine's address map: RAM, ECAM, register blocks, BARs and windows, as one pure function of
//! the scenario.
//!
//! **Invariant**: adding a bridge, a device or a window at the end of a scenario moves no address
//! that was there, and CXL memory lies in windows and nowhere else. So every address follows from
//! something that does not move: RAM from its size, ECAM from the segment, a bridge's registers and
//! all BARs from segment and bus number, a window from RAM and the windows before it.
//!
//! ```text
//! 0000_0000  RAM, up to 2 GiB
//! 8000_0000  BARs: 2 MiB for each bus of each segment (32-bit: PCI bridges forward no other)
//! c000_0000  ECAM: 256 MiB for each segment
//! e000_0000  register blocks of host bridges (CHBCR or RCRB): 64 KiB for each bus
//! f000_0000  left to the chip set
//! 1_0000_0000  the rest of RAM, then windows
//! ```
//!
//! A scenario may have all of its RAM elsewhere, so that there is room for a window at 0.

use cxl_regs::{DECODER_UNIT, Hpa, Span};

use crate::scenario::{self, Parent, Scenario};

const BARS: u64 = 0x8000_0000;
const BARS_PER_BUS: u64 = 2 << 20;
const ECAM: u64 = 0xC000_0000;
const ECAM_PER_SEGMENT: u64 = 256 << 20;
const BRIDGE_REGISTERS: u64 = 0xE000_0000;
/// Size of a host bridge's component register block (CXL r3.1 section 9.18.1.2, CHBS length).
const BRIDGE_REGISTERS_SIZE: u64 = 64 << 10;
const CHIP_SET: u64 = 0xF000_0000;
const HIGH: u64 = 1 << 32;
/// First address of memory that a guest may use.
pub const FREE: u64 = 0x2_0000;
const VIDEO: u64 = 0xA_0000;
/// Where the ACPI tables lie, as a BIOS would have them.
pub const TABLES: u64 = 0xE_0000;
const LOW_END: u64 = 0x10_0000;
const BUSES: u64 = 256;

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressMap {
    /// RAM: one range, or two around the hole below 4 GiB.
    pub ram: Vec<Span>,
    /// Configuration space of each segment that has a bridge: segment and range.
    pub ecam: Vec<(u16, Span)>,
    /// Bridges in the scenario's order.
    pub bridges: Vec<BridgePlace>,
    /// Ports in the scenario's order.
    pub ports: Vec<PortPlace>,
    /// Switches in the scenario's order.
    pub switches: Vec<SwitchPlace>,
    /// Base of each window in the scenario's order; `None` = not placed.
    pub windows: Vec<Option<Hpa>>,
}

/// Where a bridge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgePlace {
    /// Its register block.
    pub registers: Span,
    /// First bus, the root bus.
    pub first_bus: u8,
    /// Last bus below it.
    pub last_bus: u8,
    /// Where BARs below it go.
    pub bars: Span,
}

/// Where a port is, in PCI terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPlace {
    /// Segment.
    pub segment: u16,
    /// The bus it sits on.
    pub bus: u8,
    /// Its device number there.
    pub slot: u8,
    /// The bus below it.
    pub secondary: u8,
    /// The last bus below it.
    pub subordinate: u8,
}

/// Where a switch is: its upstream port, and the bus that its downstream ports share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchPlace {
    /// Segment.
    pub segment: u16,
    /// The bus of the upstream port, as device 0.
    pub bus: u8,
    /// The bus of the downstream ports.
    pub secondary: u8,
    /// The last bus below it.
    pub subordinate: u8,
}

impl AddressMap {
    /// The map of a scenario's machine.
    pub fn new(scenario: &Scenario) -> Self {
        let mut numbering = Numbering::new(scenario);
        let bridges = (0..scenario.bridges.len()).map(|index| numbering.bridge(index)).collect();
        let mut segments: Vec<u16> = scenario.bridges.iter().map(|b| b.segment).collect();
        segments.sort_unstable();
        segments.dedup();
        let ecam = |segment: u16| {
            let base = ECAM + u64::from(segment) * ECAM_PER_SEGMENT;
            (segment, span(base, ECAM_PER_SEGMENT))
        };
        Self {
            ram: ram(scenario),
            ecam: segments.into_iter().map(ecam).collect(),
            bridges,
            ports: numbering.ports,
            switches: numbering.switches,
            windows: place_windows(scenario),
        }
    }
}

impl AddressMap {
    /// What lies where it lies whatever is programmed, so that no window is mapped over it: RAM,
    /// ECAM, registers of host bridges, and what x86 has below 4 GiB (interrupt controllers, and
    /// the pages that KVM keeps to itself there).
    pub fn fixed(&self) -> impl Iterator<Item = Span> {
        let ram = self.ram.iter().copied();
        let ecam = self.ecam.iter().map(|(_, span)| *span);
        let bridges = self.bridges.iter().map(|bridge| bridge.registers);
        ram.chain(ecam).chain(bridges).chain([chip_set()])
    }
}

/// What is left to the chip set.
pub fn chip_set() -> Span {
    span(CHIP_SET, HIGH - CHIP_SET)
}

/// The memory map that a guest is handed: each range, and whether it is RAM that the guest may use.
///
/// The start of RAM holds what the guest is started with, and tables lie where a BIOS has them.
pub fn memory_map(ram: impl Iterator<Item = Span>) -> Vec<(Span, bool)> {
    let ram: Vec<Span> = ram.collect();
    let is_low = ram.iter().any(|ram| ram.contains(Hpa(0)));
    let first = [(0, FREE, false), (FREE, VIDEO, true), (TABLES, LOW_END, false)];
    let first = first.map(|(base, end, usable)| (span(base, end - base), usable));
    let first = first.into_iter().filter(|_| is_low);
    let rest = ram.into_iter().filter_map(|ram| {
        let base = ram.base().0.max(LOW_END);
        Some((Span::new(Hpa(base), ram.end().0.checked_sub(base)?).ok()?, true))
    });
    first.chain(rest).collect()
}

/// A range of constants and small numbers, which neither wraps nor is empty.
fn span(base: u64, size: u64) -> Span {
    Span::new(Hpa(base), size).unwrap_or_else(|_| unreachable!("{base:#x} + {size:#x}"))
}

fn ram(scenario: &Scenario) -> Vec<Span> {
    let scenario::Platform { memory, memory_base, .. } = scenario.platform;
    if let Some(base) = memory_base {
        return Span::new(base, memory).into_iter().collect();
    }
    let low = memory.min(BARS);
    let parts = [(0, low), (HIGH, memory - low)];
    parts.into_iter().filter_map(|(base, size)| Span::new(Hpa(base), size).ok()).collect()
}

/// The 2 MiB that belong to the BARs of functions on one bus.
///
/// A bridge's forwarding window is the run of these from its secondary to its subordinate bus.
pub fn bars_of_buses(segment: u16, first: u8, last: u8) -> Span {
    let number = |bus: u8| u64::from(segment) * BUSES + u64::from(bus);
    let count = u64::from(last.max(first) - first) + 1;
    span(BARS + number(first) * BARS_PER_BUS, count * BARS_PER_BUS)
}

/// Bus numbers, given out depth first as PCI wants them.
struct Numbering<'s> {
    scenario: &'s Scenario,
    ports: Vec<PortPlace>,
    switches: Vec<SwitchPlace>,
}

impl<'s> Numbering<'s> {
    fn new(scenario: &'s Scenario) -> Self {
        let port = PortPlace { segment: 0, bus: 0, slot: 0, secondary: 0, subordinate: 0 };
        let switch = SwitchPlace { segment: 0, bus: 0, secondary: 0, subordinate: 0 };
        let ports = vec![port; scenario.ports.len()];
        Self { scenario, ports, switches: vec![switch; scenario.switches.len()] }
    }

    fn bridge(&mut self, index: usize) -> BridgePlace {
        let (segment, first_bus) =
            self.scenario.bridges.get(index).map_or((0, 0), |b| (b.segment, b.bus));
        let last_bus = self.bus(segment, first_bus, Parent::Bridge(index));
        let number = u64::from(segment) * BUSES + u64::from(first_bus);
        BridgePlace {
            registers: span(
                BRIDGE_REGISTERS + number * BRIDGE_REGISTERS_SIZE,
                BRIDGE_REGISTERS_SIZE,
            ),
            first_bus,
            last_bus,
            bars: bars_of_buses(segment, first_bus, last_bus),
        }
    }

    /// Numbers all that hangs below the ports of `parent`, which sit on `bus`; the last number.
    fn bus(&mut self, segment: u16, bus: u8, parent: Parent) -> u8 {
        let scenario = self.scenario;
        let ports = scenario.ports.iter().enumerate().filter(|(_, port)| port.parent == parent);
        let mut last = bus;
        for (slot, (index, _)) in ports.enumerate() {
            let secondary = last.saturating_add(1);
            last = secondary;
            let switch = scenario.switches.iter().position(|switch| switch.port == index);
            if let Some(switch) = switch {
                let inside = secondary.saturating_add(1);
                last = self.bus(segment, inside, Parent::Switch(switch));
                let place =
                    SwitchPlace { segment, bus: secondary, secondary: inside, subordinate: last };
                if let Some(slot) = self.switches.get_mut(switch) {
                    *slot = place;
                }
            }
            let slot = slot as u8;
            let place = PortPlace { segment, bus, slot, secondary, subordinate: last };
            if let Some(entry) = self.ports.get_mut(index) {
                *entry = place;
            }
        }
        last
    }
}

/// The address space in which windows may lie: above RAM, within the physical address width.
pub fn window_space(scenario: &Scenario) -> Option<Span> {
    let limit = 1u64.checked_shl(scenario.platform.physical_bits.into()).unwrap_or(u64::MAX);
    let above_ram = ram(scenario).last().map_or(HIGH, |ram| ram.end().0);
    let base = above_ram.max(HIGH);
    Span::new(Hpa(base), limit.checked_sub(base)?).ok()
}

/// Where each window lies, in the scenario's order; `None` = nowhere.
///
/// A window without a base takes the next free address above RAM that is a multiple of
/// 256 MiB x ways, clear of the windows before it in the file. One that would pass the physical
/// address width is not placed at all, and takes no room from those behind it.
pub fn place_windows(scenario: &Scenario) -> Vec<Option<Hpa>> {
    let space = window_space(scenario);
    let (mut next, limit) = space.map_or((HIGH, HIGH), |space| (space.base().0, space.end().0));
    let mut placed: Vec<Span> = Vec::new();
    let mut bases = Vec::new();
    for window in &scenario.windows {
        let base = match window.base {
            Some(base) => Some(base),
            None => {
                let align = DECODER_UNIT * u64::from(window.interleave.ways.count());
                let found = free_above(next, window.size, align, limit, &placed);
                next = found.map_or(next, |span| span.end().0);
                found.map(Span::base)
            }
        };
        placed.extend(base.and_then(|base| Span::new(base, window.size).ok()));
        bases.push(base);
    }
    bases
}

/// The lowest aligned range at or above `from` that ends below `limit` and meets none of `taken`.
fn free_above(from: u64, size: u64, align: u64, limit: u64, taken: &[Span]) -> Option<Span> {
    let mut base = from.checked_next_multiple_of(align)?;
    // Each round steps over at least one taken range for good.
    for _ in 0..=taken.len() {
        let span = Span::new(Hpa(base), size).ok().filter(|span| span.end().0 <= limit)?;
        match taken.iter().filter(|other| other.overlaps(span)).map(|other| other.end().0).max() {
            None => return Some(span),
            Some(end) => base = end.checked_next_multiple_of(align)?,
        }
    }
    None
}
