//! The same memory again: decoders, ranges, enables and locks as a hand-off record has them, after S3, a
//! reset of a bus, a device or the machine. Nothing is planned.
//!
//! 1. From the bridges down, each component has to be there and be the same: vendor, device, serial
//!    number, HDM Decoder Capability. What PCI needs is put back, or was already, as the caller says.
//!    Links have to have trained to CXL.mem. A device's memory is waited for until it is active, and
//!    asked for its size.
//! 2. Back-invalidate from the ports up to the devices; then decoders with their locks and enables:
//!    devices, switches from the bottom up, bridges. A device's Mem_Enable comes after its decoders,
//!    CONFIG_LOCK last.
//!
//! What is as recorded is not written to, so a second restore changes nothing, and one that was cut
//! short is done again from the start. What contents memory has is not looked at: volatile memory that
//! lost its power is back, and empty.
//!
//! A component that is not there or not the same is lost, with what lies below it, and so are the
//! regions that have a member there. Decoders of the others come back up to the highest that serves a
//! region that is whole: what lies below it is put back too, as the hardware commits in order and device
//! addresses are counted from it.
//!
//! **Invariant**: nothing is written to a component before it was found to be the one recorded, and no
//! decoder that is in use otherwise is changed. Every wait is bounded.

use cxl_regs::access::Register;
use cxl_regs::config::{BridgeControl, Command};
use cxl_regs::dvsec::device;
use cxl_regs::dvsec::flex_bus;
use cxl_regs::hdm::{Capability, DecoderImage, GlobalControl};

use crate::commit::back_invalidate;
use crate::commit::planned_registers::Slot;
use crate::commit::{commit_one, settled};
use crate::committed::Fate;
use crate::config::{self, Acts, Cache, Config, bus_base, function_base};
use crate::decoder_registers::{DecoderRegisters, difference};
use crate::discover::memory_of;
use crate::error::{Code, Error, Numbered, Place, range_base as range_number};
use crate::handoff::{
    ComponentRecord, HEADER_START, Handoff, HandoffDecoder, header_dwords, range_base,
};
use crate::list::List;
use crate::mmio::{Block, Clock, Mmio};
use crate::outcome::{ComponentKind, ComponentOutcome, Extent, Outcome};
use crate::platform::{Ecam, RootBus};
use crate::topology::Partition;
use crate::wait::poll_each_millisecond;

/// How long a function may take to answer, and a link to train, after a reset (PCIe Base 6.x section
/// 6.6.1).
const ANSWER_MS: u32 = 1000;
/// What a function that is not ready yet answers as its Vendor ID (PCIe Base 6.x section 2.3.2).
const RETRY: u32 = 1;

/// Who restores what PCI needs: bus numbers, windows, BARs, Command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pci {
    /// This library, from the record.
    Library,
    /// Somebody else has, to what is recorded; where it is not so, the component is lost.
    Done,
}

/// Puts a machine back as a record has it.
///
/// `outcomes` becomes the outcome of each component of the record, in its order; it needs room for as
/// many. What is lost is an outcome, and no error.
pub fn restore<'a>(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    ecam: &[Ecam],
    record: &Handoff<'_>,
    pci: Pci,
    outcomes: impl Into<List<'a, ComponentOutcome>>,
) -> Result<Extent, Error> {
    let (record, outcomes) = (*record, outcomes.into());
    let mut cache = Cache::new();
    let config = Config::new(&mut cache);
    Restore { hw, clock, ecam, record, pci, config, outcomes }.run()
}

struct Restore<'a, M, C> {
    hw: &'a mut M,
    clock: &'a mut C,
    ecam: &'a [Ecam],
    record: Handoff<'a>,
    pci: Pci,
    config: Config<'a>,
    outcomes: List<'a, ComponentOutcome>,
}

/// What tells one component from another.
enum Identity {
    Function,
    Serial,
    Decoders,
}

/// A component as an error names it: its function, or as a host bridge its path.
fn place(component: &ComponentRecord) -> Place {
    let at = component.at();
    match component.function() {
        Some(function) => Place::function(at.uid(), function),
        None => at.into(),
    }
}

/// The bits of a header not to be written back, where [`ComponentRecord::header`] lies.
fn header_acts(kind: ComponentKind) -> &'static Acts {
    match kind {
        ComponentKind::Device => &config::ENDPOINT,
        _ => &config::BRIDGE,
    }
}

impl<'a, M: Mmio, C: Clock> Restore<'a, M, C> {
    // Compiled once, whatever the outcomes lie in.
    #[inline(never)]
    fn run(&mut self) -> Result<Extent, Error> {
        let (need, have) = (self.record.component_count(), self.outcomes.room());
        if need == 0 {
            return Err(Code::RESTORE_NO_COMPONENTS.error());
        }
        if need > have {
            return Err(Code::RESTORE_CAPACITY.error().expected(need).found(have));
        }
        self.outcomes.clear();
        for outcome in self.record.outcomes().take(need) {
            let _ = self.outcomes.push(outcome);
        }
        for number in 0..need {
            self.visit(number, Self::find);
        }
        // From the ports up to the root, then devices; decoders the other way round.
        use ComponentKind::{Device, HostBridge, UpstreamPort};
        for devices in [false, true] {
            for number in (0..need).rev() {
                if (self.kind(number) == Some(Device)) == devices {
                    self.visit(number, Self::back_invalidate);
                }
            }
        }
        for kind in [Device, UpstreamPort, HostBridge] {
            for number in (0..need).rev() {
                if self.kind(number) == Some(kind) {
                    self.visit(number, Self::decode);
                }
            }
        }
        Ok(self.extent(need))
    }

    fn kind(&self, number: usize) -> Option<ComponentKind> {
        Some(self.record.component(number)?.kind())
    }

    /// Why a component is not used, if it is not: its own outcome, or one above it.
    fn error(&self, number: usize) -> Option<Error> {
        let next = |number: &usize| self.record.component(*number)?.parent();
        // A component stands behind the one above it.
        let mut upwards = core::iter::successors(Some(number), next);
        upwards.find_map(|number| self.outcomes.get(number)?.outcome.error().copied())
    }

    fn is_in_use(&self, number: usize) -> bool {
        self.outcomes.get(number).is_some_and(|found| found.outcome == Outcome::InUse)
    }

    fn lose(&mut self, number: usize, error: Error) {
        if let Some(found) = self.outcomes.get_mut(number) {
            found.outcome = Outcome::Broken(error);
        }
    }

    /// Does a step for a component that is used; a failure is its loss.
    fn visit(
        &mut self,
        number: usize,
        step: fn(&mut Self, usize, &'a ComponentRecord) -> Result<(), Error>,
    ) {
        let Some(component) = self.record.component(number) else { return };
        let result = match self.error(number) {
            Some(error) => Err(error),
            None => step(self, number, component),
        };
        let is_new = self.outcomes.get(number).is_some_and(|own| own.outcome.error().is_none());
        if let (Err(error), true) = (result, is_new) {
            self.lose(number, error);
        }
    }

    // The component itself.

    /// Whether a component is there and the one recorded; PCI of it.
    fn find(&mut self, number: usize, component: &'a ComponentRecord) -> Result<(), Error> {
        let at = place(component);
        if let Some(function) = component.function() {
            let base = function_base(self.ecam, function).ok_or_else(|| {
                let bus = RootBus { segment: function.segment, bus: function.bdf.bus() };
                Code::RESTORE_NOT_DECODED.at(at).found(bus)
            })?;
            self.identify(component, base, at)?;
            self.header(component, base, at)?;
            if self.is_in_use(number) {
                self.link(component, base, at)?;
                self.memory(component, base, at)?;
            }
        }
        let hdm = component.hdm.get();
        if hdm != 0 {
            let (expected, found) = (component.hdm_capability.get(), self.hw.read(hdm));
            if expected != found {
                let other = Code::RESTORE_OTHER.at(at).detail(Identity::Decoders as u8);
                return Err(other.expected(expected).found(found));
            }
        }
        Ok(())
    }

    fn identify(
        &mut self,
        component: &ComponentRecord,
        base: Block,
        at: Place,
    ) -> Result<(), Error> {
        let (hw, mut found) = (&mut *self.hw, 0);
        poll_each_millisecond(self.clock, ANSWER_MS, || {
            found = hw.read(base.0);
            (found != u32::MAX && found & 0xFFFF != RETRY).then_some(())
        })
        .ok_or_else(|| Code::RESTORE_GONE.at(at).expected(ANSWER_MS).found(found))?;
        let halves = |high: u64, low: u64, bits: u32| high << bits | low;
        let wanted = halves(component.device.get().into(), component.vendor.get().into(), 16);
        let other = |what: Identity, expected: u64, found: u64| {
            let other = Code::RESTORE_OTHER.at(at).detail(what as u8);
            if expected == found { Ok(()) } else { Err(other.expected(expected).found(found)) }
        };
        other(Identity::Function, wanted, found.into())?;
        let serial = u64::from(component.serial_at.get());
        if serial != 0 {
            let [low, high] = [4, 8]
                .map(|within| u64::from(hw.read(base.0.wrapping_add(serial).wrapping_add(within))));
            other(Identity::Serial, component.serial.get(), halves(high, low, 32))?;
        }
        Ok(())
    }

    /// Bus numbers, windows, BARs, Command and Bridge Control.
    fn header(&mut self, component: &ComponentRecord, base: Block, at: Place) -> Result<(), Error> {
        let (hw, acts) = (&mut *self.hw, header_acts(component.kind()));
        let mut command: Command = base.read(hw);
        let dwords = header_dwords(component.kind());
        for (offset, wanted) in (HEADER_START..).step_by(4).zip(component.header).take(dwords) {
            let mask = !acts.at(offset);
            let address = base.0.wrapping_add(offset.into());
            let (wanted, mut found) = (wanted.get(), hw.read(address) & mask);
            if wanted == found {
                continue;
            }
            let mut code = Code::RESTORE_MOVED;
            if self.pci == Pci::Library {
                if command.memory_space() {
                    command = command.with_memory_space(false);
                    acts.write(hw, base, command);
                }
                // Write-1-to-clear bits are 0 in a record.
                hw.write(address, wanted);
                (found, code) = (hw.read(address) & mask, Code::RESTORE_NOT_KEPT);
            }
            if wanted != found {
                return Err(code.at(at).detail(offset).expected(wanted).found(found));
            }
        }
        let wanted = Command::from_bits(component.command.get());
        if self.pci == Pci::Library {
            if wanted != base.read(hw) {
                acts.write(hw, base, wanted);
            }
            let bits = component.bridge_control.get();
            // A bus that is in reset is nothing to come back to.
            let control = BridgeControl::from_bits(bits).with_secondary_bus_reset(false);
            if component.kind() != ComponentKind::Device && control != base.read(hw) {
                acts.write(hw, base, control);
            }
        }
        let found: Command = base.read(hw);
        if wanted.memory_space() && !found.memory_space() {
            let (wanted, found) = (wanted.into_bits(), found.into_bits());
            let moved = Code::RESTORE_MOVED.at(at).detail(Command::SPEC.offset);
            return Err(moved.expected(wanted).found(found));
        }
        Ok(())
    }

    /// Waits until the link next to a function has trained to CXL.mem.
    fn link(&mut self, component: &ComponentRecord, base: Block, at: Place) -> Result<(), Error> {
        let offset = component.flex_bus.get();
        if offset == 0 {
            return Ok(());
        }
        let (hw, mut status) = (&mut *self.hw, flex_bus::Status::default());
        let dvsec = Block(base.0.wrapping_add(offset.into()));
        poll_each_millisecond(self.clock, ANSWER_MS, || {
            status = dvsec.read(hw);
            status.mem().then_some(())
        })
        .ok_or_else(|| Code::RESTORE_LINK.at(at).expected(ANSWER_MS).found(status.into_bits()))
    }

    /// Waits until a device's memory is active, and asks how much it is.
    fn memory(&mut self, component: &ComponentRecord, base: Block, at: Place) -> Result<(), Error> {
        let (Some(function), ComponentKind::Device) = (component.function(), component.kind())
        else {
            return Ok(());
        };
        let bus = RootBus { segment: function.segment, bus: function.bdf.bus() };
        self.config.open(bus_base(self.ecam, bus).unwrap_or(base.0), function);
        let (dvsec, registers) = (component.device_dvsec.get(), component.registers.get());
        let (volatile, persistent) =
            memory_of(self.hw, self.clock, &mut self.config, dvsec, registers, at)?;
        let found = [volatile, persistent];
        let recorded = [component.volatile, component.persistent];
        for (partition, (recorded, found)) in
            Partition::ALL.into_iter().zip(recorded.into_iter().zip(found))
        {
            if recorded.get() != found {
                let resized = Code::RESTORE_RESIZED.at(at).detail(partition);
                return Err(resized.expected(recorded.get()).found(found));
            }
        }
        Ok(())
    }

    // Decoders.

    fn decoders(&self, number: usize) -> impl Iterator<Item = HandoffDecoder> + use<'a, M, C> {
        let all = self.record.decoders();
        all.filter(move |decoder| decoder.component == number && decoder.fate == Fate::Done)
    }

    /// The same, and those that served nothing any more: they are as much in the way of higher ones as
    /// they were.
    fn committed(&self, number: usize) -> impl Iterator<Item = HandoffDecoder> + use<'a, M, C> {
        let all = self.record.decoders();
        all.filter(move |decoder| {
            let fate = matches!(decoder.fate, Fate::Done | Fate::Stranded);
            decoder.component == number && fate && decoder.image.control().committed()
        })
    }

    /// Whether a region has lost a member, or a component that leads to one.
    fn is_dead(&self, image: &DecoderImage) -> Option<Error> {
        let mut same = self.record.decoders().filter(|other| {
            other.fate == Fate::Done
                && other.image.size() != 0
                && other.image.base() == image.base()
        });
        same.find_map(|other| self.error(other.component))
    }

    /// Whether a decoder or a higher one of its component has something to serve. One of size 0 keeps
    /// others from using it.
    fn is_wanted(&self, decoder: &HandoffDecoder) -> bool {
        self.decoders(decoder.component).any(|other| {
            other.place.index >= decoder.place.index
                && (other.image.size() == 0 || self.is_dead(&other.image).is_none())
        })
    }

    fn back_invalidate(
        &mut self,
        number: usize,
        component: &'a ComponentRecord,
    ) -> Result<(), Error> {
        let (block, control) = (component.back_invalidate.get(), component.bi_control.get());
        if block == 0 || control == 0 || !self.is_in_use(number) {
            return Ok(());
        }
        let routes = component.kind() == ComponentKind::UpstreamPort;
        back_invalidate::put_back(
            self.hw,
            self.clock,
            component.at(),
            Block(block),
            routes,
            control,
        )
    }

    /// All that decodes in a component.
    fn decode(&mut self, number: usize, component: &'a ComponentRecord) -> Result<(), Error> {
        if component.hdm.get() == 0 || !self.is_in_use(number) {
            return Ok(());
        }
        let result = match component.kind() {
            ComponentKind::Device => self.device(number, component),
            _ => self.commit(number, component),
        };
        let Err(error) = result else { return Ok(()) };
        let routes = component.kind() != ComponentKind::Device;
        let failed = error.at.decoder().filter(|index| routes && *index > 0);
        self.take_back(number, component, failed.unwrap_or(0));
        let Some(first) = failed else { return Err(error) };
        // Those before the one that failed are committed, and what they lead to stays.
        for decoder in self.decoders(number).filter(|decoder| decoder.place.index >= first) {
            for member in self.record.decoders() {
                let same = member.fate == Fate::Done && member.image.base() == decoder.image.base();
                let below = self.is_below(member.component, number);
                if same && below && self.kind(member.component) == Some(ComponentKind::Device) {
                    self.lose(member.component, error);
                }
            }
        }
        Ok(())
    }

    fn is_below(&self, number: usize, above: usize) -> bool {
        let next = |number: &usize| self.record.component(*number)?.parent();
        core::iter::successors(Some(number), next).any(|number| number == above)
    }

    /// A device's decoders, then what switches it on.
    fn device(&mut self, number: usize, component: &ComponentRecord) -> Result<(), Error> {
        let (Some(function), hdm) = (component.function(), Block(component.hdm.get())) else {
            return Ok(());
        };
        let base = function_base(self.ecam, function).map_or(0, |base| base.0);
        let dvsec = Block(base.wrapping_add(component.device_dvsec.get().into()));
        let at = component.at();
        let kept = |register: u16, expected: u32, found: u32| match expected == found {
            true => Ok(()),
            false => Err(Code::COMMIT_DEVICE_NOT_KEPT
                .at(at)
                .detail(register)
                .expected(expected)
                .found(found)),
        };
        let control = device::Control::from_bits(component.control.get());
        let frozen = dvsec.read::<device::Lock>(self.hw).config_lock();
        let found: device::Control = dvsec.read(self.hw);
        let global = GlobalControl::from_bits(component.global.get());
        // While it is off, nothing that is half put back decodes: neither decoders nor ranges.
        if found.mem_enable() && !frozen && self.is_changed(number, component, dvsec, hdm) {
            config::DEVICE.write(self.hw, dvsec, found.with_mem_enable(false));
        }
        self.commit(number, component)?;
        let hw = &mut *self.hw;
        let count = dvsec.read::<device::Capability>(hw).hdm_count();
        for (range, recorded) in (0..count).zip(component.range_bases) {
            let halves = range_base(dvsec, range).into_iter().zip(recorded).zip([false, true]);
            for ((address, wanted), low) in halves {
                if !frozen && hw.read(address) != wanted.get() {
                    hw.write(address, wanted.get());
                }
                kept(range_number(range.into(), low), wanted.get(), hw.read(address))?;
            }
        }
        if hdm.read::<GlobalControl>(hw) != global {
            hdm.write(hw, global);
        }
        kept(GlobalControl::NUMBER, global.raw(), hdm.read::<GlobalControl>(hw).raw())?;
        if !frozen && dvsec.read::<device::Control>(hw) != control {
            config::DEVICE.write(hw, dvsec, control);
        }
        let found = dvsec.read::<device::Control>(hw).raw();
        kept(device::Control::NUMBER, control.raw(), found)?;
        let lock = device::Lock::from_bits(component.lock.get());
        if !frozen && lock.config_lock() {
            config::DEVICE.write(hw, dvsec, lock);
        }
        kept(device::Lock::NUMBER, lock.raw(), dvsec.read::<device::Lock>(hw).raw())
    }

    /// Whether anything that decodes in a device is not as recorded.
    fn is_changed(
        &mut self,
        number: usize,
        component: &ComponentRecord,
        dvsec: Block,
        hdm: Block,
    ) -> bool {
        // What stayed behind above the last one in use is not put back.
        let last = self.decoders(number).map(|decoder| decoder.place.index).max();
        let decoders = self.committed(number).filter(|decoder| Some(decoder.place.index) <= last);
        let hw = &mut *self.hw;
        let count = dvsec.read::<device::Capability>(hw).hdm_count();
        let mut ranges = (0..count)
            .zip(component.range_bases)
            .flat_map(|(range, recorded)| range_base(dvsec, range).into_iter().zip(recorded));
        hdm.read::<GlobalControl>(hw).raw() != component.global.get()
            || ranges.any(|(address, wanted)| hw.read(address) != wanted.get())
            || { decoders }.any(|decoder| {
                let found = DecoderRegisters::new(hdm, decoder.place.index).read(hw);
                difference(decoder.image, found).is_some()
            })
    }

    /// Programs and commits what is not as recorded, from the lowest decoder up.
    fn commit(&mut self, number: usize, component: &ComponentRecord) -> Result<(), Error> {
        let decoders = Capability::from_bits(component.hdm_capability.get()).decoders();
        for decoder in self.committed(number) {
            let HandoffDecoder { place, image, .. } = decoder;
            if !self.is_wanted(&decoder) {
                continue;
            }
            if decoders.is_none_or(|decoders| place.index >= decoders) {
                return Err(Code::COMMIT_NO_SUCH_DECODER.at(place));
            }
            let registers = DecoderRegisters::new(Block(component.hdm.get()), place.index);
            let found = registers.read(self.hw);
            let Some((register, expected, value)) = difference(image, found) else { continue };
            if found.control().committed() {
                let other = Code::RESTORE_IN_USE.at(place).detail(register);
                return Err(other.expected(expected).found(value));
            }
            settled(place, found.control())?;
            let slot = Slot::recorded(place, registers, image);
            slot.program(self.hw)?;
            commit_one(self.hw, self.clock, &slot)?;
        }
        Ok(())
    }

    /// After a failure: clears what this or an earlier restore committed and no lock holds, from the
    /// highest decoder down to `first`.
    fn take_back(&mut self, number: usize, component: &ComponentRecord, first: u8) {
        let decoders = Capability::from_bits(component.hdm_capability.get()).decoders();
        for index in (first..decoders.unwrap_or(0)).rev() {
            let registers = DecoderRegisters::new(Block(component.hdm.get()), index);
            let found = registers.read(self.hw);
            let control = found.control();
            let ours = self.committed(number).any(|decoder| {
                let recorded = decoder.image.with_control(control);
                decoder.place.index == index && difference(recorded, found).is_none()
            });
            if ours && control.commit() && !control.locked() {
                registers.write_control(self.hw, control.with_commit(false));
            }
        }
    }

    /// How much of what was in use is back. A device none of whose regions is whole is lost with them.
    fn extent(&mut self, count: usize) -> Extent {
        for number in 0..count {
            let regions = self.decoders(number).filter(|decoder| decoder.image.size() != 0);
            let mut dead = regions.map(|decoder| self.is_dead(&decoder.image));
            let first = dead.next().flatten().filter(|_| dead.all(|error| error.is_some()));
            let is_device = self.kind(number) == Some(ComponentKind::Device);
            match first.filter(|_| is_device && self.is_in_use(number)) {
                Some(error) => self.lose(number, error),
                None => self.visit(number, |_, _, _| Ok(())),
            }
        }
        let before = self.record.outcomes().take(count);
        let both = before.zip(&*self.outcomes);
        let lost = { both }.filter(|(before, now)| {
            before.outcome == Outcome::InUse && now.outcome != Outcome::InUse
        });
        match u16::try_from(lost.count()) {
            Ok(0) => Extent::Whole,
            lost => Extent::Less { lost: lost.unwrap_or(u16::MAX) },
        }
    }
}
