//! What Linux does with broken sets of registers and tables, recorded by Linux itself: the recording is
//! `harness/lint/recorded/linux.toml`, and `harness/lint/tests/recorded.rs` holds the linter to it.
//!
//! `CXL_RECORD=all` records every set anew with the kernel and the QEMU at hand (`LINUX_KERNEL`, `QEMU`)
//! and leaves what other kernels did as it is; `CXL_RECORD=NAME` does so with one machine. Without it a
//! sample is recorded, and has to be as it was.
//!
//! **Invariant**: nobody expects here what he predicted; sets follow from a machine's registers, what came
//! of them from Linux.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]
#![allow(unreachable_pub, dead_code, reason = "each test binary uses a part")]

#[path = "../lint/tests/recorded/differences.rs"]
mod differences;
#[path = "../lint/tests/recorded/file.rs"]
mod file;
#[path = "record/guest.rs"]
mod guest;
#[path = "record/machines.rs"]
mod machines;
#[path = "../lint/tests/recorded/sets.rs"]
mod sets;
mod trial;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::thread;

use cxl_harness::linux::Installed;
use cxl_harness::qemu::process;
use guest::Guest;
use machines::{MACHINES, Machine};
use trial::{claim, unless};

/// Guests that run side by side.
const WORKERS: usize = 2;

/// Records the sets of a machine that `wanted` picks by its number, by `WORKERS` guests.
fn record(
    kind: &'static Machine,
    installed: &Installed,
    wanted: fn(usize) -> bool,
) -> (file::Machine, Vec<file::Set>) {
    // A sample is not worth a second boot.
    let workers = if wanted(1) { WORKERS } else { 1 };
    let part = |worker: usize| {
        let mut guest = Guest::start(kind, installed);
        let machine = guest.machine.clone();
        let mut done = Vec::new();
        for (index, set) in sets::sets(&machine).into_iter().enumerate() {
            if index % workers != worker || !wanted(index) {
                continue;
            }
            let mut outcome = None;
            for _ in 0..2 {
                let run = AssertUnwindSafe(|| guest.record(kind, &set.change));
                if let Ok(found) = catch_unwind(run) {
                    outcome = Some(found);
                    break;
                }
                eprintln!("{}: the guest did not survive it:\n{}", set.name, guest.last_words());
                guest = Guest::start(kind, installed);
            }
            if let Some(outcome) = outcome {
                let (name, machine) = (set.name, machine.name.clone());
                done.push((index, file::Set { name, machine, change: set.change, outcome }));
            }
        }
        guest.end();
        (machine, done)
    };
    let mut parts: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..workers).map(|worker| scope.spawn(move || part(worker))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let machine = parts[0].0.clone();
    let mut all: Vec<_> = parts.drain(..).flat_map(|(_, done)| done).collect();
    all.sort_by_key(|(index, _)| *index);
    (machine, all.into_iter().map(|(_, set)| set).collect())
}

/// Records all sets of the machines that are named, and keeps the others.
fn anew(names: &str) {
    let installed = Installed::find().unwrap();
    let (major, minor) = process::version().unwrap();
    for kind in MACHINES.iter().filter(|kind| names == "all" || names == kind.name) {
        let (machine, sets) = record(kind, &installed, |_| true);
        eprintln!("{}: {} sets", kind.name, sets.len());
        let mut recording = file::load();
        let known = recording.kernel.iter().position(|kernel| kernel.version == installed.version);
        let at = known.unwrap_or_else(|| {
            let version = installed.version.clone();
            let new = file::Kernel { version, qemu: String::new(), machine: vec![], set: vec![] };
            recording.kernel.push(new);
            recording.kernel.len() - 1
        });
        let kernel = &mut recording.kernel[at];
        kernel.qemu = format!("{major}.{minor}");
        kernel.machine.retain(|old| old.name != kind.name);
        kernel.set.retain(|old| old.machine != kind.name);
        kernel.machine.push(machine);
        kernel.set.extend(sets);
        file::store(&recording);
    }
}

/// Every so many sets of the machine with most of them are recorded anew.
const SAMPLE: usize = 24;

/// Those sets: the linter says what Linux does now, and Linux does what it did.
fn sample() {
    let installed = Installed::find().unwrap();
    let kind = MACHINES.first().unwrap();
    let (machine, sets) = record(kind, &installed, |index| index % SAMPLE == 0);
    assert!(sets.len() > 4, "{} sets are no sample", sets.len());
    let kernel = installed.version.parse().unwrap();
    let recording = file::load();
    let known = recording.kernel.iter().find(|known| known.version == installed.version);
    let mut wrong = Vec::new();
    for set in &sets {
        let found = differences::differences(&machine, set, kernel);
        wrong.extend(found.iter().map(|difference| format!("{}: {difference}", set.name)));
        let old = known.and_then(|known| known.set.iter().find(|old| old.name == set.name));
        // Where memory lies is QEMU's to say; what becomes of it is not.
        let counts = |set: &file::Set| {
            let outcome = &set.outcome;
            (outcome.port.clone(), outcome.region.len(), outcome.memory.len(), outcome.log.len())
        };
        if let Some(old) = old.filter(|old| counts(old) != counts(set)) {
            wrong
                .push(format!("{}: recorded {:#?}, now {:#?}", set.name, old.outcome, set.outcome));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn main() -> ExitCode {
    if let Some(names) = std::env::var_os("CXL_RECORD").filter(|names| !names.is_empty()) {
        anew(&names.to_string_lossy());
        return ExitCode::SUCCESS;
    }
    let installed = Installed::find().err().map(|missing| missing.to_string());
    let lack = installed.or_else(|| process::available().err().map(|missing| missing.to_string()));
    if let Some(reason) = &lack {
        eprintln!("nothing is recorded: {reason}");
    }
    let trial = claim("a_sample_recorded_anew_is_as_it_was_and_as_lint_says", sample);
    trial::run(vec![unless(lack.map(|_| "needs QEMU and Linux"), trial)])
}
