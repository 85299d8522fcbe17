//! The way of back-invalidate messages from a device up to the host: BI decoders and route tables.
//!
//! **Invariant**: the device is enabled last, when everything above it forwards (CXL r3.1 sections
//! 8.2.4.26 and 8.2.4.27). No wait is longer than ten seconds, whatever the hardware asks for.

use cxl_regs::bi;
use cxl_regs::commit::CommitStatus;

use super::differs;
use crate::committed::LinksBefore;
use crate::error::{Code, Failed, Fault, Numbered, Place};
use crate::list::List;
use crate::mmio::{Block, Clock, Mmio};
use crate::topology::{NodeId, NodeKind, Tree};
use crate::wait::{TimedOut, poll};

/// Where the hardware names no time.
const DEFAULT_WAIT: u64 = 10_000;
/// The most that is granted, in microseconds.
const LONGEST_WAIT: u64 = 10_000_000;

/// A component's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The port right above the device: takes its messages.
    Take,
    /// A port further up: passes on what comes from a switch.
    Forward,
    /// An upstream port: routes by its table.
    Route,
    /// The device: issues messages.
    Issue,
}

/// The components of a device's path that take part, in the order they have to be set up: from the
/// port above the device to the root port, then the device.
fn links(tree: Tree<'_>, device: NodeId) -> impl Iterator<Item = (NodeId, Role)> + '_ {
    let mut direct = true;
    let ports = tree.upwards(device).filter_map(move |(id, node)| match node.kind {
        NodeKind::RootPort | NodeKind::DownstreamPort => {
            let role = if direct { Role::Take } else { Role::Forward };
            direct = false;
            Some((id, role))
        }
        NodeKind::UpstreamPort => Some((id, Role::Route)),
        NodeKind::HostBridge { .. } | NodeKind::Device(_) => None,
    });
    ports.chain([(device, Role::Issue)])
}

/// Keeps what a control register held before, unless it is kept already; whether it is.
///
/// Each component that takes part has a decoder in the plan, or is the port right above one that
/// has: two for each decoder at most, so there is room for those of any plan that fits the topology.
fn keep(before: &mut List<'_, LinksBefore>, id: NodeId, control: u32) -> bool {
    let known = |slot: &Option<(NodeId, u32)>| slot.is_some_and(|(node, _)| node == id);
    if before.iter().any(|links| links.0.iter().any(known)) {
        return true;
    }
    if let Some(LinksBefore([Some(_), second @ None])) = before.last_mut() {
        *second = Some((id, control));
        return true;
    }
    before.push(LinksBefore([Some((id, control)), None])).is_ok()
}

/// The structure of a component that takes part.
fn structure(tree: Tree<'_>, id: NodeId) -> Option<Block> {
    Some(tree.get(id)?.back_invalidate?.block)
}

/// Sets up a device's whole path. What is overwritten goes into `before`.
pub(crate) fn enable(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    tree: Tree<'_>,
    device: NodeId,
    before: &mut List<'_, LinksBefore>,
    fault: &mut Fault,
) -> Result<(), Failed> {
    for (id, role) in links(tree, device) {
        let at = Place::from(tree.path(id));
        let Some(block) = structure(tree, id) else {
            return fault.at(Code::COMMIT_NO_BACK_INVALIDATE, at).into();
        };
        let explicit = is_explicit(hw, block, role == Role::Route);
        if role == Role::Route && !explicit {
            continue;
        }
        // Both structures have it at one offset.
        let found: bi::DecoderControl = block.read(hw);
        if !keep(before, id, found.into_bits()) {
            return fault.at(Code::COMMIT_NO_BACK_INVALIDATE, at).into();
        }
        if role == Role::Route {
            let control = bi::RouteTableControl::new();
            let (idle, go) = (control.into_bits(), control.with_commit(true).into_bits());
            commit(hw, clock, at, block, idle, go, fault)?;
            continue;
        }
        let wanted = wanted(role, found.with_commit(false));
        if explicit {
            let go = wanted.with_commit(true).into_bits();
            commit(hw, clock, at, block, wanted.into_bits(), go, fault)?;
        } else {
            block.write(hw, wanted);
        }
        let found: bi::DecoderControl = block.read(hw);
        let (expected, found) = (wanted.into_bits(), found.with_commit(false).into_bits());
        if expected != found {
            return Err(not_kept(at, expected, found, fault));
        }
    }
    Ok(())
}

/// Whether a structure takes changes by Commit.
fn is_explicit(hw: &mut impl Mmio, block: Block, routes: bool) -> bool {
    if routes {
        let capability: bi::RouteTableCapability = block.read(hw);
        return capability.explicit_commit();
    }
    let capability: bi::DecoderCapability = block.read(hw);
    capability.explicit_commit()
}

fn not_kept(at: Place, expected: u32, found: u32, fault: &mut Fault) -> Failed {
    let mismatch = (bi::DecoderControl::NUMBER, expected, found);
    differs(Code::COMMIT_DEVICE_NOT_KEPT, at, mismatch, fault)
}

/// What a BI decoder's control shall hold, Commit aside.
fn wanted(role: Role, found: bi::DecoderControl) -> bi::DecoderControl {
    match role {
        Role::Take => found.with_enable(true).with_forward(false),
        Role::Forward => found.with_enable(false).with_forward(true),
        Role::Issue | Role::Route => found.with_enable(true),
    }
}

/// Writes a control register without Commit and with it, and waits for what comes of it.
// Compiled once, whichever structure it is of: both have control and status at one offset.
#[inline(never)]
fn commit(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    at: Place,
    block: Block,
    idle: u32,
    go: u32,
    fault: &mut Fault,
) -> Result<(), Failed> {
    block.write(hw, bi::DecoderControl::from_bits(idle));
    block.write(hw, bi::DecoderControl::from_bits(go));
    let status: CommitStatus = block.read(hw);
    let limit = status.timeout().filter(|&limit| limit > 0).unwrap_or(DEFAULT_WAIT);
    let settled = |dword| CommitStatus::from_bits(dword).settled();
    let address = block.address::<CommitStatus>();
    let (found, result) = poll(hw, clock, limit.min(LONGEST_WAIT), address, settled);
    if let Err(TimedOut { polls, microseconds }) = result {
        let fault = fault.at(Code::COMMIT_BACK_INVALIDATE_TIMEOUT, at).expected(microseconds);
        return fault.found(polls).into();
    }
    if CommitStatus::from_bits(found).error_not_committed() {
        return fault.at(Code::COMMIT_BACK_INVALIDATE_REFUSED, at).found(found).into();
    }
    Ok(())
}

/// Puts a control register back as it was recorded, with its commit; nothing is written where it is
/// so.
#[inline(never)]
pub(crate) fn put_back(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    at: Place,
    block: Block,
    routes: bool,
    control: u32,
    fault: &mut Fault,
) -> Result<(), Failed> {
    // Both structures have control and status at one offset, and Commit at another bit.
    let idle = if routes {
        bi::RouteTableControl::from_bits(control).with_commit(false).into_bits()
    } else {
        bi::DecoderControl::from_bits(control).with_commit(false).into_bits()
    };
    let commits = is_explicit(hw, block, routes) && control != idle;
    let found = block.read::<bi::DecoderControl>(hw).into_bits();
    if control == found && (!commits || committed(hw, block)) {
        return Ok(());
    }
    if commits {
        commit(hw, clock, at, block, idle, control, fault)?;
    } else {
        block.write(hw, bi::DecoderControl::from_bits(control));
    }
    let found = block.read::<bi::DecoderControl>(hw).into_bits();
    if control == found { Ok(()) } else { Err(not_kept(at, control, found, fault)) }
}

/// Puts a control register back.
pub(crate) fn restore(hw: &mut impl Mmio, tree: Tree<'_>, node: NodeId, control: u32) {
    if let Some(block) = structure(tree, node) {
        // Both structures have it at one offset.
        hw.write(block.address::<bi::DecoderControl>(), control);
    }
}

/// The first component of a device's path that does not let back-invalidate through.
pub(crate) fn gap(hw: &mut impl Mmio, tree: Tree<'_>, device: NodeId) -> Option<NodeId> {
    links(tree, device).find_map(|(id, role)| {
        let Some(block) = structure(tree, id) else { return Some(id) };
        let explicit = is_explicit(hw, block, role == Role::Route);
        let is_set = role == Role::Route || {
            let control: bi::DecoderControl = block.read(hw);
            wanted(role, control) == control
        };
        let open = is_set && (!explicit || committed(hw, block));
        (!open).then_some(id)
    })
}

fn committed(hw: &mut impl Mmio, block: Block) -> bool {
    let status: CommitStatus = block.read(hw);
    status.committed() && !status.error_not_committed()
}
