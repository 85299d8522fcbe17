//! What a guest can make the harness keep: images that do one thing without end, for the whole time
//! limit, and the memory and the report that come of it.
//!
//! **Invariant**: memory is what the kernel counts for the process, and a report is what the command
//! prints; nothing here is asked of the harness. Without `/dev/kvm` every test is shown as ignored.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

#[path = "guest/elf.rs"]
mod elf;
mod program;
mod trial;

use std::io::Read;
use std::process::{ExitCode, Stdio};

use cxl_harness::kvm;
use elf::{BASE, LOW, image};
use libtest_mimic::Trial;
use program::{Folder, command};
use serde_json::Value;
use trial::{claim, unless};

/// The most of the process's memory besides the guest's RAM and media, of which these guests touch
/// next to nothing.
const MOST_MEMORY: u64 = 64 << 20;
/// The most bytes of a report.
const MOST_REPORT: usize = 256 << 10;

fn main() -> ExitCode {
    let missing = kvm::available().err().map(|_| "needs /dev/kvm");
    let trials = hostile().into_iter().map(|(name, code, more)| {
        let claim = claim(format!("memory_and_report_are_bounded_under_{name}"), move || {
            bounded(&code, more);
        });
        unless(missing, claim)
    });
    let mut trials: Vec<Trial> = trials.collect();
    trials.push(unless(missing, claim("what_is_not_kept_is_counted", counted)));
    trials.push(unless(
        missing,
        claim("the_report_of_the_bare_command_is_bounded", || {
            let output = command(&["--json"]).output().unwrap();
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(report["attack"]["tried"].as_u64() > Some(100_000), "{}", report["attack"]);
            assert!(output.stdout.len() <= MOST_REPORT, "{} bytes", output.stdout.len());
        }),
    ));
    trial::run(trials)
}

/// Where data lies that an image brings: behind its code.
const DATA: u32 = BASE + 0x1000;
/// Where [`Code::times`] counts.
const COUNTER: u32 = DATA - 4;
/// Registers of [`LOW`]: decoder 0 of bridge and device, what switches the device on, and channel 0
/// of the DMA engine (`harness/src/guest/engine.rs` has its registers).
const BRIDGE: u32 = 0xE010_1138;
const DEVICE: u32 = 0x8220_1138;
const DEVICE_GLOBAL: u32 = 0x8220_112C;
const DEVICE_CONTROL: u32 = 0xC110_011C;
const ENGINE: u32 = 0x8000_0000;
const COMMIT: u32 = 0x1200;

/// Code, 32 bits, at [`BASE`].
#[derive(Clone, Default)]
struct Code(Vec<u8>);

impl Code {
    /// mov dword [address], value
    fn store(mut self, address: u32, value: u32) -> Self {
        self.0.extend([0xC7, 0x05]);
        self.0.extend(address.to_le_bytes());
        self.0.extend(value.to_le_bytes());
        self
    }

    /// mov eax, message; out 0xF8, eax
    fn ring(mut self, message: u32) -> Self {
        self.0.push(0xB8);
        self.0.extend(message.to_le_bytes());
        self.0.extend([0xE7, 0xF8]);
        self
    }

    /// Bytes to the serial port, again and again: mov dx, 0x3F8; mov esi, from; mov ecx, bytes;
    /// rep outsb
    fn print(mut self, from: u32, bytes: u32) -> Self {
        self.0.extend([0x66, 0xBA, 0xF8, 0x03, 0xBE]);
        self.0.extend(from.to_le_bytes());
        self.0.push(0xB9);
        self.0.extend(bytes.to_le_bytes());
        self.0.extend([0xF3, 0x6E]);
        self
    }

    /// Both decoders at the window's start, committed and not locked.
    fn commit(self) -> Self {
        let mut code = self;
        for (at, route) in [(DEVICE, 0), (BRIDGE, 5)] {
            for (offset, value) in [
                (0, 0x4000_0000),
                (4, 0),
                (8, 0x1000_0000),
                (12, 0),
                (20, route),
                (24, 0),
                (16, COMMIT),
            ] {
                code = code.store(at + offset, value);
            }
        }
        code.store(DEVICE_GLOBAL, 2).store(DEVICE_CONTROL, 4)
    }

    /// Back to a place in the code, for ever; then data.
    fn again(mut self, from: usize, data: &[u8]) -> Vec<u8> {
        self.0.push(0xE9);
        let back = from as i64 - (self.0.len() as i64 + 4);
        self.0.extend((back as i32).to_le_bytes());
        self.with(data)
    }

    /// What was said so far so many times, and then the end: mov dword [COUNTER], times in front of it;
    /// dec dword [COUNTER]; jnz back.
    fn times(self, times: u32, data: &[u8]) -> Vec<u8> {
        let mut code = Self::default().store(COUNTER, times);
        let from = code.0.len();
        code.0.extend(self.0);
        code.0.extend([0xFF, 0x0D]);
        code.0.extend(COUNTER.to_le_bytes());
        code.0.extend([0x0F, 0x85]);
        let back = from as i64 - (code.0.len() as i64 + 4);
        code.0.extend((back as i32).to_le_bytes());
        code.exit(data)
    }

    /// mov al, 0; out 0xF4, al; then data.
    fn exit(mut self, data: &[u8]) -> Vec<u8> {
        self.0.extend([0xB0, 0x00, 0xE6, 0xF4]);
        self.with(data)
    }

    fn with(mut self, data: &[u8]) -> Vec<u8> {
        let at = (DATA - BASE) as usize;
        assert!(self.0.len() <= (COUNTER - BASE) as usize);
        self.0.resize(at, 0x90);
        self.0.extend(data);
        self.0
    }
}

/// A message for the doorbell (`firmware/image/src/doorbell.rs` has the numbers).
fn message(words: &[u64]) -> Vec<u8> {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize(72, 0);
    bytes
}

fn hostile() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    let start = |list: u32, entries: u32| {
        Code::default().store(ENGINE, list).store(ENGINE + 4, 0).store(ENGINE + 8, entries)
    };
    let empty = start(0, 0);
    let at = empty.0.len();
    let empty = empty.store(ENGINE + 12, 1).again(at, &[]);
    // A list at an address that nothing decodes.
    let nowhere = start(0xB000_0000, 1);
    let at = nowhere.0.len();
    let nowhere = nowhere.store(ENGINE + 12, 1).again(at, &[]);
    // Four channels with lists of the greatest length.
    let mut long = Code::default();
    for channel in (0..4).map(|number| ENGINE + 0x40 * number) {
        long = long.store(channel, DATA).store(channel + 8, 1 << 16);
    }
    let at = long.0.len();
    for channel in (0..4).map(|number| ENGINE + 0x40 * number) {
        long = long.store(channel + 12, 1);
    }
    let entry: Vec<u8> = [0u64, 0x20_0000, 64, 0].iter().flat_map(|w| w.to_le_bytes()).collect();
    let long = long.again(at, &entry.repeat(1 << 16));

    let line = |letters: &str| format!("{}\n", letters.repeat(400 / letters.len()));
    let print = |text: &[u8]| Code::default().print(DATA, text.len() as u32).again(0, text);
    let quoted = print("\"\\\u{FFFD}\u{1F300}\"".repeat(1000).as_bytes());
    let lines = print(line("\u{1F300}").repeat(20).as_bytes());
    let refused = print(format!("refused: {}", "\u{1b}[31mred ".repeat(100)).as_bytes());

    let messages: Vec<Vec<u8>> = [
        &[1, 0x1234][..],
        &[2, 0, 1 << 20],
        &[3, u64::MAX],
        &[4, 0, 1, 7, 8],
        &[5, 1, 2, 3],
        &[6, 9],
        &[7, 0, 1, 2],
        &[8, 0, 0x4000_0000, 1 << 20],
    ]
    .map(message)
    .to_vec();
    let mut calls = Code::default();
    for number in 0..messages.len() as u32 {
        calls = calls.ring(DATA + 72 * number);
    }
    let calls = calls.again(0, &messages.concat());

    // The device's decoder is given up and committed again.
    let slots = Code::default().commit();
    let at = slots.0.len();
    let slots = slots.store(DEVICE + 16, 0).store(DEVICE + 16, COMMIT).again(at, &[]);

    let (record, table) = (record(18_000), table(30_000));
    let hand_off = |code: u64| {
        let (record_at, table_at) = (u64::from(DATA) + 72, u64::from(DATA) + 72 + (1 << 20));
        let mut data = message(&[2, record_at, record.len() as u64, 0, 0, 0, code]);
        data.extend(&record);
        data.resize(72 + (1 << 20), 0);
        data.extend(&table);
        assert_eq!(table_at, u64::from(TABLE));
        Code::default().ring(DATA).exit(&data)
    };

    // mov eax, [configuration space]
    let mut reads = Code::default();
    reads.0.push(0xA1);
    reads.0.extend(DEVICE_CONTROL.to_le_bytes());
    let reads = reads.again(0, &[]);

    // All of it in turn.
    let storm = Code::default().commit().store(ENGINE + 8, 0);
    let at = storm.0.len();
    let mut storm = storm.store(ENGINE + 12, 1).store(DEVICE + 16, 0).store(DEVICE + 16, COMMIT);
    for number in 0..messages.len() as u32 {
        storm = storm.ring(DATA + 72 * number);
    }
    let letters = line("\u{1F300}").repeat(2);
    let storm = storm.print(DATA + 72 * messages.len() as u32, letters.len() as u32);
    let storm = storm.again(at, &[messages.concat(), letters.into_bytes()].concat());

    vec![
        ("empty_scatter_lists", empty, &[]),
        ("scatter_lists_at_nowhere", nowhere, &[]),
        ("scatter_lists_of_the_greatest_length", long, &[]),
        ("letters_that_json_spells_out", quoted, &[]),
        ("lines_of_wide_letters", lines, &[]),
        ("a_refusal_without_an_end", refused, &[]),
        ("calls_of_every_kind", calls, &[]),
        ("decoders_that_come_and_go", slots.clone(), &[]),
        ("a_record_and_a_table_of_nonsense", hand_off(0), &[]),
        ("a_refusal_with_a_record_of_nonsense", hand_off(0x0101), &[]),
        ("everything_at_once", storm.clone(), &[]),
        ("a_trace_of_decoders", slots, &["--trace"]),
        ("a_trace_of_reads", reads, &["--trace"]),
        ("a_trace_of_everything", storm, &["--trace", "--require", "sealed"]),
    ]
}

/// Where the table of [`hostile`] is.
const TABLE: u32 = DATA + 72 + (1 << 20);

/// A hand-off record of many decoders that the machine does not have, laid out as
/// `firmware/src/handoff.rs` documents.
fn record(decoders: u32) -> Vec<u8> {
    let size = 64 + 56 * decoders;
    assert!(size <= 1 << 20);
    let mut bytes = b"CXLFWHO\0\x01\0\x40\0".to_vec();
    for word in [size, 0, decoders, TABLE, 0, 24 + 16 + 32 * 30_000 - 4] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.resize(64, 0);
    for number in 0..decoders {
        bytes.extend(number.to_le_bytes());
        bytes.extend([1, 0, 3, 0]);
        bytes.resize(bytes.len() + 48, 0);
    }
    let fnv = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let digest = bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    bytes[56..64].copy_from_slice(&digest.to_le_bytes());
    bytes
}

/// A CEDT of many bridges (ACPI 6.5 table 5.27 for its header, CXL r3.1 table 9-20 for the records).
fn table(bridges: u32) -> Vec<u8> {
    let mut bytes = b"CEDT".to_vec();
    bytes.extend((36 + 32 * bridges).to_le_bytes());
    bytes.extend([1, 0]);
    bytes.resize(36, b'X');
    for number in 0..bridges {
        bytes.extend([0, 0, 32, 0]);
        for word in [number, 1, 0] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(0xE000_0000u64.to_le_bytes());
        bytes.extend(0x1_0000u64.to_le_bytes());
    }
    bytes[9] = bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte));
    bytes
}

/// What a run of an image printed, and the most memory that the process had: the peak of its resident
/// set, or of ours if that is more, as a process has its parent's until it runs its own program.
#[allow(clippy::zombie_processes, reason = "it is waited for by a call that tells its memory")]
fn run(code: &[u8], seconds: &str, more: &[&str]) -> (Vec<u8>, u64) {
    let files = Folder::new();
    let (machine, file) = (files.file("low.toml", LOW), files.file("hostile.elf", image(code)));
    let mut command = command(&["boot", &machine, "--image", &file, "--timeout", seconds]);
    let mut child = command.args(more).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    let mut status = 0;
    // SAFETY: the child is ours and nobody has waited for it; both places have room.
    let waited = unsafe { libc::wait4(child.id() as i32, &mut status, 0, usage.as_mut_ptr()) };
    assert_eq!(waited, child.id() as i32);
    // SAFETY: plain integers, all of which were zero before the call.
    let peak = unsafe { usage.assume_init() }.ru_maxrss as u64;
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) <= 1, "{status:#x}");
    (output, peak << 10)
}

fn bounded(code: &[u8], more: &[&str]) {
    let (text, in_text) = run(code, "4", more);
    let (json, in_json) = run(code, "4", &[more, &["--json"]].concat());
    let mut report: Value = serde_json::from_slice(&json).unwrap();
    let traced = more.contains(&"--trace");
    // A trace was asked for, and has a bound of its own.
    for key in ["trace", "walks"].iter().filter(|_| traced) {
        let entries = report.as_object_mut().unwrap().remove(*key).unwrap();
        assert!(entries.as_array().unwrap().len() <= 1 << 15);
    }
    let report = serde_json::to_string_pretty(&report).unwrap();
    assert!(traced || text.len() <= MOST_REPORT, "{} bytes of text", text.len());
    assert!(report.len() <= MOST_REPORT, "{} bytes of JSON", report.len());
    assert!(in_text.max(in_json) <= MOST_MEMORY, "{in_text} and {in_json} bytes of memory");
    // What a guest prints moves no cursor and changes no colour.
    assert!(!text.contains(&0x1b) && !json.contains(&0x1b));
}

/// Images that do it so often, however long that takes.
fn counted() {
    const LIMIT: &str = "300";
    let (text, _) = run(&Code::default().store(ENGINE + 12, 1).times(200, &[]), LIMIT, &[]);
    let text = String::from_utf8(text).unwrap();
    assert!(text.lines().any(|line| line.trim() == "and 184 more"), "16 are shown: {text}");
    let cycle = Code::default().store(ENGINE + 12, 1).commit();
    let cycle = cycle.store(DEVICE + 16, 0).times(600, &[]);
    let (json, _) = run(&cycle, LIMIT, &["--json"]);
    let report: Value = serde_json::from_slice(&json).unwrap();
    let guest = &report["measured"]["guest"];
    assert_eq!(guest["end"], "it wrote 0x00 to the exit port");
    // A transfer a cycle, of which 128 are told; and a slot that comes and goes, of which 512 are.
    assert_eq!(guest["left_out"]["transfers"], 600 - 128);
    assert_eq!(guest["left_out"]["slot_calls"], 2 * 600 - 512);
    // mov eax, [configuration space]
    let mut read = Code::default();
    read.0.push(0xA1);
    read.0.extend(DEVICE_CONTROL.to_le_bytes());
    let (json, _) = run(&read.times((1 << 15) + 100, &[]), LIMIT, &["--trace", "--json"]);
    let report: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(report["trace_left_out"]["trace"], 100);
    assert_eq!(report["trace"].as_array().unwrap().len(), 1 << 15);
    let images = hostile();
    let of = |name: &str| &images.iter().find(|(known, ..)| *known == name).unwrap().1;
    let (text, _) = run(of("a_refusal_with_a_record_of_nonsense"), LIMIT, &[]);
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("more failures like these"), "{text}");
    // Of 30,000 bridges 1024 are looked at and 64 shown.
    assert!(text.contains("and 960 more\n"), "{text}");
    assert!(text.contains("1024"), "{text}");
}
