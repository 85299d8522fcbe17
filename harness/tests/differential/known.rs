//! The list of known differences, and which of them were met.

use serde::Deserialize;

use crate::structures::{DEVICE_DVSEC, Kind};
use crate::{Access, Both};
use cxl_harness::qemu::process;
use cxl_harness::qemu::qtest::Width;

const LIST: &str = include_str!("known.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    difference: Vec<Difference>,
    memory: Vec<Memory>,
}

/// A known difference in what an address leads to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    name: String,
    reason: String,
}

/// One known difference.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    name: String,
    /// Where: names of [`Kind`]s.
    component: Vec<String>,
    /// The dword, without the decoder's number; `*` = any.
    register: String,
    /// Bits that differ, each of which has to be seen to.
    bits: u64,
    when: When,
    /// The first QEMU version that has it.
    #[serde(default)]
    since: Option<Version>,
    /// The first QEMU version that no longer has it.
    #[serde(default)]
    before: Option<Version>,
    /// Which of the two is right, and by what.
    reason: String,
}

/// A QEMU version, `MAJOR.MINOR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
struct Version(u32, u32);

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let numbers = text.split_once('.');
        let parsed = numbers.and_then(|(a, b)| Some(Self(a.parse().ok()?, b.parse().ok()?)));
        parsed.ok_or_else(|| format!("expected MAJOR.MINOR, found \"{text}\""))
    }
}

impl Difference {
    fn is_in(&self, version: Version) -> bool {
        self.since.is_none_or(|since| version >= since)
            && self.before.is_none_or(|before| version < before)
    }

    /// Whether one version has both.
    fn meets(&self, other: &Self) -> bool {
        let ends = |one: &Self, two: &Self| match (one.before, two.since) {
            (Some(before), Some(since)) => before <= since,
            _ => false,
        };
        !ends(self, other) && !ends(other, self)
    }
}

/// The condition under which they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum When {
    /// Whatever happens: a value that each has of its own.
    Always,
    /// A write of a dword to it, or to its neighbours.
    Written,
    /// A read of 1 or 2 bytes.
    NarrowRead,
    /// A read of 8 bytes.
    WideRead,
    /// A write of 8 bytes.
    WideWrite,
    /// A write to a decoder that is committed and locked.
    Locked,
    /// A write while CONFIG_LOCK is set.
    ConfigLocked,
}

/// What was true before an access.
pub(crate) struct Context {
    access: Access,
    locked: bool,
    config_locked: bool,
}

impl Context {
    pub(crate) fn before(both: &mut Both, access: Access) -> Self {
        let place = &both.structures[access.structure];
        let decoder = place.decoder(access.offset);
        let dvsec = place.name == DEVICE_DVSEC;
        let locked = decoder.is_some_and(|(decoder, _)| {
            let control = both.ours(access.structure, 0x20 + 0x20 * decoder, Width::Four);
            control & 0x500 == 0x500
        });
        let config_locked = dvsec && both.ours(access.structure, 0x14, Width::Four) & 1 == 1;
        Self { access, locked, config_locked }
    }

    fn is(&self, when: When) -> bool {
        let Access { width, value, .. } = self.access;
        match when {
            When::Always => true,
            When::Written => value.is_some(),
            When::NarrowRead => value.is_none() && width < Width::Four,
            When::WideRead => value.is_none() && width == Width::Eight,
            When::WideWrite => value.is_some() && width == Width::Eight,
            When::Locked => value.is_some() && self.locked,
            When::ConfigLocked => value.is_some() && self.config_locked,
        }
    }
}

/// The differences of one kind, and the bits of each that were seen.
pub(crate) struct Known(Vec<(Difference, u64)>);

/// What the list does not explain.
pub(crate) struct Rest {
    pub(crate) bits: u64,
    /// All that differs always does.
    pub(crate) constant: bool,
}

impl Known {
    /// Those that the QEMU under test has.
    pub(crate) fn of(kind: Kind) -> Self {
        let (major, minor) = process::available().unwrap_or_else(|error| panic!("{error}"));
        let here = |d: &Difference| {
            d.component.iter().any(|name| name == kind.name()) && d.is_in(Version(major, minor))
        };
        Self(list().difference.into_iter().filter(here).map(|difference| (difference, 0)).collect())
    }

    /// The differing bits of a register that no known difference has.
    pub(crate) fn explain(&mut self, register: &str, bits: u64, context: &Context) -> Rest {
        let register = without_number(register);
        let (mut rest, mut varying) = (bits, bits);
        for (known, seen) in &mut self.0 {
            let here = known.register == "*" || known.register == register;
            if here && context.is(known.when) {
                *seen |= bits & known.bits;
                rest &= !known.bits;
                if known.when == When::Always {
                    varying &= !known.bits;
                }
            }
        }
        Rest { bits: rest, constant: varying == 0 }
    }

    /// Those that were not met, with the bits that were not.
    pub(crate) fn not_met(&self) -> impl Iterator<Item = String> {
        let missing = self.0.iter().filter(|(known, seen)| known.bits != *seen);
        missing.map(|(known, seen)| {
            format!("{} ({}, bits {:#x})", known.name, known.register, known.bits & !seen)
        })
    }
}

fn list() -> List {
    toml::from_str(LIST).unwrap_or_else(|error| panic!("known.toml: {error}"))
}

/// A register's name without the number of its decoder.
pub(crate) fn without_number(register: &str) -> String {
    let mut words: Vec<&str> = register.split(' ').collect();
    if words.first() == Some(&"Decoder") && words.len() > 2 {
        words.remove(1);
    }
    words.join(" ")
}

/// Every entry names kinds that exist, has bits and a reason, and in every QEMU version is the only
/// one for its register and condition.
pub(crate) fn is_well_formed() {
    let differences = list().difference;
    for (index, known) in differences.iter().enumerate() {
        let name = &known.name;
        assert!(!known.component.is_empty(), "{name}: no component");
        assert!(known.bits != 0, "{name}: no bits");
        assert!(known.reason.len() > 40, "{name}: a reason says who is right, and by what");
        let some = known.since.zip(known.before).is_none_or(|(since, before)| since < before);
        assert!(some, "{name}: no version has it");
        for component in &known.component {
            assert!(Kind::ALL.iter().any(|kind| kind.name() == component), "{name}: {component}");
        }
        for other in differences.iter().take(index) {
            let same = (&known.register, known.when) == (&other.register, other.when)
                && known.component.iter().any(|component| other.component.contains(component));
            assert!(
                !same || !known.meets(other),
                "{name}: another has this register and condition"
            );
        }
    }
    let memory = list().memory;
    assert!(memory.iter().all(|known| known.reason.len() > 40));
    let listed: Vec<&str> = memory.iter().map(|known| known.name.as_str()).collect();
    assert_eq!(listed, crate::media::KNOWN.map(|(name, _)| name), "each has a test");
}
