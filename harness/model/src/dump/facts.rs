//! The JSON form: one plain type for each kind of dump, built from the register types.
//!
//! **Invariant**: keys are stable and always there; what does not apply is `null`. Addresses, sizes
//! and raw values are strings of hexadecimal digits, counts are numbers.

mod cedt;
mod component;
mod config;
mod hdm;
mod register;

use cxl_regs::{Granularity, Ways};
use serde::Serialize;

pub use cedt::Cedt;
pub(super) use component::Component;
pub(super) use config::Function;
pub use hdm::Decoder;
pub(super) use hdm::Hdm;

/// What a dump says.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Facts {
    /// A component register block.
    Component(Component),
    /// A CXL.cache/mem range.
    Cachemem(Component),
    /// Configuration space.
    Config {
        /// Of these functions.
        functions: Vec<Function>,
    },
    /// A bare HDM structure.
    Hdm {
        /// The structure.
        hdm: Hdm,
    },
    /// A CEDT.
    Cedt(Cedt),
}

impl Facts {
    /// The JSON text, with keys in the order of the fields.
    pub(super) fn pretty(&self) -> String {
        // Plain structs with names for keys always serialise.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// The JSON value.
    pub(super) fn value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// An address, a size or any other number that people know in hexadecimal.
pub fn hex(value: impl Into<u64>) -> String {
    format!("{:#x}", value.into())
}

/// A register as read.
fn dword(value: u32) -> String {
    format!("{value:#010x}")
}

/// The way count; none for a reserved code.
fn ways(code: u8) -> Option<u32> {
    Ways::decode(code).ok().map(Ways::count)
}

/// The granularity in bytes; none for a reserved code.
fn granularity(code: u32) -> Option<u64> {
    Granularity::decode(code).ok().map(Granularity::bytes)
}
