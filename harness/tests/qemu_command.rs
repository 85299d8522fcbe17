//! Scenarios as QEMU command lines: what is printed, what is refused, and that a shell reads back
//! what was meant. QEMU itself is not needed.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod program;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process;

use serde_json::Value;

use cxl_attack::Stores;
use cxl_harness::qemu::command::{Command, quoted, shell};
use cxl_harness::qemu::locks;
use cxl_harness::qemu::offers::Offers;
use cxl_harness::run;
use cxl_model::machine::Machine;
use cxl_model::scenario::{Scenario, builtin};
use cxl_regs::mmio::Mmio;

fn text(scenario: &Scenario) -> String {
    match Command::of(scenario, None) {
        Ok(command) => shell(OsStr::new("qemu-system-x86_64"), &command.groups),
        Err(refusal) => {
            let list = refusal.0.iter().map(|unsupported| format!("  {unsupported}\n"));
            format!("QEMU cannot be this machine\n{}", list.collect::<String>())
        }
    }
}

/// One of each kind of machine, and of each kind of refusal.
#[test]
fn a_scenario_is_a_command_line_or_a_refusal_by_name() {
    let expressible = ["two-devices-one-bridge", "dpa-skip", "pass-through", "switch-interleave"];
    let refused = ["default", "four-bridges", "type2-db", "uids-not-buses", "dead-device"];
    let others = ["xor-four-way", "window-order", "unplaced-window", "cxl-1-1"];
    let mut all = String::new();
    for name in expressible.iter().chain(&refused).chain(&others) {
        let scenario = Scenario::built_in(name).unwrap();
        all += &format!("== {name}\n{}\n", text(&scenario));
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../snapshots/qemu");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("command-lines", all.trim_end()));
}

#[test]
fn one_device_is_typed_by_hand() {
    let scenario = Scenario::parse(
        r#"
bridge = [{ name = "hb0", uid = 12 }]
port = [{ name = "rp0", below = "hb0", number = 7 }]
device = [{ name = "mem0", below = "rp0", volatile = "256MiB", serial = 0x1234 }]
window = [{ targets = ["hb0"], size = "4GiB" }]
"#,
        "by-hand",
    )
    .unwrap();
    assert_eq!(
        text(&scenario),
        "\
qemu-system-x86_64 \\
    -M q35,cxl=on,cxl-fmw.0.targets.0=hb0,cxl-fmw.0.size=4096M \\
    -cpu max \\
    -m 1024M,slots=1,maxmem=1280M \\
    -device pxb-cxl,id=hb0,bus=pcie.0,bus_nr=12,hdm_for_passthrough=true \\
    -device cxl-rp,id=port0,bus=hb0,port=7,chassis=0,slot=1 \\
    -object memory-backend-ram,id=vmem0,size=256M,share=on \\
    -device cxl-type3,id=mem0,bus=port0,volatile-memdev=vmem0,sn=0x1234
"
    );
}

/// Each thing that QEMU has no words for, alone in a machine that is otherwise expressible.
#[test]
fn each_refusal_is_the_only_one() {
    let cases: [(&str, &str, &str); 25] = [
        ("uid = 16", "uid = 16, version = \"1.1\"", "hb0: a CXL 1.1 bridge"),
        ("uid = 16", "uid = 16, segment = 1", "hb0: PCI segment 1"),
        ("uid = 16", "uid = 16, bus = 32", "hb0: UID 16 with root bus 32"),
        ("uid = 16", "uid = 0", "hb0: UID 0 with root bus 0"),
        ("uid = 16", "uid = 16, decoders = 8", "hb0: 8 decoders"),
        ("uid = 16", "uid = 16, target_count = 4", "hb0: 4 targets a decoder"),
        ("uid = 16", "uid = 16, back_invalidate = true", "hb0: a path for back-invalidate"),
        ("uid = 16", "uid = 16, cache_id = true", "hb0: routing of CXL.cache"),
        ("below = \"hb0\"", "below = \"hb0\", hdm = true", "rp0: HDM decoders in a port"),
        ("volatile", "kind = \"type2\", volatile", "mem0: a Type-2 device"),
        (
            "volatile",
            "coherency = \"back-invalidate\", volatile",
            "mem0: a path for back-invalidate",
        ),
        ("volatile", "decoders = 1, volatile", "mem0: 1 decoder;"),
        ("volatile", "selects = \"11:8\", volatile", "mem0: selects on one group"),
        ("volatile", "ways_16 = false, volatile", "mem0: cannot do"),
        ("volatile = \"256MiB\"", "serial = 1", "mem0: no memory"),
        ("volatile", "present = false, volatile", "mem0: not plugged in"),
        ("size =", "base = \"8GiB\", size =", "w: a base (0x200000000)"),
        ("\"1GiB\"", "\"1000MiB\"", "w: 1000 MiB"),
        ("\"1GiB\"", "\"2TiB\"", "w: ends at"),
        ("size =", "restrictions = [\"host-only\"], size =", "w: restrictions"),
        ("size =", "qtg = 1, size =", "w: QTG 1"),
        ("[\"hb0\"]", "[\"hb0\", 99]", "w: target UID 99, which no bridge has"),
        ("bridge =", "platform = { assigned = false }\nbridge =", "platform.assigned: false"),
        (
            "bridge =",
            "fault = [{ at = \"mem0\", kind = \"commit-never\", decoder = 0 }]\nbridge =",
            "mem0: the fault commit-never",
        ),
        (
            "bridge =",
            "mode = [{ at = \"mem0\", register = \"Command\" }]\nbridge =",
            "mem0: a mode of the attack",
        ),
    ];
    const GOOD: &str = r#"
bridge = [{ name = "hb0", uid = 16 }]
port = [{ name = "rp0", below = "hb0" }]
device = [{ name = "mem0", below = "rp0", volatile = "256MiB" }]
window = [{ name = "w", targets = ["hb0"], size = "1GiB" }]
"#;
    let parse =
        |text: &str| Scenario::parse(text, "case").unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert!(Command::of(&parse(GOOD), None).is_ok());
    for (from, to, expected) in cases {
        let scenario = parse(&GOOD.replacen(from, to, 1));
        let refusal = Command::of(&scenario, None).expect_err(expected);
        let [only] = refusal.0.as_slice() else { panic!("{expected}: {refusal}") };
        assert!(only.to_string().starts_with(expected), "{expected}: {only}");
    }
}

#[test]
fn a_shell_reads_back_each_word() {
    let words = ["plain", "", "two words", "it's", "$HOME `id` \"x\" \\", "a;b&c|d>e", "-x,y=z"];
    for word in words {
        let script = format!("printf %s {}", quoted(OsStr::new(word)));
        let output = process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(output.stdout, word.as_bytes(), "{script}");
    }
    let groups = [vec![OsString::from("-a"), "b c".into()], vec!["-d".into()]];
    assert_eq!(shell(OsStr::new("q"), &groups), "q \\\n    -a 'b c' \\\n    -d\n");
}

#[test]
fn files_are_named_for_their_partition_and_commas_are_doubled() {
    let mut scenario = Scenario::built_in("one-device").unwrap();
    scenario.devices[0].persistent = 256 << 20;
    let command = Command::of(&scenario, Some(Path::new("/tmp/a,b"))).unwrap();
    let media: Vec<_> =
        command.media.iter().map(|m| (m.path.to_str().unwrap(), m.persistent, m.size)).collect();
    let expected =
        [("/tmp/a,b/vmem0.raw", false, 512 << 20), ("/tmp/a,b/pmem0.raw", true, 256 << 20)];
    assert_eq!(media, expected);
    let arguments = command.arguments();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    assert!(has("memory-backend-file,id=pmem0,size=256M,share=on,mem-path=/tmp/a,,b/pmem0.raw"));
    assert!(has("memory-backend-ram,id=lsa0,size=1M"), "persistent memory needs label storage");
}

/// What a QEMU says that has back-invalidate.
fn with_back_invalidate() -> Offers {
    let oldest = Offers::of_the_oldest();
    let restrictions = oldest.restrictions.with_back_invalidate(true);
    Offers { version: (11, 1), back_invalidate: true, restrictions, ..Offers::of_the_oldest() }
}

/// What a window admits cannot be chosen on QEMU: where that decides what is mapped, the scenario is
/// refused; where it does not, its machine is made, and the difference is a note.
#[test]
fn restrictions_are_refused_where_they_decide_and_noted_where_they_do_not() {
    let machine = |restrictions: &str| {
        let text = format!(
            "bridge = [{{ name = \"hb0\", uid = 16 }}]\n\
             port = [{{ name = \"rp0\", below = \"hb0\" }}]\n\
             device = [{{ name = \"mem0\", below = \"rp0\", volatile = \"256MiB\" }}]\n\
             window = [{{ name = \"w\", targets = [\"hb0\"], size = \"1GiB\",\n\
             restrictions = [{restrictions}] }}]"
        );
        Scenario::parse(&text, "case").unwrap()
    };
    let (oldest, newer) = (Offers::of_the_oldest(), with_back_invalidate());
    let notes = |offers: &Offers, restrictions: &str| {
        Command::on(offers, &machine(restrictions), None).map(|command| command.notes)
    };
    let all = r#""device-coherent", "host-only", "volatile", "persistent""#;
    assert_eq!(notes(&oldest, all), Ok(vec![]));
    let note = |what: &str| {
        Ok(vec![format!("w: QEMU's windows {what}; the plan here is the same with both")])
    };
    assert_eq!(notes(&newer, all), note("admit back-invalidate as well"));
    assert_eq!(
        notes(&oldest, r#""host-only", "volatile""#),
        note("admit device-coherent, persistent as well")
    );
    let more = format!("{all}, \"back-invalidate\"");
    assert_eq!(notes(&oldest, &more), note("do not admit back-invalidate"));
    assert_eq!(notes(&newer, &more), Ok(vec![]));
    // The library refuses volatile memory here; on QEMU it would map it.
    for offers in [oldest, newer] {
        let refusal = notes(&offers, r#""host-only", "persistent""#).unwrap_err();
        let [only] = refusal.0.as_slice() else { panic!("{refusal}") };
        let words = only.to_string();
        assert!(words.starts_with("w: restrictions that decide what is mapped"), "{words}");
        let otherwise = "and there the library would map what it refuses here: plan: ";
        assert!(words.contains(otherwise), "{words}");
    }
}

/// What the difference would be is said: here which window takes what.
#[test]
fn another_plan_is_told() {
    let scenario = Scenario::built_in("two-partitions").unwrap();
    let refusal = Command::of(&scenario, None).unwrap_err();
    let [only] = refusal.0.as_slice() else { panic!("{refusal}") };
    assert_eq!(only.at, "volatile, persistent");
    let words = only.to_string();
    assert!(words.contains("and there the library would refuse: plan: "), "{words}");
    // The same memory as HDM-DB here, and as HDM-H there.
    let text = r#"
bridge = [{ name = "hb0", uid = 16, back_invalidate = true }]
port = [{ name = "rp0", below = "hb0" }]
device = [{ name = "mem0", below = "rp0", volatile = "256MiB", coherency = "back-invalidate" }]
window = [{ name = "w", targets = ["hb0"], size = "1GiB",
            restrictions = ["device-coherent", "back-invalidate", "volatile"] }]
"#;
    let scenario = Scenario::parse(text, "case").unwrap();
    let refusal = Command::on(&with_back_invalidate(), &scenario, None).unwrap_err();
    let words = refusal.to_string();
    assert!(
        words.contains(
            "256 MiB of volatile memory would lie in w at 0x100000000, host-only coherent"
        ) && words.contains("; here in w at 0x100000000, device-coherent with back-invalidate"),
        "{words}"
    );
}

#[test]
fn back_invalidate_is_offered_where_the_program_has_it() {
    let text = |bridge: &str| {
        format!(
            "bridge = [{{ name = \"hb0\", uid = 16{bridge} }}]\n\
             port = [{{ name = \"rp0\", below = \"hb0\" }}, {{ name = \"dp0\", below = \"sw0\" }}]\n\
             switch = [{{ name = \"sw0\", below = \"rp0\" }}]\n\
             device = [{{ name = \"mem0\", below = \"dp0\", volatile = \"256MiB\",\n\
             coherency = \"back-invalidate\" }}]\n\
             window = [{{ targets = [\"hb0\"], size = \"1GiB\", restrictions = [\"host-only\",\n\
             \"device-coherent\", \"volatile\", \"persistent\", \"back-invalidate\"] }}]"
        )
    };
    let scenario = Scenario::parse(&text(", back_invalidate = true"), "case").unwrap();
    let command = Command::on(&with_back_invalidate(), &scenario, None).unwrap();
    let arguments = shell(OsStr::new("q"), &command.groups);
    assert!(arguments.contains("cxl-upstream,id=sw0,bus=port0,x-256b-flit=on \\\n"), "{arguments}");
    assert!(
        arguments.contains("volatile-memdev=vmem0,x-256b-flit=on,hdm-db=on,sn="),
        "{arguments}"
    );
    // All reasons at once.
    let refusal = Command::on(&Offers::of_the_oldest(), &scenario, None).unwrap_err();
    let at: Vec<_> = refusal.0.iter().map(|unsupported| unsupported.at.as_str()).collect();
    assert_eq!(at, ["hb0", "mem0"], "{refusal}");
    let scenario = Scenario::parse(&text(""), "case").unwrap();
    let refusal = Command::on(&with_back_invalidate(), &scenario, None).unwrap_err();
    assert!(refusal.to_string().contains("mem0: back-invalidate below a bridge"), "{refusal}");
}

/// A program that is not there: what is printed is for the oldest QEMU then, on whatever host.
const NO_QEMU: &str = "no-such-qemu";

/// Output, complaints and exit code of the program.
fn ran(arguments: &[&str]) -> (String, String, i32) {
    program::ran(program::command(&["qemu"]).args(arguments).env("QEMU", NO_QEMU))
}

#[test]
fn the_program_prints_what_a_shell_takes() {
    let (output, complaints, code) =
        ran(&["one-device", "--kernel", "my image", "--append", "it's one", "--initrd", "rd"]);
    assert_eq!((complaints.as_str(), code), ("", 0));
    assert!(output.starts_with("# QEMU stores Lock On Commit"), "{output}");
    assert!(output.ends_with(
        " \\\n    -kernel 'my image' \\\n    -append 'it'\\''s one' \\\n    -initrd rd\n"
    ));
    // A shell reads one command, and nothing of the notes.
    let output = output.replace(NO_QEMU, "show");
    let script = format!("show() {{ printf '%s\\n' \"$@\"; }}\n{output}");
    let read = process::Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8(read.stderr).unwrap(), "");
    let words: Vec<String> =
        String::from_utf8(read.stdout).unwrap().lines().map(str::to_owned).collect();
    let (json, _, code) = ran(&[
        "one-device",
        "--kernel",
        "my image",
        "--append",
        "it's one",
        "--initrd",
        "rd",
        "--json",
    ]);
    assert_eq!(code, 0);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["arguments"], Value::from(words));
    assert_eq!(json["result"], "ok");
}

#[test]
fn the_program_refuses_by_name_and_with_exit_code_1() {
    let (output, complaints, code) = ran(&["default"]);
    let expected = "error: QEMU cannot be this machine: acc0: a Type-2 device; QEMU has Type-3 \
                    devices only\n";
    assert_eq!((output.as_str(), complaints.as_str(), code), ("", expected, 1));
    let (json, _, code) = ran(&["type2-db", "--json"]);
    assert_eq!(code, 1);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["result"], "refused");
    assert_eq!(json["unsupported"][0]["at"], "hb0");
    assert_eq!(json["unsupported"].as_array().unwrap().len(), 4);
}

#[test]
fn bad_usage_is_exit_code_2() {
    let cases: [&[&str]; 5] = [
        &["no-such-scenario"],
        &["one-device", "--direct"],
        &["one-device", "--append", "x"],
        &["one-device", "--run", "--direct", "--timeout", "0"],
        &["one-device", "--run", "--direct", "--kernel", "x"],
    ];
    for arguments in cases {
        let (_, complaints, code) = ran(arguments);
        assert_eq!(code, 2, "{arguments:?}: {complaints}");
    }
}

#[test]
fn without_qemu_a_run_says_what_to_install() {
    let mut program = program::command(&["qemu", "one-device", "--run", "--direct"]);
    let (_, complaints, code) = program::ran(program.env("QEMU", "/nonexistent/qemu"));
    assert_eq!(code, 1);
    assert_eq!(
        complaints,
        "error: /nonexistent/qemu: no such program; install qemu-system-x86 10.0 or newer, or name \
         one with QEMU=PROGRAM\n"
    );
}

#[test]
fn without_qemu_a_run_says_it_in_json_too() {
    for direct in [&["--direct"][..], &[]] {
        let arguments = [&["one-device", "--run", "--json"], direct].concat();
        let (output, complaints, code) = ran(&arguments);
        assert_eq!((complaints.as_str(), code), ("", 1));
        let json: Value = serde_json::from_str(&output).unwrap();
        assert_eq!(json["result"], "refused");
        let refusal = json["refusal"].as_str().unwrap();
        assert!(refusal.starts_with("no-such-qemu: no such program"), "{refusal}");
    }
}

/// Without a scenario there is one that QEMU can be.
#[test]
fn without_a_scenario_it_is_one_that_qemu_can_be() {
    assert_eq!(ran(&[]), ran(&["two-way"]));
    assert_eq!(ran(&[]).2, 0);
}

/// The witness of locks, where what leaks is known: the models.
#[test]
fn the_attack_from_outside_sees_what_gives_way_and_nothing_else() {
    let attacked = |name: &str, values: bool| {
        let mut machine = Machine::new(&Scenario::built_in(name).unwrap());
        let done = run::direct(&mut machine);
        let tables = run::platform(&machine).unwrap();
        let tree = done.room.topology.tree();
        let mut clock = machine.clock();
        let ecam = tables.platform().ecam;
        let locks = locks::attacked(&mut Outside(&mut machine), &mut clock, ecam, tree, values);
        let changed = locks.changed().map(|(_, decoder, name, bits)| (decoder, name, bits));
        (locks.held(), locks.bits(), changed.collect::<Vec<_>>())
    };
    // A decoder each of bridge and device and the two of each that the attack burns, and what
    // CONFIG_LOCK freezes.
    let expected = 2 * 3 * 7 * 32 + 2 * 16 + 4 * 32;
    for values in [true, false] {
        assert_eq!(attacked("one-device", values), (true, (expected, 0), vec![]));
        let (held, _, leaks) = attacked("lock-not-enforced", values);
        assert!(!held);
        assert_eq!(leaks.len(), 7, "{leaks:x?}");
        assert!(leaks.contains(&(Some(0), "HDM Decoder Base Low", 0xF000_0000)), "{leaks:x?}");
    }
    // What single bits do not find is found by values and widths.
    let holds = |leak: &str, values: bool| {
        let text = builtin("one-device").unwrap().text;
        let text = format!("{text}\n[[leak]]\nat = 'mem0'\nregister = 'base_high'\n{leak}\n");
        let mut machine = Machine::new(&Scenario::parse(&text, "leak").unwrap());
        let done = run::direct(&mut machine);
        let tables = run::platform(&machine).unwrap();
        let mut clock = machine.clock();
        let tree = done.room.topology.tree();
        let hw = &mut Outside(&mut machine);
        locks::attacked(hw, &mut clock, tables.platform().ecam, tree, values).held()
    };
    for leak in ["width = 1", "width = 8", "value = 'all-ones'", "while = 'Bus Master'\nis = 'off'"]
    {
        assert_eq!([false, true].map(|values| holds(leak, values)), [true, false], "{leak}");
    }
}

/// A machine's stores of any width.
struct Outside<'a>(&'a mut Machine);

impl Mmio for Outside<'_> {
    fn read(&mut self, address: u64) -> u32 {
        self.0.read(address)
    }

    fn write(&mut self, address: u64, value: u32) {
        self.0.write(address, value);
    }
}

impl Stores for Outside<'_> {
    fn store(&mut self, address: u64, bytes: u8, value: u64) -> bool {
        self.0.write_bytes(address, &value.to_le_bytes()[..bytes.into()]);
        true
    }
}
