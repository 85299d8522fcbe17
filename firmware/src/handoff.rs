//! The hand-off record: what the next stage is told, as bytes at an address.
//!
//! ```text
//! offset  size  header (64 bytes)
//!      0     8  "CXLFWHO\0"
//!      8     2  version, 2
//!     10     2  size of this header
//!     12     4  size of the whole record
//!     16     4  number of region records, which follow the header
//!     20     4  number of decoder records, which follow the regions
//!     24     8  address of the CEDT; 0: none
//!     32     4  size of the CEDT
//!     36     4  number of component records, which follow the decoders
//!     40     4  number of outcome records, which follow the components
//!     44     4  number of remarks of discovery that there was no room for, and that have no outcome
//!     48     8  digest of the registers of all locked decoders
//!     56     8  digest of the record with these eight bytes 0
//!
//! offset  size  region (32 bytes)
//!      0     8  base of the window
//!      8     8  base
//!     16     8  size
//!     24     1  ways, as in HDM Decoder Control
//!     25     1  granularity, likewise
//!     26     1  coherency: 0 host-only, 1 device (HDM-D), 2 back-invalidate (HDM-DB)
//!     27     1  memory: 0 volatile, 1 persistent
//!     28     1  1: every decoder on every path is locked
//!     29     1  memory: 0 not probed, 1 only read, 2 answers at both ends of every way
//!     30     2  reserved, 0
//!
//! offset  size  decoder (56 bytes)
//!      0     4  UID of the host bridge
//!      4     1  component: 0 device, 1 host bridge, 2 upstream port
//!      5     1  decoder number
//!      6     1  fate: 0 untouched, 1 rolled back, 2 stranded, 3 done
//!      7     1  number of ports on the way
//!      8    16  their port numbers, root port first, the rest 0
//!     24    28  the seven registers in order of offset
//!     52     4  number of its component
//!
//! offset  size  component (160 bytes); a component stands behind the one above it
//!      0     4  UID of the host bridge
//!      4     1  0 device, 1 host bridge, 2 upstream port, 3 root port, 4 downstream port
//!      5     1  number of ports on the way
//!      6     2  number of the component above; 0xffff: none
//!      8    16  their port numbers, root port first, the rest 0
//!     24     2  PCI segment
//!     26     2  bus, device and function
//!     28     4  vendor ID, device ID; 0: no function, or it did not answer
//!     32     8  serial number
//!     40    16  bytes of volatile, of persistent memory
//!     56     8  address of the HDM decoder structure; 0: none
//!     64     8  address of the BI decoder or BI route table; 0: none
//!     72     8  address of the CXL device registers; 0: none
//!     80     2  offset in configuration space of the CXL Device DVSEC; 0: none
//!     82     2  of the Flex Bus Port DVSEC
//!     84     2  of the Device Serial Number capability
//!     86     2  Command
//!     88     2  Bridge Control
//!     90     2  DVSEC CXL Control
//!     92    32  configuration space from 0x10 on: six BARs, or of a port BARs, bus numbers and windows
//!    124     4  HDM Decoder Capability
//!    128     4  HDM Decoder Global Control
//!    132     4  control register of the BI decoder or BI route table
//!    136    16  bases of the DVSEC's ranges 1 and 2, of each the upper half first
//!    152     2  DVSEC CXL Lock: CONFIG_LOCK
//!    154     6  reserved, 0
//!
//! offset  size  outcome (40 bytes); of each component in order, then of what is none
//!      0     1  0 in use, 1 left out, 2 broken, 3 not CXL.mem, 4 unused
//!      1     1  what it is, as in a component; 0xff: not known
//!      2     6  reserved, 0
//!      8     2  number of the error or remark; 0: none
//!     10     2  its detail
//!     12    12  where: the three numbers of a `Place`
//!     24    16  expected, found
//! ```
//!
//! Version 1 ended behind the decoders: the header's bytes 36 to 47 and a decoder's last four were
//! reserved and 0. It is read as a record without components and outcomes, and written no more.
//!
//! All numbers are little-endian. A digest is FNV-1a, 64 bits: start with 0xcbf29ce484222325; for
//! each byte, XOR it in, then multiply by 0x100000001b3 modulo 2^64. It notices accidents, not
//! adversaries. The digest of the registers takes, for each locked decoder in the order of the
//! records, its seven dwords in order of offset: whoever reads them again can tell whether anything
//! changed.
//!
//! **Invariant**: [`read()`] gives what [`write()`] was given, or an error that names byte,
//! expected and found; it never gives a part.

mod component;

use core::mem::{offset_of, size_of};

use cxl_regs::access::Component;
use cxl_regs::hdm::{Control, DecoderImage};
use cxl_regs::{Coherency, Granularity, Hpa, Interleave, Span, Ways};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use component::HandoffComponent;
use component::OutcomeRecord;
pub(crate) use component::{ComponentRecord, HEADER_START, Subject, header_dwords, range_base};

use crate::committed::{self, CommittedRef, CommittedRegion, Fate, Probed};
use crate::config::{Cache, Config};
use crate::error::{Code, Error, Fact, Failed, Fault, Numbered, Place};
use crate::mmio::Mmio;
use crate::outcome::{ComponentOutcome, outcomes};
use crate::platform::Ecam;
use crate::policy::EarlierRange;
use crate::topology::{MAX_DEPTH, Partition, Path, Remarks, Tree};

const MAGIC: [u8; 8] = *b"CXLFWHO\0";

/// The version that is written here. It is read, and so are those before.
pub const VERSION: u16 = 2;
/// The version without components and outcomes.
const FIRST: u16 = 1;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: U16,
    header_size: U16,
    size: U32,
    regions: U32,
    decoders: U32,
    cedt_address: U64,
    cedt_size: U32,
    components: U32,
    outcomes: U32,
    unsaid: U32,
    registers: U64,
    digest: U64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RegionRecord {
    window: U64,
    base: U64,
    size: U64,
    ways: u8,
    granularity: u8,
    coherency: u8,
    partition: u8,
    locked: u8,
    probed: u8,
    reserved: [u8; 2],
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct DecoderRecord {
    uid: U32,
    component: u8,
    pub(crate) index: u8,
    fate: u8,
    depth: u8,
    ports: [u8; MAX_DEPTH],
    registers: [U32; 7],
    node: U32,
}

const _: () = {
    assert!(size_of::<Header>() == 64);
    assert!(size_of::<RegionRecord>() == 32);
    assert!(size_of::<DecoderRecord>() == 56);
};

/// FNV-1a, 64 bits.
#[derive(Clone, Copy)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) const START: Self = Self(0xCBF2_9CE4_8422_2325);

    #[inline(never)]
    fn bytes(self, bytes: &[u8]) -> Self {
        let prime = 0x0000_0100_0000_01B3;
        Self(bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(prime)))
    }

    /// With the seven registers of a decoder.
    #[inline(never)]
    pub(crate) fn decoder(self, image: DecoderImage) -> Self {
        let dwords = image.to_dwords();
        let registers = dwords.iter().take(dwords.len() - 1);
        registers.fold(self, |digest, dword| digest.bytes(&dword.to_le_bytes()))
    }
}

/// The digest of decoders' registers: the same from a machine as from its record, if nothing
/// changed in between.
pub fn digest(images: impl IntoIterator<Item = DecoderImage>) -> u64 {
    let digest = images.into_iter().fold(Digest::START, Digest::decoder);
    digest.0
}

/// Where the next stage finds the CEDT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLocation {
    /// Physical address.
    pub address: u64,
    /// Bytes.
    pub size: u32,
}

/// Codes of the record, each with its value; those of the first three are as [`Fact`] numbers them.
const COHERENCY: [Coherency; 3] =
    [Coherency::HostOnly, Coherency::Device, Coherency::BackInvalidate];
const PARTITION: [Partition; 2] = [Partition::Volatile, Partition::Persistent];
const COMPONENT: [Component; 3] = Component::ALL;
const FATE: [Fate; 4] = [Fate::Untouched, Fate::RolledBack, Fate::Stranded, Fate::Done];
const LOCKED: [bool; 2] = [false, true];
const PROBED: [Probed; 3] = [Probed::No, Probed::Read, Probed::Held];

fn encode<T: PartialEq>(codes: &[T], value: T) -> u8 {
    codes.iter().position(|other| *other == value).map_or(u8::MAX, |code| code as u8)
}

/// What a record is made from.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// Where configuration space is: [`Platform::ecam`](crate::platform::Platform::ecam).
    pub ecam: &'a [Ecam],
    /// What was found.
    pub topology: Tree<'a>,
    /// What was found and is no node.
    pub remarks: &'a Remarks,
    /// What the hardware accepted.
    pub committed: CommittedRef<'a>,
    /// Where the next stage finds the CEDT.
    pub cedt: Option<TableLocation>,
}

/// Numbers of parts of a record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) regions: usize,
    pub(crate) decoders: usize,
    pub(crate) components: usize,
    pub(crate) outcomes: usize,
}

impl Counts {
    /// Bytes of a record with so many parts.
    #[inline(never)]
    fn size(self) -> u64 {
        let Self { regions, decoders, components, outcomes } = self;
        // In a record they have 32 bits, and elsewhere they are of lists in memory.
        let bytes = |count: usize, size: usize| count as u64 * size as u64;
        size_of::<Header>() as u64
            + bytes(regions, size_of::<RegionRecord>())
            + bytes(decoders, size_of::<DecoderRecord>())
            + bytes(components, size_of::<ComponentRecord>())
            + bytes(outcomes, size_of::<OutcomeRecord>())
    }
}

/// Writes the record into `buffer` and returns exactly it. What a restore has to put back outside of
/// decoders is read from the components for it.
// Compiled once, whatever the hardware is reached by; the buffer of configuration space is large.
#[inline(never)]
pub fn write<'b>(
    hw: &mut impl Mmio,
    contents: &Contents<'_>,
    buffer: &'b mut [u8],
) -> Result<&'b mut [u8], Error> {
    let Contents { ecam, topology: tree, remarks, committed, cedt } = *contents;
    let all = || outcomes(tree, remarks, committed);
    let counts = Counts {
        regions: committed.regions.len(),
        decoders: committed.decoders.len(),
        components: tree.0.len(),
        outcomes: all().count(),
    };
    let mut fault = Fault::NONE;
    let record = Writer::new(counts, buffer, &mut fault);
    let mut record = fault.told(record)?;
    for region in committed.regions {
        record.region(region);
    }
    for entry in committed.decoders {
        let place = committed::Place::of(tree, entry.node, entry.index);
        record.decoder(place, entry.image, entry.fate, entry.node.0.into());
    }
    let mut cache = Cache::new();
    let mut config = Config::new(&mut cache);
    for (id, node) in tree.iter() {
        let component = ComponentRecord::of(hw, &mut config, ecam, &Subject::of(tree, id, node));
        record.component(&component);
    }
    for outcome in all() {
        record.outcome(outcome);
    }
    Ok(record.finish(cedt, remarks.more()))
}

/// A record that is being written, part behind part.
pub(crate) struct Writer<'b> {
    record: &'b mut [u8],
    counts: Counts,
    at: usize,
    registers: Digest,
}

impl<'b> Writer<'b> {
    /// An empty record, with room for all its parts.
    #[inline(never)]
    pub(crate) fn new(
        counts: Counts,
        buffer: &'b mut [u8],
        fault: &mut Fault,
    ) -> Result<Self, Failed> {
        let (need, have) = (counts.size(), buffer.len());
        match usize::try_from(need).ok().and_then(|need| buffer.get_mut(..need)) {
            Some(record) => {
                Ok(Self { record, counts, at: size_of::<Header>(), registers: Digest::START })
            }
            None => {
                let fault = fault.at(Code::HANDOFF_NO_ROOM, Place::NOWHERE);
                fault.expected(need).found(have).into()
            }
        }
    }

    #[inline(never)]
    fn put(&mut self, bytes: &[u8]) {
        let behind = self.record.get_mut(self.at..).unwrap_or_default();
        put(&mut { behind }, bytes);
        self.at += bytes.len();
    }

    #[inline(never)]
    pub(crate) fn region(&mut self, region: &CommittedRegion) {
        self.put(RegionRecord::from(region).as_bytes());
    }

    #[inline(never)]
    pub(crate) fn decoder(
        &mut self,
        place: committed::Place,
        image: DecoderImage,
        fate: Fate,
        component: u32,
    ) {
        if image.control().locked() {
            self.registers = self.registers.decoder(image);
        }
        self.put(DecoderRecord::new(place, image, fate, component).as_bytes());
    }

    #[inline(never)]
    pub(crate) fn component(&mut self, component: &ComponentRecord) {
        self.put(component.as_bytes());
    }

    #[inline(never)]
    pub(crate) fn outcome(&mut self, outcome: ComponentOutcome) {
        self.put(OutcomeRecord::from(outcome).as_bytes());
    }

    /// The whole record.
    #[inline(never)]
    pub(crate) fn finish(&mut self, cedt: Option<TableLocation>, unsaid: u16) -> &'b mut [u8] {
        let Self { counts, registers, .. } = *self;
        let record = core::mem::take(&mut self.record);
        let cedt = cedt.unwrap_or(TableLocation { address: 0, size: 0 });
        let header = Header {
            magic: MAGIC,
            version: VERSION.into(),
            header_size: (size_of::<Header>() as u16).into(),
            size: (counts.size() as u32).into(),
            regions: (counts.regions as u32).into(),
            decoders: (counts.decoders as u32).into(),
            cedt_size: cedt.size.into(),
            cedt_address: cedt.address.into(),
            components: (counts.components as u32).into(),
            outcomes: (counts.outcomes as u32).into(),
            unsaid: u32::from(unsaid).into(),
            registers: registers.0.into(),
            digest: U64::ZERO,
        };
        put(&mut { &mut *record }, header.as_bytes());
        let digest = Digest::START.bytes(record).0;
        let at = offset_of!(Header, digest);
        if let Some(place) = record.get_mut(at..at + size_of::<U64>()) {
            place.copy_from_slice(&digest.to_le_bytes());
        }
        record
    }
}

/// Copies `bytes` to the front of `rest` and moves `rest` behind them; the size was checked.
fn put(rest: &mut &mut [u8], bytes: &[u8]) {
    if let Some((place, behind)) = core::mem::take(rest).split_at_mut_checked(bytes.len()) {
        place.copy_from_slice(bytes);
        *rest = behind;
    }
}

impl From<&CommittedRegion> for RegionRecord {
    fn from(region: &CommittedRegion) -> Self {
        Self {
            window: region.window.0.into(),
            base: region.span.base().0.into(),
            size: region.span.size().into(),
            ways: region.interleave.ways.encode(),
            granularity: region.interleave.granularity.encode(),
            coherency: region.coherency.pack() as u8,
            partition: region.partition.pack() as u8,
            locked: region.locked.into(),
            probed: encode(&PROBED, region.probed),
            reserved: [0; 2],
        }
    }
}

impl DecoderRecord {
    fn new(place: committed::Place, image: DecoderImage, fate: Fate, node: u32) -> Self {
        let committed::Place { at, component, index } = place;
        let mut ports = [0; MAX_DEPTH];
        for (slot, port) in ports.iter_mut().zip(at.ports()) {
            *slot = *port;
        }
        let mut registers = [U32::ZERO; 7];
        for (slot, dword) in registers.iter_mut().zip(image.to_dwords()) {
            *slot = dword.into();
        }
        Self {
            uid: at.uid().into(),
            component: component.pack() as u8,
            index,
            fate: encode(&FATE, fate),
            depth: at.ports().len() as u8,
            ports,
            registers,
            node: node.into(),
        }
    }
}

/// A decoder as the record has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandoffDecoder {
    /// Where it is.
    pub place: committed::Place,
    /// The number of its component in [`Handoff::components`]; 0 where a record has none.
    pub component: usize,
    /// Its registers; [`cxl_regs::Decoder::decode`] says what they mean.
    pub image: DecoderImage,
    /// What became of it.
    pub fate: Fate,
}

/// A record that was checked: what its parts say has a meaning, and what they name is in it.
#[derive(Clone, Copy, Debug)]
pub struct Handoff<'a> {
    regions: &'a [RegionRecord],
    pub(crate) decoders: &'a [DecoderRecord],
    pub(crate) components: &'a [ComponentRecord],
    outcomes: &'a [OutcomeRecord],
    registers: u64,
    /// Where the CEDT is.
    pub cedt: Option<TableLocation>,
    /// How many remarks of discovery have no outcome, as there was no room for them.
    pub unsaid: u32,
}

/// Reads a record at the start of `bytes`, which may go on behind it. All of it is checked here.
pub fn read(bytes: &[u8]) -> Result<Handoff<'_>, Error> {
    let mut fault = Fault::NONE;
    let handoff = parts(bytes, &mut fault).and_then(|(header, handoff)| {
        handoff.check(header, &mut fault)?;
        Ok(handoff)
    });
    fault.told(handoff)
}

/// The parts of a record whose header and digest are sound.
#[inline(never)]
fn parts<'a>(bytes: &'a [u8], fault: &mut Fault) -> Result<(&'a Header, Handoff<'a>), Failed> {
    let (need, have) = (size_of::<Header>(), bytes.len());
    let Ok((header, _)) = Header::ref_from_prefix(bytes) else {
        return fault.at(Code::HANDOFF_NO_HEADER, Place::NOWHERE).expected(need).found(have).into();
    };
    if header.magic != MAGIC {
        return fault.at(Code::HANDOFF_MAGIC, Place::byte(0)).found(header.magic).into();
    }
    let version = header.version.get();
    if !(FIRST..=VERSION).contains(&version) {
        let at = Place::byte(offset_of!(Header, version));
        return fault.at(Code::HANDOFF_VERSION, at).expected(VERSION).found(version).into();
    }
    let later = |field: U32| if version == FIRST { 0 } else { field.get() };
    let counts = Counts {
        regions: header.regions.get() as usize,
        decoders: header.decoders.get() as usize,
        components: later(header.components) as usize,
        outcomes: later(header.outcomes) as usize,
    };
    let (expected, found) = (counts.size(), header.size.get());
    let at = Place::byte(offset_of!(Header, size));
    if expected != u64::from(found) {
        return fault.at(Code::HANDOFF_SIZE, at).expected(expected).found(found).into();
    }
    let Some(record) = bytes.get(..found as usize) else {
        return fault.at(Code::HANDOFF_TRUNCATED, at).expected(found).found(have).into();
    };
    let blank = Header { digest: U64::ZERO, ..*header };
    let mut rest = record.get(size_of::<Header>()..).unwrap_or(&[]);
    let expected = Digest::START.bytes(blank.as_bytes()).bytes(rest).0;
    if expected != header.digest.get() {
        let at = Place::byte(offset_of!(Header, digest));
        let found = header.digest.get();
        return fault.at(Code::HANDOFF_DIGEST, at).expected(expected).found(found).into();
    }
    let location =
        TableLocation { address: header.cedt_address.get(), size: header.cedt_size.get() };
    let handoff = Handoff {
        regions: list(&mut rest, counts.regions),
        decoders: list(&mut rest, counts.decoders),
        components: list(&mut rest, counts.components),
        outcomes: list(&mut rest, counts.outcomes),
        registers: header.registers.get(),
        cedt: (location.address != 0).then_some(location),
        unsaid: later(header.unsaid),
    };
    Ok((header, handoff))
}

/// So many parts of a kind, taken from the front of what is left; the size was checked.
fn list<'a, T: FromBytes + KnownLayout + Immutable + Unaligned>(
    rest: &mut &'a [u8],
    count: usize,
) -> &'a [T] {
    let Ok((list, behind)) = <[T]>::ref_from_prefix_with_elems(rest, count) else { return &[] };
    *rest = behind;
    list
}

impl<'a> Handoff<'a> {
    /// Looks at each part.
    #[inline(never)]
    fn check(&self, header: &Header, fault: &mut Fault) -> Result<(), Failed> {
        let mut at = size_of::<Header>();
        for region in self.regions {
            let (base, size) = (region.base.get(), region.size.get());
            if Span::new(Hpa(base), size).is_err() {
                let at = Place::byte(at + offset_of!(RegionRecord, base));
                return fault.at(Code::HANDOFF_RANGE, at).expected(base).found(size).into();
            }
            sound(region.check(), &mut at, size_of::<RegionRecord>(), fault)?;
        }
        // Without components the number of one is reserved, and 0.
        let have = if header.version.get() == FIRST { 1 } else { self.components.len() };
        for decoder in self.decoders {
            sound(decoder.check(have), &mut at, size_of::<DecoderRecord>(), fault)?;
        }
        for (number, component) in self.components.iter().enumerate() {
            sound(component.check(number), &mut at, size_of::<ComponentRecord>(), fault)?;
        }
        let found = self.outcomes.len();
        if found < self.components.len() {
            let at = Place::byte(offset_of!(Header, outcomes));
            return fault.at(Code::HANDOFF_CODE, at).found(found).into();
        }
        for outcome in self.outcomes {
            sound(outcome.check(), &mut at, size_of::<OutcomeRecord>(), fault)?;
        }
        Ok(())
    }

    /// The regions, by ascending address.
    pub fn regions(&self) -> impl Iterator<Item = CommittedRegion> + 'a + use<'a> {
        self.regions.iter().filter_map(RegionRecord::region)
    }

    /// The decoders, in the order in which they were committed.
    pub fn decoders(&self) -> impl Iterator<Item = HandoffDecoder> + 'a + use<'a> {
        self.decoders.iter().filter_map(DecoderRecord::decoder)
    }

    /// The components that were found, each behind the one above it; none in a record of version 1.
    pub fn components(&self) -> impl Iterator<Item = HandoffComponent<'a>> + 'a + use<'a> {
        self.components.iter().map(HandoffComponent)
    }

    /// What became of each component, in their order, and then of what became none.
    pub fn outcomes(&self) -> impl Iterator<Item = ComponentOutcome> + 'a + use<'a> {
        let mut components = self.components.iter();
        self.outcomes.iter().map(move |outcome| outcome.outcome(components.next()))
    }

    /// Where memory is, for [`Policy::earlier`](crate::policy::Policy::earlier): each device's part in
    /// each region, by decoder.
    pub fn ranges(&self) -> impl Iterator<Item = EarlierRange> + 'a + use<'a> {
        let handoff = *self;
        let devices = self.decoders().filter(|d| d.place.component == Component::Device);
        devices.filter_map(move |decoder| {
            let same = |region: &CommittedRegion| region.span.base().0 == decoder.image.base();
            let region = handoff.regions().find(same)?;
            let CommittedRegion { span, interleave, partition, .. } = region;
            Some(EarlierRange { device: decoder.place.at, partition, span, interleave })
        })
    }

    /// Compares the registers of the locked decoders, read again in the order of
    /// [`Handoff::decoders`], with those that were recorded.
    pub fn check_registers(
        &self,
        images: impl IntoIterator<Item = DecoderImage>,
    ) -> Result<(), Error> {
        let mut locked = self.decoders().filter(|decoder| decoder.image.control().locked());
        let mut silent = None;
        let images = images.into_iter().inspect(|image| {
            let decoder = locked.next();
            if image.control == u32::MAX {
                silent = silent.or(decoder);
            }
        });
        let (expected, found) = (self.registers, digest(images));
        match silent {
            _ if expected == found => Ok(()),
            Some(one) => Err(Code::HANDOFF_SILENT.at(one.place.at).detail(Control::NUMBER)),
            None => Err(Code::HANDOFF_REGISTERS.error().expected(expected).found(found)),
        }
    }
}

/// The value behind a code.
fn decode<T: Copy>(codes: &[T], code: u8) -> Option<T> {
    codes.get(usize::from(code)).copied()
}

/// A number in a part that means nothing: its offset there, and what it is.
type Meaningless = (usize, usize);

/// Refuses a part that has such a number, given where it lies; else goes behind it.
fn sound(
    part: Result<(), Meaningless>,
    at: &mut usize,
    size: usize,
    fault: &mut Fault,
) -> Result<(), Failed> {
    if let Err((offset, found)) = part {
        return fault.at(Code::HANDOFF_CODE, Place::byte(*at + offset)).found(found).into();
    }
    *at += size;
    Ok(())
}

fn known(is_known: bool, offset: usize, found: usize) -> Result<(), Meaningless> {
    if is_known { Ok(()) } else { Err((offset, found)) }
}

impl RegionRecord {
    fn check(&self) -> Result<(), Meaningless> {
        known(Ways::decode(self.ways).is_ok(), offset_of!(Self, ways), self.ways.into())?;
        known(
            Granularity::decode(self.granularity).is_ok(),
            offset_of!(Self, granularity),
            self.granularity.into(),
        )?;
        known(
            decode(&COHERENCY, self.coherency).is_some(),
            offset_of!(Self, coherency),
            self.coherency.into(),
        )?;
        known(
            decode(&PARTITION, self.partition).is_some(),
            offset_of!(Self, partition),
            self.partition.into(),
        )?;
        known(
            decode(&LOCKED, self.locked).is_some(),
            offset_of!(Self, locked),
            self.locked.into(),
        )?;
        known(decode(&PROBED, self.probed).is_some(), offset_of!(Self, probed), self.probed.into())
    }

    fn region(&self) -> Option<CommittedRegion> {
        Some(CommittedRegion {
            window: Hpa(self.window.get()),
            span: Span::new(Hpa(self.base.get()), self.size.get()).ok()?,
            interleave: Interleave {
                ways: Ways::decode(self.ways).ok()?,
                granularity: Granularity::decode(self.granularity).ok()?,
            },
            coherency: decode(&COHERENCY, self.coherency)?,
            partition: decode(&PARTITION, self.partition)?,
            locked: decode(&LOCKED, self.locked)?,
            probed: decode(&PROBED, self.probed)?,
        })
    }
}

impl DecoderRecord {
    /// Whether it is sound, given how many components there are.
    fn check(&self, components: usize) -> Result<(), Meaningless> {
        let (depth, number) = (usize::from(self.depth), self.number());
        let component = decode(&COMPONENT, self.component);
        known(depth <= MAX_DEPTH, offset_of!(Self, depth), depth)?;
        known(component.is_some(), offset_of!(Self, component), self.component.into())?;
        known(decode(&FATE, self.fate).is_some(), offset_of!(Self, fate), self.fate.into())?;
        known(number < components, offset_of!(Self, node), number)
    }

    fn decoder(&self) -> Option<HandoffDecoder> {
        let ports = self.ports.get(..usize::from(self.depth))?;
        Some(HandoffDecoder {
            place: committed::Place {
                at: Path::new(self.uid.get(), ports)?,
                component: decode(&COMPONENT, self.component)?,
                index: self.index,
            },
            component: self.number(),
            image: self.image(),
            fate: decode(&FATE, self.fate)?,
        })
    }

    /// Where it is, as an error names it.
    #[cold]
    pub(crate) fn place(&self) -> Place {
        let ports = self.ports.get(..usize::from(self.depth)).unwrap_or(&[]);
        let path = Path::new(self.uid.get(), ports).unwrap_or_default();
        let component = decode(&COMPONENT, self.component).unwrap_or(Component::Device);
        Place::of_decoder(&path, component, self.index)
    }

    /// The number of its component.
    pub(crate) fn number(&self) -> usize {
        self.node.get() as usize
    }

    /// What became of it.
    pub(crate) fn fate(&self) -> Fate {
        decode(&FATE, self.fate).unwrap_or(Fate::Untouched)
    }

    /// Its registers.
    #[inline(never)]
    pub(crate) fn image(&self) -> DecoderImage {
        let mut dwords = [0; DecoderImage::DWORDS];
        for (slot, dword) in dwords.iter_mut().zip(self.registers) {
            *slot = dword.get();
        }
        DecoderImage::from_dwords(dwords)
    }

    /// The base of its region.
    pub(crate) fn base(&self) -> u64 {
        let [low, high, ..] = self.registers;
        DecoderImage { base_low: low.get(), base_high: high.get(), ..Default::default() }.base()
    }

    /// How much of it there is; 0 where it serves none.
    pub(crate) fn size(&self) -> u64 {
        let [_, _, low, high, ..] = self.registers;
        DecoderImage { size_low: low.get(), size_high: high.get(), ..Default::default() }.size()
    }

    /// Its control register.
    pub(crate) fn control(&self) -> Control {
        let [.., control, _, _] = self.registers;
        Control::from_bits(control.get())
    }
}
