//! The firmware's map of the address space (UEFI PI, volume 2, DXE services): what is mapped while the
//! library works, and which memory it has afterwards.
//!
//! **Invariant**: what the map has as something else stays as it is; what was added for the library is
//! taken out again before any of it is given as memory.

use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr;

use cxl_regs::{Hpa, Span};
use cxl_uefi::given;
use uefi::Status;
use uefi::system;
use uefi::table::cfg::ConfigTableEntry;

use crate::Refused;
use crate::hw::CACHED;

/// Bits of the attributes: uncached, write-back, and specific-purpose.
const UC: u64 = 1;
const WB: u64 = 8;
const SP: u64 = 0x4_0000;
/// The most pieces of one range.
const MOST_PIECES: usize = 64;

/// `EFI_GCD_MEMORY_TYPE`.
const NON_EXISTENT: u32 = 0;
const SYSTEM_MEMORY: u32 = 2;
const MEMORY_MAPPED_IO: u32 = 3;

/// `EFI_GCD_MEMORY_SPACE_DESCRIPTOR`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Descriptor {
    base: u64,
    length: u64,
    capabilities: u64,
    attributes: u64,
    kind: u32,
    image: *const c_void,
    device: *const c_void,
}

const EMPTY: Descriptor = Descriptor {
    base: 0,
    length: 0,
    capabilities: 0,
    attributes: 0,
    kind: 0,
    image: ptr::null(),
    device: ptr::null(),
};

/// `EFI_DXE_SERVICES` up to what is used of it.
#[repr(C)]
struct Services {
    header: [u64; 3],
    add_memory_space: unsafe extern "efiapi" fn(u32, u64, u64, u64) -> Status,
    allocate_memory_space: *const c_void,
    free_memory_space: *const c_void,
    remove_memory_space: unsafe extern "efiapi" fn(u64, u64) -> Status,
    get_memory_space_descriptor: unsafe extern "efiapi" fn(u64, *mut Descriptor) -> Status,
    set_memory_space_attributes: unsafe extern "efiapi" fn(u64, u64, u64) -> Status,
}

/// The services, and what was added.
pub(crate) struct Space {
    services: &'static Services,
    added: Vec<Span>,
}

fn done(span: Span, what: &'static str, status: Status) -> Result<(), Refused> {
    if status.is_success() { Ok(()) } else { Err(Refused::Range(span, what, status)) }
}

impl Space {
    /// Of this firmware.
    pub(crate) fn new() -> Result<Self, Refused> {
        let guid = ConfigTableEntry::DXE_SERVICES_GUID;
        let found = system::with_config_table(|tables| {
            tables.iter().find(|entry| entry.guid == guid).map(|entry| entry.address)
        });
        let missing = Refused::Firmware("DXE services", Status::NOT_FOUND);
        let table = found.filter(|table| !table.is_null()).ok_or(missing)?;
        // SAFETY: the firmware's table of this GUID, which lasts until boot services end.
        let services = unsafe { &*table.cast::<Services>() };
        Ok(Self { services, added: Vec::new() })
    }

    fn descriptor(&self, at: u64) -> Option<Descriptor> {
        let mut found = EMPTY;
        // SAFETY: the service fills in the place that it is given.
        let status = unsafe { (self.services.get_memory_space_descriptor)(at, &mut found) };
        (status.is_success() && found.length != 0).then_some(found)
    }

    /// How many bits of address the map has.
    pub(crate) fn address_bits(&self) -> u8 {
        let reached = |bits: &u8| self.descriptor((1 << *bits) - 1).is_some();
        (32..=52).rev().find(reached).unwrap_or(32)
    }

    /// Makes a window reachable, and past the caches where that is how windows are reached.
    pub(crate) fn window(&mut self, span: Span) -> Result<(), Refused> {
        self.reach(span, if CACHED { WB } else { UC })
    }

    /// Makes registers reachable, uncached.
    pub(crate) fn registers(&mut self, span: Span) -> Result<(), Refused> {
        self.reach(span, UC)
    }

    /// What the map has nothing of is added, and what it has, but not yet mapped, is mapped.
    fn reach(&mut self, span: Span, how: u64) -> Result<(), Refused> {
        let (mut at, end) = (span.base().0, span.end().0);
        for _ in 0..MOST_PIECES {
            if at >= end {
                return Ok(());
            }
            let missing = Refused::Range(span, "a place in the map", Status::UNSUPPORTED);
            let piece = self.descriptor(at).ok_or(missing)?;
            let behind = piece.base.saturating_add(piece.length).min(end);
            let this = Span::new(Hpa(at), behind.saturating_sub(at)).map_err(|_| {
                Refused::Range(span, "the map's own description", Status::COMPROMISED_DATA)
            })?;
            if piece.kind == NON_EXISTENT {
                let (base, size) = (this.base().0, this.size());
                // SAFETY: nothing is there for the firmware.
                let status = unsafe {
                    (self.services.add_memory_space)(MEMORY_MAPPED_IO, base, size, UC | WB)
                };
                done(this, "a place in the map", status)?;
                self.added.push(this);
                self.set(this, how)?;
            } else if piece.kind == MEMORY_MAPPED_IO
                && piece.attributes & (UC | WB) == 0
                && piece.capabilities & how != 0
            {
                self.set(this, how)?;
            }
            at = behind;
        }
        Err(Refused::Range(span, "at most 64 pieces in the map", Status::OUT_OF_RESOURCES))
    }

    fn set(&self, span: Span, how: u64) -> Result<(), Refused> {
        let what = if how == UC { "mapped uncached" } else { "mapped write-back" };
        let (base, size) = (span.base().0, span.size());
        // SAFETY: how a range is cached that nobody uses but this program.
        let status = unsafe { (self.services.set_memory_space_attributes)(base, size, how) };
        // Too few range registers for what is to be as memory is: it stays as the firmware has it.
        if how == WB && status == Status::OUT_OF_RESOURCES {
            return Ok(());
        }
        done(span, what, status)
    }

    /// Takes out of the map what was added for the library.
    pub(crate) fn leave(&mut self) -> Result<(), Refused> {
        for span in core::mem::take(&mut self.added) {
            let (base, size) = (span.base().0, span.size());
            // SAFETY: added by this program, and used by nobody any more.
            let status = unsafe { (self.services.remove_memory_space)(base, size) };
            done(span, "taken out of the map", status)?;
        }
        Ok(())
    }

    /// Gives a range to the memory map, for a purpose of its own.
    pub(crate) fn give(&mut self, span: Span) -> Result<(), Status> {
        let (base, size) = (span.base().0, span.size());
        // An earlier run of this program may have given it.
        let has = self.descriptor(base).is_some_and(|piece| {
            let whole = piece.base.saturating_add(piece.length) >= span.end().0;
            piece.kind == SYSTEM_MEMORY && piece.capabilities & SP != 0 && whole
        });
        if has {
            return Ok(());
        }
        // SAFETY: memory that was verified, which nobody uses.
        let status = unsafe {
            (self.services.add_memory_space)(SYSTEM_MEMORY, base, size, given::ATTRIBUTES)
        };
        if !status.is_success() {
            return Err(status);
        }
        // How the firmware itself reaches it; an operating system goes by the map's attributes.
        let _ = self.set(span, WB);
        Ok(())
    }
}
