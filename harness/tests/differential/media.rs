//! One byte pattern, two machines: stored by host address on QEMU and on the models, then compared
//! device by device in order of device address.
//!
//! QEMU walks window, bridge, switch and device with code of its own, and what it makes of an
//! address shows in the files behind its devices. The models' answer shows in their media.

use std::fs::File;
use std::os::unix::fs::FileExt;

use cxl_harness::qemu::qtest::Width;
use cxl_harness::run::{self, DirectRun};
use cxl_model::machine::Machine;
use cxl_model::scenario::{PathPolicy, Scenario};
use cxl_regs::Dpa;
use cxl_regs::mmio::Mmio;
use libtest_mimic::Trial;

use crate::peer::{Peer, Random, claim};

/// Sets that QEMU can express; `files_and_media_are_equal` runs each.
const SETS: [&str; 9] = [
    "one-device",
    "two-devices-one-bridge",
    "switch",
    "two-way",
    "two-way-ports",
    "four-way",
    "three-way",
    "sixteen-way",
    "switch-interleave",
];

/// The differences that the list has under `memory`, each with the test that sees it.
pub(crate) const KNOWN: [(&str, fn()); 3] =
    [("granule crossing", granule_crossing), ("decode miss", decode_miss), ("enables", enables)];

pub(crate) fn trials() -> Vec<Trial> {
    let equal = SETS.iter().map(|name| {
        let test = move || files_and_media_are_equal(&small(name));
        claim(format!("{name}_files_and_media_are_equal_byte_for_byte"), test)
    });
    let both = claim("both_partitions_files_and_media_are_equal_byte_for_byte", || {
        let mut scenario = small("one-device");
        scenario.devices[0].persistent = 256 << 20;
        files_and_media_are_equal(&scenario);
    });
    let known = KNOWN.map(|(name, test)| {
        claim(format!("known_difference_{}_is_seen", name.replace(' ', "_")), test)
    });
    equal.chain([both]).chain(known).collect()
}

/// A built-in scenario with devices of 256 MiB at most: there is more to store than to compare.
fn small(name: &str) -> Scenario {
    let mut scenario = Scenario::built_in(name).unwrap();
    for device in &mut scenario.devices {
        device.volatile = device.volatile.min(256 << 20);
    }
    scenario
}

/// A region on both machines: base on QEMU, base on ours, size.
fn regions(peer: &mut Peer, machine: &mut Machine) -> Vec<(u64, u64, u64)> {
    let theirs = peer.bring_up();
    let ours = run::direct(machine);
    assert_eq!(ours.refusal, None);
    let pairs = theirs.room.committed.regions.iter().zip(&ours.room.committed.regions);
    let regions: Vec<_> = pairs
        .map(|(theirs, ours)| {
            assert_eq!(
                (theirs.span.size(), theirs.interleave, theirs.locked),
                (ours.span.size(), ours.interleave, ours.locked)
            );
            (theirs.span.base().0, ours.span.base().0, ours.span.size())
        })
        .collect();
    assert_eq!(regions.len(), theirs.room.committed.regions.len());
    assert!(!regions.is_empty());
    regions
}

fn files_and_media_are_equal(scenario: &Scenario) {
    let directory = tempfile::tempdir().unwrap();
    let mut peer = Peer::new(scenario, Some(directory.path()));
    let mut machine = Machine::new(scenario);
    let mut random = Random::from_environment(0x6d65_6469);
    for (theirs, ours, size) in regions(&mut peer, &mut machine) {
        let mut store = |offset: u64, bytes: &[u8]| {
            peer.qtest.write_memory(theirs + offset, bytes).unwrap();
            machine.write_bytes(ours + offset, bytes);
        };
        // The ends, whole stripes of every set, and single accesses of each width anywhere.
        for offset in [0, size - (64 << 10)] {
            let bytes: Vec<u8> = (0..64 << 10).map(|_| random.next() as u8).collect();
            store(offset, &bytes);
        }
        for _ in 0..16 {
            let offset = random.below(size / 4096 - 64) * 4096;
            let bytes: Vec<u8> = (0..64 << 10).map(|_| random.next() as u8).collect();
            store(offset, &bytes);
        }
        for index in 0..400 {
            let width = 1usize << (index % 4);
            let offset = random.below(size / 8) * 8;
            store(offset, random.next().to_le_bytes().get(..width).unwrap());
        }
        // What comes back by host address is the same too.
        for _ in 0..200 {
            let offset = random.below(size / 8) * 8;
            let found = peer.qtest.load(theirs + offset, Width::Eight).unwrap();
            let mut bytes = [0; 8];
            machine.read_bytes(ours + offset, &mut bytes);
            assert_eq!(found, u64::from_le_bytes(bytes), "at offset {offset:#x}");
        }
    }
    let touched = compare(&peer, &mut machine);
    assert!(touched > 0, "no device was written to");
}

/// Compares every file with the media of its device; how many chunks are not all 0.
fn compare(peer: &Peer, machine: &mut Machine) -> usize {
    const CHUNK: usize = 1 << 20;
    let mut touched = 0;
    let (mut theirs, mut ours, untouched) = (vec![0; CHUNK], vec![0; CHUNK], vec![0; CHUNK]);
    for medium in &peer.command.media {
        let name = &peer.view.scenario.devices[medium.device].name;
        let media = &machine.endpoint(medium.device).unwrap().media;
        let start = if medium.persistent { media.volatile() } else { 0 };
        let file = File::open(&medium.path).unwrap();
        assert_eq!(file.metadata().unwrap().len(), medium.size);
        let mut devices_touched = 0;
        for at in (0..medium.size).step_by(CHUNK) {
            file.read_exact_at(&mut theirs, at).unwrap();
            assert!(media.read(Dpa(start + at), &mut ours));
            if theirs != ours {
                let first = theirs.iter().zip(&ours).position(|(a, b)| a != b).unwrap();
                let dpa = start + at + first as u64;
                let (theirs, ours) = (theirs[first], ours[first]);
                panic!("{name}: DPA {dpa:#x} is {theirs:#04x} on QEMU, {ours:#04x} on the model");
            }
            devices_touched += usize::from(ours != untouched);
        }
        assert!(devices_touched > 0, "{name} was not written to");
        touched += devices_touched;
    }
    touched
}

/// An access that starts in the last bytes of a granule.
fn granule_crossing() {
    let scenario = small("two-way");
    let directory = tempfile::tempdir().unwrap();
    let mut peer = Peer::new(&scenario, Some(directory.path()));
    let mut machine = Machine::new(&scenario);
    let (theirs, ours, _) = regions(&mut peer, &mut machine)[0];
    let value: u64 = 0x1817_1615_1413_1211;
    peer.qtest.store(theirs + 252, value, Width::Eight).unwrap();
    machine.write_bytes(ours + 252, &value.to_le_bytes());

    let at = |device: usize, dpa: u64| {
        let mut theirs = [0; 8];
        let medium = &peer.command.media[device];
        File::open(&medium.path).unwrap().read_exact_at(&mut theirs, dpa).unwrap();
        let mut ours = [0; 8];
        assert!(machine.endpoint(device).unwrap().media.read(Dpa(dpa), &mut ours));
        (theirs, ours)
    };
    assert_eq!(at(0, 252), (value.to_le_bytes(), [0x11, 0x12, 0x13, 0x14, 0, 0, 0, 0]));
    assert_eq!(at(1, 0), ([0; 8], [0x15, 0x16, 0x17, 0x18, 0, 0, 0, 0]));
}

/// The window goes on behind the only device.
fn decode_miss() {
    let scenario = small("one-device");
    let mut peer = Peer::new(&scenario, None);
    let mut machine = Machine::new(&scenario);
    let (theirs, ours, size) = regions(&mut peer, &mut machine)[0];
    assert_eq!(peer.qtest.load(theirs + size, Width::Four), Ok(0));
    assert_eq!(machine.read(ours + size), u32::MAX);
}

/// Decoders that are committed, and one enable after the other off.
fn enables() {
    let mut scenario = small("one-device");
    scenario.policy.path = PathPolicy::Unlocked;
    scenario.policy.config_lock = false;
    let mut peer = Peer::new(&scenario, None);
    let mut machine = Machine::new(&scenario);
    let (theirs, ours) = (peer.bring_up(), run::direct(&mut machine));
    assert_eq!(ours.refusal, None);

    /// Stores, switches an enable off, loads, and switches it on again.
    fn loaded(hw: &mut impl Mmio, done: &DirectRun) -> [u32; 2] {
        let base = done.room.committed.regions[0].span.base().0;
        let node = done.room.topology.nodes.iter().find(|node| node.device().is_some()).unwrap();
        let (mem_enable, decoder_enable) =
            (node.device().unwrap().dvsec.0 + 0x0C, node.hdm.unwrap().block.0 + 0x04);
        hw.write(base, 0x600D_600D);
        [(mem_enable, 4), (decoder_enable, 2)].map(|(register, bit)| {
            let old = hw.read(register);
            assert_eq!(old & bit, bit, "{register:#x}");
            hw.write(register, old & !bit);
            assert_eq!(hw.read(register) & bit, 0, "{register:#x}");
            let found = hw.read(base);
            hw.write(register, old);
            assert_eq!(hw.read(base), 0x600D_600D);
            found
        })
    }
    assert_eq!(loaded(&mut peer.qtest, &theirs), [0x600D_600D; 2]);
    // With the decoders off ours falls back to the range registers, which mirror decoder 0.
    assert_eq!(loaded(&mut machine, &ours), [u32::MAX, 0x600D_600D]);
}
