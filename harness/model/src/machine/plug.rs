//! Whether a device may be plugged in: there has to be a place for all of its memory.
//!
//! Judged by the platform, before anything changes, on what the registers say now: a window over the
//! device's bridge that is usable, admits the memory and is large enough; room in it beside what
//! committed decoders lead elsewhere and what devices that wait for decoders will need; and on each
//! level a decoder that is still free, unless one leads to the port already.
//!
//! A device that was there at power-on and comes back to decoders that still lead to its port is let in
//! with what these give it, which may be less than all of it: firmware made do with that.
//!
//! **Invariant**: a refusal carries its numbers, and nothing here asks the library what it would plan.

use std::fmt;

use cxl_regs::{Coherency, DECODER_UNIT, Hpa, Interleave, Size, Span, Ways};

use super::Machine;
use crate::fabric::{self, Fabric, HdmImage, Parent};
use crate::mapping::{self, Reason, ReasonText, admits};
use crate::scenario::{self, DeviceKind, Partition, Place, Scenario};
use crate::words::counted;

/// Why a device could not be plugged in or pulled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlugError {
    /// There is no such device in the scenario.
    NoSuchDevice {
        /// The index that was given.
        device: usize,
        /// How many there are.
        devices: usize,
    },
    /// It is plugged in already.
    Present {
        /// Its index.
        device: usize,
    },
    /// It is not plugged in.
    Absent {
        /// Its index.
        device: usize,
    },
    /// There is no such port.
    NoSuchPort {
        /// The device's index.
        device: usize,
        /// The port that it is to go below.
        port: usize,
        /// How many there are.
        ports: usize,
    },
    /// Something else sits below its port.
    PortTaken {
        /// The port's index.
        port: usize,
        /// What sits there.
        by: Place,
    },
    /// No window targets the bridge.
    NoWindow {
        /// The device's index.
        device: usize,
        /// The bridge's index.
        bridge: usize,
        /// Its UID.
        uid: u32,
    },
    /// The platform found no base for the window.
    WindowNotPlaced {
        /// The window's index.
        window: usize,
        /// Its size.
        size: u64,
    },
    /// The window passes the physical address width.
    WindowBeyondWidth {
        /// The window's index.
        window: usize,
        /// Its base.
        base: Hpa,
        /// Its size.
        size: u64,
        /// The width in bits.
        bits: u8,
    },
    /// The window is broken in another way.
    WindowUnusable {
        /// The window's index.
        window: usize,
        /// How.
        reason: Reason,
    },
    /// The device needs back-invalidate, and its path has none.
    NoBackInvalidate {
        /// The device's index.
        device: usize,
        /// The first component on the way down that cannot.
        at: Place,
    },
    /// The window does not admit memory of the device's coherency.
    CoherencyNotAdmitted {
        /// The device's index.
        device: usize,
        /// The window's index.
        window: usize,
        /// The coherency.
        coherency: Coherency,
    },
    /// The window does not admit such a partition.
    MediaNotAdmitted {
        /// The device's index.
        device: usize,
        /// The window's index.
        window: usize,
        /// The partition.
        partition: Partition,
    },
    /// The device cannot be a member of the window's interleave.
    InterleaveNotSupported {
        /// The device's index.
        device: usize,
        /// The window's index.
        window: usize,
        /// The window's interleave.
        interleave: Interleave,
    },
    /// The window, or one bridge's share of it, is smaller than the partition.
    WindowTooSmall {
        /// The device's index.
        device: usize,
        /// The window's index.
        window: usize,
        /// The partition.
        partition: Partition,
        /// Bytes of the partition.
        need: u64,
        /// Bytes of a bridge's share.
        share: u64,
        /// The window's ways.
        ways: Ways,
    },
    /// Of the bridge's share, not enough is left.
    NoRoom {
        /// The device's index.
        device: usize,
        /// The window's index.
        window: usize,
        /// Bytes that the device needs.
        need: u64,
        /// Bytes of the largest range that is left.
        free: u64,
        /// Bytes of a bridge's share.
        share: u64,
        /// Bytes of it that other devices will need, which have no decoders yet.
        waiting: u64,
    },
    /// A bridge or switch has no decoder left for the device.
    NoDecoder {
        /// The device's index.
        device: usize,
        /// The bridge or switch.
        at: Place,
        /// Its decoders.
        decoders: usize,
        /// Those of them that are committed.
        committed: usize,
        /// Ports that one can list.
        targets: u8,
        /// Other devices below it that have no decoders yet.
        waiting: usize,
    },
}

/// A [`PlugError`] in words, with the names of the machine's things.
#[derive(Clone, Copy, Debug)]
pub struct PlugText<'m>(pub &'m Machine, pub PlugError);

impl fmt::Display for PlugText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(machine, error) = *self;
        let device = |device| machine.name(Place::Device(device));
        let window = |window: usize| {
            machine.scenario.windows.get(window).map_or("a window", |window| window.name.as_str())
        };
        match error {
            PlugError::NoSuchDevice { device, devices } => {
                write!(f, "device {device} does not exist, the machine knows {devices}")
            }
            PlugError::Present { device: index } => {
                write!(f, "{} is plugged in already", device(index))
            }
            PlugError::Absent { device: index } => {
                write!(f, "{} is not plugged in", device(index))
            }
            PlugError::NoSuchPort { device: index, port, ports } => write!(
                f,
                "{} goes below port {port}, which does not exist: the machine has {ports}",
                device(index)
            ),
            PlugError::PortTaken { port, by } => {
                let port = machine.name(Place::Port(port));
                write!(f, "{port} is taken by {}", machine.name(by))
            }
            PlugError::NoWindow { device: index, bridge, uid } => write!(
                f,
                "no window targets {} (UID {uid}), below which {} would be",
                machine.name(Place::Bridge(bridge)),
                device(index)
            ),
            PlugError::WindowNotPlaced { window: index, size } => {
                write!(f, "{} of {} has no base: it did not fit", window(index), Size(size))
            }
            PlugError::WindowBeyondWidth { window: index, base, size, bits } => write!(
                f,
                "{} did not fit: {} from {base} pass the physical address width of {bits} bits",
                window(index),
                Size(size)
            ),
            PlugError::WindowUnusable { window: index, reason } => {
                let fabric = machine.fabric();
                write!(f, "{}: {}", window(index), ReasonText(&fabric, reason))
            }
            PlugError::NoBackInvalidate { device: index, at } => write!(
                f,
                "{} needs back-invalidate, which {} cannot do",
                device(index),
                machine.name(at)
            ),
            PlugError::CoherencyNotAdmitted { device: index, window: at, coherency } => {
                write!(f, "{} is {coherency}, which {} does not admit", device(index), window(at))
            }
            PlugError::MediaNotAdmitted { device: index, window: at, partition } => write!(
                f,
                "{} has {partition} memory, which {} does not admit",
                device(index),
                window(at)
            ),
            PlugError::InterleaveNotSupported { device: index, window: at, interleave } => write!(
                f,
                "{} cannot interleave as {} does, {interleave}",
                device(index),
                window(at)
            ),
            PlugError::WindowTooSmall {
                device: index,
                window: at,
                partition,
                need,
                share,
                ways,
            } => {
                write!(
                    f,
                    "{} has {} of {partition} memory, {} {} for each of its {}",
                    device(index),
                    Size(need),
                    window(at),
                    Size(share),
                    counted(ways, "way")
                )
            }
            PlugError::NoRoom { device: index, window: at, need, free, share, waiting } => {
                write!(
                    f,
                    "{} needs {}, {} has {} left in one piece of {}",
                    device(index),
                    Size(need),
                    window(at),
                    Size(free),
                    Size(share)
                )?;
                if waiting != 0 {
                    let waiting = Size(waiting);
                    write!(f, ", and devices without decoders wait for {waiting}")?;
                }
                Ok(())
            }
            PlugError::NoDecoder { device: index, at, decoders, committed, targets, waiting } => {
                write!(
                    f,
                    "{} has no decoder left for {}: {committed} of {decoders} are committed, each \
                     lists {}",
                    machine.name(at),
                    device(index),
                    counted(targets, "port")
                )?;
                if waiting != 0 {
                    write!(f, ", and other devices without decoders wait for them: {waiting}")?;
                }
                Ok(())
            }
        }
    }
}

impl PlugError {
    /// How far a window came before it was refused. Of several windows, the one that came furthest is
    /// worth telling about.
    fn stage(self) -> u8 {
        match self {
            Self::CoherencyNotAdmitted { .. } => 1,
            Self::MediaNotAdmitted { .. } => 2,
            Self::InterleaveNotSupported { .. } => 3,
            Self::WindowTooSmall { .. } => 4,
            Self::NoRoom { .. } => 5,
            Self::NoDecoder { .. } => 6,
            _ => 0,
        }
    }
}

/// A part of a window that a device at the port could get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    window: usize,
    /// The level, from the bridge down, that has no decoder for it; `None` = all lead to the port.
    free_from: Option<usize>,
    /// Ways of all levels above the one that is free.
    ways: u64,
    /// Host addresses.
    base: Hpa,
    bytes: u64,
}

impl Run {
    /// Bytes of it that are one device's.
    fn share(self) -> u64 {
        let share = self.bytes / self.ways.max(1);
        share - share % DECODER_UNIT
    }
}

/// What is asked about one device.
struct Candidate<'m> {
    scenario: &'m Scenario,
    device: usize,
    given: &'m scenario::Device,
    fabric: &'m Fabric,
    /// From the bridge down: whose port, and which.
    path: Vec<(Parent, usize)>,
    bridge: usize,
    uid: u32,
    coherencies: Vec<Coherency>,
}

impl Machine {
    /// Whether there is a place for all of a device's memory.
    pub(super) fn has_place_for(&self, device: usize) -> Result<(), PlugError> {
        let devices = self.devices.len();
        let no_device = PlugError::NoSuchDevice { device, devices };
        let given = self.scenario.devices.get(device).ok_or(no_device)?;
        let fabric = self.fabric();
        let candidate = Candidate::new(&self.scenario, device, given, &fabric)?;
        let mut wanted = partitions(given);
        match (wanted.next(), wanted.next()) {
            (Some(one), None) => candidate.runs(one).map(|_| ()),
            (Some(one), Some(other)) => candidate.both(one, other),
            // No memory needs no place.
            (None, _) => Ok(()),
        }
    }
}

fn partitions(given: &scenario::Device) -> impl Iterator<Item = (Partition, u64)> {
    let both = [(Partition::Volatile, given.volatile), (Partition::Persistent, given.persistent)];
    both.into_iter().filter(|&(_, size)| size != 0)
}

/// From the bridge down, whose port leads to a port, and which.
fn path_to(fabric: &Fabric, mut port: usize) -> Option<Vec<(Parent, usize)>> {
    let mut path = Vec::new();
    for _ in 0..=fabric.switches.len() {
        let parent = fabric.ports.get(port)?.parent;
        path.insert(0, (parent, port));
        match parent {
            Parent::Bridge(_) => return Some(path),
            Parent::Switch(switch) => port = fabric.switches.get(switch)?.port,
        }
    }
    None
}

fn place(parent: Parent) -> Place {
    match parent {
        Parent::Bridge(bridge) => Place::Bridge(bridge),
        Parent::Switch(switch) => Place::Switch(switch),
    }
}

fn hdm_of(fabric: &Fabric, parent: Parent) -> Option<&HdmImage> {
    match parent {
        Parent::Bridge(bridge) => fabric.bridges.get(bridge)?.hdm.as_ref(),
        Parent::Switch(switch) => fabric.switches.get(switch)?.hdm.as_ref(),
    }
}

/// A device that is there, has memory, and none of it behind a decoder.
fn waits(fabric: &Fabric, device: usize) -> bool {
    fabric.devices.get(device).is_some_and(|found| {
        let mut images = found.hdm.iter().flat_map(|hdm| &hdm.decoders);
        let in_use = images.any(|image| image.control().committed() && image.size() != 0);
        found.present && found.volatile | found.persistent != 0 && !in_use
    })
}

impl<'m> Candidate<'m> {
    fn new(
        scenario: &'m Scenario,
        device: usize,
        given: &'m scenario::Device,
        fabric: &'m Fabric,
    ) -> Result<Self, PlugError> {
        let (port, ports) = (given.port, fabric.ports.len());
        let no_port = PlugError::NoSuchPort { device, port, ports };
        let path = path_to(fabric, port).ok_or(no_port)?;
        let Some(&(Parent::Bridge(bridge), _)) = path.first() else { return Err(no_port) };
        let uid = fabric.bridges.get(bridge).ok_or(no_port)?.uid;
        let coherencies = match (given.coherency, given.kind) {
            // An expander with back-invalidate works without it too.
            (Coherency::BackInvalidate, DeviceKind::Type3) => {
                vec![Coherency::BackInvalidate, Coherency::HostOnly]
            }
            (coherency, _) => vec![coherency],
        };
        let mut candidate =
            Self { scenario, device, given, fabric, path, bridge, uid, coherencies };
        if let Some(at) = candidate.without_back_invalidate() {
            candidate.coherencies.retain(|&coherency| coherency != Coherency::BackInvalidate);
            if candidate.coherencies.is_empty() {
                return Err(PlugError::NoBackInvalidate { device, at });
            }
        }
        Ok(candidate)
    }

    /// The first component on the way that cannot do back-invalidate.
    fn without_back_invalidate(&self) -> Option<Place> {
        self.path.iter().find_map(|&(parent, port)| {
            let able = self.fabric.ports.get(port).is_some_and(|port| port.back_invalidate);
            match parent {
                Parent::Switch(switch)
                    if !self.fabric.switches.get(switch).is_some_and(|s| s.back_invalidate) =>
                {
                    Some(Place::Switch(switch))
                }
                _ => (!able).then_some(Place::Port(port)),
            }
        })
    }

    /// The parts of windows that can hold a partition; or why the window that came furthest cannot.
    fn runs(&self, wanted: (Partition, u64)) -> Result<Vec<Run>, PlugError> {
        let mut found = Vec::new();
        let (device, bridge, uid) = (self.device, self.bridge, self.uid);
        let mut worst = PlugError::NoWindow { device, bridge, uid };
        let mut refused = false;
        for (index, window) in self.windows() {
            match self.runs_in(index, window, wanted) {
                Ok(runs) => found.extend(runs),
                Err(error) if !refused || error.stage() > worst.stage() => {
                    (worst, refused) = (error, true);
                }
                Err(_) => {}
            }
        }
        if found.is_empty() { Err(worst) } else { Ok(found) }
    }

    /// The same for two partitions, which do not share a byte.
    fn both(&self, one: (Partition, u64), other: (Partition, u64)) -> Result<(), PlugError> {
        let (for_one, for_other) = (self.runs(one)?, self.runs(other)?);
        let need = one.1.saturating_add(other.1);
        let fits = |a: &Run, b: &Run| a != b || self.comes_back(*a) || a.share() >= need;
        if for_one.iter().any(|a| for_other.iter().any(|b| fits(a, b))) {
            return Ok(());
        }
        let largest = for_one.iter().max_by_key(|run| run.share()).copied();
        let (window, free) = largest.map_or((0, 0), |run| (run.window, run.share()));
        let share = self.fabric.windows.get(window).map_or(0, share_of);
        Err(PlugError::NoRoom { device: self.device, window, need, free, share, waiting: 0 })
    }

    fn runs_in(
        &self,
        index: usize,
        window: &fabric::Window,
        (partition, need): (Partition, u64),
    ) -> Result<Vec<Run>, PlugError> {
        let device = self.device;
        self.admitted(index, window, partition)?;
        let share = share_of(window);
        let all = self.parts(index, window);
        let own: Vec<Run> = all.iter().copied().filter(|run| self.comes_back(*run)).collect();
        if !own.is_empty() {
            return Ok(own);
        }
        if need > share {
            let (window, ways) = (index, window.interleave.ways);
            return Err(PlugError::WindowTooSmall { device, window, partition, need, share, ways });
        }
        let free = all.iter().map(|run| run.share()).max().unwrap_or(0);
        let waiting = self.waiting_for(index, free);
        let total: u64 = all.iter().map(|run| run.share()).sum();
        if need > free || total < need.saturating_add(waiting) {
            let window = index;
            return Err(PlugError::NoRoom { device, window, need, free, share, waiting });
        }
        let mut wanting = None;
        let fits = all.into_iter().filter(|run| run.share() >= need);
        let fits = fits.filter(|run| match self.decoders_for(*run) {
            Ok(()) => true,
            Err(error) => {
                wanting = Some(error);
                false
            }
        });
        let fits: Vec<Run> = fits.collect();
        match wanting {
            Some(error) if fits.is_empty() => Err(error),
            _ => Ok(fits),
        }
    }

    /// Whether the device was there before and the part was its own.
    fn comes_back(&self, run: Run) -> bool {
        self.given.present && run.free_from.is_none()
    }

    /// Whether the window is one, and one for such memory.
    fn admitted(
        &self,
        index: usize,
        window: &fabric::Window,
        partition: Partition,
    ) -> Result<(), PlugError> {
        let &fabric::Window { base, size, restrictions, interleave, .. } = window;
        let device = self.device;
        let Some(base) = base else {
            return Err(PlugError::WindowNotPlaced { window: index, size });
        };
        mapping::usable(self.fabric, window).map_err(|reason| match reason {
            Reason::BeyondPhysicalWidth { bits } => {
                PlugError::WindowBeyondWidth { window: index, base, size, bits }
            }
            reason => PlugError::WindowUnusable { window: index, reason },
        })?;
        Span::new(base, size).map_err(|error| PlugError::WindowUnusable {
            window: index,
            reason: Reason::WindowRange(error),
        })?;
        let coherent = |&coherency: &Coherency| admits::coherency(restrictions, coherency);
        if let Some(&coherency) = self.coherencies.first()
            && !self.coherencies.iter().any(coherent)
        {
            return Err(PlugError::CoherencyNotAdmitted { device, window: index, coherency });
        }
        if !admits::media(restrictions, partition) {
            return Err(PlugError::MediaNotAdmitted { device, window: index, partition });
        }
        let capability = self.fabric.devices.get(device).and_then(|found| found.hdm.as_ref());
        let able = capability.is_some_and(|hdm| {
            let capability = hdm.capability();
            let ways = match interleave.ways {
                Ways::Three | Ways::Six | Ways::Twelve => capability.ways_3_6_12(),
                Ways::Sixteen => capability.ways_16(),
                Ways::One | Ways::Two | Ways::Four | Ways::Eight => true,
            };
            ways && interleave.selector_mask() & !capability.selector_mask() == 0
        });
        if !able {
            return Err(PlugError::InterleaveNotSupported { device, window: index, interleave });
        }
        let mut levels = self.path.iter();
        match levels.find(|(parent, _)| self.cannot_route(*parent)) {
            Some(&(parent, _)) => Err(PlugError::NoDecoder {
                device,
                at: place(parent),
                decoders: 0,
                committed: 0,
                targets: 0,
                waiting: 0,
            }),
            None => Ok(()),
        }
    }

    /// No decoders, and more than a bridge's one port.
    fn cannot_route(&self, parent: Parent) -> bool {
        let ports = self.fabric.ports.iter().filter(|port| port.parent == parent).count();
        let bridge = matches!(parent, Parent::Bridge(_));
        hdm_of(self.fabric, parent).is_none() && !(bridge && ports == 1)
    }

    /// The window's parts that lead to the port, or that nothing leads anywhere else.
    fn parts(&self, index: usize, window: &fabric::Window) -> Vec<Run> {
        let Some(span) = mapping::placed(window) else { return Vec::new() };
        let cuts = mapping::cuts(self.fabric);
        let overlaps = |part: Span| {
            let mut others = self.fabric.windows.iter().enumerate().filter(|(at, _)| *at != index);
            others.any(|(_, other)| mapping::placed(other).is_some_and(|span| span.overlaps(part)))
        };
        let mut runs: Vec<Run> = Vec::new();
        for part in mapping::parts(span, &cuts).filter(|&part| !overlaps(part)) {
            let mut ways = u64::from(window.interleave.ways.count());
            let mut free_from = None;
            let mut taken = false;
            for (level, &(parent, port)) in self.path.iter().enumerate() {
                match mapping::routing(self.fabric, parent, part) {
                    Ok(routing) if routing.ports.contains(&Ok(port)) => {
                        ways *= u64::from(routing.interleave().ways.count());
                    }
                    Err(Reason::NotCovered { .. } | Reason::NotCommitted { .. }) => {
                        free_from = Some(level);
                        break;
                    }
                    // It leads elsewhere, or nobody can say where.
                    Ok(_) | Err(_) => {
                        taken = true;
                        break;
                    }
                }
            }
            if taken {
                continue;
            }
            let (base, bytes) = (part.base(), part.size());
            let run = Run { window: index, free_from, ways, base, bytes };
            match runs.last_mut() {
                Some(last)
                    if (last.free_from, last.ways) == (free_from, ways)
                        && last.base.0 + last.bytes == base.0 =>
                {
                    last.bytes += bytes;
                }
                _ => runs.push(run),
            }
        }
        runs
    }

    /// Whether every level that has no decoder for the part yet has one to spare.
    fn decoders_for(&self, run: Run) -> Result<(), PlugError> {
        let Some(from) = run.free_from else { return Ok(()) };
        for &(parent, _) in self.path.iter().skip(from) {
            let Some(hdm) = hdm_of(self.fabric, parent) else { continue };
            let decoders = hdm.decoders.len();
            let committed = hdm.decoders.iter().filter(|image| image.control().committed()).count();
            let targets = hdm.capability().target_count();
            let below = |device: &usize| self.is_below(*device, parent);
            let others = (0..self.fabric.devices.len()).filter(|device| *device != self.device);
            let waiting = others.filter(|&device| waits(self.fabric, device)).filter(below).count();
            // As many as could be told apart if each decoder listed as many ports as it can.
            if (decoders - committed) * usize::from(targets) <= waiting {
                return Err(PlugError::NoDecoder {
                    device: self.device,
                    at: place(parent),
                    decoders,
                    committed,
                    targets,
                    waiting,
                });
            }
        }
        Ok(())
    }

    fn is_below(&self, device: usize, parent: Parent) -> bool {
        let port = self.fabric.devices.get(device).map(|device| device.port);
        let path = port.and_then(|port| path_to(self.fabric, port));
        path.is_some_and(|path| path.iter().any(|(above, _)| *above == parent))
    }

    /// Bytes that devices below the same bridge wait for, that can be in this window alone, and that
    /// would find room there.
    fn waiting_for(&self, window: usize, free: u64) -> u64 {
        let parent = Parent::Bridge(self.bridge);
        let devices = self.scenario.devices.iter().enumerate().filter(|&(device, _)| {
            device != self.device && waits(self.fabric, device) && self.is_below(device, parent)
        });
        let candidates = devices.filter_map(|(device, given)| {
            Self::new(self.scenario, device, given, self.fabric).ok()
        });
        let bytes = candidates.flat_map(|waiting| {
            let only_here = |&(partition, size): &(Partition, u64)| {
                let admitting = waiting
                    .windows()
                    .filter(|&(index, other)| waiting.admitted(index, other, partition).is_ok());
                size <= free && admitting.map(|(index, _)| index).eq([window])
            };
            partitions(waiting.given).filter(only_here).map(|(_, size)| size).collect::<Vec<_>>()
        });
        bytes.fold(0, u64::saturating_add)
    }

    /// The windows that target the device's bridge.
    fn windows(&self) -> impl Iterator<Item = (usize, &'m fabric::Window)> {
        let uid = self.uid;
        self.fabric.windows.iter().enumerate().filter(move |(_, w)| w.targets.contains(&uid))
    }
}

/// One bridge's share of a window.
fn share_of(window: &fabric::Window) -> u64 {
    let share = window.size / u64::from(window.interleave.ways.count());
    share - share % DECODER_UNIT
}
