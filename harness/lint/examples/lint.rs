//! What Linux would say of a machine whose table names a host bridge that nobody has.
//!
//! **Invariant**: rules and words are the library's; nothing is booted.

use cxl_lint::{Input, lint};
use cxl_model::acpi::Tables;
use cxl_model::layout::TABLES;
use cxl_model::machine::Machine;
use cxl_model::scenario::Scenario;

fn main() -> Result<(), &'static str> {
    let scenario = Scenario::built_in("no-such-target").ok_or("no such machine")?;
    let machine = Machine::new(&scenario);
    let tables = Tables::new(&scenario, machine.map(), TABLES);
    let findings = lint(&Input::of(&machine, tables.table(&tables.cedt)));
    for finding in &findings {
        for message in &finding.messages {
            println!("{message}");
        }
        println!("  {}: {}", finding.component, finding.found);
    }
    if findings.is_empty() { Err("Linux is content") } else { Ok(()) }
}

#[test]
fn it_runs() {
    assert_eq!(main(), Ok(()));
}
