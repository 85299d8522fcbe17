//! The linter's input out of files: dumps by themselves, or a set that says which dump is what.
//!
//! A set is a TOML file. Only what is known has to be in it:
//!
//! ```toml
//! images = "board 7, after the firmware"   # what they are; this key makes the file a set
//! cedt = "cedt.dat"
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
//! Status dword).
//!
//! **Invariant**: every name leads to one thing, and every file is read once and whole, or there is
//! an error that names it.

use std::fmt;
use std::path::{Path, PathBuf};

use cxl_regs::Component;
use cxl_regs::acpi::TableError;
use serde::Deserialize;

use super::input::{Bridge, Config, Device, Input, MEMORY_DEVICE, Port, Registers, Switch};
use cxl_model::capture::{self, Ask, Content};
use cxl_model::dump::{Dump, DumpError, Kind, Options};
use cxl_model::fabric::Parent;
use cxl_model::scenario::Bytes;

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
    /// A name that nothing has.
    NoSuch {
        /// The set.
        file: String,
        /// The name.
        name: String,
        /// What would have been good.
        expected: &'static str,
    },
    /// A name that two things have.
    Twice {
        /// The set.
        file: String,
        /// The name.
        name: String,
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
            Self::NoSuch { file, name, expected } => {
                write!(f, "{file}: expected the name of {expected}, found \"{name}\"")
            }
            Self::Twice { file, name } => {
                write!(f, "{file}: expected different names, found \"{name}\" twice")
            }
            Self::Io { file, error } => write!(f, "{}: {error}", file.display()),
            Self::Dump { file, error } => write!(f, "{}: {error}", file.display()),
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
    #[serde(rename = "images")]
    _images: String,
    cedt: Option<PathBuf>,
    #[serde(default)]
    bridge: Vec<BridgeEntry>,
    #[serde(default)]
    port: Vec<PortEntry>,
    #[serde(default)]
    switch: Vec<SwitchEntry>,
    #[serde(default)]
    device: Vec<DeviceEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BridgeEntry {
    name: Option<String>,
    uid: u32,
    address: Option<String>,
    registers: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortEntry {
    name: Option<String>,
    below: String,
    number: u8,
    address: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchEntry {
    name: Option<String>,
    below: String,
    address: Option<String>,
    registers: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceEntry {
    name: Option<String>,
    below: Option<String>,
    address: Option<String>,
    registers: Option<PathBuf>,
    config: Option<PathBuf>,
    volatile: Option<Bytes>,
    persistent: Option<Bytes>,
    status: Option<u32>,
}

/// A PCI address with its domain, which `lspci` leaves out where it is 0.
pub(super) fn in_full(address: &str) -> String {
    if address.matches(':').count() == 1 { format!("0000:{address}") } else { address.to_owned() }
}

/// Of the functions of a dump the one at an address; without one the memory device, or the only
/// function that there is.
fn function(dump: &Dump, wanted: Option<&str>) -> Option<(Option<String>, Config)> {
    let all =
        || dump.sections().map(|(address, space)| (address.map(in_full), Config::read(space)));
    let one = dump.sections().count() == 1;
    all().find(|(address, config)| match (wanted, address) {
        (Some(wanted), Some(address)) => wanted == address,
        _ => one || config.class == MEMORY_DEVICE,
    })
}

/// The one dump that a text of any public form holds.
fn alone(bytes: &[u8], options: Options) -> Option<Dump> {
    let ask = Ask { options, ..Ask::default() };
    let mut found = capture::read(bytes, ask).ok()?.found.into_iter();
    match (found.next()?.content, found.next()) {
        (Content::Dump(dump), None) => Some(dump),
        _ => None,
    }
}

/// Reads a file.
pub type Reader<'r> = &'r mut dyn FnMut(&Path) -> std::io::Result<Vec<u8>>;

/// A set that is being read.
struct Set<'r> {
    file: &'r str,
    directory: &'r Path,
    read: Reader<'r>,
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

    /// Out of a set; the files that it names are looked for beside it.
    pub fn of_set(text: &str, file: &Path, read: Reader<'_>) -> Result<Self> {
        let name = file.display().to_string();
        let document: Document = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let before = text.get(..at).unwrap_or_default();
            ImagesError::Document {
                file: name.clone(),
                line: before.matches('\n').count() + 1,
                column: before.rsplit('\n').next().unwrap_or_default().chars().count() + 1,
                message: error.message().to_owned(),
            }
        })?;
        let directory = file.parent().unwrap_or(Path::new(""));
        Set { file: &name, directory, read }.input(document)
    }

    /// A dump in a file's bytes. A table that Linux reads though its checksum or one of its records
    /// is wrong is one here too.
    pub fn dump(bytes: &[u8], options: Options) -> std::result::Result<Dump, DumpError> {
        Dump::read(bytes, options).or_else(|error| match error {
            DumpError::Table(TableError::Checksum { .. }) | DumpError::Record(_) => {
                Dump::read(bytes, Options { force: true, ..options })
            }
            other => match alone(bytes, options) {
                Some(dump) => Ok(dump),
                None => Err(other),
            },
        })
    }
}

impl Set<'_> {
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

    fn registers(&mut self, file: Option<PathBuf>, component: Component) -> Result<Registers> {
        let Some(file) = file else { return Ok(Registers::Unknown) };
        if file.as_os_str() == "none" {
            return Ok(Registers::NoBlock);
        }
        let dump = self.dump(&file, None, Some(component))?;
        if !matches!(dump.kind(), Kind::Component | Kind::Cachemem | Kind::Hdm) {
            let expected = "a component register block, a CXL.cache/mem range or an HDM structure";
            let file = self.directory.join(file);
            return Err(ImagesError::Kind { file, expected, found: dump.kind() });
        }
        Ok(dump.hdm().map_or(Registers::NoHdm, |(image, _)| Registers::Hdm(image)))
    }

    fn input(mut self, document: Document) -> Result<Input> {
        let named = |given: Option<String>, kind: &str, index: usize| {
            given.unwrap_or_else(|| format!("{kind}{index}"))
        };
        let mut input = Input::default();
        if let Some(file) = document.cedt {
            let dump = self.dump(&file, Some(Kind::Cedt), None)?;
            input.cedt = dump.sections().next().map(|(_, bytes)| bytes.to_vec());
        }
        for (index, entry) in document.bridge.into_iter().enumerate() {
            let registers = self.registers(entry.registers, Component::HostBridge)?;
            // A bridge always has a register block; what it can do without is decoders.
            let registers =
                if registers == Registers::NoBlock { Registers::NoHdm } else { registers };
            input.bridges.push(Bridge {
                name: named(entry.name, "hb", index),
                uid: Some(entry.uid),
                address: entry.address,
                registers,
            });
        }
        let switches: Vec<_> = document.switch.into_iter().enumerate().collect();
        let switch_names: Vec<_> = switches
            .iter()
            .map(|(index, entry)| named(entry.name.clone(), "switch", *index))
            .collect();
        for (index, entry) in document.port.into_iter().enumerate() {
            let bridge = input.bridges.iter().position(|bridge| bridge.name == entry.below);
            let switch = switch_names.iter().position(|name| *name == entry.below);
            let parent = bridge.map(Parent::Bridge).or(switch.map(Parent::Switch));
            let parent = parent.ok_or_else(|| self.no_such(&entry.below, "a bridge or switch"))?;
            input.ports.push(Port {
                name: named(entry.name, "port", index),
                parent,
                number: entry.number,
                address: entry.address,
            });
        }
        for ((_, entry), name) in switches.into_iter().zip(switch_names) {
            let port = self.port(&input, &entry.below)?;
            let registers = self.registers(entry.registers, Component::UpstreamPort)?;
            input.switches.push(Switch { name, port, address: entry.address, registers });
        }
        for (index, entry) in document.device.into_iter().enumerate() {
            let port = match &entry.below {
                Some(below) => Some(self.port(&input, below)?),
                None => None,
            };
            let (config, address) = match &entry.config {
                Some(file) => {
                    let dump = self.dump(file, Some(Kind::Config), None)?;
                    let found = function(&dump, entry.address.as_deref());
                    let found = found.ok_or_else(|| ImagesError::NoFunction {
                        file: self.directory.join(file),
                        wanted: entry.address.clone(),
                    })?;
                    (Some(found.1), entry.address.or(found.0))
                }
                None => (None, entry.address),
            };
            let capacity = match (entry.volatile, entry.persistent) {
                (None, None) => None,
                (volatile, persistent) => {
                    let bytes = |bytes: Option<Bytes>| bytes.map_or(0, |Bytes(bytes)| bytes);
                    Some((bytes(volatile), bytes(persistent)))
                }
            };
            input.devices.push(Device {
                name: named(entry.name, "mem", index),
                port,
                registers: self.registers(entry.registers, Component::Device)?,
                config,
                capacity,
                status: entry.status,
                address,
            });
        }
        let names = input.bridges.iter().map(|bridge| &bridge.name);
        let names = names.chain(input.ports.iter().map(|port| &port.name));
        let names = names.chain(input.switches.iter().map(|switch| &switch.name));
        let names = names.chain(input.devices.iter().map(|device| &device.name));
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        let twice = names.windows(2).find_map(|pair| match pair {
            [first, second] if first == second => Some((*first).clone()),
            _ => None,
        });
        match twice {
            Some(name) => Err(ImagesError::Twice { file: self.file.to_owned(), name }),
            None => Ok(input),
        }
    }

    fn port(&self, input: &Input, name: &str) -> Result<usize> {
        let found = input.ports.iter().position(|port| port.name == name);
        found.ok_or_else(|| self.no_such(name, "a port"))
    }

    fn no_such(&self, name: &str, expected: &'static str) -> ImagesError {
        ImagesError::NoSuch { file: self.file.to_owned(), name: name.to_owned(), expected }
    }
}
