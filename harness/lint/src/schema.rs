//! What the schema of a report says of things whose JSON form is written by hand.
//!
//! **Invariant**: nothing is made of these types; a test holds real reports to the schema.

use schemars::JsonSchema;

use super::{Kernels, Level};

/// A [`Rule`](super::Rule), as it lies in a finding.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "for the schema alone")]
pub(super) struct Rule {
    /// Its name.
    rule: &'static str,
    /// What Linux wants.
    wants: &'static str,
    /// What to do.
    remedy: &'static str,
    /// Whether a kernel has shown it, in a recording or a test; else it is by Linux's source alone.
    seen: bool,
}

/// A [`Message`](super::Message).
#[derive(JsonSchema)]
#[allow(dead_code, reason = "for the schema alone")]
pub(super) struct Message {
    /// As the log has it.
    line: String,
    level: Level,
    driver: String,
    device: String,
    text: String,
    #[schemars(flatten)]
    kernels: Kernels,
}
