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
//! decoder that is in use otherwise is changed, nor one below it. Every wait is bounded.

use cxl_regs::access::Register;
use cxl_regs::bi;
use cxl_regs::config::{BridgeControl, Command};
use cxl_regs::dvsec::device;
use cxl_regs::dvsec::flex_bus;
use cxl_regs::hdm::{Capability, GlobalControl};

use crate::commit::back_invalidate;
use crate::commit::planned_registers::Slot;
use crate::commit::{commit_one, differs, settled};
use crate::committed::Fate;
use crate::config::{self, Acts, Config, bus_base};
use crate::decoder_registers::{DecoderRegisters, difference};
use crate::discover::memory_of;
use crate::error::{Code, Error, Failed, Numbered, Place, range_base as range_number};
use crate::handoff::{
    ComponentRecord, DecoderRecord, HEADER_START, Handoff, header_dwords, range_base,
};
use crate::list::List;
use crate::mmio::{Block, Clock, Mmio};
use crate::outcome::{ComponentKind, ComponentOutcome, Extent, Outcome};
use crate::platform::{Ecam, RootBus};
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
    restore_into(hw, clock, ecam, record, pci, &mut outcomes.into())
}

// Compiled once, whatever the outcomes lie in.
#[inline(never)]
fn restore_into(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    ecam: &[Ecam],
    record: &Handoff<'_>,
    pci: Pci,
    outcomes: &mut List<'_, ComponentOutcome>,
) -> Result<Extent, Error> {
    let (need, have) = (record.components.len(), outcomes.room());
    if need == 0 {
        return Err(Code::RESTORE_NO_COMPONENTS.error());
    }
    if need > have {
        return Err(Code::RESTORE_CAPACITY.error().expected(need).found(have));
    }
    outcomes.clear();
    for outcome in record.outcomes().take(need) {
        let _ = outcomes.push(outcome);
    }
    let (at, open, config) = (Place::NOWHERE, 0, Config::uncached());
    let mut restore = Restore { hw, clock, ecam, record, pci, config, at, open, outcomes };
    restore.run();
    Ok(restore.extent())
}

struct Restore<'a, M, C> {
    hw: &'a mut M,
    clock: &'a mut C,
    ecam: &'a [Ecam],
    record: &'a Handoff<'a>,
    pci: Pci,
    /// That of the component in hand, and why it fails.
    config: Config<'a>,
    /// The component in hand, as an error names it.
    at: Place,
    /// The decoder of it in hand: those before it are as recorded.
    open: u8,
    outcomes: &'a mut [ComponentOutcome],
}

/// What is done to a component that is used.
type Step<'a, M, C> = fn(&mut Restore<'a, M, C>, usize, &'a ComponentRecord) -> Result<(), Failed>;

/// What tells one component from another.
#[derive(Clone, Copy)]
enum Identity {
    Function,
    Serial,
    Decoders,
}

/// The bits of a header not to be written back, where [`ComponentRecord::header`] lies.
fn header_acts(kind: ComponentKind) -> &'static Acts {
    match kind {
        ComponentKind::Device => &config::ENDPOINT,
        _ => &config::BRIDGE,
    }
}

/// Whether a decoder serves a region.
fn is_done(decoder: &DecoderRecord) -> bool {
    decoder.fate() == Fate::Done
}

/// Whether it was committed: also one that served nothing any more, which is as much in the way of
/// higher ones as it was.
fn was_committed(decoder: &DecoderRecord) -> bool {
    matches!(decoder.fate(), Fate::Done | Fate::Stranded) && decoder.control().committed()
}

impl<'a, M: Mmio, C: Clock> Restore<'a, M, C> {
    fn run(&mut self) {
        use ComponentKind::{Device, DownstreamPort, HostBridge, RootPort, UpstreamPort};
        for number in 0..self.outcomes.len() {
            self.visit(number, Self::find);
        }
        // From the ports up to the root, then devices; decoders the other way round.
        let ports = &[HostBridge, UpstreamPort, RootPort, DownstreamPort];
        self.visit_upwards(ports, Self::back_invalidate);
        self.visit_upwards(&[Device], Self::back_invalidate);
        for kind in [Device, UpstreamPort, HostBridge] {
            self.visit_upwards(&[kind], Self::decode);
        }
    }

    /// Visits the components of some kinds, the last one first.
    #[inline(never)]
    fn visit_upwards(&mut self, kinds: &[ComponentKind], step: Step<'a, M, C>) {
        for number in (0..self.outcomes.len()).rev() {
            if self.kind(number).is_some_and(|kind| kinds.contains(&kind)) {
                self.visit(number, step);
            }
        }
    }

    fn kind(&self, number: usize) -> Option<ComponentKind> {
        Some(self.record.components.get(number)?.kind())
    }

    /// The component whose outcome is why one is not used, if it is not: itself, or one above it.
    #[inline(never)]
    fn failed(&self, mut number: usize) -> Option<usize> {
        // A component stands behind the one above it.
        while self.outcomes.get(number)?.outcome.error().is_none() {
            number = self.record.components.get(number)?.parent()?;
        }
        Some(number)
    }

    fn is_in_use(&self, number: usize) -> bool {
        self.outcomes.get(number).is_some_and(|found| found.outcome == Outcome::InUse)
    }

    fn lose(&mut self, number: usize, error: Error) {
        if let Some(found) = self.outcomes.get_mut(number) {
            found.outcome = Outcome::Broken(error);
        }
    }

    /// Loses a component for what another one was lost for.
    #[inline(never)]
    fn lose_with(&mut self, number: usize, other: usize) {
        let error = self.outcomes.get(other).and_then(|other| other.outcome.error());
        if let Some(error) = error.copied() {
            self.lose(number, error);
        }
    }

    /// Does a step for a component that is used; a failure is its loss.
    #[inline(never)]
    fn visit(&mut self, number: usize, step: Step<'a, M, C>) {
        let Some(component) = self.record.components.get(number) else { return };
        match self.failed(number) {
            Some(own) if own == number => {}
            Some(above) => self.lose_with(number, above),
            None => {
                if step(self, number, component).is_err() {
                    self.lose(number, self.config.fault.error());
                }
            }
        }
    }

    /// Refuses what is not as recorded.
    #[inline(never)]
    fn same(&mut self, code: Code, detail: u16, expected: u64, found: u64) -> Result<(), Failed> {
        if expected == found {
            return Ok(());
        }
        let fault = self.config.fault.at(code, self.at).detail(detail);
        fault.expected(expected).found(found).into()
    }

    // The component itself.

    /// Whether a component is there and the one recorded; PCI of it.
    fn find(&mut self, number: usize, component: &'a ComponentRecord) -> Result<(), Failed> {
        self.at = component.place();
        if let Some(function) = component.function() {
            let uid = component.uid();
            // An error names a function where there is one.
            self.at = Place::function(uid, function);
            let bus = RootBus { segment: function.segment, bus: function.bdf.bus() };
            let Some(base) = bus_base(self.ecam, bus) else {
                return self.config.fault.at(Code::RESTORE_NOT_DECODED, self.at).found(bus).into();
            };
            self.config.open(uid, base, function);
            self.identify(component)?;
            self.header(component)?;
            if self.is_in_use(number) {
                self.link(component)?;
                self.memory(component)?;
            }
        }
        let hdm = component.hdm.get();
        if hdm == 0 {
            return Ok(());
        }
        let found = self.hw.read(hdm);
        self.is_the_one(Identity::Decoders, component.hdm_capability.get().into(), found.into())
    }

    fn is_the_one(&mut self, by: Identity, expected: u64, found: u64) -> Result<(), Failed> {
        self.same(Code::RESTORE_OTHER, by as u16, expected, found)
    }

    /// Reads a dword of the component in hand each millisecond until it is `done`.
    fn poll(&mut self, offset: u16, code: Code, done: fn(u32) -> bool) -> Result<u32, Failed> {
        let Block(address) = self.config.block(offset);
        poll_each_millisecond(self.hw, self.clock, ANSWER_MS, address, done).map_err(|found| {
            let fault = self.config.fault.at(code, self.at);
            fault.expected(ANSWER_MS).found(found).into()
        })
    }

    #[inline(never)]
    fn identify(&mut self, component: &ComponentRecord) -> Result<(), Failed> {
        let answers = |found| found != u32::MAX && found & 0xFFFF != RETRY;
        let found = self.poll(0, Code::RESTORE_GONE, answers)?;
        let wanted = u64::from(component.device.get()) << 16 | u64::from(component.vendor.get());
        self.is_the_one(Identity::Function, wanted, found.into())?;
        let serial = component.serial_at.get();
        if serial == 0 {
            return Ok(());
        }
        let Block(address) = self.config.block(serial);
        let [low, high] = [4, 8].map(|within| self.hw.read(address.wrapping_add(within)));
        let found = u64::from(high) << 32 | u64::from(low);
        self.is_the_one(Identity::Serial, component.serial.get(), found)
    }

    /// Bus numbers, windows, BARs, Command and Bridge Control.
    #[inline(never)]
    fn header(&mut self, component: &ComponentRecord) -> Result<(), Failed> {
        let (kind, base) = (component.kind(), self.config.block(0));
        let (acts, ours) = (header_acts(kind), self.pci == Pci::Library);
        let mut command: Command = base.read(self.hw);
        let dwords = component.header.iter().take(header_dwords(kind));
        for (offset, wanted) in (HEADER_START..).step_by(4).zip(dwords) {
            let mask = !acts.at(offset);
            let Block(address) = self.config.block(offset);
            let (wanted, mut found) = (wanted.get(), self.hw.read(address) & mask);
            let mut code = Code::RESTORE_MOVED;
            if wanted != found && ours {
                if command.memory_space() {
                    command = command.with_memory_space(false);
                    acts.write(self.hw, base, command);
                }
                // Write-1-to-clear bits are 0 in a record.
                self.hw.write(address, wanted);
                (found, code) = (self.hw.read(address) & mask, Code::RESTORE_NOT_KEPT);
            }
            self.same(code, offset, wanted.into(), found.into())?;
        }
        let wanted = Command::from_bits(component.command.get());
        if ours {
            if wanted != base.read(self.hw) {
                acts.write(self.hw, base, wanted);
            }
            let bits = component.bridge_control.get();
            // A bus that is in reset is nothing to come back to.
            let control = BridgeControl::from_bits(bits).with_secondary_bus_reset(false);
            if kind != ComponentKind::Device && control != base.read(self.hw) {
                acts.write(self.hw, base, control);
            }
        }
        let found: Command = base.read(self.hw);
        if wanted.memory_space() && !found.memory_space() {
            let (wanted, found) = (wanted.into_bits().into(), found.into_bits().into());
            return self.same(Code::RESTORE_MOVED, Command::SPEC.offset, wanted, found);
        }
        Ok(())
    }

    /// Waits until the link next to a function has trained to CXL.mem.
    #[inline(never)]
    fn link(&mut self, component: &ComponentRecord) -> Result<(), Failed> {
        let offset = component.flex_bus.get();
        if offset == 0 {
            return Ok(());
        }
        let Block(address) = Block(self.config.block(offset).address::<flex_bus::Status>());
        let trained = |dword| config::register::<flex_bus::Status>(dword).mem();
        let result = poll_each_millisecond(self.hw, self.clock, ANSWER_MS, address, trained);
        let Err(dword) = result else { return Ok(()) };
        let found = config::register::<flex_bus::Status>(dword).into_bits();
        let fault = self.config.fault.at(Code::RESTORE_LINK, self.at).expected(ANSWER_MS);
        fault.found(found).into()
    }

    /// Waits until a device's memory is active, and asks how much it is.
    #[inline(never)]
    fn memory(&mut self, component: &ComponentRecord) -> Result<(), Failed> {
        if component.kind() != ComponentKind::Device {
            return Ok(());
        }
        let (dvsec, registers) = (component.device_dvsec.get(), component.registers.get());
        let found = memory_of(self.hw, self.clock, &mut self.config, dvsec, registers)?;
        let recorded = [component.volatile, component.persistent];
        for (number, (recorded, found)) in (0..).zip(recorded.into_iter().zip(found)) {
            self.same(Code::RESTORE_RESIZED, number, recorded.get(), found)?;
        }
        Ok(())
    }

    // Decoders.

    fn decoders(&self, number: usize) -> impl Iterator<Item = &'a DecoderRecord> + use<'a, M, C> {
        self.record.decoders.iter().filter(move |decoder| decoder.number() == number)
    }

    /// The component for which a region has lost a member, or what leads to one.
    #[inline(never)]
    fn dead(&self, region: u64) -> Option<usize> {
        let mut same = self
            .record
            .decoders
            .iter()
            .filter(|other| is_done(other) && other.size() != 0 && other.base() == region);
        same.find_map(|other| self.failed(other.number()))
    }

    /// Whether a decoder or a higher one of its component has something to serve. One of size 0 keeps
    /// others from using it.
    fn is_wanted(&self, decoder: &DecoderRecord) -> bool {
        self.decoders(decoder.number()).any(|other| {
            let serves = other.size() == 0 || self.dead(other.base()).is_none();
            is_done(other) && other.index >= decoder.index && serves
        })
    }

    fn back_invalidate(
        &mut self,
        number: usize,
        component: &'a ComponentRecord,
    ) -> Result<(), Failed> {
        let (block, control) = (component.back_invalidate.get(), component.bi_control.get());
        if block == 0 || control == 0 || !self.is_in_use(number) {
            return Ok(());
        }
        let routes = component.kind() == ComponentKind::UpstreamPort;
        let (at, block) = (component.place(), Block(block));
        let is_device = component.kind() == ComponentKind::Device;
        if is_device && block.read::<bi::DecoderControl>(self.hw).into_bits() != control {
            self.unused(number, component, 0)?;
        }
        let Self { hw, clock, config, .. } = self;
        back_invalidate::put_back(*hw, *clock, at, block, routes, control, &mut config.fault)
    }

    /// All that decodes in a component.
    fn decode(&mut self, number: usize, component: &'a ComponentRecord) -> Result<(), Failed> {
        if component.hdm.get() == 0 || !self.is_in_use(number) {
            return Ok(());
        }
        self.at = component.place();
        let routes = component.kind() != ComponentKind::Device;
        let result = if routes {
            self.commit(number, component, None)
        } else {
            self.device(number, component)
        };
        let Err(Failed) = result else { return Ok(()) };
        let error = self.config.fault.error();
        let decoder = error.at.decoder().map(|_| self.open);
        let failed = decoder.filter(|index| routes && *index > 0);
        // What is refused as others use it was not written to.
        if error.code != Code::RESTORE_IN_USE {
            self.take_back(number, component, failed.unwrap_or(0));
        }
        let Some(first) = failed else { return Err(Failed) };
        // Those before the one that failed are committed, and what they lead to stays.
        let own = |decoder: &&DecoderRecord| is_done(decoder) && decoder.index >= first;
        for decoder in self.decoders(number).filter(own) {
            for member in self.record.decoders.iter().filter(|member| is_done(member)) {
                let same = member.base() == decoder.base();
                let (member, is_device) =
                    (member.number(), self.kind(member.number()) == Some(ComponentKind::Device));
                if same && is_device && self.is_below(member, number) {
                    self.lose(member, error);
                }
            }
        }
        Ok(())
    }

    fn is_below(&self, mut number: usize, above: usize) -> bool {
        while number != above {
            let component = self.record.components.get(number);
            let Some(parent) = component.and_then(ComponentRecord::parent) else { return false };
            number = parent;
        }
        true
    }

    /// Refuses what a device's register did not keep.
    fn kept(&mut self, register: u16, expected: u32, found: u32) -> Result<(), Failed> {
        self.same(Code::COMMIT_DEVICE_NOT_KEPT, register, expected.into(), found.into())
    }

    /// Before anything of a device is written: no CXL.mem, so that nothing that is half put back decodes,
    /// neither decoders nor ranges. Of a bridge, or where CONFIG_LOCK holds it, there is no DVSEC to write.
    #[inline(never)]
    fn quiesce(&mut self, dvsec: Option<Block>) {
        let Some(dvsec) = dvsec else { return };
        let found: device::Control = dvsec.read(self.hw);
        if found.mem_enable() {
            config::DEVICE.write(self.hw, dvsec, found.with_mem_enable(false));
        }
    }

    /// Writes a dword of a device that is not as recorded, if it may be written.
    #[inline(never)]
    fn put(
        &mut self,
        address: u64,
        register: u16,
        wanted: u32,
        may_write: bool,
        dvsec: Option<Block>,
    ) -> Result<(), Failed> {
        if may_write && self.hw.read(address) != wanted {
            self.quiesce(dvsec);
            self.hw.write(address, wanted);
        }
        let found = self.hw.read(address);
        self.kept(register, wanted, found)
    }

    /// A device's decoders, then what switches it on.
    #[inline(never)]
    fn device(&mut self, number: usize, component: &'a ComponentRecord) -> Result<(), Failed> {
        let (Some(function), hdm) = (component.function(), Block(component.hdm.get())) else {
            return Ok(());
        };
        let base = config::function_base(self.ecam, function).map_or(0, |base| base.0);
        let dvsec = Block(base.wrapping_add(component.device_dvsec.get().into()));
        let frozen = dvsec.read::<device::Lock>(self.hw).config_lock();
        let writable = (!frozen).then_some(dvsec);
        self.commit(number, component, writable)?;
        let count = dvsec.read::<device::Capability>(self.hw).hdm_count();
        for (range, recorded) in (0..count).zip(component.range_bases) {
            let halves = range_base(dvsec, range).into_iter().zip(recorded).zip([false, true]);
            for ((address, wanted), low) in halves {
                let register = range_number(range.into(), low);
                self.put(address, register, wanted.get(), !frozen, writable)?;
            }
        }
        let address = hdm.address::<GlobalControl>();
        self.put(address, GlobalControl::NUMBER, component.global.get(), true, writable)?;
        let control = device::Control::from_bits(component.control.get());
        if !frozen && dvsec.read::<device::Control>(self.hw) != control {
            config::DEVICE.write(self.hw, dvsec, control);
        }
        let found = dvsec.read::<device::Control>(self.hw).raw();
        self.kept(device::Control::NUMBER, control.raw(), found)?;
        let lock = device::Lock::from_bits(component.lock.get());
        if !frozen && lock.config_lock() {
            config::DEVICE.write(self.hw, dvsec, lock);
        }
        let found = dvsec.read::<device::Lock>(self.hw).raw();
        self.kept(device::Lock::NUMBER, lock.raw(), found)
    }

    /// Programs and commits what is not as recorded, from the lowest decoder up.
    #[inline(never)]
    fn commit(
        &mut self,
        number: usize,
        component: &'a ComponentRecord,
        writable: Option<Block>,
    ) -> Result<(), Failed> {
        let decoders = Capability::from_bits(component.hdm_capability.get()).decoders();
        let mut asked = false;
        for decoder in self.decoders(number).filter(|decoder| was_committed(decoder)) {
            if !self.is_wanted(decoder) {
                continue;
            }
            self.open = decoder.index;
            let place = decoder.place();
            if decoders.is_none_or(|decoders| decoder.index >= decoders) {
                self.quiesce(writable);
                return self.config.fault.at(Code::COMMIT_NO_SUCH_DECODER, place).into();
            }
            let registers = DecoderRegisters::new(Block(component.hdm.get()), decoder.index);
            let (image, found) = (decoder.image(), registers.read(self.hw));
            if difference(image, found).is_none() {
                continue;
            }
            if !asked {
                self.unused(number, component, decoder.index)?;
                asked = true;
            }
            settled(place, found.control(), &mut self.config.fault)?;
            self.quiesce(writable);
            let fault = &mut self.config.fault;
            let slot = Slot::recorded(place, registers, image);
            slot.program(self.hw, fault)?;
            commit_one(self.hw, self.clock, &slot, fault)?;
        }
        Ok(())
    }

    /// Before anything of a component is written: refuses a decoder from `first` on that is committed and
    /// not as recorded. Somebody uses it, and a lower one must not change below it.
    #[inline(never)]
    fn unused(
        &mut self,
        number: usize,
        component: &ComponentRecord,
        first: u8,
    ) -> Result<(), Failed> {
        let decoders = Capability::from_bits(component.hdm_capability.get()).decoders();
        for index in first..decoders.unwrap_or(0) {
            let registers = DecoderRegisters::new(Block(component.hdm.get()), index);
            let control = registers.read_control(self.hw);
            if !control.committed() || control.into_bits() == u32::MAX {
                continue;
            }
            let recorded = self.decoders(number).find(|decoder| decoder.index == index);
            let recorded = recorded.map(DecoderRecord::image).unwrap_or_default();
            let found = registers.read_beside(self.hw, control);
            let place = self.decoders(number).next().map(DecoderRecord::place);
            if let (Some(mismatch), Some(place)) = (difference(recorded, found), place) {
                let (place, fault) = (place.with_decoder(index), &mut self.config.fault);
                return Err(differs(Code::RESTORE_IN_USE, place, mismatch, fault));
            }
        }
        Ok(())
    }

    /// After a failure: clears what this or an earlier restore committed and no lock holds, from the
    /// highest decoder down to `first`. Below one that stays committed nothing is changed: it depends on
    /// those before it.
    #[inline(never)]
    fn take_back(&mut self, number: usize, component: &ComponentRecord, first: u8) {
        let decoders = Capability::from_bits(component.hdm_capability.get()).decoders();
        for index in (first..decoders.unwrap_or(0)).rev() {
            let registers = DecoderRegisters::new(Block(component.hdm.get()), index);
            let found = registers.read(self.hw);
            let control = found.control();
            let mut own = self.decoders(number).filter(|decoder| was_committed(decoder));
            let ours = own.any(|decoder| {
                let recorded = decoder.image().with_control(control);
                decoder.index == index && difference(recorded, found).is_none()
            });
            let is_set = control.commit() || control.committed();
            if ours && is_set && !control.locked() {
                registers.write_control(self.hw, control.with_commit(false));
            } else if control.committed() {
                break;
            }
        }
    }

    /// How much of what was in use is back. A device none of whose regions is whole is lost with them.
    #[inline(never)]
    fn extent(&mut self) -> Extent {
        let mut lost = 0u16;
        for (number, before) in self.record.outcomes().enumerate().take(self.outcomes.len()) {
            let is_device = self.kind(number) == Some(ComponentKind::Device);
            match self.dead_with_all(number).filter(|_| is_device && self.is_in_use(number)) {
                Some(other) => self.lose_with(number, other),
                None => self.visit(number, |_, _, _| Ok(())),
            }
            if before.outcome == Outcome::InUse && !self.is_in_use(number) {
                lost = lost.saturating_add(1);
            }
        }
        if lost == 0 { Extent::Whole } else { Extent::Less { lost } }
    }

    /// Where all regions of a component are dead, what the first one is dead for.
    fn dead_with_all(&self, number: usize) -> Option<usize> {
        let mut first = None;
        for decoder in self.decoders(number).filter(|decoder| is_done(decoder)) {
            if decoder.size() != 0 {
                let dead = self.dead(decoder.base())?;
                first.get_or_insert(dead);
            }
        }
        first
    }
}
