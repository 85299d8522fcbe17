//! A scenario's machine on QEMU, brought up and reported.
//!
//! **Invariant**: every run ends: by itself, by its time limit, or by Ctrl-C; and QEMU ends with it.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cxl_firmware::mmio::Mmio;
use cxl_firmware::topology::Hdm;
use cxl_regs::access::Register;
use cxl_regs::hdm::{Control, DECODER_SIZE, decoder_offset};

use super::Clock;
use super::bare::{self, BareError};
use super::command::{self, ADDRESS_BITS, Command, NOTES};
use super::process::{self, Process, ProcessError};
use super::qtest::{Qtest, QtestError};
use super::view::{Mismatch, View};
use crate::report::{Left, Measured, Refusal, Report, Seen};
use crate::run::{self, Done, Inexpressible, Wanted};
use crate::scenario::{Place, Scenario};
use crate::trace::{Direction, Traffic};

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Keep devices' memory in files of this directory.
    pub files: Option<PathBuf>,
    /// Time limit.
    pub timeout: Duration,
    /// Set by Ctrl-C.
    pub interrupted: Arc<AtomicBool>,
}

impl Default for Options {
    fn default() -> Self {
        Self { files: None, timeout: Duration::from_secs(60), interrupted: Arc::default() }
    }
}

/// Why there is no report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunError {
    /// QEMU cannot be this machine.
    Refused(command::Refusal),
    /// The library cannot be asked for what the scenario wants.
    Scenario(Inexpressible),
    /// There is no QEMU, or it does not run.
    Process(ProcessError),
    /// The platform is not known.
    Bare(BareError),
    /// QEMU made another machine.
    Mismatch(Mismatch),
    /// The time is over.
    TimedOut(Duration),
    /// Ctrl-C.
    Interrupted,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Scenario(error) => error.fmt(f),
            Self::Process(error) => error.fmt(f),
            Self::Bare(error) => error.fmt(f),
            Self::Mismatch(error) => error.fmt(f),
            Self::TimedOut(limit) => write!(
                f,
                "not done after {} s; a busy host may need more: --timeout SECONDS",
                limit.as_secs()
            ),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for RunError {}

/// When a run has to stop.
#[derive(Clone, Debug)]
struct Stop {
    start: Instant,
    limit: Duration,
    interrupted: Arc<AtomicBool>,
}

impl Stop {
    fn of(options: &Options) -> Self {
        let interrupted = Arc::clone(&options.interrupted);
        Self { start: Instant::now(), limit: options.timeout, interrupted }
    }

    fn check(&self) -> Result<(), RunError> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(RunError::Interrupted);
        }
        match self.start.elapsed() < self.limit {
            true => Ok(()),
            false => Err(RunError::TimedOut(self.limit)),
        }
    }
}

/// Registers through qtest, counted; once the run has to stop, hardware that is gone.
struct Counted<'q> {
    qtest: &'q mut Qtest,
    stop: Stop,
    /// Way, address and value.
    accesses: Vec<(Direction, u64, u32)>,
}

impl Counted<'_> {
    fn traffic(&self, decoders: &[(Place, Hdm)]) -> Traffic {
        let mut traffic = Traffic::default();
        for &(direction, address, value) in &self.accesses {
            traffic.all.add(direction);
            let owner = decoders.iter().find_map(|(place, hdm)| {
                let offset = address.checked_sub(hdm.block.0 + u64::from(decoder_offset(0)))?;
                let index = u8::try_from(offset / u64::from(DECODER_SIZE)).ok()?;
                let control = offset % u64::from(DECODER_SIZE) == u64::from(Control::SPEC.offset);
                (index < hdm.decoders).then_some(((*place, index), control))
            });
            if let Some((owner, control)) = owner {
                traffic.decoders.entry(owner).or_default().add(direction, control, value);
            }
        }
        traffic
    }
}

impl Mmio for Counted<'_> {
    fn read(&mut self, address: u64) -> u32 {
        if self.stop.check().is_err() {
            return u32::MAX;
        }
        let value = self.qtest.read(address);
        self.accesses.push((Direction::Read, address, value));
        value
    }

    fn write(&mut self, address: u64, value: u32) {
        if self.stop.check().is_ok() {
            self.accesses.push((Direction::Write, address, value));
            self.qtest.write(address, value);
        }
    }

    fn write_qword(&mut self, address: u64, value: u64) {
        if self.stop.check().is_ok() {
            // Two dwords' worth, as everywhere.
            let dwords = [(address, value as u32), (address + 4, (value >> 32) as u32)];
            self.accesses.extend(dwords.map(|(at, dword)| (Direction::Write, at, dword)));
            self.qtest.write_qword(address, value);
        }
    }
}

/// What every QEMU here is started with: nothing that is not asked for.
fn fixed() -> Vec<OsString> {
    ["-accel", "tcg", "-display", "none", "-nodefaults", "-monitor", "none"]
        .map(OsString::from)
        .to_vec()
}

/// A QEMU, and what it is to be.
struct Started {
    process: Process,
    qtest: Qtest,
}

impl Started {
    /// QEMU's own words, if it has ended.
    fn explain(&mut self, error: QtestError) -> RunError {
        RunError::Process(self.process.explain(error))
    }
}

/// Brings a scenario's machine up on QEMU's devices from this process, without a guest: the library
/// assigns buses and BARs, plans, commits, locks and verifies through qtest.
pub fn direct(scenario: &Scenario, options: &Options) -> Result<Report, RunError> {
    let stop = Stop::of(options);
    let version = process::available().map_err(RunError::Process)?;
    let files = options.files.as_deref();
    let command = Command::of(scenario, files).map_err(RunError::Refused)?;
    let mut arguments = fixed();
    arguments.push("-S".into());
    arguments.extend(command.arguments());
    let (process, qtest) =
        Process::start_with_qtest(&arguments, options.timeout).map_err(RunError::Process)?;
    let mut qemu = Started { process, qtest };
    let tables = match bare::platform(&mut qemu.qtest, ADDRESS_BITS) {
        Ok(tables) => tables,
        Err(BareError::Qtest(error)) => return Err(qemu.explain(error)),
        Err(error) => return Err(RunError::Bare(error)),
    };
    let view = View::new(scenario, &tables).map_err(RunError::Mismatch)?;
    let wanted = Wanted::on(&view.scenario, &view.map).map_err(RunError::Scenario)?;
    let start = Instant::now();
    let mut hw = Counted { qtest: &mut qemu.qtest, stop: stop.clone(), accesses: Vec::new() };
    let done = run::on(&mut hw, &mut Clock::new(), &tables.platform(), &wanted);
    let time = start.elapsed();
    let tree = done.room.topology.tree();
    let traffic = hw.traffic(&view.decoders(tree));
    let fabric = view.fabric(tree, &mut hw);
    let refusal = done.refusal.as_ref().map(Refusal::from);
    let Done { handoff, cedt, .. } = &done;
    let left = Left { handoff, cedt, refusal: refusal.as_ref(), traffic: &traffic, foreign: false };
    let platform = Ok(tables);
    let seen =
        Seen { scenario: &view.scenario, map: &view.map, fabric: &fabric, platform: &platform };
    let mut report = Report::seen(&seen, &mut hw, &mut Clock::new(), &left);
    stop.check()?;
    if let Err(error) = qemu.qtest.check() {
        return Err(qemu.explain(error));
    }
    let (major, minor) = version;
    report.facts.notes.push(format!("the devices are those of QEMU {major}.{minor}"));
    report.facts.notes.extend(NOTES.map(str::to_owned));
    report.measured = Some(Measured { run: time, guest: None });
    Ok(report)
}
