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
use cxl_lint::Reached;
use cxl_model::fabric::Fabric;
use cxl_model::layout::AddressMap;
use cxl_model::machine::Machine;
use cxl_model::mapping::{self, Mapping};
use cxl_model::scenario::{Place, Scenario};

/// A machine at one moment.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Its registers.
    pub fabric: Fabric,
    /// Where they lead each range of each window, as far as they were given.
    pub mappings: Vec<Mapping>,
    /// RAM: base and size.
    pub ram: Vec<(u64, u64)>,
    /// Devices whose locked ranges no write can lead elsewhere.
    pub sealed: BTreeSet<String>,
    /// Components that are not in use, and why.
    pub lost: BTreeMap<String, Loss>,
    /// Decoders that are not as they were to be, by component and number, and what became of them.
    pub fates: BTreeMap<(String, u8), String>,
    /// What nobody gave.
    pub unsaid: Unsaid,
    /// Where the firmware stopped, if it did and its refusal names a place.
    pub stop: Option<Stop>,
}

/// What nobody gave of a machine, by the names of components: what stands in its place in the picture
/// says nothing of them.
#[derive(Clone, Debug, Default)]
pub struct Unsaid {
    /// Whose registers.
    pub registers: BTreeSet<String>,
    /// How much memory which devices have.
    pub capacities: BTreeSet<String>,
    /// The UIDs of which bridges.
    pub uids: BTreeSet<String>,
    /// Targets of windows of which no bridge is known, and one may be there.
    pub targets: BTreeSet<u32>,
}

/// Where the firmware stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// At what.
    pub at: StopAt,
    /// Why, in the words of the refusal without the place.
    pub why: String,
}

/// What a refusal is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopAt {
    /// A component by its name, and one of its decoders.
    Component(String, Option<u8>),
    /// A window by its name.
    Window(String),
}

impl StopAt {
    /// The name of the component or window.
    pub fn name(&self) -> &str {
        let (Self::Component(name, _) | Self::Window(name)) = self;
        name
    }
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
    /// Registers alone, all of them.
    pub fn of(fabric: Fabric) -> Self {
        let mappings = mapping::mappings(&fabric);
        Self { fabric, mappings, ..Self::default() }
    }

    /// Of a machine of which perhaps only a part is known: what nobody gave decides nothing.
    pub fn known(reached: Reached) -> Self {
        let fabric = &reached.fabric;
        let registers = reached.unknown.iter().filter_map(|at| match *at {
            mapping::At::Bridge(index) => fabric.bridges.get(index).map(|it| it.name.clone()),
            mapping::At::Switch(index) => fabric.switches.get(index).map(|it| it.name.clone()),
            mapping::At::Device(index) => fabric.devices.get(index).map(|it| it.name.clone()),
        });
        let devices = fabric.devices.iter().enumerate();
        let devices = devices.filter(|(index, _)| !reached.has_capacity(*index));
        let bridges = fabric.bridges.iter().enumerate();
        let bridges = bridges.filter(|(index, _)| !reached.has_uid(*index));
        let targets = fabric.windows.iter().flat_map(|window| &window.targets).copied();
        let unsaid = Unsaid {
            registers: registers.collect(),
            capacities: devices.map(|(_, device)| device.name.clone()).collect(),
            uids: bridges.map(|(_, bridge)| bridge.name.clone()).collect(),
            targets: targets.filter(|uid| reached.may_have(*uid)).collect(),
        };
        Self { mappings: reached.mappings(), unsaid, fabric: reached.fabric, ..Self::default() }
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

    /// Adds where the firmware stopped: the place that the refusal's sentence begins with.
    pub(super) fn stopped(&mut self, scenario: &Scenario, map: &AddressMap, message: &str) {
        let found = component_of(scenario, map, message);
        let found = found.or_else(|| window_of(scenario, map, message));
        self.stop = found.map(|(at, why)| Stop { at, why: why.to_owned() });
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

/// The component that a sentence of the library begins with, its decoder, and the rest: `bridge 16 port 0
/// device, decoder 0: ...`, `bridge 16 function 0000:11:00.0: ...`. Of a function that nobody knows it is
/// the bridge.
fn component_of<'m>(
    scenario: &Scenario,
    map: &AddressMap,
    message: &'m str,
) -> Option<(StopAt, &'m str)> {
    let named = |place: Place| {
        let path = run::path(scenario, place)?;
        let function = function(scenario, map, place);
        let function =
            function.map(|function| format!("bridge {} function {function}", path.uid()));
        let names = [Some(path.to_string()), function].into_iter().flatten();
        let rests = names.filter_map(|name| {
            let rest = message.strip_prefix(&name)?;
            // Port 1 is not port 10, and no bridge is a port below it.
            let apart = !rest.starts_with(|c: char| c.is_ascii_digit() || c == '.');
            (apart && !rest.starts_with(" port")).then_some(rest)
        });
        Some((rests.min_by_key(|rest| rest.len())?, place))
    };
    let all = places(scenario).into_iter().filter_map(named);
    // A port and what is plugged in below it have one path: the first is the latter.
    let (rest, place) = all.min_by_key(|(rest, _)| rest.len())?;
    let name = scenario.name_of(place).to_owned();
    let (decoder, why) = match rest.split_once(": ") {
        Some(("", why)) => (None, why),
        Some((at, why)) => match at.rsplit_once("decoder ").map(|(_, index)| index.parse::<u8>()) {
            Some(Ok(index)) => (Some(index), why),
            _ => (None, message),
        },
        None => (None, message),
    };
    Some((StopAt::Component(name, decoder), why))
}

/// The function of a component that is one.
fn function(scenario: &Scenario, map: &AddressMap, place: Place) -> Option<String> {
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
            let port = map.ports.get(scenario.devices.get(index)?.port)?;
            (port.segment, port.secondary, 0)
        }
    };
    Some(format!("{segment:04x}:{bus:02x}:{slot:02x}.0"))
}

/// The window that a sentence begins with, by its base or as the scenario calls it, and the sentence.
fn window_of<'m>(
    scenario: &Scenario,
    map: &AddressMap,
    message: &'m str,
) -> Option<(StopAt, &'m str)> {
    let named = message.strip_prefix("window ")?.split([' ', ',', ':']).next()?;
    let mut windows = scenario.windows.iter().zip(&map.windows);
    let (window, _) = windows.find(|(window, base)| {
        window.name == named || base.is_some_and(|base| base.to_string() == named)
    })?;
    Some((StopAt::Window(window.name.clone()), message))
}
