//! Which of the machine's memory becomes slots: CXL memory by its mappings, plain memory behind
//! BARs by their pages. A pure function of registers and limits.
//!
//! The two have nothing to do with each other: [`Mirror`] looks at decoders, [`bar_slots`] at BARs
//! and what leads to them. CXL memory has the first choice of slots, so that no BAR can take one.
//!
//! **Invariant**: a slot covers only what the registers prove to be direct memory; what does not
//! become a slot is still there, one access at a time, and the reason is kept.

use cxl_regs::{Hpa, Span};

use crate::kvm::Slot;
use cxl_model::backing::Backing;
use cxl_model::machine::{FlatRange, Machine, PAGE, SetRefusal, SetShape};
use cxl_model::mapping::{Direct, Mapping, Reach, mappings};

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
    /// The range is interleaved, and its memory is not in the order of host addresses.
    NotInOrder(Option<SetRefusal>),
    /// It would exceed the bytes that may be mirrored.
    Budget,
    /// There are no more slots.
    Slots,
    /// The guest cannot address it.
    AddressWidth,
    /// The host has no memory behind it.
    NoMemory,
    /// Its file cannot be had whole, so that a store might find no room.
    NoRoom(SetRefusal),
    /// Something that wins over a window lies in it; see [`AddressMap::fixed`].
    ///
    /// [`AddressMap::fixed`]: cxl_model::layout::AddressMap::fixed
    Overlapped,
    /// No whole page of it is left beside other windows.
    NoPage,
    /// A fault of the scenario leads accesses elsewhere than registers say.
    Misrouted,
}

impl std::fmt::Display for Unmirrored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "mirroring is off",
            Self::NotInOrder(None) => "its memory is not in the order of host addresses",
            Self::NotInOrder(Some(why)) => return why.fmt(f),
            Self::Budget => "the mirror's memory budget is used up",
            Self::Slots => "all memory slots are taken",
            Self::AddressWidth => "the guest cannot address it",
            Self::NoMemory => "the host has no memory behind it",
            Self::NoRoom(why) => return why.fmt(f),
            Self::Overlapped => "RAM or registers lie in it",
            Self::NoPage => "other windows leave no whole page of it",
            Self::Misrouted => "a fault leads its accesses elsewhere than registers say",
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
    /// The mirror that a machine's registers ask for, with the memory of its sets as it lies now.
    pub fn of(machine: &Machine, limits: &Limits) -> Self {
        let mappings = mappings(&machine.fabric());
        let mut mirror = Self::default();
        for (index, direct, chosen) in choose(machine, &mappings, limits) {
            match chosen.and_then(|pages| media_slot(machine, direct, pages)) {
                Ok(slot) => mirror.slots.push(slot),
                Err(why) => mirror.unmirrored.push((index, why)),
            }
        }
        Self { mappings, ..mirror }
    }

    /// The same, and the memory of each set that is mirrored is brought into the order of host
    /// addresses first; that of all others is brought back. The guest must not run meanwhile, and
    /// has to get the slots before it runs again.
    pub fn follow(machine: &mut Machine, limits: &Limits) -> Self {
        let mappings = mappings(&machine.fabric());
        let chosen = choose(machine, &mappings, limits);
        let sets = chosen.iter().filter_map(|(_, direct, pages)| {
            pages.as_ref().ok()?;
            SetShape::of(direct)
        });
        // A set may be mirrored in several parts.
        let mut wanted: Vec<SetShape> = Vec::new();
        for set in sets {
            if !wanted.contains(&set) {
                wanted.push(set);
            }
        }
        machine.lay_out(&wanted);
        let flat: Vec<FlatRange> = chosen.iter().filter_map(flat).collect();
        machine.reserve(&flat);
        Self::of(machine, limits)
    }
}

/// What is to be a slot of one device's memory.
fn flat((_, direct, pages): &(usize, &Direct, Result<Span, Unmirrored>)) -> Option<FlatRange> {
    let pages = pages.as_ref().ok().filter(|_| SetShape::of(direct).is_none())?;
    let (member, dpa) = direct.locate(pages.base())?;
    Some((member.device, dpa.0..dpa.0.checked_add(pages.size())?))
}

/// Every direct range by its index, with the pages of it that there is to be a slot for.
fn choose<'m>(
    machine: &Machine,
    mappings: &'m [Mapping],
    limits: &Limits,
) -> Vec<(usize, &'m Direct, Result<Span, Unmirrored>)> {
    let (mut left, mut used) = (limits.bytes, 0);
    let mut chosen = Vec::new();
    for (index, mapping) in mappings.iter().enumerate() {
        let (Reach::Direct(direct), Some(span)) = (&mapping.how, mapping.span()) else { continue };
        let misrouted = direct.members.iter().any(|member| machine.misroutes(member.device));
        let pages = match misrouted {
            true => Err(Unmirrored::Misrouted),
            false => pages_for(machine, span, limits, left, used),
        };
        if let Ok(pages) = pages {
            left -= pages.size();
            used += 1;
        }
        chosen.push((index, direct, pages));
    }
    chosen
}

fn pages_for(
    machine: &Machine,
    span: Span,
    limits: &Limits,
    left: u64,
    used: usize,
) -> Result<Span, Unmirrored> {
    let pages = whole_pages(span).ok_or(Unmirrored::NoPage)?;
    let reachable = span.last().0.checked_shr(limits.address_bits.into()).unwrap_or(0) == 0;
    let overlapped = machine.map().fixed().any(|fixed| fixed.overlaps(span));
    match () {
        () if !limits.enabled => Err(Unmirrored::Off),
        () if overlapped => Err(Unmirrored::Overlapped),
        () if !reachable => Err(Unmirrored::AddressWidth),
        () if pages.size() > left => Err(Unmirrored::Budget),
        () if used >= limits.slots => Err(Unmirrored::Slots),
        () => Ok(pages),
    }
}

/// The whole pages of a range. Decoders start and end at multiples of 256 MiB, but a window that
/// lies across may cut a mapping anywhere; what is left of a page on either side traps.
fn whole_pages(span: Span) -> Option<Span> {
    let base = span.base().0.checked_next_multiple_of(PAGE)?;
    let end = span.end().0 / PAGE * PAGE;
    Span::new(Hpa(base), end.checked_sub(base)?).ok()
}

fn media_slot(machine: &Machine, direct: &Direct, span: Span) -> Result<Slot, Unmirrored> {
    if let Some(shape) = SetShape::of(direct) {
        let set = machine.set_memory(&shape);
        let set = set.ok_or_else(|| Unmirrored::NotInOrder(machine.unlaid(&shape)))?;
        let offset = span.base().0 - direct.base.0;
        return slot_of(&set.memory, span, offset).ok_or(Unmirrored::NoMemory);
    }
    let place = direct
        .locate(span.base())
        .and_then(|(member, dpa)| Some((&machine.endpoint(member.device)?.media, dpa)));
    let (media, dpa) = place.ok_or(Unmirrored::NoMemory)?;
    // A set that could not be brought back may still have it.
    let lent = media.is_lent(&(dpa.0..dpa.0.saturating_add(span.size())));
    let taken = Unmirrored::NotInOrder(Some(SetRefusal::Taken));
    let why = if lent { taken } else { Unmirrored::NoMemory };
    let share = media.in_order(dpa, span.size()).ok_or(why)?;
    if let Some(range) = flat(&(0, direct, Ok(span))) {
        machine.has_room(&range).map_err(Unmirrored::NoRoom)?;
    }
    slot_of(&share.memory, span, share.start).ok_or(Unmirrored::NoMemory)
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
