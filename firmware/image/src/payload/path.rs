//! The decoders on the way to one region, taken back and committed again.
//!
//! **Invariant**: a region is opened from the devices up and closed from the bridge down, so that
//! no decoder ever leads to one that is not there.

use cxl_firmware::DecoderRegisters;
use cxl_regs::hdm::{Control, DecoderImage};
use cxl_regs::{Granularity, Hpa, Interleave, Span, Ways};
use heapless::Vec;

use crate::Room;
use crate::hw::Hardware;

/// Reads of Control before a commit counts as failed.
const POLLS: u32 = 10_000;

/// A region with every decoder that leads to it.
pub(super) struct RegionPath {
    /// Where it is now.
    pub(super) span: Span,
    /// Base of the window it lies in.
    pub(super) window: Hpa,
    /// The bridge's first, the devices' last, with what they held.
    decoders: Vec<(DecoderRegisters, DecoderImage), 64>,
}

impl RegionPath {
    /// The region with the highest address: in no component a committed decoder follows its own,
    /// which would have to be taken back first.
    pub(super) fn last(room: &Room) -> Option<Self> {
        let region = room.committed.regions.last()?;
        let mut decoders = Vec::new();
        for entry in &room.committed.decoders {
            if entry.decoder.is_some_and(|decoder| decoder.span.contains_span(region.span)) {
                let hdm = room.topology.tree().get(entry.node)?.hdm?;
                let registers = DecoderRegisters::new(hdm.block, entry.index);
                decoders.push((registers, entry.image)).ok()?;
            }
        }
        Some(Self { span: region.span, window: region.window, decoders })
    }

    /// Ways and granularity, if they are the same on every level that interleaves: a bridge below a
    /// window of one way, and the devices.
    pub(super) fn one_level(&self) -> Option<Interleave> {
        let set = |image: &DecoderImage| {
            let ways = Ways::decode(image.control().ways()).ok()?;
            let granularity = Granularity::decode(image.control().granularity()).ok()?;
            Some(Interleave::new(ways, granularity))
        };
        let mut sets = self.decoders.iter().map(|(_, image)| set(image));
        let first = sets.next()??;
        (first.ways != Ways::One && sets.all(|set| set == Some(first))).then_some(first)
    }

    /// Another granularity on all levels, for when the region is opened next.
    pub(super) fn set_granularity(&mut self, granularity: Granularity) {
        for (_, image) in &mut self.decoders {
            let control = image.control().with_granularity(granularity.encode());
            *image = image.with_control(control);
        }
    }

    /// Takes every commit back; how many decoders are committed all the same.
    pub(super) fn close(&self, hw: &mut Hardware) -> u64 {
        let mut left = 0;
        for (registers, image) in &self.decoders {
            registers.write_control(hw, idle(image.control()));
            left += u64::from(registers.read_control(hw).committed());
        }
        left
    }

    /// Commits the region at `base`; how many decoders are not committed all the same.
    pub(super) fn open(&mut self, hw: &mut Hardware, base: u64) -> u64 {
        let mut missing = 0;
        for (registers, image) in self.decoders.iter().rev() {
            let control = idle(image.control());
            registers.write(hw, image.with_base(base).with_control(control));
            missing += u64::from(!commit(hw, *registers, control));
        }
        if let Ok(span) = Span::new(Hpa(base), self.span.size()) {
            self.span = span;
        }
        missing
    }
}

/// The same settings, not committed.
fn idle(control: Control) -> Control {
    control.with_commit(false).with_committed(false).with_error_not_committed(false)
}

/// Commits a decoder that was programmed with this control; whether it did.
pub(super) fn commit(hw: &mut Hardware, registers: DecoderRegisters, control: Control) -> bool {
    registers.write_control(hw, control.with_commit(true));
    let mut polls = (0..POLLS).map(|_| registers.read_control(hw));
    polls.find(|control| control.settled()).is_some_and(|control| control.committed())
}
