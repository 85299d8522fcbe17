//! The machine: models at addresses.
//!
//! It decodes every access the way the platform does (RAM is not its business), applies what
//! devices ask for once their borrow has ended, resets them, and takes them away.
//!
//! **Invariant**: an access that nothing claims reads all-ones and is dropped when written; no
//! access of any width, alignment or address panics.

mod assign;
mod memory;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cxl_firmware::mmio::{Clock, Mmio};
use cxl_regs::access::{Feature, Features, Register};
use cxl_regs::config::{Bdf, LinkStatus};
use cxl_regs::hdm::Capability;
use cxl_regs::{Component, Hpa};

use crate::device::bridge::HostBridge;
use crate::device::component::ComponentBlock;
use crate::device::config::Function;
use crate::device::endpoint::{Endpoint, Make};
use crate::device::hdm::{HdmBlock, Judgement};
use crate::device::port::{self, Path};
use crate::device::{Effect, Name, Reset};
use crate::fabric::{DeviceDvsec, Fabric, HdmImage};
use crate::fault::{self, Faults, Where};
use crate::layout::AddressMap;
use crate::scenario::{self, BridgeVersion, DeviceKind, Parent, Place, Scenario, Selects};
use crate::trace::{Access, Direction, Recorder, Traffic};

pub use memory::Landing;

/// A slot that a device sits in, or could.
#[derive(Debug)]
struct Slot {
    endpoint: Endpoint,
    present: bool,
}

/// What has changed since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Where CXL memory addresses lead may have changed.
    pub remap: bool,
    /// Where registers are found may have changed.
    pub relocate: bool,
}

/// Why a device could not be plugged in or pulled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlugError {
    /// There is no such device in the scenario.
    NoSuchDevice {
        /// The index that was given.
        device: usize,
        /// How many there are.
        devices: usize,
    },
    /// It is plugged in already.
    Present {
        /// Its index.
        device: usize,
    },
    /// It is not plugged in.
    Absent {
        /// Its index.
        device: usize,
    },
    /// Something else sits below its port.
    PortTaken {
        /// The port's index.
        port: usize,
        /// What sits there.
        by: Place,
    },
}

impl fmt::Display for PlugError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchDevice { device, devices } => {
                write!(f, "device {device} does not exist, the machine knows {devices}")
            }
            Self::Present { device } => write!(f, "device {device} is plugged in already"),
            Self::Absent { device } => write!(f, "device {device} is not plugged in"),
            Self::PortTaken { port, by: Place::Device(device) } => {
                write!(f, "port {port} is taken by device {device}")
            }
            Self::PortTaken { port, by } => write!(f, "port {port} is taken by {by:?}"),
        }
    }
}

impl std::error::Error for PlugError {}

/// The machine's time: a microsecond for each access, and for each look at the clock.
#[derive(Clone, Debug, Default)]
pub struct MachineClock(Arc<AtomicU64>);

impl MachineClock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }
}

impl Clock for MachineClock {
    fn microseconds(&mut self) -> u64 {
        self.tick()
    }
}

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

/// A machine built from a scenario.
#[derive(Debug)]
pub struct Machine {
    scenario: Scenario,
    map: AddressMap,
    bridges: Vec<HostBridge>,
    ports: Vec<port::Port>,
    switches: Vec<port::Port>,
    devices: Vec<Slot>,
    faults: Faults,
    recorder: Recorder,
    clock: MachineClock,
    changes: Changes,
}

impl Machine {
    /// The machine of a scenario after power-on, as the board's firmware leaves it.
    pub fn new(scenario: &Scenario) -> Self {
        let judgement =
            if scenario.platform.strict { Judgement::Strict } else { Judgement::Lenient };
        let mut machine = Self {
            map: AddressMap::new(scenario),
            bridges: scenario.bridges.iter().map(bridge).collect(),
            ports: (0..scenario.ports.len()).map(|index| build_port(scenario, index)).collect(),
            switches: (0..scenario.switches.len()).map(|index| switch(scenario, index)).collect(),
            devices: scenario.devices.iter().map(device).collect(),
            faults: Faults::new(&scenario.faults),
            recorder: Recorder::default(),
            clock: MachineClock::default(),
            changes: Changes { remap: true, relocate: true },
            scenario: scenario.clone(),
        };
        for place in machine.places() {
            if let Some(hdm) = machine.component_mut(place).and_then(ComponentBlock::hdm_mut) {
                hdm.set_judgement(judgement);
            }
        }
        for fault in &scenario.faults {
            machine.inject(*fault);
        }
        machine.settle_after_reset();
        machine
    }

    fn inject(&mut self, fault: scenario::Fault) {
        let scenario::Fault { at, kind } = fault;
        fault::inject(kind, self.component_mut(at).and_then(ComponentBlock::hdm_mut), None);
        fault::inject(kind, None, self.function_mut(at));
    }

    /// All components, bridges first, devices last.
    pub fn places(&self) -> Vec<Place> {
        let bridges = (0..self.bridges.len()).map(Place::Bridge);
        let ports = (0..self.ports.len()).map(Place::Port);
        let switches = (0..self.switches.len()).map(Place::Switch);
        let devices = (0..self.devices.len()).map(Place::Device);
        bridges.chain(ports).chain(switches).chain(devices).collect()
    }

    /// The scenario it was built from.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// Where everything is.
    pub fn map(&self) -> &AddressMap {
        &self.map
    }

    /// A component's name.
    pub fn name(&self, place: Place) -> &str {
        let scenario = &self.scenario;
        let name = match place {
            Place::Bridge(index) => scenario.bridges.get(index).map(|bridge| &bridge.name),
            Place::Port(index) => scenario.ports.get(index).map(|port| &port.name),
            Place::Switch(index) => scenario.switches.get(index).map(|switch| &switch.name),
            Place::Device(index) => scenario.devices.get(index).map(|device| &device.name),
        };
        name.map_or("", String::as_str)
    }

    /// A component's registers, plugged in or not.
    pub fn component(&self, place: Place) -> Option<&ComponentBlock> {
        match place {
            Place::Bridge(index) => self.bridges.get(index)?.component(),
            Place::Port(index) => self.ports.get(index).map(|port| &port.component),
            Place::Switch(index) => self.switches.get(index).map(|switch| &switch.component),
            Place::Device(index) => self.devices.get(index).map(|slot| &slot.endpoint.component),
        }
    }

    fn component_mut(&mut self, place: Place) -> Option<&mut ComponentBlock> {
        match place {
            Place::Bridge(index) => self.bridges.get_mut(index)?.component_mut(),
            Place::Port(index) => self.ports.get_mut(index).map(|port| &mut port.component),
            Place::Switch(index) => self.switches.get_mut(index).map(|port| &mut port.component),
            Place::Device(index) => {
                self.devices.get_mut(index).map(|slot| &mut slot.endpoint.component)
            }
        }
    }

    /// A component's configuration space; host bridges have none.
    pub fn function(&self, place: Place) -> Option<&Function> {
        match place {
            Place::Bridge(_) => None,
            Place::Port(index) => self.ports.get(index).map(|port| &port.function),
            Place::Switch(index) => self.switches.get(index).map(|switch| &switch.function),
            Place::Device(index) => self.devices.get(index).map(|slot| &slot.endpoint.function),
        }
    }

    /// A component's configuration space, to change what software cannot (a status bit, say).
    pub fn function_mut(&mut self, place: Place) -> Option<&mut Function> {
        match place {
            Place::Bridge(_) => None,
            Place::Port(index) => self.ports.get_mut(index).map(|port| &mut port.function),
            Place::Switch(index) => self.switches.get_mut(index).map(|port| &mut port.function),
            Place::Device(index) => {
                self.devices.get_mut(index).map(|slot| &mut slot.endpoint.function)
            }
        }
    }

    /// A device, plugged in or not.
    pub fn endpoint(&self, device: usize) -> Option<&Endpoint> {
        self.devices.get(device).map(|slot| &slot.endpoint)
    }

    /// A device, plugged in or not, to reach its media from behind.
    pub fn endpoint_mut(&mut self, device: usize) -> Option<&mut Endpoint> {
        self.devices.get_mut(device).map(|slot| &mut slot.endpoint)
    }

    /// Whether a device is plugged in.
    pub fn present(&self, device: usize) -> bool {
        self.devices.get(device).is_some_and(|slot| slot.present)
    }

    /// A handle on the machine's time, for those who cannot borrow the machine twice.
    pub fn clock(&self) -> MachineClock {
        self.clock.clone()
    }

    /// What was counted.
    pub fn traffic(&self) -> &Traffic {
        self.recorder.traffic()
    }

    /// Counting and recording of register accesses.
    pub fn recorder_mut(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    /// What has changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Everything that decides where an address leads, as the registers have it now.
    pub fn fabric(&self) -> Fabric {
        let mut fabric = Fabric::of(&self.scenario);
        let hdm = |place| self.component(place).and_then(ComponentBlock::hdm).map(image);
        for (index, bridge) in fabric.bridges.iter_mut().enumerate() {
            bridge.hdm = hdm(Place::Bridge(index));
        }
        for (index, switch) in fabric.switches.iter_mut().enumerate() {
            switch.hdm = hdm(Place::Switch(index));
        }
        for (index, device) in fabric.devices.iter_mut().enumerate() {
            device.present = self.present(index);
            device.hdm = hdm(Place::Device(index));
            let function = self.function(Place::Device(index));
            device.dvsec = function.and_then(|function| {
                let at = function.device_dvsec()?;
                let [capability, control] = [0x08, 0x0C].map(|offset| function.read(at + offset));
                Some(DeviceDvsec { capability, control })
            });
        }
        fabric
    }

    /// The ports of a bridge or switch, in order of their slots.
    fn ports_of(&self, parent: Parent) -> impl Iterator<Item = (usize, &scenario::Port)> {
        self.scenario.ports.iter().enumerate().filter(move |(_, port)| port.parent == parent)
    }

    /// What hangs below a port.
    fn below(&self, port: usize) -> Option<Place> {
        let switch = self.scenario.switches.iter().position(|switch| switch.port == port);
        let devices = self.scenario.devices.iter().zip(&self.devices);
        let present =
            |(given, slot): (&scenario::Device, &Slot)| given.port == port && slot.present;
        let mut devices = devices.map(present);
        switch.map(Place::Switch).or_else(|| devices.position(|hit| hit).map(Place::Device))
    }

    // Where accesses go.

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

    // Accesses.

    /// Reads any bytes. Registers answer aligned dwords (configuration space also parts of one,
    /// device registers also pairs), windows and memory anything.
    pub fn read_bytes(&mut self, address: u64, bytes: &mut [u8]) {
        self.clock.tick();
        bytes.fill(0xFF);
        match self.target(address) {
            Some(Target::Window) => self.load(address, bytes),
            Some(Target::VendorMemory { device, offset }) => {
                let memory = self.component_mut(Place::Device(device));
                if let Some(memory) = memory.and_then(|block| block.memory(offset, bytes.len())) {
                    bytes.copy_from_slice(memory);
                }
            }
            target => {
                if !self.fits(target, address, bytes.len()) {
                    return;
                }
                let mut rest = bytes;
                for (at, lane) in lanes(address, rest.len()) {
                    let target = if at == address { target } else { self.target(at) };
                    let dword = self.read_dword(at, target).to_le_bytes();
                    let (now, behind) = rest.split_at_mut(lane.len().min(rest.len()));
                    now.iter_mut().zip(dword.iter().skip(lane.start)).for_each(|(to, b)| *to = *b);
                    rest = behind;
                }
            }
        }
    }

    /// Writes any bytes, by the same rules.
    pub fn write_bytes(&mut self, address: u64, bytes: &[u8]) {
        self.clock.tick();
        match self.target(address) {
            Some(Target::Window) => self.store(address, bytes),
            Some(Target::VendorMemory { device, offset }) => {
                let memory = self.component_mut(Place::Device(device));
                if let Some(memory) = memory.and_then(|block| block.memory(offset, bytes.len())) {
                    memory.copy_from_slice(bytes);
                }
            }
            target => {
                if !self.fits(target, address, bytes.len()) {
                    return;
                }
                let mut rest = bytes;
                for (at, lane) in lanes(address, bytes.len()) {
                    let target = if at == address { target } else { self.target(at) };
                    let (mut value, mut enabled) = ([0; 4], [0; 4]);
                    let (now, behind) = rest.split_at(lane.len().min(rest.len()));
                    for ((to, mask), from) in
                        value.iter_mut().zip(&mut enabled).skip(lane.start).zip(now)
                    {
                        (*to, *mask) = (*from, 0xFF);
                    }
                    let (value, enabled) = (u32::from_le_bytes(value), u32::from_le_bytes(enabled));
                    self.write_dword(at, target, value, enabled);
                    rest = behind;
                }
            }
        }
    }

    /// Whether registers take an access of this width at this address; counts those they do not.
    fn fits(&mut self, target: Option<Target>, address: u64, length: usize) -> bool {
        let aligned = address.is_multiple_of(length.max(1) as u64);
        let fits = aligned
            && match target {
                Some(Target::Config { .. }) => matches!(length, 1 | 2 | 4),
                Some(Target::DeviceRegisters { .. }) => matches!(length, 1 | 2 | 4 | 8),
                _ => length == 4,
            };
        if !fits && target.is_some() {
            self.recorder.ragged();
        }
        fits
    }

    fn read_dword(&mut self, address: u64, target: Option<Target>) -> u32 {
        let now = self.clock.now();
        let place = target.and_then(place_of);
        let name = target.and_then(|target| self.register_name(target));
        let answers = place.is_some_and(|place| self.faults.answers(place));
        let (value, effect) = match target.filter(|_| answers) {
            Some(Target::Config { place, offset }) => {
                let read = self.function(place).map(|function| function.read(offset & !3));
                (read.unwrap_or(u32::MAX), Effect::None)
            }
            Some(Target::Component { place, offset }) => match self.component_mut(place) {
                Some(block) => block.read(offset, now),
                None => (u32::MAX, Effect::None),
            },
            Some(Target::DeviceRegisters { device, offset }) => {
                let mailbox = self.endpoint(device).and_then(|e| e.mailbox.as_ref());
                (mailbox.map_or(u32::MAX, |mailbox| mailbox.read(offset)), Effect::None)
            }
            Some(Target::Window | Target::VendorMemory { .. }) | None => (u32::MAX, Effect::None),
        };
        let direction = Direction::Read;
        self.recorder.access(Access { sequence: 0, direction, address, place, name, value });
        self.apply(place, effect);
        value
    }

    fn write_dword(&mut self, address: u64, target: Option<Target>, value: u32, enabled: u32) {
        let now = self.clock.now();
        let place = target.and_then(place_of);
        let name = target.and_then(|target| self.register_name(target));
        let direction = Direction::Write;
        self.recorder.access(Access { sequence: 0, direction, address, place, name, value });
        let Some((target, place)) = target.zip(place) else { return };
        let lost = self.fault_register(target).is_some_and(|at| self.faults.drops(place, at));
        if !self.faults.answers(place) || lost {
            return;
        }
        let effect = match target {
            Target::Config { offset, .. } => match self.function_mut(place) {
                Some(function) => function.write(offset & !3, value, enabled),
                None => Effect::None,
            },
            Target::Component { offset, .. } => match self.component_mut(place) {
                Some(block) => block.write(offset, value, now),
                None => Effect::None,
            },
            Target::DeviceRegisters { device, offset } => {
                if let Some(mailbox) = self.endpoint_mut(device).and_then(|e| e.mailbox.as_mut()) {
                    mailbox.write(offset, value, enabled);
                }
                Effect::None
            }
            Target::Window | Target::VendorMemory { .. } => Effect::None,
        };
        self.apply(Some(place), effect);
    }

    /// The register at a place, as faults name it.
    fn fault_register(&self, target: Target) -> Option<Where> {
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

    // What accesses lead to.

    fn apply(&mut self, place: Option<Place>, effect: Effect) {
        match (effect, place) {
            (Effect::Remap, _) => self.changes.remap = true,
            (Effect::Relocate, _) => self.changes.relocate = true,
            (Effect::ResetSelf(reset), Some(Place::Device(device))) => {
                self.reset_device(device, reset);
            }
            (Effect::ResetBelow, Some(Place::Port(port))) => self.reset_below(port),
            (Effect::ResetBelow, Some(Place::Switch(switch))) => self.reset_inside(switch),
            (Effect::None | Effect::ResetSelf(_) | Effect::ResetBelow, _) => {}
        }
    }

    /// Resets one device.
    pub fn reset_device(&mut self, device: usize, reset: Reset) {
        if let Some(slot) = self.devices.get_mut(device) {
            slot.endpoint.reset(reset);
        }
        self.changes = Changes { remap: true, relocate: true };
    }

    /// Resets the whole machine. A hot reset is one of all links: host bridges and root ports,
    /// which lie above them, keep what they have. CXL Reset and FLR go to every device.
    pub fn reset(&mut self, reset: Reset) {
        if reset == Reset::Hot {
            for port in 0..self.ports.len() {
                if matches!(self.scenario.ports.get(port), Some(p) if is_root(p)) {
                    self.reset_below(port);
                }
            }
        } else {
            for slot in &mut self.devices {
                slot.endpoint.reset(reset);
            }
            if reset.conventional() {
                self.bridges.iter_mut().for_each(|bridge| bridge.reset(reset));
                self.ports.iter_mut().chain(&mut self.switches).for_each(|port| port.reset(reset));
                self.settle_after_reset();
            }
        }
        self.changes = Changes { remap: true, relocate: true };
    }

    /// Hot reset of all that hangs below a port.
    fn reset_below(&mut self, port: usize) {
        match self.below(port) {
            Some(Place::Device(device)) => self.reset_device(device, Reset::Hot),
            Some(Place::Switch(switch)) => {
                if let Some(upstream) = self.switches.get_mut(switch) {
                    upstream.reset(Reset::Hot);
                }
                self.reset_inside(switch);
            }
            _ => {}
        }
    }

    /// Hot reset of a switch's downstream ports and all below them.
    fn reset_inside(&mut self, switch: usize) {
        let ports: Vec<usize> = self.ports_of(Parent::Switch(switch)).map(|(at, _)| at).collect();
        for port in ports {
            if let Some(downstream) = self.ports.get_mut(port) {
                downstream.reset(Reset::Hot);
            }
            self.reset_below(port);
        }
        self.settle_links();
        self.changes = Changes { remap: true, relocate: true };
    }

    fn settle_after_reset(&mut self) {
        if self.scenario.platform.assigned {
            self.assign();
        }
        self.settle_links();
    }

    /// Data Link Layer Link Active: whether something sits at the other end.
    fn settle_links(&mut self) {
        for port in 0..self.ports.len() {
            let active = self.below(port).is_some();
            if let Some(port) = self.ports.get_mut(port) {
                port.function.set_link(|status: LinkStatus| status.with_active(active));
            }
        }
    }

    // Devices that come and go.

    fn slot(&mut self, device: usize) -> Result<&mut Slot, PlugError> {
        let devices = self.devices.len();
        self.devices.get_mut(device).ok_or(PlugError::NoSuchDevice { device, devices })
    }

    /// Plugs a device in, as it is after a cold reset. Nobody has assigned its BARs.
    pub fn hot_add(&mut self, device: usize) -> Result<(), PlugError> {
        if self.slot(device)?.present {
            return Err(PlugError::Present { device });
        }
        let port = self.scenario.devices.get(device).map_or(usize::MAX, |given| given.port);
        if let Some(by) = self.below(port) {
            return Err(PlugError::PortTaken { port, by });
        }
        let slot = self.slot(device)?;
        slot.endpoint.reset(Reset::Cold);
        slot.present = true;
        self.settle_links();
        self.changes = Changes { remap: true, relocate: true };
        Ok(())
    }

    /// Pulls a device out, without a word to anybody. What is locked above it stays.
    pub fn hot_remove(&mut self, device: usize) -> Result<(), PlugError> {
        let slot = self.slot(device)?;
        if !slot.present {
            return Err(PlugError::Absent { device });
        }
        slot.present = false;
        self.settle_links();
        self.changes = Changes { remap: true, relocate: true };
        Ok(())
    }
}

impl Mmio for Machine {
    fn read(&mut self, address: u64) -> u32 {
        let mut bytes = [0; 4];
        self.read_bytes(address, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn write(&mut self, address: u64, value: u32) {
        self.write_bytes(address, &value.to_le_bytes());
    }
}

/// The component that owns what answers; windows and memory have no registers.
fn place_of(target: Target) -> Option<Place> {
    match target {
        Target::Config { place, .. } | Target::Component { place, .. } => Some(place),
        Target::DeviceRegisters { device, .. } => Some(Place::Device(device)),
        Target::VendorMemory { .. } | Target::Window => None,
    }
}

/// A root port.
fn is_root(port: &scenario::Port) -> bool {
    matches!(port.parent, Parent::Bridge(_))
}

/// The dwords that an access of up to 8 bytes touches, and which bytes of each.
fn lanes(address: u64, length: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let first = address & !3;
    let start = (address - first) as usize;
    let end = start + length;
    (0..end.div_ceil(4)).map(move |index| {
        let (low, high) = (4 * index, 4 * index + 4);
        (first.wrapping_add(low as u64), start.max(low) - low..end.min(high) - low)
    })
}

fn image(hdm: &HdmBlock) -> HdmImage {
    HdmImage {
        capability: hdm.capability().raw(),
        global_control: hdm.global().raw(),
        decoders: hdm.images().collect(),
    }
}

/// What the hierarchy below a bridge can do.
fn path_of(bridge: &scenario::Bridge) -> Path {
    Path { back_invalidate: bridge.back_invalidate, cache_id: bridge.cache_id }
}

/// The decoders of a bridge or upstream port.
fn routing(component: Component, path: Path, decoders: u8, targets: u8) -> Option<HdmBlock> {
    let capability = Capability::new()
        .with_decoder_count(Capability::encode_decoders(decoders)?)
        .with_target_count(targets)
        .with_interleave_11_8(true)
        .with_interleave_14_12(true)
        .with_mem_data_nxm(path.back_invalidate);
    let features = Features::NONE;
    let features =
        if path.back_invalidate { features.with(Feature::BackInvalidate) } else { features };
    Some(HdmBlock::new(component, features, capability))
}

fn bridge(given: &scenario::Bridge) -> HostBridge {
    match given.version {
        BridgeVersion::Cxl1 => HostBridge::restricted(),
        BridgeVersion::Cxl2 => {
            let path = path_of(given);
            let hdm = routing(Component::HostBridge, path, given.decoders, given.target_count);
            HostBridge::new(hdm, path)
        }
    }
}

/// What the hierarchy can do that a port or switch belongs to.
fn path_at(scenario: &Scenario, mut parent: Parent) -> Path {
    for _ in 0..=scenario.switches.len() {
        let switch = match parent {
            Parent::Bridge(bridge) => {
                return scenario.bridges.get(bridge).map(path_of).unwrap_or_default();
            }
            Parent::Switch(switch) => scenario.switches.get(switch),
        };
        let Some(port) = switch.and_then(|switch| scenario.ports.get(switch.port)) else { break };
        parent = port.parent;
    }
    Path::default()
}

fn build_port(scenario: &Scenario, index: usize) -> port::Port {
    let Some(given) = scenario.ports.get(index) else {
        return port::Port::root(0, Path::default(), None);
    };
    let path = path_at(scenario, given.parent);
    // Decoders that route nothing, as some hardware has them in its ports.
    let idle = given.hdm.then(|| routing(Component::UpstreamPort, Path::default(), 4, 8)).flatten();
    match given.parent {
        Parent::Bridge(_) => port::Port::root(given.number, path, idle),
        Parent::Switch(_) => port::Port::downstream(given.number, path, idle),
    }
}

fn switch(scenario: &Scenario, index: usize) -> port::Port {
    let path = path_at(scenario, Parent::Switch(index));
    let given = scenario.switches.get(index);
    let hdm = given.and_then(|switch| {
        routing(Component::UpstreamPort, path, switch.decoders, switch.target_count)
    });
    port::Port::upstream(hdm, path)
}

fn device(given: &scenario::Device) -> Slot {
    let endpoint = Endpoint::new(&Make {
        accelerator: given.kind == DeviceKind::Type2,
        volatile: given.volatile,
        persistent: given.persistent,
        coherency: given.coherency,
        decoders: given.decoders,
        selects_11_8: given.selects != Selects::High,
        selects_14_12: given.selects != Selects::Low,
        ways_3_6_12: given.ways_3_6_12,
        ways_16: given.ways_16,
        serial: given.serial,
    });
    Slot { endpoint, present: given.present }
}
