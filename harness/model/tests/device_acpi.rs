//! The platform's ACPI tables: checked readers find in them what the machine decodes, and what
//! cannot be used is still said.

mod rig;

use cxl_model::acpi::Tables;
use cxl_model::machine::Machine;
use cxl_model::scenario::{Scenario, builtins};
use cxl_regs::acpi::cedt::ChbsVersion;
use cxl_regs::acpi::mcfg::Mcfg;
use cxl_regs::acpi::rsdt::Kind;
use cxl_regs::acpi::{Cedt, RootTable, Rsdp};

const BASE: u64 = 0xE_0000;

fn tables(machine: &Machine) -> Tables {
    Tables::new(machine.scenario(), machine.map(), BASE)
}

#[test]
fn pointers_lead_from_the_rsdp_to_every_table() {
    let tables = tables(&rig::machine(rig::SMALL));
    let rsdp = Rsdp::read(&tables.bytes).unwrap();
    assert_eq!(rsdp.xsdt, Some(BASE + tables.xsdt.start as u64));
    let root = RootTable::read(Kind::Xsdt, tables.table(&tables.xsdt)).unwrap();
    let addresses: Vec<u64> = root.addresses().collect();
    assert_eq!(addresses, [&tables.mcfg, &tables.cedt].map(|at| BASE + at.start as u64));
    assert_eq!(&tables.bytes[tables.mcfg.start..][..4], b"MCFG");
    assert_eq!(&tables.bytes[tables.cedt.start..][..4], b"CEDT");
    assert!(addresses.iter().all(|address| address % 16 == 0));
}

#[test]
fn tables_of_every_builtin_say_what_its_machine_decodes() {
    for builtin in builtins() {
        let scenario = Scenario::parse(builtin.text, builtin.name).unwrap();
        let machine = Machine::new(&scenario);
        let tables = tables(&machine);
        let ecam = Mcfg::read(tables.table(&tables.mcfg)).unwrap();
        let found: Vec<_> = ecam.allocations().map(|a| a.unwrap()).collect();
        assert_eq!(
            found.iter().map(|a| (a.segment(), a.base())).collect::<Vec<_>>(),
            machine.map().ecam.iter().map(|(s, span)| (*s, span.base())).collect::<Vec<_>>(),
            "{}",
            builtin.name
        );
        let cedt = Cedt::read(tables.table(&tables.cedt)).unwrap();
        let bridges: Vec<_> = cedt.host_bridges().collect();
        assert_eq!(bridges.len(), scenario.bridges.len(), "{}", builtin.name);
        for (chbs, place) in bridges.iter().zip(&machine.map().bridges) {
            assert_eq!(chbs.registers().base(), place.registers.base());
        }
        assert_eq!(
            cedt.raw_records().count(),
            bridges.len() + scenario.windows.len() + {
                usize::from(scenario.windows.iter().any(|w| !w.xor_maps.is_empty()))
            }
        );
        cedt.check().unwrap_or_else(|error| panic!("{}: {error}", builtin.name));
        // One without a place has base 0, as QEMU writes it.
        let bases: Vec<_> = cedt.windows().map(|window| window.span().base()).collect();
        let placed = machine.map().windows.iter().map(|base| base.unwrap_or_default());
        assert_eq!(bases, placed.collect::<Vec<_>>(), "{}", builtin.name);
    }
}

#[test]
fn golden_records_of_a_bridge_and_its_window() {
    let tables = tables(&rig::machine(rig::SMALL));
    let cedt = &tables.table(&tables.cedt)[36..];
    assert_eq!(cedt.len(), 0x20 + 0x28);
    assert_eq!(cedt[..0x10], [0, 0, 0x20, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(cedt[0x18..0x20], 0x1_0000u64.to_le_bytes());
    let window = &cedt[0x20..];
    #[rustfmt::skip]
    let expected = [
        1, 0, 0x28, 0, 0, 0, 0, 0, // CFMWS, 40 bytes
        0, 0, 0, 0, 1, 0, 0, 0, // 4 GiB
        0, 0, 0, 0, 1, 0, 0, 0, // 4 GiB of it
        0, 0, 0, 0, 0, 0, 0, 0, // 1 way, modulo, 256 bytes
        0x0F, 0, 0, 0, // all but fixed and back-invalidate
        16, 0, 0, 0, // UID
    ];
    assert_eq!(window, expected);
}

#[test]
fn a_cxl_1_1_bridge_is_told_by_its_version() {
    let text = rig::SMALL.replace("decoders = 4", "version = \"1.1\"");
    let tables = tables(&rig::machine(&text));
    let cedt = Cedt::read(tables.table(&tables.cedt)).unwrap();
    let chbs = cedt.host_bridges().next().unwrap();
    assert_eq!(chbs.version(), ChbsVersion::decode(0).unwrap());
    assert_eq!(chbs.registers().size(), 0x2000);
}
