//! Tables out of committed decoders: golden bytes, refusals, and the cross-check of any CEDT.
//!
//! **Invariant**: the golden tables are typed by hand from ACPI 6.5 section 5.2.6 and CXL r3.1
//! section 9.18.1; only the checksum byte is computed, by summing.

mod scripted;

use std::collections::BTreeMap;

use cxl_firmware::commit::{Receipt, commit};
use cxl_firmware::committed::{Committed, CommittedDecoder, Fate};
use cxl_firmware::error::{Code, Error, Place};
use cxl_firmware::platform::{BridgeKind, Restrictions, Window};
use cxl_firmware::policy::{PathPolicy, Policy};
use cxl_firmware::tables::{MemoryKind, MemoryRange, cedt, cross_check, srat};
use cxl_firmware::topology::{DeviceKind, Node, NodeId, NodeKind};
use cxl_firmware::verify::{Findings, verify};
use cxl_regs::acpi::Identity;
use cxl_regs::acpi::cedt::Problem;
use cxl_regs::acpi::srat::MemoryAffinity;
use cxl_regs::hdm::Control;
use cxl_regs::{Arithmetic, Granularity, Hpa, Interleave, Span, Ways};
use scripted::{GIB, MIB, Machine, Ticks, simple, switched};

const IDENTITY: Identity = Identity {
    oem_id: *b"OEMID ",
    oem_table_id: *b"OEMTABLE",
    oem_revision: 0x0102_0304,
    creator_id: *b"TEST",
    creator_revision: 0x0506_0708,
};

fn committed(m: &mut Machine, policy: &Policy<'_>) -> Committed<16> {
    let plan = m.plan(policy);
    let mut done = Committed::new();
    let result = commit(&mut m.hw, &mut Ticks::of(1), &m.topology, &plan, policy, &mut done);
    assert_eq!(result.map(Receipt::keep), Ok(()));
    done
}

fn table(m: &Machine, done: &Committed<16>) -> Result<Vec<u8>, Error> {
    let mut buffer = [0xA5; 1024];
    cedt(&m.platform(), &m.topology, done, IDENTITY, &mut buffer).map(|table| table.to_vec())
}

/// A golden table: `bytes` with the checksum byte that makes them sum to 0.
fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[9] = sum.wrapping_neg();
    bytes
}

#[rustfmt::skip]
fn golden(restrictions: u8) -> Vec<u8> {
    summed(vec![
        // Header: signature, length 36 + 32 + 32 + 40 + 44 = 0xB8, revision 1, checksum.
        b'C', b'E', b'D', b'T', 0xB8, 0, 0, 0, 1, 0,
        b'O', b'E', b'M', b'I', b'D', b' ', b'O', b'E', b'M', b'T', b'A', b'B', b'L', b'E',
        0x04, 0x03, 0x02, 0x01, b'T', b'E', b'S', b'T', 0x08, 0x07, 0x06, 0x05,
        // CHBS: UID 7, version 1, base 0x1000_0000, length 0x1_0000.
        0, 0, 0x20, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0,
        // CHBS: UID 9, a CXL 1.1 host: version 0, length 0x2000.
        0, 0, 0x20, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0,
        // CFMWS: 4 GiB at 16 GiB to UID 7, modulo, QTG 3.
        1, 0, 0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0,
        0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        restrictions, 0, 3, 0, 7, 0, 0, 0,
        // CFMWS: 512 MiB at 32 GiB to UIDs 9 and 7, 2 ways at 512 bytes; nothing in it.
        1, 0, 0x2C, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0,
        0, 0, 0, 0x20, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0,
        0x06, 0, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0,
    ])
}

/// `simple` with a CXL 1.1 bridge and an interleaved window, listed in the wrong order, and a
/// window without a place.
fn described() -> Machine {
    let mut m = simple();
    m.bridges.push(m.bridges[0]);
    m.bridges[0].uid = 9;
    m.bridges[0].kind = BridgeKind::Rcrb;
    m.bridges[0].registers = Hpa(0x5000_0000);
    m.windows[0].qtg = 3;
    let other = m.window(32 * GIB, 512 * MIB, &[9, 7]);
    other.interleave = Interleave::new(Ways::Two, Granularity::B512);
    // Host-only and volatile; BI without device-coherent means nothing, and fixed is not true.
    other.restrictions = Restrictions::from_bits(0x36);
    m.window(0, GIB, &[7]);
    m.windows.swap(0, 1);
    m
}

#[test]
fn the_cedt_says_what_the_platform_decodes_and_the_hardware_accepted() {
    for (path, restrictions) in [(PathPolicy::LockAll, 0x3F), (PathPolicy::Unlocked, 0x2F)] {
        let policy = Policy { path, ..Policy::default() };
        let mut m = described();
        let request = cxl_firmware::policy::Request {
            device: m.topology.tree().path(NodeId(2)),
            partition: cxl_firmware::topology::Partition::Volatile,
            window: Some(Hpa(16 * GIB)),
            offset: None,
            size: None,
            skip: 0,
        };
        let requests = [request];
        let policy = Policy { requests: &requests, ..policy };
        let done = committed(&mut m, &policy);
        assert_eq!(table(&m, &done), Ok(golden(restrictions)));
        assert_eq!(cross_check(&golden(restrictions), &m.topology, &done), Ok(()));
        // The same from what a verification read back.
        let (mut read, mut findings) = (Committed::<16>::new(), Findings::<4>::new());
        let mut hw = m.hw.clone();
        verify(&mut hw, &m.platform(), &m.topology, &policy, &mut read, &mut findings);
        assert_eq!(table(&m, &read), Ok(golden(restrictions)));
    }
}

#[test]
fn a_cxl_1_1_host_that_would_cost_linux_all_bridges_is_left_out() {
    let mut m = described();
    let uids = |m: &Machine| {
        let bytes = table(m, &Committed::new()).expect("a table");
        let bridges = cxl_regs::acpi::cedt::Cedt::read(&bytes).expect("a CEDT").host_bridges();
        bridges.map(|bridge| bridge.uid).collect::<Vec<_>>()
    };
    let (kind, fault) = (NodeKind::HostBridge { uid: 9 }, Code::DISCOVER_RCH.at(Place::bridge(9)));
    let rch = Node { kind, hdm: None, fault: Some(fault), ..m.topology.nodes[0] };
    m.topology.nodes.push(rch).expect("room");
    assert_eq!(uids(&m), [7, 9]);
    m.topology.nodes.last_mut().expect("it").fault = Some(Code::DISCOVER_RCRB.at(Place::bridge(9)));
    assert_eq!(uids(&m), [7]);
}

#[test]
fn a_window_is_fixed_only_when_all_in_it_is_locked() {
    let mut m = switched();
    let mut done = committed(&mut m, &Policy::default());
    let fixed = |done: &Committed<16>| table(&m, done).expect("a table")[36 + 32 + 0x20] & 0x10;
    assert_eq!(fixed(&done), 0x10);
    done.regions[1].locked = false;
    assert_eq!(fixed(&done), 0);
    // A pass-through bridge has nothing to lock.
    let mut m = simple();
    m.topology.nodes[0].hdm = None;
    let done = committed(&mut m, &Policy::default());
    assert_eq!(table(&m, &done).expect("a table")[36 + 32 + 0x20], 0x3F);
    // Empty.
    let empty = Committed::new();
    assert_eq!(table(&m, &empty).expect("a table")[36 + 32 + 0x20], 0x2F);
}

#[test]
fn xor_windows_share_the_maps_of_their_granularity() {
    let mut m = simple();
    m.bridge(8, 0x1100_0000, true);
    m.bridge(9, 0x1200_0000, true);
    m.bridge(10, 0x1300_0000, true);
    for (base, targets, maps) in
        [(32 * GIB, &[7, 8][..], &[0x10100][..]), (40 * GIB, &[7, 8, 9, 10], &[0x10100, 0x20200])]
    {
        let window = m.window(base, 2 * GIB, targets);
        window.arithmetic = Arithmetic::Xor;
        window.interleave.ways = Ways::from_count(targets.len() as u32).expect("2 and 4");
        window.xor_maps = maps.iter().copied().collect();
    }
    let done = Committed::new();
    let bytes = table(&m, &done).expect("a table");
    // At the end: kind 2, length 8 + 2 * 8, HBIG 0, two maps.
    let expected = [
        2, 0, 24, 0, 0, 0, 0, 2, //
        0x00, 0x01, 0x01, 0, 0, 0, 0, 0, //
        0x00, 0x02, 0x02, 0, 0, 0, 0, 0,
    ];
    assert_eq!(bytes[bytes.len() - 24..], expected);
    // Of windows as wide as each other the lowest one is named.
    m.window(36 * GIB, 2 * GIB, &[7, 8]);
    let copy = Window { base: Some(Hpa(36 * GIB)), ..m.windows[1].clone() };
    m.windows[3] = copy;
    assert!(table(&m, &done).is_ok());
    m.windows[2].xor_maps[0] = 0x30100;
    let (granularity, first, second) = (Granularity::B256, 32 * GIB, 40 * GIB);
    assert_eq!(
        table(&m, &done),
        Err(Code::TABLES_XOR_MAPS_DIFFER
            .at(Place::window(Hpa(first)))
            .expected(granularity)
            .found(second))
    );
    m.windows[2].xor_maps[0] = 0x10100;
    m.windows.truncate(3);
    m.windows[1].xor_maps[0] = 0x30100;
    assert_eq!(
        table(&m, &done),
        Err(Code::TABLES_XOR_MAPS_DIFFER
            .at(Place::window(Hpa(32 * GIB)))
            .expected(Granularity::B256)
            .found(40 * GIB))
    );
}

#[test]
fn no_table_is_made_of_what_is_not_whole() {
    let mut m = simple();
    let good = committed(&mut m, &Policy::default());
    let code = |m: &Machine, done: &Committed<16>| table(m, done).expect_err("no table").code();
    let mut done = good.clone();
    done.decoders[1].fate = Fate::Stranded;
    assert_eq!(code(&m, &done), 0x0606);
    let mut done = good.clone();
    done.regions.clear();
    assert_eq!(code(&m, &done), 0x0606);
    // What is not in use does no harm.
    // A fate is what somebody says: registers that are in use are in use.
    for fate in [Fate::RolledBack, Fate::Untouched] {
        done.decoders.iter_mut().for_each(|entry| entry.fate = fate);
        assert_eq!(code(&m, &done), 0x0606);
    }
    let idle = |done: &mut Committed<16>, change: fn(Control) -> Control| {
        for entry in &mut done.decoders {
            entry.image = entry.image.with_control(change(entry.image.control()));
        }
    };
    // So is a commit that may yet come to its end.
    idle(&mut done, |control| control.with_committed(false));
    assert_eq!(code(&m, &done), 0x0606);
    idle(&mut done, |control| control.with_commit(false));
    assert!(table(&m, &done).is_ok());
    // Nobody knows what was not read.
    done.unread = true;
    assert_eq!(code(&m, &done), 0x060E);
    // A region that no decoder makes, or that they make otherwise, or a device that is off.
    type Change = fn(&mut Committed<16>);
    let changes: [(u16, Change); 6] = [
        (0x060D, |done| done.decoders.clear()),
        (0x060D, |done| done.decoders.truncate(1)),
        (0x060D, |done| done.regions[0].interleave.ways = Ways::Two),
        (0x060D, |done| {
            let open = done.decoders[1].image.control().with_lock_on_commit(false);
            done.decoders[1].image = done.decoders[1].image.with_control(open);
        }),
        (0x0606, |done| done.devices[0].mem_enable = false),
        (0x0606, |done| done.devices[0].decoder_enable = false),
    ];
    for (expected, change) in changes {
        let mut done = good.clone();
        change(&mut done);
        assert_eq!(code(&m, &done), expected);
    }
    m.windows[0].size = 256 * MIB;
    let error = table(&m, &good).expect_err("it does not fit the window");
    assert_eq!((error.code, error.at.decoder()), (Code::TABLES_OUTSIDE_WINDOWS, Some(0)));
    assert_eq!((error.expected, error.found), (16 * GIB, 512 * MIB));
}

/// Ranges of the decoders that are in use or about to be, as the hardware has them, each with their
/// number.
fn in_use(m: &Machine) -> BTreeMap<[u32; 4], usize> {
    let mut ranges = BTreeMap::new();
    for hdm in m.topology.nodes.iter().filter_map(|node| node.hdm) {
        for index in 0..u64::from(hdm.decoders) {
            let at = |offset| m.hw.get(hdm.block.0 + 0x10 + 0x20 * index + offset);
            if at(0x10) & 0x600 != 0 && (at(0x08), at(0x0C)) != (0, 0) {
                *ranges.entry([0x04, 0, 0x0C, 0x08].map(at)).or_default() += 1;
            }
        }
    }
    ranges
}

#[test]
fn whatever_a_run_leaves_behind_no_table_hides_a_decoder_that_leads_nowhere() {
    type Case = (fn() -> Machine, PathPolicy, usize);
    let cases: [Case; 3] = [
        (simple, PathPolicy::LockAll, 2),
        (switched, PathPolicy::LockAll, 3),
        (switched, PathPolicy::Unlocked, 3),
    ];
    let (mut refused, mut made) = (0, 0);
    for (machine, path, levels) in cases {
        let policy = Policy { path, ..Policy::default() };
        let mut clean = machine();
        let plan = clean.plan(&policy);
        committed(&mut clean, &policy);
        let (writes, accesses) = (clean.hw.writes().len(), clean.hw.trace.len());
        let lost = (0..writes).map(|at| (Some(at), None));
        for (dropped, silent_after) in lost.chain((0..accesses).map(|at| (None, Some(at)))) {
            let mut m = machine();
            (m.hw.dropped, m.hw.silent_after) = (dropped, silent_after);
            // The run that fails, and one that finds what it has left, with all mended.
            for run in 0..2 {
                let mut done = Committed::<16>::new();
                let result =
                    commit(&mut m.hw, &mut Ticks::of(1), &m.topology, &plan, &policy, &mut done);
                let whole = in_use(&m).values().all(|decoders| *decoders == levels);
                let what = format!("{dropped:?} {silent_after:?} run {run}: {result:?}");
                let answers = |entry: &CommittedDecoder| entry.image.control != u32::MAX;
                assert!(done.decoders.iter().all(answers), "{what}: all-ones in the record");
                match table(&m, &done) {
                    Ok(_) => assert!(whole, "{what}: a table of {:x?}", in_use(&m)),
                    Err(error) => assert!(result.is_err(), "{what}: {error}"),
                }
                *if whole { &mut made } else { &mut refused } += 1;
                (m.hw.dropped, m.hw.silent_after) = (None, None);
            }
        }
    }
    assert!(refused > 20 && made > 20, "{refused} {made}");
}

#[test]
fn what_makes_no_record_is_refused_with_bridge_or_window() {
    type Change = fn(&mut Machine);
    let cases: [(Change, u16); 7] = [
        (|m| m.bridges[0].registers = Hpa(0), 0x0603),
        (|m| m.windows[0].size = 300 * MIB, 0x0604),
        (|m| m.windows[0].size = 0, 0x0604),
        (|m| m.windows[0].size = u64::MAX, 0x0604),
        (|m| m.windows[0].targets.clear(), 0x0604),
        (|m| m.bridges.push(m.bridges[0]), 0x0602),
        (|m| m.windows.push(m.windows[0].clone()), 0x0602),
    ];
    for (change, code) in cases {
        let mut m = simple();
        change(&mut m);
        let error = table(&m, &Committed::new()).expect_err("no record");
        assert_eq!(error.code(), code, "{error}");
    }
    let words = |size| {
        let mut m = simple();
        m.windows[0].size = size;
        table(&m, &Committed::new()).expect_err("no record")
    };
    let (window, base) = (16 * GIB, 16 * GIB);
    let problem = Problem::ZeroSize { base };
    assert_eq!(words(0), Code::TABLES_WINDOW.at(Place::window(Hpa(window))).rule(problem));
    let problem = Problem::WindowWraps { base, size: u64::MAX };
    assert_eq!(words(u64::MAX), Code::TABLES_WINDOW.at(Place::window(Hpa(window))).rule(problem));
    let m = simple();
    for room in 0..36 + 32 + 40 {
        let mut buffer = vec![0xA5; room];
        let result =
            cedt(&m.platform(), &m.topology, &Committed::<4>::new(), IDENTITY, &mut buffer);
        assert_eq!(result.map(|_| ()).map_err(|e| e.code), Err(Code::TABLES_NO_ROOM), "{room}");
    }
}

#[test]
fn a_cedt_that_disagrees_with_the_registers_is_caught() {
    let mut m = simple();
    let done = committed(&mut m, &Policy::default());
    let good = table(&m, &done).expect("a table");
    let (chbs, cfmws) = (36, 36 + 32);
    let check = |changes: &[(usize, u8)]| {
        let mut bytes = good.clone();
        for &(at, value) in changes {
            bytes[at] = value;
        }
        bytes[9] = 0;
        cross_check(&summed(bytes), &m.topology, &done)
    };
    assert_eq!(check(&[]), Ok(()));
    let disagrees = |changes: &[(usize, u8)]| match check(changes) {
        Err(error) => error.finding().expect("what is wrong").code(),
        Ok(()) => panic!("{changes:x?}"),
    };
    // The window's base, its size, its target, its restrictions.
    assert_eq!(disagrees(&[(cfmws + 0x0C, 5)]), 0x0506);
    assert_eq!(disagrees(&[(cfmws + 0x14, 0), (cfmws + 0x13, 0x10)]), 0x0506);
    assert_eq!(disagrees(&[(cfmws + 0x24, 6)]), 0x0507);
    assert_eq!(disagrees(&[(cfmws + 0x20, 0x1D)]), 0x0508);
    assert_eq!(disagrees(&[(cfmws + 0x20, 0x1B)]), 0x0509);
    // The bridge: another UID, other registers.
    assert_eq!(check(&[(chbs + 4, 6)]), Err(Code::TABLES_BRIDGE_MISSING.at(Place::bridge(7))));
    // 16 pages of 4 KiB.
    let elsewhere = Code::TABLES_BRIDGE_ELSEWHERE.at(Place::bridge(7)).detail(16);
    let elsewhere = elsewhere.expected(0x1000_1000).found(0x2000_0000);
    assert_eq!(check(&[(chbs + 0x13, 0x20)]), Err(elsewhere));
    assert_eq!(
        elsewhere.to_string(),
        "bridge 7: its decoders are at 0x10001000, the CEDT has its registers at \
         0x20000000-0x2000ffff"
    );
    // Not a table at all, and a record that breaks a rule.
    let code = |changes| check(changes).map_err(|error| error.code);
    assert_eq!(code(&[(0, b'X')]), Err(Code::TABLES_TABLE));
    assert_eq!(code(&[(cfmws + 0x18, 7)]), Err(Code::TABLES_RECORD));
    // Not fixed is no lie; fixed is, where somebody can unlock.
    assert_eq!(check(&[(cfmws + 0x20, 0x2F)]), Ok(()));
    let unlocked = Policy { path: PathPolicy::Unlocked, ..Policy::default() };
    let mut m = simple();
    let done = committed(&mut m, &unlocked);
    assert_eq!(
        cross_check(&good, &m.topology, &done),
        Err(Code::TABLES_FIXED_UNLOCKED.at(Place::window(Hpa(16 * GIB))))
    );
    // An interleave that the decoders do not have: two ways, with a target more.
    let mut wide = m;
    wide.bridge(8, 0x1100_0000, false);
    wide.windows[0].interleave.ways = Ways::Two;
    wide.windows[0].targets.push(8).expect("room for 16");
    let two_ways = table(&wide, &Committed::new()).expect("a table");
    let result = cross_check(&two_ways, &wide.topology, &done);
    let error = result.expect_err("one way");
    let finding = Code::VERIFY_INTERLEAVE_DIFFERS.at(error.at);
    let two_ways = Interleave::new(Ways::Two, Granularity::B256);
    let finding = finding.expected(two_ways).found(Interleave::NONE);
    assert_eq!((error.code, error.finding()), (Code::TABLES_DISAGREES, Some(finding)));
    assert_eq!(error.to_string(), format!("CEDT and decoders disagree: {finding}"));
}

#[test]
fn ranges_go_into_memory_map_and_srat_by_kind_of_memory() {
    let mut m = simple();
    let NodeKind::Device(device) = &mut m.topology.nodes[2].kind else { unreachable!() };
    (device.volatile, device.persistent) = (256 * MIB, 256 * MIB);
    let done = committed(&mut m, &Policy::default());
    let span = |base| Span::new(Hpa(base), 256 * MIB).expect("a range");
    let (first, second) = (span(16 * GIB), span(16 * GIB + 256 * MIB));
    let map: Vec<_> = done.memory_map().collect();
    assert_eq!(
        map,
        [
            MemoryRange { span: first, kind: MemoryKind::SoftReserved },
            MemoryRange { span: second, kind: MemoryKind::Reserved },
        ]
    );
    let types: Vec<u32> = map.iter().map(|range| range.kind.e820()).collect();
    assert_eq!(types, [0xEFFF_FFFF, 2]);
    let affinities: Vec<_> = done.affinities(5).collect();
    let affinity = |domain, span, non_volatile| MemoryAffinity {
        domain,
        span,
        hot_pluggable: false,
        non_volatile,
    };
    assert_eq!(affinities, [affinity(5, first, false), affinity(6, second, true)]);
    let mut buffer = [0xA5; 256];
    let table = srat(&done, IDENTITY, 5, &mut buffer).expect("an SRAT");
    // Header and fixed part of 48 bytes, two records of 40; the second: kind 1, domain 6,
    // base 0x4_1000_0000, 256 MiB, enabled and non-volatile.
    assert_eq!(table.len(), 48 + 2 * 40);
    let mut record = [0; 40];
    (record[0], record[1], record[2]) = (1, 40, 6);
    (record[11], record[12], record[19], record[28]) = (0x10, 4, 0x10, 0x05);
    assert_eq!(table[48 + 40..], record);
    let error = srat(&done, IDENTITY, 5, &mut [0; 100]).expect_err("too small");
    assert_eq!(error, Code::TABLES_NO_ROOM.error().expected(error.expected).found(100));
}

#[test]
fn persistent_and_accelerator_memory_keep_their_windows_restrictions() {
    let mut m = simple();
    let NodeKind::Device(device) = &mut m.topology.nodes[2].kind else { unreachable!() };
    device.kind = DeviceKind::Type2;
    m.windows[0].restrictions = Restrictions::from_bits(0x05);
    let done = committed(&mut m, &Policy::default());
    let bytes = table(&m, &done).expect("a table");
    assert_eq!(bytes[36 + 32 + 0x20], 0x15);
    assert_eq!(cross_check(&bytes, &m.topology, &done), Ok(()));
}
