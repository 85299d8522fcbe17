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
        let mut at = dpa.0;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at_mut(in_page(at, rest.len()));
            let start = (at % PAGE) as usize;
            match self.pages.get(&(at / PAGE)).and_then(|p| p.get(start..start + chunk.len())) {
                Some(page) => chunk.copy_from_slice(page),
                None => chunk.fill(0),
            }
            at += chunk.len() as u64;
            rest = behind;
        }
        true
    }

    /// Writes; `false` and nothing written if memory does not lie behind all of it.
    #[must_use]
    pub fn write(&mut self, dpa: Dpa, bytes: &[u8]) -> bool {
        if !self.holds(dpa, bytes.len() as u64) {
            return false;
        }
        let mut at = dpa.0;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at(in_page(at, rest.len()));
            let start = (at % PAGE) as usize;
            let empty = || vec![0; PAGE as usize].into_boxed_slice();
            let page = self.pages.entry(at / PAGE).or_insert_with(empty);
            if let Some(page) = page.get_mut(start..start + chunk.len()) {
                page.copy_from_slice(chunk);
            }
            at += chunk.len() as u64;
            rest = behind;
        }
        true
    }

    /// Forgets the volatile partition.
    pub fn forget_volatile(&mut self) {
        // Partitions are multiples of 256 MiB, so no page is in both.
        self.pages = self.pages.split_off(&self.volatile.div_ceil(PAGE));
    }
}

/// How many of `length` bytes from an address on lie in one page.
fn in_page(at: u64, length: usize) -> usize {
    length.min((PAGE - at % PAGE) as usize)
}
