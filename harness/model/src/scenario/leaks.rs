//! Leaks: locks that let a write through, and under which circumstances. Each is a mutant of a
//! model, to see whether whoever attacks locks finds it.
//!
//! A leak says what of which locked dword follows a write, and may say more: only stores of so many
//! bytes, only some values, only while a field somewhere holds or another decoder is in the way,
//! only after a reset, only late. All that it says has to be so at once.
//!
//! **Invariant**: a leak names a lock, a register and fields that its components have, and circumstances
//! that they can be in, so that none is void.

use std::ops::Range;

use cxl_regs::access::{Class, Component, Register, Spec};
use cxl_regs::config::{BridgeHeader, EndpointHeader, PcieCapability};
use cxl_regs::dvsec::device::{DeviceDvsec, DeviceDvsecTail};
use cxl_regs::dvsec::port::PortDvsec;
use cxl_regs::hdm::{GLOBAL_SPECS, GlobalControl};
use cxl_regs::mailbox::Mailbox;
use toml::Spanned;

use super::document::{self, Is, RegisterName};
use super::names::{Names, Result, Source};
use super::values::{Bytes, Number};
use super::{Fault, FaultKind, Place, Problem, RegisterAt, ResetKind};
use crate::words::counted;

/// A lock that lets something through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// Whose lock.
    pub at: Place,
    /// The locked dword that changes.
    pub register: RegisterAt,
    /// Its bits that come through.
    pub bits: u32,
    /// Only by stores of so many bytes.
    pub width: Option<u8>,
    /// Only as this value.
    pub value: Option<LeakValue>,
    /// Only while all of this is so.
    pub when: Vec<LeakWhen>,
    /// A write to this changes the dword: its bits flip. Otherwise a write to the dword itself.
    pub by: Option<LeakBy>,
    /// The dword reads as it was written. If not, it reads as locked, and decode alone follows.
    pub shows: bool,
}

/// A value that leaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeakValue {
    /// Ones in every bit that is written.
    AllOnes,
    /// 0 in every bit that is written.
    Zero,
    /// More than one of the leak's bits changes.
    SeveralBits,
    /// This dword and no other.
    Exactly(u32),
}

/// What has to be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeakWhen {
    /// A field holds something, or 0.
    Field {
        /// Whose.
        of: Place,
        /// Its name.
        name: String,
        /// Not 0.
        on: bool,
    },
    /// A commit of another decoder is under way.
    AnotherCommits,
    /// Another decoder is committed and not locked.
    AnotherCommitted,
    /// Another decoder is committed over the same addresses.
    Overlapped,
    /// The registers are not where the board's firmware put them.
    BarMoved,
    /// The component has been through this reset.
    After(ResetKind),
    /// The machine has taken so many writes.
    Writes(u64),
    /// So much time has gone by.
    Microseconds(u64),
}

/// A register whose writes change another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeakBy {
    /// Whose.
    pub at: Place,
    /// Its name, or [`VENDOR_MEMORY`].
    pub register: String,
}

/// What a scenario calls the memory behind a device's component BAR.
pub const VENDOR_MEMORY: &str = "vendor memory";

/// What a leak depends on beside its own keys.
pub(super) struct Around<'a> {
    /// How many decoders a component has.
    pub(super) decoders: &'a dyn Fn(Place) -> u8,
    /// Whether it is an accelerator, which has memory of its vendor's and no mailbox.
    pub(super) accelerator: &'a dyn Fn(Place) -> bool,
    pub(super) faults: &'a [Fault],
}

/// The leaks of a document.
pub(super) fn leaks(
    source: &Source<'_>,
    names: &Names,
    given: &[document::Leak],
    around: &Around<'_>,
) -> Result<Vec<Leak>> {
    let leak = |given: &document::Leak| {
        let leak = given.leak(source, names, around.decoders)?;
        given.can_happen(source, &leak, around)?;
        Ok(leak)
    };
    given.iter().map(leak).collect()
}

impl document::Leak {
    fn leak(
        &self,
        source: &Source<'_>,
        names: &Names,
        decoders: impl Fn(Place) -> u8,
    ) -> Result<Leak> {
        let at = names.component(source, &self.at)?;
        let register = self.register(source, at, decoders(at))?;
        let bits = match &self.bits {
            None => u32::MAX,
            Some(bits) if bits.get_ref().0 == 0 => {
                return source.out_of_range(bits.span(), "bits", "at least one bit", "0");
            }
            Some(bits) => u32::try_from(bits.get_ref().0).or_else(|_| {
                source.out_of_range(bits.span(), "bits", "at most 0xffffffff", "more")
            })?,
        };
        let width = match &self.width {
            None => None,
            Some(width) => match width.get_ref().fits() {
                Some(fits @ (1 | 2 | 4 | 8)) => Some(fits),
                _ => {
                    let found = width.get_ref();
                    return source.out_of_range(width.span(), "width", "1, 2, 4 or 8", found);
                }
            },
        };
        let decoder = matches!(register, RegisterAt::Decoder { .. });
        if !self.shows && !decoder {
            let because = "decode without registers is a decoder's".to_owned();
            let problem = Problem::UselessKey { key: "shows", because };
            return Err(source.error(self.register.span(), problem));
        }
        Ok(Leak {
            at,
            register,
            bits,
            width,
            value: self.value(source)?,
            when: self.when(source, names, at)?,
            by: self.by(source, names)?,
            shows: self.shows,
        })
    }

    fn register(&self, source: &Source<'_>, at: Place, decoders: u8) -> Result<RegisterAt> {
        let span = self.register.span();
        let refused = |expected| source.out_of_range(span.clone(), "register", expected, "another");
        let name = *self.register.get_ref();
        if let Some(register) = name.of_decoder() {
            let decoder = self.decoder.as_ref().map_or(Number(0), |decoder| *decoder.get_ref());
            if let Some(decoder) = decoder.fits().filter(|&fits: &u8| fits < decoders) {
                return Ok(RegisterAt::Decoder { decoder, register });
            }
            let span = self.decoder.as_ref().map_or(self.at.span(), Spanned::span);
            return source.out_of_range(span, "decoder", "one that the component has", decoder);
        }
        match (name, at, &self.offset) {
            (RegisterName::GlobalControl, ..) => refused("one that a lock covers"),
            (_, Place::Device(_), Some(offset)) if offset.get_ref() % 4 == 0 => {
                Ok(RegisterAt::Dvsec { offset: *offset.get_ref() })
            }
            (_, Place::Device(_), Some(offset)) => {
                let found = offset.get_ref();
                source.out_of_range(offset.span(), "offset", "a multiple of 4", found)
            }
            (_, Place::Device(_), None) => {
                let because = "the Device DVSEC has many dwords".to_owned();
                Err(source.error(span, Problem::MissingKey { key: "offset", because }))
            }
            _ => refused("a register of a decoder, as the component has no Device DVSEC"),
        }
    }

    fn value(&self, source: &Source<'_>) -> Result<Option<LeakValue>> {
        let Some(value) = &self.value else { return Ok(None) };
        Ok(Some(match value.get_ref().as_str() {
            "all-ones" => LeakValue::AllOnes,
            "zero" => LeakValue::Zero,
            "several-bits" => LeakValue::SeveralBits,
            other => match Bytes::parse(other).and_then(|Bytes(n)| u32::try_from(n).ok()) {
                Some(value) => LeakValue::Exactly(value),
                None => {
                    let expected = "all-ones, zero, several-bits or a dword";
                    return source.out_of_range(value.span(), "value", expected, other);
                }
            },
        }))
    }

    fn when(&self, source: &Source<'_>, names: &Names, at: Place) -> Result<Vec<LeakWhen>> {
        let mut list = Vec::new();
        if let Some(when) = &self.when {
            list.push(match when.get_ref().as_str() {
                "another-commits" => LeakWhen::AnotherCommits,
                "another-committed" => LeakWhen::AnotherCommitted,
                "overlapped" => LeakWhen::Overlapped,
                "bar-moved" => LeakWhen::BarMoved,
                name => {
                    let of = match &self.of {
                        Some(of) => names.component(source, of)?,
                        None => at,
                    };
                    if !fields(of).any(|known| known == name) {
                        let expected = "another-commits, another-committed, overlapped, \
                                        bar-moved, or a field of the component";
                        return source.out_of_range(when.span(), "while", expected, name);
                    }
                    let Some(is) = &self.is else {
                        let because = "a field is on or off".to_owned();
                        let problem = Problem::MissingKey { key: "is", because };
                        return Err(source.error(when.span(), problem));
                    };
                    let on = matches!(is.get_ref(), Is::On);
                    LeakWhen::Field { of, name: name.to_owned(), on }
                }
            });
        }
        let field = matches!(list.first(), Some(LeakWhen::Field { .. }));
        let idle = [("of", self.of.as_ref().map(Spanned::span))];
        let idle = idle.into_iter().chain([("is", self.is.as_ref().map(Spanned::span))]);
        for (key, span) in idle {
            if let (Some(span), false) = (span, field) {
                let because = "`while` names no field".to_owned();
                return Err(source.error(span, Problem::UselessKey { key, because }));
            }
        }
        list.extend(self.after.map(LeakWhen::After));
        list.extend(self.writes.map(LeakWhen::Writes));
        list.extend(self.microseconds.map(LeakWhen::Microseconds));
        Ok(list)
    }

    /// Refuses what never comes through on this machine, whatever anybody writes to it: an attack that does not
    /// find it has missed nothing.
    fn can_happen(&self, source: &Source<'_>, leak: &Leak, around: &Around<'_>) -> Result<()> {
        let at = self.at.get_ref();
        let never = |span: Range<usize>, key, because: String| {
            Err(source.error(span, Problem::UselessKey { key, because }))
        };
        if let Some(value) = &self.value {
            match (leak.value, leak.width) {
                (Some(LeakValue::SeveralBits), _) if leak.bits.count_ones() < 2 => {
                    let because = "of one bit never several change".to_owned();
                    return never(value.span(), "value", because);
                }
                (Some(LeakValue::Exactly(_)), Some(width @ (1 | 2))) => {
                    let bytes = counted(width, "byte");
                    let because = format!("a store of {bytes} never writes a whole dword");
                    return never(value.span(), "value", because);
                }
                _ => {}
            }
        }
        let own = match leak.register {
            RegisterAt::Decoder { decoder, .. } => Some(decoder),
            _ => None,
        };
        let others = (around.decoders)(leak.at).saturating_sub(own.is_some().into());
        let others_commit_late = around.faults.iter().any(|fault| match fault.kind {
            FaultKind::CommitPolls { decoder, polls } => {
                fault.at == leak.at && Some(decoder) != own && polls > 0
            }
            FaultKind::CommitNever { decoder } => fault.at == leak.at && Some(decoder) != own,
            _ => false,
        });
        for when in &leak.when {
            let span = || self.when.as_ref().map_or(self.register.span(), Spanned::span);
            let because = match when {
                LeakWhen::AnotherCommits | LeakWhen::AnotherCommitted | LeakWhen::Overlapped
                    if others == 0 =>
                {
                    format!("{at} has no other decoder")
                }
                LeakWhen::AnotherCommits if !others_commit_late => format!(
                    "commits of {at} take no time, unless a fault (commit-polls, commit-never) of \
                     another decoder says so"
                ),
                LeakWhen::Overlapped if own.is_none() => {
                    "no decoder lies over a register of the Device DVSEC".to_owned()
                }
                LeakWhen::BarMoved if matches!(leak.at, Place::Bridge(_)) => {
                    format!("{at} is a host bridge, whose registers are behind no BAR")
                }
                LeakWhen::Field { of, name, on: true } if reads_0(*of, name) => {
                    format!("{name} always reads 0 there")
                }
                LeakWhen::After(kind @ (ResetKind::Cxl | ResetKind::Flr))
                    if !matches!(leak.at, Place::Device(_)) =>
                {
                    let because = format!("{at} is no device, and goes through no {kind}");
                    return never(self.register.span(), "after", because);
                }
                _ => continue,
            };
            return never(span(), "while", because);
        }
        if let (Some(by), Some(given)) = (&leak.by, &self.by_register) {
            let accelerator = (around.accelerator)(by.at);
            let mailbox = Mailbox::REGISTERS.iter().any(|spec| spec.name == by.register);
            let config = registers(by.at).any(|spec| spec.name == by.register);
            let because = match () {
                () if accelerator && mailbox && !config => "an accelerator has no mailbox",
                () if !accelerator && by.register == VENDOR_MEMORY => {
                    "only an accelerator has memory of its vendor's"
                }
                () => return Ok(()),
            };
            return never(given.span(), "by_register", because.to_owned());
        }
        Ok(())
    }

    fn by(&self, source: &Source<'_>, names: &Names) -> Result<Option<LeakBy>> {
        let missing = |span, key| {
            let because = "a register elsewhere is named by component and register".to_owned();
            Err(source.error(span, Problem::MissingKey { key, because }))
        };
        match (&self.by, &self.by_register) {
            (None, None) => Ok(None),
            (Some(by), None) => missing(by.span(), "by_register"),
            (None, Some(register)) => missing(register.span(), "by"),
            (Some(by), Some(register)) => {
                let (at, name) = (names.component(source, by)?, register.get_ref());
                let device = matches!(at, Place::Device(_));
                let mailbox = Mailbox::REGISTERS.iter().filter(|_| device);
                let known = registers(at).chain(mailbox).any(|spec| spec.name == name);
                if known || device && name == VENDOR_MEMORY {
                    return Ok(Some(LeakBy { at, register: name.clone() }));
                }
                let expected = "a register of the component, or vendor memory of a device";
                source.out_of_range(register.span(), "by_register", expected, name)
            }
        }
    }
}

/// The registers of a component by name, beside its decoders.
pub(super) fn registers(at: Place) -> impl Iterator<Item = &'static Spec> {
    let lists: &[&'static [Spec]] = match at {
        Place::Bridge(_) => &[&GLOBAL_SPECS],
        Place::Port(_) => {
            &[BridgeHeader::REGISTERS, PcieCapability::REGISTERS, PortDvsec::REGISTERS]
        }
        Place::Switch(_) => &[&GLOBAL_SPECS, BridgeHeader::REGISTERS, PcieCapability::REGISTERS],
        Place::Device(_) => &[
            &GLOBAL_SPECS,
            EndpointHeader::REGISTERS,
            PcieCapability::REGISTERS,
            DeviceDvsec::REGISTERS,
            DeviceDvsecTail::REGISTERS,
        ],
    };
    lists.iter().flat_map(|list| list.iter())
}

/// Whether no component of this kind ever holds anything but 0 in a field.
fn reads_0(at: Place, name: &str) -> bool {
    let component = match at {
        Place::Device(_) => Component::Device,
        Place::Bridge(_) => Component::HostBridge,
        Place::Port(_) | Place::Switch(_) => Component::UpstreamPort,
    };
    let all = registers(at).flat_map(|spec| spec.fields.iter().map(move |field| (spec, field)));
    let mut fields = all.filter(|(_, field)| field.name == name);
    fields.all(|(spec, field)| match field.rule(component).class {
        Class::Reserved | Class::Trigger => true,
        // Global Control begins as 0, and what is read-only in it stays so.
        Class::Ro => spec.name == GlobalControl::SPEC.name,
        _ => false,
    })
}

/// The fields of those registers by name.
fn fields(at: Place) -> impl Iterator<Item = &'static str> {
    registers(at).flat_map(|spec| spec.fields.iter().map(|field| field.name))
}
