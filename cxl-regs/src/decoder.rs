//! One HDM decoder's legal meaning: [`Decoder`], with `decode` from and `encode` to raw dwords.
//!
//! **Invariant**: a [`Decoder`] that came out of [`Decoder::decode`] breaks no rule that the
//! specification puts on a single decoder of its component; [`Decoder::encode`] refuses what would.
//! Rules between decoders (order, overlap, DPA) belong to those who see more than one.

use core::fmt;

use crate::access::Component;
use crate::addr::{DECODER_UNIT, Hpa, Span, SpanError};
use crate::hdm::{Capability, Control, DecoderImage};
use crate::interleave::{
    Granularity, Interleave, NotDecodable, ReservedGranularity, ReservedWays, Ways,
};

/// Who keeps the range coherent: Target Range Type and BI together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Coherency {
    /// HDM-H: the host alone; ordinary Type 3 memory.
    HostOnly,
    /// HDM-D: the device, through CXL.cache; Type 2 memory.
    Device,
    /// HDM-DB: the device, through back-invalidate.
    BackInvalidate,
}

impl fmt::Display for Coherency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostOnly => "host-only coherent (HDM-H)",
            Self::Device => "device-coherent (HDM-D)",
            Self::BackInvalidate => "device-coherent with back-invalidate (HDM-DB)",
        })
    }
}

/// The ports that a host bridge's or switch's decoder forwards to, by PCIe Port Number, way 0
/// first. All eight bytes are kept; those beyond the ways take no part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Targets(pub [u8; 8]);

impl Targets {
    /// A list of the given port numbers, the rest 0; `None` for more than eight.
    pub fn new(ports: &[u8]) -> Option<Self> {
        let mut list = [0; 8];
        list.get_mut(..ports.len())?.copy_from_slice(ports);
        Some(Self(list))
    }

    /// The entries that a decoder of these ways uses.
    pub fn used(&self, ways: Ways) -> &[u8] {
        let count = (ways.count() as usize).min(self.0.len());
        self.0.split_at(count).0
    }
}

/// Where a decoder leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Host bridge or upstream port: on to one of these ports, address unchanged.
    Targets(Targets),
    /// Device: into its own memory, this many bytes of DPA behind the decoder before.
    Skip(u64),
}

/// What one decoder is set to do. Lock, commit and status are states of the hardware and not part
/// of it: see [`Control`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decoder {
    /// The host addresses it claims: the whole region, all ways of it.
    pub span: Span,
    /// A device: the whole set's. A port: this level's own.
    pub interleave: Interleave,
    /// Who keeps the range coherent.
    pub coherency: Coherency,
    /// UIO, with its own interleave. In a device it has none: [`Interleave::NONE`].
    pub uio: Option<Interleave>,
    /// ISP, the position in the interleave set; 0 where the component has no such field.
    pub set_position: u8,
    /// Where it leads.
    pub route: Route,
}

/// The rule that a decoder breaks. One variant a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The base has bits below 256 MiB.
    BaseUnaligned {
        /// The base.
        base: u64,
    },
    /// The size has bits below 256 MiB.
    SizeUnaligned {
        /// The size.
        size: u64,
    },
    /// The DPA skip has bits below 256 MiB.
    SkipUnaligned {
        /// The skip.
        skip: u64,
    },
    /// The size is zero: legal to commit, but it decodes nothing.
    ZeroSize {
        /// The base beside it.
        base: u64,
    },
    /// Base and size pass the end of the address space.
    Wraps {
        /// The base.
        base: u64,
        /// The size.
        size: u64,
    },
    /// IW holds a reserved code.
    ReservedWays(ReservedWays),
    /// IG holds a reserved code.
    ReservedGranularity(ReservedGranularity),
    /// UIW holds a reserved code.
    ReservedUioWays(ReservedWays),
    /// UIG holds a reserved code.
    ReservedUioGranularity(ReservedGranularity),
    /// A host bridge or upstream port interleaves 1, 2, 4 or 8 ways only.
    WaysNotAllowed {
        /// The kind of component.
        component: Component,
        /// The ways.
        ways: Ways,
    },
    /// The device does not advertise this way count.
    WaysNotSupported {
        /// The ways.
        ways: Ways,
    },
    /// The ways need more targets than the component has.
    TooFewTargets {
        /// The ways.
        ways: Ways,
        /// The Target Count of its capability register.
        have: u8,
    },
    /// The selector bits lie above HPA bit 14.
    NotDecodable(NotDecodable),
    /// The component cannot select on all of these bits.
    SelectorNotSupported {
        /// Bits the interleave needs.
        need: u64,
        /// Bits the component has.
        have: u64,
    },
    /// The size is not a multiple of 256 MiB for each way.
    SizeNotDivisible {
        /// The size.
        size: u64,
        /// The ways.
        ways: Ways,
    },
    /// Two ways lead to one port.
    DuplicateTarget {
        /// The port number.
        port: u8,
        /// The first way that names it.
        first: u8,
        /// The second.
        second: u8,
    },
    /// BI set on a host-only range.
    BackInvalidateHostOnly,
    /// The device's capability register rules this range type out.
    CoherencyNotSupported {
        /// The range type.
        coherency: Coherency,
        /// Its Supported Coherency Models: 1 device-coherent only, 2 host-only only.
        models: u8,
    },
    /// The set position needs more bits than ISP has. Typed values only.
    SetPositionTooLarge {
        /// The position.
        position: u8,
    },
    /// A target list where a skip belongs, or the other way round.
    WrongRoute {
        /// The kind of component.
        component: Component,
    },
    /// A reserved bit of the control register is set, or a field that this kind of component does
    /// not have.
    ReservedControlBits {
        /// The bits.
        bits: u32,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BaseUnaligned { base } => write!(f, "base {base:#x} is not 256 MiB aligned"),
            Self::SizeUnaligned { size } => {
                write!(f, "size {size:#x} is not a multiple of 256 MiB")
            }
            Self::SkipUnaligned { skip } => {
                write!(f, "DPA skip {skip:#x} is not a multiple of 256 MiB")
            }
            Self::ZeroSize { base } => write!(f, "size is 0 (base {base:#x}): decodes nothing"),
            Self::Wraps { base, size } => SpanError::Wraps { base, size }.fmt(f),
            Self::ReservedWays(error) => error.fmt(f),
            Self::ReservedGranularity(error) => error.fmt(f),
            Self::ReservedUioWays(error) => write!(f, "UIO: {error}"),
            Self::ReservedUioGranularity(error) => write!(f, "UIO: {error}"),
            Self::WaysNotAllowed { component, ways } => {
                write!(f, "{ways} ways on the {component}, which can do 1, 2, 4 or 8")
            }
            Self::WaysNotSupported { ways } => {
                write!(f, "{ways} ways on a device that does not advertise them")
            }
            Self::TooFewTargets { ways, have } => {
                write!(f, "{ways} ways on a component with {have} targets a decoder")
            }
            Self::NotDecodable(error) => error.fmt(f),
            Self::SelectorNotSupported { need, have } => {
                write!(f, "interleave selects on HPA bits {need:#x}, the component on {have:#x}")
            }
            Self::SizeNotDivisible { size, ways } => {
                write!(f, "size {size:#x} is not a multiple of 256 MiB x {ways} ways")
            }
            Self::DuplicateTarget { port, first, second } => {
                write!(f, "ways {first} and {second} both lead to port {port:#04x}")
            }
            Self::BackInvalidateHostOnly => {
                f.write_str("BI is set on a host-only coherent range (type 1)")
            }
            Self::CoherencyNotSupported { coherency, models } => {
                write!(f, "{coherency} on a device that supports coherency models {models}")
            }
            Self::SetPositionTooLarge { position } => {
                write!(f, "set position {position} does not fit a field of 4 bits")
            }
            Self::WrongRoute { component } => write!(
                f,
                "the {component}'s decoder has a {}",
                if component.routes() {
                    "target list, not a DPA skip"
                } else {
                    "DPA skip, not a target list"
                }
            ),
            Self::ReservedControlBits { bits } => {
                write!(f, "control has reserved bits {bits:#010x} set")
            }
        }
    }
}

impl core::error::Error for DecodeError {}

impl Decoder {
    /// The legal meaning of raw dwords, or the first rule they break.
    ///
    /// Lock, commit and status bits may hold anything. `capability` is the component's own.
    #[inline(never)]
    pub fn decode(
        image: &DecoderImage,
        component: Component,
        capability: Capability,
    ) -> Result<Self, DecodeError> {
        // With the low bits: `check` refuses them.
        let (base, size) = (Hpa(image.raw_base()), image.raw_size());
        let span = Span::new(base, size).map_err(|error| match error {
            SpanError::Empty { base } => DecodeError::ZeroSize { base },
            SpanError::Wraps { base, size } => DecodeError::Wraps { base, size },
        })?;
        let control = image.control();
        let interleave = Interleave {
            ways: Ways::decode(control.ways()).map_err(DecodeError::ReservedWays)?,
            granularity: Granularity::decode(control.granularity())
                .map_err(DecodeError::ReservedGranularity)?,
        };
        let coherency = match (control.host_only(), control.back_invalidate()) {
            (true, false) => Coherency::HostOnly,
            (false, false) => Coherency::Device,
            (false, true) => Coherency::BackInvalidate,
            (true, true) => return Err(DecodeError::BackInvalidateHostOnly),
        };
        let uio = if control.uio() {
            Some(Interleave {
                ways: Ways::decode(control.uio_ways()).map_err(DecodeError::ReservedUioWays)?,
                granularity: Granularity::decode(control.uio_granularity())
                    .map_err(DecodeError::ReservedUioGranularity)?,
            })
        } else {
            None
        };
        let route = if component.routes() {
            Route::Targets(Targets(image.targets()))
        } else {
            Route::Skip(image.raw_route())
        };
        let set_position = control.set_position();
        let decoder = Self { span, interleave, coherency, uio, set_position, route };
        let meaning = decoder.control().into_bits();
        // Without UIO a port's UIG and UIW may hold anything: they mean nothing.
        let idle = if component.routes() { Self::PORT_ONLY.into_bits() } else { 0 };
        let bits = image.control & !(meaning | Self::STATE.into_bits() | idle);
        if bits != 0 {
            return Err(DecodeError::ReservedControlBits { bits });
        }
        decoder.check(component, capability)?;
        Ok(decoder)
    }

    /// The dwords to write, with lock, commit and status bits 0; refuses what breaks a rule.
    #[inline(never)]
    pub fn encode(
        &self,
        component: Component,
        capability: Capability,
    ) -> Result<DecoderImage, DecodeError> {
        self.check(component, capability)?;
        let image = DecoderImage::default()
            .with_base(self.span.base().0)
            .with_size(self.span.size())
            .with_control(self.control());
        Ok(match self.route {
            Route::Targets(Targets(targets)) => image.with_targets(targets),
            Route::Skip(skip) => image.with_skip(skip),
        })
    }

    /// The bits of the control register that are state, not meaning.
    pub const STATE: Control = Control::new()
        .with_lock_on_commit(true)
        .with_commit(true)
        .with_committed(true)
        .with_error_not_committed(true);
    /// Fields that only ports have.
    const PORT_ONLY: Control = Control::new().with_uio_granularity(0xF).with_uio_ways(0xF);

    /// The highest position that ISP can hold.
    const ISP_MAX: u8 = Control::from_bits(u32::MAX).set_position();

    /// Fields that are reserved in such a component: without the UIO capability there is no UIO,
    /// and ports have ISP only for UIO; a device has no UIG and UIW.
    fn absent(component: Component, capability: Capability) -> Control {
        let absent = if component.routes() { Control::new() } else { Self::PORT_ONLY };
        if capability.uio() {
            return absent;
        }
        absent.with_uio(true).with_set_position(if component.routes() { Self::ISP_MAX } else { 0 })
    }

    /// The control register that says this, with all state bits 0.
    fn control(&self) -> Control {
        let control = Control::new()
            .with_granularity(self.interleave.granularity.encode())
            .with_ways(self.interleave.ways.encode())
            .with_host_only(self.coherency == Coherency::HostOnly)
            .with_back_invalidate(self.coherency == Coherency::BackInvalidate)
            // Whoever asks has refused a greater one.
            .with_set_position(self.set_position & Self::ISP_MAX);
        let Some(uio) = self.uio else { return control };
        control
            .with_uio(true)
            .with_uio_granularity(uio.granularity.encode())
            .with_uio_ways(uio.ways.encode())
    }

    /// The rules that hold for typed values too.
    fn check(&self, component: Component, capability: Capability) -> Result<(), DecodeError> {
        let (base, size) = (self.span.base().0, self.span.size());
        let Interleave { ways, .. } = self.interleave;
        if !base.is_multiple_of(DECODER_UNIT) {
            return Err(DecodeError::BaseUnaligned { base });
        }
        if !size.is_multiple_of(DECODER_UNIT) {
            return Err(DecodeError::SizeUnaligned { size });
        }
        if self.set_position > Self::ISP_MAX {
            return Err(DecodeError::SetPositionTooLarge { position: self.set_position });
        }
        let bits = self.control().into_bits() & Self::absent(component, capability).into_bits();
        if bits != 0 {
            return Err(DecodeError::ReservedControlBits { bits });
        }
        self.interleave.decodable().map_err(DecodeError::NotDecodable)?;
        let (need, have) = (self.interleave.selector_mask(), capability.selector_mask());
        if need & !have != 0 {
            return Err(DecodeError::SelectorNotSupported { need, have });
        }
        match (component.routes(), self.route) {
            (true, Route::Targets(targets)) => check_targets(component, ways, capability, &targets),
            (false, Route::Skip(skip)) => self.check_device(capability, skip),
            _ => Err(DecodeError::WrongRoute { component }),
        }
    }

    fn check_device(&self, capability: Capability, skip: u64) -> Result<(), DecodeError> {
        let (size, ways) = (self.span.size(), self.interleave.ways);
        let advertised = match ways {
            Ways::One | Ways::Two | Ways::Four | Ways::Eight => true,
            Ways::Three | Ways::Six | Ways::Twelve => capability.ways_3_6_12(),
            Ways::Sixteen => capability.ways_16(),
        };
        if !advertised {
            return Err(DecodeError::WaysNotSupported { ways });
        }
        if self.interleave.share(size).is_none() {
            return Err(DecodeError::SizeNotDivisible { size, ways });
        }
        if !skip.is_multiple_of(DECODER_UNIT) {
            return Err(DecodeError::SkipUnaligned { skip });
        }
        let models = capability.coherency_models();
        let ruled_out = if self.coherency == Coherency::HostOnly { 1 } else { 2 };
        if models == ruled_out {
            return Err(DecodeError::CoherencyNotSupported { coherency: self.coherency, models });
        }
        Ok(())
    }

    /// One member's share of the range in bytes.
    pub fn share(&self) -> u64 {
        self.span.size() / u64::from(self.interleave.ways.count())
    }
}

fn check_targets(
    component: Component,
    ways: Ways,
    capability: Capability,
    targets: &Targets,
) -> Result<(), DecodeError> {
    if ways.has_three() || ways == Ways::Sixteen {
        return Err(DecodeError::WaysNotAllowed { component, ways });
    }
    let have = capability.target_count();
    if ways.count() > u32::from(have) {
        return Err(DecodeError::TooFewTargets { ways, have });
    }
    let used = targets.used(ways);
    for (second, &port) in used.iter().enumerate() {
        if let Some(first) = used.iter().take(second).position(|&earlier| earlier == port) {
            return Err(DecodeError::DuplicateTarget {
                port,
                first: first as u8,
                second: second as u8,
            });
        }
    }
    Ok(())
}
