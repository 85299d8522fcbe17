//! CEDT records as they lie in memory.
//!
//! **Invariant**: sizes and offsets are those of the specification, checked at compile time; values
//! are not judged here.

use core::fmt;
use core::mem::{offset_of, size_of};

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Problem;
use crate::interleave::Ways;

/// The kinds of records that this library knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// CXL Host Bridge Structure.
    Chbs = 0,
    /// CXL Fixed Memory Window Structure.
    Cfmws = 1,
    /// CXL XOR Interleave Math Structure.
    Cxims = 2,
    /// RCEC Downstream Port Association Structure.
    Rdpas = 3,
    /// CXL System Description Structure.
    Csds = 4,
}

impl Kind {
    /// The kind behind a record's code; `None` for a code that is not known.
    pub const fn decode(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Chbs,
            1 => Self::Cfmws,
            2 => Self::Cxims,
            3 => Self::Rdpas,
            4 => Self::Csds,
            _ => return None,
        })
    }

    /// The record's code.
    pub const fn encode(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chbs => "chbs",
            Self::Cfmws => "cfmws",
            Self::Cxims => "cxims",
            Self::Rdpas => "rdpas",
            Self::Csds => "csds",
        })
    }
}

/// What every record starts with. CXL r3.1, section 9.18.1.1.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct RecordHeader {
    /// Kind of record, a [`Kind`].
    pub kind: u8,
    /// Reserved.
    pub reserved: u8,
    /// Length of the record, this header included.
    pub length: U16,
}

impl RecordHeader {
    pub(super) fn new(kind: Kind, length: usize) -> Self {
        Self { kind: kind.encode(), reserved: 0, length: (length as u16).into() }
    }
}

/// CXL Host Bridge Structure. CXL r3.1, section 9.18.1.2.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct ChbsRecord {
    /// Kind 0, length 0x20.
    pub header: RecordHeader,
    /// `_UID` of the ACPI0016 device.
    pub uid: U32,
    /// 0: RCRB of a CXL 1.1 host; 1: component registers.
    pub version: U32,
    /// Reserved.
    pub reserved: U32,
    /// Base of the registers.
    pub base: U64,
    /// Length of the registers.
    pub length: U64,
}

/// Fixed part of the CXL Fixed Memory Window Structure; the targets, dwords, follow.
/// CXL r3.1, section 9.18.1.3.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct CfmwsRecord {
    /// Kind 1, length 0x24 and four for each target.
    pub header: RecordHeader,
    /// Reserved.
    pub reserved0: U32,
    /// First HPA.
    pub base: U64,
    /// Number of bytes.
    pub size: U64,
    /// Encoded number of interleave ways.
    pub eniw: u8,
    /// Interleave arithmetic: 0 modulo, 1 XOR.
    pub arithmetic: u8,
    /// Reserved.
    pub reserved1: U16,
    /// Encoded host bridge interleave granularity.
    pub hbig: U32,
    /// [`Restrictions`].
    pub restrictions: U16,
    /// QoS throttling group.
    pub qtg: U16,
}

/// Fixed part of the CXL XOR Interleave Math Structure; the maps, 64 bits each, follow.
/// CXL r3.1, section 9.18.1.4.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct CximsRecord {
    /// Kind 2, length 8 and eight for each map.
    pub header: RecordHeader,
    /// Reserved.
    pub reserved: U16,
    /// Encoded host bridge interleave granularity.
    pub hbig: u8,
    /// Number of maps.
    pub map_count: u8,
}

/// RCEC Downstream Port Association Structure. CXL r3.1, section 9.18.1.5.
///
/// Older headers of Linux and ACPICA have the protocol before the base; the specification's text
/// was corrected later.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct RdpasRecord {
    /// Kind 3, length 0x14.
    pub header: RecordHeader,
    /// PCI segment of the event collector.
    pub segment: U16,
    /// Bus, device and function of the event collector.
    pub bdf: U16,
    /// Base of the RCRB or of the component registers.
    pub base: U64,
    /// 0: CXL.io; 1: CXL.cachemem.
    pub protocol: u8,
    /// Reserved.
    pub reserved: [u8; 3],
}

/// CXL System Description Structure, since revision 2 of the table. CXL r3.1, section 9.18.1.6.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct CsdsRecord {
    /// Kind 4, length 8.
    pub header: RecordHeader,
    /// [`CsdsCapabilities`].
    pub capabilities: U16,
    /// Reserved.
    pub reserved: U16,
}

const _: () = {
    assert!(size_of::<RecordHeader>() == 4);
    assert!(offset_of!(RecordHeader, length) == 2);

    assert!(size_of::<ChbsRecord>() == 0x20);
    assert!(offset_of!(ChbsRecord, uid) == 0x04);
    assert!(offset_of!(ChbsRecord, version) == 0x08);
    assert!(offset_of!(ChbsRecord, base) == 0x10);
    assert!(offset_of!(ChbsRecord, length) == 0x18);

    assert!(size_of::<CfmwsRecord>() == 0x24);
    assert!(offset_of!(CfmwsRecord, base) == 0x08);
    assert!(offset_of!(CfmwsRecord, size) == 0x10);
    assert!(offset_of!(CfmwsRecord, eniw) == 0x18);
    assert!(offset_of!(CfmwsRecord, arithmetic) == 0x19);
    assert!(offset_of!(CfmwsRecord, hbig) == 0x1C);
    assert!(offset_of!(CfmwsRecord, restrictions) == 0x20);
    assert!(offset_of!(CfmwsRecord, qtg) == 0x22);

    assert!(size_of::<CximsRecord>() == 0x08);
    assert!(offset_of!(CximsRecord, hbig) == 0x06);
    assert!(offset_of!(CximsRecord, map_count) == 0x07);

    assert!(size_of::<RdpasRecord>() == 0x14);
    assert!(offset_of!(RdpasRecord, segment) == 0x04);
    assert!(offset_of!(RdpasRecord, bdf) == 0x06);
    assert!(offset_of!(RdpasRecord, base) == 0x08);
    assert!(offset_of!(RdpasRecord, protocol) == 0x10);

    assert!(size_of::<CsdsRecord>() == 0x08);
    assert!(offset_of!(CsdsRecord, capabilities) == 0x04);
};

/// What may live in a window. Reserved bits are kept as found.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Restrictions {
    /// Device-coherent memory (HDM-D, HDM-DB) is allowed.
    pub device_coherent: bool,
    /// Host-only coherent memory (HDM-H) is allowed.
    pub host_only: bool,
    /// Volatile memory is allowed.
    pub volatile: bool,
    /// Persistent memory is allowed.
    pub persistent: bool,
    /// The operating system must not move what is in the window.
    pub fixed: bool,
    /// Back-invalidate is allowed; means something only with device-coherent.
    pub back_invalidate: bool,
    #[bits(10)]
    reserved: u16,
}

impl fmt::Display for Restrictions {
    /// What is allowed, by name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (self.device_coherent(), "device-coherent"),
            (self.host_only(), "host-only"),
            (self.volatile(), "volatile"),
            (self.persistent(), "persistent"),
            (self.fixed(), "fixed"),
            (self.back_invalidate(), "back-invalidate"),
            (self.reserved() != 0, "reserved bits"),
        ];
        list(f, names.into_iter().filter_map(|(set, name)| set.then_some(name)))
    }
}

/// What the system can do. Reserved bits are kept as found.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct CsdsCapabilities {
    /// The host issues Cmp-M responses.
    pub cmp_m: bool,
    /// The host never writes clean lines back.
    pub no_clean_writeback: bool,
    /// The host's policy on viral.
    pub viral_policy: bool,
    /// Metadata bits.
    #[bits(3)]
    pub metabits: u8,
    #[bits(10)]
    reserved: u16,
}

impl fmt::Display for CsdsCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (self.cmp_m(), "Cmp-M"),
            (self.no_clean_writeback(), "no clean write-back"),
            (self.viral_policy(), "viral policy"),
            (self.reserved() != 0, "reserved bits"),
        ];
        list(f, names.into_iter().filter_map(|(set, name)| set.then_some(name)))?;
        write!(f, "; metabits {}", self.metabits())
    }
}

/// Names with commas between them; "none" for an empty list.
fn list(f: &mut fmt::Formatter<'_>, names: impl Iterator<Item = &'static str>) -> fmt::Result {
    let mut any = false;
    for name in names {
        f.write_str(if any { ", " } else { "" })?;
        f.write_str(name)?;
        any = true;
    }
    f.write_str(if any { "" } else { "none" })
}

/// A record's bytes seen as what its kind says, with any values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire<'a> {
    /// A host bridge.
    Chbs(&'a ChbsRecord),
    /// A window and all whole dwords behind it; how many are targets, the ways say.
    Cfmws(&'a CfmwsRecord, &'a [U32]),
    /// XOR maps: all whole 64-bit words of the record; how many count, the record says.
    Cxims(&'a CximsRecord, &'a [U64]),
    /// Error reporting of a CXL 1.1 host.
    Rdpas(&'a RdpasRecord),
    /// What the system can do.
    Csds(&'a CsdsRecord),
    /// A kind that is not known.
    Unknown {
        /// The kind.
        kind: u8,
        /// All bytes of the record.
        bytes: &'a [u8],
    },
}

/// The kind of the record that these bytes begin with, and how many bytes its own fields say that it has;
/// `None` for a kind that is not known, and where a field that says it is not there or is reserved.
pub(super) fn own_length(bytes: &[u8]) -> Option<(Kind, usize)> {
    let (header, _) = RecordHeader::ref_from_prefix(bytes).ok()?;
    let kind = Kind::decode(header.kind)?;
    let length = match kind {
        Kind::Chbs => size_of::<ChbsRecord>(),
        Kind::Cfmws => {
            let ways = Ways::decode(*bytes.get(offset_of!(CfmwsRecord, eniw))?).ok()?;
            let targets = ways.count() as usize * size_of::<U32>();
            size_of::<CfmwsRecord>().saturating_add(targets)
        }
        Kind::Cxims => {
            let maps = usize::from(*bytes.get(offset_of!(CximsRecord, map_count))?);
            size_of::<CximsRecord>().saturating_add(maps.saturating_mul(size_of::<U64>()))
        }
        Kind::Rdpas => size_of::<RdpasRecord>(),
        Kind::Csds => size_of::<CsdsRecord>(),
    };
    Some((kind, length))
}

impl<'a> Wire<'a> {
    /// The view of one record, given all its bytes.
    pub fn view(bytes: &'a [u8]) -> Result<Self, Problem> {
        let (header, _) = RecordHeader::ref_from_prefix(bytes)
            .map_err(|_| Problem::RecordHeader { left: bytes.len() })?;
        let Some(kind) = Kind::decode(header.kind) else {
            return Ok(Self::Unknown { kind: header.kind, bytes });
        };
        Ok(match kind {
            Kind::Chbs => Self::Chbs(fixed(kind, bytes)?.0),
            Kind::Cfmws => {
                let (record, rest) = fixed(kind, bytes)?;
                Self::Cfmws(record, words(rest))
            }
            Kind::Cxims => {
                let (record, rest) = fixed(kind, bytes)?;
                Self::Cxims(record, words(rest))
            }
            Kind::Rdpas => Self::Rdpas(fixed(kind, bytes)?.0),
            Kind::Csds => Self::Csds(fixed(kind, bytes)?.0),
        })
    }
}

/// The fixed part of a record and what is behind it.
fn fixed<T>(kind: Kind, bytes: &[u8]) -> Result<(&T, &[u8]), Problem>
where
    T: FromBytes + KnownLayout + Immutable + Unaligned,
{
    T::ref_from_prefix(bytes).map_err(|_| Problem::RecordTooShort {
        kind,
        need: size_of::<T>(),
        found: bytes.len(),
    })
}

/// As many whole words as there are.
fn words<T>(bytes: &[u8]) -> &[T]
where
    T: FromBytes + KnownLayout + Immutable + Unaligned,
{
    <[T]>::ref_from_prefix_with_elems(bytes, bytes.len() / size_of::<T>())
        .map_or(&[], |(words, _)| words)
}
