//! The CEDT of a run: for programs as `cxl-harness decode --json` has it, for people a line a
//! record.
//!
//! **Invariant**: both are read from the bytes that the firmware left. A guest may leave a table of any
//! length: one of more than [`MOST_BYTES`], or whose JSON would have more than [`MOST_JSON`], is told by
//! its length and its first [`MOST_LINES`] records.

use cxl_regs::{Size, Ways, acpi};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use cxl_model::dump::facts;
use cxl_model::scenario::Scenario;

/// The longest table that is told record by record: sixteen times that of our largest machine.
const MOST_BYTES: usize = 16 << 10;
/// Bytes of JSON that are made of one.
const MOST_JSON: usize = 48 << 10;
/// Lines that its text has.
const MOST_LINES: usize = 64;

/// A CEDT.
#[derive(Debug, JsonSchema, Serialize)]
#[serde(transparent)]
pub struct Cedt {
    #[serde(serialize_with = "as_dump")]
    #[schemars(schema_with = "table_schema")]
    table: Vec<u8>,
    /// Label and value of each record.
    #[serde(skip)]
    pub(super) lines: Vec<(String, String)>,
}

impl Cedt {
    /// The table in some bytes, if they are one.
    pub(super) fn of(scenario: &Scenario, bytes: &[u8]) -> Option<Self> {
        let table = acpi::Cedt::read(bytes).ok()?;
        let name = |uid: u32| {
            let bridge = scenario.bridges.iter().find(|bridge| bridge.uid == uid);
            bridge.map_or_else(|| format!("UID {uid}"), |bridge| bridge.name.clone())
        };
        let bridges = table.host_bridges().map(|bridge| {
            let registers = bridge.registers();
            let base = registers.base().0;
            let size = Size(registers.size());
            let value = format!("{base:#018x}  {size} of registers of {}", name(bridge.uid));
            (format!("bridge UID {}", bridge.uid), value)
        });
        let windows = table.windows().map(|window| {
            let (span, interleave) = (window.span(), window.interleave());
            let targets: Vec<String> = window.targets().iter().map(|&uid| name(uid)).collect();
            let ways = match interleave.ways {
                Ways::One => String::new(),
                _ => format!("{interleave}, "),
            };
            let value = format!(
                "{:#018x}  {}, {ways}to {}: {}",
                span.base().0,
                Size(span.size()),
                targets.join(", "),
                window.restrictions
            );
            ("window".to_owned(), value)
        });
        let mut records = bridges.chain(windows);
        let mut lines: Vec<_> = records.by_ref().take(MOST_LINES).collect();
        let more = records.count();
        if more > 0 {
            lines.push((String::new(), format!("and {more} more")));
        }
        // Nobody looks behind so many records.
        if let Some(Err(error)) = table.raw_records().last() {
            lines.push(("problem".to_owned(), error.to_string()));
        }
        Some(Self { table: bytes.to_vec(), lines })
    }
}

fn table_schema(generator: &mut SchemaGenerator) -> Schema {
    let whole = facts::schema_of(generator, |table: acpi::Cedt<'static>| facts::cedt(table));
    json_schema!({ "anyOf": [whole, generator.subschema_for::<TooLong>()] })
}

fn as_dump<S: Serializer>(table: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let length = table.len();
    let whole = acpi::Cedt::read(table).ok().filter(|_| length <= MOST_BYTES).map(facts::cedt);
    let fits = serde_json::to_string_pretty(&whole).is_ok_and(|json| json.len() <= MOST_JSON);
    match whole.filter(|_| fits) {
        Some(whole) => whole.serialize(serializer),
        None => TooLong {
            length: facts::hex(length as u64),
            problem: "the table is too long for a report",
        }
        .serialize(serializer),
    }
}

/// What is left of a table that would fill the report.
#[derive(JsonSchema, Serialize)]
struct TooLong {
    length: String,
    problem: &'static str,
}
