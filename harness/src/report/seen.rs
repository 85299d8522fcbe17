//! The machine as a picture shows it: its registers at one moment, and what is known of it besides.
//!
//! **Invariant**: registers are as read; of everything else it is said where it is known, and nothing
//! is shown of what is not.

use std::collections::{BTreeMap, BTreeSet};

use cxl_firmware::committed::Fate;
use cxl_firmware::error::Place as At;
use cxl_firmware::handoff::Handoff;
use cxl_firmware::outcome::{ComponentKind, Outcome};

use crate::locks::{Protection, Unsealed};
use crate::run;
use cxl_model::fabric::Fabric;
use cxl_model::machine::Machine;
use cxl_model::scenario::{Place, Scenario};

/// A machine at one moment.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Its registers.
    pub fabric: Fabric,
    /// RAM: base and size.
    pub ram: Vec<(u64, u64)>,
    /// Devices whose locked ranges no write can lead elsewhere.
    pub sealed: BTreeSet<String>,
    /// Components that are not in use, and why.
    pub lost: BTreeMap<String, Loss>,
    /// Decoders that are not as they were to be, by component and number, and what became of them.
    pub fates: BTreeMap<(String, u8), String>,
}

/// What became of a component that is not in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It was left out, and where that is said.
    LeftOut(String),
    /// It failed, or what it cannot do without did, and how.
    Broken(String),
    /// It has no CXL.mem that could be used, and why.
    NotMem(String),
    /// Nothing is wrong, and no region needs it.
    Unused,
}

impl Seen {
    /// Registers alone.
    pub fn of(fabric: Fabric) -> Self {
        Self { fabric, ..Self::default() }
    }

    /// Adds what the firmware recorded of its components and decoders.
    pub(super) fn recorded(&mut self, scenario: &Scenario, record: Option<&Handoff<'_>>) {
        let Some(record) = record else { return };
        let places = places(scenario);
        for outcome in record.outcomes() {
            // A port and what is plugged in below it have one path.
            let known = places.iter().find(|place| {
                outcome.kind.is_none_or(|kind| is_a(**place, kind))
                    && run::path(scenario, **place).is_some_and(|path| At::from(path) == outcome.at)
            });
            let Some(name) = known.map(|place| scenario.name_of(*place).to_owned()) else {
                continue;
            };
            let loss = match outcome.outcome {
                Outcome::InUse => continue,
                Outcome::LeftOut(error) => Loss::LeftOut(error.to_string()),
                Outcome::Broken(error) => Loss::Broken(error.to_string()),
                Outcome::NotMem(error) => Loss::NotMem(error.to_string()),
                Outcome::Unused => Loss::Unused,
            };
            self.lost.insert(name, loss);
        }
    }

    /// Adds what became of decoders.
    pub(super) fn decided(&mut self, decoders: &[super::Decoder]) {
        let other = |decoder: &super::Decoder| {
            let fate = decoder.fate.filter(|fate| *fate != Fate::Done)?;
            Some(((decoder.component.clone(), decoder.text.index), fate.to_string()))
        };
        self.fates = decoders.iter().filter_map(other).collect();
    }

    /// Adds which devices are sealed.
    pub(super) fn sealed_by(&mut self, machine: &Machine) {
        let found = Protection::of(machine);
        let open: Vec<Place> = found
            .unsealed
            .iter()
            .map(|why| match why {
                Unsealed::ConfigLock { device } | Unsealed::Range { device, .. } => *device,
            })
            .collect();
        let locked = found.ranges.iter().map(|range| range.at.place);
        let sealed = locked.filter(|place| !open.contains(place));
        self.sealed = sealed.map(|place| machine.name(place).to_owned()).collect();
    }
}

fn is_a(place: Place, kind: ComponentKind) -> bool {
    matches!(
        (place, kind),
        (Place::Bridge(_), ComponentKind::HostBridge)
            | (Place::Port(_), ComponentKind::RootPort | ComponentKind::DownstreamPort)
            | (Place::Switch(_), ComponentKind::UpstreamPort)
            | (Place::Device(_), ComponentKind::Device)
    )
}

/// Every component; devices and switches before the ports above them.
fn places(scenario: &Scenario) -> Vec<Place> {
    let bridges = (0..scenario.bridges.len()).map(Place::Bridge);
    let ports = (0..scenario.ports.len()).map(Place::Port);
    let switches = (0..scenario.switches.len()).map(Place::Switch);
    let devices = (0..scenario.devices.len()).map(Place::Device);
    bridges.chain(switches).chain(devices).chain(ports).collect()
}
