//! PCIe DVSEC for Flex Bus Port, ID 7 (CXL r3.1 sections 8.1.8 and 8.2.1.3), revisions 1 and 2.
//!
//! **Invariant**: register types hold any bits. What the link came up as is in the status
//! register alone.

use super::{Dvsec, dvsec};
use crate::access::register;
use crate::access::rules::{RO, RW, RW1CS};
use crate::block::block;

register! {
    /// DVSEC Flex Bus Port Capability Register, offset 0x0A (CXL r3.1 section 8.2.1.3.1).
    Capability: u16, "DVSEC Flex Bus Port Capability" at 0x0A {
        /// CXL.cache.
        cache: bool, "Cache_Capable", RO;
        /// CXL.io; always 1.
        io: bool, "IO_Capable", RO;
        /// CXL.mem.
        mem: bool, "Mem_Capable", RO;
        __: u8[2];
        /// 68-byte flits and virtual hierarchy, that is CXL 2.0.
        flit_68b_vh: bool, "CXL_68B_Flit_and_VH_Capable", RO;
        /// Multi-logical devices.
        mld: bool, "CXL_Multi-Logical_Device_Capable", RO;
        __: u8[6];
        /// Latency-optimised 256-byte flits.
        latency_optimized: bool, "CXL_Latency_Optimized_256B_Flit_Capable", RO;
        /// Port-based routing flits.
        pbr_flit: bool, "CXL_PBR_Flit_Capable", RO;
        __: bool;
    }
}

register! {
    /// DVSEC Flex Bus Port Control Register, offset 0x0C (CXL r3.1 section 8.2.1.3.2). What to
    /// offer at the next link training. Set by software in downstream ports (root ports follow the
    /// host bridge's column), by hardware in upstream ports and devices.
    Control: u16, "DVSEC Flex Bus Port Control" at 0x0C {
        /// Offer CXL.cache.
        cache: bool, "Cache_Enable", RO, RW, RO;
        /// Offer CXL.io; always 1.
        io: bool, "IO_Enable", RO;
        /// Offer CXL.mem.
        mem: bool, "Mem_Enable", RO, RW, RO;
        /// Offer sync header bypass.
        sync_header_bypass: bool, "CXL_Sync_Hdr_Bypass_Enable", RO, RW, RO;
        /// Use a drift buffer.
        drift_buffer: bool, "Drift_Buffer_Enable", RO, RW, RO;
        /// Offer 68-byte flits and virtual hierarchy.
        flit_68b_vh: bool, "CXL_68B_Flit_and_VH_Enable", RO, RW, RO;
        /// Offer multi-logical devices.
        mld: bool, "CXL_Multi-Logical_Device_Enable", RO, RW, RO;
        /// Do not train with CXL 1.1 devices.
        disable_rcd_training: bool, "Disable_RCD_Training", RO, RW, RO;
        /// Told by firmware.
        retimer1: bool, "Retimer1_Present", RO, RW, RO;
        /// Told by firmware.
        retimer2: bool, "Retimer2_Present", RO, RW, RO;
        __: u8[3];
        /// Offer latency-optimised flits.
        latency_optimized: bool, "CXL_Latency_Optimized_256B_Flit_Enable", RO, RW, RO;
        /// Offer port-based routing flits.
        pbr_flit: bool, "CXL_PBR_Flit_Enable", RO, RW, RO;
        __: bool;
    }
}

register! {
    /// DVSEC Flex Bus Port Status Register, offset 0x0E (CXL r3.1 section 8.2.1.3.3). What the link
    /// trained to.
    Status: u16, "DVSEC Flex Bus Port Status" at 0x0E {
        /// CXL.cache is up.
        cache: bool, "Cache_Enabled", RO;
        /// CXL.io is up.
        io: bool, "IO_Enabled", RO;
        /// CXL.mem is up.
        mem: bool, "Mem_Enabled", RO;
        /// Sync header bypass is in use.
        sync_header_bypass: bool, "CXL_Sync_Hdr_Bypass_Enabled", RO;
        /// The drift buffer is in use.
        drift_buffer: bool, "Drift_Buffer_Enabled", RO;
        /// 68-byte flits and virtual hierarchy.
        flit_68b_vh: bool, "CXL_68B_Flit_and_VH_Enabled", RO;
        /// Multi-logical device.
        mld: bool, "CXL_Multi-Logical_Device_Enabled", RO;
        /// CRC failed in the even half.
        even_half_failed: bool, "Even_Half_Failed", RW1CS;
        /// Seen.
        correctable_framing: bool, "CXL_Correctable_Protocol_ID_Framing_Error", RW1CS;
        /// Seen.
        uncorrectable_framing: bool, "CXL_Uncorrectable_Protocol_ID_Framing_Error", RW1CS;
        /// Seen.
        unexpected_dropped: bool, "CXL_Unexpected_Protocol_ID_Dropped", RW1CS;
        /// Seen.
        retimers_mismatched: bool, "CXL_Retimers_Present_Mismatched", RW1CS;
        /// Seen.
        phase2_mismatch: bool, "FlexBusEnableBits_Phase2_Mismatch", RW1CS;
        /// Latency-optimised flits.
        latency_optimized: bool, "CXL_Latency_Optimized_256B_Flit_Enabled", RO;
        /// Port-based routing flits.
        pbr_flit: bool, "CXL_PBR_Flit_Enabled", RO;
        /// The peer asks for it.
        io_throttle: bool, "CXL.io_Throttle_Required_at_64GT/s", RO;
    }
}

register! {
    /// DVSEC Flex Bus Port Received Modified TS Data Phase1 Register, offset 0x10 (CXL r3.1 section
    /// 8.2.1.3.4).
    ReceivedTs: u32, "DVSEC Flex Bus Port Received Modified TS Data Phase1" at 0x10 {
        /// What the peer offered.
        data: u32[24], "Received_Flex_Bus_Data_Phase_1", RO;
        __: u8;
    }
}

register! {
    /// DVSEC Flex Bus Port Capability2 Register, offset 0x14 (CXL r3.1 section 8.2.1.3.5).
    Capability2: u32, "DVSEC Flex Bus Port Capability2" at 0x14 {
        /// Can send NOP hints.
        nop_hint: bool, "NOP_Hint_Capable", RO;
        __: u32[31];
    }
}

register! {
    /// DVSEC Flex Bus Port Control2 Register, offset 0x18 (CXL r3.1 section 8.2.1.3.6).
    Control2: u32, "DVSEC Flex Bus Port Control2" at 0x18 {
        /// Send NOP hints.
        nop_hint: bool, "NOP_Hint_Enable", RW;
        __: u32[31];
    }
}

register! {
    /// DVSEC Flex Bus Port Status2 Register, offset 0x1C (CXL r3.1 section 8.2.1.3.7).
    Status2: u32, "DVSEC Flex Bus Port Status2" at 0x1C {
        /// What was negotiated.
        nop_hint_info: u8[2], "NOP_Hint_Info", RO;
        __: u32[30];
    }
}

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
