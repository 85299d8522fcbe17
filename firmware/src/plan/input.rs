//! What a plan is made from.

use core::ptr;

use super::node_use::NodeUse;
use crate::error::Code;
use crate::platform::Platform;
use crate::policy::{BrokenSets, EarlierRange, OnFailure, Policy, SetRequest};
use crate::topology::{NodeId, Partition, Path, Tree};

/// What a plan is made from.
#[derive(Clone, Copy)]
pub(super) struct PlanInput<'a> {
    pub(super) platform: &'a Platform<'a>,
    pub(super) tree: Tree<'a>,
    pub(super) policy: &'a Policy<'a>,
    /// All devices by place, those that are lost too.
    pub(super) devices: &'a [NodeId],
    /// Where the rest may go on: the sets that name their members and have no place.
    pub(super) nowhere: &'a [SetNowhere],
}

/// A set that names its members and has no place: its number in the policy, and the refusal.
pub(super) type SetNowhere = (u16, Code);

impl<'a> PlanInput<'a> {
    /// The earlier range that led to a device.
    pub(super) fn earlier(
        &self,
        device: NodeId,
        partition: Partition,
        used: &[NodeUse],
    ) -> Option<&'a EarlierRange> {
        let number = used.get(usize::from(device.0))?.earlier(partition);
        self.policy.earlier.get(usize::from(number).checked_sub(1)?)
    }

    /// Whether a set that names its members lost one, or has no place.
    pub(super) fn is_broken(&self, set: &SetRequest) -> bool {
        let Self { tree, policy, .. } = *self;
        let is_it = |number: u16| {
            policy.sets.get(usize::from(number)).is_some_and(|other| ptr::eq(other, set))
        };
        policy.on_failure == OnFailure::BestEffort
            && (self.nowhere.iter().any(|(number, _)| is_it(*number))
                || set.members.iter().any(|member| {
                    tree.device_at(member).is_none_or(|device| tree.fault(device).is_some())
                }))
    }

    /// Whether a request for a device at a place is an error: there is none. With best effort it is a loss, which
    /// is remarked before the plan.
    pub(super) fn is_unknown(&self, place: &Path) -> bool {
        let best_effort = self.policy.on_failure == OnFailure::BestEffort;
        !best_effort && self.tree.device_at(place).is_none()
    }

    /// Whether the policy wants some kind of a device's memory: of one that it names, what it names.
    #[inline(never)]
    pub(super) fn is_asked_for(&self, device: NodeId, partition: Partition) -> bool {
        let Policy { requests, sets, .. } = *self.policy;
        let path = self.tree.path(device);
        self.is_unrequested(device)
            || requests.iter().any(|request| {
                request.device == path && request.partition == partition && request.size != Some(0)
            })
            || sets.iter().any(|set| set.partition == partition && set.members.contains(&path))
    }

    /// Whether no request names a device, nor a set that can be made.
    #[inline(never)]
    fn is_unrequested(&self, device: NodeId) -> bool {
        let Policy { requests, sets, broken_sets, .. } = *self.policy;
        let path = self.tree.path(device);
        let unused = broken_sets == BrokenSets::Unused;
        let is_free = |set| self.is_broken(set) && !unused;
        !requests.iter().any(|request| request.device == path)
            && sets.iter().all(|set| !set.members.contains(&path) || is_free(set))
    }

    /// The devices that may be used.
    pub(super) fn sound(self) -> impl Iterator<Item = NodeId> {
        self.devices.iter().copied().filter(move |id| self.tree.fault(*id).is_none())
    }

    /// Those of them that no request names.
    pub(super) fn unrequested(self) -> impl Iterator<Item = NodeId> {
        self.sound().filter(move |id| self.is_unrequested(*id))
    }

    /// The same, and those that are lost, where the rest goes on.
    pub(super) fn unrequested_and_lost(self) -> impl Iterator<Item = NodeId> {
        let best_effort =
            cfg!(feature = "degrade") && self.policy.on_failure == OnFailure::BestEffort;
        let may_be = move |id: &NodeId| best_effort || self.tree.fault(*id).is_none();
        { self.devices }.iter().copied().filter(may_be).filter(move |id| self.is_unrequested(*id))
    }
}
