//! The `cxl-harness` command.
//!
//! **Invariant**: no logic here: each subcommand is a module of [`cli`], each job a module of the
//! library.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::Cli::parsed() {
        Ok(cli) => cli.run(),
        Err(error) => cli::told(&error),
    }
}
