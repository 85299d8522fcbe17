//! Register Locator DVSEC, ID 8 (CXL r3.1 section 8.1.9): which BAR holds which registers.
//!
//! **Invariant**: a [`BlockLocation`] names an existing BAR and an offset that is a multiple of
//! 64 KiB.

use core::fmt;

use super::{Dvsec, DvsecHeader1, DvsecId, headers};
use crate::access::rules::RO;
use crate::access::{Register, register};
use crate::block::{self, TooShort};
use crate::codes::codes;

register! {
    /// Register Offset Low Register, offset 0x0C (CXL r3.1 section 8.1.9.1). The first entry; each
    /// further one is 8 bytes on.
    EntryLow: u32, "Register Offset Low" at 0x0C {
        /// Which BAR, from 0 (at 0x10) to 5.
        bir: u8[3], "Register BIR", RO;
        __: u8[5];
        /// See [`BlockId`].
        id: u8, "Register Block Identifier", RO;
        /// Offset bits 31:16.
        offset: u16, "Register Block Offset Low", RO;
    }
}

register! {
    /// Register Offset High Register, offset 0x10 (CXL r3.1 section 8.1.9.2).
    EntryHigh: u32, "Register Offset High" at 0x10 {
        /// Offset bits 63:32.
        offset: u32, "Register Block Offset High", RO;
    }
}

codes! {
    /// What a block of registers is.
    BlockId: u8 {
        /// The entry is not used.
        Empty = 0x00, "empty";
        /// Component registers, 64 KiB.
        Component = 0x01, "component registers";
        /// BAR virtualization ACL.
        BarVirtualizationAcl = 0x02, "BAR virtualization ACL";
        /// CXL device registers, the mailbox among them.
        Device = 0x03, "device registers";
        /// Performance monitoring unit.
        Cpmu = 0x04, "CPMU registers";
        /// Hotness monitoring unit.
        Chmu = 0x05, "CHMU registers";
        /// The vendor's.
        Vendor = 0xff, "vendor registers";
    }
}

/// Where a block of registers is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLocation {
    /// What it is.
    pub id: BlockId,
    /// Which BAR register, 0 (at 0x10) to 5 (at 0x24).
    pub bar: u8,
    /// Offset into the BAR, a multiple of 64 KiB.
    pub offset: u64,
}

/// The highest BAR register of a function.
const LAST_BAR: u8 = 5;
/// Blocks start at multiples of this.
pub const BLOCK_ALIGNMENT: u64 = 1 << 16;
/// Bytes of one entry.
const ENTRY_SIZE: u16 = 8;
/// The entries start behind the headers.
const FIRST_ENTRY: u16 = EntryLow::SPEC.offset;

/// Why an entry, or the list, makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocatorError {
    /// The length is not the headers' plus a multiple of 8.
    Length {
        /// Offset of the DVSEC.
        at: u16,
        /// Its length.
        length: u16,
    },
    /// An entry names a BAR that no function has.
    Bar {
        /// Which entry, from 0.
        entry: u16,
        /// The BAR field.
        bar: u8,
    },
    /// An offset that is not a multiple of 64 KiB cannot be expressed.
    Unaligned {
        /// Which entry, from 0.
        entry: u16,
        /// The offset.
        offset: u64,
    },
    /// More entries than a DVSEC has room for.
    TooMany {
        /// How many were given.
        entries: usize,
    },
    /// The buffer is too short.
    TooShort(TooShort),
}

impl fmt::Display for LocatorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { at, length } => write!(
                f,
                "register locator at {at:#05x} has length {length:#x}, not {FIRST_ENTRY:#x} plus \
                 a multiple of {ENTRY_SIZE}"
            ),
            Self::Bar { entry, bar } => {
                write!(f, "register locator entry {entry} names BAR {bar}, the last is {LAST_BAR}")
            }
            Self::Unaligned { entry, offset } => write!(
                f,
                "register locator entry {entry} has offset {offset:#x}, not a multiple of 64 KiB"
            ),
            Self::TooMany { entries } => {
                write!(f, "{entries} register locator entries do not fit one DVSEC")
            }
            Self::TooShort(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for LocatorError {}

impl From<TooShort> for LocatorError {
    fn from(error: TooShort) -> Self {
        Self::TooShort(error)
    }
}

impl BlockLocation {
    /// The location in an entry's registers.
    pub fn decode(entry: u16, low: EntryLow, high: EntryHigh) -> Result<Self, LocatorError> {
        let (id, bar) = (BlockId::from_code(low.id()), low.bir());
        if bar > LAST_BAR {
            return Err(LocatorError::Bar { entry, bar });
        }
        let offset = u64::from(high.offset()) << 32 | u64::from(low.offset()) << 16;
        Ok(Self { id, bar, offset })
    }

    /// An entry's registers: the inverse of [`BlockLocation::decode`].
    pub fn encode(self, entry: u16) -> Result<(EntryLow, EntryHigh), LocatorError> {
        let Self { id, bar, offset } = self;
        if bar > LAST_BAR {
            return Err(LocatorError::Bar { entry, bar });
        }
        if !offset.is_multiple_of(BLOCK_ALIGNMENT) {
            return Err(LocatorError::Unaligned { entry, offset });
        }
        let low =
            EntryLow::new().with_bir(bar).with_id(id.code()).with_offset((offset >> 16) as u16);
        Ok((low, EntryHigh::new().with_offset((offset >> 32) as u32)))
    }
}

/// The entries of a register locator, empty ones included.
#[derive(Clone, Debug)]
pub struct Locations<R> {
    reader: R,
    base: u16,
    entries: core::ops::Range<u16>,
}

impl<R: FnMut(u16) -> u32> Locations<R> {
    /// The entries of the register locator that a walk found.
    pub fn new(dvsec: &Dvsec, reader: R) -> Result<Self, LocatorError> {
        let Dvsec { offset, length, .. } = *dvsec;
        let bytes = length.checked_sub(FIRST_ENTRY).filter(|n| n.is_multiple_of(ENTRY_SIZE));
        let bytes = bytes.ok_or(LocatorError::Length { at: offset, length })?;
        Ok(Self { reader, base: offset, entries: 0..bytes / ENTRY_SIZE })
    }
}

impl<R: FnMut(u16) -> u32> Iterator for Locations<R> {
    type Item = Result<BlockLocation, LocatorError>;

    #[inline(never)]
    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        let at = self.base.wrapping_add(entry.wrapping_mul(ENTRY_SIZE));
        let low = block::read(&mut self.reader, at);
        let high = block::read(&mut self.reader, at);
        Some(BlockLocation::decode(entry, low, high))
    }
}

/// Writes a whole register locator at `base`; `next` is the next extended capability.
/// Gives its length.
pub fn put(
    bytes: &mut [u8],
    base: u16,
    next: u16,
    locations: &[BlockLocation],
) -> Result<u16, LocatorError> {
    let too_many = LocatorError::TooMany { entries: locations.len() };
    let room = (1 << DvsecHeader1::LENGTH_BITS) - 1 - FIRST_ENTRY;
    let entries = u16::try_from(locations.len()).map_err(|_| too_many)?;
    if entries > room / ENTRY_SIZE {
        return Err(too_many);
    }
    let length = FIRST_ENTRY + ENTRY_SIZE * entries;
    let (start, need) = (usize::from(base), usize::from(base) + usize::from(length));
    let have = bytes.len();
    bytes.get_mut(start..need).ok_or(TooShort { need, have })?.fill(0);
    let (header, header1, header2) = headers(DvsecId::RegisterLocator, 0, length, next);
    block::put(bytes, base, header)?;
    block::put(bytes, base, header1)?;
    block::put(bytes, base, header2)?;
    for (entry, location) in (0..).zip(locations) {
        let (low, high) = location.encode(entry)?;
        let at = base.wrapping_add(ENTRY_SIZE * entry);
        block::put(bytes, at, low)?;
        block::put(bytes, at, high)?;
    }
    Ok(length)
}
