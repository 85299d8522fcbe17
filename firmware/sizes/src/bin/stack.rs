//! Replays a recording of what verbs of the library read, on a painted stack, and prints how much of it each
//! verb took at most. `harness/tests/stack.rs` records, builds this for a profile and an architecture, and
//! runs it: as a Linux program on x86-64, which reads the recording from its standard input, and on bare
//! aarch64, on QEMU's machine `virt`, where the recording lies at [`machine::RECORDING`].
//!
//! It prints a line `BYTES SAME OTHER NAME` for each verb that ran, with how many of its outcomes are, and are
//! not, those of the recording, and at last `end`.
//!
//! **Invariant**: what is measured is compiled as it is for users: nothing here is inlined into it.

#![no_std]
#![no_main]

use core::fmt::{self, Write};
use core::hint::black_box;
use core::panic::PanicInfo;
use core::ptr;

use cxl_firmware::heapless::Vec;
use cxl_firmware::platform::{Resources, RootBus};
use cxl_regs::{Hpa, Span};
use cxl_sizes::recording::{self, Described, Registers, Room, Runner, Times, Verb, Words};

#[cfg(target_arch = "aarch64")]
#[path = "../stack_aarch64.rs"]
mod machine;
#[cfg(target_arch = "x86_64")]
#[path = "../stack_x86_64.rs"]
mod machine;

/// Where text goes.
struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        machine::write(text.as_bytes());
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Console, "{info}");
    machine::end(1)
}

/// Bytes of stack that are painted, below whatever this program has on it already.
const PAINTED: usize = 128 << 10;
const PAINT: u64 = 0xA5A5_5A5A_C3C3_3C3C;
/// Bytes above the paint that belong to who paints.
const OWN: usize = 512;

/// This program's own: what an operating system gives may grow only while it is used from the top.
#[repr(C, align(16))]
struct Stack([u8; 2 * PAINTED]);

static mut STACK: Stack = Stack([0; 2 * PAINTED]);

/// Paints below its own frame, and says where that is.
#[inline(never)]
fn paint() -> usize {
    let here = 0u64;
    let top = (black_box(&raw const here) as usize - OWN) & !15;
    // Without optimisation an iterator's frames would lie in the paint; a loop has none.
    let mut at = top - PAINTED;
    while at < top {
        // SAFETY: the stack has room for twice the paint, and what this calls, which is a store, needs less
        // than `OWN` below this function's frame.
        unsafe { ptr::write_volatile(at as *mut u64, PAINT) }
        at += size_of::<u64>();
    }
    top
}

/// Bytes that a job takes of the stack, but for those of this function.
#[inline(never)]
fn stack_of(job: &mut dyn FnMut()) -> usize {
    let top = paint();
    job();
    let here = top + OWN;
    for at in (top - PAINTED..top).step_by(size_of::<u64>()) {
        // SAFETY: within the machine's stack, as above.
        if unsafe { ptr::read_volatile(at as *const u64) } != PAINT {
            assert!(at > top - PAINTED, "the stack is too small");
            return here - at;
        }
    }
    // No more than this.
    OWN
}

/// What has been seen so far.
struct Replay {
    words: Words<'static>,
    left: u32,
    registers: Registers<'static>,
    seen: [Seen; Verb::ALL.len()],
}

/// What has been seen of a verb.
#[derive(Clone, Copy)]
struct Seen {
    most: usize,
    same: u32,
    other: u32,
}

impl Runner for Replay {
    type Hardware = Registers<'static>;
    type Time = Times<'static>;

    /// What a program of this profile calls: see those beside this one.
    #[inline(always)]
    fn wants(verb: Verb) -> bool {
        match verb {
            Verb::FlatBringUp | Verb::FlatCedt | Verb::FlatHandOff => true,
            Verb::BringUp
            | Verb::Cedt
            | Verb::CrossCheckHardware
            | Verb::HandOff
            | Verb::Restore => {
                cfg!(any(feature = "typical", feature = "full"))
            }
            // Verbs by themselves are the README's, for a program that has all of them.
            _ => cfg!(feature = "full"),
        }
    }

    fn begin(&mut self) {}

    fn reset(&mut self) {}

    #[inline(never)]
    fn run(
        &mut self,
        verb: Verb,
        job: &mut dyn FnMut(&mut Registers<'static>, &mut Times<'static>) -> u32,
    ) -> Option<u32> {
        // What this profile does not want is passed over.
        let (outcome, reads, times) = loop {
            self.left = self.left.checked_sub(1)?;
            let (number, outcome) = (self.words.word(), self.words.word());
            let (reads, times) = (self.words.list(3), self.words.list(2));
            if number == verb as u32 {
                break (outcome, reads, times);
            }
        };
        let registers = &mut self.registers;
        registers.start(reads);
        let mut found = 0;
        let need = stack_of(&mut || found = job(registers, &mut Times(times)));
        let seen = &mut self.seen[verb as usize];
        seen.most = need.max(seen.most);
        if found != outcome {
            seen.other += 1;
            return None;
        }
        seen.same += 1;
        Some(found)
    }
}

/// What the start code calls.
#[unsafe(no_mangle)]
extern "C" fn begin() -> ! {
    static mut ROOM: Room = Room::new();
    static mut TABLES: [[u8; 64 << 10]; 2] = [[0; 64 << 10]; 2];
    let (room, tables) = (&raw mut ROOM, &raw mut TABLES);
    // SAFETY: this function is called once, and nothing else names this static.
    let room = unsafe { &mut *room };
    // SAFETY: likewise.
    let [mcfg, cedt] = unsafe { &mut *tables };
    let mut replay = Replay {
        words: Words(machine::recording()),
        left: 0,
        registers: Registers::new(),
        seen: [Seen { most: 0, same: 0, other: 0 }; Verb::ALL.len()],
    };
    let cases = replay.words.word();
    for _ in 0..cases {
        let words = &mut replay.words;
        let (mcfg, cedt) = (words.bytes(mcfg), words.bytes(cedt));
        let address_bits = words.word() as u8;
        let mut list = words.list(3);
        let mut roots = Vec::<_, 32>::new();
        while !list.0.is_empty() {
            let uid = list.word();
            let root = RootBus { segment: list.word() as u16, bus: list.word() as u8 };
            roots.push((uid, root)).expect("so many root buses");
        }
        let mut list = words.list(5);
        let mut resources = Vec::<_, 32>::new();
        while !list.0.is_empty() {
            let uid = list.word();
            let span = Span::new(Hpa(list.long()), list.long()).expect("a range");
            resources.push(Resources { uid, span }).expect("so many ranges");
        }
        let policy = recording::policy(words.word());
        replay.left = words.word();
        let roots = &roots;
        let machine = Described { mcfg, cedt, address_bits, roots, resources: &resources };
        let _ = recording::run(&mut replay, &machine, &policy, room);
        // What was recorded beyond.
        for _ in 0..replay.left {
            replay.words.long();
            replay.words.list(3);
            replay.words.list(2);
        }
    }
    assert!(replay.words.0.is_empty(), "{} words are left", replay.words.0.len());
    for verb in Verb::ALL {
        let Seen { most, same, other } = replay.seen[verb as usize];
        if most > 0 {
            let _ = writeln!(Console, "{most} {same} {other} {}", verb.name());
        }
    }
    let _ = writeln!(Console, "end");
    machine::end(0)
}
