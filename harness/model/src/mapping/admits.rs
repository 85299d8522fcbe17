//! What a window admits (CXL r3.1 section 9.18.1.3, Window Restrictions): the models' own rule, for
//! the mapping and for devices that are plugged in.
//!
//! **Invariant**: nothing here comes from the firmware library, whose own rule this one is to catch.

use cxl_regs::Coherency;
use cxl_regs::acpi::cedt::Restrictions;

use crate::scenario::Partition;

/// Whether memory of this coherency may live in the window.
pub fn coherency(window: Restrictions, coherency: Coherency) -> bool {
    match coherency {
        Coherency::HostOnly => window.host_only(),
        Coherency::Device => window.device_coherent(),
        // HDM-DB is device-coherent memory, and more.
        Coherency::BackInvalidate => window.device_coherent() && window.back_invalidate(),
    }
}

/// Whether memory of this partition may live in the window.
pub fn media(window: Restrictions, partition: Partition) -> bool {
    match partition {
        Partition::Volatile => window.volatile(),
        Partition::Persistent => window.persistent(),
    }
}
