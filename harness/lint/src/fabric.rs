//! An input as a [`Fabric`], to ask where addresses lead.
//!
//! **Invariant**: what the input does not know is taken for what lets the decoders work, and each such
//! assumption is said; a component whose registers nobody gave is named.

use cxl_model::fabric::{self, Fabric, HdmImage};
use cxl_model::mapping::At;
use cxl_regs::acpi::cedt::{Cfmws, Cxims};
use cxl_regs::{Hpa, Size, Ways};

use super::input::{Input, Registers};
use super::records::Records;

/// Where addresses lead, as far as an input says.
#[derive(Debug)]
pub struct Reached {
    /// The whole picture.
    pub fabric: Fabric,
    /// What was assumed.
    pub assumed: Vec<String>,
    /// Components whose registers nobody gave.
    pub unknown: Vec<At>,
}

/// Capability and Control of a device that serves CXL.mem.
const SERVES: fabric::DeviceDvsec =
    fabric::DeviceDvsec { capability: 0x001E_0000, control: 0x0000_0006 };

impl Input {
    /// Where addresses lead.
    pub fn reached(&self) -> Reached {
        let mut assumed = Vec::new();
        let mut unknown = Vec::new();
        let mut hdm = |at: At, registers: &Registers| {
            if *registers == Registers::Unknown {
                unknown.push(at);
            }
            registers.hdm().cloned()
        };
        let bridges = self.bridges.iter().enumerate().map(|(index, bridge)| fabric::Bridge {
            name: bridge.name.clone(),
            // No window can name a bridge whose UID nobody said.
            uid: bridge.uid.unwrap_or(u32::MAX),
            hdm: hdm(At::Bridge(index), &bridge.registers),
        });
        let bridges = bridges.collect();
        let switches = self.switches.iter().enumerate().map(|(index, switch)| fabric::Switch {
            name: switch.name.clone(),
            port: switch.port,
            hdm: hdm(At::Switch(index), &switch.registers),
            back_invalidate: true,
        });
        let switches = switches.collect();
        let devices = self.devices.iter().enumerate().map(|(index, device)| {
            let name = &device.name;
            let image = hdm(At::Device(index), &device.registers);
            let (volatile, persistent) = device.capacity.unwrap_or_else(|| {
                let bytes = image.as_ref().map_or(0, mapped);
                if bytes > 0 {
                    let size = Size(bytes);
                    assumed.push(format!(
                        "{name} is taken to have the {size} that its decoders map, volatile"
                    ));
                }
                (bytes, 0)
            });
            let dvsec = match &device.config {
                Some(config) => config.dvsec.map(|dvsec| fabric::DeviceDvsec {
                    capability: u32::from(dvsec.capability) << 16,
                    control: dvsec.control.into(),
                }),
                None => {
                    assumed.push(format!("{name} is taken to have Mem_Enable set"));
                    Some(SERVES)
                }
            };
            fabric::Device {
                name: name.clone(),
                port: device.port.unwrap_or(usize::MAX),
                present: true,
                hdm: image,
                dvsec,
                back_invalidate: true,
                volatile,
                persistent,
            }
        });
        let devices = devices.collect();
        let ports = self.ports.iter().map(|port| fabric::Port {
            name: port.name.clone(),
            parent: port.parent,
            number: port.number,
            back_invalidate: true,
        });
        let ports = ports.collect();
        let windows = self.windows(&mut assumed);
        let fabric = Fabric { physical_bits: 52, windows, bridges, ports, switches, devices };
        Reached { fabric, assumed, unknown }
    }

    fn windows(&self, assumed: &mut Vec<String>) -> Vec<fabric::Window> {
        let Some(table) = self.cedt.as_deref() else { return vec![] };
        let records = Records::of(table);
        let maps: Vec<Cxims> = records
            .cxims
            .iter()
            .filter_map(|(record, maps)| Cxims::decode(record, maps).ok())
            .collect();
        let mut windows = Vec::new();
        for (index, (record, targets)) in records.cfmws.iter().enumerate() {
            let window = match Cfmws::decode(record, targets) {
                Ok(window) => window,
                Err(problem) => {
                    assumed.push(format!("window {index} is left out: {problem}"));
                    continue;
                }
            };
            let granularity = window.interleave().granularity;
            let own = maps.iter().find(|maps| maps.granularity == granularity);
            let base: Hpa = window.span().base();
            windows.push(fabric::Window {
                name: format!("window{index}"),
                base: Some(base),
                size: window.span().size(),
                targets: window.targets().to_vec(),
                interleave: window.interleave(),
                arithmetic: window.arithmetic,
                xor_maps: own.map(|own| own.maps.to_vec()).unwrap_or_default(),
                restrictions: window.restrictions,
            });
        }
        windows
    }
}

/// Bytes of a device up to the end of what its committed decoders map.
fn mapped(image: &HdmImage) -> u64 {
    image.decoders.iter().fold(0, |end: u64, decoder| {
        let control = decoder.control();
        if !control.committed() {
            return end;
        }
        let ways = Ways::decode(control.ways()).map_or(1, Ways::count);
        let share = decoder.size() / u64::from(ways);
        end.saturating_add(decoder.skip()).saturating_add(share)
    })
}
