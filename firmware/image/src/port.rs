//! Port I/O: the console, the exit, the doorbell, and how a processor stops.
//!
//! **Invariant**: every port here is one that a PC-like VMM either models or ignores.

use core::arch::asm;
use core::{fmt, ptr};

use cxl_image::doorbell::{Call, EXIT_PORT, PORT, Status};

/// The first serial port. It needs no set-up on the machines this runs on.
const SERIAL: u16 = 0x3F8;

fn out8(port: u16, value: u8) {
    // SAFETY: the ports used here belong to a console, an exit device and a doorbell; a write has
    // no effect on this program's memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) }
}

pub(crate) fn out16(port: u16, value: u16) {
    // SAFETY: as above; the port is one that the FADT names.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack)) }
}

pub(crate) fn out32(port: u16, value: u32) {
    // SAFETY: as above.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack)) }
}

pub(crate) fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: as above; a read of the one register that is read has no effect.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack)) }
    value
}

/// Tells the harness something; nobody listens elsewhere.
pub(crate) fn call(call: Call) {
    let message = call.encode();
    out32(PORT, ptr::from_ref(&message) as u64 as u32);
    // The message must be in memory when the doorbell rings, and stay until it was read.
    core::hint::black_box(&message);
}

/// Ends the run, where something listens at the exit port.
pub(crate) fn exit(status: Status) {
    out8(EXIT_PORT, status.code());
}

/// Stops the processor until an interrupt, which it does not take. Only CPL 0 may.
pub(crate) fn halt() {
    // SAFETY: no memory is touched, and nothing here needs interrupts.
    unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
}

/// The console: bytes to the first serial port.
pub(crate) struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: `rep outsb` reads `text.len()` bytes from a valid string and writes to the
        // serial port; the direction flag is clear by the ABI.
        unsafe {
            asm!(
                "rep outsb",
                in("dx") SERIAL,
                inout("rcx") text.len() => _,
                inout("rsi") text.as_ptr() => _,
                options(readonly, nostack, preserves_flags)
            );
        }
        Ok(())
    }
}
