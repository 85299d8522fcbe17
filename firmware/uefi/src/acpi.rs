//! The firmware's ACPI tables and PCI root bridges: read at the start, and given the new CEDT.
//!
//! **Invariant**: the firmware's CEDT is taken out only when another one is ready to be put in, and put
//! back if that is not taken.

use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr;
use core::slice;

use cxl_firmware::acpi::{self, Tables};
use cxl_firmware::handoff::TableLocation;
use cxl_firmware::platform::RootBus;
use cxl_regs::acpi::Header;
use uefi::boot::{self, AllocateType, MemoryType, OpenProtocolAttributes, OpenProtocolParams};
use uefi::proto::acpi::AcpiTable;
use uefi::proto::device_path::{DevicePath, DevicePathNodeEnum};
use uefi::proto::pci::configuration::ResourceRangeType;
use uefi::proto::pci::root_bridge::PciRootBridgeIo;
use uefi::proto::unsafe_protocol;
use uefi::table::cfg::ConfigTableEntry;
use uefi::{Handle, Status, system};

use crate::Refused;

/// The most tables that are looked at.
const MOST_TABLES: usize = 256;

/// `EFI_ACPI_SDT_PROTOCOL` up to what is used of it: it has the keys of tables.
#[repr(C)]
#[unsafe_protocol("eb97088e-cfdf-49c6-be4b-d906a5b20e86")]
struct Sdt {
    version: u32,
    get_acpi_table:
        unsafe extern "efiapi" fn(usize, *mut *const u8, *mut u32, *mut usize) -> Status,
}

fn firmware(what: &'static str) -> impl Fn(uefi::Error) -> Refused {
    move |error| Refused::Firmware(what, error.status())
}

/// Where the root pointer is.
pub(crate) fn rsdp() -> Option<u64> {
    let of = |guid| {
        system::with_config_table(|tables| {
            tables.iter().find(|entry| entry.guid == guid).map(|entry| entry.address as u64)
        })
    };
    of(ConfigTableEntry::ACPI2_GUID).or_else(|| of(ConfigTableEntry::ACPI_GUID))
}

/// Copies bytes out of memory.
fn read(address: u64, bytes: &mut [u8]) {
    for (at, byte) in (address..).zip(bytes) {
        // SAFETY: an address that the firmware's ACPI tables name, which is mapped; bytes have no
        // alignment.
        *byte = unsafe { ptr::read_volatile(at as *const u8) };
    }
}

/// The platform as MCFG and CEDT tell it.
pub(crate) fn platform(
    rsdp: u64,
    roots: &[(u32, RootBus)],
    bits: u8,
    mcfg: &mut [u8],
    cedt: &mut [u8],
) -> Result<Tables<32, 64>, Refused> {
    let mcfg = acpi::find_table(&mut read, rsdp, *b"MCFG", mcfg)?;
    let cedt = acpi::find_table(&mut read, rsdp, *b"CEDT", cedt)?;
    Ok(Tables::from_acpi_in_part(mcfg, cedt, bits, roots)?)
}

/// Opens a protocol beside whoever has it open: drivers of the firmware do.
fn shared<P: uefi::proto::ProtocolPointer + ?Sized>(
    handle: Handle,
) -> uefi::Result<boot::ScopedProtocol<P>> {
    let parameters = OpenProtocolParams { handle, agent: boot::image_handle(), controller: None };
    // SAFETY: the protocols that are opened so are only asked what they are, on one processor, and
    // stay as long as this program does.
    unsafe { boot::open_protocol(parameters, OpenProtocolAttributes::GetProtocol) }
}

/// Root buses of PCI root bridges, by the UID in their device paths. Devices below them have buses and
/// BARs afterwards.
pub(crate) fn root_bridges() -> Result<Vec<(u32, RootBus)>, Refused> {
    let handles = boot::find_handles::<PciRootBridgeIo>().map_err(firmware("PCI root bridges"))?;
    let mut found = Vec::new();
    for handle in handles {
        // What has its drivers already says NOT_FOUND.
        let _ = boot::connect_controller(handle, &[], None, true);
        let what = firmware("a PCI root bridge");
        let bridge = shared::<PciRootBridgeIo>(handle).map_err(&what)?;
        let path = shared::<DevicePath>(handle).map_err(&what)?;
        let uid = path.node_iter().find_map(|node| match node.as_enum() {
            Ok(DevicePathNodeEnum::AcpiAcpi(acpi)) => Some(acpi.uid()),
            Ok(DevicePathNodeEnum::AcpiExpanded(acpi)) => Some(acpi.uid()),
            _ => None,
        });
        let ranges = bridge.configuration().map_err(&what)?;
        let bus = ranges.iter().find(|range| range.resource_range_type == ResourceRangeType::Bus);
        let bus = bus.and_then(|bus| u8::try_from(bus.address_min).ok());
        let segment = u16::try_from(bridge.segment_nr()).ok();
        if let (Some(uid), Some(bus), Some(segment)) = (uid, bus, segment) {
            found.push((uid, RootBus { segment, bus }));
        }
    }
    Ok(found)
}

/// The key of the CEDT that the firmware has, and its copy.
fn installed(sdt: &Sdt) -> Option<(usize, &'static [u8])> {
    for index in 0..MOST_TABLES {
        let (mut table, mut version, mut key) = (ptr::null(), 0, 0);
        // SAFETY: the service fills in the places that it is given.
        let status = unsafe { (sdt.get_acpi_table)(index, &mut table, &mut version, &mut key) };
        if !status.is_success() || table.is_null() {
            return None;
        }
        let mut header = [0; size_of::<Header>()];
        read(table as u64, &mut header);
        let [s, i, g, n, a, b, c, d, ..] = header;
        if [s, i, g, n] == *b"CEDT" {
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            // SAFETY: a table of the firmware, with its length.
            return Some((key, unsafe { slice::from_raw_parts(table, length) }));
        }
    }
    None
}

/// Puts a CEDT in the place of the firmware's; where it lies.
pub(crate) fn replace(cedt: &[u8]) -> Result<(u64, u32), Refused> {
    let what = "EFI_ACPI_SDT_PROTOCOL, which tells tables apart";
    let handle = boot::get_handle_for_protocol::<Sdt>().map_err(firmware(what))?;
    let sdt = shared::<Sdt>(handle).map_err(firmware(what))?;
    let what = "EFI_ACPI_TABLE_PROTOCOL";
    let handle = boot::get_handle_for_protocol::<AcpiTable>().map_err(firmware(what))?;
    let tables = shared::<AcpiTable>(handle).map_err(firmware(what))?;
    let install = |bytes: &[u8]| {
        // SAFETY: the firmware copies the table.
        unsafe { tables.install_acpi_table(bytes.as_ptr().cast::<c_void>(), bytes.len()) }
    };
    let old = installed(&sdt).map(|(key, bytes)| (key, bytes.to_vec()));
    if let Some((key, _)) = old {
        tables.uninstall_acpi_table(key).map_err(firmware("the firmware's CEDT taken out"))?;
    }
    if let Err(error) = install(cedt) {
        let _ = old.map(|(_, bytes)| install(&bytes));
        return Err(Refused::Firmware("another CEDT put in", error.status()));
    }
    let missing = Refused::Firmware("the CEDT that was put in", Status::NOT_FOUND);
    let (_, found) = installed(&sdt).ok_or(missing)?;
    Ok((found.as_ptr() as u64, found.len() as u32))
}

/// The bytes of a table that was put in.
pub(crate) fn at(table: TableLocation) -> &'static [u8] {
    // SAFETY: `replace` gave the place, of a table that stays.
    unsafe { slice::from_raw_parts(table.address as *const u8, table.size as usize) }
}

/// Memory that the operating system leaves alone.
pub(crate) fn lasting(bytes: usize) -> Result<&'static mut [u8], Refused> {
    let pages = bytes.div_ceil(boot::PAGE_SIZE);
    let kind = MemoryType::RUNTIME_SERVICES_DATA;
    let start = boot::allocate_pages(AllocateType::AnyPages, kind, pages)
        .map_err(firmware("memory for the record"))?;
    // SAFETY: as many pages as were asked for, which nobody else has; any byte is a value.
    let memory = unsafe { slice::from_raw_parts_mut(start.as_ptr(), bytes) };
    memory.fill(0);
    Ok(memory)
}
