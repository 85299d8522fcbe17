//! The hand-off record: as it is, and with its digest mended, so that what the digest guards is
//! reached.
#![no_main]

use cxl_firmware::handoff;
use libfuzzer_sys::fuzz_target;

/// Where the digest lies, and the record's size.
const DIGEST: usize = 56;
const SIZE: usize = 12;

fuzz_target!(|data: &[u8]| {
    read(data);
    let mut record = data.to_vec();
    let size = data.get(SIZE..SIZE + 4).map(|size| u32::from_le_bytes(size.try_into().unwrap()));
    let size = size.map_or(0, |size| size as usize).clamp(DIGEST + 8, 1 << 16);
    if let Some(bytes) = record.get_mut(..size) {
        bytes[DIGEST..DIGEST + 8].fill(0);
        let digest = bytes.iter().fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
        });
        bytes[DIGEST..DIGEST + 8].copy_from_slice(&digest.to_le_bytes());
        read(&record);
    }
});

fn read(bytes: &[u8]) {
    let record = match handoff::read(bytes) {
        Ok(record) => record,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    // What is counted is there.
    let (regions, decoders) = (record.regions().count(), record.decoders().count());
    let (components, outcomes) = (record.components().count(), record.outcomes().count());
    assert_eq!(64 + 32 * regions + 56 * decoders + 160 * components + 40 * outcomes, {
        u32::from_le_bytes(bytes[SIZE..SIZE + 4].try_into().unwrap()) as usize
    });
    // One stands behind the component above it, and an error is a sentence.
    let mut parents = record.components().map(|component| component.parent()).enumerate();
    assert!(parents.all(|(number, parent)| parent.is_none_or(|parent| parent < number)));
    let errors = record.outcomes().filter_map(|found| found.outcome.error().copied());
    assert!(errors.map(|error| error.to_string()).all(|text| !text.is_empty()));
    let _ = record.ranges().count();
    let _ = record.check_registers(record.decoders().map(|decoder| decoder.image));
}
