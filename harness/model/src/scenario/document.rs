//! The TOML document as serde reads it: every key, nothing resolved.
//!
//! **Invariant**: what can only be judged beside other values carries its span, so that the error
//! can point at it. Unknown keys are errors everywhere.

use cxl_regs::Coherency;
use serde::Deserialize;
use toml::Spanned;

use super::values::{Address, Bytes, Mask, Number, TargetName, table};
use super::{
    BridgeVersion, DecoderRegister, DeviceKind, InterleavePolicy, Partition, Policy, ResetKind,
    Selects,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    #[serde(default)]
    pub(super) description: String,
    #[serde(default, deserialize_with = "table")]
    pub(super) platform: Platform,
    #[serde(default)]
    pub(super) bridge: Vec<Bridge>,
    #[serde(default)]
    pub(super) port: Vec<Port>,
    #[serde(default)]
    pub(super) switch: Vec<Switch>,
    #[serde(default)]
    pub(super) device: Vec<Device>,
    #[serde(default)]
    pub(super) window: Vec<Window>,
    #[serde(default, deserialize_with = "table")]
    pub(super) policy: Policy,
    #[serde(default)]
    pub(super) leave_out: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) reserve: Vec<Reserve>,
    #[serde(default)]
    pub(super) region: Vec<Spanned<Region>>,
    #[serde(default)]
    pub(super) fault: Vec<Fault>,
    #[serde(default)]
    pub(super) leak: Vec<Leak>,
    #[serde(default)]
    pub(super) mode: Vec<Mode>,
    #[serde(default)]
    pub(super) event: Vec<Event>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Platform {
    pub(super) physical_bits: Option<Spanned<Number>>,
    pub(super) memory: Option<Spanned<Bytes>>,
    pub(super) memory_base: Option<Spanned<Address>>,
    pub(super) assigned: bool,
    pub(super) strict: bool,
    pub(super) windows: WindowsName,
    pub(super) across: Option<Spanned<Bytes>>,
}

impl Default for Platform {
    fn default() -> Self {
        let windows = WindowsName::Given;
        let (physical_bits, memory, memory_base, across) = (None, None, None, None);
        let (assigned, strict) = (true, true);
        Self { physical_bits, memory, memory_base, assigned, strict, windows, across }
    }
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum WindowsName {
    Given,
    Sized,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bridge {
    pub(super) name: Option<Spanned<String>>,
    pub(super) uid: Spanned<u32>,
    pub(super) bus: Option<Spanned<u8>>,
    pub(super) segment: Option<Spanned<Number>>,
    pub(super) decoders: Option<Spanned<Number>>,
    pub(super) target_count: Option<Spanned<Number>>,
    #[serde(default)]
    pub(super) version: BridgeVersion,
    #[serde(default)]
    pub(super) back_invalidate: bool,
    #[serde(default)]
    pub(super) cache_id: bool,
    #[serde(default = "yes")]
    pub(super) bus_known: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub(super) name: Option<Spanned<String>>,
    pub(super) below: Spanned<String>,
    pub(super) number: Option<Spanned<u8>>,
    #[serde(default)]
    pub(super) hdm: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Switch {
    pub(super) name: Option<Spanned<String>>,
    pub(super) below: Spanned<String>,
    pub(super) decoders: Option<Spanned<Number>>,
    pub(super) target_count: Option<Spanned<Number>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Device {
    pub(super) name: Option<Spanned<String>>,
    pub(super) below: Spanned<String>,
    #[serde(default)]
    pub(super) kind: DeviceKind,
    pub(super) volatile: Option<Spanned<Bytes>>,
    pub(super) persistent: Option<Spanned<Bytes>>,
    pub(super) coherency: Option<CoherencyName>,
    pub(super) decoders: Option<Spanned<Number>>,
    #[serde(default)]
    pub(super) selects: Selects,
    #[serde(default = "yes")]
    pub(super) ways_3_6_12: bool,
    #[serde(default = "yes")]
    pub(super) ways_16: bool,
    pub(super) serial: Option<u64>,
    #[serde(default = "yes")]
    pub(super) present: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    pub(super) name: Option<Spanned<String>>,
    pub(super) targets: Spanned<Vec<Spanned<TargetName>>>,
    pub(super) size: Bytes,
    pub(super) base: Option<Spanned<Address>>,
    pub(super) host: Option<Spanned<Address>>,
    pub(super) granularity: Option<Spanned<Bytes>>,
    pub(super) interleave: Option<InterleavePolicy>,
    #[serde(default)]
    pub(super) arithmetic: ArithmeticName,
    pub(super) xor_maps: Option<Spanned<Vec<Mask>>>,
    pub(super) restrictions: Option<Vec<RestrictionName>>,
    #[serde(default)]
    pub(super) qtg: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Region {
    pub(super) device: Option<Spanned<String>>,
    pub(super) devices: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    pub(super) partition: Partition,
    pub(super) window: Option<Spanned<String>>,
    pub(super) offset: Option<Bytes>,
    pub(super) size: Option<Bytes>,
    #[serde(default)]
    pub(super) skip: Bytes,
    pub(super) granularity: Option<Spanned<Bytes>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reserve {
    pub(super) at: Spanned<String>,
    #[serde(default)]
    pub(super) partition: Partition,
    pub(super) size: Bytes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fault {
    pub(super) at: Spanned<String>,
    pub(super) kind: Spanned<FaultName>,
    pub(super) decoder: Option<Spanned<Number>>,
    pub(super) register: Option<Spanned<RegisterName>>,
    pub(super) offset: Option<Spanned<u16>>,
    pub(super) bits: Option<Spanned<Mask>>,
    pub(super) after: Option<Spanned<u32>>,
    pub(super) into: Option<Spanned<Number>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Leak {
    pub(super) at: Spanned<String>,
    pub(super) decoder: Option<Spanned<Number>>,
    pub(super) register: Spanned<RegisterName>,
    pub(super) offset: Option<Spanned<u16>>,
    pub(super) bits: Option<Spanned<Mask>>,
    pub(super) width: Option<Spanned<Number>>,
    pub(super) value: Option<Spanned<String>>,
    #[serde(rename = "while")]
    pub(super) when: Option<Spanned<String>>,
    pub(super) of: Option<Spanned<String>>,
    pub(super) is: Option<Spanned<Is>>,
    pub(super) after: Option<ResetKind>,
    pub(super) writes: Option<u64>,
    pub(super) microseconds: Option<u64>,
    pub(super) by: Option<Spanned<String>>,
    pub(super) by_register: Option<Spanned<String>>,
    #[serde(default = "yes")]
    pub(super) shows: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mode {
    pub(super) at: Spanned<String>,
    pub(super) register: Spanned<String>,
    pub(super) field: Option<Spanned<String>>,
    pub(super) value: Option<Spanned<Mask>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Is {
    On,
    Off,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    pub(super) at: u64,
    pub(super) action: Spanned<ActionName>,
    pub(super) device: Option<Spanned<String>>,
    pub(super) kind: Option<Spanned<ResetKind>>,
    #[serde(default)]
    pub(super) refused: bool,
}

pub(super) fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum CoherencyName {
    HostOnly,
    Device,
    BackInvalidate,
}

impl From<CoherencyName> for Coherency {
    fn from(name: CoherencyName) -> Self {
        match name {
            CoherencyName::HostOnly => Self::HostOnly,
            CoherencyName::Device => Self::Device,
            CoherencyName::BackInvalidate => Self::BackInvalidate,
        }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ArithmeticName {
    #[default]
    Modulo,
    Xor,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RestrictionName {
    DeviceCoherent,
    HostOnly,
    Volatile,
    Persistent,
    Fixed,
    BackInvalidate,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FaultName {
    CommitPolls,
    CommitNever,
    CommitError,
    DroppedWrite,
    StuckBit,
    AllOnesAfter,
    LockNotEnforced,
    LockLost,
    LeaksField,
    LeaksInto,
    Unrouted,
    Wraps,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RegisterName {
    BaseLow,
    BaseHigh,
    SizeLow,
    SizeHigh,
    Control,
    RouteLow,
    RouteHigh,
    GlobalControl,
    /// With `offset`: a dword of the Device DVSEC.
    Dvsec,
}

impl RegisterName {
    /// The dword of a decoder, unless it is none.
    pub(super) fn of_decoder(self) -> Option<DecoderRegister> {
        Some(match self {
            Self::BaseLow => DecoderRegister::BaseLow,
            Self::BaseHigh => DecoderRegister::BaseHigh,
            Self::SizeLow => DecoderRegister::SizeLow,
            Self::SizeHigh => DecoderRegister::SizeHigh,
            Self::Control => DecoderRegister::Control,
            Self::RouteLow => DecoderRegister::RouteLow,
            Self::RouteHigh => DecoderRegister::RouteHigh,
            Self::GlobalControl | Self::Dvsec => return None,
        })
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ActionName {
    HotAdd,
    HotRemove,
    Reset,
}
