//! The machine at one moment, to be looked at later.
//!
//! **Invariant**: it shares no register, no media and no clock with the machine that it was.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::{Changes, Machine, MachineClock, Slot, sets};
use crate::trace::Recorder;

impl Machine {
    /// The machine as it is now, registers alone: devices have their capacities and no memory behind
    /// them, nothing is counted, and time goes on from the same moment.
    pub fn frozen(&self) -> Self {
        let slot = |slot: &Slot| Slot { endpoint: slot.endpoint.frozen(), present: slot.present };
        Self {
            scenario: self.scenario.clone(),
            map: self.map.clone(),
            bridges: self.bridges.clone(),
            ports: self.ports.clone(),
            switches: self.switches.clone(),
            devices: self.devices.iter().map(slot).collect(),
            faults: self.faults.clone(),
            leaks: self.leaks.clone(),
            recorder: Recorder::default(),
            clock: MachineClock(Arc::new(AtomicU64::new(self.clock.now()))),
            changes: Changes::default(),
            sets: sets::Sets::default(),
            hardware: None,
        }
    }
}
