//! The values of a document, each with what was expected where there is none.
//!
//! **Invariant**: what a value may be whatever stands beside it is decided here, and nothing else.

use std::fmt;
use std::marker::PhantomData;

use cxl_regs::{Granularity, Interleave, Ways};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::InterleavePolicy;

/// A byte count, an address or a mask: an integer, or a string with or without a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes(
    /// The number.
    pub u64,
);

impl Bytes {
    /// The number that the text says: decimal or `0x`, `_` between digits, then maybe a unit.
    pub(super) fn parse(text: &str) -> Option<Self> {
        const UNITS: [(&str, u32); 7] = [
            ("KiB", 10),
            ("MiB", 20),
            ("GiB", 30),
            ("TiB", 40),
            ("PiB", 50),
            ("EiB", 60),
            ("B", 0),
        ];
        let text = text.trim();
        let with_unit = UNITS.iter().find_map(|&(unit, shift)| {
            let number = text.strip_suffix(unit)?;
            // It is a digit of hexadecimal too.
            let is_digit = unit == "B" && number.starts_with("0x") && !number.ends_with(' ');
            (!is_digit).then(|| (number.trim_end(), shift))
        });
        let (number, shift) = with_unit.unwrap_or((text, 0));
        let (digits, radix) = match number.strip_prefix("0x") {
            Some(digits) => (digits, 16),
            None => (number, 10),
        };
        // `from_str_radix` would take a sign.
        if !digits.starts_with(|c: char| c.is_digit(radix)) {
            return None;
        }
        let value = u64::from_str_radix(&digits.replace('_', ""), radix).ok()?;
        value.checked_mul(1 << shift).map(Self)
    }
}

/// Reads what [`Bytes::parse`] does; what is expected where it cannot stands in it.
struct Reader(&'static str);

impl Visitor<'_> for Reader {
    type Value = u64;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<u64, E> {
        let negative = |_| E::invalid_value(Unexpected::Signed(value), &self);
        u64::try_from(value).map_err(negative)
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        let bytes = Bytes::parse(text).map(|Bytes(value)| value);
        bytes.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected =
            "a number of bytes such as \"256MiB\", \"4 GiB\", \"0x10000000\" or 4096, below 16 EiB";
        deserializer.deserialize_any(Reader(expected)).map(Self)
    }
}

/// An address.
#[derive(Clone, Copy)]
pub(super) struct Address(pub(super) u64);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "an address such as \"0x100000000\" or \"4GiB\", below 16 EiB";
        deserializer.deserialize_any(Reader(expected)).map(Self)
    }
}

/// What a register or some of its bits hold.
#[derive(Clone, Copy)]
pub(super) struct Mask(pub(super) u64);

impl<'de> Deserialize<'de> for Mask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a number such as \"0xff00\" or 255, of 64 bits at most";
        deserializer.deserialize_any(Reader(expected)).map(Self)
    }
}

/// Any whole number: what it may be depends on what has it.
#[derive(Clone, Copy)]
pub(super) struct Number(pub(super) i128);

impl Number {
    /// As what a register holds, unless it is no such number.
    pub(super) fn fits<T: TryFrom<i128>>(self) -> Option<T> {
        T::try_from(self.0).ok()
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Number, E> {
                Ok(Number(value.into()))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number(value.into()))
            }
            fn visit_i128<E: Error>(self, value: i128) -> Result<Number, E> {
                Ok(Number(value))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A table that there is one of. Without this a list would do too, its values in the order of the keys.
pub(super) fn table<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    struct Reader<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("one table, in single brackets")
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }
    deserializer.deserialize_any(Reader(PhantomData))
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
