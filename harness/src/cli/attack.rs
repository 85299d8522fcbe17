//! `cxl-harness attack`: attacks the locks of a machine and says whether they held.
//!
//! **Invariant**: exit code 0 only for a machine that was brought up and let no write change what
//! it must not.

use std::fs;
use std::process::ExitCode;

use clap::Args;
use cxl_harness::attack::{self, Report};
use cxl_harness::machine::Machine;
use cxl_harness::run;
use cxl_harness::scenario::{Scenario, builtin};

/// A write changed what it must not, or the machine was not brought up.
const EXIT_BROKEN: u8 = 1;

const EXPLANATION: &str = "\
Each write flips one bit, in each state that a decoder can be in, and is put back. What comes of it:
  held     nothing changed anywhere
  allowed  the rules let it through; it is listed with its consequence
  changed  a breach, or an allowed effect that failed to happen

Two verdicts:
  integrity     no locked range can be made to lead to other bytes
  availability  what can still be switched off, or added in a spare decoder

Exit code:
  0  nothing changed that must not
  1  something did, or the firmware refused to bring the machine up
  2  bad usage or scenario";

/// Attack the locks of a machine, once its firmware has run.
#[derive(Debug, Args)]
#[command(after_long_help = EXPLANATION)]
pub(crate) struct Attack {
    /// A built-in scenario's name, or a TOML file.
    scenario: String,

    /// Run firmware and attack on the models, without a guest.
    #[arg(long, required = true)]
    direct: bool,

    /// Print JSON: {"attack": {tried, held, allowed, changed, states, details, ...}}.
    #[arg(long)]
    json: bool,
}

impl Attack {
    pub(super) fn run(self) -> ExitCode {
        let scenario = match self.scenario() {
            Ok(scenario) => scenario,
            Err(reason) => return super::fail(&reason),
        };
        let mut machine = Machine::new(&scenario);
        let done = run::direct(&mut machine);
        let report = match done.refusal {
            None => Ok(attack::direct(&mut machine, &done)),
            Some(refusal) => Err(refusal),
        };
        let code = match &report {
            Ok(Report { changed: 0, .. }) => ExitCode::SUCCESS,
            _ => ExitCode::from(EXIT_BROKEN),
        };
        let output = match (&report, self.json) {
            (Ok(report), false) => report.to_string(),
            (Err(refusal), false) => {
                format!("attack\n  {:<18}{:#06x}  {refusal}\n", "refused", refusal.code())
            }
            (Ok(report), true) => json(serde_json::json!({ "result": "ok", "attack": report })),
            (Err(refusal), true) => json(serde_json::json!({
                "result": "refused",
                "error": { "code": refusal.code(), "text": refusal.to_string() },
                "attack": null,
            })),
        };
        super::print(&output, code)
    }

    fn scenario(&self) -> Result<Scenario, String> {
        let name = self.scenario.as_str();
        let text = match builtin(name) {
            Some(builtin) => builtin.text.to_owned(),
            None => fs::read_to_string(name).map_err(|error| format!("{name}: {error}"))?,
        };
        Scenario::parse(&text, name).map_err(|error| error.to_string())
    }
}

fn json(value: serde_json::Value) -> String {
    format!("{value:#}\n")
}
