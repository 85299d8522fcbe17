//! The stable text of HDM register images: what people snapshot, diff and read in a review.
//!
//! [`HdmText`] reads the raw bytes of an HDM Decoder Capability Structure (CXL r3.1 section
//! 8.2.4.20), our own firmware's or anybody's. It prints one fact a line: a label, the raw value in
//! hexadecimal, what that means. [`DecoderText`] is one decoder of it, [`ConfigText`] a function's
//! configuration space.
//!
//! **Invariant**: every byte string has a text and the same bytes always have the same text.
//! Nonsense is printed as found, with a `problem` line that says which rule it breaks.

mod config;

use core::fmt::{self, Display, Formatter};

pub use config::ConfigText;

use crate::access::{Class, Component, Features, Register};
use crate::addr::{Address, Dpa, Size, Span};
use crate::block::LABEL_WIDTH;
use crate::decoder::{Coherency, DecodeError, Decoder, Targets};
use crate::hdm::{
    Capability, Control, DecoderImage, GlobalControl, decoder_offset, structure_length,
};
use crate::interleave::{Granularity, Ways};

/// How the kind of component became known: the structure does not say it outright.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The caller said so.
    Given,
    /// This field is set, which only such a component has.
    Field(&'static str),
    /// No field speaks for a port: taken for a device.
    Assumed,
}

/// Why a structure cannot be read as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HdmProblem {
    /// The bytes end before the structure does.
    Truncated {
        /// Bytes that the structure has, as far as it is known.
        need: u16,
        /// Bytes that there are.
        have: usize,
    },
    /// The capability register reads all-ones: nothing answers at its address.
    NoAnswer,
    /// The decoder count is a reserved code.
    ReservedCount {
        /// The code.
        code: u8,
    },
}

impl Display for HdmProblem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated { need, have } => {
                write!(f, "expected an HDM structure of {need:#x} bytes, found {have:#x}")
            }
            Self::NoAnswer => f.write_str(
                "expected an HDM decoder capability register, found all-ones: nothing answers",
            ),
            Self::ReservedCount { code } => {
                write!(f, "expected a decoder count code of 0-c, found {code:#x} (reserved)")
            }
        }
    }
}

impl core::error::Error for HdmProblem {}

/// A rule between a committed decoder and the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrderProblem {
    /// The decoder before it is not committed.
    Gap {
        /// That decoder.
        before: u8,
    },
    /// It starts below the end of an earlier one.
    BelowEarlier {
        /// Its base.
        base: u64,
        /// The end of the highest range before it.
        end: u64,
    },
}

impl Display for OrderProblem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Gap { before } => {
                write!(f, "committed while decoder {before} before it is not")
            }
            Self::BelowEarlier { base, end } => {
                write!(f, "base {base:#x} lies below {end:#x}, where an earlier decoder ends")
            }
        }
    }
}

impl core::error::Error for OrderProblem {}

/// The raw bytes of an HDM structure, with the kind of component they are from.
#[derive(Clone, Copy, Debug)]
pub struct HdmText<'a> {
    bytes: &'a [u8],
    component: Component,
    evidence: Evidence,
}

fn dword(bytes: &[u8], offset: u16) -> Option<u32> {
    let (dword, _) = bytes.get(offset.into()..)?.split_first_chunk()?;
    Some(u32::from_le_bytes(*dword))
}

/// A field that is set, and that components other than `component` do not have.
fn only_in(component: Component, other: Component, raw: u32) -> Option<&'static str> {
    let reserved = |component| {
        move |field: &&crate::access::Field| field.rule(component).class == Class::Reserved
    };
    let fields = Capability::SPEC.fields.iter();
    fields
        .filter(reserved(other))
        .find(|field| !reserved(component)(field) && field.get(raw) != 0)
        .map(|field| field.name)
}

/// A device or a port? Bits that only one of them has decide. A target count of 1 comes last: there
/// are devices that show it, and software ignores it there.
fn recognise(capability: Capability, global: GlobalControl) -> (Component, Evidence) {
    let (device, port) = (Component::Device, Component::HostBridge);
    let raw = capability.into_bits();
    let single = capability.with_target_count(1) == capability;
    let of_port = only_in(port, device, raw).map(|name| (port, Evidence::Field(name)));
    if let Some(name) = only_in(device, port, raw) {
        (device, Evidence::Field(name))
    } else if let (Some(found), false) = (of_port, single) {
        found
    } else if global.decoder_enable() {
        (device, Evidence::Field("HDM Decoder Enable"))
    } else {
        of_port.unwrap_or((device, Evidence::Assumed))
    }
}

impl<'a> HdmText<'a> {
    /// The structure at the start of `bytes`; bytes behind its end are not looked at. Without a
    /// component the kind is recognised, as far as the capability register lets.
    pub fn new(bytes: &'a [u8], component: Option<Component>) -> Self {
        let mut text = Self { bytes, component: Component::Device, evidence: Evidence::Assumed };
        (text.component, text.evidence) = match component {
            Some(component) => (component, Evidence::Given),
            None => recognise(text.capability(), text.global_control()),
        };
        text
    }

    /// The kind of component, and how it is known. [`Component::HostBridge`] that was not given
    /// stands for an upstream port too: their registers look the same.
    pub fn component(&self) -> (Component, Evidence) {
        (self.component, self.evidence)
    }

    /// The capability register; 0 where the bytes do not reach.
    pub fn capability(&self) -> Capability {
        Capability::from_bits(dword(self.bytes, Capability::SPEC.offset).unwrap_or(0))
    }

    /// The global control register; 0 where the bytes do not reach.
    pub fn global_control(&self) -> GlobalControl {
        GlobalControl::from_bits(dword(self.bytes, GlobalControl::SPEC.offset).unwrap_or(0))
    }

    /// Why the structure cannot be read as a whole, if so.
    pub fn problem(&self) -> Option<HdmProblem> {
        let (have, capability) = (self.bytes.len(), self.capability());
        if have < decoder_offset(0).into() {
            return Some(HdmProblem::Truncated { need: decoder_offset(0), have });
        }
        if capability.into_bits() == u32::MAX {
            return Some(HdmProblem::NoAnswer);
        }
        match capability.decoders() {
            None => Some(HdmProblem::ReservedCount { code: capability.decoder_count() }),
            Some(count) => {
                let need = structure_length(count);
                (have < need.into()).then_some(HdmProblem::Truncated { need, have })
            }
        }
    }

    /// Whether bytes of unknown origin look like such a structure: no reserved bit set in front of
    /// the decoders, some number of them, and some address bits to select on, as every component
    /// has (CXL r3.1 section 8.2.4.20.1).
    pub fn plausible(&self) -> bool {
        let (capability, global) = (self.capability(), self.global_control());
        let reserved = reserved_bits(capability) | reserved_bits(global);
        let gap = (GlobalControl::SPEC.offset + 4..decoder_offset(0)).step_by(4);
        capability.decoders().is_some()
            && capability.selector_mask() != 0
            && reserved == 0
            && gap.map(|offset| dword(self.bytes, offset)).all(|dword| dword == Some(0))
    }

    /// The decoders that lie in the bytes as a whole, in order.
    pub fn decoders(&self) -> impl Iterator<Item = DecoderText> + use<'a> {
        let (bytes, component, capability) = (self.bytes, self.component, self.capability());
        let count = match self.problem() {
            None | Some(HdmProblem::Truncated { .. }) => capability.decoders().unwrap_or(0),
            Some(_) => 0,
        };
        let images = (0..count).map_while(move |index| {
            let mut dwords = [0; DecoderImage::DWORDS];
            for (place, offset) in dwords.iter_mut().zip((decoder_offset(index)..).step_by(4)) {
                *place = dword(bytes, offset)?;
            }
            Some((index, DecoderImage::from_dwords(dwords)))
        });
        images.scan(Before::new(), move |before, (index, image)| {
            Some(before.place(DecoderText::new(index, image, component, capability)))
        })
    }
}

/// What the decoders up to some index leave for the next one.
#[derive(Clone, Copy)]
struct Before {
    committed: bool,
    /// First HPA that the next committed decoder may start at.
    end: u64,
    /// First DPA behind the ranges so far; the decoder that made it unknown.
    dpa: Result<Dpa, u8>,
}

impl Before {
    fn new() -> Self {
        Self { committed: true, end: 0, dpa: Ok(Dpa(0)) }
    }

    /// The decoder with what depends on the ones before it. A decoder that is not committed, or has
    /// no size, takes no part (CXL r3.1 section 8.2.4.20.13).
    fn place(&mut self, mut text: DecoderText) -> DecoderText {
        let committed = text.image.control().committed();
        if committed && !self.committed {
            text.order = Some(OrderProblem::Gap { before: text.index.saturating_sub(1) });
        }
        self.committed = committed;
        if !committed {
            return text;
        }
        match text.decoded {
            Err(DecodeError::ZeroSize { .. }) => return text,
            Err(_) => self.dpa = self.dpa.and(Err(text.index)),
            Ok(decoder) => {
                let (base, end) = (decoder.span.base().0, decoder.span.end().0);
                if base < self.end {
                    let order = OrderProblem::BelowEarlier { base, end: self.end };
                    text.order = text.order.or(Some(order));
                }
                self.end = self.end.max(end);
                if !text.component.routes() {
                    let range = self.dpa.and_then(|next| {
                        let base = next.0.checked_add(text.image.skip()).ok_or(text.index)?;
                        Span::new(Dpa(base), decoder.share()).map_err(|_| text.index)
                    });
                    self.dpa = range.map(Span::end);
                    text.dpa = Some(range);
                }
            }
        }
        text
    }
}

/// One decoder of a structure.
#[derive(Clone, Copy, Debug)]
pub struct DecoderText {
    /// Its number.
    pub index: u8,
    /// The dwords as read.
    pub image: DecoderImage,
    /// The legal meaning, or the rule that the dwords break.
    pub decoded: Result<Decoder, DecodeError>,
    /// The rule that it breaks together with the decoders before it.
    pub order: Option<OrderProblem>,
    /// A committed decoder of a device: its range of device memory, or the lower decoder that
    /// leaves it unknown.
    pub dpa: Option<Result<Span<Dpa>, u8>>,
    /// The kind of component that it is part of.
    pub component: Component,
}

impl DecoderText {
    /// A decoder by itself: with no DPA range, as that depends on the decoders before it.
    pub fn new(
        index: u8,
        image: DecoderImage,
        component: Component,
        capability: Capability,
    ) -> Self {
        let decoded = Decoder::decode(&image, component, capability);
        Self { index, image, decoded, order: None, dpa: None, component }
    }

    /// Whether all its registers are 0, as after a reset.
    pub fn unused(&self) -> bool {
        self.image == DecoderImage::default()
    }

    /// Whether all its registers are all-ones, as where nothing answers.
    pub fn no_answer(&self) -> bool {
        self.image.to_dwords() == [u32::MAX; DecoderImage::DWORDS]
    }
}

/// Writes the words of a list with commas between them.
struct Words<'a, 'f> {
    f: &'a mut Formatter<'f>,
    empty: bool,
}

impl<'a, 'f> Words<'a, 'f> {
    fn new(f: &'a mut Formatter<'f>) -> Self {
        Self { f, empty: true }
    }

    fn add(&mut self, word: impl Display) -> fmt::Result {
        let comma = if self.empty { "" } else { ", " };
        self.empty = false;
        write!(self.f, "{comma}{word}")
    }

    fn add_if(&mut self, there: bool, word: impl Display) -> fmt::Result {
        if there { self.add(word) } else { Ok(()) }
    }
}

/// `2 targets`, `1 target`.
struct Count(u8, &'static str);

impl Display for Count {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}

/// A bit mask with words in front of it.
struct Bits(&'static str, u32);

impl Display for Bits {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:#010x}", self.0, self.1)
    }
}

/// The bits of a register that no field of any component names.
fn reserved_bits<R: Register>(register: R) -> u32 {
    let named = Component::ALL.iter().fold(0, |mask, &component| {
        mask | R::SPEC.mask_of(component, Features::ALL, |class| class != Class::Reserved)
    });
    register.raw() & !named
}

fn capability(f: &mut Formatter<'_>, capability: Capability, component: Component) -> fmt::Result {
    let mut words = Words::new(f);
    if capability.into_bits() == u32::MAX {
        return words.add("all-ones");
    }
    match capability.decoders() {
        Some(count) => words.add(Count(count, "decoder"))?,
        None => words.add("reserved decoder count")?,
    }
    words.add_if(component.routes(), Count(capability.target_count(), "target"))?;
    words.add(match (capability.interleave_11_8(), capability.interleave_14_12()) {
        (true, true) => "selects on HPA 14:8",
        (true, false) => "selects on HPA 11:8",
        (false, true) => "selects on HPA 14:12",
        (false, false) => "selects on no HPA bits",
    })?;
    words.add_if(capability.poison_on_error(), "poison on decode error")?;
    words.add_if(capability.ways_3_6_12(), "3/6/12 ways")?;
    words.add_if(capability.ways_16(), "16 ways")?;
    words.add_if(capability.uio(), "UIO")?;
    words
        .add_if(capability.uio_decoders() != 0, Count(capability.uio_decoders(), "UIO decoder"))?;
    words.add_if(capability.mem_data_nxm(), "MemData-NXM")?;
    match capability.coherency_models() {
        1 => words.add("device-coherent only")?,
        2 => words.add("host-only coherent only")?,
        3 => words.add("device-coherent or host-only")?,
        _ => {}
    }
    let reserved = reserved_bits(capability);
    words.add_if(reserved != 0, Bits("reserved bits", reserved))
}

fn global_control(
    f: &mut Formatter<'_>,
    global: GlobalControl,
    component: Component,
) -> fmt::Result {
    let mut words = Words::new(f);
    words.add(match (component.routes(), global.decoder_enable()) {
        (false, true) => "decoders enabled",
        (false, false) => "decoders disabled",
        (true, false) => "decoders always in use",
        (true, true) => "decoders always in use, enable bit set all the same",
    })?;
    words.add_if(global.poison_on_error(), "poison on decode error")?;
    let reserved = reserved_bits(global);
    words.add_if(reserved != 0, Bits("reserved bits", reserved))
}

fn control(f: &mut Formatter<'_>, control: Control) -> fmt::Result {
    let mut words = Words::new(f);
    words.add(if control.committed() { "committed" } else { "not committed" })?;
    words.add_if(control.error_not_committed(), "commit refused")?;
    words.add_if(control.locked(), "locked")?;
    words.add_if(control.lock_on_commit() && !control.committed(), "locks on commit")?;
    words.add_if(control.commit() && !control.settled(), "commit pending")?;
    words.add_if(control.committed() && !control.commit(), "commit bit clear")?;
    let reserved = reserved_bits(control);
    words.add_if(reserved != 0, Bits("reserved bits", reserved))
}

/// A line with a 64-bit value.
fn line64(
    f: &mut Formatter<'_>,
    label: &str,
    value: u64,
    meaning: Option<&dyn Display>,
) -> fmt::Result {
    write!(f, "  {label:<LABEL_WIDTH$}{value:#018x}")?;
    meaning.map_or(Ok(()), |meaning| write!(f, "  {meaning}"))?;
    writeln!(f)
}

/// A line with a field of a few bits.
fn line_field(f: &mut Formatter<'_>, label: &str, value: u8, meaning: &dyn Display) -> fmt::Result {
    writeln!(f, "  {label:<LABEL_WIDTH$}{value:#x}  {meaning}")
}

/// A line without a raw value.
fn line(f: &mut Formatter<'_>, label: &str, meaning: &dyn Display) -> fmt::Result {
    writeln!(f, "  {label:<LABEL_WIDTH$}{meaning}")
}

/// What a code of ways means.
struct WaysMeaning(u8);

impl Display for WaysMeaning {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match Ways::decode(self.0) {
            Ok(ways) => write!(f, "{ways}-way"),
            Err(_) => f.write_str("reserved"),
        }
    }
}

/// The decoded value, or "reserved".
fn or_reserved<T: Display, E>(decoded: &Result<T, E>) -> &dyn Display {
    match decoded {
        Ok(value) => value,
        Err(_) => &"reserved",
    }
}

impl Display for HdmText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("hdm decoders of ")?;
        f.write_str(match (self.component, self.evidence) {
            (Component::Device, _) => "a device",
            (Component::HostBridge, Evidence::Field(_)) => "a host bridge or upstream port",
            (Component::HostBridge, _) => "a host bridge",
            (Component::UpstreamPort, _) => "an upstream port",
        })?;
        if let Some(count) = self.capability().decoders().filter(|_| self.decoders().count() > 0) {
            let committed =
                self.decoders().filter(|decoder| decoder.image.control().committed()).count();
            write!(f, ", {committed} of {count} committed")?;
        }
        writeln!(f)?;
        match self.evidence {
            Evidence::Given => {}
            Evidence::Field(name) => {
                line(f, "component", &format_args!("recognised by its {name}"))?;
            }
            Evidence::Assumed => line(f, "component", &"assumed: no field tells")?,
        }
        let (cap, global) = (self.capability(), self.global_control());
        if self.bytes.len() >= decoder_offset(0).into() {
            write!(f, "  {:<LABEL_WIDTH$}{:#010x}  ", "capability", cap.into_bits())?;
            capability(f, cap, self.component)?;
            writeln!(f)?;
            write!(f, "  {:<LABEL_WIDTH$}{:#010x}  ", "global control", global.into_bits())?;
            global_control(f, global, self.component)?;
            writeln!(f)?;
        }
        if let Some(problem) = self.problem() {
            line(f, "problem", &problem)?;
        }
        self.decoders().try_for_each(|decoder| decoder.fmt(f))
    }
}

impl Display for DecoderText {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "decoder {}", self.index)?;
        if self.unused() {
            return line(f, "unused", &"all registers 0");
        }
        if self.no_answer() {
            return line(f, "problem", &"all registers all-ones: nothing answers");
        }
        let image = &self.image;
        let fields = image.control();
        let size = image.raw_size();
        line64(f, "base", image.raw_base(), None)?;
        if let Ok(decoder) = self.decoded {
            line64(f, "last", decoder.span.last().0, None)?;
        }
        line64(f, "size", size, Some(&Size(size)))?;
        write!(f, "  {:<LABEL_WIDTH$}{:#010x}  ", "control", image.control)?;
        control(f, fields)?;
        writeln!(f)?;
        line_field(f, "ways", fields.ways(), &WaysMeaning(fields.ways()))?;
        let granularity = Granularity::decode(fields.granularity());
        line_field(f, "granularity", fields.granularity(), or_reserved(&granularity))?;
        let coherency = match (fields.host_only(), fields.back_invalidate()) {
            (true, false) => Ok(Coherency::HostOnly),
            (false, false) => Ok(Coherency::Device),
            (false, true) => Ok(Coherency::BackInvalidate),
            (true, true) => Err(()),
        };
        line_field(f, "type", fields.host_only().into(), or_reserved(&coherency))?;
        self.fmt_optional(f, fields)?;
        if self.component.routes() {
            self.fmt_targets(f, Ways::decode(fields.ways()).ok())?;
        } else {
            let skip = image.raw_route();
            line64(f, "dpa skip", skip, Some(&Size(skip)))?;
        }
        match self.dpa {
            Some(Ok(range)) => {
                line64(f, "dpa base", range.base().get(), None)?;
                line64(f, "dpa last", range.last().get(), None)?;
                line64(f, "dpa size", range.size(), Some(&Size(range.size())))?;
            }
            Some(Err(index)) => {
                line(f, "dpa base", &format_args!("unknown, as of decoder {index}"))?;
            }
            None => {}
        }
        if image.reserved != 0 {
            writeln!(f, "  {:<LABEL_WIDTH$}{:#010x}  not 0", "reserved dword", image.reserved)?;
        }
        match self.decoded {
            Err(error @ DecodeError::ZeroSize { .. }) => line(f, "note", &error)?,
            Err(error) => line(f, "problem", &error)?,
            Ok(_) => {}
        }
        self.order.map_or(Ok(()), |problem| line(f, "problem", &problem))
    }
}

impl DecoderText {
    /// Fields that few components have: a line for each that is not 0.
    fn fmt_optional(&self, f: &mut Formatter<'_>, fields: Control) -> fmt::Result {
        if fields.back_invalidate() {
            line_field(f, "bi", 1, &"back-invalidate")?;
        }
        if fields.uio() {
            line_field(f, "uio", 1, &"unordered I/O allowed")?;
        }
        if fields.uio_ways() != 0 {
            line_field(f, "uio ways", fields.uio_ways(), &WaysMeaning(fields.uio_ways()))?;
        }
        if fields.uio_granularity() != 0 {
            let code = fields.uio_granularity();
            let granularity = Granularity::decode(code);
            line_field(f, "uio granularity", code, or_reserved(&granularity))?;
        }
        if fields.set_position() != 0 {
            let position = fields.set_position();
            line_field(f, "set position", position, &position)?;
        }
        Ok(())
    }

    /// The targets that the ways use, and others that are not 0.
    fn fmt_targets(&self, f: &mut Formatter<'_>, ways: Option<Ways>) -> fmt::Result {
        let targets = Targets(self.image.targets());
        let used = ways.map_or(targets.0.len(), |ways| targets.used(ways).len());
        for (way, &port) in targets.0.iter().enumerate() {
            if way < used {
                writeln!(f, "  target {way:<11}{port:#04x}  port {port}")?;
            } else if port != 0 {
                writeln!(f, "  target {way:<11}{port:#04x}  not used")?;
            }
        }
        Ok(())
    }
}
