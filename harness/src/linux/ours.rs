//! A scenario on our own machine: our image, or this program, has the library program and lock it, an
//! installed Linux boots on it in a KVM guest with our tables, and runs to its end.
//!
//! **Invariant**: addresses are the scenario's own; what the library is said to have committed is
//! its record, and never its plan.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::planned::Planned;
use super::root::{self, Way};
use super::state;
use super::symbols::{self, Symbols};
use super::verdict::{Evidence, Verdict};
use super::{COMMAND_LINE, Facts, FactsError, InitramfsError, Installed, Task, initramfs};
use crate::attack;
use crate::console::{Collected, Section};
use crate::guest::boot::{self as guest, GuestError, GuestRun, Linux, LockBy};
use crate::kvm::{End, Failure};
use crate::report::Seen;
use crate::run::Refusal;
use cxl_model::machine::Machine;
use cxl_model::scenario::Scenario;
use cxl_model::store::{Store, StoreError};

/// With the first two a busy host that stops the guest for some seconds does not look like a fault of Linux.
const MORE_WORDS: &str = "nosoftlockup rcupdate.rcu_cpu_stall_suppress=1 reboot=t";

/// Linux and its initramfs want more than our image does.
const MEMORY: u64 = 1 << 30;

/// How to boot.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// Shell text that runs in the guest before the drivers load; usually empty.
    pub before: &'a str,
    /// Words for Linux's command line, besides those that it needs.
    pub append: &'a str,
    /// The processor does not say that it is a virtual one: a Linux that knows it makes no region.
    pub hidden: bool,
    /// Our image boots first and hands over, as it does on QEMU; else this program runs the library
    /// before Linux starts.
    pub image_first: bool,
    /// Whether committed memory is mirrored into slots.
    pub mirror: bool,
    /// Time limit.
    pub timeout: Duration,
    /// Set by Ctrl-C.
    pub interrupted: Arc<AtomicBool>,
    /// Sees the console as it is written.
    pub on_console: fn(&[u8]),
    /// What Linux is to do once its drivers have settled. It has the program [`root::NAME`] for it.
    pub task: Task<'a>,
    /// What it is to do once it has said what it sees.
    pub after: &'a str,
    /// Root attacks the locks in the end, this way; it is judged from outside.
    pub attack: Option<Way>,
    /// The folder in which persistent memory and labels are kept.
    pub media: Option<PathBuf>,
}

/// Why Linux did not come to its end.
#[derive(Debug)]
pub enum OursError {
    /// The library refuses the scenario.
    Plan(Refusal),
    /// There is no initramfs.
    Initramfs(InitramfsError),
    /// The kernel cannot be read.
    Kernel(PathBuf, std::io::Error),
    /// There is no guest.
    Guest(GuestError),
    /// Persistent memory cannot be kept where it is to be.
    Media(StoreError),
    /// Ctrl-C, or another signal to end.
    Interrupted,
    /// Our image ended itself, so that Linux never started.
    Image {
        /// Its reason, in its own words.
        words: String,
        /// The last lines of the console.
        console: String,
    },
    /// There is no file for the disk that takes the kernel's symbols.
    Disk(std::io::Error),
    /// It ended otherwise than by itself.
    CutOff {
        /// What there is of Linux's facts.
        error: FactsError,
        /// How it ended.
        end: Box<End>,
        /// Where it was then, in the kernel's own words.
        place: Option<String>,
        /// The last lines of the console.
        console: String,
    },
}

impl fmt::Display for OursError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(refusal) => write!(f, "the library refuses this scenario: {refusal}"),
            Self::Initramfs(error) => error.fmt(f),
            Self::Kernel(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Guest(error) => error.fmt(f),
            Self::Media(error) => error.fmt(f),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Image { words, console } => write!(
                f,
                "the image ended before Linux started: {words}; the end of the console:\n{console}"
            ),
            Self::Disk(error) => write!(f, "a disk for the kernel's symbols: {error}"),
            Self::CutOff { error, end, place, console } => {
                write!(f, "{error}; {end}")?;
                if let Some(place) = place {
                    write!(f, "; that is {place}")?;
                }
                write!(f, "; the end of the console:\n{console}")
            }
        }
    }
}

impl std::error::Error for OursError {}

/// Where Linux was: a program, or a function of the kernel's that it has told of.
fn place(disk: &fs::File, end: &End) -> Option<String> {
    let rip = match end {
        End::Failed(Failure { ring: 3, .. }) => return Some("in a program".to_owned()),
        End::Failed(failure) => failure.rip,
        End::TimedOut { rip, .. } => *rip,
        _ => return None,
    };
    // Without them the place is a number, which is said already.
    Symbols::read(disk).ok()?.name(rip)
}

/// What came of one boot.
#[derive(Debug)]
pub struct Ours {
    /// The scenario, with the memory that it was given and its windows where they are.
    pub scenario: Scenario,
    /// What the library plans for it.
    pub planned: Planned,
    /// What the library committed, and the table that it made of it.
    pub said: Collected,
    /// What Linux says.
    pub facts: Facts,
    /// The guest's run.
    pub run: GuestRun,
    /// Root was to attack the locks.
    attacked: bool,
}

impl Ours {
    /// The registers in the end.
    pub fn seen(&self) -> Seen {
        Seen::of(self.run.last_state().machine.fabric())
    }

    /// What is planned, held against what Linux has.
    pub fn verdict(&self) -> Verdict {
        let end = &self.run.first.end;
        let mut verdict = Verdict::of(&Evidence {
            scenario: &self.scenario,
            planned: &self.planned,
            said: &self.said,
            facts: &self.facts,
            end: (*end != End::PoweredOff).then(|| format!("after Linux's last word: {end}")),
            qemu: None,
            notes: &[],
        });
        let model = self.modelled();
        verdict.hold(model.len(), &model.against(&self.shown()));
        if self.attacked {
            verdict.attacked(self.attack());
        }
        verdict
    }

    /// What the models' registers say, as they were when Linux was looking.
    pub fn modelled(&self) -> state::Fields {
        let (kernel, mark) = (state::kernel_of(&self.facts), root::LOOKED);
        let looked = self.run.kept.iter().find(|(id, _)| *id == mark);
        let then = looked.map_or(&self.run.first.left, |(_, then)| then);
        state::modelled(&then.machine, kernel)
    }

    /// What came of root's attack, if it came to its end.
    pub fn attack(&self) -> Option<attack::Report> {
        let done = self.facts.text("attack") == Some("done");
        self.run.attack.clone().filter(|_| done)
    }

    /// What Linux shows of them.
    pub fn shown(&self) -> state::Fields {
        state::shown(&self.facts, &self.scenario)
    }
}

/// Boots a scenario.
pub fn boot(
    installed: &Installed,
    scenario: &Scenario,
    options: &Options<'_>,
) -> Result<Ours, OursError> {
    let mut scenario = scenario.clone();
    scenario.platform.memory = scenario.platform.memory.max(MEMORY);
    let planned = Planned::of(&scenario).map_err(OursError::Plan)?;
    // What is not mirrored may well kill it, and then nobody can be asked where it was.
    let (disk, before, files) = match options.mirror {
        true => (None, options.before.to_owned(), Vec::new()),
        false => {
            let files: Vec<_> = installed
                .driver(initramfs::DISK)
                .map_err(OursError::Initramfs)?
                .into_iter()
                .filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)))
                .collect();
            let before = format!("{}{}", symbols::script(&files), options.before);
            (Some(symbols::disk().map_err(OursError::Disk)?), before, files)
        }
    };
    let files = [options.task.files, &files].concat();
    let task = Task { files: &files, ..options.task };
    let then = (options.after, options.attack);
    let initrd = root::initramfs(installed, &before, &task, then).map_err(OursError::Initramfs)?;
    let kernel = fs::read(&installed.kernel)
        .map_err(|error| OursError::Kernel(installed.kernel.clone(), error))?;
    // Registers that drivers claim are root's only where that is said; and only movable memory can be
    // taken offline before its decoders are attacked.
    let attacked = if options.attack.is_some() {
        " iomem=relaxed memhp_default_state=online_movable"
    } else {
        ""
    };
    let line = format!("{COMMAND_LINE} {MORE_WORDS}{attacked} {}", options.append);
    let mut machine = Machine::new(&scenario);
    for (window, base) in scenario.windows.iter_mut().zip(&machine.map().windows) {
        window.base = *base;
    }
    if let Some(folder) = &options.media {
        Store::open(folder)
            .and_then(|store| machine.keep_media(store))
            .map_err(OursError::Media)?;
    }
    let run = guest::boot(
        &mut machine,
        &guest::Options {
            linux: Some(Linux {
                kernel: &kernel,
                initrd: &initrd,
                hidden: options.hidden,
                behind_image: options.image_first,
            }),
            disk: disk.as_ref(),
            command_line: Some(line.trim_end().to_owned()),
            lock_by: if options.image_first { LockBy::Image } else { LockBy::Vmm },
            timeout: options.timeout,
            mirror: options.mirror,
            interrupted: Arc::clone(&options.interrupted),
            on_console: options.on_console,
            attacked: options.attack.is_some(),
            ..guest::Options::default()
        },
    )
    .map_err(OursError::Guest)?;
    if run.first.end == End::Interrupted {
        return Err(OursError::Interrupted);
    }
    let facts = match Facts::parse(&run.facts) {
        Ok(facts) => facts,
        Err(_) if matches!(run.first.end, End::Exit(_)) => {
            let console = String::from_utf8_lossy(&run.console).into_owned();
            let words = super::boot::last_words(&console).unwrap_or_default();
            let console = super::boot::last_lines(&run.console);
            return Err(OursError::Image { words, console });
        }
        Err(error) => {
            let place = disk.as_ref().and_then(|disk| place(disk, &run.first.end));
            let (end, console) = (Box::new(run.first.end), super::boot::last_lines(&run.console));
            return Err(OursError::CutOff { error, end, place, console });
        }
    };
    let section = |bytes: &[u8]| Some(Section { address: 0, bytes: bytes.to_owned() });
    let by_host = run.host.as_ref().map(|host| (&host.done.handoff, &host.done.cedt));
    let by_image = run.first.handed.as_ref().map(|handed| (&handed.record, &handed.cedt));
    let made = if options.image_first { by_image } else { by_host };
    let said = Collected {
        handoff: made.and_then(|(record, _)| section(record)),
        cedt: made.and_then(|(_, cedt)| section(cedt)),
        ..Collected::default()
    };
    let attacked = options.attack.is_some();
    Ok(Ours { scenario, planned, said, facts, run, attacked })
}
