//! GPF DVSECs: for ports, ID 4, and for devices, ID 5 (CXL r3.1 sections 8.1.6 and 8.1.7).
//!
//! **Invariant**: register types hold any bits; times are computed in one place,
//! [`microseconds`](crate::commit::microseconds).

use super::dvsec;
use crate::access::register;
use crate::access::rules::{RO, RW};

register! {
    /// GPF Phase 1 Control Register, offset 0x0C (CXL r3.1 section 8.1.6.1).
    Phase1Control: u16, "GPF Phase 1 Control" at 0x0C {
        /// Number of units.
        timeout_base: u8[4], "Port GPF Phase 1 Timeout Base", RW;
        __: u8[4];
        /// Unit; see [`microseconds`](crate::commit::microseconds).
        timeout_scale: u8[4], "Port GPF Phase 1 Timeout Scale", RW;
        __: u8[4];
    }
}

register! {
    /// GPF Phase 2 Control Register, offset 0x0E (CXL r3.1 section 8.1.6.2).
    Phase2Control: u16, "GPF Phase 2 Control" at 0x0E {
        /// Number of units.
        timeout_base: u8[4], "Port GPF Phase 2 Timeout Base", RW;
        __: u8[4];
        /// Unit; see [`microseconds`](crate::commit::microseconds).
        timeout_scale: u8[4], "Port GPF Phase 2 Timeout Scale", RW;
        __: u8[4];
    }
}

register! {
    /// GPF Phase 2 Duration Register, offset 0x0A (CXL r3.1 section 8.1.7.1).
    Phase2Duration: u16, "GPF Phase 2 Duration" at 0x0A {
        /// Number of units.
        time_base: u8[4], "Device GPF Phase 2 Time Base", RO;
        __: u8[4];
        /// Unit; see [`microseconds`](crate::commit::microseconds).
        time_scale: u8[4], "Device GPF Phase 2 Time Scale", RO;
        __: u8[4];
    }
}

register! {
    /// GPF Phase 2 Power Register, offset 0x0C (CXL r3.1 section 8.1.7.2).
    Phase2Power: u32, "GPF Phase 2 Power" at 0x0C {
        /// Power drawn while flushing, in milliwatts.
        milliwatts: u32, "GPF Phase 2 Active Power", RO;
    }
}

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
