//! The firmware in a real KVM guest: every payload, what the host saw meanwhile, and images that
//! misbehave.
//!
//! **Invariant**: without `/dev/kvm` every test here is shown as ignored, with the reason; none is
//! silently green.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

mod program;

#[path = "guest/command.rs"]
mod command;
#[path = "guest/demands.rs"]
mod demands;
#[path = "guest/elf.rs"]
mod elf;
#[path = "guest/hostile.rs"]
mod hostile;
#[path = "guest/interleave.rs"]
mod interleave;
#[path = "guest/payloads.rs"]
mod payloads;
#[path = "guest/probe.rs"]
mod probe;
#[path = "guest/same.rs"]
mod same;
#[path = "guest/slots.rs"]
mod slots;
mod trial;

use std::process::ExitCode;

use cxl_harness::guest::boot::{self, GuestError, GuestRun, IMAGE, Options, Verdict};
use cxl_harness::kvm::{self, Vm};
use cxl_model::machine::Machine;
use cxl_model::scenario::{PathPolicy, Scenario, builtins};
use libtest_mimic::Trial;
use trial::{claim, unless};

fn main() -> ExitCode {
    let missing = kvm::available().err().map(|error| error.to_string());
    let mut trials = payloads::trials();
    trials.extend(same::trials());
    trials.extend(probe::trials());
    trials.extend(hostile::trials());
    trials.extend(slots::trials());
    trials.extend(interleave::trials());
    trials.extend(command::trials());
    trials.extend(demands::trials());
    if let Some(reason) = &missing {
        eprintln!("guest tests are ignored: {reason}");
        let ignored = |trial| unless(Some("needs /dev/kvm"), trial);
        trials = trials.into_iter().map(ignored).collect();
    }
    // Windows of some machines lie beyond what a guest of this host can address.
    if missing.is_none() && Vm::new(&[(0, 1 << 20)], 52).is_ok_and(|vm| vm.address_bits() < 44) {
        let high = |trial: &Trial| HIGH.iter().any(|name| trial.name() == *name);
        let lack = |trial: &Trial| high(trial).then_some("needs 44 bits of address");
        trials = trials.into_iter().map(|trial| unless(lack(&trial), trial)).collect();
    }
    trial::run(trials)
}

/// Tests whose guests reach for memory at 8 TiB and above.
const HIGH: [&str; 5] = [
    "four_bridges_have_their_memory_at_fixed_addresses",
    "touch_at_cpl_0_on_four-bridges",
    "guest_and_direct_run_agree_on_four-bridges",
    "memory_of_four-bridges_keeps_what_is_stored",
    "panic_prints_place_and_reason",
];

/// A built-in scenario.
fn builtin(name: &str) -> Scenario {
    Scenario::built_in(name).unwrap_or_else(|| panic!("no {name}"))
}

/// A built-in scenario whose firmware locks nothing.
fn unlocked(name: &str) -> Scenario {
    let mut scenario = builtin(name);
    scenario.policy.path = PathPolicy::Unlocked;
    scenario.policy.config_lock = false;
    scenario
}

/// The built-in scenarios whose firmware comes to its end.
fn working() -> impl Iterator<Item = &'static str> {
    builtins().iter().map(|builtin| builtin.name).filter(|name| {
        let mut machine = Machine::new(&builtin(name));
        cxl_harness::run::direct(&mut machine).refusal.is_none()
    })
}

/// A machine, and what a guest did to it.
struct GuestTrial {
    machine: Machine,
    run: GuestRun,
}

fn run(scenario: &Scenario, options: &Options<'_>) -> GuestTrial {
    let mut machine = Machine::new(scenario);
    let run = boot::boot(&mut machine, options).unwrap_or_else(|error| panic!("{error}"));
    GuestTrial { machine, run }
}

/// Runs a payload of our image. Debug builds on a busy host are slow: the time limit is generous.
fn payload(scenario: &Scenario, payload: &str) -> GuestTrial {
    run(scenario, &Options { payload, ..options() })
}

/// A window may be larger than the host's memory: a test touches little of it.
fn options() -> Options<'static> {
    let budget = Some(1 << 40);
    Options { timeout: std::time::Duration::from_secs(300), budget, ..Options::default() }
}

/// Our image entered as any PVH kernel is, at CPL 3 or not.
fn pvh(scenario: &Scenario, payload: &str, ring3: bool) -> GuestTrial {
    let mut line = boot::command_line(scenario, Machine::new(scenario).map(), payload).unwrap();
    line += if ring3 { " ring3" } else { "" };
    run(scenario, &Options { image: Some(IMAGE), command_line: Some(line), ..options() })
}

impl GuestTrial {
    fn console(&self) -> String {
        String::from_utf8_lossy(&self.run.console).into_owned()
    }

    /// The run, if all went well.
    fn good(self) -> Self {
        let verdict = self.run.last().verdict();
        assert_eq!(verdict, Verdict::Good, "{:?}\n{}", self.run.first.end, self.console());
        self
    }

    /// Exits in the window between each pair of marks.
    fn window_exits(&self) -> Vec<u64> {
        let pairs = self.run.last().said.marks.chunks_exact(2);
        pairs.map(|pair| pair[1].counts.window - pair[0].counts.window).collect()
    }

    /// The calls that moved CXL memory. Pages behind BARs, which lie below 4 GiB, come and go with
    /// their BARs.
    fn memory_log(&self) -> Vec<kvm::Call> {
        let above = |call: &&kvm::Call| {
            let (kvm::Call::Add { base, .. } | kvm::Call::Remove { base }) = call;
            base >> 32 != 0
        };
        self.run.slot_log.iter().filter(above).copied().collect()
    }

    /// Eight bytes of a device's memory, by its own address.
    fn media(&self, device: usize, dpa: u64) -> u64 {
        let mut bytes = [0; 8];
        let media = &self.machine.endpoint(device).unwrap().media;
        assert!(media.read(cxl_regs::Dpa(dpa), &mut bytes));
        u64::from_le_bytes(bytes)
    }
}
