//! `cxl-harness plan`: what the firmware would write, and why there.
//!
//! **Invariant**: no decoder is written.

use std::process::ExitCode;

use clap::Args;
use cxl_firmware::handoff;
use cxl_firmware::policy::EarlierRange;
use cxl_harness::report::{PlanReport, Verdict};
use cxl_harness::run;

use super::source::{self, Source};

const EXAMPLES: &str = "\
Exit code:
  0  there is a plan
  1  the firmware refuses: one line says why, with the numbers
  2  bad usage or scenario file

JSON:
  result, refusal (phase, code, message), refused (where a region has no place: window, why),
  regions (window, reason, refused, hpa, size, memory, coherency, members), decoders (component,
  index, region, base, size, ways, granularity, targets, skip) in order of commit, notes,
  windows (where the operating system programs: window, base, size, ways, granularity, targets, ...)

Examples:
  cxl-harness plan
  cxl-harness plan two-partitions
  cxl-harness plan ambiguous; echo $?
  cxl-harness plan sized-windows
  cxl-harness plan machine.toml --json | jq '.regions[].window'
  cxl-harness plan larger.toml --earlier machine.toml";

/// Print what the firmware would write into which decoder, and why; nothing is written.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Plan {
    #[command(flatten)]
    source: Source,

    /// Keep memory where it was: a hand-off record, or the scenario of the machine as it was, which is
    /// brought up on the models first. What could not stay is a note.
    #[arg(long, value_name = "RECORD|SCENARIO")]
    earlier: Option<String>,

    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Where memory was before, or why nobody can say.
fn ranges(name: &str) -> Result<Vec<EarlierRange>, String> {
    let read = |record: &[u8]| {
        let record = handoff::read(record).map_err(|error| format!("{name}: {error}"))?;
        Ok(record.ranges().collect())
    };
    if let Some(record) = source::record(name) {
        return read(&record);
    }
    let expected = "--earlier takes a hand-off record, which starts with CXLFWHO, or a scenario";
    let machine = Source::built_in(name).machine();
    let mut machine = machine.map_err(|error| format!("{error}; {expected}"))?;
    let done = run::direct(&mut machine);
    match done.refusal {
        Some(refusal) => Err(format!("{name}: the machine as it was is refused: {refusal}")),
        None => read(&done.handoff),
    }
}

impl Plan {
    pub(super) fn run(self) -> ExitCode {
        let mut machine = match self.source.machine() {
            Ok(machine) => machine,
            Err(error) => return super::fail(&error.to_string()),
        };
        let earlier = match self.earlier.as_deref().map_or(Ok(Vec::new()), ranges) {
            Ok(earlier) => earlier,
            Err(error) => return super::fail(&error),
        };
        let done = run::dry_after(&mut machine, earlier);
        let report = PlanReport::of(&machine, &done);
        let columns = super::columns();
        let text = || super::styled(&format!("{report:columns$}"));
        let output = if self.json { super::json(&report) } else { text() };
        super::print(&output, super::exit(report.result == Verdict::Ok))
    }
}
