//! Committing a plan: the exact order of accesses, and what a fault at any step leaves behind.
//!
//! **Invariant**: addresses and values are typed by hand; the fake hardware in `scripted` shares no
//! table with the library.

mod scripted;

use cxl_firmware::commit::{Receipt, commit};
use cxl_firmware::committed::{Committed, Fate, Place};
use cxl_firmware::error::{Code, Error, Fact, registers};
use cxl_firmware::plan::Plan;
use cxl_firmware::policy::{PathPolicy, Policy, Probe, Request, TargetSystem};
use cxl_firmware::topology::{DeviceKind, NodeId, NodeKind, Partition, Path};
use cxl_regs::access::Component;
use scripted::{Access, Fake, GIB, MIB, Machine, OnCommit, Ticks, accelerator, simple, switched};

/// Decoder 0 of the only device, of the bridge; the device's DVSEC.
const DEVICE: u64 = 0x2000_0010;
const BRIDGE: u64 = 0x1000_1010;
const DVSEC: u64 = 0x2001_0000;

fn path(uid: u32, ports: &[u8]) -> Path {
    Path::new(uid, ports).expect("a short path")
}

/// The number of a register by its name.
fn register(name: &str) -> u16 {
    let found = registers().find(|(_, other)| *other == name);
    found.map(|(number, _)| number).expect("an error can name it")
}

fn refusal(result: Result<(), Error>) -> Option<Code> {
    result.err().map(|error| error.code)
}

const UNLOCKED: Policy<'static> =
    Policy { path: PathPolicy::Unlocked, probe: Probe::Skip, ..Policy::DEFAULT };
const CONFIG_LOCK: Policy<'static> =
    Policy { path: PathPolicy::LockAll, config_lock: true, ..UNLOCKED };

fn run(
    m: &mut Machine,
    plan: &Plan<16, 8, 16>,
    policy: &Policy<'_>,
) -> (Result<(), Error>, Committed<16>) {
    let mut committed = Committed::new();
    let result = commit(&mut m.hw, &mut Ticks::of(1), &m.topology, plan, policy, &mut committed);
    (result.map(Receipt::keep), committed)
}

fn fates(committed: &Committed<16>) -> Vec<Fate> {
    committed.decoders.iter().map(|entry| entry.fate).collect()
}

#[test]
fn one_path_is_written_in_the_order_of_the_specification() {
    let mut m = simple();
    let policy = Policy { config_lock: true, ..Policy::default() };
    let plan = m.plan(&policy);
    let (result, committed) = run(&mut m, &plan, &policy);
    assert_eq!(result, Ok(()));
    assert_eq!(
        m.hw.writes(),
        [
            // The device's decoder 0: 512 MiB at 16 GiB, host-only, Lock On Commit.
            (0x2000_0010, 0x0000_0000),
            (0x2000_0014, 0x0000_0004),
            (0x2000_0018, 0x2000_0000),
            (0x2000_001C, 0x0000_0000),
            (0x2000_0024, 0x0000_0000),
            (0x2000_0028, 0x0000_0000),
            (0x2000_0020, 0x0000_1100),
            // Range 1 base.
            (0x2001_0020, 0x0000_0004),
            (0x2001_0024, 0x0000_0000),
            // The bridge's decoder 0: the same range to port 3.
            (0x1000_1010, 0x0000_0000),
            (0x1000_1014, 0x0000_0004),
            (0x1000_1018, 0x2000_0000),
            (0x1000_101C, 0x0000_0000),
            (0x1000_1024, 0x0000_0003),
            (0x1000_1028, 0x0000_0000),
            (0x1000_1020, 0x0000_1100),
            // Commit the device, HDM Decoder Enable, Mem_Enable with Viral_Status kept.
            (0x2000_0020, 0x0000_1300),
            (0x2000_0004, 0x0000_0002),
            (0x2001_000C, 0x0000_0006),
            // Commit the bridge, then CONFIG_LOCK beside the read-only Capability2.
            (0x1000_1020, 0x0000_1300),
            (0x2001_0014, 0xCAFE_0001),
        ]
    );
    assert_eq!(m.hw.get(0x2000_0020), 0x1700);
    assert_eq!(m.hw.get(0x1000_1020), 0x1700);
    assert_eq!(m.hw.get(DVSEC + 0x0C), 0x4000_0006, "Viral_Status is still set");
    assert_eq!(m.hw.undefined, [] as [String; 0]);
    assert_eq!(fates(&committed), [Fate::Done; 2]);
    let region = committed.regions[0];
    assert_eq!(
        (region.span.base().0, region.span.size(), region.locked),
        (16 * GIB, 512 * MIB, true)
    );
    let device = committed.devices[0];
    assert!(device.decoder_enable && device.mem_enable && device.config_lock);
    assert!(!device.cache_enable);
}

#[test]
fn a_decoder_costs_eight_writes_and_eight_reads_and_its_first_look_seven_reads() {
    let mut m = simple();
    let plan = m.plan(&Policy::default());
    let (result, _) = run(&mut m, &plan, &Policy::default());
    assert_eq!(result, Ok(()));
    for (start, spares) in [(DEVICE, 3), (BRIDGE, 3)] {
        let own = start..start + 0x20;
        let others = start + 0x20..start + 0x80;
        let count = |range: &std::ops::Range<u64>, wanted: fn(&Access) -> Option<u64>| {
            m.hw.trace.iter().filter_map(wanted).filter(|address| range.contains(address)).count()
        };
        let read = |access: &Access| match access {
            Access::Read(address) => Some(*address),
            Access::Write(..) => None,
        };
        let write = |access: &Access| match access {
            Access::Write(address, _) => Some(*address),
            Access::Read(_) => None,
        };
        assert_eq!(count(&own, write), 7 + 1);
        assert_eq!(count(&own, read), 7 + 7 + 1);
        assert_eq!((count(&others, write), count(&others, read)), (0, spares));
    }
}

#[test]
fn switches_commit_between_devices_and_bridges() {
    let mut m = switched();
    let plan = m.plan(&Policy::default());
    let (result, committed) = run(&mut m, &plan, &Policy::default());
    assert_eq!(result, Ok(()));
    let control = |start: u64, n: u64| start + 0x20 + 0x20 * n;
    let commits: Vec<u64> =
        m.hw.writes()
            .into_iter()
            .filter(|(_, value)| value & 0xFFFF == 0x1300)
            .map(|(address, _)| address)
            .collect();
    assert_eq!(
        commits,
        [
            control(0x2000_0000, 0),
            control(0x2000_0000, 1),
            control(0x2100_0000, 0),
            control(0x1800_0000, 0),
            control(0x1800_0000, 1),
            control(0x1800_0000, 2),
            control(0x1000_1000, 0),
            control(0x1000_1000, 1),
            control(0x1000_1000, 2),
        ]
    );
    assert_eq!(committed.regions.len(), 3);
    assert_eq!(m.hw.undefined, [] as [String; 0]);
}

#[test]
fn a_second_run_writes_nothing_and_says_the_same() {
    for policy in [Policy::default(), UNLOCKED, CONFIG_LOCK] {
        let mut m = switched();
        let plan = m.plan(&policy);
        let (first, before) = run(&mut m, &plan, &policy);
        assert_eq!(first, Ok(()));
        m.hw.trace.clear();
        let (second, after) = run(&mut m, &plan, &policy);
        assert_eq!((second, m.hw.writes()), (Ok(()), vec![]));
        assert_eq!(before.decoders, after.decoders);
        assert_eq!(before.regions, after.regions);
        assert_eq!(before.devices, after.devices);
    }
}

#[test]
fn what_an_earlier_run_left_in_the_callers_structure_is_forgotten() {
    let mut committed = Committed::<16>::new();
    for (mut m, decoders, regions, devices) in [(switched(), 9, 3, 2), (simple(), 2, 1, 1)] {
        let plan = m.plan(&Policy::default());
        let policy = Policy::default();
        let mut clock = Ticks::of(1);
        let result = commit(&mut m.hw, &mut clock, &m.topology, &plan, &policy, &mut committed);
        assert_eq!(result.map(Receipt::keep), Ok(()));
        let counts = (committed.decoders.len(), committed.regions.len(), committed.devices.len());
        assert_eq!(counts, (decoders, regions, devices));
    }
}

/// Runs on a machine with one fault and checks that it was put back to the last bit.
fn restored(mut m: Machine, policy: &Policy<'_>) -> Error {
    let plan = m.plan(policy);
    let before = m.hw.dwords.clone();
    let (result, committed) = run(&mut m, &plan, policy);
    let error = result.expect_err("a fault must be noticed");
    assert_eq!(m.hw.dwords, before, "after {error}");
    assert_eq!(m.hw.undefined, [] as [String; 0], "after {error}");
    assert!(committed.regions.is_empty());
    for entry in &committed.decoders {
        assert!(matches!(entry.fate, Fate::Untouched | Fate::RolledBack), "after {error}");
    }
    error
}

/// A machine whose registers hold leftovers that nobody committed.
fn with_leftovers(mut m: Machine) -> Machine {
    for (start, n) in [(DEVICE, 0u64), (DEVICE, 1), (BRIDGE, 0)] {
        let at = start + 0x20 * n;
        for (offset, value) in [
            (0x00, 0x9000_0000),
            (0x04, 0x77),
            (0x08, 0x3000_0000),
            (0x0C, 0x55),
            (0x10, 0x1123),
            (0x14, 0xF000_0000),
            (0x18, 0x33),
        ] {
            m.hw.set(at + offset, value);
        }
    }
    // Mem_Enable and the range bases outlived a reset, as on QEMU.
    m.hw.set(DVSEC + 0x0C, 0x4000_0006);
    m.hw.set(DVSEC + 0x20, 0x12);
    m.hw.set(DVSEC + 0x24, 0xB000_0000);
    m.hw.set(DVSEC + 0x30, 0x34);
    m
}

#[test]
fn a_write_dropped_before_the_first_lock_is_noticed_and_undone() {
    let writes = {
        let mut m = with_leftovers(simple());
        let plan = m.plan(&Policy::default());
        let (result, _) = run(&mut m, &plan, &Policy::default());
        assert_eq!(result, Ok(()));
        m.hw.writes()
    };
    let first_commit = writes.iter().position(|(_, value)| *value == 0x1300).expect("a commit");
    assert_eq!(first_commit, 1 + 7 + 2 + 7);
    for (number, &(address, value)) in writes.iter().take(first_commit).enumerate() {
        let mut m = with_leftovers(simple());
        m.hw.dropped = Some(number);
        if m.hw.get(address) == value {
            // Writing what is there already: a lost write is no fault.
            continue;
        }
        let error = restored(m, &Policy::default());
        let kinds = [Code::COMMIT_NOT_KEPT, Code::COMMIT_DEVICE_NOT_KEPT];
        assert!(kinds.contains(&error.code), "write {number} lost: {error}");
        assert_eq!(error.expected, value.into(), "write {number} at {address:#x}: {error}");
    }
    // The write that asks to commit.
    let mut m = with_leftovers(simple());
    m.hw.dropped = Some(first_commit);
    assert_eq!(restored(m, &Policy::default()).code, Code::COMMIT_TIMEOUT);
}

#[test]
fn every_fault_with_the_unlocked_policy_is_undone() {
    let writes = {
        let mut m = switched();
        let plan = m.plan(&UNLOCKED);
        assert_eq!(run(&mut m, &plan, &UNLOCKED).0, Ok(()));
        m.hw.writes()
    };
    let mut noticed = 0;
    for (number, (address, value)) in writes.iter().enumerate() {
        let mut m = switched();
        if m.hw.get(*address) == *value {
            continue;
        }
        m.hw.dropped = Some(number);
        restored(m, &UNLOCKED);
        noticed += 1;
    }
    // 9 decoders: Control twice, base high, one size dword and, in most, a target; two devices.
    assert!(noticed > 9 * 4, "{noticed}");
    for control in writes.iter().filter(|(_, value)| *value == 0x1200).map(|(at, _)| *at) {
        for fault in [OnCommit::Error, OnCommit::Never] {
            let mut m = switched();
            m.hw.on_commit.insert(control, fault);
            let error = restored(m, &UNLOCKED);
            let expected = match fault {
                OnCommit::Error => Code::COMMIT_REFUSED,
                _ => Code::COMMIT_TIMEOUT,
            };
            assert_eq!(error.code, expected, "{control:#x}: {error}");
        }
    }
}

#[test]
fn a_stuck_or_hardwired_bit_is_found_before_anything_is_locked() {
    // Base low, base high, size low, size high, IG, IW, Lock, type, skip or target.
    let faults = [
        (0x00, 0x1000_0000, 0x1000_0000),
        (0x04, 0x0000_0004, 0),
        (0x08, 0x2000_0000, 0),
        (0x0C, 0x8000_0000, 0x8000_0000),
        (0x10, 0x0000_0001, 1),
        (0x10, 0x0000_0010, 0x10),
        (0x10, 0x0000_0100, 0),
        (0x10, 0x0000_1000, 0),
        (0x14, 0x1000_0000, 0x1000_0000),
        (0x18, 0x0000_0001, 1),
    ];
    for start in [DEVICE, BRIDGE] {
        for (offset, mask, bits) in faults {
            let mut m = simple();
            m.hw.stuck = Some((start + offset, mask, bits));
            let found = m.hw.get(start + offset) & !mask | bits;
            m.hw.set(start + offset, found);
            let error = restored(m, &Policy::default());
            assert_eq!(error.code, Code::COMMIT_NOT_KEPT, "{start:#x}+{offset:#x}: {error}");
            assert_eq!(error.at.decoder(), Some(0));
            let (expected, found) = (error.expected as u32, error.found as u32);
            assert_eq!(expected & mask, !bits & mask, "{error}");
            assert_eq!(found & mask, bits, "{error}");
        }
    }
}

#[test]
fn after_the_first_lock_the_report_names_what_is_stranded() {
    use Fate::{Done, RolledBack, Stranded};
    let control = |start: u64, n: u64| start + 0x20 + 0x20 * n;
    let (left, right, switch, bridge) = (0x2000_0000, 0x2100_0000, 0x1800_0000, 0x1000_1000);
    // In order of the plan: left 0 and 1, right 0, switch 0 to 2, bridge 0 to 2. Regions by
    // address: left volatile, left persistent, right.
    let (s, r, d) = (Stranded, RolledBack, Done);
    let cases = [
        (control(left, 0), [r, r, r, r, r, r, r, r, r]),
        (control(left, 1), [s, r, r, r, r, r, r, r, r]),
        (control(right, 0), [s, s, r, r, r, r, r, r, r]),
        (control(switch, 0), [s, s, s, r, r, r, r, r, r]),
        (control(switch, 2), [s, s, s, s, s, r, r, r, r]),
        (control(bridge, 0), [s, s, s, s, s, s, r, r, r]),
        (control(bridge, 1), [d, s, s, d, s, s, d, r, r]),
        (control(bridge, 2), [d, d, s, d, d, s, d, d, r]),
    ];
    for (at, expected) in cases {
        for fault in [OnCommit::Error, OnCommit::Never, OnCommit::Unlocked] {
            let mut m = switched();
            m.hw.on_commit.insert(at, fault);
            let before = m.hw.dwords.clone();
            let plan = m.plan(&Policy::default());
            let (result, committed) = run(&mut m, &plan, &Policy::default());
            let error = result.expect_err("a fault must be noticed");
            assert_eq!(fates(&committed), expected, "{at:#x} {fault:?}: {error}");
            assert_eq!(m.hw.undefined, [] as [String; 0]);
            let done = expected.iter().take(3).filter(|fate| **fate == Done).count();
            assert_eq!(committed.regions.len(), done);
            // What is not locked reads as before; a device that serves nothing is off.
            for (planned, fate) in plan.decoders.iter().zip(expected) {
                let node = m.topology.tree().get(planned.node).expect("a node");
                let start = node.hdm.expect("decoders").block.0 + 0x10;
                let at = start + 0x20 * u64::from(planned.index);
                let changed = (0..7).any(|n| m.hw.get(at + 4 * n) != before[&(at + 4 * n)]);
                assert_eq!(changed, fate != RolledBack, "{error}");
            }
            for (device, serves) in [(left, expected[0] == d), (right, false)] {
                assert_eq!(m.hw.get(device + 4) & 2 != 0, serves, "{error}");
                assert_eq!(m.hw.get(device + 0x1_000C) & 4 != 0, serves, "{error}");
            }
            for (dvsec, serves) in [(left + 0x1_0000, expected[0] == d), (right + 0x1_0000, false)]
            {
                let changed = (0..14).any(|n| m.hw.get(dvsec + 4 * n) != before[&(dvsec + 4 * n)]);
                assert_eq!(changed, serves, "{error}");
            }
        }
    }
}

#[test]
fn a_device_that_does_not_switch_on_strands_only_itself() {
    for (address, name) in
        [(0x2000_0004, "HDM Decoder Global Control"), (DVSEC + 0x0C, "DVSEC CXL Control")]
    {
        let mut m = simple();
        let found = m.hw.get(address);
        m.hw.stuck = Some((address, u32::MAX, found));
        let plan = m.plan(&Policy::default());
        let (result, committed) = run(&mut m, &plan, &Policy::default());
        let error = result.expect_err("it does not switch on");
        let expected = (Code::COMMIT_DEVICE_NOT_KEPT, register(name));
        assert_eq!((error.code, error.detail), expected, "{error}");
        assert_eq!(fates(&committed), [Fate::Stranded, Fate::RolledBack]);
        assert!(committed.regions.is_empty());
    }
}

#[test]
fn config_lock_that_does_not_hold_is_an_error_and_the_region_stays() {
    let mut m = simple();
    m.hw.stuck = Some((DVSEC + 0x14, 1, 0));
    let plan = m.plan(&CONFIG_LOCK);
    let (result, committed) = run(&mut m, &plan, &CONFIG_LOCK);
    let at = m.topology.tree().path(NodeId(2));
    let not_kept = Code::COMMIT_DEVICE_NOT_KEPT.at(at).detail(register("DVSEC CXL Lock"));
    assert_eq!(result, Err(not_kept.expected(1).found(0)));
    assert_eq!(fates(&committed), [Fate::Done; 2]);
    assert_eq!(committed.regions.len(), 1);
}

#[test]
fn commits_may_take_polls_and_polls_only_read() {
    for polls in [1, 2, 50] {
        let mut m = simple();
        m.hw.on_commit.insert(DEVICE + 0x10, OnCommit::After(polls));
        let plan = m.plan(&Policy::default());
        let (result, _) = run(&mut m, &plan, &Policy::default());
        assert_eq!(result, Ok(()));
        let asked = m.hw.trace.iter().position(|a| *a == Access::Write(DEVICE + 0x10, 0x1300));
        let after = &m.hw.trace[asked.expect("a commit") + 1..];
        let count = after.iter().take_while(|a| **a == Access::Read(DEVICE + 0x10)).count();
        assert_eq!(count, polls as usize + 1);
    }
}

#[test]
fn a_commit_that_never_ends_is_given_up_by_the_clock_or_by_the_polls() {
    // A clock that runs; one that stands still.
    for (step, least) in [(100, 10_000), (0, 0)] {
        let mut m = simple();
        m.hw.on_commit.insert(DEVICE + 0x10, OnCommit::Never);
        let plan = m.plan(&Policy::default());
        let mut committed = Committed::<16>::new();
        let result = commit(
            &mut m.hw,
            &mut Ticks::of(step),
            &m.topology,
            &plan,
            &Policy::default(),
            &mut committed,
        );
        let error = result.expect_err("no result");
        let (control, polls) = <(u32, u32)>::unpack(error.found).unwrap();
        assert_eq!((error.code, control), (Code::COMMIT_TIMEOUT, 0x1300), "{error}");
        let microseconds = error.expected;
        assert!(microseconds >= least && microseconds <= 10_100, "{microseconds}");
        assert!(polls <= 40_000, "{polls}");
        assert_eq!(fates(&committed), [Fate::RolledBack; 2]);
    }
}

#[test]
fn hardware_that_falls_silent_at_any_access_ends_in_an_error() {
    let whole = {
        let mut m = simple();
        let plan = m.plan(&CONFIG_LOCK);
        assert_eq!(run(&mut m, &plan, &CONFIG_LOCK).0, Ok(()));
        m.hw.trace.len()
    };
    for limit in 0..whole - 3 {
        let mut m = simple();
        m.hw.silent_after = Some(limit);
        let plan = m.plan(&CONFIG_LOCK);
        let (result, committed) = run(&mut m, &plan, &CONFIG_LOCK);
        let error = result.expect_err("nobody answers");
        assert!(m.hw.trace.len() < whole + 100, "{error}");
        let silent = error.code == Code::COMMIT_SILENT;
        assert!(silent || error.to_string().contains("0xffff"), "{limit}: {error}");
        assert!(committed.decoders.iter().all(|entry| entry.fate != Fate::RolledBack));
    }
}

/// Changes a machine that was committed by `policy` and expects a refusal without a write.
fn refused(policy: &Policy<'_>, change: impl Fn(&mut Fake)) -> Error {
    let mut m = simple();
    let plan = m.plan(policy);
    assert_eq!(run(&mut m, &plan, policy).0, Ok(()));
    change(&mut m.hw);
    m.hw.trace.clear();
    let (result, committed) = run(&mut m, &plan, policy);
    let error = result.expect_err("somebody else's");
    assert_eq!(m.hw.writes(), [], "{error}");
    assert!(committed.decoders.iter().all(|entry| entry.fate == Fate::Untouched));
    assert!(committed.regions.is_empty());
    error
}

#[test]
fn what_somebody_else_committed_is_refused_by_name_and_not_written_to() {
    let policy = Policy::default();
    let code = |change: fn(&mut Fake)| refused(&policy, change).code();
    // Contents: base, size, target, type, lock.
    assert_eq!(code(|hw| hw.set(DEVICE + 0x04, 5)), 0x0406);
    assert_eq!(code(|hw| hw.set(BRIDGE + 0x08, 0x3000_0000)), 0x0406);
    assert_eq!(code(|hw| hw.set(BRIDGE + 0x14, 2)), 0x0406);
    assert_eq!(code(|hw| hw.set(BRIDGE + 0x10, 0x0700)), 0x0406);
    assert_eq!(code(|hw| hw.set(BRIDGE + 0x10, 0x1600)), 0x0406);
    // A part: the bridge was reset, or the device.
    assert_eq!(code(|hw| hw.set(BRIDGE + 0x10, 0)), 0x0407);
    assert_eq!(code(|hw| hw.set(DEVICE + 0x10, 0x1100)), 0x0407);
    // A spare decoder in use; one that failed; one in mid-commit.
    assert_eq!(code(|hw| hw.set(DEVICE + 0x30, 0x1700)), 0x0405);
    assert_eq!(code(|hw| hw.set(BRIDGE + 0x50, 0x0A00)), 0x0404);
    assert_eq!(code(|hw| hw.set(BRIDGE + 0x50, 0x0200)), 0x0404);
    assert_eq!(code(|hw| hw.set(DEVICE + 0x10, 0x1A00)), 0x0404);
    assert_eq!(code(|hw| hw.set(DEVICE + 0x10, 0x1800)), 0x0404);
    // The device was switched off.
    assert_eq!(code(|hw| hw.set(0x2000_0004, 0)), 0x0408);
    assert_eq!(code(|hw| hw.set(DVSEC + 0x0C, 2)), 0x0408);
    // Nobody answers.
    assert_eq!(code(|hw| hw.set(DEVICE + 0x10, u32::MAX)), 0x0403);
    for at in [0x2000_0004, DVSEC + 0x08, DVSEC + 0x0C, DVSEC + 0x14] {
        let error = refused(&policy, |hw| hw.set(at, u32::MAX));
        assert_eq!(error.code, Code::COMMIT_SILENT, "{at:#x}: {error}");
    }
    // Locked, where the policy does not lock.
    let error = refused(&UNLOCKED, |hw| hw.set(DEVICE + 0x10, 0x1700));
    assert_eq!(
        error.to_string(),
        "bridge 7 port 3 device, decoder 0: somebody committed it with HDM Decoder Control \
         0x00001700; the plan has 0x00001600"
    );
    // Not config-locked, where the policy does.
    assert_eq!(refused(&CONFIG_LOCK, |hw| hw.set(DVSEC + 0x14, 0)).code(), 0x0408);
}

#[test]
fn a_spare_decoder_in_use_on_an_otherwise_fresh_machine_is_foreign() {
    let mut m = simple();
    m.hw.set(BRIDGE + 0x24, 0x10);
    m.hw.set(BRIDGE + 0x28, 0x4000_0000);
    m.hw.set(BRIDGE + 0x30, 0x1600);
    let plan = m.plan(&Policy::default());
    let (result, _) = run(&mut m, &plan, &Policy::default());
    let bridge = Place { at: path(7, &[]), component: Component::HostBridge, index: 1 };
    let foreign = Code::COMMIT_FOREIGN_DECODER.at(bridge);
    assert_eq!(result, Err(foreign.expected(0x10_0000_0000u64).found(0x4000_0000)));
    assert_eq!(m.hw.writes(), []);
}

#[test]
fn a_decoder_in_use_on_a_component_outside_the_plan_is_foreign() {
    let mut m = simple();
    let plan = m.plan(&Policy::default());
    m.bridge(8, 0x1100_0000, true);
    m.hw.set(0x1100_1020, 0x1600);
    let (result, _) = run(&mut m, &plan, &Policy::default());
    let error = result.expect_err("somebody's");
    assert_eq!((error.code, error.at.uid()), (Code::COMMIT_FOREIGN_DECODER, Some(8)));
    assert_eq!(m.hw.writes(), []);
}

/// Bases of both ranges of the DVSEC at an address.
fn range_bases(hw: &Fake, dvsec: u64) -> [(u32, u32); 2] {
    [0x20, 0x30].map(|at| (hw.get(dvsec + at), hw.get(dvsec + at + 4)))
}

#[test]
fn a_range_leads_to_the_bytes_of_its_decoder_or_to_none() {
    // Left: 256 MiB of each kind at 16 GiB; right: 512 MiB behind them. Range sizes of the left
    // one, and the bases that its ranges get. A range counts device addresses from 0: the second
    // can be like its decoder only if the first is.
    let low = [(4, 0), (4, 0x1000_0000)];
    let cases = [
        ((0x1000_0003, 0x1000_0003), low),
        ((0x2000_0003, 0x1000_0003), [(0, 0), (0, 0)]),
        ((0x1000_0003, 0x2000_0003), [(4, 0), (0, 0)]),
        // A range without a size claims nothing; its base is nobody's business.
        ((0x1000_0003, 0x0000_0003), [(4, 0), (0x34, 0xC000_0000)]),
    ];
    for (sizes, expected) in cases {
        let mut m = switched();
        m.hw.set(0x2001_001C, sizes.0);
        m.hw.set(0x2001_002C, sizes.1);
        for (at, base) in [(0x20, 0x12), (0x24, 0xB000_0000u32), (0x30, 0x34), (0x34, 0xC000_0000)]
        {
            m.hw.set(0x2001_0000 + at, base);
        }
        let plan = m.plan(&Policy::default());
        assert_eq!(run(&mut m, &plan, &Policy::default()).0, Ok(()));
        assert_eq!(range_bases(&m.hw, 0x2001_0000), expected, "{sizes:x?}");
        assert_eq!(range_bases(&m.hw, 0x2101_0000), [(4, 0x2000_0000), (0, 0)], "{sizes:x?}");
    }
    // Memory left out in front: the decoder leads behind it, the range would not.
    let mut m = simple();
    m.hw.set(DVSEC + 0x1C, 0x1000_0003);
    let device = m.topology.tree().path(NodeId(2));
    let (partition, size) = (Partition::Volatile, Some(256 * MIB));
    let (window, offset, skip) = (None, None, 256 * MIB);
    let requests = [Request { device, partition, window, offset, size, skip }];
    let policy = Policy { requests: &requests, ..Policy::default() };
    let plan = m.plan(&policy);
    assert_eq!(run(&mut m, &plan, &policy).0, Ok(()));
    assert_eq!(range_bases(&m.hw, DVSEC), [(0, 0), (0, 0)]);
}

#[test]
fn ranges_of_whole_gibibytes_are_mirrored_too() {
    // 8 GiB at 16 GiB: nothing but high dwords.
    let mut m = Machine::new();
    let bridge = m.bridge(7, 0x1000_0000, true);
    let port = m.port(bridge, NodeKind::RootPort, 3);
    m.device(port, 0x2000_0000, DeviceKind::Type3, [8 * GIB, 0]);
    m.window(16 * GIB, 8 * GIB, &[7]);
    let plan = m.plan(&Policy::default());
    assert_eq!(run(&mut m, &plan, &Policy::default()).0, Ok(()));
    assert_eq!(range_bases(&m.hw, DVSEC), [(4, 0), (0, 0)]);
}

#[test]
fn a_device_is_switched_off_before_its_decoders_are_taken_back() {
    // CXL.mem first, then its decoders, then what is committed, the bridge's and the device's.
    let mut m = simple();
    m.hw.on_commit.insert(BRIDGE + 0x10, OnCommit::Error);
    let plan = m.plan(&UNLOCKED);
    assert_eq!(refusal(run(&mut m, &plan, &UNLOCKED).0), Some(Code::COMMIT_REFUSED));
    let writes = m.hw.writes();
    let refused = writes.iter().position(|write| *write == (BRIDGE + 0x10, 0x1200));
    let after = &writes[refused.expect("a commit") + 1..];
    assert_eq!(after[..2], [(DVSEC + 0x0C, 0x0000_0002), (0x2000_0004, 0)]);
    let controls: Vec<u64> =
        after.iter().map(|write| write.0).filter(|at| at & 0x3F == 0x20).collect();
    assert_eq!(controls[0], BRIDGE + 0x10);
    assert_eq!(after.iter().filter(|write| write.0 == DVSEC + 0x0C).count(), 1);
    // A device that was never switched on is not switched off.
    let mut m = simple();
    m.hw.stuck = Some((BRIDGE, 0x1000_0000, 0x1000_0000));
    let plan = m.plan(&UNLOCKED);
    assert_eq!(refusal(run(&mut m, &plan, &UNLOCKED).0), Some(Code::COMMIT_NOT_KEPT));
    assert!(m.hw.writes().iter().all(|write| ![DVSEC + 0x0C, 0x2000_0004].contains(&write.0)));
}

#[test]
fn a_device_that_config_lock_froze_keeps_its_enables_when_another_fails() {
    let policy = Policy { config_lock: true, ..UNLOCKED };
    let mut m = switched();
    m.hw.stuck = Some((0x2101_0014, 1, 0));
    let plan = m.plan(&policy);
    let (result, committed) = run(&mut m, &plan, &policy);
    let error = result.expect_err("no lock");
    assert_eq!((error.code, error.expected), (Code::COMMIT_DEVICE_NOT_KEPT, 1), "{error}");
    let writes = m.hw.writes();
    let locked = writes.iter().position(|write| *write == (0x2001_0014, 0xCAFE_0001));
    let after = &writes[locked.expect("CONFIG_LOCK") + 1..];
    assert!(after.iter().all(|(at, _)| !(0x2001_0000..0x2001_0038).contains(at)), "{after:x?}");
    // The other one is as it was before.
    assert_eq!(m.hw.get(0x2101_000C), 0x4000_0002);
    assert_eq!(range_bases(&m.hw, 0x2101_0000), [(0, 0), (0, 0)]);
    assert!(committed.regions.is_empty());
    assert!(fates(&committed).iter().all(|fate| *fate == Fate::RolledBack));
    let device = committed.devices[0];
    assert!(device.config_lock && device.mem_enable && !device.decoder_enable);
}

#[test]
fn a_device_with_one_range_mirrors_one_decoder() {
    let mut m = switched();
    let capability = m.hw.get(0x2001_0008);
    m.hw.set(0x2001_0008, capability & !(3 << 20) | 1 << 20);
    let plan = m.plan(&Policy::default());
    assert_eq!(run(&mut m, &plan, &Policy::default()).0, Ok(()));
    assert_eq!((m.hw.get(0x2001_0020), m.hw.get(0x2001_0024)), (4, 0));
    assert_eq!((m.hw.get(0x2001_0030), m.hw.get(0x2001_0034)), (0, 0));
}

#[test]
fn caches_are_enabled_on_accelerators_only() {
    let mut m = simple();
    let policy = Policy { enable_cache: true, ..Policy::default() };
    let plan = m.plan(&policy);
    let (result, committed) = run(&mut m, &plan, &policy);
    assert_eq!(result, Ok(()));
    assert!(!committed.devices[0].cache_enable);
}

#[test]
fn config_lock_that_keeps_memory_off_is_refused_before_any_write() {
    let mut m = simple();
    m.hw.set(DVSEC + 0x14, 1);
    let plan = m.plan(&Policy::default());
    let (result, _) = run(&mut m, &plan, &Policy::default());
    let locked = Code::COMMIT_CONFIG_LOCKED.at(m.topology.tree().path(NodeId(2)));
    assert_eq!(result, Err(locked.expected(0x6).found(0x2)));
    assert_eq!(m.hw.writes(), []);
}

#[test]
fn config_lock_that_keeps_memory_on_does_not_stand_in_the_way() {
    let mut m = simple();
    m.hw.set(DVSEC + 0x0C, 0x4000_0006);
    m.hw.set(DVSEC + 0x14, 1);
    let plan = m.plan(&CONFIG_LOCK);
    let (result, committed) = run(&mut m, &plan, &CONFIG_LOCK);
    assert_eq!(result, Ok(()));
    assert_eq!(committed.regions.len(), 1);
    assert!(m.hw.writes().iter().all(|(at, _)| !(DVSEC..DVSEC + 0x14).contains(at)));
}

#[test]
fn a_plan_for_another_topology_is_refused() {
    let mut m = switched();
    let plan = m.plan(&Policy::default());
    let mut other = simple();
    let (result, _) = run(&mut other, &plan, &Policy::default());
    assert_eq!(refusal(result), Some(Code::COMMIT_NO_SUCH_DECODER));
    assert_eq!(other.hw.writes(), []);
    // The same nodes, with fewer decoders than the plan uses.
    let mut fewer = switched();
    fewer.topology.nodes[0].hdm.as_mut().expect("the bridge's").decoders = 2;
    let (result, _) = run(&mut fewer, &plan, &Policy::default());
    let error = result.expect_err("no such decoder");
    assert_eq!((error.code, error.at.decoder()), (Code::COMMIT_NO_SUCH_DECODER, Some(2)));
    // A decoder that can do less.
    let hdm = m.topology.nodes[0].hdm.as_mut().expect("the bridge's");
    hdm.capability = hdm.capability.with_target_count(0);
    let (result, _) = run(&mut m, &plan, &Policy::default());
    assert_eq!(refusal(result), Some(Code::COMMIT_ILLEGAL));
    assert_eq!(m.hw.writes(), []);
}

#[test]
fn burned_spares_are_locked_at_size_0_behind_the_last_range() {
    let policy =
        Policy { burn_spares: true, target: TargetSystem::Specification, ..Policy::default() };
    // A device whose type bit is hardwired: a burned decoder's type means nothing.
    let mut m = simple();
    m.hw.stuck = Some((DEVICE + 0x30, 0x1000, 0x1000));
    m.hw.set(DEVICE + 0x30, 0x1000);
    let plan = m.plan(&policy);
    let (result, committed) = run(&mut m, &plan, &policy);
    assert_eq!(result, Ok(()));
    assert_eq!(committed.decoders.len(), 8);
    for (start, n) in [(DEVICE, 1u64), (DEVICE, 3), (BRIDGE, 1), (BRIDGE, 3)] {
        let at = start + 0x20 * n;
        let image: Vec<u32> = (0..5).map(|n| m.hw.get(at + 4 * n)).collect();
        assert_eq!(image[..4], [0x2000_0000, 4, 0, 0]);
        assert_eq!(image[4] & !0x1000, 0x0700);
    }
    assert!(committed.regions[0].locked);
    m.hw.trace.clear();
    assert_eq!(run(&mut m, &plan, &policy).0, Ok(()));
    assert_eq!(m.hw.writes(), []);
}

#[test]
fn behind_a_pass_through_bridge_only_the_device_is_programmed() {
    let mut m = Machine::new();
    let bridge = m.bridge(7, 0x1000_0000, false);
    let port = m.port(bridge, NodeKind::RootPort, 3);
    m.device(port, 0x2000_0000, DeviceKind::Type3, [512 * MIB, 0]);
    m.window(16 * GIB, 4 * GIB, &[7]);
    let plan = m.plan(&Policy::default());
    let (result, committed) = run(&mut m, &plan, &Policy::default());
    assert_eq!(result, Ok(()));
    assert_eq!((committed.decoders.len(), committed.regions.len()), (1, 1));
    assert!(committed.regions[0].locked);
    // Its only decoder locked and the device dead: nothing serves.
    let mut m2 = m;
    m2.hw = Fake::default();
    m2.hw.hdm(0x2000_0000, 4, true);
    m2.hw.dvsec(0x2001_0000, 2);
    m2.hw.stuck = Some((0x2000_0004, 2, 0));
    let (result, committed) = run(&mut m2, &plan, &Policy::default());
    assert_eq!(refusal(result), Some(Code::COMMIT_DEVICE_NOT_KEPT));
    assert_eq!(fates(&committed), [Fate::Stranded]);
    assert!(committed.regions.is_empty());
}

fn bi_writes(hw: &Fake) -> Vec<(u64, u32)> {
    hw.writes().into_iter().filter(|(at, _)| *at >> 20 == 0x400).collect()
}

#[test]
fn back_invalidate_is_set_up_from_the_devices_port_upwards_and_the_device_last() {
    let mut m = accelerator(true);
    let policy = Policy { enable_cache: true, ..Policy::default() };
    let plan = m.plan(&policy);
    let (result, committed) = run(&mut m, &plan, &policy);
    assert_eq!(result, Ok(()));
    assert_eq!(
        bi_writes(&m.hw),
        [
            // The downstream port takes messages: BI Enable, then with commit.
            (0x4002_0004, 0x2),
            (0x4002_0004, 0x6),
            // The route table.
            (0x4001_0004, 0x0),
            (0x4001_0004, 0x1),
            // The root port forwards.
            (0x4000_0004, 0x1),
            // The device issues.
            (0x4003_0004, 0x2),
        ]
    );
    // BI, type 0, lock, commit.
    assert_eq!(m.hw.get(DEVICE + 0x10), 0x2700);
    assert!(committed.devices[0].cache_enable);
    assert_eq!(m.hw.get(DVSEC + 0x0C) & 0x7, 0x7);
    let first_commit = m.hw.trace.iter().position(|a| *a == Access::Write(DEVICE + 0x10, 0x2300));
    let last_bi = m.hw.trace.iter().position(|a| *a == Access::Write(0x4003_0004, 0x2));
    assert!(last_bi < first_commit);

    let mut m = accelerator(false);
    assert_eq!(run(&mut m, &plan, &Policy::default()).0, Ok(()));
    let expected = [(0x4002_0004, 0x2), (0x4000_0004, 0x1), (0x4003_0004, 0x2)];
    assert_eq!(bi_writes(&m.hw), expected);
    assert_eq!(m.hw.get(DVSEC + 0x0C) & 0x7, 0x6, "CXL.cache only by policy");
}

#[test]
fn a_fault_in_back_invalidate_is_named_and_undone() {
    for (control, fault, code) in [
        (0x4002_0004, OnCommit::Error, 0x040D),
        (0x4002_0004, OnCommit::Never, 0x040E),
        (0x4001_0004, OnCommit::Error, 0x040D),
        (0x4001_0004, OnCommit::Never, 0x040E),
    ] {
        let mut m = accelerator(true);
        m.hw.on_commit.insert(control, fault);
        assert_eq!(restored(m, &Policy::default()).code(), code);
    }
    // The wait is the one that the hardware asks for, or 10 ms where it asks for none.
    for (status, least, most) in [(0x2300, 2_000, 2_100), (0, 10_000, 10_100)] {
        let mut m = accelerator(true);
        m.hw.set(0x4002_0008, status);
        m.hw.on_commit.insert(0x4002_0004, OnCommit::Never);
        let error = restored(m, &Policy::default());
        assert_eq!(error.code, Code::COMMIT_BACK_INVALIDATE_TIMEOUT, "{error}");
        assert!((least..most).contains(&error.expected), "{error}");
    }
    for address in [0x4000_0004, 0x4002_0004, 0x4003_0004] {
        let mut m = accelerator(false);
        m.hw.stuck = Some((address, 0x3, 0));
        assert_eq!(restored(m, &Policy::default()).code(), 0x040B);
    }
    // The plan was made for a topology that had the structure.
    let mut m = accelerator(true);
    let plan = m.plan(&Policy::default());
    m.topology.nodes[1].back_invalidate = None;
    let before = m.hw.dwords.clone();
    let (result, _) = run(&mut m, &plan, &Policy::default());
    assert_eq!(refusal(result), Some(Code::COMMIT_NO_BACK_INVALIDATE));
    assert_eq!(m.hw.dwords, before);
}

#[test]
fn back_invalidate_of_a_region_that_is_whole_stays_when_another_fails() {
    let mut m = Machine::new();
    let bridge = m.bridge(7, 0x1000_0000, true);
    for n in 0..2u64 {
        let port = m.port(bridge, NodeKind::RootPort, n as u8);
        let block = 0x2000_0000 + n * 0x100_0000;
        let device = m.device(port, block, DeviceKind::Type2, [512 * MIB, 0]);
        m.back_invalidate(port, 0x4000_0000 + n * 0x2_0000, false);
        m.back_invalidate(device, 0x4001_0000 + n * 0x2_0000, false);
    }
    m.window(16 * GIB, 4 * GIB, &[7]);
    m.hw.on_commit.insert(BRIDGE + 0x30, OnCommit::Error);
    let plan = m.plan(&Policy::default());
    let (result, committed) = run(&mut m, &plan, &Policy::default());
    assert_eq!(refusal(result), Some(Code::COMMIT_REFUSED));
    assert_eq!(fates(&committed), [Fate::Done, Fate::Stranded, Fate::Done, Fate::RolledBack]);
    let enabled = [0x4000_0004, 0x4001_0004, 0x4002_0004, 0x4003_0004].map(|at| m.hw.get(at));
    assert_eq!(enabled, [2, 2, 0, 0]);
}

#[test]
fn a_lock_that_is_lost_in_the_commit_is_noticed() {
    let mut m = simple();
    m.hw.on_commit.insert(BRIDGE + 0x10, OnCommit::Unlocked);
    let plan = m.plan(&Policy::default());
    let (result, committed) = run(&mut m, &plan, &Policy::default());
    let error = result.expect_err("no lock");
    assert_eq!(error.code, Code::COMMIT_COMMITTED_OTHERWISE, "{error}");
    assert_eq!((error.expected & 0x100, error.found & 0x100), (0x100, 0));
    assert_eq!(fates(&committed), [Fate::Stranded, Fate::RolledBack]);
}

#[test]
fn reasons_say_who_does_not_answer_and_what_was_lost() {
    let m = simple();
    let (tree, plan) = (m.topology.tree(), m.plan(&Policy::default()));
    let at = tree.path(plan.decoders[0].node);
    let place = Place { at, component: Component::Device, index: 0 };
    let (size, control) = (register("HDM Decoder Size Low"), register("DVSEC CXL Control"));
    let (polls, microseconds) = (3, 10_000);
    let kept = |expected: u32, found: u32| {
        Code::COMMIT_NOT_KEPT.at(place).detail(size).expected(expected).found(found)
    };
    let device = |expected: u32, found: u32| {
        Code::COMMIT_DEVICE_NOT_KEPT.at(at).detail(control).expected(expected).found(found)
    };
    let otherwise = |expected: u32, found: u32| {
        Code::COMMIT_COMMITTED_OTHERWISE.at(place).expected(expected).found(found)
    };
    let timeout = |control: u32| {
        Code::COMMIT_TIMEOUT.at(place).expected(microseconds).found((control, polls))
    };
    let cases = [
        (
            kept(4, u32::MAX),
            "bridge 7 port 3 device, decoder 0: HDM Decoder Size Low was written 0x00000004 and reads 0xffffffff \
             (all-ones: the component does not answer); nothing was committed",
        ),
        (
            kept(4, 5),
            "bridge 7 port 3 device, decoder 0: HDM Decoder Size Low was written 0x00000004 and reads 0x00000005; \
             nothing was committed",
        ),
        // 16 bits that are all ones are silence; in 32 they are a value.
        (
            device(2, 0xFFFF),
            "bridge 7 port 3: DVSEC CXL Control was written 0x2 and reads 0xffff (all-ones: the component does \
             not answer)",
        ),
        (
            device(0x2_0000, 0xFFFF),
            "bridge 7 port 3: DVSEC CXL Control was written 0x20000 and reads 0xffff",
        ),
        (
            device(2, u32::MAX),
            "bridge 7 port 3: DVSEC CXL Control was written 0x2 and reads 0xffffffff (all-ones: the component \
             does not answer)",
        ),
        (device(2, 0xFFFE), "bridge 7 port 3: DVSEC CXL Control was written 0x2 and reads 0xfffe"),
        (
            otherwise(0x1700, u32::MAX),
            "bridge 7 port 3 device, decoder 0: committed, but control reads 0xffffffff instead \
             of 0x00001700 (all-ones: the component does not answer)",
        ),
        (
            timeout(0x1300),
            "bridge 7 port 3 device, decoder 0: the commit has no result after 10000 us and 3 \
             polls, control 0x00001300",
        ),
        (
            timeout(0x1100),
            "bridge 7 port 3 device, decoder 0: the commit has no result after 10000 us and 3 \
             polls, control 0x00001100: Commit reads 0, the write was lost",
        ),
    ];
    for (error, expected) in cases {
        assert_eq!(error.to_string(), expected);
    }
    let words = [Fate::Untouched, Fate::RolledBack, Fate::Stranded, Fate::Done];
    assert_eq!(
        words.map(|fate| fate.to_string()),
        ["untouched", "rolled back", "stranded", "done"]
    );
}

#[test]
fn an_empty_plan_touches_nothing() {
    let mut m = simple();
    let (result, committed) = run(&mut m, &Plan::new(), &Policy::default());
    assert_eq!(result, Ok(()));
    assert!(m.hw.trace.is_empty() && committed.decoders.is_empty());
}
