//! PCI configuration space: addresses of functions, header registers, BARs and bridge windows
//! (PCIe Base 6.x section 7.5).
//!
//! **Invariant**: register types hold any bits; [`BarKind`] and [`Windows`] hold only what the
//! specification names, and each turns back into the registers it came from.

mod bar;
mod capability;

use core::fmt;

use crate::access::register;
use crate::access::rules::{RO, RW, RW1C};
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

register! {
    /// Vendor and Device ID Register, offset 0x00 (PCIe Base 6.x section 7.5.1.1.1).
    Id: u32, "Vendor and Device ID" at 0x00 {
        /// Vendor ID; 0xffff where no function answers.
        vendor: u16, "Vendor ID", RO;
        /// Device ID.
        device: u16, "Device ID", RO;
    }
}

register! {
    /// Command Register, offset 0x04 (PCIe Base 6.x section 7.5.1.1.3).
    Command: u16, "Command" at 0x04 {
        /// Answers accesses to its I/O BARs.
        io_space: bool, "I/O Space", RW;
        /// Answers accesses to its memory BARs.
        memory_space: bool, "Memory Space", RW;
        /// May issue (or forward upwards) requests.
        bus_master: bool, "Bus Master", RW;
        /// Always 0 in PCIe.
        special_cycle: bool, "Special Cycle", RO;
        /// Always 0 in PCIe.
        write_invalidate: bool, "Memory Write and Invalidate", RO;
        /// Always 0 in PCIe.
        palette_snoop: bool, "VGA Palette Snoop", RO;
        /// Logs poisoned requests.
        parity_response: bool, "Parity Error Response", RW;
        /// Always 0 in PCIe.
        stepping: bool, "IDSEL Stepping", RO;
        /// Reports errors to the root complex.
        serr: bool, "SERR#", RW;
        /// Always 0 in PCIe.
        fast_back_to_back: bool, "Fast Back-to-Back", RO;
        /// No INTx.
        interrupt_disable: bool, "Interrupt Disable", RW;
        __: u8[5];
    }
}

register! {
    /// Status Register, offset 0x06 (PCIe Base 6.x section 7.5.1.1.4).
    Status: u16, "Status" at 0x06 {
        /// Ready for configuration at once after a reset.
        immediate_readiness: bool, "Immediate Readiness", RO;
        __: u8[2];
        /// INTx pending.
        interrupt: bool, "Interrupt Status", RO;
        /// The pointer at 0x34 is valid; always 1 in PCIe.
        capability_list: bool, "Capabilities List", RO;
        /// Always 0 in PCIe.
        mhz_66: bool, "66 MHz Capable", RO;
        __: bool;
        /// Always 0 in PCIe.
        fast_back_to_back: bool, "Fast Back-to-Back", RO;
        /// Sent or got poison while Parity Error Response was set.
        master_parity_error: bool, "Master Data Parity Error", RW1C;
        /// Always 0 in PCIe.
        devsel: u8[2], "DEVSEL Timing", RO;
        /// Completed a request with Completer Abort.
        signaled_target_abort: bool, "Signaled Target Abort", RW1C;
        /// Got a Completer Abort.
        received_target_abort: bool, "Received Target Abort", RW1C;
        /// Got an Unsupported Request.
        received_master_abort: bool, "Received Master Abort", RW1C;
        /// Sent an error message while SERR# was set.
        signaled_system_error: bool, "Signaled System Error", RW1C;
        /// Got poison.
        detected_parity_error: bool, "Detected Parity Error", RW1C;
    }
}

register! {
    /// Revision ID and Class Code Register, offset 0x08 (PCIe Base 6.x section 7.5.1.1.5).
    Class: u32, "Revision ID and Class Code" at 0x08 {
        /// Revision.
        revision: u8, "Revision ID", RO;
        /// Class, subclass and programming interface, in that order from the top.
        code: u32[24], "Class Code", RO;
    }
}

register! {
    /// Cache Line Size Register, offset 0x0C (PCIe Base 6.x section 7.5.1.1.7).
    CacheLine: u8, "Cache Line Size" at 0x0C {
        /// Of no effect in PCIe.
        size: u8, "Cache Line Size", RW;
    }
}

register! {
    /// Header Type Register, offset 0x0E (PCIe Base 6.x section 7.5.1.1.9).
    HeaderType: u8, "Header Type" at 0x0E {
        /// 0 for an endpoint, 1 for a bridge or port.
        layout: u8[7], "Header Layout", RO;
        /// Functions above 0 may exist.
        multi_function: bool, "Multi-Function Device", RO;
    }
}

register! {
    /// Base Address Register, offset 0x10 (PCIe Base 6.x section 7.5.1.2.1). The first of up to
    /// six; each further one is 4 bytes on.
    Bar: u32, "Base Address" at 0x10 {
        /// Address and type, as [`BarKind`] reads them. How many address bits can be written
        /// depends on the size; the rest is fixed by the device.
        value: u32, "Base Address", RW;
    }
}

register! {
    /// Subsystem Register, offset 0x2C (PCIe Base 6.x section 7.5.1.2.3).
    Subsystem: u32, "Subsystem" at 0x2C {
        /// Subsystem vendor.
        vendor: u16, "Subsystem Vendor ID", RO;
        /// Subsystem.
        device: u16, "Subsystem ID", RO;
    }
}

register! {
    /// Capabilities Pointer Register, offset 0x34 (PCIe Base 6.x section 7.5.1.1.11).
    CapabilitiesPointer: u8, "Capabilities Pointer" at 0x34 {
        /// Offset of the first capability.
        pointer: u8, "Capabilities Pointer", RO;
    }
}

register! {
    /// Interrupt Line Register, offset 0x3C (PCIe Base 6.x section 7.5.1.1.12).
    InterruptLine: u8, "Interrupt Line" at 0x3C {
        /// For software's use.
        line: u8, "Interrupt Line", RW;
    }
}

register! {
    /// Interrupt Pin Register, offset 0x3D (PCIe Base 6.x section 7.5.1.1.13).
    InterruptPin: u8, "Interrupt Pin" at 0x3D {
        /// 1 for INTA; 0 for none.
        pin: u8, "Interrupt Pin", RO;
    }
}

register! {
    /// Bus Numbers Register, offset 0x18 (PCIe Base 6.x section 7.5.1.3.2).
    BusNumbers: u32, "Bus Numbers" at 0x18 {
        /// The bus the bridge sits on; not used by PCIe hardware.
        primary: u8, "Primary Bus Number", RW;
        /// The bus right below.
        secondary: u8, "Secondary Bus Number", RW;
        /// The highest bus below.
        subordinate: u8, "Subordinate Bus Number", RW;
        /// Always 0 in PCIe.
        latency: u8, "Secondary Latency Timer", RO;
    }
}

register! {
    /// I/O Base and Limit Register, offset 0x1C (PCIe Base 6.x section 7.5.1.3.6).
    IoWindow: u16, "I/O Base and Limit" at 0x1C {
        /// Width of the addresses: 0 for 16 bits, 1 for 32.
        base_width: u8[4], "I/O Base Width", RO;
        /// Bits 15:12 of the base.
        base: u8[4], "I/O Base", RW;
        /// Width of the addresses, as of the base.
        limit_width: u8[4], "I/O Limit Width", RO;
        /// Bits 15:12 of the limit.
        limit: u8[4], "I/O Limit", RW;
    }
}

register! {
    /// Secondary Status Register, offset 0x1E (PCIe Base 6.x section 7.5.1.3.7).
    SecondaryStatus: u16, "Secondary Status" at 0x1E {
        __: u8[5];
        /// Always 0 in PCIe.
        mhz_66: bool, "66 MHz Capable", RO;
        __: bool;
        /// Always 0 in PCIe.
        fast_back_to_back: bool, "Fast Back-to-Back", RO;
        /// Poison on the secondary side.
        master_parity_error: bool, "Master Data Parity Error", RW1C;
        /// Always 0 in PCIe.
        devsel: u8[2], "DEVSEL Timing", RO;
        /// Completer Abort sent downwards.
        signaled_target_abort: bool, "Signaled Target Abort", RW1C;
        /// Completer Abort got from below.
        received_target_abort: bool, "Received Target Abort", RW1C;
        /// Unsupported Request got from below.
        received_master_abort: bool, "Received Master Abort", RW1C;
        /// Error message got from below.
        received_system_error: bool, "Received System Error", RW1C;
        /// Poison got from below.
        detected_parity_error: bool, "Detected Parity Error", RW1C;
    }
}

register! {
    /// Memory Base Register, offset 0x20 (PCIe Base 6.x section 7.5.1.3.8).
    MemoryBase: u16, "Memory Base" at 0x20 {
        __: u8[4];
        /// Address bits 31:20.
        address: u16[12], "Memory Base", RW;
    }
}

register! {
    /// Memory Limit Register, offset 0x22 (PCIe Base 6.x section 7.5.1.3.8).
    MemoryLimit: u16, "Memory Limit" at 0x22 {
        __: u8[4];
        /// Address bits 31:20.
        address: u16[12], "Memory Limit", RW;
    }
}

register! {
    /// Prefetchable Memory Base Register, offset 0x24 (PCIe Base 6.x section 7.5.1.3.9).
    PrefetchableBase: u16, "Prefetchable Memory Base" at 0x24 {
        /// 1 if the upper 32 bits exist.
        width: u8[4], "Address Width", RO;
        /// Address bits 31:20.
        address: u16[12], "Prefetchable Memory Base", RW;
    }
}

register! {
    /// Prefetchable Memory Limit Register, offset 0x26 (PCIe Base 6.x section 7.5.1.3.9).
    PrefetchableLimit: u16, "Prefetchable Memory Limit" at 0x26 {
        /// 1 if the upper 32 bits exist.
        width: u8[4], "Address Width", RO;
        /// Address bits 31:20.
        address: u16[12], "Prefetchable Memory Limit", RW;
    }
}

register! {
    /// Prefetchable Base Upper 32 Bits Register, offset 0x28 (PCIe Base 6.x section 7.5.1.3.10).
    PrefetchableBaseUpper: u32, "Prefetchable Base Upper 32 Bits" at 0x28 {
        /// Address bits 63:32.
        address: u32, "Prefetchable Base Upper 32 Bits", RW;
    }
}

register! {
    /// Prefetchable Limit Upper 32 Bits Register, offset 0x2C (PCIe Base 6.x section 7.5.1.3.10).
    PrefetchableLimitUpper: u32, "Prefetchable Limit Upper 32 Bits" at 0x2C {
        /// Address bits 63:32.
        address: u32, "Prefetchable Limit Upper 32 Bits", RW;
    }
}

register! {
    /// I/O Base and Limit Upper 16 Bits Register, offset 0x30 (PCIe Base 6.x section 7.5.1.3.11).
    IoWindowUpper: u32, "I/O Base and Limit Upper 16 Bits" at 0x30 {
        /// Bits 31:16 of the base; 0 without 32-bit I/O.
        base: u16, "I/O Base Upper 16 Bits", RO;
        /// Bits 31:16 of the limit; 0 without 32-bit I/O.
        limit: u16, "I/O Limit Upper 16 Bits", RO;
    }
}

register! {
    /// Bridge Control Register, offset 0x3E (PCIe Base 6.x section 7.5.1.3.13).
    BridgeControl: u16, "Bridge Control" at 0x3E {
        /// Logs poison on the secondary side.
        parity_response: bool, "Parity Error Response Enable", RW;
        /// Forwards error messages upwards.
        serr: bool, "SERR# Enable", RW;
        /// Keeps ISA aliases off the I/O window.
        isa: bool, "ISA Enable", RW;
        /// Forwards the VGA ranges.
        vga: bool, "VGA Enable", RW;
        /// Decodes 16 bits of VGA I/O.
        vga_16: bool, "VGA 16-bit Decode", RW;
        /// Always 0 in PCIe.
        master_abort_mode: bool, "Master Abort Mode", RO;
        /// While 1, the link below is in hot reset. On a CXL port only if the port's Unmask SBR is
        /// set.
        secondary_bus_reset: bool, "Secondary Bus Reset", RW;
        /// Always 0 in PCIe.
        fast_back_to_back: bool, "Fast Back-to-Back Enable", RO;
        __: u8;
    }
}

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
