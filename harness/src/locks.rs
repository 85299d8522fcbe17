//! What the locks of a machine protect at one moment, by its registers alone, whoever programmed it.
//!
//! Two words, used everywhere in one sense. A machine is **locked** if every decoder in use has a
//! lock in force and every path from a window to a device is whole: a bridge without decoders has no
//! lock to miss, a commit under way is in use and its lock is not in force yet. It is **sealed** if it
//! is locked and, for each device with a locked range, CONFIG_LOCK is set and each range register of
//! the Device DVSEC that has a size leads to the very bytes of the device's decoders, or to addresses
//! that nothing routes to the device: then no write short of a reset that clears locks leads a locked
//! range elsewhere. Without it, whoever clears HDM Decoder Enable has the ranges decode instead.
//!
//! Spare decoders do not count: what one adds is availability, and the attack lists it.
//!
//! **Invariant**: what is said here follows from registers and from the models' own decode. Neither
//! the firmware's record nor its verifier is asked.

mod given;
mod modelled;

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};

use cxl_regs::dvsec::device::{DeviceDvsec, RangeRegisters};
use cxl_regs::hdm::{Control, DecoderImage};
use cxl_regs::{Hpa, Size, Span};

use cxl_model::device::hdm::HdmBlock;
use cxl_model::machine::Landing;
use cxl_model::scenario::{Parent, Place};

pub use given::Given;

/// A machine as far as its locks go: registers, how they hang together, and where addresses lead.
pub trait View {
    /// All components, bridges first, devices last.
    fn places(&self) -> Vec<Place>;
    /// A component's name.
    fn name(&self, place: Place) -> &str;
    /// Whether a device is plugged in.
    fn present(&self, device: usize) -> bool;
    /// A component's decoders.
    fn hdm(&self, place: Place) -> Option<&HdmBlock>;
    /// A device's DVSEC.
    fn dvsec(&self, device: Place) -> Option<DeviceDvsec>;
    /// Whose port a port is, and its Port Number.
    fn port(&self, port: usize) -> Option<(Parent, u8)>;
    /// The port that a switch or a device hangs below.
    fn port_above(&self, place: Place) -> Option<usize>;
    /// What hangs below a port.
    fn below(&self, port: usize) -> Option<Place>;
    /// The windows that have a place.
    fn windows(&self) -> Vec<Span>;
    /// The device that an address is routed to, whether or not it claims it.
    fn device_at(&self, hpa: u64) -> Option<usize>;
    /// The memory behind an address; `None` also where a device claims it and has none there.
    fn lands(&self, hpa: u64) -> Option<Landing>;
}

/// A decoder of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// The component.
    pub place: Place,
    /// The decoder's number.
    pub index: u8,
}

/// Why a machine is not locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unlocked {
    /// A decoder is committed without a lock.
    Committed(At),
    /// A decoder's commit is under way: it is in use, and no lock is in force.
    UnderWay(At),
    /// One part of a path is locked, and another is not or has no decoder for it.
    Mixed {
        /// The part that is locked.
        locked: At,
        /// The part that is not.
        open: Place,
        /// Its decoder, if one claims any of the range.
        index: Option<u8>,
    },
    /// A device serves CXL.mem by its range registers, which no decoder's lock covers.
    ByRanges {
        /// The device.
        device: Place,
    },
    /// A locked range does not lead to memory.
    LeadsNowhere {
        /// The device's decoder.
        at: At,
        /// The first address that does not.
        hpa: u64,
    },
    /// There is no locked range.
    Nothing,
}

/// Why a locked range is not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unsealed {
    /// CONFIG_LOCK is clear: enables and range bases can be written.
    ConfigLock {
        /// The device.
        device: Place,
    },
    /// A range register leads to other bytes than the device's decoders.
    Range {
        /// The device.
        device: Place,
        /// 1 or 2, as the registers are called.
        range: u8,
        /// The first address that does.
        hpa: u64,
        /// The device address behind it by the range.
        dpa: u64,
        /// The same by the decoders, if they claim it.
        instead_of: Option<u64>,
    },
}

/// A range whose decoders are locked on the whole path of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedRange {
    /// The device's decoder.
    pub at: At,
    /// Its addresses.
    pub span: Span,
    /// Where its addresses lead: at every border of a window or decoder that lies in it, and where
    /// granules begin and end.
    pub leads: Vec<(u64, Option<Landing>)>,
}

/// What the locks of a machine protect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// Decoders in use: committed, or with a commit under way.
    pub in_use: Vec<At>,
    /// Those of them with a lock in force.
    pub locked: Vec<At>,
    /// Ranges that are locked on a whole path.
    pub ranges: Vec<LockedRange>,
    /// Why the machine is not locked; empty if it is.
    pub unlocked: Vec<Unlocked>,
    /// Why locked ranges are not sealed; empty if they are.
    pub unsealed: Vec<Unsealed>,
}

impl Protection {
    /// What the locks of this machine protect.
    pub fn of(machine: &dyn View) -> Self {
        let mut found = Self::default();
        for place in machine.places() {
            for (index, image) in decoders(machine, place) {
                found.decoder(At { place, index }, image.control());
            }
        }
        for device in devices(machine) {
            found.paths_of(machine, device);
        }
        for place in machine.places() {
            found.below(machine, place);
        }
        found.judge(machine);
        found
    }

    /// Every decoder in use has its lock, each path is whole, and there is one.
    pub fn is_locked(&self) -> bool {
        self.unlocked.is_empty()
    }

    /// Locked, and no range register or enable leads a locked range elsewhere.
    pub fn is_sealed(&self) -> bool {
        self.is_locked() && self.unsealed.is_empty()
    }

    fn decoder(&mut self, at: At, control: Control) {
        match () {
            () if control.committed() => {
                self.in_use.push(at);
                match control.locked() {
                    true => self.locked.push(at),
                    false => self.unlocked.push(Unlocked::Committed(at)),
                }
            }
            () if under_way(control) => {
                self.in_use.push(at);
                self.unlocked.push(Unlocked::UnderWay(at));
            }
            () => {}
        }
    }

    /// Every way from a device's decoder up to its bridge.
    fn paths_of(&mut self, machine: &dyn View, device: Place) {
        let above = above(machine, device);
        for (index, image) in decoders(machine, device) {
            let (at, control) = (At { place: device, index }, image.control());
            let Some(span) = span(&image).filter(|_| control.committed()) else { continue };
            let mut parts =
                vec![Part { place: device, index: Some(index), control: Some(control) }];
            for place in above.iter().copied().filter(|place| routes(machine, *place)) {
                parts.extend(claims(machine, place, span));
            }
            let Some(locked) = parts.iter().find_map(Part::locked) else { continue };
            let open: Vec<&Part> = parts.iter().filter(|part| part.locked().is_none()).collect();
            for &&Part { place: open, index, .. } in &open {
                self.note(Unlocked::Mixed { locked, open, index });
            }
            if open.is_empty() {
                // Members of a set share their range.
                let known = self.ranges.iter().find(|range| range.span == span);
                let leads = match known {
                    Some(range) => range.leads.clone(),
                    None => {
                        let leads = edges(machine, span).into_iter();
                        leads.map(|hpa| (hpa, machine.lands(hpa))).collect()
                    }
                };
                self.ranges.push(LockedRange { at, span, leads });
            }
        }
    }

    /// Whether all that a locked decoder routes to has a decoder for it.
    fn below(&mut self, machine: &dyn View, place: Place) {
        let parent = match place {
            Place::Bridge(index) => Parent::Bridge(index),
            Place::Switch(index) => Parent::Switch(index),
            Place::Port(_) | Place::Device(_) => return,
        };
        for (index, image) in decoders(machine, place) {
            let control = image.control();
            let Some(span) = span(&image).filter(|_| control.locked()) else { continue };
            let ways = cxl_regs::Ways::decode(control.ways()).map_or(1, |ways| ways.count());
            let targets = image.targets();
            for number in targets.iter().take(ways as usize) {
                let mut ports = (0..).map_while(|port| Some((port, machine.port(port)?)));
                let port = ports.find(|(_, port)| *port == (parent, *number));
                let Some(below) = port.and_then(|(port, _)| machine.below(port)) else { continue };
                let whole = !decoders(machine, below).is_empty();
                for part in claims(machine, below, span).into_iter().filter(|_| whole) {
                    if part.locked().is_none() {
                        let locked = At { place, index };
                        self.note(Unlocked::Mixed { locked, open: below, index: part.index });
                    }
                }
            }
        }
    }

    fn note(&mut self, why: Unlocked) {
        let open = |known: &Unlocked| match (*known, why) {
            (
                Unlocked::Mixed { open, index, .. },
                Unlocked::Mixed { open: at, index: number, .. },
            ) => (open, index) == (at, number),
            (known, why) => known == why,
        };
        if !self.unlocked.iter().any(open) {
            self.unlocked.push(why);
        }
    }

    fn judge(&mut self, machine: &dyn View) {
        for device in devices(machine) {
            if serves_by_ranges(machine, device) {
                self.note(Unlocked::ByRanges { device });
            }
        }
        for range in &self.ranges {
            // Behind a window that ends at a hole nothing is routed to the decoder.
            let mut windows = machine.windows().into_iter();
            let low = windows.find(|it| it.base() == Hpa(0) && it.contains(range.span.base()));
            let is_routed = |hpa: u64| low.is_none_or(|window| window.contains(Hpa(hpa)));
            let mut leads = range.leads.iter().filter(|(hpa, _)| is_routed(*hpa));
            if let Some((hpa, _)) = leads.find(|(_, landing)| landing.is_none()) {
                self.unlocked.push(Unlocked::LeadsNowhere { at: range.at, hpa: *hpa });
            }
        }
        if self.ranges.is_empty() {
            self.unlocked.push(Unlocked::Nothing);
        }
        let devices: BTreeSet<Place> = self.ranges.iter().map(|range| range.at.place).collect();
        for device in devices {
            self.unsealed.extend(unsealed(machine, device));
        }
    }
}

/// A part of a path.
struct Part {
    place: Place,
    index: Option<u8>,
    control: Option<Control>,
}

impl Part {
    fn locked(&self) -> Option<At> {
        let index = self.index.filter(|_| self.control.is_some_and(Control::locked))?;
        Some(At { place: self.place, index })
    }
}

/// Commit is set and has come to no end.
fn under_way(control: Control) -> bool {
    control.commit() && !control.committed() && !control.error_not_committed()
}

/// The devices that are plugged in.
fn devices(machine: &dyn View) -> Vec<Place> {
    let all = machine.places().into_iter();
    all.filter(|place| matches!(place, Place::Device(device) if machine.present(*device))).collect()
}

/// Decoders that decide where memory leads: those of bridges, upstream ports, and devices that are
/// plugged in. Those of a root port or downstream port route nothing.
pub(crate) fn decoders(machine: &dyn View, place: Place) -> Vec<(u8, DecoderImage)> {
    let counts = match place {
        Place::Port(_) => false,
        Place::Device(device) => machine.present(device),
        Place::Bridge(_) | Place::Switch(_) => true,
    };
    let hdm = machine.hdm(place).filter(|_| counts);
    hdm.map(|hdm| (0..=u8::MAX).zip(hdm.images()).collect()).unwrap_or_default()
}

fn routes(machine: &dyn View, place: Place) -> bool {
    machine.hdm(place).is_some()
}

/// The switches and the bridge above a device, in order.
fn above(machine: &dyn View, device: Place) -> Vec<Place> {
    let mut above = Vec::new();
    let mut port = machine.port_above(device);
    let most = machine.places().len();
    // A switch has one port above it, so none can come twice.
    while let Some((parent, _)) = port.and_then(|port| machine.port(port))
        && above.len() <= most
    {
        match parent {
            Parent::Bridge(bridge) => {
                above.push(Place::Bridge(bridge));
                port = None;
            }
            Parent::Switch(switch) => {
                let place = Place::Switch(switch);
                above.push(place);
                port = machine.port_above(place);
            }
        }
    }
    above
}

/// The decoders of a component that claim any of a range, or one part without a decoder.
fn claims(machine: &dyn View, place: Place, range: Span) -> Vec<Part> {
    let decoders = decoders(machine, place).into_iter();
    let claims = decoders.filter(|(_, image)| {
        let in_use = image.control().committed() || under_way(image.control());
        in_use && span(image).is_some_and(|own| own.overlaps(range))
    });
    let parts = claims.map(|(index, image)| Part {
        place,
        index: Some(index),
        control: Some(image.control()),
    });
    let mut parts: Vec<Part> = parts.collect();
    if parts.is_empty() {
        parts.push(Part { place, index: None, control: None });
    }
    parts
}

/// The addresses of a decoder; `None` for one of size 0, or whose base and size are no range.
fn span(image: &DecoderImage) -> Option<Span> {
    Span::new(Hpa(image.base()), image.size()).ok()
}

/// Addresses that tell where a range leads: two rounds of the set from its start on and the last
/// round, each granule's first and last byte.
fn probes(image: &DecoderImage, span: Span) -> BTreeSet<u64> {
    let control = image.control();
    let ways = cxl_regs::Ways::decode(control.ways()).map_or(1, |ways| u64::from(ways.count()));
    let granule = 256u64 << control.granularity().min(6);
    let round = ways * granule;
    let rounds = (0..2 * ways).chain((span.size() / granule).saturating_sub(ways)..);
    let granules = rounds.take(3 * ways as usize).map(|index| index * granule);
    granules
        .flat_map(|offset| [offset, offset + granule - 1])
        .chain([span.size() / 2, span.size() - 1, span.size().saturating_sub(round)])
        .filter(|offset| *offset < span.size())
        .map(|offset| span.base().0 + offset)
        .collect()
}

/// Whether a device serves CXL.mem by its ranges: HDM Decoder Enable is clear, Mem_Enable is set, and
/// a range with a size leads to addresses that are routed to it.
fn serves_by_ranges(machine: &dyn View, device: Place) -> bool {
    let Place::Device(index) = device else { return false };
    let hdm = machine.hdm(device);
    let enabled = hdm.is_some_and(|hdm| hdm.global().decoder_enable());
    let Some(dvsec) = machine.dvsec(device) else { return false };
    !enabled
        && dvsec.control.mem_enable()
        && dvsec.ranges().into_iter().any(|range| {
            let span = range_span(&range);
            span.is_some_and(|span| {
                edges(machine, span).iter().any(|hpa| machine.device_at(*hpa) == Some(index))
            })
        })
}

fn range_span(range: &RangeRegisters) -> Option<Span> {
    Span::new(range.base(), range.size()).ok()
}

/// Addresses of a range at which anything may begin or end to be routed: its own ends, and those of
/// every window and decoder.
pub(crate) fn edges(machine: &dyn View, range: Span) -> BTreeSet<u64> {
    let windows = machine.windows().into_iter();
    let all = machine.places().into_iter().flat_map(|place| decoders(machine, place));
    let own = all.filter_map(|(_, image)| span(&image).map(|span| (image, span)));
    let own: Vec<(DecoderImage, Span)> = own.collect();
    let mut edges: BTreeSet<u64> =
        own.iter().flat_map(|(image, span)| probes(image, *span)).collect();
    for span in windows.chain(own.into_iter().map(|(_, span)| span)).chain([range]) {
        edges.extend([span.base().0, span.last().0]);
        edges.extend(span.last().0.checked_add(1));
    }
    edges.into_iter().filter(|hpa| range.contains(Hpa(*hpa))).collect()
}

/// Why a device's locked ranges are not sealed.
pub(crate) fn unsealed(machine: &dyn View, device: Place) -> Vec<Unsealed> {
    let Place::Device(index) = device else { return Vec::new() };
    let Some(dvsec) = machine.dvsec(device) else { return Vec::new() };
    let hdm = machine.hdm(device);
    let mut found = Vec::new();
    if !dvsec.lock.config_lock() {
        found.push(Unsealed::ConfigLock { device });
    }
    let mut first = 0u64;
    for (range, number) in dvsec.ranges().iter().zip(1..) {
        // A range that is not active yet may be so once it decodes.
        let Some(span) = range_span(range) else { continue };
        let wrong = edges(machine, span).into_iter().find_map(|hpa| {
            let dpa = first.saturating_add(hpa - span.base().0);
            let by_decoder = hdm.and_then(|hdm| hdm.translate(hpa));
            let leads_here = machine.device_at(hpa) == Some(index) && by_decoder != Some(dpa);
            // What no decoder claims is memory more, not a locked range elsewhere.
            let harm = by_decoder.is_some() || behind_a_decoder(machine, device, dpa);
            let instead_of = by_decoder;
            (leads_here && harm).then_some(Unsealed::Range {
                device,
                range: number,
                hpa,
                dpa,
                instead_of,
            })
        });
        found.extend(wrong);
        first = first.saturating_add(range.size());
    }
    found
}

/// Whether a device address is part of what a committed decoder leads to.
fn behind_a_decoder(machine: &dyn View, device: Place, dpa: u64) -> bool {
    let mut first = 0u64;
    for (_, image) in decoders(machine, device) {
        // One of size 0 takes no part in the device's arithmetic, its skip neither.
        if !image.control().committed() || image.size() == 0 {
            continue;
        }
        let ways = cxl_regs::Ways::decode(image.control().ways()).map_or(1, |ways| ways.count());
        first = first.saturating_add(image.skip());
        let share = image.size() / u64::from(ways);
        if (first..first.saturating_add(share)).contains(&dpa) {
            return true;
        }
        first = first.saturating_add(share);
    }
    false
}

/// Something about a machine in words, with the names of its scenario.
pub struct Words<'a, T>(pub &'a dyn View, pub &'a T);

impl Display for Words<'_, At> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(machine, At { place, index }) = self;
        write!(f, "{} decoder {index}", machine.name(*place))
    }
}

impl Display for Words<'_, Unlocked> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(machine, why) = *self;
        match why {
            Unlocked::Committed(at) => {
                write!(f, "{} is committed and not locked (UnlockedOnPath)", Words(machine, at))
            }
            Unlocked::UnderWay(at) => write!(
                f,
                "{}: its commit is under way, no lock is in force (UnlockedOnPath)",
                Words(machine, at)
            ),
            Unlocked::Mixed { locked, open, index } => {
                let locked = Words(machine, locked);
                let open = machine.name(*open);
                match index {
                    Some(index) => write!(
                        f,
                        "half a path is locked: {locked} is, {open} decoder {index} on the same \
                         path is not (UnlockedOnPath)"
                    ),
                    None => write!(
                        f,
                        "half a path is locked: {locked} is, {open} on the same path has no \
                         decoder committed for it (UnlockedOnPath)"
                    ),
                }
            }
            Unlocked::ByRanges { device } => write!(
                f,
                "{} serves memory by its range registers, which no decoder's lock covers: HDM \
                 Decoder Enable is 0",
                machine.name(*device)
            ),
            Unlocked::LeadsNowhere { at, hpa } => {
                let at = Words(machine, at);
                write!(f, "{at} is locked and does not lead to memory at {hpa:#x}")
            }
            Unlocked::Nothing => f.write_str("no range is locked on a whole path"),
        }
    }
}

impl Display for Words<'_, Unsealed> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(machine, why) = *self;
        match *why {
            Unsealed::ConfigLock { device } => write!(
                f,
                "{}: CONFIG_LOCK is 0, so its range registers can be moved and lead elsewhere once \
                 HDM Decoder Enable is cleared",
                machine.name(device)
            ),
            Unsealed::Range { device, range, hpa, dpa, instead_of } => {
                let name = machine.name(device);
                write!(f, "{name}: range {range} leads {hpa:#x} to DPA {dpa:#x}")?;
                match instead_of {
                    Some(other) => write!(f, ", its decoder to DPA {other:#x}")?,
                    None => f.write_str(", which a decoder has at another address")?,
                }
                f.write_str(", once HDM Decoder Enable is cleared")
            }
        }
    }
}

impl Display for LockedRange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} ({})", self.span.base().0, Size(self.span.size()))
    }
}
