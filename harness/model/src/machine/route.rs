//! Where an access goes: which register, window or memory answers at an address.
//!
//! Of several that could claim an address, one wins: RAM, then ECAM, then registers of host bridges,
//! then the first window, then the BAR that comes first in the order of bridges, ports, and what
//! hangs below them.
//!
//! **Invariant**: the answer follows from the address map and the routing registers of bridges
//! alone; of two that could claim an address, the one that is asked first here always wins.

use cxl_regs::access::Spec;
use cxl_regs::component;
use cxl_regs::config::Bdf;
use cxl_regs::{Hpa, Span};

use super::Machine;
use crate::backing::Backing;
use crate::device::Name;
use crate::device::bridge::HostBridge;
use crate::device::endpoint::DEVICE_BAR;
use crate::device::port::{COMPONENT_BAR, Port};
use crate::fault::Where;
use crate::scenario::{BridgeVersion, Parent, Place};
use crate::trace::Target;

/// The unit in which a processor maps memory.
pub const PAGE: u64 = 4096;

/// Whole pages of plain memory behind a BAR.
#[derive(Clone, Copy, Debug)]
pub struct BarPages<'a> {
    /// Whose.
    pub device: usize,
    /// Where they are now.
    pub span: Span,
    /// The memory.
    pub memory: &'a Backing,
    /// Where in the memory they start.
    pub offset: u64,
}

impl Target {
    /// The component that owns what answers; windows and memory have no registers.
    pub fn place(self) -> Option<Place> {
        match self {
            Self::Config { place, .. } | Self::Component { place, .. } => Some(place),
            Self::DeviceRegisters { device, .. } => Some(Place::Device(device)),
            Self::VendorMemory { .. } | Self::Window => None,
        }
    }
}

impl Machine {
    /// What answers at an address.
    pub fn target(&self, address: u64) -> Option<Target> {
        if self.map.ram.iter().any(|span| span.contains(Hpa(address))) {
            return None;
        }
        for (segment, span) in &self.map.ecam {
            if let Some(offset) = span.offset_of(Hpa(address)) {
                let (bdf, offset) = Bdf::from_ecam_offset(offset)?;
                let place = self.function_at(*segment, bdf)?;
                return Some(Target::Config { place, offset });
            }
        }
        for (index, bridge) in self.map.bridges.iter().enumerate() {
            if let Some(offset) = bridge.registers.offset_of(Hpa(address)) {
                let place = Place::Bridge(index);
                return Some(Target::Component { place, offset: offset as u32 });
            }
        }
        if self.window_at(address).is_some() {
            return Some(Target::Window);
        }
        let (place, bar, offset) = self.bar_at(address)?;
        Some(match (place, bar) {
            (Place::Device(device), 2) => {
                Target::DeviceRegisters { device, offset: u16::try_from(offset).ok()? }
            }
            (Place::Device(device), _)
                if self.component(place)?.memory_extent().contains(&(offset as u32)) =>
            {
                Target::VendorMemory { device, offset: offset as u32 }
            }
            _ => Target::Component { place, offset: offset as u32 },
        })
    }

    /// The pages of plain memory behind BARs that accesses reach now: the BAR is placed, Memory Space
    /// and the forwarding windows above it are on, and no byte of the page is anybody else's.
    pub fn bar_pages(&self) -> Vec<BarPages<'_>> {
        (0..self.devices.len()).flat_map(|device| self.bar_pages_of(device)).collect()
    }

    fn bar_pages_of(&self, device: usize) -> Vec<BarPages<'_>> {
        let place = Place::Device(device);
        let bar = self.function(place).and_then(|function| function.bar(COMPONENT_BAR.index));
        let Some((block, bar)) = self.component(place).zip(bar) else { return Vec::new() };
        let extent = block.memory_extent();
        let mut pages: Vec<BarPages<'_>> = Vec::new();
        for offset in extent.clone().step_by(PAGE as usize) {
            let Ok(span) = Span::new(Hpa(bar.base().0 + u64::from(offset)), PAGE) else { continue };
            let target = self.target(span.base().0);
            // BARs and forwarding windows have whole pages; a CXL memory window may be anything.
            if target != Some(Target::VendorMemory { device, offset })
                || self.placed_windows().any(|(_, window)| window.overlaps(span))
            {
                continue;
            }
            match pages.last_mut() {
                Some(last) if last.span.end() == span.base() => {
                    last.span =
                        Span::new(last.span.base(), last.span.size() + PAGE).unwrap_or(span);
                }
                _ => {
                    let offset = u64::from(offset - extent.start);
                    pages.push(BarPages { device, span, memory: block.memory(), offset });
                }
            }
        }
        pages
    }

    /// The pages of registers behind memory accesses that answer the same however often and whenever they
    /// are asked, where accesses reach them now: first address, and what answers there. Of each component
    /// it is the page with the capability array, and of a device with a mailbox the one with that.
    pub fn register_pages(&self) -> Vec<(u64, Target)> {
        let offset = component::Region::CacheMem.extent().start;
        let components = self.places().into_iter().filter_map(|place| {
            let steady = self.component(place)?.is_steady();
            let base = self.registers_of(place).filter(|_| steady)?.checked_add(offset.into())?;
            Some((base, Target::Component { place, offset }))
        });
        let devices = (0..self.devices.len()).filter_map(|device| {
            self.endpoint(device)?.mailbox.as_ref()?;
            let bar = self.function(Place::Device(device))?.bar(DEVICE_BAR.index)?;
            Some((bar.base().0, Target::DeviceRegisters { device, offset: 0 }))
        });
        let reached = components.chain(devices).filter(|&(base, target)| {
            let counts = target.place().is_none_or(|place| self.counts_reads_of(place));
            // BARs and forwarding windows have whole pages; a CXL memory window may be anything.
            let alone = || {
                Span::new(Hpa(base), PAGE).is_ok_and(|page| {
                    self.placed_windows().all(|(_, window)| !window.overlaps(page))
                })
            };
            !counts && self.target(base) == Some(target) && alone()
        });
        reached.collect()
    }

    /// Every function that configuration cycles reach now, with the address of its configuration
    /// space.
    pub fn functions(&self) -> Vec<(u64, Place)> {
        let mut found = Vec::new();
        for (index, (bridge, place)) in
            self.scenario.bridges.iter().zip(&self.map.bridges).enumerate()
        {
            let at = (bridge.segment, place.first_bus);
            self.functions_below(Parent::Bridge(index), at, &mut found);
        }
        // Bus numbers may lead anywhere, and not every way that ends at a function is the one that
        // a cycle takes.
        found.retain(|&(address, place)| {
            self.target(address) == Some(Target::Config { place, offset: 0 })
        });
        found
    }

    fn functions_below(&self, parent: Parent, at: (u16, u8), found: &mut Vec<(u64, Place)>) {
        let (segment, bus) = at;
        let ecam = self.map.ecam.iter().find(|(of, _)| *of == segment);
        let Some((_, ecam)) = ecam else { return };
        let address = |bus, device| Some(ecam.base().0 + Bdf::new(bus, device, 0)?.ecam_offset(0)?);
        for ((port, _), device) in self.ports_of(parent).zip(0..) {
            found.extend(address(bus, device).zip(Some(Place::Port(port))));
            let below = self.below(port);
            let first = |port: &Port| port.function.buses_below().map(|(first, _)| first);
            let Some((below, bus)) = below.zip(self.ports.get(port).and_then(first)) else {
                continue;
            };
            found.extend(address(bus, 0).zip(Some(below)));
            if let Place::Switch(switch) = below
                && let Some(inside) = self.switches.get(switch).and_then(first)
            {
                self.functions_below(Parent::Switch(switch), (segment, inside), found);
            }
        }
    }

    /// The function that a configuration cycle reaches, by the bus numbers that bridges hold.
    fn function_at(&self, segment: u16, bdf: Bdf) -> Option<Place> {
        if bdf.function() != 0 {
            return None;
        }
        let bridges = self.scenario.bridges.iter().zip(&self.map.bridges).enumerate();
        for (index, (bridge, place)) in bridges {
            let buses = place.first_bus..=place.last_bus;
            let here = bridge.segment == segment && bridge.version == BridgeVersion::Cxl2;
            if here && buses.contains(&bdf.bus()) {
                return self.function_below(Parent::Bridge(index), place.first_bus, bdf);
            }
        }
        None
    }

    /// The same from the ports of a bridge or switch on, which sit on `bus`.
    fn function_below(&self, parent: Parent, bus: u8, bdf: Bdf) -> Option<Place> {
        if bdf.bus() == bus {
            let (port, _) = self.ports_of(parent).nth(usize::from(bdf.device()))?;
            return Some(Place::Port(port));
        }
        self.ports_of(parent).find_map(|(port, _)| {
            let (first, last) = self.ports.get(port)?.function.buses_below()?;
            if !(first..=last).contains(&bdf.bus()) {
                return None;
            }
            let below = self.below(port)?;
            if bdf.bus() == first {
                // A link has one device at its end.
                return (bdf.device() == 0).then_some(below);
            }
            let Place::Switch(switch) = below else { return None };
            let (first, last) = self.switches.get(switch)?.function.buses_below()?;
            if !(first..=last).contains(&bdf.bus()) {
                return None;
            }
            self.function_below(Parent::Switch(switch), first, bdf)
        })
    }

    /// The BAR that a memory access reaches: what the platform routes to a bridge goes down
    /// through forwarding windows until a BAR claims it.
    fn bar_at(&self, address: u64) -> Option<(Place, u8, u64)> {
        let mut bridges = self.map.bridges.iter().zip(&self.scenario.bridges);
        let bridge = bridges.position(|(place, given)| {
            given.version == BridgeVersion::Cxl2 && place.bars.contains(Hpa(address))
        })?;
        self.bar_below(Parent::Bridge(bridge), address)
    }

    fn bar_below(&self, parent: Parent, address: u64) -> Option<(Place, u8, u64)> {
        let own = |place: Place| {
            let (bar, offset) = self.function(place)?.bar_at(address)?;
            Some((place, bar, offset))
        };
        self.ports_of(parent).find_map(|(port, _)| {
            let place = Place::Port(port);
            own(place).or_else(|| {
                self.ports.get(port)?.function.forwards(address).then_some(())?;
                let below = self.below(port)?;
                own(below).or_else(|| {
                    let Place::Switch(switch) = below else { return None };
                    self.switches.get(switch)?.function.forwards(address).then_some(())?;
                    self.bar_below(Parent::Switch(switch), address)
                })
            })
        })
    }

    /// The register at a place, as faults name it.
    pub(super) fn fault_register(&self, target: Target) -> Option<Where> {
        match target {
            Target::Config { place, offset } => {
                let dvsec = self.function(place)?.device_dvsec()?;
                Some(Where::Dvsec((offset & !3).checked_sub(dvsec)?))
            }
            Target::Component { place, offset } => {
                Some(Where::Hdm(self.component(place)?.hdm_offset(offset)?))
            }
            _ => None,
        }
    }

    /// What the register is called that an access reaches.
    pub fn register_name(&self, target: Target) -> Option<Name> {
        match target {
            Target::Config { place, offset } => self.function(place)?.name(offset),
            Target::Component { place, offset } => match self.component(place) {
                Some(block) => block.name(offset),
                None => HostBridge::rcrb_spec(offset).map(|spec| Name::plain(spec.name)),
            },
            Target::DeviceRegisters { device, offset } => {
                self.endpoint(device)?.mailbox.as_ref()?.name(offset)
            }
            Target::VendorMemory { .. } | Target::Window => None,
        }
    }

    /// Every register in the dword that an access reaches; the low two bits of its offset say
    /// where in the dword.
    pub fn registers(&self, target: Target) -> Vec<Spec> {
        match target {
            Target::Config { place, offset } => {
                self.function(place).map(|function| function.specs(offset)).unwrap_or_default()
            }
            Target::Component { place, offset } => {
                let spec = match self.component(place) {
                    Some(block) => block.spec(offset),
                    None => HostBridge::rcrb_spec(offset),
                };
                spec.into_iter().collect()
            }
            Target::DeviceRegisters { device, offset } => {
                let mailbox = self.endpoint(device).and_then(|e| e.mailbox.as_ref());
                mailbox.map(|mailbox| mailbox.specs(offset)).unwrap_or_default()
            }
            Target::VendorMemory { .. } | Target::Window => Vec::new(),
        }
    }
}
