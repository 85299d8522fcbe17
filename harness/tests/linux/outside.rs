//! Two more outside readers on what Linux has: `iasl` on the CEDT that our image installed, and
//! `lspci` on the configuration space that it left.
//!
//! **Invariant**: what is expected comes from the scenario and the plan, in the words of the
//! readers; our own decoders of tables and registers are asked for nothing.

#[path = "../../../cxl-regs/tests/iasl/reader.rs"]
mod reader;

use std::fs;
use std::process::Command;

use cxl_regs::text::ConfigText;
use reader::{Field, fields};

use crate::judge::{CEDT, Judged};

/// Whether there is an iasl that knows the CEDT.
pub(crate) fn iasl_missing() -> Option<String> {
    reader::lack(true)
}

/// Whether there is an lspci.
pub(crate) fn lspci_missing() -> Option<String> {
    let missing = Command::new("lspci").arg("--version").output().is_err();
    missing.then(|| "lspci is not installed: install pciutils".into())
}

/// Every field of the installed CEDT as the scenario and the plan have it.
pub(crate) fn iasl_reads_the_plan(judged: &Judged) {
    let table = judged.boot.facts.bytes(CEDT).expect("Linux has a CEDT");
    let text = reader::disassembled("CEDT", table).unwrap_or_else(|said| panic!("{said}"));
    let found = fields(&text);

    let scenario = &judged.boot.scenario;
    let mut expected: Vec<Field> = Vec::new();
    let mut add = |at: usize, length: usize, name: &str, value: String| {
        expected.push((at, length, name.to_owned(), value));
    };
    add(0x00, 4, "Signature", "\"CEDT\"".into());
    add(0x04, 4, "Table Length", format!("{:08X}", table.len()));
    add(0x0A, 6, "Oem ID", "\"CXLFW \"".into());
    let mut at = 0x24;
    let mut bridges: Vec<_> = scenario.bridges.iter().map(|bridge| bridge.uid).collect();
    bridges.sort_unstable();
    for uid in bridges {
        add(at, 1, "Subtable Type", "00".into());
        add(at + 2, 2, "Length", "0020".into());
        add(at + 4, 4, "Associated host bridge", format!("{uid:08X}"));
        add(at + 8, 4, "Specification version", "00000001".into());
        add(at + 0x18, 8, "Register length", "0000000000010000".into());
        at += 0x20;
    }
    let bases = judged.window_bases();
    for (window, base) in scenario.windows.iter().zip(bases) {
        let (ways, granule) = (window.targets.len(), window.interleave.granularity.bytes());
        add(at, 1, "Subtable Type", "01".into());
        add(at + 2, 2, "Length", format!("{:04X}", 0x24 + 4 * ways));
        add(at + 8, 8, "Window base address", format!("{base:016X}"));
        add(at + 0x10, 8, "Window size", format!("{:016X}", window.size));
        // 1, 2, 4 and 8 ways are 0 to 3; 256 bytes are 0.
        add(at + 0x18, 1, "Interleave Members", format!("{:02X}", ways.ilog2()));
        add(at + 0x19, 1, "Interleave Arithmetic", "00".into());
        add(at + 0x1C, 4, "Granularity", format!("{:08X}", granule.ilog2() - 8));
        for (way, uid) in window.targets.iter().enumerate() {
            let name = if way == 0 { "First Target" } else { "Next Target" };
            add(at + 0x24 + 4 * way, 4, name, format!("{uid:08X}"));
        }
        // What QEMU allows is a matter of its version; bit 4, fixed, is ours.
        let restrictions = found.iter().find(|field| field.0 == at + 0x20);
        let (.., value) = restrictions.expect("a window has restrictions");
        let value = u16::from_str_radix(value, 16).unwrap();
        assert_eq!(value & 0x1F, 0x1F, "fixed, and what QEMU 10 allows");
        at += 0x24 + 4 * ways;
    }
    assert_eq!(at, table.len(), "nothing but these records");
    for field in expected {
        assert!(found.contains(&field), "no field {field:x?} in\n{text}");
    }
    // The registers of the bridges are told nowhere else: four different places.
    let registers = found.iter().filter(|field| field.2 == "Register base");
    let mut registers: Vec<_> = registers.map(|field| &field.3).collect();
    registers.dedup();
    assert_eq!(registers.len(), scenario.bridges.len(), "{registers:?}");
}

/// Every CXL function in lspci's words: port numbers as the scenario has them; in devices memory
/// enabled, the range that mirrors decoder 0, and the DVSECs that our text form shows too.
pub(crate) fn lspci_reads_the_plan(judged: &Judged) {
    for (path, functions) in judged.chains() {
        let mut numbers = Vec::new();
        let mut last = String::new();
        for function in functions {
            let name = format!("/sys/bus/pci/devices/{function}/config");
            let config = judged.boot.facts.bytes(&name).expect("a configuration space");
            let text = lspci(&function, config);
            if let Some((_, port)) = text.split_once("LnkCap:\tPort #") {
                let downstream = text.contains("Root Port") || text.contains("Downstream Port");
                let port: String = port.chars().take_while(char::is_ascii_digit).collect();
                numbers.extend(port.parse::<u8>().ok().filter(|_| downstream));
            }
            let theirs = text.lines().filter_map(|line| line.split_once("Vendor=1e98 ID="));
            let theirs: Vec<_> = theirs
                .filter_map(|(place, id)| {
                    let place = place.split_once('[')?.1.split(' ').next()?;
                    let place = u16::from_str_radix(place, 16).ok()?;
                    let mut words = id.split([' ', '=', ':']);
                    let (id, revision, length) = (words.next()?, words.nth(1)?, words.nth(1)?);
                    let id = u16::from_str_radix(id, 16).ok()?;
                    Some((place, id, revision.to_owned(), length.to_owned()))
                })
                .collect();
            assert!(!theirs.is_empty(), "{function} is a CXL function:\n{text}");
            let ours = ConfigText(config).to_string();
            for (place, id, revision, length) in theirs {
                let start = format!("DVSEC {place:#x}: ");
                let line = ours.lines().find(|line| line.contains(&start));
                let line = line.unwrap_or_else(|| panic!("no {start}in\n{ours}"));
                let end = format!("revision {revision}, {length} bytes");
                assert!(line.ends_with(&end), "DVSEC {id:#x}: \"{line}\", lspci has {end}");
            }
            assert!(text.contains("BIR: bar0, ID: component registers"), "{text}");
            last = text;
        }
        assert_eq!(numbers, path.ports(), "{path}");
        assert!(last.contains("CXLCtl:\tCache- IO+ Mem+"), "{last}");
        let base = judged.mirrored_base(&path);
        assert!(last.contains(&format!("Range1: {base:016x}-")), "{base:#x} in\n{last}");
    }
}

/// What lspci says of a configuration space.
fn lspci(function: &str, bytes: &[u8]) -> String {
    let lines = bytes.chunks(16).enumerate().map(|(line, chunk)| {
        let bytes: String = chunk.iter().map(|byte| format!(" {byte:02x}")).collect();
        format!("{:02x}:{bytes}\n", line * 16)
    });
    let dump = format!("{function} Class 0000: a function\n{}", lines.collect::<String>());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dump");
    fs::write(&file, dump).unwrap();
    let output = Command::new("lspci").arg("-F").arg(&file).args(["-vvv", "-nn"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
