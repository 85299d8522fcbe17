//! What the next stage is told of a flat machine: the CEDT and the hand-off record, as the general path
//! makes them.
//!
//! **Invariant**: nothing is told before the registers were read again and found as they were verified.

use cxl_regs::access::Component;
use cxl_regs::acpi::cedt::{Cfmws, Chbs, ChbsVersion};
use cxl_regs::acpi::{CedtWriter, Identity};
use cxl_regs::{Arithmetic, Interleave, Ways};

use super::{NotPlanned, Region, View, WorkspaceMut, verify};
use crate::committed::{CommittedRegion, Fate, Probed};
use crate::config::Config;
use crate::decoder_registers::DecoderRegisters;
use crate::discover::leaf::{Role, by_uid};
use crate::error::{Code, Error, Place};
use crate::handoff::{ComponentRecord, Counts, Subject, TableLocation, Writer};
use crate::mmio::Mmio;
use crate::outcome::{ComponentKind, ComponentOutcome, Outcome, of_remark};
use crate::platform::{Platform, Window};
use crate::tables::{no_room, range, refused, restrictions};
use crate::topology::Path;

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
    table(platform, work.view(), identity, buffer)
}

#[inline(never)]
fn table<'b>(
    platform: &Platform<'_>,
    view: View<'_>,
    identity: Identity,
    buffer: &'b mut [u8],
) -> Result<&'b mut [u8], Error> {
    let mut writer = CedtWriter::new(buffer, identity).map_err(no_room)?;
    for bridge in by_uid(platform.bridges) {
        let chbs = Chbs::new(bridge.uid, ChbsVersion::Chbcr, bridge.registers);
        let chbs = chbs
            .map_err(|problem| Code::TABLES_BRIDGE.at(Place::bridge(bridge.uid)).rule(problem))?;
        writer.chbs(&chbs).map_err(refused)?;
    }
    let mut last = None;
    loop {
        let mut next: Option<&Window> = None;
        for window in platform.windows {
            let lower = next.is_none_or(|next| window.base < next.base);
            if window.base > last && lower && platform.base_of(window).is_some() {
                next = Some(window);
            }
        }
        let Some(window) = next else { break };
        last = window.base;
        let at = Place::window(window.base);
        // The platform is the one that was planned for, so each window is of one way.
        let (Ways::One, Arithmetic::Modulo, [target]) =
            (window.interleave.ways, window.arithmetic, &*window.targets)
        else {
            return Err(Code::PLAN_NOT_FLAT.at(at).detail(NotPlanned::Interleaved as u8));
        };
        let span = range(window.base.unwrap_or_default(), window.size).and_then(|span| {
            Cfmws::check_range(span, Ways::One)?;
            Ok(span)
        });
        let span = span.map_err(|problem| Code::TABLES_WINDOW.at(at).rule(problem))?;
        let fixed = view.regions.iter().any(|region| Some(region.window) == window.base);
        let (granularity, allowed) = (window.interleave.granularity, restrictions(window, fixed));
        writer
            .cfmws_of_one_way(span, *target, granularity, allowed, window.qtg)
            .map_err(refused)?;
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
    write(hw, platform, &work.into(), cedt, buffer)
}

#[inline(never)]
fn write<'b>(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    work: &WorkspaceMut<'_>,
    cedt: Option<TableLocation>,
    buffer: &'b mut [u8],
) -> Result<&'b mut [u8], Error> {
    ready(hw, platform, work)?;
    let (view, remarks) = (work.view(), &work.rest.remarks);
    let mut components = 0;
    while view.component(components).is_some() {
        components += 1;
    }
    let mut outcomes = usize::from(components);
    for remark in remarks {
        outcomes += usize::from(of_remark(remark).is_some());
    }
    let counts = Counts {
        regions: view.regions.len(),
        // One of the device, one of the bridge.
        decoders: 2 * view.regions.len(),
        components: components.into(),
        outcomes,
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
    for number in 0..components {
        let Some(found) = view.component(number) else { continue };
        let (component, of) = match found.kind {
            ComponentKind::HostBridge => (Component::HostBridge, found.bridge),
            ComponentKind::Device => (Component::Device, found.port),
            _ => continue,
        };
        for index in 0..u8::MAX {
            let Some(planned) = view.planned(component, of, index) else { break };
            let registers = DecoderRegisters::new(planned.hdm.block, index);
            record.decoder(planned.place, registers.read(hw), Fate::Done, number.into());
        }
    }
    let mut config = Config::uncached();
    for number in 0..components {
        let Some(found) = view.component(number) else { continue };
        let subject = view.subject(found);
        record.component(&ComponentRecord::of(hw, &mut config, platform.ecam, &subject));
    }
    for number in 0..components {
        let Some(found) = view.component(number) else { continue };
        let in_use = match found.kind {
            ComponentKind::HostBridge => view.has_region_behind(found.bridge),
            _ => view.has_region(found.port),
        };
        record.outcome(ComponentOutcome {
            at: view.subject(found).at.into(),
            kind: Some(found.kind),
            outcome: if in_use { Outcome::InUse } else { Outcome::Unused },
        });
    }
    for outcome in remarks.iter().filter_map(of_remark) {
        record.outcome(outcome);
    }
    Ok(record.finish(cedt, 0))
}

/// A component in the order of the general topology.
#[derive(Clone, Copy)]
struct Found {
    kind: ComponentKind,
    bridge: u16,
    /// The port that it is, or that is above it.
    port: u16,
    /// The number in that order of the component above.
    parent: Option<u16>,
}

impl View<'_> {
    /// The component with a number: each bridge is followed by its ports, and these by the devices below.
    #[inline(never)]
    fn component(self, wanted: u16) -> Option<Found> {
        let mut number = 0;
        for bridge in 0..self.bridges.len() as u16 {
            let top = number;
            if top == wanted {
                let kind = ComponentKind::HostBridge;
                return Some(Found { kind, bridge, port: 0, parent: None });
            }
            number += 1;
            for kind in [ComponentKind::RootPort, ComponentKind::Device] {
                let mut above = top;
                for (port, found) in (0..).zip(self.ports) {
                    if found.bridge != bridge {
                        continue;
                    }
                    above += 1;
                    let is_device = kind == ComponentKind::Device;
                    if is_device && found.device.is_none() {
                        continue;
                    }
                    if number == wanted {
                        let parent = Some(if is_device { above } else { top });
                        return Some(Found { kind, bridge, port, parent });
                    }
                    number += 1;
                }
            }
        }
        None
    }

    /// What a component's record is made of.
    #[inline(never)]
    fn subject(&self, found: Found) -> Subject<'_> {
        let Found { kind, bridge, port, parent } = found;
        let mut subject = Subject {
            at: Path::FIRST,
            kind,
            parent,
            function: None,
            role: None,
            above: None,
            device: None,
            hdm: None,
            back_invalidate: None,
            sound: true,
        };
        let port = self.port(port).filter(|_| kind != ComponentKind::HostBridge);
        match port {
            None => {
                if let Some(bridge) = self.bridges.get(usize::from(bridge)) {
                    subject.at = Path::new(bridge.uid, &[]).unwrap_or_default();
                    subject.hdm = Some(bridge.hdm);
                }
            }
            Some(port) => {
                subject.at = self.path(port);
                match port.device.as_ref().filter(|_| kind == ComponentKind::Device) {
                    None => {
                        subject.function = Some(port.function);
                        subject.role = Some(Role::RootPort);
                        subject.back_invalidate = port.back_invalidate;
                    }
                    Some(below) => {
                        subject.function = Some(below.function);
                        (subject.role, subject.above) = (Some(Role::Device), Some(Role::RootPort));
                        subject.device = Some(&below.device);
                        (subject.hdm, subject.back_invalidate) = (below.hdm, below.back_invalidate);
                    }
                }
            }
        }
        subject
    }
}
