//! `cxl-harness decode`: prints what a register dump or a table says.
//!
//! **Invariant**: exit code 0, or 1 for two dumps that differ, comes with output; 2 comes with one
//! line of error and no output.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use cxl_harness::html;
use cxl_model::capture::{Ask, Capture, Content, Found, FoundText, JsonText, Object, Reading};
use cxl_model::dump::{Change, Dump, DumpError, Kind, Options, RegisterDiff};
use cxl_regs::Component;
use schemars::JsonSchema;
use serde::Serialize;

use super::bundle::{Bundle, said};
use super::output::{self, Output};

/// The two dumps differ, as of diff(1).
const EXIT_DIFFERENT: u8 = 1;

const EXAMPLES: &str = "\
Input:
  component  the 64 KiB component register block of a device, port or host bridge
  cachemem   its 4 KiB CXL.cache/mem range (block offset 0x1000)
  hdm        a bare HDM Decoder Capability Structure
  config     256 or 4096 bytes of PCI configuration space
  cedt       the ACPI CEDT
  Each as raw bytes or as text: xxd (-p, -e), hexdump (-C), od (-t x1, -t x4, ...), Format-Hex, GDB's x,
  QEMU's xp, arrays of C, base64, a kernel's log; tables also as acpidump prints them, and as iasl does
  (-d: fields or raw data); configuration space as the text of lspci -xxxx, any number of functions, with
  or without -vv. Text counts from its first offset. What programs put round a text is passed over: quotes
  of a mail (\"> \"), stamps of a log, numbers of lines (grep -n), a margin that all lines have, colours.
  What our image prints for -append dump (record, table, decoders, DVSECs, with their places), and what
  Linux shows of a machine: cxl list (-vvv), /proc/iomem, the CXL bus of sysfs, as a directory, a tar
  archive, or lines PATH:VALUE (grep -r . /sys/bus/cxl/devices/root0/).

  One file may hold several of these, as a bug report does: what was taken for what, in which lines, is
  the heading of each. --kind takes those of one kind alone, --form overrules how digits are read, --list
  prints the headings alone.

JSON:
  kind        component, cachemem, hdm, config or cedt; the other keys depend on it
  found       in place of all that, where there are several things, or one in one of the other forms:
              each with lines, form, what, place, kind (also dvsec, handoff, table, witness, unknown)
              and its keys
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
  With --diff: changed, kind, old, new (the files), changes (what, old, new, text), and registers that
  hold other bits (place, register, offset, bytes, old, new, and fields: field, bits, old, new)

Exit code:
  0  printed; with --diff: nothing changed
  1  with --diff: something changed
  2  bad input or usage: one line on standard error, nothing on standard output

Examples:
  cxl-harness decode /sys/firmware/acpi/tables/CEDT
  lspci -s 0d:00.0 -xxxx | cxl-harness decode
  acpidump | cxl-harness decode --kind cedt
  cxl list -vvv | cxl-harness decode
  cxl-harness decode --list bug-report.txt
  cxl-harness decode --kind hdm --component host-bridge bridge.xxd
  cxl-harness decode --json device.bin | jq '.hdm.decoders[] | select(.committed)'
  cxl-harness decode --diff before.bin after.bin
  cxl-harness decode --diff before.bin after.bin --html moved.html";

/// Print what a register dump or a CEDT says, one fact a line.
///
/// What breaks a rule of the specification is printed as found, with a `problem` line; so is a record of
/// a table whose length is wrong, with what can be read behind it. What cannot be read as a whole
/// (truncated, a bad checksum, no decoder count) is an error; --force prints it as far as it goes.
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

    /// How digits are to be read [default: recognised].
    #[arg(long, value_enum, value_name = "FORM")]
    form: Option<FormName>,

    /// Print what is in the file, and not what it says.
    #[arg(long, conflicts_with_all = ["json", "diff"])]
    list: bool,

    /// Print JSON instead of text.
    ///
    /// The same facts with stable keys, which the end of this help lists.
    #[arg(long)]
    json: bool,

    /// Say in words what moved from one dump to the other.
    ///
    /// Decoders are matched by index, windows by base, host bridges by UID, functions by address.
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with = "file")]
    diff: Option<Vec<PathBuf>>,

    /// With --diff: write it into this file as well, bit by bit, as a page for a browser that asks for
    /// nothing from any network.
    #[arg(long, value_name = "FILE", requires = "diff", value_parser = output::beside_the_report())]
    html: Option<PathBuf>,

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

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum FormName {
    /// The file is the bytes.
    Raw,
    /// Digits stand in the order of addresses.
    Bytes,
    /// Groups of digits are little-endian numbers.
    Words,
    /// The file is base64.
    Base64,
}

impl From<FormName> for Reading {
    fn from(name: FormName) -> Self {
        match name {
            FormName::Raw => Self::Raw,
            FormName::Bytes => Self::Bytes,
            FormName::Words => Self::Words,
            FormName::Base64 => Self::Base64,
        }
    }
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

/// What moved, as JSON.
#[derive(JsonSchema, Serialize)]
pub(super) struct Difference {
    changed: bool,
    kind: serde_json::Value,
    old: String,
    new: String,
    changes: Vec<Change>,
    registers: Vec<RegisterDiff>,
}

/// What a file holds.
#[derive(JsonSchema, Serialize)]
#[serde(transparent)]
pub(super) struct Captured(Object);

/// What several files hold.
#[derive(JsonSchema, Serialize)]
pub(super) struct Several {
    files: Vec<OfFile>,
}

#[derive(JsonSchema, Serialize)]
struct OfFile {
    file: String,
    capture: Captured,
}

impl Decode {
    pub(super) fn run(self) -> ExitCode {
        match self.output() {
            Ok((output, code)) => super::print(&output, code),
            Err(reason) => super::fail(&reason),
        }
    }

    fn output(&self) -> Result<(String, ExitCode), String> {
        // A file that is named takes the place of the two, and with it clap's rule that they be there.
        if self.html.is_some() && self.diff.is_none() {
            return Err(
                "--html: expected --diff OLD NEW, whose changes it writes down, found one dump"
                    .to_owned(),
            );
        }
        if let Some([old_path, new_path]) = self.diff.as_deref() {
            let page = self.html.as_deref().map(Output::ready).transpose()?;
            let (old, new) = (self.one(old_path)?, self.one(new_path)?);
            let fail = |error: DumpError| format!("{}: {error}", said(new_path));
            let changes = old.changes(&new).map_err(fail)?;
            let registers = old.registers_moved(&new);
            let names = [said(old_path), said(new_path)];
            if let Some(page) = page {
                let [old, new] = names.each_ref().map(String::as_str);
                let told = html::of_diff([old, new], &changes, &registers, &super::command_line());
                page.write(told.to_string().as_bytes())?;
            }
            let code = if changes.is_empty() { 0 } else { EXIT_DIFFERENT };
            let [old_name, new_name] = names;
            let output = match (self.json, changes.is_empty()) {
                (true, same) => super::json(&Difference {
                    changed: !same,
                    kind: new.value().map_err(fail)?["kind"].take(),
                    old: old_name,
                    new: new_name,
                    changes,
                    registers,
                }),
                (false, true) => "nothing changed\n".to_owned(),
                (false, false) => changes.into_iter().map(|change| change.text + "\n").collect(),
            };
            return Ok((output, ExitCode::from(code)));
        }
        let captures = self.read(&self.file)?;
        let fail = |error: DumpError| format!("{}: {error}", said(&self.file));
        let output = match captures.as_slice() {
            _ if self.list => list(&captures),
            [(_, capture)] => match capture.found.as_slice() {
                // A dump alone needs no heading.
                [Found { lines: None, content: Content::Dump(dump), .. }] if self.json => {
                    // The keys of a dump alone have no place for it.
                    capture.remarks.iter().for_each(|remark| super::note(remark));
                    super::json(&dump.facts().map_err(fail)?)
                }
                [Found { lines: None, content: Content::Dump(dump), .. }] => {
                    let remarks = capture.remarks.iter();
                    let remarks = remarks.map(|remark| format!("\nremark: {remark}\n"));
                    super::styled(&format!("{dump}{}", remarks.collect::<String>()))
                }
                _ if self.json => super::json(&Captured(JsonText(capture).object().map_err(fail)?)),
                _ => super::styled(&capture.to_string()),
            },
            several if self.json => {
                let mut files = Vec::new();
                for (file, capture) in several {
                    let capture = Captured(JsonText(capture).object().map_err(fail)?);
                    files.push(OfFile { file: file.display().to_string(), capture });
                }
                super::json(&Several { files })
            }
            several => {
                let texts =
                    several.iter().map(|(file, capture)| format!("{}\n{capture}", file.display()));
                super::styled(&texts.collect::<Vec<_>>().join("\n"))
            }
        };
        Ok((output, ExitCode::SUCCESS))
    }

    fn ask(&self) -> Ask {
        let options = Options {
            kind: self.kind.map(Kind::from),
            component: self.component,
            force: self.force,
        };
        Ask { options, reading: self.form.map(Reading::from) }
    }

    fn read(&self, path: &Path) -> Result<Vec<(PathBuf, Capture)>, String> {
        let mut bundle = Bundle::default();
        bundle.add(path, self.ask())?;
        let mut captures = bundle.finish(path)?;
        for (_, capture) in &mut captures {
            let dumps = capture.found.iter().filter_map(|found| match &found.content {
                Content::Dump(dump) => dump.behind_the_table(),
                _ => None,
            });
            let remarks: Vec<String> = dumps.map(not_read).collect();
            capture.remarks.extend(remarks);
        }
        Ok(captures)
    }

    /// The one dump of a file.
    fn one(&self, path: &Path) -> Result<Dump, String> {
        let captures = self.read(path)?;
        let found = captures.into_iter().flat_map(|(_, capture)| capture.found);
        let mut dumps: Vec<_> = found
            .filter_map(|found| match found.content {
                Content::Dump(dump) => Some(dump),
                _ => None,
            })
            .collect();
        match (dumps.pop(), dumps.len()) {
            (Some(dump), 0) => Ok(dump),
            (None, _) => Err(format!("{}: expected a dump, found none", said(path))),
            (Some(_), more) => Err(format!(
                "{}: expected one dump to compare, found {} (--kind picks those of one kind)",
                said(path),
                more + 1
            )),
        }
    }
}

/// What is said of bytes behind a table that are no table.
fn not_read((table, behind): (&[u8], &[u8])) -> String {
    format!(
        "{:#x} bytes behind the CEDT, which ends at {:#x}, are no CEDT: nobody reads them",
        behind.len(),
        table.len()
    )
}

/// The headings alone.
fn list(captures: &[(PathBuf, Capture)]) -> String {
    let mut text = String::new();
    for (file, capture) in captures {
        for found in &capture.found {
            // Writing to a String cannot fail.
            let _ = match captures {
                [_] => writeln!(text, "{}", FoundText(found)),
                _ => writeln!(text, "{}: {}", file.display(), FoundText(found)),
            };
        }
        for remark in &capture.remarks {
            let _ = writeln!(text, "remark: {remark}");
        }
    }
    text
}
