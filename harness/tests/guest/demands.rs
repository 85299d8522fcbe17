//! What is demanded of locks, of images that keep it for a while: each leaves one thing unlocked,
//! unsealed or undone at one moment.

use cxl_harness::prove::{assert_sealed, prove};
use cxl_harness::report::Verdict;
use cxl_model::machine::Machine;
use cxl_model::scenario::{Place, Scenario};
use cxl_regs::dvsec::{DvsecId, Dvsecs};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::claim;
use crate::command::{
    BRIDGE, DEVICE, DEVICE_CONTROL, EXIT, Files, LOCKED, OPEN, json, program, store,
};
use crate::elf::{LOW, image};
use crate::program::command;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        claim("what_is_locked_and_sealed_and_stays_so_meets_every_demand", sealed),
        claim("lock_that_is_lost_after_the_hand_off_breaks_the_demand_at_its_moment", lost),
        claim("machine_that_is_locked_again_before_any_other_commit_meets_the_demand", again),
        claim("commit_under_way_counts_as_unlocked", under_way),
        claim("range_register_that_leads_elsewhere_is_not_sealed", range_elsewhere),
        claim("cold_reset_by_an_event_breaks_the_demand_at_its_moment", cold_reset),
        claim("attack_of_a_foreign_image_is_its_words_and_no_verdict", forged),
        claim("locked_decoder_that_changes_or_opens_without_a_reset_breaks_the_demand", gave_way),
        claim("locked_range_with_a_hole_or_beyond_its_memory_breaks_the_demand", holes),
        claim("attack_of_our_image_as_a_file_is_an_attack", our_own_as_a_file),
        claim("prove_is_the_whole_demand_in_one_call", proved),
        claim("payload_with_nothing_to_check_is_no_success", nothing_to_touch),
        claim("last_state_is_in_the_report_where_it_is_another", last_state),
        claim("component_that_stops_answering_after_the_hand_off_is_a_failure_of_any_run", silent),
        claim("run_that_was_cut_off_has_met_no_demand_of_what_comes_later", cut_off),
    ]
}

/// Configuration space of the port above the device, and of the device.
const PORT: u32 = 0xC100_0000;
const MEM: u32 = 0xC110_0000;
/// CONFIG_LOCK of the device.
const CONFIG_LOCK: u32 = DEVICE_CONTROL + 8;
/// Range 1 Base High and Low of the device.
const RANGE_1: u32 = DEVICE_CONTROL + 0x14;

/// Both decoders locked, range 1 where the decoder is, CONFIG_LOCK set.
fn sealing() -> Vec<u8> {
    let mut code = program(LOCKED, LOCKED);
    code.extend(store(RANGE_1, 0));
    code.extend(store(RANGE_1 + 4, 0x4000_0000));
    code.extend(store(CONFIG_LOCK, 1));
    code
}

/// Resets everything below the port: unmasks the bus reset, starts and ends it, and gives the device
/// its registers back.
fn bus_reset() -> Vec<u8> {
    let machine = Machine::new(&Scenario::parse(LOW, "low").unwrap());
    let config = machine.function(Place::Port(0)).unwrap().bytes();
    let dvsec = Dvsecs::new(cxl_regs::block::image(config)).find(DvsecId::PortExtensions);
    let control = PORT + u32::from(dvsec.unwrap().unwrap().offset) + 0x0C;
    let writes = [
        (control, 1),
        (PORT + 0x3C, 1 << 22),
        (PORT + 0x3C, 0),
        (MEM + 0x10, 0x8220_0004),
        (MEM + 0x14, 0),
        (MEM + 0x04, 2),
    ];
    writes.iter().flat_map(|&(address, value)| store(address, value)).collect()
}

/// RAM for what is said through the doorbell.
const MESSAGE: u32 = 0x0090_0000;

/// Says something through the doorbell.
fn say(words: &[u64]) -> Vec<u8> {
    let mut code = Vec::new();
    let all = words.iter().chain(std::iter::repeat(&0)).take(7);
    for (word, at) in all.zip((MESSAGE..).step_by(8)) {
        code.extend(store(at, *word as u32));
        code.extend(store(at + 4, (*word >> 32) as u32));
    }
    // mov eax, message; out 0xF8, eax
    code.push(0xB8);
    code.extend(MESSAGE.to_le_bytes());
    code.extend([0xE7, 0xF8]);
    code
}

/// A hand-off of nothing between two pieces of code.
fn handed_over(before: &[u8], after: &[u8]) -> Vec<u8> {
    [before, &say(&[2]), after].concat()
}

fn failures(report: &Value) -> String {
    report["failures"].to_string()
}

fn boot(files: &Files, code: &[u8], demand: &str, exit: i32) -> Value {
    json(files.boot(code, &["--require", demand]), exit)
}

fn sealed() {
    let files = Files::new();
    let code = handed_over(&sealing(), &EXIT);
    for demand in ["locked", "sealed", "locked@handoff", "sealed@handoff"] {
        let report = boot(&files, &code, demand, 0);
        assert_eq!(report["locks"]["sealed"], true);
        assert_eq!(report["required"]["met"], true);
        assert_eq!(report["final"], Value::Null);
    }
    // Each step of it left out is named.
    let open = handed_over(&program(LOCKED, LOCKED), &EXIT);
    boot(&files, &open, "locked", 0);
    let report = boot(&files, &open, "sealed", 1);
    assert!(failures(&report).contains("mem0: CONFIG_LOCK is 0"), "{}", failures(&report));
}

/// The library's own call says what the command does, and no more than is so.
fn proved() {
    let scenario = Scenario::parse(LOW, "low").unwrap();
    let sealed = image(&handed_over(&sealing(), &EXIT));
    assert_sealed(&sealed, &scenario);
    let demand = "sealed".parse().unwrap();
    let report = prove(&sealed, &scenario, demand).unwrap();
    assert_eq!(report.facts.result, Verdict::Ok);
    assert!(report.to_string().contains("attack"), "{report}");

    let open = image(&handed_over(&program(LOCKED, LOCKED), &EXIT));
    let report = prove(&open, &scenario, demand).unwrap();
    assert_ne!(report.facts.result, Verdict::Ok);
    assert!(prove(b"no image", &scenario, demand).is_err());
    let words = std::panic::catch_unwind(|| assert_sealed(&open, &scenario)).unwrap_err();
    let words = words.downcast::<String>().unwrap();
    assert!(words.contains("low: not sealed") && words.contains("CONFIG_LOCK is 0"), "{words}");
}

fn lost() {
    let files = Files::new();
    // What was locked is reset and committed again without a lock, or not at all.
    let device_again = program(OPEN, LOCKED);
    for (then, words) in [
        (
            device_again.as_slice(),
            "mem0 decoder 0 is committed and not locked (UnlockedOnPath), after",
        ),
        (&[][..], "mem0 decoder 0 lost its lock, after a write of 4 bytes at 0xc100003c (rp0, "),
    ] {
        let after = [bus_reset().as_slice(), then, &EXIT].concat();
        let code = handed_over(&sealing(), &after);
        boot(&files, &code, "sealed@handoff", 0);
        for demand in ["locked", "sealed"] {
            let report = boot(&files, &code, demand, 1);
            assert!(failures(&report).contains(words), "{}", failures(&report));
            assert_eq!(report["final"]["locks"]["locked"], false);
            assert_eq!(report["locks"]["sealed"], true, "at the hand-off");
        }
    }
}

fn again() {
    let files = Files::new();
    let after = [bus_reset(), sealing(), EXIT.to_vec()].concat();
    let report = boot(&files, &handed_over(&sealing(), &after), "sealed", 0);
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("no longer true: mem0 decoder 0 lost its lock, seen after a write"),
        "{notes}"
    );
    // Unlocked first: what came between is not undone by what came last.
    let between = [bus_reset(), program(OPEN, LOCKED), bus_reset(), sealing(), EXIT.to_vec()];
    let report = boot(&files, &handed_over(&sealing(), &between.concat()), "locked", 1);
    let words = "mem0 decoder 0 is committed and not locked";
    assert!(failures(&report).contains(words), "{}", failures(&report));
    assert_eq!(report["final"], Value::Null, "in the end all is as it was");
}

fn under_way() {
    let files = Files::new();
    let fault = "[[fault]]\nat = \"mem0\"\nkind = \"commit-never\"\ndecoder = 0\n";
    files.0.file("low.toml", format!("{LOW}{fault}"));
    for control in [OPEN, LOCKED] {
        let code = [program(control, LOCKED), EXIT.to_vec()].concat();
        for more in [&["--require", "locked"][..], &["--then", "attack", "--timeout", "300"]] {
            let report = json(files.boot(&code, more), 1);
            let words = "mem0 decoder 0: its commit is under way, no lock is in force";
            assert!(failures(&report).contains(words), "{}", failures(&report));
        }
    }
}

fn range_elsewhere() {
    let files = Files::new();
    for (base, sealed) in [
        // The decoder's own bytes; another place that is routed to the device; one that is not.
        (0x4000_0000, true),
        (0x3000_0000, true),
        (0x5000_0000, true),
        (0x9000_0000, true),
    ] {
        let mut code = program(LOCKED, LOCKED);
        code.extend(store(RANGE_1, 0));
        code.extend(store(RANGE_1 + 4, base));
        code.extend(store(CONFIG_LOCK, 1));
        code.extend(EXIT);
        boot(&files, &code, "sealed", i32::from(!sealed));
    }
    // A bridge without decoders routes its whole window: what lies behind the decoder's range too.
    let lone = LOW.replace("[[port]]\nname = \"rp1\"\nbelow = \"hb0\"\nnumber = 6\n", "");
    let lone = lone.replace("uid = 16\n", "uid = 16\ndecoders = 0\n");
    assert_ne!(lone, LOW);
    files.0.file("low.toml", lone);
    for (base, words) in [
        (0x4000_0000, None),
        (0x5000_0000, Some("mem0: range 1 leads 0x50000000 to DPA 0x0, which a decoder has at")),
    ] {
        // The bridge's registers are not there: the stores are dropped.
        let mut code = program(LOCKED, LOCKED);
        code.extend(store(RANGE_1, 0));
        code.extend(store(RANGE_1 + 4, base));
        code.extend(store(CONFIG_LOCK, 1));
        code.extend(EXIT);
        let report = boot(&files, &code, "sealed", i32::from(words.is_some()));
        if let Some(words) = words {
            assert!(failures(&report).contains(words), "{}", failures(&report));
        }
    }
}

fn cold_reset() {
    let files = Files::new();
    let event = "[[event]]\nat = 5\naction = \"reset\"\nkind = \"cold\"\n";
    files.0.file("low.toml", format!("{LOW}{event}"));
    let count = ["boot", &files.path("low.toml"), "--payload", "count", "--require"];
    let report = json(command(&[&count[..], &["locked"]].concat()), 1);
    let words = "mem0 decoder 0 lost its lock, after cold reset of the machine at count 5";
    assert!(failures(&report).contains(words), "{}", failures(&report));
    let report = json(command(&[&count[..], &["locked@handoff"]].concat()), 0);
    assert_eq!(report["final"]["locks"]["in_use"], 0);
}

fn forged() {
    let files = Files::new();
    // Enter, sweep and done of an attack, a check that passed, and an internal error announced.
    let messages: [&[u64]; 5] =
        [&[5, 1, 4, MEM.into()], &[5, 3, MEM.into(), 0], &[5, 7], &[4, 1, 1], &[1, 0x10_0000]];
    let mut code = program(LOCKED, LOCKED);
    code.extend(messages.iter().flat_map(|message| say(message)));
    code.extend(EXIT);
    let report = json(files.boot(&code, &[]), 0);
    assert_eq!(report["attack"], Value::Null);
    let guest = &report["measured"]["guest"];
    assert_eq!(guest["checks"]["passed"], 0);
    assert_eq!(guest["internal_errors"], serde_json::json!([]));
    let words = &guest["its_words"];
    assert_eq!((words["passed"].as_u64(), words["failed"].as_u64()), (Some(1), Some(0)));
    assert_eq!(words["attack_events"], 3, "{words}");
}

fn gave_way() {
    let files = Files::new();
    for (at, decoder, writes, words) in [
        ("hb0", BRIDGE, &[(8, 0x2000_0000)][..], "hb0 decoder 0 is locked, and changed"),
        ("hb0", BRIDGE, &[(0x14, 0x0605)], "hb0 decoder 0 is locked, and changed"),
        ("mem0", DEVICE, &[(0x10, 0), (0x10, LOCKED)], "mem0 decoder 0 gave way: it lost its lock"),
        ("mem0", DEVICE, &[(0, 0x5000_0000), (0, 0x4000_0000)], "is locked, and changed"),
    ] {
        let fault =
            format!("[[fault]]\nat = \"{at}\"\nkind = \"lock-not-enforced\"\ndecoder = 0\n");
        files.0.file("low.toml", format!("{LOW}{fault}"));
        let after = writes.iter().flat_map(|&(offset, value)| store(decoder + offset, value));
        let after: Vec<u8> = after.chain(EXIT).collect();
        let report = boot(&files, &handed_over(&sealing(), &after), "locked", 1);
        assert!(failures(&report).contains(words), "{at}: {}", failures(&report));
        boot(&files, &handed_over(&sealing(), &after), "sealed@handoff", 0);
        // Nobody has to ask for it.
        let report = json(files.boot(&handed_over(&sealing(), &after), &[]), 1);
        assert!(failures(&report).contains(words), "{at}: {}", failures(&report));
    }
}

/// It answers the firmware and the host at the hand-off, and is gone before the end.
fn silent() {
    let files = Files::new();
    let good = 600;
    let fault = format!("[[fault]]\nat = \"mem0\"\nkind = \"all-ones-after\"\nafter = {good}\n");
    files.0.file("low.toml", format!("{LOW}{fault}"));
    let idle = |times: usize| store(DEVICE + 0x20, 0).repeat(times);
    let words = "mem0 has stopped answering since the hand-off";
    let code = handed_over(&sealing(), &[idle(good), EXIT.to_vec()].concat());
    for (demand, met) in [("locked", false), ("sealed", false), ("sealed@handoff", true)] {
        let report = boot(&files, &code, demand, 1);
        assert!(failures(&report).contains(words), "{demand}: {}", failures(&report));
        assert_eq!(report["required"]["met"], met, "{demand}");
    }
    let report = json(files.boot(&code, &[]), 1);
    assert!(failures(&report).contains(words), "{}", failures(&report));
    // What an attack tried at it from then on has shown nothing.
    let code = handed_over(&sealing(), &EXIT);
    let more = ["--then", "attack", "--require", "sealed", "--timeout", "300"];
    let report = json(files.boot(&code, &more), 1);
    assert!(failures(&report).contains(words), "{}", failures(&report));
    let attack = "mem0 stopped answering while it was attacked";
    assert!(failures(&report).contains(attack), "{}", failures(&report));
    assert_eq!(report["attack"]["integrity"]["holds"], false);
    assert_eq!(report["attack"]["changed"], 0, "nothing is said of what nobody answers for");
    assert_eq!(report["required"]["met"], false);
    assert!(report["required"]["not_known"].is_string(), "{}", report["required"]);
}

fn cut_off() {
    let files = Files::new();
    // jmp $
    let for_ever = [0xEB, 0xFE];
    // cli; ud2, without a handler for it.
    let dies = [0xFA, 0x0F, 0x0B];
    let at_once = [sealing(), for_ever.to_vec()].concat();
    for (code, demand, met) in [
        (handed_over(&sealing(), &for_ever), "sealed", false),
        (handed_over(&sealing(), &for_ever), "locked", false),
        (handed_over(&sealing(), &dies), "sealed", false),
        (handed_over(&sealing(), &for_ever), "sealed@handoff", true),
        // It never came to its hand-off.
        (at_once, "sealed@handoff", false),
    ] {
        let more = ["--timeout", "1", "--require", demand];
        let report = json(files.boot(&code, &more), 1);
        assert_eq!(report["required"]["met"], met, "{demand}: {}", failures(&report));
        assert_eq!(report["required"]["not_known"].is_string(), !met, "{}", report["required"]);
        let printed = |format: &str| {
            let mut command = files.boot(&code, &more);
            let output = command.args(["--format", format]).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{format}");
            String::from_utf8(output.stdout).unwrap()
        };
        if met {
            continue;
        }
        let text = printed("text");
        assert!(text.contains(&format!("required          {demand}: NOT KNOWN")), "{text}");
        for format in ["junit", "sarif"] {
            let text = printed(format);
            assert!(
                text.contains(&format!("{demand} was asked for, and is not known: ")),
                "{text}"
            );
        }
    }
    // What the tests are called does not hang on where it was.
    let names = |code: &[u8]| {
        let mut command = files.boot(code, &["--timeout", "1", "--format", "junit"]);
        let junit = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let cases = junit.lines().filter(|line| line.contains("<testcase "));
        cases.map(|line| line.replace("/>", ">")).collect::<Vec<_>>()
    };
    let elsewhere = [&[0x90; 3][..], &for_ever, &[0xCC, 0xAB, 0xDE]].concat();
    let known = names(&handed_over(&sealing(), &for_ever));
    assert_eq!(names(&handed_over(&sealing(), &elsewhere)), known);
    assert!(known.iter().any(|case| case.contains("did not end by itself in time\"")), "{known:?}");
    // What is not so by then is not met, whatever would have come.
    let open = handed_over(&program(LOCKED, LOCKED), &for_ever);
    let report = json(files.boot(&open, &["--timeout", "1", "--require", "sealed"]), 1);
    assert!(report["required"].get("not_known").is_none(), "{}", report["required"]);
    // Events that never came are no moments at which anything was seen to hold.
    let event = "[[event]]\nat = 5\naction = \"reset\"\nkind = \"cold\"\n";
    files.0.file("low.toml", format!("{LOW}{event}"));
    let report = boot(&files, &handed_over(&sealing(), &EXIT), "sealed", 1);
    let why = report["required"]["not_known"].to_string();
    assert!(why.contains("the scenario's events"), "{why}");
}

/// A further decoder, locked.
fn lock(registers: u32, base: u32, size: u32, target: u32) -> Vec<u8> {
    let writes = [(0, base), (4, 0), (8, size), (12, 0), (20, target), (24, 0), (16, LOCKED)];
    writes.iter().flat_map(|&(offset, value)| store(registers + offset, value)).collect()
}

fn holes() {
    let files = Files::new();
    let large = LOW.replace("\"256MiB\"", "\"1GiB\"").replace("\"512MiB\"", "\"1GiB\"");
    let hole = [
        lock(DEVICE + 0x20, 0x5000_0000, 0x3000_0000, 0),
        lock(BRIDGE + 0x20, 0x5000_0000, 0x1000_0000, 5),
        lock(BRIDGE + 0x40, 0x7000_0000, 0x1000_0000, 5),
    ];
    // A device of 256 MiB has none left for a second decoder.
    let beyond = [
        lock(DEVICE + 0x20, 0x5000_0000, 0x1000_0000, 0),
        lock(BRIDGE + 0x20, 0x5000_0000, 0x1000_0000, 5),
        Vec::new(),
    ];
    for (scenario, decoders, at) in
        [(large.as_str(), &hole, "0x60000000"), (LOW, &beyond, "0x50000000")]
    {
        files.0.file("low.toml", scenario);
        let after = [decoders.concat(), EXIT.to_vec()].concat();
        for demand in ["locked", "sealed"] {
            let report = boot(&files, &handed_over(&sealing(), &after), demand, 1);
            let words = format!("mem0 decoder 1 is locked and does not lead to memory at {at}");
            assert!(failures(&report).contains(&words), "{}", failures(&report));
        }
    }
}

fn our_own_as_a_file() {
    let files = Files::new();
    let image = files.0.file("own.elf", crate::IMAGE);
    let boot = |scenario: &str| {
        command(&["boot", scenario, "--image", &image, "--append", "payload=attack"])
    };
    for (scenario, exit) in [("one-device", 0), ("lock-not-enforced", 1)] {
        let report = json(boot(scenario), exit);
        assert!(report["attack"]["tried"].as_u64() > Some(1000), "{scenario}");
    }
    let mut sealed = boot("one-device");
    sealed.args(["--require", "sealed"]);
    json(sealed, 0);
}

fn nothing_to_touch() {
    let files = Files::new();
    let report = json(files.boot(&EXIT, &["--then", "touch"]), 1);
    assert!(failures(&report).contains("touch had nothing to check"), "{}", failures(&report));
    let code = [sealing(), EXIT.to_vec()].concat();
    json(files.boot(&code, &["--then", "touch"]), 0);
    // Where there is nothing, no window is full of it.
    for report in [
        json(files.boot(&EXIT, &["--then", "half"]), 1),
        json(command(&["boot", "path2", "--payload", "half"]), 1),
    ] {
        assert!(failures(&report).contains("half had nothing to check"), "{}", failures(&report));
        assert!(!failures(&report).contains("full"), "{}", failures(&report));
    }
}

fn last_state() {
    let files = Files::new();
    let report = json(command(&["boot", "path2", "--payload", "program"]), 0);
    assert_eq!(report["final"]["decoders"].as_array().unwrap().len(), 1);
    assert_eq!(report["final"]["slots"][0]["size"], "0x20000000");
    let output = files.boot(&[program(LOCKED, LOCKED), EXIT.to_vec()].concat(), &[]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(!text.contains("not as it was handed over"), "{text}");
}
