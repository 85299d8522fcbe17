//! What the tests on QEMU share: whether it is there, and a machine of it.
//!
//! **Invariant**: without a QEMU that has the CXL devices a test is shown as ignored, with the
//! remedy; none is silently green.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use cxl_harness::qemu::process::{self, Process};
use cxl_harness::qemu::qtest::Qtest;
use libtest_mimic::{Arguments, Trial};

/// What one command may take on a busy host.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Runs the trials, or shows them as ignored where there is no QEMU.
pub fn main(trials: Vec<Trial>) -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = match process::available() {
        Ok(_) => trials,
        Err(reason) => {
            eprintln!("tests on QEMU are ignored: {reason}");
            let ignored = |trial: Trial| trial.with_kind("needs QEMU").with_ignored_flag(true);
            trials.into_iter().map(ignored).collect()
        }
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test whose name is a claim, and which fails by panicking.
pub fn claim(name: impl Into<String>, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

/// A machine that stands still (`-S`), with these arguments.
pub fn stopped(arguments: &[&str]) -> (Process, Qtest) {
    let fixed = ["-accel", "tcg", "-S", "-display", "none", "-nodefaults", "-monitor", "none"];
    let all: Vec<OsString> = fixed.iter().chain(arguments).map(OsString::from).collect();
    Process::start_with_qtest(&all, LIMIT).unwrap_or_else(|error| panic!("{error}"))
}
