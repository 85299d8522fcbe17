//! The text form of a CEDT: what people snapshot and diff.
//!
//! **Invariant**: any bytes print something, the same bytes print the same text, and every byte of
//! a record that can be found is in it (reserved fields where they are not 0).

use core::fmt;
use core::mem::{offset_of, size_of};

use zerocopy::FromBytes;
use zerocopy::little_endian::{U32, U64};

use super::wire::{
    CfmwsRecord, ChbsRecord, CsdsRecord, CximsRecord, Kind, RdpasRecord, RecordHeader, Wire,
    own_length,
};
use super::{
    ChbsVersion, CsdsCapabilities, RawRecord, RawRecords, RdpasProtocol, Records, Restrictions,
    SIGNATURE,
};
use crate::acpi::header::{Header, Table, mended};
use crate::addr::Size;
use crate::block::LABEL_WIDTH;
use crate::config::Bdf;
use crate::interleave::{Arithmetic, Granularity, Ways};

/// Prints bytes as a CEDT, record by record, with what is wrong where something is.
///
/// The bytes need not be a good table: one with a bad checksum, and one that was cut off, are
/// printed as far as they go.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a>(
    /// The table, and possibly bytes behind it, which are ignored.
    pub &'a [u8],
);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok((header, _)) = Header::ref_from_prefix(self.0) else {
            return writeln!(f, "no cedt: {} bytes are less than a table header", self.0.len());
        };
        if header.signature != SIGNATURE {
            return writeln!(f, "no cedt: the signature is {}", Quoted(&header.signature));
        }
        let length = header.length.get();
        let table = self.0.get(..length as usize).unwrap_or(self.0);
        let verdict = Table::read(self.0, SIGNATURE, size_of::<Header>());
        writeln!(
            f,
            "cedt revision {}, {length} bytes, checksum {:#04x} {}",
            header.revision,
            header.checksum,
            if header.checksum == mended(table, header.checksum) { "good" } else { "bad" },
        )?;
        raw(f, "oem id", Quoted(&header.oem_id))?;
        raw(f, "oem table id", Quoted(&header.oem_table_id))?;
        raw(f, "oem revision", Hex::from(header.oem_revision.get()))?;
        raw(f, "creator id", Quoted(&header.creator_id))?;
        raw(f, "creator revision", Hex::from(header.creator_revision.get()))?;
        if let Err(error) = verdict {
            raw(f, "problem", error)?;
        }
        let astray = RawRecords::of(table).astray();
        for found in RawRecords::of(table) {
            match found {
                Ok(found) => {
                    record(f, table, found)?;
                    if let Some(astray) = astray.filter(|astray| astray.record == found.offset) {
                        raw(f, "problem", astray)?;
                    }
                }
                Err(error) => {
                    writeln!(f, "broken record at {:#x}", error.record)?;
                    let bytes = table.get(error.record..).unwrap_or_default();
                    if let Some((kind, need)) = own_length(bytes) {
                        fact(f, "kind", kind.encode(), format_args!("{kind}, of {need} bytes"))?;
                    }
                    raw(f, "problem", error)?;
                }
            }
        }
        Ok(())
    }
}

/// Heading, facts, bytes that no fact covers, and what is wrong.
fn record(f: &mut fmt::Formatter<'_>, table: &[u8], found: RawRecord<'_>) -> fmt::Result {
    let (header, _) = RecordHeader::ref_from_prefix(found.bytes).map_err(|_| fmt::Error)?;
    match Kind::decode(header.kind) {
        Some(kind) => writeln!(f, "{kind} at {:#x}", found.offset)?,
        None => writeln!(f, "unknown kind {:#04x} at {:#x}", header.kind, found.offset)?,
    }
    reserved(f, offset_of!(RecordHeader, reserved), header.reserved)?;
    let covered = match found.wire() {
        Ok(wire) => facts(f, wire)?,
        Err(_) => size_of::<RecordHeader>(),
    };
    let rest = found.bytes.get(covered..).unwrap_or_default();
    for (row, bytes) in rest.chunks(16).enumerate() {
        let label = heapless::format!(18; "bytes {:#x}", covered + row * 16)?;
        write!(f, "  {label:<17}")?;
        for byte in bytes {
            write!(f, " {byte:02x}")?;
        }
        writeln!(f)?;
    }
    if let Err(error) = Records::of(table).judge_among(found) {
        raw(f, "problem", error)?;
    }
    Ok(())
}

/// Prints the fields of a record; returns how many of its bytes they cover.
fn facts(f: &mut fmt::Formatter<'_>, wire: Wire<'_>) -> Result<usize, fmt::Error> {
    match wire {
        Wire::Chbs(record) => {
            let (version, length) = (record.version.get(), record.length.get());
            uid(f, "uid", record.uid.get())?;
            fact(f, "version", version, Meaning(ChbsVersion::decode(version)))?;
            reserved(f, offset_of!(ChbsRecord, reserved), record.reserved.get())?;
            raw(f, "base", Hex::from(record.base.get()))?;
            fact(f, "length", length, Size(length))?;
            Ok(size_of::<ChbsRecord>())
        }
        Wire::Cfmws(record, targets) => {
            let (hbig, size) = (record.hbig.get(), record.size.get());
            let restrictions = record.restrictions.get();
            let ways = Ways::decode(record.eniw);
            let arithmetic = Arithmetic::decode(record.arithmetic);
            reserved(f, offset_of!(CfmwsRecord, reserved0), record.reserved0.get())?;
            raw(f, "base", Hex::from(record.base.get()))?;
            fact(f, "size", size, Size(size))?;
            match ways {
                Ok(ways) => fact(f, "ways", record.eniw, format_args!("{ways}-way"))?,
                Err(_) => fact(f, "ways", record.eniw, "reserved")?,
            }
            fact(f, "arithmetic", record.arithmetic, Meaning(arithmetic))?;
            reserved(f, offset_of!(CfmwsRecord, reserved1), record.reserved1.get())?;
            fact(f, "granularity", hbig, Meaning(Granularity::decode(hbig)))?;
            fact(f, "restrictions", restrictions, Restrictions::from_bits(restrictions))?;
            fact(f, "qtg", record.qtg.get(), record.qtg.get())?;
            let count = ways.map_or(0, |ways| ways.count() as usize).min(targets.len());
            for (index, target) in targets.iter().take(count).enumerate() {
                uid(f, &heapless::format!(18; "target {index}")?, target.get())?;
            }
            Ok(size_of::<CfmwsRecord>() + count * size_of::<U32>())
        }
        Wire::Cxims(record, maps) => {
            let granularity = Granularity::decode(record.hbig);
            reserved(f, offset_of!(CximsRecord, reserved), record.reserved.get())?;
            fact(f, "granularity", record.hbig, Meaning(granularity))?;
            fact(f, "maps", record.map_count, record.map_count)?;
            let count = maps.len().min(record.map_count.into());
            for (index, map) in maps.iter().take(count).enumerate() {
                let label = heapless::format!(18; "map {index}")?;
                fact(f, &label, map.get(), Parity(map.get()))?;
            }
            Ok(size_of::<CximsRecord>() + count * size_of::<U64>())
        }
        Wire::Rdpas(record) => {
            let bdf = record.bdf.get();
            let protocol = RdpasProtocol::decode(record.protocol);
            raw(f, "segment", Hex::from(record.segment.get()))?;
            fact(f, "bdf", bdf, Bdf::from_bits(bdf))?;
            raw(f, "base", Hex::from(record.base.get()))?;
            fact(f, "protocol", record.protocol, Meaning(protocol))?;
            let [low, middle, high] = record.reserved;
            let rest = u32::from_le_bytes([low, middle, high, 0]);
            reserved(f, offset_of!(RdpasRecord, reserved), rest)?;
            Ok(size_of::<RdpasRecord>())
        }
        Wire::Csds(record) => {
            let capabilities = record.capabilities.get();
            let meaning = CsdsCapabilities::from_bits(capabilities);
            fact(f, "capabilities", capabilities, meaning)?;
            reserved(f, offset_of!(CsdsRecord, reserved), record.reserved.get())?;
            Ok(size_of::<CsdsRecord>())
        }
        Wire::Unknown { .. } => Ok(size_of::<RecordHeader>()),
    }
}

/// One fact: label, value as found, meaning.
fn fact(
    f: &mut fmt::Formatter<'_>,
    label: &str,
    value: impl Into<Hex>,
    meaning: impl fmt::Display,
) -> fmt::Result {
    writeln!(f, "  {label:<LABEL_WIDTH$}{}  {meaning}", value.into())
}

/// One fact that needs no explanation.
fn raw(f: &mut fmt::Formatter<'_>, label: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "  {label:<LABEL_WIDTH$}{value}")
}

/// A host bridge's UID: ACPI namespaces and command lines have it in decimal.
fn uid(f: &mut fmt::Formatter<'_>, label: &str, uid: u32) -> fmt::Result {
    fact(f, label, uid, format_args!("uid {uid}"))
}

/// A reserved field, where it is not 0.
fn reserved(f: &mut fmt::Formatter<'_>, at: usize, value: impl Into<Hex>) -> fmt::Result {
    let value = value.into();
    if value.value == 0 {
        return Ok(());
    }
    raw(f, &heapless::format!(18; "reserved {at:#x}")?, value)
}

/// A number in as many hexadecimal digits as its type has.
struct Hex {
    value: u64,
    digits: usize,
}

impl From<u8> for Hex {
    fn from(value: u8) -> Self {
        Self { value: value.into(), digits: 2 }
    }
}

impl From<u16> for Hex {
    fn from(value: u16) -> Self {
        Self { value: value.into(), digits: 4 }
    }
}

impl From<u32> for Hex {
    fn from(value: u32) -> Self {
        Self { value: value.into(), digits: 8 }
    }
}

impl From<u64> for Hex {
    fn from(value: u64) -> Self {
        Self { value, digits: 16 }
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:0digits$x}", self.value, digits = self.digits)
    }
}

/// What a code means, if anything; which codes there are, the problem says.
struct Meaning<T, E>(Result<T, E>);

impl<T: fmt::Display, E> fmt::Display for Meaning<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(meaning) => meaning.fmt(f),
            Err(_) => f.write_str("reserved"),
        }
    }
}

/// An XOR map in words.
struct Parity(u64);

impl fmt::Display for Parity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("parity of HPA bits")?;
        let bits = (0..u64::BITS).filter(|bit| self.0 >> bit & 1 == 1);
        for (index, bit) in bits.enumerate() {
            write!(f, "{} {bit}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Letters out of a table, printable whatever they are.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}
