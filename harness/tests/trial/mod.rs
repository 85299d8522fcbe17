//! Trials of the test programs that run their tests themselves: a claim, and what it lacks here.
//!
//! **Invariant**: a trial that lacks something is shown as ignored, with the reason; none is
//! silently green.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// A test whose name is a claim, and which fails by panicking.
pub fn claim(name: impl Into<String>, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

/// The trial, unless something is lacking.
pub fn unless(lack: Option<impl Into<String>>, trial: Trial) -> Trial {
    match lack {
        Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
        None => trial,
    }
}

/// Runs the trials as the command line says.
pub fn run(trials: Vec<Trial>) -> ExitCode {
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
