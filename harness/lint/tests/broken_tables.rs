//! Tables whose records are not as long as they say, tables alone, and configuration space that was shown
//! in part: what the linter refuses, and what it leaves alone.
//!
//! **Invariant**: each table is typed here by hand; nothing of it is made by a writer of this repository.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

use std::path::PathBuf;

use cxl_lint::{
    Device, Finding, Images, ImagesError, Input, Kernel, Registers, Rule, Severity, lint, lint_for,
    unchecked,
};
use cxl_model::capture::{self, Ask, Capture};
use cxl_model::dump::{Dump, Options};

/// A CHBS of a bridge with 64 KiB of registers.
fn chbs(uid: u32) -> Vec<u8> {
    host(uid, 1, 0xE010_0000 + u64::from(uid) * 0x1_0000, 0x1_0000)
}

fn host(uid: u32, version: u32, base: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0x20, 0];
    bytes.extend([uid, version, 0].iter().flat_map(|dword| dword.to_le_bytes()));
    bytes.extend([base, length].iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

/// A window of 4 GiB that leads to one bridge.
fn window(base: u64, uid: u32) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0x28, 0, 0, 0, 0, 0];
    bytes.extend([base, 4 << 30].iter().flat_map(|word: &u64| word.to_le_bytes()));
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x0F, 0, 0, 0]);
    bytes.extend(uid.to_le_bytes());
    bytes
}

const BASE: u64 = 4 << 30;

fn table(records: &[Vec<u8>]) -> Vec<u8> {
    let records = records.concat();
    let mut bytes = b"CEDT".to_vec();
    bytes.extend((36 + records.len() as u32).to_le_bytes());
    bytes.extend([1, 0]);
    bytes.extend(*b"HANDS BY HAND \x01\0\0\0HAND\x01\0\0\0");
    bytes.extend(records);
    summed(bytes)
}

fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[9] = 0;
    bytes[9] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
    bytes
}

fn alone(table: Vec<u8>) -> Input {
    Input { cedt: Some(table), ..Input::default() }
}

fn of(input: &Input, rule: Rule) -> Vec<Finding> {
    lint(input).into_iter().filter(|finding| finding.rule == rule).collect()
}

fn with_length(mut record: Vec<u8>, length: u16) -> Vec<u8> {
    record[2..4].copy_from_slice(&length.to_le_bytes());
    record
}

#[test]
fn a_record_whose_length_leads_into_another_costs_those_behind_it() {
    let cases = [
        (vec![chbs(7), vec![9, 0, 3, 0], window(BASE, 7)], "record at 0x44: length 0x3, expected"),
        (
            vec![with_length(chbs(7), 0x1F), window(BASE, 7)],
            "record at 0x24: length 0x1f, expected",
        ),
        (
            vec![chbs(7), with_length(chbs(8), 0x2000), window(BASE, 7)],
            "record at 0x44: length 0x2000, and the table ends after 0x48",
        ),
        (
            vec![chbs(7), with_length(window(2 * BASE, 7), 0x27), window(BASE, 7)],
            "record at 0x44: length 0x27, expected at least 0x28",
        ),
    ];
    for (records, found) in cases {
        let input = alone(table(&records));
        let broken = of(&input, Rule::CedtRecord);
        assert_eq!(broken.len(), 1, "{found}: {broken:#?}");
        assert_eq!(broken[0].severity, Severity::Refused, "{found}");
        assert!(broken[0].found.starts_with(found), "{}", broken[0].found);
        assert!(broken[0].lost.ends_with("lost: the window at 0x100000000"), "{}", broken[0].lost);
        // Nothing else is made of the bytes in between.
        let more = lint(&input).into_iter().filter(|finding| finding.rule != Rule::CedtRecord);
        let more: Vec<_> = more.map(|finding| finding.rule).collect();
        assert!(more.iter().all(|rule| *rule == Rule::WindowLength), "{found}: {more:?}");
    }
}

#[test]
fn a_record_whose_length_is_wrong_and_hides_nothing_is_said_to_be_so() {
    // One byte more than the table has: Linux reads it all the same.
    let input = alone(table(&[chbs(7), with_length(window(BASE, 7), 0x29)]));
    let found = of(&input, Rule::CedtRecord);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].severity, Severity::Note);
    assert_eq!(found[0].found, "record at 0x44: length 0x29, and the table ends after 0x28");
    // The table goes on behind it, with nothing that says where.
    let input = alone(table(&[chbs(7), window(BASE, 7), vec![9, 0, 3, 0], vec![0xAA; 40]]));
    let found = of(&input, Rule::CedtRecord);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].lost.contains("0x28 bytes are lost"), "{}", found[0].lost);
}

#[test]
fn what_linux_does_not_read_may_be_of_any_length() {
    let mut rdpas = vec![3, 0, 0x11, 0, 0, 0, 0, 1];
    rdpas.extend([0, 0, 0, 0xFE, 0, 0, 0, 0, 1]);
    let csds = vec![4, 0, 8, 0, 1, 0, 0, 0];
    let input = alone(table(&[chbs(7), rdpas, csds, window(BASE, 7)]));
    assert_eq!(lint(&input), []);
}

#[test]
fn a_table_alone_that_costs_all_memory_is_refused() {
    let refused = |records: &[Vec<u8>], kernel: &str| {
        let kernel: Kernel = kernel.parse().unwrap();
        let found = lint_for(&alone(table(records)), kernel);
        found.into_iter().filter(Finding::refused).map(|finding| finding.rule).collect::<Vec<_>>()
    };
    let window = || window(BASE, 7);
    // A length that only kernels from 6.16 on look at.
    let short = [host(7, 1, 0xE010_0000, 0x2000), window()];
    assert_eq!(refused(&short, "6.15"), []);
    assert_eq!(refused(&short, "6.16"), [Rule::NoChbs, Rule::WindowTarget]);
    assert_eq!(refused(&short, "7.3"), [Rule::NoChbs]);
    for bad in [host(7, 1, 0, 0x1_0000), host(7, 0, 0xE010_0000, 0x1_0000)] {
        assert_eq!(refused(&[bad.clone(), window()], "6.12"), [Rule::NoChbs, Rule::WindowTarget]);
        assert_eq!(refused(&[bad, window()], "7.3"), [Rule::NoChbs]);
    }
    // A bridge that no window names may be one that is not there.
    let spare = [chbs(7), host(8, 1, 0, 0x1_0000), window()];
    assert_eq!(refused(&spare, "7.3"), []);
    let found = of(&alone(table(&spare)), Rule::NoChbs);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].severity, Severity::Degraded);
    // Nobody has the UID that the window names.
    let unknown = [chbs(9), window()];
    assert_eq!(refused(&unknown, "6.17"), [Rule::WindowTarget]);
    assert_eq!(refused(&unknown, "6.18"), []);
    assert_eq!(of(&alone(table(&unknown)), Rule::WindowTarget).len(), 2, "each kernel its own");
    assert_eq!(refused(&[window()], "7.3"), [Rule::NoChbs]);
    assert_eq!(refused(&[chbs(7), window()], "7.3"), []);
}

#[test]
fn the_checksum_is_that_of_the_tables_own_bytes() {
    let good = table(&[chbs(7), window(BASE, 7)]);
    let mut longer = good.clone();
    longer.extend([1, 2, 3]);
    assert_eq!(of(&alone(longer.clone()), Rule::Checksum), []);
    // All bytes sum to 0, and those of the table do not.
    let mut shorter = good;
    shorter[4..8].copy_from_slice(&0x44u32.to_le_bytes());
    let shorter = summed(shorter);
    assert_eq!(of(&alone(shorter), Rule::Checksum).len(), 1);
    let (input, remarks) = captured(&[("cedt", &longer)]).unwrap();
    assert_eq!(input.cedt.unwrap().len(), 0x6C);
    assert_eq!(remarks, ["cedt: 0x3 bytes behind the CEDT, which ends at 0x6c: nobody reads them"]);
}

/// Captures of files, as the command line reads them.
fn captured(files: &[(&str, &[u8])]) -> Result<(Input, Vec<String>), ImagesError> {
    let captures = files.iter().map(|(name, bytes)| {
        let capture = match Input::dump(bytes, Options::default()) {
            Ok(dump) => Capture::of(dump),
            Err(_) => capture::read(bytes, Ask::default()).unwrap(),
        };
        (PathBuf::from(name), capture)
    });
    Input::of_captures(&captures.collect::<Vec<_>>())
}

/// Configuration space of a memory device: the class code, a CXL Device DVSEC and no serial number.
fn space() -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[..4].copy_from_slice(&[0x86, 0x80, 0x93, 0x0D]);
    bytes[8..12].copy_from_slice(&[1, 0x10, 0x02, 0x05]);
    bytes[0x100..0x104].copy_from_slice(&[0x23, 0, 1, 0]);
    bytes[0x104..0x10C].copy_from_slice(&[0x98, 0x1E, 0x81, 0x03, 0, 0, 0x1E, 0]);
    bytes[0x11C] = 3;
    bytes
}

fn lspci(address: &str, space: &[u8]) -> String {
    let mut text = format!("{address} CXL: memory\n");
    for (line, bytes) in space.chunks(16).enumerate() {
        let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!("{:02x}: {}\n", 16 * line, bytes.join(" "));
    }
    text + "\n"
}

#[test]
fn dvsecs_that_were_not_shown_are_not_said_to_be_missing() {
    let space = space();
    for bytes in [64, 256] {
        let text = lspci("0d:00.0", &space[..bytes]);
        let (input, remarks) = captured(&[("mem0.lspci", text.as_bytes())]).unwrap();
        assert_eq!(lint(&input), []);
        assert!(!input.is_empty());
        assert_eq!(input.devices[0].config, None);
        let gaps: Vec<_> = unchecked(&input).into_iter().map(|gap| gap.missing).collect();
        assert!(gaps.contains(&"configuration space of 0d:00.0".to_owned()), "{gaps:?}");
        assert!(remarks.iter().any(|it| it.contains(&format!("{bytes} bytes"))), "{remarks:?}");
        // In a set it is what could not be read.
        let set = "images = \"x\"\n[[device]]\nconfig = \"mem0.lspci\"\n";
        let mut read = |_: &std::path::Path| Ok(text.clone().into_bytes());
        let images = Images::read(set, std::path::Path::new("set.toml"), &mut read).unwrap();
        assert_eq!(images.input.devices[0].config, None);
        assert_eq!(images.withheld[0].what, "extended configuration space in mem0.lspci");
    }
    // The whole of it is judged: of one without a DVSEC, that it has none.
    let mut without = space.clone();
    without[0x100..0x104].fill(0);
    for (space, refused) in [(&space, false), (&without, true)] {
        let text = lspci("0d:00.0", space);
        let (input, remarks) = captured(&[("mem0.lspci", text.as_bytes())]).unwrap();
        assert_eq!(remarks, Vec::<String>::new());
        let found = lint(&input).iter().any(|finding| finding.rule == Rule::NoDvsec);
        assert_eq!(found, refused);
    }
}

#[test]
fn an_address_has_one_function() {
    let space = space();
    let mut other = space.clone();
    other[0x10C] ^= 4;
    let [whole, other] = [&space, &other].map(|space| lspci("0000:0d:00.0", space));
    let part = lspci("0d:00.0", &space[..64]);
    let whole = whole.as_bytes();
    for files in [
        [("a", whole), ("b", part.as_bytes())],
        [("a", part.as_bytes()), ("b", whole)],
        [("a", whole), ("b", whole)],
    ] {
        let (input, remarks) = captured(&files).unwrap();
        assert_eq!(input.devices.len(), 1);
        assert!(input.devices[0].config.as_ref().unwrap().dvsec.is_some());
        assert!(!remarks.iter().any(|it| it.contains("64 bytes")), "{remarks:?}");
    }
    for files in [[("a", whole), ("b", other.as_bytes())], [("a", other.as_bytes()), ("b", whole)]]
    {
        let error = captured(&files).unwrap_err().to_string();
        assert!(error.starts_with("b"), "{error}");
        assert!(error.contains("expected one function 0000:0d:00.0, found another one than in a"));
    }
}

#[test]
fn what_no_rule_is_about_is_nothing() {
    assert!(Input::default().is_empty());
    let mut network = space();
    network[8..12].copy_from_slice(&[1, 0, 0, 2]);
    network[0x100..0x104].fill(0);
    for address in ["0d:00.0", "0000:0d:00.0"] {
        let text = lspci(address, &network);
        assert!(captured(&[("nic", text.as_bytes())]).unwrap().0.is_empty());
    }
    // Bytes without an address are configuration space where somebody says so.
    let dump = Dump::of_functions(vec![(None, network)], Options::default()).unwrap();
    assert!(Input::of_dumps(&[(PathBuf::from("nic"), dump)]).unwrap().is_empty());
    let device = Device { registers: Registers::NoHdm, ..Device::default() };
    assert!(!Input { devices: vec![device], ..Input::default() }.is_empty());
    assert!(!alone(table(&[])).is_empty());
    let dump = Dump::of_functions(vec![(None, space())], Options::default()).unwrap();
    assert!(!Input::of_dumps(&[(PathBuf::from("mem0"), dump)]).unwrap().is_empty());
}
