//! Page tables: identity mapped, extended on demand, by 2 MiB pages.
//!
//! **Invariant**: an address is either mapped to itself, readable and writable at CPL 3, or not at
//! all; a mapping is never changed, so no TLB entry is ever stale.

use core::ptr;

use crate::start::Pages;

/// Tables that [`map`] can hand out. Each covers 1 GiB with 2 MiB pages.
const POOL: usize = 64;

/// The tables of the PVH entry (top level, third level, first gibibyte), then the pool.
pub(crate) static mut TABLES: Pages<{ (3 + POOL) * 4096 }> = Pages([0; (3 + POOL) * 4096]);
static mut USED: usize = 0;

const PRESENT: u64 = 1;
const USER_WRITABLE: u64 = 0b110;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// There are no tables left.
#[derive(Debug)]
pub(crate) struct OutOfTables;

/// Maps the 2 MiB page that holds `address`, if it is not mapped yet.
///
/// `root` is the physical address of the top-level table.
pub(crate) fn map(root: u64, address: u64) -> Result<(), OutOfTables> {
    let mut table = root;
    for shift in [39, 30] {
        let entry = slot(table, address, shift);
        // SAFETY: `table` is a page table of this image or of the VMM that started it, identity
        // mapped and writable; `slot` stays inside its 4096 bytes.
        let value = unsafe { ptr::read_volatile(entry) };
        table = if value & PRESENT != 0 {
            value & ADDRESS
        } else {
            let next = allocate()?;
            // SAFETY: as above; an entry that was not present is cached nowhere.
            unsafe { ptr::write_volatile(entry, next | USER_WRITABLE | PRESENT) };
            next
        };
    }
    let entry = slot(table, address, 21);
    // SAFETY: as above.
    let value = unsafe { ptr::read_volatile(entry) };
    if value & PRESENT == 0 {
        let page = address & !0x1F_FFFF | LARGE | USER_WRITABLE | PRESENT;
        // SAFETY: as above.
        unsafe { ptr::write_volatile(entry, page) };
    }
    Ok(())
}

fn slot(table: u64, address: u64, shift: u32) -> *mut u64 {
    ((table & ADDRESS) + 8 * (address >> shift & 0x1FF)) as *mut u64
}

fn allocate() -> Result<u64, OutOfTables> {
    // SAFETY: one vCPU, no interrupts, not re-entered.
    let used = unsafe { USED };
    if used == POOL {
        return Err(OutOfTables);
    }
    // SAFETY: as above.
    unsafe { USED = used + 1 };
    Ok((&raw const TABLES) as u64 + 4096 * (3 + used as u64))
}
