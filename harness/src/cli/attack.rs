//! `cxl-harness attack`: attacks the locks of a machine and says whether they held.
//!
//! **Invariant**: exit code 0 only for a machine that was brought up and let no write change what
//! it must not.

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use clap::Args;
use cxl_harness::attack::{self, Report};
use cxl_harness::html;
use cxl_harness::report::{Refusal, Report as RunReport, Verdict};
use cxl_harness::run::{self, DirectRun};
use cxl_harness::suite::Suite;
use cxl_model::machine::Machine;
use cxl_model::words::counted;
use schemars::JsonSchema;
use serde::Serialize;

use super::bar::{self, Bar};
use super::source::Source;
use super::{PageFile, Shape};

const EXPLANATION: &str = "\
First each write flips one bit, in each state that a decoder can be in, and is put back; then whole
values and stores of every width are tried at what locks freeze, in every mode. What comes of it:
  held     nothing changed anywhere
  allowed  the rules let it through; it is listed with its consequence
  changed  a breach, or an allowed effect that failed to happen

Two verdicts:
  integrity     no locked range can be made to lead to other bytes
  availability  what can still be switched off, or added in a spare decoder

JSON:
  result   ok; failed (something changed, or failures); refused (with refusal: phase, code, message)
  failures  what was wrong before the attack, as boot says it: what best effort lost
  attack   tried, held, allowed, changed,
           states (name, component, tried, held, allowed, changed, skipped),
           details (register, bits, class, consequence, states, components, decoders),
           integrity (holds, complete, ranges, open, breaches; holds is false, too,
           where an attack was cut off, which complete says),
           availability (component, register, consequence, effects),
           not_tried (modes of the scenario that could not be entered),
           grid: columns (states and modes), rows (register, components, decoders, and cells: by
           column what came of the tries there, as held/allowed/changed), left_out (rows),
           left_out (details, breaches, availability: how many more than 256)

Exit code:
  0  there was a sealed range to hold, and nothing changed that must not
  1  something did, no range is sealed, a mode of the scenario was not tried, or the firmware refused
     to bring the machine up, or lost a part of it (best effort)
  2  bad usage or scenario
  130  Ctrl-C (128 + n after signal n: 143 SIGTERM, 129 SIGHUP)

Examples:
  cxl-harness attack one-device --direct
  cxl-harness attack lock-not-enforced --direct; echo $?
  cxl-harness attack machine.toml --direct --json | jq '.attack.integrity'";

/// Attack the locks of a machine, once its firmware has run.
#[derive(Debug, Args)]
#[command(after_long_help = EXPLANATION)]
pub(crate) struct Attack {
    #[command(flatten)]
    source: Source,

    /// Run firmware and attack on the models, without a guest.
    #[arg(long, required = true)]
    direct: bool,

    #[command(flatten)]
    shape: Shape,

    #[command(flatten)]
    page: PageFile,
}

/// What is printed as JSON.
#[derive(JsonSchema, Serialize)]
pub(super) struct Outcome {
    result: Verdict,
    refusal: Option<Refusal>,
    /// What was wrong before the attack.
    failures: Vec<String>,
    attack: Option<Report>,
}

impl Attack {
    pub(super) fn run(self) -> ExitCode {
        let mut machine = match self.source.machine() {
            Ok(machine) => machine,
            Err(error) => return super::fail(&error.to_string()),
        };
        let page = match self.page.ready() {
            Ok(page) => page,
            Err(error) => return super::fail(&error),
        };
        let before = machine.fabric();
        let done = run::direct(&mut machine);
        // As the firmware left it: what the attack leaves is good for a reset.
        let mut facts = RunReport::of_direct(&machine, &done).facts;
        let outcome = match &done.refusal {
            Some(refusal) => Outcome {
                result: Verdict::Refused,
                refusal: Some(Refusal::from(refusal)),
                failures: Vec::new(),
                attack: None,
            },
            None => {
                let report = match attacked(&mut machine, &done) {
                    Ok(report) => report,
                    Err(so_far) => return super::complain(&so_far, super::signals().code()),
                };
                let good = report.held() && facts.result == Verdict::Ok;
                let result = if good { Verdict::Ok } else { Verdict::Failed };
                let failures = facts.failures();
                Outcome { result, refusal: None, failures, attack: Some(report) }
            }
        };
        let name = || format!("attack {}", machine.scenario().name);
        let suite = || {
            let suite = match (&outcome.attack, &outcome.refusal) {
                (Some(report), _) => Suite::of_attack(name(), report, &facts),
                (None, refusal) => Suite::of_refusal(name(), refusal.as_ref()),
            };
            suite.about([self.source.name()])
        };
        let collected = self.shape.collected(suite);
        if let Some(attack) = &outcome.attack {
            facts.set_attack(attack.clone());
        }
        let told =
            page.map(|page| (page, html::of_run(&facts, Some(&before), &super::command_line())));
        let told = told.as_ref().map(|(page, told)| (page, told));
        if let Some(output) = collected {
            return super::print_with(&output, told, super::exit(outcome.result == Verdict::Ok));
        }
        let output = match &outcome {
            outcome if self.shape.is_json() => super::json(outcome),
            Outcome { attack: Some(report), failures, .. } => {
                let lines = failures.iter().map(|failure| format!("  {:<18}{failure}\n", "failure"));
                let before = lines.collect::<String>();
                let head = if before.is_empty() { "" } else { "before the attack\n" };
                super::styled(&format!("{head}{before}{report}"))
            }
            Outcome { refusal, .. } => super::styled(&refusal.iter().fold(
                "attack: there is nothing to attack, as the firmware did not bring the machine up\n"
                    .to_owned(),
                |text, Refusal { phase, code, message }| {
                    format!("{text}  refusal           {message} ({phase}, {code:#06x})\n")
                },
            )),
        };
        super::print_with(&output, told, super::exit(outcome.result == Verdict::Ok))
    }
}

/// The attack, with its progress; how far it came if a signal has ended it.
fn attacked(machine: &mut Machine, done: &DirectRun) -> Result<Report, String> {
    let flag = super::interrupted();
    let ended = || flag.load(Ordering::Relaxed);
    let most = attack::steps(machine);
    let (mut steps, mut last) = (0, "nothing begun".to_owned());
    let mut tell = |state: &str, component: &str| {
        // Once it has ended the rest is gone through without a try.
        if !ended() {
            steps += 1;
            last = format!("{state}: {component}");
        }
        bar::attacked(state, component);
    };
    let bar = Bar::of_steps(most);
    let report = attack::direct_until(machine, done, &mut tell, &ended);
    drop(bar);
    if !ended() {
        return Ok(report);
    }
    let (tried, changed, short) = (report.tried, report.through(), report.and_short());
    Err(format!(
        "interrupted in step {steps} of at most {most} ({last}); {} tried by then, \
         {changed} of them changed what they must not{short}",
        counted(tried, "write")
    ))
}
