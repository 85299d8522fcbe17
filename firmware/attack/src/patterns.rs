//! Stores of any width and any value at what locks freeze.
//!
//! A bit at a time is not what an attacker is bound to: hardware may compare a lock only for
//! dwords, or only in one half of a register, or decode what it does not store.
//!
//! **Invariant**: outside the frozen bits nothing is written but what is there, and 0 to whatever
//! a 1 would clear or start; the last value of a dword differs from its own in every frozen bit, so
//! that where addresses lead afterwards shows a write that no register does; then its own is
//! written by each width.

use cxl_firmware::DecoderRegisters;
use cxl_firmware::config::acted_on_at;
use cxl_firmware::topology::{Hdm, NodeId};
use cxl_regs::access::{Register, Spec};
use cxl_regs::dvsec::device::{self, DeviceDvsec, RANGE_STRIDE};
use cxl_regs::hdm::{Control, DECODER_SPECS, DecoderImage};
use cxl_regs::mmio::{Block, Clock};
use heapless::Vec;

use super::{Attacker, Event, Stores, Witness, decoders};

/// What CONFIG_LOCK freezes of the Device DVSEC (CXL r3.1 section 8.1.3): registers, where they are,
/// and their bits of that dword.
pub(crate) const CONFIG: [(Spec, u16, u32); 6] = [
    (device::Control::SPEC, device::Control::SPEC.offset, 0xFFFF),
    (device::Lock::SPEC, device::Lock::SPEC.offset, 0xFFFF),
    (device::RangeBaseHigh::SPEC, device::RangeBaseHigh::SPEC.offset, u32::MAX),
    (device::RangeBaseLow::SPEC, device::RangeBaseLow::SPEC.offset, u32::MAX),
    (device::RangeBaseHigh::SPEC, device::RangeBaseHigh::SPEC.offset + RANGE_STRIDE, u32::MAX),
    (device::RangeBaseLow::SPEC, device::RangeBaseLow::SPEC.offset + RANGE_STRIDE, u32::MAX),
];

/// How much is tried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    /// All-ones, and every bit turned round.
    Touch,
    /// A store to each byte, half and pair of it as well.
    Brief,
    /// Whole values, each field turned round, each width at each place.
    Short,
    /// Each other value of each field as well.
    Full,
}

/// What a lock freezes of one decoder or one device, and what it held when it was looked at.
#[derive(Clone, Copy)]
pub(crate) struct Locked {
    node: NodeId,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Decoder {
        hdm: Hdm,
        registers: DecoderRegisters,
        image: DecoderImage,
    },
    /// Each dword, with those below and above it.
    Config {
        dvsec: Block,
        own: [[u32; 3]; CONFIG.len()],
    },
}

/// Locks on a path that are known at once: those of a bridge with all its decoders, and of what can
/// be below it with a decoder or two. What is more is tried when its own turn comes.
pub(crate) type Known = Vec<Locked, 128>;

/// A dword that a lock freezes.
#[derive(Clone, Copy)]
struct Frozen {
    spec: Spec,
    address: u64,
    /// The bits that are frozen.
    mask: u32,
    /// What it holds.
    own: u32,
    /// What the dwords below and above it hold, and which of their bits are frozen too.
    beside: [(u32, u32); 2],
}

impl<H: Stores + Witness, C: Clock> Attacker<'_, H, C> {
    /// Looks at what is locked in some components.
    pub(crate) fn learn(&mut self, wanted: impl Fn(NodeId) -> bool) {
        self.known.clear();
        for (node, found) in self.tree.iter().filter(|(id, _)| wanted(*id)) {
            if let Some(hdm) = found.hdm
                && self.hw.read(hdm.block.0) == hdm.capability.into_bits()
            {
                for registers in decoders(hdm) {
                    if registers.read_control(self.hw).locked() {
                        let image = registers.read(self.hw);
                        let what = What::Decoder { hdm, registers, image };
                        let _ = self.known.push(Locked { node, what });
                    }
                }
            }
            let Some(device) = found.device() else { continue };
            let dvsec = device.dvsec;
            let raw = self.hw.read(dvsec.address::<device::Lock>());
            if raw != u32::MAX && device::Lock::from_raw(raw).config_lock() {
                let own = CONFIG.map(|(_, offset, _)| {
                    let around = [offset, offset.wrapping_sub(4), offset.wrapping_add(4)];
                    around.map(|offset| self.config_dword(dvsec, offset))
                });
                let what = What::Config { dvsec, own };
                let _ = self.known.push(Locked { node, what });
            }
        }
    }

    /// A dword of the Device DVSEC, with 0 for what a 1 would clear or start.
    fn config_dword(&mut self, dvsec: Block, offset: u16) -> u32 {
        let dword = self.hw.read(dvsec.0.wrapping_add(offset.into()));
        dword & !acted_on_at(DeviceDvsec::REGISTERS, offset)
    }

    /// What can be tried in the state that a component is in, and its own values after it.
    pub(crate) fn strike_here(&mut self, id: NodeId, depth: Depth) {
        if !self.values {
            return;
        }
        self.learn(|node| node == id);
        self.strike_known(depth);
    }

    /// The same of what is known.
    pub(crate) fn strike_known(&mut self, depth: Depth) {
        self.each_known(|attacker, locked| attacker.strike(locked, depth, 0));
        self.each_known(|attacker, locked| attacker.restore_locked(locked, 0));
    }

    /// What is known, one by one.
    pub(crate) fn each_known(&mut self, mut each: impl FnMut(&mut Self, Locked)) {
        let mut index = 0;
        while let Some(&locked) = self.known.get(index) {
            if self.hw.enough() {
                return;
            }
            each(self, locked);
            index += 1;
        }
    }

    /// Tries what a lock freezes, in registers that are `moved` on.
    pub(crate) fn strike(&mut self, locked: Locked, depth: Depth, moved: u64) {
        if !self.answers(locked, moved) {
            return;
        }
        let first = self.frozen(locked, moved, 0).map_or(0, |frozen| frozen.address);
        if depth < Depth::Full {
            self.batch(first, |attacker| {
                // Dwords first: what gives way to one is not told by a store beside it.
                let mut nth = 0;
                while let Some(frozen) = attacker.frozen(locked, moved, nth) {
                    attacker.strike_values(frozen, depth);
                    nth += 1;
                }
                nth = 0;
                while let Some(frozen) = attacker.frozen(locked, moved, nth) {
                    attacker.strike_widths(frozen, depth);
                    nth += 1;
                }
                // Last of all: a store beside a dword would give it another value again.
                nth = 0;
                while let Some(frozen) = attacker.frozen(locked, moved, nth) {
                    attacker.turn_round(frozen);
                    nth += 1;
                }
            });
            return;
        }
        let mut nth = 0;
        while let Some(frozen) = self.frozen(locked, moved, nth) {
            self.batch(frozen.address, |attacker| {
                attacker.strike_values(frozen, depth);
                attacker.strike_widths(frozen, depth);
                attacker.turn_round(frozen);
                attacker.mend(locked, frozen);
            });
            // Twice the same, as the second may be the one that counts.
            for value in [0, u32::MAX, u32::MAX, !frozen.own, !frozen.own, frozen.own] {
                self.batch(frozen.address, |attacker| {
                    let value = frozen.own & !frozen.mask | value & frozen.mask;
                    attacker.hw.write(frozen.address, value);
                    attacker.mend(locked, frozen);
                });
            }
            self.batch(frozen.address, |attacker| attacker.store_own(frozen));
            nth += 1;
        }
    }

    /// Gives what a lock freezes its own values, once it has been seen where addresses lead.
    pub(crate) fn restore_locked(&mut self, locked: Locked, moved: u64) {
        if !self.answers(locked, moved) {
            return;
        }
        let first = self.frozen(locked, moved, 0).map_or(0, |frozen| frozen.address);
        self.batch(first, |attacker| {
            let mut nth = 0;
            while let Some(frozen) = attacker.frozen(locked, moved, nth) {
                if frozen.spec.offset != Control::SPEC.offset || !locked.is_decoder() {
                    attacker.hw.write(frozen.address, frozen.own);
                }
                nth += 1;
            }
            if let What::Decoder { registers, image, .. } = locked.what {
                let control = registers.control_address().wrapping_add(moved);
                attacker.hw.write(control, image.control);
                if attacker.hw.read(control) != image.control {
                    attacker.settle(control);
                }
            }
        });
    }

    /// Where the locked ranges of a component begin and end, of what is known.
    pub(crate) fn locked_span(&self, id: NodeId) -> Option<(u64, u64)> {
        let ranges = self.known.iter().filter_map(|locked| match locked.what {
            What::Decoder { image, .. } if locked.node == id && image.size() != 0 => {
                Some((image.base(), image.base().saturating_add(image.size())))
            }
            _ => None,
        });
        ranges.reduce(|(base, end), (other, last)| (base.min(other), end.max(last)))
    }

    /// Announces stores and their end.
    fn batch(&mut self, address: u64, stores: impl FnOnce(&mut Self)) {
        self.hw.hear(Event::Patterns { address });
        stores(self);
        self.hw.hear(Event::Swept);
    }

    /// Whether registers answer where they are looked for.
    fn answers(&mut self, locked: Locked, moved: u64) -> bool {
        match locked.what {
            What::Decoder { hdm, .. } => {
                self.hw.read(hdm.block.0.wrapping_add(moved)) == hdm.capability.into_bits()
            }
            What::Config { dvsec, .. } => self.hw.read(dvsec.0) != u32::MAX,
        }
    }

    /// The dwords of it in order; `None` behind the last.
    fn frozen(&self, locked: Locked, moved: u64, nth: usize) -> Option<Frozen> {
        match locked.what {
            What::Decoder { registers, image, .. } => {
                let dwords = image.to_dwords();
                let (spec, own) = (*DECODER_SPECS.get(nth)?, *dwords.get(nth)?);
                let below = nth.checked_sub(1).and_then(|below| dwords.get(below));
                let above = dwords.get(nth + 1);
                let last = DECODER_SPECS.len() - 1;
                let beside = [(below, nth > 0), (above, nth < last)].map(|(dword, frozen)| {
                    (dword.copied().unwrap_or(0), if frozen { u32::MAX } else { 0 })
                });
                let first =
                    registers.control_address().wrapping_sub(u64::from(Control::SPEC.offset));
                let address = first.wrapping_add(u64::from(spec.offset)).wrapping_add(moved);
                Some(Frozen { spec, address, mask: u32::MAX, own, beside })
            }
            What::Config { dvsec, own } => {
                let &(spec, offset, mask) = CONFIG.get(nth)?;
                let [own, below, above] = *own.get(nth)?;
                let beside = [(below, 0), (above, 0)];
                let address = dvsec.0.wrapping_add(u64::from(offset));
                Some(Frozen { spec, address, mask, own, beside })
            }
        }
    }

    /// Every value that the depth asks for.
    fn strike_values(&mut self, frozen: Frozen, depth: Depth) {
        let Frozen { spec, mask, own, .. } = frozen;
        let dword = |attacker: &mut Self, value: u32| {
            attacker.hw.write(frozen.address, own & !mask | value & mask);
        };
        if depth > Depth::Brief {
            for field in spec.fields {
                let (bits, value) = (field.mask(), field.get(own));
                let with = |value: u32| own & !bits | value << field.offset & bits;
                dword(self, own ^ bits);
                let most = u32::MAX >> (32 - u32::from(field.bits.clamp(1, 32)));
                // The next units up and down; of a code, all others there are.
                let next = [value.wrapping_add(1), value.wrapping_sub(1)];
                let codes = if depth == Depth::Full && field.bits <= 4 { most } else { 0 };
                for other in next.into_iter().chain(1..=codes) {
                    if other & most != value {
                        dword(self, with(other & most));
                    }
                }
            }
            dword(self, 0x5A5A_5A5A);
            dword(self, 0xA5A5_A5A5);
            dword(self, 0);
        }
        dword(self, u32::MAX);
    }

    /// The last value: every bit turned round. Less of a range shows in where addresses lead, and
    /// more of it need not.
    fn turn_round(&mut self, Frozen { spec, address, mask, own, .. }: Frozen) {
        let shrinks = spec.name.contains("Size") && own != 0;
        let value = if shrinks { 0 } else { !own };
        self.hw.write(address, own & !mask | value & mask);
    }

    /// The stores that are no aligned dword.
    fn strike_widths(&mut self, frozen: Frozen, depth: Depth) {
        if depth == Depth::Touch || !self.widths {
            return;
        }
        let brief: [(u8, i8); 7] = [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 2), (8, 0)];
        let every: [(u8, i8); 14] = [
            (1, 0),
            (1, 1),
            (1, 2),
            (1, 3),
            (2, 0),
            (2, 2),
            (2, 1),
            (2, 3),
            (4, 1),
            (4, 2),
            (4, 3),
            (8, 0),
            (8, -4),
            (8, -3),
        ];
        let places = if depth == Depth::Brief { &brief[..] } else { &every[..] };
        let aligned = frozen.address & 7 == 0;
        for &(bytes, from) in places {
            // A pair is 8 bytes at a multiple of 8, and at one of 4 that is none.
            let from = match (bytes, from) {
                (8, 0 | -4) if aligned == (from == 0) => 0,
                (8, 0 | -4) => -4,
                (_, from) => from,
            };
            let first = frozen.address.wrapping_add_signed(from.into());
            let (own, mask, beside) = frozen.around(first, bytes);
            if mask == 0 {
                continue;
            }
            // What is frozen beside it is turned round in any case.
            let own = own ^ beside;
            for value in [own ^ mask, own | mask, own & !mask] {
                self.widths &= self.hw.store(first, bytes, value);
                if depth == Depth::Brief {
                    break;
                }
            }
        }
    }

    /// A dword's own value, by each width.
    fn store_own(&mut self, frozen: Frozen) {
        self.hw.write(frozen.address, frozen.own);
        if !self.widths {
            return;
        }
        for (bytes, from) in [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 2)] {
            let first = frozen.address.wrapping_add(from);
            let (own, ..) = frozen.around(first, bytes);
            self.widths &= self.hw.store(first, bytes, own);
        }
        let first = frozen.address & !7;
        let (own, ..) = frozen.around(first, 8);
        self.widths &= self.hw.store(first, 8, own);
    }

    /// Brings back what did not keep its registers, by whatever width it takes.
    fn mend(&mut self, locked: Locked, frozen: Frozen) {
        let changed = |attacker: &mut Self| match locked.what {
            What::Decoder { registers, image, .. } => registers.read(attacker.hw) != image,
            What::Config { .. } => {
                (attacker.hw.read(frozen.address) ^ frozen.own) & frozen.mask != 0
            }
        };
        if !changed(self) {
            return;
        }
        if let What::Decoder { registers, image, .. } = locked.what {
            registers.write_control(self.hw, image.control().with_commit(false));
            registers.write(self.hw, image);
            self.settle(registers.control_address());
        }
        if changed(self) {
            self.store_own(frozen);
        }
    }
}

impl Locked {
    /// Whose it is.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    fn is_decoder(&self) -> bool {
        matches!(self.what, What::Decoder { .. })
    }
}

impl Frozen {
    /// What some bytes hold that overlap the dword, which of their bits are its own and frozen, and
    /// which are frozen beside it.
    fn around(&self, first: u64, bytes: u8) -> (u64, u64, u64) {
        let [(below, under), (above, over)] = self.beside;
        let all = u128::from(below) | u128::from(self.own) << 32 | u128::from(above) << 64;
        let frozen = u128::from(self.mask) << 32;
        let beside = u128::from(under) | u128::from(over) << 64;
        // In bits from the dword below.
        let shift = 8 * (first.wrapping_sub(self.address).wrapping_add(4) & 7) as u32;
        let most = u64::MAX >> (64 - 8 * u32::from(bytes.clamp(1, 8)));
        [all, frozen, beside].map(|bits| (bits >> shift) as u64 & most).into()
    }
}
