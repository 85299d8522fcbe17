//! What a resume path calls: a hand-off record is read, and the machine restored from it.

use cxl_firmware::handoff;
use cxl_firmware::list::Slots;
use cxl_firmware::outcome::{ComponentOutcome, Extent};
use cxl_firmware::platform::Ecam;
use cxl_firmware::restore::{Pci, restore};

use crate::support::Registers;

/// What a caller gives on the way back from S3.
pub struct Resume<'a> {
    registers: Registers,
    ecam: &'a [Ecam],
    pci: Pci,
    record: &'a [u8],
    outcomes: &'a mut [ComponentOutcome],
}

pub(crate) fn wake(resume: &mut Resume<'_>) -> u64 {
    let Resume { registers: hw, ecam, pci, record, outcomes } = resume;
    let clock = &mut hw.clone();
    let mut outcomes = Slots::new(outcomes);
    let result = handoff::read(record)
        .and_then(|record| restore(hw, clock, ecam, &record, *pci, outcomes.list()));
    match result {
        Ok(Extent::Whole) => 0,
        Ok(Extent::Less { lost }) => lost.into(),
        Err(error) => u64::from(error.code()) << 32,
    }
}
