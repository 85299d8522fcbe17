//! Firmware of somebody else: it knows offsets and bits, and nothing of this repository but
//! [`Mmio`].
//!
//! **Invariant**: every register is written through [`Mmio`], as on real hardware.

#![no_std]

use cxl_regs::mmio::Mmio;

/// Decoder 0, from the start of a component register block whose HDM structure is at 0x128.
const DECODER_0: u64 = 0x1000 + 0x128 + 0x10;

/// Claims a range with decoder 0 of the component at `registers` and locks it. `route` is a target
/// list, or the bytes of device memory to skip. Says whether the hardware took it.
pub fn claim(hw: &mut impl Mmio, registers: u64, base: u64, size: u64, route: u64) -> bool {
    let decoder = registers + DECODER_0;
    for (offset, value) in [(0x00, base), (0x08, size), (0x14, route)] {
        hw.write(decoder + offset, value as u32);
        hw.write(decoder + offset + 4, (value >> 32) as u32);
    }
    let (lock, commit, committed, host_only) = (1 << 8, 1 << 9, 1 << 10, 1 << 12);
    hw.write(decoder + 0x10, host_only | lock | commit);
    hw.read(decoder + 0x10) & committed != 0
}
