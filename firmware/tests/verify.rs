//! Judging a machine without a plan and against one: every finding on a machine that has it.
//!
//! **Invariant**: each case changes one thing on a machine that passes, and lists all that follows
//! from it. Registers are set by hand, past every rule that the library keeps when it writes.

mod scripted;

use cxl_firmware::commit::{Receipt, commit};
use cxl_firmware::committed::Committed;
use cxl_firmware::error::{Code, Error, Fact, Place};
use cxl_firmware::plan::Plan;
use cxl_firmware::platform::Restrictions;
use cxl_firmware::policy::{PathPolicy, Policy, Probe, Request, TargetSystem};
use cxl_firmware::topology::{DeviceKind, NodeKind, Partition};
use cxl_firmware::verify::{Findings, verify, verify_plan};
use cxl_regs::hdm::Capability;
use cxl_regs::{Granularity, Interleave, Ways};
use scripted::{GIB, MIB, Machine, Ticks, accelerator, simple, switched};

const DEVICE: u64 = 0x2000_0010;
const BRIDGE: u64 = 0x1000_1010;
const DVSEC: u64 = 0x2001_0000;

const LINUX: Policy<'static> = Policy { probe: Probe::Skip, ..Policy::DEFAULT };
const SPECIFICATION: Policy<'static> = Policy { target: TargetSystem::Specification, ..LINUX };
const UNLOCKED: Policy<'static> = Policy { path: PathPolicy::Unlocked, ..LINUX };
const CONFIG_LOCK: Policy<'static> = Policy { config_lock: true, ..LINUX };

/// Commits a machine by policy.
fn committed(mut m: Machine, policy: &Policy<'_>) -> (Machine, Plan<16, 8, 16>) {
    let plan = m.plan(policy);
    let mut done = Committed::<16>::new();
    let result = commit(&mut m.hw, &mut Ticks::of(1), &m.topology, &plan, policy, &mut done);
    assert_eq!(result.map(Receipt::keep), Ok(()));
    m.hw.trace.clear();
    (m, plan)
}

/// What a verification without a plan finds, but for what is unused.
fn judge(m: &Machine, policy: &Policy<'_>) -> (Vec<Error>, Committed<16>) {
    let (mut committed, mut findings) = (Committed::new(), Findings::<16>::new());
    let mut hw = m.hw.clone();
    verify(&mut hw, &m.platform(), &m.topology, policy, &mut committed, &mut findings);
    assert_eq!(hw.writes(), [], "a verification only reads");
    let failures = findings.list().iter().filter(|finding| finding.is_failure()).count();
    assert_eq!((findings.more(), findings.passed()), (0, failures == 0));
    let unused = |finding: &&Error| finding.code == Code::VERIFY_UNUSED;
    (findings.list().iter().filter(|finding| !unused(finding)).copied().collect(), committed)
}

#[test]
fn without_a_plan_what_no_decoder_leads_to_is_named() {
    let unused = |m: &Machine| {
        let (mut done, mut findings) = (Committed::<16>::new(), Findings::<16>::new());
        let platform = m.platform();
        verify(&mut m.hw.clone(), &platform, &m.topology, &LINUX, &mut done, &mut findings);
        assert!(findings.passed());
        let list = findings.list().iter();
        let unused = list.filter(|finding| finding.code == Code::VERIFY_UNUSED).map(|finding| {
            (Partition::unpack(finding.detail.into()).unwrap(), finding.found / MIB)
        });
        unused.collect::<Vec<_>>()
    };
    use Partition::{Persistent, Volatile};
    assert_eq!(unused(&simple()), [(Volatile, 512)], "nobody has programmed anything");
    let (mut m, _) = committed(simple(), &LINUX);
    assert_eq!(unused(&m), []);
    let NodeKind::Device(device) = &mut m.topology.nodes[2].kind else { unreachable!() };
    (device.volatile, device.persistent) = (768 * MIB, GIB);
    assert_eq!(unused(&m), [(Volatile, 256), (Persistent, 1024)]);
    // The same decoder behind a skip over the volatile memory.
    let NodeKind::Device(device) = &mut m.topology.nodes[2].kind else { unreachable!() };
    device.volatile = 256 * MIB;
    m.hw.set(DEVICE + 0x14, 0x1000_0000);
    assert_eq!(unused(&m), [(Volatile, 256), (Persistent, 512)]);
}

fn codes(m: &Machine, policy: &Policy<'_>) -> Vec<u16> {
    judge(m, policy).0.iter().map(Error::code).collect()
}

#[test]
fn what_this_library_committed_passes_without_the_plan_and_with_it() {
    for policy in [LINUX, SPECIFICATION, UNLOCKED, CONFIG_LOCK] {
        for machine in [simple, switched] {
            let (m, plan) = committed(machine(), &policy);
            let (found, committed) = judge(&m, &policy);
            assert_eq!(found, []);
            assert_eq!(committed.regions.len(), plan.regions.len());
            for (region, planned) in committed.regions.iter().zip(&plan.regions) {
                assert_eq!(region.span, planned.span);
                assert_eq!(region.window, planned.window);
                assert_eq!(region.partition, planned.partition);
                assert_eq!(region.locked, policy.path == PathPolicy::LockAll);
            }
            let (mut again, mut findings) = (Committed::<16>::new(), Findings::<4>::new());
            let (mut hw, platform) = (m.hw.clone(), m.platform());
            verify_plan(&mut hw, &platform, &m.topology, &plan, &policy, &mut again, &mut findings);
            assert_eq!(findings.list(), []);
        }
    }
}

#[test]
fn regions_come_by_address_whatever_the_order_of_devices() {
    let mut m = switched();
    let right = m.topology.tree().path(cxl_firmware::topology::NodeId(6));
    let request = Request {
        device: right,
        partition: Partition::Volatile,
        window: None,
        offset: Some(0),
        size: None,
        skip: 0,
    };
    let requests = [request];
    let policy = Policy { requests: &requests, ..LINUX };
    let plan = m.plan(&policy);
    let mut done = Committed::<16>::new();
    let result = commit(&mut m.hw, &mut Ticks::of(1), &m.topology, &plan, &policy, &mut done);
    assert_eq!(result.map(Receipt::keep), Ok(()));
    m.hw.trace.clear();
    let (found, read) = judge(&m, &policy);
    assert_eq!(found, []);
    for regions in [&done.regions, &read.regions] {
        let sizes: Vec<u64> = regions.iter().map(|region| region.span.size() / MIB).collect();
        assert_eq!(sizes, [512, 256, 256]);
    }
}

#[test]
fn each_register_of_a_used_decoder_is_read_once() {
    let (m, _) = committed(simple(), &LINUX);
    let mut hw = m.hw.clone();
    let (mut done, mut findings) = (Committed::<16>::new(), Findings::<4>::new());
    verify(&mut hw, &m.platform(), &m.topology, &LINUX, &mut done, &mut findings);
    // Two decoders with seven registers, six spare controls, and a device's three enables.
    assert_eq!(hw.reads(), 2 * 7 + 6 + 3);
}

/// Registers to set, whose policy counts, and the codes of what is found.
type Case = (&'static [(u64, u32)], Policy<'static>, &'static [u16]);

#[test]
fn every_broken_register_is_found_and_named() {
    let cases: [Case; 26] = [
        // Nobody answers at the device: the bridge leads nowhere.
        (&[(DEVICE + 0x10, u32::MAX)], LINUX, &[0x0501, 0x051A]),
        // A reserved granularity.
        (&[(DEVICE + 0x10, 0x1707)], LINUX, &[0x0502, 0x051A]),
        // Decoder 1 without decoder 0.
        (
            &[
                (DEVICE + 0x10, 0),
                (DEVICE + 0x24, 4),
                (DEVICE + 0x28, 0x2000_0000),
                (DEVICE + 0x30, 0x1700),
            ],
            LINUX,
            &[0x0503],
        ),
        // Decoder 1 at the base of decoder 0 and of the same size: one of size 0 below it.
        (&[(BRIDGE + 0x24, 3), (BRIDGE + 0x30, 0x1700)], SPECIFICATION, &[0x0504]),
        // A burned spare; the same unlocked; the same where Linux does not matter.
        (
            &[(BRIDGE + 0x20, 0x2000_0000), (BRIDGE + 0x24, 4), (BRIDGE + 0x30, 0x1700)],
            LINUX,
            &[0x0505],
        ),
        (
            &[(BRIDGE + 0x20, 0x2000_0000), (BRIDGE + 0x24, 4), (BRIDGE + 0x30, 0x1600)],
            SPECIFICATION,
            &[0x0515],
        ),
        (
            &[(BRIDGE + 0x20, 0x2000_0000), (BRIDGE + 0x24, 4), (BRIDGE + 0x30, 0x1700)],
            SPECIFICATION,
            &[],
        ),
        // Both at 20 GiB, where the window ends.
        (&[(DEVICE + 0x04, 5), (BRIDGE + 0x04, 5)], LINUX, &[0x0506]),
        // More than the device has.
        (&[(DEVICE + 0x08, 0x3000_0000), (BRIDGE + 0x08, 0x3000_0000)], LINUX, &[0x050A]),
        (&[(DEVICE + 0x14, 0x1000_0000)], LINUX, &[0x050A]),
        // A skip that wraps with the size.
        (&[(DEVICE + 0x14, 0xF000_0000), (DEVICE + 0x18, u32::MAX)], LINUX, &[0x050A]),
        // The bridge claims nothing, or something else.
        (&[(BRIDGE + 0x10, 0)], LINUX, &[0x050D]),
        (&[(BRIDGE + 0x04, 6)], LINUX, &[0x051A, 0x050D]),
        // The bridge claims less; more, which only Linux minds.
        (&[(BRIDGE + 0x08, 0x1000_0000)], SPECIFICATION, &[0x050E]),
        (&[(BRIDGE + 0x08, 0x4000_0000)], LINUX, &[0x050E]),
        (&[(BRIDGE + 0x08, 0x4000_0000)], SPECIFICATION, &[]),
        // Another port.
        (&[(BRIDGE + 0x14, 4)], LINUX, &[0x050F]),
        // The bridge has type 0.
        (&[(BRIDGE + 0x10, 0x0700)], LINUX, &[0x0510]),
        // The device thinks it is one of two; the set has one member.
        (&[(DEVICE + 0x10, 0x1710)], LINUX, &[0x0511, 0x0514]),
        // Locks: the device's, the bridge's; where nobody asks.
        (&[(DEVICE + 0x10, 0x1600)], LINUX, &[0x0515]),
        (&[(BRIDGE + 0x10, 0x1600)], LINUX, &[0x0515]),
        (&[(BRIDGE + 0x10, 0x1600)], UNLOCKED, &[]),
        // Enables.
        (&[(0x2000_0004, 0), (DVSEC + 0x0C, 2)], LINUX, &[0x0516, 0x0517]),
        (&[(0x2000_0004, 0)], LINUX, &[0x0516]),
        (&[(DVSEC + 0x0C, 2)], LINUX, &[0x0517]),
        (&[], CONFIG_LOCK, &[0x0518]),
    ];
    for (registers, policy, expected) in cases {
        let (mut m, _) = committed(simple(), &LINUX);
        for &(address, value) in registers {
            m.hw.set(address, value);
        }
        let (found, done) = judge(&m, &policy);
        let found_codes: Vec<u16> = found.iter().map(Error::code).collect();
        assert_eq!(found_codes, expected, "{registers:x?}: {found:?}");
        // What is wrong beside a path, or with its locks, leaves the region whole.
        let beside = [0x0503, 0x0504, 0x0505, 0x0515, 0x0518];
        let whole = expected.iter().all(|code| beside.contains(code));
        assert_eq!(done.regions.len(), usize::from(whole), "{registers:x?}: {found:?}");
    }
}

#[test]
fn two_decoders_of_one_component_that_claim_an_address_break_the_path() {
    for start in [DEVICE, BRIDGE] {
        let (mut m, _) = committed(simple(), &LINUX);
        // Decoder 1 is decoder 0 again, 256 MiB up.
        for offset in (0x00..0x1C).step_by(4) {
            let value = m.hw.get(start + offset);
            m.hw.set(start + 0x20 + offset, value);
        }
        m.hw.set(start + 0x20, 0x1000_0000);
        let (found, done) = judge(&m, &LINUX);
        let first = found[0];
        let overlap = Code::VERIFY_OVERLAP.at(first.at);
        assert_eq!(first, overlap.expected(0x4_2000_0000u64).found(0x4_1000_0000u64));
        assert_eq!(first.at.decoder(), Some(1));
        // The pair is named once, by the later of the two, from whichever it was looked at.
        let overlap = |finding: &&Error| finding.code == Code::VERIFY_OVERLAP;
        assert_eq!(found.iter().filter(overlap).count(), 1, "{found:?}");
        assert!(done.regions.is_empty(), "{found:?}");
    }
}

#[test]
fn a_bridge_that_claims_what_another_ones_device_has_leads_nowhere() {
    let mut m = simple();
    m.bridge(8, 0x1100_0000, true);
    let (mut m, _) = committed(m, &LINUX);
    for offset in (0x00..0x1C).step_by(4) {
        let value = m.hw.get(BRIDGE + offset);
        m.hw.set(0x1100_1010 + offset, value);
    }
    let (found, done) = judge(&m, &LINUX);
    let [finding] = found[..] else { panic!("{found:?}") };
    assert_eq!(
        finding,
        Code::VERIFY_LEADS_NOWHERE.at(finding.at).expected(16 * GIB).found(512 * MIB)
    );
    assert_eq!((finding.at.uid(), finding.at.decoder()), (Some(8), Some(0)));
    assert_eq!(done.regions.len(), 1);
}

#[test]
fn what_an_earlier_verification_found_is_forgotten() {
    let (m, _) = committed(simple(), &LINUX);
    let (mut done, mut findings) = (Committed::<16>::new(), Findings::<4>::new());
    for (unlock, codes) in [(true, &[0x0515][..]), (false, &[])] {
        let mut hw = m.hw.clone();
        if unlock {
            hw.set(BRIDGE + 0x10, 0x1600);
        }
        verify(&mut hw, &m.platform(), &m.topology, &LINUX, &mut done, &mut findings);
        assert!(findings.list().iter().map(Error::code).eq(codes.iter().copied()));
        assert_eq!((findings.passed(), done.decoders.len()), (!unlock, 2));
    }
}

#[test]
fn an_unlocked_decoder_on_the_path_is_named_with_component_and_number() {
    for (address, place, control) in [
        (0x2000_0040, "bridge 7 port 1.4 device, decoder 1", "0x00001600"),
        (0x1800_0060, "bridge 7 port 1 upstream port, decoder 2", "0x00001600"),
        (0x1000_1020, "bridge 7, decoder 0", "0x00001600"),
    ] {
        let (mut m, _) = committed(switched(), &LINUX);
        let locked = m.hw.get(address);
        m.hw.set(address, locked & !0x100);
        let (found, done) = judge(&m, &LINUX);
        let control = format!("HDM Decoder Control is {control}");
        let expected = format!("{place}: not locked, {control} (UnlockedOnPath)");
        assert_eq!(found.iter().map(Error::to_string).collect::<Vec<_>>(), [expected]);
        assert_eq!(done.regions.iter().filter(|region| !region.locked).count(), 1);
    }
}

#[test]
fn windows_are_judged_too() {
    type Change = fn(&mut Machine);
    let cases: [(Change, &[u16]); 5] = [
        (|m| m.windows[0].targets = [8].into_iter().collect(), &[0x0507]),
        (|m| m.windows[0].restrictions = Restrictions::from_bits(0x0D), &[0x0508]),
        (|m| m.windows[0].restrictions = Restrictions::from_bits(0x0B), &[0x0509]),
        (|m| (m.windows[0].base, m.windows[0].size) = (None, 64 * GIB), &[0x0506]),
        // The window interleaves two bridges, the device does not.
        (|m| m.windows[0].interleave = Interleave::new(Ways::Two, Granularity::B256), &[0x0511]),
    ];
    for (change, expected) in cases {
        let (mut m, _) = committed(simple(), &LINUX);
        change(&mut m);
        assert_eq!(codes(&m, &LINUX), expected);
    }
}

#[test]
fn topology_is_judged_too() {
    // The device's memory turns out to be of two kinds.
    let (mut m, _) = committed(simple(), &LINUX);
    if let NodeKind::Device(device) = &mut m.topology.nodes[2].kind {
        (device.volatile, device.persistent) = (256 * MIB, 256 * MIB);
    }
    assert_eq!(codes(&m, &LINUX), [0x050B]);
    // A switch without decoders.
    let (mut m, _) = committed(switched(), &LINUX);
    m.topology.nodes[2].hdm = None;
    assert_eq!(codes(&m, &LINUX), [0x050C, 0x050C, 0x050C]);
    // A bridge without decoders, one port: worth knowing, no failure.
    let (mut m, _) = committed(simple(), &LINUX);
    m.topology.nodes[0].hdm = None;
    let (found, done) = judge(&m, &LINUX);
    assert_eq!(found, [Code::VERIFY_PASS_THROUGH.at(Place::bridge(7))]);
    assert!(done.regions[0].locked);
    // The same with a second port.
    m.port(cxl_firmware::topology::NodeId(0), NodeKind::RootPort, 9);
    assert_eq!(codes(&m, &LINUX), [0x050C]);
}

/// Two ports below bridge 7, a device each, interleaved 2 ways at 256 bytes below the bridge.
fn interleaved() -> Machine {
    let mut m = Machine::new();
    let bridge = m.bridge(7, 0x1000_0000, true);
    for (number, block) in [(3, 0x2000_0000), (5, 0x2100_0000)] {
        let port = m.port(bridge, NodeKind::RootPort, number);
        m.device(port, block, DeviceKind::Type3, [512 * MIB, 0]);
        // 1 GiB at 16 GiB.
        for (offset, value) in [(0x14, 4), (0x18, 0x4000_0000), (0x20, 0x1710), (0x04, 2)] {
            m.hw.set(block + offset, value);
        }
        m.hw.set(block + 0x1_000C, 6);
    }
    for (offset, value) in [(0x04, 4), (0x08, 0x4000_0000), (0x10, 0x1710), (0x14, 0x0503)] {
        m.hw.set(BRIDGE + offset, value);
    }
    m.window(16 * GIB, 4 * GIB, &[7]);
    m
}

#[test]
fn interleave_sets_compose_and_have_all_members() {
    let m = interleaved();
    let (found, done) = judge(&m, &LINUX);
    assert_eq!(found, []);
    assert_eq!(done.regions[0].interleave, Interleave::new(Ways::Two, Granularity::B256));
    // The bridge at 512 bytes, the devices at 256.
    let mut m = interleaved();
    m.hw.set(BRIDGE + 0x10, 0x1711);
    assert_eq!(codes(&m, &LINUX), [0x0511, 0x0511]);
    // One member is missing.
    let mut m = interleaved();
    m.hw.set(0x2100_0020, 0);
    let (found, done) = judge(&m, &LINUX);
    let [finding] = found[..] else { panic!("{found:?}") };
    assert_eq!(finding, Code::VERIFY_MEMBERS.at(finding.at).expected(2).found(1));
    assert!(done.regions.is_empty());
    // A third one, behind a port that is not in the list.
    let mut m = interleaved();
    let port = m.port(cxl_firmware::topology::NodeId(0), NodeKind::RootPort, 6);
    m.device(port, 0x2200_0000, DeviceKind::Type3, [512 * MIB, 0]);
    for offset in (0x00..0x40).step_by(4) {
        let value = m.hw.get(0x2000_0000 + offset);
        m.hw.set(0x2200_0000 + offset, value);
    }
    m.hw.set(0x2201_000C, 6);
    assert_eq!(codes(&m, &LINUX), [0x050F, 0x0514]);
    // Bridge and window select on the same bit.
    let mut m = interleaved();
    m.windows[0].interleave = Interleave::new(Ways::Two, Granularity::B256);
    assert_eq!(codes(&m, &LINUX), [0x0512, 0x0512]);
}

#[test]
fn two_interleaving_switch_levels_are_refused() {
    let mut m = Machine::new();
    let bridge = m.bridge(7, 0x1000_0000, true);
    let root = m.port(bridge, NodeKind::RootPort, 0);
    let upper = m.upstream(root, 0x1800_0000);
    let middle = m.port(upper, NodeKind::DownstreamPort, 0);
    let lower = m.upstream(middle, 0x1900_0000);
    let port = m.port(lower, NodeKind::DownstreamPort, 0);
    m.device(port, 0x2000_0000, DeviceKind::Type3, [512 * MIB, 0]);
    for (start, control) in [
        (0x2000_0010u64, 0x1720),
        (0x1900_0010, 0x1710),
        (0x1800_0010, 0x1711),
        (0x1000_1010, 0x1700),
    ] {
        m.hw.set(start + 0x04, 4);
        m.hw.set(start + 0x08, 0x4000_0000);
        m.hw.set(start + 0x10, control);
    }
    for start in [0x1900_0010u64, 0x1800_0010] {
        m.hw.set(start + 0x14, 0x0100);
    }
    m.hw.set(0x2000_0004, 2);
    m.hw.set(DVSEC + 0x0C, 6);
    m.window(16 * GIB, 4 * GIB, &[7]);
    assert_eq!(codes(&m, &LINUX), [0x0513, 0x0514]);
}

#[test]
fn back_invalidate_that_is_off_somewhere_is_found() {
    let machine = || {
        let mut m = simple();
        let NodeKind::Device(device) = &mut m.topology.nodes[2].kind else { unreachable!() };
        device.kind = DeviceKind::Type2;
        m.back_invalidate(cxl_firmware::topology::NodeId(1), 0x4000_0000, false);
        m.back_invalidate(cxl_firmware::topology::NodeId(2), 0x4001_0000, false);
        committed(m, &LINUX).0
    };
    assert_eq!(codes(&machine(), &LINUX), []);
    // The window's BI bit means nothing without device-coherent.
    let mut m = machine();
    m.windows[0].restrictions = Restrictions::from_bits(0x2E);
    assert_eq!(codes(&m, &LINUX), [0x0508]);
    for address in [0x4000_0004, 0x4001_0004] {
        let mut m = machine();
        m.hw.set(address, 0);
        assert_eq!(codes(&m, &LINUX), [0x0519]);
    }
    let mut m = machine();
    m.topology.nodes[1].back_invalidate = None;
    assert_eq!(codes(&m, &LINUX), [0x0519]);
}

#[test]
fn back_invalidate_is_asked_of_the_devices_that_use_it() {
    let mut m = Machine::new();
    let bridge = m.bridge(7, 0x1000_0000, true);
    let (left, right) =
        (m.port(bridge, NodeKind::RootPort, 0), m.port(bridge, NodeKind::RootPort, 1));
    m.device(left, 0x2000_0000, DeviceKind::Type3, [512 * MIB, 0]);
    let device = m.device(right, 0x2100_0000, DeviceKind::Type2, [512 * MIB, 0]);
    m.back_invalidate(right, 0x4000_0000, false);
    m.back_invalidate(device, 0x4001_0000, false);
    m.window(16 * GIB, 4 * GIB, &[7]);
    let (mut m, _) = committed(m, &LINUX);
    assert_eq!(codes(&m, &LINUX), []);
    m.hw.set(0x4001_0004, 0);
    let (found, _) = judge(&m, &LINUX);
    let path = m.topology.tree().path(device);
    assert_eq!(found, [Code::VERIFY_BACK_INVALIDATE_BLOCKED.at(path).above(path)]);
    assert_eq!(path.ports(), [1]);
}

#[test]
fn back_invalidate_that_was_never_committed_is_found() {
    // Status of the switch's route table and of the port below it: committed, error.
    for (explicit, status, expected) in [
        (true, 0x2301, &[][..]),
        (true, 0x2300, &[0x0519]),
        (true, 0x2302, &[0x0519]),
        (true, 0x2303, &[0x0519]),
        (false, 0x2300, &[]),
    ] {
        let (done, _) = committed(accelerator(explicit), &LINUX);
        for address in [0x4001_0008, 0x4002_0008] {
            let mut m = Machine { hw: done.hw.clone(), ..accelerator(explicit) };
            m.hw.set(address, status);
            assert_eq!(codes(&m, &LINUX), expected, "{explicit} {address:#x} {status:#x}");
        }
    }
}

#[test]
fn a_machine_is_held_against_the_plan() {
    let against = |m: &Machine, plan: &Plan<16, 8, 16>, policy: &Policy<'_>| {
        let (mut done, mut findings) = (Committed::<16>::new(), Findings::<16>::new());
        let (mut hw, platform) = (m.hw.clone(), m.platform());
        verify_plan(&mut hw, &platform, &m.topology, plan, policy, &mut done, &mut findings);
        findings.list().iter().map(Error::code).collect::<Vec<_>>()
    };
    // The whole path moved: whole in itself, but not what was planned.
    let (mut m, plan) = committed(simple(), &LINUX);
    m.hw.set(DEVICE, 0x2000_0000);
    m.hw.set(BRIDGE, 0x2000_0000);
    assert_eq!(codes(&m, &LINUX), []);
    assert_eq!(against(&m, &plan, &LINUX), [0x051C, 0x051C]);
    // A planned decoder is gone; there is one that was not planned.
    let (mut m, plan) = committed(simple(), &LINUX);
    m.hw.set(BRIDGE + 0x10, 0);
    assert_eq!(against(&m, &plan, &LINUX), [0x050D, 0x051B]);
    let (m, _) = committed(simple(), &LINUX);
    assert_eq!(against(&m, &Plan::new(), &LINUX), [0x051D, 0x051D]);
    // Where the guest programs, whatever it did was its own.
    let guest = Policy { path: PathPolicy::GuestPrograms, ..LINUX };
    assert_eq!(against(&m, &Plan::new(), &guest), []);
}

#[test]
fn a_device_whose_enables_are_all_ones_does_not_answer() {
    let (m, _) = committed(simple(), &LINUX);
    // HDM Decoder Global Control, DVSEC CXL Control, DVSEC CXL Lock.
    for at in [0x2000_0004, DVSEC + 0x0C, DVSEC + 0x14] {
        let (mut hw, platform) = (m.hw.clone(), m.platform());
        hw.set(at, u32::MAX);
        let (mut seen, mut findings) = (Committed::<16>::new(), Findings::<8>::new());
        verify(&mut hw, &platform, &m.topology, &LINUX, &mut seen, &mut findings);
        let said = findings.list().iter().map(|finding| finding.code);
        assert!({ said }.any(|code| code == Code::VERIFY_SILENT), "{:?}", findings.list());
        assert!(seen.devices.is_empty() && seen.unread && seen.regions.is_empty());
    }
}

#[test]
fn more_than_fits_is_counted() {
    let (m, _) = committed(switched(), &LINUX);
    let (mut hw, platform) = (m.hw.clone(), m.platform());
    let (mut small, mut findings) = (Committed::<4>::new(), Findings::<1>::new());
    verify(&mut hw, &platform, &m.topology, &LINUX, &mut small, &mut findings);
    assert_eq!(findings.list(), [Code::VERIFY_CAPACITY.error().expected(4)]);
    assert!(findings.more() > 0 && !findings.passed());
}

#[test]
fn a_capability_that_lost_its_count_hides_nothing() {
    // The topology says how many decoders there are; what its capability cannot do is illegal.
    let (mut m, _) = committed(simple(), &LINUX);
    let hdm = m.topology.nodes[0].hdm.as_mut().expect("the bridge's");
    hdm.capability = Capability::from_bits(0x0000_0302);
    assert_eq!(codes(&m, &LINUX), [0x0502, 0x050D]);
}
