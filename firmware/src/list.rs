//! Lists in memory that somebody else declared, and sorting without a panic path. The standard sort
//! panics on an order that contradicts itself, and `heapless` on an index behind the end.
//!
//! Every phase fills lists. How many items they hold is said where memory is declared, by
//! `heapless` vectors of a size known to the compiler or by [`Slots`] of a size known at run time;
//! the phases see a [`List`] of either and are compiled once.
//!
//! **Invariant**: no call leaves anything out: afterwards a list holds what it held, and what was
//! added.

use core::fmt;
use core::ops::{Deref, DerefMut};

use heapless::{Vec, VecView};

/// A list of at most as many items as its memory has room for.
pub struct List<'a, T>(Memory<'a, T>);

/// Where the items lie.
enum Memory<'a, T> {
    Vec(&'a mut VecView<T>),
    /// The first `len` slots hold items.
    Slots {
        slots: &'a mut [T],
        len: &'a mut usize,
    },
}

/// What memory of a size known at run time is filled with before a list lies in it: the value
/// means nothing.
pub trait Empty {
    /// A slot without an item.
    const EMPTY: Self;
}

impl Empty for bool {
    const EMPTY: Self = false;
}

/// Memory of a size known at run time for a [`List`].
///
/// ```
/// use cxl_firmware::list::{Empty, Slots};
/// use cxl_firmware::topology::Node;
///
/// // Or memory that a C caller lends, each slot written with `Node::EMPTY` first.
/// let mut memory = vec![Node::EMPTY; 20];
/// let mut nodes = Slots::new(&mut memory);
/// assert_eq!((nodes.list().len(), nodes.list().room()), (0, 20));
/// ```
#[derive(Debug)]
pub struct Slots<'m, T> {
    slots: &'m mut [T],
    len: usize,
}

impl<'m, T> Slots<'m, T> {
    /// Memory that holds no item yet, whatever the slots hold.
    pub fn new(slots: &'m mut [T]) -> Self {
        Self { slots, len: 0 }
    }

    /// The list that lies here.
    pub fn list(&mut self) -> List<'_, T> {
        List(Memory::Slots { slots: self.slots, len: &mut self.len })
    }

    /// The items.
    pub fn items(&self) -> &[T] {
        self.slots.get(..self.len).unwrap_or(&[])
    }
}

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

// What looks which kind of memory it is is not inlined: the phases do it everywhere, and that was a tenth
// of their size.
impl<T> List<'_, T> {
    /// How many items there is room for, those that it holds included.
    pub fn room(&self) -> usize {
        match &self.0 {
            Memory::Vec(vec) => vec.capacity(),
            Memory::Slots { slots, .. } => slots.len(),
        }
    }

    /// The same list for a shorter time.
    pub fn reborrow(&mut self) -> List<'_, T> {
        List(match &mut self.0 {
            Memory::Vec(vec) => Memory::Vec(vec),
            Memory::Slots { slots, len } => Memory::Slots { slots, len },
        })
    }

    /// Adds an item behind the last; gives it back if there is no room.
    #[inline(never)]
    pub fn push(&mut self, item: T) -> Result<(), T> {
        self.add(item)
    }

    fn add(&mut self, item: T) -> Result<(), T> {
        match &mut self.0 {
            Memory::Vec(vec) => vec.push(item),
            Memory::Slots { slots, len } => {
                let Some(slot) = slots.get_mut(**len) else { return Err(item) };
                *slot = item;
                **len += 1;
                Ok(())
            }
        }
    }

    /// Puts an item before the one at `index`, or behind the last; it is gone if there is no room.
    #[inline(never)]
    pub(crate) fn insert(&mut self, index: usize, item: T) -> Result<(), Full> {
        self.add(item).map_err(|_| Full)?;
        // Each moves on by one, by way of the last place.
        let behind = self.get_mut(index..).and_then(<[T]>::split_last_mut);
        if let Some((last, items)) = behind {
            for item in items {
                core::mem::swap(item, last);
            }
        }
        Ok(())
    }

    /// Forgets all items but the first `length`.
    #[inline(never)]
    pub fn truncate(&mut self, length: usize) {
        match &mut self.0 {
            Memory::Vec(vec) => vec.truncate(length),
            Memory::Slots { len, .. } => **len = length.min(**len),
        }
    }

    /// Forgets all items.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Forgets the items that are not to stay; the others keep their order.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&T) -> bool) {
        let items = &mut **self;
        let mut kept = 0;
        for at in 0..items.len() {
            if items.get(at).is_some_and(&mut stays) {
                swap(items, kept, at);
                kept += 1;
            }
        }
        self.truncate(kept);
    }
}

impl<T> Deref for List<'_, T> {
    type Target = [T];

    #[inline(never)]
    fn deref(&self) -> &[T] {
        match &self.0 {
            Memory::Vec(vec) => vec,
            Memory::Slots { slots, len } => slots.get(..**len).unwrap_or(&[]),
        }
    }
}

impl<T> DerefMut for List<'_, T> {
    #[inline(never)]
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Memory::Vec(vec) => vec,
            Memory::Slots { slots, len } => slots.get_mut(..**len).unwrap_or_default(),
        }
    }
}

impl<'l, T> IntoIterator for &'l List<'_, T> {
    type Item = &'l T;
    type IntoIter = core::slice::Iter<'l, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'l, T> IntoIterator for &'l mut List<'_, T> {
    type Item = &'l mut T;
    type IntoIter = core::slice::IterMut<'l, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<T: fmt::Debug> fmt::Debug for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<'a, T, const N: usize> From<&'a mut Vec<T, N>> for List<'a, T> {
    fn from(vec: &'a mut Vec<T, N>) -> Self {
        Self(Memory::Vec(vec))
    }
}

/// Sorts by ascending keys, which should differ: items with the same one end in any order.
pub(crate) fn sort_by_key<T, K: Ord>(list: &mut [T], key: impl Fn(&T) -> K) {
    let length = list.len();
    sort(&mut Keyed { list, key }, length);
}

/// Items by number, so that one function sorts whatever they are.
trait Heap {
    fn is_less(&self, one: usize, other: usize) -> bool;
    fn swap(&mut self, one: usize, other: usize);
}

struct Keyed<'l, T, F> {
    list: &'l mut [T],
    key: F,
}

impl<T, K: Ord, F: Fn(&T) -> K> Heap for Keyed<'_, T, F> {
    fn is_less(&self, one: usize, other: usize) -> bool {
        let key = |at| self.list.get(at).map(&self.key);
        key(one) < key(other)
    }

    fn swap(&mut self, one: usize, other: usize) {
        swap(self.list, one, other);
    }
}

/// A heap whose root is the greatest item, shrunk by one item at a time.
fn sort(heap: &mut dyn Heap, length: usize) {
    for root in (0..length / 2).rev() {
        sift_down(heap, root, length);
    }
    for end in (1..length).rev() {
        heap.swap(0, end);
        sift_down(heap, 0, end);
    }
}

/// Moves an item of the first `length` down to where neither child is greater.
fn sift_down(heap: &mut dyn Heap, mut at: usize, length: usize) {
    loop {
        let (left, right) = (2 * at + 1, 2 * at + 2);
        let child = if right < length && !heap.is_less(right, left) { right } else { left };
        if child >= length || !heap.is_less(at, child) {
            return;
        }
        heap.swap(at, child);
        at = child;
    }
}

fn swap<T>(list: &mut [T], one: usize, other: usize) {
    if let Ok([one, other]) = list.get_disjoint_mut([one, other]) {
        core::mem::swap(one, other);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sorts_as_the_standard_library_does(mut list: std::vec::Vec<u16>) {
            let mut expected = list.clone();
            expected.sort_unstable();
            sort_by_key(&mut list, |item| *item);
            prop_assert_eq!(list, expected);
        }

        #[test]
        fn changes_as_the_standard_library_does(items: [u8; 7], index in 0usize..8, least: u8) {
            let mut vec = Vec::<u8, 8>::from_array(items);
            let mut memory = [0; 8];
            let mut slots = Slots::new(&mut memory);
            for item in items {
                prop_assert_eq!(slots.list().push(item), Ok(()));
            }
            for mut list in [List::from(&mut vec), slots.list()] {
                let mut expected = items.to_vec();
                expected.insert(index, 0xA5);
                prop_assert_eq!(list.insert(index, 0xA5), Ok(()));
                prop_assert_eq!(&*list, expected.as_slice());
                prop_assert_eq!(list.insert(index, 0x5A), Err(Full));
                prop_assert_eq!(&*list, expected.as_slice());
                expected.retain(|item| *item >= least);
                list.retain(|item| *item >= least);
                prop_assert_eq!(&*list, expected.as_slice());
                expected.truncate(index);
                list.reborrow().truncate(index);
                prop_assert_eq!(&*list, expected.as_slice());
                prop_assert_eq!(list.room(), 8);
            }
        }
    }
}
