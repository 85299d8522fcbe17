//! Machines whose registers are all right and whose memory is not: found by the probe, directly and
//! from inside a guest, mirrored or not, and nothing of them is described as usable.
//!
//! **Invariant**: what memory held before is compared by the devices' own addresses, past every
//! decoder; the fault is in the models, and no register shows it.

use cxl_firmware::committed::{Fate, Probed};
use cxl_firmware::handoff;
use cxl_harness::guest::boot::{Verdict, boot};
use cxl_harness::report::{self, Report};
use cxl_harness::run;
use cxl_model::machine::Machine;
use cxl_model::scenario::Scenario;
use cxl_regs::Dpa;
use libtest_mimic::Trial;

use crate::{Options, claim, options};

/// A device behind two switch levels, and one without any.
const DEEP: &str = r#"
bridge = [{ name = "hb0", uid = 16 }]
port = [
    { name = "rp0", below = "hb0" }, { name = "rp1", below = "hb0" },
    { name = "dp0", below = "sw0" }, { name = "dp1", below = "sw1" },
]
switch = [{ name = "sw0", below = "rp0" }, { name = "sw1", below = "dp0" }]
device = [
    { name = "far", below = "dp1", volatile = "256MiB" },
    { name = "near", below = "rp1", volatile = "256MiB" },
]
window = [{ targets = ["hb0"], size = "1GiB" }]
"#;

/// A set of four over two bridges.
const SET: &str = r#"
policy.interleave = "4-way at 256"
bridge = [{ name = "hb0", uid = 16 }, { name = "hb1", uid = 32 }]
port = [
    { name = "rp0", below = "hb0" }, { name = "rp1", below = "hb0" },
    { name = "rp2", below = "hb1" }, { name = "rp3", below = "hb1" },
]
device = [
    { name = "mem0", below = "rp0", volatile = "256MiB" },
    { name = "mem1", below = "rp1", volatile = "256MiB" },
    { name = "mem2", below = "rp2", volatile = "256MiB" },
    { name = "mem3", below = "rp3", volatile = "256MiB" },
]
window = [{ targets = ["hb0", "hb1"], granularity = "256", size = "4GiB" }]
"#;

pub(crate) fn trials() -> Vec<Trial> {
    let unrouted = |at: &str| format!("[[fault]]\nat = \"{at}\"\nkind = \"unrouted\"\n");
    let wraps = |at: &str, bits: &str| {
        format!("[[fault]]\nat = \"{at}\"\nkind = \"wraps\"\nbits = \"{bits}\"\n")
    };
    // Machine, what is broken, the error, whose name it says, the regions that stay.
    let cases = [
        ("second_switch_level", DEEP, unrouted("sw1"), 0x0901, "bridge 16 port 0.0.0", 1),
        ("root_port", DEEP, unrouted("rp0"), 0x0901, "bridge 16 port 0.0.0", 1),
        ("bridge", DEEP, unrouted("hb0"), 0x0901, "bridge 16 port", 0),
        ("device_that_wraps", DEEP, wraps("near", "0x8000000"), 0x0902, "bridge 16 port 1", 1),
        ("way_of_a_set", SET, unrouted("mem2"), 0x0901, "bridge 32 port 0", 0),
        ("wrapping_way_of_a_set", SET, wraps("mem3", "0xfffff00"), 0x0902, "bridge 32 port 1", 0),
    ];
    let mut trials = Vec::new();
    for (name, machine, fault, code, words, stay) in cases {
        for (how, mirror) in [("mirrored", true), ("trapped", false)] {
            let text = format!("{machine}{fault}");
            trials.push(claim(format!("memory_behind_broken_{name}_is_found_{how}"), move || {
                found(&text, mirror, code, words, stay);
            }));
        }
    }
    let unasked = claim("memory_that_nobody_asked_is_said_to_be_unasked", move || {
        let text = format!("policy.probe = false\n{DEEP}{}", unrouted("sw1"));
        let scenario = Scenario::parse(&text, "unasked").unwrap();
        let ran = crate::run(&scenario, &options()).good();
        let record = handoff::read(ran.run.first.record()).unwrap();
        assert!(record.regions().all(|region| region.probed == Probed::No));
        assert_eq!(record.regions().count(), 2);
        let said = "probe: 2 of 2 regions not probed (no-probe)";
        assert!(ran.console().contains(said), "{}", ran.console());
        let library = ran.run.first.handed.as_ref().unwrap().library;
        assert_eq!((library.memory_reads, library.memory_writes), (0, 0));
    });
    trials.push(unasked);
    trials.push(claim("what_best_effort_lost_is_all_that_a_guest_tells", what_is_lost_is_told));
    trials
}

/// Device addresses that hold something before.
const PLACES: [u64; 4] = [0, 0x0800_0000, 0x0FFF_FFF8, 0x0FFF_FF00];

fn filled(text: &str) -> Machine {
    let mut machine = Machine::new(&Scenario::parse(text, "broken").unwrap());
    for device in 0..machine.scenario().devices.len() {
        let media = &mut machine.endpoint_mut(device).unwrap().media;
        for dpa in PLACES {
            assert!(media.write(Dpa(dpa), &value(device, dpa)));
        }
    }
    machine
}

fn value(device: usize, dpa: u64) -> [u8; 8] {
    (0xC0DE_0000_0000_0000 | dpa << 8 | device as u64).to_le_bytes()
}

/// Every place that held something still does, and the granules round it hold nothing else.
fn kept(machine: &Machine) {
    for device in 0..machine.scenario().devices.len() {
        let media = &machine.endpoint(device).unwrap().media;
        for dpa in PLACES {
            let mut found = [0; 8];
            assert!(media.read(Dpa(dpa), &mut found));
            assert_eq!(found, value(device, dpa), "{device} {dpa:#x}");
        }
        for dpa in [8, 0x0800_0008, 0x0FFF_FFF0, 0x07FF_FFF8, 0x00FF_FFF8, 0xF8] {
            let mut found = [0xA5; 8];
            assert!(media.read(Dpa(dpa), &mut found));
            assert_eq!(found, [0; 8], "{device} {dpa:#x}");
        }
    }
}

/// A loss is one failure in a guest as it is directly, whichever line of the console comes last, and whatever
/// the machine's own fault made of the accesses.
fn what_is_lost_is_told() {
    let no_place = r#"
        bridge = [{ uid = 16 }]
        port = [{ below = "hb0" }]
        device = [{ below = "port0", volatile = "256MiB", persistent = "256MiB" }]
        window = [{ targets = ["hb0"], size = "1GiB", restrictions = ["host-only", "volatile"] }]
    "#;
    let unrouted = format!("{DEEP}\nfault = [{{ at = \"near\", kind = \"unrouted\" }}]\n");
    let no_set = r#"
        bridge = [{ uid = 16 }, { uid = 32 }]
        port = [{ below = "hb0" }, { below = "hb1" }]
        device = [
            { below = "port0", volatile = "256MiB" },
            { below = "port1", volatile = "256MiB" },
        ]
        window = [{ targets = ["hb0"], size = "1GiB" }, { targets = ["hb1"], size = "1GiB" }]
        region = [{ devices = ["mem0", "mem1"] }]
    "#;
    for (text, words, line) in [
        (no_place, "256 MiB of mem0's persistent memory is lost: it has no place", "lost: "),
        (unrouted.as_str(), "lost: 0x1", "lost: 0x1"),
        (
            no_set,
            "a set is lost: bridge 16 port 0: the policy's set of 2 members with this device has no place",
            "lost: bridge 16 port 0: the policy's set of 2 members with this device has no place",
        ),
    ] {
        let text = format!("policy.on_failure = \"best-effort\"\n{text}");
        let scenario = Scenario::parse(&text, "lost").unwrap();
        let ran = crate::run(&scenario, &options());
        let failures = Report::of_guest(&ran.machine, &ran.run).facts.failures();
        let [failure] = failures.as_slice() else { panic!("{failures:#?}\n{}", ran.console()) };
        assert!(failure.contains(words), "{failure}");
        let mut direct = Machine::new(&scenario);
        let done = run::direct(&mut direct);
        assert_eq!(Report::of_direct(&direct, &done).facts.failures(), failures);
        let said = ran.console();
        let lost: Vec<_> = said.lines().filter(|line| line.starts_with("lost: ")).collect();
        assert!(matches!(lost[..], [one] if one.starts_with(line)), "{said}");
    }
}

fn found(text: &str, mirror: bool, code: u16, words: &str, stay: usize) {
    // Directly.
    let mut direct = filled(text);
    let done = run::direct(&mut direct);
    let refusal = done.refusal.as_ref().expect("a refusal");
    assert_eq!((refusal.code(), refusal.phase()), (code, "probe"), "{refusal}");
    assert!(refusal.to_string().contains(words), "{refusal}");
    assert_eq!((done.cedt.len(), done.room.committed.regions.len()), (0, stay));
    assert!(done.room.findings.passed(), "the registers are all right");
    kept(&direct);

    // In a guest: the same, and the accesses that exited are those that were made.
    let mut machine = filled(text);
    let scenario = machine.scenario().clone();
    let run = boot(&mut machine, &Options { mirror, ..options() }).unwrap();
    let console = String::from_utf8_lossy(&run.console).into_owned();
    assert_eq!(
        (run.last().verdict(), run.last().code()),
        (Verdict::Refused, Some(code)),
        "{console}"
    );
    assert!(console.contains(&refusal.to_string()), "{console}");
    kept(&machine);
    assert_eq!((machine.fabric(), run.last().cedt().len()), (direct.fabric(), 0));
    let record = handoff::read(run.last().record()).unwrap();
    let regions: Vec<Probed> = record.regions().map(|region| region.probed).collect();
    assert_eq!(regions, vec![Probed::Held; stay]);
    let serves = |fate| record.decoders().any(|decoder| decoder.fate == fate);
    assert!(serves(Fate::Stranded), "they are locked, and lead nowhere");
    assert_eq!(serves(Fate::Done), stay > 0);
    let library = run.last().handed.as_ref().unwrap().library;
    let ways = scenario.devices.len() as u64;
    assert!(library.memory_reads <= 9 * ways && library.memory_writes == 6 * ways, "{library:?}");
    if !mirror {
        let exits = run.last().handed.as_ref().unwrap().counts.window;
        assert_eq!(exits, library.memory_reads + library.memory_writes);
    }
    let report = Report::of_guest(&machine, &run);
    assert_eq!(report.facts.result, report::Verdict::Refused);
    assert_eq!(report.facts.failures(), [""; 0], "what was counted is what came");

    // Without locks everything is put back.
    let text = format!("policy.path = \"unlocked\"\npolicy.config_lock = false\n{text}");
    let before = filled(&text).fabric();
    let mut machine = filled(&text);
    let run = boot(&mut machine, &Options { mirror, ..options() }).unwrap();
    assert_eq!(run.last().code(), Some(code));
    assert_eq!(machine.fabric(), before);
    kept(&machine);
    let record = handoff::read(run.last().record()).unwrap();
    assert!(record.decoders().all(|decoder| decoder.fate == Fate::RolledBack));
    assert_eq!(record.regions().count(), 0);
}
