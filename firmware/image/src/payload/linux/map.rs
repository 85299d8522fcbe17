//! The memory map for the next stage: what the firmware was told, minus what it keeps, plus what it
//! made.
//!
//! **Invariant**: ranges never overlap, whatever is set over what; nothing is placed in memory that
//! is not RAM, or that somebody still needs.

use heapless::Vec;

use super::protocol::{E820Entry, MAX_E820};

/// Memory for everybody.
pub(crate) const RAM: u32 = 1;
/// Not to be used.
pub(crate) const RESERVED: u32 = 2;
/// Memory that holds ACPI tables.
pub(crate) const ACPI: u32 = 3;

/// A range of addresses: the first, and the first behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Range {
    /// `size` bytes from `start` on, as many of them as there are addresses for.
    pub(crate) const fn new(start: u64, size: u64) -> Self {
        Self { start, end: start.saturating_add(size) }
    }

    const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// There are more ranges than the parameters have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapFull;

/// The map, by ascending address.
pub(crate) struct Map {
    ranges: Vec<(Range, u32), MAX_E820>,
}

impl Map {
    /// A map of these ranges. Where they overlap, the later one counts, but RAM never counts over
    /// something else.
    pub(crate) fn new(given: impl Iterator<Item = (Range, u32)>) -> Result<Self, MapFull> {
        let mut map = Self { ranges: Vec::new() };
        let mut others = Vec::<(Range, u32), MAX_E820>::new();
        for (range, kind) in given {
            if kind == RAM {
                map.set(range, kind)?;
            } else {
                others.push((range, kind)).map_err(|_| MapFull)?;
            }
        }
        for (range, kind) in others {
            map.set(range, kind)?;
        }
        Ok(map)
    }

    /// Makes a range what `kind` says, whatever it was.
    pub(crate) fn set(&mut self, range: Range, kind: u32) -> Result<(), MapFull> {
        if range.start >= range.end {
            return Ok(());
        }
        let mut next = Vec::new();
        let mut push = |start: u64, end: u64, kind: u32| {
            if start < end { next.push((Range { start, end }, kind)) } else { Ok(()) }
        };
        let mut done = false;
        for &(old, old_kind) in &self.ranges {
            if !done && old.end > range.start {
                done = true;
                push(old.start, old.end.min(range.start), old_kind).map_err(|_| MapFull)?;
                push(range.start, range.end, kind).map_err(|_| MapFull)?;
                push(old.start.max(range.end), old.end, old_kind).map_err(|_| MapFull)?;
            } else if !old.overlaps(range) {
                push(old.start, old.end, old_kind).map_err(|_| MapFull)?;
            } else {
                push(old.start.max(range.end), old.end, old_kind).map_err(|_| MapFull)?;
            }
        }
        if !done {
            push(range.start, range.end, kind).map_err(|_| MapFull)?;
        }
        self.ranges = next;
        Ok(())
    }

    /// The lowest place from `from` on for `size` bytes of RAM, clear of what is taken.
    pub(crate) fn lowest(
        &self,
        size: u64,
        alignment: u64,
        from: u64,
        taken: &[Range],
    ) -> Option<u64> {
        self.ram().find_map(|ram| {
            let mut start = ram.start.max(from).checked_next_multiple_of(alignment)?;
            // Each taken range pushes the place up once at most.
            for _ in 0..=taken.len() {
                let place = fits(start, size, ram)?;
                match taken.iter().find(|taken| taken.overlaps(place)) {
                    None => return Some(start),
                    Some(taken) => start = taken.end.checked_next_multiple_of(alignment)?,
                }
            }
            None
        })
    }

    /// The highest place below `below` for `size` bytes of RAM, clear of what is taken.
    pub(crate) fn highest(
        &self,
        size: u64,
        alignment: u64,
        below: u64,
        taken: &[Range],
    ) -> Option<u64> {
        let down = |end: u64| {
            let start = end.checked_sub(size)?;
            Some(start - start % alignment)
        };
        self.ram().rev().find_map(|ram| {
            let mut start = down(ram.end.min(below))?;
            for _ in 0..=taken.len() {
                let place = fits(start, size, ram)?;
                match taken.iter().find(|taken| taken.overlaps(place)) {
                    None => return Some(start),
                    Some(taken) => start = down(taken.start)?,
                }
            }
            None
        })
    }

    fn ram(&self) -> impl DoubleEndedIterator<Item = Range> + '_ {
        self.ranges.iter().filter(|(_, kind)| *kind == RAM).map(|(range, _)| *range)
    }

    /// The entries for the kernel.
    pub(crate) fn entries(&self) -> Vec<E820Entry, MAX_E820> {
        let entry = |(range, kind): &(Range, u32)| E820Entry {
            base: range.start.into(),
            size: (range.end - range.start).into(),
            kind: (*kind).into(),
        };
        self.ranges.iter().map(entry).collect()
    }
}

/// `size` bytes from `start` on, if they lie in `ram`.
fn fits(start: u64, size: u64, ram: Range) -> Option<Range> {
    let end = start.checked_add(size)?;
    (start >= ram.start && end <= ram.end).then_some(Range { start, end })
}
