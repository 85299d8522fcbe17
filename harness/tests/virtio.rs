//! The disk as a driver finds it, without KVM: a driver typed from the specification (virtio 1.2)
//! sets it up, moves bytes from and to RAM, mirrored CXL memory and CXL memory that is decoded, and
//! then does everything that a driver must not.
//!
//! **Invariant**: offsets, bits and layouts here are the specification's, and nothing of the device's
//! code.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../model/tests/rig/mod.rs"]
mod rig;

use std::fs::File;
use std::os::unix::fs::FileExt;

use cxl_harness::dma::{DmaError, Memory, Streamed};
use cxl_harness::kvm::{Signal, Slot};
use cxl_harness::mirror::{Limits, Mirror, bar_slots};
use cxl_harness::virtio::{Disk, Part, QueueError, RequestError, Trouble};
use cxl_model::machine::Machine;
use cxl_model::mapping::Reason;
use cxl_regs::{Hpa, Span};
use proptest::prelude::*;
use rig::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const WINDOW: u64 = 1 << 32;
const CONFIG: u64 = 0xC000_0000;
const BARS: u64 = 0x8000_0000;
const SECTORS: u64 = 16384;
const RAM: u64 = 16 << 20;
const ON: Limits = Limits { enabled: true, bytes: u64::MAX, slots: 64, address_bits: 46 };
const OFF: Limits = Limits { enabled: false, ..ON };

/// Where the driver has its queue, unless a test says otherwise.
const QUEUE: u64 = 0x1_0000;
/// Heads and answers of its requests, 32 bytes each.
const HEADS: u64 = 0x2_0000;
const SIZE: u16 = 16;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Request types.
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

/// A driver, with the machine that it runs on.
struct Bench {
    disk: Disk,
    file: File,
    ram: GuestMemoryMmap,
    machine: Machine,
    mirror: Mirror,
    bar_slots: Vec<Slot>,
    /// Addresses of the structures that the capabilities tell of: common, notify, ISR, device.
    common: u64,
    notify: u64,
    isr: u64,
    device: u64,
    /// Table, available and used ring.
    rings: [u64; 3],
    available: u16,
    signals: Vec<Signal>,
}

/// A machine whose device is committed at the start of the window, 256 MiB of it.
fn committed() -> Machine {
    let mut machine = machine(SMALL);
    program(&mut machine, "mem0", 0, (WINDOW, UNIT, 0), HOST_ONLY | COMMIT);
    enable(&mut machine, "mem0");
    program(&mut machine, "hb0", 0, (WINDOW, UNIT, 5), HOST_ONLY | COMMIT);
    machine
}

fn pattern(sector: u64) -> Vec<u8> {
    (0..64)
        .flat_map(|word: u64| (sector << 8 | word).wrapping_mul(0x9E37_79B9).to_le_bytes())
        .collect()
}

impl Bench {
    /// A disk that nobody has set up.
    fn bare(limits: Limits) -> Self {
        let file = tempfile::tempfile().unwrap();
        for sector in 0..SECTORS {
            file.write_all_at(&pattern(sector), sector * 512).unwrap();
        }
        let machine = committed();
        let mirror = Mirror::of(&machine, &limits);
        let slots = bar_slots(&machine, &limits, mirror.slots.len());
        let span = |base, size| Span::new(Hpa(base), size).unwrap();
        Self {
            disk: Disk::new(file.try_clone().unwrap(), span(CONFIG, 4096), span(BARS, 2 << 20))
                .unwrap(),
            file,
            ram: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap(),
            machine,
            mirror,
            bar_slots: slots,
            common: 0,
            notify: 0,
            isr: 0,
            device: 0,
            rings: [QUEUE, QUEUE + 0x1000, QUEUE + 0x2000],
            available: 0,
            signals: Vec::new(),
        }
    }

    /// One that its driver has set up.
    fn new(limits: Limits) -> Self {
        Self::with_rings(limits, [QUEUE, QUEUE + 0x1000, QUEUE + 0x2000])
    }

    fn with_rings(limits: Limits, rings: [u64; 3]) -> Self {
        let mut bench = Self::bare(limits);
        bench.rings = rings;
        bench.find();
        bench.start();
        bench
    }

    fn memory(&mut self) -> (&mut Disk, Memory<'_>) {
        let Self { disk, ram, machine, mirror, bar_slots, .. } = self;
        (disk, Memory { ram, machine, mirror, bar_slots })
    }

    /// Lets the device do what it has to; how many turns that takes.
    fn work(&mut self) -> usize {
        let mut turns = 0;
        loop {
            let (disk, mut memory) = self.memory();
            let more = disk.work(&mut memory);
            let signals = self.disk.signals();
            self.signals.extend(signals);
            turns += 1;
            assert!(turns < 100_000, "it never ends");
            if !more {
                return turns;
            }
        }
    }

    fn read(&mut self, address: u64, bytes: usize) -> u64 {
        let mut data = [0; 8];
        self.disk.read(address, &mut data[..bytes]);
        let signals = self.disk.signals();
        self.signals.extend(signals);
        u64::from_le_bytes(data)
    }

    fn write(&mut self, address: u64, bytes: usize, value: u64) {
        self.disk.write(address, &value.to_le_bytes()[..bytes]);
        let signals = self.disk.signals();
        self.signals.extend(signals);
    }

    /// Finds the structures by the list of capabilities (section 4.1.4).
    fn find(&mut self) {
        assert_eq!(self.read(CONFIG, 4), 0x1042_1AF4, "virtio 1, block");
        let bar = self.read(CONFIG + 0x10, 4) & !0xF | self.read(CONFIG + 0x14, 4) << 32;
        let mut at = self.read(CONFIG + 0x34, 1);
        let mut seen = Vec::new();
        while at != 0 {
            let (id, next) = (self.read(CONFIG + at, 1), self.read(CONFIG + at + 1, 1));
            if id == 0x09 {
                let kind = self.read(CONFIG + at + 3, 1);
                assert_eq!(self.read(CONFIG + at + 4, 1), 0, "the BAR");
                let place = bar + self.read(CONFIG + at + 8, 4);
                match kind {
                    1 => self.common = place,
                    2 => {
                        self.notify = place;
                        assert_eq!(self.read(CONFIG + at + 16, 4), 0, "one place for all queues");
                    }
                    3 => self.isr = place,
                    4 => self.device = place,
                    5 => {}
                    kind => panic!("kind {kind}"),
                }
                seen.push(kind);
            }
            assert!(seen.len() < 10);
            at = next;
        }
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3, 4, 5]);
    }

    fn status(&mut self) -> u64 {
        let at = self.common + 0x14;
        self.read(at, 1)
    }

    /// Sets it up as section 3.1.1 has it.
    fn start(&mut self) {
        let common = self.common;
        self.write(common + 0x14, 1, 0);
        self.write(common + 0x14, 1, 3);
        let mut offered = 0;
        for half in [0, 1] {
            self.write(common, 4, half);
            offered |= self.read(common + 4, 4) << (32 * half);
        }
        // Most buffers, size of a sector, flush; virtio 1.
        assert_eq!(offered, 1 << 2 | 1 << 6 | 1 << 9 | 1 << 32);
        for half in [0, 1] {
            self.write(common + 8, 4, half);
            self.write(common + 0xC, 4, offered >> (32 * half) & 0xFFFF_FFFF);
        }
        self.write(common + 0x14, 1, 3 | 8);
        assert_eq!(self.status(), 3 | 8);
        self.write(common + 0x16, 2, 0);
        assert_eq!(self.read(common + 0x18, 2), 256);
        self.write(common + 0x18, 2, SIZE.into());
        for (at, place) in [0x20, 0x28, 0x30].into_iter().zip(self.rings) {
            self.write(common + at, 4, place & 0xFFFF_FFFF);
            self.write(common + at + 4, 4, place >> 32);
        }
        self.write(common + 0x1C, 2, 1);
        self.write(common + 0x14, 1, 3 | 8 | 4);
    }

    fn put(&mut self, address: u64, bytes: &[u8]) {
        self.memory().1.write(address, bytes).unwrap();
    }

    fn get(&mut self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0xA5; length];
        self.memory().1.read(address, &mut bytes).unwrap();
        bytes
    }

    fn descriptor(&mut self, index: u16, (address, length): (u64, u32), flags: u16, next: u16) {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        let table = self.rings[0];
        self.put(table + 16 * u64::from(index), &bytes);
    }

    /// Makes a head available.
    fn offer(&mut self, head: u16) {
        let ring = self.rings[1];
        self.put(ring + 4 + 2 * u64::from(self.available % SIZE), &head.to_le_bytes());
        self.available = self.available.wrapping_add(1);
        let index = self.available.to_le_bytes();
        self.put(ring + 2, &index);
    }

    fn kick(&mut self) -> usize {
        let notify = self.notify;
        self.write(notify, 2, 0);
        self.work()
    }

    /// Puts the head of a request and all its descriptors from `first` on; not available yet.
    fn request(&mut self, first: u16, kind: u32, sector: u64, buffers: &[(u64, u32)]) {
        let head = HEADS + 32 * u64::from(first);
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(sector.to_le_bytes());
        // The answer is to be written.
        bytes.push(0xEE);
        self.put(head, &bytes);
        self.descriptor(first, (head, 16), NEXT, first + 1);
        let flags = if kind == OUT { NEXT } else { NEXT | WRITE };
        for (index, buffer) in (first + 1..).zip(buffers) {
            self.descriptor(index, *buffer, flags, index + 1);
        }
        self.descriptor(first + 1 + buffers.len() as u16, (head + 16, 1), WRITE, 0);
    }

    fn answer(&mut self, first: u16) -> u8 {
        self.get(HEADS + 32 * u64::from(first) + 16, 1)[0]
    }

    /// Pairs of head and length in the used ring.
    fn used(&mut self) -> Vec<(u32, u32)> {
        let ring = self.rings[2];
        let count = u16::from_le_bytes(self.get(ring + 2, 2).try_into().unwrap());
        let bytes = self.get(ring + 4, 8 * usize::from(count));
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        bytes.chunks(8).map(|pair| (word(&pair[..4]), word(&pair[4..]))).collect()
    }

    fn troubles(&self) -> Vec<Trouble> {
        self.disk.done().troubles.to_vec()
    }

    fn on_disk(&self, sector: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, sector * 512).unwrap();
        bytes
    }
}

fn sectors(first: u64, length: u64) -> Vec<u8> {
    (first..first + length / 512).flat_map(pattern).collect()
}

const KIB_64: u32 = 64 << 10;
const MIB_4: u32 = 4 << 20;

#[test]
fn bytes_go_both_ways_wherever_the_buffers_lie() {
    let ram = |bytes: u32| Streamed { ram: bytes.into(), ..Streamed::default() };
    let direct = |bytes: u32| Streamed { direct: bytes.into(), ..Streamed::default() };
    let bounced = |bytes: u32| Streamed { bounced: bytes.into(), ..Streamed::default() };
    for (limits, buffer, length, ways) in [
        (ON, 0x40_0000, KIB_64, ram(KIB_64)),
        (ON, WINDOW + 0x1000, KIB_64, direct(KIB_64)),
        (ON, WINDOW + 0x1000, MIB_4, direct(MIB_4)),
        (OFF, WINDOW + 0x1000, KIB_64, bounced(KIB_64)),
        (OFF, WINDOW + 0x1230, MIB_4, bounced(MIB_4)),
    ] {
        let mut bench = Bench::new(limits);
        bench.request(0, IN, 100, &[(buffer, length)]);
        bench.offer(0);
        bench.kick();
        assert_eq!(bench.answer(0), 0);
        assert_eq!(bench.used(), [(0, length + 1)]);
        let there = bench.get(buffer, length as usize);
        assert!(there == sectors(100, length.into()), "{limits:?} {buffer:#x}");
        assert_eq!(bench.disk.done().streamed, ways);

        // Back to another place, in two parts.
        let half = length / 2;
        let parts = [(buffer + u64::from(half), half), (buffer, half)];
        bench.request(4, OUT, 8192, &parts);
        bench.offer(4);
        bench.kick();
        assert_eq!((bench.answer(4), bench.used()), (0, vec![(0, length + 1), (4, 1)]));
        let (first, second) = there.split_at(half as usize);
        assert!(bench.on_disk(8192, length as usize) == [second, first].concat());
        let done = bench.disk.done();
        assert_eq!((done.reads, done.writes, done.failed, done.together), (1, 1, 0, 1));
        assert_eq!(done.troubles.len(), 0);
        // MSI-X is off: the pin, until the status is read.
        assert_eq!(bench.signals, [Signal::Line { number: 16, high: true }]);
        let isr = bench.isr;
        assert_eq!((bench.read(isr, 1), bench.read(isr, 1)), (1, 0));
        assert_eq!(bench.signals[1..], [Signal::Line { number: 16, high: false }]);
    }
}

#[test]
fn several_are_in_flight_and_a_small_one_overtakes_a_large_one() {
    let mut bench = Bench::new(ON);
    bench.request(0, IN, 0, &[(WINDOW, MIB_4)]);
    bench.request(3, IN, 9000, &[(0x40_0000, 512)]);
    bench.request(6, OUT, 10000, &[(0x50_0000, KIB_64)]);
    bench.request(9, FLUSH, 0, &[]);
    bench.request(11, GET_ID, 0, &[(0x60_0000, 20)]);
    bench.put(0x50_0000, &[0x5A; KIB_64 as usize]);
    for head in [0, 3, 6, 9, 11] {
        bench.offer(head);
    }
    assert_eq!(bench.kick(), 2, "more than one turn moves");
    assert_eq!(bench.used(), [(3, 513), (6, 1), (9, 1), (11, 21), (0, MIB_4 + 1)]);
    assert_eq!(bench.disk.done().together, 5);
    assert_eq!(bench.get(0x60_0000, 16), b"cxl-harness disk");
    assert!(bench.get(WINDOW, MIB_4 as usize) == sectors(0, MIB_4.into()));
    assert!(bench.get(0x40_0000, 512) == pattern(9000));
    assert!(bench.on_disk(10000, KIB_64 as usize) == [0x5A; KIB_64 as usize]);
}

#[test]
fn the_queue_itself_may_lie_in_cxl_memory() {
    for (limits, bounced) in [(ON, 0), (OFF, u64::from(KIB_64))] {
        let at = WINDOW + 0x800_0000;
        let mut bench = Bench::with_rings(limits, [at, at + 0x1002, at + 0x2004]);
        for round in 0..40u64 {
            bench.request(0, IN, round, &[(WINDOW, KIB_64)]);
            bench.offer(0);
            bench.kick();
            assert_eq!(bench.answer(0), 0);
            assert!(bench.get(WINDOW, KIB_64 as usize) == sectors(round, KIB_64.into()));
        }
        assert_eq!(bench.disk.done().streamed.bounced, 40 * bounced);
        assert_eq!(bench.troubles(), []);
    }
}

#[test]
fn messages_come_where_msi_x_is_on_and_wait_behind_a_mask() {
    let mut bench = Bench::new(ON);
    // The table lies at 0x4000 of the BAR; the capability is where the list has it.
    let mut at = bench.read(CONFIG + 0x34, 1);
    while bench.read(CONFIG + at, 1) != 0x11 {
        at = bench.read(CONFIG + at + 1, 1);
    }
    let msix = CONFIG + at;
    assert_eq!(bench.read(msix + 2, 2) & 0x7FF, 1, "two vectors");
    let (table, pending) = (BARS + bench.read(msix + 4, 4), BARS + bench.read(msix + 8, 4));
    let common = bench.common;
    bench.write(msix + 2, 2, 0x8000);
    bench.write(common + 0x1A, 2, 7);
    assert_eq!(bench.read(common + 0x1A, 2), 0xFFFF, "there is no such vector");
    bench.write(common + 0x1A, 2, 1);
    bench.write(common + 0x10, 2, 0);
    for (vector, data) in [(0, 0x31), (1, 0x32)] {
        bench.write(table + 16 * vector, 4, 0xFEE0_0000);
        bench.write(table + 16 * vector + 4, 4, 0);
        bench.write(table + 16 * vector + 8, 4, data);
    }
    let read = |bench: &mut Bench| {
        bench.request(0, IN, 0, &[(0x40_0000, 512)]);
        bench.offer(0);
        bench.kick();
        std::mem::take(&mut bench.signals)
    };
    let message = |data| Signal::Message { address: 0xFEE0_0000, data };
    assert_eq!((read(&mut bench), bench.read(pending, 4)), (vec![], 2));
    bench.write(table + 16 + 12, 4, 0);
    assert_eq!(std::mem::take(&mut bench.signals), [message(0x32)]);
    assert_eq!(bench.read(pending, 4), 0);
    assert_eq!(read(&mut bench), [message(0x32)]);
    // All of it masked.
    bench.write(msix + 2, 2, 0xC000);
    assert_eq!((read(&mut bench), bench.read(pending, 4)), (vec![], 2));
    bench.write(msix + 2, 2, 0x8000);
    assert_eq!(std::mem::take(&mut bench.signals), [message(0x32)]);
    // The driver does not want to hear of it.
    let available = bench.rings[1];
    bench.put(available, &1u16.to_le_bytes());
    assert_eq!(read(&mut bench), []);
    bench.put(available, &0u16.to_le_bytes());
    // A broken queue is a change of the configuration.
    bench.write(table + 12, 4, 0);
    bench.offer(99);
    bench.kick();
    assert_eq!(bench.signals, [message(0x31)]);
    let isr = bench.isr;
    assert_eq!(bench.read(isr, 1), 0, "the status is for the pin");
}

#[test]
fn registers_are_reached_through_configuration_space_too() {
    let mut bench = Bench::new(ON);
    let mut at = bench.read(CONFIG + 0x34, 1);
    while (bench.read(CONFIG + at, 1), bench.read(CONFIG + at + 3, 1)) != (9, 5) {
        at = bench.read(CONFIG + at + 1, 1);
    }
    let window = CONFIG + at;
    let device = bench.device - BARS;
    for (offset, length, expected) in
        [(device, 4, SECTORS), (device + 12, 4, 254), (device + 20, 2, 512)]
    {
        bench.write(window + 8, 4, offset);
        bench.write(window + 12, 4, length);
        assert_eq!(bench.read(window + 16, length as usize), expected);
    }
    for (bar, offset, length) in [(1, 0, 4), (0, 2, 4), (0, 0x8000, 4), (0, 0, 3), (0, 0, 0)] {
        bench.write(window + 4, 1, bar);
        bench.write(window + 8, 4, offset);
        bench.write(window + 12, 4, length);
        assert_eq!(bench.read(window + 16, 4), 0, "{bar} {offset} {length}");
        bench.write(window + 16, 4, u64::MAX);
    }
    // The status, through there.
    let status = bench.common - BARS + 0x14;
    bench.write(window + 4, 1, 0);
    bench.write(window + 8, 4, status);
    bench.write(window + 12, 4, 1);
    bench.write(window + 16, 1, 0);
    assert_eq!(bench.status(), 0, "reset");
}

#[test]
fn a_request_that_cannot_be_done_says_so_and_the_disk_goes_on() {
    let end = WINDOW + UNIT;
    let nowhere = DmaError::NothingDecodes { address: 0x7000_0000, reason: None };
    let passed =
        |head, sector, bytes| RequestError::Place { head, sector, bytes, sectors: SECTORS };
    let at = |error| RequestError::Buffer { head: 0, error };
    // Kind, first sector, buffers, and what comes of it.
    type Case = (u32, u64, Vec<(u64, u32)>, RequestError);
    let cases: Vec<Case> = vec![
        (IN, 0, vec![(0x7000_0000, 512)], at(nowhere)),
        (OUT, 0, vec![(0x40_0000, 512), (0x7000_0000, 512)], at(nowhere)),
        (
            IN,
            0,
            vec![(u64::MAX - 100, 512)],
            at(DmaError::Wraps { address: u64::MAX - 100, length: 512 }),
        ),
        (IN, SECTORS, vec![(0x40_0000, 512)], passed(0, SECTORS, 512)),
        (IN, u64::MAX, vec![(0x40_0000, 512)], passed(0, u64::MAX, 512)),
        (OUT, SECTORS - 1, vec![(0x40_0000, 1024)], passed(0, SECTORS - 1, 1024)),
        (OUT, 0, vec![(0x40_0000, 511)], passed(0, 0, 511)),
        (IN, 0, vec![(0x40_0000, u32::MAX - 30)], passed(0, 0, u64::from(u32::MAX) - 30)),
        (13, 0, vec![(0x40_0000, 512)], RequestError::Unknown { head: 0, kind: 13 }),
    ];
    for limits in [ON, OFF] {
        for (kind, sector, buffers, error) in &cases {
            let mut bench = Bench::new(limits);
            bench.request(0, *kind, *sector, buffers);
            bench.offer(0);
            bench.kick();
            let troubles = bench.troubles();
            assert_eq!(troubles, [Trouble::Request(error.clone())]);
            assert!(!troubles[0].is_the_hosts());
            assert_eq!((bench.answer(0), bench.disk.done().failed), (1, 1), "{error}");
            // The next one is done.
            bench.request(0, IN, 5, &[(0x40_0000, 512)]);
            bench.offer(0);
            bench.kick();
            assert_eq!((bench.answer(0), bench.status()), (0, 15));
        }
        // Behind what the decoders cover; the bytes before that are not moved either.
        let mut bench = Bench::new(limits);
        bench.request(0, IN, 0, &[(end - 512, 1024)]);
        bench.offer(0);
        bench.kick();
        let troubles = bench.troubles();
        let [Trouble::Request(RequestError::Buffer { error, .. })] = troubles.as_slice() else {
            panic!("{troubles:?}")
        };
        let DmaError::NothingDecodes { address, reason: Some(Reason::NotCovered { .. }) } = error
        else {
            panic!("{error:?}")
        };
        assert_eq!((*address, bench.get(end - 512, 512)), (end, vec![0; 512]));
    }
    // A head in two parts is one; one that is too short is none.
    let mut bench = Bench::new(ON);
    bench.request(0, IN, 3, &[]);
    bench.descriptor(0, (HEADS, 5), NEXT, 1);
    bench.descriptor(1, (HEADS + 5, 11), NEXT, 2);
    bench.descriptor(2, (0x40_0000, 513), WRITE, 0);
    bench.offer(0);
    bench.kick();
    assert_eq!(bench.get(0x40_0000, 513), [pattern(3), vec![0]].concat(), "the answer is the last");
    bench.descriptor(1, (HEADS + 5, 10), NEXT, 2);
    bench.offer(0);
    bench.kick();
    let short = Trouble::Request(RequestError::Short { head: 0, bytes: 15 });
    assert_eq!((bench.troubles(), bench.get(0x40_0200, 1)), (vec![short], vec![1]));
}

#[test]
fn a_queue_that_cannot_be_followed_stops_the_disk_until_it_is_reset() {
    type Spoil = fn(&mut Bench);
    type Expected = fn(&QueueError) -> bool;
    let cases: &[(Spoil, Expected)] = &[
        // Head beyond the table.
        (|bench| bench.offer(SIZE), |e| *e == QueueError::NoDescriptor { head: SIZE }),
        (|bench| bench.offer(0xFFFF), |e| *e == QueueError::NoDescriptor { head: 0xFFFF }),
        // A circle of one, and of three.
        (
            |bench| {
                bench.descriptor(0, (HEADS, 16), NEXT, 0);
                bench.offer(0);
            },
            |e| *e == QueueError::Endless { head: 0, descriptors: SIZE.into() },
        ),
        (
            |bench| {
                for index in 0..3 {
                    bench.descriptor(index, (HEADS, 16), NEXT | WRITE, (index + 1) % 3);
                }
                bench.offer(1);
            },
            |e| *e == QueueError::Endless { head: 1, descriptors: SIZE.into() },
        ),
        // On to where no descriptor is.
        (
            |bench| {
                bench.descriptor(0, (HEADS, 16), NEXT, 200);
                bench.offer(0);
            },
            |e| *e == QueueError::Endless { head: 0, descriptors: 1 },
        ),
        // More than 4 GiB.
        (
            |bench| {
                bench.descriptor(0, (HEADS, 16), NEXT, 1);
                bench.descriptor(1, (0, u32::MAX), NEXT, 2);
                bench.descriptor(2, (0, 1), WRITE, 0);
                bench.offer(0);
            },
            |e| *e == QueueError::Endless { head: 0, descriptors: 1 },
        ),
        // A table in the place of a buffer, which was not offered: nowhere, and in itself.
        (
            |bench| {
                bench.descriptor(0, (0x7000_0000, 64), INDIRECT, 0);
                bench.offer(0);
            },
            |e| *e == QueueError::NoDescriptor { head: 0 },
        ),
        (
            |bench| {
                bench.descriptor(0, (QUEUE, 16), INDIRECT, 0);
                bench.offer(0);
            },
            |e| *e == QueueError::NoDescriptor { head: 0 },
        ),
        (
            |bench| {
                bench.descriptor(0, (HEADS, 16), WRITE | NEXT, 1);
                bench.descriptor(1, (HEADS, 16), 0, 0);
                bench.offer(0);
            },
            |e| *e == QueueError::Order { head: 0 },
        ),
        (
            |bench| {
                bench.descriptor(0, (HEADS, 16), 0, 0);
                bench.offer(0);
            },
            |e| *e == QueueError::NoStatus { head: 0 },
        ),
        (
            |bench| {
                bench.request(0, IN, 0, &[(0x40_0000, 512)]);
                bench.descriptor(2, (0x7000_0000, 1), WRITE, 0);
                bench.offer(0);
            },
            |e| matches!(e, QueueError::Status { head: 0, error } if error.address() == 0x7000_0000),
        ),
        (
            |bench| {
                bench.request(0, IN, 0, &[(0x40_0000, 512)]);
                bench.descriptor(2, (u64::MAX, 2), WRITE, 0);
                bench.offer(0);
            },
            |e| matches!(e, QueueError::Status { head: 0, error: DmaError::Wraps { .. } }),
        ),
        // More than the queue holds.
        (
            |bench| {
                let ring = bench.rings[1];
                bench.put(ring + 2, &(SIZE + 1).to_le_bytes());
            },
            |e| *e == QueueError::Available { index: SIZE + 1, expected: 0 },
        ),
    ];
    for (number, (spoil, expected)) in cases.iter().enumerate() {
        for limits in [ON, OFF] {
            let mut bench = Bench::new(limits);
            spoil(&mut bench);
            bench.kick();
            let troubles = bench.troubles();
            let [Trouble::Queue(error)] = troubles.as_slice() else {
                panic!("{number}: {troubles:?}")
            };
            assert!(expected(error), "{number}: {error:?}");
            assert_eq!(bench.status(), 15 | 64, "it needs a reset");
            assert_eq!(bench.used(), []);
            // Deaf until then, and as new afterwards.
            bench.kick();
            assert_eq!(bench.troubles().len(), 1);
            bench.available = 0;
            let ring = bench.rings[1];
            bench.put(ring + 2, &[0, 0]);
            bench.start();
            bench.request(0, IN, 7, &[(0x40_0000, 512)]);
            bench.offer(0);
            bench.kick();
            assert!(bench.get(0x40_0000, 512) == pattern(7), "{number}");
        }
    }
}

#[test]
fn a_queue_in_no_memory_or_askew_is_named() {
    let apart = [QUEUE, QUEUE + 0x1000, QUEUE + 0x2000];
    for (part, index) in [(Part::Descriptors, 0), (Part::Available, 1), (Part::Used, 2)] {
        let mut rings = apart;
        rings[index] = 0x7000_0000;
        let mut bench = Bench::with_rings(ON, rings);
        bench.kick();
        let error = DmaError::NothingDecodes { address: 0x7000_0000, reason: None };
        assert_eq!(bench.troubles(), [Trouble::Queue(QueueError::Memory { part, error })]);
        rings[index] = apart[index] + 1;
        let bench = Bench::with_rings(ON, rings);
        let error = QueueError::Alignment { part, address: rings[index] };
        assert_eq!(bench.troubles(), [Trouble::Queue(error)]);
    }
    let mut bench = Bench::bare(ON);
    bench.find();
    let common = bench.common;
    for size in [0, 3, 512] {
        bench.write(common + 0x18, 2, size);
        let last = bench.troubles().pop();
        assert_eq!(last, Some(Trouble::Queue(QueueError::Size(size as u16))));
    }
    // Features that were not offered, and none of virtio 1.
    for (low, high) in [(1 << 28, 1), (1 << 9, 0)] {
        let mut bench = Bench::bare(ON);
        bench.find();
        let common = bench.common;
        bench.write(common + 0x14, 1, 3);
        for (half, value) in [(0, low), (1, high)] {
            bench.write(common + 8, 4, half);
            bench.write(common + 0xC, 4, value);
        }
        bench.write(common + 0x14, 1, 3 | 8);
        assert_eq!(bench.status(), 3);
        assert_eq!(bench.troubles(), [Trouble::Features(high << 32 | low)]);
    }
}

#[test]
fn nothing_moves_before_the_driver_is_there_or_without_bus_master() {
    let mut bench = Bench::new(ON);
    bench.write(CONFIG + 4, 2, 2);
    bench.request(0, IN, 0, &[(0x40_0000, 512)]);
    bench.offer(0);
    bench.kick();
    assert_eq!((bench.used(), bench.get(0x40_0000, 512)), (vec![], vec![0; 512]));
    bench.write(CONFIG + 4, 2, 6);
    bench.work();
    assert_eq!(bench.used(), [(0, 513)]);
    // FLR: bit 15 of the device control, in the PCI Express capability at 0x40.
    bench.write(CONFIG + 0x48, 2, 0x8000);
    assert_eq!(bench.read(CONFIG + 4, 2) & 6, 0);
    bench.write(CONFIG + 0x10, 4, BARS);
    bench.write(CONFIG + 4, 2, 6);
    assert_eq!(bench.status(), 0);
}

#[test]
fn a_file_that_gives_up_is_the_host_s_trouble() {
    let mut bench = Bench::new(ON);
    bench.file.set_len(4096).unwrap();
    bench.request(0, IN, 100, &[(0x40_0000, 512)]);
    bench.offer(0);
    bench.kick();
    let troubles = bench.troubles();
    assert!(troubles[0].is_the_hosts() && bench.answer(0) == 1, "{troubles:?}");
    let file = tempfile::tempfile().unwrap();
    let span = |base, size| Span::new(Hpa(base), size).unwrap();
    for size in [0, 511, 513] {
        file.set_len(size).unwrap();
        let disk = Disk::new(file.try_clone().unwrap(), span(CONFIG, 4096), span(BARS, 2 << 20));
        let words = disk.unwrap_err().to_string();
        assert!(words.contains(&format!("found {size} bytes")), "{words}");
    }
}

/// What a hostile driver does.
#[derive(Clone, Debug)]
enum Act {
    Write { offset: u64, bytes: usize, value: u64 },
    Config { offset: u64, bytes: usize, value: u64 },
    Read { offset: u64, bytes: usize },
    Store { offset: u64, value: u64 },
    Descriptor { index: u16, place: (u64, u32), flags: u16, next: u16 },
    Offer(u16),
    Start,
    Kick,
}

fn act() -> impl Strategy<Value = Act> {
    let bytes = prop::sample::select(vec![1, 2, 4, 8]);
    let places = prop_oneof![
        Just(HEADS),
        Just(QUEUE),
        Just(WINDOW),
        Just(WINDOW + UNIT - 100),
        Just(0x7000_0000),
        Just(BARS),
        Just(RAM - 7),
        any::<u64>(),
    ];
    let lengths = prop_oneof![Just(0), Just(1), Just(16), Just(512), Just(KIB_64), any::<u32>()];
    let values = prop_oneof![0..20u64, any::<u64>(), Just(QUEUE), Just(WINDOW)];
    prop_oneof![
        (0..0x6000u64, bytes.clone(), values.clone())
            .prop_map(|(offset, bytes, value)| Act::Write { offset, bytes, value }),
        (0..0x40u64, bytes.clone(), values.clone()).prop_map(|(offset, bytes, value)| Act::Write {
            offset,
            bytes,
            value
        }),
        (0..0x100u64, bytes.clone(), values.clone())
            .prop_map(|(offset, bytes, value)| Act::Config { offset, bytes, value }),
        (0..0x8000u64, bytes).prop_map(|(offset, bytes)| Act::Read { offset, bytes }),
        (0..0x3000u64, values).prop_map(|(offset, value)| Act::Store { offset, value }),
        (0..SIZE, (places, lengths), 0..8u16, prop_oneof![0..SIZE, any::<u16>()])
            .prop_map(|(index, place, flags, next)| Act::Descriptor { index, place, flags, next }),
        prop_oneof![0..SIZE, any::<u16>()].prop_map(Act::Offer),
        Just(Act::Start),
        Just(Act::Kick),
        Just(Act::Kick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever a driver does, the disk comes back from it within bounds, what is kept is bounded, its
    /// file keeps its size, and after a reset it works.
    #[test]
    fn nothing_that_a_driver_does_breaks_the_disk(
        acts in prop::collection::vec(act(), 1..60),
        mirrored in any::<bool>(),
    ) {
        let mut bench = Bench::new(if mirrored { ON } else { OFF });
        for act in acts {
            match act {
                Act::Write { offset, bytes, value } => bench.write(BARS + offset, bytes, value),
                Act::Config { offset, bytes, value } => {
                    bench.write(CONFIG + offset / bytes as u64 * bytes as u64, bytes, value);
                }
                Act::Read { offset, bytes } => {
                    bench.read(BARS + offset, bytes);
                    bench.read(CONFIG + offset / 8, bytes.min(4));
                }
                Act::Store { offset, value } => {
                    bench.ram.write_slice(&value.to_le_bytes(), GuestAddress(QUEUE + offset)).unwrap();
                }
                Act::Descriptor { index, place, flags, next } => {
                    bench.descriptor(index, place, flags, next);
                }
                Act::Offer(head) => bench.offer(head),
                Act::Start => {
                    let common = bench.common;
                    bench.write(common + 0x14, 1, 15);
                }
                Act::Kick => {
                    bench.kick();
                }
            }
            bench.work();
        }
        let done = bench.disk.done();
        prop_assert!(done.troubles.len() <= 64 && done.together <= 256);
        prop_assert_eq!(bench.file.metadata().unwrap().len(), SECTORS * 512);
        // Back from wherever it was put.
        bench.write(CONFIG + 4, 2, 0);
        bench.write(CONFIG + 0x10, 4, BARS);
        bench.write(CONFIG + 0x14, 4, 0);
        bench.write(CONFIG + 4, 2, 6);
        bench.available = 0;
        bench.ram.write_slice(&[0; 0x3000], GuestAddress(QUEUE)).unwrap();
        bench.start();
        bench.request(0, IN, 1, &[(0x40_0000, 512)]);
        bench.file.write_all_at(&pattern(1), 512).unwrap();
        bench.offer(0);
        bench.kick();
        prop_assert_eq!(bench.answer(0), 0);
        prop_assert!(bench.get(0x40_0000, 512) == pattern(1));
    }
}
