//! The same sequences of register accesses on our models and on QEMU's devices, compared access by
//! access: host bridge, switch, device, and the device's configuration space. The models run in
//! lenient mode, where a commit succeeds at once, as it does on QEMU.
//!
//! What is known to differ is data: `differential/known.toml`, each with its reason. A difference
//! that is not there fails, and so does one of them that no longer occurs.
//!
//! `CXL_SEED` chooses other sequences, `CXL_ACCESSES` longer ones.
//!
//! **Invariant**: both machines are asked by the same code, and nothing here knows what a register
//! should say: the two answers are held against each other, and what differs against the list.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod peer;

#[path = "differential/known.rs"]
mod known;
#[path = "differential/media.rs"]
mod media;
#[path = "differential/structures.rs"]
mod structures;

use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitCode;

use cxl_harness::qemu::qtest::{Qtest, Width};
use cxl_model::device::Reset;
use cxl_model::machine::Machine;
use cxl_model::scenario::Scenario;

use known::{Context, Known};
use peer::{Peer, Random, claim};
use structures::{Kind, Structure};

/// Accesses of one test, unless `CXL_ACCESSES` says otherwise.
const ACCESSES: usize = 10_000;
/// Accesses of its structure that a new difference is told with.
const TAIL: usize = 6;

fn main() -> ExitCode {
    let mut trials: Vec<_> = Kind::ALL
        .into_iter()
        .map(|kind| {
            let name = format!("{kind}_answers_as_on_qemu_but_for_the_known_differences");
            claim(name.replace(' ', "_"), move || compare(kind))
        })
        .collect();
    trials.push(claim("every_known_difference_names_a_test_that_meets_it", known::is_well_formed));
    trials.extend(media::trials());
    peer::main(trials)
}

/// One of each: a bridge with two ports, a switch below one, devices below both.
const MACHINE: &str = r#"
platform = { strict = false }
bridge = [{ name = "hb0", uid = 16 }]
port = [
    { name = "rp0", below = "hb0" },
    { name = "rp1", below = "hb0" },
    { name = "dsp0", below = "sw0" },
]
switch = [{ name = "sw0", below = "rp0" }]
device = [
    { name = "mem0", below = "dsp0", volatile = "256MiB", persistent = "256MiB" },
    { name = "mem1", below = "rp1", volatile = "256MiB" },
]
window = [{ targets = ["hb0"], size = "2GiB" }]
"#;

/// One access of the sequence.
#[derive(Clone, Copy, Debug)]
struct Access {
    structure: usize,
    offset: u16,
    width: Width,
    /// What is written; `None` = a read.
    value: Option<u64>,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (offset, bytes) = (self.offset, self.width.bytes());
        match self.value {
            Some(value) => write!(f, "write {bytes} bytes at +{offset:#x}: {value:#x}"),
            None => write!(f, "read {bytes} bytes at +{offset:#x}"),
        }
    }
}

/// Two machines that are asked the same.
struct Both {
    ours: Machine,
    theirs: Qtest,
    structures: Vec<Structure>,
    /// What each dword of QEMU's structures holds when nothing has been written.
    initial: Vec<Vec<u32>>,
}

impl Both {
    fn ours(&mut self, structure: usize, offset: u16, width: Width) -> u64 {
        let at = self.structures[structure].ours + u64::from(offset);
        let mut bytes = [0; 8];
        let count = usize::from(width.bytes());
        self.ours.read_bytes(at, bytes.get_mut(..count).unwrap());
        u64::from_le_bytes(bytes)
    }

    fn theirs(&mut self, structure: usize, offset: u16, width: Width) -> u64 {
        let at = self.structures[structure].theirs + u64::from(offset);
        self.theirs.load(at, width).unwrap_or_else(|error| panic!("{error}"))
    }

    fn write(&mut self, structure: usize, offset: u16, width: Width, value: u64) {
        let place = &self.structures[structure];
        let (ours, theirs) = (place.ours + u64::from(offset), place.theirs + u64::from(offset));
        let count = usize::from(width.bytes());
        self.ours.write_bytes(ours, value.to_le_bytes().get(..count).unwrap());
        self.theirs.store(theirs, value, width).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Both as before the first access. QEMU has no reset that leaves buses and BARs alone, so each
    /// dword is written back.
    fn restart(&mut self) {
        self.ours.reset(Reset::Warm);
        for index in 0..self.structures.len() {
            let base = self.structures[index].theirs;
            let initial = self.initial[index].clone();
            for dword in self.structures[index].restore_order() {
                let at = base + u64::from(4 * dword as u16);
                let value = initial[dword].into();
                self.theirs.store(at, value, Width::Four).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }
}

/// What differs, and where.
struct Found {
    register: String,
    offset: u16,
    /// The first time.
    ours: u64,
    theirs: u64,
    /// Of all times.
    bits: u64,
    tail: Vec<String>,
}

fn compare(kind: Kind) {
    let accesses = std::env::var("CXL_ACCESSES").ok().map_or(ACCESSES, |text| {
        text.parse().unwrap_or_else(|_| panic!("CXL_ACCESSES={text}: expected a number"))
    });
    let scenario = Scenario::parse(MACHINE, "differential").unwrap();
    let mut peer = Peer::new(&scenario, None);
    let room = peer.discover();
    let mut ours = Machine::new(&scenario);
    let structures =
        structures::find(kind, &scenario, &mut ours, &mut peer.qtest, room.topology.tree());
    let mut both = Both { ours, theirs: peer.qtest, structures, initial: Vec::new() };
    for index in 0..both.structures.len() {
        let dwords = both.structures[index].dwords();
        let read = |d: usize| both.theirs(index, 4 * d as u16, Width::Four) as u32;
        let initial = (0..dwords).map(read).collect();
        both.initial.push(initial);
    }
    let mut known = Known::of(kind);
    let mut random = Random::from_environment(0x6469_6666 + kind as u64);
    let mut new: BTreeMap<String, Found> = BTreeMap::new();
    let mut next: Option<Access> = None;
    let mut tail: Vec<Access> = Vec::new();
    let mut restarts = 0;
    for _ in 0..accesses {
        let access = match next.take() {
            Some(access) => access,
            None => some_access(&both, &mut random),
        };
        next = and_then(&both, access, &mut random);
        let context = Context::before(&mut both, access);
        let mut differing = Vec::new();
        tail.push(access);
        if let Some(value) = access.value {
            both.write(access.structure, access.offset, access.width, value);
            for offset in both.structures[access.structure].neighbours(access.offset) {
                let ours = both.ours(access.structure, offset, Width::Four);
                let theirs = both.theirs(access.structure, offset, Width::Four);
                differing.push((offset, ours, theirs));
            }
        } else {
            let ours = both.ours(access.structure, access.offset, access.width);
            let theirs = both.theirs(access.structure, access.offset, access.width);
            differing.push((access.offset, ours, theirs));
        }
        let mut restart = false;
        for (offset, ours, theirs) in differing.into_iter().filter(|(_, a, b)| a != b) {
            let register = both.structures[access.structure].register(offset);
            // Bits as the dword has them, wherever in it a narrow access was.
            let lane = if access.value.is_none() { 8 * u32::from(offset & 3) } else { 0 };
            let rest = known.explain(&register, (ours ^ theirs) << lane, &context);
            // What always differs stays; everything else would be met again and again.
            restart |= access.value.is_some() && !rest.constant;
            if rest.bits != 0 {
                let same = |earlier: &&Access| earlier.structure == access.structure;
                let told: Vec<_> = tail.iter().filter(same).collect();
                let told = told.iter().rev().take(TAIL).rev().map(|a| a.to_string()).collect();
                let key = known::without_number(&register);
                let first = Found { register, offset, ours, theirs, bits: 0, tail: told };
                new.entry(key).or_insert(first).bits |= rest.bits;
            }
        }
        if restart {
            both.restart();
            tail.clear();
            restarts += 1;
        }
    }
    let mut problems: Vec<String> = new
        .into_values()
        .map(|Found { register, offset, ours, theirs, bits, tail }| {
            format!(
                "new difference: {kind}, {register} (+{offset:#x}), bits {bits:#x}\n    ours \
                 {ours:#010x}, QEMU {theirs:#010x}, after\n      {}",
                tail.join("\n      ")
            )
        })
        .collect();
    problems.extend(known.not_met().map(|name| {
        format!("known difference {name} no longer occurs: take it, or these bits of it, out")
    }));
    eprintln!("{kind}: {accesses} accesses, {restarts} restarts after a known difference");
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// What is worth doing next: to write what this access has locked, or to lock something.
fn and_then(both: &Both, access: Access, random: &mut Random) -> Option<Access> {
    let place = &both.structures[access.structure];
    let some = [0, u32::MAX.into(), random.next() & 0xFFFF_FFFF][random.below(3) as usize];
    if let Some(locked) = access.value.and_then(|value| place.locked_by(access.offset, value)) {
        let offset = locked.start + 4 * random.below(locked.len() as u64 / 4) as u16;
        return Some(Access { offset, width: Width::Four, value: Some(some), ..access });
    }
    let offset = place.lock().filter(|_| random.below(6) == 0)?;
    Some(Access { offset, width: Width::Four, value: Some(1), ..access })
}

/// Any access: mostly aligned dwords, mostly writes, mostly of values that mean something.
fn some_access(both: &Both, random: &mut Random) -> Access {
    let count = both.structures.len() as u64;
    // The first structure is the one with the decoders, or the Device DVSEC.
    let structure = if random.below(2) == 0 { 0 } else { random.below(count) as usize };
    let place = &both.structures[structure];
    let width = match random.below(20) {
        0 => Width::One,
        1 => Width::Two,
        2 => Width::Eight,
        _ => Width::Four,
    };
    let bytes = u64::from(width.bytes());
    let length = 4 * place.dwords() as u64;
    let first = u64::from(place.first).next_multiple_of(bytes);
    let offset = first + random.below((length - first) / bytes) * bytes;
    let value = match random.below(5) {
        0 | 1 => None,
        2 => Some(random.next()),
        3 => Some([0, u64::MAX][random.below(2) as usize]),
        // Few bits at a time leave the rest of the state alone.
        _ => Some(1 << random.below(8 * bytes) | 1 << random.below(8 * bytes)),
    };
    let mask = u64::MAX >> (64 - 8 * bytes);
    let value = value.map(|value| place.likely(offset as u16, value, random) & mask);
    Access { structure, offset: offset as u16, width, value }
}
