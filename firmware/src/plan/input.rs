//! What a plan is made from.

use super::node_use::NodeUse;
use crate::platform::Platform;
use crate::policy::{EarlierRange, Policy};
use crate::topology::{NodeId, Partition, Tree};

/// What a plan is made from.
#[derive(Clone, Copy)]
pub(super) struct PlanInput<'a> {
    pub(super) platform: &'a Platform<'a>,
    pub(super) tree: Tree<'a>,
    pub(super) policy: &'a Policy<'a>,
    /// All devices by place.
    pub(super) devices: &'a [NodeId],
}

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

    /// The devices that no request names.
    pub(super) fn unrequested(&self) -> impl Iterator<Item = NodeId> {
        let Self { tree, policy, devices, .. } = *self;
        devices.iter().copied().filter(move |id| {
            let path = tree.path(*id);
            !policy.requests.iter().any(|request| request.device == path)
        })
    }
}
