//! A copy of every register of every component, and what has changed since it was taken.
//!
//! **Invariant**: taking the copy reads the models' storage, not their registers: nothing is
//! started, ended, counted or cleared by looking.

use cxl_regs::dvsec::{DvsecId, Dvsecs};
use cxl_regs::hdm::DecoderImage;

use cxl_model::device::component::ComponentBlock;
use cxl_model::machine::Machine;
use cxl_model::scenario::Place;
use cxl_model::trace::Target;

/// Where in a component a dword is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Block {
    /// Configuration space, by offset.
    Config,
    /// The HDM decoder structure, by offset in it.
    Hdm,
    /// The other structures of the component block, by offset in the CXL.cache/mem registers.
    Component,
    /// The device registers with the mailbox.
    Device,
}

/// A dword.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) place: Place,
    pub(super) block: Block,
    pub(super) offset: u16,
}

impl At {
    /// The dword at an address, if it belongs to a component.
    pub(super) fn of(machine: &Machine, address: u64) -> Option<Self> {
        match machine.target(address)? {
            Target::Config { place, offset } => {
                Some(Self { place, block: Block::Config, offset: offset & !3 })
            }
            Target::Component { place, offset } => {
                let hdm = machine.component(place)?.hdm_offset(offset)?;
                Some(Self { place, block: Block::Hdm, offset: hdm & !3 })
            }
            _ => None,
        }
    }

    /// The decoder that an HDM dword belongs to, and the offset in it.
    pub(super) fn decoder(self) -> Option<(u8, u16)> {
        let within = self.offset.checked_sub(0x10).filter(|_| self.block == Block::Hdm)?;
        Some((u8::try_from(within / 0x20).ok()?, within % 0x20))
    }
}

/// A dword that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) at: At,
    pub(super) old: u32,
    pub(super) new: u32,
}

#[derive(Debug)]
struct Component {
    place: Place,
    config: Vec<u8>,
    dvsec: Option<u16>,
    port_dvsec: Option<u16>,
    capability: u32,
    global: u32,
    decoders: Vec<DecoderImage>,
    others: Vec<(u16, Vec<u8>)>,
    device: Vec<u8>,
    /// The versions of what is compared in runs, when they were last found the same.
    seen: std::cell::Cell<[u64; 3]>,
}

/// All registers of a machine at one moment.
#[derive(Debug)]
pub(super) struct Shadow(Vec<Component>);

fn others(block: Option<&ComponentBlock>) -> impl Iterator<Item = (u16, &[u8])> {
    block.into_iter().flat_map(ComponentBlock::other_structures)
}

fn config(machine: &Machine, place: Place) -> &[u8] {
    machine.function(place).map_or(&[], |function| function.bytes())
}

fn device(machine: &Machine, place: Place) -> &[u8] {
    let Place::Device(index) = place else { return &[] };
    let mailbox = machine.endpoint(index).and_then(|endpoint| endpoint.mailbox.as_ref());
    mailbox.map_or(&[], |mailbox| mailbox.bytes())
}

fn versions(machine: &Machine, place: Place) -> [u64; 3] {
    let mailbox = match place {
        Place::Device(index) => machine.endpoint(index).and_then(|e| e.mailbox.as_ref()),
        _ => None,
    };
    [
        machine.function(place).map_or(0, |function| function.version()),
        mailbox.map_or(0, |mailbox| mailbox.version()),
        machine.component(place).map_or(0, |block| block.version()),
    ]
}

fn port_dvsec(config: &[u8]) -> Option<u16> {
    let found = Dvsecs::new(cxl_regs::block::image(config)).find(DvsecId::PortExtensions);
    found.ok().flatten().map(|dvsec| dvsec.offset)
}

impl Shadow {
    pub(super) fn of(machine: &Machine) -> Self {
        let component = |place| {
            let block = machine.component(place);
            let hdm = block.and_then(ComponentBlock::hdm);
            Component {
                place,
                config: config(machine, place).to_vec(),
                dvsec: machine.function(place).and_then(|function| function.device_dvsec()),
                port_dvsec: port_dvsec(config(machine, place)),
                capability: hdm.map_or(0, |hdm| hdm.capability().into_bits()),
                global: hdm.map_or(0, |hdm| hdm.global().into_bits()),
                decoders: hdm.map(|hdm| hdm.images().collect()).unwrap_or_default(),
                others: others(block).map(|(at, bytes)| (at, bytes.to_vec())).collect(),
                device: device(machine, place).to_vec(),
                seen: std::cell::Cell::new(versions(machine, place)),
            }
        };
        Self(machine.places().into_iter().map(component).collect())
    }

    fn component(&self, place: Place) -> Option<&Component> {
        self.0.iter().find(|component| component.place == place)
    }

    /// What is not as it was.
    pub(super) fn changes(&self, machine: &Machine) -> Vec<Change> {
        let mut found = Vec::new();
        for component in &self.0 {
            component.changes(machine, &mut found);
        }
        found
    }

    /// Takes changes over.
    pub(super) fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            let place = change.at.place;
            if let Some(component) = self.0.iter_mut().find(|c| c.place == place) {
                component.store(change);
            }
        }
    }

    /// A dword as it was; 0 where there is none.
    pub(super) fn dword(&self, at: At) -> u32 {
        self.component(at.place).map_or(0, |component| component.dword(at.block, at.offset))
    }

    /// Offset of the Device DVSEC in configuration space.
    pub(super) fn dvsec(&self, place: Place) -> Option<u16> {
        self.component(place)?.dvsec
    }

    /// Offset of the Extensions DVSEC of a port.
    pub(super) fn port_dvsec(&self, place: Place) -> Option<u16> {
        self.component(place)?.port_dvsec
    }

    /// Number of decoders.
    pub(super) fn decoders(&self, place: Place) -> u8 {
        self.component(place).map_or(0, |component| component.decoders.len() as u8)
    }

    /// Control of a decoder.
    pub(super) fn control(&self, place: Place, decoder: u8) -> u32 {
        let image = self.component(place).and_then(|c| c.decoders.get(usize::from(decoder)));
        image.map_or(0, |image| image.control)
    }
}

/// Bytes that are compared at once.
const PART: usize = 256;

fn dword(bytes: &[u8], offset: u16) -> u32 {
    let bytes = bytes.get(usize::from(offset)..).and_then(|bytes| bytes.first_chunk());
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn put(bytes: &mut [u8], offset: u16, value: u32) {
    let bytes = bytes.get_mut(usize::from(offset)..).and_then(|bytes| bytes.first_chunk_mut());
    if let Some(bytes) = bytes {
        *bytes = value.to_le_bytes();
    }
}

impl Component {
    fn changes(&self, machine: &Machine, found: &mut Vec<Change>) {
        let mut note = |block, offset, old, new| {
            if old != new {
                found.push(Change { at: At { place: self.place, block, offset }, old, new });
            }
        };
        // Only a part that differs is looked into.
        let mut run = |block, first: u16, old: &[u8], new: &[u8]| {
            if old == new {
                return true;
            }
            let parts = old.chunks(PART).zip(new.chunks(PART)).zip((first..).step_by(PART));
            for ((old, new), first) in parts.filter(|((old, new), _)| old != new) {
                for offset in (0..PART as u16).step_by(4) {
                    note(block, first + offset, dword(old, offset), dword(new, offset));
                }
            }
            false
        };
        let block = machine.component(self.place);
        // Storage has a number that goes up with every change: what was the same and has not
        // changed since need not be looked at.
        let now = versions(machine, self.place);
        if self.seen.get() != now {
            let mut same = run(Block::Config, 0, &self.config, config(machine, self.place));
            same &= run(Block::Device, 0, &self.device, device(machine, self.place));
            for ((first, old), (_, new)) in self.others.iter().zip(others(block)) {
                same &= run(Block::Component, *first, old, new);
            }
            if same {
                self.seen.set(now);
            }
        }
        let Some(hdm) = block.and_then(ComponentBlock::hdm) else { return };
        note(Block::Hdm, 0, self.capability, hdm.capability().into_bits());
        note(Block::Hdm, 4, self.global, hdm.global().into_bits());
        for ((old, new), first) in
            self.decoders.iter().zip(hdm.images()).zip((0x10..).step_by(0x20))
        {
            if *old != new {
                let dwords = old.to_dwords().into_iter().zip(new.to_dwords());
                for ((old, new), offset) in dwords.zip((first..).step_by(4)) {
                    note(Block::Hdm, offset, old, new);
                }
            }
        }
    }

    fn dword(&self, block: Block, offset: u16) -> u32 {
        match block {
            Block::Config => dword(&self.config, offset),
            Block::Device => dword(&self.device, offset),
            Block::Component => self.others.iter().fold(0, |value, (first, bytes)| {
                value | offset.checked_sub(*first).map_or(0, |offset| dword(bytes, offset))
            }),
            Block::Hdm => match offset {
                0 => self.capability,
                4 => self.global,
                _ => {
                    let within = offset.saturating_sub(0x10);
                    let image = self.decoders.get(usize::from(within / 0x20));
                    let index = usize::from(within % 0x20 / 4);
                    image.and_then(|image| image.to_dwords().get(index).copied()).unwrap_or(0)
                }
            },
        }
    }

    fn store(&mut self, change: &Change) {
        let (offset, value) = (change.at.offset, change.new);
        match change.at.block {
            Block::Config => put(&mut self.config, offset, value),
            Block::Device => put(&mut self.device, offset, value),
            Block::Component => {
                for (first, bytes) in &mut self.others {
                    if let Some(offset) = offset.checked_sub(*first) {
                        put(bytes, offset, value);
                    }
                }
            }
            Block::Hdm => match offset {
                0 => self.capability = value,
                4 => self.global = value,
                _ => {
                    let within = offset.saturating_sub(0x10);
                    if let Some(image) = self.decoders.get_mut(usize::from(within / 0x20)) {
                        let mut dwords = image.to_dwords();
                        if let Some(dword) = dwords.get_mut(usize::from(within % 0x20 / 4)) {
                            *dword = value;
                        }
                        *image = DecoderImage::from_dwords(dwords);
                    }
                }
            },
        }
    }
}
