//! The handshake by which BI and Cache ID structures take a change (CXL r3.1 sections 8.2.4.26 to
//! 8.2.4.29), and the way their timeouts are written.
//!
//! **Invariant**: a reserved scale has no duration, so no wait is computed from one.

use bitfield_struct::bitfield;

use crate::access::{Class, Feature, Field, Rule, register};

/// The highest scale: 10 s. Each is ten times the one below; 0 is 1 µs.
const LAST_SCALE: u8 = 7;

/// A duration out of its base and scale, in microseconds; `None` for a reserved scale.
pub const fn microseconds(base: u8, scale: u8) -> Option<u64> {
    if scale > LAST_SCALE {
        return None;
    }
    Some(base as u64 * 10u64.pow(scale as u32))
}

/// Commit Status Register, offset 0x08 (CXL r3.1 section 8.2.4.26.3, 8.2.4.27.3, 8.2.4.28.3,
/// 8.2.4.29.3). One layout for the BI and Cache ID structures.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CommitStatus {
    /// The last commit was taken.
    pub committed: bool,
    /// The last commit was refused.
    pub error_not_committed: bool,
    #[bits(6)]
    __: u8,
    /// Unit of the timeout.
    #[bits(4)]
    pub timeout_scale: u8,
    /// Number of units; when they are over, the commit has failed.
    #[bits(4)]
    pub timeout_base: u8,
    __: u16,
}

register!(CommitStatus: u32, "Commit Status" at 0x08, [
    Field::new(
        "Committed",
        Self::COMMITTED_OFFSET,
        Self::COMMITTED_BITS,
        Rule::with(Class::Ro, Feature::ExplicitCommit),
    ),
    Field::new(
        "Error Not Committed",
        Self::ERROR_NOT_COMMITTED_OFFSET,
        Self::ERROR_NOT_COMMITTED_BITS,
        Rule::with(Class::Ro, Feature::ExplicitCommit),
    ),
    Field::new(
        "Commit Timeout Scale",
        Self::TIMEOUT_SCALE_OFFSET,
        Self::TIMEOUT_SCALE_BITS,
        Rule::with(Class::Ro, Feature::ExplicitCommit),
    ),
    Field::new(
        "Commit Timeout Base",
        Self::TIMEOUT_BASE_OFFSET,
        Self::TIMEOUT_BASE_BITS,
        Rule::with(Class::Ro, Feature::ExplicitCommit),
    ),
]);

impl CommitStatus {
    /// Whether the commit has come to an end, one way or the other.
    pub const fn settled(self) -> bool {
        self.committed() || self.error_not_committed()
    }

    /// How long a commit may take, in microseconds; `None` for a reserved scale.
    pub const fn timeout(self) -> Option<u64> {
        microseconds(self.timeout_base(), self.timeout_scale())
    }
}
