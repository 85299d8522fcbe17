//! A device's BAR and its CXL memory are two things: the one may be moved or switched off, the
//! other stays where its decoders put it.
//!
//! **Invariant**: every register that is changed gets its old value back.

use cxl_firmware::config;
use cxl_firmware::mmio::Mmio;
use cxl_firmware::platform::Platform;
use cxl_firmware::topology::Node;
use cxl_regs::component::BLOCK_SIZE;
use cxl_regs::config::{Bar, BarKind, Command, EndpointHeader};
use cxl_regs::hdm::Capability;

use super::Checks;
use super::memory::{load, store};
use crate::Room;
use crate::hw::Hardware;

/// How far a BAR is moved: past the BARs that the board put beside it.
const AWAY: u64 = 4 * BLOCK_SIZE as u64;

pub(super) fn bars(hw: &mut Hardware, room: &Room, platform: &Platform<'_>, checks: &mut Checks) {
    for (at, region) in (0..).zip(&room.committed.regions) {
        store(hw, region.span.base().0, at);
    }
    for node in &room.topology.nodes {
        if node.device().is_some() && one(hw, room, platform, node, checks).is_none() {
            checks.refuse(format_args!("BAR 0 is not what it has to be"));
        }
    }
}

/// Memory of all regions, as it was filled.
fn memory(hw: &mut Hardware, room: &Room, when: &str, checks: &mut Checks) {
    for (at, region) in (0..).zip(&room.committed.regions) {
        let base = region.span.base().0;
        checks.equal(format_args!("{base:#x} {when}"), at, load(hw, base));
    }
}

/// What the HDM capability register reads at an address.
fn register(hw: &mut Hardware, address: u64, when: &str, expected: u32, checks: &mut Checks) {
    let found = hw.read(address);
    checks.equal(format_args!("{address:#x} {when}"), expected.into(), found.into());
}

fn one(
    hw: &mut Hardware,
    room: &Room,
    platform: &Platform<'_>,
    node: &Node,
    checks: &mut Checks,
) -> Option<()> {
    let (hdm, function) = (node.hdm?, node.function?);
    let space = config::function_base(platform.ecam, function)?;
    let low = space.address::<Bar>();
    let (before, high) = (hw.read(low), hw.read(low + 4));
    let kind = BarKind::decode(before).ok()?;
    let base = kind.address(before, high);
    let capability = hdm.block.read::<Capability>(hw).into_bits();
    let within = hdm.block.0.checked_sub(base).filter(|at| *at < u64::from(BLOCK_SIZE))?;
    let command: Command = space.read(hw);
    let off = command.with_memory_space(false);
    config::write(hw, space, EndpointHeader::REGISTERS, off);
    register(hw, base + within, "with Memory Space off", u32::MAX, checks);
    memory(hw, room, "with Memory Space off", checks);
    config::write(hw, space, EndpointHeader::REGISTERS, command);
    register(hw, base + within, "with Memory Space on", capability, checks);

    let (moved_low, moved_high) = kind.at(base + AWAY);
    hw.write(low, moved_low);
    hw.write(low + 4, moved_high);
    register(hw, base + AWAY + within, "behind the moved BAR", capability, checks);
    register(hw, base + within, "where the BAR was", u32::MAX, checks);
    memory(hw, room, "with the BAR moved", checks);
    hw.write(low, before);
    hw.write(low + 4, high);
    register(hw, base + within, "with the BAR back", capability, checks);
    Some(())
}
