//! CEDT: the table that says where CXL host bridges have their registers and where CXL memory lies.
//!
//! [`wire`] has the records as they lie in memory. Here are the legal values, the rules between the
//! two, and [`Cedt`], the reader. [`CedtWriter`] writes, [`Text`] prints.
//!
//! **Invariant**: no legal value here breaks a rule that one record can be judged by; rules between
//! records are [`Cedt::check`]'s and the writer's. CXL r3.1, section 9.18.1.

mod problem;
mod text;
pub mod wire;
mod writer;

use core::fmt;
use core::iter::FusedIterator;
use core::mem::size_of;

use heapless::Vec;
use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U32, U64};

pub use problem::{Astray, CedtError, Problem};
pub use text::Text;
pub use wire::{CsdsCapabilities, Restrictions};
pub use writer::{CedtWriteError, CedtWriter};

use super::header::{Header, Table, TableError};
use crate::addr::{DECODER_UNIT, Hpa, Span, SpanError};
use crate::config::Bdf;
use crate::interleave::{Arithmetic, Granularity, Interleave, Selector, Ways};
use wire::{
    CfmwsRecord, ChbsRecord, CsdsRecord, CximsRecord, Kind, RdpasRecord, RecordHeader, Wire,
};

/// The table's signature.
pub const SIGNATURE: [u8; 4] = *b"CEDT";

/// The most targets a window has: the largest way count.
pub const MAX_TARGETS: usize = 16;

/// The most records that are read of a table. Records are judged beside each other, two by two: the
/// limit bounds that for tables made to take long. Real ones have a few dozen.
pub const MAX_RECORDS: u16 = 1024;

/// What is at a host bridge's register base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ChbsVersion {
    /// A CXL 1.1 restricted host: the RCRB of the downstream port.
    Rch = 0,
    /// A CXL 2.0 and later host bridge: its component registers.
    Chbcr = 1,
}

impl ChbsVersion {
    /// The version behind a record's code.
    pub const fn decode(code: u32) -> Result<Self, Problem> {
        match code {
            0 => Ok(Self::Rch),
            1 => Ok(Self::Chbcr),
            _ => Err(Problem::ChbsVersion { found: code }),
        }
    }

    /// The record's code.
    pub const fn encode(self) -> u32 {
        self as u32
    }

    /// The length of the register block: it follows from the version.
    pub const fn length(self) -> u64 {
        match self {
            Self::Rch => 0x2000,
            Self::Chbcr => 0x1_0000,
        }
    }
}

impl fmt::Display for ChbsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rch => "RCRB of a CXL 1.1 host",
            Self::Chbcr => "host bridge component registers",
        })
    }
}

/// CXL Host Bridge Structure: where one host bridge has its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chbs {
    /// `_UID` of the ACPI0016 device; the targets of a window name bridges by it.
    pub uid: u32,
    version: ChbsVersion,
    registers: Span,
}

impl Chbs {
    /// The host bridge `uid` with its registers at `base`.
    ///
    /// A base of 0 is refused: that is how a bridge without registers looks, and Linux skips it.
    pub fn new(uid: u32, version: ChbsVersion, base: Hpa) -> Result<Self, Problem> {
        if base.0 == 0 {
            return Err(Problem::ChbsWithoutBase);
        }
        let registers = Span::new(base, version.length())
            .map_err(|_| Problem::ChbsWraps { base: base.0, length: version.length() })?;
        Ok(Self { uid, version, registers })
    }

    /// What is at the base.
    pub const fn version(&self) -> ChbsVersion {
        self.version
    }

    /// The register block.
    pub const fn registers(&self) -> Span {
        self.registers
    }

    /// The legal value of a record.
    pub fn decode(record: &ChbsRecord) -> Result<Self, Problem> {
        let version = ChbsVersion::decode(record.version.get())?;
        let (expected, found) = (version.length(), record.length.get());
        if found != expected {
            return Err(Problem::ChbsLength { version, expected, found });
        }
        Self::new(record.uid.get(), version, Hpa(record.base.get()))
    }

    /// The record of a legal value.
    pub fn encode(&self) -> ChbsRecord {
        ChbsRecord {
            header: RecordHeader::new(Kind::Chbs, size_of::<ChbsRecord>()),
            uid: self.uid.into(),
            version: self.version.encode().into(),
            reserved: U32::ZERO,
            base: self.registers.base().0.into(),
            length: self.registers.size().into(),
        }
    }
}

/// CXL Fixed Memory Window Structure: a range of HPA that is spread over host bridges.
///
/// ```
/// use cxl_regs::acpi::cedt::{Cfmws, Restrictions};
/// use cxl_regs::{Granularity, Hpa, Interleave, Span, Ways};
///
/// let span = Span::new(Hpa(0x3_d000_0000), 4 << 30)?;
/// let interleave = Interleave::new(Ways::Two, Granularity::B256);
/// let mut window = Cfmws::new(span, interleave, &[12, 34])?;
/// window.restrictions = Restrictions::new().with_host_only(true).with_volatile(true);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cfmws {
    span: Span,
    interleave: Interleave,
    targets: Vec<u32, MAX_TARGETS>,
    /// How an address becomes a target.
    pub arithmetic: Arithmetic,
    /// What may live in the window.
    pub restrictions: Restrictions,
    /// QoS throttling group.
    pub qtg: u16,
}

impl Cfmws {
    /// A window with modulo arithmetic, nothing allowed in it yet, and QoS throttling group 0.
    ///
    /// The specification does not forbid to name a bridge twice. It is refused all the same: a
    /// bridge's place in the target list is found by its UID, by Linux as well, so the second place
    /// would be lost.
    ///
    /// A window at 0 may end where a hole below 4 GiB begins, and need not be a multiple of its ways
    /// times 256 MiB (Linux: Documentation/driver-api/cxl/conventions/cxl-lmh.rst). Whether anything is
    /// at 0 only the platform can say: QEMU writes that for a window that it found no place for.
    pub fn new(span: Span, interleave: Interleave, targets: &[u32]) -> Result<Self, Problem> {
        Self::check_range(span, interleave.ways)?;
        let ways = interleave.ways;
        let wrong_count = Problem::TargetCount { expected: ways.count(), found: targets.len() };
        if targets.len() != ways.count() as usize {
            return Err(wrong_count);
        }
        for (index, &uid) in targets.iter().enumerate() {
            if targets.iter().take(index).any(|&earlier| earlier == uid) {
                return Err(Problem::DuplicateTarget { index, uid });
            }
        }
        Ok(Self {
            span,
            interleave,
            targets: Vec::from_slice(targets).map_err(|_| wrong_count)?,
            arithmetic: Arithmetic::Modulo,
            restrictions: Restrictions::new(),
            qtg: 0,
        })
    }

    /// Whether a window of so many ways may lie here.
    pub fn check_range(span: Span, ways: Ways) -> Result<(), Problem> {
        let (base, size) = (span.base().0, span.size());
        if !base.is_multiple_of(DECODER_UNIT) {
            return Err(Problem::BaseAlignment { base });
        }
        if !size.is_multiple_of(DECODER_UNIT) {
            return Err(Problem::SizeAlignment { size });
        }
        let interleave = Interleave { ways, ..Interleave::NONE };
        if base != 0 && interleave.share(size).is_none() {
            return Err(Problem::SizeNotDivisible { size, ways });
        }
        Ok(())
    }

    /// The range of host addresses.
    pub const fn span(&self) -> Span {
        self.span
    }

    /// Ways and granularity. With one way the granularity means nothing, and is kept as given.
    pub const fn interleave(&self) -> Interleave {
        self.interleave
    }

    /// UIDs of the host bridges, in order of position; as many as ways, and no two the same.
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// The arithmetic that finds the position of an address, given the CXIMS of the window's
    /// granularity where the table has one.
    ///
    /// ```
    /// use cxl_regs::acpi::cedt::{Cfmws, Cxims, Problem};
    /// use cxl_regs::{Arithmetic, Granularity, Hpa, Interleave, Span, Ways};
    ///
    /// let span = Span::new(Hpa(0x1_0000_0000), 4 << 30)?;
    /// let interleave = Interleave::new(Ways::Two, Granularity::B256);
    /// let mut window = Cfmws::new(span, interleave, &[7, 8])?;
    /// window.arithmetic = Arithmetic::Xor;
    /// let no_maps = Problem::NoCxims { granularity: Granularity::B256 };
    /// assert_eq!(window.selector(None), Err(no_maps));
    /// let maps = Cxims::new(Granularity::B256, &[0x10100]);
    /// assert_eq!(window.selector(Some(&maps))?.position(Hpa(0x1_0001_0000)), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn selector(&self, cxims: Option<&Cxims>) -> Result<Selector, Problem> {
        let granularity = self.interleave.granularity;
        match (self.arithmetic, cxims) {
            (Arithmetic::Modulo, _) => Ok(Selector::modulo(self.interleave)),
            (Arithmetic::Xor, Some(cxims)) if cxims.granularity == granularity => {
                Selector::xor(self.interleave, &cxims.maps).map_err(Problem::Maps)
            }
            (Arithmetic::Xor, _) => Err(Problem::NoCxims { granularity }),
        }
    }

    /// The legal value of a record and the targets behind it. Further targets than the ways need
    /// are ignored, as Linux does.
    pub fn decode(record: &CfmwsRecord, targets: &[U32]) -> Result<Self, Problem> {
        let interleave = Interleave {
            ways: Ways::decode(record.eniw).map_err(Problem::Ways)?,
            granularity: Granularity::decode(record.hbig.get())
                .map_err(Problem::WindowGranularity)?,
        };
        let arithmetic =
            Arithmetic::decode(record.arithmetic).map_err(Problem::WindowArithmetic)?;
        let span = Span::new(Hpa(record.base.get()), record.size.get()).map_err(|e| match e {
            SpanError::Empty { base } => Problem::ZeroSize { base },
            SpanError::Wraps { base, size } => Problem::WindowWraps { base, size },
        })?;
        let count = interleave.ways.count() as usize;
        let uids: Vec<u32, MAX_TARGETS> =
            first_of(targets.iter().take(count).map(|target| target.get()));
        let window = Self::new(span, interleave, &uids)?;
        let restrictions = Restrictions::from_bits(record.restrictions.get());
        Ok(Self { arithmetic, restrictions, qtg: record.qtg.get(), ..window })
    }

    /// The record of a legal value, and the targets to put behind it.
    pub fn encode(&self) -> (CfmwsRecord, Vec<U32, MAX_TARGETS>) {
        let length = size_of::<CfmwsRecord>() + self.targets.len() * size_of::<U32>();
        let record = CfmwsRecord {
            header: RecordHeader::new(Kind::Cfmws, length),
            reserved0: U32::ZERO,
            base: self.span.base().0.into(),
            size: self.span.size().into(),
            eniw: self.interleave.ways.encode(),
            arithmetic: self.arithmetic.encode(),
            reserved1: U16::ZERO,
            hbig: u32::from(self.interleave.granularity.encode()).into(),
            restrictions: self.restrictions.into_bits().into(),
            qtg: self.qtg.into(),
        };
        (record, first_of(self.targets.iter().map(|&uid| uid.into())))
    }
}

/// CXL XOR Interleave Math Structure: the maps of all XOR windows of one granularity.
///
/// Whether the maps suit a window is a question to the window: [`Cfmws::selector`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cxims {
    /// The granularity of the windows that these maps are for.
    pub granularity: Granularity,
    /// One map for each bit of the position, lowest first.
    pub maps: Vec<u64, { Selector::MAX_MAPS }>,
}

impl Cxims {
    /// The maps for windows of this granularity. Maps behind the fourth are dropped: no way count
    /// uses them.
    pub fn new(granularity: Granularity, maps: &[u64]) -> Self {
        Self { granularity, maps: first_of(maps.iter().copied()) }
    }

    /// The legal value of a record and the maps behind it.
    pub fn decode(record: &CximsRecord, maps: &[U64]) -> Result<Self, Problem> {
        let granularity = Granularity::decode(record.hbig).map_err(Problem::MapGranularity)?;
        let need = usize::from(record.map_count);
        let maps = maps.get(..need).ok_or(Problem::MapCount { need, have: maps.len() })?;
        Ok(Self { granularity, maps: first_of(maps.iter().map(|map| map.get())) })
    }

    /// The record of a legal value, and the maps to put behind it.
    pub fn encode(&self) -> (CximsRecord, Vec<U64, { Selector::MAX_MAPS }>) {
        let length = size_of::<CximsRecord>() + self.maps.len() * size_of::<U64>();
        let record = CximsRecord {
            header: RecordHeader::new(Kind::Cxims, length),
            reserved: U16::ZERO,
            hbig: self.granularity.encode(),
            map_count: self.maps.len() as u8,
        };
        (record, first_of(self.maps.iter().map(|&map| map.into())))
    }
}

/// As many items as there is room for. Collecting them would panic on one more.
fn first_of<T, const N: usize>(items: impl Iterator<Item = T>) -> Vec<T, N> {
    let mut list = Vec::new();
    for item in items {
        if list.push(item).is_err() {
            break;
        }
    }
    list
}

/// What a downstream port of a CXL 1.1 host reports errors by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RdpasProtocol {
    /// CXL.io; the base is that of the RCRB.
    Io = 0,
    /// CXL.cache and CXL.mem; the base is that of the component registers.
    CacheMem = 1,
}

impl RdpasProtocol {
    /// The protocol behind a record's code.
    pub const fn decode(code: u8) -> Result<Self, Problem> {
        match code {
            0 => Ok(Self::Io),
            1 => Ok(Self::CacheMem),
            _ => Err(Problem::RdpasProtocol { found: code }),
        }
    }

    /// The record's code.
    pub const fn encode(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for RdpasProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io => "CXL.io",
            Self::CacheMem => "CXL.cachemem",
        })
    }
}

/// RCEC Downstream Port Association Structure, in the layout of 0x14 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rdpas {
    /// PCI segment of the event collector.
    pub segment: u16,
    /// Bus, device and function of the event collector.
    pub bdf: Bdf,
    /// Base of the RCRB or of the component registers.
    pub base: Hpa,
    /// Which of the two.
    pub protocol: RdpasProtocol,
}

impl Rdpas {
    /// The legal value of a record.
    pub fn decode(record: &RdpasRecord) -> Result<Self, Problem> {
        Ok(Self {
            segment: record.segment.get(),
            bdf: Bdf::from_bits(record.bdf.get()),
            base: Hpa(record.base.get()),
            protocol: RdpasProtocol::decode(record.protocol)?,
        })
    }

    /// The record of a legal value.
    pub fn encode(&self) -> RdpasRecord {
        RdpasRecord {
            header: RecordHeader::new(Kind::Rdpas, size_of::<RdpasRecord>()),
            segment: self.segment.into(),
            bdf: self.bdf.bits().into(),
            base: self.base.0.into(),
            protocol: self.protocol.encode(),
            reserved: [0; 3],
        }
    }
}

/// CXL System Description Structure: what the whole system can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Csds {
    /// The capabilities.
    pub capabilities: CsdsCapabilities,
}

impl Csds {
    /// The value of a record; there is none that is illegal.
    pub fn decode(record: &CsdsRecord) -> Self {
        Self { capabilities: CsdsCapabilities::from_bits(record.capabilities.get()) }
    }

    /// The record of a value.
    pub fn encode(&self) -> CsdsRecord {
        CsdsRecord {
            header: RecordHeader::new(Kind::Csds, size_of::<CsdsRecord>()),
            capabilities: self.capabilities.into_bits().into(),
            reserved: U16::ZERO,
        }
    }
}

/// One legal record of a CEDT.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record<'a> {
    /// A host bridge.
    Chbs(Chbs),
    /// A window.
    Cfmws(Cfmws),
    /// XOR maps.
    Cxims(Cxims),
    /// Error reporting of a CXL 1.1 host.
    Rdpas(Rdpas),
    /// What the system can do.
    Csds(Csds),
    /// A kind that this library does not know; no error, as later revisions add kinds.
    Unknown {
        /// The kind.
        kind: u8,
        /// All bytes of the record.
        bytes: &'a [u8],
    },
}

impl<'a> Record<'a> {
    /// The legal value of a record.
    pub fn decode(wire: Wire<'a>) -> Result<Self, Problem> {
        Ok(match wire {
            Wire::Chbs(record) => Self::Chbs(Chbs::decode(record)?),
            Wire::Cfmws(record, targets) => Self::Cfmws(Cfmws::decode(record, targets)?),
            Wire::Cxims(record, maps) => Self::Cxims(Cxims::decode(record, maps)?),
            Wire::Rdpas(record) => Self::Rdpas(Rdpas::decode(record)?),
            Wire::Csds(record) => Self::Csds(Csds::decode(record)),
            Wire::Unknown { kind, bytes } => Self::Unknown { kind, bytes },
        })
    }

    /// What keeps this record out of a table that has `earlier` already.
    fn conflict(&self, earlier: &Record<'_>) -> Option<Problem> {
        match (self, earlier) {
            (Self::Chbs(new), Record::Chbs(old)) if new.uid == old.uid => {
                Some(Problem::DuplicateChbs { uid: new.uid })
            }
            (Self::Cxims(new), Record::Cxims(old)) if new.granularity == old.granularity => {
                Some(Problem::DuplicateCxims { granularity: new.granularity })
            }
            (Self::Cfmws(new), Record::Cfmws(old)) if new.span.overlaps(old.span) => {
                Some(Problem::Overlap { window: new.span, other: old.span })
            }
            _ => None,
        }
    }
}

/// A record as found: framed, not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// Byte offset in the table.
    pub offset: usize,
    /// All its bytes, its header included.
    pub bytes: &'a [u8],
}

impl<'a> RawRecord<'a> {
    /// The wire view: any values, so long as the fixed part of the kind fits.
    pub fn wire(&self) -> Result<Wire<'a>, CedtError> {
        Wire::view(self.bytes).map_err(|problem| CedtError { record: self.offset, problem })
    }

    /// The legal value, or the first rule that is broken.
    pub fn judge(&self) -> Result<Record<'a>, CedtError> {
        let refuse = |problem| CedtError { record: self.offset, problem };
        Record::decode(self.wire()?).map_err(refuse)
    }
}

/// Iterator over the records of a table by their lengths alone.
///
/// It ends at the end of the table, or behind the first record without a usable length: what
/// follows that cannot be found. What follows [`MAX_RECORDS`] is one error.
#[derive(Clone, Debug)]
pub struct RawRecords<'a> {
    table: &'a [u8],
    at: usize,
    /// How many more are read.
    left: u16,
}

impl<'a> RawRecords<'a> {
    /// The records behind the header of `table`, whose end is that of the slice.
    fn of(table: &'a [u8]) -> Self {
        Self { table, at: size_of::<Header>(), left: MAX_RECORDS }
    }
}

impl<'a> Iterator for RawRecords<'a> {
    type Item = Result<RawRecord<'a>, CedtError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.at;
        let rest = self.table.get(offset..).filter(|rest| !rest.is_empty())?;
        // The end, unless this record turns out to have a length.
        self.at = self.table.len();
        let refuse = |problem| Some(Err(CedtError { record: offset, problem }));
        let Some(left) = self.left.checked_sub(1) else {
            return refuse(Problem::TooMany { limit: MAX_RECORDS });
        };
        self.left = left;
        let Ok((header, _)) = RecordHeader::ref_from_prefix(rest) else {
            return refuse(Problem::RecordHeader { left: rest.len() });
        };
        let length = usize::from(header.length.get());
        if length < size_of::<RecordHeader>() {
            return refuse(Problem::RecordLength { found: length });
        }
        let Some(bytes) = rest.get(..length) else {
            return refuse(Problem::PastEnd { length, left: rest.len() });
        };
        self.at = offset + length;
        Some(Ok(RawRecord { offset, bytes }))
    }
}

impl FusedIterator for RawRecords<'_> {}

impl RawRecords<'_> {
    /// Whether each record is as long as its kind has to be, up to the end of the table.
    fn are_whole(mut self) -> bool {
        self.all(|raw| raw.is_ok_and(|raw| raw.wire().is_ok()))
    }

    /// The record whose length leads away from the one behind it, where some record cannot be told from
    /// what follows it: the first behind whose own length all others are whole, or the first odd one.
    fn astray(&self) -> Option<Astray> {
        let broken = self.clone().find_map(Result::err)?;
        // More records than are read are told apart all the same.
        if matches!(broken.problem, Problem::TooMany { .. }) {
            return None;
        }
        let odd = self.clone().map_while(Result::ok).filter_map(|raw| {
            let (kind, need) = wire::own_length(raw.bytes)?;
            let found = raw.bytes.len();
            (found != need).then_some(Astray { record: raw.offset, kind, need, found })
        });
        let leads = |odd: &Astray| {
            let at = odd.record.saturating_add(odd.need);
            at <= self.table.len() && Self { at, ..self.clone() }.are_whole()
        };
        let mut odd = { odd }.filter(|odd| odd.record < broken.record);
        odd.clone().find(leads).or_else(|| odd.next())
    }
}

/// Iterator over the records of a table, each judged by itself.
///
/// A record that breaks a rule is an error item, and the next one follows.
#[derive(Clone, Debug)]
pub struct Records<'a>(RawRecords<'a>);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(usize, Record<'a>), CedtError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.next()?.and_then(|raw| Ok((raw.offset, raw.judge()?))))
    }
}

impl FusedIterator for Records<'_> {}

/// A CEDT with a good signature, length and checksum.
///
/// ```no_run
/// use cxl_regs::acpi::cedt::{Cedt, Record};
///
/// # let bytes: &[u8] = &[];
/// for record in Cedt::read(bytes)?.records() {
///     match record {
///         Ok((_, Record::Cfmws(window))) => println!("{}", window.span()),
///         Ok(_) => {}
///         Err(error) => println!("skipped: {error}"),
///     }
/// }
/// # Ok::<(), cxl_regs::acpi::TableError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Cedt<'a> {
    table: Table<'a>,
}

impl<'a> Cedt<'a> {
    /// The CEDT at the start of `bytes`, which may go on behind it. Records are not looked at yet.
    pub fn read(bytes: &'a [u8]) -> Result<Self, TableError> {
        Ok(Self { table: Table::read(bytes, SIGNATURE, size_of::<Header>())? })
    }

    /// The table header.
    pub const fn header(&self) -> &'a Header {
        self.table.header()
    }

    /// All bytes of the table.
    pub const fn bytes(&self) -> &'a [u8] {
        self.table.bytes()
    }

    /// The records as found.
    pub fn raw_records(&self) -> RawRecords<'a> {
        RawRecords::of(self.table.bytes())
    }

    /// The records judged, with their byte offsets.
    pub fn records(&self) -> Records<'a> {
        Records(self.raw_records())
    }

    /// A record of this table, judged by itself and beside the records before it; a window also by
    /// its maps.
    pub fn judge(&self, raw: RawRecord<'a>) -> Result<Record<'a>, CedtError> {
        self.records().judge_among(raw)
    }

    /// The record whose length leads away from the one behind it, if the records behind it cannot be
    /// told apart: what follows is no fault of theirs.
    pub fn astray(&self) -> Option<Astray> {
        self.raw_records().astray()
    }

    /// The legal windows, in order.
    pub fn windows(&self) -> impl Iterator<Item = Cfmws> + 'a {
        self.records().filter_map(|record| match record {
            Ok((_, Record::Cfmws(window))) => Some(window),
            _ => None,
        })
    }

    /// The legal host bridges, in order.
    pub fn host_bridges(&self) -> impl Iterator<Item = Chbs> + 'a {
        self.records().filter_map(|record| match record {
            Ok((_, Record::Chbs(bridge))) => Some(bridge),
            _ => None,
        })
    }

    /// The arithmetic of one of this table's windows.
    pub fn selector(&self, window: &Cfmws) -> Result<Selector, Problem> {
        self.records().selector(window)
    }

    /// Whether every record is legal: first each by itself, then beside the others, so that the
    /// error is a cause and not what followed from it.
    pub fn check(&self) -> Result<(), CedtError> {
        self.records().try_for_each(|record| record.map(|_| ()))?;
        self.raw_records().try_for_each(|raw| self.judge(raw?).map(|_| ()))
    }
}

impl fmt::Display for Cedt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Text(self.bytes()).fmt(f)
    }
}

impl<'a> Records<'a> {
    fn of(table: &'a [u8]) -> Self {
        Self(RawRecords::of(table))
    }

    /// The arithmetic of a window, with the first CXIMS of its granularity among these records.
    fn selector(self, window: &Cfmws) -> Result<Selector, Problem> {
        let granularity = window.interleave.granularity;
        let cxims = self.filter_map(|record| match record {
            Ok((_, Record::Cxims(cxims))) => Some(cxims),
            _ => None,
        });
        window.selector({ cxims }.find(|cxims| cxims.granularity == granularity).as_ref())
    }

    /// What in these records before `offset` keeps `record` out.
    fn conflict(self, offset: usize, record: &Record<'_>) -> Option<Problem> {
        let legal = self.filter_map(Result::ok).take_while(|(earlier, _)| *earlier < offset);
        { legal }.find_map(|(_, earlier)| record.conflict(&earlier))
    }

    /// Judges a record by itself and beside the others of its table, which are these.
    fn judge_among<'b>(&self, raw: RawRecord<'b>) -> Result<Record<'b>, CedtError> {
        let record = raw.judge()?;
        let refuse = |problem| CedtError { record: raw.offset, problem };
        if let Some(problem) = self.clone().conflict(raw.offset, &record) {
            return Err(refuse(problem));
        }
        if let Record::Cfmws(window) = &record {
            self.clone().selector(window).map_err(refuse)?;
        }
        Ok(record)
    }
}
