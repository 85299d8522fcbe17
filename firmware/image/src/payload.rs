//! What runs once the firmware is done: one small program for each behaviour that has to be seen
//! from inside a guest.
//!
//! **Invariant**: a payload says what it expects and what it found, and ends by itself; the harness
//! compares too.

mod add;
mod attack;
mod bars;
mod bench;
mod dma;
mod execute;
pub(crate) mod linux;
mod memory;
mod path;
mod program;
mod recreate;
mod regrain;
mod restore;
mod trial;
mod widths;

use core::arch::x86_64::__cpuid;

use cxl_attack::NamedMode;
use cxl_firmware::platform::Platform;
use cxl_image::doorbell::Call;

use crate::hw::Hardware;
use crate::vmm::Vmm;
use crate::{Room, port, say};
use linux::Next;
use trial::Instruction;

/// How far [`count`] counts.
const STEPS: u64 = 5000;

/// Payloads that do not go into the memory itself.
const APART: [&str; 6] = ["none", "attack", "attack-judged", "attack-bits", "count", "linux"];

/// Bits of an address that this processor (CPUID leaf 0x80000008, EAX 7:0) and the lower half of
/// four levels of page tables reach.
fn address_bits() -> u32 {
    const SIZES: u32 = 0x8000_0008;
    match __cpuid(1 << 31).eax {
        highest if highest < SIZES => 36,
        _ => (__cpuid(SIZES).eax & 0xFF).min(47),
    }
}

/// Runs payloads by name, several with commas between; whether all their checks passed. `modes` are
/// those that an attack has besides its own.
pub(crate) fn run(
    (list, modes): (&str, &[NamedMode]),
    hw: &mut Hardware,
    room: &mut Room,
    platform: &Platform<'_>,
    next: &mut Next<'_>,
) -> bool {
    let mut checks = Checks { next: 0, passed: true };
    let bits = address_bits();
    let mut spans = room.committed.regions.iter().map(|region| region.span);
    let beyond = spans.find(|span| span.last().0 >> bits != 0);
    for name in list.split(',') {
        if let Some(span) = beyond.filter(|_| !APART.contains(&name)) {
            checks
                .refuse(format_args!("{name}: {span} lies beyond the {bits} bits that it reaches"));
            continue;
        }
        match name {
            // It does not come back, so it has to be the last, and goes only if all is well.
            "linux" if checks.passed => {
                let error = linux::boot(hw, room, next);
                checks.refuse(format_args!("linux: {error}"));
            }
            "linux" => checks.refuse(format_args!("linux: not started after a failed check")),
            "add" => add::later(hw, room, platform, next.policy, &mut checks),
            "restore" => restore::again(hw, room, platform, next.record, &mut checks),
            _ => one((name, modes), hw, room, platform, &mut checks),
        }
    }
    checks.passed
}

fn one(
    (name, modes): (&str, &[NamedMode]),
    hw: &mut Hardware,
    room: &mut Room,
    platform: &Platform<'_>,
    checks: &mut Checks,
) {
    match name {
        "none" => {}
        "touch" => memory::touch(hw, room, checks),
        "half" => memory::half(hw, room, platform, checks),
        "exec" => execute::exec(hw, room, checks),
        // They expect what KVM does with an instruction that it has to emulate, and announce it.
        "sse" | "xsavec" | "jump" if hw.vmm != Vmm::Harness => {
            checks.refuse(format_args!("{name} shows what KVM does: it needs cxl-harness"));
        }
        "sse" => trial::run(Instruction::Load, hw, room, checks),
        "xsavec" => trial::run(Instruction::Save, hw, room, checks),
        "jump" => trial::run(Instruction::Jump, hw, room, checks),
        "recreate" => recreate::recreate(hw, room, platform, checks),
        "regrain" => regrain::regrain(hw, room, checks),
        "program" => program::program(hw, room, platform, checks),
        "bars" => bars::bars(hw, room, platform, checks),
        "widths" => widths::widths(hw, room, checks),
        "attack" => attack::attack(hw, room, platform, modes),
        "attack-judged" => attack::judged(hw, room, platform, modes, checks),
        "attack-bits" => attack::bits(hw, room, platform, checks),
        "bench" => bench::run(hw, room, checks),
        "bench-peer" => bench::peer(hw, room, checks),
        "dma" => dma::dma(hw, room, platform, checks),
        "count" => count(),
        "cost" => bench::cost(hw, room),
        "sweep" => bench::sweep_alone(hw, room, checks),
        _ => checks.refuse(format_args!("there is no payload \"{name}\"")),
    }
}

/// Checks, numbered in the order they are made.
struct Checks {
    next: u64,
    passed: bool,
}

impl Checks {
    fn equal(&mut self, what: core::fmt::Arguments<'_>, expected: u64, found: u64) {
        let (id, passed) = (self.next, expected == found);
        self.next += 1;
        self.passed &= passed;
        port::call(Call::Check { id, passed, expected, found });
        if !passed {
            say(format_args!("check {id}: {what}: expected {expected:#x}, found {found:#x}"));
        }
    }

    /// The payload cannot do on this machine what it is for.
    fn refuse(&mut self, why: core::fmt::Arguments<'_>) {
        self.passed = false;
        say(format_args!("payload: {why}"));
    }
}

/// Counts while the host does something to the machine.
fn count() {
    for value in 0..=STEPS {
        port::call(Call::Count { value });
    }
}
