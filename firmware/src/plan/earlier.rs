//! Regions that were there before keep their addresses, and what is new goes round them.
//!
//! **Invariant**: a region stays where it was, as wide as it was, or there is a note that it did not. The
//! order in which earlier ranges are listed means nothing.

use cxl_regs::{Interleave, Ways};

use super::fit::By;
use super::input::PlanInput;
use super::node_use::{NodeUse, left, used_mut};
use super::place::{Layout, PendingRegion, Placed, place};
use super::{Lists, Note, note, sets};
use crate::committed::{CommittedDecoder, CommittedRef, CommittedRegion};
use crate::error::Error;
use crate::policy::{EarlierRange, Width};
use crate::topology::{Partition, Tree};

/// Marks each device with the earlier ranges that led to it: the lowest of each partition.
pub(super) fn mark(given: &PlanInput<'_>, used: &mut [NodeUse]) {
    let PlanInput { tree, policy, devices, .. } = *given;
    for (number, range) in policy.earlier.iter().enumerate() {
        let found = devices.binary_search_by_key(&range.device, |id| tree.path(*id));
        let device = found.ok().and_then(|at| devices.get(at));
        let Some(used) = device.and_then(|device| used_mut(used, *device)) else { continue };
        let Ok(number) = u16::try_from(number + 1) else { return };
        let slot = used.earlier_mut(range.partition);
        let before = policy.earlier.get(usize::from(*slot).wrapping_sub(1));
        if before.is_none_or(|before| range.span.base() < before.span.base()) {
            *slot = number;
        }
    }
}

/// Places the regions that can stay where they were. What a request names goes where that says.
pub(super) fn keep(
    given: &PlanInput<'_>,
    used: &mut [NodeUse],
    layout: &mut Layout<'_>,
) -> Result<(), Error> {
    if given.policy.earlier.is_empty() {
        return Ok(());
    }
    for device in given.unrequested() {
        for partition in Partition::ALL {
            let size = left(given.tree, device, partition, used);
            let Some(earlier) = given.earlier(device, partition, used).filter(|_| size > 0) else {
                continue;
            };
            let mut windows = given.platform.windows.iter();
            let window = windows.find(|window| {
                window.span().is_some_and(|window| window.contains_span(earlier.span))
            });
            let Some((window, base)) = window.and_then(|window| Some((window, window.base?)))
            else {
                continue;
            };
            let offset = Some(earlier.span.base().0 - base.0);
            let result = if given.policy.width_of(window.base) == Width::Flat {
                if earlier.span.size() != size {
                    continue;
                }
                let flat = PendingRegion::flat(given, device, partition, size);
                let window = Some(base);
                place(
                    given,
                    &PendingRegion { window, by: By::Earlier, offset, ..flat },
                    used,
                    layout,
                )
            } else {
                sets::keep(given, window, device, partition, earlier, used, layout)
            };
            // Where it cannot stay, it goes where it would go without.
            if result.is_err() {
                layout.refusals.clear();
            }
        }
    }
    Ok(())
}

/// Notes what did not stay, or not the same: other devices, another interleave or another kind of memory
/// at its addresses are not what was there. What is in use already stays where it is.
pub(super) fn note_moved(
    tree: Tree<'_>,
    earlier: &[EarlierRange],
    placed: &[Placed],
    committed: CommittedRef<'_>,
    plan: &mut Lists<'_>,
) -> Result<(), Error> {
    for range in earlier {
        let EarlierRange { device, span, partition, interleave } = *range;
        // Of one device alone the granularity means nothing.
        let is_same = |now: Interleave| {
            now == interleave || (now.ways, interleave.ways) == (Ways::One, Ways::One)
        };
        let stays = |Placed { region, members, .. }: &Placed| {
            (region.span, region.partition) == (span, partition)
                && region.levels.device().is_ok_and(is_same)
                && members.iter().any(|member| tree.path(*member) == device)
        };
        let at = placed.binary_search_by_key(&span.base(), |placed| placed.region.span.base());
        let found = at.ok().and_then(|at| placed.get(at));
        let in_use = |region: &CommittedRegion| {
            (region.span, region.partition) == (span, partition) && is_same(region.interleave)
        };
        let leads = |entry: &CommittedDecoder| {
            tree.path(entry.node) == device && entry.active().is_some_and(|one| one.span == span)
        };
        let is_there =
            || committed.regions.iter().any(in_use) && committed.decoders.iter().any(leads);
        if !found.is_some_and(stays) && !is_there() {
            let same = |other: &&EarlierRange| (other.span, other.partition) == (span, partition);
            let first = earlier.iter().filter(same).map(|range| range.device).min();
            let device = first.unwrap_or(device);
            note(plan, Note::NotKept { device, span, partition })?;
        }
    }
    Ok(())
}
