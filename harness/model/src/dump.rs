//! Reads register dumps and tables in the forms that people have them in, and says what they mean:
//! as text, as JSON, and as what differs between two.
//!
//! **Invariant**: a [`Dump`] has been judged as a whole before anything of it is printed. What
//! cannot be read is one error with its offset; a rule that is broken in something readable is a
//! `problem` in the text.

mod bits;
mod diff;
pub mod facts;
mod header;
mod input;
mod range;

use std::fmt::{self, Display};

use cxl_regs::Component;
use cxl_regs::acpi::TableError;
use cxl_regs::acpi::cedt::{self, Cedt};
use cxl_regs::block;
use cxl_regs::component::{ArrayError, BLOCK_SIZE, CapabilityId, RANGE_SIZE};
use cxl_regs::config::{CONFIG_SIZE, CONVENTIONAL_SIZE};
use cxl_regs::text::ConfigText;
use cxl_regs::text::{HdmProblem, HdmText};

use crate::fabric::HdmImage;
pub use bits::{FieldDiff, RegisterDiff};
pub use diff::Change;
use diff::diff;
use facts::Facts;
use input::Section;
pub use input::{InputError, MAX_INPUT};
use range::CacheMemRange;

/// What a dump is a dump of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The component register block of a device, port or host bridge.
    Component,
    /// Its CXL.cache/mem range.
    Cachemem,
    /// A bare HDM Decoder Capability Structure.
    Hdm,
    /// Configuration space of functions.
    Config,
    /// A CEDT, from its table header on.
    Cedt,
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Component => "a component register block",
            Self::Cachemem => "a CXL.cache/mem range",
            Self::Hdm => "an HDM decoder structure",
            Self::Config => "configuration space",
            Self::Cedt => "a CEDT",
        })
    }
}

/// Why input is not a dump that can be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DumpError {
    /// The text round the bytes is broken.
    Input(InputError),
    /// Nothing tells what it is.
    Unrecognised {
        /// The number of bytes.
        length: usize,
        /// The first of them; 0 where there are none.
        start: [u8; 4],
    },
    /// It has another size than all of its kind have.
    Size {
        /// The kind.
        kind: Kind,
        /// The sizes that there are.
        expected: &'static [usize],
        /// The size that was found.
        found: usize,
        /// Whether something that only such a dump has says that it is one.
        sure: bool,
    },
    /// The text is that of `lspci`, which prints configuration space only.
    Addresses {
        /// The kind that was asked for.
        kind: Kind,
    },
    /// Nothing answers where the function should be.
    NoFunction {
        /// The dword at offset 0.
        found: u32,
    },
    /// There is no capability array.
    Array {
        /// Where it should be.
        offset: usize,
        /// What is wrong with it.
        error: ArrayError,
    },
    /// It is no HDM structure, or only a part of one.
    Hdm(HdmProblem),
    /// It is no table, or only a part of one.
    Table(TableError),
    /// It is one function of several.
    Function {
        /// Its address.
        address: String,
        /// What is wrong with it.
        error: Box<Self>,
    },
    /// It is of another kind than was asked for, by a signature that the kind asked for lacks.
    OtherKind {
        /// The kind asked for.
        expected: Kind,
        /// The kind with the signature.
        found: Kind,
    },
    /// It makes sense with the bytes of every dword in reverse order.
    Turned {
        /// What it then is.
        kind: Kind,
    },
    /// Two dumps to be compared are not of one kind.
    KindsDiffer {
        /// The kind of the old one.
        old: Kind,
        /// The kind of the new one.
        new: Kind,
    },
}

impl Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(error) => error.fmt(f),
            Self::Unrecognised { length, start } => {
                write!(f, "offset 0x0: expected a register dump, found {length} bytes ")?;
                let [a, b, c, d] = start;
                if *start == [0xFF; 4] {
                    f.write_str("that start with all-ones: nothing answered where they were read")
                } else if start
                    .iter()
                    .all(|byte| byte.is_ascii_whitespace() || byte.is_ascii_graphic())
                {
                    let start = start.escape_ascii();
                    write!(
                        f,
                        "of text that start with \"{start}\" (cxl-harness decode --help lists \
                               what is read)"
                    )
                } else {
                    write!(
                        f,
                        "that start with {a:02x} {b:02x} {c:02x} {d:02x} (--kind says what \
                               they are, --form how digits are read)"
                    )
                }
            }
            Self::Size { kind, expected, found, .. } => {
                let offset = expected.iter().copied().fold(*found, usize::min);
                write!(f, "offset {offset:#x}: expected {kind} of ")?;
                for (index, size) in expected.iter().enumerate() {
                    write!(f, "{}{size}", if index == 0 { "" } else { " or " })?;
                }
                write!(f, " bytes, found {found}")
            }
            Self::Addresses { kind } => {
                write!(f, "offset 0x0: expected {kind}, found lspci text: configuration space")
            }
            Self::NoFunction { found } => write!(
                f,
                "offset 0x0: expected a vendor and a device ID, found {found:#010x}: \
                 nothing answers"
            ),
            Self::Array { offset, error } => write!(f, "offset {offset:#x}: {error}"),
            Self::Hdm(problem) => {
                let offset = match problem {
                    HdmProblem::Truncated { have, .. } => *have,
                    _ => 0,
                };
                write!(f, "offset {offset:#x}: {problem}")
            }
            Self::Table(error) => {
                write!(f, "offset {:#x}: expected ", error.offset())?;
                match error {
                    TableError::NoHeader { expected, found } => {
                        write!(f, "a table header of {expected:#x} bytes, found {found:#x}")
                    }
                    TableError::Signature { expected, found } => write!(
                        f,
                        "signature {}, found \"{}\"",
                        expected.escape_ascii(),
                        found.escape_ascii()
                    ),
                    TableError::Length { least, found } => {
                        write!(f, "a table of at least {least:#x} bytes, found length {found:#x}")
                    }
                    TableError::Truncated { expected, found } => {
                        write!(f, "a table of {expected:#x} bytes, found {found:#x}")
                    }
                    TableError::Checksum { expected, found } => {
                        write!(f, "checksum {expected:#04x}, found {found:#04x}")
                    }
                    TableError::Ragged { entry, length } => {
                        write!(f, "whole entries of {entry} bytes, found length {length:#x}")
                    }
                    other => write!(f, "a sound table, found one in which {other}"),
                }
            }
            Self::Function { address, error } => write!(f, "{address}: {error}"),
            Self::OtherKind { expected, found } => {
                write!(f, "offset 0x0: expected {expected}, found {found}")
            }
            Self::Turned { kind } => write!(
                f,
                "offset 0x0: expected bytes in order of address, found {kind} with the bytes of \
                 each dword reversed (as of xxd -e)"
            ),
            Self::KindsDiffer { old, new } => {
                write!(f, "offset 0x0: expected {old} as in the old dump, found {new}")
            }
        }
    }
}

impl std::error::Error for DumpError {}

impl DumpError {
    /// Whether the input is a dump for sure, if a broken one: by something that only dumps have. Digits
    /// that cannot be read, and bytes that are as many as some dumps have, may be anything.
    pub fn is_recognised(&self) -> bool {
        match self {
            Self::Unrecognised { .. }
            | Self::Input(_)
            | Self::NoFunction { .. }
            | Self::Array { .. }
            | Self::Size { kind: Kind::Config | Kind::Component, sure: false, .. } => false,
            Self::Function { error, .. } => error.is_recognised(),
            _ => true,
        }
    }
}

/// How a dump is to be read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What it is; recognised otherwise.
    pub kind: Option<Kind>,
    /// The kind of component that HDM decoders are of; recognised otherwise.
    pub component: Option<Component>,
    /// Print what cannot be read as a whole, as far as it goes.
    pub force: bool,
}

/// A dump that can be printed.
#[derive(Debug)]
pub struct Dump {
    kind: Kind,
    component: Option<Component>,
    sections: Vec<Section>,
}

impl Dump {
    /// The dump in some input: raw bytes or text.
    pub fn read(input: &[u8], options: Options) -> Result<Self, DumpError> {
        let sections = input::sections(input).map_err(DumpError::Input)?;
        let turned = || {
            let turned: Vec<_> = sections.iter().map(Section::turned).collect();
            Self::of(&turned, options).ok().filter(|dump| !dump.is_doubtful())
        };
        let raw = sections.first().is_some_and(|section| section.bytes == input);
        match (Self::of(&sections, options), options.kind) {
            // Any bytes are configuration space to whoever says so, those of a tool's numbers too.
            (Ok(dump), Some(_)) if dump.is_doubtful() && !(raw && options.force) => {
                match turned() {
                    Some(turned) => Err(DumpError::Turned { kind: turned.kind }),
                    None => Ok(dump),
                }
            }
            // Whoever names the kind gets what is wrong with it.
            (Err(error), None) => Err(match turned() {
                Some(turned) => DumpError::Turned { kind: turned.kind },
                None => error,
            }),
            (read, _) => read,
        }
    }

    /// Whether nothing but the bytes themselves can be meant: no line of them is digits.
    pub(crate) fn is_raw(input: &[u8]) -> bool {
        matches!(input::sections(input).as_deref(), Ok([one]) if one.bytes == input)
    }

    /// What is said of characters that are no dump.
    pub(crate) fn no_dump(input: &[u8]) -> DumpError {
        let start = std::array::from_fn(|at| input.get(at).copied().unwrap_or(0));
        DumpError::Unrecognised { length: input.len(), start }
    }

    /// The dump in bytes that somebody else has taken out of their text.
    pub fn of_bytes(bytes: &[u8], options: Options) -> Result<Self, DumpError> {
        Self::of(&[Section { address: None, bytes: bytes.to_vec() }], options)
    }

    /// The dump in the configuration space of functions, each with its address.
    pub fn of_functions(
        functions: Vec<(Option<String>, Vec<u8>)>,
        options: Options,
    ) -> Result<Self, DumpError> {
        let sections = functions.into_iter().map(|(address, bytes)| Section { address, bytes });
        let kind = options.kind.or(Some(Kind::Config));
        Self::of(&sections.collect::<Vec<_>>(), Options { kind, ..options })
    }

    /// What bytes are recognised as, whether they are sound or not.
    pub fn kind_of(bytes: &[u8]) -> Option<Kind> {
        Kind::of(&Section { address: None, bytes: bytes.to_vec() }).ok()
    }

    /// Whether a word is a PCI address as `lspci` prints it.
    pub fn is_address(word: &str) -> bool {
        input::is_address(word)
    }

    /// The dump in these sections.
    fn of(sections: &[Section], options: Options) -> Result<Self, DumpError> {
        let first = sections.first().ok_or(DumpError::Input(InputError::Empty))?;
        let kind = match options.kind {
            Some(kind) => kind,
            None => Kind::of(first)?,
        };
        let dump = Self { kind, component: options.component, sections: sections.to_vec() };
        if !options.force {
            dump.judge_all()?;
        }
        Ok(dump)
    }

    /// Whether it is configuration space only because somebody said so.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.kind == Kind::Config
            && self
                .sections
                .iter()
                .all(|section| section.address.is_none() && !header::is_plausible(&section.bytes))
    }

    /// What it is a dump of.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether every section can be read to its end.
    fn judge_all(&self) -> Result<(), DumpError> {
        self.sections.iter().try_for_each(|section| {
            self.judge(section).map_err(|error| match (&section.address, error) {
                (Some(address), error) if self.kind == Kind::Config => {
                    DumpError::Function { address: address.clone(), error: Box::new(error) }
                }
                (_, error) => error,
            })
        })
    }

    /// Whether a section can be read to its end.
    fn judge(&self, section: &Section) -> Result<(), DumpError> {
        let (kind, bytes) = (self.kind, section.bytes.as_slice());
        if section.address.is_some() && kind != Kind::Config {
            return Err(DumpError::Addresses { kind });
        }
        let (expected, found) = (kind.sizes(), bytes.len());
        if !expected.is_empty() && !expected.contains(&found) {
            let sure = kind == Kind::Component && self.range(bytes).array().is_ok();
            return Err(DumpError::Size { kind, expected, found, sure });
        }
        match kind {
            Kind::Component | Kind::Cachemem => {
                let offset = if kind == Kind::Component { range::start() } else { 0 };
                let array = self.range(bytes).array();
                array.map_err(|error| DumpError::Array { offset, error })
            }
            Kind::Hdm => {
                // Any bytes have some count of decoders, a table's and a capability array's too.
                if let Some(found) = Kind::signed(bytes) {
                    return Err(DumpError::OtherKind { expected: kind, found });
                }
                match HdmText::new(bytes, self.component).problem() {
                    Some(problem) => Err(DumpError::Hdm(problem)),
                    None => Ok(()),
                }
            }
            // Among the functions of a whole machine, one may be asleep.
            Kind::Config if section.address.is_none() && absent(bytes) => {
                Err(DumpError::NoFunction { found: block::image(bytes)(0) })
            }
            Kind::Config => Ok(()),
            // A table that is as long as it says, and sums to 0, is what somebody wrote: a record of a wrong
            // length is a problem of it like others, and the records before it are good.
            Kind::Cedt => Cedt::read(bytes).map(|_| ()).map_err(DumpError::Table),
        }
    }

    /// The CXL.cache/mem range of a component block, or what is that range itself.
    fn range<'a>(&self, bytes: &'a [u8]) -> CacheMemRange<'a> {
        match self.kind {
            Kind::Component => CacheMemRange::of_block(bytes, self.component),
            _ => CacheMemRange { bytes, component: self.component },
        }
    }

    /// The JSON form, with a newline at its end. What cannot be read as a whole has none.
    pub fn json(&self) -> Result<String, DumpError> {
        Ok(self.facts()?.pretty())
    }

    /// The JSON form, as a value.
    pub fn value(&self) -> Result<serde_json::Value, DumpError> {
        Ok(self.facts()?.value())
    }

    /// What the JSON form is made of: keys and values in their order.
    pub fn facts(&self) -> Result<Facts<'_>, DumpError> {
        self.judge_all()?;
        Ok(Facts(self))
    }

    /// The parts of it: each PCI address in `lspci` text with its bytes, otherwise one without.
    pub fn sections(&self) -> impl Iterator<Item = (Option<&str>, &[u8])> {
        self.sections.iter().map(|section| (section.address.as_deref(), section.bytes.as_slice()))
    }

    /// A CEDT, and the bytes behind its end, if there are any.
    pub fn behind_the_table(&self) -> Option<(&[u8], &[u8])> {
        let bytes = self.sections.first().filter(|_| self.kind == Kind::Cedt)?.bytes.as_slice();
        let (length, _) = bytes.get(4..)?.split_first_chunk()?;
        let (table, behind) = bytes.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        (!table.is_empty() && !behind.is_empty()).then_some((table, behind))
    }

    /// The HDM decoders in it as dwords, and what they are of; `None` if it holds none.
    pub fn hdm(&self) -> Option<(HdmImage, Component)> {
        let bytes = self.bytes();
        let bytes = match self.kind {
            Kind::Hdm => bytes,
            Kind::Component | Kind::Cachemem => {
                self.range(bytes).structure(CapabilityId::HdmDecoder)?
            }
            Kind::Config | Kind::Cedt => return None,
        };
        let (component, _) = HdmText::new(bytes, self.component).component();
        Some((HdmImage::read(bytes), component))
    }

    /// The bytes of a dump that is not one of several.
    fn bytes(&self) -> &[u8] {
        self.sections.first().map_or(&[], |section| &section.bytes)
    }

    /// What moved from this dump to another, a line each; empty if nothing did.
    pub fn diff(&self, new: &Self) -> Result<Vec<String>, DumpError> {
        Ok(self.changes(new)?.into_iter().map(|change| change.text).collect())
    }

    /// What moved from this dump to another; empty if nothing did.
    pub fn changes(&self, new: &Self) -> Result<Vec<Change>, DumpError> {
        if self.kind != new.kind {
            return Err(DumpError::KindsDiffer { old: self.kind, new: new.kind });
        }
        let mut changes = diff(&self.facts()?.value(), &new.facts()?.value());
        if changes.is_empty() {
            // The functions are the same ones, or there would be changes.
            changes.extend(self.sections.iter().zip(&new.sections).filter_map(unnamed));
        }
        Ok(changes)
    }

    /// The registers that hold other bits in another dump of the same kind.
    pub fn registers_moved(&self, new: &Self) -> Vec<RegisterDiff> {
        if self.kind == new.kind { bits::diff(self, new) } else { Vec::new() }
    }
}

/// Whether nothing answers at a function: its vendor and device ID read as all-ones or as 0.
fn absent(space: &[u8]) -> bool {
    matches!(block::image(space)(0), 0 | u32::MAX)
}

impl Kind {
    /// The sizes that dumps of the kind have; none if they say it themselves.
    fn sizes(self) -> &'static [usize] {
        match self {
            Self::Component => &[BLOCK_SIZE as usize],
            Self::Cachemem => &[RANGE_SIZE as usize],
            Self::Config => &[64, CONVENTIONAL_SIZE as usize, CONFIG_SIZE as usize],
            Self::Hdm | Self::Cedt => &[],
        }
    }

    /// The kind whose signature the bytes start with.
    fn signed(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(&cedt::SIGNATURE) {
            Some(Self::Cedt)
        } else if (CacheMemRange { bytes, component: None }).array().is_ok() {
            Some(Self::Cachemem)
        } else {
            None
        }
    }

    /// Recognises a dump by its first bytes, then by its size.
    fn of(section: &Section) -> Result<Self, DumpError> {
        let bytes = section.bytes.as_slice();
        let size = |kind: Self| kind.sizes().contains(&bytes.len());
        let component = None;
        // The numbers of something with a signature may look like a function as well.
        let turned_is_signed = || Self::signed(&section.turned().bytes).is_some();
        if section.address.is_some() {
            Ok(Self::Config)
        } else if let Some(kind) = Self::signed(bytes) {
            Ok(kind)
        } else if HdmText::new(bytes, component).plausible() {
            Ok(Self::Hdm)
        } else if CacheMemRange::of_block(bytes, component).array().is_ok() || size(Self::Component)
        {
            Ok(Self::Component)
        } else if size(Self::Config)
            && (header::is_silent(bytes) || header::is_plausible(bytes) && !turned_is_signed())
        {
            Ok(Self::Config)
        } else {
            Err(Dump::no_dump(bytes))
        }
    }
}

/// Says that bytes differ though no fact does: bits without a name, or records in another order.
fn unnamed((old, new): (&Section, &Section)) -> Option<Change> {
    let mut changed =
        old.bytes.iter().zip(&new.bytes).zip(0..).filter(|((old, new), _)| old != new);
    let ((from, to), offset) = changed.next()?;
    let address = old.address.as_ref().map_or(String::new(), |address| format!("{address} "));
    let more = match changed.count() {
        0 => String::new(),
        1 => " and 1 more byte".to_owned(),
        count => format!(" and {count} more bytes"),
    };
    let what = format!("{address}no fact, but byte {offset:#x}");
    let text = format!("{what} {from:#04x} -> {to:#04x}{more}");
    let [old, new] = [from, to].map(|byte| format!("{byte:#04x}").into());
    Some(Change { what, old, new, text })
}

/// The text of registers of which there are `length` bytes, of `whole` in the dump. The readers take what
/// is behind an end for all-ones, and nobody has read that anywhere.
fn ending(
    f: &mut fmt::Formatter<'_>,
    text: &dyn Display,
    length: usize,
    whole: usize,
) -> fmt::Result {
    const ALL_ONES: &str = " reads as all-ones: nothing answers";
    writeln!(
        f,
        "  {:<17} the dump ends at {whole:#x}: what is behind it is not known, and stands here as all-ones",
        "problem"
    )?;
    let behind = |what: &str| {
        let word = what.rsplit(' ').next().unwrap_or_default();
        let offset = match word.strip_prefix("0x") {
            Some(digits) => usize::from_str_radix(digits, 16).ok(),
            // An entry of the capability array, a dword each behind the first.
            None => word.parse::<usize>().ok().map(|entry| 4 * entry),
        };
        offset.is_some_and(|offset| offset + 4 > length)
    };
    for line in text.to_string().lines() {
        match line.strip_suffix(ALL_ONES) {
            Some(what) if behind(what) => {
                writeln!(f, "{what} is behind the end of the dump: not known")?;
            }
            _ if line == "no hdm decoders" => writeln!(f, "no hdm decoders in these bytes")?,
            _ => writeln!(f, "{line}")?,
        }
    }
    Ok(())
}

impl Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Section { address, bytes }) in self.sections.iter().enumerate() {
            if let Some(address) = address {
                writeln!(f, "{}{address}", if index == 0 { "" } else { "\n" })?;
            }
            match self.kind {
                Kind::Component | Kind::Cachemem => {
                    let (kind, expected, found) = (self.kind, self.kind.sizes(), bytes.len());
                    if !expected.contains(&found) {
                        let short = DumpError::Size { kind, expected, found, sure: true };
                        writeln!(f, "  {:<17} {short}", "problem")?;
                    }
                    let range = self.range(bytes);
                    if expected.contains(&found) {
                        range.fmt(f)?;
                    } else if !range.bytes.is_empty() {
                        ending(f, &range, range.bytes.len(), found)?;
                    }
                }
                Kind::Hdm => HdmText::new(bytes, self.component).fmt(f)?,
                Kind::Config if absent(bytes) => writeln!(f, "no function: nothing answers")?,
                // Lone config space of a size that none has is printed by force alone.
                Kind::Config if !Kind::Config.sizes().contains(&bytes.len()) => {
                    ending(f, &ConfigText(bytes), bytes.len(), bytes.len())?;
                }
                Kind::Config => ConfigText(bytes).fmt(f)?,
                Kind::Cedt => cedt::Text(bytes).fmt(f)?,
            }
        }
        Ok(())
    }
}
