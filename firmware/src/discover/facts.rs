//! What a hand-off record says of a function beside its node, and the question that a restore asks a
//! device again.
//!
//! **Invariant**: nothing is told of a function that is not what its node says.

use cxl_regs::config::{ExtendedCapabilities, ExtendedCapabilityId, HeaderType};
use cxl_regs::dvsec::device::{Capability, DeviceDvsec};
use cxl_regs::dvsec::{Dvsec, DvsecId};

use super::capacity::{Capacity, capacity};
use super::function::{CxlFunction, RegisterBlock};
use super::role;
use crate::config::Config;
use crate::error::{Error, Place};
use crate::mmio::{Clock, Mmio};
use crate::topology::{NodeId, Tree};

/// Where a function's structures are in its configuration space, 0 for none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FunctionFacts {
    pub(crate) device: u16,
    pub(crate) flex_bus: u16,
    /// The Device Serial Number capability, and the number.
    pub(crate) serial: (u16, u64),
    /// Physical address of the CXL device registers.
    pub(crate) registers: u64,
}

/// What is known of the open function, which is the node's; `None` where it is something else.
pub(crate) fn facts(
    hw: &mut impl Mmio,
    config: &mut Config<'_>,
    tree: Tree<'_>,
    id: NodeId,
) -> Option<FunctionFacts> {
    let node = tree.get(id)?;
    let (_, uid) = tree.bridge(id)?;
    let at = Place::function(uid, config.function());
    let above = tree.get(node.parent?).and_then(|above| role(&above.kind));
    let header: HeaderType = config.read(hw, 0);
    let found = CxlFunction::identify(hw, config, uid, header, above).ok()?.cxl()?;
    if Some(found.role) != role(&node.kind) {
        return None;
    }
    let mut capabilities = ExtendedCapabilities::new(config.reader(hw)).filter_map(Result::ok);
    let serial = capabilities.find(|found| found.id == ExtendedCapabilityId::SerialNumber);
    drop(capabilities);
    let serial = serial.map_or((0, 0), |capability| {
        let [low, high] = [4, 8].map(|within| config.dword(hw, capability.offset + within));
        (capability.offset, u64::from(high) << 32 | u64::from(low))
    });
    let blocks = found.blocks(hw, config, at).unwrap_or_default();
    let offset = |dvsec: Option<Dvsec>| dvsec.map_or(0, |dvsec| dvsec.offset);
    Some(FunctionFacts {
        device: offset(found.device),
        flex_bus: offset(found.flex_bus),
        serial,
        registers: blocks.device.map_or(0, |block| block.address),
    })
}

/// Waits until a device's memory is ready, and asks how much of it is volatile and persistent: as
/// discovery does. The Device DVSEC is at an offset into the open function, which is `base`; its
/// device registers are at an address, 0 for none.
pub(crate) fn memory_of(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    config: &mut Config<'_>,
    offset: u16,
    registers: u64,
    at: Place,
) -> Result<(u64, u64), Error> {
    let length = DeviceDvsec::EXTENT.end;
    let dvsec = Dvsec { offset, id: DvsecId::Device, revision: 0, length };
    let capability: Capability = config.read(hw, offset);
    // What its BAR has was found when the record was made.
    let block = RegisterBlock { address: registers, room: u64::MAX };
    let registers = Some(block).filter(|block| block.address != 0);
    let Capacity { volatile, persistent, .. } =
        capacity(hw, clock, config, &dvsec, capability, registers, at)?;
    Ok((volatile, persistent))
}
