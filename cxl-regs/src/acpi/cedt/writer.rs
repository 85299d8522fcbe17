//! Writing a CEDT into a caller's buffer.
//!
//! **Invariant**: what [`CedtWriter::finish`] returns passes [`Cedt::check`](super::Cedt::check).
//! Nothing is added that breaks a rule, and a refused addition leaves the rest as it was.

use core::fmt;
use core::mem::size_of;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

use super::super::header::{Header, Identity, NoRoom, TableWriter};
use super::wire::{CfmwsRecord, ChbsRecord, CximsRecord, Kind, RecordHeader};
use super::{
    CedtError, Cfmws, Chbs, Csds, Cxims, MAX_RECORDS, Problem, RawRecords, Rdpas, Records,
    Restrictions, SIGNATURE,
};
use crate::{Arithmetic, Granularity, Hpa, Span, Ways};

/// Revision of a table without a CSDS: what CXL 2.0 to 3.0 define and QEMU writes.
const REVISION: u8 = 1;
/// The revision that introduced the CSDS.
const REVISION_WITH_CSDS: u8 = 2;

/// Why a table cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CedtWriteError {
    /// The buffer is too small.
    NoRoom(NoRoom),
    /// The table would break a rule; the error has the place that the record has or would have.
    Refused(CedtError),
}

impl From<NoRoom> for CedtWriteError {
    fn from(error: NoRoom) -> Self {
        Self::NoRoom(error)
    }
}

impl From<CedtError> for CedtWriteError {
    fn from(error: CedtError) -> Self {
        Self::Refused(error)
    }
}

impl fmt::Display for CedtWriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom(error) => error.fmt(f),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for CedtWriteError {}

/// Looks at all records of a table.
type Judge = fn(&[u8]) -> Result<(), CedtError>;

/// A CEDT in the making.
///
/// ```
/// use cxl_regs::acpi::cedt::{Cedt, Cfmws, Chbs, ChbsVersion, Restrictions};
/// use cxl_regs::acpi::{CedtWriter, Identity};
/// use cxl_regs::{Hpa, Interleave, Span};
///
/// let identity = Identity {
///     oem_id: *b"OEM   ",
///     oem_table_id: *b"EXAMPLE ",
///     oem_revision: 1,
///     creator_id: *b"TEST",
///     creator_revision: 1,
/// };
/// let span = Span::new(Hpa(0x3_d000_0000), 4 << 30)?;
/// let mut window = Cfmws::new(span, Interleave::NONE, &[12])?;
/// window.restrictions = Restrictions::new().with_host_only(true).with_volatile(true);
///
/// let mut buffer = [0; 256];
/// let mut writer = CedtWriter::new(&mut buffer, identity)?;
/// writer.chbs(&Chbs::new(12, ChbsVersion::Chbcr, Hpa(0x3_c000_0000))?)?;
/// writer.cfmws(&window)?;
/// let table = writer.finish()?;
/// assert_eq!(table.len(), 36 + 0x20 + 0x28);
/// assert_eq!(Cedt::read(table)?.check(), Ok(()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CedtWriter<'a> {
    table: TableWriter<'a>,
    /// How many records there is room for, and where the first one lies that is too many.
    left: u16,
    excess: Option<usize>,
    /// Judges all records in the end. A pointer, so that it is linked only where there are windows
    /// whose maps have to be looked for: what was added is legal, whichever way it was.
    judge: Option<Judge>,
}

impl<'a> CedtWriter<'a> {
    /// Starts a table without records in `buffer`, whose contents do not matter.
    pub fn new(buffer: &'a mut [u8], identity: Identity) -> Result<Self, NoRoom> {
        let table = TableWriter::new(buffer, SIGNATURE, REVISION, identity)?;
        Ok(Self { table, left: MAX_RECORDS, excess: None, judge: None })
    }

    /// Adds a host bridge; refuses a UID that is there already.
    pub fn chbs(&mut self, chbs: &Chbs) -> Result<(), CedtWriteError> {
        self.push(chbs.encode().as_bytes(), &[], same_bridge)
    }

    /// Adds a window; refuses one that overlaps another. The maps of an XOR window may follow
    /// later.
    pub fn cfmws(&mut self, window: &Cfmws) -> Result<(), CedtWriteError> {
        if window.arithmetic == Arithmetic::Xor {
            self.judge = Some(judge);
        }
        let (record, targets) = window.encode();
        self.push(record.as_bytes(), targets.as_bytes(), overlap)
    }

    /// Adds a window of one way: one that needs no list of targets and no maps, and no room for them. It
    /// may lie where [`Cfmws::check_range`] allows it; else the error is this record's.
    pub fn cfmws_of_one_way(
        &mut self,
        span: Span,
        target: u32,
        granularity: Granularity,
        restrictions: Restrictions,
        qtg: u16,
    ) -> Result<(), CedtWriteError> {
        if let Err(problem) = Cfmws::check_range(span, Ways::One) {
            return Err(CedtError { record: self.table.written().len(), problem }.into());
        }
        let record = CfmwsRecord {
            header: RecordHeader::new(Kind::Cfmws, size_of::<(CfmwsRecord, U32)>()),
            reserved0: U32::ZERO,
            base: span.base().0.into(),
            size: span.size().into(),
            eniw: Ways::One.encode(),
            arithmetic: Arithmetic::Modulo.encode(),
            reserved1: U16::ZERO,
            hbig: u32::from(granularity.encode()).into(),
            restrictions: restrictions.into_bits().into(),
            qtg: qtg.into(),
        };
        self.push(record.as_bytes(), &target.to_le_bytes(), overlap)
    }

    /// Adds the XOR maps for a granularity; refuses a second set for the same one.
    pub fn cxims(&mut self, cxims: &Cxims) -> Result<(), CedtWriteError> {
        let (record, maps) = cxims.encode();
        self.push(record.as_bytes(), maps.as_bytes(), same_maps)
    }

    /// Adds what the system can do, and makes the table one of revision 2.
    pub fn csds(&mut self, csds: &Csds) -> Result<(), CedtWriteError> {
        self.push(csds.encode().as_bytes(), &[], |_, _| None)?;
        self.table.set_revision(REVISION_WITH_CSDS);
        Ok(())
    }

    /// Adds an RDPAS **in the layout of 0x14 bytes with the base before the protocol**.
    ///
    /// Readers disagree about this record: headers of older Linux and ACPICA have the protocol
    /// before the base, and would take a wrong address from what is written here. Only error
    /// reporting of CXL 1.1 hosts needs it. Without that need, leave it out.
    pub fn rdpas_in_current_layout(&mut self, rdpas: &Rdpas) -> Result<(), CedtWriteError> {
        self.push(rdpas.encode().as_bytes(), &[], |_, _| None)
    }

    /// Sets length and checksum and returns the table, exactly; refuses an XOR window whose maps
    /// are missing, too few or wrong.
    #[inline(never)]
    pub fn finish(self) -> Result<&'a mut [u8], CedtWriteError> {
        if let Some(judge) = self.judge {
            judge(self.table.written())?;
        }
        if let Some(record) = self.excess {
            let problem = Problem::TooMany { limit: MAX_RECORDS };
            return Err(CedtError { record, problem }.into());
        }
        Ok(self.table.finish()?)
    }

    #[inline(never)]
    fn push(
        &mut self,
        fixed: &[u8],
        rest: &[u8],
        conflict: Conflict,
    ) -> Result<(), CedtWriteError> {
        let written = self.table.written();
        let offset = written.len();
        let mut earlier = written.get(size_of::<Header>()..).unwrap_or_default();
        while let Ok((header, _)) = RecordHeader::ref_from_prefix(earlier) {
            let same_kind = fixed.first() == earlier.first();
            if let Some(problem) = conflict(fixed, earlier).filter(|_| same_kind) {
                return Err(CedtError { record: offset, problem }.into());
            }
            earlier = earlier.get(usize::from(header.length.get()).max(1)..).unwrap_or_default();
        }
        self.table.push(&[fixed, rest])?;
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => _ = self.excess.get_or_insert(offset),
        }
        Ok(())
    }
}

/// What keeps a legal record out of a table that has a legal one of its kind already; of both the bytes,
/// and what follows. A pointer, so that only those are linked of whose kind records are added.
type Conflict = fn(new: &[u8], earlier: &[u8]) -> Option<Problem>;

fn same_bridge(new: &[u8], earlier: &[u8]) -> Option<Problem> {
    let uid = |bytes| Some(ChbsRecord::ref_from_prefix(bytes).ok()?.0.uid.get());
    let (new, earlier) = (uid(new)?, uid(earlier)?);
    (new == earlier).then_some(Problem::DuplicateChbs { uid: new })
}

fn overlap(new: &[u8], earlier: &[u8]) -> Option<Problem> {
    let (window, other) = (window(new)?, window(earlier)?);
    window.overlaps(other).then_some(Problem::Overlap { window, other })
}

#[inline(never)]
fn window(bytes: &[u8]) -> Option<Span> {
    let (record, _) = CfmwsRecord::ref_from_prefix(bytes).ok()?;
    Span::new(Hpa(record.base.get()), record.size.get()).ok()
}

fn same_maps(new: &[u8], earlier: &[u8]) -> Option<Problem> {
    let hbig = |bytes| Some(CximsRecord::ref_from_prefix(bytes).ok()?.0.hbig);
    let (new, earlier) = (hbig(new)?, hbig(earlier)?);
    let granularity = Granularity::decode(new).ok()?;
    (new == earlier).then_some(Problem::DuplicateCxims { granularity })
}

/// Judges every record of a table by itself and beside the others.
fn judge(table: &[u8]) -> Result<(), CedtError> {
    for raw in RawRecords::of(table) {
        Records::of(table).judge_among(raw?)?;
    }
    Ok(())
}
