//! scratch
use cxl_harness::{machine::Machine, run, scenario::{Scenario, builtins}, mapping::*};
fn main() {
    let want = std::env::args().nth(1);
    for b in builtins() {
        if want.as_ref().is_some_and(|w| w != b.name) { continue; }
        let s = Scenario::parse(b.text, b.name).unwrap();
        let mut m = Machine::new(&s);
        let t = std::time::Instant::now();
        let done = run::direct(&mut m);
        println!("{}: {} {:?} {:?}", b.name, done.refusal.map_or("ok".into(), |r| format!("{:#06x} {r}", r.code())), m.traffic().all, t.elapsed());
        if want.is_some() {
            println!("{}", done.room.plan.text(done.room.topology.tree()));
            let f = m.fabric();
            println!("{}", MappingsText(&f, &mappings(&f)));
            println!("{}", cxl_regs::acpi::cedt::Text(&done.cedt));
            for f in done.room.findings.list() { println!("{f}"); }
        }
    }
}
