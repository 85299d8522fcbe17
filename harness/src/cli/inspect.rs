//! `cxl-harness inspect`: what is there, what is locked, what Linux makes of it.
//!
//! **Invariant**: exit code 0 or 1 comes with a report, 2 with one line of error and no report.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use cxl_harness::collect::live::Linux;
use cxl_harness::html;
use cxl_harness::inspect::{Answer, Inspection, Subject};

use super::PageFile;
use super::bundle::{self, Bundle, said};
use cxl_model::capture::Ask;
use cxl_model::dump::MAX_INPUT;

const EXAMPLES: &str = "\
Without BUNDLE: the machine that this runs on, as root, read as `cxl-harness collect` reads it. A bundle is
what that wrote, or any image set, dump or witness that `cxl-harness lint` takes.

locked and sealed are the words of every report here: every decoder in use has a lock in force and each
path is whole; and no range register or enable leads a locked range elsewhere. They are judged by
registers alone. What Linux shows of locks, where it withholds registers, is told beside and decides nothing.

JSON:
  subject, kernel
  components  each with name, kind (bridge, port, switch, device), address, facts
  memory      a line for each range of each window
  locks       locked and sealed (yes, no, unknown), in_use, in_force, ranges, not_locked, not_sealed,
              missing, shown (what Linux shows: locked, open, not_shown)
  withheld    each with what and why
  lint        as of `cxl-harness lint --json`, for the kernel that ran there if it is known

Exit code:
  0  everything was there to be looked at, Linux refuses nothing, and --require is met
  1  Linux refuses something, registers were withheld or not given, or --require is not met
  2  bad usage or file, or there is nothing to inspect

Examples:
  cxl-harness inspect
  cxl-harness inspect machine.tar
  cxl-harness inspect board --require sealed
  cxl-harness inspect machine.tar --html machine.html
  cxl-harness inspect board --json | jq .locks.sealed";

/// Say what a machine with CXL has, what of it is locked and sealed, and what Linux makes of it.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Inspect {
    /// A bundle, as a directory or an archive, an image set, or dumps [default: this machine].
    #[arg(value_name = "BUNDLE")]
    bundle: Option<PathBuf>,

    /// Print JSON instead of text; the end of this help lists the keys.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    page: PageFile,

    /// What has to be so.
    #[arg(long, value_enum, value_name = "WORD")]
    require: Option<Word>,

    /// The root directory of the Linux, if it is another one (files of a machine, for tests).
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/",
        hide_default_value = true,
        conflicts_with = "bundle"
    )]
    root: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Word {
    /// Every decoder in use has a lock in force, and each path is whole.
    Locked,
    /// And nothing leads a locked range elsewhere.
    Sealed,
}

impl Inspect {
    pub(super) fn run(self) -> ExitCode {
        let page = match self.page.ready() {
            Ok(page) => page,
            Err(reason) => return super::fail(&reason),
        };
        let subject = match self.subject() {
            Ok(subject) => subject,
            Err(reason) => return super::fail(&reason),
        };
        if subject.is_empty() {
            return super::fail(&format!(
                "{}: expected a CEDT, registers or configuration space of CXL, or what Linux shows of \
                 it, found nothing to inspect",
                subject.name
            ));
        }
        let reached = page.is_some().then(|| subject.whole.reached());
        let inspection = Inspection::of(subject);
        let met = match self.require {
            None => true,
            Some(Word::Locked) => inspection.locks.locked == Answer::Yes,
            Some(Word::Sealed) => inspection.locks.sealed == Answer::Yes,
        };
        let word = self.require.map(|word| if word == Word::Locked { "locked" } else { "sealed" });
        let output = if self.json {
            super::json(&inspection)
        } else {
            let mut text = inspection.to_string();
            if let Some(word) = word {
                let outcome = if met { "met" } else { "NOT met" };
                text += &format!("  required          {word}: {outcome}\n");
            }
            super::styled(&text)
        };
        let good = inspection.is_good() && met;
        let told = reached.map(|reached| {
            let title = format!("Inspection of {}", inspection.subject);
            let ended = (good, word.filter(|_| !met));
            html::of_inspection(&title, &inspection, reached, ended, &super::command_line())
        });
        super::print_with(&output, page.as_ref().zip(told.as_ref()), super::exit(good))
    }

    fn subject(&self) -> Result<Subject, String> {
        let Some(path) = &self.bundle else {
            let found = Linux::below(&self.root).collect().map_err(|error| error.to_string())?;
            return found.images().map(Subject::from).map_err(|error| error.to_string());
        };
        // A pipe can be read only once.
        let piped = path.as_os_str() == "-";
        let bytes = piped.then(|| bundle::bytes(path, MAX_INPUT)).transpose();
        let bytes = bytes.map_err(|error| format!("{}: {error}", said(path)))?;
        if let Some(images) = bundle::images(path, bytes.as_deref())? {
            return Ok(images.into());
        }
        let mut bundle = Bundle::default();
        match &bytes {
            Some(bytes) => bundle.given(path, bytes, Ask::default())?,
            None => bundle.add(path, Ask::default())?,
        }
        let captures = bundle.finish(path)?;
        Subject::of_captures(said(path), captures).map_err(|error| error.to_string())
    }
}
