//! A host bridge: its register block (CHBCR), and which root port an address goes to.
//!
//! **Invariant**: a bridge without HDM decoders forwards everything to its one port, and nothing
//! if it has more than one.

use cxl_regs::Component;
use cxl_regs::access::{Register, Spec};
use cxl_regs::config::{Bar, Command, Id};

use super::Reset;
use super::component::ComponentBlock;
use super::hdm::HdmBlock;
use super::port::Path;

/// A host bridge of CXL 2.0 or later; or of CXL 1.1, of which there is only what tells that it is one.
#[derive(Clone, Debug)]
pub struct HostBridge {
    registers: Option<ComponentBlock>,
    /// Where the RCRB says that the downstream port's component registers are.
    block: u64,
}

/// Vendor and Device ID of the downstream port of a CXL 1.1 bridge: those of the other root ports.
const RCRB_ID: u32 = 0x7075_8086;
/// Memory Space in the Command register.
const MEMORY_SPACE: u32 = 1 << 1;
/// A BAR of 64 bits.
const WIDE: u32 = 1 << 2;

impl HostBridge {
    /// A CXL 2.0 bridge; `None` for one without HDM decoders.
    pub fn new(hdm: Option<HdmBlock>, path: Path) -> Self {
        let block = ComponentBlock::new(Component::HostBridge);
        let mut block = match hdm {
            Some(hdm) => block.with_hdm(hdm),
            None => block.without_hdm(),
        };
        if path.cache_id {
            block = block.with_cache_id_route_table();
        }
        Self { registers: Some(block), block: 0 }
    }

    /// A CXL 1.1 bridge. Its RCRB leads to component registers at `block`, where nothing answers.
    pub const fn restricted(block: u64) -> Self {
        Self { registers: None, block }
    }

    /// A dword of the RCRB of a CXL 1.1 bridge (CXL r3.1 section 8.2.1): the header of the downstream
    /// port in the first page. Nothing else answers.
    pub const fn rcrb(&self, offset: u32) -> u32 {
        match offset {
            0x00 => RCRB_ID,
            0x04 => MEMORY_SPACE,
            0x10 => self.block as u32 | WIDE,
            0x14 => (self.block >> 32) as u32,
            0x08..0x1000 => 0,
            _ => u32::MAX,
        }
    }

    /// The register at an offset of an RCRB.
    pub fn rcrb_spec(offset: u32) -> Option<Spec> {
        let specs = [(0x00, Id::SPEC), (0x04, Command::SPEC), (0x10, Bar::SPEC), (0x14, Bar::SPEC)];
        specs.into_iter().find(|(at, _)| *at == offset).map(|(_, spec)| spec)
    }

    /// Its component registers; `None` in CXL 1.1.
    pub fn component(&self) -> Option<&ComponentBlock> {
        self.registers.as_ref()
    }

    /// Its component registers; `None` in CXL 1.1.
    pub fn component_mut(&mut self) -> Option<&mut ComponentBlock> {
        self.registers.as_mut()
    }

    /// The number of the root port that an address goes to. `only` is the bridge's one port, if it
    /// has no more.
    pub fn route(&self, hpa: u64, only: Option<u8>) -> Option<u8> {
        match self.registers.as_ref()?.hdm() {
            Some(hdm) => hdm.route(hpa),
            None => only,
        }
    }

    /// Puts back to defaults what this reset reaches.
    pub fn reset(&mut self, reset: Reset) {
        if let Some(block) = &mut self.registers {
            block.reset(reset);
        }
    }
}
