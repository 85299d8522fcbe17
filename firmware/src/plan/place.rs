//! Where each region goes: the choice of windows, and of the place in a window.
//!
//! **Invariant**: a choice is made only where there is exactly one; two windows that fit are a
//! refusal, not a preference.

use core::cmp::Reverse;

use cxl_regs::{Coherency, DECODER_UNIT, Hpa, Interleave, Levels, Span, Ways};
use heapless::Vec;

use super::error::{Count, PlanError};
use super::{Reason, Used, sets, used_mut};
use crate::list;
use crate::platform::{Platform, Window};
use crate::policy::{Policy, Request, Width};
use crate::topology::{Device, DeviceKind, NodeId, NodeKind, Partition, Path, Tree};

/// What a plan is made from.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) platform: &'a Platform<'a>,
    pub(super) tree: Tree<'a>,
    pub(super) policy: &'a Policy<'a>,
    /// All devices by place.
    pub(super) devices: &'a [NodeId],
}

impl Given<'_> {
    /// The devices that no request names.
    pub(super) fn unrequested(&self) -> impl Iterator<Item = NodeId> {
        let Self { tree, policy, devices, .. } = *self;
        devices.iter().copied().filter(move |id| {
            let path = tree.path(*id);
            !policy.requests.iter().any(|request| request.device == path)
        })
    }
}

/// A region that has its window and its place, but no DPA and no decoders yet.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) window: u64,
    pub(super) span: Span,
    pub(super) levels: Levels,
    pub(super) coherency: Coherency,
    pub(super) partition: Partition,
    pub(super) reason: Reason,
    /// Bytes of each member's partition left out in front.
    pub(super) skip: u64,
    /// In order of position.
    pub(super) members: Vec<NodeId, 16>,
}

/// What has to find a place.
pub(super) struct Want {
    /// The device to name in a refusal: the only one, or the smallest.
    pub(super) path: Path,
    /// In order of position.
    pub(super) members: Vec<NodeId, 16>,
    pub(super) partition: Partition,
    pub(super) window: Option<u64>,
    pub(super) offset: Option<u64>,
    /// Bytes of all members together.
    pub(super) size: u64,
    /// Bytes of each member's partition left out in front.
    pub(super) skip: u64,
    /// Levels and coherency of a set; a flat region takes them from its window.
    pub(super) shape: Option<(Levels, Coherency)>,
    pub(super) reason: Reason,
}

impl Want {
    /// A range for one device alone.
    fn flat(given: &Given<'_>, device: NodeId, partition: Partition, size: u64) -> Self {
        let mut members = Vec::new();
        // One member: a list of sixteen has room.
        let _ = members.push(device);
        let path = given.tree.path(device);
        let (window, offset, skip, shape, reason) = (None, None, 0, None, Reason::Flat);
        Self { path, members, partition, window, offset, size, skip, shape, reason }
    }
}

/// A window that fits a [`Want`].
struct Fit {
    window: u64,
    base: u64,
    interleave: Interleave,
    coherency: Coherency,
}

/// The order in which a window is judged. Where no window fits, the one that came furthest tells
/// why.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Placed,
    Reachable,
    Flat,
    Media,
    Coherency,
    Size,
    Space,
}

/// Places every region that the policy asks for, sorted by address.
pub(super) fn regions<const R: usize>(
    given: &Given<'_>,
    used: &mut [Used],
    placed: &mut Vec<Placed, R>,
) -> Result<(), PlanError> {
    let Given { tree, policy, devices, .. } = *given;
    for request in policy.requests {
        devices
            .binary_search_by_key(&request.device, |id| tree.path(*id))
            .map_err(|_| PlanError::UnknownDevice { device: request.device })?;
    }
    for &id in devices {
        let Some(device) = tree.get(id).and_then(|node| node.device()) else { continue };
        let Device { volatile, persistent, .. } = *device;
        if volatile.checked_add(persistent).is_none() {
            let device = tree.path(id);
            return Err(PlanError::DeviceTooLarge { device, volatile, persistent });
        }
    }
    // Fixed places first: what may go anywhere goes round them.
    for fixed in [true, false] {
        for &device in devices {
            for request in in_order(policy.requests, tree.path(device), fixed) {
                if let Some(want) = requested(given, device, request, used)? {
                    place(given, &want, used, placed)?;
                }
            }
        }
    }
    sets::regions(given, used, placed)?;
    for device in given.unrequested() {
        for partition in Partition::ALL {
            let size = left(tree, device, partition, used);
            let sharing = used.get(usize::from(device.0)).and_then(|used| used.sharing(partition));
            let window = sharing.map(|sharing| sharing.window);
            let in_sets = window.is_some_and(|window| policy.width_of(window) != Width::Flat);
            if size > 0 && !in_sets {
                let want = Want { window, ..Want::flat(given, device, partition, size) };
                place(given, &want, used, placed)?;
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

/// Bytes of a partition that no region has taken or left out.
pub(super) fn left(tree: Tree<'_>, id: NodeId, partition: Partition, used: &[Used]) -> u64 {
    let capacity =
        tree.get(id).and_then(|node| node.device()).map_or(0, |device| device.capacity(partition));
    let taken = used.get(usize::from(id.0)).map_or(0, |used| used.taken(partition));
    capacity.saturating_sub(taken)
}

/// What a request amounts to; nothing for one that asks for no bytes.
fn requested(
    given: &Given<'_>,
    device: NodeId,
    request: &Request,
    used: &[Used],
) -> Result<Option<Want>, PlanError> {
    let Request { device: path, partition, window, offset, size, skip } = *request;
    if size == Some(0) {
        return Ok(None);
    }
    let left = left(given.tree, device, partition, used).saturating_sub(skip);
    let size = size.unwrap_or(left);
    if size == 0 || size > left {
        return Err(PlanError::RequestTooLarge { device: path, partition, asked: size, left });
    }
    let offset_or_0 = offset.unwrap_or(0);
    for (what, value) in [("skip", skip), ("size", size), ("offset", offset_or_0)] {
        if !value.is_multiple_of(DECODER_UNIT) {
            return Err(PlanError::Unaligned { device: path, what, value, unit: DECODER_UNIT });
        }
    }
    let reason = Reason::Requested;
    Ok(Some(Want { window, offset, skip, reason, ..Want::flat(given, device, partition, size) }))
}

/// Finds the one window that fits, and takes the place in it.
pub(super) fn place<const R: usize>(
    given: &Given<'_>,
    want: &Want,
    used: &mut [Used],
    placed: &mut Vec<Placed, R>,
) -> Result<(), PlanError> {
    if !want.size.is_multiple_of(DECODER_UNIT) {
        let (device, what, value) = (want.path, "its memory of", want.size);
        return Err(PlanError::Unaligned { device, what, value, unit: DECODER_UNIT });
    }
    let coherencies = match (want.shape, want.members.first()) {
        (Some((_, coherency)), _) => Vec::from([coherency]),
        (None, Some(&device)) => coherencies(given.tree, device)?,
        (None, None) => return Ok(()),
    };
    let platform = given.platform;
    let mut best: Option<Fit> = None;
    let mut second: Option<u64> = None;
    let mut fit_count = 0u16;
    let mut closest = None;
    for window in platform.windows {
        if !window.targets.contains(&want.path.uid()) {
            continue;
        }
        if want.window.is_some_and(|base| base != window.base) {
            continue;
        }
        match judge(given, want, window, &coherencies, placed) {
            Ok(fit) => {
                fit_count = fit_count.saturating_add(1);
                let other = match &best {
                    Some(before) if before.window <= fit.window => Some(fit.window),
                    Some(before) => {
                        let before = before.window;
                        best = Some(fit);
                        Some(before)
                    }
                    None => {
                        best = Some(fit);
                        None
                    }
                };
                second = match (second, other) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
            Err((stage, error)) => {
                let how_far = (stage, Reverse((window.base, window.size)));
                if closest.is_none_or(|(before, _)| how_far > before) {
                    closest = Some((how_far, error));
                }
            }
        }
    }
    let Want { path, partition, size, skip, reason, .. } = *want;
    let fit = match (best, second) {
        (Some(fit), None) => fit,
        (Some(fit), Some(second)) => {
            let (first, fit) = (fit.window, fit_count);
            return Err(PlanError::Ambiguous { device: path, partition, first, second, fit });
        }
        (None, _) => {
            return Err(match (closest, want.window) {
                (Some((_, error)), _) => error,
                (None, Some(window)) => PlanError::UnknownWindow { device: path, window },
                (None, None) => PlanError::NoWindow { device: path, partition, need: size },
            });
        }
    };
    let (window, coherency, members) = (fit.window, fit.coherency, want.members.clone());
    let span = Span::new(Hpa(fit.base), size).map_err(|_| {
        let (device, need, have) = (path, size, 0);
        PlanError::WindowTooSmall { device, window, need, have }
    })?;
    let levels = want.shape.map_or_else(|| levels(fit.interleave), |(levels, _)| levels);
    for &member in &members {
        if let Some(used) = used_mut(used, member) {
            used.take(partition, (size / members.len() as u64).saturating_add(skip));
        }
    }
    let region = Placed { window, span, levels, coherency, partition, reason, skip, members };
    let at = placed.partition_point(|other| other.span.base() < span.base());
    list::insert(placed, at, region)
        .map_err(|_| PlanError::Capacity { what: Count::Regions, have: R })
}

/// Levels of one way each. Their granularity means nothing, but older Linux kernels compare it.
fn levels(root: Interleave) -> Levels {
    let level = Interleave::new(Ways::One, root.granularity);
    Levels { root, bridge: level, switch: level }
}

/// Whether the window fits, and where in it the region would lie.
fn judge<const R: usize>(
    given: &Given<'_>,
    want: &Want,
    window: &Window,
    coherencies: &[Coherency],
    placed: &Vec<Placed, R>,
) -> Result<Fit, (Stage, PlanError)> {
    let (device, base, size) = (want.path, window.base, window.size);
    if base == 0 {
        return Err((Stage::Placed, PlanError::Unplaced { device, size }));
    }
    if !base.is_multiple_of(DECODER_UNIT) {
        let (what, value) = ("window base", base);
        let error = PlanError::Unaligned { device, what, value, unit: DECODER_UNIT };
        return Err((Stage::Placed, error));
    }
    if size == 0 {
        let (need, have) = (want.size, size);
        let error = PlanError::WindowTooSmall { device, window: base, need, have };
        return Err((Stage::Placed, error));
    }
    let span = reachable(given.platform, window).map_err(|error| (Stage::Reachable, error))?;
    let ways = window.interleave.ways;
    if ways != Ways::One && want.shape.is_none() && given.policy.width_of(base) == Width::Flat {
        return Err((Stage::Flat, PlanError::Interleaved { device, window: base, ways }));
    }
    let partition = want.partition;
    if !media(window, partition) {
        let error = PlanError::MediaNotAllowed { device, window: base, partition };
        return Err((Stage::Media, error));
    }
    let Some(coherency) = coherency(window, coherencies) else {
        let coherency = coherencies.first().copied().unwrap_or(Coherency::HostOnly);
        let error = PlanError::CoherencyNotAllowed { device, window: base, coherency };
        return Err((Stage::Coherency, error));
    };
    if size < want.size {
        let (need, have) = (want.size, size);
        let error = PlanError::WindowTooSmall { device, window: base, need, have };
        return Err((Stage::Size, error));
    }
    // Where sets are wanted, a device that got into none was kept out by something above.
    if ways != Ways::One && want.shape.is_none() {
        return Err((Stage::Size, PlanError::Interleaved { device, window: base, ways }));
    }
    let at = find_place(want, span, placed).map_err(|error| (Stage::Space, error))?;
    Ok(Fit { window: base, base: at, interleave: window.interleave, coherency })
}

/// The window's range, if the CPU can address all of it.
pub(super) fn reachable(platform: &Platform<'_>, window: &Window) -> Result<Span, PlanError> {
    let (base, size, bits) = (window.base, window.size, platform.address_bits);
    let beyond = PlanError::BeyondAddressWidth { window: base, size, bits };
    let span = Span::new(Hpa(base), size).map_err(|_| beyond)?;
    let top = 1u64.checked_shl(bits.into()).unwrap_or(u64::MAX);
    if span.end().0 > top { Err(beyond) } else { Ok(span) }
}

/// Whether the window allows the kind of memory.
pub(super) fn media(window: &Window, partition: Partition) -> bool {
    match partition {
        Partition::Volatile => window.restrictions.volatile(),
        Partition::Persistent => window.restrictions.persistent(),
    }
}

/// The first coherency that the window allows.
pub(super) fn coherency(window: &Window, preferred: &[Coherency]) -> Option<Coherency> {
    let allowed = window.restrictions;
    preferred.iter().copied().find(|coherency| match coherency {
        Coherency::HostOnly => allowed.host_only(),
        Coherency::Device => allowed.device_coherent(),
        Coherency::BackInvalidate => allowed.device_coherent() && allowed.back_invalidate(),
    })
}

/// The place asked for, or the first gap that is large enough and lies above the volatile memory of
/// the same devices, if that is in the window. Volatile memory above a persistent range of a fixed
/// place is refused later, when DPA is dealt out.
fn find_place<const R: usize>(
    want: &Want,
    window: Span,
    placed: &Vec<Placed, R>,
) -> Result<u64, PlanError> {
    let (device, need) = (want.path, want.size);
    let first = placed.partition_point(|region| region.span.end() <= window.base());
    let inside = placed.iter().skip(first).take_while(|region| region.span.overlaps(window));
    let taken = inside.clone().map(|region| region.span);
    if let Some(offset) = want.offset {
        let error = PlanError::PlaceTaken { device, window: window.base().0, offset, size: need };
        let at = window.base().0.checked_add(offset).ok_or(error)?;
        let span = Span::new(Hpa(at), need).map_err(|_| error)?;
        let free = window.contains_span(span) && !taken.clone().any(|other| other.overlaps(span));
        return if free { Ok(at) } else { Err(error) };
    }
    let (start, end) = (window.base().0, window.end().0);
    let (mut volatile_at, mut from) = (start, start);
    for region in inside.filter(|region| region.members.iter().any(|id| want.members.contains(id)))
    {
        if region.partition < want.partition {
            (volatile_at, from) = (region.span.base().0, region.span.end().0);
        }
    }
    first_gap(taken.clone(), from, end, need).map_err(|free| {
        match first_gap(taken, start, end, need) {
            // A place in the wrong order is no place, but it is another reason.
            Ok(lower) => PlanError::DpaOrder { device, lower, higher: volatile_at },
            Err(_) => PlanError::WindowFull { device, window: start, need, free },
        }
    })
}

/// The first gap of `need` bytes in a range, or else the size of the largest. What is taken comes
/// by ascending address.
fn first_gap(taken: impl Iterator<Item = Span>, from: u64, to: u64, need: u64) -> Result<u64, u64> {
    let (mut at, mut largest) = (from, 0);
    let ends = taken.map(|span| (span.base().0, span.end().0));
    for (base, end) in ends.chain(core::iter::once((to, to))) {
        let gap = base.saturating_sub(at);
        if gap >= need {
            return Ok(at);
        }
        largest = largest.max(gap);
        at = at.max(end);
    }
    Err(largest)
}

/// The coherency models the device can be programmed for, preferred first.
///
/// Its capability register may say (Supported Coherency Models); where it does not, its class does.
/// A memory expander is host-only wherever it may be, and has no CXL.cache to be coherent through;
/// an accelerator is what it was built for. Back-invalidate needs every component of the path.
pub(super) fn coherencies(tree: Tree<'_>, id: NodeId) -> Result<Vec<Coherency, 3>, PlanError> {
    let mut list = Vec::new();
    let Some((node, device)) = tree.get(id).and_then(|node| Some((node, node.device()?))) else {
        return Ok(list);
    };
    let expander = device.kind == DeviceKind::Type3;
    let (host, coherent) = match node.hdm.map_or(0, |hdm| hdm.capability.coherency_models()) {
        1 => (false, true),
        2 => (true, false),
        3 => (true, true),
        _ => (expander, !expander),
    };
    // The list has room for each of them once.
    if host && expander {
        let _ = list.push(Coherency::HostOnly);
    }
    if coherent {
        let gap = tree.upwards(id).find(|(_, node)| {
            node.back_invalidate.is_none() && !matches!(node.kind, NodeKind::HostBridge { .. })
        });
        let through_cache = !expander && node.back_invalidate.is_none_or(|bi| bi.hdm_d);
        match gap {
            None => {
                let _ = list.push(Coherency::BackInvalidate);
            }
            Some((at, _)) if !host && !through_cache => {
                let (device, at) = (tree.path(id), tree.path(at));
                return Err(PlanError::NoBackInvalidate { device, at });
            }
            Some(_) => {}
        }
        if through_cache {
            let _ = list.push(Coherency::Device);
        }
    }
    if host && !expander {
        let _ = list.push(Coherency::HostOnly);
    }
    Ok(list)
}
