//! Scenarios as text, and the address map that follows from them.
//!
//! **Invariant**: expected addresses and messages are typed by hand.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use cxl_model::layout::{AddressMap, place_windows};
use cxl_model::scenario::{
    Action, Bridge, Device, FaultKind, Parent, Place, Port, RegisterAt, ResetKind, Scenario,
    Window, WindowChoice, builtin, builtins,
};
use cxl_regs::{Coherency, Hpa, Span};
use proptest::prelude::*;

fn parse(text: &str) -> Scenario {
    Scenario::parse(text, "test.toml").unwrap_or_else(|error| panic!("{error}"))
}

fn built_in(name: &str) -> Scenario {
    parse(builtin(name).unwrap_or_else(|| panic!("no {name}")).text)
}

#[test]
fn every_built_in_parses_and_describes_itself_in_one_line() {
    for builtin in builtins() {
        let scenario =
            Scenario::parse(builtin.text, builtin.name).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(scenario.name, builtin.name);
        let description = &scenario.description;
        assert!((10..=80).contains(&description.len()), "{}: {description:?}", builtin.name);
        assert!(builtin.text.starts_with("# "), "{} teaches nothing", builtin.name);
    }
}

#[test]
fn every_file_of_the_directory_is_built_in() {
    // Tests run in their package's folder.
    let mut files: Vec<String> = std::fs::read_dir("src/scenario/builtin")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut listed: Vec<String> =
        builtins().iter().map(|builtin| format!("{}.toml", builtin.name)).collect();
    files.sort();
    listed.sort();
    assert_eq!(files, listed);
}

#[test]
fn the_default_machine_has_what_the_main_job_shows() {
    let scenario = built_in("default");
    let devices: Vec<_> = scenario
        .devices
        .iter()
        .map(|d| (d.name.as_str(), d.volatile >> 20, d.persistent >> 20, d.coherency))
        .collect();
    assert_eq!(
        devices,
        [
            ("mem0", 512, 0, Coherency::HostOnly),
            ("mem1", 256, 256, Coherency::HostOnly),
            ("mem2", 0, 512, Coherency::HostOnly),
            ("acc0", 256, 0, Coherency::Device),
        ]
    );
    assert_eq!(scenario.bridges.len(), 2);
}

/// One bridge, port, device and window, to be spoilt.
const GOOD: &str = r#"
[[bridge]]
name = "hb0"
uid = 16

[[port]]
name = "rp0"
below = "hb0"

[[device]]
name = "mem0"
below = "rp0"
volatile = "256MiB"

[[window]]
targets = ["hb0"]
size = "1GiB"
"#;

/// What is added to [`GOOD`], and what the error says: line and column count in the addition.
const ERRORS: &[(&str, &str)] = &[
    ("[[bridge]", "1:10: "),
    (
        "[[bridge]]\nuid = \"16\"",
        "2:7: `uid`: expected a whole number from 0 to 4294967295, found \"16\"",
    ),
    ("[[bridge]]\nname = \"x\"", "1:1: expected the key `uid`, found none: every `bridge` has it"),
    ("[[bridge]]\nuid = 1\ncolour = 3", "3:1: expected one of the keys of `bridge` (`name`, `uid`"),
    ("[[bridge]]\nuid = 16", "2:7: expected a UID that is free, found 16, which hb0 has"),
    (
        "[[bridge]]\nuid = 17",
        "2:7: expected a range of buses that is free, found 17 to 17, which hb0 has",
    ),
    ("[[bridge]]\nuid = 1\nbus = 16", "3:7: expected a range of buses that is free"),
    (
        "[[bridge]]\nuid = 1000",
        "2:7: expected the key `bus`, found none: the UID 1000 is no bus number (0 to 255)",
    ),
    ("[[bridge]]\nuid = 1\nsegment = 2", "3:11: `segment`: expected 0 or 1, found 2"),
    ("[[bridge]]\nuid = 1\ndecoders = 3", "3:12: `decoders`: expected 0, 1, 2, 4, 6"),
    ("[[bridge]]\nuid = 1\ntarget_count = 3", "3:16: `target_count`: expected 1, 2, 4 or 8"),
    (
        "[[bridge]]\nuid = 1\nversion = \"3.0\"",
        "3:11: `version`: expected \"1.1\" or \"2.0\", found \"3.0\"",
    ),
    (
        "[[port]]\nname = \"mem0\"\nbelow = \"hb0\"",
        "2:8: expected a name that is free, found `mem0`",
    ),
    (
        "[[port]]\nbelow = \"hb1\"",
        "2:9: expected the name of a bridge or switch (one of hb0), found `hb1`",
    ),
    ("[[port]]\nbelow = \"mem0\"", "2:9: expected the name of a bridge or switch"),
    (
        "[[port]]\nbelow = \"hb0\"\nnumber = 1\n[[port]]\nbelow = \"hb0\"\nnumber = 1",
        "6:10: expected a port number that is free, found 1, which port1 has",
    ),
    (
        "[[port]]\nbelow = \"hb0\"\nnumber = 256",
        "3:10: `number`: expected a whole number from 0 to 255, found 256",
    ),
    (
        "[[switch]]\nname = \"sw0\"\nbelow = \"dsp0\"\n[[port]]\nname = \"dsp0\"\nbelow = \"sw0\"",
        "3:9: expected a port that leads up to a bridge, found `sw0` below itself",
    ),
    ("[[switch]]\nbelow = \"hb0\"", "2:9: expected the name of a port (one of rp0), found `hb0`"),
    (
        "[[switch]]\nbelow = \"rp0\"",
        "2:9: expected a port that is free, found `rp0`, which mem0 has",
    ),
    (
        "[[device]]\nbelow = \"rp0\"",
        "2:9: expected a port that is free, found `rp0`, which mem0 has",
    ),
    (
        "[[port]]\nbelow = \"hb0\"\n[[device]]\nbelow = \"port1\"\nvolatile = \"100MiB\"",
        "5:12: `volatile`: expected a multiple of 256 MiB, the unit of the range registers, \
         found 100 MiB",
    ),
    (
        "[[port]]\nbelow = \"hb0\"\n[[device]]\nbelow = \"port1\"\npersistent = \"1 lot\"",
        "5:14: `persistent`: expected a number of bytes such as \"256MiB\", \"4 GiB\", \"0x10000000\" or \
         4096, below 16 EiB, found \"1 lot\"",
    ),
    (
        "[[port]]\nbelow = \"hb0\"\n[[device]]\nbelow = \"port1\"\npersistent = -1",
        "5:14: `persistent`: expected a number of bytes such as",
    ),
    (
        "[[port]]\nbelow = \"hb0\"\n[[device]]\nbelow = \"port1\"\ndecoders = 12",
        "5:12: `decoders`: expected 1, 2, 4, 6, 8 or 10, found 12",
    ),
    (
        "[[port]]\nbelow = \"hb0\"\n[[device]]\nbelow = \"port1\"\nkind = \"type1\"",
        "5:8: `kind`: expected \"type2\" or \"type3\", found \"type1\"",
    ),
    (
        "[[region]]\nsize = \"256MiB\"",
        "1:1: expected the key `device`, found none: a region has members",
    ),
    (
        "[[region]]\ndevices = [\"mem0\", \"mem0\"]",
        "2:20: expected a member that is free, found mem0, which the region has",
    ),
    (
        "[[fault]]\nat = \"mem0\"\nkind = \"stuck-bit\"\nregister = \"control\"\nbits = 0",
        "5:8: `bits`: expected at least one bit, found 0",
    ),
    (
        "[[leak]]\nat = \"mem0\"\nregister = \"base_low\"\nbits = 0",
        "4:8: `bits`: expected at least one bit, found 0",
    ),
    ("[[window]]\ntargets = []\nsize = 1", "2:11: `targets`: expected 1, 2, 3, 4, 6, 8, 12 or 16"),
    ("[[window]]\ntargets = [1, 2, 3, 4, 5]\nsize = 1", "2:11: `targets`: expected 1, 2, 3"),
    ("[[window]]\ntargets = [1.5]\nsize = 1", "2:12: `targets`: expected a bridge's name or UID"),
    (
        "[[window]]\ntargets = [1]\nsize = 1\ngranularity = \"32KiB\"",
        "4:15: `granularity`: expected 256, 512, 1024, 2048, 4096, 8192 or 16384 bytes",
    ),
    (
        "[[window]]\ntargets = [1, 2]\nsize = 1\nxor_maps = [0x100]",
        "4:12: expected no key `xor_maps` here: the window's arithmetic is not \"xor\"",
    ),
    (
        "[[window]]\ntargets = [1]\nsize = 1\nrestrictions = [\"none\"]",
        "4:17: `restrictions`: expected \"device-coherent\"",
    ),
    (
        "[[window]]\nname = \"window0\"\ntargets = [1]\nsize = 1",
        "2:8: expected a name that is free, found `window0`, which another window has",
    ),
    ("[platform]\nphysical_bits = 64", "2:17: `physical_bits`: expected 36 to 52, found 64"),
    ("[platform]\nmemory = 100", "2:10: `memory`: expected whole MiB"),
    (
        "[platform]\nwindows = \"mine\"",
        "2:11: `windows`: expected \"given\" or \"sized\", found \"mine\"",
    ),
    ("[platform]\nacross = 256", "2:10: expected no key `across` here: only windows that are"),
    (
        "[[window]]\ntargets = [1]\nsize = 1\nhost = \"0x10000000000\"",
        "expected the key `host`, found none: window1 has one, so devices are handed over",
    ),
    (
        "[platform]\nwindows = \"sized\"\nacross = 300",
        "3:10: `across`: expected 256, 512, 1024, 2048, 4096, 8192 or 16384 bytes, found 300",
    ),
    (
        "[platform]\nwindows = \"sized\"",
        "expected no key `window` here: [platform] says that windows are \"sized\"",
    ),
    (
        "[[region]]\ndevice = \"mem1\"",
        "2:10: expected the name of a device (one of mem0), found `mem1`",
    ),
    ("[[region]]\ndevices = []", "2:11: `devices`: expected at least one name, found none"),
    ("[[region]]\nsize = 1", "expected the key `device`, found none"),
    (
        "[[region]]\ndevice = \"mem0\"\nwindow = \"w\"",
        "3:10: expected the name or base of a window (one of window0), found `w`",
    ),
    (
        "[[fault]]\nat = \"mem9\"\nkind = \"commit-never\"",
        "2:6: expected the name of a component (one of hb0, mem0, rp0), found `mem9`",
    ),
    (
        "[[fault]]\nat = \"mem0\"\nkind = \"stuck-bit\"\nregister = \"control\"",
        "3:8: expected the key `bits`, found none: this kind of fault needs it",
    ),
    (
        "[[fault]]\nat = \"mem0\"\nkind = \"commit-never\"\nbits = 1",
        "4:8: expected no key `bits` here: this kind of fault has no use for it",
    ),
    (
        "[[fault]]\nat = \"mem0\"\nkind = \"commit-never\"\ndecoder = 4",
        "4:11: `decoder`: expected a decoder that the component has, found 4",
    ),
    (
        "[[fault]]\nat = \"mem0\"\nkind = \"leaks-field\"\nregister = \"dvsec\"\noffset = 3\n\
         bits = 1",
        "5:10: `offset`: expected a multiple of 4, found 3",
    ),
    (
        "[[fault]]\nat = \"hb0\"\nkind = \"wraps\"\nbits = \"256MiB\"",
        "2:6: `at`: expected a device, which has memory, found hb0",
    ),
    (
        "[[fault]]\nat = \"rp0\"\nkind = \"unrouted\"\nafter = 1",
        "4:9: expected no key `after` here: this kind of fault has no use for it",
    ),
    (
        "[[mode]]\nat = \"mem0\"\nregister = \"Comand\"",
        "3:12: `register`: expected a register of the component, by its name in the specification, \
         found Comand",
    ),
    (
        "[[mode]]\nat = \"hb0\"\nregister = \"Command\"",
        "3:12: `register`: expected a register of the component",
    ),
    (
        "[[mode]]\nat = \"mem0\"\nregister = \"Command\"\nfield = \"Bus Mastr\"",
        "4:9: `field`: expected a field of the register, by its name in the specification, found \
         Bus Mastr",
    ),
    (
        "[[mode]]\nat = \"mem0\"\nregister = \"Command\"\nvalue = \"0x10000\"",
        "4:9: `value`: expected no more bits than the register or field has, found 0x10000",
    ),
    (
        "[[mode]]\nat = \"mem0\"\nregister = \"Command\"\nfield = \"Bus Master\"\nvalue = 2",
        "5:9: `value`: expected no more bits than the register or field has, found 0x2",
    ),
    ("[[mode]]\nat = \"mem7\"\nregister = \"Command\"", "2:6: expected the name of a component"),
    (
        "[platform]\nassigned = false\n[[mode]]\nat = \"mem0\"\nregister = \"Command\"",
        "4:6: expected no key `mode` here: nothing has an address before firmware assigns it",
    ),
    (
        "[[event]]\nat = 1\naction = \"hot-add\"",
        "3:10: expected the key `device`, found none: a device comes or goes",
    ),
    ("[[event]]\nat = 1\naction = \"reset\"", "3:10: expected the key `kind`"),
    ("[policy]\npath = \"open\"", "2:8: `path`: expected \"lock-all\", \"guest-programs\""),
];

#[test]
fn every_error_shows_line_column_expected_and_found() {
    let lines_before = GOOD.lines().count();
    for (addition, expected) in ERRORS {
        let text = format!("{GOOD}{addition}");
        let error = match Scenario::parse(&text, "test.toml") {
            Ok(_) => panic!("accepted: {addition}"),
            Err(error) => error,
        };
        let shown = format!(
            "{}:{}: {}",
            (error.line as i64) - lines_before as i64,
            error.column,
            error.problem
        );
        assert!(shown.contains(expected), "{addition}\n  says    {shown}\n  expected {expected}");
    }
}

/// What is added to [`GOOD`], and what all of the answer is.
const ANSWERS: &[(&str, &str)] = &[
    (
        "[[bridge]]\nUID = 1",
        "2:1: expected one of the keys of `bridge` (`name`, `uid`, `bus`, `segment`, `decoders`, \
         `target_count`, `version`, `back_invalidate`, `cache_id` or `bus_known`), found `UID`; \
         did you mean `uid`?",
    ),
    (
        "[polcy]",
        "1:2: expected one of the keys (`description`, `platform`, `bridge`, `port`, `switch`, \
         `device`, `window`, `policy`, `leave_out`, `reserve`, `region`, `fault`, `leak`, `mode` \
         or `event`), found `polcy`; did you mean `policy`?",
    ),
    (
        "[policy]\npath = \"Lock-All\"",
        "2:8: `path`: expected \"lock-all\", \"guest-programs\", \"describe\" or \"unlocked\", \
         found \"Lock-All\"; did you mean \"lock-all\"?",
    ),
    (
        "[policy]\npath = 3",
        "2:8: `path`: expected \"lock-all\", \"guest-programs\", \"describe\" or \"unlocked\", \
         found 3",
    ),
    (
        "[policy]\npath.x = 3",
        "2:6: `path`: expected \"lock-all\", \"guest-programs\", \"describe\" or \"unlocked\", \
         found a table",
    ),
    (
        "[[policy]]\npath = \"open\"",
        "1:1: `policy`: expected one table, in single brackets, found a list",
    ),
    (
        "[platform]\nstrict = 1979-05-27",
        "2:10: `strict`: expected true or false, found the date or time 1979-05-27",
    ),
    ("[[bridge]]\nuid = 1\nuid = 2", "3:1: expected `uid` once, found it again"),
    (
        "[bridge]\nuid = 1",
        "1:2: expected `bridge` once, found it again: several are written [[bridge]]",
    ),
    (
        "[[bridge]]\nuid = 1\ndecoders = 300",
        "3:12: `decoders`: expected 0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28 or 32, found 300",
    ),
    ("[[bridge]]\nuid = 1\nsegment = -1", "3:11: `segment`: expected 0 or 1, found -1"),
    (
        "[platform]\nphysical_bits = 1e3",
        "2:17: `physical_bits`: expected a whole number, found 1e3",
    ),
    ("[[region]]\ndevices = [3]", "2:12: `devices`: expected a text in quotes, found 3"),
    (
        "[[device]]\nvolatile = 256MiB",
        "2:12: `volatile`: expected a number, true, false, a list, or a text in quotes, found \
         256MiB",
    ),
    (
        "[[bridge]]\nuid = 10000000000000000000000",
        "2:7: `uid`: expected a whole number from 0 to 4294967295, found 10000000000000000000000",
    ),
    ("[[bridge]]\nuid = 016", "2:7: `uid`: unexpected leading zero, found 016"),
    ("[[bridge]]\nuid 3", "2:5: expected `=`: key with no value"),
];

#[test]
fn an_answer_says_key_expected_and_found_in_the_words_of_the_format() {
    let lines_before = GOOD.lines().count();
    for (addition, expected) in ANSWERS {
        let error = Scenario::parse(&format!("{GOOD}{addition}"), "").unwrap_err();
        let line = error.line - lines_before;
        assert_eq!(format!("{line}:{}: {}", error.column, error.problem), *expected, "{addition}");
    }
}

/// Every key, in a table that is good without it.
const KEYS: &[(&str, &str)] = &[
    ("[platform]", "physical_bits memory memory_base assigned strict windows across"),
    (
        "[policy]",
        "path config_lock burn_spares target enable_cache interleave leftovers probe prefer on_failure \
         broken_sets trial",
    ),
    (
        "[[bridge]]\nuid = 17",
        "name bus segment decoders target_count version back_invalidate cache_id bus_known",
    ),
    ("[[bridge]]", "uid"),
    ("[[port]]\nbelow = \"hb0\"", "name number hdm"),
    ("[[port]]", "below"),
    ("[[switch]]\nbelow = \"rp0\"", "name decoders target_count"),
    (
        "[[device]]\nbelow = \"rp0\"",
        "name kind volatile persistent coherency decoders selects ways_3_6_12 ways_16 serial \
         present",
    ),
    (
        "[[window]]\ntargets = [1]\nsize = 1",
        "name base host granularity interleave arithmetic xor_maps restrictions qtg",
    ),
    ("[[window]]\ntargets = [1]", "size"),
    ("[[window]]\nsize = 1", "targets"),
    ("[[reserve]]\nat = \"rp0\"\nsize = 1", "partition"),
    ("[[reserve]]\nat = \"rp0\"", "size"),
    ("[[region]]\ndevice = \"mem0\"", "devices partition window offset size skip granularity"),
    ("[[fault]]\nat = \"mem0\"\nkind = \"unrouted\"", "decoder register offset bits after into"),
    ("[[fault]]\nat = \"mem0\"", "kind"),
    (
        "[[leak]]\nat = \"mem0\"\nregister = \"control\"",
        "decoder offset bits width value while of is after writes microseconds by by_register \
         shows",
    ),
    ("[[mode]]\nat = \"mem0\"\nregister = \"Command\"", "field value"),
    ("[[event]]\nat = 1\naction = \"hot-add\"", "device kind refused"),
    ("[[event]]\naction = \"hot-add\"", "at"),
];

#[test]
fn no_answer_to_a_wrong_value_is_in_words_of_rust() {
    let lines_before = GOOD.lines().count();
    for (table, keys) in KEYS {
        for key in keys.split_whitespace() {
            for wrong in ["-1.5", "[[]]", "{ a = 1 }", "1979-05-27"] {
                let text = format!("{GOOD}{table}\n{key} = {wrong}\n");
                let error = Scenario::parse(&text, "").unwrap_err();
                let words = error.problem.to_string();
                assert!(
                    words.starts_with(&format!("`{key}`: expected ")),
                    "{key} = {wrong}: {words}"
                );
                assert_eq!(error.line, lines_before + table.lines().count() + 1, "{words}");
                for serde in [
                    "invalid", "struct", "map", "sequence", "variant", "i128", "u8", "u16", "u32",
                    "u64", "wanted",
                ] {
                    assert!(
                        !words.split(' ').any(|word| word.trim_matches(',') == serde),
                        "{key} = {wrong}: {words}"
                    );
                }
            }
        }
    }
}

#[test]
fn an_error_prints_the_line_and_points_into_it() {
    let text = GOOD.replace("below = \"rp0\"", "below = \"rp7\"");
    let error = Scenario::parse(&text, "bad.toml").unwrap_err();
    insta::assert_snapshot!(error, @r#"
    bad.toml:12:9: expected the name of a port (one of rp0), found `rp7`
       12 | below = "rp7"
          |         ^
    "#);
}

#[test]
fn what_firmware_has_to_refuse_stays_expressible() {
    let window = |text: &str| {
        parse(&format!("{GOOD}{text}")).windows.pop().unwrap_or_else(|| panic!("no window"))
    };
    // Targets that are nobody: a UID as it stands, a name as a UID that nobody has.
    assert_eq!(window("[[window]]\ntargets = [99]\nsize = \"1GiB\"").targets, [99]);
    let nobody = window("[[window]]\ntargets = [\"hb7\", 0xffffffff]\nsize = \"1GiB\"").targets;
    assert_eq!(nobody, [0xffff_fffe, 0xffff_ffff]);
    // Too small, odd, on top of RAM, on top of another window.
    assert_eq!(window("[[window]]\ntargets = [16]\nsize = 12345").size, 12345);
    let low = window("[[window]]\ntargets = [16]\nsize = \"1GiB\"\nbase = \"0x10000000\"");
    assert_eq!(low.base, Some(Hpa(0x1000_0000)));
    // XOR without enough maps, or with wrong ones.
    let xor = "[[window]]\ntargets = [16, 17]\nsize = \"1GiB\"\narithmetic = \"xor\"";
    assert_eq!(window(xor).xor_maps, [0u64; 0]);
    assert_eq!(window(&format!("{xor}\nxor_maps = [\"0x200\"]")).xor_maps, [0x200]);
}

#[test]
fn what_may_have_been_meant_otherwise_is_remarked_with_its_place() {
    let lines = GOOD.lines().count();
    let remarks = |text: &str| parse(&format!("{GOOD}{text}")).remarks;
    let nobody = "[[window]]\ntargets = [\"hb7\"]\nsize = \"1GiB\"";
    assert_eq!(
        remarks(nobody),
        [format!(
            "test.toml:{}:12: `targets`: no host bridge is called hb7; there is hb0; the table has the \
             UID 4294967295 for it",
            lines + 2
        )]
    );
    let scenario = parse(&format!("{GOOD}{nobody}"));
    let told = "no host bridge is called hb7; there is hb0";
    assert_eq!(scenario.no_such_bridge(u32::MAX).as_deref(), Some(told));
    assert_eq!(scenario.no_such_bridge(16), None);
    // A UID is meant as it stands.
    assert_eq!(remarks("[[window]]\ntargets = [99]\nsize = \"1GiB\""), [""; 0]);
    let window = "[[window]]\ntargets = [16]\nsize = \"1GiB\"\nbase = ";
    let meant = "is decimal, 0x5f5e100; the hexadecimal one is 0x100000000";
    for written in ["\"100000000\"", "100000000", "\"1_0000_0000\""] {
        let digits = written.trim_matches('"');
        let remark = format!("test.toml:{}:8: `base`: {digits} {meant}", lines + 4);
        assert_eq!(remarks(&format!("{window}{written}")), [remark]);
    }
    // Where a window can be in decimal, and where none can be in hexadecimal either.
    for written in ["4294967296", "\"4294967297\"", "\"0x100000000\"", "\"4GiB\"", "0"] {
        assert_eq!(remarks(&format!("{window}{written}")), [""; 0], "{written}");
    }
    let region = remarks("[[region]]\ndevice = \"mem0\"\nwindow = \"100000000\"");
    assert_eq!(region, [format!("test.toml:{}:10: `window`: 100000000 {meant}", lines + 3)]);
    let text = format!("{GOOD}[platform]\nmemory_base = \"100000000\"");
    let error = Scenario::parse(&text, "").unwrap_err().to_string();
    assert!(error.contains(&format!("found 0x5f5e100 (100000000 {meant})")), "{error}");
}

#[test]
fn sizes_are_numbers_or_strings_with_a_unit() {
    for (written, bytes) in [
        ("4096", 4096),
        ("\"4096\"", 4096),
        ("\"0x1000\"", 4096),
        ("0x1000", 4096),
        ("\"4KiB\"", 4096),
        ("\"4 KiB\"", 4096),
        ("\"256B\"", 256),
        ("\"256 B\"", 256),
        ("\"0x100 B\"", 256),
        // B is a digit there.
        ("\"0x10B\"", 0x10B),
        ("\"0x10 MiB\"", 16 << 20),
        ("\"1_024MiB\"", 1 << 30),
        ("\"2TiB\"", 2 << 40),
        ("\"0xffff_ffff_ffff_ffff\"", u64::MAX),
    ] {
        let text = format!("{GOOD}[[window]]\ntargets = [16]\nsize = {written}");
        assert_eq!(parse(&text).windows.pop().map(|w| w.size), Some(bytes), "{written}");
    }
    for written in ["\"\"", "\"MiB\"", "\"+1\"", "\"1.5GiB\"", "\"16EiB\"", "\"0x\"", "true"] {
        let text = format!("{GOOD}[[window]]\ntargets = [16]\nsize = {written}");
        assert!(Scenario::parse(&text, "").is_err(), "{written}");
    }
}

#[test]
fn names_defaults_and_references_are_resolved() {
    let text = r#"
        [[bridge]]
        uid = 16
        [[port]]
        below = "hb0"
        [[port]]
        below = "hb0"
        number = 0
        [[device]]
        below = "port1"
        persistent = "256MiB"
        [[window]]
        targets = ["hb0"]
        size = "1GiB"
        [[region]]
        device = "mem0"
        window = "window0"
        [[region]]
        devices = ["mem0"]
        window = "0x100000000"
        [[fault]]
        at = "hb0"
        kind = "stuck-bit"
        register = "route_low"
        bits = "0xff"
        [[event]]
        at = 20
        action = "hot-remove"
        device = "mem0"
        [[event]]
        at = 10
        action = "reset"
        kind = "flr"
        device = "mem0"
    "#;
    let scenario = parse(text);
    // A port without a number takes the lowest that no other port names.
    assert_eq!(scenario.ports.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(
        scenario.ports.iter().map(|p| p.parent).collect::<Vec<_>>(),
        [Parent::Bridge(0), Parent::Bridge(0)]
    );
    assert_eq!(scenario.devices[0].port, 1);
    assert_eq!(scenario.regions[0].window, Some(WindowChoice::Named(0)));
    assert_eq!(scenario.regions[1].window, Some(WindowChoice::At(Hpa(0x1_0000_0000))));
    assert_eq!(scenario.faults[0].at, Place::Bridge(0));
    assert!(matches!(
        scenario.faults[0].kind,
        FaultKind::StuckBit { register: RegisterAt::Decoder { decoder: 0, .. }, bits: 0xff }
    ));
    // Events come in order of time.
    assert_eq!(
        scenario.events.iter().map(|event| event.action).collect::<Vec<_>>(),
        [Action::Reset { kind: ResetKind::Flr, device: Some(0) }, Action::HotRemove { device: 0 }]
    );
}

#[test]
fn windows_without_a_base_follow_each_other_above_ram() {
    let text = r#"
        platform = { physical_bits = 36, memory = "6GiB" }
        bridge = [{ uid = 16 }]
        window = [
            { targets = [16], size = "512MiB" },
            { targets = [16], size = "1GiB", base = "0x280000000" },
            { targets = [16, 17, 18], size = "1536MiB" },
            { targets = [16], size = "64GiB" },
            { targets = [16], size = "256MiB" },
        ]
    "#;
    // RAM ends at 4 GiB + 4 GiB. Window 2 is 3-way: a multiple of 768 MiB, clear of window 1.
    // Window 3 passes 2^36 and takes no room.
    assert_eq!(
        place_windows(&parse(text)),
        [Some(0x2_0000_0000), Some(0x2_8000_0000), Some(0x2_d000_0000), None, Some(0x3_3000_0000)]
            .map(|base| base.map(Hpa))
    );
    assert_eq!(
        place_windows(&built_in("four-bridges")),
        [0x800_0000_0000, 0x840_0000_0000, 0x880_0000_0000, 0x8c0_0000_0000].map(|b| Some(Hpa(b)))
    );
    assert_eq!(place_windows(&built_in("unplaced-window")), [None]);
}

#[test]
fn buses_are_numbered_depth_first() {
    let map = AddressMap::new(&built_in("switch-interleave"));
    // hb0: root bus 16, rp0 -> 17 (upstream port), 18 inside the switch, 19 and 20 below it.
    assert_eq!((map.bridges[0].first_bus, map.bridges[0].last_bus), (16, 20));
    assert_eq!((map.ports[0].bus, map.ports[0].secondary, map.ports[0].subordinate), (16, 17, 20));
    assert_eq!((map.switches[0].bus, map.switches[0].secondary), (17, 18));
    let below: Vec<_> = map.ports[2..4].iter().map(|p| (p.bus, p.slot, p.secondary)).collect();
    assert_eq!(below, [(18, 0, 19), (18, 1, 20)]);
    assert_eq!(map.bridges[0].registers, Span::new(Hpa(0xe010_0000), 0x1_0000).unwrap());
    assert_eq!(map.bridges[0].bars, Span::new(Hpa(0x8200_0000), 5 << 21).unwrap());
}

fn ranges(map: &AddressMap, scenario: &Scenario) -> Vec<Span> {
    let bridges = map.bridges.iter().flat_map(|bridge| [bridge.registers, bridge.bars]);
    let windows = map.windows.iter().zip(&scenario.windows);
    let windows = windows.filter_map(|(base, window)| Span::new((*base)?, window.size).ok());
    let ecam = map.ecam.iter().map(|&(_, span)| span);
    map.ram.iter().copied().chain(ecam).chain(bridges).chain(windows).collect()
}

#[test]
fn nothing_in_the_address_map_overlaps() {
    for builtin in builtins() {
        let scenario = built_in(builtin.name);
        let ranges = ranges(&AddressMap::new(&scenario), &scenario);
        for (index, range) in ranges.iter().enumerate() {
            for other in &ranges[..index] {
                assert!(!range.overlaps(*other), "{}: {range} and {other}", builtin.name);
            }
        }
    }
}

#[test]
fn adding_a_bridge_a_device_or_a_window_moves_nothing() {
    for builtin in builtins() {
        let before = built_in(builtin.name);
        let mut after = before.clone();
        let bridge = after.bridges.len();
        let twin = before.bridges[0].clone();
        after.bridges.push(Bridge { name: "new".into(), uid: 999, bus: 200, segment: 1, ..twin });
        for parent in [Parent::Bridge(bridge), Parent::Bridge(0)] {
            let port = after.ports.len();
            after.ports.push(Port { name: "new".into(), parent, hdm: false, number: 99 });
            let twin = before.devices[0].clone();
            after.devices.push(Device { name: "new".into(), port, ..twin });
        }
        // Windows that are sized are not there yet.
        let other = built_in("default").windows.remove(0);
        let twin = before.windows.first().cloned().unwrap_or(other);
        after.windows.push(Window { name: "new".into(), targets: vec![999], base: None, ..twin });
        let (before, after) = (AddressMap::new(&before), AddressMap::new(&after));
        assert_eq!(before.ram, after.ram);
        assert_eq!(before.ecam, after.ecam[..before.ecam.len()]);
        assert_eq!(before.windows, after.windows[..before.windows.len()]);
        assert_eq!(before.ports, after.ports[..before.ports.len()]);
        assert_eq!(before.switches, after.switches);
        for (before, after) in before.bridges.iter().zip(&after.bridges) {
            assert_eq!(before.registers, after.registers);
            assert_eq!(before.bars.base(), after.bars.base());
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(
        which in 0..builtins().len(),
        at in any::<prop::sample::Index>(),
        cut in 0usize..40,
        insert in "[ -~\n]{0,12}",
    ) {
        let text = builtins()[which].text;
        let from = at.index(text.len());
        let to = (from + cut).min(text.len());
        if let (Some(head), Some(tail)) = (text.get(..from), text.get(to..)) {
            let text = format!("{head}{insert}{tail}");
            match Scenario::parse(&text, "x") {
                Err(error) => {
                    prop_assert!(error.line >= 1 && error.line <= text.lines().count() + 1);
                    prop_assert!(error.column >= 1);
                }
                Ok(scenario) => {
                    AddressMap::new(&scenario);
                }
            }
        }
    }
}

#[test]
fn a_width_is_a_word_or_ways_and_granularity_for_all_windows_or_one() {
    use cxl_model::scenario::InterleavePolicy::{Exactly, Flat, Widest};
    use cxl_regs::{Granularity, Interleave, Ways};
    let text = |policy: &str, window: &str| {
        format!(
            "[policy]\n{policy}\n[[bridge]]\nname = \"hb0\"\nuid = 1\n[[window]]\n\
             targets = [\"hb0\"]\nsize = \"1GiB\"\n{window}\n"
        )
    };
    let twelve = Exactly(Interleave::new(Ways::Twelve, Granularity::K2));
    for (policy, window, want) in [
        ("", "", (Flat, None, false)),
        ("interleave = \"widest\"", "interleave = \"flat\"", (Widest, Some(Flat), false)),
        ("interleave = \"12-way at 2048B\"\nleftovers = true", "", (twelve, None, true)),
        ("interleave = \"12-way at 2048 B\"\nleftovers = true", "", (twelve, None, true)),
        ("interleave = \"12-way at 2KiB\"\nleftovers = true", "", (twelve, None, true)),
        ("interleave = \"12-way at 2 KiB\"\nleftovers = true", "", (twelve, None, true)),
        ("", "interleave = \"12-way at 2048\"", (Flat, Some(twelve), false)),
    ] {
        let scenario = parse(&text(policy, window));
        let found = scenario.policy;
        assert_eq!((found.interleave, scenario.windows[0].width, found.leftovers), want);
    }
    for bad in ["wide", "5-way at 256", "2-way at 300", "2-way", "-way at 256", "2-way at "] {
        let error = Scenario::parse(&text(&format!("interleave = \"{bad}\""), ""), "test.toml");
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("test.toml:2:14: "), "{error}");
        assert!(error.contains("such as \"4-way at 1KiB\""), "{error}");
    }
}
