//! The plan, judged from outside: every refusal with its numbers, the machines of the mission, and
//! the laws that any plan keeps on any board.
//!
//! **Invariant**: expected values are written by hand from the board, never taken from a plan.

mod board;

use board::{Board, GIB, MIB, UNIT, any_use, bi, capable, path, request};
use cxl_firmware::error::{Code, Error, Place};
use cxl_firmware::plan::{Note, Plan, Purpose, Refused, Unfit, Why, plan};
use cxl_firmware::platform::{BridgeKind, Ecam, Platform};
use cxl_firmware::policy::{PathPolicy, Policy, Request, TargetSystem, Width, WindowWidth};
use cxl_firmware::topology::{DeviceKind, NodeId, NodeKind, Partition, Topology};
use cxl_regs::{
    Arithmetic, Coherency, ComposeError, DecodeError, Dpa, Granularity, Hpa, Interleave, Route,
    Span, Targets, Ways, XorMapError,
};
use proptest::prelude::*;

const WINDOW: u64 = 0x1_0000_0000;

/// One bridge (UID 7) with 1 GiB of volatile memory at port 0 and a window of 4 GiB.
fn simple() -> (Board, NodeId) {
    let mut board = Board::new();
    let device = board.bridge_with_memory(7, GIB);
    board.window(WINDOW, 4 * GIB, &[7]);
    (board, device)
}

/// The place of the device in [`simple`].
fn place() -> cxl_firmware::topology::Path {
    path(7, &[0])
}

fn refusal(board: &Board, policy: &Policy<'_>) -> Error {
    board.plan(policy).map(|_| ()).expect_err("a refusal")
}

fn refuses(board: &Board, expected: Error) {
    assert_eq!(refusal(board, &Policy::default()), expected);
}

fn refuses_request(board: &Board, asked: Request, expected: Error) {
    let policy = Policy { requests: &[asked], ..Policy::default() };
    assert_eq!(refusal(board, &policy), expected);
}

// --- the machines ------------------------------------------------------------------------------

/// C1: four bridges, four windows of 256 GiB, one device each, smaller than its window. UIDs,
/// windows and ports are in different orders on purpose.
fn four_bridges() -> Board {
    let mut board = Board::new();
    let bases = [0x800_0000_0000, 0x840_0000_0000, 0x880_0000_0000, 0x8c0_0000_0000];
    for (base, uid) in bases.into_iter().zip([12, 9, 30, 4]) {
        board.window(base, 256 * GIB, &[uid]);
    }
    for (uid, size) in [(4, 4 * GIB), (9, 128 * GIB), (12, 256 * MIB), (30, 64 * GIB)] {
        board.bridge_with_memory(uid, size);
    }
    board
}

fn permutations_of_four() -> Vec<[usize; 4]> {
    let mut all = vec![];
    for code in 0..256 {
        let order = [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6];
        if (0..4).all(|item| order.contains(&item)) {
            all.push(order);
        }
    }
    assert_eq!(all.len(), 24);
    all
}

#[test]
fn four_bridges_give_one_plan_in_all_24_orders() {
    let expected = four_bridges().text(&Policy::default());
    for order in permutations_of_four() {
        let (board, mut other) = (four_bridges(), four_bridges());
        other.windows = order.iter().map(|&index| board.windows[index].clone()).collect();
        assert_eq!(other.text(&Policy::default()), expected, "windows in order {order:?}");
        other.bridges = order.iter().map(|&index| board.bridges[index]).collect();
        other.nodes.clear();
        for index in order {
            // Bridge, port and device: three nodes each.
            for node in &board.nodes[3 * index..3 * index + 3] {
                let base = other.nodes.len() as u16 / 3 * 3;
                let parent = node.parent.map(|parent| NodeId(base + parent.0 % 3));
                other.nodes.push(cxl_firmware::topology::Node { parent, ..*node });
            }
        }
        assert_eq!(other.text(&Policy::default()), expected, "bridges in order {order:?}");
        other.windows.clone_from(&board.windows);
        assert_eq!(other.text(&Policy::default()), expected, "bridges alone in order {order:?}");
    }
}

#[test]
fn four_bridges_map_each_device_at_the_base_of_its_bridges_window() {
    let board = four_bridges();
    let plan = board.plan(&Policy::default()).unwrap();
    let seen: Vec<_> = plan
        .regions
        .iter()
        .map(|region| (region.span.base().0, region.span.size(), plan.members(region)[0].device))
        .collect();
    assert_eq!(
        seen,
        [
            (0x800_0000_0000, 256 * MIB, NodeId(8)),
            (0x840_0000_0000, 128 * GIB, NodeId(5)),
            (0x880_0000_0000, 64 * GIB, NodeId(11)),
            (0x8c0_0000_0000, 4 * GIB, NodeId(2)),
        ]
    );
}

/// C4: several endpoints below one bridge, listed out of order.
fn three_below_one() -> Board {
    let mut board = Board::new();
    let bridge = board.bridge(7);
    for (number, size) in [(2, 256 * MIB), (0, GIB), (5, 512 * MIB)] {
        let port = board.root_port(bridge, number);
        board.memory(port, size, 0);
    }
    board.window(WINDOW, 4 * GIB, &[7]);
    board
}

#[test]
fn endpoints_below_one_bridge_get_a_range_and_a_bridge_decoder_each() {
    let board = three_below_one();
    let plan = board.plan(&Policy::default()).unwrap();
    board.check(&plan);
    let bridge: Vec<_> = plan
        .decoders_of(NodeId(0))
        .map(|planned| match planned.purpose {
            Purpose::Region { decoder, .. } => {
                (planned.index, decoder.span.base().0, decoder.span.size(), decoder.route)
            }
            Purpose::Burn { .. } => panic!("nothing is burned"),
        })
        .collect();
    let to = |port| Route::Targets(Targets::new(&[port]).unwrap());
    assert_eq!(
        bridge,
        [
            (0, WINDOW, GIB, to(0)),
            (1, WINDOW + GIB, 256 * MIB, to(2)),
            (2, WINDOW + GIB + 256 * MIB, 512 * MIB, to(5)),
        ]
    );
}

/// A device with both partitions, and a request that leaves a piece of the volatile one free.
fn both_partitions() -> (Board, [Request; 2]) {
    let mut board = Board::new();
    let bridge = board.bridge(7);
    let port = board.root_port(bridge, 3);
    board.memory(port, GIB, 2 * GIB);
    board.window(WINDOW, 4 * GIB, &[7]);
    let device = path(7, &[3]);
    let volatile = Request { size: Some(256 * MIB), ..request(device) };
    let persistent = Request { partition: Partition::Persistent, ..request(device) };
    (board, [persistent, volatile])
}

#[test]
fn persistent_memory_is_reached_by_a_skip_over_what_is_left_of_the_volatile() {
    let (board, requests) = both_partitions();
    let plan = board.plan(&Policy { requests: &requests, ..Policy::default() }).unwrap();
    board.check(&plan);
    let decoders: Vec<_> = plan
        .decoders_of(NodeId(2))
        .map(|planned| match planned.purpose {
            Purpose::Region { decoder, .. } => (decoder.span.base().0, decoder.route),
            Purpose::Burn { .. } => panic!("nothing is burned"),
        })
        .collect();
    assert_eq!(decoders, [(WINDOW, Route::Skip(0)), (WINDOW + 256 * MIB, Route::Skip(768 * MIB))]);
    let dpa = plan.members(&plan.regions[1])[0].dpa;
    assert_eq!(dpa, Span::new(Dpa(GIB), 2 * GIB).unwrap());
    let unused = unused(NodeId(2), Partition::Volatile, 768 * MIB);
    assert_eq!(plan.notes.as_slice(), [unused]);
}

/// Memory that the policy did not ask for.
fn unused(device: NodeId, partition: Partition, size: u64) -> Note {
    Note::Unused { device, partition, size, why: Why::NotAsked }
}

/// What a device's decoders get: host base, skip, first and last device address.
fn shares(plan: &board::BoardPlan, device: NodeId) -> Vec<(u64, u64, u64, u64)> {
    let shares = plan.decoders_of(device).map(|planned| {
        let Purpose::Region { region, decoder } = planned.purpose else { panic!("burned") };
        let Route::Skip(skip) = decoder.route else { panic!("a device skips") };
        let members = plan.members(&plan.regions[usize::from(region)]);
        let member = members.iter().find(|member| member.device == device);
        let dpa = member.expect("a decoder serves its device").dpa;
        (decoder.span.base().0, skip, dpa.base().0, dpa.last().0)
    });
    shares.collect()
}

#[test]
fn what_a_request_leaves_out_moves_its_memory_and_that_of_all_decoders_above() {
    let (board, [persistent, volatile]) = both_partitions();
    let requests = [
        Request { skip: 512 * MIB, ..persistent },
        Request { size: Some(512 * MIB), skip: 256 * MIB, ..persistent },
        Request { skip: 256 * MIB, ..volatile },
    ];
    // 0: 256 MiB left out, 256 MiB mapped.
    // 1: the volatile half GiB that nobody wants and 256 MiB left out, 512 MiB mapped.
    // 2: 512 MiB left out, and the 768 MiB that remain of 2 GiB.
    // A base that is the sum of the sizes below would be 0x1000_0000 for decoder 1.
    let expected = [
        (WINDOW, 0x1000_0000, 0x1000_0000, 0x1FFF_FFFF),
        (WINDOW + 0x1000_0000, 0x3000_0000, 0x5000_0000, 0x6FFF_FFFF),
        (WINDOW + 0x3000_0000, 0x2000_0000, 0x9000_0000, 0xBFFF_FFFF),
    ];
    // Persistent and volatile memory: what is left out is unused, as is what nobody asked for.
    let notes = [Partition::Volatile, Partition::Persistent]
        .map(|partition| unused(NodeId(2), partition, 768 * MIB));
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let requests = order.map(|index| requests[index]);
        let plan = board.plan(&Policy { requests: &requests, ..Policy::default() }).unwrap();
        board.check(&plan);
        assert_eq!(shares(&plan, NodeId(2)), expected);
        assert_eq!(plan.notes.as_slice(), notes);
    }
}

#[test]
fn requests_that_differ_in_what_they_leave_out_are_served_in_one_order() {
    let (board, [persistent, _]) = both_partitions();
    let piece = Request { size: Some(256 * MIB), ..persistent };
    let requests = [Request { skip: 512 * MIB, ..piece }, piece];
    for requests in [requests, [requests[1], requests[0]]] {
        let plan = board.plan(&Policy { requests: &requests, ..Policy::default() }).unwrap();
        board.check(&plan);
        let expected = [
            (WINDOW, 0x4000_0000, 0x4000_0000, 0x4FFF_FFFF),
            (WINDOW + 0x1000_0000, 0x2000_0000, 0x7000_0000, 0x7FFF_FFFF),
        ];
        assert_eq!(shares(&plan, NodeId(2)), expected);
    }
}

#[test]
fn a_request_for_no_memory_leaves_nothing_out() {
    let (board, [persistent, _]) = both_partitions();
    let requests = [Request { size: Some(0), skip: 512 * MIB, ..persistent }, persistent];
    let plan = board.plan(&Policy { requests: &requests, ..Policy::default() }).unwrap();
    let expected = [(WINDOW, 0x4000_0000, 0x4000_0000, 0xBFFF_FFFF)];
    assert_eq!(shares(&plan, NodeId(2)), expected);
}

#[test]
fn whole_partitions_follow_each_other_without_a_skip() {
    let (board, _) = both_partitions();
    let plan = board.plan(&Policy::default()).unwrap();
    let skips: Vec<_> = plan
        .decoders_of(NodeId(2))
        .filter_map(|planned| match planned.purpose {
            Purpose::Region { decoder, .. } => Some(decoder.route),
            Purpose::Burn { .. } => None,
        })
        .collect();
    assert_eq!(skips, [Route::Skip(0), Route::Skip(0)]);
    assert!(plan.notes.is_empty());
}

#[test]
fn an_offset_places_a_region_anywhere_in_the_window_and_the_rest_goes_round_it() {
    let mut board = three_below_one();
    board.windows[0].size = 2 * GIB;
    let fixed = Request { offset: Some(512 * MIB), ..request(path(7, &[2])) };
    let plan = board.plan(&Policy { requests: &[fixed], ..Policy::default() }).unwrap();
    board.check(&plan);
    let spans: Vec<_> = plan.regions.iter().map(|r| (r.span.base().0, r.span.size())).collect();
    assert_eq!(
        spans,
        [(WINDOW, 512 * MIB), (WINDOW + 512 * MIB, 256 * MIB), (WINDOW + 768 * MIB, GIB),]
    );
}

#[test]
fn a_device_can_have_several_regions_and_a_named_window() {
    let (mut board, _) = simple();
    board.window(0x8_0000_0000, GIB, &[7]);
    let piece = |window, offset, size| Request {
        window: Some(window),
        offset,
        size: Some(size),
        ..request(place())
    };
    let requests = [
        piece(Hpa(0x8_0000_0000), Some(0), 256 * MIB),
        piece(Hpa(WINDOW), Some(3 * GIB), 512 * MIB),
        piece(Hpa(WINDOW), None, 256 * MIB),
    ];
    let policy = Policy { requests: &requests, ..Policy::default() };
    let plan = board.plan(&policy).unwrap();
    board.check(&plan);
    let seen: Vec<_> =
        plan.regions.iter().map(|r| (r.span.base().0, plan.members(r)[0].dpa.base().0)).collect();
    assert_eq!(seen, [(WINDOW, 0), (WINDOW + 3 * GIB, 256 * MIB), (0x8_0000_0000, 768 * MIB)]);
    for order in [[1, 2, 0], [2, 1, 0], [0, 2, 1]] {
        let listed = order.map(|index| requests[index]);
        let policy = Policy { requests: &listed, ..Policy::default() };
        assert_eq!(board.text(&policy), plan.text(board.topology().tree()).to_string());
    }
}

#[test]
fn what_asks_for_the_rest_is_served_after_what_asks_for_a_size() {
    let (board, _) = simple();
    let rest = request(place());
    let sized = Request { size: Some(256 * MIB), ..rest };
    let plan = board.plan(&Policy { requests: &[rest, sized], ..Policy::default() }).unwrap();
    let sizes: Vec<_> = plan.regions.iter().map(|region| region.span.size()).collect();
    assert_eq!(sizes, [256 * MIB, 768 * MIB]);
}

#[test]
fn persistent_memory_passes_a_gap_below_the_volatile_memory() {
    let (mut board, _) = both_partitions();
    let other = board.root_port(NodeId(0), 4);
    board.memory(other, 256 * MIB, 0);
    *board.device(NodeId(2)) =
        cxl_firmware::topology::Device { persistent: 512 * MIB, ..*board.device(NodeId(2)) };
    let last = board.root_port(NodeId(0), 5);
    board.memory(last, 256 * MIB, 0);
    // 512 MiB are free between the fixed ones: enough for the persistent part only.
    let fixed = |port, offset| Request { offset: Some(offset), ..request(path(7, &[port])) };
    let requests = [fixed(4, 768 * MIB), fixed(5, 0)];
    let plan = board.plan(&Policy { requests: &requests, ..Policy::default() }).unwrap();
    board.check(&plan);
    let spans: Vec<_> = plan.regions.iter().map(|r| (r.span.base().0, r.partition)).collect();
    assert_eq!(
        spans,
        [
            (WINDOW, Partition::Volatile),
            (WINDOW + 768 * MIB, Partition::Volatile),
            (WINDOW + GIB, Partition::Volatile),
            (WINDOW + 2 * GIB, Partition::Persistent),
        ]
    );
}

#[test]
fn a_request_for_nothing_leaves_a_device_out() {
    let (mut board, _) = simple();
    board.bridge_with_memory(8, GIB); // no window leads here
    let out = Request { size: Some(0), ..request(path(8, &[0])) };
    let plan = board.plan(&Policy { requests: &[out], ..Policy::default() }).unwrap();
    assert_eq!(plan.regions.len(), 1);
    assert_eq!(plan.notes.as_slice(), [unused(NodeId(5), Partition::Volatile, GIB)]);
}

/// Two switches in a row, two devices at each level.
fn two_switches() -> Board {
    let mut board = Board::new();
    let bridge = board.bridge(7);
    let port = board.root_port(bridge, 1);
    let upper = board.switch(port);
    let direct = board.downstream_port(upper, 4);
    board.memory(direct, 256 * MIB, 0);
    let on = board.downstream_port(upper, 2);
    let lower = board.switch(on);
    for number in [9, 8] {
        let port = board.downstream_port(lower, number);
        board.memory(port, 512 * MIB, 0);
    }
    board.window(WINDOW, 4 * GIB, &[7]);
    board
}

#[test]
fn every_switch_on_the_way_gets_a_decoder_that_leads_to_the_right_port() {
    let board = two_switches();
    let plan = board.plan(&Policy::default()).unwrap();
    board.check(&plan);
    let targets = |id| -> Vec<u8> {
        plan.decoders_of(NodeId(id))
            .filter_map(|planned| match planned.purpose {
                Purpose::Region { decoder, .. } => match decoder.route {
                    Route::Targets(targets) => Some(targets.0[0]),
                    Route::Skip(_) => None,
                },
                Purpose::Burn { .. } => None,
            })
            .collect()
    };
    // Regions in order of place: 1.2.8, 1.2.9, 1.4.
    assert_eq!((targets(0), targets(2), targets(6)), (vec![1; 3], vec![2, 2, 4], vec![8, 9]));
}

#[test]
fn decoders_come_in_order_of_commit_devices_then_switches_upwards_then_bridges() {
    let plan = two_switches().plan(&Policy::default()).unwrap();
    let order: Vec<_> = plan.decoders.iter().map(|d| (d.node.0, d.index)).collect();
    assert_eq!(
        order,
        [(10, 0), (8, 0), (4, 0), (6, 0), (6, 1), (2, 0), (2, 1), (2, 2), (0, 0), (0, 1), (0, 2)]
    );
}

/// A bridge without decoders and with one port.
fn pass_through() -> Board {
    let (mut board, _) = simple();
    board.node(NodeId(0)).hdm = None;
    board
}

#[test]
fn a_pass_through_bridge_gets_no_decoder_and_a_note() {
    let board = pass_through();
    let plan = board.plan(&Policy::default()).unwrap();
    board.check(&plan);
    assert_eq!(plan.decoders.len(), 1);
    assert_eq!(plan.notes.as_slice(), [Note::PassThrough { uid: 7 }]);
}

#[test]
fn path_two_plans_nothing_and_says_who_programs() {
    let policy = Policy { path: PathPolicy::GuestPrograms, ..Policy::default() };
    let plan = pass_through().plan(&policy).unwrap();
    assert!(plan.regions.is_empty() && plan.decoders.is_empty());
    assert_eq!(plan.notes.as_slice(), [Note::GuestPrograms { device: NodeId(2) }]);
}

const DESCRIBE: Policy<'_> = Policy { path: PathPolicy::Describe, ..Policy::DEFAULT };

/// Two bridges with two ports each, and two windows: what path 2 refuses for four reasons.
fn two_by_two() -> Board {
    let mut board = Board::new();
    for uid in [7, 8] {
        let bridge = board.bridge(uid);
        for number in 0..2 {
            let port = board.root_port(bridge, number);
            board.memory(port, GIB, 0);
        }
    }
    board.window(WINDOW, 8 * GIB, &[7, 8]);
    board
}

#[test]
fn what_the_system_programs_may_be_of_any_shape() {
    let noted = |board: &Board| {
        let plan = board.plan(&DESCRIBE).expect("a plan");
        assert!(plan.regions.is_empty() && plan.decoders.is_empty());
        let devices = plan.notes.iter().map(|note| match note {
            Note::SystemPrograms { device } => device.0,
            other => panic!("{other:?}"),
        });
        devices.collect::<Vec<_>>()
    };
    assert_eq!(noted(&two_by_two()), [2, 4, 7, 9]);
    // In order of place.
    assert_eq!(noted(&two_switches()), [10, 8, 4]);
    assert_eq!(noted(&pass_through()), [2]);
    // Two windows that fit are no ambiguity where nobody chooses, and a small one is one all the same.
    let (mut board, _) = simple();
    board.window(2 * WINDOW, UNIT, &[7]);
    board.windows[0].size = UNIT;
    assert_eq!(noted(&board), [2]);
}

#[test]
fn memory_that_no_window_admits_is_refused_whoever_programs() {
    let refused = |change: fn(&mut Board)| {
        let mut board = two_by_two();
        change(&mut board);
        let mut made = Plan::<16, 4, 16>::new();
        let topology = board.topology();
        let error = plan(&board.platform(), topology.tree(), &DESCRIBE, &mut made);
        assert!(made.notes.is_empty());
        (error.expect_err("a refusal"), made.refusals.list().to_vec())
    };
    let (volatile, at) = (Partition::Volatile, path(7, &[0]));
    let base = Some(Hpa(WINDOW));
    let (error, told) = refused(|board| board.windows.clear());
    assert_eq!(error, Code::PLAN_NO_WINDOW.at(at).detail(volatile).expected(GIB));
    assert_eq!(told, []);
    let (error, told) = refused(|board| board.windows[0].restrictions.set_volatile(false));
    assert_eq!(error, Code::PLAN_MEDIA_NOT_ALLOWED.at(at).detail(volatile).found(Hpa(WINDOW)));
    let why = Unfit::MediaNotAllowed { partition: volatile };
    assert_eq!(told, [Refused { window: base, why }]);
    let (error, _) = refused(|board| board.windows[0].restrictions.set_host_only(false));
    assert_eq!(error.code, Code::PLAN_COHERENCY_NOT_ALLOWED);
    let (error, _) = refused(|board| board.windows[0].base = None);
    assert_eq!(error.code, Code::PLAN_UNPLACED);
    // Of two windows the one that came further tells why; persistent memory needs one too.
    let (error, told) = refused(|board| {
        board.device(NodeId(9)).persistent = GIB;
        board.windows[0].restrictions.set_persistent(false);
        board.window(1 << 46, GIB, &[8]);
    });
    assert_eq!(error.code, Code::PLAN_MEDIA_NOT_ALLOWED);
    assert_eq!((error.at.to_string(), told.len()), ("bridge 8 port 1".to_owned(), 2));
}

#[test]
fn who_only_describes_is_asked_for_nothing() {
    let board = two_by_two();
    let asked = [request(path(7, &[0]))];
    let ask = Policy { requests: &asked, ..DESCRIBE };
    assert_eq!(refusal(&board, &ask), Code::PLAN_REQUEST_TO_GUEST.at(path(7, &[0])));
    let ask = Policy { width: Width::Widest, ..DESCRIBE };
    assert_eq!(refusal(&board, &ask), Code::PLAN_WIDTH_TO_GUEST.error());
    let ask = Policy { burn_spares: true, target: TargetSystem::Specification, ..DESCRIBE };
    assert_eq!(refusal(&board, &ask), Code::PLAN_BURN_WITHOUT_LOCK.error());
}

#[test]
fn spare_decoders_are_burned_at_the_end_of_the_one_before() {
    let (mut board, device) = simple();
    board.node(device).hdm = capable(2);
    board.node(NodeId(0)).hdm = capable(4);
    let target = TargetSystem::Specification;
    let policy = Policy { burn_spares: true, target, ..Policy::default() };
    let plan = board.plan(&policy).unwrap();
    board.check(&plan);
    let burned: Vec<_> = plan
        .decoders
        .iter()
        .filter_map(|planned| match planned.purpose {
            Purpose::Burn { base } => Some((planned.node, planned.index, base.0)),
            Purpose::Region { .. } => None,
        })
        .collect();
    let end = WINDOW + GIB;
    let bridge = NodeId(0);
    assert_eq!(burned, [(device, 1, end), (bridge, 1, end), (bridge, 2, end), (bridge, 3, end)]);
}

// --- coherency ---------------------------------------------------------------------------------

#[test]
fn coherency_follows_from_the_device_its_path_and_the_window() {
    use Coherency::{BackInvalidate, Device, HostOnly};
    use DeviceKind::{Type2, Type3};
    // The window: host-only, device-coherent, back-invalidate.
    const H: (bool, bool, bool) = (true, false, false);
    const D: (bool, bool, bool) = (false, true, false);
    const DB: (bool, bool, bool) = (false, true, true);
    const ALL: (bool, bool, bool) = (true, true, true);
    // BI structure of the device (HDM-D capable), of the port; Supported Coherency Models.
    let refused = |coherency| {
        Err(Code::PLAN_COHERENCY_NOT_ALLOWED.at(place()).detail(coherency).found(WINDOW))
    };
    let no_bi = |at| Err(Code::PLAN_NO_BACK_INVALIDATE.at(place()).above(at));
    let cases = [
        (Type3, 0, None, false, ALL, Ok(HostOnly)),
        (Type3, 0, None, false, D, refused(HostOnly)),
        (Type3, 2, bi(false), true, DB, refused(HostOnly)),
        (Type3, 3, bi(false), true, ALL, Ok(HostOnly)),
        (Type3, 3, bi(false), true, DB, Ok(BackInvalidate)),
        (Type3, 3, bi(false), false, DB, refused(HostOnly)),
        (Type3, 3, bi(false), false, ALL, Ok(HostOnly)),
        (Type3, 3, None, true, D, refused(HostOnly)),
        (Type3, 1, bi(false), true, ALL, Ok(BackInvalidate)),
        (Type3, 1, bi(false), true, D, refused(BackInvalidate)),
        (Type3, 1, bi(true), true, D, refused(BackInvalidate)),
        (Type3, 1, bi(false), false, ALL, no_bi(place())),
        (Type3, 1, None, false, ALL, no_bi(place())),
        (Type2, 0, None, false, ALL, Ok(Device)),
        (Type2, 0, None, false, D, Ok(Device)),
        (Type2, 0, None, false, H, refused(Device)),
        (Type2, 0, bi(true), true, ALL, Ok(BackInvalidate)),
        (Type2, 0, bi(true), true, D, Ok(Device)),
        (Type2, 0, bi(true), false, ALL, Ok(Device)),
        (Type2, 0, bi(false), true, DB, Ok(BackInvalidate)),
        (Type2, 0, bi(false), true, D, refused(BackInvalidate)),
        (Type2, 0, bi(false), false, ALL, no_bi(place())),
        (Type2, 2, None, false, ALL, Ok(HostOnly)),
        (Type2, 3, None, false, H, Ok(HostOnly)),
        (Type2, 3, None, false, ALL, Ok(Device)),
    ];
    for (case, (kind, models, device_bi, port_bi, window, expected)) in
        cases.into_iter().enumerate()
    {
        let (mut board, device) = simple();
        board.device(device).kind = kind;
        board.node(device).back_invalidate = device_bi;
        let hdm = board.node(device).hdm.as_mut().unwrap();
        hdm.capability = hdm.capability.with_coherency_models(models);
        board.node(NodeId(1)).back_invalidate = port_bi.then(|| bi(false)).flatten();
        board.windows[0].restrictions = any_use()
            .with_host_only(window.0)
            .with_device_coherent(window.1)
            .with_back_invalidate(window.2);
        let got = board.plan(&Policy::default()).map(|plan| {
            board.check(&plan);
            plan.regions[0].coherency
        });
        assert_eq!(got, expected, "case {case}");
    }
}

#[test]
fn a_back_invalidate_path_needs_every_switch_on_it() {
    let mut board = two_switches();
    for node in &mut board.nodes {
        if !matches!(node.kind, NodeKind::HostBridge { .. }) {
            node.back_invalidate = bi(false);
        }
        if let (NodeKind::Device(device), Some(hdm)) = (&mut node.kind, &mut node.hdm) {
            device.kind = DeviceKind::Type2;
            hdm.capability = hdm.capability.with_coherency_models(1);
        }
    }
    board.windows[0].restrictions = any_use().with_back_invalidate(true);
    let plan = board.plan(&Policy::default()).unwrap();
    assert!(plan.regions.iter().all(|region| region.coherency == Coherency::BackInvalidate));
    board.node(NodeId(6)).back_invalidate = None; // the lower switch
    let device = path(7, &[1, 2, 8]);
    refuses(&board, Code::PLAN_NO_BACK_INVALIDATE.at(device).above(path(7, &[1, 2])));
}

#[test]
fn an_accelerator_that_is_mapped_without_back_invalidate_is_noted_with_the_reason() {
    let (mut board, device) = simple();
    board.device(device).kind = DeviceKind::Type2;
    board.node(device).back_invalidate = bi(true);
    board.windows[0].restrictions = any_use().with_back_invalidate(true);
    let coherency = Coherency::Device;
    let notes = |board: &Board| board.plan(&Policy::default()).unwrap().notes.to_vec();
    let gap = Note::BackInvalidateGap { device, at: NodeId(1), coherency };
    assert_eq!(notes(&board), [gap]);
    assert_eq!(
        gap.text(board.topology().tree()).to_string(),
        "bridge 7 port 0: could do back-invalidate (HDM-DB), its memory is device-coherent \
         (HDM-D): the root port at bridge 7 port 0 has no BI structure"
    );
    board.node(NodeId(1)).back_invalidate = bi(false);
    assert_eq!(notes(&board), []);
    board.windows[0].restrictions.set_back_invalidate(false);
    let window = Note::BackInvalidateWindow { device, window: Hpa(WINDOW), coherency };
    assert_eq!(notes(&board), [window]);
    // An expander is host-only by choice, and an accelerator without a BI decoder cannot.
    board.node(device).back_invalidate = None;
    assert_eq!(notes(&board), []);
    board.device(device).kind = DeviceKind::Type3;
    board.node(device).back_invalidate = bi(true);
    assert_eq!(notes(&board), []);
}

#[test]
fn a_device_without_memory_is_noted_whoever_programs() {
    let mut board = pass_through();
    let device = NodeId(2);
    board.device(device).volatile = 0;
    let plan = board.plan(&Policy::default()).unwrap();
    assert_eq!((plan.regions.len(), plan.notes.as_slice()), (0, &[Note::Empty { device }][..]));
    let path = PathPolicy::GuestPrograms;
    let plan = board.plan(&Policy { path, ..Policy::default() }).unwrap();
    assert_eq!(plan.notes[0], Note::Empty { device });
}

// --- the tree ----------------------------------------------------------------------------------

#[test]
fn a_place_leads_to_its_device_and_back() {
    let board = two_switches();
    let topology = board.topology();
    let tree = topology.tree();
    for (ports, node) in [(&[1, 4][..], 4), (&[1, 2, 9], 8), (&[1, 2, 8], 10)] {
        assert_eq!(tree.device_at(&path(7, ports)), Some(NodeId(node)));
        assert_eq!(tree.path(NodeId(node)), path(7, ports));
    }
    // A port, a switch, another bridge.
    for place in [path(7, &[1]), path(7, &[1, 2]), path(8, &[1, 4])] {
        assert_eq!(tree.device_at(&place), None);
    }
}

#[test]
fn a_walk_upwards_ends_in_a_loop_too() {
    let mut board = Board::new();
    let bridge = board.bridge(7);
    board.node(bridge).parent = Some(bridge);
    // A device, sixteen ports and switches, a bridge: no path is longer.
    assert_eq!(board.topology().tree().upwards(bridge).count(), 18);
}

// --- refusals: windows (C3) --------------------------------------------------------------------

#[test]
fn a_bridge_that_no_window_targets_is_refused() {
    let (mut board, _) = simple();
    board.bridge_with_memory(8, 512 * MIB);
    let (device, partition) = (path(8, &[0]), Partition::Volatile);
    refuses(&board, Code::PLAN_NO_WINDOW.at(device).detail(partition).expected(512 * MIB));
}

#[test]
fn a_target_that_names_no_bridge_is_refused_even_in_a_window_that_nobody_needs() {
    let (mut board, _) = simple();
    board.window(0x8_0000_0000, GIB, &[99]);
    refuses(&board, Code::PLAN_TARGET_MISSING.at(Place::window(Hpa(0x8_0000_0000))).found(99));
}

#[test]
fn ways_and_targets_of_a_window_have_to_agree() {
    let (mut board, _) = simple();
    board.bridge_with_memory(8, GIB);
    board.windows[0].targets.push(8).unwrap();
    let ways = Ways::One;
    refuses(&board, Code::PLAN_TARGET_COUNT.at(Place::window(Hpa(WINDOW))).expected(ways).found(2));
}

#[test]
fn a_bridge_is_a_target_of_a_window_once() {
    let (mut board, _) = simple();
    board.window(0x8_0000_0000, GIB, &[7, 7]);
    refuses(&board, Code::PLAN_TARGET_TWICE.at(Place::window(Hpa(0x8_0000_0000))).found(7));
}

#[test]
fn two_windows_that_fit_are_refused_and_naming_one_decides() {
    let (mut board, _) = simple();
    board.window(0x8_0000_0000, GIB, &[7]);
    board.window(0x4_0000_0000, GIB, &[7]);
    let (device, partition) = (place(), Partition::Volatile);
    let (first, second) = (WINDOW, 0x4_0000_0000);
    refuses(
        &board,
        Code::PLAN_AMBIGUOUS.at(device).halves(partition, 3).expected(first).found(second),
    );
    board.windows.rotate_left(1);
    refuses(
        &board,
        Code::PLAN_AMBIGUOUS.at(device).halves(partition, 3).expected(first).found(second),
    );
    let named = Request { window: Some(Hpa(second)), ..request(place()) };
    let plan = board.plan(&Policy { requests: &[named], ..Policy::default() }).unwrap();
    assert_eq!(plan.regions[0].span.base(), Hpa(second));
}

#[test]
fn windows_that_do_not_fit_make_no_choice_ambiguous() {
    let second = 0x8_0000_0000;
    for unfit in 0..5 {
        let (mut board, _) = simple();
        board.bridge(8);
        let window = board.window(second, GIB, &[7]);
        match unfit {
            0 => window.size = 768 * MIB,
            1 => window.restrictions.set_volatile(false),
            2 => window.restrictions.set_host_only(false),
            3 => window.base = None,
            _ => {
                window.interleave.ways = Ways::Two;
                window.targets.push(8).unwrap();
            }
        }
        let plan = board.plan(&Policy::default()).unwrap();
        assert_eq!(plan.regions[0].window, Hpa(WINDOW), "case {unfit}");
    }
}

#[test]
fn an_interleaved_window_is_no_place_for_a_flat_mapping() {
    let (mut board, _) = simple();
    board.bridge_with_memory(8, GIB);
    board.windows.clear();
    board.window(WINDOW, 4 * GIB, &[8, 7]);
    let (device, ways) = (place(), Ways::Two);
    refuses(&board, Code::PLAN_INTERLEAVED.at(device).detail(ways).found(WINDOW));
}

#[test]
fn a_window_without_a_base_did_not_fit() {
    let (mut board, _) = simple();
    board.windows[0].base = None;
    refuses(&board, Code::PLAN_UNPLACED.at(place()).found(4 * GIB));
}

#[test]
fn a_window_has_to_end_inside_the_physical_width() {
    let (mut board, _) = simple();
    board.address_bits = 36;
    // The last byte of the window is the last one of 36 bits.
    board.windows[0].base = Some(Hpa(0xF_0000_0000));
    assert_eq!(board.plan(&Policy::default()).unwrap().regions.len(), 1);
    board::move_up(&mut board.windows[0], UNIT);
    let (window, size, bits) = (0xF_1000_0000, 4 * GIB, 36);
    refuses(
        &board,
        Code::PLAN_BEYOND_ADDRESS_WIDTH.at(Place::window(Hpa(window))).expected(bits).found(size),
    );
    // Wider than any address: only what wraps is beyond.
    board.address_bits = 64;
    assert_eq!(board.plan(&Policy::default()).unwrap().regions.len(), 1);
    board.windows[0].base = Some(Hpa(0xFFFF_FFFF_0000_0000));
    let (window, bits) = (0xFFFF_FFFF_0000_0000, 64);
    refuses(
        &board,
        Code::PLAN_BEYOND_ADDRESS_WIDTH.at(Place::window(Hpa(window))).expected(bits).found(size),
    );
}

#[test]
fn windows_that_overlap_are_refused_and_adjacent_ones_are_not() {
    let (mut board, _) = simple();
    board.bridge_with_memory(8, GIB);
    board.window(WINDOW + 4 * GIB, GIB, &[8]);
    assert_eq!(board.plan(&Policy::default()).unwrap().regions.len(), 2);
    let second = WINDOW + 4 * GIB - UNIT;
    board.windows[1].base = Some(Hpa(second));
    refuses(&board, Code::PLAN_WINDOWS_OVERLAP.at(Place::window(Hpa(WINDOW))).found(second));
    board.windows.reverse();
    refuses(&board, Code::PLAN_WINDOWS_OVERLAP.at(Place::window(Hpa(WINDOW))).found(second));
}

#[test]
fn windows_that_cannot_be_used_overlap_as_well() {
    let (mut board, _) = simple();
    board.window(WINDOW - UNIT, u64::MAX, &[7]); // wraps
    refuses(&board, Code::PLAN_WINDOWS_OVERLAP.at(Place::window(Hpa(WINDOW - UNIT))).found(WINDOW));
    board.windows.truncate(1);
    board.window(WINDOW, 0, &[7]);
    for _ in 0..2 {
        board.windows.reverse();
        refuses(&board, Code::PLAN_WINDOWS_OVERLAP.at(Place::window(Hpa(WINDOW))).found(WINDOW));
    }
}

#[test]
fn a_window_over_ram_or_registers_is_refused() {
    let (mut board, _) = simple();
    let refusal = |board: &Board, platform: Platform<'_>| {
        let mut made = Plan::<16, 32, 64>::new();
        plan(&platform, board.topology().tree(), &Policy::default(), &mut made).err()
    };
    let span = |base, size| Span::new(Hpa(base), size).unwrap();
    let occupied = |by: Span| {
        Some(
            Code::PLAN_WINDOW_OCCUPIED
                .at(Place::window(Hpa(WINDOW)))
                .expected(by.base())
                .found(by.size()),
        )
    };
    // RAM up to the window and from its end is fine; a byte of either end inside is not.
    let around = [span(0, WINDOW), span(WINDOW + 4 * GIB, GIB)];
    let platform = Platform { occupied: &around, ..board.platform() };
    assert_eq!(refusal(&board, platform), None);
    for by in [span(0, WINDOW + 1), span(WINDOW + 4 * GIB - 1, 2), span(WINDOW + GIB, 4096)] {
        let platform = Platform { occupied: &[by], ..board.platform() };
        assert_eq!(refusal(&board, platform), occupied(by));
    }
    // The lowest is named, in whatever order they are listed.
    let mut two = [span(WINDOW + GIB, GIB), span(WINDOW, GIB)];
    for _ in 0..2 {
        two.reverse();
        let platform = Platform { occupied: &two, ..board.platform() };
        assert_eq!(refusal(&board, platform), occupied(span(WINDOW, GIB)));
    }
    // Configuration space: buses 1 and 2 of a region whose bus 0 would lie 1 MiB below it.
    for (base, inside) in [(WINDOW - 3 * MIB, false), (WINDOW - 3 * MIB + MIB, true)] {
        let ecam = [Ecam { base: Hpa(base), segment: 0, first_bus: 1, last_bus: 2 }];
        let platform = Platform { ecam: &ecam, ..board.platform() };
        let by = span(base + MIB, 2 * MIB);
        assert_eq!(refusal(&board, platform), if inside { occupied(by) } else { None });
    }
    // A bridge's register block: 64 KiB, or 8 KiB of a CXL 1.1 host.
    for (kind, size) in [(BridgeKind::ComponentRegisters, 0x1_0000), (BridgeKind::Rcrb, 0x2000)] {
        for (registers, inside) in [(WINDOW - size, false), (WINDOW - size + 0x1000, true)] {
            board.bridges[0].kind = kind;
            board.bridges[0].registers = Hpa(registers);
            let expected = if inside { occupied(span(registers, size)) } else { None };
            assert_eq!(refusal(&board, board.platform()), expected, "{kind:?} {registers:#x}");
        }
    }
    // A window that the platform did not place is over nothing.
    board.bridges[0].registers = Hpa(0);
    board.window(0, 4 * GIB, &[7]);
    let platform = Platform { occupied: &[span(0, GIB)], ..board.platform() };
    assert_eq!(refusal(&board, platform), None);
}

#[test]
fn windows_without_a_base_overlap_nothing() {
    let (mut board, _) = simple();
    board.window(0, 4 * GIB, &[7]);
    board.window(0, 4 * GIB, &[7]);
    assert_eq!(board.plan(&Policy::default()).unwrap().regions.len(), 1);
}

#[test]
fn a_window_smaller_than_the_device_is_refused() {
    let (mut board, _) = simple();
    for have in [768 * MIB, 0] {
        board.windows[0].size = have;
        let (device, need) = (place(), GIB);
        refuses(
            &board,
            Code::PLAN_WINDOW_TOO_SMALL
                .at(Place::in_window(device, Hpa(WINDOW)))
                .expected(need)
                .found(have),
        );
    }
}

#[test]
fn a_full_window_says_how_much_is_left_in_one_piece() {
    let mut board = three_below_one();
    board.windows[0].size = GIB + 512 * MIB;
    let (device, need, free) = (path(7, &[5]), 512 * MIB, 256 * MIB);
    refuses(
        &board,
        Code::PLAN_WINDOW_FULL.at(Place::in_window(device, Hpa(WINDOW))).expected(need).found(free),
    );
}

#[test]
fn media_that_the_window_does_not_allow_is_refused() {
    let (mut board, _) = both_partitions();
    board.windows[0].restrictions.set_persistent(false);
    let (device, partition) = (path(7, &[3]), Partition::Persistent);
    refuses(&board, Code::PLAN_MEDIA_NOT_ALLOWED.at(device).detail(partition).found(WINDOW));
}

#[test]
fn the_window_that_came_closest_tells_why_none_fits() {
    let (mut board, _) = simple();
    board.windows[0].restrictions.set_volatile(false);
    board.window(0x4_0000_0000, 512 * MIB, &[7]);
    board.window(0, 8 * GIB, &[7]);
    let (device, window) = (place(), 0x4_0000_0000);
    let (need, have) = (GIB, 512 * MIB);
    for _ in 0..3 {
        board.windows.rotate_left(1);
        refuses(
            &board,
            Code::PLAN_WINDOW_TOO_SMALL
                .at(Place::in_window(device, Hpa(window)))
                .expected(need)
                .found(have),
        );
    }
    // Of two that came equally far, the lower one; of two without a base, the smaller one.
    board.window(0x8_0000_0000, 256 * MIB, &[7]);
    for _ in 0..4 {
        board.windows.rotate_left(1);
        refuses(
            &board,
            Code::PLAN_WINDOW_TOO_SMALL
                .at(Place::in_window(device, Hpa(window)))
                .expected(need)
                .found(have),
        );
    }
    for (window, gib) in board.windows.iter_mut().zip([2, 5, 1, 3]) {
        (window.base, window.size) = (None, gib * GIB);
    }
    for _ in 0..4 {
        board.windows.rotate_left(1);
        refuses(&board, Code::PLAN_UNPLACED.at(device).found(GIB));
    }
}

// --- the windows that were not taken -----------------------------------------------------------

const SECOND: u64 = 0x4_0000_0000;

fn second(board: &mut Board) -> &mut cxl_firmware::platform::Window {
    board.window(SECOND, 4 * GIB, &[7])
}

/// What is told of the other windows of a region.
fn told(board: &Board, policy: &Policy<'_>, region: usize) -> Vec<(u64, Unfit)> {
    let plan = board.plan(policy).expect("a plan");
    board.check(&plan);
    let (platform, topology) = (board.platform(), board.topology());
    let refused = plan.refused(&platform, topology.tree(), policy, region);
    refused.map(|Refused { window, why }| (window.map_or(0, |base| base.0), why)).collect()
}

#[test]
fn each_window_that_was_not_taken_is_told_with_its_reason_and_numbers() {
    type Change = fn(&mut Board);
    let ways = Ways::Two;
    let cases: [(Change, u64, Unfit); 10] = [
        (
            |board| {
                board.bridge(8);
                board.window(SECOND, GIB, &[8]);
            },
            SECOND,
            Unfit::NotATarget { uid: 7 },
        ),
        (|board| second(board).base = None, 0, Unfit::Unplaced { size: 4 * GIB }),
        (
            |board| board::move_up(second(board), MIB),
            SECOND + MIB,
            Unfit::Unaligned { base: Hpa(SECOND + MIB) },
        ),
        (|board| second(board).size = 0, SECOND, Unfit::Empty { need: GIB }),
        (
            |board| {
                second(board);
                board.address_bits = 34;
            },
            SECOND,
            Unfit::BeyondAddressWidth { size: 4 * GIB, bits: 34 },
        ),
        (
            |board| {
                board.bridge(8);
                board.window(SECOND, 4 * GIB, &[8, 7]);
            },
            SECOND,
            Unfit::Interleaved { ways },
        ),
        (
            |board| second(board).restrictions.set_volatile(false),
            SECOND,
            Unfit::MediaNotAllowed { partition: Partition::Volatile },
        ),
        (
            |board| second(board).restrictions.set_host_only(false),
            SECOND,
            Unfit::CoherencyNotAllowed { coherency: Coherency::HostOnly },
        ),
        (
            |board| second(board).size = 768 * MIB,
            SECOND,
            Unfit::TooSmall { need: GIB, have: 768 * MIB },
        ),
        // The first reason counts: it leads elsewhere, whatever else is wrong with it.
        (
            |board| {
                board.bridge(8);
                board.window(SECOND, GIB, &[8]).restrictions.set_volatile(false);
            },
            SECOND,
            Unfit::NotATarget { uid: 7 },
        ),
    ];
    for (change, window, why) in cases {
        let (mut board, _) = simple();
        change(&mut board);
        assert_eq!(told(&board, &Policy::default(), 0), [(window, why)]);
        board.windows.reverse();
        assert_eq!(told(&board, &Policy::default(), 0), [(window, why)]);
        // Asked for by name, only what does not lead there at all is told otherwise.
        let asked = [Request { window: Some(Hpa(WINDOW)), ..request(place()) }];
        let policy = Policy { requests: &asked, ..Policy::default() };
        let named = match why {
            Unfit::NotATarget { .. } => why,
            _ => Unfit::NotAsked { asked: Hpa(WINDOW) },
        };
        assert_eq!(told(&board, &policy, 0), [(window, named)]);
    }
}

#[test]
fn a_full_window_is_told_as_it_was_when_the_region_was_placed() {
    // 1 GiB by request and 256 MiB free; 1 GiB that goes elsewhere; then the 256 MiB are taken.
    let (mut board, _) = simple();
    board.windows[0].size = GIB + UNIT;
    for (number, volatile, persistent) in [(1, GIB, 0), (2, 0, UNIT)] {
        let port = board.root_port(NodeId(0), number);
        board.memory(port, volatile, persistent);
    }
    second(&mut board).restrictions.set_persistent(false);
    let asked = [Request { window: Some(Hpa(WINDOW)), ..request(place()) }];
    let policy = Policy { requests: &asked, ..Policy::default() };
    let plan = board.plan(&policy).unwrap();
    let bases: Vec<u64> = plan.regions.iter().map(|region| region.span.base().0).collect();
    assert_eq!(bases, [WINDOW, WINDOW + GIB, SECOND]);
    assert_eq!(told(&board, &policy, 2), [(WINDOW, Unfit::Full { need: GIB, free: UNIT })]);
    let partition = Partition::Persistent;
    assert_eq!(told(&board, &policy, 1), [(SECOND, Unfit::MediaNotAllowed { partition })]);
}

#[test]
fn a_window_without_the_place_asked_for_or_in_the_wrong_order_is_told() {
    let (mut board, device) = simple();
    second(&mut board).size = 2 * GIB;
    let asked = [Request { offset: Some(2 * GIB), ..request(place()) }];
    let policy = Policy { requests: &asked, ..Policy::default() };
    let taken = Unfit::PlaceTaken { offset: 2 * GIB, size: GIB };
    assert_eq!(told(&board, &policy, 0), [(SECOND, taken)]);
    // Volatile memory at the end of the window: persistent memory has room below it only.
    board.device(device).persistent = GIB;
    let volatile = Request { window: Some(Hpa(WINDOW)), offset: Some(3 * GIB), ..request(place()) };
    let persistent = Request { partition: Partition::Persistent, ..request(place()) };
    let asked = [volatile, persistent];
    let policy = Policy { requests: &asked, ..Policy::default() };
    let order = Unfit::DpaOrder { lower: Hpa(WINDOW), higher: Hpa(WINDOW + 3 * GIB) };
    assert_eq!(told(&board, &policy, 1), [(WINDOW, order)]);
}

#[test]
fn where_windows_have_widths_the_choice_of_the_window_is_told() {
    let (mut board, _) = simple();
    second(&mut board);
    let named = [WindowWidth { window: Hpa(SECOND), width: Width::Widest }];
    let policy = Policy { windows: &named, ..Policy::default() };
    assert_eq!(told(&board, &policy, 0), [(WINDOW, Unfit::NotAsked { asked: Hpa(SECOND) })]);
    // A device by request, where sets are wanted: the interleaved window is no place for it.
    board.windows.pop();
    board.bridge(8);
    board.window(SECOND, 4 * GIB, &[7, 8]);
    let asked = [request(place())];
    let policy = Policy { requests: &asked, width: Width::Widest, ..Policy::default() };
    assert_eq!(told(&board, &policy, 0), [(SECOND, Unfit::NoSet { ways: Ways::Two })]);
}

#[test]
fn a_plan_that_is_refused_says_what_spoke_against_every_window() {
    let (mut board, _) = simple();
    board.windows[0].restrictions.set_volatile(false);
    board.window(SECOND, 512 * MIB, &[7]);
    board.window(0, 8 * GIB, &[7]);
    board.bridge(8);
    board.window(0x8_0000_0000, GIB, &[8]);
    let mut made = board::BoardPlan::new();
    let mut refused = |board: &Board, policy: &Policy<'_>| {
        let result = plan(&board.platform(), board.topology().tree(), policy, &mut made);
        assert!(result.is_err() && made.regions.is_empty() && made.refusals.more() == 0);
        let list = made.refusals.list().iter();
        list.map(|Refused { window, why }| (window.map_or(0, |base| base.0), *why))
            .collect::<Vec<_>>()
    };
    let expected = [
        (0, Unfit::Unplaced { size: 8 * GIB }),
        (WINDOW, Unfit::MediaNotAllowed { partition: Partition::Volatile }),
        (SECOND, Unfit::TooSmall { need: GIB, have: 512 * MIB }),
        (0x8_0000_0000, Unfit::NotATarget { uid: 7 }),
    ];
    for _ in 0..4 {
        board.windows.rotate_left(1);
        assert_eq!(refused(&board, &Policy::default()), expected);
    }
    // Of two that fit neither is refused; what is refused beside them is told.
    board.window(0x10_0000_0000, GIB, &[7]);
    board.window(0x20_0000_0000, GIB, &[7]);
    assert_eq!(refused(&board, &Policy::default()), expected);
    let widest = Policy { width: Width::Widest, ..Policy::default() };
    assert_eq!(refused(&board, &widest), expected);
    // A refusal that no window has part in, and a plan, have none.
    assert_eq!(refused(&board, &Policy { burn_spares: true, ..Policy::default() }), []);
    board.windows.pop();
    assert!(board.plan(&Policy::default()).is_ok());
}

#[test]
fn windows_against_the_devices_order_are_refused() {
    let (mut board, _) = both_partitions();
    board.windows[0].restrictions.set_volatile(false);
    board.window(0x4_0000_0000, 4 * GIB, &[7]).restrictions.set_persistent(false);
    let device = path(7, &[3]);
    let (lower, higher) = (WINDOW, 0x4_0000_0000u64);
    refuses(&board, Code::PLAN_DPA_ORDER.at(device).expected(higher).found(lower));
}

#[test]
fn places_against_the_devices_order_are_refused_in_one_window_too() {
    let (mut board, _) = both_partitions();
    board.windows[0].size = 3 * GIB;
    let device = path(7, &[3]);
    let volatile = Request { offset: Some(2 * GIB), ..request(device) };
    let persistent = Request { partition: Partition::Persistent, ..request(device) };
    let policy = Policy { requests: &[volatile, persistent], ..Policy::default() };
    let (lower, higher) = (WINDOW, WINDOW + 2 * GIB);
    assert_eq!(
        refusal(&board, &policy),
        Code::PLAN_DPA_ORDER.at(device).expected(higher).found(lower)
    );
    let persistent = Request { offset: Some(0), ..persistent };
    let volatile = Request { offset: None, ..volatile };
    let policy = Policy { requests: &[volatile, persistent], ..Policy::default() };
    assert_eq!(
        refusal(&board, &policy),
        Code::PLAN_DPA_ORDER.at(device).expected(higher).found(lower)
    );
}

#[test]
fn xor_maps_have_to_drive_their_window() {
    let (mut board, _) = simple();
    board.bridge(8);
    let window = board.window(0x8_0000_0000, GIB, &[7, 8]);
    window.arithmetic = Arithmetic::Xor;
    let error = XorMapError::TooFew { need: 1, have: 0 };
    refuses(&board, Code::PLAN_XOR.at(Place::window(Hpa(0x8_0000_0000))).rule(error));
}

#[test]
fn the_lowest_of_several_bad_windows_is_the_one_reported() {
    let (mut board, _) = simple();
    board.window(0x4_0000_0000, GIB, &[98]);
    board.window(0x8_0000_0000, GIB, &[99]);
    for _ in 0..3 {
        board.windows.rotate_left(1);
        refuses(&board, Code::PLAN_TARGET_MISSING.at(Place::window(Hpa(0x4_0000_0000))).found(98));
    }
}

// --- refusals: components ----------------------------------------------------------------------

#[test]
fn more_regions_than_decoders_are_refused_with_the_component() {
    let mut board = three_below_one();
    board.node(NodeId(0)).hdm = capable(2);
    let (device, at) = (path(7, &[5]), path(7, &[]));
    refuses(&board, Code::PLAN_DECODERS_EXHAUSTED.at(device).above(at).found(2));
    let (mut board, _) = both_partitions();
    board.node(NodeId(2)).hdm = capable(1);
    let device = path(7, &[3]);
    refuses(&board, Code::PLAN_DECODERS_EXHAUSTED.at(device).above(device).found(1));
}

#[test]
fn a_component_without_decoders_is_refused_unless_there_is_one_way_only() {
    let mut board = three_below_one();
    board.node(NodeId(0)).hdm = None;
    let (device, at) = (path(7, &[0]), path(7, &[]));
    refuses(&board, Code::PLAN_NO_DECODERS.at(device).above(at));
    let (mut board, device) = simple();
    board.node(device).hdm = None;
    refuses(&board, Code::PLAN_NO_DECODERS.at(place()).above(place()));
    // A switch is never a pass-through, whatever it has below.
    let mut board = two_switches();
    board.node(NodeId(6)).hdm = None;
    let (device, at) = (path(7, &[1, 2, 8]), path(7, &[1, 2]));
    refuses(&board, Code::PLAN_NO_DECODERS.at(device).above(at));
}

#[test]
fn a_decoder_that_the_component_cannot_express_is_refused() {
    let (mut board, requests) = both_partitions();
    // The persistent part starts off the 256 MiB grid, so no skip leads there.
    board.device(NodeId(2)).volatile = GIB + MIB;
    let (at, skip) = (path(7, &[3]), GIB + MIB);
    let error = DecodeError::SkipUnaligned { skip };
    refuses_request(&board, requests[0], Code::PLAN_DECODER.at(at).rule(error));
}

#[test]
fn ports_and_bridges_that_cannot_be_told_apart_are_refused() {
    let (mut board, _) = simple();
    board.root_port(NodeId(0), 0);
    refuses(&board, Code::PLAN_DUPLICATE_PORT.at(path(7, &[])).found(0));
    let (mut board, _) = simple();
    board.bridge(7);
    refuses(&board, Code::PLAN_DUPLICATE_BRIDGE.at(Place::bridge(7)));
    let (mut board, _) = simple();
    board.memory(NodeId(1), GIB, 0);
    refuses(&board, Code::PLAN_SHARED_PORT.at(place()));
}

#[test]
fn a_node_without_a_place_is_refused() {
    let root = NodeId(0);
    type Breaks = fn(&mut Board);
    let breakages: [(u16, Breaks); 8] = [
        (0, |board| {
            board.nodes.swap(0, 1);
            board.node(NodeId(0)).parent = Some(NodeId(1));
            board.node(NodeId(2)).parent = Some(NodeId(0));
        }),
        (1, |board| board.node(NodeId(1)).parent = Some(NodeId(1))),
        (1, |board| board.node(NodeId(1)).parent = Some(NodeId(2))),
        (2, |board| board.node(NodeId(2)).parent = Some(NodeId(u16::MAX))),
        (1, |board| board.node(NodeId(1)).parent = None),
        (2, |board| board.node(NodeId(2)).parent = Some(NodeId(0))),
        (0, |board| board.node(NodeId(0)).kind = NodeKind::RootPort),
        (1, |board| board.node(NodeId(1)).kind = NodeKind::DownstreamPort),
    ];
    for (case, (node, breaks)) in breakages.into_iter().enumerate() {
        let (mut board, _) = simple();
        breaks(&mut board);
        let node = NodeId(node);
        assert_eq!(
            refusal(&board, &Policy::default()),
            Code::PLAN_BROKEN_TREE.at(Place::entry(node.0.into())),
            "case {case}"
        );
    }
    // Seven switches in a row are the most that PCIe's depth allows here; the eighth has no place.
    let mut board = Board::new();
    let bridge = board.bridge(7);
    assert_eq!(bridge, root);
    let mut port = board.root_port(bridge, 0);
    for _ in 0..7 {
        let switch = board.switch(port);
        port = board.downstream_port(switch, 0);
    }
    let deepest = board.memory(port, GIB, 0);
    board.window(WINDOW, 4 * GIB, &[7]);
    let plan = board.plan(&Policy::default()).unwrap();
    board.check(&plan);
    assert_eq!(plan.decoders.len(), 9);
    board.node(deepest).kind = NodeKind::UpstreamPort;
    let port = board.downstream_port(deepest, 0);
    refuses(&board, Code::PLAN_BROKEN_TREE.at(Place::entry(port.0.into())));
}

#[test]
fn partitions_that_wrap_are_refused() {
    let (mut board, device) = simple();
    let (volatile, persistent) = (u64::MAX - UNIT + 1, 512 * MIB);
    let memory = board.device(device);
    (memory.volatile, memory.persistent) = (volatile, persistent);
    refuses(&board, Code::PLAN_DEVICE_TOO_LARGE.at(place()).expected(volatile).found(persistent));
}

// --- refusals: policy --------------------------------------------------------------------------

#[test]
fn requests_that_name_nothing_are_refused() {
    let (mut board, _) = simple();
    board.bridge(8);
    board.window(0x8_0000_0000, GIB, &[8]);
    let device = path(7, &[1]);
    refuses_request(&board, request(device), Code::PLAN_UNKNOWN_DEVICE.at(device));
    for window in [0x2_0000_0000, 0x8_0000_0000] {
        let asked = Request { window: Some(Hpa(window)), ..request(place()) };
        refuses_request(&board, asked, Code::PLAN_UNKNOWN_WINDOW.at(place()).found(window));
    }
}

#[test]
fn a_request_for_more_than_is_left_is_refused() {
    let (board, _) = simple();
    let (device, partition) = (place(), Partition::Volatile);
    let (asked, left) = (GIB + UNIT, GIB);
    let all = Request { size: Some(asked), ..request(device) };
    refuses_request(
        &board,
        all,
        Code::PLAN_REQUEST_TOO_LARGE.at(device).detail(partition).expected(asked).found(left),
    );
    let none = Request { partition: Partition::Persistent, ..request(device) };
    let (asked, left) = (0, 0);
    let partition = Partition::Persistent;
    refuses_request(
        &board,
        none,
        Code::PLAN_REQUEST_TOO_LARGE.at(device).detail(partition).expected(asked).found(left),
    );
    let twice = [request(device), Request { size: Some(UNIT), ..request(device) }, request(device)];
    let policy = Policy { requests: &twice, ..Policy::default() };
    let partition = Partition::Volatile;
    let expected =
        Code::PLAN_REQUEST_TOO_LARGE.at(device).detail(partition).expected(asked).found(left);
    assert_eq!(refusal(&board, &policy), expected);
}

#[test]
fn what_a_request_leaves_out_is_left_to_nobody() {
    let (board, _) = simple();
    let (device, partition) = (place(), Partition::Volatile);
    for (size, skip, asked, left) in [
        (Some(768 * MIB), 512 * MIB, 768 * MIB, 512 * MIB),
        (Some(UNIT), GIB, UNIT, 0),
        (Some(UNIT), u64::MAX - UNIT + 1, UNIT, 0),
        (None, GIB, 0, 0),
    ] {
        let request = Request { size, skip, ..request(device) };
        let expected =
            Code::PLAN_REQUEST_TOO_LARGE.at(device).detail(partition).expected(asked).found(left);
        refuses_request(&board, request, expected);
    }
    // The second to be served asks for 512 MiB and finds 256.
    let half = Request { size: Some(512 * MIB), ..request(device) };
    let quarter = Request { size: Some(UNIT), skip: 512 * MIB, ..half };
    for requests in [[half, Request { skip: UNIT, ..half }], [quarter, half]] {
        let policy = Policy { requests: &requests, ..Policy::default() };
        let (asked, left) = (512 * MIB, 256 * MIB);
        let expected =
            Code::PLAN_REQUEST_TOO_LARGE.at(device).detail(partition).expected(asked).found(left);
        assert_eq!(refusal(&board, &policy), expected);
    }
}

#[test]
fn what_is_off_the_256_mib_grid_is_refused() {
    let (mut board, device) = simple();
    let (at, unit) = (place(), UNIT);
    let odd = Request { size: Some(UNIT + MIB), ..request(at) };
    let value = UNIT + MIB;
    refuses_request(&board, odd, Code::PLAN_UNALIGNED.at(at).detail(1).expected(unit).found(value));
    let odd = Request { offset: Some(128 * MIB), ..request(at) };
    let value = 128 * MIB;
    refuses_request(&board, odd, Code::PLAN_UNALIGNED.at(at).detail(2).expected(unit).found(value));
    let odd = Request { skip: UNIT + MIB, ..request(at) };
    let value = UNIT + MIB;
    refuses_request(&board, odd, Code::PLAN_UNALIGNED.at(at).detail(0).expected(unit).found(value));
    board::move_up(&mut board.windows[0], MIB);
    let value = WINDOW + MIB;
    refuses(&board, Code::PLAN_UNALIGNED.at(at).detail(3).expected(unit).found(value));
    board.windows[0].base = Some(Hpa(WINDOW));
    board.device(device).volatile = 64 * MIB;
    let value = 64 * MIB;
    refuses(&board, Code::PLAN_UNALIGNED.at(at).detail(4).expected(unit).found(value));
}

#[test]
fn a_place_that_is_taken_or_outside_the_window_is_refused() {
    let board = three_below_one();
    let (device, window, size) = (path(7, &[0]), WINDOW, GIB);
    for offset in [3 * GIB + UNIT, 4 * GIB, u64::MAX - UNIT + 1] {
        let asked = Request { offset: Some(offset), ..request(device) };
        let expected = Code::PLAN_PLACE_TAKEN
            .at(Place::in_window(device, Hpa(window)))
            .expected(size)
            .found(offset);
        refuses_request(&board, asked, expected);
    }
    let fixed = |port, offset| Request { offset: Some(offset), ..request(path(7, &[port])) };
    let policy = Policy { requests: &[fixed(2, 512 * MIB), fixed(0, 0)], ..Policy::default() };
    let (device, offset, size) = (path(7, &[2]), 512 * MIB, 256 * MIB);
    let expected = Code::PLAN_PLACE_TAKEN
        .at(Place::in_window(device, Hpa(window)))
        .expected(size)
        .found(offset);
    assert_eq!(refusal(&board, &policy), expected);
}

#[test]
fn path_two_names_what_leaves_the_guest_a_choice() {
    let path_two = Policy { path: PathPolicy::GuestPrograms, ..Policy::default() };
    let mut ports = pass_through();
    ports.root_port(NodeId(0), 1);
    assert_eq!(
        refusal(&ports, &path_two),
        Code::PLAN_MULTIPLE_PORTS.at(Place::bridge(7)).expected(1u16).found(2)
    );
    let (decoders, _) = simple();
    let expected = Code::PLAN_BRIDGE_NOT_PASS_THROUGH.at(Place::bridge(7)).found(16);
    assert_eq!(refusal(&decoders, &path_two), expected);
    let device = path(7, &[1, 2, 8]);
    assert_eq!(refusal(&two_switches(), &path_two), Code::PLAN_SWITCH_IN_PATH.at(device));
    let mut interleaved = pass_through();
    interleaved.bridge(8);
    interleaved.window(0x8_0000_0000, GIB, &[8, 7]);
    let (device, window, ways) = (place(), 0x8_0000_0000u64, Ways::Two);
    let expected = Code::PLAN_INTERLEAVED.at(device).detail(ways).found(window);
    assert_eq!(refusal(&interleaved, &path_two), expected);
    let asked = Policy { requests: &[request(place())], ..path_two };
    assert_eq!(refusal(&pass_through(), &asked), Code::PLAN_REQUEST_TO_GUEST.at(device));
}

#[test]
fn burned_decoders_are_refused_for_linux_and_without_locks() {
    let (board, _) = simple();
    let linux = Policy { burn_spares: true, ..Policy::default() };
    assert_eq!(refusal(&board, &linux), Code::PLAN_LINUX_REFUSES_BURNED_DECODERS.error());
    let target = TargetSystem::Specification;
    let unlocked = Policy { path: PathPolicy::Unlocked, target, ..linux };
    assert_eq!(refusal(&board, &unlocked), Code::PLAN_BURN_WITHOUT_LOCK.error());
}

#[test]
fn one_more_than_the_structures_hold_is_refused() {
    fn sized<const R: usize, const D: usize>(policy: &Policy<'_>) -> Result<(), Error> {
        let board = three_below_one();
        let mut topology = Topology::<7>::new();
        topology.nodes.extend(board.nodes.iter().copied());
        plan(&board.platform(), &topology, policy, &mut Plan::<16, R, D>::new())
    }
    let full = |what, have| Err(Code::PLAN_CAPACITY.error().detail(what).expected(have));
    // Three regions, three decoders in the bridge and one in each device.
    let policy = Policy::default();
    assert_eq!(sized::<3, 6>(&policy), Ok(()));
    assert_eq!(sized::<2, 6>(&policy), full(0, 2));
    assert_eq!(sized::<3, 5>(&policy), full(1, 5));
    assert_eq!(sized::<3, 2>(&policy), full(1, 2));
    // Nobody is mapped: three notes are all there is.
    let none = [0, 2, 5].map(|port| Request { size: Some(0), ..request(path(7, &[port])) });
    let policy = Policy { requests: &none, ..policy };
    assert_eq!(sized::<0, 3>(&policy), Ok(()));
    assert_eq!(sized::<0, 2>(&policy), full(2, 2));
}

#[test]
fn a_refused_plan_is_left_empty() {
    let (mut board, _) = simple();
    let mut made = board.plan(&Policy::default()).unwrap();
    board.node(NodeId(2)).hdm = None;
    let result = plan(&board.platform(), board.topology().tree(), &Policy::default(), &mut *made);
    assert!(result.is_err());
    assert!(made.regions.is_empty() && made.decoders.is_empty() && made.notes.is_empty());
}

// --- words -------------------------------------------------------------------------------------

#[test]
fn plans_in_words() {
    let default = Policy::default();
    let (partitions, requests) = both_partitions();
    let partitions = partitions.text(&Policy { requests: &requests, ..default });
    let (mut spares, device) = simple();
    spares.node(device).hdm = capable(2);
    spares.node(NodeId(0)).hdm = capable(2);
    let target = TargetSystem::Specification;
    let burned = spares.text(&Policy { burn_spares: true, target, ..default });
    let guest = pass_through().text(&Policy { path: PathPolicy::GuestPrograms, ..default });
    let plans = [
        ("four_bridges", four_bridges().text(&default)),
        ("endpoints_below_one_bridge", three_below_one().text(&default)),
        ("two_switches", two_switches().text(&default)),
        ("pass_through", pass_through().text(&default)),
        ("partitions_with_skip", partitions),
        ("burned_spares", burned),
        ("guest_programs", guest),
        ("describe", two_by_two().text(&DESCRIBE)),
    ];
    for (name, text) in plans {
        snapshot(name, &text);
    }
}

fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn every_refusal_is_one_line_with_its_place_and_a_code_of_its_own() {
    let (device, at, partition) = (path(7, &[1, 4]), path(7, &[1]), Partition::Volatile);
    let (window, ways, need, size) = (WINDOW, Ways::Two, GIB, GIB);
    let all = [
        Code::PLAN_NO_WINDOW.at(device).detail(partition).expected(need),
        Code::PLAN_TARGET_MISSING.at(Place::window(Hpa(window))).found(7),
        Code::PLAN_AMBIGUOUS.at(device).halves(partition, 2).expected(WINDOW).found(window),
        Code::PLAN_INTERLEAVED.at(device).detail(ways).found(window),
        Code::PLAN_UNPLACED.at(device).found(size),
        Code::PLAN_BEYOND_ADDRESS_WIDTH.at(Place::window(Hpa(window))).expected(36).found(size),
        Code::PLAN_WINDOWS_OVERLAP.at(Place::window(Hpa(WINDOW))).found(WINDOW),
        Code::PLAN_WINDOW_TOO_SMALL
            .at(Place::in_window(device, Hpa(window)))
            .expected(need)
            .found(UNIT),
        Code::PLAN_WINDOW_FULL.at(Place::in_window(device, Hpa(window))).expected(need).found(UNIT),
        Code::PLAN_MEDIA_NOT_ALLOWED.at(device).detail(partition).found(window),
        Code::PLAN_COHERENCY_NOT_ALLOWED.at(device).detail(Coherency::HostOnly).found(window),
        Code::PLAN_DECODERS_EXHAUSTED.at(device).above(at).found(4),
        Code::PLAN_NO_DECODERS.at(device).above(at),
        Code::PLAN_DPA_ORDER.at(device).expected(UNIT).found(0),
        Code::PLAN_DUPLICATE_PORT.at(at).found(4),
        Code::PLAN_NO_BACK_INVALIDATE.at(device).above(at),
        Code::PLAN_UNKNOWN_DEVICE.at(device),
        Code::PLAN_UNKNOWN_WINDOW.at(device).found(window),
        Code::PLAN_REQUEST_TOO_LARGE.at(device).detail(partition).expected(GIB).found(UNIT),
        Code::PLAN_UNALIGNED.at(device).detail(2).expected(UNIT).found(MIB),
        Code::PLAN_WINDOW_OCCUPIED.at(Place::window(Hpa(WINDOW))).expected(WINDOW).found(MIB),
        Code::PLAN_PLACE_TAKEN.at(Place::in_window(device, Hpa(window))).expected(size).found(UNIT),
        Code::PLAN_MULTIPLE_PORTS.at(Place::bridge(7)).expected(1u16).found(2),
        Code::PLAN_SWITCH_IN_PATH.at(device),
        Code::PLAN_BRIDGE_NOT_PASS_THROUGH.at(Place::bridge(7)).found(4),
        Code::PLAN_LINUX_REFUSES_BURNED_DECODERS.error(),
        Code::PLAN_BURN_WITHOUT_LOCK.error(),
        Code::PLAN_XOR
            .at(Place::window(Hpa(window)))
            .rule(XorMapError::TooFew { need: 1, have: 0 }),
        Code::PLAN_DECODER.at(at).rule(DecodeError::SkipUnaligned { skip: MIB }),
        Code::PLAN_CAPACITY.error().detail(0).expected(4),
        Code::PLAN_TARGET_COUNT.at(Place::window(Hpa(window))).expected(ways).found(4),
        Code::PLAN_TARGET_TWICE.at(Place::window(Hpa(window))).found(7),
        Code::PLAN_DUPLICATE_BRIDGE.at(Place::bridge(7)),
        Code::PLAN_SHARED_PORT.at(at),
        Code::PLAN_BROKEN_TREE.at(Place::entry(4)),
        Code::PLAN_DEVICE_TOO_LARGE.at(device).expected(GIB).found(GIB),
        Code::PLAN_REQUEST_TO_GUEST.at(device),
        Code::PLAN_COMPOSE
            .at(Place::window(Hpa(window)))
            .rule(ComposeError::NoSuchWays { product: 32 }),
        Code::PLAN_WAYS_OF_WINDOW.at(Place::window(Hpa(window))).expected(ways).found(Ways::Three),
        Code::PLAN_GRANULARITY_OF_WINDOW
            .at(Place::window(Hpa(window)))
            .expected(Granularity::B256)
            .found(Granularity::K4),
        Code::PLAN_TOO_FEW_MEMBERS
            .at(Place::window(Hpa(window)))
            .detail(partition)
            .expected(4)
            .found((2, 7)),
        Code::PLAN_LINUX_GRANULARITY.at(Place::window(Hpa(window))).found(32768),
        Code::PLAN_LINUX_THREE_WITH_PORTS.at(Place::window(Hpa(window))).found(Ways::Three),
        Code::PLAN_WIDTH_OF_NOTHING.at(Place::window(Hpa(window))),
        Code::PLAN_WIDTH_TWICE.at(Place::window(Hpa(window))),
        Code::PLAN_WIDTH_TO_GUEST.error(),
    ];
    let mut lines: Vec<_> =
        all.iter().map(|error| format!("{:#06x}  {error}\n", error.code())).collect();
    lines.sort();
    assert!(lines.windows(2).all(|pair| pair[0][..6] != pair[1][..6]), "a code twice");
    assert!(lines.iter().all(|line| line.lines().count() == 1));
    snapshot("refusals", &lines.concat());
}

// --- laws --------------------------------------------------------------------------------------

/// A legal board of some bridges, ports, switches and devices, each bridge with its window.
fn any_board() -> impl Strategy<Value = Board> {
    let device = (0..3u64, 0..3u64);
    let below = prop::collection::vec(device, 0..4);
    let port = (any::<bool>(), below);
    let bridge = (prop::collection::vec(port, 1..4), 0..4u64);
    prop::collection::vec(bridge, 1..5).prop_map(|bridges| {
        let mut board = Board::new();
        let mut base = WINDOW;
        for (index, (ports, gap)) in bridges.iter().enumerate() {
            let uid = 40 - 7 * index as u32;
            let bridge = board.bridge(uid);
            for (number, (switched, devices)) in ports.iter().enumerate() {
                let port = board.root_port(bridge, 10 - number as u8);
                if *switched {
                    let switch = board.switch(port);
                    for (number, (volatile, persistent)) in devices.iter().enumerate() {
                        let port = board.downstream_port(switch, 3 * number as u8);
                        board.memory(port, volatile * UNIT, persistent * UNIT);
                    }
                } else if let Some((volatile, persistent)) = devices.first() {
                    board.memory(port, volatile * UNIT, persistent * UNIT);
                }
            }
            base += gap * UNIT;
            board.window(base, 64 * UNIT, &[uid]);
            base += 64 * UNIT;
        }
        board
    })
}

/// Nodes that make no sense, in no order.
fn any_node() -> impl Strategy<Value = cxl_firmware::topology::Node> {
    let extreme = prop_oneof![
        1 => prop::sample::select(vec![u64::MAX, u64::MAX - UNIT + 1, 1 << 63, MIB]),
        30 => (0..3u64).prop_map(|units| units * UNIT),
    ];
    let kind = prop_oneof![
        (0..3u32).prop_map(|uid| NodeKind::HostBridge { uid }),
        Just(NodeKind::RootPort),
        Just(NodeKind::UpstreamPort),
        Just(NodeKind::DownstreamPort),
        (extreme.clone(), extreme).prop_map(|(volatile, persistent)| {
            let mut board = Board::new();
            let id = board.memory(NodeId(0), volatile, persistent);
            board.node(id).kind
        }),
    ];
    let parent = prop::option::weighted(0.8, (0..24u16).prop_map(NodeId));
    let hdm = prop::option::weighted(0.95, (any::<u32>(), any::<u8>()));
    (parent, kind, 0..4u8, hdm).prop_map(|(parent, kind, port, hdm)| {
        let mut hdm = hdm.map(|random| (random, capable(10).expect("a structure")));
        if let Some(((capability, decoders), hdm)) = &mut hdm
            && *decoders < 30
        {
            (hdm.capability, hdm.decoders) = ((*capability).into(), *decoders);
        }
        let hdm = hdm.map(|(_, hdm)| hdm);
        cxl_firmware::topology::Node {
            parent,
            kind,
            port,
            function: None,
            hdm,
            back_invalidate: None,
            fault: None,
        }
    })
}

/// Hangs each node below one that it fits, with a port number of its own.
fn hang_up(board: &mut Board, nodes: Vec<cxl_firmware::topology::Node>) {
    use NodeKind::{Device, DownstreamPort, HostBridge, RootPort, UpstreamPort};
    for (number, node) in nodes.into_iter().enumerate() {
        let has_child = |id| board.nodes.iter().any(|node| node.parent == Some(id));
        let above: Vec<_> = (0..board.nodes.len() as u16)
            .map(NodeId)
            .filter(|&id| match (board.nodes[usize::from(id.0)].kind, node.kind) {
                (HostBridge { .. }, RootPort) | (UpstreamPort, DownstreamPort) => true,
                (RootPort | DownstreamPort, UpstreamPort | Device(_)) => !has_child(id),
                _ => false,
            })
            .collect();
        if let Some(&parent) = above.get(usize::from(node.port) * 5 % above.len().max(1)) {
            let (parent, port) = (Some(parent), number as u8);
            board.nodes.push(cxl_firmware::topology::Node { parent, port, ..node });
        }
    }
}

/// Base, size, ways, first target and restrictions.
fn any_window() -> impl Strategy<Value = (u64, u64, usize, u32, u8)> {
    let base = prop_oneof![
        1 => prop::sample::select(vec![0, UNIT + 1, u64::MAX - UNIT + 1, 1 << 63]),
        20 => (1..64u64).prop_map(|index| index << 36),
    ];
    let size = prop_oneof![
        1 => prop::sample::select(vec![0, 1, u64::MAX, u64::MAX - UNIT + 1, 1 << 63]),
        20 => (1..64u64).prop_map(|units| units * UNIT),
    ];
    let ways = prop::sample::select(vec![1, 1, 1, 2, 3]);
    let restrictions = prop_oneof![Just(0x0F), Just(0x2F), any::<u8>()];
    (base, size, ways, 0..3u32, restrictions)
}

fn any_request() -> impl Strategy<Value = Request> {
    let number = || prop::option::of(prop_oneof![0..8u64, Just(u64::MAX / UNIT), any::<u64>()]);
    let place = (0..3u32, prop::collection::vec(0..4u8, 0..4), any::<bool>());
    (place, number(), number(), number()).prop_map(
        |((uid, ports, persistent), offset, size, skip)| Request {
            device: path(uid, &ports),
            partition: if persistent { Partition::Persistent } else { Partition::Volatile },
            window: None,
            offset: offset.map(|units| units.wrapping_mul(UNIT)),
            size: size.map(|units| units.wrapping_mul(UNIT)),
            skip: skip.map_or(0, |units| units.wrapping_mul(UNIT)),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_legal_board_keeps_the_laws_in_any_order(
        board in any_board(),
        choices in prop::collection::vec(any::<usize>(), 80),
    ) {
        let plan = board.plan(&Policy::default()).expect("a legal board");
        board.check(&plan);
        let mapped: u64 = plan.regions.iter().map(|region| region.span.size()).sum();
        let there: u64 = board.nodes.iter().filter_map(|n| n.device())
            .map(|device| device.volatile + device.persistent).sum();
        prop_assert_eq!(mapped, there);
        let expected = plan.text(board.topology().tree()).to_string();
        prop_assert_eq!(board.reordered(&choices).text(&Policy::default()), expected);
    }

    #[test]
    fn a_hostile_board_ends_in_a_plan_that_keeps_the_laws_or_in_a_refusal(
        nodes in prop::collection::vec(any_node(), 0..24),
        windows in prop::collection::vec(any_window(), 0..6),
        requests in prop::option::weighted(0.2, any_request()),
        address_bits in prop_oneof![1 => any::<u8>(), 5 => Just(52)],
        (burn_spares, legal_tree) in any::<(bool, bool)>(),
        (path, width) in (0..3usize, 0..3usize),
    ) {
        let mut board = Board::new();
        for uid in 0..3 { board.bridge(uid); }
        if legal_tree {
            hang_up(&mut board, nodes);
        } else {
            board.nodes.extend(nodes);
        }
        board.address_bits = address_bits;
        for (base, size, ways, first, restrictions) in windows {
            let targets = [first, (first + 1) % 3, (first + 2) % 3];
            let window = board.window(base, size, &targets[..ways]);
            window.restrictions = u16::from(restrictions).into();
        }
        let path = [PathPolicy::LockAll, PathPolicy::Unlocked, PathPolicy::GuestPrograms][path];
        let target = TargetSystem::Specification;
        let two = Interleave::new(Ways::Two, Granularity::B256);
        let width = [Width::Flat, Width::Widest, Width::Exactly(two)][width];
        let policy = Policy { path, burn_spares, target, width, ..Policy::default() };
        let policy = Policy { requests: requests.as_slice(), map_leftovers: true, ..policy };
        match board.plan(&policy) {
            Ok(plan) => {
                board.address_bits = address_bits.min(64);
                board.check(&plan);
                prop_assert!(!plan.text(board.topology().tree()).to_string().is_empty());
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
