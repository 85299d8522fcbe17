//! Back-invalidate: the BI Route Table of a switch upstream port and the BI Decoder of ports and
//! devices (CXL r3.1 sections 8.2.4.26 and 8.2.4.27).
//!
//! **Invariant**: register types hold any bits; the handshake is [`CommitStatus`]'s.

use bitfield_struct::bitfield;

use crate::access::rules::{RESERVED, RO, RW};
use crate::access::{Class, Feature, Field, Rule, register};
use crate::block::block;
use crate::commit::CommitStatus;

/// CXL BI RT Capability Register, offset 0x00 (CXL r3.1 section 8.2.4.26.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RouteTableCapability {
    /// Changes take effect on commit only.
    pub explicit_commit: bool,
    #[bits(31)]
    __: u32,
}

register!(RouteTableCapability: u32, "CXL BI RT Capability" at 0x00, [
    Field::new(
        "Explicit BI RT Commit Required",
        Self::EXPLICIT_COMMIT_OFFSET,
        Self::EXPLICIT_COMMIT_BITS,
        RO,
    ),
]);

/// CXL BI RT Control Register, offset 0x04 (CXL r3.1 section 8.2.4.26.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RouteTableControl {
    /// 0 to 1 starts a commit.
    pub commit: bool,
    #[bits(31)]
    __: u32,
}

register!(RouteTableControl: u32, "CXL BI RT Control" at 0x04, [
    Field::new(
        "BI RT Commit",
        Self::COMMIT_OFFSET,
        Self::COMMIT_BITS,
        Rule::with(Class::Rw, Feature::ExplicitCommit),
    ),
]);

/// CXL BI Decoder Capability Register, offset 0x00 (CXL r3.1 section 8.2.4.27.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DecoderCapability {
    /// A device that can also do without back-invalidate.
    pub hdm_d: bool,
    /// Changes take effect on commit only (downstream switch ports).
    pub explicit_commit: bool,
    #[bits(30)]
    __: u32,
}

register!(DecoderCapability: u32, "CXL BI Decoder Capability" at 0x00, [
    Field::split("HDM-D Capable", Self::HDM_D_OFFSET, Self::HDM_D_BITS, RO, RESERVED),
    Field::split(
        "Explicit BI Decoder Commit Required",
        Self::EXPLICIT_COMMIT_OFFSET,
        Self::EXPLICIT_COMMIT_BITS,
        RESERVED,
        RO,
    ),
]);

/// CXL BI Decoder Control Register, offset 0x04 (CXL r3.1 section 8.2.4.27.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DecoderControl {
    /// The port passes BI messages on.
    pub forward: bool,
    /// The device may issue BI, or the port takes it from the device right below.
    pub enable: bool,
    /// 0 to 1 starts a commit.
    pub commit: bool,
    #[bits(29)]
    __: u32,
}

register!(DecoderControl: u32, "CXL BI Decoder Control" at 0x04, [
    Field::split("BI Forward", Self::FORWARD_OFFSET, Self::FORWARD_BITS, RESERVED, RW),
    Field::new("BI Enable", Self::ENABLE_OFFSET, Self::ENABLE_BITS, RW),
    Field::split(
        "BI Decoder Commit",
        Self::COMMIT_OFFSET,
        Self::COMMIT_BITS,
        RESERVED,
        Rule::with(Class::Rw, Feature::ExplicitCommit),
    ),
]);

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
