//! Who plays the machine, as far as a payload's verdict depends on it: what a load reads where no
//! memory answers is nowhere specified.
//!
//! **Invariant**: the machine says itself who it is, and nothing is concluded from what a load read.

use cxl_regs::acpi::Rsdp;

/// A machine monitor that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vmm {
    /// This repository's harness: its OEM ID is in the RSDP.
    Harness,
    /// QEMU: it has a fw_cfg device with QEMU's signature.
    Qemu,
    /// Another, or real hardware.
    Unknown,
}

impl Vmm {
    /// Whose machine this is, by the bytes at the RSDP and whether there is a fw_cfg device.
    pub(crate) fn of(rsdp: &[u8], fw_cfg: impl FnOnce() -> bool) -> Self {
        match Rsdp::read(rsdp) {
            Ok(found) if found.oem_id == *b"CXLFW " => Self::Harness,
            _ if fw_cfg() => Self::Qemu,
            _ => Self::Unknown,
        }
    }

    /// What a load of eight bytes reads where nothing answers; `None` where nobody knows.
    pub(crate) fn miss(self) -> Option<u64> {
        match self {
            // The harness's `machine`: an access that nothing claims reads all-ones.
            Self::Harness => Some(u64::MAX),
            // QEMU: `unassigned_mem_read` in system/memory.c, and `cxl_read_cfmws` in
            // hw/cxl/cxl-host.c.
            Self::Qemu => Some(0),
            Self::Unknown => None,
        }
    }

    /// Whether a load says that nothing answers, where `stored` was stored before. Of an unknown
    /// machine all that can be said is that it kept nothing.
    pub(crate) fn is_miss(self, found: u64, stored: u64) -> bool {
        self.miss().map_or(found != stored, |miss| found == miss)
    }
}
