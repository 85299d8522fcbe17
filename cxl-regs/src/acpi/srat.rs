//! SRAT: which memory belongs to which proximity domain.
//!
//! **Invariant**: a [`MemoryAffinity`] is enabled and has a range; entries that are neither are
//! seen as what they are and never as memory. ACPI 6.5, sections 5.2.16 and 5.2.16.2.

use core::fmt;
use core::mem::{offset_of, size_of};

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{self, AppendError, Header, Identity, NoRoom, Table, TableError, TableWriter};
use crate::addr::{Hpa, Span, SpanError};

/// What every entry starts with.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct EntryHeader {
    /// Kind of entry; 1 is memory affinity.
    pub kind: u8,
    /// Length of the entry, this header included.
    pub length: u8,
}

/// A memory affinity entry as it lies in the table.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct MemoryAffinityRecord {
    /// Kind 1, length 40.
    pub header: EntryHeader,
    /// Proximity domain.
    pub domain: U32,
    /// Reserved.
    pub reserved0: U16,
    /// First address; the specification has it as two dwords, low first.
    pub base: U64,
    /// Number of bytes; likewise.
    pub size: U64,
    /// Reserved.
    pub reserved1: U32,
    /// [`MemoryFlags`].
    pub flags: U32,
    /// Reserved.
    pub reserved2: U64,
}

const _: () = {
    assert!(size_of::<MemoryAffinityRecord>() == 40);
    assert!(offset_of!(MemoryAffinityRecord, domain) == 2);
    assert!(offset_of!(MemoryAffinityRecord, base) == 8);
    assert!(offset_of!(MemoryAffinityRecord, size) == 16);
    assert!(offset_of!(MemoryAffinityRecord, flags) == 28);
};

/// Flags of a memory affinity entry.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct MemoryFlags {
    /// The entry counts.
    pub enabled: bool,
    /// The range may be plugged at run time.
    pub hot_pluggable: bool,
    /// The range is non-volatile.
    pub non_volatile: bool,
    #[bits(29)]
    __: u32,
}

const SIGNATURE: [u8; 4] = *b"SRAT";
/// Revision 3: proximity domains have 32 bits.
const REVISION: u8 = 3;
const MEMORY: u8 = 1;

/// What lies between the table header and the entries.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FixedPart {
    /// "Reserved to be 1 for backward compatibility".
    one: U32,
    reserved: U64,
}

const FIXED: usize = size_of::<Header>() + size_of::<FixedPart>();
const _: () = assert!(FIXED == 48);

/// A range of memory and its proximity domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryAffinity {
    /// Proximity domain.
    pub domain: u32,
    /// The range.
    pub span: Span,
    /// Whether the range may be plugged at run time.
    pub hot_pluggable: bool,
    /// Whether the range is non-volatile.
    pub non_volatile: bool,
}

impl MemoryAffinity {
    /// The legal value of a record; `None` for one that is not enabled.
    pub fn decode(record: &MemoryAffinityRecord) -> Result<Option<Self>, SpanError> {
        let flags = MemoryFlags::from_bits(record.flags.get());
        if !flags.enabled() {
            return Ok(None);
        }
        Ok(Some(Self {
            domain: record.domain.get(),
            span: Span::new(Hpa(record.base.get()), record.size.get())?,
            hot_pluggable: flags.hot_pluggable(),
            non_volatile: flags.non_volatile(),
        }))
    }

    /// The record of a legal value.
    pub fn encode(&self) -> MemoryAffinityRecord {
        let flags = MemoryFlags::new()
            .with_enabled(true)
            .with_hot_pluggable(self.hot_pluggable)
            .with_non_volatile(self.non_volatile);
        MemoryAffinityRecord {
            header: EntryHeader { kind: MEMORY, length: size_of::<MemoryAffinityRecord>() as u8 },
            domain: self.domain.into(),
            reserved0: U16::ZERO,
            base: self.span.base().0.into(),
            size: self.span.size().into(),
            reserved1: U32::ZERO,
            flags: flags.into_bits().into(),
            reserved2: U64::ZERO,
        }
    }
}

/// One entry of an SRAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry<'a> {
    /// Memory affinity.
    Memory(MemoryAffinity),
    /// Memory affinity without the enabled flag: its other fields mean nothing.
    Disabled,
    /// Another kind: processors, generic initiators.
    Other {
        /// Kind of entry.
        kind: u8,
        /// All its bytes.
        bytes: &'a [u8],
    },
}

/// Why an entry is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryError {
    /// The table ends inside the entry. Nothing behind it can be read.
    PastEnd {
        /// Where the entry starts.
        offset: usize,
        /// Bytes the entry needs.
        expected: usize,
        /// Bytes left.
        found: usize,
    },
    /// The length is less than the kind needs. Below 2, nothing behind it can be read.
    Length {
        /// Where the entry starts.
        offset: usize,
        /// Bytes the kind needs.
        expected: usize,
        /// The length found.
        found: usize,
    },
    /// An enabled memory entry without a range.
    Span {
        /// Where the entry starts.
        offset: usize,
        /// What is wrong with the range.
        error: SpanError,
    },
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PastEnd { offset, expected, found } => {
                write!(f, "the entry at {offset:#x} has {expected} bytes, {found} are left")
            }
            Self::Length { offset, expected, found } => {
                write!(f, "the entry at {offset:#x} has length {found}, needs {expected}")
            }
            Self::Span { offset, error } => write!(f, "the entry at {offset:#x}: {error}"),
        }
    }
}

impl core::error::Error for EntryError {}

/// A checked SRAT.
#[derive(Clone, Copy, Debug)]
pub struct Srat<'a> {
    table: Table<'a>,
}

impl<'a> Srat<'a> {
    /// The SRAT at the start of `bytes`.
    pub fn read(bytes: &'a [u8]) -> Result<Self, TableError> {
        Ok(Self { table: Table::read(bytes, SIGNATURE, FIXED)? })
    }

    /// The entries in order, each with its own verdict.
    pub fn entries(&self) -> Entries<'a> {
        Entries { bytes: self.table.bytes(), at: FIXED }
    }
}

/// Iterator over the entries of an SRAT.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, EntryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.at;
        let rest = self.bytes.get(offset..).filter(|rest| !rest.is_empty())?;
        // Ends the iteration unless the entry turns out to have a length.
        self.at = self.bytes.len();
        let past_end = |expected| EntryError::PastEnd { offset, expected, found: rest.len() };
        let Ok((header, _)) = EntryHeader::ref_from_prefix(rest) else {
            return Some(Err(past_end(size_of::<EntryHeader>())));
        };
        let length = usize::from(header.length);
        let too_short = |expected| EntryError::Length { offset, expected, found: length };
        if length < size_of::<EntryHeader>() {
            return Some(Err(too_short(size_of::<EntryHeader>())));
        }
        let Some(bytes) = rest.get(..length) else { return Some(Err(past_end(length))) };
        self.at = offset + length;
        if header.kind != MEMORY {
            return Some(Ok(Entry::Other { kind: header.kind, bytes }));
        }
        let Ok((record, _)) = MemoryAffinityRecord::ref_from_prefix(bytes) else {
            return Some(Err(too_short(size_of::<MemoryAffinityRecord>())));
        };
        Some(match MemoryAffinity::decode(record) {
            Ok(Some(memory)) => Ok(Entry::Memory(memory)),
            Ok(None) => Ok(Entry::Disabled),
            Err(error) => Err(EntryError::Span { offset, error }),
        })
    }
}

/// Writes an SRAT with these memory ranges to the start of `buffer` and returns its bytes.
///
/// ```
/// use cxl_regs::acpi::Identity;
/// use cxl_regs::acpi::srat::{self, Entry, MemoryAffinity, Srat};
/// use cxl_regs::{Hpa, Span};
///
/// let identity = Identity {
///     oem_id: *b"OEM   ",
///     oem_table_id: *b"EXAMPLE ",
///     oem_revision: 1,
///     creator_id: *b"TEST",
///     creator_revision: 1,
/// };
/// let span = Span::new(Hpa(0x3_d000_0000), 4 << 30)?;
/// let memory = MemoryAffinity { domain: 1, span, hot_pluggable: true, non_volatile: false };
/// let mut buffer = [0; 128];
/// let table = srat::write(identity, [memory], &mut buffer)?;
/// assert!(Srat::read(table)?.entries().eq([Ok(Entry::Memory(memory))]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(
    identity: Identity,
    memory: impl IntoIterator<Item = MemoryAffinity>,
    buffer: &mut [u8],
) -> Result<&mut [u8], NoRoom> {
    let mut writer = TableWriter::new(buffer, SIGNATURE, REVISION, identity)?;
    writer.push(&[FixedPart { one: 1.into(), reserved: U64::ZERO }.as_bytes()])?;
    for affinity in memory {
        writer.push(&[affinity.encode().as_bytes()])?;
    }
    writer.finish()
}

/// Adds a memory range to the SRAT at the start of `buffer`, in the room behind it, and returns the
/// longer table. What other entries say stays as it is.
pub fn append<'a>(
    memory: &MemoryAffinity,
    buffer: &'a mut [u8],
) -> Result<&'a mut [u8], AppendError> {
    Srat::read(buffer)?;
    header::append(buffer, memory.encode().as_bytes())
}
