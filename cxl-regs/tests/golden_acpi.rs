//! ACPI tables against bytes typed by hand from the specifications' tables.
//!
//! **Invariant**: no byte here comes from the code under test. Buffers are pre-filled with 0xa5, so
//! a field that was not written shows.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use cxl_regs::acpi::cedt::{
    Astray, Cedt, CedtError, CedtWriteError, Cfmws, Chbs, ChbsVersion, Csds, CsdsCapabilities,
    Cxims, Problem, Rdpas, RdpasProtocol, Record, Restrictions, Text, wire,
};
use cxl_regs::acpi::header::{self, AppendError};
use cxl_regs::acpi::mcfg::{self, Allocation, AllocationError, Mcfg};
use cxl_regs::acpi::rsdp::RsdpError;
use cxl_regs::acpi::rsdt::{self, Kind, RootError};
use cxl_regs::acpi::srat::{self, Entry, EntryError, MemoryAffinity, Srat};
use cxl_regs::acpi::{CedtWriter, Identity, NoRoom, RootTable, Rsdp, Table, TableError};
use cxl_regs::config::Bdf;
use cxl_regs::interleave::{ReservedArithmetic, ReservedGranularity, ReservedWays};
use cxl_regs::{
    Arithmetic, Granularity, Hpa, Interleave, Selector, Span, SpanError, Ways, XorMapError,
};

const IDENTITY: Identity = Identity {
    oem_id: *b"OEM456",
    oem_table_id: *b"TABLE678",
    oem_revision: 0x0403_0201,
    creator_id: *b"MAKE",
    creator_revision: 0x0807_0605,
};

const GIB: u64 = 1 << 30;

/// What QEMU publishes for one `pxb-cxl,bus_nr=12` and one window of 4 GiB.
#[rustfmt::skip]
const QEMU: &[u8] = &[
    b'C', b'E', b'D', b'T', 0x6c, 0, 0, 0, 1, 0x7b,
    b'O', b'E', b'M', b'4', b'5', b'6', b'T', b'A', b'B', b'L', b'E', b'6', b'7', b'8',
    0x01, 0x02, 0x03, 0x04, b'M', b'A', b'K', b'E', 0x05, 0x06, 0x07, 0x08,
    // 0x24: CHBS, uid 12, version 1, base 0x3c0000000, length 0x10000
    0x00, 0x00, 0x20, 0x00, 0x0c, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0xc0, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,
    // 0x44: CFMWS, base 0x3d0000000, size 4 GiB, 1-way, modulo, 256 B, 0x2f, qtg 0, target 12
    0x01, 0x00, 0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xd0, 0x03, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x2f, 0x00, 0x00, 0x00, 0x0c, 0x00, 0x00, 0x00,
];

/// Four bridges behind one XOR window at 1 KiB, and its maps.
#[rustfmt::skip]
const XOR: &[u8] = &[
    b'C', b'E', b'D', b'T', 0x70, 0, 0, 0, 1, 0xff,
    b'O', b'E', b'M', b'4', b'5', b'6', b'T', b'A', b'B', b'L', b'E', b'6', b'7', b'8',
    0x01, 0x02, 0x03, 0x04, b'M', b'A', b'K', b'E', 0x05, 0x06, 0x07, 0x08,
    // 0x24: CFMWS, base 0x10000000000, size 8 GiB, 4-way, XOR, 1 KiB, host-only + volatile, qtg 3
    0x01, 0x00, 0x34, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x02, 0x01, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00,
    0x06, 0x00, 0x03, 0x00,
    0x0a, 0x00, 0x00, 0x00, 0x0b, 0x00, 0x00, 0x00, 0x0c, 0x00, 0x00, 0x00, 0x0d, 0x00, 0x00, 0x00,
    // 0x58: CXIMS, 1 KiB, two maps: bits 10 and 16, bits 11 and 17
    0x02, 0x00, 0x18, 0x00, 0x00, 0x00, 0x02, 0x02,
    0x00, 0x04, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x08, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00,
];

/// A window over twelve bridges.
#[rustfmt::skip]
const TWELVE: &[u8] = &[
    b'C', b'E', b'D', b'T', 0x78, 0, 0, 0, 1, 0xc0,
    b'O', b'E', b'M', b'4', b'5', b'6', b'T', b'A', b'B', b'L', b'E', b'6', b'7', b'8',
    0x01, 0x02, 0x03, 0x04, b'M', b'A', b'K', b'E', 0x05, 0x06, 0x07, 0x08,
    // 0x24: CFMWS, base 0x80000000000, size 3 GiB, 12-way, modulo, 8 KiB, persistent + fixed, qtg 1
    0x01, 0x00, 0x54, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00,
    0x00, 0x00, 0x00, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x0a, 0x00, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00,
    0x18, 0x00, 0x01, 0x00,
    0x14, 0x00, 0x00, 0x00, 0x15, 0x00, 0x00, 0x00, 0x16, 0x00, 0x00, 0x00, 0x17, 0x00, 0x00, 0x00,
    0x18, 0x00, 0x00, 0x00, 0x19, 0x00, 0x00, 0x00, 0x1a, 0x00, 0x00, 0x00, 0x1b, 0x00, 0x00, 0x00,
    0x1c, 0x00, 0x00, 0x00, 0x1d, 0x00, 0x00, 0x00, 0x1e, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80,
];

/// A CXL 1.1 host with its error reporting, and the system's capabilities: revision 2.
#[rustfmt::skip]
const RCH: &[u8] = &[
    b'C', b'E', b'D', b'T', 0x60, 0, 0, 0, 2, 0xf4,
    b'O', b'E', b'M', b'4', b'5', b'6', b'T', b'A', b'B', b'L', b'E', b'6', b'7', b'8',
    0x01, 0x02, 0x03, 0x04, b'M', b'A', b'K', b'E', 0x05, 0x06, 0x07, 0x08,
    // 0x24: CHBS, uid 0x04030201, version 0, base 0xfe8f0000, length 0x2000
    0x00, 0x00, 0x20, 0x00, 0x01, 0x02, 0x03, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x8f, 0xfe, 0x00, 0x00, 0x00, 0x00, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    // 0x44: RDPAS, segment 0x0102, 0x35:1f.2, base 0x8877665544332211, CXL.cachemem
    0x03, 0x00, 0x14, 0x00, 0x02, 0x01, 0xfa, 0x35, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
    0x01, 0x00, 0x00, 0x00,
    // 0x58: CSDS, no clean write-back, metabits 5
    0x04, 0x00, 0x08, 0x00, 0x2a, 0x00, 0x00, 0x00,
];

fn chbs(uid: u32, version: ChbsVersion, base: u64) -> Chbs {
    Chbs::new(uid, version, Hpa(base)).unwrap()
}

fn window(base: u64, size: u64, ways: Ways, granularity: Granularity, targets: &[u32]) -> Cfmws {
    let span = Span::new(Hpa(base), size).unwrap();
    Cfmws::new(span, Interleave::new(ways, granularity), targets).unwrap()
}

fn qemu_window() -> Cfmws {
    let mut window = window(0x3_d000_0000, 4 * GIB, Ways::One, Granularity::B256, &[12]);
    window.restrictions = Restrictions::new()
        .with_device_coherent(true)
        .with_host_only(true)
        .with_volatile(true)
        .with_persistent(true)
        .with_back_invalidate(true);
    window
}

fn xor_window() -> Cfmws {
    let targets = [10, 11, 12, 13];
    let mut window = window(0x100_0000_0000, 8 * GIB, Ways::Four, Granularity::K1, &targets);
    window.arithmetic = Arithmetic::Xor;
    window.restrictions = Restrictions::new().with_host_only(true).with_volatile(true);
    window.qtg = 3;
    window
}

fn xor_maps() -> Cxims {
    Cxims::new(Granularity::K1, &[1 << 10 | 1 << 16, 1 << 11 | 1 << 17])
}

fn twelve_window() -> Cfmws {
    let targets = [20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 0x8000_0000];
    let mut window = window(0x800_0000_0000, 3 * GIB, Ways::Twelve, Granularity::K8, &targets);
    window.restrictions = Restrictions::new().with_persistent(true).with_fixed(true);
    window.qtg = 1;
    window
}

const RDPAS: Rdpas = Rdpas {
    segment: 0x0102,
    bdf: Bdf::from_bits(0x35fa),
    base: Hpa(0x8877_6655_4433_2211),
    protocol: RdpasProtocol::CacheMem,
};

fn csds() -> Csds {
    let capabilities = CsdsCapabilities::new().with_no_clean_writeback(true).with_metabits(5);
    Csds { capabilities }
}

/// An image and the records in it, with their offsets.
type Image = (&'static [u8], Vec<(usize, Record<'static>)>);

fn images() -> [Image; 4] {
    [
        (
            QEMU,
            vec![
                (0x24, Record::Chbs(chbs(12, ChbsVersion::Chbcr, 0x3_c000_0000))),
                (0x44, Record::Cfmws(qemu_window())),
            ],
        ),
        (XOR, vec![(0x24, Record::Cfmws(xor_window())), (0x58, Record::Cxims(xor_maps()))]),
        (TWELVE, vec![(0x24, Record::Cfmws(twelve_window()))]),
        (
            RCH,
            vec![
                (0x24, Record::Chbs(chbs(0x0403_0201, ChbsVersion::Rch, 0xfe8f_0000))),
                (0x44, Record::Rdpas(RDPAS)),
                (0x58, Record::Csds(csds())),
            ],
        ),
    ]
}

fn write<'a>(
    records: &[(usize, Record<'_>)],
    buffer: &'a mut [u8],
) -> Result<&'a mut [u8], CedtWriteError> {
    let mut writer = CedtWriter::new(buffer, IDENTITY)?;
    for (_, record) in records {
        match record {
            Record::Chbs(chbs) => writer.chbs(chbs)?,
            Record::Cfmws(window) => writer.cfmws(window)?,
            Record::Cxims(cxims) => writer.cxims(cxims)?,
            Record::Rdpas(rdpas) => writer.rdpas_in_current_layout(rdpas)?,
            Record::Csds(csds) => writer.csds(csds)?,
            other => panic!("the writer has no such record: {other:?}"),
        }
    }
    writer.finish()
}

#[test]
fn cedt_images_read_as_their_records() {
    for (image, records) in images() {
        let cedt = Cedt::read(image).unwrap();
        let found: Vec<_> = cedt.records().map(Result::unwrap).collect();
        assert_eq!(found, records);
        assert_eq!(cedt.check(), Ok(()));
        assert_eq!(cedt.bytes(), image);
        assert_eq!(cedt.header().creator_id, *b"MAKE");
    }
}

#[test]
fn cedt_records_are_written_as_the_images() {
    for (image, records) in images() {
        let mut buffer = [0xa5; 0x100];
        assert_eq!(write(&records, &mut buffer).unwrap(), image);
        assert!(buffer[image.len()..].iter().all(|&byte| byte == 0xa5), "wrote behind the table");
    }
}

#[test]
fn cedt_needs_exactly_its_own_length_of_buffer() {
    for (image, records) in images() {
        for have in 0..image.len() {
            let mut buffer = vec![0xa5; have];
            match write(&records, &mut buffer) {
                Err(CedtWriteError::NoRoom(error)) => {
                    assert_eq!(error.have, have);
                    assert!(error.need > have && error.need <= image.len(), "{error}");
                }
                other => panic!("{have} bytes: {other:?}"),
            }
        }
        assert_eq!(write(&records, &mut vec![0xa5; image.len()]).unwrap(), image);
    }
}

#[test]
fn cedt_lists_bridges_and_windows() {
    let cedt = Cedt::read(QEMU).unwrap();
    assert!(cedt.windows().eq([qemu_window()]));
    let bridges: Vec<_> = cedt.host_bridges().collect();
    assert_eq!(bridges, [chbs(12, ChbsVersion::Chbcr, 0x3_c000_0000)]);
    assert_eq!(bridges[0].registers(), Span::new(Hpa(0x3_c000_0000), 0x1_0000).unwrap());
    assert_eq!(bridges[0].version(), ChbsVersion::Chbcr);
    let targets = twelve_window().targets().to_vec();
    assert_eq!((targets.len(), targets[0], targets[11]), (12, 20, 0x8000_0000));
    assert_eq!(twelve_window().span(), Span::new(Hpa(0x800_0000_0000), 3 * GIB).unwrap());
    assert_eq!(twelve_window().interleave(), Interleave::new(Ways::Twelve, Granularity::K8));
}

#[test]
fn xor_window_selects_by_the_maps_of_its_table() {
    let cedt = Cedt::read(XOR).unwrap();
    let selector = cedt.selector(&xor_window()).unwrap();
    // Bit 10 ^ bit 16, and bit 11 ^ bit 17.
    for (hpa, position) in [
        (0x100_0000_0000, 0),
        (0x100_0000_0400, 1),
        (0x100_0000_0800, 2),
        (0x100_0001_0000, 1),
        (0x100_0003_0000, 3),
        (0x100_0003_0c00, 0),
    ] {
        assert_eq!(selector.position(Hpa(hpa)), position, "{hpa:#x}");
    }
    let plain = Cedt::read(QEMU).unwrap().selector(&qemu_window());
    assert_eq!(plain, Ok(Selector::modulo(Interleave::NONE)));
    // Maps for another granularity are no maps.
    let no_cxims = Problem::NoCxims { granularity: Granularity::K1 };
    let other = Cxims::new(Granularity::K2, &[1 << 11]);
    assert_eq!(xor_window().selector(Some(&other)), Err(no_cxims));
    assert_eq!(Cedt::read(QEMU).unwrap().selector(&xor_window()), Err(no_cxims));
}

#[test]
fn rdpas_has_its_protocol_behind_the_base_in_both_directions() {
    let image = edited(RCH, &[(0x54, &[0])]);
    let mut records = images()[3].1.clone();
    records[1].1 = Record::Rdpas(Rdpas { protocol: RdpasProtocol::Io, ..RDPAS });
    assert!(Cedt::read(&image).unwrap().records().eq(records.iter().cloned().map(Ok)));
    assert_eq!(write(&records, &mut [0xa5; 0x100]).unwrap(), image);
    assert!(Text(&image).to_string().contains("\n  protocol          0x00  CXL.io\n"));
}

/// The bytes with some replaced, and length and checksum made right by other code than the
/// library's.
fn edited(image: &[u8], edits: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = image.to_vec();
    for &(at, new) in edits {
        bytes[at..at + new.len()].copy_from_slice(new);
    }
    sealed(bytes)
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[9] = 0;
    let total: u32 = bytes.iter().map(|&byte| u32::from(byte)).sum();
    bytes[9] = ((256 - total % 256) % 256) as u8;
    bytes
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    sealed(parts.concat())
}

/// A table that breaks one rule: offset of the record, offset of the field, what it is, what it
/// says.
type Broken = (Vec<u8>, usize, usize, Problem, &'static str);

fn broken() -> Vec<Broken> {
    let all = [0xff; 8];
    let two_windows = |base: &[u8]| {
        let mut second = QEMU[0x44..].to_vec();
        second[8..16].copy_from_slice(base);
        joined(&[QEMU, &second])
    };
    let chbs_version = ChbsVersion::Chbcr;
    let span = |base, size| Span::new(Hpa(base), size).unwrap();
    vec![
        (
            joined(&[QEMU, &[1, 0, 0x28]]),
            0x6c,
            0x6c,
            Problem::RecordHeader { left: 3 },
            "byte 0x6c: the table ends inside a record header (3 bytes left)",
        ),
        (
            // No kind that is known: nothing but their number is wrong.
            joined(&[&QEMU[..0x24], &[9, 0, 4, 0].repeat(1025)]),
            0x1024,
            0x1024,
            Problem::TooMany { limit: 1024 },
            "byte 0x1024: the table goes on behind 1024 records, no more are read",
        ),
        (
            edited(QEMU, &[(0x26, &[0, 0])]),
            0x24,
            0x26,
            Problem::RecordLength { found: 0 },
            "byte 0x26: the record length 0 does not cover the record's header",
        ),
        (
            edited(QEMU, &[(0x24, &[9]), (0x26, &[3, 0])]),
            0x24,
            0x26,
            Problem::RecordLength { found: 3 },
            "byte 0x26: the record length 3 does not cover the record's header",
        ),
        (
            edited(QEMU, &[(0x46, &[0x29, 0])]),
            0x44,
            0x46,
            Problem::PastEnd { length: 0x29, left: 0x28 },
            "byte 0x46: the record has 41 bytes, the table only 40 more",
        ),
        (
            joined(&[&QEMU[..0x24], &[0, 0, 0x1f, 0], &[0; 0x1b]]),
            0x24,
            0x26,
            Problem::RecordTooShort { kind: wire::Kind::Chbs, need: 0x20, found: 0x1f },
            "byte 0x26: the chbs record has 31 bytes, its kind needs 32",
        ),
        (
            joined(&[&QEMU[..0x24], &[1, 0, 0x23, 0], &[0; 0x1f]]),
            0x24,
            0x26,
            Problem::RecordTooShort { kind: wire::Kind::Cfmws, need: 0x24, found: 0x23 },
            "byte 0x26: the cfmws record has 35 bytes, its kind needs 36",
        ),
        (
            joined(&[&QEMU[..0x24], &[2, 0, 7, 0], &[0; 3]]),
            0x24,
            0x26,
            Problem::RecordTooShort { kind: wire::Kind::Cxims, need: 8, found: 7 },
            "byte 0x26: the cxims record has 7 bytes, its kind needs 8",
        ),
        (
            // The 0x11 bytes that older headers make of it.
            joined(&[&QEMU[..0x24], &[3, 0, 0x11, 0], &[0; 0xd]]),
            0x24,
            0x26,
            Problem::RecordTooShort { kind: wire::Kind::Rdpas, need: 0x14, found: 0x11 },
            "byte 0x26: the rdpas record has 17 bytes, its kind needs 20",
        ),
        (
            joined(&[&QEMU[..0x24], &[4, 0, 7, 0], &[0; 3]]),
            0x24,
            0x26,
            Problem::RecordTooShort { kind: wire::Kind::Csds, need: 8, found: 7 },
            "byte 0x26: the csds record has 7 bytes, its kind needs 8",
        ),
        (
            edited(QEMU, &[(0x2c, &[2])]),
            0x24,
            0x2c,
            Problem::ChbsVersion { found: 2 },
            "byte 0x2c: CHBS version 0x2 is not defined (defined: 0, 1)",
        ),
        (
            edited(QEMU, &[(0x3c, &[0x00, 0x20, 0x00])]),
            0x24,
            0x3c,
            Problem::ChbsLength { version: chbs_version, expected: 0x1_0000, found: 0x2000 },
            "byte 0x3c: the register length of CHBS version 1 is 0x10000, found 0x2000",
        ),
        (
            edited(QEMU, &[(0x2c, &[0])]),
            0x24,
            0x3c,
            Problem::ChbsLength { version: ChbsVersion::Rch, expected: 0x2000, found: 0x1_0000 },
            "byte 0x3c: the register length of CHBS version 0 is 0x2000, found 0x10000",
        ),
        (
            edited(QEMU, &[(0x34, &[0; 8])]),
            0x24,
            0x34,
            Problem::ChbsWithoutBase,
            "byte 0x34: the host bridge has no register base",
        ),
        (
            // Ends exactly at 2^64.
            edited(QEMU, &[(0x34, &[0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])]),
            0x24,
            0x34,
            Problem::ChbsWraps { base: 0xffff_ffff_ffff_0000, length: 0x1_0000 },
            "byte 0x34: 0x10000 bytes at base 0xffffffffffff0000 pass the end of the 64-bit space",
        ),
        (
            edited(QEMU, &[(0x5c, &[5])]),
            0x44,
            0x5c,
            Problem::Ways(ReservedWays(5)),
            "byte 0x5c: interleave ways code 0x5 is reserved (defined: 0-4, 8-a)",
        ),
        (
            edited(QEMU, &[(0x60, &[7])]),
            0x44,
            0x60,
            Problem::WindowGranularity(ReservedGranularity(7)),
            "byte 0x60: interleave granularity code 0x7 is reserved (defined: 0-6)",
        ),
        (
            // Not the low byte alone.
            edited(QEMU, &[(0x60, &[0, 1, 0, 0])]),
            0x44,
            0x60,
            Problem::WindowGranularity(ReservedGranularity(0x100)),
            "byte 0x60: interleave granularity code 0x100 is reserved (defined: 0-6)",
        ),
        (
            edited(QEMU, &[(0x5d, &[2])]),
            0x44,
            0x5d,
            Problem::WindowArithmetic(ReservedArithmetic(2)),
            "byte 0x5d: interleave arithmetic code 0x2 is reserved (defined: 0, 1)",
        ),
        (
            edited(QEMU, &[(0x54, &[0; 8])]),
            0x44,
            0x54,
            Problem::ZeroSize { base: 0x3_d000_0000 },
            "byte 0x54: the window at 0x3d0000000 has size 0",
        ),
        (
            edited(QEMU, &[(0x4c, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])]),
            0x44,
            0x4c,
            Problem::WindowWraps { base: 0xffff_ffff_0000_0000, size: 4 * GIB },
            "byte 0x4c: base 0xffffffff00000000 + size 0x100000000 passes the end of the 64-bit \
             space",
        ),
        (
            edited(QEMU, &[(0x4c, &[0, 0, 0, 0xd8])]),
            0x44,
            0x4c,
            Problem::BaseAlignment { base: 0x3_d800_0000 },
            "byte 0x4c: window base 0x3d8000000 is not a multiple of 256 MiB",
        ),
        (
            edited(QEMU, &[(0x54, &[0, 0, 0, 0x08])]),
            0x44,
            0x54,
            Problem::SizeAlignment { size: 0x1_0800_0000 },
            "byte 0x54: window size 0x108000000 is not a multiple of 256 MiB",
        ),
        (
            edited(TWELVE, &[(0x34, &[0, 0, 0, 0xb0])]),
            0x24,
            0x34,
            Problem::SizeNotDivisible { size: 0xb000_0000, ways: Ways::Twelve },
            "byte 0x34: window size 0xb0000000 is not a multiple of 12 times 256 MiB",
        ),
        (
            // One byte short of the last target.
            joined(&[&TWELVE[..0x26], &[0x53, 0], &TWELVE[0x28..0x77]]),
            0x24,
            0x26,
            Problem::TargetCount { expected: 12, found: 11 },
            "byte 0x26: a 12-way window has 12 targets, here are 11",
        ),
        (
            edited(TWELVE, &[(0x58, &[0x17])]),
            0x24,
            0x58,
            Problem::DuplicateTarget { index: 4, uid: 0x17 },
            "byte 0x58: target 4 names host bridge 0x17 a second time",
        ),
        (
            edited(XOR, &[(0x5e, &[7])]),
            0x58,
            0x5e,
            Problem::MapGranularity(ReservedGranularity(7)),
            "byte 0x5e: interleave granularity code 0x7 is reserved (defined: 0-6)",
        ),
        (
            edited(XOR, &[(0x5f, &[3])]),
            0x58,
            0x5f,
            Problem::MapCount { need: 3, have: 2 },
            "byte 0x5f: the record says 3 XOR maps and has room for 2",
        ),
        (
            edited(RCH, &[(0x54, &[2])]),
            0x44,
            0x54,
            Problem::RdpasProtocol { found: 2 },
            "byte 0x54: protocol 0x2 is not defined (defined: 0, 1)",
        ),
        (
            joined(&[QEMU, &QEMU[0x24..0x44]]),
            0x6c,
            0x70,
            Problem::DuplicateChbs { uid: 12 },
            "byte 0x70: an earlier CHBS describes host bridge 0xc already",
        ),
        (
            joined(&[XOR, &XOR[0x58..]]),
            0x70,
            0x76,
            Problem::DuplicateCxims { granularity: Granularity::K1 },
            "byte 0x76: an earlier CXIMS has the maps for granularity 1 KiB already",
        ),
        (
            // The last 256 MiB of the first window.
            two_windows(&[0, 0, 0, 0xc0, 4, 0, 0, 0]),
            0x6c,
            0x74,
            Problem::Overlap {
                window: span(0x4_c000_0000, 4 * GIB),
                other: span(0x3_d000_0000, 4 * GIB),
            },
            "byte 0x74: the window 0x4c0000000-0x5bfffffff overlaps the earlier one \
             0x3d0000000-0x4cfffffff",
        ),
        (
            edited(XOR, &[(0x5e, &[1])]),
            0x24,
            0x3d,
            Problem::NoCxims { granularity: Granularity::K1 },
            "byte 0x3d: the XOR window has no CXIMS for its granularity of 1 KiB",
        ),
        (
            edited(XOR, &[(0x5f, &[1])]),
            0x24,
            0x3d,
            Problem::Maps(XorMapError::TooFew { need: 2, have: 1 }),
            "byte 0x3d: the interleave needs 2 XOR maps, 1 given",
        ),
        (
            edited(XOR, &[(0x68, &all)]),
            0x24,
            0x3d,
            Problem::Maps(XorMapError::WrongLowestBit {
                index: 1,
                map: u64::MAX,
                expected_bit: 11,
            }),
            "byte 0x3d: XOR map 1 is 0xffffffffffffffff: its lowest set bit must be HPA bit 11",
        ),
    ]
}

#[test]
fn every_broken_rule_is_named_with_its_byte() {
    for (bytes, record, offset, problem, words) in broken() {
        let error = CedtError { record, problem };
        let cedt = Cedt::read(&bytes).unwrap();
        assert_eq!(cedt.check(), Err(error), "{words}");
        assert_eq!(error.offset(), offset, "{words}");
        assert_eq!(error.to_string(), words);
        assert!(Text(&bytes).to_string().contains(&format!("  problem           {words}\n")));
    }
}

#[test]
fn records_behind_a_broken_one_are_still_read() {
    // The window is fine by itself and only the bridge is skipped.
    let bytes = edited(QEMU, &[(0x2c, &[2])]);
    let found: Vec<_> = Cedt::read(&bytes).unwrap().records().collect();
    let problem = Problem::ChbsVersion { found: 2 };
    let error = CedtError { record: 0x24, problem };
    assert_eq!(found, [Err(error), Ok((0x44, Record::Cfmws(qemu_window())))]);
    // Nothing can be found behind a record without a length.
    let bytes = edited(QEMU, &[(0x26, &[3, 0])]);
    let mut records = Cedt::read(&bytes).unwrap().records();
    let problem = Problem::RecordLength { found: 3 };
    assert_eq!(records.next(), Some(Err(CedtError { record: 0x24, problem })));
    assert_eq!(records.next(), None);
    assert_eq!(records.next(), None);
}

#[test]
fn what_linux_tolerates_is_tolerated() {
    let unknown = [0x77, 0, 4, 0];
    let long_chbs = [&[0, 0, 0x22, 0], &QEMU[0x28..0x44], &[0x5a, 0x5a]].concat();
    let long_window = [&[1, 0, 0x2d, 0], &QEMU[0x48..], &[12, 0, 0, 0, 0xff]].concat();
    let bytes = joined(&[&QEMU[..0x24], &unknown, &long_chbs, &long_window]);
    let cedt = Cedt::read(&bytes).unwrap();
    let expected = [
        (0x24, Record::Unknown { kind: 0x77, bytes: &unknown }),
        (0x28, Record::Chbs(chbs(12, ChbsVersion::Chbcr, 0x3_c000_0000))),
        (0x4a, Record::Cfmws(qemu_window())),
    ];
    assert!(cedt.records().eq(expected.map(Ok)));
    assert_eq!(cedt.check(), Ok(()));

    // Five maps where no window can use more than four; a CXIMS without any.
    let five = [0x02, 0, 0x30, 0, 0, 0, 0, 5];
    let maps: Vec<u8> = (8..13).flat_map(|bit| (1u64 << bit).to_le_bytes()).collect();
    let none = [0x02, 0, 8, 0, 0, 0, 1, 0];
    let bytes = joined(&[&QEMU[..0x24], &five, &maps, &none]);
    let expected = [
        (0x24, Record::Cxims(Cxims::new(Granularity::B256, &[0x100, 0x200, 0x400, 0x800]))),
        (0x54, Record::Cxims(Cxims::new(Granularity::B512, &[]))),
    ];
    assert!(Cedt::read(&bytes).unwrap().records().eq(expected.map(Ok)));
    assert_eq!(Cxims::new(Granularity::B256, &[1, 2, 3, 4, 5]).maps, [1, 2, 3, 4]);

    // Reserved restriction bits are kept.
    let bytes = edited(QEMU, &[(0x65, &[0xff])]);
    let window = Cedt::read(&bytes).unwrap().windows().next().unwrap();
    assert_eq!(window.restrictions.into_bits(), 0xff2f);
    // A window that starts where another ends.
    let mut second = QEMU[0x44..].to_vec();
    second[8..16].copy_from_slice(&[0, 0, 0, 0xd0, 4, 0, 0, 0]);
    assert_eq!(Cedt::read(&joined(&[QEMU, &second])).unwrap().check(), Ok(()));
    // A table without records.
    assert_eq!(Cedt::read(&joined(&[&QEMU[..0x24]])).unwrap().check(), Ok(()));
}

#[test]
fn raw_view_shows_what_the_judge_refuses() {
    let bytes = edited(QEMU, &[(0x4c, &[0; 8]), (0x5c, &[1])]);
    let raw = Cedt::read(&bytes).unwrap().raw_records().nth(1).unwrap().unwrap();
    assert_eq!((raw.offset, raw.bytes.len()), (0x44, 0x28));
    let Ok(wire::Wire::Cfmws(record, targets)) = raw.wire() else { panic!("{raw:?}") };
    assert_eq!((record.base.get(), record.size.get()), (0, 4 * GIB));
    assert_eq!((record.eniw, targets.len()), (1, 1));
    let problem = Problem::TargetCount { expected: 2, found: 1 };
    assert_eq!(raw.judge(), Err(CedtError { record: 0x44, problem }));
}

#[test]
fn a_window_at_0_is_one_and_may_end_where_a_hole_begins() {
    // Twelve ways over 2 GiB, which is no multiple of 3 GiB; elsewhere that is refused.
    let twelve = Interleave::new(Ways::Twelve, Granularity::B256);
    let targets: Vec<u32> = (1..13).collect();
    let window = |base, size| Cfmws::new(Span::new(Hpa(base), size).unwrap(), twelve, &targets);
    let low = window(0, 2 * GIB).unwrap();
    let (record, uids) = low.encode();
    assert_eq!((record.base.get(), record.size.get()), (0, 2 * GIB));
    assert_eq!(Cfmws::decode(&record, &uids), Ok(low));
    let size = 2 * GIB;
    let problem = Problem::SizeNotDivisible { size, ways: Ways::Twelve };
    assert_eq!(window(4 * GIB, size).unwrap_err(), problem);
    let problem = Problem::SizeAlignment { size: GIB + 1 };
    assert_eq!(window(0, GIB + 1).unwrap_err(), problem);
}

#[test]
fn legal_values_cannot_be_made_of_illegal_parts() {
    let span = |base, size| Span::new(Hpa(base), size).unwrap();
    let two = Interleave::new(Ways::Two, Granularity::B256);
    for (span, targets, problem) in [
        (span(GIB + 1, GIB), &[1, 2][..], Problem::BaseAlignment { base: GIB + 1 }),
        (span(GIB, GIB + 1), &[1, 2], Problem::SizeAlignment { size: GIB + 1 }),
        (
            span(GIB, 0x3000_0000),
            &[1, 2],
            Problem::SizeNotDivisible { size: 0x3000_0000, ways: Ways::Two },
        ),
        (span(GIB, GIB), &[1], Problem::TargetCount { expected: 2, found: 1 }),
        (span(GIB, GIB), &[1, 2, 3], Problem::TargetCount { expected: 2, found: 3 }),
        (span(GIB, GIB), &[1, 1], Problem::DuplicateTarget { index: 1, uid: 1 }),
    ] {
        assert_eq!(Cfmws::new(span, two, targets), Err(problem));
    }
    assert!(Cfmws::new(span(0x1000_0000, 0x2000_0000), two, &[2, 1]).is_ok());
    let base = |base| Chbs::new(1, ChbsVersion::Rch, Hpa(base)).map(|_| ());
    assert_eq!(base(0), Err(Problem::ChbsWithoutBase));
    let wraps = Problem::ChbsWraps { base: 0xffff_ffff_ffff_e000, length: 0x2000 };
    assert_eq!(base(0xffff_ffff_ffff_e000), Err(wraps));
    assert_eq!(base(0xffff_ffff_ffff_d000), Ok(()));
}

#[test]
fn writer_refuses_what_the_reader_would_and_goes_on() {
    let bridge = chbs(12, ChbsVersion::Chbcr, 0x3_c000_0000);
    let mut buffer = [0xa5; 0x100];
    let mut writer = CedtWriter::new(&mut buffer, IDENTITY).unwrap();
    writer.chbs(&bridge).unwrap();
    let refused = |record, problem| Err(CedtWriteError::Refused(CedtError { record, problem }));
    let twice = refused(0x44, Problem::DuplicateChbs { uid: 12 });
    assert_eq!(writer.chbs(&chbs(12, ChbsVersion::Rch, 0x1000)), twice);
    writer.cfmws(&qemu_window()).unwrap();
    let near = window(0x4_c000_0000, GIB, Ways::One, Granularity::K16, &[12]);
    let problem = Problem::Overlap { window: near.span(), other: qemu_window().span() };
    assert_eq!(writer.cfmws(&near), refused(0x6c, problem));
    assert_eq!(writer.finish().unwrap(), QEMU);

    let mut writer = CedtWriter::new(&mut buffer, IDENTITY).unwrap();
    writer.cxims(&xor_maps()).unwrap();
    let problem = Problem::DuplicateCxims { granularity: Granularity::K1 };
    assert_eq!(writer.cxims(&xor_maps()), refused(0x3c, problem));
}

#[test]
fn a_table_has_as_many_records_as_are_read() {
    let bridge = |uid| chbs(uid, ChbsVersion::Chbcr, 0x1_0000);
    for (count, verdict) in [
        (1024, Ok(())),
        (
            1025,
            Err(CedtError { record: 36 + 1024 * 32, problem: Problem::TooMany { limit: 1024 } }),
        ),
    ] {
        let mut buffer = vec![0xa5; 0x1_0000];
        let mut writer = CedtWriter::new(&mut buffer, IDENTITY).unwrap();
        for uid in 0..count {
            writer.chbs(&bridge(uid)).unwrap();
        }
        let table = writer.finish().map(|table| Cedt::read(table).unwrap().check());
        assert_eq!(table, verdict.map(Ok).map_err(CedtWriteError::Refused), "{count}");
    }
}

#[test]
fn writer_wants_the_maps_of_an_xor_window_by_the_end() {
    let finish = |maps: &[&Cxims]| {
        let mut buffer = [0xa5; 0x100];
        let mut writer = CedtWriter::new(&mut buffer, IDENTITY).unwrap();
        writer.cfmws(&xor_window()).unwrap();
        for cxims in maps {
            writer.cxims(cxims).unwrap();
        }
        writer.finish().map(|table| table.len())
    };
    let refused = |problem| Err(CedtWriteError::Refused(CedtError { record: 0x24, problem }));
    let other = Cxims::new(Granularity::B512, &[0x200, 0x400]);
    let few = Cxims::new(Granularity::K1, &[0x400]);
    let no_cxims = Problem::NoCxims { granularity: Granularity::K1 };
    assert_eq!(finish(&[]), refused(no_cxims));
    assert_eq!(finish(&[&other]), refused(no_cxims));
    let too_few = XorMapError::TooFew { need: 2, have: 1 };
    assert_eq!(finish(&[&few]), refused(Problem::Maps(too_few)));
    assert_eq!(finish(&[&other, &xor_maps()]), Ok(0x24 + 0x34 + 0x18 + 0x18));
}

#[test]
fn a_full_buffer_leaves_the_table_as_it_was() {
    let mut buffer = [0xa5; 0x6c + 0x1f];
    let mut writer = CedtWriter::new(&mut buffer, IDENTITY).unwrap();
    writer.chbs(&chbs(12, ChbsVersion::Chbcr, 0x3_c000_0000)).unwrap();
    writer.cfmws(&qemu_window()).unwrap();
    let no_room = NoRoom { need: 0x8c, have: 0x8b };
    assert_eq!(no_room.to_string(), "the table needs 140 bytes, the buffer has 139");
    let refusal = writer.chbs(&chbs(13, ChbsVersion::Chbcr, 0x3_c001_0000));
    assert_eq!(refusal, Err(CedtWriteError::NoRoom(no_room)));
    assert_eq!(refusal.unwrap_err().to_string(), no_room.to_string());
    assert_eq!(writer.finish().unwrap(), QEMU);
    assert!(buffer[0x6c..].iter().all(|&byte| byte == 0xa5));
    // A CSDS that did not fit does not raise the revision.
    let mut buffer = [0xa5; 0x24];
    let mut writer = CedtWriter::new(&mut buffer, IDENTITY).unwrap();
    assert!(writer.csds(&csds()).is_err());
    assert_eq!(writer.finish().unwrap()[8], 1);
}

#[test]
fn table_reader_refuses_with_the_byte() {
    let long = [QEMU, &[0xa5; 7]].concat();
    assert_eq!(Table::read(&long, *b"CEDT", 0).unwrap().bytes(), QEMU);
    let mut bad_sum = QEMU.to_vec();
    bad_sum[0x6b] ^= 0x10;
    let good = QEMU[9];
    let bad = good.wrapping_sub(0x10);
    for (bytes, signature, least, error, offset, words) in [
        (
            &QEMU[..35],
            b"CEDT",
            0,
            TableError::NoHeader { expected: 36, found: 35 },
            0,
            "byte 0x0: a table header has 36 bytes, only 35 given".to_string(),
        ),
        (
            QEMU,
            b"XSD\n",
            0,
            TableError::Signature { expected: *b"XSD\n", found: *b"CEDT" },
            0,
            r#"byte 0x0: the signature is "CEDT", expected "XSD\n""#.to_string(),
        ),
        (
            QEMU,
            b"CEDT",
            0x6d,
            TableError::Length { least: 0x6d, found: 0x6c },
            4,
            "byte 0x4: the table length is 108, this kind has at least 109 bytes".to_string(),
        ),
        (
            &QEMU[..0x6b],
            b"CEDT",
            0,
            TableError::Truncated { expected: 0x6c, found: 0x6b },
            4,
            "byte 0x4: the table has 108 bytes, only 107 given".to_string(),
        ),
        (
            &bad_sum,
            b"CEDT",
            0x6c,
            TableError::Checksum { expected: bad, found: good },
            9,
            format!("byte 0x9: the checksum is {good:#04x}, {bad:#04x} makes the bytes sum to 0"),
        ),
    ] {
        let found = Table::read(bytes, *signature, least).map(|table| table.bytes());
        assert_eq!(found, Err(error));
        assert_eq!((error.offset(), error.to_string()), (offset, words));
    }
    let mut short = QEMU.to_vec();
    short[4] = 35;
    let error = TableError::Length { least: 36, found: 35 };
    assert_eq!(Cedt::read(&short).map(|_| ()), Err(error));
}

#[test]
fn mended_checksum_is_right_and_nothing_else_changes() {
    let mut bytes = [QEMU, &[0xa5; 3]].concat();
    bytes[9] = 0x77;
    bytes[0x6b] = 0x10;
    header::mend_checksum(&mut bytes).unwrap();
    assert_eq!(bytes[..0x6c], edited(QEMU, &[(0x6b, &[0x10])]));
    assert_eq!(bytes[0x6c..], [0xa5; 3]);
    assert_eq!((header::sum(QEMU), header::sum(&[200, 100])), (0, 44));
    let no_header = TableError::NoHeader { expected: 36, found: 35 };
    assert_eq!(header::mend_checksum(&mut [0; 35]), Err(no_header));
    bytes[4] = 35;
    let short = TableError::Length { least: 36, found: 35 };
    assert_eq!(header::mend_checksum(&mut bytes), Err(short));
    bytes[4] = 0x70;
    let truncated = TableError::Truncated { expected: 0x70, found: 0x6f };
    assert_eq!(header::mend_checksum(&mut bytes), Err(truncated));
    bytes[4] = 36;
    assert_eq!(header::mend_checksum(&mut bytes[..36]), Ok(()));
    assert_eq!(header::sum(&bytes[..36]), 0);
}

#[rustfmt::skip]
const RSDP_0: [u8; 20] = [
    b'R', b'S', b'D', b' ', b'P', b'T', b'R', b' ', 0x7c,
    b'O', b'E', b'M', b'4', b'5', b'6', 0, 0x11, 0x22, 0x33, 0x7f,
];

#[rustfmt::skip]
const RSDP_2: [u8; 36] = [
    b'R', b'S', b'D', b' ', b'P', b'T', b'R', b' ', 0x7a,
    b'O', b'E', b'M', b'4', b'5', b'6', 2, 0x11, 0x22, 0x33, 0x7f,
    36, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x78, 0, 0, 0,
];

#[test]
fn rsdp_reads_and_writes_in_both_revisions() {
    let zero = Rsdp { oem_id: *b"OEM456", rsdt: 0x7f33_2211, xsdt: None };
    let two = Rsdp { xsdt: Some(0x1122_3344_5566_7788), ..zero };
    for (rsdp, bytes) in [(zero, &RSDP_0[..]), (two, &RSDP_2)] {
        let mut longer = bytes.to_vec();
        longer.push(0xa5);
        assert_eq!(Rsdp::read(&longer), Ok(rsdp));
        let mut buffer = [0xa5; 40];
        assert_eq!(rsdp.write(&mut buffer).unwrap(), bytes);
        assert!(buffer[bytes.len()..].iter().all(|&byte| byte == 0xa5));
        let mut small = vec![0xa5; bytes.len() - 1];
        let no_room = NoRoom { need: bytes.len(), have: bytes.len() - 1 };
        assert_eq!(rsdp.write(&mut small), Err(no_room));
    }
}

#[test]
fn rsdp_refuses_with_the_byte() {
    let with = |at: usize, new: u8| {
        let mut bytes = RSDP_2.to_vec();
        let old = std::mem::replace(&mut bytes[at], new);
        let (sum, extended) = if at < 20 { (8, 32) } else { (32, 32) };
        if at != 8 && at != 32 && at != 0 {
            bytes[sum] = bytes[sum].wrapping_add(old.wrapping_sub(new));
            let total = bytes.iter().fold(0u8, |total, byte| total.wrapping_add(*byte));
            bytes[extended] = bytes[extended].wrapping_sub(total);
        }
        bytes
    };
    let signature = *b"rSD PTR ";
    let (first, second) = (RSDP_2[8], RSDP_2[32]);
    for (bytes, error, offset, words) in [
        (
            RSDP_0[..19].to_vec(),
            RsdpError::TooShort { expected: 20, found: 19 },
            0,
            "byte 0x0: the RSDP has 20 bytes, only 19 given".to_string(),
        ),
        (
            RSDP_2[..35].to_vec(),
            RsdpError::TooShort { expected: 36, found: 35 },
            0,
            "byte 0x0: the RSDP has 36 bytes, only 35 given".to_string(),
        ),
        (
            with(20, 37),
            RsdpError::TooShort { expected: 37, found: 36 },
            0,
            "byte 0x0: the RSDP has 37 bytes, only 36 given".to_string(),
        ),
        (
            with(0, b'r'),
            RsdpError::Signature { found: signature },
            0,
            r#"byte 0x0: the signature is "rSD PTR ", expected "RSD PTR ""#.to_string(),
        ),
        (
            with(8, first ^ 1),
            RsdpError::Checksum { expected: first, found: first ^ 1 },
            8,
            format!("byte 0x8: the checksum is {:#04x}, {first:#04x} is right", first ^ 1),
        ),
        (
            with(20, 35),
            RsdpError::Length { found: 35 },
            20,
            "byte 0x14: the RSDP length is 35, at least 36 is needed".to_string(),
        ),
        (
            with(32, second ^ 1),
            RsdpError::ExtendedChecksum { expected: second, found: second ^ 1 },
            32,
            format!(
                "byte 0x20: the extended checksum is {:#04x}, {second:#04x} is right",
                second ^ 1
            ),
        ),
    ] {
        assert_eq!(Rsdp::read(&bytes), Err(error));
        assert_eq!((error.offset(), error.to_string()), (offset, words));
    }
    // Revision 1 never had the second part.
    assert_eq!(Rsdp::read(&with(15, 1)).unwrap().xsdt, None);
}

#[rustfmt::skip]
const RSDT: &[u8] = &[
    b'R', b'S', b'D', b'T', 0x2c, 0, 0, 0, 1, 0x1e,
    b'O', b'E', b'M', b'4', b'5', b'6', b'T', b'A', b'B', b'L', b'E', b'6', b'7', b'8',
    0x01, 0x02, 0x03, 0x04, b'M', b'A', b'K', b'E', 0x05, 0x06, 0x07, 0x08,
    0x11, 0x22, 0x33, 0x44, 0x00, 0x00, 0x00, 0xff,
];

#[rustfmt::skip]
const XSDT: &[u8] = &[
    b'X', b'S', b'D', b'T', 0x34, 0, 0, 0, 1, 0x56,
    b'O', b'E', b'M', b'4', b'5', b'6', b'T', b'A', b'B', b'L', b'E', b'6', b'7', b'8',
    0x01, 0x02, 0x03, 0x04, b'M', b'A', b'K', b'E', 0x05, 0x06, 0x07, 0x08,
    0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x00, 0x00, 0x00, 0xff, 0x00, 0x00, 0x00, 0x00,
];

#[test]
fn root_tables_read_and_write() {
    let narrow = [0x4433_2211, 0xff00_0000];
    let wide = [0x8877_6655_4433_2211, 0xff00_0000];
    for (kind, image, addresses) in [(Kind::Rsdt, RSDT, narrow), (Kind::Xsdt, XSDT, wide)] {
        let root = RootTable::read(kind, image).unwrap();
        assert!(root.addresses().eq(addresses));
        assert_eq!((root.count(), root.address(1), root.address(2)), (2, Some(0xff00_0000), None));
        let mut buffer = [0xa5; 64];
        assert_eq!(rsdt::write(kind, IDENTITY, &addresses, &mut buffer).unwrap(), image);
        let small = rsdt::write(kind, IDENTITY, &addresses, &mut buffer[..image.len() - 1]);
        let no_room = NoRoom { need: image.len(), have: image.len() - 1 };
        assert_eq!(small, Err(RootError::NoRoom(no_room)));

        // One entry, then the other behind it.
        let mut buffer = [0xa5; 64];
        let first = rsdt::write(kind, IDENTITY, &addresses[..1], &mut buffer).unwrap().len();
        let full = rsdt::append(kind, addresses[1], &mut buffer[..image.len() - 1]);
        assert_eq!(full, Err(RootError::NoRoom(no_room)));
        assert_eq!(RootTable::read(kind, &buffer[..first]).unwrap().count(), 1);
        assert_eq!(rsdt::append(kind, addresses[1], &mut buffer[..image.len()]).unwrap(), image);
        assert_eq!(buffer[image.len()..], vec![0xa5; 64 - image.len()]);

        // Replaced and put back.
        let mut table = image.to_vec();
        rsdt::replace(kind, 1, 0x1234, &mut table).unwrap();
        let replaced = RootTable::read(kind, &table).unwrap();
        assert!(replaced.addresses().eq([addresses[0], 0x1234]));
        rsdt::replace(kind, 1, addresses[1], &mut table).unwrap();
        assert_eq!(table, image);
        let no_such = RootError::NoSuchEntry { index: 2, count: 2 };
        assert_eq!(rsdt::replace(kind, 2, 0, &mut table), Err(no_such));
        assert_eq!(no_such.to_string(), "there is no entry 2, the table has 2");

        let ragged = joined(&[image, &[0]]);
        let entry = (image.len() - 36) / 2;
        let error = TableError::Ragged { entry, length: image.len() as u32 + 1 };
        assert_eq!(RootTable::read(kind, &ragged).map(|_| ()), Err(error));
        assert_eq!(error.offset(), 4);
    }
    let ragged = TableError::Ragged { entry: 8, length: 53 };
    let words = "byte 0x4: the table length 53 does not end at an entry boundary (8 bytes each)";
    assert_eq!(ragged.to_string(), words);
    assert_eq!(RootError::Table(ragged).to_string(), words);
}

#[test]
fn rsdt_refuses_an_address_above_4_gib() {
    let wide = RootError::AddressTooWide { address: 1 << 32 };
    let mut buffer = [0xa5; 64];
    assert_eq!(rsdt::write(Kind::Rsdt, IDENTITY, &[1 << 32], &mut buffer), Err(wide));
    assert_eq!(wide.to_string(), "address 0x100000000 does not fit a 32-bit RSDT entry");
    let mut table = [RSDT, &[0; 8]].concat();
    assert_eq!(rsdt::append(Kind::Rsdt, 1 << 32, &mut table), Err(wide));
    assert_eq!(rsdt::replace(Kind::Rsdt, 0, 1 << 32, &mut table), Err(wide));
    let error = TableError::Signature { expected: *b"XSDT", found: *b"RSDT" };
    assert_eq!(rsdt::append(Kind::Xsdt, 0, &mut table), Err(RootError::Table(error)));
    assert_eq!(table[..RSDT.len()], *RSDT);
}

#[rustfmt::skip]
const MCFG: &[u8] = &[
    b'M', b'C', b'F', b'G', 0x4c, 0, 0, 0, 1, 0xd6,
    b'O', b'E', b'M', b'4', b'5', b'6', b'T', b'A', b'B', b'L', b'E', b'6', b'7', b'8',
    0x01, 0x02, 0x03, 0x04, b'M', b'A', b'K', b'E', 0x05, 0x06, 0x07, 0x08,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0xb0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x02, 0x01, 0x40, 0x7f, 0x00, 0x00, 0x00, 0x00,
];

#[test]
fn mcfg_reads_and_writes() {
    let first = Allocation::new(Hpa(0xb000_0000), 0, 0, 0xff).unwrap();
    let second = Allocation::new(Hpa(0x80_0000_0000), 0x0102, 0x40, 0x7f).unwrap();
    assert_eq!((second.base(), second.segment()), (Hpa(0x80_0000_0000), 0x0102));
    assert_eq!((second.first_bus(), second.last_bus()), (0x40, 0x7f));
    assert!(Mcfg::read(MCFG).unwrap().allocations().eq([Ok(first), Ok(second)]));
    let mut buffer = [0xa5; 0x60];
    assert_eq!(mcfg::write(IDENTITY, &[first, second], &mut buffer).unwrap(), MCFG);
    let no_room = NoRoom { need: 0x4c, have: 0x4b };
    assert_eq!(mcfg::write(IDENTITY, &[first, second], &mut buffer[..0x4b]), Err(no_room));

    let buses = AllocationError::Buses { first: 8, last: 7 };
    let wraps = AllocationError::Wraps { base: 0xffff_ffff_ff00_0000, last: 0x7f };
    let wrong = edited(MCFG, &[(0x36, &[8, 7]), (0x3c, &[0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff])]);
    assert!(Mcfg::read(&wrong).unwrap().allocations().eq([Err(buses), Err(wraps)]));
    assert_eq!(buses.to_string(), "the last bus 0x07 is below the first 0x08");
    assert_eq!(
        wraps.to_string(),
        "bus 0x7f above base 0xffffffffff000000 passes the end of the 64-bit space"
    );
    // The last MiB of the address space has no end; the one before it does.
    let at = |base| Allocation::new(Hpa(base), 0, 0, 0).map(|_| ());
    assert!(at(0xffff_ffff_fff0_0000).is_err() && at(0xffff_ffff_ffe0_0000).is_ok());
    let short = joined(&[&MCFG[..43]]);
    let length = TableError::Length { least: 44, found: 43 };
    assert_eq!(Mcfg::read(&short).map(|_| ()), Err(length));
    let ragged = TableError::Ragged { entry: 16, length: 75 };
    assert_eq!(Mcfg::read(&joined(&[&MCFG[..75]])).map(|_| ()), Err(ragged));
}

#[rustfmt::skip]
const SRAT: &[u8] = &[
    b'S', b'R', b'A', b'T', 0x80, 0, 0, 0, 3, 0x51,
    b'O', b'E', b'M', b'4', b'5', b'6', b'T', b'A', b'B', b'L', b'E', b'6', b'7', b'8',
    0x01, 0x02, 0x03, 0x04, b'M', b'A', b'K', b'E', 0x05, 0x06, 0x07, 0x08,
    0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    // 0x30: domain 0x44332211, base 0x3d0000000, size 4 GiB, enabled + non-volatile
    0x01, 0x28, 0x11, 0x22, 0x33, 0x44, 0x00, 0x00, 0x00, 0x00, 0x00, 0xd0, 0x03, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    // 0x58: domain 2, base 0x80000000000, size 256 GiB, enabled + hot-pluggable
    0x01, 0x28, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
];

#[test]
fn srat_reads_writes_and_grows() {
    let first = MemoryAffinity {
        domain: 0x4433_2211,
        span: Span::new(Hpa(0x3_d000_0000), 4 * GIB).unwrap(),
        hot_pluggable: false,
        non_volatile: true,
    };
    let second = MemoryAffinity {
        domain: 2,
        span: Span::new(Hpa(0x800_0000_0000), 256 * GIB).unwrap(),
        hot_pluggable: true,
        non_volatile: false,
    };
    let entries: Vec<_> = Srat::read(SRAT).unwrap().entries().map(Result::unwrap).collect();
    assert_eq!(entries, [Entry::Memory(first), Entry::Memory(second)]);
    let mut buffer = [0xa5; 0x90];
    assert_eq!(srat::write(IDENTITY, [first, second], &mut buffer).unwrap(), SRAT);
    assert_eq!(buffer[0x80..], [0xa5; 0x10]);

    let mut buffer = [0xa5; 0x80];
    srat::write(IDENTITY, [first], &mut buffer).unwrap();
    let no_room = NoRoom { need: 0x80, have: 0x7f };
    let full = srat::append(&second, &mut buffer[..0x7f]);
    assert_eq!(full, Err(AppendError::NoRoom(no_room)));
    assert_eq!(full.unwrap_err().to_string(), no_room.to_string());
    assert_eq!(srat::append(&second, &mut buffer).unwrap(), SRAT);
    let error = TableError::Signature { expected: *b"SRAT", found: *b"MCFG" };
    let mut other = MCFG.to_vec();
    assert_eq!(srat::append(&second, &mut other), Err(AppendError::Table(error)));
    assert_eq!(AppendError::Table(error).to_string(), error.to_string());
}

#[test]
fn srat_entries_are_judged_one_by_one() {
    let other = [0, 2];
    let disabled = edited(SRAT, &[(0x4c, &[0xfe]), (0x40, &[0; 8])]);
    let bytes = joined(&[&disabled[..0x58], &other, &disabled[0x58..]]);
    let found: Vec<_> = Srat::read(&bytes).unwrap().entries().collect();
    assert_eq!(found[..2], [Ok(Entry::Disabled), Ok(Entry::Other { kind: 0, bytes: &other })]);
    assert!(matches!(found[2..], [Ok(Entry::Memory(_))]));

    let span = SpanError::Empty { base: 0x3_d000_0000 };
    for (bytes, error, words, more) in [
        (
            joined(&[SRAT, &[1]]),
            EntryError::PastEnd { offset: 0x80, expected: 2, found: 1 },
            "the entry at 0x80 has 2 bytes, 1 are left",
            0,
        ),
        (
            edited(SRAT, &[(0x59, &[41])]),
            EntryError::PastEnd { offset: 0x58, expected: 41, found: 40 },
            "the entry at 0x58 has 41 bytes, 40 are left",
            0,
        ),
        (
            edited(SRAT, &[(0x31, &[1])]),
            EntryError::Length { offset: 0x30, expected: 2, found: 1 },
            "the entry at 0x30 has length 1, needs 2",
            0,
        ),
        (
            joined(&[&SRAT[..0x31], &[39], &SRAT[0x32..0x57], &SRAT[0x58..]]),
            EntryError::Length { offset: 0x30, expected: 40, found: 39 },
            "the entry at 0x30 has length 39, needs 40",
            1,
        ),
        (
            edited(SRAT, &[(0x40, &[0; 8])]),
            EntryError::Span { offset: 0x30, error: span },
            "the entry at 0x30: the range at 0x3d0000000 has size 0",
            1,
        ),
    ] {
        let mut entries = Srat::read(&bytes).unwrap().entries();
        assert_eq!(entries.by_ref().find_map(Result::err), Some(error), "{words}");
        assert_eq!(error.to_string(), words);
        assert_eq!(entries.count(), more, "{words}");
    }
    let short = joined(&[&SRAT[..47]]);
    let length = TableError::Length { least: 48, found: 47 };
    assert_eq!(Srat::read(&short).map(|_| ()), Err(length));
}

#[test]
fn text_says_one_fact_a_line() {
    assert_eq!(Text(QEMU).to_string(), TEXT_QEMU);
    assert_eq!(Cedt::read(QEMU).unwrap().to_string(), TEXT_QEMU);
    assert_eq!(Text(XOR).to_string(), TEXT_XOR);
    assert_eq!(Text(RCH).to_string(), TEXT_RCH);
}

const TEXT_QEMU: &str = "\
cedt revision 1, 108 bytes, checksum 0x7b good
  oem id            \"OEM456\"
  oem table id      \"TABLE678\"
  oem revision      0x04030201
  creator id        \"MAKE\"
  creator revision  0x08070605
chbs at 0x24
  uid               0x0000000c  uid 12
  version           0x00000001  host bridge component registers
  base              0x00000003c0000000
  length            0x0000000000010000  64 KiB
cfmws at 0x44
  base              0x00000003d0000000
  size              0x0000000100000000  4 GiB
  ways              0x00  1-way
  arithmetic        0x00  modulo
  granularity       0x00000000  256 B
  restrictions      0x002f  device-coherent, host-only, volatile, persistent, back-invalidate
  qtg               0x0000  0
  target 0          0x0000000c  uid 12
";

const TEXT_XOR: &str = "\
cedt revision 1, 112 bytes, checksum 0xff good
  oem id            \"OEM456\"
  oem table id      \"TABLE678\"
  oem revision      0x04030201
  creator id        \"MAKE\"
  creator revision  0x08070605
cfmws at 0x24
  base              0x0000010000000000
  size              0x0000000200000000  8 GiB
  ways              0x02  4-way
  arithmetic        0x01  XOR
  granularity       0x00000002  1 KiB
  restrictions      0x0006  host-only, volatile
  qtg               0x0003  3
  target 0          0x0000000a  uid 10
  target 1          0x0000000b  uid 11
  target 2          0x0000000c  uid 12
  target 3          0x0000000d  uid 13
cxims at 0x58
  granularity       0x02  1 KiB
  maps              0x02  2
  map 0             0x0000000000010400  parity of HPA bits 10, 16
  map 1             0x0000000000020800  parity of HPA bits 11, 17
";

const TEXT_RCH: &str = "\
cedt revision 2, 96 bytes, checksum 0xf4 good
  oem id            \"OEM456\"
  oem table id      \"TABLE678\"
  oem revision      0x04030201
  creator id        \"MAKE\"
  creator revision  0x08070605
chbs at 0x24
  uid               0x04030201  uid 67305985
  version           0x00000000  RCRB of a CXL 1.1 host
  base              0x00000000fe8f0000
  length            0x0000000000002000  8 KiB
rdpas at 0x44
  segment           0x0102
  bdf               0x35fa  35:1f.2
  base              0x8877665544332211
  protocol          0x01  CXL.cachemem
csds at 0x58
  capabilities      0x002a  no clean write-back; metabits 5
";

/// The lines of the text behind the header's own five facts.
fn body(bytes: &[u8]) -> String {
    Text(bytes).to_string().lines().skip(6).map(|line| format!("{line}\n")).collect()
}

#[test]
fn text_hides_nothing_that_is_unusual() {
    // Reserved fields that are set, an unknown kind, and bytes behind what a record needs.
    #[rustfmt::skip]
    let odd = joined(&[
        &QEMU[..0x24],
        &[0x02, 0x99, 0x0a, 0x00, 0x34, 0x12, 0x01, 0x00, 0xde, 0xad],
        &[0xf0, 0x00, 0x16, 0x00, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17],
        &[0x04, 0x00, 0x08, 0x00, 0xc0, 0xff, 0x00, 0x80],
        &[0x03, 0x00, 0x14, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x01, 0x02, 0x03],
    ]);
    assert_eq!(
        body(&odd),
        "\
cxims at 0x24
  reserved 0x1      0x99
  reserved 0x4      0x1234
  granularity       0x01  512 B
  maps              0x00  0
  bytes 0x8         de ad
unknown kind 0xf0 at 0x2e
  bytes 0x4         00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f
  bytes 0x14        10 11
csds at 0x44
  capabilities      0xffc0  reserved bits; metabits 0
  reserved 0x6      0x8000
rdpas at 0x4c
  segment           0x0000
  bdf               0x0000  00:00.0
  base              0x0000000000000000
  protocol          0x02  reserved
  reserved 0x11     0x00030201
  problem           byte 0x5c: protocol 0x2 is not defined (defined: 0, 1)
"
    );
    let odd = edited(
        &[&QEMU[..0x44], &[1, 0, 0x2c, 0], &QEMU[0x48..], &[7, 0, 0, 0]].concat(),
        &[(0x30, &[1]), (0x48, &[2]), (0x5c, &[5]), (0x5e, &[3]), (0x64, &[0, 0])],
    );
    assert_eq!(
        body(&odd),
        "\
chbs at 0x24
  uid               0x0000000c  uid 12
  version           0x00000001  host bridge component registers
  reserved 0xc      0x00000001
  base              0x00000003c0000000
  length            0x0000000000010000  64 KiB
cfmws at 0x44
  reserved 0x4      0x00000002
  base              0x00000003d0000000
  size              0x0000000100000000  4 GiB
  ways              0x05  reserved
  arithmetic        0x00  modulo
  reserved 0x1a     0x0003
  granularity       0x00000000  256 B
  restrictions      0x0000  none
  qtg               0x0000  0
  bytes 0x24        0c 00 00 00 07 00 00 00
  problem           byte 0x5c: interleave ways code 0x5 is reserved (defined: 0-4, 8-a)
"
    );
    let odd = joined(&[&RCH[..0x58], &[4, 0, 8, 0, 0x15, 0, 0, 0], &[1, 0, 6, 0, 0xaa, 0xbb]]);
    let text = body(&odd);
    let end = text.find("csds").unwrap();
    assert_eq!(
        text[end..],
        *"\
csds at 0x58
  capabilities      0x0015  Cmp-M, viral policy; metabits 2
cfmws at 0x60
  bytes 0x4         aa bb
  problem           byte 0x62: the cfmws record has 6 bytes, its kind needs 36
"
    );
    let fixed = edited(QEMU, &[(0x64, &[0x10])]);
    assert!(body(&fixed).contains("\n  restrictions      0x0010  fixed\n"));
}

#[test]
fn reserved_bits_are_named_beside_those_with_a_meaning() {
    assert_eq!(Restrictions::from_bits(0x0000).to_string(), "none");
    assert_eq!(Restrictions::from_bits(0x0042).to_string(), "host-only, reserved bits");
    let capabilities = CsdsCapabilities::from_bits(0x0041);
    assert_eq!(capabilities.to_string(), "Cmp-M, reserved bits; metabits 0");
}

#[test]
fn text_of_a_broken_table_says_what_is_broken() {
    assert_eq!(Text(&[]).to_string(), "no cedt: 0 bytes are less than a table header\n");
    let text = Text(&QEMU[..35]).to_string();
    assert_eq!(text, "no cedt: 35 bytes are less than a table header\n");
    let text = Text(&edited(QEMU, &[(0, b"\x7fELF")])).to_string();
    assert_eq!(text, "no cedt: the signature is \"\\x7fELF\"\n");
    // Cut off inside the window: the bridge is still printed.
    let text = Text(&QEMU[..0x60]).to_string();
    assert!(
        text.contains("  problem           byte 0x4: the table has 108 bytes, only 96 given\n")
    );
    assert!(text.contains("chbs at 0x24\n"));
    let end = "\
broken record at 0x44
  kind              0x01  cfmws, of 40 bytes
  problem           byte 0x46: the record has 40 bytes, the table only 28 more
";
    assert!(text.ends_with(end), "{text}");
    // A wrong checksum hides no record.
    let mut bytes = QEMU.to_vec();
    bytes[9] = bytes[9].wrapping_add(1);
    let text = Text(&bytes).to_string();
    assert!(text.starts_with("cedt revision 1, 108 bytes, checksum 0x7c bad\n"), "{text}");
    let wrong =
        "  problem           byte 0x9: the checksum is 0x7c, 0x7b makes the bytes sum to 0\n";
    assert!(text.contains(wrong), "{text}");
    assert!(text.contains("cfmws at 0x44\n"));
    // Bytes behind the table are not its own.
    assert_eq!(Text(&[QEMU, &[1, 2, 3]].concat()).to_string(), TEXT_QEMU);
}

/// A record of a CXL 1.1 host's event collector that says this length, and has so many bytes.
fn rdpas(says: u8, has: usize) -> Vec<u8> {
    let mut bytes = vec![3, 0, says, 0, 1, 0, 0x10, 0, 0, 0, 0, 0xe0, 0, 0, 0, 0, 1, 0, 0, 0];
    bytes.resize(has, 0);
    bytes
}

#[test]
fn a_length_that_leads_astray_is_blamed_where_it_stands() {
    let chbs = &QEMU[0x24..0x44];
    for (says, has, blamed) in [
        // Longer than its bytes: the next record is looked for in the midst of the CHBS.
        (24, 20, Some(24)),
        (19, 20, Some(19)),
        // As long as it says, and then come others: that may be a revision of its own.
        (21, 21, None),
        (20, 20, None),
    ] {
        let table = joined(&[QEMU, &rdpas(says, has), chbs]);
        let found = Cedt::read(&table).unwrap().astray();
        let expected =
            blamed.map(|found| Astray { record: 0x6c, kind: wire::Kind::Rdpas, need: 20, found });
        assert_eq!(found, expected, "{says} of {has}");
        let text = Text(&table).to_string();
        let line = format!(
            "  problem           byte 0x6e: expected 20 bytes of this rdpas record, found {says}, and what \
             follows is no record\n"
        );
        assert_eq!(text.contains(&line), blamed.is_some(), "{text}");
    }
    // One of another length that does no harm is not blamed for the one behind it that does.
    let table = joined(&[QEMU, &rdpas(21, 21), &rdpas(24, 20), chbs]);
    let blamed = Cedt::read(&table).unwrap().astray();
    assert_eq!(blamed.map(|astray| astray.record), Some(0x81));
    // More records than are read are no fault of one that is longer than it has to be.
    let table = joined(&[QEMU, &rdpas(21, 21), &chbs.repeat(1024)]);
    assert_eq!(Cedt::read(&table).unwrap().astray(), None);
    // Windows and maps are as long as their own fields say.
    let window = edited(&QEMU[0x44..0x6c], &[(2, &[0x2a])]);
    let table = joined(&[&QEMU[..0x24], &window, chbs, chbs]);
    let blamed = Cedt::read(&table).unwrap().astray();
    let kind = wire::Kind::Cfmws;
    assert_eq!(blamed, Some(Astray { record: 0x24, kind, need: 40, found: 42 }));
    // A record that is itself no record has nobody before it to blame; its kind is said.
    for (says, why) in
        [(3, "the record length 3 does not cover"), (200, "the record has 200 bytes")]
    {
        let table = joined(&[QEMU, &rdpas(says, 20)]);
        assert_eq!(Cedt::read(&table).unwrap().astray(), None);
        let text = Text(&table).to_string();
        let end = text.find("broken record at 0x6c\n").unwrap();
        assert!(text[end..].contains("  kind              0x03  rdpas, of 20 bytes\n"), "{text}");
        assert!(text[end..].contains(why), "{text}");
    }
}
