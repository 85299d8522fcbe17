//! The seven registers of one decoder: where they are, and how they are read, written and compared.
//!
//! **Invariant**: each call reads or writes each register once, and Control last.

use cxl_regs::access::Register;
use cxl_regs::hdm::{self, Control, DecoderImage};

use crate::error::decoder_register;
use crate::mmio::{Block, Mmio};

/// Where they are. Their descriptions would be linked with all names of their fields.
const OFFSETS: [u16; hdm::DECODER_SPECS.len()] = {
    let (mut offsets, mut at) = ([0; hdm::DECODER_SPECS.len()], 0);
    while at < offsets.len() {
        offsets[at] = hdm::DECODER_SPECS[at].offset;
        at += 1;
    }
    offsets
};

/// The registers of one decoder, in any component.
#[derive(Clone, Copy, Debug)]
pub struct DecoderRegisters {
    block: Block,
    index: u8,
}

impl DecoderRegisters {
    /// Those of decoder `index` of the structure at `block`.
    pub fn new(block: Block, index: u8) -> Self {
        Self { block, index }
    }

    /// Address of the dword at `offset` in this decoder.
    fn address(self, offset: u16) -> u64 {
        let offset = u64::from(hdm::decoder_offset(self.index)) + u64::from(offset);
        self.block.0.wrapping_add(offset)
    }

    /// Address of Control.
    pub fn control_address(self) -> u64 {
        self.address(Control::SPEC.offset)
    }

    /// Reads Control.
    pub fn read_control(self, hw: &mut impl Mmio) -> Control {
        Control::from_bits(hw.read(self.control_address()))
    }

    /// Writes Control: alone it commits or takes a commit back.
    pub fn write_control(self, hw: &mut impl Mmio, control: Control) {
        hw.write(self.control_address(), control.into_bits());
    }

    /// Reads the seven registers, each once.
    pub fn read(self, hw: &mut impl Mmio) -> DecoderImage {
        let control = self.read_control(hw);
        self.read_beside(hw, control)
    }

    /// Reads the six registers beside a control register that was read already.
    pub(crate) fn read_beside(self, hw: &mut impl Mmio, control: Control) -> DecoderImage {
        let mut dwords = [0; DecoderImage::DWORDS];
        for (slot, offset) in dwords.iter_mut().zip(OFFSETS) {
            *slot = match offset {
                offset if offset == Control::SPEC.offset => control.into_bits(),
                offset => hw.read(self.address(offset)),
            };
        }
        DecoderImage::from_dwords(dwords)
    }

    /// Writes the seven registers in the order of CXL r3.1 section 8.2.4.20.12: base, size, route,
    /// and Control last.
    pub fn write(self, hw: &mut impl Mmio, image: DecoderImage) {
        for (value, offset) in image.to_dwords().into_iter().zip(OFFSETS) {
            if offset != Control::SPEC.offset {
                hw.write(self.address(offset), value);
            }
        }
        self.write_control(hw, image.control());
    }
}

/// A register that is not as it should be: its number, expected, found.
pub(crate) type Mismatch = (u16, u32, u32);

/// The first of a decoder's registers that differs.
pub(crate) fn difference(expected: DecoderImage, found: DecoderImage) -> Option<Mismatch> {
    let both = expected.to_dwords().into_iter().zip(found.to_dwords());
    let registers = { both }.take(OFFSETS.len()).enumerate();
    { registers }.find_map(|(index, (expected, found))| {
        (expected != found).then_some((decoder_register(index), expected, found))
    })
}
