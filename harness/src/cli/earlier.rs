//! `--earlier`: where memory was before, by a hand-off record or by the machine as it was.
//!
//! **Invariant**: what cannot be read is an error that names the file; nothing is run then.

use clap::Args;
use cxl_harness::run;
use cxl_model::machine::Machine;
use cxl_model::scenario::Scenario;

use super::source::{self, Source};

/// Where memory was before.
#[derive(Debug, Default, Args)]
pub(super) struct Earlier {
    /// Keep memory where it was: a hand-off record (`boot --record` writes one), or the scenario of the
    /// machine as it was, which is brought up on the models first. What could not stay is a note.
    #[arg(long, value_name = "RECORD|SCENARIO")]
    earlier: Option<String>,
}

impl Earlier {
    /// Whether it was asked for.
    pub(super) fn is_given(&self) -> bool {
        self.earlier.is_some()
    }

    /// The machine of a scenario, with what was there before.
    pub(super) fn machine(&self, source: &Source) -> Result<Machine, String> {
        self.scenario(source).map(|scenario| Machine::new(&scenario))
    }

    /// The scenario, with what was there before.
    pub(super) fn scenario(&self, source: &Source) -> Result<Scenario, String> {
        let mut scenario = source.scenario().map_err(|error| error.to_string())?;
        let Some(name) = self.earlier.as_deref() else { return Ok(scenario) };
        let record = match source::record(name) {
            Some(record) => record,
            None => {
                let machine = Source::built_in(name).machine();
                let mut machine = machine.map_err(|error| error.to_string())?;
                let done = run::direct(&mut machine);
                if let Some(refusal) = done.refusal {
                    return Err(format!("{name}: the machine as it was is refused: {refusal}"));
                }
                done.handoff
            }
        };
        scenario.earlier = run::earlier(&record).map_err(|error| format!("{name}: {error}"))?;
        Ok(scenario)
    }
}
