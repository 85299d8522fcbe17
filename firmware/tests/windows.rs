//! Windows that the library sizes and places: by hand for a few machines, and what holds for any.
//!
//! **Invariant**: expected values are typed by hand from the board; the laws do their own arithmetic.

mod board;

use board::{Board, GIB, UNIT, bi};
use cxl_firmware::error::{Code, Place};
use cxl_firmware::heapless::Vec as List;
use cxl_firmware::platform::{Platform, Window};
use cxl_firmware::policy::{PathPolicy, Policy};
use cxl_firmware::topology::{DeviceKind, NodeId};
use cxl_firmware::windows::{Sizing, place};
use cxl_firmware::{Error, plan};
use cxl_regs::{Granularity, Hpa, Span, Ways};
use proptest::prelude::*;

fn span(base: u64, end: u64) -> Span {
    Span::new(Hpa(base), end - base).expect("a range")
}

type Windows = List<Window, 40>;

fn sized(board: &Board, free: &[Span], across: bool) -> Result<Windows, Error> {
    let mut windows = Windows::new();
    let sizing = Sizing { free, across: across.then_some(Granularity::K1) };
    place(&board.platform(), board.topology().tree(), &sizing, &mut windows)?;
    Ok(windows)
}

/// Base, size, targets and restrictions of each window.
fn facts(windows: &[Window]) -> Vec<(u64, u64, Vec<u32>, u16)> {
    let facts = windows.iter().map(|window| {
        let base = window.base.expect("a place").0;
        assert_eq!(window.targets.len(), window.interleave.ways.count() as usize);
        (base, window.size, window.targets.to_vec(), window.restrictions.into_bits())
    });
    facts.collect()
}

/// Bridge 7 with 1 GiB and 768 MiB of volatile and 512 MiB of persistent memory; bridge 3 with 4 GiB
/// of persistent; bridge 5 with nothing; bridge 9 with 2 GiB of volatile. By no order.
fn board() -> Board {
    let mut board = Board::new();
    let bridge = board.bridge(7);
    let port = board.root_port(bridge, 1);
    board.memory(port, GIB, 0);
    let port = board.root_port(bridge, 0);
    let switch = board.switch(port);
    let port = board.downstream_port(switch, 0);
    board.memory(port, 3 * UNIT, 2 * UNIT);
    let three = board.bridge_with_memory(3, 0);
    board.device(three).persistent = 4 * GIB;
    board.bridge(5);
    board.bridge_with_memory(9, 2 * GIB);
    board
}

#[test]
fn each_bridge_gets_a_window_that_holds_what_is_below_it() {
    let board = board();
    // From 5 GiB on: 6 GiB is the first multiple of 2 GiB.
    let windows = sized(&board, &[span(5 * GIB, 64 * GIB)], false).expect("a place");
    let (volatile, persistent) = (0b0110, 0b1010);
    let expected = [
        (6 * GIB, 4 * GIB, vec![3], persistent),
        // 1 GiB + 768 MiB + 512 MiB; the next starts at the next multiple of 2 GiB.
        (10 * GIB, 9 * UNIT, vec![7], volatile | persistent),
        (14 * GIB, 2 * GIB, vec![9], volatile),
    ];
    assert_eq!(facts(&windows), expected);
}

#[test]
fn windows_over_several_bridges_come_behind_for_each_kind_of_memory() {
    let windows = sized(&board(), &[span(4 * GIB, 64 * GIB)], true).expect("a place");
    let expected = [
        // 7 and 9 have volatile memory, 1.75 and 2 GiB; 3 and 7 persistent, 4 GiB and 512 MiB.
        (14 * GIB, 14 * UNIT, vec![7, 9], 0b0110),
        (18 * GIB, 4 * UNIT, vec![3, 7], 0b1010),
    ];
    assert_eq!(facts(&windows[3..]), expected);
    assert!(windows[3..].iter().all(|window| window.interleave.granularity == Granularity::K1));
    // An accelerator shares no set with expanders.
    let mut mixed = board();
    for node in [mixed.nodes.len() - 1, 2] {
        mixed.device(NodeId(node as u16)).kind = DeviceKind::Type2;
    }
    let windows = sized(&mixed, &[span(4 * GIB, 64 * GIB)], true).expect("a place");
    let (expander, accelerator) = (0b1010, 0b0101);
    let expected = [
        (14 * GIB, 4 * UNIT, vec![3, 7], expander),
        // 1 GiB of the one, 2 of the other.
        (16 * GIB, 8 * UNIT, vec![7, 9], accelerator),
    ];
    assert_eq!(facts(&windows[3..]), expected);
    // Five bridges make no window of five ways; a base of three ways is a multiple of 6 GiB.
    let mut five = Board::new();
    for uid in [50, 20, 40, 10, 30] {
        five.bridge_with_memory(uid, u64::from(uid) * UNIT);
    }
    let all = |board: &Board| sized(board, &[span(2 * GIB, 1 << 40)], true).expect("a place");
    let four = facts(&all(&five));
    assert_eq!(four[5].2, [10, 20, 30, 40]);
    assert_eq!(four[5].1, 4 * 10 * UNIT);
    five.nodes.truncate(9);
    five.bridges.truncate(3);
    let three = facts(&all(&five));
    assert_eq!((three[3].0 % (6 * GIB), &three[3].2[..]), (0, &[20, 40, 50][..]));
    assert_eq!(three[3].1, 3 * 20 * UNIT);
}

#[test]
fn a_window_admits_what_its_devices_can_be() {
    let mut board = Board::new();
    let device = board.bridge_with_memory(7, GIB);
    let admitted = |board: &Board| {
        let windows = sized(board, &[span(4 * GIB, 8 * GIB)], false).expect("a place");
        windows.first().map(|window| window.restrictions.into_bits())
    };
    assert_eq!(admitted(&board), Some(0b00_0110));
    board.device(device).kind = DeviceKind::Type2;
    assert_eq!(admitted(&board), Some(0b00_0101));
    // Back-invalidate, once all of its path can.
    board.node(device).back_invalidate = bi(false);
    // A device that needs it and cannot has no memory that anybody could map.
    assert_eq!(admitted(&board), None);
    board.node(NodeId(1)).back_invalidate = bi(false);
    assert_eq!(admitted(&board), Some(0b10_0101));
}

#[test]
fn what_has_no_place_is_refused_and_nothing_is_left_behind() {
    let board = board();
    let refused = |board: &Board, free: &[Span]| sized(board, free, false).expect_err("no place");
    let no_room =
        |uid, size: u64| Code::PLAN_NO_ROOM_FOR_WINDOW.at(Place::bridge(uid)).expected(size);
    assert_eq!(refused(&board, &[]), no_room(3, 4 * GIB));
    // A piece that ends a byte too early, and one beyond what an address can say.
    let pieces = [span(4 * GIB, 8 * GIB - 1), span(1 << 46, 1 << 47)];
    assert_eq!(refused(&board, &pieces), no_room(3, 4 * GIB));
    assert_eq!(refused(&board, &[span(4 * GIB, 10 * GIB)]), no_room(7, 9 * UNIT));
    let mut vast = Board::new();
    let device = vast.bridge_with_memory(7, u64::MAX - UNIT);
    vast.device(device).persistent = 2 * UNIT;
    assert_eq!(refused(&vast, &[span(0, u64::MAX)]), no_room(7, u64::MAX));
    // No memory, no windows. Two that find a list for one leave it as it was.
    assert_eq!(sized(&Board::new(), &[], true), Ok(Windows::new()));
    let mut list = List::<Window, 2>::new();
    let free = [span(4 * GIB, 64 * GIB)];
    let sizing = Sizing { free: &free, across: None };
    let result = place(&board.platform(), board.topology().tree(), &sizing, &mut list);
    assert_eq!(result, Err(Code::PLATFORM_CAPACITY.error().detail(2u8).expected(2usize)));
    assert_eq!(list, []);
}

#[test]
fn what_answers_already_is_stepped_over() {
    let mut board = board();
    board.window(8 * GIB, GIB, &[9]);
    let ram = [span(0, 5 * GIB), span(12 * GIB, 12 * GIB + 4096)];
    let free = [span(0, 1 << 40)];
    let sizing = Sizing { free: &free, across: None };
    let platform = Platform { occupied: &ram, ..board.platform() };
    let mut windows = Windows::new();
    assert_eq!(place(&platform, board.topology().tree(), &sizing, &mut windows), Ok(()));
    let bases: Vec<u64> = facts(&windows).iter().map(|(base, ..)| base / GIB).collect();
    // Between 6 and 8 there is room for the smallest alone.
    assert_eq!(bases, [14, 18, 6]);
}

prop_compose! {
    /// Up to twenty bridges with up to three devices each, in any order, and what is in the way.
    fn any_board()(
        bridges in prop::collection::vec(prop::collection::vec((0u64..9, 0u64..9), 0..4), 0..20),
        taken in prop::collection::vec((0u64..512, 1u64..16), 0..8),
        order in prop::collection::vec(any::<usize>(), 0..8),
    ) -> (Board, Vec<Span>, Vec<usize>) {
        let mut board = Board::new();
        for (uid, devices) in (0u32..).zip(bridges) {
            let bridge = board.bridge(uid * 7 % 23);
            for (number, (volatile, persistent)) in (0..).zip(devices) {
                let port = board.root_port(bridge, number);
                board.memory(port, volatile * UNIT, persistent * UNIT);
            }
        }
        let taken = taken.into_iter().map(|(at, size)| span(at * GIB, (at + size) * GIB));
        (board, taken.collect(), order)
    }
}

proptest! {
    #[test]
    fn windows_lie_where_they_may_and_leave_no_memory_without_one((board, taken, order) in any_board()) {
        let free = [span(4 * GIB, 1 << 40), span(2 * GIB, 3 * GIB)];
        let sizing = Sizing { free: &free, across: Some(Granularity::B512) };
        let mut windows = Windows::new();
        let platform = Platform { occupied: &taken, ..board.platform() };
        prop_assert_eq!(place(&platform, board.topology().tree(), &sizing, &mut windows), Ok(()));
        for (at, window) in windows.iter().enumerate() {
            let own = window.span().expect("a range");
            let unit = UNIT * u64::from(window.interleave.ways.count());
            prop_assert!(own.base().0 % (2 * GIB) == 0 && own.base().0 % unit == 0);
            prop_assert!(own.size() % unit == 0);
            prop_assert!(free.iter().any(|free| free.contains_span(own)));
            let others = windows[..at].iter().filter_map(Window::span).chain(taken.iter().copied());
            prop_assert!(others.into_iter().all(|other| !other.overlaps(own)), "{own:?}");
        }
        // A bridge's own window has room for all of its devices, and there is no second one.
        for bridge in &board.bridges {
            let flat = windows.iter().filter(|window| window.targets == [bridge.uid]);
            let sizes: Vec<u64> = flat.map(|window| window.size).collect();
            let topology = board.topology();
            let tree = topology.tree();
            let own = tree.devices().filter(|(id, _)| tree.path(*id).uid() == bridge.uid);
            let all: u64 = own.map(|(_, device)| device.volatile + device.persistent).sum();
            prop_assert_eq!(sizes, if all > 0 { vec![all] } else { vec![] });
        }
        prop_assert!(windows.iter().filter(|w| w.interleave.ways != Ways::One).count() <= 2);
        // All of it can be programmed by whoever gets the table, in a machine listed otherwise too.
        let policy = Policy { path: PathPolicy::Describe, ..Policy::default() };
        let mut given = board.clone();
        given.windows = windows.iter().cloned().collect();
        let topology = given.topology();
        let mut made = plan::Plan::<640, 4, 128>::new();
        prop_assert_eq!(plan::plan(&given.platform(), topology.tree(), &policy, &mut made), Ok(()));
        let other = board.reordered(&order);
        let mut again = Windows::new();
        let platform = Platform { occupied: &taken, ..other.platform() };
        prop_assert_eq!(place(&platform, other.topology().tree(), &sizing, &mut again), Ok(()));
        prop_assert_eq!(again, windows);
    }
}
