//! Faults: which keys each kind wants, and that it has no others.
//!
//! **Invariant**: a fault names a decoder and a register that its component has.

use toml::Spanned;

use super::document::{self, FaultName};
use super::names::{Names, Result, Source};
use super::values::{Mask, Number};
use super::{
    Bridge, DecoderRegister, Device, Fault, FaultKind, Place, Problem, RegisterAt, Switch,
};

pub(super) fn faults(
    source: &Source<'_>,
    names: &Names,
    given: &[document::Fault],
    bridges: &[Bridge],
    switches: &[Switch],
    devices: &[Device],
) -> Result<Vec<Fault>> {
    let decoders_of = |place| match place {
        Place::Bridge(index) => bridges.get(index).map_or(0, |bridge| bridge.decoders),
        Place::Switch(index) => switches.get(index).map_or(0, |switch| switch.decoders),
        Place::Device(index) => devices.get(index).map_or(0, |device| device.decoders),
        Place::Port(_) => 0,
    };
    let fault = |given: &document::Fault| {
        let at = names.component(source, &given.at)?;
        let keys = FaultKeys { source, given, decoders: decoders_of(at) };
        let kind = keys.kind()?;
        if matches!(kind, FaultKind::Wraps { .. }) && !matches!(at, Place::Device(_)) {
            let found = given.at.get_ref();
            return source.out_of_range(given.at.span(), "at", "a device, which has memory", found);
        }
        Ok(Fault { at, kind })
    };
    given.iter().map(fault).collect()
}

/// The keys of one fault, of which each kind wants some and no others.
struct FaultKeys<'d> {
    source: &'d Source<'d>,
    given: &'d document::Fault,
    decoders: u8,
}

impl FaultKeys<'_> {
    fn kind(&self) -> Result<FaultKind> {
        let given = self.given;
        let (kind, wanted): (FaultKind, &[&str]) = match given.kind.get_ref() {
            FaultName::CommitPolls => (
                FaultKind::CommitPolls {
                    decoder: self.decoder()?,
                    polls: self.need("after", &given.after)?,
                },
                &["decoder", "after"],
            ),
            FaultName::CommitNever => {
                (FaultKind::CommitNever { decoder: self.decoder()? }, &["decoder"])
            }
            FaultName::CommitError => {
                (FaultKind::CommitError { decoder: self.decoder()? }, &["decoder"])
            }
            FaultName::LockNotEnforced => {
                (FaultKind::LockNotEnforced { decoder: self.decoder()? }, &["decoder"])
            }
            FaultName::LockLost => (
                FaultKind::LockLost { decoder: self.decoder()?, reads: self.after() },
                &["decoder", "after"],
            ),
            FaultName::AllOnesAfter => (
                FaultKind::AllOnesAfter { accesses: self.need("after", &given.after)? },
                &["after"],
            ),
            FaultName::DroppedWrite => (
                FaultKind::DroppedWrite { register: self.register()?, after: self.after() },
                &["decoder", "register", "offset", "after"],
            ),
            FaultName::StuckBit => (
                FaultKind::StuckBit { register: self.register()?, bits: self.bits()? },
                &["decoder", "register", "offset", "bits"],
            ),
            FaultName::LeaksField => (
                FaultKind::LeaksField { register: self.register()?, bits: self.bits()? },
                &["decoder", "register", "offset", "bits"],
            ),
            FaultName::LeaksInto => (
                FaultKind::LeaksInto {
                    decoder: self.decoder()?,
                    register: self.decoder_register()?,
                    bits: self.bits()?,
                    into: self.existing("into", self.need("into", &given.into)?)?,
                },
                &["decoder", "register", "bits", "into"],
            ),
            FaultName::Unrouted => (FaultKind::Unrouted, &[]),
            FaultName::Wraps => (FaultKind::Wraps { bits: self.bits()? }, &["bits"]),
        };
        self.nothing_but(wanted)?;
        Ok(kind)
    }

    /// How often all is well first: never, unless the fault says so.
    fn after(&self) -> u32 {
        self.given.after.as_ref().map_or(0, |after| *after.get_ref())
    }

    fn need<T: Copy>(&self, key: &'static str, value: &Option<Spanned<T>>) -> Result<T> {
        match value {
            Some(value) => Ok(*value.get_ref()),
            None => {
                let because = "this kind of fault needs it".to_owned();
                let problem = Problem::MissingKey { key, because };
                Err(self.source.error(self.given.kind.span(), problem))
            }
        }
    }

    fn nothing_but(&self, wanted: &[&str]) -> Result<()> {
        let given = self.given;
        let present = [
            ("decoder", given.decoder.as_ref().map(Spanned::span)),
            ("register", given.register.as_ref().map(Spanned::span)),
            ("offset", given.offset.as_ref().map(Spanned::span)),
            ("bits", given.bits.as_ref().map(Spanned::span)),
            ("after", given.after.as_ref().map(Spanned::span)),
            ("into", given.into.as_ref().map(Spanned::span)),
        ];
        for (key, span) in present {
            if let (Some(span), false) = (span, wanted.contains(&key)) {
                let because = "this kind of fault has no use for it".to_owned();
                return Err(self.source.error(span, Problem::UselessKey { key, because }));
            }
        }
        Ok(())
    }

    /// The decoder, 0 unless given; it has to be there.
    fn decoder(&self) -> Result<u8> {
        let decoder = self.given.decoder.as_ref().map_or(Number(0), |decoder| *decoder.get_ref());
        self.existing("decoder", decoder)
    }

    /// A decoder that a key names, if it is there.
    fn existing(&self, key: &'static str, decoder: Number) -> Result<u8> {
        if let Some(decoder) = decoder.fits().filter(|&fits: &u8| fits < self.decoders) {
            return Ok(decoder);
        }
        let given = if key == "into" { &self.given.into } else { &self.given.decoder };
        let span = given.as_ref().map_or(self.given.at.span(), Spanned::span);
        self.source.out_of_range(span, key, "a decoder that the component has", decoder)
    }

    fn decoder_register(&self) -> Result<DecoderRegister> {
        let name = self.need("register", &self.given.register)?;
        match name.of_decoder() {
            Some(register) => Ok(register),
            None => {
                let span = self.given.register.as_ref().map_or(0..0, Spanned::span);
                self.source.out_of_range(span, "register", "a register of a decoder", "another")
            }
        }
    }

    fn register(&self) -> Result<RegisterAt> {
        use document::RegisterName as Name;
        Ok(match self.need("register", &self.given.register)? {
            Name::GlobalControl => RegisterAt::GlobalControl,
            Name::Dvsec => {
                let offset = self.need("offset", &self.given.offset)?;
                if offset % 4 != 0 {
                    let span = self.given.offset.as_ref().map_or(0..0, Spanned::span);
                    return self.source.out_of_range(span, "offset", "a multiple of 4", offset);
                }
                RegisterAt::Dvsec { offset }
            }
            name => match name.of_decoder() {
                Some(register) => RegisterAt::Decoder { decoder: self.decoder()?, register },
                None => RegisterAt::GlobalControl,
            },
        })
    }

    fn bits(&self) -> Result<u32> {
        let Mask(bits) = self.need("bits", &self.given.bits)?;
        if bits == 0 {
            let span = self.given.bits.as_ref().map_or(0..0, Spanned::span);
            return self.source.out_of_range(span, "bits", "at least one bit", "0");
        }
        u32::try_from(bits).or_else(|_| {
            let span = self.given.bits.as_ref().map_or(0..0, Spanned::span);
            self.source.out_of_range(span, "bits", "at most 0xffffffff", format!("{bits:#x}"))
        })
    }
}
