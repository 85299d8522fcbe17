//! The command line on images that end, die, hang or are cut short: the exit code, and what the
//! report says.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cxl_harness::guest::boot::Options;
use cxl_harness::kvm::{self, AfterTripleFault, kind};
use cxl_harness::report::Report;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::elf::{BASE, LOW, image};
use crate::program::{Folder, command};
use crate::{claim, unless};

pub(crate) fn trials() -> Vec<Trial> {
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    vec![
        claim("ends_of_a_foreign_image_are_ends", ends),
        claim("kind_of_kvm_is_what_the_processor_shows", kind_of_kvm),
        claim("what_is_no_linux_is_said_before_anything_starts", no_linux),
        claim("dead_or_hanging_image_is_reported_with_place_and_last_access", deaths),
        claim("unlocked_decoder_of_a_foreign_image_is_exit_1_where_locks_are_required", required),
        claim("a_signal_ends_a_hanging_image_with_the_report_and_its_number", ctrl_c),
        claim("ctrl_c_ends_an_attack_with_what_it_found_and_130", ctrl_c_in_attack),
        claim("attack_that_is_cut_off_shows_nothing_to_hold", attack_out_of_time),
        claim("image_of_ours_cut_short_before_the_hand_off_is_reported", cut_short),
        claim("unknown_word_is_exit_2_with_a_suggestion_before_anything_starts", unknown_words),
        claim(
            "console_of_a_foreign_image_is_in_the_report_without_its_controls",
            console_of_theirs,
        ),
        claim("payload_that_needs_another_policy_is_told_which", payloads_of_policies),
        claim("report_is_not_lost_with_its_picture", lost_picture),
        claim("file_without_an_end_is_no_image", endless_image),
        claim("refusal_by_the_host_is_exit_1_and_no_guest", refused_by_host),
        claim("what_is_given_up_is_told_with_its_error_whoever_runs_the_firmware", losses),
        claim("what_the_image_was_told_to_leave_out_is_no_loss", left_out),
        claim("events_of_a_scenario_are_reported_and_the_guest_counts_on", events),
        claim("event_that_should_have_been_refused_is_a_failure", surprising_event),
        claim("internal_errors_that_were_announced_are_passed_checks", announced),
        claim("what_exceeds_the_budget_traps_with_that_reason", budget),
        unless(
            (!root).then_some("needs root, to be nobody"),
            claim("without_permission_one_line_says_so_and_the_models_run", no_permission),
        ),
    ]
}

// Where the registers of [`LOW`] lie: decoder 0 of either, and what switches the device on.
pub(crate) const BRIDGE: u32 = 0xE010_1138;
pub(crate) const DEVICE: u32 = 0x8220_1138;
const DEVICE_GLOBAL: u32 = 0x8220_112C;
pub(crate) const DEVICE_CONTROL: u32 = 0xC110_011C;

pub(crate) struct Files(pub(crate) Folder);

impl Files {
    pub(crate) fn new() -> Self {
        let files = Self(Folder::new());
        files.0.file("low.toml", LOW);
        files
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.name(name)
    }

    /// `boot` of an image of this code.
    pub(crate) fn boot(&self, code: &[u8], more: &[&str]) -> Command {
        // Tests run beside each other: a file each.
        let file = self.0.file(&format!("{}.elf", code.len()), image(code));
        let mut command = command(&["boot", &self.path("low.toml"), "--image", &file]);
        command.args(more);
        command
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code_of(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

pub(crate) fn json(mut command: Command, code: i32) -> Value {
    let output = command.arg("--json").output().unwrap();
    assert_eq!(code_of(&output), code, "{}{}", text(&output.stderr), text(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// mov dword [address], value
pub(crate) fn store(address: u32, value: u32) -> Vec<u8> {
    let mut code = vec![0xC7, 0x05];
    code.extend(address.to_le_bytes());
    code.extend(value.to_le_bytes());
    code
}

/// Both decoders of the path at the window's start, with these control registers.
pub(crate) fn program(device: u32, bridge: u32) -> Vec<u8> {
    let mut code = Vec::new();
    for (at, route, control) in [(DEVICE, 0, device), (BRIDGE, 5, bridge)] {
        for (offset, value) in [
            (0, 0x4000_0000),
            (4, 0),
            (8, 0x1000_0000),
            (12, 0),
            (20, route),
            (24, 0),
            (16, control),
        ] {
            code.extend(store(at + offset, value));
        }
    }
    code.extend(store(DEVICE_GLOBAL, 2));
    code.extend(store(DEVICE_CONTROL, 4));
    code
}

/// Commit, and host-only coherency; with Lock On Commit or not.
pub(crate) const OPEN: u32 = 0x1200;
pub(crate) const LOCKED: u32 = 0x1300;
/// mov al, 0; out 0xF4, al
pub(crate) const EXIT: [u8; 4] = [0xB0, 0x00, 0xE6, 0xF4];
const LOOP: [u8; 2] = [0xEB, 0xFE];

fn ends() {
    let files = Files::new();
    let cases: [(&[u8], &[&str], &str, i32); 5] = [
        (&EXIT, &[], "it wrote 0x00 to the exit port", 0),
        (&[0xF4], &[], "it halted", 0),
        // mov al, 1; out 0x80, al; ud2
        (&[0xB0, 1, 0xE6, 0x80, 0x0F, 0x0B], &["--until-port", "0x80"], "it wrote to port 0x80", 0),
        // What says that it refused or panicked is believed.
        (&[0xB0, 0x11, 0xE6, 0xF4, 0x90], &[], "it wrote 0x11 to the exit port", 1),
        (&[0xB0, 0x12, 0xE6, 0xF4, 0x90, 0x90], &[], "it wrote 0x12 to the exit port", 1),
    ];
    for (code, more, end, exit) in cases {
        let report = json(files.boot(code, more), exit);
        assert_eq!(report["measured"]["guest"]["end"], end);
        assert_eq!(report["foreign"], true);
    }
    // Programmed by somebody else it is mirrored all the same.
    let report = json(files.boot(&[program(OPEN, OPEN), EXIT.to_vec()].concat(), &[]), 0);
    assert_eq!(report["measured"]["guest"]["slots"][0]["hpa"], "0x40000000");
    assert_eq!(report["mappings"][0]["how"], "direct");
    assert_eq!(report["decoders"].as_array().unwrap().len(), 2);
}

/// What the host's processor shows is another witness of how code at CPL 0 is executed.
fn kind_of_kvm() {
    let files = Files::new();
    let report = json(files.boot(&EXIT, &[]), 0);
    let seen = &report["measured"]["guest"]["kvm"];
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap();
    let flags = flags.lines().find(|line| line.starts_with("flags")).unwrap();
    let shown = ["vmx", "svm"].into_iter().find(|name| flags.split(' ').any(|flag| flag == *name));
    assert_eq!(seen["extension"], Value::from(shown));
    assert_eq!(seen["ring0"], if shown.is_some() { "native" } else { "emulated" });
    assert_eq!(seen["after_triple_fault"], if shown == Some("svm") { "reset" } else { "kept" });
    assert!(seen["exit_ns"].as_u64().unwrap() > 100, "{seen}");
    assert!((1..=60).contains(&seen["slowness"].as_u64().unwrap()), "{seen}");
}

fn no_linux() {
    let folder = Folder::new();
    let file = folder.file("kernel", vec![0x5A; 100_000]);
    let boot = |words: &[&str]| {
        let arguments = [&["boot", "one-device"][..], words].concat();
        crate::program::ran(&mut command(&arguments))
    };
    let (output, complaints, code) = boot(&["--linux", &file]);
    assert_eq!(output, "");
    if kvm::emulates_ring_0() {
        assert_eq!(code, 1);
        assert!(complaints.contains("run this inside `cxl-harness nested"), "{complaints}");
    } else {
        assert_eq!(code, 2);
        assert!(complaints.contains("expected a bzImage"), "{complaints}");
        let (_, complaints, code) = boot(&["--linux", "/nonexistent"]);
        assert_eq!(code, 2);
        assert!(complaints.contains("/nonexistent: No such file"), "{complaints}");
    }
    for words in [&["--initrd", &file][..], &["--linux", &file, "--payload", "touch"]] {
        assert_eq!(boot(words).2, 2, "{words:?}");
    }
}

fn deaths() {
    let files = Files::new();
    // mov eax, [an HDM register]; jmp back
    let mut poll = vec![0xA1];
    poll.extend(BRIDGE.to_le_bytes());
    poll.extend([0xEB, 0xF9]);
    // lidt of an empty table, ud2
    let mut triple = vec![0x0F, 0x01, 0x1D];
    triple.extend((BASE + 9).to_le_bytes());
    triple.extend([0x0F, 0x0B, 0, 0, 0, 0, 0, 0]);
    // mov eax, 0xF0000000; jmp eax
    let wild = [0xB8, 0, 0, 0, 0xF0, 0xFF, 0xE0];
    // Where a triple fault was, some kinds of KVM do not keep.
    let triple_fault: &[&str] = match kind().unwrap().after_triple_fault {
        AfterTripleFault::Kept => &["triple fault, rip 0x100007, ring 0, instruction 0f 0b"],
        AfterTripleFault::Reset => &[
            "triple fault, upon which this KVM resets the processor",
            "the last that was seen of it was at rip 0x100000, instruction 0f 01",
        ],
    };
    let cases: [(&[u8], &[&str]); 5] = [
        (
            &poll,
            &[
                "the guest did not end by itself within 3s (--timeout): its time was up at rip 0x10000",
                "instruction ",
                "read of 4 bytes at 0xe0101138 (hb0, HDM Decoder Base Low)",
            ],
        ),
        (&LOOP, &["rip 0x100000, instruction eb fe", "no access ever left the guest"]),
        (&triple, triple_fault),
        (&[0x90, 0x0F, 0x0B], &["exception 6, rip 0x100001, ring 0, instruction 0f 0b"]),
        (
            &wild,
            &["KVM internal error, suberror 1", "rip 0xf0000000", "no instruction can be read"],
        ),
    ];
    for (code, words) in cases {
        let report = json(files.boot(code, &["--timeout", "3"]), 1);
        let failures = report["failures"].to_string();
        for word in words {
            assert!(failures.contains(word), "{word}: {failures}");
        }
        assert_eq!(report["result"], "failed");
    }
}

fn required() {
    let files = Files::new();
    for (device, bridge, names, mixed) in [
        (LOCKED, LOCKED, &[][..], 0),
        (LOCKED, OPEN, &["hb0 decoder 0"], 1),
        (OPEN, LOCKED, &["mem0 decoder 0"], 1),
        (OPEN, OPEN, &["hb0 decoder 0", "mem0 decoder 0"], 0),
    ] {
        let code = [program(device, bridge), EXIT.to_vec()].concat();
        // Half a path that is locked is nobody's policy; without any lock nobody asked for one.
        let report = json(files.boot(&code, &[]), mixed);
        let failures = report["failures"].as_array().unwrap();
        assert_eq!(failures.len(), mixed as usize, "{failures:?}");
        assert!(failures.iter().all(|f| f.as_str().unwrap().starts_with("half a path is locked")));
        let exit = i32::from(!names.is_empty());
        for word in ["locked", "locked@handoff"] {
            let report = json(files.boot(&code, &["--require", word]), exit);
            let failures = report["failures"].to_string();
            for name in names {
                let open = format!("{name} is committed and not locked (UnlockedOnPath)");
                assert!(failures.contains(&open), "{failures}");
            }
            assert_eq!(report["required"]["met"], names.is_empty(), "{failures}");
        }
        // Nobody has set CONFIG_LOCK.
        let report = json(files.boot(&code, &["--require", "sealed"]), 1);
        assert!(names.is_empty() != report["locks"]["not_sealed"].as_array().unwrap().is_empty());
        assert_eq!(report["locks"]["locked"], names.is_empty());
        assert_eq!(report["locks"]["sealed"], false);
    }
    let report = json(files.boot(&EXIT, &["--require", "locked"]), 1);
    assert_eq!(report["failures"][0], "no range is locked on a whole path");
    // Ours afterwards: the attack holds; what is open counts all the same.
    let code = [program(LOCKED, OPEN), EXIT.to_vec()].concat();
    for more in [&[][..], &["--require", "locked"][..]] {
        let more = [&["--then", "attack", "--timeout", "300"], more].concat();
        let report = json(files.boot(&code, &more), 1);
        assert!(report["attack"]["tried"].as_u64().unwrap() > 1000);
        assert_eq!(report["attack"]["changed"], 0);
        let failures = report["failures"].to_string();
        assert!(failures.contains("the attack had nothing to hold"), "{failures}");
        assert!(failures.contains("hb0 decoder 0 is committed and not locked"), "{failures}");
        assert!(failures.contains("our image, run afterwards, refused: "), "{failures}");
    }
}

/// Waits until the program has a handler for Ctrl-C, then presses it.
fn interrupt(command: Command, after: Duration) -> Output {
    signalled(command, after, "-INT")
}

fn signalled(mut command: Command, after: Duration, signal: &str) -> Output {
    let child: Child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (status, deadline) = (format!("/proc/{}/status", child.id()), Instant::now());
    loop {
        let text = fs::read_to_string(&status).unwrap();
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        // SIGINT is signal 2, the second bit.
        if u64::from_str_radix(caught.trim(), 16).unwrap() & 2 != 0 {
            break;
        }
        assert!(deadline.elapsed() < Duration::from_secs(120), "it never listens");
        sleep(Duration::from_millis(20));
    }
    sleep(after);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    child.wait_with_output().unwrap()
}

fn ctrl_c() {
    let files = Files::new();
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let command =
            files.boot(&[program(LOCKED, LOCKED), LOOP.to_vec()].concat(), &["--timeout", "600"]);
        let output = signalled(command, Duration::from_secs(1), signal);
        assert_eq!(code_of(&output), code);
        let report = text(&output.stdout);
        assert!(report.contains("interrupted: this is the report so far"), "{report}");
        assert!(report.contains("mem0 decoder 0    0x0000000040000000  256 MiB"), "{report}");
    }
}

fn ctrl_c_in_attack() {
    let words = ["boot", "default", "--payload", "attack", "--timeout", "600", "--json"];
    // A busy host may not have come to the attack after a second.
    let interrupted = |seconds| {
        let output = interrupt(command(&words), Duration::from_secs(seconds));
        assert_eq!(code_of(&output), 130);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["measured"]["guest"]["end"], "interrupted");
        report
    };
    let began =
        |report: &Value| report["failures"].to_string().contains("the attack did not end: ");
    let report = [1, 4, 16].into_iter().map(interrupted).find(began).expect("an attack that began");
    let failures = report["failures"].to_string();
    assert_eq!(report["failures"].as_array().unwrap().len(), 2, "{failures}");
    assert_eq!(report["attack"]["integrity"]["holds"], false);
}

/// A limit that ends an attack leaves nothing shown, and is named.
fn attack_out_of_time() {
    let words = ["boot", "four-bridges", "--payload", "attack", "--timeout", "2"];
    let more = ["--require", "sealed"];
    let report = json(command(&[&words[..], &more].concat()), 1);
    let integrity = &report["attack"]["integrity"];
    assert_eq!((&integrity["holds"], &integrity["complete"]), (&false.into(), &false.into()));
    assert_eq!(report["required"]["met"], false);
    let failures = report["failures"].to_string();
    for part in ["within 2s (--timeout)", "the attack did not end: "] {
        assert!(failures.contains(part), "{failures}");
    }
}

fn cut_short() {
    let timeout = Duration::ZERO;
    let ran = crate::run(&crate::builtin("default"), &Options { timeout, ..crate::options() });
    let failures = Report::of_guest(&ran.machine, &ran.run).facts.failures();
    // What it had not come to yet is no failure of its own.
    let [failure] = failures.as_slice() else { panic!("{failures:?}") };
    assert!(
        failure.contains("the guest did not end by itself within 0ns (--timeout): its time"),
        "{failure}"
    );
}

/// What the help names to try, and what is said where it cannot work.
fn payloads_of_policies() {
    let boot = |scenario: &str, payload: &str| {
        let output = command(&["boot", scenario, "--payload", payload]).output().unwrap();
        (code_of(&output), text(&output.stderr))
    };
    let offered =
        if kvm::offers_xsavec() { "sse,xsavec,jump,recreate" } else { "sse,jump,recreate" };
    assert_eq!(boot("unlocked", offered), (0, String::new()));
    assert_eq!(boot("path2", "program"), (0, String::new()));
    for (payload, words) in [
        (
            "touch,sse",
            "note: sse takes decoders back, which fails where they are locked; try it with",
        ),
        ("program", "note: program is for decoders that the firmware leaves to the guest; try it"),
    ] {
        let (code, note) = boot("one-device", payload);
        assert!(code == 1 && note.starts_with(words), "{payload}: {code} {note}");
    }
}

/// Nothing starts for a word that nobody knows.
fn unknown_words() {
    for (words, tip) in [
        (&["--payload", "tuoch"][..], "a similar value exists: 'touch'"),
        (&["--payload", "atack"], "a similar value exists: 'attack'"),
        (&["--payload", "none path=unlocked"], "possible values: none, touch"),
        (&["--image", "x.elf", "--then", "atack"], "a similar value exists: 'attack'"),
        (&["--require", "locked@end"], "expected locked@handoff, found locked@end"),
        (&["--require", "loked"], "expected locked, sealed, locked@handoff or sealed@handoff"),
        (&["--lock-by", "wmm"], "a similar value exists: 'vmm'"),
        (&["--mirror", "maybe"], "possible values: on, off"),
    ] {
        let output = command(&["boot", "one-device"]).args(words).output().unwrap();
        let complaint = text(&output.stderr);
        assert_eq!(code_of(&output), 2, "{words:?}: {complaint}");
        assert!(complaint.contains(tip), "{words:?}: {complaint}");
        assert_eq!(text(&output.stdout), "", "{words:?}");
    }
}

fn console_of_theirs() {
    let files = Files::new();
    // mov dx, 0x3F8; then mov al, letter; out dx, al
    let mut code = vec![0x66, 0xBA, 0xF8, 0x03];
    for letter in *b"hi\x1B[2J\n" {
        code.extend([0xB0, letter, 0xEE]);
    }
    code.extend(EXIT);
    let output = files.boot(&code, &[]).output().unwrap();
    assert_eq!(code_of(&output), 0);
    let report = text(&output.stdout);
    assert!(report.ends_with("  console           hi.[2J\n"), "{report}");
}

/// The run may have taken a while.
fn lost_picture() {
    let output = command(&["boot", "one-device", "--svg", "/dev/full"]).output().unwrap();
    assert_eq!(code_of(&output), 2);
    assert!(text(&output.stdout).starts_with("scenario one-device: ok"));
    assert!(text(&output.stderr).starts_with("error: /dev/full: No space left on device"));
}

fn endless_image() {
    let output = command(&["boot", "--image", "/dev/zero"]).output().unwrap();
    assert_eq!(code_of(&output), 2);
    let complaint = text(&output.stderr);
    assert_eq!(complaint, "error: /dev/zero: expected at most 1024 MiB, found more\n");
}

fn refused_by_host() {
    let output = command(&["boot", "no-window", "--lock-by", "vmm"]).output().unwrap();
    assert_eq!(code_of(&output), 1);
    let report = text(&output.stdout);
    assert!(report.starts_with("scenario no-window: refused\n"), "{report}");
    assert!(report.contains("whose refusal keeps the guest from starting"), "{report}");
    let report = json(command(&["boot", "commit-error", "--lock-by", "vmm"]), 1);
    assert_eq!((&report["ran"], &report["refusal"]["phase"]), (&"models".into(), &"commit".into()));
    // What became of each decoder is told.
    let decoders = report["decoders"].as_array().unwrap();
    assert!(decoders.iter().any(|decoder| decoder["fate"].is_string()), "{decoders:?}");
}

/// Two ports, of which one leads to a device with a decoder that refuses its commit.
const LOSES: &str = r#"
policy.on_failure = "best-effort"
bridge = [{ name = "hb0", uid = 16 }]
port = [{ name = "rp0", below = "hb0" }, { name = "rp1", below = "hb0" }]
device = [
    { name = "mem0", below = "rp0", volatile = "512MiB" },
    { name = "mem1", below = "rp1", volatile = "256MiB", persistent = "256MiB" },
]
window = [{ targets = ["hb0"], size = "4GiB" }]
fault = [{ at = "mem1", kind = "commit-error", decoder = 1 }]
"#;

/// What is given up is a failure with its error, whoever runs the firmware and wherever.
fn losses() {
    let files = Files::new();
    files.0.file("loses", LOSES);
    let all = LOSES.replace(
        "decoder = 1 }",
        "decoder = 0 }, { at = \"mem0\", kind = \"commit-error\", decoder = 0 }",
    );
    files.0.file("loses-all", all);
    for (name, lost) in [("loses", 1), ("loses-all", 2)] {
        let path = files.path(name);
        for more in [&["--direct"][..], &["--lock-by", "vmm"], &[]] {
            let words = [&["boot", path.as_str()][..], more].concat();
            let report = json(command(&words), 1);
            let failures = report["failures"].as_array().unwrap().iter();
            let told = failures.filter(|failure| {
                let words = failure.as_str().unwrap();
                words.starts_with("lost: ") && words.contains("Error Not Committed")
            });
            assert_eq!(told.count(), lost, "{name} {more:?}: {}", report["failures"]);
        }
    }
}

/// Left out by request is no loss, whoever asks and however; what is lost beside it is one.
fn left_out() {
    let files = Files::new();
    let image = files.0.file("own.elf", crate::IMAGE);
    let sound = LOSES.split("fault = ").next().unwrap();
    let sound = sound.replace("name = \"mem0\"", "name = \"mem0\", serial = 5");
    for policy in ["strict", "best-effort"] {
        let text = sound.replace("best-effort", policy);
        let path = files.0.file("pair.toml", text);
        for (words, regions) in [
            ("leave-out=16/1", 1),
            ("leave-out=1e98:1:5", 2),
            ("leave-out=1e98:1", 0),
            ("leave-out=16", 0),
            ("", 3),
        ] {
            let report = json(command(&["boot", &path, "--image", &image, "--append", words]), 0);
            assert_eq!(report["failures"], serde_json::json!([]), "{policy} {words}");
            assert_eq!(report["regions"].as_array().unwrap().len(), regions, "{policy} {words}");
        }
    }
    let path = files.0.file("loses.toml", LOSES);
    for (words, exit) in [("leave-out=16/1", 0), ("leave-out=16/0", 1)] {
        let report = json(command(&["boot", &path, "--image", &image, "--append", words]), exit);
        let failures = report["failures"].as_array().unwrap();
        assert_eq!(failures.len(), exit as usize, "{words}: {failures:?}");
    }
}

fn events() {
    let report = json(command(&["boot", "hot-plug", "--payload", "count"]), 0);
    let events = report["measured"]["guest"]["events"].as_array().unwrap();
    let words = events.iter().map(|event| {
        let word = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        (word("action"), word("result"), word("error"), event["slots"].as_u64().unwrap())
    });
    let want = [
        ("hot-add of late", "done", "", 1),
        ("hot-add of third", "refused", "rp0 is taken by mem0", 1),
        ("hot-add of late", "refused", "late is plugged in already", 1),
        ("function level reset of mem0", "done", "", 1),
        // It clears HDM Decoder Enable, and leaves the locked decoder.
        ("CXL Reset of mem0", "done", "", 0),
        ("hot-remove of mem0", "done", "", 0),
        ("hot-remove of mem0", "refused", "mem0 is not plugged in", 0),
        (
            "hot-add of huge",
            "refused",
            "huge has 4 GiB of volatile memory, window0 2 GiB for each of its 1 way",
            0,
        ),
        ("hot-add of mem0", "done", "", 0),
    ];
    let want = want.map(|(a, b, c, slots)| (a.to_owned(), b.to_owned(), c.to_owned(), slots));
    assert_eq!(words.collect::<Vec<_>>(), want);
    assert_eq!(report["measured"]["guest"]["end"], "it wrote 0x10 to the exit port");
    // Where nobody counts nothing is due, which is said.
    let report = json(command(&["boot", "hot-plug"]), 1);
    assert_eq!(report["measured"]["guest"]["events"][0]["result"], "not due");
    let failures = report["failures"].to_string();
    assert!(failures.contains("hot-add of late never came: the guest did not count"), "{failures}");
}

fn surprising_event() {
    let files = Files::new();
    let text = format!("{LOW}[[event]]\nat = 3\naction = \"hot-remove\"\ndevice = \"mem0\"\n");
    let twice = text.clone() + "[[event]]\nat = 4\naction = \"hot-remove\"\ndevice = \"mem0\"\n";
    for (name, text, failure) in [
        ("done", text + "refused = true\n", "hot-remove of mem0 was to be refused and was not"),
        ("refused", twice, "hot-remove of mem0: mem0 is not plugged in"),
    ] {
        files.0.file(name, text);
        let boot = command(&["boot", &files.path(name), "--payload", "count"]);
        let failures = json(boot, 1)["failures"].to_string();
        assert!(failures.contains(failure), "{failures}");
    }
}

fn announced() {
    let files = Files::new();
    let open = LOW.replace("0x40000000", "0x100000000") + "[policy]\npath = \"unlocked\"\n";
    files.0.file("open.toml", open);
    let report = json(command(&["boot", &files.path("open.toml"), "--payload", "sse"]), 0);
    let errors = report["measured"]["guest"]["internal_errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2);
    assert!(errors.iter().all(|error| error["happened"] == true && error["slots"] == 0));
    assert_eq!(report["measured"]["guest"]["checks"]["failed"], 0);
    assert!(report["measured"]["guest"]["checks"]["passed"].as_u64().unwrap() > 0);
}

fn budget() {
    // 600 MiB: what comes first and fits, and what fits into the rest.
    let report = json(command(&["boot", "default", "--budget", "600MiB"]), 0);
    let guest = &report["measured"]["guest"];
    assert_eq!(guest["slots"].as_array().unwrap().len(), 1);
    let missing = guest["unmirrored"].as_array().unwrap();
    assert_eq!(missing.len(), 4);
    for range in missing {
        assert_eq!(range["reason"], "the mirror's memory budget is used up");
    }
    assert_eq!(missing[0]["hpa"], "0x120000000");
}

/// A user that may not open `/dev/kvm`. Only root can become somebody else.
fn no_permission() {
    let files = Files::new();
    let copy = files.path("cxl-harness");
    fs::copy(crate::program::path(), &copy).unwrap();
    let open = |path: &str| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    open(&copy);
    open(&files.path(""));
    let mut command = Command::new(&copy);
    command.args(["boot", "one-device"]).uid(65534).gid(65534);
    let output = command.output().unwrap();
    assert_eq!(code_of(&output), 0, "{}", text(&output.stderr));
    let note = text(&output.stderr);
    assert_eq!(note.lines().count(), 1, "{note}");
    assert!(note.contains("/dev/kvm does not open") && note.contains("group"), "{note}");
    assert!(note.contains("running directly on the models"), "{note}");
    assert!(text(&output.stdout).starts_with("scenario one-device: ok"));
}
