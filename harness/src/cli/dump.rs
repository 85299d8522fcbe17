//! `cxl-harness dump`: a scenario's machine as files.
//!
//! **Invariant**: a directory that has something in it is not written to.

use cxl_model::words::counted;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use cxl_harness::collect::outside;
use cxl_harness::{dumped, run};

use super::bar::Bar;
use super::collect::{is_new, save};
use super::source::Source;

const EXAMPLES: &str = "\
Files:
  machine.toml       an image set: which dump is what (cxl-harness lint --help has its keys)
  cedt.dat           the table, and acpidump.txt, the same as acpidump prints it
  NAME.bin           the CXL.cache/mem range of a bridge, switch or device
  NAME.lspci         a device's configuration space, and lspci.txt, that of all functions
  console.log        table, decoders and DVSECs as our image prints them for -append dump

With --qemu the files are those of `cxl-harness collect`, of QEMU's machine.

Exit code:
  0  written
  1  written, of a machine that the firmware refused, or with registers that could not be read (as the
     note says); or there is no QEMU that can do it
  2  bad usage, scenario file or directory

Examples:
  cxl-harness dump default board
  cxl-harness dump --qemu two-way board
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
    /// A built-in scenario's name (see `cxl-harness scenarios`), a TOML file, or `-` (standard input). With
    /// --qemu also the qtest socket of a QEMU that runs.
    #[arg(value_name = "SCENARIO")]
    scenario: String,

    /// A new or empty directory, a new file that ends in .tar, or `-` (an archive on standard output).
    #[arg(value_name = "DIR|FILE.tar")]
    to: PathBuf,

    /// The machine on QEMU instead of the models, read from outside: the library brings the scenario's up
    /// there, or it is that of a QEMU that runs, as `-qtest unix:SOCKET,server=on,wait=off` started it.
    #[arg(long)]
    qemu: bool,

    /// Give up on QEMU after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "qemu",
          value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

impl Dump {
    pub(super) fn run(self) -> ExitCode {
        if let Err(reason) = is_new(&self.to) {
            return super::fail(&reason);
        }
        let (files, refusal) = match if self.qemu { self.outside() } else { self.modelled() } {
            Ok(found) => found,
            Err(code) => return code,
        };
        if let Err(reason) = save(&self.to, &files) {
            return super::fail(&reason);
        }
        let to = self.to.display();
        let archive = self.to.extension().is_some_and(|extension| extension == "tar");
        let text = match archive {
            // What follows the archive would be a part of it.
            _ if self.to == Path::new("-") => String::new(),
            true => format!("{to}: {}\n", counted(files.len(), "file")),
            false => files.iter().map(|(name, _)| format!("{to}/{name}\n")).collect(),
        };
        super::print(&text, super::exit(!refusal))
    }

    /// The machine of models, and whether the firmware refused it.
    fn modelled(&self) -> Result<Dumped, ExitCode> {
        let machine = Source::built_in(&self.scenario).machine();
        let mut machine = machine.map_err(|error| super::fail(&error.to_string()))?;
        let done = run::direct(&mut machine);
        if let Some(refusal) = &done.refusal {
            super::note(&format!("the firmware refused: {refusal}"));
        }
        Ok((dumped::files(&mut machine, &done.cedt), done.refusal.is_some()))
    }

    /// The machine on QEMU, and whether anything of it could not be read.
    fn outside(&self) -> Result<Dumped, ExitCode> {
        // Before the first process is started: what it leaves is to be cleaned up.
        super::signals();
        let limit = Duration::from_secs(self.timeout);
        let path = Path::new(&self.scenario);
        let is_socket = path.metadata().is_ok_and(|facts| facts.file_type().is_socket());
        let found = if is_socket {
            outside::running(path, limit)
        } else {
            let scenario = Source::built_in(&self.scenario).scenario();
            let scenario = scenario.map_err(|error| super::fail(&error.to_string()))?;
            let _bar = Bar::until(limit, "QEMU starts, and the library brings its machine up");
            outside::brought_up_by_us(&scenario, limit)
        };
        let found = found.map_err(|error| super::refuse(&error.to_string()))?;
        for withheld in &found.withheld {
            super::note(&format!("{}: withheld: {}", withheld.what, withheld.why));
        }
        Ok((found.files(), !found.withheld.is_empty()))
    }
}

/// Files, and whether they are of less than was asked for.
type Dumped = (Vec<(String, Vec<u8>)>, bool);
