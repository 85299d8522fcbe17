//! What can be wrong with a CEDT, one variant for each rule.
//!
//! **Invariant**: a problem knows which field of its record it is about, so every error has a byte
//! offset and nobody counts bytes for it.

use core::fmt;
use core::mem::{offset_of, size_of};

use zerocopy::little_endian::U32;

use super::ChbsVersion;
use super::wire::{CfmwsRecord, ChbsRecord, CximsRecord, Kind, RdpasRecord, RecordHeader};
use crate::addr::{DECODER_UNIT, Size, Span};
use crate::interleave::{
    Granularity, ReservedArithmetic, ReservedGranularity, ReservedWays, Ways, XorMapError,
};

/// A broken rule in a record of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CedtError {
    /// Byte offset of the record in the table.
    pub record: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

impl CedtError {
    /// Byte offset in the table of the field that the error is about.
    pub const fn offset(self) -> usize {
        self.record.saturating_add(self.problem.field())
    }
}

impl fmt::Display for CedtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {:#x}: {}", self.offset(), self.problem)
    }
}

impl core::error::Error for CedtError {}

/// A record of another length than its own fields say, and what follows it is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Astray {
    /// Byte offset of the record in the table.
    pub record: usize,
    /// Its kind.
    pub kind: Kind,
    /// The bytes that it has by its own fields.
    pub need: usize,
    /// Its length.
    pub found: usize,
}

impl Astray {
    /// Byte offset in the table of the length.
    pub const fn offset(self) -> usize {
        self.record.saturating_add(offset_of!(RecordHeader, length))
    }
}

impl fmt::Display for Astray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, need, found, .. } = self;
        write!(
            f,
            "byte {:#x}: expected {need} bytes of this {kind} record, found {found}, and what \
             follows is no record",
            self.offset()
        )
    }
}

/// A broken rule, wherever the record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The table ends inside a record header.
    RecordHeader {
        /// Bytes left.
        left: usize,
    },
    /// The table goes on behind the most records that are read.
    TooMany {
        /// The limit.
        limit: u16,
    },
    /// A record's length does not even cover its header.
    RecordLength {
        /// The length.
        found: usize,
    },
    /// The table ends inside a record.
    PastEnd {
        /// Length of the record.
        length: usize,
        /// Bytes left in the table.
        left: usize,
    },
    /// A record is shorter than the fixed part of its kind.
    RecordTooShort {
        /// The kind.
        kind: Kind,
        /// Bytes the kind needs.
        need: usize,
        /// The record's length.
        found: usize,
    },
    /// A CHBS version that is not defined.
    ChbsVersion {
        /// The code.
        found: u32,
    },
    /// A CHBS register length that its version does not have.
    ChbsLength {
        /// The version.
        version: ChbsVersion,
        /// The version's length.
        expected: u64,
        /// The length found.
        found: u64,
    },
    /// A CHBS with base 0.
    ChbsWithoutBase,
    /// A CHBS whose registers pass the end of the address space.
    ChbsWraps {
        /// The base.
        base: u64,
        /// The length.
        length: u64,
    },
    /// A window's ways code is reserved.
    Ways(ReservedWays),
    /// A window's granularity code is reserved.
    WindowGranularity(ReservedGranularity),
    /// A window's arithmetic code is reserved.
    WindowArithmetic(ReservedArithmetic),
    /// A window of size 0.
    ZeroSize {
        /// Its base.
        base: u64,
    },
    /// A window passes the end of the address space.
    WindowWraps {
        /// Its base.
        base: u64,
        /// Its size.
        size: u64,
    },
    /// A window's base is not a multiple of 256 MiB.
    BaseAlignment {
        /// The base.
        base: u64,
    },
    /// A window's size is not a multiple of 256 MiB.
    SizeAlignment {
        /// The size.
        size: u64,
    },
    /// A window's size is not a multiple of 256 MiB for each way.
    SizeNotDivisible {
        /// The size.
        size: u64,
        /// The ways.
        ways: Ways,
    },
    /// A window does not have one target for each way.
    TargetCount {
        /// The way count.
        expected: u32,
        /// Targets found.
        found: usize,
    },
    /// A window names a target twice.
    DuplicateTarget {
        /// Index of the second place.
        index: usize,
        /// The target.
        uid: u32,
    },
    /// A CXIMS granularity code is reserved.
    MapGranularity(ReservedGranularity),
    /// A CXIMS is too short for the maps it says it has.
    MapCount {
        /// Maps it says it has.
        need: usize,
        /// Maps there are.
        have: usize,
    },
    /// An RDPAS protocol that is not defined.
    RdpasProtocol {
        /// The code.
        found: u8,
    },
    /// Two CHBS for one host bridge.
    DuplicateChbs {
        /// The bridge.
        uid: u32,
    },
    /// Two CXIMS for one granularity.
    DuplicateCxims {
        /// The granularity.
        granularity: Granularity,
    },
    /// Two windows share addresses.
    Overlap {
        /// The later window.
        window: Span,
        /// The earlier one.
        other: Span,
    },
    /// An XOR window without a CXIMS of its granularity.
    NoCxims {
        /// The granularity.
        granularity: Granularity,
    },
    /// An XOR window whose CXIMS does not suit it.
    Maps(XorMapError),
}

impl Problem {
    /// Byte offset in the record of the field that the problem is about.
    pub const fn field(self) -> usize {
        match self {
            Self::DuplicateTarget { index, .. } => {
                size_of::<CfmwsRecord>().saturating_add(index.saturating_mul(size_of::<U32>()))
            }
            _ => self.fixed_field() as usize,
        }
    }

    /// The same of a field that has its place in each record of its kind: a table of bytes.
    #[inline(never)]
    const fn fixed_field(self) -> u8 {
        let offset = match self {
            Self::RecordHeader { .. } | Self::TooMany { .. } => 0,
            Self::RecordLength { .. } | Self::PastEnd { .. } | Self::RecordTooShort { .. } => {
                offset_of!(RecordHeader, length)
            }
            Self::ChbsVersion { .. } => offset_of!(ChbsRecord, version),
            Self::ChbsLength { .. } => offset_of!(ChbsRecord, length),
            Self::ChbsWithoutBase | Self::ChbsWraps { .. } => offset_of!(ChbsRecord, base),
            Self::DuplicateChbs { .. } => offset_of!(ChbsRecord, uid),
            Self::Ways(_) => offset_of!(CfmwsRecord, eniw),
            Self::WindowGranularity(_) => offset_of!(CfmwsRecord, hbig),
            Self::WindowArithmetic(_) | Self::NoCxims { .. } | Self::Maps(_) => {
                offset_of!(CfmwsRecord, arithmetic)
            }
            Self::WindowWraps { .. } | Self::BaseAlignment { .. } | Self::Overlap { .. } => {
                offset_of!(CfmwsRecord, base)
            }
            Self::ZeroSize { .. } | Self::SizeAlignment { .. } | Self::SizeNotDivisible { .. } => {
                offset_of!(CfmwsRecord, size)
            }
            Self::TargetCount { .. } => offset_of!(RecordHeader, length),
            Self::DuplicateTarget { .. } => size_of::<CfmwsRecord>(),
            Self::MapGranularity(_) | Self::DuplicateCxims { .. } => offset_of!(CximsRecord, hbig),
            Self::MapCount { .. } => offset_of!(CximsRecord, map_count),
            Self::RdpasProtocol { .. } => offset_of!(RdpasRecord, protocol),
        };
        offset as u8
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = Size(DECODER_UNIT);
        match *self {
            Self::RecordHeader { left } => {
                write!(f, "the table ends inside a record header ({left} bytes left)")
            }
            Self::TooMany { limit } => {
                write!(f, "the table goes on behind {limit} records, no more are read")
            }
            Self::RecordLength { found } => {
                write!(f, "the record length {found} does not cover the record's header")
            }
            Self::PastEnd { length, left } => {
                write!(f, "the record has {length} bytes, the table only {left} more")
            }
            Self::RecordTooShort { kind, need, found } => {
                write!(f, "the {kind} record has {found} bytes, its kind needs {need}")
            }
            Self::ChbsVersion { found } => {
                write!(f, "CHBS version {found:#x} is not defined (defined: 0, 1)")
            }
            Self::ChbsLength { version, expected, found } => {
                write!(
                    f,
                    "the register length of CHBS version {} is {expected:#x}, found {found:#x}",
                    version.encode()
                )
            }
            Self::ChbsWithoutBase => f.write_str("the host bridge has no register base"),
            Self::ChbsWraps { base, length } => {
                write!(f, "{length:#x} bytes at base {base:#x} pass the end of the 64-bit space")
            }
            Self::Ways(error) => error.fmt(f),
            Self::WindowGranularity(error) | Self::MapGranularity(error) => error.fmt(f),
            Self::WindowArithmetic(error) => error.fmt(f),
            Self::ZeroSize { base } => write!(f, "the window at {base:#x} has size 0"),
            Self::WindowWraps { base, size } => {
                write!(f, "base {base:#x} + size {size:#x} passes the end of the 64-bit space")
            }
            Self::BaseAlignment { base } => {
                write!(f, "window base {base:#x} is not a multiple of {unit}")
            }
            Self::SizeAlignment { size } => {
                write!(f, "window size {size:#x} is not a multiple of {unit}")
            }
            Self::SizeNotDivisible { size, ways } => {
                write!(f, "window size {size:#x} is not a multiple of {ways} times {unit}")
            }
            Self::TargetCount { expected, found } => {
                write!(f, "a {expected}-way window has {expected} targets, here are {found}")
            }
            Self::DuplicateTarget { index, uid } => {
                write!(f, "target {index} names host bridge {uid:#x} a second time")
            }
            Self::MapCount { need, have } => {
                write!(f, "the record says {need} XOR maps and has room for {have}")
            }
            Self::RdpasProtocol { found } => {
                write!(f, "protocol {found:#x} is not defined (defined: 0, 1)")
            }
            Self::DuplicateChbs { uid } => {
                write!(f, "an earlier CHBS describes host bridge {uid:#x} already")
            }
            Self::DuplicateCxims { granularity } => {
                write!(f, "an earlier CXIMS has the maps for granularity {granularity} already")
            }
            Self::Overlap { window, other } => {
                write!(f, "the window {window} overlaps the earlier one {other}")
            }
            Self::NoCxims { granularity } => {
                write!(f, "the XOR window has no CXIMS for its granularity of {granularity}")
            }
            Self::Maps(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Problem {}
