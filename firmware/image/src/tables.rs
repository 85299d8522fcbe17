//! The platform's ACPI tables: read at the start, and given a new CEDT at the end.
//!
//! **Invariant**: every checksum that was good before is good afterwards; what is written is the
//! root table's one entry and its checksum, and nothing is written unless all of it can be.

use core::ptr;

use cxl_firmware::platform::RootBus;
use cxl_firmware::{Error, acpi};
use cxl_regs::acpi::rsdt::{self, Kind, RootTable};
use cxl_regs::acpi::{Header, Rsdp};
use cxl_regs::{Hpa, Span};
use heapless::Vec;

use crate::hw::Hardware;
use crate::start_info::{MOST_RANGES, Memory};

/// From here to 4 GiB a PC has its interrupt controllers and its flash, whatever else.
const CHIP_SET: u64 = 0xF000_0000;

/// Room for the largest tables the image reads.
pub(crate) type Tables = acpi::Tables<32, 64>;

/// Copies bytes out of physical memory.
pub(crate) fn read(hw: &mut Hardware, address: u64, bytes: &mut [u8]) {
    hw.map(address, bytes.len() as u64);
    for (at, byte) in (address..).zip(bytes) {
        // SAFETY: an address that ACPI names, on a mapped page; bytes have no alignment.
        *byte = unsafe { ptr::read_volatile(at as *const u8) };
    }
}

/// The platform as MCFG and CEDT tell it.
pub(crate) fn platform(
    hw: &mut Hardware,
    rsdp: u64,
    roots: &[(u32, RootBus)],
    bits: Option<u8>,
    buffer: &mut [u8],
) -> Result<Tables, Error> {
    let (first, second) = buffer.split_at_mut(4096);
    let mut reader = |address, bytes: &mut [u8]| read(hw, address, bytes);
    let mcfg = acpi::find_table(&mut reader, rsdp, *b"MCFG", first)?;
    let cedt = acpi::find_table(&mut reader, rsdp, *b"CEDT", second)?;
    Tables::from_acpi_in_part(mcfg, cedt, bits.unwrap_or_else(address_bits), roots)
}

/// What no window may reach into: the map's memory, and the chip set. What the map calls reserved
/// is no reason: that is how a BIOS may mark a window.
pub(crate) fn occupied(map: &Vec<Memory, MOST_RANGES>) -> Vec<Span, { MOST_RANGES + 1 }> {
    let memory = map.iter().filter(|range| range.is_memory());
    let spans = memory.filter_map(|range| Span::new(Hpa(range.base), range.size).ok());
    spans.chain(Span::new(Hpa(CHIP_SET), (1 << 32) - CHIP_SET)).collect()
}

/// Width of a physical address: at most 52, by the architecture.
pub(crate) fn address_bits() -> u8 {
    let highest = core::arch::x86_64::__cpuid(0x8000_0000).eax;
    let bits = if highest >= 0x8000_0008 {
        core::arch::x86_64::__cpuid(0x8000_0008).eax as u8
    } else {
        36
    };
    bits.min(52)
}

/// Points the root table's CEDT entry to `cedt`; `None` if there is no such entry or no way to
/// write its new address.
pub(crate) fn install(hw: &mut Hardware, rsdp: u64, cedt: u64, buffer: &mut [u8]) -> Option<()> {
    let mut bytes = [0; Rsdp::MAX_LEN];
    read(hw, rsdp, &mut bytes);
    let found = Rsdp::read(&bytes).ok()?;
    // An operating system takes the XSDT where there is one, so both have to say the same.
    let roots = [(Kind::Xsdt, found.xsdt.unwrap_or(0)), (Kind::Rsdt, u64::from(found.rsdt))];
    let mut installed = None;
    for (kind, root) in roots.into_iter().filter(|(_, root)| *root != 0) {
        let mut header = [0; size_of::<Header>()];
        read(hw, root, &mut header);
        let length = u32::from_le_bytes(*header.get(4..8)?.first_chunk()?);
        let table = buffer.get_mut(..length as usize)?;
        read(hw, root, table);
        let entries = RootTable::read(kind, table).ok()?;
        let index = entries.addresses().position(|address| {
            let mut signature = [0; 4];
            read(hw, address, &mut signature);
            signature == *b"CEDT"
        })?;
        rsdt::replace(kind, index, cedt, table).ok()?;
        for (at, byte) in (root..).zip(table) {
            // SAFETY: the root table as it was read above, which lies in RAM and was checked.
            unsafe { ptr::write_volatile(at as *mut u8, *byte) };
        }
        installed = Some(());
    }
    installed
}
