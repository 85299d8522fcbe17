//! Boards written down by hand: a topology and a platform in a few lines, and the laws that every
//! plan on them has to keep.
//!
//! **Invariant**: nothing here asks the planner. Decode, skip and interleave arithmetic is written
//! out again, in plain integers, from CXL r3.1 sections 8.2.4.20.13 and 9.18.1.3.
#![allow(dead_code, unreachable_pub, reason = "shared by tests and benches, each uses a part")]

use std::collections::BTreeMap;

use cxl_firmware::error::Error;
use cxl_firmware::mmio::Block;
use cxl_firmware::plan::{Plan, Purpose, Refused, Unfit, plan};
use cxl_firmware::platform::{Bridge, BridgeKind, Platform, Restrictions, Window};
use cxl_firmware::policy::{Policy, Request, SetRequest};
use cxl_firmware::topology::{
    BackInvalidate, CapacitySource, Device, DeviceKind, Hdm, Node, NodeId, NodeKind, Partition,
    Path, Topology,
};
use cxl_regs::hdm::Capability;
use cxl_regs::{Arithmetic, Coherency, Decoder, Granularity, Hpa, Interleave, Route, Span, Ways};

pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;
/// The unit of every decoder.
pub const UNIT: u64 = 256 * MIB;

/// Nodes, regions and decoders of the plans made here.
pub const N: usize = 640;
pub const R: usize = 320;
pub const D: usize = 1280;
pub type BoardPlan = Plan<N, R, D>;

#[derive(Clone, Debug)]
pub struct Board {
    pub bridges: Vec<Bridge>,
    pub windows: Vec<Window>,
    pub nodes: Vec<Node>,
    pub address_bits: u8,
    pub occupied: Vec<Span>,
}

/// Ten decoders, eight targets, selectors on bits 14:8, every way count.
pub fn capable(decoders: u8) -> Option<Hdm> {
    let code = [1, 2, 4, 6, 8, 10, 12, 14, 16].iter().position(|&count| count == decoders);
    let capability = Capability::new()
        .with_decoder_count(code.expect("a decoder count") as u8)
        .with_target_count(8)
        .with_interleave_11_8(true)
        .with_interleave_14_12(true)
        .with_ways_3_6_12(true)
        .with_ways_16(true);
    Some(Hdm { block: Block(0), capability, decoders, lost: 0 })
}

pub fn bi(hdm_d: bool) -> Option<BackInvalidate> {
    Some(BackInvalidate { block: Block(0), hdm_d })
}

pub fn path(uid: u32, ports: &[u8]) -> Path {
    Path::new(uid, ports).expect("a short path")
}

/// A request for volatile memory that leaves everything open.
pub fn request(device: Path) -> Request {
    let partition = Partition::Volatile;
    Request { device, partition, window: None, offset: None, size: None, skip: 0 }
}

/// A set of volatile memory that leaves everything but its members open.
pub fn members(places: &[Path]) -> SetRequest {
    SetRequest {
        members: places.iter().copied().collect(),
        partition: Partition::Volatile,
        window: None,
        offset: None,
        size: None,
        skip: 0,
        granularity: None,
    }
}

/// Host-only and device-coherent, volatile and persistent.
pub fn any_use() -> Restrictions {
    Restrictions::new()
        .with_host_only(true)
        .with_device_coherent(true)
        .with_volatile(true)
        .with_persistent(true)
}

impl Board {
    pub fn new() -> Self {
        Self { bridges: vec![], windows: vec![], nodes: vec![], address_bits: 46, occupied: vec![] }
    }

    fn add(&mut self, parent: Option<NodeId>, kind: NodeKind, port: u8) -> NodeId {
        let hdm = match kind {
            NodeKind::RootPort | NodeKind::DownstreamPort => None,
            NodeKind::HostBridge { .. } | NodeKind::UpstreamPort => capable(16),
            NodeKind::Device(_) => capable(10),
        };
        self.nodes.push(Node {
            parent,
            kind,
            port,
            function: None,
            hdm,
            back_invalidate: None,
            fault: None,
        });
        NodeId(self.nodes.len() as u16 - 1)
    }

    /// A host bridge with sixteen decoders.
    pub fn bridge(&mut self, uid: u32) -> NodeId {
        let kind = BridgeKind::ComponentRegisters;
        self.bridges.push(Bridge { uid, kind, registers: Hpa(0), root: None });
        self.add(None, NodeKind::HostBridge { uid }, 0)
    }

    pub fn root_port(&mut self, bridge: NodeId, number: u8) -> NodeId {
        self.add(Some(bridge), NodeKind::RootPort, number)
    }

    /// A switch below a port; returns its upstream port.
    pub fn switch(&mut self, port: NodeId) -> NodeId {
        self.add(Some(port), NodeKind::UpstreamPort, 0)
    }

    pub fn downstream_port(&mut self, switch: NodeId, number: u8) -> NodeId {
        self.add(Some(switch), NodeKind::DownstreamPort, number)
    }

    /// A Type 3 device with ten decoders.
    pub fn memory(&mut self, port: NodeId, volatile: u64, persistent: u64) -> NodeId {
        let device = Device {
            kind: DeviceKind::Type3,
            dvsec: Block(0),
            volatile,
            persistent,
            source: CapacitySource::Mailbox,
        };
        self.add(Some(port), NodeKind::Device(device), 0)
    }

    /// A bridge with a root port 0 and a volatile device below it.
    pub fn bridge_with_memory(&mut self, uid: u32, volatile: u64) -> NodeId {
        let bridge = self.bridge(uid);
        let port = self.root_port(bridge, 0);
        self.memory(port, volatile, 0)
    }

    /// A window that may be used for anything; its targets are its ways. One at 0 has no place.
    pub fn window(&mut self, base: u64, size: u64, targets: &[u32]) -> &mut Window {
        let ways = Ways::from_count(targets.len() as u32).expect("a way count");
        self.windows.push(Window {
            base: (base != 0).then_some(Hpa(base)),
            size,
            interleave: Interleave::new(ways, Granularity::B256),
            arithmetic: Arithmetic::Modulo,
            xor_maps: Default::default(),
            restrictions: any_use(),
            qtg: 0,
            unreadable: None,
            targets: targets.iter().copied().collect(),
        });
        self.windows.last_mut().expect("just pushed")
    }

    pub fn node(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[usize::from(id.0)]
    }

    pub fn device(&mut self, id: NodeId) -> &mut Device {
        match &mut self.node(id).kind {
            NodeKind::Device(device) => device,
            other => panic!("{other:?} is no device"),
        }
    }

    pub fn topology(&self) -> Box<Topology<N>> {
        let mut topology = Box::new(Topology::new());
        topology.nodes.extend(self.nodes.iter().copied());
        topology
    }

    pub fn platform(&self) -> Platform<'_> {
        Platform {
            ecam: &[],
            bridges: &self.bridges,
            windows: &self.windows,
            address_bits: self.address_bits,
            resources: &[],
            occupied: &self.occupied,
            unreadable: &[],
        }
    }

    pub fn plan(&self, policy: &Policy<'_>) -> Result<Box<BoardPlan>, Error> {
        let mut made = Box::new(BoardPlan::new());
        plan(&self.platform(), self.topology().tree(), policy, &mut *made)?;
        self.check_refused(policy, &made);
        Ok(made)
    }

    /// Where a window is; 0 is a place only where the board says what lies elsewhere.
    fn place(&self, window: &Window) -> Option<Hpa> {
        let unknown =
            self.occupied.is_empty() || self.occupied.iter().any(|at| at.base() == Hpa(0));
        window.base.filter(|base| base.0 != 0 || !unknown)
    }

    /// Whether a window is as wrong as a refusal with this number says.
    fn is_broken(&self, window: &Window, number: u16) -> bool {
        let range = |window: &Window| {
            let base = window.base.map_or(0, |base| base.0);
            base..base + window.size
        };
        let own = range(window);
        let mut others = self.windows.iter().filter(|other| !std::ptr::eq(*other, window));
        match number {
            0x0307 => others.any(|o| own.start < range(o).end && range(o).start < own.end),
            // A bit of the maps stands in two of them: two ways are led to one target.
            0x031C => window.xor_maps.iter().fold(0, |bits, map| bits ^ map) == 0,
            0x0605 => others.any(|other| {
                let same = other.arithmetic == Arithmetic::Xor;
                same && other.interleave.granularity == window.interleave.granularity
                    && other.xor_maps != window.xor_maps
            }),
            other => panic!("a breakage that nobody holds against the board: {other:#x}"),
        }
    }

    /// Every window that a region does not lie in is told, with a reason that is true of it.
    fn check_refused(&self, policy: &Policy<'_>, plan: &BoardPlan) {
        let (platform, topology) = (self.platform(), self.topology());
        assert!(plan.refusals.list().is_empty());
        for (index, region) in plan.regions.iter().enumerate() {
            let others = self.windows.iter().filter(|window| window.base != Some(region.window));
            let mut bases: Vec<_> = others.map(|window| self.place(window)).collect();
            bases.sort_unstable();
            let told: Vec<_> = plan.refused(&platform, topology.tree(), policy, index).collect();
            let of: Vec<_> = told.iter().map(|refused| refused.window).collect();
            assert_eq!(of, bases, "each other window, once");
            for Refused { window: known, why } in told {
                let base = known.unwrap_or_default().0;
                let holds = |window: &Window| {
                    let (size, allowed) = (window.size, window.restrictions);
                    let end = u128::from(base) + u128::from(size);
                    match why {
                        Unfit::NotATarget { uid } => !window.targets.contains(&uid),
                        Unfit::NotAsked { asked } => asked == region.window,
                        Unfit::NotPreferred { preferred } => preferred == region.window,
                        Unfit::Unplaced { .. } => known.is_none(),
                        Unfit::Unaligned { .. } => base % UNIT != 0,
                        Unfit::Empty { .. } => size == 0,
                        Unfit::BeyondAddressWidth { bits, .. } => end > 1 << bits,
                        Unfit::Interleaved { ways } | Unfit::NoSet { ways } => {
                            ways == window.interleave.ways && ways != Ways::One
                        }
                        Unfit::MediaNotAllowed { partition } => match partition {
                            Partition::Volatile => !allowed.volatile(),
                            Partition::Persistent => !allowed.persistent(),
                        },
                        Unfit::CoherencyNotAllowed { coherency } => match coherency {
                            Coherency::HostOnly => !allowed.host_only(),
                            Coherency::Device => !allowed.device_coherent(),
                            Coherency::BackInvalidate => {
                                !(allowed.device_coherent() && allowed.back_invalidate())
                            }
                        },
                        Unfit::TooSmall { need, have } => {
                            (have == size || base == 0 && have > size) && have < need
                        }
                        Unfit::LinuxHole { need, have } => base == 0 && have == size && have < need,
                        Unfit::Full { need, free } => free < need && need <= size,
                        Unfit::PlaceTaken { offset, size: need } => {
                            let taken = base + offset..base + offset + need;
                            let over = |span: Span| {
                                span.base().0 < taken.end && taken.start < span.end().0
                            };
                            u128::from(taken.end) > end
                                || plan.regions.iter().any(|region| over(region.span))
                        }
                        Unfit::DpaOrder { lower, higher } => Hpa(base) <= lower && lower < higher,
                        Unfit::Broken { error } => self.is_broken(window, error.code()),
                        other => panic!("a reason that nobody holds against the board: {other:?}"),
                    }
                };
                let mut of_base = self.windows.iter().filter(|window| self.place(window) == known);
                assert!(of_base.any(holds), "{base:#x}: {why:?}");
            }
        }
    }

    /// The plan in words, after its laws were checked; or the refusal in words.
    pub fn text(&self, policy: &Policy<'_>) -> String {
        match self.plan(policy) {
            Ok(plan) => {
                self.check(&plan);
                plan.text(self.topology().tree()).to_string()
            }
            Err(error) => format!("refused: {error}\n"),
        }
    }

    /// The same board in another order: windows and bridges rotated and perhaps reversed, nodes in
    /// any order that keeps parents before children. `choices` decides which node comes next.
    pub fn reordered(&self, choices: &[usize]) -> Self {
        let mut board = self.clone();
        let first = choices.first().copied().unwrap_or(0);
        if first % 2 == 1 {
            board.windows.reverse();
            board.bridges.reverse();
        }
        let by = |len: usize| (first / 2).checked_rem(len).unwrap_or(0);
        board.windows.rotate_left(by(self.windows.len()));
        board.bridges.rotate_left(by(self.bridges.len()));
        let mut moved: BTreeMap<NodeId, NodeId> = BTreeMap::new();
        let mut waiting: Vec<usize> = (0..self.nodes.len()).collect();
        board.nodes.clear();
        for step in 0.. {
            let ready: Vec<usize> = (0..waiting.len())
                .filter(|&at| {
                    self.nodes[waiting[at]].parent.is_none_or(|parent| moved.contains_key(&parent))
                })
                .collect();
            let Some(pick) = ready.get(choices.get(step).unwrap_or(&step) % ready.len().max(1))
            else {
                break;
            };
            let old = waiting.remove(*pick);
            let mut node = self.nodes[old];
            node.parent = node.parent.map(|parent| moved[&parent]);
            moved.insert(NodeId(old as u16), NodeId(board.nodes.len() as u16));
            board.nodes.push(node);
        }
        board
    }

    /// Everything that holds for any plan of this board.
    pub fn check(&self, plan: &BoardPlan) {
        let topology = self.topology();
        let tree = topology.tree();
        let top = 1u128 << self.address_bits;
        let mut last_end = 0;
        for region in &plan.regions {
            let (base, end) = (region.span.base().0, region.span.end().0);
            assert!(base >= last_end, "regions ascend and share no address");
            last_end = end;
            assert!(u128::from(end) <= top, "a region ends inside the physical width");
            let window = self.windows.iter().find(|window| window.base == Some(region.window));
            let window = window.expect("a region names its window");
            let start = region.window.0;
            // A window at 0 may end at a hole, within a share of 256 MiB for each member.
            let hidden = if start == 0 { UNIT * plan.members(region).len() as u64 - 1 } else { 0 };
            assert!(start <= base && end <= start + window.size + hidden);
            let allowed = window.restrictions;
            assert!(match region.partition {
                Partition::Volatile => allowed.volatile(),
                Partition::Persistent => allowed.persistent(),
            });
            assert!(match region.coherency {
                Coherency::HostOnly => allowed.host_only(),
                Coherency::Device => allowed.device_coherent(),
                Coherency::BackInvalidate => {
                    allowed.device_coherent() && allowed.back_invalidate()
                }
            });
            let members = plan.members(region);
            assert!(!members.is_empty());
            let share = region.span.size() / members.len() as u64;
            for (position, member) in members.iter().enumerate() {
                assert!(!members[..position].iter().any(|other| other.device == member.device));
                assert_eq!(member.dpa.size(), share);
                let node = tree.get(member.device).expect("a member exists");
                let device = node.device().expect("a member is a device");
                let start = device.start(region.partition);
                let end = start + device.capacity(region.partition);
                assert!(start <= member.dpa.base().0 && member.dpa.end().0 <= end);
            }
        }
        for (id, node) in tree.iter() {
            let Some(component) = node.component() else { continue };
            let (mut hpa, mut dpa) = (0, 0);
            for (expected, planned) in plan.decoders_of(id).enumerate() {
                assert_eq!(usize::from(planned.index), expected, "numbers follow each other");
                let hdm = node.hdm.expect("decoders need an HDM structure");
                assert!(planned.index < hdm.decoders);
                let (region, decoder) = match planned.purpose {
                    Purpose::Burn { base } => {
                        assert_eq!(base, Hpa(hpa), "burned where the one before ends");
                        continue;
                    }
                    Purpose::Region { region, decoder } => {
                        (&plan.regions[usize::from(region)], decoder)
                    }
                };
                assert_eq!(decoder.span, region.span, "Linux wants equal ranges on every level");
                assert_eq!(decoder.coherency, region.coherency);
                assert!(decoder.span.base().0 >= hpa, "decoders ascend in HPA");
                hpa = decoder.span.end().0;
                let image = decoder.encode(component, hdm.capability).expect("a legal decoder");
                assert_eq!(Decoder::decode(&image, component, hdm.capability), Ok(decoder));
                if let Route::Skip(skip) = decoder.route {
                    dpa += skip;
                    let member = plan.members(region).iter().find(|member| member.device == id);
                    let member = member.expect("a device's decoder serves it");
                    assert_eq!(member.dpa.base().0, dpa, "DPA follows from skips and shares");
                    dpa += decoder.span.size() / u64::from(decoder.interleave.ways.count());
                    assert_eq!(member.dpa.end().0, dpa);
                }
            }
        }
        for region in &plan.regions {
            let window = self.windows.iter().find(|window| window.base == Some(region.window));
            let sent = region.window.0 + window.map_or(0, |window| window.size);
            let (base, end) = (region.span.base().0, region.span.end().0.min(sent));
            for hpa in [base, base + 0x0234_5640, end - 64] {
                let (device, dpa) = self.walk(plan, hpa);
                let member = plan.members(region).iter().find(|member| member.device == device);
                let member = member.expect("the walk ends in a member");
                assert!(member.dpa.base().0 <= dpa && dpa < member.dpa.end().0);
            }
        }
    }

    /// Follows an address from its window to a device and DPA, through the planned decoders alone.
    pub fn walk(&self, plan: &BoardPlan, hpa: u64) -> (NodeId, u64) {
        let within = |base: Hpa, size| base.0 <= hpa && hpa - base.0 < size;
        let window = self.windows.iter().find(|w| w.base.is_some_and(|base| within(base, w.size)));
        let window = window.expect("the address lies in a window");
        let uid = window.targets[root_way(window, hpa)];
        let mut at = self.nodes.iter().position(|n| n.kind == NodeKind::HostBridge { uid });
        loop {
            let here = at.expect("the way leads somewhere");
            let id = NodeId(here as u16);
            let node = &self.nodes[here];
            let children =
                || self.nodes.iter().enumerate().filter(|(_, child)| child.parent == Some(id));
            let claims =
                |decoder: &Decoder| decoder.span.base().0 <= hpa && hpa <= decoder.span.last().0;
            let mut claimed = plan.decoders_of(id).filter_map(|planned| match planned.purpose {
                Purpose::Region { decoder, .. } if claims(&decoder) => Some(decoder),
                _ => None,
            });
            let decoder = claimed.next();
            assert!(claimed.next().is_none(), "one decoder a level claims an address");
            at = match (node.kind, decoder.map(|d| (d, d.route))) {
                (NodeKind::HostBridge { .. }, None) if node.hdm.is_none() => {
                    assert_eq!(children().count(), 1, "only a single port needs no decoder");
                    children().next().map(|(index, _)| index)
                }
                (NodeKind::RootPort | NodeKind::DownstreamPort, None) => {
                    children().next().map(|(index, _)| index)
                }
                (_, Some((decoder, Route::Targets(targets)))) => {
                    let ways = u64::from(decoder.interleave.ways.count());
                    let way = hpa / decoder.interleave.granularity.bytes() % ways;
                    let port = targets.0[way as usize];
                    children().find(|(_, child)| child.port == port).map(|(index, _)| index)
                }
                (NodeKind::Device(_), Some((decoder, Route::Skip(_)))) => {
                    let ways = u64::from(decoder.interleave.ways.count());
                    let granule = decoder.interleave.granularity.bytes();
                    let offset = hpa - decoder.span.base().0;
                    let mut dpa = offset / granule / ways * granule + offset % granule;
                    for lower in plan.decoders_of(id) {
                        let Purpose::Region { decoder: lower, .. } = lower.purpose else { break };
                        let Route::Skip(skip) = lower.route else { panic!("a device skips") };
                        dpa += skip;
                        if lower.span == decoder.span {
                            break;
                        }
                        dpa += lower.span.size() / u64::from(lower.interleave.ways.count());
                    }
                    return (id, dpa);
                }
                (kind, route) => panic!("{kind:?} does not route {hpa:#x}: {route:?}"),
            };
        }
    }
}

/// Moves a window that has a place.
pub fn move_up(window: &mut Window, by: u64) {
    window.base = window.base.map(|base| Hpa(base.0 + by));
}

/// The window's choice among its targets (CFMWS interleave arithmetic, CXIMS maps).
fn root_way(window: &Window, hpa: u64) -> usize {
    let ways = u64::from(window.interleave.ways.count());
    let granule = hpa / window.interleave.granularity.bytes();
    if window.arithmetic == Arithmetic::Modulo {
        return (granule % ways) as usize;
    }
    let (bits, thirds) = match ways {
        1 => (0, 1),
        2 => (1, 1),
        4 => (2, 1),
        8 => (3, 1),
        16 => (4, 1),
        3 => (0, 3),
        6 => (1, 3),
        12 => (2, 3),
        _ => unreachable!("no such window"),
    };
    let low = (0..bits)
        .fold(0, |way, bit| way | ((hpa & window.xor_maps[bit]).count_ones() as usize & 1) << bit);
    low | (((granule >> bits) % thirds) as usize) << bits
}
