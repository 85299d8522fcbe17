#![doc = include_str!("../README.md")]
//!
//! **Invariant**: what a constructor was promised is all that unsafe code relies on, and no cell lies
//! outside of it, whatever the registers say.
#![no_std]
#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]

use core::mem::offset_of;
use core::ptr::NonNull;
use core::slice;

use cxl_regs::block;
use cxl_regs::component::{ArrayError, Capabilities, CapabilityId, RANGE_SIZE};
use cxl_regs::hdm::{Capability, Control, DecoderImage, GlobalControl, structure_length};
use cxl_regs::layout::{DecoderBlock, HdmBlock};
use cxl_regs::mmio::Mmio;
use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite};

/// Physical memory that is mapped at a fixed distance from itself: at 0 with the identity mapping
/// that most bootloaders have.
#[derive(Debug)]
pub struct Mapped {
    distance: u64,
}

impl Mapped {
    /// Physical address `p` is mapped at virtual address `p + distance`.
    ///
    /// # Safety
    ///
    /// As long as the value lives, every address that it is given is mapped uncached for reading and
    /// writing, with all of the dword (or of the 64 bits) that lies there, and no Rust object lives
    /// there. The library of this repository asks for dwords of ECAM, of BARs, of host bridges'
    /// register blocks and, while it probes, of windows. An address that no pointer can hold is not
    /// reached: it reads all-ones, and what is written to it is dropped.
    pub const unsafe fn new(distance: u64) -> Self {
        Self { distance }
    }

    /// `None` for an address that no pointer of this machine can hold: of 32 bits it would be another.
    fn cell<T: tock_registers::UIntLike>(&self, address: u64) -> Option<&ReadWrite<T>> {
        let at = usize::try_from(address.wrapping_add(self.distance)).ok()? & !(size_of::<T>() - 1);
        // SAFETY: aligned here; mapped and nobody else's by the promise of `new`. A cell allows that
        // what it holds changes under it, as registers do.
        Some(unsafe { &*(at as *const ReadWrite<T>) })
    }
}

impl Mmio for Mapped {
    fn read(&mut self, address: u64) -> u32 {
        self.cell(address).map_or(u32::MAX, |cell| u32::from_le(cell.get()))
    }

    fn write(&mut self, address: u64, value: u32) {
        if let Some(cell) = self.cell(address) {
            cell.set(value.to_le());
        }
    }

    fn write_qword(&mut self, address: u64, value: u64) {
        if let Some(cell) = self.cell(address) {
            cell.set(value.to_le());
        }
    }
}

/// The CXL.cache/mem range of a component, in memory.
#[derive(Clone, Copy)]
pub struct ComponentView<'m> {
    /// Cells that may change and be written: a read-only one would promise that nothing behind it does,
    /// decoders included.
    dwords: &'m [ReadWrite<u32>],
}

/// Reads a register, which is little-endian whatever the processor is.
fn get(cell: &impl Readable<T = u32>) -> u32 {
    u32::from_le(cell.get())
}

/// Writes a register.
fn set(cell: &ReadWrite<u32>, value: u32) {
    cell.set(value.to_le());
}

impl<'m> ComponentView<'m> {
    /// The range that starts at `range`; refused where no capability array is there.
    ///
    /// # Safety
    ///
    /// For as long as `'m` lasts, the [`RANGE_SIZE`] bytes at `range` are mapped uncached for reading
    /// and writing, and are registers or memory that only cells like these reach.
    pub unsafe fn new(range: NonNull<u32>) -> Result<Self, ArrayError> {
        // SAFETY: a cell has the layout of a dword, and the caller promises that many.
        let dwords =
            unsafe { slice::from_raw_parts(range.cast().as_ptr(), RANGE_SIZE as usize / 4) };
        let view = Self { dwords };
        Capabilities::new(view.reader()).map(|_| view)
    }

    /// Reads the dword at an offset; all-ones behind the range.
    fn reader(self) -> impl Fn(u16) -> u32 + Copy + 'm {
        move |offset| self.dwords.get(usize::from(offset / 4)).map_or(u32::MAX, get)
    }

    /// The capability array.
    pub fn capabilities(self) -> Result<Capabilities<impl Fn(u16) -> u32 + Copy + 'm>, ArrayError> {
        Capabilities::new(self.reader())
    }

    /// The HDM decoders; `None` if the array leads to none, or to some that do not lie within the
    /// range, or the decoder count is a reserved code.
    pub fn hdm(self) -> Option<HdmView<'m>> {
        let found = self.capabilities().ok()?.find(CapabilityId::HdmDecoder)?;
        let capability: Capability = block::read(self.reader(), found.pointer);
        let count = capability.decoders()?;
        let start = usize::from(found.pointer);
        let end = start + usize::from(structure_length(count));
        let cells = self.dwords.get(start / 4..end / 4).filter(|_| start.is_multiple_of(4))?;
        let block = cells.as_ptr().cast::<HdmBlock>();
        // SAFETY: the slice covers the head of the structure, whose fields are cells of a dword each.
        let capability = unsafe { &(*block).capability };
        // SAFETY: as above; the cells that it is made of may be written.
        let global = unsafe { &(*block).global_control };
        let first = block.cast::<u8>().wrapping_add(offset_of!(HdmBlock, decoders)).cast();
        // SAFETY: the slice covers `count` decoders behind the head, fewer than the layout has.
        let decoders = unsafe { slice::from_raw_parts(first, usize::from(count)) };
        Some(HdmView { capability, global, decoders })
    }
}

/// An HDM decoder structure, in memory.
#[derive(Clone, Copy)]
pub struct HdmView<'m> {
    capability: &'m ReadOnly<u32>,
    global: &'m ReadWrite<u32>,
    decoders: &'m [DecoderBlock],
}

impl<'m> HdmView<'m> {
    /// What the decoders can do.
    pub fn capability(self) -> Capability {
        Capability::from_bits(get(self.capability))
    }

    /// HDM Decoder Global Control.
    pub fn global_control(self) -> GlobalControl {
        GlobalControl::from_bits(get(self.global))
    }

    /// Writes HDM Decoder Global Control.
    pub fn set_global_control(self, value: GlobalControl) {
        set(self.global, value.into_bits());
    }

    /// The decoders, by number.
    pub fn decoders(self) -> impl ExactSizeIterator<Item = DecoderView<'m>> + DoubleEndedIterator {
        self.decoders.iter().map(DecoderView)
    }

    /// One decoder.
    pub fn decoder(self, index: u8) -> Option<DecoderView<'m>> {
        self.decoders.get(usize::from(index)).map(DecoderView)
    }
}

/// One HDM decoder, in memory.
#[derive(Clone, Copy)]
pub struct DecoderView<'m>(&'m DecoderBlock);

impl DecoderView<'_> {
    /// Reads Control.
    pub fn control(self) -> Control {
        Control::from_bits(get(&self.0.control))
    }

    /// Writes Control: with Commit set, this is what starts a commit.
    pub fn set_control(self, value: Control) {
        set(&self.0.control, value.into_bits());
    }

    /// Reads all seven registers; the eighth dword is reserved and left alone.
    pub fn image(self) -> DecoderImage {
        let Self(cells) = self;
        DecoderImage {
            base_low: get(&cells.base_low),
            base_high: get(&cells.base_high),
            size_low: get(&cells.size_low),
            size_high: get(&cells.size_high),
            control: get(&cells.control),
            route_low: get(&cells.route_low),
            route_high: get(&cells.route_high),
            ..DecoderImage::default()
        }
    }

    /// Writes all seven registers, Control last.
    pub fn set_image(self, image: DecoderImage) {
        let Self(cells) = self;
        set(&cells.base_low, image.base_low);
        set(&cells.base_high, image.base_high);
        set(&cells.size_low, image.size_low);
        set(&cells.size_high, image.size_high);
        set(&cells.route_low, image.route_low);
        set(&cells.route_high, image.route_high);
        set(&cells.control, image.control);
    }
}
