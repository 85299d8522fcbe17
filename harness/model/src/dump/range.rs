//! The CXL.cache/mem range in a dump, and the HDM decoders in it.
//!
//! **Invariant**: no structure is read beyond the end of its range.

use std::fmt::{self, Display};

use cxl_regs::block;
use cxl_regs::component::{self, ArrayError, Capabilities, CapabilityId, ComponentText};
use cxl_regs::text::HdmText;

/// The bytes of a CXL.cache/mem range.
#[derive(Clone, Copy, Debug)]
pub(super) struct CacheMemRange<'a> {
    pub(super) bytes: &'a [u8],
    /// The kind of component, if somebody knows it.
    pub(super) component: Option<cxl_regs::Component>,
}

/// Where the range starts in a component register block.
pub(super) fn start() -> usize {
    component::Region::CacheMem.extent().start as usize
}

impl<'a> CacheMemRange<'a> {
    /// The range in a component register block; as much of it as there is.
    pub(super) fn of_block(block: &'a [u8], component: Option<cxl_regs::Component>) -> Self {
        let bytes = component::cache_mem(block).or_else(|| block.get(start()..));
        Self { bytes: bytes.unwrap_or_default(), component }
    }

    /// Whether it starts as such a range does.
    pub(super) fn array(&self) -> Result<(), ArrayError> {
        Capabilities::new(block::image(self.bytes)).map(|_| ())
    }

    /// The HDM structure that the capability array leads to under an ID.
    pub(super) fn hdm(&self, id: CapabilityId) -> Option<HdmText<'a>> {
        Some(HdmText::new(self.structure(id)?, self.component))
    }

    /// From where the capability array leads to under an ID, to the end.
    pub(super) fn structure(&self, id: CapabilityId) -> Option<&'a [u8]> {
        let found = Capabilities::new(block::image(self.bytes)).ok()?.find(id)?;
        self.bytes.get(found.pointer.into()..)
    }
}

impl Display for CacheMemRange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ComponentText(self.bytes).fmt(f)?;
        match self.hdm(CapabilityId::HdmDecoder) {
            Some(hdm) => hdm.fmt(f)?,
            None => writeln!(f, "no hdm decoders")?,
        }
        match self.hdm(CapabilityId::ExtendedHdmDecoder) {
            Some(hdm) => write!(f, "extended {hdm}"),
            None => Ok(()),
        }
    }
}
