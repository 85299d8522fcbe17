//! A machine whose registers somebody read and wrote down, for the verdict on its locks.
//!
//! **Invariant**: decoders decode as the models' do; which of them there are, and how they hang together,
//! is what was given. What was not given is named by [`Given::missing`], and nothing is made up for it.

use cxl_regs::access::{Component, Features};
use cxl_regs::dvsec::device::{Capability as DeviceCapability, Control, Lock};
use cxl_regs::dvsec::device::{
    DeviceDvsec, RangeBaseHigh, RangeBaseLow, RangeSizeHigh, RangeSizeLow,
};
use cxl_regs::hdm::{Capability, GlobalControl};
use cxl_regs::{Arithmetic, Dpa, Hpa, Selector, Span};

use super::View;
use cxl_lint::{Input, Registers};
use cxl_model::device::hdm::HdmBlock;
use cxl_model::fabric::{Fabric, HdmImage};
use cxl_model::machine::Landing;
use cxl_model::scenario::{Parent, Place};

/// Registers that were written down.
#[derive(Debug)]
pub struct Given {
    fabric: Fabric,
    bridges: Vec<Option<HdmBlock>>,
    switches: Vec<Option<HdmBlock>>,
    devices: Vec<Option<HdmBlock>>,
    dvsecs: Vec<Option<DeviceDvsec>>,
    missing: Vec<String>,
}

impl Given {
    /// What an input has of registers.
    pub fn of(input: &Input) -> Self {
        let fabric = input.reached().fabric;
        let mut missing = Vec::new();
        let unknown = |registers: &Registers| *registers == Registers::Unknown;
        for bridge in input.bridges.iter().filter(|bridge| unknown(&bridge.registers)) {
            missing.push(format!("registers of {}", bridge.name));
        }
        for switch in input.switches.iter().filter(|switch| unknown(&switch.registers)) {
            missing.push(format!("registers of {}", switch.name));
        }
        for device in &input.devices {
            if unknown(&device.registers) {
                missing.push(format!("registers of {}", device.name));
            }
            if device.config.is_none() {
                missing.push(format!("configuration space of {}", device.name));
            }
            if device.port.is_none() {
                missing.push(format!("place of {}", device.name));
            }
        }
        if input.bridges.is_empty() && input.devices.is_empty() {
            missing.push("registers of any component".to_owned());
        }
        if input.cedt.is_none() {
            missing.push("the CEDT".to_owned());
        }
        let block = |component, hdm: &Option<HdmImage>| {
            let hdm = hdm.as_ref()?;
            let mut block = HdmBlock::new(
                component,
                Features::default(),
                Capability::from_bits(hdm.capability),
            );
            block.preset_global(GlobalControl::from_bits(hdm.global_control));
            for (index, image) in (0..=u8::MAX).zip(&hdm.decoders) {
                block.preset(index, *image);
            }
            Some(block)
        };
        let bridges = fabric.bridges.iter().map(|it| block(Component::HostBridge, &it.hdm));
        let bridges = bridges.collect();
        let switches = fabric.switches.iter().map(|it| block(Component::UpstreamPort, &it.hdm));
        let switches = switches.collect();
        let devices = fabric.devices.iter().map(|it| block(Component::Device, &it.hdm)).collect();
        let dvsecs = input.devices.iter().map(|device| {
            let given = device.config.as_ref()?.dvsec?;
            let [first, second, _] = given.ranges;
            let [size_high, size_low, base_high, base_low] = first;
            let [size_high_2, size_low_2, base_high_2, base_low_2] = second;
            Some(DeviceDvsec {
                capability: DeviceCapability::from_bits(given.capability),
                control: Control::from_bits(given.control),
                lock: Lock::from_bits(given.lock),
                range1_size_high: RangeSizeHigh::from_bits(size_high),
                range1_size_low: RangeSizeLow::from_bits(size_low),
                range1_base_high: RangeBaseHigh::from_bits(base_high),
                range1_base_low: RangeBaseLow::from_bits(base_low),
                range2_size_high: RangeSizeHigh::from_bits(size_high_2),
                range2_size_low: RangeSizeLow::from_bits(size_low_2),
                range2_base_high: RangeBaseHigh::from_bits(base_high_2),
                range2_base_low: RangeBaseLow::from_bits(base_low_2),
                ..DeviceDvsec::default()
            })
        });
        let dvsecs = dvsecs.collect();
        Self { fabric, bridges, switches, devices, dvsecs, missing }
    }

    /// What was not given, without which nobody can say what locks protect.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    fn device_dvsec(&self, device: usize) -> Option<DeviceDvsec> {
        self.dvsecs.get(device).copied().flatten()
    }

    /// The device address behind a host address, by decoders or by range registers.
    fn translate(&self, device: usize, hpa: u64) -> Option<u64> {
        let dvsec = self.device_dvsec(device).filter(|dvsec| dvsec.control.mem_enable())?;
        let hdm = self.devices.get(device)?.as_ref();
        if let Some(hdm) = hdm.filter(|hdm| hdm.global().decoder_enable()) {
            return hdm.translate(hpa);
        }
        let mut first = 0u64;
        for range in dvsec.ranges() {
            let offset = hpa.checked_sub(range.base().0);
            if let Some(offset) = offset.filter(|offset| *offset < range.size()) {
                return range.size_low.active().then(|| first.checked_add(offset)).flatten();
            }
            first = first.checked_add(range.size())?;
        }
        None
    }

    fn ports_of(&self, parent: Parent) -> impl Iterator<Item = (usize, u8)> {
        let ports = self.fabric.ports.iter().enumerate();
        ports.filter(move |(_, port)| port.parent == parent).map(|(at, port)| (at, port.number))
    }
}

impl View for Given {
    fn places(&self) -> Vec<Place> {
        let bridges = (0..self.bridges.len()).map(Place::Bridge);
        let switches = (0..self.switches.len()).map(Place::Switch);
        bridges.chain(switches).chain((0..self.devices.len()).map(Place::Device)).collect()
    }

    fn name(&self, place: Place) -> &str {
        let Fabric { bridges, ports, switches, devices, .. } = &self.fabric;
        let name = match place {
            Place::Bridge(index) => bridges.get(index).map(|it| &it.name),
            Place::Port(index) => ports.get(index).map(|it| &it.name),
            Place::Switch(index) => switches.get(index).map(|it| &it.name),
            Place::Device(index) => devices.get(index).map(|it| &it.name),
        };
        name.map_or("?", String::as_str)
    }

    fn present(&self, device: usize) -> bool {
        device < self.devices.len()
    }

    fn hdm(&self, place: Place) -> Option<&HdmBlock> {
        match place {
            Place::Bridge(index) => self.bridges.get(index)?.as_ref(),
            Place::Switch(index) => self.switches.get(index)?.as_ref(),
            Place::Device(index) => self.devices.get(index)?.as_ref(),
            Place::Port(_) => None,
        }
    }

    fn dvsec(&self, device: Place) -> Option<DeviceDvsec> {
        let Place::Device(device) = device else { return None };
        self.device_dvsec(device)
    }

    fn port(&self, port: usize) -> Option<(Parent, u8)> {
        self.fabric.ports.get(port).map(|port| (port.parent, port.number))
    }

    fn port_above(&self, place: Place) -> Option<usize> {
        match place {
            Place::Device(device) => self.fabric.devices.get(device).map(|device| device.port),
            Place::Switch(switch) => self.fabric.switches.get(switch).map(|switch| switch.port),
            Place::Bridge(_) | Place::Port(_) => None,
        }
    }

    fn below(&self, port: usize) -> Option<Place> {
        let switch = self.fabric.switches.iter().position(|switch| switch.port == port);
        let device = || self.fabric.devices.iter().position(|device| device.port == port);
        switch.map(Place::Switch).or_else(|| device().map(Place::Device))
    }

    fn windows(&self) -> Vec<Span> {
        let windows = self.fabric.windows.iter();
        windows.filter_map(|window| Span::new(window.base?, window.size).ok()).collect()
    }

    fn device_at(&self, hpa: u64) -> Option<usize> {
        let window = self.fabric.windows.iter().find(|window| {
            let span = window.base.and_then(|base| Span::new(base, window.size).ok());
            span.is_some_and(|span| span.contains(Hpa(hpa)))
        })?;
        let selector = match window.arithmetic {
            Arithmetic::Modulo => Selector::modulo(window.interleave),
            Arithmetic::Xor => Selector::xor(window.interleave, &window.xor_maps).ok()?,
        };
        let uid = *window.targets.get(selector.position(Hpa(hpa)) as usize)?;
        let bridge = self.fabric.bridges.iter().position(|bridge| bridge.uid == uid)?;
        let mut parent = Parent::Bridge(bridge);
        // Each switch lies deeper than the one before.
        for _ in 0..=self.switches.len() {
            let (place, mut ports) = match parent {
                Parent::Bridge(index) => (Place::Bridge(index), self.ports_of(parent)),
                Parent::Switch(index) => (Place::Switch(index), self.ports_of(parent)),
            };
            let port = match (self.hdm(place), parent) {
                (Some(hdm), _) => {
                    let number = hdm.route(hpa)?;
                    ports.find(|(_, other)| *other == number).map(|(port, _)| port)?
                }
                // A bridge without decoders passes on what there is one port for.
                (None, Parent::Bridge(_)) => {
                    let (port, _) = ports.next()?;
                    ports.next().is_none().then_some(port)?
                }
                (None, Parent::Switch(_)) => return None,
            };
            match self.below(port)? {
                Place::Switch(switch) => parent = Parent::Switch(switch),
                Place::Device(device) => return Some(device),
                Place::Bridge(_) | Place::Port(_) => return None,
            }
        }
        None
    }

    fn lands(&self, hpa: u64) -> Option<Landing> {
        let device = self.device_at(hpa)?;
        let dpa = self.translate(device, hpa)?;
        let has = self.fabric.devices.get(device)?;
        let end = has.volatile.saturating_add(has.persistent);
        (dpa < end).then_some(Landing { device, dpa: Dpa(dpa) })
    }
}
