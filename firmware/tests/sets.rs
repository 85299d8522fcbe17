//! Interleave sets: planned at every legal width and granularity, on every level, and judged by
//! dealing out granules one by one.
//!
//! **Invariant**: where a granule has to go is computed from the window's and the decoders' fields
//! in plain integers, or written by hand; never by the code that planned it.

mod board;

use std::collections::BTreeMap;

use board::{Board, BoardPlan, GIB, MIB, UNIT, bi, path, request};
use cxl_firmware::error::{Code, Place};
use cxl_firmware::plan::{Note, Purpose, Reason, Why};
use cxl_firmware::policy::{PathPolicy, Policy, TargetSystem, Width, WindowWidth};
use cxl_firmware::topology::{NodeId, NodeKind, Partition};
use cxl_regs::{
    Arithmetic, ComposeError, DecodeError, Granularity, Hpa, Interleave, NotDecodable, Route, Ways,
};
use proptest::prelude::*;

/// 4 GiB is no multiple of 3 x 256 MiB: ranges start in the middle of a round of three.
const WINDOW: u64 = 0x1_0000_0000;

const LINUX: TargetSystem = TargetSystem::Linux;
const SPECIFICATION: TargetSystem = TargetSystem::Specification;

fn exactly(ways: Ways, granularity: Granularity) -> Policy<'static> {
    let width = Width::Exactly(Interleave::new(ways, granularity));
    Policy { width, ..Policy::default() }
}

fn widest() -> Policy<'static> {
    Policy { width: Width::Widest, ..Policy::default() }
}

/// A window over `root` bridges with `ports` ports each, and behind each port a device of 256 MiB
/// or a switch with `below` of them.
fn tree(root: u32, ports: u8, below: u8, granularity: Granularity) -> Board {
    let mut board = Board::new();
    // UIDs fall while the window's ways rise, so that an order by UID shows.
    let uids: Vec<u32> = (0..root).map(|index| 90 - index).collect();
    for &uid in &uids {
        let bridge = board.bridge(uid);
        for number in 0..ports {
            let port = board.root_port(bridge, number);
            if below == 1 {
                board.memory(port, UNIT, 0);
            } else {
                let switch = board.switch(port);
                for number in 0..below {
                    let port = board.downstream_port(switch, 16 + number);
                    board.memory(port, UNIT, 0);
                }
            }
        }
    }
    board.window(WINDOW, 64 * UNIT, &uids).interleave.granularity = granularity;
    board
}

/// Every split of a way count over window, bridges and switches.
fn splits(ways: Ways) -> Vec<(u32, u8, u8)> {
    let mut all = vec![];
    for root in [1, 2, 3, 4, 6, 8, 12, 16] {
        for ports in [1, 2, 4, 8] {
            for below in [1, 2, 4, 8] {
                if root * u32::from(ports) * u32::from(below) == ways.count() {
                    all.push((root, ports, below));
                }
            }
        }
    }
    all
}

/// Deals out `granules` granules from `from` on and checks that every member of the one region gets
/// each of its own granules there once, in order, and nothing else.
fn deal(board: &Board, plan: &BoardPlan, from: u64, granules: u64) {
    let [region] = plan.regions.as_slice() else { panic!("one region") };
    let members = plan.members(region);
    let granule = match plan.decoders[0].purpose {
        Purpose::Region { decoder, .. } => decoder.interleave.granularity.bytes(),
        Purpose::Burn { .. } => panic!("devices come first"),
    };
    let ways = members.len() as u64;
    let first = (from - region.span.base().0) / granule / ways;
    let mut seen: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
    for index in 0..granules * ways {
        let hpa = from + index * granule;
        let (device, dpa) = board.walk(plan, hpa + granule - 1);
        assert_eq!(board.walk(plan, hpa), (device, dpa - (granule - 1)));
        seen.entry(device).or_default().push(dpa / granule);
    }
    assert_eq!(seen.len(), members.len(), "every member takes part");
    for (position, member) in members.iter().enumerate() {
        // In a window without XOR a position is where a member stands in a round of addresses.
        let at = (0..ways).map(|index| from + index * granule);
        let mut at = at.filter(|hpa| hpa / granule % ways == position as u64);
        assert_eq!(at.next().map(|hpa| board.walk(plan, hpa).0), Some(member.device));
        let base = member.dpa.base().0 / granule;
        let expected: Vec<_> = (0..granules).map(|index| base + first + index).collect();
        assert_eq!(seen[&member.device], expected);
    }
}

#[test]
fn all_49_legal_pairs_are_planned_on_every_split_and_the_7_others_refused() {
    let (mut legal, mut illegal) = (0, 0);
    for ways in Ways::ALL {
        for granularity in Granularity::ALL {
            // Selector bits: 8 + IG and up, one for each factor of two; the highest is bit 14.
            let twos = ways.count().trailing_zeros();
            let decodable = granularity.bytes() << twos <= 1 << 15;
            *(if decodable { &mut legal } else { &mut illegal }) += 1;
            for (root, ports, below) in splits(ways) {
                let board = tree(root, ports, below, granularity);
                let policy = Policy { target: SPECIFICATION, ..exactly(ways, granularity) };
                let case = format!("{ways} ways at {granularity}: {root} x {ports} x {below}");
                if !decodable {
                    let error = NotDecodable(Interleave::new(ways, granularity));
                    let error = ComposeError::NotDecodable(error);
                    let expected = Code::PLAN_COMPOSE.at(Place::window(Hpa(WINDOW))).rule(error);
                    assert_eq!(board.plan(&policy).map(|_| ()), Err(expected), "{case}");
                    continue;
                }
                let plan = board.plan(&policy).unwrap_or_else(|error| panic!("{case}: {error}"));
                board.check(&plan);
                let region = plan.regions[0];
                assert_eq!(plan.members(&region).len() as u32, ways.count(), "{case}");
                assert_eq!(region.span.size(), UNIT * u64::from(ways.count()), "{case}");
                assert_eq!(region.reason, Reason::Named);
                let stripe = granularity.bytes() * u64::from(ways.count());
                let rounds = region.span.size() / stripe;
                for round in [0, rounds / 3, rounds - 3] {
                    deal(&board, &plan, WINDOW + round * stripe, 3);
                }
            }
        }
    }
    assert_eq!((legal, illegal), (49, 7));
}

#[test]
fn every_granule_of_whole_sets_is_dealt_out_once() {
    let cases = [
        (Ways::Two, Granularity::K16, 2, 1, 1, SPECIFICATION),
        (Ways::Three, Granularity::K16, 3, 1, 1, LINUX),
        (Ways::Six, Granularity::K16, 3, 2, 1, SPECIFICATION),
        (Ways::Four, Granularity::K8, 1, 2, 2, LINUX),
    ];
    for (ways, granularity, root, ports, below, target) in cases {
        let board = tree(root, ports, below, granularity);
        let plan = board.plan(&Policy { target, ..exactly(ways, granularity) }).unwrap();
        deal(&board, &plan, WINDOW, UNIT / granularity.bytes());
    }
}

#[test]
fn xor_windows_spread_the_same_members_over_the_same_addresses() {
    let maps: [(u32, &[u64]); 5] = [
        (2, &[0x10100]),
        (4, &[0x10100, 0x20200]),
        (3, &[]),
        (6, &[0x2040_4100]),
        (12, &[0x10100, 0x20200]),
    ];
    for (root, maps) in maps {
        for ports in [1, 2, 4] {
            let Some(ways) = Ways::from_count(root * u32::from(ports)) else { continue };
            let mut board = tree(root, ports, 1, Granularity::B256);
            board.windows[0].arithmetic = Arithmetic::Xor;
            board.windows[0].xor_maps = maps.iter().copied().collect();
            let policy = Policy { target: SPECIFICATION, ..exactly(ways, Granularity::B256) };
            let plan = board.plan(&policy).unwrap();
            board.check(&plan);
            let [region] = plan.regions.as_slice() else { panic!("one region") };
            let (ways, members) = (u64::from(ways.count()), plan.members(region));
            // Around 64 KiB, where the maps begin to see higher bits; rounds are not in order of
            // address within XOR, so each round has to be complete.
            for round in [0, 64 * 1024 / 256 / ways - 1, 64 * 1024 / 256 / ways, 4000] {
                let mut seen: Vec<_> = (0..ways)
                    .map(|index| board.walk(&plan, WINDOW + (round * ways + index) * 256))
                    .collect();
                let mut expected: Vec<_> =
                    members.iter().map(|member| (member.device, round * 256)).collect();
                seen.sort();
                expected.sort();
                assert_eq!(seen, expected, "{root} x {ports}, round {round}");
            }
        }
    }
}

/// Ports of the members in order of position, as (UID, ports).
fn positions(board: &Board, plan: &BoardPlan) -> Vec<(u32, Vec<u8>)> {
    let topology = board.topology();
    let members = plan.members(&plan.regions[0]);
    let places = members.iter().map(|member| topology.tree().path(member.device));
    places.map(|place| (place.uid(), place.ports().to_vec())).collect()
}

/// Interleave and targets of a component's first decoder.
fn decoder(plan: &BoardPlan, node: NodeId) -> (u32, u64, Vec<u8>) {
    let planned = plan.decoders_of(node).next().expect("a decoder");
    let Purpose::Region { decoder, .. } = planned.purpose else { panic!("not burned") };
    let Interleave { ways, granularity } = decoder.interleave;
    let targets = match decoder.route {
        Route::Targets(targets) => targets.used(ways).to_vec(),
        Route::Skip(_) => vec![],
    };
    (ways.count(), granularity.bytes(), targets)
}

fn bridges(board: &Board) -> Vec<NodeId> {
    let bridge = |kind| matches!(kind, NodeKind::HostBridge { .. });
    let nodes = board.nodes.iter().enumerate().filter(|(_, node)| bridge(node.kind));
    nodes.map(|(index, _)| NodeId(index as u16)).collect()
}

#[test]
fn levels_and_targets_are_those_that_linux_builds() {
    // Two bridges with two devices each: mem0, mem2, mem1, mem3; bridges at twice the granularity.
    let board = tree(2, 2, 1, Granularity::B256);
    let plan = board.plan(&exactly(Ways::Four, Granularity::B256)).unwrap();
    let order = [(90, vec![0]), (89, vec![0]), (90, vec![1]), (89, vec![1])];
    assert_eq!(positions(&board, &plan), order);
    for bridge in bridges(&board) {
        assert_eq!(decoder(&plan, bridge), (2, 512, vec![0, 1]));
    }
    assert_eq!(decoder(&plan, NodeId(2)), (4, 256, vec![]));

    // Four bridges with four devices each.
    let board = tree(4, 4, 1, Granularity::B256);
    let plan = board.plan(&widest()).unwrap();
    for bridge in bridges(&board) {
        assert_eq!(decoder(&plan, bridge), (4, 1024, vec![0, 1, 2, 3]));
    }
    assert_eq!(decoder(&plan, NodeId(2)), (16, 256, vec![]));

    // One bridge: its granularity is the set's, whatever the window says about its single way.
    let board = tree(1, 2, 1, Granularity::B256);
    let plan = board.plan(&exactly(Ways::Two, Granularity::K4)).unwrap();
    assert_eq!(decoder(&plan, NodeId(0)), (2, 4096, vec![0, 1]));

    // Three bridges: no power of two, so their single way is at the window's granularity.
    let board = tree(3, 1, 1, Granularity::K1);
    let plan = board.plan(&exactly(Ways::Three, Granularity::K1)).unwrap();
    assert_eq!(decoder(&plan, NodeId(0)), (1, 1024, vec![0]));

    // A bridge with two ports, a switch with two devices below each.
    let board = tree(1, 2, 2, Granularity::B256);
    let plan = board.plan(&exactly(Ways::Four, Granularity::B256)).unwrap();
    let order = [vec![0, 16], vec![1, 16], vec![0, 17], vec![1, 17]];
    assert_eq!(positions(&board, &plan), order.map(|ports| (90, ports)));
    assert_eq!(decoder(&plan, NodeId(0)), (2, 256, vec![0, 1]));
    assert_eq!(decoder(&plan, NodeId(2)), (2, 512, vec![16, 17]));
}

#[test]
fn a_set_that_linux_would_refuse_is_refused_unless_the_specification_is_the_target() {
    let linux = |board: &Board, ways, granularity| {
        board.plan(&exactly(ways, granularity)).map(|plan| board.check(&plan))
    };
    let free = |board: &Board, ways, granularity| {
        let policy = Policy { target: SPECIFICATION, ..exactly(ways, granularity) };
        board.plan(&policy).expect("the specification allows it")
    };
    let too_coarse =
        |bytes| Err(Code::PLAN_LINUX_GRANULARITY.at(Place::window(Hpa(WINDOW))).found(bytes));
    let k16 = Granularity::K16;

    let board = tree(2, 1, 1, k16);
    assert_eq!(linux(&board, Ways::Two, k16), too_coarse(32768));
    assert_eq!(decoder(&free(&board, Ways::Two, k16), NodeId(0)), (1, 16384, vec![0]));
    let board = tree(2, 1, 1, Granularity::K8);
    assert_eq!(linux(&board, Ways::Two, Granularity::K8), Ok(()));

    // Below the bridge it matters only where there is a switch.
    let board = tree(1, 2, 1, k16);
    assert_eq!(linux(&board, Ways::Two, k16), Ok(()));
    let mut board = tree(1, 2, 2, k16);
    for second in [6, 12] {
        board.device(NodeId(second)).volatile = 0;
    }
    assert_eq!(linux(&board, Ways::Two, k16), too_coarse(32768));
    assert_eq!(decoder(&free(&board, Ways::Two, k16), NodeId(2)).1, 16384);

    let board = tree(3, 2, 1, Granularity::B256);
    let expected =
        Code::PLAN_LINUX_THREE_WITH_PORTS.at(Place::window(Hpa(WINDOW))).found(Ways::Three);
    assert_eq!(linux(&board, Ways::Six, Granularity::B256), Err(expected));
    assert_eq!(decoder(&free(&board, Ways::Six, Granularity::B256), NodeId(0)).0, 2);
}

#[test]
fn a_width_that_the_window_or_the_topology_does_not_have_is_refused() {
    let refusal = |board: &Board, ways, granularity| {
        board.plan(&exactly(ways, granularity)).map(|_| ()).expect_err("a refusal")
    };
    let (b256, window) = (Granularity::B256, WINDOW);
    let board = tree(2, 2, 1, b256);
    let (asked, granularity) = (Granularity::K1, b256);
    let expected = Code::PLAN_GRANULARITY_OF_WINDOW
        .at(Place::window(Hpa(window)))
        .expected(granularity)
        .found(asked);
    assert_eq!(refusal(&board, Ways::Four, asked), expected);
    for asked in [Ways::One, Ways::Three, Ways::Six, Ways::Twelve] {
        let expected = Code::PLAN_WAYS_OF_WINDOW
            .at(Place::window(Hpa(window)))
            .expected(Ways::Two)
            .found(asked);
        assert_eq!(refusal(&board, asked, b256), expected);
    }
    let partition = Partition::Volatile;
    let expected = Code::PLAN_TOO_FEW_MEMBERS
        .at(Place::window(Hpa(window)))
        .detail(partition)
        .expected(4)
        .found((2, 90));
    assert_eq!(refusal(&board, Ways::Eight, b256), expected);
    let mut board = tree(2, 1, 1, b256);
    board.device(NodeId(5)).volatile = 0;
    let expected = Code::PLAN_TOO_FEW_MEMBERS
        .at(Place::window(Hpa(window)))
        .detail(partition)
        .expected(1)
        .found((0, 89));
    assert_eq!(refusal(&board, Ways::Two, b256), expected);
    assert_eq!(board.plan(&widest()).map(|_| ()), Err(expected));
    let mut board = tree(16, 1, 1, b256);
    let hdm = board.node(NodeId(2)).hdm.as_mut().unwrap();
    hdm.capability = hdm.capability.with_ways_16(false);
    let (at, ways) = (path(90, &[0]), Ways::Sixteen);
    let expected = Code::PLAN_DECODER.at(at).rule(DecodeError::WaysNotSupported { ways });
    assert_eq!(refusal(&board, ways, b256), expected);
    let mut board = tree(2, 1, 1, b256);
    board.device(NodeId(2)).volatile = UNIT + MIB;
    board.device(NodeId(5)).volatile = GIB;
    let (device, value) = (path(90, &[0]), UNIT + MIB);
    let expected = Code::PLAN_UNALIGNED.at(device).detail(5).expected(UNIT).found(value);
    assert_eq!(refusal(&board, Ways::Two, b256), expected);
    let mut board = tree(2, 1, 1, b256);
    board.windows[0].size = UNIT;
    let (device, need, have) = (path(90, &[0]), 2 * UNIT, UNIT);
    let expected = Code::PLAN_WINDOW_TOO_SMALL
        .at(Place::in_window(device, Hpa(window)))
        .expected(need)
        .found(have);
    assert_eq!(refusal(&board, Ways::Two, b256), expected);
}

#[test]
fn widths_are_given_to_windows_that_exist_once_and_not_for_a_guest_to_program() {
    let board = tree(2, 1, 1, Granularity::B256);
    let width = Width::Widest;
    let refusal = |policy: Policy<'_>| board.plan(&policy).map(|_| ()).expect_err("a refusal");
    let twice = [WindowWidth { window: Hpa(WINDOW), width }; 2];
    let policy = Policy { windows: &twice, ..Policy::default() };
    assert_eq!(refusal(policy), Code::PLAN_WIDTH_TWICE.at(Place::window(Hpa(WINDOW))));
    let nothing = [WindowWidth { window: Hpa(WINDOW + UNIT), width }, twice[0]];
    let policy = Policy { windows: &nothing, ..policy };
    assert_eq!(refusal(policy), Code::PLAN_WIDTH_OF_NOTHING.at(Place::window(Hpa(WINDOW + UNIT))));
    let guest = Policy { path: PathPolicy::GuestPrograms, ..widest() };
    assert_eq!(refusal(guest), Code::PLAN_WIDTH_TO_GUEST.error());
}

// --- as wide as possible -----------------------------------------------------------------------

fn sizes(plan: &BoardPlan) -> Vec<(usize, u64)> {
    plan.regions.iter().map(|r| (plan.members(r).len(), r.span.size() / MIB)).collect()
}

#[test]
fn the_widest_set_comes_first_and_whole_devices_follow_in_narrower_ones() {
    let board = tree(1, 7, 1, Granularity::B256);
    let plan = board.plan(&widest()).unwrap();
    board.check(&plan);
    assert_eq!(sizes(&plan), [(4, 1024), (2, 512), (1, 256)]);
    let partition = Partition::Volatile;
    let error = Code::PLAN_TOO_FEW_MEMBERS
        .at(Place::window(Hpa(WINDOW)))
        .detail(partition)
        .expected(8)
        .found((7, 90));
    let reason = Reason::Widest { refused: Some((Ways::Eight, error)) };
    assert_eq!(plan.regions[0].reason, reason);
    let board = tree(16, 1, 1, Granularity::B256);
    let plan = board.plan(&widest()).unwrap();
    assert_eq!(plan.regions[0].reason, Reason::Widest { refused: None });
}

#[test]
fn what_a_component_cannot_do_makes_the_set_narrower() {
    let mut board = tree(1, 4, 1, Granularity::B256);
    let hdm = board.node(NodeId(0)).hdm.as_mut().unwrap();
    hdm.capability = hdm.capability.with_target_count(2);
    let plan = board.plan(&widest()).unwrap();
    board.check(&plan);
    assert_eq!(sizes(&plan), [(2, 512), (2, 512)]);
    let error = DecodeError::TooFewTargets { ways: Ways::Four, have: 2 };
    let error = Code::PLAN_DECODER.at(path(90, &[])).rule(error);
    let reason = Reason::Widest { refused: Some((Ways::Four, error)) };
    assert_eq!(plan.regions[0].reason, reason);
    // Granularity takes its toll too: four ways at 16 KiB would need HPA bit 15.
    let board = tree(1, 4, 1, Granularity::K16);
    assert_eq!(sizes(&board.plan(&widest()).unwrap()), [(2, 512), (2, 512)]);
}

/// Two bridges, one device each: 1 GiB volatile and persistent, and half of that.
fn unequal() -> Board {
    let mut board = tree(2, 1, 1, Granularity::B256);
    for (id, size) in [(2, GIB), (5, 512 * MIB)] {
        let device = board.device(NodeId(id));
        (device.volatile, device.persistent) = (size, size);
    }
    board
}

#[test]
fn unequal_devices_share_what_they_have_in_common_and_the_rest_is_noted() {
    let board = unequal();
    let plan = board.plan(&widest()).unwrap();
    board.check(&plan);
    assert_eq!(sizes(&plan), [(2, 1024), (2, 1024)]);
    let unused = |partition| Note::Unused {
        device: NodeId(2),
        partition,
        size: 512 * MIB,
        why: Why::SetEnds,
    };
    assert_eq!(plan.notes.as_slice(), [unused(Partition::Volatile), unused(Partition::Persistent)]);
    // The larger one's persistent memory lies behind a volatile rest, the smaller one's does not.
    let skips: Vec<_> = [2, 5]
        .map(|id| {
            plan.decoders_of(NodeId(id)).last().map(|planned| match planned.purpose {
                Purpose::Region { decoder, .. } => decoder.route,
                Purpose::Burn { .. } => panic!("nothing is burned"),
            })
        })
        .into();
    assert_eq!(skips, [Some(Route::Skip(512 * MIB)), Some(Route::Skip(0))]);
}

#[test]
fn leftovers_become_narrower_sets_where_the_policy_says_so() {
    let mut board = tree(1, 4, 1, Granularity::B256);
    for (index, units) in [4, 2, 1, 3].into_iter().enumerate() {
        board.device(NodeId(2 + 2 * index as u16)).volatile = units * UNIT;
    }
    let plan = board.plan(&widest()).unwrap();
    assert_eq!((sizes(&plan), plan.notes.len()), (vec![(4, 1024)], 3));
    let plan = board.plan(&Policy { map_leftovers: true, ..widest() }).unwrap();
    board.check(&plan);
    // 4, 2, 1, 3 -> 3, 1, 0, 2 -> 2, 0, 0, 2 -> nothing.
    assert_eq!(sizes(&plan), [(4, 1024), (2, 512), (2, 1024)]);
    assert!(plan.notes.is_empty());
    let named = exactly(Ways::Four, Granularity::B256);
    let plan = board.plan(&Policy { map_leftovers: true, ..named }).unwrap();
    board.check(&plan);
    assert_eq!(sizes(&plan), [(4, 1024), (2, 512), (2, 1024)]);
}

#[test]
fn a_device_without_a_partner_below_the_other_bridge_is_noted_as_unused() {
    let mut board = tree(2, 1, 1, Granularity::B256);
    let port = board.root_port(NodeId(0), 5);
    let device = board.memory(port, GIB, 0);
    let plan = board.plan(&widest()).unwrap();
    board.check(&plan);
    assert_eq!(sizes(&plan), [(2, 512)]);
    // The partner below the other bridge is in the first set already.
    let why = Why::TooFewMembers { uid: 89, need: 1, have: 0 };
    let unused = Note::Unused { device, partition: Partition::Volatile, size: GIB, why };
    assert_eq!(plan.notes.as_slice(), [unused]);
}

#[test]
fn a_further_set_that_a_component_cannot_decode_is_the_reason_for_what_is_left() {
    // Of four devices the last two can interleave at no granularity.
    let mut board = tree(1, 4, 1, Granularity::B256);
    let devices = [6, 8].map(NodeId);
    for id in devices {
        let hdm = board.node(id).hdm.as_mut().unwrap();
        hdm.capability = hdm.capability.with_interleave_11_8(false).with_interleave_14_12(false);
    }
    let plan = board.plan(&exactly(Ways::Two, Granularity::B256)).unwrap();
    board.check(&plan);
    assert_eq!(sizes(&plan), [(2, 512)]);
    let partition = Partition::Volatile;
    let why = Why::NoSet { code: 0x031D };
    let notes = devices.map(|device| Note::Unused { device, partition, size: UNIT, why });
    assert_eq!(plan.notes.as_slice(), notes);
    assert_eq!(why.to_string(), "no further set can be made of it (PLAN_DECODER, 0x031d)");
}

#[test]
fn sets_of_a_named_width_keep_it_and_the_first_one_has_to_exist() {
    // Of six devices two share the first range; the four that are left could share one.
    let board = tree(1, 6, 1, Granularity::B256);
    for map_leftovers in [false, true] {
        let policy = Policy { map_leftovers, ..exactly(Ways::Two, Granularity::B256) };
        let plan = board.plan(&policy).unwrap();
        board.check(&plan);
        assert_eq!(sizes(&plan), [(2, 512), (2, 512), (2, 512)]);
        assert!(plan.regions.iter().all(|region| region.reason == Reason::Named));
        // Leftovers are what a set leaves: without a set there are none.
        let policy = Policy { map_leftovers, ..exactly(Ways::Eight, Granularity::B256) };
        let partition = Partition::Volatile;
        let expected = Code::PLAN_TOO_FEW_MEMBERS
            .at(Place::window(Hpa(WINDOW)))
            .detail(partition)
            .expected(8)
            .found((6, 90));
        assert_eq!(board.plan(&policy).map(|_| ()), Err(expected));
    }
}

// --- which window, which devices ---------------------------------------------------------------

/// A window over two bridges, and one of each bridge's own behind it.
fn three_windows() -> Board {
    let mut board = tree(2, 1, 1, Granularity::B256);
    board.window(0x10_0000_0000, GIB, &[90]);
    board.window(0x20_0000_0000, GIB, &[89]);
    board
}

#[test]
fn a_device_goes_to_the_window_that_is_named_and_none_is_guessed() {
    let board = three_windows();
    let flat = board.plan(&Policy::default()).unwrap();
    assert_eq!(sizes(&flat), [(1, 256), (1, 256)]);
    let width = Width::Widest;
    let named = [WindowWidth { window: Hpa(WINDOW), width }];
    let plan = board.plan(&Policy { windows: &named, ..Policy::default() }).unwrap();
    board.check(&plan);
    assert_eq!(sizes(&plan), [(2, 512)]);
    // Everything may be wide now: two windows fit each device.
    let (device, partition) = (path(89, &[0]), Partition::Volatile);
    let (first, second) = (WINDOW, 0x20_0000_0000u64);
    let expected =
        Code::PLAN_AMBIGUOUS.at(device).halves(partition, 2).expected(first).found(second);
    assert_eq!(board.plan(&widest()).map(|_| ()), Err(expected));
    let flat = [0x10_0000_0000, 0x20_0000_0000]
        .map(|window| WindowWidth { window: Hpa(window), width: Width::Flat });
    let plan = board.plan(&Policy { windows: &flat, ..widest() }).unwrap();
    board.check(&plan);
    assert_eq!(sizes(&plan), [(1, 256), (1, 256)]);
}

#[test]
fn a_window_that_is_named_flat_decides_between_two_that_fit() {
    let mut board = tree(1, 1, 1, Granularity::B256);
    let second = 0x10_0000_0000;
    board.window(second, GIB, &[90]);
    for window in [WINDOW, second] {
        let named = [WindowWidth { window: Hpa(window), width: Width::Flat }];
        let plan = board.plan(&Policy { windows: &named, ..Policy::default() }).unwrap();
        board.check(&plan);
        assert_eq!((sizes(&plan), plan.regions[0].window), (vec![(1, 256)], Hpa(window)));
    }
}

#[test]
fn a_device_with_a_request_shares_nothing() {
    let board = three_windows();
    let named = [WindowWidth { window: Hpa(WINDOW), width: Width::Widest }];
    let own = [request(path(90, &[0]))];
    let policy = Policy { windows: &named, requests: &own, ..Policy::default() };
    let partition = Partition::Volatile;
    let expected = Code::PLAN_TOO_FEW_MEMBERS
        .at(Place::window(Hpa(WINDOW)))
        .detail(partition)
        .expected(1)
        .found((0, 90));
    assert_eq!(board.plan(&policy).map(|_| ()), Err(expected));
    let both = [request(path(90, &[0])), request(path(89, &[0]))];
    let plan = board.plan(&Policy { requests: &both, ..policy }).unwrap();
    assert_eq!(sizes(&plan), [(1, 256), (1, 256)]);
    assert_eq!(plan.regions[0].reason, Reason::Requested);
}

#[test]
fn a_window_of_sets_refuses_a_device_by_what_keeps_it_out() {
    let mut board = tree(2, 1, 1, Granularity::B256);
    board.windows[0].restrictions.set_volatile(false);
    let (device, partition) = (path(89, &[0]), Partition::Volatile);
    let expected = Code::PLAN_MEDIA_NOT_ALLOWED.at(device).detail(partition).found(WINDOW);
    assert_eq!(board.plan(&widest()).map(|_| ()), Err(expected));
}

#[test]
fn windows_that_do_not_fit_make_no_choice_ambiguous() {
    let second = 0x20_0000_0000;
    for unfit in 0..5 {
        let mut board = tree(2, 1, 1, Granularity::B256);
        let window = board.window(second, GIB, &[90, 89]);
        match unfit {
            0 => window.size = 128 * MIB,
            1 => window.base = None,
            2 => window.base = Some(Hpa(1 << 46)),
            3 => window.restrictions.set_volatile(false),
            _ => window.restrictions.set_host_only(false),
        }
        let plan = board.plan(&widest()).unwrap();
        board.check(&plan);
        assert_eq!(
            (sizes(&plan), plan.regions[0].window),
            (vec![(2, 512)], Hpa(WINDOW)),
            "{unfit}"
        );
    }
}

#[test]
fn a_switch_interleaves_its_own_devices_and_not_those_of_a_switch_below() {
    let mut board = Board::new();
    let bridge = board.bridge(7);
    let port = board.root_port(bridge, 1);
    let upper = board.switch(port);
    let on = board.downstream_port(upper, 2);
    let lower = board.switch(on);
    for (switch, number) in [(lower, 8), (lower, 9), (upper, 4), (upper, 5)] {
        let port = board.downstream_port(switch, number);
        board.memory(port, UNIT, 0);
    }
    board.window(WINDOW, 4 * GIB, &[7]);
    let plan = board.plan(&widest()).unwrap();
    board.check(&plan);
    assert_eq!(sizes(&plan), [(2, 512), (1, 256), (1, 256)]);
    assert_eq!(positions(&board, &plan), [(7, vec![1, 4]), (7, vec![1, 5])]);
}

#[test]
fn back_invalidate_members_know_their_position_and_others_need_none() {
    for back_invalidate in [true, false] {
        let mut board = tree(2, 1, 1, Granularity::B256);
        for node in &mut board.nodes {
            node.back_invalidate = bi(false);
            if let (NodeKind::Device(_), Some(hdm)) = (node.kind, &mut node.hdm) {
                hdm.capability = hdm.capability.with_coherency_models(3);
            }
        }
        let window = &mut board.windows[0].restrictions;
        window.set_back_invalidate(back_invalidate);
        window.set_host_only(!back_invalidate);
        let plan = board.plan(&widest()).unwrap();
        board.check(&plan);
        let positions: Vec<_> = plan
            .members(&plan.regions[0])
            .iter()
            .filter_map(|member| plan.decoders_of(member.device).next())
            .map(|planned| match planned.purpose {
                Purpose::Region { decoder, .. } => decoder.set_position,
                Purpose::Burn { .. } => panic!("nothing is burned"),
            })
            .collect();
        assert_eq!(positions, if back_invalidate { [0, 1] } else { [0, 0] });
    }
}

// --- words and laws ----------------------------------------------------------------------------

#[test]
fn sets_in_words() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let plans = [
        ("two_bridges_two_ways", tree(2, 1, 1, Granularity::B256).text(&widest())),
        ("two_bridges_two_ports_four_ways", tree(2, 2, 1, Granularity::B256).text(&widest())),
        ("switch_below_each_of_two_ports", tree(1, 2, 2, Granularity::B256).text(&widest())),
        ("unequal_devices", unequal().text(&widest())),
    ];
    for (name, text) in plans {
        settings.bind(|| insta::assert_snapshot!(name, text));
    }
}

/// Some bridges with some ports and devices of some sizes, below one window.
fn any_sets() -> impl Strategy<Value = Board> {
    let device = (0..4u64, 0..3u64);
    let port = (any::<bool>(), prop::collection::vec(device, 1..4));
    let bridges = prop::sample::select(vec![1usize, 2, 3, 4]).prop_flat_map(move |n| {
        prop::collection::vec(prop::collection::vec(port.clone(), 1..4), n)
    });
    (bridges, 0..7u32).prop_map(|(bridges, code)| {
        let granularity = Granularity::decode(code).expect("a defined code");
        let mut board = Board::new();
        let uids: Vec<u32> = (0..bridges.len() as u32).map(|index| 11 + 5 * index % 7).collect();
        for (&uid, ports) in uids.iter().zip(&bridges) {
            let bridge = board.bridge(uid);
            for (number, (switched, devices)) in ports.iter().enumerate() {
                let port = board.root_port(bridge, 30 - number as u8);
                let devices = devices.iter().map(|(v, p)| (v * UNIT, p * UNIT));
                if *switched {
                    let switch = board.switch(port);
                    for (number, (volatile, persistent)) in devices.enumerate() {
                        let port = board.downstream_port(switch, 3 * number as u8);
                        board.memory(port, volatile, persistent);
                    }
                } else if let Some((volatile, persistent)) = devices.into_iter().next() {
                    board.memory(port, volatile, persistent);
                }
            }
        }
        board.window(WINDOW, 1024 * UNIT, &uids).interleave.granularity = granularity;
        board
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_becomes_a_set_keeps_the_laws_in_any_order(
        board in any_sets(),
        (map_leftovers, linux) in any::<(bool, bool)>(),
        choices in prop::collection::vec(any::<usize>(), 80),
    ) {
        let target = if linux { LINUX } else { SPECIFICATION };
        let policy = Policy { map_leftovers, target, ..widest() };
        let expected = board.text(&policy);
        prop_assert_eq!(board.reordered(&choices).text(&policy), expected);
        if let Ok(plan) = board.plan(&policy) {
            // Nothing vanishes: what is not mapped is noted.
            let mapped: u64 = plan.regions.iter().map(|region| region.span.size()).sum();
            let unused: u64 = plan.notes.iter().map(|note| match note {
                Note::Unused { size, .. } => *size,
                _ => 0,
            }).sum();
            let there: u64 = board.nodes.iter().filter_map(|n| n.device())
                .map(|device| device.volatile + device.persistent).sum();
            prop_assert_eq!(mapped + unused, there);
            for region in &plan.regions {
                let widest = matches!(region.reason, Reason::Widest { .. });
                prop_assert!(widest);
            }
        }
    }
}
