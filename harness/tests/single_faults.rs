//! One access of a run that goes wrong, whichever it is: on its way between firmware and models, so
//! every register is reached, and nothing in the models knows of it.
//!
//! **Invariant**: a run that ends well leaves the registers of a clean run. One that does not leaves
//! everything as discovery found it, unless something was locked; and says of each decoder what the
//! models say of it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;

use cxl_firmware::committed::{CommittedDecoder, Fate};
use cxl_firmware::platform::Platform;
use cxl_firmware::tables;
use cxl_firmware::topology::Tree;
use cxl_harness::run::{self, DirectRun, Refusal};
use cxl_model::fabric::{Fabric, HdmImage};
use cxl_model::machine::Machine;
use cxl_model::scenario::{Place, Scenario, builtin};
use cxl_regs::hdm::DecoderImage;
use cxl_regs::mmio::Mmio;

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// The write is lost.
    Lost(u64),
    /// The lowest bit that it would set is lost, or bit 28 of a 0 is set.
    Bit(u64),
    /// It is lost, and so are all later ones to the same register.
    Dead(u64),
    /// The read gives all-ones.
    AllOnes(u64),
}

/// What is between firmware and machine.
struct Bus<'m> {
    machine: &'m mut Machine,
    fault: Fault,
    reads: u64,
    writes: u64,
    dead: Option<u64>,
}

impl Mmio for Bus<'_> {
    fn read(&mut self, address: u64) -> u32 {
        let now = self.reads;
        self.reads += 1;
        let value = self.machine.read(address);
        if matches!(self.fault, Fault::AllOnes(at) if at == now) { u32::MAX } else { value }
    }

    fn write(&mut self, address: u64, value: u32) {
        let now = self.writes;
        self.writes += 1;
        match self.fault {
            Fault::Lost(at) if at == now => return,
            Fault::Dead(at) if at == now => self.dead = Some(address),
            Fault::Bit(at) if at == now => {
                let other = if value == 0 { 1 << 28 } else { value & (value - 1) };
                return self.machine.write(address, other);
            }
            _ => {}
        }
        if self.dead != Some(address) {
            self.machine.write(address, value);
        }
    }
}

struct Run {
    machine: Machine,
    done: DirectRun,
    reads: u64,
    writes: u64,
}

fn machine(text: &str) -> Machine {
    Machine::new(&Scenario::parse(text, "test").unwrap())
}

fn run(text: &str, fault: Fault) -> Run {
    let mut machine = machine(text);
    let wanted = run::RunRequest::of(&machine).unwrap();
    let tables = run::platform(&machine).unwrap();
    let occupied: Vec<_> = machine.map().fixed().collect();
    let platform = Platform { occupied: &occupied, ..tables.platform() };
    let mut clock = machine.clock();
    let mut bus = Bus { machine: &mut machine, fault, reads: 0, writes: 0, dead: None };
    let done = run::on(&mut bus, &mut clock, &platform, &wanted);
    let (reads, writes) = (bus.reads, bus.writes);
    Run { machine, done, reads, writes }
}

/// Every decoder of the models, by component and number.
fn decoders(fabric: &Fabric) -> BTreeMap<(String, u8), DecoderImage> {
    fn of<'a>(name: &'a str, hdm: &'a Option<HdmImage>) -> Vec<((String, u8), DecoderImage)> {
        let images = hdm.iter().flat_map(|hdm| &hdm.decoders);
        (0..).zip(images).map(|(index, image)| ((name.to_owned(), index), *image)).collect()
    }
    let bridges = fabric.bridges.iter().flat_map(|bridge| of(&bridge.name, &bridge.hdm));
    let switches = fabric.switches.iter().flat_map(|switch| of(&switch.name, &switch.hdm));
    let devices = fabric.devices.iter().flat_map(|device| of(&device.name, &device.hdm));
    bridges.chain(switches).chain(devices).collect()
}

/// The scenario's name of the component that the library speaks of.
fn name(machine: &Machine, tree: Tree<'_>, entry: &CommittedDecoder) -> String {
    let node = tree.get(entry.node).unwrap();
    let is_kind = |place: &Place| match place {
        Place::Bridge(_) => node.parent.is_none(),
        Place::Device(_) => node.device().is_some(),
        Place::Switch(_) => node.parent.is_some() && node.device().is_none(),
        Place::Port(_) => false,
    };
    let at = Some(tree.path(entry.node));
    let mut places = machine.places().into_iter().filter(is_kind);
    let place = places.find(|place| run::path(machine.scenario(), *place) == at).unwrap();
    machine.name(place).to_owned()
}

/// The phase that describes what was brought up.
const TABLES: u16 = 0x06;

/// Checks what has to hold whatever went wrong; the number of the refusal.
fn judge(what: &str, text: &str, fault: Fault, clean: &Fabric, found: &Fabric) -> u16 {
    let Run { machine, done, .. } = run(text, fault);
    let left = machine.fabric();
    let Some(refusal) = &done.refusal else {
        assert_eq!(left, *clean, "{what} {fault:?}: ends well, with other registers");
        return 0;
    };
    let what = format!("{what} {fault:?}: {refusal}");
    assert!(done.cedt.is_empty(), "{what}: a table");
    if refusal.code() >> 8 == TABLES {
        // Nothing is half done: every path is whole, and nobody is told of it.
        assert_eq!(left, *clean, "{what}: no table, and other registers than those it is about");
        return refusal.code();
    }
    let (now, before) = (decoders(&left), decoders(found));
    let dead = matches!(fault, Fault::Dead(_));
    if !now.values().any(|image| image.control().locked()) && !dead {
        assert_eq!(left, *found, "{what}: nothing is locked, and not all was put back");
    }
    let tree = done.room.topology.tree();
    let entries = done.room.committed.decoders.iter();
    let mut entries: BTreeMap<(String, u8), &CommittedDecoder> =
        entries.map(|entry| ((name(&machine, tree, entry), entry.index), entry)).collect();
    for (key, image) in now {
        let was = before[&key];
        let Some(entry) = entries.remove(&key) else {
            assert_eq!(image, was, "{what}: {key:?} changed, and nobody says so");
            continue;
        };
        let fate = entry.fate;
        match fate {
            Fate::Untouched | Fate::RolledBack => assert_eq!(image, was, "{what}: {key:?} {fate}"),
            Fate::Done => assert!(image.control().locked(), "{what}: {key:?} {image:?}"),
            // A register that takes no write may hold what it did by luck.
            Fate::Stranded => assert!(image != was || dead, "{what}: {key:?} {image:?}"),
            other => panic!("{what}: {key:?} is {other}, of which nothing is demanded here"),
        }
        assert!(fate == Fate::Stranded || entry.image == image, "{what}: {key:?} {entry:?}");
    }
    assert!(entries.is_empty(), "{what}: {entries:?}");
    describes(&what, &machine, &done);
    // What stays in use is whole: both ends lead to memory, past every fault.
    for region in &done.room.committed.regions {
        assert!(region.locked, "{what}: {region:?}");
        for hpa in [region.span.base(), region.span.last()] {
            assert!(machine.resolve(hpa.0).is_some(), "{what}: {hpa} {region:?}");
        }
    }
    let code = refusal.code();
    let mut machine = machine;
    let again = run::direct(&mut machine);
    describes(&format!("{what}, and again"), &machine, &again);
    code
}

/// A second run finds what the first one has left, and whatever either of them leaves: there is no
/// table while a decoder of the models is in use and does not lead to memory at both ends.
fn describes(what: &str, machine: &Machine, done: &DirectRun) {
    let tables = run::platform(machine).unwrap();
    let occupied: Vec<_> = machine.map().fixed().collect();
    let platform = Platform { occupied: &occupied, ..tables.platform() };
    let mut buffer = vec![0; 64 << 10];
    let room = &done.room;
    let table =
        tables::cedt(&platform, &room.topology, &room.committed, run::IDENTITY, &mut buffer);
    if table.is_err() {
        return;
    }
    for (key, image) in decoders(&machine.fabric()) {
        let control = image.control();
        if (control.committed() || control.commit()) && image.size() != 0 {
            for hpa in [image.base(), image.base() + image.size() - 1] {
                assert!(machine.resolve(hpa).is_some(), "{what}: a table, and {key:?} {image:?}");
            }
        }
    }
}

fn sweep(what: &str, text: &str) -> BTreeMap<u16, u32> {
    let clean = run(text, Fault::None);
    assert_eq!(clean.done.refusal.as_ref().map(Refusal::to_string), None, "{what}");
    let mut dry = machine(text);
    run::dry(&mut dry);
    // A read of discovery that gives all-ones hides a function, and there is no saying so.
    let discovered = dry.traffic().all.reads;
    let (clean_left, found) = (clean.machine.fabric(), dry.fabric());
    let mut faults: Vec<Fault> = (discovered..clean.reads).map(Fault::AllOnes).collect();
    for at in 0..clean.writes {
        faults.extend([Fault::Lost(at), Fault::Bit(at), Fault::Dead(at)]);
    }
    let mut outcomes = BTreeMap::new();
    for fault in faults {
        let code = judge(what, text, fault, &clean_left, &found);
        *outcomes.entry(code >> 8).or_default() += 1;
    }
    outcomes
}

const MACHINES: [&str; 6] =
    ["one-device", "switch", "type2-db", "dpa-skip", "four-way", "pass-through"];

#[test]
fn whatever_access_goes_wrong_locks_are_whole_or_named() {
    for name in MACHINES {
        let outcomes = sweep(name, builtin(name).unwrap().text);
        // Commit, verification and probe have to have refused, and some faults do no harm.
        for phase in [0, 4, 5, 9] {
            assert!(outcomes.contains_key(&phase), "{name}: {outcomes:?}");
        }
    }
}

#[test]
fn whatever_access_goes_wrong_without_locks_everything_is_put_back() {
    for name in MACHINES {
        let text = builtin(name).unwrap().text;
        let policy = "policy.path = \"unlocked\"\npolicy.config_lock = false\n";
        let text = match text.contains("[policy]") {
            true => text.replace("[policy]", "[policy]\npath = \"unlocked\"\nconfig_lock = false"),
            false => format!("{policy}{text}"),
        };
        let outcomes = sweep(&format!("{name}, unlocked,"), &text);
        for phase in [0, 4, 5, 9] {
            assert!(outcomes.contains_key(&phase), "{name}: {outcomes:?}");
        }
    }
}
