//! A second opinion: the library's verifier, run by the harness on the machine that the firmware
//! left.
//!
//! **Invariant**: what it reads and writes (mailboxes want a doorbell rung) is in nobody's count,
//! and it never changes a decoder.

use cxl_firmware::bring_up::Workspace;
use cxl_firmware::discover::discover;
use cxl_firmware::plan::{Note, plan};
use cxl_firmware::tables;
use cxl_firmware::topology::{NodeId, Tree};
use cxl_firmware::verify::verify_plan;
use cxl_regs::{Component, Size};

use super::{Finding, Left};
use crate::machine::Machine;
use crate::run::{self, Room, Wanted};
use crate::scenario::Place;

/// What the verifier and the plan have to say.
#[derive(Default)]
pub(super) struct Opinion {
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
}

/// Discovers, plans and verifies the machine once more. Without a topology or a plan there is
/// nothing to verify, which is news only where the firmware had one.
pub(super) fn of(machine: &mut Machine, left: &Left<'_>, failures: &mut Vec<String>) -> Opinion {
    let counted = std::mem::take(machine.recorder_mut());
    let result = verify(machine, left, failures);
    *machine.recorder_mut() = counted;
    match result {
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
    machine: &mut Machine,
    left: &Left<'_>,
    failures: &mut Vec<String>,
) -> Result<Opinion, String> {
    let wanted = Wanted::of(machine).map_err(|error| error.to_string())?;
    let tables = run::platform(machine).map_err(|error| error.to_string())?;
    let (platform, policy) = (tables.platform(), wanted.policy());
    let mut room = Box::new(Room::new());
    let Workspace { topology, plan: planned, committed, findings } = &mut *room;
    let mut clock = machine.clock();
    discover(machine, &mut clock, &platform, topology).map_err(|error| error.to_string())?;
    plan(&platform, topology, &policy, planned).map_err(|error| error.to_string())?;
    verify_plan(machine, &platform, topology, planned, &policy, committed, findings);
    let found: Vec<Finding> = findings
        .list()
        .iter()
        .map(|finding| Finding {
            code: finding.code(),
            failure: finding.is_failure(),
            message: finding.to_string(),
        })
        .collect();
    if left.refusal.is_none() {
        let wrong = found.iter().filter(|finding| finding.failure);
        failures.extend(wrong.map(|finding| format!("verifier: {}", finding.message)));
        if let Err(error) = tables::cross_check(left.cedt, topology, committed) {
            failures.push(format!("CEDT against the registers: {error}"));
        }
    }
    let tree = topology.tree();
    let notes = planned.notes.iter().filter(|note| !matches!(note, Note::PassThrough { .. }));
    let notes = notes.map(|note| words(machine, tree, note)).collect();
    Ok(Opinion { findings: found, notes })
}

/// A note of the plan with the scenario's names. The verifier has a finding for a pass-through.
pub(super) fn words(machine: &Machine, tree: Tree<'_>, note: &Note) -> String {
    match *note {
        Note::PassThrough { uid } => format!(
            "bridge {uid} is a pass-through without decoders, nothing to lock there; Linux refuses \
             regions behind it (\"failed to find decoder mapping\")"
        ),
        Note::Unused { device, partition, size } => format!(
            "{} of {}'s {partition} memory stay unused: no region has them",
            Size(size),
            name(machine, tree, device)
        ),
        Note::GuestPrograms { device } => {
            format!("the guest programs the decoders of {} (path 2)", name(machine, tree, device))
        }
    }
}

/// What the scenario calls a component with decoders; its place if it does not know it.
pub(super) fn name(machine: &Machine, tree: Tree<'_>, id: NodeId) -> String {
    let component = tree.get(id).and_then(|node| node.component());
    let at = tree.path(id);
    let mut places = machine.places().into_iter().filter(|place| match place {
        Place::Bridge(_) => component == Some(Component::HostBridge),
        Place::Switch(_) => component == Some(Component::UpstreamPort),
        Place::Device(_) => component == Some(Component::Device),
        Place::Port(_) => false,
    });
    let place = places.find(|&place| run::path(machine.scenario(), place) == Some(at));
    place.map_or_else(|| at.to_string(), |place| machine.name(place).to_owned())
}
