//! How much stack each verb of the library takes, and each profile as a whole, on x86-64 and on aarch64: on
//! every built-in machine, with policies from the least to the most.
//!
//! A verb first runs on the models, and every value that it reads is kept (`cxl_sizes::recording`). Then the
//! program `stack` of `cxl-sizes`, built as users build the library, runs it again on those values alone: no
//! model is on the stack that is measured, and none is needed on Arm, which is bare here.
//!
//! **Invariant**: what the program measured went the same way as the models saw it: every verb of the full
//! profile came to the same tables, records and errors. The papers state what was measured, rounded up to
//! whole KiB; other numbers there are failures, in either direction.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod bare;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, OnceLock};
use std::{fs, iter};

use cxl_harness::run::{self, TABLES_BASE, roots};
use cxl_model::device::Reset;
use cxl_model::machine::{Machine, MachineClock};
use cxl_model::scenario::{Scenario, builtins};
use cxl_regs::Hpa;
use cxl_regs::mmio::{Clock, Mmio};
use cxl_sizes::recording::{self, Described, FAILED, POLICIES, Room, Runner, Verb};

use bare::AARCH64;
use trial::{claim, unless};

fn main() -> ExitCode {
    let mut trials = vec![claim("a_recording_goes_to_the_end_of_most_machines", recorded_whole)];
    let lack = (!cfg!(all(target_arch = "x86_64", target_os = "linux")))
        .then_some("needs Linux on x86-64");
    for (column, architecture, lack) in
        [(1, X86, lack.map(str::to_owned)), (2, AARCH64, no_aarch64())]
    {
        let name = architecture.split('-').next().unwrap();
        let trial =
            claim(format!("verbs_take_the_stack_that_the_readme_states_on_{name}"), move || {
                verbs(architecture, column);
            });
        trials.push(unless(lack.clone(), trial));
        let trial = claim(format!("profiles_take_the_stack_that_is_stated_on_{name}"), move || {
            profiles(architecture, column);
        });
        trials.push(unless(lack, trial));
    }
    let trial = claim("without_optimisation_verbs_take_at_most_seven_times_that", unoptimised);
    trials.push(unless(no_aarch64(), trial));
    trial::run(trials)
}

const X86: &str = "x86_64-unknown-linux-gnu";

/// What is missing to measure on aarch64.
fn no_aarch64() -> Option<String> {
    if bare::qemu_version().is_none() {
        return Some("needs a QEMU for aarch64, by QEMU_AARCH64".into());
    }
    bare::no_target()
}

/// A machine, with everything kept that is read of it.
struct Bus {
    machine: Machine,
    reads: Vec<(u64, u32)>,
}

impl Mmio for Bus {
    fn read(&mut self, address: u64) -> u32 {
        let value = self.machine.read(address);
        self.reads.push((address, value));
        value
    }

    fn write(&mut self, address: u64, value: u32) {
        self.machine.write(address, value);
    }
}

struct Time {
    clock: MachineClock,
    reads: Vec<u64>,
}

impl Clock for Time {
    fn microseconds(&mut self) -> u64 {
        let value = self.clock.microseconds();
        self.reads.push(value);
        value
    }
}

/// What became of each verb, and the words of each that ran.
struct Recorder<'a> {
    scenario: &'a Scenario,
    bus: Bus,
    time: Time,
    verbs: u32,
    words: Vec<u32>,
    ended: BTreeMap<Verb, (usize, usize)>,
}

impl<'a> Recorder<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let machine = Machine::new(scenario);
        let time = Time { clock: machine.clock(), reads: Vec::new() };
        let bus = Bus { machine, reads: Vec::new() };
        Self { scenario, bus, time, verbs: 0, words: Vec::new(), ended: BTreeMap::new() }
    }
}

fn long(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap()
}

impl Runner for Recorder<'_> {
    type Hardware = Bus;
    type Time = Time;

    fn wants(_: Verb) -> bool {
        true
    }

    fn begin(&mut self) {
        let machine = Machine::new(self.scenario);
        self.time.clock = machine.clock();
        self.bus.machine = machine;
    }

    fn reset(&mut self) {
        self.bus.machine.reset(Reset::Warm);
    }

    fn run(&mut self, verb: Verb, job: &mut dyn FnMut(&mut Bus, &mut Time) -> u32) -> Option<u32> {
        let outcome = job(&mut self.bus, &mut self.time);
        let (mut reads, times) =
            (std::mem::take(&mut self.bus.reads), std::mem::take(&mut self.time.reads));
        if verb == Verb::FlatBringUp {
            unread(Machine::new(self.scenario), &mut reads);
        }
        self.verbs += 1;
        self.words.extend([verb as u32, outcome, count(reads.len())]);
        for (address, value) in reads {
            self.words.extend(long(address).into_iter().chain([value]));
        }
        self.words.push(count(times.len()));
        self.words.extend(times.into_iter().flat_map(long));
        let (well, refused) = self.ended.entry(verb).or_default();
        *if outcome & FAILED == 0 { well } else { refused } += 1;
        Some(outcome)
    }
}

/// Adds what a smaller build may read of the functions that were read: one that asks no mailbox how much memory
/// there is, which is how this was recorded, has it from range registers.
fn unread(mut machine: Machine, reads: &mut Vec<(u64, u32)>) {
    let map = machine.map();
    let configuration =
        |address: u64| map.ecam.iter().any(|(_, ecam)| ecam.offset_of(Hpa(address)).is_some());
    let read: BTreeSet<_> = reads.iter().map(|&(address, _)| address).collect();
    let functions: BTreeSet<_> =
        read.iter().filter(|&&at| configuration(at)).map(|at| at & !0xFFF).collect();
    let all = functions.into_iter().flat_map(|function| (function..function + 0x1000).step_by(4));
    let others = all.filter(|at| !read.contains(at)).map(|at| (at, machine.read(at)));
    reads.extend(others.filter(|&(_, value)| value != u32::MAX));
}

/// All cases.
struct Recording {
    words: Vec<u32>,
    /// How often each verb did its job, and how often it refused.
    ended: BTreeMap<Verb, (usize, usize)>,
}

fn recording() -> &'static Recording {
    static MADE: OnceLock<Recording> = OnceLock::new();
    MADE.get_or_init(record)
}

fn record() -> Recording {
    let mut room = Box::new(const { Room::new() });
    let (mut words, mut cases) = (vec![0], 0);
    let mut ended = BTreeMap::<Verb, (usize, usize)>::new();
    for builtin in builtins() {
        let scenario = Scenario::parse(builtin.text, builtin.name).unwrap();
        let machine = Machine::new(&scenario);
        let acpi = cxl_model::acpi::Tables::new(&scenario, machine.map(), TABLES_BASE);
        let (mcfg, cedt) = (acpi.table(&acpi.mcfg), acpi.table(&acpi.cedt));
        let roots = roots(&scenario);
        let resources = run::platform(&machine).map_or(vec![], |tables| tables.resources.to_vec());
        let described = Described {
            mcfg,
            cedt,
            address_bits: scenario.platform.physical_bits,
            roots: &roots,
            resources: &resources,
        };
        for number in 0..POLICIES {
            for table in [mcfg, cedt] {
                words.push(count(table.len()));
                words.extend(table.iter().map(|byte| u32::from(*byte)));
            }
            words.extend([u32::from(described.address_bits), count(roots.len())]);
            words.extend(
                roots
                    .iter()
                    .flat_map(|(uid, root)| [*uid, u32::from(root.segment), u32::from(root.bus)]),
            );
            words.push(count(resources.len()));
            words.extend(resources.iter().flat_map(|given| {
                let (base, size) = (long(given.span.base().0), long(given.span.size()));
                iter::once(given.uid).chain(base).chain(size)
            }));
            let mut recorder = Recorder::new(&scenario);
            let _ =
                recording::run(&mut recorder, &described, &recording::policy(number), &mut room);
            words.extend([number, recorder.verbs]);
            words.extend(recorder.words);
            for (verb, (well, refused)) in recorder.ended {
                let sum = ended.entry(verb).or_default();
                *sum = (sum.0 + well, sum.1 + refused);
            }
            cases += 1;
        }
    }
    words[0] = cases;
    Recording { words, ended }
}

/// What is measured is what users run: every verb does its job on many machines, and some are refused.
fn recorded_whole() {
    let Recording { words, ended } = recording();
    println!("{} words", words.len());
    for verb in Verb::ALL {
        let (well, refused) = ended[&verb];
        println!("{:28} {well:4} {refused:4} refused", verb.name());
        let least = if verb <= Verb::FlatHandOff { 10 } else { 60 };
        assert!(well >= least, "{} did its job on {well} alone", verb.name());
    }
    assert!(ended[&Verb::BringUp].1 > 0 && ended[&Verb::Plan].1 > 0, "nothing was refused");
}

/// Bytes by verb's name.
type Needs = BTreeMap<String, usize>;

/// What the program prints that is built so.
fn measured(architecture: &str, profile: &str, level: &str) -> Needs {
    let program = build(architecture, profile, level);
    let words = &recording().words;
    let bytes =
        |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
    let output = if architecture == X86 {
        let mut child =
            Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || input.write_all(&bytes(words)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        output
    } else {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("recording");
        fs::write(&file, bytes(&[&[count(words.len())], &words[..]].concat())).unwrap();
        let mut command = Command::new("timeout");
        command.arg("300").arg(bare::qemu());
        command.args("-accel tcg -cpu max -M virt -m 1G -display none -nodefaults".split(' '));
        command.args(["-monitor", "none", "-serial", "stdio", "-kernel"]).arg(program);
        command.arg("-device");
        command.arg(format!("loader,file={},addr=0x50000000,force-raw=on", file.display()));
        command.stdin(Stdio::null()).output().unwrap()
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let mut lines: Vec<_> = text.lines().map(str::trim_end).collect();
    assert_eq!(lines.pop(), Some("end"), "{:?} {text}{errors}", output.status);
    println!("{profile} at opt-level {level} on {architecture}");
    let ended = &recording().ended;
    let mut needs = Needs::new();
    for line in lines {
        let [most, same, other, name] = line.splitn(4, ' ').collect::<Vec<_>>()[..] else {
            panic!("{text}");
        };
        let [most, same, other] = [most, same, other].map(|number| number.parse().unwrap());
        println!("    {name:28} {most:6} bytes, in {same} runs as recorded and {other} others");
        let verb = Verb::ALL.into_iter().find(|verb| verb.name() == name).expect(name);
        if profile == "full" {
            let (well, refused) = ended[&verb];
            assert_eq!((same, other), (well + refused, 0), "{name} came to something else here");
        } else {
            // What a profile does not have, it refuses.
            assert!(same >= 10, "{name} went {same} times alone as it was recorded, {other} not");
        }
        needs.insert(name.to_owned(), most);
    }
    let wanted = match profile {
        "minimal" => 3,
        "typical" => 8,
        _ => Verb::ALL.len(),
    };
    assert_eq!(needs.len(), wanted, "{profile} ran {:?}", needs.keys());
    needs
}

/// Builds the program with a nested cargo, alone, as a workspace would turn on all features.
fn build(architecture: &str, profile: &str, level: &str) -> PathBuf {
    // Until the program has been put aside.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let folder = bare::folder("stack");
    let output = bare::cargo("build", architecture, &folder)
        .args(["-p", "cxl-sizes", "--bin", "stack", "--profile", "image", "--no-default-features"])
        .arg(format!("--features=stack,{profile}"))
        .env("CARGO_PROFILE_IMAGE_OPT_LEVEL", level)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let kept = folder.join(format!("{architecture}-{profile}-{level}"));
    fs::copy(folder.join(architecture).join("image/stack"), &kept).unwrap();
    kept
}

/// What a row of a paper's table on stack states in a column, in KiB.
fn stated(paper: &str, row: &str, column: usize) -> usize {
    let mut tables =
        paper.split("\n\n").filter(|part| part.trim_start().starts_with("| stack of |"));
    let (Some(table), None) = (tables.next(), tables.next()) else {
        panic!("not one table on stack")
    };
    let head = format!("| {row} |");
    let line = table.lines().find(|line| line.starts_with(&head)).expect(row);
    let cell = line.split('|').nth(1 + column).unwrap_or_default().trim();
    cell.strip_suffix(" KiB").and_then(|number| number.parse().ok()).expect(line)
}

/// Prints what was measured beside what is stated, and adds to the faults what it should be.
fn compare(name: &str, need: usize, stated: usize, faults: &mut Vec<String>) {
    println!("{name:28} {need:6} bytes of {stated} KiB");
    // A compiler that differs in its core alone may move a border.
    let kib = need.div_ceil(1024);
    if kib > stated || kib + 1 < stated {
        faults.push(format!("{name}: {stated} KiB stated, {need} bytes measured"));
    }
}

/// Each verb as part of a program that has all of them, at opt-level 3.
fn verbs(architecture: &str, column: usize) {
    let readme = include_str!("../../firmware/README.md");
    let needs = measured(architecture, "full", "3");
    let mut faults = vec![];
    for verb in Verb::ALL {
        let name = verb.name();
        compare(name, needs[name], stated(readme, &format!("`{name}`"), column), &mut faults);
    }
    assert_eq!(faults, Vec::<String>::new());
}

/// The README's bound for builds without optimisation. Bare, as code for an operating system does not link
/// so without what unwinds.
fn unoptimised() {
    let readme = include_str!("../../firmware/README.md");
    assert!(readme.contains("without optimisation it is up to seven times that"));
    let needs = measured(AARCH64, "full", "0");
    for verb in Verb::ALL {
        let name = verb.name();
        let (need, stated) = (needs[name], stated(readme, &format!("`{name}`"), 2));
        assert!(need <= 7 * stated * 1024, "{name} takes {need} bytes, of {stated} KiB");
    }
}

/// The deepest way of each profile, at opt-level s.
fn profiles(architecture: &str, column: usize) {
    let paper = include_str!("../../firmware/SIZES.md");
    let mut faults = vec![];
    for profile in ["minimal", "typical", "full"] {
        let needs = measured(architecture, profile, "s");
        // Verbs by themselves are within `bring_up`; programs that measure sizes do not call them.
        let most = *needs.values().max().unwrap();
        compare(profile, most, stated(paper, profile, column), &mut faults);
    }
    assert_eq!(faults, Vec::<String>::new());
}
