//! What the report makes of a machine that is not as the firmware said, and of large machines.
//!
//! **Invariant**: scenarios are text typed here; addresses in them too.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../model/tests/rig/mod.rs"]
mod rig;

use std::fmt::Write;

use cxl_firmware::bring_up::Extent;
use cxl_firmware::handoff;
use cxl_firmware::outcome::{ComponentKind, Outcome};
use cxl_harness::attack;
use cxl_harness::report::{Refusal, Report, Requirement, RunRecord, Verdict};
use cxl_harness::run::{self, DirectRun};
use cxl_harness::vigil::{CutOff, Level, Watched};
use cxl_model::machine::Machine;
use cxl_model::scenario::{Scenario, builtin, builtins};
use cxl_model::trace::Traffic;
use cxl_regs::mmio::Mmio;
use rig::{decoder, machine};

/// One device, nothing locked.
const UNLOCKED: &str = r#"
[[bridge]]
name = "hb0"
uid = 16
[[port]]
name = "rp0"
below = "hb0"
[[device]]
name = "mem0"
below = "rp0"
volatile = "512MiB"
[[window]]
name = "low"
targets = ["hb0"]
size = "1GiB"
[policy]
path = "unlocked"
config_lock = false
"#;

fn booted(text: &str) -> (Machine, DirectRun) {
    let mut machine = machine(text);
    let done = run::direct(&mut machine);
    (machine, done)
}

/// The failures of a run that left other things than it should.
fn failures(machine: &mut Machine, done: &DirectRun) -> Vec<String> {
    let report = Report::of_direct(machine, done);
    let failed = report.facts.result == Verdict::Failed;
    assert_eq!(failed, !report.facts.failures().is_empty());
    report.facts.failures()
}

#[test]
fn an_untouched_machine_passes_every_check() {
    let (mut machine, done) = booted(UNLOCKED);
    assert_eq!(failures(&mut machine, &done), [""; 0]);
}

/// Two bridges, three devices.
const THREE: &str = r#"
bridge = [{ name = "hb0", uid = 16 }, { name = "hb1", uid = 32 }]
port = [{ name = "rp0", below = "hb0" }, { name = "rp1", below = "hb0" }, { name = "rp2", below = "hb1" }]
device = [
    { name = "mem0", below = "rp0", volatile = "256MiB" },
    { name = "mem1", below = "rp1", volatile = "256MiB" },
    { name = "mem2", below = "rp2", volatile = "512MiB" },
]
window = [{ targets = ["hb0"], size = "1GiB" }, { targets = ["hb1"], size = "1GiB" }]
"#;

/// A device that never answers is not in any plan, and missing all the same; what was left out by request,
/// and what others program, is not.
#[test]
fn a_device_is_lost_where_it_was_to_serve_and_nowhere_else() {
    const BEST: &str = r#"on_failure = "best-effort""#;
    const DEAD: &str = r#"fault = [{ at = "mem1", kind = "all-ones-after", after = 0 }]"#;
    const GONE: &str = "verifier: mem1 is lost: nothing was found in its place, which has 256 MiB";
    const LOST: &str = "verifier: mem1 is lost: none of its 256 MiB are in a region";
    let out = |name: &str| format!("leave_out = [\"{name}\"]");
    for (policy, more, expected) in [
        ("", DEAD.to_owned(), Some(GONE)),
        (BEST, DEAD.to_owned(), Some(LOST)),
        (r#"path = "describe""#, String::new(), None),
        (r#"path = "describe", on_failure = "best-effort""#, String::new(), None),
        (r#"path = "describe", on_failure = "best-effort""#, DEAD.to_owned(), Some(GONE)),
        ("", out("mem1"), None),
        (BEST, out("mem1"), None),
        (BEST, out("rp1"), None),
        (BEST, out("hb1"), None),
        (BEST, format!("{}\n{DEAD}", out("mem1")), None),
        // Of the wrong one.
        (BEST, format!("{}\n{DEAD}", out("mem0")), Some(LOST)),
    ] {
        let (mut machine, done) = booted(&format!("{THREE}\npolicy = {{ {policy} }}\n{more}"));
        let failures = failures(&mut machine, &done);
        let of_mem1: Vec<_> = failures.iter().filter(|said| said.contains("is lost")).collect();
        assert_eq!(of_mem1, Vec::from_iter(expected), "{policy} {more}: {failures:?}");
        assert_eq!(failures.is_empty(), expected.is_none(), "{policy} {more}: {failures:?}");
    }
}

/// Two bridges of which one has a device that loses its lock as soon as it was locked.
const LOCK_LOST: &str = r#"
policy = { on_failure = "best-effort" }
bridge = [{ uid = 16 }, { uid = 32 }]
port = [{ below = "hb0" }, { below = "hb1" }]
device = [{ below = "port0", volatile = "256MiB" }, { below = "port1", volatile = "256MiB" }]
window = [{ targets = ["hb0"], size = "1GiB" }, { targets = ["hb1"], size = "1GiB" }]
fault = [{ at = "mem0", kind = "lock-lost", after = 1 }]
"#;

/// The record names it as what was lost, the verifier finds it once more, and it is one failure.
#[test]
fn an_error_of_a_place_is_one_failure_whoever_comes_to_it() {
    let (mut machine, done) = booted(LOCK_LOST);
    let failures = failures(&mut machine, &done);
    let error = "bridge 16 port 0 device, decoder 0: not locked, HDM Decoder Control is 0x00001600";
    let told = failures.iter().filter(|failure| failure.contains(error));
    assert_eq!(told.count(), 1, "{failures:#?}");
}

/// What the verifier finds unlocked when it looks again is locked in no line of the report.
#[test]
fn a_lock_that_is_lost_at_the_last_look_is_in_no_word_about_locks() {
    let mut seen = 0;
    for (at, policy) in [("mem0", "best-effort"), ("hb0", "strict"), ("mem0", "strict")] {
        for after in 0..12 {
            let text = LOCK_LOST
                .replace("best-effort", policy)
                .replace("at = \"mem0\"", &format!("at = \"{at}\""))
                .replace("after = 1", &format!("after = {after}"));
            let (machine, done) = booted(&text);
            let report = Report::of_direct(&machine, &done);
            let failures = report.facts.failures();
            let Some(locks) = &report.facts.locks else { panic!("{text}") };
            let unlocked = failures.iter().any(|failure| failure.contains("not locked, HDM"));
            if unlocked && done.refusal.is_none() {
                assert!(!locks.locked && !locks.sealed, "{at} {policy} {after}: {locks:?}");
                assert!(
                    !report.to_string().contains(": sealed"),
                    "{at} {policy} {after}: {report}"
                );
                seen += usize::from(failures.iter().any(|it| it.starts_with("verifier: ")));
            }
        }
    }
    assert!(seen > 0, "the last look found none");
}

/// A device that is asked for and not there is one failure, and no note beside it.
#[test]
fn what_is_asked_for_and_not_there_is_told_once() {
    let sound = LOCK_LOST.split("fault").next().unwrap();
    let absent =
        sound.replacen("volatile = \"256MiB\"", "volatile = \"256MiB\", present = false", 1);
    let (mut machine, done) = booted(&format!("{absent}region = [{{ device = \"mem0\" }}]\n"));
    let lost = "lost: the policy names a device at bridge 16 port 0; there is none";
    assert_eq!(failures(&mut machine, &done), [lost]);
    let report = Report::of_direct(&machine, &done);
    let about = report.facts.findings.iter().filter(|it| it.message.contains("bridge 16 port 0"));
    assert_eq!(about.count(), 1, "{:#?}", report.facts.findings);
}

/// A plan alone is of the machine that a boot would bring up: without what is left out, whatever is wrong
/// with that.
#[test]
fn a_plan_alone_leaves_out_what_a_boot_leaves_out() {
    let fault = r#"fault = [{ at = "mem1", kind = "all-ones-after", after = 30 }]"#;
    for more in ["leave_out = [\"mem1\"]", &format!("leave_out = [\"mem1\"]\n{fault}")] {
        let text = format!("{THREE}\n{more}");
        let spans = |done: &DirectRun| {
            assert_eq!(done.refusal.as_ref().map(ToString::to_string), None, "{more}");
            Vec::from_iter(done.room.plan.regions.iter().map(|region| region.span))
        };
        let planned = spans(&run::dry(&mut machine(&text)));
        assert_eq!(planned, spans(&booted(&text).1), "{more}");
        assert_eq!(planned.len(), 2, "{more}");
    }
}

/// Persistent memory that lies elsewhere than before is noted, whatever a failure would cost.
#[test]
fn what_moved_is_noted_with_best_effort_too() {
    let machine_at = |base: &str, policy: &str, earlier: &str| {
        format!(
            r#"
            bridge = [{{ name = "hb0", uid = 16 }}]
            port = [{{ name = "rp0", below = "hb0" }}]
            device = [{{ name = "mem0", below = "rp0", persistent = "256MiB" }}]
            window = [{{ targets = ["hb0"], base = "{base}", size = "1GiB" }}]
            policy = {{ {policy} }}
            {earlier}
            "#
        )
    };
    let before = Scenario::parse(&machine_at("4GiB", "", ""), "before").unwrap();
    let mut first = Machine::new(&before);
    let done = run::direct(&mut first);
    let record = done.handoff.clone();
    for policy in ["", r#"on_failure = "best-effort""#] {
        let mut after = Scenario::parse(&machine_at("8GiB", policy, ""), "after").unwrap();
        after.earlier = run::earlier(&record).unwrap();
        let mut machine = Machine::new(&after);
        let done = run::direct(&mut machine);
        let findings = Report::of_direct(&machine, &done).facts.findings;
        let moved = findings.iter().any(|found| found.message.contains("0x100000000"));
        assert!(moved, "{policy}: {findings:?}");
    }
}

#[test]
fn a_register_that_changed_after_the_record_is_a_failure_by_name() {
    let (mut machine, done) = booted(UNLOCKED);
    let control = decoder(&machine, "mem0", 0) + 0x10;
    // Commit taken back.
    machine.write(control, 0x1000);
    let failures = failures(&mut machine, &done);
    let expected = "mem0 decoder 0: HDM Decoder Control is 0x00001000, the record has 0x00001600";
    assert_eq!(failures.first().map(String::as_str), Some(expected));
    assert!(
        failures.contains(
            &"the region of 512 MiB at 0x100000000 leads nowhere: mem0 decoder 0 is not committed"
                .to_owned()
        ),
        "{failures:?}"
    );
    assert!(
        failures.iter().any(|failure| failure.starts_with("verifier: bridge 16 port 0 device")),
        "{failures:?}"
    );
}

#[test]
fn a_decoder_that_nobody_recorded_is_a_failure_by_name() {
    let (mut machine, done) = booted(UNLOCKED);
    // Somebody adds a range to the bridge, behind the first.
    rig::program(&mut machine, "hb0", 1, (0x1_2000_0000, 0x1000_0000, 0), 0x1200);
    let failures = failures(&mut machine, &done);
    let expected = "hb0 decoder 1 is committed, and the record does not have it";
    assert!(failures.contains(&expected.to_owned()), "{failures:?}");
}

#[test]
fn a_record_that_is_missing_broken_or_of_another_machine_is_a_failure() {
    let (machine, done) = booted(UNLOCKED);
    let traffic = Traffic::default();
    let left = RunRecord {
        handoff: &done.handoff,
        cedt: &done.cedt,
        refusal: None,
        traffic: &traffic,
        foreign: false,
        unfinished: false,
        asked: None,
    };
    let first = |left: &RunRecord<'_>| Report::of(&machine, left).facts.failures()[0].clone();
    let missing = first(&RunRecord { handoff: &[], ..left });
    assert_eq!(missing, "the firmware is done and left no hand-off record");
    let mut broken = done.handoff.clone();
    broken[80] ^= 1;
    let broken = first(&RunRecord { handoff: &broken, ..left });
    assert!(broken.starts_with("hand-off record: byte 0x38: "), "{broken}");
    let (_, other) = booted(&UNLOCKED.replace("uid = 16", "uid = 32"));
    let other = first(&RunRecord { handoff: &other.handoff, ..left });
    assert_eq!(other, "the record has bridge 32, decoder 0, which this machine does not have");
}

#[test]
fn a_table_of_another_machine_is_a_failure() {
    let (mut machine, mut done) = booted(UNLOCKED);
    let (_, other) =
        booted(&UNLOCKED.replace("size = \"1GiB\"", "size = \"1GiB\"\nbase = \"0x200000000\""));
    done.cedt = other.cedt;
    let failures = failures(&mut machine, &done);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].starts_with("CEDT against the registers: "), "{failures:?}");
}

#[test]
fn bytes_from_elsewhere_make_the_same_facts_as_a_direct_run() {
    let (machine, done) = booted(UNLOCKED);
    let direct = Report::of_direct(&machine, &done);
    let traffic = machine.traffic().clone();
    // As a guest leaves them: copies in memory, the record with other bytes behind it.
    let mut memory = done.handoff.clone();
    memory.resize(memory.len() + 64, 0xA5);
    let left = RunRecord {
        handoff: &memory,
        cedt: &done.cedt,
        refusal: None,
        traffic: &traffic,
        foreign: false,
        unfinished: false,
        asked: None,
    };
    let guest = Report::of(&machine, &left);
    let facts = |report: &Report| serde_json::to_value(&report.facts).unwrap();
    assert_eq!(facts(&guest), facts(&direct));
}

#[test]
fn a_refusal_of_a_guest_reads_as_one_of_a_direct_run() {
    let mut machine = Machine::new(&Scenario::built_in("ambiguous").unwrap());
    let done = run::direct(&mut machine);
    let refusal = Refusal::from(done.refusal.as_ref().unwrap());
    assert_eq!((refusal.phase.as_str(), refusal.code), ("plan", 0x0303));
    assert!(refusal.message.starts_with("bridge 16 port 0: 2 windows fit"), "{}", refusal.message);
}

/// What the library cannot be asked for is refused before the first access, not dropped.
#[test]
fn a_request_that_cannot_be_expressed_is_refused_by_name() {
    let wide = UNLOCKED.replace("1GiB", "64GiB") + "[platform]\nphysical_bits = 36\n";
    let text = format!("{wide}[[region]]\ndevice = \"mem0\"\nwindow = \"low\"\n");
    let (machine, done) = booted(&text);
    let refusal = Report::of_direct(&machine, &done).facts.refusal.unwrap();
    assert_eq!((refusal.phase.as_str(), refusal.code), ("scenario", 0x0802));
    let message = "region 0 asks for window low, which has no base";
    assert!(refusal.message.starts_with(message), "{}", refusal.message);
    assert_eq!(machine.traffic(), &Traffic::default());
}

/// `bridges` bridges in two segments with `ports` devices each, and a window a bridge.
fn large(bridges: u32, ports: u32) -> String {
    let mut text = String::new();
    for bridge in 0..bridges {
        let (segment, bus) = (bridge / 8, bridge % 8 * 32);
        writeln!(
            text,
            "[[bridge]]\nname = \"hb{bridge}\"\nuid = {bridge}\nsegment = {segment}\nbus = {bus}\n\
             decoders = 32"
        )
        .unwrap();
        for port in 0..ports {
            let (rp, mem) = (format!("rp{bridge}_{port}"), format!("mem{bridge}_{port}"));
            writeln!(text, "[[port]]\nname = \"{rp}\"\nbelow = \"hb{bridge}\"").unwrap();
            writeln!(text, "[[device]]\nname = \"{mem}\"\nbelow = \"{rp}\"\nvolatile = \"256MiB\"")
                .unwrap();
        }
        writeln!(text, "[[window]]\ntargets = [\"hb{bridge}\"]\nsize = \"16GiB\"").unwrap();
    }
    text
}

#[test]
fn sixteen_bridges_with_sixteen_devices_each_boot() {
    let (machine, done) = booted(&large(16, 16));
    let facts = Report::of_direct(&machine, &done).facts;
    assert_eq!(facts.failures(), [""; 0]);
    assert_eq!(facts.result, Verdict::Ok);
    assert_eq!((facts.regions.len(), facts.decoders.len()), (256, 512));
    assert!(facts.decoders.iter().all(|decoder| decoder.text.image.control().locked()));
}

#[test]
fn a_machine_beyond_the_library_s_room_is_a_typed_refusal() {
    let (machine, done) = booted(&large(16, 24));
    let refusal = Report::of_direct(&machine, &done).facts.refusal.unwrap();
    assert_eq!((refusal.phase.as_str(), refusal.code), ("discover", 0x0221));
    let decoders = machine.traffic().decoders.values();
    assert_eq!(decoders.map(|count| count.all().writes).sum::<u64>(), 0);
}

#[test]
fn no_line_is_longer_than_the_width_that_was_asked_for() {
    for builtin in builtins() {
        let mut machine = Machine::new(&Scenario::built_in(builtin.name).unwrap());
        let done = run::direct(&mut machine);
        let mut report = Report::of_direct(&machine, &done);
        if done.refusal.is_none() && builtin.name == "default" {
            report.facts.set_attack(attack::direct(&mut machine, &done));
        }
        let longest = |text: &str| {
            let lines = text.lines().map(|line| (line.chars().count(), line.to_owned()));
            lines.max().unwrap_or_default()
        };
        for columns in [60, 80, 100] {
            let (length, line) = longest(&format!("{report:columns$}"));
            assert!(length <= columns, "{} at {columns}: {line}", builtin.name);
        }
        // The narrowest and the widest that there are, and the usual one.
        assert_eq!(longest(&format!("{report:20}")), longest(&format!("{report:60}")));
        assert_eq!(format!("{report:300}"), format!("{report}"));
    }
}

/// However a run ended: what was not seen to be so is not known to be so, and one of a thing is one.
#[test]
fn a_demand_is_met_by_what_was_seen_alone() {
    let scenario = builtin("one-device").unwrap().text;
    let cut = |before_hand_off| {
        Some(CutOff { how: "the run was interrupted".to_owned(), before_hand_off })
    };
    let whole = Watched { anything: true, ..Watched::default() };
    let silent = Watched { silent: vec!["mem0".to_owned()], ..whole.clone() };
    for (watched, handoff_only, met, words) in [
        (whole.clone(), false, true, ""),
        (Watched { cut_off: cut(false), ..whole.clone() }, false, false, "the run was interrupted"),
        (Watched { cut_off: cut(false), ..whole.clone() }, true, true, ""),
        (
            Watched { cut_off: cut(true), ..whole.clone() },
            true,
            false,
            "before anything was handed over",
        ),
        (Watched { pending: 1, ..whole.clone() }, false, false, "the scenario's events"),
        (silent.clone(), false, false, "mem0 has stopped answering"),
        (silent, true, true, ""),
        (Watched { more: [1, 0], ..whole }, false, false, ""),
    ] {
        let (machine, done) = booted(scenario);
        let mut facts = Report::of_direct(&machine, &done).facts;
        let demand = Requirement { level: Level::Sealed, at_handoff_only: handoff_only };
        facts.require(demand, &watched);
        let required = facts.required.as_ref().unwrap();
        assert_eq!((required.met, facts.result == Verdict::Ok), (met, met), "{watched:?}");
        let not_known = required.not_known.clone().unwrap_or_default();
        assert!(
            not_known.contains(words) && not_known.is_empty() == words.is_empty(),
            "{not_known}"
        );
        if watched.more == [1, 0] {
            let failures = facts.failures().join("\n");
            assert!(failures.starts_with("1 more violation of sealed came later"), "{failures}");
        }
    }
}

/// The failures of a machine with best effort, brought up directly; and its notes.
fn told(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut machine, done) = booted(text);
    assert_eq!(done.refusal.as_ref().map(ToString::to_string), None, "{text}");
    let failures = failures(&mut machine, &done);
    let findings = Report::of_direct(&machine, &done).facts.findings;
    let notes = findings.into_iter().filter(|found| !found.failure).map(|found| found.message);
    (failures, notes.collect())
}

/// A device with both kinds of memory, and a window for volatile memory alone.
const NO_PLACE: &str = r#"
policy = { on_failure = "best-effort" }
bridge = [{ uid = 16 }]
port = [{ below = "hb0" }]
device = [{ below = "port0", volatile = "1GiB", persistent = "1GiB" }]
window = [{ targets = ["hb0"], size = "4GiB", restrictions = ["host-only", "volatile"] }]
"#;

/// Memory that has no place is lost, beside whatever of its device is in use, and is one failure: but where
/// the scenario does not ask for it.
#[test]
fn memory_without_a_place_is_lost_and_its_refusal_is_told() {
    let lost = "verifier: 1 GiB of mem0's persistent memory is lost: it has no place \
                (PLAN_MEDIA_NOT_ALLOWED, 0x030a)";
    let asked =
        "region = [{ device = \"mem0\" }, { device = \"mem0\", partition = \"persistent\" }]\n";
    let not_asked = "region = [{ device = \"mem0\" }]\n";
    for (more, expected) in [("", Some(lost)), (asked, Some(lost)), (not_asked, None)] {
        let (failures, notes) = told(&format!("{NO_PLACE}{more}"));
        assert_eq!(failures, Vec::from_iter(expected), "{more}");
        let about = notes.iter().filter(|note| note.contains("it has no place"));
        assert_eq!(about.count(), 0, "{notes:?}");
    }
    // Also where something else failed, so that the plan of the whole machine is not what was done.
    let beside = r#"
        policy = { on_failure = "best-effort" }
        bridge = [{ uid = 16 }, { uid = 32 }]
        port = [{ below = "hb0" }, { below = "hb1" }]
        device = [
            { below = "port0", volatile = "1GiB", persistent = "1GiB" },
            { below = "port1", volatile = "1GiB" },
        ]
        window = [
            { targets = ["hb0"], size = "4GiB", restrictions = ["host-only", "volatile"] },
            { targets = ["hb1"], size = "1GiB" },
        ]
        fault = [{ at = "mem1", kind = "commit-error" }]
    "#;
    let (failures, _) = told(beside);
    assert_eq!(failures.len(), 2, "{failures:#?}");
    assert!(failures.iter().any(|failure| failure == lost), "{failures:#?}");
}

/// A set that has no place is one failure, whatever its members go on as, and says which set and why.
#[test]
fn a_set_without_a_place_is_lost_and_its_refusal_is_told() {
    let text = r#"
        bridge = [{ uid = 16 }, { uid = 32 }]
        port = [{ below = "hb0" }, { below = "hb1" }]
        device = [
            { below = "port0", volatile = "256MiB" },
            { below = "port1", volatile = "256MiB" },
        ]
        window = [{ targets = ["hb0"], size = "1GiB" }, { targets = ["hb1"], size = "1GiB" }]
        region = [{ devices = ["mem0", "mem1"] }]
    "#;
    let said = "verifier: a set is lost: bridge 16 port 0: the policy's set of 2 members with this device \
                has no place (PLAN_NO_WINDOW_FOR_SET, 0x0331)";
    let (failures, notes) = told(&format!("policy.on_failure = \"best-effort\"\n{text}"));
    assert_eq!(failures, [said]);
    assert_eq!(
        notes.iter().filter(|note| note.contains("set of 2 members")).count(),
        0,
        "{notes:?}"
    );
}

/// A decoder may be larger than its window where that ends at a hole: its devices are in use, in every
/// judgement.
#[test]
fn devices_behind_a_decoder_that_reaches_into_a_hole_are_in_use() {
    let mut text = String::from(
        "policy = { on_failure = \"best-effort\", target = \"specification\" }\n\
         platform = { memory_base = \"64GiB\" }\n",
    );
    let list =
        |what: &str| (0..12).map(|at| format!("\"{what}{at}\"")).collect::<Vec<_>>().join(", ");
    for at in 0..12 {
        write!(
            text,
            "[[bridge]]\nuid = {}\n[[port]]\nbelow = \"hb{at}\"\n[[device]]\nbelow = \"port{at}\"\n\
             volatile = \"256MiB\"\n",
            16 + 4 * at
        )
        .unwrap();
    }
    write!(
        text,
        "[[window]]\ntargets = [{}]\nsize = \"2GiB\"\nbase = \"0\"\n\
         [[region]]\ndevices = [{}]\nsize = \"3GiB\"\n",
        list("hb"),
        list("mem")
    )
    .unwrap();
    let (mut machine, done) = booted(&text);
    assert_eq!(done.refusal.as_ref().map(ToString::to_string), None);
    assert_eq!(done.extent, Extent::Whole);
    assert_eq!(failures(&mut machine, &done), [""; 0]);
    let record = handoff::read(&done.handoff).unwrap();
    let devices = record.outcomes().filter(|it| it.kind == Some(ComponentKind::Device));
    let outcomes: Vec<_> = devices.map(|it| it.outcome).collect();
    assert_eq!(outcomes, [Outcome::InUse; 12]);
    let report = Report::of_direct(&machine, &done);
    let locks = report.facts.locks.unwrap();
    assert!(locks.locked, "{:?}", locks.not_locked);
}

/// Nothing is programmed where the operating system does it: what it cannot map is told, and what nobody
/// can lead to is lost.
#[test]
fn what_an_operating_system_cannot_use_is_told_where_it_programs() {
    let machine = |decoders: &str, ports: &str, window: &str| {
        format!(
            r#"
            policy = {{ path = "describe", config_lock = false, on_failure = "best-effort" }}
            bridge = [{{ uid = 16{decoders} }}]
            port = [{{ below = "hb0" }}{ports}]
            device = [{{ below = "port0", volatile = "4GiB" }}]
            window = [{{ targets = ["hb0"], size = "{window}" }}]
            "#
        )
    };
    let (one, two) = ("", ", { below = \"hb0\" }");
    let small = "hb0 has 4 GiB of volatile memory below it, and windows for 256 MiB of it: the rest has no \
                 place";
    let lost = "verifier: mem0 is lost: hb0 has no HDM decoders and 2 ports, so nobody can program a \
                path to it";
    for (decoders, ports, window, failure, note) in [
        ("", one, "4GiB", None, None),
        ("", one, "256MiB", None, Some(small)),
        (", decoders = 0", one, "4GiB", None, None),
        (", decoders = 0", two, "4GiB", Some(lost), None),
    ] {
        let text = machine(decoders, ports, window);
        let (failures, notes) = told(&text);
        assert_eq!(failures, Vec::from_iter(failure), "{text}");
        let said = notes.iter().map(String::as_str).find(|said| said.contains("no place"));
        assert_eq!(said, note, "{text}: {notes:#?}");
    }
}

/// One lock that is lost strands what its set has locked, and is one failure; what is wrong elsewhere is
/// another.
#[test]
fn a_lost_lock_is_one_failure() {
    let mut text = String::from(
        "policy = { on_failure = \"best-effort\" }\n\
         [[window]]\ntargets = [\"hb0\", \"hb1\"]\nsize = \"2GiB\"\n\
         restrictions = [\"host-only\", \"volatile\"]\n\
         [[region]]\ndevices = [\"mem0\", \"mem1\"]\n",
    );
    for at in 0..2 {
        write!(
            text,
            "[[bridge]]\nuid = {}\n[[port]]\nbelow = \"hb{at}\"\n[[device]]\nbelow = \"port{at}\"\n\
             volatile = \"512MiB\"\npersistent = \"512MiB\"\n[[window]]\ntargets = [\"hb{at}\"]\n\
             size = \"2GiB\"\nrestrictions = [\"host-only\", \"persistent\"]\n\
             [[region]]\ndevice = \"mem{at}\"\npartition = \"persistent\"\n",
            16 * (at + 1)
        )
        .unwrap();
    }
    text += "[[fault]]\nat = \"hb1\"\nkind = \"lock-lost\"\ndecoder = 0\nafter = 1\n";
    let (failures, _) = told(&text);
    let [failure] = failures.as_slice() else { panic!("{failures:#?}") };
    assert!(failure.starts_with("lost: bridge 32, decoder 0: not locked"), "{failure}");
    let other = "[[fault]]\nat = \"mem1\"\nkind = \"all-ones-after\"\nafter = 0\n";
    let (failures, _) = told(&format!("{text}{other}"));
    assert!(failures.iter().any(|failure| failure.contains("bridge 32 port 0")), "{failures:#?}");
}

/// What a device's lost lock strands is told by that, and by nobody else.
#[test]
fn what_is_lost_is_judged_by_its_loss_alone() {
    for (at, kind) in [("mem0", "lock-lost"), ("hb0", "lock-lost")] {
        for after in 0..4 {
            let fault = format!("at = \"{at}\", kind = \"{kind}\", after = {after}");
            let text = LOCK_LOST.replace("at = \"mem0\", kind = \"lock-lost\", after = 1", &fault);
            let (failures, _) = told(&text);
            assert!(failures.len() <= 1, "{fault}: {failures:#?}");
        }
        let fault = format!("at = \"{at}\", kind = \"{kind}\", after = 1");
        let text = LOCK_LOST.replace("at = \"mem0\", kind = \"lock-lost\", after = 1", &fault);
        assert_eq!(told(&text).0.len(), 1, "{fault}");
    }
}
