//! Why a text is not a scenario: place, what was expected, what was found.
//!
//! **Invariant**: every error names a line and a column of the text, both counted from 1.

use std::fmt;
use std::ops::Range;

use crate::typed::place;

/// A scenario that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError {
    /// The file or built-in.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line itself.
    pub source_line: String,
    /// What is wrong there.
    pub problem: Box<Problem>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Not TOML, an unknown or missing key, or a value of another type, as [`crate::typed`] says it.
    Text(String),
    /// A name that leads nowhere.
    UnknownName {
        /// What kind of thing the key names.
        expected: &'static str,
        /// The name.
        found: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// Two things with one name, UID, port number or place.
    Taken {
        /// What there can be only one of.
        what: &'static str,
        /// Its value.
        found: String,
        /// Who has it already.
        by: String,
    },
    /// A number or list outside what the format (or the register that says it) can hold.
    OutOfRange {
        /// The key.
        key: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A key that another key's value demands.
    MissingKey {
        /// The key.
        key: &'static str,
        /// Why it has to be there.
        because: String,
    },
    /// A key that another key's value makes meaningless.
    UselessKey {
        /// The key.
        key: &'static str,
        /// Why it must not be there.
        because: String,
    },
    /// A switch hangs below itself.
    Cycle {
        /// The switch.
        switch: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(words) => f.write_str(words),
            Self::UnknownName { expected, found, known } if known.is_empty() => {
                write!(f, "expected {expected} (there is none), found `{found}`")
            }
            Self::UnknownName { expected, found, known } => {
                write!(f, "expected {expected} (one of {}), found `{found}`", known.join(", "))
            }
            Self::Taken { what, found, by } => {
                write!(f, "expected a {what} that is free, found {found}, which {by} has")
            }
            Self::OutOfRange { key, expected, found } => {
                write!(f, "`{key}`: expected {expected}, found {found}")
            }
            Self::MissingKey { key, because } => {
                write!(f, "expected the key `{key}`, found none: {because}")
            }
            Self::UselessKey { key, because } => {
                write!(f, "expected no key `{key}` here: {because}")
            }
            Self::Cycle { switch } => {
                write!(
                    f,
                    "expected a port that leads up to a bridge, found `{switch}` below itself"
                )
            }
        }
    }
}

impl ScenarioError {
    /// A problem at a byte range of the text.
    pub(super) fn at(text: &str, file: &str, span: Range<usize>, problem: Problem) -> Self {
        let (line, column) = place(text, span.start);
        Self {
            file: file.to_owned(),
            line,
            column,
            source_line: text.lines().nth(line - 1).unwrap_or_default().to_owned(),
            problem: Box::new(problem),
        }
    }
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, source_line, problem } = self;
        writeln!(f, "{file}:{line}:{column}: {problem}")?;
        write!(f, "{line:>5} | {source_line}\n      | {:>column$}", "^")
    }
}

impl std::error::Error for ScenarioError {}
