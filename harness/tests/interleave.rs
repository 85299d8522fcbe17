//! Interleaved memory at RAM speed is the same memory: with the mirror on and off, whatever is
//! stored where, whatever is taken back and committed again.
//!
//! **Invariant**: the judge deals granules out one by one, as a window, bridges and switches do, and
//! each device takes its next one. It shares no formula with what it judges.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../model/tests/rig/mod.rs"]
mod rig;

use std::collections::BTreeMap;
use std::fmt::Write;

use cxl_harness::dma::{DmaError, Entry, Memory, Transfer};
use cxl_harness::mirror::{Limits, Mirror, Unmirrored};
use cxl_harness::run;
use cxl_model::device::Reset;
use cxl_model::machine::Machine;
use cxl_regs::Dpa;
use cxl_regs::mmio::Mmio;
use proptest::prelude::*;
use rig::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, VolatileMemory};

const BASE: u64 = 0x30_0000_0000;
const ON: Limits = Limits { enabled: true, bytes: u64::MAX, slots: 64, address_bits: 46 };
const OFF: Limits = Limits { enabled: false, ..ON };

/// A set: targets of the window, ports of each bridge, ports of each switch (0: no switch).
#[derive(Clone, Copy, Debug)]
struct Set {
    root: u64,
    ports: u64,
    below: u64,
    granule: u64,
    xor: bool,
    /// In the persistent partition, behind a volatile one.
    persistent: bool,
}

/// Bits that an XOR map sees above its own.
const ABOVE: u64 = 1 << 16 | 1 << 18 | 1 << 29;

impl Set {
    fn ways(self) -> u64 {
        self.root * self.ports * self.below.max(1)
    }

    /// Of the window's index bits.
    fn bits(self) -> u32 {
        self.root.trailing_zeros()
    }

    fn map(self, bit: u32) -> u64 {
        self.granule << bit | ABOVE << bit
    }

    fn size(self) -> u64 {
        self.ways() * UNIT
    }

    /// The window's target for an address, in plain words (CXL r3.1 section 9.18.1.3).
    fn target(self, hpa: u64) -> u64 {
        let granule = hpa / self.granule;
        if !self.xor {
            return granule % self.root;
        }
        let bit = |bit: u32| u64::from((hpa & self.map(bit)).count_ones() % 2) << bit;
        let low: u64 = (0..self.bits()).map(bit).sum();
        match self.root % 3 {
            0 => low + (1 << self.bits()) * ((granule >> self.bits()) % 3),
            _ => low,
        }
    }

    /// The device that an address reaches, by the order in which [`Set::text`] makes them.
    fn device(self, hpa: u64) -> usize {
        let bridge = self.target(hpa);
        let above = self.granule << self.bits();
        let port = hpa / above % self.ports;
        let below = self.below.max(1);
        let dsp = hpa / (above * self.ports) % below;
        ((bridge * self.ports + port) * below + dsp) as usize
    }

    fn text(self) -> String {
        let mut text = String::new();
        let names: Vec<_> = (0..self.root).map(|b| format!("\"hb{b}\"")).collect();
        let (granule, size) = (self.granule, self.size());
        let _ = write!(
            text,
            "[policy]\npath = \"unlocked\"\nconfig_lock = false\ntarget = \"specification\"\n\
             interleave = \"widest\"\n[[window]]\ntargets = [{}]\nbase = {BASE}\nsize = {size}\n\
             granularity = {granule}\n",
            names.join(", "),
        );
        if self.persistent {
            text += "restrictions = [\"host-only\", \"device-coherent\", \"persistent\"]\n";
        }
        if self.xor {
            let maps: Vec<_> = (0..self.bits()).map(|bit| self.map(bit).to_string()).collect();
            let _ = writeln!(text, "arithmetic = \"xor\"\nxor_maps = [{}]", maps.join(", "));
        }
        if self.persistent {
            // The volatile memory comes first, by DPA and so by HPA.
            let _ = writeln!(
                text,
                "[[window]]\ntargets = [{}]\nbase = {}\nsize = {size}\ngranularity = {granule}\n\
                 restrictions = [\"host-only\", \"device-coherent\", \"volatile\"]",
                names.join(", "),
                (BASE / 3).next_multiple_of(self.ways() * UNIT),
            );
        }
        let volatile =
            if self.persistent { "volatile = \"256MiB\"\npersistent" } else { "volatile" };
        for bridge in 0..self.root {
            // The UID is the root bus too.
            let uid = bridge * (255 / self.root);
            let _ = writeln!(text, "[[bridge]]\nname = \"hb{bridge}\"\nuid = {uid}");
            for port in 0..self.ports {
                let name = format!("rp{bridge}-{port}");
                let _ = writeln!(text, "[[port]]\nname = \"{name}\"\nbelow = \"hb{bridge}\"");
                let device = |text: &mut String, below: &str| {
                    let _ = writeln!(
                        text,
                        "[[device]]\nname = \"mem-{below}\"\nbelow = \"{below}\"\n\
                         {volatile} = \"256MiB\""
                    );
                };
                if self.below == 0 {
                    device(&mut text, &name);
                    continue;
                }
                let switch = format!("sw-{name}");
                let _ = writeln!(text, "[[switch]]\nname = \"{switch}\"\nbelow = \"{name}\"");
                for dsp in 0..self.below {
                    let name = format!("{switch}-{dsp}");
                    let _ = writeln!(text, "[[port]]\nname = \"{name}\"\nbelow = \"{switch}\"");
                    device(&mut text, &name);
                }
            }
        }
        text
    }

    /// The owner of each of the first granules: a device, and its address.
    fn deal(self, count: u64) -> Vec<(usize, u64)> {
        let mut next = vec![if self.persistent { UNIT } else { 0 }; self.ways() as usize];
        (0..count)
            .map(|index| {
                let device = self.device(BASE + index * self.granule);
                let dpa = next[device];
                next[device] += self.granule;
                (device, dpa)
            })
            .collect()
    }
}

/// A machine whose window is reached as a guest reaches it.
struct Side {
    machine: Machine,
    limits: Limits,
    mirror: Mirror,
    /// Accesses that no slot covered.
    exits: u64,
}

impl Side {
    fn new(set: Set, limits: Limits) -> Self {
        let mut machine = machine(&set.text());
        let done = run::direct(&mut machine);
        assert!(done.refusal.is_none(), "{set:?}: {:?}", done.refusal);
        let mirror = Mirror::follow(&mut machine, &limits);
        Self { machine, limits, mirror, exits: 0 }
    }

    fn follow(&mut self) {
        self.mirror = Mirror::follow(&mut self.machine, &self.limits);
    }

    /// The place in host memory of an access, if one slot covers all of it.
    fn host(&self, hpa: u64, length: usize) -> Option<vm_memory::VolatileSlice<'_>> {
        let covers = |base, size| base <= hpa && hpa + length as u64 <= base + size;
        let slot = self.mirror.slots.iter().find(|slot| covers(slot.base, slot.size))?;
        let offset = slot.offset + (hpa - slot.base);
        slot.memory.get_slice(offset as usize, length).ok()
    }

    fn store(&mut self, hpa: u64, bytes: &[u8]) {
        match self.host(hpa, bytes.len()) {
            Some(slice) => slice.copy_from(bytes),
            None => {
                self.exits += 1;
                self.machine.write_bytes(hpa, bytes);
            }
        }
    }

    fn load(&mut self, hpa: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0xA5; length];
        match self.host(hpa, length) {
            Some(slice) => {
                slice.copy_to(&mut bytes);
            }
            None => {
                self.exits += 1;
                self.machine.read_bytes(hpa, &mut bytes);
            }
        }
        bytes
    }

    fn media(&self, device: usize, dpa: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0xA5; length];
        assert!(self.machine.endpoint(device).unwrap().media.read(Dpa(dpa), &mut bytes));
        bytes
    }

    /// Commits the decoder that every first bridge has, or takes the commit back.
    fn commit(&mut self, on: bool) {
        let decoder = (0..4).find(|n| dwords(&mut self.machine, "hb0", *n)[0..2] == Self::base());
        let control = decoder.map(|n| rig::decoder(&self.machine, "hb0", n) + 0x10);
        let control = control.expect("a decoder of hb0 starts where the window does");
        let now = self.machine.read(control);
        self.machine.write(control, if on { now | COMMIT } else { now & !COMMIT });
        assert_eq!(self.machine.read(control) & COMMITTED != 0, on);
        self.follow();
    }

    fn base() -> [u32; 2] {
        [BASE as u32, (BASE >> 32) as u32]
    }
}

/// What memory holds, byte by byte, by device.
type Held = BTreeMap<(usize, u64), u8>;

/// Mirror on, mirror off, and the judge.
struct Three {
    set: Set,
    on: Side,
    off: Side,
    owners: Vec<(usize, u64)>,
    held: Held,
    committed: bool,
}

impl Three {
    fn new(set: Set) -> Self {
        let owners = set.deal((4 << 20) / set.granule);
        let (on, off) = (Side::new(set, ON), Side::new(set, OFF));
        assert_eq!(off.mirror.slots, []);
        let wanted = on.mirror.slots.iter().map(|slot| (slot.base, slot.size)).next_back();
        assert_eq!(wanted, Some((BASE, set.size())), "{set:?} {:?}", on.mirror.unmirrored);
        Self { set, on, off, owners, held: Held::new(), committed: true }
    }

    /// The owner of a byte.
    fn owner(&self, offset: u64) -> (usize, u64) {
        let (device, dpa) = self.owners[(offset / self.set.granule) as usize];
        (device, dpa + offset % self.set.granule)
    }

    /// Whether a byte is reached: the decoder that comes and goes is the first bridge's.
    fn decodes(&self, offset: u64) -> bool {
        let (device, _) = self.owner(offset);
        self.committed || device as u64 >= self.set.ports * self.set.below.max(1)
    }

    fn reach(&self) -> u64 {
        self.owners.len() as u64 * self.set.granule
    }

    fn store(&mut self, offset: u64, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min((self.reach() - offset) as usize)];
        self.on.store(BASE + offset, bytes);
        self.off.store(BASE + offset, bytes);
        for (offset, byte) in (offset..).zip(bytes) {
            if self.decodes(offset) {
                self.held.insert(self.owner(offset), *byte);
            }
        }
    }

    fn load(&mut self, offset: u64, length: usize) {
        let length = length.min((self.reach() - offset) as usize);
        let want: Vec<u8> = (offset..offset + length as u64)
            .map(|offset| match self.decodes(offset) {
                true => self.held.get(&self.owner(offset)).copied().unwrap_or(0),
                false => 0xFF,
            })
            .collect();
        assert_eq!(self.on.load(BASE + offset, length), want, "on: {:?} +{offset:#x}", self.set);
        assert_eq!(self.off.load(BASE + offset, length), want, "off: {:?} +{offset:#x}", self.set);
    }

    fn commit(&mut self, on: bool) {
        self.committed = on;
        self.on.commit(on);
        self.off.commit(on);
    }

    /// Every byte by the devices' own addresses.
    fn media(&self) {
        for (&(device, dpa), byte) in &self.held {
            for side in [&self.on, &self.off] {
                assert_eq!(side.media(device, dpa, 1), [*byte], "{:?} {device} {dpa:#x}", self.set);
            }
        }
    }
}

/// All that a decoder of each level can do, at most one switch level.
fn sets() -> impl Iterator<Item = Set> {
    let legal = |set: &Set| {
        let (ways, bits) = (set.ways(), set.ways().trailing_zeros());
        let selects_in_range = set.granule << bits <= 1 << 15 || ways == 1;
        matches!(ways, 2 | 3 | 4 | 6 | 8 | 12 | 16) && selects_in_range
    };
    let roots = [1, 2, 3, 4, 6, 8, 12, 16].into_iter();
    let shapes = roots
        .flat_map(|root| [1, 2, 4, 8].map(|ports| (root, ports)))
        .flat_map(|(root, ports)| [0, 2, 4, 8].map(|below| (root, ports, below)));
    let grains = shapes.flat_map(|shape| (8..=14).map(move |bits| (shape, 1 << bits)));
    let sets = grains.flat_map(|((root, ports, below), granule)| {
        [false, true].map(|xor| Set { root, ports, below, granule, xor, persistent: false })
    });
    sets.filter(legal).filter(|set| !set.xor || set.bits() != 0)
}

#[test]
fn a_set_of_any_shape_is_one_slot_and_the_same_memory_as_without() {
    let mut pairs = std::collections::BTreeSet::new();
    for set in sets().filter(|set| set.below == 0 || set.ways() <= 4) {
        pairs.insert((set.ways(), set.granule));
        let mut three = Three::new(set);
        let row = set.ways() * set.granule;
        for (n, offset) in
            [0, set.granule - 3, 5 * row - 7, (1 << 16) - 100, 1 << 18].iter().enumerate()
        {
            three.store(*offset, &vec![n as u8 + 1; 3 * set.granule.min(2048) as usize]);
        }
        for offset in [0, row, (1 << 16) - 4096, 1 << 18] {
            three.load(offset, 8192);
        }
        assert_eq!(three.on.exits, 0, "{set:?}");
        assert!(three.off.exits >= 9);
        three.media();
    }
    // 49 pairs can be decoded, and seven of them are of one way.
    assert_eq!(pairs.len(), 42);
}

#[derive(Clone, Debug)]
enum Step {
    Store(u64, Vec<u8>),
    Load(u64, usize),
    Commit(bool),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let offset = prop_oneof![0..4u64 << 20, 0..1u64 << 14];
    prop_oneof![
        8 => (offset.clone(), proptest::collection::vec(any::<u8>(), 1..700))
            .prop_map(|(offset, bytes)| Step::Store(offset, bytes)),
        8 => (offset, 1usize..5000).prop_map(|(offset, length)| Step::Load(offset, length)),
        2 => any::<bool>().prop_map(Step::Commit),
        1 => Just(Step::Reset),
    ]
}

fn any_set() -> impl Strategy<Value = Set> {
    let all: Vec<Set> = sets().collect();
    (proptest::sample::select(all), any::<bool>())
        .prop_map(|(set, persistent)| Set { persistent: persistent && set.ways() <= 8, ..set })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_same_stores_and_loads_show_the_same_bytes_in_both_modes(
        set in any_set(),
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let mut three = Three::new(set);
        for step in steps {
            let before = three.on.exits;
            match step {
                Step::Store(offset, bytes) => three.store(offset, &bytes),
                Step::Load(offset, length) => three.load(offset, length),
                Step::Commit(on) => three.commit(on),
                Step::Reset => {
                    // The memory of one device is cleared where it lies, and decodes as before.
                    let (device, _) = three.owner(0);
                    for side in [&mut three.on, &mut three.off] {
                        side.machine.endpoint_mut(device).unwrap().media.forget_volatile();
                    }
                    if !set.persistent {
                        three.held.retain(|(owner, _), _| *owner != device);
                    }
                }
            }
            prop_assert!(!three.committed || three.on.exits == before, "an exit in the window");
        }
        three.media();
    }
}

/// Two bridges, two ports each: the machine of most of what follows.
const FOUR: Set = Set { root: 2, ports: 2, below: 0, granule: 1024, xor: false, persistent: false };

#[test]
fn what_does_not_change_is_not_moved() {
    let mut side = Side::new(FOUR, ON);
    let before = side.mirror.slots.clone();
    side.store(BASE + 5000, &[7; 100]);
    for _ in 0..3 {
        side.follow();
        assert_eq!(side.mirror.slots, before, "the same memory, not only the same bytes");
    }
    side.commit(false);
    assert_eq!(side.mirror.slots, []);
    side.commit(true);
    assert_ne!(side.mirror.slots, before);
    assert_eq!(side.load(BASE + 5000, 100), [7; 100]);
}

#[test]
fn a_device_that_is_pulled_out_takes_its_memory_along() {
    let mut side = Side::new(FOUR, ON);
    let owners = FOUR.deal(64);
    for (index, (device, _)) in owners.iter().enumerate() {
        side.store(BASE + index as u64 * FOUR.granule, &[*device as u8 + 1; 1024]);
    }
    side.machine.hot_remove(1).unwrap();
    side.follow();
    assert_eq!(side.mirror.slots, []);
    for &(device, dpa) in &owners {
        assert_eq!(side.media(device, dpa, 1024), [device as u8 + 1; 1024]);
    }
    // A cold reset of the one that is out, while the set of the others is not whole.
    side.machine.reset_device(1, Reset::Cold);
    side.follow();
    for &(device, dpa) in &owners {
        let want = if device == 1 { 0 } else { device as u8 + 1 };
        assert_eq!(side.media(device, dpa, 1024), [want; 1024]);
    }
}

#[test]
fn a_reset_that_clears_memory_clears_it_in_a_set_that_is_laid_out() {
    let mut side = Side::new(FOUR, ON);
    let owners = FOUR.deal(64);
    side.store(BASE, &[9; 64 << 10]);
    // The set is not taken apart before the memory is cleared.
    side.machine.reset_device(2, Reset::Cold);
    for &(device, dpa) in &owners {
        assert_eq!(side.media(device, dpa, 1024), [if device == 2 { 0 } else { 9 }; 1024]);
    }
    side.follow();
    assert_eq!(side.mirror.slots, []);
    for &(device, dpa) in &owners {
        assert_eq!(side.media(device, dpa, 1024), [if device == 2 { 0 } else { 9 }; 1024]);
    }
}

/// Writes a set by hand, over and over with other ways and granularities: bytes follow the DPA.
#[test]
fn contents_survive_every_other_way_to_commit_the_same_memory() {
    let text = Set { ports: 8, root: 1, ..FOUR }.text();
    let mut machine = machine(&text);
    let mut held: BTreeMap<(usize, u64), u64> = BTreeMap::new();
    let mut seed = 1u64;
    for round in 0..60u64 {
        let ways = [1u64, 2, 4, 8][(round % 4) as usize];
        let grain = (round * 5 % 7) as u32;
        let grain = if (grain + ways.trailing_zeros()) > 7 { 0 } else { grain };
        let granule = 256u64 << grain;
        let (size, log) = (ways * UNIT, ways.trailing_zeros());
        let interleave = grain | log << 4;
        for device in 0..ways {
            let name = format!("mem-rp0-{device}");
            let range = (BASE, size, 0);
            program(&mut machine, &name, 0, range, HOST_ONLY | COMMIT | interleave);
            enable(&mut machine, &name);
        }
        let targets = (0..ways).fold(0, |list, port| list | port << (8 * port));
        let found =
            program(&mut machine, "hb0", 0, (BASE, size, targets), HOST_ONLY | COMMIT | interleave);
        assert_eq!(found & COMMITTED, COMMITTED);
        let mirror = Mirror::follow(&mut machine, &ON);
        let [slot] = mirror.slots.as_slice() else { panic!("{:?}", mirror.unmirrored) };
        assert_eq!((slot.base, slot.size), (BASE, size));
        let memory = slot.memory.as_volatile_slice();
        // Dealt by hand: every granule of the first 256 KiB of each device.
        let mut next = vec![0u64; ways as usize];
        for index in 0..ways * (1 << 18) / granule {
            let device = (index % ways) as usize;
            for word in 0..granule / 2048 + 1 {
                let at = next[device] + 8 * word;
                let offset = slot.offset + index * granule + 8 * word;
                let place = memory.get_ref::<u64>(offset as usize).unwrap();
                assert_eq!(place.load(), held.get(&(device, at)).copied().unwrap_or(0));
                seed = seed.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
                if seed >> 60 == 0 {
                    place.store(seed);
                    held.insert((device, at), seed);
                }
            }
            next[device] += granule;
        }
        let places =
            ["hb0".to_owned()].into_iter().chain((0..ways).map(|n| format!("mem-rp0-{n}")));
        for name in places {
            let control = decoder(&machine, &name, 0) + 0x10;
            let now = machine.read(control);
            machine.write(control, now & !COMMIT);
        }
        assert_eq!(Mirror::follow(&mut machine, &ON).slots, []);
        for (&(device, at), want) in &held {
            let mut bytes = [0; 8];
            assert!(machine.endpoint(device).unwrap().media.read(Dpa(at), &mut bytes));
            assert_eq!(u64::from_le_bytes(bytes), *want, "{device} {at:#x}");
        }
    }
    assert!(held.len() > 1000);
}

/// What a device moves into a set goes on where the set is, and stops by name where it is not.
#[test]
fn a_transfer_under_way_stops_before_a_set_is_taken_apart_and_goes_on_after_it_is_back() {
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let words: Vec<u8> = (0..1u64 << 14).flat_map(|word| (!word).to_le_bytes()).collect();
    ram.write_slice(&words, GuestAddress(0)).unwrap();
    for limits in [ON, OFF] {
        let mut side = Side::new(FOUR, limits);
        let list = vec![Entry { from: 0, to: BASE, length: 128 << 10 }];
        let mut transfer = Transfer::new(list.clone());
        let step = |transfer: &mut Transfer, side: &mut Side, most| {
            let Side { machine, mirror, .. } = side;
            transfer.step(&mut Memory { ram: &ram, machine, mirror, bar_slots: &[] }, most)
        };
        assert_eq!(step(&mut transfer, &mut side, 50_000), Ok(false));
        side.commit(false);
        let error = step(&mut transfer, &mut side, 50_000).unwrap_err();
        // The next granule of the bridge that is gone, or of a device that no one reaches.
        assert!(matches!(error, DmaError::NothingDecodes { reason: Some(_), .. }), "{error}");
        assert_eq!(transfer.moved().direct + transfer.moved().bounced, 50_000);
        for (index, (device, dpa)) in (0..).zip(FOUR.deal(48)) {
            let at = index * FOUR.granule as usize;
            assert_eq!(side.media(device, dpa, 1024), words[at..at + 1024]);
        }
        side.commit(true);
        let mut again = Transfer::new(list);
        assert_eq!(step(&mut again, &mut side, u64::MAX), Ok(true));
        let moved = again.moved();
        assert_eq!(if limits.enabled { moved.direct } else { moved.bounced }, 128 << 10);
        assert_eq!(side.load(BASE, 128 << 10), words);
    }
}

#[test]
fn without_a_layout_an_interleaved_range_traps_and_says_so() {
    let mut machine = machine(&FOUR.text());
    assert!(run::direct(&mut machine).refusal.is_none());
    let mirror = Mirror::of(&machine, &ON);
    assert_eq!(mirror.slots, []);
    assert_eq!(mirror.unmirrored, [(0, Unmirrored::NotInOrder(None))]);
}
