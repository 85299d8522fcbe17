//! What answered and became no node, or a lesser one than it might: nothing is passed over unsaid.
//!
//! A function is passed over in silence only where nothing says that it is CXL and nothing can be
//! behind it: it has no CXL DVSEC, is no bridge, and is not what a link found that trained to
//! CXL.mem.
//!
//! A bring-up that is content with the rest remarks what it lost here too: a component whose registers
//! say nonsense, by the error that would have ended a strict one.
//!
//! **Invariant**: a remark from `0x0280` to `0x028F` is no failure; every other one is a loss, and
//! counted.

use heapless::Vec;

use crate::error::{Error, Phase};

/// What discovery remarked, in the order it came to it, and how many more there were.
#[derive(Clone, Debug, Default)]
pub struct Remarks {
    list: Vec<Error, 24>,
    more: u16,
    lost: u16,
}

impl Remarks {
    /// None.
    pub const fn new() -> Self {
        Self { list: Vec::new(), more: 0, lost: 0 }
    }

    /// The remarks.
    pub fn list(&self) -> &[Error] {
        &self.list
    }

    /// How many did not fit into the list.
    pub const fn more(&self) -> u16 {
        self.more
    }

    /// Those of the list that are losses.
    pub fn losses(&self) -> impl Iterator<Item = &Error> {
        self.list.iter().filter(|remark| is_loss(remark))
    }

    /// How many of all are losses.
    pub const fn lost(&self) -> u16 {
        self.lost
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    pub(crate) fn add(&mut self, remark: Error) {
        self.lost = self.lost.saturating_add(u16::from(is_loss(&remark)));
        if self.list.push(remark).is_err() {
            self.more = self.more.saturating_add(1);
        }
    }

    /// Where the list is now; see [`Remarks::back_to`].
    pub(crate) fn mark(&self) -> (usize, u16, u16) {
        (self.list.len(), self.more, self.lost)
    }

    /// Forgets what was added since `mark`.
    pub(crate) fn back_to(&mut self, (length, more, lost): (usize, u16, u16)) {
        self.list.truncate(length);
        self.more = more;
        self.lost = lost;
    }
}

/// Whether a remark is an error: what it is about was lost.
fn is_loss(remark: &Error) -> bool {
    remark.phase() != Phase::Discover || remark.is_failure()
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
