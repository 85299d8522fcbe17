//! What a plan uses of each node: decoders, addresses, memory.

use cxl_regs::{Coherency, Hpa};

use super::Why;
use crate::list::Empty;
use crate::topology::{NodeId, Partition, Tree};

/// What the plan uses of one node.
#[derive(Clone, Copy, Debug)]
pub struct NodeUse {
    /// Steps from its host bridge.
    pub(super) depth: u8,
    /// Components directly below it.
    pub(super) children: u16,
    /// Place in the order of commit.
    pub(super) rank: u16,
    /// Next free decoder.
    pub(super) next: u8,
    /// The last region that has a decoder here, plus one.
    pub(super) last_region: u16,
    /// Where the last decoder's range starts and ends.
    pub(super) hpa_base: Hpa,
    pub(super) hpa_end: Hpa,
    /// Where a device's last decoder ends in DPA.
    pub(super) dpa_end: u64,
    /// Bytes of each partition that are in regions, or left out in front of one.
    taken: [u64; 2],
    /// Where a device's memory goes, for each partition, if the policy gives widths.
    sharing: [Option<Sharing>; 2],
    /// The number, from 1, of the earlier range of each partition.
    earlier: [u16; 2],
    /// Of which partitions nothing is planned, and why.
    withheld: [Option<Why>; 2],
    /// Of which partitions the set has lost a member.
    apart: [bool; 2],
}

impl Empty for NodeUse {
    const EMPTY: Self = Self {
        depth: 0,
        children: 0,
        rank: 0,
        next: 0,
        last_region: 0,
        hpa_base: Hpa(0),
        hpa_end: Hpa(0),
        dpa_end: 0,
        taken: [0; 2],
        sharing: [None; 2],
        earlier: [0; 2],
        withheld: [None; 2],
        apart: [false; 2],
    };
}

/// The window that a device was given to, and its coherency there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sharing {
    pub(super) window: Hpa,
    pub(super) coherency: Coherency,
}

/// What is of one kind of memory, of two that are of both.
fn of<T>([volatile, persistent]: [T; 2], partition: Partition) -> T {
    match partition {
        Partition::Volatile => volatile,
        Partition::Persistent => persistent,
    }
}

impl NodeUse {
    pub(super) fn sharing(&self, partition: Partition) -> Option<Sharing> {
        of(self.sharing, partition)
    }

    pub(super) fn sharing_mut(&mut self, partition: Partition) -> &mut Option<Sharing> {
        of(self.sharing.each_mut(), partition)
    }

    /// Nothing is used; what is withheld stays so.
    pub(super) fn restart(&mut self) {
        *self = Self { withheld: self.withheld, ..Self::EMPTY };
    }

    pub(super) fn withheld(&self, partition: Partition) -> Option<Why> {
        of(self.withheld, partition)
    }

    /// Whether it has memory that goes on without some of the rest.
    pub(crate) fn withholds(&self) -> bool {
        self.count_withheld() > 0
    }

    /// Whether it is what is left of a set that lost a member, or that member.
    pub(super) fn is_apart(&self, partition: Partition) -> bool {
        of(self.apart, partition)
    }

    pub(super) fn set_apart(&mut self, partition: Partition) {
        *of(self.apart.each_mut(), partition) = true;
    }

    pub(super) fn count_withheld(&self) -> usize {
        self.withheld.into_iter().flatten().count()
    }

    pub(super) fn withhold(&mut self, partition: Partition, why: Why) {
        *of(self.withheld.each_mut(), partition) = Some(why);
    }

    pub(super) fn withhold_nothing(&mut self) {
        self.withheld = [None; 2];
    }

    pub(super) fn earlier(&self, partition: Partition) -> u16 {
        of(self.earlier, partition)
    }

    pub(super) fn earlier_mut(&mut self, partition: Partition) -> &mut u16 {
        of(self.earlier.each_mut(), partition)
    }

    pub(super) fn taken(&self, partition: Partition) -> u64 {
        of(self.taken, partition)
    }

    pub(super) fn take(&mut self, partition: Partition, size: u64) {
        let taken = of(self.taken.each_mut(), partition);
        *taken = taken.saturating_add(size);
    }
}

pub(super) fn used_mut(used: &mut [NodeUse], id: NodeId) -> Option<&mut NodeUse> {
    used.get_mut(usize::from(id.0))
}

/// Bytes of a partition that no region has taken or left out; none of one that is withheld.
pub(super) fn left(tree: Tree<'_>, id: NodeId, partition: Partition, used: &[NodeUse]) -> u64 {
    let used = used.get(usize::from(id.0));
    if used.is_some_and(|used| used.withheld(partition).is_some()) {
        return 0;
    }
    let capacity =
        tree.get(id).and_then(|node| node.device()).map_or(0, |device| device.capacity(partition));
    capacity.saturating_sub(used.map_or(0, |used| used.taken(partition)))
}
