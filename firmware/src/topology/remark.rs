//! What answered and became no node, or a lesser one than it might: nothing is passed over unsaid.
//!
//! A function is passed over in silence only where nothing says that it is CXL and nothing can be
//! behind it: it has no CXL DVSEC, is no bridge, and is not what a link found that trained to
//! CXL.mem.
//!
//! **Invariant**: a remark is no failure: its number is one from `0x0280` on.

use heapless::Vec;

use crate::error::Error;

/// What discovery remarked, in the order it came to it, and how many more there were.
#[derive(Clone, Debug, Default)]
pub struct Remarks {
    list: Vec<Error, 24>,
    more: u16,
}

impl Remarks {
    /// None.
    pub const fn new() -> Self {
        Self { list: Vec::new(), more: 0 }
    }

    /// The remarks.
    pub fn list(&self) -> &[Error] {
        &self.list
    }

    /// How many did not fit into the list.
    pub const fn more(&self) -> u16 {
        self.more
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    pub(crate) fn add(&mut self, remark: Error) {
        if self.list.push(remark).is_err() {
            self.more = self.more.saturating_add(1);
        }
    }

    /// Where the list is now; see [`Remarks::back_to`].
    pub(crate) fn mark(&self) -> (usize, u16) {
        (self.list.len(), self.more)
    }

    /// Forgets what was added since `mark`.
    pub(crate) fn back_to(&mut self, (length, more): (usize, u16)) {
        self.list.truncate(length);
        self.more = more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Place};
    use crate::platform::RootBus;

    #[test]
    fn what_is_remarked_beyond_the_list_is_counted() {
        let mut remarks = Remarks::new();
        let remark =
            Code::DISCOVER_NO_PORTS.at(Place::bridge(7)).found(RootBus { segment: 0, bus: 7 });
        (0..20).for_each(|_| remarks.add(remark));
        let mark = remarks.mark();
        (0..7).for_each(|_| remarks.add(remark));
        assert_eq!((remarks.list().len(), remarks.more()), (24, 3));
        remarks.back_to(mark);
        assert_eq!((remarks.list().len(), remarks.more()), (20, 0));
    }
}
