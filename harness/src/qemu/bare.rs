//! QEMU's q35 machine before any firmware has run on it (`-S`): configuration space switched on,
//! and the platform read from the tables that QEMU has ready for a firmware to fetch.
//!
//! Nothing else is set up: bus numbers, forwarding windows and BARs are left to the library, which
//! assigns what it finds unassigned.
//!
//! **Invariant**: what is said of the platform comes from QEMU's own tables; nothing is made up but
//! where BARs may go, which no table says.

use std::fmt;

use cxl_firmware::Error;
use cxl_firmware::acpi::Tables as Platform;
use cxl_firmware::platform::{Resources, RootBus};
use cxl_regs::acpi::header::mend_checksum;
use cxl_regs::{Hpa, Span};

use super::process::Arch;
use super::qtest::{PortWidth, Qtest, QtestError, Width};
use crate::run::Tables;

/// Where ECAM goes: where SeaBIOS puts it on this machine (QEMU `include/hw/pci-host/q35.h`).
const ECAM: u32 = 0xB000_0000;
/// Where BARs may go: behind ECAM and below the interrupt controllers.
const BARS: u64 = 0xC000_0000;
const BARS_END: u64 = 0xFEC0_0000;
/// Bytes of them for one bridge.
const BARS_PER_BRIDGE: u64 = 32 << 20;

/// The host bridge's PCIEXBAR, low and high half, as CONFIG_ADDRESS wants them.
const PCIEXBAR: [u32; 2] = [0x8000_0060, 0x8000_0064];
const CONFIG_ADDRESS: u16 = 0xCF8;
const CONFIG_DATA: u16 = 0xCFC;

/// fw_cfg (QEMU `docs/specs/fw_cfg.rst`): numbers in it are big-endian.
mod fw_cfg {
    /// How much RAM there is: little-endian, as all of the old items.
    pub(super) const RAM_SIZE: u16 = 0x03;
    /// The list of files.
    pub(super) const DIRECTORY: u16 = 0x19;
    /// Address of the DMA request, high and low half.
    pub(super) const DMA: [u16; 2] = [0x514, 0x518];
    /// The same in memory, on the machine virt, whose RAM starts here (QEMU `hw/arm/virt.c`). Not its
    /// first megabytes, which hold the device tree.
    pub(super) const ARM_DMA: [u64; 2] = [0x0902_0010, 0x0902_0014];
    pub(super) const ARM_RAM: u64 = 0x4100_0000;
    /// Reads the item selected in bits 31:16.
    pub(super) const SELECT_AND_READ: u32 = 0x8 | 0x2;
    /// Bytes of an entry of the list: size, item, reserved, name.
    pub(super) const ENTRY: usize = 64;
    /// The tables.
    pub(super) const TABLES: &str = "etc/acpi/tables";
}

/// RAM that is used for requests, and behind it for what they bring: nothing else lives there
/// before a firmware runs.
const REQUEST: u64 = 0x1000;
const ANSWER: u64 = 0x10_0000;
/// The most files, and the most bytes of one, that are believed.
const MAX_FILES: usize = 1024;
const MAX_TABLES: usize = 4 << 20;

/// Why the platform is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BareError {
    /// QEMU does not answer.
    Qtest(QtestError),
    /// A request to fw_cfg failed.
    FwCfg {
        /// The item.
        item: u16,
        /// The control word when it was to be done.
        control: u32,
    },
    /// fw_cfg has no such file.
    NoFile {
        /// Its name.
        name: &'static str,
    },
    /// fw_cfg says nonsense about the size of something.
    Size {
        /// Of what.
        what: &'static str,
        /// The most that is believed.
        most: usize,
        /// What it says.
        found: usize,
    },
    /// The file has no such table.
    NoTable {
        /// Its signature.
        signature: &'static str,
    },
    /// The tables make no sense.
    Platform(Error),
    /// There are more bridges than there is room for BARs.
    Bridges {
        /// The most.
        most: usize,
        /// How many there are.
        found: usize,
    },
}

impl fmt::Display for BareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Qtest(error) => error.fmt(f),
            Self::FwCfg { item, control } => write!(
                f,
                "fw_cfg item {item:#x}: expected a control word of 0, found {control:#010x}"
            ),
            Self::NoFile { name } => write!(f, "fw_cfg has no file {name}"),
            Self::Size { what, most, found } => {
                write!(f, "fw_cfg: expected at most {most} {what}, found {found}")
            }
            Self::NoTable { signature } => write!(
                f,
                "QEMU's tables have no {signature}; is it a q35 machine with cxl=on and a pxb-cxl?"
            ),
            Self::Platform(error) => write!(f, "QEMU's tables: {error}"),
            Self::Bridges { most, found } => {
                write!(f, "expected at most {most} host bridges, found {found}")
            }
        }
    }
}

impl std::error::Error for BareError {}

impl From<QtestError> for BareError {
    fn from(error: QtestError) -> Self {
        Self::Qtest(error)
    }
}

/// Switches configuration space on and reads the platform. `address_bits` is the width of the
/// processor's physical addresses, which no table says.
pub fn platform(qtest: &mut Qtest, address_bits: u8) -> Result<Tables, BareError> {
    platform_for(Arch::X86, qtest, address_bits)
}

/// The same of the machine of an architecture; on Arm's, configuration space is always on.
pub fn platform_for(arch: Arch, qtest: &mut Qtest, address_bits: u8) -> Result<Tables, BareError> {
    let [low, high] = PCIEXBAR;
    if arch == Arch::X86 {
        // Enable is bit 0 of the low half, so that comes last (Intel 3 Series chipset, PCIEXBAR).
        for (register, value) in [(high, 0), (low, ECAM | 1)] {
            qtest.port_out(CONFIG_ADDRESS, register, PortWidth::Four)?;
            qtest.port_out(CONFIG_DATA, value, PortWidth::Four)?;
        }
    }
    let tables = file(arch, qtest, fw_cfg::TABLES)?;
    let (mcfg, cedt) = (table(&tables, "MCFG")?, table(&tables, "CEDT")?);
    let read = |roots: &[(u32, RootBus)]| {
        Platform::from_acpi(&mcfg, &cedt, address_bits, roots).map_err(BareError::Platform)
    };
    // QEMU makes the UID of a pxb-cxl out of its bus_nr (QEMU hw/acpi/cxl.c).
    let first: Tables = read(&[])?;
    let bus = |uid: u32| Some((uid, RootBus { segment: 0, bus: u8::try_from(uid).ok()? }));
    let roots: Vec<_> = first.bridges.iter().filter_map(|bridge| bus(bridge.uid)).collect();
    let mut platform: Tables = read(&roots)?;
    let most = ((BARS_END - BARS) / BARS_PER_BRIDGE) as usize;
    let found = platform.bridges.len();
    // In order of UID: QEMU lists them in any order.
    let mut uids: Vec<u32> = platform.bridges.iter().map(|bridge| bridge.uid).collect();
    uids.sort_unstable();
    for (index, uid) in (0..).zip(uids) {
        let span = Span::new(Hpa(BARS + index * BARS_PER_BRIDGE), BARS_PER_BRIDGE);
        let pushed = span.map(|span| platform.resources.push(Resources { uid, span }).is_ok());
        if index as usize >= most || pushed != Ok(true) {
            return Err(BareError::Bridges { most, found });
        }
    }
    Ok(platform)
}

/// Bytes of RAM that the machine has.
pub(crate) fn memory(qtest: &mut Qtest) -> Result<u64, BareError> {
    let mut bytes = [0; 8];
    item(Arch::X86, qtest, fw_cfg::RAM_SIZE, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Fetches a file of fw_cfg.
fn file(arch: Arch, qtest: &mut Qtest, name: &'static str) -> Result<Vec<u8>, BareError> {
    let mut count = [0; 4];
    item(arch, qtest, fw_cfg::DIRECTORY, &mut count)?;
    let count = u32::from_be_bytes(count) as usize;
    if count > MAX_FILES {
        return Err(BareError::Size { what: "files", most: MAX_FILES, found: count });
    }
    let mut directory = vec![0; 4 + count * fw_cfg::ENTRY];
    item(arch, qtest, fw_cfg::DIRECTORY, &mut directory)?;
    let entries = directory.get(4..).unwrap_or_default().chunks_exact(fw_cfg::ENTRY);
    let found = entries.filter_map(|entry| {
        let (size, rest) = entry.split_first_chunk::<4>()?;
        let (select, rest) = rest.split_first_chunk::<2>()?;
        let bytes = rest.get(2..)?.split(|byte| *byte == 0).next()?;
        (bytes == name.as_bytes())
            .then_some((u32::from_be_bytes(*size) as usize, u16::from_be_bytes(*select)))
    });
    let Some((size, select)) = { found }.next() else { return Err(BareError::NoFile { name }) };
    if size > MAX_TABLES {
        return Err(BareError::Size { what: "bytes of tables", most: MAX_TABLES, found: size });
    }
    let mut bytes = vec![0; size];
    item(arch, qtest, select, &mut bytes)?;
    Ok(bytes)
}

/// Fetches the first bytes of an item by DMA.
fn item(arch: Arch, qtest: &mut Qtest, item: u16, bytes: &mut [u8]) -> Result<(), BareError> {
    let ram = if arch == Arch::Arm { fw_cfg::ARM_RAM } else { 0 };
    let (request_at, answer_at) = (ram + REQUEST, ram + ANSWER);
    let control = u32::from(item) << 16 | fw_cfg::SELECT_AND_READ;
    let mut request = Vec::new();
    request.extend(control.to_be_bytes());
    request.extend((bytes.len() as u32).to_be_bytes());
    request.extend(answer_at.to_be_bytes());
    qtest.write_memory(request_at, &request)?;
    let halves = [(request_at >> 32) as u32, request_at as u32].map(u32::to_be);
    // The low half starts it; it is done when the write is.
    match arch {
        Arch::X86 => {
            for (port, half) in fw_cfg::DMA.into_iter().zip(halves) {
                qtest.port_out(port, half, PortWidth::Four)?;
            }
        }
        Arch::Arm => {
            for (register, half) in fw_cfg::ARM_DMA.into_iter().zip(halves) {
                qtest.store(register, half.into(), Width::Four)?;
            }
        }
    }
    let mut control = [0; 4];
    qtest.read_memory(request_at, &mut control)?;
    let control = u32::from_be_bytes(control);
    // Bit 0 says that it failed; any other, that it is not done.
    if control != 0 {
        return Err(BareError::FwCfg { item, control });
    }
    Ok(qtest.read_memory(answer_at, bytes)?)
}

/// The table with this signature out of the file, where tables stand one behind the other. Its
/// checksum is left for the firmware to fill in (QEMU `docs/specs/acpi_table_loader`), so here.
fn table(file: &[u8], signature: &'static str) -> Result<Vec<u8>, BareError> {
    let missing = BareError::NoTable { signature };
    let found = file.windows(size_of::<u64>()).enumerate().find_map(|(at, start)| {
        let (name, rest) = start.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*rest.first_chunk::<4>()?) as usize;
        let whole = file.get(at..at.checked_add(length)?)?;
        (name == signature.as_bytes() && length >= size_of::<cxl_regs::acpi::Header>())
            .then(|| whole.to_vec())
    });
    let mut bytes = found.ok_or(missing.clone())?;
    mend_checksum(&mut bytes).map_err(|_| missing)?;
    Ok(bytes)
}
