//! scratch
use cxl_harness::{
    guest::boot::*,
    machine::Machine,
    scenario::{Scenario, builtins},
};
use std::io::Write;
fn main() {
    let want = std::env::args().nth(1);
    let payload = std::env::args().nth(2).unwrap_or("touch".into());
    for b in builtins() {
        if want.as_ref().is_some_and(|w| w != b.name) {
            continue;
        }
        let s = Scenario::parse(b.text, b.name).unwrap();
        let mut m = Machine::new(&s);
        let run = boot(
            &mut m,
            &Options {
                payload: &payload,
                on_console: |b| std::io::stdout().write_all(b).unwrap(),
                ..Options::default()
            },
        )
        .unwrap();
        println!(
            "{} {:?} {:?} {:?} {:?} handoff {} cedt {} {:?} {:?}",
            b.name,
            run.end,
            run.setup,
            run.run,
            run.counts,
            run.handoff.len(),
            run.cedt.len(),
            run.library,
            run.at_handoff
        );
        if want.is_some() {
            println!("{:?} {:?}", run.slot_log, run.calls.len());
        }
    }
}
