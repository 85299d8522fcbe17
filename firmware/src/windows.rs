//! Windows for a machine whose root complex software programs: sized by what lies below each bridge,
//! placed where the caller has address space.
//!
//! Discovery needs no windows, so the order is: discover on a platform without any; [`place`]; program
//! the root complex; then everything else on a platform that has them, such as
//! [`bring_up`](crate::bring_up::bring_up) with [`PathPolicy::Describe`](crate::policy::PathPolicy).
//!
//! **Invariant**: what is placed lies in the caller's free space, within the physical address width and
//! clear of everything that the platform names; the same topology gives the same windows. They follow
//! from all that is there: whoever wants addresses that stay while a machine grows, gives windows.

use cxl_regs::acpi::cedt::Restrictions;
use cxl_regs::{Arithmetic, Coherency, DECODER_UNIT, Granularity, Hpa, Interleave, Span, Ways};
use heapless::Vec;

use crate::coherency;
use crate::error::{Code, Error, Place};
use crate::list::List;
use crate::platform::{Platform, Window};
use crate::topology::{NodeId, Partition, Tree};

/// Where windows may lie, and which are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Sizing<'a> {
    /// Address space that nothing uses.
    pub free: &'a [Span],
    /// Windows over several bridges as well, for sets at this granularity: one for each kind of memory
    /// that two bridges or more have, as a set is of one kind and one coherency. The windows of single
    /// bridges are there all the same, as they cost nothing but addresses.
    pub across: Option<Granularity>,
}

/// Sizes and places a window for each bridge that has memory below it, by ascending UID, and then those
/// over several bridges; adds them to `windows`.
///
/// A bridge's window holds all memory below it, of either kind, and admits what the devices there can
/// be. One over several bridges has as many ways as bridges can make, those of the lowest UIDs, and
/// holds what each of them can give. Bases are multiples of 2 GiB, in which Linux takes memory, and of
/// 256 MiB times the ways. Windows that the platform has already are left where they are.
///
/// On an error `windows` is as it was.
pub fn place<'a, 'l>(
    platform: &Platform<'_>,
    topology: impl Into<Tree<'a>>,
    sizing: &Sizing<'_>,
    windows: impl Into<List<'l, Window>>,
) -> Result<(), Error> {
    let mut windows = windows.into();
    let had = windows.len();
    let job = Job { platform, tree: topology.into(), sizing, had };
    let result = job.place(&mut windows);
    if result.is_err() {
        windows.truncate(had);
    }
    result
}

/// What does not change meanwhile.
#[derive(Clone, Copy)]
struct Job<'a> {
    platform: &'a Platform<'a>,
    tree: Tree<'a>,
    sizing: &'a Sizing<'a>,
    /// How many windows the list had, which are none of ours.
    had: usize,
}

impl Job<'_> {
    // Compiled once, whatever the lists lie in.
    #[inline(never)]
    fn place(self, windows: &mut List<'_, Window>) -> Result<(), Error> {
        for uid in by_uid(self.platform) {
            let interleave = Interleave::new(Ways::One, Granularity::B256);
            self.add(interleave, &[uid], Kind::ANY, windows)?;
        }
        let Some(granularity) = self.sizing.across else { return Ok(()) };
        for kind in Kind::EACH {
            let has = |uid: &u32| below(self.tree, *uid, kind).size > 0;
            let mut targets = Vec::<u32, 16>::new();
            for uid in by_uid(self.platform).filter(has) {
                // No window has more ways than there is room for.
                if targets.push(uid).is_err() {
                    break;
                }
            }
            let mut ways = Ways::from_count(targets.len() as u32);
            while ways.is_none() && targets.pop().is_some() {
                ways = Ways::from_count(targets.len() as u32);
            }
            if let Some(ways) = ways.filter(|ways| *ways != Ways::One) {
                self.add(Interleave::new(ways, granularity), &targets, kind, windows)?;
            }
        }
        Ok(())
    }

    /// Adds the window over some bridges, unless there is no memory for it.
    #[inline(never)]
    fn add(
        self,
        interleave: Interleave,
        targets: &[u32],
        kind: Kind,
        windows: &mut List<'_, Window>,
    ) -> Result<(), Error> {
        let (mut share, mut restrictions) = (u64::MAX, 0);
        for uid in targets {
            let below = below(self.tree, *uid, kind);
            share = share.min(below.size);
            restrictions |= below.restrictions.into_bits();
        }
        if share == 0 {
            return Ok(());
        }
        let ways = u64::from(interleave.ways.count());
        let at = Place::bridge(targets.first().copied().unwrap_or_default());
        let size = share.checked_next_multiple_of(DECODER_UNIT).and_then(|s| s.checked_mul(ways));
        let no_room = Code::PLAN_NO_ROOM_FOR_WINDOW.at(at).expected(size.unwrap_or(u64::MAX));
        let size = size.ok_or(no_room)?;
        let align = alignment(interleave.ways);
        let base = self.lowest(size, align, windows).ok_or(no_room)?;
        let window = Window {
            base: Some(base),
            size,
            interleave,
            arithmetic: Arithmetic::Modulo,
            xor_maps: Vec::new(),
            restrictions: Restrictions::from_bits(restrictions),
            qtg: 0,
            unreadable: None,
            targets: Vec::from_slice(targets).unwrap_or_default(),
        };
        let room = windows.room();
        windows.push(window).map_err(|_| Code::PLATFORM_CAPACITY.error().detail(2u8).expected(room))
    }

    /// The lowest place in the free space that meets nothing.
    fn lowest(self, size: u64, align: u64, windows: &List<'_, Window>) -> Option<Hpa> {
        let limit = 1u64.checked_shl(self.platform.address_bits.into()).unwrap_or(u64::MAX);
        let mut lowest: Option<Hpa> = None;
        for free in self.sizing.free {
            let mut at = Some(free.base().0);
            // Each round steps over at least one taken range for good.
            while let Some(base) = at.and_then(|at| at.checked_next_multiple_of(align)) {
                let Ok(span) = Span::new(Hpa(base), size) else { break };
                if !free.contains_span(span) || span.last().0 >= limit {
                    break;
                }
                let Some(last) = self.taken_up_to(span, windows) else {
                    lowest = Some(lowest.map_or(span.base(), |other| other.min(span.base())));
                    break;
                };
                at = last.0.checked_add(1);
            }
        }
        lowest
    }

    /// The last address of what meets a range: windows, and what the platform says is none.
    fn taken_up_to(self, span: Span, windows: &List<'_, Window>) -> Option<Hpa> {
        let mut last = None;
        let mut meet = |other: Span| {
            if other.overlaps(span) {
                last = last.max(Some(other.last()));
            }
        };
        self.platform.taken().for_each(&mut meet);
        let own = windows.get(self.had..).unwrap_or_default();
        for window in [self.platform.windows, own].into_iter().flatten() {
            window.span().into_iter().for_each(&mut meet);
        }
        last
    }
}

/// The UIDs of all bridges, ascending.
fn by_uid(platform: &Platform<'_>) -> impl Iterator<Item = u32> {
    let next = move |last: Option<u32>| {
        let uids = platform.bridges.iter().map(|bridge| bridge.uid);
        uids.filter(|uid| last.is_none_or(|last| *uid > last)).min()
    };
    core::iter::successors(next(None), move |uid| next(Some(*uid)))
}

/// The memory below a bridge.
struct Below {
    /// Bytes; as many as there can be if they are more.
    size: u64,
    /// What it can be.
    restrictions: Restrictions,
}

/// Which memory; `None`: any.
#[derive(Clone, Copy)]
struct Kind {
    partition: Option<Partition>,
    /// What the device would be before anything else.
    coherency: Option<Coherency>,
}

impl Kind {
    const ANY: Self = Self { partition: None, coherency: None };
    /// Each that may share a set: a set's decoders have one type.
    const EACH: [Self; 6] = {
        const fn each(partition: Partition, coherency: Coherency) -> Kind {
            Kind { partition: Some(partition), coherency: Some(coherency) }
        }
        [
            each(Partition::Volatile, Coherency::HostOnly),
            each(Partition::Persistent, Coherency::HostOnly),
            each(Partition::Volatile, Coherency::Device),
            each(Partition::Persistent, Coherency::Device),
            each(Partition::Volatile, Coherency::BackInvalidate),
            each(Partition::Persistent, Coherency::BackInvalidate),
        ]
    };
}

/// The memory of a kind below a bridge. What no plan could map for its coherency is none.
#[inline(never)]
fn below(tree: Tree<'_>, uid: u32, kind: Kind) -> Below {
    let mut below = Below { size: 0, restrictions: Restrictions::new() };
    let own = |id: &NodeId| tree.bridge(*id).is_some_and(|(_, above)| above == uid);
    let sound = tree.devices().map(|(id, _)| id).filter(|id| tree.fault(*id).is_none());
    for id in sound.filter(own) {
        let Ok(models) = coherency::models(tree, id) else { continue };
        if kind.coherency.is_some_and(|coherency| models.coherencies.first() != Some(&coherency)) {
            continue;
        }
        for partition in Partition::ALL {
            let wanted = kind.partition.is_none_or(|kind| kind == partition);
            let device = tree.get(id).and_then(|node| node.device());
            let size = device.filter(|_| wanted).map_or(0, |device| device.capacity(partition));
            if size == 0 {
                continue;
            }
            below.size = below.size.saturating_add(size);
            let allowed = &mut below.restrictions;
            match partition {
                Partition::Volatile => allowed.set_volatile(true),
                Partition::Persistent => allowed.set_persistent(true),
            }
            for coherency in &models.coherencies {
                match coherency {
                    Coherency::HostOnly => allowed.set_host_only(true),
                    Coherency::Device => allowed.set_device_coherent(true),
                    Coherency::BackInvalidate => {
                        allowed.set_device_coherent(true);
                        allowed.set_back_invalidate(true);
                    }
                }
            }
        }
    }
    below
}

/// What a base is a multiple of: 2 GiB, which is a block of memory for Linux, and the unit of a
/// decoder times the ways.
fn alignment(ways: Ways) -> u64 {
    let ways = u64::from(ways.count());
    let odd = ways >> ways.trailing_zeros();
    (ways / odd).max(8) * odd * DECODER_UNIT
}
