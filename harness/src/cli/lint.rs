//! `cxl-harness lint`: what Linux would say.
//!
//! **Invariant**: exit code 0 or 1 comes with a report, 2 with one line of error and no report.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use cxl_harness::html;
use cxl_harness::run;
use cxl_harness::suite::Suite;
use cxl_lint::{Images, Input, Kernel, Report, lint, lint_for, unchecked};
use cxl_model::capture::{Ask, Capture, FoundText, Reading};
use cxl_model::dump::{Kind, MAX_INPUT, Options};
use cxl_model::machine::Machine;
use cxl_model::scenario::{Scenario, builtin};
use cxl_regs::Component;

use super::bundle::{Bundle, images, said};
use super::decode::{FormName, KindName, components};
use super::{PageFile, Shape};

const EXAMPLES: &str = "\
Input, one of:
  a scenario   a built-in's name (see `cxl-harness scenarios`) or a TOML file: its firmware runs on
               it, faults and all, and what it leaves is looked at
  a set        a TOML file with the key `images` that says which dump is what (below)
  dumps        files, directories and tar archives that `cxl-harness decode` reads, in any of its
               forms: component blocks, CXL.cache/mem ranges, HDM structures, configuration space, a
               CEDT, our image's own dump (a whole machine), what Linux shows (sysfs, cxl list), a bug
               report with several of them. Each is held to the rules that it can be
               held to alone; what nobody could look at is listed at the end. A CEDT beside them
               says whether device decoders lie in its windows. One device's registers and one
               function's configuration space are taken to be of one device.

An image set; files are looked for beside it, and only what is known has to be in it:
  images = \"board 7, after the firmware\"
  cedt = \"cedt.dat\"
  prm = true                    # the platform's PRM translates addresses
  [[bridge]]
  uid = 12                      # ACPI _UID
  registers = \"hb0.bin\"         # \"none\": a bridge without decoders
  [[port]]
  below = \"hb0\"                 # hb0.., switch0.., or what `name` says
  number = 0                    # Port Number: Link Capabilities 31:24
  [[device]]
  below = \"port0\"               # port0.., or what `name` says
  registers = \"mem0.bin\"
  config = \"mem0.lspci\"
  volatile = \"512MiB\"           # also: persistent, status (a dword)

status is the Memory Device Status dword. [[switch]] has below and registers; all take address as Linux
prints it (\"0000:0d:00.0\"). A bridge of CXL 1.1 has rcrb: its dwords at 0x00, 0x04, 0x10 and 0x14. Of a
machine that was collected (`cxl-harness collect`): kernel, witness (files with what Linux showed, which
stands in for registers that are not given), [[withheld]] with what and why. A tar archive with a set in
it is one.

Report, a block for each finding in the order of Linux's log:
  |          a line of the log. Linux numbers ports, endpoints, memory devices and regions as they
             come up, so numbers may differ; what is said only with dynamic debug is marked
  found      the registers, with their numbers
  rule       what Linux wants
  so         what is missing now, or wrong
  remedy     what to do
  seen       only where no kernel (6.12.95 and 7.3.4, recorded and booted) has shown the rule: it is by
             Linux's source alone
  kernels    since or before which release, with the stable releases that took a change over; which
             release it was is by Linux's source, as 6.12.95 and 7.3.4 alone were run
  refused: a window, device or region is not used. degraded: Linux goes on with something wrong.
  note: worth knowing.

JSON:
  subject, kernel, findings (rule, wants, remedy, seen, severity, component, decoder, found, lost, since,
  until, only; messages: each with line, level, driver, device, text, since, until, only), unchecked
  (missing, rules), remarks

Exit code:
  0  Linux refuses nothing
  1  Linux refuses something
  2  bad usage or file, or there is nothing that a rule is about

Examples:
  cxl-harness lint default
  cxl-harness lint pass-through --kernel 6.12.80
  cxl-harness lint board.toml --json | jq -r '.findings[].messages[].line'
  cxl-harness lint /sys/firmware/acpi/tables/CEDT
  cxl-harness lint mem0.bin mem0.lspci --component device";

/// Say what Linux would make of a machine: the messages of its log, the rule, the remedy.
///
/// Linux's rules (drivers/cxl) are applied to register images and a CEDT, whoever made them.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Lint {
    /// A scenario, an image set, or dumps.
    #[arg(required = true, value_name = "SCENARIO|FILE")]
    input: Vec<String>,

    /// The kernel, like 6.12, 6.18.21 or what `uname -r` prints [default: all from 6.12 on].
    ///
    /// Without a third number it is the newest release of the series. Stable releases take changes
    /// over from later kernels: 6.12.80 is not 6.12.0.
    #[arg(long, value_name = "VERSION")]
    kernel: Option<Kernel>,

    /// What the dumps are dumps of [default: recognised].
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<KindName>,

    /// How digits in the dumps are to be read [default: recognised].
    #[arg(long, value_enum, value_name = "FORM")]
    form: Option<FormName>,

    /// What kind of component decoders in a dump belong to [default: recognised].
    #[arg(long, value_name = "COMPONENT", value_parser = components())]
    component: Option<Component>,

    /// Whether the platform's PRM translates device addresses (AMD's normalized addressing) [default:
    /// as a set says, or not known].
    #[arg(long, value_name = "BOOL")]
    prm: Option<bool>,

    #[command(flatten)]
    shape: Shape,

    #[command(flatten)]
    page: PageFile,
}

/// What is looked at, under which name, and what is to be said of it.
struct Subject {
    name: String,
    input: Input,
    remarks: Vec<String>,
}

impl Subject {
    /// An image set, with what a Linux showed where registers are not given.
    fn of(path: &Path, images: &Images) -> Self {
        let (input, remarks) = images.with_witness();
        Self { name: said(path), input, remarks }
    }
}

impl Lint {
    pub(super) fn run(self) -> ExitCode {
        let page = match self.page.ready() {
            Ok(page) => page,
            Err(error) => return super::fail(&error),
        };
        let Subject { name, mut input, remarks } = match self.subject() {
            Ok(subject) => subject,
            Err(reason) => return super::fail(&reason),
        };
        if input.is_empty() {
            return super::fail(&format!(
                "{name}: expected a CEDT, registers or configuration space of CXL, or what Linux shows \
                 of it, found nothing that a rule is about"
            ));
        }
        input.prm = self.prm.or(input.prm);
        let findings = match self.kernel {
            Some(kernel) => lint_for(&input, kernel),
            None => lint(&input),
        };
        let report = Report {
            subject: format!("lint {name}"),
            kernel: self.kernel,
            findings,
            unchecked: unchecked(&input),
            remarks,
        };
        let output = match self
            .shape
            .collected(|| Suite::of_lint(&report).about(self.input.iter().map(String::as_str)))
        {
            Some(output) => output,
            None if self.shape.is_json() => super::json(&report),
            None => super::styled(&report.to_string()),
        };
        let told =
            page.is_some().then(|| html::of_lint(&report, input.reached(), &super::command_line()));
        let told = page.as_ref().zip(told.as_ref());
        super::print_with(&output, told, super::exit(!report.refused()))
    }

    fn subject(&self) -> Result<Subject, String> {
        let [only] = self.input.as_slice() else { return self.dumps(None) };
        if let Some(built_in) = builtin(only) {
            return scenario(built_in.text, only);
        }
        let path = Path::new(only);
        if path.is_dir() {
            return match images(path, None)? {
                Some(images) => Ok(Subject::of(path, &images)),
                None => self.dumps(None),
            };
        }
        let bytes = read(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if path.components().count() == 1 => {
                super::source::unknown(only).to_string()
            }
            _ => format!("{}: {error}", said(path)),
        })?;
        if let Some(images) = images(path, Some(&bytes))? {
            return Ok(Subject::of(path, &images));
        }
        // A scenario is a text with a key in it, and no dump is.
        let text = str::from_utf8(&bytes).ok();
        let toml = path.extension().is_some_and(|extension| extension == "toml");
        match text.filter(|_| toml) {
            Some(text) => scenario(text, only),
            // A pipe can be read only once.
            None => self.dumps(Some(bytes)),
        }
    }

    /// What is a whole machine by its name.
    fn whole_machine(&self) -> Option<&str> {
        let mut names = self.input.iter().map(String::as_str);
        names.find(|name| {
            let path = Path::new(name);
            let toml = path.extension().is_some_and(|extension| extension == "toml");
            toml || builtin(name).is_some() && !path.exists()
        })
    }

    /// Dumps by themselves; of a single one the bytes, if they have been read.
    fn dumps(&self, mut known: Option<Vec<u8>>) -> Result<Subject, String> {
        if let (Some(whole), true) = (self.whole_machine(), self.input.len() > 1) {
            return Err(format!(
                "{whole}: expected a dump, a table, or what Linux shows, as several files are parts of one \
                 machine; a scenario or an image set is a whole one, and is given by itself"
            ));
        }
        let kind = self.kind.map(Kind::from);
        let options = Options { kind, component: self.component, force: false };
        let ask = Ask { options, reading: self.form.map(Reading::from) };
        let mut captures = Vec::new();
        for name in &self.input {
            let path = Path::new(name);
            let mut bundle = Bundle::default();
            let known = known.take();
            let bytes = match known {
                Some(bytes) => Some(bytes),
                None if path.is_dir() => None,
                None => Some(read(path).map_err(|error| format!("{}: {error}", said(path)))?),
            };
            match bytes {
                // A table that Linux reads though it is wrong is one here too.
                Some(bytes) => match Input::dump(&bytes, options) {
                    Ok(dump) if ask.reading.is_none() && dump.kind() == Kind::Cedt => {
                        bundle.captures.push((path.to_owned(), Capture::of(dump)));
                    }
                    _ => bundle.given(path, &bytes, ask)?,
                },
                None => bundle.add(path, ask)?,
            }
            let found = bundle.finish(path)?;
            captures.extend(found.into_iter().map(|(file, capture)| {
                (if name == "-" { PathBuf::from("stdin") } else { file }, capture)
            }));
        }
        let (input, remarks) = Input::of_captures(&captures).map_err(|error| error.to_string())?;
        let taken = match captures.as_slice() {
            [(_, capture)] if capture.is_plain() => vec![],
            _ => taken(&captures),
        };
        let remarks = taken.into_iter().chain(remarks).collect();
        let names: Vec<_> = self.input.iter().map(|name| said(Path::new(name))).collect();
        Ok(Subject { name: names.join(" "), input, remarks })
    }
}

/// What was taken for what, where there is something to take for something.
fn taken(captures: &[(PathBuf, Capture)]) -> Vec<String> {
    let all = captures.iter().flat_map(|(file, capture)| {
        let plain = capture.is_plain();
        capture.found.iter().filter(move |_| !plain).map(move |found| (file, found))
    });
    all.map(|(file, found)| format!("{}: {}", file.display(), FoundText(found))).collect()
}

fn scenario(text: &str, name: &str) -> Result<Subject, String> {
    let scenario = Scenario::parse(text, name).map_err(|error| error.to_string())?;
    let mut machine = Machine::new(&scenario);
    let done = run::direct(&mut machine);
    let stopped = done.refusal.iter().map(|refusal| {
        format!("the firmware stopped ({refusal}); this is what it left, with the platform's table")
    });
    let remarks = stopped.chain(scenario.remarks);
    let input = Input::of(&machine, &done.cedt);
    Ok(Subject { name: name.to_owned(), input, remarks: remarks.collect() })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    super::source::bytes(path, MAX_INPUT)
}
