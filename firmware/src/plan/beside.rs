//! What is in use already, where a plan is made for what came later: its decoders are taken, its addresses
//! too, and nothing of it is planned again.
//!
//! **Invariant**: hardware commits decoders in order and by ascending address, so what comes later has
//! higher decoders and higher addresses than what a component on its way has already.

use cxl_regs::{Hpa, Span};

use super::error::Count;
use super::node_use::{NodeUse, used_mut};
use super::place::Placed;
use super::{Note, Region};
use crate::committed::{CommittedDecoder, CommittedRef, Fate};
use crate::error::Error;
use crate::list::{Empty, List};
use crate::topology::{NodeId, Tree};

/// Notes which decoders of each component are taken, and up to where they lead. Of what is not used there
/// is nothing to take.
pub(super) fn decoders(tree: Tree<'_>, committed: CommittedRef<'_>, used: &mut [NodeUse]) {
    let is_usable = |entry: &CommittedDecoder| {
        let hdm = tree.get(entry.node).and_then(|node| node.hdm);
        tree.fault(entry.node).is_none() && hdm.is_some_and(|hdm| entry.index < hdm.decoders)
    };
    let entries = committed.decoders.iter().filter(|entry| entry.committed());
    for entry in entries.filter(|entry| is_usable(entry)) {
        let Some(used) = used_mut(used, entry.node) else { continue };
        let (base, size) = (entry.image.base(), entry.image.size());
        used.next = used.next.max(entry.index.saturating_add(1));
        used.hpa_base = used.hpa_base.max(Hpa(base));
        used.hpa_end = used.hpa_end.max(Hpa(base.saturating_add(size)));
    }
}

/// Whether a node is a device that is in use already.
pub(super) fn is_in_use(tree: Tree<'_>, id: NodeId, used: &[NodeUse]) -> bool {
    let taken = used.get(usize::from(id.0)).is_some_and(|used| used.next > 0);
    taken && tree.get(id).is_some_and(|node| node.device().is_some())
}

/// Whether a note of an earlier plan is about what is in use since: a device, or a bridge above one. What
/// moved is noted anew.
pub(super) fn is_of_what_stays(tree: Tree<'_>, committed: CommittedRef<'_>, note: &Note) -> bool {
    if matches!(note, Note::SetWithoutPlace { .. }) {
        return !committed.regions.is_empty();
    }
    committed.decoders.iter().filter(|entry| entry.committed()).any(|entry| match *note {
        Note::PassThrough { uid } => tree.path(entry.node).uid() == uid,
        Note::Unused { device, .. }
        | Note::BackInvalidateGap { device, .. }
        | Note::BackInvalidateWindow { device, .. } => entry.node == device,
        _ => false,
    })
}

/// Takes the addresses that decoders lead somewhere, or that one claims for ever which leads nowhere. What
/// lies there has no members, and is no region.
pub(super) fn addresses(
    committed: CommittedRef<'_>,
    placed: &mut List<'_, Placed>,
) -> Result<(), Error> {
    let stays = |entry: &&CommittedDecoder| entry.fate != Fate::Stranded || entry.locked();
    for entry in committed.decoders.iter().filter(|entry| entry.committed()).filter(stays) {
        let span = Span::new(Hpa(entry.image.base()), entry.image.size());
        let Ok(span) = span else { continue };
        take(span, placed)?;
    }
    Ok(())
}

/// Takes addresses, unless they are taken.
pub(super) fn take(span: Span, placed: &mut List<'_, Placed>) -> Result<(), Error> {
    let at = placed.partition_point(|other| other.region.span.base() < span.base());
    if placed.get(at).is_some_and(|other| other.region.span == span) {
        return Ok(());
    }
    let (have, region) = (placed.room(), Region { span, ..Region::EMPTY });
    placed.insert(at, Placed { region, ..Placed::EMPTY }).map_err(|_| Count::Regions.exceeded(have))
}
