//! Memory itself is asked whether it answers, before anybody is told that it is there.
//!
//! Registers say what a decoder was told, not what the hardware makes of it: a decoder may read as
//! committed where nothing routes an access, two ranges may lead to the same memory, and a device
//! may say that its memory is active and drop every write. So marks are written to the memory of
//! each region and read back, all through [`Mmio`], 32 bits at a time:
//!
//! 1. Every place is read, so that it can be put back.
//! 2. Each place in volatile memory is given a mark of its own, and only then is any of them read:
//!    where two addresses lead to one place, the later mark is found at both.
//! 3. Every place is read. Persistent memory, which is never written to, has to read as before.
//! 4. What was there is put back, where nothing answered first and where the mark was found last, so
//!    that a stray write does not have the last word; then it is read once more.
//!
//! A way has three places: the first dword of its first granule, the last dword of its last one, and
//! the first dword at the highest power of two between them, which shows memory that is smaller
//! than its decoder and wraps. Which device answers is nobody's assumption here: the first granules
//! of a region are consecutive, one for each way, and so are the others, whatever the arithmetic.
//!
//! A place in volatile memory takes 3 reads and 2 writes, one in persistent memory 3 reads. Nobody
//! else may use the memory meanwhile. Of persistent memory reads cannot tell more than that it does
//! not change: all-ones and zeroes may be its contents, so they are no failure.
//!
//! **Caches**: [`Mmio`] has to reach memory, not a cache in front of it: the windows are to be mapped
//! uncached, or each line written back and thrown away after a write and before a read.
//!
//! **Invariant**: a region that is left in [`CommittedMut`] held every mark, or was only read because
//! it is persistent, and holds what it held before. One that did not is taken out, and its decoders
//! are [`Fate::Stranded`].

use cxl_regs::{Arithmetic, DECODER_UNIT, Granularity, Hpa, Route, Selector, Span, Ways};
use heapless::Vec;

use crate::built::Feature;
use crate::committed::{
    Answer, CommittedDecoder, CommittedMut, CommittedRegion, Fate, PLACES, Probed, WayBefore as Way,
};
use crate::error::{Code, Error, Place};
use crate::list::{Empty, List};
use crate::mmio::Mmio;
use crate::plan::Region;
use crate::platform::Platform;
use crate::policy::Probe;
use crate::topology::{MAX_DEPTH, NodeId, NodeKind, Partition, Tree};
use crate::verify::view;

/// The first error of each region, as far as there is room, and how many more there were.
#[derive(Clone, Debug, Default)]
pub struct ProbeErrors {
    list: Vec<Error, 16>,
    more: u32,
}

impl ProbeErrors {
    /// None yet.
    pub const fn new() -> Self {
        Self { list: Vec::new(), more: 0 }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// The errors, by ascending address of the region.
    pub fn list(&self) -> &[Error] {
        &self.list
    }

    /// How many did not fit.
    pub const fn more(&self) -> u32 {
        self.more
    }

    fn add(&mut self, error: Error) {
        if self.list.push(error).is_err() {
            self.more = self.more.saturating_add(1);
        }
    }
}

/// A place that is probed.
#[derive(Clone, Copy)]
struct Cell {
    /// Index of the region.
    region: usize,
    /// Counted over all ways of all regions.
    way: usize,
    /// Which of the way's places.
    place: usize,
    address: u64,
    partition: Partition,
}

/// Probes every region of `committed` that is wanted, and takes out those whose memory does not
/// answer.
///
/// The regions that stay say how they were probed. The platform's windows and the decoders are used
/// for nothing but the name of the device in an error.
pub fn probe<'a>(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    topology: impl Into<Tree<'a>>,
    wanted: Probe,
    committed: impl Into<CommittedMut<'a>>,
    errors: &mut ProbeErrors,
) -> Result<(), Error> {
    probe_only(hw, platform, topology.into(), wanted, None, committed.into(), errors)
}

/// The same, of some regions only.
// Compiled once, whatever the lists lie in.
#[inline(never)]
pub(crate) fn probe_only(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    tree: Tree<'_>,
    wanted: Probe,
    only: Option<&[Region]>,
    committed: CommittedMut<'_>,
    errors: &mut ProbeErrors,
) -> Result<(), Error> {
    let CommittedMut { decoders, mut regions, ways_before: ways, failed, .. } = committed;
    errors.clear();
    if cfg!(not(feature = "probe")) {
        return match wanted {
            Probe::Skip => Ok(()),
            _ => Err(Feature::Probe.not_built(Place::default())),
        };
    }
    for region in &mut regions {
        let base = region.span.base();
        let is_asked = only.is_none_or(|only| only.iter().any(|r| r.span.base() == base));
        region.probed = match region.partition {
            _ if !is_asked || !wanted.wants(region.span) => Probed::No,
            Partition::Volatile => Probed::Held,
            Partition::Persistent => Probed::Read,
        };
    }
    let (mut ways, mut failed) = (ways, failed);
    ways.clear();
    failed.clear();
    let mut fits = true;
    for region in &regions {
        let uneven = uneven(region).filter(|_| region.probed != Probed::No);
        if let Some(error) = uneven {
            errors.add(error);
        }
        // As many as there are regions, and as much room.
        let _ = failed.push(uneven.is_some());
        for _ in (0..region.interleave.ways.count()).take_while(|_| is_asked(region)) {
            fits &= ways.push(Way::EMPTY).is_ok();
        }
    }
    if fits {
        let at = |cell: Cell| {
            let device = behind(platform, tree, &decoders, cell.address);
            Place::from(device.map(|device| tree.path(device)))
        };
        run(hw, &regions, &mut ways, &mut failed, &at, errors);
    } else {
        errors.add(Code::PROBE_CAPACITY.error().expected(ways.room()));
        for (failed, region) in failed.iter_mut().zip(&regions) {
            *failed = region.probed != Probed::No;
        }
    }
    withdraw(decoders, regions, &failed);
    errors.list.first().map_or(Ok(()), |error| Err(*error))
}

/// The four steps. `at` says which device is to answer.
fn run(
    hw: &mut impl Mmio,
    regions: &[CommittedRegion],
    ways: &mut [Way],
    failed: &mut [bool],
    at: &dyn Fn(Cell) -> Place,
    errors: &mut ProbeErrors,
) {
    let volatile = |cell: &Cell| cell.partition == Partition::Volatile;
    let total = ways.len();
    for cell in cells(regions) {
        let value = hw.read(cell.address);
        if let Some(before) = ways.get_mut(cell.way).and_then(|w| w.before.get_mut(cell.place)) {
            *before = value;
        }
    }
    for cell in cells(regions).filter(volatile) {
        hw.write(cell.address, mark(ways, cell));
    }
    for cell in cells(regions) {
        let expected = if volatile(&cell) { mark(ways, cell) } else { before(ways, cell) };
        let found = hw.read(cell.address);
        let other = marked(found, total)
            .filter(|_| found != expected)
            .and_then(|(way, place)| cells(regions).find(|c| (c.way, c.place) == (way, place)))
            .filter(|other| volatile(other) && mark(ways, *other) == found);
        if let Some(answer) = ways.get_mut(cell.way).and_then(|w| w.answer.get_mut(cell.place)) {
            *answer = match other {
                _ if found == expected => Answer::Own,
                Some(_) => Answer::Other,
                None => Answer::Nothing,
            };
        }
        if found == expected {
            continue;
        }
        if !is_failed(failed, cell.region) {
            let kind = match other {
                Some(_) => Code::PROBE_ALIASED,
                None if volatile(&cell) => Code::PROBE_NOT_HELD,
                None => Code::PROBE_DISTURBED,
            };
            let error = kind.at(at(cell)).expected(cell.address);
            errors.add(match other {
                Some(other) => error.found(other.address),
                None => error.found((expected, found)),
            });
        }
        // Of two that lead to one place nobody can tell which one is right.
        fail(failed, cell.region);
        if let Some(other) = other {
            fail(failed, other.region);
        }
    }
    for wanted in [Answer::Nothing, Answer::Other, Answer::Own] {
        for cell in cells(regions).filter(volatile).filter(|c| answer(ways, *c) == wanted) {
            hw.write(cell.address, before(ways, cell));
        }
    }
    for cell in cells(regions).filter(|cell| answer(ways, *cell) == Answer::Own) {
        let (expected, found) = (before(ways, cell), hw.read(cell.address));
        if found != expected && !is_failed(failed, cell.region) {
            let error = Code::PROBE_NOT_RESTORED.at(at(cell)).expected(cell.address);
            errors.add(error.found((expected, found)));
            fail(failed, cell.region);
        }
    }
}

fn is_failed(failed: &[bool], region: usize) -> bool {
    failed.get(region).copied().unwrap_or(true)
}

fn fail(failed: &mut [bool], region: usize) {
    if let Some(failed) = failed.get_mut(region) {
        *failed = true;
    }
}

fn before(ways: &[Way], cell: Cell) -> u32 {
    ways.get(cell.way).and_then(|way| way.before.get(cell.place)).copied().unwrap_or(0)
}

fn answer(ways: &[Way], cell: Cell) -> Answer {
    let answer = ways.get(cell.way).and_then(|way| way.answer.get(cell.place));
    answer.copied().unwrap_or(Answer::Nothing)
}

/// Neither all-ones nor 0 is this with a number of a place, however many there are.
const KEY: u32 = 0x5A5A_A5A5;

/// The mark of a place: its number, and a bit that makes it differ from what was there. No other
/// place has the same.
fn mark(ways: &[Way], cell: Cell) -> u32 {
    let number = (PLACES.wrapping_mul(cell.way)).wrapping_add(cell.place) as u32;
    let mark = KEY ^ number << 1;
    if mark == before(ways, cell) { mark ^ 1 } else { mark }
}

/// Way and place whose mark this may be.
fn marked(value: u32, ways: usize) -> Option<(usize, usize)> {
    let number = ((value ^ KEY) >> 1) as usize;
    let (way, place) = (number / PLACES, number % PLACES);
    (way < ways).then_some((way, place))
}

/// Why a region cannot be probed as it is.
fn uneven(region: &CommittedRegion) -> Option<Error> {
    let (span, stripe) = (region.span, region.interleave.stripe());
    // At a hole it ends where its window does, and the last whole stripe is asked.
    let at_hole = region.window == Hpa(0) && span.end().0.is_multiple_of(DECODER_UNIT);
    let whole = span.size().checked_rem(stripe) == Some(0) || at_hole;
    let stripes = span.size().checked_div(stripe).unwrap_or(0);
    let error = Code::PROBE_UNEVEN.error().detail(stripe / Granularity::B256.bytes());
    (!whole || stripes < 2).then_some(error.expected(span.base()).found(span.size()))
}

/// Whether a region is probed, and can be.
fn is_asked(region: &CommittedRegion) -> bool {
    region.probed != Probed::No && uneven(region).is_none()
}

/// Every place of every region that is probed.
fn cells(regions: &[CommittedRegion]) -> impl Iterator<Item = Cell> {
    let mut first = 0usize;
    regions.iter().enumerate().filter(|(_, region)| is_asked(region)).flat_map(
        move |(index, region)| {
            let ways = region.interleave.ways.count();
            let start = first;
            first = first.saturating_add(ways as usize);
            (0..ways).flat_map(move |way| {
                let addresses = addresses(region, way);
                (0..).zip(addresses).map(move |(place, address)| Cell {
                    region: index,
                    way: start.saturating_add(way as usize),
                    place,
                    address,
                    partition: region.partition,
                })
            })
        },
    )
}

/// The places of one way of a region of two or more whole stripes.
fn addresses(region: &CommittedRegion, way: u32) -> [u64; PLACES] {
    let granule = region.interleave.granularity.bytes();
    let stripe = region.interleave.stripe();
    let size = region.span.size() - region.span.size().checked_rem(stripe).unwrap_or(0);
    // The highest power of two of the way's own bytes, in stripes.
    let stripes = size / stripe.max(1);
    let middle = stripes.saturating_sub(1).checked_ilog2().map_or(0, |bits| stripe << bits);
    let own = granule.wrapping_mul(way.into());
    let last = size.wrapping_sub(stripe).wrapping_add(own).wrapping_add(granule).wrapping_sub(4);
    [own, middle.wrapping_add(own), last].map(|offset| region.span.base().0.wrapping_add(offset))
}

/// Takes out what failed.
fn withdraw(
    mut decoders: List<'_, CommittedDecoder>,
    mut regions: List<'_, CommittedRegion>,
    failed: &[bool],
) {
    let within = |decoder: &CommittedDecoder, wanted: bool, regions: &[CommittedRegion]| {
        decoder.active().is_some_and(|decoder| {
            let mut regions = regions.iter().enumerate();
            regions.any(|(index, region)| {
                is_failed(failed, index) == wanted && decoder.span.contains_span(region.span)
            })
        })
    };
    for entry in &mut decoders {
        if within(entry, true, &regions) && !within(entry, false, &regions) {
            entry.fate = Fate::Stranded;
        }
    }
    let mut index = 0;
    regions.retain(|_| {
        let failed = is_failed(failed, index);
        index += 1;
        !failed
    });
}

/// The device that windows and decoders lead to from an address.
fn behind(
    platform: &Platform<'_>,
    tree: Tree<'_>,
    decoders: &[CommittedDecoder],
    hpa: u64,
) -> Option<NodeId> {
    let dword = Span::new(Hpa(hpa), 4).ok()?;
    let window = platform.windows.iter().find(|window| view(window, dword, Ways::One).is_some())?;
    let selector = match window.arithmetic {
        Arithmetic::Modulo => Selector::modulo(window.interleave),
        Arithmetic::Xor => Selector::xor(window.interleave, &window.xor_maps).ok()?,
    };
    let uid = *window.targets.get(selector.position(Hpa(hpa)) as usize)?;
    let (mut at, _) = tree.iter().find(|(_, node)| node.kind == NodeKind::HostBridge { uid })?;
    for _ in 0..=2 * MAX_DEPTH {
        let node = tree.get(at)?;
        let mut children = tree.children(at);
        let (next, _) = match node.kind {
            NodeKind::Device(_) => return Some(at),
            NodeKind::HostBridge { .. } | NodeKind::UpstreamPort if node.hdm.is_some() => {
                let mut decoders = decoders.iter().filter(|entry| entry.node == at);
                let decoder = decoders.find_map(|entry| {
                    entry.decoder.filter(|d| entry.committed() && d.span.contains(Hpa(hpa)))
                })?;
                let Route::Targets(targets) = decoder.route else { return None };
                let position = Selector::modulo(decoder.interleave).position(Hpa(hpa));
                let used = targets.used(decoder.interleave.ways);
                let port = *used.get(position as usize)?;
                children.find(|(_, child)| child.port == port)?
            }
            _ => children.next()?,
        };
        at = next;
    }
    None
}
