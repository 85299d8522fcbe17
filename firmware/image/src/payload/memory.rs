//! Loads and stores in CXL windows: what is covered keeps its bytes; what is not keeps nothing, and
//! reads as the machine's misses do.
//!
//! **Invariant**: every access is one aligned load or store of eight bytes, so that whoever counts
//! exits knows how many there can be.

use core::ptr;

use cxl_firmware::platform::Platform;
use cxl_image::doorbell::Call;
use cxl_regs::Span;

use super::Checks;
use crate::hw::Hardware;
use crate::{Room, port};

const PAGE: u64 = 4096;
const GIB: u64 = 1 << 30;

pub(super) fn load(hw: &mut Hardware, address: u64) -> u64 {
    hw.map(address, 8);
    // SAFETY: an aligned address in a CXL window, on a mapped page; no Rust object lives there.
    unsafe { ptr::read_volatile(address as *const u64) }
}

pub(super) fn store(hw: &mut Hardware, address: u64, value: u64) {
    hw.map(address, 8);
    // SAFETY: as above.
    unsafe { ptr::write_volatile(address as *mut u64, value) }
}

/// First and last page of every region take values and keep them; the page behind a region does
/// not, unless the next one starts there.
pub(super) fn touch(hw: &mut Hardware, room: &Room, checks: &mut Checks) {
    let regions = &room.committed.regions;
    let ends = |span: Span| [span.base().0, span.end().0 - PAGE];
    for region in regions {
        for page in ends(region.span) {
            store(hw, page, !page);
            store(hw, page + PAGE - 8, page ^ 0x5A5A);
        }
    }
    for region in regions {
        for page in ends(region.span) {
            let found = load(hw, page);
            checks.equal(format_args!("{page:#x}"), !page, found);
            let found = load(hw, page + PAGE - 8);
            checks.equal(format_args!("{:#x}", page + PAGE - 8), page ^ 0x5A5A, found);
        }
        let behind = region.span.end().0;
        if !regions.iter().any(|other| other.span.base().0 == behind) {
            store(hw, behind, MARK);
            nothing(hw, behind, format_args!("{behind:#x}, behind the region"), checks);
        }
    }
}

/// What is stored where nothing is to keep it: neither all-ones nor 0.
pub(super) const MARK: u64 = 0x5AFE_C0DE_5AFE_C0DE;

/// Nothing answers at an address where [`MARK`] was stored, or where nothing ever was.
pub(super) fn nothing(
    hw: &mut Hardware,
    address: u64,
    what: core::fmt::Arguments<'_>,
    checks: &mut Checks,
) {
    let found = load(hw, address);
    match hw.vmm.miss() {
        Some(miss) => checks.equal(what, miss, found),
        // All that can be expected of an unknown machine is that it kept nothing.
        None => checks.equal(what, 0, (found == MARK).into()),
    }
}

/// Stores, and then loads, of one sweep.
const SWEEP: u64 = 64;

/// Sweeps each region and then what the last one leaves of its window, between two marks each: the
/// host counts which of them it had to serve.
pub(super) fn half(hw: &mut Hardware, room: &Room, platform: &Platform<'_>, checks: &mut Checks) {
    let regions = &room.committed.regions;
    let Some(last) = regions.last() else {
        return checks
            .refuse(format_args!("half: no memory is mapped, so there is none to look behind"));
    };
    let mut marks = (0..).map(|id| port::call(Call::Mark { id }));
    for region in regions {
        let found = swept(hw, region.span, &mut marks);
        checks.equal(format_args!("right values in {}", region.span), SWEEP, found);
    }
    let windows = &mut platform.windows.iter();
    let end = windows.find(|window| window.base == Some(last.window)).and_then(|it| it.span());
    let rest = end.and_then(|it| Span::new(last.span.end(), it.end().0 - last.span.end().0).ok());
    let Some(rest) = rest else {
        return checks.refuse(format_args!(
            "half: region {} reaches to the end of its window, so nothing is behind it to look at",
            last.span
        ));
    };
    let found = swept(hw, rest, &mut marks);
    checks.equal(format_args!("right values in {rest}, which nothing covers"), 0, found);
}

/// Fills a range sparsely and counts the values that come back. Of a large one only the start: page
/// tables are few.
fn swept(hw: &mut Hardware, span: Span, marks: &mut impl Iterator<Item = ()>) -> u64 {
    let places = (0..SWEEP).map(|step| span.base().0 + step * (span.size().min(GIB) / SWEEP));
    marks.next();
    for place in places.clone() {
        store(hw, place, !place);
    }
    let found = places.filter(|place| load(hw, *place) == !place).count();
    marks.next();
    found as u64
}
