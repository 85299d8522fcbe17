//! What answered and became no node, or a lesser one than it might: nothing is passed over unsaid.
//!
//! A function is passed over in silence only where nothing says that it is CXL and nothing can be
//! behind it: it has no CXL DVSEC, is no bridge, and is not what a link found that trained to
//! CXL.mem.
//!
//! **Invariant**: codes never change their meaning; a new remark gets a new code.

use core::fmt;

use cxl_regs::Size;
use cxl_regs::config::Sbdf;
use cxl_regs::dvsec::DvsecId;
use heapless::Vec;

use crate::codes::codes;
use crate::platform::RootBus;

/// Where discovery was: below which bridge, and at which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// UID of the host bridge.
    pub uid: u32,
    /// The function; `None` for the bridge itself.
    pub function: Option<Sbdf>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bridge {}", self.uid)?;
        match self.function {
            Some(function) => write!(f, " function {function}"),
            None => Ok(()),
        }
    }
}

/// Something that answered and is not in the topology, or not all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are named for what they hold; Display says it in words")]
pub enum Remark {
    /// A CXL device that has no CXL.mem.
    NoMem { at: Place, capability: u16 },
    /// A bridge without CXL DVSECs, so nothing behind it is looked for.
    PlainPort { at: Place },
    /// A function with CXL DVSECs, but not those of a device or port.
    Incomplete { at: Place, has: DvsecId, device: bool },
    /// A function with CXL DVSECs in a place where no such function can be.
    Misplaced { at: Place, has: DvsecId, port_type: u8 },
    /// A link trained to CXL.mem, and the function at its end says nothing of CXL.
    LinkWithoutCxl { at: Place, port: Sbdf },
    /// A range that HDM_Count leaves out has a size, and is not active.
    RangeNotCounted { at: Place, range: u8, size: u64 },
    /// The device has more memory than its active partitions.
    NotPartitioned { at: Place, active: u64, total: u64 },
    /// A host bridge without a CXL root port.
    NoPorts { uid: u32, root: RootBus },
}

codes! {
    Remark {
        NoMem = 0x0280,
        PlainPort = 0x0281,
        Incomplete = 0x0282,
        Misplaced = 0x0283,
        LinkWithoutCxl = 0x0284,
        RangeNotCounted = 0x0285,
        NotPartitioned = 0x0286,
        NoPorts = 0x0287,
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoMem { at, capability } => write!(
                f,
                "{at}: a CXL device without CXL.mem (DVSEC CXL Capability {capability:#06x}): it \
                 has no memory to map"
            ),
            Self::PlainPort { at } => {
                write!(f, "{at}: a bridge without CXL DVSECs: nothing behind it is looked for")
            }
            Self::Incomplete { at, has, device } => write!(
                f,
                "{at}: has the {has} DVSEC and no {} DVSEC: it is not taken for a CXL {}",
                if device { "CXL device" } else { "extensions for ports or Flex Bus port" },
                if device { "device" } else { "port" }
            ),
            Self::Misplaced { at, has, port_type } => write!(
                f,
                "{at}: has the {has} DVSEC, and a function of PCI Express type {port_type:#x} \
                 cannot be one of CXL here: it is passed over"
            ),
            Self::LinkWithoutCxl { at, port } => write!(
                f,
                "{at}: the link of {port} trained to CXL.mem, and this function has no CXL DVSEC: \
                 it is passed over"
            ),
            Self::RangeNotCounted { at, range, size } => write!(
                f,
                "{at}: range {range} has {}, is not active, and HDM_Count leaves it out: it is not \
                 used",
                Size(size)
            ),
            Self::NotPartitioned { at, active, total } => write!(
                f,
                "{at}: has {}, of which {} are in active partitions: the rest is not used",
                Size(total),
                Size(active)
            ),
            Self::NoPorts { uid, root } => {
                write!(f, "bridge {uid}: no CXL root port on its {root}")
            }
        }
    }
}

/// What discovery remarked, in the order it came to it, and how many more there were.
#[derive(Clone, Debug, Default)]
pub struct Remarks {
    list: Vec<Remark, 24>,
    more: u16,
}

impl Remarks {
    /// None.
    pub const fn new() -> Self {
        Self { list: Vec::new(), more: 0 }
    }

    /// The remarks.
    pub fn list(&self) -> &[Remark] {
        &self.list
    }

    /// How many did not fit into the list.
    pub const fn more(&self) -> u16 {
        self.more
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    pub(crate) fn add(&mut self, remark: Remark) {
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

    #[test]
    fn what_is_remarked_beyond_the_list_is_counted() {
        let mut remarks = Remarks::new();
        let remark = Remark::NoPorts { uid: 7, root: RootBus { segment: 0, bus: 7 } };
        (0..20).for_each(|_| remarks.add(remark));
        let mark = remarks.mark();
        (0..7).for_each(|_| remarks.add(remark));
        assert_eq!((remarks.list().len(), remarks.more()), (24, 3));
        remarks.back_to(mark);
        assert_eq!((remarks.list().len(), remarks.more()), (20, 0));
    }
}
