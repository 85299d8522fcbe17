//! What the image prints for machines, read back.
//!
//! **Invariant**: the texts are typed by hand from the grammar; the image's own are read by the
//! tests that run it.

use cxl_firmware::topology::Path;
use cxl_harness::console::{self, Collected, ConsoleError, Problem, Registers, Section};
use cxl_image::doorbell::Status;
use cxl_regs::Component;
use proptest::prelude::*;

const WHOLE: &str = "\
SeaBIOS (version 1.16.3)\r\n\
cxl firmware at ring 0\r\n\
dump begin handoff 0x219000 0x22\r\n\
dump 0x0000: 43584c4657484f0001004000d000000001000000020000000060160000000000\r\n\
dump 0x0020: a5ff\r\n\
[    0.000000] a line of somebody else\r\n\
dump end handoff\r\n\
dump begin cedt 0x166000 0x4\r\n\
dump 0x0000: 43454454\r\n\
dump end cedt\r\n\
dump begin hdm 0x3c0001128 0x8 host-bridge 12\r\n\
dump 0x0000: 8203000000000000\r\n\
dump end hdm\r\n\
dump begin hdm 0xfe601128 0x8 upstream-port 12 1\r\n\
dump 0x0000: 8203000001000000\r\n\
dump end hdm\r\n\
dump begin dvsec 0xb0d00100 0x4 device 12 1.3\r\n\
dump 0x0000: 2300c113\r\n\
dump end dvsec\r\n\
end: success\r\n";

fn registers(component: Component, ports: &[u8], address: u64, bytes: &[u8]) -> Registers {
    let place = Path::new(12, ports).expect("a short path");
    Registers { component, place, section: Section { address, bytes: bytes.to_vec() } }
}

#[test]
fn everything_is_collected_byte_by_byte() {
    let collected = console::collect(WHOLE.as_bytes()).expect("a whole text");
    let mut record = b"CXLFWHO\0\x01\0\x40\0\xd0\0\0\0\x01\0\0\0\x02\0\0\0".to_vec();
    record.extend([0, 0x60, 0x16, 0, 0, 0, 0, 0, 0xA5, 0xFF]);
    let expected = Collected {
        handoff: Some(Section { address: 0x21_9000, bytes: record }),
        cedt: Some(Section { address: 0x16_6000, bytes: b"CEDT".to_vec() }),
        hdm: vec![
            registers(Component::HostBridge, &[], 0x3_C000_1128, &[0x82, 3, 0, 0, 0, 0, 0, 0]),
            registers(Component::UpstreamPort, &[1], 0xFE60_1128, &[0x82, 3, 0, 0, 1, 0, 0, 0]),
        ],
        dvsec: vec![registers(Component::Device, &[1, 3], 0xB0D0_0100, &[0x23, 0, 0xC1, 0x13])],
        end: Some(Status::Success),
    };
    assert_eq!(collected, expected);
}

#[test]
fn what_is_said_after_a_reset_counts() {
    let again = WHOLE.replace("43454454", "54444543").replace("end: success", "end: refused");
    let again = again.replace("2300c113", "ffffffff");
    let collected = console::collect((WHOLE.to_owned() + &again).as_bytes()).expect("two runs");
    assert_eq!(collected.cedt.map(|cedt| cedt.bytes), Some(b"TDEC".to_vec()));
    assert_eq!((collected.hdm.len(), collected.dvsec.len()), (2, 1));
    assert_eq!(collected.dvsec[0].section.bytes, [0xFF; 4]);
    assert_eq!(collected.end, Some(Status::Refused));
}

#[test]
fn a_text_with_a_gap_is_an_error_with_its_line() {
    let word = |expected, found: &str| Problem::Word { expected, found: found.to_owned() };
    let order = |expected: &str, found: &str| Problem::Order {
        expected: expected.to_owned(),
        found: found.to_owned(),
    };
    let cases = [
        // A line is missing, a line is short, one is too long.
        (
            "begin cedt 0x0 0x8\n0x0004: 00000000\nend cedt",
            2,
            Problem::Offset { expected: 0, found: 4 },
        ),
        ("begin cedt 0x0 0x8\n0x0000: 00\nend cedt", 3, Problem::Offset { expected: 1, found: 8 }),
        ("begin cedt 0x0 0x1\n0x0000: 0000", 2, Problem::Offset { expected: 1, found: 2 }),
        // Lost or garbled digits.
        ("begin cedt 0x0 0x2\n0x0000: 000", 2, word("pairs of hexadecimal digits", "000")),
        ("begin cedt 0x0 0x2\n0x0000: 00+0", 2, word("pairs of hexadecimal digits", "00+0")),
        ("begin cedt 0x0 0x2\n0: 0000", 2, word("an offset in hex", "0")),
        ("begin cedt", 1, word("an address in hex", "")),
        ("begin cedt 0x0 two", 1, word("a length in hex", "two")),
        ("begin cedt 0x0 0x2 device", 1, word("the end of the line", "device")),
        ("begin mail 0x0 0x2", 1, word("a kind: handoff, cedt, hdm, dvsec", "mail")),
        (
            "begin hdm 0x0 0x2 root-port 1 2",
            1,
            word("host-bridge, upstream-port or device", "root-port"),
        ),
        ("begin hdm 0x0 0x2 device x 2", 1, word("the UID of a host bridge", "x")),
        ("begin hdm 0x0 0x2 device 1", 1, word("port numbers with dots between", "")),
        ("begin hdm 0x0 0x2 device 1 256", 1, word("port numbers with dots between", "256")),
        ("begin cedt 0x0 0x100001", 1, Problem::TooLong { found: 0x10_0001 }),
        // Out of order.
        ("0x0000: 00", 1, order("`dump begin`", "`0x0000: 00`")),
        ("end cedt", 1, order("`dump begin`", "`end cedt`")),
        (
            "begin cedt 0x0 0x2\nbegin cedt 0x0 0x2",
            2,
            order("more of `cedt`, or its end", "`begin cedt 0x0 0x2`"),
        ),
        ("begin cedt 0x0 0x2\nend hdm", 2, order("more of `cedt`, or its end", "`end hdm`")),
        ("begin cedt 0x0 0x2", 1, order("`dump end cedt`", "the end of the text")),
    ];
    for (text, line, problem) in cases {
        let text: Vec<String> = text.lines().map(|line| format!("dump {line}")).collect();
        let found = console::collect(text.join("\n").as_bytes());
        assert_eq!(found, Err(ConsoleError { line, problem }), "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(lines in prop::collection::vec("(dump )?(begin|end|0x0000:)? ?[ -~]{0,20}", 0..20)) {
        let _ = console::collect(lines.join("\n").as_bytes());
    }

    /// What one byte less or more makes of a good text is an error or the same bytes.
    #[test]
    fn a_lost_byte_is_noticed(at in 0..WHOLE.len()) {
        let mut text = WHOLE.as_bytes().to_vec();
        text.remove(at);
        let whole = console::collect(WHOLE.as_bytes()).expect("a whole text");
        if let Ok(found) = console::collect(&text) {
            let same = |one: &Option<Section>, other: &Option<Section>| match (one, other) {
                (Some(one), Some(other)) => one.bytes == other.bytes,
                _ => one.is_none(),
            };
            prop_assert!(same(&found.handoff, &whole.handoff), "{found:?}");
            prop_assert!(same(&found.cedt, &whole.cedt), "{found:?}");
        }
    }
}
