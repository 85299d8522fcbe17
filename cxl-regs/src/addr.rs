//! Addresses and ranges: host physical ([`Hpa`]), device physical ([`Dpa`]) and [`Span`].
//!
//! **Invariant**: a [`Span`] is never empty and never wraps, so `base + size` is always a number.

use core::fmt;

/// The unit of every HDM decoder base, size and skip, and of every CFMWS: 256 MiB.
pub const DECODER_UNIT: u64 = 256 << 20;

/// A host physical address, as a CPU or a decoder sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hpa(pub u64);

/// A device physical address: an offset into one device's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dpa(pub u64);

/// What [`Span`] needs of an address: it is a number.
pub trait Address: Copy + Ord {
    /// The address as a number.
    fn get(self) -> u64;
    /// The number as an address.
    fn at(value: u64) -> Self;
}

impl Address for Hpa {
    fn get(self) -> u64 {
        self.0
    }
    fn at(value: u64) -> Self {
        Self(value)
    }
}

impl Address for Dpa {
    fn get(self) -> u64 {
        self.0
    }
    fn at(value: u64) -> Self {
        Self(value)
    }
}

impl fmt::Display for Hpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Dpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Why a base and a size are not a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanError {
    /// The size is zero.
    Empty {
        /// The base that was given.
        base: u64,
    },
    /// `base + size` passes the top of the 64-bit address space.
    ///
    /// A range that ends exactly at 2^64 counts as wrapped too: the end is not a number, and
    /// hardware that compares `base <= base + size` refuses it as well.
    Wraps {
        /// The base that was given.
        base: u64,
        /// The size that was given.
        size: u64,
    },
}

impl fmt::Display for SpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty { base } => write!(f, "the range at {base:#x} has size 0"),
            Self::Wraps { base, size } => {
                write!(f, "base {base:#x} + size {size:#x} passes the end of the 64-bit space")
            }
        }
    }
}

impl core::error::Error for SpanError {}

impl Span<Hpa> {
    /// The byte at address 0: holds the place of a range that is not known yet.
    pub const ORIGIN: Self = Self { base: Hpa(0), size: 1 };
}

impl Span<Dpa> {
    /// The byte at address 0: holds the place of a range that is not known yet.
    pub const ORIGIN: Self = Self { base: Dpa(0), size: 1 };
}

/// A half-open address range `[base, base + size)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span<A = Hpa> {
    base: A,
    size: u64,
}

impl<A: Address> Span<A> {
    /// The range of `size` bytes at `base`; refuses an empty or wrapping one.
    pub fn new(base: A, size: u64) -> Result<Self, SpanError> {
        if size == 0 {
            return Err(SpanError::Empty { base: base.get() });
        }
        if base.get().checked_add(size).is_none() {
            return Err(SpanError::Wraps { base: base.get(), size });
        }
        Ok(Self { base, size })
    }

    /// First address of the range.
    pub fn base(self) -> A {
        self.base
    }

    /// Number of bytes; never 0.
    pub fn size(self) -> u64 {
        self.size
    }

    /// First address behind the range.
    pub fn end(self) -> A {
        A::at(self.base.get() + self.size)
    }

    /// Last address inside the range.
    pub fn last(self) -> A {
        A::at(self.base.get() + (self.size - 1))
    }

    /// Whether the address lies inside.
    pub fn contains(self, address: A) -> bool {
        self.base <= address && address < self.end()
    }

    /// Whether the whole of `other` lies inside.
    pub fn contains_span(self, other: Self) -> bool {
        self.base <= other.base && other.end() <= self.end()
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.base < other.end() && other.base < self.end()
    }

    /// How far the address lies behind the base; `None` outside the range.
    pub fn offset_of(self, address: A) -> Option<u64> {
        self.contains(address).then(|| address.get() - self.base.get())
    }
}

impl<A: Address> fmt::Display for Span<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.base.get(), self.last().get())
    }
}

/// A byte count for people: the largest binary unit that divides it (`256 MiB`, `1 TiB`, `768 B`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 6] =
            [(60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        for (shift, unit) in UNITS {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} B", self.0)
    }
}
