//! Hardware for tests: a sparse map of dwords that behaves as CXL r3.1 says, with faults on demand.
//!
//! **Invariant**: offsets and masks are typed here by hand from the specification's tables; nothing
//! is taken from the library under test, or from the models of the harness.

#![allow(dead_code, reason = "each test binary uses its share")]

use std::collections::BTreeMap;

use cxl_firmware::mmio::{Block, Clock, Mmio};
use cxl_firmware::plan::{Plan, plan};
use cxl_firmware::platform::{Bridge, BridgeKind, Platform, Restrictions, Window};
use cxl_firmware::policy::Policy;
use cxl_firmware::topology::{
    BackInvalidate, CapacitySource, Device, DeviceKind, Hdm, Node, NodeId, NodeKind, Topology,
};
use cxl_regs::hdm::Capability;
use cxl_regs::{Arithmetic, Hpa, Interleave};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// One access, as the hardware sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read(u64),
    Write(u64, u32),
}

/// What a decoder does when it is asked to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnCommit {
    /// Commits after so many reads of Control.
    After(u32),
    /// Neither commits nor refuses.
    Never,
    /// Sets Error Not Committed.
    Error,
    /// Commits, and forgets to lock.
    Unlocked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Eight dwords of a decoder; in a device the last two are the skip.
    Decoder { device: bool },
    /// HDM Decoder Global Control.
    Global { device: bool },
    /// CXL Device DVSEC from its header.
    Dvsec,
    /// BI decoder: capability, control, status.
    BiDecoder,
    /// BI route table.
    BiRouteTable,
}

/// A machine of registers. Clone it to have the image of a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fake {
    pub(crate) dwords: BTreeMap<u64, u32>,
    blocks: Vec<(u64, u64, Kind)>,
    pub(crate) trace: Vec<Access>,
    /// Control registers with a commit under way: reads left, and what comes then.
    pending: BTreeMap<u64, (u32, OnCommit)>,
    /// By address of Control; at once where nothing is said.
    pub(crate) on_commit: BTreeMap<u64, OnCommit>,
    /// Number of the write that is lost.
    pub(crate) dropped: Option<usize>,
    /// Bits at an address that always read so: mask, value.
    pub(crate) stuck: Option<(u64, u32, u32)>,
    /// Accesses after which nothing answers any more.
    pub(crate) silent_after: Option<usize>,
    /// What a program must not do to hardware.
    pub(crate) undefined: Vec<String>,
}

const LOCK: u32 = 1 << 8;
const COMMIT: u32 = 1 << 9;
const COMMITTED: u32 = 1 << 10;
const ERROR: u32 = 1 << 11;

impl Fake {
    /// An HDM capability with its decoders; all registers 0 but the capability.
    pub(crate) fn hdm(&mut self, at: u64, decoders: u64, device: bool) {
        self.blocks.push((at + 4, 4, Kind::Global { device }));
        self.dwords.insert(at + 4, 0);
        for n in 0..decoders {
            let start = at + 0x10 + 0x20 * n;
            self.blocks.push((start, 0x20, Kind::Decoder { device }));
            for offset in (0..0x20).step_by(4) {
                self.dwords.insert(start + offset, 0);
            }
        }
    }

    /// A CXL Device DVSEC: cache, I/O and memory capable, with so many ranges.
    pub(crate) fn dvsec(&mut self, at: u64, ranges: u32) {
        self.blocks.push((at, 0x38, Kind::Dvsec));
        for offset in (0..0x38).step_by(4) {
            self.dwords.insert(at + offset, 0);
        }
        self.dwords.insert(at + 0x08, (0x0007 | ranges << 4) << 16);
        // IO_Enable reads 1; a viral condition was seen before.
        self.dwords.insert(at + 0x0C, 0x4000_0002);
        self.dwords.insert(at + 0x14, 0xCAFE_0000);
    }

    /// A BI decoder or route table; `explicit`: changes need a commit.
    pub(crate) fn back_invalidate(&mut self, at: u64, route_table: bool, explicit: bool) {
        let kind = if route_table { Kind::BiRouteTable } else { Kind::BiDecoder };
        self.blocks.push((at, 12, kind));
        let explicit = u32::from(explicit);
        self.dwords.insert(at, if route_table { explicit } else { explicit << 1 });
        self.dwords.insert(at + 4, 0);
        // Timeout: 2 x 1 ms.
        self.dwords.insert(at + 8, 0x2300);
    }

    pub(crate) fn get(&self, address: u64) -> u32 {
        self.dwords.get(&address).copied().unwrap_or(u32::MAX)
    }

    pub(crate) fn set(&mut self, address: u64, value: u32) {
        self.dwords.insert(address, value);
    }

    pub(crate) fn writes(&self) -> Vec<(u64, u32)> {
        let writes = self.trace.iter().filter_map(|access| match access {
            Access::Write(address, value) => Some((*address, *value)),
            Access::Read(_) => None,
        });
        writes.collect()
    }

    pub(crate) fn reads(&self) -> usize {
        self.trace.len() - self.writes().len()
    }

    fn silent(&self) -> bool {
        self.silent_after.is_some_and(|limit| self.trace.len() > limit)
    }

    fn stick(&self, address: u64, value: u32) -> u32 {
        match self.stuck {
            Some((at, mask, bits)) if at == address => value & !mask | bits & mask,
            _ => value,
        }
    }

    /// Puts `new` into the bits of `mask`.
    fn merge(&mut self, address: u64, mask: u32, new: u32) {
        let old = self.get(address);
        let value = self.stick(address, old & !mask | new & mask);
        self.set(address, value);
    }

    fn settle(&mut self, control: u64, how: OnCommit) {
        let found = self.get(control);
        let value = match how {
            OnCommit::After(_) => found | COMMITTED,
            OnCommit::Error => found | ERROR,
            OnCommit::Unlocked => found & !LOCK | COMMITTED,
            OnCommit::Never => found,
        };
        let value = self.stick(control, value);
        self.set(control, value);
    }

    fn write_decoder(&mut self, start: u64, device: bool, address: u64, new: u32) {
        let control = start + 0x10;
        let state = self.get(control);
        if state & (LOCK | COMMITTED) == LOCK | COMMITTED {
            self.undefined.push(format!("{address:#x} written while its decoder is locked"));
            return;
        }
        let busy = state & COMMITTED != 0 || self.pending.contains_key(&control);
        let mask = match (address - start, device) {
            (0x00 | 0x08, _) | (0x14, true) => 0xF000_0000,
            (0x04 | 0x0C, _) | (0x14, false) | (0x18, _) => 0xFFFF_FFFF,
            (0x10, true) => 0x0F00_33FF,
            (0x10, false) => 0x0000_33FF,
            _ => 0,
        };
        if address != control {
            if busy {
                self.undefined.push(format!("{address:#x} written while its decoder is in use"));
            }
            self.merge(address, mask, new);
            return;
        }
        if busy && (new ^ state) & mask & !COMMIT != 0 {
            self.undefined.push(format!("{address:#x} changed while its decoder is in use"));
        }
        self.merge(control, mask, new);
        match (state & COMMIT != 0, new & COMMIT != 0) {
            (false, true) => {
                let how = match self.on_commit.get(&control).copied() {
                    None if !self.in_order(start) => OnCommit::Error,
                    None => OnCommit::After(0),
                    Some(how) => how,
                };
                match how {
                    OnCommit::Never => {
                        self.pending.insert(control, (u32::MAX, how));
                    }
                    OnCommit::After(reads) if reads > 0 => {
                        self.pending.insert(control, (reads, how));
                    }
                    how => self.settle(control, how),
                }
            }
            (true, false) => {
                let above = self.dwords.get(&(control + 0x20)).copied().unwrap_or(0);
                if state & COMMITTED != 0 && above & COMMITTED != 0 {
                    self.undefined.push(format!("{address:#x} uncommitted below another"));
                }
                self.pending.remove(&control);
                self.merge(control, COMMITTED | ERROR, 0);
            }
            _ => {}
        }
    }

    /// Checks (a), (b) and (e) of CXL r3.1 section 8.2.4.20.12, for a decoder that locks.
    fn in_order(&self, start: u64) -> bool {
        let value = |at: u64| u64::from(self.get(at + 4)) << 32 | u64::from(self.get(at));
        if value(start).checked_add(value(start + 8)).is_none() {
            return false;
        }
        let before = start - 0x20;
        let first = !self
            .blocks
            .iter()
            .any(|(at, _, kind)| *at == before && matches!(kind, Kind::Decoder { .. }));
        first
            || self.get(before + 0x10) & COMMITTED != 0
                && value(before) + value(before + 8) <= value(start)
    }

    fn write_dvsec(&mut self, start: u64, address: u64, new: u32) {
        let locked = self.get(start + 0x14) & 1 != 0;
        match address - start {
            0x0C => {
                if !locked {
                    self.merge(address, 0x0000_0005, new);
                }
                // Viral_Status is write-1-to-clear.
                let cleared = new & 0x4000_0000;
                self.merge(address, cleared, 0);
            }
            0x14 => self.merge(address, new & 1, 1),
            0x20 | 0x30 if !locked => self.merge(address, 0xFFFF_FFFF, new),
            0x24 | 0x34 if !locked => self.merge(address, 0xF000_0000, new),
            _ => {}
        }
    }

    fn write_bi(&mut self, start: u64, mask: u32, commit: u32, address: u64, new: u32) {
        if address != start + 4 {
            return;
        }
        let old = self.get(address);
        self.merge(address, mask, new);
        if old & commit == 0 && new & commit != 0 {
            self.merge(start + 8, 3, 0);
            match self.on_commit.get(&address) {
                Some(OnCommit::Error) => self.merge(start + 8, 2, 2),
                Some(OnCommit::Never) => {}
                _ => self.merge(start + 8, 1, 1),
            }
        } else if new & commit == 0 {
            self.merge(start + 8, 3, 0);
        }
    }
}

impl Mmio for Fake {
    fn read(&mut self, address: u64) -> u32 {
        assert_eq!(address % 4, 0, "unaligned read at {address:#x}");
        self.trace.push(Access::Read(address));
        if self.silent() {
            return u32::MAX;
        }
        if let Some((left, how)) = self.pending.get(&address).copied() {
            if left == 0 {
                self.pending.remove(&address);
                self.settle(address, how);
            } else if left != u32::MAX {
                self.pending.insert(address, (left - 1, how));
            }
        }
        self.stick(address, self.get(address))
    }

    fn write(&mut self, address: u64, value: u32) {
        assert_eq!(address % 4, 0, "unaligned write at {address:#x}");
        let number = self.writes().len();
        self.trace.push(Access::Write(address, value));
        if self.silent() || self.dropped == Some(number) {
            return;
        }
        let block = self.blocks.iter().find(|(at, size, _)| (*at..at + size).contains(&address));
        let Some(&(start, _, kind)) = block else {
            panic!("write to {address:#x}, where nothing is");
        };
        match kind {
            Kind::Decoder { device } => self.write_decoder(start, device, address, value),
            Kind::Global { device: true } => self.merge(address, 0x2, value),
            Kind::Global { device: false } => {}
            Kind::Dvsec => self.write_dvsec(start, address, value),
            Kind::BiDecoder => self.write_bi(start, 0x7, 0x4, address, value),
            Kind::BiRouteTable => self.write_bi(start, 0x1, 0x1, address, value),
        }
    }
}

/// A clock that goes so many microseconds a look.
pub(crate) struct Ticks(u64, u64);

impl Ticks {
    pub(crate) fn of(step: u64) -> Self {
        Self(step, 0)
    }
}

impl Clock for Ticks {
    fn microseconds(&mut self) -> u64 {
        self.1 += self.0;
        self.1
    }
}

/// What a machine's description is built from.
pub(crate) struct Machine {
    pub(crate) hw: Fake,
    pub(crate) topology: Topology<16>,
    pub(crate) bridges: Vec<Bridge>,
    pub(crate) windows: Vec<Window>,
}

/// 4 decoders, 4 targets, all of HPA 14:8, both coherency models, 3/6/12 ways.
const CAPABILITY: u32 = 0x0060_0B42;

pub(crate) fn hdm(at: u64) -> Option<Hdm> {
    Some(Hdm {
        block: Block(at),
        capability: Capability::from_bits(CAPABILITY),
        decoders: 4,
        lost: 0,
    })
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            hw: Fake::default(),
            topology: Topology::new(),
            bridges: Vec::new(),
            windows: Vec::new(),
        }
    }

    fn push(&mut self, node: Node) -> NodeId {
        let id = NodeId(self.topology.nodes.len() as u16);
        self.topology.nodes.push(node).expect("16 nodes are enough for a test");
        id
    }

    /// A host bridge with its HDM capability at `block` + 0x1000, or none.
    pub(crate) fn bridge(&mut self, uid: u32, block: u64, decoders: bool) -> NodeId {
        self.bridges.push(Bridge {
            uid,
            kind: BridgeKind::ComponentRegisters,
            registers: Hpa(block),
            root: None,
        });
        if decoders {
            self.hw.hdm(block + 0x1000, 4, false);
        }
        self.push(Node {
            parent: None,
            kind: NodeKind::HostBridge { uid },
            port: 0,
            function: None,
            hdm: if decoders { hdm(block + 0x1000) } else { None },
            back_invalidate: None,
            fault: None,
        })
    }

    pub(crate) fn port(&mut self, parent: NodeId, kind: NodeKind, number: u8) -> NodeId {
        self.push(Node {
            parent: Some(parent),
            kind,
            port: number,
            function: None,
            hdm: None,
            back_invalidate: None,
            fault: None,
        })
    }

    pub(crate) fn upstream(&mut self, parent: NodeId, block: u64) -> NodeId {
        self.hw.hdm(block, 4, false);
        let id = self.port(parent, NodeKind::UpstreamPort, 0);
        self.topology.nodes[usize::from(id.0)].hdm = hdm(block);
        id
    }

    /// A device with its HDM capability at `block` and its DVSEC at `block` + 0x10000.
    pub(crate) fn device(
        &mut self,
        parent: NodeId,
        block: u64,
        kind: DeviceKind,
        [volatile, persistent]: [u64; 2],
    ) -> NodeId {
        self.hw.hdm(block, 4, true);
        self.hw.dvsec(block + 0x1_0000, 2);
        // A range for each partition there is, valid and active.
        let sizes = [volatile, persistent].into_iter().filter(|size| *size != 0);
        for (size, at) in sizes.zip([block + 0x1_0018, block + 0x1_0028]) {
            self.hw.set(at, (size >> 32) as u32);
            self.hw.set(at + 4, size as u32 | 3);
        }
        let device = Device {
            kind,
            dvsec: Block(block + 0x1_0000),
            volatile,
            persistent,
            source: CapacitySource::Mailbox,
        };
        let id = self.port(parent, NodeKind::Device(device), 0);
        self.topology.nodes[usize::from(id.0)].hdm = hdm(block);
        id
    }

    /// Gives a component a BI structure.
    pub(crate) fn back_invalidate(&mut self, id: NodeId, block: u64, explicit: bool) {
        let node = &mut self.topology.nodes[usize::from(id.0)];
        node.back_invalidate = Some(BackInvalidate { block: Block(block), hdm_d: false });
        let route_table = matches!(node.kind, NodeKind::UpstreamPort);
        self.hw.back_invalidate(block, route_table, explicit);
    }

    pub(crate) fn window(&mut self, base: u64, size: u64, targets: &[u32]) -> &mut Window {
        self.windows.push(Window {
            // One at 0 has no place.
            base: (base != 0).then_some(Hpa(base)),
            size,
            interleave: Interleave::NONE,
            arithmetic: Arithmetic::Modulo,
            xor_maps: heapless::Vec::new(),
            restrictions: Restrictions::from_bits(0x002F),
            qtg: 0,
            unreadable: None,
            targets: targets.iter().copied().collect(),
        });
        self.windows.last_mut().expect("one was pushed")
    }

    pub(crate) fn platform(&self) -> Platform<'_> {
        Platform {
            ecam: &[],
            bridges: &self.bridges,
            windows: &self.windows,
            address_bits: 46,
            resources: &[],
            occupied: &[],
            unreadable: &[],
        }
    }

    pub(crate) fn plan(&self, policy: &Policy<'_>) -> Plan<16, 8, 16> {
        let mut made = Plan::new();
        if let Err(error) = plan(&self.platform(), &self.topology, policy, &mut made) {
            panic!("no plan: {error}");
        }
        made
    }
}

/// Bridge 7 with decoders, port 3, a Type 3 device of 512 MiB; a window of 4 GiB at 16 GiB.
pub(crate) fn simple() -> Machine {
    let mut m = Machine::new();
    let bridge = m.bridge(7, 0x1000_0000, true);
    let port = m.port(bridge, NodeKind::RootPort, 3);
    m.device(port, 0x2000_0000, DeviceKind::Type3, [512 * MIB, 0]);
    m.window(16 * GIB, 4 * GIB, &[7]);
    m
}

/// Bridge 7, port 1, a switch with ports 4 and 5: a device with 256 MiB of each kind and one with
/// 512 MiB volatile.
pub(crate) fn switched() -> Machine {
    let mut m = Machine::new();
    let bridge = m.bridge(7, 0x1000_0000, true);
    let port = m.port(bridge, NodeKind::RootPort, 1);
    let switch = m.upstream(port, 0x1800_0000);
    let left = m.port(switch, NodeKind::DownstreamPort, 4);
    let right = m.port(switch, NodeKind::DownstreamPort, 5);
    m.device(left, 0x2000_0000, DeviceKind::Type3, [256 * MIB, 256 * MIB]);
    m.device(right, 0x2100_0000, DeviceKind::Type3, [512 * MIB, 0]);
    m.window(16 * GIB, 4 * GIB, &[7]);
    m
}

/// A Type 2 device with back-invalidate behind a switch; BI structures at 0x4000_0000 and on.
pub(crate) fn accelerator(explicit: bool) -> Machine {
    let mut m = Machine::new();
    let bridge = m.bridge(7, 0x1000_0000, true);
    let root = m.port(bridge, NodeKind::RootPort, 1);
    let switch = m.upstream(root, 0x1800_0000);
    let down = m.port(switch, NodeKind::DownstreamPort, 4);
    let device = m.device(down, 0x2000_0000, DeviceKind::Type2, [512 * MIB, 0]);
    m.back_invalidate(root, 0x4000_0000, false);
    m.back_invalidate(switch, 0x4001_0000, explicit);
    m.back_invalidate(down, 0x4002_0000, explicit);
    m.back_invalidate(device, 0x4003_0000, false);
    m.window(16 * GIB, 4 * GIB, &[7]);
    m
}
