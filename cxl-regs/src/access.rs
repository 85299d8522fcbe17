//! Access classes as data: which bits of which register software can change, and when.
//!
//! Every register names its fields once, each beside its bits, as a [`Field`]. Models take their
//! write behaviour from these tables; tests judge the tables against masks typed by hand.
//!
//! **Invariant**: bits that no field names are reserved: they read 0 and writes to them are lost.

/// The kind of component a register sits in. The same HDM structure has other rules in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// An endpoint: Type 2 or Type 3 device.
    Device,
    /// A host bridge of a CXL 2.0+ hierarchy.
    HostBridge,
    /// The upstream port of a switch.
    UpstreamPort,
}

impl Component {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Device, Self::HostBridge, Self::UpstreamPort];

    /// Whether its decoders route to downstream ports instead of translating to a DPA.
    pub const fn routes(self) -> bool {
        !matches!(self, Self::Device)
    }
}

impl core::fmt::Display for Component {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::HostBridge => "host bridge",
            Self::UpstreamPort => "upstream port",
        })
    }
}

/// What a write does to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Reserved: reads 0.
    Reserved,
    /// Read-only: constants and status that hardware sets.
    Ro,
    /// Read-write.
    Rw,
    /// Read-write, sticky: survives a hot reset.
    Rws,
    /// Read-write until the structure is locked, then read-only.
    Rwl,
    /// Write once: read-write until it holds 1, then read-only.
    Rwo,
    /// Write 1 to clear.
    Rw1c,
    /// Write 1 to clear, sticky: survives a hot reset.
    Rw1cs,
    /// Writing 1 starts something; always reads 0.
    Trigger,
}

impl Class {
    /// Whether software can set or clear the bits in some state.
    pub const fn writable(self) -> bool {
        !matches!(self, Self::Reserved | Self::Ro)
    }

    /// The field's value after `new` is written over `old`, for the bits of `mask`.
    const fn write(self, mask: u32, old: u32, new: u32, locked: bool) -> u32 {
        let kept = match self {
            Self::Reserved | Self::Trigger => 0,
            Self::Ro => old,
            Self::Rw | Self::Rws => new,
            Self::Rwl => {
                if locked {
                    old
                } else {
                    new
                }
            }
            Self::Rwo => old | new,
            Self::Rw1c | Self::Rw1cs => old & !new,
        };
        kept & mask
    }
}

/// An optional feature that some fields exist only with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feature {
    /// Poison on decode error (HDM capability bit 10).
    Poison,
    /// Back-invalidate (a BI decoder or route table is present).
    BackInvalidate,
    /// Unordered I/O (HDM capability bit 13).
    Uio,
    /// Cache write-back and invalidate (Device DVSEC capability bit 6).
    CacheWriteBack,
    /// CXL Reset (Device DVSEC capability bit 7).
    CxlReset,
    /// Volatile memory's fate in a hot reset can be chosen (Device DVSEC capability3 bit 3).
    HotResetState,
    /// Direct peer-to-peer CXL.mem (Device DVSEC capability3 bit 4).
    DirectP2p,
    /// Modified completions (Device DVSEC capability2 bit 6).
    ModifiedCompletion,
    /// Explicit commit (BI and Cache ID structures).
    ExplicitCommit,
}

/// The optional features a component has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features(u16);

impl Features {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self(u16::MAX);

    /// These and one more.
    pub const fn with(self, feature: Feature) -> Self {
        Self(self.0 | 1 << feature as u16)
    }

    /// Whether the feature is there.
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & 1 << feature as u16 != 0
    }
}

/// A field's rule in one kind of component: its class, and the feature it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The access class.
    pub class: Class,
    /// Reserved unless the component has this feature.
    pub needs: Option<Feature>,
}

impl Rule {
    /// A rule that always holds.
    pub const fn always(class: Class) -> Self {
        Self { class, needs: None }
    }

    /// A rule that holds with a feature; without it the field is reserved.
    pub const fn with(class: Class, feature: Feature) -> Self {
        Self { class, needs: Some(feature) }
    }

    /// The class in a component with these features.
    pub const fn class(self, features: Features) -> Class {
        match self.needs {
            Some(feature) if !features.has(feature) => Class::Reserved,
            _ => self.class,
        }
    }
}

/// One field of a register: its name, its place, and its rule in each kind of component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The specification's name of the field.
    pub name: &'static str,
    /// Lowest bit.
    pub offset: u8,
    /// Number of bits.
    pub bits: u8,
    /// Rule in a device.
    pub device: Rule,
    /// Rule in a host bridge.
    pub host_bridge: Rule,
    /// Rule in a switch upstream port.
    pub upstream_port: Rule,
}

impl Field {
    /// A field with one rule in all components.
    pub const fn new(name: &'static str, offset: usize, bits: usize, rule: Rule) -> Self {
        Self::each(name, offset, bits, rule, rule, rule)
    }

    /// A field with a rule for devices and another for host bridges and upstream ports.
    pub const fn split(
        name: &'static str,
        offset: usize,
        bits: usize,
        device: Rule,
        ports: Rule,
    ) -> Self {
        Self::each(name, offset, bits, device, ports, ports)
    }

    /// A field with a rule for each kind of component.
    pub const fn each(
        name: &'static str,
        offset: usize,
        bits: usize,
        device: Rule,
        host_bridge: Rule,
        upstream_port: Rule,
    ) -> Self {
        assert!(bits > 0 && offset + bits <= 32);
        Self { name, offset: offset as u8, bits: bits as u8, device, host_bridge, upstream_port }
    }

    /// The bits of the field, in place.
    pub const fn mask(&self) -> u32 {
        (u32::MAX >> (32 - self.bits)) << self.offset
    }

    /// The field's value out of a register value.
    pub const fn get(&self, register: u32) -> u32 {
        (register & self.mask()) >> self.offset
    }

    /// The rule in one kind of component.
    pub const fn rule(&self, component: Component) -> Rule {
        match component {
            Component::Device => self.device,
            Component::HostBridge => self.host_bridge,
            Component::UpstreamPort => self.upstream_port,
        }
    }
}

/// A register's place, width and fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The specification's name of the register.
    pub name: &'static str,
    /// Byte offset in the structure it belongs to.
    pub offset: u16,
    /// Width in bytes: 1, 2 or 4.
    pub bytes: u8,
    /// The fields that are not reserved.
    pub fields: &'static [Field],
}

impl Spec {
    /// The same register under another name.
    pub const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// The same register `by` bytes further on: another instance of it.
    pub const fn moved(self, by: u16) -> Self {
        Self { offset: self.offset + by, ..self }
    }

    /// The register's value after `new` is written over `old`.
    ///
    /// `locked` is the state of the lock that governs the structure: the decoder's own for an HDM
    /// decoder, CONFIG_LOCK for the Device DVSEC. Reserved bits come out 0.
    pub fn write(
        &self,
        component: Component,
        features: Features,
        locked: bool,
        old: u32,
        new: u32,
    ) -> u32 {
        self.fields.iter().fold(0, |value, field| {
            let class = field.rule(component).class(features);
            value | class.write(field.mask(), old, new, locked)
        })
    }

    /// All bits of fields with a class that `wanted` accepts.
    pub fn mask_of(
        &self,
        component: Component,
        features: Features,
        wanted: impl Fn(Class) -> bool,
    ) -> u32 {
        self.fields
            .iter()
            .filter(|field| wanted(field.rule(component).class(features)))
            .fold(0, |mask, field| mask | field.mask())
    }

    /// The bits that a write can change while nothing is locked.
    pub fn write_mask(&self, component: Component, features: Features) -> u32 {
        self.mask_of(component, features, Class::writable)
    }
}

/// A register type: what the bits of one register mean, and where it sits in its structure.
///
/// Implementors are bitfield types that can hold any value, legal or not.
pub trait Register: Copy + PartialEq + core::fmt::Debug {
    /// Name, offset, width and fields.
    const SPEC: Spec;
    /// Any bit pattern as a register value; registers narrower than a dword use the low bits.
    fn from_raw(raw: u32) -> Self;
    /// The bit pattern.
    fn raw(self) -> u32;
}

/// A register type with its bits and its [`Spec`], each fact spelled once: the structure's offset,
/// then a row a field: type and width as of `bitfield-struct`, name, rule. Two rules are a device's
/// and a port's; three a device's, a host bridge's and an upstream port's. A row `__` without a
/// name is reserved.
macro_rules! register {
    (
        $(#[$doc:meta])*
        $type:ident: $repr:ident, $title:literal at $offset:tt {
            $(
                $(#[$field_doc:meta])*
                $field:ident: $as:ident $([$bits:tt])? $(, $name:literal $(, $rule:expr)+)?;
            )+
        }
    ) => {
        $(#[$doc])*
        #[bitfield_struct::bitfield($repr)]
        #[derive(PartialEq, Eq)]
        pub struct $type {
            $($(#[$field_doc])* $(#[bits($bits)])? pub $field: $as,)+
        }

        impl $crate::access::Register for $type {
            const SPEC: $crate::access::Spec = {
                const ROWS: &[$crate::access::FieldRow] = &[$((
                    $crate::access::width!($as $($bits)?),
                    &[$(($name, &[$($rule),+]))?],
                ),)+];
                $crate::access::Spec {
                    name: $title,
                    offset: $offset as u16,
                    bytes: size_of::<$repr>() as u8,
                    fields: &$crate::access::fields::<{ $crate::access::named(ROWS) }>(ROWS),
                }
            };
            fn from_raw(raw: u32) -> Self {
                Self::from_bits(raw as $repr)
            }
            fn raw(self) -> u32 {
                u32::from(self.into_bits())
            }
        }
    };
}

/// The width of a field: as given, or all of its type.
macro_rules! width {
    (bool) => {
        1
    };
    ($as:ident) => {
        $as::BITS as usize
    };
    ($as:ident $bits:literal) => {
        $bits
    };
}

pub(crate) use {register, width};

/// A row of [`register`]: the width, then name and rules unless it is reserved.
pub(crate) type FieldRow = (usize, &'static [(&'static str, &'static [Rule])]);

/// How many rows have a name.
pub(crate) const fn named(rows: &[FieldRow]) -> usize {
    let (mut count, mut index) = (0, 0);
    while index < rows.len() {
        count += rows[index].1.len();
        index += 1;
    }
    count
}

/// The fields out of rows, each in its place above the rows before it.
pub(crate) const fn fields<const NAMED: usize>(rows: &[FieldRow]) -> [Field; NAMED] {
    let mut fields = [Field::new("", 0, 1, rules::RESERVED); NAMED];
    let (mut offset, mut count, mut index) = (0, 0, 0);
    while index < rows.len() {
        let (bits, name) = rows[index];
        if let [(name, rules)] = *name {
            fields[count] = match *rules {
                [all] => Field::new(name, offset, bits, all),
                [device, ports] => Field::split(name, offset, bits, device, ports),
                [device, bridge, upstream] => {
                    Field::each(name, offset, bits, device, bridge, upstream)
                }
                _ => panic!("one rule, or one for devices and one for ports, or three"),
            };
            count += 1;
        }
        offset += bits;
        index += 1;
    }
    fields
}

/// Short names for the rules that tables use.
pub(crate) mod rules {
    use super::{Class, Rule};

    pub(crate) const RO: Rule = Rule::always(Class::Ro);
    pub(crate) const RW: Rule = Rule::always(Class::Rw);
    pub(crate) const RWL: Rule = Rule::always(Class::Rwl);
    pub(crate) const RWS: Rule = Rule::always(Class::Rws);
    pub(crate) const RWO: Rule = Rule::always(Class::Rwo);
    pub(crate) const RW1C: Rule = Rule::always(Class::Rw1c);
    pub(crate) const RW1CS: Rule = Rule::always(Class::Rw1cs);
    pub(crate) const TRIGGER: Rule = Rule::always(Class::Trigger);
    pub(crate) const RESERVED: Rule = Rule::always(Class::Reserved);
}
