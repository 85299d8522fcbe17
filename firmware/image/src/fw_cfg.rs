//! QEMU's fw_cfg device: named files from the host, through its DMA interface
//! (QEMU `docs/specs/fw_cfg.rst`).
//!
//! **Invariant**: a transfer goes to memory that the caller owns, is as long as the caller says, and
//! is waited for within a budget; what the device says of itself is never trusted with a length.

use core::fmt;
use core::mem::offset_of;

use cxl_firmware::mmio::Clock;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::hw::Counter;
use crate::port;

/// The high half of the DMA address register; the low half is 4 behind, and writing it starts.
const DMA: u16 = 0x514;
/// What the register reads as where there is one: the first half of "QEMU CFG".
const SIGNATURE: u32 = u32::from_be_bytes(*b"QEMU");
/// The item that lists the others.
const DIRECTORY: u16 = 0x19;
/// The most files that are looked through. QEMU has room for fewer than 100.
const MAX_FILES: u32 = 512;
/// Longest a transfer may take. QEMU does it before the store returns.
const BUDGET_US: u64 = 5_000_000;

const ERROR: u32 = 1;
const READ: u32 = 1 << 1;
const SKIP: u32 = 1 << 2;
const SELECT: u32 = 1 << 3;

/// One transfer, as the device reads it.
#[derive(IntoBytes, Immutable)]
#[repr(C, align(16))]
struct Transfer {
    control: U32,
    length: U32,
    address: U64,
}

/// One entry of the directory.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry {
    size: U32,
    select: U16,
    reserved: U16,
    name: [u8; 56],
}

const _: () = {
    assert!(offset_of!(Transfer, length) == 4);
    assert!(offset_of!(Transfer, address) == 8);
    assert!(size_of::<Transfer>() == 16);
    assert!(offset_of!(Entry, select) == 4);
    assert!(offset_of!(Entry, name) == 8);
    assert!(size_of::<Entry>() == 64);
};

/// Why a file did not come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FwCfgError {
    /// The device set its error bit.
    Refused { item: u16 },
    /// The transfer did not end.
    Timeout { item: u16 },
    /// The directory claims more files than can be.
    Directory { count: u32 },
}

impl fmt::Display for FwCfgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Refused { item } => {
                write!(f, "fw_cfg: the device refuses a transfer of item {item:#x}")
            }
            Self::Timeout { item } => write!(
                f,
                "fw_cfg: a transfer of item {item:#x} did not end within {} s",
                BUDGET_US / 1_000_000
            ),
            Self::Directory { count } => {
                write!(f, "fw_cfg: {count} files listed, at most {MAX_FILES} can be")
            }
        }
    }
}

/// A file that the host offers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct File {
    select: u16,
    /// Its length as the directory has it.
    pub(crate) size: u32,
}

/// Whether the machine has the device, with DMA.
pub(crate) fn is_there() -> bool {
    port::in32(DMA).swap_bytes() == SIGNATURE
}

/// The device.
pub(crate) struct FwCfg {
    clock: Counter,
}

impl FwCfg {
    /// The device, if the machine has one with DMA.
    pub(crate) fn find(clock: Counter) -> Option<Self> {
        is_there().then_some(Self { clock })
    }

    /// The file of this name.
    pub(crate) fn file(&mut self, name: &str) -> Result<Option<File>, FwCfgError> {
        let mut count = U32::ZERO;
        self.transfer(DIRECTORY, SELECT | READ, count.as_mut_bytes())?;
        let count = count.get();
        if count > MAX_FILES {
            return Err(FwCfgError::Directory { count });
        }
        for _ in 0..count {
            let mut entry = Entry::new_zeroed();
            self.transfer(DIRECTORY, READ, entry.as_mut_bytes())?;
            let end = entry.name.iter().position(|byte| *byte == 0).unwrap_or(entry.name.len());
            if entry.name.get(..end) == Some(name.as_bytes()) {
                return Ok(Some(File { select: entry.select.get(), size: entry.size.get() }));
            }
        }
        Ok(None)
    }

    /// Reads the file from `offset` on into `bytes`. What lies behind its end reads as zeros.
    pub(crate) fn read(
        &mut self,
        file: File,
        offset: u32,
        bytes: &mut [u8],
    ) -> Result<(), FwCfgError> {
        self.start(file.select, SELECT | SKIP, offset, 0)?;
        self.transfer(file.select, READ, bytes)
    }

    fn transfer(&mut self, item: u16, control: u32, bytes: &mut [u8]) -> Result<(), FwCfgError> {
        // The lengths of the protocol have 32 bits, and so has every file.
        self.start(item, control, bytes.len() as u32, bytes.as_mut_ptr() as u64)
    }

    /// One transfer. `address` is memory that the caller lends out for it, identity mapped.
    fn start(
        &mut self,
        item: u16,
        control: u32,
        length: u32,
        address: u64,
    ) -> Result<(), FwCfgError> {
        let select = if control & SELECT != 0 { u32::from(item) << 16 } else { 0 };
        let mut transfer = Transfer {
            control: (select | control).into(),
            length: length.into(),
            address: address.into(),
        };
        // The device writes to its first dword.
        let at = (&raw mut transfer).cast::<U32>();
        port::out32(DMA, ((at as u64 >> 32) as u32).swap_bytes());
        port::out32(DMA + 4, (at as u64 as u32).swap_bytes());
        let deadline = self.clock.microseconds().saturating_add(BUDGET_US);
        loop {
            // SAFETY: the first dword of `transfer`, which lives on this stack.
            let control = unsafe { core::ptr::read_volatile(at) }.get();
            if control & ERROR != 0 {
                return Err(FwCfgError::Refused { item });
            }
            if control == 0 {
                return Ok(());
            }
            if self.clock.microseconds() > deadline {
                return Err(FwCfgError::Timeout { item });
            }
            core::hint::spin_loop();
        }
    }
}
