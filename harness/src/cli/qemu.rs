//! `cxl-harness qemu`: a scenario's machine as a QEMU command line, or run there.
//!
//! **Invariant**: what QEMU has no words for is said by name, and nothing is printed or run then.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use cxl_harness::linux::named;
use cxl_harness::qemu::command::{Command, NOTES, Refusal, shell};
use cxl_harness::qemu::line::{self, Given};
use cxl_harness::qemu::offers::Offers;
use cxl_harness::qemu::process;
use cxl_harness::qemu::run::{Behind, Options, RunError, direct, guest};
use cxl_harness::report::Verdict;
use cxl_model::scenario::Scenario;
use schemars::JsonSchema;
use serde::Serialize;

use super::bar::Bar;
use super::earlier::Earlier;
use super::source::Source;

/// The scenario without a name on the command line: the default one has a Type-2 device, which no
/// QEMU has.
const DEFAULT: &str = "two-way";

const EXAMPLES: &str = "\
QEMU models CXL 2.0: host bridges, root ports, one level of switches, Type-3 devices. A scenario
that needs more is refused, all of it by name: Type 2, XOR arithmetic, other numbers of decoders
than 4, several segments, bases of windows, faults, events, ... The program is asked what it has:
11.1 has back-invalidate (HDM-DB). What its windows admit cannot be chosen: where that makes another
plan the scenario is refused, and where it makes none it is a note.

Without SCENARIO: two-way, a machine that QEMU can be.

Without --run the command line is printed, ready for a shell, one option a line; add what is to run
on the machine. With --run QEMU is started and ended, and the report is that of `cxl-harness boot`:
the image boots there behind QEMU's own firmware, and its hand-off record and table are compared
with QEMU's registers and memory, read from outside through a qtest socket. With --run --direct no
guest runs: the library drives QEMU's devices from this process, on a machine that no firmware has
touched.

Words behind -- are QEMU's own, behind those of the scenario; with --run and without SCENARIO the machine
is what they build, as the library finds it. A run adds -accel tcg -display none -nodefaults -monitor none,
-qtest, and where a guest boots -kernel, -append, -serial, -no-reboot and -no-shutdown (with --kernel also
-fw_cfg and -qmp); what contradicts these is refused by name, and with a scenario -M, -cpu and -m, too.

--run --kernel: once our image is done it hands over to that Linux, with --append and --initrd as they
are. It may do as it likes, and has to switch the machine off: what is reported then is the machine
as it left it.

QEMU stores Lock On Commit and does not enforce it. So there are two results: the verifier's, that
every decoder on each path is locked, and with --attack the attack's, that locks give way: the same
attack (each bit in each state, whole values, widths, modes, and marks in memory) is made from outside
through the socket, and without --direct by the image from inside, which judges it itself; both have
to come to one verdict. From QEMU 11.0 on whole values end the program: single bits alone are tried
there, the report says so, and that cannot pass. Exit code 1 then.

JSON without --run:
  result       ok or refused
  arguments    of the program, in order
  media        device, partition, path, size: files of devices' memory, with --files
  notes        what QEMU does otherwise than hardware, and this one otherwise than the scenario
  unsupported  at, why: what QEMU has no words for
  refusal      why nothing was run, in a sentence

JSON with --run: that of `cxl-harness boot`, and peer: qemu, notes, verifier, attack. A run that
came to no report has the keys above.

Exit code:
  0    good
  1    refused, there is no QEMU that can do it, or a check failed
  2    bad usage or scenario file; a kernel or initrd that is none, words behind -- that QEMU does not
       take or that contradict what is added here
  130  Ctrl-C (128 + n after signal n: 143 SIGTERM, 129 SIGHUP); QEMU has gone

Environment:
  QEMU  the program [default: qemu-system-x86_64]

Examples:
  cxl-harness qemu two-way
  cxl-harness qemu two-way --run
  cxl-harness qemu two-way --run --attack; echo $?
  cxl-harness qemu two-way --run --direct --json | jq '.decoders[].component'
  cxl-harness qemu two-way --run -- -smp 2
  cxl-harness qemu one-device --run --kernel bzImage --append console=ttyS0 --initrd initramfs
  cxl-harness qemu one-device --kernel bzImage --append console=ttyS0 --initrd initramfs | sh
  cxl-harness qemu default; echo $?";

/// Print a scenario's machine as a QEMU command line, or run the firmware there and report.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Qemu {
    /// A built-in scenario's name (see `cxl-harness scenarios`), a TOML file, or `-` (standard input).
    /// Without one: two-way, or with --run the machine that ARGS build.
    #[arg(value_name = "SCENARIO")]
    scenario: Option<String>,

    /// QEMU's own words, behind `--`: besides those of the scenario, or with --run alone.
    #[arg(value_name = "ARGS", last = true, allow_hyphen_values = true)]
    words: Vec<OsString>,

    #[command(flatten)]
    earlier: Earlier,

    /// Print JSON instead of text; the end of this help lists the keys.
    #[arg(long)]
    json: bool,

    /// Keep devices' memory in files of this directory, in order of device address.
    #[arg(long, value_name = "DIRECTORY", value_parser = super::output::folder_to_write())]
    files: Option<PathBuf>,

    /// What QEMU is to boot: adds -kernel. With --run the Linux (a bzImage) that our image hands over to
    /// once it is done; it has to switch the machine off.
    #[arg(long, value_name = "FILE", conflicts_with = "direct")]
    kernel: Option<PathBuf>,

    /// Its command line: adds -append.
    #[arg(long, value_name = "LINE", requires = "kernel", allow_hyphen_values = true)]
    append: Option<String>,

    /// Its initial RAM disk or module: adds -initrd. With --run it is Linux's as it is.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,

    /// Start QEMU, bring the machine up, report, end QEMU.
    #[arg(long)]
    run: bool,

    /// No guest: this program drives QEMU's devices from outside.
    #[arg(long, requires = "run")]
    direct: bool,

    /// Afterwards flip every bit of what is locked, from outside, and boot once more for the attack
    /// from inside.
    #[arg(long, requires = "run")]
    attack: bool,

    /// Give up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

/// What is printed as JSON.
#[derive(JsonSchema, Serialize)]
pub(super) struct Printed {
    result: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<Vec<String>>,
    media: Vec<Medium>,
    notes: Vec<String>,
    unsupported: Vec<Unsupported>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
}

#[derive(JsonSchema, Serialize)]
struct Medium {
    device: String,
    partition: &'static str,
    path: String,
    size: String,
}

#[derive(JsonSchema, Serialize)]
struct Unsupported {
    at: String,
    why: String,
}

impl Qemu {
    pub(super) fn run(self) -> ExitCode {
        // Before the first process is started: what it leaves is to be cleaned up.
        super::signals();
        let words = self.words.clone();
        let given = Given { whole: self.scenario.is_none() && !words.is_empty(), words };
        if let Err(error) = self.takes(&given) {
            return super::fail(&error);
        }
        let linux = match self.linux() {
            Ok(linux) => linux,
            Err(error) => return super::fail(&error),
        };
        let scenario = if given.whole {
            let found = line::machine(&given.words, Duration::from_secs(self.timeout));
            found.map_err(|error| (error.is_input(), error.to_string()))
        } else {
            let named = Source::built_in(self.scenario.as_deref().unwrap_or(DEFAULT));
            self.earlier.scenario(&named).map_err(|error| (true, error))
        };
        let scenario = match scenario {
            Ok(scenario) => scenario,
            Err((true, error)) => return super::fail(&error),
            Err((false, error)) => return self.stopped(error, super::EXIT_REFUSED),
        };
        if self.run {
            return self.start(&scenario, given, linux);
        }
        let files = self.files.as_deref();
        // To print a command line no QEMU is needed; where there is one, it is for that.
        let (offers, written_for) = match Offers::ask(Duration::from_secs(self.timeout)) {
            Ok(offers) => (offers, format!("written for QEMU {}, which is here", offers.name())),
            Err(error) => {
                let oldest = Offers::of_the_oldest();
                (
                    oldest,
                    format!("written for QEMU {}, as none can be asked: {error}", oldest.name()),
                )
            }
        };
        match Command::on(&offers, &scenario, files) {
            Ok(mut command) => {
                command.notes.push(written_for);
                if !given.words.is_empty() {
                    command.groups.push(given.words);
                }
                self.print(&scenario, command)
            }
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// Whether QEMU's own words go together with the rest.
    fn takes(&self, given: &Given) -> Result<(), String> {
        const PRINTED: &str = "words behind -- and no scenario are a QEMU command line already: with --run \
                               our image boots there";
        const EARLIER: &str = "--earlier is for a scenario: name one in front of --";
        const FILES: &str =
            "--files is for a scenario: give your own -object memory-backend-file behind --";
        let contradictions = [
            (!self.run, PRINTED),
            (self.earlier.is_given(), EARLIER),
            (self.files.is_some(), FILES),
        ];
        let contradiction = contradictions.iter().find(|(is, _)| given.whole && *is);
        if let Some((_, words)) = contradiction {
            return Err((*words).to_owned());
        }
        // What is printed may go anywhere.
        if self.run { line::check(given).map_err(|error| error.to_string()) } else { Ok(()) }
    }

    /// The Linux that a run goes on to.
    fn linux(&self) -> Result<Option<Behind>, String> {
        let Some(kernel) = self.kernel.as_ref().filter(|_| self.run) else { return Ok(None) };
        named::is_kernel(kernel).map_err(|error| error.to_string())?;
        let initrd = self.initrd.clone();
        if let Some(initrd) = &initrd {
            named::is_initrd(initrd).map_err(|error| error.to_string())?;
        }
        let append = self.append.clone().unwrap_or_default();
        Ok(Some(Behind { kernel: kernel.clone(), initrd, append }))
    }

    fn print(&self, scenario: &Scenario, command: Command) -> ExitCode {
        let notes = command.all_notes();
        let mut groups = command.groups;
        let mut add = |option: &str, value: OsString| groups.push(vec![option.into(), value]);
        if let Some(kernel) = &self.kernel {
            add("-kernel", kernel.into());
        }
        if let Some(line) = &self.append {
            add("-append", line.into());
        }
        if let Some(initrd) = &self.initrd {
            add("-initrd", initrd.into());
        }
        if !self.json {
            let notes: String = notes.iter().map(|note| format!("# {note}\n")).collect();
            let text = notes + &shell(&process::program(), &groups);
            return super::print(&text, super::exit(true));
        }
        let arguments = groups.concat().into_iter().map(|word| word.to_string_lossy().into_owned());
        let media = command.media.iter().map(|medium| Medium {
            device: scenario.devices.get(medium.device).map_or("", |d| &d.name).to_owned(),
            partition: if medium.persistent { "persistent" } else { "volatile" },
            path: medium.path.to_string_lossy().into_owned(),
            size: format!("{:#x}", medium.size),
        });
        let printed = Printed {
            result: Verdict::Ok,
            arguments: Some(arguments.collect()),
            media: media.collect(),
            notes,
            unsupported: Vec::new(),
            refusal: None,
        };
        super::print(&super::json(&printed), super::exit(true))
    }

    fn refuse(&self, refusal: &Refusal) -> ExitCode {
        if !self.json {
            return super::refuse(&refusal.to_string());
        }
        let unsupported = refusal.0.iter().map(|unsupported| Unsupported {
            at: unsupported.at.clone(),
            why: unsupported.why.to_string(),
        });
        let printed = Printed {
            result: Verdict::Refused,
            arguments: None,
            media: Vec::new(),
            notes: NOTES.map(str::to_owned).to_vec(),
            unsupported: unsupported.collect(),
            refusal: Some(refusal.to_string()),
        };
        super::print(&super::json(&printed), super::exit(false))
    }

    /// No report came of a run.
    fn stopped(&self, why: String, code: u8) -> ExitCode {
        if !self.json {
            return super::complain(&why, code);
        }
        let printed = Printed {
            result: Verdict::Refused,
            arguments: None,
            media: Vec::new(),
            notes: NOTES.map(str::to_owned).to_vec(),
            unsupported: Vec::new(),
            refusal: Some(why),
        };
        super::print(&super::json(&printed), ExitCode::from(code))
    }

    fn start(&self, scenario: &Scenario, given: Given, linux: Option<Behind>) -> ExitCode {
        let options = Options {
            attack: self.attack,
            files: self.files.clone(),
            timeout: Duration::from_secs(self.timeout),
            interrupted: super::interrupted(),
            given,
            linux,
        };
        let run = if self.direct { direct } else { guest };
        let bar = Bar::until(options.timeout, "QEMU boots");
        let ran = run(scenario, &options);
        drop(bar);
        let report = match ran {
            Ok(report) => report,
            Err(RunError::Refused(refusal)) => return self.refuse(&refusal),
            Err(error @ RunError::Interrupted { .. }) => {
                return self.stopped(error.to_string(), super::signals().code());
            }
            Err(error) => return self.stopped(error.to_string(), super::EXIT_REFUSED),
        };
        let good = report.facts.result == Verdict::Ok;
        let columns = super::columns();
        let text = || super::styled(&format!("{report:columns$}"));
        let output = if self.json { super::json(&report) } else { text() };
        super::print(&output, super::exit(good))
    }
}
