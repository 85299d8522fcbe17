//! Ordinary KVM for everyone: a command runs inside a QEMU that emulates an AMD processor with SVM,
//! on a Linux of its own, where `/dev/kvm` is that of a machine with two-stage paging.
//!
//! An initramfs takes everything there: the program with the libraries that it names, the drivers
//! of KVM, and the files that the command names, each at the place that it has here. What the
//! command prints comes back as it comes, then its exit code, then the files that it made.
//!
//! **Invariant**: an exit code is the command's own, or there is none; QEMU, and everything that was
//! made for it, has gone when [`run`] returns.

mod back;
mod baggage;
mod program;
mod streams;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

pub use back::BackError;
pub use baggage::BaggageError;
pub use program::ProgramError;

use crate::linux::initramfs::{self, Entry, InitramfsError, PLAIN, PROGRAM};
use crate::linux::{self, Missing};
use crate::qemu::command::escaped;
use crate::qemu::files::{self, Files};
use crate::qemu::process::{self, Process, ProcessError};
use streams::{Event, Streams};

const INSIDE: &str = include_str!("nested/inside.sh");

/// The drivers that make `/dev/kvm` on AMD's processors.
const DRIVERS: [&str; 1] = ["kvm_amd"];

/// The processor: the first of AMD's that QEMU has with all that KVM needs, without what it says that
/// it does not emulate.
const PROCESSOR: &str = "EPYC,+svm,+npt,-fxsr-opt,-misalignsse,-osvw,-topoext,-nrip-save,-xsavec";

/// The variable that names the kernel whose KVM is used: not that of a Linux which runs inside of it.
const KERNEL: &str = "NESTED_KERNEL";

/// From this release on KVM takes what QEMU's emulation leaves behind of an event that has been delivered for
/// one that is being delivered, and ends the guest at the next access that traps.
const STALE_EVENTS: [u64; 2] = [6, 15];

/// Linux's command line. Without `no_timer_check` the kernel panics where a busy host lets the
/// emulated timer miss its test.
const COMMAND_LINE: &str =
    "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off rdinit=/nested/init";

/// Between two looks whether something has ended.
const STEP: Duration = Duration::from_millis(50);

/// Between two interrupts that come from outside: the longest sleep of a processor that has lost one.
const KNOCK: Duration = Duration::from_millis(250);

/// What is run, and on what.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// The program; it lies inside where it lies here.
    pub program: PathBuf,
    /// Its arguments. Those that name files take these along.
    pub arguments: Vec<OsString>,
    /// What it reads from standard input.
    pub input: Vec<u8>,
    /// Files and folders that go in besides.
    pub files: Vec<PathBuf>,
    /// The command boots a Linux, which goes in too.
    pub linux: bool,
    /// The command starts QEMU, which goes in too, with its firmware.
    pub qemu: bool,
    /// The kernel and its modules.
    pub kernel: Kernel,
    /// Memory in MiB.
    pub memory: u64,
    /// Processors.
    pub processors: u32,
    /// Time limit, from the start of QEMU on.
    pub timeout: Duration,
    /// Set by whoever wants it to end.
    pub interrupted: &'a AtomicBool,
}

/// A bzImage with virtio and a serial console built in, and where its modules are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The image.
    pub image: PathBuf,
    /// The folder with its `modules.dep`.
    pub modules: PathBuf,
    /// A static busybox.
    pub busybox: PathBuf,
}

/// Something that is not installed here.
#[derive(Debug)]
pub enum Lack {
    /// Kernel, modules or busybox.
    Linux(Missing),
    /// QEMU.
    Qemu(ProcessError),
    /// A named kernel is no file.
    Kernel(PathBuf),
    /// A folder of modules has no `modules.dep`.
    Modules(PathBuf),
    /// A named kernel's name says no version, by which its modules could be found.
    Unnamed(PathBuf),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linux(missing) => missing.fmt(f),
            Self::Qemu(error) => error.fmt(f),
            Self::Kernel(path) => write!(f, "--kernel {}: no such file", path.display()),
            Self::Modules(path) => write!(
                f,
                "{}: no modules.dep there; install the kernel's modules, or name the folder that \
                 depmod made it in with --modules DIR",
                path.display()
            ),
            Self::Unnamed(path) => write!(
                f,
                "--kernel {}: expected a name such as vmlinuz-6.12.1, by which the modules are \
                 found, or --modules DIR beside it",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Lack {}

/// The kernel that `NESTED_KERNEL` names, or one that gets on with QEMU's emulation, where there is one;
/// with its version and its modules.
fn host_kernel() -> Result<(PathBuf, String, PathBuf), Missing> {
    match linux::kernel_of(KERNEL)? {
        Some(named) => Ok(named),
        None => linux::kernel_before(STALE_EVENTS),
    }
}

impl Kernel {
    /// What is named, and of the rest what this machine has; everything that is lacking, QEMU too.
    pub fn find(image: Option<PathBuf>, modules: Option<PathBuf>) -> Result<Self, Vec<Lack>> {
        let mut lacks = Vec::new();
        if let Err(error) = process::version() {
            lacks.push(Lack::Qemu(error));
        }
        let busybox = linux::busybox().map_err(|missing| lacks.push(Lack::Linux(missing)));
        let (image, modules) = match (image, modules) {
            (Some(image), modules) => {
                let modules = modules.or_else(|| linux::modules_for(&image));
                (Some(image), modules)
            }
            (None, named) => match host_kernel() {
                Ok((image, _, modules)) => (Some(image), named.or(Some(modules))),
                Err(missing) => {
                    lacks.push(Lack::Linux(missing));
                    (None, named)
                }
            },
        };
        if let Some(path) = image.as_ref().filter(|path| !path.is_file()) {
            lacks.push(Lack::Kernel(path.clone()));
        }
        match &modules {
            Some(path) if path.join("modules.dep").is_file() => {}
            Some(path) => lacks.push(Lack::Modules(path.clone())),
            None => lacks.extend(image.clone().map(Lack::Unnamed)),
        }
        match (image, modules, busybox) {
            (Some(image), Some(modules), Ok(busybox)) if lacks.is_empty() => {
                Ok(Self { image, modules, busybox })
            }
            _ => Err(lacks),
        }
    }

    /// What it is called in messages.
    pub fn name(&self) -> String {
        let name = self.image.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix("vmlinuz-").unwrap_or(&name).to_owned()
    }
}

/// Why there is no exit code of the command.
#[derive(Debug)]
pub enum NestedError {
    /// The program cannot be taken along.
    Program(ProgramError),
    /// A file cannot be taken along.
    Baggage(BaggageError),
    /// There is no initramfs.
    Initramfs(InitramfsError),
    /// A file or socket of our own.
    File(io::Error),
    /// There is no QEMU.
    Qemu(ProcessError),
    /// Linux started and has no `/dev/kvm`.
    NoKvm {
        /// The end of its console.
        console: String,
    },
    /// QEMU ended before the command did.
    Ended {
        /// Its exit code; `None` for a signal.
        status: Option<i32>,
        /// QEMU's own words.
        words: String,
        /// The end of Linux's console.
        console: String,
    },
    /// The time limit.
    TimedOut {
        /// How long it was.
        limit: Duration,
        /// The end of Linux's console.
        console: String,
    },
    /// The command came to its end, and its files did not come back.
    Back {
        /// Its exit code.
        code: u8,
        /// Why not.
        error: BackError,
    },
    /// Ctrl-C, or another signal to end.
    Interrupted,
}

impl fmt::Display for NestedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end_of = |f: &mut fmt::Formatter<'_>, console: &str| match console.trim() {
            "" => f.write_str("; Linux's console is empty"),
            text => write!(f, "; the end of Linux's console:\n{text}"),
        };
        match self {
            Self::Program(error) => error.fmt(f),
            Self::Baggage(error) => error.fmt(f),
            Self::Initramfs(error) => error.fmt(f),
            Self::File(error) => write!(f, "temporary files: {error}"),
            Self::Qemu(error) => error.fmt(f),
            Self::NoKvm { console } => {
                f.write_str(
                    "Linux started inside, and there is no /dev/kvm; take a kernel with kvm_amd, \
                     and a QEMU that emulates SVM",
                )?;
                end_of(f, console)
            }
            Self::Ended { status, words, console } => {
                match status {
                    Some(status) => write!(f, "QEMU ended with exit code {status}")?,
                    None => f.write_str("QEMU was ended by a signal")?,
                }
                f.write_str(" before the command's exit code was there")?;
                if !words.is_empty() {
                    write!(f, ": {words}")?;
                }
                end_of(f, console)
            }
            Self::TimedOut { limit, console } => {
                write!(
                    f,
                    "the command has not ended after {} s; give it more: --timeout SECONDS",
                    limit.as_secs()
                )?;
                end_of(f, console)
            }
            Self::Back { code, error } => {
                write!(f, "the command ended with exit code {code}, and {error}")
            }
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for NestedError {}

/// How a command ended that came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; 128 and more is a signal, as shells have it.
    pub code: u8,
    /// Files that came back.
    pub files: Vec<PathBuf>,
}

/// Runs a command to its end. `out` and `err` take what it prints, as it comes.
pub fn run(
    options: &Options<'_>,
    out: Box<dyn io::Write + Send>,
    err: Box<dyn io::Write + Send>,
) -> Result<Ended, NestedError> {
    let directory = tempfile::tempdir().map_err(NestedError::File)?;
    let at = |name: &str| directory.path().join(name);
    let qemu = options.qemu.then(files::files).transpose().map_err(NestedError::Qemu)?;
    let (entries, roots) = entries(options, qemu.as_ref())?;
    let end = streams::mark().map_err(NestedError::File)?;
    let mut variables = Vec::new();
    // The kernel that a command inside boots is the one that it would boot here.
    if let Some(kernel) = std::env::var_os(linux::KERNEL).filter(|_| options.linux) {
        variables.push((linux::KERNEL, kernel));
    }
    if let Some(qemu) = &qemu {
        variables.push((process::QEMU, qemu.program.clone().into_os_string()));
    }
    let line = command(options, &variables, entries.directory());
    let archive = archive(options, entries, line, &roots, &end)?;
    fs::write(at("initramfs"), archive).map_err(NestedError::File)?;

    let mut streams = Streams::listen(directory.path()).map_err(NestedError::File)?;
    let start = Instant::now();
    let arguments = arguments(options, &at("initramfs"), &streams);
    let mut qemu = Process::start(&arguments).map_err(NestedError::Qemu)?;
    let mut back = back::Back::new(&roots);
    let events = streams.open(out, err, end);
    let ended = wait(options, start, &mut qemu, &mut streams, &events, &mut back);
    // The streams end with it, and with them whoever reads them.
    qemu.end();
    let console = streams.console();
    match ended {
        Ok(code) => match back.keep() {
            Ok(files) => Ok(Ended { code, files }),
            Err(error) => Err(NestedError::Back { code, error }),
        },
        Err(Why::NoKvm) => Err(NestedError::NoKvm { console }),
        Err(Why::TimedOut) => Err(NestedError::TimedOut { limit: options.timeout, console }),
        Err(Why::Interrupted) => Err(NestedError::Interrupted),
        Err(Why::Back(code, error)) => Err(NestedError::Back { code, error }),
        Err(Why::File(error)) => Err(NestedError::File(error)),
        Err(Why::Ended(status)) => Err(NestedError::Ended { status, words: qemu.words(), console }),
    }
}

/// Why the wait for a command was over before its end.
enum Why {
    NoKvm,
    TimedOut,
    Interrupted,
    Ended(Option<i32>),
    Back(u8, BackError),
    File(io::Error),
}

/// Waits until everything that the command printed has been passed on, its exit code is known, and
/// its files are here.
fn wait(
    options: &Options<'_>,
    start: Instant,
    qemu: &mut Process,
    streams: &mut Streams,
    events: &Receiver<Event>,
    back: &mut back::Back<'_>,
) -> Result<u8, Why> {
    let (mut code, mut open, mut complete) = (None, 2, false);
    let (mut gone, mut knocked) = (None, start);
    loop {
        if let (Some(code), 0, true) = (code, open, complete) {
            return Ok(code);
        }
        if options.interrupted.load(Ordering::Relaxed) {
            return Err(Why::Interrupted);
        }
        if start.elapsed() > options.timeout {
            return Err(Why::TimedOut);
        }
        streams.accept().map_err(Why::File)?;
        if knocked.elapsed() > KNOCK {
            streams.knock();
            knocked = Instant::now();
        }
        match events.recv_timeout(STEP) {
            Ok(Event::Printed) => open -= 1,
            Ok(Event::NoKvm) => return Err(Why::NoKvm),
            Ok(Event::Exit(status)) => code = Some(status),
            Ok(Event::File(head, bytes)) => {
                let code = code.unwrap_or_default();
                back.take(&head, &bytes).map_err(|error| Why::Back(code, error))?;
            }
            Ok(Event::Complete) => complete = true,
            Ok(Event::Broken(error)) if code.is_some() && gone.is_none() => {
                return Err(Why::Back(code.unwrap_or_default(), error));
            }
            Ok(Event::Broken(_)) => {}
            // What had been sent when QEMU ended has been looked at by now.
            Err(_) if gone.is_some() => return Err(Why::Ended(gone.flatten())),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(STEP),
        }
        if gone.is_none() {
            gone = qemu.ended().map(|status| status.code());
        }
    }
}

/// The entries of the program and of everything that goes with it, and the places whose files come
/// back.
fn entries(
    options: &Options<'_>,
    qemu: Option<&Files>,
) -> Result<(baggage::Baggage, Vec<baggage::Root>), NestedError> {
    // Memory holds the archive, what is unpacked of it, and the command.
    let most = options.memory << 20 >> 2;
    let mut baggage = baggage::Baggage::new(most).map_err(NestedError::Baggage)?;
    let mut known = Vec::new();
    let mut programs = vec![&options.program];
    match qemu {
        Some(Files { script: Some(script), program, .. }) => {
            for path in script.files.iter().chain([program]) {
                baggage.add(path).map_err(NestedError::Baggage)?;
            }
            // Inside, busybox is the shell.
            programs
                .extend(Some(&script.interpreter).filter(|shell| **shell != Path::new("/bin/sh")));
            // The script may tell a loader where the libraries are, which does not find them by itself.
            let found = program::libraries(&script.runs).unwrap_or_default();
            for path in &found {
                baggage.add(path).map_err(NestedError::Baggage)?;
            }
        }
        Some(Files { script: None, program, .. }) => programs.push(program),
        None => {}
    }
    for program in programs {
        let libraries = program::libraries(program).map_err(NestedError::Program)?;
        for path in std::iter::once(program).chain(&libraries) {
            baggage.add(path).map_err(NestedError::Baggage)?;
        }
        known.extend(libraries);
    }
    for folder in qemu.into_iter().flat_map(|qemu| &qemu.folders) {
        baggage.add(folder).map_err(NestedError::Baggage)?;
    }
    let mut roots = baggage.named(&options.arguments).map_err(NestedError::Baggage)?;
    for path in &options.files {
        for library in program::libraries_of_file(path, &known).map_err(NestedError::Program)? {
            baggage.add(&library).map_err(NestedError::Baggage)?;
        }
        roots.push(baggage.add(path).map_err(NestedError::Baggage)?);
    }
    Ok((baggage, roots))
}

fn archive(
    options: &Options<'_>,
    baggage: baggage::Baggage,
    command: Vec<u8>,
    roots: &[baggage::Root],
    end: &str,
) -> Result<Vec<u8>, NestedError> {
    let kernel = &options.kernel;
    let mut list = String::new();
    for root in roots {
        list += &format!("{}\n", root.inside.display());
    }
    let mut all = vec![
        Entry::folder("nested"),
        Entry::file(
            "nested/busybox",
            PROGRAM,
            initramfs::read(&kernel.busybox).map_err(NestedError::Initramfs)?,
        ),
        Entry::file("nested/init", PROGRAM, INSIDE),
        Entry::file("nested/command", PLAIN, command),
        Entry::file("nested/input", PLAIN, options.input.as_slice()),
        Entry::file("nested/end", PLAIN, end),
        Entry::file("nested/roots", PLAIN, list),
    ];
    let drivers = initramfs::drivers(&kernel.modules, &kernel.name(), &DRIVERS, "nested");
    all.extend(drivers.map_err(NestedError::Initramfs)?);
    all.extend(baggage.into_entries());
    initramfs::archive(&all).map_err(NestedError::Initramfs)
}

/// The command as a line for a shell, which knows nothing of what the words mean.
fn command(options: &Options<'_>, variables: &[(&str, OsString)], directory: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let mut line = b"cd ".to_vec();
    quoted(&mut line, directory.as_os_str().as_bytes());
    line.extend(b" && exec ");
    if !variables.is_empty() {
        line.extend(b"env ");
    }
    for (name, value) in variables {
        quoted(&mut line, format!("{name}=").as_bytes());
        quoted(&mut line, value.as_bytes());
        line.push(b' ');
    }
    let program = std::path::absolute(&options.program).unwrap_or(options.program.clone());
    quoted(&mut line, program.as_os_str().as_bytes());
    for word in &options.arguments {
        line.push(b' ');
        quoted(&mut line, word.as_bytes());
    }
    line.push(b'\n');
    line
}

/// A word in single quotes; one of its own ends them, stands in front of a backslash, and begins
/// them again.
fn quoted(line: &mut Vec<u8>, word: &[u8]) {
    line.push(b'\'');
    for &byte in word {
        match byte {
            b'\'' => line.extend(br"'\''"),
            byte => line.push(byte),
        }
    }
    line.push(b'\'');
}

/// QEMU's arguments.
fn arguments(options: &Options<'_>, initramfs: &Path, streams: &Streams) -> Vec<OsString> {
    let mut all = process::fixed();
    let processors = options.processors.to_string();
    let memory = format!("{}M", options.memory);
    all.extend(
        ["-M", "q35", "-cpu", PROCESSOR, "-smp", &processors, "-m", &memory].map(Into::into),
    );
    all.extend(["-no-reboot".into(), "-kernel".into(), options.kernel.image.clone().into()]);
    all.extend(["-initrd".into(), initramfs.as_os_str().to_owned()]);
    all.extend(["-append", COMMAND_LINE, "-device", "virtio-serial-pci"].map(Into::into));
    for (name, path) in streams.sockets() {
        let mut socket = OsString::from(format!("socket,id={name},path="));
        socket.push(escaped(path));
        all.extend(["-chardev".into(), socket]);
        all.extend(match name {
            streams::CONSOLE => ["-serial".into(), format!("chardev:{name}").into()],
            name => {
                let port = format!("virtserialport,chardev={name},name={name}");
                ["-device".into(), port.into()]
            }
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_shell_reads_a_word_as_it_was() {
        let mut line = b"printf %s ".to_vec();
        let word = b"a'b\\\"$(c) \n*\xFF-";
        quoted(&mut line, word);
        use std::os::unix::ffi::OsStrExt;
        let line = std::ffi::OsStr::from_bytes(&line);
        let shell = std::process::Command::new("/bin/sh").arg("-c").arg(line).output();
        assert_eq!(shell.expect("a shell").stdout, word);
    }
}
