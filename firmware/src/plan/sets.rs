//! Interleave sets: which devices share a region, in which order, and why they are that many.
//!
//! The window's ways lead to its host bridges and cannot be chosen; a bridge's lead to its root
//! ports, a switch's to its downstream ports. Each level looks at the address bits above those of
//! its parent, so the window varies fastest: the order in which Linux builds sets, and the only one
//! it takes over (drivers/cxl/core/region.c, cxl_port_setup_targets).
//!
//! **Invariant**: a set has as many members as its levels have ways, each a different device, at
//! the position that hardware gives it; and every component on the way can do its part.

use core::cmp::Ordering;

use cxl_regs::{
    Coherency, ComposeError, DECODER_UNIT, Decoder, Granularity, Hpa, Interleave, Levels, Route,
    Span, Targets, Ways,
};
use heapless::Vec;

use super::error::Unaligned;
use super::fit::{self, Ask, By, Choice, Refused, ascending};
use super::input::PlanInput;
use super::node_use::{NodeUse, Sharing, left, used_mut};
use super::place::{Layout, PendingRegion, has_other, place, withhold_refused};
use super::{Reason, Why, beside, coherency};
use crate::error::{Code, Error, Place};
use crate::platform::{Platform, Window};
use crate::policy::{
    BrokenSets, EarlierRange, OnFailure, Policy, Prefer, SetRequest, TargetSystem, Width,
};
use crate::topology::{NodeId, Partition, Path};

/// The way counts of a host bridge or switch, widest first.
const PORT_WAYS: [Ways; 4] = [Ways::Eight, Ways::Four, Ways::Two, Ways::One];

/// Plans every set that the policy asks for. Each device is marked with the window that it goes to,
/// whether or not a set needs all of its memory.
///
/// Where the policy prefers windows, they are gone through in its order, and what one forms no set of
/// goes on to the next.
#[inline(never)]
pub(super) fn regions(
    given: &PlanInput<'_>,
    used: &mut [NodeUse],
    layout: &mut Layout<'_>,
) -> Result<(), Error> {
    let PlanInput { platform, policy, tree, .. } = *given;
    if policy.width == Width::Flat && policy.windows.is_empty() {
        return Ok(());
    }
    if policy.prefer.is_none() {
        for device in given.unrequested_and_lost() {
            for partition in Partition::ALL {
                if left(tree, device, partition, used) > 0 {
                    let chosen = choose_window(given, device, partition, layout);
                    // One that is lost has no place to be refused.
                    let sharing = match tree.fault(device) {
                        Some(_) => chosen.unwrap_or(None),
                        None => chosen.map_err(|error| {
                            withhold_refused(given, device, partition, used, error)
                        })?,
                    };
                    share(used, device, partition, sharing);
                }
            }
        }
    }
    let mut refused = None;
    for window in preferred(platform, policy) {
        for partition in Partition::ALL {
            if policy.prefer.is_some() {
                for device in given.unrequested_and_lost() {
                    let sharing =
                        used.get(usize::from(device.0)).and_then(|u| u.sharing(partition));
                    if sharing.is_none() && left(tree, device, partition, used) > 0 {
                        let choice = Choice::of(given, device, partition);
                        let choice = match tree.fault(device) {
                            Some(_) => choice.ok(),
                            None => Some(choice?),
                        };
                        let fit = choice.and_then(|choice| choice.judge(given, window).ok());
                        let sharing = window.base.zip(fit);
                        let sharing =
                            sharing.map(|(window, coherency)| Sharing { window, coherency });
                        share(used, device, partition, sharing);
                    }
                }
            }
            if policy.width_of(window.base) == Width::Flat {
                continue;
            }
            for coherency in [Coherency::HostOnly, Coherency::BackInvalidate, Coherency::Device] {
                let (only, before) = (None, None);
                let of = Of::Sound;
                let former = Former { given, window, partition, coherency, only, before, of };
                let formed = former.form(used, layout);
                let unused = policy.on_failure == OnFailure::BestEffort
                    && policy.broken_sets == BrokenSets::Unused
                    && has_lost(given, window, partition, used);
                if let Err(error) = formed {
                    // Of a set that lost a member the rest may go elsewhere.
                    let broken = policy.on_failure == OnFailure::BestEffort
                        && policy.broken_sets != BrokenSets::Unused;
                    if policy.prefer.is_none() && !broken || unused {
                        let is_meant = |device, used: &[NodeUse]| former.is_candidate(device, used);
                        withhold(given, partition, used, &is_meant);
                        return Err(error);
                    }
                    refused = refused.or(Some(error));
                }
                if policy.prefer.is_none() && formed == Ok(true) {
                    continue;
                }
                for device in given.unrequested() {
                    let whole = former.is_candidate(device, used) && former.is_whole(device, used);
                    if whole && (formed.is_err() || goes_on(given, device, partition, window)) {
                        share(used, device, partition, None);
                    }
                }
            }
        }
    }
    // Where there is no flat window either, the first set that failed says more.
    let lone = |device: NodeId, partition: Partition, used: &[NodeUse]| {
        let sharing = used.get(usize::from(device.0)).and_then(|used| used.sharing(partition));
        let flat = |window: &Window| window.interleave.ways == Ways::One;
        sharing.is_none()
            && left(tree, device, partition, used) > 0
            && !fits(given, device, partition, &flat)
    };
    let Some(mut error) = refused else { return Ok(()) };
    let mut is_lone = false;
    for partition in Partition::ALL {
        is_lone |= given.unrequested().any(|device| lone(device, partition, used));
        let is_meant = |device, used: &[NodeUse]| lone(device, partition, used);
        withhold(given, partition, used, &is_meant);
        // Where the rest may go on, that costs the device that has nowhere to go, and not all those that the
        // window leads to.
        let alone = given.unrequested().find(|device| lone(*device, partition, used));
        if let Some(device) = alone.filter(|_| policy.on_failure == OnFailure::BestEffort) {
            let size = left(tree, device, partition, used);
            error = Code::PLAN_NO_WINDOW.at(tree.path(device)).detail(partition).expected(size);
        }
    }
    if is_lone { Err(error) } else { Ok(()) }
}

/// Whether memory that a window might have in a set was lost to a failure.
fn has_lost(
    given: &PlanInput<'_>,
    window: &Window,
    partition: Partition,
    used: &[NodeUse],
) -> bool {
    let tree = given.tree;
    tree.devices().any(|(id, device)| {
        let used = used.get(usize::from(id.0));
        let lost =
            tree.fault(id).is_some() || used.is_some_and(|u| u.withheld(partition).is_some());
        lost && device.capacity(partition) > 0 && window.targets.contains(&tree.path(id).uid())
    })
}

/// Withholds what no set can be made of and has nowhere else to go, of devices that have other memory: where
/// the rest may go on, that need not go with it.
#[inline(never)]
fn withhold(
    given: &PlanInput<'_>,
    partition: Partition,
    used: &mut [NodeUse],
    is_meant: &dyn Fn(NodeId, &[NodeUse]) -> bool,
) {
    if cfg!(not(feature = "degrade")) || given.policy.on_failure == OnFailure::Strict {
        return;
    }
    for device in given.unrequested() {
        if is_meant(device, used)
            && let Some(used) = used_mut(used, device)
            && has_other(given, device, partition, used)
        {
            used.withhold(partition, Why::Failed);
        }
    }
}

/// Whether a device that a window has no set for may go to one behind it in the policy's order, or have a
/// range of its own.
fn goes_on(given: &PlanInput<'_>, device: NodeId, partition: Partition, from: &Window) -> bool {
    let policy = given.policy;
    let behind = |window: &Window| {
        let later = policy.prefer.is_some() && rank(policy, window) > rank(policy, from);
        later || window.interleave.ways == Ways::One
    };
    fits(given, device, partition, &behind)
}

/// Whether a device fits one of some windows.
#[inline(never)]
fn fits(
    given: &PlanInput<'_>,
    device: NodeId,
    partition: Partition,
    some: &dyn Fn(&Window) -> bool,
) -> bool {
    let choice = Choice::of(given, device, partition);
    let fits = |window: &&Window| choice.as_ref().is_ok_and(|c| c.admits(given, window).is_ok());
    given.platform.windows.iter().filter(|window| some(window)).any(|window| fits(&window))
}

fn share(used: &mut [NodeUse], device: NodeId, partition: Partition, sharing: Option<Sharing>) {
    if let Some(used) = used_mut(used, device) {
        *used.sharing_mut(partition) = sharing;
    }
}

/// Where a window stands in the policy's order, the first one lowest.
pub(super) fn rank(policy: &Policy<'_>, window: &Window) -> (u32, Option<Hpa>) {
    let ways = window.interleave.ways.count();
    let ways = match policy.prefer {
        Some(Prefer::Widest) => u32::MAX - ways,
        Some(Prefer::Narrowest) => ways,
        Some(Prefer::Lowest) | None => 0,
    };
    (ways, window.base)
}

/// The windows in the policy's order, those at one base once.
fn preferred<'a>(platform: &Platform<'a>, policy: &Policy<'_>) -> impl Iterator<Item = &'a Window> {
    let (windows, policy) = (platform.windows, *policy);
    let mut last = None;
    core::iter::from_fn(move || {
        let keyed = windows.iter().map(|window| (rank(&policy, window), window));
        let (key, window) =
            keyed.filter(|(key, _)| Some(*key) > last).min_by_key(|(key, _)| *key)?;
        last = Some(key);
        Some(window)
    })
}

/// Plans the sets whose members the policy names: those with a fixed place, or the others.
#[inline(never)]
pub(super) fn named(
    given: &PlanInput<'_>,
    fixed: bool,
    used: &mut [NodeUse],
    layout: &mut Layout<'_>,
) -> Result<(), Error> {
    let some =
        || given.policy.sets.iter().enumerate().filter(|(_, set)| set.offset.is_some() == fixed);
    let mut last = None;
    loop {
        let mut next = None;
        for set in some() {
            let behind = last.is_none_or(|last| order(set, last).is_gt());
            if behind && next.is_none_or(|next| order(set, next).is_lt()) {
                next = Some(set);
            }
        }
        let Some((number, set)) = next else { return Ok(()) };
        last = next;
        let mut members = set.members.iter().filter_map(|path| given.tree.device_at(path));
        // What is in use already is not made again.
        let made = members.all(|id| beside::is_in_use(given.tree, id, used));
        if given.is_broken(set) || made {
            continue;
        }
        place_named(given, set, used, layout).inspect_err(|error| {
            let best_effort =
                cfg!(feature = "degrade") && given.policy.on_failure == OnFailure::BestEffort;
            if best_effort && error.code != Code::PLAN_CAPACITY {
                layout.nowhere = Some((number as u16, error.code));
            }
        })?;
    }
}

/// As with requests: the order of listing means nothing, and what takes all there is comes last.
#[inline(never)]
fn order(one: (usize, &SetRequest), other: (usize, &SetRequest)) -> Ordering {
    let key = |set: &SetRequest| (set.size.is_none(), set.partition, set.window, set.size);
    let first = |set: &SetRequest| set.members.iter().min().copied();
    let keys = key(one.1).cmp(&key(other.1));
    keys.then_with(|| first(one.1).cmp(&first(other.1))).then(one.0.cmp(&other.0))
}

/// Places one of them in the only window that can hold it, or that the policy prefers.
#[inline(never)]
fn place_named(
    given: &PlanInput<'_>,
    set: &SetRequest,
    used: &mut [NodeUse],
    layout: &mut Layout<'_>,
) -> Result<(), Error> {
    let PlanInput { platform, policy, .. } = *given;
    let Some(&first) = set.members.iter().min() else { return Ok(()) };
    let mut found: Option<(Shape, Former<'_>)> = None;
    let (mut second, mut refused, mut fits) = (None, None, 0u16);
    for window in preferred(platform, policy) {
        let targets = |member: &Path| window.targets.contains(&member.uid());
        let asked = set.window.is_none_or(|asked| Some(asked) == window.base);
        if !asked || !set.members.iter().all(targets) {
            continue;
        }
        match Former::of(given, set, window, used) {
            Ok(one) => {
                fits = fits.saturating_add(1);
                match found {
                    Some(_) => second = second.or(window.base),
                    None => found = Some(one),
                }
            }
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    let Some((shape, former)) = found else {
        let nowhere = match set.window {
            Some(window) => Code::PLAN_UNKNOWN_WINDOW.at(first).found(window),
            None => Code::PLAN_NO_WINDOW_FOR_SET.at(first).found(set.members.len()),
        };
        return Err(refused.unwrap_or(nowhere));
    };
    if let (Some(second), None) = (second, policy.prefer) {
        return Err(Code::PLAN_AMBIGUOUS
            .at(first)
            .halves(set.partition, fits)
            .expected(former.window.base.unwrap_or_default())
            .found(second));
    }
    former.place(shape, Reason::Members, None, used, layout)
}

/// The window that a device goes to, where a width was asked for: the only one that fits, or the
/// only one of them that the policy names.
fn choose_window(
    given: &PlanInput<'_>,
    device: NodeId,
    partition: Partition,
    layout: &mut Layout<'_>,
) -> Result<Option<Sharing>, Error> {
    let windows = given.platform.windows;
    let choice = Choice::of(given, device, partition)?;
    let judged = || windows.iter().map(|window| (window.base, choice.judge(given, window)));
    let fits = || {
        judged().filter_map(|(window, fit)| Some(Sharing { window: window?, coherency: fit.ok()? }))
    };
    let Some(first) = fits().min_by_key(|sharing| sharing.window) else { return Ok(None) };
    let others = fits().map(|sharing| sharing.window).filter(|other| *other != first.window);
    let Some(second) = others.min() else { return Ok(Some(first)) };
    for window in ascending(windows) {
        if let Err(why) = choice.judge(given, window) {
            layout.refusals.add(Refused { window: given.platform.base_of(window), why });
        }
    }
    Err(Code::PLAN_AMBIGUOUS
        .at(given.tree.path(device))
        .halves(partition, fits().count())
        .expected(first.window)
        .found(second))
}

/// What forms the sets that a device's memory waits for in vain; nothing where it waits for none.
pub(super) fn awaited<'a>(
    given: &'a PlanInput<'a>,
    device: NodeId,
    partition: Partition,
    used: &[NodeUse],
) -> Option<Former<'a>> {
    let sharing = used.get(usize::from(device.0)).and_then(|used| used.sharing(partition))?;
    let Sharing { window, coherency } = sharing;
    let window = given.platform.windows.iter().find(|other| other.base == Some(window))?;
    let (only, before, of) = (None, None, Of::Sound);
    let former = Former { given, window, partition, coherency, only, before, of };
    former.is_candidate(device, used).then_some(former)
}

/// Forms the set again that a device was in, from the same devices and at the same place.
pub(super) fn keep(
    given: &PlanInput<'_>,
    window: &Window,
    device: NodeId,
    partition: Partition,
    earlier: &EarlierRange,
    used: &mut [NodeUse],
    layout: &mut Layout<'_>,
) -> Result<(), Error> {
    let Some(base) = window.base else { return Ok(()) };
    let Ok(coherency) = Choice::of(given, device, partition)?.judge(given, window) else {
        return Ok(());
    };
    let (mut members, sharing) = (0, Some(Sharing { window: base, coherency }));
    for member in given.unrequested() {
        let other = given.earlier(member, partition, used);
        let same = other.is_some_and(|other| other.span == earlier.span);
        if let (Some(used), true) = (used_mut(used, member), same) {
            *used.sharing_mut(partition) = sharing;
            members += 1;
        }
    }
    let before = Some(earlier.span);
    let (only, of) = (None, Of::Sound);
    let former = Former { given, window, partition, coherency, only, before, of };
    let set = earlier.interleave;
    let wanted = match given.policy.width_of(window.base) {
        Width::Exactly(asked) => asked == set,
        _ => set.granularity == window.interleave.granularity,
    };
    if !wanted || set.ways.count() != members {
        return Ok(());
    }
    let below = members / window.interleave.ways.count();
    let root = Interleave::new(window.interleave.ways, set.granularity);
    let shape = former.split(root, below, used)?;
    let share = |id: &NodeId| left(given.tree, *id, partition, used);
    let smallest = shape.members.iter().map(share).min().unwrap_or(0);
    if smallest.saturating_mul(members.into()) != earlier.span.size() {
        return Ok(());
    }
    let offset = earlier.span.base().0 - base.0;
    let reason = match given.policy.width_of(window.base) {
        Width::Exactly(_) => Reason::Named,
        _ => Reason::Widest { refused: None },
    };
    former.place(shape, reason, Some(offset), used, layout)
}

/// Forms the sets of one window, one kind of memory and one kind of coherency.
#[derive(Clone, Copy)]
pub(super) struct Former<'a> {
    given: &'a PlanInput<'a>,
    window: &'a Window,
    partition: Partition,
    coherency: Coherency,
    /// The set that names its members; else they are those that were given to the window.
    only: Option<&'a SetRequest>,
    /// Only of devices that were in this region before.
    before: Option<Span>,
    of: Of,
}

/// The devices that sets are formed from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Those that may be used.
    Sound,
    /// As if none was lost, and of no set that lost a member.
    Whole,
    /// What is left of such sets.
    Broken,
}

/// Members in order of position, and how addresses find them.
pub(super) struct Shape {
    levels: Levels,
    members: Vec<NodeId, 16>,
}

impl<'a> Former<'a> {
    /// What forms a set that names its members in a window, and the set.
    fn of(
        given: &'a PlanInput<'a>,
        set: &'a SetRequest,
        window: &'a Window,
        used: &[NodeUse],
    ) -> Result<(Shape, Self), Error> {
        let PlanInput { platform, tree, policy, .. } = *given;
        let partition = set.partition;
        let mut common = None;
        for path in &set.members {
            let id = tree.device_at(path).ok_or(Code::PLAN_UNKNOWN_DEVICE.at(path))?;
            let coherencies = coherency::models(tree, id)?.coherencies;
            let size = set.size.unwrap_or(DECODER_UNIT);
            let (uid, window_asked, offset) = (path.uid(), None, None);
            let members = set.members.len() as u32;
            let (set, above) = (true, Hpa(0));
            let ask =
                Ask { uid, partition, window: window_asked, offset, size, set, members, above };
            let admitted = fit::admit(platform, policy, &ask, window, &coherencies);
            let (coherency, _) = admitted.map_err(|why| {
                let nowhere = Code::PLAN_NO_WINDOW.at(path).detail(partition).expected(size);
                why.error(*path, window.base).unwrap_or(nowhere)
            })?;
            match common {
                Some(common) if common != coherency => {
                    let at = window.base.unwrap_or_default();
                    return Err(Code::PLAN_COHERENCY_NOT_ALLOWED.at(path).detail(common).found(at));
                }
                _ => common = Some(coherency),
            }
        }
        let coherency = common.unwrap_or(Coherency::HostOnly);
        let (only, before, of) = (Some(set), None, Of::Sound);
        let former = Self { given, window, partition, coherency, only, before, of };
        let (ways, members) = (window.interleave.ways, set.members.len() as u32);
        let granularity = set.granularity.unwrap_or(window.interleave.granularity);
        let root = Interleave::new(ways, granularity);
        if ways != Ways::One && root != window.interleave {
            return Err(Code::PLAN_GRANULARITY_OF_WINDOW
                .at(Place::window(window.base))
                .expected(window.interleave.granularity)
                .found(granularity));
        }
        let below = members / ways.count();
        if below * ways.count() != members || !below.is_power_of_two() {
            return Err(Code::PLAN_MEMBERS_OF_WINDOW
                .at(Place::window(window.base))
                .expected(ways)
                .found(members));
        }
        Ok((former.split(root, below, used)?, former))
    }

    /// Takes set after set until no memory is left that may be in one. Whether they are as the policy
    /// wants them, and not narrower.
    ///
    /// Where devices are lost, sets are formed as if none was: so each that has all its members is what it
    /// would be without the loss. What is left of the others is dealt with as the policy says.
    fn form(&self, used: &mut [NodeUse], layout: &mut Layout<'_>) -> Result<bool, Error> {
        let PlanInput { policy, devices, tree, .. } = *self.given;
        let lost = cfg!(feature = "degrade")
            && policy.on_failure == OnFailure::BestEffort
            && has_lost(self.given, self.window, self.partition, used);
        if !lost {
            return self.form_all(used, layout);
        }
        let whole = Self { of: Of::Whole, ..*self };
        let width = policy.width_of(self.window.base);
        let (mut any, mut broken) = (false, false);
        while self.given.sound().any(|id| whole.is_candidate(id, used)) {
            let chosen = if any { whole.further(used) } else { whole.choose(width, used) };
            let Ok((shape, reason)) = chosen else { break };
            any = true;
            if shape.members.iter().all(|id| tree.fault(*id).is_none()) {
                whole.place(shape, reason, None, used, layout)?;
                continue;
            }
            broken = true;
            for member in shape.members {
                if let Some(used) = used_mut(used, member) {
                    used.set_apart(self.partition);
                }
            }
        }
        let rest = Self { of: Of::Broken, ..*self };
        match policy.broken_sets {
            // The loss is in none of them.
            _ if any && !broken => Ok(true),
            _ if !any => self.form_all(used, layout),
            BrokenSets::Narrower => rest.form_all(used, layout).map(|_| false),
            BrokenSets::Flat => Ok(false),
            BrokenSets::Unused => {
                for &id in devices {
                    if rest.is_candidate(id, used)
                        && let Some(used) = used_mut(used, id)
                    {
                        used.withhold(self.partition, Why::Failed);
                    }
                }
                Ok(false)
            }
        }
    }

    /// The same, from the devices at hand.
    fn form_all(&self, used: &mut [NodeUse], layout: &mut Layout<'_>) -> Result<bool, Error> {
        let PlanInput { policy, devices, .. } = *self.given;
        let width = policy.width_of(self.window.base);
        let (mut first, mut wanted) = (true, true);
        // Each round uses up the smallest of its members, so there are no more than devices.
        while devices.iter().any(|id| self.is_candidate(*id, used)) {
            let chosen = match first {
                _ if self.of == Of::Broken => self.choose(Width::Widest, used),
                true => self.choose(width, used),
                false => self.further(used),
            };
            match chosen {
                Ok((shape, reason)) => self.place(shape, reason, None, used, layout)?,
                Err(error) if first => match self.narrower(used) {
                    Some((shape, reason)) => {
                        wanted = false;
                        self.place(shape, reason, None, used, layout)?;
                    }
                    None => return Err(error),
                },
                // What no set takes is noted as unused in the end.
                Err(_) => break,
            }
            first = false;
        }
        Ok(wanted)
    }

    /// A set of what is left of one that lost a member.
    fn narrower(&self, used: &[NodeUse]) -> Option<(Shape, Reason)> {
        let policy = self.given.policy;
        let wanted = policy.on_failure == OnFailure::BestEffort
            && policy.broken_sets == BrokenSets::Narrower;
        wanted.then(|| self.choose(Width::Widest, used).ok()).flatten()
    }

    /// A set behind the first one.
    pub(super) fn further(&self, used: &[NodeUse]) -> Result<(Shape, Reason), Error> {
        let policy = self.given.policy;
        let chosen = self.choose(policy.width_of(self.window.base), used);
        if chosen.is_err() && policy.map_leftovers {
            return self.choose(Width::Widest, used);
        }
        chosen
    }

    /// Whether a device still has memory for a set: all of it, or what an earlier set left over.
    fn is_candidate(&self, id: NodeId, used: &[NodeUse]) -> bool {
        let PlanInput { tree, policy, .. } = *self.given;
        let (window, coherency) = (self.window.base, self.coherency);
        let sharing = used.get(usize::from(id.0)).and_then(|used| used.sharing(self.partition));
        let left = left(tree, id, self.partition, used);
        if let Some(set) = self.only {
            return left > set.skip && set.members.contains(&tree.path(id));
        }
        let was_there = self.before.is_none_or(|span| {
            self.given.earlier(id, self.partition, used).is_some_and(|earlier| earlier.span == span)
        });
        let apart = used.get(usize::from(id.0)).is_some_and(|used| used.is_apart(self.partition));
        let meant = match self.of {
            Of::Sound => tree.fault(id).is_none(),
            Of::Whole => !apart,
            Of::Broken => apart && tree.fault(id).is_none(),
        };
        was_there
            && meant
            && sharing.is_some_and(|s| Some(s.window) == window && s.coherency == coherency)
            && left > 0
            && (policy.map_leftovers || self.is_whole(id, used))
    }

    /// Whether no region has any of a device's partition.
    fn is_whole(&self, id: NodeId, used: &[NodeUse]) -> bool {
        let PlanInput { tree, .. } = *self.given;
        let device = tree.get(id).and_then(|node| node.device());
        let left = left(tree, id, self.partition, used);
        device.is_some_and(|device| device.capacity(self.partition) == left)
    }

    /// The next set, and why it is as wide as it is.
    fn choose(&self, width: Width, used: &[NodeUse]) -> Result<(Shape, Reason), Error> {
        let (window, root) = (self.window.base, self.window.interleave);
        if let Width::Exactly(asked) = width {
            self.decodable(asked)?;
            if root.ways != Ways::One && asked.granularity != root.granularity {
                let (asked, granularity) = (asked.granularity, root.granularity);
                return Err(Code::PLAN_GRANULARITY_OF_WINDOW
                    .at(Place::window(window))
                    .expected(granularity)
                    .found(asked));
            }
            let below = asked.ways.count() / root.ways.count();
            if below * root.ways.count() != asked.ways.count() || !below.is_power_of_two() {
                let (asked, ways) = (asked.ways, root.ways);
                return Err(Code::PLAN_WAYS_OF_WINDOW
                    .at(Place::window(window))
                    .expected(ways)
                    .found(asked));
            }
            let root = Interleave::new(root.ways, asked.granularity);
            return Ok((self.split(root, below, used)?, Reason::Named));
        }
        let mut refused = None;
        for below in [16, 8, 4, 2] {
            let Some(ways) = Ways::from_count(root.ways.count() * below) else { continue };
            match self.split(root, below, used) {
                Ok(shape) => return Ok((shape, Reason::Widest { refused })),
                Err(error) => refused = Some((ways, error)),
            }
        }
        Ok((self.split(root, 1, used)?, Reason::Widest { refused }))
    }

    /// The ways below the window, split between bridges and switches: as many ports of the bridges
    /// as there are, then switches. Where nothing goes, the first attempt says why.
    fn split(&self, root: Interleave, below: u32, used: &[NodeUse]) -> Result<Shape, Error> {
        let mut refused = None;
        for bridge in PORT_WAYS {
            let switch = PORT_WAYS.into_iter().find(|ways| ways.count() * bridge.count() == below);
            let Some(switch) = switch else { continue };
            match self.shape(root, bridge, switch, used) {
                Ok(shape) => return Ok(shape),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or(self.compose(ComposeError::NoSuchWays { product: below })))
    }

    /// The set with these ways on each level.
    fn shape(
        &self,
        root: Interleave,
        bridge: Ways,
        switch: Ways,
        used: &[NodeUse],
    ) -> Result<Shape, Error> {
        let PlanInput { tree, policy, .. } = *self.given;
        let (window, ways) = (self.window.base, root.ways);
        let product = ways.count() * bridge.count() * switch.count();
        let total = Ways::from_count(product)
            .ok_or_else(|| self.compose(ComposeError::NoSuchWays { product }))?;
        self.decodable(Interleave::new(total, root.granularity))?;
        if policy.target == TargetSystem::Linux && ways.has_three() && total != ways {
            return Err(Code::PLAN_LINUX_THREE_WITH_PORTS.at(Place::window(window)).found(ways));
        }
        let by_level = self.members(bridge, switch, used)?;
        let switched = by_level.iter().any(|id| tree.path(*id).ports().len() > 1);
        let bridge = self.child(root, bridge)?;
        let switch = match self.child(bridge, switch) {
            Err(_) if !switched => Interleave::new(Ways::One, Granularity::K16),
            level => level?,
        };
        let levels = Levels { root, bridge, switch };
        let set = levels.device().map_err(|error| self.compose(error))?;
        let mut members = Vec::new();
        for position in 0..product {
            let [r, b, s] = levels_at(levels, position);
            let index = (r * bridge.ways.count() + b) * switch.ways.count() + s;
            // There are as many positions as members, sixteen at most.
            let _ = by_level.get(index as usize).map(|id| members.push(*id));
        }
        let shape = Shape { levels, members };
        self.can_do(&shape, set)?;
        Ok(shape)
    }

    /// A level below another one. Linux derives its granularity even where it has a single way and
    /// the granularity means nothing; hardware does not care then, so the coarsest will do.
    fn child(&self, parent: Interleave, ways: Ways) -> Result<Interleave, Error> {
        match Levels::child_granularity(parent) {
            Some(granularity) => Ok(Interleave::new(ways, granularity)),
            None if self.given.policy.target == TargetSystem::Linux => {
                let bytes = parent.granularity.bytes() * u64::from(parent.ways.power_of_two());
                Err(Code::PLAN_LINUX_GRANULARITY.at(Place::window(self.window.base)).found(bytes))
            }
            None => Ok(Interleave::new(ways, Granularity::K16)),
        }
    }

    /// One device for each way, by target of the window, port of the bridge, port of the switch.
    fn members(
        &self,
        bridge: Ways,
        switch: Ways,
        used: &[NodeUse],
    ) -> Result<Vec<NodeId, 16>, Error> {
        let PlanInput { tree, devices, .. } = *self.given;
        let port = |id: &NodeId| tree.path(*id).ports().first().copied();
        let mut members = Vec::new();
        for &uid in &self.window.targets {
            // Devices are in order of place: those below one bridge, and below one of its ports,
            // stand together.
            let first = devices.partition_point(|id| tree.path(*id).uid() < uid);
            let end = devices.partition_point(|id| tree.path(*id).uid() <= uid);
            let below = devices.get(first..end).unwrap_or(&[]);
            let mut found = 0;
            let mut rest = below;
            while let Some(next) = rest.first() {
                let together = rest.iter().take_while(|id| port(id) == port(next)).count();
                let Some((devices, others)) = rest.split_at_checked(together) else { break };
                rest = others;
                // With one way a switch may be any levels deep; with more there is just one.
                let fits = |id: &&NodeId| {
                    self.is_candidate(**id, used)
                        && (switch == Ways::One || tree.path(**id).ports().len() == 2)
                };
                let some = devices.iter().filter(fits).take(switch.count() as usize);
                if found < bridge.count() && some.clone().count() == switch.count() as usize {
                    found += 1;
                    for &id in some {
                        // The ways of all levels together are sixteen at most.
                        let _ = members.push(id);
                    }
                }
            }
            if found < bridge.count() {
                let Self { window, partition, .. } = *self;
                let (window, need, have) = (window.base, bridge.count() as u8, found as u8);
                return Err(Code::PLAN_TOO_FEW_MEMBERS
                    .at(Place::window(window))
                    .detail(partition)
                    .expected(need)
                    .found((have, uid)));
            }
        }
        Ok(members)
    }

    /// Whether every component on the way can do its part.
    fn can_do(&self, shape: &Shape, set: Interleave) -> Result<(), Error> {
        let PlanInput { tree, .. } = *self.given;
        let size = DECODER_UNIT * u64::from(set.ways.count());
        let Ok(span) = Span::new(Hpa(0), size) else { return Ok(()) };
        for &member in &shape.members {
            for (id, node) in tree.upwards(member) {
                let (Some(component), Some(hdm)) = (node.component(), node.hdm) else { continue };
                let (interleave, route) = if component.routes() {
                    let any = Targets([0, 1, 2, 3, 4, 5, 6, 7]);
                    (super::level(shape.levels, node.kind), Route::Targets(any))
                } else {
                    (set, Route::Skip(0))
                };
                let (coherency, uio, set_position) = (self.coherency, None, 0);
                let trial = Decoder { span, interleave, coherency, uio, set_position, route };
                trial
                    .encode(component, hdm.capability)
                    .map_err(|error| Code::PLAN_DECODER.at(tree.path(id)).rule(error))?;
            }
        }
        Ok(())
    }

    /// Places a set that is as large as its smallest member allows; at the offset that it had, if it
    /// is `kept`.
    fn place(
        &self,
        shape: Shape,
        reason: Reason,
        kept: Option<u64>,
        used: &mut [NodeUse],
        layout: &mut Layout<'_>,
    ) -> Result<(), Error> {
        let PlanInput { tree, .. } = *self.given;
        let Self { partition, coherency, .. } = *self;
        let Shape { levels, members } = shape;
        let (offset, asked, skip) =
            self.only.map_or((kept, None, 0), |set| (set.offset, set.size, set.skip));
        let share = |id: &NodeId| left(tree, *id, partition, used).saturating_sub(skip);
        let Some(smallest) = members.iter().min_by_key(|id| share(id)) else { return Ok(()) };
        let (device, share) = (tree.path(*smallest), share(smallest));
        if !share.saturating_add(skip).is_multiple_of(DECODER_UNIT) {
            let (what, value) = (Unaligned::Share, share);
            return Err(what.error(device, value));
        }
        let most = share.saturating_mul(members.len() as u64);
        let size = asked.unwrap_or(most);
        if size > most {
            return Err(Code::PLAN_REQUEST_TOO_LARGE
                .at(device)
                .detail(partition)
                .expected(size)
                .found(most));
        }
        let unit = DECODER_UNIT.saturating_mul(members.len() as u64);
        for (what, value, unit) in [
            (Unaligned::Skip, skip, DECODER_UNIT),
            (Unaligned::Offset, offset.unwrap_or(0), DECODER_UNIT),
            (Unaligned::Size, asked.unwrap_or(0), unit),
        ] {
            if !value.is_multiple_of(unit) {
                return Err(what.error(device, value).expected(unit));
            }
        }
        let window = self.window.base;
        let shape = Some((levels, coherency));
        let path = device;
        let by = match (offset, self.only) {
            (Some(_), None) => By::Earlier,
            (_, Some(_)) => By::Members,
            (None, None) => By::Width,
        };
        let want = PendingRegion {
            path,
            members,
            partition,
            window,
            by,
            offset,
            size,
            skip,
            shape,
            reason,
        };
        place(self.given, &want, used, layout)
    }

    fn decodable(&self, set: Interleave) -> Result<(), Error> {
        set.decodable().map_err(|error| self.compose(ComposeError::NotDecodable(error)))
    }

    fn compose(&self, error: ComposeError) -> Error {
        Code::PLAN_COMPOSE.at(Place::window(self.window.base)).rule(error)
    }
}

/// The way of each level that leads to a position: the window's varies fastest.
///
/// A level below selects above the bits of its parent, and a factor of three has none.
pub(super) fn levels_at(levels: Levels, position: u32) -> [u32; 3] {
    let Levels { root, bridge, switch } = levels;
    let above_bridge = root.ways.power_of_two();
    let above_switch = above_bridge * bridge.ways.count();
    [
        position % root.ways.count(),
        position / above_bridge % bridge.ways.count(),
        position / above_switch % switch.ways.count(),
    ]
}
