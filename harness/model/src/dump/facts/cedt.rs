//! The JSON form of a CEDT.
//!
//! **Invariant**: every record of the table is in one of the lists, in the table's order; one that
//! breaks a rule is there with its `problem`.

use cxl_regs::Arithmetic;
use cxl_regs::acpi::Cedt;
use cxl_regs::acpi::cedt::wire::Wire;
use cxl_regs::acpi::cedt::{CsdsCapabilities, Restrictions};
use cxl_regs::config::Bdf;
use schemars::JsonSchema;
use serde::Serialize;

use super::{granularity, hex, object, ways};

fn letters(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |last| last + 1);
    bytes.iter().take(end).map(|byte| byte.escape_ascii().to_string()).collect()
}

fn restrictions(bits: Restrictions) -> impl JsonSchema + Serialize {
    object! {
        raw: format!("{:#06x}", bits.into_bits()),
        device_coherent: bits.device_coherent(),
        host_only: bits.host_only(),
        volatile: bits.volatile(),
        persistent: bits.persistent(),
        fixed: bits.fixed(),
        back_invalidate: bits.back_invalidate(),
    }
}

/// The CXL Early Discovery Table.
pub fn cedt(table: Cedt<'_>) -> impl JsonSchema + Serialize {
    let header = table.header();
    let (mut host_bridges, mut windows, mut xor_maps) = (Vec::new(), Vec::new(), Vec::new());
    let (mut port_associations, mut systems, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    let other = |offset: usize, bytes: &[u8], problem: Option<String>| {
        object! {
            offset: hex(offset as u64),
            r#type: bytes.first().copied(),
            bytes: bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            problem,
        }
    };
    let astray = table.astray();
    let mut broken = None;
    let records = table.raw_records().map_while(|raw| match raw {
        Ok(raw) => Some(raw),
        Err(error) => {
            broken = Some(error);
            None
        }
    });
    for raw in records {
        let own = table.judge(raw).err().map(|error| error.problem.to_string());
        let astray = astray.filter(|astray| astray.record == raw.offset);
        let problem = own.or_else(|| astray.map(|astray| astray.to_string()));
        match raw.wire() {
            Ok(Wire::Chbs(record)) => host_bridges.push(object! {
                uid: record.uid.get(),
                version: record.version.get(),
                base: hex(record.base.get()),
                length: hex(record.length.get()),
                problem,
            }),
            Ok(Wire::Cfmws(record, targets)) => {
                let ways = ways(record.eniw);
                let targets = targets.iter().take(ways.unwrap_or(0) as usize);
                windows.push(object! {
                    base: hex(record.base.get()),
                    size: hex(record.size.get()),
                    ways,
                    granularity: granularity(record.hbig.get()),
                    arithmetic: Arithmetic::decode(record.arithmetic).ok().map(|code| match code {
                        Arithmetic::Modulo => "modulo",
                        Arithmetic::Xor => "xor",
                    }),
                    restrictions: restrictions(Restrictions::from_bits(record.restrictions.get())),
                    qtg: record.qtg.get(),
                    targets: targets.map(|target| target.get()).collect::<Vec<_>>(),
                    problem,
                });
            }
            Ok(Wire::Cxims(record, maps)) => {
                let maps = maps.iter().take(record.map_count.into());
                xor_maps.push(object! {
                    granularity: granularity(record.hbig.into()),
                    maps: maps.map(|map| hex(map.get())).collect::<Vec<_>>(),
                    problem,
                });
            }
            Ok(Wire::Rdpas(record)) => port_associations.push(object! {
                segment: record.segment.get(),
                bdf: Bdf::from_bits(record.bdf.get()).to_string(),
                base: hex(record.base.get()),
                protocol: record.protocol,
                problem,
            }),
            Ok(Wire::Csds(record)) => {
                let bits = record.capabilities.get();
                let capabilities = CsdsCapabilities::from_bits(bits);
                systems.push(object! {
                    raw: format!("{bits:#06x}"),
                    cmp_m: capabilities.cmp_m(),
                    no_clean_writeback: capabilities.no_clean_writeback(),
                    viral_policy: capabilities.viral_policy(),
                    metabits: capabilities.metabits(),
                });
            }
            Ok(Wire::Unknown { .. }) | Err(_) => {
                unknown.push(other(raw.offset, raw.bytes, problem));
            }
        }
    }
    // What cannot be told from what follows it: its head is all that is known of it.
    if let Some(error) = broken {
        let head = table.bytes().get(error.record..).unwrap_or_default();
        let head = head.get(..4).unwrap_or(head);
        unknown.push(other(error.record, head, Some(error.problem.to_string())));
    }
    // The first rule that a record breaks, by itself or beside the others; a length that leads astray comes
    // before what follows from it.
    let problem = table.check().err();
    let problem = match astray {
        Some(astray) if problem.is_none_or(|it| it.record > astray.record) => {
            Some(astray.to_string())
        }
        _ => problem.map(|error| error.to_string()),
    };
    object! {
        revision: header.revision,
        length: hex(header.length.get()),
        checksum: format!("{:#04x}", header.checksum),
        oem_id: letters(&header.oem_id),
        oem_table_id: letters(&header.oem_table_id),
        oem_revision: hex(header.oem_revision.get()),
        creator_id: letters(&header.creator_id),
        creator_revision: hex(header.creator_revision.get()),
        problem,
        host_bridges,
        windows,
        xor_maps,
        port_associations,
        systems,
        unknown,
    }
}
