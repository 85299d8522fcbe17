//! What every program here needs: hardware that the optimiser knows nothing of, the functions that a
//! compiler expects, and a panic handler that does not link.
//!
//! **Invariant**: nothing is ever run.

use core::panic::PanicInfo;
use core::ptr;

use cxl_firmware::mmio::{Clock, Mmio};

// For bare targets Rust has them.
#[cfg(not(target_os = "none"))]
#[path = "../../image/src/memory.rs"]
mod memory;

/// Registers and memory by physical address, and a clock.
#[derive(Clone, Copy)]
pub(crate) struct Registers(*const u64);

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

#[cfg(not(feature = "panics"))]
unsafe extern "C" {
    /// Defined nowhere. A linker that asks for it has found a panic path.
    fn cxl_firmware_can_panic() -> !;
}

/// At opt-level z, checks are left that the compiler proves to be needless at s.
#[cfg(feature = "panics")]
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(feature = "panics"))]
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: never run; it does not even link.
    unsafe { cxl_firmware_can_panic() }
}
