//! Memory slots: a cache of what KVM was told, changed by differences.
//!
//! **Invariant**: what KVM maps is exactly [`Slots::mapped`]; nothing is asked of KVM that it
//! already does, and a range is taken away before its successor is put there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::again;
use cxl_model::kept::Kept;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MmapRegion};

/// A range of guest addresses backed by host memory.
#[derive(Clone, Debug)]
pub struct Slot {
    /// First guest address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// The memory; kept alive while the slot exists.
    pub memory: Arc<MmapRegion>,
    /// Where in the memory the range starts.
    pub offset: u64,
    /// Reads go to memory, writes exit.
    pub read_only: bool,
}

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        self.base == other.base
            && self.size == other.size
            && Arc::ptr_eq(&self.memory, &other.memory)
            && self.offset == other.offset
            && self.read_only == other.read_only
    }
}

/// Why a slot could not be set.
#[derive(Debug)]
pub enum SlotError {
    /// KVM refused.
    Refused {
        /// First guest address.
        base: u64,
        /// Bytes; 0 for a removal.
        size: u64,
        /// What KVM said.
        error: kvm_ioctls::Error,
    },
    /// All slots are taken.
    Exhausted {
        /// How many there are.
        have: usize,
    },
    /// The range does not lie inside the memory that is to back it.
    OutsideMemory {
        /// First guest address.
        base: u64,
        /// Bytes asked for.
        size: u64,
        /// Bytes of memory from the offset on.
        have: u64,
    },
}

impl std::fmt::Display for SlotError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { base, size, error } => {
                write!(f, "KVM refused a slot at {base:#x} of {size:#x} bytes: {error}")
            }
            Self::Exhausted { have } => write!(f, "all {have} memory slots are taken"),
            Self::OutsideMemory { base, size, have } => {
                write!(f, "slot at {base:#x}: {size:#x} bytes of a memory that has {have:#x}")
            }
        }
    }
}

impl std::error::Error for SlotError {}

/// One call to KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A range appeared.
    Add {
        /// First guest address.
        base: u64,
        /// Bytes.
        size: u64,
    },
    /// A range disappeared.
    Remove {
        /// First guest address.
        base: u64,
    },
}

/// The slots of one virtual machine.
pub struct Slots {
    /// By guest address: slots do not overlap.
    mapped: BTreeMap<u64, (u32, Slot)>,
    free: Vec<u32>,
    next: u32,
    limit: usize,
    log: Kept<Call, MOST_SLOT_CALLS>,
}

/// Calls that are kept: a guest can cause them without end.
pub const MOST_SLOT_CALLS: usize = 1 << 16;

impl Slots {
    /// No slots; KVM offers `limit`.
    pub(super) fn new(limit: usize) -> Self {
        Self { mapped: BTreeMap::new(), free: Vec::new(), next: 0, limit, log: Kept::new() }
    }

    /// Slots that exist besides RAM's, with their numbers.
    pub fn mapped(&self) -> impl Iterator<Item = &Slot> {
        self.mapped.values().map(|(_, slot)| slot)
    }

    /// How many more slots there can be.
    pub fn available(&self) -> usize {
        (self.limit + self.free.len()).saturating_sub(self.next as usize)
    }

    /// Every call so far besides RAM's, in order.
    pub fn log(&self) -> &Kept<Call, MOST_SLOT_CALLS> {
        &self.log
    }

    /// RAM, for the life of the machine.
    pub(super) fn add_ram(&mut self, vm: &VmFd, ram: &GuestMemoryMmap) -> Result<(), SlotError> {
        use vm_memory::Address;
        for region in ram.iter() {
            let id = self.take_id()?;
            let (base, size) = (region.start_addr().raw_value(), region.len());
            let host = region.as_ptr() as u64;
            // SAFETY: `Vm` owns both the RAM and the VM, and drops the VM first.
            unsafe { set(vm, id, base, size, host, false) }?;
        }
        Ok(())
    }

    fn take_id(&mut self) -> Result<u32, SlotError> {
        if let Some(id) = self.free.pop() {
            return Ok(id);
        }
        if self.next as usize >= self.limit {
            return Err(SlotError::Exhausted { have: self.limit });
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    /// Removes what is not wanted, then adds what is missing. Returns the number of calls.
    ///
    /// `want` must not overlap within itself nor with RAM. On an error what KVM has is what
    /// [`Slots::mapped`] says.
    pub(super) fn apply(&mut self, vm: &VmFd, want: &[Slot]) -> Result<usize, SlotError> {
        let before = self.log.total();
        let wanted: BTreeMap<u64, &Slot> = want.iter().map(|slot| (slot.base, slot)).collect();
        let stale = |base: &u64, slot: &Slot| wanted.get(base).is_none_or(|want| *want != slot);
        let gone: Vec<u64> = self
            .mapped
            .iter()
            .filter(|(base, (_, slot))| stale(base, slot))
            .map(|(base, _)| *base)
            .collect();
        for base in gone {
            let Some(id) = self.mapped.get(&base).map(|(id, _)| *id) else { continue };
            // SAFETY: size 0 takes the slot away; no memory is named.
            unsafe { set(vm, id, base, 0, 0, false) }?;
            self.log.push(Call::Remove { base });
            self.free.push(id);
            self.mapped.remove(&base);
        }
        for (base, slot) in wanted {
            if self.mapped.contains_key(&base) {
                continue;
            }
            let have = (slot.memory.size() as u64).saturating_sub(slot.offset);
            if slot.size > have {
                return Err(SlotError::OutsideMemory { base, size: slot.size, have });
            }
            let id = self.take_id()?;
            let host = slot.memory.as_ptr() as u64 + slot.offset;
            // SAFETY: the range lies inside the mapping, which `mapped` keeps alive until the
            // slot has been removed.
            let added = unsafe { set(vm, id, base, slot.size, host, slot.read_only) };
            if let Err(error) = added {
                self.free.push(id);
                return Err(error);
            }
            self.log.push(Call::Add { base, size: slot.size });
            self.mapped.insert(base, (id, slot.clone()));
        }
        Ok((self.log.total() - before) as usize)
    }

    /// Adds slots and takes them away again, without a note of it; the time of the additions.
    pub(super) fn add_bare(&mut self, vm: &VmFd, slots: &[Slot]) -> Result<Duration, SlotError> {
        let ids: Vec<u32> = slots.iter().map(|_| self.take_id()).collect::<Result<_, _>>()?;
        let start = Instant::now();
        for (id, slot) in ids.iter().zip(slots) {
            let host = slot.memory.as_ptr() as u64 + slot.offset;
            // SAFETY: `slot` keeps the memory alive, and the slot is removed below.
            unsafe { set(vm, *id, slot.base, slot.size, host, slot.read_only) }?;
        }
        let time = start.elapsed();
        for (id, slot) in ids.iter().zip(slots) {
            // SAFETY: size 0 takes the slot away; no memory is named.
            unsafe { set(vm, *id, slot.base, 0, 0, false) }?;
        }
        self.free.extend(ids);
        Ok(time)
    }
}

/// # Safety
/// The host range must stay valid until the slot is set again or the VM is gone.
unsafe fn set(
    vm: &VmFd,
    id: u32,
    base: u64,
    size: u64,
    host: u64,
    read_only: bool,
) -> Result<(), SlotError> {
    let region = kvm_userspace_memory_region {
        slot: id,
        flags: if read_only { kvm_bindings::KVM_MEM_READONLY } else { 0 },
        guest_phys_addr: base,
        memory_size: size,
        userspace_addr: host,
    };
    // SAFETY: the caller's promise.
    let set = again(|| unsafe { vm.set_user_memory_region(region) });
    set.map_err(|error| SlotError::Refused { base, size, error })
}
