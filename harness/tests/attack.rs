//! The attack names every leak, and nothing on machines that have none.
//!
//! Masks and register names are typed from the specification; no access-class table is asked.
//!
//! **Invariant**: every machine here is brought up by the library first, as the attack's user would.

mod program;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cxl_attack::{Event, Locks, Mode, Skipped, State, Trigger};
use cxl_harness::attack::{self, Class, LeftOut, Report};
use cxl_harness::run::{self, DirectRun, Refusal};
use cxl_image::doorbell::Call;
use cxl_model::machine::Machine;
use cxl_model::scenario::{Scenario, builtin, builtins};

/// The report of a scenario, or why the library refuses the machine.
fn attacked(text: &str, name: &str) -> Result<Report, Refusal> {
    let scenario = Scenario::parse(text, name).unwrap_or_else(|error| panic!("{error}"));
    let mut machine = Machine::new(&scenario);
    let done = run::direct(&mut machine);
    match done.refusal {
        Some(refusal) => Err(refusal),
        // Inside, every locked dword is read after every write: small machines are enough.
        None if done.room.committed.decoders.len() > 4 => Ok(attack::direct(&mut machine, &done)),
        None => Ok(agreed(&mut machine, &done)),
    }
}

/// The host's report, once the witness inside has come to the same: whether locks held, and which
/// locked fields of decoders did not. It sees neither other registers nor where addresses lead.
fn agreed(machine: &mut Machine, done: &DirectRun) -> Report {
    let mut locks = Locks::<4096>::new();
    let report = attack::watched(machine, done, &mut locks);
    let text = locks.text(done.room.topology.tree()).to_string();
    assert_eq!(locks.held(), report.integrity.holds, "{text}{:?}", report.integrity.breaches);
    let seen: BTreeSet<(Option<u8>, &str, u32)> =
        locks.changed().map(|(_, decoder, register, bits)| (decoder, register, bits)).collect();
    for (decoder, register, _) in &seen {
        let named = report.details.iter().any(|detail| {
            detail.class == Class::Changed
                && (detail.decoder, detail.register.as_str()) == (*decoder, *register)
        });
        let lands = report.integrity.breaches.iter().any(|breach| breach.contains(register));
        assert!(named || lands, "{register} of {decoder:?}: {:?}", report.integrity.breaches);
    }
    report
}

fn report(text: &str) -> Report {
    attacked(text, "test").unwrap_or_else(|refusal| panic!("{refusal}"))
}

/// The report of the host alone, which sees where addresses lead.
fn by_host(text: &str) -> Report {
    let scenario = Scenario::parse(text, "test").unwrap_or_else(|error| panic!("{error}"));
    let mut machine = Machine::new(&scenario);
    let done = run::direct(&mut machine);
    assert!(done.refusal.is_none(), "{:?}", done.refusal);
    attack::direct(&mut machine, &done)
}

/// Bridge, switch and device with two decoders each: everything used, nothing spare.
const PATH: &str = r#"
[[bridge]]
name = "hb0"
uid = 16
decoders = 2
[[port]]
name = "rp0"
below = "hb0"
[[switch]]
name = "sw0"
below = "rp0"
decoders = 2
[[port]]
name = "dsp0"
below = "sw0"
[[device]]
name = "mem0"
below = "dsp0"
volatile = "256MiB"
persistent = "256MiB"
decoders = 2
[[window]]
targets = ["hb0"]
size = "1GiB"
"#;

/// As [`PATH`], with back-invalidate all the way.
fn back_invalidate_path() -> String {
    PATH.replace("uid = 16", "uid = 16\nback_invalidate = true")
        .replace("persistent =", "coherency = \"back-invalidate\"\npersistent =")
        .replace(
            "size = \"1GiB\"",
            "size = \"1GiB\"\nrestrictions = [\"device-coherent\", \"back-invalidate\", \
             \"volatile\", \"persistent\"]",
        )
}

/// A bridge with its port and a device, all with spare decoders.
const SMALL: &str = r#"
[[bridge]]
name = "hb0"
uid = 16
decoders = 2
[[port]]
name = "rp0"
below = "hb0"
[[device]]
name = "mem0"
below = "rp0"
volatile = "256MiB"
decoders = 2
[[window]]
targets = ["hb0"]
size = "1GiB"
"#;

fn fault(at: &str, kind: &str, rest: &str) -> String {
    format!("[[fault]]\nat = \"{at}\"\nkind = \"{kind}\"\n{rest}\n")
}

/// What changed, by component, register and decoder.
fn changed(report: &Report) -> BTreeMap<(String, String, Option<u8>), u32> {
    let mut found = BTreeMap::new();
    for detail in report.details.iter().filter(|detail| detail.class == Class::Changed) {
        let key = (detail.component.clone(), detail.register.clone(), detail.decoder);
        *found.entry(key).or_insert(0) |= detail.bits;
    }
    found
}

#[test]
fn honest_machines_let_nothing_change() {
    let mut attacked_machines = 0;
    for builtin in builtins().iter().filter(|builtin| builtin.name != "lock-not-enforced") {
        let Ok(report) = attacked(builtin.text, builtin.name) else { continue };
        let name = builtin.name;
        assert_eq!(report.changed, 0, "{name}: {report}");
        assert!(report.integrity.holds, "{name}: {:?}", report.integrity);
        // All of it is told, and in a report's room.
        let json = serde_json::to_string_pretty(&report).expect("JSON");
        assert!(json.len() <= 200 << 10, "{name}: {} bytes", json.len());
        assert_eq!(report.left_out, LeftOut::default(), "{name}");
        assert_eq!(report.tried, report.held + report.allowed + report.changed, "{name}");
        attacked_machines += 1;
    }
    assert!(attacked_machines >= 12, "only {attacked_machines} machines came up");
}

#[test]
fn lock_that_is_not_enforced_is_named() {
    let builtin = builtin("lock-not-enforced").expect("built in");
    let report = attacked(builtin.text, builtin.name).expect("everything looks locked");
    let found = changed(&report);
    let bits = |register: &str| {
        found.get(&("mem0".to_owned(), register.to_owned(), Some(0))).copied().unwrap_or(0)
    };
    assert_eq!(bits("HDM Decoder Base Low"), 0xF000_0000);
    assert_eq!(bits("HDM Decoder Base High"), u32::MAX);
    assert_eq!(bits("HDM Decoder Size Low"), 0xF000_0000);
    assert_eq!(bits("HDM Decoder Size High"), u32::MAX);
    assert_eq!(bits("HDM Decoder Control"), 0x0000_13FF);
    assert!(found.keys().any(|(_, register, _)| register == "Initiate CXL Reset"), "{found:?}");
    assert!(!report.integrity.holds);
    assert!(report.to_string().contains("BROKEN"));
}

/// Register, its key in a scenario, and the locked fields in it.
type Fields<'a> = &'a [(&'a str, &'a str, &'a [u32])];

/// CXL r3.1 section 8.2.4.20.3 to .11, fields that every component has.
const COMMON: Fields<'_> = &[
    ("HDM Decoder Base Low", "base_low", &[0xF000_0000]),
    ("HDM Decoder Base High", "base_high", &[0xFFFF_FFFF]),
    ("HDM Decoder Size Low", "size_low", &[0xF000_0000]),
    ("HDM Decoder Size High", "size_high", &[0xFFFF_FFFF]),
    // IG, IW, Lock On Commit, Commit, Target Range Type.
    ("HDM Decoder Control", "control", &[0xF, 0xF0, 0x100, 0x200, 0x1000]),
];
/// Target lists, a byte each.
const TARGETS: Fields<'_> = &[
    ("HDM Decoder Target List/DPA Skip Low", "route_low", &[0xFF, 0xFF00, 0xFF_0000, 0xFF00_0000]),
    (
        "HDM Decoder Target List/DPA Skip High",
        "route_high",
        &[0xFF, 0xFF00, 0xFF_0000, 0xFF00_0000],
    ),
];
/// DPA skip.
const SKIP: Fields<'_> = &[
    ("HDM Decoder Target List/DPA Skip Low", "route_low", &[0xF000_0000]),
    ("HDM Decoder Target List/DPA Skip High", "route_high", &[0xFFFF_FFFF]),
];

fn leaks_are_named(machine: &str, component: &str, fields: Fields<'_>) {
    for &(register, key, masks) in fields {
        for &mask in masks {
            let leak = format!("register = \"{key}\"\nbits = \"{mask:#x}\"");
            let report = report(&(machine.to_owned() + &fault(component, "leaks-field", &leak)));
            let expected = (component.to_owned(), register.to_owned(), Some(0));
            let found = changed(&report);
            assert_eq!(found, BTreeMap::from([(expected, mask)]), "{key} {mask:#x}: {report}");
            assert!(!report.integrity.holds, "{key} {mask:#x}");
        }
    }
}

#[test]
fn leak_of_each_field_of_a_host_bridge_is_named() {
    leaks_are_named(PATH, "hb0", COMMON);
    leaks_are_named(PATH, "hb0", TARGETS);
}

#[test]
fn leak_of_each_field_of_an_upstream_port_is_named() {
    leaks_are_named(PATH, "sw0", COMMON);
    leaks_are_named(PATH, "sw0", TARGETS);
}

#[test]
fn leak_of_each_field_of_a_device_is_named() {
    leaks_are_named(PATH, "mem0", COMMON);
    leaks_are_named(PATH, "mem0", SKIP);
}

#[test]
fn leak_of_a_back_invalidate_field_is_named() {
    let path = back_invalidate_path();
    assert_eq!(report(&path).changed, 0);
    // BI; in a device ISP too.
    leaks_are_named(&path, "hb0", &[("HDM Decoder Control", "control", &[0x2000])]);
    leaks_are_named(&path, "sw0", &[("HDM Decoder Control", "control", &[0x2000])]);
    leaks_are_named(&path, "mem0", &[("HDM Decoder Control", "control", &[0x2000, 0xF00_0000])]);
}

/// A spare decoder that is burnt at size 0 is locked like any other.
#[test]
fn leak_of_a_burnt_spare_decoder_is_named() {
    let burnt = SMALL.to_owned() + "[policy]\nburn_spares = true\ntarget = \"specification\"\n";
    for component in ["hb0", "mem0"] {
        for &(register, key, masks) in COMMON {
            let mask = masks[0];
            let leak = format!("decoder = 1\nregister = \"{key}\"\nbits = \"{mask:#x}\"");
            let report = report(&(burnt.clone() + &fault(component, "leaks-field", &leak)));
            let expected = (component.to_owned(), register.to_owned(), Some(1));
            assert_eq!(changed(&report), BTreeMap::from([(expected, mask)]), "{key}: {report}");
            assert!(!report.integrity.holds, "{component} {key}");
        }
    }
}

/// The locked decoder is tried again in every state, and after each reset that leaves it locked.
/// A conventional reset opens it; what is locked again after that leaks again.
#[test]
fn a_leak_is_seen_in_each_state_in_which_the_lock_holds() {
    let leak = "register = \"base_high\"\nbits = \"0x10\"";
    let report = report(&(SMALL.to_owned() + &fault("mem0", "leaks-field", leak)));
    let details = report.details.iter().filter(|detail| detail.class == Class::Changed);
    let states: BTreeSet<&str> = details.map(|detail| detail.state).collect();
    let expected = [
        "after CXL Reset",
        "after FLR",
        "after conventional reset",
        "commit refused",
        "committed, locked",
        "committed, unlocked",
        "lock set, not committed",
        "never committed",
    ];
    assert_eq!(states.into_iter().collect::<Vec<_>>(), expected);
}

/// Three ranges without a gap, of two devices.
const BESIDE: &str = r#"
[[bridge]]
uid = 16
[[port]]
below = "hb0"
[[port]]
below = "hb0"
[[device]]
below = "port0"
volatile = "512MiB"
[[device]]
below = "port1"
volatile = "256MiB"
persistent = "256MiB"
[[window]]
targets = ["hb0"]
size = "4GiB"
"#;

/// A range whose lock reads as if it held.
fn hidden(at: &str, rest: &str) -> String {
    format!("\n[[leak]]\nat = '{at}'\nshows = false\n{rest}\n")
}

/// The address before a range is the last one of the range below it, and is charged to that.
#[test]
fn a_range_that_did_not_move_is_not_charged_with_its_neighbours_addresses() {
    let ranges = ["0x100000000 (512 MiB)", "0x120000000 (256 MiB)", "0x130000000 (256 MiB)"];
    for (at, moved) in [("mem0", 0), ("mem1", 1)] {
        let leak = hidden(at, "decoder = 0\nregister = 'base_low'");
        let breaches = by_host(&format!("{BESIDE}{leak}")).integrity.breaches;
        assert!(!breaches.is_empty(), "{at}");
        for breach in &breaches {
            for (index, range) in ranges.iter().enumerate() {
                assert_eq!(breach.contains(range), index == moved, "{at}, {range}: {breaches:#?}");
            }
        }
    }
}

/// A range that grows without a sign: the addresses behind it are no range's, and are named by
/// themselves.
#[test]
fn an_address_in_no_range_that_leads_somewhere_is_told_as_that() {
    let machine = builtin("pass-through").expect("built in").text;
    let leak = hidden("mem0", "register = 'size_low'\nvalue = 'all-ones'");
    let report = by_host(&format!("{machine}{leak}"));
    let expected = "mem0 HDM Decoder Size Low of decoder 0 reads as locked, and decode follows \
                    writes all the same; 0x120000000, in no locked range, leads to mem0";
    assert_eq!(report.integrity.breaches, [expected], "{report}");
}

/// The leak of one register is charged to that register, whatever is attacked after it: neither the
/// write that puts addresses back, nor a mode of another component, nor another register.
#[test]
fn decode_that_has_gone_astray_is_charged_to_the_register_that_it_followed() {
    let honest = by_host(BESIDE);
    let high = "HDM Decoder Base High";
    for (at, decoder, leak, register) in [
        ("mem0", 0, "register = 'base_low'", "HDM Decoder Base Low"),
        ("hb0", 1, "decoder = 1\nregister = 'base_high'", high),
        // No value but this one comes through, so nothing brings the addresses back.
        ("mem0", 0, "register = 'base_high'\nvalue = 'all-ones'", high),
    ] {
        let report = by_host(&format!("{BESIDE}{}", hidden(at, leak)));
        let expected = (at.to_owned(), register.to_owned(), Some(decoder));
        assert_eq!(changed(&report), BTreeMap::from([(expected, u32::MAX)]), "{leak}: {report}");
        let breaches = &report.integrity.breaches;
        let first = format!(
            "{at} {register} of decoder {decoder} reads as locked, and decode follows writes all \
             the same; "
        );
        assert!(breaches.first().is_some_and(|breach| breach.starts_with(&first)), "{breaches:#?}");
        // Gone, and behind another decoder elsewhere: no more than that is to be told.
        assert!(breaches.len() <= 2, "{breaches:#?}");
        // All else comes out as it does without the leak.
        let others = |report: &Report| (report.tried - report.changed, report.held, report.allowed);
        assert_eq!(others(&report), others(&honest), "{leak}");
    }
}

/// What leaks in one mode alone is charged to the decoder that was written to in it, not to the
/// component whose mode it is.
#[test]
fn decode_that_goes_astray_in_a_mode_is_charged_to_what_was_written_in_it() {
    let leak = "register = 'base_high'\nwhile = 'Bus Master'\nof = 'rp0'\nis = 'off'";
    let report = by_host(&format!("{SMALL}{}", hidden("mem0", leak)));
    let components: BTreeSet<String> =
        changed(&report).into_keys().map(|(component, ..)| component).collect();
    assert_eq!(components, BTreeSet::from(["mem0".to_owned()]), "{report}");
    let breaches = &report.integrity.breaches;
    let told = "mem0 what is locked of decoder 0 reads as locked, and decode follows writes all \
                the same, while Bus Master of rp0 is off; ";
    assert!(breaches.iter().all(|breach| breach.starts_with(told)), "{breaches:#?}");
    assert!((1..=2).contains(&breaches.len()), "{breaches:#?}");
}

/// What is no bit of a dword is seen from inside as well: `report` has both judges agree.
#[test]
fn the_witness_inside_sees_other_stores_modes_and_decode() {
    for leak in [
        "register = 'base_low'\nwidth = 1",
        "register = 'size_low'\nwidth = 8",
        "register = 'base_high'\nvalue = 'all-ones'",
        "register = 'base_high'\nwhile = 'HDM Decoder Enable'\nis = 'off'",
        "register = 'dvsec'\noffset = 0x0c\nwhile = 'Memory Space'\nis = 'off'",
        "register = 'base_high'\nwhile = 'bar-moved'",
        "register = 'base_high'\nafter = 'flr'",
        "register = 'base_high'\nafter = 'hot'",
        "register = 'base_high'\nshows = false",
        "register = 'base_high'\nshows = false\nwhile = 'Bus Master'\nis = 'off'",
    ] {
        let report = report(&format!("{SMALL}\n[[leak]]\nat = 'mem0'\n{leak}\n"));
        assert!(!report.integrity.holds, "{leak}");
    }
}

/// CXL r3.1 section 8.1.3: what CONFIG_LOCK freezes, and the lock itself.
#[test]
fn leak_of_each_field_under_config_lock_is_named() {
    let fields = [
        ("DVSEC CXL Control", 0x0C, 0x0001),
        ("DVSEC CXL Control", 0x0C, 0x0004),
        ("DVSEC CXL Control", 0x0C, 0x00F8),
        ("DVSEC CXL Control", 0x0C, 0x0700),
        ("DVSEC CXL Control", 0x0C, 0x0800),
        ("DVSEC CXL Control", 0x0C, 0x4000),
        ("DVSEC CXL Lock", 0x14, 0x0001),
        ("DVSEC CXL Range 1 Base High", 0x20, 0xFFFF_FFFF),
        ("DVSEC CXL Range 1 Base Low", 0x24, 0xF000_0000),
        ("DVSEC CXL Range 2 Base High", 0x30, 0xFFFF_FFFF),
        ("DVSEC CXL Range 2 Base Low", 0x34, 0xF000_0000),
    ];
    for (register, offset, mask) in fields {
        let leak = format!("register = \"dvsec\"\noffset = {offset}\nbits = \"{mask:#x}\"");
        let report = report(&(PATH.to_owned() + &fault("mem0", "leaks-field", &leak)));
        let expected = ("mem0".to_owned(), register.to_owned(), None);
        let found = changed(&report);
        assert_eq!(found, BTreeMap::from([(expected, mask)]), "{offset:#x} {mask:#x}: {report}");
        assert!(!report.integrity.holds, "{offset:#x} {mask:#x}");
    }
}

#[test]
fn leak_into_another_decoder_is_seen_where_it_lands() {
    let leak = "decoder = 1\nregister = \"route_high\"\nbits = \"0x10\"\ninto = 0";
    let report = report(&(SMALL.to_owned() + &fault("mem0", "leaks-into", leak)));
    let written = "HDM Decoder Target List/DPA Skip High";
    let found = changed(&report);
    assert!(found.contains_key(&("mem0".to_owned(), written.to_owned(), Some(1))), "{found:?}");
    let lands = format!("a write to it changes mem0 {written} of decoder 0");
    let breaches = &report.integrity.breaches;
    assert!(breaches.iter().any(|breach| breach.contains(&lands)), "{breaches:?}");
    // 0x10 in the high dword: 64 GiB further on in the device, which has 256 MiB.
    assert!(breaches.iter().any(|breach| breach.contains("LEADS ELSEWHERE")), "{breaches:?}");
}

#[test]
fn each_state_is_attacked_or_named_as_skipped() {
    let full = report(PATH);
    let small = report(SMALL);
    let line = |report: &Report, name: &str, component: &str| {
        let found = report.states.iter().find(|s| s.name == name && s.component == component);
        found.cloned().unwrap_or_else(|| panic!("no {name} of {component}"))
    };
    for name in ["never committed", "lock set, not committed", "commit refused"] {
        assert_eq!(line(&full, name, "mem0").skipped, Some("no spare decoder"));
        assert_eq!(line(&full, name, "rp0").skipped, Some("no decoders"));
        for component in ["hb0", "mem0"] {
            let line = line(&small, name, component);
            assert_eq!((line.skipped, line.changed), (None, 0), "{line:?}");
            // Four dwords in front, two decoders of eight: every bit, but for the one that would
            // burn the decoder.
            assert!(line.held + line.allowed >= (4 + 2 * 8) * 32 - 1, "{line:?}");
        }
    }
    for name in ["after CXL Reset", "after FLR", "after conventional reset"] {
        assert_eq!(line(&full, name, "hb0").skipped, Some("no such reset"));
        assert!(line(&full, name, "mem0").tried > 1000, "{name}");
    }
    // All registers of the locked device: 4 + 16 dwords of decoders, 15 of the DVSEC, command and
    // six BARs. Two bits of Control2 start something and are steps of their own. The four dwords of
    // the range bases come again with HDM Decoder Enable clear.
    let locked = line(&full, "committed, locked", "mem0");
    let bits = (4 + 16 + 15 + 7 + 4) * 32 - 2;
    // Whole values and widths at the seven dwords of each decoder and the six of the DVSEC.
    assert!(locked.tried > bits + (2 * 7 + 6) * 60, "{}", locked.tried);
}

#[test]
fn burnt_spares_leave_nothing_to_add() {
    let policy = "[policy]\nburn_spares = true\ntarget = \"specification\"\n";
    let report = report(&(SMALL.to_owned() + policy));
    assert_eq!(report.changed, 0);
    let spare =
        |report: &Report| report.availability.iter().any(|a| a.register == "spare decoders");
    assert!(!spare(&report), "{report}");
    assert!(spare(&self::report(SMALL)));
}

#[test]
fn availability_lists_what_no_lock_covers() {
    let registers = |report: &Report, component: &str| -> Vec<String> {
        let all = report.availability.iter().filter(|a| a.component == component);
        all.map(|a| a.register.clone()).collect()
    };
    let locked = report(SMALL);
    let device = registers(&locked, "mem0");
    assert!(device.iter().any(|r| r == "HDM Decoder Global Control"), "{device:?}");
    assert!(device.iter().any(|r| r == "Initiate CXL Reset"), "{device:?}");
    assert!(device.iter().any(|r| r == "spare decoders"), "{device:?}");
    assert!(!device.iter().any(|r| r == "DVSEC CXL Control"), "{device:?}");
    let port = registers(&locked, "rp0");
    assert!(port.iter().any(|r| r == "Secondary Bus Reset, unmasked"), "{port:?}");

    let unlocked = report(&(SMALL.to_owned() + "[policy]\nconfig_lock = false\n"));
    assert_eq!(unlocked.changed, 0, "{unlocked}");
    let device = registers(&unlocked, "mem0");
    assert!(device.iter().any(|r| r == "DVSEC CXL Control"), "{device:?}");
}

/// An unlocked decoder can be put over a range wherever that is, and was: no finding depends on
/// which addresses differ in a single bit.
#[test]
fn availability_does_not_depend_on_addresses() {
    let open = |base: &str| -> Vec<(String, String, String, String)> {
        let machine = SMALL.replace("\"256MiB\"", "\"768MiB\"");
        let machine = machine.replace("\"1GiB\"", &format!("\"4GiB\"\nbase = \"{base}\""));
        let open = report(&machine).availability.into_iter();
        let words = open.map(|way| {
            let effects = way.effects.join("; ").replace(base, "BASE");
            (way.component, way.register, way.consequence, effects)
        });
        words.collect()
    };
    let here = open("0x100000000");
    for component in ["hb0", "mem0"] {
        let over: Vec<&str> = here
            .iter()
            .filter(|(at, register, ..)| at == component && register == "unlocked decoder")
            .map(|(.., effects)| effects.as_str())
            .collect();
        assert_eq!(over, ["BASE (768 MiB) no longer mapped, each access traps"], "{here:#?}");
    }
    for base in ["0x190000000", "0x230000000"] {
        assert_eq!(open(base), here, "{base}");
    }
    // Of two ranges behind one decoder's both are taken.
    let report = by_host(BESIDE);
    let mut over = report.availability.iter().filter(|way| way.register == "unlocked decoder");
    let behind = over.find(|way| way.component == "mem1").map(|way| way.effects.clone());
    let both = "0x120000000 (256 MiB), 0x130000000 (256 MiB) no longer mapped, each access traps";
    assert_eq!(behind, Some(vec![both.to_owned()]), "{report}");
}

/// Locked decoders alone do not hold a range: no lock covers HDM Decoder Enable, and with it clear
/// the range registers decode, which CONFIG_LOCK alone freezes.
#[test]
fn range_without_config_lock_is_not_called_sealed() {
    let small = SMALL.replace("\"256MiB\"", "\"512MiB\"");
    let sealed = report(&small);
    assert_eq!((sealed.integrity.ranges, sealed.integrity.open.len()), (1, 0));
    let open = report(&(small + "[policy]\nconfig_lock = false\n"));
    assert_eq!((open.integrity.ranges, open.integrity.open.len()), (0, 1));
    let proof = open.details.iter().find(|detail| {
        detail.register == "DVSEC CXL Range 1 Base Low"
            && detail.consequence.contains("LEADS ELSEWHERE")
    });
    assert_eq!(proof.map(|detail| detail.class), Some(Class::Allowed), "{open}");
}

/// With HDM Decoder Enable clear the range registers decode, and no lock covers the enable. Range 1
/// is twice as long as decoder 0 here: mirrored, it would swallow the addresses of decoder 1.
#[test]
fn clearing_the_decoder_enable_leads_no_address_elsewhere() {
    let machine = SMALL.replace("\"256MiB\"", "\"512MiB\"\npersistent = \"256MiB\"");
    let regions = "[[region]]\ndevice = \"mem0\"\nsize = \"256MiB\"\n\
                   [[region]]\ndevice = \"mem0\"\npartition = \"persistent\"\n";
    let report = report(&(machine + regions));
    assert_eq!(report.integrity.ranges, 2, "{report}");
    assert_eq!(report.changed, 0, "{report}");
}

#[test]
fn unlocked_machine_has_no_locked_range_and_no_breach() {
    let report = report(&(SMALL.to_owned() + "[policy]\npath = \"unlocked\"\n"));
    assert_eq!((report.changed, report.integrity.ranges), (0, 0), "{report}");
    assert!(report.to_string().contains("nothing to hold: no range is sealed"));
}

#[test]
fn events_come_through_the_doorbell_as_they_were_sent() {
    let address = 0xFFFF_FFFF_FFFF_FFFC;
    let mut events = vec![
        Event::Sweep { address, rest: u32::MAX },
        Event::Swept,
        Event::Patterns { address },
        Event::Settled,
        Event::PutBack,
        Event::Done,
    ];
    for state in State::ALL {
        events.push(Event::Enter { state, address });
        events.push(Event::Skip { state, address, reason: Skipped::OutOfReach });
    }
    events.extend(Mode::ALL.map(|mode| Event::Mode { mode, address, bits: 1 << 31 }));
    let triggers = [
        Trigger::WriteBack,
        Trigger::CxlReset,
        Trigger::Flr,
        Trigger::MaskedBusReset,
        Trigger::BusReset,
    ];
    events.extend(triggers.map(|trigger| Event::Trigger { trigger, address }));
    for event in events {
        let call = Call::Attack(event);
        assert_eq!(Call::decode(&call.encode()), Some(call));
    }
    for words in [
        [0; 4],
        [11, 0, 0, 0],
        [1, 8, 0, 0],
        [3, 0, 1 << 32, 0],
        [5, 1, 0, 0],
        [9, 0, 1, 0],
        [10, 8, 0, 0],
        [10, 0, 0, 1 << 32],
    ] {
        assert_eq!(Event::decode(words), None, "{words:?}");
    }
}

#[test]
fn command_exits_as_its_help_says() {
    let run = |arguments: &[&str]| {
        let (output, _, code) = program::ran(program::command(&["attack"]).args(arguments));
        (Some(code), output)
    };
    let (code, text) = run(&["one-device", "--direct"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("holds: 1 locked range never led elsewhere"), "{text}");
    assert_eq!(run(&["lock-not-enforced", "--direct"]).0, Some(1));
    assert_eq!(run(&["no-window", "--direct"]).0, Some(1));
    assert_eq!(run(&["no-such-scenario", "--direct"]), (Some(2), String::new()));
    assert_eq!(run(&["one-device"]), (Some(2), String::new()));

    let json = |scenario: &str, exit: i32| -> serde_json::Value {
        let (code, text) = run(&[scenario, "--direct", "--json"]);
        assert_eq!(code, Some(exit), "{scenario}");
        serde_json::from_str(&text).expect("JSON")
    };
    let refused = json("no-window", 1);
    assert_eq!((&refused["result"], &refused["attack"]), (&"refused".into(), &().into()));
    assert_eq!(refused["refusal"]["code"], "0x0301");
    let broken = json("lock-not-enforced", 1);
    assert_eq!((&broken["result"], &broken["refusal"]), (&"failed".into(), &().into()));
    assert!(broken["attack"]["changed"].as_u64() > Some(0));

    let (code, text) = run(&["one-device", "--direct", "--json"]);
    assert_eq!(code, Some(0));
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["result"], "ok");
    let attack = &json["attack"];
    for key in ["tried", "held", "allowed", "changed"] {
        assert!(attack[key].is_u64(), "{key}");
    }
    for key in ["name", "component", "tried", "held", "allowed", "changed", "skipped"] {
        assert!(attack["states"][0].get(key).is_some(), "{key}");
    }
    for key in ["register", "bits", "class", "consequence"] {
        assert!(attack["details"][0][key].is_string(), "{key}");
    }
    for key in ["states", "components", "decoders"] {
        assert!(attack["details"][0][key].is_array(), "{key}");
    }
    for key in ["details", "breaches", "availability"] {
        assert_eq!(attack["left_out"][key], 0, "{key}");
    }
    assert_eq!(attack["integrity"]["holds"], true);
    assert!(attack["availability"].is_array());
}

/// Whether a process has a handler for SIGINT, which is signal 2.
fn catches_interrupts(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask >> 1 & 1 != 0)
}

#[test]
fn ctrl_c_says_how_far_the_attack_came() {
    let shapes: [&[&str]; 2] = [&[], &["--json"]];
    for shape in shapes {
        let mut command = program::command(&["attack", "sixteen-way", "--direct"]);
        command.args(shape).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("it starts");
        let pid = child.id().to_string();
        // Up to then the signal ends any program without a word.
        let start = Instant::now();
        while !catches_interrupts(&pid) {
            assert!(start.elapsed() < Duration::from_secs(60), "it does not look at signals");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(100));
        let sent = Command::new("kill").args(["-INT", &pid]).status().expect("there is kill");
        assert!(sent.success(), "it has ended by itself");
        let output = child.wait_with_output().expect("it ends");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{complaint}");
        assert_eq!(output.stdout, b"", "{complaint}");
        let told = complaint.starts_with("error: interrupted in step ")
            && complaint.contains(" writes tried by then, 0 of them changed what they must not\n");
        assert!(told, "{complaint}");
    }
}

/// Leaks under circumstances that the attack does not have by itself: a wider field, and two fields at
/// once. A mode that names them finds them, here and in the words of the report; one that cannot be
/// entered is no attack that held.
#[test]
fn modes_that_a_scenario_names_are_tried() {
    let leak = "[[leak]]\nat = 'mem0'\nregister = 'base_high'\n";
    let mode = "[[mode]]\nat = 'mem0'\nregister = ";
    let payload = "while = 'Max_Payload_Size'\nis = 'on'\n";
    let wide = format!("{mode}'Device Control'\nfield = 'Max_Payload_Size'\nvalue = 3\n");
    let alone = report(&format!("{SMALL}{leak}{payload}"));
    assert!(alone.held(), "it is not found by itself: {alone}");
    let named = report(&format!("{SMALL}{leak}{payload}{wide}"));
    let breaches = named.integrity.breaches.join("\n");
    assert!(breaches.contains("while Max_Payload_Size of mem0 holds 0x3"), "{breaches}");
    // It is left as it was, and an honest machine holds in it.
    let honest = report(&format!("{SMALL}{wide}{mode}'Command'\nvalue = '0x6'\n"));
    assert!(honest.held() && honest.not_tried.is_empty(), "{honest}");
    assert!(honest.tried > report(SMALL).tried, "{honest}");
    // Vendor ID is read-only: nothing is tried while it is another.
    let never = report(&format!("{SMALL}{mode}'Vendor and Device ID'\nvalue = 1\n"));
    assert!(!never.held() && never.changed == 0, "{never}");
    let words = "while Vendor and Device ID of mem0 holds 0x1";
    assert_eq!(never.not_tried, [words]);
    assert!(
        never.to_string().contains("  NOT TRIED         while Vendor and Device ID"),
        "{never}"
    );
    // Of one register several may be named: each is tried, and told, by what it holds.
    let global = format!("{mode}'HDM Decoder Global Control'\nvalue = ");
    let both = report(&format!("{SMALL}{global}0\n{global}'0xffffffff'\n"));
    assert_eq!(both.not_tried, ["while HDM Decoder Global Control of mem0 holds 0xffffffff"]);
    assert!(!both.held(), "{both}");
    let payload_is = |value| wide.replace("= 3", &format!("= {value}"));
    let (first, second) = (payload_is(0), payload_is(3));
    let either = report(&format!("{SMALL}{leak}{payload}{first}{second}"));
    assert!(either.not_tried.is_empty(), "{either}");
    let told = |value| {
        let when = format!("while Max_Payload_Size of mem0 holds {value}");
        either.integrity.breaches.iter().any(|breach| breach.contains(&when))
    };
    assert!(told("0x3") && !told("0x0"), "{either}");
}

/// A size that follows writes in a mode without showing it: what the batch of stores ends with is less of
/// the range, whatever stores beside it have left there.
#[test]
fn a_size_that_opens_in_a_mode_and_shows_nothing_is_found() {
    for (at, of) in [("hb0", "rp0"), ("hb0", "mem0"), ("mem0", "rp0"), ("mem0", "mem0")] {
        let leak = format!("register = 'size_low'\nwhile = 'Bus Master'\nof = '{of}'\nis = 'off'");
        let report = by_host(&format!("{SMALL}{}", hidden(at, &leak)));
        let components: BTreeSet<String> =
            changed(&report).into_keys().map(|(component, ..)| component).collect();
        assert_eq!(components, BTreeSet::from([at.to_owned()]), "{at}, {of}: {report}");
    }
}

/// A store of one byte or two that comes through in a mode of another component, whichever of a dword's
/// lanes it needs.
#[test]
fn a_lane_that_opens_in_a_mode_of_the_path_is_found() {
    for (width, bits) in [
        (1, 0x2),
        (1, 0x200),
        (1, 0xFF00),
        (1, 0xFF_0000),
        (1, 0x8000_0000_u32),
        (2, 0xFFFF),
        (2, 0xFFFF_0000),
    ] {
        let leak = format!(
            "register = 'base_high'\nwhile = 'Bus Master'\nof = 'rp0'\nis = 'off'\n\
             width = {width}\nbits = {bits}"
        );
        let report = report(&format!("{SMALL}\n[[leak]]\nat = 'mem0'\n{leak}\n"));
        let register = ("mem0".to_owned(), "HDM Decoder Base High".to_owned(), Some(0));
        assert_eq!(changed(&report), BTreeMap::from([(register, bits)]), "{leak}: {report}");
    }
}

/// A device that best effort has to do without.
const LOST: &str =
    "[policy]\non_failure = 'best-effort'\n[[fault]]\nat = 'mem0'\nkind = 'unrouted'\n";

/// The attack has no better exit code than the boot that it comes after, and says why in its words.
#[test]
fn an_attack_on_what_best_effort_left_says_what_was_lost() {
    let folder = program::Folder::new();
    let machine = builtin("two-devices-one-bridge").expect("built in").text;
    let file = folder.file("lossy.toml", format!("{machine}{LOST}"));
    let run = |words: &[&str]| program::ran(&mut program::command(words));
    let json = |command: &str| -> serde_json::Value {
        let (text, _, code) = run(&[command, &file, "--direct", "--json"]);
        assert_eq!(code, 1, "{command}: {text}");
        serde_json::from_str(&text).expect("JSON")
    };
    let (booted, attacked) = (json("boot"), json("attack"));
    assert_eq!(
        (&attacked["result"], &attacked["attack"]["changed"]),
        (&"failed".into(), &0.into())
    );
    let failures = attacked["failures"].as_array().expect("a list");
    assert!(!failures.is_empty() && attacked["failures"] == booted["failures"], "{failures:?}");
    let lost = failures[0].as_str().expect("a sentence");
    assert!(lost.starts_with("lost: "), "{lost}");
    for format in ["text", "junit", "sarif"] {
        let (text, _, code) = run(&["attack", &file, "--direct", "--format", format]);
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(code == 1 && flat.contains(lost), "{format}: {text}");
    }
}

/// What was not tried has shown nothing: an attack that is cut off does not say that locks hold, and what
/// had given way by then has.
#[test]
fn an_attack_that_was_cut_off_does_not_say_that_locks_hold() {
    let cut = |name: &str, after: usize| {
        let scenario = Scenario::built_in(name).expect("built in");
        let mut machine = Machine::new(&scenario);
        let done = run::direct(&mut machine);
        let steps = std::cell::Cell::new(0);
        let mut tell = |_: &str, _: &str| steps.set(steps.get() + 1);
        let report = attack::direct_until(&mut machine, &done, &mut tell, &|| steps.get() > after);
        let mut facts = cxl_harness::report::Report::of_direct(&machine, &done).facts;
        facts.set_attack(report.clone());
        (report, facts)
    };
    let (report, facts) = cut("one-device", 2);
    assert!(report.tried > 0 && report.changed == 0, "{report}");
    assert!(!report.held() && !report.integrity.holds && !report.integrity.complete, "{report}");
    let words = "not known: the attack did not end: ";
    assert!(report.to_string().contains(words), "{report}");
    let text = facts.to_string();
    assert!(text.contains(words) && !text.contains("integrity         holds"), "{text}");
    let failures = facts.failures();
    assert!(
        failures.iter().any(|failure| failure.starts_with("the attack did not end: ")),
        "{text}"
    );
    let picture = cxl_harness::report::Svg(&facts).to_string();
    assert!(!picture.contains("under attack they held"), "{picture}");
    let page = cxl_harness::html::of_run(&facts, None, "").to_string();
    assert!(page.contains("Integrity is not known") && !page.contains("Integrity holds"), "{page}");
    assert!(!page.contains("under attack they held"), "{page}");
    let json = serde_json::to_value(&report).expect("it is data");
    assert_eq!(json["integrity"]["holds"], false);
    assert_eq!(json["integrity"]["complete"], false);
    assert!(json["integrity"]["breaches"].as_array().is_some_and(Vec::is_empty));

    let (report, _) = cut("one-device", usize::MAX);
    assert!(report.held() && report.integrity.holds && report.integrity.complete, "{report}");

    let (report, facts) = cut("lock-not-enforced", 12);
    assert!(!report.integrity.complete && !report.integrity.breaches.is_empty(), "{report}");
    assert!(report.to_string().contains("BROKEN: "), "{report}");
    assert!(facts.to_string().contains("BROKEN"), "{facts}");
}

#[test]
fn report_reads_as_reviewed() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../snapshots/attack");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for name in ["one-device", "lock-not-enforced"] {
        let builtin = builtin(name).expect("built in");
        let report = attacked(builtin.text, name).expect("comes up");
        settings.bind(|| insta::assert_snapshot!(name, report));
    }
}
