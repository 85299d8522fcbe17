//! Register images: the HDM decoders of a machine as the stable text of
//! [`HdmText`], for people who run firmware of their own on a machine and snapshot what it left.
//!
//! **Invariant**: the text shows what a read of the registers returns, whoever wrote them.

use std::fmt::{self, Display, Formatter};

use cxl_regs::{Component, HdmText};

use crate::fabric::{Fabric, HdmImage};
use crate::machine::Machine;

/// The decoders of all components, bridges first, each under its name.
#[derive(Clone, Copy)]
pub struct Images<'m>(pub &'m Machine);

/// The decoders of the component with this name, or of nobody if there is none or it has none.
///
/// ```
/// use cxl_harness::image;
/// use cxl_harness::machine::Machine;
/// use cxl_harness::scenario::Scenario;
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

/// Every component that has decoders, with its name.
pub(crate) fn components(fabric: &Fabric) -> impl Iterator<Item = (&str, Component, &HdmImage)> {
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
