//! A virtio block device on PCI, over a file: the queue is rust-vmm's, what moves the bytes is
//! [`Memory`], as a guest's buffers may lie in CXL memory (virtio 1.2 sections 4.1 and 5.2).
//!
//! The driver is not trusted. A queue that cannot be followed stops the device until its driver resets
//! it, as the specification has it (DEVICE_NEEDS_RESET); a request that cannot be done ends with an
//! error for the driver. Either is a [`Trouble`] with a name.
//!
//! **Invariant**: bytes move only while Bus Master is on, and only through [`Memory`]. A turn of work
//! moves at most [`TURN`] bytes; what is kept of a driver's doings is at most a queue of requests, and
//! the first [`MOST_TROUBLES`] troubles.

mod block;
mod pci;
mod queue;

use std::collections::VecDeque;
use std::fs::File;

use cxl_regs::Span;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use crate::dma::{Memory, Streamed};
use crate::kvm::Signal;
use block::{Begun, Block, Request, Step};
use cxl_model::kept::Kept;
use pci::{Event, Pci};
use queue::Rings;

pub use block::{RequestError, SECTOR};
pub use pci::{BARS_SIZE, INTERRUPT};
pub use queue::{Part, QueueError};

/// Descriptors of the queue.
pub const QUEUE_SIZE: u16 = 256;
/// Bytes that a request moves before the next one's turn.
const STEP: u64 = 64 << 10;
/// Bytes that a turn of work moves, after which somebody may look at the clock.
pub const TURN: u64 = 4 << 20;
/// Troubles that are kept, the first ones.
pub const MOST_TROUBLES: usize = 64;

/// What went wrong with a driver's doings, or with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The queue cannot be followed; the device waits for a reset.
    Queue(QueueError),
    /// A request ended with an error.
    Request(RequestError),
    /// The driver wants a feature that was not offered, or does not want virtio 1.
    Features(u64),
}

impl Trouble {
    /// Whether it is the host's fault, and not the driver's.
    pub fn is_the_hosts(&self) -> bool {
        matches!(self, Self::Request(RequestError::File { .. }))
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Queue(error) => write!(f, "the queue cannot be followed: {error}"),
            Self::Request(error) => error.fmt(f),
            Self::Features(wanted) => {
                write!(
                    f,
                    "expected features out of {:#x} with virtio 1, found {wanted:#x}",
                    FEATURES
                )
            }
        }
    }
}

/// What the device did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Requests that were done: reads, writes and flushes.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Requests that ended with an error.
    pub failed: u64,
    /// Bytes, by where they came from or went to.
    pub streamed: Streamed,
    /// Requests that were in flight at one time, at most.
    pub together: usize,
    /// What went wrong.
    pub troubles: Kept<Trouble, MOST_TROUBLES>,
}

/// What is offered: virtio 1, and of a block device what [`block`] knows.
const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1 | block::FEATURES;

/// The device.
#[derive(Debug)]
pub struct Disk {
    pci: Pci,
    block: Block,
    rings: Rings,
    /// The driver has said that there is something in the queue.
    told: bool,
    flight: VecDeque<Request>,
    done: Done,
}

impl Disk {
    /// A disk over a file whose size is a number of sectors, with its configuration space at
    /// `config`, and its registers in the first of these addresses.
    pub fn new(file: File, config: Span, bars: Span) -> std::io::Result<Self> {
        let block = Block::new(file)?;
        Ok(Self {
            pci: Pci::new(config, bars, FEATURES, block.config()),
            block,
            rings: Rings::new(QUEUE_SIZE),
            told: false,
            flight: VecDeque::new(),
            done: Done::default(),
        })
    }

    /// Whether an address is the disk's, provided that nothing of the machine claims it.
    pub fn claims(&self, address: u64) -> bool {
        self.pci.claims(address)
    }

    /// Answers a read.
    pub fn read(&mut self, address: u64, data: &mut [u8]) {
        self.pci.read(address, data, &self.rings);
    }

    /// Takes a write.
    pub fn write(&mut self, address: u64, data: &[u8]) {
        match self.pci.write(address, data, &mut self.rings) {
            Some(Event::Notified) => self.told = true,
            Some(Event::Reset) => self.reset(),
            Some(Event::Features(wanted)) => {
                self.done.troubles.push(Trouble::Features(wanted));
            }
            Some(Event::Queue(error)) => self.stop(error),
            None => {}
        }
    }

    /// Forgets what is in flight; nothing of it has an answer.
    pub fn reset(&mut self) {
        self.pci.reset();
        self.rings.reset();
        self.told = false;
        self.flight.clear();
    }

    fn stop(&mut self, error: QueueError) {
        self.flight.clear();
        self.told = false;
        self.pci.needs_reset();
        self.done.troubles.push(Trouble::Queue(error));
    }

    /// A turn of work; whether there is more.
    pub fn work(&mut self, memory: &mut Memory<'_>) -> bool {
        if !self.pci.works() || !self.told && self.flight.is_empty() {
            return false;
        }
        match self.turn(memory) {
            Ok(()) => {}
            Err(error) => self.stop(error),
        }
        self.told || !self.flight.is_empty()
    }

    fn turn(&mut self, memory: &mut Memory<'_>) -> Result<(), QueueError> {
        let mut ended = false;
        if std::mem::take(&mut self.told) {
            let room = usize::from(QUEUE_SIZE).saturating_sub(self.flight.len());
            for chain in self.rings.take(memory, room)? {
                match self.block.begin(memory, chain) {
                    Begun::Request(request) => self.flight.push_back(request),
                    Begun::Failed { head, status, error } => {
                        self.done.failed += 1;
                        self.done.troubles.push(Trouble::Request(error));
                        self.answer(memory, head, status, block::failed(), 0)?;
                        ended = true;
                    }
                    Begun::NoAnswer(error) => return Err(error),
                }
            }
        }
        self.done.together = self.done.together.max(self.flight.len());
        // Each in turn, so that they are under way side by side.
        for _ in 0..TURN / STEP {
            let Some(mut request) = self.flight.pop_front() else { break };
            match self.block.step(memory, &mut request, STEP) {
                Step::More => self.flight.push_back(request),
                Step::Ended(result) => {
                    self.end(memory, &request, result)?;
                    ended = true;
                }
            }
        }
        if ended && self.rings.wants_interrupts(memory) {
            self.pci.interrupt_queue();
        }
        Ok(())
    }

    /// Counts what came of a request, and answers it.
    fn end(
        &mut self,
        memory: &mut Memory<'_>,
        request: &Request,
        result: Result<(), RequestError>,
    ) -> Result<(), QueueError> {
        self.done.streamed += request.streamed();
        let status = match result {
            Ok(()) => {
                match request.kind() {
                    block::Kind::Read | block::Kind::Name => self.done.reads += 1,
                    block::Kind::Write => self.done.writes += 1,
                    block::Kind::Flush => self.done.flushes += 1,
                }
                block::done()
            }
            Err(error) => {
                self.done.failed += 1;
                self.done.troubles.push(Trouble::Request(error));
                block::failed()
            }
        };
        self.answer(memory, request.head(), request.status(), status, request.written())
    }

    fn answer(
        &mut self,
        memory: &mut Memory<'_>,
        head: u16,
        place: u64,
        status: u8,
        written: u32,
    ) -> Result<(), QueueError> {
        memory.write(place, &[status]).map_err(|error| QueueError::Status { head, error })?;
        self.rings.give(memory, head, written.saturating_add(1))
    }

    /// What is to be signalled to the processor, in order.
    pub fn signals(&mut self) -> Vec<Signal> {
        self.pci.signals()
    }

    /// What it did.
    pub fn done(&self) -> &Done {
        &self.done
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.block.size()
    }
}
