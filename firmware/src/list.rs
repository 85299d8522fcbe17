//! Sorting and inserting without a panic path. The standard sort panics on an order that
//! contradicts itself, and `heapless` on an index behind the end.
//!
//! **Invariant**: no call leaves anything out: afterwards a list holds what it held, and what was
//! added.

use heapless::Vec;

/// Puts an item before the one at `index`, or behind the last; gives it back if there is no room.
pub(crate) fn insert<T, const N: usize>(
    list: &mut Vec<T, N>,
    index: usize,
    item: T,
) -> Result<(), T> {
    list.push(item)?;
    if let Some(tail) = list.get_mut(index..)
        && !tail.is_empty()
    {
        tail.rotate_right(1);
    }
    Ok(())
}

/// Sorts by ascending keys, which should differ: items with the same one end in any order.
pub(crate) fn sort_by_key<T, K: Ord>(list: &mut [T], key: impl Fn(&T) -> K) {
    // A heap whose root is the greatest item, shrunk by one item at a time.
    for root in (0..list.len() / 2).rev() {
        sift_down(list, root, &key);
    }
    for end in (1..list.len()).rev() {
        let Some(heap) = list.get_mut(..=end) else { return };
        swap(heap, 0, end);
        let Some(heap) = heap.get_mut(..end) else { return };
        sift_down(heap, 0, &key);
    }
}

/// Moves an item down to where neither child is greater.
fn sift_down<T, K: Ord>(heap: &mut [T], mut at: usize, key: &impl Fn(&T) -> K) {
    loop {
        let children = (2 * at + 1..heap.len()).take(2);
        let keyed = children.filter_map(|child| Some((key(heap.get(child)?), child)));
        let Some((greatest, child)) = keyed.max() else { return };
        if heap.get(at).is_none_or(|item| key(item) >= greatest) {
            return;
        }
        swap(heap, at, child);
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
        fn inserts_as_the_standard_library_does(items: [u8; 7], index in 0usize..8) {
            let mut list = Vec::<u8, 8>::from_array(items);
            let mut expected = items.to_vec();
            expected.insert(index, 0xA5);
            prop_assert_eq!(insert(&mut list, index, 0xA5), Ok(()));
            prop_assert_eq!(list.as_slice(), expected.as_slice());
            prop_assert_eq!(insert(&mut list, index, 0x5A), Err(0x5A));
            prop_assert_eq!(list.as_slice(), expected.as_slice());
        }
    }
}
