//! CPU accesses to CXL memory, walked through the decode of every model on the way: window, host
//! bridge, root port, switches, device.
//!
//! **Invariant**: this walk shares no arithmetic with the mapping or with `cxl_regs`: it deals
//! granules with plain division, one access within one granule at a time.

use cxl_regs::{Arithmetic, Dpa, Hpa, Span};

use super::Machine;
use crate::scenario::{self, Parent, Place};

/// The finest granule there is: an access that stays in one of these has one owner.
const GRANULE: u64 = 256;

/// Where an address ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Landing {
    /// Index of the device.
    pub device: usize,
    /// The address in it.
    pub dpa: Dpa,
}

impl Machine {
    /// The device and its address behind a host address; `None` for a miss.
    pub fn resolve(&self, hpa: u64) -> Option<Landing> {
        let device = self.device_at(hpa)?;
        let Dpa(dpa) = self.devices.get(device)?.endpoint.translate(hpa)?;
        let dpa = Dpa(self.faults.wrap(Place::Device(device), dpa));
        Some(Landing { device, dpa })
    }

    /// The device that an access to a host address is routed to, whether or not it claims it.
    pub fn device_at(&self, hpa: u64) -> Option<usize> {
        let window = self.window_at(hpa)?;
        let uid = *window.targets.get(target(window, hpa)?)?;
        let bridge = self.scenario.bridges.iter().position(|bridge| bridge.uid == uid)?;
        let routes = |place| self.faults.routes(place).then_some(());
        routes(Place::Bridge(bridge))?;
        let mut parent = Parent::Bridge(bridge);
        let mut ports = self.ports_of(parent).map(|(_, port)| port.number);
        let only = ports.next().filter(|_| ports.next().is_none());
        let mut number = self.bridges.get(bridge)?.route(hpa, only)?;
        // Each switch lies deeper than the one before.
        for _ in 0..=self.switches.len() {
            let (port, _) = self.ports_of(parent).find(|(_, port)| port.number == number)?;
            routes(Place::Port(port))?;
            match self.below(port)? {
                Place::Switch(switch) => {
                    routes(Place::Switch(switch))?;
                    number = self.switches.get(switch)?.component.hdm()?.route(hpa)?;
                    parent = Parent::Switch(switch);
                }
                Place::Device(device) => {
                    routes(Place::Device(device))?;
                    return Some(device);
                }
                Place::Bridge(_) | Place::Port(_) => return None,
            }
        }
        None
    }

    /// Whether registers do not tell where accesses to a device's memory go: a fault of the scenario
    /// sits on their way.
    pub fn misroutes(&self, device: usize) -> bool {
        let place = Place::Device(device);
        let mut port = self.scenario.devices.get(device).map(|device| device.port);
        let mut wrong =
            self.faults.wraps(place) || !self.faults.routes(place) || self.leaks.hide(place);
        // Each switch lies higher than the one before.
        for _ in 0..=self.switches.len() {
            let Some(at) = port else { break };
            let parent = self.scenario.ports.get(at).map(|port| port.parent);
            let above = match parent {
                Some(Parent::Bridge(bridge)) => Some(Place::Bridge(bridge)),
                Some(Parent::Switch(switch)) => Some(Place::Switch(switch)),
                None => None,
            };
            port = match parent {
                Some(Parent::Switch(switch)) => self.scenario.switches.get(switch).map(|s| s.port),
                _ => None,
            };
            wrong |= [Some(Place::Port(at)), above]
                .into_iter()
                .flatten()
                .any(|place| !self.faults.routes(place) || self.leaks.hide(place));
        }
        wrong
    }

    /// Reads CXL memory. Where nothing decodes, bytes are all-ones.
    pub fn load(&self, hpa: u64, bytes: &mut [u8]) {
        let mut at = hpa;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at_mut(piece(at, rest.len()));
            let landing = self.resolve(at);
            let media = landing.and_then(|l| Some((&self.devices.get(l.device)?.endpoint, l.dpa)));
            let hit = media.is_some_and(|(endpoint, dpa)| endpoint.media.read(dpa, chunk));
            if !hit {
                chunk.fill(0xFF);
            }
            at = at.wrapping_add(chunk.len() as u64);
            rest = behind;
        }
    }

    /// Writes CXL memory. Where nothing decodes, bytes are dropped.
    pub fn store(&mut self, hpa: u64, bytes: &[u8]) {
        let mut at = hpa;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at(piece(at, rest.len()));
            if let Some(Landing { device, dpa }) = self.resolve(at)
                && let Some(slot) = self.devices.get_mut(device)
            {
                // Behind the end of the memory: dropped like any other miss.
                let _ = slot.endpoint.media.write(dpa, chunk);
            }
            at = at.wrapping_add(chunk.len() as u64);
            rest = behind;
        }
    }

    /// The placed window that holds an address.
    pub(super) fn window_at(&self, hpa: u64) -> Option<&scenario::Window> {
        let physical = hpa >> self.scenario.platform.physical_bits == 0;
        let ram = self.map.ram.iter().any(|span| span.contains(Hpa(hpa)));
        self.placed_windows()
            .find(|(_, span)| physical && !ram && span.contains(Hpa(hpa)))
            .map(|(window, _)| window)
    }

    /// Windows that the platform has placed.
    pub(super) fn placed_windows(&self) -> impl Iterator<Item = (&scenario::Window, Span)> {
        let windows = self.scenario.windows.iter().zip(&self.map.windows);
        windows.filter_map(|(window, base)| {
            let span = Span::new((*base)?, window.size).ok()?;
            Some((window, span))
        })
    }
}

/// How many of `length` bytes from an address on lie in one granule.
fn piece(at: u64, length: usize) -> usize {
    length.min((GRANULE - at % GRANULE) as usize)
}

/// The way that a window sends an address to (CXL r3.1 section 9.18.1.3).
fn target(window: &scenario::Window, hpa: u64) -> Option<usize> {
    let ways = window.targets.len() as u64;
    let granule = hpa / window.interleave.granularity.bytes();
    if window.arithmetic == Arithmetic::Modulo {
        return usize::try_from(granule % ways).ok();
    }
    // Bits of the power of two by parity, a factor of three by division of what is above them.
    let mut index = 0;
    let (mut left, mut step) = (ways, 1);
    for map in &window.xor_maps {
        if left % 2 != 0 {
            break;
        }
        let ones = (0..64).filter(|bit| hpa & map & 1 << bit != 0).count() as u64;
        index += step * (ones % 2);
        (left, step) = (left / 2, step * 2);
    }
    if left == 3 {
        index += step * (granule / step % 3);
    }
    (left == 1 || left == 3).then_some(index as usize)
}
