//! The JSON form: an object for each kind of dump, made of the register types.
//!
//! **Invariant**: keys are stable and always there; what does not apply is `null`. Addresses, sizes
//! and raw values are strings of hexadecimal digits, counts are numbers.
#![allow(non_camel_case_types, reason = "the types of an object's values are called as its keys")]

mod cedt;
mod component;
mod config;
mod hdm;
mod register;

use cxl_regs::text::HdmText;
use cxl_regs::{Granularity, Ways, acpi};
use serde::ser::{Error, Serialize, Serializer};

use super::{Dump, Kind, absent};
pub use cedt::cedt;
use component::component;
use config::function;
pub use hdm::decoder;
use hdm::hdm;

/// Keys and their values, in this order.
macro_rules! object {
    ($($key:ident $(: $value:expr)?),* $(,)?) => {{
        #[derive(serde::Serialize)]
        struct Object<$($key),*> { $($key: $key),* }
        Object { $($key $(: $value)?),* }
    }};
}
use object;

/// What a dump says, which has been judged as a whole.
#[derive(Debug)]
pub(super) struct Facts<'a>(pub(super) &'a Dump);

impl Facts<'_> {
    /// The JSON text, with keys in the order in which they are named.
    pub(super) fn pretty(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// The JSON value.
    pub(super) fn value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl Serialize for Facts<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(dump) = *self;
        let bytes = dump.bytes();
        match dump.kind {
            kind @ (Kind::Component | Kind::Cachemem) => {
                let facts = component(dump.range(bytes)).map_err(Error::custom)?;
                let kind = if kind == Kind::Component { "component" } else { "cachemem" };
                Tagged { kind, facts }.serialize(to)
            }
            Kind::Hdm => {
                let hdm = hdm(&HdmText::new(bytes, dump.component));
                object! { kind: "hdm", hdm }.serialize(to)
            }
            Kind::Config => {
                let functions = dump.sections.iter().map(|section| {
                    let (address, space) = (section.address.as_deref(), section.bytes.as_slice());
                    function(address, space, absent(space))
                });
                object! { kind: "config", functions: functions.collect::<Vec<_>>() }.serialize(to)
            }
            Kind::Cedt => {
                let table = acpi::Cedt::read(bytes).map_err(Error::custom)?;
                Tagged { kind: "cedt", facts: cedt(table) }.serialize(to)
            }
        }
    }
}

/// Facts that are printed elsewhere too, and what kind they are of.
#[derive(serde::Serialize)]
struct Tagged<T> {
    kind: &'static str,
    #[serde(flatten)]
    facts: T,
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
