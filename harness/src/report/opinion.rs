//! A second opinion: the library's verifier, run by the harness on the machine that the firmware
//! left.
//!
//! **Invariant**: what it reads and writes (mailboxes want a doorbell rung) is in nobody's count,
//! and it never changes a decoder.

use std::collections::BTreeSet;
use std::iter::successors;

use cxl_firmware::Error;
use cxl_firmware::bring_up::Workspace;
use cxl_firmware::committed::{CommittedRef, CommittedRegion, Fate};
use cxl_firmware::discover::{Remarks, Search, discover_as};
use cxl_firmware::error::Code;
use cxl_firmware::error::Place as At;
use cxl_firmware::handoff::{Handoff, HandoffDecoder};
use cxl_firmware::mmio::{Clock, Mmio};
use cxl_firmware::outcome::{ComponentKind, ComponentOutcome, Outcome};
use cxl_firmware::plan::{Note, Why, plan};
use cxl_firmware::platform::Platform;
use cxl_firmware::policy::{Demands, LeaveOut, OnFailure, PathPolicy, Policy};
use cxl_firmware::tables;
use cxl_firmware::topology::{Node, NodeId, Partition, Path, Topology, Tree};
use cxl_firmware::verify::{self, verify_plan};
use cxl_image::words::Words;
use cxl_regs::acpi::cedt::Restrictions;
use cxl_regs::{Component, Hpa, Size};

use super::findings::Findings;
use super::{MachineView, Region, RunRecord, Witness};
use crate::run::{self, Inexpressible, RunRequest};
use cxl_model::device::config::ENDPOINT;
use cxl_model::fabric::Fabric;
use cxl_model::layout::AddressMap;
use cxl_model::machine::Machine;
use cxl_model::mapping;
use cxl_model::scenario::{BridgeVersion, Device, Parent, Place, Scenario};

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
    let policy = policy_of(left.asked, &asked, platform.address_bits);
    let search = policy.as_ref().map(Search::from).unwrap_or_default();
    discover_as(hw, clock, &platform, search, &mut *topology).map_err(|error| error.to_string())?;
    // What the record gives up is told by it, and what follows from that is no news.
    if let (Some(record), None) = (record, left.refusal) {
        give_up(topology, record);
    }
    let topology = &*topology;
    let mut done_as_planned = true;
    if left.foreign {
        // Somebody else's firmware has plans of its own: paths are judged against themselves. Nobody
        // asked it for locks: whether there are any is a question of its own (`--require locked`).
        let demands = Demands { path: PathPolicy::Unlocked, ..Demands::default() };
        verify::verify(hw, &platform, topology, demands, &mut *committed, &mut *findings);
    } else {
        let policy = policy.map_err(|error| error.to_string())?;
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
            let machine = Given {
                scenario: seen.scenario,
                tree: topology.tree(),
                policy: &policy,
                committed: (&*committed).into(),
                notes: &planned.notes,
                record,
            };
            for lost in machine.lost() {
                found.fail(Witness::Verifier, lost);
            }
            for small in machine.small_windows(seen.map) {
                found.note(Witness::Plan, small);
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
        // What a lock that was lost makes of the table is no second failure.
        let same = |one: &Error, other: &Error| (one.code, one.at) == (other.code, other.at);
        let follows = |finding: &Error| match error.code {
            Code::TABLES_FIXED_UNLOCKED => finding.code == Code::VERIFY_UNLOCKED_ON_PATH,
            _ => error.finding().is_some_and(|inner| same(&inner, finding)),
        };
        let moot = findings.list().iter().any(follows);
        let message = format!("CEDT against the registers: {error}");
        found.add(Witness::Record, message, moot);
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
        // Nor is it news beside the loss that says the same.
        let words = words(seen.scenario, tree, note);
        if !found.list.iter().any(|known| known.counts() && known.message == words) {
            found.note(Witness::Plan, words);
        }
    }
    Ok(())
}

/// What the firmware was asked for: the words that it had, or what the scenario says.
fn policy_of<'a>(
    words: Option<&'a Words>,
    asked: &'a Result<RunRequest, Inexpressible>,
    bits: u8,
) -> Result<Policy<'a>, &'a Inexpressible> {
    match words {
        Some(words) => Ok(words.policy(bits)),
        None => asked.as_ref().map(RunRequest::policy),
    }
}

/// Whether somebody wants memory of a machine: not where others program, and not where all that has any is
/// left out by request.
pub(super) fn wants_memory(machine: &Machine, words: Option<&Words>) -> bool {
    let (scenario, asked) = (machine.scenario(), RunRequest::of(machine));
    let Ok(policy) = policy_of(words, &asked, scenario.platform.physical_bits) else { return true };
    if matches!(policy.path, PathPolicy::GuestPrograms | PathPolicy::Describe) {
        return false;
    }
    let present = scenario.devices.iter().enumerate().filter(|(_, device)| device.present);
    let mut memory =
        present.filter(|(_, device)| device.volatile + device.persistent > 0).peekable();
    memory.peek().is_none()
        || memory.any(|(index, device)| {
            let path = run::path(scenario, Place::Device(index));
            path.is_none_or(|path| !is_left_out(&policy, &path, device))
        })
}

/// Whether a device is left out by request.
fn is_left_out(policy: &Policy<'_>, path: &Path, given: &Device) -> bool {
    policy.leave_out.iter().any(|wanted| match wanted {
        LeaveOut::At(at) => path.uid() == at.uid() && path.ports().starts_with(at.ports()),
        LeaveOut::Device { vendor, device, serial } => {
            (*vendor, *device) == ENDPOINT && serial.is_none_or(|serial| serial == given.serial)
        }
    })
}

/// Gives up in a topology what a record gave up: components, and decoders that lead to nothing and could
/// not be taken back.
fn give_up<const N: usize>(topology: &mut Topology<N>, record: &Handoff<'_>) {
    for ComponentOutcome { at, kind, outcome } in record.outcomes() {
        let Outcome::Broken(error) = outcome else { continue };
        let tree = topology.tree();
        let is_it = |(id, node): (NodeId, &Node)| {
            kind == Some(node.kind.into()) && at == At::from(tree.path(id))
        };
        let found = tree.iter().position(is_it).filter(|_| error.is_failure());
        if let Some(node) = found.and_then(|index| topology.nodes.get_mut(index)) {
            node.fault = node.fault.or(Some(error));
        }
    }
    for HandoffDecoder { place, fate, .. } in record.decoders() {
        let tree = topology.tree();
        let is_its = |(id, node): (NodeId, &Node)| {
            node.component() == Some(place.component) && tree.path(id) == place.at
        };
        let found = tree.iter().position(is_its).filter(|_| fate == Fate::Stranded);
        let node = found.and_then(|index| topology.nodes.get_mut(index));
        if let Some(hdm) = node.and_then(|node| node.hdm.as_mut()) {
            hdm.lost |= 1u32.checked_shl(place.index.into()).unwrap_or(0);
        }
    }
}

/// What a machine's memory is held against.
struct Given<'a> {
    scenario: &'a Scenario,
    tree: Tree<'a>,
    policy: &'a Policy<'a>,
    committed: CommittedRef<'a>,
    notes: &'a [Note],
    record: Option<&'a Handoff<'a>>,
}

impl Given<'_> {
    /// The memory of a scenario that was wanted and is lost: with best effort what serves no region, each
    /// kind of a device for itself. Where others program, and in a strict run, which is planned whole or
    /// refused, devices that were not even found, or that nobody can lead to. What the record says of a
    /// device itself has been told ([`Findings::lost`]).
    fn lost(&self) -> Vec<String> {
        let others = matches!(self.policy.path, PathPolicy::GuestPrograms | PathPolicy::Describe);
        let has_to_serve = self.policy.on_failure == OnFailure::BestEffort && !others;
        // What its members go on as is not what was asked for.
        let sets = self.notes.iter().filter(|note| matches!(note, Note::SetWithoutPlace { .. }));
        let mut lost: Vec<_> = sets.map(|note| words(self.scenario, self.tree, note)).collect();
        for (index, path) in self.devices() {
            let Some(device) = self.scenario.devices.get(index) else { continue };
            let wanted = Partition::ALL.map(|kind| self.is_wanted(&path, kind));
            let size = device.volatile + device.persistent;
            if wanted == [false; 2] || size == 0 || self.is_told(&path) {
                continue;
            }
            let (name, size) = (&device.name, Size(size));
            let found = self.tree.device_at(&path);
            let serves = |kind| found.is_some_and(|id| self.serves(id, kind));
            match found {
                Some(id) if has_to_serve && Partition::ALL.into_iter().any(serves) => {
                    let kinds = Partition::ALL.into_iter().zip(wanted);
                    let unused = kinds.filter(|(kind, wanted)| *wanted && !serves(*kind));
                    lost.extend(unused.filter_map(|(kind, _)| self.lost_kind(id, &path, kind)));
                }
                _ if has_to_serve => {
                    lost.push(format!("{name} is lost: none of its {size} are in a region"));
                }
                None => lost.push(format!(
                    "{name} is lost: nothing was found in its place, which has {size}"
                )),
                Some(_) => {
                    let why = self.is_out_of_reach(index).filter(|_| others);
                    lost.extend(why.map(|why| {
                        format!("{name} is lost: {why}, so nobody can program a path to it")
                    }));
                }
            }
        }
        lost
    }

    /// The devices that are there and not left out, by number. Below a CXL 1.1 bridge nothing is looked for.
    fn devices(&self) -> impl Iterator<Item = (usize, Path)> {
        let restricted = |path: &Path| {
            let mut bridges = self.scenario.bridges.iter();
            bridges.any(|it| it.uid == path.uid() && it.version == BridgeVersion::Cxl1)
        };
        let devices = self.scenario.devices.iter().enumerate().filter(|(_, device)| device.present);
        devices.filter_map(move |(index, given)| {
            let path = run::path(self.scenario, Place::Device(index))?;
            let is_there = !is_left_out(self.policy, &path, given) && !restricted(&path);
            is_there.then_some((index, path))
        })
    }

    /// Whether the policy asks for a kind of a device's memory: it does of all that it does not name.
    fn is_wanted(&self, device: &Path, kind: Partition) -> bool {
        let requests = self.policy.requests.iter().filter(|request| request.device == *device);
        let sets = self.policy.sets.iter().filter(|set| set.members.contains(device));
        let requests = requests.map(|request| (request.partition, request.size));
        let mut asked = requests.chain(sets.map(|set| (set.partition, set.size))).peekable();
        asked.peek().is_none() || asked.any(|(of, size)| of == kind && size != Some(0))
    }

    /// Whether the record says of a device itself that it is lost.
    fn is_told(&self, path: &Path) -> bool {
        let mut losses = self.losses();
        losses.any(|(at, kind, _)| kind == Some(ComponentKind::Device) && at == At::from(*path))
    }

    /// What the record gives up.
    fn losses(&self) -> impl Iterator<Item = (At, Option<ComponentKind>, Error)> {
        let outcomes = self.record.into_iter().flat_map(Handoff::outcomes);
        outcomes.filter_map(|it| match it.outcome {
            Outcome::Broken(error) if error.is_failure() => Some((it.at, it.kind, error)),
            _ => None,
        })
    }

    /// Whether a kind of a device's memory is in a region. A decoder may reach into a hole behind it.
    fn serves(&self, id: NodeId, kind: Partition) -> bool {
        let mut own = self.committed.decoders.iter().filter(|entry| entry.node == id);
        own.any(|entry| {
            let is_its = |region: &CommittedRegion, decoder: cxl_regs::Decoder| {
                region.partition == kind && decoder.span.contains_span(region.span)
            };
            let mut regions = self.committed.regions.iter();
            let decoder = entry.decoder.filter(|_| entry.committed());
            decoder.is_some_and(|decoder| regions.any(|region| is_its(region, decoder)))
        })
    }

    /// The sentence of a kind of memory that is in no region, beside another one that is: but where the
    /// policy leaves it out, or where the record tells what it was lost with.
    fn lost_kind(&self, id: NodeId, path: &Path, kind: Partition) -> Option<String> {
        let size = self.tree.get(id)?.device()?.capacity(kind);
        let mut notes = self.notes.iter();
        let note = notes.find(|note| match note {
            Note::Unused { device, partition, .. } => (*device, *partition) == (id, kind),
            _ => false,
        });
        let refused = match note {
            Some(Note::Unused { why: Why::Refused { .. }, .. }) => true,
            Some(Note::Unused { why: Why::Failed, .. }) | None => false,
            Some(_) => return None,
        };
        let is_above = |at: At| {
            let above = |path: &Path| path.split_last().map(|(_, above)| above);
            successors(Some(*path), above).any(|path| at.names(&path))
        };
        let mut decoders = self.record.into_iter().flat_map(Handoff::decoders);
        let stranded = |decoder: HandoffDecoder| {
            decoder.fate == Fate::Stranded && At::from(decoder.place).names(path)
        };
        let follows = decoders.any(stranded) || self.losses().any(|(at, ..)| is_above(at));
        if size == 0 || follows && !refused {
            return None;
        }
        Some(note.map_or_else(
            || {
                let name = name(self.scenario, self.tree, id);
                format!(
                    "{} of {name}'s {kind} memory is lost: none of it is in a region",
                    Size(size)
                )
            },
            |note| words(self.scenario, self.tree, note),
        ))
    }

    /// Why nobody can lead to a device, whoever programs: a component on its way has several ways on, or
    /// none of its own, and no decoders to choose by.
    fn is_out_of_reach(&self, device: usize) -> Option<String> {
        let Scenario { devices, ports, switches, bridges, .. } = self.scenario;
        let device = devices.get(device)?;
        if device.decoders == 0 {
            return Some("it has no HDM decoders".to_owned());
        }
        let mut port = device.port;
        // A port has one parent and a switch one port, so no switch can come twice.
        for _ in 0..=switches.len() {
            match ports.get(port)?.parent {
                Parent::Switch(index) => {
                    let switch = switches.get(index)?;
                    if switch.decoders == 0 {
                        return Some(format!("{} has no HDM decoders", switch.name));
                    }
                    port = switch.port;
                }
                Parent::Bridge(index) => {
                    let bridge = bridges.get(index)?;
                    let own = ports.iter().filter(|port| port.parent == Parent::Bridge(index));
                    let own = own.count();
                    let blocked = bridge.decoders == 0 && own > 1;
                    return blocked
                        .then(|| format!("{} has no HDM decoders and {own} ports", bridge.name));
                }
            }
        }
        None
    }

    /// Where the operating system programs: bridges whose windows are smaller than the memory below them.
    /// That is the platform's doing, and nothing that firmware lost.
    fn small_windows(&self, map: &AddressMap) -> Vec<String> {
        let mut small = Vec::new();
        if self.policy.path != PathPolicy::Describe {
            return small;
        }
        for bridge in &self.scenario.bridges {
            let below = self.devices().filter(|(_, path)| path.uid() == bridge.uid);
            let below: Vec<_> =
                below.filter_map(|(device, _)| self.scenario.devices.get(device)).collect();
            let placed = self.scenario.windows.iter().zip(&map.windows);
            let windows =
                placed.filter(|(it, at)| at.is_some() && it.targets.contains(&bridge.uid));
            let shares = windows.map(|(window, _)| {
                let ways = u64::from(window.interleave.ways.count());
                (window.restrictions, window.size / ways)
            });
            let shares: Vec<_> = shares.collect();
            let room = |admits: &dyn Fn(Restrictions) -> bool| -> u64 {
                shares.iter().filter(|(of, _)| admits(*of)).map(|(_, share)| share).sum()
            };
            let volatile = below.iter().map(|device| device.volatile).sum::<u64>();
            let persistent = below.iter().map(|device| device.persistent).sum::<u64>();
            let sums = [
                ("volatile memory", volatile, room(&|of| of.volatile())),
                ("persistent memory", persistent, room(&|of| of.persistent())),
                ("memory", volatile + persistent, room(&|of| of.volatile() || of.persistent())),
            ];
            if let Some((what, need, have)) = sums.into_iter().find(|(_, need, have)| need > have) {
                let (name, need, have) = (&bridge.name, Size(need), Size(have));
                small.push(format!(
                    "{name} has {need} of {what} below it, and windows for {have} of it: the rest has \
                     no place"
                ));
            }
        }
        small
    }
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
            let is_lost = matches!(why, Why::Refused { .. } | Why::Failed);
            let how = if is_lost { "is lost" } else { "stay unused" };
            format!("{} of {}'s {partition} memory {how}: {why}", Size(size), name(device))
        }
        Note::SetWithoutPlace { .. } => format!("a set is lost: {}", note.text(tree)),
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
