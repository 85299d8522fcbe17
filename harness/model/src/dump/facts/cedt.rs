//! The JSON form of a CEDT.
//!
//! **Invariant**: every record of the table is in one of the lists, in the table's order; one that
//! breaks a rule is there with its `problem`.

use cxl_regs::Arithmetic;
use cxl_regs::acpi;
use cxl_regs::acpi::cedt::wire::{CfmwsRecord, ChbsRecord, CximsRecord, RdpasRecord, Wire};
use cxl_regs::acpi::cedt::{CsdsCapabilities, RawRecord, Restrictions};
use cxl_regs::config::Bdf;
use serde::Serialize;

use super::{granularity, hex, ways};

/// The CXL Early Discovery Table.
#[derive(Debug, Default, Serialize)]
pub struct Cedt {
    revision: u8,
    length: String,
    checksum: String,
    oem_id: String,
    oem_table_id: String,
    oem_revision: String,
    creator_id: String,
    creator_revision: String,
    /// The first rule that a record breaks, by itself or beside the others.
    problem: Option<String>,
    host_bridges: Vec<HostBridge>,
    windows: Vec<Window>,
    xor_maps: Vec<XorMaps>,
    port_associations: Vec<PortAssociation>,
    systems: Vec<System>,
    unknown: Vec<Unknown>,
}

#[derive(Debug, Serialize)]
struct HostBridge {
    uid: u32,
    version: u32,
    base: String,
    length: String,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Window {
    base: String,
    size: String,
    ways: Option<u32>,
    granularity: Option<u64>,
    arithmetic: Option<&'static str>,
    restrictions: WindowRestrictions,
    qtg: u16,
    targets: Vec<u32>,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct WindowRestrictions {
    raw: String,
    device_coherent: bool,
    host_only: bool,
    volatile: bool,
    persistent: bool,
    fixed: bool,
    back_invalidate: bool,
}

#[derive(Debug, Serialize)]
struct XorMaps {
    granularity: Option<u64>,
    maps: Vec<String>,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct PortAssociation {
    segment: u16,
    bdf: String,
    base: String,
    protocol: u8,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct System {
    raw: String,
    cmp_m: bool,
    no_clean_writeback: bool,
    viral_policy: bool,
    metabits: u8,
}

#[derive(Debug, Serialize)]
struct Unknown {
    offset: String,
    #[serde(rename = "type")]
    kind: Option<u8>,
    bytes: String,
    problem: Option<String>,
}

fn letters(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |last| last + 1);
    bytes.iter().take(end).map(|byte| byte.escape_ascii().to_string()).collect()
}

impl From<acpi::Cedt<'_>> for Cedt {
    fn from(table: acpi::Cedt<'_>) -> Self {
        let header = table.header();
        let mut facts = Self {
            revision: header.revision,
            length: hex(header.length.get()),
            checksum: format!("{:#04x}", header.checksum),
            oem_id: letters(&header.oem_id),
            oem_table_id: letters(&header.oem_table_id),
            oem_revision: hex(header.oem_revision.get()),
            creator_id: letters(&header.creator_id),
            creator_revision: hex(header.creator_revision.get()),
            problem: table.check().err().map(|error| error.to_string()),
            ..Self::default()
        };
        for raw in table.raw_records().filter_map(Result::ok) {
            let problem = table.judge(raw).err().map(|error| error.problem.to_string());
            facts.add(raw, problem);
        }
        facts
    }
}

impl Cedt {
    /// Adds a record with what is wrong with it, if anything.
    fn add(&mut self, raw: RawRecord<'_>, problem: Option<String>) {
        match raw.wire() {
            Ok(Wire::Chbs(&record)) => self.host_bridges.push(HostBridge::of(record, problem)),
            Ok(Wire::Cfmws(&record, targets)) => {
                let targets = targets.iter().map(|target| target.get());
                self.windows.push(Window::of(record, targets, problem));
            }
            Ok(Wire::Cxims(&record, maps)) => {
                let maps = maps.iter().map(|map| map.get());
                self.xor_maps.push(XorMaps::of(record, maps, problem));
            }
            Ok(Wire::Rdpas(&record)) => {
                self.port_associations.push(PortAssociation::of(record, problem));
            }
            Ok(Wire::Csds(record)) => self.systems.push(System::of(record.capabilities.get())),
            Ok(Wire::Unknown { .. }) | Err(_) => self.unknown.push(Unknown {
                offset: hex(raw.offset as u64),
                kind: raw.bytes.first().copied(),
                bytes: raw.bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                problem,
            }),
        }
    }
}

impl HostBridge {
    fn of(record: ChbsRecord, problem: Option<String>) -> Self {
        Self {
            uid: record.uid.get(),
            version: record.version.get(),
            base: hex(record.base.get()),
            length: hex(record.length.get()),
            problem,
        }
    }
}

impl Window {
    fn of(
        record: CfmwsRecord,
        targets: impl Iterator<Item = u32>,
        problem: Option<String>,
    ) -> Self {
        let ways = ways(record.eniw);
        let restrictions = Restrictions::from_bits(record.restrictions.get());
        Self {
            base: hex(record.base.get()),
            size: hex(record.size.get()),
            ways,
            granularity: granularity(record.hbig.get()),
            arithmetic: Arithmetic::decode(record.arithmetic).ok().map(|code| match code {
                Arithmetic::Modulo => "modulo",
                Arithmetic::Xor => "xor",
            }),
            restrictions: WindowRestrictions {
                raw: format!("{:#06x}", restrictions.into_bits()),
                device_coherent: restrictions.device_coherent(),
                host_only: restrictions.host_only(),
                volatile: restrictions.volatile(),
                persistent: restrictions.persistent(),
                fixed: restrictions.fixed(),
                back_invalidate: restrictions.back_invalidate(),
            },
            qtg: record.qtg.get(),
            targets: targets.take(ways.unwrap_or(0) as usize).collect(),
            problem,
        }
    }
}

impl XorMaps {
    fn of(record: CximsRecord, maps: impl Iterator<Item = u64>, problem: Option<String>) -> Self {
        Self {
            granularity: granularity(record.hbig.into()),
            maps: maps.take(record.map_count.into()).map(hex).collect(),
            problem,
        }
    }
}

impl PortAssociation {
    fn of(record: RdpasRecord, problem: Option<String>) -> Self {
        Self {
            segment: record.segment.get(),
            bdf: Bdf::from_bits(record.bdf.get()).to_string(),
            base: hex(record.base.get()),
            protocol: record.protocol,
            problem,
        }
    }
}

impl System {
    fn of(raw: u16) -> Self {
        let capabilities = CsdsCapabilities::from_bits(raw);
        Self {
            raw: format!("{raw:#06x}"),
            cmp_m: capabilities.cmp_m(),
            no_clean_writeback: capabilities.no_clean_writeback(),
            viral_policy: capabilities.viral_policy(),
            metabits: capabilities.metabits(),
        }
    }
}
