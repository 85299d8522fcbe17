//! What is printed as JSON, by name and version; `cxl-harness schema` prints the schema of each.
//!
//! **Invariant**: within a version keys are added alone; a test holds the schemas to the list of those
//! that there were.

use std::process::ExitCode;

use clap::Args;
use cxl_harness::bench::peer::Comparison;
use cxl_harness::conformance::Table;
use cxl_harness::inspect::Inspection;
use cxl_harness::linux::Verdict;
use cxl_harness::report::{PlanReport, Report};
use cxl_harness::terminal::harmless_json;
use cxl_model::dump::facts::Facts;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{attack, bench, boot, cedt, decode, error, explain, linux, qemu, scenarios};

const EXAMPLES: &str = "\
Every JSON output has the keys `schema`, its name here, and `version`. Within a version keys are added
and none is taken away, renamed or given another type; anything else is another version.

Exit code:
  0  printed
  2  bad usage, or no such schema

Examples:
  cxl-harness schema
  cxl-harness schema lint > lint.schema.json";

/// The version of all of them.
const VERSION: u32 = 1;

/// Print the JSON schema of an output, or the names of all.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Schema {
    /// Which; without it, their names.
    name: Option<String>,
}

/// Something that is printed as JSON.
pub(super) trait Document: Serialize {
    /// The name of its schema.
    const NAME: &'static str;
}

macro_rules! documents {
    ($($name:literal: $($kind:ty),+;)*) => {
        $($(impl Document for $kind {
            const NAME: &'static str = $name;
        })+)*

        /// The schemas by name.
        const ALL: &[(&str, Alternatives)] = &[$(($name, |generator| {
            vec![$(alternative::<$kind>(generator)),+]
        })),*];
    };
}

/// What an output may be.
type Alternatives = fn(&mut SchemaGenerator) -> Vec<Value>;

documents! {
    "attack": attack::Outcome;
    "bench": bench::Figures;
    "bench-peer": Comparison;
    "boot": boot::Traced<'_>, boot::Unstarted, Report;
    "cedt": cedt::Made<'_>, cedt::Refused;
    "conformance": Table;
    "decode": Facts<'_>, decode::Several, decode::Captured, decode::Difference;
    "error": error::Meanings<'_>;
    "explain": explain::Explained;
    "inspect": Inspection;
    "lint": cxl_lint::Report;
    "linux": linux::Answer<'_>, Verdict;
    "plan": PlanReport;
    "qemu": qemu::Printed;
    "scenarios": scenarios::List;
}

/// A document with its name and version in front.
#[derive(Serialize)]
struct Named<'d, D> {
    schema: &'static str,
    version: u32,
    #[serde(flatten)]
    document: &'d D,
}

/// JSON with a newline at its end.
pub(super) fn text<D: Document>(document: &D) -> String {
    let named = Named { schema: D::NAME, version: VERSION, document };
    // Plain structs with names for keys always serialise.
    let text = serde_json::to_string_pretty(&named).unwrap_or_default() + "\n";
    harmless_json(&text).into_owned()
}

fn alternative<D: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    let schema = D::json_schema(generator).to_value();
    // What is just another type is that one, spelled out: it gets keys of its own.
    let other = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next());
    let other = other.and_then(|name| generator.definitions().get(name));
    other.cloned().unwrap_or(schema)
}

/// Adds the keys of every document to each object that one may be.
fn named(name: &str, schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) else {
        for list in ["anyOf", "oneOf"] {
            let alternatives = object.get_mut(list).and_then(Value::as_array_mut);
            alternatives.into_iter().flatten().for_each(|schema| named(name, schema));
        }
        return;
    };
    properties.insert("schema".to_owned(), json!({ "const": name }));
    properties.insert("version".to_owned(), json!({ "const": VERSION }));
    if let Some(required) = object.get_mut("required").and_then(Value::as_array_mut) {
        required.splice(0..0, ["schema".into(), "version".into()]);
    }
}

/// The schema of this name.
fn schema(name: &str) -> Option<Value> {
    let (_, alternatives) = ALL.iter().find(|(known, _)| *known == name)?;
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut alternatives = alternatives(&mut generator);
    alternatives.iter_mut().for_each(|schema| named(name, schema));
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".to_owned(), format!("cxl-harness {name}, version {VERSION}").into());
    match <[Value; 1]>::try_from(alternatives) {
        Ok([Value::Object(only)]) => {
            schema.extend(only.into_iter().filter(|(key, _)| key != "title"));
        }
        Ok([_]) => {}
        Err(several) => drop(schema.insert("anyOf".to_owned(), several.into())),
    }
    let definitions = generator.take_definitions(true);
    if !definitions.is_empty() {
        schema.insert("$defs".to_owned(), definitions.into());
    }
    Some(schema.into())
}

impl Schema {
    pub(super) fn run(self) -> ExitCode {
        let Some(name) = self.name else {
            let names: String = ALL.iter().map(|(name, _)| format!("{name}\n")).collect();
            return super::print(&names, ExitCode::SUCCESS);
        };
        match schema(&name) {
            Some(schema) => {
                let text = serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n";
                super::print(&text, ExitCode::SUCCESS)
            }
            None => {
                let names: Vec<_> = ALL.iter().map(|(name, _)| *name).collect();
                super::fail(&format!("{name}: no such schema; there are: {}", names.join(", ")))
            }
        }
    }
}
