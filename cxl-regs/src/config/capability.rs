//! Capability lists and the PCI Express capability (PCIe Base 6.x sections 7.5.3 and 7.6.3).
//!
//! **Invariant**: a walk visits every offset at most once, so it ends after at most 48
//! (conventional) or 960 (extended) steps; after an error it ends at once.

use core::fmt;

use super::{CONFIG_SIZE, CONVENTIONAL_SIZE, CapabilitiesPointer, Status};
use crate::access::register;
use crate::access::rules::{RESERVED, RO, RW, RW1C, RWS, TRIGGER};
use crate::block::{self, block};
use crate::codes::codes;

register! {
    /// Capability Header Register, offset 0x00 (PCIe Base 6.x section 7.5.3.1).
    CapabilityHeader: u16, "Capability Header" at 0x00 {
        /// What the capability is.
        id: u8, "Capability ID", RO;
        /// Offset of the next capability; 0 ends the list.
        next: u8, "Next Capability Pointer", RO;
    }
}

register! {
    /// PCI Express Capabilities Register, offset 0x02 (PCIe Base 6.x section 7.5.3.2).
    PcieCapabilities: u16, "PCI Express Capabilities" at 0x02 {
        /// Version; 2 in all current revisions.
        version: u8[4], "Capability Version", RO;
        /// See [`PortType`].
        port_type: u8[4], "Device/Port Type", RO;
        /// The port leads to a slot.
        slot: bool, "Slot Implemented", RO;
        /// MSI vector of the capability.
        interrupt_message: u8[5], "Interrupt Message Number", RO;
        __: u8[2];
    }
}

register! {
    /// Device Capabilities Register, offset 0x04 (PCIe Base 6.x section 7.5.3.3).
    DeviceCapabilities: u32, "Device Capabilities" at 0x04 {
        /// 128 bytes shifted left by this.
        max_payload: u8[3], "Max_Payload_Size Supported", RO;
        /// Function bits usable as tag.
        phantom: u8[2], "Phantom Functions", RO;
        /// 8-bit tags.
        extended_tag: bool, "Extended Tag", RO;
        /// Code.
        l0s_latency: u8[3], "L0s Acceptable Latency", RO;
        /// Code.
        l1_latency: u8[3], "L1 Acceptable Latency", RO;
        __: u8[3];
        /// Always 1 since PCIe 1.1.
        role_based_errors: bool, "Role-Based Error Reporting", RO;
        /// ERR_COR carries a subclass.
        err_cor_subclass: bool, "ERR_COR Subclass", RO;
        __: bool;
        /// Granted by the slot.
        power_limit: u8, "Slot Power Limit Value", RO;
        /// Scale of the limit.
        power_scale: u8[2], "Slot Power Limit Scale", RO;
        /// Initiate Function Level Reset exists (endpoints).
        function_level_reset: bool, "Function Level Reset", RO;
        /// May use another payload size per peer.
        mixed_mps: bool, "Mixed_MPS", RO;
        /// TDISP.
        tee_io: bool, "TEE-IO", RO;
        __: bool;
    }
}

register! {
    /// Device Control Register, offset 0x08 (PCIe Base 6.x section 7.5.3.4). Initiate FLR exists in
    /// functions whose Device Capabilities say so.
    DeviceControl: u16, "Device Control" at 0x08 {
        /// Sends ERR_COR.
        correctable_reporting: bool, "Correctable Error Reporting", RW;
        /// Sends ERR_NONFATAL.
        non_fatal_reporting: bool, "Non-Fatal Error Reporting", RW;
        /// Sends ERR_FATAL.
        fatal_reporting: bool, "Fatal Error Reporting", RW;
        /// Reports Unsupported Requests.
        unsupported_reporting: bool, "Unsupported Request Reporting", RW;
        /// May set the attribute.
        relaxed_ordering: bool, "Relaxed Ordering", RW;
        /// 128 bytes shifted left by this.
        max_payload: u8[3], "Max_Payload_Size", RW;
        /// Uses 8-bit tags.
        extended_tag: bool, "Extended Tag", RW;
        /// Uses function bits as tag.
        phantom: bool, "Phantom Functions", RW;
        /// Draws auxiliary power.
        aux_power: bool, "Aux Power PM", RWS;
        /// May set the attribute.
        no_snoop: bool, "No Snoop", RW;
        /// 128 bytes shifted left by this.
        max_read_request: u8[3], "Max_Read_Request_Size", RW;
        /// Writing 1 resets the function.
        initiate_flr: bool, "Initiate Function Level Reset", TRIGGER, RESERVED;
    }
}

register! {
    /// Device Status Register, offset 0x0A (PCIe Base 6.x section 7.5.3.5).
    DeviceStatus: u16, "Device Status" at 0x0A {
        /// A correctable error was seen.
        correctable: bool, "Correctable Error Detected", RW1C;
        /// A non-fatal error was seen.
        non_fatal: bool, "Non-Fatal Error Detected", RW1C;
        /// A fatal error was seen.
        fatal: bool, "Fatal Error Detected", RW1C;
        /// An Unsupported Request was seen.
        unsupported: bool, "Unsupported Request Detected", RW1C;
        /// Auxiliary power is there.
        aux_power: bool, "AUX Power Detected", RO;
        /// Requests without completion.
        transactions_pending: bool, "Transactions Pending", RO;
        __: u16[10];
    }
}

register! {
    /// Link Capabilities Register, offset 0x0C (PCIe Base 6.x section 7.5.3.6).
    LinkCapabilities: u32, "Link Capabilities" at 0x0C {
        /// Bit number in the Supported Link Speeds vector, plus 1.
        max_speed: u8[4], "Max Link Speed", RO;
        /// Lanes.
        max_width: u8[6], "Maximum Link Width", RO;
        /// Power states.
        aspm: u8[2], "ASPM Support", RO;
        /// Code.
        l0s_exit: u8[3], "L0s Exit Latency", RO;
        /// Code.
        l1_exit: u8[3], "L1 Exit Latency", RO;
        /// CLKREQ#.
        clock_pm: bool, "Clock Power Management", RO;
        /// Can report it.
        surprise_down: bool, "Surprise Down Reporting", RO;
        /// Link Status bit 13 works.
        link_active_reporting: bool, "Link Active Reporting", RO;
        /// Can notify.
        bandwidth_notification: bool, "Bandwidth Notification", RO;
        /// Set in current designs.
        optionality: bool, "ASPM Optionality Compliance", RO;
        __: bool;
        /// The number that HDM target lists name this port by.
        port_number: u8, "Port Number", RO;
    }
}

register! {
    /// Link Control Register, offset 0x10 (PCIe Base 6.x section 7.5.3.7).
    LinkControl: u16, "Link Control" at 0x10 {
        /// Power states in use.
        aspm: u8[2], "ASPM Control", RW;
        /// Always 0 in most designs.
        propagation_delay: bool, "PTM Propagation Delay", RO;
        /// 0: 64 bytes, 1: 128 bytes.
        read_boundary: bool, "Read Completion Boundary", RW;
        /// Takes the link down (ports). On a CXL port only if Unmask Link Disable is set.
        link_disable: bool, "Link Disable", RW;
        /// Writing 1 retrains (ports).
        retrain: bool, "Retrain Link", RESERVED, TRIGGER;
        /// Both ends share a clock.
        common_clock: bool, "Common Clock Configuration", RW;
        /// Longer training.
        extended_sync: bool, "Extended Synch", RW;
        /// May stop the clock.
        clock_pm: bool, "Clock Power Management", RW;
        /// Keeps the width.
        autonomous_width_disable: bool, "Autonomous Width Disable", RW;
        /// Notifies (ports).
        bandwidth_interrupt: bool, "Bandwidth Management Interrupt", RW;
        /// Notifies (ports).
        autonomous_bandwidth_interrupt: bool, "Autonomous Bandwidth Interrupt", RW;
        __: u8[2];
        /// How readiness messages are told (ports).
        drs_signaling: u8[2], "DRS Signaling", RW;
    }
}

register! {
    /// Link Status Register, offset 0x12 (PCIe Base 6.x section 7.5.3.8).
    LinkStatus: u16, "Link Status" at 0x12 {
        /// Code.
        speed: u8[4], "Current Link Speed", RO;
        /// Lanes.
        width: u8[6], "Negotiated Link Width", RO;
        __: bool;
        /// In training (ports).
        training: bool, "Link Training", RO;
        /// Uses the slot's clock.
        slot_clock: bool, "Slot Clock Configuration", RO;
        /// The link is up.
        active: bool, "Data Link Layer Link Active", RO;
        /// Speed or width changed by software.
        bandwidth_management: bool, "Bandwidth Management Status", RW1C;
        /// Changed by hardware.
        autonomous_bandwidth: bool, "Autonomous Bandwidth Status", RW1C;
    }
}

register! {
    /// Extended Capability Header Register, offset 0x00 (PCIe Base 6.x section 7.6.3).
    ExtendedHeader: u32, "Extended Capability Header" at 0x00 {
        /// What the capability is.
        id: u16, "Extended Capability ID", RO;
        /// Version.
        version: u8[4], "Capability Version", RO;
        /// Offset of the next extended capability; 0 ends the list.
        next: u16[12], "Next Capability Offset", RO;
    }
}

block! {
    /// The PCI Express capability, as far as its link registers.
    PcieCapability {
        /// Header.
        header: CapabilityHeader;
        /// Version and port type.
        capabilities: PcieCapabilities;
        /// Device capabilities.
        device_caps: DeviceCapabilities;
        /// Device control.
        device_control: DeviceControl;
        /// Device status.
        device_status: DeviceStatus;
        /// Link capabilities, with the port number.
        link_caps: LinkCapabilities;
        /// Link control.
        link_control: LinkControl;
        /// Link status.
        link_status: LinkStatus;
    }
}

impl PcieCapability {
    /// Device or port type.
    pub const fn port_type(&self) -> PortType {
        PortType::from_code(self.capabilities.port_type())
    }

    /// The number that HDM target lists name this port by.
    pub const fn port_number(&self) -> u8 {
        self.link_caps.port_number()
    }
}

codes! {
    /// Device/port types of a function with type 0 or type 1 header.
    PortType: u8 {
        /// Endpoint.
        Endpoint = 0x0, "endpoint";
        /// Legacy endpoint.
        LegacyEndpoint = 0x1, "legacy endpoint";
        /// Root port.
        RootPort = 0x4, "root port";
        /// Switch upstream port.
        UpstreamPort = 0x5, "switch upstream port";
        /// Switch downstream port.
        DownstreamPort = 0x6, "switch downstream port";
        /// Root complex integrated endpoint, as CXL 1.1 devices are.
        IntegratedEndpoint = 0x9, "root complex integrated endpoint";
        /// Root complex event collector.
        EventCollector = 0xa, "root complex event collector";
    }
}

codes! {
    /// Conventional capability IDs.
    CapabilityId: u8 {
        /// Power management.
        PowerManagement = 0x01, "power management";
        /// MSI.
        Msi = 0x05, "MSI";
        /// Vendor specific.
        Vendor = 0x09, "vendor specific";
        /// Subsystem of a bridge.
        BridgeSubsystem = 0x0d, "bridge subsystem";
        /// PCI Express.
        PciExpress = 0x10, "PCI Express";
        /// MSI-X.
        MsiX = 0x11, "MSI-X";
    }
}

codes! {
    /// Extended capability IDs.
    ExtendedCapabilityId: u16 {
        /// Nothing; the list goes on.
        Null = 0x0000, "null";
        /// Advanced error reporting.
        AdvancedErrors = 0x0001, "advanced error reporting";
        /// Device serial number.
        SerialNumber = 0x0003, "device serial number";
        /// Vendor specific.
        Vendor = 0x000b, "vendor specific";
        /// Access control services.
        AccessControl = 0x000d, "access control services";
        /// Address translation services.
        AddressTranslation = 0x000f, "address translation services";
        /// Designated vendor specific, as all of CXL's are.
        Dvsec = 0x0023, "designated vendor specific";
        /// Data object exchange, which CDAT is read through.
        DataObjectExchange = 0x002e, "data object exchange";
    }
}

/// Where a capability list is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WalkError {
    /// The pointer leads to a capability that was there already.
    Loop {
        /// Offset of the capability (or register) with the pointer.
        at: u16,
        /// The pointer.
        to: u16,
    },
    /// The pointer is not a multiple of 4.
    Misaligned {
        /// Offset of the capability (or register) with the pointer.
        at: u16,
        /// The pointer.
        to: u16,
    },
    /// The pointer leads into what lies before the list's space.
    TooLow {
        /// Offset of the capability (or register) with the pointer.
        at: u16,
        /// The pointer.
        to: u16,
        /// The lowest offset a capability can have.
        lowest: u16,
    },
    /// The header reads as all-ones: nothing answers.
    AllOnes {
        /// Offset of the header.
        at: u16,
    },
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loop { at, to } => {
                write!(f, "capability at {at:#05x} points back to {to:#05x}: the list is a loop")
            }
            Self::Misaligned { at, to } => {
                write!(f, "capability at {at:#05x} points to {to:#05x}, not a multiple of 4")
            }
            Self::TooLow { at, to, lowest } => {
                write!(f, "capability at {at:#05x} points to {to:#05x}, below {lowest:#05x}")
            }
            Self::AllOnes { at } => {
                write!(f, "capability header at {at:#05x} reads as all-ones: nothing answers")
            }
        }
    }
}

impl core::error::Error for WalkError {}

/// The way along a list: where it was, and where it goes next.
#[derive(Clone, Debug)]
struct Chain {
    /// One bit a dword of configuration space.
    visited: [u64; CONFIG_SIZE as usize / 4 / 64],
    /// Lowest offset of a capability.
    lowest: u16,
    /// Offset of what holds the pointer.
    at: u16,
    /// The pointer; 0 at the end.
    to: u16,
}

impl Chain {
    // Three walkers start so: the clearing of the bits is written once.
    #[inline(never)]
    const fn new(lowest: u16, at: u16, to: u16) -> Self {
        Self { visited: [0; CONFIG_SIZE as usize / 4 / 64], lowest, at, to }
    }

    /// The next capability's offset, if the pointer is good.
    fn step(&mut self) -> Option<Result<u16, WalkError>> {
        let (at, to, lowest) = (self.at, self.to, self.lowest);
        if to == 0 {
            return None;
        }
        // Whatever happens, the walk ends here unless the caller sets another pointer.
        (self.at, self.to) = (to, 0);
        if to < lowest {
            return Some(Err(WalkError::TooLow { at, to, lowest }));
        }
        if !to.is_multiple_of(4) {
            return Some(Err(WalkError::Misaligned { at, to }));
        }
        let (word, bit) = (usize::from(to / 4 / 64), 1 << (to / 4 % 64));
        match self.visited.get_mut(word) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                Some(Ok(to))
            }
            _ => Some(Err(WalkError::Loop { at, to })),
        }
    }
}

/// A conventional capability that a walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Offset in configuration space.
    pub offset: u16,
    /// What it is.
    pub id: CapabilityId,
}

/// A walk along the conventional capabilities.
#[derive(Clone, Debug)]
pub struct Capabilities<R> {
    reader: R,
    chain: Chain,
}

impl<R: FnMut(u16) -> u32> Capabilities<R> {
    /// Starts at the pointer in the header, if the status register says there is one.
    pub fn new(mut reader: R) -> Self {
        let status: Status = block::read(&mut reader, 0);
        let first: CapabilitiesPointer = block::read(&mut reader, 0);
        let to = if status.capability_list() { first.pointer() } else { 0 };
        // The header takes the first 64 bytes.
        Self { reader, chain: Chain::new(0x40, 0x34, to.into()) }
    }

    /// The first capability of a kind.
    #[inline(never)]
    pub fn find(mut self, id: CapabilityId) -> Result<Option<u16>, WalkError> {
        self.find_map(|found| match found {
            Ok(found) => (found.id == id).then_some(Ok(found.offset)),
            Err(error) => Some(Err(error)),
        })
        .transpose()
    }
}

impl<R: FnMut(u16) -> u32> Iterator for Capabilities<R> {
    type Item = Result<Capability, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = match self.chain.step()? {
            Ok(offset) => offset,
            Err(error) => return Some(Err(error)),
        };
        let header: CapabilityHeader = block::read(&mut self.reader, offset);
        if header.into_bits() == u16::MAX {
            return Some(Err(WalkError::AllOnes { at: offset }));
        }
        self.chain.to = header.next().into();
        Some(Ok(Capability { offset, id: CapabilityId::from_code(header.id()) }))
    }
}

/// An extended capability that a walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedCapability {
    /// Offset in configuration space.
    pub offset: u16,
    /// What it is.
    pub id: ExtendedCapabilityId,
    /// Version.
    pub version: u8,
}

/// A walk along the extended capabilities.
#[derive(Clone, Debug)]
pub struct ExtendedCapabilities<R> {
    pub(crate) reader: R,
    chain: Chain,
}

impl<R: FnMut(u16) -> u32> ExtendedCapabilities<R> {
    /// Starts at offset 0x100, where the first header always is.
    pub fn new(reader: R) -> Self {
        let first = CONVENTIONAL_SIZE;
        Self { reader, chain: Chain::new(first, first, first) }
    }
}

impl<R: FnMut(u16) -> u32> Iterator for ExtendedCapabilities<R> {
    type Item = Result<ExtendedCapability, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = match self.chain.step()? {
            Ok(offset) => offset,
            Err(error) => return Some(Err(error)),
        };
        let header: ExtendedHeader = block::read(&mut self.reader, offset);
        match header.into_bits() {
            // An empty list is one header of zeros.
            0 => None,
            u32::MAX => Some(Err(WalkError::AllOnes { at: offset })),
            _ => {
                self.chain.to = header.next();
                let id = ExtendedCapabilityId::from_code(header.id());
                Some(Ok(ExtendedCapability { offset, id, version: header.version() }))
            }
        }
    }
}
