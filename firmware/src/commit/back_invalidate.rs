//! The way of back-invalidate messages from a device up to the host: BI decoders and route tables.
//!
//! **Invariant**: the device is enabled last, when everything above it forwards (CXL r3.1 sections
//! 8.2.4.26 and 8.2.4.27). No wait is longer than ten seconds, whatever the hardware asks for.

use cxl_regs::access::Register;
use cxl_regs::bi;
use cxl_regs::commit::CommitStatus;

use crate::committed::LinksBefore;
use crate::error::{Code, Error, Numbered};
use crate::list::List;
use crate::mmio::{Block, Clock, Mmio};
use crate::topology::{NodeId, NodeKind, Path, Tree};
use crate::wait::{TimedOut, wait};

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
fn structure(tree: Tree<'_>, id: NodeId) -> Result<Block, Error> {
    tree.get(id)
        .and_then(|node| node.back_invalidate)
        .map(|structure| structure.block)
        .ok_or_else(|| Code::COMMIT_NO_BACK_INVALIDATE.at(tree.path(id)))
}

/// Sets up a device's whole path. What is overwritten goes into `before`.
pub(crate) fn enable(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    tree: Tree<'_>,
    device: NodeId,
    before: &mut List<'_, LinksBefore>,
) -> Result<(), Error> {
    for (id, role) in links(tree, device) {
        let (at, block) = (tree.path(id), structure(tree, id)?);
        let mut keep = |control: u32| match keep(before, id, control) {
            true => Ok(()),
            false => Err(Code::COMMIT_NO_BACK_INVALIDATE.at(at)),
        };
        if role == Role::Route {
            let capability: bi::RouteTableCapability = block.read(hw);
            if capability.explicit_commit() {
                let control = bi::RouteTableControl::new();
                keep(block.read::<bi::RouteTableControl>(hw).into_bits())?;
                commit(hw, clock, at, block, control, control.with_commit(true))?;
            }
            continue;
        }
        let capability: bi::DecoderCapability = block.read(hw);
        let found: bi::DecoderControl = block.read(hw);
        let wanted = wanted(role, found.with_commit(false));
        keep(found.into_bits())?;
        if capability.explicit_commit() {
            commit(hw, clock, at, block, wanted, wanted.with_commit(true))?;
        } else {
            block.write(hw, wanted);
        }
        let found: bi::DecoderControl = block.read(hw);
        let (expected, found) = (wanted.into_bits(), found.with_commit(false).into_bits());
        if expected != found {
            let register = bi::DecoderControl::NUMBER;
            return Err(Code::COMMIT_DEVICE_NOT_KEPT
                .at(at)
                .detail(register)
                .expected(expected)
                .found(found));
        }
    }
    Ok(())
}

/// What a BI decoder's control shall hold, Commit aside.
fn wanted(role: Role, found: bi::DecoderControl) -> bi::DecoderControl {
    match role {
        Role::Take => found.with_enable(true).with_forward(false),
        Role::Forward => found.with_enable(false).with_forward(true),
        Role::Issue | Role::Route => found.with_enable(true),
    }
}

/// Takes Commit from 0 to 1 and waits for what comes of it.
fn commit<C: Register>(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    at: Path,
    block: Block,
    idle: C,
    go: C,
) -> Result<(), Error> {
    block.write(hw, idle);
    block.write(hw, go);
    let status: CommitStatus = block.read(hw);
    let limit = status.timeout().filter(|&limit| limit > 0).unwrap_or(DEFAULT_WAIT);
    let status = wait(clock, limit.min(LONGEST_WAIT), || {
        let status: CommitStatus = block.read(hw);
        status.settled().then_some(status)
    })
    .map_err(|TimedOut { polls, microseconds }| {
        Code::COMMIT_BACK_INVALIDATE_TIMEOUT.at(at).expected(microseconds).found(polls)
    })?;
    if status.error_not_committed() {
        return Err(Code::COMMIT_BACK_INVALIDATE_REFUSED.at(at).found(status.into_bits()));
    }
    Ok(())
}

/// Puts a control register back as it was recorded, with its commit; nothing is written where it is
/// so.
pub(crate) fn put_back(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    at: Path,
    block: Block,
    routes: bool,
    control: u32,
) -> Result<(), Error> {
    // Both structures have control and status at one offset, and Commit at another bit.
    let go = bi::DecoderControl::from_bits(control);
    let (explicit, idle) = if routes {
        let idle = bi::RouteTableControl::from_bits(control).with_commit(false);
        let capability: bi::RouteTableCapability = block.read(hw);
        (capability.explicit_commit(), bi::DecoderControl::from_bits(idle.into_bits()))
    } else {
        let capability: bi::DecoderCapability = block.read(hw);
        (capability.explicit_commit(), go.with_commit(false))
    };
    let commits = explicit && go != idle;
    if go == block.read(hw) && (!commits || committed(hw, block)) {
        return Ok(());
    }
    if commits {
        commit(hw, clock, at, block, idle, go)?;
    } else {
        block.write(hw, go);
    }
    let (expected, found) = (control, block.read::<bi::DecoderControl>(hw).into_bits());
    if expected == found {
        return Ok(());
    }
    let register = bi::DecoderControl::NUMBER;
    Err(Code::COMMIT_DEVICE_NOT_KEPT.at(at).detail(register).expected(expected).found(found))
}

/// Puts a control register back.
pub(crate) fn restore(hw: &mut impl Mmio, tree: Tree<'_>, node: NodeId, control: u32) {
    if let Ok(block) = structure(tree, node) {
        // Both structures have it at one offset.
        hw.write(block.address::<bi::DecoderControl>(), control);
    }
}

/// The first component of a device's path that does not let back-invalidate through.
pub(crate) fn gap(hw: &mut impl Mmio, tree: Tree<'_>, device: NodeId) -> Option<NodeId> {
    links(tree, device).find_map(|(id, role)| {
        let Ok(block) = structure(tree, id) else { return Some(id) };
        let open = if role == Role::Route {
            let capability: bi::RouteTableCapability = block.read(hw);
            !capability.explicit_commit() || committed(hw, block)
        } else {
            let capability: bi::DecoderCapability = block.read(hw);
            let control: bi::DecoderControl = block.read(hw);
            wanted(role, control) == control
                && (!capability.explicit_commit() || committed(hw, block))
        };
        (!open).then_some(id)
    })
}

fn committed(hw: &mut impl Mmio, block: Block) -> bool {
    let status: CommitStatus = block.read(hw);
    status.committed() && !status.error_not_committed()
}
