//! Transfers by a device, without KVM: before a commit, after it with and without slots, in parallel,
//! and where nothing decodes.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../model/tests/rig/mod.rs"]
mod rig;

use cxl_harness::dma::{Class, DmaError, Entry, Memory, Moved, Transfer, Way};
use cxl_harness::kvm::Slot;
use cxl_harness::mirror::{Limits, Mirror, bar_slots};
use cxl_model::machine::Machine;
use cxl_model::mapping::Reason;
use cxl_regs::Dpa;
use cxl_regs::mmio::Mmio;
use rig::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const WINDOW: u64 = 1 << 32;
const PAGE: u64 = 4096;
const KIB_64: u64 = 64 << 10;
const ON: Limits = Limits { enabled: true, bytes: u64::MAX, slots: 64, address_bits: 46 };
const OFF: Limits = Limits { enabled: false, ..ON };

/// A machine beside 16 MiB of RAM that holds a pattern.
struct Bench {
    ram: GuestMemoryMmap,
    machine: Machine,
    limits: Limits,
    mirror: Mirror,
    bar_slots: Vec<Slot>,
}

impl Bench {
    fn new(machine: Machine, limits: Limits) -> Self {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
        let words: Vec<u8> =
            (0..2 * KIB_64 / 8).flat_map(|word: u64| (!word).to_le_bytes()).collect();
        ram.write_slice(&words, GuestAddress(0)).unwrap();
        let mut bench =
            Self { ram, machine, limits, mirror: Mirror::default(), bar_slots: Vec::new() };
        bench.follow();
        bench
    }

    fn follow(&mut self) {
        self.mirror = Mirror::of(&self.machine, &self.limits);
        self.bar_slots = bar_slots(&self.machine, &self.limits, self.mirror.slots.len());
    }

    fn memory(&mut self) -> Memory<'_> {
        let Self { ram, machine, mirror, bar_slots, .. } = self;
        Memory { ram, machine, mirror, bar_slots }
    }

    fn media(&self, dpa: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0xAA; length as usize];
        assert!(self.machine.endpoint(0).unwrap().media.read(Dpa(dpa), &mut bytes));
        bytes
    }

    fn ram_bytes(&self, address: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; length as usize];
        self.ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }
}

/// A machine with its device's volatile memory committed at the start of the window.
fn committed(text: &str) -> Machine {
    let mut machine = machine(text);
    program(&mut machine, "mem0", 0, (WINDOW, UNIT, 0), HOST_ONLY | COMMIT);
    enable(&mut machine, "mem0");
    program(&mut machine, "hb0", 0, (WINDOW, UNIT, 5), HOST_ONLY | COMMIT);
    machine
}

/// 64 KiB of RAM into the window, page by page in reverse.
fn scatter() -> Vec<Entry> {
    let page = |n| Entry { from: n * PAGE, to: WINDOW + (15 - n) * PAGE, length: PAGE };
    (0..16).map(page).collect()
}

fn finish(transfer: &mut Transfer, bench: &mut Bench) -> Result<Moved, DmaError> {
    while !transfer.step(&mut bench.memory(), u64::MAX)? {}
    Ok(transfer.moved())
}

#[test]
fn a_scatter_list_of_64_kib_fails_by_name_before_commit_and_moves_the_same_bytes_after() {
    let mut before = Bench::new(machine(SMALL), ON);
    let error = finish(&mut Transfer::new(scatter()), &mut before).unwrap_err();
    let DmaError::NothingDecodes { address, reason: Some(reason) } = error else {
        panic!("{error}");
    };
    assert_eq!((address, reason.name()), (WINDOW + 15 * PAGE, "not-covered"));
    assert_eq!(before.media(0, KIB_64), vec![0; KIB_64 as usize]);

    let expected: Vec<u8> =
        (0..16).rev().flat_map(|page| before.ram_bytes(page * PAGE, PAGE)).collect();
    for (limits, moved) in
        [(ON, Moved { direct: KIB_64, bounced: 0 }), (OFF, Moved { direct: 0, bounced: KIB_64 })]
    {
        let mut bench = Bench::new(committed(SMALL), limits);
        assert_eq!(finish(&mut Transfer::new(scatter()), &mut bench), Ok(moved));
        assert_eq!(bench.media(0, KIB_64), expected);
    }
}

#[test]
fn two_transfers_in_flight_do_not_wait_for_each_other() {
    for limits in [ON, OFF] {
        let mut bench = Bench::new(committed(SMALL), limits);
        // The second reads what the first writes: it sees each page as it was when it came there.
        let mut first = Transfer::new(vec![Entry { from: 0, to: WINDOW, length: KIB_64 }]);
        let mut second = Transfer::new(vec![Entry { from: WINDOW, to: 0x10_0000, length: KIB_64 }]);
        for page in 1..=16u64 {
            let ends = Ok(page == 16);
            assert_eq!(first.step(&mut bench.memory(), PAGE), ends, "{page}");
            assert_eq!(second.step(&mut bench.memory(), PAGE), ends, "{page}");
            assert_eq!(first.moved(), second.moved());
        }
        assert_eq!(bench.ram_bytes(0x10_0000, KIB_64), bench.ram_bytes(0, KIB_64));
        // The other way round it comes too early for all of it.
        let mut bench = Bench::new(committed(SMALL), limits);
        let mut first = Transfer::new(vec![Entry { from: 0, to: WINDOW, length: KIB_64 }]);
        let mut second = Transfer::new(vec![Entry { from: WINDOW, to: 0x10_0000, length: KIB_64 }]);
        while !second.step(&mut bench.memory(), PAGE).unwrap() {
            first.step(&mut bench.memory(), PAGE).unwrap();
        }
        assert_eq!(bench.ram_bytes(0x10_0000, KIB_64), vec![0; KIB_64 as usize]);
    }
}

/// Class, direct or not, and length of each piece.
fn pieces(bench: &mut Bench, at: u64, length: u64) -> Result<Vec<(Class, bool, u64)>, DmaError> {
    let pieces = bench.memory().translate(at, length)?;
    let mut next = at;
    let summary = pieces.iter().map(|piece| {
        assert_eq!(piece.address, next);
        next += piece.length;
        (piece.class, matches!(piece.way, Way::Direct(_)), piece.length)
    });
    Ok(summary.collect())
}

#[test]
fn a_range_of_any_length_is_one_piece_if_it_is_one_thing() {
    use Class::{DeviceMemory, Ram};
    let mut on = Bench::new(committed(SMALL), ON);
    let mut off = Bench::new(committed(SMALL), OFF);
    assert_eq!(pieces(&mut on, 0, 16 << 20), Ok(vec![(Ram, true, 16 << 20)]));
    assert_eq!(pieces(&mut on, WINDOW, UNIT), Ok(vec![(DeviceMemory, true, UNIT)]));
    assert_eq!(pieces(&mut off, WINDOW, UNIT), Ok(vec![(DeviceMemory, false, UNIT)]));
    assert_eq!(pieces(&mut on, WINDOW + 7, 0), Ok(vec![]));

    // A window that must not hold this memory: nothing is proved, and it decodes all the same.
    let text = format!("{SMALL}restrictions = [\"host-only\", \"persistent\"]\n");
    let mut trapped = Bench::new(committed(&text), ON);
    assert_eq!(trapped.mirror.slots, []);
    let length = (1 << 20) + 5;
    assert_eq!(pieces(&mut trapped, WINDOW + 3, length), Ok(vec![(DeviceMemory, false, length)]));
    let entry = Entry { from: 0, to: WINDOW + 3, length: KIB_64 };
    let moved = finish(&mut Transfer::new(vec![entry]), &mut trapped);
    assert_eq!(moved, Ok(Moved { direct: 0, bounced: KIB_64 }));
    assert_eq!(trapped.media(3, KIB_64), trapped.ram_bytes(0, KIB_64));
}

#[test]
fn what_is_no_memory_is_named_with_its_first_address() {
    let mut bench = Bench::new(committed(SMALL), ON);
    let registers = component(&bench.machine, "mem0");
    let end = WINDOW + UNIT;
    let nothing = |address| DmaError::NothingDecodes { address, reason: None };
    for (at, length, expected) in [
        (u64::MAX - 7, 16, DmaError::Wraps { address: u64::MAX - 7, length: 16 }),
        (16 << 20, 1, nothing(16 << 20)),
        ((16 << 20) - 8, 16, nothing(16 << 20)),
        (registers, 4, DmaError::Registers { address: registers }),
        (
            config(&bench.machine, "mem0"),
            4,
            DmaError::Registers { address: config(&bench.machine, "mem0") },
        ),
    ] {
        assert_eq!(pieces(&mut bench, at, length), Err(expected));
    }
    for start in [end - PAGE, end - 1, end] {
        let found = pieces(&mut bench, start, 2 * PAGE);
        let Err(DmaError::NothingDecodes { address, reason: Some(Reason::NotCovered { .. }) }) =
            found
        else {
            panic!("{found:?}");
        };
        assert_eq!(address, end);
    }
    // Of a part that is not all memory nothing is moved.
    let entry = Entry { from: 0, to: end - PAGE, length: 2 * PAGE };
    assert!(finish(&mut Transfer::new(vec![entry]), &mut bench).is_err());
    assert_eq!(bench.media(UNIT - PAGE, PAGE), vec![0; PAGE as usize]);
}

#[test]
fn a_transfer_under_way_ends_where_the_decoder_is_taken_back() {
    for limits in [ON, OFF] {
        let mut bench = Bench::new(committed(SMALL), limits);
        let mut transfer = Transfer::new(scatter());
        for _ in 0..3 {
            assert_eq!(transfer.step(&mut bench.memory(), PAGE), Ok(false));
        }
        let control = decoder(&bench.machine, "hb0", 0) + 0x10;
        bench.machine.write(control, HOST_ONLY);
        bench.follow();
        let error = transfer.step(&mut bench.memory(), PAGE).unwrap_err();
        assert_eq!(error.address(), WINDOW + 12 * PAGE);
        assert_eq!(transfer.step(&mut bench.memory(), PAGE), Ok(true), "it stays ended");
        let moved = transfer.moved();
        assert_eq!(moved.direct + moved.bounced, 3 * PAGE);
    }
}

#[test]
fn memory_behind_a_bar_is_device_memory() {
    let text = SMALL.replace("below = \"rp0\"", "below = \"rp0\"\nkind = \"type2\"");
    for (limits, direct) in [(ON, true), (OFF, false)] {
        let mut bench = Bench::new(machine(&text), limits);
        let at = component(&bench.machine, "mem0") + 0x2000;
        let found = pieces(&mut bench, at, 0xC000);
        assert_eq!(found, Ok(vec![(Class::DeviceMemory, direct, 0xC000)]));
        let past = DmaError::Registers { address: at + 0xC000 };
        assert_eq!(pieces(&mut bench, at, 0xC001), Err(past));
        let entry = Entry { from: 0, to: at + 5, length: 100 };
        finish(&mut Transfer::new(vec![entry]), &mut bench).unwrap();
        let mut bytes = [0; 100];
        bench.machine.read_bytes(at + 5, &mut bytes);
        assert_eq!(bytes.to_vec(), bench.ram_bytes(0, 100));
    }
}
