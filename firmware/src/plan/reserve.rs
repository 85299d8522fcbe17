//! Room for devices that may be plugged in later: addresses, and on each level of their way a decoder.
//!
//! Hardware commits the decoders of a component in order and by ascending address, so there is room only
//! above all that lies below the same bridge; and as nobody knows which port is filled first, the room for
//! all ports of a bridge lies in one window.
//!
//! **Invariant**: what is kept is free: no decoder is planned for it, and no region lies there.

use cxl_regs::{Coherency, DECODER_UNIT, Hpa, Span};

use super::error::{Count, Unaligned};
use super::fit::{self, Ask, Refused};
use super::input::PlanInput;
use super::node_use::{NodeUse, used_mut};
use super::place::{self, Layout};
use super::{Lists, Note, add, beside, is_pass_through, note};
use crate::error::{Code, Error};
use crate::policy::{OnFailure, Reserve};
use crate::topology::{NodeId, NodeKind, Partition, Path, Tree};

/// Keeps the room that the policy asks for, once everything else has its place and its decoders.
pub(super) fn keep(
    given: &PlanInput<'_>,
    used: &mut [NodeUse],
    layout: &mut Layout<'_>,
    plan: &mut Lists<'_>,
) -> Result<(), Error> {
    let PlanInput { tree, policy, .. } = *given;
    let Some(first) = policy.reserve.iter().map(|reserve| reserve.at).min() else { return Ok(()) };
    if policy.burn_spares {
        return Err(Code::PLAN_RESERVE_BURNED.at(first));
    }
    for Reserve { at, size, .. } in policy.reserve {
        let mut known = tree.iter().filter(|(id, _)| covers(at, &tree.path(*id))).peekable();
        if *size == 0 || !size.is_multiple_of(DECODER_UNIT) {
            return Err(Unaligned::Size.error(*at, *size));
        }
        if known.peek().is_none() {
            match policy.on_failure {
                OnFailure::Strict => return Err(Code::PLAN_RESERVE_NOWHERE.at(at)),
                OnFailure::BestEffort => note(plan, Note::NoSuchPort { at: *at })?,
            }
        } else if !known.any(|(id, _)| tree.fault(id).is_none() && is_empty(tree, id)) {
            // No refusal: what was to come may have come, and the same policy is still good.
            note(plan, Note::NoEmptyPort { at: *at })?;
        }
    }
    // Ports in order of place, whatever the order of listing.
    let mut last: Option<(Path, NodeId)> = None;
    // The window that the room for the ports of a bridge lies in, and the first of these ports.
    let mut bridge: Option<(Hpa, Path)> = None;
    loop {
        let empty = tree.sound().filter(|(id, _)| is_empty(tree, *id));
        let ports = empty.map(|(id, _)| (tree.path(id), id)).filter(|port| last < Some(*port));
        let Some((at, port)) = ports.min() else { return Ok(()) };
        last = Some((at, port));
        bridge = bridge.filter(|(_, first)| first.uid() == at.uid());
        for partition in Partition::ALL {
            let asked = policy.reserve.iter().filter(|reserve| reserve.partition == partition);
            let asked = asked.filter(|reserve| covers(&reserve.at, &at));
            let Some(size) = asked.map(|reserve| reserve.size).max() else { continue };
            let (window, span) = room(given, at, port, partition, size, used, layout)?;
            match bridge {
                Some((other, first)) if other != window && first != at => {
                    return Err(Code::PLAN_RESERVE_WINDOWS.at(at).expected(other).found(window));
                }
                _ => bridge = Some((window, at)),
            }
            beside::take(span, &mut layout.regions)?;
            decoders(tree, at, port, span, used)?;
            add(&mut plan.notes, Note::Reserved { at, partition, span }, Count::Notes)?;
        }
    }
}

/// Whether a place is a port, or the bridge or a switch's port above it.
fn covers(place: &Path, port: &Path) -> bool {
    place.uid() == port.uid() && port.ports().starts_with(place.ports())
}

/// Whether a node is a port that nothing is behind.
fn is_empty(tree: Tree<'_>, id: NodeId) -> bool {
    let port = |kind| matches!(kind, NodeKind::RootPort | NodeKind::DownstreamPort);
    tree.get(id).is_some_and(|node| port(node.kind)) && tree.children(id).next().is_none()
}

/// The lowest room for a port: its window, and where in it.
fn room(
    given: &PlanInput<'_>,
    at: Path,
    port: NodeId,
    partition: Partition,
    size: u64,
    used: &[NodeUse],
    layout: &mut Layout<'_>,
) -> Result<(Hpa, Span), Error> {
    let PlanInput { platform, tree, policy, .. } = *given;
    // Whoever keeps what will be there coherent: a window that admits any of it will do.
    const ANY: [Coherency; 3] = [Coherency::HostOnly, Coherency::Device, Coherency::BackInvalidate];
    let (window, offset, set, members) = (None, None, false, 1);
    let above = place::above(tree, [port], used);
    let ask = Ask { uid: at.uid(), partition, window, offset, size, set, members, above };
    let Layout { regions, refusals, .. } = layout;
    let mut closest = None;
    for window in fit::ascending(platform.windows) {
        let taken = |span| place::earlier(&[], span, regions);
        match fit::judge(platform, policy, &ask, window, &ANY, taken) {
            Ok(fit) => {
                refusals.clear();
                let span = Span::new(fit.base, size);
                return span
                    .map(|span| (fit.window, span))
                    .map_err(|_| Unaligned::Size.error(at, size));
            }
            Err(why) => {
                refusals.add(Refused { window: platform.base_of(window), why });
                place::come_closer(&mut closest, window, why);
            }
        }
    }
    Err(place::no_place(at, partition, size, None, closest))
}

/// Keeps a decoder of every component on the way of a port.
fn decoders(
    tree: Tree<'_>,
    at: Path,
    port: NodeId,
    span: Span,
    used: &mut [NodeUse],
) -> Result<(), Error> {
    for (id, node) in tree.upwards(port) {
        let passes = is_pass_through(tree, id, used);
        let routes = node.component().is_some_and(|component| component.routes());
        let Some(used) = used_mut(used, id) else { continue };
        used.hpa_end = span.end();
        if !routes || passes {
            continue;
        }
        let none = Code::PLAN_NO_DECODERS.at(at).above(tree.path(id));
        let have = node.hdm.ok_or(none)?.decoders;
        if used.next >= have {
            return Err(Code::PLAN_DECODERS_EXHAUSTED.at(at).above(tree.path(id)).found(have));
        }
        used.next += 1;
    }
    Ok(())
}
