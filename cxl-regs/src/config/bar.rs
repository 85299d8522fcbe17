//! Base address registers: what the type bits say, sizing, addresses
//! (PCIe Base 6.x section 7.5.1.2.1).
//!
//! **Invariant**: a size that [`BarKind::size`] gives is a power of two that the type can hold.

use core::fmt;

/// What a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O space.
    Io,
    /// Memory below 4 GiB.
    Memory32 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// Memory anywhere; takes the next BAR for its upper half.
    Memory64 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
}

/// A BAR that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BarError {
    /// The type field of a memory BAR holds 1 or 3.
    ReservedType {
        /// The register.
        register: u32,
    },
    /// What was read back after writing all-ones is not one run of ones down to the size.
    Holes {
        /// The writable address bits.
        bits: u64,
    },
}

impl fmt::Display for BarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedType { register } => {
                write!(f, "BAR {register:#010x}: memory type {} is reserved", register >> 1 & 3)
            }
            Self::Holes { bits } => {
                write!(f, "BAR sizing gives address bits {bits:#018x}, which have holes")
            }
        }
    }
}

impl core::error::Error for BarError {}

const IO: u32 = 1 << 0;
const WIDE: u32 = 2 << 1;
const PREFETCHABLE: u32 = 1 << 3;

impl BarKind {
    /// What a BAR's low dword says of its type.
    pub const fn decode(register: u32) -> Result<Self, BarError> {
        if register & IO != 0 {
            return Ok(Self::Io);
        }
        let prefetchable = register & PREFETCHABLE != 0;
        match register >> 1 & 3 {
            0 => Ok(Self::Memory32 { prefetchable }),
            2 => Ok(Self::Memory64 { prefetchable }),
            _ => Err(BarError::ReservedType { register }),
        }
    }

    /// The fixed low bits: the inverse of [`BarKind::decode`].
    pub const fn encode(self) -> u32 {
        match self {
            Self::Io => IO,
            Self::Memory32 { prefetchable } => PREFETCHABLE * prefetchable as u32,
            Self::Memory64 { prefetchable } => WIDE | (PREFETCHABLE * prefetchable as u32),
        }
    }

    /// How many BAR registers it takes.
    pub const fn registers(self) -> u8 {
        if matches!(self, Self::Memory64 { .. }) { 2 } else { 1 }
    }

    /// The bits of the address, out of what 64 bits of BAR hold.
    const fn mask(self) -> u64 {
        match self {
            Self::Io => 0xFFFF_FFFC,
            Self::Memory32 { .. } => 0xFFFF_FFF0,
            Self::Memory64 { .. } => 0xFFFF_FFFF_FFFF_FFF0,
        }
    }

    /// The address; `high` is the next BAR and counts only in a 64-bit one.
    pub const fn address(self, low: u32, high: u32) -> u64 {
        ((high as u64) << 32 | low as u64) & self.mask()
    }

    /// The registers that hold an address, low and high. Address bits the type has not are lost.
    pub const fn at(self, address: u64) -> (u32, u32) {
        let address = address & self.mask();
        (address as u32 | self.encode(), (address >> 32) as u32)
    }

    /// The size, out of what was read after writing all-ones to the BAR (or both of them).
    /// `None` if there is no BAR: nothing could be written.
    pub const fn size(self, low: u32, high: u32) -> Result<Option<u64>, BarError> {
        let bits = self.address(low, high);
        if bits == 0 {
            return Ok(None);
        }
        let size = 1u64 << bits.trailing_zeros();
        let ones = self.mask() & !(size - 1);
        // An I/O BAR may leave its upper 16 bits hardwired to 0.
        if bits == ones || matches!(self, Self::Io) && bits == ones & 0xFFFF {
            Ok(Some(size))
        } else {
            Err(BarError::Holes { bits })
        }
    }

    /// What a BAR of this size reads after `low` and `high` were written to it.
    pub const fn written(self, size: u64, low: u32, high: u32) -> (u32, u32) {
        self.at(self.address(low, high) & !size.saturating_sub(1))
    }
}
