//! What the next stage is told of a flat machine: the CEDT and the hand-off record, as the general path
//! makes them.
//!
//! **Invariant**: nothing is told before the registers were read again and found as they were verified.

use cxl_regs::Interleave;
use cxl_regs::access::Component;
use cxl_regs::acpi::cedt::{Chbs, ChbsVersion};
use cxl_regs::acpi::{CedtWriter, Identity};

use super::{Region, View, WorkspaceMut, verify};
use crate::committed::{CommittedRegion, Fate, Probed};
use crate::config::Config;
use crate::decoder_registers::DecoderRegisters;
use crate::discover::leaf::by_uid;
use crate::error::{Code, Error, Place};
use crate::handoff::{ComponentRecord, Counts, TableLocation, Writer};
use crate::list::Empty;
use crate::mmio::Mmio;
use crate::outcome::{ComponentOutcome, Outcome, of_remark};
use crate::platform::Platform;
use crate::tables::{cfmws, no_room, refused};
use crate::topology::{Node, NodeId, NodeKind, Tree};

/// Whether everything was brought up, and is as it was then.
fn ready(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    work: &WorkspaceMut<'_>,
) -> Result<(), Error> {
    if !work.rest.whole {
        return Err(Code::TABLES_UNREAD.error());
    }
    verify::verify(hw, platform, work.rest.config_lock, work.view())
}

/// Reads every decoder once more, writes the CEDT into `buffer` and returns exactly it: a CHBS for every
/// bridge, by UID; a CFMWS for every window that has a place, by base, fixed where a region is in it.
pub fn cedt<'a, 'b>(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    work: impl Into<WorkspaceMut<'a>>,
    identity: Identity,
    buffer: &'b mut [u8],
) -> Result<&'b mut [u8], Error> {
    let work = work.into();
    ready(hw, platform, &work)?;
    let mut writer = CedtWriter::new(buffer, identity).map_err(no_room)?;
    for bridge in by_uid(platform.bridges) {
        let chbs = Chbs::new(bridge.uid, ChbsVersion::Chbcr, bridge.registers);
        let chbs = chbs
            .map_err(|problem| Code::TABLES_BRIDGE.at(Place::bridge(bridge.uid)).rule(problem))?;
        writer.chbs(&chbs).map_err(refused)?;
    }
    let mut last = None;
    let windows = || platform.windows.iter().filter(|window| platform.base_of(window).is_some());
    while let Some(window) =
        windows().filter(|window| window.base > last).min_by_key(|window| window.base)
    {
        last = window.base;
        let fixed = work.regions.iter().any(|region| Some(region.window) == window.base);
        writer.cfmws(&cfmws(window, fixed)?).map_err(refused)?;
    }
    writer.finish().map_err(refused)
}

/// Writes the hand-off record into `buffer` and returns exactly it. What a restore has to put back
/// outside of decoders is read from the components for it.
pub fn hand_off<'a, 'b>(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    work: impl Into<WorkspaceMut<'a>>,
    cedt: Option<TableLocation>,
    buffer: &'b mut [u8],
) -> Result<&'b mut [u8], Error> {
    let work = work.into();
    ready(hw, platform, &work)?;
    let (view, remarks) = (work.view(), &work.rest.remarks);
    let devices = view.ports.iter().filter(|port| port.device.is_some()).count();
    let components = view.bridges.len() + view.ports.len() + devices;
    let counts = Counts {
        regions: view.regions.len(),
        // One of the device, one of the bridge.
        decoders: 2 * view.regions.len(),
        components,
        outcomes: components + remarks.iter().filter_map(of_remark).count(),
    };
    let mut record = Writer::new(counts, buffer)?;
    for Region { window, span, coherency, partition, .. } in view.regions {
        record.region(&CommittedRegion {
            window: *window,
            span: *span,
            interleave: Interleave::NONE,
            coherency: *coherency,
            partition: *partition,
            locked: true,
            probed: Probed::No,
        });
    }
    view.each(&mut |found| {
        let (component, of) = match found.of {
            Kind::Bridge => (Component::HostBridge, found.bridge),
            Kind::Port => return,
            Kind::Device => (Component::Device, found.port),
        };
        let planned = (0..u8::MAX).map_while(|index| view.planned(component, of, index));
        for planned in planned {
            let registers = DecoderRegisters::new(planned.hdm.block, planned.place.index);
            record.decoder(planned.place, registers.read(hw), Fate::Done, found.number.into());
        }
    });
    let mut config = Config::uncached();
    view.each(&mut |found| {
        let (nodes, own) = (view.nodes(found), NodeId(found.of as u16));
        let tree = Tree(&nodes);
        if let Some(node) = tree.get(own) {
            let component = ComponentRecord::of(hw, &mut config, platform.ecam, tree, own, node);
            record.component(&component.below(found.parent));
        }
    });
    view.each(&mut |found| {
        let nodes = view.nodes(found);
        let (tree, own) = (Tree(&nodes), NodeId(found.of as u16));
        let Some(node) = tree.get(own) else { return };
        let in_use = match found.of {
            Kind::Bridge => view.regions_behind(found.bridge).next().is_some(),
            Kind::Port | Kind::Device => view.regions_of(found.port).next().is_some(),
        };
        record.outcome(ComponentOutcome {
            at: tree.path(own).into(),
            kind: Some(node.kind.into()),
            outcome: if in_use { Outcome::InUse } else { Outcome::Unused },
        });
    });
    remarks.iter().filter_map(of_remark).for_each(|outcome| record.outcome(outcome));
    Ok(record.finish(cedt, 0))
}

/// What a component is, by its place in its branch.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Bridge = 0,
    Port = 1,
    Device = 2,
}

/// A component in the order of the general topology.
#[derive(Clone, Copy)]
struct Found {
    of: Kind,
    bridge: u16,
    /// The port that it is, or that is above it.
    port: u16,
    /// Its number in that order, and that of the component above.
    number: u16,
    parent: Option<u16>,
}

impl View<'_> {
    /// Calls `each` for every component: each bridge, its ports, and the devices below these.
    fn each(self, each: &mut dyn FnMut(Found)) {
        let mut number = 0;
        for bridge in 0..self.bridges.len() as u16 {
            let top = number;
            for of in [Kind::Bridge, Kind::Port, Kind::Device] {
                if of == Kind::Bridge {
                    each(Found { of, bridge, port: 0, number, parent: None });
                    number += 1;
                    continue;
                }
                let own = self.ports.iter().zip(0..).filter(|(port, _)| port.bridge == bridge);
                for ((port, index), nth) in own.zip(1..) {
                    let parent = match of {
                        Kind::Device if port.device.is_none() => continue,
                        Kind::Device => top + nth,
                        Kind::Bridge | Kind::Port => top,
                    };
                    each(Found { of, bridge, port: index, number, parent: Some(parent) });
                    number += 1;
                }
            }
        }
    }

    /// The nodes of a component's branch: bridge, port and device.
    fn nodes(self, found: Found) -> [Node; 3] {
        let mut nodes = [Node::EMPTY; 3];
        let [top, port, device] = &mut nodes;
        if let Some(bridge) = self.bridges.get(usize::from(found.bridge)) {
            (top.kind, top.hdm) = (NodeKind::HostBridge { uid: bridge.uid }, Some(bridge.hdm));
        }
        if let Some(own) = self.port(found.port) {
            (port.parent, port.port) = (Some(NodeId(0)), own.number);
            (port.function, port.back_invalidate) = (Some(own.function), own.back_invalidate);
            if let Some(below) = &own.device {
                (device.parent, device.kind) = (Some(NodeId(1)), NodeKind::Device(below.device));
                (device.function, device.hdm) = (Some(below.function), below.hdm);
                device.back_invalidate = below.back_invalidate;
            }
        }
        nodes
    }
}
