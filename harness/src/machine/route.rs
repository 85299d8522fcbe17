//! Where an access goes: which register, window or memory answers at an address.
//!
//! **Invariant**: the answer follows from the address map and the routing registers of bridges
//! alone; of two that could claim an address, the one that is asked first here always wins.

use cxl_regs::Hpa;
use cxl_regs::access::Spec;
use cxl_regs::config::Bdf;

use super::Machine;
use crate::device::Name;
use crate::fault::Where;
use crate::scenario::{BridgeVersion, Parent, Place};

/// What answers at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Configuration space of a function.
    Config {
        /// Whose.
        place: Place,
        /// Offset in it.
        offset: u16,
    },
    /// Component registers.
    Component {
        /// Whose.
        place: Place,
        /// Offset in the block.
        offset: u32,
    },
    /// Memory behind a BAR: no registers, any access will do.
    VendorMemory {
        /// Index of the device.
        device: usize,
        /// Offset in the component block.
        offset: u32,
    },
    /// Device registers, with the mailbox.
    DeviceRegisters {
        /// Index of the device.
        device: usize,
        /// Offset in the block.
        offset: u16,
    },
    /// A fixed memory window.
    Window,
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
            Target::Component { place, offset } => self.component(place)?.name(offset),
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
                self.component(place).and_then(|block| block.spec(offset)).into_iter().collect()
            }
            Target::DeviceRegisters { device, offset } => {
                let mailbox = self.endpoint(device).and_then(|e| e.mailbox.as_ref());
                mailbox.map(|mailbox| mailbox.specs(offset)).unwrap_or_default()
            }
            Target::VendorMemory { .. } | Target::Window => Vec::new(),
        }
    }
}
