//! What the linter says of broken sets of registers and tables, beside what Linux did with them:
//! `recorded/linux.toml`, which Linux itself has recorded (`harness/tests/record.rs` of the repository).
//!
//! **Invariant**: the linter sees registers and the table as Linux found them, and nothing of what came of
//! them.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]
#![allow(unreachable_pub, dead_code, reason = "each test binary uses a part")]

#[path = "recorded/differences.rs"]
mod differences;
#[path = "recorded/file.rs"]
mod file;
#[path = "recorded/sets.rs"]
mod sets;

use cxl_lint::Kernel;
use differences::differences;

#[test]
fn lint_says_of_each_recorded_set_what_linux_did() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for of in file::load().kernel {
        let kernel: Kernel = of.version.parse().unwrap();
        for set in &of.set {
            count += 1;
            let machine = of.machine.iter().find(|machine| machine.name == set.machine).unwrap();
            let found = differences(machine, set, kernel);
            wrong.extend(found.iter().map(|found| format!("{kernel} {}: {found}", set.name)));
        }
    }
    // Without a recording there is nothing to be wrong about.
    assert!(count >= 800, "{count} sets are recorded");
    assert!(wrong.is_empty(), "{} in {count} sets\n{}", wrong.len(), wrong.join("\n"));
}

/// Sets that a kernel has not recorded, and why not.
const LEFT_OUT: &[(&str, &str)] = &[
    ("two: mem1 Decoder Count 0xc", "7.3.4 does not survive a device with 32 decoders"),
    ("two: mem1 A11to8 0x0", "its line of the log was not kept when this was recorded"),
];

#[test]
fn what_is_recorded_is_what_the_generator_makes() {
    let recording = file::load();
    let mut count = 0;
    for of in &recording.kernel {
        for machine in &of.machine {
            for set in sets::sets(machine) {
                let name = &set.name;
                let known = of.set.iter().find(|known| known.name == *name);
                let Some(known) = known else {
                    let why = LEFT_OUT.iter().find(|(left, _)| left == name);
                    assert!(why.is_some(), "{name}: not recorded with {}", of.version);
                    continue;
                };
                assert_eq!(known.change, set.change, "{name}");
                count += usize::from(!set.change.is_empty());
            }
        }
    }
    assert!(recording.kernel.len() >= 2, "{} kernels", recording.kernel.len());
    assert!(count >= 400, "{count} broken sets");
}
