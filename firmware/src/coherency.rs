//! The coherency models that a device's memory can be programmed for.

use cxl_regs::Coherency;
use heapless::Vec;

use crate::error::{Code, Error};
use crate::topology::{DeviceKind, NodeId, NodeKind, Tree};

/// What a device's memory may be, as far as coherency goes.
pub(crate) struct CoherencyModels {
    /// The coherency models that it can be programmed for, preferred first.
    pub(crate) coherencies: Vec<Coherency, 3>,
    /// It is an accelerator that can do back-invalidate.
    pub(crate) back_invalidate: bool,
    /// The first component of its path, itself included, that cannot.
    pub(crate) gap: Option<NodeId>,
}

/// The coherency models of a device.
///
/// Its capability register may say (Supported Coherency Models); where it does not, its class does.
/// A memory expander is host-only wherever it may be, and has no CXL.cache to be coherent through;
/// an accelerator is what it was built for. Back-invalidate needs every component of the path.
// Compiled once: it is asked in many places.
#[inline(never)]
pub(crate) fn models(tree: Tree<'_>, id: NodeId) -> Result<CoherencyModels, Error> {
    let mut list = Vec::new();
    let Some((node, device)) = tree.get(id).and_then(|node| Some((node, node.device()?))) else {
        return Ok(CoherencyModels { coherencies: list, back_invalidate: false, gap: None });
    };
    let expander = device.kind == DeviceKind::Type3;
    let (host, coherent) = match node.hdm.map_or(0, |hdm| hdm.capability.coherency_models()) {
        1 => (false, true),
        2 => (true, false),
        3 => (true, true),
        _ => (expander, !expander),
    };
    // The list has room for each of them once.
    if host && expander {
        let _ = list.push(Coherency::HostOnly);
    }
    let gap = tree.upwards(id).find(|(_, node)| {
        node.back_invalidate.is_none() && !matches!(node.kind, NodeKind::HostBridge { .. })
    });
    let gap = gap.map(|(at, _)| at);
    if coherent {
        let through_cache = !expander && node.back_invalidate.is_none_or(|bi| bi.hdm_d);
        match gap {
            None => {
                let _ = list.push(Coherency::BackInvalidate);
            }
            Some(at) if !host && !through_cache => {
                let (device, at) = (tree.path(id), tree.path(at));
                return Err(Code::PLAN_NO_BACK_INVALIDATE.at(device).above(at));
            }
            Some(_) => {}
        }
        if through_cache {
            let _ = list.push(Coherency::Device);
        }
    }
    if host && !expander {
        let _ = list.push(Coherency::HostOnly);
    }
    let back_invalidate = coherent && !expander && node.back_invalidate.is_some();
    Ok(CoherencyModels { coherencies: list, back_invalidate, gap })
}
