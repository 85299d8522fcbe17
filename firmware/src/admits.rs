//! What a window admits: the library's one reading of a window's restrictions (CXL r3.1 section
//! 9.18.1.3).
//!
//! The plan asks before anything is programmed, the verifier and the table's cross-check of what is
//! programmed. There are exactly two more readings, and each has a reason to be one: the harness's
//! models have their own (`mapping`), because they judge what this library does and must not share
//! a mistake with it; and its `lint` has Linux's, which is what one driver does and no rule at all.
//!
//! **Invariant**: pure, and a restriction is looked at here or nowhere.

use cxl_regs::Coherency;
use cxl_regs::acpi::cedt::Restrictions;

use crate::topology::Partition;

/// Whether memory of this coherency may be in the window. Back-invalidate means something only
/// beside device-coherent.
pub(crate) fn coherency(allowed: Restrictions, coherency: Coherency) -> bool {
    match coherency {
        Coherency::HostOnly => allowed.host_only(),
        Coherency::Device => allowed.device_coherent(),
        Coherency::BackInvalidate => allowed.device_coherent() && allowed.back_invalidate(),
    }
}

/// Whether this kind of memory may be in the window.
pub(crate) fn partition(allowed: Restrictions, partition: Partition) -> bool {
    match partition {
        Partition::Volatile => allowed.volatile(),
        Partition::Persistent => allowed.persistent(),
    }
}
