//! Back-invalidate: the BI Route Table of a switch upstream port and the BI Decoder of ports and
//! devices (CXL r3.1 sections 8.2.4.26 and 8.2.4.27).
//!
//! **Invariant**: register types hold any bits; the handshake is [`CommitStatus`]'s.

use crate::access::rules::{RESERVED, RO, RW};
use crate::access::{Class, Feature, Rule, register};
use crate::block::block;
use crate::commit::CommitStatus;

register! {
    /// CXL BI RT Capability Register, offset 0x00 (CXL r3.1 section 8.2.4.26.1).
    RouteTableCapability: u32, "CXL BI RT Capability" at 0x00 {
        /// Changes take effect on commit only.
        explicit_commit: bool, "Explicit BI RT Commit Required", RO;
        __: u32[31];
    }
}

register! {
    /// CXL BI RT Control Register, offset 0x04 (CXL r3.1 section 8.2.4.26.2).
    RouteTableControl: u32, "CXL BI RT Control" at 0x04 {
        /// 0 to 1 starts a commit.
        commit: bool, "BI RT Commit", Rule::with(Class::Rw, Feature::ExplicitCommit);
        __: u32[31];
    }
}

register! {
    /// CXL BI Decoder Capability Register, offset 0x00 (CXL r3.1 section 8.2.4.27.1).
    DecoderCapability: u32, "CXL BI Decoder Capability" at 0x00 {
        /// A device that can also do without back-invalidate.
        hdm_d: bool, "HDM-D Capable", RO, RESERVED;
        /// Changes take effect on commit only (downstream switch ports).
        explicit_commit: bool, "Explicit BI Decoder Commit Required", RESERVED, RO;
        __: u32[30];
    }
}

register! {
    /// CXL BI Decoder Control Register, offset 0x04 (CXL r3.1 section 8.2.4.27.2).
    DecoderControl: u32, "CXL BI Decoder Control" at 0x04 {
        /// The port passes BI messages on.
        forward: bool, "BI Forward", RESERVED, RW;
        /// The device may issue BI, or the port takes it from the device right below.
        enable: bool, "BI Enable", RW;
        /// 0 to 1 starts a commit.
        commit: bool, "BI Decoder Commit", RESERVED, Rule::with(Class::Rw, Feature::ExplicitCommit);
        __: u32[29];
    }
}

block! {
    /// The BI Route Table Capability Structure.
    BiRouteTable {
        /// Whether it needs commits.
        capability: RouteTableCapability;
        /// Commit.
        control: RouteTableControl;
        /// What came of it.
        status: CommitStatus;
    }
}

block! {
    /// The BI Decoder Capability Structure.
    BiDecoder {
        /// Whether it needs commits.
        capability: DecoderCapability;
        /// Forward, enable and commit.
        control: DecoderControl;
        /// What came of it.
        status: CommitStatus;
    }
}
