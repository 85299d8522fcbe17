//! Images that loop, fault, lie or are none: each ends as a value.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cxl_harness::guest::boot::{self, Options, Verdict};
use cxl_harness::kvm::{
    AfterTripleFault, Boot, BootError, Bus, End, Entry, Limits, Reason, Slot, Slots, Vm, kind,
};
use cxl_harness::report::Report;
use cxl_model::machine::Machine;
use cxl_model::scenario::Scenario;
use libtest_mimic::Trial;

use crate::elf::{BASE, LOAD, NOTE, NOTE_BYTES, image, put16, put32, put64};
use crate::{GuestError, GuestTrial, IMAGE, builtin, claim, options, payload, run};

/// `jmp $`.
const LOOP: &[u8] = &[0xEB, 0xFE];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        claim("looping_image_meets_its_time_limit", time_limit),
        claim("interrupt_ends_a_looping_image", interrupt),
        claim("halting_image_is_an_end", || assert_eq!(end(&[0xF4]), End::Halt)),
        claim("triple_fault_is_a_failure", triple_fault),
        claim("fault_without_a_table_is_a_failure_with_its_place", without_a_table),
        claim("code_outside_memory_is_a_failure", outside),
        claim("port_of_our_fault_handlers_is_no_other_images", fault_port),
        claim("fault_with_any_stack_is_a_failure", fault_stack),
        claim("cleared_vcpu_has_nothing_of_the_image_before", cleared),
        claim("serial_port_that_is_set_up_prints_nothing_of_it", serial),
        claim("unknown_port_reads_ones_and_swallows_writes", unknown_port),
        claim("unknown_status_is_no_verdict", unknown_status),
        claim("command_line_that_does_not_fit_is_refused_whole", long_line),
        claim("status_of_a_panic_is_a_panic", || {
            assert_eq!(foreign(&[0xB0, 0x12, 0xE6, 0xF4]).run.last().verdict(), Verdict::Panicked);
        }),
        claim("panic_prints_place_and_reason", panics),
        claim("image_that_never_stops_talking_has_a_report_of_bounded_size", talkative),
        claim("announcement_in_vain_contradicts_success", in_vain),
        claim("failed_check_contradicts_success", failed_check),
        claim("announcement_is_good_for_the_next_thing_only", stale),
        claim("announced_error_resumes_where_it_said", resumes),
        claim("doorbell_with_nonsense_is_ignored", nonsense),
        claim("file_that_is_no_elf_is_refused", no_elf),
        claim("elf_without_pvh_note_is_refused", no_note),
        claim("image_that_cannot_lie_where_it_wants_is_refused_by_name", misplaced),
        claim("image_of_the_32_bit_format_boots", format_of_32_bits),
        claim("pvh_note_is_found_among_others", notes),
        claim("broken_headers_are_errors_or_ends", broken_headers),
        claim("unknown_word_of_the_command_line_is_refused_by_name", unknown_word),
        claim("unknown_payload_is_refused_by_name", unknown_payload),
    ]
}

fn foreign(code: &[u8]) -> GuestTrial {
    run(&builtin("one-device"), &Options { image: Some(&image(code)), ..options() })
}

/// An image of ours, as far as what it says goes.
fn trusted(code: &[u8]) -> GuestTrial {
    let options = Options { image: Some(&image(code)), trusted: true, ..options() };
    run(&builtin("one-device"), &options)
}

fn end(code: &[u8]) -> End {
    foreign(code).run.first.end
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
    let End::TimedOut { rip, instruction, .. } = &ran.run.first.end else {
        panic!("{:?}", ran.run.first.end)
    };
    assert_eq!(*rip, u64::from(BASE));
    assert!(instruction.starts_with(LOOP), "{instruction:x?}");
    assert_eq!(ran.run.last().verdict(), Verdict::NoStatus);
}

fn interrupt() {
    let image = image(LOOP);
    let interrupted = Arc::new(AtomicBool::new(true));
    let options = Options { image: Some(&image), interrupted, ..options() };
    assert_eq!(run(&builtin("one-device"), &options).run.first.end, End::Interrupted);
}

fn triple_fault() {
    // lidt of six zero bytes behind the code, then ud2.
    let mut code = vec![0x0F, 0x01, 0x1D];
    code.extend((BASE + 9).to_le_bytes());
    code.extend([0x0F, 0x0B, 0, 0, 0, 0, 0, 0]);
    let End::Failed(failure) = end(&code) else { panic!() };
    let reset = kind().unwrap().after_triple_fault == AfterTripleFault::Reset;
    assert_eq!(failure.reason, Reason::TripleFault { reset });
    let words = failure.to_string();
    if reset {
        // Nothing was seen of it since it was entered.
        assert_eq!(failure.rip, u64::from(BASE));
        let want = "triple fault, upon which this KVM resets the processor, so that nobody knows \
                    where it was; the last that was seen of it was at rip 0x100000, instruction 0f 01";
        assert!(words.starts_with(want), "{words}");
        // out 0x80, al in front: an exit that tells where it was.
        let mut code = vec![0x90, 0xE6, 0x80, 0x0F, 0x01, 0x1D];
        code.extend((BASE + 12).to_le_bytes());
        code.extend([0x0F, 0x0B, 0, 0, 0, 0, 0, 0]);
        let End::Failed(failure) = end(&code) else { panic!() };
        // At it or behind it, as KVM has it.
        assert!([BASE + 1, BASE + 3].map(u64::from).contains(&failure.rip), "{failure}");
    } else {
        assert_eq!(failure.rip, u64::from(BASE) + 7);
        assert!(failure.instruction.starts_with(&[0x0F, 0x0B]), "{failure}");
        assert!(words.starts_with("triple fault, rip 0x100007"), "{words}");
    }
}

/// Code that goes to 64-bit mode, with these descriptors behind the null one and code in the segment
/// of a selector, and what it does there; and where that is. The first 2 MiB are mapped.
fn long(descriptors: &[u64], selector: u16, there: &[u8]) -> (Vec<u8>, u32) {
    let mut code = Vec::new();
    // mov dword [address], value
    for (address, value) in
        [(0x20_0000u32, 0x20_1007u32), (0x20_1000, 0x20_2007), (0x20_2000, 0x0000_0087)]
    {
        code.extend([0xC7, 0x05]);
        code.extend([address.to_le_bytes(), value.to_le_bytes()].concat());
    }
    // lgdt [...]; its place is put in below
    code.extend([0x0F, 0x01, 0x15, 0, 0, 0, 0]);
    let pointer = code.len() - 4;
    // mov eax, PAE; mov cr4, eax; mov eax, 0x200000; mov cr3, eax
    code.extend([0xB8, 0x20, 0, 0, 0, 0x0F, 0x22, 0xE0, 0xB8, 0, 0, 0x20, 0, 0x0F, 0x22, 0xD8]);
    // mov ecx, EFER; rdmsr; or eax, LME; wrmsr
    code.extend([0xB9, 0x80, 0, 0, 0xC0, 0x0F, 0x32, 0x0D, 0, 1, 0, 0, 0x0F, 0x30]);
    // mov eax, PG|ET|PE; mov cr0, eax
    code.extend([0xB8, 0x11, 0, 0, 0x80, 0x0F, 0x22, 0xC0]);
    // jmp selector:there
    let place = BASE + code.len() as u32 + 7;
    code.push(0xEA);
    code.extend(place.to_le_bytes());
    code.extend(selector.to_le_bytes());
    code.extend(there);
    let table = BASE + code.len() as u32;
    code.extend(0u64.to_le_bytes());
    descriptors.iter().for_each(|descriptor| code.extend(descriptor.to_le_bytes()));
    let at = BASE + code.len() as u32;
    code[pointer..pointer + 4].copy_from_slice(&at.to_le_bytes());
    code.extend((8 * descriptors.len() as u16 + 7).to_le_bytes());
    code.extend(table.to_le_bytes());
    (code, place)
}

/// An image that has no table of handlers dies with its place known, on every kind of KVM.
fn without_a_table() {
    const CODE32: u64 = 0x00CF_9B00_0000_FFFF;
    const CODE64: u64 = 0x00AF_9B00_0000_FFFF;
    const DATA: u64 = 0x00CF_9300_0000_FFFF;
    let fault = |vector| vec![Reason::Fault { vector, address: None }];
    let page_fault = |address| vec![Reason::Fault { vector: 14, address: Some(address) }];
    let at = |place: u32| u64::from(place);
    let mut cases = vec![
        // xor eax, eax; div eax; and ud2
        (vec![0x31, 0xC0, 0xF7, 0xF0], fault(0), at(BASE + 2)),
        (vec![0x90, 0x0F, 0x0B], fault(6), at(BASE + 1)),
        // mov ax, 0xFFF8; mov ds, ax: a protection fault, which has no gate of its own there
        (vec![0x66, 0xB8, 0xF8, 0xFF, 0x8E, 0xD8], fault(8), at(BASE + 4)),
    ];
    let mut in_64_bits = |descriptors: &[u64], selector, there: &[u8], reason, offset| {
        let (code, place) = long(descriptors, selector, there);
        cases.push((code, reason, at(place) + offset));
    };
    in_64_bits(&[CODE64, DATA], 8, &[0x0F, 0x0B], fault(6), 0);
    // mov rax, [0x1234567]: not mapped
    let load = [0x48, 0x8B, 0x04, 0x25, 0x67, 0x45, 0x23, 0x01];
    in_64_bits(&[CODE64, DATA], 8, &load, page_fault(0x0123_4567), 0);
    // mov rax, 1 << 63; nop; mov [rax], al: no address at all
    let wild = [0x48, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x90, 0x88, 0x00];
    in_64_bits(&[CODE64, DATA], 8, &wild, fault(13), 11);
    // xor esp, esp; push rax: no stack
    in_64_bits(&[CODE64, DATA], 8, &[0x31, 0xE4, 0x50], page_fault(u64::MAX - 7), 2);
    // Code in the second segment: the handler of the double fault is found. A KVM that emulates CPL 0
    // does not mind.
    let either = [fault(8), fault(6)].concat();
    in_64_bits(&[CODE32, CODE64], 16, &[0x90, 0x0F, 0x0B], either, 1);
    for (code, reasons, rip) in cases {
        let End::Failed(failure) = end(&code) else { panic!("{code:x?}") };
        assert!(reasons.contains(&failure.reason), "{code:x?}: {failure}");
        assert_eq!((failure.rip, failure.ring), (rip, 0), "{code:x?}: {failure}");
        let bytes = &code[(rip - u64::from(BASE)) as usize..];
        assert!(failure.instruction.starts_with(&bytes[..2]), "{failure}");
    }
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

fn fault_port() {
    // mov al, 13; out 0xF6, al; mov al, 0x10; out 0xF4, al
    let code = [&[0xB0, 13, 0xE6, 0xF6][..], &SUCCESS].concat();
    assert_eq!(end(&code), End::Exit(0x10));
}

/// What our entry's fault handlers do, done by code that has no stack.
fn fault_stack() {
    // At CPL 3 of our own entry: out 0xF6, al is nobody's fault there either. Then mov rsp, -1;
    // mov al, 28; and a jump to where the handler of a page fault says this.
    let code = [0xB0, 28, 0xE6, 0xF6, 0x48, 0xC7, 0xC4, 0xFF, 0xFF, 0xFF, 0xFF, 0xB0, 28];
    let code = [&code[..], &[0xBB, 0xE2, 0x30, 0, 0, 0xFF, 0xE3]].concat();
    let mut vm = Vm::new(&[(0, 16 << 20)], 46).unwrap();
    let End::Failed(failure) = alone(&mut vm, &code, Entry::Ring3) else { panic!() };
    assert_eq!(failure.reason, Reason::Fault { vector: 14, address: Some(0) });
    assert_eq!(failure.rip, 0, "there is no stack to read it from");
}

/// Runs code on a virtual machine and nothing else.
fn alone(vm: &mut Vm, code: &[u8], entry: Entry) -> End {
    let image = image(code);
    let (modules, map) = (&[][..], None);
    vm.boot(&Boot { image: &image, entry, command_line: "", acpi: &[], rsdp: 0, modules, map })
        .unwrap();
    let timeout = Duration::from_secs(30);
    let limits = Limits { timeout, until_port: None, interrupted: Arc::default(), input: None };
    vm.run(&mut NoBus, &limits)
}

/// A breakpoint, and memory that KVM itself writes to: MSR_KVM_STEAL_TIME (0x4B564D03; Linux,
/// Documentation/virt/kvm/x86/msr.rst).
fn cleared() {
    const EXIT: [u8; 2] = [0xE6, 0xF4];
    // mov eax, 0x401; mov dr7, eax; xor eax, eax; out 0xF4, al / mov eax, dr7; out 0xF4, al
    let breakpoint = [0xB8, 0x01, 0x04, 0, 0, 0x0F, 0x23, 0xF8, 0x31, 0xC0];
    let debug_control = [0x0F, 0x21, 0xF8];
    // mov ecx, msr; mov eax, 0x200001; xor edx, edx; wrmsr; xor eax, eax / mov ecx, msr; rdmsr
    let msr = [0xB9, 0x03, 0x4D, 0x56, 0x4B];
    let write = [0xB8, 0x01, 0, 0x20, 0, 0x31, 0xD2, 0x0F, 0x30, 0x31, 0xC0];
    let (stolen, steal_time) = ([&msr[..], &write].concat(), [&msr[..], &[0x0F, 0x32]].concat());
    let cases: [(&str, &[u8], &[u8]); 2] =
        [("breakpoint", &breakpoint, &debug_control), ("steal time", &stolen, &steal_time)];
    for (what, set, get) in cases {
        let [set, get] = [set, get].map(|code| [code, &EXIT].concat());
        let mut vm = Vm::new(&[(0, 16 << 20)], 46).unwrap();
        // A KVM without steal time has nothing to clear, and #GP ends the guest.
        let end = alone(&mut vm, &set, Entry::Pvh);
        if what == "steal time" && end != End::Exit(0) {
            continue;
        }
        assert_eq!(end, End::Exit(0), "{what}");
        assert_eq!(alone(&mut vm, &get, Entry::Pvh), End::Exit(1), "{what}: it stays");
        vm.clear().unwrap();
        assert_eq!(alone(&mut vm, &get, Entry::Pvh), End::Exit(0), "{what}");
    }
}

/// A machine of nothing but RAM.
struct NoBus;

impl Bus for NoBus {
    fn read(&mut self, _: u64, _: &mut [u8]) {}
    fn write(&mut self, _: u64, _: &[u8]) {}
    fn slots(&mut self) -> Option<Vec<Slot>> {
        None
    }
    fn console(&mut self, _: &[u8]) {}
    fn doorbell(&mut self, _: u32, _: &Slots) {}
    fn internal_error(&mut self, _: u32) -> Option<u64> {
        None
    }
}

/// A 16550 (PC16550D data sheet, section 8): with DLAB set the first two registers are the divisor,
/// in loopback what is sent comes back, and the scratch register keeps its byte.
fn serial() {
    let out = |port: u16, value: u8| {
        let [low, high] = port.to_le_bytes();
        // mov dx, port; mov al, value; out dx, al
        [0x66, 0xBA, low, high, 0xB0, value, 0xEE]
    };
    let input = |port: u16| {
        let [low, high] = port.to_le_bytes();
        // mov dx, port; in al, dx
        [0x66, 0xBA, low, high, 0xEC]
    };
    // mov dx, 0x3F8; out dx, al
    let print = [0x66, 0xBA, 0xF8, 0x03, 0xEE];
    let mut code = Vec::new();
    // 115200 baud, eight bits, FIFO, and a loopback test with 0xAE.
    for (port, value) in [
        (0x3FB, 0x80),
        (0x3F8, 1),
        (0x3F9, 0),
        (0x3FB, 3),
        (0x3FA, 0xC7),
        (0x3FC, 0x1E),
        (0x3F8, b'L'),
    ] {
        code.extend(out(port, value));
    }
    code.extend(input(0x3F8));
    // mov bl, al
    code.extend([0x88, 0xC3]);
    code.extend(out(0x3FC, 0x0F));
    code.extend(out(0x3FF, b'S'));
    code.extend(out(0x3F8, b'-'));
    // mov al, bl
    code.extend([0x88, 0xD8]);
    code.extend(print);
    code.extend(input(0x3FF));
    code.extend(print);
    code.extend(SUCCESS);
    assert_eq!(foreign(&code).console(), "-LS");
}

fn unknown_status() {
    let ran = foreign(&[0xB0, 0x77, 0xE6, 0xF4]);
    assert_eq!((ran.run.last().verdict(), ran.run.first.end), (Verdict::NoStatus, End::Exit(0x77)));
}

/// The words that were cut off might have been the policy.
fn long_line() {
    let scenario = builtin("one-device");
    let line = boot::command_line(&scenario, Machine::new(&scenario).map(), "none").unwrap();
    for (spaces, verdict) in
        [(2048 - line.len(), Verdict::Good), (2049 - line.len(), Verdict::Refused)]
    {
        let line = line.replacen(' ', &" ".repeat(1 + spaces), 1);
        let ran = run(&scenario, &Options { command_line: Some(line), ..options() });
        assert_eq!(ran.run.last().verdict(), verdict, "{}", ran.console());
        assert_eq!(ran.console().contains("at most 2048 bytes"), verdict == Verdict::Refused);
    }
}

/// Touches more gibibytes than the image has page tables for.
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
    assert_eq!(
        ran.run.last().verdict(),
        Verdict::Panicked,
        "{:?} {}",
        ran.run.first.end,
        ran.console()
    );
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

fn talkative() {
    // The same message again and again; `ring` ends with a jump back to its start.
    let timeout = Duration::from_secs(2);
    for message in [[EXPECT, 0x1234, 0, 0, 0, 0], [CHECK, 0, 1, 7, 8, 0], [2, 0, 0, 0, 0, 0]] {
        let code = image(&ring(&[message], &[0xEB, 0xF7]));
        let options = Options { image: Some(&code), trusted: true, timeout, ..options() };
        let ran = run(&builtin("one-device"), &options);
        assert!(ran.run.first.said.calls.len() > 1000, "{}", ran.run.first.said.calls.len());
        let report = Report::of_guest(&ran.machine, &ran.run);
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.len() < 256 << 10, "{} bytes", json.len());
        assert!(report.to_string().len() < 64 << 10);
    }
}

fn in_vain() {
    let ran = trusted(&ring(&[[EXPECT, 0x1234, 0, 0, 0, 0]], &SUCCESS));
    assert_eq!(ran.run.first.end, End::Exit(0x10));
    assert_eq!(ran.run.last().verdict(), Verdict::Contradicted);
}

fn failed_check() {
    for (passed, verdict) in [(0, Verdict::Contradicted), (1, Verdict::Good)] {
        let ran = trusted(&ring(&[[CHECK, 0, passed, 7, 8, 0]], &SUCCESS));
        assert_eq!(ran.run.last().verdict(), verdict);
    }
}

fn stale() {
    let messages = [[EXPECT, BASE.into(), 0, 0, 0, 0], [COUNT, 1, 0, 0, 0, 0]];
    let ran = trusted(&ring(&messages, &jump(0xF000_0000)));
    let End::Failed(failure) = ran.run.first.end else { panic!("{:?}", ran.run.first.end) };
    assert_eq!(failure.reason, Reason::InternalError { suberror: 1 });
    assert_eq!(failure.rip, 0xF000_0000);
}

fn resumes() {
    // The doorbell takes 7 bytes and the jump 7; success comes behind it.
    let then = [jump(0xF000_0000), SUCCESS.to_vec()].concat();
    let ran = trusted(&ring(&[[EXPECT, u64::from(BASE) + 14, 0, 0, 0, 0]], &then));
    assert_eq!(ran.run.last().verdict(), Verdict::Good, "{:?}", ran.run.first.end);
}

fn nonsense() {
    // Unknown messages, and one that lies outside memory.
    let mut code = vec![0xB8, 0, 0, 0, 0xFE, 0xE7, 0xF8];
    code.extend(ring(&[], &[]));
    let messages = [[0, 0, 0, 0, 0, 0], [u64::MAX; 6], [2, u64::MAX, u64::MAX, 0, 0, 0]];
    for message in messages {
        let ran = foreign(&ring(&[message], &SUCCESS));
        assert_eq!(ran.run.last().verdict(), Verdict::Good);
        assert!(ran.run.last().record().is_empty());
    }
    code.truncate(7);
    code.extend(SUCCESS);
    assert_eq!(foreign(&code).run.last().verdict(), Verdict::Good);
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

/// An image of `one-device`, which has 1 GiB of RAM, with other words in its header and segment.
fn misplaced() {
    // p_paddr and p_memsz of the segment.
    let (address, memory) = (LOAD + 24, LOAD + 40);
    type Case = (&'static str, fn(&mut Vec<u8>), &'static str);
    let place = "wants 0x100000000-0x100000003; memory it may use is 0x20000-0xdffff, 0xe";
    let cases: [Case; 11] = [
        ("window", |file| put64(file, LOAD + 24, 1 << 32), place),
        ("start-info", |file| put64(file, LOAD + 24, 0x9000), "wants 0x9000-0x9003"),
        ("tables", |file| put64(file, LOAD + 24, 0xE_0008), "wants 0xe0008-0xe000b"),
        ("end of RAM", |file| put64(file, LOAD + 24, 0x3FFF_FFFE), "wants 0x3ffffffe-0x40000001"),
        (
            "end of the address space",
            |file| put64(file, LOAD + 24, u64::MAX - 1),
            "wants 0xfffffffffffffffe-0x10000000000000001",
        ),
        (
            "huge",
            |file| put64(file, LOAD + 40, 1 << 62),
            "segment 0 wants 0x100000-0x40000000000fffff",
        ),
        (
            "file",
            |file| put64(file, LOAD + 32, 0x1_0000),
            "segment 0 has 0x10000 bytes in the file and 0x4 in memory",
        ),
        (
            "truncated",
            |file| file.truncate(0x202),
            "segment 0 ends at byte 0x204 of the file, which has 0x202",
        ),
        ("AArch64", |file| put16(file, 0x12, 183), "found code for machine 183"),
        (
            "entry",
            |file| put32(file, NOTE_BYTES + 16, 0xFFF0_0000),
            "the PVH entry 0xfff00000 lies",
        ),
        // The note's segment as another one to load, at the same place.
        (
            "overlap",
            |file| {
                put32(file, NOTE, 1);
                put64(file, NOTE + 24, u64::from(BASE) + 2);
            },
            "segments 0 and 1 both want 0x100002",
        ),
    ];
    for (what, change, words) in cases {
        let mut file = image(&SUCCESS);
        change(&mut file);
        let error = refused(&file);
        assert!(matches!(error, BootError::Image(_)), "{what}: {error:?}");
        assert!(error.to_string().contains(words), "{what}: {error}");
    }
    // With `ld -Ttext=0x100000` the headers come to lie in the page before.
    let mut file = image(&SUCCESS);
    put32(&mut file, NOTE, 1);
    put64(&mut file, NOTE + 24, u64::from(BASE) - 0x1000);
    assert!(matches!(refused(&file), BootError::NoPvhNote));
    // Memory behind the bytes of a segment is its own too, as far as RAM goes.
    for (size, boots) in [((1u64 << 30) - (1 << 20), true), ((1 << 30) - (1 << 20) + 1, false)] {
        let mut file = image(&SUCCESS);
        put64(&mut file, memory, size);
        assert_eq!(u64::from_le_bytes(file[address..address + 8].try_into().unwrap()), 1 << 20);
        let mut machine = Machine::new(&builtin("one-device"));
        let options = Options { image: Some(&file), ..options() };
        assert_eq!(boot::boot(&mut machine, &options).is_ok(), boots, "{size:#x}");
    }
}

/// `ld -m elf_i386` makes these; what is entered is 32-bit code either way.
fn format_of_32_bits() {
    let mut file = vec![0; 0x200];
    file[..16].copy_from_slice(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0");
    put16(&mut file, 0x10, 2); // executable
    put16(&mut file, 0x12, 3); // Intel 80386
    put32(&mut file, 0x14, 1);
    put32(&mut file, 0x18, BASE); // entry
    put32(&mut file, 0x1C, 0x34); // program headers
    put16(&mut file, 0x28, 0x34);
    put16(&mut file, 0x2A, 0x20);
    put16(&mut file, 0x2C, 2);
    // Type, offset, virtual address, physical address, bytes in the file, in memory, flags.
    let load = [1, 0x200, BASE, BASE, 4, 4, 7, 4];
    let note = [4, 0x100, 0, 0, 20, 20, 4, 4];
    for (word, value) in load.into_iter().chain(note).enumerate() {
        put32(&mut file, 0x34 + 4 * word, value);
    }
    put32(&mut file, 0x100, 4);
    put32(&mut file, 0x104, 4);
    put32(&mut file, 0x108, 18);
    file[0x10C..0x110].copy_from_slice(b"Xen\0");
    put32(&mut file, 0x110, BASE);
    file.extend(SUCCESS);
    let options = Options { image: Some(&file), ..options() };
    assert_eq!(run(&builtin("one-device"), &options).run.first.end, End::Exit(0x10));
}

/// Compilers and linkers put notes of their own into the file, in segments of their own.
fn notes() {
    // A build id before the note in its segment, and behind it a segment with nothing but a build
    // id and one with nonsense. "GNU", type 3, four bytes.
    let build_id = b"\x04\0\0\0\x04\0\0\0\x03\0\0\0GNU\0\xDE\xAD\xBE\xEF";
    let mut file = image(&SUCCESS);
    let note = file[NOTE_BYTES..NOTE_BYTES + 20].to_vec();
    let header = file[NOTE..NOTE + 56].to_vec();
    // Four headers end at 0x120, the notes follow them.
    const NOTES: [(usize, u64); 3] = [(0x140, 40), (0x170, 20), (0x190, 7)];
    put16(&mut file, 0x38, 4);
    for (index, (offset, length)) in NOTES.into_iter().enumerate() {
        let at = NOTE + 56 * index;
        file[at..at + 56].copy_from_slice(&header);
        put64(&mut file, at + 8, offset as u64);
        put64(&mut file, at + 32, length);
    }
    file[0x140..0x154].copy_from_slice(build_id);
    file[0x154..0x168].copy_from_slice(&note);
    file[0x170..0x184].copy_from_slice(build_id);
    file[0x190..0x197].fill(0xFF);
    let options = Options { image: Some(&file), ..options() };
    assert_eq!(run(&builtin("one-device"), &options).run.first.end, End::Exit(0x10));
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
    for (line, number, word, expected) in [
        (
            "path=lock-all pathe=unlocked",
            2,
            "pathe=unlocked",
            "expected one of the words mode, payload, ",
        ),
        (
            "broken-sets=wide",
            1,
            "broken-sets=wide",
            "expected behind broken-sets=: narrower, flat or unused",
        ),
        ("quiet strict=1", 2, "strict=1", "expected strict with nothing behind it"),
        ("exits=many", 1, "exits=many", "expected behind exits=: a number"),
    ] {
        let command_line = Some(line.to_owned());
        let ran = run(&builtin("one-device"), &Options { command_line, ..options() });
        assert_eq!(ran.run.last().verdict(), Verdict::Refused);
        let refused = format!("refused: command line: word {number}, \"{word}\": {expected}");
        assert!(ran.console().starts_with(&refused), "{}", ran.console());
        assert!(ran.console().ends_with("\nend: refused\n"), "{}", ran.console());
    }
}

fn unknown_payload() {
    let mut machine = Machine::new(&builtin("one-device"));
    for list in ["tuoch", "touch,", "touch, exec", "none path=unlocked", ""] {
        for options in [
            Options { payload: list, ..options() },
            Options { image: Some(&image(&SUCCESS)), then: Some(list), ..options() },
        ] {
            match boot::boot(&mut machine, &options) {
                Err(GuestError::Payload(name)) => assert!(list.split(',').any(|n| n == name)),
                other => panic!("{list}: {other:?}"),
            }
        }
    }
}
