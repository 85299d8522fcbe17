//! PCIe DVSEC for Flex Bus Port, ID 7 (CXL r3.1 sections 8.1.8 and 8.2.1.3), revisions 1 and 2.
//!
//! **Invariant**: register types hold any bits. What the link came up as is in the status
//! register alone.

use bitfield_struct::bitfield;

use super::{Dvsec, dvsec};
use crate::access::rules::{RO, RW, RW1CS};
use crate::access::{Field, register};
use crate::block::block;

/// DVSEC Flex Bus Port Capability Register, offset 0x0A (CXL r3.1 section 8.2.1.3.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Capability {
    /// CXL.cache.
    pub cache: bool,
    /// CXL.io; always 1.
    pub io: bool,
    /// CXL.mem.
    pub mem: bool,
    #[bits(2)]
    __: u8,
    /// 68-byte flits and virtual hierarchy, that is CXL 2.0.
    pub flit_68b_vh: bool,
    /// Multi-logical devices.
    pub mld: bool,
    #[bits(6)]
    __: u8,
    /// Latency-optimised 256-byte flits.
    pub latency_optimized: bool,
    /// Port-based routing flits.
    pub pbr_flit: bool,
    __: bool,
}

register!(Capability: u16, "DVSEC Flex Bus Port Capability" at 0x0A, [
    Field::new("Cache_Capable", Self::CACHE_OFFSET, Self::CACHE_BITS, RO),
    Field::new("IO_Capable", Self::IO_OFFSET, Self::IO_BITS, RO),
    Field::new("Mem_Capable", Self::MEM_OFFSET, Self::MEM_BITS, RO),
    Field::new("CXL_68B_Flit_and_VH_Capable", Self::FLIT_68B_VH_OFFSET, Self::FLIT_68B_VH_BITS, RO),
    Field::new("CXL_Multi-Logical_Device_Capable", Self::MLD_OFFSET, Self::MLD_BITS, RO),
    Field::new(
        "CXL_Latency_Optimized_256B_Flit_Capable",
        Self::LATENCY_OPTIMIZED_OFFSET,
        Self::LATENCY_OPTIMIZED_BITS,
        RO,
    ),
    Field::new("CXL_PBR_Flit_Capable", Self::PBR_FLIT_OFFSET, Self::PBR_FLIT_BITS, RO),
]);

/// DVSEC Flex Bus Port Control Register, offset 0x0C (CXL r3.1 section 8.2.1.3.2). What to offer
/// at the next link training. Set by software in downstream ports (root ports follow the host
/// bridge's column), by hardware in upstream ports and devices.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Control {
    /// Offer CXL.cache.
    pub cache: bool,
    /// Offer CXL.io; always 1.
    pub io: bool,
    /// Offer CXL.mem.
    pub mem: bool,
    /// Offer sync header bypass.
    pub sync_header_bypass: bool,
    /// Use a drift buffer.
    pub drift_buffer: bool,
    /// Offer 68-byte flits and virtual hierarchy.
    pub flit_68b_vh: bool,
    /// Offer multi-logical devices.
    pub mld: bool,
    /// Do not train with CXL 1.1 devices.
    pub disable_rcd_training: bool,
    /// Told by firmware.
    pub retimer1: bool,
    /// Told by firmware.
    pub retimer2: bool,
    #[bits(3)]
    __: u8,
    /// Offer latency-optimised flits.
    pub latency_optimized: bool,
    /// Offer port-based routing flits.
    pub pbr_flit: bool,
    __: bool,
}

register!(Control: u16, "DVSEC Flex Bus Port Control" at 0x0C, [
    Field::each("Cache_Enable", Self::CACHE_OFFSET, Self::CACHE_BITS, RO, RW, RO),
    Field::new("IO_Enable", Self::IO_OFFSET, Self::IO_BITS, RO),
    Field::each("Mem_Enable", Self::MEM_OFFSET, Self::MEM_BITS, RO, RW, RO),
    Field::each(
        "CXL_Sync_Hdr_Bypass_Enable",
        Self::SYNC_HEADER_BYPASS_OFFSET,
        Self::SYNC_HEADER_BYPASS_BITS,
        RO,
        RW,
        RO,
    ),
    Field::each(
        "Drift_Buffer_Enable",
        Self::DRIFT_BUFFER_OFFSET,
        Self::DRIFT_BUFFER_BITS,
        RO,
        RW,
        RO,
    ),
    Field::each(
        "CXL_68B_Flit_and_VH_Enable",
        Self::FLIT_68B_VH_OFFSET,
        Self::FLIT_68B_VH_BITS,
        RO,
        RW,
        RO,
    ),
    Field::each("CXL_Multi-Logical_Device_Enable", Self::MLD_OFFSET, Self::MLD_BITS, RO, RW, RO),
    Field::each(
        "Disable_RCD_Training",
        Self::DISABLE_RCD_TRAINING_OFFSET,
        Self::DISABLE_RCD_TRAINING_BITS,
        RO,
        RW,
        RO,
    ),
    Field::each("Retimer1_Present", Self::RETIMER1_OFFSET, Self::RETIMER1_BITS, RO, RW, RO),
    Field::each("Retimer2_Present", Self::RETIMER2_OFFSET, Self::RETIMER2_BITS, RO, RW, RO),
    Field::each(
        "CXL_Latency_Optimized_256B_Flit_Enable",
        Self::LATENCY_OPTIMIZED_OFFSET,
        Self::LATENCY_OPTIMIZED_BITS,
        RO,
        RW,
        RO,
    ),
    Field::each("CXL_PBR_Flit_Enable", Self::PBR_FLIT_OFFSET, Self::PBR_FLIT_BITS, RO, RW, RO),
]);

/// DVSEC Flex Bus Port Status Register, offset 0x0E (CXL r3.1 section 8.2.1.3.3). What the link
/// trained to.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Status {
    /// CXL.cache is up.
    pub cache: bool,
    /// CXL.io is up.
    pub io: bool,
    /// CXL.mem is up.
    pub mem: bool,
    /// Sync header bypass is in use.
    pub sync_header_bypass: bool,
    /// The drift buffer is in use.
    pub drift_buffer: bool,
    /// 68-byte flits and virtual hierarchy.
    pub flit_68b_vh: bool,
    /// Multi-logical device.
    pub mld: bool,
    /// CRC failed in the even half.
    pub even_half_failed: bool,
    /// Seen.
    pub correctable_framing: bool,
    /// Seen.
    pub uncorrectable_framing: bool,
    /// Seen.
    pub unexpected_dropped: bool,
    /// Seen.
    pub retimers_mismatched: bool,
    /// Seen.
    pub phase2_mismatch: bool,
    /// Latency-optimised flits.
    pub latency_optimized: bool,
    /// Port-based routing flits.
    pub pbr_flit: bool,
    /// The peer asks for it.
    pub io_throttle: bool,
}

register!(Status: u16, "DVSEC Flex Bus Port Status" at 0x0E, [
    Field::new("Cache_Enabled", Self::CACHE_OFFSET, Self::CACHE_BITS, RO),
    Field::new("IO_Enabled", Self::IO_OFFSET, Self::IO_BITS, RO),
    Field::new("Mem_Enabled", Self::MEM_OFFSET, Self::MEM_BITS, RO),
    Field::new(
        "CXL_Sync_Hdr_Bypass_Enabled",
        Self::SYNC_HEADER_BYPASS_OFFSET,
        Self::SYNC_HEADER_BYPASS_BITS,
        RO,
    ),
    Field::new("Drift_Buffer_Enabled", Self::DRIFT_BUFFER_OFFSET, Self::DRIFT_BUFFER_BITS, RO),
    Field::new("CXL_68B_Flit_and_VH_Enabled", Self::FLIT_68B_VH_OFFSET, Self::FLIT_68B_VH_BITS, RO),
    Field::new("CXL_Multi-Logical_Device_Enabled", Self::MLD_OFFSET, Self::MLD_BITS, RO),
    Field::new(
        "Even_Half_Failed",
        Self::EVEN_HALF_FAILED_OFFSET,
        Self::EVEN_HALF_FAILED_BITS,
        RW1CS,
    ),
    Field::new(
        "CXL_Correctable_Protocol_ID_Framing_Error",
        Self::CORRECTABLE_FRAMING_OFFSET,
        Self::CORRECTABLE_FRAMING_BITS,
        RW1CS,
    ),
    Field::new(
        "CXL_Uncorrectable_Protocol_ID_Framing_Error",
        Self::UNCORRECTABLE_FRAMING_OFFSET,
        Self::UNCORRECTABLE_FRAMING_BITS,
        RW1CS,
    ),
    Field::new(
        "CXL_Unexpected_Protocol_ID_Dropped",
        Self::UNEXPECTED_DROPPED_OFFSET,
        Self::UNEXPECTED_DROPPED_BITS,
        RW1CS,
    ),
    Field::new(
        "CXL_Retimers_Present_Mismatched",
        Self::RETIMERS_MISMATCHED_OFFSET,
        Self::RETIMERS_MISMATCHED_BITS,
        RW1CS,
    ),
    Field::new(
        "FlexBusEnableBits_Phase2_Mismatch",
        Self::PHASE2_MISMATCH_OFFSET,
        Self::PHASE2_MISMATCH_BITS,
        RW1CS,
    ),
    Field::new(
        "CXL_Latency_Optimized_256B_Flit_Enabled",
        Self::LATENCY_OPTIMIZED_OFFSET,
        Self::LATENCY_OPTIMIZED_BITS,
        RO,
    ),
    Field::new("CXL_PBR_Flit_Enabled", Self::PBR_FLIT_OFFSET, Self::PBR_FLIT_BITS, RO),
    Field::new(
        "CXL.io_Throttle_Required_at_64GT/s",
        Self::IO_THROTTLE_OFFSET,
        Self::IO_THROTTLE_BITS,
        RO,
    ),
]);

/// DVSEC Flex Bus Port Received Modified TS Data Phase1 Register, offset 0x10 (CXL r3.1 section
/// 8.2.1.3.4).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReceivedTs {
    /// What the peer offered.
    #[bits(24)]
    pub data: u32,
    __: u8,
}

register!(ReceivedTs: u32, "DVSEC Flex Bus Port Received Modified TS Data Phase1" at 0x10, [
    Field::new("Received_Flex_Bus_Data_Phase_1", Self::DATA_OFFSET, Self::DATA_BITS, RO),
]);

/// DVSEC Flex Bus Port Capability2 Register, offset 0x14 (CXL r3.1 section 8.2.1.3.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Capability2 {
    /// Can send NOP hints.
    pub nop_hint: bool,
    #[bits(31)]
    __: u32,
}

register!(Capability2: u32, "DVSEC Flex Bus Port Capability2" at 0x14, [
    Field::new("NOP_Hint_Capable", Self::NOP_HINT_OFFSET, Self::NOP_HINT_BITS, RO),
]);

/// DVSEC Flex Bus Port Control2 Register, offset 0x18 (CXL r3.1 section 8.2.1.3.6).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Control2 {
    /// Send NOP hints.
    pub nop_hint: bool,
    #[bits(31)]
    __: u32,
}

register!(Control2: u32, "DVSEC Flex Bus Port Control2" at 0x18, [
    Field::new("NOP_Hint_Enable", Self::NOP_HINT_OFFSET, Self::NOP_HINT_BITS, RW),
]);

/// DVSEC Flex Bus Port Status2 Register, offset 0x1C (CXL r3.1 section 8.2.1.3.7).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Status2 {
    /// What was negotiated.
    #[bits(2)]
    pub nop_hint_info: u8,
    #[bits(30)]
    __: u32,
}

register!(Status2: u32, "DVSEC Flex Bus Port Status2" at 0x1C, [
    Field::new("NOP_Hint_Info", Self::NOP_HINT_INFO_OFFSET, Self::NOP_HINT_INFO_BITS, RO),
]);

dvsec! {
    /// The registers that all revisions from 1 on have.
    FlexBusDvsec = FlexBusPort {
        /// What the port can do.
        capability: Capability;
        /// What it offers.
        control: Control;
        /// What was agreed.
        status: Status;
        /// What the peer offered.
        received_ts: ReceivedTs;
    }
}

block! {
    /// What revision 2 added at the end.
    FlexBusTail {
        /// NOP hints.
        capability2: Capability2;
        /// NOP hints.
        control2: Control2;
        /// NOP hints.
        status2: Status2;
    }
}

impl FlexBusTail {
    /// Reads the tail of the DVSEC that a walk found; `None` if it is too short to have one.
    pub fn of(dvsec: &Dvsec, reader: impl FnMut(u16) -> u32) -> Option<Self> {
        dvsec.has(Self::EXTENT).then(|| Self::read(reader, dvsec.offset))
    }
}

/// Length of a revision 1 DVSEC.
pub const LENGTH_REVISION_1: u16 = FlexBusDvsec::EXTENT.end;
/// Length from revision 2 on.
pub const LENGTH_REVISION_2: u16 = FlexBusTail::EXTENT.end;
const _: () = assert!(LENGTH_REVISION_1 == 0x14 && LENGTH_REVISION_2 == 0x20);
