//! Writing decoders and device enables, and reading back what they took.
//!
//! **Invariant**: nothing here sets Commit. What is written is read back at once, so hardware that
//! drops a write or hardwires a bit is found while everything can still be undone.

use cxl_regs::access::{Register, Spec};
use cxl_regs::dvsec::device::{self, DeviceDvsec, RANGE_STRIDE};
use cxl_regs::hdm::{self, Control, DecoderImage, GlobalControl};

use crate::commit::CommitError;
use crate::committed::Place;
use crate::config;
use crate::list::Empty;
use crate::mmio::{Block, Mmio};
use crate::plan::{PlannedDecoder, Purpose};
use crate::policy::{PathPolicy, Policy};
use crate::topology::{DeviceKind, NodeId, Tree};

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
        for (slot, spec) in dwords.iter_mut().zip(&hdm::DECODER_SPECS) {
            *slot = match spec.offset {
                offset if offset == Control::SPEC.offset => control.into_bits(),
                offset => hw.read(self.address(offset)),
            };
        }
        DecoderImage::from_dwords(dwords)
    }

    /// Writes the seven registers in the order of CXL r3.1 section 8.2.4.20.12: base, size, route,
    /// and Control last.
    pub fn write(self, hw: &mut impl Mmio, image: DecoderImage) {
        for (value, spec) in image.to_dwords().into_iter().zip(&hdm::DECODER_SPECS) {
            if spec.offset != Control::SPEC.offset {
                hw.write(self.address(spec.offset), value);
            }
        }
        self.write_control(hw, image.control());
    }
}

/// The first of a decoder's registers that differs: name, expected, found.
pub(crate) fn difference(
    expected: DecoderImage,
    found: DecoderImage,
) -> Option<(&'static str, u32, u32)> {
    let both = expected.to_dwords().into_iter().zip(found.to_dwords());
    { both }.zip(&hdm::DECODER_SPECS).find_map(|((expected, found), spec)| {
        (expected != found).then_some((spec.name, expected, found))
    })
}

/// A planned decoder: where it is, and what its registers shall hold.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) place: Place,
    pub(crate) registers: DecoderRegisters,
    /// Lock On Commit as the policy wants it; Commit and the status bits are 0.
    pub(crate) image: DecoderImage,
    /// The bits of Control that have to be so. A burned decoder's type means nothing.
    control_mask: u32,
}

impl Slot {
    /// `None` if the topology has no such decoder.
    pub(crate) fn new(
        tree: Tree<'_>,
        planned: &PlannedDecoder,
        policy: &Policy<'_>,
    ) -> Result<Self, CommitError> {
        let place = Place::of(tree, planned.node, planned.index);
        let (component, hdm) = tree
            .get(planned.node)
            .and_then(|node| Some((node.component()?, node.hdm?)))
            .filter(|(_, hdm)| planned.index < hdm.decoders)
            .ok_or(CommitError::NoSuchDecoder { place })?;
        let (image, free) = match planned.purpose {
            Purpose::Region { decoder, .. } => {
                let image = decoder
                    .encode(component, hdm.capability)
                    .map_err(|error| CommitError::Illegal { place, error })?;
                (image, Control::new())
            }
            Purpose::Burn { base } => (
                DecoderImage::default()
                    .with_base(base)
                    .with_control(Control::new().with_host_only(hdm.capability.allows_host_only())),
                Control::new().with_host_only(true).with_back_invalidate(true),
            ),
        };
        let lock = policy.path == PathPolicy::LockAll;
        Ok(Self {
            place,
            registers: DecoderRegisters::new(hdm.block, planned.index),
            image: image.with_control(image.control().with_lock_on_commit(lock)),
            // Commit reads 0 on QEMU 7.1 to 8.0 once the decoder is committed: Committed tells.
            control_mask: !(free.into_bits() | Control::new().with_commit(true).into_bits()),
        })
    }

    /// The first register that is not as it should be, committed or not.
    pub(crate) fn difference(
        &self,
        found: DecoderImage,
        committed: bool,
    ) -> Option<(&'static str, u32, u32)> {
        let wanted = self.image.control().with_committed(committed).into_bits();
        let control = wanted & self.control_mask | found.control & !self.control_mask;
        difference(self.image.with_control(Control::from_bits(control)), found)
    }

    /// Writes all seven registers and reads them back.
    pub(crate) fn program(&self, hw: &mut impl Mmio) -> Result<DecoderImage, CommitError> {
        self.registers.write(hw, self.image);
        let found = self.registers.read(hw);
        match self.difference(found, false) {
            None => Ok(found),
            Some((register, expected, found)) => {
                Err(CommitError::NotKept { place: self.place, register, expected, found })
            }
        }
    }
}

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
    pub(crate) fn silent(&self) -> Option<&'static str> {
        let Self { global, control, lock, capability, .. } = *self;
        let narrow = u32::from(u16::MAX);
        [
            (global.raw() == u32::MAX, GlobalControl::SPEC.name),
            (capability.raw() == narrow, device::Capability::SPEC.name),
            (control.raw() == narrow, device::Control::SPEC.name),
            (lock.raw() == narrow, device::Lock::SPEC.name),
        ]
        .into_iter()
        .find_map(|(silent, name)| silent.then_some(name))
    }
}

impl DeviceRegisters {
    /// `None` for a node that is no device with decoders.
    pub(crate) fn of(tree: Tree<'_>, id: NodeId) -> Option<Self> {
        let node = tree.get(id)?;
        let (device, hdm) = (node.device()?, node.hdm?);
        Some(Self {
            node: id,
            hdm: hdm.block,
            dvsec: device.dvsec,
            accelerator: device.kind == DeviceKind::Type2,
        })
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
        config::write(hw, self.dvsec, DeviceDvsec::REGISTERS, register);
    }

    /// Writes Mem_Enable and Cache_Enable as they were or shall be.
    fn write_control(
        self,
        hw: &mut impl Mmio,
        tree: Tree<'_>,
        control: device::Control,
    ) -> Result<(), CommitError> {
        self.write_half(hw, control);
        let found = self.read_control(hw);
        self.kept(tree, control, found)
    }

    fn kept<R: Register>(self, tree: Tree<'_>, expected: R, found: R) -> Result<(), CommitError> {
        self.same(tree, R::SPEC.name, expected.raw(), found.raw())
    }

    fn same(
        self,
        tree: Tree<'_>,
        register: &'static str,
        expected: u32,
        found: u32,
    ) -> Result<(), CommitError> {
        if expected == found {
            return Ok(());
        }
        let at = tree.path(self.node);
        Err(CommitError::DeviceNotKept { at, register, expected, found })
    }

    /// What Control shall hold in the end.
    fn wanted_control(self, before: &DeviceImage, policy: &Policy<'_>) -> device::Control {
        let cache = policy.enable_cache && self.accelerator && before.capability.cache_capable();
        let control = before.control.with_mem_enable(true);
        if cache { control.with_cache_enable(true) } else { control }
    }

    /// Refuses a device whose CONFIG_LOCK keeps it from being enabled.
    pub(crate) fn check_lock(
        self,
        tree: Tree<'_>,
        before: &DeviceImage,
        policy: &Policy<'_>,
    ) -> Result<(), CommitError> {
        let wanted = self.wanted_control(before, policy);
        if before.lock.config_lock() && wanted != before.control {
            return Err(CommitError::ConfigLocked {
                at: tree.path(self.node),
                expected: wanted.raw(),
                found: before.control.raw(),
            });
        }
        Ok(())
    }

    /// Before its decoders are written: no CXL.mem. Emulators leave Mem_Enable set over a reset
    /// that clears the decoders, and the range registers would decode meanwhile.
    pub(crate) fn quiesce(
        self,
        hw: &mut impl Mmio,
        tree: Tree<'_>,
        before: &DeviceImage,
    ) -> Result<(), CommitError> {
        if before.lock.config_lock() || !before.control.mem_enable() {
            return Ok(());
        }
        self.write_control(hw, tree, before.control.with_mem_enable(false))
    }

    /// Mirrors decoders 0 and 1 into the range registers, as CXL r3.1 section 8.1.3.8 advises:
    /// software that knows no decoders sees where the memory is.
    ///
    /// HDM Decoder Enable can always be cleared, and then the ranges decode (no lock covers it). So
    /// only a range that leads to the very bytes that its decoder leads to gets a base; the others
    /// get 0, where no window is. Else a locked decoder's addresses could be led elsewhere.
    pub(crate) fn mirror(
        self,
        hw: &mut impl Mmio,
        tree: Tree<'_>,
        before: &DeviceImage,
        images: impl Iterator<Item = DecoderImage>,
    ) -> Result<(), CommitError> {
        if before.lock.config_lock() {
            return Ok(());
        }
        let mut images = images;
        let mut same = true;
        for (index, &old) in (0..u64::from(before.capability.hdm_count())).zip(&before.ranges) {
            let size = self.read_range_size(hw, index);
            let image = images.next().unwrap_or_default();
            // Both count device addresses from 0: as long as all below are alike, so is this.
            same &= image.skip() == 0 && image.control().ways() == 0 && image.size() == size;
            let wanted = if same { (image.base_high, image.base_low) } else { (0, 0) };
            // Without a size the base claims nothing, whatever it is.
            if size == 0 || wanted == old {
                continue;
            }
            self.write_range(hw, index, wanted);
            let found = self.read_range(hw, index);
            let name = |spec: Spec| {
                let spec = spec.moved(RANGE_STRIDE * index as u16);
                let mut all = DeviceDvsec::REGISTERS.iter();
                all.find(|other| other.offset == spec.offset).map_or(spec.name, |other| other.name)
            };
            self.same(tree, name(device::RangeBaseHigh::SPEC), wanted.0, found.0)?;
            self.same(tree, name(device::RangeBaseLow::SPEC), wanted.1, found.1)?;
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
    pub(crate) fn enable(
        self,
        hw: &mut impl Mmio,
        tree: Tree<'_>,
        before: &DeviceImage,
        policy: &Policy<'_>,
    ) -> Result<(), CommitError> {
        let global = before.global.with_decoder_enable(true);
        self.hdm.write(hw, global);
        let found = self.read_global(hw);
        self.kept(tree, global, found)?;
        let wanted = self.wanted_control(before, policy);
        if before.lock.config_lock() {
            return Ok(());
        }
        self.write_control(hw, tree, wanted)
    }

    /// Freezes the DVSEC until a conventional reset.
    pub(crate) fn lock(self, hw: &mut impl Mmio, tree: Tree<'_>) -> Result<(), CommitError> {
        let lock = device::Lock::new().with_config_lock(true);
        self.write_half(hw, lock);
        let found = self.read_lock(hw);
        self.kept(tree, lock, found)
    }

    /// Puts the enables back, CXL.mem first. A DVSEC that has been locked since keeps its own.
    pub(crate) fn restore_enables(self, hw: &mut impl Mmio, before: &DeviceImage) {
        if self.read_control(hw) != before.control && !self.read_lock(hw).config_lock() {
            self.write_half(hw, before.control.with_mem_enable(false));
        }
        if self.read_global(hw) != before.global {
            self.hdm.write(hw, before.global);
        }
    }

    /// Puts the range bases back, and the enables as they were.
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

    /// Whether the device is switched on as the policy wants it: name of the register that is not,
    /// expected, found.
    pub(crate) fn difference(
        self,
        found: &DeviceImage,
        policy: &Policy<'_>,
    ) -> Option<(&'static str, u32, u32)> {
        fn differ<R: Register>(expected: R, found: R) -> Option<(&'static str, u32, u32)> {
            (expected != found).then(|| (R::SPEC.name, expected.raw(), found.raw()))
        }
        let locked = found.lock.config_lock() || policy.config_lock;
        differ(found.global.with_decoder_enable(true), found.global)
            .or_else(|| differ(self.wanted_control(found, policy), found.control))
            .or_else(|| differ(found.lock.with_config_lock(locked), found.lock))
    }
}
