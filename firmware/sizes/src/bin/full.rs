//! The full profile: the typical one with every feature, and every function beside that a bootloader
//! may call; with sentences, it prints its error too.
//!
//! **Invariant**: every value comes from outside, so the optimiser knows nothing of it.

#![no_std]
#![no_main]

#[path = "../common.rs"]
mod common;
#[path = "../resume.rs"]
mod resume;
#[path = "../support.rs"]
mod support;

use common::{Caller, start};
use cxl_firmware::acpi::{self, Tables};
use cxl_firmware::bring_up::inspect;
use cxl_firmware::error::Error;
use cxl_firmware::platform::RootBus;
use cxl_firmware::windows::{self, Sizing};
use cxl_firmware::{heapless, tables};
use resume::{Resume, wake};

/// What only this program asks of its caller.
pub struct More<'a> {
    rsdp: u64,
    signature: [u8; 4],
    mcfg: &'a [u8],
    cedt: &'a mut [u8],
    roots: &'a [(u32, RootBus)],
    address_bits: u8,
    tables: Tables<32, 64>,
    free: &'a [cxl_regs::Span],
    windows: heapless::Vec<cxl_firmware::platform::Window, 64>,
    srat: &'a mut [u8],
    ranges: usize,
    text: &'a mut Text,
}

/// Where text goes.
pub struct Text(u8);

#[cfg(feature = "sentences")]
impl core::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            // SAFETY: never run.
            unsafe { core::ptr::write_volatile(&mut self.0, byte) }
        }
        Ok(())
    }
}

fn copy(address: u64, bytes: &mut [u8]) {
    for (at, byte) in (address..).zip(bytes) {
        // SAFETY: never run.
        *byte = unsafe { core::ptr::read_volatile(at as *const u8) };
    }
}

fn before(caller: &mut Caller<'_>) -> Result<(), Error> {
    let Caller { registers: hw, platform, work, policy, more, .. } = caller;
    let clock = &mut hw.clone();
    let cedt = acpi::find_table(&mut copy, more.rsdp, more.signature, more.cedt)?;
    more.tables = Tables::from_acpi_in_part(more.mcfg, cedt, more.address_bits, more.roots)?;
    inspect(hw, clock, &more.tables.platform(), &*policy, &mut *work)?;
    let sizing = Sizing { free: more.free, across: None };
    windows::place(platform, &work.topology, &sizing, &mut more.windows)
}

fn after(caller: &mut Caller<'_>) -> Result<(), Error> {
    let Caller { work, identity, more, table, .. } = caller;
    tables::cross_check(table, &work.topology, &work.committed)?;
    tables::srat(&work.committed, *identity, 1, more.srat)?;
    more.ranges = work.committed.memory_map().count();
    Ok(())
}

/// A boot, or a resume; the bytes of the record, or the number of the error above 32 bits.
#[unsafe(no_mangle)]
pub fn _start(caller: &mut Caller<'_>, resume: &mut Resume<'_>, resumes: bool) -> u64 {
    if resumes {
        return wake(resume);
    }
    let result = before(caller).and_then(|()| {
        let length = start(caller)?;
        after(caller)?;
        Ok(length)
    });
    match result {
        Ok(length) => length as u64,
        Err(error) => {
            #[cfg(feature = "sentences")]
            let _ = core::fmt::Write::write_fmt(caller.more.text, format_args!("{error}"));
            u64::from(error.code()) << 32
        }
    }
}
