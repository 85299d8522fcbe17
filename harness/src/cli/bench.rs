//! `cxl-harness bench`: what access, trapping, mirroring and booting cost.
//!
//! **Invariant**: a ratio is the median of alternated pairs of this run; nothing is compared with
//! numbers of another day or machine.

use std::fmt::Write;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use cxl_harness::bench::peer::{self, Comparison};
use cxl_harness::bench::{self, Line};
use schemars::JsonSchema;
use serde::Serialize;

use super::bar::{self, Bar};

const EXPLANATION: &str = "\
Each ratio is the median of 31 pairs, A and B in turn, after a pair that warms up. A host that is
busy makes both slower; the ratio stays.

JSON: figures[] with name, value, unit, ratio, aim, pairs.

With --peer the same image and payload run here and on QEMU, and ratio is how many times as long
QEMU takes; the column \"by\" names what runs the guest there, here it is KVM. An aim has none of
these. It takes a few minutes where QEMU's BIOS is emulated.

JSON then: qemu (its version), figures[] with name, accelerator, value, peer, unit, ratio, pairs; missing[].

Exit code:
  0  printed
  1  there is no KVM or no QEMU, or this is a debug build, which would measure itself
  130  Ctrl-C (128 + n after signal n: 143 SIGTERM, 129 SIGHUP)

Examples:
  cargo run --release -- bench
  cargo run --release -- bench --peer qemu --json";

/// What can be measured beside us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// QEMU's CXL devices.
    Qemu,
}

/// Measure, in pairs: a mirrored window against RAM, a trap against a bare exit, and so on.
#[derive(Debug, Args)]
#[command(after_long_help = EXPLANATION)]
pub(super) struct Bench {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,

    /// Compare with another machine.
    #[arg(long, value_enum, value_name = "PEER")]
    peer: Option<Peer>,
}

#[derive(JsonSchema, Serialize)]
pub(super) struct Figures {
    figures: Vec<Line>,
}

impl Bench {
    pub(super) fn run(self) -> ExitCode {
        if let Some(Peer::Qemu) = self.peer {
            let bar = Bar::of_steps(peer::stages());
            let ran = peer::run(&mut bar::step, &super::interrupted());
            drop(bar);
            return match ran {
                Ok(found) => {
                    let output = if self.json { super::json(&found) } else { compared(&found) };
                    super::print(&output, ExitCode::SUCCESS)
                }
                Err(peer::PeerError::Interrupted) => {
                    super::complain("interrupted", super::signals().code())
                }
                Err(error) => super::refuse(&error.to_string()),
            };
        }
        let bar = Bar::of_steps(bench::stages());
        let ran = bench::run(&mut bar::step);
        drop(bar);
        let figures = match ran {
            Ok(figures) => figures,
            Err(error) => return super::refuse(&error.to_string()),
        };
        let output = if self.json { super::json(&Figures { figures }) } else { table(&figures) };
        super::print(&output, ExitCode::SUCCESS)
    }
}

fn compared(found: &Comparison) -> String {
    let version = format!("QEMU {}", found.qemu);
    let mut text =
        format!("{:<40} {:>4} {:>14} {version:>14} {:>9}\n", "figure", "by", "here", "ratio");
    for peer::Line { name, accelerator, value, peer, unit, ratio, .. } in &found.figures {
        let (value, peer) = (format!("{value:.2} {unit}"), format!("{peer:.2} {unit}"));
        let digits = if *ratio < 10.0 { 4 } else { 0 };
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "{name:<40} {accelerator:>4} {value:>14} {peer:>14} {ratio:>9.digits$}");
    }
    for missing in &found.missing {
        let _ = writeln!(text, "no figure: {missing}");
    }
    text
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
