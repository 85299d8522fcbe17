//! The linter's word beside Linux's, for one set.
//!
//! **Invariant**: every line of the log that is kept has to be predicted, and every prediction said;
//! ports, assembled regions and memory have to be the same ones.

use std::collections::BTreeSet;

use cxl_lint::{Kernel, Message, lint_for, outcome};

use crate::file::{Machine, Set};

/// Lines that nobody predicts, by words of theirs, and why not.
const EXPLAINED: &[(&str, &str)] = &[
    ("UBSAN: array-index-out-of-bounds", "said once a boot, by kernels that are built to look"),
    ("is out of range for type 'unsigned char [8]'", "the same: a list of more than 8 targets"),
    ("region mismatch", "said once a boot, as a failed attachment is undone"),
    ("free_region_ref+", "the trace of that"),
    ("Expanded resource CXL Window", "a window over RAM, which only this test puts there"),
    ("probe: -", "debug: what a driver's probe came to; the refusal itself has its own lines"),
    ("disconnect mem", "debug: the same"),
    ("DVSEC Range", "debug: what became of each range register"),
    ("Fallback map", "debug: how many range registers count"),
    ("is a root dport", "debug: of each device below a bridge that is out of use"),
    ("check for HPA violation", "debug: what is compared, not what comes of it"),
    (
        "Mailbox operation had an error",
        "QEMU's devices lack a command that a persistent device has",
    ),
    ("GPF: could not set dirty shutdown state", "the same"),
    ("kmem dax", "what becomes of memory that CXL has handed over"),
];

/// What the linter says that Linux did not do, and the other way round.
pub fn differences(machine: &Machine, set: &Set, kernel: Kernel) -> Vec<String> {
    let mut input = machine.with(&set.change).input();
    // QEMU's platform has no PRM.
    input.prm = Some(false);
    let mut differences = Vec::new();
    let messages: Vec<Message> =
        lint_for(&input, kernel).into_iter().flat_map(|finding| finding.messages).collect();
    let log: Vec<(u32, &str)> = set
        .outcome
        .log
        .iter()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(level, text)| (level.parse().unwrap(), text))
        .collect();
    // Which of several regions Linux meets first is no matter of registers.
    const ORDER: &str = "HPA order violation";
    let said = |message: &Message, line: &str| {
        message.is_said_by(line) || message.text.contains(ORDER) && line.contains(ORDER)
    };
    for message in &messages {
        if !log.iter().any(|(_, line)| said(message, line)) {
            differences.push(format!("not said: {:?} {message}", message.level));
        }
    }
    for (level, line) in &log {
        // The second line of "Failed to reserve DPA range".
        let second = *line == "(-16)";
        if second || EXPLAINED.iter().any(|(words, _)| line.contains(words)) {
            continue;
        }
        if !messages.iter().any(|message| said(message, line)) {
            differences.push(format!("said, too: {level} {line}"));
        }
    }
    let found = outcome(&input, kernel);
    let ours: BTreeSet<&str> = found.ports.iter().map(String::as_str).collect();
    let theirs = set.outcome.port.iter().filter_map(|port| port.split_once(' '));
    let theirs: BTreeSet<_> = theirs.filter(|port| port.1 != "0").map(|port| port.0).collect();
    if ours != theirs {
        differences.push(format!("ports {ours:?}, and Linux has {theirs:?}"));
    }
    let mut regions = Vec::new();
    let mut memory = Vec::new();
    for region in found.regions.iter().filter(|region| region.assembled) {
        let members: Vec<_> =
            region.members.iter().map(|(name, number)| format!("{name}.{number}")).collect();
        let kind = if region.persistent == Some(true) { "pmem" } else { "ram" };
        regions.push(format!(
            "{:#x} {:#x} {}x{} {kind} 1 {}",
            region.base,
            region.size,
            region.ways,
            region.granularity,
            members.join(",")
        ));
        let last = region.base.wrapping_add(region.size).wrapping_sub(1);
        if kind == "ram" {
            memory.push(format!("{:x}-{last:x}", region.base));
        }
    }
    regions.sort();
    memory.sort();
    let theirs = set.outcome.region.iter().map(|region| {
        let words: Vec<_> = region.split(' ').collect();
        // All but whether it is locked.
        [&words[..5], &words[6..]].concat().join(" ")
    });
    let mut theirs: Vec<_> = theirs.filter(|region| region.contains(" 1 ")).collect();
    theirs.sort();
    if regions != theirs {
        differences.push(format!("regions {regions:?}, and Linux has {theirs:?}"));
    }
    let theirs = set.outcome.memory.iter().filter(|range| range.contains("kmem"));
    let theirs: Vec<_> = theirs.filter_map(|range| range.split(' ').next()).collect();
    // What CXL hands over may be too far up for this kernel, and the driver kmem says so of each range.
    let handed = log.iter().filter(|(_, line)| line.contains("probe with driver kmem failed"));
    let missing = memory.iter().filter(|range| !theirs.contains(&range.as_str())).count();
    let more = theirs.iter().any(|range| !memory.iter().any(|ours| ours == range));
    if more || missing != handed.count() {
        differences.push(format!("memory {memory:?}, and Linux has {theirs:?}"));
    }
    differences
}
