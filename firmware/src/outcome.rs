//! What became of each component: in use, or why not.
//!
//! **Invariant**: every node of the topology has one outcome, and so has whatever discovery remarked
//! that it lost, left out or found without CXL.mem. Only what registers were read to claim is in use.

use crate::committed::CommittedRef;
use crate::error::{Code, Error, Place};
use crate::list::Empty;
use crate::platform::claims;
use crate::topology::{NodeId, NodeKind, Remarks, Tree};

/// What a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComponentKind {
    /// A memory device.
    Device,
    /// A host bridge.
    HostBridge,
    /// A switch's upstream port.
    UpstreamPort,
    /// A root port.
    RootPort,
    /// A switch's downstream port.
    DownstreamPort,
}

impl From<NodeKind> for ComponentKind {
    fn from(kind: NodeKind) -> Self {
        match kind {
            NodeKind::HostBridge { .. } => Self::HostBridge,
            NodeKind::RootPort => Self::RootPort,
            NodeKind::UpstreamPort => Self::UpstreamPort,
            NodeKind::DownstreamPort => Self::DownstreamPort,
            NodeKind::Device(_) => Self::Device,
        }
    }
}

/// What became of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A region leads through it, or to it.
    InUse,
    /// The policy left it out: [`DISCOVER_LEFT_OUT`](Code::DISCOVER_LEFT_OUT) at the place that the
    /// policy names, or at the function that it identifies.
    LeftOut(Error),
    /// It failed, or what it cannot do without did.
    Broken(Error),
    /// It is of CXL, and has no CXL.mem that could be used.
    NotMem(Error),
    /// Nothing is wrong, and no region needs it.
    Unused,
}

impl Outcome {
    /// Why it is not in use, where there is an error or remark that says so.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::LeftOut(error) | Self::Broken(error) | Self::NotMem(error) => Some(error),
            Self::InUse | Self::Unused => None,
        }
    }
}

/// A component and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComponentOutcome {
    /// Where it is.
    pub at: Place,
    /// What it is, if anybody came to know.
    pub kind: Option<ComponentKind>,
    /// What became of it.
    pub outcome: Outcome,
}

impl Empty for ComponentOutcome {
    const EMPTY: Self = Self { at: Place::NOWHERE, kind: None, outcome: Outcome::Unused };
}

/// How much of what is wanted is in use.
#[must_use = "with best effort, some of the memory may be lost"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// Less: nodes have a [`fault`](crate::topology::Node::fault), or [`Remarks::lost`] is not 0. What
    /// [`LeaveOut`](crate::policy::LeaveOut) names is not wanted, and no loss.
    Less {
        /// How many components failed, with all that lies below them.
        lost: u16,
    },
}

/// The outcome of everything that was found: of each node in the order of the topology, then of what
/// became no node.
pub fn outcomes<'a>(
    topology: impl Into<Tree<'a>>,
    remarks: &'a Remarks,
    committed: impl Into<CommittedRef<'a>>,
) -> impl Iterator<Item = ComponentOutcome> + 'a {
    let (tree, committed) = (topology.into(), committed.into());
    let nodes = tree.iter().map(move |(id, node)| ComponentOutcome {
        at: tree.path(id).into(),
        kind: Some(node.kind.into()),
        outcome: match tree.fault(id) {
            Some(error) => Outcome::Broken(error),
            None if is_in_use(tree, committed, id) => Outcome::InUse,
            None => Outcome::Unused,
        },
    });
    nodes.chain(remarks.list().iter().filter_map(of_remark))
}

/// Whether a region leads to a node or to a device below it.
fn is_in_use(tree: Tree<'_>, committed: CommittedRef<'_>, id: NodeId) -> bool {
    committed.decoders.iter().any(|entry| {
        let is_device = tree.get(entry.node).is_some_and(|node| node.device().is_some());
        is_device
            && tree.upwards(entry.node).any(|(above, _)| above == id)
            && entry.active().is_some_and(|decoder| {
                committed.regions.iter().any(|region| claims(decoder, region.span))
            })
    })
}

/// The outcome of what a remark is about, where that is a component.
#[inline(never)]
pub(crate) fn of_remark(remark: &Error) -> Option<ComponentOutcome> {
    let outcome = match remark.code {
        Code::DISCOVER_LEFT_OUT => Outcome::LeftOut(*remark),
        Code::DISCOVER_NO_MEM
        | Code::DISCOVER_INCOMPLETE
        | Code::DISCOVER_MISPLACED
        | Code::DISCOVER_LINK_WITHOUT_CXL => Outcome::NotMem(*remark),
        code if code.is_failure() => Outcome::Broken(*remark),
        _ => return None,
    };
    Some(ComponentOutcome { at: remark.at, kind: None, outcome })
}
