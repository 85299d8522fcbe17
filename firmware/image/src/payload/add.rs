//! Brings up what is plugged in while the guest runs, beside what is in use.
//!
//! **Invariant**: counting is what makes a scenario's events happen; what was in use before it, each
//! decoder to its last bit, is the same when the newcomer's memory is there.

use cxl_firmware::bring_up::{Extent, add};
use cxl_firmware::config;
use cxl_firmware::mmio::{Block, Mmio};
use cxl_firmware::platform::Platform;
use cxl_firmware::policy::Policy;
use cxl_firmware::topology::NodeKind;
use cxl_firmware::{DecoderRegisters, Error};
use cxl_regs::Span;
use cxl_regs::config::{Bar, BarKind, Bdf, BusNumbers, Command, EndpointHeader, MemoryBase, Sbdf};
use cxl_regs::hdm::DecoderImage;
use heapless::Vec;

use super::{Checks, count, memory};
use crate::hw::Hardware;
use crate::port::Console;
use crate::report::counted;
use crate::{Room, report};

/// Regions and decoders of the machines that this is for.
const MOST: usize = 256;

pub(super) fn later(
    hw: &mut Hardware,
    room: &mut Room,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    checks: &mut Checks,
) {
    let used = room.committed.regions.len().max(room.committed.decoders.len());
    if used > MOST {
        return checks.refuse(format_args!("add: {used} regions or decoders, {MOST} at most"));
    }
    let were: Vec<Span, MOST> = room.committed.regions.iter().map(|region| region.span).collect();
    let tree = room.topology.tree();
    let decoders: Vec<DecoderRegisters, MOST> = room
        .committed
        .decoders
        .iter()
        .filter_map(|entry| {
            Some(DecoderRegisters::new(tree.get(entry.node)?.hdm?.block, entry.index))
        })
        .collect();
    let read = |hw: &mut Hardware| -> Vec<DecoderImage, MOST> {
        decoders.iter().map(|decoder| decoder.read(hw)).collect()
    };
    let before = read(hw);
    let lost_before: Vec<Error, MOST> = losses(room).copied().take(MOST).collect();
    count();
    assign(hw, room, platform);
    let mut clock = hw.clock();
    let extent = match add(hw, &mut clock, platform, policy, &mut *room) {
        Ok(extent) => extent,
        Err(error) => return checks.refuse(format_args!("add: {}: {error}", error.phase())),
    };
    let after = read(hw);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    checks.equal(format_args!("decoders that were in use and changed"), 0, moved as u64);
    let regions = &room.committed.regions;
    let gone = were.iter().filter(|were| !regions.iter().any(|region| region.span == **were));
    checks.equal(format_args!("regions that were in use and are gone"), 0, gone.count() as u64);
    let new = || regions.iter().filter(|region| !were.contains(&region.span));
    new().for_each(|region| report::region(&mut Console, region));
    let news = || losses(room).filter(|error| !lost_before.contains(error));
    if new().next().is_none() && news().next().is_none() {
        checks.refuse(format_args!("add: nothing was plugged in that has memory"));
    }
    memory::touch(hw, room, checks);
    // Last: what is said last is quoted.
    if let Extent::Less { lost } = extent {
        checks.refuse(format_args!("add: {} lost", counted(lost.into(), "component")));
    }
    news().for_each(|error| checks.refuse(format_args!("add: {}: {error}", error.phase())));
}

/// What best effort gave up.
fn losses(room: &Room) -> impl Iterator<Item = &Error> {
    let faults = room.topology.nodes.iter().filter_map(|node| node.fault.as_ref());
    room.topology.remarks.losses().chain(faults.filter(|fault| fault.is_failure()))
}

/// Gives what came to an empty port addresses that the port forwards, as whoever looks after PCI does.
fn assign(hw: &mut Hardware, room: &Room, platform: &Platform<'_>) {
    for node in &room.topology.nodes {
        let (NodeKind::RootPort | NodeKind::DownstreamPort, Some(function)) =
            (node.kind, node.function)
        else {
            continue;
        };
        let Some(port) = config::function_base(platform.ecam, function) else { continue };
        let buses: BusNumbers = port.read(hw);
        // A port without buses leads nowhere.
        let below = Some(buses.secondary())
            .filter(|bus| *bus != 0)
            .and_then(|bus| Bdf::new(bus, 0, 0))
            .map(|bdf| Sbdf { segment: function.segment, bdf })
            .and_then(|below| config::function_base(platform.ecam, below));
        let Some(space) = below.filter(|space| hw.read(space.0) != u32::MAX) else { continue };
        let forwarded: MemoryBase = port.read(hw);
        place(hw, space, u64::from(forwarded.address()) << 20);
    }
}

/// Places the BARs of a function that has no address yet, from `next` on.
fn place(hw: &mut Hardware, space: Block, mut next: u64) {
    let mut placed = false;
    for index in [0, 2, 4] {
        let low = space.address::<Bar>() + 4 * index;
        let was = (hw.read(low), hw.read(low + 4));
        let Ok(kind @ BarKind::Memory64 { .. }) = BarKind::decode(was.0) else { continue };
        if kind.address(was.0, was.1) != 0 {
            continue;
        }
        hw.write(low, u32::MAX);
        hw.write(low + 4, u32::MAX);
        let Ok(Some(size)) = kind.size(hw.read(low), hw.read(low + 4)) else { continue };
        let at = next.next_multiple_of(size);
        let (half, upper) = kind.at(at);
        hw.write(low, half);
        hw.write(low + 4, upper);
        (next, placed) = (at + size, true);
    }
    if placed {
        let command: Command = space.read(hw);
        let on = command.with_memory_space(true).with_bus_master(true);
        config::write(hw, space, EndpointHeader::REGISTERS, on);
    }
}
