//! `cxl-harness plan`: what the firmware would write, and why there.
//!
//! **Invariant**: no decoder is written.

use std::process::ExitCode;

use clap::Args;
use cxl_harness::report::{PlanReport, Verdict};

use super::earlier::Earlier;
use super::source::Source;

const EXAMPLES: &str = "\
Exit code:
  0  there is a plan, without what the scenario leaves out
  1  the firmware refuses: one line says why, with the numbers; or there is no CXL memory to plan for;
     or with best effort something is lost, and the plan is that of the rest
  2  bad usage or scenario file

JSON:
  result, refusal (phase, code, message), lost (with best effort: what and why), refused (where a region has no place: window, why),
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

    #[command(flatten)]
    earlier: Earlier,

    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

impl Plan {
    pub(super) fn run(self) -> ExitCode {
        let scenario = match self.earlier.scenario(&self.source) {
            Ok(scenario) => scenario,
            Err(error) => return super::fail(&error),
        };
        let report = PlanReport::new(&scenario);
        let columns = super::columns();
        let text = || super::styled(&format!("{report:columns$}"));
        let output = if self.json { super::json(&report) } else { text() };
        super::print(&output, super::exit(report.result == Verdict::Ok))
    }
}
