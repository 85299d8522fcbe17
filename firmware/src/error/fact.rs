//! What can be one of an error's numbers.
//!
//! **Invariant**: `unpack` gives what was packed, or nothing for a number that no value has.

use cxl_regs::access::Component;
use cxl_regs::acpi::cedt::ChbsVersion;
use cxl_regs::acpi::cedt::wire::Kind;
use cxl_regs::component::CapabilityId;
use cxl_regs::config::{Bdf, Sbdf};
use cxl_regs::dvsec::DvsecId;
use cxl_regs::dvsec::device::RangeField;
use cxl_regs::mailbox::Opcode;
use cxl_regs::{Coherency, Dpa, Granularity, Hpa, Interleave, Span, Ways};

use crate::path::{Partition, RootBus};

/// A value that fits a number of an [`Error`](super::Error).
pub trait Fact: Sized {
    /// How many bits are kept where it shares a number with others.
    const BITS: u32;

    /// As a number.
    fn pack(self) -> u64;

    /// Out of its number.
    fn unpack(number: u64) -> Option<Self>;
}

/// Values that have a number already.
macro_rules! facts {
    ($($type:ty: $bits:literal, $pack:expr, $unpack:expr;)*) => {
        $(impl Fact for $type {
            const BITS: u32 = $bits;

            fn pack(self) -> u64 {
                let pack: fn(Self) -> u64 = $pack;
                pack(self)
            }

            fn unpack(number: u64) -> Option<Self> {
                let unpack: fn(u64) -> Option<Self> = $unpack;
                unpack(number)
            }
        })*
    };
}

facts! {
    u8: 8, u64::from, |n| n.try_into().ok();
    u16: 16, u64::from, |n| n.try_into().ok();
    u32: 32, u64::from, |n| n.try_into().ok();
    u64: 64, |n| n, Some;
    usize: 64, |n| n as u64, |n| n.try_into().ok();
    // What a literal is where nothing else is said.
    i32: 32, |n| u64::from(n.unsigned_abs()), |n| n.try_into().ok();
    bool: 1, u64::from, |n| Some(n != 0);
    [u8; 4]: 32, |bytes| u32::from_le_bytes(bytes).into(), |n| Some(u32::unpack(n)?.to_le_bytes());
    [u8; 8]: 64, u64::from_le_bytes, |n| Some(n.to_le_bytes());
    Hpa: 64, |address| address.0, |n| Some(Self(n));
    Dpa: 64, |address| address.0, |n| Some(Self(n));
    Ways: 8, |ways| count(ways).into(), |n| Self::from_count(u32::unpack(n)?);
    Granularity: 16, |granularity| granularity.bytes(), Self::from_bytes;
    Interleave: 24,
        |set| set.ways.pack() | set.granularity.pack() << 8,
        |n| Some(Self::new(Ways::unpack(n & 0xFF)?, Granularity::unpack(n >> 8)?));
    Coherency: 2,
        |coherency| match coherency {
            Self::HostOnly => 0,
            Self::Device => 1,
            Self::BackInvalidate => 2,
        },
        |n| match n {
            0 => Some(Self::HostOnly),
            1 => Some(Self::Device),
            2 => Some(Self::BackInvalidate),
            _ => None,
        };
    Partition: 1,
        |partition| match partition {
            Self::Volatile => 0,
            Self::Persistent => 1,
        },
        |n| match n {
            0 => Some(Self::Volatile),
            1 => Some(Self::Persistent),
            _ => None,
        };
    Component: 2,
        |component| match component {
            Self::Device => 0,
            Self::HostBridge => 1,
            Self::UpstreamPort => 2,
        },
        |n| match n {
            0 => Some(Self::Device),
            1 => Some(Self::HostBridge),
            2 => Some(Self::UpstreamPort),
            _ => None,
        };
    Sbdf: 32,
        |function| u64::from(function.segment) << 16 | u64::from(function.bdf.bits()),
        |n| Some(Self { segment: u16::unpack(n >> 16)?, bdf: Bdf::from_bits(n as u16) });
    RootBus: 24,
        |bus| u64::from(bus.segment) << 8 | u64::from(bus.bus),
        |n| Some(Self { segment: u16::unpack(n >> 8)?, bus: n as u8 });
    RangeField: 8,
        |field| match field {
            Self::MediaType => 1,
            Self::MemoryClass => 2,
            Self::DesiredInterleave => 3,
            Self::ActiveTimeout => 4,
            _ => 0,
        },
        |n| FIELDS.get(usize::unpack(n)?.checked_sub(1)?).copied();
    DvsecId: 16, |id| id.code().into(), |n| Some(Self::from_code(u16::unpack(n)?));
    CapabilityId: 16, |id| id.code().into(), |n| Some(Self::from_code(u16::unpack(n)?));
    Opcode: 16, |opcode| opcode.code().into(), |n| Some(Self::from_code(u16::unpack(n)?));
    Kind: 8, |kind| kind.encode().into(), |n| Self::decode(u8::unpack(n)?);
    ChbsVersion: 32, |version| version.encode().into(), |n| Self::decode(u32::unpack(n)?).ok();
}

/// The number of ways. Errors are rare: one copy of this is enough.
#[cold]
#[inline(never)]
fn count(ways: Ways) -> u8 {
    ways.count() as u8
}

/// Counted from 1.
const FIELDS: [RangeField; 4] = [
    RangeField::MediaType,
    RangeField::MemoryClass,
    RangeField::DesiredInterleave,
    RangeField::ActiveTimeout,
];

/// How many bits of a base or size are 0: 256 MiB.
const UNIT: u32 = cxl_regs::DECODER_UNIT.trailing_zeros();
const SIZE_BITS: u32 = UNIT;

/// A range of whole units of 256 MiB, as decoders have them: the base in the upper 36 bits, the size
/// in the lower 28, at most 64 PiB.
impl Fact for Span {
    const BITS: u32 = 64;

    #[cold]
    #[inline(never)]
    fn pack(self) -> u64 {
        let most = (1 << SIZE_BITS) - 1;
        self.base().0 >> UNIT << SIZE_BITS | (self.size() >> UNIT).min(most)
    }

    fn unpack(number: u64) -> Option<Self> {
        let size = number & ((1 << SIZE_BITS) - 1);
        Self::new(Hpa(number >> SIZE_BITS << UNIT), size << UNIT).ok()
    }
}

/// Two halves of 32 bits, the lower one first.
impl<A: Fact, B: Fact> Fact for (A, B) {
    const BITS: u32 = 64;

    fn pack(self) -> u64 {
        let half = |number: u64| number.min(u64::from(u32::MAX));
        half(self.0.pack()) | half(self.1.pack()) << 32
    }

    fn unpack(number: u64) -> Option<Self> {
        Some((A::unpack(number & u64::from(u32::MAX))?, B::unpack(number >> 32)?))
    }
}
