//! A second opinion: the library's verifier, run by the harness on the machine that the firmware
//! left.
//!
//! **Invariant**: what it reads and writes (mailboxes want a doorbell rung) is in nobody's count,
//! and it never changes a decoder.

use std::collections::BTreeSet;

use cxl_firmware::Error;
use cxl_firmware::bring_up::Workspace;
use cxl_firmware::committed::CommittedRef;
use cxl_firmware::discover::{Remarks, Search, discover_as};
use cxl_firmware::error::Code;
use cxl_firmware::error::Place as At;
use cxl_firmware::handoff::Handoff;
use cxl_firmware::mmio::{Clock, Mmio};
use cxl_firmware::outcome::{ComponentKind, Outcome};
use cxl_firmware::plan::{Note, plan};
use cxl_firmware::platform::Platform;
use cxl_firmware::policy::{Demands, LeaveOut, OnFailure, PathPolicy, Policy, Request};
use cxl_firmware::tables;
use cxl_firmware::topology::{NodeId, Path, Tree};
use cxl_firmware::verify::{self, verify_plan};
use cxl_regs::{Component, Hpa, Size};

use super::findings::Findings;
use super::{MachineView, Region, RunRecord, Witness};
use crate::run::{self, RunRequest};
use cxl_model::fabric::Fabric;
use cxl_model::machine::Machine;
use cxl_model::mapping;
use cxl_model::scenario::{BridgeVersion, Place, Scenario};

/// Discovers, plans and verifies the machine once more. Without a topology or a plan there is
/// nothing to verify, which is news only where the firmware had one.
pub(super) fn of(
    seen: &MachineView<'_>,
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    left: &RunRecord<'_>,
    record: Option<&Handoff<'_>>,
    found: &mut Findings,
) {
    if let Err(error) = verify(seen, hw, clock, left, record, found)
        && left.refusal.is_none()
    {
        found.fail(Witness::Verifier, format!("looking at the machine again: {error}"));
    }
}

fn verify(
    seen: &MachineView<'_>,
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    left: &RunRecord<'_>,
    record: Option<&Handoff<'_>>,
    found: &mut Findings,
) -> Result<(), String> {
    let tables = seen.platform.as_ref().map_err(Error::to_string)?;
    let occupied = run::occupied(seen.map);
    // A look assigns nothing.
    let platform = Platform { resources: &[], occupied: &occupied, ..tables.platform() };
    let mut room = run::room();
    let Workspace { topology, plan: planned, committed, findings, .. } = &mut *room;
    let asked = RunRequest::on(seen.scenario, seen.map);
    let search = asked.as_ref().map(|asked| Search::from(&asked.policy())).unwrap_or_default();
    discover_as(hw, clock, &platform, search, &mut *topology).map_err(|error| error.to_string())?;
    let topology = &*topology;
    let mut done_as_planned = true;
    if left.foreign {
        // Somebody else's firmware has plans of its own: paths are judged against themselves. Nobody
        // asked it for locks: whether there are any is a question of its own (`--require locked`).
        let demands = Demands { path: PathPolicy::Unlocked, ..Demands::default() };
        verify::verify(hw, &platform, topology, demands, &mut *committed, &mut *findings);
    } else {
        let wanted = RunRequest::on(seen.scenario, seen.map).map_err(|error| error.to_string())?;
        let policy = wanted.policy();
        if policy.on_failure == OnFailure::BestEffort {
            // What was given up changes the places of the rest, so what is there is judged by itself.
            verify::verify(hw, &platform, topology, &policy, &mut *committed, &mut *findings);
            // The plan speaks of the machine as it is only where it is what was done.
            let planned_it: BTreeSet<_> = match plan(&platform, topology, &policy, &mut *planned) {
                Ok(()) => planned.regions.iter().map(|region| region.span).collect(),
                Err(_) => BTreeSet::new(),
            };
            done_as_planned = committed.regions.iter().map(|it| it.span).eq(planned_it);
        } else {
            plan(&platform, topology, &policy, &mut *planned).map_err(|error| error.to_string())?;
            verify_plan(
                hw,
                &platform,
                topology,
                &*planned,
                &policy,
                &mut *committed,
                &mut *findings,
            );
        }
        // What is not there is a loss, whoever says so, and whatever was planned without it. A refusal
        // costs everything, and says why.
        if policy.on_failure == OnFailure::BestEffort || left.refusal.is_none() {
            for lost in lost(seen.scenario, topology.tree(), &policy, (&*committed).into(), record)
            {
                found.fail(Witness::Verifier, lost);
            }
        }
    }
    // What is not programmed yet is not programmed wrong.
    let moot = left.refusal.is_some() || left.unfinished && !left.foreign;
    for finding in findings.list() {
        found.verified(finding, moot);
    }
    if !moot
        && !left.foreign
        && let Err(error) = tables::cross_check(left.cedt, topology, &*committed)
    {
        found.fail(Witness::Record, format!("CEDT against the registers: {error}"));
    }
    let tree = topology.tree();
    for remark in remarks(&topology.remarks) {
        found.note(Witness::Plan, remark);
    }
    let notes = planned.notes.iter().filter(|_| done_as_planned);
    for note in notes.filter(|note| !matches!(note, Note::PassThrough { .. })) {
        if let Note::NoSuchDevice { at } = note
            && found.has_lost(&Code::PLAN_UNKNOWN_DEVICE.at(at))
        {
            continue;
        }
        found.note(Witness::Plan, words(seen.scenario, tree, note));
    }
    Ok(())
}

/// The devices of a scenario that have memory, were not left out, and are lost: with best effort those that
/// serve no region. Where others program, and in a strict run, which is planned whole or refused, those that
/// were not even found. What the record says of a device itself has been told ([`Findings::lost`]).
fn lost(
    scenario: &Scenario,
    tree: Tree<'_>,
    policy: &Policy<'_>,
    committed: CommittedRef<'_>,
    record: Option<&Handoff<'_>>,
) -> Vec<String> {
    let others = matches!(policy.path, PathPolicy::GuestPrograms | PathPolicy::Describe);
    let has_to_serve = policy.on_failure == OnFailure::BestEffort && !others;
    let told = |path: &Path| {
        let outcomes = record.into_iter().flat_map(Handoff::outcomes);
        { outcomes }.any(|it| {
            let failed = matches!(it.outcome, Outcome::Broken(error) if error.is_failure());
            failed && it.kind == Some(ComponentKind::Device) && it.at == At::from(*path)
        })
    };
    let serves = |id| {
        committed.decoders.iter().filter(|entry| entry.node == id).any(|entry| {
            let claims = |span| committed.regions.iter().any(|region| region.span == span);
            entry.committed() && entry.decoder.is_some_and(|decoder| claims(decoder.span))
        })
    };
    let left_out = |path: &Path| {
        policy.leave_out.iter().any(|wanted| match wanted {
            LeaveOut::At(at) => path.uid() == at.uid() && path.ports().starts_with(at.ports()),
            // A scenario names places.
            LeaveOut::Device { .. } => false,
        })
    };
    // Below a CXL 1.1 bridge nothing is looked for.
    let restricted = |path: &Path| {
        scenario
            .bridges
            .iter()
            .any(|bridge| bridge.uid == path.uid() && bridge.version == BridgeVersion::Cxl1)
    };
    let devices = scenario.devices.iter().enumerate().filter(|(_, device)| device.present);
    let lost = devices.filter_map(|(index, device)| {
        let path = run::path(scenario, Place::Device(index))?;
        let asked = |request: &&Request| request.device == path;
        let mut requests = policy.requests.iter().filter(asked).peekable();
        let wanted = requests.peek().is_none() || requests.any(|request| request.size != Some(0));
        let found = tree.device_at(&path).is_some_and(|id| !has_to_serve || serves(id));
        let size = device.volatile + device.persistent;
        if !wanted || size == 0 || found || left_out(&path) || restricted(&path) || told(&path) {
            return None;
        }
        let (name, size) = (&device.name, Size(size));
        Some(match has_to_serve {
            true => format!("{name} is lost: none of its {size} are in a region"),
            false => format!("{name} is lost: nothing was found in its place, which has {size}"),
        })
    });
    lost.collect()
}

/// Whether the machine's own decode finds what the mapping says is behind each region, granule by
/// granule at its ends: the same device, the same byte of it, and no byte twice. A sentence for each
/// region where it does not; where both find nothing that is told already.
pub(super) fn decode(machine: &Machine, regions: &[Region]) -> Vec<String> {
    let fabric = machine.fabric();
    regions.iter().filter_map(|region| decode_region(machine, &fabric, region)).collect()
}

fn decode_region(machine: &Machine, fabric: &Fabric, region: &Region) -> Option<String> {
    let Region { hpa, size, granularity, ways, .. } = *region;
    let granules = size / granularity.max(1);
    let ends = u64::from(ways) * 2;
    let last = granules.saturating_sub(ends).max(ends)..granules;
    let granules = (0..ends.min(granules)).chain(last).map(|granule| hpa + granule * granularity);
    let mut seen = BTreeSet::new();
    for at in granules.flat_map(|first| [first, first + granularity - 1]) {
        let proven = mapping::resolve(fabric, Hpa(at)).ok();
        let proven = proven.map(|path| (path.endpoint.device, path.dpa.0));
        let decoded = machine.resolve(at).map(|landing| (landing.device, landing.dpa.0));
        let name = |device| machine.name(Place::Device(device));
        if proven != decoded {
            let to = |to: Option<(usize, u64)>| match to {
                Some((device, dpa)) => format!("{} DPA {dpa:#x}", name(device)),
                None => "nowhere".to_owned(),
            };
            return Some(format!(
                "{at:#x} in the region at {hpa:#x}: the machine decodes it to {}, its registers \
                 say {}",
                to(decoded),
                to(proven)
            ));
        }
        let (device, dpa) = decoded?;
        if !seen.insert((device, dpa)) {
            let name = name(device);
            return Some(format!(
                "two addresses of the region at {hpa:#x} are one byte, DPA {dpa:#x} of {name}"
            ));
        }
    }
    None
}

/// What discovery passed over.
pub(super) fn remarks(remarks: &Remarks) -> impl Iterator<Item = String> {
    let more = (remarks.more() > 0).then(|| format!("and {} more of this kind", remarks.more()));
    remarks.list().iter().map(ToString::to_string).chain(more)
}

/// A note of the plan with the scenario's names. The verifier has a finding for a pass-through.
pub(super) fn words(scenario: &Scenario, tree: Tree<'_>, note: &Note) -> String {
    let name = |device| name(scenario, tree, device);
    let without = |device, coherency| {
        let device = name(device);
        format!("{device} could do back-invalidate (HDM-DB), its memory is {coherency}")
    };
    match *note {
        Note::PassThrough { uid } => format!(
            "bridge {uid} is a pass-through without decoders, nothing to lock there; Linux refuses \
             regions behind it (\"failed to find decoder mapping\")"
        ),
        Note::Unused { device, partition, size, why } => {
            format!("{} of {}'s {partition} memory stay unused: {why}", Size(size), name(device))
        }
        Note::GuestPrograms { device } => {
            format!("the guest programs the decoders of {} (path 2)", name(device))
        }
        Note::SystemPrograms { device } => {
            format!("the operating system programs the decoders of {}", name(device))
        }
        Note::Empty { device } => {
            format!("{} says that it has no memory, volatile or persistent", name(device))
        }
        Note::BackInvalidateGap { device, at, coherency } => {
            format!("{}: {} has no BI structure", without(device, coherency), tree.path(at))
        }
        Note::BackInvalidateWindow { device, window, coherency } => {
            format!("{}: window {window} does not admit it", without(device, coherency))
        }
        _ => note.text(tree).to_string(),
    }
}

/// What the scenario calls a component with decoders; its place if it does not know it.
pub(crate) fn name(scenario: &Scenario, tree: Tree<'_>, id: NodeId) -> String {
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
