//! The flat path: the whole job for small machines, in a fraction of the code and of the memory.
//!
//! Windows of one way, root buses that are given, bridges with decoders of their own, and devices
//! directly below root ports; buses, forwarding windows and BARs assigned by somebody else. Each
//! device's whole capacity goes into the one window that fits, a region for each kind of memory; every
//! decoder is locked with its first commit ([`Policy::no_trial`](crate::policy::Policy) and
//! [`OnFailure::Strict`](crate::policy::OnFailure) of the general path). No memory is probed.
//!
//! ```no_run
//! # use cxl_firmware::{Error, flat, mmio::{Clock, Mmio}, platform::Platform};
//! # use cxl_regs::acpi::Identity;
//! # fn start(hw: &mut impl Mmio, clock: &mut impl Clock, platform: &Platform<'_>,
//! #     identity: Identity, table: &mut [u8], record: &mut [u8]) -> Result<(), Error> {
//! let mut work = flat::Workspace::<4, 8, 16>::new();
//! let policy = flat::Policy { config_lock: true, ..flat::Policy::default() };
//! flat::bring_up(hw, clock, platform, &policy, &mut work)?;
//! let cedt = flat::cedt(hw, platform, &mut work, identity, table)?;
//! let record = flat::hand_off(hw, platform, &mut work, None, record)?;
//! # Ok(())
//! # }
//! ```
//!
//! What it does not do it refuses by name before a decoder is written to
//! ([`DISCOVER_NOT_FLAT`](Code::DISCOVER_NOT_FLAT), [`PLAN_NOT_FLAT`](Code::PLAN_NOT_FLAT)): the general path takes
//! such a machine. Where both do, they make the same plan, the same registers, the same table and the
//! same record: `tests/flat.rs` holds one against the other.
//!
//! **Invariant**: whatever succeeds here would succeed in [`mod@crate::bring_up`], with the same result.

#![allow(
    clippy::needless_borrows_for_generic_args,
    reason = "a path is lent to errors: by value it would be copied first, and compiled once more"
)]

mod commit;
mod discover;
mod plan;
mod record;
mod verify;

use cxl_regs::access::Component;
use cxl_regs::config::{Bdf, Sbdf};
use cxl_regs::dvsec::flex_bus;
use cxl_regs::hdm::DecoderImage;
use cxl_regs::{
    Coherency, DecodeError, Decoder, Granularity, Hpa, Interleave, Route, Span, Targets,
};
use heapless::Vec;

pub use record::{cedt, hand_off};

use crate::committed::{DecoderBefore, Place};
use crate::device_registers::{DeviceImage, DeviceRegisters};
#[cfg(doc)]
use crate::error::Code;
use crate::error::{Error, Failed, Fault};
use crate::list::{Empty, List};
use crate::mmio::{Block, Clock, Mmio};
use crate::platform::Platform;
use crate::topology::{BackInvalidate, Device, Hdm, NodeId, Partition, Path};

/// How to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Set CONFIG_LOCK in each Device DVSEC once its memory is enabled.
    pub config_lock: bool,
    /// Take memory for volatile where range registers leave its kind to the CDAT, also of devices with a
    /// mailbox that this build does not ask. With the feature `mailbox` it means nothing.
    pub assume_volatile: bool,
}

/// What a decoder or a component is not flat for, by the numbers of
/// [`DISCOVER_NOT_FLAT`](Code::DISCOVER_NOT_FLAT) and [`PLAN_NOT_FLAT`](Code::PLAN_NOT_FLAT).
#[derive(Clone, Copy)]
enum NotFlat {
    // Of discovery.
    Rcrb = 0,
    RootBus = 1,
    Resources = 2,
    PassThrough = 3,
    Switch = 4,
    Committed = 5,
    Bridges = 6,
    Ports = 7,
    Remarks = 8,
}

/// The same of the plan.
#[derive(Clone, Copy)]
enum NotPlanned {
    Interleaved = 0,
    Xor = 1,
    AtZero = 2,
    NoShare = 3,
    BackInvalidate = 4,
    Regions = 5,
}

/// A host bridge of a [`Workspace`].
#[derive(Clone, Copy, Debug)]
pub struct Bridge {
    uid: u32,
    hdm: Hdm,
}

/// A root port of a [`Workspace`], and the device below it.
// What is asked everywhere lies in front, as what is behind 128 bytes takes longer code to reach.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Port {
    bridge: u16,
    number: u8,
    /// The bus below.
    bus: u8,
    /// What its link trained to, if it says.
    status: Option<flex_bus::Status>,
    function: Sbdf,
    back_invalidate: Option<BackInvalidate>,
    device: Option<Below>,
}

/// A device of a [`Port`].
#[derive(Clone, Copy, Debug)]
struct Below {
    function: Sbdf,
    device: Device,
    hdm: Option<Hdm>,
    back_invalidate: Option<BackInvalidate>,
    /// What its registers held before they were written to.
    before: DeviceImage,
}

/// One kind of memory of a device, and where it is in host addresses.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    port: u16,
    window: Hpa,
    span: Span,
    partition: Partition,
    coherency: Coherency,
    /// The window's: a decoder of one way has it for older kernels, which compare it.
    granularity: Granularity,
    /// What the decoders of the device and of the bridge held before they were written to.
    before: [DecoderBefore; 2],
}

impl Empty for Bridge {
    const EMPTY: Self = Self { uid: 0, hdm: Hdm::EMPTY };
}

impl Empty for Port {
    const EMPTY: Self = Self {
        bridge: 0,
        number: 0,
        bus: 0,
        status: None,
        function: Sbdf { segment: 0, bdf: Bdf::from_bits(0) },
        back_invalidate: None,
        device: None,
    };
}

impl Empty for Region {
    const EMPTY: Self = Self {
        port: 0,
        window: Hpa(0),
        span: Span::<Hpa>::ORIGIN,
        partition: Partition::Volatile,
        coherency: Coherency::HostOnly,
        granularity: Granularity::B256,
        before: [DecoderBefore::EMPTY; 2],
    };
}

/// Remarks that there is room for; more are refused.
const REMARKS: usize = 8;

/// What is not a list of the caller's.
#[derive(Clone, Debug, Default)]
pub struct Rest {
    remarks: Vec<Error, REMARKS>,
    /// All of it was brought up and found good.
    whole: bool,
    config_lock: bool,
}

/// Room for a machine: `B` bridges, `P` root ports, `R` regions: one for each kind of memory that a
/// device has. With 4, 8 and 16 it takes less than 4 KiB.
#[derive(Clone, Debug, Default)]
pub struct Workspace<const B: usize, const P: usize, const R: usize> {
    bridges: Vec<Bridge, B>,
    ports: Vec<Port, P>,
    regions: Vec<Region, R>,
    rest: Rest,
}

impl<const B: usize, const P: usize, const R: usize> Workspace<B, P, R> {
    /// An empty one.
    pub const fn new() -> Self {
        let rest = Rest { remarks: Vec::new(), whole: false, config_lock: false };
        Self { bridges: Vec::new(), ports: Vec::new(), regions: Vec::new(), rest }
    }
}

/// A [`Workspace`] in memory of any size.
#[derive(Debug)]
pub struct WorkspaceMut<'a> {
    /// Host bridges.
    pub bridges: List<'a, Bridge>,
    /// Root ports.
    pub ports: List<'a, Port>,
    /// Regions, by ascending address.
    pub regions: List<'a, Region>,
    /// What is not a list.
    pub rest: &'a mut Rest,
}

impl<'a, const B: usize, const P: usize, const R: usize> From<&'a mut Workspace<B, P, R>>
    for WorkspaceMut<'a>
{
    #[inline(never)]
    fn from(work: &'a mut Workspace<B, P, R>) -> Self {
        let Workspace { bridges, ports, regions, rest } = work;
        Self { bridges: bridges.into(), ports: ports.into(), regions: regions.into(), rest }
    }
}

impl WorkspaceMut<'_> {
    fn clear(&mut self) {
        self.bridges.clear();
        self.ports.clear();
        self.regions.clear();
        self.rest.remarks.clear();
        self.rest.whole = false;
        self.rest.config_lock = false;
    }

    #[inline(never)]
    fn view(&self) -> View<'_> {
        View { bridges: &self.bridges, ports: &self.ports, regions: &self.regions }
    }
}

/// Brings up all CXL memory of a flat machine: discovers, plans, programs, commits with locks, and
/// verifies.
///
/// Nothing is written to a decoder unless there is a plan for the whole machine. On an error what no
/// lock holds is put back, and no table is made.
pub fn bring_up<'a>(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    policy: &Policy,
    work: impl Into<WorkspaceMut<'a>>,
) -> Result<(), Error> {
    let mut fault = Fault::none();
    let result = phases(hw, clock, platform, policy, &mut work.into(), &mut fault);
    fault.told(result)
}

fn phases(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    policy: &Policy,
    work: &mut WorkspaceMut<'_>,
    fault: &mut Fault,
) -> Result<(), Failed> {
    work.clear();
    // Where something else answers in a window, nothing below may be read as if it were there.
    plan::windows(platform, fault)?;
    discover::discover(hw, clock, platform, policy, work, fault)?;
    plan::plan(platform, work, fault)?;
    commit::survey(hw, work, fault)?;
    let (view, config_lock, mut written) = (work.view(), policy.config_lock, 0);
    let result = commit::commit(hw, clock, config_lock, view, &mut written, fault)
        .and_then(|()| verify::verify(hw, platform, config_lock, view, fault));
    if result.is_err() {
        commit::put_back(hw, view, written);
        return result;
    }
    (work.rest.whole, work.rest.config_lock) = (true, config_lock);
    Ok(())
}

/// What was found and planned, to be read.
#[derive(Clone, Copy)]
struct View<'a> {
    bridges: &'a [Bridge],
    ports: &'a [Port],
    regions: &'a [Region],
}

/// A decoder of the plan.
#[derive(Clone, Copy)]
struct Planned<'a> {
    region: &'a Region,
    port: &'a Port,
    /// Of a bridge its own, of a device that of the port above it.
    number: u16,
    place: Place,
    hdm: &'a Hdm,
}

impl<'a> View<'a> {
    fn port(self, number: u16) -> Option<&'a Port> {
        self.ports.get(usize::from(number))
    }

    fn uid(self, port: &Port) -> u32 {
        self.bridges.get(usize::from(port.bridge)).map_or(0, |bridge| bridge.uid)
    }

    /// Where the device below a port is.
    #[inline(never)]
    fn path(self, number: u16) -> Path {
        self.at(Component::Device, number)
    }

    /// Whether a region is of a device, or of any device behind a bridge.
    #[inline(never)]
    fn has_region(self, component: Component, number: u16) -> bool {
        self.regions.iter().any(|region| self.owner(component, region) == Some(number))
    }

    /// Which of the devices or bridges a region is of.
    #[inline(always)]
    fn owner(self, component: Component, region: &Region) -> Option<u16> {
        match component {
            Component::Device => Some(region.port),
            _ => Some(self.port(region.port)?.bridge),
        }
    }

    /// The `nth` decoder of the plan in order of commit: devices, then bridges, of each by number.
    fn nth(self, nth: usize) -> Option<Planned<'a>> {
        self.nth_of(None, nth)
    }

    /// Decoder `index` of a component, if the plan has one.
    #[inline(always)]
    fn planned(self, component: usize, index: u8) -> Option<Planned<'a>> {
        self.nth_of(Some(component), index.into())
    }

    /// The `nth` decoder of the plan, of all components or of one.
    // One walk for all who go through the plan: it has few decoders.
    fn nth_of(self, of: Option<usize>, nth: usize) -> Option<Planned<'a>> {
        let mut left = nth;
        for at in 0..self.components() {
            let Some((component, number, hdm)) = self.component_with_decoders(at) else { continue };
            if of.is_some_and(|of| of != at) {
                continue;
            }
            let mut index = 0;
            for region in self.regions {
                let Some(port) = self.port(region.port) else { continue };
                let owner = if component == Component::Device { region.port } else { port.bridge };
                if owner != number {
                    continue;
                }
                if left == 0 {
                    let place = self.place(component, number, index);
                    return Some(Planned { region, port, number, place, hdm });
                }
                (left, index) = (left - 1, index + 1);
            }
        }
        None
    }

    /// What a component is, its number among its like, and its decoders, if it has any. Devices are counted
    /// first, each by the number of its port, then bridges.
    #[inline(never)]
    fn component_with_decoders(self, component: usize) -> Option<(Component, u16, &'a Hdm)> {
        match component.checked_sub(self.ports.len()) {
            None => {
                let hdm = self.ports.get(component)?.device.as_ref()?.hdm.as_ref()?;
                Some((Component::Device, component as u16, hdm))
            }
            Some(bridge) => {
                Some((Component::HostBridge, bridge as u16, &self.bridges.get(bridge)?.hdm))
            }
        }
    }

    /// How many components there are, with decoders or without.
    fn components(self) -> usize {
        self.ports.len() + self.bridges.len()
    }

    /// Whether the decoders of a device or bridge are there.
    #[inline(never)]
    fn has_decoders_at(self, block: Block) -> bool {
        let there = |nth| self.component_with_decoders(nth).is_some_and(|c| c.2.block == block);
        (0..self.components()).any(there)
    }

    /// Where a component is.
    #[inline(never)]
    fn at(self, component: Component, number: u16) -> Path {
        let at = match component {
            Component::Device => {
                let port = self.port(number);
                port.and_then(|port| Path::new(self.uid(port), &[port.number]))
            }
            _ => {
                let bridge = self.bridges.get(usize::from(number));
                bridge.and_then(|bridge| Path::new(bridge.uid, &[]))
            }
        };
        at.unwrap_or_default()
    }

    /// The place of any decoder of a component.
    #[inline(never)]
    fn place(self, component: Component, number: u16, index: u8) -> Place {
        Place { at: self.at(component, number), component, index }
    }
}

impl Planned<'_> {
    /// What its registers are to hold, without Commit and its lock.
    #[inline(never)]
    fn image(&self) -> Result<DecoderImage, DecodeError> {
        let Region { span, coherency, granularity, .. } = *self.region;
        let mut interleave = Interleave::NONE;
        let route = match self.place.component {
            Component::Device => Route::Skip(0),
            _ => {
                interleave.granularity = granularity;
                let mut targets = Targets::default();
                if let Some(first) = targets.0.first_mut() {
                    *first = self.port.number;
                }
                Route::Targets(targets)
            }
        };
        let decoder = Decoder { span, interleave, coherency, uio: None, set_position: 0, route };
        decoder.encode(self.place.component, self.hdm.capability)
    }
}

impl Below {
    fn registers(&self) -> Option<DeviceRegisters> {
        Some(DeviceRegisters::new(NodeId(0), &self.device, self.hdm?))
    }
}
