//! Interleave: ways, granularity, arithmetic, and the walk between HPA and (position, DPA).
//!
//! A *set* of devices shares a range of host addresses in granules. A window (root), a host bridge
//! and a switch each pick one of their targets by a few address bits; a device drops the selecting
//! bits of all levels together and keeps the rest as its own offset.
//!
//! **Invariant**: every encoding here has an inverse, and every address of a set belongs to exactly
//! one (position, DPA) pair. Register encodings are CXL r3.1 table 8-123 (HDM Decoder n Control),
//! the decode formulas section 8.2.4.20.13, root arithmetic section 9.18.1.3 (CFMWS) and 9.18.1.4
//! (CXIMS).

use core::fmt;

use crate::addr::{DECODER_UNIT, Hpa};

/// Number of members that share a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Ways {
    /// No interleave.
    #[default]
    One = 0x0,
    /// 2 ways.
    Two = 0x1,
    /// 4 ways.
    Four = 0x2,
    /// 8 ways.
    Eight = 0x3,
    /// 16 ways; devices and windows only.
    Sixteen = 0x4,
    /// 3 ways; devices and windows only.
    Three = 0x8,
    /// 6 ways; devices and windows only.
    Six = 0x9,
    /// 12 ways; devices and windows only.
    Twelve = 0xA,
}

/// A ways code that the specification reserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservedWays(
    /// The code as found.
    pub u32,
);

impl fmt::Display for ReservedWays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interleave ways code {:#x} is reserved (defined: 0-4, 8-a)", self.0)
    }
}

impl core::error::Error for ReservedWays {}

impl Ways {
    /// Every way count, in order of its register code.
    pub const ALL: [Self; 8] = [
        Self::One,
        Self::Two,
        Self::Four,
        Self::Eight,
        Self::Sixteen,
        Self::Three,
        Self::Six,
        Self::Twelve,
    ];

    /// The way count behind a 4-bit register code (decoder IW, CFMWS ENIW).
    pub fn decode(code: impl Into<u32>) -> Result<Self, ReservedWays> {
        Ok(match code.into() {
            0x0 => Self::One,
            0x1 => Self::Two,
            0x2 => Self::Four,
            0x3 => Self::Eight,
            0x4 => Self::Sixteen,
            0x8 => Self::Three,
            0x9 => Self::Six,
            0xA => Self::Twelve,
            code => return Err(ReservedWays(code)),
        })
    }

    /// The register code.
    pub const fn encode(self) -> u8 {
        self as u8
    }

    /// The way count as a number, 1 to 16.
    pub const fn count(self) -> u32 {
        (if self.has_three() { 3 } else { 1 }) << self.selector_bits()
    }

    /// The way count with this number of members; `None` for one that no decoder can express.
    pub const fn from_count(count: u32) -> Option<Self> {
        Some(match count {
            1 => Self::One,
            2 => Self::Two,
            3 => Self::Three,
            4 => Self::Four,
            6 => Self::Six,
            8 => Self::Eight,
            12 => Self::Twelve,
            16 => Self::Sixteen,
            _ => return None,
        })
    }

    /// Whether the count carries a factor of three (3, 6, 12).
    pub const fn has_three(self) -> bool {
        self as u8 >= 8
    }

    /// How many address bits select directly: log2 of [`Ways::power_of_two`].
    pub const fn selector_bits(self) -> u32 {
        (self as u32) & 7
    }

    /// The power-of-two factor: 1 for 3, 2 for 6, 4 for 12, else the count itself.
    pub const fn power_of_two(self) -> u32 {
        1 << self.selector_bits()
    }
}

impl fmt::Display for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.count())
    }
}

/// Bytes that go to one member before the next one takes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Granularity {
    /// 256 bytes.
    #[default]
    B256 = 0,
    /// 512 bytes.
    B512 = 1,
    /// 1 KiB.
    K1 = 2,
    /// 2 KiB.
    K2 = 3,
    /// 4 KiB.
    K4 = 4,
    /// 8 KiB.
    K8 = 5,
    /// 16 KiB.
    K16 = 6,
}

/// A granularity code that the specification reserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservedGranularity(
    /// The code as found.
    pub u32,
);

impl fmt::Display for ReservedGranularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interleave granularity code {:#x} is reserved (defined: 0-6)", self.0)
    }
}

impl core::error::Error for ReservedGranularity {}

impl Granularity {
    /// Every granularity, finest first.
    pub const ALL: [Self; 7] =
        [Self::B256, Self::B512, Self::K1, Self::K2, Self::K4, Self::K8, Self::K16];

    /// The granularity behind a register code (decoder IG, CFMWS HBIG).
    pub fn decode(code: impl Into<u32>) -> Result<Self, ReservedGranularity> {
        Ok(match code.into() {
            0 => Self::B256,
            1 => Self::B512,
            2 => Self::K1,
            3 => Self::K2,
            4 => Self::K4,
            5 => Self::K8,
            6 => Self::K16,
            code => return Err(ReservedGranularity(code)),
        })
    }

    /// The register code.
    pub const fn encode(self) -> u8 {
        self as u8
    }

    /// The number of address bits inside one granule, 8 to 14.
    pub const fn shift(self) -> u32 {
        8 + self as u32
    }

    /// The granule in bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// The granularity of this many bytes; `None` if no decoder can express it.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        Some(match bytes {
            256 => Self::B256,
            512 => Self::B512,
            1024 => Self::K1,
            2048 => Self::K2,
            4096 => Self::K4,
            8192 => Self::K8,
            16384 => Self::K16,
            _ => return None,
        })
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&crate::addr::Size(self.bytes()), f)
    }
}

/// How a window turns an address into a target index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Arithmetic {
    /// Standard modulo arithmetic: granule number modulo ways.
    #[default]
    Modulo = 0,
    /// Modulo arithmetic combined with XOR: index bits are parities of masked addresses.
    Xor = 1,
}

/// An arithmetic code that the specification reserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservedArithmetic(
    /// The code as found.
    pub u32,
);

impl fmt::Display for ReservedArithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interleave arithmetic code {:#x} is reserved (defined: 0, 1)", self.0)
    }
}

impl core::error::Error for ReservedArithmetic {}

impl Arithmetic {
    /// The arithmetic behind a CFMWS code.
    pub fn decode(code: impl Into<u32>) -> Result<Self, ReservedArithmetic> {
        match code.into() {
            0 => Ok(Self::Modulo),
            1 => Ok(Self::Xor),
            code => Err(ReservedArithmetic(code)),
        }
    }

    /// The CFMWS code.
    pub const fn encode(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Modulo => "modulo",
            Self::Xor => "XOR",
        })
    }
}

/// Ways and granularity together: one level's interleave, or a whole set's as a device sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interleave {
    /// Number of members.
    pub ways: Ways,
    /// Bytes per granule.
    pub granularity: Granularity,
}

/// The highest HPA bit that an HDM decoder can use as a selector.
const TOP_SELECTOR_BIT: u32 = 14;

/// A pair of ways and granularity whose selector bits lie above HPA bit 14, where no decoder looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotDecodable(
    /// The pair.
    pub Interleave,
);

impl fmt::Display for NotDecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let top = self.0.granularity.shift() + self.0.ways.selector_bits() - 1;
        write!(f, "{} needs HPA bit {top}, decoders select on bits 8-14 only", self.0)
    }
}

impl core::error::Error for NotDecodable {}

impl Interleave {
    /// No interleave: one member. The granularity is meaningless and set to 256 bytes.
    pub const NONE: Self = Self { ways: Ways::One, granularity: Granularity::B256 };

    /// The pair as given; see [`Interleave::decodable`] for whether hardware can express it.
    pub const fn new(ways: Ways, granularity: Granularity) -> Self {
        Self { ways, granularity }
    }

    /// The HPA bits that select a member directly, as a mask. The factor three needs no bit.
    pub const fn selector_mask(self) -> u64 {
        (self.ways.power_of_two() as u64 - 1) << self.granularity.shift()
    }

    /// Whether a decoder can do it: all selector bits in HPA 14:8. True for 49 of the 56 pairs.
    pub const fn decodable(self) -> Result<(), NotDecodable> {
        if self.selector_mask() >> (TOP_SELECTOR_BIT + 1) == 0 {
            Ok(())
        } else {
            Err(NotDecodable(self))
        }
    }

    /// The bytes that one round over all members takes.
    pub const fn stripe(self) -> u64 {
        self.ways.count() as u64 * self.granularity.bytes()
    }

    /// What a device does with an offset into its decoder's range: drop the selector bits of the
    /// whole set, divide by three where the set has that factor, keep the offset in the granule.
    #[inline]
    pub const fn dpa_offset(self, hpa_offset: u64) -> u64 {
        let shift = self.granularity.shift();
        let granule = hpa_offset >> (shift + self.ways.selector_bits());
        let granule = if self.ways.has_three() { granule / 3 } else { granule };
        granule << shift | hpa_offset & (self.granularity.bytes() - 1)
    }

    /// The member that holds an offset into the set's range, counted from the range's start.
    ///
    /// This is the position in *the order of the range*. A window selects on absolute addresses:
    /// see [`Selector`], which agrees with this when the base is a multiple of a whole stripe.
    #[inline]
    pub const fn position(self, hpa_offset: u64) -> u32 {
        let granule = hpa_offset >> self.granularity.shift();
        let low = granule as u32 & (self.ways.power_of_two() - 1);
        if !self.ways.has_three() {
            return low;
        }
        // A remainder by the constant 3 is a multiplication; one by the way count is a division.
        let bits = self.ways.selector_bits();
        low | (((granule >> bits) % 3) as u32) << bits
    }

    /// The offset into the set's range at which member `position` holds `dpa_offset`: the inverse
    /// of ([`Interleave::position`], [`Interleave::dpa_offset`]). `None` if the position is not
    /// below the way count or the result does not fit 64 bits.
    #[inline]
    pub const fn hpa_offset(self, position: u32, dpa_offset: u64) -> Option<u64> {
        if position >= self.ways.count() {
            return None;
        }
        let granularity = self.granularity.bytes();
        let within = dpa_offset & (granularity - 1);
        match (dpa_offset - within).checked_mul(self.ways.count() as u64) {
            Some(round) => round.checked_add(position as u64 * granularity + within),
            None => None,
        }
    }

    /// One member's share of a region; `None` if the region does not divide into whole
    /// 256 MiB units per member.
    pub const fn share(self, region_size: u64) -> Option<u64> {
        let ways = self.ways.count() as u64;
        if region_size.is_multiple_of(ways * DECODER_UNIT) {
            Some(region_size / ways)
        } else {
            None
        }
    }
}

impl fmt::Display for Interleave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ways {
            Ways::One => f.write_str("1-way"),
            ways => write!(f, "{ways}-way at {}", self.granularity),
        }
    }
}

/// How many XOR maps a window of these ways needs: one for each bit of the power-of-two factor.
pub const fn xor_maps_needed(ways: Ways) -> usize {
    ways.selector_bits() as usize
}

/// A list of XOR maps that cannot drive a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum XorMapError {
    /// Fewer maps than the ways need.
    TooFew {
        /// Maps the ways need.
        need: usize,
        /// Maps given.
        have: usize,
    },
    /// A map's lowest set bit is not the selector bit it stands for, so that granules would be
    /// lost or doubled.
    WrongLowestBit {
        /// Which map, from 0.
        index: usize,
        /// The map as given.
        map: u64,
        /// The bit that has to be its lowest.
        expected_bit: u32,
    },
}

impl fmt::Display for XorMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooFew { need, have } => {
                write!(f, "the interleave needs {need} XOR maps, {have} given")
            }
            Self::WrongLowestBit { index, map, expected_bit } => write!(
                f,
                "XOR map {index} is {map:#x}: its lowest set bit must be HPA bit {expected_bit}"
            ),
        }
    }
}

impl core::error::Error for XorMapError {}

/// A window's choice of target on **absolute** addresses, modulo or XOR, and the way back.
///
/// ```
/// use cxl_regs::{Granularity, Hpa, Interleave, Selector, Ways};
///
/// let set = Interleave::new(Ways::Two, Granularity::B256);
/// let xor = Selector::xor(set, &[0x10100])?;
/// assert_eq!(xor.position(Hpa(0x1_0001_0000)), 1);
/// # Ok::<(), cxl_regs::XorMapError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selector {
    interleave: Interleave,
    /// One map for each selector bit; modulo arithmetic is the map of that bit alone.
    maps: [u64; Self::MAX_MAPS],
}

impl Selector {
    /// The most maps any way count needs (16 ways).
    pub const MAX_MAPS: usize = 4;

    /// Modulo arithmetic.
    pub const fn modulo(interleave: Interleave) -> Self {
        let first = interleave.granularity.shift();
        Self { interleave, maps: [1 << first, 2 << first, 4 << first, 8 << first] }
    }

    /// XOR arithmetic with the maps of a CXIMS record; further maps than needed are ignored, as
    /// one record serves windows of different widths.
    pub fn xor(interleave: Interleave, maps: &[u64]) -> Result<Self, XorMapError> {
        let need = xor_maps_needed(interleave.ways);
        if maps.len() < need {
            return Err(XorMapError::TooFew { need, have: maps.len() });
        }
        let mut selector = Self::modulo(interleave);
        for (index, (slot, &map)) in selector.maps.iter_mut().zip(maps).take(need).enumerate() {
            let expected_bit = interleave.granularity.shift() + index as u32;
            if map.trailing_zeros() != expected_bit {
                return Err(XorMapError::WrongLowestBit { index, map, expected_bit });
            }
            *slot = map;
        }
        Ok(selector)
    }

    /// The interleave this selects by.
    pub const fn interleave(&self) -> Interleave {
        self.interleave
    }

    /// One map for each selector bit; modulo arithmetic is the map of that bit alone, and maps
    /// beyond what the ways need mean nothing.
    pub const fn maps(&self) -> [u64; Self::MAX_MAPS] {
        self.maps
    }

    /// The index into the target list for an address.
    #[inline]
    pub fn position(&self, hpa: Hpa) -> u32 {
        let bits = self.interleave.ways.selector_bits();
        let low = self.maps.iter().take(bits as usize).enumerate();
        let low = low.fold(0, |index, (bit, map)| index | ((hpa.0 & map).count_ones() & 1) << bit);
        low | self.third(hpa.0) << bits
    }

    /// The address at which member `position` of the region at `base` holds `dpa_offset`: the
    /// inverse of ([`Selector::position`], [`Interleave::dpa_offset`] of the offset from `base`).
    ///
    /// `base` must be a multiple of 256 MiB, as every decoder's is; it need not be a multiple of
    /// the stripe. `None` if the position is not below the way count or the address does not fit.
    pub fn hpa(&self, base: Hpa, position: u32, dpa_offset: u64) -> Option<Hpa> {
        let Interleave { ways, granularity } = self.interleave;
        if position >= ways.count() {
            return None;
        }
        let (bits, shift) = (ways.selector_bits(), granularity.shift());
        let mut granule = dpa_offset >> shift;
        if ways.has_three() {
            // The range may start in any third of a round: members are numbered by absolute
            // address, so the offset counts from where the base lies.
            let third = ((position >> bits) + 3 - self.third(base.0)) % 3;
            granule = granule * 3 + u64::from(third);
        }
        if granule > u64::MAX >> (shift + bits) {
            return None;
        }
        let rest = granule << (shift + bits) | dpa_offset & (granularity.bytes() - 1);
        let mut hpa = base.0.checked_add(rest)?;
        // Highest selector bit first: a map's lowest bit is its own, so what a map sees above
        // its own bit is settled by then.
        for (bit, map) in self.maps.iter().enumerate().take(bits as usize).rev() {
            let wanted = position >> bit & 1;
            let parity = (hpa & map).count_ones() & 1;
            hpa |= u64::from(wanted ^ parity) << (shift + bit as u32);
        }
        Some(Hpa(hpa))
    }

    /// Granule number modulo three, above the selector bits; 0 where the ways have no such factor.
    fn third(&self, hpa: u64) -> u32 {
        let Interleave { ways, granularity } = self.interleave;
        if !ways.has_three() {
            return 0;
        }
        ((hpa >> (granularity.shift() + ways.selector_bits())) % 3) as u32
    }
}

/// The levels of one path, from the window to the device, and the rules between them.
///
/// The root may use any way count, a host bridge and a switch 1, 2, 4 or 8. Each level looks at
/// other address bits; together they are the device's interleave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// The window's interleave across host bridges.
    pub root: Interleave,
    /// The host bridge's across root ports.
    pub bridge: Interleave,
    /// The switch's across downstream ports; [`Interleave::NONE`] without a switch.
    pub switch: Interleave,
}

/// Why levels do not make one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ComposeError {
    /// A bridge or switch was given a way count that only windows and devices have.
    PortWays {
        /// The way count.
        ways: Ways,
    },
    /// Two levels select on the same address bit.
    SharedBits {
        /// The bits that two levels use.
        bits: u64,
    },
    /// The levels' selector bits leave a hole, so no device could drop exactly those.
    Hole {
        /// The bits that the levels use together.
        bits: u64,
    },
    /// The product of the levels is a way count that no decoder has.
    NoSuchWays {
        /// The product.
        product: u32,
    },
    /// The product needs selector bits that no decoder has.
    NotDecodable(NotDecodable),
    /// The root divides by three at address bits above those that the levels select on, so two
    /// granules of one round would meet at one device address.
    ThreeTooCoarse {
        /// The lowest HPA bit that the root's division sees.
        divides_from: u32,
        /// The highest that would still give every member each position once.
        highest: u32,
    },
}

impl fmt::Display for ComposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PortWays { ways } => {
                write!(f, "a bridge or switch cannot interleave {ways} ways (only 1, 2, 4, 8)")
            }
            Self::SharedBits { bits } => {
                write!(f, "two levels select on the same HPA bits {bits:#x}")
            }
            Self::Hole { bits } => {
                write!(f, "the levels select on HPA bits {bits:#x}, which leave a hole")
            }
            Self::NoSuchWays { product } => {
                write!(f, "the levels make {product} ways, which no decoder can express")
            }
            Self::NotDecodable(error) => error.fmt(f),
            Self::ThreeTooCoarse { divides_from, highest } => write!(
                f,
                "the root divides by three from HPA bit {divides_from}, the set's selectors end \
                 below bit {highest}"
            ),
        }
    }
}

impl core::error::Error for ComposeError {}

impl Levels {
    /// The interleave that every device of the set has to be programmed with: the product of the
    /// ways, at the granularity of the lowest selector bit of all levels (of the root's division
    /// where there is no such bit). One-way levels take no part; their granularity is ignored.
    ///
    /// This is arithmetic only: an answer means that every member gets each of its addresses
    /// exactly once, an error that no decoder setting of the devices does that. Linux accepts
    /// fewer sets: see [`Levels::child_granularity`].
    pub fn device(self) -> Result<Interleave, ComposeError> {
        let mut product = 1;
        let mut finest: Option<Granularity> = None;
        let mut bits = 0u64;
        for (depth, level) in [self.root, self.bridge, self.switch].into_iter().enumerate() {
            if depth > 0 && (level.ways.has_three() || level.ways == Ways::Sixteen) {
                return Err(ComposeError::PortWays { ways: level.ways });
            }
            if level.ways == Ways::One {
                continue;
            }
            let mask = level.selector_mask();
            if bits & mask != 0 {
                return Err(ComposeError::SharedBits { bits: bits & mask });
            }
            bits |= mask;
            product *= level.ways.count();
            if mask != 0 {
                finest = Some(finest.map_or(level.granularity, |f| f.min(level.granularity)));
            }
        }
        let ways = Ways::from_count(product).ok_or(ComposeError::NoSuchWays { product })?;
        if ways == Ways::One {
            return Ok(Interleave::NONE);
        }
        let device = Interleave::new(ways, finest.unwrap_or(self.root.granularity));
        if bits != device.selector_mask() {
            return Err(ComposeError::Hole { bits });
        }
        let divides_from = |i: Interleave| i.granularity.shift() + i.ways.selector_bits();
        if self.root.ways.has_three() && divides_from(self.root) > divides_from(device) {
            return Err(ComposeError::ThreeTooCoarse {
                divides_from: divides_from(self.root),
                highest: divides_from(device),
            });
        }
        device.decodable().map_err(ComposeError::NotDecodable)?;
        Ok(device)
    }

    /// The granularity that Linux expects of the level below one with this interleave: parent
    /// granularity times the power-of-two factor of the parent's ways. `None` above 16 KiB.
    pub const fn child_granularity(parent: Interleave) -> Option<Granularity> {
        Granularity::from_bytes(parent.granularity.bytes() * parent.ways.power_of_two() as u64)
    }
}
