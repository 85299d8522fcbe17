//! Locking what was committed without locks, component by component.
//!
//! The lock takes effect when Committed becomes 1, so a decoder that is committed is taken back and
//! committed again: of each component Commit is cleared from the highest decoder down, then written
//! together with Lock On Commit from the lowest up (CXL r3.1 section 8.2.4.20.12). Writing the lock
//! into a decoder that stays committed is undefined. Devices go first, then switches from the bottom
//! up, then bridges: while anything below may still fail, what leads there can be made anew. Without a trial
//! all is programmed and nothing committed before, and each device is switched on behind its last decoder.
//!
//! After a trial it takes two writes of Control and, on hardware that commits at once, two reads a decoder; a test
//! counts the writes.
//!
//! **Invariant**: what fails costs the regions that it is for. A component of which no decoder is locked
//! gets a fault; of another one the lower decoders stay. What shares a lost region and is not locked is
//! made anew without it before it is, and keeps its other regions; a device that has none gets a fault.

use cxl_regs::hdm::{Control, DecoderImage};

use super::planned_registers::Slot;
use super::{COMMIT_TIMEOUT, How, Job, commit_one, take_back};
use crate::committed::CommittedMut;
use crate::decoder_registers::DecoderRegisters;
use crate::device_registers::{DeviceImage, DeviceRegisters};
use crate::error::{Code, Error, Failed, Fault};
use crate::mmio::{Clock, Mmio};
use crate::plan::{PlanMut, PlanRef, PlannedDecoder};
use crate::policy::Policy;
use crate::topology::{Node, NodeId, Remarks, TopologyMut, Tree};
use crate::wait::{TimedOut, poll};

/// Locks every decoder of a plan that is committed without locks; or, without a trial, that is
/// `programmed` and not committed yet. What fails has a fault afterwards, or fewer decoders, and the plan
/// has none of its regions.
pub(crate) fn lock_all(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    topology: &mut TopologyMut<'_>,
    plan: &mut PlanMut<'_>,
    policy: &Policy<'_>,
    committed: &CommittedMut<'_>,
    programmed: bool,
) {
    let TopologyMut { nodes, remarks, .. } = topology;
    let how = if programmed { How::Programmed } else { How::Tried };
    // Decoders of a component stand together, in the order in which components are committed: those
    // from here on are not locked yet.
    let mut open = 0;
    // Whether what routes there was taken back, and is to be made anew.
    let mut anew = false;
    let mut fault = Fault::NONE;
    while let Some(node) = plan.view().decoders.get(open).map(|planned| planned.node) {
        let view = plan.view();
        let own =
            view.decoders.iter().skip(open).take_while(|planned| planned.node == node).count();
        let job = Job { tree: Tree(nodes), plan: view, policy, beside: false, how };
        let before = committed.devices_before.iter().find(|device| device.node == node);
        let before = before.filter(|_| programmed).map(|device| &device.image);
        if lock_one(hw, clock, job, (node, before), anew, &mut fault).is_ok() {
            open += own;
            continue;
        }
        let mut error = fault.error();
        // Decoders are committed in order: those before the one that failed are locked, and what they
        // lead to stays.
        let tree = Tree(nodes);
        let failed = error.at.decoder();
        let is_locked = |planned: &&PlannedDecoder| {
            let slot = Slot::new(tree, planned, policy, &mut { Fault::NONE });
            let control = slot.map(|slot| slot.registers.read_control(hw)).unwrap_or_default();
            let before = failed.is_none_or(|failed| planned.index < failed);
            before && control.locked() && control.into_bits() != u32::MAX
        };
        let mut locked = view.decoders_of(node).take_while(is_locked).count();
        if let Some(registers) = DeviceRegisters::of(tree, node) {
            // What is no decoder's is all the device's.
            locked = if failed.is_some() { locked } else { 0 };
            let device = (registers, before);
            if locked > 0 && keep_lowest(hw, job, device, locked, &mut fault).is_err() {
                (locked, error) = (0, fault.error());
            }
        }
        lose(nodes, remarks, plan, node, (open, locked), error);
        open += locked;
        let (tree, view) = (Tree(nodes), plan.view());
        // From the top, the highest decoder of each first: nothing is left that leads to less.
        for planned in view.decoders.iter().skip(open).rev() {
            let routes = routes(tree, planned.node);
            let lost = tree.fault(planned.node).is_some() || loses_any(view, open, planned.node);
            let taken_back = match planned.node == node {
                true => !routes && locked > 0,
                false => anew && routes,
            };
            // Also those above the one that failed, which may not be used any more.
            let hdm = tree.get(planned.node).and_then(|node| node.hdm);
            if let (true, false, Some(hdm)) = (routes || lost, taken_back, hdm) {
                let registers = DecoderRegisters::new(hdm.block, planned.index);
                take_back(hw, registers, DecoderImage::default());
            }
        }
        for device in committed.devices_before.iter() {
            let registers = DeviceRegisters::of(tree, device.node);
            let is_open = view.decoders.iter().skip(open).any(|p| p.node == device.node);
            if let (Some(registers), true, true) =
                (registers, is_open, tree.fault(device.node).is_some())
            {
                registers.restore_enables(hw, &device.image);
                registers.restore_ranges(hw, &device.image);
            }
        }
        open = plan.drop_lost(tree, open);
        anew = true;
    }
}

fn routes(tree: Tree<'_>, node: NodeId) -> bool {
    tree.get(node).and_then(Node::component).is_some_and(|component| component.routes())
}

/// Whether a component loses any of its decoders that are not locked.
fn loses_any(plan: PlanRef<'_>, open: usize, node: NodeId) -> bool {
    let own = plan.decoders.iter().skip(open).filter(|planned| planned.node == node);
    { own }.any(|planned| plan.serves_lost(planned))
}

/// Of a device whose higher decoders failed: takes these back, and ends as if it had no others.
fn keep_lowest(
    hw: &mut impl Mmio,
    job: Job<'_>,
    (registers, before): (DeviceRegisters, Option<&DeviceImage>),
    locked: usize,
    fault: &mut Fault,
) -> Result<(), Failed> {
    let (plan, node) = (job.plan, registers.node);
    for index in (locked..plan.decoders_of(node).count()).rev() {
        if let Some(planned) = plan.decoders_of(node).nth(index) {
            let slot = job.slot(planned, fault)?;
            take_back(hw, slot.registers, DecoderImage::default());
        }
    }
    finish(hw, job, (registers, before), locked, fault)
}

/// Mirrors a device's first decoders into its ranges, and ends it.
fn finish(
    hw: &mut impl Mmio,
    job: Job<'_>,
    (registers, before): (DeviceRegisters, Option<&DeviceImage>),
    decoders: usize,
    fault: &mut Fault,
) -> Result<(), Failed> {
    let node = registers.node;
    let now = registers.read(hw);
    let slots = job.plan.decoders_of(node).take(decoders);
    let own = slots.filter_map(|planned| Some(job.slot(planned, fault).ok()?.image));
    let mut images = [DecoderImage::default(); 2];
    for (image, own) in images.iter_mut().zip(own) {
        *image = own;
    }
    job.kept(node, registers.mirror(hw, &now, &images), fault)?;
    end(hw, job, (registers, before), fault)
}

/// Switches a device on that was not, as it was `before`, and locks what is no decoder.
fn end(
    hw: &mut impl Mmio,
    job: Job<'_>,
    (registers, before): (DeviceRegisters, Option<&DeviceImage>),
    fault: &mut Fault,
) -> Result<(), Failed> {
    let node = registers.node;
    if let Some(before) = before {
        job.kept(node, registers.enable(hw, before, job.policy.enable_cache), fault)?;
    }
    match job.policy.config_lock {
        true => job.kept(node, registers.lock(hw), fault),
        false => Ok(()),
    }
}

/// Notes what a failure costs: the component, or if some of its decoders are locked, those from the next
/// one on; the regions that these are for; and what has no other. What is locked and serves such a region
/// is lost where it is.
fn lose(
    nodes: &mut [Node],
    remarks: &mut Remarks,
    plan: &mut PlanMut<'_>,
    node: NodeId,
    (open, locked): (usize, usize),
    error: Error,
) {
    let fault = |nodes: &mut [Node], id: NodeId| {
        if let Some(lost) = nodes.get_mut(usize::from(id.0)) {
            lost.fault = Some(error);
        }
    };
    // What was there before the plan is locked too.
    let first = plan.view().decoders_of(node).next().map_or(0, |first| first.index);
    match nodes.get_mut(usize::from(node.0)).and_then(|failed| failed.hdm.as_mut()) {
        Some(hdm) if locked > 0 || first > 0 => {
            hdm.decoders = first.saturating_add(locked as u8);
            remarks.add(error);
        }
        _ => fault(nodes, node),
    }
    plan.mark_lost(Tree(nodes));
    let view = plan.view();
    for planned in view.decoders {
        let tree = Tree(nodes);
        let is_device = tree.get(planned.node).is_some_and(|node| node.device().is_some());
        let nothing = view.decoders_of(planned.node).all(|own| view.serves_lost(own));
        if is_device && nothing && tree.fault(planned.node).is_none() {
            fault(nodes, planned.node);
        }
    }
    for planned in view.decoders.iter().take(open + locked).filter(|one| view.serves_lost(one)) {
        let node = nodes.get_mut(usize::from(planned.node.0));
        if let Some(hdm) = node.and_then(|node| node.hdm.as_mut()) {
            hdm.lose(planned.index);
        }
    }
}

/// Locks the decoders of one component, which are committed without locks, or, if they are to be made
/// anew or only programmed, not committed.
fn lock_one(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    job: Job<'_>,
    (node, before): (NodeId, Option<&DeviceImage>),
    anew: bool,
    fault: &mut Fault,
) -> Result<(), Failed> {
    let Job { tree, plan, .. } = job;
    // A device of which nothing was taken back is as it was.
    let is_open = |hw: &mut _, fault: &mut Fault| {
        let first = plan.decoders_of(node).next();
        let slot = first.and_then(|planned| job.slot(planned, fault).ok());
        slot.is_some_and(|slot| !slot.registers.read_control(hw).committed())
    };
    let anew = anew && (routes(tree, node) || is_open(hw, fault));
    if anew {
        for planned in plan.decoders_of(node) {
            job.slot(planned, fault)?.program(hw, fault)?;
        }
    } else if job.how != How::Programmed {
        let count = plan.decoders_of(node).count();
        for index in (0..count).rev() {
            if let Some(planned) = plan.decoders_of(node).nth(index) {
                open(hw, clock, &job.slot(planned, fault)?, fault)?;
            }
        }
    }
    for planned in plan.decoders_of(node) {
        commit_one(hw, clock, &job.slot(planned, fault)?, fault)?;
    }
    match DeviceRegisters::of(tree, node) {
        Some(registers) if anew => finish(hw, job, (registers, before), usize::MAX, fault),
        Some(registers) => end(hw, job, (registers, before), fault),
        None => Ok(()),
    }
}

/// Clears Commit and waits until Committed is 0.
fn open(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    slot: &Slot,
    fault: &mut Fault,
) -> Result<(), Failed> {
    let wanted = slot.image.control().with_lock_on_commit(false).with_commit(false);
    slot.registers.write_control(hw, wanted);
    let closed = |dword| !Control::from_bits(dword).committed();
    let address = slot.registers.control_address();
    let (found, result) = poll(hw, clock, COMMIT_TIMEOUT, address, closed);
    let Err(TimedOut { polls, microseconds }) = result else { return Ok(()) };
    let fault = fault.at(Code::COMMIT_TIMEOUT, slot.place).expected(microseconds);
    fault.found((found, polls)).into()
}
