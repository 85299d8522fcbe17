//! CXL Extensions DVSEC for Ports, ID 3 (CXL r3.1 section 8.1.5).
//!
//! **Invariant**: register types hold any bits; the table of classes is all that restricts them.

use super::dvsec;
use crate::access::rules::{RO, RW, RW1C};
use crate::access::{Class, Feature, Rule, register};

register! {
    /// CXL Port Extension Status Register, offset 0x0A (CXL r3.1 section 8.1.5.1).
    Status: u16, "CXL Port Extension Status" at 0x0A {
        /// Power management is up on the link.
        pm_init_complete: bool, "Port Power Management Initialization Complete", RO;
        __: u16[13];
        /// A viral condition was seen.
        viral: bool, "Viral Status", RW1C;
        __: bool;
    }
}

register! {
    /// Port Control Extensions Register, offset 0x0C (CXL r3.1 section 8.1.5.2).
    Control: u16, "Port Control Extensions" at 0x0C {
        /// Without it Secondary Bus Reset does nothing.
        unmask_sbr: bool, "Unmask SBR", RW;
        /// Without it Link Disable does nothing.
        unmask_link_disable: bool, "Unmask Link Disable", RW;
        /// The alternate windows below are in use.
        alt_space: bool, "Alt Memory and ID Space Enable", RW;
        /// Bus mastering for the alternate buses.
        alt_bme: bool, "Alt BME", RW;
        /// Lets UIO reach HDM.
        uio_to_hdm: bool, "UIO To HDM Enable", Rule::with(Class::Rw, Feature::Uio);
        __: u16[9];
        /// The port may make viral.
        viral_enable: bool, "Viral Enable", RW;
        __: bool;
    }
}

register! {
    /// Alternate Bus Base Register, offset 0x0E (CXL r3.1 section 8.1.5.3).
    AltBusBase: u8, "Alternate Bus Base" at 0x0E {
        /// Lowest bus number.
        bus: u8, "Alt Bus Base", RW;
    }
}

register! {
    /// Alternate Bus Limit Register, offset 0x0F (CXL r3.1 section 8.1.5.4).
    AltBusLimit: u8, "Alternate Bus Limit" at 0x0F {
        /// Highest bus number.
        bus: u8, "Alt Bus Limit", RW;
    }
}

register! {
    /// Alternate Memory Base Register, offset 0x10 (CXL r3.1 section 8.1.5.5).
    AltMemoryBase: u16, "Alternate Memory Base" at 0x10 {
        __: u8[4];
        /// Address bits 31:20.
        address: u16[12], "Alt Mem Base", RW;
    }
}

register! {
    /// Alternate Memory Limit Register, offset 0x12 (CXL r3.1 section 8.1.5.6).
    AltMemoryLimit: u16, "Alternate Memory Limit" at 0x12 {
        __: u8[4];
        /// Address bits 31:20.
        address: u16[12], "Alt Mem Limit", RW;
    }
}

register! {
    /// Alternate Prefetchable Memory Base Register, offset 0x14 (CXL r3.1 section 8.1.5.7).
    AltPrefetchableBase: u16, "Alternate Prefetchable Memory Base" at 0x14 {
        __: u8[4];
        /// Address bits 31:20.
        address: u16[12], "Alt Prefetch Mem Base", RW;
    }
}

register! {
    /// Alternate Prefetchable Memory Limit Register, offset 0x16 (CXL r3.1 section 8.1.5.8).
    AltPrefetchableLimit: u16, "Alternate Prefetchable Memory Limit" at 0x16 {
        __: u8[4];
        /// Address bits 31:20.
        address: u16[12], "Alt Prefetch Mem Limit", RW;
    }
}

register! {
    /// Alternate Prefetchable Memory Base High Register, offset 0x18 (CXL r3.1 section 8.1.5.9).
    AltPrefetchableBaseHigh: u32, "Alternate Prefetchable Memory Base High" at 0x18 {
        /// Address bits 63:32.
        address: u32, "Alt Prefetch Base High", RW;
    }
}

register! {
    /// Alternate Prefetchable Memory Limit High Register, offset 0x1C (CXL r3.1 section 8.1.5.10).
    AltPrefetchableLimitHigh: u32, "Alternate Prefetchable Memory Limit High" at 0x1C {
        /// Address bits 63:32.
        address: u32, "Alt Prefetch Limit High", RW;
    }
}

register! {
    /// CXL RCRB Base Register, offset 0x20 (CXL r3.1 section 8.1.5.11).
    RcrbBase: u32, "CXL RCRB Base" at 0x20 {
        /// Moves the port's registers from configuration space to the RCRB, until a conventional
        /// reset.
        enable: bool, "CXL RCRB Enable", RW;
        __: u16[12];
        /// Address bits 31:13.
        address: u32[19], "CXL RCRB Base Address Low", RW;
    }
}

register! {
    /// CXL RCRB Base High Register, offset 0x24 (CXL r3.1 section 8.1.5.12).
    RcrbBaseHigh: u32, "CXL RCRB Base High" at 0x24 {
        /// Address bits 63:32.
        address: u32, "CXL RCRB Base Address High", RW;
    }
}

dvsec! {
    /// The DVSEC of root ports and switch downstream ports.
    PortDvsec = PortExtensions {
        /// Status.
        status: Status;
        /// Control.
        control: Control;
        /// Alternate buses.
        alt_bus_base: AltBusBase;
        /// Alternate buses.
        alt_bus_limit: AltBusLimit;
        /// Alternate memory window.
        alt_memory_base: AltMemoryBase;
        /// Alternate memory window.
        alt_memory_limit: AltMemoryLimit;
        /// Alternate prefetchable window.
        alt_pref_base: AltPrefetchableBase;
        /// Alternate prefetchable window.
        alt_pref_limit: AltPrefetchableLimit;
        /// Alternate prefetchable window, high.
        alt_pref_base_hi: AltPrefetchableBaseHigh;
        /// Alternate prefetchable window, high.
        alt_pref_limit_hi: AltPrefetchableLimitHigh;
        /// RCRB.
        rcrb_base: RcrbBase;
        /// RCRB, high.
        rcrb_base_high: RcrbBaseHigh;
    }
}

const _: () = assert!(PortDvsec::EXTENT.end == 0x28);
