//! Measures, from inside, what an access costs: in a mirrored window, in plain RAM, and where it
//! traps. Always in pairs (A, B), A first in even pairs and B first in odd ones.
//!
//! **Invariant**: both halves of a pair run the same instructions on ranges of the same size, so
//! their ratio says something even on a noisy host.

use core::ptr;

use cxl_image::doorbell::{Call, EMPTY_HANDLER, Figure};

use cxl_firmware::mmio::Mmio;

use super::Checks;
use super::path::RegionPath;
use crate::hw::{Counter, Hardware};
use crate::paging::Pages;
use crate::{Room, port, say};

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
/// Accesses where each of them may trap, and pairs of such: what a slow machine has time for.
const SOME: u64 = 2048;
const SOME_PAIRS: u64 = 17;

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

/// What can be measured on any machine, told on the console: `pair NAME OPERATIONS A B`, in ticks of
/// the time-stamp counter.
pub(super) fn peer(hw: &mut Hardware, room: &Room, checks: &mut Checks) {
    let Some(Ranges { window, behind, ram }) = Ranges::prepare(hw, room) else {
        return checks.refuse(format_args!("no region to measure in"));
    };
    told("sweep", SOME, window, ram, sweep_some);
    told("random", SOME, window, ram, |base| dependent(base, SOME));
    told("trapped", TRAPS, behind, EMPTY_HANDLER, trapped);
    commit(hw, room, checks);
}

fn told(name: &str, operations: u64, a: u64, b: u64, measure: impl Fn(u64)) {
    for pair in 0..SOME_PAIRS {
        let (a, b) = timed_pair(pair, a, b, &measure);
        if pair > 0 {
            say(format_args!("pair {name} {operations} {a} {b}"));
        }
    }
}

/// From the first store that puts a region up again to the first load of the right bytes (A),
/// beside one load of a register (B). Locked regions stay where they are and are not measured.
fn commit(hw: &mut Hardware, room: &Room, checks: &mut Checks) {
    let regions = &room.committed.regions;
    let Some(mut path) = RegionPath::last(room) else { return };
    if regions.iter().any(|region| region.locked) {
        return;
    }
    let base = path.span.base().0;
    let register = room.topology.nodes.iter().find_map(|node| node.hdm).map_or(base, |h| h.block.0);
    hw.map(base, 8);
    write(base, !base);
    let mut good = 0;
    for pair in 0..SOME_PAIRS {
        let closed = path.close(hw) == 0;
        let start = Counter::ticks();
        let works = path.open(hw, base) == 0 && read(base) == !base;
        let a = Counter::ticks() - start;
        let start = Counter::ticks();
        core::hint::black_box(hw.read(register));
        let b = Counter::ticks() - start;
        good += u64::from(closed && works);
        if pair > 0 {
            say(format_args!("pair commit 1 {a} {b}"));
        }
    }
    checks.equal(format_args!("commits that brought the memory back"), SOME_PAIRS, good);
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
        let (a, b) = timed_pair(pair, a, b, &measure);
        if pair > 0 {
            port::call(Call::Pair { figure, a, b });
        }
    }
}

/// The ticks of each half, A first in even pairs and B first in odd ones.
fn timed_pair(pair: u64, a: u64, b: u64, measure: &impl Fn(u64)) -> (u64, u64) {
    let timed = |base| {
        let start = Counter::ticks();
        measure(base);
        Counter::ticks() - start
    };
    if pair.is_multiple_of(2) {
        let a = timed(a);
        (a, timed(b))
    } else {
        let b = timed(b);
        (timed(a), b)
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
    lines(base, BYTES);
}

fn sweep_some(base: u64) {
    lines(base, SOME * LINE);
}

fn lines(base: u64, bytes: u64) {
    for at in (base..base + bytes).step_by(LINE as usize) {
        core::hint::black_box(read(at));
    }
}

fn random(base: u64) {
    dependent(base, ACCESSES);
}

/// Each address depends on the value read before, so accesses cannot overlap.
fn dependent(base: u64, accesses: u64) {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    for _ in 0..accesses {
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
