//! RSDP: the pointer that an operating system finds first.
//!
//! **Invariant**: both checksums of what is read were good, and of what is written are.
//! ACPI 6.5, section 5.2.5.3.

use core::fmt;
use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{NoRoom, mended, sum};

/// The part that revision 0 consists of.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct FirstPart {
    /// `RSD PTR ` with the space.
    pub signature: [u8; 8],
    /// Makes these 20 bytes sum to 0.
    pub checksum: u8,
    /// Who made the machine.
    pub oem_id: [u8; 6],
    /// 0, or 2 where the rest follows.
    pub revision: u8,
    /// Physical address of the RSDT.
    pub rsdt: U32,
}

/// Revision 2.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Whole {
    /// What revision 0 has.
    pub first: FirstPart,
    /// Length of all of it.
    pub length: U32,
    /// Physical address of the XSDT.
    pub xsdt: U64,
    /// Makes all bytes sum to 0.
    pub extended_checksum: u8,
    /// Reserved.
    pub reserved: [u8; 3],
}

const _: () = {
    assert!(size_of::<FirstPart>() == 20);
    assert!(offset_of!(FirstPart, checksum) == 8);
    assert!(offset_of!(FirstPart, oem_id) == 9);
    assert!(offset_of!(FirstPart, revision) == 15);
    assert!(offset_of!(FirstPart, rsdt) == 16);
    assert!(size_of::<Whole>() == 36);
    assert!(offset_of!(Whole, length) == 20);
    assert!(offset_of!(Whole, xsdt) == 24);
    assert!(offset_of!(Whole, extended_checksum) == 32);
};

const SIGNATURE: [u8; 8] = *b"RSD PTR ";

/// Where the root tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rsdp {
    /// Who made the machine.
    pub oem_id: [u8; 6],
    /// Physical address of the RSDT; 0 where there is only an XSDT.
    pub rsdt: u32,
    /// Physical address of the XSDT in revision 2; `None` is revision 0.
    pub xsdt: Option<u64>,
}

/// Why bytes are not an RSDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RsdpError {
    /// Fewer bytes than this revision has.
    TooShort {
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// Something else.
    Signature {
        /// The signature found.
        found: [u8; 8],
    },
    /// The first 20 bytes do not sum to 0.
    Checksum {
        /// The checksum byte that would make them.
        expected: u8,
        /// The checksum byte found.
        found: u8,
    },
    /// The length field of revision 2 is below 36.
    Length {
        /// The length found.
        found: u32,
    },
    /// All bytes together do not sum to 0.
    ExtendedChecksum {
        /// The checksum byte that would make them.
        expected: u8,
        /// The checksum byte found.
        found: u8,
    },
}

impl RsdpError {
    /// The byte that the error is about.
    pub const fn offset(self) -> usize {
        match self {
            Self::TooShort { .. } | Self::Signature { .. } => 0,
            Self::Checksum { .. } => offset_of!(FirstPart, checksum),
            Self::Length { .. } => offset_of!(Whole, length),
            Self::ExtendedChecksum { .. } => offset_of!(Whole, extended_checksum),
        }
    }
}

impl fmt::Display for RsdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {:#x}: ", self.offset())?;
        match *self {
            Self::TooShort { expected, found } => {
                write!(f, "the RSDP has {expected} bytes, only {found} given")
            }
            Self::Signature { found } => write!(
                f,
                "the signature is \"{}\", expected \"{}\"",
                found.escape_ascii(),
                SIGNATURE.escape_ascii()
            ),
            Self::Checksum { expected, found } => {
                write!(f, "the checksum is {found:#04x}, {expected:#04x} is right")
            }
            Self::Length { found } => {
                write!(f, "the RSDP length is {found}, at least {} is needed", size_of::<Whole>())
            }
            Self::ExtendedChecksum { expected, found } => {
                write!(f, "the extended checksum is {found:#04x}, {expected:#04x} is right")
            }
        }
    }
}

impl core::error::Error for RsdpError {}

impl Rsdp {
    /// The most bytes that [`Rsdp::write`] needs.
    pub const MAX_LEN: usize = size_of::<Whole>();

    /// The RSDP at the start of `bytes`, which may go on behind it.
    ///
    /// Revisions above 2 are read as 2, with the length that they say.
    pub fn read(bytes: &[u8]) -> Result<Self, RsdpError> {
        let too_short = |expected| RsdpError::TooShort { expected, found: bytes.len() };
        let (first, _) =
            FirstPart::ref_from_prefix(bytes).map_err(|_| too_short(size_of::<FirstPart>()))?;
        if first.signature != SIGNATURE {
            return Err(RsdpError::Signature { found: first.signature });
        }
        let expected = mended(first.as_bytes(), first.checksum);
        if first.checksum != expected {
            return Err(RsdpError::Checksum { expected, found: first.checksum });
        }
        let (oem_id, rsdt) = (first.oem_id, first.rsdt.get());
        if first.revision < 2 {
            return Ok(Self { oem_id, rsdt, xsdt: None });
        }
        let (whole, _) =
            Whole::ref_from_prefix(bytes).map_err(|_| too_short(size_of::<Whole>()))?;
        let length = whole.length.get() as usize;
        if length < size_of::<Whole>() {
            return Err(RsdpError::Length { found: whole.length.get() });
        }
        let all = bytes.get(..length).ok_or(too_short(length))?;
        let expected = mended(all, whole.extended_checksum);
        if whole.extended_checksum != expected {
            return Err(RsdpError::ExtendedChecksum { expected, found: whole.extended_checksum });
        }
        Ok(Self { oem_id, rsdt, xsdt: Some(whole.xsdt.get()) })
    }

    /// Writes the RSDP to the start of `buffer` and returns its bytes: 20 without an XSDT, 36 with.
    ///
    /// ```
    /// use cxl_regs::acpi::Rsdp;
    ///
    /// let rsdp = Rsdp { oem_id: *b"OEM   ", rsdt: 0, xsdt: Some(0x7ff0_0000) };
    /// let mut buffer = [0; Rsdp::MAX_LEN];
    /// let bytes = rsdp.write(&mut buffer)?;
    /// assert_eq!(Rsdp::read(bytes), Ok(rsdp));
    /// # Ok::<(), cxl_regs::acpi::NoRoom>(())
    /// ```
    pub fn write<'a>(&self, buffer: &'a mut [u8]) -> Result<&'a mut [u8], NoRoom> {
        let mut first = FirstPart {
            signature: SIGNATURE,
            checksum: 0,
            oem_id: self.oem_id,
            revision: if self.xsdt.is_some() { 2 } else { 0 },
            rsdt: self.rsdt.into(),
        };
        first.checksum = mended(first.as_bytes(), 0);
        let Some(xsdt) = self.xsdt else { return put(buffer, first.as_bytes()) };
        let mut whole = Whole {
            first,
            length: (size_of::<Whole>() as u32).into(),
            xsdt: xsdt.into(),
            extended_checksum: 0,
            reserved: [0; 3],
        };
        whole.extended_checksum = sum(whole.as_bytes()).wrapping_neg();
        put(buffer, whole.as_bytes())
    }
}

fn put<'a>(buffer: &'a mut [u8], bytes: &[u8]) -> Result<&'a mut [u8], NoRoom> {
    let no_room = NoRoom { need: bytes.len(), have: buffer.len() };
    let place = buffer.get_mut(..bytes.len()).ok_or(no_room)?;
    place.copy_from_slice(bytes);
    Ok(place)
}
