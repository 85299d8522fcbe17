//! The machine: models at addresses.
//!
//! It decodes every access the way the platform does (RAM is not its business), applies what
//! devices ask for once their borrow has ended, resets them, and takes them away.
//!
//! **Invariant**: an access that nothing claims reads all-ones and is dropped when written; no
//! access of any width, alignment or address panics.

mod access;
mod assign;
mod build;
mod frozen;
mod leak;
mod lifecycle;
mod memory;
mod pass_through;
mod plug;
mod route;
mod sets;
mod trace_text;
mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cxl_regs::access::Register;
use cxl_regs::component::CapabilityId;
use cxl_regs::mmio::Clock;

use crate::device::bridge::HostBridge;
use crate::device::component::ComponentBlock;
use crate::device::config::Function;
use crate::device::endpoint::Endpoint;
use crate::device::hdm::{HdmBlock, Judgement, Misuse};
use crate::device::port::Port;
use crate::fabric::{self, DeviceDvsec, Fabric, HdmImage};
use crate::fault::{self, Faults};
use crate::layout::{AddressMap, place_windows};
use crate::scenario::{self, Parent, Place, Scenario};
use crate::trace::{Recorder, Traffic};

pub use memory::Landing;
pub use pass_through::{Hardware, PassError, Unpassed, hardware_of};
pub use plug::{PlugError, PlugText};
pub use route::{BarPages, PAGE};
pub use sets::{FlatRange, Recovered, SetRefusal, SetShape};
pub use trace_text::{TraceText, WalksText};
pub use words::NoRegister;

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

/// The machine's time: a microsecond for each access, and for each look at the clock.
#[derive(Clone, Debug, Default)]
pub struct MachineClock(Arc<AtomicU64>);

impl MachineClock {
    pub(crate) fn now(&self) -> u64 {
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

/// A machine built from a scenario.
#[derive(Debug)]
pub struct Machine {
    scenario: Scenario,
    map: AddressMap,
    bridges: Vec<HostBridge>,
    ports: Vec<Port>,
    switches: Vec<Port>,
    devices: Vec<Slot>,
    faults: Faults,
    leaks: leak::Leaks,
    recorder: Recorder,
    clock: MachineClock,
    changes: Changes,
    /// Sets whose memory is in the order of host addresses.
    sets: sets::Sets,
    /// What its devices were handed over from.
    hardware: Option<Box<Hardware>>,
}

impl Machine {
    /// The machine of a scenario after power-on, as the board's firmware leaves it.
    pub fn new(scenario: &Scenario) -> Self {
        let judgement =
            if scenario.platform.strict { Judgement::Strict } else { Judgement::Lenient };
        let map = AddressMap::new(scenario);
        let bridges = scenario.bridges.iter().zip(&map.bridges);
        let mut machine = Self {
            bridges: bridges.map(|(bridge, place)| build::bridge(bridge, place)).collect(),
            ports: (0..scenario.ports.len()).map(|index| build::port(scenario, index)).collect(),
            switches: (0..scenario.switches.len())
                .map(|index| build::switch(scenario, index))
                .collect(),
            devices: scenario.devices.iter().map(build::device).collect(),
            faults: Faults::new(&scenario.faults),
            leaks: leak::Leaks::default(),
            recorder: Recorder::default(),
            clock: MachineClock::default(),
            changes: Changes { remap: true, relocate: true },
            sets: sets::Sets::default(),
            hardware: None,
            scenario: scenario.clone(),
            map,
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
        machine.add_leaks();
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

    /// Programs the root complex: it has these windows from now on, whatever it had before.
    pub fn program_windows(&mut self, windows: Vec<scenario::Window>) {
        self.scenario.windows = windows;
        self.map.windows = place_windows(&self.scenario);
        self.changes.remap = true;
    }

    /// The component of this name.
    pub fn find(&self, name: &str) -> Option<Place> {
        self.places().into_iter().find(|place| self.name(*place) == name)
    }

    /// Physical address of a component's register block: a host bridge's own, or where BAR 0 is now.
    /// `None` where there is none or nobody has given it an address.
    pub fn registers_of(&self, place: Place) -> Option<u64> {
        let block = match place {
            Place::Bridge(index) => self.map.bridges.get(index)?.registers,
            _ => self.function(place)?.bar(0)?,
        };
        Some(block.base().0)
    }

    /// Physical address of a component's configuration space, given the buses that the address map
    /// has; `None` for a host bridge, which has none.
    pub fn config_of(&self, place: Place) -> Option<u64> {
        let map = &self.map;
        let (segment, bus, slot) = match place {
            Place::Bridge(_) => return None,
            Place::Port(index) => {
                let port = map.ports.get(index)?;
                (port.segment, port.bus, port.slot)
            }
            Place::Switch(index) => {
                let switch = map.switches.get(index)?;
                (switch.segment, switch.bus, 0)
            }
            Place::Device(index) => {
                let port = map.ports.get(self.scenario.devices.get(index)?.port)?;
                (port.segment, port.secondary, 0)
            }
        };
        let (_, ecam) = map.ecam.iter().find(|(other, _)| *other == segment)?;
        Some(ecam.base().0 + (u64::from(bus) << 20) + (u64::from(slot) << 15))
    }

    /// A component's name.
    pub fn name(&self, place: Place) -> &str {
        self.scenario.name_of(place)
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

    /// A dword of the RCRB of a CXL 1.1 bridge, as a read gives it; `None` for what is none.
    pub fn rcrb(&self, place: Place, offset: u32) -> Option<u32> {
        let Place::Bridge(index) = place else { return None };
        let bridge = self.bridges.get(index).filter(|bridge| bridge.component().is_none())?;
        Some(if self.faults.is_dead(place) { u32::MAX } else { bridge.rcrb(offset) })
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

    /// The record of register accesses.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Whether a component's answers depend on how often it was asked.
    pub fn counts_reads_of(&self, place: Place) -> bool {
        self.faults.counts(place)
    }

    /// Whether a component still answers: after some faults its registers read as all-ones.
    pub fn answers(&self, place: Place) -> bool {
        !self.faults.is_dead(place)
    }

    /// Components whose decoders were used in a way whose outcome the specification leaves undefined,
    /// and how often. A model of hardware takes it one way; other hardware need not.
    pub fn misuse(&self) -> Vec<(Place, Misuse)> {
        let counted = |place| Some((place, self.component(place)?.hdm()?.misuse()));
        let places = self.places().into_iter().filter_map(counted);
        places.filter(|(_, misuse)| *misuse != Misuse::default()).collect()
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
        let Scenario { bridges, ports, switches, devices, windows, .. } = &self.scenario;
        let hdm = |place| self.component(place).and_then(ComponentBlock::hdm).map(image);
        let has = |place, id| self.component(place).is_some_and(|block| block.has(id));
        let windows = windows.iter().zip(&self.map.windows).map(|(window, &base)| fabric::Window {
            name: window.name.clone(),
            base,
            size: window.size,
            targets: window.targets.clone(),
            interleave: window.interleave,
            arithmetic: window.arithmetic,
            xor_maps: window.xor_maps.clone(),
            restrictions: window.restrictions,
        });
        let bridges = bridges.iter().enumerate().map(|(index, bridge)| fabric::Bridge {
            name: bridge.name.clone(),
            uid: bridge.uid,
            hdm: hdm(Place::Bridge(index)),
        });
        let ports = ports.iter().enumerate().map(|(index, port)| fabric::Port {
            name: port.name.clone(),
            parent: port.parent,
            number: port.number,
            back_invalidate: has(Place::Port(index), CapabilityId::BiDecoder),
        });
        let switches = switches.iter().enumerate().map(|(index, switch)| fabric::Switch {
            name: switch.name.clone(),
            port: switch.port,
            hdm: hdm(Place::Switch(index)),
            back_invalidate: has(Place::Switch(index), CapabilityId::BiRouteTable),
        });
        let devices = devices.iter().enumerate().map(|(index, device)| fabric::Device {
            name: device.name.clone(),
            port: device.port,
            present: self.present(index),
            hdm: hdm(Place::Device(index)),
            dvsec: self.function(Place::Device(index)).and_then(|function| {
                let at = function.device_dvsec()?;
                let [capability, control] = [0x08, 0x0C].map(|offset| function.read(at + offset));
                Some(DeviceDvsec { capability, control })
            }),
            back_invalidate: has(Place::Device(index), CapabilityId::BiDecoder),
            volatile: device.volatile,
            persistent: device.persistent,
        });
        Fabric {
            physical_bits: self.scenario.platform.physical_bits,
            windows: windows.collect(),
            bridges: bridges.collect(),
            ports: ports.collect(),
            switches: switches.collect(),
            devices: devices.collect(),
        }
    }

    /// The ports of a bridge or switch, in order of their slots.
    fn ports_of(&self, parent: Parent) -> impl Iterator<Item = (usize, &scenario::Port)> {
        self.scenario.ports.iter().enumerate().filter(move |(_, port)| port.parent == parent)
    }

    /// What hangs below a port.
    pub fn below(&self, port: usize) -> Option<Place> {
        let switch = self.scenario.switches.iter().position(|switch| switch.port == port);
        let devices = self.scenario.devices.iter().zip(&self.devices);
        let present =
            |(given, slot): (&scenario::Device, &Slot)| given.port == port && slot.present;
        let mut devices = devices.map(present);
        switch.map(Place::Switch).or_else(|| devices.position(|hit| hit).map(Place::Device))
    }
}

impl Fabric {
    /// A scenario's hardware before any firmware has run: that of its machine, so that there is one
    /// account of what hardware can do.
    pub fn of(scenario: &Scenario) -> Self {
        Machine::new(scenario).fabric()
    }
}

fn image(hdm: &HdmBlock) -> HdmImage {
    HdmImage {
        capability: hdm.capability().raw(),
        global_control: hdm.global().raw(),
        decoders: hdm.images().collect(),
    }
}
