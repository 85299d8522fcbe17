//! Resets what is below every root port, as a sleep state or an operating system may, and puts the same
//! memory back from the hand-off record.
//!
//! **Invariant**: that decoders are gone in between is seen first, so that there is something to restore.

use cxl_firmware::DecoderRegisters;
use cxl_firmware::committed::{CommittedDecoder, Fate};
use cxl_firmware::config;
use cxl_firmware::handoff;
use cxl_firmware::list::{Empty, Slots};
use cxl_firmware::mmio::{Block, Mmio};
use cxl_firmware::outcome::{ComponentOutcome, Extent};
use cxl_firmware::platform::Platform;
use cxl_firmware::restore::{Pci, restore};
use cxl_firmware::topology::NodeKind;
use cxl_regs::config::{BridgeControl, BridgeHeader};
use cxl_regs::dvsec::port::{self, PortDvsec};
use cxl_regs::dvsec::{DvsecId, Dvsecs};
use cxl_regs::hdm::DecoderImage;

use super::{Checks, memory};
use crate::hw::Hardware;
use crate::report::counted;
use crate::{Room, say};

/// Components of the machines that this is for.
const MOST: usize = 128;

pub(super) fn again(
    hw: &mut Hardware,
    room: &Room,
    platform: &Platform<'_>,
    record: &[u8],
    checks: &mut Checks,
) {
    let record = match handoff::read(record) {
        Ok(record) => record,
        Err(error) => return checks.refuse(format_args!("restore: {error}")),
    };
    let tree = room.topology.tree();
    let in_use = |id| done(room).any(|entry| entry.node == id);
    let devices = tree.devices().filter(|(id, _)| in_use(*id)).count() as u64;
    let locked = read(hw, room).filter(|image| image.control().locked()).count() as u64;
    for node in &room.topology.nodes {
        if let (NodeKind::RootPort, Some(function)) = (node.kind, node.function)
            && let Some(base) = config::function_base(platform.ecam, function)
        {
            reset_below(hw, base);
        }
    }
    // Of devices; a bridge's are above the reset. All-ones, where BARs are gone too, are no lock.
    let is_locked =
        |image: &DecoderImage| image.control().locked() && image.control().into_bits() != u32::MAX;
    let held = read(hw, room).filter(is_locked).count() as u64;
    checks.equal(format_args!("a reset that opens no lock"), 0, u64::from(held == locked));
    let mut memory = [ComponentOutcome::EMPTY; MOST];
    let mut outcomes = Slots::new(&mut memory);
    let mut clock = hw.clock();
    let result = restore(hw, &mut clock, platform.ecam, &record, Pci::Library, outcomes.list());
    match result {
        Ok(Extent::Whole) => {
            let devices = counted(devices, "device");
            say(format_args!("restore: {devices} back after a reset of their buses"));
        }
        Ok(Extent::Less { lost }) => {
            for error in outcomes.items().iter().filter_map(|found| found.outcome.error()) {
                say(format_args!("lost: {error}"));
            }
            checks.refuse(format_args!("restore: {} lost", counted(lost.into(), "component")));
        }
        Err(error) => return checks.refuse(format_args!("restore: {error}")),
    }
    let again = read(hw, room).filter(|image| image.control().locked()).count() as u64;
    checks.equal(format_args!("locked decoders after the restore"), locked, again);
    let images = read(hw, room).filter(|image| image.control().locked());
    let recorded = record.decoders().filter(|decoder| decoder.fate == Fate::Done);
    let recorded = recorded.map(|decoder| decoder.image).filter(|image| image.control().locked());
    // What is stranded is in the record's own digest as well.
    if handoff::digest(images) != handoff::digest(recorded) {
        checks.refuse(format_args!("restore: registers are not what the record has of them"));
    }
    memory::touch(hw, room, checks);
}

/// The decoders that are in use: what is stranded is not put back.
fn done(room: &Room) -> impl Iterator<Item = &CommittedDecoder> {
    room.committed.decoders.iter().filter(|entry| entry.fate == Fate::Done)
}

/// Those, as they are now.
fn read<'a>(hw: &'a mut Hardware, room: &'a Room) -> impl Iterator<Item = DecoderImage> + 'a {
    let tree = room.topology.tree();
    done(room).filter_map(move |entry| {
        let hdm = tree.get(entry.node)?.hdm?;
        Some(DecoderRegisters::new(hdm.block, entry.index).read(hw))
    })
}

/// A secondary bus reset, which a CXL port lets through only where it was told to.
fn reset_below(hw: &mut Hardware, base: Block) {
    let extensions = Dvsecs::new(|offset| hw.read(base.0 + u64::from(offset)))
        .find_map(|dvsec| dvsec.ok().filter(|dvsec| dvsec.id == DvsecId::PortExtensions));
    let Some(extensions) = extensions else { return };
    let dvsec = Block(base.0 + u64::from(extensions.offset));
    let before: port::Control = dvsec.read(hw);
    config::write(hw, dvsec, PortDvsec::REGISTERS, before.with_unmask_sbr(true));
    let control: BridgeControl = base.read(hw);
    for reset in [true, false] {
        let control = control.with_secondary_bus_reset(reset);
        config::write(hw, base, BridgeHeader::REGISTERS, control);
    }
    config::write(hw, dvsec, PortDvsec::REGISTERS, before);
}
