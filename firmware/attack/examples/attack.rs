//! What it takes to attack the locks of a machine that nobody watches from outside: registers, a clock,
//! and what discovery found.
//!
//! **Invariant**: the machine here has nothing on it; with yours in its place this is all that changes.

use cxl_attack::{Event, Locks, Stores, Watch, Witness, attack};
use cxl_firmware::mmio::{Clock, Mmio};
use cxl_firmware::topology::Tree;

/// Where nothing answers.
struct Empty;

impl Mmio for Empty {
    fn read(&mut self, _: u64) -> u32 {
        u32::MAX
    }
    fn write(&mut self, _: u64, _: u32) {}
}

// Dwords alone: `store` can be given the machine's other widths.
impl Stores for Empty {}

impl Witness for Empty {
    fn hear(&mut self, event: Event) {
        println!("{event:?}");
    }
}

/// Counts its own calls.
struct Calls(u64);

impl Clock for Calls {
    fn microseconds(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

fn main() {
    let (mut hw, tree) = (Empty, Tree(&[]));
    let mut locks = Box::new(Locks::<64>::new());
    attack(&mut Watch::new(&mut hw, &[], tree, &mut *locks), &mut Calls(0), &[], tree);
    println!("every locked bit kept its value: {}", locks.held());
}

#[test]
fn it_runs() {
    main();
}
