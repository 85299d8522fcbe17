//! The handshake by which BI and Cache ID structures take a change (CXL r3.1 sections 8.2.4.26 to
//! 8.2.4.29), and the way their timeouts are written.
//!
//! **Invariant**: a reserved scale has no duration, so no wait is computed from one.

use crate::access::{Class, Feature, Rule, register};

/// The highest scale: 10 s. Each is ten times the one below; 0 is 1 µs.
const LAST_SCALE: u8 = 7;

/// A duration out of its base and scale, in microseconds; `None` for a reserved scale.
pub const fn microseconds(base: u8, scale: u8) -> Option<u64> {
    if scale > LAST_SCALE {
        return None;
    }
    Some(base as u64 * 10u64.pow(scale as u32))
}

register! {
    /// Commit Status Register, offset 0x08 (CXL r3.1 section 8.2.4.26.3, 8.2.4.27.3, 8.2.4.28.3,
    /// 8.2.4.29.3). One layout for the BI and Cache ID structures.
    CommitStatus: u32, "Commit Status" at 0x08 {
        /// The last commit was taken.
        committed: bool, "Committed", Rule::with(Class::Ro, Feature::ExplicitCommit);
        /// The last commit was refused.
        error_not_committed: bool, "Error Not Committed",
            Rule::with(Class::Ro, Feature::ExplicitCommit);
        __: u8[6];
        /// Unit of the timeout.
        timeout_scale: u8[4], "Commit Timeout Scale",
            Rule::with(Class::Ro, Feature::ExplicitCommit);
        /// Number of units; when they are over, the commit has failed.
        timeout_base: u8[4], "Commit Timeout Base", Rule::with(Class::Ro, Feature::ExplicitCommit);
        __: u16;
    }
}

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
