//! A client of QEMU's qtest protocol (QEMU `system/qtest.c`): lines of text that read and write a
//! machine's physical memory and I/O ports from outside, whether or not a guest runs.
//!
//! **Invariant**: each command is answered or fails within the client's limit. After the first
//! failure nothing is sent any more, so that a dead QEMU costs one limit and not one for each
//! access.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cxl_firmware::mmio::Mmio;

/// The longest answer that is waited for, in bytes; that to a read of [`CHUNK`] bytes is shorter.
const MAX_ANSWER: usize = 1 << 18;
/// Bytes of memory that one command reads or writes.
const CHUNK: usize = 64 << 10;
/// Time between two tries to connect.
const RETRY: Duration = Duration::from_millis(5);
/// The part of a command that an error repeats.
const SHOWN: usize = 60;

/// Why QEMU did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QtestError {
    /// Nobody listens at the socket.
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the last try said.
        error: ErrorKind,
        /// How long it was tried.
        after: Duration,
    },
    /// The connection broke.
    Broken {
        /// The command.
        command: String,
        /// What reading or writing said.
        error: ErrorKind,
    },
    /// QEMU closed the connection: it has ended.
    Closed {
        /// The command.
        command: String,
    },
    /// No answer came in time.
    TimedOut {
        /// The command.
        command: String,
        /// The limit.
        limit: Duration,
    },
    /// The answer is none to this command.
    Answer {
        /// The command.
        command: String,
        /// What an answer looks like.
        expected: &'static str,
        /// The answer.
        found: String,
    },
}

impl fmt::Display for QtestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { path, error, after } => write!(
                f,
                "qtest: nobody answers at {} after {} ms ({error}); start QEMU with \
                 -qtest unix:{},server=on,wait=off",
                path.display(),
                after.as_millis(),
                path.display()
            ),
            Self::Broken { command, error } => write!(f, "qtest: `{command}`: {error}"),
            Self::Closed { command } => {
                write!(f, "qtest: `{command}`: QEMU has closed the connection")
            }
            Self::TimedOut { command, limit } => {
                write!(f, "qtest: `{command}`: no answer within {} ms", limit.as_millis())
            }
            Self::Answer { command, expected, found } => {
                write!(f, "qtest: `{command}`: expected {expected}, found {found:?}")
            }
        }
    }
}

impl std::error::Error for QtestError {}

/// How wide an access is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// A byte.
    One,
    /// Two bytes.
    Two,
    /// A dword.
    Four,
    /// Eight bytes.
    Eight,
}

impl Width {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::One, Self::Two, Self::Four, Self::Eight];

    /// Bytes.
    pub const fn bytes(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::One => 'b',
            Self::Two => 'w',
            Self::Four => 'l',
            Self::Eight => 'q',
        }
    }
}

/// A connection to one QEMU.
///
/// As an [`Mmio`] it cannot say that an access failed: reads are all-ones from then on, as on a
/// machine that is gone, and [`Qtest::check`] tells what happened.
#[derive(Debug)]
pub struct Qtest {
    stream: UnixStream,
    limit: Duration,
    /// Bytes that came behind the last answer.
    ahead: Vec<u8>,
    failed: Option<QtestError>,
}

impl Qtest {
    /// Talks over a stream that QEMU has as the other end: its socket, or its standard input and
    /// output. Each command has `limit` to be answered.
    pub fn over(stream: UnixStream, limit: Duration) -> Self {
        Self { stream, limit, ahead: Vec::new(), failed: None }
    }

    /// Connects to `-qtest unix:PATH,server=on,wait=off`, which QEMU opens a moment after its
    /// start: tries until `limit` is over.
    pub fn connect(path: &Path, limit: Duration) -> Result<Self, QtestError> {
        let start = Instant::now();
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Ok(Self::over(stream, limit)),
                Err(error) if start.elapsed() >= limit => {
                    let (path, error) = (path.to_owned(), error.kind());
                    return Err(QtestError::Connect { path, error, after: start.elapsed() });
                }
                Err(_) => sleep(RETRY),
            }
        }
    }

    /// The first failure, if there was one; every access after it did nothing.
    pub fn check(&self) -> Result<(), QtestError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Reads physical memory, 1, 2, 4 or 8 bytes as one access.
    pub fn load(&mut self, address: u64, width: Width) -> Result<u64, QtestError> {
        self.number(&format!("read{} {address:#x}", width.letter()))
    }

    /// Writes physical memory, 1, 2, 4 or 8 bytes as one access.
    pub fn store(&mut self, address: u64, value: u64, width: Width) -> Result<(), QtestError> {
        self.done(&format!("write{} {address:#x} {value:#x}", width.letter()))
    }

    /// Reads an I/O port.
    pub fn port_in(&mut self, port: u16, width: PortWidth) -> Result<u32, QtestError> {
        self.number(&format!("in{} {port:#x}", width.letter())).map(|value| value as u32)
    }

    /// Writes an I/O port.
    pub fn port_out(&mut self, port: u16, value: u32, w: PortWidth) -> Result<(), QtestError> {
        self.done(&format!("out{} {port:#x} {value:#x}", w.letter()))
    }

    /// Reads any run of physical memory; QEMU chooses the widths of the accesses.
    pub fn read_memory(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), QtestError> {
        let mut at = address;
        for chunk in bytes.chunks_mut(CHUNK) {
            let command = format!("read {at:#x} {:#x}", chunk.len());
            let answer = self.ask(&command)?;
            let digits = answer.strip_prefix("0x").map(str::as_bytes).unwrap_or_default();
            let pairs = digits.chunks_exact(2).map(|pair| {
                let text = str::from_utf8(pair).ok()?;
                u8::from_str_radix(text, 16).ok()
            });
            let read: Option<Vec<u8>> = pairs.collect();
            match read.filter(|read| read.len() == chunk.len()) {
                Some(read) => chunk.copy_from_slice(&read),
                None => return Err(self.unexpected(&command, "as many bytes in hex", answer)),
            }
            at = at.wrapping_add(CHUNK as u64);
        }
        Ok(())
    }

    /// Writes any run of physical memory; QEMU chooses the widths of the accesses.
    pub fn write_memory(&mut self, address: u64, bytes: &[u8]) -> Result<(), QtestError> {
        use fmt::Write as _;
        let mut at = address;
        for chunk in bytes.chunks(CHUNK) {
            let mut command = format!("write {at:#x} {:#x} 0x", chunk.len());
            for byte in chunk {
                // Writing to a String cannot fail.
                let _ = write!(command, "{byte:02x}");
            }
            self.done(&command)?;
            at = at.wrapping_add(CHUNK as u64);
        }
        Ok(())
    }

    fn number(&mut self, command: &str) -> Result<u64, QtestError> {
        let answer = self.ask(command)?;
        let digits = answer.strip_prefix("0x").unwrap_or(&answer);
        match u64::from_str_radix(digits, 16) {
            Ok(value) => Ok(value),
            Err(_) => Err(self.unexpected(command, "a number in hex", answer)),
        }
    }

    fn done(&mut self, command: &str) -> Result<(), QtestError> {
        let answer = self.ask(command)?;
        match answer.is_empty() {
            true => Ok(()),
            false => Err(self.unexpected(command, "OK alone", answer)),
        }
    }

    /// Sends a command and returns what follows the OK of its answer.
    fn ask(&mut self, command: &str) -> Result<String, QtestError> {
        self.check()?;
        let result = self.exchange(command);
        result.map_err(|error| self.fail(error))
    }

    fn exchange(&mut self, command: &str) -> Result<String, QtestError> {
        let shown = || shorten(command);
        let broken = |error: io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                QtestError::TimedOut { command: shown(), limit: self.limit }
            }
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                QtestError::Closed { command: shown() }
            }
            error => QtestError::Broken { command: shown(), error },
        };
        let start = Instant::now();
        self.stream.set_write_timeout(Some(self.limit)).map_err(broken)?;
        self.stream.write_all(format!("{command}\n").as_bytes()).map_err(broken)?;
        loop {
            while let Some(at) = self.ahead.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.ahead.drain(..=at).collect();
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                // Interrupts that somebody asked to hear of; nobody here did.
                if line.starts_with("IRQ ") {
                    continue;
                }
                return match line.strip_prefix("OK") {
                    Some(answer) => Ok(answer.trim_start().to_owned()),
                    None => {
                        let expected = "a line that starts with OK";
                        let (command, found) = (shown(), shorten(&line));
                        Err(QtestError::Answer { command, expected, found })
                    }
                };
            }
            if self.ahead.len() > MAX_ANSWER {
                let found = String::from_utf8_lossy(self.ahead.get(..SHOWN).unwrap_or_default());
                let (expected, found) = ("a line of text", found.into_owned());
                return Err(QtestError::Answer { command: shown(), expected, found });
            }
            // A timeout of 0 would mean none.
            let left = self.limit.saturating_sub(start.elapsed());
            let left = left.max(Duration::from_micros(1));
            self.stream.set_read_timeout(Some(left)).map_err(broken)?;
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(QtestError::Closed { command: shown() }),
                Ok(count) => self.ahead.extend(bytes.iter().take(count)),
                Err(error)
                    if error.kind() == ErrorKind::Interrupted && start.elapsed() < self.limit => {}
                Err(error) => return Err(broken(error)),
            }
        }
    }

    fn unexpected(&mut self, command: &str, expected: &'static str, found: String) -> QtestError {
        let command = shorten(command);
        self.fail(QtestError::Answer { command, expected, found: shorten(&found) })
    }

    fn fail(&mut self, error: QtestError) -> QtestError {
        self.failed.get_or_insert(error).clone()
    }
}

/// How wide a port access is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortWidth {
    /// A byte.
    One,
    /// Two bytes.
    Two,
    /// Four bytes.
    Four,
}

impl PortWidth {
    const fn letter(self) -> char {
        match self {
            Self::One => 'b',
            Self::Two => 'w',
            Self::Four => 'l',
        }
    }
}

/// As much of a text as fits a line.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl Mmio for Qtest {
    fn read(&mut self, address: u64) -> u32 {
        self.load(address, Width::Four).map_or(u32::MAX, |value| value as u32)
    }

    fn write(&mut self, address: u64, value: u32) {
        // The failure is kept for `check`.
        let _ = self.store(address, value.into(), Width::Four);
    }

    fn write_qword(&mut self, address: u64, value: u64) {
        let _ = self.store(address, value, Width::Eight);
    }
}
