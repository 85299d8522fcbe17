//! Memory as a device sees it: where a range of host addresses leads, and transfers by scatter list.
//!
//! RAM, and CXL memory that is mirrored, is host memory of any length in one piece. A range that
//! decodes and traps is bounced: the machine decodes it, of any length too. A range that does not
//! decode is an error that says where, and bytes behind an error are not moved.
//!
//! **Invariant**: a transfer looks up each range at the moment it moves its bytes, so a decoder that
//! is taken back, or a device that is pulled out, stops a transfer that is under way; no transfer
//! keeps another waiting.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};

use vm_memory::{
    Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, ReadVolatile,
    VolatileMemory, VolatileMemoryError, VolatileSlice, WriteVolatile,
};

use crate::kvm::Slot;
use crate::mirror::Mirror;
use cxl_model::machine::Machine;
use cxl_model::mapping::{Reach, Reason};
use cxl_model::trace::Target;

/// Bytes that decode as one: an access to trapped memory may change its owner after so many.
const GRANULE: u64 = 256;
/// Size of the buffer that bounced bytes go through.
const BUFFER: u64 = 64 << 10;

/// Everything that a device can reach.
pub struct Memory<'a> {
    /// Guest RAM.
    pub ram: &'a GuestMemoryMmap,
    /// The machine behind everything else.
    pub machine: &'a mut Machine,
    /// Which CXL memory is mirrored.
    pub mirror: &'a Mirror,
    /// Plain memory behind BARs that is mapped.
    pub bar_slots: &'a [Slot],
}

/// What a piece of memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Guest RAM.
    Ram,
    /// Memory of a device: CXL memory, or memory behind a BAR. What maps RAM for an IOMMU would
    /// leave it out.
    DeviceMemory,
}

/// How a piece of memory is reached.
#[derive(Clone, Copy, Debug)]
pub enum Way<'a> {
    /// It is host memory.
    Direct(VolatileSlice<'a>),
    /// The machine decodes each access.
    Bounced,
}

/// A part of a range that is reached in one way.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// First address.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// What it is.
    pub class: Class,
    /// How it is reached.
    pub way: Way<'a>,
}

/// Why a range is no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaError {
    /// The range passes the end of the address space.
    Wraps {
        /// First address.
        address: u64,
        /// Bytes.
        length: u64,
    },
    /// Nothing decodes the address.
    NothingDecodes {
        /// The first such address of the range.
        address: u64,
        /// Why, if it lies in a window.
        reason: Option<Reason>,
    },
    /// Registers are no memory.
    Registers {
        /// The first such address of the range.
        address: u64,
    },
}

impl DmaError {
    /// The address at which it went wrong.
    pub fn address(self) -> u64 {
        match self {
            Self::Wraps { address, .. }
            | Self::NothingDecodes { address, .. }
            | Self::Registers { address } => address,
        }
    }
}

impl fmt::Display for DmaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Wraps { address, length } => {
                write!(f, "{length:#x} bytes from {address:#x} pass the end of the address space")
            }
            Self::NothingDecodes { address, reason: None } => {
                write!(f, "nothing decodes {address:#x}")
            }
            Self::NothingDecodes { address, reason: Some(reason) } => {
                write!(f, "nothing decodes {address:#x}: {}", reason.name())
            }
            Self::Registers { address } => write!(f, "{address:#x} is a register, not memory"),
        }
    }
}

impl std::error::Error for DmaError {}

impl<'a> Memory<'a> {
    /// The pieces of a range, in order; they cover it, or there is an error.
    pub fn translate(&self, address: u64, length: u64) -> Result<Vec<Piece<'a>>, DmaError> {
        let end = address.checked_add(length).ok_or(DmaError::Wraps { address, length })?;
        let mut pieces: Vec<Piece<'a>> = Vec::new();
        let mut at = address;
        while at < end {
            let piece = self.piece(at, end - at)?;
            // Never empty, so each round comes nearer to the end.
            at += piece.length;
            match pieces.last_mut() {
                Some(Piece { way: Way::Bounced, length, class, .. })
                    if matches!(piece.way, Way::Bounced) && *class == piece.class =>
                {
                    *length += piece.length;
                }
                _ => pieces.push(piece),
            }
        }
        Ok(pieces)
    }

    /// The first piece of a range of `left` bytes, at least one.
    fn piece(&self, address: u64, left: u64) -> Result<Piece<'a>, DmaError> {
        if let Some(piece) = self.direct(address, left) {
            return Ok(piece);
        }
        let bounced = |length| {
            let class = Class::DeviceMemory;
            Ok(Piece { address, length, class, way: Way::Bounced })
        };
        let left = self.boundary(address).map_or(left, |next| left.min(next - address));
        match self.machine.target(address) {
            Some(Target::Window) => {
                let mappings = self.mirror.mappings.iter().filter_map(|m| Some((m.span()?, m)));
                let here = { mappings }.find(|(span, _)| span.contains(cxl_regs::Hpa(address)));
                let Some((span, mapping)) = here else {
                    return Err(DmaError::NothingDecodes { address, reason: None });
                };
                let left = left.min(span.end().0 - address);
                match mapping.how {
                    // Every byte of it is proved to be one.
                    Reach::Direct(_) => bounced(left),
                    // It may decode all the same.
                    Reach::Trapped { .. } if self.decodes(address) => {
                        bounced(left.min(GRANULE - address % GRANULE))
                    }
                    Reach::Trapped { reason } => {
                        Err(DmaError::NothingDecodes { address, reason: Some(reason) })
                    }
                }
            }
            Some(Target::VendorMemory { .. }) => bounced(left.min(GRANULE - address % GRANULE)),
            Some(_) => Err(DmaError::Registers { address }),
            None => Err(DmaError::NothingDecodes { address, reason: None }),
        }
    }

    /// Host memory at an address: RAM, or a slot.
    fn direct(&self, address: u64, left: u64) -> Option<Piece<'a>> {
        let ram: &'a GuestMemoryMmap = self.ram;
        let (mirror, bars): (&'a Mirror, &'a [Slot]) = (self.mirror, self.bar_slots);
        let (class, memory, offset, length) = match ram.find_region(GuestAddress(address)) {
            Some(region) => {
                let offset = address - region.start_addr().raw_value();
                let slice = region.as_volatile_slice().ok()?;
                (Class::Ram, slice, offset, left.min(region.len() - offset))
            }
            None => {
                let mut slots = mirror.slots.iter().chain(bars);
                let slot =
                    slots.find(|slot| (slot.base..slot.base + slot.size).contains(&address))?;
                let within = address - slot.base;
                let length = left.min(slot.size - within);
                let slice = slot.memory.as_volatile_slice();
                (Class::DeviceMemory, slice, slot.offset + within, length)
            }
        };
        let slice = memory.subslice(offset as usize, length as usize).ok()?;
        Some(Piece { address, length, class, way: Way::Direct(slice) })
    }

    /// The next address at which host memory, or something else than the window, begins.
    fn boundary(&self, address: u64) -> Option<u64> {
        let slots = self.mirror.slots.iter().chain(self.bar_slots).map(|slot| slot.base);
        let fixed = self.machine.map().fixed().map(|span| span.base().0);
        slots.chain(fixed).filter(|base| *base > address).min()
    }

    /// Whether a device has memory behind the address.
    fn decodes(&self, address: u64) -> bool {
        let landing = self.machine.resolve(address);
        landing.is_some_and(|landing| {
            let endpoint = self.machine.endpoint(landing.device);
            endpoint.is_some_and(|endpoint| endpoint.media.holds(landing.dpa, 1))
        })
    }

    /// Reads a range.
    pub fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), DmaError> {
        let pieces = self.translate(address, bytes.len() as u64)?;
        let mut rest = bytes;
        for piece in pieces {
            let (now, behind) = rest.split_at_mut(rest.len().min(piece.length as usize));
            self.read_piece(&piece, 0, now);
            rest = behind;
        }
        Ok(())
    }

    /// Writes a range; no byte of it if it is not all memory.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), DmaError> {
        let pieces = self.translate(address, bytes.len() as u64)?;
        let mut rest = bytes;
        for piece in pieces {
            let (now, behind) = rest.split_at(rest.len().min(piece.length as usize));
            self.write_piece(&piece, 0, now);
            rest = behind;
        }
        Ok(())
    }

    /// Fills a range from a file, from where that stands on; no byte of it if it is not all memory.
    pub fn fill(&mut self, address: u64, length: u64, file: &mut File) -> Result<Streamed, Fault> {
        let mut streamed = Streamed::default();
        for piece in self.translate(address, length)? {
            match piece.way {
                Way::Direct(mut slice) => file.read_exact_volatile(&mut slice)?,
                Way::Bounced => self.bounce(&piece, |memory, at, bytes| {
                    file.read_exact(bytes)?;
                    memory.machine.write_bytes(at, bytes);
                    Ok(())
                })?,
            }
            streamed.count(&piece);
        }
        Ok(streamed)
    }

    /// Stores a range to a file, where that stands; no byte of it if it is not all memory.
    pub fn drain(&mut self, address: u64, length: u64, file: &mut File) -> Result<Streamed, Fault> {
        let mut streamed = Streamed::default();
        for piece in self.translate(address, length)? {
            match piece.way {
                Way::Direct(slice) => file.write_all_volatile(&slice)?,
                Way::Bounced => self.bounce(&piece, |memory, at, bytes| {
                    memory.machine.read_bytes(at, bytes);
                    file.write_all(bytes)
                })?,
            }
            streamed.count(&piece);
        }
        Ok(streamed)
    }

    /// Goes through a bounced piece, a buffer at a time.
    fn bounce(
        &mut self,
        piece: &Piece<'_>,
        mut each: impl FnMut(&mut Self, u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; piece.length.min(BUFFER) as usize];
        let mut done = 0;
        while done < piece.length {
            let now = (piece.length - done).min(BUFFER);
            each(self, piece.address + done, buffer.get_mut(..now as usize).unwrap_or_default())?;
            done += now;
        }
        Ok(())
    }

    fn read_piece(&mut self, piece: &Piece<'_>, offset: u64, bytes: &mut [u8]) {
        match piece.way {
            Way::Direct(slice) => {
                if let Ok(part) = slice.subslice(offset as usize, bytes.len()) {
                    part.copy_to(bytes);
                }
            }
            Way::Bounced => self.machine.read_bytes(piece.address + offset, bytes),
        }
    }

    fn write_piece(&mut self, piece: &Piece<'_>, offset: u64, bytes: &[u8]) {
        match piece.way {
            Way::Direct(slice) => {
                if let Ok(part) = slice.subslice(offset as usize, bytes.len()) {
                    part.copy_from(bytes);
                }
            }
            Way::Bounced => self.machine.write_bytes(piece.address + offset, bytes),
        }
    }

    /// Moves bytes; none of them if either range is not all memory.
    fn copy(&mut self, part: Entry) -> Result<Moved, DmaError> {
        let from = self.translate(part.from, part.length)?;
        let to = self.translate(part.to, part.length)?;
        let mut moved = Moved::default();
        let mut done = 0;
        // Cut at the borders of both.
        while done < part.length {
            let at = |pieces: &[Piece<'a>], base: u64| {
                let mut pieces = pieces.iter().copied();
                let piece = pieces.find(|p| (base + done) - p.address < p.length)?;
                let offset = base + done - piece.address;
                Some((piece, offset, piece.length - offset))
            };
            let (Some((source, here, has)), Some((target, there, takes))) =
                (at(&from, part.from), at(&to, part.to))
            else {
                break;
            };
            let length = has.min(takes);
            moved = moved + self.copy_piece((&source, here), (&target, there), length);
            done += length;
        }
        Ok(moved)
    }

    fn copy_piece(
        &mut self,
        (source, here): (&Piece<'_>, u64),
        (target, there): (&Piece<'_>, u64),
        length: u64,
    ) -> Moved {
        if let (Way::Direct(from), Way::Direct(to)) = (source.way, target.way) {
            let parts = from
                .subslice(here as usize, length as usize)
                .and_then(|from| Ok((from, to.subslice(there as usize, length as usize)?)));
            if let Ok((from, to)) = parts {
                from.copy_to_volatile_slice(to);
            }
            return Moved { direct: length, bounced: 0 };
        }
        let mut buffer = vec![0; length.min(BUFFER) as usize];
        let mut done = 0;
        while done < length {
            let now = (length - done).min(BUFFER);
            let bytes = buffer.get_mut(..now as usize).unwrap_or_default();
            self.read_piece(source, here + done, bytes);
            self.write_piece(target, there + done, bytes);
            done += now;
        }
        Moved { direct: 0, bounced: length }
    }
}

/// One element of a scatter list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where bytes are read.
    pub from: u64,
    /// Where they are written.
    pub to: u64,
    /// How many.
    pub length: u64,
}

/// Bytes moved, by way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// From host memory to host memory.
    pub direct: u64,
    /// Through the machine's decode at one end or both.
    pub bounced: u64,
}

impl std::ops::Add for Moved {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { direct: self.direct + other.direct, bounced: self.bounced + other.bounced }
    }
}

/// Bytes that went between memory and a file, by what the memory is and how it was reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streamed {
    /// From or to guest RAM.
    pub ram: u64,
    /// From or to memory of a device that is host memory.
    pub direct: u64,
    /// Through the machine's decode.
    pub bounced: u64,
}

impl Streamed {
    fn count(&mut self, piece: &Piece<'_>) {
        match (piece.way, piece.class) {
            (Way::Bounced, _) => self.bounced += piece.length,
            (Way::Direct(_), Class::Ram) => self.ram += piece.length,
            (Way::Direct(_), Class::DeviceMemory) => self.direct += piece.length,
        }
    }
}

impl std::ops::AddAssign for Streamed {
    fn add_assign(&mut self, other: Self) {
        self.ram += other.ram;
        self.direct += other.direct;
        self.bounced += other.bounced;
    }
}

/// Why bytes did not go between memory and a file.
#[derive(Debug)]
pub enum Fault {
    /// The range is not all memory.
    Memory(DmaError),
    /// The file gave up; a part of the range may have been moved.
    File(io::Error),
}

impl From<DmaError> for Fault {
    fn from(error: DmaError) -> Self {
        Self::Memory(error)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl From<VolatileMemoryError> for Fault {
    fn from(error: VolatileMemoryError) -> Self {
        Self::File(match error {
            VolatileMemoryError::IOError(error) => error,
            other => io::Error::other(other.to_string()),
        })
    }
}

/// A transfer under way.
#[derive(Clone, Debug)]
pub struct Transfer {
    list: std::vec::IntoIter<Entry>,
    now: Option<Entry>,
    moved: Moved,
}

impl Transfer {
    /// A transfer of which nothing is done yet.
    pub fn new(list: Vec<Entry>) -> Self {
        let mut list = list.into_iter();
        let now = list.next();
        Self { list, now, moved: Moved::default() }
    }

    /// Moves up to `most` bytes; whether all are moved then. An error ends the transfer.
    pub fn step(&mut self, memory: &mut Memory<'_>, most: u64) -> Result<bool, DmaError> {
        let mut left = most;
        while let Some(entry) = self.now {
            let length = entry.length.min(left);
            match memory.copy(Entry { length, ..entry }) {
                Ok(moved) => self.moved = self.moved + moved,
                Err(error) => {
                    self.now = None;
                    return Err(error);
                }
            }
            left -= length;
            self.now = if length == entry.length {
                self.list.next()
            } else {
                let (from, to) = (entry.from + length, entry.to + length);
                Some(Entry { from, to, length: entry.length - length })
            };
            if left == 0 {
                break;
            }
        }
        Ok(self.now.is_none())
    }

    /// What was moved so far.
    pub fn moved(&self) -> Moved {
        self.moved
    }
}
