//! Where each region goes: the choice of windows, and of the place in a window.
//!
//! **Invariant**: a choice is made only where there is exactly one; two windows that fit are a
//! refusal, not a preference.

use cxl_regs::{Coherency, DECODER_UNIT, Hpa, Interleave, Levels, Span, Ways};
use heapless::Vec;

use super::error::{Count, PlanError};
use super::{Used, used_mut};
use crate::platform::{Platform, Window};
use crate::policy::{Policy, Request};
use crate::topology::{NodeId, NodeKind, Partition, Path, Tree};

/// A region that has its window and its place, but no DPA and no decoders yet.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) window: u64,
    pub(super) span: Span,
    pub(super) levels: Levels,
    pub(super) coherency: Coherency,
    pub(super) partition: Partition,
    /// In order of position.
    pub(super) members: Vec<NodeId, 16>,
}

/// What has to find a place.
#[derive(Clone, Copy)]
struct Want {
    device: NodeId,
    path: Path,
    partition: Partition,
    window: Option<u64>,
    offset: Option<u64>,
    size: u64,
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
    platform: &Platform<'_>,
    tree: Tree<'_>,
    policy: &Policy<'_>,
    devices: &[NodeId],
    used: &mut [Used],
    placed: &mut Vec<Placed, R>,
) -> Result<(), PlanError> {
    for request in policy.requests {
        tree.device_at(&request.device)
            .ok_or(PlanError::UnknownDevice { device: request.device })?;
    }
    // Fixed places first: what may go anywhere goes round them.
    for fixed in [true, false] {
        for &device in devices {
            let path = tree.path(device);
            let mut asked = false;
            for request in policy.requests.iter().filter(|request| request.device == path) {
                asked = true;
                if request.offset.is_some() == fixed {
                    let want = requested(tree, device, request, used)?;
                    place(platform, tree, &want, used, placed)?;
                }
            }
            if asked || fixed {
                continue;
            }
            for partition in [Partition::Volatile, Partition::Persistent] {
                let size = left(tree, device, partition, used);
                if size > 0 {
                    let want = Want { device, path, partition, window: None, offset: None, size };
                    place(platform, tree, &want, used, placed)?;
                }
            }
        }
    }
    Ok(())
}

/// Bytes of a partition that no region has taken.
pub(super) fn left(tree: Tree<'_>, id: NodeId, partition: Partition, used: &[Used]) -> u64 {
    let capacity =
        tree.get(id).and_then(|node| node.device()).map_or(0, |device| device.capacity(partition));
    let taken = used.get(usize::from(id.0)).map_or(0, |used| used.taken(partition));
    capacity.saturating_sub(taken)
}

fn requested(
    tree: Tree<'_>,
    device: NodeId,
    request: &Request,
    used: &[Used],
) -> Result<Want, PlanError> {
    let Request { device: path, partition, window, offset, size } = *request;
    let left = left(tree, device, partition, used);
    let size = size.unwrap_or(left);
    if size == 0 || size > left {
        return Err(PlanError::RequestTooLarge { device: path, partition, asked: size, left });
    }
    for value in [size, offset.unwrap_or(0)] {
        if !value.is_multiple_of(DECODER_UNIT) {
            return Err(PlanError::Unaligned { device: path, value, unit: DECODER_UNIT });
        }
    }
    Ok(Want { device, path, partition, window, offset, size })
}

/// Finds the one window that fits, and takes the place in it.
fn place<const R: usize>(
    platform: &Platform<'_>,
    tree: Tree<'_>,
    want: &Want,
    used: &mut [Used],
    placed: &mut Vec<Placed, R>,
) -> Result<(), PlanError> {
    if !want.size.is_multiple_of(DECODER_UNIT) {
        return Err(PlanError::Unaligned {
            device: want.path,
            value: want.size,
            unit: DECODER_UNIT,
        });
    }
    let coherencies = coherencies(tree, want.device)?;
    let mut best: Option<Fit> = None;
    let mut second: Option<u64> = None;
    let mut fit_count = 0u16;
    let mut closest: Option<(Stage, u64, PlanError)> = None;
    for window in platform.windows {
        if !window.targets.contains(&want.path.uid()) {
            continue;
        }
        if want.window.is_some_and(|base| base != window.base) {
            continue;
        }
        match judge(platform, want, window, &coherencies, placed) {
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
                let further = closest.as_ref().is_none_or(|(so_far, base, _)| {
                    (stage, core::cmp::Reverse(window.base)) > (*so_far, core::cmp::Reverse(*base))
                });
                if further {
                    closest = Some((stage, window.base, error));
                }
            }
        }
    }
    let Want { device, path, partition, size, .. } = *want;
    let fit = match (best, second) {
        (Some(fit), None) => fit,
        (Some(fit), Some(second)) => {
            let (first, fit) = (fit.window, fit_count);
            return Err(PlanError::Ambiguous { device: path, partition, first, second, fit });
        }
        (None, _) => {
            return Err(match (closest, want.window) {
                (Some((_, _, error)), _) => error,
                (None, Some(window)) => PlanError::UnknownWindow { device: path, window },
                (None, None) => PlanError::NoWindow { device: path, partition, need: size },
            });
        }
    };
    let span = Span::new(Hpa(fit.base), size).map_err(|_| PlanError::WindowTooSmall {
        device: path,
        window: fit.window,
        need: size,
        have: 0,
    })?;
    let levels = levels(path, fit.interleave)?;
    let mut members = Vec::new();
    // One member: a list of sixteen has room.
    let _ = members.push(device);
    let region =
        Placed { window: fit.window, span, levels, coherency: fit.coherency, partition, members };
    let at = placed.partition_point(|other| other.span.base() < span.base());
    placed.insert(at, region).map_err(|_| PlanError::Capacity { what: Count::Regions, have: R })?;
    if let Some(used) = used_mut(used, device) {
        used.take(partition, size);
    }
    Ok(())
}

/// Ways and granularity of every level. A level below takes the bits above its parent's; where it
/// has one way its granularity means nothing, but older Linux kernels compare it all the same.
fn levels(device: Path, root: Interleave) -> Result<Levels, PlanError> {
    let child = |parent: Interleave| {
        let granularity = Levels::child_granularity(parent).unwrap_or(parent.granularity);
        Interleave::new(Ways::One, granularity)
    };
    let bridge = child(root);
    let levels = Levels { root, bridge, switch: child(bridge) };
    levels.device().map_err(|error| PlanError::Compose { device, error })?;
    Ok(levels)
}

/// Whether the window fits, and where in it the region would lie.
fn judge<const R: usize>(
    platform: &Platform<'_>,
    want: &Want,
    window: &Window,
    coherencies: &[Coherency],
    placed: &Vec<Placed, R>,
) -> Result<Fit, (Stage, PlanError)> {
    let (device, base, size) = (want.path, window.base, window.size);
    if base == 0 {
        return Err((Stage::Placed, PlanError::Unplaced { device, size }));
    }
    let span = reachable(platform, window).map_err(|error| (Stage::Reachable, error))?;
    let ways = window.interleave.ways;
    if ways != Ways::One {
        return Err((Stage::Flat, PlanError::Interleaved { device, window: base, ways }));
    }
    let partition = want.partition;
    let media = match partition {
        Partition::Volatile => window.restrictions.volatile(),
        Partition::Persistent => window.restrictions.persistent(),
    };
    if !media {
        let error = PlanError::MediaNotAllowed { device, window: base, partition };
        return Err((Stage::Media, error));
    }
    let Some(&coherency) = coherencies.iter().find(|coherency| allows(window, **coherency)) else {
        let coherency = coherencies.first().copied().unwrap_or(Coherency::HostOnly);
        let error = PlanError::CoherencyNotAllowed { device, window: base, coherency };
        return Err((Stage::Coherency, error));
    };
    if size < want.size {
        let (need, have) = (want.size, size);
        let error = PlanError::WindowTooSmall { device, window: base, need, have };
        return Err((Stage::Size, error));
    }
    let at = find_place(want, span, placed).map_err(|error| (Stage::Space, error))?;
    Ok(Fit { window: base, base: at, interleave: window.interleave, coherency })
}

/// The window's range, if the CPU can address all of it.
fn reachable(platform: &Platform<'_>, window: &Window) -> Result<Span, PlanError> {
    let (base, size, bits) = (window.base, window.size, platform.address_bits);
    let beyond = PlanError::BeyondAddressWidth { window: base, size, bits };
    let span = Span::new(Hpa(base), size).map_err(|_| beyond)?;
    let top = 1u64.checked_shl(bits.into()).unwrap_or(u64::MAX);
    if span.end().0 > top { Err(beyond) } else { Ok(span) }
}

fn allows(window: &Window, coherency: Coherency) -> bool {
    let allowed = window.restrictions;
    match coherency {
        Coherency::HostOnly => allowed.host_only(),
        Coherency::Device => allowed.device_coherent(),
        Coherency::BackInvalidate => allowed.device_coherent() && allowed.back_invalidate(),
    }
}

/// The place asked for, or the first gap that is large enough.
fn find_place<const R: usize>(
    want: &Want,
    window: Span,
    placed: &Vec<Placed, R>,
) -> Result<u64, PlanError> {
    let (device, need) = (want.path, want.size);
    let first = placed.partition_point(|region| region.span.end() <= window.base());
    let inside = placed
        .iter()
        .skip(first)
        .map(|region| region.span)
        .take_while(|span| span.base() < window.end());
    if let Some(offset) = want.offset {
        let taken = PlanError::PlaceTaken { device, window: window.base().0, offset, size: need };
        let at = window.base().0.checked_add(offset).ok_or(taken)?;
        let span = Span::new(Hpa(at), need).map_err(|_| taken)?;
        let free = window.contains_span(span) && !inside.clone().any(|other| other.overlaps(span));
        return if free { Ok(at) } else { Err(taken) };
    }
    let mut at = window.base().0;
    let mut largest = 0;
    for region in inside {
        let gap = region.base().0.saturating_sub(at);
        if gap >= need {
            return Ok(at);
        }
        largest = largest.max(gap);
        at = region.end().0;
    }
    let gap = window.end().0.saturating_sub(at);
    if gap >= need {
        return Ok(at);
    }
    let free = largest.max(gap);
    Err(PlanError::WindowFull { device, window: window.base().0, need, free })
}

/// The coherency models the device can be programmed for, preferred first.
///
/// Its capability register may say; where it does not, its class does. Back-invalidate needs every
/// component of the path.
fn coherencies(tree: Tree<'_>, id: NodeId) -> Result<Vec<Coherency, 3>, PlanError> {
    use crate::topology::DeviceKind;

    let mut list = Vec::new();
    let Some((node, device)) = tree.get(id).and_then(|node| Some((node, node.device()?))) else {
        return Ok(list);
    };
    let models = node.hdm.map_or(0, |hdm| hdm.capability.coherency_models());
    let (host, coherent) = match (models, device.kind) {
        (1, _) => (false, true),
        (2, _) => (true, false),
        (3, DeviceKind::Type3) => (true, node.back_invalidate.is_some()),
        (3, DeviceKind::Type2) => (true, true),
        (_, DeviceKind::Type3) => (true, false),
        (_, DeviceKind::Type2) => (false, true),
    };
    // A memory expander is host-only wherever it may be; an accelerator is what it was built for.
    if host && device.kind == DeviceKind::Type3 {
        let _ = list.push(Coherency::HostOnly);
    }
    if coherent {
        match node.back_invalidate {
            Some(bi) => {
                let gap = tree.upwards(id).find(|(_, node)| {
                    node.back_invalidate.is_none()
                        && !matches!(node.kind, NodeKind::HostBridge { .. })
                });
                match gap {
                    None => {
                        let _ = list.push(Coherency::BackInvalidate);
                        if bi.hdm_d {
                            let _ = list.push(Coherency::Device);
                        }
                    }
                    Some(_) if bi.hdm_d => {
                        let _ = list.push(Coherency::Device);
                    }
                    Some(_) if host => {}
                    Some((at, _)) => {
                        let (device, at) = (tree.path(id), tree.path(at));
                        return Err(PlanError::NoBackInvalidate { device, at });
                    }
                }
            }
            None => {
                let _ = list.push(Coherency::Device);
            }
        }
    }
    if host && device.kind == DeviceKind::Type2 {
        let _ = list.push(Coherency::HostOnly);
    }
    Ok(list)
}
