//! Teardown, over and over: what a machine takes from the host it gives back.
//!
//! Descriptors belong to the whole process, so these tests run one at a time, in a process of their
//! own.
//!
//! **Invariant**: without `/dev/kvm` every test here is shown as ignored, with the reason.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as the tests may")]

mod trial;

use std::fs;
use std::process::ExitCode;

use cxl_harness::guest::boot::{Options, Verdict, boot};
use cxl_harness::kvm::{self, Vm};
use cxl_model::machine::Machine;
use cxl_model::scenario::{PathPolicy, Scenario};
use libtest_mimic::Arguments;
use trial::{claim, unless};

/// Open descriptors, mappings of memory, and threads of this process.
fn taken() -> (usize, usize, usize) {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    let threads = fs::read_dir("/proc/self/task").unwrap().count();
    (descriptors, maps, threads)
}

fn scenario(name: &str) -> Scenario {
    let mut scenario = Scenario::built_in(name).unwrap();
    scenario.policy.path = PathPolicy::Unlocked;
    scenario.policy.config_lock = false;
    scenario
}

/// The allocator keeps mappings that it may use again; a leak of one a cycle is another matter.
const SLACK: usize = 16;

fn a_thousand_virtual_machines_leave_nothing_behind() {
    let make = || drop(Vm::new(&[(0, 16 << 20)], 46).unwrap());
    make();
    let before = taken();
    for _ in 0..1000 {
        make();
    }
    let after = taken();
    assert_eq!((after.0, after.2), (before.0, before.2));
    assert!(after.1 <= before.1 + SLACK, "{} mappings, {} before", after.1, before.1);
}

fn a_thousand_uncommits_and_commits_in_one_guest_leave_nothing_behind() {
    let run = || {
        let mut machine = Machine::new(&scenario("one-device"));
        let options = Options {
            payload: "recreate",
            timeout: std::time::Duration::from_secs(300),
            ..Options::default()
        };
        let run = boot(&mut machine, &options).unwrap();
        assert_eq!(run.last().verdict(), Verdict::Good);
        // Configuration space of a port and a device; registers of a bridge and of these, and a mailbox,
        // until the hand-off takes them away; a first slot of memory; and two calls for each of the
        // thousand cycles.
        assert_eq!(run.slot_log.len(), 2 + 2 * 4 + 1 + 2000);
        assert!(
            run.last().said.marks.iter().all(|mark| mark.slots == 1),
            "{:?}",
            run.last().said.marks
        );
    };
    run();
    let before = taken();
    run();
    run();
    let after = taken();
    assert_eq!((after.0, after.2), (before.0, before.2));
    assert!(after.1 <= before.1 + SLACK, "{} mappings, {} before", after.1, before.1);
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let missing = kvm::available().err().map(|error| error.to_string());
    if let Some(reason) = &missing {
        eprintln!("ignored: {reason}");
    }
    let lack = || missing.as_ref().map(|_| "needs /dev/kvm");
    let trial = |name, test: fn()| unless(lack(), claim(name, test));
    let trials = vec![
        trial(
            "a_thousand_virtual_machines_leave_nothing_behind",
            a_thousand_virtual_machines_leave_nothing_behind,
        ),
        trial(
            "a_thousand_uncommits_and_commits_in_one_guest_leave_nothing_behind",
            a_thousand_uncommits_and_commits_in_one_guest_leave_nothing_behind,
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}
