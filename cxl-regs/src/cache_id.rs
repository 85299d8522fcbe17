//! Cache IDs: the route table of host bridges and switch upstream ports and the decoder of
//! downstream ports (CXL r3.1 sections 8.2.4.28 and 8.2.4.29).
//!
//! **Invariant**: register types hold any bits; a target is read only if the table counts it.

use bitfield_struct::bitfield;

use crate::access::rules::{RESERVED, RO, RW};
use crate::access::{Class, Feature, Field, Register, Rule, register};
use crate::block::{self, block};
use crate::commit::CommitStatus;

/// CXL Cache ID Route Table Capability Register, offset 0x00 (CXL r3.1 section 8.2.4.28.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RouteTableCapability {
    /// Targets in the table.
    #[bits(5)]
    pub target_count: u8,
    #[bits(3)]
    __: u8,
    /// Type 2 devices with HDM-D that a host bridge can take.
    #[bits(4)]
    pub max_type2: u8,
    #[bits(4)]
    __: u8,
    /// Changes take effect on commit only.
    pub explicit_commit: bool,
    #[bits(15)]
    __: u16,
}

register!(RouteTableCapability: u32, "CXL Cache ID Route Table Capability" at 0x00, [
    Field::new("Cache ID Target Count", Self::TARGET_COUNT_OFFSET, Self::TARGET_COUNT_BITS, RO),
    Field::each(
        "HDM-D Type 2 Device Max Count",
        Self::MAX_TYPE2_OFFSET,
        Self::MAX_TYPE2_BITS,
        RESERVED,
        RO,
        RESERVED,
    ),
    Field::new(
        "Explicit Cache ID RT Commit Required",
        Self::EXPLICIT_COMMIT_OFFSET,
        Self::EXPLICIT_COMMIT_BITS,
        RO,
    ),
]);

/// CXL Cache ID RT Control Register, offset 0x04 (CXL r3.1 section 8.2.4.28.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RouteTableControl {
    /// 0 to 1 starts a commit.
    pub commit: bool,
    #[bits(31)]
    __: u32,
}

register!(RouteTableControl: u32, "CXL Cache ID RT Control" at 0x04, [
    Field::new(
        "Cache ID RT Commit",
        Self::COMMIT_OFFSET,
        Self::COMMIT_BITS,
        Rule::with(Class::Rw, Feature::ExplicitCommit),
    ),
]);

/// CXL Cache ID Target Register, offset 0x10 (CXL r3.1 section 8.2.4.28.4). The first target;
/// each further one is 2 bytes on.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Target {
    /// The entry is in use.
    pub valid: bool,
    #[bits(7)]
    __: u8,
    /// Where the Cache ID of this entry's number leads.
    pub port: u8,
}

register!(Target: u16, "CXL Cache ID Target" at 0x10, [
    Field::new("Valid", Self::VALID_OFFSET, Self::VALID_BITS, RW),
    Field::new("Port Number", Self::PORT_OFFSET, Self::PORT_BITS, RW),
]);

/// CXL Cache ID Decoder Capability Register, offset 0x00 (CXL r3.1 section 8.2.4.29.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DecoderCapability {
    /// Changes take effect on commit only.
    pub explicit_commit: bool,
    #[bits(31)]
    __: u32,
}

register!(DecoderCapability: u32, "CXL Cache ID Decoder Capability" at 0x00, [
    Field::new(
        "Explicit Cache ID Decoder Commit Required",
        Self::EXPLICIT_COMMIT_OFFSET,
        Self::EXPLICIT_COMMIT_BITS,
        RO,
    ),
]);

/// CXL Cache ID Decoder Control Register, offset 0x04 (CXL r3.1 section 8.2.4.29.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DecoderControl {
    /// Passes CXL.cache on in both directions.
    pub forward: bool,
    /// Gives the device right below the local ID.
    pub assign: bool,
    /// One is below this port.
    pub type2_present: bool,
    /// 0 to 1 starts a commit.
    pub commit: bool,
    #[bits(4)]
    __: u8,
    /// Its Cache ID.
    #[bits(4)]
    pub type2_id: u8,
    #[bits(4)]
    __: u8,
    /// The ID that is given.
    #[bits(4)]
    pub local_id: u8,
    #[bits(4)]
    __: u8,
    /// Of the device below (CXL r3.0; reserved later).
    #[bits(2)]
    pub trust_level: u8,
    #[bits(6)]
    __: u8,
}

register!(DecoderControl: u32, "CXL Cache ID Decoder Control" at 0x04, [
    Field::new("Forward Cache ID", Self::FORWARD_OFFSET, Self::FORWARD_BITS, RW),
    Field::new("Assign Cache ID", Self::ASSIGN_OFFSET, Self::ASSIGN_BITS, RW),
    Field::new(
        "HDM-D Type 2 Device Present",
        Self::TYPE2_PRESENT_OFFSET,
        Self::TYPE2_PRESENT_BITS,
        RW,
    ),
    Field::new(
        "Cache ID Decoder Commit",
        Self::COMMIT_OFFSET,
        Self::COMMIT_BITS,
        Rule::with(Class::Rw, Feature::ExplicitCommit),
    ),
    Field::new("HDM-D Type 2 Device Cache ID", Self::TYPE2_ID_OFFSET, Self::TYPE2_ID_BITS, RW),
    Field::new("Local Cache ID", Self::LOCAL_ID_OFFSET, Self::LOCAL_ID_BITS, RW),
    Field::new("Trust Level", Self::TRUST_LEVEL_OFFSET, Self::TRUST_LEVEL_BITS, RW),
]);

block! {
    /// The Cache ID Route Table Capability Structure, as far as its targets.
    CacheIdRouteTable {
        /// Number of targets, and whether it needs commits.
        capability: RouteTableCapability;
        /// Commit.
        control: RouteTableControl;
        /// What came of it.
        status: CommitStatus;
    }
}

block! {
    /// The Cache ID Decoder Capability Structure.
    CacheIdDecoder {
        /// Whether it needs commits.
        capability: DecoderCapability;
        /// What the port does with Cache IDs.
        control: DecoderControl;
        /// What came of it.
        status: CommitStatus;
    }
}

/// Offset of target `id` from the first.
const fn target_offset(id: u8) -> u16 {
    id as u16 * Target::SPEC.bytes as u16
}

impl CacheIdRouteTable {
    /// Length of the structure with its targets, in bytes.
    pub const fn length(&self) -> u16 {
        Target::SPEC.offset + target_offset(self.capability.target_count())
    }

    /// Where Cache ID `id` leads; `None` if the table has no such target.
    pub fn target(&self, reader: impl FnMut(u16) -> u32, base: u16, id: u8) -> Option<Target> {
        (id < self.capability.target_count())
            .then(|| block::read(reader, base.wrapping_add(target_offset(id))))
    }
}
