//! Bringing up what can be: a component that fails costs itself and what lies below it.
//!
//! 1. Discover; what makes no sense is remarked and left alone.
//! 2. Plan, ask each decoder whether it takes its lock, commit without, verify, probe. Whatever fails has a culprit, which gets a
//!    [`Node::fault`]; all that was written is undone, and the round begins again without it.
//! 3. Lock what a whole round was content with (`commit::lock`), and look at it once more. Without a trial
//!    a round ends where all is programmed, and memory is asked behind the locks.
//! 4. What a lock cost that failed in another member of its set has another chance, beside what is in use.
//!
//! **Invariant**: each round takes a node out, or some decoders of one. What the plan had no room for is asked
//! again after every other failure, so a pass has no more rounds than there are nodes and decoders, times the
//! nodes; only the plan is made in those that are more, which touches no register. Each further pass follows a
//! lock that cost something for good, so there are no more of these than nodes. Nothing is locked before a
//! round has passed.

use core::iter::successors;

use super::{Extent, Scope, WorkspaceMut, check};
use crate::commit::lock::lock_all;
use crate::commit::{How, commit_all, undo};
use crate::committed::{self, CommittedDecoder, CommittedMut, Fate, Probed};
use crate::decoder_registers::DecoderRegisters;
use crate::discover::discover_as;
use crate::error::{Code, Error, Phase, Place};
use crate::mmio::{Clock, Mmio};
use crate::outcome::of_remark;
use crate::plan::{NodeUse, Note, PlanRef, Region, Why, plan_again, plan_beside};
use crate::platform::{Platform, claims};
use crate::policy::{LeaveOut, PathPolicy, Policy};
use crate::probe::{probe, probe_only};
use crate::topology::{Node, NodeId, Partition, Path, TopologyMut, Tree};
use crate::verify::{verify, verify_plan};
use crate::window_check;
use cxl_regs::{Decoder, Hpa, Route, Span};

/// How a round ended well.
enum Round {
    /// Committed, not locked.
    Tried,
    /// Programmed, not committed: without a trial, what commits it locks it.
    Programmed,
    /// As the policy wants it.
    Final,
    /// What is committed is an earlier run's, or somebody's, and this speaks against it.
    Found(Error),
}

#[inline(never)]
pub(super) fn run(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    scope: Scope,
    mut work: WorkspaceMut<'_>,
) -> Result<Extent, Error> {
    discover_as(hw, clock, platform, policy, work.topology.reborrow())?;
    lose_in_broken(hw, platform, policy, &mut work);
    for path in policy.required {
        let tree = Tree(&work.topology.nodes);
        // A port has the place of what is behind it, and is not what is required.
        let is_there =
            |(id, node): (NodeId, &Node)| node.component().is_some() && tree.path(id) == *path;
        if !tree.iter().any(is_there) {
            return Err(Code::DISCOVER_REQUIRED.at(path));
        }
    }
    if !scope.is_later() {
        remark_missing(policy, &mut work);
    }
    let mut locked = pass(hw, clock, platform, policy, scope, &mut work)?;
    for _ in 0..work.topology.nodes.len() {
        // Of what came later, that stays lost: nobody knows by then what of the rest is others' memory.
        if !locked || scope.is_later() || !give_back(hw, &mut work) {
            break;
        }
        let later = match work.committed.regions.is_empty() {
            true => Scope::All,
            false => Scope::Later,
        };
        let again = pass(hw, clock, platform, policy, later, &mut work);
        if let Err(error) = again {
            lose_unused(hw, &mut work, error);
        }
        locked = again.unwrap_or(false);
        if later.is_later() {
            look(hw, platform, policy, &mut work, later, false);
            let WorkspaceMut { topology, committed, probe: errors, .. } = &mut work;
            let tree = Tree(&topology.nodes);
            let _ = probe(hw, platform, tree, policy.probe, &mut *committed, errors);
        }
    }
    end(hw, policy, &mut work)
}

/// Loses what is committed already in windows that cannot be used: of a device that has other decoders in use,
/// those that lead there; any other device.
#[inline(never)]
fn lose_in_broken(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    work: &mut WorkspaceMut<'_>,
) {
    for window in platform.windows {
        let broken = window_check::broken(platform, policy.on_failure, window);
        let Some((broken, span)) = broken.zip(window.span()) else { continue };
        let WorkspaceMut { topology, committed, findings, .. } = &mut *work;
        let tree = Tree(&topology.nodes);
        verify(hw, platform, tree, policy, &mut *committed, &mut *findings);
        lose_in(work, span, broken);
    }
}

/// Loses what devices' decoders that were read lead to in a window.
#[inline(never)]
fn lose_in(work: &mut WorkspaceMut<'_>, window: Span, broken: Error) {
    let lies = |entry: &CommittedDecoder| entry.active().map(|one| one.span.overlaps(window));
    for at in 0..work.committed.decoders.len() {
        let WorkspaceMut { topology, committed, .. } = &mut *work;
        let Some(entry) = committed.decoders.get(at).filter(|entry| lies(entry) == Some(true))
        else {
            continue;
        };
        let (id, index, tree) = (entry.node, entry.index, Tree(&topology.nodes));
        if tree.get(id).is_none_or(|node| node.device().is_none() || node.fault.is_some()) {
            continue;
        }
        let place = Place::in_window(tree.path(id), window.base());
        let error = Code::COMMIT_WINDOW_BROKEN.at(place).window_error(broken);
        let mut others = committed.decoders.iter().filter(|other| other.node == id);
        let others = others.any(|other| lies(other) == Some(false));
        let node = topology.nodes.get_mut(usize::from(id.0));
        match node.and_then(|node| node.hdm.as_mut()).filter(|_| others) {
            Some(hdm) => {
                hdm.lose(index);
                topology.remarks.add(error);
            }
            None => lose(work, id, error),
        }
    }
}

/// Remarks what the policy asks for memory of and is not there, as a loss: but where something is told of it
/// already, or of what is above it.
#[cold]
#[inline(never)]
fn remark_missing(policy: &Policy<'_>, work: &mut WorkspaceMut<'_>) {
    let TopologyMut { nodes, remarks, .. } = &mut work.topology;
    let tree = Tree(nodes);
    let asked = policy.requests.iter().map(|request| &request.device);
    for at in asked.chain(policy.sets.iter().flat_map(|set| &set.members)) {
        let is_left_out = |wanted: &LeaveOut| match wanted {
            LeaveOut::At(place) => may_concern(place.into(), at),
            LeaveOut::Device { .. } => false,
        };
        let is_told = |remark: &Error| of_remark(remark).is_some() && may_concern(remark.at, at);
        // That of a bridge: what is below it was not looked for.
        let is_broken = |node: &Node| node.fault.is_some_and(|fault| may_concern(fault.at, at));
        let is_known = tree.device_at(at).is_some()
            || policy.leave_out.iter().any(is_left_out)
            || remarks.list().iter().any(is_told)
            || nodes.iter().any(is_broken);
        if !is_known {
            remarks.add(Code::PLAN_UNKNOWN_DEVICE.at(at));
        }
    }
}

/// Whether a place is a device's or above it. Nobody knows which port a function that became no node is
/// behind: it may be.
#[inline(never)]
fn may_concern(place: Place, device: &Path) -> bool {
    let above = |path: &Path| path.split_last().map(|(_, above)| above);
    place.is_function() && place.uid() == Some(device.uid())
        || successors(Some(*device), above).any(|path| place.names(&path))
}

/// Devices that a lock cost which failed in another member of their set, and that are as they were found:
/// they are to have another chance. Whether there are any.
fn give_back(hw: &mut impl Mmio, work: &mut WorkspaceMut<'_>) -> bool {
    let in_use = !work.committed.regions.is_empty();
    if in_use && cfg!(not(feature = "hot-plug")) {
        return false;
    }
    let mut any = false;
    for id in (0..work.topology.nodes.len()).map(|at| NodeId(at as u16)) {
        let tree = Tree(&work.topology.nodes);
        let device = tree.get(id).filter(|node| node.device().is_some());
        let Some(fault) = device.and_then(|device| device.fault) else { continue };
        let names = |(id, _): (NodeId, &Node)| fault.at.names(&tree.path(id));
        let is_others = tree.iter().any(names) && !tree.upwards(id).any(names);
        if !is_others || is_silent(hw, tree, id) || is_in_use(hw, tree, id) {
            continue;
        }
        if let Some(node) = work.topology.nodes.get_mut(usize::from(id.0)) {
            node.fault = None;
            any = true;
        }
    }
    any
}

/// Loses the devices that are not in use.
fn lose_unused(hw: &mut impl Mmio, work: &mut WorkspaceMut<'_>, error: Error) {
    for id in (0..work.topology.nodes.len()).map(|at| NodeId(at as u16)) {
        let tree = Tree(&work.topology.nodes);
        let is_device = tree.get(id).is_some_and(|node| node.device().is_some());
        if is_device && tree.fault(id).is_none() && !is_in_use(hw, tree, id) {
            lose(work, id, error);
        }
    }
}

/// Rounds until one passes, and its locks; whether there were any to be made.
fn pass(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    scope: Scope,
    work: &mut WorkspaceMut<'_>,
) -> Result<bool, Error> {
    if scope.is_later() {
        // What was there and is broken is not what is brought up here.
        look(hw, platform, policy, work, scope, false);
    }
    let decoders = work.topology.nodes.iter().filter_map(|node| node.hdm);
    let rounds: usize = decoders.map(|hdm| usize::from(hdm.decoders) + 1).sum();
    // Before each of them every node may have met a plan that had no room for it.
    let rounds = rounds.saturating_mul(work.topology.nodes.len() + 1);
    let trial = match policy.path == PathPolicy::LockAll && !policy.no_trial {
        true => Policy { path: PathPolicy::Unlocked, config_lock: false, ..*policy },
        false => *policy,
    };
    let mut last = Ok(Round::Final);
    for _ in 0..=rounds {
        last = round(hw, clock, platform, policy, &trial, scope, work);
        let error = match last {
            Ok(Round::Found(error)) if take_over(hw, platform, policy, work, error) => {
                return Ok(false);
            }
            Ok(Round::Found(error)) => foreign(policy, work, error),
            Ok(_) => break,
            Err(error) => error,
        };
        give_up(hw, platform, policy, scope, work, error)?;
    }
    let programmed = match last? {
        Round::Tried => false,
        Round::Programmed => true,
        Round::Final => return Ok(false),
        Round::Found(error) => return Err(error),
    };
    let WorkspaceMut { topology, plan, committed, .. } = &mut *work;
    for region in plan.regions.iter_mut() {
        let mut asked = committed.regions.iter().filter(|asked| asked.probed != Probed::No);
        region.answered = asked.any(|asked| asked.span.base() == region.span.base());
    }
    lock_all(hw, clock, topology, plan, policy, committed, programmed);
    // All of it was made, or taken back and made again, so all registers are looked at. Memory that
    // answered is not asked twice by a pass.
    look(hw, platform, policy, work, scope, !scope.is_later());
    if programmed {
        ask(hw, platform, policy, scope, work);
        return Ok(true);
    }
    let WorkspaceMut { plan, committed, .. } = work;
    for region in committed.regions.iter_mut() {
        let answered = |asked: &Region| asked.span.base() == region.span.base() && asked.answered;
        region.probed = match region.partition {
            _ if !plan.regions.iter().any(answered) => Probed::No,
            Partition::Volatile => Probed::Held,
            Partition::Persistent => Probed::Read,
        };
    }
    Ok(true)
}

/// Asks memory that nobody asked before it was locked: what does not answer is lost where it is.
fn ask(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    scope: Scope,
    work: &mut WorkspaceMut<'_>,
) {
    for _ in 0..=work.topology.nodes.len() {
        let WorkspaceMut { topology, plan, committed, probe: errors, .. } = &mut *work;
        let (tree, only) = (Tree(&topology.nodes), scope.is_later().then_some(&*plan.regions));
        let committed = committed.reborrow();
        let asked = probe_only(hw, platform, tree, policy.probe, only, committed, errors);
        let Err(error) = asked else { return };
        if !lose_culprits(platform, policy, work, error) {
            return;
        }
        drop_lost(work);
        look(hw, platform, policy, work, scope, !scope.is_later());
    }
}

/// Takes what is lost out of a plan that is locked.
fn drop_lost(work: &mut WorkspaceMut<'_>) {
    let (tree, locked) = (Tree(&work.topology.nodes), work.plan.decoders.len());
    work.plan.mark_lost(tree);
    work.plan.drop_lost(tree, locked);
}

/// The end of a run: what could not be taken back is in the list, and how much is in use.
fn end(
    hw: &mut impl Mmio,
    policy: &Policy<'_>,
    work: &mut WorkspaceMut<'_>,
) -> Result<Extent, Error> {
    note_stranded(hw, work);
    extent(policy, work)
}

/// Adds what is committed in components that are lost, and above the decoders that may be used: it leads
/// nowhere, and nobody has read it yet. What does not answer is left out.
fn note_stranded(hw: &mut impl Mmio, work: &mut WorkspaceMut<'_>) {
    let WorkspaceMut { topology, committed, findings, .. } = work;
    let tree = Tree(&topology.nodes);
    for (node, hdm) in tree.iter().filter_map(|(id, node)| Some((id, node.hdm?))) {
        let first = if tree.fault(node).is_some() { 0 } else { hdm.decoders };
        for index in first..hdm.capability.decoders().unwrap_or(0) {
            let registers = DecoderRegisters::new(hdm.block, index);
            let control = registers.read_control(hw);
            if !control.committed() || control.into_bits() == u32::MAX {
                continue;
            }
            let image = registers.read_beside(hw, control);
            let entry = CommittedDecoder::new(tree, node, index, image, Fate::Stranded);
            let mut entries = committed.decoders.iter_mut();
            if let Some(known) = entries.find(|known| (known.node, known.index) == (node, index)) {
                *known = entry;
            } else if committed.decoders.push(entry).is_err() {
                // Of what is lost no table speaks.
                *committed.unread |= !tree.is_lost(node, index);
                findings.add(Code::VERIFY_CAPACITY.error().expected(committed.decoders.room()));
            }
        }
    }
}

/// Verifies what cannot be undone any more, until what is left is good: each look takes out what the
/// one before found broken.
fn look(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    work: &mut WorkspaceMut<'_>,
    scope: Scope,
    planned: bool,
) {
    for _ in 0..=work.topology.nodes.len() {
        let WorkspaceMut { topology, plan, committed, findings, .. } = work;
        let (tree, view) = (Tree(&topology.nodes), plan.view());
        if planned {
            verify_plan(hw, platform, tree, view, policy, &mut *committed, &mut *findings);
        } else {
            verify(hw, platform, tree, policy, &mut *committed, &mut *findings);
        }
        let failure = findings.list.iter().find(|finding| finding.is_failure()).copied();
        let Some(error) = failure else { return };
        if !lose_decoders(work, scope, error) && !lose_culprits(platform, policy, work, error) {
            return;
        }
        drop_lost(work);
    }
}

/// Takes out what an error is about; whether there was anything that was not out already.
fn lose_culprits(
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    work: &mut WorkspaceMut<'_>,
    error: Error,
) -> bool {
    let mut out = false;
    while let Some(id) = culprit(platform, policy, work, &error) {
        lose(work, id, error);
        out = true;
    }
    out
}

/// The same for an error about a decoder, or a device's decoder for a range: where its component has
/// others that serve a region, these stay; and a bridge or switch stays where something came later, which
/// has its decoders above.
#[inline(never)]
fn lose_decoders(work: &mut WorkspaceMut<'_>, scope: Scope, error: Error) -> bool {
    let mut out = false;
    for at in 0..work.committed.decoders.len() {
        let WorkspaceMut { topology, committed, .. } = &mut *work;
        let tree = Tree(&topology.nodes);
        let Some(entry) = committed.decoders.get(at).filter(|entry| entry.fate == Fate::Done)
        else {
            continue;
        };
        let (id, index) = (entry.node, entry.index);
        let is_device = tree.get(id).is_some_and(|node| node.device().is_some());
        let is_meant = match error.at.span() {
            Some(span) => is_device && entry.active().is_some_and(|one| one.span.overlaps(span)),
            None => error.at == committed::Place::of(tree, id, index).into(),
        };
        if !is_meant || tree.is_lost(id, index) {
            continue;
        }
        let others = committed.decoders.iter().filter(|o| o.node == id && o.index != index);
        let serves = |decoder: &Decoder| {
            committed.regions.iter().any(|region| decoder.span.contains(region.span.base()))
        };
        let stays = scope.is_later() && !is_device;
        if stays || { others }.any(|other| other.active().is_some_and(serves)) {
            if let Some(hdm) =
                topology.nodes.get_mut(usize::from(id.0)).and_then(|n| n.hdm.as_mut())
            {
                hdm.lose(index);
            }
            if !out {
                topology.remarks.add(error);
            }
        } else {
            lose(work, id, error);
        }
        out = true;
    }
    out
}

/// Takes what an earlier run has locked as it is, where any of it is whole: nothing of it can be
/// changed. Devices without a part in it are lost, as there is no room for them but by a reset.
#[inline(never)]
fn take_over(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    work: &mut WorkspaceMut<'_>,
    error: Error,
) -> bool {
    let WorkspaceMut { topology, committed, findings, .. } = &mut *work;
    let tree = Tree(&topology.nodes);
    verify(hw, platform, tree, policy, &mut *committed, &mut *findings);
    if !committed.regions.iter().any(|region| region.locked) {
        return false;
    }
    work.plan.clear();
    // What was there and is not any more left decoders that lead to its port.
    while let Some(port) = deserted(work) {
        lose(work, port, error);
    }
    look(hw, platform, policy, work, Scope::All, false);
    let WorkspaceMut { topology, committed, probe: errors, .. } = &mut *work;
    let tree = Tree(&topology.nodes);
    let _ = probe(hw, platform, tree, policy.probe, &mut *committed, errors);
    for index in 0..work.topology.nodes.len() {
        let WorkspaceMut { topology, committed, .. } = &mut *work;
        let (tree, id) = (Tree(&topology.nodes), NodeId(index as u16));
        let is_device = tree.get(id).is_some_and(|node| node.device().is_some());
        let serves = committed.decoders.iter().any(|entry| {
            let regions = committed.regions.iter();
            let serves = |decoder| { regions }.any(|region| claims(decoder, region.span));
            entry.node == id && entry.active().is_some_and(serves)
        });
        if is_device && !serves && tree.fault(id).is_none() {
            // What the plan met may be about another one, which is in use.
            let is_free = !committed.decoders.iter().any(|entry| entry.node == id);
            let own = Code::COMMIT_FOREIGN_PART.at(committed::Place::of(tree, id, 0));
            let is_others = is_free && !error.at.names(&tree.path(id));
            lose(work, id, if is_others { own } else { error });
        }
    }
    // What memory did not answer behind, of components that have more in use.
    for entry in work.committed.decoders.iter().filter(|entry| entry.fate == Fate::Stranded) {
        let node = work.topology.nodes.get_mut(usize::from(entry.node.0));
        if let Some(hdm) = node.and_then(|node| node.hdm.as_mut()) {
            hdm.lose(entry.index);
        }
    }
    true
}

/// What an error is about that says of a decoder that it is not committed while others are: that is one of
/// these, where it is no part of what an earlier run left as the policy wants it.
fn foreign(policy: &Policy<'_>, work: &WorkspaceMut<'_>, error: Error) -> Error {
    if error.code != Code::COMMIT_FOREIGN_PART {
        return error;
    }
    let tree = Tree(&work.topology.nodes);
    // Nothing is locked: else it would have been taken over.
    let is_ours = |entry: &CommittedDecoder| {
        let mut regions = work.committed.regions.iter();
        policy.path != PathPolicy::LockAll
            && entry.active().is_some_and(|one| regions.any(|region| claims(one, region.span)))
    };
    let mut entries = work.committed.decoders.iter();
    let theirs = entries.find(|entry| {
        entry.committed() && !is_ours(entry) && !tree.is_lost(entry.node, entry.index)
    });
    theirs.map_or(error, |entry| {
        let place = committed::Place::of(tree, entry.node, entry.index);
        let (base, size) = (entry.image.base(), entry.image.size());
        Code::COMMIT_FOREIGN_DECODER.at(place).expected(base).found(size)
    })
}

/// A port that decoders in use lead to, and that nothing is behind.
fn deserted(work: &WorkspaceMut<'_>) -> Option<NodeId> {
    let tree = Tree(&work.topology.nodes);
    work.committed.decoders.iter().find_map(|entry| {
        let decoder = entry.active()?;
        let Route::Targets(targets) = decoder.route else { return None };
        let used = targets.used(decoder.interleave.ways).iter();
        let mut ports = used.filter_map(|port| tree.child_at(entry.node, *port));
        ports.find(|port| tree.fault(*port).is_none() && tree.devices_below(*port).next().is_none())
    })
}

/// Gives a node a fault.
fn lose(work: &mut WorkspaceMut<'_>, id: NodeId, error: Error) {
    if let Some(node) = work.topology.nodes.get_mut(usize::from(id.0)) {
        node.fault = Some(error);
    }
}

/// The next node that an error is about and that is not out already.
fn culprit(
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    work: &WorkspaceMut<'_>,
    error: &Error,
) -> Option<NodeId> {
    let (tree, plan) = (Tree(&work.topology.nodes), (work.plan.view(), &*work.plan.uses));
    let mut sound = tree.sound().map(|(id, _)| id);
    sound.find(|id| is_culprit(tree, platform, policy, plan, *id, error))
}

/// How much is in use: less where anything has a fault, was remarked as a loss, or failed the last
/// look. What is required and was lost behind its lock is an error all the same.
fn extent(policy: &Policy<'_>, work: &WorkspaceMut<'_>) -> Result<Extent, Error> {
    let tree = Tree(&work.topology.nodes);
    let required = |id: &NodeId| policy.required.contains(&tree.path(*id));
    let lost_of_them = tree.iter().map(|(id, _)| id).filter(required);
    if let Some(fault) = lost_of_them.clone().find_map(|id| tree.fault(id)) {
        return Err(fault);
    }
    let is_less = |id: &NodeId| {
        tree.get(*id).and_then(|node| node.hdm).is_some_and(|hdm| hdm.lost != 0 || hdm.is_cut())
    };
    let named = |id: NodeId| {
        let remarks = work.topology.remarks.losses();
        { remarks }.find(|remark| remark.at.names(&tree.path(id))).copied()
    };
    if let Some(error) = lost_of_them.filter(is_less).find_map(named) {
        return Err(error);
    }
    let faults = tree.iter().filter_map(|(_, node)| node.fault).filter(Error::is_failure).count();
    let failures = work.findings.list.iter().filter(|finding| finding.is_failure()).count();
    let remarks = usize::from(work.topology.remarks.lost());
    let uses = &*work.plan.uses;
    // What was in use before the last plan is in its notes alone.
    let before = work.plan.notes.iter().filter(|note| match note {
        Note::Unused { device, why: Why::Refused { .. }, .. } => {
            !uses.get(usize::from(device.0)).is_some_and(NodeUse::withholds)
        }
        Note::SetWithoutPlace { .. } => true,
        _ => false,
    });
    let less = uses.iter().filter(|used| used.withholds()).count() + before.count();
    let lost = remarks + faults + failures + less + work.probe.list().len();
    Ok(match u16::try_from(lost) {
        Ok(0) => Extent::Whole,
        lost => Extent::Less { lost: lost.unwrap_or(u16::MAX) },
    })
}

/// One attempt at everything that may be used, without locks; nothing of it stays if it fails.
#[inline(never)]
fn round(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    trial: &Policy<'_>,
    scope: Scope,
    work: &mut WorkspaceMut<'_>,
) -> Result<Round, Error> {
    work.findings.clear();
    work.probe.clear();
    work.committed.clear();
    if scope.is_later() {
        let WorkspaceMut { topology, committed, findings, .. } = &mut *work;
        verify(hw, platform, Tree(&topology.nodes), policy, &mut *committed, &mut *findings);
    }
    // What is locked and leads nowhere has its addresses all the same: nothing else may be led there.
    note_stranded(hw, work);
    let WorkspaceMut { topology, plan: wanted, committed, findings, probe: errors } = work;
    let tree = Tree(&topology.nodes);
    if scope.is_later() {
        plan_again(platform, tree, policy, committed.view(), wanted.reborrow())?;
    } else {
        plan_beside(platform, tree, policy, committed.view(), wanted.reborrow())?;
    }
    let wanted = wanted.view();
    let how = match policy.path {
        _ if trial.path != policy.path => How::Tried,
        PathPolicy::LockAll => How::Programmed,
        _ => How::Whole,
    };
    let job = scope.job(tree, wanted, trial, how);
    let (receipt, committed_as, round) = match commit_all(hw, clock, job, &mut *committed) {
        Ok(receipt) if how == How::Programmed && receipt.written() > 0 => {
            receipt.keep();
            return Ok(Round::Programmed);
        }
        Ok(receipt) if how == How::Tried => (receipt, trial, Round::Tried),
        Ok(receipt) => (receipt, trial, Round::Final),
        // Somebody's: ours, of an earlier run, if it is as the policy wants it.
        Err(error) if is_foreign(&error) && !scope.is_later() => {
            let job = scope.job(tree, wanted, policy, How::Whole);
            match commit_all(hw, clock, job, &mut *committed) {
                Ok(receipt) => (receipt, policy, Round::Found(error)),
                Err(error) if is_foreign(&error) => return Ok(Round::Found(error)),
                Err(error) => return Err(error),
            }
        }
        Err(error) => return Err(error),
    };
    let seen = (&mut *committed, &mut *findings, &mut **errors);
    let probed = check(hw, platform, tree, wanted, committed_as, scope, seen);
    let failure = findings.list.iter().find(|finding| finding.is_failure()).copied();
    match (failure.map_or(probed, Err), round) {
        (Ok(()), round) => {
            receipt.keep();
            Ok(match round {
                Round::Found(_) => Round::Final,
                round => round,
            })
        }
        (Err(error), round) => {
            undo(hw, tree, wanted, committed_as, &mut *committed, receipt);
            match round {
                Round::Found(_) => Ok(Round::Found(error)),
                _ => Err(error),
            }
        }
    }
}

/// Whether it says that decoders or enables are in use already. Nothing was written then.
fn is_foreign(error: &Error) -> bool {
    [
        Code::COMMIT_FOREIGN_DECODER,
        Code::COMMIT_FOREIGN_CONTENTS,
        Code::COMMIT_FOREIGN_PART,
        Code::COMMIT_FOREIGN_ENABLES,
        Code::COMMIT_CONFIG_LOCKED,
    ]
    .contains(&error.code)
}

/// Takes out of the next round what an error is about. Gives the error back where that is the whole
/// machine, something that is required, or nothing that was not out already.
///
/// Where something is in use already, that is not what is taken out: of a bridge or switch that leads
/// there, only what came later is.
#[inline(never)]
fn give_up(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    scope: Scope,
    work: &mut WorkspaceMut<'_>,
    error: Error,
) -> Result<(), Error> {
    let mut out = 0;
    for id in (0..work.topology.nodes.len()).map(|at| NodeId(at as u16)) {
        let tree = Tree(&work.topology.nodes);
        let is_out = tree.fault(id).is_some() || scope.is_later() && is_in_use(hw, tree, id);
        let plan = (work.plan.view(), &*work.plan.uses);
        if is_out || !is_culprit(tree, platform, policy, plan, id, &error) {
            continue;
        }
        let is_below = |place: NodeId| tree.upwards(place).any(|(above, _)| above == id);
        let required =
            |path| tree.iter().any(|(place, _)| tree.path(place) == path && is_below(place));
        if policy.required.iter().copied().any(required) {
            return Err(error);
        }
        out += 1;
        let silent = is_silent(hw, tree, id);
        let usable = usable_decoders(tree, work.plan.view(), &work.committed, id, &error);
        if let Some(usable) = usable.filter(|_| !silent) {
            let node = work.topology.nodes.get_mut(usize::from(id.0));
            if let Some(hdm) = node.and_then(|node| node.hdm.as_mut()) {
                hdm.decoders = usable;
            }
            work.topology.remarks.add(error);
            break;
        }
        let leads_on = scope.is_later() && tree.devices_below(id).any(|id| is_in_use(hw, tree, id));
        if !leads_on {
            lose(work, id, error);
            continue;
        }
        let culprit = id;
        for id in (0..work.topology.nodes.len()).map(|at| NodeId(at as u16)) {
            let tree = Tree(&work.topology.nodes);
            let is_below = tree.upwards(id).any(|(above, _)| above == culprit);
            let is_device = tree.get(id).is_some_and(|node| node.device().is_some());
            if is_below && is_device && tree.fault(id).is_none() && !is_in_use(hw, tree, id) {
                lose(work, id, error);
            }
        }
    }
    if out == 0 {
        return Err(error);
    }
    // What had no room may have some now.
    if error.phase() != Phase::Plan {
        for node in work.topology.nodes.iter_mut() {
            node.fault = node.fault.filter(|fault| fault.phase() != Phase::Plan);
        }
    }
    Ok(())
}

/// Whether a component with decoders does not answer.
pub(super) fn is_silent(hw: &mut impl Mmio, tree: Tree<'_>, id: NodeId) -> bool {
    let hdm = tree.get(id).and_then(|node| node.hdm);
    hdm.is_some_and(|hdm| {
        DecoderRegisters::new(hdm.block, 0).read_control(hw).into_bits() == u32::MAX
    })
}

/// Whether a device had decoders in use before: those of what is tried were taken back.
fn is_in_use(hw: &mut impl Mmio, tree: Tree<'_>, id: NodeId) -> bool {
    let node = tree.get(id).filter(|node| node.device().is_some());
    let Some(hdm) = node.and_then(|node| node.hdm) else { return false };
    let control = DecoderRegisters::new(hdm.block, 0).read_control(hw);
    control.committed() && control.into_bits() != u32::MAX
}

/// Whether an error is about a node: about itself, or a region or window that it has part in.
#[inline(never)]
fn is_culprit(
    tree: Tree<'_>,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    (plan, uses): (PlanRef<'_>, &[NodeUse]),
    id: NodeId,
    error: &Error,
) -> bool {
    let Some(node) = tree.get(id) else { return false };
    let path = tree.path(id);
    let at = error.at;
    if let Some(component) = at.component_of_decoder() {
        return node.component() == Some(component) && at.names(&path);
    }
    if at.names(&path) {
        // Several nodes have one place. It is a device's, or that of the first of them.
        let device = |node: &Node| node.device().is_some();
        let mut same = tree.iter().filter(|(other, _)| tree.path(*other) == path);
        return match same.clone().find(|(_, node)| device(node)) {
            Some((found, _)) => found == id,
            None => same.next().is_some_and(|(first, _)| first == id),
        };
    }
    if let (Some(function), Some((_, uid))) = (node.function, tree.bridge(id))
        && at == Place::function(uid, function)
    {
        return true;
    }
    let is_device = node.device().is_some();
    if let Some(span) = at.span() {
        let mut over = plan.regions.iter().filter(|region| region.span.overlaps(span));
        return is_device && over.any(|region| plan.members(region).iter().any(|m| m.device == id));
    }
    // What a window is refused for concerns those that would share it, and have no other memory.
    if uses.get(usize::from(id.0)).is_some_and(NodeUse::withholds) {
        return false;
    }
    let window = at.is_window().then(|| at.window_base()).flatten();
    window.is_some_and(|base: Hpa| {
        let mut windows = platform.windows.iter().filter(|window| window.base == Some(base));
        is_device
            && !policy.requests.iter().any(|request| request.device == path)
            && windows.any(|window| window.targets.contains(&path.uid()))
    })
}

/// How many decoders of a component are left, where one above the first failed alone: the hardware
/// commits them in order. `None` where all of it is lost.
///
/// What was in use before is so whatever the one that failed holds now.
fn usable_decoders(
    tree: Tree<'_>,
    plan: PlanRef<'_>,
    committed: &CommittedMut<'_>,
    id: NodeId,
    error: &Error,
) -> Option<u8> {
    tree.get(id)?.component()?;
    let index = error.at.decoder().filter(|index| *index > 0)?;
    let before = plan.decoders_of(id).next().map_or(0, |first| first.index);
    let stuck = committed.decoders.iter().filter(|entry| {
        let control = entry.image.control();
        entry.node == id && entry.index >= index && (control.committed() || control.commit())
    });
    (before > 0 || { stuck }.next().is_none()).then_some(index)
}
