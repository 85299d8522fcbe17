//! The JSON form of configuration space.
//!
//! **Invariant**: every capability that the lists lead to is there, and a list that is broken ends
//! in a line of `problems`.

use cxl_regs::block;
use cxl_regs::config::{
    BridgeHeader, CONVENTIONAL_SIZE, Capabilities, CapabilityId, EndpointHeader,
    ExtendedCapabilities, PcieCapability,
};
use cxl_regs::dvsec::device::{DeviceDvsec, Range};
use cxl_regs::dvsec::locator::Locations;
use cxl_regs::dvsec::{Dvsec, DvsecId, Dvsecs};
use schemars::JsonSchema;
use serde::Serialize;

use super::register::registers;
use super::{hex, object};

type Reader<'a> = &'a dyn Fn(u16) -> u32;

/// The facts of a function whose header is there as a whole; all but the first three are empty
/// where nothing answered.
pub(super) fn function(
    address: Option<&str>,
    space: &[u8],
    absent: bool,
) -> impl JsonSchema + Serialize + use<> {
    let image = block::image(space);
    let reader: Reader<'_> = &image;
    let header = (!absent).then(|| EndpointHeader::read(reader, 0));
    let (kind, rows) = match header.map(|header| (header, header.header_type.layout())) {
        Some((header, 0)) => (Some("endpoint"), registers(header.rows())),
        Some((_, 1)) => (Some("bridge"), registers(BridgeHeader::read(reader, 0).rows())),
        _ => (None, Vec::new()),
    };
    let (mut port_number, mut problems) = (None, Vec::new());
    let (mut capabilities, mut extended_capabilities) = (Vec::new(), Vec::new());
    let mut dvsecs = Vec::new();
    let length = if absent { 0 } else { space.len() };
    if length >= CONVENTIONAL_SIZE.into() {
        for found in Capabilities::new(reader) {
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    problems.push(error.to_string());
                    break;
                }
            };
            let mut rows = Vec::new();
            if found.id == CapabilityId::PciExpress {
                let pcie = PcieCapability::read(reader, found.offset);
                port_number = Some(pcie.port_number());
                rows = registers(pcie.rows());
            }
            let (name, offset) = (found.id.to_string(), hex(found.offset));
            capabilities.push(object! { name, offset, registers: rows });
        }
    }
    if length > CONVENTIONAL_SIZE.into() {
        for found in ExtendedCapabilities::new(reader) {
            match found {
                Ok(found) => extended_capabilities.push(object! {
                    name: found.id.to_string(),
                    offset: hex(found.offset),
                    version: found.version,
                }),
                Err(error) => problems.push(error.to_string()),
            }
        }
        // A broken list has been told of; what is left to tell are broken DVSECs.
        for found in Dvsecs::new(reader) {
            match found {
                Ok(found) => dvsecs.push(dvsec(reader, &found)),
                Err(error) if !problems.contains(&error.to_string()) => {
                    problems.push(error.to_string());
                }
                Err(_) => {}
            }
        }
    }
    object! {
        // From the dump, if it says so.
        address: address.map(str::to_owned),
        bytes: space.len(),
        absent,
        vendor: header.map(|header| format!("{:#06x}", header.id.vendor())),
        device: header.map(|header| format!("{:#06x}", header.id.device())),
        class: header.map(|header| format!("{:#08x}", header.class.code())),
        header: kind,
        port_number,
        problems,
        registers: rows,
        capabilities,
        extended_capabilities,
        dvsecs,
    }
}

fn dvsec(reader: Reader<'_>, dvsec: &Dvsec) -> impl JsonSchema + Serialize + use<> {
    let mut problems = Vec::new();
    let (mut ranges, mut blocks) = (None, None);
    if dvsec.id == DvsecId::Device && dvsec.has(DeviceDvsec::EXTENT) {
        let ranges = ranges.insert(Vec::new());
        let device = DeviceDvsec::read(reader, dvsec.offset);
        for (index, registers) in (1u8..).zip(device.ranges()) {
            match Range::decode(registers) {
                Ok(Range { base, size, .. }) => {
                    ranges.push(object! { index, base: hex(base.0), size: hex(size) });
                }
                Err(error) => problems.push(format!("range {index}: {error}")),
            }
        }
    }
    if dvsec.id == DvsecId::RegisterLocator {
        let blocks = blocks.insert(Vec::new());
        match Locations::new(dvsec, reader) {
            Ok(locations) => {
                for location in locations {
                    match location {
                        Ok(block) => blocks.push(object! {
                            name: block.id.to_string(),
                            bar: block.bar,
                            offset: hex(block.offset),
                        }),
                        Err(error) => problems.push(error.to_string()),
                    }
                }
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    object! {
        name: dvsec.id.to_string(),
        id: hex(dvsec.id.code()),
        offset: hex(dvsec.offset),
        revision: dvsec.revision,
        length: hex(dvsec.length),
        problems,
        registers: registers(dvsec.rows(reader)),
        // Of a device: what the range registers say.
        ranges,
        // Of a register locator: the blocks it leads to.
        blocks,
    }
}
