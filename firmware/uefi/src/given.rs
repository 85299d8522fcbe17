//! Which memory goes to the memory map: volatile regions that are whole, each as the registers have it.
//!
//! Linux takes memory that the map calls specific-purpose as soft-reserved: its allocator leaves it
//! alone, and its CXL drivers bring it online. Persistent memory is not in the map; the CEDT leads to it.
//!
//! **Invariant**: nothing is given that was not verified, and where memory was asked, that did not
//! answer.

use cxl_firmware::bring_up::Extent;
use cxl_firmware::committed::CommittedRegion;
use cxl_firmware::policy::PathPolicy;
use cxl_firmware::topology::Partition;
use cxl_regs::{Hpa, Span};
use heapless::Vec;

/// Attributes of the UEFI specification's memory map: the four ways of caching, and specific-purpose.
pub const ATTRIBUTES: u64 = 0x4_000F;

/// The most ranges.
pub const MOST: usize = 320;

/// The ranges, by ascending address. None where nothing was brought up, or the operating system is to
/// make the regions.
///
/// Of ranges that touch, only every second one: the map joins them, and Linux 7.3 takes a range that no
/// one region covers away from its CXL drivers, so that neither region comes online. What is left out is
/// in the CEDT alone, which is enough for Linux.
pub fn ranges(
    extent: Option<Extent>,
    path: PathPolicy,
    regions: &[CommittedRegion],
) -> Vec<Span, MOST> {
    let mut given = Vec::new();
    if extent.is_none() || matches!(path, PathPolicy::Describe | PathPolicy::GuestPrograms) {
        return given;
    }
    let volatile = |region: &&CommittedRegion| region.partition == Partition::Volatile;
    // The next one by address, again and again: as many looks as there are regions.
    let mut from = Hpa(0);
    for _ in regions {
        let behind = regions.iter().filter(volatile).filter(|region| region.span.base() >= from);
        let Some(next) = behind.min_by_key(|region| region.span.base()) else { break };
        from = next.span.end();
        let touches = given.last().is_some_and(|last: &Span| last.end() == next.span.base());
        if !touches && given.push(next.span).is_err() {
            break;
        }
    }
    given
}
