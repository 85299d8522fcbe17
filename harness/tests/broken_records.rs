//! One broken window costs what it alone would have held, one broken bridge what lies below it: in whichever
//! way a record of a platform's table is wrong, by its values or so that it cannot be read, everything that does
//! not need it is in use, locked and described, and the table that is made does not have it.
//!
//! **Invariant**: what a broken record may cost is taken from a run without the breakage: the devices that have
//! memory in the window, or lie below the bridge. Everything else has to be as much as it was.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::{BTreeMap, BTreeSet};

use cxl_firmware::acpi::Tables;
use cxl_firmware::bring_up::Extent;
use cxl_firmware::committed::Fate;
use cxl_firmware::error::{Code, Error};
use cxl_firmware::handoff;
use cxl_firmware::platform::{Bridge, BridgeKind, Platform, RootBus, Window};
use cxl_firmware::topology::NodeKind;
use cxl_harness::run::{self, DirectRun, RunRequest};
use cxl_model::machine::Machine;
use cxl_model::scenario::{PathPolicy, Scenario, builtins};
use cxl_regs::acpi::cedt::Cedt;
use cxl_regs::acpi::cedt::wire::Kind;
use cxl_regs::{Arithmetic, Hpa, Span, Ways};

const MIB: u64 = 1 << 20;

/// What a table says, its bytes, and what else answers somewhere.
#[derive(Clone)]
struct Board {
    windows: Vec<Window>,
    bridges: Vec<Bridge>,
    unreadable: Vec<Error>,
    occupied: Vec<Span>,
    mcfg: Vec<u8>,
    cedt: Vec<u8>,
    bits: u8,
    roots: Vec<(u32, RootBus)>,
}

impl Board {
    fn of(machine: &Machine) -> Self {
        let (scenario, map) = (machine.scenario(), machine.map());
        let bytes = cxl_model::acpi::Tables::new(scenario, map, run::TABLES_BASE);
        let bridges = run::platform(machine).unwrap().bridges.to_vec();
        let roots = bridges.iter().filter_map(|bridge| Some((bridge.uid, bridge.root?)));
        let mut board = Self {
            windows: vec![],
            unreadable: vec![],
            occupied: map.fixed().collect(),
            mcfg: bytes.table(&bytes.mcfg).to_vec(),
            cedt: bytes.table(&bytes.cedt).to_vec(),
            bits: scenario.platform.physical_bits,
            roots: roots.collect(),
            bridges,
        };
        board.read();
        board
    }

    /// Reads the bytes, whatever is wrong with a record.
    fn read(&mut self) {
        let Self { mcfg, cedt, bits, roots, .. } = &*self;
        let tables = Tables::<32, 64>::from_acpi_in_part(mcfg, cedt, *bits, roots).unwrap();
        self.windows = tables.windows.to_vec();
        self.bridges = tables.bridges.to_vec();
        self.unreadable = tables.unreadable.to_vec();
    }

    /// Changes the bytes of the record of a kind that comes so far behind the first one, and reads the table.
    fn edit(&mut self, kind: Kind, at: usize, edit: impl FnOnce(&mut Vec<u8>)) {
        let cedt = Cedt::read(&self.cedt).unwrap();
        let records = cedt.raw_records().map(Result::unwrap);
        let mut of_kind = records.filter(|record| record.bytes[0] == kind as u8);
        let record = of_kind.nth(at).unwrap();
        let (start, end) = (record.offset, record.offset + record.bytes.len());
        let mut bytes = record.bytes.to_vec();
        edit(&mut bytes);
        self.cedt.splice(start..end, bytes);
        let length = self.cedt.len() as u32;
        self.cedt[4..8].copy_from_slice(&length.to_le_bytes());
        self.cedt[9] = 0;
        self.cedt[9] = self.cedt.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
        self.read();
    }

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

const BREAKAGES: [Breakage; 20] = [
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
    // The rest by bytes, at their offsets in the record.
    ("a code of ways that means nothing", |board, at| {
        board.edit(Kind::Cfmws, at, |record| record[0x18] = 0x0D);
        vec![at]
    }),
    ("an arithmetic that means nothing", |board, at| {
        board.edit(Kind::Cfmws, at, |record| record[0x19] = 2);
        vec![at]
    }),
    ("a code of granularity that means nothing", |board, at| {
        board.edit(Kind::Cfmws, at, |record| record[0x1C] = 7);
        vec![at]
    }),
    ("a record without its last target", |board, at| {
        board.edit(Kind::Cfmws, at, |record| {
            record.truncate(record.len() - 4);
            record[2] -= 4;
        });
        vec![at]
    }),
    ("a target twice in the record", |board, at| {
        if board.windows[at].targets.len() < 2 {
            return vec![];
        }
        board.edit(Kind::Cfmws, at, |record| record.copy_within(0x24..0x28, 0x28));
        vec![at]
    }),
    ("a base off the grid in the record", |board, at| {
        board.edit(Kind::Cfmws, at, |record| record[0x0A] ^= 0x10);
        board.meets(at)
    }),
    ("no bytes in the record", |board, at| {
        board.edit(Kind::Cfmws, at, |record| record[0x10..0x18].fill(0));
        vec![at]
    }),
    ("all ones behind its base", |board, at| {
        board.edit(Kind::Cfmws, at, |record| record[0x10..].fill(0xFF));
        let above = |other: &usize| board.windows[*other].base >= board.windows[at].base;
        (0..board.windows.len()).filter(above).collect()
    }),
];

/// A best-effort run on what a table says.
fn on(machine: &mut Machine, board: &Board) -> DirectRun {
    let wanted = RunRequest::of(machine).unwrap().best_effort();
    as_wanted(machine, board, &wanted)
}

/// Why a strict one is refused.
fn strictly(machine: &mut Machine, board: &Board) -> Option<String> {
    let wanted = RunRequest::of(machine).unwrap().strict();
    as_wanted(machine, board, &wanted).refusal.map(|refusal| refusal.to_string())
}

fn as_wanted(machine: &mut Machine, board: &Board, wanted: &RunRequest) -> DirectRun {
    let tables = run::platform(machine).unwrap();
    let Board { windows, bridges, unreadable, occupied, .. } = board;
    let platform = Platform { windows, bridges, unreadable, occupied, ..tables.platform() };
    let mut clock = machine.clock();
    run::on(machine, &mut clock, &platform, wanted)
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
        run::platform(&machine).ok()?;
        let board = Board::of(&machine);
        let mut bases = board.windows.iter().map(|window| window.base);
        let placed = bases.all(|base| base.is_some_and(|base| base.0 != 0));
        (board.windows.len() > 1 && placed).then_some((builtin.name, machine, board))
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
    let one_way = ["a target twice", "a target twice in the record", "XOR maps that cannot be"];
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
        let windows = board.windows.iter().enumerate();
        for (at, window, readable) in windows.flat_map(|(at, w)| [(at, w, true), (at, w, false)]) {
            let base = window.base.unwrap();
            let mut broken = board.clone();
            match readable {
                true => drop(broken.windows[at].targets.pop()),
                false => broken.edit(Kind::Cfmws, at, |record| record[0x1C] = 7),
            }
            let what = format!("{name}: window {at}, readable: {readable}");
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
                let why = match readable {
                    true => "target",
                    false => "interleave granularity code 0x7 is reserved (defined: 0-6)",
                };
                assert!(lost.iter().any(|error| is_about(error, base, why)), "{what}: {lost:?}");
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
fn is_about(error: &Error, base: Hpa, why: &str) -> bool {
    let says = error.to_string();
    error.code == Code::COMMIT_WINDOW_BROKEN
        && says.contains(&format!("committed in a window that cannot be used: window {base}"))
        && says.trim_end_matches('s').ends_with(why)
}

/// A way in which a bridge can be wrong: its name, and what it makes of one of a table's bridges. Gives the UIDs
/// that lead nowhere then; none where this one cannot be wrong so.
type BrokenBridge = (&'static str, fn(&mut Board, usize) -> Vec<u32>);

/// One bridge is wrong by the bytes of its record.
fn chbs(board: &mut Board, at: usize, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u32> {
    let uid = board.bridges[at].uid;
    board.edit(Kind::Chbs, at, edit);
    vec![uid]
}

const BROKEN_BRIDGES: [BrokenBridge; 12] = [
    ("a version that means nothing", |board, at| chbs(board, at, |record| record[8] = 2)),
    ("a length of neither version", |board, at| chbs(board, at, |record| record[0x19] = 0x40)),
    ("no base", |board, at| chbs(board, at, |record| record[0x10..0x18].fill(0))),
    ("a base at the end of all addresses", |board, at| {
        chbs(board, at, |record| record[0x10..0x18].fill(0xFF))
    }),
    ("a record without its length of registers", |board, at| {
        chbs(board, at, |record| {
            record.truncate(0x18);
            record[2] = 0x18;
        })
    }),
    ("the UID of another one in its record", |board, at| {
        let other = board.bridges[(at + 1) % board.bridges.len()].uid;
        let mut both = chbs(board, at, |record| record[4..8].copy_from_slice(&other.to_le_bytes()));
        both.push(other);
        both
    }),
    ("registers at 0", |board, at| {
        board.bridges[at].registers = Hpa(0);
        vec![board.bridges[at].uid]
    }),
    ("registers off the grid", |board, at| {
        board.bridges[at].registers.0 += 0x1000;
        vec![board.bridges[at].uid]
    }),
    ("registers where nothing answers", |board, at| {
        board.bridges[at].registers = Hpa(0xEFFF_0000);
        vec![board.bridges[at].uid]
    }),
    ("registers at the end of all addresses", |board, at| {
        board.bridges[at].registers = Hpa(u64::MAX - 0xFFF);
        vec![board.bridges[at].uid]
    }),
    ("the root bus of another one", |board, at| {
        let other = (at + 1) % board.bridges.len();
        board.bridges[at].root = board.bridges[other].root;
        vec![board.bridges[at].uid, board.bridges[other].uid]
    }),
    ("the registers of a CXL 1.1 host", |board, at| {
        board.bridges[at].kind = BridgeKind::Rcrb;
        vec![board.bridges[at].uid]
    }),
];

#[test]
fn a_broken_bridge_costs_what_lies_below_it() {
    let mut seen = BTreeMap::new();
    for (name, mut machine, board) in machines() {
        if board.bridges.len() < 2 {
            continue;
        }
        let clean = on(&mut machine, &board);
        let had = bytes(&machine, &clean);
        for (how, breakage) in BROKEN_BRIDGES {
            for at in 0..board.bridges.len() {
                if board.bridges[at].kind == BridgeKind::Rcrb {
                    continue;
                }
                let mut broken = board.clone();
                let wrong = breakage(&mut broken, at);
                let what = format!("{name}: bridge {at} has {how}");
                let (_, mut machine, _) = machines().find(|(other, ..)| *other == name).unwrap();
                if let Some(error) = broken.unreadable.first() {
                    // A strict run is refused by what no table could be read for.
                    let refusal = strictly(&mut machine, &broken)
                        .map(|words| words.contains(&error.to_string()));
                    assert_eq!(refusal, Some(true), "{what}");
                }
                let done = on(&mut machine, &broken);
                // A window that leads to what the table does not have is broken too.
                let known = |uid: &u32| broken.bridges.iter().any(|bridge| bridge.uid == *uid);
                let windows = 0..broken.windows.len();
                let windows: Vec<_> =
                    windows.filter(|at| !broken.windows[*at].targets.iter().all(known)).collect();
                check(&machine, &done, &broken, &windows, &what);
                // Which of two is right nobody knows, so neither is used.
                for node in &done.room.topology.nodes {
                    let NodeKind::HostBridge { uid } = node.kind else { continue };
                    assert!(node.fault.is_some() || !wrong.contains(&uid), "{what}: {uid}");
                }
                let has = bytes(&machine, &done);
                let mut kept = 0;
                for device in had.keys().map(|(device, _)| *device).collect::<BTreeSet<_>>() {
                    let touched = board.windows.iter().any(|window| {
                        had.contains_key(&(device, window.base.unwrap()))
                            && window.targets.iter().any(|uid| wrong.contains(uid))
                    });
                    let (before, now) = (of_device(&had, device), of_device(&has, device));
                    assert!(touched || now >= before, "{what}: device {device}: {now:#x}");
                    kept += now;
                }
                // It is told, by its UID or by where its record stands; and a bridge that is a CXL 1.1 host by
                // what the table says is none that could be lost.
                let remarks = done.room.topology.remarks.losses().copied();
                let faults = done.room.topology.nodes.iter().filter_map(|node| node.fault);
                let told: Vec<_> = remarks.chain(faults).map(|error| error.to_string()).collect();
                let is_named = |words: &String| {
                    let names = |uid: &u32| words.contains(&uid.to_string());
                    words.starts_with("CEDT: byte 0x")
                        || words.contains("bridge") && wrong.iter().any(names)
                };
                assert!(told.iter().any(is_named), "{what}: {told:?}");
                let restricted = board.bridges[at].kind
                    != broken.bridges.get(at).map_or(board.bridges[at].kind, |bridge| bridge.kind);
                assert!(restricted || done.extent != Extent::Whole, "{what}");
                let (fabric, again) = (machine.fabric(), on(&mut machine, &broken));
                check(&machine, &again, &broken, &windows, &format!("{what}, again"));
                assert!(again.cedt == done.cedt, "{what}: the second run's table");
                assert_eq!(machine.fabric(), fabric, "{what}: the second run changed something");
                seen.entry(how).or_insert([0; 2])[usize::from(kept > 0)] += 1;
            }
        }
    }
    // Each breakage was met by a machine with other bridges that had memory, and kept it.
    assert_eq!(seen.len(), BROKEN_BRIDGES.len(), "{seen:?}");
    assert!(seen.values().all(|[_, kept]| *kept > 0), "{seen:?}");
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
