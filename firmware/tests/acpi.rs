//! The platform out of table bytes. Tables are typed by hand; only their sums are computed.

use cxl_firmware::acpi::{MAX_UNREADABLE, Tables, find_table};
use cxl_firmware::error::{Code, Error, Place};
use cxl_firmware::platform::{Bridge, BridgeKind, Ecam, RootBus};
use cxl_regs::acpi::cedt::{CedtError, Problem};
use cxl_regs::acpi::mcfg::AllocationError;
use cxl_regs::acpi::{Rsdp, TableError};
use cxl_regs::{Arithmetic, Granularity, Hpa, Interleave, Ways};
use proptest::prelude::*;

/// A table of these bytes behind the header, with a good length and sum.
fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    bytes.extend((36 + body.len() as u32).to_le_bytes());
    bytes.extend([1, 0]);
    bytes.extend(*b"BOCHS BXPC    \x01\0\0\0BXPC\x01\0\0\0");
    bytes.extend(body);
    mend(&mut bytes, 9);
    bytes
}

/// Makes bytes sum to 0 through the one at `place`.
fn mend(bytes: &mut [u8], place: usize) {
    bytes[place] = 0;
    bytes[place] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
}

/// Segment 0, all buses, at 0xB000_0000.
fn mcfg() -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend([0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 0, 0x00, 0xff, 0, 0, 0, 0]);
    table(b"MCFG", &body)
}

fn chbs(uid: u8, version: u8, base: u64) -> Vec<u8> {
    let mut record = vec![0x00, 0, 0x20, 0, uid, 0, 0, 0, version, 0, 0, 0, 0, 0, 0, 0];
    record.extend(base.to_le_bytes());
    record.extend(if version == 0 { 0x2000u64 } else { 0x1_0000 }.to_le_bytes());
    record
}

/// A window of 4 GiB with everything allowed but a fixed configuration.
fn cfmws(base: u64, eniw: u8, arithmetic: u8, targets: &[u8]) -> Vec<u8> {
    let mut record = vec![0x01, 0, 0x24 + 4 * targets.len() as u8, 0, 0, 0, 0, 0];
    record.extend(base.to_le_bytes());
    record.extend(0x1_0000_0000u64.to_le_bytes());
    record.extend([eniw, arithmetic, 0, 0, 0, 0, 0, 0, 0x2f, 0, 0x03, 0]);
    for target in targets {
        record.extend([*target, 0, 0, 0]);
    }
    record
}

/// One map for granularity 256.
fn cxims(map: u64) -> Vec<u8> {
    let mut record = vec![0x02, 0, 0x10, 0, 0, 0, 0, 1];
    record.extend(map.to_le_bytes());
    record
}

fn cedt(records: &[Vec<u8>]) -> Vec<u8> {
    table(b"CEDT", &records.concat())
}

const ROOTS: [(u32, RootBus); 2] =
    [(20, RootBus { segment: 0, bus: 0x34 }), (99, RootBus { segment: 1, bus: 0x12 })];

type Small = Tables<2, 2>;

/// The number of [`TableError::Checksum`].
const CHECKSUM: u16 = 5;

fn broken(error: CedtError) -> Error {
    Code::PLATFORM_RECORD.at(Place::byte(error.offset())).rule(error.problem)
}

fn read(records: &[Vec<u8>]) -> Result<Small, Error> {
    Tables::from_acpi(&mcfg(), &cedt(records), 46, &ROOTS)
}

#[test]
fn bridges_windows_and_configuration_space_are_read_as_they_are() {
    let records = [
        chbs(20, 1, 0x3_c001_0000),
        cfmws(0x3_d000_0000, 1, 0, &[12, 20]),
        chbs(12, 0, 0x3_c000_0000),
    ];
    let tables = read(&records).unwrap();
    let platform = tables.platform();
    let region = Ecam { base: Hpa(0xb000_0000), segment: 0, first_bus: 0, last_bus: 255 };
    assert_eq!(platform.ecam, [region]);
    let root = Some(RootBus { segment: 0, bus: 0x34 });
    let kind = BridgeKind::ComponentRegisters;
    let component = Bridge { uid: 20, kind, registers: Hpa(0x3_c001_0000), root };
    let kind = BridgeKind::Rcrb;
    let rch = Bridge { uid: 12, kind, registers: Hpa(0x3_c000_0000), root: None };
    assert_eq!(platform.bridges, [component, rch]);
    let [window] = platform.windows else { panic!("one window") };
    assert_eq!((window.base, window.size), (Some(Hpa(0x3_d000_0000)), 0x1_0000_0000));
    assert_eq!(window.interleave, Interleave::new(Ways::Two, Granularity::B256));
    assert_eq!((window.arithmetic, window.xor_maps.len()), (Arithmetic::Modulo, 0));
    assert_eq!((window.restrictions.into_bits(), window.qtg), (0x2f, 3));
    assert_eq!(window.targets, [12, 20]);
    assert_eq!((platform.address_bits, platform.resources.len()), (46, 0));
}

#[test]
fn a_window_at_0_is_one_for_the_plan_to_judge() {
    let tables = read(&[cfmws(0, 0, 0, &[12])]).unwrap();
    let window = &tables.windows[0];
    assert_eq!((window.base, window.size), (Some(Hpa(0)), 0x1_0000_0000));
    // Its other fields are judged all the same.
    let error = CedtError { record: 36, problem: Problem::TargetCount { expected: 2, found: 1 } };
    assert_eq!(read(&[cfmws(0, 1, 0, &[12])]).unwrap_err(), broken(error));
}

#[test]
fn a_window_that_is_no_multiple_of_its_shares_ends_with_the_last_whole_one() {
    const MIB: u64 = 1 << 20;
    // Size in the table, ways code, targets; what is left of it.
    let cases: [(u64, u8, &[u8], u64); 7] = [
        (768 * MIB, 1, &[12, 20], 512 * MIB),
        (1024 * MIB, 1, &[12, 20], 1024 * MIB),
        (1280 * MIB, 8, &[12, 20, 34], 768 * MIB),
        (768 * MIB, 0, &[12], 768 * MIB),
        (512 * MIB, 1, &[12, 20], 512 * MIB),
        // Nothing can lie in these, which the plan says.
        (256 * MIB, 1, &[12, 20], 256 * MIB),
        (512 * MIB, 8, &[12, 20, 34], 512 * MIB),
    ];
    for (size, ways, targets, left) in cases {
        let mut window = cfmws(0x3_d000_0000, ways, 0, targets);
        window[0x10..0x18].copy_from_slice(&size.to_le_bytes());
        let tables = read(&[chbs(12, 1, 0x1000_0000), window]).unwrap();
        assert_eq!(tables.windows[0].size, left, "{size:#x} {ways}");
        assert_eq!(tables.bridges.len(), 1);
    }
    // One at 0 may end where a hole below 4 GiB begins.
    let mut low = cfmws(0, 8, 0, &[12, 20, 34]);
    low[0x10..0x18].copy_from_slice(&(2048 * MIB).to_le_bytes());
    assert_eq!(read(&[low]).unwrap().windows[0].size, 2048 * MIB);
    let mut ragged = cfmws(0x3_d000_0000, 1, 0, &[12, 20]);
    ragged[0x10..0x18].copy_from_slice(&(768 * MIB + MIB).to_le_bytes());
    let problem = Problem::SizeAlignment { size: 769 * MIB };
    let error = CedtError { record: 36, problem };
    assert_eq!(read(&[ragged]).unwrap_err(), broken(error));
}

#[test]
fn xor_windows_get_the_maps_of_their_granularity_wherever_they_stand() {
    let window = || cfmws(0x3_d000_0000, 1, 1, &[12, 20]);
    let maps = |records: &[Vec<u8>]| read(records).unwrap().windows[0].xor_maps.clone();
    assert_eq!(maps(&[cxims(0x10100), window()]), [0x10100]);
    assert_eq!(maps(&[window(), cxims(0x20100)]), [0x20100]);
    assert_eq!(maps(&[window()]), []);
    let mut coarse = cxims(0x10100);
    coarse[6] = 1;
    assert_eq!(maps(&[coarse, window()]), []);
    // Modulo windows have none.
    let modulo = cfmws(0x3_d000_0000, 1, 0, &[12, 20]);
    assert_eq!(maps(&[cxims(0x10100), modulo]), []);
}

/// A table in which one record cannot be read says all else, and of that what it was; whoever wants all of it is
/// refused with the byte.
#[test]
fn read_in_part_a_broken_record_costs_itself() {
    type Edit = fn(&mut Vec<u8>);
    let good = || cfmws(0x4_d000_0000, 0, 0, &[12]);
    let in_part = |records: &[Vec<u8>]| {
        Tables::<4, 4>::from_acpi_in_part(&mcfg(), &cedt(records), 46, &ROOTS)
    };
    let cases: [(&str, Edit); 8] = [
        ("interleave ways code 0xd is reserved (defined: 0-4, 8-a)", |record| record[0x18] = 0x0D),
        ("interleave arithmetic code 0x2 is reserved (defined: 0, 1)", |record| record[0x19] = 2),
        ("interleave granularity code 0x7 is reserved (defined: 0-6)", |record| record[0x1C] = 7),
        ("target 1 names host bridge 0xc a second time", |record| record[0x28] = 12),
        ("window base 0x3d0100000 is not a multiple of 256 MiB", |record| record[0x0A] = 0x10),
        ("window size 0x100100000 is not a multiple of 256 MiB", |record| record[0x12] = 0x10),
        ("the window at 0x3d0000000 has size 0", |record| record[0x14] = 0),
        ("a 2-way window has 2 targets, here are 1", |record| {
            record.truncate(0x28);
            record[2] = 0x28;
        }),
    ];
    for (words, edit) in cases {
        let mut record = cfmws(0x3_d000_0000, 1, 0, &[12, 20]);
        edit(&mut record);
        let targets = (record.len() - 0x24) / 4;
        let records = [record, chbs(12, 1, 0x1000_0000), chbs(20, 1, 0x2000_0000), good()];
        assert_eq!(read(&records).unwrap_err().code, Code::PLATFORM_RECORD, "{words}");
        let tables = in_part(&records).unwrap();
        assert_eq!((tables.bridges.len(), tables.unreadable.len()), (2, 0), "{words}");
        let [broken, sound] = &tables.windows[..] else { panic!("{words}: two windows") };
        assert_eq!((sound.base, &sound.unreadable), (Some(Hpa(0x4_d000_0000)), &None), "{words}");
        assert_eq!(broken.base.unwrap().0 & !0x10_0000, 0x3_d000_0000, "{words}");
        assert_eq!((broken.targets[0], broken.targets.len()), (12, targets), "{words}");
        let error = broken.unreadable.unwrap();
        assert_eq!(error.code, Code::TABLES_WINDOW, "{words}");
        assert_eq!(error.to_string(), format!("window {:#x}: {words}", broken.base.unwrap().0));
    }
    // What is no window is listed by its byte, a bridge as what is missed, all else as passed over.
    let cases: [(Code, Vec<u8>, Edit); 6] = [
        (Code::PLATFORM_RECORD, chbs(20, 1, 0x2000_0000), |record| record[8] = 2),
        (Code::PLATFORM_RECORD, chbs(20, 1, 0x2000_0000), |record| record[0x1A] = 0),
        (Code::PLATFORM_RECORD, chbs(20, 1, 0x2000_0000), |record| record[0x13] = 0),
        (Code::PLATFORM_RECORD, chbs(20, 1, 0x2000_0000), |record| {
            record.truncate(0x18);
            record[2] = 0x18;
        }),
        (Code::DISCOVER_RECORD_PASSED_OVER, cxims(0x100), |record| record[6] = 7),
        (Code::DISCOVER_RECORD_PASSED_OVER, good(), |record| {
            record.truncate(0x20);
            record[2] = 0x20;
        }),
    ];
    for (code, mut record, edit) in cases {
        edit(&mut record);
        let records = [chbs(12, 1, 0x1000_0000), record, good()];
        let refused = read(&records).unwrap_err();
        assert_eq!(refused.code, Code::PLATFORM_RECORD);
        let tables = in_part(&records).unwrap();
        assert_eq!((tables.bridges.len(), tables.windows.len()), (1, 1), "{refused}");
        assert_eq!(tables.unreadable, [Error { code, ..refused }], "{refused}");
    }
    // Of two with one UID nobody knows which one is right.
    let two = [chbs(12, 1, 0x1000_0000), chbs(12, 1, 0x2000_0000)];
    assert_eq!(in_part(&two).unwrap().bridges.len(), 2);
    // An allocation of configuration space.
    let mut bad = mcfg();
    (bad[54], bad[55]) = (9, 3);
    mend(&mut bad, 9);
    let tables = Small::from_acpi_in_part(&bad, &cedt(&[]), 46, &[]).unwrap();
    let buses = AllocationError::Buses { first: 9, last: 3 };
    let error = Code::PLATFORM_ALLOCATION.at(Place::entry(0)).rule(buses);
    assert_eq!((tables.ecam.len(), &tables.unreadable[..]), (0, &[error][..]));
    // A table of which nothing can be told, and one with too many.
    let mut cut = chbs(12, 1, 0x1000_0000);
    cut.truncate(0x1f);
    let past = CedtError { record: 36, problem: Problem::PastEnd { length: 0x20, left: 0x1f } };
    assert_eq!(in_part(&[cut]).unwrap_err(), broken(past));
    let mut unknown = cxims(0x100);
    unknown[6] = 7;
    assert_eq!(in_part(&vec![unknown.clone(); MAX_UNREADABLE]).unwrap().unreadable.len(), 8);
    let many = in_part(&vec![unknown; MAX_UNREADABLE + 1]).unwrap_err();
    assert_eq!((many.code, many.at), (Code::PLATFORM_RECORD, Place::byte(36 + 8 * 16 + 6)));
}

#[test]
fn broken_tables_are_refused_with_the_byte() {
    let record = |record, problem| broken(CedtError { record, problem });
    let two = [chbs(12, 1, 0x1000_0000), chbs(12, 1, 0x2000_0000)];
    assert_eq!(read(&two).unwrap_err(), record(68, Problem::DuplicateChbs { uid: 12 }));
    let odd = cfmws(0x3_d010_0000, 0, 0, &[12]);
    let problem = Problem::BaseAlignment { base: 0x3_d010_0000 };
    let error = read(&[chbs(12, 1, 0x1000_0000), odd]).unwrap_err();
    assert_eq!(error, record(68, problem));
    assert_eq!(error.to_string(), format!("CEDT: byte 0x4c: {problem}"));
    let mut cut = chbs(12, 1, 0x1000_0000);
    cut.truncate(0x1f);
    let past = Problem::PastEnd { length: 0x20, left: 0x1f };
    assert_eq!(read(&[cut]).unwrap_err(), record(36, past));
    let mut reserved = cxims(0x100);
    reserved[6] = 7;
    assert_eq!(read(&[reserved]).unwrap_err().code, Code::PLATFORM_RECORD);

    let good = cedt(&[]);
    let mut bad = mcfg();
    bad[9] ^= 0xff;
    let error = Small::from_acpi(&bad, &good, 46, &[]).unwrap_err();
    assert_eq!((error.code, error.detail), (Code::PLATFORM_MCFG, CHECKSUM), "{error}");
    let mut bad = good.clone();
    bad[9] ^= 0xff;
    let error = Small::from_acpi(&mcfg(), &bad, 46, &[]).unwrap_err();
    assert_eq!((error.code, error.detail), (Code::PLATFORM_CEDT, CHECKSUM), "{error}");
    let mut bad = mcfg();
    (bad[54], bad[55]) = (9, 3);
    mend(&mut bad, 9);
    let error = Small::from_acpi(&bad, &good, 46, &[]).unwrap_err();
    let buses = AllocationError::Buses { first: 9, last: 3 };
    assert_eq!(error, Code::PLATFORM_ALLOCATION.at(Place::entry(0)).rule(buses));
}

#[test]
fn one_more_than_fits_is_refused() {
    let bridges = |count| (1..=count).map(|uid| chbs(uid, 1, u64::from(uid) << 16)).collect();
    let windows = |count: u64| (1..=count).map(|n| cfmws(n << 32, 0, 0, &[1])).collect();
    let (two, three): (Vec<_>, Vec<_>) = (bridges(2), bridges(3));
    assert!(read(&two).is_ok());
    let error = Code::PLATFORM_CAPACITY.error().detail(1).expected(2);
    assert_eq!(read(&three).unwrap_err(), error);
    let (two, three): (Vec<_>, Vec<_>) = (windows(2), windows(3));
    assert!(read(&two).is_ok());
    let error = Code::PLATFORM_CAPACITY.error().detail(2).expected(2);
    assert_eq!(read(&three).unwrap_err(), error);
    for (count, fits) in [(32, true), (33, false)] {
        let allocation = &mcfg()[44..];
        let mut body = vec![0; 8];
        (0..count).for_each(|_| body.extend(allocation));
        let result = Small::from_acpi(&table(b"MCFG", &body), &cedt(&[]), 46, &[]);
        let error = Code::PLATFORM_CAPACITY.error().detail(0).expected(32);
        assert_eq!(result.map(|_| ()), if fits { Ok(()) } else { Err(error) });
    }
}

/// Memory with an RSDP of revision 0 at 0x1000 (2 at 0x1100), root tables and a CEDT.
struct Memory(Vec<(u64, Vec<u8>)>);

impl Memory {
    fn new() -> Self {
        let mut old = b"RSD PTR \0BOCHS \0".to_vec();
        old.extend(0x2000u32.to_le_bytes());
        mend(&mut old, 8);
        let mut new = b"RSD PTR \0BOCHS \x02\0\0\0\0".to_vec();
        mend(&mut new, 8);
        new.extend(36u32.to_le_bytes());
        new.extend(0x2100u64.to_le_bytes());
        new.extend([0; 4]);
        mend(&mut new, 32);
        // An entry of 0 is none.
        let rsdt = [0, 0x3000u32, 0x4000].map(u32::to_le_bytes).concat();
        let xsdt = [0, 0x4000u64, 0x3000].map(u64::to_le_bytes).concat();
        Self(vec![
            (0x1000, old),
            (0x1100, new),
            (0x2000, table(b"RSDT", &rsdt)),
            (0x2100, table(b"XSDT", &xsdt)),
            (0x3000, mcfg()),
            (0x4000, cedt(&[chbs(12, 1, 0x1000_0000)])),
        ])
    }

    fn read(&self, address: u64, into: &mut [u8]) {
        for (index, byte) in into.iter_mut().enumerate() {
            let at = address.wrapping_add(index as u64);
            let part = self
                .0
                .iter()
                .find_map(|(base, bytes)| bytes.get(usize::try_from(at.checked_sub(*base)?).ok()?));
            *byte = part.copied().unwrap_or(0xff);
        }
    }
}

#[test]
fn tables_are_found_through_either_root_table() {
    let memory = Memory::new();
    let mut reader = |address, into: &mut [u8]| {
        assert_ne!(address, 0, "an entry of 0 was followed");
        memory.read(address, into);
    };
    for rsdp in [0x1000, 0x1100] {
        let mut buffer = [0xa5; 128];
        let found = find_table(&mut reader, rsdp, *b"CEDT", &mut buffer).unwrap();
        assert_eq!(found, cedt(&[chbs(12, 1, 0x1000_0000)]));
        let found = find_table(&mut reader, rsdp, *b"MCFG", &mut buffer).unwrap();
        assert_eq!(found, mcfg());
        let missing = Code::PLATFORM_NO_TABLE.at(Place::table(*b"HPET", 0));
        assert_eq!(find_table(&mut reader, rsdp, *b"HPET", &mut buffer), Err(missing));
    }
    // An XSDT at 0 is none: the RSDT counts, as on old firmware.
    let mut memory = Memory::new();
    let new = &mut memory.0[1].1;
    new[16..20].copy_from_slice(&0x2000u32.to_le_bytes());
    new[24..32].fill(0);
    mend(&mut new[..20], 8);
    mend(new, 32);
    let mut other = |address, into: &mut [u8]| memory.read(address, into);
    assert!(find_table(&mut other, 0x1100, *b"CEDT", &mut [0; 128]).is_ok());
    let mut small = [0; 60];
    let large = Code::PLATFORM_TABLE_TOO_LARGE.at(Place::table(*b"CEDT", 0)).expected(68).found(60);
    assert_eq!(find_table(&mut reader, 0x1000, *b"CEDT", &mut small), Err(large));
    let mut buffer = [0; 128];
    let error = find_table(&mut reader, 0x5000, *b"CEDT", &mut buffer).unwrap_err();
    let rsdp = Place::table(*b"RSDP", 0x5000);
    assert_eq!((error.code, error.at), (Code::PLATFORM_RSDP, rsdp), "{error}");
}

#[test]
fn a_broken_table_on_the_way_is_refused_with_its_address() {
    for (index, address, signature) in [(2, 0x2000, *b"RSDT"), (5, 0x4000, *b"CEDT")] {
        let mut memory = Memory::new();
        memory.0[index].1[20] ^= 1;
        let mut reader = |address, into: &mut [u8]| memory.read(address, into);
        let error = find_table(&mut reader, 0x1000, *b"CEDT", &mut [0; 128]).unwrap_err();
        let expected = (Code::PLATFORM_TABLE, Place::table(signature, address), CHECKSUM);
        assert_eq!((error.code, error.at, error.detail), expected, "{error}");
    }
}

#[test]
fn codes_are_distinct_and_every_error_is_a_sentence() {
    let table = TableError::NoHeader { expected: 36, found: 0 };
    let signature = *b"CEDT";
    let errors = [
        Code::PLATFORM_RSDP.at(Place::table(*b"RSDP", 1)).rule(Rsdp::read(&[]).unwrap_err()),
        Code::PLATFORM_TABLE.at(Place::table(signature, 1)).rule(table),
        Code::PLATFORM_NO_TABLE.at(Place::table(signature, 0)),
        Code::PLATFORM_TABLE_TOO_LARGE.at(Place::table(signature, 0)).expected(2).found(1),
        Code::PLATFORM_MCFG.error().rule(table),
        Code::PLATFORM_ALLOCATION
            .at(Place::entry(0))
            .rule(AllocationError::Buses { first: 2, last: 1 }),
        Code::PLATFORM_CEDT.error().rule(table),
        broken(CedtError { record: 36, problem: Problem::ChbsWithoutBase }),
        Code::PLATFORM_CAPACITY.error().detail(0).expected(1),
    ];
    for (code, error) in (0x0101..).zip(errors) {
        assert_eq!(error.code(), code, "{error}");
        let text = error.to_string();
        assert!(text.len() > 20 && !text.ends_with('.') && !text.contains('\n'), "{text}");
    }
}

#[test]
fn what_is_too_many_is_named() {
    for (what, name) in [(0, "MCFG allocations"), (1, "host bridges"), (2, "windows")] {
        let expected = format!("more than 3 {name}: give the library larger structures");
        assert_eq!(Code::PLATFORM_CAPACITY.error().detail(what).expected(3).to_string(), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_bytes_end_in_an_answer(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Small::from_acpi(&table(b"MCFG", &body), &table(b"CEDT", &body), 46, &[]);
        let _ = Small::from_acpi_in_part(&table(b"MCFG", &body), &table(b"CEDT", &body), 46, &[]);
        let _ = Small::from_acpi_in_part(&mcfg(), &table(b"CEDT", &body), 46, &[]);
        let _ = Small::from_acpi(&mcfg(), &table(b"CEDT", &body), 46, &[]);
    }

    #[test]
    fn any_memory_ends_in_an_answer(root in any::<u32>(), entries in any::<[u32; 3]>()) {
        let mut memory = Memory::new();
        memory.0[0].1[16..20].copy_from_slice(&(root % 0x3000).to_le_bytes());
        mend(&mut memory.0[0].1, 8);
        memory.0[2].1 = table(b"RSDT", &entries.map(|e| (e % 0x5000).to_le_bytes()).concat());
        let mut reader = |address, into: &mut [u8]| memory.read(address, into);
        let _ = find_table(&mut reader, 0x1000, *b"CEDT", &mut [0; 128]);
    }
}
