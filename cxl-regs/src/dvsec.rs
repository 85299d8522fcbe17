//! Designated vendor-specific extended capabilities of CXL functions (CXL r3.1 section 8.1).
//!
//! **Invariant**: a walk yields only DVSECs that lie within configuration space and are long
//! enough for their two headers; no reader here looks behind a DVSEC's length.

pub mod device;
pub mod flex_bus;
pub mod gpf;
pub mod locator;
pub mod port;

use core::fmt;

use crate::access::rules::RO;
use crate::access::{Spec, register};
use crate::block::{self, Row};
use crate::codes::codes;
use crate::config::{
    CONFIG_SIZE, ExtendedCapabilities, ExtendedCapabilityId, ExtendedHeader, WalkError,
};

use device::{DeviceDvsec, DeviceDvsecTail};
use flex_bus::{FlexBusDvsec, FlexBusTail};
use gpf::{GpfDeviceDvsec, GpfPortDvsec};
use port::PortDvsec;

/// The vendor ID of the CXL Consortium.
pub const CXL_VENDOR: u16 = 0x1E98;

codes! {
    /// DVSEC IDs (CXL r3.1 table 8-2).
    DvsecId: u16 {
        /// PCIe DVSEC for CXL Devices.
        Device = 0x0, "CXL device";
        /// Non-CXL Function Map.
        NonCxlFunctionMap = 0x2, "non-CXL function map";
        /// CXL Extensions DVSEC for Ports.
        PortExtensions = 0x3, "extensions for ports";
        /// GPF DVSEC for CXL Port.
        GpfPort = 0x4, "GPF for port";
        /// GPF DVSEC for CXL Device.
        GpfDevice = 0x5, "GPF for device";
        /// PCIe DVSEC for Flex Bus Port.
        FlexBusPort = 0x7, "Flex Bus port";
        /// Register Locator.
        RegisterLocator = 0x8, "register locator";
        /// MLD.
        Mld = 0x9, "MLD";
        /// PCIe DVSEC for Test Capability.
        TestCapability = 0xA, "test capability";
    }
}

register! {
    /// Designated Vendor-Specific Header 1 Register, offset 0x04 (PCIe Base 6.x section 7.9.6.2).
    DvsecHeader1: u32, "Designated Vendor-Specific Header 1" at 0x04 {
        /// Who defines the ID; 0x1E98 for CXL.
        vendor: u16, "DVSEC Vendor ID", RO;
        /// Revision of the layout.
        revision: u8[4], "DVSEC Revision", RO;
        /// Bytes, from the extended capability header on.
        length: u16[12], "DVSEC Length", RO;
    }
}

register! {
    /// Designated Vendor-Specific Header 2 Register, offset 0x08 (PCIe Base 6.x section 7.9.6.3).
    DvsecHeader2: u16, "Designated Vendor-Specific Header 2" at 0x08 {
        /// See [`DvsecId`].
        id: u16, "DVSEC ID", RO;
    }
}

/// A block of registers behind the three header registers that every DVSEC starts with.
macro_rules! dvsec {
    (
        $(#[$doc:meta])*
        $name:ident = $id:ident {
            $($rows:tt)*
        }
    ) => {
        $crate::block::block! {
            $(#[$doc])*
            $name {
                /// Extended capability header.
                header: $crate::config::ExtendedHeader;
                /// Vendor, revision and length.
                header1: $crate::dvsec::DvsecHeader1;
                /// ID.
                header2: $crate::dvsec::DvsecHeader2;
                $($rows)*
            }
        }

        impl $name {
            /// All registers 0 behind the headers of this DVSEC. `next` is the offset of the next
            /// extended capability.
            pub fn new(revision: u8, length: u16, next: u16) -> Self {
                let (header, header1, header2) =
                    $crate::dvsec::headers($crate::dvsec::DvsecId::$id, revision, length, next);
                Self { header, header1, header2, ..Self::default() }
            }
        }
    };
}

use dvsec;

/// The headers of a CXL DVSEC. Length and offset keep the 12 bits they have room for.
pub const fn headers(
    id: DvsecId,
    revision: u8,
    length: u16,
    next: u16,
) -> (ExtendedHeader, DvsecHeader1, DvsecHeader2) {
    (
        ExtendedHeader::new()
            .with_id(ExtendedCapabilityId::Dvsec.code())
            .with_version(1)
            .with_next(next & 0xfff),
        DvsecHeader1::new()
            .with_vendor(CXL_VENDOR)
            .with_revision(revision & 0xf)
            .with_length(length & 0xfff),
        DvsecHeader2::new().with_id(id.code()),
    )
}

/// A CXL DVSEC that a walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dvsec {
    /// Offset in configuration space.
    pub offset: u16,
    /// What it is.
    pub id: DvsecId,
    /// Revision of its layout.
    pub revision: u8,
    /// Length in bytes, headers included.
    pub length: u16,
}

impl Dvsec {
    /// Whether the register block is there whole.
    pub const fn has(&self, extent: core::ops::Range<u16>) -> bool {
        extent.end <= self.length
    }

    /// Its registers with their values: those of the blocks that it is long enough for, and none of
    /// an ID without a layout here. The entries of a register locator are
    /// [`Locations`](locator::Locations).
    pub fn rows(&self, mut reader: impl FnMut(u16) -> u32) -> impl Iterator<Item = Row> {
        let blocks: &[(&[&str], &[Spec])] = match self.id {
            DvsecId::Device => &[
                (DeviceDvsec::LABELS, DeviceDvsec::REGISTERS),
                (DeviceDvsecTail::LABELS, DeviceDvsecTail::REGISTERS),
            ],
            DvsecId::PortExtensions => &[(PortDvsec::LABELS, PortDvsec::REGISTERS)],
            DvsecId::GpfPort => &[(GpfPortDvsec::LABELS, GpfPortDvsec::REGISTERS)],
            DvsecId::GpfDevice => &[(GpfDeviceDvsec::LABELS, GpfDeviceDvsec::REGISTERS)],
            DvsecId::FlexBusPort => &[
                (FlexBusDvsec::LABELS, FlexBusDvsec::REGISTERS),
                (FlexBusTail::LABELS, FlexBusTail::REGISTERS),
            ],
            _ => &[],
        };
        let dvsec = *self;
        let there = blocks.iter().filter(move |(_, specs)| dvsec.has(block::extent(specs)));
        let registers = there.flat_map(|(labels, specs)| labels.iter().zip(*specs));
        registers.map(move |(&label, &spec)| Row {
            label,
            spec,
            raw: block::read_raw(&mut reader, dvsec.offset, &spec),
        })
    }
}

/// Why the CXL DVSECs could not be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DvsecError {
    /// The capability list is broken.
    Walk(WalkError),
    /// The length does not hold the headers, or passes the end of configuration space.
    Length {
        /// Offset of the DVSEC.
        at: u16,
        /// Its length field.
        length: u16,
        /// The least it can be.
        least: u16,
        /// The most that fits.
        most: u16,
    },
}

impl fmt::Display for DvsecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Walk(error) => error.fmt(f),
            // All that its twelve bits can hold.
            Self::Length { at, length: 0xFFF, .. } => {
                write!(f, "DVSEC at {at:#05x} has length 0xfff, all-ones: nothing answers")
            }
            Self::Length { at, length, least, most } => {
                write!(f, "DVSEC at {at:#05x} has length {length:#x}, not {least:#x} to {most:#x}")
            }
        }
    }
}

impl core::error::Error for DvsecError {}

/// The header dwords of a DVSEC, the body's first 16 bits included.
const HEADERS_LENGTH: u16 = 0x0C;

/// The CXL DVSECs of a function; other vendors' are passed over.
#[derive(Clone, Debug)]
pub struct Dvsecs<R> {
    walk: ExtendedCapabilities<R>,
}

impl<R: FnMut(u16) -> u32> Dvsecs<R> {
    /// Starts at the first extended capability.
    pub fn new(reader: R) -> Self {
        Self { walk: ExtendedCapabilities::new(reader) }
    }

    /// The first DVSEC with an ID; `None` if the function has none.
    pub fn find(mut self, id: DvsecId) -> Result<Option<Dvsec>, DvsecError> {
        self.find_map(|found| match found {
            Ok(found) => (found.id == id).then_some(Ok(found)),
            Err(error) => Some(Err(error)),
        })
        .transpose()
    }
}

/// Reads and checks the headers of the DVSEC at `offset`; `None` if it is not CXL's.
pub(crate) fn identify(
    mut reader: impl FnMut(u16) -> u32,
    offset: u16,
) -> Option<Result<Dvsec, DvsecError>> {
    let header1: DvsecHeader1 = block::read(&mut reader, offset);
    if header1.vendor() != CXL_VENDOR {
        return None;
    }
    let (length, least) = (header1.length(), HEADERS_LENGTH);
    let most = CONFIG_SIZE.saturating_sub(offset);
    if !(least..=most).contains(&length) {
        return Some(Err(DvsecError::Length { at: offset, length, least, most }));
    }
    let header2: DvsecHeader2 = block::read(&mut reader, offset);
    let id = DvsecId::from_code(header2.id());
    Some(Ok(Dvsec { offset, id, revision: header1.revision(), length }))
}

impl<R: FnMut(u16) -> u32> Iterator for Dvsecs<R> {
    type Item = Result<Dvsec, DvsecError>;

    #[inline(never)]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let found = match self.walk.next()? {
                Ok(found) => found,
                Err(error) => return Some(Err(DvsecError::Walk(error))),
            };
            if found.id == ExtendedCapabilityId::Dvsec
                && let Some(dvsec) = identify(&mut self.walk.reader, found.offset)
            {
                return Some(dvsec);
            }
        }
    }
}
