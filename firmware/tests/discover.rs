//! Discovery on hardware typed by hand, and on hardware that lies.

mod fake;

use cxl_firmware::discover::{Search, discover, discover_as};
use cxl_firmware::error::{BarProblem, Code, Error, Place, registers};
use cxl_firmware::mmio::{Block, Clock, Mmio};
use cxl_firmware::platform::{Bridge, BridgeKind, Ecam, Platform, RootBus};
use cxl_firmware::policy::{LeaveOut, OnFailure};
use cxl_firmware::topology::{
    CapacitySource, DeviceKind, MAX_DEPTH, NodeId, NodeKind, Path, Topology,
};
use cxl_regs::Hpa;
use cxl_regs::component::{ArrayError, CapabilityId};
use cxl_regs::config::{BarError, Bdf, Sbdf, WalkError};
use cxl_regs::dvsec::device::{RangeError, RangeField};
use cxl_regs::dvsec::locator::LocatorError;
use cxl_regs::dvsec::{DvsecError, DvsecId};
use cxl_regs::hdm::Capability;
use cxl_regs::mailbox::{DeviceArrayError, Opcode};
use fake::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

/// Why a root bus is unknown.
const NOT_A_BUS_NUMBER: u8 = 0;
const NOT_DECODED: u8 = 1;
const CLAIMED: u8 = 2;
const NO_CXL_PORTS: u8 = 3;
const SEVERAL_SEGMENTS: u8 = 4;

/// What is not assigned, and in which BAR.
const BUS_NUMBERS: (u8, u8) = (0, 0);
const WINDOWS: (u8, u8) = (2, 0);

const fn bar(number: u8) -> (u8, u8) {
    (1, number)
}

fn unassigned(at: Place, (what, bar): (u8, u8)) -> Error {
    Code::DISCOVER_UNASSIGNED.at(at).detail(what).found(bar)
}

/// What was waited for, and of which range.
const DEVICE_READY: (u8, u8) = (2, 0);
const MAILBOX_FREE: (u8, u8) = (3, 0);

const fn info_valid(range: u8) -> (u8, u8) {
    (0, range)
}

const fn active(range: u8) -> (u8, u8) {
    (1, range)
}

fn timeout(at: Place, (what, range): (u8, u8), found: u32, milliseconds: u32) -> Error {
    Code::DISCOVER_TIMEOUT.at(at).halves(what, range).expected(milliseconds).found(found)
}

/// The device has to answer to `opcode`.
fn command(at: Place, opcode: Opcode, found: u32, milliseconds: u32) -> Error {
    timeout(at, (4, 0), 0, milliseconds).found((found, opcode))
}

fn short_payload(at: Place, opcode: Opcode, need: u32, have: u32) -> Error {
    Code::DISCOVER_SHORT_PAYLOAD.at(at).detail(opcode).expected(need).found(have)
}

/// The BAR needs two to this power.
fn no_room(at: Place, bar: u8, power: u8, next: u64, end: u64) -> Error {
    Code::DISCOVER_NO_ROOM.at(at).halves(bar, power).expected(next).found(end)
}

/// The number of a register by its name.
fn register(name: &str) -> u16 {
    let found = registers().find(|(_, other)| *other == name);
    found.map(|(number, _)| number).expect("an error can name it")
}

fn sbdf(bus: u8, devfn: u8) -> Sbdf {
    Sbdf { segment: 0, bdf: Bdf::from_bits(u16::from(bus) << 8 | u16::from(devfn)) }
}

fn at(bus: u8, devfn: u8) -> Place {
    Place::function(12, sbdf(bus, devfn))
}

fn found(hw: &mut Fake, bridges: &[Bridge]) -> Result<Topology<16>, Error> {
    let mut topology = Topology::new();
    discover(hw, &mut clock(), &platform(bridges, &[]), &mut topology)?;
    Ok(topology)
}

fn error(hw: &mut Fake, bridges: &[Bridge]) -> Error {
    found(hw, bridges).expect_err("discovery should refuse")
}

/// One line a node: parent, kind, port, function, decoders, BI.
fn lines(topology: &Topology<16>) -> Vec<String> {
    let line = |node: &cxl_firmware::topology::Node| {
        let kind = match node.kind {
            NodeKind::HostBridge { uid } => format!("bridge {uid}"),
            NodeKind::RootPort => "root".into(),
            NodeKind::UpstreamPort => "up".into(),
            NodeKind::DownstreamPort => "down".into(),
            NodeKind::Device(device) => format!(
                "{:?} {}+{} MiB {:?}",
                device.kind,
                device.volatile / MIB,
                device.persistent / MIB,
                device.source
            ),
        };
        let parent = node.parent.map_or("-".into(), |NodeId(id)| id.to_string());
        let function = node.function.map_or("-".into(), |f| f.to_string());
        let hdm = node.hdm.map_or("-".into(), |h| format!("{}@{:#x}", h.decoders, h.block.0));
        let bi = node.back_invalidate.map_or("-".into(), |b| format!("{:#x}", b.block.0));
        format!("{parent} {kind} {} {function} {hdm} {bi}", node.port)
    };
    topology.nodes.iter().map(line).collect()
}

#[test]
fn a_bridge_a_port_and_a_device_are_found_as_they_are() {
    let (mut hw, bridges) = small();
    let topology = found(&mut hw, &bridges).unwrap();
    assert_eq!(
        lines(&topology),
        [
            "- bridge 12 0 - 4@0x3c0001128 -",
            "0 root 3 0000:0c:00.0 - 0xfe901240",
            "1 Type3 256+0 MiB AssumedVolatile 0 0000:0d:00.0 4@0xfe801128 -",
        ]
    );
    let device = topology.nodes[2].device().unwrap();
    assert_eq!(device.dvsec, Block(0xb0d0_0100));
    assert_eq!(device.kind, DeviceKind::Type3);
}

#[test]
fn each_register_is_read_once_and_nothing_is_written_where_all_is_assigned() {
    for (mut hw, bridges) in [small(), switched(false)] {
        found(&mut hw, &bridges).unwrap();
        let (address, reads) = hw.most_reads();
        assert_eq!(reads, 1, "{address:#x}");
        assert_eq!(hw.writes, []);
    }
}

#[test]
fn a_switch_and_what_is_behind_it_stand_in_order_of_port_numbers() {
    let (mut hw, bridges) = switched(false);
    assert_eq!(
        lines(&found(&mut hw, &bridges).unwrap()),
        [
            "- bridge 12 0 - 4@0x3c0001128 -",
            "0 root 0 0000:0c:00.0 - 0xfe901240",
            "1 up 0 0000:0d:00.0 4@0xfe801128 0xfe801240",
            "2 down 5 0000:0e:01.0 - 0xfe711240",
            "2 down 7 0000:0e:00.0 - 0xfe701240",
            "3 Type3 256+0 MiB AssumedVolatile 0 0000:10:00.0 4@0xfe201128 -",
            "4 Type3 256+0 MiB AssumedVolatile 0 0000:0f:00.0 4@0xfe101128 -",
        ]
    );
}

#[test]
fn memory_space_is_switched_on_and_status_bits_survive() {
    let (mut hw, bridges) = small();
    for function in &mut hw.functions {
        function.config.get_mut(&0x04).unwrap().value &= !0x2;
    }
    found(&mut hw, &bridges).unwrap();
    assert_eq!(hw.writes, [(ecam(12, 0, 4), 0x0010_0006), (ecam(13, 0, 4), 0x0010_0006)]);
    assert_eq!(hw.functions[0].config[&0x04].value, 0xf910_0006);
    assert_eq!(hw.functions[1].config[&0x04].value, 0xf910_0006);
    assert_eq!(hw.most_reads().1, 1);
}

/// Two bridges with UIDs 20 and 7, root buses 40 and 60, two ports and a device each.
fn two_bridges() -> (Fake, Vec<Bridge>) {
    let mut hw = Fake::default();
    for (index, bus) in [(0u64, 40u8), (1, 60)] {
        let first = hw.functions.len();
        for (slot, number) in [(0u8, 9u8), (1, 2)] {
            let mib = 0xd00 + 0x10 * u16::from(bus) / 20 + u16::from(slot);
            let assigned = Assigned {
                primary: bus,
                secondary: bus + 1 + slot,
                subordinate: bus + 1 + slot,
                bar: 0xfe00_0000 + (u64::from(bus) << 16) + (u64::from(slot) << 21),
                window: (mib, mib),
            };
            hw.functions.push(root_port(bus, slot << 3, number, assigned));
        }
        let mib = 0xd00 + 0x10 * u64::from(bus) / 20;
        hw.functions.push(endpoint(first, mib << 20, None));
        hw.fixed.append(&mut bridge_registers(BRIDGE + index * 0x1_0000));
    }
    (hw, vec![bridge(20, Some(40), 0), bridge(7, Some(60), 1)])
}

#[test]
fn the_order_of_bridges_means_nothing() {
    let (mut hw, mut bridges) = two_bridges();
    let one = found(&mut hw, &bridges).unwrap();
    bridges.reverse();
    let other = found(&mut hw, &bridges).unwrap();
    assert_eq!(one.nodes, other.nodes);
    let kinds: Vec<_> = lines(&one);
    assert_eq!(kinds[0], "- bridge 7 0 - 4@0x3c0011128 -");
    assert_eq!(kinds[1].split(' ').nth(2), Some("2"));
    assert_eq!(kinds[4], "- bridge 20 0 - 4@0x3c0001128 -");
}

#[test]
fn a_uid_that_is_the_bus_is_told_from_one_that_is_not() {
    let (mut hw, [mut bridge]) = small();
    bridge.root = None;
    assert!(found(&mut hw, &[bridge]).is_ok());
    let unknown =
        |uid, reason| Code::DISCOVER_ROOT_BUS_UNKNOWN.at(Place::bridge(uid)).detail(reason);
    for (uid, reason) in [(300, NOT_A_BUS_NUMBER), (9, NO_CXL_PORTS)] {
        bridge.uid = uid;
        assert_eq!(error(&mut hw, &[bridge]), unknown(uid, reason));
    }
    // The bus of a port below is not a root bus, though CXL functions are on it.
    bridge.uid = 13;
    assert_eq!(error(&mut hw, &[bridge]), unknown(13, NO_CXL_PORTS));
    // Bus 40 is said to be bridge 20's.
    let (mut hw, mut bridges) = two_bridges();
    bridges[1] = Bridge { uid: 40, root: None, ..bridges[1] };
    let claimed = unknown(40, CLAIMED).found(20);
    assert_eq!(error(&mut hw, &bridges), claimed);
}

#[test]
fn a_guess_needs_a_bus_in_exactly_one_segment() {
    let (mut hw, [mut bridge]) = small();
    bridge.root = None;
    let bridges = [bridge];
    let mut topology = Topology::<16>::new();
    let mut run = |hw: &mut Fake, ecam: &[Ecam]| {
        let platform = Platform { ecam, ..platform(&bridges, &[]) };
        discover(hw, &mut clock(), &platform, &mut topology)
    };
    let unknown =
        |reason| Err(Code::DISCOVER_ROOT_BUS_UNKNOWN.at(Place::bridge(12)).detail(reason));
    let [region] = ALL_BUSES;
    let low = Ecam { last_bus: 11, ..region };
    assert_eq!(run(&mut hw, &[low]), unknown(NOT_DECODED));
    // The same hardware answers in both segments.
    let twin = Ecam { segment: 1, ..region };
    assert_eq!(run(&mut hw, &[region, twin]), unknown(SEVERAL_SEGMENTS));
    // Segment 1 has such a bus, and nothing on it.
    let empty = Ecam { base: Hpa(0x8000_0000), segment: 1, ..region };
    assert_eq!(run(&mut hw, &[empty, region]), Ok(()));
    assert_eq!(run(&mut hw, &[region, empty]), Ok(()));
}

type Change = fn(&mut Vec<Bridge>);

#[test]
fn bridges_that_contradict_each_other_are_refused_before_any_access() {
    let (mut hw, mut bridges) = two_bridges();
    let cases: [(Change, Error); 2] = [
        (|b| b[1].uid = 20, Code::DISCOVER_DUPLICATE_UID.at(Place::bridge(20))),
        (
            |b| b[0].root = b[1].root,
            Code::DISCOVER_SHARED_ROOT_BUS
                .at(Place::bridge(7))
                .expected(RootBus { segment: 0, bus: 60 })
                .found(20),
        ),
    ];
    for (change, expected) in cases {
        let mut changed = bridges.clone();
        change(&mut changed);
        assert_eq!(error(&mut hw, &changed), expected);
        changed.reverse();
        assert_eq!(error(&mut hw, &changed), expected);
    }
    assert!(hw.reads.is_empty() && hw.writes.is_empty());
    bridges.clear();
    assert_eq!(found(&mut hw, &bridges).unwrap().nodes.len(), 0);
}

/// Of two bridges that are said to start at one bus neither is known to be right: both are lost, but where the
/// policy leaves out one of them.
#[test]
fn of_bridges_that_share_a_root_bus_none_is_used() {
    let bridges_found = |search: Search<'_>, change: fn(&mut [Bridge])| {
        let (mut hw, mut bridges) = two_bridges();
        change(&mut bridges);
        let (mut topology, platform) = (Topology::<16>::new(), platform(&bridges, &[]));
        let result = discover_as(&mut hw, &mut clock(), &platform, search, &mut topology);
        let nodes = topology.nodes.iter().filter_map(|node| match node.kind {
            NodeKind::HostBridge { uid } => Some(uid),
            _ => None,
        });
        (result, nodes.collect::<Vec<_>>(), topology.remarks.lost())
    };
    let leave_out = [LeaveOut::At(Path::new(7, &[]).expect("a bridge"))];
    let shared: fn(&mut [Bridge]) = |bridges| bridges[0].root = bridges[1].root;
    let rest = Search { on_failure: OnFailure::BestEffort, ..Search::default() };
    assert_eq!(bridges_found(rest, shared), (Ok(()), vec![], 2));
    for on_failure in [OnFailure::Strict, OnFailure::BestEffort] {
        let search = Search { on_failure, leave_out: &leave_out };
        assert_eq!(bridges_found(search, shared), (Ok(()), vec![20], 0));
    }
    // Registers that nothing can have there cost their bridge; a CXL 1.1 host nothing at all.
    assert_eq!(bridges_found(rest, |b| b[0].registers = Hpa(0)), (Ok(()), vec![7], 1));
    for on_failure in [OnFailure::Strict, OnFailure::BestEffort] {
        let restricted: fn(&mut [Bridge]) = |bridges| {
            (bridges[0].kind, bridges[0].registers) = (BridgeKind::Rcrb, Hpa(0));
        };
        let search = Search { on_failure, ..Search::default() };
        assert_eq!(bridges_found(search, restricted), (Ok(()), vec![7, 20], 0));
    }
}

/// The detail of what is wrong with an RCRB, and what was found.
type Wrong = Option<(u32, u32)>;

/// Dwords at 0x00, 0x04, 0x10 and 0x14 of an RCRB, and what is said of it.
const RCRBS: [([u32; 4], Wrong); 9] = [
    ([0x7075_8086, 0x0010_0006, 0xfed0_0004, 1], None),
    ([0x7075_8086, 2, 0xfed0_0000, u32::MAX], None),
    ([0x7075_8086, 2, 0xfed0_000c, 0], None),
    ([u32::MAX, 2, 0xfed0_0004, 1], Some((1, u32::MAX))),
    ([0x7075_8086, 0xffff_fffd, 0xfed0_0004, 1], Some((2, 0xffff_fffd))),
    ([0x7075_8086, 2, 0, 1], Some((3, 0))),
    ([0x7075_8086, 2, 0xfed0_0001, 0], Some((3, 0xfed0_0001))),
    ([0x7075_8086, 2, 0xfed0_0002, 0], Some((3, 0xfed0_0002))),
    ([0x7075_8086, 2, 0xfed0_8004, 1], Some((3, 0xfed0_8004))),
];

#[test]
fn a_cxl_1_1_host_costs_nothing_and_says_what_its_rcrb_is() {
    for ([id, command, low, high], wrong) in RCRBS {
        let (mut hw, mut bridges) = two_bridges();
        bridges[0].kind = BridgeKind::Rcrb;
        let base = bridges[0].registers.0;
        put(&mut hw.fixed, base, &[id, command, 0, 0, low, high]);
        let at = Place::bridge(20);
        let expected = match wrong {
            None => Code::DISCOVER_RCH.at(at),
            Some((what, found)) => {
                Code::DISCOVER_RCRB.at(at).detail(what).expected(base).found(found)
            }
        };
        let all = found(&mut hw, &bridges).expect("the other bridge is sound");
        let rch = all.nodes.iter().find(|node| node.kind == NodeKind::HostBridge { uid: 20 });
        assert_eq!(rch.and_then(|node| node.fault), Some(expected));
        assert_eq!((all.remarks.list(), all.remarks.lost()), (&[expected][..], 0));
        assert!(!expected.is_failure());
        // All there is of the other one, and nothing was looked for below this one.
        assert!(all.nodes.iter().all(|node| node.fault.is_none() || node.parent.is_none()));
        assert!(all.nodes.len() > 2);
        assert!(hw.reads.keys().all(|at| at & !0xFFFF != base || at & 0xFFFF < 0x18));
        // An RCRB is a page; what is none is not read.
        bridges[0].registers.0 += 0x800;
        hw.reads.clear();
        let unaligned =
            Code::DISCOVER_RCRB.at(at).expected(base + 0x800).found(base as u32 + 0x800);
        assert_eq!(found(&mut hw, &bridges).unwrap().remarks.list(), [unaligned]);
    }
}

#[test]
fn functions_that_are_not_cxl_are_passed_over() {
    let (mut hw, bridges) = small();
    // A plain PCIe root port, an integrated endpoint, a legacy function without PCI Express, and
    // next to the CXL device a function without CXL; the device becomes multi-function.
    let mut plain = root_port(12, 0x08, 8, Assigned::default());
    put(&mut plain.config, 0x100, &[0x0001_0001]);
    let mut integrated = endpoint(0, 0, None);
    (integrated.above, integrated.devfn) = (Err(12), 0x10);
    let mut legacy = endpoint(0, 0, None);
    legacy.devfn = 1;
    put(&mut legacy.config, 0x34, &[0]);
    let mut other = endpoint(0, 0, None);
    other.devfn = 2;
    put(&mut other.config, 0x100, &[0]);
    put(&mut hw.functions[1].config, 0x0c, &[0x0080_0000]);
    // A link leads to device 0 only: some hardware answers for all device numbers.
    let mut echo = endpoint(0, 0xfe80_0000, None);
    echo.devfn = 0x08;
    hw.functions.extend([plain, integrated, legacy, other, echo]);
    assert_eq!(found(&mut hw, &bridges).unwrap().nodes.len(), 3);
    assert_eq!(hw.writes, []);
}

#[test]
fn functions_above_0_exist_only_if_function_0_says_so() {
    let (mut hw, bridges) = small();
    let mut echo = endpoint(0, 0xfe80_0000, None);
    echo.devfn = 1;
    hw.functions.push(echo);
    assert_eq!(found(&mut hw, &bridges).unwrap().nodes.len(), 3);
}

#[test]
fn a_port_type_in_the_wrong_place_is_passed_over() {
    let assigned = Assigned { secondary: 14, subordinate: 14, ..Assigned::default() };
    let mut root = root_port(0, 0, 1, assigned);
    root.above = Ok(0);
    for wrong in [root, downstream_port(0, 0, 1, assigned)] {
        let (mut hw, bridges) = small();
        hw.functions[1] = wrong;
        assert_eq!(found(&mut hw, &bridges).unwrap().nodes.len(), 2);
    }
    let (mut hw, bridges) = small();
    hw.functions.push(Function { above: Err(12), devfn: 8, ..upstream_port(0, assigned) });
    assert_eq!(found(&mut hw, &bridges).unwrap().nodes.len(), 3);
}

#[test]
fn an_endpoint_inside_a_switch_is_passed_over() {
    let (mut hw, bridges) = switched(false);
    // On the bus of the downstream ports, where no link leads.
    hw.functions.push(Function { above: Ok(1), devfn: 0x10, ..endpoint(2, 0xfe78_0000, None) });
    assert_eq!(found(&mut hw, &bridges).unwrap().nodes.len(), 7);
}

#[test]
fn a_device_on_a_root_bus_is_no_reason_to_refuse_and_is_named_if_it_is_one_of_cxl() {
    let (mut hw, bridges) = small();
    let mut integrated = endpoint(0, 0, None);
    (integrated.above, integrated.devfn) = (Err(12), 0x10);
    hw.functions.push(integrated);
    let remark = Code::DISCOVER_MISPLACED.at(at(12, 0x10)).detail(DvsecId::Device).found(0);
    assert_eq!(remarks(&mut hw, &bridges), [remark]);
    // Its capabilities go in a circle, or its DVSECs do: that is the chip set's business.
    put(&mut hw.functions[2].config, 0x80, &[0x0002_8005]);
    assert_eq!(remarks(&mut hw, &bridges), []);
    put(&mut hw.functions[2].config, 0x80, &[0x0002_0010]);
    put(&mut hw.functions[2].config, 0x100, &[0x1001_0001]);
    assert_eq!(remarks(&mut hw, &bridges), []);
}

/// What discovery remarks on a machine that it does not refuse and finds its three nodes of.
fn remarks(hw: &mut Fake, bridges: &[Bridge]) -> Vec<Error> {
    let topology = found(hw, bridges).expect("no refusal");
    assert_eq!((topology.nodes.len(), topology.remarks.more()), (3, 0));
    topology.remarks.list().to_vec()
}

#[test]
fn either_of_two_dvsecs_makes_a_port_one_of_cxl() {
    // Extensions for Ports at 0x148, Flex Bus at 0x180, locator at 0x1a8.
    for (header, next) in [(0x148, 0x1a81_0023), (0x100, 0x1801_0001)] {
        let (mut hw, bridges) = small();
        put(&mut hw.functions[0].config, header, &[next]);
        assert_eq!(found(&mut hw, &bridges).unwrap().nodes.len(), 3, "{header:#x}");
    }
    let (mut hw, bridges) = small();
    put(&mut hw.functions[0].config, 0x100, &[0x1a81_0001]);
    let topology = found(&mut hw, &bridges).unwrap();
    assert_eq!(topology.nodes.len(), 1);
    let (has, device) = (DvsecId::RegisterLocator, false);
    let remark = Code::DISCOVER_INCOMPLETE.at(at(12, 0)).detail(has).expected(device);
    assert_eq!(topology.remarks.list()[0], remark);
}

#[test]
fn a_block_may_lie_anywhere_in_its_bar() {
    let (mut hw, bridges) = small();
    put(&mut hw.functions[1].config, 0x148, &[0x0003_0100]);
    hw.functions[1].blocks[0].1 = 0x3_0000;
    let topology = found(&mut hw, &bridges).unwrap();
    assert_eq!(topology.nodes[2].hdm.unwrap().block, Block(0xfe83_1128));
}

#[test]
fn decoders_may_end_where_their_range_does() {
    let (mut hw, bridges) = small();
    // 0x10 and four times 0x20 bytes before 0x1000.
    let block = &mut hw.functions[1].blocks[0].2;
    put(block, 0x100c, &[0xf701_0005]);
    put(block, 0x1f70, &[0x1b12]);
    let topology = found(&mut hw, &bridges).unwrap();
    assert_eq!(topology.nodes[2].hdm.unwrap().block, Block(0xfe80_1f70));
}

#[test]
fn broken_decoders_of_a_root_port_do_no_harm() {
    let (mut hw, bridges) = small();
    put(&mut hw.functions[0].blocks[0].2, 0x100c, &[0x1291_0005]);
    assert_eq!(found(&mut hw, &bridges).unwrap().nodes[1].hdm, None);
}

#[test]
fn a_device_without_cxl_mem_is_passed_over() {
    let (mut hw, bridges) = small();
    put(&mut hw.functions[1].config, 0x108, &[0x0003_0000]);
    assert_eq!(found(&mut hw, &bridges).unwrap().nodes.len(), 2);
}

#[test]
fn cxl_cache_makes_a_device_type_2() {
    let (mut hw, bridges) = small();
    put(&mut hw.functions[1].config, 0x108, &[0x001f_0000]);
    let topology = found(&mut hw, &bridges).unwrap();
    assert_eq!(topology.nodes[2].device().unwrap().kind, DeviceKind::Type2);
}

#[test]
fn a_device_with_a_bi_decoder_says_whether_it_can_do_without() {
    for (capability, hdm_d) in [(0, false), (1, true)] {
        let (mut hw, bridges) = small();
        let block = &mut hw.functions[1].blocks[0].2;
        put(block, 0x1000, &[0x0411_0001]);
        put(block, 0x1010, &[0x3001_000c]);
        put(block, 0x1300, &[capability, 0, 0]);
        let topology = found(&mut hw, &bridges).unwrap();
        let bi = topology.nodes[2].back_invalidate.unwrap();
        assert_eq!((bi.block, bi.hdm_d), (Block(0xfe80_1300), hdm_d));
    }
}

#[test]
fn a_pass_through_bridge_has_no_decoders() {
    let (mut hw, bridges) = small();
    // QEMU zeroes the ID and leaves the rest of the entry.
    put(&mut hw.fixed, BRIDGE + 0x100c, &[0x1281_0000]);
    assert_eq!(found(&mut hw, &bridges).unwrap().nodes[0].hdm, None);
}

// --- nothing vanishes --------------------------------------------------------------------------

/// What becomes of the small machine's device: a node, a remark with this number beside so many
/// nodes, or a refusal with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Found,
    Remark(usize, u16),
    Refused(u16),
}

fn fate(hw: &mut Fake, bridges: &[Bridge], whole: usize) -> Fate {
    match found(hw, bridges) {
        Err(error) => Fate::Refused(error.code()),
        Ok(topology) => match topology.remarks.list() {
            [] => {
                assert_eq!(topology.nodes.len(), whole, "something vanished without a word");
                Fate::Found
            }
            [remark, ..] => Fate::Remark(topology.nodes.len(), remark.code()),
        },
    }
}

#[test]
fn whatever_answers_is_a_node_a_remark_or_a_refusal() {
    use Fate::{Found, Refused, Remark};
    let dead = |config: &mut Registers| {
        for offset in (4..0x1000).step_by(4) {
            config.insert(offset, ro(u32::MAX));
        }
    };
    let dead: fn(&mut Registers) = dead;
    type Change = Box<dyn Fn(&mut Fake)>;
    let change = |f: fn(&mut Fake)| -> Change { Box::new(f) };
    let cases: Vec<(&str, Change, Fate)> = vec![
        ("as it should be", change(|_| {}), Found),
        (
            "device answers its Vendor ID, and then all-ones",
            Box::new(move |hw| dead(&mut hw.functions[1].config)),
            Refused(0x0222),
        ),
        (
            "root port answers its Vendor ID, and then all-ones",
            Box::new(move |hw| dead(&mut hw.functions[0].config)),
            Refused(0x0222),
        ),
        (
            "a second function that answers its Vendor ID, and then all-ones",
            Box::new(move |hw| {
                put(&mut hw.functions[1].config, 0x0c, &[0x0080_0000]);
                let mut other = endpoint(0, 0, None);
                other.devfn = 1;
                dead(&mut other.config);
                hw.functions.push(other);
            }),
            Refused(0x0222),
        ),
        (
            "device that asks to be tried again (Vendor ID 1), with nothing behind it",
            Box::new(move |hw| {
                dead(&mut hw.functions[1].config);
                put(&mut hw.functions[1].config, 0, &[0xffff_0001]);
            }),
            Refused(0x0222),
        ),
        (
            "device without CXL.mem",
            change(|hw| put(&mut hw.functions[1].config, 0x108, &[0x0003_0000])),
            Remark(2, 0x0280),
        ),
        (
            "root port without CXL DVSECs",
            change(|hw| put(&mut hw.functions[0].config, 0x100, &[0x0001_0001])),
            Remark(1, 0x0281),
        ),
        (
            "root port whose capability list is empty",
            change(|hw| put(&mut hw.functions[0].config, 0x34, &[0])),
            Remark(1, 0x0281),
        ),
        (
            "root port whose list of DVSECs is cut short to the register locator",
            change(|hw| put(&mut hw.functions[0].config, 0x100, &[0x1a81_0001])),
            Remark(1, 0x0282),
        ),
        (
            "device whose list of DVSECs is cut short in front",
            change(|hw| put(&mut hw.functions[1].config, 0x100, &[0x13c1_0001])),
            Remark(2, 0x0282),
        ),
        (
            "device whose list of DVSECs is empty",
            change(|hw| put(&mut hw.functions[1].config, 0x100, &[0])),
            Remark(2, 0x0284),
        ),
        (
            "device whose capability list is empty",
            change(|hw| put(&mut hw.functions[1].config, 0x34, &[0])),
            Remark(2, 0x0284),
        ),
        (
            "device of a port type that cannot be here",
            change(|hw| put(&mut hw.functions[1].config, 0x80, &[0x0092_0010])),
            Remark(2, 0x0283),
        ),
        (
            "device whose list of DVSECs ends behind the first: no register locator",
            change(|hw| put(&mut hw.functions[1].config, 0x100, &[0x0001_0023])),
            // A node without decoders; the plan refuses it.
            Found,
        ),
        (
            "component registers without an HDM capability",
            change(|hw| put(&mut hw.functions[1].blocks[0].2, 0x1000, &[0x0211_0001])),
            Found,
        ),
        (
            "device's own link without CXL.mem",
            change(|hw| put(&mut hw.functions[1].config, 0x16c, &[0x0022_0002])),
            Refused(0x0217),
        ),
        (
            "port's link without CXL.mem",
            change(|hw| put(&mut hw.functions[0].config, 0x18c, &[0x0022_0002])),
            Refused(0x0217),
        ),
        (
            "port without a secondary bus",
            change(|hw| put(&mut hw.functions[0].config, 0x18, &[0])),
            Refused(0x0209),
        ),
        (
            "BAR outside the window of the port",
            change(|hw| put(&mut hw.functions[1].config, 0x10, &[0xfea0_0004])),
            Refused(0x0210),
        ),
        (
            "two ranges, the second one never active",
            change(|hw| {
                put(&mut hw.functions[1].config, 0x108, &[0x002e_0000]);
                put(&mut hw.functions[1].config, 0x12c, &[0x1000_0049]);
            }),
            Refused(0x0218),
        ),
        (
            "a second range that HDM_Count leaves out, with a size and not active",
            change(|hw| put(&mut hw.functions[1].config, 0x12c, &[0x1000_0049])),
            Remark(3, 0x0285),
        ),
        (
            "more decoders than a device can have",
            change(|hw| put(&mut hw.functions[1].blocks[0].2, 0x1128, &[0x1b16])),
            Refused(0x0212),
        ),
        (
            "two CXL functions in one device",
            // Two nodes below one port: the plan refuses the port (SharedPort).
            change(|hw| {
                put(&mut hw.functions[1].config, 0x0c, &[0x0080_0000]);
                let mut other = endpoint(0, 0xfe84_0000, None);
                other.devfn = 1;
                hw.functions.push(other);
            }),
            Found,
        ),
        (
            "a CXL device where a switch has its ports",
            change(|hw| {
                (hw.functions[1].above, hw.functions[1].devfn) = (Err(12), 0x20);
            }),
            Remark(2, 0x0283),
        ),
    ];
    for (name, change, expected) in cases {
        let (mut hw, bridges) = small();
        change(&mut hw);
        let whole = if name.starts_with("two CXL") { 4 } else { 3 };
        assert_eq!(fate(&mut hw, &bridges, whole), expected, "{name}");
    }
}

#[test]
fn a_dead_port_of_a_switch_is_refused_and_a_plain_one_is_named() {
    let (mut hw, bridges) = switched(false);
    for offset in (4..0x1000).step_by(4) {
        hw.functions[3].config.insert(offset, ro(u32::MAX));
    }
    // Its device cannot be seen any more.
    let register = register("Header Type");
    let silent = Code::DISCOVER_SILENT.at(at(14, 8)).detail(register).expected(0xc);
    assert_eq!(error(&mut hw, &bridges), silent);
    let (mut hw, bridges) = switched(false);
    put(&mut hw.functions[3].config, 0x100, &[0x0001_0001]);
    let topology = found(&mut hw, &bridges).unwrap();
    assert_eq!(topology.nodes.len(), 5);
    assert_eq!(topology.remarks.list(), [Code::DISCOVER_PLAIN_PORT.at(at(14, 8))]);
}

#[test]
fn a_bridge_without_a_cxl_port_is_named_and_a_guessed_bus_is_nobodys_business() {
    let (mut hw, [mut bridge]) = small();
    hw.functions.clear();
    let root = RootBus { segment: 0, bus: 12 };
    let topology = found(&mut hw, &[bridge]).unwrap();
    assert_eq!(
        topology.remarks.list(),
        [Code::DISCOVER_NO_PORTS.at(Place::bridge(12)).found(root)]
    );
    // The same hardware in two segments; in one of them without CXL, so that the guess is sound.
    let (mut hw, _) = small();
    bridge.root = None;
    let mut plain = root_port(40, 0, 8, Assigned::default());
    put(&mut plain.config, 0x100, &[0x0001_0001]);
    hw.functions.push(plain);
    let [region] = ALL_BUSES;
    // Bus 12 of the other segment is what this one has as bus 40.
    let other = Ecam { base: Hpa(region.base.0 + (28 << 20)), segment: 1, last_bus: 200, ..region };
    let mut topology = Topology::<16>::new();
    let bridges = [bridge];
    let platform = Platform { ecam: &[other, region], ..platform(&bridges, &[]) };
    assert_eq!(discover(&mut hw, &mut clock(), &platform, &mut topology), Ok(()));
    assert_eq!((topology.nodes.len(), topology.remarks.list()), (3, &[][..]));
}

#[test]
fn what_a_first_look_remarked_is_not_told_twice_after_an_assignment() {
    let (mut hw, bridges) = switched(true);
    let mut plain = root_port(12, 0x08, 8, Assigned::default());
    put(&mut plain.config, 0x100, &[0x0001_0001]);
    hw.functions.push(plain);
    let resources = [resources(12, 0xc000_0000, 0x1000_0000)];
    let mut topology = Topology::<16>::new();
    let result = discover(&mut hw, &mut clock(), &platform(&bridges, &resources), &mut topology);
    assert_eq!(result, Ok(()));
    assert_eq!(topology.remarks.list(), [Code::DISCOVER_PLAIN_PORT.at(at(12, 8))]);
}

/// A machine one of whose functions answers so many reads of its configuration space and then
/// nothing, there and behind its BAR.
struct Dying {
    hw: Fake,
    config: u64,
    bar: u64,
    left: u32,
}

impl Mmio for Dying {
    fn read(&mut self, address: u64) -> u32 {
        let config = (self.config..self.config + 0x1000).contains(&address);
        let bar = (self.bar..self.bar + 0x1_0000).contains(&address);
        if (config || bar) && self.left == 0 {
            return u32::MAX;
        }
        self.left -= u32::from(config);
        self.hw.read(address)
    }

    fn write(&mut self, address: u64, value: u32) {
        self.hw.write(address, value);
    }
}

/// Makes a machine.
type Build = fn() -> (Fake, [Bridge; 1]);

#[test]
fn a_function_that_goes_away_after_any_answer_does_not_vanish_without_a_word() {
    // Bus, device and function, BAR: root ports, switch ports and devices.
    let small_ones = [(12, 0, 0xfe90_0000), (13, 0, 0xfe80_0000)];
    let switched_ones = [
        (12, 0, 0xfe90_0000),
        (13, 0, 0xfe80_0000),
        (14, 0, 0xfe70_0000),
        (14, 8, 0xfe71_0000),
        (15, 0, 0xfe10_0000),
        (16, 0, 0xfe20_0000),
    ];
    let machines: [Build; 2] = [small, || switched(false)];
    for (machine, functions) in machines.into_iter().zip([&small_ones[..], &switched_ones]) {
        let (mut hw, bridges) = machine();
        let whole = found(&mut hw, &bridges).unwrap();
        for &(bus, devfn, bar) in functions {
            let base = ecam(bus, devfn, 0);
            let reads: u32 = hw.reads.range(base..base + 0x1000).map(|(_, count)| count).sum();
            assert!(reads > 10);
            // From 1 on: what does not even give its Vendor ID is not there.
            for left in 1..=reads {
                let mut dying = Dying { hw: machine().0, config: base, bar, left };
                let mut topology = Topology::<16>::new();
                let platform = platform(&bridges, &[]);
                let result = discover(&mut dying, &mut clock(), &platform, &mut topology);
                let whole = topology.nodes == whole.nodes;
                assert!(
                    result.is_err() || whole || !topology.remarks.list().is_empty(),
                    "{bus:x}:{devfn:x} after {left} answers: {:?}",
                    lines(&topology)
                );
            }
        }
    }
}

#[test]
fn no_dword_of_configuration_space_that_is_lost_makes_a_node_vanish_without_a_word() {
    let machines: [Build; 2] = [small, || switched(false)];
    for machine in machines {
        let (mut hw, bridges) = machine();
        let whole = found(&mut hw, &bridges).unwrap().nodes.len();
        let config = hw.reads.range(ECAM..ECAM + 0x1000_0000).map(|(address, _)| *address);
        // What does not give its Vendor ID is not there.
        let read: Vec<u64> = config.filter(|address| address % 0x1000 != 0).collect();
        for address in read {
            for value in [0, u32::MAX] {
                let (mut hw, _) = machine();
                if hw.read(address) == u32::MAX {
                    continue;
                }
                hw.later.insert(address, (0, value));
                let Ok(topology) = found(&mut hw, &bridges) else { continue };
                assert!(
                    topology.nodes.len() == whole || !topology.remarks.list().is_empty(),
                    "{address:#x} reads {value:#x}: {:?}",
                    lines(&topology)
                );
            }
        }
    }
}

#[test]
fn no_more_nodes_than_fit() {
    let (mut hw, bridges) = small();
    let platform = platform(&bridges, &[]);
    let mut exact = Topology::<3>::new();
    assert_eq!(discover(&mut hw, &mut clock(), &platform, &mut exact), Ok(()));
    let mut short = Topology::<2>::new();
    let result = discover(&mut hw, &mut clock(), &platform, &mut short);
    assert_eq!(result, Err(Code::DISCOVER_CAPACITY.error().expected(2)));
    assert!(short.nodes.is_empty());
}

/// A change to the small machine, and what discovery has to say.
type Case = (&'static str, fn(&mut Fake), Error);

#[test]
fn broken_hardware_is_refused_with_place_and_value() {
    let root = at(12, 0);
    let dev = at(13, 0);
    let bridge = Place::bridge(12);
    let array = |error| Code::DISCOVER_ARRAY.at(dev).rule(error);
    let broken_bar = |bar: u8, problem| Code::DISCOVER_BAR.at(dev).halves(0, bar).rule(problem);
    let hdm = CapabilityId::HdmDecoder;
    let cases: Vec<Case> = vec![
        (
            "bridge registers absent",
            |hw| hw.fixed.clear(),
            Code::DISCOVER_ARRAY.at(bridge).rule(ArrayError::AllOnes),
        ),
        (
            "decoder count reserved",
            |hw| put(&mut hw.fixed, BRIDGE + 0x1128, &[0x38d]),
            Code::DISCOVER_DECODER_COUNT
                .at(bridge)
                .detail(Capability::from_bits(0x38d).decoder_count())
                .expected(BRIDGE + 0x1128)
                .found(Capability::from_bits(0x38d).into_bits()),
        ),
        (
            "capability register all-ones",
            |hw| put(&mut hw.functions[1].blocks[0].2, 0x1128, &[u32::MAX]),
            Code::DISCOVER_DECODER_COUNT
                .at(dev)
                .detail(Capability::from_bits(u32::MAX).decoder_count())
                .expected(0xfe80_1128u64)
                .found(Capability::from_bits(u32::MAX).into_bits()),
        ),
        (
            "twelve decoders in a device",
            |hw| put(&mut hw.functions[1].blocks[0].2, 0x1128, &[0x1b16]),
            Code::DISCOVER_DECODER_COUNT
                .at(dev)
                .detail(Capability::from_bits(0x1b16).decoder_count())
                .expected(0xfe80_1128u64)
                .found(Capability::from_bits(0x1b16).into_bits()),
        ),
        (
            "no targets in a bridge",
            |hw| put(&mut hw.fixed, BRIDGE + 0x1128, &[0x302]),
            Code::DISCOVER_TARGET_COUNT
                .at(bridge)
                .detail(Capability::from_bits(0x302).target_count())
                .expected(BRIDGE + 0x1128)
                .found(Capability::from_bits(0x302).into_bits()),
        ),
        (
            "three targets in a bridge",
            |hw| put(&mut hw.fixed, BRIDGE + 0x1128, &[0x332]),
            Code::DISCOVER_TARGET_COUNT
                .at(bridge)
                .detail(Capability::from_bits(0x332).target_count())
                .expected(BRIDGE + 0x1128)
                .found(Capability::from_bits(0x332).into_bits()),
        ),
        (
            "decoders pass the end",
            |hw| {
                let block = &mut hw.functions[1].blocks[0].2;
                put(block, 0x100c, &[0xf801_0005]);
                put(block, 0x1f80, &[0x1b12]);
            },
            Code::DISCOVER_DECODERS_PAST_END.at(dev).detail(0xf80).found(4),
        ),
        (
            "pointer not on a dword",
            |hw| put(&mut hw.functions[1].blocks[0].2, 0x100c, &[0x1291_0005]),
            array(ArrayError::Misaligned { entry: 3, id: hdm, pointer: 0x129 }),
        ),
        (
            "pointer into the array",
            |hw| put(&mut hw.functions[1].blocks[0].2, 0x100c, &[0x00c1_0005]),
            array(ArrayError::InsideArray { entry: 3, id: hdm, pointer: 0x00c, array_end: 0x010 }),
        ),
        (
            "entry all-ones",
            |hw| put(&mut hw.functions[1].blocks[0].2, 0x1004, &[u32::MAX]),
            array(ArrayError::EntryAllOnes { entry: 1 }),
        ),
        (
            "same decoders twice",
            |hw| {
                let mut twin = endpoint(0, 0xfe80_0000, None);
                twin.devfn = 1;
                put(&mut hw.functions[1].config, 0x0c, &[0x0080_0000]);
                hw.functions.push(twin);
            },
            Code::DISCOVER_SHARED_REGISTERS.at(at(13, 1)).found(0xfe80_1128u64),
        ),
        (
            "conventional capabilities in a loop",
            |hw| put(&mut hw.functions[1].config, 0x80, &[0x0002_8005]),
            Code::DISCOVER_CAPABILITIES.at(dev).rule(WalkError::Loop { at: 0x80, to: 0x80 }),
        ),
        (
            "extended capabilities in a loop",
            |hw| put(&mut hw.functions[0].config, 0x180, &[0x1481_0023]),
            Code::DISCOVER_DVSECS
                .at(root)
                .rule(DvsecError::Walk(WalkError::Loop { at: 0x180, to: 0x148 })),
        ),
        (
            "DVSEC beyond configuration space",
            |hw| {
                put(&mut hw.functions[1].config, 0x13c, &[0xff01_0023]);
                put(&mut hw.functions[1].config, 0xff0, &[0x0001_0023, 0x0240_1e98, 0x8]);
            },
            Code::DISCOVER_DVSECS.at(dev).rule(DvsecError::Length {
                at: 0xff0,
                length: 0x24,
                least: 0xc,
                most: 0x10,
            }),
        ),
        (
            "device DVSEC too short",
            |hw| put(&mut hw.functions[1].config, 0x104, &[0x0343_1e98]),
            Code::DISCOVER_SHORT_DVSEC
                .at(dev)
                .detail(DvsecId::Device)
                .expected(0x38)
                .found((0x34, 0x100)),
        ),
        (
            "Flex Bus DVSEC too short",
            |hw| put(&mut hw.functions[0].config, 0x184, &[0x00e2_1e98]),
            Code::DISCOVER_SHORT_DVSEC
                .at(root)
                .detail(DvsecId::FlexBusPort)
                .expected(0x10)
                .found((0xe, 0x180)),
        ),
        (
            "locator of odd length",
            |hw| put(&mut hw.functions[1].config, 0x140, &[0x0260_1e98]),
            Code::DISCOVER_LOCATOR.at(dev).rule(LocatorError::Length { at: 0x13c, length: 0x26 }),
        ),
        (
            "locator names BAR 7",
            |hw| put(&mut hw.functions[1].config, 0x148, &[0x0000_0107]),
            Code::DISCOVER_LOCATOR.at(dev).rule(LocatorError::Bar { entry: 0, bar: 7 }),
        ),
        (
            "upper half of a BAR",
            |hw| put(&mut hw.functions[1].config, 0x148, &[0x0000_0101]),
            broken_bar(1, BarProblem::UpperHalf),
        ),
        (
            "I/O BAR",
            |hw| put(&mut hw.functions[1].config, 0x10, &[0x0000_c001]),
            broken_bar(0, BarProblem::Io),
        ),
        (
            "64-bit BAR without an upper half",
            |hw| {
                put(&mut hw.functions[1].config, 0x148, &[0x0000_0105]);
                put(&mut hw.functions[1].config, 0x24, &[0xfe80_0004]);
            },
            broken_bar(5, BarProblem::NoSuchBar),
        ),
        (
            "BAR 2 of a port",
            |hw| put(&mut hw.functions[0].config, 0x1b4, &[0x0000_0102]),
            Code::DISCOVER_BAR.at(root).halves(0, 2).rule(BarProblem::NoSuchBar),
        ),
        (
            "locator outside its BAR",
            |hw| put(&mut hw.functions[1].config, 0x148, &[0x0080_0100]),
            Code::DISCOVER_OUTSIDE_BAR.at(dev).detail(0).expected(0x80_0000).found(0x80_0000),
        ),
        (
            "locator outside the address space",
            |hw| put(&mut hw.functions[1].config, 0x148, &[0xffff_0100, u32::MAX]),
            Code::DISCOVER_OUTSIDE_BAR
                .at(dev)
                .detail(0)
                .expected(0x80_0000)
                .found(0xffff_ffff_ffff_0000u64),
        ),
        (
            "BAR outside the port's window",
            |hw| put(&mut hw.functions[1].config, 0x10, &[0xfea0_0004]),
            Code::DISCOVER_NOT_FORWARDED.at(dev).expected(sbdf(12, 0)).found(0xfea0_0000u64),
        ),
        (
            "BAR without an address",
            |hw| put(&mut hw.functions[1].config, 0x10, &[0x0000_0004]),
            unassigned(dev, bar(0)),
        ),
        (
            "port without bus numbers",
            |hw| put(&mut hw.functions[0].config, 0x18, &[0]),
            unassigned(root, BUS_NUMBERS),
        ),
        (
            "port without windows",
            |hw| put(&mut hw.functions[0].config, 0x20, &[0x0000_fff0]),
            unassigned(root, WINDOWS),
        ),
        (
            "windows never set",
            |hw| put(&mut hw.functions[0].config, 0x20, &[0, 0x0001_0001]),
            unassigned(root, WINDOWS),
        ),
        (
            "port leads to its own bus",
            |hw| put(&mut hw.functions[0].config, 0x18, &[0x000d_0c0c]),
            Code::DISCOVER_BUS_LOOP.at(root).found(RootBus { segment: 0, bus: 12 }),
        ),
        (
            "port leads upwards",
            |hw| put(&mut hw.functions[0].config, 0x18, &[0x000d_0b0c]),
            Code::DISCOVER_BUS_NUMBERS.at(root).expected((12, 255)).found((11, 13)),
        ),
        (
            "subordinate below secondary",
            |hw| put(&mut hw.functions[0].config, 0x18, &[0x000c_0d0c]),
            Code::DISCOVER_BUS_NUMBERS.at(root).expected((12, 255)).found((13, 12)),
        ),
        (
            "HDM_Count 0",
            |hw| put(&mut hw.functions[1].config, 0x108, &[0x000e_0000]),
            Code::DISCOVER_HDM_COUNT.at(dev).found(0),
        ),
        (
            "HDM_Count 3",
            |hw| put(&mut hw.functions[1].config, 0x108, &[0x003e_0000]),
            Code::DISCOVER_HDM_COUNT.at(dev).found(3),
        ),
        (
            "device's link without CXL.mem",
            |hw| put(&mut hw.functions[1].config, 0x16c, &[0x0022_0002]),
            Code::DISCOVER_NO_MEM_LINK.at(dev).expected(sbdf(13, 0)).found(0x22),
        ),
        (
            "port's link without CXL.mem",
            |hw| put(&mut hw.functions[0].config, 0x18c, &[0x0022_0002]),
            Code::DISCOVER_NO_MEM_LINK.at(dev).expected(sbdf(12, 0)).found(0x22),
        ),
        (
            "reserved media type",
            |hw| put(&mut hw.functions[1].config, 0x11c, &[0x1000_005f]),
            Code::DISCOVER_RANGE
                .at(dev)
                .halves(0, 1)
                .rule(RangeError::Reserved { field: RangeField::MediaType, code: 7 }),
        ),
        (
            "reserved timeout",
            |hw| put(&mut hw.functions[1].config, 0x11c, &[0x1000_a04b]),
            Code::DISCOVER_RANGE
                .at(dev)
                .halves(0, 1)
                .rule(RangeError::Reserved { field: RangeField::ActiveTimeout, code: 5 }),
        ),
        (
            "persistent in front of volatile",
            |hw| {
                put(&mut hw.functions[1].config, 0x11c, &[0x1000_0007]);
                put(&mut hw.functions[1].config, 0x12c, &[0x1000_0003]);
            },
            Code::DISCOVER_PERSISTENT_FIRST.at(dev),
        ),
        (
            "more memory than 64 bits count",
            |hw| {
                put(&mut hw.functions[1].config, 0x118, &[0x8000_0000]);
                put(&mut hw.functions[1].config, 0x128, &[0x8000_0000, 0x4b]);
            },
            Code::DISCOVER_CAPACITY_TOO_LARGE
                .at(dev)
                .expected(0x8000_0000_1000_0000u64)
                .found(0x8000_0000_0000_0000u64),
        ),
    ];
    for (name, change, expected) in cases {
        let (mut hw, bridges) = small();
        change(&mut hw);
        assert_eq!(error(&mut hw, &bridges), expected, "{name}");
        assert_eq!(hw.writes, [], "{name}");
    }
}

#[test]
fn a_bus_that_no_region_decodes_is_refused() {
    let (mut hw, mut bridges) = small();
    let region = Ecam { last_bus: 12, ..ALL_BUSES[0] };
    let run = |hw: &mut Fake, bridges: &[Bridge]| {
        let platform = Platform { ecam: &[region], ..platform(bridges, &[]) };
        discover(hw, &mut clock(), &platform, &mut Topology::<16>::new())
    };
    let last = Code::DISCOVER_BUS_NUMBERS.at(at(12, 0)).expected((12, 12)).found((13, 13));
    assert_eq!(run(&mut hw, &bridges), Err(last));
    bridges[0].root = Some(RootBus { segment: 0, bus: 13 });
    let bridge = Place::bridge(12);
    let bus = RootBus { segment: 0, bus: 13 };
    assert_eq!(run(&mut hw, &bridges), Err(Code::DISCOVER_NOT_DECODED.at(bridge).found(bus)));
}

#[test]
fn two_ports_to_one_bus_are_a_loop() {
    let (mut hw, bridges) = switched(false);
    put(&mut hw.functions[3].config, 0x18, &[0x000f_0f0e]);
    let expected = Code::DISCOVER_BUS_LOOP.at(at(14, 8)).found(RootBus { segment: 0, bus: 15 });
    assert_eq!(error(&mut hw, &bridges), expected);
}

#[test]
fn a_port_that_leads_to_another_root_bus_is_a_loop() {
    let (mut hw, mut bridges) = two_bridges();
    (bridges[0].uid, bridges[1].uid) = (7, 20);
    put(&mut hw.functions[0].config, 0x18, &[0x003e_3c28]);
    let at = Place::function(7, sbdf(40, 0));
    let bus = RootBus { segment: 0, bus: 60 };
    assert_eq!(error(&mut hw, &bridges), Code::DISCOVER_BUS_LOOP.at(at).found(bus));
}

/// A root port and seventeen ports of switches below it, each below the one before.
fn chain(blank: bool) -> (Fake, [Bridge; 1]) {
    let (mut hw, bridges) = switched(blank);
    hw.functions.truncate(1);
    if !blank {
        put(&mut hw.functions[0].config, 0x18, &[0x0050_0d0c]);
        put(&mut hw.functions[0].config, 0x20, &[0xfff0_0010]);
    }
    for depth in 0u8..17 {
        let bar = 0x0100_0000 + (u64::from(depth) << 20);
        let above = usize::from(depth);
        let bus = 13 + depth;
        let found =
            Assigned { primary: bus, secondary: bus + 1, subordinate: 80, bar, window: (1, 0xfff) };
        let assigned = if blank { Assigned::default() } else { found };
        hw.functions.push(if depth % 2 == 0 {
            upstream_port(above, assigned)
        } else {
            downstream_port(above, 0, 1, assigned)
        });
    }
    (hw, bridges)
}

#[test]
fn a_chain_of_switches_ends_at_the_depth_that_a_path_holds() {
    let (mut hw, bridges) = chain(false);
    let mut topology = Topology::<32>::new();
    let result = discover(&mut hw, &mut clock(), &platform(&bridges, &[]), &mut topology);
    assert_eq!(result, Err(Code::DISCOVER_TOO_DEEP.at(at(13 + 15, 0)).expected(MAX_DEPTH)));
}

#[test]
fn memory_that_is_late_is_waited_for() {
    let (mut hw, bridges) = small();
    let address = ecam(13, 0, 0x11c);
    put(&mut hw.functions[1].config, 0x11c, &[0x1000_0048]);
    hw.later.insert(address, (5, 0x1000_004b));
    assert!(found(&mut hw, &bridges).is_ok());
    assert_eq!(hw.reads[&address], 6);
}

#[test]
fn waits_end_by_the_advertised_time_or_when_the_clock_stands_still() {
    let timeout = |waited, found, milliseconds| timeout(at(13, 0), waited, found, milliseconds);
    let cases = [
        (0x1000_0048, timeout(info_valid(1), 0x1000_0048, 1000)),
        (0x1000_0049, timeout(active(1), 0x1000_0049, 1000)),
        (0x1000_2049, timeout(active(1), 0x1000_2049, 4000)),
    ];
    for (value, expected) in cases {
        // A look at Memory_Info_Valid, then one at once, one a millisecond, and one at the end.
        for (step, most) in [(500, 4003), (0, 3), (1 << 40, 3), (7, 4003)] {
            let (mut hw, bridges) = small();
            put(&mut hw.functions[1].config, 0x11c, &[value]);
            let platform = platform(&bridges, &[]);
            let mut topology = Topology::<16>::new();
            let result = discover(&mut hw, &mut Ticks(0, step), &platform, &mut topology);
            assert_eq!(result, Err(expected), "step {step}");
            let reads = hw.reads[&ecam(13, 0, 0x11c)];
            assert!(reads <= most, "{reads} reads with step {step}");
            assert!(topology.nodes.is_empty());
        }
    }
}

#[test]
fn range_registers_tell_sizes_and_media() {
    use CapacitySource::{AssumedVolatile, RangeRegisters};
    // Range 1 low, capability, range 2 low: volatile, persistent MiB and source.
    let cases = [
        (0x2000_0003, 0x001e, 0, (512, 0, RangeRegisters)),
        (0x2000_0007, 0x001e, 0, (0, 512, RangeRegisters)),
        (0x2000_0003, 0x002e, 0x1000_0007, (512, 256, RangeRegisters)),
        // One range counted, two filled in.
        (0x2000_004b, 0x001e, 0x1000_004b, (768, 0, AssumedVolatile)),
        // The second one is not valid.
        (0x2000_004b, 0x001e, 0x1000_004a, (512, 0, AssumedVolatile)),
        // Both active, and smaller or slower than they should be.
        (0x2001_0049, 0x001e, 0x1001_0049, (768, 0, AssumedVolatile)),
        // Nothing in range 2, whose media is volatile as far as it says, behind persistent memory.
        (0x2000_0007, 0x002e, 0x0000_0003, (0, 512, RangeRegisters)),
        // A device with nothing but dynamic capacity.
        (0x0000_004b, 0x001e, 0, (0, 0, AssumedVolatile)),
    ];
    for (first, capability, second, (volatile, persistent, source)) in cases {
        let (mut hw, bridges) = small();
        let config = &mut hw.functions[1].config;
        put(config, 0x108, &[capability << 16]);
        put(config, 0x11c, &[first]);
        put(config, 0x12c, &[second]);
        let topology = found(&mut hw, &bridges).unwrap();
        let device = topology.nodes[2].device().unwrap();
        let got = (device.volatile / MIB, device.persistent / MIB, device.source);
        assert_eq!(got, (volatile, persistent, source), "{first:#x} {capability:#x} {second:#x}");
    }
}

/// Device registers: status at 0x80, mailbox at 0x100, memory device status at 0x400.
fn device_registers() -> Registers {
    let mut block = Registers::new();
    put(&mut block, 0x00, &[0x0101_0000, 3, 0, 0]);
    put(&mut block, 0x10, &[0x0001_0001, 0x80, 0x8, 0]);
    put(&mut block, 0x20, &[0x0001_0002, 0x100, 0x220, 0]);
    put(&mut block, 0x30, &[0x0001_4000, 0x400, 0x8, 0]);
    put(&mut block, 0x100, &[0x0000_0009]);
    for offset in [0x104, 0x108, 0x10c] {
        block.insert(offset, Reg { value: 0, rw: !0, rw1c: 0 });
    }
    put(&mut block, 0x110, &[0; 24]);
    put(&mut block, 0x400, &[0x14]);
    block
}

const DEVICE: u64 = 0xfe81_0000;

/// A small machine whose device has a mailbox that answers both commands. Payloads as bytes.
fn with_mailbox(partitionable: bool) -> (Fake, [Bridge; 1]) {
    let (mut hw, bridges) = small();
    hw.functions[1] = endpoint(0, 0xfe80_0000, Some(device_registers()));
    let mut identify = [0u8; 0x44];
    identify[0x10..0x18].copy_from_slice(&12u64.to_le_bytes());
    identify[0x18..0x20].copy_from_slice(&3u64.to_le_bytes());
    identify[0x20..0x28].copy_from_slice(&5u64.to_le_bytes());
    identify[0x28] = partitionable.into();
    let mut partitions = [0u8; 0x20];
    partitions[0..8].copy_from_slice(&4u64.to_le_bytes());
    partitions[8..16].copy_from_slice(&8u64.to_le_bytes());
    let answer = |bytes: &[u8], length| {
        let mut registers =
            vec![(DEVICE + 0x104, 0), (DEVICE + 0x114, 0), (DEVICE + 0x108, length)];
        for (index, bytes) in bytes.as_chunks().0.iter().enumerate() {
            let value = u32::from_le_bytes(*bytes);
            registers.push((DEVICE + 0x120 + 4 * index as u64, value));
        }
        registers
    };
    // Writing an opcode arms the answer; the fake gives it with the doorbell.
    hw.reactions = vec![
        (DEVICE + 0x108, 0x4000, answer(&identify, 0x0043_4000)),
        (DEVICE + 0x108, 0x4100, answer(&partitions, 0x0020_4100)),
        (DEVICE + 0x104, 1, vec![(DEVICE + 0x104, 0)]),
    ];
    (hw, bridges)
}

#[test]
fn a_mailbox_knows_the_partitions() {
    for (partitionable, expected) in [(false, (3 * 256, 5 * 256)), (true, (4 * 256, 8 * 256))] {
        let (mut hw, bridges) = with_mailbox(partitionable);
        let topology = found(&mut hw, &bridges).unwrap();
        let device = topology.nodes[2].device().unwrap();
        assert_eq!((device.volatile / MIB, device.persistent / MIB), expected);
        assert_eq!(device.source, CapacitySource::Mailbox);
        // Only the mailbox is written: opcode, length, doorbell.
        let commands = if partitionable { 2 } else { 1 };
        assert_eq!(hw.writes.len(), 3 * commands);
        let waited = [DEVICE + 0x104, DEVICE + 0x108, DEVICE + 0x10c];
        for (address, reads) in &hw.reads {
            let payload = (DEVICE + 0x110..DEVICE + 0x164).contains(address);
            let most = if waited.contains(address) || payload { 4 } else { 1 };
            assert!(*reads <= most, "{reads} reads of {address:#x}");
        }
    }
}

#[test]
fn a_structure_may_end_where_its_bar_does() {
    let (mut hw, bridges) = with_mailbox(false);
    let block = &mut hw.functions[1].blocks[1].2;
    put(block, 0x34, &[0xfff8]);
    put(block, 0xfff8, &[0x14]);
    assert!(found(&mut hw, &bridges).is_ok());
    put(&mut hw.functions[1].blocks[1].2, 0x38, &[0xc]);
    let error = DeviceArrayError::Place { entry: 2, offset: 0xfff8, length: 0xc };
    let expected = Code::DISCOVER_DEVICE_REGISTERS.at(at(13, 0)).rule(error);
    assert_eq!(found(&mut hw, &bridges).map(|_| ()), Err(expected));
}

#[test]
fn a_mailbox_that_refuses_leaves_the_range_registers() {
    let (mut hw, bridges) = with_mailbox(false);
    // Unsupported, as when 32-bit writes of the command register are dropped.
    hw.reactions[0].2 = vec![(DEVICE + 0x114, 3)];
    let topology = found(&mut hw, &bridges).unwrap();
    let device = topology.nodes[2].device().unwrap();
    assert_eq!((device.volatile, device.source), (256 * MIB, CapacitySource::AssumedVolatile));
    // Said, as what is assumed may be wrong.
    let refuses = Code::DISCOVER_MAILBOX_REFUSES.at(at(13, 0)).found(3u16);
    assert_eq!(remarks(&mut hw, &bridges), [refuses.detail(Opcode::IdentifyMemoryDevice)]);
}

#[test]
fn a_mailbox_that_knows_of_no_memory_beside_a_range_that_has_some_is_refused() {
    let (mut hw, bridges) = with_mailbox(false);
    // Identify: nothing at all, and range 1 with its 256 MiB active.
    for offset in (0x120..0x164).step_by(4) {
        hw.reactions[0].2.push((DEVICE + offset, 0));
    }
    let expected = Code::DISCOVER_NO_CAPACITY.at(at(13, 0)).expected(256 * MIB);
    assert_eq!(error(&mut hw, &bridges), expected);
    // Nor is there anything in the range: a device with nothing, as far as anybody can tell.
    put(&mut hw.functions[1].config, 0x11c, &[0x0000_004b]);
    let topology = found(&mut hw, &bridges).unwrap();
    let device = topology.nodes[2].device().unwrap();
    assert_eq!((device.volatile, device.persistent), (0, 0));
}

#[test]
fn memory_that_is_in_no_active_partition_is_named() {
    let (mut hw, bridges) = with_mailbox(false);
    let active = 8 * 256 * MIB;
    let remark = |total| Code::DISCOVER_NOT_PARTITIONED.at(at(13, 0)).expected(total).found(active);
    assert_eq!(remarks(&mut hw, &bridges), [remark(12 * 256 * MIB)]);
    hw.reactions[0].2.push((DEVICE + 0x130, 8));
    assert_eq!(remarks(&mut hw, &bridges), []);
}

#[test]
fn a_broken_mailbox_is_refused() {
    let dev = at(13, 0);
    let timeout = |waited, found, milliseconds| timeout(dev, waited, found, milliseconds);
    let cases: Vec<Case> = vec![
        (
            "nothing answers",
            |hw| hw.functions[1].blocks[1].2.clear(),
            Code::DISCOVER_DEVICE_REGISTERS.at(dev).rule(DeviceArrayError::AllOnes),
        ),
        (
            "a structure beyond the BAR",
            |hw| put(&mut hw.functions[1].blocks[1].2, 0x24, &[0x1_0000]),
            Code::DISCOVER_DEVICE_REGISTERS.at(dev).rule(DeviceArrayError::Place {
                entry: 1,
                offset: 0x1_0000,
                length: 0x220,
            }),
        ),
        (
            "media never ready",
            |hw| put(&mut hw.functions[1].blocks[1].2, 0x400, &[0x10]),
            timeout(DEVICE_READY, 0x10, 2000),
        ),
        (
            "doorbell already set",
            |hw| put(&mut hw.functions[1].blocks[1].2, 0x104, &[0x1]),
            timeout(MAILBOX_FREE, 0x1, 2000),
        ),
        (
            "doorbell never cleared",
            |hw| hw.reactions.truncate(2),
            command(dev, Opcode::IdentifyMemoryDevice, 0x1, 2000),
        ),
        (
            "output too short",
            |hw| hw.reactions[0].2 = vec![(DEVICE + 0x108, 0x0040_4000)],
            short_payload(dev, Opcode::IdentifyMemoryDevice, 0x43, 0x40),
        ),
        (
            "more units than 64 bits of bytes",
            |hw| hw.reactions[0].2.push((DEVICE + 0x13c, 0x1000_0000)),
            Code::DISCOVER_CAPACITY_TOO_LARGE.at(dev).expected(0x1000_0000_0000_0003u64).found(5),
        ),
    ];
    for (name, change, expected) in cases {
        let (mut hw, bridges) = with_mailbox(false);
        change(&mut hw);
        assert_eq!(error(&mut hw, &bridges), expected, "{name}");
    }
}

fn assign(hw: &mut Fake, bridges: &[Bridge], base: u64, size: u64) -> Result<Topology<16>, Error> {
    let mut topology = Topology::new();
    let resources = [resources(12, base, size)];
    let platform = platform(bridges, &resources);
    let result = discover(hw, &mut clock(), &platform, &mut topology);
    assert!(!hw.sized_live);
    result.map(|()| topology)
}

#[test]
fn a_blank_machine_is_assigned_depth_first() {
    let (mut hw, bridges) = switched(true);
    let topology = assign(&mut hw, &bridges, 0xc000_0000, 0x1000_0000).unwrap();
    assert_eq!(
        lines(&topology),
        [
            "- bridge 12 0 - 4@0x3c0001128 -",
            "0 root 0 0000:0c:00.0 - 0xc0001240",
            "1 up 0 0000:0d:00.0 4@0xc0101128 0xc0101240",
            "2 down 5 0000:0e:01.0 - 0xc0401240",
            "2 down 7 0000:0e:00.0 - 0xc0201240",
            "3 Type3 256+0 MiB AssumedVolatile 0 0000:10:00.0 4@0xc0501128 -",
            "4 Type3 256+0 MiB AssumedVolatile 0 0000:0f:00.0 4@0xc0301128 -",
        ]
    );
    let buses: Vec<u32> = (0..4).map(|port| hw.functions[port].config[&0x18].value).collect();
    assert_eq!(buses, [0x0010_0d0c, 0x0010_0e0d, 0x000f_0f0e, 0x0010_100e]);
    let windows: Vec<u32> = (0..4).map(|port| hw.functions[port].config[&0x20].value).collect();
    assert_eq!(windows, [0xc050_c010, 0xc050_c020, 0xc030_c030, 0xc050_c050]);
    for function in &hw.functions {
        // Memory Space is on, and no status bit was lost.
        assert_eq!(function.config[&0x04].value, 0xf910_0002);
    }
    for port in &hw.functions[..4] {
        assert_eq!(port.config[&0x1c].value, 0xf900_0000);
    }
    // A second run finds everything and writes nothing.
    hw.writes.clear();
    let again = assign(&mut hw, &bridges, 0xc000_0000, 0x1000_0000).unwrap();
    assert_eq!(again.nodes, topology.nodes);
    assert_eq!(hw.writes, []);
}

#[test]
fn above_4_gib_the_prefetchable_window_is_used() {
    let (mut hw, bridges) = switched(true);
    let topology = assign(&mut hw, &bridges, 0x38_0000_0000, 0x1000_0000).unwrap();
    assert_eq!(topology.nodes[5].hdm.unwrap().block, Block(0x38_0050_1128));
    let root = &hw.functions[0].config;
    let window = [0x20, 0x24, 0x28, 0x2c].map(|offset| root[&offset].value);
    assert_eq!(window, [0x0000_fff0, 0x0051_0011, 0x38, 0x38]);
}

#[test]
fn what_is_assigned_keeps_its_place_and_the_rest_goes_around_it() {
    // One endpoint lost its address; the window of its port has room.
    let (mut hw, bridges) = switched(false);
    let bar0 = |hw: &Fake, index: usize| hw.functions[index].config[&0x10].value;
    hw.functions[4].config.get_mut(&0x10).unwrap().value = 0x4;
    assign(&mut hw, &bridges, 0xc000_0000, 0x1000_0000).unwrap();
    assert_eq!((bar0(&hw, 4), bar0(&hw, 5)), (0xfe10_0004, 0xfe20_0004));
    assert_eq!(hw.functions[2].config[&0x18].value, 0x000f_0f0e);
    // A downstream port lost its address: the upstream port's window has others in it.
    let (mut hw, bridges) = switched(false);
    hw.functions[2].config.get_mut(&0x10).unwrap().value = 0x4;
    assign(&mut hw, &bridges, 0xc000_0000, 0x1000_0000).unwrap();
    assert_eq!(bar0(&hw, 2), 0xfe72_0004);
    assert_eq!(bar0(&hw, 3), 0xfe71_0004);
    // A second run on a machine with a new device does not hand out addresses in use.
    let (mut hw, bridges) = switched(true);
    let device = hw.functions.remove(4);
    hw.functions[4].above = Ok(3);
    assign(&mut hw, &bridges, 0xc000_0000, 0x1000_0000).unwrap();
    hw.functions.push(device);
    let topology = assign(&mut hw, &bridges, 0xc000_0000, 0x1000_0000);
    assert_eq!(topology.map_err(|error| error.code).err(), Some(Code::DISCOVER_NO_ROOM));
}

#[test]
fn a_later_run_goes_around_what_an_earlier_one_took() {
    let blank = Assigned::default();
    let functions =
        vec![root_port(12, 0, 1, blank), root_port(12, 8, 2, blank), endpoint(0, 0, None)];
    let fixed = bridge_registers(BRIDGE);
    let mut hw = Fake { functions, fixed, ..Fake::default() };
    let bridges = [bridge(12, Some(12), 0)];
    let device = |topology: &Topology<16>, node: usize| topology.nodes[node].hdm.unwrap().block;
    let first = assign(&mut hw, &bridges, 0xc000_0000, 0x100_0000).unwrap();
    assert_eq!(device(&first, 3), Block(0xc010_1128));
    hw.functions.push(endpoint(1, 0, None));
    let second = assign(&mut hw, &bridges, 0xc000_0000, 0x100_0000).unwrap();
    assert_eq!(device(&second, 3), Block(0xc010_1128));
    // BAR 0 of the second port lies behind the first port's window, so the device is behind it.
    assert_eq!(device(&second, 4), Block(0xc030_1128));
}

#[test]
fn what_is_behind_a_port_that_lost_its_numbers_is_assigned_anew() {
    let (mut hw, bridges) = switched(true);
    let expected = assign(&mut hw, &bridges, 0xc000_0000, 0x1000_0000).unwrap();
    let (mut hw, bridges) = switched(false);
    for offset in [0x10, 0x18, 0x20] {
        let keep = if offset == 0x10 { 0x4 } else { 0 };
        hw.functions[0].config.get_mut(&offset).unwrap().value = keep;
    }
    let topology = assign(&mut hw, &bridges, 0xc000_0000, 0x1000_0000).unwrap();
    assert_eq!(topology.nodes, expected.nodes);
}

#[test]
fn new_bus_numbers_go_around_those_in_use() {
    let found = Assigned {
        primary: 12,
        secondary: 13,
        subordinate: 14,
        bar: 0xc000_0000,
        window: (0xfe8, 0xfe8),
    };
    let functions = vec![
        root_port(12, 0, 1, Assigned::default()),
        root_port(12, 8, 2, found),
        endpoint(0, 0, None),
    ];
    let fixed = bridge_registers(BRIDGE);
    let mut hw = Fake { functions, fixed, ..Fake::default() };
    let bridges = [bridge(12, Some(12), 0)];
    assign(&mut hw, &bridges, 0xc000_0000, 0x100_0000).unwrap();
    assert_eq!(hw.functions[0].config[&0x18].value, 0x000f_0f0c);
    assert_eq!(hw.functions[1].config[&0x18].value, 0x000e_0d0c);
    assert_eq!(hw.functions[0].config[&0x10].value, 0xc001_0004);
}

/// A blank machine of one port and one device, whose BAR 0 has 32 bits and 1 MiB.
fn narrow() -> (Fake, [Bridge; 1]) {
    let mut device = endpoint(0, 0, None);
    device.config.insert(0x10, Reg { value: 0, rw: 0xfff0_0000, rw1c: 0 });
    device.config.remove(&0x14);
    let functions = vec![root_port(12, 0, 3, Assigned::default()), device];
    (Fake { functions, fixed: bridge_registers(BRIDGE), ..Fake::default() }, small().1)
}

#[test]
fn a_bar_of_32_bits_may_end_at_4_gib_and_not_begin_there() {
    let (mut hw, bridges) = narrow();
    let topology = assign(&mut hw, &bridges, 0xffef_0000, 0x11_0000).unwrap();
    assert_eq!(topology.nodes[2].hdm.unwrap().block, Block(0xfff0_1128));
    let (mut hw, bridges) = narrow();
    let result = assign(&mut hw, &bridges, 0xffff_0000, 0x1000_0000).map(|_| ());
    let no_room = no_room(at(13, 0), 0, 20, 0x1_0000_0000, 0x1_0fff_0000);
    assert_eq!(result, Err(no_room));
}

#[test]
fn sizing_a_bar_of_32_bits_leaves_the_one_behind_it_alone() {
    let (mut hw, bridges) = small();
    let config = &mut hw.functions[1].config;
    // BAR 0 and BAR 1 have 32 bits each, and BAR 1 has an address; the registers are in BAR 2.
    let narrow = |value| Reg { value, rw: 0xffff_0000, rw1c: 0 };
    config.insert(0x10, narrow(0));
    config.insert(0x14, narrow(0xfe88_0000));
    config.insert(0x18, narrow(0x4));
    config.insert(0x1c, Reg { value: 0, rw: !0, rw1c: 0 });
    put(config, 0x148, &[0x0000_0102]);
    hw.functions[1].blocks[0].0 = 2;
    let topology = assign(&mut hw, &bridges, 0xc000_0000, 0x1000_0000).unwrap();
    let bars = [0x10, 0x14, 0x18, 0x1c].map(|offset| hw.functions[1].config[&offset].value);
    assert_eq!(bars, [0xfe89_0000, 0xfe88_0000, 0xfe8a_0004, 0]);
    assert_eq!(topology.nodes[2].hdm.unwrap().block, Block(0xfe8a_1128));
}

#[test]
fn what_begins_where_the_range_ends_takes_nothing_of_it() {
    let found = Assigned {
        primary: 12,
        secondary: 13,
        subordinate: 14,
        bar: 0xd000_0000,
        window: (0xfe8, 0xfe8),
    };
    let functions = vec![root_port(12, 0, 1, Assigned::default()), root_port(12, 8, 2, found)];
    let mut hw = Fake { functions, fixed: bridge_registers(BRIDGE), ..Fake::default() };
    let bridges = [bridge(12, Some(12), 0)];
    assign(&mut hw, &bridges, 0xcf00_0000, 0x100_0000).unwrap();
    assert_eq!(hw.functions[0].config[&0x10].value, 0xcf00_0004);
}

#[test]
fn a_switch_that_lost_its_numbers_gets_new_ones_of_its_port() {
    let (mut hw, bridges) = switched(false);
    for (offset, value) in [(0x10, 0x4), (0x18, 0), (0x20, 0x0000_fff0)] {
        hw.functions[1].config.get_mut(&offset).unwrap().value = value;
    }
    assign(&mut hw, &bridges, 0xc000_0000, 0x1000_0000).unwrap();
    let buses: Vec<u32> = (0..4).map(|port| hw.functions[port].config[&0x18].value).collect();
    assert_eq!(buses, [0x0010_0d0c, 0x0010_0e0d, 0x000f_0f0e, 0x0010_100e]);
}

/// Two ports: the first lost its address, so that there is something to assign; bus numbers of the
/// second as given. Somebody else's function stands on bus 11.
fn two_ports(secondary: u8, subordinate: u8) -> (Fake, [Bridge; 1]) {
    let port = |secondary, subordinate, bar, mib| Assigned {
        primary: 12,
        secondary,
        subordinate,
        bar,
        window: (mib, mib),
    };
    let functions = vec![
        root_port(12, 0, 1, port(13, 13, 0, 0xfe8)),
        root_port(12, 8, 2, port(secondary, subordinate, 0xfe90_0000, 0xfea)),
        Function { above: Err(11), ..endpoint(0, 0, None) },
    ];
    (Fake { functions, fixed: bridge_registers(BRIDGE), ..Fake::default() }, small().1)
}

#[test]
fn numbers_that_lead_out_of_the_hierarchy_are_not_followed_to_assign_anything() {
    // Upwards; a subordinate number below the secondary one, on the first port's bus.
    for (secondary, subordinate) in [(11, 14), (13, 12)] {
        let (mut hw, bridges) = two_ports(secondary, subordinate);
        let result = assign(&mut hw, &bridges, 0xd000_0000, 0x1000_0000).map(|_| ());
        let (at, above, last) = (at(12, 8), 12, 255);
        let expected = Code::DISCOVER_BUS_NUMBERS
            .at(at)
            .expected((above, last))
            .found((secondary, subordinate));
        assert_eq!(result, Err(expected));
        assert_ne!(hw.writes, []);
        let ports = ecam(12, 0, 0)..ecam(13, 0, 0);
        assert!(hw.writes.iter().all(|(address, _)| ports.contains(address)), "{:x?}", hw.writes);
    }
    // The last bus that the region decodes is fine; the one behind it is not.
    for (last_bus, ok) in [(14, true), (13, false)] {
        let (mut hw, bridges) = two_ports(14, 14);
        let resources = [resources(12, 0xd000_0000, 0x1000_0000)];
        let ecam = [Ecam { last_bus, ..ALL_BUSES[0] }];
        let platform = Platform { ecam: &ecam, ..platform(&bridges, &resources) };
        let mut topology = Topology::<16>::new();
        let result = discover(&mut hw, &mut clock(), &platform, &mut topology);
        let (at, secondary, subordinate, above, last) = (at(12, 8), 14, 14, 12, last_bus);
        let error = Code::DISCOVER_BUS_NUMBERS
            .at(at)
            .expected((above, last))
            .found((secondary, subordinate));
        assert_eq!(result, if ok { Ok(()) } else { Err(error) });
    }
}

#[test]
fn assignment_ends_at_the_depth_that_a_path_holds() {
    // Nothing assigned; everything but the first port's address.
    for blank in [true, false] {
        let (mut hw, bridges) = chain(blank);
        hw.functions[0].config.get_mut(&0x10).unwrap().value = 0x4;
        let resources = [resources(12, 0x1_0000_0000, 0x1_0000_0000)];
        let platform = platform(&bridges, &resources);
        let mut topology = Topology::<32>::new();
        let result = discover(&mut hw, &mut clock(), &platform, &mut topology);
        assert_eq!(result, Err(Code::DISCOVER_TOO_DEEP.at(at(13 + 15, 0)).expected(MAX_DEPTH)));
        // Sixteen ports in a row are no reason to write to the one behind them.
        let deepest = hw.writes.iter().map(|(address, _)| (address - ECAM) >> 20).max();
        assert_eq!(deepest, Some(13 + 15), "{blank}");
    }
}

#[test]
fn assignment_visits_each_bus_once() {
    let (mut hw, bridges) = switched(false);
    hw.functions[1].config.get_mut(&0x10).unwrap().value = 0x4;
    put(&mut hw.functions[3].config, 0x18, &[0x000f_0f0e]);
    let result = assign(&mut hw, &bridges, 0xc000_0000, 0x1000_0000).map(|_| ());
    let bus = RootBus { segment: 0, bus: 15 };
    assert_eq!(result, Err(Code::DISCOVER_BUS_LOOP.at(at(14, 8)).found(bus)));
    // Once to see what is in use, once to assign; the other way to the bus ends before.
    let sizings = hw.writes.iter().filter(|write| **write == (ecam(15, 0, 0x10), u32::MAX));
    assert_eq!(sizings.count(), 2);
}

#[test]
fn a_range_serves_its_own_bridge_only() {
    let (mut hw, bridges) = switched(true);
    let given = [resources(13, 0xc000_0000, 0x1000_0000)];
    let mut topology = Topology::<16>::new();
    let result = discover(&mut hw, &mut clock(), &platform(&bridges, &given), &mut topology);
    let what = BUS_NUMBERS;
    assert_eq!(result, Err(unassigned(at(12, 0), what)));
    assert_eq!(hw.writes, []);
}

#[test]
fn what_cannot_be_assigned_is_refused() {
    let (mut hw, bridges) = switched(true);
    let result = assign(&mut hw, &bridges, 0xc000_0000, 0x10_0000).map(|_| ());
    let no_room = no_room(at(13, 0), 0, 16, 0xc010_0000, 0xc010_0000);
    assert_eq!(result, Err(no_room));
    // A 32-bit BAR does not go above 4 GiB.
    let (mut hw, bridges) = switched(true);
    hw.functions[5].config.insert(0x10, Reg { value: 0, rw: 0xffff_0000, rw1c: 0 });
    let result = assign(&mut hw, &bridges, 0x1_0000_0000, 0x1000_0000).map(|_| ());
    let error = result.expect_err("no room");
    // BAR 0, of 64 KiB.
    assert_eq!((error.code, error.detail), (Code::DISCOVER_NO_ROOM, 0x1000));
    // Bus 15 belongs to another bridge, so three buses are too few.
    let (mut hw, bridges) = switched(true);
    hw.fixed.append(&mut bridge_registers(BRIDGE + 0x1_0000));
    let two = [bridges[0], bridge(15, Some(15), 1)];
    let result = assign(&mut hw, &two, 0xc000_0000, 0x1000_0000).map(|_| ());
    assert_eq!(result, Err(Code::DISCOVER_NO_BUS_NUMBERS.at(at(14, 0)).expected(14)));
    // A BAR whose size has holes.
    let (mut hw, bridges) = switched(true);
    hw.functions[5].config.get_mut(&0x10).unwrap().rw = 0xf0ff_0000;
    let result = assign(&mut hw, &bridges, 0xc000_0000, 0x1000_0000).map(|_| ());
    let error = result.expect_err("holes");
    let holes = BarProblem::Register(BarError::Holes { bits: error.found });
    assert_eq!(error, Code::DISCOVER_BAR.at(error.at).halves(0, 0).rule(holes));
    // A BAR that the locator names and that does not exist.
    let (mut hw, bridges) = switched(true);
    put(&mut hw.functions[5].config, 0x10, &[0, 0]);
    let result = assign(&mut hw, &bridges, 0xc000_0000, 0x1000_0000).map(|_| ());
    let what = bar(0);
    assert_eq!(result, Err(unassigned(at(16, 0), what)));
    // A prefetchable window of 32 bits cannot reach above 4 GiB.
    let (mut hw, bridges) = switched(true);
    hw.functions[2].config.get_mut(&0x24).unwrap().value = 0;
    let result = assign(&mut hw, &bridges, 0x38_0000_0000, 0x1000_0000).map(|_| ());
    assert_eq!(result.expect_err("too high").code, Code::DISCOVER_WINDOW);
}

#[test]
fn codes_are_distinct_and_every_error_is_a_sentence_with_its_place() {
    let at = at(13, 0);
    let bus = RootBus { segment: 0, bus: 9 };
    let errors = [
        Code::DISCOVER_DUPLICATE_UID.at(Place::bridge(12)),
        Code::DISCOVER_SHARED_ROOT_BUS.at(Place::bridge(12)).expected(bus).found(13),
        Code::DISCOVER_ROOT_BUS_UNKNOWN.at(Place::bridge(12)).detail(NO_CXL_PORTS),
        Code::DISCOVER_NOT_DECODED.at(at).found(bus),
        Code::DISCOVER_BUS_LOOP.at(at).found(bus),
        Code::DISCOVER_BUS_NUMBERS.at(at).expected((3, 4)).found((1, 2)),
        Code::DISCOVER_TOO_DEEP.at(at).expected(MAX_DEPTH),
        unassigned(at, bar(2)),
        Code::DISCOVER_CAPABILITIES.at(at).rule(WalkError::AllOnes { at: 0x40 }),
        Code::DISCOVER_DVSECS.at(at).rule(DvsecError::Walk(WalkError::AllOnes { at: 0x100 })),
        Code::DISCOVER_SHORT_DVSEC.at(at).detail(DvsecId::Device).expected(3).found((2, 1)),
        Code::DISCOVER_LOCATOR.at(at).rule(LocatorError::Bar { entry: 0, bar: 7 }),
        Code::DISCOVER_BAR.at(at).halves(0, 1).rule(BarProblem::UpperHalf),
        Code::DISCOVER_OUTSIDE_BAR.at(at).detail(1).expected(0x1_0000).found(2),
        Code::DISCOVER_NOT_FORWARDED.at(at).expected(sbdf(12, 0)).found(1),
        Code::DISCOVER_ARRAY.at(at).rule(ArrayError::AllOnes),
        Code::DISCOVER_DECODER_COUNT
            .at(at)
            .detail(Capability::from_bits(0xd).decoder_count())
            .expected(1)
            .found(Capability::from_bits(0xd).into_bits()),
        Code::DISCOVER_TARGET_COUNT
            .at(at)
            .detail(Capability::from_bits(0x30).target_count())
            .expected(1)
            .found(Capability::from_bits(0x30).into_bits()),
        Code::DISCOVER_DECODERS_PAST_END.at(at).detail(1).found(2),
        Code::DISCOVER_SHARED_REGISTERS.at(at).found(1),
        Code::DISCOVER_HDM_COUNT.at(at).found(3),
        Code::DISCOVER_NO_MEM_LINK.at(at).expected(sbdf(12, 0)).found(0x22),
        timeout(at, active(1), 1, 2),
        Code::DISCOVER_RANGE.at(at).halves(0, 1).rule(RangeError::NotValid),
        Code::DISCOVER_PERSISTENT_FIRST.at(at),
        Code::DISCOVER_DEVICE_REGISTERS.at(at).rule(DeviceArrayError::AllOnes),
        short_payload(at, Opcode::GetPartitionInfo, 1, 0),
        Code::DISCOVER_CAPACITY_TOO_LARGE.at(at).expected(1).found(2),
        Code::DISCOVER_NO_BUS_NUMBERS.at(at).expected(1),
        no_room(at, 1, 1, 3, 4),
        Code::DISCOVER_WINDOW.at(at).rule(cxl_regs::config::WindowError::Above4GiB {
            span: cxl_regs::Span::new(Hpa(1 << 32), 1 << 20).unwrap(),
        }),
        Code::DISCOVER_CAPACITY.error().expected(3),
    ];
    for (code, error) in (0x0202..).zip(errors) {
        assert_eq!(error.code(), code, "{error}");
        let text = error.to_string();
        let place = text.starts_with("bridge 12 function 0000:0d:00.0");
        assert!(place || matches!(code, 0x0202..=0x0204 | 0x0221), "{text}");
        assert!(text.len() > 20 && !text.ends_with('.') && !text.contains('\n'), "{text}");
    }
    let longest = format!("{}", errors[16]);
    assert_eq!(
        longest,
        "bridge 12 function 0000:0d:00.0: the HDM Decoder Capability at 0x1 is 0x0000000d: \
         decoder count code 13 is not allowed here"
    );
}

#[test]
fn reasons_inside_an_error_are_words_too() {
    let place = at(13, 0);
    let unassigned = |what| unassigned(place, what).to_string();
    let broken = |problem| Code::DISCOVER_BAR.at(place).halves(0, 1).rule(problem).to_string();
    let timeout = |waited| timeout(place, waited, 1, 2).to_string();
    let bus = RootBus { segment: 1, bus: 0x2a };
    assert_eq!(bus.to_string(), "bus 0001:2a");
    let cases = [
        (unassigned(BUS_NUMBERS), "no bus numbers"),
        (unassigned(bar(2)), "no address in BAR 2"),
        (unassigned(WINDOWS), "no open memory window"),
        (broken(BarProblem::NoSuchBar), "the function has no such BAR"),
        (broken(BarProblem::UpperHalf), "it is the upper half of a 64-bit BAR"),
        (broken(BarProblem::Io), "it decodes I/O space"),
        (broken(BarProblem::NotThere), "no address bit of it can be written"),
        (timeout(info_valid(1)), "range 1 to have Memory_Info_Valid"),
        (timeout(active(2)), "range 2 to have Memory_Active"),
        (timeout(DEVICE_READY), "mailbox and media to be ready"),
        (timeout(MAILBOX_FREE), "the mailbox doorbell to be clear"),
    ];
    for (text, words) in cases {
        assert!(text.contains(words), "{text}");
    }
}

/// Memory that holds anything anywhere, and is gone after so many reads.
struct Noise {
    seed: u64,
    /// How often a read gives a dword of the small machine instead of noise, in 256ths.
    sane: u8,
    machine: Fake,
    left: u32,
    accesses: u32,
}

impl Noise {
    fn dword(&mut self, address: u64) -> u64 {
        // SplitMix64 over address, seed and time.
        let mut x = self.seed ^ address.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = x.wrapping_add(u64::from(self.accesses / 64) << 40);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

impl Mmio for Noise {
    fn read(&mut self, address: u64) -> u32 {
        assert_eq!(address % 4, 0, "unaligned access at {address:#x}");
        self.accesses += 1;
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            return u32::MAX;
        }
        let noise = self.dword(address);
        let truth = self.machine.read(address);
        if (noise >> 32) as u8 >= self.sane { noise as u32 } else { truth }
    }

    fn write(&mut self, address: u64, value: u32) {
        assert_eq!(address % 4, 0, "unaligned access at {address:#x}");
        self.accesses += 1;
        self.machine.write(address, value);
    }
}

struct Fast(u64);

impl Clock for Fast {
    fn microseconds(&mut self) -> u64 {
        self.0 += 100_000;
        self.0
    }
}

/// Buses: one a node and the guesses. Functions: 256 a bus. Accesses for each: configuration space
/// once for each of two passes, and once more to size BARs.
const NODES: u32 = 8;
const MOST: u32 = (NODES + 4) * 256 * (3 * 1024 + 64) + NODES * (3 * 4096 + 4096 + 512);

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(400)
    })]

    #[test]
    fn hostile_hardware_ends_in_bounded_time_without_a_panic(
        seed: u64,
        sane in prop_oneof![Just(0u8), Just(200), Just(250), Just(255)],
        left in prop_oneof![Just(u32::MAX), 1..2000u32],
        blank: bool,
        resources: bool,
        guess: bool,
    ) {
        let (machine, mut bridges) = switched(blank);
        if guess {
            bridges[0].root = None;
        }
        let given = [fake::resources(12, 0xc000_0000, 0x4000_0000)];
        let resources = if resources { &given[..] } else { &[] };
        let mut hw = Noise { seed, sane, machine, left, accesses: 0 };
        let mut topology = Topology::<{ NODES as usize }>::new();
        let result = discover(&mut hw, &mut Fast(0), &platform(&bridges, resources), &mut topology);
        prop_assert!(hw.accesses <= MOST, "{} accesses", hw.accesses);
        if let Err(error) = result {
            prop_assert!(topology.nodes.is_empty());
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

// --- what is left out, and what is lost -----------------------------------------------------------

/// Places of the devices that are found, and the remarks.
fn searched(hw: &mut Fake, search: Search<'_>) -> (Vec<Vec<u8>>, Vec<String>, u16) {
    let bridges = switched(false).1;
    let mut topology = Topology::<16>::new();
    let result = discover_as(hw, &mut clock(), &platform(&bridges, &[]), search, &mut topology);
    assert_eq!(result, Ok(()));
    let tree = topology.tree();
    let places = tree.devices().map(|(id, _)| tree.path(id).ports().to_vec()).collect();
    let remarks = topology.remarks.list().iter().map(ToString::to_string).collect();
    (places, remarks, topology.remarks.lost())
}

/// Whether anything was read of a function's configuration space beyond its first dwords.
fn touched(hw: &Fake, bus: u8, from: u64) -> bool {
    hw.reads.keys().any(|address| (ecam(bus, 0, from)..ecam(bus, 0, 0x1000)).contains(address))
}

#[test]
fn what_is_left_out_by_place_is_not_touched() {
    // The device behind port 7 of the switch is on bus 15, that behind port 5 on bus 16.
    let (mut hw, _) = switched(false);
    let place = Path::new(12, &[0, 7]).expect("a short path");
    let leave_out = [LeaveOut::At(place)];
    let search = Search { leave_out: &leave_out, ..Search::default() };
    let (places, remarks, lost) = searched(&mut hw, search);
    assert_eq!((places, lost), (vec![vec![0, 5]], 0));
    assert_eq!(
        remarks,
        ["bridge 12 port 0.7: left out, as the policy asks; nothing there was touched"]
    );
    assert!(!touched(&hw, 15, 0) && touched(&hw, 16, 0));

    // All of a bridge: not even its own registers.
    let (mut hw, _) = switched(false);
    let leave_out = [LeaveOut::At(Path::new(12, &[]).expect("a bridge"))];
    let search = Search { leave_out: &leave_out, ..Search::default() };
    let (places, remarks, _) = searched(&mut hw, search);
    assert_eq!((places, remarks.len(), hw.reads.len()), (vec![], 1, 0));
}

#[test]
fn what_is_left_out_is_not_touched_where_all_else_is_assigned() {
    // The device behind port 7 by what it is, or by where; its BAR 0 would be no BAR. Nothing is written to
    // it, and by place nothing is read either; the other one is assigned and found.
    let serial = 0x0123_4567_89ab_cdef;
    let by_identity = LeaveOut::Device { vendor: 0x8086, device: 0x0d93, serial: Some(serial) };
    let by_place = LeaveOut::At(Path::new(12, &[0, 7]).expect("a short path"));
    for (leave_out, read) in [(by_identity, true), (by_place, false)] {
        let (mut hw, bridges) = switched(true);
        let config = &mut hw.functions[4].config;
        put(config, 0x200, &[0x0001_0003, 0x89ab_cdef, 0x0123_4567]);
        put(config, 0x160, &[0x2001_0023]);
        config.get_mut(&0x10).unwrap().rw = 0xf0ff_0000;
        let before = config[&0x10].value;
        let leave_out = [leave_out];
        let search = Search { leave_out: &leave_out, ..Search::default() };
        let resources = [resources(12, 0xc000_0000, 0x1000_0000)];
        let platform = platform(&bridges, &resources);
        let mut topology = Topology::<16>::new();
        assert_eq!(discover_as(&mut hw, &mut clock(), &platform, search, &mut topology), Ok(()));
        let places: Vec<_> =
            topology.tree().devices().map(|(id, _)| topology.tree().path(id)).collect();
        assert_eq!(places, [Path::new(12, &[0, 5]).expect("a short path")]);
        let remarks: Vec<_> = topology.remarks.list().iter().map(|remark| remark.code).collect();
        assert_eq!((remarks, topology.remarks.lost()), (vec![Code::DISCOVER_LEFT_OUT], 0));
        // Port 7 is the first on its bus: bus 15 is behind it, or, where it gets none, behind port 5.
        let on = |bus: u8, address: &u64| (ecam(bus, 0, 0)..ecam(bus + 1, 0, 0)).contains(address);
        let written = |bus| hw.writes.iter().any(|(address, _)| on(bus, address));
        assert_eq!([written(15), written(16)], [!read, read]);
        assert_eq!(hw.reads.keys().any(|address| on(16, address)), read);
        assert_eq!(hw.functions[4].config[&0x10].value, before);
    }
}

#[test]
fn what_is_left_out_by_identity_is_read_for_it_alone() {
    // A serial number in front of the DVSECs of the device behind port 7.
    let (mut hw, _) = switched(false);
    let serial = |hw: &mut Fake| {
        put(&mut hw.functions[4].config, 0x200, &[0x0001_0003, 0x89ab_cdef, 0x0123_4567]);
        put(&mut hw.functions[4].config, 0x160, &[0x2001_0023]);
    };
    serial(&mut hw);
    let named = |serial| [LeaveOut::Device { vendor: 0x8086, device: 0x0d93, serial }];
    fn search(leave_out: &[LeaveOut]) -> Search<'_> {
        Search { leave_out, ..Search::default() }
    }
    let (places, remarks, lost) = searched(&mut hw, search(&named(Some(0x0123_4567_89ab_cdef))));
    assert_eq!((places, remarks.len(), lost), (vec![vec![0, 5]], 1, 0));
    assert!(
        hw.writes.iter().all(|(address, _)| !(ecam(15, 0, 0)..ecam(16, 0, 0)).contains(address))
    );

    // Another serial number is another device; without one it is every device of the kind.
    let (mut hw, _) = switched(false);
    serial(&mut hw);
    assert_eq!(searched(&mut hw, search(&named(Some(1)))).0.len(), 2);
    let (mut hw, _) = switched(false);
    assert_eq!(searched(&mut hw, search(&named(None))).0.len(), 0);
}

#[test]
fn what_makes_no_sense_costs_itself_where_that_is_allowed() {
    // The register locator of the device behind port 7 has a bad entry.
    let broken = |hw: &mut Fake| {
        hw.functions[4].config.insert(0x148, ro(0x0000_0107));
    };
    let (mut hw, bridges) = switched(false);
    broken(&mut hw);
    let refusal = error(&mut hw, &bridges).to_string();

    let (mut hw, _) = switched(false);
    broken(&mut hw);
    let search = Search { on_failure: OnFailure::BestEffort, ..Search::default() };
    let (places, remarks, lost) = searched(&mut hw, search);
    assert_eq!((places, remarks, lost), (vec![vec![0, 5]], vec![refusal], 1));
}
