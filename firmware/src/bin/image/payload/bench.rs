//! Measures, from inside, what an access costs: in a mirrored window, in plain RAM, and where it
//! traps. Always in pairs (A, B), A first in even pairs and B first in odd ones.
//!
//! **Invariant**: both halves of a pair run the same instructions on ranges of the same size, so
//! their ratio says something even on a noisy host.

use core::ptr;

use cxl_firmware::doorbell::{Call, EMPTY_HANDLER, Figure};

use super::Checks;
use crate::hw::{Counter, Hardware};
use crate::{Room, port};

/// Pairs per figure; the first one warms up and is not reported.
const PAIRS: u64 = 32;
/// Plain RAM that nobody else uses: the harness's bench machine has 1 GiB.
const RAM: u64 = 0x2000_0000;
const BYTES: u64 = 64 << 20;
const LINE: u64 = 64;
const PAGE: u64 = 4096;
const ACCESSES: u64 = 1 << 18;
const TRAPS: u64 = 64;

/// Runs all figures.
pub(super) fn run(hw: &mut Hardware, room: &Room, checks: &mut Checks) {
    let Some(region) = room.committed.regions.first() else {
        return checks.refuse(format_args!("no region to measure in"));
    };
    let window = region.span.base().0;
    let regions = &room.committed.regions;
    let free = |at: &u64| !regions.iter().any(|other| other.span.base().0 == *at);
    let behind = regions.iter().map(|region| region.span.end().0).find(free).unwrap_or(window);
    if region.span.size() < BYTES {
        return checks.refuse(format_args!("the region is smaller than 64 MiB"));
    }
    for base in [window, RAM] {
        hw.map(base, BYTES);
        fill(base);
    }
    hw.map(behind, 8);
    hw.map(EMPTY_HANDLER, 8);
    pairs(Figure::Sweep, window, RAM, sweep);
    pairs(Figure::Random, window, RAM, random);
    pairs(Figure::Trapped, behind, EMPTY_HANDLER, trapped);
    pairs(Figure::FirstTouch, window, RAM, first_touch);
}

fn pairs(figure: Figure, a: u64, b: u64, measure: impl Fn(u64)) {
    for pair in 0..PAIRS {
        if figure == Figure::FirstTouch {
            // The host takes the pages of both ranges away.
            port::call(Call::Forget { a, b, length: BYTES });
        }
        let timed = |base| {
            let start = Counter::ticks();
            measure(base);
            Counter::ticks() - start
        };
        let (a, b) = if pair % 2 == 0 {
            let a = timed(a);
            (a, timed(b))
        } else {
            let b = timed(b);
            (timed(a), b)
        };
        if pair > 0 {
            port::call(Call::Pair { figure, a, b });
        }
    }
}

fn read(address: u64) -> u64 {
    // SAFETY: an aligned address in a range that `run` mapped: RAM that nothing else uses, a CXL
    // window, or a register page that reads as anything.
    unsafe { ptr::read_volatile(address as *const u64) }
}

fn write(address: u64, value: u64) {
    // SAFETY: as above.
    unsafe { ptr::write_volatile(address as *mut u64, value) }
}

fn fill(base: u64) {
    for at in (base..base + BYTES).step_by(PAGE as usize) {
        write(at, at);
    }
}

fn sweep(base: u64) {
    for at in (base..base + BYTES).step_by(LINE as usize) {
        core::hint::black_box(read(at));
    }
}

/// Each address depends on the value read before, so accesses cannot overlap.
fn random(base: u64) {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    for _ in 0..ACCESSES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let value = read(base + (state & (BYTES - 1) & !7));
        state ^= value & 1;
    }
    core::hint::black_box(state);
}

fn trapped(base: u64) {
    for _ in 0..TRAPS {
        core::hint::black_box(read(base));
    }
}

fn first_touch(base: u64) {
    fill(base);
}
