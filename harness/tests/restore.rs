//! The same memory again: from its hand-off record every machine comes back as it was, register by
//! register, whatever reset it went through; and a machine that changed comes back but for what changed.
//!
//! **Invariant**: nothing here asks the library what is so: registers are read from the models, and
//! the models say where addresses lead. [`EXCEPT`] is all that may differ.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;

use cxl_firmware::DecoderRegisters;
use cxl_firmware::error::Code;
use cxl_firmware::handoff::{self, Handoff};
use cxl_firmware::list::Empty;
use cxl_firmware::list::Slots;
use cxl_firmware::outcome::{ComponentKind, ComponentOutcome, Extent, Outcome};
use cxl_firmware::plan::Note;
use cxl_firmware::restore::{Pci, restore};
use cxl_harness::run;
use cxl_model::device::Reset;
use cxl_model::machine::Machine;
use cxl_model::scenario::{Place, Scenario, builtin, builtins};
use cxl_regs::mmio::Mmio;

/// What a reset leaves otherwise and no restore is to put back: the name of the register, and the bits
/// of its dword. Registers of the mailbox hold its last command, and are not compared.
const EXCEPT: [(&str, u32); 1] = [
    // CXL Reset Complete says that there was one.
    ("DVSEC CXL Control2", 1 << 17),
];

const RESETS: [Reset; 5] = [Reset::Cold, Reset::Warm, Reset::Hot, Reset::Cxl, Reset::Flr];

/// Every dword of configuration space and component registers of everything that is there, by name and
/// offset.
fn registers(machine: &Machine) -> BTreeMap<(String, u64), u32> {
    let mut image = machine.frozen();
    let mut found = BTreeMap::new();
    for place in machine.places() {
        let name = machine.name(place).to_owned();
        if matches!(place, Place::Device(device) if !machine.present(device)) {
            continue;
        }
        if let Some(function) = machine.function(place) {
            for offset in (0..0x1000u16).step_by(4) {
                let except = function.name(offset).and_then(|name| {
                    EXCEPT.iter().find(|(register, _)| name.register == *register)
                });
                let mask = except.map_or(u32::MAX, |(_, bits)| !bits);
                found.insert((name.clone(), offset.into()), function.read(offset) & mask);
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

/// The first registers that differ.
fn differences(
    before: &BTreeMap<(String, u64), u32>,
    after: &BTreeMap<(String, u64), u32>,
) -> Vec<String> {
    let both = before.keys().chain(after.keys()).filter(|key| before.get(key) != after.get(key));
    let line = |key: &(String, u64)| {
        let value = |of: &BTreeMap<_, u32>| of.get(key).map(|value| format!("{value:#010x}"));
        format!("{} {:#x}: {:?}, was {:?}", key.0, key.1, value(after), value(before))
    };
    both.take(5).map(line).collect()
}

/// What writes go where.
struct Bus<'m> {
    machine: &'m mut Machine,
    /// Writes but those to a mailbox.
    writes: usize,
    /// Before which access the machine is reset. The program that made the others is gone then: nothing
    /// of it arrives any more.
    reset: Option<(usize, Reset)>,
    accesses: usize,
}

impl Bus<'_> {
    /// Whether the access arrives.
    fn step(&mut self) -> bool {
        if let Some((at, reset)) = self.reset
            && at == self.accesses
        {
            self.machine.reset(reset);
        }
        self.accesses += 1;
        self.reset.is_none_or(|(at, _)| self.accesses <= at)
    }
}

impl Mmio for Bus<'_> {
    fn read(&mut self, address: u64) -> u32 {
        if self.step() { self.machine.read(address) } else { u32::MAX }
    }

    fn write(&mut self, address: u64, value: u32) {
        if !self.step() {
            return;
        }
        let mailbox = (0..self.machine.scenario().devices.len()).any(|device| {
            let function = self.machine.function(Place::Device(device)).unwrap();
            let bar = function.bar(2);
            bar.is_some_and(|bar| bar.contains(cxl_regs::Hpa(address)))
        });
        self.writes += usize::from(!mailbox);
        self.machine.write(address, value);
    }
}

struct Restored {
    extent: Extent,
    outcomes: Vec<ComponentOutcome>,
    writes: usize,
    accesses: usize,
}

fn restored(
    machine: &mut Machine,
    record: &Handoff<'_>,
    pci: Pci,
    reset: Option<(usize, Reset)>,
) -> Restored {
    let tables = run::platform(machine).unwrap();
    let mut clock = machine.clock();
    let mut memory = vec![ComponentOutcome::EMPTY; record.components().count()];
    let mut outcomes = Slots::new(&mut memory);
    let mut bus = Bus { machine, writes: 0, reset, accesses: 0 };
    let ecam = tables.platform().ecam;
    let extent = restore(&mut bus, &mut clock, ecam, record, pci, outcomes.list()).unwrap();
    let Bus { writes, accesses, .. } = bus;
    Restored { extent, outcomes: outcomes.items().to_vec(), writes, accesses }
}

/// A machine that was brought up, and its record.
fn brought_up(scenario: &Scenario) -> Option<(Machine, Vec<u8>)> {
    let mut machine = Machine::new(scenario);
    let done = run::direct(&mut machine);
    (done.refusal.is_none()).then_some((machine, done.handoff))
}

fn scenario(name: &str) -> Scenario {
    Scenario::parse(builtin(name).unwrap().text, name).unwrap()
}

#[test]
fn every_machine_comes_back_from_every_reset() {
    let mut trials = 0;
    for builtin in builtins() {
        let scenario = Scenario::parse(builtin.text, builtin.name).unwrap();
        let Some((mut machine, record)) = brought_up(&scenario) else { continue };
        let record = handoff::read(&record).unwrap();
        let (before, fabric) = (registers(&machine), machine.fabric());
        let misuse = machine.misuse();
        // A device by itself, and all of it.
        let last = scenario.devices.len().checked_sub(1);
        let devices = (0..scenario.devices.len().min(2)).map(Some).chain([last, None]);
        for (device, reset) in devices.flat_map(|device| RESETS.map(|reset| (device, reset))) {
            let what = format!("{}: {reset:?} of {device:?}", builtin.name);
            match device {
                Some(device) => machine.reset_device(device, reset),
                None => machine.reset(reset),
            }
            let by_library = restored(&mut machine, &record, Pci::Library, None);
            assert_eq!(by_library.extent, Extent::Whole, "{what}: {:?}", by_library.outcomes);
            let none: Vec<String> = Vec::new();
            assert_eq!(differences(&before, &registers(&machine)), none, "{what}");
            assert_eq!(machine.fabric(), fabric, "{what}");
            let again = restored(&mut machine, &record, Pci::Library, None);
            assert_eq!((again.extent, again.writes), (Extent::Whole, 0), "{what}: again");
            assert_eq!(again.outcomes, by_library.outcomes, "{what}: again");
            // Where the board does its part itself.
            if device.is_none() && reset != Reset::Hot && scenario.platform.assigned {
                machine.reset(reset);
                machine.assign();
                let by_others = restored(&mut machine, &record, Pci::Done, None);
                assert_eq!(by_others.extent, Extent::Whole, "{what}: {:?}", by_others.outcomes);
                assert_eq!(differences(&before, &registers(&machine)), none, "{what}");
            }
            trials += 1;
        }
        assert_eq!(machine.misuse(), misuse, "{}", builtin.name);
    }
    println!("{trials} resets");
    assert!(trials > 300, "{trials}");
}

/// Where the first and the last byte of each recorded region lead.
fn landings(machine: &Machine, record: &Handoff<'_>) -> Vec<Option<usize>> {
    let ends = record.regions().flat_map(|region| [region.span.base().0, region.span.last().0]);
    ends.map(|at| machine.resolve(at).map(|landing| landing.device)).collect()
}

/// S3 in the middle of a restore, at every access: done again from the start, it is whole.
#[test]
fn a_restore_that_was_cut_short_is_done_again() {
    for name in ["default", "switch", "two-way"] {
        let scenario = scenario(name);
        let (mut machine, record) = brought_up(&scenario).unwrap();
        let record = handoff::read(&record).unwrap();
        let before = registers(&machine);
        let memory = landings(&machine, &record);
        for reset in [Reset::Warm, Reset::Cxl] {
            machine.reset(reset);
            let accesses = restored(&mut machine, &record, Pci::Library, None).accesses;
            for at in (0..accesses).step_by(5) {
                machine.reset(reset);
                // Whatever comes of it, it ends.
                restored(&mut machine, &record, Pci::Library, Some((at, reset)));
                let after = restored(&mut machine, &record, Pci::Library, None);
                let what = format!("{name}: {reset:?} before access {at}");
                assert_eq!(after.extent, Extent::Whole, "{what}: {:?}", after.outcomes);
                let none: Vec<String> = Vec::new();
                assert_eq!(differences(&before, &registers(&machine)), none, "{what}");
                assert_eq!(landings(&machine, &record), memory, "{what}");
            }
        }
    }
}

/// Four bridges with a device each; `change` is made to the text of the machine that is restored.
fn changed(change: impl Fn(String) -> String) -> (Scenario, Machine, Vec<u8>) {
    let text = builtin("four-bridges").unwrap().text;
    let (_, record) = brought_up(&Scenario::parse(text, "four-bridges").unwrap()).unwrap();
    let scenario = Scenario::parse(&change(text.to_owned()), "changed").unwrap();
    (scenario.clone(), Machine::new(&scenario), record)
}

/// What became of the device of each bridge, and whether its memory is where it was.
fn fates(machine: &Machine, record: &Handoff<'_>, found: &Restored) -> Vec<(Option<Code>, bool)> {
    let components = record.components().zip(&found.outcomes);
    let devices = components.filter(|(c, _)| c.kind() == ComponentKind::Device);
    let fate = |(component, found): (handoff::HandoffComponent<'_>, &ComponentOutcome)| {
        let decoder = record.decoders().find(|decoder| {
            decoder.place.at == component.at()
                && decoder.place.component == cxl_regs::access::Component::Device
        });
        let (base, size) = decoder.map(|d| (d.image.base(), d.image.size())).unwrap();
        let is_there = [base, base + size - 1].iter().all(|at| machine.resolve(*at).is_some());
        (found.outcome.error().map(|error| error.code), is_there)
    };
    devices.map(fate).collect()
}

#[test]
fn what_changed_costs_what_depends_on_it() {
    type Change = fn(String) -> String;
    let cases: [(Code, Change); 4] = [
        (Code::RESTORE_GONE, |text| {
            text.replacen("name = \"mem2\"", "name = \"mem2\"\npresent = false", 1)
        }),
        (Code::RESTORE_OTHER, |text| {
            text.replacen("name = \"mem2\"", "name = \"mem2\"\nserial = 77", 1)
        }),
        (Code::RESTORE_OTHER, |text| {
            text.replacen("name = \"mem2\"", "name = \"mem2\"\ndecoders = 2", 1)
        }),
        (Code::COMMIT_REFUSED, |text| {
            text + "\n[[fault]]\nat = \"mem2\"\nkind = \"commit-error\"\ndecoder = 0\n"
        }),
    ];
    for (code, change) in cases {
        let (_, mut machine, record) = changed(change);
        let record = handoff::read(&record).unwrap();
        let found = restored(&mut machine, &record, Pci::Library, None);
        let (sound, lost) = ((None, true), (Some(code), false));
        assert_eq!(fates(&machine, &record, &found), [sound, sound, lost, sound], "{code:?}");
        assert_eq!(found.extent, Extent::Less { lost: 1 }, "{code:?}");
        assert_eq!(machine.misuse(), [], "{code:?}");
        let left = registers(&machine);
        let again = restored(&mut machine, &record, Pci::Library, None);
        assert_eq!(again.outcomes, found.outcomes, "{code:?}");
        assert_eq!(registers(&machine), left, "{code:?}");
        assert!(matches!(found.outcomes[0].outcome, Outcome::InUse));
    }
}

/// A device with two decoders below a bridge with two, nothing of it locked.
const TWO_DECODERS: &str = r#"
    policy = { path = "unlocked" }
    bridge = [{ uid = 16 }]
    port = [{ below = "hb0" }]
    device = [{ below = "port0", volatile = "256MiB", persistent = "256MiB" }]
    window = [{ targets = ["hb0"], size = "2GiB" }]
"#;

/// Whoever uses a component since: which of its decoders are as recorded, not committed, or theirs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Since {
    Same,
    Free,
    Theirs,
}

#[test]
fn a_component_that_others_use_is_refused_before_anything_of_it_is_written() {
    use Since::{Free, Same, Theirs};
    let scenario = Scenario::parse(TWO_DECODERS, "test").unwrap();
    let cases = [
        [Theirs, Free, Free],
        [Theirs, Same, Free],
        [Same, Theirs, Free],
        [Free, Theirs, Free],
        [Free, Free, Theirs],
        [Same, Free, Theirs],
    ];
    for place in [Place::Device(0), Place::Bridge(0)] {
        for case in cases {
            let what = format!("{place:?} {case:?}");
            let mut machine = Machine::new(&scenario);
            let done = run::direct(&mut machine);
            assert_eq!(done.refusal, None, "{what}");
            let tree = done.room.topology.tree();
            let (_, node) = tree
                .iter()
                .find(|(_, node)| match place {
                    Place::Device(_) => node.device().is_some(),
                    _ => node.hdm.is_some() && node.device().is_none(),
                })
                .unwrap();
            let decoders = |index| DecoderRegisters::new(node.hdm.unwrap().block, index);
            let first = decoders(0).read(&mut machine);
            for index in (0..2).rev() {
                let control = decoders(index).read_control(&mut machine);
                decoders(index).write_control(&mut machine, control.with_commit(false));
            }
            for (index, since) in (0..).zip(case) {
                let recorded = decoders(index).read(&mut machine);
                let base = first.base() + (4 + u64::from(index)) * (256 << 20);
                let image = match since {
                    Same => recorded,
                    Free => continue,
                    Theirs => recorded.with_base(base).with_size(256 << 20),
                };
                let control = first.control().with_commit(true).with_committed(false);
                decoders(index).write(&mut machine, image.with_control(control));
                let found = decoders(index).read_control(&mut machine);
                assert!(found.committed(), "{what}: {index}");
            }
            let before = registers(&machine);
            let record = handoff::read(&done.handoff).unwrap();
            let found = restored(&mut machine, &record, Pci::Library, None);
            let none: Vec<String> = Vec::new();
            assert_eq!(differences(&before, &registers(&machine)), none, "{what}");
            // The error is that of the decoder that is theirs.
            let theirs = case.iter().position(|since| *since == Theirs).unwrap();
            let device = fates(&machine, &record, &found);
            assert_eq!(device[0].0, Some(Code::RESTORE_IN_USE), "{what}: {:?}", found.outcomes);
            let errors = found.outcomes.iter().filter_map(|found| found.outcome.error());
            let decoders: Vec<_> = errors.map(|error| error.at.decoder()).collect();
            assert!(decoders.contains(&Some(theirs as u8)), "{what}: {decoders:?}");
        }
    }
}

/// A decoder that nobody recorded keeps those below it, whatever else of its device fails.
#[test]
fn nothing_is_taken_back_below_a_decoder_that_stays() {
    let scenario = Scenario::parse(TWO_DECODERS, "test").unwrap();
    let mut machine = Machine::new(&scenario);
    let done = run::direct(&mut machine);
    let tree = done.room.topology.tree();
    let (_, node) = tree.iter().find(|(_, node)| node.device().is_some()).unwrap();
    let decoders = |index| DecoderRegisters::new(node.hdm.unwrap().block, index);
    let lower = decoders(1).read(&mut machine);
    let theirs = lower
        .with_base(lower.base() + (512 << 20))
        .with_control(lower.control().with_commit(true).with_committed(false));
    decoders(2).write(&mut machine, theirs);
    let before: Vec<_> = (0..3).map(|index| decoders(index).read(&mut machine)).collect();
    assert!(before.iter().all(|image| image.control().committed()));
    // An enable that no device has: bit 15 of Control, 90 bytes behind the start of its component.
    let mut bytes = done.handoff;
    let record = handoff::read(&bytes).unwrap();
    let (regions, decoded) = (record.regions().count(), record.decoders().count());
    let device = record.components().position(|one| one.kind() == ComponentKind::Device).unwrap();
    bytes[64 + 32 * regions + 56 * decoded + 160 * device + 91] |= 0x80;
    bytes[56..64].fill(0);
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3);
    let digest = bytes.iter().fold(0xCBF2_9CE4_8422_2325, step);
    bytes[56..64].copy_from_slice(&digest.to_le_bytes());
    let record = handoff::read(&bytes).unwrap();
    let found = restored(&mut machine, &record, Pci::Library, None);
    assert_eq!(fates(&machine, &record, &found)[0].0, Some(Code::COMMIT_DEVICE_NOT_KEPT));
    let after: Vec<_> = (0..3).map(|index| decoders(index).read(&mut machine)).collect();
    assert_eq!(after, before);
}

/// Planning again with what the record says changes nothing, on any machine.
#[test]
fn a_plan_with_its_own_record_is_the_same_plan() {
    for builtin in builtins() {
        let scenario = Scenario::parse(builtin.text, builtin.name).unwrap();
        let Some((_, record)) = brought_up(&scenario) else { continue };
        let earlier: Vec<_> = handoff::read(&record).unwrap().ranges().collect();
        let plan = |earlier| {
            let done = run::dry_after(&mut Machine::new(&scenario), earlier);
            assert!(done.refusal.is_none(), "{}", builtin.name);
            let plan = &done.room.plan;
            assert!(!plan.notes.iter().any(|note| matches!(note, Note::NotKept { .. })));
            (
                plan.decoders.to_vec(),
                plan.regions.iter().map(|region| region.span).collect::<Vec<_>>(),
            )
        };
        assert_eq!(plan(earlier), plan(Vec::new()), "{}", builtin.name);
    }
}
