//! One broken window costs what it alone would have held: in whichever way a window of a platform's table is
//! wrong, everything that other windows carry is in use, locked and described, and the table that is made does
//! not have it.
//!
//! **Invariant**: what a broken window may cost is taken from a run without the breakage: the devices that have
//! memory there. Everything else has to be as much as it was.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::{BTreeMap, BTreeSet};

use cxl_firmware::bring_up::Extent;
use cxl_firmware::committed::Fate;
use cxl_firmware::error::{Code, Error};
use cxl_firmware::handoff;
use cxl_firmware::platform::{Platform, Window};
use cxl_harness::run::{self, DirectRun, RunRequest};
use cxl_model::machine::Machine;
use cxl_model::scenario::{PathPolicy, Scenario, builtins};
use cxl_regs::acpi::cedt::Cedt;
use cxl_regs::{Arithmetic, Hpa, Span, Ways};

const MIB: u64 = 1 << 20;

/// The windows of a table, and what else answers somewhere.
#[derive(Clone)]
struct Board {
    windows: Vec<Window>,
    occupied: Vec<Span>,
}

impl Board {
    /// A window, and those that it shares an address with.
    fn meets(&self, at: usize) -> Vec<usize> {
        let range = |at: usize| {
            let window: &Window = &self.windows[at];
            window.base.unwrap().0..window.base.unwrap().0 + window.size
        };
        let own = range(at);
        let meets = |other: &usize| range(*other).start < own.end && own.start < range(*other).end;
        (0..self.windows.len()).filter(meets).collect()
    }
}

/// A way in which a window can be wrong: its name, and what it makes of one of a table's windows. Gives the
/// windows that cannot be used then; none where this one cannot be wrong so.
type Breakage = (&'static str, fn(&mut Board, usize) -> Vec<usize>);

const BREAKAGES: [Breakage; 12] = [
    ("a target that is no bridge", |board, at| {
        *board.windows[at].targets.last_mut().unwrap() = 0xDEAD;
        vec![at]
    }),
    ("too few targets", |board, at| {
        board.windows[at].targets.pop();
        vec![at]
    }),
    ("a target twice", |board, at| {
        let targets = &mut board.windows[at].targets;
        let [first, .., last] = &mut targets[..] else { return vec![] };
        *last = *first;
        vec![at]
    }),
    ("the base of another one", |board, at| {
        let other = (at + 1) % board.windows.len();
        board.windows[at].base = board.windows[other].base;
        board.meets(at)
    }),
    ("the end over another one", |board, at| {
        let own = board.windows[at].base;
        let others = board.windows.iter().map(|window| window.base);
        let Some(above) = others.filter(|base| *base > own).min() else { return vec![] };
        let need = above.unwrap().0 - own.unwrap().0 + 1;
        let ways = u64::from(board.windows[at].interleave.ways.count());
        board.windows[at].size = need.next_multiple_of(ways * 256 * MIB);
        board.meets(at)
    }),
    ("RAM in the middle", |board, at| {
        let window = &board.windows[at];
        let middle = window.base.unwrap().0 + window.size / 2;
        board.occupied.push(Span::new(Hpa(middle), 4096).unwrap());
        vec![at]
    }),
    ("over the chip set's registers", |board, at| {
        let window = &mut board.windows[at];
        window.size = 256 * MIB * u64::from(window.interleave.ways.count());
        window.base = Some(Hpa((4 << 30) - window.size));
        vec![at]
    }),
    ("XOR maps that cannot be", |board, at| {
        let window = &mut board.windows[at];
        if window.interleave.ways == Ways::One {
            return vec![];
        }
        window.arithmetic = Arithmetic::Xor;
        window.xor_maps.clear();
        window.xor_maps.extend([0; 3]);
        vec![at]
    }),
    ("a size off the grid", |board, at| {
        board.windows[at].size -= MIB;
        vec![at]
    }),
    ("a base off the grid", |board, at| {
        let window = &mut board.windows[at];
        window.base = window.base.map(|base| Hpa(base.0 + MIB));
        window.size -= 2 * MIB;
        vec![at]
    }),
    ("no bytes", |board, at| {
        board.windows[at].size = 0;
        vec![at]
    }),
    ("beyond the end of all addresses", |board, at| {
        board.windows[at].base = Some(Hpa(u64::MAX - 256 * MIB + 1));
        board.windows[at].size = 512 * MIB * u64::from(board.windows[at].interleave.ways.count());
        vec![at]
    }),
];

/// A best-effort run on what a table says.
fn on(machine: &mut Machine, board: &Board) -> DirectRun {
    let wanted = RunRequest::of(machine).unwrap().best_effort();
    let tables = run::platform(machine).unwrap();
    let Board { windows, occupied } = board;
    let platform = Platform { windows, occupied, ..tables.platform() };
    let mut clock = machine.clock();
    run::on(machine, &mut clock, &platform, &wanted)
}

/// Bytes in use of each device, by the window that they lie in.
fn bytes(machine: &Machine, done: &DirectRun) -> BTreeMap<(usize, Hpa), u64> {
    let mut bytes = BTreeMap::new();
    for region in &done.room.committed.regions {
        let granule = region.interleave.granularity.bytes();
        let ways = u64::from(region.interleave.ways.count());
        for way in 0..ways {
            let landing = machine.resolve(region.span.base().0 + way * granule).unwrap();
            *bytes.entry((landing.device, region.window)).or_default() += region.span.size() / ways;
        }
    }
    bytes
}

fn of_device(bytes: &BTreeMap<(usize, Hpa), u64>, device: usize) -> u64 {
    bytes.iter().filter(|((of, _), _)| *of == device).map(|(_, bytes)| bytes).sum()
}

/// What holds of every run, whatever is wrong with which windows.
fn check(machine: &Machine, done: &DirectRun, board: &Board, wrong: &[usize], what: &str) {
    let refusal = done.refusal.as_ref().map(ToString::to_string);
    assert_eq!(refusal, None, "{what}");
    let locks = machine.scenario().policy.path == PathPolicy::LockAll;
    let bases: BTreeSet<_> = wrong.iter().filter_map(|at| board.windows[*at].base).collect();
    for region in &done.room.committed.regions {
        assert!(region.locked || !locks, "{what}: {region:?}");
        assert!(!bases.contains(&region.window), "{what}: {region:?}");
    }
    let mut findings = done.room.findings.list().iter();
    assert_eq!(findings.find(|finding| finding.is_failure()), None, "{what}");
    let cedt = Cedt::read(&done.cedt).unwrap();
    cedt.check().unwrap();
    let described: BTreeSet<_> = cedt.windows().map(|window| window.span().base()).collect();
    let expected = board.windows.iter().enumerate().filter(|(at, _)| !wrong.contains(at));
    let expected: BTreeSet<_> = expected.filter_map(|(_, window)| window.base).collect();
    assert_eq!(described, expected, "{what}");
    // Each is told, by its address.
    let remarks = done.room.topology.remarks.list().iter();
    let told = remarks.filter(|remark| remark.code == Code::DISCOVER_WINDOW_BROKEN);
    let words: Vec<_> = told.map(ToString::to_string).collect();
    assert_eq!(words.len(), wrong.len(), "{what}: {words:?}");
    for base in &bases {
        assert!(words.iter().any(|words| words.contains(&base.to_string())), "{what}: {words:?}");
    }
}

/// Machines of several windows, with the windows that their tables have.
fn machines() -> impl Iterator<Item = (&'static str, Machine, Board)> {
    builtins().iter().filter_map(|builtin| {
        let mut machine = Machine::new(&Scenario::parse(builtin.text, builtin.name).unwrap());
        run::prepare(&mut machine).ok()?;
        let tables = run::platform(&machine).ok()?;
        let windows = tables.windows.to_vec();
        let placed = windows.iter().all(|window| window.base.is_some_and(|base| base.0 != 0));
        let occupied = machine.map().fixed().collect();
        (windows.len() > 1 && placed).then_some((
            builtin.name,
            machine,
            Board { windows, occupied },
        ))
    })
}

#[test]
fn a_broken_window_costs_what_it_alone_holds() {
    let mut seen = BTreeMap::new();
    for (name, mut machine, board) in machines() {
        let clean = on(&mut machine, &board);
        check(&machine, &clean, &board, &[], name);
        let had = bytes(&machine, &clean);
        for (how, breakage) in BREAKAGES {
            for at in 0..board.windows.len() {
                let mut broken = board.clone();
                let wrong = breakage(&mut broken, at);
                if wrong.is_empty() {
                    continue;
                }
                let what = format!("{name}: window {at} has {how}");
                let (_, mut machine, _) = machines().find(|(other, ..)| *other == name).unwrap();
                let done = on(&mut machine, &broken);
                check(&machine, &done, &broken, &wrong, &what);
                let has = bytes(&machine, &done);
                let mut lost = 0;
                for device in had.keys().map(|(device, _)| *device).collect::<BTreeSet<_>>() {
                    let lies =
                        |at: &usize| had.contains_key(&(device, board.windows[*at].base.unwrap()));
                    let (before, now) = (of_device(&had, device), of_device(&has, device));
                    let touched = wrong.iter().any(lies);
                    assert!(touched || now >= before, "{what}: device {device}: {now:#x}");
                    lost += before.saturating_sub(now);
                }
                // Where nothing is programmed, what a device loses is its window; and where something is lost
                // anyway, that may be what a window less makes room for.
                let is_known = !had.is_empty() && clean.extent == Extent::Whole;
                let told = done.extent != Extent::Whole;
                assert!(!is_known || told == (lost > 0), "{what}: {:?}", done.extent);
                let (fabric, again) = (machine.fabric(), on(&mut machine, &broken));
                check(&machine, &again, &broken, &wrong, &format!("{what}, again"));
                assert!(again.cedt == done.cedt, "{what}: the second run's table");
                assert_eq!(machine.fabric(), fabric, "{what}: the second run changed something");
                seen.entry(how).or_insert([0; 2])[usize::from(lost > 0)] += 1;
            }
        }
    }
    // Each breakage was met by a window that others could stand in for. Of one way there is only one target.
    assert_eq!(seen.len(), BREAKAGES.len(), "{seen:?}");
    let one_way = ["a target twice", "XOR maps that cannot be"];
    let both =
        |(how, seen): (&&str, &[u32; 2])| seen[0] > 0 && (seen[1] > 0 || one_way.contains(how));
    assert!(seen.iter().all(both), "{seen:?}");
}

/// What is committed already in a window that is broken by now leads nowhere that anybody is told of; all else
/// that is locked stays as it is.
#[test]
fn what_is_locked_in_a_broken_window_is_lost_and_not_described() {
    let mut seen = 0;
    for (name, mut machine, board) in machines() {
        let first = on(&mut machine, &board);
        let (had, fabric) = (bytes(&machine, &first), machine.fabric());
        if machine.scenario().policy.path != PathPolicy::LockAll || first.extent != Extent::Whole {
            continue;
        }
        for (at, window) in board.windows.iter().enumerate() {
            let base = window.base.unwrap();
            let mut broken = board.clone();
            broken.windows[at].targets.pop();
            let what = format!("{name}: window {at}");
            let (sound, inside): (Vec<_>, Vec<_>) =
                had.iter().partition(|((_, window), _)| *window != base);
            let done = on(&mut machine, &broken);
            assert_eq!(machine.fabric(), fabric, "{what}: what is locked was changed");
            let faults = done.room.topology.nodes.iter().filter_map(|node| node.fault);
            let remarks = done.room.topology.remarks.losses().copied();
            let lost: Vec<_> = faults.chain(remarks).filter(Error::is_failure).collect();
            if inside.is_empty() {
                assert!(lost.is_empty() && done.extent == Extent::Whole, "{what}: {lost:?}");
            } else {
                assert!(lost.iter().any(|error| is_about(error, base)), "{what}: {lost:?}");
            }
            check(&machine, &done, &broken, &[at], &what);
            let tree = done.room.topology.tree();
            for entry in &done.room.committed.decoders {
                let is_device = tree.get(entry.node).is_some_and(|node| node.device().is_some());
                let span = window.base.unwrap().0..window.base.unwrap().0 + window.size;
                let lies = span.contains(&entry.image.base());
                assert_eq!(is_device && lies, entry.fate == Fate::Stranded && is_device, "{what}");
            }
            assert_eq!(bytes(&machine, &done).iter().collect::<Vec<_>>(), sound, "{what}");
            seen += usize::from(!inside.is_empty() && !sound.is_empty());
        }
    }
    assert!(seen > 5, "{seen}");
}

/// Whether an error says, in words, that something is committed in a window that cannot be used, and why.
fn is_about(error: &Error, base: Hpa) -> bool {
    let says = error.to_string();
    error.code == Code::COMMIT_WINDOW_BROKEN
        && says.contains(&format!("committed in a window that cannot be used: window {base} "))
        && says.trim_end_matches('s').ends_with("target")
}

/// What nothing but a broken window could hold is lost, and why is said in words; strict, the whole machine is.
#[test]
fn a_device_whose_only_window_is_broken_says_which_and_why() {
    const TEXT: &str = r#"
        bridge = [{ uid = 16 }, { uid = 32 }]
        port = [{ below = "hb0" }, { below = "hb1" }]
        device = [
            { below = "port0", volatile = "256MiB" },
            { below = "port1", volatile = "256MiB" },
        ]
        window = [
            { targets = ["hb0"], size = "1GiB" },
            { targets = ["hb1", 99], size = "1GiB" },
        ]
    "#;
    let direct = |on_failure: &str| {
        let text = format!("policy.on_failure = \"{on_failure}\"\n{TEXT}");
        let mut machine = Machine::new(&Scenario::parse(&text, "test").unwrap());
        let done = run::direct(&mut machine);
        let record = handoff::read(&done.handoff).map(|record| {
            let outcomes = record.outcomes().map(|found| found.outcome);
            let words = outcomes.filter_map(|outcome| outcome.error().map(ToString::to_string));
            words.collect::<Vec<_>>()
        });
        (done.refusal.map(|refusal| refusal.to_string()), done.extent, record)
    };
    let why = "window 0x140000000: its target 99 is the UID of no bridge";
    let (refusal, ..) = direct("strict");
    assert!(refusal.as_ref().is_some_and(|words| words.contains(why)), "{refusal:?}");
    let (refusal, extent, record) = direct("best-effort");
    assert_eq!((refusal, extent), (None, Extent::Less { lost: 1 }));
    let device = format!("bridge 32 port 0: its window cannot be used: {why}");
    assert_eq!(record.unwrap(), [device]);
}
