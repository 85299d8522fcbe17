#![doc = include_str!("../README.md")]
//!
//! # Where the rules come from
//!
//! `drivers/cxl/acpi.c` reads the table, `core/port.c`, `core/hdm.c` and `core/pci.c` take bridges,
//! switches and devices, and `core/region.c` assembles regions of committed decoders. What differs
//! between kernels is a [`Change`].
//!
//! **Invariant**: nothing of a firmware library decides anything here, and no input, however
//! wrong, makes these functions panic or loop. Registers are read, none is judged by
//! [`cxl_regs::Decoder`].
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod captures;
mod codes;
mod fabric;
mod images;
mod input;
mod kernel;
mod linux;
mod outcome;
mod records;
mod refusal;
mod region;
mod rule;
mod schema;
mod system;
mod table;
mod text;
mod witness;

use std::fmt;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

pub use fabric::Reached;
pub use images::{Images, ImagesError, Reader, Withheld};
pub use input::{Bridge, Config, Device, DeviceDvsec, Input, Port, Registers, Switch};
pub use kernel::{Change, Kernel, KernelError};
pub use outcome::{Outcome, RegionOutcome, outcome};
pub use rule::Rule;
pub use text::Report;

use kernel::Linux;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Linux does not use a window, a device or a region.
    Refused,
    /// Linux goes on, with less or with something wrong.
    Degraded,
    /// Worth knowing.
    Note,
}

/// How loud Linux says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// An error.
    Error,
    /// A warning.
    Warning,
    /// Information.
    Info,
    /// In the log only where dynamic debug is on for the CXL modules.
    Debug,
}

/// A line of Linux's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// How loud.
    pub level: Level,
    /// The driver or bus in front of the device's name; empty for host bridges.
    pub driver: &'static str,
    /// The device that it is said of; empty where none is. Linux numbers ports, endpoints, memory devices and regions as
    /// they come up, so a number may be another one.
    pub device: String,
    /// What is said.
    pub text: String,
    /// The kernels that say it; all of those that have the finding, unless given.
    pub kernels: Kernels,
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'m> {
            line: String,
            level: Level,
            driver: &'m str,
            device: &'m str,
            text: &'m str,
            #[serde(flatten)]
            kernels: Kernels,
        }
        let Self { level, driver, device, text, kernels } = self;
        let (level, kernels) = (*level, *kernels);
        Fields { line: self.to_string(), level, driver, device, text, kernels }
            .serialize(serializer)
    }
}

impl fmt::Display for Message {
    /// The line as the log has it behind its time stamp.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.device.is_empty() {
            return f.write_str(&self.text);
        }
        let gap = if self.driver.is_empty() { "" } else { " " };
        write!(f, "{}{gap}{}: {}", self.driver, self.device, self.text)
    }
}

impl Message {
    /// Whether a line of a log says the same: the numbers of ports, endpoints, memory devices,
    /// decoders' ports and regions, and PCI addresses, may differ.
    pub fn is_said_by(&self, line: &str) -> bool {
        let text = self.text.split('\n').next().unwrap_or_default();
        let of = if self.device.is_empty() { String::new() } else { format!("{}: ", self.device) };
        let wanted = text::without_numbers(&format!("{of}{text}"));
        text::without_numbers(line).contains(&wanted)
    }
}

/// Which kernels do something: all from 6.12 on, unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Kernels {
    /// The change that brought it.
    #[serde(serialize_with = "change")]
    #[schemars(with = "Option<String>")]
    pub since: Option<Change>,
    /// The change that ended it.
    #[serde(serialize_with = "change")]
    #[schemars(with = "Option<String>")]
    pub until: Option<Change>,
    /// The only series that does it: its stable releases have taken some changes over and others
    /// not.
    #[serde(serialize_with = "series")]
    #[schemars(with = "Option<String>")]
    pub only: Option<Kernel>,
}

fn series<S: Serializer>(series: &Option<Kernel>, serializer: S) -> Result<S::Ok, S::Error> {
    series.map(|series| series.to_string()).serialize(serializer)
}

fn change<S: Serializer>(change: &Option<Change>, serializer: S) -> Result<S::Ok, S::Error> {
    change.map(|change| change.to_string()).serialize(serializer)
}

impl Kernels {
    /// Nothing differs.
    pub fn all(self) -> bool {
        self == Self::default()
    }
}

/// Something that Linux does not like, or does not do.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Finding {
    /// The rule.
    #[serde(flatten)]
    #[schemars(with = "schema::Rule")]
    pub rule: Rule,
    /// How bad.
    pub severity: Severity,
    /// The component that breaks it.
    pub component: String,
    /// Its decoder.
    pub decoder: Option<u8>,
    /// What was found, with the numbers.
    pub found: String,
    /// What follows from it.
    pub lost: String,
    /// What Linux's log says, in its order; empty if it says nothing.
    #[schemars(with = "Vec<schema::Message>")]
    pub messages: Vec<Message>,
    /// The kernels that are meant.
    #[serde(flatten)]
    pub kernels: Kernels,
}

impl Finding {
    /// Whether Linux refuses something.
    pub fn refused(&self) -> bool {
        self.severity == Severity::Refused
    }

    /// Whether it is the same thing, said perhaps by another kernel in other words.
    fn same(&self, other: &Self) -> bool {
        (self.rule, self.severity, &self.component, self.decoder, &self.found)
            == (other.rule, other.severity, &other.component, other.decoder, &other.found)
    }
}

/// What kernels from 6.12 on say, in the order of the log; a finding says which kernels it is of.
/// What only a stable series does comes last.
pub fn lint(input: &Input) -> Vec<Finding> {
    let mut merged: Vec<(Finding, Presence)> = Vec::new();
    // The newest first: its words are the ones that are kept.
    for count in (0..=Change::ALL.len()).rev() {
        let mut after = 0;
        for finding in linux::run(input, Linux::First(count)) {
            let known = merged.iter().position(|(known, _)| known.same(&finding));
            let at = match known {
                Some(at) => at,
                None => {
                    merged.insert(after, (finding.clone(), Presence::default()));
                    after
                }
            };
            after = at + 1;
            if let Some((known, presence)) = merged.get_mut(at) {
                presence.see(known, &finding, count);
            }
        }
    }
    let mut merged: Vec<_> =
        merged.into_iter().map(|(finding, presence)| presence.apply(finding)).collect();
    for series in Kernel::STABLE {
        for mut finding in lint_for(input, series) {
            if !merged.iter().any(|known| known.same(&finding)) {
                finding.kernels.only = Some(series);
                merged.push(finding);
            }
        }
    }
    merged
}

/// What one kernel says, in the order of its log.
pub fn lint_for(input: &Input, kernel: Kernel) -> Vec<Finding> {
    linux::run(input, Linux::Kernel(kernel))
}

/// In which of the runs something was seen: bit n is the run with the first n changes.
#[derive(Clone, Debug, Default)]
struct Presence {
    finding: u32,
    messages: Vec<u32>,
}

impl Presence {
    fn see(&mut self, known: &mut Finding, finding: &Finding, run: usize) {
        self.finding |= 1 << run;
        let mut after = 0;
        for message in &finding.messages {
            // The same line may come twice.
            let mut later = known.messages.iter().enumerate().skip(after);
            let at = later.find(|(_, known)| *known == message).map(|(at, _)| at);
            let at = at.unwrap_or_else(|| {
                known.messages.insert(after, message.clone());
                self.messages.insert(after.min(self.messages.len()), 0);
                after
            });
            self.messages.resize(known.messages.len(), 0);
            if let Some(seen) = self.messages.get_mut(at) {
                *seen |= 1 << run;
            }
            after = at + 1;
        }
    }

    fn apply(self, mut finding: Finding) -> Finding {
        finding.kernels = kernels(self.finding);
        for (message, seen) in finding.messages.iter_mut().zip(self.messages) {
            if seen != self.finding {
                message.kernels = kernels(seen);
            }
        }
        finding
    }
}

/// The change before the first run, and the one behind the last.
fn kernels(runs: u32) -> Kernels {
    let first = runs.trailing_zeros() as usize;
    let last = (u32::BITS - 1 - runs.leading_zeros().min(u32::BITS - 1)) as usize;
    let change = |index: usize| Change::ALL.get(index).copied();
    Kernels { since: first.checked_sub(1).and_then(change), until: change(last), only: None }
}

/// What could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Unchecked {
    /// What is missing.
    pub missing: String,
    /// What therefore nobody has looked at.
    pub rules: String,
}

/// Which rules were not applied, because the input does not say enough.
pub fn unchecked(input: &Input) -> Vec<Unchecked> {
    input.gaps()
}
