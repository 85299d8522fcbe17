//! One address, step by step: window, bridge, port, switch, device; and the way back.
//!
//! The steps here are shared with the proof for whole ranges. What only a set of devices can break
//! (composition, partitions, the window's restrictions) is judged there; a walk follows the
//! hardware, which asks none of that.
//!
//! **Invariant**: every step looks at committed decoders only, and takes the first port or device
//! that fits, so that the same registers always lead to the same place.

use cxl_regs::hdm::DecoderImage;
use cxl_regs::{
    Component, DecodeError, Decoder, Dpa, Granularity, Hpa, Interleave, Route, Selector, Span,
    Targets,
};

use super::{At, Reason, cuts, host_addresses, parts, placed, prove, uncovered, usable};
use crate::fabric::{Fabric, HdmImage, Parent};
use crate::scenario::Partition;

/// The walk of one host address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The address.
    pub hpa: Hpa,
    /// The window, an index into [`Fabric::windows`].
    pub window: usize,
    /// The place in its target list that the address picks.
    pub root_way: u32,
    /// The bridge, then switches.
    pub hops: Vec<Hop>,
    /// The device's decoder.
    pub endpoint: Endpoint,
    /// The device address.
    pub dpa: Dpa,
    /// The partition it lies in.
    pub partition: Partition,
}

/// One routing component on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The component.
    pub at: At,
    /// Its decoder; `None` = it passes everything through.
    pub decoder: Option<(u8, Decoder)>,
    /// The place in the decoder's target list that the address picks.
    pub way: u32,
    /// The port it leaves by, an index into [`Fabric::ports`].
    pub port: usize,
}

/// A device's decoder that has the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The device, an index into [`Fabric::devices`].
    pub device: usize,
    /// The decoder's number.
    pub index: u8,
    /// What it says.
    pub decoder: Decoder,
    /// The device address of its first byte: all skips up to it and the shares below it.
    pub dpa: Dpa,
}

/// Where a component sends a range.
pub(crate) struct Routing {
    pub(super) decoder: Option<(u8, Decoder)>,
    /// The ports in order of way, as far as they exist.
    pub(crate) ports: Vec<Result<usize, Reason>>,
}

impl Routing {
    pub(crate) fn interleave(&self) -> Interleave {
        self.decoder.map_or(Interleave::NONE, |(_, decoder)| decoder.interleave)
    }
}

pub(super) enum Below {
    Switch(usize),
    Device(usize),
}

/// Follows one address to the byte behind it.
pub fn resolve(fabric: &Fabric, hpa: Hpa) -> Result<Path, Reason> {
    let mut owners = fabric
        .windows
        .iter()
        .enumerate()
        .filter(|(_, window)| placed(window).is_some_and(|span| span.contains(hpa)));
    let (index, window) = owners.next().ok_or(Reason::NoWindow)?;
    if let Some((other, _)) = owners.next() {
        return Err(Reason::WindowsOverlap { other });
    }
    let byte = Span::new(hpa, 1).map_err(Reason::WindowRange)?;
    let root_way = usable(fabric, window)?.position(hpa);
    let (ways, targets) = (window.interleave.ways, window.targets.len());
    let uid =
        *window.targets.get(root_way as usize).ok_or(Reason::TargetCount { ways, targets })?;
    let mut parent = bridge(fabric, root_way, uid)?;
    let mut hops = Vec::new();
    // A port has one parent and a switch one port, so no switch can come twice.
    for _ in 0..=fabric.switches.len() {
        let at = At::from(parent);
        let routing = routing(fabric, parent, byte)?;
        let way = Selector::modulo(routing.interleave()).position(hpa);
        let port = routing.ports.get(way as usize).copied();
        let port = port.unwrap_or(Err(Reason::NotCovered { at }))?;
        hops.push(Hop { at, decoder: routing.decoder, way, port });
        let blame = |reason| blame(fabric, parent, &routing, byte, reason);
        match behind(fabric, port).map_err(blame)? {
            Below::Switch(switch) => parent = Parent::Switch(switch),
            Below::Device(device) => {
                let endpoint = endpoint(fabric, device, byte);
                let endpoint = endpoint.map_err(|why| uncovered(fabric, device, blame(why)))?;
                let Decoder { span, interleave, .. } = endpoint.decoder;
                let offset = interleave.dpa_offset(hpa.0 - span.base().0);
                let dpa = Dpa(endpoint.dpa.0.saturating_add(offset));
                let partition = partition(fabric, device, dpa, 1)?;
                return Ok(Path { hpa, window: index, root_way, hops, endpoint, dpa, partition });
            }
        }
    }
    Err(Reason::SwitchLevels { at: At::from(parent) })
}

/// Follows one address as [`resolve`] does, and gives a device address only where the range that it lies in
/// is proven: where the registers of all members together make it direct.
pub fn proven(fabric: &Fabric, hpa: Hpa) -> Result<Path, Reason> {
    let path = resolve(fabric, hpa)?;
    let window = fabric.windows.get(path.window).ok_or(Reason::NoWindow)?;
    let part = placed(window)
        .and_then(|span| parts(span, &cuts(fabric)).find(|part| part.contains(hpa)))
        .ok_or(Reason::NoWindow)?;
    // Of several members that do not fit the one that was asked for is named.
    host_addresses(fabric, window, &path.endpoint)?;
    prove(fabric, window, usable(fabric, window)?, part).map(|_| path)
}

/// Follows a range: the walk of each part that leads to one run of one device's memory, with its
/// length, or of each part that leads nowhere for one reason.
pub fn walks(fabric: &Fabric, hpa: Hpa, length: u64) -> Vec<(u64, Result<Path, Reason>)> {
    /// What stays within one of these has one owner.
    const FINEST: u64 = Granularity::B256.bytes();
    let mut found: Vec<(u64, Result<Path, Reason>)> = Vec::new();
    let mut done = 0;
    while let Some(at) = hpa.0.checked_add(done).filter(|_| done < length) {
        let part = (FINEST - at % FINEST).min(length - done);
        let way = resolve(fabric, Hpa(at));
        done += part;
        let goes_on = |(run, before): &&mut (u64, Result<Path, Reason>)| match (before, &way) {
            (Ok(before), Ok(way)) => {
                let end = before.dpa.0.checked_add(*run);
                before.endpoint == way.endpoint && end == Some(way.dpa.0)
            }
            (Err(before), Err(why)) => before == why,
            _ => false,
        };
        match found.last_mut().filter(goes_on) {
            Some((run, _)) => *run += part,
            None => found.push((part, way)),
        }
    }
    found
}

/// Every host address that leads to a byte of a device, in order: at most one for each position of
/// each decoder.
pub fn addresses(fabric: &Fabric, device: usize, dpa: Dpa) -> Vec<Hpa> {
    let Some(hdm) = fabric.devices.get(device).and_then(|device| device.hdm.as_ref()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (index, decoder, base) in device_decoders(hdm).filter_map(Result::ok) {
        let Some(offset) = dpa.0.checked_sub(base.0).filter(|&o| o < decoder.share()) else {
            continue;
        };
        let candidates = (0..decoder.interleave.ways.count()).filter_map(|position| {
            let offset = decoder.interleave.hpa_offset(position, offset)?;
            decoder.span.base().0.checked_add(offset).map(Hpa)
        });
        found.extend(candidates.filter(|&hpa| {
            resolve(fabric, hpa).is_ok_and(|path| {
                (path.endpoint.device, path.endpoint.index, path.dpa) == (device, index, dpa)
            })
        }));
    }
    found.sort_unstable();
    found
}

pub(super) fn bridge(fabric: &Fabric, way: u32, uid: u32) -> Result<Parent, Reason> {
    let index = fabric.bridges.iter().position(|bridge| bridge.uid == uid);
    index.map(Parent::Bridge).ok_or(Reason::NoSuchBridge { way, uid })
}

/// Where a bridge or switch sends the range.
pub(crate) fn routing(fabric: &Fabric, parent: Parent, part: Span) -> Result<Routing, Reason> {
    let at = At::from(parent);
    let ports = || fabric.ports.iter().enumerate().filter(|(_, port)| port.parent == parent);
    let (hdm, component) = match parent {
        Parent::Bridge(index) => {
            (fabric.bridges.get(index).and_then(|b| b.hdm.as_ref()), Component::HostBridge)
        }
        Parent::Switch(index) => {
            (fabric.switches.get(index).and_then(|s| s.hdm.as_ref()), Component::UpstreamPort)
        }
    };
    let Some(hdm) = hdm else {
        // A bridge may do without decoders if there is nothing to choose. A switch may not.
        let indices: Vec<usize> = ports().map(|(index, _)| index).collect();
        return match (parent, indices.as_slice()) {
            (Parent::Bridge(_), &[port]) => Ok(Routing { decoder: None, ports: vec![Ok(port)] }),
            _ => Err(Reason::NoDecoders { at, ports: indices.len() }),
        };
    };
    let (index, decoder) = claim(hdm, at, component, part)?;
    let targets = match decoder.route {
        Route::Targets(targets) => targets,
        Route::Skip(_) => Targets::default(),
    };
    let port = |(way, &number): (u32, &u8)| {
        let found = ports().find(|(_, port)| port.number == number);
        found.map(|(index, _)| index).ok_or(Reason::NoSuchPort { at, way, number })
    };
    let used = targets.used(decoder.interleave.ways);
    let ports = (0..).zip(used).map(port).collect();
    Ok(Routing { decoder: Some((index, decoder)), ports })
}

/// What is plugged in below a port.
pub(super) fn behind(fabric: &Fabric, port: usize) -> Result<Below, Reason> {
    if let Some(switch) = fabric.switches.iter().position(|switch| switch.port == port) {
        return Ok(Below::Switch(switch));
    }
    let mut devices = fabric.devices.iter().enumerate();
    let device = devices.find(|(_, device)| device.port == port && device.present);
    device.map(|(index, _)| Below::Device(index)).ok_or(Reason::NothingBehind { port })
}

/// The device's decoder for the range, provided that the device serves it at all.
pub(super) fn endpoint(fabric: &Fabric, index: usize, part: Span) -> Result<Endpoint, Reason> {
    let at = At::Device(index);
    let device = fabric.devices.get(index).ok_or(Reason::NotMemory { device: index })?;
    let dvsec = device.dvsec.filter(|dvsec| dvsec.mem_capable());
    let dvsec = dvsec.ok_or(Reason::NotMemory { device: index })?;
    let hdm = device.hdm.as_ref().ok_or(Reason::NoDecoders { at, ports: 0 })?;
    let (claimed, decoder) = claim(hdm, at, Component::Device, part)?;
    if !hdm.decoder_enable() {
        return Err(Reason::DecodersDisabled { device: index });
    }
    if !dvsec.mem_enable() {
        return Err(Reason::MemoryDisabled { device: index });
    }
    // A lower decoder that makes no sense leaves the device address unknown.
    for lower in device_decoders(hdm) {
        match lower {
            Ok((number, _, dpa)) if number == claimed => {
                return Ok(Endpoint { device: index, index: claimed, decoder, dpa });
            }
            Ok(_) => {}
            Err((number, error)) => {
                return Err(Reason::IllegalDecoder { at, decoder: number, error });
            }
        }
    }
    let capacity = device.volatile.saturating_add(device.persistent);
    Err(Reason::BeyondCapacity { device: index, end: u64::MAX, capacity })
}

/// The committed decoders of a device that decode something, with the device address each starts
/// at (CXL r3.1 section 8.2.4.20.13). It ends early where that address passes 64 bits.
pub(super) fn device_decoders(
    hdm: &HdmImage,
) -> impl Iterator<Item = Result<(u8, Decoder, Dpa), (u8, DecodeError)>> {
    let mut next = 0u64;
    let capability = hdm.capability();
    // A committed decoder of size 0 takes no part, nor does its skip.
    let in_use = |image: &DecoderImage| image.control().committed() && image.size() != 0;
    let images = (0..=u8::MAX).zip(&hdm.decoders).filter(move |(_, image)| in_use(image));
    images.map_while(move |(index, image)| {
        let decoder = match Decoder::decode(image, Component::Device, capability) {
            Ok(decoder) => decoder,
            Err(error) => return Some(Err((index, error))),
        };
        let skip = match decoder.route {
            Route::Skip(skip) => skip,
            Route::Targets(_) => 0,
        };
        let base = next.checked_add(skip)?;
        next = base.checked_add(decoder.share())?;
        Some(Ok((index, decoder, Dpa(base))))
    })
}

/// The partition that holds all of a device's range.
pub(super) fn partition(
    fabric: &Fabric,
    index: usize,
    dpa: Dpa,
    size: u64,
) -> Result<Partition, Reason> {
    let device = fabric.devices.get(index).ok_or(Reason::NotMemory { device: index })?;
    let capacity = device.volatile.saturating_add(device.persistent);
    let end = dpa.0.saturating_add(size);
    if end > capacity {
        return Err(Reason::BeyondCapacity { device: index, end, capacity });
    }
    if end <= device.volatile {
        return Ok(Partition::Volatile);
    }
    if dpa.0 < device.volatile {
        return Err(Reason::CrossesPartitions { device: index, border: device.volatile });
    }
    Ok(Partition::Persistent)
}

/// First and last address that a decoder's base and size name, legal or not.
pub(super) fn claimed(image: &DecoderImage) -> Option<(Hpa, Hpa)> {
    let last = image.size().checked_sub(1)?;
    Some((Hpa(image.base()), Hpa(image.base().saturating_add(last))))
}

/// The one committed decoder that has the range. The range lies inside or outside of each.
fn claim(
    hdm: &HdmImage,
    at: At,
    component: Component,
    part: Span,
) -> Result<(u8, Decoder), Reason> {
    let has = |image: &DecoderImage| {
        claimed(image).is_some_and(|(first, last)| first <= part.last() && part.base() <= last)
    };
    let having = (0..=u8::MAX).zip(&hdm.decoders).filter(|(_, image)| has(image));
    let (committed, idle): (Vec<_>, Vec<_>) =
        having.partition(|(_, image)| image.control().committed());
    match (committed.as_slice(), idle.as_slice()) {
        ([(decoder, image)], _) => Decoder::decode(image, component, hdm.capability())
            .map(|meaning| (*decoder, meaning))
            .map_err(|error| Reason::IllegalDecoder { at, decoder: *decoder, error }),
        ([(first, _), (second, _), ..], _) => {
            Err(Reason::ClaimedTwice { at, first: *first, second: *second })
        }
        ([], [(decoder, _), ..]) => Err(Reason::NotCommitted { at, decoder: *decoder }),
        ([], []) => Err(Reason::NotCovered { at }),
    }
}

/// Whether a device has a committed decoder for the range.
fn device_has(fabric: &Fabric, device: usize, part: Span) -> bool {
    let hdm = fabric.devices.get(device).and_then(|device| device.hdm.as_ref());
    hdm.is_some_and(|hdm| claim(hdm, At::Device(device), Component::Device, part).is_ok())
}

/// The better reason for a range that leads to nobody: if a device below a port that the target
/// list leaves out has it, then it is the list that is wrong.
pub(super) fn blame(
    fabric: &Fabric,
    parent: Parent,
    routing: &Routing,
    part: Span,
    reason: Reason,
) -> Reason {
    let nobody =
        matches!(reason, Reason::NotCovered { at: At::Device(_) } | Reason::NothingBehind { .. });
    if !nobody {
        return reason;
    }
    let mut left_out = fabric.devices.iter().enumerate().filter_map(|(index, device)| {
        let port = port_of(fabric, parent, device.port)?;
        let listed = routing.ports.contains(&Ok(port));
        (!listed && device.present && device_has(fabric, index, part)).then_some(port)
    });
    left_out.next().map_or(reason, |port| Reason::NotInTargetList { at: At::from(parent), port })
}

/// The component's own port on the way up from a port somewhere below it.
fn port_of(fabric: &Fabric, above: Parent, mut port: usize) -> Option<usize> {
    for _ in 0..=fabric.switches.len() {
        match fabric.ports.get(port)?.parent {
            parent if parent == above => return Some(port),
            Parent::Switch(switch) => port = fabric.switches.get(switch)?.port,
            Parent::Bridge(_) => return None,
        }
    }
    None
}
