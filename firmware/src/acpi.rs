//! The platform out of ACPI bytes: MCFG for configuration space, CEDT for bridges and windows.
//!
//! **Invariant**: a table that breaks a rule of its own is refused with the byte that breaks it;
//! what only becomes wrong together with other facts (a window at 0 where RAM is, XOR without maps,
//! targets that name nothing) is passed on for the plan to refuse by name. One rule that platforms
//! break is not held against them: see [`Tables::windows`]. Who wants a policy to judge what one record costs
//! reads by [`Tables::from_acpi_in_part`]: there a record that breaks a rule is listed with its error.

use core::mem::size_of;

use cxl_regs::acpi::cedt::wire::{self, CfmwsRecord, Wire};
use cxl_regs::acpi::cedt::{Cedt, CedtError, Cfmws, ChbsVersion, Cxims, Problem, Record};
use cxl_regs::acpi::mcfg::{Allocation, Mcfg};
use cxl_regs::acpi::rsdt::Kind;
use cxl_regs::acpi::{Header, RootTable, Rsdp, Table};
use cxl_regs::{Arithmetic, DECODER_UNIT, Granularity, Hpa, Interleave, Ways};
use heapless::Vec;
use zerocopy::little_endian::U32;

use crate::error::{Code, Error, Place};
use crate::list::List;
use crate::platform::{
    Bridge, BridgeKind, Ecam, Platform, Resources, Restrictions, RootBus, Window,
};

/// The most regions of configuration space that are kept.
pub const MAX_ECAM: usize = 32;

/// The most records that cannot be read and are listed.
pub const MAX_UNREADABLE: usize = 8;

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
    /// See [`Platform::unreadable`]; empty, unless [`Tables::from_acpi_in_part`] listed something.
    pub unreadable: Vec<Error, MAX_UNREADABLE>,
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
        Self::of(address_bits, |tables| tables.read(mcfg, cedt, roots))
    }

    /// As [`Tables::from_acpi`], but one record that cannot be read costs what it says, and no more, where
    /// the policy is content with the rest: it is listed with what is wrong with it, a window as
    /// [`Window::unreadable`], all else in [`Tables::unreadable`]. A strict run refuses each of them.
    ///
    /// What leaves nothing to read is refused as ever: a checksum, and a record whose length does not lead to
    /// the next one. So are more than [`MAX_UNREADABLE`] records that are listed.
    pub fn from_acpi_in_part(
        mcfg: &[u8],
        cedt: &[u8],
        address_bits: u8,
        roots: &[(u32, RootBus)],
    ) -> Result<Self, Error> {
        Self::of(address_bits, |tables| tables.read_in_part(mcfg, cedt, roots))
    }

    fn of(
        address_bits: u8,
        read: impl FnOnce(&mut TablesMut<'_>) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut tables = Self {
            ecam: Vec::new(),
            bridges: Vec::new(),
            windows: Vec::new(),
            address_bits,
            resources: Vec::new(),
            unreadable: Vec::new(),
        };
        let Self { ecam, bridges, windows, unreadable, .. } = &mut tables;
        read(&mut TablesMut {
            ecam: ecam.into(),
            bridges: bridges.into(),
            windows: windows.into(),
            unreadable: unreadable.into(),
        })?;
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
            unreadable: &self.unreadable,
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
    /// See [`Tables::unreadable`].
    pub unreadable: List<'a, Error>,
}

/// What becomes of a record that breaks a rule.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unreadable {
    /// The tables are refused.
    Refused,
    /// It is listed.
    Listed,
}

impl TablesMut<'_> {
    /// Reads both tables; see [`Tables::from_acpi`].
    pub fn read(
        &mut self,
        mcfg: &[u8],
        cedt: &[u8],
        roots: &[(u32, RootBus)],
    ) -> Result<(), Error> {
        self.read_as(mcfg, cedt, roots, Unreadable::Refused)
    }

    /// Reads both tables; see [`Tables::from_acpi_in_part`].
    pub fn read_in_part(
        &mut self,
        mcfg: &[u8],
        cedt: &[u8],
        roots: &[(u32, RootBus)],
    ) -> Result<(), Error> {
        self.read_as(mcfg, cedt, roots, Unreadable::Listed)
    }

    fn read_as(
        &mut self,
        mcfg: &[u8],
        cedt: &[u8],
        roots: &[(u32, RootBus)],
        unreadable: Unreadable,
    ) -> Result<(), Error> {
        let cedt = Cedt::read(cedt).map_err(|error| Code::PLATFORM_CEDT.error().rule(error))?;
        self.ecam.clear();
        self.bridges.clear();
        self.windows.clear();
        self.unreadable.clear();
        self.read_ecam(mcfg, unreadable)?;
        self.read_bridges(&cedt, roots, unreadable)?;
        self.read_windows(&cedt, unreadable)
    }

    /// An error of one record: it is listed by a code if that is wanted, and if there is room.
    fn lost(&mut self, error: Error, code: Code, unreadable: Unreadable) -> Result<(), Error> {
        match unreadable {
            Unreadable::Refused => Err(error),
            Unreadable::Listed => self.unreadable.push(Error { code, ..error }).map_err(|_| error),
        }
    }

    fn read_ecam(&mut self, mcfg: &[u8], unreadable: Unreadable) -> Result<(), Error> {
        let mcfg = Mcfg::read(mcfg).map_err(|error| Code::PLATFORM_MCFG.error().rule(error))?;
        for (index, allocation) in mcfg.allocations().enumerate() {
            let allocation: Allocation = match allocation {
                Ok(allocation) => allocation,
                Err(error) => {
                    let error = Code::PLATFORM_ALLOCATION.at(Place::entry(index)).rule(error);
                    self.lost(error, error.code, unreadable)?;
                    continue;
                }
            };
            let region = Ecam {
                base: allocation.base(),
                segment: allocation.segment(),
                first_bus: allocation.first_bus(),
                last_bus: allocation.last_bus(),
            };
            push(&mut self.ecam, region, Count::Ecam)?;
        }
        Ok(())
    }

    fn read_bridges(
        &mut self,
        cedt: &Cedt<'_>,
        roots: &[(u32, RootBus)],
        unreadable: Unreadable,
    ) -> Result<(), Error> {
        for raw in cedt.raw_records() {
            let raw = raw.map_err(broken)?;
            let record = match raw.wire() {
                Ok(Wire::Cfmws(..)) => continue,
                Ok(wire) => Record::decode(wire).map_err(|problem| at(raw.offset, problem)),
                Err(error) => Err(error),
            };
            let chbs = match record {
                Ok(Record::Chbs(chbs)) => chbs,
                Ok(_) => continue,
                Err(error) => {
                    let code = match raw.bytes.first() {
                        Some(&kind) if kind == wire::Kind::Chbs as u8 => Code::PLATFORM_RECORD,
                        // What it costs is told where it is missing: maps, a window.
                        _ => Code::DISCOVER_RECORD_PASSED_OVER,
                    };
                    self.lost(broken(error), code, unreadable)?;
                    continue;
                }
            };
            let uid = chbs.uid;
            let is_twice = self.bridges.iter().any(|earlier| earlier.uid == uid);
            // Neither is known to be right: discovery loses both.
            if is_twice && unreadable == Unreadable::Refused {
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
            push(&mut self.bridges, bridge, Count::Bridges)?;
        }
        Ok(())
    }

    fn read_windows(&mut self, cedt: &Cedt<'_>, unreadable: Unreadable) -> Result<(), Error> {
        for raw in cedt.raw_records() {
            let raw = raw.map_err(broken)?;
            let Ok(Wire::Cfmws(record, targets)) = raw.wire() else { continue };
            let window = match (window(cedt, record, targets), unreadable) {
                (Ok(window), _) => window,
                (Err(problem), Unreadable::Refused) => {
                    return Err(broken(at(raw.offset, problem)));
                }
                (Err(problem), Unreadable::Listed) => as_far_as_read(record, targets, problem),
            };
            push(&mut self.windows, window, Count::Windows)?;
        }
        Ok(())
    }
}

fn push<T>(list: &mut List<'_, T>, item: T, what: Count) -> Result<(), Error> {
    let have = list.room();
    list.push(item).map_err(|_| Code::PLATFORM_CAPACITY.error().detail(what as u8).expected(have))
}

/// A record that breaks a rule, at the byte that it breaks it with.
fn broken(error: CedtError) -> Error {
    Code::PLATFORM_RECORD.at(Place::byte(error.offset())).rule(error.problem)
}

fn at(record: usize, problem: Problem) -> CedtError {
    CedtError { record, problem }
}

/// The window of a record.
fn window(cedt: &Cedt<'_>, record: &CfmwsRecord, targets: &[U32]) -> Result<Window, Problem> {
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
    let window = Cfmws::decode(&judged, targets)?;
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
    Ok(Window {
        base: Some(window.span().base()),
        size: usable,
        interleave,
        arithmetic: window.arithmetic,
        xor_maps: cxims.map(|Cxims { maps, .. }| maps).unwrap_or_default(),
        restrictions: window.restrictions,
        qtg: window.qtg,
        unreadable: None,
        targets: Vec::from_slice(window.targets()).unwrap_or_default(),
    })
}

/// What can be read of the record of a window that breaks a rule: its addresses, and as many targets as are
/// there.
fn as_far_as_read(record: &CfmwsRecord, targets: &[U32], problem: Problem) -> Window {
    let base = Hpa(record.base.get());
    let window = Place::window(Some(base));
    let mut uids = Vec::new();
    let ways = Ways::decode(record.eniw);
    // Further targets than the ways need mean nothing.
    let count = ways.map_or(targets.len(), |ways| ways.count() as usize);
    for target in targets.iter().take(count) {
        // A window has no more ways than there is room for.
        let _ = uids.push(target.get());
    }
    Window {
        base: Some(base),
        size: record.size.get(),
        interleave: Interleave {
            ways: ways.unwrap_or(Ways::One),
            granularity: Granularity::decode(record.hbig.get()).unwrap_or(Granularity::B256),
        },
        arithmetic: Arithmetic::Modulo,
        xor_maps: Vec::new(),
        restrictions: Restrictions::from_bits(record.restrictions.get()),
        qtg: record.qtg.get(),
        unreadable: Some(Code::TABLES_WINDOW.at(window).rule(problem)),
        targets: uids,
    }
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
