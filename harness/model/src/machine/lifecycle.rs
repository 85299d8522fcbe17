//! What an access leads to, resets, and devices that come and go.
//!
//! **Invariant**: a reset reaches what lies below it and nothing beside; a device that is pulled
//! out takes its own registers with it and no others.

use cxl_regs::config::LinkStatus;

use super::{Changes, Machine, PlugError, Slot};
use crate::device::{Effect, Reset};
use crate::scenario::{Action, Parent, Place, ResetKind};

impl From<ResetKind> for Reset {
    fn from(kind: ResetKind) -> Self {
        match kind {
            ResetKind::Cold => Self::Cold,
            ResetKind::Warm => Self::Warm,
            ResetKind::Hot => Self::Hot,
            ResetKind::Cxl => Self::Cxl,
            ResetKind::Flr => Self::Flr,
        }
    }
}

impl Machine {
    /// Does what an event of the scenario says.
    pub fn act(&mut self, action: Action) -> Result<(), PlugError> {
        match action {
            Action::HotAdd { device } => self.hot_add(device),
            Action::HotRemove { device } => self.hot_remove(device),
            Action::Reset { kind, device: Some(device) } => {
                self.slot(device)?;
                self.reset_device(device, kind.into());
                Ok(())
            }
            Action::Reset { kind, device: None } => {
                self.reset(kind.into());
                Ok(())
            }
        }
    }

    /// An event in words.
    pub fn words(&self, action: Action) -> String {
        let device = |device| self.name(Place::Device(device));
        match action {
            Action::HotAdd { device: index } => format!("hot-add of {}", device(index)),
            Action::HotRemove { device: index } => format!("hot-remove of {}", device(index)),
            Action::Reset { device: Some(index), kind } => format!("{kind} of {}", device(index)),
            Action::Reset { device: None, kind } => format!("{kind} of the machine"),
        }
    }

    pub(super) fn apply(&mut self, place: Option<Place>, effect: Effect) {
        match (effect, place) {
            (Effect::Remap, _) => self.changes.remap = true,
            (Effect::Relocate, _) => self.changes.relocate = true,
            (Effect::ResetSelf(reset), Some(Place::Device(device))) => {
                self.reset_device(device, reset);
            }
            (Effect::ResetBelow, Some(Place::Port(port))) => self.reset_below(port),
            (Effect::ResetBelow, Some(Place::Switch(switch))) => self.reset_inside(switch),
            (Effect::None | Effect::ResetSelf(_) | Effect::ResetBelow, _) => {}
        }
    }

    /// Resets one device.
    pub fn reset_device(&mut self, device: usize, reset: Reset) {
        if let Some(slot) = self.devices.get_mut(device) {
            slot.endpoint.reset(reset);
        }
        self.leaks.reset(Place::Device(device), reset);
        self.changes = Changes { remap: true, relocate: true };
    }

    /// Resets the whole machine. A hot reset is one of all links: host bridges and root ports,
    /// which lie above them, keep what they have. CXL Reset and FLR go to every device.
    pub fn reset(&mut self, reset: Reset) {
        if reset == Reset::Hot {
            for port in 0..self.ports.len() {
                if self.is_root(port) {
                    self.reset_below(port);
                }
            }
        } else {
            for device in 0..self.devices.len() {
                self.reset_device(device, reset);
            }
            if reset.conventional() {
                self.bridges.iter_mut().for_each(|bridge| bridge.reset(reset));
                self.ports.iter_mut().chain(&mut self.switches).for_each(|port| port.reset(reset));
                for place in self.places() {
                    self.leaks.reset(place, reset);
                }
                self.settle_after_reset();
            }
        }
        self.changes = Changes { remap: true, relocate: true };
    }

    fn is_root(&self, port: usize) -> bool {
        let parent = self.scenario.ports.get(port).map(|port| port.parent);
        matches!(parent, Some(Parent::Bridge(_)))
    }

    /// Hot reset of all that hangs below a port.
    fn reset_below(&mut self, port: usize) {
        match self.below(port) {
            Some(Place::Device(device)) => self.reset_device(device, Reset::Hot),
            Some(Place::Switch(switch)) => {
                if let Some(upstream) = self.switches.get_mut(switch) {
                    upstream.reset(Reset::Hot);
                }
                self.leaks.reset(Place::Switch(switch), Reset::Hot);
                self.reset_inside(switch);
            }
            _ => {}
        }
    }

    /// Hot reset of a switch's downstream ports and all below them.
    fn reset_inside(&mut self, switch: usize) {
        let ports: Vec<usize> = self.ports_of(Parent::Switch(switch)).map(|(at, _)| at).collect();
        for port in ports {
            if let Some(downstream) = self.ports.get_mut(port) {
                downstream.reset(Reset::Hot);
            }
            self.reset_below(port);
        }
        self.settle_links();
        self.changes = Changes { remap: true, relocate: true };
    }

    pub(super) fn settle_after_reset(&mut self) {
        if self.scenario.platform.assigned {
            self.assign();
        }
        self.settle_links();
    }

    /// Data Link Layer Link Active: whether something sits at the other end.
    fn settle_links(&mut self) {
        for port in 0..self.ports.len() {
            let active = self.below(port).is_some();
            if let Some(port) = self.ports.get_mut(port) {
                port.function.set_link(|status: LinkStatus| status.with_active(active));
            }
        }
    }

    fn slot(&mut self, device: usize) -> Result<&mut Slot, PlugError> {
        let devices = self.devices.len();
        self.devices.get_mut(device).ok_or(PlugError::NoSuchDevice { device, devices })
    }

    /// Plugs a device in, as it is after a cold reset, if there is a place for its memory. Nobody has
    /// assigned its BARs. Refused, nothing has changed.
    pub fn hot_add(&mut self, device: usize) -> Result<(), PlugError> {
        if self.slot(device)?.present {
            return Err(PlugError::Present { device });
        }
        let port = self.scenario.devices.get(device).map_or(usize::MAX, |given| given.port);
        if let Some(by) = self.below(port) {
            return Err(PlugError::PortTaken { port, by });
        }
        self.has_place_for(device)?;
        let slot = self.slot(device)?;
        slot.endpoint.reset(Reset::Cold);
        slot.present = true;
        self.settle_links();
        self.changes = Changes { remap: true, relocate: true };
        Ok(())
    }

    /// Pulls a device out, without a word to anybody. What is locked above it stays.
    pub fn hot_remove(&mut self, device: usize) -> Result<(), PlugError> {
        let slot = self.slot(device)?;
        if !slot.present {
            return Err(PlugError::Absent { device });
        }
        slot.present = false;
        self.settle_links();
        self.changes = Changes { remap: true, relocate: true };
        Ok(())
    }
}
