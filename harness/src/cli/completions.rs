//! `cxl-harness completions`: what a shell asks for at the Tab key.

use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

const EXAMPLES: &str = "\
Exit code:
  0  printed
  2  bad usage

Examples:
  cxl-harness completions bash > ~/.local/share/bash-completion/completions/cxl-harness
  cxl-harness completions zsh > \"${fpath[1]}/_cxl-harness\"
  cxl-harness completions fish > ~/.config/fish/completions/cxl-harness.fish";

/// Print a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> ExitCode {
        let mut script = Vec::new();
        clap_complete::generate(
            self.shell,
            &mut super::Cli::command(),
            env!("CARGO_BIN_NAME"),
            &mut script,
        );
        super::save(&script, None)
    }
}
