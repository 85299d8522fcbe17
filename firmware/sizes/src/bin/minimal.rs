//! The minimal profile: a flat machine brought up, described and handed on.
//!
//! **Invariant**: every value comes from outside, so the optimiser knows nothing of it.

#![no_std]
#![no_main]

#[path = "../support.rs"]
mod support;

use cxl_firmware::error::Error;
use cxl_firmware::flat::{self, Policy, Workspace};
use cxl_firmware::handoff::TableLocation;
use cxl_firmware::platform::Platform;
use cxl_regs::acpi::Identity;
use support::Registers;

/// What a caller gives.
pub struct Caller<'a> {
    registers: Registers,
    platform: Platform<'a>,
    policy: Policy,
    identity: Identity,
    table: &'a mut [u8],
    record: &'a mut [u8],
    work: Workspace<4, 8, 16>,
}

fn start(caller: &mut Caller<'_>) -> Result<usize, Error> {
    let Caller { registers: hw, platform, policy, identity, table, record, work } = caller;
    let clock = &mut hw.clone();
    flat::bring_up(hw, clock, platform, policy, &mut *work)?;
    let cedt = flat::cedt(hw, platform, &mut *work, *identity, table)?;
    let location = TableLocation { address: cedt.as_ptr() as u64, size: cedt.len() as u32 };
    Ok(flat::hand_off(hw, platform, &mut *work, Some(location), record)?.len())
}

/// A boot; the bytes of the record, or the number of the error above 32 bits.
#[unsafe(no_mangle)]
pub fn _start(caller: &mut Caller<'_>) -> u64 {
    match start(caller) {
        Ok(length) => length as u64,
        Err(error) => u64::from(error.code()) << 32,
    }
}
