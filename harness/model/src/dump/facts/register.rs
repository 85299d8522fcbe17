//! The JSON form of registers that have a table of their fields.
//!
//! **Invariant**: every bit of a register is in `raw`, every field in `fields` unless it is the
//! whole register.

use cxl_regs::block::Row;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::hex;

/// A register with its fields by the specification's names: flags as booleans.
#[derive(Debug, JsonSchema, Serialize)]
pub(super) struct Register {
    name: &'static str,
    offset: String,
    raw: String,
    fields: Map<String, Value>,
}

/// Registers of a structure; offsets count from its start.
pub(super) fn registers(rows: impl IntoIterator<Item = Row>) -> Vec<Register> {
    rows.into_iter().map(Register::from).collect()
}

impl From<Row> for Register {
    fn from(row: Row) -> Self {
        let digits = 2 + 2 * usize::from(row.spec.bytes);
        let parts = row.spec.fields.iter().filter(|field| field.bits < 8 * row.spec.bytes);
        let fields = parts.map(|field| {
            let value = field.get(row.raw);
            let value = if field.bits == 1 { (value != 0).into() } else { hex(value).into() };
            (field.name.to_owned(), value)
        });
        Self {
            name: row.label,
            offset: hex(row.spec.offset),
            raw: format!("{:#0digits$x}", row.raw),
            fields: fields.collect(),
        }
    }
}
