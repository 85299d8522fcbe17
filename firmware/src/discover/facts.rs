//! What a hand-off record says of a function beside its node, and the question that a restore asks a
//! device again.
//!
//! **Invariant**: nothing is told of a function that is not what its node says.

use cxl_regs::config::{ExtendedCapabilities, ExtendedCapabilityId, HeaderType};
use cxl_regs::dvsec::device::{Capability, DeviceDvsec};
use cxl_regs::dvsec::{Dvsec, DvsecId};

use super::capacity::{Capacity, capacity};
use super::function::{CxlFunction, RegisterBlock, Role, Sighting};
use crate::config::Config;
use crate::error::Failed;
use crate::mmio::{Clock, Mmio};

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

/// What is known of the open function, which is to have a role, below one that has another or below the
/// bridge; `None` where it is something else.
#[inline(never)]
pub(crate) fn facts(
    hw: &mut impl Mmio,
    config: &mut Config<'_>,
    role: Role,
    above: Option<Role>,
) -> Option<FunctionFacts> {
    let header: HeaderType = config.read(hw, 0);
    let found = &CxlFunction::identify(hw, config, header, above);
    let Ok(Sighting::Cxl(found)) = found else { return None };
    if found.role != role {
        return None;
    }
    let capabilities = ExtendedCapabilities::new(config.reader(hw));
    let mut at_serial = None;
    for found in capabilities.filter_map(Result::ok) {
        if found.id == ExtendedCapabilityId::SerialNumber {
            at_serial = Some(found.offset);
            break;
        }
    }
    let serial = at_serial.map_or((0, 0), |offset| {
        let (low, high) = (config.dword(hw, offset + 4), config.dword(hw, offset + 8));
        (offset, u64::from(high) << 32 | u64::from(low))
    });
    let blocks = found.blocks(hw, config).unwrap_or_default();
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
) -> Result<[u64; 2], Failed> {
    let length = DeviceDvsec::EXTENT.end;
    let dvsec = Dvsec { offset, id: DvsecId::Device, revision: 0, length };
    let capability: Capability = config.read(hw, offset);
    // What its BAR has was found when the record was made.
    let block = RegisterBlock { address: registers, room: u64::MAX };
    let registers = Some(block).filter(|block| block.address != 0);
    let mut found = Capacity::NONE;
    capacity(hw, clock, config, &dvsec, capability, registers, &mut found)?;
    Ok([found.volatile, found.persistent])
}
