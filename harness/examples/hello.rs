//! scratch
use cxl_harness::{guest::*, guest::mirror, kvm::*, machine::Machine, run, scenario::{Scenario, builtins}, mapping::*};
use std::io::Write;
fn main() {
    let image = std::fs::read(std::env::args().nth(1).unwrap()).unwrap();
    let want = std::env::args().nth(2);
    let line = std::env::args().nth(3).unwrap_or("payload=touch".into());
    for b in builtins() {
        if want.as_ref().is_some_and(|w| w != b.name) { continue; }
        let s = Scenario::parse(b.text, b.name).unwrap();
        let mut m = Machine::new(&s);
        let t = std::time::Instant::now();
        let tables = cxl_harness::acpi::Tables::new(m.scenario(), m.map(), run::TABLES_BASE);
        let ram: Vec<_> = m.map().ram.iter().map(|s| (s.base().0, s.size())).collect();
        let mut vm = Vm::new(&ram).unwrap();
        vm.boot(&Boot { image: &image, entry: Entry::Ring3, command_line: &line, acpi: &[(tables.base, tables.bytes.clone())], rsdp: tables.base }).unwrap();
        let mut g = Guest::new(&mut m, mirror::Limits { enabled: true, bytes: 1 << 44, slots: 1000, address_bits: 48 }, |b| std::io::stdout().write_all(b).unwrap());
        let setup = t.elapsed();
        let end = vm.run(&mut g, &cxl_harness::kvm::Limits { timeout: std::time::Duration::from_secs(10), interrupted: Default::default() });
        print!("{}: ", b.name);
        match end { End::Failed(f) => println!("{f}"), e => println!("{e:?}") }
        println!("{:?} of {:?} {:?} slots {} calls {}", setup, t.elapsed(), g.counts, vm.slots.mapped().count(), g.calls.len());
        if want.is_some() { println!("{:?} {:?}", vm.slots.log(), g.calls); }
    }
    let _ = mappings;
}
