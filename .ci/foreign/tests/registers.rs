//! The foreign firmware on a built-in machine: what it leaves in the registers, as a snapshot.

use cxl_model::machine::Machine;
use cxl_model::scenario::Scenario;
use cxl_model::{image, mapping};
use foreign::claim;

fn machine(name: &str) -> Machine {
    Machine::new(&Scenario::built_in(name).expect("it is built in"))
}

/// A machine on which the foreign firmware has claimed 512 MiB on both levels.
fn claimed() -> Machine {
    let mut machine = machine("one-device");
    for name in ["mem0", "hb0"] {
        let place = machine.find(name).expect("the machine has it");
        let registers = machine.registers_of(place).expect("it has an address");
        assert!(claim(&mut machine, registers, 0x1_0000_0000, 0x2000_0000, 0));
    }
    machine
}

#[test]
fn decoders_are_committed_and_locked() {
    let machine = claimed();
    insta::assert_snapshot!(image::of(&machine, "mem0").expect("it has decoders"), @r"
    hdm decoders of a device, 1 of 4 committed
      capability        0x00401b02  4 decoders, selects on HPA 14:8, 3/6/12 ways, 16 ways, host-only coherent only
      global control    0x00000000  decoders disabled
    decoder 0
      base              0x0000000100000000
      last              0x000000011fffffff
      size              0x0000000020000000  512 MiB
      control           0x00001700  committed, locked
      ways              0x0  1-way
      granularity       0x0  256 B
      type              0x1  host-only coherent (HDM-H)
      dpa skip          0x0000000000000000  0 B
      dpa base          0x0000000000000000
      dpa last          0x000000001fffffff
      dpa size          0x0000000020000000  512 MiB
    decoder 1
      unused            all registers 0
    decoder 2
      unused            all registers 0
    decoder 3
      unused            all registers 0
    ");
}

/// A snapshot of the whole component shows what a decoder image does not.
#[test]
fn memory_enable_and_config_lock_were_forgotten() {
    let text = image::component(&claimed(), "mem0").expect("the machine has it");
    for line in ["  control           0x0002  IO_Enable\n", "  lock              0x0000\n"] {
        assert!(text.contains(line), "{text}");
    }
}

/// Committed is not yet in use: the models name what this firmware forgot.
#[test]
fn the_device_is_not_switched_on() {
    let machine = claimed();
    let fabric = machine.fabric();
    let mappings = mapping::mappings(&fabric);
    insta::assert_snapshot!(mapping::MappingsText(&fabric, &mappings), @r"
    window0: 1 GiB at 0x100000000, 1-way over UID 16
      trapped           0x0000000100000000  512 MiB: HDM Decoder Enable of mem0 is clear
      trapped           0x0000000120000000  512 MiB: no decoder of hb0 has the range
    ");
}

#[test]
fn a_size_below_256_mib_is_no_size() {
    let mut machine = machine("one-device");
    let bridge = machine.map().bridges[0].registers.base().0;
    // The hardware keeps bits 63:28 alone: this size is 0 to it.
    claim(&mut machine, bridge, 0x1_0000_0000, 0x0800_0000, 0);
    let text = image::of(&machine, "hb0").expect("it has decoders");
    assert!(text.contains("size              0x0000000000000000  0 B"), "{text}");
}
