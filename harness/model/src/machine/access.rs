//! Accesses of any width, from a VMM or from firmware run in this process.
//!
//! **Invariant**: registers see aligned dwords only; each dword is counted, and recorded if wanted,
//! whether or not it reaches anything.

use cxl_regs::Hpa;
use cxl_regs::mmio::Mmio;

use super::Machine;
use crate::backing::Backing;
use crate::device::{Effect, Name};
use crate::mapping::walks;
use crate::scenario::Place;
use crate::trace::{Access, Direction, Target, Walked};

impl Machine {
    /// Reads any bytes. Registers answer aligned dwords (configuration space also parts of one,
    /// device registers also pairs), windows and memory anything.
    pub fn read_bytes(&mut self, address: u64, bytes: &mut [u8]) {
        self.clock.tick();
        bytes.fill(0xFF);
        match self.target(address) {
            Some(Target::Window) => {
                self.walk(Direction::Read, address, bytes.len());
                self.load(address, bytes);
            }
            Some(Target::VendorMemory { device, offset }) => {
                if let Some((memory, at)) = self.vendor_memory(device, offset) {
                    // What passes its end stays all-ones.
                    let _ = memory.read(at, bytes);
                }
            }
            target => {
                if !self.fits(target, address, bytes.len()) {
                    return;
                }
                let mut rest = bytes;
                for (at, lane) in lanes(address, rest.len()) {
                    let target = if at == address { target } else { self.target(at) };
                    let dword = self.read_dword(at, target).to_le_bytes();
                    let (now, behind) = rest.split_at_mut(lane.len().min(rest.len()));
                    now.iter_mut().zip(dword.iter().skip(lane.start)).for_each(|(to, b)| *to = *b);
                    rest = behind;
                }
            }
        }
    }

    /// Writes any bytes, by the same rules.
    pub fn write_bytes(&mut self, address: u64, bytes: &[u8]) {
        self.clock.tick();
        if self.leaks.none() {
            return self.take(address, bytes);
        }
        let spills = self.spills(address, bytes);
        self.take(address, bytes);
        self.let_through(spills);
    }

    fn take(&mut self, address: u64, bytes: &[u8]) {
        match self.target(address) {
            Some(Target::Window) => {
                self.walk(Direction::Write, address, bytes.len());
                self.store(address, bytes);
            }
            Some(Target::VendorMemory { device, offset }) => {
                if let Some((memory, at)) = self.vendor_memory(device, offset) {
                    // What passes its end is dropped.
                    let _ = memory.write(at, bytes);
                }
            }
            target => {
                if !self.fits(target, address, bytes.len()) {
                    return;
                }
                let mut rest = bytes;
                for (at, lane) in lanes(address, bytes.len()) {
                    let target = if at == address { target } else { self.target(at) };
                    let (mut value, mut enabled) = ([0; 4], [0; 4]);
                    let (now, behind) = rest.split_at(lane.len().min(rest.len()));
                    for ((to, mask), from) in
                        value.iter_mut().zip(&mut enabled).skip(lane.start).zip(now)
                    {
                        (*to, *mask) = (*from, 0xFF);
                    }
                    let (value, enabled) = (u32::from_le_bytes(value), u32::from_le_bytes(enabled));
                    self.write_dword(at, target, value, enabled);
                    rest = behind;
                }
            }
        }
    }

    /// Notes the way of an access to a window, if anybody wants to know.
    fn walk(&mut self, direction: Direction, address: u64, length: usize) {
        if self.recorder.keeps() {
            let (hpa, length) = (Hpa(address), length as u64);
            let parts = walks(&self.fabric(), hpa, length);
            self.recorder.walked(Walked { before: 0, direction, hpa, length, parts });
        }
    }

    /// A device's memory behind its component BAR, and the place in it of an offset in the block.
    fn vendor_memory(&self, device: usize, offset: u32) -> Option<(&Backing, u64)> {
        let block = self.component(Place::Device(device))?;
        let at = offset.checked_sub(block.memory_extent().start)?;
        Some((block.memory(), at.into()))
    }

    /// Whether registers take an access of this width at this address; counts those they do not.
    fn fits(&mut self, target: Option<Target>, address: u64, length: usize) -> bool {
        let aligned = address.is_multiple_of(length.max(1) as u64);
        let fits = aligned
            && match target {
                Some(Target::Config { .. }) => matches!(length, 1 | 2 | 4),
                Some(Target::DeviceRegisters { .. }) => matches!(length, 1 | 2 | 4 | 8),
                _ => length == 4,
            };
        if !fits && target.is_some() {
            self.recorder.ragged();
        }
        fits
    }

    /// A register's name, where somebody wants it: finding that of a configuration register costs
    /// more than the access.
    fn name_to_record(&self, target: Option<Target>) -> Option<Name> {
        let counted = matches!(target, Some(Target::Component { .. }));
        target.filter(|_| counted || self.recorder.keeps()).and_then(|t| self.register_name(t))
    }

    fn read_dword(&mut self, address: u64, target: Option<Target>) -> u32 {
        let now = self.clock.now();
        let place = target.and_then(Target::place);
        let name = self.name_to_record(target);
        let answers = place.is_some_and(|place| self.faults.answers(place));
        let (value, effect) = match target.filter(|_| answers) {
            Some(Target::Config { place, offset }) => {
                let read = self.function(place).map(|function| function.read(offset & !3));
                (read.unwrap_or(u32::MAX), Effect::None)
            }
            Some(Target::Component { place, offset }) => match self.component_mut(place) {
                Some(block) => block.read(offset, now),
                None => (self.rcrb(place, offset).unwrap_or(u32::MAX), Effect::None),
            },
            Some(Target::DeviceRegisters { device, offset }) => {
                let mailbox = self.endpoint(device).and_then(|e| e.mailbox.as_ref());
                (mailbox.map_or(u32::MAX, |mailbox| mailbox.read(offset)), Effect::None)
            }
            Some(Target::Window | Target::VendorMemory { .. }) | None => (u32::MAX, Effect::None),
        };
        let direction = Direction::Read;
        let access = Access { sequence: 0, direction, address, target, place, name, value };
        self.recorder.access(access);
        self.apply(place, effect);
        value
    }

    fn write_dword(&mut self, address: u64, target: Option<Target>, value: u32, enabled: u32) {
        let now = self.clock.now();
        let place = target.and_then(Target::place);
        let name = self.name_to_record(target);
        let direction = Direction::Write;
        let access = Access { sequence: 0, direction, address, target, place, name, value };
        self.recorder.access(access);
        let Some((target, place)) = target.zip(place) else { return };
        let lost = self.fault_register(target).is_some_and(|at| self.faults.drops(place, at));
        if !self.faults.answers(place) || lost {
            return;
        }
        let effect = match target {
            Target::Config { offset, .. } => match self.function_mut(place) {
                Some(function) => function.write(offset & !3, value, enabled),
                None => Effect::None,
            },
            Target::Component { offset, .. } => match self.component_mut(place) {
                Some(block) => block.write(offset, value, now),
                None => Effect::None,
            },
            Target::DeviceRegisters { device, offset } => {
                if let Some(mailbox) = self.endpoint_mut(device).and_then(|e| e.mailbox.as_mut()) {
                    mailbox.write(offset, value, enabled);
                }
                Effect::None
            }
            Target::Window | Target::VendorMemory { .. } => Effect::None,
        };
        self.apply(Some(place), effect);
    }
}

impl Mmio for Machine {
    fn read(&mut self, address: u64) -> u32 {
        let mut bytes = [0; 4];
        self.read_bytes(address, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn write(&mut self, address: u64, value: u32) {
        self.write_bytes(address, &value.to_le_bytes());
    }
}

/// The dwords that an access of up to 8 bytes touches, and which bytes of each.
fn lanes(address: u64, length: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let first = address & !3;
    let start = (address - first) as usize;
    let end = start + length;
    (0..end.div_ceil(4)).map(move |index| {
        let (low, high) = (4 * index, 4 * index + 4);
        (first.wrapping_add(low as u64), start.max(low) - low..end.min(high) - low)
    })
}
