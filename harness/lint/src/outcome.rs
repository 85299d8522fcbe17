//! What comes up of a machine, as far as the linter can say: what to hold against a running Linux.
//!
//! **Invariant**: it is of the same run as the findings; nothing is judged a second time.

use serde::Serialize;

use super::input::Input;
use super::kernel::{Kernel, Linux};
use super::linux;
use super::system::{Mode, System};

/// What comes up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Components with a port or an endpoint that has decoders, in the order in which they come up.
    pub ports: Vec<String>,
    /// Regions, in the order in which they are made.
    pub regions: Vec<RegionOutcome>,
}

/// A region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegionOutcome {
    /// Its first address.
    pub base: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its ways.
    pub ways: u64,
    /// Its granularity in bytes.
    pub granularity: u64,
    /// Whether its memory is persistent; `None` if nobody said what the device has.
    pub persistent: Option<bool>,
    /// Whether it is assembled: volatile memory then comes online.
    pub assembled: bool,
    /// Its members and their decoders, position 0 first.
    pub members: Vec<(String, u8)>,
}

/// What one kernel brings up.
pub fn outcome(input: &Input, kernel: Kernel) -> Outcome {
    Outcome::of(&linux::bring_up(input, Linux::Kernel(kernel)))
}

impl Outcome {
    fn of(system: &System<'_>) -> Self {
        let ports = system.ports.iter().filter(|port| !port.decoders.is_empty());
        let ports = ports.map(|port| system.component(port).to_owned()).collect();
        let regions = system.regions.iter().map(|region| RegionOutcome {
            base: region.range.start,
            size: region.range.length(),
            ways: region.ways,
            granularity: region.granularity,
            persistent: region.mode.map(|mode| mode == Mode::Pmem),
            assembled: region.done == Some(true),
            members: region
                .members
                .iter()
                .map(|member| {
                    let number = u8::try_from(member.decoder).unwrap_or(u8::MAX);
                    (system.component_of(member.port).to_owned(), number)
                })
                .collect(),
        });
        Self { ports, regions: regions.collect() }
    }
}
