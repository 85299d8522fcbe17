//! What the owner of the machine wants: who locks, what is locked, which memory goes where.
//!
//! **Invariant**: the default policy names nothing and guesses nothing: every device's whole
//! capacity, flat, in the one window that fits, everything on the path locked.

use cxl_regs::{Granularity, Hpa, Interleave, Span};
use heapless::Vec;

use crate::list::Empty;
use crate::topology::{Partition, Path};

/// Who programs the decoders, and whether they stay as programmed. The two designs are never mixed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathPolicy {
    /// Path 1: this library programs every decoder on the path and locks all of them.
    #[default]
    LockAll,
    /// Path 2: the guest programs the decoders. The topology has to be so constrained that it
    /// cannot go wrong: a pass-through bridge, exactly one port, no switch, no interleave.
    GuestPrograms,
    /// Describe, do not program: the operating system programs the decoders, of whatever topology.
    /// No decoder and no device's enable is written to, and no memory is probed; the tables have
    /// bridges and windows, and what is committed already.
    Describe,
    /// Program and commit, lock nothing: for bring-up and for systems that hot-plug.
    Unlocked,
}

/// Whose rules the result has to satisfy beyond the specification's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetSystem {
    /// Linux: what its CXL driver refuses is refused here, by name.
    #[default]
    Linux,
    /// Nobody's: everything the specification allows.
    Specification,
}

/// One region that the caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The device, by place.
    pub device: Path,
    /// Which part of its memory.
    pub partition: Partition,
    /// The window, by its base address; `None`: the only one that fits.
    pub window: Option<Hpa>,
    /// Offset into the window; `None`: the first free place.
    pub offset: Option<u64>,
    /// Bytes; `None`: all that is left of the partition; 0: none, the device is left out.
    pub size: Option<u64>,
    /// Bytes of the partition left out in front of the region's memory, a multiple of 256 MiB. No
    /// other region gets them: device addresses are handed out upwards.
    pub skip: u64,
}

/// One region whose members the caller names. A set has the order that hardware gives it, so that of
/// its members means nothing; all of them are in it, or there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetRequest {
    /// The devices, by place.
    pub members: Vec<Path, 16>,
    /// Which part of their memory.
    pub partition: Partition,
    /// The window, by its base address; `None`: the only one that can hold such a set.
    pub window: Option<Hpa>,
    /// Offset into the window; `None`: the first free place.
    pub offset: Option<u64>,
    /// Bytes, all members together; `None`: as much as the smallest member has left of each.
    pub size: Option<u64>,
    /// Bytes of each member's partition left out in front.
    pub skip: u64,
    /// Granularity, in a window of one way; `None`, and in all others: the window's.
    pub granularity: Option<Granularity>,
}

/// Which of several windows that fit is taken where nothing names one. Of those that are alike it is the
/// lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// The one that spreads over the most bridges, and a narrower one for devices that it has no set for.
    Widest,
    /// The one that spreads over the fewest.
    Narrowest,
    /// The lowest.
    Lowest,
}

/// What becomes of devices whose set lost a member, with [`OnFailure::BestEffort`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BrokenSets {
    /// Sets of as many of them as can be, and ranges of their own for the rest.
    #[default]
    Narrower,
    /// Each has a range of its own, where a window of one way fits.
    Flat,
    /// They stay unused.
    Unused,
}

/// How many devices share a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Width {
    /// One: every device has ranges of its own.
    #[default]
    Flat,
    /// This many ways, over all levels, at this granularity.
    Exactly(Interleave),
    /// As many as the topology, the components and the target system allow, at the granularity of
    /// the window.
    Widest,
}

/// A device's part in a region that was there before: an earlier hand-off record says it
/// ([`Handoff::ranges`](crate::handoff::Handoff::ranges)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlierRange {
    /// The device, by place.
    pub device: Path,
    /// Which part of its memory.
    pub partition: Partition,
    /// The region's host addresses.
    pub span: Span,
    /// The region's interleave.
    pub interleave: Interleave,
}

impl Empty for EarlierRange {
    const EMPTY: Self = Self {
        device: Path::FIRST,
        partition: Partition::Volatile,
        span: Span::<Hpa>::ORIGIN,
        interleave: Interleave::NONE,
    };
}

/// The width of one window's regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowWidth {
    /// The window, by its base address.
    pub window: Hpa,
    /// Its width.
    pub width: Width,
}

/// What a failure of one component costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Everything: either the whole machine is brought up, or nothing is.
    #[default]
    Strict,
    /// That component, and what lies below it. All others are brought up, and what was lost is told
    /// with its error. A window of the platform's that makes no sense costs what no other one can hold.
    BestEffort,
}

/// What is not to be touched, from discovery on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveOut {
    /// What lies at this place: a bridge, or all that is behind a port of it.
    At(Path),
    /// Devices with these identifiers. Their configuration space is read for them, no more.
    Device {
        /// Vendor ID.
        vendor: u16,
        /// Device ID.
        device: u16,
        /// Serial number of the Device Serial Number capability; `None`: every one.
        serial: Option<u64>,
    },
}

/// Room that is kept for devices that may be plugged in later, which [`add`](crate::bring_up::add) then
/// brings up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// A port, or a bridge or switch for each port below it. Room is kept for those that are empty.
    pub at: Path,
    /// Which part of a device's memory.
    pub partition: Partition,
    /// Bytes for each port, a multiple of 256 MiB. Of several that are about one port the largest counts.
    pub size: u64,
}

/// Which memory is asked whether it answers; see [`mod@crate::probe`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Probe {
    /// All of it: needs an [`Mmio`](crate::mmio::Mmio) that reaches the windows past the caches.
    #[default]
    All,
    /// Regions that end below this address: the processor reaches no others, as it may be in a mode
    /// that has 32 bits.
    Below(Hpa),
    /// None: the registers are believed.
    Skip,
}

impl Probe {
    /// Whether a region is probed.
    pub(crate) fn wants(self, span: Span) -> bool {
        match self {
            Self::All => true,
            Self::Below(limit) => span.last() < limit,
            Self::Skip => false,
        }
    }
}

/// How to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy<'a> {
    /// Who programs and who locks.
    pub path: PathPolicy,
    /// Set CONFIG_LOCK in each Device DVSEC once its memory is enabled.
    pub config_lock: bool,
    /// Commit and lock the spare decoders at size 0, so that nobody can add a range. Linux gives
    /// up on a port that has one, so its rules have to be waived for this.
    pub burn_spares: bool,
    /// Enable CXL.cache on Type 2 devices.
    pub enable_cache: bool,
    /// Whose rules count.
    pub target: TargetSystem,
    /// Regions asked for, in any order. A device named here gets these and no others; a device that
    /// is not gets its whole capacity mapped, a region for each partition.
    pub requests: &'a [Request],
    /// Sets asked for, in any order; as with `requests`, their members get nothing else.
    pub sets: &'a [SetRequest],
    /// How many devices share a region, in windows that `windows` does not name. Devices that
    /// `requests` names never share, and those that `sets` names share as it says.
    pub width: Width,
    /// Windows with a width of their own. A device that several windows fit goes to the one that
    /// is named here.
    pub windows: &'a [WindowWidth],
    /// Where memory was before: what can stay there stays, and what cannot is noted
    /// ([`Note::NotKept`](crate::plan::Note::NotKept)). Only what `requests` names goes elsewhere.
    pub earlier: &'a [EarlierRange],
    /// Which of several windows is taken; `None`: that there are several is an error.
    pub prefer: Option<Prefer>,
    /// A set ends where its smallest member ends. Map what is left of the others too, in narrower
    /// sets; else it is noted as unused.
    pub map_leftovers: bool,
    /// Which memory is asked whether it answers before it is described.
    pub probe: Probe,
    /// What a failure of one component costs.
    pub on_failure: OnFailure,
    /// What becomes of the others where a set loses a member.
    pub broken_sets: BrokenSets,
    /// Lock with the first commit, as [`OnFailure::Strict`] does. It saves two writes a decoder; a
    /// component that fails then costs what of its regions is locked already, as nothing of that can be
    /// planned anew.
    pub no_trial: bool,
    /// Components without which the machine is not to be brought up, whatever else a failure costs.
    pub required: &'a [Path],
    /// What is not to be touched.
    pub leave_out: &'a [LeaveOut],
    /// Room for devices that may be plugged in later: addresses above all that is mapped below the same
    /// bridge, in one window, and a free decoder on each level of the way. A plan without that room is
    /// refused, and one with it has a [note](crate::plan::Note::Reserved) for each empty port.
    pub reserve: &'a [Reserve],
}

/// What a machine has to satisfy that is only looked at: the part of a policy that says whose locks
/// and whose rules count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demands {
    /// Whether every decoder on a path has to be locked ([`PathPolicy::LockAll`]).
    pub path: PathPolicy,
    /// Whether each device in use has to have CONFIG_LOCK.
    pub config_lock: bool,
    /// Whose rules count.
    pub target: TargetSystem,
}

impl From<&Policy<'_>> for Demands {
    fn from(policy: &Policy<'_>) -> Self {
        Self { path: policy.path, config_lock: policy.config_lock, target: policy.target }
    }
}

impl Policy<'_> {
    /// The default policy, for constants.
    pub const DEFAULT: Policy<'static> = Policy {
        path: PathPolicy::LockAll,
        config_lock: false,
        burn_spares: false,
        enable_cache: false,
        target: TargetSystem::Linux,
        requests: &[],
        sets: &[],
        width: Width::Flat,
        windows: &[],
        earlier: &[],
        prefer: None,
        map_leftovers: false,
        probe: Probe::All,
        on_failure: OnFailure::Strict,
        broken_sets: BrokenSets::Narrower,
        no_trial: false,
        required: &[],
        leave_out: &[],
        reserve: &[],
    };

    /// The policy as the phases have it: who describes only asks nothing of memory, and freezes nothing.
    pub(crate) fn effective(self) -> Self {
        match self.path {
            PathPolicy::Describe => Self { probe: Probe::Skip, config_lock: false, ..self },
            PathPolicy::LockAll | PathPolicy::GuestPrograms | PathPolicy::Unlocked => self,
        }
    }

    /// The width of the window at this base.
    pub fn width_of(&self, window: Option<Hpa>) -> Width {
        let named = self.windows.iter().find(|named| Some(named.window) == window);
        named.map_or(self.width, |named| named.width)
    }
}
