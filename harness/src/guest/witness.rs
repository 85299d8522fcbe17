//! Memory itself, asked by the host: what the guest reaches at an address is what the device has at
//! the address behind it.
//!
//! The guest reaches a mirrored range through host memory that was chosen by the mapping, which
//! proves whole ranges. Here single addresses go the machine's own way, window, bridge, switch and
//! device, one granule at a time, and marks say whether both ways end at the same byte. Volatile
//! memory is marked and put back; of persistent memory, which may be a file that outlives this
//! program, both ways are only compared.
//!
//! **Invariant**: the guest does not run meanwhile, and finds every byte as it left it.

use std::collections::BTreeMap;

use cxl_regs::Size;

use crate::kvm::Slot;
use cxl_model::backing::Backing;
use cxl_model::machine::Machine;

/// Addresses that are asked for at each end of a slot: the largest set has 16 members.
const GRANULES: u64 = 32;
/// No byte of two neighbours here belongs to one granule and another.
const GRANULE: u64 = 256;
/// Failures that are told.
const MOST: usize = 8;

/// Addresses of slots that do not lead to the same byte by both ways, in words; empty if all do.
pub(super) fn astray(machine: &mut Machine, slots: &[Slot]) -> Vec<String> {
    let mut wrong = Vec::new();
    for slot in slots {
        wrong.extend(of_slot(machine, slot));
        wrong.truncate(MOST);
    }
    wrong
}

fn of_slot(machine: &mut Machine, slot: &Slot) -> Vec<String> {
    let memory = Backing::of_region(&slot.memory);
    let mut wrong = Vec::new();
    let mut owners = BTreeMap::new();
    let mut marked = Vec::new();
    // All marks are set before any is looked for: two addresses with one byte behind them differ.
    for (hpa, number) in addresses(slot).zip(1u64..) {
        let offset = slot.offset + (hpa - slot.base);
        let Some(landing) = machine.resolve(hpa) else {
            wrong.push(format!("{hpa:#x} is mapped for the guest, and the machine decodes it not"));
            continue;
        };
        let name = machine.name(cxl_model::scenario::Place::Device(landing.device)).to_owned();
        if let Some(other) = owners.insert((landing.device, landing.dpa.0), hpa) {
            wrong.push(format!("{hpa:#x} and {other:#x} lead to one byte of {name}"));
        }
        let volatile = machine.endpoint(landing.device).map_or(0, |e| e.media.volatile());
        let (mut before, mut behind) = ([0; 8], [0; 8]);
        let read = memory.read(offset, &mut before);
        machine.load(hpa, &mut behind);
        if !read || before != behind {
            wrong.push(format!(
                "{hpa:#x}: the guest has {before:02x?}, {name} DPA {:#x} has {behind:02x?}",
                landing.dpa.0
            ));
        } else if landing.dpa.0 < volatile {
            marked.push((hpa, offset, before, mark(number)));
        }
    }
    for (_, offset, _, mark) in &marked {
        let _ = memory.write(*offset, mark);
    }
    for (hpa, _, _, mark) in &marked {
        let mut found = [0; 8];
        machine.load(*hpa, &mut found);
        if found != *mark {
            wrong.push(format!(
                "{hpa:#x}: what the guest stores there is not what its device gets ({} at {:#x})",
                Size(slot.size),
                slot.base
            ));
        }
    }
    for (_, offset, before, _) in marked.iter().rev() {
        let _ = memory.write(*offset, before);
    }
    wrong
}

/// The first and the last granules of a slot, each by its first eight bytes, and its middle.
fn addresses(slot: &Slot) -> impl Iterator<Item = u64> {
    let granules = slot.size / GRANULE;
    let ends = (0..GRANULES.min(granules)).chain(granules.saturating_sub(GRANULES)..granules);
    // 16 KiB is the coarsest granule of 16 ways: what repeats does so within 256 KiB.
    let powers = (0..=10).map(|bit| 1u64 << bit).filter(|granule| *granule < granules);
    let mut all: Vec<u64> = ends.chain(powers).chain([granules / 2]).collect();
    all.sort_unstable();
    all.dedup();
    let base = slot.base;
    all.into_iter().map(move |granule| base + granule * GRANULE)
}

fn mark(number: u64) -> [u8; 8] {
    (number ^ 0xA5C3_0F96_5A3C_F069).to_le_bytes()
}
