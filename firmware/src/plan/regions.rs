//! Which regions there are, and in which order they find their places: requests first, then sets,
//! then what is left of every other device.
//!
//! **Invariant**: the order does not depend on how requests or windows are listed.

use cxl_regs::DECODER_UNIT;

use super::error::Unaligned;
use super::fit::By;
use super::input::PlanInput;
use super::node_use::{NodeUse, left};
use super::place::{Layout, PendingRegion, place, withhold_refused};
use super::{Reason, earlier, sets};
use crate::error::{Code, Error};
use crate::policy::{Request, Width};
use crate::topology::{Device, NodeId, Partition, Path};

/// Places every region that the policy asks for, sorted by address.
pub(super) fn place_all(
    given: &PlanInput<'_>,
    used: &mut [NodeUse],
    layout: &mut Layout<'_>,
) -> Result<(), Error> {
    let PlanInput { tree, policy, devices, .. } = *given;
    for request in policy.requests {
        let known = devices.binary_search_by_key(&request.device, |id| tree.path(*id)).is_ok();
        // One that is not used is lost with what was asked of it, and its fault says so. One that is not
        // there is a loss too, where the rest may go on; a note names it.
        if !known && given.is_unknown(&request.device) {
            return Err(Code::PLAN_UNKNOWN_DEVICE.at(request.device));
        }
    }
    let members = policy.sets.iter().flat_map(|set| &set.members);
    if let Some(nobody) = members.filter(|member| given.is_unknown(member)).min() {
        return Err(Code::PLAN_UNKNOWN_DEVICE.at(nobody));
    }
    for id in given.sound() {
        let Some(device) = tree.get(id).and_then(|node| node.device()) else { continue };
        let Device { volatile, persistent, .. } = *device;
        if volatile.checked_add(persistent).is_none() {
            let device = tree.path(id);
            return Err(Code::PLAN_DEVICE_TOO_LARGE
                .at(device)
                .expected(volatile)
                .found(persistent));
        }
    }
    // Fixed places first: what may go anywhere goes round them.
    if cfg!(feature = "earlier") {
        earlier::mark(given, used);
    }
    for fixed in [true, false] {
        if cfg!(feature = "earlier") && !fixed {
            earlier::keep(given, used, layout)?;
        }
        for device in given.sound() {
            for request in in_order(policy.requests, tree.path(device), fixed) {
                let partition = request.partition;
                place_requested(given, device, request, used, layout)
                    .map_err(|error| withhold_refused(given, device, partition, used, error))?;
            }
        }
        if cfg!(feature = "interleave") {
            sets::named(given, fixed, used, layout)?;
        }
    }
    if cfg!(feature = "interleave") {
        sets::regions(given, used, layout)?;
    }
    for device in given.unrequested() {
        for partition in Partition::ALL {
            let size = left(tree, device, partition, used);
            let sharing = used.get(usize::from(device.0)).and_then(|used| used.sharing(partition));
            let window = sharing.map(|sharing| sharing.window);
            let in_sets = window.is_some() && policy.width_of(window) != Width::Flat;
            if size > 0 && !in_sets {
                let by = if window.is_some() { By::Width } else { By::Fit };
                let want = PendingRegion {
                    window,
                    by,
                    ..PendingRegion::flat(given, device, partition, size)
                };
                place(given, &want, used, layout)
                    .map_err(|error| withhold_refused(given, device, partition, used, error))?;
            }
        }
    }
    Ok(())
}

/// The requests for one device, fixed places or the others, in an order that does not depend on how
/// they are listed: volatile memory first as in DPA, and what takes all that is left last.
fn in_order(
    requests: &[Request],
    device: Path,
    fixed: bool,
) -> impl Iterator<Item = &Request> + Clone {
    let wanted =
        move |request: &Request| request.device == device && request.offset.is_some() == fixed;
    let key = |index: usize, request: &Request| {
        let Request { partition, window, offset, size, skip, .. } = *request;
        (partition, size.is_none(), window, offset, size, skip, index)
    };
    let after = move |last| {
        let all = requests.iter().enumerate().filter(|(_, request)| wanted(request));
        let keyed = all.map(|(index, request)| (key(index, request), request));
        keyed.filter(|(key, _)| last < Some(*key)).min_by_key(|(key, _)| *key)
    };
    core::iter::successors(after(None), move |(key, _)| after(Some(*key)))
        .map(|(_, request)| request)
}

/// Places what a request amounts to; nothing for one that asks for no bytes.
fn place_requested(
    given: &PlanInput<'_>,
    device: NodeId,
    request: &Request,
    used: &mut [NodeUse],
    layout: &mut Layout<'_>,
) -> Result<(), Error> {
    let Request { device: path, partition, window, offset, size, skip } = *request;
    let withheld =
        used.get(usize::from(device.0)).is_some_and(|used| used.withheld(partition).is_some());
    if size == Some(0) || withheld {
        return Ok(());
    }
    let left = left(given.tree, device, partition, used).saturating_sub(skip);
    let size = size.unwrap_or(left);
    if size == 0 || size > left {
        return Err(Code::PLAN_REQUEST_TOO_LARGE
            .at(path)
            .detail(partition)
            .expected(size)
            .found(left));
    }
    let offset_or_0 = offset.unwrap_or(0);
    for (what, value) in
        [(Unaligned::Skip, skip), (Unaligned::Size, size), (Unaligned::Offset, offset_or_0)]
    {
        if !value.is_multiple_of(DECODER_UNIT) {
            return Err(what.error(path, value));
        }
    }
    let reason = Reason::Requested;
    let by = if window.is_some() { By::Request } else { By::Fit };
    let flat = PendingRegion::flat(given, device, partition, size);
    place(given, &PendingRegion { window, by, offset, skip, reason, ..flat }, used, layout)
}
