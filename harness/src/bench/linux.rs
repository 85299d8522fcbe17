//! An installed Linux here and on QEMU's q35, in turn, under the same KVM: how long it takes to its
//! first program, and how much memory each VMM has beside the guest's.
//!
//! **Invariant**: both boot the same kernel with the same initramfs, words, memory and one processor;
//! here the machine has CXL devices that are set up first, there it has none. Time runs from before the
//! kernel's file is read here, and from QEMU's start there.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::BenchError;
use super::peer::{Comparison, PeerError, line};
use crate::guest::boot::{self, Options};
use crate::guest::footprint;
use crate::linux::boot::last_lines;
use crate::linux::{COMMAND_LINE, Installed, Task};
use crate::qemu::process::{self, Process};
use cxl_model::machine::Machine;
use cxl_model::scenario::{Scenario, builtin};

/// The machine here.
const SCENARIO: &str = "two-way";
/// Of the guest, in bytes.
const MEMORY: u64 = 1 << 30;
/// Rounds that count; one more warms up.
const ROUNDS: usize = 3;
/// The longest that one boot may take, by emulation on a busy host.
const LIMIT: Duration = Duration::from_secs(300);
/// Between two looks at QEMU.
const LOOK: Duration = Duration::from_millis(5);
/// What the first program does once it has said its first word: it waits until it was heard.
const BEFORE: &str = "say end reached\nexec 3>&-\n$B sleep 1\n$B poweroff -f\n";
/// A busy host that stops the guest for some seconds is no fault of Linux.
const WORDS: &str = "nosoftlockup rcupdate.rcu_cpu_stall_suppress=1 reboot=t";

/// Of one boot: seconds to the first program, MiB beside the guest's memory.
type Took = (f64, f64);

/// How often [`run`] tells what comes next.
pub fn stages() -> usize {
    1 + ROUNDS
}

/// Runs both. `progress` is told what comes next.
pub fn run(
    installed: &Installed,
    progress: &mut dyn FnMut(&str),
    interrupted: &Arc<AtomicBool>,
) -> Result<Comparison, PeerError> {
    let (major, minor) = process::version().map_err(PeerError::Process)?;
    let initramfs = installed.initramfs(BEFORE, &Task::default()).map_err(PeerError::Initramfs)?;
    let directory = tempfile::tempdir().map_err(PeerError::File)?;
    fs::write(directory.path().join("initramfs"), &initramfs).map_err(PeerError::File)?;
    let both = Both { installed, initramfs, directory: directory.path(), interrupted };
    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        let which = if round == 0 { "to warm up".to_owned() } else { format!("{round}") };
        progress(&format!("Linux {} here and on QEMU, round {which}", installed.version));
        let took = [both.here(false)?, both.here(true)?, both.there()?];
        if round > 0 {
            rounds.push(took);
        }
    }
    let of = |which: usize, what: fn(&Took) -> f64| -> Vec<f64> {
        rounds.iter().map(|round| what(&round[which])).collect()
    };
    let pair = |name: &'static str, unit: &'static str, here: usize, what: fn(&Took) -> f64| {
        line(name, "KVM", unit, of(here, what), of(2, what))
    };
    Ok(Comparison {
        qemu: format!("{major}.{minor}"),
        figures: vec![
            pair("start to Linux's /init", "s", 0, |took| took.0),
            pair("start to it, behind our image", "s", 1, |took| took.0),
            pair("memory beside the guest's", "MiB", 0, |took| took.1),
        ],
        missing: Vec::new(),
    })
}

struct Both<'a> {
    installed: &'a Installed,
    initramfs: Vec<u8>,
    directory: &'a Path,
    interrupted: &'a Arc<AtomicBool>,
}

impl Both<'_> {
    fn line() -> String {
        format!("{COMMAND_LINE} {WORDS}")
    }

    /// A boot here: at once, with what this program has set up, or behind our image.
    fn here(&self, behind_image: bool) -> Result<Took, PeerError> {
        let start = Instant::now();
        let kernel = fs::read(&self.installed.kernel).map_err(PeerError::File)?;
        let text = builtin(SCENARIO).map_or("", |builtin| builtin.text);
        let mut scenario = Scenario::parse(text, SCENARIO)
            .unwrap_or_else(|error| unreachable!("built-ins are parsed by tests: {error}"));
        scenario.platform.memory = MEMORY;
        let mut machine = Machine::new(&scenario);
        let linux =
            boot::Linux { kernel: &kernel, initrd: &self.initramfs, hidden: false, behind_image };
        let options = Options {
            linux: Some(linux),
            command_line: Some(Self::line()),
            lock_by: if behind_image { boot::LockBy::Image } else { boot::LockBy::Vmm },
            timeout: LIMIT,
            interrupted: Arc::clone(self.interrupted),
            ..Options::default()
        };
        let before = start.elapsed();
        let run = boot::boot(&mut machine, &options)?;
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(PeerError::Interrupted);
        }
        let Some(first) = run.first_fact else {
            return Err(PeerError::Here(BenchError::Ended(run.last().end.clone())));
        };
        let beside = run.beside.ok_or_else(|| no_memory("this program"))?;
        Ok(((before + first).as_secs_f64(), mib(beside)))
    }

    /// A boot on QEMU.
    fn there(&self) -> Result<Took, PeerError> {
        let at = |name: &str| self.directory.join(name);
        for name in ["console", "facts"] {
            fs::write(at(name), "").map_err(PeerError::File)?;
        }
        let fixed = format!(
            "-M q35 -accel kvm -cpu host -smp 1 -m {} -display none -nodefaults -monitor none -no-reboot",
            MEMORY >> 20
        );
        let mut arguments: Vec<OsString> = fixed.split(' ').map(OsString::from).collect();
        for name in ["console", "facts"] {
            arguments.extend(["-serial".into(), crate::linux::joined("file:", &at(name))]);
        }
        arguments.extend(["-kernel".into(), self.installed.kernel.clone().into()]);
        arguments.extend(["-initrd".into(), at("initramfs").into()]);
        arguments.extend(["-append".into(), Self::line().into()]);
        let start = Instant::now();
        let mut process = Process::start(&arguments).map_err(PeerError::Process)?;
        let mut took = None;
        loop {
            let status = process.wait(LOOK);
            let first = || fs::metadata(at("facts")).is_ok_and(|facts| facts.len() > 0);
            if took.is_none() && status.is_none() && first() {
                let time = start.elapsed();
                let beside = footprint::beside_memory_of(process.id(), MEMORY);
                took = Some((time.as_secs_f64(), mib(beside.ok_or_else(|| no_memory("QEMU"))?)));
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(PeerError::Interrupted);
            }
            match (status, took) {
                (Some(status), Some(took)) if status.success() => return Ok(took),
                (None, _) if start.elapsed() < LIMIT => {}
                (status, _) => {
                    let console = fs::read(at("console")).unwrap_or_default();
                    let words = format!("{} {}", process.words(), last_lines(&console));
                    let code = status.and_then(|status| status.code());
                    return Err(PeerError::Ended { accelerator: "KVM", code, words });
                }
            }
        }
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn no_memory(of: &str) -> PeerError {
    let why = format!("/proc does not say how much memory {of} has");
    PeerError::Here(BenchError::Kvm(why))
}
