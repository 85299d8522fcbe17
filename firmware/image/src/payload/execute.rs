//! Code that runs from a CXL window.
//!
//! **Invariant**: the code proves where it ran: its result contains its own address.

use core::mem;

use super::Checks;
use super::memory::{load, store};
use crate::Room;
use crate::hw::Hardware;

/// `lea rax, [rip - 7]; add rax, rdi; ret`: its own address plus its argument.
const CODE: [u8; 16] = [
    0x48, 0x8D, 0x05, 0xF9, 0xFF, 0xFF, 0xFF, 0x48, 0x01, 0xF8, 0xC3, 0x90, 0x90, 0x90, 0x90, 0x90,
];

/// Puts sixteen bytes of code at an address; whether they are there then.
pub(super) fn put_code(hw: &mut Hardware, address: u64, code: [u8; 16]) -> bool {
    let value = u128::from_le_bytes(code);
    let halves = [value as u64, (value >> 64) as u64];
    for (at, half) in (address..).step_by(8).zip(halves) {
        store(hw, at, half);
    }
    (address..).step_by(8).zip(halves).all(|(at, half)| load(hw, at) == half)
}

/// Writes a function into every region, and calls it.
pub(super) fn exec(hw: &mut Hardware, room: &Room, checks: &mut Checks) {
    for region in &room.committed.regions {
        let address = region.span.base().0 + region.span.size() / 2;
        let there = put_code(hw, address, CODE);
        checks.equal(format_args!("code is at {address:#x}"), 1, there.into());
        if !there {
            continue;
        }
        // SAFETY: the bytes that were just read back are a function of this type.
        let function: unsafe extern "sysv64" fn(u64) -> u64 =
            unsafe { mem::transmute(address as *const ()) };
        // SAFETY: it touches nothing but registers that a call may change.
        let found = unsafe { function(0x1234_5678) };
        checks.equal(format_args!("what {address:#x} returned"), address + 0x1234_5678, found);
    }
}
