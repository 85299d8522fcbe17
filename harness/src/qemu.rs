//! Somebody else's hardware: QEMU's CXL devices, reached from outside.
//!
//! [`qtest`] reads and writes physical addresses and ports of a running QEMU from this process, so
//! the library that runs in a guest can run here on QEMU's devices, and an outside witness can look
//! at what a guest left there.
//!
//! **Invariant**: every wait for QEMU ends, and a QEMU that was started here is ended here.

pub mod bare;
pub mod command;
pub(crate) mod files;
pub mod line;
pub mod locks;
pub mod offers;
pub mod process;
mod qmp;
pub mod qtest;
pub mod run;
pub mod view;

use std::time::Instant;

/// Real time: a QEMU that runs a guest does not stop for anybody.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at 0.
    #[expect(clippy::new_without_default, reason = "a moment is not a default")]
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl cxl_firmware::mmio::Clock for Clock {
    fn microseconds(&mut self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
