//! What a plan is made from.

use crate::platform::Platform;
use crate::policy::Policy;
use crate::topology::{NodeId, Tree};

/// What a plan is made from.
#[derive(Clone, Copy)]
pub(super) struct PlanInput<'a> {
    pub(super) platform: &'a Platform<'a>,
    pub(super) tree: Tree<'a>,
    pub(super) policy: &'a Policy<'a>,
    /// All devices by place.
    pub(super) devices: &'a [NodeId],
}

impl PlanInput<'_> {
    /// The devices that no request names.
    pub(super) fn unrequested(&self) -> impl Iterator<Item = NodeId> {
        let Self { tree, policy, devices, .. } = *self;
        devices.iter().copied().filter(move |id| {
            let path = tree.path(*id);
            !policy.requests.iter().any(|request| request.device == path)
        })
    }
}
