//! Memory behind windows, healthy and broken in every way that registers do not show.
//!
//! **Invariant**: where an address leads is worked out here, in plain integers; of the library only
//! the regions' shape is taken. Whatever is broken, memory that answers ends as it began.

mod scripted;

use std::collections::{BTreeMap, BTreeSet};

use cxl_firmware::commit::{Receipt, commit};
use cxl_firmware::committed::{Committed, CommittedRegion, Fate, Probed};
use cxl_firmware::error::{Code, Error, Fact, Place};
use cxl_firmware::mmio::Mmio;
use cxl_firmware::platform::Platform;
use cxl_firmware::policy::{Policy, Probe};
use cxl_firmware::probe::{ProbeErrors, probe};
use cxl_firmware::topology::{Partition, Topology};
use cxl_regs::{Coherency, Granularity, Hpa, Interleave, Span, Ways};
use scripted::{GIB, MIB, Ticks, simple, switched};

/// A device and an address in it.
type Cell = (u64, u64);

/// Memory behind addresses. What nothing answers reads as `miss`.
struct Memory<F> {
    /// Where an access leads; the flag says whether it is a write.
    route: F,
    cells: BTreeMap<Cell, u32>,
    miss: u32,
    /// Writes that still come through.
    writes_left: usize,
    reads: Vec<u64>,
    writes: Vec<u64>,
}

impl<F: Fn(u64, bool) -> Option<Cell>> Memory<F> {
    fn new(route: F) -> Self {
        let (reads, writes) = (vec![], vec![]);
        Self { route, cells: BTreeMap::new(), miss: !0, writes_left: usize::MAX, reads, writes }
    }

    /// What is there without having been written: no two places alike.
    fn initial((device, address): Cell) -> u32 {
        0x1000_0000 | (device as u32) << 20 ^ (address >> 2) as u32 ^ (address >> 24) as u32
    }

    /// Places that do not hold what they held at first.
    fn changed(&self) -> Vec<Cell> {
        let changed = self.cells.iter().filter(|(cell, value)| **value != Self::initial(**cell));
        changed.map(|(cell, _)| *cell).collect()
    }
}

impl<F: Fn(u64, bool) -> Option<Cell>> Mmio for Memory<F> {
    fn read(&mut self, address: u64) -> u32 {
        assert_eq!(address % 4, 0);
        self.reads.push(address);
        let cell = (self.route)(address, false);
        cell.map_or(self.miss, |cell| {
            self.cells.get(&cell).copied().unwrap_or_else(|| Self::initial(cell))
        })
    }

    fn write(&mut self, address: u64, value: u32) {
        assert_eq!(address % 4, 0);
        self.writes.push(address);
        if self.writes_left == 0 {
            return;
        }
        self.writes_left -= 1;
        if let Some(cell) = (self.route)(address, true) {
            self.cells.insert(cell, value);
        }
    }
}

const SETS: [Ways; 8] = [
    Ways::One,
    Ways::Two,
    Ways::Three,
    Ways::Four,
    Ways::Six,
    Ways::Eight,
    Ways::Twelve,
    Ways::Sixteen,
];

fn region(base: u64, size: u64, ways: Ways, granularity: Granularity) -> CommittedRegion {
    CommittedRegion {
        window: Hpa(0),
        span: Span::new(Hpa(base), size).expect("a range"),
        interleave: Interleave::new(ways, granularity),
        coherency: Coherency::HostOnly,
        partition: Partition::Volatile,
        locked: true,
        probed: Probed::No,
    }
}

fn persistent(base: u64, size: u64) -> CommittedRegion {
    let partition = Partition::Persistent;
    CommittedRegion { partition, ..region(base, size, Ways::One, Granularity::B256) }
}

fn of(regions: &[CommittedRegion]) -> Committed<32> {
    let mut committed = Committed::new();
    committed.regions.extend(regions.iter().copied());
    committed
}

fn bare() -> (Platform<'static>, Topology<4>) {
    let platform = Platform {
        ecam: &[],
        bridges: &[],
        windows: &[],
        address_bits: 46,
        resources: &[],
        occupied: &[],
        unreadable: &[],
    };
    (platform, Topology::new())
}

fn kinds(errors: &[Error]) -> Vec<Code> {
    errors.iter().map(|error| error.code).collect()
}

/// Probes; all errors, and the regions that are left.
fn ask(hw: &mut impl Mmio, committed: &mut Committed<32>) -> Vec<Error> {
    let (platform, topology) = bare();
    let mut errors = ProbeErrors::new();
    let result = probe(hw, &platform, &topology, Probe::All, committed, &mut errors);
    assert_eq!(result.err(), errors.list().first().copied());
    errors.list().to_vec()
}

fn bases(committed: &Committed<32>) -> Vec<u64> {
    committed.regions.iter().map(|region| region.span.base().0).collect()
}

/// The member of a set behind an address, by division of the absolute address; with `maps`, bits of
/// the power of two by parity (CXL r3.1 section 9.18.1.3).
fn member(hpa: u64, ways: u64, granule: u64, maps: &[u64]) -> u64 {
    let number = hpa / granule;
    let power = ways & ways.wrapping_neg();
    let low = match maps {
        [] => number % power,
        maps => (0..)
            .zip(maps)
            .fold(0, |low, (bit, map)| low | u64::from((hpa & map).count_ones() % 2) << bit),
    };
    low + power * (number / power % (ways / power))
}

#[test]
fn both_ends_and_the_middle_of_every_way_hold_marks_and_get_their_contents_back() {
    for ways in SETS {
        for granularity in [Granularity::B256, Granularity::K1, Granularity::K16] {
            let (count, granule) = (u64::from(ways.count()), granularity.bytes());
            let maps: &[u64] = match count {
                2 | 6 => &[0x0202_0000],
                4 | 12 => &[0x0202_0000, 0x0404_0000],
                8 => &[0x0202_0000, 0x0404_0000, 0x0808_0000],
                16 => &[0x0202_0000, 0x0404_0000, 0x0808_0000, 0x1010_0000],
                _ => &[],
            };
            let maps: Vec<u64> = (0..).zip(maps).map(|(n, map)| map | granule << n).collect();
            for maps in [&[][..], &maps] {
                let (base, size) = (0x1_1000_0000, count * 768 * MIB);
                let one = region(base, size, ways, granularity);
                let way = |hpa| member(hpa, count, granule, maps);
                let mut hw = Memory::new(|hpa, _| Some((way(hpa), hpa)));
                let mut committed = of(&[one]);
                assert_eq!(ask(&mut hw, &mut committed), []);
                assert_eq!(committed.regions[0].probed, Probed::Held);
                assert_eq!(hw.changed(), []);
                // 3 places a way, 3 reads and 2 writes each: no more, and all of them.
                assert_eq!((hw.reads.len() as u64, hw.writes.len() as u64), (9 * count, 6 * count));
                let places: BTreeSet<u64> = hw.writes.iter().copied().collect();
                assert_eq!(places.len() as u64, 3 * count);
                assert!(places.contains(&base) && places.contains(&(base + size - 4)));
                let part = |from: u64, to: u64| -> Vec<u64> {
                    let mut part: Vec<u64> = places.range(from..to).map(|hpa| way(*hpa)).collect();
                    part.sort_unstable();
                    part
                };
                let all: Vec<u64> = (0..count).collect();
                let stripe = count * granule;
                assert_eq!(part(base, base + stripe), all, "{ways} {granularity:?} {maps:x?}");
                assert_eq!(part(base + size - stripe, base + size), all);
                // 512 MiB of each member's 768.
                let middle = base + count * 512 * MIB;
                assert_eq!(part(middle, middle + stripe), all);
                // Memory that takes no more writes once the marks are there.
                let mut order = Memory::new(|hpa, _| Some((0, hpa)));
                order.writes_left = 3 * count as usize;
                let errors = ask(&mut order, &mut of(&[one]));
                assert_eq!(kinds(&errors), [Code::PROBE_NOT_RESTORED]);
            }
        }
    }
}

#[test]
fn memory_that_does_not_answer_is_named_and_taken_out() {
    let (ways, granularity) = (Ways::Four, Granularity::B512);
    let good = region(4 * GIB, GIB, Ways::One, Granularity::B256);
    let bad = region(8 * GIB, 4 * GIB, ways, granularity);
    for miss in [!0, 0] {
        for lost in 0..4 {
            let mut hw = Memory::new(|hpa, _| {
                let way = member(hpa, 4, 512, &[]);
                (hpa < 8 * GIB || way != lost).then_some((way, hpa))
            });
            hw.miss = miss;
            let mut committed = of(&[good, bad]);
            let errors = ask(&mut hw, &mut committed);
            let [error] = errors[..] else { panic!("{errors:?}") };
            let (wrote, read) = <(u32, u32)>::unpack(error.found).unwrap();
            let not_held = Code::PROBE_NOT_HELD.at(Place::NOWHERE);
            let expected = not_held.expected(8 * GIB + 512 * lost).found((wrote, miss));
            assert_eq!(error, expected);
            assert_ne!(wrote, read);
            assert_eq!(bases(&committed), [4 * GIB]);
            assert_eq!(committed.regions[0].probed, Probed::Held);
            assert_eq!(hw.changed(), []);
        }
    }
}

#[test]
fn memory_that_drops_writes_is_found_whatever_it_holds() {
    let one = region(4 * GIB, GIB, Ways::One, Granularity::B256);
    // What it holds: as new, and the very marks of an earlier probe that was cut short.
    let mut cut = Memory::new(|hpa, _| Some((0, hpa)));
    cut.writes_left = 3;
    ask(&mut cut, &mut of(&[one]));
    assert_eq!(cut.changed().len(), 3);
    for cells in [BTreeMap::new(), cut.cells] {
        let mut hw = Memory::new(|hpa, _| Some((0, hpa)));
        hw.cells = cells;
        hw.writes_left = 0;
        let mut committed = of(&[one]);
        let errors = ask(&mut hw, &mut committed);
        assert_eq!(kinds(&errors), [Code::PROBE_NOT_HELD]);
        assert_eq!(bases(&committed), []);
    }
}

#[test]
fn two_addresses_of_one_place_are_found() {
    let ways = |base, ways| region(base, 4 * GIB, ways, Granularity::B256);
    let flat = |base| ways(base, Ways::One);
    type Route = fn(u64, bool) -> Option<Cell>;
    type Case = (&'static str, Vec<CommittedRegion>, Route, &'static [u64], u64, u64);
    // Regions, the way; the regions that stay; an address and the one that leads to the same place.
    let cases: [Case; 5] = [
        (
            "every way leads to one device",
            vec![ways(4 * GIB, Ways::Four), flat(8 * GIB)],
            |hpa, _| Some(if hpa < 8 * GIB { (0, hpa / 1024 * 256 + hpa % 256) } else { (9, hpa) }),
            &[8 * GIB],
            4 * GIB,
            4 * GIB + 3 * 256,
        ),
        (
            "a bridge deals out larger granules than its devices",
            vec![ways(4 * GIB, Ways::Two)],
            |hpa, _| Some((hpa / 512 % 2, hpa / 512 * 256 + hpa % 256)),
            &[],
            4 * GIB,
            4 * GIB + 256,
        ),
        (
            "two regions are one",
            vec![flat(4 * GIB), flat(8 * GIB), flat(12 * GIB)],
            |hpa, _| Some((hpa / (4 * GIB) / 2, hpa % (4 * GIB))),
            &[4 * GIB],
            8 * GIB,
            12 * GIB,
        ),
        (
            "half of the memory is there, and wraps",
            vec![flat(4 * GIB)],
            |hpa, _| Some((0, hpa % (2 * GIB))),
            &[],
            4 * GIB,
            6 * GIB,
        ),
        (
            "1 GiB of 3 is there, and wraps",
            vec![region(4 * GIB, 3 * GIB, Ways::One, Granularity::B256)],
            |hpa, _| Some((0, hpa % GIB)),
            &[],
            4 * GIB,
            6 * GIB,
        ),
    ];
    for (what, regions, route, stay, hpa, leads) in cases {
        let mut hw = Memory::new(route);
        let mut committed = of(&regions);
        let errors = ask(&mut hw, &mut committed);
        let aliased = Code::PROBE_ALIASED.error().expected(hpa).found(leads);
        assert_eq!(errors.first(), Some(&aliased), "{what}");
        assert_eq!(bases(&committed), stay, "{what}");
        assert_eq!(hw.changed(), [], "{what}");
    }
}

#[test]
fn persistent_memory_is_read_and_never_written() {
    let regions = [persistent(4 * GIB, GIB), region(8 * GIB, GIB, Ways::One, Granularity::B256)];
    for (device, miss) in [(Some(0), 0), (None, !0), (None, 0)] {
        let mut hw = Memory::new(|hpa, _| match hpa / (8 * GIB) {
            0 => device.map(|device| (device, hpa)),
            _ => Some((1, hpa)),
        });
        hw.miss = miss;
        let mut committed = of(&regions);
        // All-ones and zeroes may be what it holds.
        assert_eq!(ask(&mut hw, &mut committed), []);
        let probed: Vec<_> = committed.regions.iter().map(|region| region.probed).collect();
        assert_eq!(probed, [Probed::Read, Probed::Held]);
        assert!(hw.writes.iter().all(|hpa| *hpa >= 8 * GIB), "{:x?}", hw.writes);
        assert_eq!(hw.reads.iter().filter(|hpa| **hpa < 8 * GIB).count(), 9);
        assert_eq!(hw.changed(), []);
    }
}

#[test]
fn volatile_memory_that_is_really_persistent_memory_is_found_and_put_back() {
    let regions = [persistent(4 * GIB, GIB), region(8 * GIB, GIB, Ways::One, Granularity::B256)];
    let mut hw = Memory::new(|hpa, _| Some((0, hpa % (4 * GIB))));
    let mut committed = of(&regions);
    let errors = ask(&mut hw, &mut committed);
    assert_eq!(errors, [Code::PROBE_ALIASED.error().expected(4 * GIB).found(8 * GIB)]);
    assert_eq!(bases(&committed), []);
    assert_eq!(hw.changed(), []);
    // And memory that changes by itself.
    struct Restless(u32);
    impl Mmio for Restless {
        fn read(&mut self, _: u64) -> u32 {
            self.0 += 1;
            self.0
        }
        fn write(&mut self, _: u64, _: u32) {
            panic!("persistent memory is not written to");
        }
    }
    let mut committed = of(&regions[..1]);
    let errors = ask(&mut Restless(0), &mut committed);
    assert_eq!(kinds(&errors), [Code::PROBE_DISTURBED]);
    assert_eq!(bases(&committed), []);
}

#[test]
fn a_stray_write_does_not_have_the_last_word() {
    // Writes to the one region land in the other; reads of it find nothing.
    for (lost, good) in [(4 * GIB, 8 * GIB), (8 * GIB, 4 * GIB)] {
        let regions = [4 * GIB, 8 * GIB];
        let regions = regions.map(|base| region(base, GIB, Ways::Two, Granularity::B256));
        let mut hw = Memory::new(|hpa, write| {
            let astray = hpa & !(4 * GIB - 1) == lost;
            (write || !astray).then_some((0, hpa % (4 * GIB)))
        });
        let mut committed = of(&regions);
        let errors = ask(&mut hw, &mut committed);
        // Where the stray mark came last, the good one lost its own: neither can be trusted then.
        let [error] = errors[..] else { panic!("{errors:?}") };
        if good > lost {
            assert_eq!((error.code, error.expected), (Code::PROBE_NOT_HELD, lost));
            assert_eq!(bases(&committed), [good]);
        } else {
            assert_eq!(error, Code::PROBE_ALIASED.error().expected(good).found(lost));
            assert_eq!(bases(&committed), []);
        }
        assert_eq!(hw.changed(), []);
    }
}

#[test]
fn what_has_no_room_or_no_shape_is_refused() {
    let one = region(4 * GIB, GIB, Ways::Sixteen, Granularity::B256);
    let two = region(8 * GIB, GIB, Ways::Sixteen, Granularity::B256);
    let more = region(12 * GIB, GIB, Ways::One, Granularity::B256);
    let mut hw = Memory::new(|hpa, _| Some((0, hpa)));
    assert_eq!(ask(&mut hw, &mut of(&[one, two])), []);
    let accesses = hw.reads.len();
    let mut committed = of(&[one, two, more]);
    assert_eq!(ask(&mut hw, &mut committed), [Code::PROBE_CAPACITY.error().expected(32)]);
    assert_eq!((bases(&committed), hw.reads.len()), (vec![], accesses));
    for (size, stripe) in [(4096, 4096), (9 * 1024, 4096), (256, 4096)] {
        let odd = region(4 * GIB, size, Ways::Sixteen, Granularity::B256);
        let mut committed = of(&[odd, more]);
        let uneven = Code::PROBE_UNEVEN.error().detail(stripe / 256);
        let uneven = uneven.expected(odd.span.base()).found(odd.span.size());
        assert_eq!(ask(&mut hw, &mut committed), [uneven]);
        assert_eq!(bases(&committed), [12 * GIB]);
    }
}

#[test]
fn what_is_not_wanted_is_not_touched_and_stays() {
    let near = region(4 * GIB, GIB, Ways::One, Granularity::B256);
    let far = region(8 * GIB, GIB, Ways::One, Granularity::B256);
    let (platform, topology) = bare();
    for (wanted, probed) in [
        (Probe::Skip, [Probed::No, Probed::No]),
        (Probe::Below(Hpa(8 * GIB)), [Probed::Held, Probed::No]),
        (Probe::Below(Hpa(9 * GIB - 1)), [Probed::Held, Probed::No]),
        (Probe::Below(Hpa(9 * GIB)), [Probed::Held, Probed::Held]),
    ] {
        let mut hw = Memory::new(|hpa, _| Some((0, hpa)));
        let mut committed = of(&[near, far]);
        let mut errors = ProbeErrors::new();
        let result = probe(&mut hw, &platform, &topology, wanted, &mut committed, &mut errors);
        assert_eq!(result, Ok(()));
        let seen: Vec<_> = committed.regions.iter().map(|region| region.probed).collect();
        assert_eq!(seen, probed, "{wanted:?}");
        for (region, probed) in [near, far].iter().zip(probed) {
            let touched =
                hw.reads.iter().chain(&hw.writes).any(|hpa| region.span.contains(Hpa(*hpa)));
            assert_eq!(touched, probed == Probed::Held, "{wanted:?}");
        }
    }
}

#[test]
fn every_region_that_fails_is_taken_out_also_where_the_list_of_errors_is_full() {
    let regions: Vec<_> =
        (1..=20).map(|n| region(n * 4 * GIB, GIB, Ways::One, Granularity::B256)).collect();
    let (platform, topology) = bare();
    let mut errors = ProbeErrors::new();
    let mut committed = of(&regions);
    let mut hw = Memory::new(|hpa, _| (hpa < 8 * GIB).then_some((0, hpa)));
    let result = probe(&mut hw, &platform, &topology, Probe::All, &mut committed, &mut errors);
    assert!(result.is_err());
    assert_eq!((errors.list().len(), errors.more()), (16, 3));
    assert_eq!(bases(&committed), [4 * GIB]);
}

#[test]
fn an_error_names_the_device_and_its_decoders_serve_nothing() {
    // Two devices below a switch, a region each; of the second one nothing is routed.
    for machine in [simple(), switched()] {
        let mut m = machine;
        let policy = Policy::default();
        let plan = m.plan(&policy);
        let mut done = Committed::<16>::new();
        let result = commit(&mut m.hw, &mut Ticks::of(1), &m.topology, &plan, &policy, &mut done);
        assert_eq!(result.map(Receipt::keep), Ok(()));
        let last = *done.regions.last().expect("a region");
        let mut hw = Memory::new(|hpa, _| (hpa < last.span.base().0).then_some((0, hpa)));
        let mut errors = ProbeErrors::new();
        let error = probe(&mut hw, &m.platform(), &m.topology, Probe::All, &mut done, &mut errors);
        let error = error.expect_err("no memory there");
        let device = done.decoders.iter().find(|entry| {
            m.topology.tree().get(entry.node).is_some_and(|node| node.device().is_some())
                && entry.decoder.is_some_and(|decoder| decoder.span == last.span)
        });
        let device = m.topology.tree().path(device.expect("its decoder").node);
        let expected = (Code::PROBE_NOT_HELD, Place::from(device), last.span.base().0);
        assert_eq!((error.code, error.at, error.expected), expected);
        for entry in &done.decoders {
            let lost = entry.decoder.is_some_and(|decoder| decoder.span == last.span);
            assert_eq!(entry.fate == Fate::Stranded, lost, "{entry:?}");
        }
        let words = error.to_string();
        assert!(words.contains(&device.to_string()), "{words}");
        assert!(words.contains("0xffffffff"), "{words}");
    }
}
