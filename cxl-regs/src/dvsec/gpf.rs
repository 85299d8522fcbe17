//! GPF DVSECs: for ports, ID 4, and for devices, ID 5 (CXL r3.1 sections 8.1.6 and 8.1.7).
//!
//! **Invariant**: register types hold any bits; times are computed in one place,
//! [`microseconds`](crate::commit::microseconds).

use bitfield_struct::bitfield;

use super::dvsec;
use crate::access::rules::{RO, RW};
use crate::access::{Field, register};

/// GPF Phase 1 Control Register, offset 0x0C (CXL r3.1 section 8.1.6.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Phase1Control {
    /// Number of units.
    #[bits(4)]
    pub timeout_base: u8,
    #[bits(4)]
    __: u8,
    /// Unit; see [`microseconds`](crate::commit::microseconds).
    #[bits(4)]
    pub timeout_scale: u8,
    #[bits(4)]
    __: u8,
}

register!(Phase1Control: u16, "GPF Phase 1 Control" at 0x0C, [
    Field::new(
        "Port GPF Phase 1 Timeout Base",
        Self::TIMEOUT_BASE_OFFSET,
        Self::TIMEOUT_BASE_BITS,
        RW,
    ),
    Field::new(
        "Port GPF Phase 1 Timeout Scale",
        Self::TIMEOUT_SCALE_OFFSET,
        Self::TIMEOUT_SCALE_BITS,
        RW,
    ),
]);

/// GPF Phase 2 Control Register, offset 0x0E (CXL r3.1 section 8.1.6.2).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Phase2Control {
    /// Number of units.
    #[bits(4)]
    pub timeout_base: u8,
    #[bits(4)]
    __: u8,
    /// Unit; see [`microseconds`](crate::commit::microseconds).
    #[bits(4)]
    pub timeout_scale: u8,
    #[bits(4)]
    __: u8,
}

register!(Phase2Control: u16, "GPF Phase 2 Control" at 0x0E, [
    Field::new(
        "Port GPF Phase 2 Timeout Base",
        Self::TIMEOUT_BASE_OFFSET,
        Self::TIMEOUT_BASE_BITS,
        RW,
    ),
    Field::new(
        "Port GPF Phase 2 Timeout Scale",
        Self::TIMEOUT_SCALE_OFFSET,
        Self::TIMEOUT_SCALE_BITS,
        RW,
    ),
]);

/// GPF Phase 2 Duration Register, offset 0x0A (CXL r3.1 section 8.1.7.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Phase2Duration {
    /// Number of units.
    #[bits(4)]
    pub time_base: u8,
    #[bits(4)]
    __: u8,
    /// Unit; see [`microseconds`](crate::commit::microseconds).
    #[bits(4)]
    pub time_scale: u8,
    #[bits(4)]
    __: u8,
}

register!(Phase2Duration: u16, "GPF Phase 2 Duration" at 0x0A, [
    Field::new("Device GPF Phase 2 Time Base", Self::TIME_BASE_OFFSET, Self::TIME_BASE_BITS, RO),
    Field::new("Device GPF Phase 2 Time Scale", Self::TIME_SCALE_OFFSET, Self::TIME_SCALE_BITS, RO),
]);

/// GPF Phase 2 Power Register, offset 0x0C (CXL r3.1 section 8.1.7.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Phase2Power {
    /// Power drawn while flushing, in milliwatts.
    pub milliwatts: u32,
}

register!(Phase2Power: u32, "GPF Phase 2 Power" at 0x0C, [
    Field::new("GPF Phase 2 Active Power", Self::MILLIWATTS_OFFSET, Self::MILLIWATTS_BITS, RO),
]);

dvsec! {
    /// Timeouts of the flush phases, in root ports and switch downstream ports.
    GpfPortDvsec = GpfPort {
        /// Phase 1.
        phase1_control: Phase1Control;
        /// Phase 2.
        phase2_control: Phase2Control;
    }
}

dvsec! {
    /// Time and power a device needs for its flush.
    GpfDeviceDvsec = GpfDevice {
        /// Time.
        phase2_duration: Phase2Duration;
        /// Power.
        phase2_power: Phase2Power;
    }
}

const _: () = assert!(GpfPortDvsec::EXTENT.end == 0x10 && GpfDeviceDvsec::EXTENT.end == 0x10);
