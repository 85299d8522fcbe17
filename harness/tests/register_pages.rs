//! Registers as pages of memory: what a guest reads there without an exit is what the model would have
//! answered, whatever was written, reset, pulled out or plugged in before.
//!
//! **Invariant**: the model's answer to a trapped read is the oracle, for every dword of every page
//! and for every function that has none.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use cxl_harness::guest::pages::RegisterPages;
use cxl_harness::kvm::Slot;
use cxl_model::device::Reset;
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

fn follow(pages: &mut RegisterPages, machine: &mut Machine) {
    pages.relocate(machine, true);
    pages.refresh(machine);
}

/// Whether a page is one of configuration space.
fn is_config(slot: &Slot) -> bool {
    (ECAM..ECAM + 0x100 * BUS).contains(&slot.base)
}

/// Holds every page against trapped reads, and looks for functions that have none. Pages of configuration
/// space, and others.
fn check(pages: &RegisterPages, machine: &mut Machine) -> [usize; 2] {
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
    let config = slots.iter().filter(|slot| is_config(slot)).count();
    [config, slots.len() - config]
}

#[test]
fn everything_that_answers_has_a_page() {
    // Ports, upstream ports, downstream ports and devices of the scenario files, counted by hand; then
    // bridges and these again, and mailboxes, which an accelerator has none of.
    for (name, functions, others) in [
        ("one-device", 2, 1 + 2 + 1),
        ("default", 8, 2 + 8 + 3),
        ("switch", 6, 1 + 6 + 2),
        ("four-bridges", 8, 4 + 8 + 4),
    ] {
        let mut machine = Machine::new(&builtin(name));
        let mut pages = RegisterPages::new(&machine);
        assert_eq!(pages.slots().count(), 0);
        follow(&mut pages, &mut machine);
        assert_eq!(check(&pages, &mut machine), [functions, others], "{name}");
        // Whoever does not list what it reads has pages of configuration space alone.
        pages.relocate(&machine, false);
        assert_eq!(check(&pages, &mut machine), [functions, 0], "{name}");
    }
}

#[test]
fn what_answers_by_how_often_it_was_asked_has_no_page() {
    let text = builtins().iter().find(|builtin| builtin.name == "one-device").unwrap().text;
    // Beside the bridge's and the port's two: none of the device, all but that of its decoders.
    let faults = [
        ("all-ones-after\"\nafter = 100", 3),
        ("commit-polls\"\ndecoder = 0\nafter = 3", 5),
        ("commit-never\"\ndecoder = 0", 5),
        ("lock-lost\"\ndecoder = 0\nafter = 2", 5),
        ("commit-error\"\ndecoder = 0", 6),
    ];
    for (fault, expected) in faults {
        let fault = format!("{text}\n[[fault]]\nat = \"mem0\"\nkind = \"{fault}\n");
        let machine = Machine::new(&Scenario::parse(&fault, "faulty").unwrap());
        let mut pages = RegisterPages::new(&machine);
        pages.relocate(&machine, true);
        pages.refresh(&machine);
        assert_eq!(pages.slots().count(), expected, "{fault}");
    }
}

#[test]
fn nothing_has_a_page_while_accesses_are_recorded() {
    let mut machine = Machine::new(&builtin("default"));
    let mut pages = RegisterPages::new(&machine);
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
    /// A write of this value to a dword of another page: of component registers or a mailbox.
    Register(usize, u16, u32),
    /// Bus numbers of a port: primary, secondary, subordinate.
    Buses(usize, u32),
    Remove(usize),
    Add(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..16, 0u16..0x100, any::<u32>()).prop_map(|(f, dword, v)| Step::Write(f, dword, v)),
        // The array, decoders and what is beside them; and a mailbox from its first register on.
        6 => (0usize..16, 0u16..0x1C0, any::<u32>())
            .prop_map(|(page, dword, v)| Step::Register(page, dword, v)),
        // Control, in any decoder: commits, and takes back.
        4 => (0usize..16, 0u16..4, 0u32..8)
            .prop_map(|(page, n, v)| Step::Register(page, (0x148 + 0x20 * n) / 4, v << 8)),
        2 => (0usize..16, prop::collection::vec(0x10u32..0x18, 3))
            .prop_map(|(f, b)| Step::Buses(f, b.iter().rev().fold(0, |all, bus| all << 8 | bus))),
        1 => (0usize..4).prop_map(Step::Remove),
        1 => (0usize..4).prop_map(Step::Add),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn pages_follow_the_model(
        name in prop::sample::select(vec!["default", "switch", "type2"]),
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let mut machine = Machine::new(&builtin(name));
        let mut pages = RegisterPages::new(&machine);
        follow(&mut pages, &mut machine);
        let (homes, others): (Vec<_>, Vec<_>) = pages.slots().partition(is_config);
        let homes: Vec<u64> = homes.iter().map(|slot| slot.base).collect();
        for step in steps {
            let home = |f: usize| homes[f % homes.len()];
            match step {
                Step::Write(f, dword, value) => {
                    machine.write_bytes(home(f) + 4 * u64::from(dword), &value.to_le_bytes());
                }
                Step::Register(page, dword, value) => {
                    let at = others[page % others.len()].base + 4 * u64::from(dword);
                    machine.write_bytes(at, &value.to_le_bytes());
                }
                Step::Buses(f, value) => machine.write_bytes(home(f) + 0x18, &value.to_le_bytes()),
                Step::Remove(device) => drop(machine.hot_remove(device)),
                Step::Add(device) => drop(machine.hot_add(device)),
            }
            // As a guest does it: nothing is looked for again unless the machine says so.
            if machine.take_changes().relocate {
                pages.relocate(&machine, true);
            }
            pages.refresh(&machine);
            check(&pages, &mut machine);
        }
    }
}

#[test]
fn a_reset_shows_in_pages() {
    let mut machine = Machine::new(&builtin("default"));
    let mut pages = RegisterPages::new(&machine);
    follow(&mut pages, &mut machine);
    let registers = machine.registers_of(machine.find("mem0").unwrap()).unwrap() + 0x1000;
    let slot = pages.slots().find(|slot| slot.base == registers).unwrap();
    // Decoder 0, base high.
    let base = || u32::from_le_bytes(bytes(&slot)[0x13C..0x140].try_into().unwrap());
    machine.write_bytes(registers + 0x13C, &7_u32.to_le_bytes());
    pages.refresh(&machine);
    assert_eq!(base(), 7);
    // It leaves BARs alone, and takes what no lock holds.
    machine.reset_device(0, Reset::Cxl);
    pages.refresh(&machine);
    assert_eq!(base(), 0);
    check(&pages, &mut machine);
}
