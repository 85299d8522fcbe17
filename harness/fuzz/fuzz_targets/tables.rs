//! ACPI tables: as they are, and with length and checksum mended, so that what lies behind them is
//! reached. What can be read is the same read in part, and what cannot is said there.
#![no_main]

use std::fmt::Write as _;

use cxl_firmware::Error;
use cxl_firmware::acpi::Tables;
use cxl_firmware::platform::{RootBus, Window};
use cxl_fuzz::Script;
use cxl_regs::acpi::cedt::{Cedt, Text};
use cxl_regs::acpi::mcfg::Mcfg;
use cxl_regs::acpi::srat::Srat;
use cxl_regs::acpi::{RootTable, Rsdp, rsdt};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut script = Script(data);
    let (mend, mcfg) = (script.byte() & 1 == 1, usize::from(script.byte()));
    let (mut mcfg, mut cedt) = (script.bytes(mcfg).to_vec(), script.0.to_vec());
    if mend {
        mended(&mut mcfg);
        mended(&mut cedt);
    }
    for bytes in [&mcfg, &cedt] {
        read(bytes);
    }
    let roots = [(0, RootBus { segment: 0, bus: 1 }), (16, RootBus { segment: 1, bus: 255 })];
    let whole = Tables::<4, 4>::from_acpi(&mcfg, &cedt, 46, &roots);
    let part = Tables::<4, 4>::from_acpi_in_part(&mcfg, &cedt, 46, &roots);
    for tables in [&whole, &part].into_iter().flatten() {
        let readable = tables.windows.iter().filter(|window| window.unreadable.is_none());
        let lies = |window: &Window| window.base.is_none() || window.span().is_some();
        assert!({ readable }.all(lies));
    }
    match (&whole, &part) {
        (Ok(whole), part) => {
            assert_eq!(format!("{:?}", Ok::<_, Error>(whole)), format!("{part:?}"))
        }
        // What is refused is said, or it is a bridge that is there twice.
        (Err(error), Ok(part)) => assert!(
            !part.unreadable.is_empty()
                || part.windows.iter().any(|window| window.unreadable.is_some())
                || (1..).zip(&part.bridges).any(|(rest, bridge)| {
                    part.bridges[rest..].iter().any(|other| other.uid == bridge.uid)
                }),
            "{error:?}, and nothing is said in part"
        ),
        (Err(_), Err(_)) => {}
    }
});

/// The length is that of the bytes, and the checksum right.
fn mended(table: &mut [u8]) {
    if table.len() >= 36 {
        let length = table.len() as u32;
        table[4..8].copy_from_slice(&length.to_le_bytes());
        table[9] = 0;
        table[9] = table.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    }
}

fn read(bytes: &[u8]) {
    if let Ok(cedt) = Cedt::read(bytes) {
        let most = bytes.len() / 4 + 1;
        assert!(cedt.raw_records().count() <= most && cedt.records().count() <= most);
        let legal = cedt.records().all(|record| record.is_ok());
        assert!(legal || cedt.check().is_err());
        for window in cedt.windows() {
            let _ = cedt.selector(&window);
        }
    }
    let mut text = String::new();
    write!(text, "{}", Text(bytes)).unwrap();
    assert!(text.ends_with('\n'));
    let _ = Rsdp::read(bytes);
    for kind in [rsdt::Kind::Rsdt, rsdt::Kind::Xsdt] {
        let _ = RootTable::read(kind, bytes).map(|root| root.addresses().count());
    }
    let _ = Mcfg::read(bytes).map(|mcfg| mcfg.allocations().count());
    let _ = Srat::read(bytes).map(|srat| srat.entries().count());
}
