//! A component register block: the capability array and the structures it leads to (CXL r3.1
//! section 8.2.3 and 8.2.4).
//!
//! **Invariant**: registers are reached by aligned dwords only. Whoever owns the block decides what
//! another width means; there is no way to ask for one here.

use cxl_regs::Component;
use cxl_regs::access::{Feature, Features, Register, Spec};
use cxl_regs::bi::{self, BiDecoder, BiRouteTable};
use cxl_regs::cache_id::{self, CacheIdDecoder, CacheIdRouteTable};
use cxl_regs::commit::CommitStatus;
use cxl_regs::component::{self, ArrayEntry, ArrayHeader, CapabilityId, RAS_REGISTERS};

use super::hdm::HdmBlock;
use super::registers::{Registers, sticky};
use super::{Effect, Name, Reset};
use crate::backing::Backing;

/// Offsets of the structures from the array; the first three are those that QEMU uses.
mod at {
    pub(super) const RAS: u16 = 0x080;
    pub(super) const LINK: u16 = 0x0D8;
    pub(super) const HDM: u16 = 0x128;
    pub(super) const BI_ROUTE_TABLE: u16 = 0x600;
    pub(super) const BI_DECODER: u16 = 0x620;
    pub(super) const CACHE_ID_ROUTE_TABLE: u16 = 0x640;
    pub(super) const CACHE_ID_DECODER: u16 = 0x680;
}

/// Cache IDs that a route table knows.
const CACHE_IDS: u8 = 16;

/// What a structure is made of.
#[derive(Clone, Debug)]
enum Body {
    /// The HDM decoders.
    Hdm(Box<HdmBlock>),
    /// Registers that do no more than their tables say.
    Plain(Registers),
    /// Registers with a commit bit in their second dword and a status in their third.
    Handshake { registers: Registers, commit: u32 },
}

#[derive(Clone, Debug)]
struct Structure {
    id: CapabilityId,
    pointer: u16,
    length: u16,
    body: Body,
}

/// The register block of one component.
#[derive(Clone, Debug)]
pub struct ComponentBlock {
    component: Component,
    array: Vec<u32>,
    structures: Vec<Structure>,
    /// Plain memory in the implementation's part.
    vendor: Backing,
    /// Goes up with every change of a register, and now and then without one.
    changes: u64,
}

impl ComponentBlock {
    /// A block whose array is empty.
    pub fn new(component: Component) -> Self {
        let vendor = Backing::new(0);
        Self { component, array: vec![0], structures: Vec::new(), vendor, changes: 0 }
    }

    /// Makes the implementation's part plain memory.
    #[must_use]
    pub fn with_vendor_memory(mut self) -> Self {
        self.vendor = Backing::new(component::Region::Implementation.extent().len() as u64);
        self
    }

    /// Adds the RAS structure, without any error.
    #[must_use]
    pub fn with_ras(self) -> Self {
        let (id, length) = (CapabilityId::Ras, CapabilityId::Ras.least_length());
        let mut registers = Registers::new(self.component, Features::ALL, length);
        registers.add(RAS_REGISTERS, 0, |_| Ok(()));
        self.with(id, 3, at::RAS, length, Body::Plain(registers))
    }

    /// Adds a link structure that reads 0.
    #[must_use]
    pub fn with_link(self) -> Self {
        let (id, length) = (CapabilityId::Link, CapabilityId::Link.least_length());
        let registers = Registers::new(self.component, Features::NONE, length);
        self.with(id, 2, at::LINK, length, Body::Plain(registers))
    }

    /// Adds HDM decoders. The version is the lowest that has what the decoders can do.
    #[must_use]
    pub fn with_hdm(self, hdm: HdmBlock) -> Self {
        let capability = hdm.capability();
        let many = hdm.images().len() > cxl_regs::hdm::MAX_DEVICE_DECODERS;
        let version = if many || capability.mem_data_nxm() || capability.coherency_models() != 0 {
            3
        } else if capability.ways_3_6_12() || capability.ways_16() {
            2
        } else {
            1
        };
        let length = hdm.length();
        self.with(CapabilityId::HdmDecoder, version, at::HDM, length, Body::Hdm(Box::new(hdm)))
    }

    /// Adds a null entry where HDM decoders could be. Its other bits are left over, as in QEMU.
    #[must_use]
    pub fn without_hdm(mut self) -> Self {
        let left_over = ArrayEntry::new()
            .with_id(CapabilityId::Null.code())
            .with_version(1)
            .with_pointer(at::HDM);
        self.entry(left_over);
        self
    }

    /// Adds the BI route table of an upstream port; changes need a commit.
    #[must_use]
    pub fn with_bi_route_table(self) -> Self {
        let capability = bi::RouteTableCapability::new().with_explicit_commit(true);
        let table = BiRouteTable { capability, ..BiRouteTable::default() };
        let commit = bi::RouteTableControl::new().with_commit(true).raw();
        let mut registers = self.handshake(BiRouteTable::EXTENT.end);
        registers.add(BiRouteTable::REGISTERS, 0, |bytes| table.put(bytes, 0));
        self.with_handshake(CapabilityId::BiRouteTable, at::BI_ROUTE_TABLE, registers, commit)
    }

    /// Adds a BI decoder. That of a downstream port needs a commit, others do not.
    #[must_use]
    pub fn with_bi_decoder(self, explicit_commit: bool) -> Self {
        let hdm_d = self.component == Component::Device;
        let capability =
            bi::DecoderCapability::new().with_explicit_commit(explicit_commit).with_hdm_d(hdm_d);
        let decoder = BiDecoder { capability, ..BiDecoder::default() };
        let length = BiDecoder::EXTENT.end;
        if !explicit_commit {
            let mut registers = Registers::new(self.component, Features::NONE, length);
            registers.add(BiDecoder::REGISTERS, 0, |bytes| decoder.put(bytes, 0));
            let body = Body::Plain(registers);
            return self.with(CapabilityId::BiDecoder, 1, at::BI_DECODER, length, body);
        }
        let commit = bi::DecoderControl::new().with_commit(true).raw();
        let mut registers = self.handshake(length);
        registers.add(BiDecoder::REGISTERS, 0, |bytes| decoder.put(bytes, 0));
        self.with_handshake(CapabilityId::BiDecoder, at::BI_DECODER, registers, commit)
    }

    /// Adds the Cache ID route table of a host bridge or upstream port.
    #[must_use]
    pub fn with_cache_id_route_table(self) -> Self {
        let bridge = self.component == Component::HostBridge;
        let capability = cache_id::RouteTableCapability::new()
            .with_target_count(CACHE_IDS)
            .with_max_type2(if bridge { 1 } else { 0 })
            .with_explicit_commit(true);
        let table = CacheIdRouteTable { capability, ..CacheIdRouteTable::default() };
        let commit = cache_id::RouteTableControl::new().with_commit(true).raw();
        let mut registers = self.handshake(table.length());
        registers.add(CacheIdRouteTable::REGISTERS, 0, |bytes| table.put(bytes, 0));
        let target = cache_id::Target::SPEC;
        for id in 0..u16::from(CACHE_IDS) {
            registers.add(&[target], id * u16::from(target.bytes), |_| Ok(()));
        }
        let id = CapabilityId::CacheIdRouteTable;
        self.with_handshake(id, at::CACHE_ID_ROUTE_TABLE, registers, commit)
    }

    /// Adds the Cache ID decoder of a root or downstream port.
    #[must_use]
    pub fn with_cache_id_decoder(self) -> Self {
        let capability = cache_id::DecoderCapability::new().with_explicit_commit(true);
        let decoder = CacheIdDecoder { capability, ..CacheIdDecoder::default() };
        let commit = cache_id::DecoderControl::new().with_commit(true).raw();
        let mut registers = self.handshake(CacheIdDecoder::EXTENT.end);
        registers.add(CacheIdDecoder::REGISTERS, 0, |bytes| decoder.put(bytes, 0));
        self.with_handshake(CapabilityId::CacheIdDecoder, at::CACHE_ID_DECODER, registers, commit)
    }

    fn handshake(&self, length: u16) -> Registers {
        Registers::new(self.component, Features::NONE.with(Feature::ExplicitCommit), length)
    }

    fn with_handshake(
        self,
        id: CapabilityId,
        pointer: u16,
        registers: Registers,
        commit: u32,
    ) -> Self {
        let length = registers.length();
        self.with(id, 1, pointer, length, Body::Handshake { registers, commit })
    }

    fn with(
        mut self,
        id: CapabilityId,
        version: u8,
        pointer: u16,
        length: u16,
        body: Body,
    ) -> Self {
        let entry = ArrayEntry::new().with_id(id.code()).with_version(version);
        self.entry(entry.with_pointer(pointer));
        self.structures.push(Structure { id, pointer, length, body });
        self
    }

    fn entry(&mut self, entry: ArrayEntry) {
        self.array.push(entry.raw());
        let header = ArrayHeader::new()
            .with_id(CapabilityId::Array.code())
            .with_version(1)
            .with_cache_mem_version(1)
            .with_size((self.array.len() - 1) as u8);
        if let Some(first) = self.array.first_mut() {
            *first = header.raw();
        }
    }

    /// Whether the capability array names a structure of this kind.
    pub fn has(&self, id: CapabilityId) -> bool {
        let mut entries = self.array.iter().skip(1);
        entries.any(|&entry| ArrayEntry::from_raw(entry).id() == id.code())
    }

    /// The HDM decoders, if the block has any.
    pub fn hdm(&self) -> Option<&HdmBlock> {
        self.structures.iter().find_map(|structure| match &structure.body {
            Body::Hdm(hdm) => Some(hdm.as_ref()),
            _ => None,
        })
    }

    /// The HDM decoders, if the block has any.
    pub fn hdm_mut(&mut self) -> Option<&mut HdmBlock> {
        self.changes += 1;
        self.structures.iter_mut().find_map(|structure| match &mut structure.body {
            Body::Hdm(hdm) => Some(hdm.as_mut()),
            _ => None,
        })
    }

    /// The structures beside the HDM decoders as stored, each at its offset from the array.
    pub fn other_structures(&self) -> impl Iterator<Item = (u16, &[u8])> {
        self.structures.iter().filter_map(|structure| match &structure.body {
            Body::Hdm(_) => None,
            Body::Plain(registers) | Body::Handshake { registers, .. } => {
                Some((structure.pointer, registers.bytes()))
            }
        })
    }

    /// Gives those the values that another block of this kind has, now and after each reset.
    pub fn preset_like(&mut self, other: &Self) {
        self.changes += 1;
        for structure in &mut self.structures {
            let (Body::Plain(registers) | Body::Handshake { registers, .. }) = &mut structure.body
            else {
                continue;
            };
            let mut theirs = other.other_structures();
            let Some((_, bytes)) = theirs.find(|(pointer, _)| *pointer == structure.pointer) else {
                continue;
            };
            for (at, dword) in (0..registers.length()).step_by(4).zip(bytes.chunks_exact(4)) {
                let dword = dword.try_into().map_or(0, u32::from_le_bytes);
                registers.preset(at, dword);
            }
        }
    }

    /// A number that is another one after every change of those.
    pub fn version(&self) -> u64 {
        self.structures.iter().fold(0, |sum, structure| match &structure.body {
            Body::Hdm(_) => sum,
            Body::Plain(registers) | Body::Handshake { registers, .. } => {
                sum.wrapping_add(registers.version())
            }
        })
    }

    /// A number that is another one after every change of any register.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether no read changes anything, however often and whenever it comes.
    pub fn is_steady(&self) -> bool {
        self.hdm().is_none_or(HdmBlock::is_steady)
    }

    /// The array and the structures as a read gives them, each dword with its offset from the array; all
    /// others read 0.
    pub fn dwords(&self) -> impl Iterator<Item = (u16, u32)> {
        let array = (0..).step_by(4).zip(self.array.iter().copied());
        array.chain(self.structures.iter().flat_map(|structure| {
            (0..structure.length).step_by(4).map(|within| {
                let dword = match &structure.body {
                    Body::Hdm(hdm) => hdm.dword(within),
                    Body::Plain(registers) | Body::Handshake { registers, .. } => {
                        registers.read(within)
                    }
                };
                (structure.pointer + within, dword)
            })
        }))
    }

    /// The offset in the HDM decoder structure of an offset in the block, if it lies there.
    pub fn hdm_offset(&self, offset: u32) -> Option<u16> {
        let (index, within) = self.structure(offset)?;
        matches!(self.structures.get(index)?.body, Body::Hdm(_)).then_some(within)
    }

    /// The structure at an offset in the block, and the offset in it.
    fn structure(&self, offset: u32) -> Option<(usize, u16)> {
        let offset =
            u16::try_from(offset.checked_sub(component::Region::CacheMem.extent().start)?).ok()?;
        self.structures.iter().enumerate().find_map(|(index, structure)| {
            let within = offset.checked_sub(structure.pointer)?;
            (within < structure.length).then_some((index, within))
        })
    }

    /// The structure at an offset in the block, and the offset in it.
    pub fn structure_at(&self, offset: u32) -> Option<(CapabilityId, u16)> {
        let (index, within) = self.structure(offset)?;
        Some((self.structures.get(index)?.id, within))
    }

    /// The number of the array's dword at an offset in the block; its header is 0.
    pub fn array_index(&self, offset: u32) -> Option<usize> {
        let index = offset.checked_sub(component::Region::CacheMem.extent().start)? as usize / 4;
        (index < self.array.len()).then_some(index)
    }

    /// What the dword at an offset is called.
    pub fn name(&self, offset: u32) -> Option<Name> {
        match self.array_index(offset) {
            Some(0) => return Some(Name::plain(ArrayHeader::SPEC.name)),
            Some(_) => return Some(Name::plain(ArrayEntry::SPEC.name)),
            None => {}
        }
        let (index, within) = self.structure(offset)?;
        match &self.structures.get(index)?.body {
            Body::Hdm(hdm) => {
                let place = hdm.place(within)?;
                Some(Name { register: place.spec.name, decoder: place.decoder })
            }
            Body::Plain(registers) | Body::Handshake { registers, .. } => {
                Some(Name::plain(registers.spec_at(within)?.name))
            }
        }
    }

    /// The register at an offset, if a table names it.
    pub fn spec(&self, offset: u32) -> Option<Spec> {
        match self.array_index(offset) {
            Some(0) => return Some(ArrayHeader::SPEC),
            Some(_) => return Some(ArrayEntry::SPEC),
            None => {}
        }
        let (index, within) = self.structure(offset)?;
        match &self.structures.get(index)?.body {
            Body::Hdm(hdm) => Some(*hdm.place(within)?.spec),
            Body::Plain(registers) | Body::Handshake { registers, .. } => {
                registers.spec_at(within).copied()
            }
        }
    }

    /// Reads the dword at an offset, a multiple of 4. What is reserved reads 0.
    pub fn read(&mut self, offset: u32, now: u64) -> (u32, Effect) {
        let entry = offset
            .checked_sub(component::Region::CacheMem.extent().start)
            .map(|at| at as usize / 4);
        if let Some(&entry) = entry.and_then(|entry| self.array.get(entry)) {
            return (entry, Effect::None);
        }
        let Some((index, within)) = self.structure(offset) else { return (0, Effect::None) };
        match self.structures.get_mut(index).map(|structure| &mut structure.body) {
            Some(Body::Hdm(hdm)) => hdm.read(within, now),
            Some(Body::Plain(registers) | Body::Handshake { registers, .. }) => {
                (registers.read(within), Effect::None)
            }
            None => (0, Effect::None),
        }
    }

    /// Writes the dword at an offset, a multiple of 4.
    pub fn write(&mut self, offset: u32, value: u32, now: u64) -> Effect {
        self.changes += 1;
        let Some((index, within)) = self.structure(offset) else { return Effect::None };
        match self.structures.get_mut(index).map(|structure| &mut structure.body) {
            Some(Body::Hdm(hdm)) => hdm.write(within, value, now),
            Some(Body::Plain(registers)) => {
                registers.write(within, value, u32::MAX, false);
                Effect::None
            }
            Some(Body::Handshake { registers, commit }) => {
                let (old, new) = registers.write(within, value, u32::MAX, false);
                if within == bi::DecoderControl::SPEC.offset && (old ^ new) & *commit != 0 {
                    let status: CommitStatus = registers.get(0);
                    registers.set(0, status.with_committed(new & *commit != 0));
                }
                Effect::None
            }
            None => Effect::None,
        }
    }

    /// The part of the block that is plain memory, from [`ComponentBlock::memory_extent`] on.
    pub fn memory(&self) -> &Backing {
        &self.vendor
    }

    /// Where in the block plain memory is; empty if nowhere.
    pub fn memory_extent(&self) -> std::ops::Range<u32> {
        let start = component::Region::Implementation.extent().start;
        start..start + self.vendor.size() as u32
    }

    /// Puts back to defaults what this reset reaches.
    pub fn reset(&mut self, reset: Reset) {
        self.changes += 1;
        for structure in &mut self.structures {
            match &mut structure.body {
                Body::Hdm(hdm) => hdm.reset(reset),
                Body::Plain(registers) | Body::Handshake { registers, .. } => {
                    if reset != Reset::Flr {
                        registers.reset(0..registers.length(), |class| {
                            reset.keeps_sticky() && sticky(class)
                        });
                    }
                }
            }
        }
        if reset == Reset::Cold {
            // Anonymous memory can always be given back.
            let _ = self.vendor.forget(0..self.vendor.size());
        }
    }
}
