//! Registers and memory as the firmware maps them, and a clock that every firmware has.
//!
//! What memory is asked must not be answered by a cache. Where windows are mapped uncached none does;
//! on x86-64 that takes range registers, of which there are too few for a window of any size, so windows
//! stay cacheable there and the line of each access is flushed.
//!
//! **Invariant**: every access is one load or store of the width that was asked for, and what is read in a
//! window is what the memory holds.

use core::time::Duration;

use cxl_firmware::mmio::{Clock, Mmio};
use cxl_mmio::Mapped;
use cxl_regs::{Hpa, Span};
use heapless::Vec;
use uefi::boot;

/// The machine.
pub(crate) struct Hardware {
    mapped: Mapped,
    windows: Vec<Span, 64>,
}

impl Hardware {
    /// # Safety
    ///
    /// Everything that is asked for is mapped one to one, registers uncached, windows as [`CACHED`] has
    /// it, and nobody else's.
    pub(crate) unsafe fn new(windows: impl Iterator<Item = Span>) -> Self {
        // SAFETY: by the caller's promise; UEFI maps memory one to one.
        Self { mapped: unsafe { Mapped::new(0) }, windows: windows.take(64).collect() }
    }

    /// Has the cache forget the line of an address in a window.
    fn forget(&self, address: u64) {
        if CACHED && self.windows.iter().any(|span| span.contains(Hpa(address))) {
            flush(address);
        }
    }
}

/// Whether windows are mapped cacheable.
pub(crate) const CACHED: bool = cfg!(target_arch = "x86_64");

#[cfg(target_arch = "x86_64")]
fn flush(address: u64) {
    use core::arch::x86_64::{_mm_clflush, _mm_mfence};

    // SAFETY: every x86-64 processor has both instructions.
    unsafe { _mm_mfence() };
    // SAFETY: an address that is mapped; its line goes to memory and loses nothing.
    unsafe { _mm_clflush(address as *const u8) };
    // SAFETY: as above.
    unsafe { _mm_mfence() };
}

#[cfg(not(target_arch = "x86_64"))]
fn flush(_: u64) {}

impl Mmio for Hardware {
    fn read(&mut self, address: u64) -> u32 {
        self.forget(address);
        self.mapped.read(address)
    }

    fn write(&mut self, address: u64, value: u32) {
        self.mapped.write(address, value);
        self.forget(address);
    }

    fn write_qword(&mut self, address: u64, value: u64) {
        self.mapped.write_qword(address, value);
    }
}

/// Time that was waited on purpose: each look takes a microsecond of the firmware's `Stall`. Waits are
/// never shorter than they should be, and no counter of any processor is asked.
#[derive(Default)]
pub(crate) struct Stalls(u64);

impl Clock for Stalls {
    fn microseconds(&mut self) -> u64 {
        boot::stall(Duration::from_micros(1));
        self.0 += 1;
        self.0
    }
}
