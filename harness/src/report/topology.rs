//! What a scenario is made of: components, windows and the policy, in words.
//!
//! **Invariant**: nothing here looks at a register: this is what the owner of the machine wrote,
//! for the reader to hold the rest of the report against.

use cxl_regs::{Arithmetic, Coherency};
use schemars::JsonSchema;
use serde::Serialize;

use super::{address, maybe_address};
use crate::run;
use cxl_model::layout::AddressMap;
use cxl_model::scenario::{
    self, BridgeVersion, BrokenSets, DeviceKind, OnFailure, Parent, PathPolicy, Place, Prefer,
    Scenario, Target,
};

/// What kind of component it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A host bridge.
    HostBridge,
    /// A host bridge of CXL 1.1.
    RestrictedHostBridge,
    /// A root port.
    RootPort,
    /// A switch, by its upstream port.
    Switch,
    /// A switch's downstream port.
    DownstreamPort,
    /// A memory expander.
    Type3,
    /// An accelerator with memory.
    Type2,
}

/// One component.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Component {
    /// Its name in the scenario.
    pub component: String,
    /// What it is.
    pub kind: Kind,
    /// The component that it hangs below.
    pub below: Option<String>,
    /// Its place as the firmware calls it.
    pub place: String,
    /// ACPI `_UID` of a host bridge.
    pub uid: Option<u32>,
    /// PCIe port number of a port.
    pub port: Option<u8>,
    /// HDM decoders; `None` for a component that has none that count.
    pub decoders: Option<u8>,
    /// A device's volatile bytes.
    #[serde(serialize_with = "maybe_address")]
    #[schemars(with = "Option<String>")]
    pub volatile: Option<u64>,
    /// A device's persistent bytes.
    #[serde(serialize_with = "maybe_address")]
    #[schemars(with = "Option<String>")]
    pub persistent: Option<u64>,
    /// Whether a device is plugged in from the start.
    pub present: Option<bool>,
    #[serde(skip)]
    pub(super) depth: usize,
}

/// A window.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Window {
    /// Its name.
    pub window: String,
    /// First address; none if the platform found no place for it.
    #[serde(serialize_with = "maybe_address")]
    #[schemars(with = "Option<String>")]
    pub base: Option<u64>,
    /// Bytes.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub size: u64,
    /// Bridges that share it.
    pub ways: u32,
    /// Bytes that go to one of them before it is the next one's turn.
    pub granularity: u64,
    /// `modulo` or `xor`.
    pub arithmetic: &'static str,
    /// The bridges, way 0 first; one that does not exist by its UID.
    pub targets: Vec<String>,
    /// What may live in it.
    pub restrictions: Vec<&'static str>,
}

/// What was asked of the firmware.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Policy {
    /// `lock-all`, `guest-programs` or `unlocked`.
    pub path: &'static str,
    /// Freeze each device's enables too.
    pub config_lock: bool,
    /// Lock spare decoders at size 0.
    pub burn_spares: bool,
    /// `linux` or `specification`.
    pub target: &'static str,
    /// Switch CXL.cache on.
    pub enable_cache: bool,
    /// `flat` or `widest`.
    pub interleave: String,
    /// Memory is asked whether it answers before it is described.
    pub probe: bool,
    /// `strict` or `best-effort`.
    pub on_failure: &'static str,
    #[serde(skip)]
    pub(super) words: Vec<&'static str>,
}

impl Policy {
    pub(super) fn of(policy: &scenario::Policy) -> Self {
        let (path, words) = match policy.path {
            PathPolicy::LockAll => {
                ("lock-all", "path 1: firmware programs every decoder on each path, and locks it")
            }
            PathPolicy::GuestPrograms => (
                "guest-programs",
                "path 2: the guest programs the decoders; firmware checks that there is no choice",
            ),
            PathPolicy::Describe => (
                "describe",
                "describe: the operating system programs; firmware writes to no decoder",
            ),
            PathPolicy::Unlocked => {
                ("unlocked", "firmware programs every decoder on each path, and locks none")
            }
        };
        let mut words = vec![words];
        if !matches!(policy.path, PathPolicy::GuestPrograms | PathPolicy::Describe) {
            words.push(match policy.config_lock {
                true => "CONFIG_LOCK: each device's enables are frozen too",
                false => "no CONFIG_LOCK: each device's enables stay writable",
            });
        }
        if policy.burn_spares {
            words.push("spare decoders are locked at size 0");
        }
        if policy.enable_cache {
            words.push("CXL.cache is switched on");
        }
        words.push(match policy.target {
            Target::Linux => "what Linux would refuse is refused",
            Target::Specification => "all that the specification allows is allowed",
        });
        match policy.prefer {
            Prefer::None => {}
            Prefer::Widest => words.push("of several windows the widest that a set can be in"),
            Prefer::Narrowest => words.push("of several windows the narrowest"),
            Prefer::Lowest => words.push("of several windows the lowest"),
        }
        if !policy.probe {
            words.push("no probe: that memory answers is what registers say");
        }
        let on_failure = match policy.on_failure {
            OnFailure::Strict => "strict",
            OnFailure::BestEffort => {
                words.push("best effort: a component that fails costs itself and what is below it");
                match policy.broken_sets {
                    BrokenSets::Narrower => {}
                    BrokenSets::Flat => {
                        words.push("the rest of a broken set has ranges of its own")
                    }
                    BrokenSets::Unused => words.push("the rest of a broken set stays unused"),
                }
                if !policy.trial {
                    words.push("no trial: all is locked with its first commit");
                }
                "best-effort"
            }
        };
        Self {
            path,
            config_lock: policy.config_lock,
            burn_spares: policy.burn_spares,
            target: match policy.target {
                Target::Linux => "linux",
                Target::Specification => "specification",
            },
            enable_cache: policy.enable_cache,
            interleave: policy.interleave.to_string(),
            probe: policy.probe,
            on_failure,
            words,
        }
    }
}

/// The components as a tree, children right behind their parents.
pub(super) fn components(scenario: &Scenario) -> Vec<Component> {
    let mut list = Vec::new();
    for (index, bridge) in scenario.bridges.iter().enumerate() {
        list.push(Component {
            kind: match bridge.version {
                BridgeVersion::Cxl1 => Kind::RestrictedHostBridge,
                BridgeVersion::Cxl2 => Kind::HostBridge,
            },
            uid: Some(bridge.uid),
            decoders: Some(bridge.decoders).filter(|&decoders| decoders != 0),
            ..component(scenario, Place::Bridge(index), None, 0)
        });
        ports(scenario, Parent::Bridge(index), 1, &mut list);
    }
    list
}

fn component(scenario: &Scenario, place: Place, below: Option<Place>, depth: usize) -> Component {
    Component {
        component: scenario.name_of(place).to_owned(),
        kind: Kind::HostBridge,
        below: below.map(|below| scenario.name_of(below).to_owned()),
        place: run::path(scenario, place).map(|path| path.to_string()).unwrap_or_default(),
        uid: None,
        port: None,
        decoders: None,
        volatile: None,
        persistent: None,
        present: None,
        depth,
    }
}

/// The ports of a bridge or switch with all that hangs below them. A switch hangs below one port
/// and a port below one parent, so this ends.
fn ports(scenario: &Scenario, parent: Parent, depth: usize, list: &mut Vec<Component>) {
    let above = match parent {
        Parent::Bridge(bridge) => Place::Bridge(bridge),
        Parent::Switch(switch) => Place::Switch(switch),
    };
    let ports = scenario.ports.iter().enumerate().filter(|(_, port)| port.parent == parent);
    for (index, port) in ports {
        let place = Place::Port(index);
        list.push(Component {
            kind: match parent {
                Parent::Bridge(_) => Kind::RootPort,
                Parent::Switch(_) => Kind::DownstreamPort,
            },
            port: Some(port.number),
            ..component(scenario, place, Some(above), depth)
        });
        for (switch, given) in scenario.switches.iter().enumerate() {
            if given.port == index {
                list.push(Component {
                    kind: Kind::Switch,
                    decoders: Some(given.decoders),
                    ..component(scenario, Place::Switch(switch), Some(place), depth + 1)
                });
                self::ports(scenario, Parent::Switch(switch), depth + 2, list);
            }
        }
        for (device, given) in scenario.devices.iter().enumerate() {
            if given.port == index {
                list.push(Component {
                    kind: match given.kind {
                        DeviceKind::Type2 => Kind::Type2,
                        DeviceKind::Type3 => Kind::Type3,
                    },
                    decoders: Some(given.decoders),
                    volatile: Some(given.volatile),
                    persistent: Some(given.persistent),
                    present: Some(given.present),
                    ..component(scenario, Place::Device(device), Some(place), depth + 1)
                });
            }
        }
    }
}

/// The windows in the scenario's order.
pub(super) fn windows(scenario: &Scenario, map: &AddressMap) -> Vec<Window> {
    let windows = scenario.windows.iter().zip(&map.windows);
    windows
        .map(|(window, base)| {
            let target = |uid: &u32| {
                let bridge = scenario.bridges.iter().find(|bridge| bridge.uid == *uid);
                bridge.map_or_else(|| format!("UID {uid}"), |bridge| bridge.name.clone())
            };
            let allowed = window.restrictions;
            let restrictions = [
                (allowed.host_only(), "host-only"),
                (allowed.device_coherent(), "device-coherent"),
                (allowed.back_invalidate(), "back-invalidate"),
                (allowed.volatile(), "volatile"),
                (allowed.persistent(), "persistent"),
                (allowed.fixed(), "fixed"),
            ];
            Window {
                window: window.name.clone(),
                base: base.map(|base| base.0),
                size: window.size,
                ways: window.interleave.ways.count(),
                granularity: window.interleave.granularity.bytes(),
                arithmetic: match window.arithmetic {
                    Arithmetic::Modulo => "modulo",
                    Arithmetic::Xor => "xor",
                },
                targets: window.targets.iter().map(target).collect(),
                restrictions: restrictions
                    .into_iter()
                    .filter_map(|(set, name)| set.then_some(name))
                    .collect(),
            }
        })
        .collect()
}

/// The short name of a coherency, as in `cxl-harness decode --json`.
pub(super) fn coherency(coherency: Coherency) -> &'static str {
    match coherency {
        Coherency::HostOnly => "hdm-h",
        Coherency::Device => "hdm-d",
        Coherency::BackInvalidate => "hdm-db",
    }
}
