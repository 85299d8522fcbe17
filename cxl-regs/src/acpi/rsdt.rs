//! RSDT and XSDT: the lists of all other tables, with 32-bit and 64-bit addresses.
//!
//! **Invariant**: an entry is only ever added or changed together with length and checksum.
//! ACPI 6.5, sections 5.2.7 and 5.2.8. The addresses of an XSDT are not aligned.

use core::fmt;
use core::mem::size_of;

use zerocopy::little_endian::{U32, U64};

use super::header::{self, AppendError, Header, Identity, NoRoom, Table, TableError, TableWriter};

/// Which of the two root tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 32-bit addresses.
    Rsdt,
    /// 64-bit addresses.
    Xsdt,
}

impl Kind {
    /// The table's signature.
    pub const fn signature(self) -> [u8; 4] {
        match self {
            Self::Rsdt => *b"RSDT",
            Self::Xsdt => *b"XSDT",
        }
    }
}

/// Why a root table cannot be read, written or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootError {
    /// Not a root table.
    Table(TableError),
    /// The buffer is too small.
    NoRoom(NoRoom),
    /// The address does not fit the 32 bits of an RSDT entry.
    AddressTooWide {
        /// The address.
        address: u64,
    },
    /// The table has no such entry.
    NoSuchEntry {
        /// The index asked for.
        index: usize,
        /// Number of entries.
        count: usize,
    },
}

impl From<TableError> for RootError {
    fn from(error: TableError) -> Self {
        Self::Table(error)
    }
}

impl From<NoRoom> for RootError {
    fn from(error: NoRoom) -> Self {
        Self::NoRoom(error)
    }
}

impl From<AppendError> for RootError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Table(error) => Self::Table(error),
            AppendError::NoRoom(error) => Self::NoRoom(error),
        }
    }
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Table(error) => error.fmt(f),
            Self::NoRoom(error) => error.fmt(f),
            Self::AddressTooWide { address } => {
                write!(f, "address {address:#x} does not fit a 32-bit RSDT entry")
            }
            Self::NoSuchEntry { index, count } => {
                write!(f, "there is no entry {index}, the table has {count}")
            }
        }
    }
}

impl core::error::Error for RootError {}

#[derive(Clone, Copy, Debug)]
enum Entries<'a> {
    Rsdt(&'a [U32]),
    Xsdt(&'a [U64]),
}

/// A checked RSDT or XSDT.
#[derive(Clone, Copy, Debug)]
pub struct RootTable<'a> {
    entries: Entries<'a>,
}

impl<'a> RootTable<'a> {
    /// The root table at the start of `bytes`; which of the two it is, the caller knows from the
    /// RSDP.
    pub fn read(kind: Kind, bytes: &'a [u8]) -> Result<Self, TableError> {
        let fixed = size_of::<Header>();
        let table = Table::read(bytes, kind.signature(), fixed)?;
        let entries = match kind {
            Kind::Rsdt => Entries::Rsdt(table.entries(fixed)?),
            Kind::Xsdt => Entries::Xsdt(table.entries(fixed)?),
        };
        Ok(Self { entries })
    }

    /// Number of entries.
    pub const fn count(&self) -> usize {
        match self.entries {
            Entries::Rsdt(entries) => entries.len(),
            Entries::Xsdt(entries) => entries.len(),
        }
    }

    /// The address in entry `index`.
    pub fn address(&self, index: usize) -> Option<u64> {
        match self.entries {
            Entries::Rsdt(entries) => entries.get(index).map(|entry| u64::from(entry.get())),
            Entries::Xsdt(entries) => entries.get(index).map(|entry| entry.get()),
        }
    }

    /// The addresses of all tables listed, in order.
    pub fn addresses(self) -> impl Iterator<Item = u64> + 'a {
        (0..self.count()).filter_map(move |index| self.address(index))
    }
}

/// An address as the bytes of an entry.
fn encode(kind: Kind, address: u64) -> Result<heapless::Vec<u8, 8>, RootError> {
    match (kind, u32::try_from(address)) {
        (Kind::Xsdt, _) => Ok(address.to_le_bytes().into()),
        (Kind::Rsdt, Ok(address)) => Ok(address.to_le_bytes().into()),
        (Kind::Rsdt, Err(_)) => Err(RootError::AddressTooWide { address }),
    }
}

/// Writes a root table to the start of `buffer` and returns its bytes.
pub fn write<'a>(
    kind: Kind,
    identity: Identity,
    addresses: &[u64],
    buffer: &'a mut [u8],
) -> Result<&'a mut [u8], RootError> {
    let mut writer = TableWriter::new(buffer, kind.signature(), 1, identity)?;
    for &address in addresses {
        writer.push(&[&encode(kind, address)?])?;
    }
    Ok(writer.finish()?)
}

/// Adds an address to the root table at the start of `buffer`, in the room behind it, and returns
/// the longer table.
///
/// ```
/// use cxl_regs::acpi::{Identity, RootTable, rsdt};
///
/// let identity = Identity {
///     oem_id: *b"OEM   ",
///     oem_table_id: *b"EXAMPLE ",
///     oem_revision: 1,
///     creator_id: *b"TEST",
///     creator_revision: 1,
/// };
/// let mut buffer = [0; 64];
/// rsdt::write(rsdt::Kind::Xsdt, identity, &[0x1000], &mut buffer)?;
/// let longer = rsdt::append(rsdt::Kind::Xsdt, 0x8_0000_0000, &mut buffer)?;
/// let root = RootTable::read(rsdt::Kind::Xsdt, longer)?;
/// assert!(root.addresses().eq([0x1000, 0x8_0000_0000]));
/// # Ok::<(), rsdt::RootError>(())
/// ```
pub fn append(kind: Kind, address: u64, buffer: &mut [u8]) -> Result<&mut [u8], RootError> {
    RootTable::read(kind, buffer)?;
    Ok(header::append(buffer, &encode(kind, address)?)?)
}

/// Replaces the address in entry `index` of the root table at the start of `bytes`.
pub fn replace(kind: Kind, index: usize, address: u64, bytes: &mut [u8]) -> Result<(), RootError> {
    let count = RootTable::read(kind, bytes)?.count();
    let entry = encode(kind, address)?;
    let no_such_entry = RootError::NoSuchEntry { index, count };
    if index >= count {
        return Err(no_such_entry);
    }
    let at = size_of::<Header>() + index * entry.len();
    bytes.get_mut(at..at + entry.len()).ok_or(no_such_entry)?.copy_from_slice(&entry);
    Ok(header::mend_checksum(bytes)?)
}
