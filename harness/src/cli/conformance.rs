//! `cxl-harness conformance`: what a lock does, system by system.
//!
//! **Invariant**: exit code 0 only if our models, measured now, do all that is asked for.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use cxl_harness::conformance::Table;

use super::bar::{self, Bar};

const EXPLANATION: &str = "\
Each row is a sentence that is true of a system whose locks are as the section of CXL r3.1 says.
`models` is measured now, on machines that the library has locked. The others are recorded: QEMU's
devices as they were measured, OpenVMM's device model, and vfio-cxl's shadow of decoders in its
third version and that of its later tests, as published. `-` is what nobody has seen, or what the
system does not have. With --qemu the QEMU that is installed is measured as well, row by row, in a
last column.

JSON:
  systems  the columns
  rows     behaviour, section, answers (yes, no, unknown; in the order of systems)

Exit code:
  0  our models do all of it
  1  they do not, or there is no QEMU to measure
  2  bad usage

Examples:
  cxl-harness conformance
  QEMU=/opt/qemu/bin/qemu-system-x86_64 cxl-harness conformance --qemu
  cxl-harness conformance --json | jq '.rows[] | select(.answers[1] == \"no\") | .behaviour'";

/// Time for QEMU to answer anything.
const LIMIT: Duration = Duration::from_secs(60);

/// Print what a lock does, behaviour by behaviour and system by system.
#[derive(Debug, Args)]
#[command(after_long_help = EXPLANATION)]
pub(super) struct Conformance {
    /// Measure the QEMU that is installed, too (or the one that QEMU in the environment names).
    #[arg(long)]
    qemu: bool,

    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

impl Conformance {
    pub(super) fn run(self) -> ExitCode {
        let mut table = Table::measured();
        if self.qemu {
            let bar = Bar::of_steps(table.rows.len());
            table = match table.with_qemu(LIMIT, &mut bar::step) {
                Ok(table) => table,
                Err(error) => return super::refuse(&error.to_string()),
            };
            drop(bar);
        }
        let output = if self.json { super::json(&table) } else { text(&table) };
        super::print(&output, super::exit(table.conforms()))
    }
}

/// The table, no wider than the terminal; elsewhere whole, for programs that read columns.
fn text(table: &Table) -> String {
    match terminal_size::terminal_size_of(io::stdout()) {
        Some((terminal_size::Width(columns), _)) => {
            let columns = usize::from(columns);
            format!("{table:columns$}")
        }
        None => table.to_string(),
    }
}
