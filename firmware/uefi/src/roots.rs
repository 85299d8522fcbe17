//! Root buses of host bridges: what the firmware's PCI root bridges say, and what the text file says
//! instead.
//!
//! **Invariant**: a bridge has at most one entry, and the file's counts.

use cxl_firmware::platform::RootBus;
use heapless::Vec;

/// The most bridges that are told apart.
pub const MOST: usize = 32;

/// Root buses by UID of their bridges.
pub type Roots = Vec<(u32, RootBus), MOST>;

/// Of what root bridges say, what a CXL host bridge of that UID means: those of `found` whose UID
/// no entry of `said` has, behind those of `said`. `None` if there are too many.
pub fn roots(
    said: &[(u32, RootBus)],
    found: impl IntoIterator<Item = (u32, RootBus)>,
) -> Option<Roots> {
    let mut roots = Roots::from_slice(said).ok()?;
    for (uid, root) in found {
        if !roots.iter().any(|(known, _)| *known == uid) {
            roots.push((uid, root)).ok()?;
        }
    }
    Some(roots)
}
