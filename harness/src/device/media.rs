//! A device's memory, by device physical address.
//!
//! **Invariant**: bytes never written read 0 and cost nothing, so a device may be 1 TiB.

use cxl_regs::{Dpa, Span};

use crate::backing::Backing;

/// Volatile memory at DPA 0, persistent memory behind it.
#[derive(Debug)]
pub struct Media {
    volatile: u64,
    persistent: u64,
    backing: Backing,
}

impl Media {
    /// Memory of these sizes, all 0.
    pub fn new(volatile: u64, persistent: u64) -> Self {
        let backing = Backing::new(volatile.saturating_add(persistent));
        Self { volatile, persistent, backing }
    }

    /// The host memory behind it, DPA 0 first.
    pub fn backing(&self) -> &Backing {
        &self.backing
    }

    /// Bytes of the volatile partition.
    pub fn volatile(&self) -> u64 {
        self.volatile
    }

    /// Bytes of the persistent partition.
    pub fn persistent(&self) -> u64 {
        self.persistent
    }

    /// Bytes of both.
    pub fn size(&self) -> u64 {
        self.volatile.saturating_add(self.persistent)
    }

    /// Whether memory lies behind all of `length` bytes from an address on.
    pub fn holds(&self, dpa: Dpa, length: u64) -> bool {
        match Span::new(dpa, length) {
            Ok(span) => span.end().0 <= self.size(),
            Err(_) => false,
        }
    }

    /// Reads; `false` and nothing read if memory does not lie behind all of it.
    #[must_use]
    pub fn read(&self, dpa: Dpa, bytes: &mut [u8]) -> bool {
        self.backing.read(dpa.0, bytes)
    }

    /// Writes; `false` and nothing written if memory does not lie behind all of it.
    #[must_use]
    pub fn write(&mut self, dpa: Dpa, bytes: &[u8]) -> bool {
        self.backing.write(dpa.0, bytes)
    }

    /// Forgets the volatile partition.
    pub fn forget_volatile(&mut self) {
        self.backing.forget(self.volatile);
    }
}
