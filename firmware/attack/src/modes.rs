//! What else may be so while a lock is tried: an enable that is off, a BAR that was moved, another
//! decoder in the way. A lock that holds as firmware left the machine need not hold then.
//!
//! The fields are those of the access-class tables: each that software may write and that decides
//! nothing about where registers are. A field that a table gains is a mode from then on.
//!
//! **Invariant**: a mode is left as it was entered, and none of its writes names a bit that clears a
//! status, starts something, or takes a link down.

use cxl_firmware::config::acted_on_at;
use cxl_firmware::topology::{Node, NodeId};
use cxl_regs::DECODER_UNIT;
use cxl_regs::access::{Class, Component, Features, Field, Register, Spec};
use cxl_regs::component::BLOCK_SIZE;
use cxl_regs::config::{Bar, BridgeHeader, Command, PcieCapability};
use cxl_regs::dvsec::device::DeviceDvsec;
use cxl_regs::dvsec::locator::{BlockId, Locations};
use cxl_regs::dvsec::port::PortDvsec;
use cxl_regs::dvsec::{DvsecId, Dvsecs};
use cxl_regs::hdm::GLOBAL_SPECS;
use cxl_regs::mailbox::{self, DeviceCapabilities, DeviceCapabilityId};
use cxl_regs::mmio::{Block, Clock};

use super::patterns::Depth;
use super::{Attacker, Event, Function, Stores, Witness};

/// What is otherwise than firmware left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Nothing.
    Plain,
    /// A field.
    Field,
    /// A component's registers are where its BAR was moved to.
    BarMoved,
    /// A spare decoder was told to commit, and nobody has asked how that ended.
    Committing,
    /// A spare decoder is committed over the range of a locked one.
    Overlapped,
    /// The mailbox had commands and the vendor's registers had writes that no specification knows.
    Vendor,
    /// What a conventional reset opened was committed and locked again.
    Relocked,
    /// A register holds what somebody named: see [`NamedMode`].
    Named,
}

/// A mode that no table knows: a dword that is to hold something else while everything is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedMode {
    /// The dword, in a component's configuration space or component registers.
    pub address: u64,
    /// The bits that decide it.
    pub bits: u32,
    /// What they are to hold; without it they are turned round.
    pub value: Option<u32>,
    /// Bits of the dword that a 1 clears, or starts something by: they are written 0.
    pub acted_on: u32,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Plain,
        Self::Field,
        Self::BarMoved,
        Self::Committing,
        Self::Overlapped,
        Self::Vendor,
        Self::Relocked,
        Self::Named,
    ];
}

/// Fields of one bit that are no modes: they take a link down or hide a port.
const NEVER: [&str; 3] = ["Secondary Bus Reset", "Link Disable", "CXL RCRB Enable"];
/// Wider fields that may hold anything while component registers are tried: notes for software, and
/// numbers by which configuration space is routed and memory is not.
const NOTES: [&str; 5] = [
    "Cache Line Size",
    "Interrupt Line",
    "Primary Bus Number",
    "Secondary Bus Number",
    "Subordinate Bus Number",
];
/// Locks of a machine that are few enough to try all of them in each mode, siblings' too.
const FEW: usize = 10;

/// Whether a field is a mode, and how much is tried in it.
fn depth(field: &Field) -> Option<Depth> {
    let writable = Component::ALL.into_iter().any(|component| {
        matches!(field.rule(component).class(Features::ALL), Class::Rw | Class::Rws | Class::Rwl)
    });
    let name = field.name;
    if !writable || NEVER.contains(&name) || field.bits != 1 && !NOTES.contains(&name) {
        return None;
    }
    let enable = name.ends_with("Enable") || name == "Memory Space" || name == "Bus Master";
    Some(if enable { Depth::Short } else { Depth::Touch })
}

/// The first opcode that is the vendor's (CXL r3.1 section 8.2.9).
const VENDOR_OPCODE: u32 = 0xC000;
/// Pages behind the CXL.cache/mem registers that are the implementation's (CXL r3.1 section 8.2.3).
const VENDOR_PAGES: core::ops::Range<u64> = 2..14;
/// Polls of a doorbell.
const DOORBELL_POLLS: u32 = 1000;

impl<H: Stores + Witness, C: Clock> Attacker<'_, H, C> {
    /// The component and its path, in every mode that the component has.
    pub(crate) fn modes(&mut self, id: NodeId) {
        let Some(node) = self.tree.get(id) else { return };
        let tree = self.tree;
        self.learn(|_| true);
        if self.known.len() > FEW {
            self.learn(|other| on_path(tree, id, other));
        }
        if self.known.is_empty() || self.hw.enough() {
            return;
        }
        self.enter(id, self.resting);
        if let Some(hdm) = node.hdm {
            self.fields(id, hdm.block, &GLOBAL_SPECS);
        }
        if let Some(function) = self.function(node) {
            let (_, header) = function.header();
            self.fields(id, function.base, header);
            if let Some(pcie) = function.pcie {
                self.fields(id, function.block(pcie), PcieCapability::REGISTERS);
            }
            if let Some(dvsec) = self.port_dvsec(function).filter(|_| function.port) {
                self.fields(id, dvsec, PortDvsec::REGISTERS);
            }
            if let Some(device) = node.device() {
                self.fields(id, device.dvsec, DeviceDvsec::REGISTERS);
                self.vendor(id, node, function);
            }
            self.bar_moved(id, node, function);
        }
        self.named(id, node);
        self.beside(id, node);
    }

    /// What was named of a component.
    fn named(&mut self, id: NodeId, node: &Node) {
        let config = self.function(node).map(|function| (function.base.0, 0x1000));
        let size = u64::from(BLOCK_SIZE);
        let registers = node.hdm.map(|hdm| (hdm.block.0 & !(size - 1), size));
        let named = self.named;
        for &NamedMode { address, bits, value, acted_on } in named {
            let inside = |(base, size): (u64, u64)| address.wrapping_sub(base) < size;
            if ![config, registers].into_iter().flatten().any(inside) {
                continue;
            }
            let rest = self.hw.read(address) & !acted_on;
            let wanted = value.map_or(rest ^ bits, |value| rest & !bits | value & bits);
            self.in_mode(id, Depth::Full, (Mode::Named, address, bits), |attacker, enter| {
                attacker.hw.write(address, if enter { wanted } else { rest });
                ((attacker.hw.read(address) ^ wanted) & bits == 0).then_some(0)
            });
        }
    }

    /// Tries the locks of a component and, more briefly, of its path; or gives them their own values.
    fn strike_path(&mut self, id: NodeId, depth: Depth, moved: u64, own: bool) {
        self.each_known(|attacker, locked| {
            let other = locked.node() != id;
            let depth = if other { depth.min(Depth::Brief) } else { depth };
            let moved = if other { 0 } else { moved };
            if own {
                attacker.restore_locked(locked, moved);
            } else {
                attacker.strike(locked, depth, moved);
            }
        });
    }

    /// Enters a mode, tries, leaves it, and once more for the values that were there: where
    /// addresses lead in between shows writes that registers do not.
    fn in_mode(
        &mut self,
        id: NodeId,
        depth: Depth,
        (mode, address, bits): (Mode, u64, u32),
        change: impl Fn(&mut Self, bool) -> Option<u64>,
    ) {
        for own in [false, true] {
            if self.hw.enough() {
                return;
            }
            self.hw.hear(Event::Mode { mode, address, bits });
            let entered = change(self, true);
            if let Some(moved) = entered {
                self.strike_path(id, depth, moved, own);
            }
            change(self, false);
            self.hw.hear(Event::Mode { mode: Mode::Plain, address, bits: 0 });
            if entered.is_none() {
                return;
            }
        }
    }

    /// Each field of some registers turned round.
    fn fields(&mut self, id: NodeId, base: Block, registers: &[Spec]) {
        for spec in registers {
            for field in spec.fields {
                let Some(depth) = depth(field) else { continue };
                let offset = spec.offset & !3;
                let address = base.0.wrapping_add(u64::from(offset));
                let rest = self.hw.read(address) & !acted_on_at(registers, offset);
                let bits = field.mask() << (8 * u32::from(spec.offset & 3));
                self.in_mode(id, depth, (Mode::Field, address, bits), |attacker, enter| {
                    attacker.hw.write(address, if enter { rest ^ bits } else { rest });
                    let taken = (attacker.hw.read(address) ^ rest) & bits == bits;
                    taken.then_some(0)
                });
            }
        }
    }

    /// The registers of the decoders at another address.
    fn bar_moved(&mut self, id: NodeId, node: &Node, function: Function) {
        let Some(hdm) = node.hdm else { return };
        let block = hdm.block.0 & !(u64::from(BLOCK_SIZE) - 1);
        let Some(above) = node.parent.and_then(|parent| self.tree.get(parent)) else { return };
        let Some(port) = self.function(above) else { return };
        let hw = &mut *self.hw;
        let windows = BridgeHeader::read(|offset| hw.read(port.address(offset)), 0).windows();
        let bars = if function.port { 2 } else { 6 };
        let bar = (0..bars).map(|index| Bar::SPEC.offset + 4 * index).find(|&at| {
            let low = self.hw.read(function.address(at)) & !0xF;
            low != 0 && low == block as u32
        });
        let Some(at) = bar else { return };
        let low = self.hw.read(function.address(at));
        let room = [windows.memory, windows.prefetchable].into_iter().flatten();
        let Some(room) = room.into_iter().find(|room| room.contains(cxl_regs::Hpa(block))) else {
            return;
        };
        // From the window's end downwards; what else lies there answers for itself.
        for nth in 1..=4u64 {
            let size = u64::from(BLOCK_SIZE) * nth;
            let base = room.base().0.wrapping_add(room.size().saturating_sub(size));
            let moved = base.wrapping_sub(block);
            let free = base > block && self.hw.read(hdm.block.0.wrapping_add(moved)) == u32::MAX;
            if !free || base >> 32 != block >> 32 {
                continue;
            }
            let to = base as u32 | low & 0xF;
            let address = hdm.block.0.wrapping_add(moved);
            let capability = hdm.capability.into_bits();
            self.in_mode(id, Depth::Short, (Mode::BarMoved, address, 0), |attacker, enter| {
                attacker.hw.write(function.address(at), if enter { to } else { low });
                (attacker.hw.read(address) == capability).then_some(moved)
            });
            return;
        }
    }

    /// A spare decoder in use beside the locked ones.
    fn beside(&mut self, id: NodeId, node: &Node) {
        let Some(hdm) = node.hdm else { return };
        let Some(spare) = self.spare(hdm) else { return };
        let saved = spare.registers.read(self.hw);
        let apart = spare.image(node, hdm);
        let over = spare.below.map(|below| {
            let control = below.control().with_lock_on_commit(false).with_commit(false);
            let (base, end) = self.locked_span(id).unwrap_or((below.base(), 0));
            let size = end.saturating_sub(base).max(below.size());
            below.with_control(control).with_base(base).with_size(size)
        });
        let address = spare.registers.control_address();
        for (mode, image) in [(Mode::Committing, Some(apart)), (Mode::Overlapped, over)] {
            let Some(image) = image.filter(|image| image.size() >= DECODER_UNIT) else { continue };
            self.in_mode(id, Depth::Short, (mode, address, 0), |attacker, enter| {
                if !enter {
                    attacker.settle(address);
                    attacker.put_back(spare.registers, saved);
                    return None;
                }
                let control = image.control();
                spare.registers.write(attacker.hw, image.with_control(control.with_commit(false)));
                spare.registers.write_control(attacker.hw, control.with_commit(true));
                if mode == Mode::Overlapped && !attacker.settle(address).committed() {
                    return None;
                }
                Some(0)
            });
        }
    }

    /// A command that is nobody's, and the implementation's part of the component registers.
    fn vendor(&mut self, id: NodeId, node: &Node, function: Function) {
        let hw = &mut *self.hw;
        let command = hw.read(function.address(Command::SPEC.offset));
        let read = |hw: &mut H, offset: u16| hw.read(function.address(offset));
        let found = Dvsecs::new(|offset| read(hw, offset)).find(DvsecId::RegisterLocator);
        let Some(locator) = found.ok().flatten() else { return };
        let Ok(mut entries) = Locations::new(&locator, |offset| read(hw, offset)) else { return };
        let device = entries.find_map(|entry| entry.ok().filter(|e| e.id == BlockId::Device));
        let block = device.map(|device| {
            let at = Bar::SPEC.offset.wrapping_add(4 * u16::from(device.bar));
            let low = u64::from(read(hw, at) & !0xF);
            let high = if read(hw, at) & 0x6 == 0x4 { read(hw, at.wrapping_add(4)) } else { 0 };
            (low | u64::from(high) << 32).wrapping_add(device.offset)
        });
        let address = node.hdm.map_or(function.base.0, |hdm| hdm.block.0);
        if Command::from_raw(command).memory_space() {
            self.in_mode(id, Depth::Brief, (Mode::Vendor, address, 0), |attacker, enter| {
                if enter {
                    if let Some(block) = block.filter(|block| *block != 0) {
                        attacker.command(block);
                    }
                    attacker.vendor_pages(node);
                }
                Some(0)
            });
        }
    }

    /// Gives a mailbox a command of its vendor's.
    fn command(&mut self, block: u64) {
        let hw = &mut *self.hw;
        let read = |offset: u16| hw.read(block.wrapping_add(offset.into()));
        let Ok(capabilities) = DeviceCapabilities::new(read) else { return };
        let found = capabilities.find(DeviceCapabilityId::PrimaryMailbox);
        let Some(mailbox) = found.ok().flatten() else { return };
        let mailbox = Block(block.wrapping_add(mailbox.offset.into()));
        self.hw.write_qword(mailbox.address::<mailbox::CommandLow>(), VENDOR_OPCODE.into());
        let control = mailbox.address::<mailbox::Control>();
        self.hw.write(control, mailbox::Control::new().with_doorbell(true).raw());
        for _ in 0..DOORBELL_POLLS {
            if !mailbox::Control::from_raw(self.hw.read(control)).doorbell() {
                break;
            }
        }
    }

    /// Turns the first dword of each page that is the implementation's round, and back.
    fn vendor_pages(&mut self, node: &Node) {
        let Some(hdm) = node.hdm else { return };
        let block = hdm.block.0 & !(u64::from(BLOCK_SIZE) - 1);
        for page in VENDOR_PAGES {
            let address = block.wrapping_add(page << 12);
            let own = self.hw.read(address);
            self.hw.write(address, !own);
            self.hw.write(address, own);
        }
    }
}

/// Whether a component is another, or lies above or below it.
fn on_path(tree: cxl_firmware::topology::Tree<'_>, id: NodeId, other: NodeId) -> bool {
    let above = |from: NodeId, to: NodeId| tree.upwards(from).any(|(node, _)| node == to);
    above(id, other) || above(other, id)
}
