//! All phases in a row, on registers typed by hand: which of them refuses, and what is left then.
//!
//! **Invariant**: addresses and values are typed by hand; the machine is the one of `fake`, with
//! decoders that answer a commit as the test says.

#[allow(dead_code, reason = "discovery tests use all of it")]
mod fake;

use cxl_firmware::bring_up::{
    BorrowedWorkspace, Extent, Workspace, WorkspaceMut, bring_up, describe, inspect,
};
use cxl_firmware::committed::{CommittedRegion, Fate, Probed};
use cxl_firmware::discover::discover;
use cxl_firmware::error::{Error, Phase};
use cxl_firmware::flat;
use cxl_firmware::list::{Empty, Slots};
use cxl_firmware::mmio::Mmio;
use cxl_firmware::platform::{Bridge, Platform, Restrictions, Window};
use cxl_firmware::policy::{OnFailure, PathPolicy, Policy, Probe, TargetSystem};
use cxl_firmware::tables::cedt;
use cxl_firmware::topology::Path;
use cxl_regs::acpi::{Cedt, Identity};
use cxl_regs::{Arithmetic, Hpa, Interleave, Span};

/// HDM decoders whose registers keep what is written: global control and decoder 0.
fn decoders(block: &mut fake::Registers, at: u64) {
    let kept = |value| fake::Reg { value, rw: !0, rw1c: 0 };
    block.insert(at + 4, kept(0));
    for decoder in 0..4 {
        for offset in (0x10..0x2C).step_by(4) {
            block.insert(at + 0x20 * decoder + offset, kept(0));
        }
    }
}

/// Control of decoder 0 of the device and the bridge of `fake::small`; the device's global control.
const DEVICE_CONTROL: u64 = 0xfe80_1148;
const BRIDGE_CONTROL: u64 = fake::BRIDGE + 0x1148;
const DEVICE_GLOBAL: u64 = 0xfe80_112c;

/// The machine of `fake::small` with decoders, which commit and lock.
fn machine() -> (fake::Fake, [Bridge; 1]) {
    let (mut hw, bridges) = fake::small();
    decoders(&mut hw.functions[1].blocks[0].2, 0x1128);
    decoders(&mut hw.fixed, fake::BRIDGE + 0x1128);
    for offset in [0x120, 0x124] {
        hw.functions[1].config.insert(offset, fake::Reg { value: 0, rw: !0, rw1c: 0 });
    }
    hw.reactions = vec![
        (DEVICE_CONTROL, 0x1300, vec![(DEVICE_CONTROL, 0x1700)]),
        (BRIDGE_CONTROL, 0x1300, vec![(BRIDGE_CONTROL, 0x1700)]),
    ];
    hw.route = Some(healthy);
    (hw, bridges)
}

/// Where the window is.
const WINDOW: u64 = 0x1_0000_0000;

/// Memory behind the whole window.
fn healthy(address: u64) -> Option<u64> {
    (WINDOW..WINDOW + 0x4000_0000).contains(&address).then_some(address)
}

/// 1 GiB at 4 GiB, to the bridge.
fn window() -> Window {
    Window {
        base: Some(Hpa(WINDOW)),
        size: 0x4000_0000,
        interleave: Interleave::NONE,
        arithmetic: Arithmetic::Modulo,
        xor_maps: Default::default(),
        restrictions: Restrictions::from_bits(0x000F),
        qtg: 0,
        unreadable: None,
        targets: [12].into_iter().collect(),
    }
}

#[test]
fn every_phase_of_a_bring_up_ends_it() {
    type Fault = fn(&mut fake::Fake, &mut Vec<Window>);
    let cases: [(Option<u16>, &str, Fault); 6] = [
        (None, "", |_, _| {}),
        (Some(0x0211), "discover: bridge 12", |hw, _| hw.fixed.clear()),
        (Some(0x0301), "plan: bridge 12 port 3", |_, windows| windows.clear()),
        // The device refuses the commit.
        (Some(0x040F), "commit: bridge 12 port 3 device, decoder 0", |hw, _| {
            hw.reactions[0].2 = vec![(DEVICE_CONTROL, 0x1B00)];
        }),
        // The device forgets its enable when the bridge commits, behind everybody's back.
        (Some(0x0516), "verify: bridge 12 port 3", |hw, _| {
            hw.reactions[1].2.push((DEVICE_GLOBAL, 0));
        }),
        // All registers are as they should be, and nothing is behind them.
        (Some(0x0901), "probe: 0x100000000, where bridge", |hw, _| hw.route = None),
    ];
    let mut phases = vec![];
    for (expected, words, fault) in cases {
        let (mut hw, bridges) = machine();
        let mut windows = vec![window()];
        fault(&mut hw, &mut windows);
        let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
        let mut work = Workspace::<4, 4, 8>::new();
        let policy = Policy::default();
        let result = bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
        let error = result.err();
        assert_eq!(error.map(|error| error.code()), expected, "{error:?}");
        let Some(error) = error else {
            // What was brought up is found as it is, and what has changed since is not passed.
            let inspected = inspect(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
            assert_eq!((inspected, work.committed.regions.len()), (Ok(()), 1));
            hw.fixed.get_mut(&BRIDGE_CONTROL).expect("a register").value = 0x1600;
            let inspected = inspect(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
            assert_eq!(inspected.map_err(|error| error.code()), Err(0x0515));
            continue;
        };
        let sentence = format!("{}: {error}", error.phase());
        assert!(sentence.starts_with(words), "{sentence}");
        // Nobody has looked, all of it was put back, or a lock holds what leads nowhere.
        let refused = match error.phase() {
            Phase::Discover | Phase::Plan => Some(0x060E),
            Phase::Commit => None,
            _ => Some(0x0606),
        };
        assert_eq!(described(&platform, &work), refused, "{error}");
        phases.push(error.phase());
    }
    let all = [Phase::Discover, Phase::Plan, Phase::Commit, Phase::Verify, Phase::Probe];
    assert_eq!(phases, all);
}

const IDENTITY: Identity = Identity {
    oem_id: *b"OEMID ",
    oem_table_id: *b"OEMTABLE",
    oem_revision: 1,
    creator_id: *b"TEST",
    creator_revision: 1,
};

/// The number of the refusal to describe what a run has left.
fn described(platform: &Platform<'_>, work: &Workspace<4, 4, 8>) -> Option<u16> {
    let mut buffer = [0; 1024];
    let table = cedt(platform, &work.topology, &work.committed, IDENTITY, &mut buffer);
    table.err().map(|error| error.code())
}

/// Everything that a run may write: values by address, in order of address.
fn registers(hw: &mut fake::Fake) -> Vec<u32> {
    use cxl_firmware::mmio::Mmio;
    let decoder = |control: u64| (0..7).map(move |n| control - 0x10 + 4 * n);
    let enables = [DEVICE_GLOBAL, fake::ecam(13, 0, 0x10c)];
    let ranges = [0x120, 0x124].map(|offset| fake::ecam(13, 0, offset));
    let all = decoder(DEVICE_CONTROL).chain(decoder(BRIDGE_CONTROL)).chain(enables).chain(ranges);
    all.map(|address| hw.read(address)).collect()
}

#[test]
fn what_the_verifier_refuses_is_put_back_unless_a_lock_holds_it() {
    use Fate::{RolledBack, Stranded, Untouched};
    // Policy, what a commit writes and what it makes of Control; what becomes of both decoders.
    let lock = Policy::default();
    let free = Policy { path: PathPolicy::Unlocked, ..lock };
    let cases = [(free, 0x1200, 0x1600, [RolledBack; 2]), (lock, 0x1300, 0x1700, [Stranded; 2])];
    for (policy, asked, control, fates) in cases {
        let (mut hw, bridges) = machine();
        let before = registers(&mut hw);
        hw.reactions = vec![
            (DEVICE_CONTROL, asked, vec![(DEVICE_CONTROL, control)]),
            // The device forgets its enable when the bridge commits.
            (BRIDGE_CONTROL, asked, vec![(BRIDGE_CONTROL, control), (DEVICE_GLOBAL, 0)]),
        ];
        let windows = [window()];
        let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
        let mut work = Workspace::<4, 4, 8>::new();
        let run = |hw: &mut fake::Fake, work: &mut Workspace<4, 4, 8>| {
            bring_up(hw, &mut fake::clock(), &platform, &policy, work).map_err(|e| e.code())
        };
        assert_eq!(run(&mut hw, &mut work), Err(0x0516));
        let seen: Vec<Fate> = work.committed.decoders.iter().map(|entry| entry.fate).collect();
        assert_eq!(seen, fates);
        assert!(work.committed.regions.is_empty());
        let after = registers(&mut hw);
        if fates == [RolledBack; 2] {
            assert_eq!(after, before);
        } else {
            // Both decoders are as they were locked; the device is off, its ranges lead nowhere.
            assert_eq!((after[4], after[11]), (0x1700, 0x1700));
            assert_eq!(after[14..], before[14..]);
            // A second run writes nothing: what is there is not what the policy wants.
            hw.writes.clear();
            assert_eq!(run(&mut hw, &mut work), Err(0x0408));
            assert_eq!(hw.writes, []);
            assert!(work.committed.decoders.iter().all(|entry| entry.fate == Untouched));
            // Three words for it, and no table: not after either run, nor where nobody looked.
            assert_eq!(described(&platform, &work), Some(0x060E));
            work.committed.unread = false;
            assert_eq!(described(&platform, &work), Some(0x0606));
        }
    }
}

#[test]
fn memory_that_does_not_answer_takes_its_decoders_with_it() {
    use Fate::{RolledBack, Stranded};
    let lock = Policy::default();
    let free = Policy { path: PathPolicy::Unlocked, ..lock };
    for (policy, fates) in [(free, [RolledBack; 2]), (lock, [Stranded; 2])] {
        let (mut hw, bridges) = machine();
        let (asked, control) =
            if fates[0] == Stranded { (0x1300, 0x1700) } else { (0x1200, 0x1600) };
        hw.reactions =
            [DEVICE_CONTROL, BRIDGE_CONTROL].map(|at| (at, asked, vec![(at, control)])).to_vec();
        let before = registers(&mut hw);
        let windows = [window()];
        let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
        let mut work = Workspace::<4, 4, 8>::new();
        let run = |hw: &mut fake::Fake, policy: &Policy<'_>, work: &mut Workspace<4, 4, 8>| {
            bring_up(hw, &mut fake::clock(), &platform, policy, work).map_err(|e| e.code())
        };
        // Only the first half is there, and wraps.
        hw.route = Some(|hpa| healthy(hpa).map(|hpa| hpa % 0x800_0000));
        assert_eq!(run(&mut hw, &policy, &mut work), Err(0x0902));
        let seen: Vec<Fate> = work.committed.decoders.iter().map(|entry| entry.fate).collect();
        assert_eq!((seen, work.committed.regions.len()), (fates.to_vec(), 0));
        assert_eq!(work.probe.list().len(), 1);
        assert!(hw.cells.values().all(|value| *value == 0), "{:x?}", hw.cells);
        let after = registers(&mut hw);
        // The device is off, and its ranges lead nowhere; what a lock holds is as it was locked.
        assert_eq!(after[14..], before[14..]);
        if fates == [RolledBack; 2] {
            assert_eq!(after, before);
            // Who does not ask is not told.
            let trusting = Policy { probe: Probe::Skip, ..policy };
            assert_eq!(run(&mut hw, &trusting, &mut work), Ok(Extent::Whole));
            assert_eq!(work.committed.regions[0].probed, Probed::No);
            // And whoever asks on the next run is, although there is nothing to program.
            hw.writes.clear();
            assert_eq!(run(&mut hw, &policy, &mut work), Err(0x0902));
            assert_eq!((&hw.writes[..], work.committed.regions.len()), (&[][..], 0));
            hw.route = Some(healthy);
            assert_eq!(run(&mut hw, &policy, &mut work), Ok(Extent::Whole));
            assert_eq!(work.committed.regions[0].probed, Probed::Held);
        }
    }
}

#[test]
fn what_stays_in_use_after_a_failure_is_probed_too() {
    for (route, stays) in [(healthy as fn(u64) -> Option<u64>, 1), (|_| None, 0)] {
        let (mut hw, bridges) = two_partitions();
        // The bridge refuses to commit the second region.
        hw.reactions[3].2 = vec![(BRIDGE_CONTROL + 0x20, 0x1B00)];
        hw.route = Some(route);
        let windows = [window()];
        let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
        let mut work = Workspace::<4, 4, 8>::new();
        let policy = Policy::default();
        let result = bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
        assert_eq!(result.map_err(|error| error.code()), Err(0x040F));
        assert_eq!((work.committed.regions.len(), 1 - work.probe.list().len()), (stays, stays));
        use Fate::{Done, RolledBack, Stranded};
        let fate = if stays == 1 { Done } else { Stranded };
        let fates: Vec<Fate> = work.committed.decoders.iter().map(|entry| entry.fate).collect();
        assert_eq!(fates, [fate, Stranded, fate, RolledBack]);
    }
}

#[test]
fn spares_that_were_burned_stay_where_the_verifier_refuses_the_rest() {
    let (mut hw, bridges) = machine();
    // All four decoders of both commit and lock; with the bridge's last one the device goes off.
    hw.reactions.clear();
    for control in [DEVICE_CONTROL, BRIDGE_CONTROL] {
        for at in (0..4).map(|n| control + 0x20 * n) {
            hw.reactions.push((at, 0x1300, vec![(at, 0x1700)]));
        }
    }
    hw.reactions[7].2.push((DEVICE_GLOBAL, 0));
    let windows = [window()];
    let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
    let target = TargetSystem::Specification;
    let policy = Policy { burn_spares: true, target, ..Policy::default() };
    let mut work = Workspace::<4, 4, 8>::new();
    let result = bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
    assert_eq!(result.map_err(|error| error.code()), Err(0x0516));
    let fates: Vec<Fate> = work.committed.decoders.iter().map(|entry| entry.fate).collect();
    use Fate::{Done, Stranded};
    assert_eq!(fates, [Stranded, Done, Done, Done, Stranded, Done, Done, Done]);
}

#[test]
fn a_run_that_wrote_nothing_takes_nothing_back_and_the_next_one_forgets_it() {
    let (mut hw, bridges) = machine();
    let windows = [window()];
    let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
    let mut work = Workspace::<4, 4, 8>::new();
    let run = |hw: &mut fake::Fake, work: &mut Workspace<4, 4, 8>| {
        let result = bring_up(hw, &mut fake::clock(), &platform, &Policy::default(), work);
        result.map_err(|error| error.code())
    };
    assert_eq!(run(&mut hw, &mut work), Ok(Extent::Whole));
    // All is as planned; then Mem_Enable reads 0, as the verifier sees.
    hw.reads.clear();
    hw.writes.clear();
    hw.later.insert(fake::ecam(13, 0, 0x10c), (2, 0x4000_0002));
    assert_eq!(run(&mut hw, &mut work), Err(0x0517));
    assert_eq!(hw.writes, []);
    assert_eq!((work.topology.nodes.len(), work.plan.decoders.len()), (3, 2));
    // Now the bridge does not answer: nothing of all that is left.
    hw.fixed.clear();
    assert_eq!(run(&mut hw, &mut work), Err(0x0211));
    let left = (work.topology.nodes.len(), work.plan.decoders.len(), work.committed.decoders.len());
    assert_eq!((left, work.findings.list()), ((0, 0, 0), &[][..]));
}

/// The same machine with two regions: 256 MiB volatile and 256 MiB persistent.
fn two_partitions() -> (fake::Fake, [Bridge; 1]) {
    let (mut hw, bridges) = machine();
    // 256 MiB volatile and 256 MiB persistent, a range and a decoder for each.
    let config = &mut hw.functions[1].config;
    fake::put(config, 0x108, &[0x002e_0000]);
    fake::put(config, 0x11c, &[0x1000_0003]);
    fake::put(config, 0x12c, &[0x1000_0007]);
    for offset in [0x130, 0x134] {
        config.insert(offset, fake::Reg { value: 0, rw: !0, rw1c: 0 });
    }
    hw.reactions.clear();
    for control in [DEVICE_CONTROL, BRIDGE_CONTROL] {
        for at in [control, control + 0x20] {
            hw.reactions.push((at, 0x1300, vec![(at, 0x1700)]));
        }
    }
    (hw, bridges)
}

#[test]
fn a_region_that_is_whole_and_locked_stays_where_the_verifier_refuses_another() {
    let (mut hw, bridges) = two_partitions();
    // The bridge's decoder 1 leads to port 9 once it is committed.
    hw.reactions[3].2.push((BRIDGE_CONTROL + 0x24, 9));
    let windows = [window()];
    let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
    let mut work = Workspace::<4, 4, 8>::new();
    let policy = Policy::default();
    let result = bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
    assert_eq!(result.map_err(|error| error.code()), Err(0x050F));
    let fates: Vec<Fate> = work.committed.decoders.iter().map(|entry| entry.fate).collect();
    use Fate::{Done, Stranded};
    assert_eq!(fates, [Done, Stranded, Done, Stranded]);
    let regions: Vec<u64> = work.committed.regions.iter().map(|r| r.span.base().0).collect();
    assert_eq!(regions, [0x1_0000_0000]);
    // It goes on serving: the device is on.
    assert!(work.committed.devices[0].decoder_enable && work.committed.devices[0].mem_enable);
}

/// Runs it in memory of so many nodes, regions, decoders and committed decoders, as a caller that
/// learns these numbers at run time; the error, and the regions with the table made of them.
fn in_borrowed_memory(room: [usize; 4]) -> (Option<u16>, Vec<CommittedRegion>, Vec<u8>) {
    fn memory<T: Empty + Clone>(room: usize) -> Vec<T> {
        vec![T::EMPTY; room]
    }
    let [n, r, d, c] = room;
    let (mut nodes, mut links, mut uses, mut order) = (memory(n), memory(n), memory(n), memory(n));
    let (mut regions, mut placed) = (memory(r), memory(r));
    let (mut members, mut planned, mut notes) = (memory(d), memory(d), memory(d));
    let (mut decoders, mut devices, mut committed_regions) = (memory(c), memory(c), memory(c));
    let (mut decoders_before, mut devices_before) = (memory(c), memory(c));
    let (mut links_before, mut ways_before, mut failed) = (memory(c), memory(c), memory(c));
    let mut findings = memory(8);
    let mut work = BorrowedWorkspace {
        nodes: Slots::new(&mut nodes),
        links: Slots::new(&mut links),
        uses: Slots::new(&mut uses),
        order: Slots::new(&mut order),
        regions: Slots::new(&mut regions),
        placed: Slots::new(&mut placed),
        members: Slots::new(&mut members),
        planned: Slots::new(&mut planned),
        notes: Slots::new(&mut notes),
        decoders: Slots::new(&mut decoders),
        devices: Slots::new(&mut devices),
        committed_regions: Slots::new(&mut committed_regions),
        decoders_before: Slots::new(&mut decoders_before),
        devices_before: Slots::new(&mut devices_before),
        links_before: Slots::new(&mut links_before),
        ways_before: Slots::new(&mut ways_before),
        failed: Slots::new(&mut failed),
        findings: Slots::new(&mut findings),
        rest: Default::default(),
    };
    let ((mut hw, bridges), windows) = (machine(), [window()]);
    let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
    let policy = Policy::default();
    let result = bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
    let WorkspaceMut { topology, committed, .. } = WorkspaceMut::from(&mut work);
    let mut buffer = [0; 512];
    let table = cedt(&platform, &topology, &committed, IDENTITY, &mut buffer);
    let table = table.map_or(vec![], |bytes| bytes.to_vec());
    (result.err().map(|error| error.code()), committed.regions.to_vec(), table)
}

#[test]
fn memory_of_a_size_known_at_run_time_does_as_well() {
    let ((mut hw, bridges), windows) = (machine(), [window()]);
    let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
    let mut work = Workspace::<4, 4, 8>::new();
    let policy = Policy::default();
    let result = bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
    assert_eq!(result, Ok(Extent::Whole));
    let mut buffer = [0; 512];
    let table = cedt(&platform, &work.topology, &work.committed, IDENTITY, &mut buffer).unwrap();
    let expected = (None, work.committed.regions.to_vec(), table.to_vec());
    // Bridge, root port and device; one region; a decoder in the bridge and one in the device.
    assert_eq!(in_borrowed_memory([3, 1, 2, 2]), expected);
    assert_eq!(in_borrowed_memory([300, 100, 200, 200]), expected);
    for (short, code) in [
        ([2, 1, 2, 2], 0x0221),
        ([3, 0, 2, 2], 0x031E),
        ([3, 1, 1, 2], 0x031E),
        ([3, 1, 2, 1], 0x0412),
        ([0; 4], 0x0221),
    ] {
        assert_eq!(in_borrowed_memory(short), (Some(code), vec![], vec![]), "{short:?}");
    }
}

/// The machine with two regions, which commits without locks as well.
fn with_trial() -> (fake::Fake, [Bridge; 1]) {
    let (mut hw, bridges) = two_partitions();
    for control in [DEVICE_CONTROL, BRIDGE_CONTROL] {
        for at in [control, control + 0x20] {
            hw.reactions.push((at, 0x1200, vec![(at, 0x1600)]));
        }
    }
    (hw, bridges)
}

#[test]
fn what_a_lost_lock_leaves_is_taken_back_or_stranded_and_its_window_not_fixed() {
    use Fate::{Done, Stranded};
    const BRIDGE_1: u64 = BRIDGE_CONTROL + 0x20;
    type Fault = fn(&mut fake::Fake);
    // What the bridge does; regions after it, fates by component, the bridge first, and whether the
    // window is fixed.
    let cases: [(Fault, usize, &[Fate], bool); 3] = [
        // Its decoder 0 commits and forgets to lock: both regions are lost behind the device's locks.
        (|hw| hw.reactions[2].2 = vec![(BRIDGE_CONTROL, 0x1600)], 0, &[Stranded; 2], false),
        // The same of decoder 1: the lower region stays, and all that it needs is locked.
        (|hw| hw.reactions[3].2 = vec![(BRIDGE_1, 0x1600)], 1, &[Done, Done, Stranded], true),
        // And it cannot be taken back: somebody may still move it.
        (
            |hw| {
                hw.reactions[3].2 = vec![(BRIDGE_1, 0x1600)];
                let registers = [(BRIDGE_1 - 0x10, 0x1000_0000), (BRIDGE_1 - 0x0C, 1)];
                let size = [(BRIDGE_1 - 0x08, 0x1000_0000), (BRIDGE_1 + 0x04, 3)];
                let control = [(BRIDGE_1, 0x1600)];
                hw.reactions.push((BRIDGE_1, 0, [&registers[..], &size, &control].concat()));
            },
            1,
            &[Done, Stranded, Done, Stranded],
            false,
        ),
    ];
    for (number, (fault, regions, fates, fixed)) in cases.into_iter().enumerate() {
        let (mut hw, bridges) = with_trial();
        fault(&mut hw);
        let windows = [window()];
        let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
        let policy = Policy { on_failure: OnFailure::BestEffort, ..Policy::default() };
        let mut tables = vec![];
        // A second run finds it so, and says the same.
        for run in 0..2 {
            let what = format!("case {number}, run {run}");
            let mut work = Workspace::<4, 4, 8>::new();
            let extent = bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
            assert!(matches!(extent, Ok(Extent::Less { .. })), "{what}: {extent:?}");
            assert_eq!(work.committed.regions.len(), regions, "{what}");
            let entries = &work.committed.decoders;
            let mut found: Vec<_> = entries.iter().map(|e| (e.node, e.index, e.fate)).collect();
            found.sort_by_key(|(node, index, _)| (*node, *index));
            let found: Vec<Fate> = found.into_iter().map(|(_, _, fate)| fate).collect();
            assert_eq!(found, fates, "{what}");
            // Whatever is committed is in the list, as it is.
            let controls = [DEVICE_CONTROL, BRIDGE_CONTROL].map(|at| [at, at + 0x20]);
            let controls = controls.as_flattened().iter().map(|at| Mmio::read(&mut hw, *at));
            let mut controls: Vec<u32> = controls.filter(|control| control & 0x400 != 0).collect();
            let mut listed: Vec<u32> = entries.iter().map(|entry| entry.image.control).collect();
            controls.sort();
            listed.sort();
            assert_eq!(listed, controls, "{what}");
            let said: Vec<_> =
                work.outcomes().filter_map(|it| it.outcome.error().copied()).collect();
            let cause = |error: &Error| error.code() == 0x0411 && error.found == 0x1600;
            assert!(run > 0 || said.iter().any(cause), "{what}: {said:?}");
            let mut buffer = [0; 256];
            let table = cedt(&platform, &work.topology, &work.committed, IDENTITY, &mut buffer);
            let table = table.expect("a table").to_vec();
            // Window Restrictions, behind a header of 36 bytes and a CHBS of 32.
            assert_eq!(table[36 + 32 + 32] & 0x10 != 0, fixed, "{what}");
            tables.push(table);
        }
        assert_eq!(tables[0], tables[1], "case {number}");
    }
}

#[test]
fn a_bridge_that_stops_answering_is_said_to_and_none_of_its_decoders_is_recorded() {
    let ((mut hw, bridges), windows) = (machine(), [window()]);
    // From the second look on.
    hw.later.insert(BRIDGE_CONTROL, (1, u32::MAX));
    let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
    let mut work = Workspace::<4, 4, 8>::new();
    let policy = Policy::default();
    let result = bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
    assert_eq!(result.map_err(|error| error.code()), Err(0x040A));
    let entries: Vec<_> = work.committed.decoders.iter().map(|e| (e.node.0, e.fate)).collect();
    assert_eq!(entries, [(2, Fate::RolledBack)]);
    let said: Vec<_> = work.outcomes().filter_map(|it| it.outcome.error().copied()).collect();
    let words = "bridge 12: HDM Decoder Control reads all-ones: the component does not answer";
    assert_eq!(said.iter().map(ToString::to_string).collect::<Vec<_>>(), [words; 3]);
    assert_eq!(described(&platform, &work), Some(0x060E));
}

#[test]
fn a_window_over_something_else_is_refused_before_hardware_is_touched() {
    let ((mut hw, bridges), windows) = (machine(), [window()]);
    let ram = [Span::new(Hpa(WINDOW + 0x1000_0000), 0x1000).expect("a range")];
    let platform = Platform { windows: &windows, occupied: &ram, ..fake::platform(&bridges, &[]) };
    let (policy, mut work) = (Policy::default(), Workspace::<4, 4, 8>::new());
    let mut refused = vec![];
    refused.extend(bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work).err());
    let (policy, mut work) = (flat::Policy::default(), flat::Workspace::<4, 8, 16>::new());
    refused
        .extend(flat::bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work).err());
    let words =
        "window 0x100000000 reaches over 0x110000000-0x110000fff, where RAM or registers answer";
    assert_eq!(refused.iter().map(ToString::to_string).collect::<Vec<_>>(), [words; 2]);
    assert!(hw.reads.is_empty() && hw.writes.is_empty());
    // With best effort it costs what has no other window, and no decoder is written to.
    let policy = Policy { on_failure: OnFailure::BestEffort, ..Policy::default() };
    let (mut work, before) = (Workspace::<4, 4, 8>::new(), registers(&mut hw));
    let result = bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
    assert_eq!((result, registers(&mut hw) == before), (Ok(Extent::Less { lost: 1 }), true));
    let said = work.outcomes().filter_map(|found| found.outcome.error().map(ToString::to_string));
    let device = format!("bridge 12 port 3: its window cannot be used: {words}");
    assert_eq!(said.collect::<Vec<_>>(), [device]);
    let remarks = work.topology.remarks.list().iter().map(ToString::to_string);
    let remark = format!("{words}; nothing is mapped there, and the table leaves it out");
    assert_eq!((remarks.collect::<Vec<_>>(), work.topology.remarks.lost()), (vec![remark], 0));
    let (mut clock, mut buffer, extent) = (fake::clock(), [0; 256], Extent::Whole);
    let (hw, work) = (&mut hw, &mut work);
    let made = describe(hw, &mut clock, &platform, &policy, work, extent, IDENTITY, &mut buffer);
    let (table, _) = made.expect("a table");
    let table = Cedt::read(table).expect("a table");
    assert_eq!((table.host_bridges().count(), table.windows().count()), (1, 0));
}

#[test]
fn what_is_required_is_not_given_up() {
    let device = [Path::new(12, &[3]).expect("a short path")];
    let cases = [(&[][..], Ok(Extent::Less { lost: 1 })), (&device[..], Err(0x040F))];
    for (required, expected) in cases {
        let ((mut hw, bridges), windows) = (machine(), [window()]);
        // The device refuses the commit, which comes without a lock first.
        hw.reactions[0] = (DEVICE_CONTROL, 0x1200, vec![(DEVICE_CONTROL, 0x1A00)]);
        let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
        let mut work = Workspace::<4, 4, 8>::new();
        let policy = Policy { on_failure: OnFailure::BestEffort, required, ..Policy::default() };
        let result = bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
        assert_eq!(result.map_err(|error| error.code()), expected);
        assert!(work.committed.regions.is_empty());
    }
}

#[test]
fn what_is_required_is_not_its_port() {
    let required = [Path::new(12, &[3]).expect("a short path")];
    let policy =
        Policy { on_failure: OnFailure::BestEffort, required: &required, ..Policy::default() };
    let ((mut hw, bridges), windows) = (machine(), [window()]);
    // The port is found, and the device behind it has a register locator that makes no sense.
    hw.functions[1].config.insert(0x148, fake::ro(0x0000_0107));
    let platform = Platform { windows: &windows, ..fake::platform(&bridges, &[]) };
    let mut work = Workspace::<4, 4, 8>::new();
    let result = bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
    assert_eq!(result.map_err(|error| error.code()), Err(0x0224));
}

#[test]
fn what_is_only_described_is_not_written_to() {
    use cxl_firmware::windows::{Sizing, place};
    let describe = Policy { path: PathPolicy::Describe, config_lock: true, ..Policy::default() };
    for on_failure in [OnFailure::Strict, OnFailure::BestEffort] {
        let policy = Policy { on_failure, ..describe };
        let (mut hw, bridges) = machine();
        let before = registers(&mut hw);
        // The root complex has no windows yet: discovery needs none.
        let bare = fake::platform(&bridges, &[]);
        let mut work = Workspace::<4, 4, 8>::new();
        discover(&mut hw, &mut fake::clock(), &bare, &mut work.topology).expect("a machine");
        let free = [Span::new(Hpa(WINDOW), 1 << 32).expect("a range")];
        let mut windows = heapless::Vec::<Window, 4>::new();
        let sizing = Sizing { free: &free, across: None };
        place(&bare, &work.topology, &sizing, &mut windows).expect("a place");
        // What the device has, by hand: 256 MiB in its first range.
        let only = windows.first().map(|window| (window.base, window.size, &window.targets[..]));
        assert_eq!(only, Some((Some(Hpa(WINDOW)), 0x1000_0000, &[12][..])));
        // Here the caller programs its root complex; then there are windows.
        hw.writes.clear();
        let platform = Platform { windows: &windows, ..bare };
        let extent = bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
        assert_eq!((extent, &hw.writes[..]), (Ok(Extent::Whole), &[][..]));
        assert_eq!(registers(&mut hw), before);
        assert_eq!(work.plan.notes.len(), 1);
        let mut buffer = [0; 256];
        let (tree, done) = (&work.topology, &work.committed);
        let table = cedt(&platform, tree, done, IDENTITY, &mut buffer).expect("a table");
        assert_eq!(table.len(), 36 + 32 + 40);
        // What somebody committed is described as it is, and not asked by marks.
        hw.writes.clear();
        let full = Policy { path: PathPolicy::Unlocked, ..Policy::default() };
        hw.reactions =
            [DEVICE_CONTROL, BRIDGE_CONTROL].map(|at| (at, 0x1200, vec![(at, 0x1600)])).to_vec();
        let extent = bring_up(&mut hw, &mut fake::clock(), &platform, &full, &mut work);
        assert_eq!(extent, Ok(Extent::Whole));
        hw.writes.clear();
        let extent = bring_up(&mut hw, &mut fake::clock(), &platform, &policy, &mut work);
        assert_eq!((extent, &hw.writes[..]), (Ok(Extent::Whole), &[][..]));
        let regions: Vec<_> = work.committed.regions.iter().map(|region| region.probed).collect();
        assert_eq!(regions, [Probed::No]);
        // Half of it is nothing that a table may hide.
        hw.fixed.get_mut(&BRIDGE_CONTROL).expect("a register").value = 0;
        let result = bring_up(&mut hw, &mut fake::clock(), &platform, &describe, &mut work);
        assert_eq!(result.map_err(|error| error.code()), Err(0x050D));
    }
}
