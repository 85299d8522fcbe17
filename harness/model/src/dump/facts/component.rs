//! The JSON form of a component register block's CXL.cache/mem range.
//!
//! **Invariant**: every entry of the capability array is in `capabilities`, or in `problems` if it
//! leads nowhere.

use cxl_regs::bi::{BiDecoder, BiRouteTable};
use cxl_regs::block;
use cxl_regs::cache_id::{CacheIdDecoder, CacheIdRouteTable};
use cxl_regs::component::{ArrayError, Capabilities, Capability, CapabilityId};
use serde::Serialize;

use super::hdm::Hdm;
use super::register::{Register, registers};
use super::{dword, hex};
use crate::dump::range::Range;

/// A CXL.cache/mem range.
#[derive(Debug, Serialize)]
pub(in crate::dump) struct Component {
    raw: String,
    entries: u8,
    version: u8,
    cache_mem_version: u8,
    problems: Vec<String>,
    capabilities: Vec<Structure>,
    hdm: Option<Hdm>,
    extended_hdm: Option<Hdm>,
}

#[derive(Debug, Serialize)]
struct Structure {
    name: String,
    id: String,
    version: u8,
    offset: String,
    registers: Vec<Register>,
    /// Of a Cache ID route table: the port of each Cache ID.
    ports: Option<Vec<Option<u8>>>,
}

impl Component {
    /// The facts of a range; it has none without a capability array.
    pub(in crate::dump) fn of(range: Range<'_>) -> Result<Self, ArrayError> {
        let reader = block::image(range.bytes);
        let capabilities = Capabilities::new(reader)?;
        let header = capabilities.header();
        let found = capabilities.clone().flatten();
        Ok(Self {
            raw: dword(header.into_bits()),
            entries: header.size(),
            version: header.version(),
            cache_mem_version: header.cache_mem_version(),
            problems: capabilities.filter_map(Result::err).map(|e| e.to_string()).collect(),
            capabilities: found.map(|found| Structure::of(reader, found)).collect(),
            hdm: range.hdm(CapabilityId::HdmDecoder).map(|hdm| (&hdm).into()),
            extended_hdm: range.hdm(CapabilityId::ExtendedHdmDecoder).map(|hdm| (&hdm).into()),
        })
    }
}

impl Structure {
    fn of(reader: impl Fn(u16) -> u32 + Copy, found: Capability) -> Self {
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
                ports = Some((0..table.capability.target_count()).map(port).collect());
                registers(table.rows())
            }
            _ => Vec::new(),
        };
        Self {
            name: id.to_string(),
            id: hex(id.code()),
            version,
            offset: hex(pointer),
            registers,
            ports,
        }
    }
}
