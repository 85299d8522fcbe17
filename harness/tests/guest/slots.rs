//! Memory slots as KVM takes them: unchanged ones cost nothing, and a range goes before another
//! takes its place.

use cxl_harness::backing::Backing;
use cxl_harness::kvm::{Call, Slot, SlotError, Vm};
use libtest_mimic::Trial;

use crate::claim;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        claim("unchanged_slots_cost_no_call", unchanged),
        claim("slot_that_moves_onto_itself_is_removed_first", overlap),
        claim("slot_beyond_its_memory_is_refused_and_others_stay", beyond),
        claim("slots_survive_the_memory_of_their_maker", lifetime),
        claim("thousand_cycles_use_one_slot", cycles),
        claim("one_change_beside_ten_thousand_ranges_is_one_call", crowd),
    ]
}

fn vm() -> Vm {
    Vm::new(&[(0, 16 * MIB)], 46).unwrap()
}

fn slot(memory: &Backing, base: u64, size: u64) -> Slot {
    let memory = memory.region().unwrap().clone();
    Slot { base, size, memory, offset: 0, read_only: false }
}

fn unchanged() {
    let (mut vm, memory) = (vm(), Backing::new(4 * MIB));
    let slots = [slot(&memory, GIB, 2 * MIB), slot(&memory, 2 * GIB, 4 * MIB)];
    assert_eq!(vm.remap(&slots).unwrap(), 2);
    assert_eq!(vm.remap(&slots).unwrap(), 0);
    let [first, second] = slots;
    assert_eq!(vm.remap(&[second, first]).unwrap(), 0, "order means nothing");
}

fn overlap() {
    let (mut vm, memory) = (vm(), Backing::new(4 * MIB));
    let stays = slot(&memory, 2 * GIB, 4 * MIB);
    vm.remap(&[slot(&memory, GIB, 4 * MIB), stays.clone()]).unwrap();
    let before = vm.slots.log().len();
    // KVM refuses a slot that overlaps another, so the other order would be an error.
    vm.remap(&[slot(&memory, GIB + 2 * MIB, 4 * MIB), stays]).unwrap();
    let (base, size) = (GIB + 2 * MIB, 4 * MIB);
    assert_eq!(vm.slots.log()[before..], [Call::Remove { base: GIB }, Call::Add { base, size }]);
}

fn beyond() {
    let (mut vm, memory) = (vm(), Backing::new(2 * MIB));
    let good = slot(&memory, GIB, 2 * MIB);
    vm.remap(std::slice::from_ref(&good)).unwrap();
    let bad = slot(&memory, 2 * GIB, 4 * MIB);
    let error = vm.remap(&[good.clone(), bad]).unwrap_err();
    let SlotError::OutsideMemory { base, size, have } = error else { panic!("{error}") };
    assert_eq!((base, size, have), (2 * GIB, 4 * MIB, 2 * MIB));
    assert!(vm.slots.mapped().eq([&good]));
    assert_eq!(vm.remap(&[good]).unwrap(), 0);
}

fn lifetime() {
    let mut vm = vm();
    let memory = Backing::new(2 * MIB);
    let region = std::sync::Arc::downgrade(memory.region().unwrap());
    vm.remap(&[slot(&memory, GIB, 2 * MIB)]).unwrap();
    drop(memory);
    assert!(region.upgrade().is_some(), "the slot keeps it");
    vm.remap(&[]).unwrap();
    assert!(region.upgrade().is_none());
}

fn cycles() {
    let (mut vm, memory) = (vm(), Backing::new(2 * MIB));
    let available = vm.slots.available();
    for cycle in 0..1000 {
        let base = GIB + cycle % 3 * GIB;
        vm.remap(&[slot(&memory, base, 2 * MIB)]).unwrap();
        assert_eq!(vm.slots.available(), available - 1);
        assert_eq!(vm.slots.mapped().count(), 1);
        vm.remap(&[]).unwrap();
    }
    assert_eq!(vm.slots.available(), available);
    assert_eq!(vm.slots.log().len(), 2000);
}

fn crowd() {
    const COUNT: u64 = 10_000;
    let (mut vm, memory) = (vm(), Backing::new(4096 * (COUNT + 1)));
    let page = |index: u64| Slot {
        base: GIB + 8192 * index,
        size: 4096,
        memory: memory.region().unwrap().clone(),
        offset: 4096 * index,
        read_only: false,
    };
    let mut slots: Vec<Slot> = (0..COUNT).map(page).collect();
    assert_eq!(vm.remap(&slots).unwrap() as u64, COUNT);
    slots.push(page(COUNT));
    assert_eq!(vm.remap(&slots).unwrap(), 1);
    let gone = slots.remove(4711);
    assert_eq!(vm.remap(&slots).unwrap(), 1);
    assert_eq!(vm.slots.log().last(), Some(&Call::Remove { base: gone.base }));
    // The same place with other memory behind it: two calls, in that order.
    slots[17].offset = gone.offset;
    assert_eq!(vm.remap(&slots).unwrap(), 2);
    let (base, size) = (slots[17].base, slots[17].size);
    let log = vm.slots.log();
    assert_eq!(log[log.len() - 2..], [Call::Remove { base }, Call::Add { base, size }]);
    assert_eq!(vm.remap(&slots).unwrap(), 0);
}
