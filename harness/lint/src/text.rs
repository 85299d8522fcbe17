//! The linter's report, as text and as JSON.
//!
//! **Invariant**: what Linux prints is printed as Linux prints it, a line each, and nothing is put
//! into those lines.

use std::fmt::{self, Display};

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::{Finding, Kernel, Kernels, Level, Severity, Unchecked};

/// Everything that is to be said of one input.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Report {
    /// What was looked at.
    pub subject: String,
    /// The kernel that was asked about; all from 6.12 on without one.
    #[serde(serialize_with = "version")]
    #[schemars(with = "Option<String>")]
    pub kernel: Option<Kernel>,
    /// What was found, in the order of Linux's log.
    pub findings: Vec<Finding>,
    /// What could not be looked at.
    pub unchecked: Vec<Unchecked>,
    /// What is to be known beside it.
    pub remarks: Vec<String>,
}

fn version<S: Serializer>(kernel: &Option<Kernel>, serializer: S) -> Result<S::Ok, S::Error> {
    kernel.map(|kernel| kernel.to_string()).serialize(serializer)
}

impl Report {
    /// Whether Linux refuses something.
    pub fn refused(&self) -> bool {
        self.findings.iter().any(Finding::refused)
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// A fact of a finding, under its label.
fn row(f: &mut fmt::Formatter<'_>, label: &str, text: impl Display) -> fmt::Result {
    writeln!(f, "  {label:<17} {text}")
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [refused, degraded, notes] =
            [Severity::Refused, Severity::Degraded, Severity::Note].map(|s| self.count(s));
        let verdict = match refused {
            0 => "Linux refuses nothing".to_owned(),
            1 => "Linux refuses 1 thing".to_owned(),
            more => format!("Linux refuses {more} things"),
        };
        writeln!(f, "{}: {verdict}", self.subject)?;
        match self.kernel {
            Some(kernel) if kernel > Kernel::VERIFIED => {
                let verified = Kernel::VERIFIED;
                row(f, "kernel", format!("{kernel} (rules verified to {verified})"))?;
            }
            Some(kernel) => row(f, "kernel", kernel)?,
            None => row(f, "kernels", format!("{} and newer", Kernel::OLDEST))?,
        }
        if degraded + notes > 0 {
            row(f, "besides", format!("{degraded} degraded, {notes} to note"))?;
        }
        for remark in &self.remarks {
            row(f, "remark", remark)?;
        }
        for finding in &self.findings {
            finding.fmt(f)?;
        }
        if !self.unchecked.is_empty() {
            writeln!(f, "\nnot looked at")?;
            for gap in &self.unchecked {
                writeln!(f, "  without {}: {}", gap.missing, gap.rules)?;
            }
        }
        Ok(())
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Refused => "refused",
            Severity::Degraded => "degraded",
            Severity::Note => "note",
        };
        write!(f, "\n{severity}: {} ({}", self.rule.name(), self.component)?;
        match self.decoder {
            Some(decoder) => writeln!(f, " decoder {decoder})")?,
            None => writeln!(f, ")")?,
        }
        for message in &self.messages {
            for line in message.to_string().lines() {
                writeln!(f, "  | {line}")?;
            }
            let quiet = message.level == Level::Debug;
            if quiet || !message.kernels.all() {
                let mut notes = Vec::new();
                notes.extend(quiet.then(|| "only with dynamic debug".to_owned()));
                notes.extend(in_words(message.kernels));
                writeln!(f, "  |   ({})", notes.join("; "))?;
            }
        }
        if self.messages.is_empty() && self.refused() {
            writeln!(f, "  | (Linux says nothing)")?;
        }
        row(f, "found", &self.found)?;
        row(f, "rule", self.rule.text())?;
        row(f, "so", &self.lost)?;
        row(f, "remedy", self.rule.remedy())?;
        if !self.rule.seen() {
            row(f, "seen", "of no kernel that was recorded: by Linux's source alone")?;
        }
        match in_words(self.kernels) {
            Some(kernels) => row(f, "kernels", kernels),
            None => Ok(()),
        }
    }
}

fn in_words(Kernels { since, until, only }: Kernels) -> Option<String> {
    if let Some(series) = only {
        return Some(format!("the newest {series} releases only"));
    }
    let words = match (since, until) {
        (None, None) => return None,
        (Some(since), None) => format!("since {since}"),
        (None, Some(until)) => format!("before {until}"),
        (Some(since), Some(until)) => format!("since {since}, before {until}"),
    };
    let seen = since.iter().chain(&until).all(|change| change.seen());
    Some(if seen { words } else { words + ", by Linux's source alone" })
}

/// The names that Linux numbers as it goes.
const NUMBERED: [&str; 8] =
    ["endpoint", "decoder", "region", "port", "mem", "root", "pci", "ACPI0016:"];

/// A log line without the numbers that Linux gives as things come up.
pub(super) fn without_numbers(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    let mut in_word = false;
    'next: while let Some(first) = rest.chars().next() {
        if !in_word {
            if let Some(after) = pci_address(rest) {
                out.push('#');
                rest = after;
                continue;
            }
            for name in NUMBERED {
                let Some(after) = rest.strip_prefix(name) else { continue };
                let hexadecimal = name == "pci";
                let end = after
                    .find(|c: char| {
                        !(c.is_ascii_digit() || hexadecimal && (c == ':' || c.is_ascii_hexdigit()))
                    })
                    .unwrap_or(after.len());
                if end > 0 {
                    let number = after.get(..end).unwrap_or_default();
                    // What follows a bridge's address after a colon is not part of it.
                    let end = if hexadecimal { end.min(7).min(number.len()) } else { end };
                    out.push_str(name);
                    out.push('#');
                    rest = after.get(end..).unwrap_or_default();
                    in_word = true;
                    continue 'next;
                }
            }
        }
        in_word = first.is_alphanumeric() || first == '_';
        out.push(first);
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
    }
    out
}

/// What follows a PCI address (`0000:0d:00.0`).
fn pci_address(text: &str) -> Option<&str> {
    let (address, after) = text.split_at_checked(12)?;
    let shape = address.bytes().zip("xxxx:xx:xx.x".bytes());
    let fits = |(byte, shape): (u8, u8)| match shape {
        b'x' => byte.is_ascii_hexdigit(),
        _ => byte == shape,
    };
    { shape }.all(fits).then_some(after)
}
