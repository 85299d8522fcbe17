//! `cxl-harness bench`: what access, trapping, mirroring and booting cost.
//!
//! **Invariant**: a ratio is the median of alternated pairs of this run; nothing is compared with
//! numbers of another day or machine.

use std::fmt::Write;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use cxl_harness::bench::peer::{self, Comparison};
use cxl_harness::bench::{self, Line, linux};
use cxl_harness::kvm;
use cxl_harness::linux::Installed;
use cxl_harness::qemu::process::Arch;
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

With --linux the installed Linux boots here, on the machine of two-way, and on QEMU's q35 without any
CXL, both under KVM with one processor and 1 GiB, three times in turn: how long it takes to its first
program, and how much memory each of the two has beside the guest's. Where KVM emulates CPL 0 that
needs `cxl-harness nested`, which takes kernel and QEMU along. A debug build does it, too: Linux takes
the time, not this program.

JSON then: qemu (its version), figures[] with name, accelerator, value, peer, unit, ratio, pairs; missing[].

Exit code:
  0  printed
  1  there is no KVM or no QEMU, or this is a debug build, which would measure itself
  130  Ctrl-C (128 + n after signal n: 143 SIGTERM, 129 SIGHUP)

Examples:
  cargo run --release -- bench
  cargo run --release -- bench --peer qemu --json
  cxl-harness nested -- bench --linux";

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

    /// Compare whole boots of the installed Linux with those on QEMU's q35, both under KVM.
    #[arg(long, conflicts_with = "peer")]
    linux: bool,
}

#[derive(JsonSchema, Serialize)]
pub(super) struct Figures {
    figures: Vec<Line>,
}

impl Bench {
    pub(super) fn run(self) -> ExitCode {
        if self.linux || self.peer.is_some() {
            let found = if self.linux {
                if kvm::emulates_ring_0() {
                    return super::refuse(super::boot::NO_LINUX_HERE);
                }
                let installed = match Installed::all_for(Arch::X86) {
                    Ok(installed) => installed,
                    Err(missing) => {
                        let lacks: Vec<_> = missing.iter().map(ToString::to_string).collect();
                        return super::lacking(&lacks, super::EXIT_REFUSED);
                    }
                };
                let bar = Bar::of_steps(linux::stages());
                let ran = linux::run(&installed, &mut bar::step, &super::interrupted());
                drop(bar);
                ran
            } else {
                let bar = Bar::of_steps(peer::stages());
                let ran = peer::run(&mut bar::step, &super::interrupted());
                drop(bar);
                ran
            };
            return match found {
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
