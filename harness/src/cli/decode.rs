//! `cxl-harness decode`: prints what a register dump or a table says.
//!
//! **Invariant**: exit code 0, or 1 for two dumps that differ, comes with output; 2 comes with one
//! line of error and no output.

use std::fmt;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use cxl_model::dump::{Dump, DumpError, Kind, MAX_INPUT, Options};
use cxl_regs::Component;

/// The two dumps differ, as of diff(1).
const EXIT_DIFFERENT: u8 = 1;

const EXAMPLES: &str = "\
Input:
  component  the 64 KiB component register block of a device, port or host bridge
  cachemem   its 4 KiB CXL.cache/mem range (block offset 0x1000)
  hdm        a bare HDM Decoder Capability Structure
  config     256 or 4096 bytes of PCI configuration space
  cedt       the ACPI CEDT
  Each as raw bytes or as the text of xxd, xxd -p, hexdump -C or od -A x -t x1; configuration space
  also as the text of lspci -xxxx, with any number of functions. Text counts from its first offset.

JSON:
  kind        component, cachemem, hdm, config or cedt; the other keys depend on it
  hdm         component, capability, global_control, decoders: each with index, base, size, ways,
              granularity, coherency, targets (ports), skip and dpa (devices), committed, locked,
              lock_on_commit, commit, error_not_committed, problems, raw
  component,  capabilities: each with name, id, version, offset, registers; hdm and extended_hdm as
  cachemem    above, or null
  config      functions: each with address, vendor, device, class, port_number, registers,
              capabilities, extended_capabilities, dvsecs: each with name, id, offset, registers
  cedt        host_bridges: each with uid, version, base, length; windows: each with base, size,
              ways, granularity, arithmetic, restrictions, qtg, targets (UIDs); xor_maps; and more
  registers   name, offset, raw, fields by the names of the specification
  Addresses, sizes and raw values are strings like \"0x1f\", granularities are bytes, counts are
  numbers, and what does not apply is null.

Exit code:
  0  printed; with --diff: nothing changed
  1  with --diff: something changed
  2  bad input or usage: one line on standard error, nothing on standard output

Examples:
  cxl-harness decode /sys/firmware/acpi/tables/CEDT
  lspci -s 0d:00.0 -xxxx | cxl-harness decode
  cxl-harness decode --kind hdm --component host-bridge bridge.xxd
  cxl-harness decode --json device.bin | jq '.hdm.decoders[] | select(.committed)'
  cxl-harness decode --diff before.bin after.bin";

/// Print what a register dump or a CEDT says, one fact a line.
///
/// What breaks a rule of the specification is printed as found, with a `problem` line. What cannot
/// be read as a whole (truncated, a bad checksum, no decoder count) is an error; --force prints it
/// as far as it goes.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Decode {
    /// The dump; standard input without one, or for `-`.
    #[arg(default_value = "-", hide_default_value = true)]
    file: PathBuf,

    /// What the dump is of [default: recognised].
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<KindName>,

    /// What kind of component HDM decoders belong to [default: recognised].
    ///
    /// The registers of devices and ports look alike, and the last two dwords of a decoder mean
    /// different things in them. Fields that only one of them has tell which it is, if any is set.
    #[arg(long, value_name = "COMPONENT", value_parser = components())]
    component: Option<Component>,

    /// Print JSON instead of text.
    ///
    /// The same facts with stable keys, which the end of this help lists.
    #[arg(long, conflicts_with = "diff")]
    json: bool,

    /// Say in words what moved from one dump to the other.
    ///
    /// Decoders are matched by index, windows by base, host bridges by UID, functions by address.
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with = "file")]
    diff: Option<Vec<PathBuf>>,

    /// Print what cannot be read as a whole too, as far as it goes.
    #[arg(long, conflicts_with_all = ["json", "diff"])]
    force: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum KindName {
    Component,
    Cachemem,
    Hdm,
    Config,
    Cedt,
}

impl From<KindName> for Kind {
    fn from(name: KindName) -> Self {
        match name {
            KindName::Component => Self::Component,
            KindName::Cachemem => Self::Cachemem,
            KindName::Hdm => Self::Hdm,
            KindName::Config => Self::Config,
            KindName::Cedt => Self::Cedt,
        }
    }
}

pub(super) fn components() -> impl TypedValueParser<Value = Component> {
    PossibleValuesParser::new(["device", "host-bridge", "upstream-port"]).map(|name| {
        match name.as_str() {
            "host-bridge" => Component::HostBridge,
            "upstream-port" => Component::UpstreamPort,
            _ => Component::Device,
        }
    })
}

/// Why a file was not decoded.
#[derive(Debug)]
enum Failure {
    /// It cannot be read.
    Io(PathBuf, io::Error),
    /// It cannot be understood.
    Dump(PathBuf, DumpError),
    /// Nobody sends anything.
    Terminal,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |path: &Path| match path.to_str() {
            Some("-") => "standard input".to_owned(),
            _ => path.display().to_string(),
        };
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", name(path)),
            Self::Dump(path, error) => write!(f, "{}: {error}", name(path)),
            Self::Terminal => f.write_str(
                "standard input: expected a dump, found a terminal (see cxl-harness decode --help)",
            ),
        }
    }
}

impl Decode {
    pub(super) fn run(self) -> ExitCode {
        match self.output() {
            Ok((output, code)) => super::print(&output, code),
            Err(failure) => super::fail(&failure.to_string()),
        }
    }

    fn output(&self) -> Result<(String, ExitCode), Failure> {
        if let Some([old_path, new_path]) = self.diff.as_deref() {
            let (old, new) = (self.read(old_path)?, self.read(new_path)?);
            let lines = old.diff(&new).map_err(|error| Failure::Dump(new_path.clone(), error))?;
            return Ok(if lines.is_empty() {
                ("nothing changed\n".to_owned(), ExitCode::SUCCESS)
            } else {
                (lines.join("\n") + "\n", ExitCode::from(EXIT_DIFFERENT))
            });
        }
        let dump = self.read(&self.file)?;
        let output = if self.json {
            dump.json().map_err(|error| Failure::Dump(self.file.clone(), error))?
        } else {
            super::styled(&dump.to_string())
        };
        Ok((output, ExitCode::SUCCESS))
    }

    fn read(&self, path: &Path) -> Result<Dump, Failure> {
        let options = Options {
            kind: self.kind.map(Kind::from),
            component: self.component,
            force: self.force,
        };
        if path.as_os_str() == "-" && io::stdin().is_terminal() {
            return Err(Failure::Terminal);
        }
        let input = super::source::bytes(path, MAX_INPUT);
        let input = input.map_err(|error| Failure::Io(path.to_owned(), error))?;
        Dump::read(&input, options).map_err(|error| Failure::Dump(path.to_owned(), error))
    }
}
