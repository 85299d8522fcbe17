//! Why there is no plan. One variant a refusal, each with the place and the numbers.
//!
//! **Invariant**: codes never change their meaning; a new refusal gets a new code.

use core::fmt;

use cxl_regs::{Coherency, ComposeError, DecodeError, Granularity, Size, Span, Ways, XorMapError};

use crate::codes::codes;
use crate::topology::{NodeId, Partition, Path};

/// What there is more of than a caller's structure holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Nodes of the topology.
    Nodes,
    /// Regions of the plan.
    Regions,
    /// Decoders or members of the plan.
    Decoders,
    /// Notes of the plan.
    Notes,
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are named for what they hold; Display says it in words")]
pub enum PlanError {
    /// No window has this device's bridge as a target.
    NoWindow { device: Path, partition: Partition, need: u64 },
    /// A window's target is the UID of no bridge.
    TargetMissing { window: u64, uid: u32 },
    /// A window interleaves more or fewer ways than it has targets.
    TargetCount { window: u64, ways: Ways, targets: u8 },
    /// A window has one bridge as two of its targets.
    TargetTwice { window: u64, uid: u32 },
    /// Several windows fit and the policy names none.
    Ambiguous { device: Path, partition: Partition, first: u64, second: u64, fit: u16 },
    /// The window interleaves and a flat mapping was asked for.
    Interleaved { device: Path, window: u64, ways: Ways },
    /// The platform found no place for the window.
    Unplaced { device: Path, size: u64 },
    /// The window ends beyond the physical address width.
    BeyondAddressWidth { window: u64, size: u64, bits: u8 },
    /// Two windows claim the same addresses.
    WindowsOverlap { first: u64, second: u64 },
    /// A window reaches over what the platform says is something else: RAM or registers.
    WindowOccupied { window: u64, size: u64, by: Span },
    /// The window is smaller than what it has to hold.
    WindowTooSmall { device: Path, window: u64, need: u64, have: u64 },
    /// The window is large enough, but what is left of it is not.
    WindowFull { device: Path, window: u64, need: u64, free: u64 },
    /// The window does not allow this kind of memory.
    MediaNotAllowed { device: Path, window: u64, partition: Partition },
    /// The window does not allow this kind of coherency.
    CoherencyNotAllowed { device: Path, window: u64, coherency: Coherency },
    /// A component on the path has no decoder left.
    DecodersExhausted { device: Path, at: Path, have: u8 },
    /// A component on the path has no decoders, and more than one way to go.
    NoDecoders { device: Path, at: Path },
    /// The windows' order contradicts the device's: its volatile memory comes first in DPA, so it
    /// has to come first in HPA too.
    DpaOrder { device: Path, lower: u64, higher: u64 },
    /// Two ports below one component have the same port number, so targets cannot tell them apart.
    DuplicatePort { at: Path, port: u8 },
    /// Two host bridges have the same UID, so windows cannot tell them apart.
    DuplicateBridge { uid: u32 },
    /// Two components are linked to one port.
    SharedPort { at: Path },
    /// A node's parent is missing, of the wrong kind, listed behind it, or too far from the bridge.
    BrokenTree { node: NodeId },
    /// The device's partitions together pass the end of its address space.
    DeviceTooLarge { device: Path, volatile: u64, persistent: u64 },
    /// The device needs back-invalidate and a component on its path cannot do it.
    NoBackInvalidate { device: Path, at: Path },
    /// The policy names a device that does not exist.
    UnknownDevice { device: Path },
    /// The policy names a window that does not exist, or that does not target the device's bridge.
    UnknownWindow { device: Path, window: u64 },
    /// The policy asks for more than the partition has left, behind what the request leaves out.
    RequestTooLarge { device: Path, partition: Partition, asked: u64, left: u64 },
    /// A size, base, offset or skip is not a multiple of 256 MiB.
    Unaligned { device: Path, what: &'static str, value: u64, unit: u64 },
    /// The place asked for reaches beyond the window or overlaps another region.
    PlaceTaken { device: Path, window: u64, offset: u64, size: u64 },
    /// Path 2: the guest places its memory itself, so nothing can be asked for.
    RequestToGuest { device: Path },
    /// Path 2: a bridge with more than one port leaves the guest a choice.
    MultiplePorts { uid: u32, ports: u16 },
    /// Path 2: a switch on the path leaves the guest a choice.
    SwitchInPath { device: Path },
    /// Path 2: the bridge has decoders of its own, so it is no proven pass-through.
    BridgeNotPassThrough { uid: u32, decoders: u8 },
    /// Linux gives up on a port that has a committed decoder of size 0.
    LinuxRefusesBurnedDecoders,
    /// Spare decoders can be burned only where everything is locked.
    BurnWithoutLock,
    /// The levels of a set do not make an interleave that devices can decode.
    Compose { window: u64, error: ComposeError },
    /// The policy names a way count that is no multiple of the window's, or not by 1, 2, 4 or 8
    /// at each level below it.
    WaysOfWindow { window: u64, asked: Ways, ways: Ways },
    /// The policy names another granularity than a window that interleaves has.
    GranularityOfWindow { window: u64, asked: Granularity, granularity: Granularity },
    /// Too few devices (or ports with enough of them) below a bridge for a set over all targets.
    TooFewMembers { window: u64, uid: u32, partition: Partition, need: u8, have: u8 },
    /// Linux derives a granularity for the level below, even one with a single way, and stops at
    /// 16 KiB.
    LinuxGranularity { window: u64, bytes: u64 },
    /// Below a window of 3, 6 or 12 ways Linux numbers the members of interleaving ports in
    /// another order than hardware does.
    LinuxThreeWithPorts { window: u64, ways: Ways },
    /// The policy gives a width to a window that does not exist.
    WidthOfNothing { window: u64 },
    /// The policy gives two widths to one window.
    WidthTwice { window: u64 },
    /// Path 2: the guest programs the decoders, so no set can be asked for.
    WidthToGuest,
    /// The window's XOR maps cannot drive it.
    Xor { window: u64, error: XorMapError },
    /// A component cannot do what the plan needs of its decoder.
    Decoder { at: Path, error: DecodeError },
    /// There is more than the caller's structure holds.
    Capacity { what: Count, have: usize },
}

codes! {
    PlanError {
        NoWindow = 0x0301,
        TargetMissing = 0x0302,
        Ambiguous = 0x0303,
        Interleaved = 0x0304,
        Unplaced = 0x0305,
        BeyondAddressWidth = 0x0306,
        WindowsOverlap = 0x0307,
        WindowTooSmall = 0x0308,
        WindowFull = 0x0309,
        MediaNotAllowed = 0x030A,
        CoherencyNotAllowed = 0x030B,
        DecodersExhausted = 0x030C,
        NoDecoders = 0x030D,
        DpaOrder = 0x030E,
        DuplicatePort = 0x030F,
        NoBackInvalidate = 0x0310,
        UnknownDevice = 0x0311,
        UnknownWindow = 0x0312,
        RequestTooLarge = 0x0313,
        Unaligned = 0x0314,
        PlaceTaken = 0x0315,
        MultiplePorts = 0x0316,
        SwitchInPath = 0x0317,
        BridgeNotPassThrough = 0x0318,
        LinuxRefusesBurnedDecoders = 0x0319,
        BurnWithoutLock = 0x031A,
        Compose = 0x031B,
        Xor = 0x031C,
        Decoder = 0x031D,
        Capacity = 0x031E,
        TargetCount = 0x031F,
        TargetTwice = 0x0320,
        DuplicateBridge = 0x0321,
        SharedPort = 0x0322,
        BrokenTree = 0x0323,
        DeviceTooLarge = 0x0324,
        RequestToGuest = 0x0325,
        WaysOfWindow = 0x0326,
        GranularityOfWindow = 0x0327,
        TooFewMembers = 0x0328,
        LinuxGranularity = 0x0329,
        LinuxThreeWithPorts = 0x032A,
        WidthOfNothing = 0x032B,
        WidthTwice = 0x032C,
        WidthToGuest = 0x032D,
        WindowOccupied = 0x0330,
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoWindow { device, partition, need } => write!(
                f,
                "{device}: no window targets bridge {}, so its {} of {partition} memory have no \
                 place; the platform has to provide one",
                device.uid(),
                Size(need)
            ),
            Self::TargetMissing { window, uid } => {
                write!(f, "window {window:#x}: its target {uid} is the UID of no bridge")
            }
            Self::TargetCount { window, ways, targets } => {
                write!(f, "window {window:#x} interleaves {ways} ways and has {targets} targets")
            }
            Self::TargetTwice { window, uid } => {
                write!(f, "window {window:#x}: two of its targets are bridge {uid}")
            }
            Self::Ambiguous { device, partition, first, second, fit } => write!(
                f,
                "{device}: {fit} windows fit its {partition} memory ({first:#x}, {second:#x}{}); \
                 name one in the policy",
                if fit > 2 { ", ..." } else { "" }
            ),
            Self::Interleaved { device, window, ways } => write!(
                f,
                "{device}: window {window:#x} interleaves {ways} bridges, a flat one is needed"
            ),
            Self::Unplaced { device, size } => write!(
                f,
                "{device}: its window of {} has no base: the platform found no place for it (it \
                 did not fit)",
                Size(size)
            ),
            Self::BeyondAddressWidth { window, size, bits } => write!(
                f,
                "window {window:#x} of {} ends beyond the physical address width of {bits} bits \
                 (it did not fit)",
                Size(size)
            ),
            Self::WindowsOverlap { first, second } => {
                write!(f, "windows {first:#x} and {second:#x} overlap")
            }
            Self::WindowOccupied { window, size, by } => write!(
                f,
                "window {window:#x} of {} reaches over {by}, where RAM or registers answer",
                Size(size)
            ),
            Self::WindowTooSmall { device, window, need, have } => write!(
                f,
                "{device}: window {window:#x} has {}, {} are needed",
                Size(have),
                Size(need)
            ),
            Self::WindowFull { device, window, need, free } => write!(
                f,
                "{device}: window {window:#x} has {} left in one piece, {} are needed",
                Size(free),
                Size(need)
            ),
            Self::MediaNotAllowed { device, window, partition } => {
                write!(f, "{device}: window {window:#x} does not allow {partition} memory")
            }
            Self::CoherencyNotAllowed { device, window, coherency } => {
                write!(f, "{device}: window {window:#x} does not allow {coherency} memory")
            }
            Self::DecodersExhausted { device, at, have } => {
                write!(f, "{device}: all {have} decoders of {at} are taken")
            }
            Self::NoDecoders { device, at } => write!(
                f,
                "{device}: {at} has no HDM decoders, and is no host bridge with a single port"
            ),
            Self::DpaOrder { device, lower, higher } => write!(
                f,
                "{device}: persistent memory would be mapped at {lower:#x}, below its volatile \
                 memory at {higher:#x}; decoders go up in HPA and DPA together"
            ),
            Self::DuplicatePort { at, port } => {
                write!(f, "{at}: two ports have port number {port}")
            }
            Self::DuplicateBridge { uid } => write!(f, "two host bridges have UID {uid}"),
            Self::SharedPort { at } => write!(f, "{at}: two components are linked to this port"),
            Self::BrokenTree { node } => write!(
                f,
                "node {} of the topology has no place: its parent is missing, listed behind it, \
                 of the wrong kind, or too deep",
                node.0
            ),
            Self::DeviceTooLarge { device, volatile, persistent } => write!(
                f,
                "{device}: {} of volatile and {} of persistent memory pass the end of its \
                 address space",
                Size(volatile),
                Size(persistent)
            ),
            Self::NoBackInvalidate { device, at } => {
                write!(f, "{device}: needs back-invalidate, {at} has no BI structure")
            }
            Self::UnknownDevice { device } => {
                write!(f, "the policy names a device at {device}; there is none")
            }
            Self::UnknownWindow { device, window } => write!(
                f,
                "{device}: the policy names window {window:#x}, and no window there targets \
                 bridge {}",
                device.uid()
            ),
            Self::RequestTooLarge { device, partition, asked, left } => write!(
                f,
                "{device}: {} of {partition} memory asked for, {} left",
                Size(asked),
                Size(left)
            ),
            Self::Unaligned { device, what, value, unit } => {
                write!(f, "{device}: {what} {value:#x} is not a multiple of {}", Size(unit))
            }
            Self::PlaceTaken { device, window, offset, size } => write!(
                f,
                "{device}: {} at offset {offset:#x} of window {window:#x} reach beyond it or \
                 overlap another region",
                Size(size)
            ),
            Self::RequestToGuest { device } => write!(
                f,
                "{device}: a region is asked for, and the guest programs the decoders; choose one"
            ),
            Self::MultiplePorts { uid, ports } => write!(
                f,
                "bridge {uid} has {ports} ports; a guest may program the decoders only below a \
                 bridge with one (MultiplePorts)"
            ),
            Self::SwitchInPath { device } => write!(
                f,
                "{device} is behind a switch; a guest may program the decoders only where there \
                 is none (SwitchInPath)"
            ),
            Self::BridgeNotPassThrough { uid, decoders } => write!(
                f,
                "bridge {uid} has {decoders} decoders of its own; a guest may program the \
                 decoders only below a pass-through bridge (BridgeNotPassThrough)"
            ),
            Self::LinuxRefusesBurnedDecoders => f.write_str(
                "Linux gives up on a port with a committed decoder of size 0; burn spare decoders \
                 only with the specification as target",
            ),
            Self::BurnWithoutLock => {
                f.write_str("spare decoders can be burned only when the whole path is locked")
            }
            Self::Compose { window, error } => write!(f, "window {window:#x}: {error}"),
            Self::WaysOfWindow { window, asked, ways } => write!(
                f,
                "window {window:#x} interleaves {ways} ways; a set of {asked} is not that times 1, \
                 2, 4 or 8 a level"
            ),
            Self::GranularityOfWindow { window, asked, granularity } => write!(
                f,
                "window {window:#x} interleaves at {granularity}; its sets cannot do so at {asked}"
            ),
            Self::TooFewMembers { window, uid, partition, need, have } => write!(
                f,
                "window {window:#x}: {need} ports with {partition} memory for the set are needed \
                 below bridge {uid}, {have} found"
            ),
            Self::LinuxGranularity { window, bytes } => write!(
                f,
                "window {window:#x}: Linux would want a granularity of {} at the level below, \
                 16 KiB is the coarsest",
                Size(bytes)
            ),
            Self::LinuxThreeWithPorts { window, ways } => write!(
                f,
                "window {window:#x}: below {ways} ways Linux numbers the members of interleaving \
                 ports in another order than hardware"
            ),
            Self::WidthOfNothing { window } => {
                write!(f, "the policy gives a width to window {window:#x}; there is none")
            }
            Self::WidthTwice { window } => {
                write!(f, "the policy gives two widths to window {window:#x}")
            }
            Self::WidthToGuest => {
                f.write_str("a set is asked for, and the guest programs the decoders; choose one")
            }
            Self::Xor { window, error } => write!(f, "window {window:#x}: {error}"),
            Self::Decoder { at, error } => write!(f, "{at}: {error}"),
            Self::Capacity { what, have } => {
                let what = match what {
                    Count::Nodes => "nodes",
                    Count::Regions => "regions",
                    Count::Decoders => "decoders",
                    Count::Notes => "notes",
                };
                write!(f, "more than {have} {what}: give the library larger structures")
            }
        }
    }
}

impl core::error::Error for PlanError {}
