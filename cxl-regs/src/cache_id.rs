//! Cache IDs: the route table of host bridges and switch upstream ports and the decoder of
//! downstream ports (CXL r3.1 sections 8.2.4.28 and 8.2.4.29).
//!
//! **Invariant**: register types hold any bits; a target is read only if the table counts it.

use crate::access::rules::{RESERVED, RO, RW};
use crate::access::{Class, Feature, Register, Rule, register};
use crate::block::{self, block};
use crate::commit::CommitStatus;

register! {
    /// CXL Cache ID Route Table Capability Register, offset 0x00 (CXL r3.1 section 8.2.4.28.1).
    RouteTableCapability: u32, "CXL Cache ID Route Table Capability" at 0x00 {
        /// Targets in the table.
        target_count: u8[5], "Cache ID Target Count", RO;
        __: u8[3];
        /// Type 2 devices with HDM-D that a host bridge can take.
        max_type2: u8[4], "HDM-D Type 2 Device Max Count", RESERVED, RO, RESERVED;
        __: u8[4];
        /// Changes take effect on commit only.
        explicit_commit: bool, "Explicit Cache ID RT Commit Required", RO;
        __: u16[15];
    }
}

register! {
    /// CXL Cache ID RT Control Register, offset 0x04 (CXL r3.1 section 8.2.4.28.2).
    RouteTableControl: u32, "CXL Cache ID RT Control" at 0x04 {
        /// 0 to 1 starts a commit.
        commit: bool, "Cache ID RT Commit", Rule::with(Class::Rw, Feature::ExplicitCommit);
        __: u32[31];
    }
}

register! {
    /// CXL Cache ID Target Register, offset 0x10 (CXL r3.1 section 8.2.4.28.4). The first target;
    /// each further one is 2 bytes on.
    Target: u16, "CXL Cache ID Target" at 0x10 {
        /// The entry is in use.
        valid: bool, "Valid", RW;
        __: u8[7];
        /// Where the Cache ID of this entry's number leads.
        port: u8, "Port Number", RW;
    }
}

register! {
    /// CXL Cache ID Decoder Capability Register, offset 0x00 (CXL r3.1 section 8.2.4.29.1).
    DecoderCapability: u32, "CXL Cache ID Decoder Capability" at 0x00 {
        /// Changes take effect on commit only.
        explicit_commit: bool, "Explicit Cache ID Decoder Commit Required", RO;
        __: u32[31];
    }
}

register! {
    /// CXL Cache ID Decoder Control Register, offset 0x04 (CXL r3.1 section 8.2.4.29.2).
    DecoderControl: u32, "CXL Cache ID Decoder Control" at 0x04 {
        /// Passes CXL.cache on in both directions.
        forward: bool, "Forward Cache ID", RW;
        /// Gives the device right below the local ID.
        assign: bool, "Assign Cache ID", RW;
        /// One is below this port.
        type2_present: bool, "HDM-D Type 2 Device Present", RW;
        /// 0 to 1 starts a commit.
        commit: bool, "Cache ID Decoder Commit", Rule::with(Class::Rw, Feature::ExplicitCommit);
        __: u8[4];
        /// Its Cache ID.
        type2_id: u8[4], "HDM-D Type 2 Device Cache ID", RW;
        __: u8[4];
        /// The ID that is given.
        local_id: u8[4], "Local Cache ID", RW;
        __: u8[4];
        /// Of the device below (CXL r3.0; reserved later).
        trust_level: u8[2], "Trust Level", RW;
        __: u8[6];
    }
}

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
