//! The plan: which decoder of which component will claim which range. Plain data, made before any
//! register is written.
//!
//! **Invariant**: a plan that was made breaks no rule of the specification and none of the target
//! system's; what would is a [`PlanError`] that carries the numbers. The same platform, topology
//! and policy give the same plan in whatever order they are listed.

mod error;
mod place;
mod text;

use cxl_regs::access::Component;
use cxl_regs::{Coherency, Decoder, Dpa, Levels, Route, Span, Targets};
use heapless::Vec;

pub use error::{Count, PlanError};

use crate::platform::Platform;
use crate::policy::{PathPolicy, Policy, TargetSystem};
use crate::topology::{NodeId, NodeKind, Partition, Topology, Tree};

/// A range of host addresses and the set of devices behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Base of the window it lies in.
    pub window: u64,
    /// The host addresses, all ways of it.
    pub span: Span,
    /// Interleave of every level of the path.
    pub levels: Levels,
    /// Who keeps it coherent.
    pub coherency: Coherency,
    /// Kind of memory.
    pub partition: Partition,
    /// Place of its members in [`Plan::members`]: as many as the levels have ways.
    pub(crate) first_member: u16,
    pub(crate) member_count: u16,
}

/// One device's share of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The device.
    pub device: NodeId,
    /// Its own addresses.
    pub dpa: Span<Dpa>,
}

/// What a decoder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It carries a region.
    Region {
        /// Index into [`Plan::regions`].
        region: u16,
        /// What to program.
        decoder: Decoder,
    },
    /// A spare one, committed and locked at size 0 so that nobody can use it.
    Burn {
        /// Base to program: the end of the decoder before, so that order checks hold.
        base: u64,
    },
}

/// One decoder of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedDecoder {
    /// The component.
    pub node: NodeId,
    /// Decoder number in the component.
    pub index: u8,
    /// What it is for.
    pub purpose: Purpose,
}

/// Something the owner should know although nothing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A bridge without decoders forwards everything to its only port: there is nothing to program
    /// or lock. Linux does not assemble regions behind it ("failed to find decoder mapping").
    PassThrough {
        /// The bridge's UID.
        uid: u32,
    },
    /// Memory that no region covers.
    Unused {
        /// The device.
        device: NodeId,
        /// Which part of its memory.
        partition: Partition,
        /// Bytes.
        size: u64,
    },
    /// Path 2: the guest programs this device's decoders.
    GuestPrograms {
        /// The device.
        device: NodeId,
    },
}

/// The decoders of the whole path for every region.
///
/// `R` regions; `D` members and `D` decoders and `D` notes. About 120 bytes a region and 250 for
/// each of `D`: keep it in a static or pass it by reference. [`plan`] itself needs 24 bytes of
/// stack a node of the topology.
#[derive(Clone, Debug)]
pub struct Plan<const R: usize, const D: usize> {
    /// Regions by ascending address.
    pub regions: Vec<Region, R>,
    /// Members of all regions; see [`Plan::members`].
    pub(crate) members: Vec<Member, D>,
    /// Decoders in order of commit: devices, then switches from the bottom up, then host bridges;
    /// within a component by number.
    pub decoders: Vec<PlannedDecoder, D>,
    /// What the owner should know.
    pub notes: Vec<Note, D>,
}

impl<const R: usize, const D: usize> Default for Plan<R, D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const R: usize, const D: usize> Plan<R, D> {
    /// An empty one.
    pub const fn new() -> Self {
        Self {
            regions: Vec::new(),
            members: Vec::new(),
            decoders: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.regions.clear();
        self.members.clear();
        self.decoders.clear();
        self.notes.clear();
    }

    /// The members of a region in order of position.
    pub fn members(&self, region: &Region) -> &[Member] {
        let first = usize::from(region.first_member);
        self.members.get(first..first + usize::from(region.member_count)).unwrap_or(&[])
    }

    /// The decoders of one component, by number.
    pub fn decoders_of(&self, node: NodeId) -> impl Iterator<Item = &PlannedDecoder> {
        self.decoders.iter().filter(move |decoder| decoder.node == node)
    }
}

/// Decides where everything goes, or says why it cannot; touches no hardware.
///
/// On an error the plan is left empty.
pub fn plan<const N: usize, const R: usize, const D: usize>(
    platform: &Platform<'_>,
    topology: &Topology<N>,
    policy: &Policy<'_>,
    plan: &mut Plan<R, D>,
) -> Result<(), PlanError> {
    plan.clear();
    let result = fill::<N, R, D>(platform, topology.tree(), policy, plan);
    if result.is_err() {
        plan.clear();
    }
    result
}

fn fill<const N: usize, const R: usize, const D: usize>(
    platform: &Platform<'_>,
    tree: Tree<'_>,
    policy: &Policy<'_>,
    plan: &mut Plan<R, D>,
) -> Result<(), PlanError> {
    check_platform(platform, tree)?;
    if policy.burn_spares && policy.target == TargetSystem::Linux {
        return Err(PlanError::LinuxRefusesBurnedDecoders);
    }
    if policy.burn_spares && policy.path != PathPolicy::LockAll {
        return Err(PlanError::BurnWithoutLock);
    }
    let mut order: Vec<NodeId, N> = Vec::new();
    for (id, _) in tree.devices() {
        order.push(id).map_err(|_| PlanError::Capacity { what: Count::Nodes, have: N })?;
    }
    order.sort_unstable_by_key(|id| tree.path(*id));
    for id in &order {
        check_ports(tree, *id)?;
    }
    if policy.path == PathPolicy::GuestPrograms {
        for id in &order {
            check_guest_programs(platform, tree, *id)?;
            note(plan, Note::GuestPrograms { device: *id })?;
        }
        return Ok(());
    }
    let _ = place::regions;
    Ok(())
}
