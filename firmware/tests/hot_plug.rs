//! Room for devices that come later, as the plan keeps it: where it lies, and what there is no room for.
//!
//! **Invariant**: nothing here asks the planner where something should lie; places are typed by hand.

mod board;

use board::{Board, GIB, UNIT, capable, path};
use cxl_firmware::error::Code;
use cxl_firmware::plan::Note;
use cxl_firmware::policy::{OnFailure, Policy, Prefer, Reserve, Width};
use cxl_firmware::topology::{NodeId, NodeKind, Partition};
use cxl_regs::{Hpa, Span};

fn volatile(uid: u32, ports: &[u8], size: u64) -> Reserve {
    Reserve { at: path(uid, ports), partition: Partition::Volatile, size }
}

fn kept(board: &Board, policy: &Policy<'_>) -> Vec<(Vec<u8>, Partition, u64, u64)> {
    let plan = board.plan(policy).expect("a plan");
    board.check(&plan);
    let room = plan.notes.iter().filter_map(|note| match note {
        Note::Reserved { at, partition, span } => {
            Some((at.ports().to_vec(), *partition, span.base().0 / UNIT, span.size() / UNIT))
        }
        _ => None,
    });
    room.collect()
}

/// A device of 1 GiB behind port 1 of bridge 7; ports 0 and 2 are empty, and so are ports 5 and 6 of the
/// switch behind port 3. A window of 16 GiB at 64 GiB.
fn board() -> Board {
    let mut board = Board::new();
    let bridge = board.bridge(7);
    for number in [0, 2] {
        board.root_port(bridge, number);
    }
    let port = board.root_port(bridge, 1);
    board.memory(port, GIB, 0);
    let port = board.root_port(bridge, 3);
    let switch = board.switch(port);
    for number in [5, 6] {
        board.downstream_port(switch, number);
    }
    board.window(64 * GIB, 16 * GIB, &[7]);
    board
}

#[test]
fn room_lies_above_all_that_is_mapped_below_the_bridge() {
    use Partition::{Persistent, Volatile};
    let (board, first) = (board(), 65 * 4);
    // All empty ports of the bridge, the larger size for one of them, and both kinds for another.
    let reserve = [
        volatile(7, &[], UNIT),
        volatile(7, &[2], GIB),
        Reserve { partition: Persistent, ..volatile(7, &[3, 6], 2 * UNIT) },
    ];
    let expected = [
        (vec![0], Volatile, first, 1),
        (vec![2], Volatile, first + 1, 4),
        (vec![3, 5], Volatile, first + 5, 1),
        (vec![3, 6], Volatile, first + 6, 1),
        (vec![3, 6], Persistent, first + 7, 2),
    ];
    let policy = Policy { reserve: &reserve, ..Policy::default() };
    assert_eq!(kept(&board, &policy), expected);
    // In whatever order it is listed.
    let reversed = [reserve[2], reserve[1], reserve[0]];
    let mut other = board.reordered(&[7, 3, 5, 1, 2]);
    other.windows = board.windows.clone();
    assert_eq!(kept(&other, &Policy { reserve: &reversed, ..policy }), expected);
    // Where nothing else is planned, nothing else changes.
    let with = board.plan(&policy).expect("a plan");
    let without = board.plan(&Policy::default()).expect("a plan");
    assert_eq!((&with.regions, &with.decoders), (&without.regions, &without.decoders));
}

#[test]
fn room_for_ports_that_have_a_device_is_noted_and_not_kept() {
    let mut board = board();
    let said = |board: &Board, reserve: &[Reserve], on_failure| {
        let policy = Policy { reserve, on_failure, ..Policy::default() };
        let (topology, plan) = (board.topology(), board.plan(&policy).expect("a plan"));
        plan.notes.iter().map(|note| note.text(topology.tree()).to_string()).collect::<Vec<_>>()
    };
    let note = |at: &str| {
        format!("{at}: the policy keeps room for devices to come here; no port is empty")
    };
    // The device's place is its port's.
    let own = [volatile(7, &[1], GIB)];
    for on_failure in [OnFailure::Strict, OnFailure::BestEffort] {
        assert_eq!(said(&board, &own, on_failure), [note("bridge 7 port 1")]);
    }
    // A bridge and a switch have empty ports, until devices come to all of them.
    let all = [volatile(7, &[], UNIT), volatile(7, &[3], UNIT)];
    let before = said(&board, &all, OnFailure::Strict);
    assert!(before.len() == 4 && before.iter().all(|note| note.contains("room is kept for")));
    let ports = (0..board.nodes.len()).filter(|at| [0, 2, 5, 6].contains(&board.nodes[*at].port));
    let kinds = [NodeKind::RootPort, NodeKind::DownstreamPort];
    let ports: Vec<_> = ports.filter(|at| kinds.contains(&board.nodes[*at].kind)).collect();
    assert_eq!(ports.len(), 4);
    for port in ports {
        board.memory(NodeId(port as u16), UNIT, 0);
    }
    let after = said(&board, &all, OnFailure::Strict);
    assert_eq!(after, [note("bridge 7"), note("bridge 7 port 3")]);
}

fn refused(board: &Board, policy: &Policy<'_>) -> Option<Code> {
    board.plan(policy).err().map(|error| error.code)
}

#[test]
fn what_there_is_no_room_for_is_refused_by_name() {
    let board = board();
    // Fifteen are left of the window.
    let all = |size| [volatile(7, &[0], size), volatile(7, &[2], size)];
    let fits = all(7 * GIB + 2 * UNIT);
    assert_eq!(refused(&board, &Policy { reserve: &fits, ..Policy::default() }), None);
    let full = all(7 * GIB + 3 * UNIT);
    let policy = Policy { reserve: &full, ..Policy::default() };
    assert_eq!(refused(&board, &policy), Some(Code::PLAN_WINDOW_FULL));
    let odd = [volatile(7, &[0], UNIT + 1)];
    let policy = Policy { reserve: &odd, ..Policy::default() };
    assert_eq!(refused(&board, &policy), Some(Code::PLAN_UNALIGNED));
    // One decoder of two is the device's, and two ports want the other; or the switch has none at all.
    let both = all(GIB);
    let mut few = board.clone();
    few.nodes[0].hdm = capable(2);
    let policy = Policy { reserve: &both, ..Policy::default() };
    let error = few.plan(&policy).expect_err("a decoder is missing");
    assert_eq!(error.to_string(), "bridge 7 port 2: all 2 usable decoders of bridge 7 are taken");
    let mut none = board.clone();
    let switch = none.nodes.iter().position(|node| matches!(node.kind, NodeKind::UpstreamPort));
    none.nodes[switch.expect("a switch")].hdm = None;
    let behind = [volatile(7, &[3, 5], GIB)];
    let policy = Policy { reserve: &behind, ..Policy::default() };
    assert_eq!(refused(&none, &policy), Some(Code::PLAN_NO_DECODERS));
    // A window over two bridges takes sets alone.
    let mut wide = board.clone();
    wide.bridge_with_memory(8, GIB);
    wide.windows.clear();
    wide.window(64 * GIB, 16 * GIB, &[7, 8]);
    let policy = Policy { width: Width::Widest, ..policy };
    assert_eq!(refused(&wide, &policy), Some(Code::PLAN_INTERLEAVED));
}

#[test]
fn without_room_the_port_is_lost_and_nothing_else() {
    let board = board();
    let reserve = [volatile(7, &[0], 16 * GIB)];
    let policy =
        Policy { reserve: &reserve, on_failure: OnFailure::BestEffort, ..Policy::default() };
    // The port is named, which is what a bring-up takes out.
    let error = board.plan(&policy).expect_err("no room");
    assert!(error.at.to_string().starts_with("bridge 7 port 0"), "{}", error.at);
    let mut lost = board.clone();
    let at = lost.nodes.iter().position(|node| node.port == 0 && node.parent.is_some());
    lost.nodes[at.expect("a port")].fault = Some(error);
    assert_eq!(kept(&lost, &policy), []);
}

#[test]
fn one_port_may_have_room_in_two_windows_and_two_may_not() {
    let mut board = board();
    board.windows[0].restrictions = board.windows[0].restrictions.with_persistent(false);
    board.window(96 * GIB, 4 * GIB, &[7]).restrictions.set_volatile(false);
    let both = |at: &[u8]| {
        let room = volatile(7, at, UNIT);
        [room, Reserve { partition: Partition::Persistent, ..room }]
    };
    let one = both(&[0]);
    let policy = Policy { reserve: &one, prefer: Some(Prefer::Lowest), ..Policy::default() };
    let room = kept(&board, &policy);
    let at = |gib: u64| gib * 4;
    assert_eq!(room[0], (vec![0], Partition::Volatile, at(65), 1));
    assert_eq!(room[1], (vec![0], Partition::Persistent, at(96), 1));
    // Which of two ports is filled first is not known: volatile memory of the other would lie too low.
    let two = [both(&[0]), both(&[2])].concat();
    let policy = Policy { reserve: &two, ..policy };
    assert_eq!(refused(&board, &policy), Some(Code::PLAN_HPA_ORDER));
    let first = Span::new(Hpa(64 * GIB), GIB).expect("a range");
    assert_eq!(board.plan(&Policy::default()).expect("a plan").regions[0].span, first);
}
