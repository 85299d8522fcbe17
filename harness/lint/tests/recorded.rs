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

use std::collections::BTreeSet;

use cxl_lint::{Change, Kernel, Registers, Rule, lint, lint_for};
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

/// What no set shows and a kernel all the same: in boots of `harness/tests/linux.rs`, of a machine with a
/// bridge that has no decoders, whose memory comes online all the same.
const BOOTED: (Rule, Change) = (Rule::PassThrough, Change::UnclaimedMemory);

/// What is said to be by Linux's source alone is what no kernel has shown in any recorded set, and nothing
/// else: neither does lint claim evidence that there is not, nor is modest about what there is.
#[test]
fn rules_and_changes_are_by_the_source_alone_where_no_recording_shows_them() {
    let (mut rules, mut changes) = (BTreeSet::new(), BTreeSet::new());
    for of in file::load().kernel {
        let kernel: Kernel = of.version.parse().unwrap();
        for set in &of.set {
            let machine = of.machine.iter().find(|machine| machine.name == set.machine).unwrap();
            let mut input = machine.with(&set.change).input();
            input.prm = Some(false);
            rules.extend(lint_for(&input, kernel).iter().map(|finding| finding.rule));
            for finding in lint(&input) {
                let said = finding.messages.iter().map(|message| message.kernels);
                for kernels in said.chain([finding.kernels]) {
                    let both = kernels.since.into_iter().chain(kernels.until);
                    changes.extend(both.filter(|change| change.is_in(kernel)));
                }
            }
        }
    }
    rules.insert(BOOTED.0);
    changes.insert(BOOTED.1);
    let wrong: Vec<_> =
        Rule::ALL.iter().filter(|rule| rule.seen() != rules.contains(rule)).collect();
    assert!(wrong.is_empty(), "seen is otherwise than said: {wrong:?}");
    let wrong: Vec<_> =
        Change::ALL.iter().filter(|change| change.seen() != changes.contains(change)).collect();
    assert!(wrong.is_empty(), "seen is otherwise than said: {wrong:?}");
}

/// Linux takes a region's granularity from the member that comes first, be it the wrong one; the window
/// says what is right.
#[test]
fn of_members_with_different_granularities_the_wrong_one_is_accused() {
    let recording = file::load();
    let machines = recording.kernel.iter().flat_map(|kernel| &kernel.machine);
    let mut accused = 0;
    for machine in machines {
        for wrong in 0..machine.device.len() {
            let mut input = machine.input();
            let Registers::Hdm(image) = &mut input.devices[wrong].registers else { continue };
            image.decoders[0].control ^= 1;
            for found in lint_for(&input, "7.3".parse().unwrap()) {
                if found.rule != Rule::GranularityDiffers {
                    continue;
                }
                accused += 1;
                assert_eq!(found.component, input.devices[wrong].name, "{}", machine.name);
                let numbers = found.found.trim_start_matches("granularity ").replace(" B", "");
                let (has, wants) = numbers.split_once(", the set has ").unwrap();
                assert_ne!(has, wants, "{}", machine.name);
            }
        }
    }
    assert!(accused > 0, "no machine has a set whose window says its granularity");
}

/// Sets that a kernel has not recorded, and why not.
const LEFT_OUT: &[(&str, &str)] = &[
    ("two: mem1 Decoder Count 0xc", "QEMU 11.1 ends as 7.3.4 looks at 32 decoders"),
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
