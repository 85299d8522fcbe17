//! The library, run from here on QEMU's devices.
//!
//! Every test needs QEMU and is ignored, with the remedy, where there is none.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod peer;
mod program;

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cxl_firmware::bring_up::{Workspace, bring_up};
use cxl_firmware::policy::Policy;
use cxl_harness::conformance::{Answer, SYSTEMS, Table};
use cxl_harness::linux::Installed;
use cxl_harness::qemu::offers::Offers;
use cxl_harness::qemu::qtest::Width;
use cxl_harness::qemu::run::{Options, RunError};
use cxl_harness::qemu::{bare, process, run};
use cxl_harness::report::{Field, Report, Verdict, Verifier};
use cxl_harness::run as harness_run;
use cxl_model::machine::Machine;
use cxl_model::scenario::Scenario;
use serde_json::Value;

use peer::trial::unless;
use peer::{claim, stopped};
use program::Folder;

fn main() -> ExitCode {
    let mut trials =
        vec![claim("the_library_brings_up_devices_that_no_firmware_has_touched", one_device)];
    trials.extend(SCENARIOS.iter().map(|name| {
        let test = move || same_facts(name, run::direct);
        claim(format!("{name}_from_outside_has_the_facts_of_a_run_on_the_models"), test)
    }));
    trials.extend(BOOTED.iter().map(|name| {
        let test = move || same_facts(name, run::guest);
        claim(format!("{name}_in_a_guest_has_the_facts_of_a_run_on_the_models"), test)
    }));
    trials.push(claim("verifier_and_attack_are_two_results", two_results));
    trials.push(claim("verifier_and_attack_from_inside_are_two_results", two_results_of_a_guest));
    trials.push(claim("an_attack_on_nothing_is_a_failure", nothing_to_attack));
    trials.push(claim("what_is_recorded_of_a_qemu_is_what_it_does", recorded));
    trials.push(claim("the_program_is_asked_what_it_has", asked));
    trials.push(claim("a_run_that_takes_too_long_says_what_it_waited_for", too_long));
    trials.push(claim("ctrl_c_ends_a_run", interrupted));
    trials.push(claim("a_command_line_of_qemu_s_own_is_brought_up_and_reported", own_words));
    trials.push(claim("words_behind_a_scenario_s_are_qemu_s_own", more_words));
    let lack = Installed::find().err().map(|error| error.to_string());
    trials.push(unless(lack, claim("a_run_goes_on_to_any_kernel_and_waits_for_its_end", goes_on)));
    peer::main(trials)
}

/// Scenarios that QEMU can be, one of each shape.
const SCENARIOS: [&str; 10] = [
    "two-devices-one-bridge",
    "switch",
    "dpa-skip",
    "pass-through",
    "two-way-ports",
    "three-way",
    "twelve-way",
    "sixteen-way",
    "switch-interleave",
    "no-window",
];

/// Scenarios that the image boots on QEMU.
const BOOTED: [&str; 5] =
    ["two-way", "two-way-ports", "switch-interleave", "dpa-skip", "no-window"];

type Run = fn(&Scenario, &Options) -> Result<Report, RunError>;

/// The report of a run on QEMU and of one on the models: the same but for where QEMU has put the
/// windows, and what its devices say of themselves.
fn same_facts(name: &str, run: Run) {
    let scenario = Scenario::built_in(name).unwrap();
    let theirs = run(&scenario, &Options::default()).unwrap_or_else(|error| panic!("{error}"));
    // What windows admit cannot be chosen there: the models' admit the same.
    let offers = Offers::ask(Duration::from_secs(30)).unwrap_or_else(|error| panic!("{error}"));
    let mut alike = scenario;
    for window in &mut alike.windows {
        window.restrictions = offers.restrictions;
    }
    let mut machine = Machine::new(&alike);
    let done = harness_run::direct(&mut machine);
    let ours = Report::of_direct(&machine, &done);
    assert_eq!(theirs.facts.failures(), Vec::<String>::new());
    let base = |report: &Report| report.facts.windows[0].base.unwrap();
    let moved = base(&theirs).wrapping_sub(base(&ours));
    let [theirs, ours] = [(theirs, 0), (ours, moved)].map(|(report, by)| {
        let mut facts = serde_json::to_value(&report.facts).unwrap();
        let facts = facts.as_object_mut().unwrap();
        // What is said of QEMU, the order of its tables, registers that differ (known.toml), and what
        // the models' registers say of locks.
        for key in ["peer", "cedt", "traffic", "locks"] {
            facts.remove(key);
        }
        // The image prints no number with its refusal.
        if let Some(refusal) = facts["refusal"].as_object_mut() {
            refusal.remove("code");
        }
        for decoder in facts["decoders"].as_array_mut().unwrap() {
            decoder.as_object_mut().unwrap().remove("raw");
        }
        move_addresses(facts, by);
        serde_json::to_string_pretty(facts).unwrap()
    });
    let lines = theirs.lines().zip(ours.lines()).enumerate();
    let differ: Vec<_> = lines
        .filter(|(_, (theirs, ours))| theirs != ours)
        .map(|(number, (theirs, ours))| format!("{number}: QEMU {theirs}, models {ours}"))
        .collect();
    assert!(theirs == ours, "{}", differ.join("\n"));
}

/// Adds to every host address, and to no device's own.
fn move_addresses(facts: &mut serde_json::Map<String, Value>, by: u64) {
    fn walk(key: &str, value: &mut Value, by: u64) {
        match value {
            Value::Array(list) => list.iter_mut().for_each(|value| walk(key, value, by)),
            Value::Object(_) if key == "dpa" => {}
            Value::Object(map) => {
                map.iter_mut().for_each(|(key, value)| walk(key, value, by));
            }
            Value::String(text) if matches!(key, "base" | "hpa") => {
                let digits = text.strip_prefix("0x").unwrap();
                let address = u64::from_str_radix(digits, 16).unwrap();
                *text = format!("{:#x}", address.wrapping_add(by));
            }
            _ => {}
        }
    }
    facts.iter_mut().for_each(|(key, value)| walk(key, value, by));
}

/// QEMU stores locks: the verifier is content, and the attack is not.
fn two_results() {
    let scenario = Scenario::built_in("two-way").unwrap();
    let options = Options { attack: true, ..Options::default() };
    let report = run::direct(&scenario, &options).unwrap_or_else(|error| panic!("{error}"));
    let text = report.to_string();
    let peer = report.facts.peer.unwrap();
    let Verifier { passed, committed, locked } = peer.verifier;
    assert_eq!((passed, committed, locked), (true, 4, 4), "{text}");
    let attack = peer.attack.unwrap();
    // The same words as from inside, and how much of the attack it was.
    assert!(attack.outside[0].contains(" tries, "), "{text}");
    let broken = "integrity: BROKEN, the machine does not enforce locks: ";
    assert!(attack.outside[1].starts_with(broken), "{text}");
    let whole = !attack.outside.iter().any(|line| line.starts_with("not whole: single bits alone"));
    assert_eq!(whole, process::version().unwrap() < (11, 0), "{text}");
    // Every bit that QEMU stores of Base Low to Route High, in each of the four decoders.
    let of_decoder = |field: &&Field| field.component == "hb0" && field.decoder == Some(0);
    let fields: Vec<_> = attack.fields.iter().filter(of_decoder).map(|f| f.bits.as_str()).collect();
    let every = "0xffffffff";
    let stored = ["0xf0000000", every, "0xf0000000", every, "0x000017ff", every, every];
    assert_eq!(fields, stored, "{text}");
    assert!(!attack.held);
    assert_eq!(report.facts.result, Verdict::Failed);
    assert!(
        text.contains("\n  verifier          ok: 4 of 4 committed decoders locked\n"),
        "{text}"
    );
    assert!(text.contains("\n  attack            NOT HELD: "), "{text}");
}

/// Where nothing is locked, nothing held.
fn nothing_to_attack() {
    let scenario = Scenario::built_in("unlocked").unwrap();
    let options = Options { attack: true, ..Options::default() };
    let report = run::direct(&scenario, &options).unwrap_or_else(|error| panic!("{error}"));
    let text = report.to_string();
    assert_eq!(report.facts.result, Verdict::Failed, "{text}");
    assert!(text.contains("the attack found nothing that is locked"), "{text}");
    assert!(!report.facts.peer.unwrap().attack.unwrap().held, "{text}");
}

/// The column of the conformance table, row by row. A version without a column is measured all the same.
fn recorded() {
    let version = process::version().unwrap();
    let table = Table::measured().with_qemu(Duration::from_secs(60), &mut |_| {});
    let table = table.unwrap_or_else(|error| panic!("{error}"));
    let column = Table::recorded(version);
    assert_eq!(column.is_some(), [(10, 0), (11, 1)].contains(&version), "{version:?}");
    for row in &table.rows {
        let measured = row.answers[SYSTEMS.len()];
        let known = column.map_or(measured, |column| row.answers[column]);
        assert_eq!(known, measured, "{}, on {version:?}", row.behaviour);
    }
    let count =
        |answer| table.rows.iter().filter(|row| row.answers.last() == Some(&answer)).count();
    // Locks that mean nothing, and resets that it does not have.
    assert!(count(Answer::No) >= 20 && count(Answer::Unknown) == 6, "{table}");
}

/// What it says it has is what it takes, and what its windows admit is what its table says.
fn asked() {
    let offers = Offers::ask(Duration::from_secs(30)).unwrap_or_else(|error| panic!("{error}"));
    assert!(offers.restrictions.host_only() && offers.restrictions.volatile(), "{offers:?}");
    let scenario = Scenario::parse(BACK_INVALIDATE, "back-invalidate").unwrap();
    match run::direct(&scenario, &Options::default()) {
        Ok(report) => {
            assert!(offers.back_invalidate);
            assert_eq!(report.facts.failures(), Vec::<String>::new());
            // Its windows admit host-only memory too, and that is what the library takes then.
            let coherency: Vec<_> = report.facts.regions.iter().map(|r| r.coherency).collect();
            assert_eq!(coherency, ["hdm-h"], "{report}");
        }
        Err(RunError::Refused(refusal)) => {
            assert!(!offers.back_invalidate, "{refusal}");
            assert!(refusal.to_string().contains("mem0: a path for back-invalidate"), "{refusal}");
        }
        Err(error) => panic!("{error}"),
    }
}

const BACK_INVALIDATE: &str = r#"
bridge = [{ name = "hb0", uid = 16, back_invalidate = true }]
port = [{ name = "rp0", below = "hb0" }]
device = [{ name = "mem0", below = "rp0", volatile = "512MiB", coherency = "back-invalidate" }]
window = [{ targets = ["hb0"], size = "1GiB" }]
"#;

/// The same from inside, where the image makes the whole attack and judges it.
fn two_results_of_a_guest() {
    let scenario = Scenario::built_in("one-device").unwrap();
    let options = Options { attack: true, ..Options::default() };
    let report = run::guest(&scenario, &options).unwrap_or_else(|error| panic!("{error}"));
    let text = report.to_string();
    let peer = report.facts.peer.unwrap();
    assert!(peer.verifier.passed, "{text}");
    let attack = peer.attack.unwrap();
    // Outside and inside see the same bits change.
    let changed =
        format!("integrity: BROKEN, the machine does not enforce locks: {} of ", attack.changed);
    assert!(attack.inside.iter().any(|line| line.starts_with(&changed)), "{text}");
    assert_eq!(report.facts.result, Verdict::Failed);
}

fn too_long() {
    let scenario = Scenario::built_in("one-device").unwrap();
    // No machine starts, boots its firmware and then ours in that time.
    let limit = Duration::from_millis(20);
    let options = Options { timeout: limit, ..Options::default() };
    let error = run::guest(&scenario, &options).unwrap_err();
    assert!(error.to_string().contains("--timeout SECONDS"), "{error}");
}

fn interrupted() {
    let scenario = Scenario::built_in("one-device").unwrap();
    let options = Options::default();
    // Pressed before it begins, so that no machine is quick enough to be done.
    options.interrupted.store(true, Ordering::Relaxed);
    let error = run::guest(&scenario, &options).unwrap_err();
    assert!(matches!(error, RunError::Interrupted { .. }), "{error}");
}

/// The machine of a command line, from outside and in a guest.
fn own_words() {
    for more in [&["--direct"][..], &[]] {
        let words = [&["qemu", "--run", "--json"][..], more, &["--"], ONE_DEVICE].concat();
        let (text, complaints, code) = program::ran(&mut program::command(&words));
        assert_eq!(code, 0, "{complaints}{text}");
        let report: Value = serde_json::from_str(&text).unwrap();
        let regions = report["regions"].as_array().unwrap();
        assert_eq!(regions.len(), 1, "{text}");
        assert_eq!(regions[0]["size"], "0x10000000", "{text}");
        assert_eq!(report["peer"]["verifier"]["locked"], 2, "{text}");
        let notes = report["peer"]["notes"].to_string();
        assert!(
            notes.contains("mem0 is the device at bridge 12 port 0, 256 MiB volatile"),
            "{notes}"
        );
    }
    // What is no machine with CXL, and what QEMU does not take, is bad input in its own words.
    for (words, says) in [
        (&["-M", "q35", "-m", "1G"][..], "cxl=on"),
        (&["-M", "q35,cxl=on", "-m", "1G", "-device", "no-such-device"], "no-such-device"),
        (&[&ONE_DEVICE[..2], &["-m", "256M"], &ONE_DEVICE[4..]].concat()[..], "found 256 MiB"),
    ] {
        let words = [&["qemu", "--run", "--"][..], words].concat();
        let (text, complaints, code) = program::ran(&mut program::command(&words));
        assert_eq!((text.as_str(), code), ("", 2), "{words:?}: {complaints}");
        assert!(complaints.contains(says), "{words:?}: {complaints}");
    }
}

/// Two processors more than the scenario has, which our image does not mind.
fn more_words() {
    let words = ["qemu", "one-device", "--run", "--json", "--", "-smp", "3", "-name", "more"];
    let (text, complaints, code) = program::ran(&mut program::command(&words));
    assert_eq!(code, 0, "{complaints}{text}");
    // Without a run they are a part of what is printed.
    let words = ["qemu", "one-device", "--", "-smp", "3"];
    let (text, _, code) = program::ran(&mut program::command(&words));
    assert!(code == 0 && text.ends_with(" \\\n    -smp 3\n"), "{text}");
}

/// The image hands over to a Linux that is asked nothing: it switches the machine off, and that is as the
/// image left it. One that goes on is told by its last word.
fn goes_on() {
    let installed = Installed::find().unwrap();
    let folder = Folder::new();
    let script =
        "#!/bin/busybox sh\necho hello from /init\n[ $$ = 1 ] && /bin/busybox poweroff -f\n";
    let initrd = folder.file("initrd", installed.initramfs_for(script).unwrap());
    let kernel = installed.kernel.to_str().unwrap();
    let run = ["qemu", "one-device", "--run", "--json", "--timeout", "300", "--kernel", kernel];
    let words =
        [&run[..], &["--initrd", &initrd, "--append", "console=ttyS0 no_timer_check"]].concat();
    let (text, complaints, code) = program::ran(&mut program::command(&words));
    assert_eq!(code, 0, "{complaints}{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["result"], "ok", "{text}");
    assert_eq!(report["peer"]["verifier"]["locked"], 2, "{text}");
    // Without an initrd it has nothing to run, and panics for good.
    let run = [&run[..5], &["12"], &run[6..]].concat();
    let (text, complaints, code) =
        program::ran(&mut program::command(&[&run[..], &["--append", "console=ttyS0"]].concat()));
    assert_eq!(code, 1, "{complaints}{text}");
    assert!(text.contains("the guest has not ended after 12 s"), "{text}");
}

const ONE_DEVICE: &[&str] = &[
    "-M",
    "q35,cxl=on,cxl-fmw.0.targets.0=cxl.1,cxl-fmw.0.size=4G",
    "-m",
    "1G,maxmem=8G,slots=1",
    "-device",
    "pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1,hdm_for_passthrough=true",
    "-device",
    "cxl-rp,port=0,bus=cxl.1,id=rp0,chassis=0,slot=2",
    "-object",
    "memory-backend-ram,id=vmem0,share=on,size=256M",
    "-device",
    "cxl-type3,bus=rp0,volatile-memdev=vmem0,id=cxl-vmem0",
];

fn one_device() {
    let (_qemu, mut qtest) = stopped(ONE_DEVICE);
    let tables = bare::platform(&mut qtest, 40).unwrap();
    let platform = tables.platform();
    assert_eq!(platform.bridges.iter().map(|b| b.uid).collect::<Vec<_>>(), [12]);
    let window = platform.windows[0].base.expect("the window has a place").0;

    // Nothing decodes before anything is programmed.
    qtest.store(window, 0x0123_4567_89ab_cdef, Width::Eight).unwrap();
    assert_eq!(qtest.load(window, Width::Eight), Ok(0));

    let mut room = harness_run::room();
    let mut clock = cxl_harness::qemu::Clock::new();
    let result = bring_up(&mut qtest, &mut clock, &platform, &Policy::default(), &mut *room);
    assert_eq!(qtest.check(), Ok(()));
    let _ = result.unwrap_or_else(|error| panic!("{error}"));
    let Workspace { committed, .. } = &*room;
    assert_eq!(committed.decoders.len(), 2, "one of the bridge, one of the device");
    assert!(committed.decoders.iter().all(|decoder| decoder.locked()));

    let last = window + (256 << 20) - 8;
    for (address, value) in [(window, 0x0123_4567_89ab_cdef), (last, 0xfedc_ba98_7654_3210)] {
        qtest.store(address, value, Width::Eight).unwrap();
        assert_eq!(qtest.load(address, Width::Eight), Ok(value), "{address:#x}");
    }
    // The window goes on behind the device, and nothing decodes there.
    qtest.store(last + 8, 1, Width::Eight).unwrap();
    assert_eq!(qtest.load(last + 8, Width::Eight), Ok(0));
}
