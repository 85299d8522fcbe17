//! MCFG: where each PCI segment's configuration space (ECAM) is in memory.
//!
//! **Invariant**: an [`Allocation`] covers at least one bus and its last byte has an address.
//! PCI Firmware Specification 3.3, section 4.1.2.

use core::fmt;
use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{Header, Identity, NoRoom, Table, TableError, TableWriter};
use crate::addr::{Hpa, Span};

/// One allocation as it lies in the table.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct AllocationRecord {
    /// Where bus 0 of the segment is, or would be.
    pub base: U64,
    /// PCI segment group.
    pub segment: U16,
    /// First bus that is decoded.
    pub first_bus: u8,
    /// Last bus that is decoded.
    pub last_bus: u8,
    /// Reserved.
    pub reserved: U32,
}

const _: () = {
    assert!(size_of::<AllocationRecord>() == 16);
    assert!(offset_of!(AllocationRecord, segment) == 8);
    assert!(offset_of!(AllocationRecord, first_bus) == 10);
    assert!(offset_of!(AllocationRecord, last_bus) == 11);
};

const SIGNATURE: [u8; 4] = *b"MCFG";
/// Header and eight reserved bytes.
const FIXED: usize = size_of::<Header>() + size_of::<U64>();
/// Configuration space of one bus: 32 devices, 8 functions, 4 KiB each.
const BUS_BYTES: u64 = 1 << 20;

/// The configuration space of some buses of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    base: Hpa,
    segment: u16,
    first_bus: u8,
    last_bus: u8,
}

/// Why an allocation makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocationError {
    /// The last bus is below the first.
    Buses {
        /// First bus.
        first: u8,
        /// Last bus.
        last: u8,
    },
    /// The last bus ends behind the 64-bit address space.
    Wraps {
        /// The base.
        base: u64,
        /// Last bus.
        last: u8,
    },
}

impl fmt::Display for AllocationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Buses { first, last } => {
                write!(f, "the last bus {last:#04x} is below the first {first:#04x}")
            }
            Self::Wraps { base, last } => {
                write!(f, "bus {last:#04x} above base {base:#x} passes the end of the 64-bit space")
            }
        }
    }
}

impl core::error::Error for AllocationError {}

impl Allocation {
    /// Buses `first_bus` to `last_bus` of a segment whose bus 0 is, or would be, at `base`.
    pub fn new(
        base: Hpa,
        segment: u16,
        first_bus: u8,
        last_bus: u8,
    ) -> Result<Self, AllocationError> {
        if last_bus < first_bus {
            return Err(AllocationError::Buses { first: first_bus, last: last_bus });
        }
        Span::new(base, (u64::from(last_bus) + 1) * BUS_BYTES)
            .map_err(|_| AllocationError::Wraps { base: base.0, last: last_bus })?;
        Ok(Self { base, segment, first_bus, last_bus })
    }

    /// The legal value of a record.
    pub fn decode(record: &AllocationRecord) -> Result<Self, AllocationError> {
        let base = Hpa(record.base.get());
        Self::new(base, record.segment.get(), record.first_bus, record.last_bus)
    }

    /// The record of a legal value.
    pub fn encode(&self) -> AllocationRecord {
        AllocationRecord {
            base: self.base.0.into(),
            segment: self.segment.into(),
            first_bus: self.first_bus,
            last_bus: self.last_bus,
            reserved: U32::ZERO,
        }
    }

    /// Where bus 0 of the segment is, or would be: every ECAM offset counts from here.
    pub const fn base(&self) -> Hpa {
        self.base
    }

    /// PCI segment group.
    pub const fn segment(&self) -> u16 {
        self.segment
    }

    /// First bus.
    pub const fn first_bus(&self) -> u8 {
        self.first_bus
    }

    /// Last bus; never below the first.
    pub const fn last_bus(&self) -> u8 {
        self.last_bus
    }
}

/// A checked MCFG.
#[derive(Clone, Copy, Debug)]
pub struct Mcfg<'a> {
    records: &'a [AllocationRecord],
}

impl<'a> Mcfg<'a> {
    /// The MCFG at the start of `bytes`.
    pub fn read(bytes: &'a [u8]) -> Result<Self, TableError> {
        let table = Table::read(bytes, SIGNATURE, FIXED)?;
        Ok(Self { records: table.entries(FIXED)? })
    }

    /// The allocations in order, each with its own verdict.
    pub fn allocations(&self) -> impl Iterator<Item = Result<Allocation, AllocationError>> + 'a {
        self.records.iter().map(Allocation::decode)
    }
}

/// Writes an MCFG to the start of `buffer` and returns its bytes.
///
/// ```
/// use cxl_regs::Hpa;
/// use cxl_regs::acpi::Identity;
/// use cxl_regs::acpi::mcfg::{self, Allocation, Mcfg};
///
/// let identity = Identity {
///     oem_id: *b"OEM   ",
///     oem_table_id: *b"EXAMPLE ",
///     oem_revision: 1,
///     creator_id: *b"TEST",
///     creator_revision: 1,
/// };
/// let ecam = Allocation::new(Hpa(0xb000_0000), 0, 0x00, 0xff)?;
/// let mut buffer = [0; 64];
/// let table = mcfg::write(identity, &[ecam], &mut buffer)?;
/// assert!(Mcfg::read(table)?.allocations().eq([Ok(ecam)]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write<'a>(
    identity: Identity,
    allocations: &[Allocation],
    buffer: &'a mut [u8],
) -> Result<&'a mut [u8], NoRoom> {
    let mut writer = TableWriter::new(buffer, SIGNATURE, 1, identity)?;
    writer.push(&[U64::ZERO.as_bytes()])?;
    for allocation in allocations {
        writer.push(&[allocation.encode().as_bytes()])?;
    }
    writer.finish()
}
