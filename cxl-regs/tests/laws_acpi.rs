//! Laws of the ACPI tables: readers survive any bytes, and write and read are inverse.
//!
//! **Invariant**: a law is about all inputs; single cases belong into `golden_acpi.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fmt::Write as _;

use cxl_regs::acpi::cedt::{
    Cedt, CedtWriteError, Cfmws, Chbs, ChbsVersion, Csds, CsdsCapabilities, Cxims, Rdpas,
    RdpasProtocol, Record, Restrictions, Text,
};
use cxl_regs::acpi::mcfg::{self, Allocation, Mcfg};
use cxl_regs::acpi::srat::{self, Entry, MemoryAffinity, Srat};
use cxl_regs::acpi::{CedtWriter, Identity, RootTable, Rsdp, rsdt};
use cxl_regs::config::Bdf;
use cxl_regs::{Arithmetic, DECODER_UNIT, Granularity, Hpa, Interleave, Selector, Span, Ways};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

fn identity() -> impl Strategy<Value = Identity> {
    any::<([u8; 6], [u8; 8], u32, [u8; 4], u32)>().prop_map(
        |(oem_id, oem_table_id, oem_revision, creator_id, creator_revision)| Identity {
            oem_id,
            oem_table_id,
            oem_revision,
            creator_id,
            creator_revision,
        },
    )
}

/// Any window; many of them overlap or lack their maps.
fn window() -> impl Strategy<Value = Cfmws> {
    let shape = (select(&Ways::ALL[..]), select(&Granularity::ALL[..]));
    let place = (1u64..64, 1u64..4);
    (shape, place, any::<bool>(), any::<[u16; 2]>(), any::<u32>()).prop_map(
        |((ways, granularity), (base, share), xor, [restrictions, qtg], first)| {
            let size = share * u64::from(ways.count()) * DECODER_UNIT;
            let span = Span::new(Hpa(base * DECODER_UNIT), size).unwrap();
            let targets: Vec<u32> = (0..ways.count()).map(|n| first.wrapping_add(n)).collect();
            let interleave = Interleave::new(ways, granularity);
            let mut window = Cfmws::new(span, interleave, &targets).unwrap();
            window.arithmetic = if xor { Arithmetic::Xor } else { Arithmetic::Modulo };
            window.restrictions = Restrictions::from_bits(restrictions);
            window.qtg = qtg;
            window
        },
    )
}

/// Maps with the lowest bits in the right place, sometimes fewer than some windows need.
fn maps() -> impl Strategy<Value = Cxims> {
    let count = select(vec![4usize, 4, 4, 4, 0, 1, 2, 3]);
    (select(&Granularity::ALL[..]), any::<[u64; Selector::MAX_MAPS]>(), count).prop_map(
        |(granularity, noise, count)| {
            let first = granularity.shift();
            let lowest = |index: usize| 1u64 << (first as usize + index);
            let map = |index: usize| noise[index] & !(lowest(index) - 1) | lowest(index);
            Cxims::new(granularity, &(0..count).map(map).collect::<Vec<_>>())
        },
    )
}

fn record() -> impl Strategy<Value = Record<'static>> {
    let version = select(vec![ChbsVersion::Rch, ChbsVersion::Chbcr]);
    let protocol = select(vec![RdpasProtocol::Io, RdpasProtocol::CacheMem]);
    prop_oneof![
        1 => (0u32..8, version, 1u64..=u64::MAX - 0x1_0000)
            .prop_map(|(uid, version, base)| Chbs::new(uid, version, Hpa(base)).unwrap())
            .prop_map(Record::Chbs),
        4 => window().prop_map(Record::Cfmws),
        4 => maps().prop_map(Record::Cxims),
        1 => (any::<[u16; 2]>(), any::<u64>().prop_map(Hpa), protocol)
            .prop_map(|([segment, bdf], base, protocol)| Rdpas {
                segment,
                bdf: Bdf::from_bits(bdf),
                base,
                protocol,
            })
            .prop_map(Record::Rdpas),
        1 => any::<u16>().prop_map(|bits| {
            Record::Csds(Csds { capabilities: CsdsCapabilities::from_bits(bits) })
        }),
    ]
}

fn add(writer: &mut CedtWriter<'_>, record: &Record<'_>) -> Result<(), CedtWriteError> {
    match record {
        Record::Chbs(chbs) => writer.chbs(chbs),
        Record::Cfmws(window) => writer.cfmws(window),
        Record::Cxims(cxims) => writer.cxims(cxims),
        Record::Rdpas(rdpas) => writer.rdpas_in_current_layout(rdpas),
        Record::Csds(csds) => writer.csds(csds),
        other => unreachable!("the strategy makes none: {other:?}"),
    }
}

/// Whether a record is no XOR window, or one whose maps are among the others.
fn has_its_maps(record: &Record<'_>, all: &[Record<'_>]) -> bool {
    let Record::Cfmws(window) = record else { return true };
    let mut maps = all.iter().filter_map(|record| match record {
        Record::Cxims(cxims) => Some(cxims),
        _ => None,
    });
    let wanted = window.interleave().granularity;
    window.selector(maps.find(|cxims| cxims.granularity == wanted)).is_ok()
}

/// Reads bytes as everything, in every way there is.
fn read_all(bytes: &[u8]) {
    if let Ok(cedt) = Cedt::read(bytes) {
        // Every record takes at least the four bytes of its header.
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
    let _ = RootTable::read(rsdt::Kind::Rsdt, bytes).map(|root| root.addresses().count());
    let _ = RootTable::read(rsdt::Kind::Xsdt, bytes).map(|root| root.addresses().count());
    let _ = Mcfg::read(bytes).map(|mcfg| mcfg.allocations().count());
    let _ = Srat::read(bytes).map(|srat| srat.entries().count());
}

/// Makes signature, length and checksum right, so that readers go on to what is behind the header.
fn seal(bytes: &mut [u8], signature: &[u8; 4]) {
    if bytes.len() >= 36 {
        bytes[..4].copy_from_slice(signature);
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[9] = 0;
        let total = bytes.iter().fold(0u8, |total, byte| total.wrapping_add(*byte));
        bytes[9] = total.wrapping_neg();
    }
}

proptest! {
    #[test]
    fn readers_survive_any_bytes(mut bytes in vec(any::<u8>(), 0..300)) {
        read_all(&bytes);
        for signature in [b"CEDT", b"RSDT", b"XSDT", b"MCFG", b"SRAT"] {
            seal(&mut bytes, signature);
            read_all(&bytes);
        }
    }

    /// Small kinds and lengths: random bytes seldom make a record that ends inside the table.
    #[test]
    fn readers_survive_records_of_any_length(
        records in vec((0u8..6, 0u16..64, vec(any::<u8>(), 0..64)), 0..8)
    ) {
        let mut bytes = vec![0; 36];
        for (kind, length, rest) in &records {
            bytes.extend([*kind, 0]);
            bytes.extend(length.to_le_bytes());
            bytes.extend(rest);
        }
        seal(&mut bytes, b"CEDT");
        read_all(&bytes);
    }

    #[test]
    fn a_finished_table_reads_as_what_was_added(
        identity in identity(),
        records in vec(record(), 0..12),
        size in 36usize..700,
    ) {
        let mut buffer = vec![0xa5; size];
        let mut writer = CedtWriter::new(&mut buffer, identity).unwrap();
        let added: Vec<_> =
            records.into_iter().filter(|record| add(&mut writer, record).is_ok()).collect();
        let (usable, useless): (Vec<_>, Vec<_>) =
            added.iter().cloned().partition(|record| has_its_maps(record, &added));
        prop_assert_eq!(writer.finish().is_ok(), useless.is_empty());

        buffer.fill(0xa5);
        let mut writer = CedtWriter::new(&mut buffer, identity).unwrap();
        for record in &usable {
            prop_assert_eq!(add(&mut writer, record), Ok(()));
        }
        let table = writer.finish().unwrap();
        let table = table.to_vec();
        prop_assert_eq!(table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        let cedt = Cedt::read(&table).unwrap();
        prop_assert_eq!(cedt.check(), Ok(()));
        prop_assert_eq!(cedt.bytes().len(), table.len());
        let csds = usable.iter().any(|record| matches!(record, Record::Csds(_)));
        prop_assert_eq!(cedt.header().revision, if csds { 2 } else { 1 });
        prop_assert_eq!(cedt.header().oem_id, identity.oem_id);
        let read: Vec<_> = cedt.records().map(|record| record.unwrap().1).collect();
        prop_assert_eq!(read, usable);
        prop_assert!(!cedt.to_string().contains("problem"));
        prop_assert!(buffer[table.len()..].iter().all(|&byte| byte == 0xa5));
    }

    #[test]
    fn a_table_with_one_changed_byte_is_refused_or_read_again_when_mended(
        identity in identity(),
        records in vec(record(), 1..8),
        at in any::<Index>(),
        change in 1u8..,
    ) {
        let mut buffer = [0xa5; 2048];
        let mut writer = CedtWriter::new(&mut buffer, identity).unwrap();
        for record in records.iter().filter(|record| has_its_maps(record, &[])) {
            let _ = add(&mut writer, record);
        }
        let table = writer.finish().unwrap();
        let at = at.index(table.len());
        table[at] ^= change;
        prop_assert!(Cedt::read(table).is_err());
        read_all(table);
        seal(table, b"CEDT");
        read_all(table);
    }

    #[test]
    fn root_tables_keep_their_addresses(
        identity in identity(),
        addresses in vec(any::<u32>().prop_map(u64::from), 1..20),
        wide in any::<bool>(),
        at in any::<Index>(),
        new in any::<u32>().prop_map(u64::from),
    ) {
        let (kind, scale) = if wide { (rsdt::Kind::Xsdt, 1 << 32) } else { (rsdt::Kind::Rsdt, 1) };
        let mut addresses: Vec<u64> = addresses.iter().map(|address| address * scale).collect();
        let mut buffer = [0xa5; 300];
        rsdt::write(kind, identity, &addresses, &mut buffer).unwrap();
        let at = at.index(addresses.len());
        addresses[at] = new * scale;
        rsdt::replace(kind, at, addresses[at], &mut buffer).unwrap();
        addresses.push(new);
        let table = rsdt::append(kind, new, &mut buffer).unwrap();
        prop_assert!(RootTable::read(kind, table).unwrap().addresses().eq(addresses));
    }

    #[test]
    fn rsdp_mcfg_and_srat_read_as_written(
        identity in identity(),
        rsdt in any::<u32>(),
        xsdt in any::<Option<u64>>(),
        buses in subsequence((0..=255u8).collect::<Vec<_>>(), 2),
        base in 0u64..=u64::MAX - (256 << 20),
        size in 1u64..,
        (domain, segment, hot_pluggable, non_volatile) in any::<(u32, u16, bool, bool)>(),
    ) {
        let mut buffer = [0xa5; 128];
        let rsdp = Rsdp { oem_id: identity.oem_id, rsdt, xsdt };
        prop_assert_eq!(Rsdp::read(rsdp.write(&mut buffer).unwrap()), Ok(rsdp));

        let ecam = Allocation::new(Hpa(base), segment, buses[0], buses[1]).unwrap();
        let table = mcfg::write(identity, &[ecam], &mut buffer).unwrap();
        prop_assert!(Mcfg::read(table).unwrap().allocations().eq([Ok(ecam)]));

        let span = Span::new(Hpa(base), size.min(u64::MAX - base)).unwrap();
        let memory = MemoryAffinity { domain, span, hot_pluggable, non_volatile };
        let table = srat::write(identity, [memory], &mut buffer).unwrap();
        prop_assert!(Srat::read(table).unwrap().entries().eq([Ok(Entry::Memory(memory))]));
    }
}
