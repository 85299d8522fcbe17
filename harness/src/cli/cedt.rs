//! `cxl-harness cedt`: the table that the firmware makes for the operating system.
//!
//! **Invariant**: a table comes from decoders that were committed and checked, or there is none. With best
//! effort it is of what is in use, and what is lost is told beside it.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use cxl_harness::report::{Refusal, Report, Verdict};
use cxl_harness::run;
use cxl_model::dump::facts::Facts;
use cxl_model::dump::{Dump, Kind, Options};
use cxl_regs::acpi::cedt::Text;
use schemars::JsonSchema;
use serde::Serialize;

use super::output::Output;
use super::source::Source;

const EXAMPLES: &str = "\
Exit code:
  0  here is the table, without what the scenario leaves out
  1  the firmware refused or a check failed, so there is none; or with best effort something is lost,
     which is told on standard error, and here is the table of the rest
  2  bad usage, scenario file or output file

Examples:
  cxl-harness cedt --text
  cxl-harness cedt four-bridges -o cedt.dat && iasl -d cedt.dat
  cxl-harness cedt | cxl-harness decode --json";

/// Run the firmware and write the CEDT that it made: binary, as text, or as JSON.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Cedt {
    #[command(flatten)]
    source: Source,

    /// Where to; `-` is standard output, the default [unless that is a terminal].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// The table as text.
    #[arg(long, conflicts_with = "json")]
    text: bool,

    /// The table as JSON, with the keys of `cxl-harness decode`.
    #[arg(long)]
    json: bool,
}

/// Why there is no table, as JSON.
#[derive(JsonSchema, Serialize)]
pub(super) struct Refused {
    result: Verdict,
    refusal: Option<Refusal>,
    failures: Vec<String>,
}

/// The table, as JSON.
#[derive(JsonSchema, Serialize)]
#[serde(transparent)]
pub(super) struct Made<'t>(Facts<'t>);

impl Cedt {
    pub(super) fn run(self) -> ExitCode {
        let mut machine = match self.source.machine() {
            Ok(machine) => machine,
            Err(error) => return super::fail(&error.to_string()),
        };
        let binary = !self.text && !self.json;
        let file = self.output.as_deref().filter(|file| *file != Path::new("-"));
        if binary && file.is_none() && io::stdout().is_terminal() {
            return super::fail(
                "the table is binary and standard output a terminal: use -o FILE, --text or --json",
            );
        }
        let output = match file.map(Output::ready).transpose() {
            Ok(output) => output,
            Err(error) => return super::fail(&error),
        };
        let done = run::direct(&mut machine);
        let facts = Report::of_direct(&machine, &done).facts;
        // Whatever else is wrong is wrong with what the table says.
        let usable = facts.refusal.is_none() && facts.only_lost() && !done.cedt.is_empty();
        if facts.result != Verdict::Ok && !usable {
            let refusal = facts.refusal.as_ref().map(|refusal| {
                format!("{}: {} ({:#06x})", refusal.phase, refusal.message, refusal.code)
            });
            if self.json {
                let refused = Refused {
                    result: facts.result,
                    failures: facts.failures(),
                    refusal: facts.refusal,
                };
                return super::print(&super::json(&refused), super::exit(false));
            }
            let why = refusal.or_else(|| facts.failures().into_iter().next()).unwrap_or_default();
            return super::refuse(&format!("there is no CEDT: {why}"));
        }
        let written = match self.bytes(&done.cedt) {
            Ok(bytes) if self.text && output.is_none() => {
                super::print(&super::fitted(&String::from_utf8_lossy(&bytes)), ExitCode::SUCCESS)
            }
            Ok(bytes) => super::save(&bytes, output.as_ref()),
            Err(error) => super::fail(&error),
        };
        let lost = facts.failures();
        for lost in &lost {
            super::refuse(lost);
        }
        if written == ExitCode::SUCCESS { super::exit(lost.is_empty()) } else { written }
    }

    fn bytes(&self, table: &[u8]) -> Result<Vec<u8>, String> {
        if self.text {
            return Ok(Text(table).to_string().into_bytes());
        }
        if self.json {
            let options = Options { kind: Some(Kind::Cedt), ..Options::default() };
            let dump = Dump::read(table, options).map_err(|error| error.to_string())?;
            let facts = dump.facts().map_err(|error| error.to_string())?;
            return Ok(super::json(&Made(facts)).into_bytes());
        }
        Ok(table.to_vec())
    }
}
