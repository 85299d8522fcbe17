//! Room is kept for devices that come later, and what comes is brought up beside what is in use: of all
//! that was there nothing moves, nothing is written to, and nothing is lost, whatever goes wrong.
//!
//! **Invariant**: nothing here asks the library what is so: registers are read from the models, and the
//! models say where addresses lead.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::{BTreeMap, BTreeSet};

use cxl_firmware::bring_up::{Extent, add};
use cxl_firmware::error;
use cxl_firmware::outcome::{ComponentKind, Outcome};
use cxl_firmware::plan::Note;
use cxl_firmware::tables;
use cxl_harness::run::{self, DirectRun, Refusal};
use cxl_model::machine::Machine;
use cxl_model::scenario::{
    OnFailure, Parent, Partition, PathPolicy, Place, Reserve, Scenario, builtin, builtins,
};
use cxl_regs::mmio::Mmio;

/// Every dword of configuration space and component registers of what is there, by component and offset.
type Registers = BTreeMap<(String, u64), u32>;

fn registers(machine: &Machine) -> Registers {
    let mut image = machine.frozen();
    let mut found = Registers::new();
    for place in machine.places() {
        let name = machine.name(place).to_owned();
        if matches!(place, Place::Device(device) if !machine.present(device)) {
            continue;
        }
        if let Some(function) = machine.function(place) {
            for offset in (0..0x1000u16).step_by(4) {
                found.insert((name.clone(), offset.into()), function.read(offset));
            }
        }
        if let Some(block) = machine.registers_of(place) {
            for offset in (0x1000..0x2000).step_by(4) {
                found.insert((name.clone(), 0x1_0000 + offset), image.read(block + offset));
            }
        }
    }
    found
}

/// A device and the components above it, by name.
fn above(machine: &Machine, device: usize) -> BTreeSet<String> {
    let scenario = machine.scenario();
    let mut port = scenario.devices[device].port;
    let mut names = BTreeSet::from([machine.name(Place::Device(device)).to_owned()]);
    loop {
        names.insert(machine.name(Place::Port(port)).to_owned());
        let place = match scenario.ports[port].parent {
            Parent::Bridge(bridge) => Place::Bridge(bridge),
            Parent::Switch(switch) => Place::Switch(switch),
        };
        names.insert(machine.name(place).to_owned());
        match place {
            Place::Switch(switch) => port = scenario.switches[switch].port,
            _ => return names,
        }
    }
}

/// Where both ends of each region lead that is in use.
fn landings(machine: &Machine, done: &DirectRun) -> Vec<(u64, Option<usize>)> {
    let regions = done.room.committed.regions.iter();
    let ends = regions.flat_map(|region| [region.span.base().0, region.span.last().0]);
    ends.map(|at| (at, machine.resolve(at).map(|landing| landing.device))).collect()
}

/// The decoders of the models that are committed, by component.
fn committed(machine: &Machine) -> BTreeMap<String, Vec<[u32; 8]>> {
    let fabric = machine.fabric();
    let bridges = fabric.bridges.iter().map(|bridge| (&bridge.name, &bridge.hdm));
    let switches = fabric.switches.iter().map(|switch| (&switch.name, &switch.hdm));
    let devices = fabric.devices.iter().map(|device| (&device.name, &device.hdm));
    let all = bridges.chain(switches).chain(devices);
    let images = all.map(|(name, hdm)| {
        let images = hdm.iter().flat_map(|hdm| &hdm.decoders);
        let in_use = images.filter(|image| image.control().committed());
        (name.clone(), in_use.map(|image| image.to_dwords()).collect())
    });
    images.collect()
}

/// What was there before is there, register by register; of the newcomer and components above it the newcomer decoders may
/// have been added, and their links have another end.
fn nothing_moved(what: &str, machine: &Machine, late: usize, before: &Registers) {
    let (path, now) = (above(machine, late), registers(machine));
    for (key, was) in before {
        if !path.contains(&key.0) {
            assert_eq!(now.get(key), Some(was), "{what}: {key:?} changed");
        }
    }
}

fn decoders_stay(what: &str, machine: &Machine, before: &BTreeMap<String, Vec<[u32; 8]>>) {
    let now = committed(machine);
    for (name, were) in before {
        assert!(
            now[name].starts_with(were),
            "{what}: decoders of {name}: {:x?}, {were:x?}",
            now[name]
        );
    }
}

/// A scenario in which one device comes later, and room is kept for it.
fn without(scenario: &Scenario, late: usize) -> Scenario {
    let mut scenario = scenario.clone();
    let device = &mut scenario.devices[late];
    device.present = false;
    let at = Place::Port(device.port);
    let parts =
        [(Partition::Volatile, device.volatile), (Partition::Persistent, device.persistent)];
    let wanted = parts.into_iter().filter(|(_, size)| *size > 0);
    scenario.reserve = wanted.map(|(partition, size)| Reserve { at, partition, size }).collect();
    scenario
}

/// A table but for its checksum and, of each window, Fixed Device Configuration, which is that something is
/// locked there.
fn unfixed(cedt: &[u8]) -> Vec<u8> {
    const FIXED: u8 = 1 << 4;
    let mut bytes = cedt.to_vec();
    bytes[9] = 0;
    // Behind the header records follow each other, each with its length; type 1 is a window.
    let mut at = 36;
    while at < bytes.len() {
        if bytes[at] == 1 {
            bytes[at + 32] &= !FIXED;
        }
        at += usize::from(u16::from_le_bytes([bytes[at + 2], bytes[at + 3]]));
    }
    bytes
}

fn number(done: &DirectRun) -> u16 {
    done.refusal.as_ref().map_or(0, Refusal::code)
}

/// What cannot be used, and by which number.
fn broken(done: &DirectRun) -> Vec<(error::Place, u16)> {
    let broken = done.room.outcomes().filter_map(|found| match found.outcome {
        Outcome::Broken(error) => Some((found.at, error.code())),
        _ => None,
    });
    broken.collect()
}

/// Each device of each built-in comes later: it gets in, or it is refused by name beforehand, as no room
/// can be kept, or then.
#[test]
fn whatever_comes_later_moves_nothing() {
    let mut outcomes = BTreeMap::<(&str, u16), u32>::new();
    for builtin in builtins() {
        let sound = Scenario::parse(builtin.text, builtin.name).unwrap();
        for (late, effort) in
            (0..sound.devices.len()).flat_map(|late| [(late, false), (late, true)])
        {
            let mut scenario = without(&sound, late);
            if effort {
                scenario.policy.on_failure = OnFailure::BestEffort;
            }
            let what = format!("{}, device {late}, best effort {effort}", builtin.name);
            let mut machine = Machine::new(&scenario);
            let first = run::direct(&mut machine);
            // What comes to a machine whose devices are handed over is hardware's to bring up.
            // Nor does a second device fit behind a port.
            let port = sound.devices[late].port;
            if machine.hardware().is_some() || machine.below(port).is_some() {
                continue;
            }
            if first.refusal.is_some() || first.extent != Extent::Whole {
                *outcomes.entry(("before", number(&first))).or_default() += 1;
                continue;
            }
            let port = run::path(&scenario, Place::Port(sound.devices[late].port)).unwrap();
            let reserved = first.room.plan.notes.iter().filter_map(|note| match note {
                Note::Reserved { at, span, .. } if *at == port => Some(*span),
                _ => None,
            });
            let reserved: Vec<_> = reserved.collect();
            let outcome = first.room.outcomes().find(|outcome| {
                outcome.at == port.into() && outcome.kind != Some(ComponentKind::UpstreamPort)
            });
            assert_eq!(outcome.map(|found| found.outcome), Some(Outcome::Unused), "{what}: {port}");
            // The platform lets nothing in that it has no place for.
            if machine.hot_add(late).is_err() {
                *outcomes.entry(("platform", 0)).or_default() += 1;
                continue;
            }
            machine.assign();
            let (before, decoders) = (registers(&machine), committed(&machine));
            let memory = landings(&machine, &first);
            let done = run::add(&mut machine);
            nothing_moved(&what, &machine, late, &before);
            decoders_stay(&what, &machine, &decoders);
            let found = landings(&machine, &done);
            assert!(memory.iter().all(|landing| found.contains(landing)), "{what}: {found:x?}");
            // What cannot be used is named, and of what was there it is what it was.
            let (was, mut broken) = (broken(&first), broken(&done));
            broken.retain(|found| !was.contains(found));
            // A bridge may be what fails of it, where that is broken by itself.
            let own = |at: &error::Place| at.uid() == Some(port.uid());
            assert!(broken.iter().all(|(at, _)| own(at)), "{what}: {broken:x?}");
            let code = broken.first().map_or(number(&done), |(_, code)| *code);
            *outcomes.entry(("add", code)).or_default() += 1;
            if code != 0 {
                continue;
            }
            assert_eq!(done.extent, Extent::Whole, "{what}");
            let new: Vec<_> = found.iter().filter(|landing| !memory.contains(landing)).collect();
            assert_eq!(new.is_empty(), reserved.is_empty(), "{what}");
            assert!(new.iter().all(|(_, device)| *device == Some(late)), "{what}: {new:x?}");
            // Room is for any coherency, and the device may need another window.
            let window = |at: u64| {
                let windows = &machine.map().windows;
                windows.iter().flatten().map(|base| base.0).filter(|base| *base <= at).max()
            };
            let lies = |at: u64| {
                let same = |span: &&cxl_regs::Span| window(span.base().0) == window(at);
                let mut same = reserved.iter().filter(same).peekable();
                same.peek().is_none() || { same }.any(|span| span.contains(cxl_regs::Hpa(at)))
            };
            assert!(new.iter().all(|(at, _)| lies(*at)), "{what}: {new:x?}, {reserved:?}");
            let locked = |region: &cxl_firmware::committed::CommittedRegion| region.locked;
            // As the policy wants it; of a machine that had nothing, what was there says nothing.
            if scenario.policy.path == PathPolicy::LockAll {
                assert!(done.room.committed.regions.iter().all(locked), "{what}");
            }
            assert_eq!(machine.misuse(), [], "{what}");
            // The table has the same windows and bridges, but for what a window is for from now on.
            assert_eq!(unfixed(&done.cedt), unfixed(&first.cedt), "{what}");
            // Done again there is nothing to do.
            let after = registers(&machine);
            let again = run::add(&mut machine);
            assert_eq!((number(&again), &registers(&machine)), (0, &after), "{what}: again");
            assert_eq!(landings(&machine, &again), found, "{what}: again");
        }
    }
    println!("{outcomes:?}");
    assert!(outcomes[&("add", 0)] >= 40, "{outcomes:?}");
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// From this write on, what is written there is lost.
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
    /// The register that is dead.
    dead: Option<u64>,
    /// The component that the fault is in.
    place: Option<Place>,
}

impl<'m> Bus<'m> {
    fn new(machine: &'m mut Machine, fault: Fault) -> Self {
        Self { machine, fault, reads: 0, writes: 0, dead: None, place: None }
    }

    fn place(&self, address: u64) -> Option<Place> {
        let registers = self.machine.target(address).and_then(|target| target.place());
        registers.or_else(|| self.machine.device_at(address).map(Place::Device))
    }

    fn is_gone(&self, address: u64) -> bool {
        let gone = matches!(self.fault, Fault::Gone(_)) && self.place.is_some();
        gone && self.place(address) == self.place
    }
}

impl Mmio for Bus<'_> {
    fn read(&mut self, address: u64) -> u32 {
        if matches!(self.fault, Fault::Gone(at) if at == self.reads) {
            self.place = self.place(address);
        }
        self.reads += 1;
        let value = self.machine.read(address);
        if self.is_gone(address) { u32::MAX } else { value }
    }

    fn write(&mut self, address: u64, value: u32) {
        if matches!(self.fault, Fault::Dead(at) if at == self.writes) {
            (self.place, self.dead) = (self.place(address), Some(address));
        }
        self.writes += 1;
        if self.dead != Some(address) && !self.is_gone(address) {
            self.machine.write(address, value);
        }
    }
}

/// What was there is in use, as the library says, and in the table that it makes and holds against the
/// registers.
fn is_described(
    what: &str,
    hw: &mut Bus<'_>,
    tables: &run::Tables,
    room: &run::Room,
    there: &[u64],
) {
    let regions = &room.committed.regions;
    let told = |at: u64| regions.iter().any(|region| region.span.contains(cxl_regs::Hpa(at)));
    assert!(there.iter().all(|at| told(*at)), "{what}: {regions:x?}");
    let mut buffer = vec![0; 64 << 10];
    let (topology, committed) = (&room.topology, &room.committed);
    let table = tables::cedt(&tables.platform(), topology, committed, run::IDENTITY, &mut buffer);
    let table = table.unwrap_or_else(|error| panic!("{what}: {error}"));
    let checked = tables::cross_check_hardware(hw, table, topology, committed);
    // What goes away once its decoders were looked at is found by this check.
    if checked.is_err() && matches!(hw.fault, Fault::Gone(_)) {
        return;
    }
    assert_eq!(checked.map_err(|error| error.to_string()), Ok(()), "{what}");
}

/// What came of so many faults.
#[derive(Debug, Default)]
struct Count {
    lost: u32,
    got_in: u32,
}

/// One fault while a device is added to a machine that had none; whether there was anything left to fail.
fn fail(scenario: &Scenario, late: usize, fault: Fault, count: &mut Count) -> bool {
    let what =
        format!("{}, device {late}, {:?}, {fault:?}", scenario.name, scenario.policy.on_failure);
    let mut machine = Machine::new(scenario);
    let first = run::direct(&mut machine);
    assert_eq!(first.refusal, None, "{what}");
    machine.hot_add(late).unwrap();
    machine.assign();
    let (before, decoders) = (registers(&machine), committed(&machine));
    let memory = landings(&machine, &first);
    let wanted = run::RunRequest::of(&machine).unwrap();
    let tables = run::platform(&machine).unwrap();
    let mut clock = machine.clock();
    let mut bus = Bus::new(&mut machine, fault);
    let mut room = run::room();
    let result = add(&mut bus, &mut clock, &tables.platform(), &wanted.policy(), &mut *room);
    let (reads, writes, place) = (bus.reads, bus.writes, bus.place);
    let more = match fault {
        Fault::Dead(at) => at < writes,
        Fault::Gone(at) => at < reads,
    };
    if !more {
        // It was to come later, and comes no more.
        bus.fault = Fault::Dead(u64::MAX);
    }
    let is_late = place == Some(Place::Device(late));
    // Discovery asks every device how large it is; and of what goes away whole, what leads through it is
    // as far as anybody can say gone too.
    let others = match (fault, place) {
        (Fault::Dead(_), Some(Place::Device(_))) | (Fault::Gone(_), Some(_)) => !is_late,
        _ => false,
    };
    let there: Vec<u64> = memory.iter().map(|(at, _)| *at).collect();
    if result.is_ok() && !others {
        is_described(&what, &mut bus, &tables, &room, &there);
    }
    // What is not locked is not a second run's to take as it is.
    let locks = scenario.policy.path == PathPolicy::LockAll;
    if matches!(result, Ok(Extent::Less { .. })) && !others && locks {
        // Nor does a run over the whole of it, which finds what that left.
        let again = run::on(&mut bus, &mut clock, &tables.platform(), &wanted);
        let refusal = again.refusal.as_ref().map(Refusal::to_string);
        assert_eq!(refusal, None, "{what}: again");
        let what = format!("{what}: again");
        is_described(&what, &mut bus, &tables, &again.room, &there);
    }
    nothing_moved(&what, &machine, late, &before);
    decoders_stay(&what, &machine, &decoders);
    for (at, device) in memory {
        let found = machine.resolve(at).map(|landing| landing.device);
        assert_eq!(found, device, "{what}: {at:#x}");
    }
    match result {
        Ok(Extent::Whole) => count.got_in += 1,
        Ok(Extent::Less { .. }) => {
            assert_eq!(scenario.policy.on_failure, OnFailure::BestEffort, "{what}");
            // The device is named, and nothing that was there.
            let tree = room.topology.tree();
            let own = run::path(scenario, Place::Device(late)).unwrap();
            let faults = tree.iter().filter(|(_, node)| node.fault.is_some());
            let own = { faults }.all(|(id, _)| {
                let at = tree.path(id);
                at.uid() == own.uid() && own.ports().starts_with(at.ports())
            });
            assert!(own || others, "{what}: {place:?}");
            count.lost += 1;
        }
        Err(_) => count.lost += 1,
    }
    more
}

#[test]
fn whatever_fails_of_what_comes_costs_nothing_that_was_there() {
    for (name, late) in [("four-bridges", 2), ("two-devices-one-bridge", 1), ("switch", 0)] {
        for effort in [OnFailure::Strict, OnFailure::BestEffort] {
            let mut scenario =
                without(&Scenario::parse(builtin(name).unwrap().text, name).unwrap(), late);
            scenario.policy.on_failure = effort;
            let mut count = Count::default();
            { 0.. }.take_while(|at| fail(&scenario, late, Fault::Dead(*at), &mut count)).count();
            // Every register is read often, so some of the reads will do.
            let some = (0..).step_by(40);
            { some }.take_while(|at| fail(&scenario, late, Fault::Gone(*at), &mut count)).count();
            assert!(count.lost > 3 && count.got_in > 1, "{name}: {count:?}");
        }
    }
}

/// The same with best effort, for each device of each built-in machine that lets one in.
#[test]
fn on_no_machine_a_fault_of_a_newcomer_costs_what_is_in_use() {
    let mut counts = BTreeMap::new();
    for builtin in builtins() {
        let sound = Scenario::parse(builtin.text, builtin.name).unwrap();
        for late in 0..sound.devices.len() {
            let mut scenario = without(&sound, late);
            scenario.policy.on_failure = OnFailure::BestEffort;
            let mut machine = Machine::new(&scenario);
            let first = run::direct(&mut machine);
            let port = sound.devices[late].port;
            let taken = machine.hardware().is_some() || machine.below(port).is_some();
            let whole = |done: &DirectRun| done.refusal.is_none() && done.extent == Extent::Whole;
            if taken || !whole(&first) || machine.hot_add(late).is_err() {
                continue;
            }
            machine.assign();
            let memory = first.room.committed.regions.len();
            let done = run::add(&mut machine);
            if memory == 0 || !whole(&done) || done.room.committed.regions.len() == memory {
                continue;
            }
            let mut count = Count::default();
            { 0.. }.take_while(|at| fail(&scenario, late, Fault::Dead(*at), &mut count)).count();
            assert!(count.lost > 3, "{}: {count:?}", builtin.name);
            counts.insert((builtin.name, late), (count.lost, count.got_in));
        }
    }
    println!("{counts:?}");
    assert!(counts.len() >= 10, "{counts:?}");
}

/// A decoder of the bridge that commits never, or with an error, is the newcomer's loss; and it is named.
#[test]
fn a_bridge_whose_new_decoder_sticks_keeps_its_old_regions() {
    for kind in ["commit-error", "commit-never"] {
        let text = builtin("two-devices-one-bridge").unwrap().text;
        let fault =
            format!("[[fault]]\nat = \"hb0\"\nkind = \"{kind}\"\ndecoder = 1\n\n[[window]]");
        let text = text.replacen("[[window]]", &fault, 1);
        let mut scenario = without(&Scenario::parse(&text, "test").unwrap(), 1);
        scenario.policy.on_failure = OnFailure::BestEffort;
        let mut machine = Machine::new(&scenario);
        let first = run::direct(&mut machine);
        assert_eq!((&first.refusal, first.extent), (&None, Extent::Whole), "{kind}");
        machine.hot_add(1).unwrap();
        machine.assign();
        let memory = landings(&machine, &first);
        for run in [run::add, run::direct] {
            let done = run(&mut machine);
            assert_eq!(done.refusal, None, "{kind}");
            assert!(matches!(done.extent, Extent::Less { .. }), "{kind}");
            assert_eq!(landings(&machine, &done), memory, "{kind}");
            assert_eq!(unfixed(&done.cedt), unfixed(&first.cedt), "{kind}");
            let named: Vec<_> = broken(&done).into_iter().map(|(at, _)| at.to_string()).collect();
            assert!(named.contains(&"bridge 16 port 7".to_owned()), "{kind}: {named:?}");
        }
    }
}
