//! Figures: what access, trapping, mirroring and booting cost, each as a ratio of two things done
//! side by side in one process.
//!
//! **Invariant**: a figure is the median of at least fifteen alternated pairs after a warm-up, and
//! a debug build prints none; but for whole boots of Linux (`linux`), of which there are few.

mod interleave;
pub mod linux;
pub mod peer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cxl_image::doorbell::{Call, Figure};
use schemars::JsonSchema;
use serde::Serialize;
use vm_memory::MmapRegion;

use crate::guest::Guest;
use crate::guest::boot::{GuestError, GuestRun, Options, boot};
use crate::kvm::{Bus, End, Slot, Vm, patience};
use crate::mirror;
use crate::timing::{median, ticks_per_nanosecond};
use cxl_model::backing::Backing;
use cxl_model::machine::Machine;
use cxl_model::scenario::{PathPolicy, Scenario, builtin};

/// One line of the table.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Line {
    /// What was compared.
    pub name: &'static str,
    /// The median of the first of each pair.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// The median of the pairs' ratios.
    pub ratio: f64,
    /// What the ratio should not exceed.
    pub aim: f64,
    /// Number of pairs.
    pub pairs: usize,
}

/// Why there are no figures.
#[derive(Debug)]
pub enum BenchError {
    /// A debug build measures itself.
    Debug,
    /// The guest did not start.
    Guest(GuestError),
    /// The guest ended otherwise than it should.
    Ended(End),
    /// A call to KVM failed.
    Kvm(String),
}

impl std::fmt::Display for BenchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Debug => {
                f.write_str("a debug build measures itself; run `cargo run --release -- bench`")
            }
            Self::Guest(error) => error.fmt(f),
            Self::Ended(end) => write!(f, "the bench guest ended with {end:?}"),
            Self::Kvm(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for BenchError {}

impl From<GuestError> for BenchError {
    fn from(error: GuestError) -> Self {
        Self::Guest(error)
    }
}

/// Pairs of a figure that the host measures, besides the warm-up.
const PAIRS: usize = 31;

/// A line out of pairs (A, B) in nanoseconds, counted per `operations`.
fn line(
    name: &'static str,
    unit: &'static str,
    aim: f64,
    pairs: &[(f64, f64)],
    scale: f64,
) -> Line {
    Line {
        name,
        value: median(pairs.iter().map(|(a, _)| a * scale).collect()),
        unit,
        ratio: median(pairs.iter().map(|(a, b)| a / b).collect()),
        aim,
        pairs: pairs.len(),
    }
}

/// Alternated pairs of two host-side actions, in nanoseconds.
fn alternate(
    mut a: impl FnMut() -> Result<Duration, BenchError>,
    mut b: impl FnMut() -> Result<Duration, BenchError>,
) -> Result<Vec<(f64, f64)>, BenchError> {
    let mut pairs = Vec::new();
    for pair in 0..=PAIRS {
        let (first, second) = if pair % 2 == 0 {
            let first = a()?;
            (first, b()?)
        } else {
            let second = b()?;
            (a()?, second)
        };
        if pair > 0 {
            pairs.push((first.as_nanos() as f64, second.as_nanos() as f64));
        }
    }
    Ok(pairs)
}

fn machine(path: PathPolicy) -> Machine {
    let text = builtin("default").map_or("", |builtin| builtin.text);
    let mut scenario = Scenario::parse(text, "default").unwrap_or_else(|error| {
        // The built-in scenarios are parsed by tests.
        unreachable!("{error}")
    });
    scenario.policy.path = path;
    Machine::new(&scenario)
}

fn guest(payload: &str) -> Result<GuestRun, BenchError> {
    let timeout = patience(Duration::from_secs(120));
    let options = Options { payload, timeout, ..Options::default() };
    Ok(boot(&mut machine(PathPolicy::LockAll), &options)?)
}

/// Measures everything. `progress` is told what comes next.
pub fn run(progress: &mut dyn FnMut(&str)) -> Result<Vec<Line>, BenchError> {
    if cfg!(debug_assertions) {
        return Err(BenchError::Debug);
    }
    let mut lines = Vec::new();
    for (what, measure) in STAGES.iter().chain(interleave::STAGES) {
        progress(what);
        lines.extend(measure()?);
    }
    Ok(lines)
}

/// What is measured at once: what it is, and how.
type Stage = (&'static str, fn() -> Result<Vec<Line>, BenchError>);

const STAGES: &[Stage] = &[
    ("access, inside a guest", access),
    ("commit to mapped", || Ok(vec![commit()?])),
    ("commits beside 10,000 other ranges", || Ok(vec![crowd()?])),
    ("start to hand-off", start),
];

/// How often [`run`] tells what comes next.
pub fn stages() -> usize {
    STAGES.len() + interleave::STAGES.len()
}

/// The figures of the bench payload.
fn access() -> Result<Vec<Line>, BenchError> {
    let run = guest("bench")?;
    if run.last().end != End::Exit(0x10) {
        return Err(BenchError::Ended(run.last().end.clone()));
    }
    let mut pairs: BTreeMap<Figure, Vec<(f64, f64)>> = BTreeMap::new();
    for call in &run.last().said.calls {
        if let Call::Pair { figure, a, b } = *call {
            pairs.entry(figure).or_default().push((a as f64, b as f64));
        }
    }
    let ticks = ticks_per_nanosecond();
    let lines = [
        (Figure::Sweep, "sweep of a mirrored window / of guest RAM", 1.05, (16 << 20) / 64),
        (Figure::Random, "random access in a mirrored window / in guest RAM", 1.05, 1 << 18),
        (Figure::FirstTouch, "first touch of the window / of guest RAM, per 4 KiB", 1.1, 4096),
        (Figure::Trapped, "trapped access / bare exit to an empty handler", 1.10, 64),
    ];
    Ok(lines
        .into_iter()
        .map(|(figure, name, aim, operations)| {
            let scale = 1.0 / (ticks * f64::from(operations));
            line(name, "ns", aim, pairs.get(&figure).map_or(&[], Vec::as_slice), scale)
        })
        .collect())
}

/// The store that completes a path, from the exit to the slot, against the bare ioctl.
fn commit() -> Result<Line, BenchError> {
    let mut machine = machine(PathPolicy::Unlocked);
    let done = crate::run::direct(&mut machine);
    if let Some(refusal) = done.refusal {
        return Err(BenchError::Kvm(refusal.to_string()));
    }
    let kvm = |error: &dyn std::fmt::Display| BenchError::Kvm(error.to_string());
    let mut vm = Vm::new(&[(0, 64 << 20)], 48).map_err(|error| kvm(&error))?;
    // The last decoder of the plan is a host bridge's: its commit opens the path.
    let Some((control, value)) = last_control(&done) else {
        return Err(BenchError::Kvm("the default scenario has no decoder".to_string()));
    };
    let limits = mirror::Limits {
        enabled: true,
        bytes: u64::MAX,
        slots: usize::MAX,
        address_bits: vm.address_bits(),
    };
    let mut guest = Guest::new(&mut machine, vm.ram().clone(), limits, |_| {});
    let all = guest.slots().unwrap_or_default();
    guest.write(control, &(value & !(1 << 9)).to_le_bytes());
    let without = guest.slots().unwrap_or_default();
    let open: Vec<Slot> = all.iter().filter(|slot| !without.contains(slot)).cloned().collect();
    vm.remap(&without).map_err(|error| kvm(&error))?;

    let vm = std::cell::RefCell::new(vm);
    let remap = |slots: &[Slot]| vm.borrow_mut().remap(slots).map_err(|error| kvm(&error));
    let pairs = alternate(
        || {
            let start = Instant::now();
            guest.write(control, &value.to_le_bytes());
            let slots = guest.slots().unwrap_or_default();
            remap(&slots)?;
            let time = start.elapsed();
            guest.write(control, &(value & !(1 << 9)).to_le_bytes());
            remap(&guest.slots().unwrap_or_default())?;
            Ok(time)
        },
        || {
            // The same ranges, and nothing but the ioctl.
            let time = vm.borrow_mut().add_bare(&open).map_err(|error| kvm(&error))?;
            remap(&without)?;
            Ok(time)
        },
    )?;
    Ok(line("commit store to mapped / the bare ioctl", "us", 1.5, &pairs, 1e-3))
}

/// Address and committed value of the control register of the plan's last decoder.
fn last_control(done: &crate::run::DirectRun) -> Option<(u64, u32)> {
    let last = done.room.plan.decoders.last()?;
    let hdm = done.room.topology.tree().get(last.node)?.hdm?;
    let entry = done
        .room
        .committed
        .decoders
        .iter()
        .find(|entry| (entry.node, entry.index) == (last.node, last.index))?;
    let offset = cxl_regs::hdm::decoder_offset(last.index) + 0x10;
    Some((hdm.block.0 + u64::from(offset), entry.image.control))
}

/// One range more beside many others, against one more beside few; ratio per other range.
fn crowd() -> Result<Line, BenchError> {
    let memory = Backing::new(4096 * 10_002);
    let Some(memory) = memory.region() else {
        return Err(BenchError::Kvm("no memory for 10,000 ranges".to_string()));
    };
    let kvm = |error: &dyn std::fmt::Display| BenchError::Kvm(error.to_string());
    let prepare = |count: u64| -> Result<(Vm, Vec<Slot>), BenchError> {
        let mut vm = Vm::new(&[(0, 1 << 20)], 48).map_err(|error| kvm(&error))?;
        let slots: Vec<Slot> = (0..count).map(|index| page(memory, index)).collect();
        vm.remap(&slots).map_err(|error| kvm(&error))?;
        Ok((vm, slots))
    };
    let one_more = |(vm, slots): &mut (Vm, Vec<Slot>)| -> Result<Duration, BenchError> {
        slots.push(page(memory, 10_001));
        let start = Instant::now();
        let calls = vm.remap(slots).map_err(|error| kvm(&error))?;
        let time = start.elapsed();
        slots.pop();
        let back = vm.remap(slots).map_err(|error| kvm(&error))?;
        match (calls, back) {
            (1, 1) => Ok(time),
            _ => Err(BenchError::Kvm(format!("{calls} and {back} calls for one range"))),
        }
    };
    let (mut many, mut few) = (prepare(10_000)?, prepare(10)?);
    let pairs = alternate(|| one_more(&mut many), || one_more(&mut few))?;
    Ok(line("commit beside 10,000 ranges / beside 10", "us", 1000.0, &pairs, 1e-3))
}

fn page(memory: &Arc<MmapRegion>, index: u64) -> Slot {
    Slot {
        base: (1 << 32) + 8192 * index,
        size: 4096,
        memory: Arc::clone(memory),
        offset: 4096 * index,
        read_only: false,
    }
}

/// What a start up to the hand-off may take, in nanoseconds.
const HANDOFF_NS: f64 = 25e6;

/// From the creation of the virtual machine to the hand-off, against as many bare exits as the
/// library counts accesses and the start of an image that does nothing; and against the clock.
fn start() -> Result<Vec<Line>, BenchError> {
    let time = |command_line: Option<String>| -> Result<(Duration, GuestRun), BenchError> {
        let options = Options { command_line, ..Options::default() };
        let run = boot(&mut machine(PathPolicy::LockAll), &options)?;
        match run.last().end.clone() {
            // What the harness looks at during the hand-off is none of the firmware's time.
            End::Exit(0x10) => Ok((run.to_handoff().unwrap_or(run.setup + run.run), run)),
            end => Err(BenchError::Ended(end)),
        }
    };
    let handed = time(None)?.1.first.handed;
    let accesses = handed.map_or(0, |handed| handed.library.reads + handed.library.writes);
    let empty = format!("exits={accesses}");
    let pairs = alternate(|| Ok(time(None)?.0), || Ok(time(Some(empty.clone()))?.0))?;
    let against: Vec<_> = pairs.iter().map(|(time, _)| (*time, HANDOFF_NS)).collect();
    Ok(vec![
        line("start to hand-off / bare exits and an empty image", "ms", 1.3, &pairs, 1e-6),
        line("start to hand-off / the 25 ms it may take", "ms", 1.0, &against, 1e-6),
    ])
}
