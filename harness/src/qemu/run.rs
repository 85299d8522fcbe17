//! A scenario's machine on QEMU, brought up and reported.
//!
//! **Invariant**: every run ends: by itself, by its time limit, or by Ctrl-C; and QEMU ends with it.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cxl_attack::Stores;
use cxl_firmware::discover::discover;
use cxl_firmware::handoff;
use cxl_firmware::mmio::Mmio;
use cxl_firmware::topology::{Hdm, Tree};
use cxl_image::doorbell::Status;
use cxl_regs::access::Register;
use cxl_regs::hdm::{Control, DECODER_SIZE, decoder_offset};
use tempfile::TempDir;

use super::Clock;
use super::bare::{self, BareError};
use super::command::{self, Command};
use super::line::Given;
use super::locks;
use super::offers::{AskError, Offers};
use super::process::{Arch, Process, ProcessError, fixed};
use super::qmp::Qmp;
use super::qtest::{Qtest, QtestError, Width};
use super::view::{self, Mismatch, View};
use crate::console::{self, Collected, ConsoleError, Registers, Section};
use crate::guest::boot::{IMAGE, command_line};
use crate::report::{
    LockAttack, MachineView, Measured, Peer, Refusal, Report, RunRecord, Verdict, Verifier,
};
use crate::run::{self, DirectRun, Inexpressible, Room, RunRequest, Tables};
use cxl_model::machine::Machine;
use cxl_model::scenario::{Place, Scenario};
use cxl_model::trace::{Direction, Traffic};
use cxl_model::words::counted;

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Keep devices' memory in files of this directory.
    pub files: Option<PathBuf>,
    /// Attack the locks in the end: from outside, and in a guest run once more from inside.
    pub attack: bool,
    /// Time limit.
    pub timeout: Duration,
    /// Set by Ctrl-C.
    pub interrupted: Arc<AtomicBool>,
    /// Words of QEMU's own.
    pub given: Given,
    /// In a guest run: the Linux that the image hands over to, whose end is waited for.
    pub linux: Option<Behind>,
}

/// A Linux behind our image, of which nothing is asked but that it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initrd.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub append: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            files: None,
            attack: false,
            timeout: Duration::from_secs(60),
            interrupted: Arc::default(),
            given: Given::default(),
            linux: None,
        }
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
    /// The image had not ended when the time was over.
    Silent {
        /// The limit.
        limit: Duration,
        /// The last line on its console.
        last: String,
    },
    /// The image's console makes no sense.
    Console(ConsoleError),
    /// Files that QEMU needs cannot be written.
    Files(String),
    /// Ctrl-C, or another signal to end.
    Interrupted {
        /// The last line on the image's console, if it had begun.
        last: Option<String>,
    },
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
            Self::Silent { limit, last } => write!(
                f,
                "the guest has not ended after {} s; a busy host may need more: --timeout SECONDS. \
                 The last line on its console: {last:?}",
                limit.as_secs()
            ),
            Self::Console(error) => error.fmt(f),
            Self::Files(error) => write!(f, "temporary files: {error}"),
            Self::Interrupted { last: None } => f.write_str("interrupted"),
            Self::Interrupted { last: Some(last) } => {
                write!(f, "interrupted; the last line on the image's console: {last:?}")
            }
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
            return Err(RunError::Interrupted { last: None });
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

impl Stores for Counted<'_> {
    fn store(&mut self, address: u64, bytes: u8, value: u64) -> bool {
        let width = match bytes {
            1 => Width::One,
            2 => Width::Two,
            4 => Width::Four,
            8 => Width::Eight,
            _ => return false,
        };
        self.stop.check().is_ok() && self.qtest.store(address, value, width).is_ok()
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

/// A QEMU, and what it is to be.
struct Started {
    process: Process,
    qtest: Qtest,
}

impl Started {
    /// The platform, and the scenario in it.
    fn view(&mut self, arch: Arch, scenario: &Scenario) -> Result<(Tables, View), RunError> {
        let (.., bits) = arch.machine();
        let tables = match bare::platform_for(arch, &mut self.qtest, bits) {
            Ok(tables) => tables,
            Err(BareError::Qtest(error)) => return Err(self.explain(error)),
            Err(error) => return Err(RunError::Bare(error)),
        };
        let view = View::new(scenario, &tables).map_err(RunError::Mismatch)?;
        Ok((tables, view))
    }

    /// QEMU's own words, if it has ended.
    fn explain(&mut self, error: QtestError) -> RunError {
        explain(&mut self.process, error)
    }
}

/// What became of QEMU; a command has as much time as the whole run.
fn explain(process: &mut Process, error: QtestError) -> RunError {
    process.explain(error).into()
}

impl From<ProcessError> for RunError {
    fn from(error: ProcessError) -> Self {
        match error {
            ProcessError::Qtest(QtestError::TimedOut { limit, .. }) => Self::TimedOut(limit),
            error => Self::Process(error),
        }
    }
}

impl From<AskError> for RunError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Process(error) => error.into(),
            AskError::Bare(error) => Self::Bare(error),
        }
    }
}

/// A QEMU whose devices the library has brought up.
#[derive(Debug)]
pub struct BroughtUp {
    /// Its registers.
    pub qtest: Qtest,
    /// Its tables.
    pub tables: Tables,
    /// What the library made of it.
    pub done: DirectRun,
    _process: Process,
}

/// Brings a scenario's machine up on QEMU's devices, with no report of it.
pub fn brought_up(
    offers: &Offers,
    scenario: &Scenario,
    limit: Duration,
) -> Result<BroughtUp, RunError> {
    let command = Command::on(offers, scenario, None).map_err(RunError::Refused)?;
    let mut arguments = fixed();
    arguments.push("-S".into());
    arguments.extend(command.arguments());
    let (process, qtest) =
        Process::start_with_qtest(&arguments, limit).map_err(RunError::Process)?;
    let mut qemu = Started { process, qtest };
    let (tables, view) = qemu.view(Arch::X86, scenario)?;
    let wanted = RunRequest::on(&view.scenario, &view.map).map_err(RunError::Scenario)?;
    let done = run::on(&mut qemu.qtest, &mut Clock::new(), &tables.platform(), &wanted);
    if let Err(error) = qemu.qtest.check() {
        return Err(qemu.explain(error));
    }
    Ok(BroughtUp { qtest: qemu.qtest, tables, done, _process: qemu.process })
}

/// Brings a scenario's machine up on QEMU's devices from this process, without a guest: the library
/// assigns buses and BARs, plans, commits, locks and verifies through qtest.
pub fn direct(scenario: &Scenario, options: &Options) -> Result<Report, RunError> {
    let stop = Stop::of(options);
    let offers = Offers::ask(options.timeout)?;
    let files = options.files.as_deref();
    let command = options.given.command(&offers, scenario, files).map_err(RunError::Refused)?;
    let mut arguments = fixed();
    arguments.push("-S".into());
    arguments.extend(command.arguments());
    let (process, qtest) =
        Process::start_with_qtest(&arguments, options.timeout).map_err(RunError::Process)?;
    let mut qemu = Started { process, qtest };
    let (tables, view) = qemu.view(Arch::X86, scenario)?;
    let wanted = RunRequest::on(&view.scenario, &view.map).map_err(RunError::Scenario)?;
    let start = Instant::now();
    let mut hw = Counted { qtest: &mut qemu.qtest, stop: stop.clone(), accesses: Vec::new() };
    let done = run::on(&mut hw, &mut Clock::new(), &tables.platform(), &wanted);
    let time = start.elapsed();
    let tree = done.room.topology.tree();
    let traffic = hw.traffic(&view.decoders(tree));
    let fabric = view.fabric(tree, &mut hw);
    let refusal = done.refusal.as_ref().map(Refusal::from);
    let DirectRun { handoff, cedt, .. } = &done;
    let left = RunRecord {
        handoff,
        cedt,
        refusal: refusal.as_ref(),
        traffic: &traffic,
        foreign: false,
        unfinished: false,
        asked: None,
    };
    let platform = Ok(tables);
    let seen = MachineView {
        scenario: &view.scenario,
        map: &view.map,
        fabric: &fabric,
        platform: &platform,
    };
    let mut report = Report::seen(&seen, &mut hw, &mut Clock::new(), &left);
    finish(&mut report, &mut hw, &done.room, &seen, options, &command, &offers);
    report.measured = Some(Measured { run: time, guest: None });
    stop.check()?;
    if let Err(error) = qemu.qtest.check() {
        return Err(qemu.explain(error));
    }
    Ok(report)
}

/// Why an attack that held proves nothing on some versions.
const LEFT_OUT: &str = "not whole: single bits alone, as whole values end this QEMU";

/// What every report of QEMU says, and the attack if it was asked for.
fn finish(
    report: &mut Report,
    hw: &mut Counted<'_>,
    room: &Room,
    seen: &MachineView<'_>,
    options: &Options,
    command: &Command,
    offers: &Offers,
) {
    let tree = room.topology.tree();
    for name in view::missing(seen.scenario, tree) {
        report.facts.fail_of_peer(format!("{name} was not found on QEMU's machine"));
    }
    let verifier = Verifier::of(&report.facts);
    let values = !super::process::dies_of_values(offers.version);
    let attack = options.attack.then(|| {
        // It goes on where the machine's tables said that configuration space is.
        let ecam = seen.platform.as_ref().map(|tables| tables.platform().ecam).unwrap_or_default();
        let locks = locks::attacked(hw, &mut Clock::new(), ecam, tree, values);
        let mut attack = LockAttack::of(&locks, seen.scenario, tree);
        if !values {
            attack.outside.push(LEFT_OUT.to_owned());
        }
        attack
    });
    match &attack {
        Some(attack) if attack.bits == 0 => {
            report.facts.fail_of_peer(
                "the attack found nothing that is locked, so nothing held".to_owned(),
            );
        }
        Some(attack) if !attack.held => {
            let changed = counted(attack.changed, "locked bit");
            report.facts.fail_of_peer(format!("the attack changed {changed}"));
        }
        Some(_) if !values => report.facts.fail_of_peer(format!("the attack is {LEFT_OUT}")),
        _ => {}
    }
    let (qemu, notes) = (offers.name(), command.all_notes());
    report.facts.peer = Some(Peer { qemu, notes, verifier, attack });
}

/// Boots our image on QEMU: SeaBIOS first, then the image as any firmware's next stage. What it
/// hands over is held against QEMU's registers and memory, read from outside.
pub fn guest(scenario: &Scenario, options: &Options) -> Result<Report, RunError> {
    let stop = Stop::of(options);
    let offers = Offers::ask(options.timeout)?;
    let files = options.files.as_deref();
    let command = options.given.command(&offers, scenario, files).map_err(RunError::Refused)?;
    let (mut tables, view) = platform_of(Arch::X86, scenario, &command, options.timeout)?;
    // SeaBIOS has assigned everything.
    tables.resources.clear();
    let line =
        |payload| command_line(&view.scenario, &view.map, payload).map_err(RunError::Scenario);
    let start = Instant::now();
    let first = match &options.linux {
        None => format!("{} dump", line("none")?),
        Some(linux) => format!("{} dump -- {}", line("linux")?, linux.append),
    };
    let linux = options.linux.as_ref();
    let booted = Booted::new(&command, first.trim_end(), linux, options, &stop)?;
    let time = start.elapsed();
    let Booted { mut process, mut qtest, said, .. } = booted;
    let collected = console::collect(&said).map_err(RunError::Console)?;

    let mut hw = Counted { qtest: &mut qtest, stop: stop.clone(), accesses: Vec::new() };
    let mut room = run::room();
    let found = discover(&mut hw, &mut Clock::new(), &tables.platform(), &mut room.topology);
    let tree = room.topology.tree();
    let fabric = view.fabric(tree, &mut hw);
    let bytes = |section: &Option<Section>| section.as_ref().map(|s| s.bytes.clone());
    let handoff = bytes(&collected.handoff).unwrap_or_default();
    let cedt = bytes(&collected.cedt).unwrap_or_default();
    let refusal = refusal(&said, &view.scenario);
    let left = RunRecord {
        handoff: &handoff,
        cedt: &cedt,
        refusal: refusal.as_ref(),
        // What the image reads and writes is not seen from outside.
        traffic: &Traffic::default(),
        foreign: false,
        unfinished: false,
        asked: None,
    };
    let platform = Ok(tables);
    let seen = MachineView {
        scenario: &view.scenario,
        map: &view.map,
        fabric: &fabric,
        platform: &platform,
    };
    let mut report = Report::seen(&seen, &mut hw, &mut Clock::new(), &left);
    if let Err(error) = found {
        report.facts.fail_of_peer(format!("looking at the machine from outside: {error}"));
    }
    for failure in differences(&collected, &mut hw).into_iter().chain(unprinted(&collected, tree)) {
        report.facts.fail_of_peer(failure);
    }
    // What goes on to Linux has no end of its own.
    if options.linux.is_none() || collected.end.is_some() {
        ended(&collected, &said, &mut report);
    }
    finish(&mut report, &mut hw, &room, &seen, options, &command, &offers);
    if options.attack && report.facts.refusal.is_none() {
        let bits = super::process::dies_of_values(offers.version);
        let payload = if bits { "attack-bits" } else { "attack-judged" };
        let inside = Booted::new(&command, &line(payload)?, None, options, &stop)?;
        let mut lines = verdict(&inside.said);
        let outside = report.facts.peer.as_ref().and_then(|peer| peer.attack.as_ref());
        let held = outside.is_some_and(|attack| attack.held);
        if let Some(failure) = from_inside(&lines, &inside.said, held) {
            report.facts.fail_of_peer(failure);
        }
        if bits {
            lines.push(LEFT_OUT.to_owned());
        }
        if let Some(attack) = report.facts.peer.as_mut().and_then(|peer| peer.attack.as_mut()) {
            attack.inside = lines;
        }
    }
    report.measured = Some(Measured { run: time, guest: None });
    stop.check()?;
    if let Err(error) = qtest.check() {
        return Err(explain(&mut process, error));
    }
    Ok(report)
}

/// Where QEMU puts what the command line asks for: asked of the same machine, standing still.
pub(crate) fn platform_of(
    arch: Arch,
    scenario: &Scenario,
    command: &Command,
    limit: Duration,
) -> Result<(Tables, View), RunError> {
    let mut arguments = fixed();
    arguments.push("-S".into());
    arguments.extend(command.arguments());
    let (process, qtest) =
        Process::start_with_qtest_for(arch, &arguments, limit).map_err(RunError::Process)?;
    let mut qemu = Started { process, qtest };
    let (tables, mut view) = qemu.view(arch, scenario)?;
    (.., view.scenario.platform.physical_bits) = arch.machine();
    Ok((tables, view))
}

/// The image has booted, and has said how it ended.
struct Booted {
    process: Process,
    qtest: Qtest,
    said: Vec<u8>,
    /// Kept: QEMU reads it.
    _directory: TempDir,
}

impl Booted {
    /// Boots the image with this command line, and waits for its end, or for that of the Linux behind it.
    fn new(
        command: &Command,
        line: &str,
        linux: Option<&Behind>,
        options: &Options,
        stop: &Stop,
    ) -> Result<Self, RunError> {
        let files = |error: std::io::Error| RunError::Files(error.to_string());
        let directory = tempfile::tempdir().map_err(files)?;
        let [image, console, socket] =
            ["image.elf", "console", "qtest"].map(|name| directory.path().join(name));
        std::fs::write(&image, IMAGE).map_err(files)?;
        let value = |text: &str, path: &Path, rest: &str| {
            let mut value = OsString::from(text);
            value.push(command::escaped(path));
            value.push(rest);
            value
        };
        let mut arguments = fixed();
        arguments.extend(command.arguments());
        // Without an exit device the image switches the machine off, and it stays there to be
        // looked at.
        arguments.extend(["-no-reboot", "-no-shutdown"].map(OsString::from));
        arguments.extend(["-kernel".into(), image.into(), "-append".into(), line.into()]);
        arguments.extend(["-chardev".into(), value("file,id=console,path=", &console, "")]);
        arguments.extend(["-serial", "chardev:console"].map(OsString::from));
        arguments.extend(["-qtest".into(), value("unix:", &socket, ",server=on,wait=off")]);
        arguments.extend(["-qtest-log", "/dev/null"].map(OsString::from));
        let control = directory.path().join("qmp");
        if let Some(linux) = linux {
            let files_of_linux =
                [("kernel", Some(&linux.kernel)), ("initrd", linux.initrd.as_ref())];
            for (name, path) in files_of_linux {
                let Some(path) = path else { continue };
                let start = format!("name=opt/org.cxl-firmware/{name},file=");
                arguments.extend(["-fw_cfg".into(), value(&start, path, "")]);
            }
            arguments.extend(["-qmp".into(), value("unix:", &control, ",server=on,wait=off")]);
        }
        let mut process = Process::start(&arguments).map_err(RunError::Process)?;
        let qtest = match Qtest::connect(&socket, options.timeout) {
            Ok(qtest) => qtest,
            Err(error) => return Err(explain(&mut process, error)),
        };
        let mut qmp = match linux {
            None => None,
            Some(_) => Some(Qmp::connect(&control, options.timeout).map_err(files)?),
        };
        let said = until_end(&mut process, &console, qmp.as_mut(), stop)?;
        Ok(Self { process, qtest, said, _directory: directory })
    }
}

/// What the image says of the attack that it judged itself.
fn verdict(said: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(said);
    let lines = text.lines().filter_map(|line| line.trim_end().strip_prefix("attack: "));
    lines.map(str::to_owned).collect()
}

/// What is to be held against the attack from inside: that it said nothing, or other than what was
/// seen from outside.
fn from_inside(lines: &[String], said: &[u8], held: bool) -> Option<String> {
    let integrity = lines.iter().find_map(|line| line.strip_prefix("integrity: "));
    match integrity {
        None => {
            let text = String::from_utf8_lossy(said);
            let last = text.lines().rfind(|line| !line.starts_with("end: ") && !line.is_empty());
            let last = last.unwrap_or("nothing").trim_end();
            Some(format!(
                "the attack from inside came to no verdict; the image's last line: {last}"
            ))
        }
        Some(words) if words.starts_with("holds") == held => None,
        Some(words) => Some(format!("the attack from inside says otherwise than outside: {words}")),
    }
}

/// The console's text, once the image has said how it ended, or the machine has.
fn until_end(
    process: &mut Process,
    file: &Path,
    mut machine: Option<&mut Qmp>,
    stop: &Stop,
) -> Result<Vec<u8>, RunError> {
    loop {
        // Asked first: what was said before the end is in the file then.
        let over = machine.as_mut().is_some_and(|machine| machine.ended());
        let said = console::so_far(file).map_err(|error| RunError::Files(error.to_string()))?;
        let by_itself =
            said.windows(END.len()).any(|window| window == END) && said.ends_with(b"\n");
        // A Linux says what it likes.
        if over || by_itself && machine.is_none() {
            return Ok(said);
        }
        if let Some(status) = process.ended() {
            let words = process.words();
            return Err(RunError::Process(ProcessError::Ended { status: status.code(), words }));
        }
        if let Err(error) = stop.check() {
            let text = String::from_utf8_lossy(&said);
            let last = text.lines().rfind(|line| !line.trim().is_empty());
            let last = last.unwrap_or("nothing").to_owned();
            return Err(match error {
                RunError::TimedOut(limit) => RunError::Silent { limit, last },
                RunError::Interrupted { .. } => RunError::Interrupted { last: Some(last) },
                error => error,
            });
        }
        std::thread::sleep(LOOK);
    }
}

/// What the image says last.
const END: &[u8] = b"\nend: ";
/// Time between two looks at the console.
const LOOK: Duration = Duration::from_millis(20);

/// Why the image refused, in its own words. It prints no number; where the library refuses to plan
/// for this machine in the same words, the number is known.
fn refusal(said: &[u8], scenario: &Scenario) -> Option<Refusal> {
    let text = String::from_utf8_lossy(said);
    let words = text.lines().rev().find_map(|line| line.trim_end().strip_prefix("refused: "))?;
    let (phase, message) = words.split_once(": ").unwrap_or(("firmware", words));
    let said = Refusal { phase: phase.to_owned(), code: 0, message: message.to_owned() };
    let said = said.said_of(scenario);
    let ours = run::planned(&mut Machine::new(scenario)).refusal;
    let ours = ours.as_ref().map(Refusal::from).filter(|ours| ours.message == said.message);
    Some(Refusal { code: ours.map_or(0, |ours| ours.code), ..said })
}

/// What the image printed, against what is in memory and registers now.
fn differences(collected: &Collected, hw: &mut Counted<'_>) -> Vec<String> {
    let mut failures = Vec::new();
    for (name, section) in [("hand-off record", &collected.handoff), ("CEDT", &collected.cedt)] {
        let Some(section) = section else { continue };
        let mut found = vec![0; section.bytes.len()];
        let address = section.address;
        match hw.qtest.read_memory(address, &mut found) {
            Err(error) => failures.push(format!("{name}: memory at {address:#x}: {error}")),
            Ok(()) if found != section.bytes => failures
                .push(format!("{name}: memory at {address:#x} is not what the image printed")),
            Ok(()) => {}
        }
    }
    for registers in collected.hdm.iter().chain(&collected.dvsec) {
        let Section { address, bytes } = &registers.section;
        let dwords = (*address..).step_by(4).zip(bytes.chunks_exact(4));
        for (at, printed) in dwords {
            let found = hw.read(at);
            let printed = printed.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
            if found != printed {
                failures.push(format!(
                    "{} of {}: {found:#010x} at {at:#x} from outside, the image printed \
                     {printed:#010x}",
                    registers.component, registers.place
                ));
            }
        }
    }
    if let (Some(record), Some(table)) = (&collected.handoff, &collected.cedt)
        && let Ok(record) = handoff::read(&record.bytes)
    {
        let found = record.cedt.map(|at| (at.address, at.size as usize));
        let printed = Some((table.address, table.bytes.len()));
        if found != printed {
            failures
                .push(format!("the record has the CEDT at {found:x?}, printed is {printed:x?}"));
        }
    }
    failures
}

/// What the image did not print, though it is there: what was not printed was not compared.
fn unprinted(collected: &Collected, tree: Tree<'_>) -> Vec<String> {
    // An image that refused prints its reason instead.
    if collected.end == Some(Status::Refused) && collected.handoff.is_none() {
        return Vec::new();
    }
    let mut failures = Vec::new();
    for (id, node) in tree.iter() {
        let Some(component) = node.component() else { continue };
        let printed = |list: &[Registers]| {
            list.iter().any(|found| found.component == component && found.place == tree.path(id))
        };
        if node.hdm.is_some() && !printed(&collected.hdm) {
            failures.push(format!("the image did not print decoders of {}", tree.path(id)));
        }
        if node.device().is_some() && !printed(&collected.dvsec) {
            failures.push(format!("the image did not print the DVSEC of {}", tree.path(id)));
        }
    }
    failures
}

/// Whether the image ended as its report says.
fn ended(collected: &Collected, said: &[u8], report: &mut Report) {
    let refused = report.facts.result == Verdict::Refused;
    match collected.end {
        Some(Status::Success) if refused => {
            report.facts.fail_of_peer("the image refused, and says that all is well".to_owned());
        }
        Some(Status::Success) => {}
        Some(Status::Refused) if refused => {}
        Some(Status::Refused) => {
            let text = String::from_utf8_lossy(said);
            let mut checks = text.lines().filter_map(|line| line.strip_prefix("payload: "));
            let why = checks.next_back().unwrap_or("no check says which");
            report.facts.fail_of_peer(format!("a payload's check failed: {why}"));
        }
        Some(Status::Panic) | None => {
            let text = String::from_utf8_lossy(said);
            let before = text.lines().rev().find(|line| !line.starts_with("end: "));
            let before = before.unwrap_or("it does not say where");
            report.facts.fail_of_peer(format!("the image panicked: {before}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLDS: &str = "integrity: holds, no locked bit of 7 ever changed";
    const BROKEN: &str = "integrity: BROKEN, the machine does not enforce locks: 3 of 7 locked";

    #[test]
    fn an_attack_that_never_ran_is_held_against_the_run() {
        let said = b"cxl firmware at ring 0\nrefused: plan: no window\nend: refused\n";
        for held in [true, false] {
            let failure = from_inside(&verdict(said), said, held).expect("a failure");
            assert!(failure.ends_with("last line: refused: plan: no window"), "{failure}");
        }
    }

    #[test]
    fn an_attack_from_inside_agrees_with_the_one_from_outside() {
        for (words, held) in [(HOLDS, true), (BROKEN, false)] {
            let said = format!("attack: 3 tries\r\nattack: {words}\r\nend: success\r\n");
            let lines = verdict(said.as_bytes());
            assert_eq!(from_inside(&lines, said.as_bytes(), held), None);
            let failure = from_inside(&lines, said.as_bytes(), !held).expect("a failure");
            assert!(failure.contains("says otherwise than outside"), "{failure}");
        }
    }

    #[test]
    fn what_the_image_did_not_print_is_a_failure() {
        let mut machine = Machine::new(&Scenario::built_in("one-device").expect("there is one"));
        let done = run::direct(&mut machine);
        let tree = done.room.topology.tree();
        let missing = unprinted(&Collected::default(), tree);
        assert_eq!(missing.len(), 3, "decoders of bridge and device, and its DVSEC: {missing:?}");
        let mut collected = Collected::default();
        for (id, node) in tree.iter() {
            let Some(component) = node.component() else { continue };
            let section = Section { address: 0, bytes: Vec::new() };
            let printed = Registers { component, place: tree.path(id), section };
            collected.hdm.push(printed.clone());
            collected.dvsec.push(printed);
        }
        assert_eq!(unprinted(&collected, tree), [""; 0]);
        collected.hdm.pop();
        assert_eq!(unprinted(&collected, tree).len(), 1);
        // A refusal before the dump is told by its reason.
        let end = Some(Status::Refused);
        assert_eq!(unprinted(&Collected { end, ..Collected::default() }, tree), [""; 0]);
    }
}
