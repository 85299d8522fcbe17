//! The registers that switch a device on and mirror its decoders: enables, CONFIG_LOCK, ranges.
//!
//! **Invariant**: what is written is read back at once, but for what is put back after a failure. A
//! DVSEC that CONFIG_LOCK freezes is not written to.

use cxl_regs::access::Register;
use cxl_regs::dvsec::device::{self, RANGE_STRIDE};
use cxl_regs::hdm::{DecoderImage, GlobalControl};

use crate::config;
use crate::decoder_registers::Mismatch;
use crate::error::{Numbered, range_base};
use crate::list::Empty;
use crate::mmio::{Block, Mmio};
use crate::policy::Policy;
use crate::topology::{Device, DeviceKind, Hdm, NodeId, Tree};

/// The registers that switch a device on: the CXL Device DVSEC and HDM Decoder Global Control.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceRegisters {
    pub(crate) node: NodeId,
    hdm: Block,
    dvsec: Block,
    /// Type 2: it may have CXL.cache.
    accelerator: bool,
}

/// What these registers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceImage {
    pub(crate) global: GlobalControl,
    pub(crate) control: device::Control,
    pub(crate) lock: device::Lock,
    capability: device::Capability,
    /// Base of range 1 and range 2, high dword first.
    ranges: [(u32, u32); 2],
}

impl Empty for DeviceImage {
    const EMPTY: Self = Self {
        global: GlobalControl::new(),
        control: device::Control::new(),
        lock: device::Lock::new(),
        capability: device::Capability::new(),
        ranges: [(0, 0); 2],
    };
}

impl DeviceImage {
    /// The first register that reads all-ones, which none of them can: the device does not answer.
    #[inline(never)]
    pub(crate) fn silent(&self) -> Option<u16> {
        let Self { global, control, lock, capability, .. } = *self;
        let narrow = u32::from(u16::MAX);
        [
            (global.raw() == u32::MAX, GlobalControl::NUMBER),
            (capability.raw() == narrow, device::Capability::NUMBER),
            (control.raw() == narrow, device::Control::NUMBER),
            (lock.raw() == narrow, device::Lock::NUMBER),
        ]
        .into_iter()
        .find_map(|(silent, number)| silent.then_some(number))
    }
}

impl DeviceRegisters {
    /// `None` for a node that is no device with decoders.
    pub(crate) fn of(tree: Tree<'_>, id: NodeId) -> Option<Self> {
        let node = tree.get(id)?;
        let (device, hdm) = (node.device()?, node.hdm?);
        Some(Self::new(id, device, hdm))
    }

    /// Those of a device that is known without a topology.
    pub(crate) fn new(node: NodeId, device: &Device, hdm: Hdm) -> Self {
        let accelerator = device.kind == DeviceKind::Type2;
        Self { node, hdm: hdm.block, dvsec: device.dvsec, accelerator }
    }

    pub(crate) fn read_global(self, hw: &mut impl Mmio) -> GlobalControl {
        self.hdm.read(hw)
    }

    pub(crate) fn read_control(self, hw: &mut impl Mmio) -> device::Control {
        self.dvsec.read(hw)
    }

    pub(crate) fn read_lock(self, hw: &mut impl Mmio) -> device::Lock {
        self.dvsec.read(hw)
    }

    fn range(self, index: u64) -> Block {
        Block(self.dvsec.0.wrapping_add(index.wrapping_mul(u64::from(RANGE_STRIDE))))
    }

    #[inline(never)]
    fn read_range(self, hw: &mut impl Mmio, index: u64) -> (u32, u32) {
        let high: device::RangeBaseHigh = self.range(index).read(hw);
        let low: device::RangeBaseLow = self.range(index).read(hw);
        (high.raw(), low.raw())
    }

    pub(crate) fn read(self, hw: &mut impl Mmio) -> DeviceImage {
        let capability: device::Capability = self.dvsec.read(hw);
        let mut ranges = [(0, 0); 2];
        for (index, range) in (0..u64::from(capability.hdm_count())).zip(&mut ranges) {
            *range = self.read_range(hw, index);
        }
        DeviceImage {
            global: self.read_global(hw),
            control: self.read_control(hw),
            lock: self.read_lock(hw),
            capability,
            ranges,
        }
    }

    /// Writes a register of 16 bits; what shares its dword keeps its value.
    fn write_half<R: Register>(self, hw: &mut impl Mmio, register: R) {
        config::DEVICE.write(hw, self.dvsec, register);
    }

    /// Writes Mem_Enable and Cache_Enable as they were or shall be.
    #[inline(never)]
    fn write_control(self, hw: &mut impl Mmio, control: device::Control) -> Result<(), Mismatch> {
        self.write_half(hw, control);
        kept(control, self.read_control(hw))
    }

    /// What Control shall hold in the end.
    #[inline(never)]
    fn wanted_control(self, before: &DeviceImage, enable_cache: bool) -> device::Control {
        let cache = enable_cache && self.accelerator && before.capability.cache_capable();
        let control = before.control.with_mem_enable(true);
        if cache { control.with_cache_enable(true) } else { control }
    }

    /// What Control would have to hold, where CONFIG_LOCK keeps it from being written.
    #[inline(never)]
    pub(crate) fn frozen(self, before: &DeviceImage, enable_cache: bool) -> Option<Mismatch> {
        let wanted = self.wanted_control(before, enable_cache);
        kept(wanted, before.control).err().filter(|_| before.lock.config_lock())
    }

    /// Before its decoders are written: no CXL.mem. Emulators leave Mem_Enable set over a reset
    /// that clears the decoders, and the range registers would decode meanwhile.
    #[inline(never)]
    pub(crate) fn quiesce(self, hw: &mut impl Mmio, before: &DeviceImage) -> Result<(), Mismatch> {
        if before.lock.config_lock() || !before.control.mem_enable() {
            return Ok(());
        }
        self.write_control(hw, before.control.with_mem_enable(false))
    }

    /// Mirrors decoders 0 and 1, of which those that are not in use are empty, into the range registers, as CXL r3.1 section 8.1.3.8 advises:
    /// software that knows no decoders sees where the memory is.
    ///
    /// HDM Decoder Enable can always be cleared, and then the ranges decode (no lock covers it). So
    /// only a range that leads to the very bytes that its decoder leads to gets a base; the others
    /// get 0, where no window is. Else a locked decoder's addresses could be led elsewhere.
    #[inline(never)]
    pub(crate) fn mirror(
        self,
        hw: &mut impl Mmio,
        before: &DeviceImage,
        images: &[DecoderImage; 2],
    ) -> Result<(), Mismatch> {
        if before.lock.config_lock() {
            return Ok(());
        }
        let mut same = true;
        let count = u64::from(before.capability.hdm_count());
        for (index, (&old, image)) in (0..count).zip(before.ranges.iter().zip(images)) {
            let size = self.read_range_size(hw, index);
            // Both count device addresses from 0: as long as all below are alike, so is this.
            same &= image.skip() == 0 && image.control().ways() == 0 && image.size() == size;
            let wanted = if same { (image.base_high, image.base_low) } else { (0, 0) };
            // Without a size the base claims nothing, whatever it is.
            if size == 0 || wanted == old {
                continue;
            }
            self.write_range(hw, index, wanted);
            let found = self.read_range(hw, index);
            let register = |low| range_base(index as u16, low);
            equal(register(false), wanted.0, found.0)?;
            equal(register(true), wanted.1, found.1)?;
        }
        Ok(())
    }

    fn read_range_size(self, hw: &mut impl Mmio, index: u64) -> u64 {
        let size_high: device::RangeSizeHigh = self.range(index).read(hw);
        let size_low: device::RangeSizeLow = self.range(index).read(hw);
        device::RangeRegisters { size_high, size_low, ..Default::default() }.size()
    }

    fn write_range(self, hw: &mut impl Mmio, index: u64, (high, low): (u32, u32)) {
        let block = self.range(index);
        block.write(hw, device::RangeBaseHigh::from_bits(high));
        block.write(hw, device::RangeBaseLow::from_bits(low));
    }

    /// Once its decoders are committed: they count, then the device answers.
    #[inline(never)]
    pub(crate) fn enable(
        self,
        hw: &mut impl Mmio,
        before: &DeviceImage,
        enable_cache: bool,
    ) -> Result<(), Mismatch> {
        let global = before.global.with_decoder_enable(true);
        self.hdm.write(hw, global);
        kept(global, self.read_global(hw))?;
        let wanted = self.wanted_control(before, enable_cache);
        if before.lock.config_lock() {
            return Ok(());
        }
        self.write_control(hw, wanted)
    }

    /// Freezes the DVSEC until a conventional reset.
    #[inline(never)]
    pub(crate) fn lock(self, hw: &mut impl Mmio) -> Result<(), Mismatch> {
        let lock = device::Lock::new().with_config_lock(true);
        self.write_half(hw, lock);
        kept(lock, self.read_lock(hw))
    }

    /// Puts the enables back, CXL.mem first. A DVSEC that has been locked since keeps its own.
    #[inline(never)]
    pub(crate) fn restore_enables(self, hw: &mut impl Mmio, before: &DeviceImage) {
        if self.read_control(hw) != before.control && !self.read_lock(hw).config_lock() {
            self.write_half(hw, before.control.with_mem_enable(false));
        }
        if self.read_global(hw) != before.global {
            self.hdm.write(hw, before.global);
        }
    }

    /// Puts the range bases back, and the enables as they were.
    #[inline(never)]
    pub(crate) fn restore_ranges(self, hw: &mut impl Mmio, before: &DeviceImage) {
        if self.read_lock(hw).config_lock() {
            return;
        }
        let count = u64::from(before.capability.hdm_count());
        for (index, &range) in (0..count).zip(&before.ranges) {
            if self.read_range(hw, index) != range {
                self.write_range(hw, index, range);
            }
        }
        if self.read_control(hw) != before.control {
            self.write_half(hw, before.control);
        }
    }

    /// The first register by which the device is not switched on as the policy wants it.
    pub(crate) fn difference(self, found: &DeviceImage, policy: &Policy<'_>) -> Option<Mismatch> {
        let locked = found.lock.config_lock() || policy.config_lock;
        kept(found.global.with_decoder_enable(true), found.global)
            .and_then(|()| kept(self.wanted_control(found, policy.enable_cache), found.control))
            .and_then(|()| kept(found.lock.with_config_lock(locked), found.lock))
            .err()
    }
}

fn kept<R: Numbered>(expected: R, found: R) -> Result<(), Mismatch> {
    equal(R::NUMBER, expected.raw(), found.raw())
}

fn equal(register: u16, expected: u32, found: u32) -> Result<(), Mismatch> {
    if expected == found { Ok(()) } else { Err((register, expected, found)) }
}
