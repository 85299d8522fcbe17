//! A scenario's machine as QEMU makes it: its windows where QEMU has put them, and its registers
//! as the harness's own pictures of a machine want them.
//!
//! **Invariant**: addresses come from QEMU's tables and dwords from its registers. The scenario
//! says only what to call them, and what QEMU has otherwise is an error by name.

use std::fmt;

use cxl_firmware::mmio::{Block, Mmio};
use cxl_firmware::topology::{Hdm, Tree};
use cxl_regs::access::Component;
use cxl_regs::hdm::{DecoderImage, GlobalControl, decoder_offset};
use cxl_regs::{Hpa, Size};

use crate::run::{self, Tables};
use cxl_model::fabric::{DeviceDvsec, Fabric, HdmImage};
use cxl_model::layout::AddressMap;
use cxl_model::scenario::{Place, Scenario};
use cxl_model::words::counted;

/// A scenario, and where QEMU has put what it says.
#[derive(Clone, Debug)]
pub struct View {
    /// The scenario with a base for each window.
    pub scenario: Scenario,
    /// Its map, with QEMU's windows and registers of bridges. What the map says of buses and BARs
    /// is not QEMU's and not to be used.
    pub map: AddressMap,
}

/// What QEMU has otherwise than the scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// A different number of windows.
    Windows {
        /// The scenario's.
        expected: usize,
        /// QEMU's.
        found: usize,
    },
    /// A window of another shape.
    Window {
        /// Its name.
        name: String,
        /// The scenario's.
        expected: String,
        /// QEMU's.
        found: String,
    },
    /// A bridge that the CEDT does not list.
    Bridge {
        /// Its name.
        name: String,
        /// Its UID.
        uid: u32,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Windows { expected, found } => {
                let expected = counted(expected, "window");
                write!(f, "QEMU's CEDT: expected {expected}, found {found}")
            }
            Self::Window { name, expected, found } => {
                write!(f, "QEMU's CEDT, {name}: expected {expected}, found {found}")
            }
            Self::Bridge { name, uid } => {
                write!(f, "QEMU's CEDT: expected a bridge with UID {uid} for {name}, found none")
            }
        }
    }
}

impl std::error::Error for Mismatch {}

impl View {
    /// Finds the scenario in QEMU's tables. QEMU lists windows in the order of the command line,
    /// which is the scenario's.
    pub fn new(scenario: &Scenario, tables: &Tables) -> Result<Self, Mismatch> {
        let (expected, found) = (scenario.windows.len(), tables.windows.len());
        if expected != found {
            return Err(Mismatch::Windows { expected, found });
        }
        let mut scenario = scenario.clone();
        for (window, found) in scenario.windows.iter_mut().zip(&tables.windows) {
            let shape = |size, ways: u32, granularity, targets: &[u32]| {
                let ways = counted(ways, "way");
                format!("{}, {ways} at {granularity} B, UIDs {targets:?}", Size(size))
            };
            let set = found.interleave;
            let theirs = shape(
                found.size,
                set.ways.count(),
                // One way has no granularity that means anything.
                if set.ways.count() == 1 { 0 } else { set.granularity.bytes() },
                &found.targets,
            );
            let ours = window.interleave;
            let stripe = u64::from(ours.ways.count()) * cxl_regs::DECODER_UNIT;
            let ours = shape(
                // The library leaves out what no decoder can claim.
                window.size - window.size % stripe,
                ours.ways.count(),
                if ours.ways.count() == 1 { 0 } else { ours.granularity.bytes() },
                &window.targets,
            );
            if ours != theirs {
                let name = window.name.clone();
                return Err(Mismatch::Window { name, expected: ours, found: theirs });
            }
            window.base = Some(found.base.unwrap_or_default());
            window.restrictions = found.restrictions;
        }
        let mut map = AddressMap::new(&scenario);
        // Where QEMU finds no place for a window it writes 0, and RAM is there.
        for base in map.windows.iter_mut().filter(|base| **base == Some(Hpa(0))) {
            *base = None;
        }
        for (bridge, place) in scenario.bridges.iter().zip(&mut map.bridges) {
            let found = tables.bridges.iter().find(|found| found.uid == bridge.uid);
            let size = place.registers.size();
            let registers = found.and_then(|found| cxl_regs::Span::new(found.registers, size).ok());
            let Some(registers) = registers else {
                return Err(Mismatch::Bridge { name: bridge.name.clone(), uid: bridge.uid });
            };
            place.registers = registers;
        }
        Ok(Self { scenario, map })
    }

    /// Everything that decides where an address leads, as the registers have it now. A component
    /// that discovery did not find has no decoders, and a device none present.
    pub fn fabric(&self, tree: Tree<'_>, hw: &mut impl Mmio) -> Fabric {
        let mut fabric = Fabric::of(&self.scenario);
        let scenario = &self.scenario;
        let mut hdm = |place| component(tree, scenario, place)?.hdm.map(|hdm| image(hdm, hw));
        for (index, bridge) in fabric.bridges.iter_mut().enumerate() {
            bridge.hdm = hdm(Place::Bridge(index));
        }
        for (index, switch) in fabric.switches.iter_mut().enumerate() {
            switch.hdm = hdm(Place::Switch(index));
        }
        for (index, device) in fabric.devices.iter_mut().enumerate() {
            device.hdm = hdm(Place::Device(index));
        }
        for (index, device) in fabric.devices.iter_mut().enumerate() {
            let node = component(tree, scenario, Place::Device(index));
            let found = node.and_then(|node| node.device());
            device.present = found.is_some();
            device.dvsec = found.map(|found| {
                let [capability, control] =
                    [0x08, 0x0C].map(|offset| hw.read(found.dvsec.0 + offset));
                DeviceDvsec { capability, control }
            });
            (device.volatile, device.persistent) =
                found.map_or((0, 0), |found| (found.volatile, found.persistent));
        }
        fabric
    }

    /// Where each component has its decoders, as discovery found them.
    pub fn decoders(&self, tree: Tree<'_>) -> Vec<(Place, Hdm)> {
        let bridges = (0..self.scenario.bridges.len()).map(Place::Bridge);
        let switches = (0..self.scenario.switches.len()).map(Place::Switch);
        let devices = (0..self.scenario.devices.len()).map(Place::Device);
        let places = bridges.chain(switches).chain(devices);
        places
            .filter_map(|place| Some((place, component(tree, &self.scenario, place)?.hdm?)))
            .collect()
    }
}

/// Names of the scenario's bridges, switches and devices that discovery did not find.
pub(crate) fn missing<'s>(scenario: &'s Scenario, tree: Tree<'_>) -> Vec<&'s str> {
    let bridges = (0..scenario.bridges.len()).map(Place::Bridge);
    let switches = (0..scenario.switches.len()).map(Place::Switch);
    let devices = (0..scenario.devices.len()).map(Place::Device);
    let places = bridges.chain(switches).chain(devices);
    let lost = places.filter(|&place| component(tree, scenario, place).is_none());
    lost.map(|place| scenario.name_of(place)).collect()
}

/// The node of a component with decoders.
fn component<'t>(
    tree: Tree<'t>,
    scenario: &Scenario,
    place: Place,
) -> Option<&'t cxl_firmware::topology::Node> {
    let wanted = match place {
        Place::Bridge(_) => Component::HostBridge,
        Place::Switch(_) => Component::UpstreamPort,
        Place::Device(_) => Component::Device,
        Place::Port(_) => return None,
    };
    let path = run::path(scenario, place)?;
    let mut nodes = tree.iter();
    nodes
        .find(|(id, node)| node.component() == Some(wanted) && tree.path(*id) == path)
        .map(|(_, node)| node)
}

/// Reads a structure of decoders.
fn image(hdm: Hdm, hw: &mut impl Mmio) -> HdmImage {
    let Hdm { block: Block(base), capability, decoders, .. } = hdm;
    let decoder = |hw: &mut dyn Mmio, index: u8| {
        let at = base + u64::from(decoder_offset(index));
        let mut dword = (0..).step_by(4).map(|offset| hw.read(at + offset));
        DecoderImage::from_dwords(std::array::from_fn(|_| dword.next().unwrap_or(u32::MAX)))
    };
    HdmImage {
        capability: capability.into_bits(),
        global_control: Block(base).read::<GlobalControl>(&mut &mut *hw).into_bits(),
        decoders: (0..decoders).map(|index| decoder(hw, index)).collect(),
    }
}
