//! An ELF file as it is to lie in guest memory: segments, entry points, and what is wrong with it.
//!
//! linux-loader's own reader takes any machine's code and 32-bit headers for 64-bit ones, looks at
//! one PT_NOTE segment only, and does not say which segment has no place; images come from
//! everywhere here, so each of these is an answer of its own.
//!
//! **Invariant**: a file that is [read] lies inside itself and inside `free` with every byte,
//! no two segments meet, and the PVH entry is in one of them; nothing is loaded before all is known.

use std::fmt;
use std::ops::Range;

use object::Endianness;
use object::elf::{EM_386, EM_X86_64, FileHeader32, FileHeader64, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader};

/// XEN_ELFNOTE_PHYS32_ENTRY: the note with the PVH entry (Xen, public/elfnote.h).
const PVH_ENTRY: u32 = 18;
/// Segments of a file; no linker makes as many.
const MOST_SEGMENTS: usize = 4096;

/// A file that can be loaded.
#[derive(Debug)]
pub struct Image<'a> {
    /// The entry point of the header.
    pub entry: u64,
    /// The entry point of the PVH note, if there is one.
    pub pvh: Option<u64>,
    /// Where to put which bytes; memory behind them is zero.
    pub segments: Vec<(u64, &'a [u8])>,
}

/// Why a file cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// It does not start as an ELF file does.
    NotElf {
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// It is for another processor.
    Machine {
        /// Whether its numbers have their highest byte first.
        big_endian: bool,
        /// The number of the machine, as read in that order.
        found: u16,
    },
    /// Its headers do not lie in it, or contradict themselves.
    Headers(String),
    /// No segment of it is to be loaded.
    Empty,
    /// The bytes of a segment are not all in the file.
    Truncated {
        /// Its number in the file.
        segment: usize,
        /// Where in the file its bytes are to end.
        end: u128,
        /// Bytes of the file.
        have: u64,
    },
    /// A segment has more bytes in the file than in memory.
    Shrinks {
        /// Its number in the file.
        segment: usize,
        /// Bytes in the file.
        file: u64,
        /// Bytes in memory.
        memory: u64,
    },
    /// A segment does not lie in memory that the image may use.
    Place {
        /// Its number in the file.
        segment: usize,
        /// First address.
        base: u64,
        /// Bytes.
        size: u64,
        /// What it may use.
        free: Vec<Range<u64>>,
    },
    /// Two segments lie over each other.
    Overlap {
        /// The number of one.
        one: usize,
        /// The number of the other.
        other: usize,
        /// The first address that both have.
        at: u64,
    },
    /// A PVH note does not hold an address.
    Note {
        /// The length of what it holds.
        length: usize,
    },
    /// The PVH entry lies in no segment.
    Entry {
        /// Where it is.
        at: u64,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf { found } if found.is_empty() => {
                f.write_str("expected an ELF file, found an empty one")
            }
            Self::NotElf { found } => {
                write!(f, "expected an ELF file (7f 45 4c 46), found one that starts with")?;
                found.iter().try_for_each(|byte| write!(f, " {byte:02x}"))
            }
            Self::Machine { big_endian, found } => {
                let order = if *big_endian { "big-endian " } else { "" };
                write!(
                    f,
                    "expected code for x86 (machine 3 or 62), found {order}code for machine {found}"
                )
            }
            Self::Headers(what) => write!(f, "its headers are broken: {what}"),
            Self::Empty => f.write_str("expected a segment to load (PT_LOAD), found none"),
            Self::Truncated { segment, end, have } => write!(
                f,
                "segment {segment} ends at byte {end:#x} of the file, which has {have:#x}: is it \
                 complete?"
            ),
            Self::Shrinks { segment, file, memory } => write!(
                f,
                "segment {segment} has {file:#x} bytes in the file and {memory:#x} in memory; \
                 expected at least as many there"
            ),
            Self::Place { segment, base, size, free } => {
                let last = u128::from(*base) + u128::from(*size) - 1;
                write!(f, "segment {segment} wants {base:#x}-{last:#x}; memory it may use is ")?;
                for (index, range) in free.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{:#x}-{:#x}", range.start, range.end - 1)?;
                }
                f.write_str(". Link it to another physical address, or give the machine more RAM")
            }
            Self::Overlap { one, other, at } => {
                write!(f, "segments {one} and {other} both want {at:#x}")
            }
            Self::Note { length } => {
                write!(f, "expected an address of 4 or 8 bytes in the PVH note, found {length}")
            }
            Self::Entry { at } => write!(f, "the PVH entry {at:#x} lies in none of its segments"),
        }
    }
}

/// Reads a file that is to be loaded into `free`.
pub fn read<'a>(file: &'a [u8], free: &[Range<u64>]) -> Result<Image<'a>, ImageError> {
    let start = |length| file.get(..length).unwrap_or(file);
    if start(4) != b"\x7fELF" {
        return Err(ImageError::NotElf { found: start(4).to_vec() });
    }
    // EI_CLASS: the 32-bit format or the 64-bit one.
    match file.get(4) {
        Some(1) => parse::<FileHeader32<Endianness>>(file, free),
        _ => parse::<FileHeader64<Endianness>>(file, free),
    }
}

fn parse<'a, Elf>(file: &'a [u8], free: &[Range<u64>]) -> Result<Image<'a>, ImageError>
where
    Elf: FileHeader<Endian = Endianness>,
{
    let broken = |error: object::read::Error| ImageError::Headers(error.to_string());
    let header = Elf::parse(file).map_err(broken)?;
    let order = header.endian().map_err(broken)?;
    let (machine, big_endian) = (header.e_machine(order), order == Endianness::Big);
    if big_endian || ![EM_386, EM_X86_64].contains(&machine) {
        return Err(ImageError::Machine { big_endian, found: machine.0 });
    }
    let headers = header.program_headers(order, file).map_err(broken)?;
    if headers.len() > MOST_SEGMENTS {
        let found = headers.len();
        return Err(ImageError::Headers(format!("{found} segments, {MOST_SEGMENTS} at most")));
    }
    let (mut segments, mut taken, mut pvh) = (Vec::new(), Vec::new(), None);
    for (segment, header) in headers.iter().enumerate() {
        match header.p_type(order) {
            PT_LOAD => {
                let (base, size): (u64, u64) =
                    (header.p_paddr(order).into(), header.p_memsz(order).into());
                let (offset, length) = header.file_range(order);
                if length > size {
                    return Err(ImageError::Shrinks { segment, file: length, memory: size });
                }
                if size == 0 {
                    continue;
                }
                let (end, have) = (u128::from(offset) + u128::from(length), file.len() as u64);
                let bytes = header.data(order, file);
                let bytes = bytes.map_err(|()| ImageError::Truncated { segment, end, have })?;
                let inside = |range: &Range<u64>| {
                    base >= range.start && base < range.end && size <= range.end - base
                };
                if !free.iter().any(inside) {
                    let free = free.to_vec();
                    return Err(ImageError::Place { segment, base, size, free });
                }
                taken.push((base..base + size, segment));
                segments.push((base, bytes));
            }
            PT_NOTE => {
                let bytes = header.data(order, file);
                let bytes = bytes.map_err(|()| {
                    let (offset, length) = header.file_range(order);
                    let end = u128::from(offset) + u128::from(length);
                    ImageError::Truncated { segment, end, have: file.len() as u64 }
                })?;
                // What else a note segment holds is no business of ours, broken or not.
                let mut notes = NoteIterator::<Elf>::new(order, header.p_align(order), bytes).ok();
                while let Some(note) = notes.as_mut().and_then(|notes| notes.next().ok()).flatten()
                {
                    if note.name() == b"Xen" && note.n_type(order).0 == PVH_ENTRY {
                        pvh = Some(address(note.desc())?);
                    }
                }
            }
            _ => {}
        }
    }
    if segments.is_empty() {
        return Err(ImageError::Empty);
    }
    taken.sort_by_key(|(range, _)| range.start);
    for pair in taken.windows(2) {
        if let [(before, one), (behind, other)] = pair
            && behind.start < before.end
        {
            let at = behind.start;
            return Err(ImageError::Overlap { one: *one.min(other), other: *one.max(other), at });
        }
    }
    if let Some(at) = pvh
        && !taken.iter().any(|(range, _)| range.contains(&at))
    {
        return Err(ImageError::Entry { at });
    }
    Ok(Image { entry: header.e_entry(order).into(), pvh, segments })
}

/// The address in a note: 32 bits, or as many as the assembler's word has.
fn address(bytes: &[u8]) -> Result<u64, ImageError> {
    match *bytes {
        [a, b, c, d] => Ok(u32::from_le_bytes([a, b, c, d]).into()),
        [a, b, c, d, e, f, g, h] => Ok(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
        _ => Err(ImageError::Note { length: bytes.len() }),
    }
}
