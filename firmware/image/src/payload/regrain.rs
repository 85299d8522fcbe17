//! Takes an interleaved region down and puts it up with another granularity, again and again:
//! contents follow the devices' own addresses, so they are found elsewhere in the region.
//!
//! **Invariant**: where a value has to be is said by the arithmetic of the registers that were
//! written, and each value is looked at in every cycle.

use cxl_image::doorbell::Call;
use cxl_regs::{Granularity, Interleave};

use super::Checks;
use super::memory::{load, store};
use super::path::RegionPath;
use crate::hw::Hardware;
use crate::{Room, port};

/// Times through all granularities.
const ROUNDS: u64 = 40;
/// Values in each member's memory.
const PLACES: u64 = 16;
/// From one to the next: another granule and another page each time.
const APART: u64 = 0x1_7128;

pub(super) fn regrain(hw: &mut Hardware, room: &Room, checks: &mut Checks) {
    let Some(mut path) = RegionPath::last(room) else {
        return checks.refuse(format_args!("there is no region"));
    };
    let Some(set) = path.one_level() else {
        return checks.refuse(format_args!("the last region is not interleaved by a bridge alone"));
    };
    let places = || {
        let members = 0..set.ways.count();
        members.flat_map(|position| (0..PLACES).map(move |place| (position, place * APART)))
    };
    let (base, mut now) = (path.span.base().0, set);
    let at =
        |now: Interleave, (position, offset)| base + now.hpa_offset(position, offset).unwrap_or(0);
    let value = |(position, offset): (u32, u64)| !(u64::from(position) << 32 | offset);
    for place in places() {
        store(hw, at(now, place), value(place));
    }
    let (mut cycles, mut committed, mut intact) = (0, 0, 0);
    for round in 0..ROUNDS {
        for granularity in Granularity::ALL {
            let next = Interleave::new(set.ways, granularity);
            if next.decodable().is_err() {
                continue;
            }
            cycles += 1;
            let clean = path.close(hw) == 0;
            path.set_granularity(granularity);
            committed += u64::from(path.open(hw, base) == 0 && clean);
            now = next;
            intact += u64::from(places().all(|place| load(hw, at(now, place)) == value(place)));
        }
        port::call(Call::Mark { id: round });
    }
    checks.equal(format_args!("cycles that committed"), cycles, committed);
    checks.equal(format_args!("cycles that kept all bytes"), cycles, intact);
}
