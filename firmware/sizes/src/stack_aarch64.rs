//! QEMU's machine `virt`, as its `-kernel` leaves it (EL1, no MMU): what `stack` asks of aarch64.

use core::arch::{asm, global_asm};
use core::ptr;

/// Where the recording lies: its number of words, then these.
const RECORDING: usize = 0x5000_0000;
/// Data register of the console (PL011).
const CONSOLE: *mut u32 = 0x0900_0000 as *mut u32;
/// PSCI's SYSTEM_OFF.
const SYSTEM_OFF: u64 = 0x8400_0008;

global_asm!(
    ".globl _start",
    "_start: mov x1, #(3 << 20)", // CPACR_EL1.FPEN: compiled code uses vector registers
    "msr cpacr_el1, x1",
    "isb",
    "adrp x1, {stack}",
    "add x1, x1, :lo12:{stack}",
    "mov x2, #{size}",
    "add sp, x1, x2",
    "b {begin}",
    stack = sym super::STACK,
    size = const size_of::<super::Stack>(),
    begin = sym super::begin,
);

pub(crate) fn recording() -> &'static [u32] {
    let (length, words) = (RECORDING as *const u32, (RECORDING + 4) as *const u32);
    // SAFETY: QEMU loaded the recording there, in RAM above this program, before its first instruction.
    let length = unsafe { ptr::read(length) };
    // SAFETY: it has so many words, and nothing writes to them.
    unsafe { core::slice::from_raw_parts(words, length as usize) }
}

pub(crate) fn write(bytes: &[u8]) {
    for byte in bytes {
        // SAFETY: a register of the console, which takes a byte at a time.
        unsafe { ptr::write_volatile(CONSOLE, u32::from(*byte)) }
    }
}

pub(crate) fn end(_: u64) -> ! {
    loop {
        // SAFETY: the machine is off, or the call is not known and changes nothing.
        unsafe { asm!("hvc #0", inout("x0") SYSTEM_OFF => _, clobber_abi("C")) }
    }
}
