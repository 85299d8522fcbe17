//! Takes a region down and puts it up elsewhere in its window, many times: contents follow the
//! device's own addresses.
//!
//! **Invariant**: every cycle looks at the bytes, also where the region was before.

use cxl_firmware::platform::{Platform, Window};
use cxl_image::doorbell::Call;
use cxl_regs::Span;

use super::Checks;
use super::memory::{load, store};
use super::path::RegionPath;
use crate::hw::Hardware;
use crate::{Room, port};

const CYCLES: u64 = 1000;
/// Cycles from mark to mark.
const MARK: u64 = 100;
/// Places in the region that hold a value.
const PLACES: u64 = 4;

pub(super) fn recreate(
    hw: &mut Hardware,
    room: &Room,
    platform: &Platform<'_>,
    checks: &mut Checks,
) {
    let Some(mut path) = RegionPath::last(room) else {
        return checks.refuse(format_args!("there is no region"));
    };
    let (first, size) = (path.span.base().0, path.span.size());
    let second = path.span.end().0;
    let another = Span::new(path.span.end(), size);
    let room_for_two = platform.windows.iter().filter(|window| window.base == Some(path.window));
    let room_for_two = another.is_ok_and(|another| {
        room_for_two.filter_map(Window::span).any(|window| window.contains_span(another))
    });
    if !room_for_two {
        return checks.refuse(format_args!("there is no room for {} elsewhere", path.span));
    }
    let offsets = || (0..PLACES).map(|place| place * (size / PLACES) + 8 * place);
    for offset in offsets() {
        store(hw, first + offset, !offset);
    }
    let (mut committed, mut intact, mut gone) = (0, 0, 0);
    for cycle in 0..CYCLES {
        let (from, to) = if cycle % 2 == 0 { (first, second) } else { (second, first) };
        let clean = path.close(hw) == 0 && path.open(hw, to) == 0;
        committed += u64::from(clean);
        intact += u64::from(offsets().all(|offset| load(hw, to + offset) == !offset));
        let vmm = hw.vmm;
        let none = offsets().all(|offset| vmm.is_miss(load(hw, from + offset), !offset));
        gone += u64::from(none);
        if cycle % MARK == MARK - 1 {
            port::call(Call::Mark { id: cycle });
        }
    }
    checks.equal(format_args!("cycles that committed"), CYCLES, committed);
    checks.equal(format_args!("cycles that kept all bytes"), CYCLES, intact);
    checks.equal(format_args!("cycles that left nothing behind"), CYCLES, gone);
}
