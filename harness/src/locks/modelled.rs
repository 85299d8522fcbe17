//! A machine of models, for the verdict on its locks.
//!
//! **Invariant**: where addresses lead is what the models decode, whatever registers mean elsewhere.

use cxl_regs::Span;
use cxl_regs::dvsec::device::DeviceDvsec;

use super::View;
use cxl_model::device::component::ComponentBlock;
use cxl_model::device::hdm::HdmBlock;
use cxl_model::machine::{Landing, Machine};
use cxl_model::scenario::{Parent, Place};

impl View for Machine {
    fn places(&self) -> Vec<Place> {
        Self::places(self)
    }

    fn name(&self, place: Place) -> &str {
        Self::name(self, place)
    }

    fn present(&self, device: usize) -> bool {
        Self::present(self, device)
    }

    fn hdm(&self, place: Place) -> Option<&HdmBlock> {
        self.component(place).and_then(ComponentBlock::hdm)
    }

    fn dvsec(&self, device: Place) -> Option<DeviceDvsec> {
        let function = self.function(device)?;
        let at = function.device_dvsec()?;
        Some(DeviceDvsec::read(|offset| function.read(offset), at))
    }

    fn port(&self, port: usize) -> Option<(Parent, u8)> {
        self.scenario().ports.get(port).map(|port| (port.parent, port.number))
    }

    fn port_above(&self, place: Place) -> Option<usize> {
        match place {
            Place::Device(device) => self.scenario().devices.get(device).map(|device| device.port),
            Place::Switch(switch) => self.scenario().switches.get(switch).map(|switch| switch.port),
            Place::Bridge(_) | Place::Port(_) => None,
        }
    }

    fn below(&self, port: usize) -> Option<Place> {
        Self::below(self, port)
    }

    fn windows(&self) -> Vec<Span> {
        let windows = self.scenario().windows.iter().zip(&self.map().windows);
        windows.filter_map(|(window, base)| Span::new((*base)?, window.size).ok()).collect()
    }

    fn device_at(&self, hpa: u64) -> Option<usize> {
        Self::device_at(self, hpa)
    }

    fn lands(&self, hpa: u64) -> Option<Landing> {
        let landing = self.resolve(hpa)?;
        let media = &self.endpoint(landing.device)?.media;
        media.holds(landing.dpa, 1).then_some(landing)
    }
}
