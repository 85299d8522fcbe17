//! Models out of a scenario's description.
//!
//! **Invariant**: a model gets everything it has to know here; none looks at the scenario later.

use cxl_regs::Component;
use cxl_regs::access::{Feature, Features};
use cxl_regs::hdm::Capability;

use super::Slot;
use crate::device::bridge::HostBridge;
use crate::device::endpoint::{Endpoint, Make};
use crate::device::hdm::HdmBlock;
use crate::device::port::{self, Path};
use crate::layout::BridgePlace;
use crate::scenario::{self, BridgeVersion, DeviceKind, Parent, Scenario, Selects};

/// What the hierarchy below a bridge can do.
fn path_of(bridge: &scenario::Bridge) -> Path {
    Path { back_invalidate: bridge.back_invalidate, cache_id: bridge.cache_id }
}

/// The decoders of a bridge or upstream port.
fn routing(component: Component, path: Path, decoders: u8, targets: u8) -> Option<HdmBlock> {
    let capability = Capability::new()
        .with_decoder_count(Capability::encode_decoders(decoders)?)
        .with_target_count(targets)
        .with_interleave_11_8(true)
        .with_interleave_14_12(true)
        .with_mem_data_nxm(path.back_invalidate);
    let features = Features::NONE;
    let features =
        if path.back_invalidate { features.with(Feature::BackInvalidate) } else { features };
    Some(HdmBlock::new(component, features, capability))
}

pub(super) fn bridge(given: &scenario::Bridge, place: &BridgePlace) -> HostBridge {
    match given.version {
        BridgeVersion::Cxl1 => HostBridge::restricted(place.bars.base().0),
        BridgeVersion::Cxl2 => {
            let path = path_of(given);
            let hdm = routing(Component::HostBridge, path, given.decoders, given.target_count);
            HostBridge::new(hdm, path)
        }
    }
}

/// What the hierarchy can do that a port or switch belongs to.
fn path_at(scenario: &Scenario, mut parent: Parent) -> Path {
    for _ in 0..=scenario.switches.len() {
        let switch = match parent {
            Parent::Bridge(bridge) => {
                return scenario.bridges.get(bridge).map(path_of).unwrap_or_default();
            }
            Parent::Switch(switch) => scenario.switches.get(switch),
        };
        let Some(port) = switch.and_then(|switch| scenario.ports.get(switch.port)) else { break };
        parent = port.parent;
    }
    Path::default()
}

pub(super) fn port(scenario: &Scenario, index: usize) -> port::Port {
    let Some(given) = scenario.ports.get(index) else {
        return port::Port::root(0, Path::default(), None);
    };
    let path = path_at(scenario, given.parent);
    // Decoders that route nothing, as some hardware has them in its ports.
    let idle = given.hdm.then(|| routing(Component::UpstreamPort, Path::default(), 4, 8)).flatten();
    match given.parent {
        Parent::Bridge(_) => port::Port::root(given.number, path, idle),
        Parent::Switch(_) => port::Port::downstream(given.number, path, idle),
    }
}

pub(super) fn switch(scenario: &Scenario, index: usize) -> port::Port {
    let path = path_at(scenario, Parent::Switch(index));
    let given = scenario.switches.get(index);
    let hdm = given.and_then(|switch| {
        routing(Component::UpstreamPort, path, switch.decoders, switch.target_count)
    });
    port::Port::upstream(hdm, path)
}

pub(super) fn device(given: &scenario::Device) -> Slot {
    let endpoint = Endpoint::new(&Make {
        accelerator: given.kind == DeviceKind::Type2,
        volatile: given.volatile,
        persistent: given.persistent,
        coherency: given.coherency,
        decoders: given.decoders,
        selects_11_8: given.selects != Selects::High,
        selects_14_12: given.selects != Selects::Low,
        ways_3_6_12: given.ways_3_6_12,
        ways_16: given.ways_16,
        serial: given.serial,
    });
    Slot { endpoint, present: given.present }
}
