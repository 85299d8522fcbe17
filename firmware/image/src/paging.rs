//! Page tables: identity mapped, extended on demand, by 2 MiB pages. At the end of what four levels
//! reach is room for second, uncached mappings of memory.
//!
//! **Invariant**: outside that room an address is either mapped to itself, readable and writable at
//! CPL 3, or not at all; a mapping is never changed, so no TLB entry is ever stale.

use core::ptr;

/// A page-aligned block of bytes.
#[repr(C, align(4096))]
pub(crate) struct Pages<const N: usize>(pub(crate) [u8; N]);

/// Tables that [`map`] can hand out. Each covers 1 GiB with 2 MiB pages.
const POOL: usize = 80;

/// The tables of the PVH entry (top level, third level, first gibibyte), then the pool.
pub(crate) static mut TABLES: Pages<{ (3 + POOL) * 4096 }> = Pages([0; (3 + POOL) * 4096]);
static mut USED: usize = 0;

const PRESENT: u64 = 1;
const USER_WRITABLE: u64 = 0b110;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// PWT and PCD: entry 3 of the page attribute table, uncached whatever the MTRRs say.
const UNCACHED: u64 = 0b11 << 3;

/// Pages that can be mapped uncached: three for each region that the image has room for.
const SECOND: usize = 4096;
/// Where the first of them is.
const SECOND_BASE: u64 = (1 << 47) - ((SECOND as u64) << 21);

/// The physical pages that are mapped there, in order.
static mut SECONDS: [u64; SECOND] = [0; SECOND];
static mut SECONDS_USED: usize = 0;

/// There are no tables left.
#[derive(Debug)]
pub(crate) struct OutOfTables;

/// Maps the 2 MiB page that holds `address`, if it is not mapped yet.
///
/// `root` is the physical address of the top-level table.
pub(crate) fn map(root: u64, address: u64) -> Result<(), OutOfTables> {
    if address >= SECOND_BASE {
        return Err(OutOfTables);
    }
    enter(root, address, address & !0x1F_FFFF)
}

/// Maps the 2 MiB page that holds `address` uncached, beside whatever leads to it already; where
/// `address` is then.
pub(crate) fn map_uncached(root: u64, address: u64) -> Result<u64, OutOfTables> {
    let page = address & !0x1F_FFFF;
    let seconds = &raw mut SECONDS;
    // SAFETY: one vCPU, no interrupts, not re-entered; nothing else names the static.
    let seconds = unsafe { &mut *seconds };
    // SAFETY: as above.
    let used = unsafe { SECONDS_USED };
    let known = seconds.iter().take(used).position(|second| *second == page);
    let index = known.unwrap_or(used);
    let at = SECOND_BASE + ((index as u64) << 21);
    if known.is_none() {
        *seconds.get_mut(index).ok_or(OutOfTables)? = page;
        enter(root, at, page | UNCACHED)?;
        // SAFETY: as above.
        unsafe { SECONDS_USED = index + 1 };
    }
    Ok(at | address & 0x1F_FFFF)
}

/// Makes the 2 MiB page at `address` lead to `page`, with its attributes, if it leads nowhere yet.
fn enter(root: u64, address: u64, page: u64) -> Result<(), OutOfTables> {
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
        let page = page | LARGE | USER_WRITABLE | PRESENT;
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
