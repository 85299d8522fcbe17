//! How much stack each verb of the library needs, measured on a stack of the test's
//! own, over every built-in scenario.
//!
//! A verb first runs on the machine, and every value it reads is kept; then it runs again on those
//! values alone, so that no device model is on the stack that is measured. The table in the
//! library's README is what `cargo test --release -p cxl-harness --test stack -- --nocapture`
//! prints.
//!
//! **Invariant**: the bounds are those of the README in a release build, and looser ones where
//! nothing is optimised.

#![cfg(target_arch = "x86_64")]

use std::arch::asm;
use std::collections::BTreeMap;

use cxl_firmware::acpi::Tables;
use cxl_firmware::bring_up::{Workspace, bring_up};
use cxl_firmware::commit::commit;
use cxl_firmware::discover::discover;
use cxl_firmware::plan::plan;
use cxl_firmware::probe::probe;
use cxl_firmware::verify::verify_plan;
use cxl_firmware::{flat, handoff, tables};
use cxl_harness::run::{IDENTITY, RunRequest, TABLES_BASE, roots};
use cxl_model::machine::{Machine, MachineClock};
use cxl_model::scenario::{Scenario, builtins};
use cxl_regs::mmio::{Clock, Mmio};

/// KiB in a release build, and in a debug build.
type Bound = (usize, usize);

/// By verb, as firmware/README.md states them: in a workspace of 64 nodes, 32 regions and 128 decoders; in one of ten times that.
const BOUNDS: [(&str, Bound, Bound); 11] = [
    ("Tables::from_acpi", (30, 104), (30, 104)),
    ("discover", (8, 32), (8, 32)),
    ("plan", (7, 30), (7, 30)),
    ("commit", (3, 24), (3, 24)),
    ("verify_plan", (4, 28), (4, 28)),
    ("probe", (4, 16), (4, 16)),
    ("bring_up", (12, 64), (12, 64)),
    ("tables::cedt", (4, 16), (4, 16)),
    ("tables::cross_check", (4, 16), (4, 16)),
    ("tables::srat", (2, 8), (2, 8)),
    ("handoff::write", (7, 24), (7, 24)),
];

/// The machine, with everything that is read from it kept.
struct Recorded<'a> {
    machine: &'a mut Machine,
    reads: Vec<u32>,
}

impl Mmio for Recorded<'_> {
    fn read(&mut self, address: u64) -> u32 {
        let value = self.machine.read(address);
        self.reads.push(value);
        value
    }

    fn write(&mut self, address: u64, value: u32) {
        self.machine.write(address, value);
    }
}

struct RecordedClock {
    clock: MachineClock,
    reads: Vec<u64>,
}

impl Clock for RecordedClock {
    fn microseconds(&mut self) -> u64 {
        let value = self.clock.microseconds();
        self.reads.push(value);
        value
    }
}

/// What was kept, read again.
struct Replayed<'a, T>(std::slice::Iter<'a, T>);

impl Mmio for Replayed<'_, u32> {
    fn read(&mut self, _: u64) -> u32 {
        self.0.next().copied().unwrap_or(u32::MAX)
    }

    fn write(&mut self, _: u64, _: u32) {}
}

impl Clock for Replayed<'_, u64> {
    fn microseconds(&mut self) -> u64 {
        self.0.next().copied().unwrap_or(u64::MAX)
    }
}

const STACK: usize = 4 << 20;
const PAINT: u64 = 0xA5A5_5A5A_C3C3_3C3C;

/// Runs a job on a painted stack and says how many bytes of it have been written to.
fn stack_of(mut job: impl FnMut()) -> usize {
    extern "C" fn enter(job: &mut &mut dyn FnMut()) {
        job();
    }
    let mut stack = vec![PAINT; STACK / size_of::<u64>()];
    let mut job: &mut dyn FnMut() = &mut job;
    let top = stack.as_mut_ptr_range().end as u64 & !0xF;
    // SAFETY: the job gets a stack that nothing else uses, aligned as the ABI asks, and far larger
    // than it needs; it does not unwind, as `enter` is `extern "C"`. The old stack pointer lies in
    // a register that the ABI keeps.
    unsafe {
        asm!(
            "xchg rsp, r12",
            "call {enter}",
            "mov rsp, r12",
            enter = sym enter,
            in("rdi") &raw mut job,
            inout("r12") top => _,
            clobber_abi("C"),
        );
    }
    let untouched = stack.iter().take_while(|word| **word == PAINT).count();
    assert!(untouched > 0, "the stack was too small");
    STACK - untouched * size_of::<u64>()
}

/// The most that any scenario needed, by verb.
type Needs = BTreeMap<&'static str, usize>;

fn measure(needs: &mut Needs, verb: &'static str, job: impl FnMut()) {
    let need = stack_of(job);
    let most = needs.entry(verb).or_default();
    *most = need.max(*most);
}

/// Runs the phases of one scenario as far as they go.
fn run<const N: usize, const R: usize, const D: usize>(
    scenario: &Scenario,
    room: &mut Workspace<N, R, D>,
    needs: &mut Needs,
) {
    let mut machine = Machine::new(scenario);
    // A scenario that asks for what cannot be said never reaches the library.
    let Ok(wanted) = RunRequest::of(&machine) else { return };
    let policy = wanted.policy();
    let acpi = cxl_model::acpi::Tables::new(scenario, machine.map(), TABLES_BASE);
    let (mcfg, cedt) = (acpi.table(&acpi.mcfg), acpi.table(&acpi.cedt));
    let (bits, roots) = (scenario.platform.physical_bits, roots(scenario));
    let read = || Tables::<32, 64>::from_acpi(mcfg, cedt, bits, &roots);
    let Ok(found) = read() else { return };
    measure(needs, "Tables::from_acpi", || drop(std::hint::black_box(read())));
    let platform = found.platform();

    let mut whole = Machine::new(scenario);
    let mut clock = RecordedClock { clock: whole.clock(), reads: Vec::new() };
    let mut hw = Recorded { machine: &mut whole, reads: Vec::new() };
    let result = bring_up(&mut hw, &mut clock, &platform, &policy, &mut *room);
    let (reads, times) = (hw.reads, clock.reads);
    measure(needs, "bring_up", || {
        let (mut hw, mut clock) = (Replayed(reads.iter()), Replayed(times.iter()));
        assert_eq!(bring_up(&mut hw, &mut clock, &platform, &policy, &mut *room), result);
    });

    let Workspace { topology, plan: planned, committed, findings, probe: errors } = room;
    let mut clock = RecordedClock { clock: machine.clock(), reads: Vec::new() };
    let mut hw = Recorded { machine: &mut machine, reads: Vec::new() };

    let result = discover(&mut hw, &mut clock, &platform, &mut *topology);
    let (reads, times) = (std::mem::take(&mut hw.reads), std::mem::take(&mut clock.reads));
    measure(needs, "discover", || {
        let (mut hw, mut clock) = (Replayed(reads.iter()), Replayed(times.iter()));
        assert_eq!(discover(&mut hw, &mut clock, &platform, &mut *topology), result);
    });
    let result = result.is_ok().then(|| plan(&platform, &*topology, &policy, &mut *planned));
    measure(needs, "plan", || {
        let _ = plan(&platform, &*topology, &policy, &mut *planned);
    });
    if result != Some(Ok(())) {
        return;
    }

    let (topology, planned) = (&*topology, &*planned);
    let result = commit(&mut hw, &mut clock, topology, planned, &policy, &mut *committed);
    let (reads, times) = (std::mem::take(&mut hw.reads), std::mem::take(&mut clock.reads));
    measure(needs, "commit", || {
        let (mut hw, mut clock) = (Replayed(reads.iter()), Replayed(times.iter()));
        assert_eq!(
            commit(&mut hw, &mut clock, topology, planned, &policy, &mut *committed),
            result
        );
    });
    verify_plan(&mut hw, &platform, topology, planned, &policy, &mut *committed, &mut *findings);
    let reads = std::mem::take(&mut hw.reads);
    measure(needs, "verify_plan", || {
        let mut hw = Replayed(reads.iter());
        verify_plan(
            &mut hw,
            &platform,
            topology,
            planned,
            &policy,
            &mut *committed,
            &mut *findings,
        );
    });

    // Memory that answers is left as it is listed, so that the second probe is the first.
    let result = probe(&mut hw, &platform, topology, policy.probe, &mut *committed, errors);
    assert_eq!(result, Ok(()));
    let reads = std::mem::take(&mut hw.reads);
    measure(needs, "probe", || {
        let mut hw = Replayed(reads.iter());
        let again = probe(&mut hw, &platform, topology, policy.probe, &mut *committed, errors);
        assert_eq!(again, result);
    });

    let committed = &*committed;
    let mut buffer = vec![0; 256 << 10];
    measure(needs, "tables::cedt", || {
        let _ = tables::cedt(&platform, topology, committed, IDENTITY, &mut buffer);
    });
    measure(needs, "tables::cross_check", || {
        let _ = tables::cross_check(cedt, topology, committed);
    });
    measure(needs, "tables::srat", || {
        let _ = tables::srat(committed, IDENTITY, 1, &mut buffer);
    });
    let contents = handoff::Contents {
        ecam: platform.ecam,
        topology: topology.tree(),
        remarks: &topology.remarks,
        committed: committed.view(),
        cedt: None,
    };
    hw.reads.clear();
    let length = handoff::write(&mut hw, &contents, &mut buffer).map(|record| record.len());
    let reads = std::mem::take(&mut hw.reads);
    measure(needs, "handoff::write", || {
        let mut hw = Replayed(reads.iter());
        let again = handoff::write(&mut hw, &contents, &mut buffer).map(|record| record.len());
        assert_eq!(again, length);
    });
}

/// What the flat path needs, as far as it goes with a scenario; whether it went to its end.
fn run_flat(scenario: &Scenario, needs: &mut Needs) -> bool {
    let mut machine = Machine::new(scenario);
    let acpi = cxl_model::acpi::Tables::new(scenario, machine.map(), TABLES_BASE);
    let (mcfg, cedt) = (acpi.table(&acpi.mcfg), acpi.table(&acpi.cedt));
    let (bits, roots) = (scenario.platform.physical_bits, roots(scenario));
    let Ok(found) = Tables::<32, 64>::from_acpi(mcfg, cedt, bits, &roots) else { return false };
    let platform = found.platform();
    let mut work = flat::Workspace::<4, 8, 16>::new();
    let mut buffer = vec![0; 64 << 10];
    let policy = flat::Policy { config_lock: true, ..flat::Policy::default() };
    let mut clock = RecordedClock { clock: machine.clock(), reads: Vec::new() };
    let mut hw = Recorded { machine: &mut machine, reads: Vec::new() };

    let result = flat::bring_up(&mut hw, &mut clock, &platform, &policy, &mut work);
    let (reads, times) = (std::mem::take(&mut hw.reads), std::mem::take(&mut clock.reads));
    measure(needs, "flat::bring_up", || {
        let (mut hw, mut clock) = (Replayed(reads.iter()), Replayed(times.iter()));
        assert_eq!(flat::bring_up(&mut hw, &mut clock, &platform, &policy, &mut work), result);
    });
    if result.is_err() {
        return false;
    }
    let length = flat::cedt(&mut hw, &platform, &mut work, IDENTITY, &mut buffer).map(|t| t.len());
    let reads = std::mem::take(&mut hw.reads);
    measure(needs, "flat::cedt", || {
        let mut hw = Replayed(reads.iter());
        let again = flat::cedt(&mut hw, &platform, &mut work, IDENTITY, &mut buffer);
        assert_eq!(again.map(|table| table.len()), length);
    });
    let length =
        flat::hand_off(&mut hw, &platform, &mut work, None, &mut buffer).map(|record| record.len());
    let reads = std::mem::take(&mut hw.reads);
    measure(needs, "flat::hand_off", || {
        let mut hw = Replayed(reads.iter());
        let again = flat::hand_off(&mut hw, &platform, &mut work, None, &mut buffer);
        assert_eq!(again.map(|record| record.len()), length);
    });
    true
}

/// KiB of the flat path in a release build, as firmware/README.md states it, and in a debug build.
const FLAT: Bound = (4, 24);

#[test]
fn the_flat_path_keeps_to_the_stack_that_the_readme_states() {
    let (mut needs, mut whole) = (Needs::new(), 0);
    for builtin in builtins() {
        let scenario = Scenario::parse(builtin.text, builtin.name).expect("a built-in scenario");
        whole += usize::from(run_flat(&scenario, &mut needs));
    }
    assert!(whole >= 4, "only {whole} built-in machines are flat");
    let bound = in_this_build(FLAT);
    for (verb, need) in needs {
        println!("{verb:20} {need:6} bytes of {bound} KiB");
        assert!(need <= bound * 1024, "{verb} needs {need} bytes");
    }
    let readme = include_str!("../../firmware/README.md");
    assert!(readme.contains(&format!("no more than {} KiB of stack", FLAT.0)));
}

/// What every verb needs in a workspace of a size.
fn needs<const N: usize, const R: usize, const D: usize>() -> Needs {
    let mut room = Box::new(Workspace::<N, R, D>::new());
    let mut needs = Needs::new();
    for builtin in builtins() {
        let scenario = Scenario::parse(builtin.text, builtin.name).expect("a built-in scenario");
        run(&scenario, &mut room, &mut needs);
    }
    needs
}

fn in_this_build((release, debug): Bound) -> usize {
    if cfg!(debug_assertions) { debug } else { release }
}

#[test]
fn every_verb_keeps_to_the_stack_that_the_readme_states() {
    let (small, large) = (needs::<64, 32, 128>(), needs::<640, 320, 1280>());
    let mut beyond = Vec::new();
    for (verb, in_small, in_large) in BOUNDS {
        for (needs, bound) in [(&small, in_small), (&large, in_large)] {
            let need = needs.get(verb).copied().unwrap_or(usize::MAX).div_ceil(1024);
            let bound = in_this_build(bound);
            let line = format!("{verb:20} {need:4} KiB of {bound}");
            println!("{line}");
            if need > bound {
                beyond.push(line);
            }
        }
    }
    assert_eq!(beyond, Vec::<String>::new(), "needs more than the README says");
}

#[test]
fn the_readme_states_these_bounds() {
    let readme = include_str!("../../firmware/README.md");
    for (verb, (small, _), (large, _)) in BOUNDS {
        let name = verb.rsplit("::").next().unwrap_or(verb);
        let rows = readme.lines().filter(|line| {
            // As a word: `commit` is not `committed`.
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            line.starts_with("| stack:") && words.any(|word| word == name)
        });
        let rows: Vec<_> = rows.collect();
        let numbers = format!("| {small} KiB | {large} KiB |");
        assert!(rows.len() == 1 && rows[0].ends_with(&numbers), "{verb} {numbers}: {rows:?}");
    }
}
