//! The `cxl-harness` command.
//!
//! **Invariant**: no logic here: each subcommand is a module of [`cli`], each job a module of the
//! library.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::Cli::parse().run()
}
