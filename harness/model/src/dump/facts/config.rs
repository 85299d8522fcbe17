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
use cxl_regs::dvsec::locator::{BlockLocation, Locations};
use cxl_regs::dvsec::{Dvsec, DvsecId, Dvsecs};
use serde::Serialize;

use super::hex;
use super::register::{Register, registers};

/// One function's configuration space.
#[derive(Debug, Serialize)]
pub(in crate::dump) struct Function {
    /// From the dump, if it says so.
    address: Option<String>,
    bytes: usize,
    /// Nothing answered: all else is empty.
    absent: bool,
    vendor: Option<String>,
    device: Option<String>,
    class: Option<String>,
    header: Option<&'static str>,
    port_number: Option<u8>,
    problems: Vec<String>,
    registers: Vec<Register>,
    capabilities: Vec<Structure>,
    extended_capabilities: Vec<Extended>,
    dvsecs: Vec<CxlDvsec>,
}

#[derive(Debug, Serialize)]
struct Structure {
    name: String,
    offset: String,
    registers: Vec<Register>,
}

#[derive(Debug, Serialize)]
struct Extended {
    name: String,
    offset: String,
    version: u8,
}

#[derive(Debug, Serialize)]
struct CxlDvsec {
    name: String,
    id: String,
    offset: String,
    revision: u8,
    length: String,
    problems: Vec<String>,
    registers: Vec<Register>,
    /// Of a device: what the range registers say.
    ranges: Option<Vec<MemoryRange>>,
    /// Of a register locator: the blocks it leads to.
    blocks: Option<Vec<Block>>,
}

#[derive(Debug, Serialize)]
struct MemoryRange {
    index: u8,
    base: String,
    size: String,
}

#[derive(Debug, Serialize)]
struct Block {
    name: String,
    bar: u8,
    offset: String,
}

type Reader<'a> = &'a dyn Fn(u16) -> u32;

impl Function {
    /// The facts of a function whose header is there as a whole.
    pub(in crate::dump) fn of(address: Option<String>, space: &[u8], absent: bool) -> Self {
        let mut function = Self {
            address,
            bytes: space.len(),
            absent,
            vendor: None,
            device: None,
            class: None,
            header: None,
            port_number: None,
            problems: Vec::new(),
            registers: Vec::new(),
            capabilities: Vec::new(),
            extended_capabilities: Vec::new(),
            dvsecs: Vec::new(),
        };
        if !absent {
            function.read(&block::image(space));
        }
        function
    }

    fn read(&mut self, reader: Reader<'_>) {
        let header = EndpointHeader::read(reader, 0);
        self.vendor = Some(format!("{:#06x}", header.id.vendor()));
        self.device = Some(format!("{:#06x}", header.id.device()));
        self.class = Some(format!("{:#08x}", header.class.code()));
        (self.header, self.registers) = match header.header_type.layout() {
            0 => (Some("endpoint"), registers(header.rows())),
            1 => (Some("bridge"), registers(BridgeHeader::read(reader, 0).rows())),
            _ => (None, Vec::new()),
        };
        if self.bytes >= CONVENTIONAL_SIZE.into() {
            self.read_capabilities(reader);
        }
        if self.bytes > CONVENTIONAL_SIZE.into() {
            self.read_extended(reader);
        }
    }

    fn read_capabilities(&mut self, reader: Reader<'_>) {
        for found in Capabilities::new(reader) {
            let found = match found {
                Ok(found) => found,
                Err(error) => return self.problems.push(error.to_string()),
            };
            let mut rows = Vec::new();
            if found.id == CapabilityId::PciExpress {
                let pcie = PcieCapability::read(reader, found.offset);
                self.port_number = Some(pcie.port_number());
                rows = registers(pcie.rows());
            }
            let (name, offset) = (found.id.to_string(), hex(found.offset));
            self.capabilities.push(Structure { name, offset, registers: rows });
        }
    }

    fn read_extended(&mut self, reader: Reader<'_>) {
        for found in ExtendedCapabilities::new(reader) {
            match found {
                Ok(found) => self.extended_capabilities.push(Extended {
                    name: found.id.to_string(),
                    offset: hex(found.offset),
                    version: found.version,
                }),
                Err(error) => self.problems.push(error.to_string()),
            }
        }
        // A broken list has been told of; what is left to tell are broken DVSECs.
        for found in Dvsecs::new(reader) {
            match found {
                Ok(dvsec) => self.dvsecs.push(CxlDvsec::of(reader, &dvsec)),
                Err(error) if !self.problems.contains(&error.to_string()) => {
                    self.problems.push(error.to_string());
                }
                Err(_) => {}
            }
        }
    }
}

impl CxlDvsec {
    fn of(reader: Reader<'_>, dvsec: &Dvsec) -> Self {
        let mut facts = Self {
            name: dvsec.id.to_string(),
            id: hex(dvsec.id.code()),
            offset: hex(dvsec.offset),
            revision: dvsec.revision,
            length: hex(dvsec.length),
            problems: Vec::new(),
            registers: registers(dvsec.rows(reader)),
            ranges: None,
            blocks: None,
        };
        match dvsec.id {
            DvsecId::Device if dvsec.has(DeviceDvsec::EXTENT) => facts.add_ranges(reader, dvsec),
            DvsecId::RegisterLocator => facts.add_blocks(reader, dvsec),
            _ => {}
        }
        facts
    }

    fn add_ranges(&mut self, reader: Reader<'_>, dvsec: &Dvsec) {
        let device = DeviceDvsec::read(reader, dvsec.offset);
        let ranges = self.ranges.insert(Vec::new());
        for (index, registers) in (1..).zip(device.ranges()) {
            match Range::decode(registers) {
                Ok(Range { base, size, .. }) => {
                    ranges.push(MemoryRange { index, base: hex(base.0), size: hex(size) });
                }
                Err(error) => self.problems.push(format!("range {index}: {error}")),
            }
        }
    }

    fn add_blocks(&mut self, reader: Reader<'_>, dvsec: &Dvsec) {
        let blocks = self.blocks.insert(Vec::new());
        match Locations::new(dvsec, reader) {
            Ok(locations) => {
                for location in locations {
                    match location {
                        Ok(BlockLocation { id, bar, offset }) => {
                            blocks.push(Block { name: id.to_string(), bar, offset: hex(offset) });
                        }
                        Err(error) => self.problems.push(error.to_string()),
                    }
                }
            }
            Err(error) => self.problems.push(error.to_string()),
        }
    }
}
