//! `cxl-harness bench`: what access, trapping, mirroring and booting cost.
//!
//! **Invariant**: a ratio is the median of alternated pairs of this run; nothing is compared with
//! numbers of another day or machine.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use cxl_harness::bench::{self, Line};
use serde::Serialize;

const EXPLANATION: &str = "\
Each ratio is the median of 31 pairs, A and B in turn, after a pair that warms up. A host that is
busy makes both slower; the ratio stays.

JSON: figures[] with name, value, unit, ratio, aim, pairs.

Exit code:
  0  printed
  1  there is no KVM, or this is a debug build, which would measure itself";

/// Measure, in pairs: a mirrored window against RAM, a trap against a bare exit, and so on.
#[derive(Debug, Args)]
#[command(after_long_help = EXPLANATION)]
pub(super) struct Bench {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures {
    figures: Vec<Line>,
}

impl Bench {
    pub(super) fn run(self) -> ExitCode {
        let figures = match bench::run(&mut |what| super::progress(what)) {
            Ok(figures) => figures,
            Err(error) => return super::refuse(&error.to_string()),
        };
        let output = if self.json { super::json(&Figures { figures }) } else { table(&figures) };
        super::print(&output, ExitCode::SUCCESS)
    }
}

fn table(figures: &[Line]) -> String {
    let mut text = format!("{:<58} {:>12} {:>9} {:>9}\n", "figure", "median", "ratio", "aim");
    for Line { name, value, unit, ratio, aim, .. } in figures {
        let value = format!("{value:.2} {unit}");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<58} {value:>12} {ratio:>9.3} {aim:>9.2}");
    }
    text
}
