//! The records of a CEDT of the kinds that Linux looks at, as they lie in the table, legal or not.
//!
//! **Invariant**: a broken record costs itself. One of length 0 ends the table, and Linux's driver with it.

use cxl_regs::acpi::cedt::wire::{CfmwsRecord, ChbsRecord, CximsRecord, RecordHeader, Wire};
use zerocopy::FromBytes;
use zerocopy::little_endian::{U32, U64};

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
    pub(super) broken: Vec<String>,
    /// Where a record says that it has no length.
    pub(super) endless: Option<usize>,
    /// There are more than [`MOST_RECORDS`].
    pub(super) more: bool,
}

/// The type of a CHBS and of a CFMWS.
const HOST: u8 = 0;
const WINDOW: u8 = 1;

/// The fields of a record, whether it has them or what follows it; behind the table they are taken to be 0,
/// as what follows a table mostly is.
fn fields_at<T: FromBytes, const SIZE: usize>(table: &[u8], at: usize, end: usize) -> Option<T> {
    let mut bytes = [0; SIZE];
    let there = table.get(at..end)?;
    bytes.iter_mut().zip(there).for_each(|(place, byte)| *place = *byte);
    T::read_from_bytes(&bytes).ok()
}

impl<'a> Records<'a> {
    pub(super) fn of(table: &'a [u8]) -> Self {
        let mut records = Self::default();
        let length = table.get(4..8).and_then(|bytes| U32::read_from_bytes(bytes).ok());
        let end = length.map_or(table.len(), |length| table.len().min(length.get() as usize));
        let mut at = HEADER;
        let mut count = 0;
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
                Err(problem) => records.broken.push(format!("record at {at:#x}: {problem}")),
            }
            // What is in it has been looked at before its length is.
            if length == 0 {
                records.endless = Some(at);
                break;
            }
            at = at.saturating_add(length);
        }
        records
    }
}
