//! What a resume path links: reading a hand-off record and restoring from it, and nothing else. Its
//! size is what that costs; like `nopanic`, it links only without a panic path, and is never run.
//!
//! **Invariant**: every value comes from outside, so the optimiser knows nothing of it.

#![no_std]
#![no_main]

#[path = "../memory.rs"]
mod memory;

use core::panic::PanicInfo;
use core::ptr;

use cxl_firmware::handoff;
use cxl_firmware::list::Slots;
use cxl_firmware::mmio::{Clock, Mmio};
use cxl_firmware::outcome::{ComponentOutcome, Extent};
use cxl_firmware::platform::Ecam;
use cxl_firmware::restore::{Pci, restore};

/// What a caller gives.
pub struct Caller<'a> {
    clock: *const u64,
    ecam: &'a [Ecam],
    pci: Pci,
    record: &'a [u8],
    outcomes: &'a mut [ComponentOutcome],
}

struct Registers(*const u64);

impl Mmio for Registers {
    fn read(&mut self, address: u64) -> u32 {
        // SAFETY: never run. The optimiser has to assume that any value may come back.
        unsafe { ptr::read_volatile(address as *const u32) }
    }

    fn write(&mut self, address: u64, value: u32) {
        // SAFETY: never run.
        unsafe { ptr::write_volatile(address as *mut u32, value) }
    }
}

impl Clock for Registers {
    fn microseconds(&mut self) -> u64 {
        // SAFETY: never run.
        unsafe { ptr::read_volatile(self.0) }
    }
}

/// Restores once; 0, the number of the error, or how much was lost above 16 bits.
#[unsafe(no_mangle)]
pub fn _start(caller: &mut Caller<'_>) -> u32 {
    let Caller { clock, ecam, pci, record, outcomes } = caller;
    let (mut hw, mut clock) = (Registers(*clock), Registers(*clock));
    let mut outcomes = Slots::new(outcomes);
    let result = handoff::read(record)
        .and_then(|record| restore(&mut hw, &mut clock, ecam, &record, *pci, outcomes.list()));
    match result {
        Ok(Extent::Whole) => 0,
        Ok(Extent::Less { lost }) => u32::from(lost) << 16,
        Err(error) => error.code().into(),
    }
}

unsafe extern "C" {
    /// Defined nowhere. A linker that asks for it has found a panic path.
    fn cxl_firmware_can_panic() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: never run; it does not even link.
    unsafe { cxl_firmware_can_panic() }
}
