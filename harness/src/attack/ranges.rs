//! The ranges that locks protect, and where they lead after a write.
//!
//! Two walks judge each other's blind spots: the mapping proves whole ranges from decoders, and the
//! machine's own decode follows single addresses through whatever the devices make of them, range
//! registers included.
//!
//! **Invariant**: a range is watched only if every decoder that its addresses or device addresses
//! depend on is locked. Whether it is sealed too says [`crate::locks`].

use std::collections::BTreeSet;

use cxl_regs::{Hpa, Size, Span};

use super::rules;
use crate::locks::{Words, unsealed};
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
    /// Addresses in it, and where they led.
    probes: Vec<(u64, Option<Landing>)>,
    /// These and two beside it, and where they led when that was last noted.
    noted: Vec<(u64, Option<Landing>)>,
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
pub(super) fn locked(machine: &Machine) -> Vec<WatchedRange> {
    let fabric = machine.fabric();
    let ranges = mappings(&fabric);
    ranges.iter().filter_map(|mapping| range(machine, &fabric, mapping)).collect()
}

fn range(machine: &Machine, fabric: &Fabric, mapping: &Mapping) -> Option<WatchedRange> {
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
    let probes = probes.into_iter().map(|hpa| (hpa, machine.resolve(hpa))).collect();
    let devices: BTreeSet<usize> = direct.members.iter().map(|member| member.device).collect();
    let open = devices.into_iter().flat_map(|device| unsealed(machine, Place::Device(device)));
    let open = open.map(|why| Words(machine, &why).to_string()).collect();
    let (how, noted) = (mapping.how.clone(), Vec::new());
    locked.then_some(WatchedRange { span, open, how, probes, noted })
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

/// The worst fate of any of the ranges, and the ranges that share it.
pub(super) fn fate<'r>(
    machine: &Machine,
    ranges: &'r [WatchedRange],
) -> (Fate, Vec<&'r WatchedRange>) {
    if ranges.is_empty() {
        return (Fate::Same, Vec::new());
    }
    let now = mappings(&machine.fabric());
    let fates: Vec<Fate> = ranges.iter().map(|range| range.fate(machine, &now)).collect();
    let worst = fates.iter().copied().max().unwrap_or(Fate::Same);
    let hit = ranges.iter().zip(fates).filter(|(_, fate)| *fate == worst);
    (worst, hit.map(|(range, _)| range).collect())
}

/// Notes where addresses lead now, in the ranges and right beside them.
pub(super) fn note(machine: &Machine, ranges: &mut [WatchedRange]) {
    for range in ranges {
        let (base, last) = (range.span.base().0, range.span.last().0);
        let beside = [base.wrapping_sub(GRANULE), last.wrapping_add(1)];
        let all = range.probes.iter().map(|(hpa, _)| *hpa).chain(beside);
        range.noted = all.map(|hpa| (hpa, machine.resolve(hpa))).collect();
    }
}

/// What became of the addresses that were noted, and whose they are.
pub(super) fn astray<'r>(
    machine: &Machine,
    ranges: &'r [WatchedRange],
) -> (Fate, Vec<&'r WatchedRange>) {
    let fates: Vec<Fate> = ranges.iter().map(|range| lead(machine, &range.noted)).collect();
    let worst = fates.iter().copied().max().unwrap_or(Fate::Same);
    let hit = ranges.iter().zip(fates).filter(|(_, fate)| *fate == worst);
    (worst, hit.map(|(range, _)| range).collect())
}

/// The worst that became of addresses.
fn lead(machine: &Machine, probes: &[(u64, Option<Landing>)]) -> Fate {
    let fates = probes.iter().map(|&(hpa, before)| match machine.resolve(hpa) {
        after if after == before => Fate::Same,
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
