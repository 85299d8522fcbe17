//! A QEMU that was started here: a process, what it has to say, and its end.
//!
//! **Invariant**: when the value goes, the process has gone, and so it has when this program is killed;
//! nothing but that process is ended.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::qtest::{Qtest, QtestError};

/// The variable that names the program for x86-64.
pub(crate) const QEMU: &str = "QEMU";

/// Whose processor a QEMU emulates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arch {
    /// x86-64: the machine q35.
    #[default]
    X86,
    /// AArch64: the machine virt.
    Arm,
}

impl Arch {
    /// The variable that names the program, and what it is called where none does.
    const fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::X86 => (QEMU, "qemu-system-x86_64"),
            Self::Arm => ("QEMU_AARCH64", "qemu-system-aarch64"),
        }
    }

    /// The package that has the program, on Debian.
    const fn package(self) -> &'static str {
        match self {
            Self::X86 => "qemu-system-x86",
            Self::Arm => "qemu-system-arm",
        }
    }

    /// The machine, the processor, and the width of its physical addresses.
    pub(super) const fn machine(self) -> (&'static str, &'static str, u8) {
        match self {
            Self::X86 => ("q35,cxl=on", "max", ADDRESS_BITS),
            // Its registers say 48; `max` is slower by far.
            Self::Arm => ("virt,cxl=on", "neoverse-n1", 48),
        }
    }
}

/// The oldest version that this is for, the first whose devices do 3, 6, 12 and 16 ways; before 8.2
/// they have one decoder (QEMU `hw/cxl/cxl-component-utils.c`).
pub const OLDEST: (u32, u32) = (10, 0);
/// Width of physical addresses of QEMU's emulated x86 processors (`TCG_PHYS_ADDR_BITS` in
/// `target/i386/cpu.h`).
pub const ADDRESS_BITS: u8 = 40;
/// The most that is kept of what QEMU says.
const MAX_WORDS: u64 = 64 << 10;
/// Time between two looks whether it has ended.
const RETRY: Duration = Duration::from_millis(5);
/// Time for a question that QEMU answers without starting a machine.
const QUESTION: Duration = Duration::from_secs(20);

/// What every QEMU here is started with: nothing that is not asked for.
pub fn fixed() -> Vec<OsString> {
    ["-accel", "tcg", "-display", "none", "-nodefaults", "-monitor", "none"]
        .map(OsString::from)
        .to_vec()
}

/// Why there is no QEMU to run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessError {
    /// There is no such program.
    Missing {
        /// Whose processor it was to emulate.
        arch: Arch,
        /// What was to be run.
        program: OsString,
    },
    /// The program does not start.
    Start {
        /// What was to be run.
        program: OsString,
        /// Why it does not.
        error: String,
    },
    /// The program says nothing that looks like QEMU's version.
    NotQemu {
        /// Whose processor it was to emulate.
        arch: Arch,
        /// What was run.
        program: OsString,
        /// What it says.
        found: String,
    },
    /// The program is a script, and what it starts cannot be taken along.
    Script {
        /// The script.
        program: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A version without the CXL devices that are needed.
    TooOld {
        /// Whose processor it was to emulate.
        arch: Arch,
        /// What it says it is.
        found: (u32, u32),
    },
    /// This QEMU was built without a device that is needed.
    NoDevice {
        /// Whose processor it was to emulate.
        arch: Arch,
        /// The device.
        device: &'static str,
        /// What it says it is.
        version: (u32, u32),
    },
    /// The smallest machine with a window has none.
    NoWindow {
        /// Whose processor it was to emulate.
        arch: Arch,
    },
    /// It ended before it was told to.
    Ended {
        /// How.
        status: Option<i32>,
        /// Its last words.
        words: String,
    },
    /// It does not answer.
    Qtest(QtestError),
}

impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = OLDEST;
        let remedy = |arch: &Arch| {
            let (variable, _) = arch.program();
            let package = arch.package();
            format!(
                "install {package} {major}.{minor} or newer, or name one with {variable}=PROGRAM"
            )
        };
        match self {
            Self::Missing { arch, program } => {
                write!(f, "{}: no such program; {}", program.display(), remedy(arch))
            }
            Self::Start { program, error } => write!(f, "{}: {error}", program.display()),
            Self::NotQemu { arch, program, found } => write!(
                f,
                "{} --version: expected \"QEMU emulator version\", found {found:?}; {}",
                program.display(),
                remedy(arch)
            ),
            Self::Script { program, why } => {
                write!(f, "{}: this QEMU is a script, and {why}", program.display())
            }
            Self::TooOld { arch, found } => write!(
                f,
                "QEMU {}.{} is older than {major}.{minor}, the first whose devices do all ways; \
                 {}",
                found.0,
                found.1,
                remedy(arch)
            ),
            Self::NoDevice { arch, device, version } => write!(
                f,
                "this QEMU {}.{} has no device {device}: it was built without CXL; {}",
                version.0,
                version.1,
                remedy(arch)
            ),
            Self::NoWindow { arch } => write!(
                f,
                "this QEMU makes no CXL window for a machine that has one; {}",
                remedy(arch)
            ),
            Self::Ended { status, words } => {
                match status {
                    Some(status) => write!(f, "QEMU ended with exit code {status}")?,
                    None => write!(f, "QEMU was ended by a signal")?,
                }
                if words.is_empty() { Ok(()) } else { write!(f, ": {words}") }
            }
            Self::Qtest(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ProcessError {}

/// The program to run: what `QEMU` in the environment names, or `qemu-system-x86_64`.
pub fn program() -> OsString {
    program_for(Arch::X86)
}

fn program_for(arch: Arch) -> OsString {
    let (variable, program) = arch.program();
    std::env::var_os(variable).filter(|name| !name.is_empty()).unwrap_or(program.into())
}

/// Whether there is a QEMU at all; its version.
pub fn version() -> Result<(u32, u32), ProcessError> {
    version_for(Arch::X86)
}

fn version_for(arch: Arch) -> Result<(u32, u32), ProcessError> {
    let program = program_for(arch);
    let words = answer(arch, &["--version"])?;
    let version = words.strip_prefix("QEMU emulator version ").and_then(|rest| {
        let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    });
    version.ok_or_else(|| {
        let found = words.lines().next().unwrap_or_default().to_owned();
        ProcessError::NotQemu { arch, program, found }
    })
}

/// Whether whole values end this version: QEMU 11.1.3 fails an assertion (extract32) at the first store of
/// all-ones to a decoder that no lock holds. The attack flips single bits alone there.
pub fn dies_of_values(version: (u32, u32)) -> bool {
    version >= (11, 0)
}

/// Whether there is a QEMU that has the CXL devices; its version.
pub fn available() -> Result<(u32, u32), ProcessError> {
    available_for(Arch::X86)
}

/// The same for another architecture.
pub fn available_for(arch: Arch) -> Result<(u32, u32), ProcessError> {
    let version = version_for(arch)?;
    if version < OLDEST {
        return Err(ProcessError::TooOld { arch, found: version });
    }
    let (machine, ..) = arch.machine();
    let machine = machine.split(',').next().unwrap_or(machine);
    let devices = answer(arch, &["-M", machine, "-device", "help"])?;
    for device in ["pxb-cxl", "cxl-rp", "cxl-upstream", "cxl-downstream", "cxl-type3"] {
        if !devices.contains(&format!("name \"{device}\"")) {
            return Err(ProcessError::NoDevice { arch, device, version });
        }
    }
    Ok(version)
}

/// Whether a device of the program has a property.
pub fn has_property(arch: Arch, device: &str, property: &str) -> Result<bool, ProcessError> {
    let help = answer(arch, &["-device", &format!("{device},help")])?;
    let name = |line: &str| line.trim_start().split('=').next().map(str::to_owned);
    Ok(help.lines().any(|line| name(line).as_deref() == Some(property)))
}

/// What the program prints and ends.
pub(super) fn answer(arch: Arch, arguments: &[&str]) -> Result<String, ProcessError> {
    let program = program_for(arch);
    let start = |error: io::Error| start_error(arch, &error);
    let mut out = tempfile::tempfile().map_err(start)?;
    let stdout = out.try_clone().map_err(start)?;
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
    die_with_us(&mut command);
    let child = command.spawn().map_err(start)?;
    let mut process = Process { child, words: None };
    if process.wait(QUESTION).is_none() {
        let error = "it does not end by itself".to_owned();
        return Err(ProcessError::Start { program, error });
    }
    Ok(tail(&mut out, u64::MAX))
}

/// Has the kernel end a process whose parent is gone, however it went. It counts by threads: the one
/// that starts a process has to stay until that has ended, as an owner does that waits for it.
fn die_with_us(command: &mut Command) {
    let us = std::process::id();
    let last = move || {
        // SAFETY: a system call with a number; it looks at no memory.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have gone before the kernel was told.
        if std::os::unix::process::parent_id() != us {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: what runs between fork and exec makes two system calls and allocates nothing.
    unsafe { command.pre_exec(last) };
}

fn start_error(arch: Arch, error: &io::Error) -> ProcessError {
    let program = program_for(arch);
    match error.kind() {
        ErrorKind::NotFound => ProcessError::Missing { arch, program },
        _ => ProcessError::Start { program, error: error.to_string() },
    }
}

/// A running QEMU.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Where its standard error goes.
    words: Option<File>,
}

impl Process {
    /// Starts QEMU with these arguments; what it prints on standard output goes nowhere.
    pub fn start(arguments: &[OsString]) -> Result<Self, ProcessError> {
        Self::start_for(Arch::X86, arguments)
    }

    /// The same for another architecture.
    pub fn start_for(arch: Arch, arguments: &[OsString]) -> Result<Self, ProcessError> {
        Self::spawn(arch, arguments, Stdio::null(), Stdio::null())
    }

    /// Starts QEMU with these arguments and `-qtest stdio`, and talks to it over its standard input
    /// and output.
    pub fn start_with_qtest(
        arguments: &[OsString],
        limit: Duration,
    ) -> Result<(Self, Qtest), ProcessError> {
        Self::start_with_qtest_for(Arch::X86, arguments, limit)
    }

    /// The same for another architecture.
    pub fn start_with_qtest_for(
        arch: Arch,
        arguments: &[OsString],
        limit: Duration,
    ) -> Result<(Self, Qtest), ProcessError> {
        let failed = |error: io::Error| start_error(arch, &error);
        // A socket at both ends: reads of it can have a time limit, reads of a pipe cannot.
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let stdin = OwnedFd::from(theirs.try_clone().map_err(failed)?);
        let stdout = OwnedFd::from(theirs);
        let mut all = arguments.to_vec();
        all.extend(["-qtest", "stdio", "-qtest-log", "/dev/null"].map(OsString::from));
        let process = Self::spawn(arch, &all, stdin.into(), stdout.into())?;
        Ok((process, Qtest::over(ours, limit)))
    }

    fn spawn(
        arch: Arch,
        arguments: &[OsString],
        stdin: Stdio,
        out: Stdio,
    ) -> Result<Self, ProcessError> {
        let program = program_for(arch);
        let start = |error: io::Error| start_error(arch, &error);
        let words = tempfile::tempfile().map_err(start)?;
        let stderr = words.try_clone().map_err(start)?;
        let mut command = Command::new(&program);
        command.args(arguments).stdin(stdin).stdout(out).stderr(stderr);
        // Ctrl-C on a terminal goes to a whole group: QEMU is ended by its owner, in order.
        command.process_group(0);
        die_with_us(&mut command);
        let child = command.spawn().map_err(start)?;
        Ok(Self { child, words: Some(words) })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end, at most so long.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            match self.ended() {
                Some(status) => return Some(status),
                None if start.elapsed() >= limit => return None,
                None => sleep(RETRY),
            }
        }
    }

    /// Its last words on standard error, on one line.
    pub fn words(&mut self) -> String {
        let words = self.words.as_mut().map(|file| tail(file, MAX_WORDS)).unwrap_or_default();
        words.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// What went wrong: QEMU's own words if it has ended, else the failure of the connection.
    pub fn explain(&mut self, error: QtestError) -> ProcessError {
        // The connection closes a moment before the process has gone.
        let closed = matches!(error, QtestError::Closed { .. } | QtestError::Connect { .. });
        let wait = if closed { Duration::from_secs(1) } else { Duration::ZERO };
        match self.wait(wait) {
            Some(status) => {
                let words = self.words();
                ProcessError::Ended { status: status.code(), words }
            }
            None => ProcessError::Qtest(error),
        }
    }

    /// Ends it, and waits until it has gone.
    pub fn end(&mut self) {
        if self.ended().is_none() {
            // It may have gone by itself in between, which is as good.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Process {
    /// Ends it with all that it started, where it is a shell: they are a group of their own.
    pub(super) fn end_all(&mut self) {
        let group = i32::try_from(self.id()).ok().filter(|_| self.ended().is_none());
        if let Some(group) = group {
            // SAFETY: a system call with two numbers; the group has the number of a child that is not
            // waited for yet, so nobody else can have it.
            let _ = unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        self.end();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The last `most` bytes of a file as text.
fn tail(file: &mut File, most: u64) -> String {
    let mut bytes = Vec::new();
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let from = io::SeekFrom::Start(length.saturating_sub(most));
    // What cannot be read was not said.
    let _ = file.seek(from).and_then(|_| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}
