//! `cxl-harness boot`: runs the firmware on a scenario's machine and reports.
//!
//! **Invariant**: the report is what decides the exit code; how the firmware was run does not.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};
use cxl_firmware::handoff;
use cxl_harness::guest::boot::{GuestError, Linux, LockBy, Options, boot};
use cxl_harness::guest::payload::{self, ATTACK, PAYLOADS, Payload};
use cxl_harness::html;
use cxl_harness::kvm::{Input, VmError};
use cxl_harness::report::{Measured, Refusal, Report, Requirement, Runner, Svg, Verdict};
use cxl_harness::run;
use cxl_harness::suite::Suite;
use cxl_harness::vigil::{Moment, Vigil};
use cxl_harness::{attack, kvm};
use cxl_image::doorbell;
use cxl_model::fabric::Fabric;
use cxl_model::kept::Kept;
use cxl_model::machine::{Machine, TraceText, WalksText};
use cxl_model::mapping::{Path as Way, Reason};
use cxl_model::scenario::{self, Action, PathPolicy, Scenario};
use cxl_model::store::{SetRecord, Store};
use cxl_model::trace::{Access, MOST_ACCESSES, MOST_PARTS, Walked};
use schemars::JsonSchema;
use serde::Serialize;

use super::bar::{self, Bar};
use super::earlier::Earlier;
use super::output::{self, Output};
use super::source::Source;
use super::{PageFile, Shape};

const EXAMPLES: &str = "\
The firmware finds the CXL memory of the machine, decides where it goes, programs the HDM decoders
of each path, commits and locks them, and describes the result in a CEDT. The report says what came
of it, and whether registers, hand-off record, table and verifier agree.

JSON:
  result     ok, refused (with refusal: phase, code, message) or failed (with failures)
  ran        guest or models, with ran_why and left_out (what was asked for and takes a guest)
  topology   component, kind, below, place, uid, port, decoders, volatile, persistent, present
  windows    window, base, size, ways, granularity, arithmetic, targets, restrictions
  decoders   component, fate, and the keys of `cxl-harness decode --json`: index, base, size, ways,
             granularity, targets, skip, dpa, committed, locked, ...
  regions    window, hpa, size, ways, granularity, coherency, memory, locked, members
  mappings   window, hpa, size, how (direct or trapped), reason, message, ways, granularity,
             members
  passed     device, decoder, hpa, host, size, dpa: devices that were handed over from hardware
  cedt       the keys of `cxl-harness decode --json`
  locks      in_use, in_force, ranges, locked, sealed, not_locked, not_sealed: what the locks
             protect at the hand-off, by the models' registers
  required   with --require: what, met, and not_known: why nobody can say
  findings   code, failure, moment, witness, message: everything that was seen, by whom and when
  final      moment, locks, decoders, mappings, slots: the machine in the end, or as the attack
             found it; only where that is not what was handed over
  traffic    reads, writes, dropped, decoders (component, index, reads, writes, and stages: the
             same as found, program, commit and after)
  trace      with --trace: sequence, direction, address, component, register, decoder, value,
             meaning
  walks      with --trace: before (the register access that came next), direction, hpa, length,
             paths (the keys of `cxl-harness explain --json`, and bytes), of each access to a window
             that was decoded by itself
  trace_left_out  with --trace: trace, walks: how many entries of either are not there; the first
             32768 accesses are, and walks with 8192 paths
  attack     after the payload attack: tried, held, allowed, changed, integrity, availability, ...
  measured   what varies from run to run: run_us; guest with kvm (the host's kind of KVM, as seen at
             the start: ring0, after_triple_fault, extension, paging, exit_ns, slowness), setup_us,
             handoff_us, exits, without_exit, slots, unmirrored, cost, end, then, last_access, checks, its_words,
             internal_errors, events, transfers, disk, slot_calls, left_out, console
  Addresses, sizes and codes are strings like \"0x1f\"; what does not apply is null.

Exit code:
  0  the firmware did what was asked, and every check agrees
  1  the firmware refused, a check failed, a demand was not met, or is not known to be as something
     was not done, the guest did not end as it should, or what was asked for takes a guest and there
     is no KVM
  2  bad usage, scenario file or image
  130  Ctrl-C (128 + n after signal n: 143 SIGTERM, 129 SIGHUP); the report says how far it came

Examples:
  cxl-harness boot
  cxl-harness boot four-bridges
  cxl-harness boot one-device --trace | less
  cxl-harness boot --image mine.elf --append 'console=com1' --then attack --require sealed
  cxl-harness boot --lock-by vmm --payload touch
  cxl-harness boot unlocked --payload sse,xsavec,recreate
  cxl-harness boot four-way --mirror off --payload touch --trace
  cxl-harness boot persistent-interleave --media /var/tmp/cxl --payload touch
  cxl-harness boot hot-plug --payload count
  cxl-harness nested -- boot one-device --linux vmlinuz --initrd initrd.img --console
  cxl-harness boot one-device --linux --initrd initrd.img --console --input -
  cxl-harness nested -- boot one-device --linux vmlinuz --image-first --disk disk.img
  cxl-harness boot four-bridges --svg map.svg
  cxl-harness boot machine.toml --record machine.record
  cxl-harness boot larger.toml --earlier machine.record
  cxl-harness boot machine.toml --json | jq '.decoders[] | select(.locked | not)'";

/// Run the firmware on a scenario's machine and report what it left.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("foreign").args(["image", "linux"]).multiple(false))]
pub(super) struct Boot {
    #[command(flatten)]
    source: Source,

    #[command(flatten)]
    earlier: Earlier,

    /// Write the hand-off record into this file as well: what --earlier and a restore take. A run that is
    /// refused, and has no region in use, leaves the file as it is.
    #[arg(long, value_name = "FILE", value_parser = output::beside_the_report())]
    record: Option<PathBuf>,

    /// Run the firmware on the device models in this process, without a guest.
    #[arg(long)]
    direct: bool,

    #[command(flatten)]
    shape: Shape,

    /// Run the firmware on the device models where there is no KVM, whatever was asked of a guest.
    ///
    /// Without it a run that asks nothing of a guest falls back to the models by itself, and says so;
    /// any other is an error.
    #[arg(long, conflicts_with_all = ["direct", "image"])]
    on_models: bool,

    /// What our image runs once the firmware is done, several with commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "none",
          value_parser = payloads(), hide_default_value = true, hide_possible_values = true,
          conflicts_with_all = ["direct", "image"], long_help = payload_help())]
    payload: Vec<String>,

    /// Boot somebody else's firmware instead of ours: an ELF image with a PVH entry.
    #[arg(long, value_name = "FILE", conflicts_with = "direct")]
    image: Option<PathBuf>,

    /// Boot Linux instead, at once: nothing has programmed a decoder, unless `--lock-by vmm` or
    /// `--image-first` says so.
    ///
    /// KERNEL is a bzImage of Linux 5.1 or later [default: what LINUX_KERNEL names, or the newest in
    /// /boot]; SCENARIO stands in front of the option. The machine has interrupt controllers, a serial
    /// console (`console=ttyS0 panic=-1 reboot=t` is on its command line), ACPI tables with a PCI root
    /// bus for each host bridge and with the CEDT, and a disk if `--disk` says so. The run is good if Linux switches the
    /// machine off. It takes a KVM that runs CPL 0 natively: elsewhere, run this inside
    /// `cxl-harness nested`.
    #[arg(long, value_name = "KERNEL", num_args = 0..=1,
          conflicts_with_all = ["direct", "image", "payload", "on_models"])]
    linux: Option<Option<PathBuf>>,

    /// The initrd of that Linux.
    #[arg(long, value_name = "FILE", requires = "linux")]
    initrd: Option<PathBuf>,

    /// The disk of that Linux, read and written: a file of a whole number of sectors of 512 bytes.
    ///
    /// It is a virtio block device on a PCI root bus of its own. Its buffers may lie in CXL memory:
    /// where that is mirrored bytes go through host pointers, where it is not they are decoded. The
    /// report counts both, and names what cannot be done.
    #[arg(long, value_name = "FILE", requires = "linux")]
    disk: Option<PathBuf>,

    /// Boot our image first: it does what the scenario asks, publishes its tables, and hands over to
    /// that Linux, as it does on QEMU.
    #[arg(long, requires = "linux")]
    image_first: bool,

    /// Have that Linux believe that it runs on hardware: it writes back and invalidates caches only
    /// there, and makes CXL regions only where it can.
    #[arg(long, requires = "linux")]
    hide_hypervisor: bool,

    /// Print what the guest writes to its console, as it comes, on standard error.
    #[arg(long, conflicts_with = "direct")]
    console: bool,

    /// What that Linux reads at its serial console: a file, or `-` for standard input, as it comes.
    ///
    /// It is handed over, with an interrupt, once Linux opens the console; what is there while it does,
    /// 16 bytes at most, its driver throws away, so that a file may begin with empty lines. A terminal
    /// passes a line at a time.
    #[arg(long, value_name = "FILE", requires = "linux")]
    input: Option<PathBuf>,

    /// The command line of that image; without it the line is empty. Words for Linux.
    ///
    /// Our own image, written to a file by `cxl-harness image`, is known again: it gets the
    /// scenario's words as well, and `ring3` where the host emulates CPL 0.
    #[arg(long, value_name = "WORDS", requires = "foreign", allow_hyphen_values = true)]
    append: Option<String>,

    /// Once that image has ended, run our image with this payload on what it left.
    #[arg(long, value_name = "NAMES", requires = "image", value_delimiter = ',',
          value_parser = payloads(), hide_possible_values = true,
          long_help = "Once that image has ended, run our image with these payloads on what it \
                       left: attack, touch, ... (see --payload). An attack demands that what is \
                       in use is locked.")]
    then: Vec<String>,

    /// A write to this I/O port ends the image's run.
    #[arg(long, value_name = "PORT", requires = "image", value_parser = port)]
    until_port: Option<u16>,

    /// What has to be true of the locks at the hand-off and at every moment after it, or the exit
    /// code is 1.
    ///
    /// locked: every decoder in use has a lock in force, and each path is whole. sealed: and no range
    /// register or enable can lead a locked range elsewhere (CONFIG_LOCK is set). With @handoff
    /// (locked@handoff) what comes later does not count. Judged from the models' own registers,
    /// after everything that changes one, up to an attack by our own image.
    #[arg(long, value_name = "locked|sealed[@handoff]")]
    require: Option<Requirement>,

    /// Who programs and locks: the image in the guest, or this program before the guest starts.
    #[arg(long, value_name = "WHO", default_value = "image", conflicts_with_all = ["direct", "image"])]
    lock_by: Locker,

    /// Bytes that may be mirrored into the guest, such as 256MiB [default: half of what is free].
    #[arg(long, value_name = "BYTES", value_parser = bytes, conflicts_with = "direct")]
    budget: Option<u64>,

    /// End the guest after this many seconds [default: 30, or 120 with an attack; on a host that is
    /// slower than usual, as measured at the start, as many times more].
    #[arg(long, value_name = "SECONDS", conflicts_with = "direct",
          value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,

    /// Whether committed memory becomes memory of the guest (on, the default), or each access is
    /// decoded (off).
    #[arg(long, value_name = "ON|OFF", conflicts_with = "direct")]
    mirror: Option<Switch>,

    /// Keep persistent memory in files of this directory, from run to run.
    ///
    /// DIR is created, its parent has to be there. A device's memory is NAME.media: a header of
    /// which the first 104 bytes mean something, and from 2 MiB on the persistent partition in the
    /// order of the device's own addresses. DPA 0 is at 2 MiB if the device has no volatile memory;
    /// volatile memory comes first and is in no file. While an interleaved set is committed and
    /// mirrored, its bytes are in a file of their own, in the order of host addresses. The death of
    /// this program at any moment loses no store that the guest had finished; after a loss of power
    /// the latest may be missing.
    #[arg(long, value_name = "DIR", conflicts_with = "direct", value_parser = output::folder_to_write())]
    media: Option<PathBuf>,

    /// Print every register access of the firmware, with the names of registers and fields, and the
    /// way of every access to a window that is decoded by itself.
    #[arg(long)]
    trace: bool,

    /// Draw the memory map into this file as well.
    #[arg(long, value_name = "FILE", value_parser = output::beside_the_report())]
    svg: Option<PathBuf>,

    #[command(flatten)]
    page: PageFile,

    /// Print no report: the exit code says how it went.
    #[arg(long, short, conflicts_with_all = ["json", "format", "trace"])]
    quiet: bool,
}

/// What there is to say of a Linux where it cannot run.
pub(super) const NO_LINUX_HERE: &str = "this host's KVM emulates CPL 0, and Linux dies there of the first instruction that its emulator \
     does not know; run this inside `cxl-harness nested -- ...`, or on a host with VT-x or AMD-V";

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

/// Who can lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Locker {
    Image,
    Vmm,
}

/// What a guest may take on an ordinary host, unless something else is asked for.
const TIMEOUT: Duration = Duration::from_secs(30);
/// One that attacks writes some ten thousand times, and everything is compared each time.
const ATTACK_TIMEOUT: Duration = Duration::from_secs(120);

/// The names of payloads, with what each does.
fn payloads() -> PossibleValuesParser {
    let value = |(name, help): &Payload| PossibleValue::new(*name).help(*help);
    PossibleValuesParser::new(PAYLOADS.iter().map(value))
}

fn payload_help() -> String {
    let lines = PAYLOADS.iter().map(|(name, help)| format!("\n  {name:<9} {help}"));
    format!(
        "What our image runs once the firmware is done, several with commas:\n{}",
        lines.collect::<String>()
    )
}

/// The number of an I/O port, behind which nothing of ours is: the byte that an image writes to the exit port
/// would be lost.
fn port(text: &str) -> Result<u16, String> {
    let number = super::number(text).ok().and_then(|number| number.try_into().ok());
    let number = number.ok_or("expected a port number from 0 to 0xffff")?;
    match [doorbell::EXIT_PORT, doorbell::PORT].contains(&number) {
        true => {
            Err(format!("expected a port that nothing is behind: {number:#x} is the machine's own"))
        }
        false => Ok(number),
    }
}

/// A number of bytes as scenarios have it.
fn bytes(text: &str) -> Result<u64, String> {
    let expected = "expected a number of bytes such as 256MiB, 0x10000000 or 268435456";
    scenario::bytes(text).ok_or_else(|| expected.to_owned())
}

/// Why there is no report.
enum Stop {
    /// Exit 1; in JSON too.
    Refused(Unstarted),
    /// Exit 2.
    BadInput(String),
}

/// A run that never began, as JSON.
#[derive(JsonSchema, Serialize)]
pub(super) struct Unstarted {
    result: Verdict,
    refusal: Refusal,
    failures: [String; 0],
}

impl Unstarted {
    fn new(refusal: Refusal) -> Self {
        Self { result: Verdict::Refused, refusal, failures: [] }
    }

    /// Refused by this program and not by the library, which has numbers.
    fn by_harness(message: String) -> Self {
        Self::new(Refusal { phase: "harness".to_owned(), code: 0, message })
    }
}

/// The report with the trace behind it.
#[derive(JsonSchema, Serialize)]
pub(super) struct Traced<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Vec<Traceline>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    walks: Option<Vec<Walkline>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_left_out: Option<TraceLeftOut>,
}

/// Entries that the trace does not have: the first ones are kept.
#[derive(JsonSchema, Serialize)]
struct TraceLeftOut {
    trace: u64,
    walks: u64,
}

/// What was run, and the hand-off record; empty if there is none.
type Done = (Report, Vec<u8>);

/// What was traced.
type Traces = (Kept<Access, MOST_ACCESSES>, Kept<Walked, MOST_PARTS>);

/// One access to a window.
#[derive(JsonSchema, Serialize)]
struct Walkline {
    before: u64,
    direction: String,
    hpa: String,
    length: u64,
    paths: Vec<Part>,
}

/// A part of it that has one way.
#[derive(JsonSchema, Serialize)]
struct Part {
    bytes: u64,
    #[serde(flatten)]
    walk: Option<super::explain::Walk>,
    reason: Option<&'static str>,
}

/// One access.
#[derive(JsonSchema, Serialize)]
struct Traceline {
    sequence: u64,
    direction: String,
    address: String,
    component: Option<String>,
    register: Option<&'static str>,
    decoder: Option<u8>,
    value: String,
    meaning: String,
}

impl Boot {
    /// What a bare `cxl-harness` does: the main scenario, its cost, and an attack on its locks.
    pub(super) fn of_default(svg: Option<PathBuf>, page: PageFile, json: bool) -> Self {
        Self {
            source: Source::built_in("default"),
            earlier: Earlier::default(),
            record: None,
            direct: false,
            shape: Shape { json, ..Shape::default() },
            on_models: true,
            payload: ["cost", ATTACK].map(str::to_owned).to_vec(),
            image: None,
            linux: None,
            initrd: None,
            disk: None,
            image_first: false,
            hide_hypervisor: false,
            console: false,
            input: None,
            append: None,
            then: Vec::new(),
            until_port: None,
            require: None,
            lock_by: Locker::Image,
            budget: None,
            timeout: None,
            mirror: None,
            media: None,
            trace: false,
            svg,
            page,
            quiet: false,
        }
    }

    pub(super) fn run(self) -> ExitCode {
        let mut machine = match self.earlier.machine(&self.source) {
            Ok(machine) => machine,
            Err(error) => return super::fail(&error),
        };
        let named = [self.svg.as_deref(), self.page.html.as_deref(), self.record.as_deref()];
        let [picture, page, kept] = match Output::all(named) {
            Ok(files) => files,
            Err(error) => return super::fail(&error),
        };
        if let Err(error) =
            output::apart([&picture, &page, &kept].into_iter().flatten(), self.media.as_deref())
        {
            return super::fail(&error);
        }
        let before = machine.fabric();
        if let Some(directory) = &self.media {
            match Store::open(directory).and_then(|store| machine.keep_media(store)) {
                Ok(recovered) => {
                    for set in recovered.sets {
                        super::note(&brought_back(&set));
                    }
                }
                Err(error) => return super::fail(&error.to_string()),
            }
        }
        if self.trace {
            machine.recorder_mut().keep();
        }
        let (mut report, record) = match self.report(&mut machine) {
            Ok(done) => done,
            Err(Stop::Refused(unstarted)) => {
                let code = super::refuse(&unstarted.refusal.message);
                let title = format!("Scenario {}", machine.scenario().name);
                let told = html::of_refusal(&title, &unstarted.refusal, &super::command_line());
                let told = page.map_or(Ok(()), |file| file.write(told.to_string().as_bytes()));
                let code = told.map_or_else(|error| super::fail(&error), |()| code);
                let name = format!("boot {}", machine.scenario().name);
                let suite = || {
                    Suite::of_refusal(name, Some(&unstarted.refusal)).about([self.source.name()])
                };
                let output = self.shape.collected(suite);
                let output = output.or(self.shape.is_json().then(|| super::json(&unstarted)));
                return output.map_or(code, |output| super::print(&output, code));
            }
            Err(Stop::BadInput(error)) => return super::fail(&error),
        };
        report.facts.repeat = Some(self.repeat());
        let walks = machine.recorder_mut().take_walks();
        let trace = self.trace.then(|| (machine.recorder_mut().take(), walks));
        if self.media.is_some() {
            // Without power no decoder is committed: the devices' files hold everything.
            machine.lay_out(&[]);
            machine.reserve(&[]);
            report.facts.unsaved(&machine.troubles());
        }
        let interrupted = report.measured.as_ref().is_some_and(Measured::interrupted);
        let code = match report.facts.result {
            _ if interrupted => ExitCode::from(super::signals().code()),
            result => super::exit(result == Verdict::Ok),
        };
        let drawn =
            picture.map_or(Ok(()), |file| file.write(Svg(&report.facts).to_string().as_bytes()));
        let drawn = drawn.and(page.map_or(Ok(()), |file| {
            let page = html::of_run(&report.facts, Some(&before), &super::command_line());
            file.write(page.to_string().as_bytes())
        }));
        // A refused run may leave a record without regions: kept in place of an earlier one, it would lose
        // where they were.
        let has_regions =
            handoff::read(&record).is_ok_and(|record| record.regions().next().is_some());
        let refused = report.facts.refusal.is_some();
        let recorded = kept.map_or(Ok(()), |file| {
            let named = file.named();
            if refused && !has_regions {
                super::note(&format!(
                    "{named}: not written, as the firmware refused: see the report"
                ));
                return Ok(());
            }
            match record.is_empty() {
                true => Err(format!("{named}: not written: no record was handed over")),
                false => file.write(&record),
            }
        });
        let drawn = drawn.and(recorded);
        // A run may have taken a while: its report is not lost with the picture.
        if !self.quiet {
            let code = super::print(&self.output(&machine, &report, trace), code);
            return drawn.map_or_else(|error| super::fail(&error), |()| code);
        }
        drawn.map_or_else(|error| super::fail(&error), |()| code)
    }

    /// The command that tells every write of an attack: this one without what says how it is printed.
    fn repeat(&self) -> String {
        let words = super::command_line();
        let words = words
            .split(' ')
            .filter(|word| !matches!(*word, "--json" | "--format" | "--format=text" | "text"));
        format!("{} --json", words.collect::<Vec<_>>().join(" "))
    }

    /// What was asked for that only a guest can do, in the words of the command line.
    fn asked_of_a_guest(&self, scenario: &Scenario) -> Vec<String> {
        let payloads = self.payload.iter().filter(|name| *name != payload::NONE);
        let mut asked: Vec<String> = payloads.map(|name| format!("--payload {name}")).collect();
        for (set, words) in [
            (self.image.is_some(), "--image"),
            (self.linux.is_some(), "--linux"),
            (self.lock_by == Locker::Vmm, "--lock-by vmm"),
            (self.mirror.is_some(), "--mirror"),
            (self.budget.is_some(), "--budget"),
            (self.media.is_some(), "--media"),
        ] {
            if set {
                asked.push(words.to_owned());
            }
        }
        asked.extend(Self::events_of(scenario));
        asked
    }

    /// The same of a scenario's events, which happen as a guest counts.
    fn events_of(scenario: &Scenario) -> Vec<String> {
        let any = !scenario.events.is_empty();
        any.then(|| "the scenario's events".to_owned()).into_iter().collect()
    }

    /// Runs the firmware in a guest, or directly where that was asked for, or where there is no KVM
    /// and nothing was asked that takes one.
    fn report(&self, machine: &mut Machine) -> Result<Done, Stop> {
        if self.direct {
            for event in events(machine.scenario()) {
                super::note(&event);
            }
            let left_out = Self::events_of(machine.scenario());
            return Ok(self.on_the_models(machine, "as asked (--direct)".to_owned(), left_out));
        }
        let why = match kvm::available() {
            Ok(()) => match self.guest(machine)? {
                Ok(report) => return Ok(report),
                Err(error) => error,
            },
            Err(error) => error,
        };
        let asked = self.asked_of_a_guest(machine.scenario());
        if !asked.is_empty() && !self.on_models {
            let asked = asked.join(", ");
            return Err(Stop::Refused(Unstarted::by_harness(format!(
                "{why}. It takes a guest to do what was asked: {asked}; with --on-models the \
                 firmware runs on the device models instead, and the report says what was left out"
            ))));
        }
        super::note(&format!("{why}; running directly on the models"));
        let left_out = asked.into_iter().filter(|asked| asked != "--payload attack").collect();
        Ok(self.on_the_models(machine, format!("as there is no guest: {why}"), left_out))
    }

    /// Runs the firmware, and the attack if there is to be one, on the models.
    fn on_the_models(&self, machine: &mut Machine, why: String, left_out: Vec<String>) -> Done {
        let start = Instant::now();
        let done = run::direct(machine);
        let run = start.elapsed();
        let mut report = Report::of_direct(machine, &done);
        report.facts.ran = Some(Runner::Models { why, left_out });
        let watched = self.require.map(|_| {
            let mut vigil = Vigil::default();
            vigil.hand_off(machine, Moment::HandOff);
            vigil.finish(machine)
        });
        if payload::attacks(&self.payload.join(",")) && done.refusal.is_none() {
            report.facts.set_attack(attack::direct(machine, &done));
        }
        if let (Some(requirement), Some(watched)) = (self.require, watched) {
            report.facts.require(requirement, &watched);
        }
        (Report { measured: Some(Measured { run, guest: None }), ..report }, done.handoff)
    }

    /// Runs the firmware in a guest; the inner error is that there can be none.
    fn guest(&self, machine: &mut Machine) -> Result<Result<Done, VmError>, Stop> {
        let image = match &self.image {
            Some(file) => Some(
                read_image(file)
                    .map_err(|error| Stop::BadInput(format!("{}: {error}", file.display())))?,
            ),
            None => None,
        };
        let linux = self.linux()?;
        let disk = match &self.disk {
            Some(file) => {
                Some(File::options().read(true).write(true).open(file).map_err(|error| {
                    Stop::BadInput(format!("--disk {}: {error}", file.display()))
                })?)
            }
            None => None,
        };
        if self.input.as_deref() == Some(Path::new("-")) && self.source.name() == "-" {
            let words =
                "--input -: standard input is the scenario already; name a file for one of them";
            return Err(Stop::BadInput(words.to_owned()));
        }
        let input = self.input.as_deref().map(typed).transpose()?;
        let (payload, then) = (self.payload.join(","), self.then.join(","));
        let attacks = payload::attacks(&payload) || payload::attacks(&then);
        let options = Options {
            image: image.as_deref(),
            linux: linux.as_ref().map(|LinuxFiles { kernel, initrd }| Linux {
                kernel,
                initrd,
                hidden: self.hide_hypervisor,
                behind_image: self.image_first,
            }),
            disk: disk.as_ref(),
            append: self.append.as_deref(),
            then: Some(then.as_str()).filter(|then| !then.is_empty()),
            until_port: self.until_port,
            lock_by: match self.lock_by {
                Locker::Image => LockBy::Image,
                Locker::Vmm => LockBy::Vmm,
            },
            budget: self.budget,
            payload: &payload,
            timeout: match self.timeout {
                Some(seconds) => Duration::from_secs(seconds),
                None if attacks || linux.is_some() => kvm::patience(ATTACK_TIMEOUT),
                None => kvm::patience(TIMEOUT),
            },
            mirror: self.mirror != Some(Switch::Off),
            interrupted: super::interrupted(),
            input,
            on_console: match (self.console, attacks) {
                (true, _) => to_stderr,
                (false, true) => |_| {},
                (false, false) => bar::heard,
            },
            on_attack: bar::attacked,
            ..Options::default()
        };
        if let (Some(note), None) = (self.misplaced_payload(machine.scenario()), &self.image) {
            super::note(&note);
        }
        let bar = match attacks {
            // Between a guest's lines it would be debris.
            _ if self.console => None,
            true => Some(Bar::of_steps(attack::steps(machine))),
            // Our own image is done before anybody could read a line.
            false if image.is_none() && linux.is_none() => None,
            false => Some(Bar::until(options.timeout, "the guest runs")),
        };
        let booted = boot(machine, &options);
        drop(bar);
        let run = match (booted, &self.image) {
            (Ok(run), _) => run,
            // There was a KVM a moment ago: that it fails now is no reason to do something else.
            (Err(GuestError::Vm(error)), _) if self.on_models => return Ok(Err(error)),
            (Err(GuestError::Vm(error)), _) => {
                return Err(Stop::Refused(Unstarted::by_harness(format!(
                    "there is a KVM, and it makes no guest: {error}; with --on-models the firmware \
                     runs on the device models instead"
                ))));
            }
            // An image that cannot be loaded is a bad file.
            (Err(error @ GuestError::Boot(_)), Some(file)) => {
                return Err(Stop::BadInput(format!("{}: {error}", file.display())));
            }
            (Err(error @ GuestError::Boot(_)), _) if linux.is_some() => {
                return Err(Stop::BadInput(format!("--linux: {error}")));
            }
            // Ours is where it is.
            (Err(error @ GuestError::Boot(_)), _) => {
                return Err(Stop::Refused(Unstarted::by_harness(format!(
                    "{error}. This is our own image, which lies where it does: --direct runs the \
                     firmware on the device models"
                ))));
            }
            (Err(GuestError::Disk(error)), _) => {
                let file = self.disk.as_deref().unwrap_or(Path::new("")).display();
                return Err(Stop::BadInput(format!("--disk {file}: {error}")));
            }
            // The machine as the host left it is the report.
            (Err(GuestError::Host(done)), _) => {
                let mut report = Report::of_direct(machine, &done);
                let why = "by the host, whose refusal keeps the guest from starting".to_owned();
                report.facts.ran = Some(Runner::Models { why, left_out: Vec::new() });
                return Ok(Ok((report, done.handoff)));
            }
            (Err(GuestError::Refused(refusal)), _) => {
                let refusal = Refusal::from(&refusal);
                let message = format!("the guest does not start: {}", refusal.message);
                return Err(Stop::Refused(Unstarted::new(Refusal { message, ..refusal })));
            }
            (Err(error), _) => {
                return Err(Stop::Refused(Unstarted::by_harness(error.to_string())));
            }
        };
        let mut report = Report::of_guest(machine, &run);
        report.facts.ran = Some(Runner::Guest);
        match self.require {
            Some(requirement) => report.facts.require(requirement, &run.watched),
            None => report.facts.undemanded(&run.watched),
        }
        let host = run.host.map(|host| host.done.handoff);
        let record =
            run.first.handed.map(|handed| handed.record).filter(|record| !record.is_empty());
        Ok(Ok((report, record.or(host).unwrap_or_default())))
    }

    /// Kernel and initrd, if it is to be Linux.
    fn linux(&self) -> Result<Option<LinuxFiles>, Stop> {
        let Some(named) = &self.linux else { return Ok(None) };
        if kvm::emulates_ring_0() {
            return Err(Stop::Refused(Unstarted::by_harness(NO_LINUX_HERE.to_owned())));
        }
        let kernel = match named {
            Some(file) => file.clone(),
            None => cxl_harness::linux::kernel_image()
                .map_err(|missing| Stop::Refused(Unstarted::by_harness(missing.to_string())))?,
        };
        let read = |file: &Path| {
            read_image(file).map_err(|error| Stop::BadInput(format!("{}: {error}", file.display())))
        };
        let initrd = self.initrd.as_deref().map_or(Ok(Vec::new()), read)?;
        Ok(Some(LinuxFiles { kernel: read(&kernel)?, initrd }))
    }

    /// What is to be said of a payload that cannot do its work under the scenario's policy.
    fn misplaced_payload(&self, scenario: &Scenario) -> Option<String> {
        let path = scenario.policy.path;
        self.payload.iter().map(String::as_str).find_map(|name| match name {
            "sse" | "xsavec" | "jump" | "recreate" | "regrain" if path != PathPolicy::Unlocked => {
                Some(format!(
                    "{name} takes decoders back, which fails where they are locked; try it with \
                     the scenario unlocked, or with path = \"unlocked\" in [policy]"
                ))
            }
            "program" if path != PathPolicy::GuestPrograms => Some(
                "program is for decoders that the firmware leaves to the guest; try it with the \
                 scenario path2, or with path = \"guest-programs\" in [policy]"
                    .to_owned(),
            ),
            _ => None,
        })
    }

    fn output(&self, machine: &Machine, report: &Report, trace: Option<Traces>) -> String {
        let suite = || Suite::of_run(&report.facts).about([self.source.name()]);
        if let Some(output) = self.shape.collected(suite) {
            return output;
        }
        let more = trace.as_ref().map(|(trace, walks)| (trace.more(), walks.more()));
        if self.shape.is_json() {
            let (trace, walks) = trace.unzip();
            let trace_left_out = more.map(|(trace, walks)| TraceLeftOut { trace, walks });
            let trace = trace.map(|trace| trace.iter().map(|a| line(machine, a)).collect());
            let fabric = machine.fabric();
            let walks = walks.map(|walks| walks.iter().map(|w| walkline(&fabric, w)).collect());
            return super::json(&Traced { report, trace, walks, trace_left_out });
        }
        let trace = trace.map(|(trace, walks)| {
            let more = |more: u64| match more {
                0 => String::new(),
                more => format!("  and {more} more\n"),
            };
            let mut text = format!("{}{}\n", TraceText(machine, &trace), more(trace.more()));
            if !walks.is_empty() {
                text += &format!("{}{}\n", WalksText(machine, &walks), more(walks.more()));
            }
            text
        });
        let columns = super::columns();
        super::styled(&format!("{}{report:columns$}", trace.unwrap_or_default()))
    }
}

/// A kernel and its initrd, which is empty if there is none.
struct LinuxFiles {
    kernel: Vec<u8>,
    initrd: Vec<u8>,
}

/// Bytes of the guest's console, as they come.
fn to_stderr(bytes: &[u8]) {
    // There is nobody left to tell if standard error is gone.
    let _ = io::Write::write_all(&mut io::stderr(), bytes);
}

/// The largest image that is read: more than any guest's RAM has room for by default.
const MAX_IMAGE: usize = 1 << 30;

fn read_image(file: &Path) -> io::Result<Vec<u8>> {
    let image = super::source::bytes(file, MAX_IMAGE)?;
    if image.len() > MAX_IMAGE {
        let most = MAX_IMAGE >> 20;
        return Err(io::Error::other(format!("expected at most {most} MiB, found more")));
    }
    Ok(image)
}

/// What a guest is to read, as it comes.
fn typed(file: &Path) -> Result<Arc<Input>, Stop> {
    let opened = if file == Path::new("-") {
        Input::of(io::stdin())
    } else if file.is_dir() {
        Err(io::Error::other("expected a file or -, found a folder"))
    } else {
        File::open(file).and_then(Input::of)
    };
    opened.map_err(|error| Stop::BadInput(format!("--input {}: {error}", file.display())))
}

fn line(machine: &Machine, access: &Access) -> Traceline {
    Traceline {
        sequence: access.sequence,
        direction: access.direction.to_string(),
        address: format!("{:#x}", access.address),
        component: access.place.map(|place| machine.name(place).to_owned()),
        register: access.name.map(|name| name.register),
        decoder: access.name.and_then(|name| name.decoder),
        value: format!("{:#010x}", access.value),
        meaning: access.meaning(machine),
    }
}

fn walkline(fabric: &Fabric, walked: &Walked) -> Walkline {
    let part = |(bytes, way): &(u64, Result<Way, Reason>)| Part {
        bytes: *bytes,
        walk: way.as_ref().ok().map(|path| super::explain::walk(fabric, path)),
        reason: way.as_ref().err().map(|reason| reason.name()),
    };
    Walkline {
        before: walked.before,
        direction: walked.direction.to_string(),
        hpa: walked.hpa.to_string(),
        length: walked.length,
        paths: walked.parts.iter().map(part).collect(),
    }
}

/// A set that the last run left in the order of host addresses.
fn brought_back(set: &SetRecord) -> String {
    let members: Vec<&str> = set.members.iter().map(|(name, _)| name.as_str()).collect();
    format!(
        "the last run ended with {} in a set, {}; their memory was brought back to them",
        members.join(", "),
        set.layout.interleave()
    )
}

/// What would happen in a guest and does not in a direct run, by name.
fn events(scenario: &Scenario) -> Vec<String> {
    let name = |device: usize| scenario.devices.get(device).map_or("?", |device| &device.name);
    let events = scenario.events.iter().map(|event| {
        let what = match event.action {
            Action::HotAdd { device } => format!("hot-add of {}", name(device)),
            Action::HotRemove { device } => format!("hot-remove of {}", name(device)),
            Action::Reset { device: Some(device), .. } => format!("reset of {}", name(device)),
            Action::Reset { device: None, .. } => "reset of the machine".to_owned(),
        };
        format!("{what} at count {} does not happen: it takes a guest to count", event.at)
    });
    events.collect()
}
