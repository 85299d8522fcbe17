//! Every built-in scenario, run directly: how it ends, what traffic it takes, what it leaves.
//!
//! `snapshots/<scenario>/` holds what a reviewer reads: the plan, the decoders' registers, the CEDT
//! and the report; for `one-device` also every register access.
//!
//! **Invariant**: expected results, codes and counts are typed by hand.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;

use cxl_harness::report::{PlanReport, Report, Stages, Svg, Verdict};
use cxl_harness::run;
use cxl_model::image::Images;
use cxl_model::machine::{Machine, TraceText};
use cxl_model::scenario::{Scenario, builtins};
use cxl_model::trace::{Count, Direction, Target};
use cxl_regs::acpi::cedt::Text;

/// How each scenario ends, 0 or the code of the refusal, and the reads and writes that it takes. The
/// upper byte of a code is the phase.
const RESULTS: [(&str, u16, u64, u64); 45] = [
    ("default", 0, 1139, 111),
    ("one-device", 0, 303, 24),
    ("four-bridges", 0, 1212, 96),
    ("two-devices-one-bridge", 0, 558, 48),
    ("switch", 0, 770, 64),
    ("two-partitions", 0, 364, 42),
    ("dpa-skip", 0, 412, 54),
    ("type2", 0, 523, 45),
    ("type2-db", 0, 282, 23),
    ("pass-through", 0, 263, 16),
    ("path2", 0, 209, 3),
    ("describe", 0, 788, 12),
    ("sized-windows", 0, 953, 9),
    ("passed-through", 0, 789, 6),
    ("unlocked", 0, 301, 23),
    ("hot-plug", 0, 367, 24),
    ("uids-not-buses", 0, 606, 48),
    ("two-way", 0, 602, 44),
    ("two-way-ports", 0, 528, 36),
    ("four-way", 0, 1056, 72),
    ("three-way", 0, 903, 66),
    ("twelve-way", 0, 3612, 264),
    ("sixteen-way", 0, 3928, 256),
    ("switch-interleave", 0, 1428, 88),
    ("xor-four-way", 0, 1204, 88),
    ("persistent-interleave", 0, 524, 34),
    ("ambiguous", 0x0303, 203, 3),
    ("no-window", 0x0301, 239, 3),
    ("no-such-target", 0x0302, 0, 0),
    ("window-too-small", 0x0308, 203, 3),
    ("unplaced-window", 0x0305, 203, 3),
    ("window-beyond-width", 0x0306, 203, 3),
    ("interleaved-window", 0x0304, 239, 3),
    ("too-few-decoders", 0x030C, 370, 6),
    ("window-order", 0x030E, 206, 3),
    ("coherency", 0x030B, 165, 0),
    ("cxl-1-1", 0, 307, 24),
    ("lock-not-enforced", 0, 303, 24),
    ("lock-lost", 0x0515, 317, 33),
    ("commit-polls", 0, 306, 24),
    ("commit-never", 0x0410, 5275, 38),
    ("commit-error", 0x040F, 275, 38),
    ("dropped-write", 0x040A, 254, 18),
    ("stuck-bit", 0x040A, 254, 18),
    ("dead-device", 0x021B, 111, 0),
];

fn machine(name: &str) -> Machine {
    Machine::new(&Scenario::built_in(name).unwrap_or_else(|| panic!("no {name}")))
}

fn boot(machine: &mut Machine) -> (run::DirectRun, Report) {
    let done = run::direct(machine);
    let report = Report::of_direct(machine, &done);
    (done, report)
}

/// The scenarios that end well.
fn good() -> impl Iterator<Item = &'static str> {
    RESULTS.into_iter().filter_map(|(name, code, ..)| (code == 0).then_some(name))
}

#[test]
fn every_scenario_ends_as_it_says() {
    let names: Vec<&str> = builtins().iter().map(|builtin| builtin.name).collect();
    assert_eq!(names, RESULTS.map(|(name, ..)| name));
    for (name, code, reads, writes) in RESULTS {
        let (_, report) = boot(&mut machine(name));
        let facts = report.facts;
        assert_eq!(facts.failures(), [""; 0], "{name}");
        let found = facts.refusal.map_or(0, |refusal| refusal.code);
        assert_eq!(found, code, "{name}: {found:#06x} instead of {code:#06x}");
        let result = if code == 0 { Verdict::Ok } else { Verdict::Refused };
        assert_eq!(facts.result, result, "{name}");
        let traffic = facts.traffic;
        assert_eq!((traffic.reads, traffic.writes), (reads, writes), "{name}");
        // Descriptions promise refusals.
        let promised = facts.description.starts_with("refused: ");
        assert!(!promised || code != 0, "{name}: {}", facts.description);
    }
}

#[test]
fn a_refusal_in_the_plan_writes_no_decoder() {
    for (name, code, ..) in
        RESULTS.into_iter().filter(|(_, code, ..)| matches!(code >> 8, 2 | 3 | 8))
    {
        let mut machine = machine(name);
        let before = machine.fabric();
        run::direct(&mut machine);
        assert_eq!(machine.fabric(), before, "{name} {code:#06x}");
        let writes = machine.traffic().decoders.values().map(|count| count.all().writes);
        assert_eq!(writes.sum::<u64>(), 0, "{name}");
    }
}

#[test]
fn a_failed_commit_leaves_every_register_as_it_was() {
    for name in ["commit-error", "dropped-write", "stuck-bit", "commit-never"] {
        let mut machine = machine(name);
        let before = Images(&machine).to_string();
        let (_, report) = boot(&mut machine);
        assert_eq!(Images(&machine).to_string(), before, "{name}");
        let fates = report.facts.decoders.iter().map(|decoder| decoder.fate.unwrap().to_string());
        let fates: Vec<String> = fates.collect();
        assert_eq!(fates.len(), 2, "{name}: {fates:?}");
        assert!(fates.iter().all(|fate| fate == "rolled back" || fate == "untouched"), "{fates:?}");
    }
}

/// A decoder in use: 7 reads before anything is written; 7 writes and 7 reads to program and check
/// it; 1 write and 1 read, on hardware that commits at once, to commit; 7 reads to verify it when
/// all is done, and 7 more when the table is made. A spare one of the same component is looked at in
/// the first step and the last two.
#[test]
fn each_decoder_takes_the_documented_traffic() {
    const fn count(reads: u64, writes: u64) -> Count {
        Count { reads, writes }
    }
    const USED: Stages = Stages {
        found: count(7, 0),
        program: count(7, 7),
        commit: count(1, 1),
        lock: count(0, 0),
        after: count(14, 0),
    };
    const UNUSED: Stages = Stages {
        found: count(3, 0),
        program: count(0, 0),
        commit: count(0, 0),
        lock: count(0, 0),
        after: count(0, 0),
    };
    // A component that no region uses is verified and looked at again, and nothing else.
    const IDLE: Stages = Stages { found: count(2, 0), ..UNUSED };
    for name in good() {
        let mut machine = machine(name);
        let (_, report) = boot(&mut machine);
        let used = |component: &str, index| {
            let mut decoders = report.facts.decoders.iter();
            decoders.any(|decoder| {
                (decoder.component.as_str(), decoder.text.index) == (component, index)
            })
        };
        for decoder in &report.facts.traffic.decoders {
            let (component, index) = (decoder.component.as_str(), decoder.index);
            let expected = match (used(component, index), used(component, 0)) {
                // The fault of this scenario: three polls see the commit unfinished.
                (true, _) if (name, component) == ("commit-polls", "mem0") => {
                    Stages { commit: count(1 + 3, 1), ..USED }
                }
                // Found as it is to be: the host has locked it.
                (true, _) if name == "passed-through" => Stages { found: count(21, 0), ..UNUSED },
                (true, _) => USED,
                (false, true) => UNUSED,
                (false, false) => IDLE,
            };
            let all = count(decoder.reads, decoder.writes);
            assert_eq!(decoder.stages, expected, "{name}: {component} decoder {index}");
            let Stages { found, program, commit, lock, after } = expected;
            let parts = [found, program, commit, lock, after];
            let sum = |of: fn(&Count) -> u64| parts.iter().map(of).sum::<u64>();
            assert_eq!(all, count(sum(|part| part.reads), sum(|part| part.writes)), "{name}");
        }
    }
}

#[test]
fn discovery_reads_each_register_once() {
    for (name, code, ..) in RESULTS {
        // A dry run is discovery and a plan, which touches nothing.
        if code >> 8 == 8 {
            continue;
        }
        let mut machine = machine(name);
        machine.recorder_mut().keep();
        run::dry(&mut machine);
        let mut reads: BTreeMap<u64, u32> = BTreeMap::new();
        for access in machine.recorder_mut().take() {
            // A mailbox is a conversation.
            let mailbox = matches!(access.target, Some(Target::DeviceRegisters { .. }));
            if access.direction == Direction::Read && !mailbox {
                *reads.entry(access.address).or_default() += 1;
            }
        }
        let again: Vec<String> = reads
            .into_iter()
            .filter(|(_, count)| *count > 1)
            .map(|(address, count)| format!("{address:#x} {count} times"))
            .collect();
        assert_eq!(again, [""; 0], "{name}");
    }
}

#[test]
fn the_report_adds_nothing_to_the_traffic_and_changes_no_register() {
    for name in good() {
        let mut machine = machine(name);
        let done = run::direct(&mut machine);
        let (traffic, fabric) = (machine.traffic().clone(), machine.fabric());
        Report::of_direct(&machine, &done);
        assert_eq!(machine.traffic(), &traffic, "{name}");
        assert_eq!(machine.fabric(), fabric, "{name}");
    }
}

#[test]
fn a_second_run_writes_no_decoder_and_reports_the_same() {
    for name in good() {
        let mut machine = machine(name);
        let (first, before) = boot(&mut machine);
        let fabric = machine.fabric();
        machine.recorder_mut().clear();
        let (second, after) = boot(&mut machine);
        assert_eq!(second.refusal, None, "{name}");
        assert_eq!(machine.fabric(), fabric, "{name}");
        for (place, count) in &machine.traffic().decoders {
            assert_eq!(count.all().writes, 0, "{name}: {place:?}");
        }
        assert_eq!(second.handoff, first.handoff, "{name}");
        assert_eq!(second.cedt, first.cedt, "{name}");
        let facts = |report: &Report| {
            let mut facts = serde_json::to_value(&report.facts).unwrap();
            facts.as_object_mut().unwrap().remove("traffic");
            facts
        };
        assert_eq!(facts(&after), facts(&before), "{name}");
    }
}

fn snapshot(scenario: &str, view: &str, text: &str) {
    insta::with_settings!({
        snapshot_path => format!("../../snapshots/{scenario}"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!(view, text) });
}

#[test]
fn what_a_reviewer_reads() {
    for builtin in builtins() {
        let name = builtin.name;
        let mut dry = machine(name);
        let done = run::dry(&mut dry);
        snapshot(name, "plan", &PlanReport::of(&dry, &done).to_string());
        let mut machine = machine(name);
        if name == "one-device" {
            machine.recorder_mut().keep();
        }
        let (done, report) = boot(&mut machine);
        snapshot(name, "report", &report.to_string());
        if name == "one-device" {
            let trace = machine.recorder_mut().take();
            snapshot(name, "trace", &TraceText(&machine, &trace).to_string());
        }
        // A machine that nobody wrote to is the same in every scenario.
        if !done.handoff.is_empty() {
            snapshot(name, "registers", &Images(&machine).to_string());
        }
        if !done.cedt.is_empty() {
            snapshot(name, "cedt", &Text(&done.cedt).to_string());
        }
    }
}

#[test]
fn the_report_fits_a_terminal_of_100_columns() {
    for (name, ..) in RESULTS {
        let mut machine = machine(name);
        let (_, report) = boot(&mut machine);
        for line in report.to_string().lines() {
            assert!(line.chars().count() <= 100, "{name}: {line}");
        }
    }
}

#[test]
fn every_access_of_the_library_has_a_name() {
    let mut accesses = 0;
    for found in builtins() {
        let mut machine = machine(found.name);
        machine.recorder_mut().keep();
        run::direct(&mut machine);
        for access in machine.recorder_mut().take() {
            accesses += 1;
            let what = format!("{}: {access:?}", found.name);
            let meaning = access.meaning(&machine);
            // Looking for functions is asking where there may be none.
            let Some(target) = access.target else {
                assert!(meaning.starts_with("no function answers at 0"), "{what}: {meaning}");
                continue;
            };
            let named = machine.registers(target);
            assert!(!named.is_empty() && access.name.is_some(), "{what}: {meaning}");
            assert!(meaning.contains(named[0].name), "{what}: {meaning}");
        }
    }
    assert!(accesses > 10_000, "{accesses}");
}

#[test]
fn the_picture_in_the_readme_is_what_is_drawn_of_the_main_scenario() {
    const PICTURE: &str = "snapshots/default/map.svg";
    let mut machine = Machine::new(&Scenario::built_in("default").unwrap());
    let done = run::direct(&mut machine);
    let drawn = Svg(&Report::of_direct(&machine, &done).facts).to_string();
    let read = |path: &str| std::fs::read_to_string(format!("../{path}")).unwrap();
    assert!(read("README.md").contains(&format!("]({PICTURE})")));
    let how = format!("cargo run -- boot --direct default --svg {PICTURE}");
    assert!(read(PICTURE) == drawn, "the picture is an old one: {how}");
}
