//! Capability lists and the PCI Express capability (PCIe Base 6.x sections 7.5.3 and 7.6.3).
//!
//! **Invariant**: a walk visits every offset at most once, so it ends after at most 48
//! (conventional) or 960 (extended) steps; after an error it ends at once.

use core::fmt;

use bitfield_struct::bitfield;

use super::{CONFIG_SIZE, CONVENTIONAL_SIZE, CapabilitiesPointer, Status};
use crate::access::rules::{RESERVED, RO, RW, RW1C, RWS, TRIGGER};
use crate::access::{Field, register};
use crate::block::{self, block};
use crate::codes::codes;

/// Capability Header Register, offset 0x00 (PCIe Base 6.x section 7.5.3.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct CapabilityHeader {
    /// What the capability is.
    pub id: u8,
    /// Offset of the next capability; 0 ends the list.
    pub next: u8,
}

register!(CapabilityHeader: u16, "Capability Header" at 0x00, [
    Field::new("Capability ID", Self::ID_OFFSET, Self::ID_BITS, RO),
    Field::new("Next Capability Pointer", Self::NEXT_OFFSET, Self::NEXT_BITS, RO),
]);

/// PCI Express Capabilities Register, offset 0x02 (PCIe Base 6.x section 7.5.3.2).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct PcieCapabilities {
    /// Version; 2 in all current revisions.
    #[bits(4)]
    pub version: u8,
    /// See [`PortType`].
    #[bits(4)]
    pub port_type: u8,
    /// The port leads to a slot.
    pub slot: bool,
    /// MSI vector of the capability.
    #[bits(5)]
    pub interrupt_message: u8,
    #[bits(2)]
    __: u8,
}

register!(PcieCapabilities: u16, "PCI Express Capabilities" at 0x02, [
    Field::new("Capability Version", Self::VERSION_OFFSET, Self::VERSION_BITS, RO),
    Field::new("Device/Port Type", Self::PORT_TYPE_OFFSET, Self::PORT_TYPE_BITS, RO),
    Field::new("Slot Implemented", Self::SLOT_OFFSET, Self::SLOT_BITS, RO),
    Field::new(
        "Interrupt Message Number",
        Self::INTERRUPT_MESSAGE_OFFSET,
        Self::INTERRUPT_MESSAGE_BITS,
        RO,
    ),
]);

/// Device Capabilities Register, offset 0x04 (PCIe Base 6.x section 7.5.3.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DeviceCapabilities {
    /// 128 bytes shifted left by this.
    #[bits(3)]
    pub max_payload: u8,
    /// Function bits usable as tag.
    #[bits(2)]
    pub phantom: u8,
    /// 8-bit tags.
    pub extended_tag: bool,
    /// Code.
    #[bits(3)]
    pub l0s_latency: u8,
    /// Code.
    #[bits(3)]
    pub l1_latency: u8,
    #[bits(3)]
    __: u8,
    /// Always 1 since PCIe 1.1.
    pub role_based_errors: bool,
    /// ERR_COR carries a subclass.
    pub err_cor_subclass: bool,
    __: bool,
    /// Granted by the slot.
    pub power_limit: u8,
    /// Scale of the limit.
    #[bits(2)]
    pub power_scale: u8,
    /// Initiate Function Level Reset exists (endpoints).
    pub function_level_reset: bool,
    /// May use another payload size per peer.
    pub mixed_mps: bool,
    /// TDISP.
    pub tee_io: bool,
    __: bool,
}

register!(DeviceCapabilities: u32, "Device Capabilities" at 0x04, [
    Field::new("Max_Payload_Size Supported", Self::MAX_PAYLOAD_OFFSET, Self::MAX_PAYLOAD_BITS, RO),
    Field::new("Phantom Functions", Self::PHANTOM_OFFSET, Self::PHANTOM_BITS, RO),
    Field::new("Extended Tag", Self::EXTENDED_TAG_OFFSET, Self::EXTENDED_TAG_BITS, RO),
    Field::new("L0s Acceptable Latency", Self::L0S_LATENCY_OFFSET, Self::L0S_LATENCY_BITS, RO),
    Field::new("L1 Acceptable Latency", Self::L1_LATENCY_OFFSET, Self::L1_LATENCY_BITS, RO),
    Field::new(
        "Role-Based Error Reporting",
        Self::ROLE_BASED_ERRORS_OFFSET,
        Self::ROLE_BASED_ERRORS_BITS,
        RO,
    ),
    Field::new("ERR_COR Subclass", Self::ERR_COR_SUBCLASS_OFFSET, Self::ERR_COR_SUBCLASS_BITS, RO),
    Field::new("Slot Power Limit Value", Self::POWER_LIMIT_OFFSET, Self::POWER_LIMIT_BITS, RO),
    Field::new("Slot Power Limit Scale", Self::POWER_SCALE_OFFSET, Self::POWER_SCALE_BITS, RO),
    Field::new(
        "Function Level Reset",
        Self::FUNCTION_LEVEL_RESET_OFFSET,
        Self::FUNCTION_LEVEL_RESET_BITS,
        RO,
    ),
    Field::new("Mixed_MPS", Self::MIXED_MPS_OFFSET, Self::MIXED_MPS_BITS, RO),
    Field::new("TEE-IO", Self::TEE_IO_OFFSET, Self::TEE_IO_BITS, RO),
]);

/// Device Control Register, offset 0x08 (PCIe Base 6.x section 7.5.3.4). Initiate FLR exists in
/// functions whose Device Capabilities say so.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct DeviceControl {
    /// Sends ERR_COR.
    pub correctable_reporting: bool,
    /// Sends ERR_NONFATAL.
    pub non_fatal_reporting: bool,
    /// Sends ERR_FATAL.
    pub fatal_reporting: bool,
    /// Reports Unsupported Requests.
    pub unsupported_reporting: bool,
    /// May set the attribute.
    pub relaxed_ordering: bool,
    /// 128 bytes shifted left by this.
    #[bits(3)]
    pub max_payload: u8,
    /// Uses 8-bit tags.
    pub extended_tag: bool,
    /// Uses function bits as tag.
    pub phantom: bool,
    /// Draws auxiliary power.
    pub aux_power: bool,
    /// May set the attribute.
    pub no_snoop: bool,
    /// 128 bytes shifted left by this.
    #[bits(3)]
    pub max_read_request: u8,
    /// Writing 1 resets the function.
    pub initiate_flr: bool,
}

register!(DeviceControl: u16, "Device Control" at 0x08, [
    Field::new(
        "Correctable Error Reporting",
        Self::CORRECTABLE_REPORTING_OFFSET,
        Self::CORRECTABLE_REPORTING_BITS,
        RW,
    ),
    Field::new(
        "Non-Fatal Error Reporting",
        Self::NON_FATAL_REPORTING_OFFSET,
        Self::NON_FATAL_REPORTING_BITS,
        RW,
    ),
    Field::new(
        "Fatal Error Reporting",
        Self::FATAL_REPORTING_OFFSET,
        Self::FATAL_REPORTING_BITS,
        RW,
    ),
    Field::new(
        "Unsupported Request Reporting",
        Self::UNSUPPORTED_REPORTING_OFFSET,
        Self::UNSUPPORTED_REPORTING_BITS,
        RW,
    ),
    Field::new("Relaxed Ordering", Self::RELAXED_ORDERING_OFFSET, Self::RELAXED_ORDERING_BITS, RW),
    Field::new("Max_Payload_Size", Self::MAX_PAYLOAD_OFFSET, Self::MAX_PAYLOAD_BITS, RW),
    Field::new("Extended Tag", Self::EXTENDED_TAG_OFFSET, Self::EXTENDED_TAG_BITS, RW),
    Field::new("Phantom Functions", Self::PHANTOM_OFFSET, Self::PHANTOM_BITS, RW),
    Field::new("Aux Power PM", Self::AUX_POWER_OFFSET, Self::AUX_POWER_BITS, RWS),
    Field::new("No Snoop", Self::NO_SNOOP_OFFSET, Self::NO_SNOOP_BITS, RW),
    Field::new(
        "Max_Read_Request_Size",
        Self::MAX_READ_REQUEST_OFFSET,
        Self::MAX_READ_REQUEST_BITS,
        RW,
    ),
    Field::split(
        "Initiate Function Level Reset",
        Self::INITIATE_FLR_OFFSET,
        Self::INITIATE_FLR_BITS,
        TRIGGER,
        RESERVED,
    ),
]);

/// Device Status Register, offset 0x0A (PCIe Base 6.x section 7.5.3.5).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct DeviceStatus {
    /// A correctable error was seen.
    pub correctable: bool,
    /// A non-fatal error was seen.
    pub non_fatal: bool,
    /// A fatal error was seen.
    pub fatal: bool,
    /// An Unsupported Request was seen.
    pub unsupported: bool,
    /// Auxiliary power is there.
    pub aux_power: bool,
    /// Requests without completion.
    pub transactions_pending: bool,
    #[bits(10)]
    __: u16,
}

register!(DeviceStatus: u16, "Device Status" at 0x0A, [
    Field::new(
        "Correctable Error Detected",
        Self::CORRECTABLE_OFFSET,
        Self::CORRECTABLE_BITS,
        RW1C,
    ),
    Field::new("Non-Fatal Error Detected", Self::NON_FATAL_OFFSET, Self::NON_FATAL_BITS, RW1C),
    Field::new("Fatal Error Detected", Self::FATAL_OFFSET, Self::FATAL_BITS, RW1C),
    Field::new(
        "Unsupported Request Detected",
        Self::UNSUPPORTED_OFFSET,
        Self::UNSUPPORTED_BITS,
        RW1C,
    ),
    Field::new("AUX Power Detected", Self::AUX_POWER_OFFSET, Self::AUX_POWER_BITS, RO),
    Field::new(
        "Transactions Pending",
        Self::TRANSACTIONS_PENDING_OFFSET,
        Self::TRANSACTIONS_PENDING_BITS,
        RO,
    ),
]);

/// Link Capabilities Register, offset 0x0C (PCIe Base 6.x section 7.5.3.6).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct LinkCapabilities {
    /// Bit number in the Supported Link Speeds vector, plus 1.
    #[bits(4)]
    pub max_speed: u8,
    /// Lanes.
    #[bits(6)]
    pub max_width: u8,
    /// Power states.
    #[bits(2)]
    pub aspm: u8,
    /// Code.
    #[bits(3)]
    pub l0s_exit: u8,
    /// Code.
    #[bits(3)]
    pub l1_exit: u8,
    /// CLKREQ#.
    pub clock_pm: bool,
    /// Can report it.
    pub surprise_down: bool,
    /// Link Status bit 13 works.
    pub link_active_reporting: bool,
    /// Can notify.
    pub bandwidth_notification: bool,
    /// Set in current designs.
    pub optionality: bool,
    __: bool,
    /// The number that HDM target lists name this port by.
    pub port_number: u8,
}

register!(LinkCapabilities: u32, "Link Capabilities" at 0x0C, [
    Field::new("Max Link Speed", Self::MAX_SPEED_OFFSET, Self::MAX_SPEED_BITS, RO),
    Field::new("Maximum Link Width", Self::MAX_WIDTH_OFFSET, Self::MAX_WIDTH_BITS, RO),
    Field::new("ASPM Support", Self::ASPM_OFFSET, Self::ASPM_BITS, RO),
    Field::new("L0s Exit Latency", Self::L0S_EXIT_OFFSET, Self::L0S_EXIT_BITS, RO),
    Field::new("L1 Exit Latency", Self::L1_EXIT_OFFSET, Self::L1_EXIT_BITS, RO),
    Field::new("Clock Power Management", Self::CLOCK_PM_OFFSET, Self::CLOCK_PM_BITS, RO),
    Field::new("Surprise Down Reporting", Self::SURPRISE_DOWN_OFFSET, Self::SURPRISE_DOWN_BITS, RO),
    Field::new(
        "Link Active Reporting",
        Self::LINK_ACTIVE_REPORTING_OFFSET,
        Self::LINK_ACTIVE_REPORTING_BITS,
        RO,
    ),
    Field::new(
        "Bandwidth Notification",
        Self::BANDWIDTH_NOTIFICATION_OFFSET,
        Self::BANDWIDTH_NOTIFICATION_BITS,
        RO,
    ),
    Field::new("ASPM Optionality Compliance", Self::OPTIONALITY_OFFSET, Self::OPTIONALITY_BITS, RO),
    Field::new("Port Number", Self::PORT_NUMBER_OFFSET, Self::PORT_NUMBER_BITS, RO),
]);

/// Link Control Register, offset 0x10 (PCIe Base 6.x section 7.5.3.7).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct LinkControl {
    /// Power states in use.
    #[bits(2)]
    pub aspm: u8,
    /// Always 0 in most designs.
    pub propagation_delay: bool,
    /// 0: 64 bytes, 1: 128 bytes.
    pub read_boundary: bool,
    /// Takes the link down (ports). On a CXL port only if Unmask Link Disable is set.
    pub link_disable: bool,
    /// Writing 1 retrains (ports).
    pub retrain: bool,
    /// Both ends share a clock.
    pub common_clock: bool,
    /// Longer training.
    pub extended_sync: bool,
    /// May stop the clock.
    pub clock_pm: bool,
    /// Keeps the width.
    pub autonomous_width_disable: bool,
    /// Notifies (ports).
    pub bandwidth_interrupt: bool,
    /// Notifies (ports).
    pub autonomous_bandwidth_interrupt: bool,
    #[bits(2)]
    __: u8,
    /// How readiness messages are told (ports).
    #[bits(2)]
    pub drs_signaling: u8,
}

register!(LinkControl: u16, "Link Control" at 0x10, [
    Field::new("ASPM Control", Self::ASPM_OFFSET, Self::ASPM_BITS, RW),
    Field::new(
        "PTM Propagation Delay",
        Self::PROPAGATION_DELAY_OFFSET,
        Self::PROPAGATION_DELAY_BITS,
        RO,
    ),
    Field::new(
        "Read Completion Boundary",
        Self::READ_BOUNDARY_OFFSET,
        Self::READ_BOUNDARY_BITS,
        RW,
    ),
    Field::new("Link Disable", Self::LINK_DISABLE_OFFSET, Self::LINK_DISABLE_BITS, RW),
    Field::split("Retrain Link", Self::RETRAIN_OFFSET, Self::RETRAIN_BITS, RESERVED, TRIGGER),
    Field::new(
        "Common Clock Configuration",
        Self::COMMON_CLOCK_OFFSET,
        Self::COMMON_CLOCK_BITS,
        RW,
    ),
    Field::new("Extended Synch", Self::EXTENDED_SYNC_OFFSET, Self::EXTENDED_SYNC_BITS, RW),
    Field::new("Clock Power Management", Self::CLOCK_PM_OFFSET, Self::CLOCK_PM_BITS, RW),
    Field::new(
        "Autonomous Width Disable",
        Self::AUTONOMOUS_WIDTH_DISABLE_OFFSET,
        Self::AUTONOMOUS_WIDTH_DISABLE_BITS,
        RW,
    ),
    Field::new(
        "Bandwidth Management Interrupt",
        Self::BANDWIDTH_INTERRUPT_OFFSET,
        Self::BANDWIDTH_INTERRUPT_BITS,
        RW,
    ),
    Field::new(
        "Autonomous Bandwidth Interrupt",
        Self::AUTONOMOUS_BANDWIDTH_INTERRUPT_OFFSET,
        Self::AUTONOMOUS_BANDWIDTH_INTERRUPT_BITS,
        RW,
    ),
    Field::new("DRS Signaling", Self::DRS_SIGNALING_OFFSET, Self::DRS_SIGNALING_BITS, RW),
]);

/// Link Status Register, offset 0x12 (PCIe Base 6.x section 7.5.3.8).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct LinkStatus {
    /// Code.
    #[bits(4)]
    pub speed: u8,
    /// Lanes.
    #[bits(6)]
    pub width: u8,
    __: bool,
    /// In training (ports).
    pub training: bool,
    /// Uses the slot's clock.
    pub slot_clock: bool,
    /// The link is up.
    pub active: bool,
    /// Speed or width changed by software.
    pub bandwidth_management: bool,
    /// Changed by hardware.
    pub autonomous_bandwidth: bool,
}

register!(LinkStatus: u16, "Link Status" at 0x12, [
    Field::new("Current Link Speed", Self::SPEED_OFFSET, Self::SPEED_BITS, RO),
    Field::new("Negotiated Link Width", Self::WIDTH_OFFSET, Self::WIDTH_BITS, RO),
    Field::new("Link Training", Self::TRAINING_OFFSET, Self::TRAINING_BITS, RO),
    Field::new("Slot Clock Configuration", Self::SLOT_CLOCK_OFFSET, Self::SLOT_CLOCK_BITS, RO),
    Field::new("Data Link Layer Link Active", Self::ACTIVE_OFFSET, Self::ACTIVE_BITS, RO),
    Field::new(
        "Bandwidth Management Status",
        Self::BANDWIDTH_MANAGEMENT_OFFSET,
        Self::BANDWIDTH_MANAGEMENT_BITS,
        RW1C,
    ),
    Field::new(
        "Autonomous Bandwidth Status",
        Self::AUTONOMOUS_BANDWIDTH_OFFSET,
        Self::AUTONOMOUS_BANDWIDTH_BITS,
        RW1C,
    ),
]);

/// Extended Capability Header Register, offset 0x00 (PCIe Base 6.x section 7.6.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ExtendedHeader {
    /// What the capability is.
    pub id: u16,
    /// Version.
    #[bits(4)]
    pub version: u8,
    /// Offset of the next extended capability; 0 ends the list.
    #[bits(12)]
    pub next: u16,
}

register!(ExtendedHeader: u32, "Extended Capability Header" at 0x00, [
    Field::new("Extended Capability ID", Self::ID_OFFSET, Self::ID_BITS, RO),
    Field::new("Capability Version", Self::VERSION_OFFSET, Self::VERSION_BITS, RO),
    Field::new("Next Capability Offset", Self::NEXT_OFFSET, Self::NEXT_BITS, RO),
]);

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
