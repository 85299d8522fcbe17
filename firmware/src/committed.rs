//! What the hardware has accepted: the decoders as they read back, and what became of each.
//!
//! **Invariant**: every value here was read from hardware. Nothing is copied from a plan, so a
//! table made from it cannot promise what no decoder does.

use core::fmt;

use cxl_regs::access::Component;
use cxl_regs::hdm::DecoderImage;
use cxl_regs::{Coherency, Decoder, Hpa, Interleave, Span};
use heapless::Vec;

use crate::device_registers::{DeviceImage, DeviceRegisters};
use crate::error;
use crate::list::{Empty, List};
use crate::mmio::Mmio;
use crate::topology::{NodeId, Partition, Path, Tree};

/// One decoder, in words that survive renumbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where the component is.
    pub at: Path,
    /// Which of those at that place.
    pub component: Component,
    /// Decoder number in the component.
    pub index: u8,
}

impl From<Place> for error::Place {
    // Errors are rare: one copy of this is enough.
    #[cold]
    #[inline(never)]
    fn from(Place { at, component, index }: Place) -> Self {
        Self::of_decoder(&at, component, index)
    }
}

impl Place {
    /// The place of a node's decoder. A node without decoders that count passes for a device.
    pub fn of(tree: Tree<'_>, node: NodeId, index: u8) -> Self {
        let component = tree.get(node).and_then(|node| node.component());
        Self { at: tree.path(node), component: component.unwrap_or(Component::Device), index }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.component {
            Component::HostBridge => write!(f, "{}, decoder {}", self.at, self.index),
            component => write!(f, "{} {component}, decoder {}", self.at, self.index),
        }
    }
}

/// What became of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// Not written to.
    Untouched,
    /// Written to, and reads as it did before.
    RolledBack,
    /// Cannot be put back, and serves nothing: it is locked, or it no longer takes writes.
    Stranded,
    /// Committed as it should be. After a failure: it belongs to a region whose whole path is.
    Done,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untouched => "untouched",
            Self::RolledBack => "rolled back",
            Self::Stranded => "stranded",
            Self::Done => "done",
        })
    }
}

/// A decoder as the hardware has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedDecoder {
    /// The component.
    pub node: NodeId,
    /// Decoder number in the component.
    pub index: u8,
    /// The registers as last read; the reserved eighth dword is not read and 0.
    pub image: DecoderImage,
    /// What they say; `None` for a decoder that claims nothing, or that breaks a rule.
    pub decoder: Option<Decoder>,
    /// What became of it.
    pub fate: Fate,
}

impl Empty for CommittedDecoder {
    const EMPTY: Self = Self {
        node: NodeId(0),
        index: 0,
        image: DecoderBefore::EMPTY.0,
        decoder: None,
        fate: Fate::Untouched,
    };
}

impl CommittedDecoder {
    /// Reads the meaning out of an image.
    pub(crate) fn new(
        tree: Tree<'_>,
        node: NodeId,
        index: u8,
        image: DecoderImage,
        fate: Fate,
    ) -> Self {
        let decoder = tree
            .get(node)
            .and_then(|node| Some((node.component()?, node.hdm?.capability)))
            .and_then(|(component, capability)| {
                Decoder::decode(&image, component, capability).ok()
            });
        Self { node, index, image, decoder, fate }
    }

    /// Whether the hardware says that the decoder is in use.
    pub fn committed(&self) -> bool {
        self.image.control().committed()
    }

    /// Whether the decoder is frozen until a conventional reset.
    pub fn locked(&self) -> bool {
        self.image.control().locked()
    }

    /// What it claims, if it is in use as it should be.
    pub(crate) fn active(&self) -> Option<&Decoder> {
        self.decoder.as_ref().filter(|_| self.committed() && self.fate == Fate::Done)
    }
}

/// A device's enables as the hardware has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedDevice {
    /// The device.
    pub node: NodeId,
    /// HDM Decoder Enable: its decoders count, not its range registers.
    pub decoder_enable: bool,
    /// Mem_Enable: it answers CXL.mem.
    pub mem_enable: bool,
    /// Cache_Enable: it may cache host memory.
    pub cache_enable: bool,
    /// CONFIG_LOCK: the two above are frozen until a conventional reset.
    pub config_lock: bool,
}

impl Empty for CommittedDevice {
    const EMPTY: Self = Self {
        node: NodeId(0),
        decoder_enable: false,
        mem_enable: false,
        cache_enable: false,
        config_lock: false,
    };
}

impl CommittedDevice {
    /// Reads the enables; the number of a register that is all-ones, where the device does not answer.
    #[inline(never)]
    pub(crate) fn read(hw: &mut impl Mmio, registers: DeviceRegisters) -> Result<Self, u16> {
        let mut now = DeviceImage::EMPTY;
        now.control = registers.read_control(hw);
        now.global = registers.read_global(hw);
        now.lock = registers.read_lock(hw);
        match now.silent() {
            Some(register) => Err(register),
            None => Ok(Self {
                node: registers.node,
                decoder_enable: now.global.decoder_enable(),
                mem_enable: now.control.mem_enable(),
                cache_enable: now.control.cache_enable(),
                config_lock: now.lock.config_lock(),
            }),
        }
    }
}

/// A range of host addresses that leads to memory, on every path and to every member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedRegion {
    /// Base of the window it lies in.
    pub window: Hpa,
    /// The host addresses.
    pub span: Span,
    /// The whole set's interleave, as its devices have it.
    pub interleave: Interleave,
    /// Who keeps it coherent.
    pub coherency: Coherency,
    /// Kind of memory.
    pub partition: Partition,
    /// Every decoder on every path is locked; a pass-through bridge has none that is not.
    pub locked: bool,
    /// What was asked of the memory itself.
    pub probed: Probed,
}

impl Empty for CommittedRegion {
    const EMPTY: Self = Self {
        window: Hpa(0),
        span: Span::<Hpa>::ORIGIN,
        interleave: Interleave::NONE,
        coherency: Coherency::HostOnly,
        partition: Partition::Volatile,
        locked: false,
        probed: Probed::No,
    };
}

/// What a region's memory was asked, and answered; see [`mod@crate::probe`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probed {
    /// Nothing: only registers say that it is there.
    #[default]
    No,
    /// It was read, and did not change while other memory was written. Persistent memory is never
    /// written to.
    Read,
    /// It held marks at both ends of every way, and has its contents back.
    Held,
}

impl fmt::Display for Probed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::No => "not probed",
            Self::Read => "only read, as it is persistent",
            Self::Held => "answers at both ends of every way",
        })
    }
}

/// What a decoder held before it was written to.
#[derive(Clone, Copy, Debug)]
pub struct DecoderBefore(pub(crate) DecoderImage);

impl Empty for DecoderBefore {
    const EMPTY: Self = Self(DecoderImage {
        base_low: 0,
        base_high: 0,
        size_low: 0,
        size_high: 0,
        control: 0,
        route_low: 0,
        route_high: 0,
        reserved: 0,
    });
}

/// What a device's registers outside its decoders held before they were written to.
#[derive(Clone, Copy, Debug)]
pub struct DeviceBefore {
    pub(crate) node: NodeId,
    pub(crate) image: DeviceImage,
    /// Whether it has been switched on since.
    pub(crate) enabled: bool,
}

impl Empty for DeviceBefore {
    const EMPTY: Self = Self { node: NodeId(0), image: DeviceImage::EMPTY, enabled: false };
}

/// What the back-invalidate controls of two components held before they were written to.
#[derive(Clone, Copy, Debug)]
pub struct LinksBefore(pub(crate) [Option<(NodeId, u32)>; 2]);

impl Empty for LinksBefore {
    const EMPTY: Self = Self([None; 2]);
}

/// Places of a way that are probed.
pub(crate) const PLACES: usize = 3;

/// What the probed places of a way held before, and what they answered.
#[derive(Clone, Copy, Debug)]
pub struct WayBefore {
    pub(crate) before: [u32; PLACES],
    pub(crate) answer: [Answer; PLACES],
}

impl Empty for WayBefore {
    const EMPTY: Self = Self { before: [0; PLACES], answer: [Answer::Nothing; PLACES] };
}

/// What a place of memory answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Nothing,
    /// Another place's mark.
    Other,
    /// What it should.
    Own,
}

/// The decoders that are in use, or that a run had to do with, the regions they make, and what the
/// hardware held before.
///
/// `D` of each; about 220 bytes for each. Keep it in a static or pass it by reference.
#[derive(Clone, Debug, Default)]
pub struct Committed<const D: usize> {
    /// The decoders; those of one component by number.
    pub decoders: Vec<CommittedDecoder, D>,
    /// The devices among their components.
    pub devices: Vec<CommittedDevice, D>,
    /// The regions whose every path is whole, by ascending address.
    pub regions: Vec<CommittedRegion, D>,
    /// Whoever filled this did not come to read every decoder of the machine: some that are in use
    /// may be missing, and no table can be made.
    pub unread: bool,
    decoders_before: Vec<DecoderBefore, D>,
    devices_before: Vec<DeviceBefore, D>,
    links_before: Vec<LinksBefore, D>,
    ways_before: Vec<WayBefore, D>,
    failed: Vec<bool, D>,
}

impl<const D: usize> Committed<D> {
    /// An empty one.
    pub const fn new() -> Self {
        Self {
            decoders: Vec::new(),
            devices: Vec::new(),
            regions: Vec::new(),
            unread: false,
            decoders_before: Vec::new(),
            devices_before: Vec::new(),
            links_before: Vec::new(),
            ways_before: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        CommittedMut::from(self).clear();
    }

    /// What was accepted, whatever it lies in.
    pub fn view(&self) -> CommittedRef<'_> {
        let Self { decoders, devices, regions, unread, .. } = self;
        CommittedRef { decoders, devices, regions, unread: *unread }
    }
}

/// What was accepted, to be read, in memory of any size.
#[derive(Clone, Copy, Debug)]
pub struct CommittedRef<'a> {
    /// See [`Committed::decoders`].
    pub decoders: &'a [CommittedDecoder],
    /// See [`Committed::devices`].
    pub devices: &'a [CommittedDevice],
    /// See [`Committed::regions`].
    pub regions: &'a [CommittedRegion],
    /// See [`Committed::unread`].
    pub unread: bool,
}

impl<'a, const D: usize> From<&'a Committed<D>> for CommittedRef<'a> {
    fn from(committed: &'a Committed<D>) -> Self {
        committed.view()
    }
}

/// What was accepted, to be filled, in memory of any size.
///
/// All lists have room for as many items. Those of what was there before mean nothing to anybody
/// but the phases.
#[derive(Debug)]
pub struct CommittedMut<'a> {
    /// See [`Committed::decoders`].
    pub decoders: List<'a, CommittedDecoder>,
    /// See [`Committed::devices`].
    pub devices: List<'a, CommittedDevice>,
    /// See [`Committed::regions`].
    pub regions: List<'a, CommittedRegion>,
    /// See [`Committed::unread`].
    pub unread: &'a mut bool,
    /// In order of the plan.
    pub decoders_before: List<'a, DecoderBefore>,
    /// The devices that have a decoder in the plan.
    pub devices_before: List<'a, DeviceBefore>,
    /// In the order in which they were written.
    pub links_before: List<'a, LinksBefore>,
    /// Memory, by way of each region that is probed.
    pub ways_before: List<'a, WayBefore>,
    /// By region: whether its memory did not answer as it should.
    pub failed: List<'a, bool>,
}

impl CommittedMut<'_> {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.clear_accepted();
        self.decoders_before.clear();
        self.devices_before.clear();
        self.links_before.clear();
        self.ways_before.clear();
        self.failed.clear();
    }

    /// Forgets what is there, and not what was there before.
    pub(crate) fn clear_accepted(&mut self) {
        self.decoders.clear();
        self.devices.clear();
        self.regions.clear();
        *self.unread = false;
    }

    /// What was accepted, as it is.
    pub fn view(&self) -> CommittedRef<'_> {
        let Self { decoders, devices, regions, unread, .. } = self;
        CommittedRef { decoders, devices, regions, unread: **unread }
    }

    /// The same for a shorter time.
    pub fn reborrow(&mut self) -> CommittedMut<'_> {
        CommittedMut {
            decoders: self.decoders.reborrow(),
            devices: self.devices.reborrow(),
            regions: self.regions.reborrow(),
            unread: self.unread,
            decoders_before: self.decoders_before.reborrow(),
            devices_before: self.devices_before.reborrow(),
            links_before: self.links_before.reborrow(),
            ways_before: self.ways_before.reborrow(),
            failed: self.failed.reborrow(),
        }
    }

    /// Adds a region in order of address. One for each device decoder at most, so there is room.
    pub(crate) fn add_region(&mut self, region: CommittedRegion) {
        let at = self.regions.partition_point(|other| other.span.base() < region.span.base());
        let _ = self.regions.insert(at, region);
    }
}

impl<'a> From<&'a mut CommittedMut<'_>> for CommittedMut<'a> {
    fn from(committed: &'a mut CommittedMut<'_>) -> Self {
        committed.reborrow()
    }
}

impl<'a> From<&'a CommittedMut<'_>> for CommittedRef<'a> {
    fn from(committed: &'a CommittedMut<'_>) -> Self {
        committed.view()
    }
}

impl<'a, const D: usize> From<&'a mut Committed<D>> for CommittedMut<'a> {
    #[inline(never)]
    fn from(committed: &'a mut Committed<D>) -> Self {
        Self {
            decoders: (&mut committed.decoders).into(),
            devices: (&mut committed.devices).into(),
            regions: (&mut committed.regions).into(),
            unread: &mut committed.unread,
            decoders_before: (&mut committed.decoders_before).into(),
            devices_before: (&mut committed.devices_before).into(),
            links_before: (&mut committed.links_before).into(),
            ways_before: (&mut committed.ways_before).into(),
            failed: (&mut committed.failed).into(),
        }
    }
}
