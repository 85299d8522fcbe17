//! `cxl-harness decode`, run as people run it.
//!
//! **Invariant**: every image here is typed by hand from the specification's tables; none comes out
//! of an encoder of this workspace.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

mod program;

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

use cxl_model::dump::{Dump, Kind, MAX_INPUT, Options};
use cxl_regs::Component;
use program::Folder;
use proptest::prelude::*;
use serde_json::{Value, json};

// ---- images ----

/// An image of some size with dwords at their offsets.
fn image(size: usize, dwords: &[(usize, u32)]) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for &(offset, dword) in dwords {
        bytes[offset..offset + 4].copy_from_slice(&dword.to_le_bytes());
    }
    bytes
}

/// Two decoders of a device, from offset 0 of their structure.
const DEVICE_HDM: [(usize, u32); 13] = [
    (0x00, 0x0000_1B12), // 4 decoders, HPA 14:8, 3/6/12 and 16 ways
    (0x04, 0x0000_0002), // enabled
    (0x10, 0xD000_0000), // base 0x3d0000000
    (0x14, 0x0000_0003),
    (0x18, 0x2000_0000), // size 512 MiB
    (0x20, 0x0000_1710), // committed, locked, 2 ways, 256 B, host-only
    (0x24, 0x0000_0000),
    (0x34, 0x0000_0004), // base 0x400000000
    (0x38, 0x4000_0000), // size 1 GiB
    (0x40, 0x0000_1600), // committed, 1 way
    (0x44, 0x1000_0000), // skip 256 MiB
    (0x60, 0x0000_0000),
    (0x80, 0x0000_0000),
];

fn device_hdm() -> Vec<u8> {
    image(0x90, &DEVICE_HDM)
}

fn bridge_hdm() -> Vec<u8> {
    image(
        0x90,
        &[
            (0x00, 0x0000_0382), // 4 decoders, 8 targets, HPA 14:8
            (0x10, 0xD000_0000),
            (0x14, 0x0000_0003),
            (0x18, 0x2000_0000),
            (0x20, 0x0000_1711), // committed, locked, 2 ways, 512 B
            (0x24, 0x0000_0302), // ports 2 and 3
        ],
    )
}

/// A device's component block with RAS, link and HDM structures.
fn component() -> Vec<u8> {
    let array = [
        (0x1000, 0x0311_0001), // 3 entries
        (0x1004, 0x0802_0002), // RAS at 0x80
        (0x1008, 0x0D82_0004), // link at 0xd8
        (0x100C, 0x1281_0005), // HDM at 0x128
    ];
    let hdm = DEVICE_HDM.map(|(offset, dword)| (0x1128 + offset, dword));
    image(0x1_0000, &[&array[..], &hdm[..]].concat())
}

/// A single-port host bridge's range: its HDM entry is null with its other bits left over.
fn pass_through() -> Vec<u8> {
    image(0x1000, &[(0x00, 0x0211_0001), (0x04, 0x1281_0000), (0x08, 0x1802_0006)])
}

/// A CXL memory device: PCI Express capability and DVSECs 0, 5, 7 and 8.
fn endpoint() -> Vec<u8> {
    image(
        0x1000,
        &[
            (0x000, 0x0D93_8086), // Intel 0x0d93
            (0x004, 0x0010_0406), // memory space, bus master, INTx off; capability list
            (0x008, 0x0502_1001), // class 0x050210, revision 1
            (0x010, 0xFE80_000C), // BAR 0, 64-bit prefetchable
            (0x018, 0xFE90_000C), // BAR 2
            (0x02C, 0x1100_1AF4),
            (0x034, 0x0000_0040),
            (0x040, 0x0002_0010), // PCI Express, version 2, endpoint
            (0x04C, 0x0040_0041),
            (0x100, 0x1401_0023), // DVSEC, next 0x140
            (0x104, 0x03C3_1E98), // 0x3c bytes, revision 3, CXL
            (0x108, 0x001E_0000), // ID 0; capability: IO, mem, HwInit, 1 range
            (0x10C, 0x0000_0006), // control: IO and mem enabled
            (0x110, 0x0002_0000), // status2: reset complete
            (0x114, 0x0000_0001), // CONFIG_LOCK
            (0x118, 0x0000_0000), // range 1: 512 MiB, valid, active, CDAT
            (0x11C, 0x2000_0043),
            (0x120, 0x0000_0003), // at 0x3d0000000
            (0x124, 0xD000_0000),
            (0x140, 0x1501_0023), // DVSEC, next 0x150
            (0x144, 0x0100_1E98), // 0x10 bytes
            (0x148, 0x0203_0005), // GPF device, 3 * 100 us
            (0x14C, 0x0000_0033), // 51 mW
            (0x150, 0x1701_0023), // DVSEC, next 0x170
            (0x154, 0x0202_1E98), // 0x20 bytes, revision 2
            (0x158, 0x0026_0007), // Flex Bus port
            (0x15C, 0x0026_0026),
            (0x170, 0x0001_0023), // DVSEC, last
            (0x174, 0x0240_1E98), // 0x24 bytes
            (0x178, 0x0000_0008), // register locator
            (0x17C, 0x0000_0100), // BAR 0: component registers
            (0x184, 0x0001_0302), // BAR 2 + 0x10000: device registers
        ],
    )
}

/// A root port: DVSEC 3, port number 2.
fn root_port() -> Vec<u8> {
    image(
        0x1000,
        &[
            (0x000, 0x7075_8086),
            (0x004, 0x0010_0007),
            (0x008, 0x0604_0000),
            (0x00C, 0x0001_0000), // bridge
            (0x018, 0x000E_0D0C), // buses 12, 13, 14
            (0x020, 0xFE80_FE80),
            (0x034, 0x0000_0040),
            (0x040, 0x0042_0010), // PCI Express, root port
            (0x04C, 0x0200_0041), // port 2
            (0x100, 0x0001_0023),
            (0x104, 0x0280_1E98),
            (0x108, 0x0000_0003), // extensions for ports
            (0x10C, 0x0000_0001), // unmask SBR
        ],
    )
}

/// Two bridges, an XOR window over both, one over the second alone, maps and further records.
const CEDT: [u8; 236] = [
    // "CEDT", 236 bytes, revision 2, checksum, OEM
    0x43, 0x45, 0x44, 0x54, 0xEC, 0x00, 0x00, 0x00, 0x02, 0x2C, 0x4F, 0x45, 0x4D, 0x49, 0x44, 0x20,
    0x54, 0x41, 0x42, 0x4C, 0x45, 0x49, 0x44, 0x20, 0x01, 0x00, 0x00, 0x00, 0x4D, 0x41, 0x4B, 0x45,
    0x02, 0x00, 0x00, 0x00, //
    // CHBS: UID 12, version 1, base 0x3c0000000, length 0x10000
    0x00, 0x00, 0x20, 0x00, 0x0C, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0xC0, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,
    // CHBS: UID 13, base 0x3c0010000
    0x00, 0x00, 0x20, 0x00, 0x0D, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x01, 0xC0, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,
    // CFMWS: base 0x3d0000000, 4 GiB, 2 ways, XOR, 256 B, host-only and volatile, QTG 1, 12 and 13
    0x01, 0x00, 0x2C, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xD0, 0x03, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x06, 0x00, 0x01, 0x00, 0x0C, 0x00, 0x00, 0x00, 0x0D, 0x00, 0x00, 0x00, //
    // CFMWS: base 0x4d0000000, 1 GiB, 1 way, device-coherent, volatile, persistent, BI, 13
    0x01, 0x00, 0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xD0, 0x04, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x2D, 0x00, 0x00, 0x00, 0x0D, 0x00, 0x00, 0x00, //
    // CXIMS: 256 B, one map, 0x10100
    0x02, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,
    // RDPAS: segment 0, 01:00.0, base 0xfe000000, CXL.cachemem
    0x03, 0x00, 0x14, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0xFE, 0x00, 0x00, 0x00, 0x00,
    0x01, 0x00, 0x00, 0x00, //
    // CSDS: Cmp-M, no clean write-back; a record of type 9
    0x04, 0x00, 0x08, 0x00, 0x03, 0x00, 0x00, 0x00, //
    0x09, 0x00, 0x08, 0x00, 0xEF, 0xBE, 0xAD, 0xDE,
];

/// The bytes with some of them replaced.
fn with(bytes: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for &(offset, byte) in changes {
        bytes[offset] = byte;
    }
    bytes
}

/// A table whose checksum has been set right after a change.
fn summed(mut table: Vec<u8>) -> Vec<u8> {
    table[9] = 0;
    table[9] = table.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    table
}

// ---- text forms of the images, as the tools print them ----

fn lines(bytes: &[u8], line: impl Fn(usize, &str) -> String) -> String {
    let chunks = bytes.chunks(16).enumerate();
    chunks
        .map(|(index, chunk)| {
            let pairs: Vec<_> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
            line(16 * index, &pairs.join(" "))
        })
        .collect()
}

fn xxd(bytes: &[u8]) -> String {
    lines(bytes, |offset, hex| format!("{offset:08x}: {hex:<48}  ................\n"))
}

/// `xxd -e`: dwords as numbers.
fn xxd_words(bytes: &[u8]) -> String {
    let row = |(index, row): (usize, &[u8])| {
        let words = row.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
        let words: Vec<_> = words.map(|word| format!("{word:08x}")).collect();
        format!("{:08x}: {}  ................\n", 16 * index, words.join(" "))
    };
    bytes.chunks(16).enumerate().map(row).collect()
}

fn xxd_plain(bytes: &[u8]) -> String {
    lines(bytes, |_, hex| format!("{}\n", hex.replace(' ', "")))
}

fn hexdump(bytes: &[u8]) -> String {
    let body = lines(bytes, |offset, hex| format!("{offset:08x}  {hex:<48}  |................|\n"));
    format!("{body}{:08x}\n", bytes.len())
}

fn lspci(functions: &[(&str, &[u8])]) -> String {
    let function = |(heading, bytes): &(&str, &[u8])| {
        format!("{heading}\n{}\n", lines(bytes, |offset, hex| format!("{offset:02x}: {hex}\n")))
    };
    functions.iter().map(function).collect()
}

// ---- running the command ----

fn command(args: &[&str]) -> Command {
    let mut command = program::command(&["decode"]);
    command.args(args).env_remove("CLICOLOR_FORCE").env_remove("NO_COLOR");
    command
}

/// Output, complaints and exit code.
fn ran(args: &[&str], stdin: &[u8]) -> (String, String, i32) {
    program::fed(&mut command(args), stdin)
}

/// What a run printed that must have gone well.
fn printed(args: &[&str], stdin: &[u8]) -> String {
    let (output, complaints, code) = ran(args, stdin);
    assert_eq!((code, complaints.as_str()), (0, ""), "{args:?}");
    output
}

fn snapshot(name: &str, content: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../snapshots/decode");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, content));
}

// ---- what is printed ----

#[test]
fn text_says_what_each_kind_of_dump_holds() {
    let machine = [
        ("0c:00.0 PCI bridge [0604]: Intel Corporation Device 7075", &root_port()[..]),
        ("0d:00.0 CXL [0502]: Intel Corporation Device 0d93 (rev 01)", &endpoint()[..]),
        ("0000:0e:00.0 Memory controller: asleep (rev ff)", &[0xFF; 64]),
    ];
    let cases = [
        ("component", component()),
        ("cachemem_without_hdm", pass_through()),
        ("hdm_of_host_bridge", bridge_hdm()),
        ("config", endpoint()),
        ("lspci", lspci(&machine).into_bytes()),
        ("cedt", CEDT.to_vec()),
    ];
    for (name, input) in cases {
        snapshot(name, &printed(&[], &input));
    }
}

#[test]
fn json_has_the_same_facts_under_stable_keys() {
    let cases = [
        ("json_component", component()),
        ("json_hdm_of_host_bridge", bridge_hdm()),
        ("json_config", root_port()),
        ("json_cedt", CEDT.to_vec()),
    ];
    for (name, input) in cases {
        let output = printed(&["--json"], &input);
        serde_json::from_str::<Value>(&output).unwrap();
        snapshot(name, &output);
    }
}

#[test]
fn broken_rules_are_printed_as_problems() {
    // Decoder 1 reaches below the end of decoder 0, decoder 2 has a reserved ways code.
    let hdm =
        with(&device_hdm(), &[(0x34, 0x03), (0x33, 0xE0), (0x54, 5), (0x5B, 1), (0x60, 0x70)]);
    snapshot("hdm_with_problems", &printed(&[], &hdm));
    // The second window starts inside the first, and is larger than its ways divide.
    let cedt = summed(with(&CEDT, &[(0x9C, 0x03), (0x9B, 0xE0)]));
    snapshot("cedt_with_problems", &printed(&[], &cedt));
    let json: Value = serde_json::from_str(&printed(&["--json"], &cedt)).unwrap();
    let problem = &json["windows"][1]["problem"];
    assert!(problem.as_str().is_some_and(|words| words.contains("overlaps")), "{problem}");
}

#[test]
fn every_input_form_prints_the_same() {
    let folder = Folder::new();
    let images = [("component", component()), ("hdm", device_hdm()), ("cedt", CEDT.to_vec())];
    for (kind, image) in images {
        let expected = printed(&[], &image);
        for input in [xxd(&image), xxd_plain(&image), hexdump(&image)] {
            assert_eq!(printed(&[], input.as_bytes()), expected, "{kind}");
            assert_eq!(printed(&["--kind", kind, "-"], input.as_bytes()), expected, "{kind}");
        }
        let path = folder.file(kind, &image);
        assert_eq!(printed(&[&path], b""), expected, "{kind}");
    }
    let one = lspci(&[("0d:00.0 CXL", &endpoint())]);
    let expected = format!("0d:00.0\n{}", printed(&["--kind", "config"], &endpoint()));
    assert_eq!(printed(&[], one.as_bytes()), expected);
    let range = &component()[0x1000..0x2000];
    assert_eq!(printed(&["--kind", "cachemem"], range), printed(&[], &component()));
}

#[test]
fn words_of_a_little_endian_machine_are_turned_and_said_to_be() {
    let hdm = device_hdm();
    let expected = format!(
        "lines 1-9: an HDM decoder structure (hex numbers of 4 bytes, little-endian)\n{}",
        printed(&[], &hdm)
    );
    assert_eq!(printed(&[], xxd_words(&hdm).as_bytes()), expected);
    // Told that they are bytes, they are nothing that is known.
    let (output, complaints, code) = ran(&["--form", "bytes"], xxd_words(&hdm).as_bytes());
    assert_eq!((code, output.as_str()), (2, ""), "{complaints}");
}

/// The first page of a program, which is as long as configuration space.
fn executable() -> Vec<u8> {
    image(
        0x1000,
        &[
            (0x00, 0x464C_457F), // "\x7fELF"
            (0x04, 0x0001_0102), // 64-bit, little-endian
            (0x10, 0x003E_0003), // a shared object of x86-64
            (0x14, 0x0000_0001),
            (0x18, 0x0000_6D30),
        ],
    )
}

#[test]
fn numbers_of_a_range_and_of_configuration_space_are_no_function_that_nobody_has() {
    let range = component()[0x1000..0x2000].to_vec();
    for (bytes, kind) in [(range, "cachemem"), (endpoint(), "config")] {
        let heading = "(hex numbers of 4 bytes, little-endian)\n";
        let expected = printed(&["--kind", kind], &bytes);
        let bare: String =
            xxd_words(&bytes).lines().map(|line| format!(" {}\n", &line[10..45])).collect();
        for text in [xxd_words(&bytes), bare] {
            for args in [&[][..], &["--kind", kind], &["--form", "words"]] {
                let output = printed(args, text.as_bytes());
                let (first, rest) = output.split_once('\n').unwrap();
                assert!(format!("{first}\n").ends_with(heading), "{args:?}: {first}");
                assert_eq!(rest, expected, "{args:?}");
            }
        }
    }
}

/// The CXL bus of a machine as a folder, with attributes that nothing here reads.
fn sysfs(folder: &Folder) -> String {
    let root = "devices/platform/ACPI0017:00/root0";
    let files = [
        ("devtype", "cxl_port\n"),
        ("decoder0.0/start", "0x100000000\n"),
        ("decoder0.0/size", "0x100000000\n"),
        ("decoder0.0/devtype", "cxl_decoder_root\n"),
        ("decoder0.0/qos_class", "0\n"),
        ("port1/decoders_committed", "1\n"),
        ("port1/decoder1.0/start", "0x100000000\n"),
        ("port1/decoder1.0/size", "0x10000000\n"),
        ("port1/decoder1.0/uuid", "deadbeef 1\n"),
    ];
    for (name, value) in files {
        let path = folder.path(&format!("{root}/{name}"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value).unwrap();
    }
    folder.name("devices")
}

#[test]
fn a_tree_of_sysfs_has_attributes_that_are_nobodys() {
    let folder = Folder::new();
    let tree = sysfs(&folder);
    let listed = "what Linux shows: 1 window, 1 decoder (sysfs)\n";
    assert_eq!(printed(&["--list", &tree], b""), listed);
    let archive = folder.name("tree.tar");
    let mut tar = tar::Builder::new(File::create(&archive).unwrap());
    tar.append_dir_all("sys/devices", &tree).unwrap();
    tar.finish().unwrap();
    assert_eq!(printed(&["--list", &archive], b""), listed);
}

#[test]
fn what_nobody_named_and_may_be_anything_is_passed_over_and_said() {
    let folder = Folder::new();
    let all = folder.path("all");
    std::fs::create_dir(&all).unwrap();
    let files: [(&str, &[u8]); 7] = [
        ("cedt", &CEDT),
        ("count", b"1\n"),
        ("program", &executable()),
        ("silent", &[0xFF; 4096]),
        ("words", b"deadbeef 1\n"),
        ("large", &[0xA5; 0x1_0000]),
        ("listing", b"0d:00.0 CXL: a device\n"),
    ];
    for (name, bytes) in files {
        std::fs::write(all.join(name), bytes).unwrap();
    }
    let output = printed(&["--list", all.to_str().unwrap()], b"");
    assert!(output.contains("a CEDT (raw bytes)\n"), "{output}");
    assert_eq!(output.lines().filter(|line| !line.starts_with("remark: ")).count(), 1, "{output}");
    for name in ["count", "program", "silent", "words", "large", "listing"] {
        assert!(output.contains(&format!("/{name}")), "{name}: {output}");
    }
    // Named alone, each is an error; a table is one that is broken wherever it lies.
    for (name, _) in &files[1..] {
        let (_, complaints, code) = ran(&[all.join(name).to_str().unwrap()], b"");
        assert_eq!(code, 2, "{name}: {complaints}");
    }
    std::fs::write(all.join("cedt"), with(&CEDT, &[(9, 0)])).unwrap();
    let (_, complaints, code) = ran(&[all.to_str().unwrap()], b"");
    assert!(code == 2 && complaints.contains("expected checksum 0x2c"), "{complaints}");
}

/// A bug report: words, a table that a mail quotes, a log, functions.
fn report() -> String {
    let table = lines(&CEDT, |offset, hex| format!("> {offset:08x}: {hex}  ................\n"));
    let machine = lspci(&[("0c:00.0 PCI bridge", &root_port()), ("0d:00.0 CXL", &endpoint())]);
    format!("It does not come up.\n\n{table}\nAnd lspci says:\n{machine}\nregards\n")
}

#[test]
fn a_bug_report_is_taken_as_it_is() {
    let listed = "lines 3-17: a CEDT (hex bytes)\n\
                  lines 20-534: configuration space of 2 functions (lspci text)\n";
    assert_eq!(printed(&["--list"], report().as_bytes()), listed);
    let output = printed(&[], report().as_bytes());
    let table = output.strip_prefix("lines 3-17: a CEDT (hex bytes)\n").unwrap();
    assert!(table.starts_with(&printed(&[], &CEDT)), "{output}");
    assert!(output.contains("\n0d:00.0\nendpoint 8086:0d93"), "{output}");
    let json: Value = serde_json::from_str(&printed(&["--json"], report().as_bytes())).unwrap();
    let kinds: Vec<_> = json["found"].as_array().unwrap().iter().map(|it| &it["kind"]).collect();
    assert_eq!(kinds, ["cedt", "config"]);
    // One kind of it alone, and held against the same table from elsewhere.
    let folder = Folder::new();
    let (report, table) = (folder.file("report", report()), folder.file("cedt", CEDT));
    let same = printed(&["--kind", "cedt", "--diff", &report, &table], b"");
    assert_eq!(same, "nothing changed\n");
    let (_, complaints, code) = ran(&["--diff", &report, &table], b"");
    assert_eq!(code, 2);
    assert!(complaints.contains("expected one dump to compare, found 2"), "{complaints}");
}

#[test]
fn a_thing_that_is_broken_fails_the_whole_report() {
    let broken = report().replace("> 00000010: ", "> 00000011: ");
    let (output, complaints, code) = ran(&[], broken.as_bytes());
    let reason = "line 4, column 3: expected the row of offset 0x10, found offset 00000011";
    let advice = "cxl-harness decode --force reads what is left";
    assert_eq!(complaints, format!("error: standard input: {reason} ({advice})\n"));
    assert_eq!((code, output.as_str()), (2, ""));
    // As it does.
    assert_eq!(ran(&["--force"], broken.as_bytes()).2, 0);
}

#[test]
fn squeezed_hexdump_is_filled_again() {
    let image = component();
    let full = hexdump(&image);
    let mut squeezed = String::new();
    let (mut before, mut star) = ("", false);
    for line in full.lines() {
        let repeated = line.get(8..).is_some_and(|bytes| !bytes.is_empty() && bytes == before);
        if !repeated {
            squeezed.push_str(line);
            squeezed.push('\n');
        } else if !star {
            squeezed.push_str("*\n");
        }
        (before, star) = (line.get(8..).unwrap_or(""), repeated);
    }
    assert!(squeezed.len() < full.len() / 100);
    assert_eq!(printed(&[], squeezed.as_bytes()), printed(&[], &image));
}

#[test]
fn component_option_decides_what_the_last_dwords_mean() {
    let hdm = bridge_hdm();
    let bridge = printed(&["--component", "host-bridge"], &hdm);
    let switch = printed(&["--component", "upstream-port"], &hdm);
    let device = printed(&["--component", "device"], &hdm);
    assert!(bridge.starts_with("hdm decoders of a host bridge, 1 of 4 committed\n"));
    assert!(switch.starts_with("hdm decoders of an upstream port, 1 of 4 committed\n"));
    assert!(bridge.contains("  target 1          0x03  port 3\n"), "{bridge}");
    assert!(device.contains("  dpa skip          0x0000000000000302"), "{device}");
}

/// One behind the other, as `cat` makes them: each is a table, and what is none is remarked.
#[test]
fn what_stands_behind_a_table_is_not_dropped() {
    let other = with(
        &CEDT,
        &[(16, CEDT[16] ^ 1), (9, CEDT[9].wrapping_add(CEDT[16]).wrapping_sub(CEDT[16] ^ 1))],
    );
    let two = [&CEDT[..], &other].concat();
    let listed = printed(&["--list"], &two);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert_eq!(printed(&[], &two).matches("cedt revision").count(), 2);
    let json: Value = serde_json::from_str(&printed(&["--json"], &two)).unwrap();
    assert_eq!(json["found"].as_array().map(Vec::len), Some(2), "{json}");
    let twice = printed(&[], &[&CEDT[..], &CEDT].concat());
    assert!(twice.contains("remark: the same CEDT stands there twice"), "{twice}");
    let bytes = printed(&[], &[&CEDT[..], &[7; 5]].concat());
    assert!(bytes.contains("remark: 0x5 bytes behind the CEDT, which ends at 0x"), "{bytes}");
    assert!(!printed(&[], &CEDT).contains("remark"));
}

/// What is behind the end of a dump is no reading of a register.
#[test]
fn a_dump_that_ends_early_says_where_and_nothing_of_what_is_behind() {
    let range =
        image(4096, &[(0, 0x0311_0001), (4, 0x0803_0002), (8, 0x0d82_0004), (12, 0x1283_0005)]);
    let text = printed(&["--force", "--kind", "cachemem"], &range[..8]);
    assert!(text.contains("the dump ends at 0x8: what is behind it is not known"), "{text}");
    assert!(text.contains("entry 2 is behind the end of the dump: not known"), "{text}");
    assert!(!text.contains("nothing answers") && text.contains("in these bytes"), "{text}");
    let mut space = vec![0; 0x158];
    space[..4].copy_from_slice(&[0x86, 0x80, 0x93, 0x0d]);
    space[0x100..0x104].copy_from_slice(&[1, 0, 1, 0x20]);
    let text = printed(&["--force", "--kind", "config"], &space);
    assert!(text.contains("the dump ends at 0x158"), "{text}");
    assert!(text.contains("0x200 is behind the end of the dump: not known"), "{text}");
    assert!(!text.contains("nothing answers"), "{text}");
    // In the file they are what was read.
    space[0x100..0x104].copy_from_slice(&[0xff; 4]);
    assert!(printed(&["--force", "--kind", "config"], &space).contains("nothing answers"));
}

#[test]
fn force_prints_as_far_as_it_goes() {
    let cut = &device_hdm()[..0x40];
    let output = printed(&["--force", "--kind", "hdm"], cut);
    assert!(output.contains("  problem           expected an HDM structure of 0x90 bytes"));
    assert!(output.contains("decoder 0\n") && !output.contains("decoder 1\n"), "{output}");
    let cedt = printed(&["--force"], &with(&CEDT, &[(9, 0)]));
    assert!(cedt.contains("checksum 0x00 bad"), "{cedt}");
}

#[test]
fn a_record_of_a_wrong_length_is_named_and_what_is_before_it_is_printed() {
    const RDPAS: usize = 0xC8;
    // A whole record of 17 bytes, and one that says so of its 20, or of 24.
    let mut short = [&CEDT[..RDPAS + 17], &CEDT[RDPAS + 20..]].concat();
    (short[4], short[RDPAS + 2]) = (236 - 3, 17);
    let says = |length: u8| with(&CEDT, &[(RDPAS + 2, length)]);
    let astray = |found: u8| {
        format!(
            "byte 0xca: expected 20 bytes of this rdpas record, found {found}, and what follows is no record"
        )
    };
    let cases = [
        (short, "byte 0xca: the rdpas record has 17 bytes, its kind needs 20".to_owned(), None),
        (says(17), astray(17), Some("broken record at 0xd9")),
        (says(24), astray(24), Some("broken record at 0xe0")),
        (
            says(3),
            "byte 0xca: the record length 3 does not cover".to_owned(),
            Some("broken record at 0xc8"),
        ),
        (
            says(0),
            "byte 0xca: the record length 0 does not cover".to_owned(),
            Some("broken record at 0xc8"),
        ),
        (
            says(200),
            "byte 0xca: the record has 200 bytes, the table only 36".to_owned(),
            Some("broken record at 0xc8"),
        ),
    ];
    for (table, why, broken) in cases {
        let table = summed(table);
        let text = printed(&[], &table);
        // All that stands before it, as of the good table.
        let good = printed(&[], &CEDT);
        let records = |text: &str, end: &str| {
            let from = text.find("chbs at 0x24").unwrap();
            text[from..text.find(end).unwrap()].to_owned()
        };
        let end =
            if text.contains("rdpas at 0xc8") { "rdpas at 0xc8" } else { "broken record at 0xc8" };
        assert_eq!(records(&text, end), records(&good, "rdpas at 0xc8"), "{why}");
        assert!(text.contains(&why), "{why}: {text}");
        match broken {
            Some(at) => assert!(text.contains(at), "{at}: {text}"),
            // The records behind it are found.
            None => {
                assert!(text.contains("csds at 0xd9\n") && text.contains("ef be ad de"), "{text}")
            }
        }
        let json: Value = serde_json::from_str(&printed(&["--json"], &table)).unwrap();
        let (problem, windows) =
            (json["problem"].as_str().unwrap(), json["windows"].as_array().unwrap());
        // The first problem is that of the record, and not what follows from it.
        assert!(problem.starts_with("byte 0xca: "), "{problem}");
        assert_eq!(windows.len(), 2, "{json}");
        if let Some(at) = broken {
            let last = json["unknown"].as_array().unwrap().last().unwrap();
            assert_eq!(at, format!("broken record at {}", last["offset"].as_str().unwrap()));
        }
    }
}

// ---- what moved ----

/// Lines of `--diff`.
fn moved(old: &[u8], new: &[u8]) -> Vec<String> {
    let folder = Folder::new();
    let (old, new) = (folder.file("old", old), folder.file("new", new));
    let (output, complaints, code) = ran(&["--diff", &old, &new], b"");
    assert_eq!(complaints, "");
    let same = output == "nothing changed\n";
    assert_eq!(code, if same { 0 } else { 1 }, "{output}");
    output.lines().map(str::to_owned).collect()
}

#[test]
fn diff_as_json_has_the_sentences_and_every_register_that_moved() {
    let folder = Folder::new();
    let hdm = device_hdm();
    let differ = |old: &[u8], new: &[u8]| {
        let (old, new) = (folder.file("old", old), folder.file("new", new));
        let (output, complaints, code) = ran(&["--json", "--diff", &old, &new], b"");
        assert_eq!(complaints, "");
        let value: Value = serde_json::from_str(&output).unwrap();
        assert_eq!(value["changed"], code == 1, "{output}");
        value
    };
    let same = differ(&hdm, &hdm);
    assert_eq!((&same["changes"], &same["registers"]), (&json!([]), &json!([])));
    // The base of decoder 1, the lock of decoder 0, and a dword that has no name.
    let moved = differ(&hdm, &with(&hdm, &[(0x34, 5), (0x21, 0x16), (0x2C, 1)]));
    assert_eq!(moved["kind"], "hdm");
    assert!(moved["changes"].as_array().unwrap().contains(&json!({
        "what": "decoder 1 base", "old": "0x400000000", "new": "0x500000000",
        "text": "decoder 1 base 0x400000000 -> 0x500000000 (+4 GiB)",
    })));
    assert_eq!(
        moved["registers"],
        json!([
            { "place": "decoder 0", "register": "HDM Decoder Control", "offset": "0x20", "bytes": 4,
              "old": "0x1710", "new": "0x1610",
              "fields": [{ "field": "Lock On Commit", "bits": [8, 8], "old": "0x1", "new": "0x0" }] },
            { "place": "", "register": "+0x2c", "offset": "0x2c", "bytes": 4,
              "old": "0x0", "new": "0x1",
              "fields": [{ "field": "no field", "bits": [0, 0], "old": "0x0", "new": "0x1" }] },
            { "place": "decoder 1", "register": "HDM Decoder Base High", "offset": "0x34",
              "bytes": 4, "old": "0x4", "new": "0x5",
              "fields": [{ "field": "value", "bits": [31, 0], "old": "0x4", "new": "0x5" }] },
        ])
    );
    // The same in a component block counts from the block's start; configuration space has fields.
    let inside = differ(&component(), &with(&component(), &[(0x1128 + 0x34, 5)]));
    assert_eq!(inside["registers"][0]["offset"], "0x115c");
    assert_eq!(inside["registers"].as_array().unwrap().len(), 1);
    let config = differ(&endpoint(), &with(&endpoint(), &[(0x10C, 2), (0x114, 0)]));
    let fields = config["registers"].as_array().unwrap().iter().flat_map(|register| {
        register["fields"].as_array().unwrap().iter().map(|field| field["field"].clone())
    });
    assert_eq!(fields.collect::<Vec<_>>(), ["Mem_Enable", "CONFIG_LOCK"]);
    // A table has records, and no registers.
    let table = differ(&CEDT, &summed(with(&CEDT, &[(0x9C, 5)])));
    assert_eq!(table["registers"], json!([]));
    assert_eq!(table["changes"][0]["what"], "window 1 base");
}

#[test]
fn diff_says_what_moved() {
    let hdm = device_hdm();
    type Case = (&'static str, Vec<u8>, Vec<u8>, &'static [&'static str]);
    let cases: [Case; 13] = [
        ("same", hdm.clone(), hdm.clone(), &["nothing changed"]),
        (
            "base",
            hdm.clone(),
            with(&hdm, &[(0x34, 5)]),
            &["decoder 1 base 0x400000000 -> 0x500000000 (+4 GiB)"],
        ),
        (
            "lock",
            hdm.clone(),
            with(&hdm, &[(0x21, 0x16)]),
            &["decoder 0 lock on commit cleared", "decoder 0 no longer locked"],
        ),
        (
            "targets",
            bridge_hdm(),
            with(&bridge_hdm(), &[(0x25, 4)]),
            &["decoder 0 targets 2,3 -> 2,4"],
        ),
        (
            "reserved bits",
            hdm.clone(),
            with(&hdm, &[(0x2C, 1)]),
            &["decoder 0 raw 0xd0000000,0x00000003,0x20000000,0x00000000,0x00001710,0x00000000,\
               0x00000000,0x00000000 -> 0xd0000000,0x00000003,0x20000000,0x00000000,0x00001710,\
               0x00000000,0x00000000,0x00000001"],
        ),
        (
            "vendor area",
            component(),
            with(&component(), &[(0x3000, 5), (0x3001, 6)]),
            &["no fact, but byte 0x3000 0x00 -> 0x05 and 1 more byte"],
        ),
        (
            "inside a block",
            component(),
            with(&component(), &[(0x1128 + 0x34, 5)]),
            &["decoder 1 base 0x400000000 -> 0x500000000 (+4 GiB)"],
        ),
        (
            "DVSEC fields",
            endpoint(),
            with(&endpoint(), &[(0x10C, 2), (0x114, 0)]),
            &[
                "DVSEC CXL device control Mem_Enable cleared",
                "DVSEC CXL device lock CONFIG_LOCK cleared",
            ],
        ),
        (
            "window targets",
            CEDT.to_vec(),
            summed(with(&CEDT, &[(0xB4, 12)])),
            &["window 1 targets 13 -> 12"],
        ),
        (
            "window base",
            CEDT.to_vec(),
            summed(with(&CEDT, &[(0x9C, 5)])),
            &["window 1 base 0x4d0000000 -> 0x5d0000000 (+4 GiB)"],
        ),
        (
            "host bridge",
            CEDT.to_vec(),
            summed(with(&CEDT, &[(0x28, 14)])),
            &[
                "host bridge 12 removed (base 0x3c0000000, length 0x10000)",
                "host bridge 14 added (base 0x3c0000000, length 0x10000)",
            ],
        ),
        ("checksum alone", CEDT.to_vec(), CEDT.to_vec(), &["nothing changed"]),
        (
            "functions",
            lspci(&[("0c:00.0 a", &root_port()), ("0d:00.0 b", &endpoint())]).into_bytes(),
            lspci(&[("0d:00.0 b", &with(&endpoint(), &[(0x04, 0)])), ("0e:00.0 c", &root_port())])
                .into_bytes(),
            &[
                "0c:00.0 removed",
                "0d:00.0 command Bus Master cleared",
                "0d:00.0 command Memory Space cleared",
                "0e:00.0 added",
            ],
        ),
    ];
    for (name, old, new, expected) in cases {
        assert_eq!(moved(&old, &new), expected, "{name}");
    }
}

// ---- what is refused ----

#[test]
fn bad_input_is_one_line_with_its_place_and_nothing_else() {
    let hdm = device_hdm();
    let cases: [(&str, &[&str], Vec<u8>, &str); 28] = [
        ("empty", &[], vec![], "offset 0x0: expected a register dump, found nothing"),
        (
            "blank",
            &["--kind", "hdm"],
            b"\n\n".to_vec(),
            "offset 0x2: expected an HDM structure of 0x10 bytes, found 0x2",
        ),
        (
            "prose",
            &[],
            b"hello world\n".to_vec(),
            "offset 0x0: expected a register dump, found 12 bytes of text that start with \"hell\" \
             (cxl-harness decode --help lists what is read)",
        ),
        (
            "cut hdm",
            &[],
            hdm[..0x50].to_vec(),
            "offset 0x50: expected an HDM structure of 0x90 bytes, found 0x50",
        ),
        (
            "hdm that is not there",
            &["--kind", "hdm"],
            vec![0xFF; 0x90],
            "offset 0x0: expected an HDM decoder capability register, found all-ones: \
             nothing answers",
        ),
        (
            "decoder count",
            &["--kind", "hdm"],
            with(&hdm, &[(0, 0x1E)]),
            "offset 0x0: expected a decoder count code of 0-c, found 0xe (reserved)",
        ),
        (
            "cut block",
            &[],
            component()[..0x2000].to_vec(),
            "offset 0x2000: expected a component register block of 65536 bytes, found 8192",
        ),
        (
            "block that is not there",
            &[],
            vec![0xFF; 0x1_0000],
            "offset 0x1000: component registers read as all-ones: nothing answers",
        ),
        (
            "range without an array",
            &["--kind", "cachemem"],
            endpoint(),
            "offset 0x0: capability array starts with 0x0d938086, not ID 1, versions 1",
        ),
        (
            "no header of configuration space",
            &[],
            with(&endpoint(), &[(0x0E, 2)]),
            "offset 0x0: expected a register dump, found 4096 bytes that start with 86 80 93 0d \
             (--kind says what they are, --form how digits are read)",
        ),
        (
            "a program of 4096 bytes",
            &[],
            executable(),
            "offset 0x0: expected a register dump, found 4096 bytes that start with 7f 45 4c 46 \
             (--kind says what they are, --form how digits are read)",
        ),
        (
            "a listing that is cut off",
            &[],
            b"[\n {\n  \"memdev\":\"mem0\",\n".to_vec(),
            "line 3, column 19: expected JSON, as of cxl list, found its end: it is cut off",
        ),
        (
            "cut config space",
            &["--kind", "config"],
            endpoint()[..0x80].to_vec(),
            "offset 0x40: expected configuration space of 64 or 256 or 4096 bytes, found 128",
        ),
        (
            "function that is not there",
            &[],
            vec![0xFF; 0x100],
            "offset 0x0: expected a vendor and a device ID, found 0xffffffff: nothing answers",
        ),
        (
            "cut table",
            &[],
            CEDT[..0x50].to_vec(),
            "offset 0x4: expected a table of 0xec bytes, found 0x50",
        ),
        (
            "cut header",
            &[],
            CEDT[..8].to_vec(),
            "offset 0x0: expected a table header of 0x24 bytes, found 0x8",
        ),
        (
            "other table",
            &["--kind", "cedt"],
            with(&CEDT, &[(0, b'X')]),
            "offset 0x0: expected signature CEDT, found \"XEDT\"",
        ),
        ("checksum", &[], with(&CEDT, &[(9, 0)]), "offset 0x9: expected checksum 0x2c, found 0x00"),
        (
            "short table",
            &[],
            with(&CEDT, &[(4, 8)]),
            "offset 0x4: expected a table of at least 0x24 bytes, found length 0x8",
        ),
        (
            "gap in the text",
            &[],
            xxd(&hdm).replace("00000040:", "00000050:").into_bytes(),
            "line 5, column 1: expected the row of offset 0x40, found offset 00000050",
        ),
        (
            "order in the text",
            &[],
            b"10: 00\n00: 00\n".to_vec(),
            "line 2, offset 0x0: expected the line of offset 0x11, found 0x0",
        ),
        (
            "digits",
            &[],
            b"00000000: 12 1b 0\n".to_vec(),
            "line 1, offset 0x2: expected pairs of hex digits, found a group of 1",
        ),
        (
            "no UTF-8",
            &[],
            b"00000000: 12 \xFFb 00\n".to_vec(),
            "line 1, offset 0x1: expected a hex digit, found 'ÿ'",
        ),
        (
            "lspci without bytes",
            &[],
            b"0d:00.0 CXL\n".to_vec(),
            "line 1, offset 0x0: expected lines of bytes below the address, found none \
             (lspci -xxxx prints them)",
        ),
        (
            "lspci of another kind",
            &["--kind", "hdm"],
            lspci(&[("0d:00.0 CXL", &endpoint())]).into_bytes(),
            "offset 0x0: expected an HDM decoder structure, found lspci text: configuration space",
        ),
        (
            "one function of several",
            &[],
            lspci(&[("0d:00.0 CXL", &endpoint()), ("0001:0e:1f.7 CXL", &endpoint()[..0x24])])
                .into_bytes(),
            "line 259 (lspci text): 0001:0e:1f.7: offset 0x24: expected configuration space of 64 or 256 or 4096 \
             bytes, found 36 (cxl-harness decode --force reads what is left)",
        ),
        (
            "table as decoders",
            &["--kind", "hdm"],
            CEDT.to_vec(),
            "offset 0x0: expected an HDM decoder structure, found a CEDT",
        ),
        (
            "array as decoders",
            &["--kind", "hdm"],
            pass_through(),
            "offset 0x0: expected an HDM decoder structure, found a CXL.cache/mem range",
        ),
    ];
    for (name, args, input, reason) in cases {
        for extra in [&[][..], &["--json"][..]] {
            let (output, complaints, code) = ran(&[args, extra].concat(), &input);
            assert_eq!(complaints, format!("error: standard input: {reason}\n"), "{name}");
            assert_eq!((code, output.as_str()), (2, ""), "{name}");
        }
    }
}

#[test]
fn a_page_of_changes_needs_two_dumps() {
    let folder = Folder::new();
    let (dump, page) = (folder.file("cedt", CEDT), folder.name("moved.html"));
    let (output, complaints, code) = ran(&[&dump, "--html", &page], b"");
    assert_eq!((code, output.as_str()), (2, ""), "{complaints}");
    assert!(complaints.contains("--diff"), "{complaints}");
    assert!(!folder.path("moved.html").exists());
}

#[test]
fn forced_block_that_is_short_says_so_and_not_what_nobody_read() {
    let output = printed(&["--force", "--kind", "component"], &CEDT);
    let reason = "offset 0xec: expected a component register block of 65536 bytes, found 236";
    assert_eq!(output, format!("  problem           {reason}\n"));
}

#[test]
fn an_archive_of_two_bundles_is_neither() {
    let folder = Folder::new();
    let archive = folder.name("two.tar");
    let mut tar = tar::Builder::new(File::create(&archive).unwrap());
    for name in ["one", "two"] {
        let set = b"images = \"a machine\"\ncedt = \"cedt.dat\"\n";
        for (file, bytes) in [("machine.toml", &set[..]), ("cedt.dat", &CEDT[..])] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append_data(&mut header, format!("{name}/{file}"), bytes).unwrap();
        }
    }
    tar.finish().unwrap();
    let mut lint = program::command(&["lint", &archive]);
    let (output, complaints, code) = program::ran(&mut lint);
    assert_eq!((code, output.as_str()), (2, ""), "{complaints}");
    for name in ["one/machine.toml", "two/machine.toml"] {
        assert!(complaints.contains(name), "{complaints}");
    }
}

#[test]
fn file_that_cannot_be_used_is_named() {
    let folder = Folder::new();
    let [missing, huge] = ["missing", "huge"].map(|name| folder.name(name));
    let good = folder.file("good", CEDT);
    let other = folder.file("other", device_hdm());
    File::create(&huge).unwrap().set_len(MAX_INPUT as u64 + 1).unwrap();
    let cases: [(&[&str], &str, &str); 4] = [
        (&[&missing], &missing, "No such file or directory (os error 2)"),
        (&[&huge], &huge, "offset 0x1000000: expected a dump of at most 16 MiB, found more"),
        (&["--diff", &good, &missing], &missing, "No such file or directory (os error 2)"),
        (
            &["--diff", &good, &other],
            &other,
            "offset 0x0: expected a CEDT as in the old dump, found an HDM decoder structure",
        ),
    ];
    for (args, path, reason) in cases {
        let (output, complaints, code) = ran(args, b"");
        assert_eq!(complaints, format!("error: {path}: {reason}\n"));
        assert_eq!((code, output.as_str()), (2, ""));
    }
}

#[test]
fn command_line_that_makes_no_sense_ends_with_2() {
    let cases: [&[&str]; 7] = [
        &["--kind", "floppy"],
        &["--component", "root-port"],
        &["--diff", "one"],
        &["--diff", "one", "two", "three"],
        &["--json", "--diff", "one", "two"],
        &["--json", "--force"],
        &["one", "two"],
    ];
    for args in cases {
        let (output, complaints, code) = ran(args, b"");
        assert_eq!((code, output.as_str()), (2, ""), "{args:?}");
        assert!(complaints.starts_with("error: "), "{args:?}: {complaints}");
    }
}

// ---- manners ----

#[test]
fn colour_is_for_terminals() {
    let plain = printed(&[], &CEDT);
    assert!(!plain.contains('\u{1b}'));
    let (forced, ..) = program::fed(command(&[]).env("CLICOLOR_FORCE", "1"), &CEDT);
    assert!(forced.starts_with("\x1b[1mcedt revision 2"));
}

#[test]
fn reader_that_goes_away_is_no_error() {
    let mut command = command(&["--json"]);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(&component()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn help_teaches_kinds_exit_codes_and_examples() {
    let help = printed(&["--help"], b"");
    for word in
        ["component", "cachemem", "hdm", "config", "cedt", "Exit code:", "Examples:", "JSON:"]
    {
        assert!(help.contains(word), "{word}: {help}");
    }
}

// ---- laws ----

fn kinds() -> impl Strategy<Value = Option<Kind>> {
    prop::sample::select(vec![
        None,
        Some(Kind::Component),
        Some(Kind::Cachemem),
        Some(Kind::Hdm),
        Some(Kind::Config),
        Some(Kind::Cedt),
    ])
}

fn components() -> impl Strategy<Value = Option<Component>> {
    prop::sample::select(vec![
        None,
        Some(Component::Device),
        Some(Component::HostBridge),
        Some(Component::UpstreamPort),
    ])
}

/// Whole images with bytes changed anywhere, weighted to where something is.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let images =
        vec![component(), pass_through(), device_hdm(), endpoint(), root_port(), CEDT.to_vec()];
    let places = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12);
    (prop::sample::select(images), places, any::<bool>()).prop_map(|(mut image, places, sum)| {
        let busy: Vec<_> = (0..image.len()).filter(|&at| image[at] != 0).collect();
        for (place, byte) in places {
            let near = busy[place.index(busy.len())].saturating_add(usize::from(byte & 3));
            if let Some(at) = image.get_mut(near) {
                *at = byte;
            }
        }
        if sum && image.starts_with(b"CEDT") { summed(image) } else { image }
    })
}

/// Nothing panics; a dump is told from itself by nothing; what is forced is printed too.
fn holds(input: &[u8], kind: Option<Kind>, component: Option<Component>) {
    let options = Options { kind, component, force: false };
    if let Ok(dump) = Dump::read(input, options) {
        assert!(dump.to_string().ends_with('\n'));
        assert!(dump.json().unwrap().ends_with("}\n"));
        assert_eq!(dump.diff(&dump), Ok(vec![]));
    }
    if let Ok(dump) = Dump::read(input, Options { force: true, ..options }) {
        assert!(dump.to_string().ends_with('\n'));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_printed_or_refused(
        input in prop::collection::vec(any::<u8>(), 0..0x1100),
        kind in kinds(),
        component in components(),
    ) {
        holds(&input, kind, component);
    }

    #[test]
    fn any_text_is_printed_or_refused(
        input in "([0-9a-f:*|. \t]{0,40}\r?\n){0,20}",
        kind in kinds(),
    ) {
        holds(input.as_bytes(), kind, None);
    }

    #[test]
    fn damaged_images_are_printed_or_refused(
        input in damaged(),
        component in components(),
    ) {
        holds(&input, None, component);
        holds(xxd(&input).as_bytes(), None, component);
    }

    #[test]
    fn two_dumps_that_differ_are_never_the_same(
        old in damaged(),
        new in damaged(),
    ) {
        let read = |input: &[u8]| Dump::read(input, Options::default());
        if let (Ok(a), Ok(b)) = (read(&old), read(&new))
            && a.kind() == b.kind()
        {
            prop_assert_eq!(a.diff(&b).unwrap().is_empty(), old == new);
        }
    }
}
