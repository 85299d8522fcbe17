//! The component register block: its regions, and the array that says which capability
//! structures its CXL.cache/mem range holds (CXL r3.1 sections 8.2.3 and 8.2.4).
//!
//! Offsets here count from the start of the CXL.cache/mem range, where the array is.
//!
//! **Invariant**: a [`Capability`] lies whole within its 4 KiB range, behind the array, on a dword.

mod text;

use core::fmt;
use core::mem::offset_of;

use crate::access::rules::{RO, RW1CS, RWS};
use crate::access::{Field, Register, Spec, register};
use crate::bi::{BiDecoder, BiRouteTable};
use crate::block;
use crate::cache_id::{CacheIdDecoder, CacheIdRouteTable};
use crate::codes::codes;
use crate::hdm;
use crate::layout::CapabilityArray;

pub use text::ComponentText;

/// Size of a component register block.
pub const BLOCK_SIZE: u32 = 0x1_0000;
/// Size of a CXL.cache/mem range.
pub const RANGE_SIZE: u16 = 0x1000;

/// The parts of a component register block (table 8-21).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Region {
    /// CXL.io registers.
    Io,
    /// The primary CXL.cache/mem range, which starts with the capability array.
    CacheMem,
    /// Up to the implementation, or further CXL.cache/mem ranges.
    Implementation,
    /// ARB/MUX registers.
    ArbMux,
    /// Nothing.
    Reserved,
}

impl Region {
    /// All parts in order, each with the offset at which it ends.
    const ENDS: [(Self, u32); 5] = [
        (Self::Io, 0x1000),
        (Self::CacheMem, 0x2000),
        (Self::Implementation, 0xE000),
        (Self::ArbMux, 0xE400),
        (Self::Reserved, BLOCK_SIZE),
    ];

    /// The part that an offset lies in; `None` outside the block.
    pub fn at(offset: u32) -> Option<Self> {
        Self::ENDS.iter().find(|&&(_, end)| offset < end).map(|&(region, _)| region)
    }

    /// Where the part starts and ends in the block.
    pub const fn extent(self) -> core::ops::Range<u32> {
        let index = self as usize;
        let start = if index == 0 { 0 } else { Self::ENDS[index - 1].1 };
        start..Self::ENDS[index].1
    }
}

/// The primary CXL.cache/mem range of a dump of the whole block; `None` if the dump ends before.
pub fn cache_mem(component: &[u8]) -> Option<&[u8]> {
    let core::ops::Range { start, end } = Region::CacheMem.extent();
    component.get(start as usize..end as usize)
}

register! {
    /// CXL Capability Header Register, offset 0x00 (CXL r3.1 section 8.2.4.1).
    ArrayHeader: u32, "CXL Capability Header" at (offset_of!(CapabilityArray, header)) {
        /// 1 for the array.
        id: u16, "CXL_Capability_ID", RO;
        /// Version of the array.
        version: u8[4], "CXL_Capability_Version", RO;
        /// Version of the whole range.
        cache_mem_version: u8[4], "CXL_Cache_Mem_Version", RO;
        /// Entries that follow.
        size: u8, "Array_Size", RO;
    }
}

register! {
    /// CXL Capability Array Entry Register, offset 0x04 (CXL r3.1 section 8.2.4.1). The first
    /// entry; each further one is 4 bytes on.
    ArrayEntry: u32, "CXL Capability Array Entry" at (offset_of!(CapabilityArray, entries)) {
        /// See [`CapabilityId`].
        id: u16, "CXL_Capability_ID", RO;
        /// Version of the structure.
        version: u8[4], "CXL_Capability_Version", RO;
        /// Offset in bytes from the array header.
        pointer: u16[12], "Pointer", RO;
    }
}

codes! {
    /// IDs of capability structures (table 8-22).
    CapabilityId: u16 {
        /// An entry that is not used; its other bits mean nothing.
        Null = 0x00, "null";
        /// The array itself.
        Array = 0x01, "capability array";
        /// RAS.
        Ras = 0x02, "RAS";
        /// Security.
        Security = 0x03, "security";
        /// Link.
        Link = 0x04, "link";
        /// HDM decoders.
        HdmDecoder = 0x05, "HDM decoder";
        /// Extended security.
        ExtendedSecurity = 0x06, "extended security";
        /// IDE.
        Ide = 0x07, "IDE";
        /// Snoop filter.
        SnoopFilter = 0x08, "snoop filter";
        /// Timeout and isolation.
        TimeoutIsolation = 0x09, "timeout/isolation";
        /// Which pages hold further ranges.
        ExtendedRegister = 0x0A, "extended register";
        /// BI route table.
        BiRouteTable = 0x0B, "BI route table";
        /// BI decoder.
        BiDecoder = 0x0C, "BI decoder";
        /// Cache ID route table.
        CacheIdRouteTable = 0x0D, "Cache ID routes";
        /// Cache ID decoder.
        CacheIdDecoder = 0x0E, "Cache ID decoder";
        /// More HDM decoders, laid out as [`CapabilityId::HdmDecoder`] (section 8.2.4.30).
        ExtendedHdmDecoder = 0x0F, "extended HDM";
        /// Extended metadata.
        ExtendedMetadata = 0x10, "extended metadata";
    }
}

impl CapabilityId {
    /// The least bytes a structure takes, whatever its version; a dword where nothing is known.
    pub const fn least_length(self) -> u16 {
        match self {
            Self::Ras => RAS_LENGTH,
            Self::Link => 0x38,
            Self::HdmDecoder | Self::ExtendedHdmDecoder => hdm::structure_length(1),
            Self::Ide => 0x20,
            Self::SnoopFilter | Self::ExtendedMetadata => 0x08,
            Self::TimeoutIsolation => 0x10,
            Self::BiRouteTable => BiRouteTable::EXTENT.end,
            Self::BiDecoder => BiDecoder::EXTENT.end,
            Self::CacheIdRouteTable => CacheIdRouteTable::EXTENT.end,
            Self::CacheIdDecoder => CacheIdDecoder::EXTENT.end,
            _ => 0x04,
        }
    }
}

const UNCORRECTABLE: [(&str, usize, usize); 2] =
    [("Data, Address and Header Errors", 0, 12), ("Receiver, Internal and IDE Errors", 14, 3)];

const fn dword(name: &'static str, offset: u16, fields: &'static [Field]) -> Spec {
    Spec { name, offset, bytes: 4, fields }
}

const fn uncorrectable(rule: crate::access::Rule) -> [Field; 2] {
    let [(first, at, bits), (second, at2, bits2)] = UNCORRECTABLE;
    [Field::new(first, at, bits, rule), Field::new(second, at2, bits2, rule)]
}

/// Length of the RAS structure: its registers and 64 bytes of header log.
const RAS_LENGTH: u16 = 0x58;

/// The RAS Capability Structure (section 8.2.4.17) without its header log, as far as a model needs
/// it to have the structure at all.
pub const RAS_REGISTERS: &[Spec] = &[
    dword("Uncorrectable Error Status", 0x00, &uncorrectable(RW1CS)),
    dword("Uncorrectable Error Mask", 0x04, &uncorrectable(RWS)),
    dword("Uncorrectable Error Severity", 0x08, &uncorrectable(RWS)),
    dword("Correctable Error Status", 0x0C, &[Field::new("Correctable Errors", 0, 7, RW1CS)]),
    dword("Correctable Error Mask", 0x10, &[Field::new("Correctable Errors", 0, 7, RWS)]),
    dword(
        "Error Capabilities and Control",
        0x14,
        &[
            Field::new("First Error Pointer", 0, 6, RO),
            Field::new("Multiple Header Recording Capability", 9, 1, RO),
            Field::new("Poison Enabled", 13, 1, RWS),
        ],
    ),
];

/// Why the array, or one of its entries, makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArrayError {
    /// Nothing answers.
    AllOnes,
    /// The array does not start with its own ID and with versions of at least 1.
    Header {
        /// The dword.
        found: u32,
    },
    /// An entry reads as all-ones.
    EntryAllOnes {
        /// Which entry, from 1.
        entry: u8,
    },
    /// A pointer is not a multiple of 4.
    Misaligned {
        /// Which entry, from 1.
        entry: u8,
        /// What it should lead to.
        id: CapabilityId,
        /// The pointer.
        pointer: u16,
    },
    /// A pointer leads into the array.
    InsideArray {
        /// Which entry, from 1.
        entry: u8,
        /// What it should lead to.
        id: CapabilityId,
        /// The pointer.
        pointer: u16,
        /// Where the array ends.
        array_end: u16,
    },
    /// The structure would pass the end of the 4 KiB range.
    PastEnd {
        /// Which entry, from 1.
        entry: u8,
        /// What it should lead to.
        id: CapabilityId,
        /// The pointer.
        pointer: u16,
        /// The least bytes such a structure has.
        length: u16,
    },
}

impl fmt::Display for ArrayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllOnes => f.write_str("component registers read as all-ones: nothing answers"),
            Self::Header { found } => {
                write!(f, "capability array starts with {found:#010x}, not ID 1, versions 1")
            }
            Self::EntryAllOnes { entry } => {
                write!(f, "capability array entry {entry} reads as all-ones: nothing answers")
            }
            Self::Misaligned { entry, id, pointer } => write!(
                f,
                "capability array entry {entry} ({id}) points to {pointer:#05x}, not a multiple \
                 of 4"
            ),
            Self::InsideArray { entry, id, pointer, array_end } => write!(
                f,
                "capability array entry {entry} ({id}) points to {pointer:#05x}, into the array \
                 that ends at {array_end:#05x}"
            ),
            Self::PastEnd { entry, id, pointer, length } => write!(
                f,
                "capability array entry {entry} ({id}) points to {pointer:#05x}, where {length:#x} \
                 bytes pass the end of the range"
            ),
        }
    }
}

impl core::error::Error for ArrayError {}

/// A capability structure that an entry leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Which entry, from 1.
    pub entry: u8,
    /// What it is.
    pub id: CapabilityId,
    /// Version; software for a lower one can use it.
    pub version: u8,
    /// Offset in the range.
    pub pointer: u16,
}

impl Capability {
    /// Checks where an entry points; `None` for a null entry, whatever its other bits are.
    fn decode(entry: u8, raw: ArrayEntry, array_end: u16) -> Option<Result<Self, ArrayError>> {
        let (id, pointer) = (CapabilityId::from_code(raw.id()), raw.pointer());
        let length = id.least_length();
        Some(Err(if id == CapabilityId::Null {
            return None;
        } else if raw.into_bits() == u32::MAX {
            ArrayError::EntryAllOnes { entry }
        } else if !pointer.is_multiple_of(4) {
            ArrayError::Misaligned { entry, id, pointer }
        } else if pointer < array_end {
            ArrayError::InsideArray { entry, id, pointer, array_end }
        } else if pointer + length > RANGE_SIZE {
            ArrayError::PastEnd { entry, id, pointer, length }
        } else {
            return Some(Ok(Self { entry, id, version: raw.version(), pointer }));
        }))
    }

    /// The entry for the structure: what the array holds for it.
    pub const fn encode(self) -> ArrayEntry {
        ArrayEntry::new()
            .with_id(self.id.code())
            .with_version(self.version & 0xf)
            .with_pointer(self.pointer & 0xfff)
    }
}

/// The structures that the array leads to, in its order. Null entries are passed over, unknown
/// ones are kept, and a broken entry does not hide those behind it.
#[derive(Clone, Debug)]
pub struct Capabilities<R> {
    reader: R,
    header: ArrayHeader,
    next: u16,
}

impl<R: FnMut(u16) -> u32> Capabilities<R> {
    /// Reads the array's header from the start of a CXL.cache/mem range.
    pub fn new(mut reader: R) -> Result<Self, ArrayError> {
        let header: ArrayHeader = block::read(&mut reader, 0);
        if header.into_bits() == u32::MAX {
            return Err(ArrayError::AllOnes);
        }
        let named = header.id() == CapabilityId::Array.code();
        if !named || header.version() == 0 || header.cache_mem_version() == 0 {
            return Err(ArrayError::Header { found: header.into_bits() });
        }
        Ok(Self { reader, header, next: 1 })
    }

    /// The array's header.
    pub const fn header(&self) -> ArrayHeader {
        self.header
    }

    /// The structure of a kind. Of several the last one counts, as for Linux
    /// (`drivers/cxl/core/regs.c`); other entries may be broken.
    pub fn find(self, id: CapabilityId) -> Option<Capability> {
        self.flatten().filter(|found| found.id == id).last()
    }

    /// Offset of entry `index`, counted from 1; entry 0 is the header.
    const fn entry_offset(index: u16) -> u16 {
        index * ArrayEntry::SPEC.bytes as u16
    }
}

impl<R: FnMut(u16) -> u32> Iterator for Capabilities<R> {
    type Item = Result<Capability, ArrayError>;

    fn next(&mut self) -> Option<Self::Item> {
        let last = u16::from(self.header.size());
        while self.next <= last {
            let index = self.next;
            self.next += 1;
            let at = Self::entry_offset(index - 1);
            let raw: ArrayEntry = block::read(&mut self.reader, at);
            let array_end = Self::entry_offset(last + 1);
            if let Some(found) = Capability::decode(index as u8, raw, array_end) {
                return Some(found);
            }
        }
        None
    }
}
