//! `SCENARIO` on the command line: a built-in's name, or a file.
//!
//! **Invariant**: what cannot be read is one error that names the file and, inside it, line and
//! column; nothing is run then.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use clap::Args;
use cxl_model::machine::Machine;
use cxl_model::scenario::{Scenario, ScenarioError, builtin, builtins};

/// The largest file that is read: a thousand times what a large machine needs.
const MAX_FILE: usize = 16 << 20;

/// Which scenario.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// A built-in scenario's name (see `cxl-harness scenarios`), a TOML file, or `-` (standard input).
    #[arg(value_name = "SCENARIO", default_value = "default")]
    name: String,
}

/// Why there is no scenario.
#[derive(Debug)]
pub(super) enum SourceError {
    /// Neither a built-in nor a file.
    Unknown { name: String, near: Option<&'static str> },
    /// The file cannot be read.
    Io { name: String, error: io::Error },
    /// The file is larger than any scenario.
    TooLarge { name: String },
    /// The file is no text.
    NotText { name: String, line: usize, column: usize, byte: u8 },
    /// The text is no scenario.
    Scenario(ScenarioError),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, near } => {
                write!(f, "{name}: no such file, and no built-in scenario of this name")?;
                match near {
                    Some(near) => write!(f, "; did you mean {near}?"),
                    None => f.write_str(" (cxl-harness scenarios lists them)"),
                }
            }
            Self::Io { name, error } => write!(f, "{name}: {error}"),
            Self::TooLarge { name } => {
                write!(
                    f,
                    "{name}: expected a scenario of at most {} MiB, found more",
                    MAX_FILE >> 20
                )
            }
            Self::NotText { name, line, column, byte } => write!(
                f,
                "{name}:{line}:{column}: expected a TOML text (UTF-8), found the byte {byte:#04x}"
            ),
            Self::Scenario(error) => error.fmt(f),
        }
    }
}

impl Source {
    /// The built-in of this name.
    pub(super) fn built_in(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// The scenario; a built-in wins over a file of the same name, which `./` still reaches.
    pub(super) fn scenario(&self) -> Result<Scenario, SourceError> {
        let name = self.name.as_str();
        let text = match builtin(name) {
            Some(builtin) => builtin.text.to_owned(),
            None => read(name)?,
        };
        Scenario::parse(&text, name).map_err(SourceError::Scenario)
    }

    /// Its machine.
    pub(super) fn machine(&self) -> Result<Machine, SourceError> {
        self.scenario().map(|scenario| Machine::new(&scenario))
    }
}

/// The hand-off record in a file; `None` where there is no such file, or it is something else. What is
/// wrong with it then is for whoever reads it as a scenario.
pub(super) fn record(name: &str) -> Option<Vec<u8>> {
    let is_file = name != "-" && builtin(name).is_none();
    let bytes = is_file.then(|| bytes(Path::new(name), MAX_FILE).ok()).flatten()?;
    bytes.starts_with(b"CXLFWHO\0").then_some(bytes)
}

/// There is nothing of this name.
pub(super) fn unknown(name: &str) -> SourceError {
    SourceError::Unknown { name: name.to_owned(), near: nearest(name) }
}

/// The bytes of a file, or of standard input for `-`. Where there are more than `most`, one more, so
/// that too much is seen to be too much.
pub(super) fn bytes(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let limit = most as u64 + 1;
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The text of a file.
fn read(name: &str) -> Result<String, SourceError> {
    let fail = |error: io::Error| {
        let path = Path::new(name);
        if error.kind() == io::ErrorKind::NotFound && path.components().count() == 1 {
            return unknown(name);
        }
        SourceError::Io { name: name.to_owned(), error }
    };
    let bytes = bytes(Path::new(name), MAX_FILE).map_err(fail)?;
    if bytes.len() > MAX_FILE {
        return Err(SourceError::TooLarge { name: name.to_owned() });
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let before = String::from_utf8_lossy(bytes.get(..at).unwrap_or_default());
        let last = before.rsplit('\n').next().unwrap_or_default();
        SourceError::NotText {
            name: name.to_owned(),
            line: before.matches('\n').count() + 1,
            column: last.chars().count() + 1,
            byte: bytes.get(at).copied().unwrap_or_default(),
        }
    })
}

/// The built-in whose name is at most a third different.
fn nearest(name: &str) -> Option<&'static str> {
    let near = |builtin: &'static str| (distance(name, builtin), builtin);
    let (distance, found) = builtins().iter().map(|builtin| near(builtin.name)).min()?;
    (3 * distance <= name.chars().count()).then_some(found)
}

/// Letters to insert, drop or replace to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().take(64).enumerate() {
        let mut next = vec![line + 1];
        for (column, other) in to.iter().enumerate() {
            let replaced = row.get(column).copied().unwrap_or(0) + usize::from(letter != *other);
            let dropped = row.get(column + 1).copied().unwrap_or(0) + 1;
            let inserted = next.get(column).copied().unwrap_or(0) + 1;
            next.push(replaced.min(dropped).min(inserted));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
