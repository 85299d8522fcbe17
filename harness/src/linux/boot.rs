//! A scenario on QEMU: our image boots, programs and locks, and hands over to an installed Linux,
//! which runs to its end. Beside it, what the library plans for the machine that QEMU makes.
//!
//! **Invariant**: addresses, in the plan and on the image's command line, are those of QEMU's map;
//! QEMU is waited for and ended within the time limit; its files live in a directory that goes with
//! the result.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::planned::Planned;
use super::uefi::{self, Uefi};
use super::verdict::{Evidence, Verdict};
use super::{COMMAND_LINE, COMMAND_LINE_ARM, Facts, FactsError, InitramfsError, Installed, Task};
use crate::console::{self, Collected, ConsoleError};
use crate::guest::boot::{IMAGE, command_line};
use crate::qemu::command::{Medium, Refusal};
use crate::qemu::line::Given;
use crate::qemu::offers::Offers;
use crate::qemu::process::{Arch, Process, ProcessError};

use crate::qemu::run::{RunError, platform_of};
use crate::report::Seen;
use crate::run::{self, Inexpressible};
use cxl_firmware::topology::Path;
use cxl_model::fabric::{DeviceDvsec, Fabric, HdmImage};
use cxl_model::scenario::{Place, Scenario};
use cxl_regs::Component;

/// Linux and its initramfs want more than our image does.
const MEMORY: u64 = 1 << 30;
/// What `init.sh` says first.
const FIRST_FACT: &[u8] = b"/proc/version=";
/// Between two looks whether Linux has ended, or somebody wants it to.
const STEP: Duration = Duration::from_millis(100);

/// How to boot.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Shell text that runs in the guest before the drivers load: how a test puts a fault in.
    pub before: &'a str,
    /// What it is to do once they have settled. Linux then does not know that it is in a guest, as it
    /// makes no region in one: "Failed to synchronize CPU cache state".
    pub task: Task<'a>,
    /// Time limit.
    pub timeout: Duration,
    /// Set by Ctrl-C.
    pub interrupted: &'a AtomicBool,
    /// What boots.
    pub by: By,
    /// Words of QEMU's own.
    pub given: &'a Given,
    /// Words for Linux's command line, besides those that it needs.
    pub append: &'a str,
}

/// What boots, and hands over to Linux.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// The bare-metal image, as a kernel of QEMU's.
    #[default]
    Image,
    /// The UEFI driver, under a firmware that is installed.
    Uefi(Arch),
}

/// What ended a Linux that had not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// QEMU ended with this code: 33, 35 or 37 if our image ended it.
    Code(i32),
    /// Somebody ended QEMU.
    Signal,
    /// Its time was up.
    Time(Duration),
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "QEMU ended with exit code {code}"),
            Self::Signal => f.write_str("a signal ended QEMU"),
            Self::Time(limit) => {
                write!(f, "its {} s were up (--timeout gives it more)", limit.as_secs())
            }
        }
    }
}

/// Why Linux did not come to its end.
#[derive(Debug)]
pub enum BootError {
    /// QEMU has no words for the machine.
    Refused(Refusal),
    /// The library has no words for the scenario.
    Scenario(Inexpressible),
    /// The library refuses the scenario on QEMU's map.
    Plan(run::Refusal),
    /// QEMU does not say where it puts things.
    Map(RunError),
    /// There is no initramfs.
    Initramfs(InitramfsError),
    /// There is no UEFI firmware, or no driver for it.
    Uefi(uefi::Missing),
    /// There is no QEMU.
    Qemu(ProcessError),
    /// A file cannot be written.
    File(io::Error),
    /// Ctrl-C, or another signal to end.
    Interrupted {
        /// The last lines of the console.
        console: String,
    },
    /// Our image ended itself, so that Linux never started.
    Image {
        /// Its reason, in its own words.
        words: String,
        /// The last lines of the console.
        console: String,
    },
    /// What the image printed makes no sense.
    Console(ConsoleError),
    /// QEMU ended, or the time did, before Linux did.
    CutOff {
        /// What there is of Linux's facts.
        error: FactsError,
        /// How it ended.
        end: Cut,
        /// QEMU's own words.
        words: String,
        /// The last lines of the console.
        console: String,
    },
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Scenario(error) => error.fmt(f),
            Self::Plan(refusal) => {
                write!(f, "the library refuses this scenario where QEMU has its windows: {refusal}")
            }
            Self::Map(error) => error.fmt(f),
            Self::Image { words, console } => write!(
                f,
                "the image ended before Linux started: {words}; the end of the console:\n{console}"
            ),
            Self::Console(error) => error.fmt(f),
            Self::Initramfs(error) => error.fmt(f),
            Self::Uefi(error) => error.fmt(f),
            Self::Qemu(error) => error.fmt(f),
            Self::File(error) => write!(f, "temporary files: {error}"),
            Self::Interrupted { console } if console.is_empty() => f.write_str("interrupted"),
            Self::Interrupted { console } => {
                write!(f, "interrupted; the end of the console:\n{console}")
            }
            Self::CutOff { error, end, words, console } => {
                write!(f, "{error}; {end}")?;
                if !words.is_empty() {
                    write!(f, ": {words}")?;
                }
                match console.trim() {
                    "" => f.write_str("; the console is empty"),
                    console => write!(f, "; the end of the console:\n{console}"),
                }
            }
        }
    }
}

impl std::error::Error for BootError {}

/// What came of one boot.
#[derive(Debug)]
pub struct Boot {
    /// The scenario, with the memory that it was given and its windows where QEMU has them.
    pub scenario: Scenario,
    /// What the library plans for it.
    pub planned: Planned,
    /// What the image printed of its work.
    pub said: Collected,
    /// What Linux says.
    pub facts: Facts,
    /// The first serial port: our image, then Linux.
    pub console: String,
    /// From QEMU's start to Linux's /init, by our image; looked at ten times a second.
    pub to_init: Option<Duration>,
    /// QEMU's exit code; `None` if it was ended.
    pub status: Option<i32>,
    /// QEMU's version.
    pub qemu: String,
    /// What this QEMU has otherwise than the scenario.
    pub notes: Vec<String>,
    media: Vec<Medium>,
    _directory: TempDir,
}

impl Boot {
    /// The registers as the image printed them once all was committed.
    pub fn seen(&self) -> Seen {
        let scenario = &self.scenario;
        let mut fabric = Fabric::of(scenario);
        let at = |component, path: &Path| {
            let count = match component {
                Component::HostBridge => scenario.bridges.len(),
                Component::UpstreamPort => scenario.switches.len(),
                Component::Device => scenario.devices.len(),
            };
            let place = |index| match component {
                Component::HostBridge => Place::Bridge(index),
                Component::UpstreamPort => Place::Switch(index),
                Component::Device => Place::Device(index),
            };
            (0..count).find(|index| run::path(scenario, place(*index)).as_ref() == Some(path))
        };
        for registers in &self.said.hdm {
            let Some(index) = at(registers.component, &registers.place) else { continue };
            let hdm = match registers.component {
                Component::HostBridge => fabric.bridges.get_mut(index).map(|b| &mut b.hdm),
                Component::UpstreamPort => fabric.switches.get_mut(index).map(|s| &mut s.hdm),
                Component::Device => fabric.devices.get_mut(index).map(|d| &mut d.hdm),
            };
            if let Some(hdm) = hdm {
                *hdm = Some(HdmImage::read(&registers.section.bytes));
            }
        }
        for registers in &self.said.dvsec {
            let dword = cxl_regs::block::image(&registers.section.bytes);
            let index = at(Component::Device, &registers.place);
            if let Some(device) = index.and_then(|index| fabric.devices.get_mut(index)) {
                device.dvsec = Some(DeviceDvsec { capability: dword(0x08), control: dword(0x0C) });
            }
        }
        Seen::of(fabric)
    }

    /// What is planned, held against what Linux has.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(&Evidence {
            scenario: &self.scenario,
            planned: &self.planned,
            said: &self.said,
            facts: &self.facts,
            end: match self.status {
                Some(0) => None,
                Some(code) => Some(format!("QEMU ended with exit code {code}")),
                None => Some("QEMU did not end after Linux's last word".to_owned()),
            },
            qemu: Some(&self.qemu),
            notes: &self.notes,
        })
    }

    /// The bytes behind a device's memory, volatile ones first, as QEMU left them.
    pub fn media(&self, device: usize) -> io::Result<Vec<u8>> {
        let mut parts: Vec<_> = self.media.iter().filter(|part| part.device == device).collect();
        parts.sort_by_key(|part| part.persistent);
        let parts: Vec<_> =
            parts.iter().map(|part| fs::read(&part.path)).collect::<Result<_, _>>()?;
        Ok(parts.concat())
    }
}

/// Boots a scenario.
pub fn boot(
    installed: &Installed,
    scenario: &Scenario,
    options: &Options<'_>,
) -> Result<Boot, BootError> {
    let mut scenario = scenario.clone();
    if !options.given.whole {
        scenario.platform.memory = scenario.platform.memory.max(MEMORY);
    }
    let arch = match options.by {
        By::Image => Arch::X86,
        By::Uefi(arch) => arch,
    };
    let offers =
        Offers::ask_for(arch, options.timeout).map_err(|error| BootError::Map(error.into()))?;
    let directory = tempfile::tempdir().map_err(BootError::File)?;
    let at = |name: &str| directory.path().join(name);
    let initramfs =
        installed.initramfs(options.before, &options.task).map_err(BootError::Initramfs)?;
    let uefi = match options.by {
        By::Image => None,
        By::Uefi(arch) => Some(Uefi::find(arch).map_err(BootError::Uefi)?),
    };

    let machine = options.given.command(&offers, &scenario, Some(directory.path()));
    let machine = machine.map_err(BootError::Refused)?;
    // Windows lie elsewhere on QEMU, and which goes where hangs on that.
    let (_, view) =
        platform_of(arch, &scenario, &machine, options.timeout).map_err(BootError::Map)?;
    if options.interrupted.load(Ordering::Relaxed) {
        return Err(BootError::Interrupted { console: String::new() });
    }
    let planned = Planned::of(&view.scenario).map_err(BootError::Plan)?;
    let line = command_line(&view.scenario, &view.map, "linux").map_err(BootError::Scenario)?;
    // How wide a physical address is, this processor can be asked.
    let own: Vec<_> = line.split(' ').filter(|word| !word.starts_with("address-bits=")).collect();
    let own = own.join(" ");
    let mut arguments = machine.arguments();
    if !options.task.script.is_empty() && arch == Arch::X86 {
        // Of two the last one counts.
        arguments.extend(["-cpu".into(), "max,-hypervisor".into()]);
    }
    let plain = "-accel tcg -display none -nodefaults -no-reboot -serial";
    arguments.extend(plain.split_whitespace().map(OsString::from));
    arguments.push(super::joined("file:", &at("console")));
    match uefi {
        None => {
            fs::write(at("initramfs"), initramfs).map_err(BootError::File)?;
            fs::write(at("image"), IMAGE).map_err(BootError::File)?;
            let line = format!("{own} dump -- {COMMAND_LINE} {}", options.append);
            let line = line.trim_end();
            arguments.extend(["-device".into(), "isa-debug-exit,iobase=0xf4,iosize=4".into()]);
            arguments.extend(["-kernel".into(), at("image").into()]);
            arguments.extend(["-append".into(), line.into()]);
            arguments.extend(installed.arguments(&at("initramfs"), &at("facts")));
        }
        Some(uefi) => {
            arguments.extend(["-serial".into(), super::joined("file:", &at("facts"))]);
            // What is the image's own is said by the text's other lines.
            let words = own.split(' ').filter(|word| !word.starts_with("payload="));
            let words = words.chain(["dump"]).collect::<Vec<_>>().join(" ");
            let line = if arch == Arch::Arm { COMMAND_LINE_ARM } else { COMMAND_LINE };
            let line = format!("{line} {}", options.append);
            let line = line.trim_end();
            let more = uefi.arguments(directory.path(), installed, &initramfs, &words, line);
            arguments.extend(more.map_err(BootError::Uefi)?);
        }
    }

    let mut qemu = Process::start_for(arch, &arguments).map_err(BootError::Qemu)?;
    let start = Instant::now();
    let mut to_init = None;
    let end = loop {
        if let Some(status) = qemu.wait(STEP) {
            break status.code().map_or(Cut::Signal, Cut::Code);
        }
        let size = |name: &str| fs::metadata(at(name)).map_or(0, |facts| facts.len());
        // A UEFI firmware speaks there first.
        if to_init.is_none() && options.by == By::Image && size("facts") > 0 {
            to_init = Some(start.elapsed());
        }
        if size("console") > console::MAX_CONSOLE {
            return Err(BootError::File(console::too_long()));
        }
        if options.interrupted.load(Ordering::Relaxed) {
            drop(qemu);
            let said = console::so_far(&at("console")).map_err(BootError::File)?;
            return Err(BootError::Interrupted { console: last_lines(&said) });
        }
        if start.elapsed() > options.timeout {
            break Cut::Time(options.timeout);
        }
    };
    let words = qemu.words();
    drop(qemu);

    // What was never written is as good as empty.
    let read = |name: &str| fs::read(at(name)).unwrap_or_default();
    let console = console::so_far(&at("console")).map_err(BootError::File)?;
    let console = String::from_utf8_lossy(&console).into_owned();
    let last = last_lines(console.as_bytes());
    // A UEFI firmware has its console on every serial port: Linux's first word is where it begins.
    let mut told = read("facts");
    if matches!(options.by, By::Uefi(_)) {
        let first = told.windows(FIRST_FACT.len()).position(|word| word == FIRST_FACT);
        told.drain(..first.unwrap_or(told.len()));
    }
    let facts = match Facts::parse(&told) {
        Ok(facts) => facts,
        Err(error) => {
            return Err(match last_words(&console) {
                Some(words) => BootError::Image { words, console: last },
                None => BootError::CutOff { error, end, words, console: last },
            });
        }
    };
    let said = console::collect(console.as_bytes()).map_err(BootError::Console)?;
    Ok(Boot {
        scenario: view.scenario,
        planned,
        said,
        facts,
        console,
        to_init,
        status: match end {
            Cut::Code(code) => Some(code),
            Cut::Signal | Cut::Time(_) => None,
        },
        qemu: offers.name(),
        notes: machine.notes,
        media: machine.media,
        _directory: directory,
    })
}

/// The end of a console for people; the dump is for machines.
pub(crate) fn last_lines(console: &[u8]) -> String {
    let console = String::from_utf8_lossy(console);
    let lines: Vec<_> = console.lines().filter(|line| !line.starts_with("dump ")).collect();
    lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
}

/// Why the image ended by itself, if it did: its refusal, or the line in front of its last.
pub(super) fn last_words(console: &str) -> Option<String> {
    let mut lines = console.lines().rev().map(str::trim_end);
    lines.find(|line| line.starts_with("end: "))?;
    let said = || console.lines().rev().map(str::trim_end);
    let refused = said().find_map(|line| line.strip_prefix("refused: "));
    Some(refused.or_else(|| lines.find(|line| !line.is_empty()))?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::last_words;

    #[test]
    fn an_image_that_ended_says_why() {
        let refused = "cxl firmware at ring 0\r\nrefused: plan: no window\r\nend: refused\r\n";
        assert_eq!(last_words(refused).as_deref(), Some("plan: no window"));
        let linux = "linux: no kernel: give one\nend: refused\n";
        assert_eq!(last_words(linux).as_deref(), Some("linux: no kernel: give one"));
        let panicked = "panicked at main.rs:1:1:\nbad\nend: panic\n";
        assert_eq!(last_words(panicked).as_deref(), Some("bad"));
        assert_eq!(last_words("linux: 13 bytes at 0x1000\n[    0.1] Linux\n"), None);
        assert_eq!(last_words(""), None);
    }
}
