//! CXL Extensions DVSEC for Ports, ID 3 (CXL r3.1 section 8.1.5).
//!
//! **Invariant**: register types hold any bits; the table of classes is all that restricts them.

use bitfield_struct::bitfield;

use super::dvsec;
use crate::access::rules::{RO, RW, RW1C};
use crate::access::{Class, Feature, Field, Rule, register};

/// CXL Port Extension Status Register, offset 0x0A (CXL r3.1 section 8.1.5.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Status {
    /// Power management is up on the link.
    pub pm_init_complete: bool,
    #[bits(13)]
    __: u16,
    /// A viral condition was seen.
    pub viral: bool,
    __: bool,
}

register!(Status: u16, "CXL Port Extension Status" at 0x0A, [
    Field::new(
        "Port Power Management Initialization Complete",
        Self::PM_INIT_COMPLETE_OFFSET,
        Self::PM_INIT_COMPLETE_BITS,
        RO,
    ),
    Field::new("Viral Status", Self::VIRAL_OFFSET, Self::VIRAL_BITS, RW1C),
]);

/// Port Control Extensions Register, offset 0x0C (CXL r3.1 section 8.1.5.2).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Control {
    /// Without it Secondary Bus Reset does nothing.
    pub unmask_sbr: bool,
    /// Without it Link Disable does nothing.
    pub unmask_link_disable: bool,
    /// The alternate windows below are in use.
    pub alt_space: bool,
    /// Bus mastering for the alternate buses.
    pub alt_bme: bool,
    /// Lets UIO reach HDM.
    pub uio_to_hdm: bool,
    #[bits(9)]
    __: u16,
    /// The port may make viral.
    pub viral_enable: bool,
    __: bool,
}

register!(Control: u16, "Port Control Extensions" at 0x0C, [
    Field::new("Unmask SBR", Self::UNMASK_SBR_OFFSET, Self::UNMASK_SBR_BITS, RW),
    Field::new(
        "Unmask Link Disable",
        Self::UNMASK_LINK_DISABLE_OFFSET,
        Self::UNMASK_LINK_DISABLE_BITS,
        RW,
    ),
    Field::new("Alt Memory and ID Space Enable", Self::ALT_SPACE_OFFSET, Self::ALT_SPACE_BITS, RW),
    Field::new("Alt BME", Self::ALT_BME_OFFSET, Self::ALT_BME_BITS, RW),
    Field::new(
        "UIO To HDM Enable",
        Self::UIO_TO_HDM_OFFSET,
        Self::UIO_TO_HDM_BITS,
        Rule::with(Class::Rw, Feature::Uio),
    ),
    Field::new("Viral Enable", Self::VIRAL_ENABLE_OFFSET, Self::VIRAL_ENABLE_BITS, RW),
]);

/// Alternate Bus Base Register, offset 0x0E (CXL r3.1 section 8.1.5.3).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct AltBusBase {
    /// Lowest bus number.
    pub bus: u8,
}

register!(AltBusBase: u8, "Alternate Bus Base" at 0x0E, [
    Field::new("Alt Bus Base", Self::BUS_OFFSET, Self::BUS_BITS, RW),
]);

/// Alternate Bus Limit Register, offset 0x0F (CXL r3.1 section 8.1.5.4).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct AltBusLimit {
    /// Highest bus number.
    pub bus: u8,
}

register!(AltBusLimit: u8, "Alternate Bus Limit" at 0x0F, [
    Field::new("Alt Bus Limit", Self::BUS_OFFSET, Self::BUS_BITS, RW),
]);

/// Alternate Memory Base Register, offset 0x10 (CXL r3.1 section 8.1.5.5).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct AltMemoryBase {
    #[bits(4)]
    __: u8,
    /// Address bits 31:20.
    #[bits(12)]
    pub address: u16,
}

register!(AltMemoryBase: u16, "Alternate Memory Base" at 0x10, [
    Field::new("Alt Mem Base", Self::ADDRESS_OFFSET, Self::ADDRESS_BITS, RW),
]);

/// Alternate Memory Limit Register, offset 0x12 (CXL r3.1 section 8.1.5.6).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct AltMemoryLimit {
    #[bits(4)]
    __: u8,
    /// Address bits 31:20.
    #[bits(12)]
    pub address: u16,
}

register!(AltMemoryLimit: u16, "Alternate Memory Limit" at 0x12, [
    Field::new("Alt Mem Limit", Self::ADDRESS_OFFSET, Self::ADDRESS_BITS, RW),
]);

/// Alternate Prefetchable Memory Base Register, offset 0x14 (CXL r3.1 section 8.1.5.7).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct AltPrefetchableBase {
    #[bits(4)]
    __: u8,
    /// Address bits 31:20.
    #[bits(12)]
    pub address: u16,
}

register!(AltPrefetchableBase: u16, "Alternate Prefetchable Memory Base" at 0x14, [
    Field::new("Alt Prefetch Mem Base", Self::ADDRESS_OFFSET, Self::ADDRESS_BITS, RW),
]);

/// Alternate Prefetchable Memory Limit Register, offset 0x16 (CXL r3.1 section 8.1.5.8).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct AltPrefetchableLimit {
    #[bits(4)]
    __: u8,
    /// Address bits 31:20.
    #[bits(12)]
    pub address: u16,
}

register!(AltPrefetchableLimit: u16, "Alternate Prefetchable Memory Limit" at 0x16, [
    Field::new("Alt Prefetch Mem Limit", Self::ADDRESS_OFFSET, Self::ADDRESS_BITS, RW),
]);

/// Alternate Prefetchable Memory Base High Register, offset 0x18 (CXL r3.1 section 8.1.5.9).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AltPrefetchableBaseHigh {
    /// Address bits 63:32.
    pub address: u32,
}

register!(AltPrefetchableBaseHigh: u32, "Alternate Prefetchable Memory Base High" at 0x18, [
    Field::new("Alt Prefetch Base High", Self::ADDRESS_OFFSET, Self::ADDRESS_BITS, RW),
]);

/// Alternate Prefetchable Memory Limit High Register, offset 0x1C (CXL r3.1 section 8.1.5.10).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AltPrefetchableLimitHigh {
    /// Address bits 63:32.
    pub address: u32,
}

register!(AltPrefetchableLimitHigh: u32, "Alternate Prefetchable Memory Limit High" at 0x1C, [
    Field::new("Alt Prefetch Limit High", Self::ADDRESS_OFFSET, Self::ADDRESS_BITS, RW),
]);

/// CXL RCRB Base Register, offset 0x20 (CXL r3.1 section 8.1.5.11).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RcrbBase {
    /// Moves the port's registers from configuration space to the RCRB, until a conventional
    /// reset.
    pub enable: bool,
    #[bits(12)]
    __: u16,
    /// Address bits 31:13.
    #[bits(19)]
    pub address: u32,
}

register!(RcrbBase: u32, "CXL RCRB Base" at 0x20, [
    Field::new("CXL RCRB Enable", Self::ENABLE_OFFSET, Self::ENABLE_BITS, RW),
    Field::new("CXL RCRB Base Address Low", Self::ADDRESS_OFFSET, Self::ADDRESS_BITS, RW),
]);

/// CXL RCRB Base High Register, offset 0x24 (CXL r3.1 section 8.1.5.12).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RcrbBaseHigh {
    /// Address bits 63:32.
    pub address: u32,
}

register!(RcrbBaseHigh: u32, "CXL RCRB Base High" at 0x24, [
    Field::new("CXL RCRB Base Address High", Self::ADDRESS_OFFSET, Self::ADDRESS_BITS, RW),
]);

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
