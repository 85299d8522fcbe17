//! PCIe DVSEC for CXL Devices, ID 0 (CXL r3.1 section 8.1.3), revisions 1 to 3.
//!
//! **Invariant**: a [`Range`] has a base and a size in whole units of 256 MiB that do not pass the
//! end of the address space, and only encodings that the specification names.

use core::fmt;

use bitfield_struct::bitfield;

use super::{Dvsec, dvsec};
use crate::access::rules::{RO, RW, RW1CS, RWL, RWO};
use crate::access::{Class, Feature, Field, Rule, register};
use crate::addr::{DECODER_UNIT, Hpa};
use crate::block::block;
use crate::interleave::Granularity;

/// DVSEC CXL Capability Register, offset 0x0A (CXL r3.1 section 8.1.3.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Capability {
    /// Speaks CXL.cache.
    pub cache_capable: bool,
    /// Speaks CXL.io; always 1.
    pub io_capable: bool,
    /// Speaks CXL.mem.
    pub mem_capable: bool,
    /// Memory comes up without a driver's help.
    pub mem_hw_init: bool,
    /// Ranges: 1 or 2; 0 only without CXL.mem, 3 is reserved.
    #[bits(2)]
    pub hdm_count: u8,
    /// Control2 bits 0 and 1 and Status2 bit 0 exist.
    pub cache_write_back: bool,
    /// Control2 bit 2 and the timeout below exist.
    pub cxl_reset: bool,
    /// See [`Capability::reset_timeout_ms`].
    #[bits(3)]
    pub reset_timeout: u8,
    /// Can clear volatile memory on CXL Reset.
    pub reset_mem_clear: bool,
    /// TEE security protocol (revision 3).
    pub tsp: bool,
    /// A logical device of an MLD.
    pub multiple_logical: bool,
    /// Handles viral; 1 in all devices.
    pub viral_capable: bool,
    /// Status2 bit 15 works.
    pub pm_init_reporting: bool,
}

register!(Capability: u16, "DVSEC CXL Capability" at 0x0A, [
    Field::new("Cache_Capable", Self::CACHE_CAPABLE_OFFSET, Self::CACHE_CAPABLE_BITS, RO),
    Field::new("IO_Capable", Self::IO_CAPABLE_OFFSET, Self::IO_CAPABLE_BITS, RO),
    Field::new("Mem_Capable", Self::MEM_CAPABLE_OFFSET, Self::MEM_CAPABLE_BITS, RO),
    Field::new("Mem_HwInit_Mode", Self::MEM_HW_INIT_OFFSET, Self::MEM_HW_INIT_BITS, RO),
    Field::new("HDM_Count", Self::HDM_COUNT_OFFSET, Self::HDM_COUNT_BITS, RO),
    Field::new(
        "Cache Writeback and Invalidate Capable",
        Self::CACHE_WRITE_BACK_OFFSET,
        Self::CACHE_WRITE_BACK_BITS,
        RO,
    ),
    Field::new("CXL Reset Capable", Self::CXL_RESET_OFFSET, Self::CXL_RESET_BITS, RO),
    Field::new("CXL Reset Timeout", Self::RESET_TIMEOUT_OFFSET, Self::RESET_TIMEOUT_BITS, RO),
    Field::new(
        "CXL Reset Mem Clr Capable",
        Self::RESET_MEM_CLEAR_OFFSET,
        Self::RESET_MEM_CLEAR_BITS,
        RO,
    ),
    Field::new("TSP Capable", Self::TSP_OFFSET, Self::TSP_BITS, RO),
    Field::new(
        "Multiple Logical Device",
        Self::MULTIPLE_LOGICAL_OFFSET,
        Self::MULTIPLE_LOGICAL_BITS,
        RO,
    ),
    Field::new("Viral_Capable", Self::VIRAL_CAPABLE_OFFSET, Self::VIRAL_CAPABLE_BITS, RO),
    Field::new(
        "PM Init Completion Reporting Capable",
        Self::PM_INIT_REPORTING_OFFSET,
        Self::PM_INIT_REPORTING_BITS,
        RO,
    ),
]);

/// DVSEC CXL Control Register, offset 0x0C (CXL r3.1 section 8.1.3.2). CONFIG_LOCK freezes all of
/// it.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Control {
    /// CXL.cache is on.
    pub cache_enable: bool,
    /// CXL.io is on; always 1.
    pub io_enable: bool,
    /// CXL.mem is on. At 0 the device may drop accesses without a word.
    pub mem_enable: bool,
    /// Hint: log2 of the host's snoop filter coverage, less 15; 0 for none.
    #[bits(5)]
    pub cache_sf_coverage: u8,
    /// Hint: log2 of the tracking granule, less 6.
    #[bits(3)]
    pub cache_sf_granularity: u8,
    /// Hint: clean evictions are not needed.
    pub cache_clean_eviction: bool,
    /// May issue CXL.mem requests to peers (revision 3).
    pub direct_p2p: bool,
    __: bool,
    /// Viral handling is on.
    pub viral_enable: bool,
    __: bool,
}

register!(Control: u16, "DVSEC CXL Control" at 0x0C, [
    Field::new("Cache_Enable", Self::CACHE_ENABLE_OFFSET, Self::CACHE_ENABLE_BITS, RWL),
    Field::new("IO_Enable", Self::IO_ENABLE_OFFSET, Self::IO_ENABLE_BITS, RO),
    Field::new("Mem_Enable", Self::MEM_ENABLE_OFFSET, Self::MEM_ENABLE_BITS, RWL),
    Field::new(
        "Cache_SF_Coverage",
        Self::CACHE_SF_COVERAGE_OFFSET,
        Self::CACHE_SF_COVERAGE_BITS,
        RWL,
    ),
    Field::new(
        "Cache_SF_Granularity",
        Self::CACHE_SF_GRANULARITY_OFFSET,
        Self::CACHE_SF_GRANULARITY_BITS,
        RWL,
    ),
    Field::new(
        "Cache_Clean_Eviction",
        Self::CACHE_CLEAN_EVICTION_OFFSET,
        Self::CACHE_CLEAN_EVICTION_BITS,
        RWL,
    ),
    Field::new(
        "Direct P2P Mem Enable",
        Self::DIRECT_P2P_OFFSET,
        Self::DIRECT_P2P_BITS,
        Rule::with(Class::Rwl, Feature::DirectP2p),
    ),
    Field::new("Viral_Enable", Self::VIRAL_ENABLE_OFFSET, Self::VIRAL_ENABLE_BITS, RWL),
]);

/// DVSEC CXL Status Register, offset 0x0E (CXL r3.1 section 8.1.3.3).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Status {
    #[bits(14)]
    __: u16,
    /// A viral condition was seen.
    pub viral: bool,
    __: bool,
}

register!(Status: u16, "DVSEC CXL Status" at 0x0E, [
    Field::new("Viral_Status", Self::VIRAL_OFFSET, Self::VIRAL_BITS, RW1CS),
]);

/// DVSEC CXL Control2 Register, offset 0x10 (CXL r3.1 section 8.1.3.4). No lock freezes it.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Control2 {
    /// No new modified lines.
    pub disable_caching: bool,
    /// Writing 1 empties the cache.
    pub initiate_write_back: bool,
    /// Writing 1 starts a CXL Reset.
    pub initiate_reset: bool,
    /// CXL Reset clears volatile memory.
    pub reset_mem_clear: bool,
    /// Keep volatile memory over a hot reset (revision 2).
    pub preserve_volatile: bool,
    /// May answer with modified data (revision 3).
    pub modified_completion: bool,
    #[bits(10)]
    __: u16,
}

register!(Control2: u16, "DVSEC CXL Control2" at 0x10, [
    Field::new(
        "Disable Caching",
        Self::DISABLE_CACHING_OFFSET,
        Self::DISABLE_CACHING_BITS,
        Rule::with(Class::Rw, Feature::CacheWriteBack),
    ),
    Field::new(
        "Initiate Cache Write Back and Invalidation",
        Self::INITIATE_WRITE_BACK_OFFSET,
        Self::INITIATE_WRITE_BACK_BITS,
        Rule::with(Class::Trigger, Feature::CacheWriteBack),
    ),
    Field::new(
        "Initiate CXL Reset",
        Self::INITIATE_RESET_OFFSET,
        Self::INITIATE_RESET_BITS,
        Rule::with(Class::Trigger, Feature::CxlReset),
    ),
    Field::new(
        "CXL Reset Mem Clr Enable",
        Self::RESET_MEM_CLEAR_OFFSET,
        Self::RESET_MEM_CLEAR_BITS,
        RW,
    ),
    Field::new(
        "Desired Volatile HDM State after Hot Reset",
        Self::PRESERVE_VOLATILE_OFFSET,
        Self::PRESERVE_VOLATILE_BITS,
        Rule::with(Class::Rws, Feature::HotResetState),
    ),
    Field::new(
        "Modified Completion Enable",
        Self::MODIFIED_COMPLETION_OFFSET,
        Self::MODIFIED_COMPLETION_BITS,
        Rule::with(Class::Rw, Feature::ModifiedCompletion),
    ),
]);

/// DVSEC CXL Status2 Register, offset 0x12 (CXL r3.1 section 8.1.3.5).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Status2 {
    /// No valid lines, and caching is disabled.
    pub cache_invalid: bool,
    /// The last CXL Reset ended well.
    pub reset_complete: bool,
    /// The last CXL Reset ended with errors.
    pub reset_error: bool,
    /// Volatile memory should have been kept and was not (revision 2).
    pub preservation_error: bool,
    #[bits(11)]
    __: u16,
    /// Ready for power management messages.
    pub pm_init_complete: bool,
}

register!(Status2: u16, "DVSEC CXL Status2" at 0x12, [
    Field::new("Cache Invalid", Self::CACHE_INVALID_OFFSET, Self::CACHE_INVALID_BITS, RO),
    Field::new("CXL Reset Complete", Self::RESET_COMPLETE_OFFSET, Self::RESET_COMPLETE_BITS, RO),
    Field::new("CXL Reset Error", Self::RESET_ERROR_OFFSET, Self::RESET_ERROR_BITS, RO),
    Field::new(
        "Volatile HDM Preservation Error",
        Self::PRESERVATION_ERROR_OFFSET,
        Self::PRESERVATION_ERROR_BITS,
        Rule::with(Class::Rw1cs, Feature::HotResetState),
    ),
    Field::new(
        "Power Management Initialization Complete",
        Self::PM_INIT_COMPLETE_OFFSET,
        Self::PM_INIT_COMPLETE_BITS,
        RO,
    ),
]);

/// DVSEC CXL Lock Register, offset 0x14 (CXL r3.1 section 8.1.3.6). HDM decoders do not care for
/// it, nor it for theirs.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Lock {
    /// Freezes Control and the range bases until a conventional reset.
    pub config_lock: bool,
    #[bits(15)]
    __: u16,
}

register!(Lock: u16, "DVSEC CXL Lock" at 0x14, [
    Field::new("CONFIG_LOCK", Self::CONFIG_LOCK_OFFSET, Self::CONFIG_LOCK_BITS, RWO),
]);

/// DVSEC CXL Capability2 Register, offset 0x16 (CXL r3.1 section 8.1.3.7).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Capability2 {
    /// 0 not reported, 1 64 KiB, 2 1 MiB.
    #[bits(4)]
    pub cache_size_unit: u8,
    /// What a Type 2 device can be instead: 0 nothing, 1 PCIe, 2 Type 1, 3 Type 3.
    #[bits(2)]
    pub fallback: u8,
    /// Control2 bit 5 exists (revision 3).
    pub modified_completion: bool,
    /// Never writes clean lines back (revision 3).
    pub no_clean_writeback: bool,
    /// In units of the unit.
    pub cache_size: u8,
}

register!(Capability2: u16, "DVSEC CXL Capability2" at 0x16, [
    Field::new("Cache Size Unit", Self::CACHE_SIZE_UNIT_OFFSET, Self::CACHE_SIZE_UNIT_BITS, RO),
    Field::new("Fallback Capability", Self::FALLBACK_OFFSET, Self::FALLBACK_BITS, RO),
    Field::new(
        "Modified Completion Capable",
        Self::MODIFIED_COMPLETION_OFFSET,
        Self::MODIFIED_COMPLETION_BITS,
        RO,
    ),
    Field::new(
        "No Clean Writeback",
        Self::NO_CLEAN_WRITEBACK_OFFSET,
        Self::NO_CLEAN_WRITEBACK_BITS,
        RO,
    ),
    Field::new("Cache Size", Self::CACHE_SIZE_OFFSET, Self::CACHE_SIZE_BITS, RO),
]);

/// DVSEC CXL Range Size High Register, offset 0x18 (CXL r3.1 section 8.1.3.8.1). Range 1; range 2
/// is 0x10 on.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RangeSizeHigh {
    /// Size bits 63:32.
    pub size: u32,
}

register!(RangeSizeHigh: u32, "DVSEC CXL Range Size High" at 0x18, [
    Field::new("Memory_Size_High", Self::SIZE_OFFSET, Self::SIZE_BITS, RO),
]);

/// DVSEC CXL Range Size Low Register, offset 0x1C (CXL r3.1 section 8.1.3.8.2). Range 1; range 2
/// is 0x10 on.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RangeSizeLow {
    /// The size registers can be believed; at most 1 s after reset.
    pub info_valid: bool,
    /// Memory is ready for use.
    pub active: bool,
    /// See [`MediaType`].
    #[bits(3)]
    pub media_type: u8,
    /// See [`MemoryClass`].
    #[bits(3)]
    pub memory_class: u8,
    /// See [`desired_interleave`]. Not the order of decoder granularity.
    #[bits(5)]
    pub desired_interleave: u8,
    /// See [`active_timeout_seconds`].
    #[bits(3)]
    pub active_timeout: u8,
    /// Ready, but smaller or slower than it should be (revision 3).
    pub active_degraded: bool,
    #[bits(11)]
    __: u16,
    /// Size bits 31:28.
    #[bits(4)]
    pub size: u8,
}

register!(RangeSizeLow: u32, "DVSEC CXL Range Size Low" at 0x1C, [
    Field::new("Memory_Info_Valid", Self::INFO_VALID_OFFSET, Self::INFO_VALID_BITS, RO),
    Field::new("Memory_Active", Self::ACTIVE_OFFSET, Self::ACTIVE_BITS, RO),
    Field::new("Media_Type", Self::MEDIA_TYPE_OFFSET, Self::MEDIA_TYPE_BITS, RO),
    Field::new("Memory_Class", Self::MEMORY_CLASS_OFFSET, Self::MEMORY_CLASS_BITS, RO),
    Field::new(
        "Desired_Interleave",
        Self::DESIRED_INTERLEAVE_OFFSET,
        Self::DESIRED_INTERLEAVE_BITS,
        RO,
    ),
    Field::new("Memory_Active_Timeout", Self::ACTIVE_TIMEOUT_OFFSET, Self::ACTIVE_TIMEOUT_BITS, RO),
    Field::new(
        "Memory_Active_Degraded",
        Self::ACTIVE_DEGRADED_OFFSET,
        Self::ACTIVE_DEGRADED_BITS,
        RO,
    ),
    Field::new("Memory_Size_Low", Self::SIZE_OFFSET, Self::SIZE_BITS, RO),
]);

/// DVSEC CXL Range Base High Register, offset 0x20 (CXL r3.1 section 8.1.3.8.3). Range 1; range 2
/// is 0x10 on.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RangeBaseHigh {
    /// Base bits 63:32.
    pub base: u32,
}

register!(RangeBaseHigh: u32, "DVSEC CXL Range Base High" at 0x20, [
    Field::new("Memory_Base_High", Self::BASE_OFFSET, Self::BASE_BITS, RWL),
]);

/// DVSEC CXL Range Base Low Register, offset 0x24 (CXL r3.1 section 8.1.3.8.4). Range 1; range 2
/// is 0x10 on.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RangeBaseLow {
    #[bits(28)]
    __: u32,
    /// Base bits 31:28.
    #[bits(4)]
    pub base: u8,
}

register!(RangeBaseLow: u32, "DVSEC CXL Range Base Low" at 0x24, [
    Field::new("Memory_Base_Low", Self::BASE_OFFSET, Self::BASE_BITS, RWL),
]);

/// DVSEC CXL Capability3 Register, offset 0x38 (CXL r3.1 section 8.1.3.9). Revision 2 and later.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Capability3 {
    /// Volatile memory outlives a cold reset.
    pub preserves_cold: bool,
    /// Volatile memory outlives a warm reset.
    pub preserves_warm: bool,
    /// Volatile memory outlives a hot reset.
    pub preserves_hot: bool,
    /// Control2 bit 4 exists.
    pub hot_configurable: bool,
    /// Control bit 12 exists.
    pub direct_p2p: bool,
    #[bits(11)]
    __: u16,
}

register!(Capability3: u16, "DVSEC CXL Capability3" at 0x38, [
    Field::new(
        "Default Volatile HDM State after Cold Reset",
        Self::PRESERVES_COLD_OFFSET,
        Self::PRESERVES_COLD_BITS,
        RO,
    ),
    Field::new(
        "Default Volatile HDM State after Warm Reset",
        Self::PRESERVES_WARM_OFFSET,
        Self::PRESERVES_WARM_BITS,
        RO,
    ),
    Field::new(
        "Default Volatile HDM State after Hot Reset",
        Self::PRESERVES_HOT_OFFSET,
        Self::PRESERVES_HOT_BITS,
        RO,
    ),
    Field::new(
        "Volatile HDM State after Hot Reset - Configurability",
        Self::HOT_CONFIGURABLE_OFFSET,
        Self::HOT_CONFIGURABLE_BITS,
        RO,
    ),
    Field::new("Direct P2P Mem Capable", Self::DIRECT_P2P_OFFSET, Self::DIRECT_P2P_BITS, RO),
]);

dvsec! {
    /// The registers that all revisions from 1 on have.
    DeviceDvsec = Device {
        /// What the device can do.
        capability: Capability;
        /// Enables.
        control: Control;
        /// Viral.
        status: Status;
        /// Resets and caching.
        control2: Control2;
        /// What came of them.
        status2: Status2;
        /// CONFIG_LOCK.
        lock: Lock;
        /// Cache size.
        capability2: Capability2;
        /// Range 1.
        range1_size_high: RangeSizeHigh;
        /// Range 1.
        range1_size_low: RangeSizeLow;
        /// Range 1.
        range1_base_high: RangeBaseHigh;
        /// Range 1.
        range1_base_low: RangeBaseLow;
        /// Range 2.
        range2_size_high: RangeSizeHigh, + 0x10;
        /// Range 2.
        range2_size_low: RangeSizeLow, + 0x10;
        /// Range 2.
        range2_base_high: RangeBaseHigh, + 0x10;
        /// Range 2.
        range2_base_low: RangeBaseLow, + 0x10;
    }
}

block! {
    /// What revision 2 added at the end.
    DeviceDvsecTail {
        /// Volatile memory over resets.
        capability3: Capability3;
    }
}

/// Length of a revision 1 DVSEC.
pub const LENGTH_REVISION_1: u16 = DeviceDvsec::EXTENT.end;
/// Length from revision 2 on.
pub const LENGTH_REVISION_3: u16 = DeviceDvsecTail::EXTENT.end;
const _: () = assert!(LENGTH_REVISION_1 == 0x38 && LENGTH_REVISION_3 == 0x3C);

impl DeviceDvsecTail {
    /// Reads the tail of the DVSEC that a walk found; `None` if it is too short to have one.
    pub fn of(dvsec: &Dvsec, reader: impl FnMut(u16) -> u32) -> Option<Self> {
        dvsec.has(Self::EXTENT).then(|| Self::read(reader, dvsec.offset))
    }
}

impl Capability {
    /// How long a CXL Reset may take, in milliseconds; `None` for a reserved code.
    pub const fn reset_timeout_ms(self) -> Option<u32> {
        match self.reset_timeout() {
            code @ 0..=4 => Some(10 * 10u32.pow(code as u32)),
            _ => None,
        }
    }
}

/// The four registers of one range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeRegisters {
    /// Size, high.
    pub size_high: RangeSizeHigh,
    /// Size, low, and what the memory is.
    pub size_low: RangeSizeLow,
    /// Base, high.
    pub base_high: RangeBaseHigh,
    /// Base, low.
    pub base_low: RangeBaseLow,
}

impl DeviceDvsec {
    /// The registers of both ranges.
    pub const fn ranges(&self) -> [RangeRegisters; 2] {
        [
            RangeRegisters {
                size_high: self.range1_size_high,
                size_low: self.range1_size_low,
                base_high: self.range1_base_high,
                base_low: self.range1_base_low,
            },
            RangeRegisters {
                size_high: self.range2_size_high,
                size_low: self.range2_size_low,
                base_high: self.range2_base_high,
                base_low: self.range2_base_low,
            },
        ]
    }

    /// The DVSEC with both ranges set: the inverse of [`DeviceDvsec::ranges`].
    pub const fn with_ranges(self, [first, second]: [RangeRegisters; 2]) -> Self {
        Self {
            range1_size_high: first.size_high,
            range1_size_low: first.size_low,
            range1_base_high: first.base_high,
            range1_base_low: first.base_low,
            range2_size_high: second.size_high,
            range2_size_low: second.size_low,
            range2_base_high: second.base_high,
            range2_base_low: second.base_low,
            ..self
        }
    }
}

/// What a range's memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MediaType {
    /// Volatile (CXL 1.1 devices only).
    Volatile = 0,
    /// Non-volatile (CXL 1.1 devices only).
    NonVolatile = 1,
    /// CDAT tells.
    #[default]
    Cdat = 2,
}

/// The class of a range's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryClass {
    /// Memory such as DRAM (CXL 1.1 devices only).
    Memory = 0,
    /// Storage (CXL 1.1 devices only).
    Storage = 1,
    /// CDAT tells.
    #[default]
    Cdat = 2,
}

/// Whether a range's memory can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet, or not any more.
    #[default]
    Inactive,
    /// Yes.
    Active,
    /// Yes, but smaller or slower than it should be.
    Degraded,
}

impl MediaType {
    /// From the field.
    pub const fn decode(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Volatile),
            1 => Some(Self::NonVolatile),
            2 => Some(Self::Cdat),
            _ => None,
        }
    }
}

impl MemoryClass {
    /// From the field.
    pub const fn decode(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Memory),
            1 => Some(Self::Storage),
            2 => Some(Self::Cdat),
            _ => None,
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Volatile => "volatile",
            Self::NonVolatile => "non-volatile",
            Self::Cdat => "see CDAT",
        })
    }
}

impl fmt::Display for MemoryClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Storage => "storage",
            Self::Cdat => "see CDAT",
        })
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inactive => "inactive",
            Self::Active => "active",
            Self::Degraded => "active, degraded",
        })
    }
}

/// The granularities behind codes 1 to 7 of Desired_Interleave; code 0 is none.
const DESIRED: [Granularity; 7] = [
    Granularity::B256,
    Granularity::K4,
    Granularity::B512,
    Granularity::K1,
    Granularity::K2,
    Granularity::K8,
    Granularity::K16,
];

/// The desired interleave behind a code: `Some(None)` for no wish, `None` for a reserved code.
pub fn desired_interleave(code: u8) -> Option<Option<Granularity>> {
    match code.checked_sub(1) {
        None => Some(None),
        Some(index) => DESIRED.get(usize::from(index)).copied().map(Some),
    }
}

/// The code of a desired interleave: the inverse of [`desired_interleave`].
pub fn encode_desired_interleave(wish: Option<Granularity>) -> u8 {
    let index = DESIRED.iter().position(|&granularity| Some(granularity) == wish);
    index.map_or(0, |index| index as u8 + 1)
}

/// Seconds behind each code of Memory_Active_Timeout.
const ACTIVE_TIMEOUTS: [u16; 5] = [1, 4, 16, 64, 256];

/// How long after a reset the memory may take; `None` for a reserved code.
pub fn active_timeout_seconds(code: u8) -> Option<u16> {
    ACTIVE_TIMEOUTS.get(usize::from(code)).copied()
}

/// One range: what the device says of its memory, and where software put it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First address that it decodes.
    pub base: Hpa,
    /// Bytes; a device may have none.
    pub size: u64,
    /// Whether the memory can be used.
    pub readiness: Readiness,
    /// What it is.
    pub media: MediaType,
    /// Its class.
    pub class: MemoryClass,
    /// The least granularity it wants to be interleaved at.
    pub desired_interleave: Option<Granularity>,
    /// Code of the longest wait for readiness; see [`active_timeout_seconds`].
    pub active_timeout: u8,
}

/// Why four registers are not a range, or a range not four registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeError {
    /// Memory_Info_Valid is 0: the size is not known (yet).
    NotValid,
    /// A field holds a reserved code.
    Reserved {
        /// The specification's name of the field.
        field: &'static str,
        /// The code.
        code: u8,
    },
    /// Both Memory_Active and Memory_Active_Degraded.
    ActiveAndDegraded,
    /// Base or size is not a multiple of 256 MiB.
    Unaligned {
        /// The base.
        base: Hpa,
        /// The size.
        size: u64,
    },
    /// Base and size pass the end of the address space.
    Wraps {
        /// The base.
        base: Hpa,
        /// The size.
        size: u64,
    },
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotValid => f.write_str("Memory_Info_Valid is 0: the size is not known"),
            Self::Reserved { field, code } => write!(f, "{field} holds reserved code {code:#x}"),
            Self::ActiveAndDegraded => {
                f.write_str("Memory_Active and Memory_Active_Degraded are both 1")
            }
            Self::Unaligned { base, size } => {
                write!(f, "base {base} and size {size:#x} must be multiples of 256 MiB")
            }
            Self::Wraps { base, size } => {
                write!(f, "base {base} + size {size:#x} passes the end of the 64-bit space")
            }
        }
    }
}

impl core::error::Error for RangeError {}

const LOW_UNITS: u32 = DECODER_UNIT.trailing_zeros();

impl RangeRegisters {
    /// Base as the registers have it.
    pub const fn base(&self) -> Hpa {
        let (high, low) = (self.base_high.base() as u64, self.base_low.base() as u64);
        Hpa(high << 32 | low << LOW_UNITS)
    }

    /// Size as the registers have it.
    pub const fn size(&self) -> u64 {
        let (high, low) = (self.size_high.size() as u64, self.size_low.size() as u64);
        high << 32 | low << LOW_UNITS
    }
}

impl Range {
    fn check(self) -> Result<Self, RangeError> {
        let Self { base, size, .. } = self;
        if !(base.0 | size).is_multiple_of(DECODER_UNIT) {
            return Err(RangeError::Unaligned { base, size });
        }
        if base.0.checked_add(size).is_none() {
            return Err(RangeError::Wraps { base, size });
        }
        if active_timeout_seconds(self.active_timeout).is_none() {
            let code = self.active_timeout;
            return Err(RangeError::Reserved { field: "Memory_Active_Timeout", code });
        }
        Ok(self)
    }

    /// The range out of its registers.
    pub fn decode(registers: RangeRegisters) -> Result<Self, RangeError> {
        let low = registers.size_low;
        if !low.info_valid() {
            return Err(RangeError::NotValid);
        }
        let reserved = |field, code| RangeError::Reserved { field, code };
        let wish = low.desired_interleave();
        Self {
            base: registers.base(),
            size: registers.size(),
            readiness: match (low.active(), low.active_degraded()) {
                (false, false) => Readiness::Inactive,
                (true, false) => Readiness::Active,
                (false, true) => Readiness::Degraded,
                (true, true) => return Err(RangeError::ActiveAndDegraded),
            },
            media: MediaType::decode(low.media_type())
                .ok_or(reserved("Media_Type", low.media_type()))?,
            class: MemoryClass::decode(low.memory_class())
                .ok_or(reserved("Memory_Class", low.memory_class()))?,
            desired_interleave: desired_interleave(wish)
                .ok_or(reserved("Desired_Interleave", wish))?,
            active_timeout: low.active_timeout(),
        }
        .check()
    }

    /// The registers of a range: the inverse of [`Range::decode`].
    pub fn encode(self) -> Result<RangeRegisters, RangeError> {
        let Self { base, size, readiness, .. } = self.check()?;
        Ok(RangeRegisters {
            size_high: RangeSizeHigh::new().with_size((size >> 32) as u32),
            size_low: RangeSizeLow::new()
                .with_info_valid(true)
                .with_active(readiness == Readiness::Active)
                .with_active_degraded(readiness == Readiness::Degraded)
                .with_media_type(self.media as u8)
                .with_memory_class(self.class as u8)
                .with_desired_interleave(encode_desired_interleave(self.desired_interleave))
                .with_active_timeout(self.active_timeout)
                .with_size((size >> LOW_UNITS) as u8 & 0xf),
            base_high: RangeBaseHigh::new().with_base((base.0 >> 32) as u32),
            base_low: RangeBaseLow::new().with_base((base.0 >> LOW_UNITS) as u8 & 0xf),
        })
    }
}
