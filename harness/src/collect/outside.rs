//! A QEMU's machine, seen from outside through its qtest socket: the second pair of eyes on what a Linux in
//! it collects, and a machine for whoever has none with CXL.
//!
//! **Invariant**: of a QEMU that runs somebody's guest nothing is written but the two ports through which
//! PCI's configuration space is looked at, and what was in the first of them is put back.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use cxl_firmware::mmio::Mmio;
use cxl_regs::acpi::cedt::Cedt;
use cxl_regs::block;
use cxl_regs::config::{Bar, BarKind, Bdf, BusNumbers, CONFIG_SIZE, HeaderType, Id, Sbdf};

use super::{Access, Found, Function, MAX_FUNCTIONS, Place, Root, is_cxl};
use crate::qemu::offers::Offers;
use crate::qemu::process::Arch;
use crate::qemu::qtest::{PortWidth, Qtest, QtestError, Width};
use crate::qemu::run::{RunError, brought_up};
use cxl_model::scenario::Scenario;

/// The host bridge's PCIEXBAR, low and high half, as CONFIG_ADDRESS wants them (see `bare`).
const PCIEXBAR: [u32; 2] = [0x8000_0060, 0x8000_0064];
const CONFIG_ADDRESS: u16 = 0xCF8;
const CONFIG_DATA: u16 = 0xCFC;
/// Where a PC's firmware leaves the address of its tables, on 16-byte borders (ACPI 6.5 section 5.2.5.1).
const RSDP_AREA: std::ops::Range<u64> = 0xE_0000..0x10_0000;
/// The longest table that is believed, and the most tables.
const MAX_TABLE: u32 = 1 << 20;
const MAX_TABLES: usize = 256;

/// Why there is nothing to see.
#[derive(Debug)]
pub enum OutsideError {
    /// QEMU does not answer.
    Qtest(QtestError),
    /// It could not be started, or its machine not be brought up.
    Run(RunError),
    /// Its configuration space is not mapped: no firmware has run yet.
    NoEcam,
    /// Its firmware has left no tables where a PC has them.
    NoTables,
    /// There is no CEDT.
    NoCedt,
}

impl fmt::Display for OutsideError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Qtest(error) => error.fmt(f),
            Self::Run(error) => error.fmt(f),
            Self::NoEcam => f.write_str(
                "QEMU's configuration space is not mapped (PCIEXBAR): expected a q35 machine whose firmware \
                 has run",
            ),
            Self::NoTables => f.write_str(
                "no RSDP between 0xe0000 and 0xfffff of QEMU's memory: expected tables of SeaBIOS",
            ),
            Self::NoCedt => f.write_str("QEMU's tables have no CEDT: expected a machine with cxl=on"),
        }
    }
}

impl std::error::Error for OutsideError {}

impl From<QtestError> for OutsideError {
    fn from(error: QtestError) -> Self {
        Self::Qtest(error)
    }
}

/// Registers through a socket.
struct Outside<'q>(&'q mut Qtest);

impl Access for Outside<'_> {
    fn dword(&mut self, place: &Place, offset: u64) -> Result<u32, String> {
        let address =
            place.address.checked_add(offset).ok_or("it passes the end of all addresses")?;
        let value = self.0.load(address, Width::Four).map_err(|error| error.to_string())?;
        Ok(value as u32)
    }
}

/// The machine of a running QEMU, `-qtest unix:SOCKET,server=on,wait=off`, behind its own firmware.
pub fn running(socket: &Path, limit: Duration) -> Result<Found, OutsideError> {
    let mut qtest = Qtest::connect(socket, limit)?;
    let before = qtest.port_in(CONFIG_ADDRESS, PortWidth::Four)?;
    let mut half = |register| {
        qtest.port_out(CONFIG_ADDRESS, register, PortWidth::Four)?;
        qtest.port_in(CONFIG_DATA, PortWidth::Four)
    };
    let halves = PCIEXBAR.map(&mut half);
    qtest.port_out(CONFIG_ADDRESS, before, PortWidth::Four)?;
    let [low, high] = halves;
    let (low, high) = (low?, high?);
    if low & 1 == 0 {
        return Err(OutsideError::NoEcam);
    }
    let ecam = u64::from(high) << 32 | u64::from(low & 0xF000_0000);
    let cedt = table(&mut qtest, *b"CEDT")?;
    let subject = format!("QEMU behind {}, from outside", socket.display());
    let found = look(&mut qtest, subject, ecam, cedt);
    qtest.check()?;
    Ok(found)
}

/// A scenario's machine on QEMU, brought up by the library from outside.
pub fn brought_up_by_us(scenario: &Scenario, limit: Duration) -> Result<Found, OutsideError> {
    let offers = Offers::ask_for(Arch::X86, limit);
    let offers = offers.map_err(|error| OutsideError::Run(error.into()))?;
    let mut up = brought_up(&offers, scenario, limit).map_err(OutsideError::Run)?;
    let ecam = up.tables.ecam.first().map(|ecam| ecam.base.0).ok_or(OutsideError::NoEcam)?;
    let cedt = up.done.cedt.clone();
    if cedt.is_empty() {
        return Err(OutsideError::NoCedt);
    }
    let subject = format!("{} on QEMU {}, from outside", scenario.name, offers.name());
    let found = look(&mut up.qtest, subject, ecam, cedt);
    up.qtest.check()?;
    Ok(found)
}

fn look(qtest: &mut Qtest, subject: String, ecam: u64, cedt: Vec<u8>) -> Found {
    let mut found = Found { subject, ..Found::default() };
    let mut uids: Vec<u32> = match Cedt::read(&cedt) {
        Ok(cedt) => cedt.host_bridges().map(|bridge| bridge.uid).collect(),
        Err(_) => vec![],
    };
    uids.sort_unstable();
    found.tables.insert("CEDT".to_owned(), cedt);
    for uid in uids {
        // QEMU makes the UID of a pxb-cxl out of its bus_nr (QEMU hw/acpi/cxl.c).
        let bus = u8::try_from(uid).ok();
        let address = bus.map(|bus| format!("pci0000:{bus:02x}"));
        let root = found.roots.len();
        found.roots.push(Root { address, uid: Some(uid), ..Root::default() });
        if let Some(bus) = bus {
            scan(qtest, &mut found, ecam, bus, root);
        }
    }
    // Whatever is above comes first, as Linux has it.
    let depth = |functions: &[Function], index: usize| {
        let above = |at: usize| functions.get(at).and_then(|function| function.above);
        std::iter::successors(above(index), |at| above(*at)).take(256).count()
    };
    let mut order: Vec<usize> = (0..found.functions.len()).collect();
    order.sort_by_key(|&index| {
        (depth(&found.functions, index), found.functions.get(index).map(|function| function.at))
    });
    let old = std::mem::take(&mut found.functions);
    found.functions = order.iter().filter_map(|&index| old.get(index).cloned()).collect();
    for function in &mut found.functions {
        function.above =
            function.above.and_then(|above| order.iter().position(|index| *index == above));
    }
    found.registers(&mut Outside(qtest));
    found
}

/// The functions of a bus and of all below it that have to do with CXL.
fn scan(qtest: &mut Qtest, found: &mut Found, ecam: u64, bus: u8, root: usize) {
    // Buses are numbered upwards on the way down, so that none comes twice.
    let mut buses: Vec<(u8, Option<usize>)> = vec![(bus, None)];
    let mut seen = vec![bus];
    while let Some((bus, above)) = buses.pop() {
        for device in 0..32u8 {
            for function in 0..8u8 {
                let Some(bdf) = Bdf::new(bus, device, function) else { continue };
                let base = ecam + bdf.ecam_offset(0).unwrap_or_default();
                let mut read = |offset: u16| qtest.read(base + u64::from(offset));
                let id: Id = block::read(&mut read, 0);
                if matches!(id.vendor(), 0 | 0xFFFF) || found.functions.len() >= MAX_FUNCTIONS {
                    // Without the first there is none.
                    if function == 0 {
                        break;
                    }
                    continue;
                }
                let dwords = (0..CONFIG_SIZE).step_by(4).map(&mut read);
                let config: Vec<u8> = dwords.flat_map(u32::to_le_bytes).collect();
                let header: HeaderType = block::read(block::image(&config), 0);
                let buses_below: BusNumbers = block::read(block::image(&config), 0);
                let mut index = above;
                if is_cxl(&config) {
                    let at = Sbdf { segment: 0, bdf };
                    let mut one = Function::new(at, root, above, config.clone());
                    one.bars = bars(&config, header.layout());
                    found.functions.push(one);
                    index = Some(found.functions.len() - 1);
                }
                let next = buses_below.secondary();
                if header.layout() == 1 && next > bus && !seen.contains(&next) {
                    seen.push(next);
                    buses.push((next, index));
                }
                if function == 0 && !header.multi_function() {
                    break;
                }
            }
        }
    }
}

/// Addresses of the BARs that are placed. How long they are only a write would tell.
fn bars(config: &[u8], layout: u8) -> std::collections::BTreeMap<u8, (u64, Option<u64>)> {
    let read = block::image(config);
    let count = if layout == 1 { 2 } else { 6 };
    let mut found = std::collections::BTreeMap::new();
    let mut bar = 0u8;
    while bar < count {
        let dword = |bar: u8| block::read::<Bar>(read, 4 * u16::from(bar)).value();
        let kind = BarKind::decode(dword(bar));
        let Ok(kind) = kind else {
            bar += 1;
            continue;
        };
        let high = if bar + 1 < count { dword(bar + 1) } else { 0 };
        let address = kind.address(dword(bar), high);
        if kind != BarKind::Io && address != 0 {
            found.insert(bar, (address, None));
        }
        bar += kind.registers();
    }
    found
}

/// A table by the way that an operating system takes.
fn table(qtest: &mut Qtest, signature: [u8; 4]) -> Result<Vec<u8>, OutsideError> {
    let mut area = vec![0; (RSDP_AREA.end - RSDP_AREA.start) as usize];
    qtest.read_memory(RSDP_AREA.start, &mut area)?;
    let rsdp = area.chunks(16).position(|row| row.starts_with(b"RSD PTR "));
    let rsdp =
        rsdp.and_then(|row| area.get(16 * row..16 * row + 36)).ok_or(OutsideError::NoTables)?;
    let dword = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).and_then(|it| it.try_into().ok()).map_or(0, u32::from_le_bytes)
    };
    let qword = |bytes: &[u8], at: usize| {
        u64::from(dword(bytes, at)) | u64::from(dword(bytes, at + 4)) << 32
    };
    // Revision 2 has an XSDT, with 64-bit entries.
    let wide = rsdp.get(15).is_some_and(|revision| *revision >= 2) && qword(rsdp, 24) != 0;
    let root = if wide { qword(rsdp, 24) } else { dword(rsdp, 16).into() };
    let whole = |qtest: &mut Qtest, at: u64| -> Result<Vec<u8>, OutsideError> {
        let mut head = [0; 8];
        qtest.read_memory(at, &mut head)?;
        let length = dword(&head, 4).clamp(8, MAX_TABLE);
        let mut bytes = vec![0; length as usize];
        qtest.read_memory(at, &mut bytes)?;
        Ok(bytes)
    };
    let list = whole(qtest, root)?;
    let entries = list.get(36..).unwrap_or_default().chunks_exact(if wide { 8 } else { 4 });
    for entry in entries.take(MAX_TABLES) {
        let at = if wide { qword(entry, 0) } else { dword(entry, 0).into() };
        let bytes = whole(qtest, at)?;
        if bytes.starts_with(&signature) {
            return Ok(bytes);
        }
    }
    Err(OutsideError::NoCedt)
}
