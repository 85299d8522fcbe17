//! What becomes a memory slot, without KVM: plain memory behind BARs follows the BAR alone, CXL
//! memory follows the decoders alone, and of two that want an address one wins.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../model/tests/rig/mod.rs"]
mod rig;

use cxl_harness::kvm::Slot;
use cxl_harness::mirror::{Limits, Mirror, Unmirrored, bar_slots};
use cxl_model::machine::Machine;
use cxl_regs::mmio::Mmio;
use rig::*;

const LIMITS: Limits = Limits { enabled: true, bytes: u64::MAX, slots: 64, address_bits: 46 };

/// Two accelerators below one bridge, and a window.
const ACCELERATORS: &str = r#"
[[bridge]]
name = "hb0"
uid = 16
[[port]]
name = "rp0"
below = "hb0"
number = 5
[[port]]
name = "rp1"
below = "hb0"
number = 6
[[device]]
name = "acc0"
below = "rp0"
kind = "type2"
volatile = "512MiB"
[[device]]
name = "acc1"
below = "rp1"
kind = "type2"
volatile = "256MiB"
[[window]]
targets = ["hb0"]
base = "0x100000000"
size = "4GiB"
"#;

/// The accelerators with acc0's memory committed at 4 GiB.
fn accelerators(more: &str) -> Machine {
    let mut machine = machine(&format!("{ACCELERATORS}{more}"));
    commit(&mut machine, "acc0", 1 << 32);
    machine
}

fn commit(machine: &mut Machine, device: &str, base: u64) {
    program(machine, device, 0, (base, 2 * UNIT, 0), COMMIT);
    enable(machine, device);
    program(machine, "hb0", 0, (base, 2 * UNIT, 5), COMMIT);
    let found = dwords(machine, "hb0", 0)[4];
    assert_eq!(found & COMMITTED, COMMITTED, "{found:#x}");
}

fn bars(machine: &Machine) -> Vec<(u64, u64)> {
    ranges(&bar_slots(machine, &LIMITS, 0))
}

fn ranges(slots: &[Slot]) -> Vec<(u64, u64)> {
    slots.iter().map(|slot| (slot.base, slot.size)).collect()
}

fn mirror(machine: &Machine) -> Mirror {
    Mirror::of(machine, &LIMITS)
}

const COMMAND: u64 = 0x04;
const BAR0: u64 = 0x10;
const MEMORY_WINDOW: u64 = 0x20;
/// The vendor area in the component block.
const VENDOR: u64 = 0x2000;
const VENDOR_SIZE: u64 = 0xC000;

#[test]
fn vendor_pages_follow_the_bar_and_cxl_memory_does_not() {
    let mut machine = accelerators("");
    let (acc0, acc1) = (component(&machine, "acc0"), component(&machine, "acc1"));
    let (port, function) = (config(&machine, "rp0"), config(&machine, "acc0"));
    let (here, other) = ((acc0 + VENDOR, VENDOR_SIZE), (acc1 + VENDOR, VENDOR_SIZE));
    let moved = (here.0 + 0x2_0000, VENDOR_SIZE);
    let window = machine.read(port + MEMORY_WINDOW);
    let before = mirror(&machine);
    assert_eq!(ranges(&before.slots), [(1 << 32, 2 * UNIT)]);
    let _ = machine.take_changes();
    for (what, address, value, expected) in [
        ("as assigned", function + COMMAND, 0b110, vec![here, other]),
        ("Memory Space off", function + COMMAND, 0b100, vec![other]),
        ("and on", function + COMMAND, 0b110, vec![here, other]),
        ("BAR moved", function + BAR0, acc0 as u32 + 0x2_0000, vec![moved, other]),
        ("BAR behind its port's window", function + BAR0, acc1 as u32, vec![other]),
        ("BAR nowhere", function + BAR0, 0, vec![other]),
        ("BAR in RAM", function + BAR0, 0x10_0000, vec![other]),
        ("BAR back", function + BAR0, acc0 as u32, vec![here, other]),
        ("port's window closed", port + MEMORY_WINDOW, 0x0000_FFF0, vec![other]),
        ("and open", port + MEMORY_WINDOW, window, vec![here, other]),
        ("port's Memory Space off", port + COMMAND, 0b100, vec![other]),
    ] {
        machine.write(address, value);
        assert_eq!(bars(&machine), expected, "{what}");
        assert!(!machine.take_changes().remap, "{what}");
        assert_eq!(mirror(&machine).slots, before.slots, "{what}");
    }
}

#[test]
fn of_two_bars_at_one_address_the_first_in_order_of_ports_wins() {
    let mut machine = accelerators("");
    let (acc0, acc1) = (component(&machine, "acc0"), component(&machine, "acc1"));
    let (port, function) = (config(&machine, "rp1"), config(&machine, "acc1"));
    // rp1 forwards both ranges, and acc1's BAR lies on acc0's.
    let (first, last) = (acc0 >> 16 & 0xFFF0, acc1 >> 16 & 0xFFF0);
    machine.write(port + MEMORY_WINDOW, (last << 16 | first) as u32);
    machine.write(function + BAR0, acc0 as u32);
    machine.write(acc0 + VENDOR, 0x1111_1111);
    let slots = bar_slots(&machine, &LIMITS, 0);
    assert_eq!(ranges(&slots), [(acc0 + VENDOR, VENDOR_SIZE)]);
    let owner = |device: usize| {
        let block = &machine.endpoint(device).unwrap().component;
        std::sync::Arc::ptr_eq(block.memory().region().unwrap(), &slots[0].memory)
    };
    assert!(owner(0) && !owner(1));
    // Without the first, the second is there.
    machine.write(config(&machine, "acc0") + COMMAND, 0b100);
    let slots = bar_slots(&machine, &LIMITS, 0);
    assert_eq!(ranges(&slots), [(acc0 + VENDOR, VENDOR_SIZE)]);
    assert_eq!(machine.read(acc0 + VENDOR), 0);
}

#[test]
fn a_window_wins_over_a_bar_page_by_page() {
    let plain = accelerators("");
    let at = component(&plain, "acc0") + VENDOR;
    // In the middle of the vendor area: a page, then part of one.
    for (base, size, expected) in [
        (at + 0x3000, 0x1000, vec![(at, 0x3000), (at + 0x4000, VENDOR_SIZE - 0x4000)]),
        (at + 0x3800, 0x100, vec![(at, 0x3000), (at + 0x4000, VENDOR_SIZE - 0x4000)]),
        (at - 0x2000 + 0xE000, 0x2000, vec![(at, VENDOR_SIZE)]),
        (at, 0xC000, vec![]),
    ] {
        let more = format!("[[window]]\ntargets = [\"hb0\"]\nbase = {base}\nsize = {size}\n");
        let machine = accelerators(&more);
        let slots: Vec<_> =
            bars(&machine).into_iter().filter(|slot| slot.0 < at + 0x10000).collect();
        assert_eq!(slots, expected, "{base:#x}");
        assert_eq!(ranges(&mirror(&machine).slots), [(1 << 32, 2 * UNIT)]);
    }
}

#[test]
fn what_lies_fixed_wins_over_a_window() {
    // RAM goes on at 4 GiB, where the window begins.
    let text = ACCELERATORS.replace("[[bridge]]", "[platform]\nmemory = \"3GiB\"\n[[bridge]]");
    let mut ram = machine(&text);
    commit(&mut ram, "acc0", 1 << 32);
    // Windows over ECAM, over the bridges' registers, and over what belongs to the chip set.
    let below = |base: u64| {
        let mut machine = machine(&ACCELERATORS.replace("0x100000000", &format!("{base:#x}")));
        commit(&mut machine, "acc0", base);
        machine
    };
    for (what, machine) in [
        ("RAM", ram),
        ("ECAM", below(0xC000_0000)),
        ("bridges", below(0xE000_0000)),
        ("chip set", below(0xF000_0000)),
    ] {
        let mirror = mirror(&machine);
        assert_eq!(mirror.slots, [], "{what}");
        assert_eq!(mirror.unmirrored, [(0, Unmirrored::Overlapped)], "{what}");
    }
    // Behind RAM the same window is mirrored.
    let mut behind = machine(&text);
    commit(&mut behind, "acc0", 0x1_4000_0000);
    assert_eq!(ranges(&mirror(&behind).slots), [(0x1_4000_0000, 2 * UNIT)]);
}

#[test]
fn a_mapping_cut_inside_a_page_is_mirrored_by_whole_pages() {
    let window = |base: u64, size: u64| {
        format!("[[window]]\ntargets = [\"hb0\"]\nbase = {base}\nsize = {size}\n")
    };
    let base = 1u64 << 32;
    let machine = accelerators(&window(base + 0x5800, 0x100));
    let mirror = mirror(&machine);
    let rest = (base + 0x6000, 2 * UNIT - 0x6000);
    assert_eq!(ranges(&mirror.slots), [(base, 0x5000), rest]);
    let offsets: Vec<u64> = mirror.slots.iter().map(|slot| slot.offset).collect();
    assert_eq!(offsets, [0, 0x6000]);
    // Between two such windows no page is left.
    let two = [window(base + 0x800, 0x100), window(base + 0xA00, 0x100)].concat();
    let mirror = Mirror::of(&accelerators(&two), &LIMITS);
    let without: Vec<_> = mirror.unmirrored.iter().map(|(_, why)| *why).collect();
    assert_eq!(without, [Unmirrored::NoPage, Unmirrored::NoPage]);
}

#[test]
fn cxl_memory_has_the_first_choice_of_slots() {
    let machine = accelerators("");
    let one = Limits { slots: 1, ..LIMITS };
    let mirror = Mirror::of(&machine, &one);
    assert_eq!(mirror.slots.len(), 1);
    assert_eq!(bar_slots(&machine, &one, mirror.slots.len()), []);
    let two = Limits { slots: 2, ..LIMITS };
    assert_eq!(bar_slots(&machine, &two, 1).len(), 1);
    let off = Limits { enabled: false, ..LIMITS };
    assert_eq!((Mirror::of(&machine, &off).slots, bar_slots(&machine, &off, 0)), (vec![], vec![]));
}
