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
        if self.shell == Shell::Bash {
            script = reached(&script);
        }
        super::save(&script, None)
    }
}

/// The script for bash with every branch of it reached. clap_complete 4.6 walks the words by the
/// program's name with each hyphen as `__` (`cxl__harness__subcmd__boot`), and takes the same hyphen for
/// the gap in front of a subcommand where it labels the branches
/// (`cxl__subcmd__harness__subcmd__boot`), so no branch behind a subcommand would ever be one that the
/// walk comes to. No command has `harness` in its own name, so the labels alone hold these words; once
/// the two agree there is nothing to replace.
fn reached(script: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(script).replace("cxl__subcmd__harness", "cxl__harness").into_bytes()
}
