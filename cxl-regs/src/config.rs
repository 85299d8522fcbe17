//! PCI configuration space: addresses of functions, header registers, BARs and bridge windows
//! (PCIe Base 6.x section 7.5).
//!
//! **Invariant**: register types hold any bits; [`BarKind`] and [`Windows`] hold only what the
//! specification names, and each turns back into the registers it came from.

mod bar;
mod capability;
mod text;

use core::fmt;

use bitfield_struct::bitfield;

use crate::access::rules::{RO, RW, RW1C};
use crate::access::{Field, register};
use crate::addr::{Hpa, Span};
use crate::block::block;
use crate::codes::codes;

pub use bar::{BarError, BarKind};
pub use capability::{
    Capabilities, Capability, CapabilityHeader, CapabilityId, DeviceCapabilities, DeviceControl,
    DeviceStatus, ExtendedCapabilities, ExtendedCapability, ExtendedCapabilityId, ExtendedHeader,
    LinkCapabilities, LinkControl, LinkStatus, PcieCapabilities, PcieCapability, PortType,
    WalkError,
};
pub use text::ConfigText;

/// Size of a function's configuration space.
pub const CONFIG_SIZE: u16 = 0x1000;
/// Size of what came before PCI Express, and the offset of the first extended capability.
pub const CONVENTIONAL_SIZE: u16 = 0x100;

/// A function within one segment: bus, device and function number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf(u16);

impl Bdf {
    /// `None` for a device above 31 or a function above 7.
    pub const fn new(bus: u8, device: u8, function: u8) -> Option<Self> {
        if device > 31 || function > 7 {
            return None;
        }
        Some(Self((bus as u16) << 8 | (device as u16) << 3 | function as u16))
    }

    /// From a requester ID, of which every value is a function's.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The requester ID.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Bus number.
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Device number, 0 to 31.
    pub const fn device(self) -> u8 {
        (self.0 >> 3) as u8 & 31
    }

    /// Function number, 0 to 7.
    pub const fn function(self) -> u8 {
        self.0 as u8 & 7
    }

    /// Where ECAM has a register of this function, from the address of bus 0 (PCIe Base 6.x
    /// section 7.2.2). `None` for a register outside configuration space.
    pub const fn ecam_offset(self, register: u16) -> Option<u64> {
        if register >= CONFIG_SIZE {
            return None;
        }
        Some((self.0 as u64) << 12 | register as u64)
    }

    /// The function and register at an ECAM offset: the inverse of [`Bdf::ecam_offset`]. `None`
    /// behind bus 255.
    pub const fn from_ecam_offset(offset: u64) -> Option<(Self, u16)> {
        if offset >> 28 != 0 {
            return None;
        }
        Some((Self((offset >> 12) as u16), offset as u16 & (CONFIG_SIZE - 1)))
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus(), self.device(), self.function())
    }
}

/// A function of the whole system: its segment, and its place there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sbdf {
    /// PCI segment group.
    pub segment: u16,
    /// Function within the segment.
    pub bdf: Bdf,
}

impl fmt::Display for Sbdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{}", self.segment, self.bdf)
    }
}

/// Vendor and Device ID Register, offset 0x00 (PCIe Base 6.x section 7.5.1.1.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Id {
    /// Vendor ID; 0xffff where no function answers.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
}

register!(Id: u32, "Vendor and Device ID" at 0x00, [
    Field::new("Vendor ID", Self::VENDOR_OFFSET, Self::VENDOR_BITS, RO),
    Field::new("Device ID", Self::DEVICE_OFFSET, Self::DEVICE_BITS, RO),
]);

/// Command Register, offset 0x04 (PCIe Base 6.x section 7.5.1.1.3).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Command {
    /// Answers accesses to its I/O BARs.
    pub io_space: bool,
    /// Answers accesses to its memory BARs.
    pub memory_space: bool,
    /// May issue (or forward upwards) requests.
    pub bus_master: bool,
    /// Always 0 in PCIe.
    pub special_cycle: bool,
    /// Always 0 in PCIe.
    pub write_invalidate: bool,
    /// Always 0 in PCIe.
    pub palette_snoop: bool,
    /// Logs poisoned requests.
    pub parity_response: bool,
    /// Always 0 in PCIe.
    pub stepping: bool,
    /// Reports errors to the root complex.
    pub serr: bool,
    /// Always 0 in PCIe.
    pub fast_back_to_back: bool,
    /// No INTx.
    pub interrupt_disable: bool,
    #[bits(5)]
    __: u8,
}

register!(Command: u16, "Command" at 0x04, [
    Field::new("I/O Space", Self::IO_SPACE_OFFSET, Self::IO_SPACE_BITS, RW),
    Field::new("Memory Space", Self::MEMORY_SPACE_OFFSET, Self::MEMORY_SPACE_BITS, RW),
    Field::new("Bus Master", Self::BUS_MASTER_OFFSET, Self::BUS_MASTER_BITS, RW),
    Field::new("Special Cycle", Self::SPECIAL_CYCLE_OFFSET, Self::SPECIAL_CYCLE_BITS, RO),
    Field::new(
        "Memory Write and Invalidate",
        Self::WRITE_INVALIDATE_OFFSET,
        Self::WRITE_INVALIDATE_BITS,
        RO,
    ),
    Field::new("VGA Palette Snoop", Self::PALETTE_SNOOP_OFFSET, Self::PALETTE_SNOOP_BITS, RO),
    Field::new(
        "Parity Error Response",
        Self::PARITY_RESPONSE_OFFSET,
        Self::PARITY_RESPONSE_BITS,
        RW,
    ),
    Field::new("IDSEL Stepping", Self::STEPPING_OFFSET, Self::STEPPING_BITS, RO),
    Field::new("SERR#", Self::SERR_OFFSET, Self::SERR_BITS, RW),
    Field::new(
        "Fast Back-to-Back",
        Self::FAST_BACK_TO_BACK_OFFSET,
        Self::FAST_BACK_TO_BACK_BITS,
        RO,
    ),
    Field::new(
        "Interrupt Disable",
        Self::INTERRUPT_DISABLE_OFFSET,
        Self::INTERRUPT_DISABLE_BITS,
        RW,
    ),
]);

/// Status Register, offset 0x06 (PCIe Base 6.x section 7.5.1.1.4).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Status {
    /// Ready for configuration at once after a reset.
    pub immediate_readiness: bool,
    #[bits(2)]
    __: u8,
    /// INTx pending.
    pub interrupt: bool,
    /// The pointer at 0x34 is valid; always 1 in PCIe.
    pub capability_list: bool,
    /// Always 0 in PCIe.
    pub mhz_66: bool,
    __: bool,
    /// Always 0 in PCIe.
    pub fast_back_to_back: bool,
    /// Sent or got poison while Parity Error Response was set.
    pub master_parity_error: bool,
    /// Always 0 in PCIe.
    #[bits(2)]
    pub devsel: u8,
    /// Completed a request with Completer Abort.
    pub signaled_target_abort: bool,
    /// Got a Completer Abort.
    pub received_target_abort: bool,
    /// Got an Unsupported Request.
    pub received_master_abort: bool,
    /// Sent an error message while SERR# was set.
    pub signaled_system_error: bool,
    /// Got poison.
    pub detected_parity_error: bool,
}

register!(Status: u16, "Status" at 0x06, [
    Field::new(
        "Immediate Readiness",
        Self::IMMEDIATE_READINESS_OFFSET,
        Self::IMMEDIATE_READINESS_BITS,
        RO,
    ),
    Field::new("Interrupt Status", Self::INTERRUPT_OFFSET, Self::INTERRUPT_BITS, RO),
    Field::new("Capabilities List", Self::CAPABILITY_LIST_OFFSET, Self::CAPABILITY_LIST_BITS, RO),
    Field::new("66 MHz Capable", Self::MHZ_66_OFFSET, Self::MHZ_66_BITS, RO),
    Field::new(
        "Fast Back-to-Back",
        Self::FAST_BACK_TO_BACK_OFFSET,
        Self::FAST_BACK_TO_BACK_BITS,
        RO,
    ),
    Field::new(
        "Master Data Parity Error",
        Self::MASTER_PARITY_ERROR_OFFSET,
        Self::MASTER_PARITY_ERROR_BITS,
        RW1C,
    ),
    Field::new("DEVSEL Timing", Self::DEVSEL_OFFSET, Self::DEVSEL_BITS, RO),
    Field::new(
        "Signaled Target Abort",
        Self::SIGNALED_TARGET_ABORT_OFFSET,
        Self::SIGNALED_TARGET_ABORT_BITS,
        RW1C,
    ),
    Field::new(
        "Received Target Abort",
        Self::RECEIVED_TARGET_ABORT_OFFSET,
        Self::RECEIVED_TARGET_ABORT_BITS,
        RW1C,
    ),
    Field::new(
        "Received Master Abort",
        Self::RECEIVED_MASTER_ABORT_OFFSET,
        Self::RECEIVED_MASTER_ABORT_BITS,
        RW1C,
    ),
    Field::new(
        "Signaled System Error",
        Self::SIGNALED_SYSTEM_ERROR_OFFSET,
        Self::SIGNALED_SYSTEM_ERROR_BITS,
        RW1C,
    ),
    Field::new(
        "Detected Parity Error",
        Self::DETECTED_PARITY_ERROR_OFFSET,
        Self::DETECTED_PARITY_ERROR_BITS,
        RW1C,
    ),
]);

/// Revision ID and Class Code Register, offset 0x08 (PCIe Base 6.x section 7.5.1.1.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Class {
    /// Revision.
    pub revision: u8,
    /// Class, subclass and programming interface, in that order from the top.
    #[bits(24)]
    pub code: u32,
}

register!(Class: u32, "Revision ID and Class Code" at 0x08, [
    Field::new("Revision ID", Self::REVISION_OFFSET, Self::REVISION_BITS, RO),
    Field::new("Class Code", Self::CODE_OFFSET, Self::CODE_BITS, RO),
]);

/// Cache Line Size Register, offset 0x0C (PCIe Base 6.x section 7.5.1.1.7).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct CacheLine {
    /// Of no effect in PCIe.
    pub size: u8,
}

register!(CacheLine: u8, "Cache Line Size" at 0x0C, [
    Field::new("Cache Line Size", Self::SIZE_OFFSET, Self::SIZE_BITS, RW),
]);

/// Header Type Register, offset 0x0E (PCIe Base 6.x section 7.5.1.1.9).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct HeaderType {
    /// 0 for an endpoint, 1 for a bridge or port.
    #[bits(7)]
    pub layout: u8,
    /// Functions above 0 may exist.
    pub multi_function: bool,
}

register!(HeaderType: u8, "Header Type" at 0x0E, [
    Field::new("Header Layout", Self::LAYOUT_OFFSET, Self::LAYOUT_BITS, RO),
    Field::new("Multi-Function Device", Self::MULTI_FUNCTION_OFFSET, Self::MULTI_FUNCTION_BITS, RO),
]);

/// Base Address Register, offset 0x10 (PCIe Base 6.x section 7.5.1.2.1). The first of up to six;
/// each further one is 4 bytes on.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Bar {
    /// Address and type, as [`BarKind`] reads them. How many address bits can be written depends
    /// on the size; the rest is fixed by the device.
    pub value: u32,
}

register!(Bar: u32, "Base Address" at 0x10, [
    Field::new("Base Address", Self::VALUE_OFFSET, Self::VALUE_BITS, RW),
]);

/// Subsystem Register, offset 0x2C (PCIe Base 6.x section 7.5.1.2.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Subsystem {
    /// Subsystem vendor.
    pub vendor: u16,
    /// Subsystem.
    pub device: u16,
}

register!(Subsystem: u32, "Subsystem" at 0x2C, [
    Field::new("Subsystem Vendor ID", Self::VENDOR_OFFSET, Self::VENDOR_BITS, RO),
    Field::new("Subsystem ID", Self::DEVICE_OFFSET, Self::DEVICE_BITS, RO),
]);

/// Capabilities Pointer Register, offset 0x34 (PCIe Base 6.x section 7.5.1.1.11).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct CapabilitiesPointer {
    /// Offset of the first capability.
    pub pointer: u8,
}

register!(CapabilitiesPointer: u8, "Capabilities Pointer" at 0x34, [
    Field::new("Capabilities Pointer", Self::POINTER_OFFSET, Self::POINTER_BITS, RO),
]);

/// Interrupt Line Register, offset 0x3C (PCIe Base 6.x section 7.5.1.1.12).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct InterruptLine {
    /// For software's use.
    pub line: u8,
}

register!(InterruptLine: u8, "Interrupt Line" at 0x3C, [
    Field::new("Interrupt Line", Self::LINE_OFFSET, Self::LINE_BITS, RW),
]);

/// Interrupt Pin Register, offset 0x3D (PCIe Base 6.x section 7.5.1.1.13).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct InterruptPin {
    /// 1 for INTA; 0 for none.
    pub pin: u8,
}

register!(InterruptPin: u8, "Interrupt Pin" at 0x3D, [
    Field::new("Interrupt Pin", Self::PIN_OFFSET, Self::PIN_BITS, RO),
]);

/// Bus Numbers Register, offset 0x18 (PCIe Base 6.x section 7.5.1.3.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct BusNumbers {
    /// The bus the bridge sits on; not used by PCIe hardware.
    pub primary: u8,
    /// The bus right below.
    pub secondary: u8,
    /// The highest bus below.
    pub subordinate: u8,
    /// Always 0 in PCIe.
    pub latency: u8,
}

register!(BusNumbers: u32, "Bus Numbers" at 0x18, [
    Field::new("Primary Bus Number", Self::PRIMARY_OFFSET, Self::PRIMARY_BITS, RW),
    Field::new("Secondary Bus Number", Self::SECONDARY_OFFSET, Self::SECONDARY_BITS, RW),
    Field::new("Subordinate Bus Number", Self::SUBORDINATE_OFFSET, Self::SUBORDINATE_BITS, RW),
    Field::new("Secondary Latency Timer", Self::LATENCY_OFFSET, Self::LATENCY_BITS, RO),
]);

/// I/O Base and Limit Register, offset 0x1C (PCIe Base 6.x section 7.5.1.3.6).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct IoWindow {
    /// Width of the addresses: 0 for 16 bits, 1 for 32.
    #[bits(4)]
    pub base_width: u8,
    /// Bits 15:12 of the base.
    #[bits(4)]
    pub base: u8,
    /// Width of the addresses, as of the base.
    #[bits(4)]
    pub limit_width: u8,
    /// Bits 15:12 of the limit.
    #[bits(4)]
    pub limit: u8,
}

register!(IoWindow: u16, "I/O Base and Limit" at 0x1C, [
    Field::new("I/O Base Width", Self::BASE_WIDTH_OFFSET, Self::BASE_WIDTH_BITS, RO),
    Field::new("I/O Base", Self::BASE_OFFSET, Self::BASE_BITS, RW),
    Field::new("I/O Limit Width", Self::LIMIT_WIDTH_OFFSET, Self::LIMIT_WIDTH_BITS, RO),
    Field::new("I/O Limit", Self::LIMIT_OFFSET, Self::LIMIT_BITS, RW),
]);

/// Secondary Status Register, offset 0x1E (PCIe Base 6.x section 7.5.1.3.7).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct SecondaryStatus {
    #[bits(5)]
    __: u8,
    /// Always 0 in PCIe.
    pub mhz_66: bool,
    __: bool,
    /// Always 0 in PCIe.
    pub fast_back_to_back: bool,
    /// Poison on the secondary side.
    pub master_parity_error: bool,
    /// Always 0 in PCIe.
    #[bits(2)]
    pub devsel: u8,
    /// Completer Abort sent downwards.
    pub signaled_target_abort: bool,
    /// Completer Abort got from below.
    pub received_target_abort: bool,
    /// Unsupported Request got from below.
    pub received_master_abort: bool,
    /// Error message got from below.
    pub received_system_error: bool,
    /// Poison got from below.
    pub detected_parity_error: bool,
}

register!(SecondaryStatus: u16, "Secondary Status" at 0x1E, [
    Field::new("66 MHz Capable", Self::MHZ_66_OFFSET, Self::MHZ_66_BITS, RO),
    Field::new(
        "Fast Back-to-Back",
        Self::FAST_BACK_TO_BACK_OFFSET,
        Self::FAST_BACK_TO_BACK_BITS,
        RO,
    ),
    Field::new(
        "Master Data Parity Error",
        Self::MASTER_PARITY_ERROR_OFFSET,
        Self::MASTER_PARITY_ERROR_BITS,
        RW1C,
    ),
    Field::new("DEVSEL Timing", Self::DEVSEL_OFFSET, Self::DEVSEL_BITS, RO),
    Field::new(
        "Signaled Target Abort",
        Self::SIGNALED_TARGET_ABORT_OFFSET,
        Self::SIGNALED_TARGET_ABORT_BITS,
        RW1C,
    ),
    Field::new(
        "Received Target Abort",
        Self::RECEIVED_TARGET_ABORT_OFFSET,
        Self::RECEIVED_TARGET_ABORT_BITS,
        RW1C,
    ),
    Field::new(
        "Received Master Abort",
        Self::RECEIVED_MASTER_ABORT_OFFSET,
        Self::RECEIVED_MASTER_ABORT_BITS,
        RW1C,
    ),
    Field::new(
        "Received System Error",
        Self::RECEIVED_SYSTEM_ERROR_OFFSET,
        Self::RECEIVED_SYSTEM_ERROR_BITS,
        RW1C,
    ),
    Field::new(
        "Detected Parity Error",
        Self::DETECTED_PARITY_ERROR_OFFSET,
        Self::DETECTED_PARITY_ERROR_BITS,
        RW1C,
    ),
]);

/// Memory Base Register, offset 0x20 (PCIe Base 6.x section 7.5.1.3.8).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct MemoryBase {
    #[bits(4)]
    __: u8,
    /// Address bits 31:20.
    #[bits(12)]
    pub address: u16,
}

register!(MemoryBase: u16, "Memory Base" at 0x20, [
    Field::new("Memory Base", Self::ADDRESS_OFFSET, Self::ADDRESS_BITS, RW),
]);

/// Memory Limit Register, offset 0x22 (PCIe Base 6.x section 7.5.1.3.8).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct MemoryLimit {
    #[bits(4)]
    __: u8,
    /// Address bits 31:20.
    #[bits(12)]
    pub address: u16,
}

register!(MemoryLimit: u16, "Memory Limit" at 0x22, [
    Field::new("Memory Limit", Self::ADDRESS_OFFSET, Self::ADDRESS_BITS, RW),
]);

/// Prefetchable Memory Base Register, offset 0x24 (PCIe Base 6.x section 7.5.1.3.9).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct PrefetchableBase {
    /// 1 if the upper 32 bits exist.
    #[bits(4)]
    pub width: u8,
    /// Address bits 31:20.
    #[bits(12)]
    pub address: u16,
}

register!(PrefetchableBase: u16, "Prefetchable Memory Base" at 0x24, [
    Field::new("Address Width", Self::WIDTH_OFFSET, Self::WIDTH_BITS, RO),
    Field::new("Prefetchable Memory Base", Self::ADDRESS_OFFSET, Self::ADDRESS_BITS, RW),
]);

/// Prefetchable Memory Limit Register, offset 0x26 (PCIe Base 6.x section 7.5.1.3.9).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct PrefetchableLimit {
    /// 1 if the upper 32 bits exist.
    #[bits(4)]
    pub width: u8,
    /// Address bits 31:20.
    #[bits(12)]
    pub address: u16,
}

register!(PrefetchableLimit: u16, "Prefetchable Memory Limit" at 0x26, [
    Field::new("Address Width", Self::WIDTH_OFFSET, Self::WIDTH_BITS, RO),
    Field::new("Prefetchable Memory Limit", Self::ADDRESS_OFFSET, Self::ADDRESS_BITS, RW),
]);

/// Prefetchable Base Upper 32 Bits Register, offset 0x28 (PCIe Base 6.x section 7.5.1.3.10).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PrefetchableBaseUpper {
    /// Address bits 63:32.
    pub address: u32,
}

register!(PrefetchableBaseUpper: u32, "Prefetchable Base Upper 32 Bits" at 0x28, [
    Field::new("Prefetchable Base Upper 32 Bits", Self::ADDRESS_OFFSET, Self::ADDRESS_BITS, RW),
]);

/// Prefetchable Limit Upper 32 Bits Register, offset 0x2C (PCIe Base 6.x section 7.5.1.3.10).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PrefetchableLimitUpper {
    /// Address bits 63:32.
    pub address: u32,
}

register!(PrefetchableLimitUpper: u32, "Prefetchable Limit Upper 32 Bits" at 0x2C, [
    Field::new("Prefetchable Limit Upper 32 Bits", Self::ADDRESS_OFFSET, Self::ADDRESS_BITS, RW),
]);

/// I/O Base and Limit Upper 16 Bits Register, offset 0x30 (PCIe Base 6.x section 7.5.1.3.11).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IoWindowUpper {
    /// Bits 31:16 of the base; 0 without 32-bit I/O.
    pub base: u16,
    /// Bits 31:16 of the limit; 0 without 32-bit I/O.
    pub limit: u16,
}

register!(IoWindowUpper: u32, "I/O Base and Limit Upper 16 Bits" at 0x30, [
    Field::new("I/O Base Upper 16 Bits", Self::BASE_OFFSET, Self::BASE_BITS, RO),
    Field::new("I/O Limit Upper 16 Bits", Self::LIMIT_OFFSET, Self::LIMIT_BITS, RO),
]);

/// Bridge Control Register, offset 0x3E (PCIe Base 6.x section 7.5.1.3.13).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct BridgeControl {
    /// Logs poison on the secondary side.
    pub parity_response: bool,
    /// Forwards error messages upwards.
    pub serr: bool,
    /// Keeps ISA aliases off the I/O window.
    pub isa: bool,
    /// Forwards the VGA ranges.
    pub vga: bool,
    /// Decodes 16 bits of VGA I/O.
    pub vga_16: bool,
    /// Always 0 in PCIe.
    pub master_abort_mode: bool,
    /// While 1, the link below is in hot reset. On a CXL port only if the port's Unmask SBR is
    /// set.
    pub secondary_bus_reset: bool,
    /// Always 0 in PCIe.
    pub fast_back_to_back: bool,
    __: u8,
}

register!(BridgeControl: u16, "Bridge Control" at 0x3E, [
    Field::new(
        "Parity Error Response Enable",
        Self::PARITY_RESPONSE_OFFSET,
        Self::PARITY_RESPONSE_BITS,
        RW,
    ),
    Field::new("SERR# Enable", Self::SERR_OFFSET, Self::SERR_BITS, RW),
    Field::new("ISA Enable", Self::ISA_OFFSET, Self::ISA_BITS, RW),
    Field::new("VGA Enable", Self::VGA_OFFSET, Self::VGA_BITS, RW),
    Field::new("VGA 16-bit Decode", Self::VGA_16_OFFSET, Self::VGA_16_BITS, RW),
    Field::new(
        "Master Abort Mode",
        Self::MASTER_ABORT_MODE_OFFSET,
        Self::MASTER_ABORT_MODE_BITS,
        RO,
    ),
    Field::new(
        "Secondary Bus Reset",
        Self::SECONDARY_BUS_RESET_OFFSET,
        Self::SECONDARY_BUS_RESET_BITS,
        RW,
    ),
    Field::new(
        "Fast Back-to-Back Enable",
        Self::FAST_BACK_TO_BACK_OFFSET,
        Self::FAST_BACK_TO_BACK_BITS,
        RO,
    ),
]);

codes! {
    /// Class codes that a CXL hierarchy is made of.
    ClassCode: u32 {
        /// A memory device with the standard mailbox interface (CXL r3.1 section 8.1.12.1).
        CxlMemory = 0x05_02_10, "CXL memory device";
        /// A host bridge.
        HostBridge = 0x06_00_00, "host bridge";
        /// A bridge, among them every root and switch port.
        PciBridge = 0x06_04_00, "PCI bridge";
    }
}

block! {
    /// The header of an endpoint, type 0.
    EndpointHeader {
        /// Vendor and device.
        id: Id;
        /// Command.
        command: Command;
        /// Status.
        status: Status;
        /// Revision and class.
        class: Class;
        /// Cache line size.
        cache_line: CacheLine;
        /// Header type.
        header_type: HeaderType;
        /// BAR at 0x10.
        bar0: Bar;
        /// BAR at 0x14.
        bar1: Bar, + 0x04;
        /// BAR at 0x18.
        bar2: Bar, + 0x08;
        /// BAR at 0x1C.
        bar3: Bar, + 0x0C;
        /// BAR at 0x20.
        bar4: Bar, + 0x10;
        /// BAR at 0x24.
        bar5: Bar, + 0x14;
        /// Subsystem.
        subsystem: Subsystem;
        /// First capability.
        capabilities: CapabilitiesPointer;
        /// For software.
        interrupt_line: InterruptLine;
        /// INTx pin.
        interrupt_pin: InterruptPin;
    }
}

block! {
    /// The header of a bridge, type 1.
    BridgeHeader {
        /// Vendor and device.
        id: Id;
        /// Command.
        command: Command;
        /// Status.
        status: Status;
        /// Revision and class.
        class: Class;
        /// Cache line size.
        cache_line: CacheLine;
        /// Header type.
        header_type: HeaderType;
        /// BAR at 0x10.
        bar0: Bar;
        /// BAR at 0x14.
        bar1: Bar, + 0x04;
        /// Bus numbers.
        buses: BusNumbers;
        /// I/O window.
        io_window: IoWindow;
        /// Status of the side below.
        secondary_status: SecondaryStatus;
        /// Memory window base.
        memory_base: MemoryBase;
        /// Memory window limit.
        memory_limit: MemoryLimit;
        /// Prefetchable window base.
        pref_base: PrefetchableBase;
        /// Prefetchable window limit.
        pref_limit: PrefetchableLimit;
        /// Prefetchable window base, high.
        pref_base_upper: PrefetchableBaseUpper;
        /// Prefetchable window limit, high.
        pref_limit_upper: PrefetchableLimitUpper;
        /// I/O window, high.
        io_window_upper: IoWindowUpper;
        /// First capability.
        capabilities: CapabilitiesPointer;
        /// For software.
        interrupt_line: InterruptLine;
        /// INTx pin.
        interrupt_pin: InterruptPin;
        /// Bridge control.
        bridge_control: BridgeControl;
    }
}

/// Bridge windows come in units of 1 MiB.
pub const WINDOW_UNIT: u64 = 1 << 20;

/// What a bridge's memory windows let through downwards; `None` for a closed one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    /// Below 4 GiB, not prefetchable.
    pub memory: Option<Span>,
    /// Prefetchable.
    pub prefetchable: Option<Span>,
}

/// A range that no window register can express.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowError {
    /// Base or size is not a multiple of 1 MiB.
    Unaligned {
        /// The range.
        span: Span,
    },
    /// The window has 32 address bits and the range needs more.
    Above4GiB {
        /// The range.
        span: Span,
    },
}

impl fmt::Display for WindowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unaligned { span } => {
                write!(f, "bridge window {span}: base and size must be multiples of 1 MiB")
            }
            Self::Above4GiB { span } => {
                write!(f, "bridge window {span} passes 4 GiB, its registers have 32 bits")
            }
        }
    }
}

impl core::error::Error for WindowError {}

/// Base and limit of a closed window: the base lies above the limit.
const CLOSED: (u64, u64) = (0xFFF0_0000, 0);

fn window(base: u64, limit: u64) -> Option<Span> {
    let end = (limit | (WINDOW_UNIT - 1)).checked_add(1)?;
    Span::new(Hpa(base), end.checked_sub(base)?).ok()
}

fn base_and_limit(span: Option<Span>, wide: bool) -> Result<(u64, u64), WindowError> {
    let Some(span) = span else { return Ok(CLOSED) };
    if !(span.base().0 | span.size()).is_multiple_of(WINDOW_UNIT) {
        return Err(WindowError::Unaligned { span });
    }
    if !wide && span.last().0 > u64::from(u32::MAX) {
        return Err(WindowError::Above4GiB { span });
    }
    Ok((span.base().0, span.last().0 & !(WINDOW_UNIT - 1)))
}

/// Address bits 31:20, as window registers hold them.
const fn megabytes(address: u64) -> u16 {
    (address >> 20) as u16 & 0xfff
}

impl BridgeHeader {
    /// Whether the prefetchable window has 64 address bits.
    pub const fn wide_prefetchable(&self) -> bool {
        self.pref_base.width() == 1
    }

    /// What the window registers say.
    pub fn windows(&self) -> Windows {
        let upper = |low: u16, high: u32| {
            let high = if self.wide_prefetchable() { high } else { 0 };
            u64::from(high) << 32 | u64::from(low) << 20
        };
        Windows {
            memory: window(
                u64::from(self.memory_base.address()) << 20,
                u64::from(self.memory_limit.address()) << 20,
            ),
            prefetchable: window(
                upper(self.pref_base.address(), self.pref_base_upper.address()),
                upper(self.pref_limit.address(), self.pref_limit_upper.address()),
            ),
        }
    }

    /// The header with its windows set: the inverse of [`BridgeHeader::windows`].
    pub fn with_windows(self, windows: Windows) -> Result<Self, WindowError> {
        let (base, limit) = base_and_limit(windows.memory, false)?;
        let wide = base_and_limit(windows.prefetchable, self.wide_prefetchable())?;
        Ok(Self {
            memory_base: self.memory_base.with_address(megabytes(base)),
            memory_limit: self.memory_limit.with_address(megabytes(limit)),
            pref_base: self.pref_base.with_address(megabytes(wide.0)),
            pref_limit: self.pref_limit.with_address(megabytes(wide.1)),
            pref_base_upper: PrefetchableBaseUpper::from((wide.0 >> 32) as u32),
            pref_limit_upper: PrefetchableLimitUpper::from((wide.1 >> 32) as u32),
            ..self
        })
    }
}
