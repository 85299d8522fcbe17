//! What a flipped bit may do: rules typed by hand from the specification.
//!
//! Nothing here looks at the access-class tables that models and firmware share, so a wrong entry
//! there cannot excuse itself.
//!
//! **Invariant**: in a locked decoder, and in Control and the range bases under CONFIG_LOCK, the
//! rule for all 32 bits of every dword is [`Rule::Held`].

use super::shadow::{At, Block, Shadow};
use cxl_model::scenario::Place;

/// What has to come of flipping one bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Nothing.
    Held,
    /// The bit takes the value.
    Flips(&'static str),
    /// The bit takes the value, or does not exist in this component.
    May(&'static str),
    /// The bit takes the value, and keeps it until a conventional reset.
    Sticks(&'static str),
    /// A commit starts and ends, or one that was made is taken back.
    Commit(&'static str),
    /// As [`Rule::Commit`], and if the commit succeeds the decoder is locked.
    Burns(&'static str),
    /// The bit takes the value, and a status bit of the same dword may follow.
    Caching(&'static str),
}

const LOCK_ON_COMMIT: u32 = 1 << 8;
const COMMITTED: u32 = 1 << 10;
/// The Device DVSEC's lock, at offset 0x14.
pub(super) const CONFIG_LOCK: u32 = 1;

/// Control of a decoder that is locked: Lock On Commit and Committed.
pub(super) fn locked(control: u32) -> bool {
    control & LOCK_ON_COMMIT != 0 && control & COMMITTED != 0
}

/// CONFIG_LOCK of a device.
pub(super) fn config_locked(shadow: &Shadow, place: Place) -> bool {
    let lock = |dvsec| At { place, block: Block::Config, offset: dvsec + 0x14 };
    shadow.dvsec(place).is_some_and(|dvsec| shadow.dword(lock(dvsec)) & CONFIG_LOCK != 0)
}

/// Whether a lock that is set covers the dword.
pub(super) fn covered(shadow: &Shadow, at: At) -> bool {
    match at.block {
        Block::Hdm => {
            at.decoder().is_some_and(|(index, _)| locked(shadow.control(at.place, index)))
        }
        Block::Config => {
            let within = shadow.dvsec(at.place).and_then(|dvsec| at.offset.checked_sub(dvsec));
            let frozen = matches!(within, Some(0x0C | 0x14 | 0x20 | 0x24 | 0x30 | 0x34));
            frozen && config_locked(shadow, at.place)
        }
        Block::Component | Block::Device => false,
    }
}

/// The rule for one bit of a dword, given the registers as they are before the write.
pub(super) fn rule(shadow: &Shadow, at: At, bit: u32) -> Rule {
    match at.block {
        Block::Hdm => match at.decoder() {
            Some((decoder, within)) => decoder_rule(shadow, at.place, decoder, within, bit),
            None => global_rule(shadow, at, bit),
        },
        Block::Config => {
            let dvsec = shadow.dvsec(at.place).and_then(|dvsec| at.offset.checked_sub(dvsec));
            match (at.place, dvsec) {
                (Place::Device(_), Some(within @ 0..0x3C)) => {
                    device_dvsec_rule(shadow, at.place, within, bit)
                }
                (Place::Device(_), _) => header_rule(at.offset, bit, 0x10..0x28),
                _ => match shadow.port_dvsec(at.place).and_then(|d| at.offset.checked_sub(d)) {
                    Some(within @ 0..0x28) => port_dvsec_rule(within, bit),
                    _ => port_rule(at.offset, bit),
                },
            }
        }
        Block::Component | Block::Device => Rule::Held,
    }
}

/// Capability, Global Control and the two reserved dwords behind it (CXL r3.1 section 8.2.4.20.1
/// and .2). No lock covers them.
fn global_rule(shadow: &Shadow, at: At, bit: u32) -> Rule {
    let capability = shadow.dword(At { offset: 0, ..at });
    match (at.offset, bit, at.place) {
        (4, 0, _) if capability >> 10 & 1 != 0 => Rule::Flips("answers to misses change"),
        (4, 1, Place::Device(_)) => Rule::Flips("no lock covers HDM Decoder Enable"),
        _ => Rule::Held,
    }
}

/// One decoder (CXL r3.1 section 8.2.4.20.3 to .11).
fn decoder_rule(shadow: &Shadow, place: Place, decoder: u8, within: u16, bit: u32) -> Rule {
    let control = shadow.control(place, decoder);
    if locked(control) {
        return Rule::Held;
    }
    let committed = control & COMMITTED != 0;
    // What a change does to a decoder in use is undefined, so it may be refused too.
    let field = if committed {
        Rule::May("committed and not locked: takes the write")
    } else {
        Rule::Flips("not locked: takes the write")
    };
    let optional = match field {
        Rule::Flips(text) => Rule::May(text),
        other => other,
    };
    let device = matches!(place, Place::Device(_));
    let targets = {
        let at = At { place, block: Block::Hdm, offset: 0 };
        shadow.dword(at) >> 4 & 0xF
    };
    match (within, bit) {
        (0x00 | 0x08, 28..=31) | (0x04 | 0x0C, _) => field,
        (0x10, 0..=7) => field,
        (0x10, 8) if committed => Rule::Sticks("not locked: can be locked"),
        (0x10, 8) => field,
        (0x10, 9) if control & LOCK_ON_COMMIT != 0 && control >> 9 & 1 == 0 => {
            Rule::Burns("not locked: can be committed and so locked")
        }
        (0x10, 9) => Rule::Commit("not locked: can be committed or taken back"),
        // Target Range Type may be hardwired in a device; BI, UIO, UIG, UIW and ISP are options.
        (0x10, 12) if !device => field,
        (0x10, 12 | 13 | 14 | 16..=27) => optional,
        (0x14, 28..=31) | (0x18, _) if device => field,
        (0x14, _) if !device && bit / 8 < targets => field,
        (0x18, _) if !device && 4 + bit / 8 < targets => field,
        (0x14 | 0x18, _) if !device => optional,
        _ => Rule::Held,
    }
}

/// The Device DVSEC (CXL r3.1 section 8.1.3), by offset from its header.
fn device_dvsec_rule(shadow: &Shadow, place: Place, within: u16, bit: u32) -> Rule {
    let lock = config_locked(shadow, place);
    let dword = |within| {
        let offset = shadow.dvsec(place).unwrap_or(0) + within;
        shadow.dword(At { place, block: Block::Config, offset })
    };
    let capability = dword(0x08) >> 16;
    let ranges = capability >> 4 & 3;
    match (within, bit) {
        (0x0C | 0x14 | 0x20 | 0x24 | 0x30 | 0x34, _) if lock => Rule::Held,
        (0x0C, 2) if capability >> 2 & 1 != 0 => Rule::Flips("Mem_Enable without CONFIG_LOCK"),
        (0x0C, 0) if capability & 1 != 0 => Rule::Flips("Cache_Enable without CONFIG_LOCK"),
        (0x0C, 0 | 2..=12 | 14) => Rule::May("Control without CONFIG_LOCK"),
        (0x10, 0) => Rule::Caching("no lock covers Control2"),
        (0x10, 3..=5) => Rule::May("no lock covers Control2"),
        (0x14, 0) => Rule::Sticks("CONFIG_LOCK can be set"),
        (0x20, _) | (0x24, 28..=31) if ranges >= 1 => {
            Rule::Flips("a range base without CONFIG_LOCK")
        }
        (0x30, _) | (0x34, 28..=31) if ranges >= 2 => {
            Rule::Flips("a range base without CONFIG_LOCK")
        }
        (0x20 | 0x30, _) | (0x24 | 0x34, 28..=31) => Rule::May("a range base without CONFIG_LOCK"),
        _ => Rule::Held,
    }
}

/// Command, Status and BARs, which all headers have (PCIe Base 6.x section 7.5.1).
fn header_rule(offset: u16, bit: u32, bars: std::ops::Range<u16>) -> Rule {
    match (offset, bit) {
        (0x04, 1) => Rule::Flips("Memory Space: registers come and go, memory stays"),
        (0x04, 2) => Rule::Flips("Bus Master"),
        (0x04, 0 | 6 | 8 | 10) => Rule::May("Command"),
        (_, 4..=31) if bars.contains(&offset) => {
            Rule::May("moves registers behind a BAR, memory stays")
        }
        // The upper half of a 64-bit BAR has no type bits.
        (_, 0..=3) if bars.contains(&offset) && offset % 8 == 4 => {
            Rule::May("moves registers behind a BAR, memory stays")
        }
        _ => Rule::Held,
    }
}

/// A port's header (PCIe Base 6.x section 7.5.1.3).
fn port_rule(offset: u16, bit: u32) -> Rule {
    match (offset, bit) {
        (0x18, 0..=23) => Rule::Flips("bus numbers: configuration is redirected, memory stays"),
        (0x1C, 4..=7 | 12..=15) | (0x20 | 0x24, 4..=15 | 20..=31) | (0x28 | 0x2C | 0x30, _) => {
            Rule::May("forwarding windows: registers below are redirected, memory stays")
        }
        (0x3C, 0..=7) => Rule::May("Interrupt Line: a note for software"),
        (0x3C, 16..=27) => Rule::May("Bridge Control"),
        _ => header_rule(offset, bit, 0x10..0x18),
    }
}

/// The Extensions DVSEC for Ports (CXL r3.1 section 8.1.5), by offset from its header. No lock
/// covers it.
fn port_dvsec_rule(within: u16, bit: u32) -> Rule {
    match (within, bit) {
        (0x0C, 0) => Rule::Flips("Unmask SBR: a bus reset below the port becomes possible"),
        (0x0C, 1) => Rule::Flips("Unmask Link Disable: the link below can be taken down"),
        (0x0C, 2..=4 | 14) => Rule::May("Port Control Extensions"),
        (0x0C, 16..=31) | (0x10 | 0x14, 4..=15 | 20..=31) | (0x18 | 0x1C, _) => {
            Rule::May("alternate windows: registers below are redirected, memory stays")
        }
        _ => Rule::Held,
    }
}
