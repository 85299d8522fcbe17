//! What runs once the firmware is done: one small program for each behaviour that has to be seen
//! from inside a guest.
//!
//! **Invariant**: a payload says what it expects and what it found; the harness compares too.

mod bench;
mod dma;

use core::ptr;

use cxl_firmware::doorbell::Call;
use cxl_firmware::platform::Platform;
use cxl_firmware::policy::Policy;

use crate::hw::Hardware;
use crate::{Room, port, say};

/// Runs a payload by name; whether all its checks passed.
pub(crate) fn run(
    name: &str,
    hw: &mut Hardware,
    room: &mut Room,
    platform: &Platform<'_>,
    _policy: &Policy<'_>,
) -> bool {
    let mut checks = Checks { next: 0, passed: true };
    match name {
        "none" => {}
        "dma" => dma::dma(hw, room, platform, &mut checks),
        "touch" => touch(hw, room, &mut checks),
        "bench" => return bench::run(hw, room),
        _ => {
            say(format_args!("there is no payload \"{name}\""));
            return false;
        }
    }
    checks.passed
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
}

fn load(hw: &mut Hardware, address: u64) -> u64 {
    hw.map(address, 8);
    // SAFETY: an aligned address in a CXL window, on a mapped page; no Rust object lives there.
    unsafe { ptr::read_volatile(address as *const u64) }
}

fn store(hw: &mut Hardware, address: u64, value: u64) {
    hw.map(address, 8);
    // SAFETY: as above.
    unsafe { ptr::write_volatile(address as *mut u64, value) }
}

/// First and last page of every region take values and keep them; the page behind the last region
/// of a window does not.
fn touch(hw: &mut Hardware, room: &Room, checks: &mut Checks) {
    const PAGE: u64 = 4096;
    let ends = |region: &cxl_firmware::committed::CommittedRegion| {
        [region.span.base().0, region.span.end().0 - PAGE]
    };
    for region in &room.committed.regions {
        for page in ends(region) {
            store(hw, page, !page);
            store(hw, page + PAGE - 8, page ^ 0x5A5A);
        }
    }
    for region in &room.committed.regions {
        for page in ends(region) {
            let found = load(hw, page);
            checks.equal(format_args!("{page:#x}"), !page, found);
            let found = load(hw, page + PAGE - 8);
            checks.equal(format_args!("{:#x}", page + PAGE - 8), page ^ 0x5A5A, found);
        }
        let behind = region.span.end().0;
        if !room.committed.regions.iter().any(|other| other.span.base().0 == behind) {
            store(hw, behind, 1);
            let found = load(hw, behind);
            checks.equal(format_args!("{behind:#x}, behind the region"), u64::MAX, found);
        }
    }
}
