//! Configuration space as pages of memory: what a guest reads there without an exit is what the
//! model would have answered, whatever was written, reset, pulled out or plugged in before.
//!
//! **Invariant**: the model's answer to a trapped read is the oracle, for every dword of every page
//! and for every function that has none.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use cxl_harness::guest::config::ConfigPages;
use cxl_harness::kvm::Slot;
use cxl_model::machine::Machine;
use cxl_model::scenario::{Scenario, builtins};
use proptest::prelude::*;
use vm_memory::{VolatileMemory, VolatileSlice};

const PAGE: u64 = 4096;
const ECAM: u64 = 0xC000_0000;
const BUS: u64 = 1 << 20;

fn builtin(name: &str) -> Scenario {
    Scenario::built_in(name).unwrap()
}

fn bytes(slot: &Slot) -> Vec<u8> {
    let slice: VolatileSlice<'_> =
        slot.memory.get_slice(slot.offset as usize, slot.size as usize).unwrap();
    let mut bytes = vec![0; slot.size as usize];
    slice.copy_to(&mut bytes);
    bytes
}

fn follow(pages: &mut ConfigPages, machine: &mut Machine) {
    pages.relocate(machine);
    pages.refresh(machine);
}

/// Holds every page against trapped reads, and looks for functions that have none.
fn check(pages: &ConfigPages, machine: &mut Machine) -> usize {
    let slots: Vec<_> = pages.slots().collect();
    for slot in &slots {
        assert!(slot.read_only);
        assert_eq!(slot.size, PAGE);
        for (at, found) in (slot.base..).step_by(4).zip(bytes(slot).chunks(4)) {
            let mut expected = [0; 4];
            machine.read_bytes(at, &mut expected);
            assert_eq!(found, expected, "{at:#x}");
        }
    }
    // Device 0 and 1 of each bus that a scenario here can have.
    for bus in 0x10..0x40 {
        for device in 0..2 {
            let at = ECAM + bus * BUS + device * 8 * PAGE;
            let mut id = [0; 4];
            machine.read_bytes(at, &mut id);
            let has_page = slots.iter().any(|slot| slot.base == at);
            assert_eq!(has_page, id != [0xFF; 4], "{at:#x}");
        }
    }
    slots.len()
}

#[test]
fn every_function_has_a_page() {
    // Ports, upstream ports, downstream ports and devices of the scenario files, counted by hand.
    for (name, functions) in [("one-device", 2), ("default", 8), ("switch", 6), ("four-bridges", 8)]
    {
        let mut machine = Machine::new(&builtin(name));
        let mut pages = ConfigPages::new(&machine);
        assert_eq!(pages.slots().count(), 0);
        follow(&mut pages, &mut machine);
        assert_eq!(check(&pages, &mut machine), functions, "{name}");
    }
}

#[test]
fn a_function_that_counts_its_reads_has_no_page() {
    let text = builtins().iter().find(|builtin| builtin.name == "one-device").unwrap().text;
    let fault = "\n[[fault]]\nat = \"mem0\"\nkind = \"all-ones-after\"\nafter = 100\n";
    let machine = Machine::new(&Scenario::parse(&format!("{text}{fault}"), "dying").unwrap());
    let mut pages = ConfigPages::new(&machine);
    pages.relocate(&machine);
    pages.refresh(&machine);
    assert_eq!(pages.slots().count(), 1, "the port's");
}

#[test]
fn nothing_has_a_page_while_accesses_are_recorded() {
    let mut machine = Machine::new(&builtin("default"));
    let mut pages = ConfigPages::new(&machine);
    follow(&mut pages, &mut machine);
    machine.recorder_mut().keep();
    follow(&mut pages, &mut machine);
    assert_eq!(pages.slots().count(), 0);
}

/// What may happen between two reads.
#[derive(Clone, Debug)]
enum Step {
    /// A write of this value to a dword of the function with this number.
    Write(usize, u16, u32),
    /// Bus numbers of a port: primary, secondary, subordinate.
    Buses(usize, u32),
    Remove(usize),
    Add(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..16, 0u16..0x100, any::<u32>()).prop_map(|(f, dword, v)| Step::Write(f, dword, v)),
        2 => (0usize..16, prop::collection::vec(0x10u32..0x18, 3))
            .prop_map(|(f, b)| Step::Buses(f, b.iter().rev().fold(0, |all, bus| all << 8 | bus))),
        1 => (0usize..4).prop_map(Step::Remove),
        1 => (0usize..4).prop_map(Step::Add),
    ]
}

proptest! {
    #[test]
    fn pages_follow_the_model(
        name in prop::sample::select(vec!["default", "switch", "type2"]),
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let mut machine = Machine::new(&builtin(name));
        let mut pages = ConfigPages::new(&machine);
        follow(&mut pages, &mut machine);
        let homes: Vec<u64> = pages.slots().map(|slot| slot.base).collect();
        for step in steps {
            let home = |f: usize| homes[f % homes.len()];
            match step {
                Step::Write(f, dword, value) => {
                    machine.write_bytes(home(f) + 4 * u64::from(dword), &value.to_le_bytes());
                }
                Step::Buses(f, value) => machine.write_bytes(home(f) + 0x18, &value.to_le_bytes()),
                Step::Remove(device) => drop(machine.hot_remove(device)),
                Step::Add(device) => drop(machine.hot_add(device)),
            }
            // As a guest does it: nothing is looked for again unless the machine says so.
            if machine.take_changes().relocate {
                pages.relocate(&machine);
            }
            pages.refresh(&machine);
            check(&pages, &mut machine);
        }
    }
}
