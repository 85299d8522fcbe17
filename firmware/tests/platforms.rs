//! Platforms as they are: several windows for one bridge, windows that begin at 0 and end at a hole,
//! sets whose members are named, sets that lose one.
//!
//! **Invariant**: every plan here keeps the laws of [`board`], which asks the planner nothing; what
//! goes where is typed by hand.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod board;

use board::{Board, GIB, UNIT, members, path};
use cxl_firmware::error::{Code, Error};
use cxl_firmware::plan::{Note, Purpose, Reason, Unfit};
use cxl_firmware::platform::Restrictions;
use cxl_firmware::policy::{
    BrokenSets, OnFailure, Policy, Prefer, SetRequest, TargetSystem, Width,
};
use cxl_firmware::topology::{NodeId, Path};
use cxl_regs::{Arithmetic, Granularity, Hpa, Span, Ways};

const WIDE: u64 = 0x2DF_8000_0000;
const VOLATILE: u64 = 0x3DF_8000_0000;
const PERSISTENT: u64 = 0xC7E_8000_0000;

/// Bases and sizes of the regions, in GiB of the window they lie in, and how many share each.
fn regions(board: &Board, policy: &Policy<'_>) -> Result<Vec<(u64, u64, usize)>, u16> {
    let plan = board.plan(policy).map_err(|error| error.code())?;
    board.check(&plan);
    let regions = plan.regions.iter();
    Ok(regions.map(|r| (r.span.base().0, r.span.size(), plan.members(r).len())).collect())
}

/// What a two-socket server lists for one socket: four bridges, one 4-way window by XOR over all of
/// them, and for each a window of its own for volatile memory and one for persistent memory. Each
/// has a device with 1 GiB of both.
fn server() -> Board {
    let mut board = Board::new();
    for uid in [3, 0x23, 0x43, 0x53] {
        let bridge = board.bridge(uid);
        let port = board.root_port(bridge, 0);
        board.memory(port, GIB, GIB);
    }
    let volatile = Restrictions::from_bits(0x06);
    let wide = board.window(WIDE, 64 * GIB, &[3, 0x23, 0x43, 0x53]);
    (wide.arithmetic, wide.restrictions) = (Arithmetic::Xor, volatile);
    wide.xor_maps.extend([0x40_4100, 0x80_8200]);
    for (at, uid) in (0..).zip([3, 0x23, 0x43, 0x53]) {
        board.window(VOLATILE + at * 16 * GIB, 16 * GIB, &[uid]).restrictions = volatile;
        let persistent = board.window(PERSISTENT + at * 16 * GIB, 16 * GIB, &[uid]);
        persistent.restrictions = Restrictions::from_bits(0x0A);
    }
    board
}

fn one_each(base: u64) -> impl Iterator<Item = (u64, u64, usize)> {
    (0..4).map(move |at| (base + at * 16 * GIB, GIB, 1))
}

#[test]
fn of_several_windows_the_one_that_the_policy_prefers_is_taken() {
    let board = server();
    let widest = Policy { width: Width::Widest, ..Policy::default() };
    assert_eq!(regions(&board, &widest), Err(0x0303));
    let wide: Vec<_> = [(WIDE, 4 * GIB, 4)].into_iter().chain(one_each(PERSISTENT)).collect();
    let narrow: Vec<_> = one_each(VOLATILE).chain(one_each(PERSISTENT)).collect();
    for (prefer, expected) in
        [(Prefer::Widest, &wide), (Prefer::Narrowest, &narrow), (Prefer::Lowest, &wide)]
    {
        let policy = Policy { prefer: Some(prefer), ..widest };
        assert_eq!(regions(&board, &policy).as_ref(), Ok(expected), "{prefer:?}");
        assert_eq!(regions(&board.reordered(&[5, 1, 7, 2]), &policy).as_ref(), Ok(expected));
    }
    // Flat, there is one window for each kind of memory; a second one is a choice.
    assert_eq!(regions(&board, &Policy::default()), Ok(narrow.clone()));
    let mut more = board.clone();
    more.window(0x1000_0000_0000, 16 * GIB, &[3]);
    assert_eq!(regions(&more, &Policy::default()), Err(0x0303));
    let lowest = Policy { prefer: Some(Prefer::Lowest), ..Policy::default() };
    assert_eq!(regions(&more, &lowest), Ok(narrow));
    // What it is refused for says what would help.
    let error = more.plan(&Policy::default()).unwrap_err().to_string();
    assert!(error.ends_with("give one a width of its own, or say which to prefer"), "{error}");
}

#[test]
fn what_the_preferred_window_has_no_set_for_goes_to_the_next() {
    // One device is missing, so that there is no 4-way set.
    let mut board = server();
    board.nodes.pop();
    let widest = Policy { width: Width::Widest, ..Policy::default() };
    let policy = Policy { prefer: Some(Prefer::Widest), ..widest };
    let expected: Vec<_> = one_each(VOLATILE).take(3).chain(one_each(PERSISTENT).take(3)).collect();
    assert_eq!(regions(&board, &policy), Ok(expected));
    // With no other window the set's own error is told.
    board.windows.retain(|window| window.interleave.ways != Ways::One);
    assert_eq!(regions(&board, &policy), Err(0x0328));
    // One bridge has two devices: the second one is in no set of four.
    let mut board = server();
    let port = board.root_port(NodeId(0), 9);
    board.memory(port, 2 * GIB, 0);
    let expected: Vec<_> = [(WIDE, 4 * GIB, 4), (VOLATILE, 2 * GIB, 1)]
        .into_iter()
        .chain(one_each(PERSISTENT))
        .collect();
    assert_eq!(regions(&board, &policy), Ok(expected));
}

/// Two bridges with two ports each, a device of 1 GiB behind each; one window over both, and one for
/// each.
fn four() -> Board {
    let mut board = Board::new();
    for uid in [7, 9] {
        let bridge = board.bridge(uid);
        for number in [2, 5] {
            let port = board.root_port(bridge, number);
            board.memory(port, GIB, 0);
        }
    }
    board.window(64 * GIB, 16 * GIB, &[9, 7]).interleave.granularity = Granularity::K1;
    board.window(96 * GIB, 16 * GIB, &[7]);
    board.window(128 * GIB, 16 * GIB, &[9]);
    board
}

const ALL: [(u32, u8); 4] = [(7, 2), (7, 5), (9, 2), (9, 5)];

fn set(places: &[(u32, u8)]) -> SetRequest {
    let places: Vec<Path> = places.iter().map(|&(uid, port)| path(uid, &[port])).collect();
    members(&places)
}

#[test]
fn a_set_has_the_members_that_are_named() {
    let board = four();
    // All four, in any order: the window's targets vary fastest, then ports.
    for order in [[0, 1, 2, 3], [3, 1, 0, 2]] {
        let sets = [set(&order.map(|at| ALL[at]))];
        let policy = Policy { sets: &sets, ..Policy::default() };
        let plan = board.plan(&policy).unwrap();
        board.check(&plan);
        let [region] = plan.regions.as_slice() else { panic!("one region") };
        assert_eq!((region.span.base().0, region.span.size()), (64 * GIB, 4 * GIB));
        assert_eq!(region.reason, Reason::Members);
        let topology = board.topology();
        let at = |member: &cxl_firmware::plan::Member| topology.tree().path(member.device);
        let found: Vec<_> = plan.members(region).iter().map(at).collect();
        assert_eq!(found, [(9, 2), (7, 2), (9, 5), (7, 5)].map(|(uid, p)| path(uid, &[p])));
    }
    // One of each; the others are mapped as the policy says.
    let sets = [set(&[(9, 5), (7, 2)])];
    let policy = Policy { sets: &sets, ..Policy::default() };
    let expected = [(64 * GIB, 2 * GIB, 2), (96 * GIB, GIB, 1), (128 * GIB, GIB, 1)];
    assert_eq!(regions(&board, &policy), Ok(expected.to_vec()));
    // Both below one bridge, in its own window, at a granularity of their own, and a part of them.
    let sets = [SetRequest {
        granularity: Some(Granularity::K4),
        size: Some(2 * UNIT),
        skip: UNIT,
        offset: Some(2 * UNIT),
        ..set(&[(9, 5), (9, 2)])
    }];
    let policy = Policy { sets: &sets, ..Policy::default() };
    let plan = board.plan(&policy).unwrap();
    board.check(&plan);
    let region = plan.regions.last().unwrap();
    assert_eq!((region.span.base().0, region.span.size()), (128 * GIB + 2 * UNIT, 2 * UNIT));
    assert_eq!(region.levels.bridge.granularity, Granularity::K4);
    assert!(plan.members(region).iter().all(|m| (m.dpa.base().0, m.dpa.size()) == (UNIT, UNIT)));
    let unused = plan
        .notes
        .iter()
        .filter(|note| matches!(note, Note::Unused { size, .. } if *size == 3 * UNIT));
    assert_eq!(unused.count(), 2);
}

#[test]
fn a_set_that_cannot_be_is_refused_with_what_stands_against_it() {
    type Change = fn(&mut Board, &mut SetRequest);
    let cases: [(u16, Change); 14] = [
        (0x0332, |_, set| assert!(set.members.pop().is_some())),
        // Two below one bridge: the window over both has one bridge too few.
        (0x0328, |board, set| {
            board.windows.truncate(1);
            set.members = self::set(&[(7, 2), (7, 5)]).members;
        }),
        (0x0328, |_, set| set.members[1] = path(7, &[2])),
        (0x0311, |_, set| set.members[1] = path(7, &[9])),
        (0x0331, |board, _| drop(board.windows.remove(0))),
        (0x0312, |_, set| set.window = Some(Hpa(96 * GIB))),
        (0x0312, |_, set| set.window = Some(Hpa(97 * GIB))),
        (0x0327, |_, set| set.granularity = Some(Granularity::K4)),
        (0x0313, |_, set| set.size = Some(5 * GIB)),
        (0x0314, |_, set| set.size = Some(3 * UNIT)),
        (0x0314, |_, set| set.skip = 3),
        (0x0314, |_, set| set.offset = Some(3)),
        (0x0315, |_, set| set.offset = Some(13 * GIB)),
        (0x0303, |board, _| board.window(256 * GIB, 16 * GIB, &[7, 9]).qtg = 0),
    ];
    for (index, (code, change)) in cases.into_iter().enumerate() {
        let (mut board, mut asked) = (four(), set(&ALL));
        change(&mut board, &mut asked);
        let sets = [asked];
        let policy = Policy { sets: &sets, ..Policy::default() };
        assert_eq!(regions(&board, &policy), Err(code), "case {index}");
    }
    // The refusal of a window that is no place for one device says how it would be one for several.
    let error = Code::PLAN_INTERLEAVED.at(path(7, &[2])).detail(Ways::Two).found(WIDE);
    assert!(error.to_string().ends_with("or name the members of one"), "{error}");
}

/// Twelve bridges with 1 GiB each. The window at 0 ends at 2 GiB, where the hole below 4 GiB begins;
/// twelve shares of 256 MiB are 3 GiB. The rest of the memory follows at 4 GiB.
fn hole() -> Board {
    let mut board = Board::new();
    let uids: Vec<u32> = (1..=12).collect();
    for &uid in &uids {
        board.bridge_with_memory(uid, GIB);
    }
    board.window(4 * GIB, 12 * GIB, &uids);
    board.window(0, 2 * GIB, &uids).base = Some(Hpa(0));
    board.occupied = vec![Span::new(Hpa(64 * GIB), GIB).unwrap()];
    board
}

fn around_the_hole() -> [SetRequest; 2] {
    let all: Vec<Path> = (1..=12).map(|uid| path(uid, &[0])).collect();
    let low = SetRequest { window: Some(Hpa(0)), size: Some(3 * GIB), ..members(&all) };
    [low, SetRequest { window: Some(Hpa(4 * GIB)), ..members(&all) }]
}

#[test]
fn decoders_claim_whole_shares_where_a_window_at_0_ends_at_a_hole() {
    let (board, sets) = (hole(), around_the_hole());
    // Linux has no window for such ranges.
    let policy = Policy { sets: &sets, ..Policy::default() };
    assert_eq!(regions(&board, &policy), Err(0x0333));
    let policy = Policy { target: TargetSystem::Specification, ..policy };
    let plan = board.plan(&policy).unwrap();
    board.check(&plan);
    let spans: Vec<_> = plan.regions.iter().map(|r| (r.span.base().0, r.span.size())).collect();
    assert_eq!(spans, [(0, 3 * GIB), (4 * GIB, 9 * GIB)]);
    // Two decoders on each device and bridge, and device memory in the same order.
    assert_eq!(plan.decoders.len(), 2 * 24);
    for planned in &plan.decoders {
        let Purpose::Region { decoder, .. } = planned.purpose else { panic!("{planned:?}") };
        let expected = [(0, 3 * GIB), (4 * GIB, 9 * GIB)][usize::from(planned.index)];
        assert_eq!((decoder.span.base().0, decoder.span.size()), expected);
    }
    let dpa = |region| plan.members(region).iter().map(|m| (m.dpa.base().0, m.dpa.size()));
    assert!(dpa(&plan.regions[0]).all(|found| found == (0, UNIT)));
    assert!(dpa(&plan.regions[1]).all(|found| found == (UNIT, 3 * UNIT)));
}

#[test]
fn a_window_at_0_is_one_only_where_nothing_else_is_known_to_lie() {
    type Change = fn(&mut Board, &mut [SetRequest; 2]);
    let cases: [(u16, Change); 6] = [
        // Nobody said where RAM is, or it lies there: platforms write 0 where they found no place.
        (0x0305, |board, _| board.occupied.clear()),
        (0x0305, |board, _| board.occupied.push(Span::new(Hpa(0), UNIT).unwrap())),
        // More than the share that ends in the hole.
        (0x0308, |_, sets| sets[0].size = Some(6 * GIB)),
        // Something else answers where decoders would claim more than their window.
        (0x0308, |board, _| board.window(2 * GIB + 2 * UNIT, UNIT, &[1]).qtg = 0),
        // Only a window at 0 may.
        (0x0308, |board, _| board.windows[1].base = Some(Hpa(32 * GIB))),
        (0x0308, |board, _| board.windows[1].base = Some(Hpa(UNIT))),
    ];
    for (index, (code, change)) in cases.into_iter().enumerate() {
        let (mut board, mut sets) = (hole(), around_the_hole());
        change(&mut board, &mut sets);
        sets[0].window = board.windows[1].base;
        let target = TargetSystem::Specification;
        let policy = Policy { sets: &sets, target, ..Policy::default() };
        assert_eq!(regions(&board, &policy), Err(code), "case {index}");
    }
    // Windows without a place cost those nothing that do not need them, however many there are.
    let mut board = four();
    for _ in 0..2 {
        board.window(0, 16 * GIB, &[7, 9]).base = Some(Hpa(0));
    }
    let sets = [set(&ALL)];
    let policy = Policy { sets: &sets, ..Policy::default() };
    assert_eq!(regions(&board, &policy), Ok(vec![(64 * GIB, 4 * GIB, 4)]));
}

#[test]
fn a_window_at_0_holds_flat_memory_as_any_other() {
    let mut board = Board::new();
    board.bridge_with_memory(7, GIB);
    board.window(0, 2 * GIB, &[7]).base = Some(Hpa(0));
    board.occupied = vec![Span::new(Hpa(4 * GIB), GIB).unwrap()];
    assert_eq!(regions(&board, &Policy::default()), Ok(vec![(0, GIB, 1)]));
}

/// What a best effort makes of the machine once a device has a fault.
fn without(board: &Board, lost: usize, policy: &Policy<'_>) -> Result<Vec<(u64, u64, usize)>, u16> {
    let mut board = board.clone();
    let devices = (0..).zip(&board.nodes).filter(|(_, node)| node.device().is_some());
    let id = { devices }.nth(lost).unwrap().0;
    let fault: Error = Code::COMMIT_REFUSED.at(path(1, &[]));
    board.node(NodeId(id)).fault = Some(fault);
    regions(&board, policy)
}

#[test]
fn what_becomes_of_a_broken_set_the_policy_says() {
    let (board, sets) = (four(), [set(&ALL)]);
    let best = Policy { on_failure: OnFailure::BestEffort, ..Policy::default() };
    let flat = vec![(96 * GIB, GIB, 1), (128 * GIB, GIB, 1), (129 * GIB, GIB, 1)];
    // A set that names its members: each of the others is left to what the policy says otherwise.
    for (broken_sets, expected) in [
        (BrokenSets::Narrower, flat.clone()),
        (BrokenSets::Flat, flat.clone()),
        (BrokenSets::Unused, vec![]),
    ] {
        let policy = Policy { broken_sets, sets: &sets, ..best };
        assert_eq!(without(&board, 0, &policy), Ok(expected), "{broken_sets:?}");
    }
    // Exactly four ways of three devices: two ways of one each, and a range for the third; ranges for
    // all; or nothing.
    let exactly = cxl_regs::Interleave::new(Ways::Four, Granularity::K1);
    let windows = [cxl_firmware::policy::WindowWidth {
        window: Hpa(64 * GIB),
        width: Width::Exactly(exactly),
    }];
    let narrower = vec![(64 * GIB, 2 * GIB, 2), (128 * GIB, GIB, 1)];
    for (broken_sets, expected) in [
        (BrokenSets::Narrower, Ok(narrower)),
        (BrokenSets::Flat, Ok(flat)),
        (BrokenSets::Unused, Ok(vec![])),
    ] {
        let policy = Policy { broken_sets, windows: &windows, ..best };
        assert_eq!(without(&board, 0, &policy), expected, "{broken_sets:?}");
    }
}

/// What best effort plans, and what is told of the windows that it leaves alone.
fn without_broken(board: &Board, policy: &Policy<'_>) -> (Vec<(u64, u64, usize)>, Vec<String>) {
    let policy = Policy { on_failure: OnFailure::BestEffort, ..*policy };
    let found = regions(board, &policy).unwrap();
    let (platform, topology) = (board.platform(), board.topology());
    let plan = board.plan(&policy).unwrap();
    let refused = plan.refused(&platform, topology.tree(), &policy, 0);
    let broken = refused.filter(|refused| matches!(refused.why, Unfit::Broken { .. }));
    (found, broken.map(|refused| refused.to_string()).collect())
}

#[test]
fn a_broken_window_is_left_alone_and_its_set_goes_where_it_can() {
    let policy = Policy { width: Width::Widest, prefer: Some(Prefer::Widest), ..Policy::default() };
    let mut board = server();
    board.windows[0].xor_maps[1] = 0x40_4100;
    // Strict, that is the end.
    assert_eq!(regions(&board, &policy), Err(0x031C));
    let (found, words) = without_broken(&board, &policy);
    assert_eq!(found, one_each(VOLATILE).chain(one_each(PERSISTENT)).collect::<Vec<_>>());
    let [words] = &words[..] else { panic!("{words:?}") };
    let start = "window 0x2df80000000 cannot be used: window 0x2df80000000: ";
    assert!(words.starts_with(start), "{words}");
    // In whatever order windows are listed.
    assert_eq!(without_broken(&board.reordered(&[5, 1, 7, 2]), &policy).0, found);
}

#[test]
fn neither_of_two_windows_is_used_that_contradict_each_other() {
    let policy = Policy { width: Width::Widest, prefer: Some(Prefer::Widest), ..Policy::default() };
    // Another XOR window of the same granularity over the same bridges, with other maps: a table has one
    // set for both, whichever is right.
    let mut board = server();
    let volatile = Restrictions::from_bits(0x06);
    let other = board.window(0x1000_0000_0000, 64 * GIB, &[3, 0x23, 0x43, 0x53]);
    (other.arithmetic, other.restrictions) = (Arithmetic::Xor, volatile);
    other.xor_maps.extend([0x40_4100, 0x100_8200]);
    let narrow: Vec<_> = one_each(VOLATILE).chain(one_each(PERSISTENT)).collect();
    let (found, words) = without_broken(&board, &policy);
    assert_eq!((found, words.len()), (narrow, 2), "{words:?}");
    let (own, other) = ("0x2df80000000", "0x100000000000");
    let maps = "have different XOR maps for 256 B; a CEDT has one set for both";
    let say = |own, other| format!("window {own} cannot be used: windows {own} and {other} {maps}");
    assert_eq!(words, [say(own, other), say(other, own)]);
    // The volatile windows of two bridges overlap: their memory is in the wide one, where it always was, or
    // it has no place.
    let mut board = server();
    board.windows[1].size = 20 * GIB;
    assert_eq!(regions(&board, &policy), Err(0x0307));
    let (found, words) = without_broken(&board, &policy);
    let wide: Vec<_> = [(WIDE, 4 * GIB, 4)].into_iter().chain(one_each(PERSISTENT)).collect();
    assert_eq!((found, words.len()), (wide, 1), "{words:?}");
    let flat = Policy { on_failure: OnFailure::BestEffort, ..Policy::default() };
    let found = regions(&board, &flat).unwrap();
    let volatile: Vec<_> =
        one_each(VOLATILE).filter(|(base, ..)| *base >= VOLATILE + 32 * GIB).collect();
    let persistent = one_each(PERSISTENT);
    assert_eq!(found, volatile.into_iter().chain(persistent).collect::<Vec<_>>());
}
