#![doc = include_str!("../README.md")]
//!
//! # How it goes
//!
//! Order: the states of a spare decoder and of the locked ones, component by component; CXL Reset
//! and FLR of each device; what only a conventional reset undoes; conventional resets.
//!
//! On the way to a device, ports are attacked too: command, BARs, bus numbers, forwarding windows,
//! bridge control and the Extensions DVSEC but for its RCRB, which would hide the port until a
//! conventional reset. None of them carries CXL.mem (CXL r3.1 section 9.13), and that is what the
//! attack shows.
//!
//! A bit at a time is the first of two passes. The second ([`Event::Patterns`]) is of whole values
//! and stores of every width, at what locks freeze alone: thorough as firmware left the machine,
//! shorter after each reset and in each [`Mode`].
//!
//! **Invariant**: a bit is flipped by one write and put back by the next; no status bit that is set
//! is cleared; every loop and every wait ends, whatever the hardware says.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod locks;
mod modes;
mod patterns;

use cxl_regs::DECODER_UNIT;
use cxl_regs::access::{Component, Register, Spec};
use cxl_regs::config::{
    Bar, BridgeControl, BridgeHeader, BusNumbers, Capabilities, CapabilityId, Command,
    DeviceCapabilities, DeviceControl, EndpointHeader, Id, LinkControl, PcieCapability,
};
use cxl_regs::dvsec::device::{self, DeviceDvsec, DeviceDvsecTail, RANGE_STRIDE};
use cxl_regs::dvsec::port::{self, PortDvsec, RcrbBase};
use cxl_regs::dvsec::{DvsecId, Dvsecs};
use cxl_regs::hdm::{
    self, Control, DecoderImage, GlobalControl, MAX_DECODERS, MAX_DEVICE_DECODERS,
};

use cxl_firmware::DecoderRegisters;
use cxl_firmware::config::{acted_on_at, function_base};
use cxl_firmware::platform::Ecam;
use cxl_firmware::topology::{Hdm, Node, NodeId, NodeKind, Tree};
use cxl_firmware::wait::wait;
use cxl_regs::mmio::{Block, Clock, Mmio};

pub use locks::{Locks, Watch};
pub use modes::{Mode, NamedMode};

use patterns::{Depth, Known};

/// Hardware that stores of any width can be made to.
pub trait Stores: Mmio {
    /// Stores the lowest `bytes` bytes of `value` at any address by one access: 1, 2, 4 or 8 bytes.
    /// False if that cannot be done here; then the attack is one of dwords, and its witness hears
    /// of no other width.
    fn store(&mut self, address: u64, bytes: u8, value: u64) -> bool {
        let plain = bytes == 4 && address.is_multiple_of(4);
        if plain {
            self.write(address, value as u32);
        }
        plain
    }
}

/// The state that a component's registers are attacked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// A spare decoder as reset left it.
    NeverCommitted,
    /// A spare decoder with Lock On Commit, not committed.
    LockSet,
    /// A spare decoder whose commit was refused.
    CommitRefused,
    /// A decoder that is committed and not locked.
    CommittedUnlocked,
    /// As firmware left it, locked.
    CommittedLocked,
    /// The device has been through a CXL Reset.
    AfterCxlReset,
    /// The device has been through a Function Level Reset.
    AfterFlr,
    /// What hangs below a port has been through a secondary bus reset.
    AfterConventionalReset,
}

impl State {
    /// All of them, in the order of a decoder's life.
    pub const ALL: [Self; 8] = [
        Self::NeverCommitted,
        Self::LockSet,
        Self::CommitRefused,
        Self::CommittedUnlocked,
        Self::CommittedLocked,
        Self::AfterCxlReset,
        Self::AfterFlr,
        Self::AfterConventionalReset,
    ];
    /// Those that a spare decoder is brought into. The refused commit comes last: hardware that
    /// accepts it has burnt the decoder.
    const SPARE: [Self; 4] =
        [Self::NeverCommitted, Self::LockSet, Self::CommittedUnlocked, Self::CommitRefused];
}

/// Why a state was not attacked in a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Skipped {
    /// The component has no decoders that count.
    NoDecoders,
    /// All its decoders are in use, or burnt.
    NoSpare,
    /// It committed a range that wraps, with Lock On Commit, which it has to refuse.
    NotRefused,
    /// A spare decoder did not commit.
    NotCommitted,
    /// None of its decoders is locked.
    NothingLocked,
    /// It is not subject to this reset, or does not offer it.
    NoSuchReset,
    /// Its configuration space, or that of the port above it, is not reached.
    OutOfReach,
}

impl Skipped {
    const ALL: [Self; 7] = [
        Self::NoDecoders,
        Self::NoSpare,
        Self::NotRefused,
        Self::NotCommitted,
        Self::NothingLocked,
        Self::NoSuchReset,
        Self::OutOfReach,
    ];
}

/// A write that starts something. They are steps of their own, never part of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    /// Initiate Cache Write Back and Invalidation.
    WriteBack,
    /// Initiate CXL Reset.
    CxlReset,
    /// Initiate Function Level Reset.
    Flr,
    /// Secondary Bus Reset while it is masked.
    MaskedBusReset,
    /// Secondary Bus Reset, unmasked before.
    BusReset,
}

impl Trigger {
    const ALL: [Self; 5] =
        [Self::WriteBack, Self::CxlReset, Self::Flr, Self::MaskedBusReset, Self::BusReset];
}

/// What the attacker tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The component with the register at `address` is brought into a state. Writes up to the
    /// first sweep prepare it.
    Enter {
        /// Which state.
        state: State,
        /// A register of the component.
        address: u64,
    },
    /// The component does not get to be in a state.
    Skip {
        /// Which state.
        state: State,
        /// A register of the component.
        address: u64,
        /// Why not.
        reason: Skipped,
    },
    /// The next writes to `address` flip a bit of `rest` each, with a write of `rest` after each.
    Sweep {
        /// The dword.
        address: u64,
        /// What to write to keep it as it is.
        rest: u32,
    },
    /// The sweep of the dword is over.
    Swept,
    /// The next write to `address` starts something.
    Trigger {
        /// What.
        trigger: Trigger,
        /// The dword.
        address: u64,
    },
    /// What was started has come to its end.
    Settled,
    /// The next writes are stores of any width and value at what locks freeze, here and beside it,
    /// up to [`Event::Swept`].
    Patterns {
        /// A frozen dword.
        address: u64,
    },
    /// The next writes lead into a mode, or out of one.
    Mode {
        /// Which.
        mode: Mode,
        /// The dword that decides it.
        address: u64,
        /// Its bits that are turned round; none if it is no field.
        bits: u32,
    },
    /// The preparations of the state have been put back.
    PutBack,
    /// The attack is over.
    Done,
}

impl Event {
    /// The event as numbers: its kind, then up to three arguments.
    pub fn encode(self) -> [u64; 4] {
        match self {
            Self::Enter { state, address } => [1, state as u64, address, 0],
            Self::Skip { state, address, reason } => [2, state as u64, address, reason as u64],
            Self::Sweep { address, rest } => [3, address, u64::from(rest), 0],
            Self::Trigger { trigger, address } => [4, trigger as u64, address, 0],
            Self::Settled => [5, 0, 0, 0],
            Self::PutBack => [6, 0, 0, 0],
            Self::Done => [7, 0, 0, 0],
            Self::Swept => [8, 0, 0, 0],
            Self::Patterns { address } => [9, address, 0, 0],
            Self::Mode { mode, address, bits } => [10, mode as u64, address, u64::from(bits)],
        }
    }

    /// The inverse of [`Event::encode`]; `None` for everything else.
    pub fn decode([kind, a, b, c]: [u64; 4]) -> Option<Self> {
        fn nth<T: Copy, const N: usize>(all: [T; N], code: u64) -> Option<T> {
            all.get(usize::try_from(code).ok()?).copied()
        }
        let event = match kind {
            1 => Self::Enter { state: nth(State::ALL, a)?, address: b },
            2 => {
                Self::Skip { state: nth(State::ALL, a)?, address: b, reason: nth(Skipped::ALL, c)? }
            }
            3 => Self::Sweep { address: a, rest: u32::try_from(b).ok()? },
            4 => Self::Trigger { trigger: nth(Trigger::ALL, a)?, address: b },
            5 => Self::Settled,
            6 => Self::PutBack,
            7 => Self::Done,
            8 => Self::Swept,
            9 => Self::Patterns { address: a },
            10 => Self::Mode { mode: nth(Mode::ALL, a)?, address: b, bits: u32::try_from(c).ok()? },
            _ => return None,
        };
        (event.encode() == [kind, a, b, c]).then_some(event)
    }
}

/// Who hears what the attacker is about to do.
pub trait Witness {
    /// Called before the writes that the event announces.
    fn hear(&mut self, event: Event);
    /// Whether enough is known: then nothing more is tried.
    fn enough(&mut self) -> bool {
        false
    }
}

/// Attacks everything in the topology. The hardware and the witness are one value, as the witness
/// has to see the hardware between any two writes.
pub fn attack(
    hw: &mut (impl Stores + Witness),
    clock: &mut impl Clock,
    ecam: &[Ecam],
    tree: Tree<'_>,
) {
    attack_with(hw, clock, ecam, tree, (true, &[]));
}

/// As [`attack`], with modes that no table knows as well: a vendor's enable, a register that somebody
/// suspects.
pub fn attack_in(
    hw: &mut (impl Stores + Witness),
    clock: &mut impl Clock,
    ecam: &[Ecam],
    tree: Tree<'_>,
    modes: &[NamedMode],
) {
    attack_with(hw, clock, ecam, tree, (true, modes));
}

/// Attacks everything in the topology by single bits alone, for machines that whole values end: a
/// part of [`attack`], and no proof that locks hold.
pub fn attack_bits(
    hw: &mut (impl Stores + Witness),
    clock: &mut impl Clock,
    ecam: &[Ecam],
    tree: Tree<'_>,
) {
    attack_with(hw, clock, ecam, tree, (false, &[]));
}

fn attack_with(
    hw: &mut (impl Stores + Witness),
    clock: &mut impl Clock,
    ecam: &[Ecam],
    tree: Tree<'_>,
    (values, named): (bool, &[NamedMode]),
) {
    let locked = tree
        .iter()
        .filter_map(|(_, node)| node.hdm)
        .any(|hdm| decoders(hdm).any(|decoder| decoder.read_control(hw).locked()));
    let resting = if locked { State::CommittedLocked } else { State::CommittedUnlocked };
    let mut attacker = Attacker {
        hw,
        clock,
        ecam,
        tree,
        resting,
        values,
        named,
        widths: true,
        known: Known::new(),
    };
    for (id, _) in tree.iter() {
        attacker.sweep_states(id);
    }
    for (id, _) in tree.iter().filter(|_| values) {
        attacker.strike_as_left(id);
    }
    for (id, _) in tree.iter().filter(|_| values) {
        attacker.modes(id);
    }
    for (id, _) in tree.iter() {
        attacker.reset_function(id);
    }
    for (id, _) in tree.iter() {
        attacker.burn(id);
    }
    // Devices before the switches above them: what lies below a port that was reset is out of
    // reach until somebody assigns buses again.
    for (id, _) in tree.devices() {
        attacker.reset_link(id);
    }
    for id in (0..tree.0.len()).rev().map(|index| NodeId(index as u16)) {
        match tree.get(id).map(|node| node.kind) {
            Some(NodeKind::UpstreamPort) => attacker.reset_link(id),
            Some(NodeKind::HostBridge { .. }) => {
                attacker.skip(id, State::AfterConventionalReset, Skipped::NoSuchReset);
            }
            _ => {}
        }
    }
    attacker.hw.hear(Event::Done);
}

/// The time limit of one commit in microseconds (CXL r3.1 section 8.2.4.20.12).
const COMMIT_LIMIT: u64 = 10_000;
/// Microseconds until a function is back after FLR or hot reset (PCIe Base 6.x section 6.6).
const FUNCTION_LIMIT: u64 = 100_000;
/// Microseconds of a CXL Reset whose timeout is a reserved code: the longest there is.
const CXL_RESET_LIMIT: u64 = 100_000_000;

const COMMIT: u32 = Control::new().with_commit(true).into_bits();
const LOCK: u32 = Control::new().with_lock_on_commit(true).into_bits();
const BUS_RESET: u32 =
    (BridgeControl::new().with_secondary_bus_reset(true).into_bits() as u32) << 16;

/// The dwords of the header that are attacked and that resets clear: command, BARs and, in ports,
/// buses, windows and bridge control. Command comes last, as BARs are moved while it is 0.
const ENDPOINT_HEADER: [u16; 7] = [0x10, 0x14, 0x18, 0x1C, 0x20, 0x24, 0x04];
const PORT_HEADER: [u16; 11] = [0x10, 0x14, 0x18, 0x1C, 0x20, 0x24, 0x28, 0x2C, 0x30, 0x3C, 0x04];
const _: () = {
    assert!(ENDPOINT_HEADER[0] == Bar::SPEC.offset && PORT_HEADER[0] == Bar::SPEC.offset);
    assert!(ENDPOINT_HEADER[6] == Command::SPEC.offset && PORT_HEADER[10] == Command::SPEC.offset);
    assert!(PORT_HEADER[2] == BusNumbers::SPEC.offset);
    assert!(PORT_HEADER[9] == BridgeControl::SPEC.offset & !3);
};

/// A function's configuration space, and what else of it the attack needs.
#[derive(Clone, Copy)]
struct Function {
    base: Block,
    port: bool,
    /// Offset of the PCI Express capability.
    pcie: Option<u16>,
}

impl Function {
    fn header(self) -> (&'static [u16], &'static [Spec]) {
        if self.port {
            (&PORT_HEADER, BridgeHeader::REGISTERS)
        } else {
            (&ENDPOINT_HEADER, EndpointHeader::REGISTERS)
        }
    }

    fn address(self, offset: u16) -> u64 {
        self.base.0.wrapping_add(u64::from(offset))
    }

    /// The structure at an offset.
    fn block(self, offset: u16) -> Block {
        Block(self.address(offset))
    }
}

/// Control registers as they were before a reset.
struct Saved {
    header: [u32; PORT_HEADER.len()],
    device_control: u32,
    link_control: u32,
}

/// What a component had committed and enabled: decoders, then Global Control, Control, Lock.
struct Kept {
    images: [DecoderImage; MAX_DECODERS],
    enables: [u32; 3],
}

fn decoders(hdm: Hdm) -> impl DoubleEndedIterator<Item = DecoderRegisters> {
    (0..hdm.decoders.min(MAX_DECODERS as u8))
        .map(move |index| DecoderRegisters::new(hdm.block, index))
}

struct Attacker<'a, H, C> {
    hw: &'a mut H,
    clock: &'a mut C,
    ecam: &'a [Ecam],
    tree: Tree<'a>,
    /// What components without decoders are in.
    resting: State,
    /// Whole values are tried, not single bits alone.
    values: bool,
    /// Modes besides those of the tables.
    named: &'a [NamedMode],
    /// Stores of other widths than dwords can be made.
    widths: bool,
    /// What is tried together.
    known: Known,
}

impl<H: Stores + Witness, C: Clock> Attacker<'_, H, C> {
    /// A register by which the witness knows the component.
    fn address(&self, id: NodeId) -> Option<u64> {
        let node = self.tree.get(id)?;
        let config = || Some(function_base(self.ecam, node.function?)?.0);
        node.hdm.map(|hdm| hdm.block.0).or_else(config)
    }

    fn enter(&mut self, id: NodeId, state: State) {
        if let Some(address) = self.address(id) {
            self.hw.hear(Event::Enter { state, address });
        }
    }

    fn skip(&mut self, id: NodeId, state: State, reason: Skipped) {
        if let Some(address) = self.address(id) {
            self.hw.hear(Event::Skip { state, address, reason });
        }
    }

    fn function(&mut self, node: &Node) -> Option<Function> {
        let base = function_base(self.ecam, node.function?)?;
        let hw = &mut *self.hw;
        let pcie = Capabilities::new(|offset| hw.read(base.0.wrapping_add(u64::from(offset))))
            .find(CapabilityId::PciExpress);
        Some(Function { base, port: node.device().is_none(), pcie: pcie.ok().flatten() })
    }

    /// The Extensions DVSEC of a port.
    fn port_dvsec(&mut self, function: Function) -> Option<Block> {
        let hw = &mut *self.hw;
        let found =
            Dvsecs::new(|offset| hw.read(function.address(offset))).find(DvsecId::PortExtensions);
        found.ok().flatten().filter(|d| d.has(PortDvsec::EXTENT)).map(|d| function.block(d.offset))
    }

    // One dword.

    /// Flips the bits of a dword one by one, but for `withheld` and for status bits that are set.
    /// `acts` are the bits that writing 1 to clears or starts something.
    fn sweep(&mut self, address: u64, acts: u32, withheld: u32) {
        if self.hw.enough() {
            return;
        }
        let old = self.hw.read(address);
        self.flip(address, old & !acts, !(withheld | old & acts), false);
    }

    /// Flips bits of a decoder's Control. Its commits are waited for.
    fn flip(&mut self, address: u64, rest: u32, bits: u32, control: bool) {
        self.hw.hear(Event::Sweep { address, rest });
        for flip in (0..u32::BITS).map(|bit| 1 << bit).filter(|flip| bits & flip != 0) {
            for value in [rest ^ flip, rest] {
                self.hw.write(address, value);
                if control && flip == COMMIT {
                    self.settle(address);
                }
            }
        }
        self.hw.hear(Event::Swept);
    }

    /// Waits for the end of a commit, if one is under way.
    fn settle(&mut self, control: u64) -> Control {
        let hw = &mut *self.hw;
        let poll = || {
            let control = Control::from_bits(hw.read(control));
            (control.settled() || !control.commit()).then_some(control)
        };
        wait(self.clock, COMMIT_LIMIT, poll).unwrap_or_default()
    }

    // One component.

    /// All that it has, in the state it is in.
    fn sweep_all(&mut self, node: &Node) {
        if let Some(hdm) = node.hdm {
            let end = hdm::structure_length(hdm.decoders);
            for offset in (0..hdm::decoder_offset(0)).step_by(4) {
                self.sweep(hdm.block.0.wrapping_add(u64::from(offset)), 0, 0);
            }
            for offset in (hdm::decoder_offset(0)..end).step_by(4) {
                let address = hdm.block.0.wrapping_add(u64::from(offset));
                let within = (offset - hdm::decoder_offset(0)) % hdm::DECODER_SIZE;
                if within == Control::SPEC.offset {
                    self.sweep_control(address);
                } else {
                    self.sweep(address, 0, 0);
                }
            }
        }
        let Some(function) = self.function(node) else { return };
        if let Some(device) = node.device() {
            self.sweep_device_dvsec(device.dvsec);
        }
        let (header, registers) = function.header();
        for &offset in header {
            let withheld = if self.is_bridge_control(function, offset) { BUS_RESET } else { 0 };
            self.sweep(function.address(offset), acted_on_at(registers, offset), withheld);
        }
        if let Some(dvsec) = self.port_dvsec(function).filter(|_| function.port) {
            for offset in (0..RcrbBase::SPEC.offset).step_by(4) {
                let acts = acted_on_at(PortDvsec::REGISTERS, offset);
                self.sweep(dvsec.0.wrapping_add(u64::from(offset)), acts, 0);
            }
        }
    }

    fn is_bridge_control(&self, function: Function, offset: u16) -> bool {
        function.port && offset == BridgeControl::SPEC.offset & !3
    }

    /// What would burn the decoder is left for [`Self::burn`].
    fn sweep_control(&mut self, address: u64) {
        let old = Control::from_bits(self.hw.read(address));
        let withheld = match (old.lock_on_commit(), old.committed()) {
            (true, false) if !old.commit() => COMMIT,
            (false, true) => LOCK,
            _ => 0,
        };
        self.flip(address, old.into_bits(), !withheld, true);
    }

    fn sweep_device_dvsec(&mut self, dvsec: Block) {
        let header: cxl_regs::dvsec::DvsecHeader1 = dvsec.read(self.hw);
        let end = if header.length() < DeviceDvsecTail::EXTENT.end {
            DeviceDvsec::EXTENT.end
        } else {
            DeviceDvsecTail::EXTENT.end
        };
        let lock: device::Lock = dvsec.read(self.hw);
        for offset in (0..end).step_by(4) {
            let withheld = if offset == device::Control2::SPEC.offset {
                TRIGGERS
            } else if offset == device::Lock::SPEC.offset && !lock.config_lock() {
                CONFIG_LOCK
            } else {
                0
            };
            let acts = acted_on_at(DeviceDvsec::REGISTERS, offset);
            self.sweep(dvsec.0.wrapping_add(u64::from(offset)), acts, withheld);
        }
    }

    /// The states of a spare decoder, then the one that firmware left.
    fn sweep_states(&mut self, id: NodeId) {
        let Some(node) = self.tree.get(id) else { return };
        let Some(hdm) = node.hdm else {
            for state in State::SPARE {
                self.skip(id, state, Skipped::NoDecoders);
            }
            self.enter(id, self.resting);
            self.sweep_all(node);
            return;
        };
        for state in State::SPARE {
            self.spare_state(id, node, hdm, state);
        }
        if decoders(hdm).any(|decoder| decoder.read_control(self.hw).locked()) {
            self.enter(id, State::CommittedLocked);
            self.sweep_all(node);
            self.sweep_ranges(node, hdm);
        } else {
            self.skip(id, State::CommittedLocked, Skipped::NothingLocked);
        }
    }

    /// The second pass, as firmware left the machine.
    fn strike_as_left(&mut self, id: NodeId) {
        self.learn(|node| node == id);
        if !self.known.is_empty() {
            self.enter(id, State::CommittedLocked);
            self.strike_known(Depth::Full);
        }
    }

    /// With HDM Decoder Enable clear, which no lock prevents, the range registers decode: whoever
    /// can move their bases leads the addresses of locked decoders elsewhere (CXL r3.1 section
    /// 8.1.3.8).
    fn sweep_ranges(&mut self, node: &Node, hdm: Hdm) {
        let Some(device) = node.device() else { return };
        let global: GlobalControl = hdm.block.read(self.hw);
        hdm.block.write(self.hw, global.with_decoder_enable(false));
        let bases = [device::RangeBaseHigh::SPEC.offset, device::RangeBaseLow::SPEC.offset];
        for offset in bases.into_iter().flat_map(|first| [first, first + RANGE_STRIDE]) {
            self.sweep(device.dvsec.0.wrapping_add(u64::from(offset)), 0, 0);
        }
        hdm.block.write(self.hw, global);
    }

    fn spare_state(&mut self, id: NodeId, node: &Node, hdm: Hdm, state: State) {
        let Some(spare) = self.spare(hdm) else {
            let unlocked = decoders(hdm).any(|decoder| {
                let control = decoder.read_control(self.hw);
                control.committed() && !control.locked()
            });
            if unlocked && state == State::CommittedUnlocked {
                self.enter(id, state);
                self.sweep_all(node);
            } else {
                self.skip(id, state, Skipped::NoSpare);
            }
            return;
        };
        self.enter(id, state);
        let saved = spare.registers.read(self.hw);
        match self.prepare(node, hdm, &spare, state) {
            Ok(()) => {
                self.sweep_all(node);
                self.strike_here(id, Depth::Brief);
                self.put_back(spare.registers, saved);
                self.hw.hear(Event::PutBack);
            }
            Err(reason) => {
                self.put_back(spare.registers, saved);
                self.skip(id, state, reason);
            }
        }
    }

    /// The first decoder that is not in use, and where the range of the one below it ends.
    fn spare(&mut self, hdm: Hdm) -> Option<Spare> {
        let mut below = None;
        for registers in decoders(hdm) {
            let image = registers.read(self.hw);
            let control = image.control();
            if !control.committed() {
                return (!control.commit()).then_some(Spare { registers, below });
            }
            below = Some(image);
        }
        None
    }

    fn prepare(
        &mut self,
        node: &Node,
        hdm: Hdm,
        spare: &Spare,
        state: State,
    ) -> Result<(), Skipped> {
        let image = spare.image(node, hdm);
        let control = image.control();
        match state {
            State::LockSet => {
                let image = image.with_size(0).with_control(control.with_lock_on_commit(true));
                spare.registers.write(self.hw, image);
                Ok(())
            }
            State::CommittedUnlocked => {
                spare.registers.write(self.hw, image);
                let committed = self.commit(spare.registers, control).committed();
                committed.then_some(()).ok_or(Skipped::NotCommitted)
            }
            State::CommitRefused => {
                // Base and size pass the end of the address space, which is checked in all
                // decoders that want to be locked (CXL r3.1 section 8.2.4.20.12).
                let control = control.with_lock_on_commit(true);
                let last = 0u64.wrapping_sub(DECODER_UNIT);
                let image = image.with_base(last).with_size(2 * DECODER_UNIT);
                spare.registers.write(self.hw, image.with_control(control));
                let settled = self.commit(spare.registers, control);
                settled.error_not_committed().then_some(()).ok_or(Skipped::NotRefused)
            }
            _ => Ok(()),
        }
    }

    fn commit(&mut self, registers: DecoderRegisters, control: Control) -> Control {
        registers.write_control(self.hw, control.with_commit(true));
        self.settle(registers.control_address())
    }

    fn put_back(&mut self, registers: DecoderRegisters, saved: DecoderImage) {
        registers.write_control(self.hw, saved.control().with_commit(false));
        registers.write(self.hw, saved);
        if saved.control().commit() {
            self.settle(registers.control_address());
        }
    }

    /// What stays until a conventional reset: Commit of a decoder that has Lock set, Lock of one
    /// that is committed, CONFIG_LOCK.
    fn burn(&mut self, id: NodeId) {
        let Some(node) = self.tree.get(id) else { return };
        let states = [(State::LockSet, COMMIT), (State::CommittedUnlocked, LOCK)];
        for (state, bit) in states {
            let Some((hdm, spare)) = node.hdm.and_then(|hdm| Some((hdm, self.spare(hdm)?))) else {
                break;
            };
            self.enter(id, state);
            let saved = spare.registers.read(self.hw);
            if self.prepare(node, hdm, &spare, state).is_ok() {
                let address = spare.registers.control_address();
                let rest = self.hw.read(address);
                self.flip(address, rest, bit, true);
            }
            self.put_back(spare.registers, saved);
        }
        if let Some(device) = node.device() {
            let lock: device::Lock = device.dvsec.read(self.hw);
            if !lock.config_lock() {
                self.enter(id, self.resting);
                let address = device.dvsec.address::<device::Lock>();
                let rest = self.hw.read(address);
                self.flip(address, rest, CONFIG_LOCK, false);
            }
        }
    }

    // Resets.

    /// Starts something by one write.
    fn pull(&mut self, trigger: Trigger, address: u64, value: u32) {
        self.hw.hear(Event::Trigger { trigger, address });
        self.hw.write(address, value);
    }

    /// The triggers of a device that reach no further than itself.
    fn reset_function(&mut self, id: NodeId) {
        let Some(node) = self.tree.get(id) else { return };
        let Some(device) = node.device() else {
            if node.component().is_some() {
                self.skip(id, State::AfterCxlReset, Skipped::NoSuchReset);
                self.skip(id, State::AfterFlr, Skipped::NoSuchReset);
            }
            return;
        };
        let dvsec = device.dvsec;
        let capability: device::Capability = dvsec.read(self.hw);
        if capability.cache_write_back() {
            self.enter(id, self.resting);
            let address = dvsec.address::<device::Control2>();
            let rest = self.rest_of_control2(dvsec);
            let bit = device::Control2::new().with_initiate_write_back(true);
            self.pull(Trigger::WriteBack, address, rest | u32::from(bit.into_bits()));
            self.hw.hear(Event::Settled);
            self.strike_here(id, Depth::Brief);
        }
        if capability.cxl_reset() {
            self.cxl_reset(id, node, dvsec, capability);
        } else {
            self.skip(id, State::AfterCxlReset, Skipped::NoSuchReset);
        }
        self.flr(id, node);
    }

    fn rest_of_control2(&mut self, dvsec: Block) -> u32 {
        let offset = device::Control2::SPEC.offset;
        let dword = self.hw.read(dvsec.address::<device::Control2>());
        dword & !acted_on_at(DeviceDvsec::REGISTERS, offset)
    }

    fn cxl_reset(&mut self, id: NodeId, node: &Node, dvsec: Block, capability: device::Capability) {
        self.enter(id, State::AfterCxlReset);
        let control: device::Control = dvsec.read(self.hw);
        let mut images = [DecoderImage::default(); MAX_DEVICE_DECODERS];
        let mut global = GlobalControl::new();
        if let Some(hdm) = node.hdm {
            global = hdm.block.read(self.hw);
            for (image, registers) in images.iter_mut().zip(decoders(hdm)) {
                *image = registers.read(self.hw);
            }
        }
        let rest = self.rest_of_control2(dvsec);
        let bit = device::Control2::new().with_initiate_reset(true);
        let address = dvsec.address::<device::Control2>();
        self.pull(Trigger::CxlReset, address, rest | u32::from(bit.into_bits()));
        let limit =
            capability.reset_timeout_ms().map_or(CXL_RESET_LIMIT, |ms| u64::from(ms) * 1000);
        let hw = &mut *self.hw;
        let _ = wait(self.clock, limit, || {
            let status: device::Status2 = dvsec.read(hw);
            (status.reset_complete() || status.reset_error()).then_some(())
        });
        self.hw.hear(Event::Settled);
        // What the reset cleared: unlocked decoders that were in use, and the enables.
        if let Some(hdm) = node.hdm {
            for (image, registers) in images.into_iter().zip(decoders(hdm)) {
                if image.control().committed() && !image.control().locked() {
                    registers
                        .write(self.hw, image.with_control(image.control().with_commit(false)));
                    self.commit(registers, image.control());
                }
            }
            hdm.block.write(self.hw, global);
        }
        self.hw.write(dvsec.address::<device::Control>(), control.into_bits().into());
        self.hw.write(address, rest);
        self.sweep_all(node);
        self.strike_here(id, Depth::Short);
    }

    fn flr(&mut self, id: NodeId, node: &Node) {
        let Some(function) = self.function(node) else {
            return self.skip(id, State::AfterFlr, Skipped::OutOfReach);
        };
        let capable = function.pcie.filter(|&at| {
            let capabilities: DeviceCapabilities = function.block(at).read(self.hw);
            capabilities.function_level_reset()
        });
        let Some(pcie) = capable else {
            return self.skip(id, State::AfterFlr, Skipped::NoSuchReset);
        };
        self.enter(id, State::AfterFlr);
        let saved = self.save(function);
        let address = function.block(pcie).address::<DeviceControl>();
        let bit = DeviceControl::new().with_initiate_flr(true);
        self.pull(Trigger::Flr, address, saved.device_control | u32::from(bit.into_bits()));
        self.await_function(function);
        self.hw.hear(Event::Settled);
        self.restore(function, &saved);
        self.sweep_all(node);
        self.strike_here(id, Depth::Short);
    }

    /// Secondary bus reset by the port right above: first as it is found, masked; then unmasked.
    fn reset_link(&mut self, id: NodeId) {
        let state = State::AfterConventionalReset;
        let Some(node) = self.tree.get(id) else { return };
        let above = node.parent.and_then(|parent| self.tree.get(parent));
        let port = above.and_then(|above| self.function(above)).filter(|port| port.port);
        let Some((function, port)) = self.function(node).zip(port) else {
            return self.skip(id, state, Skipped::OutOfReach);
        };
        if self.hw.enough() {
            return;
        }
        let locked = self.keep(node);
        self.enter(id, state);
        let saved = self.save(function);
        let address = port.address(BridgeControl::SPEC.offset & !3);
        let rest = self.hw.read(address) & !BUS_RESET;
        let dvsec = self.port_dvsec(port);
        let mask = dvsec.map(|dvsec| {
            let address = dvsec.address::<port::Control>();
            (address, self.hw.read(address), dvsec.read::<port::Control>(self.hw))
        });
        if let Some((extensions, dword, control)) = mask.filter(|(.., c)| !c.unmask_sbr()) {
            self.pull(Trigger::MaskedBusReset, address, rest | BUS_RESET);
            self.hw.hear(Event::Settled);
            // While it lasts, and once it is over.
            self.strike_here(id, Depth::Brief);
            self.hw.write(address, rest);
            self.strike_here(id, Depth::Brief);
            let unmasked = u32::from(control.with_unmask_sbr(true).into_bits());
            self.hw.write(extensions, dword & !0xFFFF | unmasked);
        }
        self.pull(Trigger::BusReset, address, rest | BUS_RESET);
        self.hw.write(address, rest);
        self.await_function(function);
        self.hw.hear(Event::Settled);
        if let Some((extensions, dword, _)) = mask {
            self.hw.write(extensions, dword);
        }
        self.restore(function, &saved);
        self.sweep_all(node);
        self.relock(id, node, &locked);
    }

    /// What a conventional reset is going to clear of a component.
    fn keep(&mut self, node: &Node) -> Kept {
        let mut kept = Kept { images: [DecoderImage::default(); MAX_DECODERS], enables: [0; 3] };
        if let Some(hdm) = node.hdm {
            for (image, registers) in kept.images.iter_mut().zip(decoders(hdm)) {
                *image = registers.read(self.hw);
            }
            let global: GlobalControl = hdm.block.read(self.hw);
            kept.enables[0] = global.into_bits();
        }
        if let Some(device) = node.device() {
            let control: device::Control = device.dvsec.read(self.hw);
            let lock: device::Lock = device.dvsec.read(self.hw);
            kept.enables[1] = control.into_bits().into();
            kept.enables[2] = lock.into_bits().into();
        }
        kept
    }

    /// Locks again what was locked before a conventional reset, and tries it.
    fn relock(&mut self, id: NodeId, node: &Node, kept: &Kept) {
        let Some(hdm) = node.hdm else { return };
        if !kept.images.iter().any(|image| image.control().locked()) {
            return;
        }
        let [global, control, lock] = kept.enables;
        let address = hdm.block.0;
        self.hw.hear(Event::Mode { mode: Mode::Relocked, address, bits: 0 });
        for (image, registers) in kept.images.iter().zip(decoders(hdm)) {
            if image.control().locked() {
                registers.write(self.hw, image.with_control(image.control().with_commit(false)));
                self.commit(registers, image.control());
            }
        }
        hdm.block.write(self.hw, GlobalControl::from_bits(global));
        if let Some(device) = node.device() {
            self.hw.write(device.dvsec.address::<device::Control>(), control);
            self.hw.write(device.dvsec.address::<device::Lock>(), lock);
        }
        self.strike_here(id, Depth::Short);
        self.hw.hear(Event::Mode { mode: Mode::Plain, address, bits: 0 });
    }

    fn await_function(&mut self, function: Function) {
        let hw = &mut *self.hw;
        let _ = wait(self.clock, FUNCTION_LIMIT, || {
            let id: Id = function.base.read(hw);
            (id.vendor() != u16::MAX).then_some(())
        });
    }

    /// What the registers hold that a reset of CXL.io clears, write-1-to-clear bits as 0.
    fn save(&mut self, function: Function) -> Saved {
        let (offsets, registers) = function.header();
        let mut header = [0; PORT_HEADER.len()];
        for (slot, &offset) in header.iter_mut().zip(offsets) {
            *slot = self.hw.read(function.address(offset)) & !acted_on_at(registers, offset);
        }
        let mut control = |offset: u16| match function.pcie {
            Some(pcie) => {
                let dword = self.hw.read(function.block(pcie).0.wrapping_add(u64::from(offset)));
                dword & !acted_on_at(PcieCapability::REGISTERS, offset)
            }
            None => 0,
        };
        let device_control = control(DeviceControl::SPEC.offset);
        let link_control = control(LinkControl::SPEC.offset);
        Saved { header, device_control, link_control }
    }

    fn restore(&mut self, function: Function, saved: &Saved) {
        let (offsets, _) = function.header();
        for (&dword, &offset) in saved.header.iter().zip(offsets) {
            self.hw.write(function.address(offset), dword);
        }
        if let Some(pcie) = function.pcie {
            let block = function.block(pcie);
            self.hw.write(block.address::<DeviceControl>(), saved.device_control);
            self.hw.write(block.address::<LinkControl>(), saved.link_control);
        }
    }
}

const TRIGGERS: u32 =
    device::Control2::new().with_initiate_write_back(true).with_initiate_reset(true).into_bits()
        as u32;
const CONFIG_LOCK: u32 = device::Lock::new().with_config_lock(true).into_bits() as u32;

/// A decoder that is not in use.
struct Spare {
    registers: DecoderRegisters,
    /// The decoder before it.
    below: Option<DecoderImage>,
}

impl Spare {
    /// One unit of addresses behind the range of the decoder below, with its type and first port.
    fn image(&self, node: &Node, hdm: Hdm) -> DecoderImage {
        let below = self.below.unwrap_or_default();
        let base = below.base().saturating_add(below.size());
        let fits = base.checked_add(DECODER_UNIT).is_some();
        let image =
            DecoderImage::default().with_base(base).with_size(if fits { DECODER_UNIT } else { 0 });
        let mut control = Control::new();
        if self.below.is_some() {
            control.set_host_only(below.control().host_only());
            control.set_back_invalidate(below.control().back_invalidate());
        } else {
            control.set_host_only(hdm.capability.allows_host_only());
        }
        let image = image.with_control(control);
        match node.component() {
            Some(Component::Device) | None => image,
            Some(_) => {
                let [first, ..] = below.targets();
                image.with_targets([first, 0, 0, 0, 0, 0, 0, 0])
            }
        }
    }
}
