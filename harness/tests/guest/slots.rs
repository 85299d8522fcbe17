//! Memory slots as KVM takes them: unchanged ones cost nothing, and a range goes before another
//! takes its place.

use cxl_harness::guest::Guest;
use cxl_harness::kvm::{Bus, Call, Slot, SlotError, Vm};
use cxl_harness::mirror::Limits;
use cxl_model::backing::Backing;
use cxl_model::machine::Machine;
use cxl_model::scenario::{Action, ResetKind};
use cxl_model::trace::Target;
use libtest_mimic::Trial;
use vm_memory::VolatileMemory;

use crate::{claim, unlocked};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        claim("unchanged_slots_cost_no_call", unchanged),
        claim("slot_that_moves_onto_itself_is_removed_first", overlap),
        claim("slot_beyond_its_memory_is_refused_and_others_stay", beyond),
        claim("slots_survive_the_memory_of_their_maker", lifetime),
        claim("thousand_cycles_use_one_slot", cycles),
        claim("whatever_registers_say_no_call_fails_and_slots_hold_what_is_decoded", anything),
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
    let before = vm.slots().log().len();
    // KVM refuses a slot that overlaps another, so the other order would be an error.
    vm.remap(&[slot(&memory, GIB + 2 * MIB, 4 * MIB), stays]).unwrap();
    let (base, size) = (GIB + 2 * MIB, 4 * MIB);
    assert_eq!(vm.slots().log()[before..], [Call::Remove { base: GIB }, Call::Add { base, size }]);
}

fn beyond() {
    let (mut vm, memory) = (vm(), Backing::new(2 * MIB));
    let good = slot(&memory, GIB, 2 * MIB);
    vm.remap(std::slice::from_ref(&good)).unwrap();
    let bad = slot(&memory, 2 * GIB, 4 * MIB);
    let error = vm.remap(&[good.clone(), bad]).unwrap_err();
    let SlotError::OutsideMemory { base, size, have } = error else { panic!("{error}") };
    assert_eq!((base, size, have), (2 * GIB, 4 * MIB, 2 * MIB));
    assert!(vm.slots().mapped().eq([&good]));
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
    let available = vm.slots().available();
    for cycle in 0..1000 {
        let base = GIB + cycle % 3 * GIB;
        vm.remap(&[slot(&memory, base, 2 * MIB)]).unwrap();
        assert_eq!(vm.slots().available(), available - 1);
        assert_eq!(vm.slots().mapped().count(), 1);
        vm.remap(&[]).unwrap();
    }
    assert_eq!(vm.slots().available(), available);
    assert_eq!(vm.slots().log().len(), 2000);
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
    assert_eq!(vm.slots().log().last(), Some(&Call::Remove { base: gone.base }));
    // The same place with other memory behind it: two calls, in that order.
    slots[17].offset = gone.offset;
    assert_eq!(vm.remap(&slots).unwrap(), 2);
    let (base, size) = (slots[17].base, slots[17].size);
    let log = vm.slots().log();
    assert_eq!(log[log.len() - 2..], [Call::Remove { base }, Call::Add { base, size }]);
    assert_eq!(vm.remap(&slots).unwrap(), 0);
}

/// Numbers that repeat with their seed (Marsaglia's xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.next() as usize % all.len()]
    }
}

/// Any register of Command, BARs, bus numbers, forwarding windows and decoders takes any value: BARs
/// over RAM, windows, ECAM and each other, decoders over each other; devices come, go and are reset.
fn anything() {
    let mut seen = 0;
    for name in ["default", "switch-interleave", "four-way", "hot-plug", "type2-db"] {
        // More steps and other seeds find nothing else: 1,500 with three each took two minutes.
        let (memory, bars) = random_writes(name, 1);
        assert!(memory > 100, "{name}: {memory} ranges of memory looked at");
        seen += bars;
    }
    assert!(seen > 100, "{seen} ranges behind BARs looked at");
}

/// How many ranges of CXL memory and behind BARs were looked at.
fn random_writes(name: &str, seed: u64) -> (usize, usize) {
    let mut numbers = Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut machine = Machine::new(&unlocked(name));
    cxl_harness::run::direct(&mut machine);
    let map = machine.map().clone();
    let devices = machine.scenario().devices.len();
    let ram: Vec<_> = map.ram.iter().map(|span| (span.base().0, span.size())).collect();
    let mut vm = Vm::new(&ram, 46).unwrap();
    let slots = vm.slots().available();
    let limits = Limits { enabled: true, bytes: 64 * GIB, slots, address_bits: vm.address_bits() };
    let mut guest = Guest::new(&mut machine, vm.ram().clone(), limits, |_| {});
    vm.follow(&mut guest).unwrap();
    // Decoders, and what is before and behind them, in every block that there is.
    let blocks = map.bridges.iter().map(|bridge| bridge.registers.base().0);
    let bars = (0..24).map(|bus| 0x8000_0000 + (bus << 21));
    let bars = map
        .bridges
        .iter()
        .flat_map(|bridge| {
            let base = bridge.bars.base().0;
            (0..8).map(move |bus| base + (bus << 21))
        })
        .chain(bars);
    let blocks: Vec<u64> = blocks.chain(bars).collect();
    let ecam = map.ecam[0].1.base().0;
    let functions: Vec<u64> = map
        .ports
        .iter()
        .flat_map(|port| {
            let own = ecam + (u64::from(port.bus) << 20) + (u64::from(port.slot) << 15);
            [own, ecam + (u64::from(port.secondary) << 20)]
        })
        .collect();
    let places = [0, 0x10_0000, 0x8000_0000, 0x8220_0000, 0xC000_0000, 0xE010_0000, 0xFEE0_0000];
    let (mut memory, mut bars) = (0, 0);
    for step in 0..300 {
        let what = format!("{name}, seed {seed}, step {step}");
        match numbers.next() % 64 {
            0 => {
                let device = numbers.next() as usize % devices;
                let kinds = [ResetKind::Cxl, ResetKind::Flr, ResetKind::Hot, ResetKind::Warm];
                let kind = numbers.of(&kinds);
                let action = numbers.of(&[
                    Action::HotAdd { device },
                    Action::HotRemove { device },
                    Action::Reset { kind, device: Some(device) },
                ]);
                let _ = guest.machine.act(action);
            }
            1..4 => {
                // The firmware again, so that there is something to take away.
                let _ = guest.machine.act(Action::Reset { kind: ResetKind::Cold, device: None });
                for device in 0..devices {
                    let _ = guest.machine.hot_add(device);
                }
                cxl_harness::run::direct(guest.machine);
            }
            4..24 => {
                let at =
                    numbers.of(&functions) + numbers.of(&[4, 0x10, 0x14, 0x18, 0x20, 0x24, 0x3C]);
                let mut now = [0; 4];
                guest.read(at, &mut now);
                let now = u32::from_le_bytes(now);
                let flipped = now ^ 1 << (numbers.next() % 32);
                let (place, any) = (numbers.of(&places), numbers.next() as u32);
                let value = numbers.of(&[flipped, place, any, 6, 1]);
                guest.write(at, &value.to_le_bytes());
            }
            _ => {
                let at = numbers.of(&blocks) + 0x1100 + numbers.next() % 0x100 / 4 * 4;
                let mut now = [0; 4];
                guest.read(at, &mut now);
                let flipped = u32::from_le_bytes(now) ^ 1 << (numbers.next() % 32);
                guest.write(at, &flipped.to_le_bytes());
            }
        }
        vm.follow(&mut guest).unwrap_or_else(|error| panic!("{what}: {error}"));
        let told: Vec<_> = vm.slots().mapped().map(|slot| (slot.base, slot.size)).collect();
        let mut end = 0;
        for (base, size) in &told {
            assert!(*base >= end, "{what}: {told:x?}");
            end = base + size;
            let ram = map.ram.iter().any(|ram| *base < ram.end().0 && ram.base().0 < end);
            assert!(!ram, "{what}: {base:#x} lies over RAM");
        }
        // What the guest finds in a slot is what the machine decodes there.
        for slot in vm.slots().mapped() {
            let at = numbers.next() % (slot.size / 8) * 8;
            let place = slot.memory.as_volatile_slice();
            let place = place.subslice((slot.offset + at) as usize, 8).unwrap();
            if !slot.read_only {
                place.copy_from(&numbers.next().to_le_bytes());
            }
            let (mut direct, mut decoded) = ([0; 8], [0; 8]);
            place.copy_to(&mut direct);
            match guest.machine.target(slot.base) == Some(Target::Window) {
                true => {
                    guest.machine.load(slot.base + at, &mut decoded);
                    memory += 1;
                }
                false => {
                    bars += usize::from(!slot.read_only);
                    let (low, high) = decoded.split_at_mut(4);
                    guest.machine.read_bytes(slot.base + at, low);
                    guest.machine.read_bytes(slot.base + at + 4, high);
                }
            }
            assert_eq!(direct, decoded, "{what}: at {:#x}", slot.base + at);
        }
    }
    (memory, bars)
}
