//! A device's memory, by device physical address.
//!
//! While a set is laid out in the order of host addresses, its members have lent it their part: the
//! bytes are in the set's memory then, and every access here finds them there. Nobody who reads or
//! writes by DPA can tell.
//!
//! **Invariant**: bytes never written read 0 and cost nothing, so a device may be 1 TiB. A byte that
//! is lent is in one place only, the set's memory; what the device's own memory has there is
//! nobody's business.

use std::ops::Range;
use std::sync::Arc;

use cxl_regs::{Dpa, Span};

use crate::backing::Backing;
use crate::set::{SetMemory, Share};

/// Volatile memory at DPA 0, persistent memory behind it.
#[derive(Debug)]
pub struct Media {
    /// The host memory of both, which may be of different kinds.
    volatile: Backing,
    persistent: Backing,
    sizes: [u64; 2],
    /// In order of DPA.
    lent: Vec<Lent>,
}

/// A part that a set has.
#[derive(Debug)]
struct Lent {
    part: Range<u64>,
    position: u32,
    set: Arc<SetMemory>,
}

/// A run of bytes that follow one another in host memory too.
struct Run<'a> {
    memory: &'a Backing,
    offset: u64,
    length: u64,
}

impl Media {
    /// Memory of these sizes, all 0.
    pub fn new(volatile: u64, persistent: u64) -> Self {
        Self {
            volatile: Backing::new(volatile),
            persistent: Backing::new(persistent),
            sizes: [volatile, persistent],
            lent: Vec::new(),
        }
    }

    /// The capacities, and no memory behind them: every access misses.
    pub(crate) fn without_memory(&self) -> Self {
        let none = || Backing::new(0);
        Self { volatile: none(), persistent: none(), sizes: self.sizes, lent: Vec::new() }
    }

    /// The same memory once more: what is written to either is in both. `None` while a set has some.
    pub(crate) fn shared(&self) -> Option<Self> {
        let Self { volatile, persistent, sizes, lent } = self;
        let (volatile, persistent) = (volatile.clone(), persistent.clone());
        lent.is_empty().then(|| Self { volatile, persistent, sizes: *sizes, lent: Vec::new() })
    }

    /// Bytes of the volatile partition.
    pub fn volatile(&self) -> u64 {
        let [volatile, _] = self.sizes;
        volatile
    }

    /// Bytes of the persistent partition.
    pub fn persistent(&self) -> u64 {
        let [_, persistent] = self.sizes;
        persistent
    }

    /// Bytes of both.
    pub fn size(&self) -> u64 {
        self.volatile().saturating_add(self.persistent())
    }

    /// Whether memory lies behind all of `length` bytes from an address on.
    pub fn holds(&self, dpa: Dpa, length: u64) -> bool {
        match Span::new(dpa, length) {
            Ok(span) => span.end().0 <= self.size(),
            Err(_) => false,
        }
    }

    /// Keeps the persistent partition elsewhere from now on; what it held is lost.
    pub(crate) fn keep_persistent(&mut self, memory: Backing) {
        self.persistent = memory;
    }

    /// The device's own memory for a range within one partition, whether or not it is lent.
    pub(crate) fn share(&self, part: Range<u64>) -> Option<Share> {
        let volatile = self.volatile();
        let (memory, start) = match part.start.checked_sub(volatile) {
            None if part.end <= volatile => (&self.volatile, part.start),
            None => return None,
            Some(start) => (&self.persistent, start),
        };
        let fits = start.checked_add(part.end - part.start).is_some_and(|end| end <= memory.size());
        fits.then(|| Share { memory: memory.clone(), start })
    }

    /// The same, if no byte of it is lent: host memory in the order of DPA.
    pub fn in_order(&self, dpa: Dpa, length: u64) -> Option<Share> {
        let part = dpa.0..dpa.0.checked_add(length)?;
        if self.is_lent(&part) { None } else { self.share(part) }
    }

    /// Whether a set has any of it.
    pub fn is_lent(&self, part: &Range<u64>) -> bool {
        self.lent.iter().any(|lent| lent.part.start < part.end && part.start < lent.part.end)
    }

    /// Lends a set the part that is its member at `position`. The bytes are there already.
    pub(crate) fn lend(&mut self, part: Range<u64>, position: u32, set: &Arc<SetMemory>) {
        self.lent.push(Lent { part, position, set: Arc::clone(set) });
        self.lent.sort_by_key(|lent| lent.part.start);
    }

    /// Takes back what a set has. The bytes are back already.
    pub(crate) fn take_back(&mut self, set: &Arc<SetMemory>) {
        self.lent.retain(|lent| !Arc::ptr_eq(&lent.set, set));
    }

    /// The longest run from an address on, `most` bytes at most.
    fn run(&self, dpa: u64, most: u64) -> Option<Run<'_>> {
        let next = self.lent.iter().find(|lent| dpa < lent.part.end);
        if let Some(Lent { part, position, set }) = next.filter(|lent| lent.part.contains(&dpa)) {
            let (offset, length) = set.layout.offset(*position, dpa - part.start)?;
            return Some(Run { memory: &set.memory, offset, length: length.min(most) });
        }
        let volatile = self.volatile();
        let (memory, offset, end) = match dpa.checked_sub(volatile) {
            None => (&self.volatile, dpa, volatile),
            Some(offset) => (&self.persistent, offset, self.size()),
        };
        let end = next.map_or(end, |lent| lent.part.start.min(end));
        let length = end.checked_sub(dpa).filter(|length| *length != 0)?;
        Some(Run { memory, offset, length: length.min(most) })
    }

    /// Reads; `false` if memory does not lie behind all of it.
    #[must_use]
    pub fn read(&self, dpa: Dpa, bytes: &mut [u8]) -> bool {
        let length = bytes.len() as u64;
        let mut rest = bytes;
        self.each(dpa, length, |Run { memory, offset, length }| {
            let (now, behind) = std::mem::take(&mut rest).split_at_mut(length as usize);
            rest = behind;
            memory.read(offset, now)
        })
    }

    /// Writes; `false` if memory does not lie behind all of it.
    #[must_use]
    pub fn write(&mut self, dpa: Dpa, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        self.each(dpa, bytes.len() as u64, |Run { memory, offset, length }| {
            let (now, behind) = rest.split_at(length as usize);
            rest = behind;
            memory.write(offset, now)
        })
    }

    /// Does something with each run of a range; `false` as soon as that fails, and without doing
    /// anything if memory does not lie behind all of it.
    fn each(&self, dpa: Dpa, length: u64, mut what: impl FnMut(Run<'_>) -> bool) -> bool {
        if !self.holds(dpa, length) {
            return false;
        }
        let mut done = 0;
        while done < length {
            // A run is never empty.
            let Some(run) = self.run(dpa.0 + done, length - done) else { return false };
            done += run.length;
            if !what(run) {
                return false;
            }
        }
        true
    }

    /// Forgets the volatile partition.
    pub fn forget_volatile(&mut self) {
        let volatile = self.volatile();
        // Anonymous memory can always be given back.
        let _ = self.volatile.forget(0..volatile);
        for lent in self.lent.iter().filter(|lent| lent.part.end <= volatile) {
            let SetMemory { layout, memory } = &*lent.set;
            // If the host does not say what was touched, all of it may have been.
            let all = 0..layout.size();
            let touched = memory.touched(all.clone()).unwrap_or_else(|_| vec![all]);
            for piece in touched.into_iter().flat_map(|range| layout.pieces(range)) {
                if piece.position == lent.position {
                    const ZEROES: [u8; 16 << 10] = [0; 16 << 10];
                    let zeroes = ZEROES.get(..piece.length as usize).unwrap_or(&ZEROES);
                    let _ = memory.write(piece.offset, zeroes);
                }
            }
        }
    }
}
