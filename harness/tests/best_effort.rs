//! One bad part costs one part: whichever register of whichever component dies during a run that is
//! content with the rest, everything that the fault has no part in is in use, locked and described.
//!
//! **Invariant**: nothing here asks the library what is in use: the models say where addresses lead,
//! and which component the dead register is of.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::{BTreeMap, BTreeSet};

use cxl_firmware::DecoderRegisters;
use cxl_firmware::bring_up::Extent;
use cxl_firmware::committed::Fate;
use cxl_firmware::error::Code;
use cxl_firmware::handoff::{self, Handoff};
use cxl_firmware::plan::{Note, Why};
use cxl_firmware::platform::Platform;
use cxl_firmware::topology::{Partition, Path};
use cxl_harness::run::{self, DirectRun};
use cxl_lint::{Input, Rule, lint};
use cxl_model::fabric::HdmImage;
use cxl_model::machine::{Landing, Machine};
use cxl_model::scenario::{Parent, PathPolicy, Place, Scenario, builtin};
use cxl_regs::Component;
use cxl_regs::acpi::cedt::{Cedt, ChbsVersion};
use cxl_regs::hdm::{Control, DecoderImage};
use cxl_regs::mmio::Mmio;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// From this write on, nothing that is written there arrives.
    Dead(u64),
    /// From this read on, the whole component gives all-ones and takes nothing.
    Gone(u64),
}

/// What is between firmware and machine.
struct Bus<'m> {
    machine: &'m mut Machine,
    fault: Fault,
    reads: u64,
    writes: u64,
    /// The dword that is dead; of memory, wherever it is mapped to.
    dead: Option<(u64, Option<Landing>)>,
    /// The component that the fault is in.
    place: Option<Place>,
    gone: bool,
    /// Whether it keeps a committed decoder from being taken back.
    keeps_committed: bool,
}

impl Bus<'_> {
    fn place(&self, address: u64) -> Option<Place> {
        let registers = self.machine.target(address).and_then(|target| target.place());
        // Memory is a device's part too.
        registers.or_else(|| self.machine.device_at(address).map(Place::Device))
    }

    fn is_gone(&self, address: u64) -> bool {
        self.gone && self.place.is_some() && self.place(address) == self.place
    }
}

impl Mmio for Bus<'_> {
    fn read(&mut self, address: u64) -> u32 {
        if self.fault == Fault::Gone(self.reads) {
            (self.place, self.gone) = (self.place(address), true);
        }
        self.reads += 1;
        let value = self.machine.read(address);
        if self.is_gone(address) { u32::MAX } else { value }
    }

    fn write(&mut self, address: u64, value: u32) {
        if self.fault == Fault::Dead(self.writes) {
            self.place = self.place(address);
            self.dead = Some((address, self.machine.resolve(address)));
            let (_, is_control) = decoder_at(self.machine.scenario(), address).unzip();
            let committed = Control::from_bits(self.machine.read(address)).committed();
            self.keeps_committed =
                is_control == Some(true) && committed && !Control::from_bits(value).commit();
        }
        self.writes += 1;
        let dead = self.dead.is_some_and(|(register, memory)| match memory {
            Some(memory) => self.machine.resolve(address) == Some(memory),
            None => register == address,
        });
        if !dead && !self.is_gone(address) {
            self.machine.write(address, value);
        }
    }
}

/// The components above one, and itself.
fn upwards(scenario: &Scenario, place: Place) -> Vec<Place> {
    let mut way = vec![place];
    loop {
        let next = match *way.last().unwrap() {
            Place::Device(at) => Place::Port(scenario.devices[at].port),
            Place::Switch(at) => Place::Port(scenario.switches[at].port),
            Place::Port(at) => match scenario.ports[at].parent {
                Parent::Bridge(bridge) => Place::Bridge(bridge),
                Parent::Switch(switch) => Place::Switch(switch),
            },
            Place::Bridge(_) => return way,
        };
        way.push(next);
    }
}

/// Which devices' memory the models find in each region that is in use.
fn served(machine: &Machine, done: &DirectRun, what: &str) -> Vec<BTreeSet<usize>> {
    let mut sets = vec![];
    for region in &done.room.committed.regions {
        let locks = machine.scenario().policy.path == PathPolicy::LockAll;
        assert!(region.locked || !locks, "{what}: {region:?}");
        let granule = region.interleave.granularity.bytes();
        let ways = u64::from(region.interleave.ways.count());
        let mut devices = BTreeSet::new();
        for way in 0..ways {
            for at in [region.span.base().0 + way * granule, region.span.last().0 - way * granule] {
                let landing = machine.resolve(at);
                let landing = landing.unwrap_or_else(|| panic!("{what}: {at:#x} of {region:?}"));
                devices.insert(landing.device);
            }
        }
        sets.push(devices);
    }
    sets
}

struct Run {
    machine: Machine,
    done: DirectRun,
    reads: u64,
    writes: u64,
    place: Option<Place>,
    /// The register that is dead, and whether that keeps a decoder committed.
    dead: Option<(u64, bool)>,
}

/// The decoder that a register is of, and whether it is its Control; asked of a machine of its own.
fn decoder_at(scenario: &Scenario, address: u64) -> Option<(u8, bool)> {
    let mut machine = Machine::new(scenario);
    let place = machine.target(address)?.place()?;
    machine.read(address);
    let mut decoders = machine.traffic().decoders.keys();
    let (_, index) = decoders.find(|(at, _)| *at == place)?;
    // Decoders take 32 bytes each, from 0x138 on in all models; Control is the dword at 16 (CXL r3.1
    // section 8.2.4.20).
    let block = machine.registers_of(place)?;
    Some((*index, (address - block) % 0x20 == (0x138 + 0x10) % 0x20))
}

/// The writes of a run that is strict, or not, and how many decoders it used; each is to have been taken
/// back and locked with so many writes.
fn writes(scenario: &Scenario, best_effort: bool, locking: u64) -> (u64, u64) {
    let mut machine = Machine::new(scenario);
    let wanted = run::RunRequest::of(&machine).unwrap();
    let wanted = if best_effort { wanted.best_effort() } else { wanted };
    let tables = run::platform(&machine).unwrap();
    let occupied: Vec<_> = machine.map().fixed().collect();
    let platform = Platform { occupied: &occupied, ..tables.platform() };
    let mut clock = machine.clock();
    let done = run::on(&mut machine, &mut clock, &platform, &wanted);
    assert!(done.refusal.is_none());
    for entry in &done.room.committed.decoders {
        let mut counts = machine.traffic().decoders.iter();
        let at = |(place, index): &(Place, u8)| {
            run::path(scenario, *place) == Some(done.room.topology.tree().path(entry.node))
                && *index == entry.index
                && !matches!(place, Place::Port(_))
        };
        let (_, count) = counts.find(|(key, _)| at(key)).unwrap();
        assert_eq!((count.lock.writes, count.after().writes), (locking, 0));
    }
    (machine.traffic().all.writes, done.room.committed.decoders.len() as u64)
}

/// A run with a fault, and a second one that finds what the first has left, the fault included.
fn run(scenario: &Scenario, fault: Fault, what: &str) -> Run {
    run_on(Machine::new(scenario), fault, what)
}

/// The same on a machine that somebody did something to before.
fn run_on(mut machine: Machine, fault: Fault, what: &str) -> Run {
    let wanted = run::RunRequest::of(&machine).unwrap().best_effort();
    let tables = run::platform(&machine).unwrap();
    let occupied: Vec<_> = machine.map().fixed().collect();
    let platform = Platform { occupied: &occupied, ..tables.platform() };
    let mut clock = machine.clock();
    let (reads, writes, dead, place, gone) = (0, 0, None, None, false);
    let keeps_committed = false;
    let mut bus =
        Bus { machine: &mut machine, fault, reads, writes, dead, place, gone, keeps_committed };
    let done = run::on(&mut bus, &mut clock, &platform, &wanted);
    let (reads, writes, place) = (bus.reads, bus.writes, bus.place);
    let dead = bus.dead.map(|(address, _)| (address, bus.keeps_committed));
    let left = bus.machine.fabric();
    if done.refusal.is_none() {
        let again = run::on(&mut bus, &mut clock, &platform, &wanted);
        let refusal = again.refusal.as_ref().map(|refusal| refusal.to_string());
        assert_eq!(refusal, None, "{what}: the second run");
        // What went away after the last look is news to the second run alone.
        if done.extent != Extent::Whole {
            let lost = |done: &DirectRun| {
                let nodes = done.room.topology.nodes.iter().filter_map(|node| node.fault);
                let list = done.room.topology.remarks.list().iter().copied();
                nodes.chain(list).map(|error| format!("{} {error}", error.at)).collect::<Vec<_>>()
            };
            assert!(
                again.cedt == done.cedt,
                "{what}: the second run's table is another one: {:?}, and before {:?}",
                lost(&again),
                lost(&done)
            );
        }
        assert_eq!(bus.machine.fabric(), left, "{what}: the second run changed something");
    }
    Run { machine, done, reads, writes, place, dead }
}

/// No region lies where a device that is not of it claims addresses for ever, and what stays committed claims
/// what it claimed.
fn keeps_off(machine: &Machine, done: &DirectRun, what: &str) {
    let served = served(machine, done, what);
    let fabric = machine.fabric();
    let bridges = fabric.bridges.iter().map(|bridge| &bridge.hdm);
    let switches = fabric.switches.iter().map(|switch| &switch.hdm);
    let devices = fabric.devices.iter().map(|device| &device.hdm);
    let all = bridges.chain(switches).chain(devices).flatten();
    for image in all.flat_map(|hdm| &hdm.decoders) {
        assert!(image.size() != 0 || !image.control().committed(), "{what}: {image:x?}");
    }
    for (device, found) in fabric.devices.iter().enumerate() {
        let decoders = found.hdm.iter().flat_map(|hdm| &hdm.decoders);
        for image in decoders.filter(|image| image.control().locked() && image.size() != 0) {
            let (base, end) = (image.base(), image.base() + image.size());
            for (region, devices) in done.room.committed.regions.iter().zip(&served) {
                let apart = region.span.end().0 <= base || end <= region.span.base().0;
                assert!(
                    apart || devices.contains(&device),
                    "{what}: {device} {image:x?} {region:?}"
                );
            }
        }
    }
}

/// Every fault of a machine; how many devices were in use after how many of them.
fn sweep(name: &str, trial: bool) -> BTreeMap<usize, u32> {
    let mut scenario = Scenario::parse(builtin(name).unwrap().text, name).unwrap();
    scenario.policy.trial = trial;
    let name = &*format!("{name}{}", if trial { "" } else { " without trial" });
    let clean = run(&scenario, Fault::None, name);
    assert!(clean.done.refusal.is_none() && clean.done.extent == Extent::Whole, "{name}");
    let mut dry = Machine::new(&scenario);
    run::dry(&mut dry);
    let discovered = dry.traffic().all.reads;
    let sets = served(&clean.machine, &clean.done, name);
    let all: BTreeSet<usize> = sets.iter().flatten().copied().collect();
    let faults = (0..clean.writes).map(Fault::Dead).chain((0..clean.reads).map(Fault::Gone));
    let mut outcomes = BTreeMap::new();
    for fault in faults {
        let what = format!("{name} {fault:?}");
        let Run { machine, done, place, .. } = run(&scenario, fault, &what);
        let place = place.map(|place| (place, machine.name(place).to_owned()));
        let what = format!("{what} in {place:?}");
        let refusal = done.refusal.as_ref().map(ToString::to_string);
        assert_eq!(refusal, None, "{what}");
        let in_use: BTreeSet<usize> =
            served(&machine, &done, &what).into_iter().flatten().collect();
        for device in &all {
            // What one member of a set loses, the set may lose.
            let mut related = sets.iter().filter(|set| set.contains(device)).flatten();
            let touched = place.as_ref().is_some_and(|(place, _)| {
                related.any(|device| upwards(&scenario, Place::Device(*device)).contains(place))
            });
            assert!(touched || in_use.contains(device), "{what}: device {device} is lost");
        }
        keeps_off(&machine, &done, &what);
        let lost = all.len() - in_use.len();
        // What is gone before it is discovered was never there, as far as anybody can say.
        let hidden = matches!(fault, Fault::Gone(at) if at < discovered);
        let told = done.extent != Extent::Whole;
        let less = lost > 0 || done.room.committed.regions.len() < sets.len();
        assert!(less || !told, "{what}: {:?}, and nothing is lost", done.extent);
        assert!(lost == 0 || told || hidden, "{what}: {lost} lost, and nobody says so");
        *outcomes.entry(in_use.len()).or_default() += 1;
    }
    outcomes
}

/// A region: its devices, its kind of memory, and by name of component the decoder that it needs there.
struct Need {
    devices: BTreeSet<usize>,
    partition: Partition,
    decoders: BTreeMap<String, u8>,
}

/// What each region of a machine needs, by the registers of the models.
fn needs(machine: &Machine, done: &DirectRun, what: &str) -> Vec<Need> {
    let fabric = machine.fabric();
    let bridges = fabric.bridges.iter().map(|bridge| (&bridge.name, &bridge.hdm));
    let switches = fabric.switches.iter().map(|switch| (&switch.name, &switch.hdm));
    let devices = fabric.devices.iter().map(|device| (&device.name, &device.hdm));
    let all: Vec<_> = bridges.chain(switches).chain(devices).collect();
    let regions = done.room.committed.regions.iter().zip(served(machine, done, what));
    let needs = regions.map(|(region, devices)| {
        let at = region.span.base().0;
        let leads = |image: &DecoderImage| {
            image.control().committed() && (image.base()..image.base() + image.size()).contains(&at)
        };
        let index = |hdm: &Option<HdmImage>| {
            let mut decoders = (0..).zip(hdm.iter().flat_map(|hdm| &hdm.decoders));
            decoders.find(|(_, image)| leads(image)).map(|(index, _)| index)
        };
        let decoders = all.iter().filter_map(|(name, hdm)| Some(((*name).clone(), index(hdm)?)));
        Need { devices, partition: region.partition, decoders: decoders.collect() }
    });
    needs.collect()
}

/// Machines whose devices are in several regions: a set of one kind of memory, and each device's other
/// kind by itself.
const LAYERED: [(&str, &str); 4] = [
    (
        "a set below",
        r#"
        bridge = [{ name = "hb0", uid = 16 }]
        port = [{ name = "rp0", below = "hb0" }, { name = "rp1", below = "hb0" }]
        [[window]]
        targets = ["hb0"]
        size = "1GiB"
        interleave = "widest"
        restrictions = ["host-only", "volatile"]
        [[window]]
        targets = ["hb0"]
        size = "1GiB"
        restrictions = ["host-only", "persistent"]
        "#,
    ),
    (
        "a set above",
        r#"
        bridge = [{ name = "hb0", uid = 16 }]
        port = [{ name = "rp0", below = "hb0" }, { name = "rp1", below = "hb0" }]
        [[window]]
        targets = ["hb0"]
        size = "1GiB"
        restrictions = ["host-only", "volatile"]
        [[window]]
        targets = ["hb0"]
        size = "1GiB"
        interleave = "widest"
        restrictions = ["host-only", "persistent"]
        "#,
    ),
    (
        "a set of two bridges",
        r#"
        bridge = [{ name = "hb0", uid = 16 }, { name = "hb1", uid = 32 }]
        port = [{ name = "rp0", below = "hb0" }, { name = "rp1", below = "hb1" }]
        [[window]]
        targets = ["hb0", "hb1"]
        size = "1GiB"
        interleave = "widest"
        restrictions = ["host-only", "volatile"]
        [[window]]
        targets = ["hb0"]
        size = "1GiB"
        restrictions = ["host-only", "persistent"]
        [[window]]
        targets = ["hb1"]
        size = "1GiB"
        restrictions = ["host-only", "persistent"]
        "#,
    ),
    (
        "flat below a switch",
        r#"
        bridge = [{ name = "hb0", uid = 16 }]
        switch = [{ name = "sw0", below = "up" }]
        port = [
            { name = "up", below = "hb0" },
            { name = "rp0", below = "sw0" },
            { name = "rp1", below = "sw0" },
        ]
        [[window]]
        targets = ["hb0"]
        size = "1GiB"
        restrictions = ["host-only", "volatile"]
        [[window]]
        targets = ["hb0"]
        size = "1GiB"
        restrictions = ["host-only", "persistent"]
        "#,
    ),
];

const TWO_DEVICES: &str = r#"
    [[device]]
    name = "mem0"
    below = "rp0"
    volatile = "256MiB"
    persistent = "256MiB"
    [[device]]
    name = "mem1"
    below = "rp1"
    volatile = "256MiB"
    persistent = "256MiB"
"#;

/// Whichever register dies: memory stays in use whose region has no part in it. A decoder that dies has
/// part in the regions of its own and of higher decoders of its component.
#[test]
fn a_device_that_lost_one_region_keeps_its_others() {
    for (name, text) in LAYERED {
        let scenario = Scenario::parse(&format!("{text}{TWO_DEVICES}"), name)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let clean = run(&scenario, Fault::None, name);
        let refusal = clean.done.refusal.as_ref().map(ToString::to_string);
        assert_eq!((refusal, clean.done.extent), (None, Extent::Whole), "{name}");
        let needs = needs(&clean.machine, &clean.done, name);
        assert!(needs.len() >= 3, "{name}");
        let mut dry = Machine::new(&scenario);
        run::dry(&mut dry);
        let discovered = dry.traffic().all.writes;
        let mut kept_part = 0;
        for fault in (0..clean.writes).map(Fault::Dead) {
            let what = format!("{name} {fault:?}");
            let Run { machine, done, place, dead, .. } = run(&scenario, fault, &what);
            let refusal = done.refusal.as_ref().map(ToString::to_string);
            let (address, keeps_committed) = dead.unwrap();
            let decoder = decoder_at(&scenario, address).filter(|_| !keeps_committed);
            let place = place.map(|place| (place, machine.name(place).to_owned()));
            let what = format!("{what} in {place:?}, {decoder:?}");
            assert_eq!(refusal, None, "{what}");
            let regions = done.room.committed.regions.iter().map(|region| region.partition);
            let in_use: BTreeSet<(usize, Partition)> = regions
                .zip(served(&machine, &done, &what))
                .flat_map(|(partition, devices)| devices.into_iter().map(move |d| (d, partition)))
                .collect();
            let mut lost_of = BTreeMap::<usize, u32>::new();
            for need in &needs {
                let touched = place.as_ref().is_some_and(|(place, component)| {
                    let mut members = need.devices.iter();
                    let leads = members
                        .any(|device| upwards(&scenario, Place::Device(*device)).contains(place));
                    let above = decoder.zip(need.decoders.get(component));
                    leads && above.is_none_or(|((failed, _), own)| *own >= failed)
                });
                for device in &need.devices {
                    let is_in_use = in_use.contains(&(*device, need.partition));
                    let lost = (*device, need.partition);
                    assert!(touched || is_in_use, "{what}: {lost:?} is lost");
                    *lost_of.entry(*device).or_default() += u32::from(!is_in_use);
                }
            }
            kept_part += u32::from(lost_of.values().any(|lost| *lost == 1));
            // A device whose mailbox does not answer is as large as its ranges say.
            let hidden = matches!(fault, Fault::Dead(at) if at < discovered);
            let told = done.extent != Extent::Whole || hidden;
            assert!(told || lost_of.values().all(|lost| *lost == 0), "{what}: nobody says so");
        }
        // Some have to have cost a device one of its regions.
        assert!(kept_part > 0, "{name}");
    }
}

/// Two devices below one bridge, with three regions.
const THREE_REGIONS: &str = r#"
    bridge = [{ name = "hb0", uid = 16 }]
    port = [{ name = "rp0", below = "hb0" }, { name = "rp1", below = "hb0" }]
    window = [{ targets = ["hb0"], size = "4GiB" }]
    device = [
        { name = "mem0", below = "rp0", volatile = "512MiB" },
        { name = "mem1", below = "rp1", volatile = "256MiB", persistent = "256MiB" },
    ]
"#;

/// A decoder's place and its registers. The eighth dword is reserved, and not recorded.
fn words(at: Path, component: Component, index: u8, image: &DecoderImage) -> String {
    format!("{at} {component:?} {index} {:x?}", &image.to_dwords()[..7])
}

/// Each committed decoder of bridges and devices, and whether all are locked.
fn committed(machine: &Machine) -> (BTreeSet<String>, bool) {
    let fabric = machine.fabric();
    let bridges = (0..).zip(&fabric.bridges).map(|(at, it)| (Place::Bridge(at), &it.hdm));
    let devices = (0..).zip(&fabric.devices).map(|(at, it)| (Place::Device(at), &it.hdm));
    let (mut committed, mut locked) = (BTreeSet::new(), true);
    for (place, hdm) in bridges.chain(devices) {
        let is_device = matches!(place, Place::Device(_));
        let component = if is_device { Component::Device } else { Component::HostBridge };
        let decoders = hdm.iter().flat_map(|hdm| &hdm.decoders);
        for (index, image) in (0..).zip(decoders).filter(|(_, it)| it.control().committed()) {
            let at = run::path(machine.scenario(), place).unwrap();
            committed.insert(words(at, component, index, image));
            locked &= image.control().locked();
        }
    }
    (committed, locked)
}

/// The same of a record.
fn recorded(record: &Handoff<'_>) -> BTreeSet<String> {
    let entries = record.decoders().filter(|entry| entry.image.control().committed());
    entries
        .map(|entry| words(entry.place.at, entry.place.component, entry.place.index, &entry.image))
        .collect()
}

/// Devices are locked first, so what the bridge then loses stays locked in them.
#[test]
fn what_a_lost_lock_leaves_is_in_the_record_and_said() {
    for decoder in 0..3 {
        let fault = format!("[[fault]]\nat = \"hb0\"\nkind = \"lock-lost\"\ndecoder = {decoder}\n");
        let scenario = Scenario::parse(&format!("{THREE_REGIONS}{fault}"), "test").unwrap();
        let Run { machine, done, .. } = run(&scenario, Fault::None, &fault);
        let refusal = done.refusal.as_ref().map(ToString::to_string);
        assert_eq!(refusal, None, "{fault}");
        assert!(matches!(done.extent, Extent::Less { .. }), "{fault}");
        assert_eq!(served(&machine, &done, &fault).len(), decoder, "{fault}");
        let (committed, locked) = committed(&machine);
        let record = handoff::read(&done.handoff).unwrap();
        assert_eq!(recorded(&record), committed, "{fault}");
        // All three of the devices', and of the bridge those below the one that failed.
        assert_eq!((committed.len(), locked), (3 + decoder, true), "{fault}");
        let cause = |error: &cxl_firmware::Error| error.to_string().contains("but control reads");
        let said = record.outcomes().any(|it| it.outcome.error().is_some_and(cause));
        assert!(said, "{fault}: {:?}", record.outcomes().collect::<Vec<_>>());
    }
}

/// A set of two bridges that lost a member, with and without a window for the other one alone: which
/// devices are in use.
#[test]
fn what_is_left_of_a_set_goes_to_another_window_as_the_policy_says() {
    const SET: &str = r#"
        bridge = [{ name = "hb0", uid = 16 }, { name = "hb1", uid = 32 }]
        port = [{ name = "rp0", below = "hb0" }, { name = "rp1", below = "hb1" }]
        device = [
            { name = "mem0", below = "rp0", volatile = "256MiB" },
            { name = "mem1", below = "rp1", volatile = "256MiB" },
        ]
        [[window]]
        targets = ["hb0", "hb1"]
        size = "1GiB"
    "#;
    const OTHER: &str = "[[window]]\ntargets = [\"hb0\"]\nsize = \"1GiB\"\n";
    for (other, broken_sets, left) in [
        (OTHER, "narrower", true),
        (OTHER, "flat", true),
        (OTHER, "unused", false),
        ("", "narrower", false),
        ("", "flat", false),
        ("", "unused", false),
    ] {
        let policy = format!(
            "[policy]\ninterleave = \"widest\"\nprefer = \"widest\"\nbroken_sets = \"{broken_sets}\"\n"
        );
        let what =
            format!("{broken_sets}, {}", if other.is_empty() { "no other" } else { "other" });
        let text = format!("{SET}{other}{policy}");
        let scenario = Scenario::parse(&text, "test").unwrap_or_else(|e| panic!("{what}: {e}"));
        let clean = run(&scenario, Fault::None, &what);
        let sets = served(&clean.machine, &clean.done, &what);
        assert_eq!(sets, [BTreeSet::from([0, 1])], "{what}");
        let fault = "[[fault]]\nat = \"mem1\"\nkind = \"commit-error\"\ndecoder = 0\n";
        let scenario = Scenario::parse(&format!("{text}{fault}"), "test").unwrap();
        let Run { machine, done, .. } = run(&scenario, Fault::None, &what);
        let refusal = done.refusal.as_ref().map(ToString::to_string);
        assert_eq!(refusal, None, "{what}");
        assert!(matches!(done.extent, Extent::Less { .. }), "{what}");
        let in_use: Vec<_> = served(&machine, &done, &what).into_iter().flatten().collect();
        assert_eq!(in_use, if left { vec![0] } else { vec![] }, "{what}");
    }
}

#[test]
fn one_bad_part_costs_one_part() {
    for name in [
        "four-bridges",
        "two-devices-one-bridge",
        "switch",
        "one-device",
        "type2-db",
        "two-way",
        "two-partitions",
        "persistent-interleave",
    ] {
        for trial in [true, false] {
            let outcomes = sweep(name, trial);
            // Some faults have to have cost something.
            assert!(outcomes.len() > 1, "{name}: {outcomes:?}");
        }
    }
}

#[test]
fn a_sound_machine_costs_two_more_writes_a_decoder() {
    for name in ["four-bridges", "switch", "four-way", "dpa-skip"] {
        let scenario = Scenario::parse(builtin(name).unwrap().text, name).unwrap();
        let (strict, decoders) = writes(&scenario, false, 0);
        assert_eq!(writes(&scenario, true, 2), (strict + 2 * decoders, decoders), "{name}");
        // Without a trial it is the same as strict.
        let mut no_trial = scenario.clone();
        no_trial.policy.trial = false;
        assert_eq!(writes(&no_trial, true, 0), (strict, decoders), "{name}");
    }
}

/// What is wrong with one of four bridges or with what is below it, and the place that the loss names.
const PLATFORMS: [(&str, &str, &str); 5] = [
    (
        "[[window]]\ntargets = [\"hb3\"]\nbase = \"0x8c000000000\"\nsize = \"256GiB\"\n",
        "",
        "bridge 64 port 0",
    ),
    ("volatile = \"1GiB\"", "volatile = \"512GiB\"", "bridge 64 port 0"),
    (
        "[[window]]",
        "[[fault]]\nat = \"mem3\"\nkind = \"commit-error\"\ndecoder = 0\n\n[[window]]",
        "bridge 64 port 0",
    ),
    (
        "[[window]]",
        "[[fault]]\nat = \"mem3\"\nkind = \"commit-never\"\ndecoder = 0\n\n[[window]]",
        "bridge 64 port 0",
    ),
    (
        "[[window]]",
        "[[fault]]\nat = \"hb3\"\nkind = \"commit-error\"\ndecoder = 0\n\n[[window]]",
        "bridge 64",
    ),
];

#[test]
fn what_one_bridge_lacks_costs_what_is_below_it() {
    let sound = builtin("four-bridges").unwrap().text;
    for (from, to, place) in PLATFORMS {
        let text = sound.replacen(from, to, 1);
        assert_ne!(text, sound, "{from}");
        let scenario = Scenario::parse(&text, "test").unwrap_or_else(|e| panic!("{to}: {e}"));
        let Run { machine, done, .. } = run(&scenario, Fault::None, to);
        let refusal = done.refusal.as_ref().map(ToString::to_string);
        assert_eq!((refusal, done.extent), (None, Extent::Less { lost: 1 }), "{to}");
        let in_use: Vec<_> = served(&machine, &done, to).into_iter().flatten().collect();
        assert_eq!(in_use, [0, 1, 2], "{to}");
        let room = &done.room;
        let faults = room.topology.nodes.iter().filter_map(|node| node.fault);
        let remarks = room.topology.remarks.list().iter().copied();
        let words: Vec<_> = faults.chain(remarks).map(|error| error.to_string()).collect();
        assert!(words.len() == 1 && words[0].starts_with(place), "{to}: {words:?}");
        // Strict, the same machine has nothing.
        let strict = run::direct(&mut Machine::new(&scenario));
        assert!(strict.refusal.is_some(), "{to}");
    }
}

/// Three bridges with a device and a window each.
const THREE_BRIDGES: &str = r#"
    bridge = [{ uid = 16 }, { uid = 32 }, { uid = 48 }]
    port = [{ below = "hb0" }, { below = "hb1" }, { below = "hb2" }]
    device = [
        { below = "port0", volatile = "256MiB" },
        { below = "port1", volatile = "256MiB" },
        { below = "port2", volatile = "256MiB" },
    ]
    window = [
        { targets = ["hb0"], size = "1GiB" },
        { targets = ["hb1"], size = "1GiB" },
        { targets = ["hb2"], size = "1GiB" },
    ]
"#;

/// Devices that are in use, and the sentences of what was lost.
fn left(text: &str) -> (Vec<usize>, Vec<String>) {
    let scenario = Scenario::parse(text, "test").unwrap_or_else(|e| panic!("{text}: {e}"));
    let Run { machine, done, .. } = run(&scenario, Fault::None, text);
    let refusal = done.refusal.as_ref().map(ToString::to_string);
    assert_eq!(refusal, None, "{text}");
    let in_use: BTreeSet<_> = served(&machine, &done, text).into_iter().flatten().collect();
    let faults = done.room.topology.nodes.iter().filter_map(|node| node.fault);
    let remarks = done.room.topology.remarks.losses().copied();
    (in_use.into_iter().collect(), faults.chain(remarks).map(|error| error.to_string()).collect())
}

/// The first fault comes out when the second one has all taken back.
#[test]
fn a_decoder_that_stays_committed_costs_nothing_before_it() {
    let faults = r#"
        fault = [
            { at = "mem1", kind = "dropped-write", register = "control", after = 2 },
            { at = "mem2", kind = "commit-error" },
        ]
    "#;
    let (in_use, lost) = left(&format!("{THREE_BRIDGES}{faults}"));
    assert_eq!(in_use, [0], "{lost:?}");
    let names = |place: &str| lost.iter().filter(|one| one.starts_with(place)).count();
    assert_eq!(
        (lost.len(), names("bridge 32 port"), names("bridge 48 port")),
        (2, 1, 1),
        "{lost:?}"
    );
    // What stays keeps its addresses, in hardware and in the record.
    let scenario = Scenario::parse(&format!("{THREE_BRIDGES}{faults}"), "test").unwrap();
    let Run { machine, done, .. } = run(&scenario, Fault::None, "record");
    let image = machine.fabric().devices[1].hdm.as_ref().unwrap().decoders[0];
    assert!(image.control().committed() && image.size() == 256 << 20, "{image:x?}");
    let record = handoff::read(&done.handoff).unwrap();
    assert_eq!(recorded(&record), committed(&machine).0);
}

/// Four bridges with a device each, a set of them, and a window for each alone.
fn four_way(broken_sets: &str, fault: &str) -> String {
    let mut text = format!(
        "policy = {{ interleave = \"widest\", prefer = \"widest\", on_failure = \"best-effort\", \
         broken_sets = \"{broken_sets}\" }}\nfault = [{{ {fault} }}]\n"
    );
    let all = (0..4).map(|at| format!("\"hb{at}\"")).collect::<Vec<_>>().join(", ");
    text += &format!("[[window]]\ntargets = [{all}]\nsize = \"1GiB\"\n");
    for at in 0..4 {
        text += &format!(
            "[[bridge]]\nuid = {}\n[[port]]\nbelow = \"hb{at}\"\n[[device]]\nbelow = \"port{at}\"\n\
             volatile = \"256MiB\"\n[[window]]\ntargets = [\"hb{at}\"]\nsize = \"256MiB\"\n",
            16 * (at + 1)
        );
    }
    text
}

/// Devices are locked by number: those behind the one that fails are as they were, and the policy says what
/// becomes of them.
#[test]
fn a_lock_that_fails_costs_what_is_locked_of_its_set() {
    let faults =
        [r#"kind = "lock-lost""#, r#"kind = "dropped-write", register = "control", after = 2"#];
    for fault in faults {
        for failing in 0..4 {
            let fault = format!("at = \"mem{failing}\", {fault}");
            for broken_sets in ["flat", "narrower"] {
                let (in_use, lost) = left(&four_way(broken_sets, &fault));
                let behind: Vec<_> = (failing + 1..4).collect();
                assert_eq!(in_use, behind, "{broken_sets}, {fault}: {lost:?}");
            }
            let (in_use, _) = left(&four_way("unused", &fault));
            assert!(in_use.is_empty(), "{fault}: {in_use:?}");
        }
    }
}

/// A decoder that does not take Lock On Commit is found before anything is locked: what shares a path with
/// it and nothing else is as it was found, and has another chance.
#[test]
fn what_takes_no_lock_costs_itself_and_strands_nothing() {
    let fault = |at| {
        format!("at = \"{at}\", kind = \"stuck-bit\", register = \"control\", bits = \"0x100\"")
    };
    for failing in 0..4 {
        for (broken_sets, at) in [("flat", "mem"), ("narrower", "mem"), ("flat", "hb")] {
            let text = four_way(broken_sets, &fault(format!("{at}{failing}")));
            let (in_use, lost) = left(&text);
            let others: Vec<_> = (0..4).filter(|other| *other != failing).collect();
            assert_eq!((in_use, lost.len()), (others, 1), "{broken_sets}: {lost:?}");
            assert!(lost[0].contains("HDM Decoder Control"), "{lost:?}");
            let scenario = Scenario::parse(&text, "test").unwrap();
            let Run { machine, .. } = run(&scenario, Fault::None, &text);
            let (fabric, found) = (machine.fabric(), Machine::new(&scenario).fabric());
            assert_eq!(fabric.bridges[failing].hdm, found.bridges[failing].hdm);
            assert_eq!(fabric.devices[failing].hdm, found.devices[failing].hdm);
        }
        let (in_use, _) = left(&four_way("unused", &fault(format!("mem{failing}"))));
        assert!(in_use.is_empty(), "{in_use:?}");
    }
}

/// Whenever a lock is lost: before it is verified, when the table is made, or after that.
#[test]
fn a_lock_that_is_lost_late_costs_its_device() {
    let mut in_use = vec![];
    for after in 0..5 {
        let fault =
            format!("fault = [{{ at = \"mem0\", kind = \"lock-lost\", after = {after} }}]\n");
        let policy = "policy = { on_failure = \"best-effort\" }\n";
        let scenario = Scenario::parse(&format!("{policy}{fault}{THREE_BRIDGES}"), "test").unwrap();
        let mut machine = Machine::new(&scenario);
        let done = run::direct(&mut machine);
        let refusal = done.refusal.as_ref().map(ToString::to_string);
        assert_eq!(refusal, None, "{fault}");
        assert!(Cedt::read(&done.cedt).is_ok(), "{fault}");
        let all: Vec<_> = served(&machine, &done, &fault).into_iter().flatten().collect();
        assert!(all.ends_with(&[1, 2]), "{fault}: {all:?}");
        assert_eq!(done.extent == Extent::Whole, all.len() == 3, "{fault}");
        in_use.push(all.len());
    }
    // The last of them are good for so many reads.
    assert!(in_use.starts_with(&[2, 2, 2]) && in_use.ends_with(&[3]), "{in_use:?}");
}

/// The same beside regions that are locked by then, as they have no part in the set.
#[test]
fn what_a_failed_lock_gives_back_goes_beside_what_is_locked() {
    let fault = r#"at = "mem0", kind = "lock-lost""#;
    let apart = r#"
        [[bridge]]
        uid = 80
        [[port]]
        below = "hb4"
        [[device]]
        below = "port4"
        volatile = "256MiB"
        [[window]]
        targets = ["hb4"]
        size = "256MiB"
    "#;
    let (in_use, lost) = left(&format!("{}{apart}", four_way("flat", fault)));
    assert_eq!(in_use, [1, 2, 3, 4], "{lost:?}");
    assert_eq!(lost.len(), 1, "{lost:?}");
}

/// What is locked and leads nowhere claims its addresses for ever: what is planned for the rest of its set
/// comes behind them in the window, although the lowest addresses have no region any more.
#[test]
fn nothing_is_planned_over_what_stays_locked_and_leads_nowhere() {
    const WINDOW: u64 = 0x1_0000_0000;
    // Four devices of 256 MiB in one set, of which the second one loses its lock.
    const SET: u64 = 0x4000_0000;
    for (broken_sets, trial) in
        [("flat", true), ("flat", false), ("narrower", true), ("narrower", false)]
    {
        let text = format!(
            r#"
                policy = {{ interleave = "widest", on_failure = "best-effort",
                            broken_sets = "{broken_sets}", trial = {trial} }}
                bridge = [{{ uid = 16 }}]
                port = [
                    {{ below = "hb0" }}, {{ below = "hb0", number = 1 }},
                    {{ below = "hb0", number = 2 }}, {{ below = "hb0", number = 3 }},
                ]
                device = [
                    {{ below = "port0", volatile = "256MiB" }},
                    {{ below = "port1", volatile = "256MiB" }},
                    {{ below = "port2", volatile = "256MiB" }},
                    {{ below = "port3", volatile = "256MiB" }},
                ]
                window = [{{ targets = ["hb0"], base = "{WINDOW:#x}", size = "2GiB" }}]
                fault = [{{ at = "mem1", kind = "lock-lost" }}]
            "#
        );
        let what = format!("{broken_sets}, trial {trial}");
        let scenario = Scenario::parse(&text, "test").unwrap_or_else(|e| panic!("{e}"));
        let Run { machine, done, .. } = run(&scenario, Fault::None, &what);
        // The test is about something: the first device is locked where the set was.
        let first = machine.fabric().devices[0].hdm.as_ref().unwrap().decoders[0];
        assert!(first.control().locked() && first.control().committed(), "{what}");
        assert_eq!((first.base(), first.size()), (WINDOW, SET), "{what}");
        let in_use: BTreeSet<_> = served(&machine, &done, &what).into_iter().flatten().collect();
        assert_eq!(in_use, BTreeSet::from([2, 3]), "{what}");
        for region in &done.room.committed.regions {
            assert!(region.span.base().0 >= WINDOW + SET, "{what}: {region:?}");
        }
        keeps_off(&machine, &done, &what);
    }
}

/// What the policy asks for and is not there is a loss, of a set as of a device alone; but what it leaves out
/// it does not want.
#[test]
fn memory_that_is_asked_for_and_not_there_is_lost() {
    let machine = r#"
        policy = { on_failure = "best-effort" }
        bridge = [{ uid = 16 }]
        port = [{ below = "hb0", number = 1 }, { below = "hb0", number = 2 }, { below = "hb0", number = 3 }]
        window = [{ targets = ["hb0"], size = "2GiB" }]
    "#;
    let devices = |absent: &str| {
        format!(
            r#"device = [
                {{ name = "mem0", below = "port0", volatile = "256MiB" }},
                {{ name = "mem1", below = "port1", volatile = "256MiB"{absent} }},
                {{ name = "mem2", below = "port2", volatile = "256MiB" }},
            ]
            "#
        )
    };
    let set = r#"region = [{ devices = ["mem0", "mem1"] }]"#;
    let alone = r#"region = [{ device = "mem1" }]"#;
    let (there, absent) = (devices(""), devices(", present = false"));
    let left_out = r#"leave_out = ["mem1"]"#;
    let lost = ["the policy names a device at bridge 16 port 2; there is none"];
    for (devices, asked, left_out, expected, in_use) in [
        (&there, set, "", &[][..], 3),
        (&absent, set, "", &lost, 2),
        (&absent, alone, "", &lost, 2),
        (&absent, "", "", &[], 2),
        (&absent, set, left_out, &[], 2),
        (&there, set, left_out, &[], 2),
    ] {
        let text = format!(
            "{machine}{devices}{left_out}
{asked}"
        );
        let scenario = Scenario::parse(&text, "test").unwrap_or_else(|e| panic!("{text}: {e}"));
        let Run { machine, done, .. } = run(&scenario, Fault::None, &text);
        assert_eq!(done.refusal, None, "{text}");
        let found: BTreeSet<_> = served(&machine, &done, &text).into_iter().flatten().collect();
        assert_eq!(found.len(), in_use, "{text}");
        let told = done.room.topology.remarks.losses().map(ToString::to_string);
        assert_eq!(told.collect::<Vec<_>>(), expected, "{text}");
        assert_eq!(done.extent == Extent::Whole, expected.is_empty(), "{text}");
    }
}

/// What a lock costs is planned once more beside what is in use by then: that moves away from where it was,
/// and what was said of the rest still holds.
#[test]
fn notes_of_what_is_in_use_outlive_a_plan_beside_it() {
    let apart = r#"
        [[bridge]]
        uid = 80
        [[port]]
        below = "hb4"
        [[device]]
        below = "port4"
        volatile = "256MiB"
        persistent = "256MiB"
        [[window]]
        targets = ["hb4"]
        size = "256MiB"
        restrictions = ["host-only", "volatile"]
    "#;
    let done = |fault: &str, earlier| {
        let text = format!("{}{apart}", four_way("flat", fault));
        let mut machine = Machine::new(&Scenario::parse(&text, "test").unwrap());
        let wanted = run::RunRequest::of(&machine).unwrap().after(earlier);
        let tables = run::platform(&machine).unwrap();
        let occupied: Vec<_> = machine.map().fixed().collect();
        let platform = Platform { occupied: &occupied, ..tables.platform() };
        let mut clock = machine.clock();
        let done = run::on(&mut machine, &mut clock, &platform, &wanted);
        assert_eq!(done.refusal, None, "{fault}");
        (machine, done)
    };
    // Nothing is wrong yet: of the set's device 0 the lock goes when it was read often enough.
    let (_, before) = done(r#"at = "mem0", kind = "lock-lost", after = 1000"#, vec![]);
    let record = handoff::read(&before.handoff).unwrap();
    let earlier: Vec<_> = record.ranges().collect();
    let set = earlier.iter().find(|range| range.device == Path::new(16, &[0]).unwrap()).unwrap();
    let unused = |note: &Note| matches!(note, Note::Unused { why: Why::Refused { .. }, .. });
    assert_eq!(before.room.plan.notes.iter().filter(|note| unused(note)).count(), 1);
    let (machine, after) = done(r#"at = "mem0", kind = "lock-lost""#, earlier.clone());
    let in_use = served(&machine, &after, "after");
    assert_eq!(in_use.len(), 4, "{in_use:?}");
    let notes: Vec<_> = after.room.plan.notes.iter().copied().collect();
    let moved = Note::NotKept { device: set.device, span: set.span, partition: set.partition };
    let not_kept = notes.iter().filter(|note| matches!(note, Note::NotKept { .. }));
    assert_eq!(not_kept.copied().collect::<Vec<_>>(), [moved], "{notes:?}");
    assert_eq!(notes.iter().filter(|note| unused(note)).count(), 1, "{notes:?}");
    // The device that lost its lock, and the kind of memory that has no place.
    assert_eq!(after.extent, Extent::Less { lost: 2 });
}

/// A device that has no place for one kind of its memory has the other kind in use, and the plan says which
/// refusal the first one met; also where both are asked for by name.
#[test]
fn memory_without_a_place_does_not_cost_the_other_kind() {
    let all = [Partition::Volatile, Partition::Persistent];
    let by_name = r#"
                region = [
                    { device = "mem0" },
                    { device = "mem0", partition = "persistent" },
                ]"#;
    for (interleave, region) in [("flat", ""), ("widest", ""), ("flat", by_name)] {
        for kept in all {
            let (name, code) = match kept {
                Partition::Volatile => ("volatile", Code::PLAN_MEDIA_NOT_ALLOWED),
                Partition::Persistent => ("persistent", Code::PLAN_MEDIA_NOT_ALLOWED),
            };
            let text = format!(
                r#"
                policy = {{ interleave = "{interleave}" }}
                bridge = [{{ uid = 16 }}]
                port = [{{ below = "hb0" }}]
                device = [{{ below = "port0", volatile = "256MiB", persistent = "256MiB" }}]
                window = [
                    {{ targets = ["hb0"], size = "1GiB", restrictions = ["host-only", "{name}"] }},
                ]{region}
                "#
            );
            let scenario = Scenario::parse(&text, "test").unwrap();
            let Run { done, .. } = run(&scenario, Fault::None, &text);
            let refusal = done.refusal.as_ref().map(ToString::to_string);
            assert_eq!(refusal, None, "{text}");
            assert_eq!(done.extent, Extent::Less { lost: 1 }, "{text}");
            let regions = done.room.committed.regions.iter().map(|region| region.partition);
            assert_eq!(regions.collect::<Vec<_>>(), [kept], "{text}");
            let whys = done.room.plan.notes.iter().filter_map(|note| match note {
                Note::Unused { partition, size, why, .. } => Some((*partition, *size, *why)),
                _ => None,
            });
            let lost = all.into_iter().find(|partition| *partition != kept).unwrap();
            let why = Why::Refused { code: code.number() };
            assert_eq!(whys.collect::<Vec<_>>(), [(lost, 256 << 20, why)], "{text}");
        }
    }
}

/// A machine's name, its text, and whose memory has to be in use: a device for each region.
const WHOLE_AROUND: [(&str, &str, &[usize]); 3] = [
    (
        "one of a broken set has no other window",
        r#"
        policy = { on_failure = "best-effort", interleave = "widest", prefer = "widest" }
        bridge = [{ uid = 16 }, { uid = 32 }, { uid = 48 }]
        port = [{ below = "hb0" }, { below = "hb1" }, { below = "hb2" }]
        device = [
            { below = "port0", volatile = "512MiB" },
            { below = "port1", volatile = "512MiB" },
            { below = "port2", volatile = "512MiB" },
        ]
        window = [
            { targets = ["hb0", "hb1", "hb2"], size = "3GiB" },
            { targets = ["hb0"], size = "1GiB" },
        ]
        fault = [{ at = "mem2", kind = "commit-error" }]
        "#,
        &[0],
    ),
    (
        "and has another kind of memory",
        r#"
        policy = { on_failure = "best-effort", interleave = "widest", prefer = "widest" }
        bridge = [{ uid = 16 }, { uid = 32 }, { uid = 48 }]
        port = [{ below = "hb0" }, { below = "hb1" }, { below = "hb2" }]
        device = [
            { below = "port0", volatile = "512MiB", persistent = "512MiB" },
            { below = "port1", volatile = "512MiB", persistent = "512MiB" },
            { below = "port2", volatile = "512MiB", persistent = "512MiB" },
        ]
        window = [
            { targets = ["hb0", "hb1", "hb2"], size = "3GiB", restrictions = ["host-only", "volatile"] },
            { targets = ["hb0"], size = "1GiB", restrictions = ["host-only", "volatile"] },
            { targets = ["hb0"], size = "1GiB", restrictions = ["host-only", "persistent"] },
            { targets = ["hb1"], size = "1GiB", restrictions = ["host-only", "persistent"] },
            { targets = ["hb2"], size = "1GiB", restrictions = ["host-only", "persistent"] },
        ]
        leave_out = ["mem2"]
        "#,
        &[0, 0, 1],
    ),
    (
        "room that a broken device gives back",
        r#"
        policy = { on_failure = "best-effort" }
        bridge = [{ uid = 16 }]
        port = [{ below = "hb0" }, { below = "hb0" }, { below = "hb0" }]
        device = [
            { below = "port0", volatile = "1GiB" },
            { below = "port1", volatile = "1GiB" },
            { below = "port2", volatile = "1GiB" },
        ]
        window = [{ targets = ["hb0"], size = "2GiB" }]
        fault = [{ at = "mem1", kind = "commit-error" }]
        "#,
        &[0, 2],
    ),
];

/// A machine whose hardware was locked at addresses of its own before the firmware ran.
const LOCKED_ALREADY: &str = r#"
    policy = { on_failure = "best-effort" }
    bridge = [{ uid = 16 }, { uid = 32 }]
    port = [{ below = "hb0" }, { below = "hb0" }, { below = "hb1" }]
    device = [
        { below = "port0", volatile = "256MiB", persistent = "256MiB" },
        { below = "port1", volatile = "512MiB" },
        { below = "port2", volatile = "256MiB" },
    ]
    window = [
        { targets = ["hb0"], size = "2GiB", host = "0x80000000000" },
        { targets = ["hb1"], size = "1GiB", host = "0x4000000000" },
    ]
"#;

/// Whatever is lost, what has no part in that is in use, and there is a table of it.
#[test]
fn what_is_whole_around_a_loss_is_in_use_and_described() {
    let lost_lock = r#"fault = [{ at = "hb0", kind = "lock-lost", decoder = 2, after = 2 }]"#;
    let locked_already = format!("{LOCKED_ALREADY}{lost_lock}");
    let one_lock = ("one lock is missing of a machine that is locked already", &*locked_already);
    let cases = WHOLE_AROUND.into_iter().chain([(one_lock.0, one_lock.1, &[0, 0, 2][..])]);
    for (name, text, expected) in cases {
        let scenario = Scenario::parse(text, name).unwrap();
        let mut machine = Machine::new(&scenario);
        let done = run::direct(&mut machine);
        assert_eq!(done.refusal.as_ref().map(ToString::to_string), None, "{name}");
        let mut in_use: Vec<usize> = served(&machine, &done, name).into_iter().flatten().collect();
        in_use.sort_unstable();
        assert_eq!(in_use, expected, "{name}: {:?}", done.room.topology.tree());
        assert!(Cedt::read(&done.cedt).is_ok(), "{name}");
    }
}

/// Of a machine that was locked already: what a bridge that leads nowhere takes with it is not described, and
/// costs the other bridge nothing. Of persistent memory nobody can tell without writing to it.
#[test]
fn what_a_bridge_that_leads_nowhere_has_locked_keeps_no_table_away() {
    let text = format!("{LOCKED_ALREADY}{}", r#"fault = [{ at = "hb0", kind = "unrouted" }]"#);
    let mut machine = Machine::new(&Scenario::parse(&text, "test").unwrap());
    let done = run::direct(&mut machine);
    assert_eq!(done.refusal.as_ref().map(ToString::to_string), None);
    let regions = done.room.committed.regions.iter();
    let regions: Vec<_> =
        regions.map(|region| (region.partition, machine.resolve(region.span.base().0))).collect();
    let [(Partition::Persistent, None), (Partition::Volatile, Some(landing))] = regions[..] else {
        panic!("{regions:?}")
    };
    assert_eq!(landing.device, 2);
    assert!(Cedt::read(&done.cedt).is_ok());
    // The bridge's own, and those of its two devices, but for what leads to persistent memory.
    let entries = done.room.committed.decoders.iter();
    let stranded = entries.filter(|entry| entry.fate == Fate::Stranded).count();
    assert_eq!(stranded, 4, "{:?}", done.room.committed.decoders);
}

/// The decoders that led to a device that is gone keep nobody away from what comes later.
#[test]
fn what_comes_after_the_only_device_went_is_brought_up() {
    let text = r#"
        policy = { on_failure = "best-effort" }
        bridge = [{ uid = 16 }]
        port = [{ below = "hb0" }, { below = "hb0" }]
        device = [
            { below = "port0", volatile = "512MiB" },
            { name = "late", below = "port1", volatile = "512MiB", present = false },
        ]
        window = [{ targets = ["hb0"], size = "4GiB" }]
        reserve = [{ at = "hb0", size = "512MiB" }]
    "#;
    let mut machine = Machine::new(&Scenario::parse(text, "test").unwrap());
    let first = run::direct(&mut machine);
    assert_eq!((first.refusal, first.extent), (None, Extent::Whole));
    machine.hot_remove(0).unwrap();
    machine.hot_add(1).unwrap();
    machine.assign();
    let done = run::add(&mut machine);
    assert_eq!(done.refusal.as_ref().map(ToString::to_string), None);
    let in_use = served(&machine, &done, "later");
    assert_eq!(in_use, [BTreeSet::from([1])], "{:?}", done.room.topology.remarks);
    // What led to the first one is locked, and said to be of no use.
    assert!(matches!(done.extent, Extent::Less { .. }));
}

/// Sets that have all their members are what they would be without the loss; what is left of the broken one is
/// dealt with as the policy says.
#[test]
fn a_loss_changes_no_set_but_its_own() {
    // Exact pairs, of which the first one is broken, and the others have members of different sizes.
    let pairs = |dead: &str| {
        format!(
            r#"
            policy = {{ on_failure = "best-effort", interleave = "2-way at 1 KiB" }}
            bridge = [{{ uid = 16 }}]
            port = [
                {{ below = "hb0" }}, {{ below = "hb0" }}, {{ below = "hb0" }},
                {{ below = "hb0" }}, {{ below = "hb0" }}, {{ below = "hb0" }},
            ]
            device = [
                {{ below = "port0", volatile = "1GiB" }}, {{ below = "port1", volatile = "1GiB" }},
                {{ below = "port2", volatile = "1GiB" }}, {{ below = "port3", volatile = "1GiB" }},
                {{ below = "port4", volatile = "256MiB" }}, {{ below = "port5", volatile = "256MiB" }},
            ]
            window = [{{ targets = ["hb0"], size = "8GiB" }}]
            fault = [{{ at = "{dead}", kind = "commit-error" }}]
            "#
        )
    };
    let four = |words: &str| {
        format!(
            r#"
            policy = {{ on_failure = "best-effort", {words} }}
            bridge = [{{ uid = 16, decoders = 8 }}]
            port = [
                {{ below = "hb0" }}, {{ below = "hb0" }}, {{ below = "hb0" }}, {{ below = "hb0" }},
                {{ below = "hb0" }}, {{ below = "hb0" }}, {{ below = "hb0" }}, {{ below = "hb0" }},
            ]
            device = [
                {{ below = "port0", volatile = "512MiB" }}, {{ below = "port1", volatile = "512MiB" }},
                {{ below = "port2", volatile = "512MiB" }}, {{ below = "port3", volatile = "512MiB" }},
                {{ below = "port4", volatile = "512MiB" }}, {{ below = "port5", volatile = "512MiB" }},
                {{ below = "port6", volatile = "512MiB" }}, {{ below = "port7", volatile = "512MiB" }},
            ]
            window = [{{ targets = ["hb0"], size = "8GiB" }}]
            fault = [{{ at = "mem6", kind = "commit-error" }}]
            "#
        )
    };
    let named = r#"interleave = "4-way at 1 KiB""#;
    let cases: [(String, &[&[usize]]); 7] = [
        (pairs("mem0"), &[&[1], &[2, 3], &[4, 5]]),
        (pairs("mem3"), &[&[0, 1], &[2], &[4, 5]]),
        (four(named), &[&[0, 1, 2, 3], &[4, 5], &[7]]),
        (four(&format!(r#"{named}, broken_sets = "flat""#)), &[&[0, 1, 2, 3], &[4], &[5], &[7]]),
        (four(&format!(r#"{named}, broken_sets = "unused""#)), &[&[0, 1, 2, 3]]),
        (
            four(r#"interleave = "widest", broken_sets = "flat""#),
            &[&[0], &[1], &[2], &[3], &[4], &[5], &[7]],
        ),
        (four(r#"interleave = "widest""#), &[&[0, 1, 2, 3], &[4, 5], &[7]]),
    ];
    for (text, expected) in cases {
        let mut machine = Machine::new(&Scenario::parse(&text, "test").unwrap());
        let done = run::direct(&mut machine);
        assert_eq!(done.refusal.as_ref().map(ToString::to_string), None, "{text}");
        let mut sets = served(&machine, &done, &text);
        sets.sort();
        let expected: Vec<_> = expected.iter().map(|set| set.iter().copied().collect()).collect();
        assert_eq!(sets, expected, "{text}");
        assert!(matches!(done.extent, Extent::Less { .. }), "{text}");
    }
    // Nothing is shorter for it: what is in use is what is not lost.
    let mut machine = Machine::new(&Scenario::parse(&pairs("mem0"), "test").unwrap());
    let sizes: u64 =
        run::direct(&mut machine).room.committed.regions.iter().map(|r| r.span.size()).sum();
    assert_eq!(sizes, 3584_u64 << 20);
}

/// What an earlier boot stage left costs what it is in, and what is below that: nothing before it in the
/// order of commit.
#[test]
fn one_decoder_that_somebody_left_committed_costs_its_component() {
    let builtins = ["four-bridges", "two-devices-one-bridge", "switch", "two-partitions"];
    let builtins = builtins.map(|name| (name, builtin(name).unwrap().text));
    for (name, text) in builtins.into_iter().chain([("three bridges", THREE_BRIDGES)]) {
        let scenario = Scenario::parse(text, name).unwrap();
        let mut unlocked = scenario.clone();
        unlocked.policy.path = PathPolicy::Unlocked;
        let clean = run(&unlocked, Fault::None, name);
        let all = served(&clean.machine, &clean.done, name);
        let tree = clean.done.room.topology.tree();
        let bridges = (0..scenario.bridges.len()).map(Place::Bridge);
        let switches = (0..scenario.switches.len()).map(Place::Switch);
        let places = bridges.chain(switches).chain((0..scenario.devices.len()).map(Place::Device));
        for place in places {
            let entry = clean.done.room.committed.decoders.iter().find(|entry| {
                let is_device = tree.get(entry.node).unwrap().device().is_some();
                run::path(&scenario, place) == Some(tree.path(entry.node))
                    && is_device == matches!(place, Place::Device(_))
                    && entry.index == 0
            });
            let Some(entry) = entry else { continue };
            let mut machine = Machine::new(&scenario);
            let what = format!("{name}, {} left committed", machine.name(place));
            let block = tree.get(entry.node).unwrap().hdm.unwrap().block;
            let registers = DecoderRegisters::new(block, 0);
            registers.write(&mut machine, entry.image);
            registers.write_control(&mut machine, entry.image.control());
            let left = registers.read(&mut machine);
            assert!(left.control().committed() && !left.control().locked(), "{what}");
            let Run { machine, done, .. } = run_on(machine, Fault::None, &what);
            let refusal = done.refusal.as_ref().map(ToString::to_string);
            assert_eq!(refusal, None, "{what}");
            let in_use: BTreeSet<usize> =
                served(&machine, &done, &what).into_iter().flatten().collect();
            for device in all.iter().flatten() {
                let below = upwards(&scenario, Place::Device(*device)).contains(&place);
                assert_eq!(in_use.contains(device), !below, "{what}: device {device}");
            }
            assert!(matches!(done.extent, Extent::Less { .. }), "{what}");
        }
    }
}

#[test]
fn a_cxl_1_1_host_costs_nothing_else_and_is_no_loss() {
    let sound = builtin("four-bridges").unwrap().text;
    let restricted = sound.replacen("uid = 64", "uid = 64\nversion = \"1.1\"", 1);
    // Its RCRB answers, or does not; then Linux would give up all bridges for it.
    let dead = "[[fault]]\nat = \"hb3\"\nkind = \"all-ones-after\"\nafter = 0\n\n[[window]]";
    let silent = restricted.replacen("[[window]]", dead, 1);
    for (text, in_table, remark) in [(restricted, true, 0x0289), (silent, false, 0x028A)] {
        let scenario = Scenario::parse(&text, "test").unwrap();
        let Run { machine, done, .. } = run(&scenario, Fault::None, &text);
        let strict = run::direct(&mut Machine::new(&scenario));
        for done in [&done, &strict] {
            assert_eq!((&done.refusal, done.extent), (&None, Extent::Whole));
            let in_use: Vec<_> = served(&machine, done, "").into_iter().flatten().collect();
            assert_eq!(in_use, [0, 1, 2]);
            let remarks: Vec<_> =
                done.room.topology.remarks.list().iter().map(|remark| remark.code()).collect();
            assert_eq!(remarks, [remark]);
            let bridges = Cedt::read(&done.cedt).unwrap().host_bridges();
            let restricted = { bridges }.find(|bridge| bridge.version() == ChbsVersion::Rch);
            assert_eq!(restricted.map(|bridge| bridge.uid), in_table.then_some(64));
            // Linux, asked about the registers and the table, takes all the rest.
            let found = lint(&Input::of(&machine, &done.cedt));
            assert!(found.iter().all(|finding| finding.rule != Rule::Rcrb), "{found:#?}");
        }
        // The platform's own table would cost it everything where the RCRB is none.
        let own = cxl_model::acpi::Tables::new(&scenario, machine.map(), run::TABLES_BASE);
        let own = Input::of(&machine, own.table(&own.cedt));
        let found = lint(&own);
        assert_eq!(found.iter().any(|finding| finding.rule == Rule::Rcrb), !in_table);
    }
}

/// A region: its kind of memory, and the devices that have it.
type Part = (Partition, BTreeSet<usize>);

/// A machine, and what is in use of it: the kinds of memory by ascending address, what the policy's notes
/// number, and how many losses are told.
fn parts(text: &str) -> (Vec<Part>, Vec<Note>, Extent) {
    let scenario = Scenario::parse(text, "test").unwrap_or_else(|e| panic!("{text}: {e}"));
    let Run { machine, done, .. } = run(&scenario, Fault::None, text);
    let refusal = done.refusal.as_ref().map(ToString::to_string);
    assert_eq!(refusal, None, "{text}");
    let regions = done.room.committed.regions.iter().map(|region| region.partition);
    let parts = regions.zip(served(&machine, &done, text)).collect();
    (parts, done.room.plan.notes.iter().copied().collect(), done.extent)
}

fn refused(notes: &[Note]) -> Vec<(Partition, u16)> {
    let refused = notes.iter().filter_map(|note| match note {
        Note::Unused { partition, why: Why::Refused { code }, .. } => Some((*partition, *code)),
        _ => None,
    });
    refused.collect()
}

/// One decoder too few, or host addresses against the order of device addresses: one kind of a device's memory
/// has no place, and the other one is in use.
#[test]
fn what_one_kind_of_memory_lacks_does_not_cost_the_other() {
    use Partition::{Persistent, Volatile};
    let device = r#"
        bridge = [{ uid = 16, DECODERS }]
        port = [{ below = "hb0" }, { below = "hb0" }]
        device = [{ below = "port0", volatile = "512MiB", persistent = "256MiB", OWN }]
    "#;
    let one = r#"window = [{ targets = ["hb0"], size = "2GiB" }]"#;
    let contrary = r#"
        window = [
            { targets = ["hb0"], size = "1GiB", restrictions = ["host-only", "persistent"] },
            { targets = ["hb0"], size = "1GiB", restrictions = ["host-only", "volatile"] },
        ]
    "#;
    let asked = r#"
        region = [
            { device = "mem0", size = "256MiB" },
            { device = "mem0", size = "256MiB", partition = "volatile" },
            { device = "mem0", partition = "persistent" },
        ]
    "#;
    let exhausted = Code::PLAN_DECODERS_EXHAUSTED.number();
    let order = Code::PLAN_DPA_ORDER.number();
    let of_bridge = |count: u8| format!("decoders = {count}");
    for (bridge, own, windows, region, in_use, lost) in [
        (of_bridge(1), "decoders = 4", one, "", &[Volatile][..], (Persistent, exhausted)),
        (of_bridge(4), "decoders = 1", one, "", &[Volatile], (Persistent, exhausted)),
        (of_bridge(2), "decoders = 4", one, asked, &[Volatile, Volatile], (Persistent, exhausted)),
        (of_bridge(4), "decoders = 4", contrary, "", &[Persistent], (Volatile, order)),
    ] {
        for trial in [true, false] {
            let device = device.replace("DECODERS", &bridge).replace("OWN", own);
            let text = format!("policy.trial = {trial}\n{device}{windows}{region}");
            let (parts, notes, extent) = parts(&text);
            let kinds: Vec<_> = parts.iter().map(|(kind, _)| *kind).collect();
            assert_eq!(kinds, in_use, "{text}: {notes:?}");
            assert_eq!(refused(&notes), [lost], "{text}");
            assert_eq!(extent, Extent::Less { lost: 1 }, "{text}");
        }
    }
}

/// A set that no window leads to is said to have no place, once; its members go on as those of a set that lost
/// one, and none of them is at fault.
#[test]
fn a_set_without_a_place_costs_none_of_its_members() {
    use Partition::{Persistent, Volatile};
    const SETS: u16 = 0x038D;
    let machine = r#"
        bridge = [{ uid = 16 }, { uid = 32 }]
        port = [{ below = "hb0" }, { below = "hb1" }]
        device = [
            { below = "port0", volatile = "256MiB", persistent = "256MiB" },
            { below = "port1", volatile = "256MiB" },
        ]
        window = [{ targets = ["hb0"], size = "1GiB" }, { targets = ["hb1"], size = "1GiB" }]
    "#;
    let set = r#"{ devices = ["mem0", "mem1"] }"#;
    let kind = r#"{ device = "mem0", partition = "persistent" }"#;
    for (broken_sets, regions, expected) in [
        ("narrower", set.to_owned(), &[(Volatile, 0), (Persistent, 0), (Volatile, 1)][..]),
        ("flat", set.to_owned(), &[(Volatile, 0), (Persistent, 0), (Volatile, 1)]),
        ("unused", set.to_owned(), &[]),
        ("narrower", format!("{set}, {kind}"), &[(Persistent, 0), (Volatile, 1)]),
        ("unused", format!("{set}, {kind}"), &[(Persistent, 0)]),
    ] {
        let policy = format!("policy.broken_sets = \"{broken_sets}\"\n");
        let text = format!("{policy}{machine}region = [{regions}]\n");
        let (parts, notes, extent) = parts(&text);
        let parts: Vec<_> =
            parts.iter().map(|(kind, set)| (*kind, *set.first().unwrap())).collect();
        assert_eq!(parts, expected, "{text}: {notes:?}");
        assert_eq!(notes.iter().filter(|note| note.code() == SETS).count(), 1, "{text}: {notes:?}");
        assert_eq!(extent, Extent::Less { lost: 1 }, "{text}");
        let unasked = |note: &&Note| {
            matches!(note, Note::Unused { why: Why::NotAsked, partition: Volatile, .. })
        };
        assert_eq!(notes.iter().find(unasked), None, "{text}");
    }
}

/// What the owner leaves out is no loss; what that leaves of its set is told with the reason.
#[test]
fn what_a_left_out_member_leaves_unused_is_told() {
    let text = r#"
        policy.broken_sets = "unused"
        leave_out = ["mem1"]
        bridge = [{ uid = 16 }]
        port = [{ below = "hb0" }, { below = "hb0" }]
        device = [{ below = "port0", volatile = "256MiB" }, { below = "port1", volatile = "256MiB" }]
        window = [{ targets = ["hb0"], size = "1GiB" }]
        region = [{ devices = ["mem0", "mem1"] }]
    "#;
    let (parts, notes, _) = parts(text);
    assert_eq!(parts, []);
    let whys = notes.iter().filter_map(|note| match note {
        Note::Unused { why, .. } => Some(*why),
        _ => None,
    });
    assert_eq!(whys.collect::<Vec<_>>(), [Why::Failed], "{notes:?}");
}
