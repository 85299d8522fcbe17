//! A list that somebody else makes longer: its first entries, and how many more there were.
//!
//! **Invariant**: it holds at most `MOST` entries, whatever is pushed and however often; what it
//! does not hold is counted.

use std::ops::{Deref, DerefMut};

/// The first `MOST` of what was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept<T, const MOST: usize> {
    list: Vec<T>,
    more: u64,
}

impl<T, const MOST: usize> Kept<T, MOST> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { list: Vec::new(), more: 0 }
    }

    /// Keeps it while there is room, or counts it; whether it was kept.
    pub fn push(&mut self, entry: T) -> bool {
        let room = self.list.len() < MOST;
        if room {
            self.list.push(entry);
        } else {
            self.pass(1);
        }
        room
    }

    /// Counts so many that are not to be kept.
    pub fn pass(&mut self, entries: u64) {
        self.more = self.more.saturating_add(entries);
    }

    /// Entries that were pushed and not kept.
    pub fn more(&self) -> u64 {
        self.more
    }

    /// Entries that were pushed.
    pub fn total(&self) -> u64 {
        (self.list.len() as u64).saturating_add(self.more)
    }
}

impl<T, const MOST: usize> Default for Kept<T, MOST> {
    fn default() -> Self {
        Self::new()
    }
}

/// Those that were kept.
impl<T, const MOST: usize> Deref for Kept<T, MOST> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.list
    }
}

impl<T, const MOST: usize> DerefMut for Kept<T, MOST> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.list
    }
}

impl<T, const MOST: usize> IntoIterator for Kept<T, MOST> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl<'a, T, const MOST: usize> IntoIterator for &'a Kept<T, MOST> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

impl<T, const MOST: usize> Extend<T> for Kept<T, MOST> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, entries: I) {
        entries.into_iter().for_each(|entry| {
            self.push(entry);
        });
    }
}

impl<T, const MOST: usize> FromIterator<T> for Kept<T, MOST> {
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> Self {
        let mut kept = Self::new();
        kept.extend(entries);
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::Kept;

    #[test]
    fn the_first_are_kept_and_the_rest_is_counted() {
        let mut kept: Kept<u32, 3> = (0..10).collect();
        assert_eq!((&kept[..], kept.more(), kept.total()), (&[0, 1, 2][..], 7, 10));
        assert!(!kept.push(10));
        assert_eq!((kept.len(), kept.more()), (3, 8));
        assert!(Kept::<u32, 1>::new().push(7));
    }
}
