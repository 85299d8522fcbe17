//! The lock-down attack, from inside.
//!
//! **Invariant**: nothing is judged here. Every write is announced, and whoever watches the machine
//! from outside says what became of it.

use cxl_firmware::attack::{self, Event, Witness};
use cxl_firmware::doorbell::Call;
use cxl_firmware::mmio::Mmio;
use cxl_firmware::platform::Platform;

use crate::hw::Hardware;
use crate::{Room, port};

/// The hardware, and a doorbell beside it.
struct Watched<'a>(&'a mut Hardware);

impl Mmio for Watched<'_> {
    fn read(&mut self, address: u64) -> u32 {
        self.0.read(address)
    }

    fn write(&mut self, address: u64, value: u32) {
        self.0.write(address, value);
    }
}

impl Witness for Watched<'_> {
    fn hear(&mut self, event: Event) {
        port::call(Call::Attack(event));
    }
}

/// Attacks everything that discovery found.
pub(super) fn attack(hw: &mut Hardware, room: &Room, platform: &Platform<'_>) {
    let mut clock = hw.clock();
    attack::attack(&mut Watched(hw), &mut clock, platform.ecam, room.topology.tree());
}
