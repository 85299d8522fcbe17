//! Host memory that stands in for a device's media: sparse, zero until written, and of a kind that
//! a virtual machine can map.
//!
//! **Invariant**: the host address of a backing never changes while anybody holds it, and pages
//! that nobody touched cost nothing, so a device may be 1 TiB.

use std::sync::Arc;

use vm_memory::{MmapRegion, VolatileMemory};

/// Anonymous memory, shared by whoever holds it.
#[derive(Clone, Debug)]
pub struct Backing {
    region: Option<Arc<MmapRegion>>,
}

impl Backing {
    /// Memory of `size` bytes, all zero. Where the host refuses even to reserve the addresses, the
    /// backing has no bytes and every access to it misses.
    pub fn new(size: u64) -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE;
        let region = usize::try_from(size)
            .ok()
            .filter(|&size| size != 0)
            .and_then(|size| MmapRegion::build(None, size, protection, flags).ok());
        if let Some(region) = &region {
            advise_huge(region);
        }
        Self { region: region.map(Arc::new) }
    }

    /// The memory itself, for a virtual machine to map.
    pub fn region(&self) -> Option<&Arc<MmapRegion>> {
        self.region.as_ref()
    }

    /// Reads; `false` and nothing read if not all of it lies inside.
    #[must_use]
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> bool {
        let slice = self.slice(offset, bytes.len());
        slice.map(|slice| slice.copy_to(bytes)).is_some()
    }

    /// Writes; `false` and nothing written if not all of it lies inside.
    #[must_use]
    pub fn write(&self, offset: u64, bytes: &[u8]) -> bool {
        let slice = self.slice(offset, bytes.len());
        slice.map(|slice| slice.copy_from(bytes)).is_some()
    }

    fn slice(&self, offset: u64, length: usize) -> Option<vm_memory::VolatileSlice<'_>> {
        self.region.as_ref()?.get_slice(usize::try_from(offset).ok()?, length).ok()
    }

    /// Zeroes the first `size` bytes and gives their pages back to the host.
    pub fn forget(&self, size: u64) {
        if let Some(region) = &self.region {
            forget(region, 0, size);
        }
    }
}

/// Zeroes a range of memory that a guest may be using and gives its pages back to the host.
pub(crate) fn forget(memory: &MmapRegion, offset: u64, length: u64) {
    let whole = memory.size() as u64;
    let offset = offset.min(whole);
    let length = length.min(whole - offset);
    // SAFETY: the range lies inside a private anonymous mapping that `memory` owns. Its bytes are
    // only ever reached through volatile accesses or by a guest, to whom it is memory that lost its
    // contents.
    unsafe {
        libc::madvise(
            memory.as_ptr().wrapping_add(offset as usize).cast(),
            length as usize,
            libc::MADV_DONTNEED,
        )
    };
}

/// Asks for huge pages behind a mapping; the host may decline.
pub(crate) fn advise_huge(memory: &MmapRegion) {
    // SAFETY: advice about a mapping that `memory` owns; it changes no contents.
    unsafe { libc::madvise(memory.as_ptr().cast(), memory.size(), libc::MADV_HUGEPAGE) };
}
