//! Discovery: from root buses and register blocks to a [`Topology`](crate::topology::Topology).
//!
//! What is found is used as it is found: bus numbers, windows and BARs. Where everything is
//! assigned, discovery writes nothing but the Memory Space bit of CXL functions that have it off,
//! and the mailboxes of devices that have one. What is not assigned is assigned from the bridge's
//! [`Platform::resources`], or refused by name where it has none.
//!
//! A node is made for: every host bridge of the platform, of CXL 1.1 ones with a fault that is no loss; every root port with CXL DVSECs on its
//! root bus; below such a port every switch port with CXL DVSECs, and every endpoint with a CXL
//! Device DVSEC that has CXL.mem. Everything else is passed over, and so is what is behind it; what
//! could be missed is a remark of the topology's.
//!
//! **Invariant**: every register is read once, but for those that are waited for and the Vendor ID
//! of what is passed over; nothing that answered is left without a word; every bus is visited once,
//! so the work is bounded by the number of nodes that fit. On an error the topology is empty. Needs
//! about 7 KiB of stack and 65 bytes for each node that fits.

mod assign;
mod capacity;
mod component;
mod error;
mod facts;
mod function;

use core::iter::from_fn;

pub use crate::topology::Remarks;
use cxl_regs::access::{Component, Register, Spec};
use cxl_regs::config::{BridgeHeader, BusNumbers, HeaderType, Id, Sbdf, Windows};
use cxl_regs::dvsec::DvsecId;
use cxl_regs::dvsec::flex_bus;
use cxl_regs::dvsec::locator::BLOCK_ALIGNMENT;
use cxl_regs::{Hpa, Span};

use crate::built::Feature;
use crate::config::{Cache, Config, bus_base};
use crate::error::{Code, Error, Failed, Place};
use crate::list::{Empty, List};
use crate::mmio::{Clock, Mmio};
use crate::platform::{Bridge, BridgeKind, Platform, RootBus};
use crate::policy::{LeaveOut, OnFailure, Policy};
use crate::topology::{
    Device, DeviceKind, Link, MAX_DEPTH, Node, NodeId, NodeKind, Path, TopologyMut, Tree,
};
use crate::window_check;
use capacity::Capacity;
use component::{Structures, structures};
use error::{NoRootBus, Unassigned};
pub(crate) use facts::{FunctionFacts, facts, memory_of};
use function::{Blocks, CxlFunction, Functions, Role, Sighting};

/// What looks at one function or block at a time, for whoever walks otherwise.
pub(crate) mod leaf {
    pub(crate) use super::capacity::{Capacity, capacity, mem_capability};
    pub(crate) use super::component::{Structures, structures};
    pub(crate) use super::error::Unassigned;
    pub(crate) use super::function::{
        Blocks, CxlFunction, Functions, RegisterBlock, Role, Sighting, answers, sound,
    };
    pub(crate) use super::{bus_range_end, by_uid, check_bridge, link_status, open};
}

/// Finds everything below the platform's bridges and writes it to `topology`.
///
/// Nodes stand in order of [`Path`]: bridges by UID, below each its ports
/// and devices level by level in order of port number, in whatever order the platform lists bridges.
pub fn discover<'a>(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    topology: impl Into<TopologyMut<'a>>,
) -> Result<(), Error> {
    fill(hw, clock, platform, &Search::default(), topology.into())
}

/// What [`discover_as`] looks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Search<'a> {
    /// Whether a component that cannot be made sense of is an error, or costs itself and what lies
    /// below it; the error is a remark then.
    pub on_failure: OnFailure,
    /// What is not to be touched.
    pub leave_out: &'a [LeaveOut],
}

impl<'a> From<&Policy<'a>> for Search<'a> {
    fn from(policy: &Policy<'a>) -> Self {
        Self { on_failure: policy.on_failure, leave_out: policy.leave_out }
    }
}

/// As [`discover`], as a policy wants it.
pub fn discover_as<'a, 's>(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    search: impl Into<Search<'s>>,
    topology: impl Into<TopologyMut<'a>>,
) -> Result<(), Error> {
    fill(hw, clock, platform, &search.into(), topology.into())
}

// Compiled once, whatever the topology lies in.
#[inline(never)]
fn fill(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    search: &Search<'_>,
    mut topology: TopologyMut<'_>,
) -> Result<(), Error> {
    topology.clear();
    let TopologyMut { nodes, links, remarks } = topology.reborrow();
    let mut cache = Cache::new();
    let (config, assigned) = (Config::new(&mut cache), false);
    let mut walk = Walk { hw, clock, platform, search, nodes, links, remarks, config, assigned };
    let result = walk.all();
    if result.is_err() {
        topology.clear();
    }
    result
}

/// RCRBs are pages.
const RCRB_ALIGNMENT: u64 = 1 << 12;

struct Walk<'a, M, C> {
    hw: &'a mut M,
    clock: &'a mut C,
    platform: &'a Platform<'a>,
    search: &'a Search<'a>,
    nodes: List<'a, Node>,
    /// What each node leads to, in the order of the nodes.
    links: List<'a, Link>,
    remarks: &'a mut Remarks,
    config: Config<'a>,
    /// What was missing below the bridge has been assigned.
    assigned: bool,
}

/// All bridges by ascending UID, each UID once.
pub(crate) fn by_uid(bridges: &[Bridge]) -> impl Iterator<Item = &Bridge> {
    let mut last = None;
    from_fn(move || {
        let bridge = above(bridges, last)?;
        last = Some(bridge.uid);
        Some(bridge)
    })
}

/// The bridge with the lowest UID above another.
#[inline(never)]
fn above(bridges: &[Bridge], uid: Option<u32>) -> Option<&Bridge> {
    let mut next: Option<&Bridge> = None;
    for bridge in bridges {
        let lower = next.is_none_or(|next| bridge.uid < next.uid);
        if lower && uid.is_none_or(|uid| bridge.uid > uid) {
            next = Some(bridge);
        }
    }
    next
}

/// The rules on a bridge that can be told without hardware. With those of which `is_left_out` says so nothing
/// has to be shared.
#[inline(never)]
pub(crate) fn check_bridge(
    bridges: &[Bridge],
    bridge: &Bridge,
    is_left_out: impl Fn(u32) -> bool,
) -> Result<(), Error> {
    let uid = bridge.uid;
    let mut shares: Option<(u32, RootBus)> = None;
    let mut same = 0;
    for other in bridges {
        same += usize::from(other.uid == uid);
        let Some(root) = bridge.root.filter(|_| other.root == bridge.root) else { continue };
        let is_other = other.uid != uid && !is_left_out(other.uid);
        if is_other && shares.is_none_or(|(lowest, _)| other.uid < lowest) {
            shares = Some((other.uid, root));
        }
    }
    let at = Place::bridge(uid);
    match shares {
        _ if same > 1 => Err(Code::DISCOVER_DUPLICATE_UID.at(at)),
        Some((other, root)) => {
            Err(Code::DISCOVER_SHARED_ROOT_BUS.at(at).expected(root).found(other))
        }
        None => Ok(()),
    }
}

impl<M: Mmio, C: Clock> Walk<'_, M, C> {
    fn all(&mut self) -> Result<(), Error> {
        let bridges = self.platform.bridges;
        self.platform.unreadable.iter().for_each(|&error| self.remarks.add(error));
        let left_out = |uid| self.leaves_out(Path::new(uid, &[]).unwrap_or_default());
        let mut wanted = by_uid(bridges).filter(|bridge| !left_out(bridge.uid));
        if self.search.on_failure == OnFailure::Strict {
            self.platform.unread().map_or(Ok(()), Err)?;
            wanted.try_for_each(|bridge| self.alone(bridge))?;
        }
        for bridge in by_uid(bridges) {
            let at = Place::bridge(bridge.uid);
            if self.leaves_out(Path::new(bridge.uid, &[]).unwrap_or_default()) {
                self.remarks.add(Code::DISCOVER_LEFT_OUT.at(at));
                continue;
            }
            let first = self.nodes.len();
            self.assigned = false;
            let result = self.check(bridge).and_then(|()| self.bridge(bridge));
            if result.is_err() {
                self.nodes.truncate(first);
                self.links.truncate(first);
            }
            self.lost(result)?;
        }
        self.broken_windows();
        Ok(())
    }

    /// The rules on a bridge beside the others that the policy has to do with.
    fn alone(&self, bridge: &Bridge) -> Result<(), Error> {
        let left_out = |uid| self.leaves_out(Path::new(uid, &[]).unwrap_or_default());
        check_bridge(self.platform.bridges, bridge, left_out)
    }

    /// Whether a bridge may be looked at: what stands in the table of one of CXL 1.1, `restricted` says.
    #[inline(never)]
    fn check(&self, bridge: &Bridge) -> Result<(), Error> {
        self.alone(bridge)?;
        match bridge.kind {
            BridgeKind::ComponentRegisters => window_check::chbs(bridge).map(|_| ()),
            BridgeKind::Rcrb => Ok(()),
        }
    }

    /// Remarks the windows that are left alone.
    #[inline(never)]
    fn broken_windows(&mut self) {
        for window in self.platform.windows {
            let broken = window_check::broken(self.platform, self.search.on_failure, window);
            if let Some(error) = broken {
                let remark = Code::DISCOVER_WINDOW_BROKEN.at(Place::window(window.base));
                self.remarks.add(remark.window_error(error));
            }
        }
    }

    /// Whether the policy leaves out what lies at a place.
    fn leaves_out(&self, place: Path) -> bool {
        self.search.leave_out.contains(&LeaveOut::At(place))
    }

    /// An error costs the component that it is about, where that is enough: it is remarked.
    fn lost(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        let Err(error) = result else { return Ok(()) };
        // The one says nothing of a component, the other has a remedy.
        let costs_all = error.code == Code::DISCOVER_CAPACITY
            || error.code == Code::DISCOVER_UNASSIGNED && !self.assigned && self.can_assign(&error);
        if costs_all || self.search.on_failure == OnFailure::Strict {
            return Err(error);
        }
        self.remarks.add(error);
        Ok(())
    }

    fn can_assign(&self, error: &Error) -> bool {
        let mut given = self.platform.resources.iter();
        given.any(|given| Some(given.uid) == error.at.uid())
    }

    /// One bridge and everything below; a second time if something had to be assigned first.
    fn bridge(&mut self, bridge: &Bridge) -> Result<(), Error> {
        let (first, remarks) = (self.nodes.len(), self.remarks.mark());
        let result = self.hierarchy(bridge);
        let given = self.platform.resources.iter().find(|given| given.uid == bridge.uid);
        let unassigned = |error: Error| error.code == Code::DISCOVER_UNASSIGNED;
        let (true, Some(given)) = (result.is_err_and(unassigned), given) else { return result };
        if cfg!(not(feature = "assign")) {
            return Err(Feature::Assign.not_built(Place::bridge(bridge.uid)));
        }
        self.nodes.truncate(first);
        self.links.truncate(first);
        self.remarks.back_to(remarks);
        let leave_out = self.search.leave_out;
        assign::hierarchy(self.hw, &mut self.config, self.platform, bridge, given, leave_out)?;
        self.assigned = true;
        self.hierarchy(bridge)
    }

    /// A CXL 1.1 host: nothing below it is looked for, as it has no decoders that route. Its node says
    /// so, and whether the table may name it: Linux gives up every bridge for one whose RCRB it finds
    /// wanting (drivers/cxl/core/regs.c, `__rcrb_to_component`), so the same is asked here.
    fn restricted(&mut self, bridge: &Bridge) -> Result<(), Error> {
        const MEMORY_SPACE: u32 = 1 << 1;
        let (at, base) = (Place::bridge(bridge.uid), bridge.registers.0);
        let mut read = |offset| self.hw.read(base.wrapping_add(offset));
        let wrong = |what: u8, found: u32| {
            Code::DISCOVER_RCRB.at(at).detail(what).expected(base).found(found)
        };
        let fault = if !base.is_multiple_of(RCRB_ALIGNMENT) {
            wrong(0, base as u32)
        } else {
            let [id, command, low, high] = [0x00, 0x04, 0x10, 0x14].map(&mut read);
            let high = if low & 4 == 0 { 0 } else { high };
            let block = u64::from(high) << 32 | u64::from(low & !0xF);
            if id == u32::MAX {
                wrong(1, id)
            } else if command & MEMORY_SPACE == 0 {
                wrong(2, command)
            } else if low & 3 != 0 || block == 0 || !block.is_multiple_of(BLOCK_ALIGNMENT) {
                wrong(3, low)
            } else {
                Code::DISCOVER_RCH.at(at)
            }
        };
        let kind = NodeKind::HostBridge { uid: bridge.uid };
        let node = Node { kind, fault: Some(fault), ..Node::EMPTY };
        self.remarks.add(fault);
        self.insert(self.nodes.len(), node, Link::EMPTY, at).map(|_| ())
    }

    fn hierarchy(&mut self, bridge: &Bridge) -> Result<(), Error> {
        if bridge.kind == BridgeKind::Rcrb {
            return self.restricted(bridge);
        }
        let at = Place::bridge(bridge.uid);
        let Structures { hdm, .. } =
            self.structures(bridge.registers.0, Some(Component::HostBridge), at)?;
        let kind = NodeKind::HostBridge { uid: bridge.uid };
        let node = Node { parent: None, kind, port: 0, function: None, hdm, ..Node::EMPTY };
        let first = self.insert(self.nodes.len(), node, Link::EMPTY, at)?;
        self.root_bus(bridge, first)?;
        // Nodes that are added on the way are visited too.
        let mut next = first + 1;
        while let Some(Link { bus, .. }) = self.links.get(next) {
            if let Some(bus) = *bus {
                let result = self.scan(bridge.uid, next, bus);
                self.lost(result)?;
            }
            next += 1;
        }
        Ok(())
    }

    /// Finds the root bus and scans it.
    #[inline(never)]
    fn root_bus(&mut self, bridge: &Bridge, first: usize) -> Result<(), Error> {
        let at = Place::bridge(bridge.uid);
        if let Some(root) = bridge.root {
            if self.visited(root) {
                return Err(Code::DISCOVER_BUS_LOOP.at(at).found(root));
            }
            self.enter(bridge.uid, first, root)?;
            if self.nodes.len() == first + 1 {
                self.remarks.add(Code::DISCOVER_NO_PORTS.at(Place::bridge(bridge.uid)).found(root));
            }
            return Ok(());
        }
        let refuse =
            |reason: NoRootBus| Code::DISCOVER_ROOT_BUS_UNKNOWN.at(at).detail(reason as u8);
        let mut found = None;
        let mut refusal = refuse(match u8::try_from(bridge.uid) {
            Ok(_) => NoRootBus::NotDecoded,
            Err(_) => NoRootBus::NotABusNumber,
        });
        for root in guesses(self.platform, bridge) {
            let owner = self.platform.bridges.iter().find(|other| other.root == Some(root));
            if let Some(owner) = owner {
                refusal = refuse(NoRootBus::Claimed).found(owner.uid);
                continue;
            }
            refusal = refuse(NoRootBus::NoCxlPorts);
            let (before, remarks) = (self.nodes.len(), self.remarks.mark());
            if !self.visited(root) {
                self.enter(bridge.uid, first, root)?;
            }
            if self.nodes.len() == before {
                // The bus is not this bridge's, and what is on it is not its business.
                self.remarks.back_to(remarks);
            } else if found.replace(root).is_some() {
                return Err(refuse(NoRootBus::SeveralSegments));
            }
        }
        if let (Some(root), Some(link)) = (found, self.links.get_mut(first)) {
            link.bus = Some(root);
            return Ok(());
        }
        Err(refusal)
    }

    /// Makes `root` the bus of the bridge that is node `first`, and scans it.
    fn enter(&mut self, uid: u32, first: usize, root: RootBus) -> Result<(), Error> {
        let last = bus_range_end(self.platform, root);
        if let Some(link) = self.links.get_mut(first) {
            *link = Link { bus: Some(root), last, ..Link::EMPTY };
        }
        self.scan(uid, first, root)
    }

    /// Whether a bus was visited.
    fn visited(&self, bus: RootBus) -> bool {
        self.links.iter().any(|link| link.bus == Some(bus))
    }

    /// The structures of a component block.
    fn structures(
        &mut self,
        block: u64,
        component: Option<Component>,
        at: Place,
    ) -> Result<Structures, Error> {
        let found = structures(self.hw, block, component, at, &mut self.config.fault);
        self.config.fault.told(found)
    }

    /// Looks at every function of the bus below node `parent`.
    fn scan(&mut self, uid: u32, parent: usize, bus: RootBus) -> Result<(), Error> {
        let above = self.nodes.get(parent);
        let above = above.map(|node| (node.function, role(&node.kind)));
        let Some((function, above)) = above else { return Ok(()) };
        let status = self.links.get(parent).and_then(|link| link.status);
        // The port of a link that trained to CXL.mem.
        let cxl_link = function.filter(|_| {
            let downwards = matches!(above, Some(Role::RootPort | Role::DownstreamPort));
            downwards && status.is_some_and(|status| status.mem())
        });
        let base = bus_base(self.platform.ecam, bus).ok_or_else(|| {
            let bridge = Place::bridge(uid);
            let at = function.map_or(bridge, |function| Place::function(uid, function));
            Code::DISCOVER_NOT_DECODED.at(at).found(bus)
        })?;
        let batch = self.nodes.len();
        let mut functions = Functions::new(uid, base, bus, above);
        while let Some(header) = functions.next(self.hw, &mut self.config) {
            let result = self.look(uid, parent, batch, header, above, cxl_link);
            self.lost(result)?;
        }
        Ok(())
    }

    /// Looks at the open function, on the bus whose nodes start at `batch`.
    #[inline(never)]
    fn look(
        &mut self,
        uid: u32,
        parent: usize,
        batch: usize,
        header: HeaderType,
        above: Option<Role>,
        cxl_link: Option<Sbdf>,
    ) -> Result<(), Error> {
        let function = self.config.function();
        let at = Place::function(uid, function);
        if is_left_out(self.hw, &mut self.config, self.search.leave_out, header) {
            self.remarks.add(Code::DISCOVER_LEFT_OUT.at(at));
            return Ok(());
        }
        let found = CxlFunction::identify(self.hw, &mut self.config, header, above);
        let found = self.config.fault.told(found)?;
        if let Sighting::Cxl(found) = found {
            return self.add(uid, parent, batch, &found);
        }
        // One that went away while it was looked at seems to be anything.
        let answers = function::answers(self.hw, &mut self.config);
        self.config.fault.told(answers)?;
        match (found, cxl_link) {
            (Sighting::Aside, _) => self.remarks.add(self.config.fault.error()),
            (_, Some(port)) if function.bdf.function() == 0 => {
                self.remarks.add(Code::DISCOVER_LINK_WITHOUT_CXL.at(at).found(port));
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds the open function to the nodes of its bus, which start at `batch`.
    #[inline(never)]
    fn add(
        &mut self,
        uid: u32,
        parent: usize,
        batch: usize,
        found: &CxlFunction,
    ) -> Result<(), Error> {
        let function = self.config.function();
        let at = Place::function(uid, function);
        let above = Tree(&self.nodes).path(NodeId(parent as u16));
        let port = found.port_number(self.hw, &mut self.config);
        let port = self.config.fault.told(port)?;
        let place = found.place_in(above, port);
        if place.is_some_and(|place| self.leaves_out(place)) {
            // Nothing is asked of a port behind which nothing is looked for.
            self.remarks.add(Code::DISCOVER_LEFT_OUT.at(place.unwrap_or_default()));
            let (parent, is_root) = (Some(NodeId(parent as u16)), found.role == Role::RootPort);
            let kind = if is_root { NodeKind::RootPort } else { NodeKind::DownstreamPort };
            let node = Node { parent, kind, port, function: Some(function), ..Node::EMPTY };
            return self.insert_sorted(batch, node, Link::EMPTY, at);
        }
        let status = link_status(self.hw, &mut self.config, found);
        let status = self.config.fault.told(status)?;
        let (device, link) = match found.role {
            Role::Device => {
                let Some(dvsec) = &found.device else { return Ok(()) };
                let capability = capacity::mem_capability(self.hw, &mut self.config, dvsec);
                let capability = self.config.fault.told(capability)?;
                if !capability.mem_capable() {
                    let capability = capability.into_bits();
                    self.remarks.add(Code::DISCOVER_NO_MEM.at(at).found(capability));
                    return Ok(());
                }
                self.check_links(status, parent, at)?;
                (Some((dvsec, capability)), Link::EMPTY)
            }
            Role::RootPort | Role::UpstreamPort | Role::DownstreamPort => {
                (None, self.port_link(parent, status, at)?)
            }
        };
        let blocks = found.blocks(self.hw, &mut self.config);
        let Blocks { component, device: registers } = self.config.fault.told(blocks)?;
        for block in [component, registers].into_iter().flatten() {
            self.check_forwarded(parent, block.address, at)?;
        }
        found.enable_memory(self.hw, &mut self.config);
        let Structures { hdm, back_invalidate } = match component {
            Some(block) => self.structures(block.address, decodes_as(found.role), at)?,
            None => Structures::default(),
        };
        let kind = match (found.role, device) {
            (Role::RootPort, _) => NodeKind::RootPort,
            (Role::UpstreamPort, _) => NodeKind::UpstreamPort,
            (Role::DownstreamPort, _) | (Role::Device, None) => NodeKind::DownstreamPort,
            (Role::Device, Some((dvsec, capability))) => {
                let mut capacity = Capacity::NONE;
                let asked = capacity::capacity(
                    self.hw,
                    self.clock,
                    &mut self.config,
                    dvsec,
                    capability,
                    registers,
                    &mut capacity,
                );
                self.config.fault.told(asked)?;
                if let Some(remark) = capacity.remark {
                    self.remarks.add(remark);
                }
                let cache = capability.cache_capable();
                NodeKind::Device(Device {
                    kind: if cache { DeviceKind::Type2 } else { DeviceKind::Type3 },
                    dvsec: self.config.block(dvsec.offset),
                    volatile: capacity.volatile,
                    persistent: capacity.persistent,
                    source: capacity.source,
                })
            }
        };
        let node = Node {
            parent: Some(NodeId(parent as u16)),
            kind,
            port,
            function: Some(function),
            hdm,
            back_invalidate,
            fault: None,
        };
        self.insert_sorted(batch, node, link, at)
    }

    /// Adds a node of a bus, whose nodes start at `batch`. They have nothing below them yet, so they can
    /// still move.
    fn insert_sorted(
        &mut self,
        batch: usize,
        node: Node,
        link: Link,
        at: Place,
    ) -> Result<(), Error> {
        let lower = self.nodes.iter().skip(batch).filter(|other| other.port <= node.port).count();
        self.insert(batch + lower, node, link, at).map(|_| ())
    }

    fn insert(&mut self, index: usize, node: Node, link: Link, at: Place) -> Result<usize, Error> {
        if let Some(hdm) = node.hdm
            && self.nodes.iter().filter_map(|node| node.hdm).any(|other| other.block == hdm.block)
        {
            return Err(Code::DISCOVER_SHARED_REGISTERS.at(at).found(hdm.block.0));
        }
        // A node's number has 16 bits.
        let have = self.nodes.room().min(self.links.room()).min(usize::from(u16::MAX));
        let full = Code::DISCOVER_CAPACITY.error().expected(have);
        if self.nodes.len() >= have {
            return Err(full);
        }
        self.nodes.insert(index, node).map_err(|_| full)?;
        self.links.insert(index, link).map_err(|_| full)?;
        Ok(index)
    }

    /// What the open port leads to.
    #[inline(never)]
    fn port_link(
        &mut self,
        parent: usize,
        status: Option<flex_bus::Status>,
        at: Place,
    ) -> Result<Link, Error> {
        let above = NodeId(parent as u16);
        if Tree(&self.nodes).upwards(above).count() > MAX_DEPTH {
            return Err(Code::DISCOVER_TOO_DEEP.at(at).expected(MAX_DEPTH));
        }
        let buses: BusNumbers = self.config.read(self.hw, 0);
        // Three equal numbers and a latency of all-ones: no port has them.
        let sound = function::sound::<BusNumbers>(self.hw, &mut self.config, 0);
        self.config.fault.told(sound)?;
        let (secondary, subordinate) = (buses.secondary(), buses.subordinate());
        if secondary == 0 {
            return Err(Unassigned::BusNumbers.error(at));
        }
        let Some(Link { bus: Some(own), last, .. }) = self.links.get(parent).copied() else {
            return Ok(Link::EMPTY);
        };
        let bus = RootBus { segment: own.segment, bus: secondary };
        let is_root = self.platform.bridges.iter().any(|bridge| bridge.root == Some(bus));
        if is_root || self.visited(bus) {
            return Err(Code::DISCOVER_BUS_LOOP.at(at).found(bus));
        }
        if secondary <= own.bus || subordinate < secondary || subordinate > last {
            let above = own.bus;
            return Err(Code::DISCOVER_BUS_NUMBERS
                .at(at)
                .expected((above, last))
                .found((secondary, subordinate)));
        }
        let header = BridgeHeader::read(self.config.reader(self.hw), 0);
        let windows = Some(open(header.windows()));
        Ok(Link { bus: Some(bus), last: subordinate, windows, status })
    }

    /// Every port on the way must forward a register block.
    fn check_forwarded(&self, parent: usize, address: u64, at: Place) -> Result<(), Error> {
        let Ok(block) = Span::new(Hpa(address), BLOCK_ALIGNMENT) else { return Ok(()) };
        for (id, node) in Tree(&self.nodes).upwards(NodeId(parent as u16)) {
            let link = self.links.get(usize::from(id.0));
            let (Some(port), Some(windows)) = (node.function, link.and_then(|l| l.windows)) else {
                continue;
            };
            let open = [windows.memory, windows.prefetchable];
            if open == [None; 2] {
                let at = Place::function(at.uid().unwrap_or(0), port);
                return Err(Unassigned::Windows.error(at));
            }
            if !open.into_iter().flatten().any(|window| window.contains_span(block)) {
                return Err(Code::DISCOVER_NOT_FORWARDED.at(at).expected(port).found(address));
            }
        }
        Ok(())
    }

    /// Every link from a device to its bridge must have trained to CXL.mem.
    fn check_links(
        &self,
        own: Option<flex_bus::Status>,
        parent: usize,
        at: Place,
    ) -> Result<(), Error> {
        let above = Tree(&self.nodes).upwards(NodeId(parent as u16)).map(|(id, node)| {
            let link = self.links.get(usize::from(id.0));
            (node.function, link.and_then(|link| link.status))
        });
        let function = Some(self.config.function());
        for (port, status) in core::iter::once((function, own)).chain(above) {
            if let (Some(port), Some(status)) = (port, status)
                && !status.mem()
            {
                return Err(Code::DISCOVER_NO_MEM_LINK
                    .at(at)
                    .expected(port)
                    .found(status.into_bits()));
            }
        }
        Ok(())
    }
}

/// What the Flex Bus DVSEC says of the link of the open function.
pub(crate) fn link_status(
    hw: &mut impl Mmio,
    config: &mut Config<'_>,
    found: &CxlFunction,
) -> Result<Option<flex_bus::Status>, Failed> {
    let Some(dvsec) = &found.flex_bus else { return Ok(None) };
    let Spec { offset, bytes, .. } = flex_bus::Status::SPEC;
    let need = offset + u16::from(bytes);
    if !dvsec.has(offset..need) {
        let (offset, length) = (dvsec.offset, dvsec.length);
        let fault = config.refuse(Code::DISCOVER_SHORT_DVSEC).detail(DvsecId::FlexBusPort);
        return fault.expected(need).found((length, offset)).into();
    }
    Ok(Some(config.read(hw, dvsec.offset)))
}

/// Whether the policy leaves out the open function by what it is.
fn is_left_out(
    hw: &mut impl Mmio,
    config: &mut Config<'_>,
    leave_out: &[LeaveOut],
    header: HeaderType,
) -> bool {
    let named = |wanted: &LeaveOut| matches!(wanted, LeaveOut::Device { .. });
    if header.layout() != 0 || !leave_out.iter().any(named) {
        return false;
    }
    let id: Id = config.read(hw, 0);
    let mut serial = None;
    leave_out.iter().any(|wanted| match *wanted {
        LeaveOut::Device { vendor, device, .. }
            if (vendor, device) != (id.vendor(), id.device()) =>
        {
            false
        }
        LeaveOut::Device { serial: Some(wanted), .. } => {
            *serial.get_or_insert_with(|| function::serial(hw, config)) == Some(wanted)
        }
        LeaveOut::Device { serial: None, .. } => true,
        LeaveOut::At(_) => false,
    })
}

/// The role of a node; `None` for a host bridge.
pub(crate) fn role(kind: &NodeKind) -> Option<Role> {
    match kind {
        NodeKind::HostBridge { .. } => None,
        NodeKind::RootPort => Some(Role::RootPort),
        NodeKind::UpstreamPort => Some(Role::UpstreamPort),
        NodeKind::DownstreamPort => Some(Role::DownstreamPort),
        NodeKind::Device(_) => Some(Role::Device),
    }
}

/// The kind of decoders that count in a function.
fn decodes_as(role: Role) -> Option<Component> {
    match role {
        Role::UpstreamPort => Some(Component::UpstreamPort),
        Role::Device => Some(Component::Device),
        Role::RootPort | Role::DownstreamPort => None,
    }
}

/// Where a bridge's hierarchy may start: where the caller says, else on the bus of its UID's
/// number, in any segment that has one.
fn guesses<'a>(
    platform: &'a Platform<'_>,
    bridge: &'a Bridge,
) -> impl Iterator<Item = RootBus> + 'a {
    let uid = u8::try_from(bridge.uid).ok().filter(|_| bridge.root.is_none());
    let guessed = platform.ecam.iter().filter_map(move |region| {
        let bus = RootBus { segment: region.segment, bus: uid? };
        region.bus(bus.segment, bus.bus).map(|_| bus)
    });
    bridge.root.into_iter().chain(guessed)
}

/// The last bus that configuration space has in the region of a bus.
#[inline(never)]
pub(crate) fn bus_range_end(platform: &Platform<'_>, bus: RootBus) -> u8 {
    let regions = platform.ecam.iter().filter(|e| e.bus(bus.segment, bus.bus).is_some());
    regions.map(|region| region.last_bus).max().unwrap_or(bus.bus)
}

/// The windows that are open. One at address 0 has never been set: registers reset to 0, and no
/// memory of devices lies there.
pub(crate) fn open(windows: Windows) -> Windows {
    let set = |window: Option<Span>| window.filter(|window| window.base().0 != 0);
    Windows { memory: set(windows.memory), prefetchable: set(windows.prefetchable) }
}
