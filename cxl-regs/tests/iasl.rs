//! ACPICA's disassembler reads the tables that this library writes, and agrees field by field.
//!
//! **Invariant**: what is expected here is typed by hand, with its offset. Where there is no
//! `iasl`, or one that does not know the CEDT, the cases are shown as ignored with the reason.

#[path = "iasl/reader.rs"]
mod reader;

use cxl_regs::acpi::cedt::{Cfmws, Chbs, ChbsVersion, Cxims, Restrictions};
use cxl_regs::acpi::mcfg::{self, Allocation};
use cxl_regs::acpi::srat::{self, MemoryAffinity};
use cxl_regs::acpi::{CedtWriter, Identity, rsdt};
use cxl_regs::{Arithmetic, Granularity, Hpa, Interleave, Span, Ways};
use libtest_mimic::{Arguments, Failed, Trial};
use reader::{disassembled, fields};

const IDENTITY: Identity = Identity {
    oem_id: *b"OEM456",
    oem_table_id: *b"TABLE678",
    oem_revision: 0x0403_0201,
    creator_id: *b"MAKE",
    creator_revision: 0x0807_0605,
};

/// Offset, length, name and value of a field, as iasl prints them.
type Field<'a> = (usize, usize, &'static str, &'a str);

fn main() {
    let (plain, cedt) = (reader::lack(false), reader::lack(true));
    let (plain, cedt) = (plain.as_deref(), cedt.as_deref());
    let trials = vec![
        trial("iasl_agrees_on_every_cedt_field", cedt, cedt_fields),
        trial("iasl_agrees_on_windows_of_all_ways_and_granularities", cedt, every_window),
        trial("iasl_agrees_on_the_cedt_header", plain, cedt_header),
        trial("iasl_agrees_on_the_mcfg", plain, mcfg_fields),
        trial("iasl_agrees_on_the_srat", plain, srat_fields),
        trial("iasl_agrees_on_the_rsdt_and_the_xsdt", plain, root_fields),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn trial(name: &str, lack: Option<&str>, run: fn() -> Result<(), Failed>) -> Trial {
    let trial = Trial::test(name, run).with_ignored_flag(lack.is_some());
    match lack {
        Some(lack) => trial.with_kind(lack),
        None => trial,
    }
}

/// Every expected field is there, and the checksum is right.
fn agree(name: &str, table: &[u8], expected: &[Field<'_>]) -> Result<(), Failed> {
    let text = disassembled(name, table)?;
    let found = fields(&text);
    for &(offset, length, name, value) in expected {
        let field = (offset, length, name.to_owned(), value.to_owned());
        if !found.contains(&field) {
            return Err(format!("no field {field:x?} in\n{text}").into());
        }
    }
    Ok(())
}

fn window(
    base: u64,
    size: u64,
    ways: Ways,
    granularity: Granularity,
    targets: &[u32],
) -> Result<Cfmws, Failed> {
    let span = Span::new(Hpa(base), size)?;
    Ok(Cfmws::new(span, Interleave::new(ways, granularity), targets)?)
}

/// Both kinds of bridges, windows with and without interleave, and maps.
fn cedt() -> Result<Vec<u8>, Failed> {
    let one = window(0x3_d000_0000, 4 << 30, Ways::One, Granularity::B256, &[12])?;
    let mut three = window(0x80_0000_0000, 3 << 30, Ways::Three, Granularity::K16, &[1, 2, 3])?;
    three.restrictions = Restrictions::new().with_persistent(true).with_fixed(true);
    three.qtg = 0x0201;
    let mut four = window(0x100_0000_0000, 1 << 40, Ways::Four, Granularity::K1, &[9, 8, 7, 6])?;
    four.arithmetic = Arithmetic::Xor;
    let maps = Cxims::new(Granularity::K1, &[0x10400, 0x8000_0000_0002_0800]);

    let mut buffer = [0xa5; 0x200];
    let mut writer = CedtWriter::new(&mut buffer, IDENTITY)?;
    writer.chbs(&Chbs::new(12, ChbsVersion::Chbcr, Hpa(0x3_c000_0000))?)?;
    writer.chbs(&Chbs::new(0x8000_0001, ChbsVersion::Rch, Hpa(0xfe8f_0000))?)?;
    writer.cfmws(&one)?;
    writer.cfmws(&three)?;
    writer.cfmws(&four)?;
    writer.cxims(&maps)?;
    Ok(writer.finish()?.to_vec())
}

const HEADER: [Field<'_>; 8] = [
    (0x00, 4, "Signature", "\"CEDT\""),
    (0x04, 4, "Table Length", "00000108"),
    (0x08, 1, "Revision", "01"),
    (0x0a, 6, "Oem ID", "\"OEM456\""),
    (0x10, 8, "Oem Table ID", "\"TABLE678\""),
    (0x18, 4, "Oem Revision", "04030201"),
    (0x1c, 4, "Asl Compiler ID", "\"MAKE\""),
    (0x20, 4, "Asl Compiler Revision", "08070605"),
];

fn cedt_header() -> Result<(), Failed> {
    agree("CEDT", &cedt()?, &HEADER)
}

const RECORDS: [Field<'_>; 67] = [
    (0x024, 1, "Subtable Type", "00"),
    (0x025, 1, "Reserved", "00"),
    (0x026, 2, "Length", "0020"),
    (0x028, 4, "Associated host bridge", "0000000C"),
    (0x02c, 4, "Specification version", "00000001"),
    (0x030, 4, "Reserved", "00000000"),
    (0x034, 8, "Register base", "00000003C0000000"),
    (0x03c, 8, "Register length", "0000000000010000"),
    (0x044, 1, "Subtable Type", "00"),
    (0x045, 1, "Reserved", "00"),
    (0x046, 2, "Length", "0020"),
    (0x048, 4, "Associated host bridge", "80000001"),
    (0x04c, 4, "Specification version", "00000000"),
    (0x050, 4, "Reserved", "00000000"),
    (0x054, 8, "Register base", "00000000FE8F0000"),
    (0x05c, 8, "Register length", "0000000000002000"),
    (0x064, 1, "Subtable Type", "01"),
    (0x065, 1, "Reserved", "00"),
    (0x066, 2, "Length", "0028"),
    (0x068, 4, "Reserved", "00000000"),
    (0x06c, 8, "Window base address", "00000003D0000000"),
    (0x074, 8, "Window size", "0000000100000000"),
    (0x07c, 1, "Interleave Members", "00"),
    (0x07d, 1, "Interleave Arithmetic", "00"),
    (0x07e, 2, "Reserved", "0000"),
    (0x080, 4, "Granularity", "00000000"),
    (0x084, 2, "Restrictions", "0000"),
    (0x086, 2, "QtgId", "0000"),
    (0x088, 4, "First Target", "0000000C"),
    (0x08c, 1, "Subtable Type", "01"),
    (0x08d, 1, "Reserved", "00"),
    (0x08e, 2, "Length", "0030"),
    (0x090, 4, "Reserved", "00000000"),
    (0x094, 8, "Window base address", "0000008000000000"),
    (0x09c, 8, "Window size", "00000000C0000000"),
    (0x0a4, 1, "Interleave Members", "08"),
    (0x0a5, 1, "Interleave Arithmetic", "00"),
    (0x0a6, 2, "Reserved", "0000"),
    (0x0a8, 4, "Granularity", "00000006"),
    (0x0ac, 2, "Restrictions", "0018"),
    (0x0ae, 2, "QtgId", "0201"),
    (0x0b0, 4, "First Target", "00000001"),
    (0x0b4, 4, "Next Target", "00000002"),
    (0x0b8, 4, "Next Target", "00000003"),
    (0x0bc, 1, "Subtable Type", "01"),
    (0x0bd, 1, "Reserved", "00"),
    (0x0be, 2, "Length", "0034"),
    (0x0c0, 4, "Reserved", "00000000"),
    (0x0c4, 8, "Window base address", "0000010000000000"),
    (0x0cc, 8, "Window size", "0000010000000000"),
    (0x0d4, 1, "Interleave Members", "02"),
    (0x0d5, 1, "Interleave Arithmetic", "01"),
    (0x0d6, 2, "Reserved", "0000"),
    (0x0d8, 4, "Granularity", "00000002"),
    (0x0dc, 2, "Restrictions", "0000"),
    (0x0de, 2, "QtgId", "0000"),
    (0x0e0, 4, "First Target", "00000009"),
    (0x0e4, 4, "Next Target", "00000008"),
    (0x0e8, 4, "Next Target", "00000007"),
    (0x0ec, 4, "Next Target", "00000006"),
    (0x0f0, 1, "Subtable Type", "02"),
    (0x0f1, 1, "Reserved", "00"),
    (0x0f2, 2, "Length", "0018"),
    (0x0f4, 2, "Reserved", "0000"),
    (0x0f6, 1, "Interleave Granularity", "02"),
    (0x0f7, 1, "Xormap List Count", "02"),
    (0x0f8, 8, "First Xormap", "0000000000010400"),
];

fn cedt_fields() -> Result<(), Failed> {
    agree("CEDT", &cedt()?, &RECORDS)?;
    let fields = fields(&disassembled("CEDT", &cedt()?)?);
    let records = fields.iter().filter(|field| field.0 >= 0x24);
    // iasl counts the offsets of further maps in bytes instead of maps; the values are right.
    let (next, others): (Vec<_>, Vec<_>) = records.partition(|field| field.2 == "Next Xormap");
    if others.len() != RECORDS.len() {
        return Err(format!("iasl sees {} fields, here are {}", others.len(), RECORDS.len()).into());
    }
    match next[..] {
        [(_, 8, _, value)] if value == "8000000000020800" => Ok(()),
        _ => Err(format!("{next:x?}").into()),
    }
}

/// A window for each pair, with odd contents in what a window may hold, and four maps for each
/// granularity: what iasl sees of them is told by the numbers, without the writer.
fn every_window() -> Result<(), Failed> {
    const WAYS: [(u8, u32); 8] =
        [(0x0, 1), (0x1, 2), (0x2, 4), (0x3, 8), (0x4, 16), (0x8, 3), (0x9, 6), (0xa, 12)];
    const NAMES: [&str; 4] = ["First Target", "Next Target", "First Xormap", "Next Xormap"];
    let mut buffer = vec![0xa5; 0x2000];
    let mut writer = CedtWriter::new(&mut buffer, IDENTITY)?;
    let mut expected: Vec<(usize, usize, &'static str, String)> = Vec::new();
    let mut at = 0x24;
    let mut base: u64 = 0x1000_0000;
    for hbig in 0..7u8 {
        let granularity = Granularity::decode(hbig).expect("0 to 6 are defined");
        for (eniw, count) in WAYS {
            let ways = Ways::from_count(count).expect("all are way counts");
            let size = u64::from(count) * 0x3000_0000;
            let targets: Vec<u32> = (0..count).map(|n| 0xffff_fff0 ^ (n << 28 | n)).collect();
            let mut window = window(base, size, ways, granularity, &targets)?;
            window.arithmetic = Arithmetic::Xor;
            window.restrictions = Restrictions::from_bits(u16::from(hbig) << 13 | 0x003f);
            window.qtg = 0xfffe;
            writer.cfmws(&window)?;
            let length = 0x24 + 4 * targets.len();
            expected.extend([
                (at, 1, "Subtable Type", "01".to_owned()),
                (at + 2, 2, "Length", format!("{length:04X}")),
                (at + 8, 8, "Window base address", format!("{base:016X}")),
                (at + 0x10, 8, "Window size", format!("{size:016X}")),
                (at + 0x18, 1, "Interleave Members", format!("{eniw:02X}")),
                (at + 0x19, 1, "Interleave Arithmetic", "01".to_owned()),
                (at + 0x1c, 4, "Granularity", format!("{hbig:08X}")),
                (at + 0x20, 2, "Restrictions", format!("{:04X}", u16::from(hbig) << 13 | 0x3f)),
                (at + 0x22, 2, "QtgId", "FFFE".to_owned()),
            ]);
            for (n, target) in targets.iter().enumerate() {
                let name = NAMES[usize::from(n > 0)];
                expected.push((at + 0x24 + 4 * n, 4, name, format!("{target:08X}")));
            }
            at += length;
            base += size;
        }
    }
    for hbig in 0..7u8 {
        let granularity = Granularity::decode(hbig).expect("0 to 6 are defined");
        let maps = [0, 1, 2, 3].map(|n| 1 << (8 + u32::from(hbig) + n) | 1u64 << (60 + n));
        writer.cxims(&Cxims::new(granularity, &maps))?;
        expected.extend([
            (at, 1, "Subtable Type", "02".to_owned()),
            (at + 2, 2, "Length", "0028".to_owned()),
            (at + 6, 1, "Interleave Granularity", format!("{hbig:02X}")),
            (at + 7, 1, "Xormap List Count", "04".to_owned()),
            (at + 8, 8, NAMES[2], format!("{:016X}", maps[0])),
        ]);
        at += 0x28;
    }
    let table = writer.finish()?;
    if table.len() != at {
        return Err(format!("the table has {:#x} bytes, not {at:#x}", table.len()).into());
    }
    let expected: Vec<Field<'_>> =
        expected.iter().map(|(at, length, name, value)| (*at, *length, *name, &**value)).collect();
    agree("CEDT", table, &expected)
}

fn mcfg_fields() -> Result<(), Failed> {
    let first = Allocation::new(Hpa(0xb000_0000), 0, 0, 0xff)?;
    let second = Allocation::new(Hpa(0x80_0000_0000), 0x0102, 0x40, 0x7f)?;
    let mut buffer = [0xa5; 0x80];
    let table = mcfg::write(IDENTITY, &[first, second], &mut buffer)?;
    let expected = [
        (0x04, 4, "Table Length", "0000004C"),
        (0x24, 8, "Reserved", "0000000000000000"),
        (0x2c, 8, "Base Address", "00000000B0000000"),
        (0x34, 2, "Segment Group Number", "0000"),
        (0x36, 1, "Start Bus Number", "00"),
        (0x37, 1, "End Bus Number", "FF"),
        (0x38, 4, "Reserved", "00000000"),
        (0x3c, 8, "Base Address", "0000008000000000"),
        (0x44, 2, "Segment Group Number", "0102"),
        (0x46, 1, "Start Bus Number", "40"),
        (0x47, 1, "End Bus Number", "7F"),
    ];
    agree("MCFG", table, &expected)
}

fn srat_fields() -> Result<(), Failed> {
    let memory = MemoryAffinity {
        domain: 0x4433_2211,
        span: Span::new(Hpa(0x3_d000_0000), 4 << 30)?,
        hot_pluggable: true,
        non_volatile: false,
    };
    let mut buffer = [0xa5; 0x80];
    let table = srat::write(IDENTITY, [memory], &mut buffer)?;
    let expected = [
        (0x04, 4, "Table Length", "00000058"),
        (0x24, 4, "Table Revision", "00000001"),
        (0x30, 1, "Subtable Type", "01"),
        (0x31, 1, "Length", "28"),
        (0x32, 4, "Proximity Domain", "44332211"),
        (0x38, 8, "Base Address", "00000003D0000000"),
        (0x40, 8, "Address Length", "0000000100000000"),
        (0x4c, 4, "Flags (decoded below)", "00000003"),
    ];
    agree("SRAT", table, &expected)
}

fn root_fields() -> Result<(), Failed> {
    let mut buffer = [0xa5; 0x80];
    let table = rsdt::write(rsdt::Kind::Rsdt, IDENTITY, &[0x1000], &mut buffer)?;
    agree("RSDT", table, &[(0x24, 4, "ACPI Table Address   0", "00001000")])?;
    rsdt::write(rsdt::Kind::Xsdt, IDENTITY, &[0x1000], &mut buffer)?;
    let table = rsdt::append(rsdt::Kind::Xsdt, 0x12_3456_7000, &mut buffer)?;
    let expected = [
        (0x04, 4, "Table Length", "00000034"),
        (0x24, 8, "ACPI Table Address   0", "0000000000001000"),
        (0x2c, 8, "ACPI Table Address   1", "0000001234567000"),
    ];
    agree("XSDT", table, &expected)
}
