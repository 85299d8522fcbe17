//! The component register block: which structures discovery needs of it, and their limits.
//!
//! **Invariant**: every register is read once, and a structure that is handed on lies whole within
//! its 4 KiB range (CXL r3.1 section 8.2.4).

use cxl_regs::access::Component;
use cxl_regs::bi::DecoderCapability;
use cxl_regs::component::{ArrayError, Capabilities, CapabilityId, RANGE_SIZE, Region};
use cxl_regs::hdm::{self, MAX_DEVICE_DECODERS, structure_length};

use crate::error::{Code, Failed, Fault, Place};
use crate::mmio::{Block, Mmio};
use crate::topology::{BackInvalidate, Hdm};

/// What discovery wants to know of a component's registers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Structures {
    pub(crate) hdm: Option<Hdm>,
    pub(crate) back_invalidate: Option<BackInvalidate>,
}

/// Reads a component block. `component` is `None` for a root or downstream port, whose decoders, if
/// it shows any, take no part in decoding: QEMU's root ports have had them, on and off.
#[inline(never)]
pub(crate) fn structures(
    hw: &mut impl Mmio,
    block: u64,
    component: Option<Component>,
    at: Place,
    fault: &mut Fault,
) -> Result<Structures, Failed> {
    let range = block.wrapping_add(u64::from(Region::CacheMem.extent().start));
    // No entry is found as null.
    let wanted_hdm = component.map_or(CapabilityId::Null, |_| CapabilityId::HdmDecoder);
    let wanted_bi = match component {
        None | Some(Component::Device) => CapabilityId::BiDecoder,
        Some(Component::UpstreamPort) => CapabilityId::BiRouteTable,
        Some(Component::HostBridge) => CapabilityId::Null,
    };
    let (mut hdm_at, mut bi_at) = (None, None);
    let reader = |offset: u16| hw.read(range.wrapping_add(u64::from(offset)));
    let mut refuse = |error| Err(fault.at(Code::DISCOVER_ARRAY, at).rule(error).into());
    let array = match Capabilities::new(reader) {
        Ok(array) => array,
        Err(error) => return refuse(error),
    };
    for found in array {
        let id = match &found {
            Ok(found) => found.id,
            Err(
                ArrayError::Misaligned { id, .. }
                | ArrayError::InsideArray { id, .. }
                | ArrayError::PastEnd { id, .. },
            ) => *id,
            Err(error) => return refuse(*error),
        };
        // Of several structures of a kind the last one counts, as for Linux.
        let at = match id {
            id if id == wanted_hdm => &mut hdm_at,
            id if id == wanted_bi => &mut bi_at,
            // A broken entry of a kind that nobody here uses does no harm.
            _ => continue,
        };
        match found {
            Ok(found) => *at = Some(found.pointer),
            Err(error) => return refuse(error),
        }
    }
    let place = |pointer: u16| Block(range.wrapping_add(u64::from(pointer)));
    let hdm = match (component, hdm_at) {
        (Some(component), Some(pointer)) => {
            Some(hdm(hw, place(pointer), pointer, component, at, fault)?)
        }
        _ => None,
    };
    let back_invalidate = bi_at.map(|pointer| BackInvalidate {
        block: place(pointer),
        hdm_d: component == Some(Component::Device)
            && place(pointer).read::<DecoderCapability>(hw).hdm_d(),
    });
    Ok(Structures { hdm, back_invalidate })
}

#[inline(never)]
fn hdm(
    hw: &mut impl Mmio,
    block: Block,
    pointer: u16,
    component: Component,
    at: Place,
    fault: &mut Fault,
) -> Result<Hdm, Failed> {
    let capability: hdm::Capability = block.read(hw);
    let most = if component.routes() { hdm::MAX_DECODERS } else { MAX_DEVICE_DECODERS };
    let decoders = capability.decoders().filter(|decoders| usize::from(*decoders) <= most);
    let targets = capability.target_count();
    let (code, detail) = match decoders {
        None => (Code::DISCOVER_DECODER_COUNT, capability.decoder_count()),
        Some(_) if component.routes() && !matches!(targets, 1 | 2 | 4 | 8) => {
            (Code::DISCOVER_TARGET_COUNT, targets)
        }
        Some(decoders) if pointer + structure_length(decoders) > RANGE_SIZE => {
            let fault = fault.at(Code::DISCOVER_DECODERS_PAST_END, at).detail(pointer);
            return fault.found(decoders).into();
        }
        Some(decoders) => return Ok(Hdm { block, capability, decoders, lost: 0 }),
    };
    let address = block.address::<hdm::Capability>();
    let fault = fault.at(code, at).detail(detail).expected(address);
    fault.found(capability.into_bits()).into()
}
