//! The queue of a device: chains of descriptors out of memory, and answers back into it. The rings and
//! their rules are rust-vmm's `virtio-queue`; here is what memory they lie in.
//!
//! **Invariant**: a chain has at most as many descriptors as the queue, and a round at most as many
//! chains; a chain that is cut off is an error with a name, and never a shorter chain.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::guest_memory::{Error as MemoryError, GuestMemorySliceIterator};
use vm_memory::{
    Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, MmapRegion, Permissions, VolatileMemory,
    VolatileSlice,
};

use crate::dma::{DmaError, Memory, Way};

/// One of the three parts of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The table of descriptors.
    Descriptors,
    /// What the driver makes available.
    Available,
    /// What the device has used.
    Used,
}

impl Part {
    const ALL: [Self; 3] = [Self::Descriptors, Self::Available, Self::Used];

    /// Bytes of it in a queue of so many descriptors (virtio 1.2 section 2.7).
    fn size(self, descriptors: u16) -> u64 {
        let count = u64::from(descriptors);
        match self {
            Self::Descriptors => 16 * count,
            Self::Available => 6 + 2 * count,
            Self::Used => 6 + 8 * count,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "descriptor table",
            Self::Available => "available ring",
            Self::Used => "used ring",
        })
    }
}

/// Why a queue cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// A part of it is no memory.
    Memory {
        /// Which.
        part: Part,
        /// Why not.
        error: DmaError,
    },
    /// A part of it does not lie on a multiple of 16, 2 or 4.
    Alignment {
        /// Which.
        part: Part,
        /// Where it lies.
        address: u64,
    },
    /// The number of descriptors is no power of two, or more than the device has.
    Size(u16),
    /// More is made available than the queue has descriptors.
    Available {
        /// What the driver's index says.
        index: u16,
        /// Where the device is.
        expected: u16,
    },
    /// A chain without a descriptor: its head is beyond the table, or its table cannot be read.
    NoDescriptor {
        /// The head.
        head: u16,
    },
    /// A chain that goes on where it cannot: in a circle, beyond the table or the memory, or for more
    /// than 4 GiB.
    Endless {
        /// The head.
        head: u16,
        /// Descriptors until then.
        descriptors: usize,
    },
    /// A descriptor to be read behind one to be written.
    Order {
        /// The head of its chain.
        head: u16,
    },
    /// A chain without a place for the answer.
    NoStatus {
        /// The head.
        head: u16,
    },
    /// The place for the answer is no memory.
    Status {
        /// The head.
        head: u16,
        /// Why not.
        error: DmaError,
    },
    /// A ring could not be accessed in the middle of it.
    Ring,
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { part, error } => write!(f, "its {part}: {error}"),
            Self::Alignment { part, address } => {
                write!(f, "its {part} is at {address:#x}, which is not aligned")
            }
            Self::Size(size) => {
                write!(
                    f,
                    "expected a power of two up to {}, found {size} descriptors",
                    super::QUEUE_SIZE
                )
            }
            Self::Available { index, expected } => {
                write!(f, "the driver's index is {index}, more than a queue beyond {expected}")
            }
            Self::NoDescriptor { head } => write!(f, "chain {head} has no descriptor"),
            Self::Endless { head, descriptors } => {
                write!(
                    f,
                    "chain {head} does not end: {descriptors} descriptors, and another behind"
                )
            }
            Self::Order { head } => {
                write!(f, "chain {head} has something to read behind something to write")
            }
            Self::NoStatus { head } => write!(f, "chain {head} has no place for the answer"),
            Self::Status { head, error } => {
                write!(f, "the answer's place in chain {head}: {error}")
            }
            Self::Ring => f.write_str("a ring is no memory any more"),
        }
    }
}

/// A buffer of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// First address.
    pub address: u64,
    /// Bytes.
    pub length: u32,
}

/// A request as the driver described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// Its first descriptor.
    pub head: u16,
    /// What the device reads.
    pub readable: Vec<Segment>,
    /// What it writes.
    pub writable: Vec<Segment>,
}

/// Rings that decode and trap, as they were when the round began.
#[derive(Debug, Default)]
struct Copies(Vec<(u64, MmapRegion)>);

/// Memory as rings are reached in it.
struct View<'m, 'a> {
    memory: &'m Memory<'a>,
    copies: &'m Copies,
}

/// The slices of a range.
struct Slices<'a>(std::vec::IntoIter<VolatileSlice<'a>>);

impl<'a> Iterator for Slices<'a> {
    type Item = Result<VolatileSlice<'a>, MemoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Ok)
    }
}

impl FusedIterator for Slices<'_> {}
impl<'a> GuestMemorySliceIterator<'a, ()> for Slices<'a> {}

impl View<'_, '_> {
    fn slices(&self, address: u64, count: usize) -> Result<Vec<VolatileSlice<'_>>, MemoryError> {
        let nowhere = || MemoryError::InvalidGuestAddress(GuestAddress(address));
        for (base, copy) in &self.copies.0 {
            let offset = address.checked_sub(*base).and_then(|offset| usize::try_from(offset).ok());
            if let Some(slice) = offset.and_then(|offset| copy.get_slice(offset, count).ok()) {
                return Ok(vec![slice]);
            }
        }
        let pieces = self.memory.translate(address, count as u64).map_err(|_| nowhere())?;
        let direct = pieces.into_iter().map(|piece| match piece.way {
            Way::Direct(slice) => Ok(slice),
            Way::Bounced => Err(nowhere()),
        });
        direct.collect()
    }
}

impl GuestMemory for View<'_, '_> {
    type PhysicalMemory = GuestMemoryMmap;
    type Bitmap = ();

    fn check_range(&self, address: GuestAddress, count: usize, _access: Permissions) -> bool {
        self.slices(address.0, count).is_ok()
    }

    fn get_slices<'s>(
        &'s self,
        address: GuestAddress,
        count: usize,
        _access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'s, ()>, MemoryError> {
        Ok(Slices(self.slices(address.0, count)?.into_iter()))
    }
}

/// The queue, as its driver has set it up.
#[derive(Debug)]
pub(super) struct Rings {
    queue: Queue,
    /// Where the driver says that each part is.
    places: [u64; 3],
    copies: Copies,
}

impl Rings {
    /// A queue that nobody has set up, of so many descriptors, a power of two.
    pub(super) fn new(size: u16) -> Self {
        let queue = Queue::new(size).unwrap_or_default();
        Self { queue, places: [0; 3], copies: Copies::default() }
    }

    /// As it was.
    pub(super) fn reset(&mut self) {
        self.queue.reset();
        (self.places, self.copies) = ([0; 3], Copies::default());
    }

    /// Descriptors.
    pub(super) fn size(&self) -> u16 {
        self.queue.size()
    }

    /// The driver's choice of their number, until the queue is enabled.
    pub(super) fn set_size(&mut self, size: u16) -> Result<(), QueueError> {
        if self.enabled() {
            return Ok(());
        }
        self.queue.try_set_size(size).map_err(|_| QueueError::Size(size))
    }

    /// Where a part is.
    pub(super) fn place(&self, part: Part) -> u64 {
        let [descriptors, available, used] = self.places;
        match part {
            Part::Descriptors => descriptors,
            Part::Available => available,
            Part::Used => used,
        }
    }

    /// The driver's choice of that, until the queue is enabled.
    pub(super) fn set_place(&mut self, part: Part, address: u64) {
        if self.enabled() {
            return;
        }
        let [descriptors, available, used] = &mut self.places;
        *match part {
            Part::Descriptors => descriptors,
            Part::Available => available,
            Part::Used => used,
        } = address;
    }

    /// Whether the driver has enabled it.
    pub(super) fn enabled(&self) -> bool {
        self.queue.ready()
    }

    /// Enables it.
    pub(super) fn enable(&mut self) -> Result<(), QueueError> {
        let [descriptors, available, used] = self.places.map(GuestAddress);
        let queue = &mut self.queue;
        let set = [
            (Part::Descriptors, queue.try_set_desc_table_address(descriptors).is_ok()),
            (Part::Available, queue.try_set_avail_ring_address(available).is_ok()),
            (Part::Used, queue.try_set_used_ring_address(used).is_ok()),
        ];
        if let Some((part, _)) = set.into_iter().find(|(_, aligned)| !aligned) {
            return Err(QueueError::Alignment { part, address: self.place(part) });
        }
        self.queue.set_ready(true);
        Ok(())
    }

    /// Looks where the parts are now, and copies those that trap.
    fn refresh(&mut self, memory: &mut Memory<'_>) -> Result<(), QueueError> {
        self.copies.0.clear();
        for part in Part::ALL {
            let (address, size) = (self.place(part), part.size(self.size()));
            let wrong = |error| QueueError::Memory { part, error };
            let pieces = memory.translate(address, size).map_err(wrong)?;
            let in_one =
                matches!(pieces.as_slice(), [piece] if matches!(piece.way, Way::Direct(_)));
            if in_one {
                continue;
            }
            let mut bytes = vec![0; size as usize];
            memory.read(address, &mut bytes).map_err(wrong)?;
            let copy = MmapRegion::<()>::new(bytes.len()).map_err(|_| QueueError::Ring)?;
            copy.as_volatile_slice().copy_from(&bytes);
            self.copies.0.push((address, copy));
        }
        Ok(())
    }

    /// The requests that the driver has made available, `most` of them at most.
    pub(super) fn take(
        &mut self,
        memory: &mut Memory<'_>,
        most: usize,
    ) -> Result<Vec<Chain>, QueueError> {
        self.refresh(memory)?;
        let Self { queue, copies, .. } = self;
        let view = &View { memory, copies };
        let (expected, size) = (queue.next_avail(), usize::from(queue.size()));
        let index = queue.avail_idx(view, Ordering::Acquire).map_err(|_| QueueError::Ring)?.0;
        let chains = queue.iter(view).map_err(|_| QueueError::Available { index, expected })?;
        let mut taken = Vec::new();
        for mut chain in chains.take(most) {
            let head = chain.head_index();
            let mut found = Chain { head, readable: Vec::new(), writable: Vec::new() };
            let (mut descriptors, mut goes_on) = (0, false);
            for descriptor in chain.by_ref().take(size) {
                let segment = Segment { address: descriptor.addr().0, length: descriptor.len() };
                if descriptor.is_write_only() {
                    found.writable.push(segment);
                } else if found.writable.is_empty() {
                    found.readable.push(segment);
                } else {
                    return Err(QueueError::Order { head });
                }
                (descriptors, goes_on) = (descriptors + 1, descriptor.has_next());
            }
            if descriptors == 0 {
                return Err(QueueError::NoDescriptor { head });
            }
            if goes_on || chain.next().is_some() {
                return Err(QueueError::Endless { head, descriptors });
            }
            taken.push(found);
        }
        Ok(taken)
    }

    /// Gives a request back, of whose buffers so many bytes were written.
    pub(super) fn give(
        &mut self,
        memory: &mut Memory<'_>,
        head: u16,
        written: u32,
    ) -> Result<(), QueueError> {
        self.refresh(memory)?;
        let Self { queue, copies, .. } = self;
        let view = View { memory, copies };
        queue.add_used(&view, head, written).map_err(|_| QueueError::Ring)?;
        let used = self.place(Part::Used);
        let copy = self.copies.0.iter().find(|(base, _)| *base == used);
        let Some((_, copy)) = copy else { return Ok(()) };
        let mut bytes = vec![0; Part::Used.size(self.size()) as usize];
        copy.as_volatile_slice().copy_to(&mut bytes);
        let wrong = |error| QueueError::Memory { part: Part::Used, error };
        memory.write(used, &bytes).map_err(wrong)
    }

    /// Whether the driver wants to hear of it.
    pub(super) fn wants_interrupts(&self, memory: &Memory<'_>) -> bool {
        let view = View { memory, copies: &self.copies };
        let flags = view.load::<u16>(GuestAddress(self.place(Part::Available)), Ordering::Acquire);
        flags.is_ok_and(|flags| u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }
}
