//! What the VMM hands over: the PVH start-info with its memory map and command line.
//!
//! **Invariant**: read once, copied out of memory that the map does not protect, and bounded: a
//! command line or map that is longer than there is room for is cut, never followed.

use heapless::{String, Vec};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// `hvm_start_info`, version 1.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Wire {
    magic: U32,
    version: U32,
    flags: U32,
    modules: U32,
    module_list: U64,
    command_line: U64,
    rsdp: U64,
    memory_map: U64,
    memory_map_entries: U32,
    reserved: U32,
}

const MAGIC: u32 = 0x336E_C578;

/// One range of the memory map.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Range {
    base: U64,
    size: U64,
    kind: U32,
    reserved: U32,
}

impl Range {
    /// First address.
    pub(crate) fn base(&self) -> u64 {
        self.base.get()
    }
    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size.get()
    }
    /// Whether it is usable RAM.
    pub(crate) fn is_ram(&self) -> bool {
        self.kind.get() == 1
    }
}

/// What was handed over.
pub(crate) struct StartInfo {
    pub(crate) command_line: String<512>,
    pub(crate) rsdp: u64,
    pub(crate) memory: Vec<Range, 32>,
}

/// Bytes of physical memory. RAM below 1 GiB is mapped from the start.
///
/// # Safety
/// The range must be RAM, mapped, and not written while the slice lives.
pub(crate) unsafe fn bytes(address: u64, length: usize) -> &'static [u8] {
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(address as *const u8, length) }
}

impl StartInfo {
    /// Reads it; `None` if nothing that can be trusted is there.
    ///
    /// # Safety
    /// `address` is what the VMM passed to the entry.
    pub(crate) unsafe fn read(address: u64) -> Option<Self> {
        // SAFETY: the boot protocol says that a start-info lies there, in RAM.
        let wire = Wire::read_from_bytes(unsafe { bytes(address, size_of::<Wire>()) }).ok()?;
        if wire.magic.get() != MAGIC || wire.version.get() < 1 {
            return None;
        }
        let mut command_line = String::new();
        if wire.command_line.get() != 0 {
            // SAFETY: a NUL-terminated string in RAM; at most as much is read as can be kept, and
            // RAM goes on behind it.
            let text = unsafe { bytes(wire.command_line.get(), command_line.capacity()) };
            let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
            let text = core::str::from_utf8(text.get(..end)?).unwrap_or("");
            let _ = command_line.push_str(text);
        }
        let mut memory = Vec::new();
        for index in 0..u64::from(wire.memory_map_entries.get()).min(32) {
            let at = wire.memory_map.get() + index * size_of::<Range>() as u64;
            // SAFETY: an entry of the table that the start-info names.
            let range = Range::read_from_bytes(unsafe { bytes(at, size_of::<Range>()) }).ok()?;
            let _ = memory.push(range);
        }
        Some(Self { command_line, rsdp: wire.rsdp.get(), memory })
    }

    /// The value of `key=value` on the command line.
    pub(crate) fn option(&self, key: &str) -> Option<&str> {
        self.command_line
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// Whether the word stands on the command line.
    pub(crate) fn has(&self, word: &str) -> bool {
        self.command_line.split_ascii_whitespace().any(|found| found == word)
    }
}
