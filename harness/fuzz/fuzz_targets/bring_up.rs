//! The library on hardware that lies: a stream of arbitrary values, or a built-in machine some of
//! whose answers are replaced and some of whose writes are lost.
#![no_main]

use cxl_firmware::bring_up::{Workspace, bring_up, inspect};
use cxl_firmware::mmio::{Clock, Mmio};
use cxl_firmware::policy::{OnFailure, PathPolicy, Policy, Probe, TargetSystem, Width};
use cxl_fuzz::{Script, machine};
use cxl_harness::run;
use cxl_model::machine::Machine;
use libfuzzer_sys::fuzz_target;

/// The most accesses that one run may take: far more than any sound machine here needs with every
/// wait at its end.
const MOST: u32 = 4_000_000;

struct Liar<'a> {
    machine: Option<Machine>,
    lies: Script<'a>,
    /// Accesses that are answered as they should be before the next lie.
    truths: u16,
    accesses: u32,
}

impl Liar<'_> {
    /// Whether this access is a lie.
    fn lies(&mut self) -> bool {
        self.accesses += 1;
        assert!(self.accesses < MOST, "accesses without end");
        if self.lies.is_over() {
            return false;
        }
        match self.truths.checked_sub(1) {
            Some(left) => self.truths = left,
            None => self.truths = self.lies.byte().into(),
        }
        self.truths == 0
    }
}

impl Mmio for Liar<'_> {
    fn read(&mut self, address: u64) -> u32 {
        assert!(address.is_multiple_of(4), "{address:#x}");
        let Some(machine) = &mut self.machine else {
            self.accesses += 1;
            assert!(self.accesses < MOST, "accesses without end");
            return if self.lies.is_over() { u32::MAX } else { self.lies.dword() };
        };
        let truth = machine.read(address);
        if self.lies() { truth ^ self.lies.dword() } else { truth }
    }

    fn write(&mut self, address: u64, value: u32) {
        assert!(address.is_multiple_of(4), "{address:#x}");
        let lost = self.machine.is_some() && self.lies();
        if let (Some(machine), false) = (&mut self.machine, lost) {
            machine.write(address, value);
        }
    }
}

/// Time that goes on, so that waits come to their ends.
struct Hasty(u64);

impl Clock for Hasty {
    fn microseconds(&mut self) -> u64 {
        self.0 += 1000;
        self.0
    }
}

fuzz_target!(|data: &[u8]| {
    let mut script = Script(data);
    let (choice, number) = (script.byte(), script.byte());
    let machine = machine(number);
    let Ok(tables) = run::platform(&machine) else { return };
    let policy = Policy {
        path: if choice & 1 == 0 { PathPolicy::LockAll } else { PathPolicy::Unlocked },
        on_failure: if choice & 2 == 0 { OnFailure::Strict } else { OnFailure::BestEffort },
        target: if choice & 4 == 0 { TargetSystem::Linux } else { TargetSystem::Specification },
        width: if choice & 8 == 0 { Width::Widest } else { Width::Flat },
        probe: if choice & 0x10 == 0 { Probe::All } else { Probe::Skip },
        config_lock: choice & 0x20 == 0,
        burn_spares: choice & 0x40 != 0,
        ..Policy::DEFAULT
    };
    let alone = choice & 0x80 != 0;
    let machine = (!alone).then_some(machine);
    let mut hw = Liar { machine, lies: script, truths: 0, accesses: 0 };
    let mut work = Box::new(Workspace::<48, 32, 128>::new());
    let platform = tables.platform();
    if let Err(error) = bring_up(&mut hw, &mut Hasty(0), &platform, &policy, &mut *work) {
        assert!(error.code() != 0 && !error.to_string().is_empty());
    }
    let _ = inspect(&mut hw, &mut Hasty(0), &platform, &policy, &mut *work);
});
