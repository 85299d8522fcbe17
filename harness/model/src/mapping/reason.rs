//! Why a range traps: one variant for each condition.
//!
//! **Invariant**: a reason names the component and the numbers by itself; nothing has to be looked
//! up but names.

use cxl_regs::{
    Coherency, ComposeError, DecodeError, Hpa, Interleave, Span, SpanError, Ways, XorMapError,
};

use crate::fabric::Parent;
use crate::scenario::{Partition, Place};

/// A component with HDM decoders, by its index in the [`Fabric`](crate::fabric::Fabric).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// A host bridge.
    Bridge(usize),
    /// A switch's upstream port.
    Switch(usize),
    /// A device.
    Device(usize),
}

impl From<Parent> for At {
    fn from(parent: Parent) -> Self {
        match parent {
            Parent::Bridge(bridge) => Self::Bridge(bridge),
            Parent::Switch(switch) => Self::Switch(switch),
        }
    }
}

/// The first condition on the way from the window to the device that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No window has the address. Only [`resolve`](super::resolve) can be asked that.
    NoWindow,
    /// The window's base is 0: the platform had no room for it.
    WindowNotPlaced,
    /// The window's base and size are no range.
    WindowRange(SpanError),
    /// The window ends beyond the physical address width.
    BeyondPhysicalWidth {
        /// The width in bits.
        bits: u8,
    },
    /// The window's base or size is not a multiple of 256 MiB.
    WindowUnaligned {
        /// The base.
        base: Hpa,
        /// The size.
        size: u64,
    },
    /// Another window has the same addresses.
    WindowsOverlap {
        /// The other window's index.
        other: usize,
    },
    /// The window does not have as many targets as ways.
    TargetCount {
        /// The ways.
        ways: Ways,
        /// The targets.
        targets: usize,
    },
    /// The window's XOR maps pick no target.
    XorMaps(XorMapError),
    /// The window's target is no bridge.
    NoSuchBridge {
        /// Place in the target list.
        way: u32,
        /// The UID.
        uid: u32,
    },
    /// No HDM capability, and no proof that there is one way only.
    NoDecoders {
        /// Where.
        at: At,
        /// Its downstream ports.
        ports: usize,
    },
    /// No decoder of the component has the range.
    NotCovered {
        /// Where.
        at: At,
    },
    /// The decoder that has the range is not committed.
    NotCommitted {
        /// Where.
        at: At,
        /// The decoder.
        decoder: u8,
    },
    /// Two committed decoders of the component have the range.
    ClaimedTwice {
        /// Where.
        at: At,
        /// One decoder.
        first: u8,
        /// The other.
        second: u8,
    },
    /// A committed decoder breaks a rule: the one that has the range or, in a device, one below it
    /// that its device address depends on.
    IllegalDecoder {
        /// Where.
        at: At,
        /// The decoder.
        decoder: u8,
        /// The rule.
        error: DecodeError,
    },
    /// The target list holds a port number that no port has.
    NoSuchPort {
        /// Where.
        at: At,
        /// Place in the target list.
        way: u32,
        /// The port number.
        number: u8,
    },
    /// A device has the range, but its port is not in the target list.
    NotInTargetList {
        /// Where the list is.
        at: At,
        /// The port, an index into the fabric's list.
        port: usize,
    },
    /// Nothing is plugged in below the port.
    NothingBehind {
        /// The port, an index into the fabric's list.
        port: usize,
    },
    /// What is plugged in has no CXL memory.
    NotMemory {
        /// The device.
        device: usize,
    },
    /// HDM Decoder Enable is clear.
    DecodersDisabled {
        /// The device.
        device: usize,
    },
    /// Mem_Enable is clear.
    MemoryDisabled {
        /// The device.
        device: usize,
    },
    /// The window does not admit memory of this coherency.
    CoherencyNotAllowed {
        /// Where the decoder is.
        at: At,
        /// Its coherency.
        coherency: Coherency,
    },
    /// Two decoders of one range disagree about who keeps it coherent: type or BI.
    CoherencyDiffers {
        /// Where the one is that does not fit.
        at: At,
        /// Its coherency.
        coherency: Coherency,
        /// The device that it leads to, or the first member of its set.
        device: usize,
        /// The device's own coherency.
        expected: Coherency,
    },
    /// The range is back-invalidate's (HDM-DB), and a component on the way has no such capability.
    NoBackInvalidate {
        /// The port, switch or device.
        place: Place,
    },
    /// The window does not admit this kind of memory.
    MediaNotAllowed {
        /// The device.
        device: usize,
        /// The partition that the decoder maps.
        partition: Partition,
    },
    /// The decoder maps more than the device has.
    BeyondCapacity {
        /// The device.
        device: usize,
        /// First device address behind the decoder's share; the largest number if it passes that.
        end: u64,
        /// The device's memory.
        capacity: u64,
    },
    /// The decoder maps volatile and persistent memory as one.
    CrossesPartitions {
        /// The device.
        device: usize,
        /// The device address where persistent memory begins.
        border: u64,
    },
    /// The device's decoder has addresses of another window too.
    SpansWindows {
        /// The device.
        device: usize,
        /// The other window's index.
        other: usize,
    },
    /// The levels do not make one set.
    Levels(ComposeError),
    /// Two switches on one path interleave.
    SwitchLevels {
        /// The second.
        at: At,
    },
    /// The device shares the range with more members than the levels above it reach.
    MembersMissing {
        /// The device.
        device: usize,
        /// The ways of its decoder.
        ways: Ways,
        /// The ways of the levels above it.
        reached: u32,
    },
    /// The device's interleave is not the one that the levels above it make.
    InterleaveDiffers {
        /// The device.
        device: usize,
        /// What the levels make.
        expected: Interleave,
        /// What its decoder says.
        found: Interleave,
    },
    /// The device's decoder has another range than the first member's.
    SpanDiffers {
        /// The device.
        device: usize,
        /// The first member's range.
        expected: Span,
        /// Its own.
        found: Span,
    },
    /// One device is reached at two positions.
    PositionDoubled {
        /// The device.
        device: usize,
        /// The second position.
        position: u32,
    },
    /// The device's decoder holds addresses of the device alone (normalized addressing): which host
    /// addresses those are, the platform alone knows.
    Normalized {
        /// The device.
        device: usize,
        /// Its decoder.
        decoder: u8,
    },
    /// Nobody gave a table or a list of windows. This and the following ones are of pictures that have gaps:
    /// who made the picture says them in the place of a reason that would be a fact.
    WindowsNotGiven,
    /// Nobody gave the registers of the bridge that the window targets.
    BridgeNotGiven {
        /// Place in the target list.
        way: u32,
        /// The UID.
        uid: u32,
    },
    /// Nobody gave the component's registers.
    NotGiven {
        /// Where.
        at: At,
    },
    /// Nobody said which ports the component has.
    PortsNotGiven {
        /// Where.
        at: At,
    },
    /// Nothing is known to be plugged in below the port, and nobody said where each device is.
    PlaceNotGiven {
        /// The port, an index into the fabric's list.
        port: usize,
    },
}

impl Reason {
    /// Whether it says what nobody gave, and not what is so.
    pub fn is_unknown(self) -> bool {
        matches!(
            self,
            Self::WindowsNotGiven
                | Self::BridgeNotGiven { .. }
                | Self::NotGiven { .. }
                | Self::PortsNotGiven { .. }
                | Self::PlaceNotGiven { .. }
        )
    }

    /// A short name that stays the same, for reports that programs read.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoWindow => "no-window",
            Self::WindowNotPlaced => "window-not-placed",
            Self::WindowRange(_) => "window-range",
            Self::BeyondPhysicalWidth { .. } => "beyond-physical-width",
            Self::WindowUnaligned { .. } => "window-unaligned",
            Self::WindowsOverlap { .. } => "windows-overlap",
            Self::TargetCount { .. } => "target-count",
            Self::XorMaps(_) => "xor-maps",
            Self::NoSuchBridge { .. } => "no-such-bridge",
            Self::NoDecoders { .. } => "no-decoders",
            Self::NotCovered { .. } => "not-covered",
            Self::NotCommitted { .. } => "not-committed",
            Self::ClaimedTwice { .. } => "claimed-twice",
            Self::IllegalDecoder { .. } => "illegal-decoder",
            Self::NoSuchPort { .. } => "no-such-port",
            Self::NotInTargetList { .. } => "not-in-target-list",
            Self::NothingBehind { .. } => "nothing-behind",
            Self::NotMemory { .. } => "not-memory",
            Self::DecodersDisabled { .. } => "decoders-disabled",
            Self::MemoryDisabled { .. } => "memory-disabled",
            Self::CoherencyNotAllowed { .. } => "coherency-not-allowed",
            Self::CoherencyDiffers { .. } => "coherency-differs",
            Self::NoBackInvalidate { .. } => "no-back-invalidate",
            Self::MediaNotAllowed { .. } => "media-not-allowed",
            Self::BeyondCapacity { .. } => "beyond-capacity",
            Self::CrossesPartitions { .. } => "crosses-partitions",
            Self::SpansWindows { .. } => "spans-windows",
            Self::Levels(_) => "levels",
            Self::SwitchLevels { .. } => "switch-levels",
            Self::MembersMissing { .. } => "members-missing",
            Self::InterleaveDiffers { .. } => "interleave-differs",
            Self::SpanDiffers { .. } => "span-differs",
            Self::PositionDoubled { .. } => "position-doubled",
            Self::Normalized { .. } => "normalized",
            Self::WindowsNotGiven => "windows-not-given",
            Self::BridgeNotGiven { .. } => "bridge-not-given",
            Self::NotGiven { .. } => "not-given",
            Self::PortsNotGiven { .. } => "ports-not-given",
            Self::PlaceNotGiven { .. } => "place-not-given",
        }
    }
}
