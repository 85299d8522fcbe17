//! What an error of the plan names by a small number.
//!
//! **Invariant**: a number never changes its meaning; the sentence of its row has the words.

use crate::error::{Code, Error};
use crate::topology::Path;

/// What there is more of than a caller's structure holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// Regions of the plan.
    Regions,
    /// Decoders or members of the plan.
    Decoders,
    /// Notes of the plan.
    Notes,
    /// Nodes of the topology.
    Nodes,
}

impl Count {
    /// The refusal where there is more than `have`.
    pub(super) fn exceeded(self, have: usize) -> Error {
        Code::PLAN_CAPACITY.error().detail(self as u8).expected(have)
    }
}

/// What is not a multiple of 256 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unaligned {
    /// What a request leaves out.
    Skip,
    /// A request's size.
    Size,
    /// A request's offset in the window.
    Offset,
    /// A window's base.
    WindowBase,
    /// A device's memory, all that goes into one region.
    Memory,
    /// A device's share of a set.
    Share,
}

impl Unaligned {
    /// The refusal of a device's region.
    pub(super) fn error(self, device: Path, value: u64) -> Error {
        let unit = cxl_regs::DECODER_UNIT;
        Code::PLAN_UNALIGNED.at(device).detail(self as u8).expected(unit).found(value)
    }
}
