//! What people paste and attach, as the things that are in it: tables, registers, configuration
//! space, and what Linux shows of a machine.
//!
//! One file may hold several: a bug report has a table, `lspci` and a log. Each thing is a [`Found`]
//! with its lines, the form that it was taken for, and its [`Content`]. Each form is a file of this
//! folder; `hex` knows all that are lines of digits.
//!
//! **Invariant**: what is taken is taken whole. A row that is missing, a digit that is none and a
//! length that is not met are one error with line and column; what nothing here knows is listed, and
//! never half read. What somebody shortened is named and not read. Nothing recurses deeper than once, and
//! each line is looked at a bounded number of times.

mod base64;
mod cxl_list;
mod dsl;
mod hex;
mod image;
mod iomem;
mod legible;
mod lines;
mod lspci;
mod sysfs;
mod text;
pub mod witness;

use std::fmt::{self, Display};

use crate::dump::{Dump, DumpError, InputError, Kind, MAX_INPUT, Options};
use lines::Lines;
pub use sysfs::Tree;
pub use text::{FoundText, JsonText, Object, Thing};
use witness::Witness;

/// The most things in one input.
const MAX_FOUND: usize = 1024;
/// The most parts of one input that are named and not read.
const MAX_BROKEN: usize = 32;

/// How something was written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The bytes themselves.
    Raw,
    /// Rows of bytes in the order of their addresses.
    Bytes,
    /// Rows of numbers of so many bytes, as a little-endian machine prints them.
    Words(u8),
    /// Digits without offsets.
    Plain,
    /// `acpidump`.
    Acpidump,
    /// The raw data at the end of what `iasl -d` writes.
    IaslRaw,
    /// The fields that `iasl -d` writes.
    IaslFields,
    /// `lspci -xxxx`.
    Lspci,
    /// The console of the image with the word `dump`.
    ImageDump,
    /// Base64.
    Base64,
    /// `cxl list`.
    CxlList,
    /// `/proc/iomem`.
    Iomem,
    /// `sysfs`, as a tree or a line an attribute.
    Sysfs,
}

impl Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw bytes",
            Self::Bytes => "hex bytes",
            Self::Words(size) => return write!(f, "hex numbers of {size} bytes, little-endian"),
            Self::Plain => "hex digits without offsets",
            Self::Acpidump => "acpidump text",
            Self::IaslRaw => "iasl's raw data",
            Self::IaslFields => "iasl's disassembly",
            Self::Lspci => "lspci text",
            Self::ImageDump => "the image's dump",
            Self::Base64 => "base64",
            Self::CxlList => "cxl list",
            Self::Iomem => "/proc/iomem",
            Self::Sysfs => "sysfs",
        })
    }
}

/// How digits are to be read where their owner knows better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The input is the bytes, whatever they look like.
    Raw,
    /// Digits stand in the order of addresses.
    Bytes,
    /// Groups of digits are little-endian numbers.
    Words,
    /// The input is base64.
    Base64,
}

/// A component's place, as the image's dump says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// What it is.
    pub component: cxl_regs::Component,
    /// ACPI `_UID` of its host bridge.
    pub uid: u32,
    /// Port Numbers on the way down.
    pub ports: Vec<u8>,
}

/// What it is.
#[derive(Debug)]
pub enum Content {
    /// Registers, configuration space or a CEDT.
    Dump(Dump),
    /// A CXL Device DVSEC alone.
    Dvsec(Vec<u8>),
    /// The firmware's hand-off record.
    HandOff(Vec<u8>),
    /// Another ACPI table.
    Table {
        /// Its signature.
        signature: String,
        /// Its length.
        length: usize,
    },
    /// What Linux showed.
    Witness(Witness),
    /// Digits of something that nothing here knows.
    Unknown {
        /// How many bytes.
        length: usize,
    },
}

impl Content {
    /// What it is, in words.
    pub fn what(&self) -> String {
        match self {
            Self::Dump(dump) => match (dump.kind(), dump.sections().count()) {
                (Kind::Config, more @ 2..) => format!("configuration space of {more} functions"),
                (kind, _) => kind.to_string(),
            },
            Self::Dvsec(_) => "a CXL device DVSEC".to_owned(),
            Self::HandOff(bytes) => format!("a hand-off record of {} bytes", bytes.len()),
            Self::Table { signature, length } => format!("a table {signature} of {length} bytes"),
            Self::Witness(witness) => witness.what(),
            Self::Unknown { length } => format!("{length} bytes that nothing here knows"),
        }
    }
}

/// One thing in an input.
#[derive(Debug)]
pub struct Found {
    /// The lines that it stands in, from 1; none for raw bytes.
    pub lines: Option<(usize, usize)>,
    /// How it is written down.
    pub form: Form,
    /// What it is.
    pub content: Content,
    /// Where it sits in the machine, if the input says so.
    pub seat: Option<Seat>,
}

/// Everything in an input.
#[derive(Debug, Default)]
pub struct Capture {
    /// In the order of the input.
    pub found: Vec<Found>,
    /// What is to be known beside it.
    pub remarks: Vec<String>,
}

impl Capture {
    /// A dump that is all there is.
    pub fn of(dump: Dump) -> Self {
        let content = Content::Dump(dump);
        let found = Found { lines: None, form: Form::Raw, content, seat: None };
        Self { found: vec![found], remarks: vec![] }
    }

    /// Whether it is one dump from its first to its last byte, so that nothing was guessed.
    pub fn is_plain(&self) -> bool {
        matches!(self.found.as_slice(), [Found { lines: None, content: Content::Dump(_), .. }])
    }
}

/// Why an input, or a thing in it, cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureError {
    /// The input is one dump, and wrong.
    Dump(DumpError),
    /// A dump among others is wrong.
    At {
        /// Where it starts, from 1.
        line: usize,
        /// What it was taken for.
        form: Form,
        /// What is wrong.
        error: DumpError,
    },
    /// A line is not as it has to be.
    Line {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// There is more than anybody has.
    TooMany,
}

impl Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dump(error) => error.fmt(f),
            Self::At { line, form, error } => write!(f, "line {line} ({form}): {error}"),
            Self::Line { line, column, expected, found } => {
                write!(f, "line {line}, column {column}: expected {expected}, found {found}")
            }
            Self::TooMany => write!(f, "expected at most {MAX_FOUND} things, found more"),
        }
    }
}

impl std::error::Error for CaptureError {}

impl CaptureError {
    /// From 1; 0 for the input as a whole.
    fn line(&self) -> usize {
        match self {
            Self::Line { line, .. } | Self::At { line, .. } => *line,
            Self::Dump(_) | Self::TooMany => 0,
        }
    }

    /// Whether the input has something in it for sure, if a broken thing.
    pub fn is_recognised(&self) -> bool {
        match self {
            Self::Dump(error) | Self::At { error, .. } => error.is_recognised(),
            Self::Line { .. } | Self::TooMany => true,
        }
    }
}

type Result<T> = std::result::Result<T, CaptureError>;

/// How an input is to be read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask {
    /// What a dump in it is of, and whether it may be broken.
    pub options: Options,
    /// How digits are to be read; recognised otherwise.
    pub reading: Option<Reading>,
}

/// What a reader makes of the lines from some line on: what it is, and the line behind it.
type Taken = Option<Result<(Vec<Found>, usize)>>;

/// What readers keep beside what they find.
#[derive(Debug, Default)]
struct Notes {
    /// Functions of lspci text without bytes.
    without_bytes: usize,
    /// What is to be known.
    remarks: Vec<String>,
    /// Parts that are named and not read.
    broken: Vec<CaptureError>,
    /// Runs of lines that are digits alone, and of base64, in which nothing was found.
    digits: Tries,
    base64: Tries,
}

impl Notes {
    /// Passes over a part; more of them than anybody shortens are an error.
    fn pass_over(&mut self, error: CaptureError) -> Result<()> {
        if self.broken.len() >= MAX_BROKEN {
            return Err(error);
        }
        self.broken.push(error);
        Ok(())
    }
}

/// How often a run of lines is tried again from a later one of its lines: what is in front of a dump may
/// look like a line of it, but a run may be as long as the input.
#[derive(Debug, Default)]
struct Tries {
    /// The line behind the run.
    until: usize,
    left: usize,
}

impl Tries {
    const MOST: usize = 4;

    fn are_spent(&self, at: usize) -> bool {
        at < self.until && self.left == 0
    }

    /// Nothing is in the lines up to another.
    fn failed(&mut self, at: usize, until: usize) {
        if at >= self.until {
            self.left = Self::MOST;
        }
        self.until = self.until.max(until);
        self.left = self.left.saturating_sub(1);
    }
}

/// The things in an input.
pub fn read(input: &[u8], ask: Ask) -> Result<Capture> {
    let mut capture = match ask.reading {
        Some(Reading::Raw) => nested(input, ask, true),
        _ => nested(&legible::legible(input), ask, true),
    }?;
    if tables_apart(&mut capture, ask) {
        twins(&mut capture);
    }
    Ok(capture)
}

/// Takes CEDTs that stand one behind the other for what they are; whether there are any. Bytes behind a
/// table that are no table stay with it.
fn tables_apart(capture: &mut Capture, ask: Ask) -> bool {
    let before = capture.found.len();
    let mut at = 0;
    while let Some(found) = capture.found.get_mut(at) {
        at += 1;
        let Content::Dump(dump) = &found.content else { continue };
        let Some((table, behind)) = dump.behind_the_table() else { continue };
        let parts = [table, behind].map(|part| Dump::of_bytes(part, ask.options));
        let [Ok(table), Ok(next)] = parts else { continue };
        if next.kind() != Kind::Cedt {
            continue;
        }
        let (lines, form, seat) = (found.lines, found.form, found.seat.clone());
        found.content = Content::Dump(table);
        // It is looked at next, as there may be a third behind it.
        capture.found.insert(at, Found { lines, form, content: Content::Dump(next), seat });
    }
    capture.found.len() > before
}

fn nested(input: &[u8], ask: Ask, deeper: bool) -> Result<Capture> {
    if let Some(found) = whole(input, ask)? {
        return Ok(Capture { found: vec![found], remarks: vec![] });
    }
    let first = match are_characters(input) {
        true => Err(Dump::no_dump(input)),
        false => Dump::read(input, ask.options),
    };
    let first = first.map_err(CaptureError::Dump);
    let Some(text) = text_of(input) else { return one(first, Form::Raw) };
    let text = Lines::of(text);
    let (mut capture, broken) = scan(&text, ask, deeper)?;
    capture.found.retain(|found| match (ask.options.kind, &found.content) {
        (Some(kind), Content::Dump(dump)) => dump.kind() == kind,
        (Some(_), _) => false,
        (None, _) => true,
    });
    let known = |found: &Found| !matches!(found.content, Content::Unknown { .. });
    if !capture.found.iter().any(known) {
        // What nobody can read is no remark beside nothing.
        if let Some(error) = broken.into_iter().next() {
            return Err(error);
        }
        // The older reader's complaint is about the whole input, and as exact as can be.
        let first = match ask.reading {
            Some(_) => first.and(Err(CaptureError::Dump(DumpError::Input(InputError::Empty)))),
            None => first,
        };
        return one(first, Form::Bytes);
    }
    capture.remarks.extend(broken.into_iter().map(|error| format!("not read: {error}")));
    Ok(capture)
}

fn one(dump: Result<Dump>, form: Form) -> Result<Capture> {
    let found = Found { lines: None, form, content: Content::Dump(dump?), seat: None };
    Ok(Capture { found: vec![found], remarks: vec![] })
}

/// An input that is one thing from its first to its last byte.
fn whole(input: &[u8], ask: Ask) -> Result<Option<Found>> {
    let as_bytes = |bytes: &[u8], form| {
        let content = Dump::of_bytes(bytes, ask.options).map(Content::Dump);
        let content = content.map_err(CaptureError::Dump)?;
        Ok(Some(Found { lines: None, form, content, seat: None }))
    };
    match ask.reading {
        Some(Reading::Raw) => return as_bytes(input, Form::Raw),
        Some(Reading::Base64) => {
            let lines = Lines::of(text_of(input).unwrap_or_default());
            let bytes = base64::all(&lines)?;
            return as_bytes(&bytes, Form::Base64);
        }
        _ => {}
    }
    if let Some(length) = other_table(input) {
        let signature = signature(input);
        let content = Content::Table { signature, length };
        return Ok(Some(Found { lines: None, form: Form::Raw, content, seat: None }));
    }
    if input.len() > MAX_INPUT || ask.reading.is_some() {
        return Ok(None);
    }
    // The forms that have always been read, so that their complaints stay as they are.
    let text = text_of(input).is_some();
    let read = Dump::read(input, ask.options).ok();
    // A heading starts as a table does, and with a kind and force any bytes are that.
    let characters = are_characters(input);
    Ok(read.filter(|_| !characters).map(|dump| {
        let form = if text { Form::Bytes } else { Form::Raw };
        Found { lines: None, form, content: Content::Dump(dump), seat: None }
    }))
}

/// Whether the bytes are a text's characters, and no digits that stand for others. Whoever means the
/// characters themselves says so ([`Reading::Raw`]).
fn are_characters(input: &[u8]) -> bool {
    let is_text = |text: &str| !text.contains(|c: char| c.is_control() && !c.is_whitespace());
    text_of(input).is_some_and(|text| !text.trim().is_empty() && is_text(text))
        && Dump::is_raw(input)
}

/// The input as text, if it is text: without zero bytes, and short enough.
fn text_of(input: &[u8]) -> Option<&str> {
    let short = input.len() <= MAX_INPUT && !input.contains(&0);
    str::from_utf8(input).ok().filter(|_| short)
}

/// Goes through the lines once; each reader says how many it takes.
fn scan(text: &Lines<'_>, ask: Ask, deeper: bool) -> Result<(Capture, Vec<CaptureError>)> {
    let mut notes = Notes::default();
    let mut capture = Capture::default();
    let mut sysfs = Tree::default();
    let mut sysfs_lines = None::<(usize, usize)>;
    let mut at = 0;
    while at < text.len() {
        if sysfs.line(text.get(at)) {
            let number = at + 1;
            let first = sysfs_lines.map_or(number, |(first, _)| first);
            sysfs_lines = Some((first, number));
            at += 1;
            continue;
        }
        let taken = image::take(text, at, ask)
            .or_else(|| lspci::take(text, at, ask, &mut notes))
            .or_else(|| dsl::take(text, at, ask, &mut notes))
            .or_else(|| hex::take(text, at, ask, &mut notes))
            .or_else(|| cxl_list::take(text, at, &mut notes))
            .or_else(|| iomem::take(text, at, &mut notes))
            .or_else(|| deeper.then(|| base64::take(text, at, ask, &mut notes)).flatten());
        match taken {
            Some(Ok((found, next))) => {
                capture.found.extend(found);
                at = next.max(at + 1);
            }
            // As far as it goes: what is broken is named, and the lines behind it are read.
            Some(Err(error)) if ask.options.force => {
                let behind = error.line().saturating_sub(1);
                at = behind.clamp(at + 1, text.len().max(at + 1));
                // What is left of a block may look like another.
                while at < text.len() && hex::is_row(text.get(at)) {
                    at += 1;
                }
                notes.pass_over(error)?;
            }
            Some(Err(error)) => return Err(error),
            None => at += 1,
        }
        if capture.found.len() > MAX_FOUND {
            return Err(CaptureError::TooMany);
        }
    }
    if let (Some(witness), Some(lines)) = (sysfs.witness()?, sysfs_lines) {
        let content = Content::Witness(witness);
        let found = Found { lines: Some(lines), form: Form::Sysfs, content, seat: None };
        capture.found.push(found);
    }
    twins(&mut capture);
    capture.remarks.append(&mut notes.remarks);
    if notes.without_bytes > 0 {
        capture.remarks.push(format!(
            "{} functions of lspci text have no bytes (lspci -xxxx, as root, prints them)",
            notes.without_bytes
        ));
    }
    Ok((capture, notes.broken))
}

/// What stands twice, as a disassembly's fields and its raw data, counts once.
fn twins(capture: &mut Capture) {
    let bytes = |found: &Found| match &found.content {
        Content::Dump(dump) if dump.kind() == Kind::Cedt => {
            dump.sections().next().map(|(_, bytes)| bytes.to_vec())
        }
        _ => None,
    };
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut dropped = 0;
    capture.found.retain(|found| match bytes(found) {
        Some(bytes) if seen.contains(&bytes) => {
            dropped += 1;
            false
        }
        Some(bytes) => {
            seen.push(bytes);
            true
        }
        None => true,
    });
    if dropped > 0 {
        let times = if dropped == 1 { "twice" } else { "more than twice" };
        capture.remarks.push(format!("the same CEDT stands there {times}; it is taken once"));
    }
}

/// The length of a table other than a CEDT that the bytes are.
fn other_table(bytes: &[u8]) -> Option<usize> {
    let named = bytes.get(..4)?.iter().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    let length = bytes.get(4..8).and_then(|length| <[u8; 4]>::try_from(length).ok())?;
    let length = u32::from_le_bytes(length) as usize;
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let other = !bytes.starts_with(b"CEDT") && length == bytes.len() && length >= 36;
    (named && other && (sum == 0 || bytes.starts_with(b"FACS"))).then_some(length)
}

fn signature(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..4).unwrap_or_default()).into_owned()
}

/// What a block of bytes is. What is recognised is held to its rules; what is not is `Unknown`.
fn judged(bytes: Vec<u8>, form: Form, lines: (usize, usize), ask: Ask) -> Result<Found> {
    let found = |content| Found { lines: Some(lines), form, content, seat: None };
    if let Some(length) = other_table(&bytes) {
        let signature = signature(&bytes);
        return Ok(found(Content::Table { signature, length }));
    }
    match Dump::of_bytes(&bytes, ask.options) {
        Ok(dump) => Ok(found(Content::Dump(dump))),
        Err(DumpError::Unrecognised { .. }) => Ok(found(Content::Unknown { length: bytes.len() })),
        // The kind that is asked for may be another block's.
        Err(_) if ask.options.kind.is_some() && Dump::kind_of(&bytes) != ask.options.kind => {
            Ok(found(Content::Unknown { length: bytes.len() }))
        }
        Err(error) => Err(CaptureError::At { line: lines.0, form, error }),
    }
}
