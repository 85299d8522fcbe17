//! `cxl-harness error`: what a number of the library means.
//!
//! **Invariant**: what is printed is the library's own row, and a number that it does not know is said
//! to be none.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use cxl_firmware::error::Code;
use cxl_firmware::plan::Note;
use cxl_harness::remedies;
use schemars::JsonSchema;
use serde::Serialize;

const EXAMPLES: &str = "\
A library that is built without sentences, and every hand-off record, says numbers alone. What stands
between < and > is filled in by the error itself: its place, what was expected, what was found.

Exit code:
  0  printed
  1  no such number
  2  bad usage, such as a name that none has

Examples:
  cxl-harness error 0x040f
  cxl-harness error PLAN_WINDOW_FULL
  cxl-harness error 0x0309 0x0381 --json
  cxl-harness error | grep lock";

/// Look up numbers of errors, remarks and notes: sentence, phase, and what to do.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Error {
    /// Numbers such as 0x040f, or names such as COMMIT_REFUSED; without one, a list of all.
    #[arg(value_name = "NUMBER|NAME")]
    wanted: Vec<String>,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One number.
#[derive(JsonSchema, Serialize)]
pub(super) struct Meaning {
    number: String,
    name: &'static str,
    /// The function of the library that says it.
    phase: &'static str,
    /// Whether something is wrong, not just worth knowing.
    failure: bool,
    /// With holes between < and >.
    sentence: Option<String>,
    remedy: Option<&'static str>,
}

/// Several.
#[derive(JsonSchema, Serialize)]
pub(super) struct Meanings<'m> {
    numbers: Vec<&'m Meaning>,
}

impl Meaning {
    fn of(code: Code) -> Self {
        Self {
            number: format!("{:#06x}", code.number()),
            name: code.name().unwrap_or_default(),
            phase: code.phase().name(),
            failure: code.is_failure(),
            sentence: remedies::sentence(code),
            remedy: remedies::of(code),
        }
    }

    fn of_note(number: u16, name: &'static str) -> Self {
        Self {
            number: format!("{number:#06x}"),
            name,
            phase: "plan",
            failure: false,
            sentence: None,
            remedy: Some("Nothing: a note of the plan, in words in `cxl-harness plan`."),
        }
    }

    fn all() -> Vec<Self> {
        let notes = Note::CODES.iter().map(|&(number, name)| Self::of_note(number, name));
        let mut all: Vec<_> = Code::ALL.iter().map(|&code| Self::of(code)).chain(notes).collect();
        all.sort_by(|a, b| a.number.cmp(&b.number));
        all
    }

    fn is(&self, wanted: &str) -> bool {
        let digits = wanted.strip_prefix("0x").or_else(|| wanted.strip_prefix("0X"));
        let number = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        number.is_some_and(|number| self.number == format!("{number:#06x}"))
            || self.name.eq_ignore_ascii_case(wanted)
    }
}

impl Error {
    pub(super) fn run(self) -> ExitCode {
        let all = Meaning::all();
        let mut shown: Vec<&Meaning> = Vec::new();
        for wanted in &self.wanted {
            match all.iter().find(|meaning| meaning.is(wanted)) {
                Some(meaning) => shown.push(meaning),
                None => return unknown(wanted),
            }
        }
        let list = self.wanted.is_empty();
        if list {
            shown = all.iter().collect();
        }
        if self.json {
            return super::print(&super::json(&Meanings { numbers: shown }), ExitCode::SUCCESS);
        }
        let mut text = String::new();
        for meaning in shown {
            let Meaning { number, name, phase, failure, .. } = meaning;
            let sentence = meaning.sentence.as_deref().unwrap_or("a note of the plan");
            // Writing to a String cannot fail.
            if list {
                let _ = writeln!(text, "{number}  {name}: {sentence}");
                continue;
            }
            let kind = if *failure { "a failure" } else { "worth knowing, no failure" };
            let _ = writeln!(text, "{number}  {name}  ({phase}, {kind})");
            let width = super::columns().clamp(40, 100);
            for (label, words) in [("says", Some(sentence)), ("do", meaning.remedy)] {
                let Some(words) = words else { continue };
                let indent = format!("  {label:<6}");
                let options = textwrap::Options::new(width)
                    .initial_indent(&indent)
                    .subsequent_indent("        ");
                let _ = writeln!(text, "{}", textwrap::fill(words, options));
            }
        }
        super::print(&super::fitted(&text), ExitCode::SUCCESS)
    }
}

fn unknown(wanted: &str) -> ExitCode {
    let digits = wanted.strip_prefix("0x").or_else(|| wanted.strip_prefix("0X"));
    if digits.is_some_and(|digits| u16::from_str_radix(digits, 16).is_ok()) {
        return super::refuse(&format!(
            "{wanted}: no error, remark or note of this version; `cxl-harness error` lists them"
        ));
    }
    let digits = wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
    if wanted.starts_with(|c: char| c.is_ascii_digit()) && digits {
        return super::fail(&format!("{wanted}: numbers are hexadecimal here: 0x{wanted:0>4}"));
    }
    super::fail(&format!(
        "{}: expected a number such as 0x040f, or a name; `cxl-harness error` lists them",
        if wanted.is_empty() { "''".to_owned() } else { wanted.escape_default().to_string() }
    ))
}
