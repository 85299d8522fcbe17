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
use crate::error::{Code, Error, Numbered, Place};
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

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
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

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DecoderRecord {
    uid: U32,
    component: u8,
    index: u8,
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

/// Codes of the record, each with its value.
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
    /// Bytes of a record with so many parts; more than memory has for numbers that are nonsense.
    #[inline(never)]
    fn size(self) -> usize {
        let Self { regions, decoders, components, outcomes } = self;
        size_of::<Header>()
            .saturating_add(regions.saturating_mul(size_of::<RegionRecord>()))
            .saturating_add(decoders.saturating_mul(size_of::<DecoderRecord>()))
            .saturating_add(components.saturating_mul(size_of::<ComponentRecord>()))
            .saturating_add(outcomes.saturating_mul(size_of::<OutcomeRecord>()))
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
    let mut record = Writer::new(counts, buffer)?;
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
    pub(crate) fn new(counts: Counts, buffer: &'b mut [u8]) -> Result<Self, Error> {
        let (need, have) = (counts.size(), buffer.len());
        let record = buffer
            .get_mut(..need)
            .ok_or_else(|| Code::HANDOFF_NO_ROOM.error().expected(need).found(have))?;
        Ok(Self { record, counts, at: size_of::<Header>(), registers: Digest::START })
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
    pub(crate) fn finish(self, cedt: Option<TableLocation>, unsaid: u16) -> &'b mut [u8] {
        let Self { record, counts, registers, .. } = self;
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
            coherency: encode(&COHERENCY, region.coherency),
            partition: encode(&PARTITION, region.partition),
            locked: encode(&LOCKED, region.locked),
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
            component: encode(&COMPONENT, component),
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

/// A record that was checked.
#[derive(Clone, Copy, Debug)]
pub struct Handoff<'a> {
    bytes: &'a [u8],
    counts: Counts,
    registers: u64,
    /// Where the CEDT is.
    pub cedt: Option<TableLocation>,
    /// How many remarks of discovery have no outcome, as there was no room for them.
    pub unsaid: u32,
}

/// Reads a record at the start of `bytes`, which may go on behind it. All of it is checked here.
pub fn read(bytes: &[u8]) -> Result<Handoff<'_>, Error> {
    let (need, have) = (size_of::<Header>(), bytes.len());
    let (header, _) = Header::ref_from_prefix(bytes)
        .map_err(|_| Code::HANDOFF_NO_HEADER.error().expected(need).found(have))?;
    if header.magic != MAGIC {
        return Err(Code::HANDOFF_MAGIC.at(Place::byte(0)).found(header.magic));
    }
    let version = header.version.get();
    if !(FIRST..=VERSION).contains(&version) {
        return Err(Code::HANDOFF_VERSION
            .at(Place::byte(offset_of!(Header, version)))
            .expected(VERSION)
            .found(version));
    }
    let counts = Counts {
        regions: header.regions.get() as usize,
        decoders: header.decoders.get() as usize,
        components: if version == FIRST { 0 } else { header.components.get() as usize },
        outcomes: if version == FIRST { 0 } else { header.outcomes.get() as usize },
    };
    let (expected, found) = (counts.size(), header.size.get());
    if u32::try_from(expected) != Ok(found) {
        return Err(Code::HANDOFF_SIZE
            .at(Place::byte(offset_of!(Header, size)))
            .expected(expected)
            .found(found));
    }
    let record = bytes.get(..expected).ok_or_else(|| {
        Code::HANDOFF_TRUNCATED
            .at(Place::byte(offset_of!(Header, size)))
            .expected(found)
            .found(have)
    })?;
    let blank = Header { digest: U64::ZERO, ..*header };
    let parts = record.get(size_of::<Header>()..).unwrap_or(&[]);
    let expected = Digest::START.bytes(blank.as_bytes()).bytes(parts).0;
    if expected != header.digest.get() {
        return Err(Code::HANDOFF_DIGEST
            .at(Place::byte(offset_of!(Header, digest)))
            .expected(expected)
            .found(header.digest.get()));
    }
    let location =
        TableLocation { address: header.cedt_address.get(), size: header.cedt_size.get() };
    let handoff = Handoff {
        bytes: record,
        counts,
        registers: header.registers.get(),
        cedt: (location.address != 0).then_some(location),
        unsaid: if version == FIRST { 0 } else { header.unsaid.get() },
    };
    handoff.try_regions().try_for_each(|region| region.map(|_| ()))?;
    for (decoder, at) in handoff.try_decoders() {
        let component = decoder?.component;
        // Of a record that has components.
        if version != FIRST && component >= counts.components {
            let at = Place::byte(at + offset_of!(DecoderRecord, node));
            return Err(Code::HANDOFF_CODE.at(at).found(component));
        }
    }
    for (number, component, at) in handoff.component_records() {
        component.check(at, number)?;
    }
    if counts.outcomes < counts.components {
        return Err(Code::HANDOFF_CODE
            .at(Place::byte(offset_of!(Header, outcomes)))
            .found(counts.outcomes));
    }
    handoff.try_outcomes().try_for_each(|outcome| outcome.map(|_| ()))?;
    Ok(handoff)
}

impl<'a> Handoff<'a> {
    /// The regions, by ascending address.
    pub fn regions(&self) -> impl Iterator<Item = CommittedRegion> + 'a + use<'a> {
        self.try_regions().filter_map(Result::ok)
    }

    /// The decoders, in the order in which they were committed.
    pub fn decoders(&self) -> impl Iterator<Item = HandoffDecoder> + 'a + use<'a> {
        self.try_decoders().filter_map(|(decoder, _)| decoder.ok())
    }

    /// The components that were found, each behind the one above it; none in a record of version 1.
    pub fn components(&self) -> impl Iterator<Item = HandoffComponent<'a>> + 'a + use<'a> {
        self.component_records().map(|(_, component, _)| HandoffComponent(component))
    }

    /// What became of each component, in their order, and then of what became none.
    pub fn outcomes(&self) -> impl Iterator<Item = ComponentOutcome> + 'a + use<'a> {
        self.try_outcomes().filter_map(Result::ok)
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

    /// How many components there are.
    pub(crate) fn component_count(&self) -> usize {
        self.counts.components
    }

    /// The component of a number.
    pub(crate) fn component(&self, number: usize) -> Option<&'a ComponentRecord> {
        let start = Counts { components: 0, outcomes: 0, ..self.counts }.size();
        let at = start.checked_add(number.checked_mul(size_of::<ComponentRecord>())?)?;
        let inside = number < self.counts.components;
        let bytes = self.bytes.get(at..).filter(|_| inside)?;
        ComponentRecord::ref_from_prefix(bytes).ok().map(|(record, _)| record)
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

    fn try_regions(&self) -> impl Iterator<Item = Result<CommittedRegion, Error>> + 'a + use<'a> {
        let bytes = self.bytes;
        let start = size_of::<Header>();
        (0..self.counts.regions).filter_map(move |number| {
            let at = start + number * size_of::<RegionRecord>();
            let (record, _) = RegionRecord::ref_from_prefix(bytes.get(at..)?).ok()?;
            Some(record.region(at))
        })
    }

    /// Each decoder, and where it is.
    fn try_decoders(
        &self,
    ) -> impl Iterator<Item = (Result<HandoffDecoder, Error>, usize)> + 'a + use<'a> {
        let bytes = self.bytes;
        let start = Counts { regions: self.counts.regions, ..Counts::default() }.size();
        (0..self.counts.decoders).filter_map(move |number| {
            let at = start + number * size_of::<DecoderRecord>();
            let (record, _) = DecoderRecord::ref_from_prefix(bytes.get(at..)?).ok()?;
            Some((record.decoder(at), at))
        })
    }

    /// Each component, its number, and where it is.
    fn component_records(
        &self,
    ) -> impl Iterator<Item = (usize, &'a ComponentRecord, usize)> + 'a + use<'a> {
        let handoff = *self;
        let start = Counts { components: 0, outcomes: 0, ..self.counts }.size();
        (0..self.counts.components).filter_map(move |number| {
            let at = start + number * size_of::<ComponentRecord>();
            Some((number, handoff.component(number)?, at))
        })
    }

    fn try_outcomes(&self) -> impl Iterator<Item = Result<ComponentOutcome, Error>> + 'a + use<'a> {
        let handoff = *self;
        let start = Counts { outcomes: 0, ..self.counts }.size();
        (0..self.counts.outcomes).filter_map(move |number| {
            let at = start + number * size_of::<OutcomeRecord>();
            let (record, _) = OutcomeRecord::ref_from_prefix(handoff.bytes.get(at..)?).ok()?;
            let place = handoff.component(number).map(ComponentRecord::at);
            Some(record.outcome(at, place))
        })
    }
}

/// The value behind a code, or the error with its place.
fn decode<T: Copy>(codes: &[T], code: u8, offset: usize) -> Result<T, Error> {
    let value = codes.get(usize::from(code)).copied();
    value.ok_or_else(|| Code::HANDOFF_CODE.at(Place::byte(offset)).found(code))
}

impl RegionRecord {
    fn region(&self, at: usize) -> Result<CommittedRegion, Error> {
        let (base, size) = (self.base.get(), self.size.get());
        let offset = at + offset_of!(Self, base);
        let code = |offset, found| Code::HANDOFF_CODE.at(Place::byte(offset)).found(found);
        Ok(CommittedRegion {
            window: Hpa(self.window.get()),
            span: Span::new(Hpa(base), size).map_err(|_| {
                Code::HANDOFF_RANGE.at(Place::byte(offset)).expected(base).found(size)
            })?,
            interleave: Interleave {
                ways: Ways::decode(self.ways)
                    .map_err(|_| code(at + offset_of!(Self, ways), self.ways))?,
                granularity: Granularity::decode(self.granularity)
                    .map_err(|_| code(at + offset_of!(Self, granularity), self.granularity))?,
            },
            coherency: decode(&COHERENCY, self.coherency, at + offset_of!(Self, coherency))?,
            partition: decode(&PARTITION, self.partition, at + offset_of!(Self, partition))?,
            locked: decode(&LOCKED, self.locked, at + offset_of!(Self, locked))?,
            probed: decode(&PROBED, self.probed, at + offset_of!(Self, probed))?,
        })
    }
}

impl DecoderRecord {
    fn decoder(&self, at: usize) -> Result<HandoffDecoder, Error> {
        let depth =
            Code::HANDOFF_CODE.at(Place::byte(at + offset_of!(Self, depth))).found(self.depth);
        let ports = self.ports.get(..usize::from(self.depth)).ok_or(depth)?;
        let mut dwords = [0; DecoderImage::DWORDS];
        for (slot, dword) in dwords.iter_mut().zip(self.registers) {
            *slot = dword.get();
        }
        let component = decode(&COMPONENT, self.component, at + offset_of!(Self, component))?;
        Ok(HandoffDecoder {
            place: committed::Place {
                at: Path::new(self.uid.get(), ports).ok_or(depth)?,
                component,
                index: self.index,
            },
            component: self.node.get() as usize,
            image: DecoderImage::from_dwords(dwords),
            fate: decode(&FATE, self.fate, at + offset_of!(Self, fate))?,
        })
    }
}
