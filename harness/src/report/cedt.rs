//! The CEDT of a run: for programs as `cxl-harness decode --json` has it, for people a line a
//! record.
//!
//! **Invariant**: both are read from the bytes that the firmware left.

use cxl_regs::{Size, Ways, acpi};
use serde::{Serialize, Serializer};

use cxl_model::dump::facts;
use cxl_model::scenario::Scenario;

/// A CEDT.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Cedt {
    #[serde(serialize_with = "as_dump")]
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
        let lines = bridges.chain(windows).collect();
        Some(Self { table: bytes.to_vec(), lines })
    }
}

fn as_dump<S: Serializer>(table: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let table = acpi::Cedt::read(table).ok();
    table.map(facts::cedt).serialize(serializer)
}
