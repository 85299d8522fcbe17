//! What the tests on QEMU share: whether it is there, and a machine of it.
//!
//! **Invariant**: without a QEMU that has the CXL devices a test is shown as ignored, with the
//! remedy; none is silently green.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

#[path = "../trial/mod.rs"]
pub mod trial;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use cxl_firmware::discover::discover;
use cxl_harness::qemu::command::Command;
use cxl_harness::qemu::process::{self, ADDRESS_BITS, Process};
use cxl_harness::qemu::qtest::Qtest;
use cxl_harness::qemu::view::View;
use cxl_harness::qemu::{Clock, bare};
use cxl_harness::run::{self, DirectRun, Room, RunRequest, Tables};
use cxl_model::scenario::Scenario;
use libtest_mimic::Trial;

pub use trial::claim;
use trial::unless;

/// What one command may take on a busy host.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Runs the trials, or shows them as ignored where there is no QEMU.
pub fn main(trials: Vec<Trial>) -> ExitCode {
    let missing = process::available().err();
    if let Some(reason) = &missing {
        eprintln!("tests on QEMU are ignored: {reason}");
    }
    let lack = || missing.as_ref().map(|_| "needs QEMU");
    trial::run(trials.into_iter().map(|trial| unless(lack(), trial)).collect())
}

/// What a machine needs that stands still and has nothing to show.
fn fixed() -> Vec<OsString> {
    let fixed = ["-accel", "tcg", "-S", "-display", "none", "-nodefaults", "-monitor", "none"];
    fixed.map(OsString::from).to_vec()
}

/// A machine that stands still (`-S`), with these arguments.
pub fn stopped(arguments: &[&str]) -> (Process, Qtest) {
    let mut all = fixed();
    all.extend(arguments.iter().map(OsString::from));
    Process::start_with_qtest(&all, LIMIT).unwrap_or_else(|error| panic!("{error}"))
}

/// A scenario's machine on QEMU, before any firmware has run.
pub struct Peer {
    /// Kept: the machine ends with it.
    pub process: Process,
    pub qtest: Qtest,
    pub tables: Tables,
    pub view: View,
    /// Files of devices' memory.
    pub command: Command,
}

impl Peer {
    /// Starts it; devices' memory lies in files if there is a directory for them.
    pub fn new(scenario: &Scenario, files: Option<&Path>) -> Self {
        let command = Command::of(scenario, files).unwrap_or_else(|e| panic!("{e}"));
        let mut arguments = fixed();
        arguments.extend(command.arguments());
        let started = Process::start_with_qtest(&arguments, LIMIT);
        let (mut process, mut qtest) = started.unwrap_or_else(|error| panic!("{error}"));
        let tables = bare::platform(&mut qtest, ADDRESS_BITS).unwrap_or_else(|error| {
            panic!("{error}; {}", process.words());
        });
        let view = View::new(scenario, &tables).unwrap_or_else(|error| panic!("{error}"));
        Self { process, qtest, tables, view, command }
    }

    /// What discovery finds; it assigns buses, windows and BARs on the way.
    pub fn discover(&mut self) -> Box<Room> {
        let mut room = run::room();
        let platform = self.tables.platform();
        let result = discover(&mut self.qtest, &mut Clock::new(), &platform, &mut room.topology);
        self.qtest.check().unwrap_or_else(|error| panic!("{error}"));
        result.unwrap_or_else(|error| panic!("{error}"));
        room
    }

    /// The library's whole job, as the scenario's policy says.
    pub fn bring_up(&mut self) -> DirectRun {
        let wanted = RunRequest::on(&self.view.scenario, &self.view.map).unwrap();
        let platform = self.tables.platform();
        let done = run::on(&mut self.qtest, &mut Clock::new(), &platform, &wanted);
        self.qtest.check().unwrap_or_else(|error| panic!("{error}"));
        if let Some(refusal) = &done.refusal {
            panic!("{refusal}");
        }
        done
    }
}

/// Numbers that look random and follow from a seed (SplitMix64).
pub struct Random(u64);

impl Random {
    /// Starts from `CXL_SEED`, or from the seed that the test has without it. Says which.
    pub fn from_environment(default: u64) -> Self {
        let given = std::env::var("CXL_SEED").ok();
        let seed = given.map_or(default, |text| {
            let digits = text.strip_prefix("0x");
            let parsed = digits.map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16));
            parsed.unwrap_or_else(|_| panic!("CXL_SEED={text}: expected a number"))
        });
        eprintln!("seed: CXL_SEED={seed:#x}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ value >> 31
    }

    /// Below a limit, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
