//! The text form of a capability array, and of the small structures it leads to.
//!
//! **Invariant**: any bytes have a text; what cannot be read is a line that says why.

use core::fmt;

use super::{Capabilities, CapabilityId};
use crate::bi::{BiDecoder, BiRouteTable};
use crate::block::{self, LABEL_WIDTH, Row};
use crate::cache_id::{CacheIdDecoder, CacheIdRouteTable};

/// A CXL.cache/mem range for people: the capability array, then the structures that take a few
/// lines each. HDM decoders have a text form of their own.
///
/// ```
/// use cxl_regs::component::ComponentText;
///
/// let range = [0x01, 0x00, 0x11, 0x01, 0x05, 0x00, 0x03, 0x10];
/// let text = ComponentText(&range).to_string();
/// assert!(text.contains("HDM decoder       0x10030005  at +0x100, version 3"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ComponentText<'a>(pub &'a [u8]);

impl fmt::Display for ComponentText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reader = block::image(self.0);
        let capabilities = match Capabilities::new(reader) {
            Ok(capabilities) => capabilities,
            Err(error) => return writeln!(f, "capability array: {error}"),
        };
        let header = capabilities.header();
        let plural = if header.size() == 1 { "entry" } else { "entries" };
        writeln!(
            f,
            "capability array: {} {plural}, version {}, cache/mem version {}",
            header.size(),
            header.version(),
            header.cache_mem_version()
        )?;
        for found in capabilities.clone() {
            match found {
                Ok(found) => writeln!(
                    f,
                    "  {:<LABEL_WIDTH$}{:#010x}  at +{:#05x}, version {}",
                    Label(found.id),
                    found.encode().into_bits(),
                    found.pointer,
                    found.version
                )?,
                Err(error) => writeln!(f, "  {:<LABEL_WIDTH$}{error}", "broken")?,
            }
        }
        for found in capabilities.flatten() {
            let (id, at) = (found.id, found.pointer);
            match id {
                CapabilityId::BiRouteTable => rows(f, id, &BiRouteTable::read(reader, at).rows())?,
                CapabilityId::BiDecoder => rows(f, id, &BiDecoder::read(reader, at).rows())?,
                CapabilityId::CacheIdDecoder => {
                    rows(f, id, &CacheIdDecoder::read(reader, at).rows())?;
                }
                CapabilityId::CacheIdRouteTable => {
                    let table = CacheIdRouteTable::read(reader, at);
                    rows(f, id, &table.rows())?;
                    for cache_id in 0..table.capability.target_count() {
                        if let Some(target) = table.target(reader, at, cache_id)
                            && target.valid()
                        {
                            let (raw, port) = (target.into_bits(), target.port());
                            writeln!(f, "  target {cache_id:<11}{raw:#06x}  port {port}")?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A code's name that pads like a string.
struct Label(CapabilityId);

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut name = heapless::String::<LABEL_WIDTH>::new();
        // Names that are too long for the column are cut.
        let _ = fmt::Write::write_fmt(&mut name, format_args!("{}", self.0));
        f.pad(&name)
    }
}

fn rows(f: &mut fmt::Formatter<'_>, id: CapabilityId, rows: &[Row]) -> fmt::Result {
    writeln!(f, "{id}")?;
    rows.iter().try_for_each(|row| writeln!(f, "{row}"))
}
