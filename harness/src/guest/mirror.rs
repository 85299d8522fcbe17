//! Which of the machine's mappings become memory slots. A pure function of mappings and limits.
//!
//! **Invariant**: a slot covers only what the registers prove to be direct memory; what does not
//! become a slot is still there, one access at a time, and the reason is kept.

use crate::kvm::Slot;
use crate::machine::Machine;
use crate::mapping::{How, Mapping, mappings};

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
    let reachable = span.last().0.checked_shr(limits.address_bits.into()).unwrap_or(0) == 0;
    Some(match direct.members.as_slice() {
        _ if !limits.enabled => Err(Unmirrored::Off),
        [_] if !reachable => Err(Unmirrored::AddressWidth),
        [_] if span.size() > left => Err(Unmirrored::Budget),
        [_] if used >= limits.slots => Err(Unmirrored::Slots),
        [_] => {
            let (member, dpa) = direct.locate(span.base())?;
            let endpoint = machine.endpoint(member.device)?;
            match endpoint.media.backing().region() {
                Some(region) => Ok(Slot {
                    base: span.base().0,
                    size: span.size(),
                    memory: region.clone(),
                    offset: dpa.0,
                    read_only: false,
                }),
                None => Err(Unmirrored::NoMemory),
            }
        }
        _ => Err(Unmirrored::Interleaved),
    })
}
