//! The HDM Decoder Capability Structure (CXL r3.1 section 8.2.4.20): what each dword means and
//! where it sits.
//!
//! **Invariant**: every register type here holds any bit pattern. What is legal is judged by
//! [`Decoder`](crate::Decoder), never here.

use crate::access::rules::{RESERVED, RO, RW, RWL};
use crate::access::{Class, Feature, Field, Register, Rule, Spec, register};
use crate::addr::DECODER_UNIT;

use core::mem::offset_of;

use crate::layout::{DecoderBlock, HdmBlock};

/// Size of one decoder's registers in bytes.
pub const DECODER_SIZE: u16 = size_of::<DecoderBlock>() as u16;
/// The most decoders a structure can have.
pub const MAX_DECODERS: usize = 32;
/// The most decoders a device can have; only host bridges and upstream ports go beyond.
pub const MAX_DEVICE_DECODERS: usize = 10;

/// Offset of decoder `index` from the start of the structure.
pub const fn decoder_offset(index: u8) -> u16 {
    offset_of!(HdmBlock, decoders) as u16 + DECODER_SIZE * index as u16
}

/// Length in bytes of a structure with `decoders` decoders.
pub const fn structure_length(decoders: u8) -> u16 {
    decoder_offset(decoders)
}

register! {
    /// HDM Decoder Capability Register, offset 0x00 (section 8.2.4.20.1).
    Capability: u32, "HDM Decoder Capability" at (offset_of!(HdmBlock, capability)) {
        /// Encoded number of decoders; see [`Capability::decoders`].
        decoder_count: u8[4], "Decoder Count", RO;
        /// Number of target ports a decoder can list: 1, 2, 4 or 8. Devices: ignored.
        target_count: u8[4], "Target Count", RESERVED, RO;
        /// HPA bits 11:8 can select.
        interleave_11_8: bool, "A11to8 Interleave", RO;
        /// HPA bits 14:12 can select.
        interleave_14_12: bool, "A14to12 Interleave", RO;
        /// Can return poison on a decode error.
        poison_on_error: bool, "Poison On Error", RO;
        /// 3, 6 and 12 ways (devices only).
        ways_3_6_12: bool, "3,6,12 Way", RO, RESERVED;
        /// 16 ways (devices only).
        ways_16: bool, "16 Way", RO, RESERVED;
        /// Unordered I/O to the decoders' memory.
        uio: bool, "UIO", RO;
        __: u8[2];
        /// Number of decoders that can do UIO (host bridges and upstream ports).
        uio_decoders: u8[4], "UIO Decoder Count", RESERVED, RO;
        /// Can return MemData-NXM.
        mem_data_nxm: bool, "MemData-NXM", RO;
        /// Coherency models a device supports: 0 unknown, 1 device-coherent, 2 host-only, 3 both.
        coherency_models: u8[2], "Coherency Models", RO, RESERVED;
        __: u16[9];
    }
}

/// The number of decoders behind each count code. Not `2 * code` beyond code 8.
const DECODER_COUNTS: [u8; 13] = [1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32];

impl Capability {
    /// Number of decoders; `None` for a reserved code.
    pub const fn decoders(self) -> Option<u8> {
        let code = self.decoder_count() as usize;
        if code < DECODER_COUNTS.len() { Some(DECODER_COUNTS[code]) } else { None }
    }

    /// The code for a number of decoders; `None` if no code names it.
    pub fn encode_decoders(decoders: u8) -> Option<u8> {
        DECODER_COUNTS.iter().position(|&count| count == decoders).map(|code| code as u8)
    }

    /// Whether a device's Target Range Type can be host-only coherent; not in one that is
    /// device-coherent only.
    pub const fn allows_host_only(self) -> bool {
        self.coherency_models() != 1
    }

    /// The HPA bits that this component can select on, as a mask.
    pub const fn selector_mask(self) -> u64 {
        (if self.interleave_11_8() { 0x0F00 } else { 0 })
            | (if self.interleave_14_12() { 0x7000 } else { 0 })
    }
}

register! {
    /// HDM Decoder Global Control Register, offset 0x04 (section 8.2.4.20.2). No lock freezes it.
    GlobalControl: u32, "HDM Decoder Global Control" at (offset_of!(HdmBlock, global_control)) {
        /// Return poison when no decoder matches.
        poison_on_error: bool, "Poison On Decode Error Enable",
            Rule::with(Class::Rw, Feature::Poison);
        /// HDM Decoder Enable. Devices only: the decoders of bridges and switches are always in
        /// use.
        decoder_enable: bool, "HDM Decoder Enable", RW, RO;
        __: u32[30];
    }
}

register! {
    /// HDM Decoder n Control Register, decoder offset 0x10 (section 8.2.4.20.7).
    Control: u32, "HDM Decoder Control" at (offset_of!(DecoderBlock, control)) {
        /// IG: granularity code.
        granularity: u8[4], "IG", RWL;
        /// IW: ways code.
        ways: u8[4], "IW", RWL;
        /// Freeze the decoder once it is committed.
        lock_on_commit: bool, "Lock On Commit", RWL;
        /// 0 to 1 starts a commit, 1 to 0 takes it back.
        commit: bool, "Commit", RWL;
        /// The decoder is in use.
        committed: bool, "Committed", RO;
        /// The commit was refused.
        error_not_committed: bool, "Error Not Committed", RO;
        /// Target Range Type: 0 device-coherent, 1 host-only coherent.
        host_only: bool, "Target Range Type", RWL;
        /// BI: device-coherent through back-invalidate.
        back_invalidate: bool, "BI", RWL_BI;
        /// UIO: unordered I/O may use the range.
        uio: bool, "UIO", RWL_UIO;
        __: bool;
        /// UIG: granularity code of UIO.
        uio_granularity: u8[4], "UIG", RESERVED, RWL_UIO;
        /// UIW: ways code of UIO.
        uio_ways: u8[4], "UIW", RESERVED, RWL_UIO;
        /// ISP: position in the interleave set.
        set_position: u8[4], "ISP", RWL_BI, RWL_UIO;
        __: u8[4];
    }
}

const RWL_UIO: Rule = Rule::with(Class::Rwl, Feature::Uio);
const RWL_BI: Rule = Rule::with(Class::Rwl, Feature::BackInvalidate);

impl Control {
    /// Whether a commit has come to an end, one way or the other.
    pub const fn settled(self) -> bool {
        self.committed() || self.error_not_committed()
    }

    /// Whether the decoder is frozen: committed with Lock On Commit set.
    pub const fn locked(self) -> bool {
        self.committed() && self.lock_on_commit()
    }
}

/// The lowest bit that a base, size or skip has.
const UNIT_BIT: usize = DECODER_UNIT.trailing_zeros() as usize;

const UNIT_LOW: &[Field] = &[Field::new("[31:28]", UNIT_BIT, 4, RWL)];
const UNIT_HIGH: &[Field] = &[Field::new("[63:32]", 0, 32, RWL)];
/// Targets are one byte each in a port; in a device the dword is the low half of the skip.
const ROUTE_LOW: &[Field] = &[
    Field::split("Target Port 0", 0, 8, RESERVED, RWL),
    Field::split("Target Port 1", 8, 8, RESERVED, RWL),
    Field::split("Target Port 2", 16, 8, RESERVED, RWL),
    Field::split("Target Port 3", 24, 8, RESERVED, RWL),
    Field::split("[31:28]", UNIT_BIT, 4, RWL, RESERVED),
];
const ROUTE_HIGH: &[Field] = &[
    Field::split("Target Port 4", 0, 8, RESERVED, RWL),
    Field::split("Target Port 5", 8, 8, RESERVED, RWL),
    Field::split("Target Port 6", 16, 8, RESERVED, RWL),
    Field::split("Target Port 7", 24, 8, RESERVED, RWL),
    Field::split("[63:32]", 0, 32, RWL, RESERVED),
];

const fn dword(name: &'static str, offset: usize, fields: &'static [Field]) -> Spec {
    Spec { name, offset: offset as u16, bytes: 4, fields }
}

/// The two dwords in front of the decoders, for tables and traces.
pub const GLOBAL_SPECS: [Spec; 2] = [Capability::SPEC, GlobalControl::SPEC];

/// The seven dwords of one decoder in order of offset; the eighth is reserved.
pub const DECODER_SPECS: [Spec; 7] = [
    dword("HDM Decoder Base Low", offset_of!(DecoderBlock, base_low), UNIT_LOW),
    dword("HDM Decoder Base High", offset_of!(DecoderBlock, base_high), UNIT_HIGH),
    dword("HDM Decoder Size Low", offset_of!(DecoderBlock, size_low), UNIT_LOW),
    dword("HDM Decoder Size High", offset_of!(DecoderBlock, size_high), UNIT_HIGH),
    Control::SPEC,
    dword("HDM Decoder Target List/DPA Skip Low", offset_of!(DecoderBlock, route_low), ROUTE_LOW),
    dword(
        "HDM Decoder Target List/DPA Skip High",
        offset_of!(DecoderBlock, route_high),
        ROUTE_HIGH,
    ),
];

/// The raw dwords of one decoder, legal or not.
///
/// A 64-bit value is put together and taken apart here and nowhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DecoderImage {
    /// Base Low, as read.
    pub base_low: u32,
    /// Base High.
    pub base_high: u32,
    /// Size Low, as read.
    pub size_low: u32,
    /// Size High.
    pub size_high: u32,
    /// Control, as read.
    pub control: u32,
    /// Target List Low in a port, DPA Skip Low in a device.
    pub route_low: u32,
    /// Target List High in a port, DPA Skip High in a device.
    pub route_high: u32,
    /// The reserved eighth dword; 0 on conforming hardware.
    pub reserved: u32,
}

const fn join(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

/// The value without the low bits that a base, size or skip does not have.
const fn whole_units(value: u64) -> u64 {
    value & !(DECODER_UNIT - 1)
}

const fn split(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

impl DecoderImage {
    /// Number of dwords.
    pub const DWORDS: usize = DECODER_SIZE as usize / 4;

    /// The image out of a decoder's dwords in order of offset.
    pub const fn from_dwords(d: [u32; Self::DWORDS]) -> Self {
        Self {
            base_low: d[0],
            base_high: d[1],
            size_low: d[2],
            size_high: d[3],
            control: d[4],
            route_low: d[5],
            route_high: d[6],
            reserved: d[7],
        }
    }

    /// The dwords in order of offset.
    pub const fn to_dwords(self) -> [u32; Self::DWORDS] {
        [
            self.base_low,
            self.base_high,
            self.size_low,
            self.size_high,
            self.control,
            self.route_low,
            self.route_high,
            self.reserved,
        ]
    }

    /// The base as read, reserved low bits included.
    pub const fn raw_base(self) -> u64 {
        join(self.base_high, self.base_low)
    }

    /// The size as read, reserved low bits included.
    pub const fn raw_size(self) -> u64 {
        join(self.size_high, self.size_low)
    }

    /// The last two dwords as read: the DPA skip of a device's decoder, a port's targets.
    pub const fn raw_route(self) -> u64 {
        join(self.route_high, self.route_low)
    }

    /// The base; reserved low bits are ignored.
    pub const fn base(self) -> u64 {
        whole_units(self.raw_base())
    }

    /// The size; reserved low bits are ignored.
    pub const fn size(self) -> u64 {
        whole_units(self.raw_size())
    }

    /// The DPA skip of a device's decoder; reserved low bits are ignored.
    pub const fn skip(self) -> u64 {
        whole_units(self.raw_route())
    }

    /// The target list of a port's decoder, way 0 first.
    pub const fn targets(self) -> [u8; 8] {
        self.raw_route().to_le_bytes()
    }

    /// The control register.
    pub const fn control(self) -> Control {
        Control::from_bits(self.control)
    }

    /// The image with another base.
    pub const fn with_base(mut self, base: u64) -> Self {
        (self.base_high, self.base_low) = split(base);
        self
    }

    /// The image with another size.
    pub const fn with_size(mut self, size: u64) -> Self {
        (self.size_high, self.size_low) = split(size);
        self
    }

    /// The image with another DPA skip.
    pub const fn with_skip(mut self, skip: u64) -> Self {
        (self.route_high, self.route_low) = split(skip);
        self
    }

    /// The image with another target list.
    pub const fn with_targets(mut self, targets: [u8; 8]) -> Self {
        (self.route_high, self.route_low) = split(u64::from_le_bytes(targets));
        self
    }

    /// The image with another control register.
    pub const fn with_control(mut self, control: Control) -> Self {
        self.control = control.into_bits();
        self
    }
}

const _: () = {
    assert!(DECODER_SIZE == 0x20);
    assert!(decoder_offset(0) == 0x10 && decoder_offset(31) == 0x3F0);
    assert!(structure_length(32) as usize == size_of::<HdmBlock>());
    let mut i = 0;
    while i < DECODER_SPECS.len() {
        assert!(DECODER_SPECS[i].offset as usize == 4 * i);
        i += 1;
    }
};
