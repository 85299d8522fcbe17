//! `SCENARIO` on the command line: a built-in's name, or a file.
//!
//! **Invariant**: what cannot be read is one error that names the file and, inside it, line and
//! column; nothing is run then.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use cxl_lint::{Images, Input};
use cxl_model::capture::Ask;
use cxl_model::machine::Machine;
use cxl_model::scenario::{Scenario, ScenarioError, builtin, builtins};
use cxl_model::words::nearest_word;

pub(super) use super::bundle::bytes;
use super::bundle::{Bundle, images};

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
        let scenario = Scenario::parse(&text, name).map_err(SourceError::Scenario)?;
        scenario.remarks.iter().for_each(|remark| super::note(remark));
        Ok(scenario)
    }

    /// Its machine.
    pub(super) fn machine(&self) -> Result<Machine, SourceError> {
        self.scenario().map(|scenario| Machine::new(&scenario))
    }
}

impl Source {
    /// As it was given.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What is in the file, if it is neither a built-in's name nor a scenario: an image set, dumps, or what
    /// Linux shows; `further` files are read beside it. What is to be known of it comes with it.
    pub(super) fn input(
        &self,
        further: &[PathBuf],
    ) -> Result<Option<(Input, Vec<String>)>, String> {
        if builtin(&self.name).is_some() {
            return Ok(None);
        }
        let path = Path::new(&self.name);
        let mut bundle = Bundle::default();
        if path.is_dir() {
            if let Some(images) = images(path, None)? {
                return whole(&images, further);
            }
            bundle.add(path, Ask::default())?;
        } else {
            // What cannot be read, or is too much, is said of the scenario that it is not.
            let Ok(bytes) = bytes(path, MAX_FILE) else { return Ok(None) };
            if let Some(images) = images(path, Some(&bytes))? {
                return whole(&images, further);
            }
            let text = str::from_utf8(&bytes).ok();
            let toml = path.extension().is_some_and(|extension| extension == "toml");
            if toml || bytes.len() > MAX_FILE || text.is_some_and(is_scenario) {
                return Ok(None);
            }
            bundle.given(path, &bytes, Ask::default())?;
        }
        for file in further {
            bundle.add(file, Ask::default())?;
        }
        let captures = bundle.finish(path)?;
        Input::of_captures(&captures).map(Some).map_err(|error| error.to_string())
    }
}

/// An image set, which says itself what belongs to it.
fn whole(images: &Images, further: &[PathBuf]) -> Result<Option<(Input, Vec<String>)>, String> {
    match further {
        [] => Ok(Some(images.with_witness())),
        _ => Err("--with: an image set names all of its files itself".to_owned()),
    }
}

/// Whether a text is meant as a scenario: what is wrong with it then is for its reader. Every scenario has
/// a table or a key of TOML in its first lines, and no dump has.
fn is_scenario(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let meant = |line: &str| {
        line.starts_with("[[")
            || line.starts_with("[policy")
            || line.starts_with("[platform")
            || line.starts_with("name =")
    };
    lines.by_ref().take(200).find(|line| !line.starts_with('#')).is_none_or(meant)
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
    SourceError::Unknown {
        name: name.to_owned(),
        near: nearest_word(name, builtins().iter().map(|builtin| builtin.name)),
    }
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
