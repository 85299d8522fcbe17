//! A device's memory, by device physical address.
//!
//! **Invariant**: bytes never written read 0 and cost nothing, so a device may be 1 TiB.

use std::collections::BTreeMap;

use cxl_regs::{Dpa, Span};

const PAGE: u64 = 4096;

/// Volatile memory at DPA 0, persistent memory behind it.
#[derive(Clone, Debug, Default)]
pub struct Media {
    volatile: u64,
    persistent: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Media {
    /// Memory of these sizes, all 0.
    pub fn new(volatile: u64, persistent: u64) -> Self {
        Self { volatile, persistent, pages: BTreeMap::new() }
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

    /// Number of 4 KiB pages that hold something.
    pub fn touched(&self) -> usize {
        self.pages.len()
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
        if !self.holds(dpa, bytes.len() as u64) {
            return false;
        }
        for (at, byte) in (dpa.0..).zip(bytes) {
            let page = self.pages.get(&(at / PAGE));
            *byte = page.and_then(|page| page.get((at % PAGE) as usize)).copied().unwrap_or(0);
        }
        true
    }

    /// Writes; `false` and nothing written if memory does not lie behind all of it.
    #[must_use]
    pub fn write(&mut self, dpa: Dpa, bytes: &[u8]) -> bool {
        if !self.holds(dpa, bytes.len() as u64) {
            return false;
        }
        for (at, &byte) in (dpa.0..).zip(bytes) {
            let empty = || vec![0; PAGE as usize].into_boxed_slice();
            let page = self.pages.entry(at / PAGE).or_insert_with(empty);
            if let Some(cell) = page.get_mut((at % PAGE) as usize) {
                *cell = byte;
            }
        }
        true
    }

    /// Forgets the volatile partition.
    pub fn forget_volatile(&mut self) {
        // Partitions are multiples of 256 MiB, so no page is in both.
        self.pages = self.pages.split_off(&self.volatile.div_ceil(PAGE));
    }
}
