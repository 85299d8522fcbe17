//! `cxl-harness image`: the bare-metal image as a file, for other machines than ours.
//!
//! **Invariant**: what is written is the image that `boot` runs, byte for byte.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use cxl_harness::guest::boot::IMAGE;

use super::output::Output;

const EXAMPLES: &str = "\
It is a static ELF file with a PVH note, which QEMU and other VMMs boot as a kernel. Its command
line chooses policy and payload; firmware/image/src/options.rs and words.rs list the words.

Exit code:
  0  written
  2  bad usage or output file

Examples:
  cxl-harness image image.elf
  qemu-system-x86_64 -machine q35,cxl=on ... -serial stdio \\
      -device isa-debug-exit,iobase=0xf4,iosize=4 \\
      -kernel image.elf -append width=widest";

/// Write the bare-metal image to a file.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Image {
    /// Where to; `-` is standard output.
    file: PathBuf,
}

impl Image {
    pub(super) fn run(self) -> ExitCode {
        let file = Some(self.file.as_path()).filter(|file| *file != Path::new("-"));
        if file.is_none() && io::stdout().is_terminal() {
            return super::fail("the image is binary and standard output a terminal: name a file");
        }
        match file.map(Output::ready).transpose() {
            Ok(file) => super::save(IMAGE, file.as_ref()),
            Err(error) => super::fail(&error),
        }
    }
}
