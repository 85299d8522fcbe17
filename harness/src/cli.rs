//! The command line: what can be asked for, and the exit code it ends with.
//!
//! **Invariant**: output is complete before the first byte of it is written, and nothing but output
//! goes to standard output.

mod attack;
mod decode;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Bad input, or a command line that makes no sense.
const EXIT_BAD_INPUT: u8 = 2;

/// Reads, plans and proves CXL memory set-ups.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Attack(attack::Attack),
    Decode(decode::Decode),
}

impl Cli {
    /// Does what was asked for.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Attack(attack) => attack.run(),
            Command::Decode(decode) => decode.run(),
        }
    }
}

/// Writes finished output. A reader that has gone away (`| head`) has seen what it wanted.
fn print(output: &str, code: ExitCode) -> ExitCode {
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(output.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            fail(&format!("standard output: {error}"))
        }
        _ => code,
    }
}

/// Says in one line why nothing was printed.
fn fail(reason: &str) -> ExitCode {
    let red = anstyle::AnsiColor::Red.on_default().bold();
    // There is nobody left to tell if standard error is gone too.
    let _ = writeln!(anstream::stderr(), "{red}error{red:#}: {reason}");
    ExitCode::from(EXIT_BAD_INPUT)
}
