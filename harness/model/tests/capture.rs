//! Every public form of a table, of configuration space and of what Linux shows, as people paste them.
//!
//! **Invariant**: what the forms look like is typed by hand, as the tools print it; the bytes behind them
//! are this file's own.

#![cfg(feature = "dump")]
#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

use cxl_model::capture::witness::Witness;
use cxl_model::capture::{Ask, Capture, Content, Form, Found, Reading, read};
use cxl_model::dump::{Kind, Options};
use proptest::prelude::*;

/// A CEDT: one bridge (UID 7), one window of 4 GiB at 0x100000000 that targets it.
const CEDT: [u8; 108] = [
    0x43, 0x45, 0x44, 0x54, 0x6C, 0x00, 0x00, 0x00, 0x01, 0xF5, 0x41, 0x43, 0x4D, 0x45, 0x20, 0x20,
    0x42, 0x4F, 0x41, 0x52, 0x44, 0x20, 0x37, 0x20, 0x01, 0x00, 0x00, 0x00, 0x41, 0x43, 0x4D, 0x45,
    0x01, 0x00, 0x00, 0x00, //
    0x00, 0x00, 0x20, 0x00, 0x07, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0xD0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x01, 0x00, 0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x06, 0x00, 0x00, 0x00, 0x07, 0x00, 0x00, 0x00,
];

/// The same in the order of `xxd -e`, `od` and `hexdump`: typed as those print it.
const XXD_E: &str = "\
00000000: 54444543 0000006c 4341f501 2020454d  CEDTl.....ACME  
";

const ACPIDUMP: &str = "\
CEDT @ 0x0000000000000000
    0000: 43 45 44 54 6C 00 00 00 01 F5 41 43 4D 45 20 20  CEDTl.....ACME  
    0010: 42 4F 41 52 44 20 37 20 01 00 00 00 41 43 4D 45  BOARD 7 ....ACME
    0020: 01 00 00 00 00 00 20 00 07 00 00 00 01 00 00 00  ...... .........
    0030: 00 00 00 00 00 00 00 D0 00 00 00 00 00 00 01 00  ................
    0040: 00 00 00 00 01 00 28 00 00 00 00 00 00 00 00 00  ......(.........
    0050: 01 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00  ................
    0060: 00 00 00 00 06 00 00 00 07 00 00 00              ............

";

const IASL_RAW: &str = "\
Raw Table Data: Length 108 (0x6C)

    0000: 43 45 44 54 6C 00 00 00 01 F5 41 43 4D 45 20 20  // CEDTl.....ACME  
    0010: 42 4F 41 52 44 20 37 20 01 00 00 00 41 43 4D 45  // BOARD 7 ....ACME
    0020: 01 00 00 00 00 00 20 00 07 00 00 00 01 00 00 00  // ...... .........
    0030: 00 00 00 00 00 00 00 D0 00 00 00 00 00 00 01 00  // ................
    0040: 00 00 00 00 01 00 28 00 00 00 00 00 00 00 00 00  // ......(.........
    0050: 01 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00  // ................
    0060: 00 00 00 00 06 00 00 00 07 00 00 00              // ............
";

const IASL_FIELDS: &str = r#"/*
 * ACPI Data Table [CEDT]
 *
 * Format: [HexOffset DecimalOffset ByteLength]  FieldName : FieldValue (in hex)
 */

[000h 0000 004h]                   Signature : "CEDT"    [CXL Early Discovery Table]
[004h 0004 004h]                Table Length : 0000006C
[008h 0008 001h]                    Revision : 01
[009h 0009 001h]                    Checksum : F5
[00Ah 0010 006h]                      Oem ID : "ACME  "
[010h 0016 008h]                Oem Table ID : "BOARD 7 "
[018h 0024 004h]                Oem Revision : 00000001
[01Ch 0028 004h]             Asl Compiler ID : "ACME"
[020h 0032 004h]       Asl Compiler Revision : 00000001

[024h 0036 001h]               Subtable Type : 00 [CXL Host Bridge Structure]
[025h 0037 001h]                    Reserved : 00
[026h 0038 002h]                      Length : 0020
[028h 0040 004h]      Associated host bridge : 00000007
[02Ch 0044 004h]       Specification version : 00000001
[030h 0048 004h]                    Reserved : 00000000
[034h 0052 008h]               Register base : 00000000D0000000
[03Ch 0060 008h]             Register length : 0000000000010000

[044h 0068 001h]               Subtable Type : 01 [CXL Fixed Memory Window Structure]
[045h 0069 001h]                    Reserved : 00
[046h 0070 002h]                      Length : 0028
[048h 0072 004h]                    Reserved : 00000000
[04Ch 0076 008h]         Window base address : 0000000100000000
[054h 0084 008h]                 Window size : 0000000100000000
[05Ch 0092 001h]          Interleave Members : 00
[05Dh 0093 001h]       Interleave Arithmetic : 00
[05Eh 0094 002h]                    Reserved : 0000
[060h 0096 004h]                 Granularity : 00000000
[064h 0100 002h]                Restrictions : 0006
[066h 0102 002h]                       QtgId : 0000
[068h 0104 004h]                First Target : 00000007

"#;

const OD_X4: &str = "\
0000000 54444543 0000006c 4341f501 2020454d
0000020 52414f42 20372044 00000001 454d4341
0000040 00000001 00200000 00000007 00000001
0000060 00000000 d0000000 00000000 00010000
0000100 00000000 00280001 00000000 00000000
0000120 00000001 00000000 00000001 00000000
0000140 00000000 00000006 00000007
0000154
";

const HEXDUMP: &str = "\
0000000 4543 5444 006c 0000 f501 4341 454d 2020
0000010 4f42 5241 2044 2037 0001 0000 4341 454d
0000020 0001 0000 0000 0020 0007 0000 0001 0000
0000030 0000 0000 0000 d000 0000 0000 0000 0001
0000040 0000 0000 0001 0028 0000 0000 0000 0000
0000050 0001 0000 0000 0000 0001 0000 0000 0000
0000060 0000 0000 0006 0000 0007 0000          
000006c
";

const DMESG: &str = "\
[    0.501234] ACPI: CEDT 0x00000000BFFF0000 00006C (v01 ACME   BOARD 7  00000001 ACME 00000001)
[    0.612345] CEDT: 00000000: 43 45 44 54 6c 00 00 00 01 f5 41 43 4d 45 20 20  CEDTl.....ACME  
[    0.612346] CEDT: 00000010: 42 4f 41 52 44 20 37 20 01 00 00 00 41 43 4d 45  BOARD 7 ....ACME
[    0.612347] CEDT: 00000020: 01 00 00 00 00 00 20 00 07 00 00 00 01 00 00 00  ...... .........
[    0.612348] CEDT: 00000030: 00 00 00 00 00 00 00 d0 00 00 00 00 00 00 01 00  ................
[    0.612349] CEDT: 00000040: 00 00 00 00 01 00 28 00 00 00 00 00 00 00 00 00  ......(.........
[    0.612350] CEDT: 00000050: 01 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00  ................
[    0.612351] CEDT: 00000060: 00 00 00 00 06 00 00 00 07 00 00 00              ............
[    0.700000] random: crng init done
";

const BASE64: &str = "\
Q0VEVGwAAAAB9UFDTUUgIEJPQVJEIDcgAQAAAEFDTUUBAAAAAAAgAAcAAAABAAAAAAAAAAAAANAA
AAAAAAABAAAAAAABACgAAAAAAAAAAAABAAAAAAAAAAEAAAAAAAAAAAAAAAYAAAAHAAAA
";

fn found(text: &str) -> Vec<Found> {
    read(text.as_bytes(), Ask::default()).unwrap_or_else(|error| panic!("{error}\n{text}")).found
}

/// The bytes of the one CEDT in a text, and what they were taken for.
fn cedt(text: &str) -> (Vec<u8>, Form) {
    let found = found(text);
    let tables: Vec<_> = found
        .iter()
        .filter_map(|found| match &found.content {
            Content::Dump(dump) if dump.kind() == Kind::Cedt => {
                Some((dump.sections().next().unwrap().1.to_vec(), found.form))
            }
            _ => None,
        })
        .collect();
    assert_eq!(tables.len(), 1, "{text}");
    tables.into_iter().next().unwrap()
}

fn error(text: &str) -> String {
    read(text.as_bytes(), Ask::default()).unwrap_err().to_string()
}

fn quoted(text: &str) -> String {
    text.lines().map(|line| format!("> {line}\n")).collect()
}

const FORMS: [(Form, &str); 7] = [
    (Form::Acpidump, ACPIDUMP),
    (Form::IaslRaw, IASL_RAW),
    (Form::IaslFields, IASL_FIELDS),
    (Form::Words(4), OD_X4),
    (Form::Words(2), HEXDUMP),
    (Form::Bytes, DMESG),
    (Form::Base64, BASE64),
];

#[test]
fn every_form_has_the_same_bytes() {
    for (form, text) in FORMS {
        assert_eq!(cedt(text), (CEDT.to_vec(), form), "{form}");
    }
}

#[test]
fn quotes_and_windows_line_ends_change_nothing() {
    for (form, text) in FORMS {
        assert_eq!(cedt(&quoted(text)), (CEDT.to_vec(), form), "{form} quoted");
        assert_eq!(cedt(&quoted(&quoted(text))).0, CEDT, "{form} quoted twice");
        assert_eq!(cedt(&text.replace('\n', "\r\n")).0, CEDT, "{form} with carriage returns");
    }
}

#[test]
fn a_table_is_found_among_other_words_and_its_lines_are_said() {
    for (form, text) in FORMS {
        let report =
            format!("Hello,\n\nour board does not come up: 2 of 4 devices.\n\n{text}\nBest,\nA.\n");
        let found = found(&report);
        let [one] = found.as_slice() else { panic!("{form}: {found:?}") };
        let (first, last) = one.lines.unwrap();
        let lines: Vec<_> = report.lines().collect();
        assert!(first > 4 && last <= lines.len() - 2, "{form}: {first}-{last}");
        assert_eq!(cedt(&report), (CEDT.to_vec(), form));
    }
}

#[test]
fn xxd_of_words_is_recognised_by_what_comes_out() {
    let words = CEDT.chunks(16).enumerate().map(|(row, bytes)| {
        let words = bytes
            .chunks(4)
            .map(|word| word.iter().rev().map(|byte| format!("{byte:02x}")).collect::<String>());
        format!("{:08x}: {}  text\n", 16 * row, words.collect::<Vec<_>>().join(" "))
    });
    let text: String = words.collect();
    // What the tool prints was typed by hand once.
    assert_eq!(text.get(..46), XXD_E.get(..46));
    assert_eq!(cedt(&text), (CEDT.to_vec(), Form::Words(4)));
    // A wrong guess can be overruled.
    let ask = Ask { reading: Some(Reading::Bytes), ..Ask::default() };
    assert!(read(text.as_bytes(), ask).is_err());
    let ask = Ask { reading: Some(Reading::Words), ..Ask::default() };
    assert!(read(text.as_bytes(), ask).is_ok());
}

#[test]
fn other_tables_are_named_and_not_decoded() {
    let mut facp = [0u8; 48];
    facp[..4].copy_from_slice(b"FACP");
    facp[4] = 48;
    facp[9] = 0u8.wrapping_sub(facp.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)));
    let rows = facp.chunks(16).enumerate().map(|(row, bytes)| {
        let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        format!("    {:04X}: {}  ................\n", 16 * row, bytes.join(" "))
    });
    let dump = format!("FACP @ 0x0000000000000000\n{}\n{ACPIDUMP}", rows.collect::<String>());
    let all = found(&dump);
    let [Content::Table { signature, length: 48 }, Content::Dump(_)] =
        [&all[0].content, &all[1].content]
    else {
        panic!("{all:?}")
    };
    assert_eq!((signature.as_str(), cedt(&dump).0), ("FACP", CEDT.to_vec()));
}

#[test]
fn disassembly_with_its_raw_data_is_one_table() {
    let capture = read(format!("{IASL_FIELDS}{IASL_RAW}").as_bytes(), Ask::default()).unwrap();
    assert_eq!(capture.found.len(), 1);
    assert!(capture.remarks[0].contains("twice"), "{:?}", capture.remarks);
    // A second table that differs is not passed over in silence.
    let other = IASL_RAW.replace(
        "0000: 43 45 44 54 6C 00 00 00 01 F5 41",
        "0000: 43 45 44 54 6C 00 00 00 01 F4 42",
    );
    let capture = read(format!("{IASL_FIELDS}{other}").as_bytes(), Ask::default()).unwrap();
    assert_eq!(capture.found.len(), 2);
}

#[test]
fn what_is_broken_is_named_with_line_and_column() {
    let cases = [
        (
            ACPIDUMP.replace("    0030: 00", "    0031: 00"),
            "line 5, column 5: expected the row of offset 0x30, found offset 0031",
        ),
        (
            ACPIDUMP.replace("0050: 01 00 00", "0050: 01 0g 00"),
            "line 7, column 15: expected pairs of hex digits, found 'g'",
        ),
        (
            lspci().replacen("40: 10 00", "40: 10 0x", 1),
            "line 7, column 8: expected pairs of hex digits, found \"0x\"",
        ),
        (
            lspci().replacen("20: 00 00", "20: 00 0", 1),
            "line 5, column 8: expected pairs of hex digits, found \"0\"",
        ),
        (
            quoted(OD_X4).replace("0000060 ", "0000070 "),
            "line 4, column 3: expected the row of offset 60, found offset 0000070",
        ),
        (
            ACPIDUMP.replace(
                "0000: 43 45 44 54 6C 00 00 00 01 F5",
                "0000: 43 45 44 54 6C 00 00 00 01 F6",
            ),
            "line 2 (acpidump text): offset 0x9: expected checksum 0xf5, found 0xf6",
        ),
        (
            ACPIDUMP.lines().take(5).map(|line| format!("{line}\n")).collect(),
            "line 2 (acpidump text): offset 0x4: expected a table of 0x6c bytes, found 0x40",
        ),
        (
            IASL_FIELDS.replace("[028h 0040 004h]      Associated host bridge : 00000007\n", ""),
            "line 20, column 1: expected the field at offset 0x28, found offset 0x2c",
        ),
        (
            IASL_FIELDS.replace(": 00000000D0000000", ": 00000000D000000g"),
            "line 23, column 48: expected a hexadecimal number, found \"00000000D000000g\"",
        ),
        (
            "dump begin cedt 0x1000 0x6c\ndump 0x0000: 4345\n".to_owned(),
            "line 2, column 1: expected \"dump end cedt\", found the end of the line",
        ),
        (
            "dump begin hdm 0x1000 0x10 device twelve 0\ndump end hdm\n".to_owned(),
            "line 1, column 35: expected the UID of a host bridge, found \"twelve\"",
        ),
        (
            "[{\"memdevs\":[{\"memdev\":\"mem0\",\n\"ram_size\":,}]}]\n".to_owned(),
            "line 2, column 12: expected JSON, as of cxl list, found something that is no value",
        ),
        (
            "/sys/devices/platform/ACPI0017:00/root0/decoder0.0/size:many\n".to_owned(),
            "line 1, column 57: expected a value of decoder0.0/size, found \"many\"",
        ),
        (
            "00000000-00000000 : System RAM\n00000000-00000000 : CXL Window 0\n".to_owned(),
            "line 1, column 1: expected addresses, found zeros alone (root sees /proc/iomem as it is)",
        ),
    ];
    for (text, reason) in cases {
        assert_eq!(error(&text), reason, "{text}");
    }
}

/// What our image prints: a bridge and, below its port 0, a device.
const IMAGE: &str = "\
cxl firmware at ring 0
verifier: ok, 1 region, 2 of 2 committed decoders locked
dump begin cedt 0x1e6000 0x6c
dump 0x0000: 434544546c00000001f541434d452020424f41524420372001000000 41434d45
dump end cedt
dump begin hdm 0xd0001128 0x30 host-bridge 7
dump 0x0000: 8003000000000000000000000000000000000000010000000000001000000000
dump 0x0020: 00170000000000000000000000000000
dump end hdm
dump begin hdm 0xfe601128 0x30 device 7 0.3
dump 0x0000: 101b000002000000000000000000000000000000010000000000001000000000
dump 0x0020: 00170000000000000000000000000000
dump end hdm
dump begin dvsec 0xb0d00100 0x14 device 7 0.3
dump 0x0000: 2300c113981ec30300001e0006000000
dump 0x0010: 00000200
dump end dvsec
end: success
";

#[test]
fn the_images_own_dump_says_where_each_component_sits() {
    let cut = IMAGE.find("dump begin cedt").unwrap();
    let rest = IMAGE.find("dump begin hdm").unwrap();
    let text = format!("{}{}", &IMAGE[..cut], &IMAGE[rest..]);
    let found = found(&text);
    let seats: Vec<_> = found
        .iter()
        .map(|found| {
            let seat = found.seat.clone().unwrap();
            (found.lines.unwrap(), seat.uid, seat.ports)
        })
        .collect();
    let expected = [((3, 6), 7, vec![]), ((7, 10), 7, vec![0, 3]), ((11, 14), 7, vec![0, 3])];
    assert_eq!(seats, expected);
    assert!(found.iter().all(|found| found.form == Form::ImageDump));
    // The table's row with a blank in it is no row.
    assert!(error(IMAGE).starts_with("line 4, column"), "{}", error(IMAGE));
}

const CXL_LIST: &str = r#"[
  {
    "bus":"root0",
    "provider":"ACPI.CXL",
    "nr_dports":1,
    "dports":[ { "dport":"pci0000:0c", "alias":"ACPI0016:00", "id":7 } ],
    "decoders:root0":[
      {
        "decoder":"decoder0.0",
        "resource":4294967296,
        "size":4294967296,
        "interleave_ways":1,
        "volatile_capable":true,
        "nr_targets":1,
        "targets":[ { "target":"pci0000:0c", "alias":"ACPI0016:00", "position":0, "id":7 } ]
      }
    ],
    "ports:root0":[
      {
        "port":"port1",
        "host":"pci0000:0c",
        "depth":1,
        "dports":[ { "dport":"0000:0c:00.0", "id":2 } ],
        "decoders:port1":[
          {
            "decoder":"decoder1.0",
            "resource":4294967296,
            "size":268435456,
            "interleave_ways":1,
            "region":"region0",
            "nr_targets":1,
            "locked":true,
            "targets":[ { "target":"0000:0c:00.0", "position":0, "id":2 } ]
          }
        ],
        "endpoints:port1":[
          {
            "endpoint":"endpoint2",
            "host":"mem0",
            "parent_dport":"0000:0c:00.0",
            "depth":2,
            "memdev":{ "memdev":"mem0", "ram_size":268435456, "serial":0, "host":"0000:0d:00.0" },
            "decoders:endpoint2":[
              {
                "decoder":"decoder2.0",
                "resource":4294967296,
                "size":268435456,
                "interleave_ways":1,
                "region":"region0",
                "dpa_resource":0,
                "dpa_size":268435456,
                "mode":"ram"
              }
            ]
          }
        ]
      }
    ]
  }
]
"#;

/// The same machine in sysfs, as `grep -r . /sys/devices/platform/ACPI0017:00/root0` and `find -type l
/// -printf '%p -> %l\n'` have it.
const SYSFS: &str = "\
/sys/devices/platform/ACPI0017:00/root0/decoder0.0/start:0x100000000
/sys/devices/platform/ACPI0017:00/root0/decoder0.0/size:0x100000000
/sys/devices/platform/ACPI0017:00/root0/decoder0.0/interleave_ways:1
/sys/devices/platform/ACPI0017:00/root0/decoder0.0/target_list:7
/sys/devices/platform/ACPI0017:00/root0/decoder0.0/cap_ram:1
/sys/devices/platform/ACPI0017:00/root0/decoder0.0/cap_pmem:0
/sys/devices/platform/ACPI0017:00/root0/dport7 -> ../../../pci0000:0c
/sys/devices/platform/ACPI0017:00/root0/port1/uport -> ../../../../pci0000:0c
/sys/devices/platform/ACPI0017:00/root0/port1/dport2 -> ../../../../pci0000:0c/0000:0c:00.0
/sys/devices/platform/ACPI0017:00/root0/port1/decoder1.0/start:0x100000000
/sys/devices/platform/ACPI0017:00/root0/port1/decoder1.0/size:0x10000000
/sys/devices/platform/ACPI0017:00/root0/port1/decoder1.0/locked:1
/sys/devices/platform/ACPI0017:00/root0/port1/decoder1.0/target_list:2
/sys/devices/platform/ACPI0017:00/root0/port1/endpoint2/uport -> ../../../../../pci0000:0c/0000:0c:00.0/0000:0d:00.0/mem0
/sys/devices/platform/ACPI0017:00/root0/port1/endpoint2/parent_dport -> ../../../../../pci0000:0c/0000:0c:00.0
/sys/devices/platform/ACPI0017:00/root0/port1/endpoint2/decoder2.0/start:0x100000000
/sys/devices/platform/ACPI0017:00/root0/port1/endpoint2/decoder2.0/size:0x10000000
/sys/devices/platform/ACPI0017:00/root0/port1/endpoint2/decoder2.0/dpa_resource:0x0
/sys/devices/platform/ACPI0017:00/root0/port1/endpoint2/decoder2.0/dpa_size:0x10000000
/sys/devices/platform/ACPI0017:00/root0/port1/endpoint2/decoder2.0/mode:ram
/sys/devices/pci0000:0c/0000:0c:00.0/0000:0d:00.0/mem0/ram/size:0x10000000
/sys/devices/pci0000:0c/0000:0c:00.0/0000:0d:00.0/mem0/pmem/size:0x0
";

fn witness(text: &str) -> Witness {
    let found = found(text);
    let [Found { content: Content::Witness(witness), .. }] = found.as_slice() else {
        panic!("{found:?}")
    };
    witness.clone()
}

#[test]
fn both_views_of_linux_show_the_same_machine() {
    for text in [CXL_LIST, SYSFS, &quoted(CXL_LIST), &quoted(SYSFS)] {
        let witness = witness(text);
        let window = &witness.decoders["decoder0.0"];
        assert_eq!((window.start, window.size), (Some(1 << 32), Some(1 << 32)));
        assert_eq!((window.targets.as_slice(), window.volatile), (&[7][..], Some(true)));
        let bridge = &witness.decoders["decoder1.0"];
        assert_eq!((bridge.locked, bridge.targets.as_slice()), (Some(true), &[2][..]));
        let device = &witness.decoders["decoder2.0"];
        assert_eq!((device.dpa, device.dpa_size), (Some(0), Some(0x1000_0000)));
        assert_eq!(device.mode.as_deref(), Some("ram"));
        let endpoint = &witness.ports["endpoint2"];
        assert_eq!(endpoint.parent.as_deref(), Some("port1"));
        assert_eq!(endpoint.host.as_deref(), Some("mem0"));
        assert_eq!(endpoint.parent_dport.as_deref(), Some("0000:0c:00.0"));
        let root = &witness.ports["root0"];
        assert_eq!(root.dports[&7].as_deref(), Some("pci0000:0c"));
        let mem = &witness.memdevs["mem0"];
        assert_eq!((mem.ram, mem.pmem), (Some(0x1000_0000), Some(0)));
    }
}

#[test]
fn sizes_for_people_count_where_nothing_was_rounded() {
    let text = CXL_LIST
        .replace("\"size\":268435456", "\"size\":\"256.00 MiB (268.44 MB)\"")
        .replace("\"resource\":4294967296", "\"resource\":\"0x100000000\"");
    let first = witness(&text);
    assert_eq!(first.decoders["decoder1.0"].size, Some(256 << 20));
    assert_eq!(first.decoders["decoder1.0"].start, Some(1 << 32));
    let rounded = CXL_LIST.replace("\"size\":268435456", "\"size\":\"1.33 GiB (1.43 GB)\"");
    assert_eq!(witness(&rounded).decoders["decoder1.0"].size, None);
}

#[test]
fn address_space_keeps_what_lies_in_what() {
    let text = "00001000-0009fbff : System RAM\n100000000-1ffffffff : CXL Window 0\n  \
                100000000-10fffffff : region0\n    100000000-10fffffff : dax0.0\n";
    let resources = witness(text).resources;
    let shown: Vec<_> = resources.iter().map(|it| (it.depth, it.name.as_str())).collect();
    let expected = [(0, "System RAM"), (0, "CXL Window 0"), (1, "region0"), (2, "dax0.0")];
    assert_eq!(shown, expected);
}

#[test]
fn lspci_of_a_machine_is_one_dump_and_what_has_no_bytes_is_counted() {
    let row = "00: 86 80 93 0d 06 00 10 00 01 10 02 05 00 00 00 00\n";
    let zeros: String = (1..4).map(|row| format!("{row}0:{}\n", " 00".repeat(16))).collect();
    let text = format!(
        "Subject: no CXL\n\n> 0d:00.0 CXL [0502]: Device (rev 01)\n>\tControl: I/O- Mem+\n> {}\n\n\
         0e:00.0 PCI bridge: quiet\n\tControl: I/O-\n\n0f:00.0 CXL: other\n{row}{zeros}\n",
        format!("{row}{zeros}").trim_end().replace('\n', "\n> ")
    );
    let capture = read(text.as_bytes(), Ask::default()).unwrap();
    let addresses: Vec<_> = capture
        .found
        .iter()
        .flat_map(|found| match &found.content {
            Content::Dump(dump) => {
                dump.sections().filter_map(|(address, _)| address.map(str::to_owned)).collect()
            }
            _ => vec![],
        })
        .collect();
    assert_eq!(addresses, ["0d:00.0", "0f:00.0"]);
    assert!(capture.remarks[0].starts_with("1 function"), "{:?}", capture.remarks);
}

#[test]
fn a_kind_that_is_asked_for_picks_its_own() {
    let zeros: String = (0..4).map(|row| format!("{row}0:{}\n", " 11".repeat(16))).collect();
    let text = format!("{ACPIDUMP}\n0d:00.0 CXL: a device\n{zeros}");
    assert_eq!(found(&text).len(), 2);
    for (kind, count) in [(Kind::Cedt, 1), (Kind::Config, 1)] {
        let options = Options { kind: Some(kind), ..Options::default() };
        let capture = read(text.as_bytes(), Ask { options, reading: None }).unwrap();
        assert_eq!(capture.found.len(), count, "{kind}");
    }
}

// ---- as mail, shells and tools leave it ----

/// Configuration space of a memory device, with a capability of PCI Express.
fn function() -> Vec<u8> {
    let mut space = vec![0; 4096];
    let start = [0x86, 0x80, 0x93, 0x0D, 0x06, 0x04, 0x10, 0x00, 0x01, 0x10, 0x02, 0x05];
    space[..12].copy_from_slice(&start);
    space[0x34] = 0x40;
    space[0x40] = 0x10;
    space
}

/// A CXL.cache/mem range with one capability.
fn range() -> Vec<u8> {
    let mut range = vec![0; 4096];
    range[..8].copy_from_slice(&[0x01, 0x00, 0x11, 0x01, 0x02, 0x00, 0x02, 0x08]);
    range
}

/// Dwords as numbers: `xxd -e`, and `od -A n -v -t x4`.
fn numbers(bytes: &[u8]) -> [String; 2] {
    let rows = bytes.chunks(16).enumerate().map(|(row, bytes)| {
        let words = bytes
            .chunks(4)
            .map(|word| word.iter().rev().map(|byte| format!("{byte:02x}")).collect::<String>());
        (16 * row, words.collect::<Vec<_>>().join(" "))
    });
    let rows: Vec<_> = rows.collect();
    let offsets = rows.iter().map(|(at, words)| format!("{at:08x}: {words}  ................\n"));
    [offsets.collect(), rows.iter().map(|(_, words)| format!(" {words}\n")).collect()]
}

#[test]
fn numbers_are_never_taken_for_a_function_that_is_not_there() {
    let short = &range()[..256];
    for (bytes, kind) in [
        (range(), Kind::Cachemem),
        (function(), Kind::Config),
        (function()[..256].to_vec(), Kind::Config),
    ] {
        for text in numbers(&bytes) {
            let asks = [
                Ask::default(),
                Ask { reading: Some(Reading::Words), ..Ask::default() },
                Ask { options: Options { kind: Some(kind), ..Options::default() }, reading: None },
            ];
            for ask in asks {
                let capture = read(text.as_bytes(), ask).unwrap();
                let [Found { form, content: Content::Dump(dump), .. }] = capture.found.as_slice()
                else {
                    panic!("{kind}: {capture:?}")
                };
                assert_eq!((dump.kind(), *form), (kind, Form::Words(4)), "{ask:?}");
                assert_eq!(dump.sections().next().unwrap().1, bytes, "{kind}");
            }
        }
        assert!(read(&bytes, Ask::default()).is_ok(), "{kind}");
    }
    // A part of a range is a part of a range, and no function of another maker.
    for text in numbers(short) {
        let reason = "expected a CXL.cache/mem range of 4096 bytes, found 256";
        assert!(error(&text).ends_with(reason), "{}", error(&text));
    }
}

#[test]
fn as_many_bytes_as_a_function_has_are_no_function() {
    let mut program = vec![0; 4096];
    program[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    program[0x10..0x14].copy_from_slice(&[0x03, 0x00, 0x3E, 0x00]);
    let text = b"All work and no play makes it a dull day.\n".repeat(100);
    for bytes in [program, text[..4096].to_vec(), text[..256].to_vec()] {
        let error = read(&bytes, Ask::default()).unwrap_err();
        assert!(!error.is_recognised(), "{error}");
        // Whoever knows better says so.
        let options = Options { kind: Some(Kind::Config), ..Options::default() };
        let reading = Some(Reading::Raw).filter(|_| text.starts_with(&bytes[..4]));
        assert!(read(&bytes, Ask { options, reading }).is_ok());
    }
}

#[test]
fn characters_are_no_bytes_of_a_table() {
    let prose = "CEDT table is attached, see below please have a look at it\n";
    for text in [ACPIDUMP, prose, "CEDT\n"] {
        for kind in [None, Some(Kind::Cedt), Some(Kind::Hdm), Some(Kind::Config)] {
            let options = Options { kind, force: true, ..Options::default() };
            let capture = read(text.as_bytes(), Ask { options, reading: None });
            // Whoever forces another kind on the table's own bytes has asked for that.
            assert_eq!(capture.is_ok(), text == ACPIDUMP, "{kind:?} {text}");
            if let Ok(Capture { found, .. }) = capture {
                let [Found { content: Content::Dump(dump), .. }] = found.as_slice() else {
                    panic!("{found:?}")
                };
                assert_eq!(dump.sections().next().unwrap().1, CEDT, "{kind:?} {text}");
            }
        }
    }
    assert!(error("CEDT\n").contains("5 bytes of text that start with \"CEDT\""));
}

#[test]
fn pairs_of_bytes_are_numbers_only_where_a_table_says_so() {
    let zeros = "0000 ".repeat(8);
    let text = format!(
        "00000000: 0100 {}\n00000010: {zeros}\n00000020: {zeros}\n",
        "0000 ".repeat(7).trim_end()
    );
    assert!(read(text.as_bytes(), Ask::default()).is_err(), "{text}");
}

#[test]
fn another_dump_behind_a_blank_line_is_another() {
    let other = "02c0: 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff 00\n\
                 0300: 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff 00\n";
    let options = Options { force: true, ..Options::default() };
    let text = format!("{ACPIDUMP}{other}");
    let capture = read(text.as_bytes(), Ask { options, reading: None }).unwrap();
    assert!(matches!(&capture.found[0].content, Content::Dump(dump) if dump.kind() == Kind::Cedt));
}

#[test]
fn fields_that_are_no_table_give_way_to_the_raw_data_below_them() {
    let unknown = "[044h 0068 001h]               Subtable Type : 04 [Unknown]\n\
                   [045h 0069 001h]                    Reserved : 00\n\
                   [046h 0070 002h]                      Length : 0028\n\n\
                   **** Unknown CEDT subtable type 0x4\n\n";
    let start = IASL_FIELDS.find("[044h").unwrap();
    let fields = format!("{}{unknown}", &IASL_FIELDS[..start]);
    let capture = read(format!("{fields}{IASL_RAW}").as_bytes(), Ask::default()).unwrap();
    assert_eq!(cedt(&format!("{fields}{IASL_RAW}")), (CEDT.to_vec(), Form::IaslRaw));
    let [remark] = capture.remarks.as_slice() else { panic!("{:?}", capture.remarks) };
    assert!(remark.contains("raw data") && remark.contains("found 0x48"), "{remark}");
    // Without it the fields are what there is.
    assert!(error(&fields).contains("expected a table of 0x6c bytes, found 0x48"));
    let other = format!("{fields}{IASL_FIELDS}{IASL_RAW}");
    assert!(error(&other).contains("expected a table of 0x6c bytes, found 0x48"));
}

#[test]
fn text_of_a_shell_of_two_bytes_a_character_is_text() {
    for (form, text) in FORMS {
        for bom in [[0xFF, 0xFE], [0xFE, 0xFF]] {
            let units = text.encode_utf16().map(|unit| match bom {
                [0xFF, _] => unit.to_le_bytes(),
                _ => unit.to_be_bytes(),
            });
            let wide: Vec<u8> = bom.into_iter().chain(units.flatten()).collect();
            let capture = read(&wide, Ask::default()).unwrap();
            let [Found { form: taken, content: Content::Dump(_), .. }] = capture.found.as_slice()
            else {
                panic!("{form}: {capture:?}")
            };
            assert_eq!(*taken, form);
        }
    }
    // Bytes that only start so are bytes.
    let mut space = function();
    space[..2].copy_from_slice(&[0xFE, 0xFF]);
    assert!(read(&space, Ask::default()).is_ok());
}

/// A name, and what it makes of a line, which has a number from 0.
type Carrier = (&'static str, fn(usize, &str) -> String);

/// What lies between a machine and whoever reads of it, as it leaves each line.
const CARRIERS: [Carrier; 24] = [
    ("a page's blanks", |_, line| line.replace(' ', "\u{A0}")),
    ("a page's entities", |_, line| {
        line.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
    }),
    ("a word processor", |_, line| line.replace(": \"", ": \u{201C}").replace('"', "\u{201D}")),
    ("colours", |_, line| format!("\u{1b}[1;32m{line}\u{1b}[0m\u{1b}[K")),
    ("a title", |_, line| format!("\u{1b}]0;user@host: ~\u{7}{line}")),
    ("a serial line", |_, line| format!("\0{line}\r\r")),
    ("progress", |_, line| format!("  50 %\r 100 %\r{line}")),
    ("dmesg", |at, line| format!("[    1.{:06}] {line}", at)),
    ("dmesg with callers", |at, line| format!("[    1.{:06}][    T1] {line}", at)),
    ("dmesg -T", |at, line| format!("[Tue Dec  1 12:{:02}:56 2026] {line}", at % 60)),
    ("dmesg in ISO", |at, line| format!("2026-12-01T12:34:56,{:06}+01:00 {line}", at)),
    ("a runner", |at, line| format!("2026-12-01T12:34:56.{:07}Z {line}", at)),
    ("syslog", |at, line| format!("Dec  1 12:{:02}:56 host kernel: [    1.5] {line}", at % 60)),
    ("ts", |at, line| format!("Dec 01 12:34:{:02} {line}", at % 60)),
    ("a terminal program", |at, line| format!("[12:34:56.{:03}] {line}", at % 1000)),
    ("several programs' output", |_, line| format!("qemu-1  | {line}")),
    ("a table", |_, line| format!("| {line}")),
    ("a patch", |_, line| format!("+{line}")),
    ("a list", |_, line| format!("  - {line}")),
    ("a block of code", |_, line| format!("    {line}")),
    ("a comment", |_, line| format!("// {line}")),
    ("grep -n", |at, line| format!("{}:{line}", at + 1)),
    ("grep -n of two", |at, line| format!("report.txt:{}:{line}", at + 117)),
    ("cat -n", |at, line| format!("{:6}\t{line}", at + 95)),
];

#[test]
fn what_carries_a_text_changes_nothing() {
    for (form, text) in FORMS {
        for (carrier, carry) in CARRIERS {
            let carried: String =
                text.lines().enumerate().map(|(at, line)| carry(at, line) + "\n").collect();
            assert_eq!(cedt(&carried).0, CEDT, "{form} by {carrier}:\n{carried}");
        }
    }
    for (carrier, carry) in CARRIERS {
        let carry = |text: &str| -> String {
            text.lines().enumerate().map(|(at, line)| carry(at, line) + "\n").collect()
        };
        assert_eq!(witness(&carry(CXL_LIST)), witness(CXL_LIST), "{carrier}");
        // The log's stamps hide no path, but a path's own colon does that of a file's name.
        if carrier != "grep -n of two" {
            assert_eq!(witness(&carry(SYSFS)), witness(SYSFS), "{carrier}");
        }
        if carrier != "a block of code" {
            assert_eq!(witness(&carry(IOMEM)), witness(IOMEM), "{carrier}");
        }
        let lspci = found(&carry(&lspci()));
        let [Found { content: Content::Dump(dump), .. }] = lspci.as_slice() else {
            panic!("{carrier}: {lspci:?}")
        };
        assert_eq!(dump.sections().next().unwrap(), (Some("0d:00.0"), &function()[..]));
    }
    // What cannot be seen line by line.
    type All = (&'static str, fn(&str) -> Vec<u8>);
    let all: Vec<All> = vec![
        ("UTF-16 that does not say so", |text| {
            text.encode_utf16().flat_map(u16::to_le_bytes).collect()
        }),
        ("an older kind of text", |text| {
            text.bytes().map(|byte| if byte == b' ' { 0xA0 } else { byte }).collect()
        }),
        ("lines of an old machine", |text| text.replace('\n', "\r").into_bytes()),
    ];
    for (carrier, carry) in all {
        for (form, text) in FORMS {
            let capture = read(&carry(text), Ask::default()).unwrap();
            let [Found { form: taken, content: Content::Dump(dump), .. }] =
                capture.found.as_slice()
            else {
                panic!("{form} by {carrier}: {capture:?}")
            };
            assert_eq!((*taken, dump.sections().next().unwrap().1), (form, &CEDT[..]), "{carrier}");
        }
    }
}

/// All rows of a function, as `lspci -xxxx` prints them.
fn lspci() -> String {
    let rows = function().chunks(16).enumerate().fold(String::new(), |mut text, (row, bytes)| {
        let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!("{row:x}0: {}\n", bytes.join(" "));
        text
    });
    format!("0d:00.0 CXL [0502]: a device (rev 01)\n\tControl: I/O- Mem+\n{rows}\n")
}

#[test]
fn bytes_are_no_text_whatever_they_look_like() {
    // Those of the last ones are valid UTF-8, and a terminal would show none of them.
    let control = [vec![0x01; 4096], vec![0x7F; 4096], b"\x05\x04\x1b[1m".repeat(64)];
    let blocks = [vec![0; 4096], vec![0xFF; 4096], function(), range(), CEDT.to_vec()];
    for bytes in blocks.into_iter().chain(control) {
        let force = Options { kind: Some(Kind::Config), force: true, ..Options::default() };
        let capture = read(&bytes, Ask { options: force, reading: None }).unwrap();
        let [Found { content: Content::Dump(dump), .. }] = capture.found.as_slice() else {
            panic!("{capture:?}")
        };
        assert_eq!(dump.sections().next().unwrap().1, bytes);
    }
}

#[test]
fn buses_that_are_counted_are_no_numbers_of_lines() {
    let list: String = (0..8).map(|bus| format!("{bus:02x}:00.0 CXL: a device\n")).collect();
    let capture = read(format!("{list}\n{CXL_LIST}").as_bytes(), Ask::default()).unwrap();
    assert!(capture.remarks[0].starts_with("8 functions"), "{:?}", capture.remarks);
}

#[test]
fn rows_of_a_log_go_on_behind_what_others_wrote() {
    let other = "[    0.612350] usb 1-1: new device\n[    0.612350] XSDT: 00000010: 00 00 00 00\n";
    let mut lines: Vec<_> = DMESG.lines().map(|line| format!("{line}\n")).collect();
    lines.insert(4, other.to_owned());
    lines.insert(2, other.to_owned());
    assert_eq!(cedt(&lines.concat()).0, CEDT);
    // A row that is missing is no row of somebody else.
    let gone = lines.concat().replace("CEDT: 00000030", "XSDT: 00000030");
    assert!(read(gone.as_bytes(), Ask::default()).is_err(), "{gone}");
}

#[test]
fn numbers_that_say_what_they_are_are_read() {
    let number = |bytes: &[u8]| {
        format!("0x{}", bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    let by = |size: usize, row: usize, line: &dyn Fn(usize, Vec<String>) -> String| -> String {
        let rows = CEDT.chunks(row).enumerate();
        rows.map(|(at, bytes)| line(row * at, bytes.chunks(size).map(number).collect())).collect()
    };
    let array = |_, words: Vec<String>| format!("  {},\n", words.join(", "));
    let gdb =
        |at, words: Vec<String>| format!("0x{at:x} :\t{}\n", words.join("\t")).replace(" :", ":");
    let qemu = |at, words: Vec<String>| format!("{:016x}: {}\n", at, words.join(" "));
    let iasl = |at, words: Vec<String>| {
        format!("    {},    /* {at:08X}    \"CEDT\" */\n", words.join(","))
    };
    let texts = [
        format!(
            "unsigned char cedt[] = {{\n{}}};\nunsigned int cedt_len = 108;\n",
            by(1, 12, &array)
        ),
        by(1, 12, &array).replace("0x00", "0x0"),
        format!("{{\n{}}};\n", by(1, 8, &iasl)),
        by(1, 8, &gdb),
        by(4, 16, &gdb),
        by(1, 8, &qemu),
        by(4, 16, &qemu),
        by(4, 4, &|_, words| words.join(" ").replace("0x", "") + "\n"),
    ];
    for text in texts {
        assert_eq!(cedt(&text).0, CEDT, "{text}");
    }
}

#[test]
fn what_others_log_is_named_and_costs_nothing() {
    let packets =
        "mctp: 00000000: 82 b7 0e ee\nmctp: 00000010: 82 b7 0e ee 82 b7 0e ee 82 b7 0e ee 01\n";
    let zeros: String =
        (0..256).map(|row| format!("{:08x}:{}\n", 16 * row, " 0000".repeat(8))).collect();
    let hidden = "00000000-00000000 : System RAM\n00000000-00000000 : CXL Window 0\n";
    for other in [packets, &zeros, hidden] {
        let text = format!("{ACPIDUMP}\nand\n{other}");
        let capture = read(text.as_bytes(), Ask::default()).unwrap();
        assert!(
            matches!(&capture.found[0].content, Content::Dump(dump) if dump.kind() == Kind::Cedt)
        );
        assert_eq!(cedt(&text).0, CEDT);
    }
    // A part of what is read here is no log of others.
    let broken = ACPIDUMP.replace("    0030: 00", "    0031: 00");
    assert!(error(&format!("{broken}\n{CXL_LIST}")).contains("expected the row of offset 0x30"));
}

#[test]
fn two_machines_are_not_one() {
    let other = SYSFS.replace("start:0x100000000", "start:0x200000000");
    let reason = "expected one machine, in which decoder0.0/start is \"0x100000000\" (others are files of their own), \
                  found \"0x200000000\"";
    assert!(error(&format!("A:\n{SYSFS}\nB:\n{other}")).contains(reason));
    assert_eq!(witness(&format!("{SYSFS}\n{SYSFS}")), witness(SYSFS));
}

#[test]
fn format_hex_of_powershell_is_read() {
    for (heading, width, gap) in
        [("           00 01 02", 8, "   "), ("                  00 01 02", 16, " ")]
    {
        let rows = CEDT.chunks(16).enumerate().map(|(row, bytes)| {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02X} ")).collect();
            let text: String = bytes
                .iter()
                .map(|byte| match byte {
                    b' '..=b'~' => char::from(*byte),
                    _ => '.',
                })
                .collect();
            format!("{:0width$X}{gap}{digits:<48}{gap}{text}\n", 16 * row)
        });
        let text =
            format!("\n   Label: C:\\CEDT.bin\n\n{heading}\n\n{}\n", rows.collect::<String>());
        assert_eq!(cedt(&text), (CEDT.to_vec(), Form::Bytes), "{text}");
    }
}

#[test]
fn what_somebody_shortened_is_named_and_the_rest_is_read() {
    let lines: Vec<_> = ACPIDUMP.lines().collect();
    for mark in ["[...]", "    ...", "<snip>", "[\u{2026}]"] {
        let middle = [&lines[..3], &[mark], &lines[6..]].concat().join("\n");
        let end = [&lines[..4], &[mark]].concat().join("\n");
        for short in [middle, end] {
            let text = format!("{short}\n\n{CXL_LIST}\n");
            let capture = read(text.as_bytes(), Ask::default()).unwrap();
            let [Found { content: Content::Witness(_), .. }] = capture.found.as_slice() else {
                panic!("{capture:?}")
            };
            let [remark] = capture.remarks.as_slice() else { panic!("{:?}", capture.remarks) };
            assert!(remark.contains(mark.trim()) && remark.contains("not read: line "), "{remark}");
            // Alone it is what is wrong.
            assert!(error(&format!("{short}\n")).contains("the dump was shortened"));
        }
        // Behind a table that is whole nothing of it is missing.
        assert_eq!(cedt(&format!("{}\n{mark}\n", ACPIDUMP.trim_end())).0, CEDT);
    }
    let listing = CXL_LIST.replace("    \"nr_dports\":1,\n", "[...]\n");
    assert!(error(&listing).contains("it was shortened"), "{}", error(&listing));
}

#[test]
fn a_table_of_addresses_is_no_dump_that_jumps() {
    let rows = "6ff9d302: 00000002 00000000 00010000 0001 01 33447 /run/a\n\
                cc1aaae6: 00000003 00000000 00000000 0001 03 33448\n\
                1c1aaae6: 00000003 00000000 00000000 0001 03 33449\n";
    let even = rows.replace(" 33447 /run/a", "").replace(" 33448", "").replace(" 33449", "");
    let text = format!("{even}\n{CXL_LIST}");
    assert!(found(&text).iter().all(|found| found.form == Form::CxlList));
    let stack = "ffffc900 00000010 00000020 00000030\nffffc901 00000011 00000021 00000031\n";
    assert!(found(&format!("{stack}\n{CXL_LIST}")).iter().all(|it| it.form == Form::CxlList));
}

#[test]
fn force_names_what_is_broken_and_reads_the_rest() {
    let broken = ACPIDUMP.replace("    0030: 00", "    0031: 00");
    let text = format!("{broken}\n{CXL_LIST}\n");
    assert!(error(&text).contains("expected the row of offset 0x30"));
    let options = Options { force: true, ..Options::default() };
    let capture = read(text.as_bytes(), Ask { options, reading: None }).unwrap();
    assert!(capture.found.iter().any(|found| found.form == Form::CxlList), "{capture:?}");
    assert!(capture.remarks[0].contains("expected the row of offset 0x30"));
    // Zeros that are left of a block are no function that does not answer.
    let rows: String =
        (0..9).map(|row| format!("{:08x}:{}\n", 16 * row, " 0000".repeat(8))).collect();
    let broken = rows.replace("00000040:", "00000041:");
    assert!(read(broken.as_bytes(), Ask { options, reading: None }).is_err());
}

#[test]
fn rows_that_a_mailer_broke_are_rows() {
    let columns = DMESG.lines().skip(1).take(7).map(|line| {
        let row = line.split_once("CEDT: ").unwrap().1;
        let (row, text) = row.split_at(57);
        format!("{}  |{}|", row.replacen(':', " ", 1).trim_end(), text.trim())
    });
    let columns: Vec<_> = columns.collect();
    let acpidump: Vec<_> = ACPIDUMP.lines().skip(1).map(str::to_owned).collect();
    for (rows, cut) in [(columns, 59), (acpidump.clone(), 58), (acpidump, 63)] {
        let broken = rows.iter().map(|row| match row.split_at_checked(cut) {
            Some((row, rest)) => format!("{}\n{rest}\n", row.trim_end()),
            None => format!("{row}\n"),
        });
        let text: String = broken.collect();
        assert_eq!(cedt(&text).0, CEDT, "{text}");
        assert_eq!(cedt(&quoted(&text)).0, CEDT, "{text}");
        // A row that is missing is missing all the same.
        let rows: Vec<_> = text.lines().collect();
        let gap = [&rows[..4], &rows[6..]].concat().join("\n");
        assert!(error(&gap).contains("expected"), "{gap}");
    }
}

#[test]
fn json_of_others_costs_what_its_lines_cost() {
    let mut deep = String::new();
    for level in 0..40_000 {
        deep.push_str("[\n {\n  \"a\": [\n   {\n    \"b\": 1\n   },\n   {\n    \"c\": [ 1, 2 ]\n   }\n  ]\n }");
        deep.push_str(if level % 2 == 0 { ",\n" } else { "\n" });
    }
    let open = "[\n".repeat(60_000);
    let base64 = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9w\n".repeat(20_000);
    let digits = "41424344454647484950515253545556575859505152535455565758 \n".repeat(17_000);
    let start = std::time::Instant::now();
    for text in [&deep, &open, &base64, &digits] {
        assert!(read(text.as_bytes(), Ask::default()).is_err());
        // What is ours is found behind it.
        let both = format!("{text}\nand cxl list says:\n[note]\n{CXL_LIST}]root@host:~# \n");
        let capture = read(both.as_bytes(), Ask::default()).unwrap();
        assert!(capture.found.iter().any(|found| found.form == Form::CxlList));
    }
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

#[test]
fn a_listing_that_is_cut_off_is_said_to_be() {
    let cut = &CXL_LIST[..CXL_LIST.find("\"endpoints:port1\"").unwrap()];
    assert!(error(cut).ends_with("expected JSON, as of cxl list, found its end: it is cut off"));
}

// ---- laws ----

/// Nothing panics, and every line that is named is one of the input.
fn holds(input: &[u8], reading: Option<Reading>) {
    let ask = Ask { reading, ..Ask::default() };
    let count = input.split(|byte| *byte == b'\n').count();
    match read(input, ask) {
        Ok(Capture { found, .. }) => {
            for (first, last) in found.iter().filter_map(|found| found.lines) {
                assert!(0 < first && first <= last && last <= count, "{first}-{last} of {count}");
            }
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
}

/// `/proc/iomem`.
const IOMEM: &str = "100000000-1ffffffff : CXL Window 0\n  100000000-10fffffff : region0\n    100000000-10fffffff : dax0.0\n";

const TEXTS: [&str; 12] = [
    ACPIDUMP,
    IASL_RAW,
    IASL_FIELDS,
    OD_X4,
    HEXDUMP,
    DMESG,
    BASE64,
    IMAGE,
    CXL_LIST,
    SYSFS,
    XXD_E,
    "100000000-1ffffffff : CXL Window 0\n  100000000-10fffffff : region0\n",
];

proptest! {
    #[test]
    fn any_mixture_with_any_damage_is_read_or_refused(
        parts in prop::collection::vec((prop::sample::select(TEXTS.to_vec()), any::<bool>()), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        reading in prop::sample::select(vec![
            None, Some(Reading::Raw), Some(Reading::Bytes), Some(Reading::Words), Some(Reading::Base64),
        ]),
    ) {
        let text: String = parts
            .into_iter()
            .map(|(text, quote)| if quote { quoted(text) } else { text.to_owned() })
            .collect();
        let mut bytes = text.into_bytes();
        for (place, byte) in damage {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        holds(&bytes, reading);
    }

    #[test]
    fn any_lines_are_read_or_refused(
        input in "((dump begin |CEDT @ 0x0|\\[|\\{|/root0/decoder0.0/size:|> |\\[000h 0000 004h\\] A : )?[0-9a-fA-F:*\"=+/,. -]{0,48}\r?\n){0,24}",
    ) {
        holds(input.as_bytes(), None);
    }
}
