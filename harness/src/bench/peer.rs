//! The same image and payload here and on QEMU, in one run: how long each takes.
//!
//! Here it runs under KVM, at CPL 3. QEMU runs it by its emulation (TCG), at CPL 0; and under KVM
//! too where its processor model works, at CPL 3 (the image's word `ring3`): hosts whose KVM
//! emulates CPL 0 run the rest of it natively then.
//!
//! **Invariant**: both run the same bytes, with the same words on the command line but for where
//! they run; a ratio is of medians that were taken in turn (whole boots) or in the guests that were
//! started in turn (accesses), and names the accelerators. What a machine cannot do has no figure.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, fs, io};

use cxl_image::doorbell::Status;
use schemars::JsonSchema;
use serde::Serialize;

use super::{BenchError, median, ticks_per_nanosecond};
use crate::guest::boot::{self, GuestError, IMAGE, Options};
use crate::kvm::{self, End};
use crate::linux::InitramfsError;
use crate::qemu::command::{Command, Refusal};
use crate::qemu::process::{self, Process, ProcessError};
use cxl_model::machine::Machine;
use cxl_model::scenario::Scenario;

/// A figure of both machines.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Line {
    /// What was measured.
    pub name: &'static str,
    /// What runs the guest on QEMU; here it is always KVM.
    pub accelerator: &'static str,
    /// The median here.
    pub value: f64,
    /// The median on QEMU.
    pub peer: f64,
    /// Unit of both.
    pub unit: &'static str,
    /// How many times as long QEMU takes.
    pub ratio: f64,
    /// How often each was measured.
    pub pairs: usize,
}

/// The figures, and what there is none of.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Comparison {
    /// QEMU's version.
    pub qemu: String,
    /// The figures.
    pub figures: Vec<Line>,
    /// What could not be measured, and why.
    pub missing: Vec<String>,
}

/// Why there is no comparison.
#[derive(Debug)]
pub enum PeerError {
    /// This machine does not do it.
    Here(BenchError),
    /// There is no QEMU.
    Process(ProcessError),
    /// QEMU cannot be this machine.
    Refused(Refusal),
    /// A file cannot be written.
    File(io::Error),
    /// There is no initramfs.
    Initramfs(InitramfsError),
    /// QEMU did not end in time, or not well.
    Ended {
        /// With which accelerator.
        accelerator: &'static str,
        /// Its exit code; `None` if it had to be ended.
        code: Option<i32>,
        /// What the image said, or QEMU.
        words: String,
    },
    /// Ctrl-C, or another signal to end.
    Interrupted,
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(error) => error.fmt(f),
            Self::Process(error) => error.fmt(f),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Interrupted => f.write_str("interrupted"),
            Self::File(error) => write!(f, "a file for QEMU: {error}"),
            Self::Initramfs(error) => error.fmt(f),
            Self::Ended { accelerator, code: Some(code), words } => {
                write!(f, "QEMU with {accelerator} ended with exit code {code}: {words}")
            }
            Self::Ended { accelerator, code: None, words } => {
                write!(f, "QEMU with {accelerator} does not end: {words}")
            }
        }
    }
}

impl std::error::Error for PeerError {}

impl From<GuestError> for PeerError {
    fn from(error: GuestError) -> Self {
        Self::Here(BenchError::Guest(error))
    }
}

/// What runs a guest on QEMU.
#[derive(Clone, Copy)]
struct Accelerator {
    name: &'static str,
    arguments: [&'static str; 4],
    /// What the image has to be told.
    word: &'static str,
    /// Boots that are timed.
    boots: usize,
}

/// The emulation, and KVM with the processor model that the least hosts refuse. A BIOS that is
/// emulated takes seconds, so it is booted a few times only.
const ACCELERATORS: [Accelerator; 2] = [
    Accelerator { name: "TCG", arguments: ["-accel", "tcg", "-cpu", "max"], word: "", boots: 15 },
    Accelerator {
        name: "KVM",
        arguments: ["-accel", "kvm", "-cpu", "qemu64"],
        word: " ring3",
        boots: 3,
    },
];

/// Between two looks whether somebody wants it to end.
const LOOK: Duration = Duration::from_millis(100);
/// The longest that one boot may take.
const LIMIT: Duration = Duration::from_secs(240);

/// A bridge whose only window leads to one device, or to two in granules of 256 bytes.
fn machine(interleaved: bool) -> String {
    let port = "[[port]]\nbelow = \"hb0\"\n";
    let device = |port: &str| {
        format!("[[device]]\nbelow = \"{port}\"\nvolatile = \"256MiB\"\ndecoders = 4\n")
    };
    let second = if interleaved { port.to_owned() + &device("port1") } else { String::new() };
    format!(
        "[[bridge]]\nname = \"hb0\"\nuid = 12\ndecoders = 4\n{port}{}{second}[[window]]\n\
         targets = [\"hb0\"]\nsize = \"1GiB\"\n[policy]\npath = \"unlocked\"\n\
         config_lock = false\n",
        device("port0")
    )
}

/// The payload's figures: its name for one, ours, whether of the interleaved machine, and the unit
/// in nanoseconds.
const FIGURES: [(&str, &str, bool, &str, f64); 6] = [
    ("commit", "commit to mapped, with the first load", false, "us", 1e3),
    ("sweep", "load in a 1-way window, line by line", false, "ns", 1.0),
    ("random", "dependent load in a 1-way window", false, "ns", 1.0),
    ("sweep", "load in a 2-way window, line by line", true, "ns", 1.0),
    ("random", "dependent load in a 2-way window", true, "ns", 1.0),
    ("trapped", "load that nothing decodes", false, "ns", 1.0),
];

/// Runs both. `progress` is told what comes next.
pub fn run(
    progress: &mut dyn FnMut(&str),
    interrupted: &Arc<AtomicBool>,
) -> Result<Comparison, PeerError> {
    if cfg!(debug_assertions) {
        return Err(PeerError::Here(BenchError::Debug));
    }
    kvm::available().map_err(|e| PeerError::Here(BenchError::Kvm(e.to_string())))?;
    let (major, minor) = process::available().map_err(PeerError::Process)?;
    let directory = tempfile::tempdir().map_err(PeerError::File)?;
    fs::write(directory.path().join("image.elf"), IMAGE).map_err(PeerError::File)?;
    let mut comparison =
        Comparison { qemu: format!("{major}.{minor}"), figures: Vec::new(), missing: Vec::new() };
    let machines = [false, true]
        .map(|interleaved| Both::new(interleaved, directory.path(), Arc::clone(interrupted)));
    let [flat, interleaved] = machines;
    let (flat, interleaved) = (flat?, interleaved?);
    let ticks = ticks_per_nanosecond();
    for accelerator in ACCELERATORS {
        let name = accelerator.name;
        progress(&format!("the payload here and on QEMU with {name}"));
        let measured = |both: &Both<'_>| {
            let line = format!("{} payload=bench-peer", both.words());
            Ok((pairs(&both.here(&line)?.1), pairs(&both.there(accelerator, &line)?.1)))
        };
        let lists = measured(&flat).and_then(|flat| Ok((flat, measured(&interleaved)?)));
        let (one_way, two_way) = match lists {
            Ok(lists) => lists,
            // Another accelerator may do.
            Err(PeerError::Ended { .. }) if name == "KVM" => {
                comparison.missing.push(
                    "QEMU with KVM: its processor model qemu64 does not run the image on this host"
                        .to_owned(),
                );
                continue;
            }
            Err(error) => return Err(error),
        };
        progress(&format!("boots here and on QEMU with {name}"));
        comparison.figures.push(boots(&flat, accelerator)?);
        for (figure, name, interleaved, unit, scale) in FIGURES {
            let (here, there) = if interleaved { &two_way } else { &one_way };
            let of = |pairs: &[Pair]| -> Vec<f64> {
                let pairs = pairs.iter().filter(|pair| pair.name == figure);
                pairs.map(|pair| pair.a / pair.operations / ticks / scale).collect()
            };
            let (here, there) = (of(here), of(there));
            if here.is_empty() || there.is_empty() {
                comparison
                    .missing
                    .push(format!("{name}: QEMU with {} gave none", accelerator.name));
                continue;
            }
            comparison.figures.push(line(name, accelerator.name, unit, here, there));
        }
    }
    Ok(comparison)
}

/// How often [`run`] tells what comes next, at most.
pub fn stages() -> usize {
    // The payload and boots.
    2 * ACCELERATORS.len()
}

pub(super) fn line(
    name: &'static str,
    accelerator: &'static str,
    unit: &'static str,
    here: Vec<f64>,
    there: Vec<f64>,
) -> Line {
    let pairs = here.len().min(there.len());
    let (value, peer) = (median(here), median(there));
    Line { name, accelerator, value, peer, unit, ratio: peer / value, pairs }
}

/// Whole boots in turn: from the start of a process or a virtual machine to the image's end, which
/// comes right behind the hand-off.
fn boots(both: &Both<'_>, accelerator: Accelerator) -> Result<Line, PeerError> {
    let line_of = format!("{} quiet", both.words());
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for boot in 0..=accelerator.boots {
        let (ours, theirs) = (both.here(&line_of)?.0, both.there(accelerator, &line_of)?.0);
        if boot > 0 {
            here.push(ours.as_secs_f64() * 1e3);
            there.push(theirs.as_secs_f64() * 1e3);
        }
    }
    Ok(line("start to hand-off", accelerator.name, "ms", here, there))
}

/// One machine, here and as QEMU's arguments.
struct Both<'a> {
    scenario: Scenario,
    interleaved: bool,
    command: Vec<OsString>,
    directory: &'a Path,
    interrupted: Arc<AtomicBool>,
}

impl<'a> Both<'a> {
    fn new(
        interleaved: bool,
        directory: &'a Path,
        interrupted: Arc<AtomicBool>,
    ) -> Result<Self, PeerError> {
        let scenario = Scenario::parse(&machine(interleaved), "bench").unwrap_or_else(|error| {
            // Both are parsed by a test.
            unreachable!("{error}")
        });
        let command = Command::of(&scenario, None).map_err(PeerError::Refused)?.arguments();
        Ok(Self { scenario, interleaved, command, directory, interrupted })
    }

    fn words(&self) -> &'static str {
        if self.interleaved { "path=unlocked width=widest" } else { "path=unlocked" }
    }

    /// A run here: how long, and the console.
    fn here(&self, line: &str) -> Result<(Duration, String), PeerError> {
        let mut machine = Machine::new(&self.scenario);
        // CPUID is not the VMM's to answer at CPL 3.
        let line = format!("{line} address-bits={}", machine.scenario().platform.physical_bits);
        let options = Options {
            command_line: Some(line),
            timeout: LIMIT,
            interrupted: Arc::clone(&self.interrupted),
            ..Options::default()
        };
        let run = boot::boot(&mut machine, &options)?;
        match run.last().end.clone() {
            End::Exit(code) if code == Status::Success.code() => {
                let console = String::from_utf8_lossy(&run.console).into_owned();
                Ok((run.setup + run.run, console))
            }
            End::Interrupted => Err(PeerError::Interrupted),
            end => Err(PeerError::Here(BenchError::Ended(end))),
        }
    }

    /// The same on QEMU.
    fn there(&self, with: Accelerator, line: &str) -> Result<(Duration, String), PeerError> {
        let serial = self.directory.join("serial");
        let mut arguments = self.command.clone();
        // Of two processor models QEMU takes the later.
        arguments.extend(with.arguments.map(OsString::from));
        let fixed = ["-display", "none", "-nodefaults", "-no-reboot", "-monitor", "none"];
        arguments.extend(fixed.map(OsString::from));
        let exit = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"];
        arguments.extend(exit.map(OsString::from));
        let mut file = OsString::from("file:");
        file.push(&serial);
        let image = self.directory.join("image.elf").into_os_string();
        let line = format!("{line}{}", with.word);
        arguments.extend(["-serial".into(), file, "-kernel".into(), image]);
        arguments.extend(["-append".into(), OsString::from(line)]);
        let start = Instant::now();
        let mut process = Process::start(&arguments).map_err(PeerError::Process)?;
        let status = loop {
            match process.wait(LOOK) {
                None if self.interrupted.load(Ordering::Relaxed) => {
                    return Err(PeerError::Interrupted);
                }
                None if start.elapsed() < LIMIT => {}
                status => break status,
            }
        };
        let time = start.elapsed();
        let console = fs::read_to_string(&serial).unwrap_or_default();
        // QEMU's exit device makes twice the value and one of it.
        let good = 2 * i32::from(Status::Success.code()) + 1;
        match status.map(|status| status.code()) {
            Some(Some(code)) if code == good => Ok((time, console)),
            other => {
                let said = console.lines().last().unwrap_or_default().to_owned();
                let words = if said.is_empty() { process.words() } else { said };
                Err(PeerError::Ended { accelerator: with.name, code: other.flatten(), words })
            }
        }
    }
}

/// A pair that the payload told.
#[derive(Debug, PartialEq)]
struct Pair {
    name: String,
    operations: f64,
    /// Ticks.
    a: f64,
}

/// The pairs on a console: `pair NAME OPERATIONS A B`.
fn pairs(console: &str) -> Vec<Pair> {
    let pair = |line: &str| {
        let mut words = line.trim_end().strip_prefix("pair ")?.split(' ');
        let name = words.next()?.to_owned();
        let numbers: Option<Vec<u64>> = words.map(|word| word.parse().ok()).collect();
        match numbers?[..] {
            [operations, a, _] if operations > 0 => {
                Some(Pair { name, operations: operations as f64, a: a as f64 })
            }
            _ => None,
        }
    };
    console.lines().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_and_nothing_else() {
        let console =
            "end: x\npair sweep 2048 10 20\r\npair sweep 0 1 2\npair commit 1 7\npair a b c d\n";
        let expected = Pair { name: "sweep".to_owned(), operations: 2048.0, a: 10.0 };
        assert_eq!(pairs(console), [expected]);
    }

    #[test]
    fn both_machines_can_be_on_qemu() {
        for interleaved in [false, true] {
            assert!(Both::new(interleaved, Path::new("/"), Arc::default()).is_ok());
        }
    }
}
