//! The linter's input out of files: dumps by themselves, or a set that says which dump is what.
//!
//! A set is a TOML file. Only what is known has to be in it:
//!
//! ```toml
//! images = "board 7, after the firmware"   # what they are; this key makes the file a set
//! cedt = "cedt.dat"
//! prm = true                               # the platform's PRM translates device addresses
//!
//! [[bridge]]
//! uid = 12                                 # ACPI _UID; name: hb0, hb1, ...
//! registers = "hb0.bin"                    # component block, cache/mem range or HDM structure
//!
//! [[port]]                                 # root ports, and downstream ports of switches
//! below = "hb0"                            # name: port0, port1, ...
//! number = 0                               # Port Number, Link Capabilities 31:24
//!
//! [[device]]
//! below = "port0"                          # name: mem0, mem1, ...
//! registers = "mem0.bin"                   # "none": it has none
//! config = "mem0.lspci"
//! volatile = "512MiB"
//! ```
//!
//! `[[switch]]` has `below` and `registers`. All of them take `name`, and `address` as Linux prints
//! it (`pci0000:0c`, `0000:0d:00.0`); devices also `persistent` and `status` (the Memory Device
//! Status dword); a bridge of CXL 1.1 has `rcrb` instead of `registers`: the dwords at 0x00, 0x04, 0x10 and
//! 0x14. `kernel` is the version of a Linux that ran there, `witness` a list of files with what it showed
//! (sysfs, `cxl list`, `/proc/iomem`), which stands in for registers that are not given. What could not be
//! read says `[[withheld]]`, with `what` and `why`.
//!
//! **Invariant**: every name leads to one thing, and every file is read once and whole, or there is
//! an error that names it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use cxl_regs::Component;
use cxl_regs::acpi::TableError;
use serde::Deserialize;
use toml::Spanned;

use super::input::{
    Bridge, Config, Device, Input, MEMORY_DEVICE, Port, Registers, Switch, shown_in_part,
};
use super::witness;
use cxl_model::capture::witness::Witness;
use cxl_model::capture::{self, Ask, CaptureError, Content};
use cxl_model::dump::{Dump, DumpError, Kind, Options};
use cxl_model::fabric::{HdmImage, Parent};
use cxl_model::scenario::Bytes;
use cxl_model::typed::{self, place};
use cxl_model::words::on_one_line;

/// Why files are no input for the linter.
#[derive(Debug)]
pub enum ImagesError {
    /// The set is no TOML, or has other keys than a set has.
    Document {
        /// The set.
        file: String,
        /// Where, from 1.
        line: usize,
        /// Where, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// Something that a set says, and where.
    At {
        /// The set.
        set: String,
        /// Where, from 1.
        line: usize,
        /// Where, from 1.
        column: usize,
        /// What is wrong there.
        error: Box<Self>,
    },
    /// A name that nothing has.
    NoSuch {
        /// The name.
        name: String,
        /// What would have been good.
        expected: &'static str,
        /// What there is.
        known: Vec<String>,
    },
    /// A name that two things have.
    Twice {
        /// The name.
        name: String,
    },
    /// What only one thing can have, and two have.
    Taken {
        /// What it is.
        what: &'static str,
        /// Its value.
        found: String,
        /// Who has it already.
        by: String,
    },
    /// An address that is none.
    NoAddress {
        /// What would have been good.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A file that cannot be read.
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file that is no dump.
    Dump {
        /// The file.
        file: PathBuf,
        /// Why.
        error: DumpError,
    },
    /// A file with what a Linux showed that cannot be read.
    Witness {
        /// The file.
        file: PathBuf,
        /// Why.
        error: CaptureError,
    },
    /// A dump of another kind.
    Kind {
        /// The file.
        file: PathBuf,
        /// What would have been good.
        expected: &'static str,
        /// What it is.
        found: Kind,
    },
    /// A dump without decoders, where there have to be some.
    NoDecoders {
        /// The file.
        file: PathBuf,
    },
    /// Configuration space without the device.
    NoFunction {
        /// The file.
        file: PathBuf,
        /// Its address, if it was given.
        wanted: Option<String>,
    },
    /// Two functions with one address.
    SecondFunction {
        /// Where the second one is.
        place: String,
        /// The address.
        address: String,
        /// Where the first one is.
        first: String,
    },
    /// Two tables.
    SecondTable {
        /// The file.
        file: PathBuf,
    },
}

impl fmt::Display for ImagesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document { file, line, column, message } => {
                write!(f, "{file}:{line}:{column}: {message}")
            }
            Self::At { set, line, column, error } => write!(f, "{set}:{line}:{column}: {error}"),
            Self::NoSuch { name, expected, known } if known.is_empty() => {
                write!(f, "expected the name of {expected}, and the set has none; found \"{name}\"")
            }
            Self::NoSuch { name, expected, known } => write!(
                f,
                "expected the name of {expected}, found \"{name}\"; there are: {}",
                known.join(", ")
            ),
            Self::Twice { name } => {
                write!(f, "expected different names, found \"{name}\" twice")
            }
            Self::Taken { what, found, by } => {
                write!(f, "expected {what} that is free, found {found}, which {by} has")
            }
            Self::NoAddress { expected, found } => {
                write!(f, "`address`: expected {expected}, found \"{found}\"")
            }
            Self::Io { file, error } => write!(f, "{}: {error}", file.display()),
            Self::Dump { file, error } => write!(f, "{}: {error}", file.display()),
            Self::Witness { file, error } => write!(f, "{}: {error}", file.display()),
            Self::Kind { file, expected, found } => {
                write!(f, "{}: expected {expected}, found {found}", file.display())
            }
            Self::NoDecoders { file } => {
                write!(f, "{}: expected HDM decoders, found none", file.display())
            }
            Self::NoFunction { file, wanted: Some(wanted) } => {
                write!(f, "{}: expected the function {wanted}, found others", file.display())
            }
            Self::NoFunction { file, wanted: None } => {
                write!(f, "{}: expected a CXL memory device, found none", file.display())
            }
            Self::SecondFunction { place, address, first } => write!(
                f,
                "{place}: expected one function {address}, found another one than in {first}"
            ),
            Self::SecondTable { file } => {
                write!(f, "{}: expected one CEDT, found a second one", file.display())
            }
        }
    }
}

impl std::error::Error for ImagesError {}

type Result<T> = std::result::Result<T, ImagesError>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    images: String,
    cedt: Option<Spanned<PathBuf>>,
    kernel: Option<String>,
    prm: Option<bool>,
    #[serde(default)]
    witness: Vec<Spanned<PathBuf>>,
    #[serde(default)]
    bridge: Vec<BridgeEntry>,
    #[serde(default)]
    port: Vec<PortEntry>,
    #[serde(default)]
    switch: Vec<SwitchEntry>,
    #[serde(default)]
    device: Vec<DeviceEntry>,
    #[serde(default)]
    withheld: Vec<Withheld>,
}

/// Something of a machine that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withheld {
    /// What it is.
    pub what: String,
    /// Why not, and what to do.
    pub why: String,
}

/// A machine as a set of files has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images {
    /// What they are.
    pub subject: String,
    /// The version of the Linux that ran there.
    pub kernel: Option<String>,
    /// The machine, by registers and tables alone.
    pub input: Input,
    /// What a Linux showed of it.
    pub witness: Option<Witness>,
    /// What could not be read.
    pub withheld: Vec<Withheld>,
}

impl Images {
    /// The machine with what a Linux showed in the place of registers that are not given, and what is to be
    /// known of it.
    pub fn with_witness(&self) -> (Input, Vec<String>) {
        let mut input = self.input.clone();
        let withheld = self.withheld.iter();
        let mut remarks: Vec<String> =
            withheld.map(|Withheld { what, why }| format!("{what}: withheld: {why}")).collect();
        if let Some(seen) = &self.witness {
            remarks.extend(witness::fill(&mut input, seen));
        }
        (input, remarks)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BridgeEntry {
    name: Option<Spanned<String>>,
    uid: Option<Spanned<u32>>,
    address: Option<Spanned<String>>,
    registers: Option<Spanned<PathBuf>>,
    rcrb: Option<[u32; 4]>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortEntry {
    name: Option<Spanned<String>>,
    below: Spanned<String>,
    number: u8,
    address: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchEntry {
    name: Option<Spanned<String>>,
    below: Spanned<String>,
    address: Option<Spanned<String>>,
    registers: Option<Spanned<PathBuf>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceEntry {
    name: Option<Spanned<String>>,
    below: Option<Spanned<String>>,
    address: Option<Spanned<String>>,
    registers: Option<Spanned<PathBuf>>,
    config: Option<Spanned<PathBuf>>,
    volatile: Option<Bytes>,
    persistent: Option<Bytes>,
    status: Option<u32>,
}

/// A PCI address with its domain, which `lspci` leaves out where it is 0.
pub(super) fn in_full(address: &str) -> String {
    if address.matches(':').count() == 1 { format!("0000:{address}") } else { address.to_owned() }
}

/// Whether Linux calls a root bus so: `pci0000:0c`, or `ACPI0016:00`.
fn is_root(text: &str) -> bool {
    let hex = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_hexdigit());
    let root = text.strip_prefix("pci").or(text.strip_prefix("ACPI"));
    root.and_then(|root| root.split_once(':')).is_some_and(|(one, other)| hex(one) && hex(other))
}

/// Of the functions of a dump the one at an address; without one the memory device, or the only
/// function that there is.
fn function(dump: &Dump, wanted: Option<&str>) -> Option<(Option<String>, Config, usize)> {
    let all = || {
        dump.sections()
            .map(|(address, space)| (address.map(in_full), Config::read(space), space.len()))
    };
    let one = dump.sections().count() == 1;
    all().find(|(address, config, _)| match (wanted, address) {
        (Some(wanted), Some(address)) => wanted == address,
        _ => one || config.class == MEMORY_DEVICE,
    })
}

/// The one dump that a text of any public form holds.
fn alone(bytes: &[u8], options: Options) -> Option<Dump> {
    let ask = Ask { options, ..Ask::default() };
    let capture = capture::read(bytes, ask).ok()?;
    // What was not read of it, or not as it stands, is for whoever can say so.
    if !capture.remarks.is_empty() {
        return None;
    }
    let mut found = capture.found.into_iter();
    match (found.next()?.content, found.next()) {
        (Content::Dump(dump), None) => Some(dump),
        _ => None,
    }
}

/// Why registers that were given say nothing.
pub(super) const SILENT: &str = "they read as all-ones: nothing answers";

/// Reads a file.
pub type Reader<'r> = &'r mut dyn FnMut(&Path) -> std::io::Result<Vec<u8>>;

/// A set that is being read.
struct Set<'r> {
    file: &'r str,
    text: &'r str,
    directory: &'r Path,
    read: Reader<'r>,
    /// Configuration space that was shown without its DVSECs, and registers that do not answer.
    withheld: Vec<Withheld>,
    /// Addresses, and who has them.
    addresses: Vec<(String, String)>,
}

impl Input {
    /// Whether a text is an image set, and not a scenario.
    pub fn is_set(text: &str) -> bool {
        let key = |line: &str| {
            let key = line.trim_start().strip_prefix("images");
            key.is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        text.lines().take_while(|line| !line.trim_start().starts_with('[')).any(key)
    }

    /// Out of a set; the files that it names are looked for beside it. What a Linux showed stands in for
    /// registers that are not given.
    pub fn of_set(text: &str, file: &Path, read: Reader<'_>) -> Result<Self> {
        Images::read(text, file, read).map(|images| images.with_witness().0)
    }

    /// A dump in a file's bytes. A table that Linux reads though its checksum is wrong is one here too.
    pub fn dump(bytes: &[u8], options: Options) -> std::result::Result<Dump, DumpError> {
        Dump::read(bytes, options).or_else(|error| match error {
            DumpError::Table(TableError::Checksum { .. }) => {
                Dump::read(bytes, Options { force: true, ..options })
            }
            other => match alone(bytes, options) {
                Some(dump) => Ok(dump),
                None => Err(other),
            },
        })
    }
}

impl Images {
    /// Reads a set; the files that it names are looked for beside it.
    pub fn read(text: &str, file: &Path, read: Reader<'_>) -> Result<Self> {
        let name = file.display().to_string();
        let document: Document = typed::read(text).map_err(|error| {
            let (line, column) = error.place(text);
            ImagesError::Document { file: name.clone(), line, column, message: error.message }
        })?;
        let directory = file.parent().unwrap_or(Path::new(""));
        Set { file: &name, text, directory, read, withheld: Vec::new(), addresses: Vec::new() }
            .images(document)
    }
}

impl Set<'_> {
    fn images(mut self, mut document: Document) -> Result<Images> {
        let files = std::mem::take(&mut document.witness);
        let mut seen = Witness::default();
        for file in &files {
            let shown = self.witness(file.get_ref());
            seen.merge(shown.map_err(|error| self.at(file.span(), error))?);
        }
        let subject = on_one_line(&document.images).into_owned();
        let kernel = document.kernel.take();
        let mut withheld = std::mem::take(&mut document.withheld);
        let input = self.input(document)?;
        withheld.append(&mut self.withheld);
        let witness = Some(seen).filter(|seen| !seen.is_empty());
        Ok(Images { subject, kernel, input, witness, withheld })
    }

    /// What a file shows of a machine; one without anything of it is none.
    fn witness(&mut self, file: &Path) -> Result<Witness> {
        let file = self.directory.join(file);
        let bytes =
            (self.read)(&file).map_err(|error| ImagesError::Io { file: file.clone(), error })?;
        let mut seen = Witness::default();
        let capture = match capture::read(&bytes, Ask::default()) {
            Ok(capture) => capture,
            Err(error) => return Err(ImagesError::Witness { file, error }),
        };
        for found in capture.found {
            if let Content::Witness(witness) = found.content {
                seen.merge(witness);
            }
        }
        Ok(seen)
    }

    fn dump(
        &mut self,
        file: &Path,
        kind: Option<Kind>,
        component: Option<Component>,
    ) -> Result<Dump> {
        let file = self.directory.join(file);
        let bytes =
            (self.read)(&file).map_err(|error| ImagesError::Io { file: file.clone(), error })?;
        Input::dump(&bytes, Options { kind, component, force: false })
            .map_err(|error| ImagesError::Dump { file, error })
    }

    /// What is wrong with something that stands at a place of the set.
    fn at(&self, span: Range<usize>, error: ImagesError) -> ImagesError {
        let (line, column) = place(self.text, span.start);
        ImagesError::At { set: self.file.to_owned(), line, column, error: Box::new(error) }
    }

    fn registers(
        &mut self,
        file: Option<Spanned<PathBuf>>,
        component: Component,
    ) -> Result<Registers> {
        let Some(file) = file else { return Ok(Registers::Unknown) };
        let span = file.span();
        self.registers_of(file.into_inner(), component).map_err(|error| self.at(span, error))
    }

    fn registers_of(&mut self, file: PathBuf, component: Component) -> Result<Registers> {
        if file.as_os_str() == "none" {
            return Ok(Registers::NoBlock);
        }
        let dump = self.dump(&file, None, Some(component))?;
        if !matches!(dump.kind(), Kind::Component | Kind::Cachemem | Kind::Hdm) {
            let expected = "a component register block, a CXL.cache/mem range or an HDM structure";
            let file = self.directory.join(file);
            return Err(ImagesError::Kind { file, expected, found: dump.kind() });
        }
        let hdm = dump.hdm().map(|(image, _)| image);
        if hdm.as_ref().is_some_and(HdmImage::is_silent) {
            let what = format!("registers in {}", file.display());
            self.withheld.push(Withheld { what, why: SILENT.to_owned() });
            return Ok(Registers::Unknown);
        }
        Ok(hdm.map_or(Registers::NoHdm, Registers::Hdm))
    }

    /// Where something sits, as Linux prints it, if that is said: nothing else is there.
    fn address(
        &mut self,
        given: Option<Spanned<String>>,
        name: &str,
        root: bool,
    ) -> Result<Option<String>> {
        let Some(given) = given else { return Ok(None) };
        let (expected, good): (_, fn(&str) -> bool) = match root {
            true => ("a root bus as Linux prints it, such as pci0000:0c", is_root),
            false => ("a PCI address as Linux prints it, such as 0000:0d:00.0", Dump::is_address),
        };
        if !good(given.get_ref()) {
            let found = on_one_line(given.get_ref()).into_owned();
            return Err(self.at(given.span(), ImagesError::NoAddress { expected, found }));
        }
        let address = if root { given.get_ref().clone() } else { in_full(given.get_ref()) };
        if let Some((found, by)) = self.addresses.iter().find(|(other, _)| *other == address) {
            let (found, by) = (found.clone(), by.clone());
            let error = ImagesError::Taken { what: "an address", found, by };
            return Err(self.at(given.span(), error));
        }
        self.addresses.push((address.clone(), name.to_owned()));
        Ok(Some(address))
    }

    fn input(&mut self, document: Document) -> Result<Input> {
        // Every name, and where it stands, or what it is the name of.
        let mut names: Vec<(String, Range<usize>)> = Vec::new();
        let mut named = |given: Option<Spanned<String>>, kind: &str, index, of: Range<usize>| {
            let at = given.as_ref().map_or(of, Spanned::span);
            let name = given.map_or_else(|| format!("{kind}{index}"), Spanned::into_inner);
            let name = on_one_line(&name).into_owned();
            names.push((name.clone(), at));
            name
        };
        let mut input = Input { prm: document.prm, ..Input::default() };
        if let Some(file) = document.cedt {
            let dump = self.dump(file.get_ref(), Some(Kind::Cedt), None);
            let dump = dump.map_err(|error| self.at(file.span(), error))?;
            input.cedt = dump.sections().next().map(|(_, bytes)| bytes.to_vec());
        }
        for (index, entry) in document.bridge.into_iter().enumerate() {
            let registers = self.registers(entry.registers, Component::HostBridge)?;
            // A bridge always has a register block; what it can do without is decoders.
            let registers =
                if registers == Registers::NoBlock { Registers::NoHdm } else { registers };
            let registers = entry.rcrb.map_or(registers, Registers::Rcrb);
            let of = entry.uid.as_ref().map_or(0..0, Spanned::span);
            let uid = entry.uid.map(Spanned::into_inner);
            let same = |other: &&Bridge| uid.is_some() && other.uid == uid;
            if let (Some(other), Some(uid)) = (input.bridges.iter().find(same), uid) {
                let (found, by) = (uid.to_string(), other.name.clone());
                return Err(self.at(of, ImagesError::Taken { what: "a UID", found, by }));
            }
            let name = named(entry.name, "hb", index, of);
            let address = self.address(entry.address, &name, true)?;
            input.bridges.push(Bridge { name, uid, address, registers });
        }
        let switches: Vec<_> = document.switch.into_iter().enumerate().collect();
        let switch_names: Vec<_> = switches
            .iter()
            .map(|(index, entry)| named(entry.name.clone(), "switch", *index, entry.below.span()))
            .collect();
        for (index, entry) in document.port.into_iter().enumerate() {
            let below = on_one_line(entry.below.get_ref());
            let bridge = input.bridges.iter().position(|bridge| bridge.name == below);
            let switch = switch_names.iter().position(|name| *name == below);
            let parent = bridge.map(Parent::Bridge).or(switch.map(Parent::Switch));
            let parent = parent.ok_or_else(|| {
                let bridges = input.bridges.iter().map(|bridge| &bridge.name);
                let known = bridges.chain(&switch_names).cloned().collect();
                self.no_such(&entry.below, "a bridge or switch", known)
            })?;
            let name = named(entry.name, "port", index, entry.below.span());
            let address = self.address(entry.address, &name, false)?;
            input.ports.push(Port { name, parent, number: entry.number, address });
        }
        for ((_, entry), name) in switches.into_iter().zip(switch_names) {
            let port = self.port(&input, &entry.below)?;
            let registers = self.registers(entry.registers, Component::UpstreamPort)?;
            let address = self.address(entry.address, &name, false)?;
            input.switches.push(Switch { name, port, address, registers });
        }
        for (index, entry) in document.device.into_iter().enumerate() {
            let port = match &entry.below {
                Some(below) => Some(self.port(&input, below)?),
                None => None,
            };
            // Of one with nothing else to point at, where the file begins.
            let of = entry.below.as_ref().map_or(0..0, Spanned::span);
            let name = named(entry.name, "mem", index, of);
            let given = self.address(entry.address, &name, false)?;
            let (config, address) = match &entry.config {
                Some(file) => {
                    let dump = self.dump(file.get_ref(), Some(Kind::Config), None);
                    let dump = dump.map_err(|error| self.at(file.span(), error))?;
                    let found = function(&dump, given.as_deref());
                    let found = found.ok_or_else(|| {
                        let wanted = given.clone();
                        let path = self.directory.join(file.get_ref());
                        self.at(file.span(), ImagesError::NoFunction { file: path, wanted })
                    })?;
                    let (address, config, bytes) = found;
                    if !config.is_whole() {
                        let file = file.get_ref().display();
                        let what = format!("extended configuration space in {file}");
                        self.withheld.push(Withheld { what, why: shown_in_part(bytes) });
                    }
                    (config.known(), given.or(address))
                }
                None => (None, given),
            };
            let capacity = match (entry.volatile, entry.persistent) {
                (None, None) => None,
                (volatile, persistent) => {
                    let bytes = |bytes: Option<Bytes>| bytes.map_or(0, |Bytes(bytes)| bytes);
                    Some((bytes(volatile), bytes(persistent)))
                }
            };
            input.devices.push(Device {
                name,
                port,
                registers: self.registers(entry.registers, Component::Device)?,
                config,
                capacity,
                status: entry.status,
                address,
            });
        }
        // Sorted by name and then by place: of two the later one is to blame.
        names.sort_unstable_by(|a, b| (&a.0, a.1.start).cmp(&(&b.0, b.1.start)));
        let twice = names.windows(2).find_map(|pair| match pair {
            [first, second] if first.0 == second.0 => Some(second.clone()),
            _ => None,
        });
        match twice {
            Some((name, span)) => Err(self.at(span, ImagesError::Twice { name })),
            None => Ok(input),
        }
    }

    fn port(&self, input: &Input, name: &Spanned<String>) -> Result<usize> {
        let found = input.ports.iter().position(|port| port.name == *name.get_ref());
        found.ok_or_else(|| {
            let known = input.ports.iter().map(|port| port.name.clone()).collect();
            self.no_such(name, "a port", known)
        })
    }

    fn no_such(
        &self,
        name: &Spanned<String>,
        expected: &'static str,
        known: Vec<String>,
    ) -> ImagesError {
        let found = name.get_ref().clone();
        self.at(name.span(), ImagesError::NoSuch { name: found, expected, known })
    }
}
