//! A run of registers whose behaviour is their access-class tables and nothing else.
//!
//! **Invariant**: a bit that no table lets software write holds its default until the model itself
//! changes it.

use cxl_regs::Component;
use cxl_regs::access::{Class, Features, Register, Spec};
use cxl_regs::block::{self, TooShort};

/// Registers in bytes, with their tables and their values after a cold reset.
#[derive(Clone, Debug)]
pub struct Registers {
    component: Component,
    features: Features,
    specs: Vec<Spec>,
    bytes: Vec<u8>,
    defaults: Vec<u8>,
    /// Bits that follow writes although they are locked.
    leaks: Vec<(u16, u32)>,
    /// Bits that keep their default.
    stuck: Vec<(u16, u32)>,
    /// Goes up with every change, and now and then without one.
    version: u64,
}

impl Registers {
    /// `size` bytes of 0 without any register.
    pub fn new(component: Component, features: Features, size: u16) -> Self {
        let bytes = vec![0; usize::from(size)];
        let defaults = bytes.clone();
        let (specs, leaks, stuck) = (Vec::new(), Vec::new(), Vec::new());
        Self { component, features, specs, bytes, defaults, leaks, stuck, version: 0 }
    }

    /// Adds the registers of a block at `base`, as they are after a cold reset.
    ///
    /// `fill` writes the values: it is given the bytes, as `put` of the block wants them.
    pub fn add(
        &mut self,
        specs: &[Spec],
        base: u16,
        fill: impl FnOnce(&mut [u8]) -> Result<(), TooShort>,
    ) {
        self.specs.extend(specs.iter().map(|spec| spec.moved(base)));
        let filled = fill(&mut self.bytes);
        debug_assert!(filled.is_ok(), "{filled:?}");
        self.version += 1;
        self.defaults.clone_from(&self.bytes);
    }

    /// Sets a dword and what it is after a cold reset.
    pub fn preset(&mut self, offset: u16, value: u32) {
        self.put(offset, value);
        let start = usize::from(offset);
        if let Some(bytes) = self.defaults.get_mut(start..start.saturating_add(4)) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Bytes of all of it.
    pub fn length(&self) -> u16 {
        self.bytes.len() as u16
    }

    /// All of it, as stored.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A number that is another one after every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The register in which the byte at `offset` lies.
    pub fn spec_at(&self, offset: u16) -> Option<&Spec> {
        self.specs.iter().find(|spec| {
            (spec.offset..spec.offset.saturating_add(spec.bytes.into())).contains(&offset)
        })
    }

    /// The registers of the dword at an offset.
    pub fn specs(&self, offset: u16) -> Vec<Spec> {
        self.specs.iter().filter(|spec| spec.offset & !3 == offset & !3).copied().collect()
    }

    /// What the field of this name holds, in the first register that has one.
    pub fn field(&self, name: &str) -> Option<u32> {
        self.specs.iter().find_map(|spec| {
            let field = spec.fields.iter().find(|field| field.name == name)?;
            let dword = self.read(spec.offset & !3);
            Some(field.get(dword >> (8 * (spec.offset & 3))))
        })
    }

    /// Lets bits of a dword follow writes although they are locked.
    pub fn leak(&mut self, offset: u16, mask: u32) {
        self.leaks.push((offset, mask));
    }

    /// Keeps bits of a dword at their default.
    pub fn stick(&mut self, offset: u16, mask: u32) {
        self.stuck.push((offset, mask));
    }

    /// The dword at an offset; all-ones behind the end.
    pub fn read(&self, offset: u16) -> u32 {
        block::image(&self.bytes)(offset)
    }

    /// One register of the structure at `base`.
    pub fn get<R: Register>(&self, base: u16) -> R {
        block::read(block::image(&self.bytes), base)
    }

    /// The model's own change of a register: no access class applies.
    pub fn set<R: Register>(&mut self, base: u16, register: R) {
        let _ = block::put(&mut self.bytes, base, register);
        self.apply_stuck(base.wrapping_add(R::SPEC.offset) & !3);
    }

    /// Software's write to the dword at an offset. `enabled` has a one for each bit of a byte
    /// that is written. Returns the dword before and after.
    pub fn write(&mut self, offset: u16, value: u32, enabled: u32, locked: bool) -> (u32, u32) {
        let old = self.read(offset);
        let kind = (self.component, self.features);
        let write = |locked| block::write_dword(&self.specs, offset, kind, locked, old, value);
        let leaks = mask_at(&self.leaks, offset);
        let once = self.mask_of(offset, |class| class == Class::Rwo) & leaks;
        let written = write(locked) & !leaks | write(false) & leaks & !once | value & once;
        self.put(offset, old & !enabled | written & enabled);
        self.apply_stuck(offset);
        (old, self.read(offset))
    }

    /// Puts the dwords of `offsets` back to their defaults, but for fields of a class that `keeps`
    /// names.
    pub fn reset(&mut self, offsets: std::ops::Range<u16>, keeps: impl Fn(Class) -> bool) {
        for offset in offsets.step_by(4) {
            let kept = self.mask_of(offset, &keeps);
            let default = block::image(&self.defaults)(offset);
            self.put(offset, self.read(offset) & kept | default & !kept);
        }
    }

    /// The bits of a dword with a class that `wanted` accepts.
    fn mask_of(&self, offset: u16, wanted: impl Fn(Class) -> bool) -> u32 {
        let here = self.specs.iter().filter(|spec| spec.offset & !3 == offset);
        here.fold(0, |mask, spec| {
            let fields = spec.mask_of(self.component, self.features, &wanted);
            mask | fields << (8 * (spec.offset & 3))
        })
    }

    fn apply_stuck(&mut self, offset: u16) {
        let stuck = mask_at(&self.stuck, offset);
        let default = block::image(&self.defaults)(offset);
        self.put(offset, self.read(offset) & !stuck | default & stuck);
    }

    /// Stores a dword; nothing behind the end.
    pub fn put(&mut self, offset: u16, value: u32) {
        let start = usize::from(offset);
        if let Some(bytes) = self.bytes.get_mut(start..start.saturating_add(4)) {
            bytes.copy_from_slice(&value.to_le_bytes());
            self.version += 1;
        }
    }
}

fn mask_at(masks: &[(u16, u32)], offset: u16) -> u32 {
    masks.iter().filter(|(at, _)| *at == offset).fold(0, |mask, (_, bits)| mask | bits)
}

/// Whether fields of this class outlive a hot reset.
pub fn sticky(class: Class) -> bool {
    matches!(class, Class::Rws | Class::Rw1cs)
}
