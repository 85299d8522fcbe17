//! What exists: host bridges, ports, switches and devices, as a flat tree.
//!
//! **Invariant**: a node's parent stands before it, and every way from a node to its host bridge
//! ends after at most [`MAX_DEPTH`] steps.

mod remark;

use cxl_regs::access::Component;
use cxl_regs::config::{Sbdf, Windows};
use cxl_regs::dvsec::flex_bus;
use cxl_regs::hdm::Capability;
use heapless::Vec;

pub use crate::path::{MAX_DEPTH, Partition, Path};
pub use remark::Remarks;

use crate::error::Error;
use crate::list::{Empty, List};
use crate::mmio::Block;
use crate::platform::RootBus;

/// A node of a [`Topology`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(
    /// Index into [`Topology::nodes`].
    pub u16,
);

impl Empty for NodeId {
    const EMPTY: Self = Self(0);
}

/// An HDM decoder capability: where, and what it can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hdm {
    /// The structure's registers.
    pub block: Block,
    /// Its capability register, read once.
    pub capability: Capability,
    /// Number of decoders that may be used: `capability.decoders()`, judged; fewer where one failed, as
    /// hardware commits them in order.
    pub decoders: u8,
    /// Those of them, by bit, that are in use and serve nothing: a bring-up that is content with the rest
    /// lost what they lead to, and cannot take them back.
    pub lost: u32,
}

impl Hdm {
    /// Whether what a decoder leads to is lost.
    pub fn is_lost(&self, index: u8) -> bool {
        index >= self.decoders || self.lost & Self::bit(index) != 0
    }

    /// Whether it has more decoders than may be used, as one failed.
    pub(crate) fn is_cut(&self) -> bool {
        self.capability.decoders().is_some_and(|decoders| self.decoders < decoders)
    }

    /// Says that what a decoder leads to is lost.
    pub(crate) fn lose(&mut self, index: u8) {
        self.lost |= Self::bit(index);
    }

    fn bit(index: u8) -> u32 {
        1u32.checked_shl(index.into()).unwrap_or(0)
    }
}

impl Empty for Hdm {
    const EMPTY: Self =
        Self { block: Block(0), capability: Capability::new(), decoders: 0, lost: 0 };
}

/// A BI decoder or BI route table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackInvalidate {
    /// The structure's registers.
    pub block: Block,
    /// A device that can also be coherent without it (HDM-D); false in ports.
    pub hdm_d: bool,
}

/// A CXL.mem device's class of memory protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKind {
    /// CXL.cache and CXL.mem: an accelerator.
    Type2,
    /// CXL.mem without CXL.cache: a memory expander.
    Type3,
}

/// How the sizes of a device's partitions were learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CapacitySource {
    /// The device's mailbox (Identify Memory Device, Get Partition Info).
    Mailbox,
    /// The range registers' media type.
    RangeRegisters,
    /// Range registers that name no media type and no mailbox to ask: taken as volatile.
    AssumedVolatile,
}

/// What is known of a memory device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Type 2 or Type 3.
    pub kind: DeviceKind,
    /// The CXL Device DVSEC in configuration space.
    pub dvsec: Block,
    /// Volatile bytes, from DPA 0.
    pub volatile: u64,
    /// Persistent bytes, behind the volatile ones.
    pub persistent: u64,
    /// How these sizes were learned.
    pub source: CapacitySource,
}

impl Device {
    /// Bytes of one partition.
    pub fn capacity(&self, partition: Partition) -> u64 {
        match partition {
            Partition::Volatile => self.volatile,
            Partition::Persistent => self.persistent,
        }
    }

    /// First DPA of one partition.
    pub fn start(&self, partition: Partition) -> u64 {
        match partition {
            Partition::Volatile => 0,
            Partition::Persistent => self.volatile,
        }
    }
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A host bridge, by ACPI UID.
    HostBridge {
        /// Its `_UID`.
        uid: u32,
    },
    /// A root port.
    RootPort,
    /// A switch's upstream port.
    UpstreamPort,
    /// A switch's downstream port.
    DownstreamPort,
    /// A memory device.
    Device(Device),
}

/// One component of the hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// The next component towards the host; `None` for a host bridge.
    pub parent: Option<NodeId>,
    /// What it is.
    pub kind: NodeKind,
    /// PCIe Port Number (Link Capabilities 31:24) of a root or downstream port; else 0.
    pub port: u8,
    /// PCI function; `None` for a host bridge.
    pub function: Option<Sbdf>,
    /// Decoders that count: a host bridge's, an upstream port's or a device's. Root ports may
    /// carry the capability too; theirs is never used.
    pub hdm: Option<Hdm>,
    /// BI decoder (port, device) or BI route table (upstream port).
    pub back_invalidate: Option<BackInvalidate>,
    /// Why neither it nor anything below it is used: what a bring-up that is content with the rest
    /// ([`OnFailure::BestEffort`](crate::policy::OnFailure)) met there, or that it did not answer when a
    /// strict one failed. One that is no [failure](Error::is_failure) is no loss: a CXL 1.1 host is not
    /// this library's to use.
    pub fault: Option<Error>,
}

impl Empty for Node {
    const EMPTY: Self = Self {
        parent: None,
        kind: NodeKind::RootPort,
        port: 0,
        function: None,
        hdm: None,
        back_invalidate: None,
        fault: None,
    };
}

impl Node {
    /// The kind of decoders it has; `None` for a port that has none that count.
    pub fn component(&self) -> Option<Component> {
        match self.kind {
            NodeKind::HostBridge { .. } => Some(Component::HostBridge),
            NodeKind::UpstreamPort => Some(Component::UpstreamPort),
            NodeKind::Device(_) => Some(Component::Device),
            NodeKind::RootPort | NodeKind::DownstreamPort => None,
        }
    }

    /// The device, if it is one.
    pub fn device(&self) -> Option<&Device> {
        match &self.kind {
            NodeKind::Device(device) => Some(device),
            _ => None,
        }
    }
}

/// What a node leads to: discovery's notes on a [`Node`].
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// The bus below; `None` below a device.
    pub(crate) bus: Option<RootBus>,
    /// The last bus below.
    pub(crate) last: u8,
    /// What a port forwards; nothing is known of a host bridge's.
    pub(crate) windows: Option<Windows>,
    /// What the link next to the function trained to, if the function says.
    pub(crate) status: Option<flex_bus::Status>,
}

impl Empty for Link {
    const EMPTY: Self = Self { bus: None, last: 0, windows: None, status: None };
}

/// Everything that was found. `N` nodes: bridges, ports and devices together.
///
/// About 160 bytes a node; keep it in a static or on a stack that has room, and pass it by
/// reference.
#[derive(Clone, Debug, Default)]
pub struct Topology<const N: usize> {
    /// All nodes, each behind its parent.
    pub nodes: Vec<Node, N>,
    pub(crate) links: Vec<Link, N>,
    /// What answered and is no node, or more than its node says.
    pub remarks: Remarks,
}

impl<const N: usize> Topology<N> {
    /// An empty one.
    pub const fn new() -> Self {
        Self { nodes: Vec::new(), links: Vec::new(), remarks: Remarks::new() }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        TopologyMut::from(self).clear();
    }

    /// The nodes, with the walks over them.
    pub fn tree(&self) -> Tree<'_> {
        Tree(&self.nodes)
    }
}

/// A topology to be filled, in memory of any size.
#[derive(Debug)]
pub struct TopologyMut<'a> {
    /// All nodes, each behind its parent.
    pub nodes: List<'a, Node>,
    /// As many as there are nodes; means nothing to anybody but discovery.
    pub links: List<'a, Link>,
    /// What answered and is no node, or more than its node says.
    pub remarks: &'a mut Remarks,
}

impl TopologyMut<'_> {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.nodes.clear();
        self.links.clear();
        self.remarks.clear();
    }

    /// The same topology for a shorter time.
    pub fn reborrow(&mut self) -> TopologyMut<'_> {
        let Self { nodes, links, remarks } = self;
        TopologyMut { nodes: nodes.reborrow(), links: links.reborrow(), remarks }
    }
}

impl<'a, const N: usize> From<&'a mut Topology<N>> for TopologyMut<'a> {
    fn from(topology: &'a mut Topology<N>) -> Self {
        let Topology { nodes, links, remarks } = topology;
        Self { nodes: nodes.into(), links: links.into(), remarks }
    }
}

impl<'a> From<&'a mut TopologyMut<'_>> for TopologyMut<'a> {
    fn from(topology: &'a mut TopologyMut<'_>) -> Self {
        topology.reborrow()
    }
}

impl<'a> From<&'a TopologyMut<'_>> for Tree<'a> {
    fn from(topology: &'a TopologyMut<'_>) -> Self {
        Tree(&topology.nodes)
    }
}

impl<'a, const N: usize> From<&'a Topology<N>> for Tree<'a> {
    fn from(topology: &'a Topology<N>) -> Self {
        topology.tree()
    }
}

/// Read-only walks over a topology's nodes.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a>(
    /// The nodes, each behind its parent.
    pub &'a [Node],
);

impl<'a> Tree<'a> {
    /// The node with this id.
    pub fn get(self, id: NodeId) -> Option<&'a Node> {
        self.0.get(usize::from(id.0))
    }

    /// All nodes with their ids.
    pub fn iter(self) -> impl Iterator<Item = (NodeId, &'a Node)> + Clone {
        self.0.iter().enumerate().map(|(index, node)| (NodeId(index as u16), node))
    }

    /// Why a node is not used, if it is not: its own fault, or that of the next component above it
    /// that has one.
    pub fn fault(self, of: NodeId) -> Option<Error> {
        self.upwards(of).find_map(|(_, node)| node.fault)
    }

    /// Whether what a component's decoder leads to is lost.
    pub(crate) fn is_lost(self, id: NodeId, index: u8) -> bool {
        let hdm = self.get(id).and_then(|node| node.hdm);
        self.fault(id).is_some() || hdm.is_none_or(|hdm| hdm.is_lost(index))
    }

    /// The nodes that may be used, with their ids: those without a [`fault`](Self::fault).
    pub fn sound(self) -> impl Iterator<Item = (NodeId, &'a Node)> + Clone {
        self.iter().filter(move |(id, _)| self.fault(*id).is_none())
    }

    /// All devices.
    pub fn devices(self) -> impl Iterator<Item = (NodeId, &'a Device)> + Clone {
        self.iter().filter_map(|(id, node)| Some((id, node.device()?)))
    }

    /// The children of a node.
    pub fn children(self, parent: NodeId) -> impl Iterator<Item = (NodeId, &'a Node)> + Clone {
        self.iter().filter(move |(_, node)| node.parent == Some(parent))
    }

    /// The child of a node with a port number.
    pub(crate) fn child_at(self, parent: NodeId, port: u8) -> Option<NodeId> {
        self.children(parent).find(|(_, child)| child.port == port).map(|(id, _)| id)
    }

    /// All devices behind a node, at any depth.
    pub(crate) fn devices_below(self, node: NodeId) -> impl Iterator<Item = NodeId> + Clone {
        let below = move |id: &NodeId| self.upwards(*id).any(|(above, _)| above == node);
        self.devices().map(|(id, _)| id).filter(below)
    }

    /// The node itself, then everything above it, the host bridge last.
    pub fn upwards(self, from: NodeId) -> impl Iterator<Item = (NodeId, &'a Node)> + Clone {
        let step = move |id: NodeId| self.get(id).map(|node| (id, node));
        core::iter::successors(step(from), move |(_, node)| step(node.parent?)).take(MAX_DEPTH + 2)
    }

    /// The host bridge above a node and its UID.
    pub fn bridge(self, of: NodeId) -> Option<(NodeId, u32)> {
        self.upwards(of).find_map(|(id, node)| match node.kind {
            NodeKind::HostBridge { uid } => Some((id, uid)),
            _ => None,
        })
    }

    /// A node's place in words that survive renumbering.
    pub fn path(self, of: NodeId) -> Path {
        let mut uid = 0;
        let mut ports: Vec<u8, MAX_DEPTH> = Vec::new();
        for (_, node) in self.upwards(of) {
            match node.kind {
                NodeKind::HostBridge { uid: found } => uid = found,
                NodeKind::RootPort | NodeKind::DownstreamPort => {
                    let _ = ports.push(node.port);
                }
                NodeKind::UpstreamPort | NodeKind::Device(_) => {}
            }
        }
        ports.reverse();
        Path::new(uid, &ports).unwrap_or_default()
    }

    /// The device at a place.
    pub fn device_at(self, path: &Path) -> Option<NodeId> {
        self.devices().map(|(id, _)| id).find(|id| self.path(*id) == *path)
    }
}
