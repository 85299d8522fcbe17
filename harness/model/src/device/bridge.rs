//! A host bridge: its register block (CHBCR), and which root port an address goes to.
//!
//! **Invariant**: a bridge without HDM decoders forwards everything to its one port, and nothing
//! if it has more than one.

use cxl_regs::Component;

use super::Reset;
use super::component::ComponentBlock;
use super::hdm::HdmBlock;
use super::port::Path;

/// A host bridge of CXL 2.0 or later, or of CXL 1.1, whose registers are not modelled.
#[derive(Clone, Debug)]
pub struct HostBridge {
    registers: Option<ComponentBlock>,
}

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
        Self { registers: Some(block) }
    }

    /// A CXL 1.1 bridge: firmware refuses it by the version in its CHBS, and finds nothing behind
    /// the RCRB.
    pub const fn restricted() -> Self {
        Self { registers: None }
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
