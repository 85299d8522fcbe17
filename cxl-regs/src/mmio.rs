//! The seam between firmware and hardware: dwords by physical address, and a clock.
//!
//! Firmware asks through it; a machine, a model of one or another program's bus answers. It lies
//! here, with the register names, so that neither side has to know the other.
//!
//! **Invariant**: every access is an aligned 32-bit one, but for the mailbox's Command register,
//! which is written whole. Nothing here can fail: hardware that is not there reads all-ones, and
//! whoever asks judges what it read.

use crate::access::Register;

/// Reads and writes aligned dwords by physical address.
///
/// Configuration space (through ECAM), BARs and host bridge registers all go through it, and so does
/// the memory behind the windows while firmware probes it, which has to be reached past the
/// processor's caches. What is not there reads `0xffff_ffff` and swallows writes. An implementation
/// must perform each access exactly once, as one 32-bit transaction, in program order.
pub trait Mmio {
    /// Reads the dword at `address`, a multiple of 4.
    fn read(&mut self, address: u64) -> u32;
    /// Writes the dword at `address`, a multiple of 4.
    fn write(&mut self, address: u64, value: u32);
    /// Writes the 64-bit register at `address`, a multiple of 8. CXL device registers take it as
    /// two dwords too (CXL r3.1 section 8.2.8); QEMU's mailbox drops those and takes one store of
    /// eight bytes. Where the processor has such a store, an implementation does well to use it.
    fn write_qword(&mut self, address: u64, value: u64) {
        self.write(address, value as u32);
        self.write(address.wrapping_add(4), (value >> 32) as u32);
    }
}

impl<T: Mmio + ?Sized> Mmio for &mut T {
    fn read(&mut self, address: u64) -> u32 {
        (**self).read(address)
    }
    fn write(&mut self, address: u64, value: u32) {
        (**self).write(address, value);
    }
    fn write_qword(&mut self, address: u64, value: u64) {
        (**self).write_qword(address, value);
    }
}

/// Time, for waits that must end. Any monotonic source will do.
///
/// Waits are bounded by a number of polls as well, so a clock that stands still cannot hang them.
pub trait Clock {
    /// Microseconds since some fixed moment.
    fn microseconds(&mut self) -> u64;
}

impl<T: Clock + ?Sized> Clock for &mut T {
    fn microseconds(&mut self) -> u64 {
        (**self).microseconds()
    }
}

/// A block of registers at a physical address: registers are named by type, never by offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block(
    /// Physical address of the block's first byte.
    pub u64,
);

impl Block {
    /// Physical address of the dword that holds `R`.
    pub fn address<R: Register>(self) -> u64 {
        self.0.wrapping_add(u64::from(R::SPEC.offset)) & !3
    }

    /// Reads one register out of its dword.
    pub fn read<R: Register>(self, hw: &mut impl Mmio) -> R {
        let dword = hw.read(self.address::<R>());
        R::from_raw(dword >> (8 * (u32::from(R::SPEC.offset) & 3)))
    }

    /// Writes a register that fills its dword. Narrower ones share theirs with a neighbour whose
    /// write-1-to-clear bits must not be touched, so writing one alone is not offered here.
    pub fn write<R: Register>(self, hw: &mut impl Mmio, value: R) {
        const { assert!(R::SPEC.bytes == 4, "a narrower register shares its dword") };
        hw.write(self.address::<R>(), value.raw());
    }
}
