//! What an image printed, collected, and what is in it.
#![no_main]

use cxl_firmware::handoff;
use cxl_harness::console;
use cxl_regs::acpi::cedt::Text;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let collected = match console::collect(data) {
        Ok(collected) => collected,
        Err(error) => return assert!(error.line <= data.len() + 1, "{error}"),
    };
    let sections = collected.hdm.iter().chain(&collected.dvsec).map(|found| &found.section);
    let all = sections.chain(&collected.handoff).chain(&collected.cedt);
    // Two digits a byte.
    assert!(2 * all.map(|section| section.bytes.len()).sum::<usize>() <= data.len());
    if let Some(record) = &collected.handoff {
        let _ = handoff::read(&record.bytes);
    }
    if let Some(table) = &collected.cedt {
        let _ = Text(&table.bytes).to_string();
    }
});
