//! The ranges that locks protect, and where they lead after a write.
//!
//! Two walks judge each other's blind spots: the mapping proves whole ranges from decoders, and the
//! machine's own decode follows single addresses through whatever the devices make of them, range
//! registers included.
//!
//! **Invariant**: a range is watched only if every decoder that its addresses or device addresses
//! depend on is locked. Whether it is sealed too says [`crate::locks`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

use cxl_regs::{Hpa, Size, Span};

use super::rules;
use crate::locks::{Words, decoders, unsealed};
use cxl_model::fabric::{Fabric, HdmImage};
use cxl_model::machine::{Landing, Machine};
use cxl_model::mapping::{At, Mapping, Reach, mappings, resolve};
use cxl_model::scenario::Place;

/// The finest granule there is.
const GRANULE: u64 = 256;

/// A range with all its decoders locked.
#[derive(Clone, Debug)]
pub(super) struct WatchedRange {
    pub(super) span: Span,
    /// Why it is not sealed.
    pub(super) open: Vec<String>,
    how: Reach,
    /// Addresses in it.
    probes: Vec<Probe>,
}

/// An address in a range.
#[derive(Clone, Debug)]
struct Probe {
    hpa: u64,
    /// Where it led when the range was looked for.
    led: Option<Landing>,
    /// It had gone astray by then, and was charged to what did it.
    astray: bool,
}

/// Where a range leads now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// Where it led.
    Same,
    /// Where it led, but not provably: each access is looked at by itself.
    Traps,
    /// Nowhere, at least in parts.
    Nowhere,
    /// To other bytes, at least in parts.
    Elsewhere,
}

/// The locked ranges of a machine as it is now.
pub(super) fn locked(machine: &Machine, home: &Home) -> Vec<WatchedRange> {
    let fabric = machine.fabric();
    let ranges = mappings(&fabric);
    ranges.iter().filter_map(|mapping| range(machine, &fabric, mapping, home)).collect()
}

fn range(
    machine: &Machine,
    fabric: &Fabric,
    mapping: &Mapping,
    home: &Home,
) -> Option<WatchedRange> {
    let span = mapping.span()?;
    let Reach::Direct(direct) = &mapping.how else { return None };
    let interleave = direct.interleave();
    let (granule, ways) = (interleave.granularity.bytes(), u64::from(interleave.ways.count()));
    let base = span.base().0;
    // Two rounds of the set, then the last byte of each further power of two, then the end.
    let rounds = (0..2 * ways).map(|granules| granules * granule);
    let powers = (28..64).map(|bit| (1u64 << bit) - 1);
    let offsets = rounds.chain(powers).filter(|offset| *offset < span.size());
    let probes: BTreeSet<u64> =
        offsets.chain([span.size() - 1]).map(|offset| base + offset).collect();
    let locked = probes.iter().all(|hpa| path_is_locked(fabric, Hpa(*hpa)));
    let probe = |hpa| {
        let led = machine.resolve(hpa);
        let by_registers = direct.locate(Hpa(hpa));
        let by_registers = by_registers.map(|(member, dpa)| Landing { device: member.device, dpa });
        Probe { hpa, led, astray: home.left(hpa, led) && led != by_registers }
    };
    let probes = probes.into_iter().map(probe).collect();
    let devices: BTreeSet<usize> = direct.members.iter().map(|member| member.device).collect();
    let open = devices.into_iter().flat_map(|device| unsealed(machine, Place::Device(device)));
    let open = open.map(|why| Words(machine, &why).to_string()).collect();
    let how = mapping.how.clone();
    locked.then_some(WatchedRange { span, open, how, probes })
}

fn path_is_locked(fabric: &Fabric, hpa: Hpa) -> bool {
    let Ok(path) = resolve(fabric, hpa) else { return false };
    let is_locked = |hdm: Option<&HdmImage>, index: u8| {
        let image = hdm.and_then(|hdm| hdm.decoders.get(usize::from(index)));
        image.is_some_and(|image| rules::locked(image.control))
    };
    let hops = path.hops.iter().all(|hop| {
        let hdm = match hop.at {
            At::Bridge(index) => fabric.bridges.get(index).and_then(|b| b.hdm.as_ref()),
            At::Switch(index) => fabric.switches.get(index).and_then(|s| s.hdm.as_ref()),
            At::Device(_) => None,
        };
        hop.decoder.is_none_or(|(index, _)| is_locked(hdm, index))
    });
    let device = fabric.devices.get(path.endpoint.device).and_then(|d| d.hdm.as_ref());
    // A decoder's device addresses begin behind those of all decoders below it.
    hops && (0..=path.endpoint.index).all(|index| is_locked(device, index))
}

/// The fate of each of the ranges.
pub(super) fn fates(machine: &Machine, ranges: &[WatchedRange]) -> Vec<Fate> {
    if ranges.is_empty() {
        return Vec::new();
    }
    let now = mappings(&machine.fabric());
    ranges.iter().map(|range| range.fate(machine, &now)).collect()
}

/// The worst fate of any of the ranges, and the ranges that share it.
pub(super) fn fate<'r>(
    machine: &Machine,
    ranges: &'r [WatchedRange],
) -> (Fate, Vec<&'r WatchedRange>) {
    let fates = fates(machine, ranges);
    let worst = fates.iter().copied().max().unwrap_or(Fate::Same);
    let hit = ranges.iter().zip(fates).filter(|(_, fate)| *fate == worst);
    (worst, hit.map(|(range, _)| range).collect())
}

/// Addresses in the ranges and right beside them, each once.
fn addresses(ranges: &[WatchedRange]) -> Vec<u64> {
    let all = ranges.iter().flat_map(|range| {
        let (base, last) = (range.span.base().0, range.span.last().0);
        let beside = [base.wrapping_sub(GRANULE), last.wrapping_add(1)];
        range.probes.iter().map(|probe| probe.hpa).chain(beside)
    });
    all.collect::<BTreeSet<u64>>().into_iter().collect()
}

/// An address of which a component says by itself whether it takes it, and where to. A decoder that has grown
/// in decode alone may take addresses that nothing else routes to anything: no address leads elsewhere by it
/// until somebody else is led there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    place: Place,
    hpa: u64,
}

impl Claim {
    /// The port number or the device address that the component's decoders give it; `None` for an address that
    /// none of them takes, or that several do.
    fn now(self, machine: &Machine) -> Option<u64> {
        match self.place {
            Place::Device(device) => machine.endpoint(device)?.translate(self.hpa).map(|dpa| dpa.0),
            place => machine.component(place)?.hdm()?.route(self.hpa).map(u64::from),
        }
    }
}

/// Where each locked decoder begins and ends, and right before that, also of one without a size.
fn claims(machine: &Machine) -> Vec<Claim> {
    let mut all = BTreeSet::new();
    for place in machine.places() {
        for (_, image) in decoders(machine, place) {
            if rules::locked(image.control) {
                let (base, size) = (image.base(), image.size());
                let ends = [base, base.wrapping_sub(GRANULE), base.wrapping_add(size)];
                all.extend(ends.map(|hpa| Claim { place, hpa }));
            }
        }
    }
    all.into_iter().collect()
}

/// What is followed.
#[derive(Clone, Debug, Default)]
pub(super) struct Points {
    /// Addresses, through the whole machine.
    addresses: Vec<u64>,
    /// Addresses, in one component.
    claims: Vec<Claim>,
}

impl Points {
    pub(super) fn of(machine: &Machine, ranges: &[WatchedRange]) -> Self {
        Self { addresses: addresses(ranges), claims: claims(machine) }
    }
}

/// Addresses that are known: a hundred times those of the largest machine, however often a guest makes new
/// ranges.
const MOST_ADDRESSES: usize = 1 << 16;

/// Where addresses led when they were seen for the first time.
#[derive(Debug, Default)]
pub(super) struct Home {
    leads: BTreeMap<u64, Option<Landing>>,
    claims: BTreeMap<Claim, Option<u64>>,
}

impl Home {
    /// Looks where addresses lead that were not seen before.
    pub(super) fn learn(&mut self, machine: &Machine, points: &Points) {
        for &hpa in &points.addresses {
            if self.leads.len() < MOST_ADDRESSES {
                self.leads.entry(hpa).or_insert_with(|| machine.resolve(hpa));
            }
        }
        for &claim in &points.claims {
            if self.claims.len() < MOST_ADDRESSES {
                self.claims.entry(claim).or_insert_with(|| claim.now(machine));
            }
        }
    }

    /// Whether an address led elsewhere at first.
    fn left(&self, hpa: u64, now: Option<Landing>) -> bool {
        self.leads.get(&hpa).is_some_and(|first| *first != now)
    }
}

/// Addresses, and where they led when that was last looked at.
#[derive(Debug, Default)]
pub(super) struct Followed {
    leads: Vec<(u64, Option<Landing>)>,
    claims: Vec<(Claim, Option<u64>)>,
}

/// What leads elsewhere than it did, and where to.
#[derive(Debug, Default)]
pub(super) struct Moved {
    leads: Vec<(u64, Option<Landing>)>,
    claims: Vec<(Claim, Option<u64>)>,
}

impl Moved {
    pub(super) fn is_empty(&self) -> bool {
        self.leads.is_empty() && self.claims.is_empty()
    }
}

impl Followed {
    pub(super) fn of(machine: &Machine, points: &Points) -> Self {
        Self {
            leads: points.addresses.iter().map(|&hpa| (hpa, machine.resolve(hpa))).collect(),
            claims: points.claims.iter().map(|&claim| (claim, claim.now(machine))).collect(),
        }
    }

    /// Those that have moved, and where to. The next time they are held against that.
    pub(super) fn moved(&mut self, machine: &Machine) -> Moved {
        Moved {
            leads: moved(&mut self.leads, |hpa| machine.resolve(*hpa)),
            claims: moved(&mut self.claims, |claim| claim.now(machine)),
        }
    }
}

fn moved<K: Copy, V: Copy + PartialEq>(known: &mut [(K, V)], now: impl Fn(&K) -> V) -> Vec<(K, V)> {
    let mut moved = Vec::new();
    for (key, was) in known {
        let is = now(key);
        if is != *was {
            *was = is;
            moved.push((*key, is));
        }
    }
    moved
}

/// What became of addresses that have gone astray.
#[derive(Debug)]
pub(super) struct Astray {
    /// The worst of any range. Addresses that no range has count for less than those of any.
    pub(super) fate: Fate,
    pub(super) effects: Effects,
}

/// What became of addresses that have moved; `None` if each is back where it was at first. An
/// address is charged to the range that it lies in, whichever range it was looked at for, and one
/// that lies in none to itself.
pub(super) fn astray(
    machine: &Machine,
    ranges: &[WatchedRange],
    home: &Home,
    moved: &Moved,
) -> Option<Astray> {
    let (mut owned, mut loose) = (Vec::new(), Vec::new());
    for &(hpa, now) in moved.leads.iter().filter(|(hpa, now)| home.left(*hpa, *now)) {
        match ranges.iter().position(|range| range.span.contains(Hpa(hpa))) {
            Some(range) if now.is_some() => owned.push((range, Fate::Elsewhere)),
            Some(range) => owned.push((range, Fate::Nowhere)),
            None => loose.push((hpa, now)),
        }
    }
    if owned.is_empty() && loose.is_empty() {
        let claims = moved.claims.iter();
        let strays =
            claims.filter(|(claim, now)| home.claims.get(claim).is_some_and(|was| was != now));
        let words = strays.map(|(Claim { place, hpa }, now)| {
            let takes = if now.is_some() { "takes" } else { "no longer takes" };
            format!(
                "{} {takes} {hpa:#x}, at the border of what it has locked",
                machine.name(*place)
            )
        });
        let effects = Effects { others: words.collect(), ..Effects::default() };
        let fate = Fate::Traps;
        return (!effects.others.is_empty()).then_some(Astray { fate, effects });
    }
    let worst = owned.iter().map(|(_, fate)| *fate).max();
    let fate = worst.or_else(|| (!loose.is_empty()).then_some(Fate::Traps))?;
    let hit = ranges.iter().enumerate().filter(|(at, _)| owned.contains(&(*at, fate)));
    let mut effects = Effects::of(hit.map(|(_, range)| range), fate);
    effects.others.extend(loose.into_iter().map(|(hpa, now)| match now {
        Some(Landing { device, .. }) => {
            let device = machine.name(Place::Device(device));
            format!("{hpa:#x}, in no locked range, leads to {device}")
        }
        None => format!("{hpa:#x}, in no locked range, leads nowhere"),
    }));
    Some(Astray { fate, effects })
}

/// The worst that became of addresses.
fn lead(machine: &Machine, probes: &[Probe]) -> Fate {
    let probes = probes.iter().filter(|probe| !probe.astray);
    let fates = probes.map(|probe| match machine.resolve(probe.hpa) {
        after if after == probe.led => Fate::Same,
        None => Fate::Nowhere,
        Some(_) => Fate::Elsewhere,
    });
    fates.max().unwrap_or(Fate::Same)
}

impl WatchedRange {
    fn fate(&self, machine: &Machine, now: &[Mapping]) -> Fate {
        let direct = now.iter().any(|mapping| {
            let covers = mapping.span().is_some_and(|span| span.contains_span(self.span));
            covers && mapping.how == self.how
        });
        let worst = lead(machine, &self.probes);
        if worst == Fate::Same && !direct { Fate::Traps } else { worst }
    }
}

/// What a breach does: the worst to each range, and what is said of no range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// Under which circumstances, if others than those of the breach.
    pub(super) ranges: BTreeMap<String, (Fate, String)>,
    pub(super) others: Vec<String>,
}

impl Effects {
    /// That this became of ranges.
    pub(super) fn of<'r>(ranges: impl IntoIterator<Item = &'r WatchedRange>, fate: Fate) -> Self {
        let ranges = ranges.into_iter().map(|range| (list([range]), (fate, String::new())));
        Self { ranges: ranges.collect(), others: Vec::new() }
    }

    pub(super) fn add(&mut self, more: &Self) {
        for (range, (fate, when)) in &more.ranges {
            let known = self.ranges.get(range);
            if known.is_none_or(|(known, _)| known < fate) {
                self.ranges.insert(range.clone(), (*fate, when.clone()));
            }
        }
        let new = more.others.iter().filter(|other| !self.others.contains(other));
        self.others.extend(new.cloned().collect::<Vec<_>>());
    }
}

impl Display for Effects {
    /// What is worst comes first.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut fates: BTreeMap<(Reverse<Fate>, &str), Vec<&str>> = BTreeMap::new();
        for (range, (fate, when)) in &self.ranges {
            fates.entry((Reverse(*fate), when)).or_default().push(range);
        }
        for ((Reverse(fate), when), list) in fates {
            let space = if when.is_empty() { "" } else { " " };
            write!(f, "; {} {}{space}{when}", list.join(", "), words(fate))?;
        }
        self.others.iter().try_for_each(|other| write!(f, "; {other}"))
    }
}

/// Ranges by address and size.
pub(super) fn list<'r>(ranges: impl IntoIterator<Item = &'r WatchedRange>) -> String {
    let words = ranges
        .into_iter()
        .map(|WatchedRange { span, .. }| format!("{:#x} ({})", span.base().0, Size(span.size())));
    words.collect::<Vec<_>>().join(", ")
}

/// What became of ranges, in words.
pub(super) fn words(fate: Fate) -> &'static str {
    match fate {
        Fate::Same => "leads where it led",
        Fate::Traps => "no longer mapped, each access traps",
        Fate::Nowhere => "gone",
        Fate::Elsewhere => "LEADS ELSEWHERE",
    }
}
