//! A run of the library on a machine, straight through function calls: no guest, no KVM.
//!
//! **Invariant**: the library sees the machine through [`cxl_firmware::mmio::Mmio`] and its ACPI
//! tables, exactly as in a guest; the facts of both runs are the same.

use cxl_firmware::bring_up::{BringUpError, Workspace, bring_up};
use cxl_firmware::platform::RootBus;
use cxl_firmware::policy::{PathPolicy, Policy, Request, TargetSystem};
use cxl_firmware::topology::{Partition, Path};
use cxl_firmware::{acpi, handoff, tables};
use cxl_regs::acpi::Identity;

use crate::machine::Machine;
use crate::scenario::{self, Parent, Scenario, WindowChoice};

/// Room for the largest machine the harness runs: 16 bridges with 16 devices each, all of them
/// behind ports of their own.
pub type Room = Workspace<640, 320, 1280>;
/// Tables of the same machine.
pub type Tables = acpi::Tables<32, 64>;

/// Who made the tables.
pub const IDENTITY: Identity =
    Identity { oem_id: *b"CXLFW ", oem_table_id: *b"HARNESS ", oem_revision: 1, creator_id: *b"CXLF", creator_revision: 1 };

/// Why the library did not bring the machine up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The platform's own tables.
    Platform(acpi::PlatformError),
    /// Discovery, plan, commit or verification.
    BringUp(BringUpError),
    /// The CEDT.
    Tables(tables::TablesError),
    /// The hand-off record.
    Handoff(handoff::HandoffError),
}

impl Refusal {
    /// The phase that refused, in a word.
    pub fn phase(&self) -> &'static str {
        match self {
            Self::Platform(_) => "platform",
            Self::BringUp(BringUpError::Discover(_)) => "discover",
            Self::BringUp(BringUpError::Plan(_)) => "plan",
            Self::BringUp(BringUpError::Commit(_)) => "commit",
            Self::BringUp(BringUpError::Verify(_)) => "verify",
            Self::Tables(_) => "tables",
            Self::Handoff(_) => "handoff",
        }
    }

    /// The library's number for it.
    pub fn code(&self) -> u16 {
        match self {
            Self::Platform(error) => error.code(),
            Self::BringUp(error) => error.code(),
            Self::Tables(error) => error.code(),
            Self::Handoff(error) => error.code(),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Platform(error) => write!(f, "platform: {error}"),
            Self::BringUp(error) => error.fmt(f),
            Self::Tables(error) => write!(f, "tables: {error}"),
            Self::Handoff(error) => write!(f, "handoff: {error}"),
        }
    }
}

impl std::error::Error for Refusal {}

/// What a run left behind besides the machine's registers.
pub struct Done {
    /// The library's own view.
    pub room: Box<Room>,
    /// The CEDT it built; empty if it did not come so far.
    pub cedt: Vec<u8>,
    /// The hand-off record; empty if it did not come so far.
    pub handoff: Vec<u8>,
    /// Why it stopped.
    pub refusal: Option<Refusal>,
}

/// The policy that a scenario asks for, with its requests.
pub struct Wanted {
    requests: Vec<Request>,
    policy: scenario::Policy,
}

impl Wanted {
    /// The scenario's policy in the library's words.
    pub fn of(machine: &Machine) -> Self {
        let scenario = machine.scenario();
        let requests = scenario.regions.iter().flat_map(|region| {
            region.devices.iter().map(move |&device| Request {
                device: path(scenario, device),
                partition: match region.partition {
                    scenario::Partition::Volatile => Partition::Volatile,
                    scenario::Partition::Persistent => Partition::Persistent,
                },
                window: region.window.map(|window| match window {
                    WindowChoice::Named(index) => {
                        machine.map().windows.get(index).map_or(0, |base| base.0)
                    }
                    WindowChoice::At(base) => base.0,
                }),
                offset: region.offset,
                size: region.size,
            })
        });
        Self { requests: requests.collect(), policy: scenario.policy }
    }

    /// The policy.
    pub fn policy(&self) -> Policy<'_> {
        Policy {
            path: match self.policy.path {
                scenario::PathPolicy::LockAll => PathPolicy::LockAll,
                scenario::PathPolicy::GuestPrograms => PathPolicy::GuestPrograms,
                scenario::PathPolicy::Unlocked => PathPolicy::Unlocked,
            },
            config_lock: self.policy.config_lock,
            burn_spares: self.policy.burn_spares,
            enable_cache: self.policy.enable_cache,
            target: match self.policy.target {
                scenario::Target::Linux => TargetSystem::Linux,
                scenario::Target::Specification => TargetSystem::Specification,
            },
            requests: &self.requests,
        }
    }
}

/// A device's place by port numbers.
pub fn path(scenario: &Scenario, device: usize) -> Path {
    let mut ports = Vec::new();
    let mut port = scenario.devices.get(device).map(|device| device.port);
    let mut uid = 0;
    while let Some(at) = port.and_then(|port| scenario.ports.get(port)) {
        ports.push(at.number);
        port = match at.parent {
            Parent::Bridge(bridge) => {
                uid = scenario.bridges.get(bridge).map_or(0, |bridge| bridge.uid);
                None
            }
            Parent::Switch(switch) => scenario.switches.get(switch).map(|switch| switch.port),
        };
    }
    ports.reverse();
    Path::new(uid, &ports).unwrap_or_default()
}

/// What the platform tells firmware beside the tables: the root buses that it may know.
pub fn roots(scenario: &Scenario) -> Vec<(u32, RootBus)> {
    let known = scenario.bridges.iter().filter(|bridge| bridge.bus_known);
    known
        .map(|bridge| (bridge.uid, RootBus { segment: bridge.segment, bus: bridge.bus }))
        .collect()
}
