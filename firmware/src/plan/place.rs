//! Where each region goes: the choice of windows, and of the place in a window.
//!
//! **Invariant**: a choice is made only where there is exactly one; two windows that fit are a
//! refusal, not a preference.

use core::cmp::Reverse;

use cxl_regs::{Coherency, DECODER_UNIT, Hpa, Interleave, Levels, Span, Ways};
use heapless::Vec;

use super::error::{Count, Unaligned};
use super::fit::{self, Ask, By, Earlier, Fit, Refusals, Refused, Stage, Unfit};
use super::{NodeUse, Reason, sets, used_mut};
use crate::error::{Code, Error, Place};
use crate::list::{Empty, List};
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
pub struct Placed {
    pub(super) window: Hpa,
    pub(super) span: Span,
    pub(super) levels: Levels,
    pub(super) coherency: Coherency,
    pub(super) partition: Partition,
    pub(super) reason: Reason,
    pub(super) by: By,
    /// Whether the place in the window was asked for.
    pub(super) fixed: bool,
    /// How many regions were placed before.
    pub(super) order: u16,
    /// Bytes of each member's partition left out in front.
    pub(super) skip: u64,
    /// In order of position.
    pub(super) members: Vec<NodeId, 16>,
}

impl Empty for Placed {
    const EMPTY: Self = Self {
        window: Hpa(0),
        span: Span::<Hpa>::ORIGIN,
        levels: Levels {
            root: Interleave::NONE,
            bridge: Interleave::NONE,
            switch: Interleave::NONE,
        },
        coherency: Coherency::HostOnly,
        partition: Partition::Volatile,
        reason: Reason::Flat,
        by: By::Fit,
        fixed: false,
        order: 0,
        skip: 0,
        members: Vec::new(),
    };
}

/// What has been placed, and where there was no place, why.
pub(super) struct Layout<'a> {
    /// By ascending address.
    pub(super) regions: List<'a, Placed>,
    pub(super) refusals: &'a mut Refusals,
}

/// What has to find a place.
pub(super) struct Want {
    /// The device to name in a refusal: the only one, or the smallest.
    pub(super) path: Path,
    /// In order of position.
    pub(super) members: Vec<NodeId, 16>,
    pub(super) partition: Partition,
    pub(super) window: Option<Hpa>,
    pub(super) by: By,
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
        let by = By::Fit;
        Self { path, members, partition, window, by, offset, size, skip, shape, reason }
    }

    /// What of it a window is judged by.
    fn ask(&self) -> Ask {
        let Self { path, partition, window, offset, size, .. } = *self;
        Ask { uid: path.uid(), partition, window, offset, size, set: self.shape.is_some() }
    }
}

/// Places every region that the policy asks for, sorted by address.
pub(super) fn regions(
    given: &Given<'_>,
    used: &mut [NodeUse],
    layout: &mut Layout<'_>,
) -> Result<(), Error> {
    let Given { tree, policy, devices, .. } = *given;
    for request in policy.requests {
        devices
            .binary_search_by_key(&request.device, |id| tree.path(*id))
            .map_err(|_| Code::PLAN_UNKNOWN_DEVICE.at(request.device))?;
    }
    for &id in devices {
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
    for fixed in [true, false] {
        for &device in devices {
            for request in in_order(policy.requests, tree.path(device), fixed) {
                if let Some(want) = requested(given, device, request, used)? {
                    place(given, &want, used, layout)?;
                }
            }
        }
    }
    sets::regions(given, used, layout)?;
    for device in given.unrequested() {
        for partition in Partition::ALL {
            let size = left(tree, device, partition, used);
            let sharing = used.get(usize::from(device.0)).and_then(|used| used.sharing(partition));
            let window = sharing.map(|sharing| sharing.window);
            let in_sets = window.is_some() && policy.width_of(window) != Width::Flat;
            if size > 0 && !in_sets {
                let by = if window.is_some() { By::Width } else { By::Fit };
                let want = Want { window, by, ..Want::flat(given, device, partition, size) };
                place(given, &want, used, layout)?;
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
pub(super) fn left(tree: Tree<'_>, id: NodeId, partition: Partition, used: &[NodeUse]) -> u64 {
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
    used: &[NodeUse],
) -> Result<Option<Want>, Error> {
    let Request { device: path, partition, window, offset, size, skip } = *request;
    if size == Some(0) {
        return Ok(None);
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
    let flat = Want::flat(given, device, partition, size);
    Ok(Some(Want { window, by, offset, skip, reason, ..flat }))
}

/// Finds the one window that fits, and takes the place in it.
pub(super) fn place(
    given: &Given<'_>,
    want: &Want,
    used: &mut [NodeUse],
    layout: &mut Layout<'_>,
) -> Result<(), Error> {
    if !want.size.is_multiple_of(DECODER_UNIT) {
        let (device, what, value) = (want.path, Unaligned::Memory, want.size);
        return Err(what.error(device, value));
    }
    let coherencies = match (want.shape, want.members.first()) {
        (Some((_, coherency)), _) => Vec::from([coherency]),
        (None, Some(&device)) => models(given.tree, device)?.coherencies,
        (None, None) => return Ok(()),
    };
    let Given { platform, policy, .. } = *given;
    let Layout { regions, refusals } = layout;
    let ask = want.ask();
    let judge = |window: &Window| {
        let earlier = |span| earlier(want, span, regions);
        fit::judge(platform, policy, &ask, window, &coherencies, earlier)
    };
    let mut best: Option<Fit> = None;
    let mut second: Option<Hpa> = None;
    let mut fit_count = 0u16;
    let mut closest = None;
    for window in platform.windows {
        match judge(window) {
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
            Err(why) => {
                let how_far = (why.stage(), Reverse((window.base, window.size)));
                if closest.is_none_or(|(before, _)| how_far > before) {
                    closest = Some((how_far, why));
                }
            }
        }
    }
    let Want { path, partition, size, skip, reason, by, .. } = *want;
    let fit = match (best, second) {
        (Some(fit), None) => fit,
        (best, second) => {
            for window in fit::ascending(platform.windows) {
                if let Err(why) = judge(window) {
                    refusals.add(Refused { window: window.base, why });
                }
            }
            return Err(match (best, second, want.window) {
                (Some(fit), Some(second), _) => {
                    let (first, fit) = (fit.window, fit_count);
                    Code::PLAN_AMBIGUOUS
                        .at(path)
                        .halves(partition, fit)
                        .expected(first)
                        .found(second)
                }
                (_, _, window) => no_place(path, partition, size, window, closest),
            });
        }
    };
    let (window, coherency, members) = (fit.window, fit.coherency, want.members.clone());
    let span = Span::new(fit.base, size).map_err(|_| {
        let (device, need, have) = (path, size, 0u8);
        Code::PLAN_WINDOW_TOO_SMALL.at(Place::in_window(device, window)).expected(need).found(have)
    })?;
    let levels = want.shape.map_or_else(|| levels(fit.interleave), |(levels, _)| levels);
    for &member in &members {
        if let Some(used) = used_mut(used, member) {
            used.take(partition, (size / members.len() as u64).saturating_add(skip));
        }
    }
    let (fixed, order) = (want.offset.is_some(), regions.len() as u16);
    let region = Placed {
        window,
        span,
        levels,
        coherency,
        partition,
        reason,
        by,
        fixed,
        order,
        skip,
        members,
    };
    let at = regions.partition_point(|other| other.span.base() < span.base());
    let have = regions.room();
    regions.insert(at, region).map_err(|_| Count::Regions.exceeded(have))
}

/// How far a window came, the lowest of those first, and what stopped it.
type Closest = ((Stage, Reverse<(Option<Hpa>, u64)>), Unfit);

/// Why there is no place: what stopped the window that came furthest.
fn no_place(
    device: Path,
    partition: Partition,
    need: u64,
    window: Option<Hpa>,
    closest: Option<Closest>,
) -> Error {
    let error = closest.and_then(|((_, Reverse((base, _))), why)| why.error(device, base));
    error.unwrap_or(match window {
        Some(window) => Code::PLAN_UNKNOWN_WINDOW.at(device).found(window),
        None => Code::PLAN_NO_WINDOW.at(device).detail(partition).expected(need),
    })
}

/// What lies in a window's range already, as seen by what has to find a place.
fn earlier<'a>(
    want: &'a Want,
    window: Span,
    placed: &'a [Placed],
) -> impl Iterator<Item = Earlier> + Clone + 'a {
    let first = placed.partition_point(|region| region.span.end() <= window.base());
    let inside = placed.iter().skip(first).take_while(move |region| region.span.overlaps(window));
    inside.map(|region| Earlier {
        span: region.span,
        partition: region.partition,
        related: region.members.iter().any(|id| want.members.contains(id)),
    })
}

/// Levels of one way each. Their granularity means nothing, but older Linux kernels compare it.
fn levels(root: Interleave) -> Levels {
    let level = Interleave::new(Ways::One, root.granularity);
    Levels { root, bridge: level, switch: level }
}

/// What a device's memory may be, as far as coherency goes.
pub(super) struct Models {
    /// The coherency models that it can be programmed for, preferred first.
    pub(super) coherencies: Vec<Coherency, 3>,
    /// It is an accelerator that can do back-invalidate.
    pub(super) back_invalidate: bool,
    /// The first component of its path, itself included, that cannot.
    pub(super) gap: Option<NodeId>,
}

/// The coherency models of a device.
///
/// Its capability register may say (Supported Coherency Models); where it does not, its class does.
/// A memory expander is host-only wherever it may be, and has no CXL.cache to be coherent through;
/// an accelerator is what it was built for. Back-invalidate needs every component of the path.
pub(super) fn models(tree: Tree<'_>, id: NodeId) -> Result<Models, Error> {
    let mut list = Vec::new();
    let Some((node, device)) = tree.get(id).and_then(|node| Some((node, node.device()?))) else {
        return Ok(Models { coherencies: list, back_invalidate: false, gap: None });
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
    let gap = tree.upwards(id).find(|(_, node)| {
        node.back_invalidate.is_none() && !matches!(node.kind, NodeKind::HostBridge { .. })
    });
    let gap = gap.map(|(at, _)| at);
    if coherent {
        let through_cache = !expander && node.back_invalidate.is_none_or(|bi| bi.hdm_d);
        match gap {
            None => {
                let _ = list.push(Coherency::BackInvalidate);
            }
            Some(at) if !host && !through_cache => {
                let (device, at) = (tree.path(id), tree.path(at));
                return Err(Code::PLAN_NO_BACK_INVALIDATE.at(device).above(at));
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
    let back_invalidate = coherent && !expander && node.back_invalidate.is_some();
    Ok(Models { coherencies: list, back_invalidate, gap })
}
