//! A second opinion: the library's verifier, run by the harness on the machine that the firmware
//! left.
//!
//! **Invariant**: what it reads and writes (mailboxes want a doorbell rung) is in nobody's count,
//! and it never changes a decoder.

use cxl_firmware::acpi::PlatformError;
use cxl_firmware::bring_up::Workspace;
use cxl_firmware::discover::discover;
use cxl_firmware::mmio::{Clock, Mmio};
use cxl_firmware::plan::{Note, plan};
use cxl_firmware::platform::Platform;
use cxl_firmware::policy::{PathPolicy, Policy};
use cxl_firmware::tables;
use cxl_firmware::topology::{NodeId, Tree};
use cxl_firmware::verify::{self, verify_plan};
use cxl_regs::{Component, Size};

use super::{Finding, Left, Seen};
use crate::run::{self, Room, Wanted};
use crate::scenario::{Place, Scenario};

/// What the verifier and the plan have to say.
#[derive(Default)]
pub(super) struct Opinion {
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
}

/// Discovers, plans and verifies the machine once more. Without a topology or a plan there is
/// nothing to verify, which is news only where the firmware had one.
pub(super) fn of(
    seen: &Seen<'_>,
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    left: &Left<'_>,
    failures: &mut Vec<String>,
) -> Opinion {
    match verify(seen, hw, clock, left, failures) {
        Ok(opinion) => opinion,
        Err(error) => {
            if left.refusal.is_none() {
                failures.push(format!("looking at the machine again: {error}"));
            }
            Opinion::default()
        }
    }
}

fn verify(
    seen: &Seen<'_>,
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    left: &Left<'_>,
    failures: &mut Vec<String>,
) -> Result<Opinion, String> {
    let wanted = Wanted::on(seen.scenario, seen.map).map_err(|error| error.to_string());
    let tables = seen.platform.as_ref().map_err(PlatformError::to_string)?;
    let occupied = run::occupied(seen.map);
    // A look assigns nothing.
    let platform = Platform { resources: &[], occupied: &occupied, ..tables.platform() };
    let policy = match (&wanted, left.foreign) {
        // Nobody asked somebody else's firmware for locks: whether there are any is a question of
        // its own (`--require locked`). What the paths lead to is judged all the same.
        (_, true) => Policy { path: PathPolicy::Unlocked, config_lock: false, ..Policy::default() },
        (Ok(wanted), false) => wanted.policy(),
        (Err(error), false) => return Err(error.clone()),
    };
    let mut room = Box::new(Room::new());
    let Workspace { topology, plan: planned, committed, findings } = &mut *room;
    discover(hw, clock, &platform, topology).map_err(|error| error.to_string())?;
    if left.foreign {
        // Somebody else's firmware has plans of its own: paths are judged against themselves.
        verify::verify(hw, &platform, topology, &policy, committed, findings);
    } else {
        plan(&platform, topology, &policy, planned).map_err(|error| error.to_string())?;
        verify_plan(hw, &platform, topology, planned, &policy, committed, findings);
    }
    let found: Vec<Finding> = findings
        .list()
        .iter()
        .map(|finding| Finding {
            code: finding.code(),
            failure: finding.is_failure(),
            message: finding.to_string(),
        })
        .collect();
    // What is not programmed yet is not programmed wrong.
    if left.refusal.is_none() && (left.foreign || !left.unfinished) {
        let wrong = found.iter().filter(|finding| finding.failure);
        failures.extend(wrong.map(|finding| format!("verifier: {}", finding.message)));
        if !left.foreign
            && let Err(error) = tables::cross_check(left.cedt, topology, committed)
        {
            failures.push(format!("CEDT against the registers: {error}"));
        }
    }
    let tree = topology.tree();
    let notes = planned.notes.iter().filter(|note| !matches!(note, Note::PassThrough { .. }));
    let notes = notes.map(|note| words(seen.scenario, tree, note)).collect();
    Ok(Opinion { findings: found, notes })
}

/// A note of the plan with the scenario's names. The verifier has a finding for a pass-through.
pub(super) fn words(scenario: &Scenario, tree: Tree<'_>, note: &Note) -> String {
    match *note {
        Note::PassThrough { uid } => format!(
            "bridge {uid} is a pass-through without decoders, nothing to lock there; Linux refuses \
             regions behind it (\"failed to find decoder mapping\")"
        ),
        Note::Unused { device, partition, size } => format!(
            "{} of {}'s {partition} memory stay unused: no region has them",
            Size(size),
            name(scenario, tree, device)
        ),
        Note::GuestPrograms { device } => {
            format!("the guest programs the decoders of {} (path 2)", name(scenario, tree, device))
        }
    }
}

/// What the scenario calls a component with decoders; its place if it does not know it.
pub(super) fn name(scenario: &Scenario, tree: Tree<'_>, id: NodeId) -> String {
    let at = tree.path(id);
    let count = |component| match component {
        Component::HostBridge => scenario.bridges.len(),
        Component::UpstreamPort => scenario.switches.len(),
        Component::Device => scenario.devices.len(),
    };
    let place = tree.get(id).and_then(|node| node.component()).and_then(|component| {
        let place = |index| match component {
            Component::HostBridge => Place::Bridge(index),
            Component::UpstreamPort => Place::Switch(index),
            Component::Device => Place::Device(index),
        };
        let mut places = (0..count(component)).map(place);
        places.find(|&place| run::path(scenario, place) == Some(at))
    });
    place.map_or_else(|| at.to_string(), |place| scenario.name_of(place).to_owned())
}
