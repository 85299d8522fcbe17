//! The platform out of ACPI bytes: MCFG for configuration space, CEDT for bridges and windows.
//!
//! **Invariant**: a table that breaks a rule of its own is refused with the byte that breaks it;
//! what only becomes wrong together with other facts (a window at 0 where RAM is, XOR without maps,
//! targets that name nothing) is passed on for the plan to refuse by name. One rule that platforms
//! break is not held against them: see [`Tables::windows`].

use core::mem::size_of;

use cxl_regs::acpi::cedt::wire::Wire;
use cxl_regs::acpi::cedt::{Cedt, CedtError, Cfmws, ChbsVersion, Cxims, Problem, Record};
use cxl_regs::acpi::mcfg::{Allocation, Mcfg};
use cxl_regs::acpi::rsdt::Kind;
use cxl_regs::acpi::{Header, RootTable, Rsdp, Table};
use cxl_regs::{Arithmetic, DECODER_UNIT, Ways};
use heapless::Vec;

use crate::error::{Code, Error, Place};
use crate::list::List;
use crate::platform::{Bridge, BridgeKind, Ecam, Platform, Resources, RootBus, Window};

/// The most regions of configuration space that are kept.
pub const MAX_ECAM: usize = 32;

/// What there is more of in the tables than a [`Tables`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    /// MCFG allocations.
    Ecam,
    /// Host bridges.
    Bridges,
    /// Windows.
    Windows,
}

/// A platform read from tables, which [`Tables::platform`] lends out.
///
/// About 40 bytes a bridge, 200 a window and 0.5 KiB for [`MAX_ECAM`] regions: keep it in a static
/// or on a stack that has room.
#[derive(Clone, Debug)]
pub struct Tables<const BRIDGES: usize, const WINDOWS: usize> {
    /// Configuration regions.
    pub ecam: Vec<Ecam, MAX_ECAM>,
    /// Host bridges, as the CEDT lists them.
    pub bridges: Vec<Bridge, BRIDGES>,
    /// Windows, as the CEDT lists them; but each ends where its last whole share does.
    ///
    /// A size has to be a multiple of 256 MiB for each way (CXL r3.1 section 9.18.1.3), or there
    /// are addresses in the window that no decoder below it can claim. QEMU makes windows in units
    /// of 256 MiB alone, and Linux takes them (`drivers/cxl/acpi.c`). The platform does decode
    /// them, so they are no reason to refuse it; what is planned, and described to the next stage,
    /// is the part that can be used. A window without even one share has no such part: it is listed as
    /// it is, a note of the plan names it, and no table has it. One at 0 may end where a hole below
    /// 4 GiB begins, and is listed whole. [`Cedt::check`] keeps to the letter.
    pub windows: Vec<Window, WINDOWS>,
    /// Width of a physical address in bits.
    pub address_bits: u8,
    /// What discovery may assign below which bridge; nothing, unless the caller adds it.
    pub resources: Vec<Resources, BRIDGES>,
}

impl<const BRIDGES: usize, const WINDOWS: usize> Tables<BRIDGES, WINDOWS> {
    /// Reads both tables. `roots` says where bridges' hierarchies start, as far as the caller knows
    /// (`_BBN` and `_SEG` are in AML); UIDs of other bridges may be among them.
    ///
    /// ```no_run
    /// use cxl_firmware::acpi::Tables;
    ///
    /// # let (mcfg, cedt): (&[u8], &[u8]) = (&[], &[]);
    /// let tables = Tables::<8, 16>::from_acpi(mcfg, cedt, 46, &[])?;
    /// let platform = tables.platform();
    /// # Ok::<(), cxl_firmware::Error>(())
    /// ```
    pub fn from_acpi(
        mcfg: &[u8],
        cedt: &[u8],
        address_bits: u8,
        roots: &[(u32, RootBus)],
    ) -> Result<Self, Error> {
        let (ecam, bridges, windows) = (Vec::new(), Vec::new(), Vec::new());
        let mut tables = Self { ecam, bridges, windows, address_bits, resources: Vec::new() };
        let Self { ecam, bridges, windows, .. } = &mut tables;
        TablesMut { ecam: ecam.into(), bridges: bridges.into(), windows: windows.into() }
            .read(mcfg, cedt, roots)?;
        Ok(tables)
    }

    /// The platform for discovery and the plan.
    pub fn platform(&self) -> Platform<'_> {
        Platform {
            ecam: &self.ecam,
            bridges: &self.bridges,
            windows: &self.windows,
            address_bits: self.address_bits,
            resources: &self.resources,
            occupied: &[],
        }
    }
}

/// Lists for what the tables say, in memory of any size.
#[derive(Debug)]
pub struct TablesMut<'a> {
    /// See [`Tables::ecam`].
    pub ecam: List<'a, Ecam>,
    /// See [`Tables::bridges`].
    pub bridges: List<'a, Bridge>,
    /// See [`Tables::windows`].
    pub windows: List<'a, Window>,
}

impl TablesMut<'_> {
    /// Reads both tables; see [`Tables::from_acpi`].
    pub fn read(
        &mut self,
        mcfg: &[u8],
        cedt: &[u8],
        roots: &[(u32, RootBus)],
    ) -> Result<(), Error> {
        let cedt = Cedt::read(cedt).map_err(|error| Code::PLATFORM_CEDT.error().rule(error))?;
        self.ecam.clear();
        self.bridges.clear();
        self.windows.clear();
        read_ecam(mcfg, &mut self.ecam)?;
        read_bridges(&cedt, roots, &mut self.bridges)?;
        read_windows(&cedt, &mut self.windows)
    }
}

fn push<T>(list: &mut List<'_, T>, item: T, what: Count) -> Result<(), Error> {
    let have = list.room();
    list.push(item).map_err(|_| Code::PLATFORM_CAPACITY.error().detail(what as u8).expected(have))
}

fn read_ecam(mcfg: &[u8], regions: &mut List<'_, Ecam>) -> Result<(), Error> {
    let mcfg = Mcfg::read(mcfg).map_err(|error| Code::PLATFORM_MCFG.error().rule(error))?;
    for (index, allocation) in mcfg.allocations().enumerate() {
        let allocation: Allocation = allocation
            .map_err(|error| Code::PLATFORM_ALLOCATION.at(Place::entry(index)).rule(error))?;
        let region = Ecam {
            base: allocation.base(),
            segment: allocation.segment(),
            first_bus: allocation.first_bus(),
            last_bus: allocation.last_bus(),
        };
        push(regions, region, Count::Ecam)?;
    }
    Ok(())
}

fn read_bridges(
    cedt: &Cedt<'_>,
    roots: &[(u32, RootBus)],
    bridges: &mut List<'_, Bridge>,
) -> Result<(), Error> {
    for raw in cedt.raw_records() {
        let raw = raw.map_err(broken)?;
        let wire = raw.wire().map_err(broken)?;
        if matches!(wire, Wire::Cfmws(..)) {
            continue;
        }
        let record = Record::decode(wire).map_err(|problem| broken(at(raw.offset, problem)))?;
        let Record::Chbs(chbs) = record else { continue };
        let uid = chbs.uid;
        if bridges.iter().any(|earlier| earlier.uid == uid) {
            return Err(broken(at(raw.offset, Problem::DuplicateChbs { uid })));
        }
        let bridge = Bridge {
            uid,
            kind: match chbs.version() {
                ChbsVersion::Rch => BridgeKind::Rcrb,
                ChbsVersion::Chbcr => BridgeKind::ComponentRegisters,
            },
            registers: chbs.registers().base(),
            root: roots.iter().find(|(of, _)| *of == uid).map(|(_, root)| *root),
        };
        push(bridges, bridge, Count::Bridges)?;
    }
    Ok(())
}

/// A record that breaks a rule, at the byte that it breaks it with.
fn broken(error: CedtError) -> Error {
    Code::PLATFORM_RECORD.at(Place::byte(error.offset())).rule(error.problem)
}

fn at(record: usize, problem: Problem) -> CedtError {
    CedtError { record, problem }
}

fn read_windows(cedt: &Cedt<'_>, windows: &mut List<'_, Window>) -> Result<(), Error> {
    for raw in cedt.raw_records() {
        let raw = raw.map_err(broken)?;
        let Ok(Wire::Cfmws(record, targets)) = raw.wire() else { continue };
        let (base, size) = (record.base.get(), record.size.get());
        let mut judged = *record;
        let mut usable = size;
        if let (Ok(ways), true) = (Ways::decode(record.eniw), base != 0)
            && size != 0
            && size.is_multiple_of(DECODER_UNIT)
        {
            let stripe = DECODER_UNIT * u64::from(ways.count());
            judged.size = (size.max(stripe) - size.max(stripe) % stripe).into();
            usable = size.min(judged.size.get());
        }
        let window =
            Cfmws::decode(&judged, targets).map_err(|problem| broken(at(raw.offset, problem)))?;
        let interleave = window.interleave();
        let cxims = match window.arithmetic {
            Arithmetic::Modulo => None,
            Arithmetic::Xor => cedt.records().find_map(|record| match record {
                Ok((_, Record::Cxims(cxims))) => {
                    (cxims.granularity == interleave.granularity).then_some(cxims)
                }
                _ => None,
            }),
        };
        let window = Window {
            base: Some(window.span().base()),
            size: usable,
            interleave,
            arithmetic: window.arithmetic,
            xor_maps: cxims.map(|Cxims { maps, .. }| maps).unwrap_or_default(),
            restrictions: window.restrictions,
            qtg: window.qtg,
            targets: Vec::from_slice(window.targets()).unwrap_or_default(),
        };
        push(windows, window, Count::Windows)?;
    }
    Ok(())
}

/// Copies the table with `signature` into `buffer`, starting from the RSDP, and returns its bytes.
///
/// `read` fills a buffer from physical memory. The root table is checked in the same buffer first,
/// so the buffer must hold the larger of the two.
pub fn find_table<'b>(
    read: &mut dyn FnMut(u64, &mut [u8]),
    rsdp: u64,
    signature: [u8; 4],
    buffer: &'b mut [u8],
) -> Result<&'b [u8], Error> {
    let mut bytes = [0; Rsdp::MAX_LEN];
    read(rsdp, &mut bytes);
    let found = Rsdp::read(&bytes)
        .map_err(|error| Code::PLATFORM_RSDP.at(Place::table(*b"RSDP", rsdp)).rule(error))?;
    let (kind, root) = match found.xsdt {
        Some(xsdt) if xsdt != 0 => (Kind::Xsdt, xsdt),
        _ => (Kind::Rsdt, u64::from(found.rsdt)),
    };
    let bytes = copy_table(read, root, kind.signature(), &mut *buffer)?;
    let table = |error| Code::PLATFORM_TABLE.at(Place::table(kind.signature(), root)).rule(error);
    let entries = RootTable::read(kind, bytes).map_err(table)?;
    let address = entries
        .addresses()
        // An entry of 0 is one that somebody has taken out: no table lies there.
        .filter(|&address| address != 0)
        .find(|&address| {
            let mut start = [0; 4];
            read(address, &mut start);
            start == signature
        })
        .ok_or_else(|| Code::PLATFORM_NO_TABLE.at(Place::table(signature, 0)))?;
    copy_table(read, address, signature, buffer)
}

fn copy_table<'b>(
    read: &mut dyn FnMut(u64, &mut [u8]),
    address: u64,
    signature: [u8; 4],
    buffer: &'b mut [u8],
) -> Result<&'b [u8], Error> {
    const LENGTH: core::ops::Range<usize> = 4..8;
    let mut start = [0; LENGTH.end];
    read(address, &mut start);
    let [_, _, _, _, a, b, c, d] = start;
    let need = u32::from_le_bytes([a, b, c, d]);
    let have = buffer.len();
    let place = usize::try_from(need).ok().and_then(|need| buffer.get_mut(..need));
    let place = place.ok_or_else(|| {
        Code::PLATFORM_TABLE_TOO_LARGE.at(Place::table(signature, 0)).expected(need).found(have)
    })?;
    read(address, place);
    let table = Table::read(place, signature, size_of::<Header>());
    table
        .map(|table| table.bytes())
        .map_err(|error| Code::PLATFORM_TABLE.at(Place::table(signature, address)).rule(error))
}
