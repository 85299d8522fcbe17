//! Why discovery stopped. One variant a reason, each with the place and the numbers.
//!
//! **Invariant**: codes never change their meaning; a new refusal gets a new code.

use core::fmt;

use cxl_regs::Size;
use cxl_regs::component::ArrayError;
use cxl_regs::config::{BarError, Sbdf, WalkError, WindowError};
use cxl_regs::dvsec::device::RangeError;
use cxl_regs::dvsec::locator::LocatorError;
use cxl_regs::dvsec::{DvsecError, DvsecId};
use cxl_regs::hdm;
use cxl_regs::mailbox::{DeviceArrayError, Opcode, ShortPayload};

use crate::codes::codes;
use crate::platform::RootBus;
use crate::topology::{MAX_DEPTH, Place};

/// Why a bridge's root bus could not be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRootBus {
    /// The UID is no bus number.
    NotABusNumber,
    /// No configuration region decodes a bus of that number.
    NotDecoded,
    /// The caller gave that bus to another bridge.
    Claimed {
        /// The other bridge.
        by: u32,
    },
    /// No root port on it carries a CXL DVSEC.
    NoCxlPorts,
    /// Two segments have such a bus.
    SeveralSegments,
}

/// What nobody assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unassigned {
    /// A port's secondary bus number is 0.
    BusNumbers,
    /// The BAR that register blocks lie in has address 0.
    Bar(u8),
    /// Both memory windows of a port are closed, and there are registers behind it.
    Windows,
}

impl fmt::Display for Unassigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BusNumbers => f.write_str("no bus numbers"),
            Self::Bar(bar) => write!(f, "no address in BAR {bar}"),
            Self::Windows => f.write_str("no open memory window"),
        }
    }
}

/// Why the register block that the locator names is not in its BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarProblem {
    /// The function has fewer BARs.
    NoSuchBar,
    /// It is the upper half of a 64-bit BAR.
    UpperHalf,
    /// It decodes I/O space.
    Io,
    /// Its type bits make no sense, or sizing gave no size.
    Register(BarError),
    /// Sizing says that it does not exist.
    NotThere,
}

impl fmt::Display for BarProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchBar => f.write_str("the function has no such BAR"),
            Self::UpperHalf => f.write_str("it is the upper half of a 64-bit BAR"),
            Self::Io => f.write_str("it decodes I/O space"),
            Self::Register(error) => error.fmt(f),
            Self::NotThere => f.write_str("no address bit of it can be written"),
        }
    }
}

/// What a device was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Memory_Info_Valid of a range, counted from 1.
    InfoValid(u8),
    /// Memory_Active of a range, counted from 1.
    Active(u8),
    /// Mailbox ready and media ready in the Memory Device Status.
    DeviceReady,
    /// A mailbox that is free.
    MailboxFree,
    /// The end of a command.
    Command(Opcode),
}

impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InfoValid(range) => write!(f, "range {range} to have Memory_Info_Valid"),
            Self::Active(range) => write!(f, "range {range} to have Memory_Active"),
            Self::DeviceReady => f.write_str("mailbox and media to be ready"),
            Self::MailboxFree => f.write_str("the mailbox doorbell to be clear"),
            Self::Command(opcode) => write!(f, "{opcode} to end"),
        }
    }
}

/// Why discovery stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are named for what they hold; Display says it in words")]
pub enum DiscoverError {
    /// A bridge of CXL 1.1.
    Rch { uid: u32 },
    /// Two bridges have the same UID.
    DuplicateUid { uid: u32 },
    /// The caller gave two bridges the same root bus.
    SharedRootBus { uid: u32, other: u32, root: RootBus },
    /// The caller gave no root bus, and it could not be told.
    RootBusUnknown { uid: u32, reason: NoRootBus },
    /// No configuration region decodes a bus.
    NotDecoded { at: Place, bus: RootBus },
    /// A port leads to a bus that was visited already.
    BusLoop { at: Place, bus: RootBus },
    /// A port's bus numbers do not lie within those of the port above.
    BusNumbers { at: Place, secondary: u8, subordinate: u8, above: u8, last: u8 },
    /// Too many ports in a row.
    TooDeep { at: Place },
    /// Something has no address or number, and the caller gave nothing to assign.
    Unassigned { at: Place, what: Unassigned },
    /// A capability list is broken.
    Capabilities { at: Place, error: WalkError },
    /// The DVSECs cannot be listed.
    Dvsecs { at: Place, error: DvsecError },
    /// A DVSEC is too short for its registers.
    ShortDvsec { at: Place, id: DvsecId, offset: u16, length: u16, need: u16 },
    /// The Register Locator makes no sense.
    Locator { at: Place, error: LocatorError },
    /// A register block's BAR makes no sense.
    Bar { at: Place, bar: u8, problem: BarProblem },
    /// A register block reaches beyond its BAR, or beyond what the address width holds.
    OutsideBar { at: Place, bar: u8, offset: u64, bar_size: u64 },
    /// A port on the way does not forward a register block's addresses.
    NotForwarded { at: Place, port: Sbdf, address: u64 },
    /// A component block's capability array is broken.
    Array { at: Place, error: ArrayError },
    /// An HDM Decoder Capability register names an impossible number of decoders.
    DecoderCount { at: Place, address: u64, found: hdm::Capability },
    /// A port's HDM Decoder Capability register names an impossible number of targets.
    TargetCount { at: Place, address: u64, found: hdm::Capability },
    /// The HDM decoders would pass the end of their range.
    DecodersPastEnd { at: Place, pointer: u16, decoders: u8 },
    /// Two components have their decoders at the same address.
    SharedRegisters { at: Place, address: u64 },
    /// HDM_Count of a CXL.mem device is 0 or 3.
    HdmCount { at: Place, found: u8 },
    /// The link of a port or device did not train to CXL.mem.
    NoMemLink { at: Place, port: Sbdf, status: u16 },
    /// A wait ended without what was waited for.
    Timeout { at: Place, waited: Waited, found: u32, milliseconds: u32 },
    /// A range's registers make no sense.
    Range { at: Place, range: u8, error: RangeError },
    /// Range 1 is persistent and range 2 volatile; in DPA volatile memory comes first.
    PersistentFirst { at: Place },
    /// The device registers' capability array is broken.
    DeviceRegisters { at: Place, error: DeviceArrayError },
    /// A mailbox gave less output than its command has.
    ShortPayload { at: Place, error: ShortPayload },
    /// The capacities pass the 64-bit space.
    CapacityTooLarge { at: Place, volatile: u64, persistent: u64 },
    /// There is no bus number left to assign.
    NoBusNumbers { at: Place, last: u8 },
    /// There is no room left for a BAR.
    NoRoom { at: Place, bar: u8, need: u64, next: u64, end: u64 },
    /// A port's windows cannot forward what was placed behind it.
    Window { at: Place, error: WindowError },
    /// There are more nodes than the caller's topology holds.
    Capacity { have: usize },
    /// A function answered its Vendor ID, and then nothing but all-ones.
    Silent { at: Place, register: &'static str, offset: u16 },
    /// The mailbox says that there is no memory, and the range registers have some.
    NoCapacity { at: Place, ranges: u64 },
}

codes! {
    DiscoverError {
        Rch = 0x0201,
        DuplicateUid = 0x0202,
        SharedRootBus = 0x0203,
        RootBusUnknown = 0x0204,
        NotDecoded = 0x0205,
        BusLoop = 0x0206,
        BusNumbers = 0x0207,
        TooDeep = 0x0208,
        Unassigned = 0x0209,
        Capabilities = 0x020A,
        Dvsecs = 0x020B,
        ShortDvsec = 0x020C,
        Locator = 0x020D,
        Bar = 0x020E,
        OutsideBar = 0x020F,
        NotForwarded = 0x0210,
        Array = 0x0211,
        DecoderCount = 0x0212,
        TargetCount = 0x0213,
        DecodersPastEnd = 0x0214,
        SharedRegisters = 0x0215,
        HdmCount = 0x0216,
        NoMemLink = 0x0217,
        Timeout = 0x0218,
        Range = 0x0219,
        PersistentFirst = 0x021A,
        DeviceRegisters = 0x021B,
        ShortPayload = 0x021C,
        CapacityTooLarge = 0x021D,
        NoBusNumbers = 0x021E,
        NoRoom = 0x021F,
        Window = 0x0220,
        Capacity = 0x0221,
        Silent = 0x0222,
        NoCapacity = 0x0223,
    }
}

impl fmt::Display for DiscoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Rch { uid } => write!(
                f,
                "bridge {uid} is one of CXL 1.1 (RCH): its registers are an RCRB, which this \
                 library does not drive"
            ),
            Self::DuplicateUid { uid } => write!(f, "two bridges have UID {uid}"),
            Self::SharedRootBus { uid, other, root } => {
                write!(f, "bridges {uid} and {other} are both said to start at {root}")
            }
            Self::RootBusUnknown { uid, reason } => {
                write!(f, "bridge {uid}: its root bus was not given and ")?;
                match reason {
                    NoRootBus::NotABusNumber => f.write_str("its UID is no bus number"),
                    NoRootBus::NotDecoded => {
                        f.write_str("configuration space has no bus of that number")
                    }
                    NoRootBus::Claimed { by } => {
                        write!(f, "the bus of that number is bridge {by}'s")
                    }
                    NoRootBus::NoCxlPorts => {
                        f.write_str("the bus of that number has no CXL root port")
                    }
                    NoRootBus::SeveralSegments => {
                        f.write_str("several segments have CXL root ports on that bus")
                    }
                }
            }
            Self::NotDecoded { at, bus } => {
                write!(f, "{at}: configuration space does not decode {bus}")
            }
            Self::BusLoop { at, bus } => {
                write!(f, "{at} leads to {bus}, which was visited already: the buses form a loop")
            }
            Self::BusNumbers { at, secondary, subordinate, above, last } => write!(
                f,
                "{at} leads to buses {secondary:#04x} to {subordinate:#04x}; they must lie \
                 behind {above:#04x} and end by {last:#04x}"
            ),
            Self::TooDeep { at } => write!(f, "{at} is behind more than {MAX_DEPTH} ports"),
            Self::Unassigned { at, what } => {
                write!(f, "{at} has {what}, and there is nothing to assign from")
            }
            Self::Capabilities { at, error } => write!(f, "{at}: {error}"),
            Self::Dvsecs { at, error } => write!(f, "{at}: {error}"),
            Self::ShortDvsec { at, id, offset, length, need } => write!(
                f,
                "{at}: the {id} DVSEC at {offset:#05x} has length {length:#x}, its registers need \
                 {need:#x}"
            ),
            Self::Locator { at, error } => write!(f, "{at}: {error}"),
            Self::Bar { at, bar, problem } => write!(f, "{at}: BAR {bar}: {problem}"),
            Self::OutsideBar { at, bar, offset, bar_size } => write!(
                f,
                "{at}: the register block at offset {offset:#x} of BAR {bar} reaches beyond the \
                 {} that the BAR can have",
                Size(bar_size)
            ),
            Self::NotForwarded { at, port, address } => write!(
                f,
                "{at}: no window of port {port} above forwards its registers at {address:#x}"
            ),
            Self::Array { at, error } => write!(f, "{at}: {error}"),
            Self::DecoderCount { at, address, found } => write!(
                f,
                "{at}: the HDM Decoder Capability at {address:#x} is {:#010x}: decoder count \
                 code {} is not allowed here",
                found.into_bits(),
                found.decoder_count()
            ),
            Self::TargetCount { at, address, found } => write!(
                f,
                "{at}: the HDM Decoder Capability at {address:#x} is {:#010x}: target count {} is \
                 not 1, 2, 4 or 8",
                found.into_bits(),
                found.target_count()
            ),
            Self::DecodersPastEnd { at, pointer, decoders } => write!(
                f,
                "{at}: {decoders} HDM decoders at {pointer:#05x} pass the end of the 4 KiB range"
            ),
            Self::SharedRegisters { at, address } => {
                write!(f, "{at}: its HDM decoders at {address:#x} are those of another component")
            }
            Self::HdmCount { at, found } => {
                write!(f, "{at}: HDM_Count is {found}, a CXL.mem device has 1 or 2")
            }
            Self::NoMemLink { at, port, status } => write!(
                f,
                "{at}: the link of {port} did not train to CXL.mem (Flex Bus status {status:#06x})"
            ),
            Self::Timeout { at, waited, found, milliseconds } => write!(
                f,
                "{at}: waited {milliseconds} ms for {waited}; the register reads {found:#010x}"
            ),
            Self::Range { at, range, error } => write!(f, "{at}: range {range}: {error}"),
            Self::PersistentFirst { at } => write!(
                f,
                "{at}: range 1 is persistent and range 2 volatile; volatile memory has to come \
                 first"
            ),
            Self::DeviceRegisters { at, error } => write!(f, "{at}: {error}"),
            Self::ShortPayload { at, error } => write!(f, "{at}: {error}"),
            Self::CapacityTooLarge { at, volatile, persistent } => write!(
                f,
                "{at}: {volatile:#x} volatile and {persistent:#x} persistent units or bytes pass \
                 the 64-bit space"
            ),
            Self::NoBusNumbers { at, last } => {
                write!(f, "{at}: no bus number is left up to {last:#04x}")
            }
            Self::NoRoom { at, bar, need, next, end } => write!(
                f,
                "{at}: BAR {bar} needs {} and there is no such room from {next:#x} to {end:#x}",
                Size(need)
            ),
            Self::Window { at, error } => write!(f, "{at}: {error}"),
            Self::Silent { at, register, offset } => write!(
                f,
                "{at} answered its Vendor ID, and then all-ones: {register} at {offset:#05x} cannot \
                 be that"
            ),
            Self::NoCapacity { at, ranges } => write!(
                f,
                "{at}: Identify Memory Device says that there is no memory, the range registers \
                 have {} of it",
                Size(ranges)
            ),
            Self::Capacity { have } => {
                write!(f, "more than {have} nodes: give the library a larger topology")
            }
        }
    }
}

impl core::error::Error for DiscoverError {}
