//! Register images: what a machine's registers hold, as stable text, for people who run firmware of
//! their own on it and snapshot what it left.
//!
//! **Invariant**: the text shows what a read of the registers returns, whoever wrote them; making it
//! reads nothing that counts, and changes nothing.

use std::fmt::{self, Display, Formatter, Write};

use cxl_regs::component::{BLOCK_SIZE, ComponentText, cache_mem};
use cxl_regs::text::ConfigText;
use cxl_regs::{Component, HdmText};

use crate::fabric::{Fabric, HdmImage};
use crate::machine::Machine;
use crate::scenario::Place;

/// All of one component: configuration space with Command, BARs and DVSECs, then the component
/// registers with the HDM decoders. `None` for a name that the machine does not have, or of a device
/// that is not plugged in.
///
/// A decoder image alone shows no Mem_Enable that was forgotten and no CONFIG_LOCK that is open;
/// this does:
///
/// ```
/// use cxl_model::image;
/// use cxl_model::machine::Machine;
/// use cxl_model::scenario::Scenario;
///
/// let machine = Machine::new(&Scenario::built_in("one-device").unwrap());
/// let text = image::component(&machine, "mem0").unwrap();
/// assert!(text.contains("  command           0x0006  Memory Space, Bus Master\n"));
/// assert!(text.contains("  lock              0x0000\n"));
/// assert!(text.contains("hdm decoders of a device, 0 of 4 committed\n"));
/// ```
pub fn component(machine: &Machine, name: &str) -> Option<String> {
    let place = machine.find(name)?;
    if matches!(place, Place::Device(device) if !machine.present(device)) {
        return None;
    }
    let mut text = String::new();
    if let Some(function) = machine.function(place) {
        // Writing to a string does not fail.
        let _ = write!(text, "{}", ConfigText(function.bytes()));
    }
    let Some(block) = machine.component(place) else { return Some(text) };
    let (mut block, now) = (block.clone(), machine.clock().now());
    let dwords = (0..BLOCK_SIZE).step_by(4).map(|offset| block.read(offset, now).0);
    let bytes: Vec<u8> = dwords.flat_map(u32::to_le_bytes).collect();
    let range = cache_mem(&bytes).unwrap_or_default();
    let _ = write!(text, "{}", ComponentText(range));
    if let Some(decoders) = of(machine, name) {
        text += &decoders;
    }
    Some(text)
}

/// The HDM decoders alone of the component with this name; `None` if there is none, or it has none.
///
/// ```
/// use cxl_model::image;
/// use cxl_model::machine::Machine;
/// use cxl_model::scenario::Scenario;
///
/// let machine = Machine::new(&Scenario::built_in("one-device").unwrap());
/// let text = image::of(&machine, "mem0").unwrap();
/// assert!(text.starts_with("hdm decoders of a device, 0 of 4 committed\n"));
/// ```
pub fn of(machine: &Machine, name: &str) -> Option<String> {
    let fabric = machine.fabric();
    let (component, hdm) = components(&fabric)
        .find(|(found, ..)| *found == name)
        .map(|(_, component, hdm)| (component, hdm))?;
    Some(HdmText::new(&hdm.bytes(), Some(component)).to_string())
}

/// The decoders of all components, bridges first, each under its name.
#[derive(Clone, Copy)]
pub struct Images<'m>(pub &'m Machine);

/// Every component that has decoders, with its name.
pub fn components(fabric: &Fabric) -> impl Iterator<Item = (&str, Component, &HdmImage)> {
    let bridges = fabric
        .bridges
        .iter()
        .map(|bridge| (bridge.name.as_str(), Component::HostBridge, bridge.hdm.as_ref()));
    let switches = fabric
        .switches
        .iter()
        .map(|switch| (switch.name.as_str(), Component::UpstreamPort, switch.hdm.as_ref()));
    let devices = fabric
        .devices
        .iter()
        .map(|device| (device.name.as_str(), Component::Device, device.hdm.as_ref()));
    { bridges }
        .chain(switches)
        .chain(devices)
        .filter_map(|(name, component, hdm)| Some((name, component, hdm?)))
}

impl Display for Images<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let fabric = self.0.fabric();
        for (index, (name, component, hdm)) in components(&fabric).enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            writeln!(f, "{gap}{name}")?;
            HdmText::new(&hdm.bytes(), Some(component)).fmt(f)?;
        }
        Ok(())
    }
}
