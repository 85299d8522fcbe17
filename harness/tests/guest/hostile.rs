//! Images that loop, fault, lie or are none: each ends as a value.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cxl_harness::guest::boot::{self, Options, Verdict};
use cxl_harness::kvm::{BootError, End, Reason};
use cxl_harness::machine::Machine;
use cxl_harness::scenario::Scenario;
use libtest_mimic::Trial;

use crate::elf::{BASE, LOAD, NOTE, NOTE_BYTES, image, put16, put32, put64};
use crate::{GuestError, IMAGE, Ran, builtin, claim, options, payload, run};

/// `jmp $`.
const LOOP: &[u8] = &[0xEB, 0xFE];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        claim("looping_image_meets_its_time_limit", time_limit),
        claim("interrupt_ends_a_looping_image", interrupt),
        claim("halting_image_is_an_end", || assert_eq!(end(&[0xF4]), End::Halt)),
        claim("triple_fault_is_a_failure", triple_fault),
        claim("code_outside_memory_is_a_failure", outside),
        claim("unknown_port_reads_ones_and_swallows_writes", unknown_port),
        claim("unknown_status_is_no_verdict", unknown_status),
        claim("command_line_that_does_not_fit_is_refused_whole", long_line),
        claim("status_of_a_panic_is_a_panic", || {
            assert_eq!(foreign(&[0xB0, 0x12, 0xE6, 0xF4]).run.verdict(), Verdict::Panicked);
        }),
        claim("panic_prints_place_and_reason", panics),
        claim("announcement_in_vain_contradicts_success", in_vain),
        claim("failed_check_contradicts_success", failed_check),
        claim("announcement_is_good_for_the_next_thing_only", stale),
        claim("announced_error_resumes_where_it_said", resumes),
        claim("doorbell_with_nonsense_is_ignored", nonsense),
        claim("file_that_is_no_elf_is_refused", no_elf),
        claim("elf_without_pvh_note_is_refused", no_note),
        claim("broken_headers_are_errors_or_ends", broken_headers),
        claim("unknown_word_of_the_command_line_is_refused_by_name", unknown_word),
        claim("unknown_payload_is_refused_by_name", unknown_payload),
    ]
}

fn foreign(code: &[u8]) -> Ran {
    run(&builtin("one-device"), &Options { image: Some(&image(code)), ..options() })
}

fn end(code: &[u8]) -> End {
    foreign(code).run.end
}

fn reason(code: &[u8]) -> Reason {
    match end(code) {
        End::Failed(failure) => failure.reason,
        end => panic!("{end:?}"),
    }
}

fn time_limit() {
    let image = image(LOOP);
    let timeout = Duration::from_millis(100);
    let options = Options { image: Some(&image), timeout, ..options() };
    let ran = run(&builtin("one-device"), &options);
    let End::TimedOut { rip, instruction } = &ran.run.end else { panic!("{:?}", ran.run.end) };
    assert_eq!(*rip, u64::from(BASE));
    assert!(instruction.starts_with(LOOP), "{instruction:x?}");
    assert_eq!(ran.run.verdict(), Verdict::NoStatus);
}

fn interrupt() {
    let image = image(LOOP);
    let interrupted = Arc::new(AtomicBool::new(true));
    let options = Options { image: Some(&image), interrupted, ..options() };
    assert_eq!(run(&builtin("one-device"), &options).run.end, End::Interrupted);
}

fn triple_fault() {
    // lidt of six zero bytes behind the code, then ud2.
    let mut code = vec![0x0F, 0x01, 0x1D];
    code.extend((BASE + 9).to_le_bytes());
    code.extend([0x0F, 0x0B, 0, 0, 0, 0, 0, 0]);
    let End::Failed(failure) = end(&code) else { panic!() };
    assert_eq!(failure.reason, Reason::TripleFault);
    assert_eq!(failure.rip, u64::from(BASE) + 7);
    assert!(failure.instruction.starts_with(&[0x0F, 0x0B]), "{failure}");
    assert!(failure.to_string().starts_with("triple fault, rip 0x100007"), "{failure}");
}

/// mov eax, address; jmp eax
fn jump(address: u32) -> Vec<u8> {
    let mut code = vec![0xB8];
    code.extend(address.to_le_bytes());
    code.extend([0xFF, 0xE0]);
    code
}

fn outside() {
    assert_eq!(reason(&jump(0xF000_0000)), Reason::InternalError { suberror: 1 });
}

fn unknown_port() {
    // mov dx, 0x1234; out dx, al; in al, dx; out 0xF4, al
    assert_eq!(end(&[0x66, 0xBA, 0x34, 0x12, 0xEE, 0xEC, 0xE6, 0xF4]), End::Exit(0xFF));
}

fn unknown_status() {
    let ran = foreign(&[0xB0, 0x77, 0xE6, 0xF4]);
    assert_eq!((ran.run.verdict(), ran.run.end), (Verdict::NoStatus, End::Exit(0x77)));
}

/// Touches more gibibytes than the image has page tables for.
/// The words that were cut off might have been the policy.
fn long_line() {
    let scenario = builtin("one-device");
    let line = boot::command_line(&scenario, Machine::new(&scenario).map(), "none").unwrap();
    for (spaces, verdict) in
        [(2048 - line.len(), Verdict::Good), (2049 - line.len(), Verdict::Refused)]
    {
        let line = line.replacen(' ', &" ".repeat(1 + spaces), 1);
        let ran = run(&scenario, &Options { command_line: Some(line), ..options() });
        assert_eq!(ran.run.verdict(), verdict, "{}", ran.console());
        assert_eq!(ran.console().contains("at most 2048 bytes"), verdict == Verdict::Refused);
    }
}

fn panics() {
    let mut text = String::new();
    for index in 0..24u64 {
        let (uid, base) = (8 * index + 8, (index + 1) << 39);
        text += &format!(
            "[[bridge]]\nname = \"hb{index}\"\nuid = {uid}\n[[port]]\nname = \"rp{index}\"\n\
             below = \"hb{index}\"\n[[device]]\nbelow = \"rp{index}\"\nvolatile = \"2GiB\"\n\
             [[window]]\ntargets = [\"hb{index}\"]\nbase = \"{base:#x}\"\nsize = \"4GiB\"\n"
        );
    }
    let scenario = Scenario::parse(&text, "many").unwrap_or_else(|error| panic!("{error}"));
    let ran = payload(&scenario, "touch");
    assert_eq!(ran.run.verdict(), Verdict::Panicked, "{:?} {}", ran.run.end, ran.console());
    let console = ran.console();
    assert!(
        console.contains("hw.rs:") && console.contains("out of page tables at 0x"),
        "{console}"
    );
}

/// Code that rings the doorbell with messages of the given words, then goes on as told.
fn ring(messages: &[[u64; 6]], then: &[u8]) -> Vec<u8> {
    const DATA: usize = 0x80;
    let mut code = Vec::new();
    for index in 0..messages.len() {
        // mov eax, message; out 0xF8, eax
        code.push(0xB8);
        code.extend((BASE + (DATA + 48 * index) as u32).to_le_bytes());
        code.extend([0xE7, 0xF8]);
    }
    code.extend(then);
    assert!(code.len() <= DATA);
    code.resize(DATA, 0x90);
    code.extend(messages.iter().flatten().flat_map(|word| word.to_le_bytes()));
    code
}

const EXPECT: u64 = 1;
const COUNT: u64 = 3;
const CHECK: u64 = 4;
/// mov al, 0x10; out 0xF4, al
const SUCCESS: [u8; 4] = [0xB0, 0x10, 0xE6, 0xF4];

fn in_vain() {
    let ran = foreign(&ring(&[[EXPECT, 0x1234, 0, 0, 0, 0]], &SUCCESS));
    assert_eq!(ran.run.end, End::Exit(0x10));
    assert_eq!(ran.run.verdict(), Verdict::Contradicted);
}

fn failed_check() {
    for (passed, verdict) in [(0, Verdict::Contradicted), (1, Verdict::Good)] {
        let ran = foreign(&ring(&[[CHECK, 0, passed, 7, 8, 0]], &SUCCESS));
        assert_eq!(ran.run.verdict(), verdict);
    }
}

fn stale() {
    let messages = [[EXPECT, BASE.into(), 0, 0, 0, 0], [COUNT, 1, 0, 0, 0, 0]];
    let ran = foreign(&ring(&messages, &jump(0xF000_0000)));
    let End::Failed(failure) = ran.run.end else { panic!("{:?}", ran.run.end) };
    assert_eq!(failure.reason, Reason::InternalError { suberror: 1 });
    assert_eq!(failure.rip, 0xF000_0000);
}

fn resumes() {
    // The doorbell takes 7 bytes and the jump 7; success comes behind it.
    let then = [jump(0xF000_0000), SUCCESS.to_vec()].concat();
    let ran = foreign(&ring(&[[EXPECT, u64::from(BASE) + 14, 0, 0, 0, 0]], &then));
    assert_eq!(ran.run.verdict(), Verdict::Good, "{:?}", ran.run.end);
}

fn nonsense() {
    // Unknown messages, and one that lies outside memory.
    let mut code = vec![0xB8, 0, 0, 0, 0xFE, 0xE7, 0xF8];
    code.extend(ring(&[], &[]));
    let messages = [[0, 0, 0, 0, 0, 0], [u64::MAX; 6], [2, u64::MAX, u64::MAX, 0, 0, 0]];
    for message in messages {
        let ran = foreign(&ring(&[message], &SUCCESS));
        assert_eq!(ran.run.verdict(), Verdict::Good);
        assert!(ran.run.handoff.is_empty());
    }
    code.truncate(7);
    code.extend(SUCCESS);
    assert_eq!(foreign(&code).run.verdict(), Verdict::Good);
}

/// Boots a file and expects that it does not get that far.
fn refused(file: &[u8]) -> BootError {
    let mut machine = Machine::new(&builtin("one-device"));
    match boot::boot(&mut machine, &Options { image: Some(file), ..options() }) {
        Err(GuestError::Boot(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn no_elf() {
    for file in [&b""[..], b"#!/bin/sh\n", &[0xFF; 4096], &IMAGE[..40], &IMAGE[..80]] {
        let error = refused(file);
        assert!(matches!(error, BootError::Image(_)), "{error:?}");
    }
}

fn no_note() {
    let mut without = image(LOOP);
    put32(&mut without, NOTE, 6);
    let mut other = image(LOOP);
    put32(&mut other, NOTE_BYTES + 8, 17);
    for file in [without, other] {
        let error = refused(&file);
        assert!(matches!(error, BootError::NoPvhNote), "{error:?}");
    }
}

/// Each field of an image that says where something is, with values that are nowhere.
fn broken_headers() {
    let wide = [0x18, 0x20].into_iter().chain((8..56).step_by(8).map(|at| LOAD + at));
    let wide = wide.chain((8..56).step_by(8).map(|at| NOTE + at));
    let values = [0, 1, 3, 0x1000, 1 << 31, 1 << 40, u64::MAX / 2, u64::MAX - 4095, u64::MAX];
    let mut files = Vec::new();
    for (at, value) in wide.flat_map(|at| values.map(|value| (at, value))) {
        let mut file = image(&SUCCESS);
        put64(&mut file, at, value);
        files.push((format!("{at:#x} = {value:#x}"), file));
    }
    for at in [0x34, 0x36, 0x38] {
        for value in [0, 1, 0x37, 0xFFFF] {
            let mut file = image(&SUCCESS);
            put16(&mut file, at, value);
            files.push((format!("{at:#x} = {value:#x}"), file));
        }
    }
    for at in [NOTE_BYTES, NOTE_BYTES + 4, NOTE_BYTES + 16] {
        for value in [0, 1, 0x1000, u32::MAX] {
            let mut file = image(&SUCCESS);
            put32(&mut file, at, value);
            files.push((format!("{at:#x} = {value:#x}"), file));
        }
    }
    for (name, file) in files {
        let mut machine = Machine::new(&builtin("one-device"));
        let timeout = Duration::from_millis(200);
        match boot::boot(&mut machine, &Options { image: Some(&file), timeout, ..options() }) {
            Ok(_) | Err(GuestError::Boot(_)) => {}
            Err(error) => panic!("{name}: {error}"),
        }
    }
    assert_eq!(image(&SUCCESS).len(), 0x204, "the offsets above are those of this image");
}

fn unknown_word() {
    let line = Some("path=lock-all pathe=unlocked".to_owned());
    let ran = run(&builtin("one-device"), &Options { command_line: line, ..options() });
    assert_eq!(ran.run.verdict(), Verdict::Refused);
    let refused = "refused: command line: \"pathe=unlocked\" is not known\nend: refused\n";
    assert_eq!(ran.console(), refused);
}

fn unknown_payload() {
    let ran = payload(&builtin("one-device"), "tuoch");
    assert_eq!(ran.run.verdict(), Verdict::Refused);
    assert!(ran.console().contains("there is no payload \"tuoch\""), "{}", ran.console());
}
