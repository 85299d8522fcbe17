//! Measures, from inside, what an access costs: in a mirrored window, in plain RAM, and where it
//! traps. Always in pairs (A, B), A first in even pairs and B first in odd ones.
//!
//! **Invariant**: both halves of a pair run the same instructions on ranges of the same size, so
//! their ratio says something even on a noisy host.

use core::ptr;

use cxl_firmware::doorbell::{Call, EMPTY_HANDLER, Figure};

use super::Checks;
use crate::hw::{Counter, Hardware};
use crate::start::Pages;
use crate::{Room, port};

/// Pairs per figure; the first one warms up and is not reported.
const PAIRS: u64 = 32;
/// Pairs of a first look, warm-up included.
const FEW: u64 = 6;
const BYTES: u64 = 16 << 20;
/// Plain RAM to compare with.
static mut RAM: Pages<{ BYTES as usize }> = Pages([0; BYTES as usize]);
const LINE: u64 = 64;
const PAGE: u64 = 4096;
const ACCESSES: u64 = 1 << 18;
const TRAPS: u64 = 64;

/// Runs all figures.
pub(super) fn run(hw: &mut Hardware, room: &Room, checks: &mut Checks) {
    let Some(Ranges { window, behind, ram }) = Ranges::prepare(hw, room) else {
        return checks.refuse(format_args!("no region to measure in"));
    };
    pairs(PAIRS, Figure::Sweep, window, ram, sweep);
    pairs(PAIRS, Figure::Random, window, ram, random);
    pairs(PAIRS, Figure::Trapped, behind, EMPTY_HANDLER, trapped);
    pairs(PAIRS, Figure::FirstTouch, window, ram, first_touch);
}

/// The sweep of the first region against RAM, and nothing else.
pub(super) fn sweep_alone(hw: &mut Hardware, room: &Room, checks: &mut Checks) {
    match Ranges::prepare(hw, room) {
        Some(Ranges { window, ram, .. }) => pairs(PAIRS, Figure::Sweep, window, ram, sweep),
        None => checks.refuse(format_args!("no region to measure in")),
    }
}

/// A first look at what an access costs; nothing where there is no memory to look at.
pub(super) fn cost(hw: &mut Hardware, room: &Room) {
    if let Some(Ranges { window, behind, ram }) = Ranges::prepare(hw, room) {
        pairs(FEW, Figure::Sweep, window, ram, sweep);
        pairs(FEW, Figure::Trapped, behind, ram, trapped);
    }
}

/// Where to measure.
struct Ranges {
    /// A committed region.
    window: u64,
    /// An address of a window that no region covers.
    behind: u64,
    ram: u64,
}

impl Ranges {
    /// The first region and the first gap, mapped and touched.
    fn prepare(hw: &mut Hardware, room: &Room) -> Option<Self> {
        let regions = &room.committed.regions;
        let window = regions.first()?.span.base().0;
        let free = |at: &u64| !regions.iter().any(|other| other.span.base().0 == *at);
        let behind = regions.iter().map(|region| region.span.end().0).find(free)?;
        let ram = (&raw const RAM) as u64;
        for base in [window, ram] {
            hw.map(base, BYTES);
            fill(base);
        }
        hw.map(behind, 8);
        hw.map(EMPTY_HANDLER, 8);
        Some(Self { window, behind, ram })
    }
}

fn pairs(count: u64, figure: Figure, a: u64, b: u64, measure: impl Fn(u64)) {
    for pair in 0..count {
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
    // SAFETY: an aligned address in a range that `run` mapped: RAM of its own, a CXL
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
