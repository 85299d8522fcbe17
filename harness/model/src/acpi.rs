//! The platform's ACPI tables as bytes: RSDP, XSDT, MCFG, CEDT.
//!
//! **Invariant**: the CEDT says what the platform decodes and judges nothing: a window that could
//! not be placed is in it with base 0, as QEMU publishes one, for firmware to refuse.

use std::ops::Range;

use cxl_regs::Arithmetic;
use cxl_regs::acpi::cedt::ChbsVersion;
use cxl_regs::acpi::cedt::wire::{CfmwsRecord, ChbsRecord, CximsRecord, Kind, RecordHeader};
use cxl_regs::acpi::mcfg::AllocationRecord;
use cxl_regs::acpi::{Header, Rsdp, header};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use crate::layout::AddressMap;
use crate::scenario::{self, BridgeVersion, Scenario};

const OEM: [u8; 6] = *b"CXLFW ";
const OEM_TABLE: [u8; 8] = *b"HARNESS ";

/// The tables in one run of bytes, RSDP first, for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Where they are made to lie.
    pub base: u64,
    /// All of them.
    pub bytes: Vec<u8>,
    /// Where the XSDT is in the bytes.
    pub xsdt: Range<usize>,
    /// Where the MCFG is.
    pub mcfg: Range<usize>,
    /// Where the CEDT is.
    pub cedt: Range<usize>,
}

impl Tables {
    /// The tables of a scenario's machine, to be put at `base`, a multiple of 16 (ACPI 6.5 section
    /// 5.2.5.1).
    pub fn new(scenario: &Scenario, map: &AddressMap, base: u64) -> Self {
        let (mcfg, cedt) = (mcfg(map), cedt(scenario, map));
        let mut bytes = vec![0; RSDP_ROOM];
        let put = |bytes: &mut Vec<u8>, table: &[u8]| {
            let start = bytes.len().next_multiple_of(ALIGNMENT);
            bytes.resize(start, 0);
            bytes.extend_from_slice(table);
            start..bytes.len()
        };
        let mcfg = put(&mut bytes, &mcfg);
        let cedt = put(&mut bytes, &cedt);
        let address = |table: &Range<usize>| U64::new(base + table.start as u64);
        let addresses = [address(&mcfg), address(&cedt)];
        let xsdt = put(&mut bytes, &table(*b"XSDT", 1, addresses.as_bytes()));
        let rsdp = Rsdp { oem_id: OEM, rsdt: 0, xsdt: Some(address(&xsdt).get()) };
        let written = rsdp.write(&mut bytes).map(|_| ());
        debug_assert!(written.is_ok(), "{written:?}");
        Self { base, bytes, xsdt, mcfg, cedt }
    }

    /// The bytes of one of them.
    pub fn table(&self, at: &Range<usize>) -> &[u8] {
        self.bytes.get(at.clone()).unwrap_or(&[])
    }
}

/// Room in front of the tables; a whole RSDP has 36 bytes.
const RSDP_ROOM: usize = 64;
/// Tables start at multiples of this.
const ALIGNMENT: usize = 64;

fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let length = size_of::<Header>() + body.len();
    let header = Header {
        signature,
        length: (length as u32).into(),
        revision,
        checksum: 0,
        oem_id: OEM,
        oem_table_id: OEM_TABLE,
        oem_revision: 1.into(),
        creator_id: *b"CXLF",
        creator_revision: 1.into(),
    };
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(body);
    let mended = header::mend_checksum(&mut bytes);
    debug_assert!(mended.is_ok(), "{mended:?}");
    bytes
}

fn mcfg(map: &AddressMap) -> Vec<u8> {
    let mut body = vec![0; 8];
    for (segment, span) in &map.ecam {
        let record = AllocationRecord {
            base: span.base().0.into(),
            segment: (*segment).into(),
            first_bus: 0,
            last_bus: u8::MAX,
            reserved: U32::ZERO,
        };
        body.extend_from_slice(record.as_bytes());
    }
    table(*b"MCFG", 1, &body)
}

fn cedt(scenario: &Scenario, map: &AddressMap) -> Vec<u8> {
    let mut body = Vec::new();
    for (bridge, place) in scenario.bridges.iter().zip(&map.bridges) {
        let version = match bridge.version {
            BridgeVersion::Cxl1 => ChbsVersion::Rch,
            BridgeVersion::Cxl2 => ChbsVersion::Chbcr,
        };
        let record = ChbsRecord {
            header: record_header(Kind::Chbs, size_of::<ChbsRecord>()),
            uid: bridge.uid.into(),
            version: version.encode().into(),
            reserved: U32::ZERO,
            base: place.registers.base().0.into(),
            length: version.length().into(),
        };
        body.extend_from_slice(record.as_bytes());
    }
    for (window, base) in scenario.windows.iter().zip(&map.windows) {
        let targets: Vec<U32> = window.targets.iter().map(|uid| U32::new(*uid)).collect();
        let length = size_of::<CfmwsRecord>() + targets.as_bytes().len();
        let record = CfmwsRecord {
            header: record_header(Kind::Cfmws, length),
            reserved0: U32::ZERO,
            base: base.unwrap_or_default().0.into(),
            size: window.size.into(),
            eniw: window.interleave.ways.encode(),
            arithmetic: window.arithmetic.encode(),
            reserved1: 0.into(),
            hbig: u32::from(window.interleave.granularity.encode()).into(),
            restrictions: window.restrictions.into_bits().into(),
            qtg: window.qtg.into(),
        };
        body.extend_from_slice(record.as_bytes());
        body.extend_from_slice(targets.as_bytes());
    }
    for window in widest_xor_windows(scenario) {
        let maps: Vec<U64> = window.xor_maps.iter().map(|map| U64::new(*map)).collect();
        let record = CximsRecord {
            header: record_header(Kind::Cxims, size_of::<CximsRecord>() + maps.as_bytes().len()),
            reserved: 0.into(),
            hbig: window.interleave.granularity.encode(),
            map_count: maps.len() as u8,
        };
        body.extend_from_slice(record.as_bytes());
        body.extend_from_slice(maps.as_bytes());
    }
    table(*b"CEDT", 1, &body)
}

fn record_header(kind: Kind, length: usize) -> RecordHeader {
    RecordHeader { kind: kind.encode(), reserved: 0, length: (length as u16).into() }
}

/// One window for each granularity that XOR arithmetic is used with: that with the most maps. A
/// CXIMS belongs to a granularity, not to a window.
fn widest_xor_windows(scenario: &Scenario) -> Vec<&scenario::Window> {
    let mut widest: Vec<&scenario::Window> = Vec::new();
    let has_maps =
        |w: &&scenario::Window| w.arithmetic == Arithmetic::Xor && !w.xor_maps.is_empty();
    for window in scenario.windows.iter().filter(has_maps) {
        let granularity = window.interleave.granularity;
        match widest.iter_mut().find(|other| other.interleave.granularity == granularity) {
            Some(other) if other.xor_maps.len() >= window.xor_maps.len() => {}
            Some(other) => *other = window,
            None => widest.push(window),
        }
    }
    widest
}
