//! Blocks of registers, whichever way they are reached.
//!
//! A reader is any `FnMut(u16) -> u32` that answers with the dword at an offset: a dump, a model,
//! or MMIO. Offsets given to a reader are multiples of 4.
//!
//! **Invariant**: nothing here panics or reads outside what it was given, whatever the offsets
//! say; arithmetic on offsets wraps at 64 KiB.

use core::fmt;

use crate::access::{Component, Features, Register, Spec};

/// A reader over a dump. Bytes behind its end read as all-ones, as from hardware that is absent.
pub fn image(bytes: &[u8]) -> impl Fn(u16) -> u32 + Copy + '_ {
    move |offset| {
        let mut dword = [0xff; 4];
        for (index, byte) in dword.iter_mut().enumerate() {
            if let Some(&found) = bytes.get(usize::from(offset) + index) {
                *byte = found;
            }
        }
        u32::from_le_bytes(dword)
    }
}

/// Reads one register of the structure at `base`.
///
/// ```
/// use cxl_regs::block;
/// use cxl_regs::config::Command;
///
/// let mut space = [0; 64];
/// space[4] = 0x06;
/// let command: Command = block::read(block::image(&space), 0);
/// assert!(command.memory_space() && command.bus_master());
/// ```
pub fn read<R: Register>(mut reader: impl FnMut(u16) -> u32, base: u16) -> R {
    R::from_raw(read_raw(&mut reader, base, &R::SPEC))
}

/// The value of the register that `spec` describes, in the structure at `base`.
pub(crate) fn read_raw(reader: &mut impl FnMut(u16) -> u32, base: u16, spec: &Spec) -> u32 {
    let at = base.wrapping_add(spec.offset);
    let width = u32::MAX >> (32 - 8 * u32::from(spec.bytes));
    reader(at & !3) >> (8 * (at & 3)) & width
}

/// A buffer that does not reach to the end of what was to be written into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooShort {
    /// Bytes needed.
    pub need: usize,
    /// Bytes there are.
    pub have: usize,
}

impl fmt::Display for TooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the buffer has {} bytes, the registers need {}", self.have, self.need)
    }
}

impl core::error::Error for TooShort {}

/// Writes one register of the structure at `base` into its place in `bytes`.
pub fn put<R: Register>(bytes: &mut [u8], base: u16, register: R) -> Result<(), TooShort> {
    put_raw(bytes, base, &R::SPEC, register.raw())
}

pub(crate) fn put_raw(bytes: &mut [u8], base: u16, spec: &Spec, raw: u32) -> Result<(), TooShort> {
    let start = usize::from(base.wrapping_add(spec.offset));
    let (need, have) = (start + usize::from(spec.bytes), bytes.len());
    let place = bytes.get_mut(start..need).ok_or(TooShort { need, have })?;
    for (to, from) in place.iter_mut().zip(raw.to_le_bytes()) {
        *to = from;
    }
    Ok(())
}

/// The dword at `offset` after `new` is written over `old`, by the rules of all the registers that
/// lie in it. A register narrower than a dword takes its share.
///
/// Bytes of no register keep their value: such a write reaches nothing. For a write with byte
/// enables, take only the enabled bytes of the result: no rule looks across bits.
pub fn write_dword(
    registers: &[Spec],
    offset: u16,
    (component, features): (Component, Features),
    locked: bool,
    old: u32,
    new: u32,
) -> u32 {
    registers.iter().filter(|spec| spec.offset & !3 == offset).fold(old, |value, spec| {
        let shift = 8 * (u32::from(spec.offset) & 3);
        let lane = (u32::MAX >> (32 - 8 * u32::from(spec.bytes))) << shift;
        let [old, new] = [old, new].map(|dword| (dword & lane) >> shift);
        value & !lane | spec.write(component, features, locked, old, new) << shift & lane
    })
}

/// Columns of a label in the text form.
pub(crate) const LABEL_WIDTH: usize = 18;

/// One register of a block with its value: one line of the text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// What the block calls it.
    pub label: &'static str,
    /// Name, place in the block and fields.
    pub spec: Spec,
    /// The value.
    pub raw: u32,
}

/// Label padded to its column, raw value at its natural width, and the fields that are set.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("  ")?;
        for c in self.label.chars() {
            write!(f, "{}", if c == '_' { ' ' } else { c })?;
        }
        let pad = LABEL_WIDTH.saturating_sub(self.label.len());
        let digits = 2 + 2 * usize::from(self.spec.bytes);
        write!(f, "{:pad$}{:#0digits$x}", "", self.raw)?;
        if let [only] = self.spec.fields
            && only.bits == 8 * self.spec.bytes
        {
            return Ok(());
        }
        let mut separator = "  ";
        let mut left = self.raw;
        for field in self.spec.fields {
            left &= !field.mask();
            let value = field.get(self.raw);
            if value != 0 {
                write!(f, "{separator}{}", field.name)?;
                separator = ", ";
                if field.bits > 1 {
                    write!(f, " {value:#x}")?;
                }
            }
        }
        if left != 0 {
            write!(f, "{separator}reserved bits {left:#x}")?;
        }
        Ok(())
    }
}

/// A struct of registers that lie in one block, with readers and writers for all of them.
///
/// A row is `field: Type`, or `field: Type, + n` for a further instance `n` bytes on. `Type` says
/// where it lies, and what it is called unless the row has a name of its own: `Type as "name"`.
macro_rules! block {
    (
        $(#[$doc:meta])*
        $name:ident {
            $($(#[$field_doc:meta])* $field:ident: $type:ty $(as $called:literal)? $(, + $by:literal)?;)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// Name, place and fields of every register.
            pub const REGISTERS: &'static [$crate::access::Spec] = &[
                $(<$type as $crate::access::Register>::SPEC $(.named($called))? $(.moved($by))?,)*
            ];

            /// What each of [`Self::REGISTERS`] is called in the block.
            pub const LABELS: &'static [&'static str] = &[$(stringify!($field),)*];

            /// Where the block starts and ends, in bytes from its structure's start.
            pub const EXTENT: core::ops::Range<u16> = $crate::block::extent(Self::REGISTERS);

            /// Reads the block of the structure at `base`.
            pub fn read(mut reader: impl FnMut(u16) -> u32, base: u16) -> Self {
                Self {
                    $($field: $crate::block::read(
                        &mut reader,
                        base $(.wrapping_add($by))?,
                    ),)*
                }
            }

            /// Writes the block of the structure at `base`; gaps between registers become 0.
            pub fn put(&self, bytes: &mut [u8], base: u16) -> Result<(), $crate::block::TooShort> {
                let [start, need] = [Self::EXTENT.start, Self::EXTENT.end]
                    .map(|end| usize::from(base) + usize::from(end));
                let have = bytes.len();
                let place = bytes.get_mut(start..need);
                place.ok_or($crate::block::TooShort { need, have })?.fill(0);
                for row in self.rows() {
                    $crate::block::put_raw(bytes, base, &row.spec, row.raw)?;
                }
                Ok(())
            }

            // A longer label would run into its value in the text form.
            const _LABELS_FIT: () = {
                $(assert!(stringify!($field).len() < $crate::block::LABEL_WIDTH);)*
            };

            /// Every register with its value, in order of offset.
            pub fn rows(&self) -> [$crate::block::Row; Self::REGISTERS.len()] {
                const { Self::_LABELS_FIT };
                [$($crate::block::Row {
                    label: stringify!($field),
                    spec: <$type as $crate::access::Register>::SPEC
                        $(.named($called))? $(.moved($by))?,
                    raw: $crate::access::Register::raw(self.$field),
                },)*]
            }
        }
    };
}

pub(crate) use block;

/// The dwords that registers cover, first to last.
pub(crate) const fn extent(registers: &[Spec]) -> core::ops::Range<u16> {
    let (mut start, mut end, mut index) = (u16::MAX, 0, 0);
    while index < registers.len() {
        let Spec { offset, bytes, .. } = registers[index];
        if offset < start {
            start = offset;
        }
        if offset + bytes as u16 > end {
            end = offset + bytes as u16;
        }
        index += 1;
    }
    start & !3..end.next_multiple_of(4)
}
