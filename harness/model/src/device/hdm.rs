//! The HDM decoder state machine: commit, refusal, lock, uncommit, decode (CXL r3.1 section
//! 8.2.4.20).
//!
//! **Invariant**: with the lock enforced, no sequence of register writes changes any bit of a
//! decoder that is committed with Lock On Commit, until a conventional reset.

use std::fmt;

use cxl_regs::Component;
use cxl_regs::access::{Features, Register, Spec};
use cxl_regs::hdm::{
    self, Capability, Control, DECODER_SIZE, DECODER_SPECS, DecoderImage, GlobalControl,
};

use super::{Effect, Reset};

/// How a commit is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Judgement {
    /// Every check that the specification lets hardware make.
    #[default]
    Strict,
    /// None: each commit succeeds at once, as permissive emulators do.
    Lenient,
}

/// When a commit comes to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitTime {
    /// With the write.
    #[default]
    AtOnce,
    /// This many reads of the control register still see it under way.
    Polls(u32),
    /// This many microseconds after the write, seen by the next access.
    Microseconds(u64),
    /// Never.
    Never,
}

/// Why a commit was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// IG or IW is reserved, or the component cannot do it.
    Encoding,
    /// The coherency is one that the device does not have, or BI on a host-only range.
    Coherency,
    /// The decoder before is not committed.
    PreviousNotCommitted,
    /// The base lies below the end of the decoder before.
    BelowPrevious,
    /// Base and size pass the end of the address space.
    Wraps,
    /// 3, 6 or 12 ways and a size that three does not divide.
    NotDivisibleByThree,
    /// Two ways lead to one port.
    DuplicateTarget,
    /// The scenario wants it refused.
    Fault,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encoding => "interleave that the component cannot do",
            Self::Coherency => "coherency that the component cannot do",
            Self::PreviousNotCommitted => "the decoder before is not committed",
            Self::BelowPrevious => "the base lies below the end of the decoder before",
            Self::Wraps => "base and size pass the end of the address space",
            Self::NotDivisibleByThree => "three does not divide the size",
            Self::DuplicateTarget => "two ways lead to one port",
            Self::Fault => "a fault of the scenario",
        })
    }
}

/// Uses whose outcome the specification leaves undefined, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Misuse {
    /// Fields of a committed, unlocked decoder changed without an uncommit. The change is taken.
    pub changed_while_committed: u64,
    /// Writes to a decoder between Commit and its result. All but an uncommit are lost.
    pub written_during_commit: u64,
}

/// The end of a commit that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pending {
    verdict: Result<(), Refusal>,
    ends: Ends,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Polls(u32),
    At(u64),
    Never,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    image: DecoderImage,
    /// What a reset puts back.
    preset: DecoderImage,
    /// What decodes, if that is not what registers show.
    astray: Option<DecoderImage>,
    pending: Option<Pending>,
    refusal: Option<Refusal>,
    time: CommitTime,
    always_refused: bool,
    /// Reads of Control that still see the lock of a committed decoder; then it is gone.
    lock_lasts: Option<u32>,
    /// Reads of Control since the last commit.
    reads_committed: u32,
    /// Bits that follow writes although the decoder is locked.
    leaks: [u32; DecoderImage::DWORDS],
    /// Bits that never leave 0.
    stuck: [u32; DecoderImage::DWORDS],
}

impl Slot {
    /// Whether the decoder's lock is one.
    fn frozen(&self) -> bool {
        self.image.control().locked() && self.leaks != LOCK_IGNORED
    }

    /// Counts a read of Control; the lock goes with the one that is to miss it.
    fn forget_lock(&mut self) {
        let control = self.image.control();
        let Some(lasts) = self.lock_lasts.filter(|_| control.locked()) else { return };
        if self.reads_committed >= lasts {
            self.image = self.image.with_control(control.with_lock_on_commit(false));
        }
        self.reads_committed = self.reads_committed.saturating_add(1);
    }

    fn store(&mut self, image: DecoderImage) {
        let mut dwords = image.to_dwords();
        for (dword, stuck) in dwords.iter_mut().zip(self.stuck) {
            *dword &= !stuck;
        }
        self.image = DecoderImage::from_dwords(dwords);
    }
}

/// What leaks where Lock On Commit is stored and means nothing.
const LOCK_IGNORED: [u32; DecoderImage::DWORDS] = [u32::MAX; DecoderImage::DWORDS];

/// A register of the structure: which, and of which decoder.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The decoder; `None` for the registers in front of the decoders.
    pub decoder: Option<u8>,
    /// The register.
    pub spec: &'static Spec,
}

/// The HDM Decoder Capability Structure of one component.
#[derive(Clone, Debug)]
pub struct HdmBlock {
    component: Component,
    features: Features,
    capability: Capability,
    judgement: Judgement,
    global: u32,
    global_preset: u32,
    global_stuck: u32,
    slots: Vec<Slot>,
    couplings: Vec<Coupling>,
    misuse: Misuse,
}

/// Bits of one decoder that change with a write to another.
#[derive(Clone, Copy, Debug)]
struct Coupling {
    written: u16,
    mask: u32,
    into: u8,
}

const CONTROL: u16 = Control::SPEC.offset;

impl HdmBlock {
    /// A block fresh out of reset. A capability whose count code is reserved has no decoders.
    pub fn new(component: Component, features: Features, capability: Capability) -> Self {
        Self {
            component,
            features,
            capability,
            judgement: Judgement::default(),
            global: 0,
            global_preset: 0,
            global_stuck: 0,
            slots: vec![Slot::default(); usize::from(capability.decoders().unwrap_or(0))],
            couplings: Vec::new(),
            misuse: Misuse::default(),
        }
    }

    /// What a decoder holds from now on, and again after each reset that reaches it.
    pub fn preset(&mut self, decoder: u8, image: DecoderImage) {
        self.each(Some(decoder), |slot| (slot.image, slot.preset) = (image, image));
    }

    /// What Global Control holds from now on, and again after each reset that reaches it.
    pub fn preset_global(&mut self, global: GlobalControl) {
        (self.global, self.global_preset) = (global.raw(), global.raw());
    }

    /// Whether all of it is as a conventional reset leaves it.
    pub fn as_preset(&self) -> bool {
        self.global == self.global_preset && self.slots.iter().all(|slot| slot.image == slot.preset)
    }

    /// Judges commits like this from now on.
    pub fn set_judgement(&mut self, judgement: Judgement) {
        self.judgement = judgement;
    }

    /// Lets commits of one decoder, or of all, take this long.
    pub fn set_commit_time(&mut self, decoder: Option<u8>, time: CommitTime) {
        self.each(decoder, |slot| slot.time = time);
    }

    /// Refuses every commit of one decoder, or of all.
    pub fn refuse_commits(&mut self, decoder: Option<u8>) {
        self.each(decoder, |slot| slot.always_refused = true);
    }

    /// Stores the lock of one decoder, or of all, and ignores it.
    pub fn ignore_lock(&mut self, decoder: Option<u8>) {
        self.each(decoder, |slot| slot.leaks = LOCK_IGNORED);
    }

    /// Forgets Lock On Commit of one decoder, or of all, when Control of the committed decoder was
    /// read this many times.
    pub fn lose_lock(&mut self, decoder: Option<u8>, reads: u32) {
        self.each(decoder, |slot| slot.lock_lasts = Some(reads));
    }

    /// Lets bits of a decoder's dword at `offset` in the structure follow writes in spite of the
    /// lock. Offsets of no decoder are ignored: nothing there is ever locked.
    pub fn leak(&mut self, offset: u16, mask: u32) {
        if let Some((decoder, within)) = self.locate(offset)
            && let Some(slot) = self.slots.get_mut(decoder)
            && let Some(leaks) = slot.leaks.get_mut(usize::from(within / 4))
        {
            *leaks |= mask;
        }
    }

    /// Lets writes to bits of a decoder's dword at `offset` in the structure change the same bits of
    /// decoder `into`, locked or not.
    pub fn leak_into(&mut self, offset: u16, mask: u32, into: u8) {
        self.couplings.push(Coupling { written: offset, mask, into });
    }

    /// Keeps bits of the dword at `offset` in the structure at 0.
    pub fn stick(&mut self, offset: u16, mask: u32) {
        if offset == GlobalControl::SPEC.offset {
            self.global_stuck |= mask;
            self.global &= !mask;
        }
        if let Some((decoder, within)) = self.locate(offset)
            && let Some(slot) = self.slots.get_mut(decoder)
        {
            if let Some(stuck) = slot.stuck.get_mut(usize::from(within / 4)) {
                *stuck |= mask;
            }
            slot.store(slot.image);
        }
    }

    /// Changes bits of a decoder's dword at `offset` in the structure as no write could, lock or
    /// not. If that does not show, registers read as before and decode alone follows.
    pub fn overwrite(&mut self, offset: u16, value: u32, mask: u32, shows: bool) {
        let Some((decoder, within)) = self.locate(offset) else { return };
        let Some(slot) = self.slots.get_mut(decoder) else { return };
        let mut dwords = slot.astray.filter(|_| !shows).unwrap_or(slot.image).to_dwords();
        let Some(dword) = dwords.get_mut(usize::from(within / 4)) else { return };
        *dword = *dword & !mask | value & mask;
        let image = DecoderImage::from_dwords(dwords);
        let control = image.control();
        let image = match control.commit() {
            true => image,
            false => image.with_control(control.with_committed(false)),
        };
        if shows {
            slot.image = image;
        } else {
            slot.astray = Some(image);
        }
    }

    /// The decoder that has the dword at an offset in the structure, and what it holds.
    pub fn decoder_at(&self, offset: u16) -> Option<(u8, DecoderImage)> {
        let (decoder, _) = self.locate(offset)?;
        Some((decoder as u8, self.slots.get(decoder)?.image))
    }

    /// The number of the decoder that an offset in a structure belongs to.
    pub fn index(offset: u16) -> Option<u8> {
        let within = offset.checked_sub(hdm::decoder_offset(0))?;
        u8::try_from(within / DECODER_SIZE).ok()
    }

    /// The offset in its decoder of an offset in a structure.
    pub fn within(offset: u16) -> Option<u16> {
        offset.checked_sub(hdm::decoder_offset(0)).map(|within| within % DECODER_SIZE)
    }

    /// The decoders beside one, or all.
    pub fn others(&self, decoder: Option<u8>) -> impl Iterator<Item = DecoderImage> {
        let mine = decoder.map(usize::from);
        let slots = self.slots.iter().enumerate();
        slots.filter(move |(index, _)| Some(*index) != mine).map(|(_, slot)| slot.image)
    }

    /// Whether a commit of a decoder beside one is under way.
    pub fn commits_beside(&self, decoder: Option<u8>) -> bool {
        let mine = decoder.map(usize::from);
        let mut slots = self.slots.iter().enumerate();
        slots.any(|(index, slot)| Some(index) != mine && slot.pending.is_some())
    }

    /// Whether another decoder is committed over some addresses of one.
    pub fn overlapped(&self, decoder: Option<u8>) -> bool {
        let Some(own) = decoder.and_then(|d| self.slots.get(usize::from(d))) else { return false };
        let span = |image: DecoderImage| image.base()..image.base().saturating_add(image.size());
        let own = span(own.image);
        self.others(decoder).any(|other| {
            let range = span(other);
            other.control().committed() && range.start < own.end && own.start < range.end
        })
    }

    fn each(&mut self, decoder: Option<u8>, mut change: impl FnMut(&mut Slot)) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if decoder.is_none_or(|wanted| usize::from(wanted) == index) {
                change(slot);
            }
        }
    }

    /// The kind of component the block sits in.
    pub fn component(&self) -> Component {
        self.component
    }

    /// The capability register.
    pub fn capability(&self) -> Capability {
        self.capability
    }

    /// The global control register.
    pub fn global(&self) -> GlobalControl {
        GlobalControl::from_raw(self.global)
    }

    /// The raw dwords of all decoders.
    pub fn images(&self) -> impl ExactSizeIterator<Item = DecoderImage> {
        self.slots.iter().map(|slot| slot.image)
    }

    /// Why the last commit of a decoder was refused; `None` if it was not.
    pub fn refusal(&self, decoder: u8) -> Option<Refusal> {
        self.slots.get(usize::from(decoder))?.refusal
    }

    /// Undefined uses so far.
    pub fn misuse(&self) -> Misuse {
        self.misuse
    }

    /// Bytes of the structure.
    pub fn length(&self) -> u16 {
        hdm::structure_length(self.slots.len() as u8)
    }

    /// The register at an offset; `None` where the structure is reserved.
    pub fn place(&self, offset: u16) -> Option<Place> {
        if let Some(spec) = hdm::GLOBAL_SPECS.iter().find(|spec| spec.offset == offset) {
            return Some(Place { decoder: None, spec });
        }
        let (decoder, within) = self.locate(offset)?;
        let spec = DECODER_SPECS.iter().find(|spec| spec.offset == within)?;
        Some(Place { decoder: Some(decoder as u8), spec })
    }

    /// Decoder and offset within it.
    fn locate(&self, offset: u16) -> Option<(usize, u16)> {
        let within = offset.checked_sub(hdm::decoder_offset(0))?;
        let decoder = usize::from(within / DECODER_SIZE);
        (decoder < self.slots.len()).then_some((decoder, within % DECODER_SIZE))
    }

    /// Reads the dword at an offset; reserved ones read 0. A read can end a commit under way.
    pub fn read(&mut self, offset: u16, now: u64) -> (u32, Effect) {
        let Some((decoder, within)) = self.locate(offset) else {
            return (self.dword(offset), Effect::None);
        };
        let effect = self.advance(decoder, now, within == CONTROL);
        if let Some(slot) = self.slots.get_mut(decoder).filter(|_| within == CONTROL) {
            slot.forget_lock();
        }
        (self.dword(offset), effect)
    }

    /// The dword at an offset as it is; reserved ones are 0.
    pub fn dword(&self, offset: u16) -> u32 {
        if offset == Capability::SPEC.offset {
            return self.capability.raw();
        }
        if offset == GlobalControl::SPEC.offset {
            return self.global;
        }
        let Some((decoder, within)) = self.locate(offset) else { return 0 };
        let slot = self.slots.get(decoder);
        let dwords = slot.map(|slot| slot.image.to_dwords()).unwrap_or_default();
        dwords.get(usize::from(within / 4)).copied().unwrap_or(0)
    }

    /// Whether no read changes anything, however often and whenever it comes.
    pub fn is_steady(&self) -> bool {
        self.slots.iter().all(|slot| {
            slot.time == CommitTime::AtOnce && slot.pending.is_none() && slot.lock_lasts.is_none()
        })
    }

    /// Writes the dword at an offset; reserved and read-only bits are lost.
    pub fn write(&mut self, offset: u16, value: u32, now: u64) -> Effect {
        if offset == GlobalControl::SPEC.offset {
            let old = self.global;
            let spec = GlobalControl::SPEC;
            self.global = spec.write(self.component, self.features, false, old, value);
            self.global &= !self.global_stuck;
            return if self.global == old { Effect::None } else { Effect::Remap };
        }
        let Some((decoder, within)) = self.locate(offset) else { return Effect::None };
        let settled = self.advance(decoder, now, false);
        let mut written = self.write_decoder(decoder, within, value, now);
        for &Coupling { mask, into, .. } in self.couplings.iter().filter(|c| c.written == offset) {
            let Some(slot) = self.slots.get_mut(usize::from(into)) else { continue };
            let mut dwords = slot.image.to_dwords();
            if let Some(dword) = dwords.get_mut(usize::from(within / 4)) {
                *dword = *dword & !mask | value & mask;
            }
            slot.image = DecoderImage::from_dwords(dwords);
            written = Effect::Remap;
        }
        if written == Effect::None { settled } else { written }
    }

    fn write_decoder(&mut self, decoder: usize, within: u16, value: u32, now: u64) -> Effect {
        let Some(spec) = DECODER_SPECS.iter().find(|spec| spec.offset == within) else {
            return Effect::None;
        };
        let Some(slot) = self.slots.get(decoder) else { return Effect::None };
        let (before, pending) = (slot.image, slot.pending.is_some());
        let leaks = slot.leaks.get(usize::from(within / 4)).copied().unwrap_or(0);
        let mut dwords = before.to_dwords();
        let Some(cell) = dwords.get_mut(usize::from(within / 4)) else { return Effect::None };
        let old = *cell;
        let mut new = self.stored(spec, (before.control().locked(), leaks), old, value);
        let withdraws = within == CONTROL && !Control::from_raw(new).commit();
        let starts = within == CONTROL && !withdraws && !before.control().commit();

        if pending {
            self.misuse.written_during_commit += 1;
            if !withdraws {
                // Nothing may slip in between the check and its result.
                return Effect::None;
            }
        } else if before.control().committed() && new != old && !withdraws {
            self.misuse.changed_while_committed += 1;
        }
        if withdraws {
            let status = Control::new().with_committed(true).with_error_not_committed(true);
            new &= !status.raw();
        }
        *cell = new;
        if let Some(slot) = self.slots.get_mut(decoder) {
            slot.store(DecoderImage::from_dwords(dwords));
            if withdraws {
                (slot.pending, slot.refusal) = (None, None);
            }
        }
        if starts {
            self.start_commit(decoder, now);
        }
        let after = self.slots.get(decoder).map_or(before, |slot| slot.image);
        let in_use = before.control().committed() || after.control().committed();
        if in_use && before != after { Effect::Remap } else { Effect::None }
    }

    /// What a dword holds after a write, by access class, lock and what is hardwired.
    fn stored(&self, spec: &Spec, (locked, leaks): (bool, u32), old: u32, value: u32) -> u32 {
        let write = || spec.write(self.component, self.features, false, old, value);
        // Of a locked decoder nothing changes, what a leak has left in reserved bits no more than the rest.
        let held = if locked { old } else { write() };
        let stored = held & !leaks | write() & leaks;
        let device_only = self.capability.coherency_models() == DEVICE_COHERENT_ONLY;
        if spec.offset == CONTROL && device_only {
            // A device without host-only coherency has no such bit to set.
            return Control::from_raw(stored).with_host_only(false).raw();
        }
        stored
    }

    fn start_commit(&mut self, decoder: usize, now: u64) {
        let verdict = self.judge(decoder);
        let Some(slot) = self.slots.get_mut(decoder) else { return };
        let verdict = if slot.always_refused { Err(Refusal::Fault) } else { verdict };
        let ends = match slot.time {
            CommitTime::AtOnce | CommitTime::Polls(0) => Ends::At(now),
            CommitTime::Polls(polls) => Ends::Polls(polls),
            CommitTime::Microseconds(time) => Ends::At(now.saturating_add(time)),
            CommitTime::Never => Ends::Never,
        };
        slot.pending = Some(Pending { verdict, ends });
        let _ = self.advance(decoder, now, false);
    }

    /// Ends a commit whose time has come.
    fn advance(&mut self, decoder: usize, now: u64, polled: bool) -> Effect {
        let Some(slot) = self.slots.get_mut(decoder) else { return Effect::None };
        let Some(pending) = &mut slot.pending else { return Effect::None };
        match &mut pending.ends {
            Ends::Polls(0) if polled => {}
            Ends::Polls(left) => {
                *left -= u32::from(polled);
                return Effect::None;
            }
            Ends::At(time) if now >= *time => {}
            Ends::At(_) | Ends::Never => return Effect::None,
        }
        let verdict = pending.verdict;
        (slot.pending, slot.reads_committed) = (None, 0);
        slot.refusal = verdict.err();
        let control = slot
            .image
            .control()
            .with_committed(verdict.is_ok())
            .with_error_not_committed(verdict.is_err());
        slot.store(slot.image.with_control(control));
        if verdict.is_ok() { Effect::Remap } else { Effect::None }
    }

    /// The checks at the 0 to 1 write of Commit.
    fn judge(&self, decoder: usize) -> Result<(), Refusal> {
        let Some(slot) = self.slots.get(decoder) else { return Err(Refusal::Encoding) };
        if self.judgement == Judgement::Lenient {
            return Ok(());
        }
        let (image, control) = (slot.image, slot.image.control());
        if !self.can_interleave(control) {
            return Err(Refusal::Encoding);
        }
        let host_only_device = self.capability.coherency_models() == HOST_ONLY;
        if control.host_only() && control.back_invalidate()
            || !control.host_only() && host_only_device
        {
            return Err(Refusal::Coherency);
        }
        // What follows has to be checked only for a decoder that asks to be locked.
        if !control.lock_on_commit() {
            return Ok(());
        }
        let previous = decoder.checked_sub(1).and_then(|index| self.slots.get(index));
        if previous.is_some_and(|previous| !previous.image.control().committed()) {
            return Err(Refusal::PreviousNotCommitted);
        }
        if image.base().checked_add(image.size()).is_none() {
            return Err(Refusal::Wraps);
        }
        if let Some(previous) = previous.map(|previous| previous.image) {
            let end = previous.base().checked_add(previous.size());
            if end.is_none_or(|end| image.base() < end) {
                return Err(Refusal::BelowPrevious);
            }
        }
        if !self.component.routes() {
            let thirds = control.ways() >= 8;
            if thirds && !image.size().is_multiple_of(3 * cxl_regs::DECODER_UNIT) {
                return Err(Refusal::NotDivisibleByThree);
            }
            return Ok(());
        }
        let targets = image.targets();
        let used = targets.iter().take(1 << control.ways()).enumerate();
        for (way, port) in used {
            if targets.iter().take(way).any(|earlier| earlier == port) {
                return Err(Refusal::DuplicateTarget);
            }
        }
        Ok(())
    }

    /// Whether the component can do the interleave that IG and IW ask for.
    fn can_interleave(&self, control: Control) -> bool {
        let capability = self.capability;
        let device = !self.component.routes();
        let (possible, selector_bits) = match control.ways() {
            code @ 0..=3 => (device || 1 << code <= capability.target_count(), u32::from(code)),
            4 => (device && capability.ways_16(), 4),
            code @ 8..=10 => (device && capability.ways_3_6_12(), u32::from(code) - 8),
            _ => return false,
        };
        let first = 8 + u32::from(control.granularity());
        let selectors = first..first + selector_bits;
        possible
            && control.granularity() <= 6
            && selectors.into_iter().all(|bit| match bit {
                8..=11 => capability.interleave_11_8(),
                12..=14 => capability.interleave_14_12(),
                _ => false,
            })
    }

    /// Puts back to defaults what this reset reaches.
    pub fn reset(&mut self, reset: Reset) {
        if reset == Reset::Flr {
            // Function Level Reset stays within CXL.io.
            return;
        }
        for slot in self.slots.iter_mut().filter(|slot| reset.conventional() || !slot.frozen()) {
            (slot.image, slot.astray) = (slot.preset, None);
            (slot.pending, slot.refusal) = (None, None);
        }
        self.global = self.global_preset;
    }

    /// The first committed decoder that claims an address, and how far the address lies in it.
    fn claim(&self, hpa: u64) -> Option<(usize, DecoderImage, u64)> {
        self.decoding().enumerate().find_map(|(index, image)| {
            let offset = hpa.checked_sub(image.base())?;
            let inside = image.control().committed() && offset < image.size();
            inside.then_some((index, image, offset))
        })
    }

    /// The decoders by which addresses are decoded.
    fn decoding(&self) -> impl Iterator<Item = DecoderImage> {
        self.slots.iter().map(|slot| slot.astray.unwrap_or(slot.image))
    }

    /// In a bridge or upstream port: the number of the port that an address is sent to.
    pub fn route(&self, hpa: u64) -> Option<u8> {
        let (_, image, _) = self.claim(hpa)?;
        let way = hpa / granule(image.control())? % ways(image.control())?;
        image.targets().get(usize::try_from(way).ok()?).copied()
    }

    /// In a device: the device address behind a host address. HDM Decoder Enable is the caller's.
    pub fn translate(&self, hpa: u64) -> Option<u64> {
        let (index, image, offset) = self.claim(hpa)?;
        let mut dpa = image.skip();
        for below in self.decoding().take(index) {
            if below.control().committed() && below.size() != 0 {
                let share = below.size() / ways(below.control())?;
                dpa = dpa.checked_add(below.skip())?.checked_add(share)?;
            }
        }
        let granule = granule(image.control())?;
        let round = granule * ways(image.control())?;
        dpa.checked_add(offset / round * granule + offset % granule)
    }
}

/// Supported Coherency Models: the type bit must be 0.
const DEVICE_COHERENT_ONLY: u8 = 1;
/// Supported Coherency Models: the type bit must be 1.
const HOST_ONLY: u8 = 2;

/// Members of the set; `None` for a reserved code, which only a lenient block lets commit.
fn ways(control: Control) -> Option<u64> {
    match control.ways() {
        code @ 0..=4 => Some(1 << code),
        code @ 8..=10 => Some(3 << (code - 8)),
        _ => None,
    }
}

/// Bytes of a granule; `None` for a reserved code.
fn granule(control: Control) -> Option<u64> {
    (control.granularity() <= 6).then(|| 256 << control.granularity())
}
