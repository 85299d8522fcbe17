//! What locks are worth on hardware that is reached from outside: every bit of every register that a
//! lock freezes, flipped by one write and put back by the next.
//!
//! It is the attack's state "committed, locked" alone, with a witness that looks at the register that
//! was written: outside, an access takes a thousand times longer than in a guest. The whole attack
//! is a payload of the image.
//!
//! **Invariant**: nothing is flipped that no lock freezes, and nothing is left flipped that takes a
//! write.

use cxl_firmware::mmio::Mmio;
use cxl_firmware::topology::{NodeId, Tree};
use cxl_regs::access::Register;
use cxl_regs::dvsec::device::{self, Lock, RANGE_STRIDE, RangeBaseHigh, RangeBaseLow};
use cxl_regs::hdm::{Control, DECODER_SPECS, decoder_offset};

use crate::report::{Field, LockAttack, name};
use cxl_model::scenario::Scenario;

/// A register that a lock freezes, and which of its bits were seen to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// Whose.
    pub node: NodeId,
    /// The decoder; `None` = the Device DVSEC.
    pub decoder: Option<u8>,
    /// The register.
    pub name: &'static str,
    /// The bits that are frozen.
    pub bits: u32,
    /// Those that changed.
    pub changed: u32,
}

impl LockAttack {
    /// From what was flipped.
    pub(crate) fn of(frozen: &[Frozen], scenario: &Scenario, tree: Tree<'_>) -> Self {
        let changed = frozen.iter().filter(|frozen| frozen.changed != 0);
        let fields = changed.map(|frozen| Field {
            component: name(scenario, tree, frozen.node),
            decoder: frozen.decoder,
            register: frozen.name,
            bits: format!("{:#010x}", frozen.changed),
        });
        let fields: Vec<Field> = fields.collect();
        let count = |bits: fn(&Frozen) -> u32| frozen.iter().map(|f| bits(f).count_ones()).sum();
        Self {
            held: fields.is_empty() && !frozen.is_empty(),
            bits: count(|frozen| frozen.bits),
            changed: count(|frozen| frozen.changed),
            fields,
            inside: Vec::new(),
        }
    }
}

/// The dwords that CONFIG_LOCK freezes (CXL r3.1 section 8.1.3), with the bits of each. The lock
/// itself comes last.
const CONFIG: [(&str, u16, u32); 6] = [
    ("CXL Control", device::Control::SPEC.offset, 0x0000_FFFF),
    ("Range 1 Base High", RangeBaseHigh::SPEC.offset, u32::MAX),
    ("Range 1 Base Low", RangeBaseLow::SPEC.offset, u32::MAX),
    ("Range 2 Base High", RangeBaseHigh::SPEC.offset + RANGE_STRIDE, u32::MAX),
    ("Range 2 Base Low", RangeBaseLow::SPEC.offset + RANGE_STRIDE, u32::MAX),
    ("CXL Lock", Lock::SPEC.offset, Lock::new().with_config_lock(true).into_bits() as u32),
];

/// Flips every bit of every locked decoder, and of the Device DVSEC where CONFIG_LOCK is set.
pub fn flip(hw: &mut impl Mmio, tree: Tree<'_>) -> Vec<Frozen> {
    let mut list = Vec::new();
    for (node, found) in tree.iter() {
        let hdm =
            found.hdm.iter().flat_map(|hdm| (0..hdm.decoders).map(|index| (hdm.block, index)));
        for (block, index) in hdm {
            let decoder = block.0 + u64::from(decoder_offset(index));
            let control = hw.read(decoder + u64::from(Control::SPEC.offset));
            if !Control::from_bits(control).locked() {
                continue;
            }
            for spec in &DECODER_SPECS {
                let changed = flip_dword(hw, decoder + u64::from(spec.offset), u32::MAX);
                let (name, bits) = (spec.name, u32::MAX);
                list.push(Frozen { node, decoder: Some(index), name, bits, changed });
            }
        }
        let Some(device) = found.device() else { continue };
        let lock = hw.read(device.dvsec.0 + u64::from(Lock::SPEC.offset));
        if !Lock::from_raw(lock).config_lock() {
            continue;
        }
        for (name, offset, bits) in CONFIG {
            let changed = flip_dword(hw, device.dvsec.0 + u64::from(offset), bits);
            list.push(Frozen { node, decoder: None, name, bits, changed });
        }
    }
    list
}

/// Flips each of these bits alone; which of them changed.
fn flip_dword(hw: &mut impl Mmio, address: u64, bits: u32) -> u32 {
    let old = hw.read(address);
    let mut changed = 0;
    for bit in (0..u32::BITS).map(|bit| 1 << bit).filter(|bit| bits & bit != 0) {
        // Only these bits are compared: what shares the dword may be a status.
        hw.write(address, old & bits ^ bit);
        changed |= (hw.read(address) ^ old) & bits;
        hw.write(address, old & bits);
    }
    changed
}
