//! The TOML document as serde reads it: every key, nothing resolved.
//!
//! **Invariant**: what can only be judged beside other values carries its span, so that the error
//! can point at it. Unknown keys are errors everywhere.

use std::fmt;

use cxl_regs::{Coherency, Granularity, Interleave, Ways};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::{
    BridgeVersion, DecoderRegister, DeviceKind, InterleavePolicy, Partition, Policy, ResetKind,
    Selects,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
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
    #[serde(default)]
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
    pub(super) physical_bits: Option<Spanned<u8>>,
    pub(super) memory: Option<Spanned<Bytes>>,
    pub(super) memory_base: Option<Spanned<Bytes>>,
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
    pub(super) segment: Option<Spanned<u16>>,
    pub(super) decoders: Option<Spanned<u8>>,
    pub(super) target_count: Option<Spanned<u8>>,
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
    pub(super) decoders: Option<Spanned<u8>>,
    pub(super) target_count: Option<Spanned<u8>>,
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
    pub(super) decoders: Option<Spanned<u8>>,
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
    pub(super) targets: Spanned<Vec<TargetName>>,
    pub(super) size: Bytes,
    pub(super) base: Option<Bytes>,
    pub(super) host: Option<Bytes>,
    pub(super) granularity: Option<Spanned<Bytes>>,
    pub(super) interleave: Option<InterleavePolicy>,
    #[serde(default)]
    pub(super) arithmetic: ArithmeticName,
    pub(super) xor_maps: Option<Spanned<Vec<Bytes>>>,
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
    pub(super) decoder: Option<Spanned<u8>>,
    pub(super) register: Option<Spanned<RegisterName>>,
    pub(super) offset: Option<Spanned<u16>>,
    pub(super) bits: Option<Spanned<Bytes>>,
    pub(super) after: Option<Spanned<u32>>,
    pub(super) into: Option<Spanned<u8>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Leak {
    pub(super) at: Spanned<String>,
    pub(super) decoder: Option<Spanned<u8>>,
    pub(super) register: Spanned<RegisterName>,
    pub(super) offset: Option<Spanned<u16>>,
    pub(super) bits: Option<Spanned<Bytes>>,
    pub(super) width: Option<Spanned<u8>>,
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
    pub(super) value: Option<Spanned<Bytes>>,
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

/// A byte count, an address or a mask: an integer, or a string with or without a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes(
    /// The number.
    pub u64,
);

impl Bytes {
    const EXPECTED: &'static str =
        "a number of bytes such as \"256MiB\", \"4 GiB\", \"0x10000000\" or 4096, below 16 EiB";

    /// The number that the text says: decimal or `0x`, `_` between digits, then maybe a unit.
    pub(super) fn parse(text: &str) -> Option<Self> {
        const UNITS: [(&str, u32); 6] =
            [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("PiB", 50), ("EiB", 60)];
        let text = text.trim();
        let with_unit = UNITS.iter().find_map(|&(unit, shift)| {
            text.strip_suffix(unit).map(|number| (number.trim_end(), shift))
        });
        let (number, shift) = with_unit.unwrap_or((text, 0));
        let (digits, radix) = match number.strip_prefix("0x") {
            Some(digits) => (digits, 16),
            None => (number.strip_suffix(" B").unwrap_or(number), 10),
        };
        // `from_str_radix` would take a sign.
        if !digits.starts_with(|c: char| c.is_digit(radix)) {
            return None;
        }
        let value = u64::from_str_radix(&digits.replace('_', ""), radix).ok()?;
        value.checked_mul(1 << shift).map(Self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Bytes::EXPECTED)
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Bytes, E> {
                let negative = |_| E::invalid_value(Unexpected::Signed(value), &self);
                u64::try_from(value).map(Bytes).map_err(negative)
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Bytes, E> {
                Ok(Bytes(value))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
                Bytes::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for InterleavePolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = InterleavePolicy;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "\"flat\", \"widest\", or ways and granularity such as \"4-way at 1KiB\"",
                )
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<InterleavePolicy, E> {
                let exactly = || {
                    let (ways, granularity) = text.split_once("-way at ")?;
                    let ways = Ways::from_count(ways.parse().ok()?)?;
                    let granularity = Granularity::from_bytes(Bytes::parse(granularity)?.0)?;
                    Some(InterleavePolicy::Exactly(Interleave::new(ways, granularity)))
                };
                match text {
                    "flat" => Ok(InterleavePolicy::Flat),
                    "widest" => Ok(InterleavePolicy::Widest),
                    _ => exactly().ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

/// A window's target: a bridge's name, or a UID.
pub(super) enum TargetName {
    Name(String),
    Uid(u32),
}

impl<'de> Deserialize<'de> for TargetName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = TargetName;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a bridge's name or UID (0 to 0xffffffff)")
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<TargetName, E> {
                let outside = |_| E::invalid_value(Unexpected::Signed(value), &self);
                u32::try_from(value).map(TargetName::Uid).map_err(outside)
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<TargetName, E> {
                Ok(TargetName::Name(name.to_owned()))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}
