//! PCIe DVSEC for CXL Devices, ID 0 (CXL r3.1 section 8.1.3), revisions 1 to 3.
//!
//! **Invariant**: a [`Range`] has a base and a size in whole units of 256 MiB that do not pass the
//! end of the address space, and only encodings that the specification names.

use core::fmt;

use super::{Dvsec, dvsec};
use crate::access::rules::{RO, RW, RW1CS, RWL, RWO};
use crate::access::{Class, Feature, Rule, register};
use crate::addr::{DECODER_UNIT, Hpa};
use crate::block::block;
use crate::interleave::Granularity;

register! {
    /// DVSEC CXL Capability Register, offset 0x0A (CXL r3.1 section 8.1.3.1).
    Capability: u16, "DVSEC CXL Capability" at 0x0A {
        /// Speaks CXL.cache.
        cache_capable: bool, "Cache_Capable", RO;
        /// Speaks CXL.io; always 1.
        io_capable: bool, "IO_Capable", RO;
        /// Speaks CXL.mem.
        mem_capable: bool, "Mem_Capable", RO;
        /// Memory comes up without a driver's help.
        mem_hw_init: bool, "Mem_HwInit_Mode", RO;
        /// Ranges: 1 or 2; 0 only without CXL.mem, 3 is reserved.
        hdm_count: u8[2], "HDM_Count", RO;
        /// Control2 bits 0 and 1 and Status2 bit 0 exist.
        cache_write_back: bool, "Cache Writeback and Invalidate Capable", RO;
        /// Control2 bit 2 and the timeout below exist.
        cxl_reset: bool, "CXL Reset Capable", RO;
        /// See [`Capability::reset_timeout_ms`].
        reset_timeout: u8[3], "CXL Reset Timeout", RO;
        /// Can clear volatile memory on CXL Reset.
        reset_mem_clear: bool, "CXL Reset Mem Clr Capable", RO;
        /// TEE security protocol (revision 3).
        tsp: bool, "TSP Capable", RO;
        /// A logical device of an MLD.
        multiple_logical: bool, "Multiple Logical Device", RO;
        /// Handles viral; 1 in all devices.
        viral_capable: bool, "Viral_Capable", RO;
        /// Status2 bit 15 works.
        pm_init_reporting: bool, "PM Init Completion Reporting Capable", RO;
    }
}

register! {
    /// DVSEC CXL Control Register, offset 0x0C (CXL r3.1 section 8.1.3.2). CONFIG_LOCK freezes all
    /// of it.
    Control: u16, "DVSEC CXL Control" at 0x0C {
        /// CXL.cache is on.
        cache_enable: bool, "Cache_Enable", RWL;
        /// CXL.io is on; always 1.
        io_enable: bool, "IO_Enable", RO;
        /// CXL.mem is on. At 0 the device may drop accesses without a word.
        mem_enable: bool, "Mem_Enable", RWL;
        /// Hint: log2 of the host's snoop filter coverage, less 15; 0 for none.
        cache_sf_coverage: u8[5], "Cache_SF_Coverage", RWL;
        /// Hint: log2 of the tracking granule, less 6.
        cache_sf_granularity: u8[3], "Cache_SF_Granularity", RWL;
        /// Hint: clean evictions are not needed.
        cache_clean_eviction: bool, "Cache_Clean_Eviction", RWL;
        /// May issue CXL.mem requests to peers (revision 3).
        direct_p2p: bool, "Direct P2P Mem Enable", Rule::with(Class::Rwl, Feature::DirectP2p);
        __: bool;
        /// Viral handling is on.
        viral_enable: bool, "Viral_Enable", RWL;
        __: bool;
    }
}

register! {
    /// DVSEC CXL Status Register, offset 0x0E (CXL r3.1 section 8.1.3.3).
    Status: u16, "DVSEC CXL Status" at 0x0E {
        __: u16[14];
        /// A viral condition was seen.
        viral: bool, "Viral_Status", RW1CS;
        __: bool;
    }
}

register! {
    /// DVSEC CXL Control2 Register, offset 0x10 (CXL r3.1 section 8.1.3.4). No lock freezes it.
    Control2: u16, "DVSEC CXL Control2" at 0x10 {
        /// No new modified lines.
        disable_caching: bool, "Disable Caching", Rule::with(Class::Rw, Feature::CacheWriteBack);
        /// Writing 1 empties the cache.
        initiate_write_back: bool, "Initiate Cache Write Back and Invalidation",
            Rule::with(Class::Trigger, Feature::CacheWriteBack);
        /// Writing 1 starts a CXL Reset.
        initiate_reset: bool, "Initiate CXL Reset", Rule::with(Class::Trigger, Feature::CxlReset);
        /// CXL Reset clears volatile memory.
        reset_mem_clear: bool, "CXL Reset Mem Clr Enable", RW;
        /// Keep volatile memory over a hot reset (revision 2).
        preserve_volatile: bool, "Desired Volatile HDM State after Hot Reset",
            Rule::with(Class::Rws, Feature::HotResetState);
        /// May answer with modified data (revision 3).
        modified_completion: bool, "Modified Completion Enable",
            Rule::with(Class::Rw, Feature::ModifiedCompletion);
        __: u16[10];
    }
}

register! {
    /// DVSEC CXL Status2 Register, offset 0x12 (CXL r3.1 section 8.1.3.5).
    Status2: u16, "DVSEC CXL Status2" at 0x12 {
        /// No valid lines, and caching is disabled.
        cache_invalid: bool, "Cache Invalid", RO;
        /// The last CXL Reset ended well.
        reset_complete: bool, "CXL Reset Complete", RO;
        /// The last CXL Reset ended with errors.
        reset_error: bool, "CXL Reset Error", RO;
        /// Volatile memory should have been kept and was not (revision 2).
        preservation_error: bool, "Volatile HDM Preservation Error",
            Rule::with(Class::Rw1cs, Feature::HotResetState);
        __: u16[11];
        /// Ready for power management messages.
        pm_init_complete: bool, "Power Management Initialization Complete", RO;
    }
}

register! {
    /// DVSEC CXL Lock Register, offset 0x14 (CXL r3.1 section 8.1.3.6). HDM decoders do not care
    /// for it, nor it for theirs.
    Lock: u16, "DVSEC CXL Lock" at 0x14 {
        /// Freezes Control and the range bases until a conventional reset.
        config_lock: bool, "CONFIG_LOCK", RWO;
        __: u16[15];
    }
}

register! {
    /// DVSEC CXL Capability2 Register, offset 0x16 (CXL r3.1 section 8.1.3.7).
    Capability2: u16, "DVSEC CXL Capability2" at 0x16 {
        /// 0 not reported, 1 64 KiB, 2 1 MiB.
        cache_size_unit: u8[4], "Cache Size Unit", RO;
        /// What a Type 2 device can be instead: 0 nothing, 1 PCIe, 2 Type 1, 3 Type 3.
        fallback: u8[2], "Fallback Capability", RO;
        /// Control2 bit 5 exists (revision 3).
        modified_completion: bool, "Modified Completion Capable", RO;
        /// Never writes clean lines back (revision 3).
        no_clean_writeback: bool, "No Clean Writeback", RO;
        /// In units of the unit.
        cache_size: u8, "Cache Size", RO;
    }
}

register! {
    /// DVSEC CXL Range Size High Register, offset 0x18 (CXL r3.1 section 8.1.3.8.1). Range 1; range
    /// 2 is 0x10 on.
    RangeSizeHigh: u32, "DVSEC CXL Range Size High" at 0x18 {
        /// Size bits 63:32.
        size: u32, "Memory_Size_High", RO;
    }
}

register! {
    /// DVSEC CXL Range Size Low Register, offset 0x1C (CXL r3.1 section 8.1.3.8.2). Range 1; range
    /// 2 is 0x10 on.
    RangeSizeLow: u32, "DVSEC CXL Range Size Low" at 0x1C {
        /// The size registers can be believed; at most 1 s after reset.
        info_valid: bool, "Memory_Info_Valid", RO;
        /// Memory is ready for use.
        active: bool, "Memory_Active", RO;
        /// See [`MediaType`].
        media_type: u8[3], "Media_Type", RO;
        /// See [`MemoryClass`].
        memory_class: u8[3], "Memory_Class", RO;
        /// See [`desired_interleave`]. Not the order of decoder granularity.
        desired_interleave: u8[5], "Desired_Interleave", RO;
        /// See [`active_timeout_seconds`].
        active_timeout: u8[3], "Memory_Active_Timeout", RO;
        /// Ready, but smaller or slower than it should be (revision 3).
        active_degraded: bool, "Memory_Active_Degraded", RO;
        __: u16[11];
        /// Size bits 31:28.
        size: u8[4], "Memory_Size_Low", RO;
    }
}

register! {
    /// DVSEC CXL Range Base High Register, offset 0x20 (CXL r3.1 section 8.1.3.8.3). Range 1; range
    /// 2 is 0x10 on.
    RangeBaseHigh: u32, "DVSEC CXL Range Base High" at 0x20 {
        /// Base bits 63:32.
        base: u32, "Memory_Base_High", RWL;
    }
}

register! {
    /// DVSEC CXL Range Base Low Register, offset 0x24 (CXL r3.1 section 8.1.3.8.4). Range 1; range
    /// 2 is 0x10 on.
    RangeBaseLow: u32, "DVSEC CXL Range Base Low" at 0x24 {
        __: u32[28];
        /// Base bits 31:28.
        base: u8[4], "Memory_Base_Low", RWL;
    }
}

register! {
    /// DVSEC CXL Capability3 Register, offset 0x38 (CXL r3.1 section 8.1.3.9). Revision 2 and
    /// later.
    Capability3: u16, "DVSEC CXL Capability3" at 0x38 {
        /// Volatile memory outlives a cold reset.
        preserves_cold: bool, "Default Volatile HDM State after Cold Reset", RO;
        /// Volatile memory outlives a warm reset.
        preserves_warm: bool, "Default Volatile HDM State after Warm Reset", RO;
        /// Volatile memory outlives a hot reset.
        preserves_hot: bool, "Default Volatile HDM State after Hot Reset", RO;
        /// Control2 bit 4 exists.
        hot_configurable: bool, "Volatile HDM State after Hot Reset - Configurability", RO;
        /// Control bit 12 exists.
        direct_p2p: bool, "Direct P2P Mem Capable", RO;
        __: u16[11];
    }
}

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
        range1_size_high: RangeSizeHigh as "DVSEC CXL Range 1 Size High";
        /// Range 1.
        range1_size_low: RangeSizeLow as "DVSEC CXL Range 1 Size Low";
        /// Range 1.
        range1_base_high: RangeBaseHigh as "DVSEC CXL Range 1 Base High";
        /// Range 1.
        range1_base_low: RangeBaseLow as "DVSEC CXL Range 1 Base Low";
        /// Range 2.
        range2_size_high: RangeSizeHigh as "DVSEC CXL Range 2 Size High", + 0x10;
        /// Range 2.
        range2_size_low: RangeSizeLow as "DVSEC CXL Range 2 Size Low", + 0x10;
        /// Range 2.
        range2_base_high: RangeBaseHigh as "DVSEC CXL Range 2 Base High", + 0x10;
        /// Range 2.
        range2_base_low: RangeBaseLow as "DVSEC CXL Range 2 Base Low", + 0x10;
    }
}

block! {
    /// What revision 2 added at the end.
    DeviceDvsecTail {
        /// Volatile memory over resets.
        capability3: Capability3;
    }
}

/// From a register of range 1 to the same register of range 2 (CXL r3.1 section 8.1.3.8).
pub const RANGE_STRIDE: u16 = 0x10;

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

/// A field of range registers that holds a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeField {
    /// Media_Type.
    MediaType,
    /// Memory_Class.
    MemoryClass,
    /// Desired_Interleave.
    DesiredInterleave,
    /// Memory_Active_Timeout.
    ActiveTimeout,
}

impl fmt::Display for RangeField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MediaType => "Media_Type",
            Self::MemoryClass => "Memory_Class",
            Self::DesiredInterleave => "Desired_Interleave",
            Self::ActiveTimeout => "Memory_Active_Timeout",
        })
    }
}

/// Why four registers are not a range, or a range not four registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeError {
    /// Memory_Info_Valid is 0: the size is not known (yet).
    NotValid,
    /// A field holds a reserved code.
    Reserved {
        /// Which field.
        field: RangeField,
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
            return Err(RangeError::Reserved { field: RangeField::ActiveTimeout, code });
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
                .ok_or(reserved(RangeField::MediaType, low.media_type()))?,
            class: MemoryClass::decode(low.memory_class())
                .ok_or(reserved(RangeField::MemoryClass, low.memory_class()))?,
            desired_interleave: desired_interleave(wish)
                .ok_or(reserved(RangeField::DesiredInterleave, wish))?,
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
