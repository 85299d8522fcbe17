//! `plan`, `boot`, `cedt`, `explain` and `scenarios`, run as people run them.
//!
//! **Invariant**: what is expected is typed by hand; files are in directories of their own.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

mod program;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cxl_firmware::error::Code;
use cxl_firmware::plan::Note;
use cxl_model::scenario::{builtin, builtins};
use cxl_regs::acpi::cedt::Text;
use program::{Folder, command};
use serde_json::{Value, json as value};

/// Output, complaints and exit code.
fn ran(arguments: &[&str]) -> (String, String, i32) {
    program::ran(&mut command(arguments))
}

/// The bytes that are printed.
fn bytes(arguments: &[&str]) -> Vec<u8> {
    command(arguments).output().unwrap().stdout
}

fn json(arguments: &[&str], code: i32) -> Value {
    let (output, complaints, found) = ran(arguments);
    assert_eq!(found, code, "{arguments:?}: {complaints}");
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
}

// ---- exit codes ----

#[test]
fn exit_0_is_good_1_refused_and_2_bad_input() {
    let cases: [(&[&str], i32); 24] = [
        (&["boot", "--direct"], 0),
        (&["boot", "--direct", "ambiguous"], 1),
        (&["boot", "--direct", "commit-error"], 1),
        (&["boot", "--direct", "--quiet", "no-window"], 1),
        (&["plan"], 0),
        (&["plan", "window-too-small"], 1),
        (&["cedt", "no-window"], 1),
        (&["conformance"], 0),
        (&["explain", "default", "0x100000000"], 0),
        (&["explain", "default", "0x1000"], 1),
        (&["explain", "default", "--device", "mem0", "--dpa", "0x40000000"], 1),
        (&["explain", "default", "--device", "mem9", "--dpa", "0"], 2),
        (&["explain", "default", "ten"], 2),
        (&["explain", "default"], 2),
        (&["explain", "0x100000000"], 0),
        (&["explain", "0x1000"], 1),
        (&["explain"], 2),
        (&["explain", "default", "+16"], 2),
        (&["scenarios", "nonsense"], 2),
        (&["boot", "--timeout", "0"], 2),
        (&["linux", "--timeout", "0"], 2),
        (&["boot", "--image", "x", "--until-port", "0x10000"], 2),
        (&["boot", "--image", "x", "--until-port", "+5"], 2),
        (&["boot", "--image", "x", "--until-port", "0xf4"], 2),
    ];
    for (arguments, code) in cases {
        let (_, complaints, found) = ran(arguments);
        assert_eq!(found, code, "{arguments:?}: {complaints}");
    }
}

#[test]
fn without_a_command_the_default_scenario_boots() {
    let (output, complaints, code) = ran(&[]);
    assert_eq!(code, 0);
    assert!(output.starts_with("scenario default: ok\n"), "{output}");
    match cxl_harness::kvm::available() {
        Ok(()) => assert_eq!(complaints, ""),
        // One line with the remedy, and the same report.
        Err(error) => {
            assert_eq!(complaints, format!("note: {error}; running directly on the models\n"));
        }
    }
    assert!(output.contains("\nattack: "), "{output}");
}

#[test]
fn every_help_teaches_with_examples_and_exit_codes() {
    for command in [
        "boot",
        "plan",
        "cedt",
        "conformance",
        "error",
        "explain",
        "scenarios",
        "decode",
        "dump",
        "attack",
        "image",
        "collect",
        "inspect",
        "lint",
        "qemu",
        "bench",
        "linux",
        "nested",
        "man",
        "completions",
    ] {
        let (help, _, code) = ran(&[command, "--help"]);
        assert_eq!(code, 0);
        assert!(help.contains("\nExamples:\n"), "{help}");
        assert!(help.contains("Exit code:\n  0 "), "{command}");
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{command}: {line}");
        }
    }
    let (help, ..) = ran(&["--help"]);
    assert!(help.contains("Where to start:\n"), "{help}");
}

#[test]
#[cfg(debug_assertions)]
fn a_debug_build_measures_nothing() {
    for arguments in [&["bench"][..], &["bench", "--peer", "qemu"]] {
        let (output, complaints, code) = ran(arguments);
        assert_eq!((output.as_str(), code), ("", 1));
        assert!(complaints.contains("a debug build measures itself"), "{complaints}");
    }
    assert_eq!(ran(&["bench", "--peer", "bochs"]).2, 2);
}

#[test]
fn image_writes_an_elf_file_with_a_pvh_note() {
    let directory = Folder::new();
    let path = directory.path("image.elf");
    let (output, complaints, code) = ran(&["image", path.to_str().unwrap()]);
    assert_eq!((output.as_str(), complaints.as_str(), code), ("", "", 0));
    let image = fs::read(path).unwrap();
    // ELF, 64-bit, little-endian; and a note of the name "Xen" and type 18.
    assert_eq!(image[..6], *b"\x7fELF\x02\x01");
    let note = b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0";
    assert!(image.windows(note.len()).any(|window| window == note));
    assert_eq!(bytes(&["image", "-"]), image);
    assert_eq!(ran(&["image", "/nonexistent/image.elf"]).2, 2);
}

// ---- scenario files ----

#[test]
fn what_is_no_scenario_is_one_complaint_with_its_place() {
    let directory = Folder::new();
    let folder = directory.path("folder");
    fs::create_dir(&folder).unwrap();
    let folder = folder.to_str().unwrap();
    let name = |file: &str| directory.name(file);
    let cases = [
        ("nonsense".to_owned(), "nonsense: no such file, and no built-in scenario of this name"),
        ("four-bridge".to_owned(), "did you mean four-bridges?"),
        (name("absent.toml"), "absent.toml: No such file or directory"),
        (folder.to_owned(), "folder: Is a directory"),
        (
            directory.file("binary.toml", b"a = 1\nb = \"\xFF\"\n"),
            "binary.toml:2:6: expected a TOML text (UTF-8), found the byte 0xff",
        ),
        (
            directory.file("huge.toml", vec![b' '; (16 << 20) + 1]),
            "huge.toml: expected a scenario of at most 16 MiB, found more",
        ),
        (directory.file("syntax.toml", b"\n[[bridge]\n"), "syntax.toml:2:"),
        (
            directory.file("key.toml", b"[[bridge]]\nuid = 1\ncolour = \"red\"\n"),
            "key.toml:3:1: expected one of the keys of `bridge` (`name`, `uid`",
        ),
        (
            directory.file("name.toml", b"[[bridge]]\nuid = 1\n[[port]]\nbelow = \"hb7\"\n"),
            "name.toml:4:9: expected",
        ),
    ];
    for (file, complaint) in cases {
        for command in ["boot", "plan", "cedt"] {
            let (output, complaints, code) = ran(&[command, &file]);
            assert_eq!((output.as_str(), code), ("", 2), "{command} {file}: {complaints}");
            assert!(complaints.starts_with("error: "), "{complaints}");
            assert!(complaints.contains(complaint), "{complaint}\n{complaints}");
        }
    }
}

#[test]
fn a_scenario_may_come_through_a_pipe() {
    let (output, ..) = program::fed(&mut command(&["plan", "-"]), &bytes(&["scenarios", "switch"]));
    let (named, ..) = ran(&["plan", "switch"]);
    assert_eq!(output.split_once(':').unwrap().1, named.split_once(':').unwrap().1);
}

#[test]
fn a_file_runs_as_the_built_in_it_was_copied_from() {
    let directory = Folder::new();
    let (text, _, code) = ran(&["scenarios", "switch"]);
    assert_eq!(code, 0);
    let file = directory.file("mine.toml", text.as_bytes());
    let mut mine = json(&["boot", "--direct", &file, "--json"], 0);
    let mut built_in = json(&["boot", "--direct", "switch", "--json"], 0);
    assert_eq!(mine["scenario"], file.as_str());
    for report in [&mut mine, &mut built_in] {
        report["scenario"] = Value::Null;
        report["measured"] = Value::Null;
    }
    assert_eq!(mine, built_in);
}

#[test]
fn a_machine_without_cxl_memory_is_not_ok() {
    let directory = Folder::new();
    let bridge =
        b"[[bridge]]\nname = \"hb0\"\nuid = 16\n[[port]]\nname = \"rp0\"\nbelow = \"hb0\"\n";
    for (name, text) in [("empty.toml", &b""[..]), ("bridge.toml", bridge)] {
        let file = directory.file(name, text);
        let report = json(&["boot", "--direct", &file, "--json"], 1);
        assert_eq!(report["decoders"], Value::Array(Vec::new()));
        let failures = report["failures"].to_string();
        assert!(failures.contains("no region was made"), "{failures}");
        for demand in ["locked", "sealed"] {
            json(&["boot", "--direct", &file, "--require", demand, "--json"], 1);
        }
    }
}

#[test]
fn an_event_that_a_direct_run_cannot_have_is_named() {
    let directory = Folder::new();
    let (mut text, ..) = ran(&["scenarios", "one-device"]);
    text.push_str("\n[[event]]\nat = 1000\naction = \"hot-remove\"\ndevice = \"mem0\"\n");
    let file = directory.file("event.toml", text.as_bytes());
    let (_, complaints, code) = ran(&["boot", "--direct", &file]);
    assert_eq!(code, 0);
    let said =
        "note: hot-remove of mem0 at count 1000 does not happen: it takes a guest to count\n";
    assert_eq!(complaints, said);
    // What was not done has met no demand, but what is demanded of the moment before it.
    let demanded = |demand| ran(&["boot", "--direct", &file, "--require", demand]);
    let (text, _, code) = demanded("sealed");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("\n  required          sealed: NOT KNOWN\n"), "{text}");
    assert_eq!(demanded("sealed@handoff").2, 0);
    let (junit, ..) = ran(&["boot", "--direct", &file, "--format", "junit"]);
    let skipped = "<skipped message=\"the scenario's events not done: it takes a guest\"/>";
    assert!(junit.replace("&apos;", "'").contains(skipped), "{junit}");
}

// ---- what is printed ----

#[test]
fn json_of_boot_has_the_documented_keys() {
    let report = json(&["boot", "--direct", "default", "--json"], 0);
    assert_eq!(report["result"], "ok");
    assert_eq!(report["refusal"], Value::Null);
    let decoders = report["decoders"].as_array().unwrap();
    assert_eq!(decoders.len(), 10);
    let one = |component: &str, index: u64| {
        let found = decoders
            .iter()
            .find(|decoder| decoder["component"] == component && decoder["index"] == index);
        found.unwrap_or_else(|| panic!("no {component} {index}"))
    };
    let mem1 = one("mem1", 1);
    assert_eq!(mem1["base"], "0x130000000");
    assert_eq!(mem1["size"], "0x10000000");
    assert_eq!((&mem1["ways"], &mem1["granularity"]), (&1.into(), &256.into()));
    assert_eq!((&mem1["targets"], &mem1["skip"]), (&Value::Null, &"0x0".into()));
    assert_eq!(mem1["dpa"]["base"], "0x10000000");
    assert_eq!((&mem1["committed"], &mem1["locked"]), (&true.into(), &true.into()));
    assert_eq!(mem1["fate"], "done");
    assert_eq!(one("hb0", 2)["targets"], Value::from(vec![1]));
    let mappings = report["mappings"].as_array().unwrap();
    let kinds: Vec<(&str, &str)> = mappings
        .iter()
        .map(|mapping| (mapping["hpa"].as_str().unwrap(), mapping["how"].as_str().unwrap()))
        .collect();
    assert_eq!(
        kinds,
        [
            ("0x100000000", "direct"),
            ("0x120000000", "direct"),
            ("0x130000000", "direct"),
            ("0x140000000", "trapped"),
            ("0x200000000", "direct"),
            ("0x220000000", "direct"),
            ("0x230000000", "trapped"),
        ]
    );
    assert_eq!(mappings[3]["reason"], "not-covered");
    assert_eq!(mappings[3]["size"], "0xc0000000");
    assert_eq!(report["cedt"]["windows"][0]["restrictions"]["fixed"], true);
    assert!(report["traffic"]["writes"].as_u64() > Some(0));
    assert!(report["measured"]["run_us"].is_u64());
}

#[test]
fn json_of_a_refusal_says_phase_code_and_message() {
    let report = json(&["boot", "--direct", "window-too-small", "--json"], 1);
    assert_eq!(report["result"], "refused");
    assert_eq!(report["refusal"]["phase"], "plan");
    assert_eq!(report["refusal"]["code"], "0x0308");
    let message = "bridge 16 port 0: window 0x100000000 has 256 MiB, 512 MiB are needed";
    assert_eq!(report["refusal"]["message"], message);
    let plan = json(&["plan", "window-too-small", "--json"], 1);
    assert_eq!(plan["refusal"], report["refusal"]);
}

#[test]
fn a_plan_says_why_each_region_lies_where_it_does() {
    let plan = json(&["plan", "two-partitions", "--json"], 0);
    let regions = plan["regions"].as_array().unwrap();
    assert_eq!(regions[0]["window"], "volatile");
    assert_eq!(regions[0]["reason"], "because persistent admits no volatile memory");
    assert_eq!(regions[1]["hpa"], "0x140000000");
    assert_eq!(regions[1]["members"][0]["dpa"], "0x20000000");
    let order: Vec<&str> = plan["decoders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|decoder| decoder["component"].as_str().unwrap())
        .collect();
    assert_eq!(order, ["mem0", "mem0", "hb0", "hb0"]);
}

#[test]
fn a_plan_is_what_boot_commits() {
    for name in ["default", "switch", "four-bridges", "type2"] {
        let plan = json(&["plan", name, "--json"], 0);
        let boot = json(&["boot", "--direct", name, "--json"], 0);
        let keys = ["component", "index", "base", "size", "ways", "granularity", "targets", "skip"];
        let facts = |report: &Value| {
            let decoders = report["decoders"].as_array().unwrap().iter();
            let facts = decoders.map(|decoder| keys.map(|key| decoder[key].to_string()));
            let mut facts: Vec<[String; 8]> = facts.collect();
            facts.sort();
            facts
        };
        assert_eq!(facts(&plan), facts(&boot), "{name}");
    }
}

#[test]
fn the_trace_counts_what_the_report_counts() {
    let report = json(&["boot", "--direct", "one-device", "--json", "--trace"], 0);
    let trace = report["trace"].as_array().unwrap();
    let count = |direction: &str| trace.iter().filter(|a| a["direction"] == direction).count();
    assert_eq!(Some(count("read") as u64), report["traffic"]["reads"].as_u64());
    assert_eq!(Some(count("write") as u64), report["traffic"]["writes"].as_u64());
    let commit = trace.iter().find(|access| access["value"] == "0x00001300").unwrap();
    assert_eq!(commit["component"], "mem0");
    assert_eq!(
        (&commit["decoder"], &commit["register"]),
        (&0.into(), &"HDM Decoder Control".into())
    );
    let meaning = "decoder 0 HDM Decoder Control: Lock On Commit, Commit, Target Range Type";
    assert_eq!(commit["meaning"], meaning);
}

/// The cells of the grid are all tries, no more and no less, and a lock that leaks is in them.
#[test]
fn an_attack_as_json_has_what_came_of_each_register() {
    for (name, code, leaks) in
        [("one-device", 0, false), ("two-way", 0, false), ("lock-not-enforced", 1, true)]
    {
        let attack = &json(&["attack", name, "--direct", "--json"], code)["attack"];
        let grid = &attack["grid"];
        assert_eq!(grid["left_out"], 0, "{name}");
        let columns = grid["columns"].as_array().unwrap();
        assert_eq!(columns[0], "never committed", "{name}: {columns:?}");
        let mut sums = [0; 3];
        let mut gave = false;
        for row in grid["rows"].as_array().unwrap() {
            let count = |key: &str| row[key].as_array().unwrap().len() as u64;
            let registers = count("components") * count("decoders").max(1);
            for (column, cell) in row["cells"].as_object().unwrap() {
                assert!(columns.iter().any(|known| known == column), "{name}: {column}");
                let counts: Vec<u64> =
                    cell.as_str().unwrap().split('/').map(|n| n.parse().unwrap()).collect();
                assert!(counts.iter().any(|count| *count > 0), "{name}: {row}");
                for (sum, count) in sums.iter_mut().zip(counts) {
                    *sum += count * registers;
                }
            }
            let locked = row["cells"]["committed, locked"].as_str();
            let base = row["register"] == "HDM Decoder Base High";
            gave |= base && locked.is_some_and(|cell| !cell.ends_with("/0"));
        }
        let [held, allowed, changed] = ["held", "allowed", "changed"].map(|key| &attack[key]);
        assert_eq!(value!(sums), value!([held, allowed, changed]), "{name}");
        assert_eq!(gave, leaks, "{name}");
    }
}

#[test]
fn svg_draws_every_device_and_every_boundary_of_the_map() {
    let directory = Folder::new();
    for name in ["default", "four-way", "no-window", "dpa-skip", "xor-four-way"] {
        let file = directory.name("map.svg");
        let (text, _, _) = ran(&["boot", "--direct", name, "--svg", &file]);
        let svg = fs::read_to_string(&file).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{name}");
        assert_eq!(svg.matches('<').count(), svg.matches('>').count(), "{name}");
        let report =
            json(&["boot", "--direct", name, "--json"], i32::from(!text.contains(": ok\n")));
        for component in report["topology"].as_array().unwrap() {
            if component["volatile"].is_string() {
                let device = component["component"].as_str().unwrap();
                assert!(svg.contains(&format!(">{device}<")), "{name}: {device}");
            }
        }
        for mapping in report["mappings"].as_array().unwrap() {
            let hpa = u64::from_str_radix(&mapping["hpa"].as_str().unwrap()[2..], 16).unwrap();
            assert!(svg.contains(&format!(">{hpa:#014x}<")), "{name}: {hpa:#x}");
            // From each range a band to each of its members.
            let members = mapping["members"].as_array().unwrap().len();
            assert!(svg.matches("<path ").count() >= members, "{name}");
        }
    }
    let refused = directory.name("refused.svg");
    let (_, _, code) = ran(&["boot", "--direct", "no-window", "--svg", &refused]);
    let svg = fs::read_to_string(&refused).unwrap();
    assert!(
        code == 1 && svg.contains(">Refused: bridge 16 port 0: no window targets bridge 16, "),
        "{svg}"
    );
}

/// Every option that names a file to write, with what makes its command do some work.
fn writers(directory: &Folder) -> Vec<(Vec<String>, String)> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let dump = directory.name("board");
    if !Path::new(&dump).exists() {
        ran(&["dump", "one-device", &dump]);
    }
    let [old, new] = ["mem0.bin", "hb0.bin"].map(|name| format!("{dump}/{name}"));
    let mut all = Vec::new();
    for (command, option) in [
        (words(&["boot", "--direct", "one-device"]), "--svg"),
        (words(&["boot", "--direct", "one-device"]), "--html"),
        (words(&["attack", "--direct", "one-device"]), "--html"),
        (words(&["lint", "one-device"]), "--html"),
        (words(&["decode", "--diff", &old, &new]), "--html"),
        (words(&["inspect", &dump]), "--html"),
        (words(&["cedt", "one-device"]), "--output"),
        (words(&["image"]), ""),
    ] {
        all.push((command, option.to_owned()));
    }
    all
}

#[test]
fn an_output_file_is_judged_before_any_work_and_is_whole_or_as_it_was() {
    let directory = Folder::new();
    for (command, option) in writers(&directory) {
        let with = |file: &str| {
            let mut words: Vec<&str> = command.iter().map(String::as_str).collect();
            words.extend([option.as_str(), file].into_iter().filter(|word| !word.is_empty()));
            ran(&words)
        };
        let place = format!("{command:?} {option}");
        // Nothing is printed, as nothing was done.
        for bad in ["no/such/folder/out", ".", "old/under-a-file"] {
            directory.file("old", "as it was");
            let bad = directory.name(bad);
            let (output, complaint, code) = with(&bad);
            assert_eq!((output.as_str(), code), ("", 2), "{place}: {complaint}");
            assert!(complaint.contains(&bad), "{place}: {complaint}");
        }
        // A good one takes the place of what was there, behind its links and with its mode.
        let old = directory.file("old", "as it was");
        fs::set_permissions(&old, fs::Permissions::from_mode(0o640)).unwrap();
        let link = directory.path("link");
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink("old", &link).unwrap();
        let (_, complaint, code) = with(link.to_str().unwrap());
        assert!(code < 2, "{place}: {complaint}");
        assert_ne!(fs::read(&old).unwrap(), b"as it was", "{place}");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "{place}");
        assert_eq!(fs::metadata(&old).unwrap().permissions().mode() & 0o777, 0o640, "{place}");
        let names = fs::read_dir(directory.path("")).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["board", "link", "old"], "{place}");
    }
}

#[test]
fn a_run_that_comes_to_nothing_leaves_output_files_as_they_were() {
    let directory = Folder::new();
    let old = directory.file("old", "as it was");
    let broken = directory.file("broken.toml", "bridge = [");
    let nothing = directory.file("nothing", "");
    for words in [
        vec!["boot", "--direct", &broken, "--svg", &old],
        vec!["boot", "--direct", &broken, "--html", &old],
        vec!["boot", "--direct", "--svg", &old, "--html", &old],
        vec!["boot", "--image", &nothing, "--html", &old],
        vec!["attack", "--direct", &broken, "--html", &old],
        vec!["lint", &broken, "--html", &old],
        vec!["decode", "--diff", &nothing, &nothing, "--html", &old],
        vec!["inspect", &nothing, "--html", &old],
        vec!["collect", "--root", &nothing, "--html", &old],
        vec!["cedt", &broken, "--output", &old],
    ] {
        let (_, complaint, code) = ran(&words);
        assert!(code != 0 && !complaint.is_empty(), "{words:?}");
        if code == 2 {
            assert_eq!(fs::read_to_string(&old).unwrap(), "as it was", "{words:?}");
        }
        fs::write(&old, "as it was").unwrap();
        let count = fs::read_dir(directory.path("")).unwrap().count();
        assert_eq!(count, 3, "{words:?} leaves files behind");
    }
}

#[test]
fn a_pipe_gets_no_colour() {
    for arguments in [&["boot", "--direct"][..], &["plan"], &["boot", "no-window"]] {
        let (output, complaints, _) = ran(arguments);
        assert!(!output.contains('\x1b') && !complaints.contains('\x1b'), "{arguments:?}");
    }
}

// ---- cedt ----

#[test]
fn the_cedt_is_the_same_in_a_file_in_a_pipe_and_as_text() {
    let directory = Folder::new();
    let file = directory.path("cedt.dat");
    let (output, _, code) = ran(&["cedt", "four-bridges", "-o", file.to_str().unwrap()]);
    assert_eq!((output.as_str(), code), ("", 0));
    let table = fs::read(file).unwrap();
    assert_eq!(bytes(&["cedt", "four-bridges"]), table);
    let (text, ..) = ran(&["cedt", "four-bridges", "--text"]);
    assert_eq!(text, Text(&table).to_string());
    let facts = json(&["cedt", "four-bridges", "--json"], 0);
    let bases: Vec<&str> =
        facts["windows"].as_array().unwrap().iter().map(|w| w["base"].as_str().unwrap()).collect();
    assert_eq!(bases, ["0x80000000000", "0x84000000000", "0x88000000000", "0x8c000000000"]);
}

#[test]
fn a_file_that_cannot_be_written_is_exit_2() {
    let (_, complaints, code) = ran(&["cedt", "-o", "/nonexistent/cedt.dat"]);
    assert_eq!(code, 2);
    assert!(complaints.starts_with("error: /nonexistent/cedt.dat: "), "{complaints}");
    // A table is small and binary: it may never leave a buffer that waits for a line's end.
    for arguments in [
        &["cedt"][..],
        &["cedt", "--text"],
        &["image", "-"],
        &["plan"],
        &["--version"],
        &["--help"],
        &["boot", "--help"],
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = command(arguments).stdout(full).output().unwrap();
        let complaints = String::from_utf8(output.stderr).unwrap();
        assert!(complaints.starts_with("error: standard output: "), "{arguments:?}: {complaints}");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

// ---- explain ----

#[test]
fn explain_walks_there_and_back() {
    let there = json(&["explain", "switch", "0x110000040", "--json"], 0);
    let path = &there["paths"][0];
    assert_eq!((&path["device"], &path["dpa"]), (&"mem1".into(), &"0x40".into()));
    let hops: Vec<&str> =
        path["hops"].as_array().unwrap().iter().map(|h| h["component"].as_str().unwrap()).collect();
    assert_eq!(hops, ["hb0", "sw0"]);
    let back = json(&["explain", "switch", "--device", "mem1", "--dpa", "0x40", "--json"], 0);
    assert_eq!(back["paths"], there["paths"]);
}

#[test]
fn explain_says_where_the_way_ends() {
    let (output, _, code) = ran(&["explain", "default", "0x180000000"]);
    assert_eq!(code, 1);
    assert_eq!(output, "HPA 0x180000000 leads to no memory: no decoder of hb0 has the range\n");
    let (output, complaints, code) = ran(&["explain", "no-window", "0x100000000"]);
    assert_eq!((output.is_empty(), code), (false, 1));
    assert!(complaints.starts_with("note: the firmware refused: plan: "), "{complaints}");
}

// ---- scenarios ----

#[test]
fn the_list_has_a_line_for_each_scenario() {
    let (output, _, code) = ran(&["scenarios"]);
    assert_eq!((output.lines().count(), code), (builtins().len(), 0));
    assert!(
        output.contains("\none-device              one bridge, one port, one expander\n"),
        "{output}"
    );
    let list = json(&["scenarios", "--json"], 0);
    assert_eq!(list["scenarios"][0]["name"], "default");
}

// ---- error ----

#[test]
fn a_number_of_the_library_is_told_and_what_is_none_is_refused() {
    let (text, _, code) = ran(&["error", "0x040F", "plan_window_full"]);
    assert_eq!(code, 0);
    assert!(
        text.starts_with(
            "0x040f  COMMIT_REFUSED  (commit, a failure)\n  says  <where>: the hardware refused the commit"
        ),
        "{text}"
    );
    assert!(text.contains("\n0x0309  PLAN_WINDOW_FULL  (plan, a failure)\n"), "{text}");
    let told = json(&["error", "--json", "0x0288"], 0);
    assert_eq!(
        (&told["numbers"][0]["name"], &told["numbers"][0]["failure"]),
        (&"DISCOVER_LEFT_OUT".into(), &false.into())
    );
    for (words, expected, part) in [
        ("0xffff", 1, "`cxl-harness error` lists them"),
        ("COMMIT_NOTHING", 2, "`cxl-harness error` lists them"),
        ("", 2, "'': expected a number"),
        ("0x", 2, "`cxl-harness error` lists them"),
        ("1039", 2, "0x1039"),
    ] {
        let (_, complaints, code) = ran(&["error", words]);
        assert_eq!(code, expected, "{words}: {complaints}");
        assert!(complaints.contains(part), "{complaints}");
    }
    let (list, _, _) = ran(&["error"]);
    assert_eq!(list.lines().count(), Code::ALL.len() + Note::CODES.len());
}

// ---- for systems that collect tests and findings ----

#[test]
fn junit_and_sarif_are_read_by_their_own_readers_and_fail_where_the_run_does() {
    let runs: [(&[&str], bool); 7] = [
        (&["boot", "--direct"], true),
        (&["boot", "--direct", "commit-error"], false),
        (&["boot", "--direct", "no-window"], false),
        (&["attack", "one-device", "--direct"], true),
        (&["attack", "lock-not-enforced", "--direct"], false),
        (&["lint", "default"], true),
        (&["lint", "pass-through"], false),
    ];
    for (words, good) in runs {
        let in_format = |format| {
            let (output, complaints, code) = ran(&[words, &["--format", format]].concat());
            assert_eq!(code == 0, good, "{words:?}: {complaints}");
            output
        };
        let junit = quick_junit::Report::deserialize_from_str(&in_format("junit")).unwrap();
        let [suite] = junit.test_suites.as_slice() else { panic!("{words:?}: {junit:?}") };
        let failed = |case: &&quick_junit::TestCase| {
            matches!(case.status, quick_junit::TestCaseStatus::NonSuccess { .. })
        };
        assert_eq!(suite.test_cases.iter().filter(failed).count(), suite.failures, "{words:?}");
        assert_eq!(suite.failures == 0, good, "{words:?}");
        assert_eq!((suite.tests, junit.tests), (suite.test_cases.len(), suite.tests));

        let sarif: serde_sarif::sarif::Sarif = serde_json::from_str(&in_format("sarif")).unwrap();
        let run = &sarif.runs[0];
        let rules = run.tool.driver.rules.as_deref().unwrap_or_default();
        let results = run.results.as_deref().unwrap_or_default();
        for result in results {
            let rule = &rules[usize::try_from(result.rule_index.unwrap()).unwrap()];
            assert_eq!(Some(&rule.id), result.rule_id.as_ref(), "{words:?}");
        }
        let errors = results
            .iter()
            .filter(|result| result.level == Some(serde_sarif::sarif::ResultLevel::Error))
            .count();
        assert_eq!(errors, suite.failures, "{words:?}");
    }
    let (junit, ..) = ran(&["boot", "--direct", "commit-error", "--format", "junit"]);
    assert!(
        junit.contains("<failure type=\"0x040f\" message=\"commit: bridge 16 port 0 device"),
        "{junit}"
    );
    for words in [["boot", "--json"], ["lint", "--json"]] {
        assert_eq!(ran(&[&words[..], &["default", "--format", "junit"]].concat()).2, 2);
    }
}

/// The SARIF of a command, and every result in it with the file and the line where it is.
fn sarif(words: &[&str], folder: &Path) -> (Value, Vec<(String, u64)>) {
    let mut command = command(&[words, &["--format", "sarif"]].concat());
    let (output, complaints, _) = program::ran(command.current_dir(folder));
    let log: Value = serde_json::from_str(&output)
        .unwrap_or_else(|error| panic!("{words:?}: {error}: {complaints}"));
    let places = log["runs"][0]["results"].as_array().unwrap().iter().map(|result| {
        let location = &result["locations"][0];
        assert!(location["logicalLocations"][0]["fullyQualifiedName"].is_string(), "{result}");
        let place = &location["physicalLocation"];
        let uri = place["artifactLocation"]["uri"].as_str();
        let line = place["region"]["startLine"].as_u64();
        (
            uri.unwrap_or_else(|| panic!("{words:?}: {result}")).to_owned(),
            line.unwrap_or_else(|| panic!("{words:?}: {result}")),
        )
    });
    let places = places.collect();
    (log, places)
}

#[test]
fn a_finding_of_sarif_is_in_a_file() {
    let folder = Folder::new();
    let text = builtin("commit-error").unwrap().text;
    let table = bytes(&["cedt", "four-bridges"]);
    folder.file("a machine+.toml", text);
    folder.file("cedt.dat", table);
    let here = folder.path("");
    let absolute = folder.name("a machine+.toml");
    let coded = format!("file://{}", absolute.replace(' ', "%20").replace('+', "%2B"));
    for (words, uri) in [
        (&["boot", "--direct", "a machine+.toml"][..], "a%20machine%2B.toml"),
        (&["boot", "--direct", "./a machine+.toml"], "a%20machine%2B.toml"),
        (&["boot", "--direct", &absolute], &coded),
        (&["attack", "--direct", "a machine+.toml"], "a%20machine%2B.toml"),
        (&["lint", "a machine+.toml"], "a%20machine%2B.toml"),
        (&["lint", "cedt.dat"], "cedt.dat"),
        // A built-in is where `cxl-harness scenarios NAME >NAME.toml` writes it.
        (&["boot", "--direct", "commit-error"], "commit-error.toml"),
        (&["lint", "default"], "default.toml"),
    ] {
        let (log, places) = sarif(words, &here);
        assert_eq!(log["version"], "2.1.0");
        assert!(log["$schema"].as_str().is_some_and(|at| at.contains("sarif-2.1.0")), "{log}");
        assert!(!places.is_empty(), "{words:?}: {log}");
        for (found, line) in places {
            assert_eq!((found.as_str(), line > 0), (uri, true), "{words:?}");
        }
    }
    // Several of them: a finding is where its component is, and that is known where it is named.
    let text = "bridge = [{ uid = 1 }]\nport = [{ below = \"hb0\" }]\n\n[[device]]\nname = \"card\"\n\
                below = \"port0\"\nvolatile = \"256MiB\"\n\n[[window]]\ntargets = [\"hb0\"]\nsize = \
                \"512MiB\"\n\n[[fault]]\nat = \"card\"\nkind = \"lock-not-enforced\"\n";
    folder.file("named.toml", text);
    let (log, places) = sarif(&["attack", "--direct", "named.toml"], &here);
    assert!(places.contains(&("named.toml".to_owned(), 5)), "{places:?} {log}");
}

#[test]
fn what_linux_gets_over_is_a_warning_and_no_note() {
    let level = |scenario: &str, rule: &str| {
        let (log, _) = sarif(&["lint", scenario], Path::new("."));
        let results = log["runs"][0]["results"].as_array().unwrap();
        let found = results.iter().find(|result| result["ruleId"] == rule);
        found.unwrap_or_else(|| panic!("{rule}: {log}"))["level"].as_str().unwrap().to_owned()
    };
    assert_eq!(level("cxl-1-1", "mixed-hosts"), "warning");
    assert_eq!(level("default", "locked"), "note");
    let (junit, ..) = ran(&["lint", "cxl-1-1", "--format", "junit"]);
    assert!(junit.contains("<system-out>degraded: CHBS of version 0 and "), "{junit}");
}

/// Test cases of a command's JUnit: class, name, and whether it failed.
fn cases(words: &[&str]) -> Vec<(String, String, bool)> {
    let (output, complaints, _) = ran(&[words, &["--format", "junit"]].concat());
    let report = quick_junit::Report::deserialize_from_str(&output)
        .unwrap_or_else(|error| panic!("{words:?}: {error}: {complaints}"));
    let all = report.test_suites.iter().flat_map(|suite| &suite.test_cases);
    let failed = |case: &quick_junit::TestCase| {
        matches!(case.status, quick_junit::TestCaseStatus::NonSuccess { .. })
    };
    all.map(|case| {
        let class = case.classname.as_ref().map(|class| class.as_str().to_owned());
        (class.unwrap_or_default(), case.name.as_str().to_owned(), failed(case))
    })
    .collect()
}

/// Nothing got through where a write only does not do what it has to: a bit of a spare decoder is stuck.
#[test]
fn what_does_not_happen_is_not_told_as_a_hole() {
    let folder = Folder::new();
    let stuck = "\n[[fault]]\nat = \"mem0\"\nkind = \"stuck-bit\"\nregister = \"base_high\"\n\
                 decoder = 3\nbits = 1\n";
    let text = format!("{}{stuck}", builtin("one-device").unwrap().text);
    let file = folder.file("stuck.toml", text);
    let hole = "changed what must not change";
    for format in ["junit", "sarif"] {
        let words = ["attack", "--direct", &file, "--format", format];
        let (told, complaints, code) = ran(&words);
        assert_eq!(code, 1, "{complaints}");
        assert!(told.contains("did not do what the rules have them do"), "{told}");
        assert!(!told.contains(hole) && !told.contains("got through"), "{told}");
    }
    let page = folder.name("page.html");
    let words = ["boot", "--on-models", "--payload", "attack", &file, "--html", &page];
    let (told, ..) = ran(&words);
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains(" 0 changed what they must not, "), "{told}");
    assert!(!told.contains("the attack changed"), "{told}");
    assert!(fs::read_to_string(&page).unwrap().contains("did not do what the rules have them do"));
    // A hole is one.
    for format in ["junit", "sarif"] {
        let (told, ..) = ran(&["attack", "--direct", "lock-not-enforced", "--format", format]);
        assert!(told.contains(hole), "{told}");
    }
}

#[test]
fn names_of_tests_are_unique_and_say_what_is_tested() {
    let folder = Folder::new();
    let table = folder.file("cedt.dat", bytes(&["cedt", "four-bridges"]));
    let board = folder.name("board");
    assert_eq!(ran(&["dump", "four-bridges", &board]).2, 0);
    let dumps: Vec<String> = fs::read_dir(folder.path("board"))
        .unwrap()
        .map(|file| file.unwrap().path().display().to_string())
        .filter(|file| file.ends_with(".bin"))
        .collect();
    assert!(dumps.len() > 1, "{dumps:?}");
    let dumps: Vec<&str> =
        std::iter::once("lint").chain(dumps.iter().map(String::as_str)).collect();
    let runs: [&[&str]; 9] = [
        &["lint", &table],
        &dumps,
        &["lint", "default"],
        &["lint", "pass-through"],
        &["lint", "window-too-small"],
        &["boot", "--direct", "lock-lost"],
        &["boot", "--direct", "stuck-bit"],
        &["attack", "--direct", "lock-not-enforced"],
        &["boot", "--direct", "hot-plug"],
    ];
    for words in runs {
        let cases = cases(words);
        let mut names: Vec<_> = cases.iter().map(|(class, name, _)| (class, name)).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), cases.len(), "{words:?}: {cases:?}");
        for (class, name, _) in &cases {
            // Addresses are what a run has found, and no name; nothing is told apart by counting.
            assert!(!name.contains("0x1") && !name.ends_with(" (2)"), "{words:?}: {class} {name}");
        }
    }
    let (junit, ..) = ran(&["lint", &table, "--format", "junit"]);
    assert!(junit.contains("name=\"host bridges: targets of windows"), "{junit}");
    assert!(junit.contains("message=\"without host bridges nobody looks at "), "{junit}");
    assert!(!junit.contains(" is missing"), "{junit}");
    // Firmware that stopped was no good run, and a verdict on what it left does not say so.
    let cases = cases(&["lint", "window-too-small"]);
    assert!(!cases.iter().any(|(_, name, _)| name.contains("good")), "{cases:?}");
}

#[test]
fn a_failure_is_one_failed_test() {
    for words in [&["boot", "--direct", "lock-lost"][..], &["lint", "pass-through"]] {
        let failed = cases(words).iter().filter(|(_, _, failed)| *failed).count();
        assert_eq!(failed, 1, "{words:?}");
    }
    // What a run comes to is not counted beside what it comes from.
    let cases = cases(&["attack", "--direct", "lock-not-enforced"]);
    let failed: Vec<_> = cases.iter().filter(|(_, _, failed)| *failed).collect();
    assert!(!failed.is_empty() && failed.iter().all(|(class, ..)| class != "run"), "{failed:?}");
}

// ---- for the system that it is installed on ----

#[test]
fn every_command_has_a_manual_page_and_its_words_in_each_shell() {
    let folder = Folder::new();
    let pages = folder.name("man1");
    assert_eq!(ran(&["man", "-o", &pages]).2, 0);
    let (help, ..) = ran(&["--help"]);
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let commands: Vec<&str> = list
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split_once(' ').map(|(name, _)| name))
        .filter(|name| !name.is_empty())
        .collect();
    assert!(commands.contains(&"lint") && commands.contains(&"man"), "{commands:?}");
    for name in &commands {
        let path = folder.path("man1").join(format!("cxl-harness-{name}.1"));
        let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            page.contains(".SH SYNOPSIS") && page.contains(".TH cxl-harness-"),
            "{name}: {page}"
        );
        let (printed, _, code) = ran(&["man", name]);
        assert_eq!((printed, code), (page, 0));
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (script, _, code) = ran(&["completions", shell]);
        assert_eq!(code, 0);
        for name in &commands {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
    // A word of one branch is reached: the script for bash is run by one.
    for (line, expected) in [
        ("boot --pay", &["--payload"][..]),
        ("lint --ki", &["--kind"]),
        ("boot --format ", &["text", "json", "junit", "sarif"]),
        ("help lin", &["lint", "linux"]),
        ("com", &["completions"]),
    ] {
        let script = "source <(\"$1\" completions bash)\nCOMP_WORDS=(cxl-harness $2)\n\
                      [[ $2 = *' ' ]] && COMP_WORDS+=('')\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n\
                      $(complete -p cxl-harness | sed 's/.*-F \\([^ ]*\\).*/\\1/') cxl-harness \
                      \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"\n\
                      printf '%s\\n' \"${COMPREPLY[@]}\"";
        let mut bash = std::process::Command::new("bash");
        bash.arg("--norc").arg("-c").arg(script).arg("bash").arg(program::path()).arg(line);
        let (replies, complaints, _) = program::ran(&mut bash);
        let replies: Vec<_> = replies.lines().collect();
        assert!(
            expected.iter().all(|word| replies.contains(word)),
            "{line}: {replies:?} {complaints}"
        );
    }
    assert_eq!(ran(&["man", "nonsense"]).2, 2);
    let file = folder.file("file", "");
    let (_, complaints, code) = ran(&["man", "-o", &file]);
    assert_eq!(code, 2);
    assert!(complaints.contains("file"), "{complaints}");
}

// ---- what files say ----

#[test]
fn what_a_file_says_cannot_drive_a_terminal() {
    let folder = Folder::new();
    let (_, rest) = builtin("default").unwrap().text.split_once("description = ").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    let text = format!("description = \"a\\u001b[2Jb\\u009bc\"\n{rest}");
    let path = folder.file("escape.toml", text);
    for command in ["plan", "lint"] {
        let (output, complaints, _) = ran(&[command, &path]);
        assert!(!output.contains(['\u{1b}', '\u{9b}']), "{command}: {output}");
        assert!(!complaints.contains(['\u{1b}', '\u{9b}']), "{command}: {complaints}");
        assert!(command != "plan" || output.contains("a\\u{1b}[2Jb\\u{9b}c"), "{output}");
    }
}

/// Through every output: what is shown is the letters, and what they would do is done by none.
#[test]
fn what_a_file_says_is_text_in_every_output() {
    let folder = Folder::new();
    let hostile = "e\\u001b[2J<i>&\\\"\\u202eo\\u2066p\\u009bq";
    let scenario = builtin("two-way").unwrap().text;
    let line = format!("description = \"{hostile}\"");
    let lines =
        scenario.lines().map(|old| if old.starts_with("description") { &line } else { old });
    let lines: Vec<&str> = lines.collect();
    let scenario = lines.join("\n").replace("\"mem0\"", &format!("\"{hostile}\""));
    let file = folder.file("hostile.toml", scenario);
    let obeyed = |c: char| {
        c.is_control() && c != '\n'
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let quiet = |what: &str, text: &str| {
        assert!(!text.contains(obeyed), "{what}: {:?}", &text[text.find(obeyed).unwrap()..]);
        // Wherever it is, it is no element.
        assert!(
            what.contains("json")
                || what.contains("sarif")
                || what.contains("text")
                || !text.contains("<i>"),
            "{what}"
        );
        assert!(text.contains("&lt;i&gt;&amp;") || text.contains("<i>&"), "{what}: {text}");
    };
    let (page, picture) = (folder.name("page.html"), folder.name("picture.svg"));
    let outputs: [(&str, &[&str]); 8] = [
        ("text", &["boot", "--direct", &file, "--html", &page, "--svg", &picture]),
        ("json", &["boot", "--direct", &file, "--json"]),
        ("junit", &["boot", "--direct", &file, "--format", "junit"]),
        ("sarif", &["boot", "--direct", &file, "--format", "sarif"]),
        ("plan text", &["plan", &file]),
        ("plan json", &["plan", &file, "--json"]),
        ("inspect text", &["inspect", &folder.name("board")]),
        ("inspect json", &["inspect", &folder.name("board"), "--json"]),
    ];
    let (_, complaints, code) = ran(&["dump", &file, &folder.name("board")]);
    assert_eq!(code, 0, "{complaints}");
    for (what, words) in outputs {
        let (output, complaints, code) = ran(words);
        assert_eq!(code, 0, "{what}: {complaints}");
        // A good run names no device where it counts checks.
        if !["junit", "sarif"].contains(&what) {
            quiet(what, &output);
        }
        assert!(!output.contains(obeyed) && !complaints.contains(obeyed), "{what}: {output}");
        if what.ends_with("json") || what == "sarif" {
            let read: Value = serde_json::from_str(&output).unwrap();
            let as_given = "e\u{1b}[2J<i>&\"\u{202e}o\u{2066}p\u{9b}q";
            let said = serde_json::to_string(&read).unwrap();
            let given = serde_json::to_string(as_given).unwrap();
            assert!(what == "sarif" || said.contains(given.trim_matches('"')), "{what}: {said}");
        }
    }
    let page = fs::read_to_string(page).unwrap();
    quiet("page", &page);
    // What the page's own arithmetic knows is read by its script, and has the name that is shown.
    let known = page.split_once("data-known=\"").unwrap().1.split_once('"').unwrap().0;
    let known = known
        .replace("&quot;", "\"")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&");
    let known: Value = serde_json::from_str(&known).unwrap();
    let name = known["ranges"][0]["members"][0]["device"].as_str().unwrap();
    assert_eq!(name, "e\\u{1b}[2J<i>&\"\\u{202e}o\\u{2066}p\\u{9b}q");
    quiet("picture", &fs::read_to_string(picture).unwrap());
    // What nobody gave is named in what systems collect.
    let set = folder.path("board/machine.toml");
    let text = fs::read_to_string(&set).unwrap();
    let kept = text.lines().filter(|line| !line.starts_with("config = "));
    fs::write(&set, kept.collect::<Vec<_>>().join("\n")).unwrap();
    for format in ["junit", "sarif"] {
        let (output, complaints, code) = ran(&["lint", &folder.name("board"), "--format", format]);
        assert_eq!(code, 0, "{output}{complaints}");
        quiet(format, &output);
    }
}

/// As of a boot: who wants memory and has none is told so, and by the exit code.
#[test]
fn a_plan_with_nothing_in_it_is_no_good_plan() {
    let folder = Folder::new();
    let bare = "bridge = [{ uid = 1 }]\nport = [{ below = \"hb0\" }]\nwindow = [{ targets = [\"hb0\"], size = \"1GiB\" }]\n";
    let says = "the machine has no CXL memory to map";
    let file = folder.file("bare.toml", bare);
    for command in [&["plan", file.as_str()][..], &["boot", "--direct", &file]] {
        let (output, complaints, code) = ran(command);
        assert_eq!(code, 1, "{command:?}: {output}{complaints}");
        assert!(output.contains(says), "{command:?}: {output}");
    }
    let plan = json(&["plan", &file, "--json"], 1);
    assert_eq!((&plan["result"], &plan["regions"]), (&value!("failed"), &value!([])), "{plan}");
    // Who leaves all to others asked for nothing.
    let others = folder.file("others.toml", format!("{bare}[policy]\npath = \"describe\"\n"));
    for command in [&["plan", others.as_str()][..], &["boot", "--direct", &others]] {
        let (output, complaints, code) = ran(command);
        assert_eq!(code, 0, "{command:?}: {output}{complaints}");
        assert!(!output.contains(says), "{command:?}: {output}");
    }
}

/// Three devices of which the window has room for two, and a policy that is content with these.
const ROOM_FOR_TWO: &str = r#"
policy = { on_failure = "best-effort" }
bridge = [{ uid = 16 }]
port = [{ below = "hb0" }, { below = "hb0" }, { below = "hb0" }]
device = [
    { below = "port0", volatile = "256MiB" },
    { below = "port1", volatile = "256MiB" },
    { below = "port2", volatile = "256MiB" },
]
window = [{ targets = ["hb0"], size = "512MiB" }]
"#;

/// What a boot would lose is left out of plan and table, and told as a boot tells it; what is left out by
/// request is no loss.
#[test]
fn plan_and_table_are_of_what_works_and_tell_what_does_not() {
    let folder = Folder::new();
    let wide = ROOM_FOR_TWO.replace("512MiB", "1GiB");
    let broken = format!("{wide}[[fault]]\nat = \"mem1\"\nkind = \"commit-error\"\ndecoder = 0\n");
    let left_out = format!("leave_out = [\"mem2\"]\n{ROOM_FOR_TWO}");
    let all = format!("leave_out = [\"hb0\"]\n{ROOM_FOR_TWO}");
    let twice = format!("leave_out = [\"mem2\"]\n{broken}");
    for (name, text, code, regions, lost) in [
        ("no-place.toml", ROOM_FOR_TWO, 1, 2, "bridge 16 port 2: window"),
        ("broken.toml", &broken, 1, 2, "Error Not Committed"),
        ("left-out.toml", &left_out, 0, 2, ""),
        ("all-left-out.toml", &all, 0, 0, ""),
        ("both.toml", &twice, 1, 1, "Error Not Committed"),
    ] {
        let file = folder.file(name, text);
        let boot = json(&["boot", "--direct", &file, "--json"], code);
        let plan = json(&["plan", &file, "--json"], code);
        assert_eq!(plan["regions"].as_array().unwrap().len(), regions, "{name}: {plan}");
        assert_eq!(plan["result"], boot["result"], "{name}");
        let told = boot["failures"].as_array().unwrap();
        assert_eq!(plan["lost"].as_array().unwrap_or(&Vec::new()), told, "{name}");
        assert_eq!(told.len(), code as usize, "{name}: {told:?}");
        let (text, complaints, found) = ran(&["plan", &file]);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!((found, complaints.as_str()), (code, ""), "{name}: {text}");
        assert_eq!(text.contains("WITHOUT WHAT IS LOST"), code == 1, "{name}: {text}");
        assert_eq!(text.matches("failure ").count(), told.len(), "{name}: {text}");
        assert!(text.contains(lost), "{name}: {text}");
        // The same of the table, which is there all the same.
        let table = folder.path("cedt.dat");
        let path = table.to_str().unwrap();
        let (_, complaints, found) = ran(&["cedt", &file, "-o", path]);
        assert_eq!(found, code, "{name}: {complaints}");
        assert_eq!(complaints.lines().count(), told.len(), "{name}: {complaints}");
        assert!(complaints.contains(lost), "{name}: {complaints}");
        assert_eq!(&fs::read(&table).unwrap()[..4], b"CEDT", "{name}");
        fs::remove_file(&table).unwrap();
    }
}

/// A device that is lost whole is one loss, whoever sees it.
#[test]
fn what_is_lost_is_told_once() {
    let folder = Folder::new();
    let text = builtin("two-devices-one-bridge").unwrap().text;
    let fault = "\n[[fault]]\nat = \"mem1\"\nkind = \"commit-error\"\ndecoder = 0\n";
    let policy = "\n[policy]\non_failure = \"best-effort\"\n";
    let text = match text.contains("[policy]") {
        true => text.replace("[policy]", "[policy]\non_failure = \"best-effort\""),
        false => format!("{text}{policy}"),
    };
    let file = folder.file("loses.toml", text + fault);
    let report = json(&["boot", "--direct", &file, "--json"], 1);
    let failures = report["failures"].as_array().unwrap().iter();
    let told: Vec<&str> =
        failures.map(|it| it.as_str().unwrap()).filter(|it| it.contains("lost")).collect();
    assert!(matches!(told[..], [only] if only.contains("lost: ")), "{told:#?}");
}

/// Names and descriptions with breaks, tabs and turned writing stay within their line.
#[test]
fn what_a_file_says_cannot_forge_a_line() {
    let folder = Folder::new();
    let (_, rest) = builtin("one-device").unwrap().text.split_once("description = ").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    let forged = r"x\n  locks  all sealed\t\u202eb";
    let window = rest.replacen("[[window]]", &format!("[[window]]\nname = \"{forged}\""), 1);
    assert_ne!(window, rest);
    let path = folder.file("forged.toml", format!("description = \"{forged}\"\n{window}"));
    for words in [&["plan", &path][..], &["boot", "--direct", &path], &["explain", &path, "0x1000"]]
    {
        let (output, ..) = ran(words);
        assert!(!output.contains(['\u{202e}', '\t']), "{words:?}: {output}");
        assert!(
            !output.lines().any(|line| line.starts_with("  locks  all")),
            "{words:?}: {output}"
        );
        assert!(words[0] == "explain" || output.contains("x\\n  locks"), "{words:?}: {output}");
    }
    let set = folder.file("set.toml", format!("images = \"{forged}\"\n[[bridge]]\nuid = 7\n"));
    let (output, ..) = ran(&["inspect", &set]);
    assert!(!output.lines().any(|line| line.starts_with("  locks  all")), "{output}");
    assert!(output.contains("x\\n  locks"), "{output}");
}

// ---- errors, in their reader's words ----

#[test]
fn what_a_scenario_says_of_a_window_is_told_by_the_window_s_name() {
    let folder = Folder::new();
    let machine = |window: &str| {
        format!(
            "bridge = [{{ uid = 1 }}]\nport = [{{ below = \"hb0\" }}]\ndevice = [{{ below = \"port0\", \
             volatile = \"256MiB\" }}]\nwindow = [{{ name = \"good\", targets = [\"hb0\"], size = \
             \"1GiB\" }}, {{ name = \"pool\", targets = [\"hb0\"], {window} }}]\n"
        )
    };
    for (window, words) in [
        ("size = \"100MiB\"", "window pool of the scenario, of 100 MiB: window size 0x6400000"),
        ("size = 0", "window pool of the scenario, of 0 B: "),
        (
            "size = \"1GiB\", base = \"0x110000001\"",
            "window pool of the scenario, of 1 GiB: window base",
        ),
        ("size = \"1GiB\", base = \"0xfffffffff0000000\"", "passes the end of the 64-bit space"),
    ] {
        let file = folder.file("machine.toml", machine(window));
        let (text, complaints, code) = ran(&["cedt", &file, "--text"]);
        assert_eq!((text.as_str(), code), ("", 1), "{window}");
        assert!(complaints.contains(words), "{window}: {complaints}");
        assert!(complaints.contains("window pool of the scenario"), "{window}: {complaints}");
    }
}

#[test]
fn an_address_without_its_0x_is_told_how_it_was_taken() {
    let (_, complaints, code) = ran(&["explain", "one-device", "100000000"]);
    assert_eq!(code, 1);
    assert_eq!(
        complaints,
        "note: 100000000 is decimal, 0x5f5e100; the hexadecimal one is 0x100000000\n"
    );
    let (_, complaints, code) = ran(&["explain", "one-device", "1f0000000"]);
    assert_eq!(code, 2);
    assert!(complaints.contains("hexadecimal ones begin with 0x: 0x1f0000000"), "{complaints}");
    // One digit is the same either way.
    let (_, complaints, _) = ran(&["explain", "one-device", "--device", "mem0", "--dpa", "9"]);
    assert_eq!(complaints, "");
}

#[test]
fn everything_that_is_missing_is_named_at_once() {
    let nowhere = Folder::new();
    let at = |name: &str| nowhere.name(name);
    for (words, code) in [(&["linux"][..], 1), (&["nested", "--", "linux", "--on", "ours"], 125)] {
        let mut command = command(words);
        command.env("QEMU", at("qemu")).env("LINUX_KERNEL", at("vmlinuz-9"));
        let (text, complaints, found) = program::ran(&mut command);
        assert_eq!((text.as_str(), found), ("", code), "{complaints}");
        for part in ["no such program; install qemu-system-x86", "LINUX_KERNEL="] {
            assert!(complaints.contains(part), "{complaints}");
        }
    }
}

/// QEMU's own words that contradict what is added, and what is no kernel, modules or initrd: said before
/// anything starts.
#[test]
fn words_and_files_for_linux_are_looked_into_before_a_machine_starts() {
    let folder = Folder::new();
    let text = folder.file("text", "no kernel\n");
    let nowhere = folder.name("nowhere");
    let empty = folder.name("");
    fn linux<'a>(words: &[&'a str]) -> Vec<&'a str> {
        [&["linux", "one-device"][..], words].concat()
    }
    fn run<'a>(words: &[&'a str]) -> Vec<&'a str> {
        [&["qemu", "one-device", "--run"][..], words].concat()
    }
    for (words, says) in [
        (vec!["linux", "--", "-M", "q35,cxl=on", "-kernel", "x"], "-kernel: our image boots there"),
        (linux(&["--", "--serial", "stdio"]), "--serial: the serial ports are read here"),
        (linux(&["--", "-m", "2G"]), "-m: the scenario's machine has it already"),
        (linux(&["--", "-accel", "kvm"]), "-accel tcg is added"),
        (vec!["linux", "--", "-machine", "q35,accel=kvm"], "-accel tcg is added"),
        (linux(&["--", "-device", "isa-debug-exit,iobase=0xf4"]), "isa-debug-exit"),
        (linux(&["--", "-fw_cfg", "name=opt/org.cxl-firmware/kernel,string=x"]), "the image's own"),
        (linux(&["--on", "ours", "--", "-smp", "2"]), "for --on qemu"),
        (
            vec!["linux", "--earlier", "one-device", "--", "-smp", "2"],
            "--earlier is for a scenario",
        ),
        (run(&["--", "-S"]), "-S: the machine would wait for ever"),
        (vec!["qemu", "--", "-M", "q35"], "with --run"),
        (linux(&["--kernel", &nowhere]), "nowhere: "),
        (linux(&["--kernel", &text]), "text: expected a kernel"),
        (linux(&["--modules", &empty]), "expected the folder of a kernel's modules"),
        (linux(&["--initrd", &text]), "text: expected an initrd"),
        (run(&["--kernel", &text]), "text: expected a kernel"),
    ] {
        let (printed, complaints, code) = ran(&words);
        assert_eq!((printed.as_str(), code), ("", 2), "{words:?}: {complaints}");
        assert!(complaints.contains(says), "{words:?}: {complaints}");
    }
    // What says nothing else than we do is no contradiction: it is QEMU that is missing next.
    let mut same = command(&linux(&["--", "-accel", "tcg", "-display", "none", "-nodefaults"]));
    let (_, complaints, code) = program::ran(same.env("QEMU", &nowhere));
    assert_eq!(code, 1, "{complaints}");
    assert!(complaints.contains("no such program"), "{complaints}");
}

/// What a refused run records has no regions; kept in place of a good record it would lose where they are.
#[test]
fn a_refused_run_leaves_an_earlier_record_as_it_is() {
    let directory = Folder::new();
    let good = builtin("one-device").unwrap().text;
    let fault = "\n[[fault]]\nat = \"mem0\"\nkind = \"commit-never\"\n";
    let broken = directory.file("broken.toml", format!("{good}{fault}"));
    let good = directory.file("good.toml", good);
    let record = directory.name("machine.record");
    json(&["boot", "--direct", &good, "--record", &record, "--json"], 0);
    let before = fs::read(&record).unwrap();
    let (report, complaints, code) = ran(&["boot", "--direct", &broken, "--record", &record]);
    assert_eq!(code, 1, "{report}");
    assert!(
        complaints.contains("machine.record: not written, as the firmware refused"),
        "{complaints}"
    );
    assert_eq!(fs::read(&record).unwrap(), before);
}

/// No result takes the place of what it was made of.
#[test]
fn a_result_is_not_written_over_a_file_that_is_read() {
    let directory = Folder::new();
    let text = builtin("one-device").unwrap().text;
    let scenario = directory.file("machine.toml", text);
    let (is, other) = (format!("--html={scenario}"), directory.name("./machine.toml"));
    for words in
        [&["--html", scenario.as_str()][..], &["--record", &scenario], &[&is], &["--svg", &other]]
    {
        let (_, complaints, code) = ran(&[&["boot", "--direct", &scenario][..], words].concat());
        assert_eq!(code, 2, "{words:?}: {complaints}");
        assert!(complaints.contains("names for something else, too"), "{words:?}: {complaints}");
        assert_eq!(fs::read(&scenario).unwrap(), text.as_bytes(), "{words:?}");
    }
}

/// Nor of anything in a folder that is read; what is new there takes the place of nothing.
#[test]
fn a_result_is_not_written_over_a_file_of_a_folder_that_is_read() {
    let directory = Folder::new();
    let board = directory.name("board");
    let (_, complaints, code) = ran(&["dump", "one-device", &board]);
    assert_eq!(code, 0, "{complaints}");
    let before = fs::read(directory.path("board/hb0.bin")).unwrap();
    let link = directory.path("link.html");
    std::os::unix::fs::symlink(directory.path("board/hb0.bin"), &link).unwrap();
    let inside = directory.name("board/hb0.bin");
    for (command, page) in [
        ("lint", inside.as_str()),
        ("inspect", &inside),
        ("lint", &directory.name("board/../board/hb0.bin")),
        ("lint", link.to_str().unwrap()),
    ] {
        let (_, complaints, code) = ran(&[command, &board, "--html", page]);
        assert_eq!(code, 2, "{page}: {complaints}");
        let says = "expected a file that the command does not read, found one in ";
        assert!(complaints.contains(says), "{page}: {complaints}");
        assert_eq!(fs::read(directory.path("board/hb0.bin")).unwrap(), before, "{page}");
    }
    // Beside it, and new in it.
    for page in [directory.name("page.html"), directory.name("board/page.html")] {
        let (_, complaints, code) = ran(&["lint", &board, "--html", &page]);
        assert_eq!(code, 0, "{page}: {complaints}");
        assert!(fs::exists(&page).unwrap());
    }
    // A second time beside it; what is in it is read by now.
    let (_, complaints, code) = ran(&["lint", &board, "--html", &directory.name("page.html")]);
    assert_eq!(code, 0, "{complaints}");
}

/// However its path is spelled, and whether it is there or not.
#[test]
fn a_file_takes_one_output_by_whatever_name() {
    let folder = Folder::new();
    let (there, here) = (folder.path("there"), folder.path("here"));
    fs::create_dir(&there).unwrap();
    std::os::unix::fs::symlink("there", &here).unwrap();
    std::os::unix::fs::symlink("out", there.join("link")).unwrap();
    let out = folder.name("there/out");
    for other in ["there/out", "there/./out", "here/out", "there/link", "here/../there/link"] {
        for one in ["--html", "--record"] {
            let words = ["boot", "--direct", "one-device", "--svg", &out, one, &folder.name(other)];
            let (_, complaints, code) = ran(&words);
            assert_eq!(code, 2, "{other}: {complaints}");
            let says = "expected a file for each output, found one for two";
            assert!(complaints.contains(says), "{other}: {complaints}");
            assert!(!fs::exists(&out).unwrap(), "{other}");
        }
    }
    // One that a shell has put standard output into.
    let report = fs::File::create(&out).unwrap();
    let mut told = command(&["boot", "--direct", "one-device", "--json", "--html", &out]);
    let complaints = told.stdout(report).output().unwrap();
    assert_eq!(complaints.status.code(), Some(2));
    assert_eq!(fs::read(&out).unwrap(), b"");
    // A bundle, and memory in files, take their places themselves.
    let bundle = folder.name("new.tar");
    let page = folder.name("here/../new.tar");
    let root = folder.name("there");
    let (_, complaints, code) = ran(&["collect", &bundle, "--root", &root, "--html", &page]);
    assert_eq!(code, 2, "{complaints}");
    assert!(complaints.contains("found one of "), "{complaints}");
    let media = folder.name("here/mem0.media");
    let (_, complaints, code) = ran(&["boot", "one-device", "--media", &root, "--html", &media]);
    assert_eq!(code, 2, "{complaints}");
    assert!(complaints.contains("in which memory is kept"), "{complaints}");
    assert!(!fs::exists(folder.path("there/mem0.media")).unwrap());
}

#[test]
fn standard_output_is_no_second_output() {
    let folder = Folder::new();
    let run = |words: &[&str]| {
        let output = command(words).current_dir(folder.path("")).output().unwrap();
        assert!(!fs::exists(folder.path("-")).unwrap(), "{words:?}");
        output
    };
    for words in [
        &["--html", "-"][..],
        &["--svg", "-"],
        &["boot", "--direct", "one-device", "--html", "-"],
        &["boot", "--direct", "one-device", "--svg", "-"],
        &["boot", "--direct", "one-device", "--record", "-"],
        &["boot", "one-device", "--media", "-"],
        &["attack", "--direct", "one-device", "--html", "-"],
        &["lint", "one-device", "--html", "-"],
        &["inspect", "board", "--html", "-"],
        &["decode", "--diff", "a", "b", "--html", "-"],
        &["collect", "new.tar", "--html", "-"],
        &["linux", "one-device", "--html", "-"],
        &["linux", "one-device", "--on", "ours", "--media", "-"],
        &["qemu", "one-device", "--files", "-"],
        &["man", "-o", "-"],
    ] {
        let output = run(words);
        let complaints = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {complaints}");
        assert!(complaints.contains("found standard output"), "{words:?}: {complaints}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
    // Where it is the only one.
    let table = run(&["cedt", "one-device", "-o", "-"]).stdout;
    assert_eq!(table.get(..4), Some(&b"CEDT"[..]));
    let archive = run(&["dump", "one-device", "-"]).stdout;
    assert!(archive.len().is_multiple_of(512) && archive.ends_with(&[0; 512]));
}

/// A scenario's events take a guest: who asked for none is told that they did not happen.
#[test]
fn events_that_no_guest_counts_for_are_named_as_not_done() {
    let report = json(&["boot", "hot-plug", "--direct", "--json"], 0);
    assert!(report["left_out"].to_string().contains("the scenario's events"), "{report}");
}

/// A machine that grew keeps what it had, by the record of the run before; and what cannot stay is told.
#[test]
fn a_record_of_one_run_is_where_memory_stays_in_the_next() {
    let directory = Folder::new();
    let grown = builtin("two-devices-one-bridge").unwrap().text;
    let late = |device: &str| {
        let line = format!("name = \"{device}\"\n");
        grown.replace(&line, &format!("{line}present = false\n"))
    };
    let small = directory.file("small.toml", late("mem0"));
    let other = directory.file("other.toml", late("mem1"));
    let grown = directory.file("grown.toml", grown);
    let record = directory.name("small.record");
    let places = |report: &Value| {
        let regions = report["regions"].as_array().unwrap().iter();
        regions.map(|r| (r["members"][0]["device"].clone(), r["hpa"].clone())).collect::<Vec<_>>()
    };
    let (mem0, mem1) = (Value::from("mem0"), Value::from("mem1"));
    let before = json(&["boot", "--direct", &small, "--record", &record, "--json"], 0);
    let before_places = places(&before);
    let [(device, at)] = before_places.as_slice() else { panic!("{before}") };
    assert_eq!((device, fs::read(&record).unwrap().get(..8)), (&mem1, Some(&b"CXLFWHO\0"[..])));
    // Without the record the newcomer on the lower port takes the place.
    let without = json(&["boot", "--direct", &grown, "--json"], 0);
    assert!(places(&without).contains(&(mem0.clone(), at.clone())), "{without}");
    for command in [&["boot", "--direct"][..], &["boot", "--on-models"], &["plan"]] {
        let words = [command, &[grown.as_str(), "--earlier", &record, "--json"]].concat();
        let with = json(&words, 0);
        if command[0] == "boot" {
            assert!(places(&with).contains(&(mem1.clone(), at.clone())), "{words:?}: {with}");
        }
        let place = with["regions"].as_array().unwrap().iter().find(|r| r["hpa"] == *at).unwrap();
        assert!(place["members"].to_string().contains("mem1"), "{words:?}: {place}");
    }
    // The device is gone: where its memory was is said, and the run is good.
    let (report, complaints, code) = ran(&["boot", "--direct", &other, "--earlier", &record]);
    assert_eq!(code, 0, "{complaints}");
    // As a terminal's width breaks it.
    let words = report.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("bridge 16 port 7: volatile memory was at"), "{report}");
    assert!(words.contains("before, and could not stay there"), "{report}");
    // What cannot be read, or written, is bad input, and the report is there all the same.
    let no_record = directory.file("no.record", b"CXLFWHO\0 and nothing");
    let missing = directory.name("no folder/record");
    for (words, says) in
        [(["--earlier", &no_record], "no.record"), (["--record", &missing], "no folder")]
    {
        let (_, complaints, code) = ran(&[&["boot", "--direct", &grown][..], &words].concat());
        assert_eq!(code, 2, "{words:?}: {complaints}");
        assert!(complaints.contains(says), "{words:?}: {complaints}");
    }
}
