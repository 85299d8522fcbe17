//! The registers that an error's detail can name.
//!
//! **Invariant**: a number never changes its meaning. Names are those of the register types.

use cxl_regs::access::{Register, Spec};
use cxl_regs::bi;
use cxl_regs::config::{BusNumbers, HeaderType, Id, LinkCapabilities};
use cxl_regs::dvsec::device::{self, DeviceDvsec, RANGE_STRIDE};
use cxl_regs::hdm::{Control, DECODER_SPECS, GlobalControl};

/// A register with a number.
pub(crate) trait Numbered: Register {
    /// The number.
    const NUMBER: u16;
}

macro_rules! registers {
    ($($number:literal $register:ty,)*) => {
        $(impl Numbered for $register {
            const NUMBER: u16 = $number;
        })*

        /// Those with a type of their own.
        const NAMED: &[(u16, &str)] = &[$(($number, <$register>::SPEC.name),)*];
    };
}

registers! {
    0x01 Id,
    0x02 HeaderType,
    0x03 BusNumbers,
    0x04 LinkCapabilities,
    0x05 device::Capability,
    0x06 device::Control,
    0x07 device::Lock,
    0x0C GlobalControl,
    0x0D bi::DecoderControl,
}

/// High and low dword of range 1's base, then of range 2's.
const RANGE_BASE: u16 = 0x08;
/// The seven of a decoder in order of offset.
const DECODER: u16 = 0x10;

/// The fifth of them.
impl Numbered for Control {
    const NUMBER: u16 = DECODER + 4;
}

/// The number of a decoder's register, which are counted from 0 in order of offset.
pub(crate) const fn decoder_register(index: usize) -> u16 {
    DECODER + index as u16
}

/// The number of a dword of a range's base, ranges counted from 0.
pub(crate) const fn range_base(range: u16, low: bool) -> u16 {
    RANGE_BASE + 2 * range + low as u16
}

/// Every register that an error can name: its number, and its name in the specification.
pub fn registers() -> impl Iterator<Item = (u16, &'static str)> {
    let base = |spec: &Spec| {
        let high = device::RangeBaseHigh::SPEC.offset;
        let index = spec
            .offset
            .checked_sub(high)
            .map(|distance| (distance / RANGE_STRIDE, distance % RANGE_STRIDE));
        match index {
            Some((range @ 0..=1, distance @ (0 | 4))) => {
                Some((range_base(range, distance == 4), spec.name))
            }
            _ => None,
        }
    };
    let ranges = DeviceDvsec::REGISTERS.iter().filter_map(base);
    let decoders = (DECODER..).zip(&DECODER_SPECS).map(|(number, spec)| (number, spec.name));
    NAMED.iter().copied().chain(ranges).chain(decoders)
}
