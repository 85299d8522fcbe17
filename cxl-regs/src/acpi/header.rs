//! The header that every ACPI table but the RSDP starts with, its checksum, and the two ways past
//! it: [`Table`] for bytes that exist, `TableWriter` for bytes that do not yet.
//!
//! **Invariant**: a [`Table`] has the signature that was asked for, lies whole inside the bytes it
//! was read from, and sums to 0. ACPI 6.5, section 5.2.6.

use core::fmt;
use core::mem::{offset_of, size_of};

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The table header as it lies in memory.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// Four letters that name the kind of table.
    pub signature: [u8; 4],
    /// Length of the whole table in bytes, this header included.
    pub length: U32,
    /// Revision of the kind of table.
    pub revision: u8,
    /// Makes all bytes of the table sum to 0.
    pub checksum: u8,
    /// Who made the machine.
    pub oem_id: [u8; 6],
    /// Which table of theirs this is.
    pub oem_table_id: [u8; 8],
    /// Their revision of it.
    pub oem_revision: U32,
    /// Who made the tool that made the table.
    pub creator_id: [u8; 4],
    /// Revision of that tool.
    pub creator_revision: U32,
}

const _: () = {
    assert!(size_of::<Header>() == 36);
    assert!(offset_of!(Header, length) == 4);
    assert!(offset_of!(Header, revision) == 8);
    assert!(offset_of!(Header, checksum) == 9);
    assert!(offset_of!(Header, oem_id) == 10);
    assert!(offset_of!(Header, oem_table_id) == 16);
    assert!(offset_of!(Header, oem_revision) == 24);
    assert!(offset_of!(Header, creator_id) == 28);
    assert!(offset_of!(Header, creator_revision) == 32);
};

/// Who a table says it comes from: the part of the header that is the author's to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who made the machine; padded with spaces or zeros.
    pub oem_id: [u8; 6],
    /// Which table of theirs; padded likewise.
    pub oem_table_id: [u8; 8],
    /// Their revision of it.
    pub oem_revision: u32,
    /// Who made the tool that made the table.
    pub creator_id: [u8; 4],
    /// Revision of that tool.
    pub creator_revision: u32,
}

/// The sum of all bytes, modulo 256. Over a whole good table it is 0.
pub fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

/// The checksum byte that makes `bytes` sum to 0, given the one that is in there now.
pub(crate) fn mended(bytes: &[u8], found: u8) -> u8 {
    found.wrapping_sub(sum(bytes))
}

/// Why bytes are not the table that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableError {
    /// Not even a header fits.
    NoHeader {
        /// Bytes a header needs.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// Another kind of table.
    Signature {
        /// The signature asked for.
        expected: [u8; 4],
        /// The signature found.
        found: [u8; 4],
    },
    /// The length field leaves no room for the fixed part of this kind of table.
    Length {
        /// The shortest possible table of the kind.
        least: usize,
        /// The length field.
        found: u32,
    },
    /// The table says that it is longer than the bytes given.
    Truncated {
        /// The length field.
        expected: u32,
        /// Bytes given.
        found: usize,
    },
    /// The bytes do not sum to 0.
    Checksum {
        /// The checksum byte that would make them.
        expected: u8,
        /// The checksum byte found.
        found: u8,
    },
    /// What follows the fixed part is not a whole number of entries.
    Ragged {
        /// Bytes an entry has.
        entry: usize,
        /// The length field.
        length: u32,
    },
}

impl TableError {
    /// The byte of the table that the error is about.
    pub const fn offset(self) -> usize {
        match self {
            Self::NoHeader { .. } | Self::Signature { .. } => 0,
            Self::Length { .. } | Self::Truncated { .. } | Self::Ragged { .. } => {
                offset_of!(Header, length)
            }
            Self::Checksum { .. } => offset_of!(Header, checksum),
        }
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {:#x}: ", self.offset())?;
        match *self {
            Self::NoHeader { expected, found } => {
                write!(f, "a table header has {expected} bytes, only {found} given")
            }
            Self::Signature { expected, found } => write!(
                f,
                "the signature is \"{}\", expected \"{}\"",
                found.escape_ascii(),
                expected.escape_ascii()
            ),
            Self::Length { least, found } => {
                write!(f, "the table length is {found}, this kind has at least {least} bytes")
            }
            Self::Truncated { expected, found } => {
                write!(f, "the table has {expected} bytes, only {found} given")
            }
            Self::Checksum { expected, found } => {
                write!(f, "the checksum is {found:#04x}, {expected:#04x} makes the bytes sum to 0")
            }
            Self::Ragged { entry, length } => write!(
                f,
                "the table length {length} does not end at an entry boundary ({entry} bytes each)"
            ),
        }
    }
}

impl core::error::Error for TableError {}

/// A table whose signature, length and checksum have been checked.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    header: &'a Header,
    bytes: &'a [u8],
}

impl<'a> Table<'a> {
    /// The table at the start of `bytes`, which may go on behind it.
    ///
    /// `least` is the shortest length that this kind of table can have; a header is always needed.
    pub fn read(bytes: &'a [u8], signature: [u8; 4], least: usize) -> Result<Self, TableError> {
        let have = bytes.len();
        let expected = size_of::<Header>();
        let (header, _) = Header::ref_from_prefix(bytes)
            .map_err(|_| TableError::NoHeader { expected, found: have })?;
        if header.signature != signature {
            return Err(TableError::Signature { expected: signature, found: header.signature });
        }
        let length = header.length.get();
        let least = least.max(size_of::<Header>());
        if (length as usize) < least {
            return Err(TableError::Length { least, found: length });
        }
        let bytes = bytes
            .get(..length as usize)
            .ok_or(TableError::Truncated { expected: length, found: have })?;
        let expected = mended(bytes, header.checksum);
        if header.checksum != expected {
            return Err(TableError::Checksum { expected, found: header.checksum });
        }
        Ok(Self { header, bytes })
    }

    /// The header.
    pub const fn header(&self) -> &'a Header {
        self.header
    }

    /// The whole table: as many bytes as its length field says.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What follows the fixed part of `fixed` bytes, in whole entries of `T`.
    pub(crate) fn entries<T>(&self, fixed: usize) -> Result<&'a [T], TableError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let ragged = TableError::Ragged { entry: size_of::<T>(), length: self.header.length.get() };
        self.bytes.get(fixed..).and_then(|b| <[T]>::ref_from_bytes(b).ok()).ok_or(ragged)
    }
}

/// Sets the checksum of the table at the start of `bytes` after it was edited in place.
///
/// ```
/// # use cxl_regs::acpi::{header, rsdt, Identity, Table};
/// # let identity = Identity {
/// #     oem_id: *b"OEM   ", oem_table_id: *b"EXAMPLE ", oem_revision: 1,
/// #     creator_id: *b"TEST", creator_revision: 1,
/// # };
/// # let mut buffer = [0; 64];
/// # let table = rsdt::write(rsdt::Kind::Rsdt, identity, &[0x1000], &mut buffer)?;
/// table[10..16].copy_from_slice(b"OTHERS");
/// assert!(Table::read(table, *b"RSDT", 36).is_err());
/// header::mend_checksum(table)?;
/// assert!(Table::read(table, *b"RSDT", 36).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn mend_checksum(bytes: &mut [u8]) -> Result<(), TableError> {
    let have = bytes.len();
    let expected = size_of::<Header>();
    let no_header = TableError::NoHeader { expected, found: have };
    let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| no_header)?;
    let (length, found) = (header.length.get(), header.checksum);
    if (length as usize) < size_of::<Header>() {
        return Err(TableError::Length { least: size_of::<Header>(), found: length });
    }
    let table = bytes
        .get(..length as usize)
        .ok_or(TableError::Truncated { expected: length, found: have })?;
    let checksum = mended(table, found);
    let (header, _) = Header::mut_from_prefix(bytes).map_err(|_| no_header)?;
    header.checksum = checksum;
    Ok(())
}

/// The caller's buffer cannot take what is to be written. What is in it is no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// Bytes needed so far.
    pub need: usize,
    /// Bytes the buffer has.
    pub have: usize,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the table needs {} bytes, the buffer has {}", self.need, self.have)
    }
}

impl core::error::Error for NoRoom {}

/// A table in the making: header kept aside, entries already in the caller's buffer.
#[derive(Debug)]
pub(crate) struct TableWriter<'a> {
    header: Header,
    buffer: &'a mut [u8],
    length: usize,
}

impl<'a> TableWriter<'a> {
    #[inline(never)]
    pub(crate) fn new(
        buffer: &'a mut [u8],
        signature: [u8; 4],
        revision: u8,
        identity: Identity,
    ) -> Result<Self, NoRoom> {
        let header = Header {
            signature,
            length: U32::ZERO,
            revision,
            checksum: 0,
            oem_id: identity.oem_id,
            oem_table_id: identity.oem_table_id,
            oem_revision: identity.oem_revision.into(),
            creator_id: identity.creator_id,
            creator_revision: identity.creator_revision.into(),
        };
        // A length field has 32 bits: more buffer than that is no use.
        let most = buffer.len().min(u32::MAX as usize);
        let (buffer, _) = buffer.split_at_mut(most);
        let mut writer = Self { header, buffer, length: 0 };
        writer.push(&[header.as_bytes()])?;
        Ok(writer)
    }

    /// Adds these parts behind what is there; on an error none was added.
    #[inline(never)]
    pub(crate) fn push(&mut self, parts: &[&[u8]]) -> Result<(), NoRoom> {
        let have = self.buffer.len();
        let need = parts.iter().fold(self.length, |need, part| need.saturating_add(part.len()));
        let mut place = self.buffer.get_mut(self.length..need).ok_or(NoRoom { need, have })?;
        for part in parts {
            let (head, rest) =
                place.split_at_mut_checked(part.len()).ok_or(NoRoom { need, have })?;
            head.copy_from_slice(part);
            place = rest;
        }
        self.length = need;
        Ok(())
    }

    pub(crate) fn set_revision(&mut self, revision: u8) {
        self.header.revision = revision;
    }

    /// What was written so far; the header is not final before [`TableWriter::finish`].
    pub(crate) fn written(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }

    /// Length and checksum; the exact table.
    #[inline(never)]
    pub(crate) fn finish(mut self) -> Result<&'a mut [u8], NoRoom> {
        let no_room = NoRoom { need: self.length, have: self.buffer.len() };
        self.header.length = (self.length as u32).into();
        let table = self.buffer.get_mut(..self.length).ok_or(no_room)?;
        self.header.write_to_prefix(table).map_err(|_| no_room)?;
        self.header.checksum = mended(table, 0);
        self.header.write_to_prefix(table).map_err(|_| no_room)?;
        Ok(table)
    }
}

/// Adds `entry` to the end of the finished table at the start of `buffer`, in the room behind it,
/// and mends length and checksum.
pub(crate) fn append<'a>(buffer: &'a mut [u8], entry: &[u8]) -> Result<&'a mut [u8], AppendError> {
    let have = buffer.len();
    let expected = size_of::<Header>();
    let no_header = TableError::NoHeader { expected, found: have };
    let (header, _) = Header::mut_from_prefix(&mut *buffer).map_err(|_| no_header)?;
    let old = header.length.get() as usize;
    let need = old.saturating_add(entry.len());
    let no_room = NoRoom { need, have };
    let length = u32::try_from(need).map_err(|_| no_room)?;
    if need > have {
        return Err(no_room.into());
    }
    header.length = length.into();
    let table = buffer.get_mut(..need).ok_or(no_room)?;
    table.get_mut(old..).ok_or(no_room)?.copy_from_slice(entry);
    mend_checksum(table)?;
    Ok(table)
}

/// Why an entry could not be added to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// What is there is not the table to add to.
    Table(TableError),
    /// There is no room behind it. The table is unchanged.
    NoRoom(NoRoom),
}

impl From<TableError> for AppendError {
    fn from(error: TableError) -> Self {
        Self::Table(error)
    }
}

impl From<NoRoom> for AppendError {
    fn from(error: NoRoom) -> Self {
        Self::NoRoom(error)
    }
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(error) => error.fmt(f),
            Self::NoRoom(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for AppendError {}
