//! The lock-down attack, from inside.
//!
//! `attack` judges nothing: every write is announced, and whoever watches the machine from outside
//! says what became of it. `attack-judged` is for machines that nobody watches: what locks freeze is
//! compared after every write, and the console says whether it held. `attack-bits` is that part of it
//! which flips single bits, for machines that whole values end.
//!
//! **Invariant**: the attack is the same one, whoever judges it.

use core::fmt::{self, Write};

use cxl_attack::{Event, Locks, NamedMode, Stores, Watch, Witness};
use cxl_firmware::mmio::Mmio;
use cxl_firmware::platform::Platform;
use cxl_image::doorbell::Call;

use super::Checks;
use crate::hw::Hardware;
use crate::port::Console;
use crate::{Room, port};

/// What is watched: as many dwords as 290 locked decoders have.
static mut LOCKS: Locks<2048> = Locks::new();

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

impl Stores for Watched<'_> {
    fn store(&mut self, address: u64, bytes: u8, value: u64) -> bool {
        self.0.store(address, bytes, value)
    }
}

impl Witness for Watched<'_> {
    fn hear(&mut self, event: Event) {
        port::call(Call::Attack(event));
    }
}

/// Attacks everything that discovery found, in these modes too.
pub(super) fn attack(hw: &mut Hardware, room: &Room, platform: &Platform<'_>, modes: &[NamedMode]) {
    let mut clock = hw.clock();
    let (ecam, tree) = (platform.ecam, room.topology.tree());
    cxl_attack::attack_in(&mut Watched(hw), &mut clock, ecam, tree, modes);
}

/// The same, judged by what locks freeze.
pub(super) fn judged(
    hw: &mut Hardware,
    room: &Room,
    platform: &Platform<'_>,
    modes: &[NamedMode],
    checks: &mut Checks,
) {
    judged_with(hw, room, platform, checks, Some(modes));
}

/// The same by single bits alone, for machines that whole values end.
pub(super) fn bits(hw: &mut Hardware, room: &Room, platform: &Platform<'_>, checks: &mut Checks) {
    judged_with(hw, room, platform, checks, None);
}

fn judged_with(
    hw: &mut Hardware,
    room: &Room,
    platform: &Platform<'_>,
    checks: &mut Checks,
    modes: Option<&[NamedMode]>,
) {
    let mut clock = hw.clock();
    let (ecam, tree) = (platform.ecam, room.topology.tree());
    let locks = &raw mut LOCKS;
    // SAFETY: one vCPU, and nothing else names the static; a second run goes on with the first.
    let locks = unsafe { &mut *locks };
    let mut hw = Watched(hw);
    let mut watch = Watch::new(&mut hw, ecam, tree, locks);
    match modes {
        Some(modes) => cxl_attack::attack_in(&mut watch, &mut clock, ecam, tree, modes),
        None => cxl_attack::attack_bits(&mut watch, &mut clock, ecam, tree),
    }
    // A console that is gone has nobody to tell.
    let _ = write!(Topic { starts: true }, "{}", locks.text(tree));
    if !locks.held() {
        checks.refuse(format_args!("a lock gave way"));
    }
}

/// The console, with the topic in front of each line.
struct Topic {
    starts: bool,
}

impl Write for Topic {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            if self.starts {
                Console.write_str("attack: ")?;
            }
            Console.write_str(part)?;
            self.starts = part.ends_with('\n');
        }
        Ok(())
    }
}
