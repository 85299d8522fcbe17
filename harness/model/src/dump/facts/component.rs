//! The JSON form of a component register block's CXL.cache/mem range.
//!
//! **Invariant**: every entry of the capability array is in `capabilities`, or in `problems` if it
//! leads nowhere.

use cxl_regs::bi::{BiDecoder, BiRouteTable};
use cxl_regs::block;
use cxl_regs::cache_id::{CacheIdDecoder, CacheIdRouteTable};
use cxl_regs::component::{ArrayError, Capabilities, Capability, CapabilityId};
use schemars::JsonSchema;
use serde::Serialize;

use super::hdm::hdm;
use super::register::registers;
use super::{dword, hex, object};
use crate::dump::range::CacheMemRange;

/// The facts of a range; it has none without a capability array.
pub(super) fn component(
    range: CacheMemRange<'_>,
) -> Result<impl JsonSchema + Serialize, ArrayError> {
    let reader = block::image(range.bytes);
    let capabilities = Capabilities::new(reader)?;
    let header = capabilities.header();
    let found = capabilities.clone().flatten();
    let problems = capabilities.filter_map(Result::err);
    Ok(object! {
        raw: dword(header.into_bits()),
        entries: header.size(),
        array_version: header.version(),
        cache_mem_version: header.cache_mem_version(),
        problems: problems.map(|error| error.to_string()).collect::<Vec<_>>(),
        capabilities: found.map(|found| structure(&reader, found)).collect::<Vec<_>>(),
        hdm: range.hdm(CapabilityId::HdmDecoder).map(|text| hdm(&text)),
        extended_hdm: range.hdm(CapabilityId::ExtendedHdmDecoder).map(|text| hdm(&text)),
    })
}

fn structure(
    reader: &dyn Fn(u16) -> u32,
    found: Capability,
) -> impl JsonSchema + Serialize + use<> {
    let Capability { id, version, pointer, .. } = found;
    let mut ports = None;
    let registers = match id {
        CapabilityId::BiRouteTable => registers(BiRouteTable::read(reader, pointer).rows()),
        CapabilityId::BiDecoder => registers(BiDecoder::read(reader, pointer).rows()),
        CapabilityId::CacheIdDecoder => registers(CacheIdDecoder::read(reader, pointer).rows()),
        CapabilityId::CacheIdRouteTable => {
            let table = CacheIdRouteTable::read(reader, pointer);
            let port = |cache_id| {
                let target = table.target(reader, pointer, cache_id);
                target.filter(|target| target.valid()).map(|target| target.port())
            };
            let all = 0..table.capability.target_count();
            ports = Some(all.map(port).collect::<Vec<Option<u8>>>());
            registers(table.rows())
        }
        _ => Vec::new(),
    };
    object! {
        name: id.to_string(),
        id: hex(id.code()),
        version,
        offset: hex(pointer),
        registers,
        // Of a Cache ID route table: the port of each Cache ID.
        ports,
    }
}
