//! A scenario's text: parsed, built, brought up directly, reported in every form.
#![no_main]

use cxl_harness::report::Report;
use cxl_harness::run;
use cxl_model::image::Images;
use cxl_model::machine::Machine;
use cxl_model::scenario::Scenario;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(&data[..data.len().min(8 << 10)]) else { return };
    let scenario = match Scenario::parse(text, "fuzz") {
        Ok(scenario) => scenario,
        Err(error) => return assert!(error.to_string().contains("fuzz")),
    };
    let mut machine = Machine::new(&scenario);
    let done = run::direct(&mut machine);
    let report = Report::of_direct(&machine, &done);
    assert!(report.to_string().starts_with("scenario "));
    serde_json::to_string(&report).unwrap();
    let _ = Images(&machine).to_string();
});
