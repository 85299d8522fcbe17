//! What the VMM hands over: the PVH start-info with its command line, its modules, the memory map
//! and the RSDP.
//!
//! **Invariant**: read once, copied out of memory that the map does not protect, and bounded: lists
//! are cut where there is no more room. A command line is whole or none: half a policy is another.

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

/// `hvm_modlist_entry`.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct WireModule {
    base: U64,
    size: U64,
    command_line: U64,
    reserved: U64,
}

/// `hvm_memmap_table_entry`.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct WireMemory {
    base: U64,
    size: U64,
    kind: U32,
    reserved: U32,
}

const MAGIC: u32 = 0x336E_C578;

/// The longest command line.
pub(crate) const LINE_ROOM: usize = 2048;

/// The longest memory map.
pub(crate) const MOST_RANGES: usize = 128;

/// A blob that the VMM has put into memory.
#[derive(Clone, Copy)]
pub(crate) struct Module {
    pub(crate) base: u64,
    pub(crate) size: u64,
    /// Address of its command line, 0 for none.
    pub(crate) command_line: u64,
}

/// A range of the memory map; kinds are those of E820.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) base: u64,
    pub(crate) size: u64,
    pub(crate) kind: u32,
}

impl Memory {
    /// Whether memory answers there: RAM, ACPI tables, ACPI's own, RAM with errors.
    pub(crate) fn is_memory(&self) -> bool {
        matches!(self.kind, 1 | 3 | 4 | 5)
    }
}

/// What was handed over.
pub(crate) struct StartInfo {
    /// `None` if it is longer than there is room for, or no text.
    pub(crate) command_line: Option<String<LINE_ROOM>>,
    pub(crate) modules: Vec<Module, 4>,
    pub(crate) memory: Vec<Memory, MOST_RANGES>,
    /// Ranges that the map has, whether or not there was room for them.
    pub(crate) ranges: usize,
    pub(crate) rsdp: u64,
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
        let mut command_line = Some(String::new());
        if wire.command_line.get() != 0 {
            // SAFETY: a NUL-terminated string in RAM; at most as much is read as can be kept and
            // the end of it, and RAM goes on behind it.
            let text = unsafe { bytes(wire.command_line.get(), LINE_ROOM + 1) };
            let end = text.iter().position(|byte| *byte == 0);
            let text = end.and_then(|end| core::str::from_utf8(text.get(..end)?).ok());
            command_line = text.and_then(|text| String::try_from(text).ok());
        }
        let mut modules = Vec::new();
        for index in 0..u64::from(wire.modules.get()).min(modules.capacity() as u64) {
            let at = wire.module_list.get().checked_add(index * size_of::<WireModule>() as u64)?;
            // SAFETY: the list is as long as the start-info says, in RAM.
            let bytes = unsafe { bytes(at, size_of::<WireModule>()) };
            let module = WireModule::read_from_bytes(bytes).ok()?;
            let (base, size) = (module.base.get(), module.size.get());
            let command_line = module.command_line.get();
            modules.push(Module { base, size, command_line }).ok()?;
        }
        let mut memory = Vec::new();
        for index in 0..u64::from(wire.memory_map_entries.get()).min(memory.capacity() as u64) {
            let at = wire.memory_map.get().checked_add(index * size_of::<WireMemory>() as u64)?;
            // SAFETY: as above.
            let bytes = unsafe { bytes(at, size_of::<WireMemory>()) };
            let entry = WireMemory::read_from_bytes(bytes).ok()?;
            let (base, size) = (entry.base.get(), entry.size.get());
            memory.push(Memory { base, size, kind: entry.kind.get() }).ok()?;
        }
        let ranges = wire.memory_map_entries.get() as usize;
        Some(Self { command_line, modules, memory, ranges, rsdp: wire.rsdp.get() })
    }
}
