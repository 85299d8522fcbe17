//! A witness for machines that nobody sees from outside: it reads what locks freeze after every
//! write of the attack, by the same registers that the attacker has.
//!
//! It knows less than a host does. A write that takes registers out of reach (a BAR, a bus number,
//! a reset of CXL.io) is judged once it has been put back, and where addresses lead is followed by
//! marks in memory alone, at both ends of a range and where its granules meet.
//!
//! **Invariant**: what is watched was read from a decoder that is committed and locked, or from a
//! DVSEC with CONFIG_LOCK, and is compared in every bit; nothing is taken off the list but what a
//! conventional reset has opened.

use core::fmt::{self, Display, Formatter};

use cxl_regs::access::{Register, Spec};
use cxl_regs::config::Command;
use cxl_regs::dvsec::device::{self, DeviceDvsec};
use cxl_regs::hdm::{Control, DECODER_SPECS, MAX_DECODERS};
use cxl_regs::{DECODER_UNIT, Hpa};
use heapless::Vec;

use super::patterns::CONFIG;
use super::{Event, Mode, Skipped, State, Stores, Trigger, Witness};
use cxl_firmware::DecoderRegisters;
use cxl_firmware::committed::Place;
use cxl_firmware::config::function_base;
use cxl_firmware::platform::Ecam;
use cxl_firmware::topology::{Node, NodeId, NodeKind, Path, Tree};
use cxl_regs::mmio::{Block, Mmio};

/// A dword that a lock freezes.
#[derive(Clone, Copy, Debug)]
struct Dword {
    node: NodeId,
    /// The decoder it belongs to; `None`: the Device DVSEC.
    decoder: Option<u8>,
    name: &'static str,
    address: u64,
    /// The bits that are frozen, and what they were when the lock was seen first.
    mask: u32,
    value: u32,
    /// Those that were seen with another value.
    changed: u32,
    /// A conventional reset has opened the lock.
    opened: bool,
}

/// A dword of memory behind a locked range.
#[derive(Clone, Copy, Debug)]
struct Mark {
    address: u64,
    /// What it holds while the attack goes on.
    value: u32,
    /// What it held before.
    saved: u32,
    /// It may be written to.
    ours: bool,
    /// It is looked for.
    live: bool,
}

/// Where ranges end that have marks: what any 64-bit processor reaches.
const ADDRESSABLE: u64 = 1 << 47;
/// What marks are made of.
const MARK: u32 = 0x4D41_524B;
/// Marks that are kept: both ends of eight ranges, and two of their granules.
const MARKS: usize = 32;

/// What locks freeze, and what became of it. `N` dwords: seven for each locked decoder, six for
/// each device with CONFIG_LOCK. 40 bytes each.
#[derive(Clone, Debug, Default)]
pub struct Locks<const N: usize> {
    dwords: Vec<Dword, N>,
    /// There was more to watch than fits.
    full: bool,
    /// Writes that tried something.
    tries: u64,
    /// Writes after which a frozen bit had another value.
    breaches: u64,
    /// A Secondary Bus Reset that is masked came through here.
    masked_reset: Option<NodeId>,
    /// For each state and reason: components that did not get there, and the first of them.
    skipped: [[Option<(u16, NodeId)>; Skipped::ALL.len()]; State::ALL.len()],
    /// Dwords that do not read as they did before.
    left: u32,
    /// Not all is compared after every write: see [`Watch::near`].
    near: bool,
    marks: Vec<Mark, MARKS>,
    /// Times that marks were not found where registers say that they are.
    astray: u32,
    /// The mode in which something gave way first, the dword that decides it, and its bits.
    opened: Option<(Mode, u64, u32)>,
}

impl<const N: usize> Locks<N> {
    /// Nothing seen yet.
    pub const fn new() -> Self {
        Self {
            dwords: Vec::new(),
            full: false,
            tries: 0,
            breaches: 0,
            masked_reset: None,
            skipped: [[None; Skipped::ALL.len()]; State::ALL.len()],
            left: 0,
            near: false,
            marks: Vec::new(),
            astray: 0,
            opened: None,
        }
    }

    /// Whether everything that was locked kept its value. True of a machine without locks too: see
    /// [`Self::watched`].
    pub fn held(&self) -> bool {
        self.breaches == 0 && self.masked_reset.is_none() && !self.full && self.astray == 0
    }

    /// Dwords that were watched.
    pub fn watched(&self) -> usize {
        self.dwords.len()
    }

    /// Bits of locked fields, and how many of them were seen to change.
    pub fn bits(&self) -> (u32, u32) {
        self.dwords.iter().fold((0, 0), |(all, changed), dword| {
            (all + dword.mask.count_ones(), changed + dword.changed.count_ones())
        })
    }

    /// The fields that changed: component, decoder (`None`: the Device DVSEC), register, bits.
    pub fn changed(&self) -> impl Iterator<Item = (NodeId, Option<u8>, &'static str, u32)> + '_ {
        let changed = self.dwords.iter().filter(|dword| dword.changed != 0);
        changed.map(|dword| (dword.node, dword.decoder, dword.name, dword.changed))
    }

    /// What came of it, in words.
    pub fn text<'a>(&'a self, tree: Tree<'a>) -> impl Display + 'a {
        Text { locks: self, tree }
    }
}

/// Hardware under attack, with [`Locks`] that look on. What is heard is passed on.
pub struct Watch<'a, H, const N: usize> {
    hw: &'a mut H,
    ecam: &'a [Ecam],
    tree: Tree<'a>,
    locks: &'a mut Locks<N>,
    /// The dword that is swept, and what keeps it as it is.
    sweep: Option<(u64, u32)>,
    trigger: Option<(Trigger, u64)>,
    /// Registers may be out of reach until the attacker sweeps again.
    blind: bool,
    /// Stores of any width come.
    striking: bool,
    mode: (Mode, u64, u32),
    /// A register of the component that is attacked.
    component: u64,
    /// What was locked again is not watched yet.
    relocked: bool,
}

impl<'a, H: Mmio + Witness, const N: usize> Watch<'a, H, N> {
    /// Looks on from now on.
    pub fn new(hw: &'a mut H, ecam: &'a [Ecam], tree: Tree<'a>, locks: &'a mut Locks<N>) -> Self {
        let (sweep, trigger, mode) = (None, None, (Mode::Plain, 0, 0));
        let (blind, striking, component, relocked) = (false, false, 0, false);
        let mut watch = Self {
            hw,
            ecam,
            tree,
            locks,
            sweep,
            trigger,
            blind,
            striking,
            mode,
            component,
            relocked,
        };
        watch.adopt();
        watch.mark();
        watch
    }

    /// Compares only what lies around a store right after it, and all that is watched once the
    /// stores at a dword are over: for hardware that takes long to answer.
    pub fn near(self) -> Self {
        self.locks.near = true;
        self
    }

    /// Adds what is locked and not watched yet.
    fn adopt(&mut self) {
        let tree = self.tree;
        for (id, node) in tree.iter() {
            if let Some(hdm) = node.hdm {
                for index in 0..hdm.decoders.min(MAX_DECODERS as u8) {
                    let registers = DecoderRegisters::new(hdm.block, index);
                    let raw = self.hw.read(registers.control_address());
                    // All-ones is a component that is out of reach.
                    if !Control::from_bits(raw).locked() || raw == u32::MAX {
                        continue;
                    }
                    let first = registers.control_address() - u64::from(Control::SPEC.offset);
                    let dwords = DECODER_SPECS.iter().map(|spec| (*spec, spec.offset, u32::MAX));
                    self.watch(id, Some(index), first, dwords);
                }
            }
            let Some(device) = node.device() else { continue };
            let raw = self.hw.read(device.dvsec.address::<device::Lock>());
            if device::Lock::from_raw(raw).config_lock() && raw != u32::MAX {
                self.watch(id, None, device.dvsec.0, CONFIG.into_iter());
            }
        }
    }

    fn watch(
        &mut self,
        node: NodeId,
        decoder: Option<u8>,
        base: u64,
        dwords: impl Iterator<Item = (Spec, u16, u32)>,
    ) {
        let same = |dword: &Dword| (dword.node, dword.decoder) == (node, decoder);
        if self.locks.dwords.iter().any(|dword| same(dword) && !dword.opened) {
            return;
        }
        for (spec, offset, mask) in dwords {
            let address = base.wrapping_add(u64::from(offset));
            let value = self.hw.read(address) & mask;
            if let Some(again) = self.locks.dwords.iter_mut().find(|d| d.address == address) {
                (again.value, again.opened) = (value, false);
                continue;
            }
            let name = spec.name;
            let dword =
                Dword { node, decoder, name, address, mask, value, changed: 0, opened: false };
            self.locks.full |= self.locks.dwords.push(dword).is_err();
        }
    }

    /// Compares what a store may have changed.
    fn look_at(&mut self, address: u64) {
        if self.locks.near {
            // Eight bytes at any place reach three dwords.
            self.look_where(|at| at.abs_diff(address & !3) <= 8);
        } else {
            self.look();
        }
    }

    /// Compares everything.
    fn look(&mut self) {
        self.look_where(|_| true);
    }

    /// Compares what answers where it was, or where its BAR was moved to.
    fn look_where(&mut self, wanted: impl Fn(u64) -> bool) {
        let mut gave_way = false;
        let moved = self.moved();
        let mut last = None;
        let mut answers = false;
        for dword in self.locks.dwords.iter_mut().filter(|dword| !dword.opened) {
            let place = (dword.node, dword.decoder.is_some());
            let by = moved.filter(|(node, _)| place == (*node, true)).map_or(0, |(_, by)| by);
            let address = dword.address.wrapping_add(by);
            if !wanted(address) {
                continue;
            }
            if last.replace(place) != Some(place) {
                answers = match (self.tree.get(dword.node), dword.decoder) {
                    (Some(Node { hdm: Some(hdm), .. }), Some(_)) => {
                        self.hw.read(hdm.block.0.wrapping_add(by)) == hdm.capability.into_bits()
                    }
                    (Some(node), None) => {
                        node.device().is_some_and(|device| self.hw.read(device.dvsec.0) != u32::MAX)
                    }
                    _ => false,
                };
            }
            if !answers {
                continue;
            }
            let changed = self.hw.read(address) ^ dword.value;
            dword.changed |= changed & dword.mask;
            gave_way |= changed & dword.mask != 0;
        }
        if gave_way {
            self.locks.breaches += 1;
            self.locks.opened.get_or_insert(self.mode);
        }
    }

    /// The component whose registers are where a BAR was moved to, and how far that is.
    fn moved(&self) -> Option<(NodeId, u64)> {
        let (Mode::BarMoved, address, _) = self.mode else { return None };
        let node = self.node_at(self.component)?;
        let hdm = self.tree.get(node)?.hdm?;
        Some((node, address.wrapping_sub(hdm.block.0)))
    }

    /// Marks memory behind locked ranges. What may be persistent is only read.
    fn mark(&mut self) {
        let tree = self.tree;
        for (_, node) in tree.iter() {
            let Some((hdm, device)) = node.hdm.zip(node.device()) else { continue };
            for index in 0..hdm.decoders.min(MAX_DECODERS as u8) {
                let image = DecoderRegisters::new(hdm.block, index).read(self.hw);
                let placed = image.base().saturating_add(image.size()) <= ADDRESSABLE;
                if !image.control().locked() || image.size() < DECODER_UNIT || !placed {
                    continue;
                }
                let granule = 256u64 << image.control().granularity().min(6);
                let end = image.size().saturating_sub(4);
                for offset in [0, granule.saturating_sub(4), granule, end] {
                    self.mark_one(image.base().wrapping_add(offset), device.persistent == 0);
                }
            }
        }
    }

    fn mark_one(&mut self, address: u64, ours: bool) {
        if self.locks.marks.is_full() || self.locks.marks.iter().any(|m| m.address == address) {
            return;
        }
        let saved = self.hw.read(address);
        let value = if ours { MARK ^ address as u32 ^ (address >> 32) as u32 } else { saved };
        if ours {
            self.hw.write(address, value);
        }
        if self.hw.read(address) == value {
            let _ = self.locks.marks.push(Mark { address, value, saved, ours, live: true });
        }
    }

    /// Makes the marks once more that a reset took along.
    fn mark_again(&mut self) {
        for mark in self.locks.marks.iter_mut().filter(|mark| !mark.live) {
            if mark.ours {
                self.hw.write(mark.address, mark.value);
            }
            mark.live = self.hw.read(mark.address) == mark.value;
        }
    }

    /// Looks whether memory is where it was; what is not there is not looked for again.
    fn look_at_memory(&mut self) {
        let mut astray = false;
        for mark in self.locks.marks.iter_mut().filter(|mark| mark.live) {
            mark.live = self.hw.read(mark.address) == mark.value;
            astray |= !mark.live;
        }
        if astray {
            self.locks.astray = self.locks.astray.saturating_add(1);
            self.locks.opened.get_or_insert(self.mode);
        }
    }

    /// Whether other registers may be out of reach while this one is not as it was: all of
    /// configuration space, but for the Device DVSEC.
    fn moves_registers(&self, address: u64) -> bool {
        let mut regions = self.ecam.iter().filter_map(Ecam::span);
        let config = regions.any(|region| region.contains(Hpa(address)));
        let own = |dvsec: Block| address.wrapping_sub(dvsec.0) < u64::from(DeviceDvsec::EXTENT.end);
        config && !self.tree.devices().any(|(_, device)| own(device.dvsec))
    }

    /// The component that has a register at this address.
    fn node_at(&self, address: u64) -> Option<NodeId> {
        let within = |base: u64, size: u64| address.wrapping_sub(base) < size;
        let found = self.tree.iter().find(|(_, node)| {
            let config = node.function.and_then(|function| function_base(self.ecam, function));
            config.is_some_and(|base| within(base.0, 0x1000))
                || node.hdm.is_some_and(|hdm| within(hdm.block.0, 0x1000))
        });
        found.map(|(id, _)| id)
    }

    /// What was started has come to its end.
    fn settled(&mut self, trigger: Trigger, address: u64) {
        match trigger {
            Trigger::WriteBack | Trigger::CxlReset => self.look(),
            // Its BARs are cleared; decoders are looked at once they are back.
            Trigger::Flr => {}
            Trigger::MaskedBusReset | Trigger::BusReset => {
                let Some(port) = self.node_at(address) else { return };
                let tree = self.tree;
                let below =
                    |id: NodeId| id != port && tree.upwards(id).any(|(above, _)| above == port);
                if trigger == Trigger::MaskedBusReset {
                    // A function in reset does not answer, and comes out of it with Command 0.
                    let reset = tree.iter().any(|(id, node)| {
                        let config = node.function.filter(|_| below(id));
                        config.and_then(|f| function_base(self.ecam, f)).is_some_and(|base| {
                            let raw = self.hw.read(base.address::<Command>());
                            raw == u32::MAX || !Command::from_raw(raw).memory_space()
                        })
                    });
                    if reset {
                        self.locks.masked_reset.get_or_insert(port);
                    }
                } else {
                    let dwords = self.locks.dwords.iter_mut();
                    dwords.filter(|dword| below(dword.node)).for_each(|d| d.opened = true);
                    // What is gone with them is not told from what is not.
                    self.locks.marks.iter_mut().for_each(|mark| mark.live = false);
                }
            }
        }
    }

    /// Writes back what is not as it was, decoder by decoder, Control last.
    fn restore(&mut self) {
        for control in [false, true] {
            for dword in &self.locks.dwords {
                let is_control = dword.decoder.is_some() && dword.name == Control::SPEC.name;
                let found = self.hw.read(dword.address);
                if is_control == control && (found ^ dword.value) & dword.mask != 0 {
                    self.hw.write(dword.address, found & !dword.mask | dword.value);
                }
            }
        }
        let left = self
            .locks
            .dwords
            .iter()
            .filter(|dword| (self.hw.read(dword.address) ^ dword.value) & dword.mask != 0);
        self.locks.left = left.count() as u32;
        for mark in self.locks.marks.iter().filter(|mark| mark.live && mark.ours) {
            if mark.value != mark.saved && self.hw.read(mark.address) == mark.value {
                self.hw.write(mark.address, mark.saved);
            }
        }
    }
}

impl<H: Stores + Witness, const N: usize> Stores for Watch<'_, H, N> {
    fn store(&mut self, address: u64, bytes: u8, value: u64) -> bool {
        let stored = self.hw.store(address, bytes, value);
        self.locks.tries += u64::from(stored);
        if stored && !self.blind {
            self.look_at(address);
        }
        stored
    }
}

impl<H: Mmio, const N: usize> Mmio for Watch<'_, H, N>
where
    H: Witness,
{
    fn read(&mut self, address: u64) -> u32 {
        self.hw.read(address)
    }

    fn write(&mut self, address: u64, value: u32) {
        self.hw.write(address, value);
        let flipped = self.sweep.is_some_and(|(at, rest)| at == address && value != rest);
        self.locks.tries += u64::from(flipped || self.striking);
        if !(self.blind || flipped && self.moves_registers(address)) {
            self.look_at(address);
        }
    }
}

impl<H: Mmio + Witness, const N: usize> Witness for Watch<'_, H, N> {
    fn enough(&mut self) -> bool {
        self.hw.enough()
    }

    fn hear(&mut self, event: Event) {
        self.hw.hear(event);
        match event {
            Event::Patterns { .. } => {
                self.striking = true;
                if core::mem::take(&mut self.blind) {
                    self.look();
                }
                if core::mem::take(&mut self.relocked) {
                    self.adopt();
                    self.mark_again();
                }
            }
            Event::Mode { mode, address, bits } => {
                let before = core::mem::replace(&mut self.mode, (mode, address, bits));
                self.relocked = mode == Mode::Relocked;
                if mode == Mode::Plain {
                    // Whatever gives way now did so in the mode that is left.
                    let plain = core::mem::replace(&mut self.mode, before);
                    self.look();
                    self.look_at_memory();
                    self.mode = plain;
                }
            }
            Event::Sweep { address, rest } => {
                self.sweep = Some((address, rest));
                if core::mem::take(&mut self.blind) {
                    self.look();
                }
            }
            Event::Swept => {
                self.sweep = None;
                if self.locks.near && !self.blind {
                    self.look();
                }
                if core::mem::take(&mut self.striking) && self.mode.0 == Mode::Plain {
                    self.look_at_memory();
                }
                self.adopt();
            }
            Event::Enter { address, .. } if !self.blind => {
                self.component = address;
                self.adopt();
            }
            Event::PutBack if !self.blind => self.adopt(),
            Event::Trigger { trigger, address } => {
                self.locks.tries += 1;
                self.trigger = Some((trigger, address));
                self.blind = !matches!(trigger, Trigger::WriteBack | Trigger::CxlReset);
            }
            Event::Settled => {
                if let Some((trigger, address)) = self.trigger.take() {
                    self.settled(trigger, address);
                }
            }
            Event::Skip { state, address, reason } => {
                let node = self.node_at(address).unwrap_or(NodeId(0));
                let slot = self
                    .locks
                    .skipped
                    .get_mut(state as usize)
                    .and_then(|reasons| reasons.get_mut(reason as usize));
                if let Some(slot) = slot {
                    let (count, first) = slot.unwrap_or((0, node));
                    *slot = Some((count.saturating_add(1), first));
                }
            }
            Event::Done => self.restore(),
            Event::Enter { address, .. } => self.component = address,
            Event::PutBack => {}
        }
    }
}

struct Text<'a, const N: usize> {
    locks: &'a Locks<N>,
    tree: Tree<'a>,
}

impl<const N: usize> Text<'_, N> {
    fn place(&self, node: NodeId) -> impl Display {
        let what = match self.tree.get(node).map(|node| node.kind) {
            Some(NodeKind::HostBridge { .. }) | None => "",
            Some(NodeKind::RootPort) => " root port",
            Some(NodeKind::UpstreamPort) => " upstream port",
            Some(NodeKind::DownstreamPort) => " downstream port",
            Some(NodeKind::Device(_)) => " device",
        };
        Named { path: self.tree.path(node), what }
    }
}

/// A component by place and kind.
struct Named {
    path: Path,
    what: &'static str,
}

impl Display for Named {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { path, what } = self;
        write!(f, "{path}{what}")
    }
}

impl<const N: usize> Display for Text<'_, N> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Locks { dwords, tries, breaches, .. } = self.locks;
        let watched = dwords.len();
        let when = match self.locks.near {
            false => "after every write",
            true => "after the writes to each register, those around it after every one",
        };
        writeln!(f, "{tries} tries, {watched} locked dwords compared {when}")?;
        let (all, changed) = self.locks.bits();
        match (watched, self.locks.held()) {
            (0, _) => writeln!(f, "integrity: nothing is locked here")?,
            (_, true) => writeln!(f, "integrity: holds, no locked bit of {all} ever changed")?,
            (_, false) => writeln!(
                f,
                "integrity: BROKEN, the machine does not enforce locks: {changed} of {all} locked \
                 bits changed, by {breaches} writes"
            )?,
        }
        if self.locks.full {
            writeln!(f, "  more than {N} dwords are locked: the rest was not watched")?;
        }
        if let Some(port) = self.locks.masked_reset {
            writeln!(f, "  {}: Secondary Bus Reset comes through though masked", self.place(port))?;
        }
        if self.locks.astray != 0 {
            let astray = self.locks.astray;
            writeln!(f, "  memory behind locked ranges was not where it had been, {astray} times")?;
        }
        if let Some((mode, address, bits)) = self.locks.opened.filter(|(m, ..)| *m != Mode::Plain) {
            write!(f, "  first {}", mode_name(mode))?;
            if bits != 0 {
                write!(f, ": bits {bits:#x} of {address:#x}")?;
            }
            writeln!(f)?;
        }
        let mut of = None;
        for dword in dwords.iter().filter(|dword| dword.changed != 0) {
            if of.replace((dword.node, dword.decoder)) != Some((dword.node, dword.decoder)) {
                let place = Place::of(self.tree, dword.node, dword.decoder.unwrap_or(0));
                match dword.decoder {
                    Some(_) => writeln!(f, "  {place}")?,
                    None => writeln!(f, "  {}, CONFIG_LOCK", self.place(dword.node))?,
                }
            }
            let (changed, all) = (dword.changed.count_ones(), dword.mask.count_ones());
            writeln!(f, "    {}: {changed} of {all} bits ({:#010x})", dword.name, dword.changed)?;
        }
        match self.locks.left {
            0 => writeln!(f, "  afterwards all of it reads as before")?,
            left => {
                writeln!(f, "  afterwards {left} dwords read otherwise and cannot be put back")?
            }
        }
        for (state, reasons) in State::ALL.into_iter().zip(&self.locks.skipped) {
            for (reason, skipped) in Skipped::ALL.into_iter().zip(reasons) {
                // A component without decoders has no such state to be attacked in.
                let skipped = skipped.filter(|_| reason != Skipped::NoDecoders);
                let Some((count, first)) = skipped else { continue };
                let (state, reason, first) = (name(state), why(reason), self.place(first));
                write!(f, "  not tried: {state}: {reason} ({first}")?;
                if count > 1 {
                    write!(f, " and {} more", count - 1)?;
                }
                writeln!(f, ")")?;
            }
        }
        Ok(())
    }
}

fn name(state: State) -> &'static str {
    match state {
        State::NeverCommitted => "a spare decoder that was never committed",
        State::LockSet => "a spare decoder with Lock On Commit set",
        State::CommitRefused => "a spare decoder whose commit was refused",
        State::CommittedUnlocked => "a committed decoder without lock",
        State::CommittedLocked => "a committed and locked decoder",
        State::AfterCxlReset => "after CXL Reset",
        State::AfterFlr => "after Function Level Reset",
        State::AfterConventionalReset => "after a conventional reset",
    }
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Plain => "as firmware left it",
        Mode::Field => "while a field was turned round",
        Mode::BarMoved => "while a BAR was moved",
        Mode::Committing => "while another decoder was being committed",
        Mode::Overlapped => "while another decoder was committed over the range",
        Mode::Vendor => "after writes to vendor registers",
        Mode::Relocked => "once locked again after a conventional reset",
        Mode::Named => "while a register was as a named mode has it",
    }
}

fn why(reason: Skipped) -> &'static str {
    match reason {
        Skipped::NoDecoders => "there are no decoders",
        Skipped::NoSpare => "no decoder is spare",
        Skipped::NotRefused => "a commit that has to be refused is accepted",
        Skipped::NotCommitted => "a spare decoder does not commit",
        Skipped::NothingLocked => "no decoder is locked",
        Skipped::NoSuchReset => "the component has no such reset",
        Skipped::OutOfReach => "configuration space is out of reach",
    }
}
