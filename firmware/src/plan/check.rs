//! What has to hold before anything is planned: the topology is a tree, and widths are given to windows.
//!
//! **Invariant**: after these checks a place names one component, and a parent stands before its
//! children. Which of several faults is reported does not depend
//! on the order of listing; only a broken tree, which has no places, names a node by its number.

use core::cmp::Reverse;

use cxl_regs::access::Component;

use super::add;
use super::error::Count;
use super::node_use::{NodeUse, used_mut};
use crate::error::{Code, Error, Place};
use crate::list::{self, List};
use crate::platform::Platform;
use crate::policy::{Policy, WindowWidth};
use crate::topology::{MAX_DEPTH, NodeId, NodeKind, Tree};

/// A width is given to windows that exist, once.
pub(super) fn widths(platform: &Platform<'_>, policy: &Policy<'_>) -> Result<(), Error> {
    let faults = policy.windows.iter().filter_map(|&WindowWidth { window, .. }| {
        let times = policy.windows.iter().filter(|other| other.window == window).count();
        if !platform.windows.iter().any(|other| other.base == Some(window)) {
            Some((window, Code::PLAN_WIDTH_OF_NOTHING.at(Place::window(window))))
        } else {
            (times > 1).then_some((window, Code::PLAN_WIDTH_TWICE.at(Place::window(window))))
        }
    });
    match faults.min_by_key(|(window, _)| *window) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// The topology is a tree of the kinds that PCIe knows, no deeper than a place can say; counts the
/// components directly below each node on the way.
pub(super) fn tree(tree: Tree<'_>, used: &mut [NodeUse]) -> Result<(), Error> {
    for (id, node) in tree.iter() {
        let broken = Code::PLAN_BROKEN_TREE.at(Place::entry(id.0.into()));
        let parent = match node.parent {
            None => None,
            // Everything that walks relies on this: it is why no walk goes in circles.
            Some(parent) if parent < id => Some(parent),
            Some(_) => return Err(broken),
        };
        let above = parent.and_then(|parent| tree.get(parent)).map(|parent| parent.kind);
        let fits = match node.kind {
            NodeKind::HostBridge { .. } => parent.is_none(),
            NodeKind::RootPort => matches!(above, Some(NodeKind::HostBridge { .. })),
            NodeKind::DownstreamPort => matches!(above, Some(NodeKind::UpstreamPort)),
            NodeKind::UpstreamPort | NodeKind::Device(_) => {
                matches!(above, Some(NodeKind::RootPort | NodeKind::DownstreamPort))
            }
        };
        let depth = parent.and_then(|parent| used.get(usize::from(parent.0)));
        let depth = depth.map_or(0, |parent| parent.depth + 1);
        if !fits || usize::from(depth) > MAX_DEPTH {
            return Err(broken);
        }
        used_mut(used, id).ok_or(broken)?.depth = depth;
        if let Some(parent) = parent {
            let children = &mut used_mut(used, parent).ok_or(broken)?.children;
            *children = children.saturating_add(1);
        }
    }
    Ok(())
}

/// All components with decoders in order of commit, in `order`: devices, switches from the bottom up,
/// host bridges. Refuses a topology in which a place names two of them.
///
/// Devices stay in order of place; they and everything else are ordered by place and not by id, so
/// that the order in which they were listed does not matter.
pub(super) fn commit_order(
    tree: Tree<'_>,
    used: &mut [NodeUse],
    list: &mut List<'_, NodeId>,
) -> Result<(), Error> {
    list.clear();
    // The ports stand behind, until they are judged.
    for decodes in [true, false] {
        for (id, _) in tree.iter().filter(|(_, node)| node.component().is_some() == decodes) {
            add(list, id, Count::Nodes)?;
        }
    }
    let components = tree.iter().filter(|(_, node)| node.component().is_some()).count();
    let Some((order, ports)) = list.split_at_mut_checked(components) else { return Ok(()) };
    list::sort_by_key(order, |id| {
        let class = match tree.get(*id).and_then(|node| node.component()) {
            Some(Component::Device) => 0u8,
            Some(Component::UpstreamPort) => 1,
            Some(Component::HostBridge) | None => 2,
        };
        let path = tree.path(*id);
        let height = if class == 1 { path.ports().len() } else { 0 };
        (class, Reverse(height), path)
    });
    let bridges = order.windows(2).filter_map(|pair| match *pair {
        [a, b] => Some((tree.get(a)?, tree.get(b)?)),
        _ => None,
    });
    for (a, b) in bridges {
        if let (NodeKind::HostBridge { uid }, true) = (a.kind, a.kind == b.kind) {
            return Err(Code::PLAN_DUPLICATE_BRIDGE.at(Place::bridge(uid)));
        }
    }
    list::sort_by_key(ports, |id| tree.path(*id));
    for pair in ports.windows(2) {
        let (Some(a), Some(b)) = (pair.first(), pair.last()) else { continue };
        let place = tree.path(*a);
        if let (true, Some((port, above))) = (place == tree.path(*b), place.split_last()) {
            return Err(Code::PLAN_DUPLICATE_PORT.at(above).found(port));
        }
    }
    for &port in &*ports {
        if used.get(usize::from(port.0)).is_some_and(|used| used.children > 1) {
            return Err(Code::PLAN_SHARED_PORT.at(tree.path(port)));
        }
    }
    for (rank, id) in order.iter().enumerate() {
        if let Some(used) = used_mut(used, *id) {
            used.rank = rank as u16;
        }
    }
    // What is not used keeps its rank, and gets no decoder.
    list.truncate(components);
    Ok(())
}
