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
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::{Error, Serialize, Serializer};

use super::range::CacheMemRange;
use super::{Dump, Kind, absent};
pub use cedt::cedt;
use component::component;
use config::function;
pub use hdm::decoder;
use hdm::hdm;

/// Keys and their values, in this order.
macro_rules! object {
    ($($key:ident $(: $value:expr)?),* $(,)?) => {{
        // Two with values of the same types have one name, so none goes by its name.
        #[derive(schemars::JsonSchema, serde::Serialize)]
        #[schemars(inline)]
        struct Object<$($key),*> { $($key: $key),* }
        Object { $($key $(: $value)?),* }
    }};
}
use object;

/// What a dump says, which has been judged as a whole.
#[derive(Debug)]
pub struct Facts<'a>(pub(super) &'a Dump);

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

impl JsonSchema for Facts<'_> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Facts".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schema(generator)
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

/// The schema of what a function makes, whose type has no name.
pub fn schema_of<A, T: JsonSchema>(
    generator: &mut SchemaGenerator,
    _made_by: impl Fn(A) -> T,
) -> Schema {
    T::json_schema(generator)
}

/// The same where it may make nothing.
fn schema_of_good<A, T: JsonSchema, E>(
    generator: &mut SchemaGenerator,
    _made_by: impl Fn(A) -> Result<T, E>,
) -> Schema {
    T::json_schema(generator)
}

/// The schema of what a dump says, of whichever kind it is.
fn schema(generator: &mut SchemaGenerator) -> Schema {
    let kinds = [
        schema_of_good(generator, |range: CacheMemRange<'static>| {
            component(range).map(|facts| Tagged { kind: "component", facts })
        }),
        schema_of(generator, |text: HdmText<'static>| object! { kind: "hdm", hdm: hdm(&text) }),
        schema_of(generator, |space: &'static [u8]| {
            object! { kind: "config", functions: vec![function(None, space, false)] }
        }),
        schema_of(generator, |table: acpi::Cedt<'static>| Tagged {
            kind: "cedt",
            facts: cedt(table),
        }),
    ];
    json_schema!({ "anyOf": kinds })
}

/// Facts that are printed elsewhere too, and what kind they are of.
#[derive(JsonSchema, serde::Serialize)]
#[schemars(inline)]
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
