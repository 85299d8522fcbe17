//! Requests of a block device, done with a file (virtio 1.2 section 5.2.6).
//!
//! **Invariant**: no byte beyond the file's size at the start is touched, and the file never grows; a
//! request holds its list of buffers and no bytes.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_ID_BYTES,
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT,
};

use super::QUEUE_SIZE;
use super::queue::{Chain, QueueError, Segment};
use crate::dma::{DmaError, Fault, Memory, Streamed};

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// What a driver reads of the disk's name.
const NAME: [u8; VIRTIO_BLK_ID_BYTES as usize] = *b"cxl-harness disk\0\0\0\0";
/// Bytes in front of a request: type, 32 bits that mean nothing, first sector.
const HEADER: usize = 16;

/// Features beside those of every device.
pub(super) const FEATURES: u64 =
    1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE | 1 << VIRTIO_BLK_F_FLUSH;

/// The answer to a request that was done.
pub(super) fn done() -> u8 {
    VIRTIO_BLK_S_OK as u8
}

/// The answer to one that was not.
pub(super) fn failed() -> u8 {
    VIRTIO_BLK_S_IOERR as u8
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// A buffer is no memory.
    Buffer {
        /// The request's first descriptor.
        head: u16,
        /// Why not.
        error: DmaError,
    },
    /// A request shorter than its head.
    Short {
        /// The request's first descriptor.
        head: u16,
        /// Bytes that it has to be read.
        bytes: u64,
    },
    /// A kind of request that was not offered.
    Unknown {
        /// The request's first descriptor.
        head: u16,
        /// The number.
        kind: u32,
    },
    /// No whole number of sectors, or beyond the end of the disk.
    Place {
        /// The request's first descriptor.
        head: u16,
        /// The first sector.
        sector: u64,
        /// Bytes.
        bytes: u64,
        /// Sectors that there are.
        sectors: u64,
    },
    /// The host's file gave up.
    File {
        /// What was done with it.
        what: &'static str,
        /// What the host says.
        error: String,
    },
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Buffer { head, error } => write!(f, "request {head}: its buffer: {error}"),
            Self::Short { head, bytes } => {
                write!(f, "request {head}: expected a head of {HEADER} bytes, found {bytes}")
            }
            Self::Unknown { head, kind } => {
                write!(f, "request {head}: kind {kind} is not offered")
            }
            Self::Place { head, sector, bytes, sectors } => write!(
                f,
                "request {head}: {bytes:#x} bytes from sector {sector:#x} on, of a disk of \
                 {sectors:#x} sectors"
            ),
            Self::File { what, error } => write!(f, "the disk's file: {what}: {error}"),
        }
    }
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// From the disk into memory.
    Read,
    /// From memory to the disk.
    Write,
    /// What was written is to stay.
    Flush,
    /// The disk's name.
    Name,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Request {
    head: u16,
    kind: Kind,
    /// Where on the disk it is.
    at: u64,
    /// Buffers that are left.
    left: VecDeque<Segment>,
    status: u64,
    written: u32,
    streamed: Streamed,
}

impl Request {
    /// Its first descriptor.
    pub(super) fn head(&self) -> u16 {
        self.head
    }

    /// What it is about.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Where its answer goes.
    pub(super) fn status(&self) -> u64 {
        self.status
    }

    /// Bytes that were written to its buffers.
    pub(super) fn written(&self) -> u32 {
        self.written
    }

    /// Bytes that were moved.
    pub(super) fn streamed(&self) -> Streamed {
        self.streamed
    }
}

/// How a request begins.
pub(super) enum Begun {
    /// It goes on.
    Request(Request),
    /// It is not done, and says so.
    Failed {
        /// Its first descriptor.
        head: u16,
        /// Where its answer goes.
        status: u64,
        /// Why not.
        error: RequestError,
    },
    /// There is no way to answer it.
    NoAnswer(QueueError),
}

/// What came of a step.
pub(super) enum Step {
    /// There is more to do.
    More,
    /// That was the last one.
    Ended(Result<(), RequestError>),
}

/// The disk.
#[derive(Debug)]
pub(super) struct Block {
    file: File,
    size: u64,
}

impl Block {
    /// A disk as large as the file.
    pub(super) fn new(mut file: File) -> io::Result<Self> {
        let size = file.seek(SeekFrom::End(0))?;
        if size == 0 || !size.is_multiple_of(SECTOR) {
            return Err(io::Error::other(format!(
                "expected a number of sectors of {SECTOR} bytes, found {size} bytes"
            )));
        }
        Ok(Self { file, size })
    }

    /// Bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// What its driver reads of it (struct virtio_blk_config): capacity, most buffers of a request, and
    /// bytes of a sector.
    pub(super) fn config(&self) -> Vec<u8> {
        let mut config = vec![0; 24];
        let fields = [
            (0, (self.size / SECTOR).to_le_bytes().to_vec()),
            (12, u32::from(QUEUE_SIZE - 2).to_le_bytes().to_vec()),
            (20, (SECTOR as u32).to_le_bytes().to_vec()),
        ];
        for (at, bytes) in fields {
            config.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = from);
        }
        config
    }

    /// Looks what a chain asks for.
    pub(super) fn begin(&self, memory: &mut Memory<'_>, chain: Chain) -> Begun {
        let Chain { head, mut readable, mut writable } = chain;
        // The answer is the last byte of all that is written.
        while writable.last().is_some_and(|last| last.length == 0) {
            writable.pop();
        }
        let Some(last) = writable.last_mut() else {
            return Begun::NoAnswer(QueueError::NoStatus { head });
        };
        last.length -= 1;
        let Some(status) = last.address.checked_add(u64::from(last.length)) else {
            let (address, length) = (last.address, u64::from(last.length) + 1);
            let error = DmaError::Wraps { address, length };
            return Begun::NoAnswer(QueueError::Status { head, error });
        };
        let request = self.parse(memory, head, &mut readable);
        let (kind, sector) = match request {
            Ok(found) => found,
            Err(error) => return Begun::Failed { head, status, error },
        };
        let left = if kind == Kind::Write { readable } else { writable };
        let bytes: u64 = left.iter().map(|segment| u64::from(segment.length)).sum();
        let at = sector.saturating_mul(SECTOR);
        let sectors = self.size / SECTOR;
        let fits = sector <= sectors && bytes <= self.size.saturating_sub(at);
        if matches!(kind, Kind::Read | Kind::Write) && !(fits && bytes.is_multiple_of(SECTOR)) {
            let error = RequestError::Place { head, sector, bytes, sectors };
            return Begun::Failed { head, status, error };
        }
        Begun::Request(Request {
            head,
            kind,
            at,
            left: left.into_iter().filter(|segment| segment.length > 0).collect(),
            status,
            written: 0,
            streamed: Streamed::default(),
        })
    }

    /// Takes the head off what is readable: the kind, and the first sector.
    fn parse(
        &self,
        memory: &mut Memory<'_>,
        head: u16,
        readable: &mut [Segment],
    ) -> Result<(Kind, u64), RequestError> {
        let bytes = readable.iter().map(|segment| u64::from(segment.length)).sum();
        let mut header = [0; HEADER];
        let mut rest = &mut header[..];
        for segment in readable.iter_mut() {
            let now = rest.len().min(segment.length as usize);
            let (part, behind) = rest.split_at_mut(now);
            let wrong = |error| RequestError::Buffer { head, error };
            memory.read(segment.address, part).map_err(wrong)?;
            // A range that wraps has been refused.
            segment.address = segment.address.wrapping_add(now as u64);
            segment.length -= now as u32;
            rest = behind;
        }
        if !rest.is_empty() {
            return Err(RequestError::Short { head, bytes });
        }
        let [kind, _, low, high] = {
            let (words, _) = header.as_chunks::<4>();
            let word = |at: usize| words.get(at).map_or(0, |word| u32::from_le_bytes(*word));
            [word(0), word(1), word(2), word(3)]
        };
        let kind = match kind {
            VIRTIO_BLK_T_IN => Kind::Read,
            VIRTIO_BLK_T_OUT => Kind::Write,
            VIRTIO_BLK_T_FLUSH => Kind::Flush,
            VIRTIO_BLK_T_GET_ID => Kind::Name,
            kind => return Err(RequestError::Unknown { head, kind }),
        };
        Ok((kind, u64::from(high) << 32 | u64::from(low)))
    }

    /// Moves up to `most` bytes of a request.
    pub(super) fn step(
        &mut self,
        memory: &mut Memory<'_>,
        request: &mut Request,
        most: u64,
    ) -> Step {
        let head = request.head;
        let ended = match request.kind {
            Kind::Flush => self.file.sync_data().map_err(|error| file("flush", &error)),
            Kind::Name => name(memory, request),
            Kind::Read | Kind::Write => match self.stream(memory, request, most) {
                Ok(true) => Ok(()),
                Ok(false) => return Step::More,
                Err(Fault::Memory(error)) => Err(RequestError::Buffer { head, error }),
                Err(Fault::File(error)) => {
                    Err(file(if request.kind == Kind::Read { "read" } else { "write" }, &error))
                }
            },
        };
        Step::Ended(ended)
    }

    /// Whether all is moved then.
    fn stream(
        &mut self,
        memory: &mut Memory<'_>,
        request: &mut Request,
        most: u64,
    ) -> Result<bool, Fault> {
        let mut budget = most;
        while let Some(segment) = request.left.front_mut().filter(|_| budget > 0) {
            let length = budget.min(segment.length.into());
            self.file.seek(SeekFrom::Start(request.at))?;
            request.streamed += if request.kind == Kind::Read {
                memory.fill(segment.address, length, &mut self.file)?
            } else {
                memory.drain(segment.address, length, &mut self.file)?
            };
            if request.kind == Kind::Read {
                request.written = request.written.saturating_add(length as u32);
            }
            // It was all memory, which does not wrap.
            segment.address = segment.address.wrapping_add(length);
            segment.length -= length as u32;
            request.at += length;
            budget -= length;
            if segment.length == 0 {
                request.left.pop_front();
            }
        }
        Ok(request.left.is_empty())
    }
}

fn name(memory: &mut Memory<'_>, request: &mut Request) -> Result<(), RequestError> {
    let mut rest = &NAME[..];
    for segment in &request.left {
        let (now, behind) = rest.split_at(rest.len().min(segment.length as usize));
        let head = request.head;
        let wrong = |error| RequestError::Buffer { head, error };
        memory.write(segment.address, now).map_err(wrong)?;
        request.written += now.len() as u32;
        rest = behind;
    }
    Ok(())
}

fn file(what: &'static str, error: &io::Error) -> RequestError {
    RequestError::File { what, error: error.to_string() }
}
