//! A Linux program without a C library: what `stack` asks of x86-64.

use core::arch::{asm, global_asm};

#[path = "../../image/src/memory.rs"]
mod memory;

/// Of a call of Linux.
const READ: u64 = 0;
const WRITE: u64 = 1;
const EXIT: u64 = 60;

global_asm!(
    ".globl _start",
    "_start: lea rsp, [{stack} + {size}]",
    "call {begin}",
    stack = sym super::STACK,
    size = const size_of::<super::Stack>(),
    begin = sym super::begin,
);

/// The most words that a recording may have.
const WORDS: usize = 16 << 20;
static mut RECORDING: [u32; WORDS] = [0; WORDS];

fn call(number: u64, first: u64, second: u64, third: u64) -> i64 {
    let result;
    // SAFETY: those of Linux's calls that are made here write to nothing but what a caller names, and clobber what is said.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") first, in("rsi") second,
             in("rdx") third, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// What comes in by the standard input.
pub(crate) fn recording() -> &'static [u32] {
    let start = (&raw mut RECORDING).cast::<u8>();
    let mut length = 0;
    loop {
        let left = size_of::<[u32; WORDS]>() - length;
        assert!(left > 0, "the recording has more than {WORDS} words");
        match call(READ, 0, start as u64 + length as u64, left as u64) {
            0 => break,
            read => length += usize::try_from(read).expect("to read the recording"),
        }
    }
    // SAFETY: what was read into is not written to again.
    unsafe { core::slice::from_raw_parts(start.cast(), length / size_of::<u32>()) }
}

pub(crate) fn write(bytes: &[u8]) {
    // Whoever misses the last line knows that something was not written.
    call(WRITE, 1, bytes.as_ptr() as u64, bytes.len() as u64);
}

pub(crate) fn end(status: u64) -> ! {
    loop {
        call(EXIT, status, 0, 0);
    }
}
