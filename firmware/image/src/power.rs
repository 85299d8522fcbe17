//! The end where no exit device listens: power off by ACPI (ACPI 6.5 section 4.8.3.2), else halt.
//!
//! The sleep type of S5 is in AML, as a package of constants under the name `_S5_`, which is looked
//! for by its bytes. Where it is not found the processor halts.
//!
//! **Invariant**: nothing is written to a port that the FADT does not name.

use core::sync::atomic::{AtomicU32, Ordering};

use cxl_firmware::acpi;

use crate::hw::Hardware;
use crate::{port, tables};

/// The privilege level that the image runs at.
static RING: AtomicU32 = AtomicU32::new(3);
/// PM1a Control's port, and in the upper half what is written to it; 0: nobody knows.
static OFF: AtomicU32 = AtomicU32::new(0);

/// Offsets in the FADT (ACPI 6.5 section 5.2.9).
const DSDT: usize = 40;
const PM1A_CONTROL: usize = 64;
/// PM1 Control: SLP_TYPx, SLP_EN (ACPI 6.5 section 4.8.3.2.1).
const SLEEP_TYPE: u32 = 10;
const SLEEP_ENABLE: u32 = 1 << 13;

/// What has to be known at the end, whatever happens until then.
pub(crate) fn at_ring(ring: u32) {
    RING.store(ring, Ordering::Relaxed);
}

/// Finds out how this machine is switched off.
pub(crate) fn prepare(hw: &mut Hardware, rsdp: u64, buffer: &mut [u8]) {
    OFF.store(find(hw, rsdp, buffer).unwrap_or(0), Ordering::Relaxed);
}

fn find(hw: &mut Hardware, rsdp: u64, buffer: &mut [u8]) -> Option<u32> {
    let mut reader = |address, bytes: &mut [u8]| tables::read(hw, address, bytes);
    let fadt = acpi::find_table(&mut reader, rsdp, *b"FACP", buffer).ok()?;
    let field = |at: usize| Some(u32::from_le_bytes(*fadt.get(at..)?.first_chunk()?));
    let (dsdt, control) = (u64::from(field(DSDT)?), field(PM1A_CONTROL)?);
    if dsdt == 0 || control == 0 || control > 0xFFFF {
        return None;
    }
    let mut header = [0; 8];
    reader(dsdt, &mut header);
    let length = u32::from_le_bytes(*header.last_chunk()?) as usize;
    let aml = buffer.get_mut(..length)?;
    reader(dsdt, aml);
    let value = sleep_type(aml)? << SLEEP_TYPE | SLEEP_ENABLE;
    Some(value << 16 | control)
}

/// The first constant of the package `_S5_`, SLP_TYPa (ACPI 6.5 sections 7.4.2 and 20.2).
fn sleep_type(aml: &[u8]) -> Option<u32> {
    const PACKAGE: u8 = 0x12;
    const BYTE: u8 = 0x0A;
    let at = aml.windows(5).position(|window| window == b"_S5_\x12")?;
    let [_, _, _, _, PACKAGE, length, rest @ ..] = aml.get(at..)? else { return None };
    // The package's length takes one byte, and as many more as its two upper bits say; then comes
    // the number of elements.
    let elements = rest.get(usize::from(length >> 6) + 1..)?;
    match elements {
        [BYTE, value, ..] => Some(u32::from(value & 7)),
        [value @ (0 | 1), ..] => Some(u32::from(*value)),
        _ => None,
    }
}

/// Ends; nothing comes after.
pub(crate) fn end() -> ! {
    let off = OFF.load(Ordering::Relaxed);
    if off != 0 {
        port::out16(off as u16, (off >> 16) as u16);
    }
    loop {
        if RING.load(Ordering::Relaxed) == 0 {
            port::halt();
        }
        core::hint::spin_loop();
    }
}
