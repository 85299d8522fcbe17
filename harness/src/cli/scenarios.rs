//! `cxl-harness scenarios`: what is built in.
//!
//! **Invariant**: what is printed for a name is what runs under that name.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use cxl_model::scenario::{Scenario, builtin, builtins};
use schemars::JsonSchema;
use serde::Serialize;

use super::source;

const EXAMPLES: &str = "\
Every other command takes the name of a built-in scenario, or a file in the same format. A good way
to a scenario of your own is to start with one that is close.

Exit code:
  0  printed
  2  no such scenario

Examples:
  cxl-harness scenarios
  cxl-harness scenarios one-device
  cxl-harness scenarios switch > mine.toml && cxl-harness boot mine.toml";

/// List the built-in scenarios, or print one as TOML.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Scenarios {
    /// The scenario to print.
    name: Option<String>,

    /// Print the list as JSON.
    #[arg(long, conflicts_with = "name")]
    json: bool,
}

#[derive(JsonSchema, Serialize)]
pub(super) struct Listed {
    name: &'static str,
    description: String,
}

/// All of them.
#[derive(JsonSchema, Serialize)]
pub(super) struct List {
    scenarios: Vec<Listed>,
}

impl Scenarios {
    pub(super) fn run(self) -> ExitCode {
        if let Some(name) = &self.name {
            return match builtin(name) {
                Some(builtin) => super::print(builtin.text, ExitCode::SUCCESS),
                None => super::fail(&source::unknown(name).to_string()),
            };
        }
        let list = builtins().iter().map(|builtin| Listed {
            name: builtin.name,
            description: Scenario::built_in(builtin.name)
                .map(|scenario| scenario.description)
                .unwrap_or_default(),
        });
        let list: Vec<Listed> = list.collect();
        if self.json {
            return super::print(&super::json(&List { scenarios: list }), ExitCode::SUCCESS);
        }
        let width = list.iter().map(|listed| listed.name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for Listed { name, description } in list {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:<width$}  {description}");
        }
        super::print(&super::fitted(&text), ExitCode::SUCCESS)
    }
}
