//! Locking what was committed without locks, component by component.
//!
//! The lock takes effect when Committed becomes 1, so a decoder that is committed is taken back and
//! committed again: of each component Commit is cleared from the highest decoder down, then written
//! together with Lock On Commit from the lowest up (CXL r3.1 section 8.2.4.20.12). Writing the lock
//! into a decoder that stays committed is undefined. Devices go first, then switches from the bottom
//! up, then bridges: while anything below may still fail, what leads there can be made anew.
//!
//! It takes two writes of Control and, on hardware that commits at once, two reads a decoder; a test
//! counts the writes.
//!
//! **Invariant**: a component that fails gets a fault, and so does every device that shares a region
//! with it. What leads there is made anew without these regions before it is
//! locked.

use cxl_regs::hdm::DecoderImage;

use super::planned_registers::Slot;
use super::{COMMIT_TIMEOUT, Job, commit_one, take_back};
use crate::committed::CommittedMut;
use crate::device_registers::DeviceRegisters;
use crate::error::{Code, Error};
use crate::mmio::{Clock, Mmio};
use crate::plan::{PlanMut, PlanRef, PlannedDecoder};
use crate::policy::Policy;
use crate::topology::{Node, NodeId, Tree};
use crate::wait::{TimedOut, wait};

/// Locks every decoder of a plan that is committed without locks. What fails has a fault afterwards,
/// and the plan has none of its regions.
pub(crate) fn lock_all(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    nodes: &mut [Node],
    plan: &mut PlanMut<'_>,
    policy: &Policy<'_>,
    committed: &CommittedMut<'_>,
) {
    // Decoders of a component stand together, in the order in which components are committed: those
    // from here on are not locked yet.
    let mut open = 0;
    // Whether what routes there was taken back, and is to be made anew.
    let mut anew = false;
    while let Some(node) = plan.view().decoders.get(open).map(|planned| planned.node) {
        let view = plan.view();
        let own =
            view.decoders.iter().skip(open).take_while(|planned| planned.node == node).count();
        let routes = Tree(nodes).get(node).and_then(Node::component).is_some_and(|c| c.routes());
        let result = lock_one(hw, clock, Tree(nodes), view, policy, node, anew && routes);
        let Err(error) = result else {
            open += own;
            continue;
        };
        // Decoders are committed in order: those of a bridge or switch before the one that failed are
        // locked, and what they lead to stays.
        let tree = Tree(nodes);
        let is_locked = |planned: &&PlannedDecoder| {
            let slot = Slot::new(tree, planned, policy);
            let control = slot.map(|slot| slot.registers.read_control(hw)).unwrap_or_default();
            control.locked() && control.into_bits() != u32::MAX
        };
        let locked = if routes { view.decoders_of(node).take_while(is_locked).count() } else { 0 };
        lose(nodes, view, node, locked, error);
        open += locked;
        let tree = Tree(nodes);
        // From the top, the highest decoder of each first: nothing is left that leads to less.
        for planned in view.decoders.iter().skip(open).rev() {
            let routes =
                tree.get(planned.node).and_then(Node::component).is_some_and(|c| c.routes());
            let lost = tree.fault(planned.node).is_some();
            let taken_back = anew && routes && planned.node != node;
            if let (true, false, Ok(slot)) =
                (routes || lost, taken_back, Slot::new(tree, planned, policy))
            {
                take_back(hw, &slot, DecoderImage::default());
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

/// Gives a fault to a component of which nothing is locked, or else to the devices of the regions
/// that its other decoders are for; and to devices that share a region with one that has a fault,
/// locked or not: what is locked of a set that lost a member leads nowhere.
fn lose(nodes: &mut [Node], plan: PlanRef<'_>, node: NodeId, locked: usize, error: Error) {
    let fault = |nodes: &mut [Node], id: NodeId| {
        if let Some(lost) = nodes.get_mut(usize::from(id.0)) {
            lost.fault = Some(error);
        }
    };
    // What was there before the plan is locked too.
    let first = plan.decoders_of(node).next().map_or(0, |first| first.index);
    let whole = locked == 0 && first == 0;
    if whole {
        fault(nodes, node);
    }
    for planned in plan.decoders_of(node).skip(locked).filter(|_| !whole) {
        for member in plan.members_of(planned) {
            fault(nodes, member.device);
        }
    }
    // Each turn of this loop gives a fault to a device.
    loop {
        let tree = Tree(nodes);
        let with_lost = |planned: &&PlannedDecoder| {
            tree.get(planned.node).is_some_and(|node| node.device().is_some())
                && tree.fault(planned.node).is_none()
                && plan.serves_lost(tree, planned)
        };
        let Some(next) = plan.decoders.iter().find(with_lost).map(|planned| planned.node) else {
            return;
        };
        fault(nodes, next);
    }
}

/// Locks the decoders of one component, which are committed without locks, or, if they are to be made
/// anew, not committed.
fn lock_one(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    tree: Tree<'_>,
    plan: PlanRef<'_>,
    policy: &Policy<'_>,
    node: NodeId,
    anew: bool,
) -> Result<(), Error> {
    let slots = || plan.decoders_of(node).map(|planned| Slot::new(tree, planned, policy));
    if anew {
        for slot in slots() {
            slot?.program(hw)?;
        }
    } else {
        let count = slots().count();
        for index in (0..count).rev() {
            if let Some(slot) = slots().nth(index) {
                open(hw, clock, &slot?)?;
            }
        }
    }
    for slot in slots() {
        commit_one(hw, clock, &slot?)?;
    }
    match DeviceRegisters::of(tree, node) {
        Some(registers) if policy.config_lock => {
            registers.lock(hw).map_err(Job { tree, plan, policy, beside: false }.not_kept(node))
        }
        _ => Ok(()),
    }
}

/// Clears Commit and waits until Committed is 0.
fn open(hw: &mut impl Mmio, clock: &mut impl Clock, slot: &Slot) -> Result<(), Error> {
    let wanted = slot.image.control().with_lock_on_commit(false).with_commit(false);
    slot.registers.write_control(hw, wanted);
    let mut control = wanted;
    wait(clock, COMMIT_TIMEOUT, || {
        control = slot.registers.read_control(hw);
        (!control.committed()).then_some(())
    })
    .map_err(|TimedOut { polls, microseconds }| {
        let error = Code::COMMIT_TIMEOUT.at(slot.place).expected(microseconds);
        error.found((control.into_bits(), polls))
    })
}
