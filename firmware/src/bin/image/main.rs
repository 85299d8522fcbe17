//! The bare-metal image: the library as firmware, then one payload.
//!
//! **Invariant**: what it knows of the machine comes from ACPI and from the devices; the command
//! line only chooses the policy and the payload.

#![no_std]
#![no_main]

mod memory;
mod paging;
mod port;
mod start;

use core::fmt::Write;
use core::panic::PanicInfo;

use port::{Console, Status};

/// Where both entries end. `start_info` is a PVH start-info, `tables` the top-level page table,
/// `ring` the privilege level the code runs at.
extern "C" fn main(start_info: u64, tables: u64, ring: u32) -> ! {
    let _ = writeln!(Console, "cxl image at ring {ring}, start-info {start_info:#x}, {tables:#x}");
    port::exit(Status::Success)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Console, "{info}");
    port::exit(Status::Panic)
}
