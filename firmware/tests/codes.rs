//! Every error and finding that the library defines, provoked once.
//!
//! **Invariant**: no error is made here. Each number comes out of the library's own functions, from
//! a board, registers or bytes that deserve it; and what was provoked is held against the numbers
//! that the table defines, so that a row nobody can reach does not stay.

#[allow(dead_code, reason = "discovery tests use all of it")]
mod fake;

mod board;
mod scripted;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use board::{Board, GIB, MIB, UNIT, bi, capable, members, path, request};
use cxl_firmware::acpi::{Tables, find_table};
use cxl_firmware::bring_up::{Extent, Workspace, bring_up};
use cxl_firmware::commit::commit;
use cxl_firmware::committed::{Committed, CommittedDecoder, CommittedRegion, Fate};
use cxl_firmware::discover::{Search, discover, discover_as};
use cxl_firmware::error::Code;
use cxl_firmware::handoff;
use cxl_firmware::list::{Empty, Slots};
use cxl_firmware::mmio::Mmio;
use cxl_firmware::outcome::ComponentOutcome;
use cxl_firmware::plan::{Note, Plan, plan};
use cxl_firmware::platform::{Bridge, BridgeKind, Ecam, Platform, Resources, Restrictions, Window};
use cxl_firmware::policy::{
    EarlierRange, LeaveOut, OnFailure, PathPolicy, Policy, Probe, Request, Reserve, SetRequest,
    TargetSystem, Width, WindowWidth,
};
use cxl_firmware::probe::{ProbeErrors, probe};
use cxl_firmware::restore::{Pci, restore};
use cxl_firmware::tables::{cedt, cross_check, cross_check_hardware};
use cxl_firmware::topology::{DeviceKind, NodeId, NodeKind, Partition, Topology};
use cxl_firmware::verify::{Findings, verify, verify_plan};
use cxl_firmware::windows;
use cxl_regs::acpi::Identity;
use cxl_regs::hdm::{Control, DecoderImage};
use cxl_regs::{Arithmetic, Granularity, Hpa, Interleave, Span, Ways};
use scripted::{Machine, OnCommit};

/// The rows of the table with numbers in a range, and their names.
fn defined(numbers: RangeInclusive<u16>) -> Vec<(u16, &'static str)> {
    let codes = Code::ALL.iter().filter(|code| numbers.contains(&code.number()));
    codes.map(|code| (code.number(), code.name().expect("a row has a name"))).collect()
}

/// Holds what was provoked against what is defined.
fn complete(defined: Vec<(u16, &str)>, provoked: impl IntoIterator<Item = u16>) {
    let mut provoked: BTreeSet<u16> = provoked.into_iter().collect();
    let nobody: Vec<_> =
        defined.iter().filter(|(code, _)| !provoked.remove(code)).map(|(_, name)| name).collect();
    assert!(nobody.is_empty(), "nobody provokes {nobody:?}");
    assert!(provoked.is_empty(), "not defined: {provoked:x?}");
}

/// The number of an error, which is a sentence in one line.
fn number(code: u16, error: &impl std::fmt::Display) -> u16 {
    let text = error.to_string();
    let sentence = text.len() > 20 && !text.contains('\n') && !text.ends_with(['.', ' ']);
    assert!(sentence, "{code:#06x}: {text:?}");
    code
}

// --- platform ----------------------------------------------------------------------------------

/// Makes a table's bytes sum to 0 through the one at `place`.
fn mend(bytes: &mut [u8], place: usize) {
    bytes[place] = 0;
    bytes[place] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
}

fn acpi_table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    bytes.extend((36 + body.len() as u32).to_le_bytes());
    bytes.extend([1, 0]);
    bytes.extend(*b"OEMID OEMTABLE\x01\0\0\0TEST\x01\0\0\0");
    bytes.extend(body);
    mend(&mut bytes, 9);
    bytes
}

/// One allocation: segment 0, these buses, at 0xB000_0000.
fn mcfg(first: u8, last: u8) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend([0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 0, first, last, 0, 0, 0, 0]);
    acpi_table(b"MCFG", &body)
}

/// A CEDT with a bridge of each of these UIDs.
fn chbs(uids: &[u8]) -> Vec<u8> {
    let mut body = vec![];
    for uid in uids {
        body.extend([0, 0, 0x20, 0, *uid, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        body.extend((u64::from(*uid) << 16).to_le_bytes());
        body.extend(0x1_0000u64.to_le_bytes());
    }
    acpi_table(b"CEDT", &body)
}

#[test]
fn every_platform_error() {
    let (good_mcfg, good_cedt) = (mcfg(0, 255), chbs(&[12]));
    let read = |mcfg: &[u8], cedt: &[u8]| Tables::<2, 2>::from_acpi(mcfg, cedt, 46, &[]);
    let torn = |mut bytes: Vec<u8>| {
        bytes[9] ^= 1;
        bytes
    };
    let mut provoked = vec![
        read(&torn(good_mcfg.clone()), &good_cedt),
        read(&mcfg(9, 3), &good_cedt),
        read(&good_mcfg, &torn(good_cedt.clone())),
        read(&good_mcfg, &chbs(&[12, 12])),
        read(&good_mcfg, &chbs(&[12, 13, 14])),
    ]
    .into_iter()
    .map(|result| result.expect_err("a broken table"))
    .map(|error| number(error.code(), &error))
    .collect::<Vec<_>>();
    assert_eq!(provoked, [0x0105, 0x0106, 0x0107, 0x0108, 0x0109]);

    // An RSDP of revision 0 at 0x1000, an RSDT at 0x2000, a CEDT at 0x3000.
    let mut rsdp = b"RSD PTR \0OEMID \0\x00\x20\0\0".to_vec();
    mend(&mut rsdp, 8);
    let rsdt = acpi_table(b"RSDT", &0x3000u32.to_le_bytes());
    let mut find = |rsdp_at, signature, cedt: &[u8], room: usize| {
        let memory = [(0x1000, &rsdp[..]), (0x2000, &rsdt), (0x3000, cedt)];
        let mut reader = |address: u64, into: &mut [u8]| {
            for (at, byte) in (address..).zip(into) {
                let part = memory.iter().find_map(|(base, bytes)| {
                    bytes.get(usize::try_from(at.checked_sub(*base)?).ok()?)
                });
                *byte = part.copied().unwrap_or(0xFF);
            }
        };
        let mut buffer = vec![0xA5; room];
        let found = find_table(&mut reader, rsdp_at, signature, &mut buffer);
        let error = found.map(|_| ()).expect_err("no such table");
        let code = number(error.code(), &error);
        provoked.push(code);
        code
    };
    assert_eq!(find(0x5000, *b"CEDT", &good_cedt, 128), 0x0101);
    assert_eq!(find(0x1000, *b"CEDT", &torn(good_cedt.clone()), 128), 0x0102);
    assert_eq!(find(0x1000, *b"HPET", &good_cedt, 128), 0x0103);
    assert_eq!(find(0x1000, *b"CEDT", &good_cedt, 60), 0x0104);
    complete(defined(0x0100..=0x01FF), provoked);
}

// --- discovery ---------------------------------------------------------------------------------

/// What discovery is given beside the hardware.
struct Given {
    bridges: Vec<Bridge>,
    resources: Vec<Resources>,
    last_bus: u8,
}

type Fault = fn(&mut fake::Fake, &mut Given);

fn discovered<const N: usize>(hw: &mut fake::Fake, given: &Given) -> Option<u16> {
    let ecam = [Ecam { last_bus: given.last_bus, ..fake::ALL_BUSES[0] }];
    let platform = fake::platform(&given.bridges, &given.resources);
    let platform = Platform { ecam: &ecam, ..platform };
    let mut topology = Topology::<N>::new();
    discover(hw, &mut fake::clock(), &platform, &mut topology)
        .err()
        .map(|error| number(error.code(), &error))
}

/// A device's register block with a mailbox whose doorbell stays clear; no command gets an answer.
fn device_registers() -> fake::Registers {
    let mut block = fake::Registers::new();
    fake::put(&mut block, 0x00, &[0x0101_0000, 3, 0, 0]);
    fake::put(&mut block, 0x10, &[0x0001_0001, 0x80, 0x8, 0]);
    fake::put(&mut block, 0x20, &[0x0001_0002, 0x100, 0x220, 0]);
    fake::put(&mut block, 0x30, &[0x0001_4000, 0x400, 0x8, 0]);
    fake::put(&mut block, 0x100, &[0x0000_0009, 0, 0, 0]);
    fake::put(&mut block, 0x110, &[0; 24]);
    fake::put(&mut block, 0x400, &[0x14]);
    block
}

/// Sets a dword of the device's configuration space; of the root port's.
fn device(hw: &mut fake::Fake, offset: u64, value: u32) {
    fake::put(&mut hw.functions[1].config, offset, &[value]);
}

fn root(hw: &mut fake::Fake, offset: u64, value: u32) {
    fake::put(&mut hw.functions[0].config, offset, &[value]);
}

/// The same machine with nothing assigned, a switch in it, and room to assign.
fn blank(hw: &mut fake::Fake, given: &mut Given, base: u64) {
    let (machine, bridges) = fake::switched(true);
    *hw = machine;
    given.bridges = bridges.to_vec();
    given.resources = vec![fake::resources(12, base, 0x1000_0000)];
}

/// A root port above a chain of switches that passes the depth of a path.
fn chain(hw: &mut fake::Fake) {
    *hw = fake::switched(false).0;
    hw.functions.truncate(1);
    root(hw, 0x18, 0x0050_0d0c);
    root(hw, 0x20, 0xfff0_0010);
    for depth in 0u8..17 {
        let (primary, above) = (13 + depth, usize::from(depth));
        let bar = 0x0100_0000 + (u64::from(depth) << 20);
        let (secondary, subordinate, window) = (primary + 1, 80, (1, 0xfff));
        let assigned = fake::Assigned { primary, secondary, subordinate, bar, window };
        hw.functions.push(match depth % 2 {
            0 => fake::upstream_port(above, assigned),
            _ => fake::downstream_port(above, 0, 1, assigned),
        });
    }
}

#[test]
fn every_discovery_error() {
    let cases: [(u16, Fault); 33] = [
        (0x0202, |_, given| given.bridges.push(given.bridges[0])),
        (0x0203, |_, given| given.bridges.push(fake::bridge(13, Some(12), 1))),
        (0x0204, |_, given| (given.bridges[0].root, given.bridges[0].uid) = (None, 300)),
        (0x0205, |_, given| given.last_bus = 11),
        // The port leads to its own bus; upwards; out of the region.
        (0x0206, |hw, _| root(hw, 0x18, 0x000d_0c0c)),
        (0x0207, |hw, _| root(hw, 0x18, 0x000d_0b0c)),
        (0x0208, |hw, _| chain(hw)),
        (0x0209, |hw, _| root(hw, 0x18, 0)),
        // Capabilities in a loop: conventional ones, extended ones.
        (0x020A, |hw, _| device(hw, 0x80, 0x0002_8005)),
        (0x020B, |hw, _| root(hw, 0x180, 0x1481_0023)),
        (0x020C, |hw, _| device(hw, 0x104, 0x0343_1e98)),
        (0x020D, |hw, _| device(hw, 0x148, 0x0000_0107)),
        (0x020E, |hw, _| device(hw, 0x148, 0x0000_0101)),
        (0x020F, |hw, _| device(hw, 0x148, 0x0080_0100)),
        (0x0210, |hw, _| device(hw, 0x10, 0xfea0_0004)),
        (0x0211, |hw, _| hw.fixed.clear()),
        (0x0212, |hw, _| fake::put(&mut hw.fixed, fake::BRIDGE + 0x1128, &[0x38d])),
        (0x0213, |hw, _| fake::put(&mut hw.fixed, fake::BRIDGE + 0x1128, &[0x332])),
        (0x0214, |hw, _| {
            fake::put(&mut hw.functions[1].blocks[0].2, 0x100c, &[0xf801_0005]);
            fake::put(&mut hw.functions[1].blocks[0].2, 0x1f80, &[0x1b12]);
        }),
        (0x0215, |hw, _| {
            let mut twin = fake::endpoint(0, 0xfe80_0000, None);
            twin.devfn = 1;
            device(hw, 0x0c, 0x0080_0000);
            hw.functions.push(twin);
        }),
        (0x0216, |hw, _| device(hw, 0x108, 0x003e_0000)),
        (0x0217, |hw, _| device(hw, 0x16c, 0x0022_0002)),
        (0x0218, |hw, _| device(hw, 0x11c, 0x1000_0048)),
        (0x0219, |hw, _| device(hw, 0x11c, 0x1000_005f)),
        (0x021A, |hw, _| {
            device(hw, 0x11c, 0x1000_0007);
            device(hw, 0x12c, 0x1000_0003);
        }),
        (0x021B, |hw, _| {
            let registers = fake::Registers::from([(0x00, fake::ro(u32::MAX))]);
            hw.functions[1] = fake::endpoint(0, 0xfe80_0000, Some(registers));
        }),
        // Identify Memory Device ends at once, with an output of nothing.
        (0x021C, |hw, _| {
            hw.functions[1] = fake::endpoint(0, 0xfe80_0000, Some(device_registers()));
        }),
        (0x021D, |hw, _| {
            device(hw, 0x118, 0x8000_0000);
            device(hw, 0x128, 0x8000_0000);
            device(hw, 0x12c, 0x4b);
        }),
        // Bus 15 belongs to another bridge.
        (0x021E, |hw, given| {
            blank(hw, given, 0xc000_0000);
            hw.fixed.append(&mut fake::bridge_registers(fake::BRIDGE + 0x1_0000));
            given.bridges.push(fake::bridge(15, Some(15), 1));
        }),
        (0x021F, |hw, given| {
            blank(hw, given, 0xc000_0000);
            let base = given.resources[0].span.base().0;
            given.resources = vec![fake::resources(12, base, 0x10_0000)];
        }),
        (0x0222, |hw, _| device(hw, 0x0c, u32::MAX)),
        // Identify Memory Device ends at once with the length it should have, and says nothing.
        (0x0223, |hw, _| {
            let mut registers = device_registers();
            fake::put(&mut registers, 0x108, &[0x0043_4000]);
            fake::put(&mut registers, 0x120, &[0; 20]);
            hw.functions[1] = fake::endpoint(0, 0xfe80_0000, Some(registers));
        }),
        // A window of 32 bits for what lies above them.
        (0x0220, |hw, given| {
            blank(hw, given, 0x38_0000_0000);
            hw.functions[2].config.get_mut(&0x24).expect("the upper half").value = 0;
        }),
    ];
    let mut provoked = vec![];
    for (expected, fault) in cases {
        let (mut hw, bridges) = fake::small();
        let mut given = Given { bridges: bridges.to_vec(), resources: vec![], last_bus: 255 };
        assert_eq!(discovered::<32>(&mut hw, &given), None, "the machine is sound");
        (hw, _) = fake::small();
        fault(&mut hw, &mut given);
        assert_eq!(discovered::<32>(&mut hw, &given), Some(expected), "{expected:#06x}");
        provoked.push(expected);
    }
    let (mut hw, bridges) = fake::small();
    let given = Given { bridges: bridges.to_vec(), resources: vec![], last_bus: 255 };
    provoked.extend(discovered::<2>(&mut hw, &given));
    let required = [path(12, &[9])];
    let policy =
        Policy { on_failure: OnFailure::BestEffort, required: &required, ..Policy::default() };
    let (mut hw, bridges) = fake::small();
    let platform = fake::platform(&bridges, &[]);
    let mut work = Workspace::<8, 4, 8>::new();
    let error = bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
    provoked.extend(error.err().map(|error| number(error.code(), &error)));
    complete(defined(0x0200..=0x027F), provoked);
}

#[test]
fn every_remark() {
    let cases: [(u16, Fault); 11] = [
        (0x0280, |hw, _| device(hw, 0x108, 0x0003_0000)),
        (0x0281, |hw, _| root(hw, 0x100, 0x0001_0001)),
        // The list of the device's DVSECs begins with its register locator.
        (0x0282, |hw, _| device(hw, 0x100, 0x13c1_0001)),
        (0x0283, |hw, _| device(hw, 0x80, 0x0092_0010)),
        (0x0284, |hw, _| device(hw, 0x100, 0)),
        (0x0285, |hw, _| device(hw, 0x12c, 0x1000_0049)),
        // 1 unit of 2 in all is volatile.
        (0x0286, |hw, _| {
            let mut registers = device_registers();
            fake::put(&mut registers, 0x108, &[0x0043_4000]);
            fake::put(&mut registers, 0x120, &[0; 20]);
            fake::put(&mut registers, 0x130, &[2]);
            fake::put(&mut registers, 0x138, &[1]);
            hw.functions[1] = fake::endpoint(0, 0xfe80_0000, Some(registers));
        }),
        (0x0287, |hw, _| hw.functions.clear()),
        // An RCRB with Memory Space on and a 64-bit BAR at 0x1_fed0_0000; then one without.
        (0x0289, |hw, given| {
            given.bridges[0].kind = BridgeKind::Rcrb;
            fake::put(&mut hw.fixed, fake::BRIDGE, &[0x7075_8086, 2, 0, 0, 0xfed0_0004, 1]);
        }),
        (0x028A, |_, given| given.bridges[0].kind = BridgeKind::Rcrb),
        // Identify Memory Device ends at once, unsupported.
        (0x028B, |hw, _| {
            let mut registers = device_registers();
            fake::put(&mut registers, 0x114, &[0x15]);
            hw.functions[1] = fake::endpoint(0, 0xfe80_0000, Some(registers));
        }),
    ];
    let remarked = |hw: &mut fake::Fake, given: &Given| {
        let platform = fake::platform(&given.bridges, &given.resources);
        let mut topology = Topology::<32>::new();
        assert_eq!(discover(hw, &mut fake::clock(), &platform, &mut topology), Ok(()));
        let remarks = topology.remarks.list().iter();
        remarks.map(|remark| number(remark.code(), remark)).collect::<Vec<_>>()
    };
    let mut provoked = vec![];
    for (expected, fault) in cases {
        let (mut hw, bridges) = fake::small();
        let mut given = Given { bridges: bridges.to_vec(), resources: vec![], last_bus: 255 };
        assert!(remarked(&mut hw, &given).is_empty(), "the machine is sound");
        (hw, _) = fake::small();
        fault(&mut hw, &mut given);
        let found = remarked(&mut hw, &given);
        assert!(found.contains(&expected), "{expected:#06x}: {found:x?}");
        provoked.extend(found);
    }
    let (mut hw, bridges) = fake::small();
    let search = Search { leave_out: &[LeaveOut::At(path(12, &[3]))], ..Search::default() };
    let mut topology = Topology::<32>::new();
    let platform = fake::platform(&bridges, &[]);
    assert_eq!(discover_as(&mut hw, &mut fake::clock(), &platform, search, &mut topology), Ok(()));
    provoked.extend(topology.remarks.list().iter().map(|remark| number(remark.code(), remark)));
    let mut board = plain();
    board.windows[0].targets = [99].into_iter().collect();
    // Maps of a granularity that there is none of, beside the bridge.
    let mut records = chbs(&[12])[36..].to_vec();
    records.extend([2, 0, 0x10, 0, 0, 0, 7, 1, 0, 1, 1, 0, 0, 0, 0, 0]);
    let cedt = acpi_table(b"CEDT", &records);
    let tables = Tables::<2, 2>::from_acpi_in_part(&mcfg(0, 255), &cedt, 46, &[]);
    let tables = tables.expect("it is read in part");
    let unreadable = &tables.unreadable;
    let platform = Platform { windows: &board.windows, unreadable, ..platform };
    let search = Search { on_failure: OnFailure::BestEffort, ..Search::default() };
    assert_eq!(discover_as(&mut hw, &mut fake::clock(), &platform, search, &mut topology), Ok(()));
    provoked.extend(topology.remarks.list().iter().map(|remark| number(remark.code(), remark)));
    complete(defined(0x0280..=0x028F), provoked);
}

// --- plan --------------------------------------------------------------------------------------

const WINDOW: u64 = 0x1_0000_0000;
const OTHER: u64 = 0x8_0000_0000;

/// What is asked of the plan.
#[derive(Default)]
struct Ask {
    policy: Policy<'static>,
    requests: Vec<Request>,
    sets: Vec<SetRequest>,
    widths: Vec<WindowWidth>,
    reserve: Vec<Reserve>,
    occupied: Vec<Span>,
}

fn planned<const R: usize, const D: usize>(board: &Board, ask: &Ask) -> Option<u16> {
    let Ask { requests, sets, widths, reserve, .. } = ask;
    let policy = Policy { requests, sets, windows: widths, reserve, ..ask.policy };
    let platform = Platform { occupied: &ask.occupied, ..board.platform() };
    plan(&platform, board.topology().tree(), &policy, &mut Plan::<16, R, D>::new())
        .err()
        .map(|error| number(error.code(), &error))
}

/// Bridge 7 with 1 GiB of volatile memory at port 0 and a window of 4 GiB: nodes 0, 1 and 2.
fn plain() -> Board {
    let mut board = Board::new();
    board.bridge_with_memory(7, GIB);
    board.window(WINDOW, 4 * GIB, &[7]);
    board
}

const DEVICE_NODE: NodeId = NodeId(2);

/// A window over bridges with so many ports each, a device behind each port, instead of [`plain`].
fn set(board: &mut Board, bridges: u32, ports: u8, granularity: Granularity) {
    *board = Board::new();
    for uid in 0..bridges {
        let bridge = board.bridge(uid);
        for number in 0..ports {
            let port = board.root_port(bridge, number);
            board.memory(port, UNIT, 0);
        }
    }
    let targets: Vec<u32> = (0..bridges).collect();
    board.window(WINDOW, 64 * UNIT, &targets).interleave.granularity = granularity;
}

fn exactly(ask: &mut Ask, ways: Ways, granularity: Granularity) {
    ask.policy.width = Width::Exactly(Interleave::new(ways, granularity));
}

fn to_guest(board: &mut Board, ask: &mut Ask) {
    ask.policy.path = PathPolicy::GuestPrograms;
    board.node(NodeId(0)).hdm = None;
}

fn asks(ask: &mut Ask) -> &mut Request {
    ask.requests.push(request(path(7, &[0])));
    ask.requests.last_mut().expect("just pushed")
}

/// Room for a device behind a port.
fn room(port: u8) -> Reserve {
    Reserve { at: path(7, &[port]), partition: Partition::Volatile, size: GIB }
}

/// An empty port, and room for it.
fn keeps_room(board: &mut Board, ask: &mut Ask) {
    board.root_port(NodeId(0), 1);
    ask.reserve.push(room(1));
}

#[test]
fn every_plan_error() {
    type Change = fn(&mut Board, &mut Ask);
    let cases: [(u16, Change); 52] = [
        (0x0301, |board, _| board.windows.clear()),
        (0x0302, |board, _| {
            board.window(OTHER, GIB, &[99]);
        }),
        (0x0303, |board, _| {
            board.window(OTHER, GIB, &[7]);
        }),
        (0x0304, |board, _| set(board, 2, 1, Granularity::B256)),
        (0x0305, |board, _| board.windows[0].base = None),
        (0x0306, |board, _| board.address_bits = 32),
        (0x0307, |board, _| {
            board.window(WINDOW + GIB, GIB, &[7]);
        }),
        (0x0308, |board, _| board.windows[0].size = 512 * MIB),
        (0x0309, |board, _| {
            let port = board.root_port(NodeId(0), 1);
            board.memory(port, GIB, 0);
            board.windows[0].size = GIB + UNIT;
        }),
        (0x030A, |board, _| board.windows[0].restrictions.set_volatile(false)),
        (0x030B, |board, _| board.windows[0].restrictions.set_host_only(false)),
        (0x030C, |board, _| {
            board.device(DEVICE_NODE).persistent = GIB;
            board.node(DEVICE_NODE).hdm = capable(1);
        }),
        (0x030D, |board, _| board.node(DEVICE_NODE).hdm = None),
        (0x030E, |board, _| {
            board.device(DEVICE_NODE).persistent = GIB;
            board.windows[0].restrictions.set_volatile(false);
            board.window(OTHER, GIB, &[7]).restrictions.set_persistent(false);
        }),
        (0x030F, |board, _| {
            board.root_port(NodeId(0), 0);
        }),
        // An accelerator with a BI decoder, below a port without.
        (0x0310, |board, _| {
            board.device(DEVICE_NODE).kind = DeviceKind::Type2;
            board.node(DEVICE_NODE).back_invalidate = bi(false);
        }),
        (0x0311, |_, ask| asks(ask).device = path(7, &[1])),
        (0x0312, |_, ask| asks(ask).window = Some(Hpa(OTHER))),
        (0x0313, |_, ask| asks(ask).size = Some(2 * GIB)),
        (0x0314, |_, ask| asks(ask).size = Some(UNIT + MIB)),
        (0x0315, |_, ask| asks(ask).offset = Some(4 * GIB)),
        (0x0316, |board, ask| {
            to_guest(board, ask);
            board.root_port(NodeId(0), 1);
        }),
        (0x0317, |board, ask| {
            to_guest(board, ask);
            board.nodes.truncate(2);
            let switch = board.switch(NodeId(1));
            let port = board.downstream_port(switch, 0);
            board.memory(port, GIB, 0);
        }),
        (0x0318, |board, ask| {
            to_guest(board, ask);
            board.node(NodeId(0)).hdm = capable(4);
        }),
        (0x0319, |_, ask| ask.policy.burn_spares = true),
        (0x031A, |_, ask| {
            ask.policy.burn_spares = true;
            ask.policy.path = PathPolicy::Unlocked;
            ask.policy.target = TargetSystem::Specification;
        }),
        // 4 ways at 16 KiB would select on HPA bit 15.
        (0x031B, |_, ask| exactly(ask, Ways::Four, Granularity::K16)),
        (0x031C, |board, _| {
            set(board, 2, 1, Granularity::B256);
            board.windows[0].arithmetic = Arithmetic::Xor;
        }),
        // The persistent part starts off the grid, so no skip leads there.
        (0x031D, |board, ask| {
            board.device(DEVICE_NODE).volatile = GIB + MIB;
            board.device(DEVICE_NODE).persistent = GIB;
            asks(ask).partition = Partition::Persistent;
        }),
        (0x031F, |board, _| {
            board.bridge(8);
            board.windows[0].targets.push(8).expect("room for 16");
        }),
        (0x0320, |board, _| {
            board.window(OTHER, GIB, &[7, 7]);
        }),
        (0x0321, |board, _| {
            board.bridge(7);
        }),
        (0x0322, |board, _| {
            board.memory(NodeId(1), GIB, 0);
        }),
        (0x0323, |board, _| board.node(NodeId(1)).parent = None),
        (0x0324, |board, _| board.device(DEVICE_NODE).persistent = u64::MAX - GIB + 1),
        (0x0325, |board, ask| {
            to_guest(board, ask);
            asks(ask);
        }),
        (0x0326, |board, ask| {
            set(board, 2, 1, Granularity::B256);
            exactly(ask, Ways::Three, Granularity::B256);
        }),
        (0x0327, |board, ask| {
            set(board, 2, 1, Granularity::B256);
            exactly(ask, Ways::Two, Granularity::K4);
        }),
        (0x0328, |_, ask| exactly(ask, Ways::Two, Granularity::B256)),
        (0x0329, |board, ask| {
            set(board, 2, 1, Granularity::K16);
            exactly(ask, Ways::Two, Granularity::K16);
        }),
        (0x032A, |board, ask| {
            set(board, 3, 2, Granularity::B256);
            exactly(ask, Ways::Six, Granularity::B256);
        }),
        (0x032B, |_, ask| {
            ask.widths.push(WindowWidth { window: Hpa(OTHER), width: Width::Flat });
        }),
        (0x032C, |_, ask| {
            ask.widths = vec![WindowWidth { window: Hpa(WINDOW), width: Width::Flat }; 2];
        }),
        (0x032D, |board, ask| {
            to_guest(board, ask);
            ask.policy.width = Width::Widest;
        }),
        (0x0330, |_, ask| {
            ask.occupied.push(Span::new(Hpa(WINDOW + GIB), MIB).expect("a range"));
        }),
        // A second device below a bridge that no window with the first one's has; three in one window.
        (0x0331, |board, ask| {
            let other = board.bridge(9);
            let port = board.root_port(other, 0);
            board.memory(port, UNIT, 0);
            ask.sets.push(members(&[path(7, &[0]), path(9, &[0])]));
        }),
        // Two shares of 256 MiB in a window at 0 of one and a half.
        (0x0333, |board, ask| {
            let other = board.bridge_with_memory(9, UNIT);
            board.device(other).volatile = GIB;
            let window = board.window(0, 3 * UNIT, &[7, 9]);
            (window.base, window.interleave.ways) = (Some(Hpa(0)), Ways::Two);
            ask.occupied.push(Span::new(Hpa(64 * GIB), GIB).expect("a range"));
            let size = Some(4 * UNIT);
            let low = SetRequest { size, ..members(&[path(7, &[0]), path(9, &[0])]) };
            ask.sets.push(low);
        }),
        (0x0332, |_, ask| ask.sets.push(members(&[path(7, &[0]); 3]))),
        // What is there lies in the upper window, and only the lower one has room.
        (0x0334, |board, ask| {
            keeps_room(board, ask);
            board.windows[0].size = GIB;
            board.window(OTHER, GIB, &[7]);
            asks(ask).window = Some(Hpa(OTHER));
        }),
        (0x0335, |board, ask| {
            keeps_room(board, ask);
            board.nodes.pop();
        }),
        (0x0336, |board, ask| {
            keeps_room(board, ask);
            ask.policy.burn_spares = true;
            ask.policy.target = TargetSystem::Specification;
        }),
        // Each of two ports has room, in two windows.
        (0x0337, |board, ask| {
            keeps_room(board, ask);
            board.root_port(NodeId(0), 2);
            board.windows[0].size = 2 * GIB;
            board.window(OTHER, GIB, &[7]);
            asks(ask).window = Some(Hpa(WINDOW));
            ask.reserve.push(room(2));
        }),
    ];
    assert_eq!(planned::<4, 16>(&plain(), &Ask::default()), None, "the board is sound");
    let mut provoked = vec![];
    for (expected, change) in cases {
        let (mut board, mut ask) = (plain(), Ask::default());
        change(&mut board, &mut ask);
        assert_eq!(planned::<8, 32>(&board, &ask), Some(expected), "{expected:#06x}");
        provoked.push(expected);
    }
    let (mut board, mut ask) = (plain(), Ask::default());
    ask.policy.on_failure = OnFailure::BestEffort;
    board.windows[0].targets.push(99).expect("room for 16");
    provoked.extend(planned::<8, 32>(&board, &ask));
    provoked.extend(planned::<0, 16>(&plain(), &Ask::default()));
    let (board, small) = (plain(), Span::new(Hpa(0), GIB / 2).expect("a range"));
    let sizing = windows::Sizing { free: &[small], across: None };
    let mut sized = heapless::Vec::<Window, 4>::new();
    let error = windows::place(&board.platform(), board.topology().tree(), &sizing, &mut sized);
    provoked.extend(error.err().map(|error| number(error.code(), &error)));
    complete(defined(0x0300..=0x037F), provoked);
}

#[test]
fn every_note() {
    type Change = fn(&mut Board, &mut Ask);
    let cases: [(u16, Change); 14] = [
        (0x0380, |board, _| board.node(NodeId(0)).hdm = None),
        (0x0381, |_, ask| asks(ask).size = Some(UNIT)),
        (0x0382, to_guest),
        (0x0383, |board, _| board.device(DEVICE_NODE).volatile = 0),
        // An accelerator with a BI decoder: below a port without, in a window without.
        (0x0384, |board, _| {
            board.device(DEVICE_NODE).kind = DeviceKind::Type2;
            board.node(DEVICE_NODE).back_invalidate = bi(true);
        }),
        (0x0385, |board, _| {
            board.device(DEVICE_NODE).kind = DeviceKind::Type2;
            board.node(DEVICE_NODE).back_invalidate = bi(true);
            board.node(NodeId(1)).back_invalidate = bi(false);
        }),
        (0x0386, |_, ask| {
            ask.policy.earlier = const { &[EarlierRange::EMPTY] };
        }),
        (0x0387, |_, ask| ask.policy.path = PathPolicy::Describe),
        (0x0388, |_, ask| {
            ask.policy.on_failure = OnFailure::BestEffort;
            ask.requests.push(request(path(7, &[9])));
        }),
        (0x0389, |board, _| {
            let small = board.window(64 * GIB, UNIT, &[7, 9]);
            small.interleave.ways = Ways::Two;
            board.bridge(9);
        }),
        (0x038A, keeps_room),
        (0x038B, |_, ask| {
            ask.policy.on_failure = OnFailure::BestEffort;
            ask.reserve.push(room(1));
        }),
        (0x038C, |_, ask| ask.reserve.push(room(0))),
        (0x038D, |_, ask| {
            ask.policy.on_failure = OnFailure::BestEffort;
            let window = Some(Hpa(GIB));
            ask.sets.push(SetRequest { window, ..members(&[path(7, &[0])]) });
        }),
    ];
    let mut provoked = vec![];
    for (expected, change) in cases {
        let (mut board, mut ask) = (plain(), Ask::default());
        change(&mut board, &mut ask);
        let Ask { requests, sets, reserve, .. } = &ask;
        let policy = Policy { requests, sets, reserve, ..ask.policy };
        let (topology, mut made) = (board.topology(), Plan::<16, 4, 16>::new());
        assert_eq!(plan(&board.platform(), topology.tree(), &policy, &mut made), Ok(()));
        let notes = made.notes.iter();
        let notes: Vec<u16> =
            notes.map(|note| number(note.code(), &note.text(topology.tree()))).collect();
        assert_eq!(notes, [expected]);
        provoked.extend(notes);
    }
    complete(Note::CODES.to_vec(), provoked);
}

// --- commit ------------------------------------------------------------------------------------

/// Decoder 0 of the only device of `scripted::simple`, of its bridge; the device's DVSEC.
const DEVICE: u64 = 0x2000_0010;
const BRIDGE: u64 = 0x1000_1010;
const DVSEC: u64 = 0x2001_0000;

/// Makes a sound machine; changes it.
type Build = fn() -> Machine;
type Change = fn(&mut Machine);

fn committed(m: &mut Machine, plan: &Plan<16, 8, 16>) -> (Option<u16>, Committed<16>) {
    let (policy, mut done) = (Policy::default(), Committed::new());
    let mut clock = scripted::Ticks::of(1);
    let result = commit(&mut m.hw, &mut clock, &m.topology, plan, &policy, &mut done);
    (result.err().map(|error| number(error.code(), &error)), done)
}

/// Sets dwords behind the back of everybody.
fn set_all(m: &mut Machine, registers: &[(u64, u32)]) {
    for &(address, value) in registers {
        m.hw.set(address, value);
    }
}

/// What the registers of `scripted::simple` hold once its plan is committed and locked.
const AS_PLANNED: [(u64, u32); 9] = [
    (DEVICE + 0x04, 4),
    (DEVICE + 0x08, 0x2000_0000),
    (DEVICE + 0x10, 0x1700),
    (0x2000_0004, 2),
    (DVSEC + 0x0C, 6),
    (BRIDGE + 0x04, 4),
    (BRIDGE + 0x08, 0x2000_0000),
    (BRIDGE + 0x10, 0x1700),
    (BRIDGE + 0x14, 3),
];

#[test]
fn every_commit_error() {
    let (plain, bi): (Build, Build) = (scripted::simple, || scripted::accelerator(true));
    // The fault comes after the plan was made.
    let cases: [(u16, Build, Change); 17] = [
        (0x0401, plain, |m| m.topology.nodes[0].hdm = None),
        (0x0402, plain, |m| {
            let hdm = m.topology.nodes[0].hdm.as_mut().expect("the bridge's");
            hdm.capability = hdm.capability.with_target_count(0);
        }),
        (0x0403, plain, |m| m.hw.set(DEVICE + 0x10, u32::MAX)),
        (0x0404, plain, |m| m.hw.set(DEVICE + 0x10, 0x0A00)),
        (0x0405, plain, |m| m.hw.set(DEVICE + 0x30, 0x1600)),
        (0x0406, plain, |m| {
            set_all(m, &AS_PLANNED);
            m.hw.set(BRIDGE + 0x14, 4);
        }),
        (0x0407, plain, |m| {
            set_all(m, &AS_PLANNED);
            m.hw.set(BRIDGE + 0x10, 0);
        }),
        (0x0408, plain, |m| {
            set_all(m, &AS_PLANNED);
            m.hw.set(0x2000_0004, 0);
        }),
        (0x0409, plain, |m| m.hw.set(DVSEC + 0x14, 1)),
        (0x040A, plain, |m| m.hw.stuck = Some((DEVICE + 0x04, 4, 0))),
        (0x040B, plain, |m| m.hw.stuck = Some((0x2000_0004, 2, 0))),
        (0x040C, bi, |m| m.topology.nodes[1].back_invalidate = None),
        (0x040D, bi, |m| {
            m.hw.on_commit.insert(0x4001_0004, OnCommit::Error);
        }),
        (0x040E, bi, |m| {
            m.hw.on_commit.insert(0x4001_0004, OnCommit::Never);
        }),
        (0x040F, plain, |m| {
            m.hw.on_commit.insert(DEVICE + 0x10, OnCommit::Error);
        }),
        (0x0410, plain, |m| {
            m.hw.on_commit.insert(DEVICE + 0x10, OnCommit::Never);
        }),
        (0x0411, plain, |m| {
            m.hw.on_commit.insert(DEVICE + 0x10, OnCommit::Unlocked);
        }),
    ];
    let mut provoked = vec![];
    for (expected, machine, fault) in cases {
        let mut m = machine();
        let plan = m.plan(&Policy::default());
        assert_eq!(committed(&mut m, &plan).0, None, "the machine is sound");
        let mut m = machine();
        fault(&mut m);
        assert_eq!(committed(&mut m, &plan).0, Some(expected), "{expected:#06x}");
        provoked.push(expected);
    }
    let mut m = plain();
    let (plan, policy) = (m.plan(&Policy::default()), Policy::default());
    let (mut clock, mut small) = (scripted::Ticks::of(1), Committed::<1>::new());
    let result = commit(&mut m.hw, &mut clock, &m.topology, &plan, &policy, &mut small);
    let error = result.expect_err("two decoders");
    assert_eq!(error, Code::COMMIT_CAPACITY.error().expected(2).found(1));
    provoked.push(number(error.code(), &error));
    // A decoder that is committed and locked, at 4 GiB, in a window whose targets make no sense.
    let (mut hw, bridges) = fake::small();
    fake::put(&mut hw.fixed, fake::BRIDGE + 0x112C, &[0; 40]);
    let registers = &mut hw.functions[1].blocks[0].2;
    fake::put(registers, 0x112C, &[0; 40]);
    fake::put(registers, 0x1138, &[0, 1, 0x1000_0000, 0, 0x1600]);
    let mut board = Board::new();
    board.window(WINDOW, GIB, &[12, 99]).interleave.ways = Ways::One;
    let platform = Platform { windows: &board.windows, ..fake::platform(&bridges, &[]) };
    let policy = Policy { on_failure: OnFailure::BestEffort, ..Policy::default() };
    let mut work = Workspace::<8, 4, 8>::new();
    let result = bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
    assert_eq!(result, Ok(Extent::Less { lost: 1 }));
    let faults = work.topology.nodes.iter().filter_map(|node| node.fault);
    provoked.extend(faults.map(|fault| number(fault.code(), &fault)));
    complete(defined(0x0400..=0x04FF), provoked);
}

// --- verify ------------------------------------------------------------------------------------

fn found<const D: usize>(m: &Machine, plan: &Plan<16, 8, D>, policy: &Policy<'_>) -> Vec<u16> {
    let (mut done, mut findings) = (Committed::<D>::new(), Findings::<16>::new());
    let (mut hw, platform) = (m.hw.clone(), m.platform());
    verify_plan(&mut hw, &platform, &m.topology, plan, policy, &mut done, &mut findings);
    findings.list().iter().map(|finding| number(finding.code(), finding)).collect()
}

/// Two switch levels that interleave, as nobody may build them.
fn two_levels() -> Machine {
    let mut m = Machine::new();
    let bridge = m.bridge(7, 0x1000_0000, true);
    let root = m.port(bridge, NodeKind::RootPort, 0);
    let upper = m.upstream(root, 0x1800_0000);
    let middle = m.port(upper, NodeKind::DownstreamPort, 0);
    let lower = m.upstream(middle, 0x1900_0000);
    let port = m.port(lower, NodeKind::DownstreamPort, 0);
    m.device(port, 0x2000_0000, DeviceKind::Type3, [512 * MIB, 0]);
    m.window(16 * GIB, 4 * GIB, &[7]);
    m
}

#[test]
fn every_finding() {
    let (plain, bi): (Build, Build) = (scripted::simple, || scripted::accelerator(true));
    // Registers, windows and topology are changed after the commit.
    let cases: [(u16, Build, Change); 29] = [
        (0x0501, plain, |m| m.hw.set(DEVICE + 0x10, u32::MAX)),
        (0x0502, plain, |m| m.hw.set(DEVICE + 0x10, 0x1707)),
        (0x0503, plain, |m| m.hw.set(BRIDGE + 0x50, 0x1700)),
        (0x0504, plain, |m| set_all(m, &[(BRIDGE + 0x24, 3), (BRIDGE + 0x30, 0x1700)])),
        (0x0505, plain, |m| set_all(m, &[(BRIDGE + 0x24, 5), (BRIDGE + 0x30, 0x1700)])),
        (0x0506, plain, |m| set_all(m, &[(DEVICE + 0x04, 5), (BRIDGE + 0x04, 5)])),
        (0x0507, plain, |m| m.windows[0].targets = [8].into_iter().collect()),
        (0x0508, plain, |m| m.windows[0].restrictions = Restrictions::from_bits(0x0D)),
        (0x0509, plain, |m| m.windows[0].restrictions = Restrictions::from_bits(0x0B)),
        (0x050A, plain, |m| m.hw.set(DEVICE + 0x14, 0x1000_0000)),
        (0x050B, plain, |m| {
            let NodeKind::Device(device) = &mut m.topology.nodes[2].kind else { unreachable!() };
            (device.volatile, device.persistent) = (256 * MIB, 256 * MIB);
        }),
        (0x050C, scripted::switched, |m| m.topology.nodes[2].hdm = None),
        (0x050D, plain, |m| m.hw.set(BRIDGE + 0x10, 0)),
        (0x050E, plain, |m| m.hw.set(BRIDGE + 0x08, 0x1000_0000)),
        (0x050F, plain, |m| m.hw.set(BRIDGE + 0x14, 4)),
        (0x0510, plain, |m| m.hw.set(BRIDGE + 0x10, 0x0700)),
        (0x0511, plain, |m| m.hw.set(DEVICE + 0x10, 0x1710)),
        // Window and bridge select on the same bit.
        (0x0512, plain, |m| {
            m.windows[0].interleave = Interleave::new(Ways::Two, Granularity::B256);
            m.hw.set(BRIDGE + 0x10, 0x1710);
        }),
        (0x0513, two_levels, |m| {
            set_all(m, &[(0x1900_0020, 0x1710), (0x1900_0024, 0x0100)]);
            set_all(m, &[(0x1800_0020, 0x1711), (0x1800_0024, 0x0100)]);
        }),
        (0x0514, plain, |m| m.hw.set(DEVICE + 0x10, 0x1710)),
        (0x0515, plain, |m| m.hw.set(BRIDGE + 0x10, 0x1600)),
        (0x0516, plain, |m| m.hw.set(0x2000_0004, 0)),
        (0x0517, plain, |m| m.hw.set(DVSEC + 0x0C, 2)),
        (0x0519, bi, |m| m.hw.set(0x4000_0004, 0)),
        (0x051A, plain, |m| m.hw.set(BRIDGE + 0x04, 6)),
        (0x051B, plain, |m| m.hw.set(BRIDGE + 0x10, 0)),
        (0x051C, plain, |m| set_all(m, &[(DEVICE, 0x2000_0000), (BRIDGE, 0x2000_0000)])),
        (0x051D, plain, |m| set_all(m, &[(BRIDGE + 0x24, 5), (BRIDGE + 0x30, 0x1700)])),
        (0x051F, plain, |m| m.topology.nodes[0].hdm = None),
    ];
    let sound = |machine: Build| {
        let mut m = machine();
        let plan = m.plan(&Policy::default());
        assert_eq!(committed(&mut m, &plan).0, None);
        assert_eq!(found(&m, &plan, &Policy::default()), [], "the machine is sound");
        (m, plan)
    };
    let mut provoked = vec![];
    for (expected, machine, change) in cases {
        let (mut m, plan) = sound(machine);
        change(&mut m);
        let found = found(&m, &plan, &Policy::default());
        assert!(found.contains(&expected), "{expected:#06x}: {found:x?}");
        provoked.push(expected);
    }
    let (m, plan) = sound(plain);
    let config_lock = Policy { config_lock: true, ..Policy::default() };
    provoked.extend(found(&m, &plan, &config_lock));
    provoked.extend(found(&m, &Plan::<16, 8, 1>::new(), &Policy::default()));
    // Of a machine that nobody programmed nothing is used.
    let (mut done, mut findings) = (Committed::<16>::new(), Findings::<16>::new());
    let (m, policy) = (scripted::simple(), Policy::default());
    let (hw, platform) = (&mut m.hw.clone(), m.platform());
    verify(hw, &platform, &m.topology, &policy, &mut done, &mut findings);
    provoked.extend(findings.list().iter().map(|finding| number(finding.code(), finding)));
    complete(defined(0x0500..=0x05FF), provoked);
}

// --- probe -------------------------------------------------------------------------------------

/// Memory of one dword for each address, where `route` leads there; takes so many writes.
struct Memory(fn(u64) -> Option<u64>, BTreeMap<u64, u32>, usize);

impl Mmio for Memory {
    fn read(&mut self, address: u64) -> u32 {
        (self.0)(address).map_or(0, |cell| self.1.get(&cell).copied().unwrap_or(cell as u32))
    }

    fn write(&mut self, address: u64, value: u32) {
        if let (Some(cell), true) = ((self.0)(address), self.2 > 0) {
            self.2 -= 1;
            self.1.insert(cell, value);
        }
    }
}

#[test]
fn every_probe_error() {
    let mut m = scripted::simple();
    let plan = m.plan(&Policy::default());
    let (result, done) = committed(&mut m, &plan);
    assert_eq!(result, None);
    let asked = |route, writes, regions: &[(u64, Partition, Ways)]| {
        let mut done = done.clone();
        let sound = done.regions[0];
        done.regions.clear();
        for &(base, partition, ways) in regions {
            let span = Span::new(Hpa(base), 512 * MIB).expect("a range");
            let interleave = Interleave::new(ways, Granularity::B256);
            let region = CommittedRegion { span, interleave, partition, ..sound };
            done.regions.push(region).expect("room for 16");
        }
        let mut hw = Memory(route, BTreeMap::new(), writes);
        let mut errors = ProbeErrors::new();
        let error = probe(&mut hw, &m.platform(), &m.topology, Probe::All, &mut done, &mut errors);
        error.map_err(|error| number(error.code(), &error))
    };
    let volatile = Partition::Volatile;
    let one = [(16 * GIB, volatile, Ways::One)];
    assert_eq!(asked(Some, 6, &one), Ok(()), "the memory is sound");
    let provoked = [
        asked(|_| None, 6, &one),
        asked(|hpa| Some(hpa % (256 * MIB)), 6, &one),
        asked(Some, 3, &one),
        asked(Some, 6, &[(16 * GIB, volatile, Ways::Three)]),
        asked(Some, 99, &[(16 * GIB, volatile, Ways::Sixteen), (20 * GIB, volatile, Ways::One)]),
    ];
    let mut provoked: Vec<u16> = provoked.into_iter().map(|r| r.expect_err("broken")).collect();
    assert_eq!(provoked, [0x0901, 0x0902, 0x0904, 0x0905, 0x0906]);
    // Persistent memory that changes, and has nobody's mark.
    struct Restless(u32);
    impl Mmio for Restless {
        fn read(&mut self, _: u64) -> u32 {
            self.0 += 1;
            self.0
        }
        fn write(&mut self, _: u64, _: u32) {}
    }
    let mut changing = done.clone();
    changing.regions[0].partition = Partition::Persistent;
    let mut errors = ProbeErrors::new();
    let error =
        probe(&mut Restless(0), &m.platform(), &m.topology, Probe::All, &mut changing, &mut errors);
    provoked.extend(error.err().map(|error| number(error.code(), &error)));
    complete(defined(0x0900..=0x09FF), provoked);
}

// --- tables ------------------------------------------------------------------------------------

const IDENTITY: Identity = Identity {
    oem_id: *b"OEMID ",
    oem_table_id: *b"OEMTABLE",
    oem_revision: 1,
    creator_id: *b"TEST",
    creator_revision: 1,
};

fn cedt_of(m: &Machine, done: &Committed<16>, room: usize) -> Result<Vec<u8>, u16> {
    let mut buffer = vec![0xA5; room];
    cedt(&m.platform(), &m.topology, done, IDENTITY, &mut buffer)
        .map(|table| table.to_vec())
        .map_err(|error| number(error.code(), &error))
}

#[test]
fn every_table_error() {
    let mut m = scripted::simple();
    let plan = m.plan(&Policy::default());
    let (result, done) = committed(&mut m, &plan);
    assert_eq!(result, None);
    let good = cedt_of(&m, &done, 256).expect("a table");
    // Out of what the platform and the registers say.
    type Change = fn(&mut Machine, &mut Committed<16>);
    let made: [(u16, Change); 8] = [
        (0x0602, |m, _| m.bridges.push(m.bridges[0])),
        (0x0603, |m, _| m.bridges[0].registers = Hpa(0)),
        (0x0604, |m, _| m.window(32 * GIB, GIB, &[7]).targets.clear()),
        (0x0605, |m, _| {
            for (uid, map) in [(8, 0x10100), (9, 0x20100)] {
                m.bridge(uid, u64::from(uid) << 24, true);
                let window = m.window(u64::from(uid) * 8 * GIB, GIB, &[7, uid]);
                window.arithmetic = Arithmetic::Xor;
                window.interleave.ways = Ways::Two;
                window.xor_maps = [map].into_iter().collect();
            }
        }),
        (0x0606, |_, done| done.decoders[1].fate = Fate::Stranded),
        (0x0607, |m, _| m.windows[0].size = 256 * MIB),
        (0x060D, |_, done| done.decoders.clear()),
        (0x060E, |_, done| done.unread = true),
    ];
    let mut provoked = vec![];
    for (expected, change) in made {
        let mut m = Machine { hw: m.hw.clone(), ..scripted::simple() };
        let mut done = done.clone();
        change(&mut m, &mut done);
        assert_eq!(cedt_of(&m, &done, 512), Err(expected), "{expected:#06x}");
        provoked.push(expected);
    }
    provoked.extend(cedt_of(&m, &done, 36).err());
    // Against what the registers say: bytes at offsets of the CHBS at 36, the CFMWS at 68.
    let read: [(u16, &[(usize, u8)]); 4] = [
        (0x0608, &[(0, b'X')]),
        (0x0609, &[(36 + 0x04, 6)]),
        (0x060A, &[(36 + 0x13, 0x20)]),
        (0x060B, &[(68 + 0x0C, 5)]),
    ];
    for (expected, changes) in read {
        let mut bytes = good.clone();
        for &(at, value) in changes {
            bytes[at] = value;
        }
        mend(&mut bytes, 9);
        let code =
            cross_check(&bytes, &m.topology, &done).map_err(|error| number(error.code(), &error));
        assert_eq!(code, Err(expected), "{expected:#06x}");
        provoked.push(expected);
    }
    let mut unlocked = done.clone();
    for entry in &mut unlocked.decoders {
        entry.image = entry.image.with_control(entry.image.control().with_lock_on_commit(false));
    }
    provoked.extend(
        cross_check(&good, &m.topology, &unlocked).err().map(|error| number(error.code(), &error)),
    );
    // Against the registers as they are now.
    type Fault = fn(&mut Machine);
    let now: [(Option<u16>, Fault); 11] = [
        (None, |_| {}),
        (Some(0x060F), |m| m.hw.set(BRIDGE + 0x14, 4)),
        (Some(0x060F), |m| m.hw.set(DEVICE + 0x10, 0x1600)),
        // A spare decoder is in use.
        (Some(0x060F), |m| m.hw.set(BRIDGE + 0x30, 0x1600)),
        (Some(0x0610), |m| m.hw.set(0x2000_0004, 0)),
        (Some(0x0610), |m| m.hw.set(DVSEC + 0x0C, 2)),
        // All-ones are no value: of a decoder in use, of a spare one, of what switches a device on.
        (Some(0x0611), |m| m.hw.set(BRIDGE + 0x10, !0)),
        (Some(0x0611), |m| m.hw.set(BRIDGE, !0)),
        (Some(0x0611), |m| m.hw.set(BRIDGE + 0x30, !0)),
        (Some(0x0611), |m| m.hw.set(0x2000_0004, !0)),
        (Some(0x0611), |m| m.hw.set(DVSEC + 0x0C, !0)),
    ];
    for (expected, change) in now {
        let mut hw = Machine { hw: m.hw.clone(), ..scripted::simple() };
        change(&mut hw);
        let result = cross_check_hardware(&mut hw.hw, &good, &m.topology, &done);
        let code = result.err().map(|error| number(error.code(), &error));
        assert_eq!(code, expected);
        provoked.extend(code);
    }
    complete(defined(0x0600..=0x06FF), provoked);
}

// --- hand-off ----------------------------------------------------------------------------------

/// FNV-1a, written out with 128 bits.
fn fnv(bytes: &[u8]) -> u64 {
    let mut hash = 14_695_981_039_346_656_037_u128;
    for byte in bytes {
        hash = (hash ^ u128::from(*byte)) * 1_099_511_628_211 % (1 << 64);
    }
    hash as u64
}

#[test]
fn every_handoff_error() {
    let mut m = scripted::simple();
    let plan = m.plan(&Policy::default());
    let (result, done) = committed(&mut m, &plan);
    assert_eq!(result, None);
    let mut write = |room: usize| {
        let mut buffer = vec![0; room];
        let contents = handoff::Contents {
            ecam: &[],
            topology: m.topology.tree(),
            remarks: &m.topology.remarks,
            committed: done.view(),
            cedt: None,
        };
        let record = handoff::write(&mut m.hw, &contents, &mut buffer);
        record.map(|bytes| bytes.to_vec()).map_err(|error| number(error.code(), &error))
    };
    let good = write(1024).expect("a record");
    let mut provoked = vec![write(100).expect_err("too small")];
    // Bytes to change, and how many of the record to give; the digest at 56 is made good.
    type Case = (u16, &'static [(usize, u8)], usize, bool);
    let cases: [Case; 8] = [
        (0x0702, &[], 63, true),
        (0x0703, &[(7, b'1')], 808, true),
        (0x0704, &[(8, 3)], 808, true),
        (0x0705, &[], 807, true),
        (0x0706, &[(16, 2)], 808, true),
        (0x0707, &[(88, 1)], 808, false),
        (0x0708, &[(102, 4)], 808, true),
        // The region's size.
        (0x0709, &[(83, 0)], 808, true),
    ];
    for (expected, changes, length, mended) in cases {
        let mut bytes = good.clone();
        for &(at, value) in changes {
            bytes[at] = value;
        }
        if mended {
            bytes[56..64].fill(0);
            let digest = fnv(&bytes).to_le_bytes();
            bytes[56..64].copy_from_slice(&digest);
        }
        let code = handoff::read(&bytes[..length])
            .map(|_| ())
            .map_err(|error| number(error.code(), &error));
        assert_eq!(code, Err(expected), "{expected:#06x}");
        provoked.push(expected);
    }
    let record = handoff::read(&good).expect("what was written");
    let silent = [DecoderImage::from_dwords([!0; DecoderImage::DWORDS])];
    for images in [&[][..], &silent] {
        let result = record.check_registers(images.iter().copied());
        provoked.extend(result.err().map(|error| number(error.code(), &error)));
    }
    complete(defined(0x0700..=0x07FF), provoked);
}

// --- restore -----------------------------------------------------------------------------------

/// A change of the hardware since the record was made.
type Since = fn(&mut fake::Fake);

#[test]
fn every_restore_error() {
    let (mut hw, bridges) = fake::small();
    // Four decoders and global control in the device.
    fake::put(&mut hw.functions[1].blocks[0].2, 0x112C, &[0; 40]);
    let mut topology = Topology::<16>::new();
    let platform = fake::platform(&bridges, &[]);
    discover(&mut hw, &mut fake::clock(), &platform, &mut topology).expect("a machine");
    let mut done = Committed::<16>::new();
    let image = DecoderImage::default().with_control(Control::from_bits(0x1600));
    let image = DecoderImage { base_high: 4, size_low: 0x1000_0000, ..image };
    let entry = CommittedDecoder { node: NodeId(2), image, fate: Fate::Done, ..Empty::EMPTY };
    done.decoders.push(entry).expect("room");
    let contents = handoff::Contents {
        ecam: platform.ecam,
        topology: topology.tree(),
        remarks: &topology.remarks,
        committed: done.view(),
        cedt: None,
    };
    let mut record = vec![0; 2048];
    let mut record = handoff::write(&mut hw, &contents, &mut record).expect("a record").to_vec();
    // All three are in use, it says.
    let outcomes = record.len() - 3 * 40;
    for at in 0..3 {
        record[outcomes + 40 * at] = 0;
    }
    let mend = |record: &mut Vec<u8>| {
        record[56..64].fill(0);
        let digest = fnv(record).to_le_bytes();
        record[56..64].copy_from_slice(&digest);
    };
    mend(&mut record);
    let try_out = |record: &[u8], ecam: &[Ecam], pci, room: usize, change: Since| {
        let (mut hw, _) = fake::small();
        fake::put(&mut hw.functions[1].blocks[0].2, 0x112C, &[0; 40]);
        change(&mut hw);
        let mut memory = [ComponentOutcome::EMPTY; 4];
        let mut outcomes = Slots::new(&mut memory[..room]);
        let record = handoff::read(record).expect("a record");
        let mut clock = fake::clock();
        let result = restore(&mut hw, &mut clock, ecam, &record, pci, outcomes.list());
        let first = outcomes.items().iter().find_map(|found| found.outcome.error().copied());
        let error = result.err().or(first).expect("an error");
        number(error.code(), &error)
    };
    let all = platform.ecam;
    let mut first = record[..64].to_vec();
    for (at, value) in [(8, 1), (12, 64), (13, 0), (20, 0), (36, 0), (40, 0)] {
        first[at] = value;
    }
    mend(&mut first);
    let mut provoked = vec![
        try_out(&record, all, Pci::Library, 2, |_| {}),
        try_out(&first, all, Pci::Library, 4, |_| {}),
        try_out(&record, &[], Pci::Library, 4, |_| {}),
    ];
    assert_eq!(provoked, [0x0A01, 0x0A02, 0x0A03]);
    let cases: [(u16, Pci, Since); 7] = [
        (0x0A04, Pci::Library, |hw| fake::put(&mut hw.functions[1].config, 0, &[u32::MAX])),
        (0x0A05, Pci::Library, |hw| fake::put(&mut hw.functions[1].config, 0, &[0x0d94_8086])),
        (0x0A06, Pci::Library, |hw| fake::put(&mut hw.functions[1].config, 0x11C, &[0x2000_004b])),
        (0x0A07, Pci::Library, |hw| fake::put(&mut hw.functions[1].config, 0x16C, &[0x0022_0002])),
        (0x0A08, Pci::Done, |hw| hw.functions[1].config.get_mut(&0x10).expect("BAR").value = 0x14),
        (0x0A09, Pci::Library, |hw| fake::put(&mut hw.functions[1].config, 0x10, &[0xFE81_0004])),
        (0x0A0A, Pci::Library, |hw| {
            fake::put(&mut hw.functions[1].blocks[0].2, 0x1138, &[0, 5, 0x1000_0000, 0, 0x1600]);
        }),
    ];
    for (expected, pci, change) in cases {
        assert_eq!(try_out(&record, all, pci, 4, change), expected, "{expected:#06x}");
        provoked.push(expected);
    }
    complete(defined(0x0A00..=0x0AFF), provoked);
}
