//! Leaks of a scenario at work: what comes through a lock in spite of the models.
//!
//! **Invariant**: a machine without leaks takes writes as if this file were not there, and a leak
//! changes the dword that it names and nothing else, only while the dword is locked.

use cxl_regs::access::{Register, Spec};
use cxl_regs::hdm::GlobalControl;

use super::Machine;
use crate::device::Reset;
use crate::device::component::ComponentBlock;
use crate::device::hdm::HdmBlock;
use crate::fault::Where;
use crate::scenario::{Leak, LeakBy, LeakValue, LeakWhen, Place, VENDOR_MEMORY};
use crate::trace::Target;

/// The leaks of a machine, and what they depend on beside registers.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaks {
    list: Vec<Leak>,
    /// Writes so far.
    writes: u64,
    /// The resets that components have been through.
    resets: Vec<(Place, Reset)>,
    /// Where components' registers were when the machine was new.
    home: Vec<(Place, Option<u64>)>,
}

/// What comes through with one write.
pub(super) struct Spill {
    at: Place,
    register: Where,
    value: u32,
    mask: u32,
    shows: bool,
}

impl Leaks {
    /// Whether the machine has none.
    pub(super) fn none(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether a component's registers may not tell what it decodes.
    pub(super) fn hide(&self, place: Place) -> bool {
        self.list.iter().any(|leak| leak.at == place && !leak.shows)
    }

    /// Notes that a component has been reset.
    pub(super) fn reset(&mut self, place: Place, reset: Reset) {
        if !self.none() && !self.resets.contains(&(place, reset)) {
            self.resets.push((place, reset));
        }
    }
}

impl Machine {
    /// Adds the scenario's leaks to a machine that is new.
    pub(super) fn add_leaks(&mut self) {
        let home = self.places().into_iter().map(|place| (place, self.registers_of(place)));
        let (list, home) = (self.scenario.leaks.clone(), home.collect());
        self.leaks = Leaks { list, home, ..Leaks::default() };
    }

    /// What will come through with a write.
    pub(super) fn spills(&mut self, address: u64, bytes: &[u8]) -> Vec<Spill> {
        self.leaks.writes = self.leaks.writes.saturating_add(1);
        let leaks = self.leaks.list.iter();
        leaks.filter_map(|leak| self.spill(leak, address, bytes)).collect()
    }

    fn spill(&self, leak: &Leak, address: u64, bytes: &[u8]) -> Option<Spill> {
        let register = Where::from(leak.register);
        let (value, written) = match &leak.by {
            Some(by) => {
                self.reaches(by, address, bytes.len()).then_some(())?;
                (!self.locked_dword(leak.at, register)?, u32::MAX)
            }
            None => self.written(leak.at, register, address, bytes)?,
        };
        let mask = leak.bits & written;
        let old = self.locked_dword(leak.at, register)?;
        let fits = leak.width.is_none_or(|width| usize::from(width) == bytes.len())
            && match leak.value {
                None => true,
                Some(LeakValue::AllOnes) => value & written == written,
                Some(LeakValue::Zero) => value & written == 0,
                Some(LeakValue::SeveralBits) => ((old ^ value) & mask).count_ones() > 1,
                Some(LeakValue::Exactly(only)) => written == u32::MAX && value == only,
            };
        let open = fits && mask != 0 && leak.when.iter().all(|when| self.is_so(leak, when));
        open.then_some(Spill { at: leak.at, register, value, mask, shows: leak.shows })
    }

    /// Lets it come through.
    pub(super) fn let_through(&mut self, spills: Vec<Spill>) {
        for Spill { at, register, value, mask, shows } in spills {
            match register {
                Where::Hdm(offset) => {
                    if let Some(hdm) = self.component_mut(at).and_then(ComponentBlock::hdm_mut) {
                        hdm.overwrite(offset, value, mask, shows);
                    }
                }
                Where::Dvsec(offset) => {
                    if let Some(function) = self.function_mut(at)
                        && let Some(dvsec) = function.device_dvsec()
                    {
                        let at = dvsec.wrapping_add(offset);
                        let dword = function.read(at) & !mask | value & mask;
                        function.registers_mut().put(at, dword);
                    }
                }
            }
            self.changes.remap = true;
        }
    }

    /// A dword as it is; `None` if no lock covers it.
    fn locked_dword(&self, place: Place, register: Where) -> Option<u32> {
        match register {
            Where::Hdm(offset) => {
                let (_, image) = self.hdm(place)?.decoder_at(offset)?;
                let index = usize::from(HdmBlock::within(offset)? / 4);
                image.control().locked().then(|| image.to_dwords().get(index).copied())?
            }
            Where::Dvsec(offset) => {
                let function = self.function(place)?;
                let dvsec = function.device_dvsec().filter(|_| function.locked())?;
                Some(function.read(dvsec.wrapping_add(offset)))
            }
        }
    }

    /// The bytes that a store writes of a dword, in place, and a mask of them; `None` for none.
    fn written(
        &self,
        place: Place,
        register: Where,
        address: u64,
        bytes: &[u8],
    ) -> Option<(u32, u32)> {
        let (mut value, mut mask) = (0, 0);
        for (at, byte) in (address..).zip(bytes) {
            let lane = match (self.target(at), register) {
                (Some(Target::Component { place: hit, offset }), Where::Hdm(wanted)) => {
                    let block = self.component(hit).filter(|_| hit == place);
                    let within = block.and_then(|block| block.hdm_offset(offset));
                    within.and_then(|within| within.checked_sub(wanted))
                }
                (Some(Target::Config { place: hit, offset }), Where::Dvsec(wanted)) => {
                    let function = self.function(hit).filter(|_| hit == place);
                    let dvsec = function.and_then(|function| function.device_dvsec());
                    dvsec.and_then(|dvsec| offset.checked_sub(dvsec.wrapping_add(wanted)))
                }
                _ => None,
            };
            if let Some(lane @ 0..4) = lane {
                value |= u32::from(*byte) << (8 * lane);
                mask |= 0xFF << (8 * lane);
            }
        }
        (mask != 0).then_some((value, mask))
    }

    /// Whether a store reaches a register that is called so.
    fn reaches(&self, by: &LeakBy, address: u64, length: usize) -> bool {
        (address..).take(length).any(|address| {
            let overlaps = |spec: &Spec, byte: u16| {
                let bytes = spec.offset..spec.offset.saturating_add(spec.bytes.into());
                spec.name == by.register && bytes.contains(&byte)
            };
            match self.target(address) {
                Some(Target::Config { place, offset }) if place == by.at => {
                    let function = self.function(place);
                    function.is_some_and(|f| f.specs(offset).iter().any(|s| overlaps(s, offset)))
                }
                Some(Target::DeviceRegisters { device, offset })
                    if Place::Device(device) == by.at =>
                {
                    let mailbox = self.endpoint(device).and_then(|e| e.mailbox.as_ref());
                    mailbox.is_some_and(|m| m.specs(offset).iter().any(|s| overlaps(s, offset)))
                }
                Some(Target::VendorMemory { device, .. }) => {
                    Place::Device(device) == by.at && by.register == VENDOR_MEMORY
                }
                Some(Target::Component { place, offset }) if place == by.at => {
                    let spec = self.component(place).and_then(|block| block.spec(offset & !3));
                    spec.is_some_and(|spec| spec.name == by.register)
                }
                _ => false,
            }
        })
    }

    fn hdm(&self, place: Place) -> Option<&HdmBlock> {
        self.component(place).and_then(ComponentBlock::hdm)
    }

    fn is_so(&self, leak: &Leak, when: &LeakWhen) -> bool {
        let decoder = match Where::from(leak.register) {
            Where::Hdm(offset) => HdmBlock::index(offset),
            Where::Dvsec(_) => None,
        };
        let hdm = self.hdm(leak.at);
        match when {
            LeakWhen::Field { of, name, on } => self.field(*of, name) == Some(*on),
            LeakWhen::AnotherCommits => hdm.is_some_and(|hdm| hdm.commits_beside(decoder)),
            LeakWhen::AnotherCommitted => hdm.is_some_and(|hdm| {
                hdm.others(decoder)
                    .any(|other| other.control().committed() && !other.control().locked())
            }),
            LeakWhen::Overlapped => hdm.is_some_and(|hdm| hdm.overlapped(decoder)),
            LeakWhen::BarMoved => {
                let home = self.leaks.home.iter().find(|(place, _)| *place == leak.at);
                home.is_some_and(|(place, home)| self.registers_of(*place) != *home)
            }
            LeakWhen::After(kind) => self.leaks.resets.contains(&(leak.at, (*kind).into())),
            LeakWhen::Writes(writes) => self.leaks.writes >= *writes,
            LeakWhen::Microseconds(time) => self.clock.now() >= *time,
        }
    }

    /// Whether the field of this name holds anything but 0; `None` if the component has none.
    fn field(&self, place: Place, name: &str) -> Option<bool> {
        let global = GlobalControl::SPEC.fields.iter().find(|field| field.name == name);
        if let (Some(field), Some(hdm)) = (global, self.hdm(place)) {
            return Some(field.get(hdm.global().raw()) != 0);
        }
        self.function(place)?.field(name).map(|value| value != 0)
    }
}
