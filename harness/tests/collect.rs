//! A machine collected by the Linux that runs on it, and inspected elsewhere: on files that stand for a
//! machine's, of every built-in machine; and in a Linux on QEMU, where what was collected is held against
//! what a second pair of eyes sees from outside.
//!
//! **Invariant**: files that stand for a machine's are made of the models' registers alone, and what is
//! read back is held against those models. Without QEMU, a kernel or busybox the tests in Linux are shown
//! as ignored, with the remedy.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

#[path = "collect/bundles.rs"]
mod bundles;
#[path = "collect/guest.rs"]
mod guest;
mod program;
#[path = "collect/stand_in.rs"]
mod stand_in;
mod trial;

use std::process::ExitCode;

use libtest_mimic::Trial;
use trial::{claim, unless};

fn main() -> ExitCode {
    let lack = guest::missing();
    if let Some(reason) = &lack {
        eprintln!("tests in a Linux on QEMU are ignored: {reason}");
    }
    // Boots run beside each other, and beside what needs none.
    let mut trials: Vec<Trial> = guest::cases()
        .into_iter()
        .map(|(name, test)| unless(lack.clone(), claim(name, test)))
        .collect();
    trials.extend(bundles::cases().into_iter().map(|(name, test)| claim(name, test)));
    trial::run(trials)
}
