//! A machine whose devices are handed over from another, whose firmware committed and locked them: the
//! guest's machine over hardware, with shadows between them.
//!
//! **Invariant**: the guest's machine and hardware have no register in common, and all of their memory:
//! what either writes to a range is in both.

use std::fmt;

use cxl_regs::acpi::Cedt;
use cxl_regs::dvsec::device::DeviceDvsec;
use cxl_regs::{Component, Hpa, Span};

use super::{Machine, image};
use crate::acpi::Tables;
use crate::device::component::ComponentBlock;
use crate::device::media::Media;
use crate::fabric::Fabric;
use crate::layout::{TABLES, place_windows};
use crate::scenario::{Place, Scenario, WindowChoice};
use crate::shadow::{DeviceShadow, Moved, ShadowDecoders, ShadowError};

/// What a machine's devices were handed over from.
#[derive(Debug)]
pub struct Hardware {
    /// The machine itself.
    pub machine: Machine,
    /// Its registers at that moment.
    before: Fabric,
    /// The ranges of each device.
    ranges: Vec<(usize, Moved)>,
}

/// Why devices are not handed over. The machine is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassError {
    /// The component that it is about; `None`: the whole machine.
    pub at: Option<Place>,
    /// What it is.
    pub why: Unpassed,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpassed {
    /// There is no shadow of its decoders.
    NoShadow(ShadowError),
    /// Hardware is another machine.
    OtherMachine,
    /// Nothing leads to any memory.
    NothingMapped,
    /// Its memory is part of a set that lies in another order.
    MemoryInUse,
}

impl fmt::Display for Unpassed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoShadow(error) => error.fmt(f),
            Self::OtherMachine => f.write_str("hardware has other components"),
            Self::NothingMapped => {
                f.write_str("no decoder of hardware is in use: its firmware has to program them")
            }
            Self::MemoryInUse => f.write_str("its memory is part of a set in another order"),
        }
    }
}

/// The widest physical address there is.
const MOST_PHYSICAL_BITS: u8 = 52;

/// The machine that the devices are handed over from: the same but for where its windows lie, and
/// sound. `None` if this one has its devices of its own.
pub fn hardware_of(scenario: &Scenario) -> Option<Scenario> {
    let mut hardware = scenario.clone();
    let placed = place_windows(scenario);
    for window in &mut hardware.windows {
        window.base = Some(window.host.take()?);
    }
    for region in &mut hardware.regions {
        if let Some(WindowChoice::At(base)) = region.window {
            let named = placed.iter().position(|placed| *placed == Some(base));
            region.window = named.map(WindowChoice::Named).or(region.window);
        }
    }
    hardware.platform.physical_bits = MOST_PHYSICAL_BITS;
    (hardware.faults, hardware.leaks, hardware.events) = Default::default();
    (!hardware.windows.is_empty()).then_some(hardware)
}

/// The shadow of one component, ready to be put in place.
enum Made {
    Decoders(ShadowDecoders),
    Device(Box<(DeviceShadow, Media)>),
}

impl Machine {
    /// Hands over the devices of another machine of the same make, whose decoders are committed and
    /// locked: here they are seen at the places that this machine's windows have for them.
    pub fn pass_through(&mut self, hardware: Self) -> Result<(), PassError> {
        let error = |at, why| PassError { at, why };
        if !self.is_like(&hardware) {
            return Err(error(None, Unpassed::OtherMachine));
        }
        let windows: Vec<_> = { hardware.placed_windows() }.map(|(_, span)| span).collect();
        let here: Vec<_> = self.placed_windows().map(|(_, span)| span).collect();
        let place = |_, host: Span| {
            let index = windows.iter().position(|window| window.contains_span(host))?;
            let base =
                here.get(index)?.base().0.checked_add(host.base().0 - windows[index].base().0)?;
            Span::new(Hpa(base), host.size()).ok().map(Span::base)
        };
        let (mut made, mut ranges) = (Vec::new(), Vec::new());
        for at in self.places() {
            let fail = |shadow| error(Some(at), Unpassed::NoShadow(shadow));
            let Some(hdm) = hardware.component(at).and_then(ComponentBlock::hdm) else { continue };
            let theirs = image(hdm);
            // A device without a decoder in use is none of those that are handed over.
            let unused = theirs.decoders.iter().all(|image| !image.control().committed());
            let shadow = match at {
                Place::Device(device) if hardware.present(device) && !unused => {
                    let dvsec = hardware.dvsec(device).unwrap_or_default();
                    let shadow = DeviceShadow::of(&theirs, &dvsec, place).map_err(fail)?;
                    ranges.extend(shadow.decoders.ranges().iter().map(|moved| (device, *moved)));
                    let media = hardware.endpoint(device).and_then(|e| e.media.shared());
                    let media = media.ok_or(error(Some(at), Unpassed::MemoryInUse))?;
                    Made::Device(Box::new((shadow, media)))
                }
                Place::Bridge(_) => Made::Decoders(
                    ShadowDecoders::of(Component::HostBridge, &theirs, place).map_err(fail)?,
                ),
                Place::Switch(_) => Made::Decoders(
                    ShadowDecoders::of(Component::UpstreamPort, &theirs, place).map_err(fail)?,
                ),
                Place::Device(_) | Place::Port(_) => continue,
            };
            made.push((at, shadow));
        }
        if ranges.is_empty() {
            return Err(error(None, Unpassed::NothingMapped));
        }
        for (at, shadow) in made {
            self.put(at, shadow);
        }
        for at in self.places() {
            if let (Some(own), Some(theirs)) = (self.component_mut(at), hardware.component(at)) {
                own.preset_like(theirs);
            }
        }
        self.changes.remap = true;
        let before = hardware.fabric();
        self.hardware = Some(Box::new(Hardware { machine: hardware, before, ranges }));
        Ok(())
    }

    fn is_like(&self, other: &Self) -> bool {
        let (own, theirs) = (&self.scenario, &other.scenario);
        let windows = own.windows.iter().zip(&theirs.windows);
        let mut alike = windows.map(|(a, b)| (a.size, &a.targets) == (b.size, &b.targets));
        own.windows.len() == theirs.windows.len()
            && alike.all(|alike| alike)
            && own.bridges == theirs.bridges
            && own.ports == theirs.ports
            && own.switches == theirs.switches
            && own.devices == theirs.devices
            && self.placed_windows().count() == own.windows.len()
            && other.placed_windows().count() == theirs.windows.len()
    }

    fn dvsec(&self, device: usize) -> Option<DeviceDvsec> {
        let function = self.function(Place::Device(device))?;
        let at = function.device_dvsec()?;
        Some(DeviceDvsec::read(|offset| function.read(offset), at))
    }

    fn put(&mut self, at: Place, shadow: Made) {
        let decoders = match &shadow {
            Made::Decoders(decoders) => decoders,
            Made::Device(device) => &device.0.decoders,
        };
        if let Some(hdm) = self.component_mut(at).and_then(ComponentBlock::hdm_mut) {
            for (decoder, image) in (0..).zip(decoders.images()) {
                hdm.preset(decoder, image);
                if !image.control().committed() {
                    hdm.refuse_commits(Some(decoder));
                }
            }
            hdm.preset_global(decoders.global());
        }
        let (Place::Device(device), Made::Device(made)) = (at, shadow) else { return };
        let (shadow, media) = *made;
        let Some(slot) = self.devices.get_mut(device) else { return };
        slot.endpoint.media = media;
        if let Some(dvsec) = slot.endpoint.function.device_dvsec() {
            // Control, Lock and the ranges; what is in front of them is what the device is.
            for offset in (DVSEC_CONTROL..DVSEC_END).step_by(4) {
                let registers = slot.endpoint.function.registers_mut();
                registers.preset(dvsec + offset, shadow.read_dvsec(offset));
            }
        }
    }

    /// What the devices were handed over from, if they were.
    pub fn hardware(&self) -> Option<&Hardware> {
        self.hardware.as_deref()
    }

    /// The same, to do there what no guest may.
    pub fn hardware_mut(&mut self) -> Option<&mut Hardware> {
        self.hardware.as_deref_mut()
    }

    /// Holds the guest's machine against hardware: registers of hardware that have changed, addresses
    /// of the host's that the guest can read, and bytes that are not the same at both addresses, in
    /// words; nothing if all is well. Memory is as it was afterwards.
    pub fn passed_wrong(&mut self) -> Vec<String> {
        let Some(hardware) = self.hardware.take() else { return Vec::new() };
        let mut wrong = self.shown(&hardware);
        if hardware.machine.fabric() != hardware.before {
            wrong.push("registers of hardware have changed since it was handed over".to_owned());
        }
        for (device, moved) in &hardware.ranges {
            let volatile = self.endpoint(*device).map_or(0, |endpoint| endpoint.media.volatile());
            for (guest, host) in marks(moved) {
                // Where the guest has switched its own memory off, it stores nothing.
                if self.resolve(guest).is_none() {
                    continue;
                }
                let (mut first, mut back) = ([0; 8], [0; 8]);
                self.load(guest, &mut first);
                let mark = match moved.dpa.base().0 < volatile {
                    true => (guest ^ 0x5AC3_96F0_3C5A_0F69).to_le_bytes(),
                    // What is persistent may be a file that outlives this: it is compared as it is.
                    false => first,
                };
                if mark != first {
                    self.store(guest, &mark);
                }
                hardware.machine.load(host, &mut back);
                if back != mark {
                    wrong.push(format!(
                        "what the guest has at {guest:#x} is not what hardware has at {host:#x}"
                    ));
                }
                if mark != first {
                    self.store(guest, &first);
                }
            }
        }
        self.hardware = Some(hardware);
        wrong
    }

    /// Addresses of the host's that the guest can read.
    fn shown(&self, hardware: &Hardware) -> Vec<String> {
        let windows: Vec<_> = { hardware.machine.placed_windows() }.map(|(_, span)| span).collect();
        let ours: Vec<_> = self.placed_windows().map(|(_, span)| span).collect();
        let host = |base: u64| {
            let inside = |spans: &[Span]| spans.iter().any(|span| span.contains(Hpa(base)));
            inside(&windows) && !inside(&ours)
        };
        let mut shown = Vec::new();
        for at in self.places() {
            let name = self.name(at);
            if let Some(hdm) = self.component(at).and_then(ComponentBlock::hdm) {
                for (decoder, image) in hdm.images().enumerate().filter(|(_, i)| host(i.base())) {
                    let base = image.base();
                    shown.push(format!(
                        "{name} decoder {decoder} shows the host's address {base:#x}"
                    ));
                }
            }
            if let Place::Device(device) = at {
                let ranges = self.dvsec(device).into_iter().flat_map(|dvsec| dvsec.ranges());
                for base in ranges.map(|range| range.base().0).filter(|base| host(*base)) {
                    shown.push(format!(
                        "a DVSEC range of {name} shows the host's address {base:#x}"
                    ));
                }
            }
        }
        let tables = Tables::new(&self.scenario, &self.map, TABLES);
        let cedt = Cedt::read(tables.table(&tables.cedt));
        let bases =
            cedt.iter().flat_map(|cedt| cedt.windows()).map(|window| window.span().base().0);
        for base in bases.filter(|base| host(*base)) {
            shown.push(format!("the CEDT shows the host's address {base:#x}"));
        }
        shown
    }
}

impl Hardware {
    /// The ranges that were handed over, each with the index of its device.
    pub fn ranges(&self) -> &[(usize, Moved)] {
        &self.ranges
    }
}

/// Places of a range that are asked: both its ends and its middle.
fn marks(moved: &Moved) -> [(u64, u64); 3] {
    let (guest, host, size) = (moved.guest.base().0, moved.host.base().0, moved.guest.size());
    [0, size / 2, size - 8].map(|offset| (guest + offset, host + offset))
}

/// The dwords of a Device DVSEC from Control to the end of the ranges (CXL r3.1 section 8.1.3).
const DVSEC_CONTROL: u16 = 0x0C;
const DVSEC_END: u16 = 0x38;
