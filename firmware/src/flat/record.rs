//! What the next stage is told of a flat machine: the CEDT and the hand-off record, as the general path
//! makes them.
//!
//! **Invariant**: nothing is told before the registers were read again and found as they were verified.

use cxl_regs::access::Component;
use cxl_regs::acpi::cedt::CedtWriteError;
use cxl_regs::acpi::cedt::{Cfmws, Chbs, ChbsVersion};
use cxl_regs::acpi::{CedtWriter, Identity};
use cxl_regs::{Arithmetic, Hpa, Interleave, Ways};

use super::{NotPlanned, Region, View, WorkspaceMut, verify};
use crate::committed::{CommittedRegion, Fate, Probed};
use crate::config::Config;
use crate::decoder_registers::DecoderRegisters;
use crate::discover::leaf::{Role, by_uid};
use crate::error::{Code, Error, Failed, Fault, Place};
use crate::handoff::{ComponentRecord, Counts, Subject, TableLocation, Writer};
use crate::mmio::Mmio;
use crate::outcome::{ComponentKind, ComponentOutcome, Outcome, of_remark};
use crate::platform::{Bridge, Platform, Window};
use crate::tables::{no_room, range, refused, restrictions};
use crate::topology::Path;

/// Whether everything was brought up, and is as it was then.
#[inline(never)]
fn ready(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    work: &WorkspaceMut<'_>,
    fault: &mut Fault,
) -> Result<(), Failed> {
    if !work.rest.whole {
        return fault.at(Code::TABLES_UNREAD, Place::NOWHERE).into();
    }
    verify::verify(hw, platform, work.rest.config_lock, work.view(), fault)
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
    let (work, mut fault) = (work.into(), Fault::none());
    let table = ready(hw, platform, &work, &mut fault)
        .and_then(|()| table(platform, work.view(), identity, buffer, &mut fault));
    fault.told(table)
}

#[inline(never)]
fn table<'b>(
    platform: &Platform<'_>,
    view: View<'_>,
    identity: Identity,
    buffer: &'b mut [u8],
    fault: &mut Fault,
) -> Result<&'b mut [u8], Failed> {
    let mut writer =
        CedtWriter::new(buffer, identity).map_err(|error| fault.keep(no_room(error)))?;
    for bridge in by_uid(platform.bridges) {
        structure(&mut writer, bridge, fault)?;
    }
    let mut last = None;
    while let Some((base, window)) = next_window(platform, last) {
        last = Some(base);
        fixed_window(&mut writer, view, base, window, fault)?;
    }
    written(writer.finish(), fault)
}

/// Adds a bridge.
#[inline(never)]
fn structure(
    writer: &mut CedtWriter<'_>,
    bridge: &Bridge,
    fault: &mut Fault,
) -> Result<(), Failed> {
    match Chbs::new(bridge.uid, ChbsVersion::Chbcr, bridge.registers) {
        Ok(chbs) => written(writer.chbs(&chbs), fault),
        Err(error) => {
            let at = Place::bridge(bridge.uid);
            fault.at(Code::TABLES_BRIDGE, at).rule(error).into()
        }
    }
}

/// Adds a window.
#[inline(never)]
fn fixed_window(
    writer: &mut CedtWriter<'_>,
    view: View<'_>,
    base: Hpa,
    window: &Window,
    fault: &mut Fault,
) -> Result<(), Failed> {
    let at = Place::window(base);
    // The platform is the one that was planned for, so each window is of one way.
    let (Ways::One, Arithmetic::Modulo, [target]) =
        (window.interleave.ways, window.arithmetic, &*window.targets)
    else {
        let what = NotPlanned::Interleaved as u8;
        return fault.at(Code::PLAN_NOT_FLAT, at).detail(what).into();
    };
    let span = range(base, window.size).and_then(|span| {
        Cfmws::check_range(span, Ways::One)?;
        Ok(span)
    });
    let span = match span {
        Ok(span) => span,
        Err(error) => return fault.at(Code::TABLES_WINDOW, at).rule(error).into(),
    };
    let fixed = view.regions.iter().any(|region| region.window == base);
    let (granularity, allowed) = (window.interleave.granularity, restrictions(window, fixed));
    let added = writer.cfmws_of_one_way(span, *target, granularity, allowed, window.qtg);
    written(added, fault)
}

/// The window with the lowest base above another, of those that have a place.
fn next_window<'a>(platform: &Platform<'a>, last: Option<Hpa>) -> Option<(Hpa, &'a Window)> {
    let mut next: Option<(Hpa, &Window)> = None;
    for window in platform.windows {
        let Some(base) = platform.base_of(window) else { continue };
        let lower = next.is_none_or(|(next, _)| base < next);
        if lower && last.is_none_or(|last| base > last) {
            next = Some((base, window));
        }
    }
    next
}

fn written<T>(result: Result<T, CedtWriteError>, fault: &mut Fault) -> Result<T, Failed> {
    result.map_err(|error| fault.keep(refused(error)))
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
    let mut fault = Fault::none();
    let record = write(hw, platform, &work.into(), cedt, buffer, &mut fault);
    fault.told(record)
}

#[inline(never)]
fn write<'b>(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    work: &WorkspaceMut<'_>,
    cedt: Option<TableLocation>,
    buffer: &'b mut [u8],
    fault: &mut Fault,
) -> Result<&'b mut [u8], Failed> {
    ready(hw, platform, work, fault)?;
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
    let mut config = Config::uncached();
    let writer = &mut Writer::new(counts, buffer, fault);
    let Ok(record) = writer else { return Err(Failed) };
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
        decoders(hw, view, number, record);
    }
    for number in 0..components {
        let Some(found) = view.component(number) else { continue };
        let subject = view.subject(found);
        record.component(&ComponentRecord::of(hw, &mut config, platform.ecam, &subject));
    }
    for number in 0..components {
        outcome(view, number, record);
    }
    for remark in remarks {
        if let Some(outcome) = of_remark(remark) {
            record.outcome(outcome);
        }
    }
    Ok(record.finish(cedt, 0))
}

/// Records the decoders of a component.
#[inline(never)]
fn decoders(hw: &mut impl Mmio, view: View<'_>, number: u16, record: &mut Writer<'_>) {
    let Some(found) = view.component(number) else { return };
    let component = match found.kind {
        ComponentKind::HostBridge => view.ports.len() + usize::from(found.bridge),
        ComponentKind::Device => usize::from(found.port),
        _ => return,
    };
    for index in 0..u8::MAX {
        let Some(planned) = &view.planned(component, index) else { break };
        let registers = DecoderRegisters::new(planned.hdm.block, index);
        record.decoder(planned.place, registers.read(hw), Fate::Done, number.into());
    }
}

/// Records what became of a component.
fn outcome(view: View<'_>, number: u16, record: &mut Writer<'_>) {
    let Some(found) = view.component(number) else { return };
    // A port has the place of what is behind it.
    let (component, number) = found.with_decoders();
    let in_use = view.has_region(component, number);
    record.outcome(ComponentOutcome {
        at: (&view.at(component, number)).into(),
        kind: Some(found.kind),
        outcome: if in_use { Outcome::InUse } else { Outcome::Unused },
    });
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

impl Found {
    /// What has the decoders of it, by its number among its like: of a port, the device below.
    fn with_decoders(&self) -> (Component, u16) {
        match self.kind {
            ComponentKind::HostBridge => (Component::HostBridge, self.bridge),
            _ => (Component::Device, self.port),
        }
    }
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
        let number = port;
        let port = self.port(number).filter(|_| kind != ComponentKind::HostBridge);
        match port {
            None => {
                if let Some(bridge) = self.bridges.get(usize::from(bridge)) {
                    subject.at = Path::new(bridge.uid, &[]).unwrap_or_default();
                    subject.hdm = Some(bridge.hdm);
                }
            }
            Some(port) => {
                subject.at = self.path(number);
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
