//! The records of a CEDT of the kinds that Linux looks at, as they lie in the table, legal or not.
//!
//! **Invariant**: a broken record costs itself. One of length 0 ends the table, and Linux's driver with it.
//! Behind one whose length leads into the midst of another, what Linux takes for records is taken for such
//! here too, and what it therefore does not see is named.

use cxl_regs::acpi::Identity;
use cxl_regs::acpi::cedt::wire::{CfmwsRecord, ChbsRecord, CximsRecord, RecordHeader, Wire};
use zerocopy::FromBytes;
use zerocopy::little_endian::{U32, U64};

use super::Severity;
use super::codes::ways;

/// Who has written the table that stands for windows.
pub(super) const STAND_IN: Identity = Identity {
    oem_id: *b"LINUX ",
    oem_table_id: *b"SYSFS   ",
    oem_revision: 1,
    creator_id: *b"CXLL",
    creator_revision: 1,
};

/// Whether a table is one that stands for what Linux shows of windows, and was not given.
pub(super) fn is_stand_in(table: &[u8]) -> bool {
    let named = table.get(10..24).unwrap_or_default();
    named.starts_with(&STAND_IN.oem_id) && named.ends_with(&STAND_IN.oem_table_id)
}

/// Where records start.
const HEADER: usize = 36;
/// The most records that are looked at: each window is compared with all others, and a large
/// machine has some hundred records.
pub(super) const MOST_RECORDS: usize = 4096;

/// The records of the kinds that Linux looks at.
#[derive(Debug, Default)]
pub(super) struct Records<'a> {
    pub(super) chbs: Vec<ChbsRecord>,
    pub(super) cfmws: Vec<(CfmwsRecord, &'a [U32])>,
    pub(super) cxims: Vec<(&'a CximsRecord, &'a [U64])>,
    pub(super) broken: Vec<Broken>,
    /// Where a record says that it has no length.
    pub(super) endless: Option<usize>,
    /// There are more than [`MOST_RECORDS`].
    pub(super) more: bool,
    /// How many CHBS stand in front of a length that leads into the midst of a record, if one does: what is
    /// found behind it is nobody's.
    pub(super) sound: Option<usize>,
}

/// A record that is not as long as it has to be, and what comes of it.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) severity: Severity,
    pub(super) found: String,
    pub(super) lost: String,
}

/// The first record whose length is not that of its kind.
struct Odd {
    at: usize,
    kind: u8,
    length: usize,
    need: usize,
    /// How many CHBS there were by then.
    chbs: usize,
}

/// The type of a CHBS, of a CFMWS, of a CXIMS, and of what Linux passes over.
const HOST: u8 = 0;
const WINDOW: u8 = 1;
const MAPS: u8 = 2;
const ASSOCIATION: u8 = 3;
const SYSTEM: u8 = 4;

/// The bytes that a table says are its own, where it has them; otherwise all.
pub(super) fn own(table: &[u8]) -> &[u8] {
    let length = table.get(4..8).and_then(|bytes| U32::read_from_bytes(bytes).ok());
    let length = length.map(|length| length.get() as usize).filter(|length| *length >= HEADER);
    length.and_then(|length| table.get(..length)).unwrap_or(table)
}

/// The fields of a record, whether it has them or what follows it; behind the table they are taken to be 0,
/// as what follows a table mostly is.
fn fields_at<T: FromBytes, const SIZE: usize>(table: &[u8], at: usize, end: usize) -> Option<T> {
    let mut bytes = [0; SIZE];
    let there = table.get(at..end)?;
    bytes.iter_mut().zip(there).for_each(|(place, byte)| *place = *byte);
    T::read_from_bytes(&bytes).ok()
}

/// The least bytes that a record of its kind has. Of an RDPAS that is the packed structure of old headers:
/// Linux does not read it.
fn need(table: &[u8], at: usize, end: usize, kind: u8) -> usize {
    match kind {
        HOST => size_of::<ChbsRecord>(),
        WINDOW => {
            let window = fields_at::<CfmwsRecord, { size_of::<CfmwsRecord>() }>(table, at, end);
            let count = window.and_then(|window| ways(window.eniw.into())).unwrap_or(0);
            size_of::<CfmwsRecord>() + 4 * usize::try_from(count).unwrap_or(0)
        }
        MAPS => {
            let maps = fields_at::<CximsRecord, { size_of::<CximsRecord>() }>(table, at, end);
            let count = maps.map_or(0, |maps| maps.map_count);
            size_of::<CximsRecord>() + 8 * usize::from(count)
        }
        ASSOCIATION => 0x11,
        SYSTEM => 8,
        _ => size_of::<RecordHeader>(),
    }
}

/// What Linux would have read from a place on, if nothing but whole records of known kinds lies between it
/// and the end of the table.
fn whole_from(table: &[u8], mut at: usize, end: usize) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for _ in 0..MOST_RECORDS {
        if at == end {
            return Some(names);
        }
        let (header, _) = RecordHeader::ref_from_prefix(table.get(at..end)?).ok()?;
        let length = usize::from(header.length.get());
        let known = header.kind <= SYSTEM;
        if !known || length < need(table, at, end, header.kind) || length > end - at {
            return None;
        }
        match header.kind {
            HOST => {
                let host = fields_at::<ChbsRecord, { size_of::<ChbsRecord>() }>(table, at, end)?;
                names.push(format!("the CHBS of UID {}", host.uid));
            }
            WINDOW => {
                let window =
                    fields_at::<CfmwsRecord, { size_of::<CfmwsRecord>() }>(table, at, end)?;
                names.push(format!("the window at {:#x}", window.base));
            }
            MAPS => names.push(format!("the CXIMS at {at:#x}")),
            _ => {}
        }
        at += length;
    }
    None
}

impl Odd {
    /// The records behind it, by where the next one begins: where it would if this one had its kind's
    /// length, or at the first place from which on everything is whole.
    fn behind(&self, table: &[u8], end: usize) -> Option<Vec<String>> {
        /// Longer than any window.
        const FAR: usize = 128;
        let first = self.at + size_of::<RecordHeader>();
        let places = [self.at + self.need].into_iter().chain(first..first + FAR);
        places.filter(|place| *place <= end).find_map(|place| whole_from(table, place, end))
    }

    fn found(&self, end: usize) -> String {
        let Self { at, length, need, .. } = *self;
        match end - at {
            left if length > left => {
                format!("record at {at:#x}: length {length:#x}, and the table ends after {left:#x}")
            }
            _ => format!("record at {at:#x}: length {length:#x}, expected at least {need:#x}"),
        }
    }
}

impl<'a> Records<'a> {
    pub(super) fn of(table: &'a [u8]) -> Self {
        let mut records = Self::default();
        let length = table.get(4..8).and_then(|bytes| U32::read_from_bytes(bytes).ok());
        let end = length.map_or(table.len(), |length| table.len().min(length.get() as usize));
        let mut at = HEADER;
        let mut count = 0;
        let mut odd = None;
        // A header that ends where the table does is not looked at (`acpi_parse_entries_array`); 6.12.95 and
        // 7.3.4 passed over one of length 0 there.
        while let Some(Ok((header, behind))) = table.get(at..end).map(RecordHeader::ref_from_prefix)
        {
            if behind.is_empty() {
                break;
            }
            count += 1;
            if count > MOST_RECORDS {
                records.more = true;
                break;
            }
            let length = usize::from(header.length.get());
            let record = table.get(at..end.min(at.saturating_add(length))).unwrap_or_default();
            match Wire::view(record) {
                Ok(Wire::Chbs(chbs)) => records.chbs.push(*chbs),
                Ok(Wire::Cfmws(window, targets)) => records.cfmws.push((*window, targets)),
                Ok(Wire::Cxims(cxims, maps)) => records.cxims.push((cxims, maps)),
                Ok(_) => {}
                // Linux reads fields wherever the record ends (`__cxl_parse_cfmws`, `cxl_get_chbs_iter`).
                Err(_) if header.kind == WINDOW => {
                    let window =
                        fields_at::<CfmwsRecord, { size_of::<CfmwsRecord>() }>(table, at, end);
                    records.cfmws.extend(window.map(|window| (window, &[][..])));
                }
                Err(_) if header.kind == HOST => {
                    let host = fields_at::<ChbsRecord, { size_of::<ChbsRecord>() }>(table, at, end);
                    records.chbs.extend(host);
                }
                // It is no record at all.
                Err(_) if length == 0 => {}
                Err(problem) if header.kind == MAPS => {
                    let found = format!("record at {at:#x}: {problem}");
                    let lost = "this record is not read".to_owned();
                    records.broken.push(Broken { severity: Severity::Refused, found, lost });
                }
                // What Linux passes over may be of any length.
                Err(_) => {}
            }
            let need = need(table, at, end, header.kind);
            if odd.is_none() && length != 0 && (length < need || length > end - at) {
                let chbs = records.chbs.len();
                odd = Some(Odd { at, kind: header.kind, length, need, chbs });
            }
            // What is in it has been looked at before its length is.
            if length == 0 {
                records.endless = Some(at);
                break;
            }
            at = at.saturating_add(length);
            // Linux takes the rest of this header for the next one, which means nothing.
            if length < size_of::<RecordHeader>() {
                break;
            }
        }
        // Four bytes at the end are no record.
        let whole = records.more || at == end || at.saturating_add(4) == end;
        if let Some(odd) = odd {
            records.judge(&odd, whole && records.endless.is_none(), table, end);
        }
        records
    }

    /// What comes of a record of a wrong length: those behind it are lost, unless its length leads to one.
    fn judge(&mut self, odd: &Odd, whole: bool, table: &[u8], end: usize) {
        let Odd { at, kind, length, need, chbs } = *odd;
        let mut tell = |severity, lost: String| {
            self.broken.push(Broken { severity, found: odd.found(end), lost });
        };
        let least = size_of::<RecordHeader>();
        let behind = if whole { None } else { odd.behind(table, end) };
        match behind.filter(|names| !names.is_empty()) {
            Some(names) => {
                let (some, more) = names.split_at(names.len().min(8));
                let more = match more.len() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let lost = some.join(", ");
                tell(
                    Severity::Refused,
                    format!("the next record is looked for inside of another; lost: {lost}{more}"),
                );
                self.sound = Some(chbs);
            }
            None if length < least => {
                let left = end.saturating_sub(at + least);
                let lost =
                    format!("nothing says where the next record is: {left:#x} bytes are lost");
                tell(Severity::Refused, lost);
            }
            // It holds what its kind needs, and is the last one.
            None if length > end - at && need <= end - at => {
                tell(Severity::Note, "Linux reads the record all the same".to_owned());
            }
            // Of maps without even their fixed part it has been said already.
            None if length > end - at || kind == HOST || kind == MAPS && length >= 8 => {
                let lost = "Linux reads the rest of it out of what lies behind its end".to_owned();
                tell(Severity::Degraded, lost);
            }
            // A window that is too short has a rule of its own.
            None => {}
        }
    }
}
