//! `cxl-harness dump`: a scenario's machine as files.
//!
//! **Invariant**: a directory that has something in it is not written to.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use cxl_harness::{dumped, run};

use super::source::Source;

const EXAMPLES: &str = "\
Files:
  machine.toml       an image set: which dump is what (cxl-harness lint --help has its keys)
  cedt.dat           the table, and acpidump.txt, the same as acpidump prints it
  NAME.bin           the CXL.cache/mem range of a bridge, switch or device
  NAME.lspci         a device's configuration space, and lspci.txt, that of all functions
  console.log        table, decoders and DVSECs as our image prints them for -append dump

Exit code:
  0  written
  1  written, of a machine that the firmware refused (as the note says)
  2  bad usage, scenario file or directory

Examples:
  cxl-harness dump default board
  cxl-harness lint board
  cxl-harness explain board 0x100000000
  cxl-harness explain board/console.log 0x100000000
  cxl-harness decode board/acpidump.txt
  cxl-harness decode --diff board/mem0.bin other/mem0.bin";

/// Run the firmware on a scenario, and write what it left as files: registers, tables, configuration space.
///
/// In the forms in which people have those of their machines, to try `decode`, `lint` and `explain` on.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Dump {
    /// A built-in scenario's name (see `cxl-harness scenarios`), a TOML file, or `-` (standard input).
    #[arg(value_name = "SCENARIO")]
    scenario: String,

    /// A new or empty directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Dump {
    pub(super) fn run(self) -> ExitCode {
        let mut machine = match Source::built_in(&self.scenario).machine() {
            Ok(machine) => machine,
            Err(error) => return super::fail(&error.to_string()),
        };
        let directory = self.directory.display();
        let fail = |error: std::io::Error| super::fail(&super::unwritten(&self.directory, &error));
        if let Err(error) = fs::create_dir_all(&self.directory) {
            return fail(error);
        }
        match fs::read_dir(&self.directory).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => {
                let reason = format!("{directory}: expected a new or empty directory, found files");
                return super::fail(&reason);
            }
            Err(error) => return fail(error),
        }
        let done = run::direct(&mut machine);
        if let Some(refusal) = &done.refusal {
            super::note(&format!("the firmware refused: {refusal}"));
        }
        let mut text = String::new();
        for (name, bytes) in dumped::files(&mut machine, &done.cedt) {
            if let Err(error) = fs::write(self.directory.join(&name), &bytes) {
                return fail(error);
            }
            text += &format!("{directory}/{name}\n");
        }
        super::print(&text, super::exit(done.refusal.is_none()))
    }
}
