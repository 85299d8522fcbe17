//! `cxl-harness boot`: runs the firmware on a scenario's machine and reports.
//!
//! **Invariant**: the report is what decides the exit code; how the firmware was run does not.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use cxl_harness::machine::Machine;
use cxl_harness::report::{Measured, Report, Verdict};
use cxl_harness::run;
use cxl_harness::scenario::{Action, Scenario};
use cxl_harness::trace::{Access, TraceText};
use serde::Serialize;

use super::source::Source;

const EXAMPLES: &str = "\
The firmware finds the CXL memory of the machine, decides where it goes, programs the HDM decoders
of each path, commits and locks them, and describes the result in a CEDT. The report says what came
of it, and whether registers, hand-off record, table and verifier agree.

JSON:
  result     ok, refused (with refusal: phase, code, message) or failed (with failures)
  topology   component, kind, below, place, uid, port, decoders, volatile, persistent, present
  windows    window, base, size, ways, granularity, arithmetic, targets, restrictions
  decoders   component, fate, and the keys of `cxl-harness decode --json`: index, base, size, ways,
             granularity, targets, skip, dpa, committed, locked, ...
  regions    window, hpa, size, ways, granularity, coherency, memory, locked, members
  mappings   window, hpa, size, how (direct or trapped), reason, message, ways, granularity,
             members
  cedt       the keys of `cxl-harness decode --json`
  findings   code, failure, message: what the verifier has to say
  traffic    reads, writes, dropped, decoders (component, index, reads, writes)
  trace      with --trace: sequence, direction, address, component, register, decoder, value,
             meaning
  measured   what varies from run to run
  Addresses, sizes and codes are strings like \"0x1f\"; what does not apply is null.

Exit code:
  0  the firmware did what was asked, and every check agrees
  1  the firmware refused, or a check failed
  2  bad usage or scenario file

Examples:
  cxl-harness boot
  cxl-harness boot four-bridges
  cxl-harness boot one-device --trace | less
  cxl-harness boot machine.toml --json | jq '.decoders[] | select(.locked | not)'";

/// Run the firmware on a scenario's machine and report what it left.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Boot {
    #[command(flatten)]
    source: Source,

    /// Run the firmware on the device models in this process, without a guest.
    #[arg(long)]
    direct: bool,

    /// Print JSON instead of text; the end of this help lists the keys.
    #[arg(long)]
    json: bool,

    /// Print every register access of the firmware, with the names of registers and fields.
    #[arg(long)]
    trace: bool,

    /// Print no report: the exit code says how it went.
    #[arg(long, short, conflicts_with_all = ["json", "trace"])]
    quiet: bool,
}

/// The report with the trace behind it.
#[derive(Serialize)]
struct Traced<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Vec<Traceline>>,
}

/// One access.
#[derive(Serialize)]
struct Traceline {
    sequence: u64,
    direction: String,
    address: String,
    component: Option<String>,
    register: Option<&'static str>,
    decoder: Option<u8>,
    value: String,
    meaning: String,
}

impl Boot {
    /// `boot default`, what a bare `cxl-harness` does.
    pub(super) fn of_default() -> Self {
        let source = Source::built_in("default");
        Self { source, direct: false, json: false, trace: false, quiet: false }
    }

    pub(super) fn run(self) -> ExitCode {
        let mut machine = match self.source.machine() {
            Ok(machine) => machine,
            Err(error) => return super::fail(&error.to_string()),
        };
        if self.trace {
            machine.recorder_mut().keep();
        }
        let report = self.report(&mut machine);
        let trace = self.trace.then(|| machine.recorder_mut().take());
        let code = super::exit(report.facts.result == Verdict::Ok);
        if self.quiet {
            return code;
        }
        super::print(&self.output(&machine, &report, trace), code)
    }

    /// Runs the firmware. Whoever adds another way to run it adds it here.
    fn report(&self, machine: &mut Machine) -> Report {
        if !self.direct && !self.quiet {
            super::note("running the firmware directly on the device models, without a guest");
        }
        for event in events(machine.scenario()) {
            super::note(&event);
        }
        let start = Instant::now();
        let done = run::direct(machine);
        let run = start.elapsed();
        Report { measured: Some(Measured { run }), ..Report::of_direct(machine, &done) }
    }

    fn output(&self, machine: &Machine, report: &Report, trace: Option<Vec<Access>>) -> String {
        if self.json {
            let trace = trace.map(|trace| trace.iter().map(|a| line(machine, a)).collect());
            return super::json(&Traced { report, trace });
        }
        let trace = trace.map(|trace| format!("{}\n", TraceText(machine, &trace)));
        super::styled(&format!("{}{report}", trace.unwrap_or_default()))
    }
}

fn line(machine: &Machine, access: &Access) -> Traceline {
    Traceline {
        sequence: access.sequence,
        direction: access.direction.to_string(),
        address: format!("{:#x}", access.address),
        component: access.place.map(|place| machine.name(place).to_owned()),
        register: access.name.map(|name| name.register),
        decoder: access.name.and_then(|name| name.decoder),
        value: format!("{:#010x}", access.value),
        meaning: access.meaning(machine),
    }
}

/// What would happen in a guest and does not in a direct run, by name.
fn events(scenario: &Scenario) -> Vec<String> {
    let name = |device: usize| scenario.devices.get(device).map_or("?", |device| &device.name);
    let events = scenario.events.iter().map(|event| {
        let what = match event.action {
            Action::HotAdd { device } => format!("hot-add of {}", name(device)),
            Action::HotRemove { device } => format!("hot-remove of {}", name(device)),
            Action::Reset { device: Some(device), .. } => format!("reset of {}", name(device)),
            Action::Reset { device: None, .. } => "reset of the machine".to_owned(),
        };
        format!("{what} at count {} does not happen: it takes a guest to count", event.at)
    });
    events.collect()
}
