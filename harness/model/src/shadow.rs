//! Decoders that a host's firmware committed and locked, as a guest sees them that the device is
//! handed to: at guest addresses, committed and locked before its first instruction.
//!
//! For any VMM: hardware's dwords in, the guest's dwords and [`Effect`]s out. The VMM traps the guest's
//! accesses to the page with the decoders and to the Device DVSEC, answers them from here, and maps
//! [`Moved::guest`] to the device's memory at [`Moved::dpa`], which hardware has at [`Moved::host`].
//! Nothing here ever writes to hardware. What a guest resets comes back as the shadow had it; hardware
//! is not reset, but for what the VMM makes of [`Effect::ResetSelf`].
//!
//! **Invariant**: no address of the host's is in any dword that comes out; what hardware has locked no
//! write of the guest changes; and a decoder that hardware does not have committed cannot be committed
//! in the shadow, as nothing is behind it.

use std::fmt;

use cxl_regs::access::{Feature, Features};
use cxl_regs::dvsec::device::{self, DeviceDvsec, DeviceDvsecTail, RangeRegisters};
use cxl_regs::hdm::{Capability, Control, DecoderImage, GlobalControl};
use cxl_regs::{Component, Decoder, Dpa, Hpa, Span, Ways};

use crate::device::config::Function;
use crate::device::hdm::HdmBlock;
use crate::device::{Effect, Reset};
use crate::fabric::HdmImage;
use crate::words::counted;

/// A range of memory by both its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The decoder that has it in the shadow; of a device, the same one of hardware.
    pub decoder: u8,
    /// Where hardware has it.
    pub host: Span,
    /// Where the guest has it.
    pub guest: Span,
    /// The device's own addresses; 0 and the range's size where this is no device.
    pub dpa: Span<Dpa>,
}

/// Why there is no shadow of a component. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowError {
    /// A decoder in use is not locked, so that hardware does not keep it as it is.
    NotLocked {
        /// The decoder.
        decoder: u8,
        /// Its Control.
        control: u32,
    },
    /// A decoder in use means nothing.
    Illegal {
        /// The decoder.
        decoder: u8,
        /// What is wrong with it.
        why: cxl_regs::DecodeError,
    },
    /// A decoder shares its range with other devices, which would have to be handed over with it.
    Interleaved {
        /// The decoder.
        decoder: u8,
        /// How many devices there are.
        ways: Ways,
    },
    /// No decoder of the device is in use, so there is nothing to hand over.
    Unused,
    /// A range has no place in the guest.
    NoPlace {
        /// The decoder.
        decoder: u8,
        /// Its range in hardware.
        host: Span,
    },
    /// Its place in the guest is no legal one: no multiple of 256 MiB, beyond the end of all addresses,
    /// or below the end of the decoder before it.
    IllegalPlace {
        /// The decoder.
        decoder: u8,
        /// Where it was to begin.
        guest: Hpa,
        /// Where the one before it ends.
        before: u64,
    },
    /// A bridge has fewer decoders than ranges that it has to lead to devices.
    TooFewDecoders {
        /// How many it has.
        have: u8,
        /// How many it needs.
        need: usize,
    },
    /// HDM Decoder Enable or Mem_Enable is off: hardware decodes nothing.
    Disabled,
}

impl fmt::Display for ShadowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotLocked { decoder, control } => write!(
                f,
                "decoder {decoder} is in use and not locked (Control {control:#010x}): let the host's \
                 firmware lock it first"
            ),
            Self::Illegal { decoder, why } => write!(f, "decoder {decoder} is in use, and {why}"),
            Self::Interleaved { decoder, ways } => write!(
                f,
                "decoder {decoder} is one of a set of {ways}: a device is handed over alone, so the \
                 host has to give it ranges of its own"
            ),
            Self::Unused => f.write_str("no decoder is in use: there is nothing to hand over"),
            Self::NoPlace { decoder, host } => write!(
                f,
                "decoder {decoder}: the guest has no place for {} bytes at {}",
                host.size(),
                host.base()
            ),
            Self::IllegalPlace { decoder, guest, before } => write!(
                f,
                "decoder {decoder} cannot begin at {guest} in the guest: expected a multiple of 256 MiB \
                 from {before:#x} on, the end of the decoder before it"
            ),
            Self::TooFewDecoders { have, need } => {
                let have = counted(have, "decoder");
                write!(f, "the bridge has {have}, and {need} ranges lead through it")
            }
            Self::Disabled => {
                f.write_str("HDM Decoder Enable or Mem_Enable is off: hardware decodes nothing")
            }
        }
    }
}

impl std::error::Error for ShadowError {}

/// The decoders of one component as a guest sees them.
#[derive(Clone, Debug)]
pub struct ShadowDecoders {
    hdm: HdmBlock,
    moved: Vec<Moved>,
}

impl ShadowDecoders {
    /// The shadow of a component's decoders as hardware has them. `place` says where in the guest the
    /// range of a decoder begins.
    pub fn of(
        component: Component,
        hardware: &HdmImage,
        mut place: impl FnMut(u8, Span) -> Option<Hpa>,
    ) -> Result<Self, ShadowError> {
        let capability = hardware.capability();
        let is_device = component == Component::Device;
        let mut used = Vec::new();
        for (decoder, image) in (0..).zip(hardware.decoders.iter().copied()) {
            let control = image.control();
            if !control.committed() {
                continue;
            }
            if !control.locked() {
                return Err(ShadowError::NotLocked { decoder, control: image.control });
            }
            if image.size() == 0 {
                used.push((None, image));
                continue;
            }
            let decoded = Decoder::decode(&image, component, capability)
                .map_err(|why| ShadowError::Illegal { decoder, why })?;
            let (host, ways) = (decoded.span, decoded.interleave.ways);
            if ways != Ways::One {
                return Err(ShadowError::Interleaved { decoder, ways });
            }
            let guest = place(decoder, host).ok_or(ShadowError::NoPlace { decoder, host })?;
            used.push((Some((guest, host)), image));
        }
        if !is_device {
            // A guest's windows may lie in another order. What claims nothing comes last.
            used.sort_by_key(|(moved, _)| moved.map_or(u64::MAX, |(guest, _)| guest.0));
        }
        let mut shadow = Self::empty(component, capability);
        // What no guest can commit: see the invariant.
        shadow.hdm.refuse_commits(None);
        let (mut before, mut dpa) = (0, 0u64);
        for (decoder, (moved, image)) in (0..).zip(used) {
            let Some((guest, host)) = moved else {
                // Burnt: it begins where the one before it ends.
                shadow.hdm.preset(decoder, image.with_base(before));
                continue;
            };
            let illegal = ShadowError::IllegalPlace { decoder, guest, before };
            let span = Span::new(guest, host.size()).map_err(|_| illegal)?;
            if guest.0 < before || !guest.0.is_multiple_of(cxl_regs::DECODER_UNIT) {
                return Err(illegal);
            }
            before = span.last().0.saturating_add(1);
            let start = if is_device { dpa.wrapping_add(image.skip()) } else { 0 };
            dpa = start.wrapping_add(host.size());
            let own = Span::new(Dpa(start), host.size()).map_err(|_| illegal)?;
            shadow.hdm.preset(decoder, image.with_base(guest.0));
            shadow.moved.push(Moved { decoder, host, guest: span, dpa: own });
        }
        shadow.hdm.preset_global(GlobalControl::from_bits(hardware.global_control));
        Ok(shadow)
    }

    /// The decoders of a guest's bridge that lead to devices behind its ports, to match their shadows:
    /// for each range one, committed and locked.
    pub fn bridge(
        capability: Capability,
        behind: &[(&ShadowDecoders, u8)],
    ) -> Result<Self, ShadowError> {
        let ranges = behind.iter().flat_map(|(shadow, port)| {
            let own = shadow.moved.iter();
            own.map(|moved| (moved, shadow.image(moved.decoder).control(), *port))
        });
        let mut ranges: Vec<_> = ranges.collect();
        ranges.sort_by_key(|(moved, ..)| moved.guest.base());
        let have = capability.decoders().unwrap_or(0);
        if ranges.len() > usize::from(have) {
            return Err(ShadowError::TooFewDecoders { have, need: ranges.len() });
        }
        let mut shadow = Self::empty(Component::HostBridge, capability);
        shadow.hdm.refuse_commits(None);
        let mut before = 0;
        for (decoder, (moved, device, port)) in (0..).zip(ranges) {
            let guest = moved.guest.base();
            if guest.0 < before {
                return Err(ShadowError::IllegalPlace { decoder, guest, before });
            }
            before = moved.guest.last().0.saturating_add(1);
            // The device's, but for what is the bridge's own: one way, to one port.
            let control = Control::new()
                .with_host_only(device.host_only())
                .with_back_invalidate(device.back_invalidate())
                .with_lock_on_commit(true)
                .with_commit(true)
                .with_committed(true);
            let image = DecoderImage::default()
                .with_base(guest.0)
                .with_size(moved.guest.size())
                .with_control(control)
                .with_targets([port, 0, 0, 0, 0, 0, 0, 0]);
            shadow.hdm.preset(decoder, image);
            shadow.moved.push(Moved { decoder, ..*moved });
        }
        Ok(shadow)
    }

    fn empty(component: Component, capability: Capability) -> Self {
        let hdm = HdmBlock::new(component, Features::NONE, capability);
        Self { hdm, moved: Vec::new() }
    }

    /// The ranges by decoder, each with both its addresses.
    pub fn ranges(&self) -> &[Moved] {
        &self.moved
    }

    /// What a decoder shows.
    pub fn image(&self, decoder: u8) -> DecoderImage {
        self.hdm.images().nth(decoder.into()).unwrap_or_default()
    }

    /// What all decoders show.
    pub fn images(&self) -> impl Iterator<Item = DecoderImage> {
        self.hdm.images()
    }

    /// What Global Control shows.
    pub fn global(&self) -> GlobalControl {
        self.hdm.global()
    }

    /// Bytes of the structure; the capability array of the guest's block points to it.
    pub fn length(&self) -> u16 {
        self.hdm.length()
    }

    /// The guest reads the dword at an offset in the structure, a multiple of 4. An access of another
    /// width or alignment reaches no register: all-ones.
    pub fn read(&mut self, offset: u16) -> u32 {
        self.hdm.read(offset, 0).0
    }

    /// The guest writes it. [`Effect::Remap`]: HDM Decoder Enable has changed, which no lock covers, so
    /// the guest has switched its own memory off or on.
    pub fn write(&mut self, offset: u16, value: u32) -> Effect {
        self.hdm.write(offset, value, 0)
    }

    /// The guest has reset the component: what it had before its first instruction is there again.
    pub fn reset(&mut self, reset: Reset) {
        self.hdm.reset(reset);
    }

    /// The device's own address behind a guest address; `None` where it claims none.
    pub fn translate(&self, guest: Hpa) -> Option<Dpa> {
        self.hdm.translate(guest.0).map(Dpa)
    }

    /// Hardware's address behind a guest address, by both decoders; `None` where either claims none.
    pub fn host(&self, guest: Hpa) -> Option<Hpa> {
        self.translate(guest)?;
        let moved = self.moved.iter().find(|moved| moved.guest.contains(guest))?;
        Some(Hpa(moved.host.base().0 + (guest.0 - moved.guest.base().0)))
    }
}

/// One device as a guest sees it: its decoders and its Device DVSEC.
#[derive(Clone, Debug)]
pub struct DeviceShadow {
    /// The decoders.
    pub decoders: ShadowDecoders,
    config: Function,
    at: u16,
}

impl DeviceShadow {
    /// The shadow of a device as hardware has it: its decoders, and its Device DVSEC (CXL r3.1 section
    /// 8.1.3). Ranges of the DVSEC lead where the decoders do, or nowhere.
    pub fn of(
        hardware: &HdmImage,
        dvsec: &DeviceDvsec,
        place: impl FnMut(u8, Span) -> Option<Hpa>,
    ) -> Result<Self, ShadowError> {
        let enabled = hardware.decoder_enable() && dvsec.control.mem_enable();
        let decoders = ShadowDecoders::of(Component::Device, hardware, place)?;
        if decoders.moved.is_empty() {
            return Err(ShadowError::Unused);
        }
        if !enabled {
            return Err(ShadowError::Disabled);
        }
        let range = |range: RangeRegisters| {
            let moved = decoders.moved.iter().find(|moved| {
                moved.host.base() == range.base() && moved.host.size() == range.size()
            });
            range_at(range, moved.map_or(0, |moved| moved.guest.base().0))
        };
        let [first, second] = dvsec.ranges();
        let shown = dvsec.with_ranges([range(first), range(second)]);
        let capability = dvsec.capability;
        let features = [
            (capability.cxl_reset(), Feature::CxlReset),
            (capability.cache_write_back(), Feature::CacheWriteBack),
        ];
        let features = features
            .into_iter()
            .fold(Features::NONE, |all, (has, one)| if has { all.with(one) } else { all });
        let mut config = Function::endpoint(0, features, &[]);
        let specs = [DeviceDvsec::REGISTERS, DeviceDvsecTail::REGISTERS].concat();
        let at = config.add(&specs, device::LENGTH_REVISION_3, |bytes, at, _| shown.put(bytes, at));
        config.set_device_dvsec(at);
        Ok(Self { decoders, config, at })
    }

    /// The guest reads the dword at an offset in the DVSEC, a multiple of 4.
    pub fn read_dvsec(&self, offset: u16) -> u32 {
        self.config.read(self.at.saturating_add(offset))
    }

    /// The guest writes the bytes that `enabled` masks of it. [`Effect::ResetSelf`]: it has asked for a
    /// CXL Reset; the VMM clears what memory it has to, and calls [`DeviceShadow::reset`].
    pub fn write_dvsec(&mut self, offset: u16, value: u32, enabled: u32) -> Effect {
        self.config.write(self.at.saturating_add(offset), value, enabled)
    }

    /// The guest has reset the device: what it had before its first instruction is there again.
    pub fn reset(&mut self, reset: Reset) {
        self.config.reset(reset);
        self.decoders.reset(reset);
    }
}

/// A range that begins elsewhere.
fn range_at(range: RangeRegisters, base: u64) -> RangeRegisters {
    RangeRegisters {
        base_high: device::RangeBaseHigh::new().with_base((base >> 32) as u32),
        base_low: device::RangeBaseLow::new().with_base((base >> 28 & 0xF) as u8),
        ..range
    }
}
