//! Whether a window holds a region, and if not, why not: the one place that decides it.
//!
//! The planner takes a window because of what is decided here. [`refused`](super::PlanRef::refused) tells why a region
//! lies in no other window by deciding that again, on the same facts; where there is no plan,
//! [`Plan::refusals`](super::Plan::refusals) has what was decided. So what is told cannot drift from what was done.
//!
//! **Invariant**: a window is judged by the platform, the policy and what was placed before, and
//! the reason is the first that speaks against it in the order of [`Unfit::stage`].

use core::fmt;

use cxl_regs::{Coherency, DECODER_UNIT, Hpa, Interleave, Size, Span, Ways};
use heapless::Vec;

use super::error::Unaligned;
use super::input::PlanInput;
use super::plural;
use crate::admits;
use crate::coherency;
use crate::error::{Code, Error, Place};
use crate::platform::{Platform, Window};
use crate::policy::{Policy, TargetSystem, Width};
use crate::topology::{NodeId, Partition, Path};
use crate::window_check;
pub(super) use crate::window_check::ascending;

/// Why a window does not hold a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are named for what they hold; Display says it in words")]
#[non_exhaustive]
pub enum Unfit {
    /// It does not lead to the device's bridge.
    NotATarget { uid: u32 },
    /// The policy asks for another one.
    NotAsked { asked: Hpa },
    /// It fits as well, and the policy prefers another one.
    NotPreferred { preferred: Hpa },
    /// The platform found no place for it.
    Unplaced { size: u64 },
    /// With best effort: it makes no sense, and is left alone.
    Broken { error: Error },
    /// Its base is not a multiple of 256 MiB.
    Unaligned { base: Hpa },
    /// It has no bytes.
    Empty { need: u64 },
    /// It ends beyond the physical address width.
    BeyondAddressWidth { size: u64, bits: u8 },
    /// It interleaves and a flat mapping was asked for.
    Interleaved { ways: Ways },
    /// It does not admit this kind of memory.
    MediaNotAllowed { partition: Partition },
    /// It does not admit this kind of coherency.
    CoherencyNotAllowed { coherency: Coherency },
    /// It is smaller than what it would have to hold.
    TooSmall { need: u64, have: u64 },
    /// It ends at a hole, and decoders would reach into it: more than Linux takes.
    LinuxHole { need: u64, have: u64 },
    /// It interleaves, and the device got into no set.
    NoSet { ways: Ways },
    /// It is large enough, but what was left of it is not.
    Full { need: u64, free: u64 },
    /// The place asked for reaches beyond it or overlaps another region.
    PlaceTaken { offset: u64, size: u64 },
    /// It had room only below the device's volatile memory, and decoders go up in HPA and DPA
    /// together.
    DpaOrder { lower: Hpa, higher: Hpa },
    /// It has room only below what a component on the way leads to already, and decoders go up in HPA.
    HpaOrder { lower: Hpa, higher: Hpa },
}

/// The order in which a window is judged. Where no window fits, the one that came furthest tells
/// why.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Asked,
    Placed,
    Reachable,
    Flat,
    Media,
    Coherency,
    Size,
    Space,
}

impl Unfit {
    /// How far the window came.
    pub(super) const fn stage(self) -> Stage {
        match self {
            Self::NotATarget { .. } | Self::NotAsked { .. } | Self::NotPreferred { .. } => {
                Stage::Asked
            }
            Self::Unplaced { .. }
            | Self::Broken { .. }
            | Self::Unaligned { .. }
            | Self::Empty { .. } => Stage::Placed,
            Self::BeyondAddressWidth { .. } => Stage::Reachable,
            Self::Interleaved { .. } => Stage::Flat,
            Self::MediaNotAllowed { .. } => Stage::Media,
            Self::CoherencyNotAllowed { .. } => Stage::Coherency,
            Self::TooSmall { .. } | Self::LinuxHole { .. } | Self::NoSet { .. } => Stage::Size,
            Self::Full { .. }
            | Self::PlaceTaken { .. }
            | Self::DpaOrder { .. }
            | Self::HpaOrder { .. } => Stage::Space,
        }
    }

    /// The refusal of the whole plan that this is where no window came further; `None` for a window
    /// that does not come into question.
    pub(super) fn error(self, device: Path, window: Option<Hpa>) -> Option<Error> {
        // One that has no base comes no further than to that.
        let base = window.unwrap_or_default();
        Some(match self {
            Self::NotATarget { .. } | Self::NotAsked { .. } | Self::NotPreferred { .. } => {
                return None;
            }
            Self::Unplaced { size } => Code::PLAN_UNPLACED.at(device).found(size),
            Self::Broken { error } => {
                Code::PLAN_WINDOW_BROKEN.at(Place::in_window(device, base)).window_error(error)
            }
            Self::Unaligned { base } => Unaligned::WindowBase.error(device, base.0),
            Self::Empty { need } => Code::PLAN_WINDOW_TOO_SMALL
                .at(Place::in_window(device, base))
                .expected(need)
                .found(0u8),
            Self::BeyondAddressWidth { size, bits } => {
                Code::PLAN_BEYOND_ADDRESS_WIDTH.at(Place::window(window)).expected(bits).found(size)
            }
            Self::Interleaved { ways } | Self::NoSet { ways } => {
                Code::PLAN_INTERLEAVED.at(device).detail(ways).found(base)
            }
            Self::MediaNotAllowed { partition } => {
                Code::PLAN_MEDIA_NOT_ALLOWED.at(device).detail(partition).found(base)
            }
            Self::CoherencyNotAllowed { coherency } => {
                Code::PLAN_COHERENCY_NOT_ALLOWED.at(device).detail(coherency).found(base)
            }
            Self::TooSmall { need, have } => Code::PLAN_WINDOW_TOO_SMALL
                .at(Place::in_window(device, base))
                .expected(need)
                .found(have),
            Self::LinuxHole { need, have } => {
                Code::PLAN_LINUX_HOLE.at(Place::in_window(device, base)).expected(need).found(have)
            }
            Self::Full { need, free } => {
                Code::PLAN_WINDOW_FULL.at(Place::in_window(device, base)).expected(need).found(free)
            }
            Self::PlaceTaken { offset, size } => Code::PLAN_PLACE_TAKEN
                .at(Place::in_window(device, base))
                .expected(size)
                .found(offset),
            Self::DpaOrder { lower, higher } => {
                Code::PLAN_DPA_ORDER.at(device).expected(higher).found(lower)
            }
            Self::HpaOrder { lower, higher } => {
                Code::PLAN_HPA_ORDER.at(device).expected(higher).found(lower)
            }
        })
    }
}

/// What speaks against a window; the sentence starts with the window, however the reader calls it.
impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotATarget { uid } => write!(f, "does not lead to bridge {uid}"),
            Self::NotAsked { asked } => {
                write!(f, "is not the one asked for: the policy names {asked}")
            }
            Self::NotPreferred { preferred } => {
                write!(f, "would hold it too, and the policy prefers {preferred}")
            }
            Self::Unplaced { size } => {
                write!(f, "has no base: the platform found no place for its {}", Size(size))
            }
            Self::Broken { error } => write!(f, "cannot be used: {error}"),
            Self::Unaligned { base } => {
                write!(f, "starts at {base}, no multiple of {}", Size(DECODER_UNIT))
            }
            Self::Empty { need } => write!(f, "has no bytes, {} are needed", Size(need)),
            Self::BeyondAddressWidth { size, bits } => write!(
                f,
                "ends, with its {}, beyond the physical address width of {bits} bits",
                Size(size)
            ),
            Self::Interleaved { ways } => {
                let s = plural(ways.count());
                write!(f, "interleaves {ways} bridge{s}, a flat one is needed")
            }
            Self::MediaNotAllowed { partition } => write!(f, "admits no {partition} memory"),
            Self::CoherencyNotAllowed { coherency } => write!(f, "admits no {coherency} memory"),
            Self::TooSmall { need, have } => {
                write!(f, "has {}, {} are needed", Size(have), Size(need))
            }
            Self::LinuxHole { need, have } => write!(
                f,
                "has {} up to a hole, and Linux refuses decoders of {} that reach into it",
                Size(have),
                Size(need)
            ),
            Self::NoSet { ways } => {
                let s = plural(ways.count());
                write!(f, "interleaves {ways} bridge{s}, and the device got into no set")
            }
            Self::Full { need, free } => {
                write!(f, "had {} left in one piece, {} are needed", Size(free), Size(need))
            }
            Self::PlaceTaken { offset, size } => write!(
                f,
                "does not have {} at offset {offset:#x}: they reach beyond it or overlap another \
                 region",
                Size(size)
            ),
            Self::DpaOrder { lower, higher } => write!(
                f,
                "has room at {lower} only, below the device's volatile memory at {higher}"
            ),
            Self::HpaOrder { lower, higher } => write!(
                f,
                "has room at {lower} only, and decoders on the way lead to addresses up to {higher} \
                 already"
            ),
        }
    }
}

/// A window that a region does not lie in, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Base of the window; `None` for one that the platform found no place for.
    pub window: Option<Hpa>,
    /// What spoke against it.
    pub why: Unfit,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.window {
            Some(base) => write!(f, "window {base} {}", self.why),
            None => write!(f, "a window {}", self.why),
        }
    }
}

/// The windows that were refused for the region that has no place.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    list: Vec<Refused, 16>,
    more: u16,
}

impl Refusals {
    /// None.
    pub const fn new() -> Self {
        Self { list: Vec::new(), more: 0 }
    }

    /// The windows by ascending base.
    pub fn list(&self) -> &[Refused] {
        &self.list
    }

    /// How many did not fit into the list.
    pub const fn more(&self) -> u16 {
        self.more
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    pub(super) fn add(&mut self, refused: Refused) {
        if self.list.push(refused).is_err() {
            self.more = self.more.saturating_add(1);
        }
    }
}

/// How a region came to its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// It was the only one that fits.
    Fit,
    /// A request names it.
    Request,
    /// It has the place where the region was before.
    Earlier,
    /// The policy gives windows a width: the only one that fits the device, or the only one of
    /// them that has a width of its own. See [`Choice`].
    Width,
    /// A request names its members, or window and members.
    Members,
}

/// What has to find a place, as a window sees it.
#[derive(Clone, Copy)]
pub(super) struct Ask {
    /// Of the device's bridge.
    pub(super) uid: u32,
    pub(super) partition: Partition,
    /// The window that the policy names.
    pub(super) window: Option<Hpa>,
    pub(super) offset: Option<u64>,
    /// Bytes of all members together.
    pub(super) size: u64,
    /// Whether it is a set, not a device alone.
    pub(super) set: bool,
    /// How many devices share it.
    pub(super) members: u32,
    /// Where the decoders end that are there already on its way.
    pub(super) above: Hpa,
}

/// A region that was placed before, as [`find_place`] sees it.
#[derive(Clone, Copy)]
pub(super) struct Earlier {
    pub(super) span: Span,
    pub(super) partition: Partition,
    /// Whether it has a device in common with what has to find a place.
    pub(super) related: bool,
}

/// Whether the window comes into question, whatever lies in it already.
#[inline(never)]
pub(super) fn admit(
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    ask: &Ask,
    window: &Window,
    coherencies: &[Coherency],
) -> Result<(Coherency, Span), Unfit> {
    let (size, ways) = (window.size, window.interleave.ways);
    let (partition, need) = (ask.partition, ask.size);
    if !window.targets.contains(&ask.uid) {
        return Err(Unfit::NotATarget { uid: ask.uid });
    }
    if let Some(asked) = ask.window.filter(|asked| Some(*asked) != window.base) {
        return Err(Unfit::NotAsked { asked });
    }
    if let Some(error) = window_check::broken(platform, policy.on_failure, window) {
        return Err(Unfit::Broken { error });
    }
    let base = platform.base_of(window).ok_or(Unfit::Unplaced { size })?;
    if !base.0.is_multiple_of(DECODER_UNIT) {
        return Err(Unfit::Unaligned { base });
    }
    if size == 0 {
        return Err(Unfit::Empty { need });
    }
    let bits = platform.address_bits;
    let beyond = Unfit::BeyondAddressWidth { size, bits };
    let span = Span::new(base, size).map_err(|_| beyond)?;
    if span.end().0 > 1u64.checked_shl(bits.into()).unwrap_or(u64::MAX) {
        return Err(beyond);
    }
    if ways != Ways::One && !ask.set && policy.width_of(window.base) == Width::Flat {
        return Err(Unfit::Interleaved { ways });
    }
    if !admits::partition(window.restrictions, partition) {
        return Err(Unfit::MediaNotAllowed { partition });
    }
    let admitted = |coherency: &Coherency| admits::coherency(window.restrictions, *coherency);
    let Some(coherency) = coherencies.iter().copied().find(admitted) else {
        let coherency = coherencies.first().copied().unwrap_or(Coherency::HostOnly);
        return Err(Unfit::CoherencyNotAllowed { coherency });
    };
    let have = platform.room(window, ask.members);
    if have < need {
        return Err(Unfit::TooSmall { need, have });
    }
    if size < need && policy.target == TargetSystem::Linux {
        return Err(Unfit::LinuxHole { need, have: size });
    }
    Ok((coherency, Span::new(base, have).map_err(|_| beyond)?))
}

/// A window that fits.
#[derive(Clone, Copy)]
pub(super) struct FittingWindow {
    pub(super) window: Hpa,
    /// What the platform sends there.
    pub(super) whole: Span,
    /// Where the region would lie.
    pub(super) base: Hpa,
    pub(super) interleave: Interleave,
    pub(super) coherency: Coherency,
}

/// Whether the window holds the region, and where. `placed` gives, for a window's range, what was
/// placed there before, by ascending address.
pub(super) fn judge<I: Iterator<Item = Earlier> + Clone>(
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    ask: &Ask,
    window: &Window,
    coherencies: &[Coherency],
    placed: impl FnOnce(Span) -> I,
) -> Result<FittingWindow, Unfit> {
    let (coherency, span) = admit(platform, policy, ask, window, coherencies)?;
    let interleave = window.interleave;
    // Where sets are wanted, a device that got into none was kept out by something before this.
    if interleave.ways != Ways::One && !ask.set {
        return Err(Unfit::NoSet { ways: interleave.ways });
    }
    let base = find_place(ask, span, placed(span))?;
    let whole = window.span().unwrap_or(span);
    Ok(FittingWindow { window: span.base(), whole, base, interleave, coherency })
}

/// The place asked for, or the first gap that is large enough and lies above the volatile memory of
/// the same devices, if that is in the window. Volatile memory above a persistent range of a fixed
/// place is refused later, when DPA is dealt out.
fn find_place(
    ask: &Ask,
    window: Span,
    placed: impl Iterator<Item = Earlier> + Clone,
) -> Result<Hpa, Unfit> {
    let need = ask.size;
    let taken = placed.clone().map(|region| region.span);
    if let Some(offset) = ask.offset {
        let error = Unfit::PlaceTaken { offset, size: need };
        let at = Hpa(window.base().0.checked_add(offset).ok_or(error)?);
        let span = Span::new(at, need).map_err(|_| error)?;
        let free = window.contains_span(span) && !taken.clone().any(|other| other.overlaps(span));
        return match free {
            true if at < ask.above => Err(Unfit::HpaOrder { lower: at, higher: ask.above }),
            true => Ok(at),
            false => Err(error),
        };
    }
    let (start, end) = (window.base(), window.end());
    let (mut volatile_at, mut from) = (start, start.max(ask.above));
    for region in placed.filter(|region| region.related) {
        if region.partition < ask.partition {
            (volatile_at, from) = (region.span.base(), region.span.end().max(ask.above));
        }
    }
    first_gap(taken.clone(), from, end, need).map_err(|free| {
        match first_gap(taken, start, end, need) {
            // A place in the wrong order is no place, but it is another reason.
            Ok(lower) if lower < ask.above => Unfit::HpaOrder { lower, higher: ask.above },
            Ok(lower) => Unfit::DpaOrder { lower, higher: volatile_at },
            Err(_) => Unfit::Full { need, free },
        }
    })
}

/// The first gap of `need` bytes in a range, or else the size of the largest. What is taken comes
/// by ascending address.
fn first_gap(taken: impl Iterator<Item = Span>, from: Hpa, to: Hpa, need: u64) -> Result<Hpa, u64> {
    let (mut at, mut largest) = (from, 0);
    let ends = taken.map(|span| (span.base(), span.end()));
    for (base, end) in ends.chain(core::iter::once((to, to))) {
        let gap = base.0.saturating_sub(at.0);
        if gap >= need {
            return Ok(at);
        }
        largest = largest.max(gap);
        at = at.max(end);
    }
    Err(largest)
}

/// The choice of a device's window where the policy gives windows a width: whole devices are
/// judged, and a window with a width of its own goes before those without.
pub(super) struct Choice {
    ask: Ask,
    coherencies: Vec<Coherency, 3>,
    /// The lowest window that fits and has a width of its own.
    named: Option<Hpa>,
}

impl Choice {
    /// The choice for one partition of a device.
    #[inline(never)]
    pub(super) fn of(
        given: &PlanInput<'_>,
        device: NodeId,
        partition: Partition,
    ) -> Result<Self, Error> {
        let PlanInput { platform, tree, policy, .. } = *given;
        let size = tree.get(device).and_then(|n| n.device()).map_or(0, |d| d.capacity(partition));
        let uid = tree.path(device).uid();
        let (window, offset, set, members) = (None, None, false, 1);
        let above = Hpa(0);
        let ask = Ask { uid, partition, window, offset, size, set, members, above };
        let coherencies = coherency::models(tree, device)?.coherencies;
        let mut choice = Self { ask, coherencies, named: None };
        if !policy.windows.is_empty() {
            let fits = platform
                .windows
                .iter()
                .filter(|window| names(policy, window.base) && choice.judge(given, window).is_ok());
            choice.named = fits.filter_map(|window| window.base).min();
        }
        Ok(choice)
    }

    /// Whether a window admits the device, wherever it is to go, and its coherency there.
    pub(super) fn admits(
        &self,
        given: &PlanInput<'_>,
        window: &Window,
    ) -> Result<Coherency, Unfit> {
        let PlanInput { platform, policy, .. } = *given;
        admit(platform, policy, &self.ask, window, &self.coherencies)
            .map(|(coherency, _)| coherency)
    }

    /// Whether the device may go to a window, and its coherency there.
    pub(super) fn judge(&self, given: &PlanInput<'_>, window: &Window) -> Result<Coherency, Unfit> {
        let (policy, coherency) = (given.policy, self.admits(given, window)?);
        match self.named {
            Some(asked) if !names(policy, window.base) => Err(Unfit::NotAsked { asked }),
            _ => Ok(coherency),
        }
    }
}

/// Whether the policy gives the window a width of its own.
fn names(policy: &Policy<'_>, window: Option<Hpa>) -> bool {
    policy.windows.iter().any(|named| Some(named.window) == window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_beyond_the_list_is_counted() {
        let mut refusals = Refusals::new();
        for unit in 0..19 {
            let window = Some(Hpa(unit * DECODER_UNIT));
            refusals.add(Refused { window, why: Unfit::NotATarget { uid: 7 } });
        }
        assert_eq!((refusals.list().len(), refusals.more()), (16, 3));
    }
}
