//! Firmware on a modelled machine, and what it left: registers as text, and where an address leads.
//!
//! **Invariant**: the code under test sees the machine through `Mmio` alone.

use cxl_model::Mmio;
use cxl_model::image;
use cxl_model::machine::Machine;
use cxl_model::mapping::{self, MappingsText};
use cxl_model::scenario::Scenario;

/// 256 MiB at 4 GiB, locked as it is committed.
fn claim(hw: &mut impl Mmio, decoder: u64) {
    hw.write(decoder + 0x04, 1);
    hw.write(decoder + 0x08, 0x1000_0000);
    hw.write(decoder + 0x10, 1 << 12 | 1 << 8 | 1 << 9);
}

fn main() -> Result<(), &'static str> {
    let scenario = Scenario::built_in("one-device").ok_or("no such machine")?;
    let mut machine = Machine::new(&scenario);
    for name in ["mem0", "hb0"] {
        let place = machine.find(name).ok_or("no such component")?;
        let registers = machine.registers_of(place).ok_or("no registers")?;
        claim(&mut machine, registers + 0x1138);
    }
    print!("{}", image::of(&machine, "hb0").ok_or("no decoders")?);
    let fabric = machine.fabric();
    print!("{}", MappingsText(&fabric, &mapping::mappings(&fabric)));
    Ok(())
}

#[test]
fn it_runs() {
    assert_eq!(main(), Ok(()));
}
