//! What the bare-metal image says on a serial console, for hosts that see nothing else of it: the
//! sections of the word `dump` (the image's `dump.rs` has the grammar), and how the run ended.
//!
//! Other text may stand between the lines, a firmware's in front or an operating system's behind.
//! After a reset the image says everything again; what was said last counts.
//!
//! **Invariant**: a section is whole, byte by byte where its lines say, or the collection is an
//! error with the line; nothing is filled in.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path as FilePath;

use cxl_firmware::topology::Path;
use cxl_image::doorbell::Status;
use cxl_regs::Component;

/// The most bytes of one section.
const MAX_SECTION: usize = 1 << 20;
/// The most bytes of a console that whoever waits for its end lets it have: some ten times those of a
/// Linux that says everything.
pub(crate) const MAX_CONSOLE: u64 = 16 << 20;

/// What there is to say of a longer one.
pub(crate) fn too_long() -> io::Error {
    io::Error::other(format!("the console has more than {MAX_CONSOLE} bytes"))
}

/// The console's file so far; an error once it has more than [`MAX_CONSOLE`].
pub(crate) fn so_far(path: &FilePath) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    match File::open(path) {
        // What was never written is as good as empty.
        Err(_) => {}
        Ok(file) => {
            file.take(MAX_CONSOLE + 1).read_to_end(&mut text)?;
        }
    }
    if text.len() as u64 > MAX_CONSOLE {
        return Err(too_long());
    }
    Ok(text)
}

/// A run of bytes in the machine's memory, or in its registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its physical address.
    pub address: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Registers of one component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    /// What it is.
    pub component: Component,
    /// Where it is: the bridge's UID and the port numbers on the way.
    pub place: Path,
    /// The registers.
    pub section: Section,
}

/// Everything that was collected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The hand-off record.
    pub handoff: Option<Section>,
    /// The CEDT that was installed.
    pub cedt: Option<Section>,
    /// HDM decoder structures, as they were printed.
    pub hdm: Vec<Registers>,
    /// CXL Device DVSECs.
    pub dvsec: Vec<Registers>,
    /// How the run ended; `None` if it has not, or was told to be quiet.
    pub end: Option<Status>,
}

/// What is wrong with a console's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleError {
    /// Line number, from 1.
    pub line: usize,
    /// What.
    pub problem: Problem,
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A word is missing, or is not what belongs there.
    Word {
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A section inside another, or an end or bytes without a beginning.
    Order {
        /// What would be in order.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The next bytes of a section are somewhere else, or there are too few or too many.
    Offset {
        /// The offset that comes next, or the section's length.
        expected: usize,
        /// What the line says.
        found: usize,
    },
    /// A section that claims more than any has.
    TooLong {
        /// Bytes.
        found: u64,
    },
}

impl fmt::Display for ConsoleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "console line {}: ", self.line)?;
        match &self.problem {
            Problem::Word { expected, found } => write!(f, "expected {expected}, found {found:?}"),
            Problem::Order { expected, found } => write!(f, "expected {expected}, found {found}"),
            Problem::Offset { expected, found } => {
                write!(f, "the dump goes on at {found:#x}, not at {expected:#x}: text was lost")
            }
            Problem::TooLong { found } => {
                write!(f, "a section of {found:#x} bytes, {MAX_SECTION:#x} are read at most")
            }
        }
    }
}

impl std::error::Error for ConsoleError {}

/// Collects what a console's text holds.
///
/// ```
/// use cxl_harness::console;
///
/// let text = b"\
/// dump begin cedt 0x101000 0x4\n\
/// dump 0x0000: 43454454\n\
/// dump end cedt\n";
/// let collected = console::collect(text).unwrap();
/// assert_eq!(collected.cedt.unwrap().bytes, *b"CEDT");
/// ```
pub fn collect(text: &[u8]) -> Result<Collected, ConsoleError> {
    let mut collected = Collected::default();
    let mut open: Option<Open> = None;
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = String::from_utf8_lossy(line);
        let refuse = |problem| ConsoleError { line: number + 1, problem };
        if let Some(words) = line.trim_end().strip_prefix("end: ") {
            collected.end = status(words).or(collected.end);
        }
        let Some(words) = line.trim_end().strip_prefix("dump ") else { continue };
        match (words.split_once(' '), &mut open) {
            (Some(("begin", rest)), None) => open = Some(Open::new(rest).map_err(refuse)?),
            (Some(("end", kind)), Some(section)) if section.kind == kind => {
                let (expected, found) = (section.length, section.bytes.len());
                if expected != found {
                    return Err(refuse(Problem::Offset { expected: found, found: expected }));
                }
                if let Some(section) = open.take() {
                    section.close(&mut collected);
                }
            }
            (Some((offset, hex)), Some(section)) if offset.ends_with(':') => {
                section.line(offset.trim_end_matches(':'), hex).map_err(refuse)?;
            }
            (_, open) => {
                let expected = match open {
                    Some(section) => format!("more of `{}`, or its end", section.kind),
                    None => "`dump begin`".to_owned(),
                };
                return Err(refuse(Problem::Order { expected, found: format!("`{words}`") }));
            }
        }
    }
    let lines = text.split(|byte| *byte == b'\n').count();
    match open {
        None => Ok(collected),
        Some(Open { kind, .. }) => {
            let problem = Problem::Order {
                expected: format!("`dump end {kind}`"),
                found: "the end of the text".to_owned(),
            };
            Err(ConsoleError { line: lines, problem })
        }
    }
}

/// A section that has begun.
struct Open {
    kind: String,
    address: u64,
    length: usize,
    owner: Option<(Component, Path)>,
    bytes: Vec<u8>,
}

impl Open {
    /// From what follows `begin`.
    fn new(text: &str) -> Result<Self, Problem> {
        let mut words = text.split_ascii_whitespace();
        let kind = words.next().unwrap_or_default();
        let registers = match kind {
            "handoff" | "cedt" => false,
            "hdm" | "dvsec" => true,
            _ => return Err(word("a kind: handoff, cedt, hdm, dvsec", kind)),
        };
        let address = hex(words.next(), "an address in hex")?;
        let length = hex(words.next(), "a length in hex")?;
        if length > MAX_SECTION as u64 {
            return Err(Problem::TooLong { found: length });
        }
        let owner = registers.then(|| owner(&mut words)).transpose()?;
        match words.next() {
            Some(more) => Err(word("the end of the line", more)),
            None => {
                let (kind, length) = (kind.to_owned(), length as usize);
                Ok(Self { kind, address, length, owner, bytes: Vec::new() })
            }
        }
    }

    /// One line of bytes.
    fn line(&mut self, offset: &str, digits: &str) -> Result<(), Problem> {
        let found = hex(Some(offset), "an offset in hex")? as usize;
        if found != self.bytes.len() {
            return Err(Problem::Offset { expected: self.bytes.len(), found });
        }
        let bytes = pairs(digits).ok_or_else(|| word("pairs of hexadecimal digits", digits))?;
        self.bytes.extend(bytes);
        if self.bytes.len() > self.length {
            return Err(Problem::Offset { expected: self.length, found: self.bytes.len() });
        }
        Ok(())
    }

    fn close(self, collected: &mut Collected) {
        let section = Section { address: self.address, bytes: self.bytes };
        let Some((component, place)) = self.owner else {
            let place = match self.kind.as_str() {
                "cedt" => &mut collected.cedt,
                _ => &mut collected.handoff,
            };
            *place = Some(section);
            return;
        };
        let list = if self.kind == "hdm" { &mut collected.hdm } else { &mut collected.dvsec };
        list.retain(|older| (older.component, older.place) != (component, place));
        list.push(Registers { component, place, section });
    }
}

fn word(expected: &'static str, found: &str) -> Problem {
    Problem::Word { expected, found: found.to_owned() }
}

fn hex(text: Option<&str>, expected: &'static str) -> Result<u64, Problem> {
    let text = text.unwrap_or_default();
    let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+'));
    let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    number.ok_or_else(|| word(expected, text))
}

fn pairs(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let nibble = |digit: u8| char::from(digit).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some((nibble(*high)? << 4 | nibble(*low)?) as u8),
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}

/// COMPONENT UID [PORT.PORT...].
fn owner<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<(Component, Path), Problem> {
    let name = words.next().unwrap_or_default();
    let component = match name {
        "host-bridge" => Component::HostBridge,
        "upstream-port" => Component::UpstreamPort,
        "device" => Component::Device,
        _ => return Err(word("host-bridge, upstream-port or device", name)),
    };
    let uid = words.next().unwrap_or_default();
    let uid = uid.parse().map_err(|_| word("the UID of a host bridge", uid))?;
    let ports = if component == Component::HostBridge { None } else { words.next() };
    let text = ports.unwrap_or_default();
    let ports = ports.map_or_else(
        || (component == Component::HostBridge).then(Vec::new),
        |ports| ports.split('.').map(|port| port.parse().ok()).collect::<Option<Vec<u8>>>(),
    );
    let path = ports.and_then(|ports| Path::new(uid, &ports));
    path.map(|path| (component, path)).ok_or_else(|| word("port numbers with dots between", text))
}

fn status(word: &str) -> Option<Status> {
    match word {
        "success" => Some(Status::Success),
        "refused" => Some(Status::Refused),
        "panic" => Some(Status::Panic),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{MAX_CONSOLE, so_far};

    #[test]
    fn a_console_without_an_end_is_an_error_and_not_read_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console");
        assert_eq!(so_far(&path).unwrap(), b"", "nothing was written yet");
        let file = std::fs::File::create(&path).unwrap();
        for (length, fits) in [(MAX_CONSOLE, true), (MAX_CONSOLE + 1, false), (1 << 40, false)] {
            file.set_len(length).unwrap();
            assert_eq!(so_far(&path).is_ok(), fits, "{length}");
        }
    }
}
