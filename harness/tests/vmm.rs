//! The VMM with guests of other make: tiny PVH images, assembled here by hand, that program
//! decoders badly, leave one unlocked, count, loop, or die; and our own image where it is told what
//! to find.
//!
//! Every test needs `/dev/kvm` and is ignored, with the reason, where it does not open.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "guest/elf.rs"]
mod elf;
#[path = "../model/tests/rig/mod.rs"]
mod rig;
mod trial;

use std::process::ExitCode;
use std::time::Duration;

use cxl_firmware::Code;
use cxl_firmware::error::Phase;
use cxl_firmware::handoff;
use cxl_harness::attack::{Class, Detail};
use cxl_harness::dma::{DmaError, Moved};
use cxl_harness::guest::boot::{GuestError, GuestRun, HostRun, LockBy, Options, Verdict, boot};
use cxl_harness::guest::engine::Fault;
use cxl_harness::kvm::{self, Call as SlotCall, End, Hint, Input, Reason, instruction};
use cxl_harness::mirror::Unmirrored;
use cxl_harness::report::Report;
use cxl_harness::run::{self, Refusal};
use cxl_image::doorbell::Call;
use cxl_model::machine::{Machine, PlugError};
use cxl_model::mapping::Reach;
use cxl_model::scenario::{Place, Scenario, builtins};
use cxl_model::trace::Traffic;
use cxl_regs::Dpa;
use elf::LOW;
use rig::*;
use trial::{claim, unless};

/// 32-bit code at CPL 0, as the PVH entry starts it, and the ELF file around it.
#[derive(Default)]
struct Program(Vec<u8>);

/// Where it builds messages for the doorbell.
const MESSAGE: u32 = 0x20_0000;

impl Program {
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// mov dword [address], value
    fn store(self, address: u32, value: u32) -> Self {
        self.bytes(&[0xC7, 0x05]).bytes(&address.to_le_bytes()).bytes(&value.to_le_bytes())
    }

    /// mov byte [address], value
    fn store_byte(self, address: u32, value: u8) -> Self {
        self.bytes(&[0xC6, 0x05]).bytes(&address.to_le_bytes()).bytes(&[value])
    }

    /// mov eax, [address]
    fn load(self, address: u32) -> Self {
        self.bytes(&[0xA1]).bytes(&address.to_le_bytes())
    }

    /// mov dx, port; out dx, eax
    fn out(self, port: u16) -> Self {
        self.bytes(&[0x66, 0xBA]).bytes(&port.to_le_bytes()).bytes(&[0xEF])
    }

    /// Four bytes of memory to the console.
    fn print(self, address: u32) -> Self {
        self.load(address).out(0x3F8)
    }

    /// Two megabytes of ones: cld; mov edi, address; mov ecx, dwords; mov eax, -1; rep stosd
    fn fill(self, address: u32) -> Self {
        self.bytes(&[0xFC, 0xBF])
            .bytes(&address.to_le_bytes())
            .bytes(&[0xB9, 0x00, 0x00, 0x08, 0x00, 0xB8, 0xFF, 0xFF, 0xFF, 0xFF, 0xF3, 0xAB])
    }

    /// Rings the doorbell with a count.
    fn count(self, value: u32) -> Self {
        // Kind 3, then the value, both 64 bits; then mov eax, MESSAGE.
        self.store(MESSAGE, 3)
            .store(MESSAGE + 8, value)
            .bytes(&[0xB8])
            .bytes(&MESSAGE.to_le_bytes())
            .out(0xF8)
    }

    /// mov al, status; out 0xF4, al
    fn exit(self, status: u8) -> Self {
        self.bytes(&[0xB0, status, 0xE6, 0xF4])
    }

    /// Programs a decoder as [`rig::program`] does.
    fn decoder(self, at: u64, (base, size, route): (u64, u32, u32), control: u32) -> Self {
        let at = at as u32;
        self.store(at, base as u32)
            .store(at + 0x04, (base >> 32) as u32)
            .store(at + 0x08, size)
            .store(at + 0x0C, 0)
            .store(at + 0x14, route)
            .store(at + 0x18, 0)
            .store(at + 0x10, control)
    }

    /// The ELF file.
    fn elf(self) -> Vec<u8> {
        elf::image(&self.0)
    }
}

const LOW_WINDOW: u32 = 0x4000_0000;
const LOW_SIZE: u32 = 0x1000_0000;

/// Runs a foreign image, whose end is checked by the caller.
fn foreign(machine: &mut Machine, program: Program, options: Options<'_>) -> GuestRun {
    let image = program.elf();
    boot(machine, &Options { image: Some(&image), ..options }).unwrap()
}

fn builtin_machine(name: &str) -> Machine {
    Machine::new(&Scenario::built_in(name).unwrap())
}

fn console(run: &GuestRun) -> String {
    String::from_utf8_lossy(&run.console).into_owned()
}

/// Four bytes each, as [`Program::print`] sends them.
fn printed(run: &GuestRun) -> Vec<u32> {
    run.console.chunks(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect()
}

/// The whole path of [`LOW`]'s device at the start of the window, programmed by somebody.
fn program_path(machine: &Machine, device_control: u32, bridge_control: u32) -> Program {
    let base = machine.map().windows[0].unwrap().0;
    let range = |route| (base, LOW_SIZE, route);
    let (mem0, hb0) = (decoder(machine, "mem0", 0), decoder(machine, "hb0", 0));
    let global = component(machine, "mem0") + GLOBAL;
    Program::default()
        .decoder(mem0, range(0), HOST_ONLY | COMMIT | device_control)
        .store(global as u32, 2)
        .store((dvsec(machine, "mem0") + 0x0C) as u32, 4)
        .decoder(hb0, range(5), HOST_ONLY | COMMIT | bridge_control)
}

// Who locks.

fn host_and_image_lock_the_same_decoders() {
    let mut locked = 0;
    for found in builtins() {
        let name = found.name;
        let (mut by_image, mut by_host) = (builtin_machine(name), builtin_machine(name));
        // Faults count accesses, of which there are more with two at work.
        if !by_image.scenario().faults.is_empty() {
            continue;
        }
        let options = Options::default();
        let image = boot(&mut by_image, &options).unwrap();
        let host = match boot(&mut by_host, &Options { lock_by: LockBy::Vmm, ..options }) {
            Ok(run) => run,
            // Only the text of a scenario can ask for more than there are words for.
            Err(GuestError::Refused(Refusal::Scenario(_))) => continue,
            Err(GuestError::Host(done)) => {
                let refusal = done.refusal.unwrap();
                let expected = (End::Exit(0x11), Some(refusal.code()));
                // Before there is a machine to speak of, there is no record to carry the number.
                let code = image.last().code().or(Some(refusal.code()));
                assert_eq!((image.first.end, code), expected, "{name}");
                continue;
            }
            Err(error) => panic!("{name}: {error}"),
        };
        for run in [&image, &host] {
            let end = (&run.first.end, run.last().code());
            assert_eq!(end, (&End::Exit(0x10), Some(0)), "{name}: {}", console(run));
        }
        assert_eq!(console(&image), console(&host), "{name}");
        assert_eq!(by_image.fabric(), by_host.fabric(), "{name}");
        assert_eq!(image.last().cedt(), host.last().cedt(), "{name}");
        let facts = |run: &GuestRun| {
            let record = handoff::read(run.last().record()).unwrap();
            (record.regions().collect::<Vec<_>>(), record.decoders().collect::<Vec<_>>())
        };
        assert_eq!(facts(&image), facts(&host), "{name}");
        // The image found everything done: all writes to decoders are the host's.
        let HostRun { done, traffic } = host.host.as_ref().unwrap();
        assert_eq!(decoder_writes(by_image.traffic()), decoder_writes(traffic), "{name}");
        assert_eq!(decoder_writes(by_host.traffic()), [], "{name}");
        assert_eq!(done.cedt, host.last().cedt(), "{name}");
        locked += usize::from(!decoder_writes(traffic).is_empty());
    }
    assert!(locked >= 8, "{locked}");
}

/// How our image ended that ran afterwards, if it did.
fn then(run: &GuestRun) -> Option<End> {
    run.second.as_ref().map(|second| second.end.clone())
}

fn refusal_by_the_host_starts_no_guest() {
    let mut machine = builtin_machine("no-window");
    let options = Options {
        lock_by: LockBy::Vmm,
        on_console: |_| panic!("the guest ran"),
        ..Options::default()
    };
    match boot(&mut machine, &options) {
        Err(GuestError::Host(done)) => {
            let refusal = done.refusal.unwrap();
            let Refusal::Library(error) = refusal else { panic!("{refusal}") };
            assert_eq!(error.phase(), Phase::Plan, "{error}");
        }
        other => panic!("{other:?}"),
    }
}

/// Writes to each decoder.
fn decoder_writes(traffic: &Traffic) -> Vec<(Place, u8, u64)> {
    let decoders = traffic.decoders.iter();
    decoders
        .map(|(&(place, decoder), count)| (place, decoder, count.all().writes))
        .filter(|(.., writes)| *writes != 0)
        .collect()
}

// Devices that come and go, and resets.

fn events(text: &str, list: &str) -> Machine {
    machine(&format!("{text}\n{list}"))
}

fn bad_hot_add_is_an_error_and_the_guest_counts_on() {
    let mut machine = events(
        LOW,
        "[[device]]\nname = \"late\"\nbelow = \"rp0\"\npresent = false\nvolatile = \"256MiB\"\n\
         [[bridge]]\nname = \"bare\"\nuid = 99\n[[port]]\nname = \"rp9\"\nbelow = \"bare\"\n\
         [[device]]\nname = \"lost\"\nbelow = \"rp9\"\npresent = false\nvolatile = \"256MiB\"\n\
         [[event]]\nat = 2\naction = \"hot-add\"\ndevice = \"late\"\n\
         [[event]]\nat = 3\naction = \"hot-add\"\ndevice = \"mem0\"\n\
         [[event]]\nat = 4\naction = \"hot-add\"\ndevice = \"lost\"\n\
         [[event]]\nat = 9\naction = \"hot-remove\"\ndevice = \"mem0\"\n",
    );
    let program = (1..=5).fold(Program::default(), Program::count).exit(7);
    let run = foreign(&mut machine, program, Options::default());
    assert_eq!(run.first.end, End::Exit(7));
    let counts: Vec<_> = (1..=5).map(|value| Call::Count { value }).collect();
    assert_eq!(run.last().said.calls[..], counts);
    let results: Vec<_> = run.happened.iter().map(|event| (event.count, event.result)).collect();
    let taken = Err(PlugError::PortTaken { port: 0, by: place(&machine, "mem0") });
    let nowhere = Err(PlugError::NoWindow { device: 2, bridge: 1, uid: 99 });
    let present = Err(PlugError::Present { device: 0 });
    assert_eq!(results, [(2, taken), (3, present), (4, nowhere)]);
}

fn removal_of_a_locked_device_takes_its_slot_and_leaves_the_bridge_locked() {
    let mut machine =
        events(LOW, "[[event]]\nat = 1\naction = \"hot-remove\"\ndevice = \"mem0\"\n");
    let function = config(&machine, "mem0") as u32;
    let bridge = decoder(&machine, "hb0", 0) as u32 + 0x10;
    let program = Program::default()
        .store(LOW_WINDOW, 0x1234_5678)
        .print(LOW_WINDOW)
        .print(function)
        .count(1)
        .print(LOW_WINDOW)
        .print(function)
        .store(bridge, 0)
        .print(bridge)
        .count(2)
        .exit(1);
    let options = Options { lock_by: LockBy::Vmm, ..Options::default() };
    let run = foreign(&mut machine, program, options);
    assert_eq!(run.first.end, End::Exit(1));
    let printed = printed(&run);
    assert_eq!(printed[0], 0x1234_5678);
    assert_ne!(printed[1], u32::MAX);
    assert_eq!(printed[2..4], [u32::MAX, u32::MAX]);
    assert_eq!(printed[4] & (COMMITTED | LOCK), COMMITTED | LOCK);
    let base = LOW_WINDOW.into();
    let log = [SlotCall::Add { base, size: LOW_SIZE.into() }, SlotCall::Remove { base }];
    assert_eq!(run.slot_log[..], log);
    // One exit in the window: the load after the removal.
    assert_eq!(run.counts.window, 1);
    assert_eq!(run.last().said.calls.len(), 2);
}

fn resets_from_the_host_clear_what_they_clear() {
    for (kind, bridge_stays, device_stays, device) in [
        ("cold", false, false, ""),
        ("warm", false, false, ""),
        ("hot", true, false, ""),
        ("cxl", true, true, "device = \"mem0\"\n"),
        ("flr", true, true, "device = \"mem0\"\n"),
    ] {
        let event = format!("[[event]]\nat = 1\naction = \"reset\"\nkind = \"{kind}\"\n{device}");
        let mut machine = events(LOW, &event);
        let controls = ["hb0", "mem0"].map(|name| decoder(&machine, name, 0) as u32 + 0x10);
        let program = Program::default().count(1).print(controls[0]).print(controls[1]).exit(1);
        let run =
            foreign(&mut machine, program, Options { lock_by: LockBy::Vmm, ..Options::default() });
        assert_eq!(run.first.end, End::Exit(1));
        assert!(run.happened.iter().all(|event| event.result.is_ok()), "{kind}");
        let locked: Vec<_> = printed(&run).iter().map(|control| control & LOCK != 0).collect();
        // FLR takes BARs and Memory Space with it, so the device's own answer is that of nobody.
        assert_eq!(locked[0], bridge_stays, "{kind}");
        let committed = machine.fabric().devices[0].hdm.as_ref().unwrap().decoders[0];
        assert_eq!(committed.control().committed(), device_stays, "{kind}");
    }
}

// The component BAR.

fn plain_pages_of_a_bar_cause_no_exit_and_registers_do() {
    let text = LOW.replace("below = \"rp0\"", "below = \"rp0\"\nkind = \"type2\"");
    let mut machine = machine(&text);
    let block = component(&machine, "mem0") as u32;
    let function = config(&machine, "mem0") as u32;
    let mut program = Program::default();
    for offset in [0x2000, 0x5004, 0xDFFC] {
        program = program.store(block + offset, offset).print(block + offset);
    }
    // Odd widths are fine there, and dropped and counted among registers.
    program = program.store_byte(block + 0x2001, 0xAB).print(block + 0x2000);
    program = program.store_byte(block + GLOBAL as u32, 2).print(block + GLOBAL as u32);
    // Moved by 128 KiB within the port's window, the memory is at its new place.
    program = program.store(function + 0x10, block + 0x2_0000).print(block + 0x2_2000);
    program = program.print(block + 0x2000).exit(1);
    let run = foreign(&mut machine, program, Options::default());
    assert_eq!(run.first.end, End::Exit(1));
    assert_eq!(printed(&run), [0x2000, 0x5004, 0xDFFC, 0xAB00, 0, 0xAB00, u32::MAX]);
    // The two accesses to Global Control, the BAR, and the load where nothing is any more.
    assert_eq!((run.counts.reads, run.counts.writes), (2, 2));
    assert_eq!(machine.traffic().ragged, 1);
    let (base, size) = (u64::from(block) + 0x2000, 0xC000);
    let log = [
        SlotCall::Add { base, size },
        SlotCall::Remove { base },
        SlotCall::Add { base: base + 0x2_0000, size },
    ];
    assert_eq!(run.slot_log[..], log);
}

fn bar_and_decoders_put_over_ram_and_each_other_fail_no_ioctl() {
    let text = LOW.replace("below = \"rp0\"", "below = \"rp0\"\nkind = \"type2\"");
    let text = format!(
        "{text}[[device]]\nname = \"acc1\"\nbelow = \"rp1\"\nkind = \"type2\"\n\
         volatile = \"256MiB\"\n"
    );
    let mut machine = machine(&text);
    let block = component(&machine, "mem0") as u32;
    let (first, second) = (config(&machine, "mem0") as u32, config(&machine, "acc1") as u32);
    let port = config(&machine, "rp1") as u32;
    let mut program = program_path(&machine, 0, 0);
    let open = 0xFFF0_8000;
    for address in [0, 0x10_0000, LOW_WINDOW, 0xC000_0000, 0xE010_0000, 0xFEE0_0000, block] {
        program = program
            .store(port + 0x20, open)
            .store(second + 0x10, address)
            .store(first + 0x10, address);
    }
    let run = foreign(&mut machine, program.exit(1), Options::default());
    assert_eq!(run.first.end, End::Exit(1), "{run:?}");
}

// Foreign images.

fn verdict(machine: &mut Machine) -> Option<Refusal> {
    run::require_locked(machine).refusal
}

fn an_unlocked_decoder_of_a_foreign_image_is_found() {
    for (device, bridge, expected) in
        [(LOCK, LOCK, None), (LOCK, 0, Some("hb0")), (0, LOCK, Some("mem0")), (0, 0, Some("mem0"))]
    {
        let mut machine = machine(LOW);
        let program = program_path(&machine, device, bridge).exit(0);
        let run = foreign(&mut machine, program, Options::default());
        assert_eq!(run.first.end, End::Exit(0));
        assert_eq!(run.mirror.slots.len(), 1, "whoever programmed it, it is mirrored");
        match (verdict(&mut machine), expected) {
            (None, None) => {}
            (Some(Refusal::Library(error)), Some(name)) => {
                assert_eq!(error.code, Code::VERIFY_UNLOCKED_ON_PATH, "{error}");
                let at_bridge = !error.at.to_string().contains("port");
                assert_eq!(at_bridge, name == "hb0", "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
}

fn a_decoder_programmed_badly_gets_no_slot_and_a_reason() {
    for (what, base, route, reason) in [
        ("no such port", LOW_WINDOW, 9, "no-such-port"),
        ("nothing plugged in there", LOW_WINDOW, 6, "not-in-target-list"),
        ("another range", LOW_WINDOW + LOW_SIZE, 5, "not-covered"),
    ] {
        let mut machine = machine(LOW);
        let hb0 = decoder(&machine, "hb0", 0);
        let program = program_path(&machine, 0, 0)
            .store(hb0 as u32 + 0x10, HOST_ONLY)
            .decoder(hb0, (base.into(), LOW_SIZE, route), HOST_ONLY | COMMIT)
            .exit(0);
        let run = foreign(&mut machine, program, Options::default());
        assert_eq!(run.first.end, End::Exit(0));
        assert_eq!(run.mirror.slots, [], "{what}");
        let Reach::Trapped { reason: found } = run.mirror.mappings[0].how else { panic!("{what}") };
        assert_eq!(found.name(), reason, "{what}");
    }
}

fn our_image_runs_after_theirs_on_what_they_left() {
    let looping = |program: Program| program.bytes(&[0xEB, 0xFE]);
    let halting = |program: Program| program.bytes(&[0xF4]);
    let until = |program: Program| program.out(0x80).bytes(&[0x0F, 0x0B]);
    // mov eax, [where nothing is]; jmp back: time runs out in the middle of an access.
    let polling = |program: Program| program.load(0xF000_0000).bytes(&[0xEB, 0xF9]);
    type Ending = (&'static str, fn(Program) -> Program, fn(&End) -> bool);
    let endings: [Ending; 5] = [
        ("exit", |program| program.exit(3), |end| *end == End::Exit(3)),
        ("halt", halting, |end| *end == End::Halt),
        ("port", until, |end| *end == End::Port(0x80)),
        ("time", looping, |end| matches!(end, End::TimedOut { .. })),
        ("time, polling", polling, |end| matches!(end, End::TimedOut { .. })),
    ];
    // A window that our image has to build page tables for.
    let text = LOW.replace("0x40000000", "0x100000000");
    for (what, ending, ended) in endings {
        let mut machine = machine(&format!("{text}[policy]\nconfig_lock = false\n"));
        let mark = (Dpa(0x12_3400), [0x60, 0x0D]);
        assert!(machine.endpoint_mut(0).unwrap().media.write(mark.0, &mark.1));
        // RAM where our image comes to lie is full of ones.
        let program = ending(program_path(&machine, LOCK, 0).fill(elf::BASE + 0x1_0000));
        let image = program.elf();
        let options = Options {
            image: Some(&image),
            until_port: Some(0x80),
            then: Some("touch"),
            timeout: Duration::from_secs(if what.starts_with("time") { 2 } else { 30 }),
            ..Options::default()
        };
        let run = boot(&mut machine, &options).unwrap();
        assert!(ended(&run.first.end), "{what}: {:?}", run.first.end);
        // The bridge is not locked, which a look at memory does not ask and the host tells.
        assert_eq!(then(&run), Some(End::Exit(0x10)), "{what}: {}", console(&run));
        assert_eq!(run.last().code(), Some(0), "{what}");
        let failures = Report::of_guest(&machine, &run).facts.failures();
        let mixed =
            "half a path is locked: mem0 decoder 0 is, hb0 decoder 0 on the same path is not";
        assert!(failures.iter().any(|failure| failure.starts_with(mixed)), "{what}: {failures:?}");
        assert!(
            run.last()
                .said
                .calls
                .iter()
                .all(|call| !matches!(call, Call::Check { passed: false, .. }))
        );
        assert!(
            run.last().said.calls.iter().any(|call| matches!(call, Call::Check { .. })),
            "{what}"
        );
        let record = handoff::read(run.last().record()).unwrap();
        assert_eq!(record.decoders().count(), 2, "{what}");
        let theirs: Vec<_> =
            decoder_writes(machine.traffic()).iter().map(|entry| entry.2).collect();
        assert_eq!(theirs, [7, 7], "{what}: our image wrote to decoders");
        // Contents are as they were, but for the pages that the payload wrote to.
        let mut bytes = [0; 2];
        assert!(machine.endpoint(0).unwrap().media.read(mark.0, &mut bytes));
        assert_eq!(bytes, mark.1, "{what}");
    }
}

fn our_attack_runs_on_what_a_foreign_image_left() {
    // Locked or not, hardware that keeps the rules holds; the verifier tells which it was.
    for (bridge, verified) in [(LOCK, 0x10), (0, 0x11)] {
        let mut machine = machine(&format!("{LOW}[policy]\nconfig_lock = false\n"));
        let image = program_path(&machine, LOCK, bridge).exit(0).elf();
        let options = Options {
            image: Some(&image),
            then: Some("attack"),
            timeout: Duration::from_secs(300),
            ..Options::default()
        };
        let run = boot(&mut machine, &options).unwrap();
        assert_eq!(run.first.end, End::Exit(0));
        assert_eq!(then(&run), Some(End::Exit(verified)), "{}", console(&run));
        let attack = run.attack.unwrap();
        assert!(attack.tried > 1000);
        assert_eq!(attack.tried, attack.held + attack.allowed + attack.changed);
        let breach = |detail: &&Detail| detail.decoder.is_some() && detail.class == Class::Changed;
        assert_eq!(attack.details.iter().find(breach), None);
    }
}

/// Registers of the DMA engine: bus 0 of the first segment.
const ENGINE: u32 = 0x8000_0000;

/// Whatever transfer an image has left running, and whatever it has said, ours starts afresh.
fn our_image_finds_neither_transfers_nor_words_of_the_one_before() {
    // A transfer of a megabyte of zeroes over our image, a page with each access of the guest; the
    // first page is this program's own.
    let mut transfer = Program::default();
    for (word, value) in [0x80_0000, 0, elf::BASE + 0x1000, 0, 0x10_0000, 0].into_iter().enumerate()
    {
        transfer = transfer.store(MESSAGE + 4 * word as u32, value);
    }
    let registers = [(0x00, MESSAGE), (0x04, 0), (0x08, 1), (0x0C, 1)];
    let transfer =
        registers.into_iter().fold(transfer, |code, (at, value)| code.store(ENGINE + at, value));
    // A check that failed, an internal error to come, and an attack under way.
    let mut words = Program::default();
    for message in [[4, 0, 0, 0], [5, 3, 0xC010_0004, 0], [1, 0x1234, 0, 0]] {
        for (word, value) in message.into_iter().enumerate() {
            words = words
                .store(MESSAGE + 8 * word as u32, value)
                .store(MESSAGE + 8 * word as u32 + 4, 0);
        }
        words = words.bytes(&[0xB8]).bytes(&MESSAGE.to_le_bytes()).out(0xF8);
    }
    let cases = [("DMA", transfer), ("words", words)];
    for (what, program) in cases {
        let mut machine = machine(LOW);
        let image = program.exit(7).elf();
        let options = Options { image: Some(&image), then: Some("none"), ..Options::default() };
        let run = boot(&mut machine, &options).unwrap();
        assert_eq!(run.first.end, End::Exit(7), "{what}");
        assert_eq!(then(&run), Some(End::Exit(0x10)), "{what}: {:?}", then(&run));
        assert_eq!(run.last().verdict(), Verdict::Good, "{what}");
        assert!(
            run.last().said.calls.iter().all(|call| matches!(call, Call::HandOff { .. })),
            "{what}"
        );
        assert_eq!((run.last().said.announced.len(), run.transfers.len()), (0, 0), "{what}");
        assert!(run.attack.is_none(), "{what}");
    }
}

fn an_image_that_dies_is_no_reason_to_run_ours() {
    let mut machine = machine(LOW);
    // ud2 without an IDT of its own.
    let image = Program::default().bytes(&[0x0F, 0x0B]).elf();
    let options = Options { image: Some(&image), then: Some("none"), ..Options::default() };
    let run = boot(&mut machine, &options).unwrap();
    match &run.first.end {
        End::Failed(failure) => {
            assert_eq!(failure.reason, Reason::Fault { vector: 6, address: None });
            assert_eq!(failure.rip, u64::from(elf::BASE));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(then(&run), None);
}

fn a_loop_ends_by_the_time_limit() {
    let mut machine = machine(LOW);
    let timeout = Duration::from_millis(300);
    let program = Program::default().bytes(&[0xEB, 0xFE]);
    let run = foreign(&mut machine, program, Options { timeout, ..Options::default() });
    let End::TimedOut { rip, instruction, .. } = &run.first.end else {
        panic!("{:?}", run.first.end)
    };
    assert_eq!(*rip, u64::from(elf::BASE));
    assert!(instruction.starts_with(&[0xEB, 0xFE]), "{instruction:x?}");
}

/// Five times what the serial port holds at once; and nothing, while nobody asked for interrupts of it.
fn what_is_typed_waits_until_the_guest_listens() {
    let program = Program::default()
        // xor ebx, ebx; mov ecx, 2000; again: mov dx, 0x3FD; in al, dx; or bl, al; loop again
        .bytes(&[0x31, 0xDB, 0xB9, 0xD0, 0x07, 0, 0, 0x66, 0xBA, 0xFD, 0x03, 0xEC])
        .bytes(&[0x08, 0xC3, 0xE2, 0xF7])
        // and bl, 1; add bl, '0'; mov al, bl; mov dx, 0x3F8; out dx, al
        .bytes(&[0x80, 0xE3, 0x01, 0x80, 0xC3, 0x30, 0x88, 0xD8, 0x66, 0xBA, 0xF8, 0x03, 0xEE])
        // mov dx, 0x3F9; mov al, 1; out dx, al
        .bytes(&[0x66, 0xBA, 0xF9, 0x03, 0xB0, 0x01, 0xEE])
        // next: mov dx, 0x3FD; in al, dx; test al, 1; jz next
        .bytes(&[0x66, 0xBA, 0xFD, 0x03, 0xEC, 0xA8, 0x01, 0x74, 0xF7])
        // mov dx, 0x3F8; in al, dx; out dx, al; cmp al, '.'; jne next
        .bytes(&[0x66, 0xBA, 0xF8, 0x03, 0xEC, 0xEE, 0x3C, 0x2E, 0x75, 0xED])
        .exit(0x31);
    let text: Vec<u8> = (b'A'..=b'Z').cycle().take(320).chain([b'.']).collect();
    let input = Some(Input::of(std::io::Cursor::new(text.clone())).unwrap());
    // All of it is there before the guest is.
    std::thread::sleep(Duration::from_millis(100));
    let mut machine = machine(LOW);
    let run = foreign(&mut machine, program, Options { input, ..Options::default() });
    assert_eq!(run.first.end, End::Exit(0x31), "{}", console(&run));
    assert_eq!(run.console, [b"0".as_slice(), &text].concat());
}

fn an_instruction_that_the_emulator_does_not_know_is_called_by_its_family() {
    let mut machine = machine(LOW);
    // mov eax, cr4; or eax, OSFXSR; mov cr4, eax; movaps xmm0, [0x100000]
    let program = Program::default()
        .bytes(&[0x0F, 0x20, 0xE0, 0x0D, 0x00, 0x02, 0x00, 0x00, 0x0F, 0x22, 0xE0])
        .bytes(&[0x0F, 0x5E, 0xC1])
        .exit(9);
    let run = foreign(&mut machine, program, Options::default());
    match run.first.end {
        // Ordinary KVM runs it.
        End::Exit(9) => {}
        End::Failed(failure) => {
            assert_eq!(failure.hint, Some(Hint::EmulatedRing0(Some(instruction::Family::Sse))));
            assert!(failure.to_string().contains("an SSE instruction at CPL 0"), "{failure}");
        }
        other => panic!("{other:?}"),
    }
}

fn an_image_without_a_pvh_entry_or_that_is_no_elf_is_an_error() {
    let mut machine = machine(LOW);
    let mut elf = Program::default().exit(0).elf();
    // The note's name.
    let name = elf.windows(4).position(|four| four == b"Xen\0").unwrap();
    elf[name] = b'x';
    for image in [elf, b"no image".to_vec(), Vec::new()] {
        let result = boot(&mut machine, &Options { image: Some(&image), ..Options::default() });
        assert!(matches!(result, Err(GuestError::Boot(_))), "{result:?}");
    }
}

// DMA by a guest.

fn dma_moves_the_same_bytes_whether_the_window_is_mirrored_or_not() {
    for mirror in [true, false] {
        let mut machine = builtin_machine("one-device");
        let options = Options { payload: "dma", mirror, ..Options::default() };
        let run = boot(&mut machine, &options).unwrap();
        assert_eq!(run.first.end, End::Exit(0x10), "{}", console(&run));
        let checks =
            run.last().said.calls.iter().filter(|call| matches!(call, Call::Check { .. })).count();
        assert!(checks > 20, "{checks}");
        let size = 64 << 10;
        let way = |bytes| match mirror {
            true => Moved { direct: bytes, bounced: 0 },
            false => Moved { direct: 0, bounced: bytes },
        };
        let moved: Vec<_> = run.transfers.iter().map(|ended| ended.moved).collect();
        assert_eq!(moved, [way(size), way(size), way(size), way(4096)]);
        // The second and third were in flight together.
        let together: Vec<_> = run.transfers.iter().map(|ended| ended.together).collect();
        assert_eq!(together, [1, 2, 2, 1]);
        let errors: Vec<_> = run.transfers.iter().map(|ended| ended.error).collect();
        assert_eq!(errors[..3], [None; 3]);
        assert!(
            matches!(errors[3], Some(Fault::Memory(DmaError::NothingDecodes { .. }))),
            "{errors:?}"
        );
        let off = run.mirror.unmirrored.iter().any(|(_, why)| *why == Unmirrored::Off);
        assert_eq!(off, !mirror);
    }
}

fn main() -> ExitCode {
    type Test = (&'static str, fn());
    macro_rules! tests {
        ($($name:ident),* $(,)?) => { [$((stringify!($name), $name as fn())),*] };
    }
    let tests: Vec<Test> = tests![
        host_and_image_lock_the_same_decoders,
        refusal_by_the_host_starts_no_guest,
        bad_hot_add_is_an_error_and_the_guest_counts_on,
        removal_of_a_locked_device_takes_its_slot_and_leaves_the_bridge_locked,
        resets_from_the_host_clear_what_they_clear,
        plain_pages_of_a_bar_cause_no_exit_and_registers_do,
        bar_and_decoders_put_over_ram_and_each_other_fail_no_ioctl,
        an_unlocked_decoder_of_a_foreign_image_is_found,
        a_decoder_programmed_badly_gets_no_slot_and_a_reason,
        our_image_runs_after_theirs_on_what_they_left,
        our_attack_runs_on_what_a_foreign_image_left,
        our_image_finds_neither_transfers_nor_words_of_the_one_before,
        an_image_that_dies_is_no_reason_to_run_ours,
        a_loop_ends_by_the_time_limit,
        what_is_typed_waits_until_the_guest_listens,
        an_instruction_that_the_emulator_does_not_know_is_called_by_its_family,
        an_image_without_a_pvh_entry_or_that_is_no_elf_is_an_error,
        dma_moves_the_same_bytes_whether_the_window_is_mirrored_or_not,
    ]
    .to_vec();
    let without = kvm::available().err();
    if let Some(error) = &without {
        eprintln!("ignored: {error}");
    }
    let lack = || without.as_ref().map(|_| "no /dev/kvm");
    let trials = tests.into_iter().map(|(name, test)| unless(lack(), claim(name, test)));
    trial::run(trials.collect())
}
