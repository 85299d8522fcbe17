//! A committed set's memory in the order of host addresses, and the arithmetic between that order
//! and each member's own.
//!
//! One run of host memory then serves the set's whole range, whatever its ways, granularity and
//! arithmetic: a guest reaches it at the speed of RAM. What a member calls DPA is arithmetic on it.
//! `gather` brings memory from the members' order into the set's, `scatter` back.
//!
//! **Invariant**: every byte of the set's memory belongs to one byte of one member, and moving there
//! and back changes none. Pages that nobody touched are neither read nor written.

use std::io;
use std::ops::Range;

use cxl_regs::{Arithmetic, DECODER_UNIT, Hpa, Interleave, Selector};

use crate::backing::{self, Backing, parts};

/// The most members that a set has.
const MOST: usize = 16;
/// Bytes of the set that are moved between two looks at whether to go on.
const STRIDE: u64 = 1 << 20;

/// How a set deals its granules out.
///
/// In *row* n lies granule n of every member: the members' order may differ from row to row (XOR),
/// but none comes twice. That is so because a set starts at a multiple of 256 MiB and every decoder
/// drops the selecting bits of all levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    base: Hpa,
    size: u64,
    selector: Selector,
    /// The members in the order of a row, which is the same in every row; without meaning for XOR.
    order: [u8; MOST],
    arithmetic: Arithmetic,
}

/// A part of the set that lies in one granule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it is in the set's memory.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Whose it is.
    pub position: u32,
    /// Where it is in the member's share.
    pub at: u64,
}

impl Layout {
    /// The layout of a set of `size` bytes at `base`; `None` if that is no range which the members
    /// share evenly, in units of 256 MiB.
    pub fn new(base: Hpa, size: u64, selector: Selector) -> Option<Self> {
        base.0.checked_add(size)?;
        base.0.is_multiple_of(DECODER_UNIT).then_some(())?;
        selector.interleave().share(size).filter(|share| *share != 0)?;
        let interleave = selector.interleave();
        let modulo = selector == Selector::modulo(interleave);
        let arithmetic = if modulo { Arithmetic::Modulo } else { Arithmetic::Xor };
        let mut layout = Self { base, size, selector, order: [0; MOST], arithmetic };
        layout.order = layout.row(0);
        Some(layout)
    }

    /// Where the set starts.
    pub fn base(&self) -> Hpa {
        self.base
    }

    /// The selector bits' maps; modulo arithmetic is the map of that bit alone.
    pub fn maps(&self) -> [u64; Selector::MAX_MAPS] {
        self.selector.maps()
    }

    /// Bytes of the whole set.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of each member.
    pub fn share(&self) -> u64 {
        self.size / u64::from(self.interleave().ways.count())
    }

    /// Ways and granularity.
    pub fn interleave(&self) -> Interleave {
        self.selector.interleave()
    }

    /// The members in the order in which they come in a row.
    fn row(&self, row: u64) -> [u8; MOST] {
        let interleave = self.interleave();
        let first = self.base.0 + row * interleave.stripe();
        std::array::from_fn(|place| {
            let offset = place as u64 % u64::from(interleave.ways.count());
            self.selector.position(Hpa(first + offset * interleave.granularity.bytes())) as u8
        })
    }

    fn order(&self, row: u64) -> [u8; MOST] {
        match self.arithmetic {
            Arithmetic::Modulo => self.order,
            Arithmetic::Xor => self.row(row),
        }
    }

    /// Where the set's memory holds a byte of a member's share, and how many bytes from there on
    /// follow one another in both.
    pub fn offset(&self, position: u32, at: u64) -> Option<(u64, u64)> {
        if at >= self.share() {
            return None;
        }
        let hpa = self.selector.hpa(self.base, position, at)?;
        let granule = self.interleave().granularity.bytes();
        Some((hpa.0.checked_sub(self.base.0)?, granule - at % granule))
    }

    /// The granules of a range of the set's memory, in order; the first and last may be parts of one.
    pub fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = Piece> {
        let Interleave { ways, granularity } = self.interleave();
        let (ways, granule) = (u64::from(ways.count()), granularity.bytes());
        let range = range.start.min(self.size)..range.end.min(self.size);
        let (mut row, mut place) =
            (range.start / granule / ways, (range.start / granule % ways) as usize);
        let mut order = self.order(row);
        let mut offset = range.start;
        std::iter::from_fn(move || {
            if offset >= range.end {
                return None;
            }
            let within = offset % granule;
            let length = (granule - within).min(range.end - offset);
            let position = u32::from(order.get(place).copied().unwrap_or(0));
            let piece = Piece { offset, length, position, at: row * granule + within };
            offset += length;
            place += 1;
            if place as u64 == ways {
                (row, place) = (row + 1, 0);
                if self.arithmetic == Arithmetic::Xor {
                    order = self.row(row);
                }
            }
            Some(piece)
        })
    }

    /// The granules of the members that `which` names, a bit for each position, in `part` of each
    /// share: member by member, so that each share is read from one end to the other, as far as
    /// members come in the same order in every row.
    fn rows(&self, part: &Range<u64>, which: u32, mut copy: impl FnMut(Piece) -> bool) -> bool {
        let Interleave { ways, granularity } = self.interleave();
        let (ways, granule) = (ways.count() as usize, granularity.bytes());
        let rows = part.start / granule..part.end.div_ceil(granule);
        let mut granule_of = |row: u64, place: usize, position: u8| {
            let first = row * granule;
            let (start, end) = (first.max(part.start), (first + granule).min(part.end));
            let offset = (row * ways as u64 + place as u64) * granule + (start - first);
            let position = u32::from(position);
            let piece = Piece { offset, length: end - start, position, at: start };
            which & 1 << position == 0 || copy(piece)
        };
        let places = |order: [u8; MOST]| order.into_iter().take(ways).enumerate();
        match self.arithmetic {
            Arithmetic::Modulo => places(self.order)
                .all(|(place, position)| rows.clone().all(|row| granule_of(row, place, position))),
            Arithmetic::Xor => { rows }.all(|row| {
                places(self.row(row)).all(|(place, position)| granule_of(row, place, position))
            }),
        }
    }
}

/// A member's share: the memory it lies in, and where in it.
#[derive(Clone, Debug)]
pub struct Share {
    /// The memory.
    pub memory: Backing,
    /// Where the share starts.
    pub start: u64,
}

/// The memory of a set that is laid out.
#[derive(Debug)]
pub struct SetMemory {
    /// How it is dealt out.
    pub layout: Layout,
    /// The bytes, in the order of host addresses.
    pub memory: Backing,
}

/// A move that did not come to its end.
#[derive(Debug)]
pub enum MoveError {
    /// The host says why.
    Host(io::Error),
    /// The disk has no room for what is to be moved.
    NoRoom {
        /// Bytes that are needed.
        need: u64,
        /// Bytes that are free.
        have: u64,
    },
    /// A share or the set does not lie inside its memory.
    Outside,
}

impl From<io::Error> for MoveError {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

impl std::fmt::Display for MoveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(error) => error.fmt(f),
            Self::NoRoom { need, have } => {
                write!(f, "it takes {need} bytes of disk, and {have} are free")
            }
            Self::Outside => f.write_str("a share does not lie inside its memory"),
        }
    }
}

impl std::error::Error for MoveError {}

/// Looks, from time to time, whether a move shall go on.
pub(crate) type GoOn<'a> = &'a mut dyn FnMut() -> io::Result<()>;

/// Copies what the members hold into the set's memory, which holds zeroes so far.
pub fn gather(
    layout: &Layout,
    shares: &[Share],
    set: &Backing,
    go_on: GoOn<'_>,
) -> Result<(), MoveError> {
    let stride = STRIDE / MOST as u64;
    for part in parts(0..layout.share()) {
        let mut touched = Vec::new();
        for share in shares {
            let found = share.memory.touched(share.start + part.start..share.start + part.end)?;
            let own = |range: Range<u64>| range.start - share.start..range.end - share.start;
            touched.push(found.into_iter().map(own).collect::<Vec<_>>());
        }
        for (range, which) in overlay(&touched) {
            for part in strides(range, stride) {
                go_on()?;
                let copied = layout.rows(&part, which, |Piece { offset, length, position, at }| {
                    shares.get(position as usize).is_some_and(|share| {
                        set.copy_from(offset, &share.memory, share.start + at, length)
                    })
                });
                copied.then_some(()).ok_or(MoveError::Outside)?;
            }
        }
    }
    backing::settle();
    Ok(set.whole()?)
}

/// Copies what the set's memory holds to the members, whose shares hold zeroes so far.
pub fn scatter(
    layout: &Layout,
    shares: &[Share],
    set: &Backing,
    go_on: GoOn<'_>,
) -> Result<(), MoveError> {
    for part in parts(0..layout.size()) {
        for range in set.touched(part)? {
            for part in strides(range, STRIDE) {
                go_on()?;
                for Piece { offset, length, position, at } in layout.pieces(part) {
                    let copied = shares.get(position as usize).is_some_and(|share| {
                        share.memory.copy_from(share.start + at, set, offset, length)
                    });
                    copied.then_some(()).ok_or(MoveError::Outside)?;
                }
            }
        }
    }
    backing::settle();
    shares.iter().try_for_each(|share| share.memory.whole())?;
    Ok(())
}

/// Bytes of the pages of a set that hold anything.
pub(crate) fn held(layout: &Layout, set: &Backing) -> io::Result<u64> {
    let mut bytes: u64 = 0;
    for part in parts(0..layout.size()) {
        bytes += set.touched(part)?.iter().map(|range| range.end - range.start).sum::<u64>();
    }
    Ok(bytes)
}

/// A range in parts that end at multiples of `stride`.
fn strides(range: Range<u64>, stride: u64) -> impl Iterator<Item = Range<u64>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let part = at..((at / stride + 1) * stride).min(range.end);
        at = part.end;
        (!part.is_empty()).then_some(part)
    })
}

/// Several sorted lists of ranges as one: where any has something, and a bit for each that has.
fn overlay(lists: &[Vec<Range<u64>>]) -> Vec<(Range<u64>, u32)> {
    let mut ends: Vec<(u64, u32)> = Vec::new();
    for (index, list) in lists.iter().enumerate() {
        // A list's ranges do not touch, so its bit goes on and off in turn.
        ends.extend(
            list.iter().flat_map(|range| [range.start, range.end].map(|at| (at, 1 << index))),
        );
    }
    ends.sort_unstable();
    let mut found = Vec::new();
    let (mut which, mut from) = (0, 0);
    for (at, bit) in ends {
        if which != 0 && at != from {
            found.push((from..at, which));
        }
        (which, from) = (which ^ bit, at);
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use cxl_regs::{Granularity, Ways};

    use super::*;

    const UNIT: u64 = DECODER_UNIT;

    #[test]
    fn lists_of_ranges_are_laid_over_one_another() {
        let lists = [vec![0..10, 20..30], vec![5..25, 40..41], vec![]];
        let want = [(0..5, 1), (5..10, 3), (10..20, 2), (20..25, 3), (25..30, 1), (40..41, 2)];
        assert_eq!(overlay(&lists), want);
    }

    /// Every set that a device can decode, with XOR maps that look at bits far above, and bases at
    /// each third of a round.
    fn layouts() -> Vec<Layout> {
        let mut layouts = Vec::new();
        for (ways, granularity) in
            Ways::ALL.into_iter().flat_map(|ways| Granularity::ALL.map(|g| (ways, g)))
        {
            let interleave = Interleave::new(ways, granularity);
            if interleave.decodable().is_err() {
                continue;
            }
            let shift = granularity.shift();
            let maps: Vec<u64> = (0..4).map(|bit| 0x2_0082_0001 << (shift + bit)).collect();
            for selector in
                [Selector::modulo(interleave), Selector::xor(interleave, &maps).unwrap()]
            {
                for base in [16, 17, 18] {
                    let size = u64::from(ways.count()) * UNIT;
                    layouts.push(Layout::new(Hpa(base * UNIT), size, selector).unwrap());
                }
            }
        }
        layouts
    }

    /// Deals granules out one by one, as each member takes its next one: no formula for DPA.
    #[test]
    fn layouts_deal_granules_out_like_cards() {
        const GRANULES: u64 = 600;
        for layout in layouts() {
            let Interleave { ways, granularity } = layout.interleave();
            let granule = granularity.bytes();
            let mut next = [0; MOST];
            for index in 0..GRANULES {
                let offset = index * granule;
                let position = layout.selector.position(Hpa(layout.base.0 + offset));
                let at = next[position as usize];
                next[position as usize] += granule;
                let want = Piece { offset, length: granule, position, at };
                let found: Vec<_> = layout.pieces(offset..offset + granule).collect();
                assert_eq!(found, [want], "{layout:?}");
                assert_eq!(layout.offset(position, at), Some((offset, granule)), "{layout:?}");
                assert_eq!(layout.offset(position, at + 100), Some((offset + 100, granule - 100)));
            }
            let all = layout.pieces(0..GRANULES * granule).map(|piece| piece.length).sum::<u64>();
            assert_eq!(all, GRANULES * granule);
            assert_eq!(layout.offset(ways.count(), 0), None);
            assert_eq!(layout.offset(0, layout.share()), None);
        }
    }

    fn shares(layout: &Layout) -> Vec<Share> {
        let ways = layout.interleave().ways.count();
        (0..ways)
            .map(|n| {
                let start = u64::from(n % 3) * UNIT;
                Share { memory: Backing::new(start + layout.share()), start }
            })
            .collect()
    }

    /// What gather and scatter move is what [`Layout::offset`] says, at the edges of pages and
    /// granules, and nothing beside it.
    #[test]
    fn what_is_gathered_comes_back_when_it_is_scattered() {
        // Each pair of ways and granularity once or twice.
        for layout in layouts().into_iter().step_by(4) {
            let from = shares(&layout);
            let places =
                |n: u64| [n * 4096, 70_000 + n, 1 << 20, (3 << 20) - 5, layout.share() - 9 - n];
            for (n, share) in (0..).zip(&from) {
                for at in places(n) {
                    assert!(share.memory.write(share.start + at, &(at ^ n << 56).to_le_bytes()));
                }
            }
            let set = Backing::new(layout.size());
            gather(&layout, &from, &set, &mut || Ok(())).unwrap();
            for (n, position) in (0..from.len() as u64).zip(0..) {
                for at in places(n) {
                    for (byte, want) in (at..).zip((at ^ n << 56).to_le_bytes()) {
                        let (offset, _) = layout.offset(position, byte).unwrap();
                        let mut found = [0];
                        assert!(set.read(offset, &mut found));
                        assert_eq!(found, [want], "{layout:?} member {n} at {byte:#x}");
                    }
                }
            }
            let to = shares(&layout);
            scatter(&layout, &to, &set, &mut || Ok(())).unwrap();
            for (from, to) in from.iter().zip(&to) {
                let range = from.start..from.start + layout.share();
                let pages = from.memory.touched(range.clone()).unwrap();
                assert_eq!(to.memory.touched(range).unwrap(), pages, "{layout:?}");
                for page in pages {
                    let (mut want, mut found) = (vec![0; 4096], vec![0; 4096]);
                    for at in page.step_by(4096) {
                        assert!(from.memory.read(at, &mut want) && to.memory.read(at, &mut found));
                        assert_eq!(want, found, "{layout:?} at {at:#x}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_terabyte_that_nobody_touched_is_gathered_at_once() {
        let interleave = Interleave::new(Ways::Four, Granularity::B256);
        let layout = Layout::new(Hpa(1 << 40), 1 << 40, Selector::modulo(interleave)).unwrap();
        let mut steps = 0;
        let set = Backing::new(1 << 40);
        gather(&layout, &shares(&layout), &set, &mut || {
            steps += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(steps, 0);
        assert_eq!(set.touched(0..1 << 40).unwrap(), []);
    }

    #[test]
    fn a_range_that_members_cannot_share_is_no_set() {
        let four = Selector::modulo(Interleave::new(Ways::Four, Granularity::B256));
        for (base, size) in
            [(0, 0), (UNIT, 3 * UNIT), (UNIT / 2, 4 * UNIT), (0u64.wrapping_sub(UNIT), 4 * UNIT)]
        {
            assert_eq!(Layout::new(Hpa(base), size, four), None, "{base:#x} {size:#x}");
        }
    }
}
