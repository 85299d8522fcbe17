//! Which of the machine's memory becomes slots: CXL memory by its mappings, plain memory behind
//! BARs by their pages. A pure function of registers and limits.
//!
//! The two have nothing to do with each other: [`Mirror`] looks at decoders, [`bar_slots`] at BARs
//! and what leads to them. CXL memory has the first choice of slots, so that no BAR can take one.
//!
//! **Invariant**: a slot covers only what the registers prove to be direct memory; what does not
//! become a slot is still there, one access at a time, and the reason is kept.

use cxl_regs::{Hpa, Span};

use crate::backing::Backing;
use crate::kvm::Slot;
use crate::machine::{Machine, PAGE};
use crate::mapping::{Direct, How, Mapping, mappings};

/// What bounds the mirror besides the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Whether anything is mirrored at all.
    pub enabled: bool,
    /// Bytes that may be mirrored in all.
    pub bytes: u64,
    /// Number of slots.
    pub slots: usize,
    /// Width of an address that the guest can reach.
    pub address_bits: u8,
}

/// Why a direct range is not mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmirrored {
    /// Mirroring is switched off.
    Off,
    /// The range is interleaved.
    Interleaved,
    /// It would exceed the bytes that may be mirrored.
    Budget,
    /// There are no more slots.
    Slots,
    /// The guest cannot address it.
    AddressWidth,
    /// The host has no memory behind it.
    NoMemory,
    /// Something that wins over a window lies in it; see [`AddressMap::fixed`].
    ///
    /// [`AddressMap::fixed`]: crate::layout::AddressMap::fixed
    Overlapped,
    /// No whole page of it is left beside other windows.
    NoPage,
}

impl std::fmt::Display for Unmirrored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "mirroring is off",
            Self::Interleaved => "interleaved ranges are decoded access by access",
            Self::Budget => "the mirror's memory budget is used up",
            Self::Slots => "all memory slots are taken",
            Self::AddressWidth => "the guest cannot address it",
            Self::NoMemory => "the host has no memory behind it",
            Self::Overlapped => "RAM or registers lie in it",
            Self::NoPage => "other windows leave no whole page of it",
        })
    }
}

/// What is mirrored.
#[derive(Debug, Default)]
pub struct Mirror {
    /// Every range of every window.
    pub mappings: Vec<Mapping>,
    /// The slots, in order of address.
    pub slots: Vec<Slot>,
    /// Direct ranges without a slot: index into `mappings`, and why.
    pub unmirrored: Vec<(usize, Unmirrored)>,
}

impl Mirror {
    /// The mirror that a machine's registers ask for.
    pub fn of(machine: &Machine, limits: &Limits) -> Self {
        let mut mirror = Self { mappings: mappings(&machine.fabric()), ..Self::default() };
        let mut left = limits.bytes;
        for (index, mapping) in mirror.mappings.iter().enumerate() {
            match slot(machine, mapping, limits, left, mirror.slots.len()) {
                Some(Ok(slot)) => {
                    left -= slot.size;
                    mirror.slots.push(slot);
                }
                Some(Err(why)) => mirror.unmirrored.push((index, why)),
                None => {}
            }
        }
        mirror
    }
}

/// The slot of one mapping; `None` for one that is not direct.
fn slot(
    machine: &Machine,
    mapping: &Mapping,
    limits: &Limits,
    left: u64,
    used: usize,
) -> Option<Result<Slot, Unmirrored>> {
    let How::Direct(direct) = &mapping.how else { return None };
    let span = mapping.span()?;
    let Some(pages) = whole_pages(span) else { return Some(Err(Unmirrored::NoPage)) };
    let reachable = span.last().0.checked_shr(limits.address_bits.into()).unwrap_or(0) == 0;
    let overlapped = machine.map().fixed().any(|fixed| fixed.overlaps(span));
    Some(match direct.members.as_slice() {
        _ if !limits.enabled => Err(Unmirrored::Off),
        _ if overlapped => Err(Unmirrored::Overlapped),
        [_] if !reachable => Err(Unmirrored::AddressWidth),
        [_] if pages.size() > left => Err(Unmirrored::Budget),
        [_] if used >= limits.slots => Err(Unmirrored::Slots),
        [_] => media_slot(machine, direct, pages).ok_or(Unmirrored::NoMemory),
        _ => Err(Unmirrored::Interleaved),
    })
}

/// The whole pages of a range. Decoders start and end at multiples of 256 MiB, but a window that
/// lies across may cut a mapping anywhere; what is left of a page on either side traps.
fn whole_pages(span: Span) -> Option<Span> {
    let base = span.base().0.checked_next_multiple_of(PAGE)?;
    let end = span.end().0 / PAGE * PAGE;
    Span::new(Hpa(base), end.checked_sub(base)?).ok()
}

fn media_slot(machine: &Machine, direct: &Direct, span: Span) -> Option<Slot> {
    let (member, dpa) = direct.locate(span.base())?;
    let endpoint = machine.endpoint(member.device)?;
    slot_of(endpoint.media.backing(), span, dpa.0)
}

fn slot_of(memory: &Backing, span: Span, offset: u64) -> Option<Slot> {
    let memory = memory.region()?.clone();
    Some(Slot { base: span.base().0, size: span.size(), memory, offset, read_only: false })
}

/// Slots of the plain memory behind BARs, as far as there are slots; the rest is reached one access
/// at a time.
pub fn bar_slots(machine: &Machine, limits: &Limits, used: usize) -> Vec<Slot> {
    let left = if limits.enabled { limits.slots.saturating_sub(used) } else { 0 };
    let pages = machine.bar_pages().into_iter();
    pages.filter_map(|pages| slot_of(pages.memory, pages.span, pages.offset)).take(left).collect()
}
