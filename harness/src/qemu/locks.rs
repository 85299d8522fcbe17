//! What locks are worth on hardware that is reached from outside: the attack, as the image makes it
//! inside, with its witness.
//!
//! Outside, an access takes a thousand times longer than in a guest, so right after a store only what
//! lies around it is compared; all that is locked is once the stores at a dword are over.
//!
//! **Invariant**: what nothing was locked in, or what was left out, has not held.

use cxl_attack::{Event, Locks, Stores, Watch, Witness, attack, attack_bits};
use cxl_firmware::mmio::{Clock, Mmio};
use cxl_firmware::platform::Ecam;
use cxl_firmware::topology::Tree;

use crate::report::{Field, LockAttack, name};
use cxl_model::scenario::Scenario;

/// What is watched: as many dwords as 290 locked decoders have.
pub type Watched = Locks<2048>;

/// Hardware that nobody else looks at.
struct Alone<'a, H>(&'a mut H);

impl<H: Mmio> Mmio for Alone<'_, H> {
    fn read(&mut self, address: u64) -> u32 {
        self.0.read(address)
    }

    fn write(&mut self, address: u64, value: u32) {
        self.0.write(address, value);
    }

    fn write_qword(&mut self, address: u64, value: u64) {
        self.0.write_qword(address, value);
    }
}

impl<H: Stores> Stores for Alone<'_, H> {
    fn store(&mut self, address: u64, bytes: u8, value: u64) -> bool {
        self.0.store(address, bytes, value)
    }
}

impl<H> Witness for Alone<'_, H> {
    fn hear(&mut self, _: Event) {}
}

/// Attacks everything in the topology; without `values` by single bits alone.
pub fn attacked(
    hw: &mut impl Stores,
    clock: &mut impl Clock,
    ecam: &[Ecam],
    tree: Tree<'_>,
    values: bool,
) -> Box<Watched> {
    let mut locks = Box::new(Watched::new());
    let mut hw = Alone(hw);
    let mut watch = Watch::new(&mut hw, ecam, tree, &mut locks).near();
    match values {
        true => attack(&mut watch, clock, ecam, tree),
        false => attack_bits(&mut watch, clock, ecam, tree),
    }
    locks
}

impl LockAttack {
    /// From what the witness saw.
    pub(crate) fn of(locks: &Watched, scenario: &Scenario, tree: Tree<'_>) -> Self {
        let fields = locks.changed().map(|(node, decoder, register, bits)| Field {
            component: name(scenario, tree, node),
            decoder,
            register,
            bits: format!("{bits:#010x}"),
        });
        let (bits, changed) = locks.bits();
        // A component's fields are set in below its name.
        let text = locks.text(tree).to_string();
        let lines: Vec<&str> = text.lines().collect();
        let of_field = |line: Option<&&str>| line.is_some_and(|line| line.starts_with("    "));
        let outside = lines
            .iter()
            .enumerate()
            .filter(|&(index, line)| !of_field(Some(line)) && !of_field(lines.get(index + 1)));
        Self {
            held: locks.watched() != 0 && locks.held(),
            bits,
            changed,
            fields: fields.collect(),
            outside: outside.map(|(_, line)| (*line).to_owned()).collect(),
            inside: Vec::new(),
        }
    }
}
