//! Where each region goes: the choice of windows, and of the place in a window.
//!
//! **Invariant**: a choice is made only where there is exactly one, or where the policy says which it
//! prefers; else two windows that fit are a refusal.

use core::cmp::Reverse;

use cxl_regs::{Coherency, DECODER_UNIT, Hpa, Interleave, Levels, Span, Ways};
use heapless::Vec;

use super::error::{Count, Unaligned};
use super::fit::{self, Ask, By, Earlier, FittingWindow, Refusals, Refused, Stage, Unfit};
use super::input::{PlanInput, SetNowhere};
use super::node_use::{NodeUse, used_mut};
use super::{Reason, Region, Why};
use crate::coherency;
use crate::error::{Code, Error, Place};
use crate::list::{Empty, List};
use crate::platform::{Window, reached};
use crate::policy::OnFailure;
use crate::topology::{NodeId, Partition, Path, Tree};

/// A region that has its window and its place, but no DPA and no decoders yet.
#[derive(Clone, Debug)]
pub struct Placed {
    pub(super) region: Region,
    /// Bytes of each member's partition left out in front.
    pub(super) skip: u64,
    /// In order of position.
    pub(super) members: Vec<NodeId, 16>,
}

impl Empty for Placed {
    const EMPTY: Self = Self { region: Region::EMPTY, skip: 0, members: Vec::new() };
}

/// What has been placed, and where there was no place, why.
pub(super) struct Layout<'a> {
    /// By ascending address.
    pub(super) regions: List<'a, Placed>,
    pub(super) refusals: &'a mut Refusals,
    /// Where the rest may go on without it.
    pub(super) nowhere: Option<SetNowhere>,
}

/// What has to find a place.
pub(super) struct PendingRegion {
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

impl PendingRegion {
    /// A range for one device alone.
    pub(super) fn flat(
        given: &PlanInput<'_>,
        device: NodeId,
        partition: Partition,
        size: u64,
    ) -> Self {
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
        let (set, members) = (self.shape.is_some(), self.members.len() as u32);
        Ask { uid: path.uid(), partition, window, offset, size, set, members, above: Hpa(0) }
    }
}

/// Finds the one window that fits, and takes the place in it.
pub(super) fn place(
    given: &PlanInput<'_>,
    want: &PendingRegion,
    used: &mut [NodeUse],
    layout: &mut Layout<'_>,
) -> Result<(), Error> {
    if !want.size.is_multiple_of(DECODER_UNIT) {
        let (device, what, value) = (want.path, Unaligned::Memory, want.size);
        return Err(what.error(device, value));
    }
    let coherencies = match (want.shape, want.members.first()) {
        (Some((_, coherency)), _) => Vec::from([coherency]),
        (None, Some(&device)) => coherency::models(given.tree, device)?.coherencies,
        (None, None) => return Ok(()),
    };
    let PlanInput { platform, policy, .. } = *given;
    let Layout { regions, refusals, .. } = layout;
    let ask = Ask { above: above(given.tree, want.members.iter().copied(), used), ..want.ask() };
    let judge = |window: &Window| {
        let earlier = |span| earlier(&want.members, span, regions);
        fit::judge(platform, policy, &ask, window, &coherencies, earlier)
    };
    let mut best: Option<FittingWindow> = None;
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
            Err(why) => come_closer(&mut closest, window, why),
        }
    }
    let PendingRegion { path, partition, size, skip, reason, by, .. } = *want;
    let fit = match (best, second) {
        (Some(fit), None) => fit,
        (Some(fit), Some(_)) if policy.prefer.is_some() => fit,
        (best, second) => {
            for window in fit::ascending(platform.windows) {
                if let Err(why) = judge(window) {
                    refusals.add(Refused { window: platform.base_of(window), why });
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
    let region = Region {
        window,
        span,
        levels,
        coherency,
        partition,
        reason,
        by,
        fixed,
        order,
        reached: reached(span, fit.whole),
        ..Region::EMPTY
    };
    let at = regions.partition_point(|other| other.region.span.base() < span.base());
    let have = regions.room();
    regions.insert(at, Placed { region, skip, members }).map_err(|_| Count::Regions.exceeded(have))
}

/// How far a window came, the lowest of those first, and what stopped it.
pub(super) type Closest = ((Stage, Reverse<(Option<Hpa>, u64)>), Unfit);

/// Takes note of what stopped a window, if it is the one that came furthest.
pub(super) fn come_closer(closest: &mut Option<Closest>, window: &Window, why: Unfit) {
    let how_far = (why.stage(), Reverse((window.base, window.size)));
    if closest.is_none_or(|(before, _)| how_far > before) {
        *closest = Some((how_far, why));
    }
}

/// Where the decoders end that components on the way of some nodes have already: none, where all of a
/// machine is planned.
pub(super) fn above(
    tree: Tree<'_>,
    nodes: impl IntoIterator<Item = NodeId>,
    used: &[NodeUse],
) -> Hpa {
    let ways = nodes.into_iter().flat_map(|id| tree.upwards(id));
    let ends = ways.filter_map(|(id, _)| used.get(usize::from(id.0))).map(|used| used.hpa_end);
    ends.max().unwrap_or_default()
}

/// Why there is no place: what stopped the window that came furthest.
pub(super) fn no_place(
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
pub(super) fn earlier<'a>(
    wanted: &'a [NodeId],
    window: Span,
    placed: &'a [Placed],
) -> impl Iterator<Item = Earlier> + Clone + 'a {
    let first = placed.partition_point(|other| other.region.span.end() <= window.base());
    let above = placed.iter().skip(first);
    let inside = above.take_while(move |other| other.region.span.overlaps(window));
    inside.map(|other| Earlier {
        span: other.region.span,
        partition: other.region.partition,
        related: other.members.iter().any(|id| wanted.contains(id)),
    })
}

/// Levels of one way each. Their granularity means nothing, but older Linux kernels compare it.
fn levels(root: Interleave) -> Levels {
    let level = Interleave::new(Ways::One, root.granularity);
    Levels { root, bridge: level, switch: level }
}

/// Whether a device goes on where one kind of its memory cannot be used: it has another one, which the policy
/// wants.
#[inline(never)]
pub(super) fn has_other(
    given: &PlanInput<'_>,
    device: NodeId,
    partition: Partition,
    used: &NodeUse,
) -> bool {
    let Some(found) = given.tree.get(device).and_then(|node| node.device()) else { return false };
    let mut others = Partition::ALL.into_iter().filter(|other| *other != partition);
    others.any(|other| {
        found.capacity(other) > 0
            && used.withheld(other).is_none()
            && given.is_asked_for(device, other)
    })
}

/// Where the rest may go on, what is refused of one kind of a device's memory does not cost the other:
/// withholds it, so that the plan is made without.
#[inline(never)]
pub(super) fn withhold_refused(
    given: &PlanInput<'_>,
    device: NodeId,
    partition: Partition,
    used: &mut [NodeUse],
    error: Error,
) -> Error {
    let best_effort = cfg!(feature = "degrade") && given.policy.on_failure == OnFailure::BestEffort;
    if let Some(used) = used_mut(used, device)
        && best_effort
        && error.code != Code::PLAN_CAPACITY
    {
        match has_other(given, device, partition, used) {
            true => used.withhold(partition, Why::Refused { code: error.code() }),
            // Without either it is the device that has no place.
            false => used.withhold_nothing(),
        }
    }
    error
}
