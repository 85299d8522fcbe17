//! What a bootloader calls that takes the general path: all of it but the hand-off's reader.

use cxl_firmware::bring_up::{Workspace, bring_up};
use cxl_firmware::error::Error;
use cxl_firmware::handoff::{self, TableLocation};
use cxl_firmware::platform::Platform;
use cxl_firmware::policy::Policy;
use cxl_firmware::tables;
use cxl_regs::acpi::Identity;

use crate::support::Registers;

pub(crate) type Room = Workspace<64, 32, 128>;

/// What a caller gives.
pub struct Caller<'a> {
    pub(crate) registers: Registers,
    pub(crate) platform: Platform<'a>,
    pub(crate) policy: Policy<'a>,
    pub(crate) identity: Identity,
    pub(crate) table: &'a mut [u8],
    pub(crate) record: &'a mut [u8],
    pub(crate) work: Room,
    #[cfg(feature = "full")]
    pub(crate) more: crate::More<'a>,
}

/// Brings everything up and describes it.
pub(crate) fn start(caller: &mut Caller<'_>) -> Result<usize, Error> {
    let Caller { registers: hw, platform, policy, identity, table, record, work, .. } = caller;
    let clock = &mut hw.clone();
    let _ = bring_up(hw, clock, platform, policy, &mut *work)?;
    let cedt = tables::cedt(platform, &work.topology, &work.committed, *identity, table)?;
    tables::cross_check_hardware(hw, cedt, &work.topology, &work.committed)?;
    let location = TableLocation { address: cedt.as_ptr() as u64, size: cedt.len() as u32 };
    let contents = work.contents(platform.ecam, Some(location));
    Ok(handoff::write(hw, &contents, record)?.len())
}
