//! Writing a CEDT into a caller's buffer.
//!
//! **Invariant**: what [`CedtWriter::finish`] returns passes [`Cedt::check`](super::Cedt::check).
//! Nothing is added that breaks a rule, and a refused addition leaves the rest as it was.

use core::fmt;

use zerocopy::IntoBytes;

use super::super::header::{Identity, NoRoom, TableWriter};
use super::{CedtError, Cfmws, Chbs, Csds, Cxims, RawRecords, Rdpas, Record, Records, SIGNATURE};

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
}

impl<'a> CedtWriter<'a> {
    /// Starts a table without records in `buffer`, whose contents do not matter.
    pub fn new(buffer: &'a mut [u8], identity: Identity) -> Result<Self, NoRoom> {
        Ok(Self { table: TableWriter::new(buffer, SIGNATURE, REVISION, identity)? })
    }

    /// Adds a host bridge; refuses a UID that is there already.
    pub fn chbs(&mut self, chbs: &Chbs) -> Result<(), CedtWriteError> {
        self.push(Record::Chbs(*chbs), chbs.encode().as_bytes(), &[])
    }

    /// Adds a window; refuses one that overlaps another. The maps of an XOR window may follow
    /// later.
    pub fn cfmws(&mut self, window: &Cfmws) -> Result<(), CedtWriteError> {
        let (record, targets) = window.encode();
        self.push(Record::Cfmws(window.clone()), record.as_bytes(), targets.as_bytes())
    }

    /// Adds the XOR maps for a granularity; refuses a second set for the same one.
    pub fn cxims(&mut self, cxims: &Cxims) -> Result<(), CedtWriteError> {
        let (record, maps) = cxims.encode();
        self.push(Record::Cxims(cxims.clone()), record.as_bytes(), maps.as_bytes())
    }

    /// Adds what the system can do, and makes the table one of revision 2.
    pub fn csds(&mut self, csds: &Csds) -> Result<(), CedtWriteError> {
        self.push(Record::Csds(*csds), csds.encode().as_bytes(), &[])?;
        self.table.set_revision(REVISION_WITH_CSDS);
        Ok(())
    }

    /// Adds an RDPAS **in the layout of 0x14 bytes with the base before the protocol**.
    ///
    /// Readers disagree about this record: headers of older Linux and ACPICA have the protocol
    /// before the base, and would take a wrong address from what is written here. Only error
    /// reporting of CXL 1.1 hosts needs it. Without that need, leave it out.
    pub fn rdpas_in_current_layout(&mut self, rdpas: &Rdpas) -> Result<(), CedtWriteError> {
        self.push(Record::Rdpas(*rdpas), rdpas.encode().as_bytes(), &[])
    }

    /// Sets length and checksum and returns the table, exactly; refuses an XOR window whose maps
    /// are missing, too few or wrong.
    pub fn finish(self) -> Result<&'a mut [u8], CedtWriteError> {
        let written = self.table.written();
        for raw in RawRecords::of(written) {
            Records::of(written).judge_among(raw?)?;
        }
        Ok(self.table.finish()?)
    }

    fn push(
        &mut self,
        record: Record<'_>,
        fixed: &[u8],
        rest: &[u8],
    ) -> Result<(), CedtWriteError> {
        let written = self.table.written();
        let offset = written.len();
        if let Some(problem) = Records::of(written).conflict(offset, &record) {
            return Err(CedtError { record: offset, problem }.into());
        }
        Ok(self.table.push(&[fixed, rest])?)
    }
}
