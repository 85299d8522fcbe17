//! The policy as C says it. Zeroes are the library's default: everything in the one window that fits,
//! flat, locked, probed, or nothing.
//!
//! **Invariant**: all of it is copied into the workspace; a number that names nothing is refused.

use core::ffi::c_void;

use cxl_firmware::handoff;
use cxl_firmware::list::Slots;
use cxl_firmware::policy::{
    BrokenSets, EarlierRange, LeaveOut, OnFailure, PathPolicy, Policy, Prefer, Probe, Request,
    Reserve, SetRequest, TargetSystem, Width, WindowWidth,
};
use cxl_firmware::topology::{Partition, Path};
use cxl_regs::{Granularity, Hpa};

use crate::border::{self, Sized32};
use crate::platform::{count, fill, flag, interleave, reserved};
use crate::status::{Failure, cxl_argument};

/// A component's place: the bridge's UID and the port numbers on the way. No bus number is in it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct cxl_path {
    /// The bridge's UID.
    pub uid: u32,
    /// How many ports there are on the way, 16 at most; 0 for a bridge.
    pub port_count: u32,
    /// Their port numbers (Link Capabilities 31:24), root port first.
    pub ports: [u8; 16],
}

/// Who programs the decoders, and whether they stay as programmed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_path_policy {
    /// The library programs every decoder on each path, and locks all of them.
    LockAll = 0,
    /// The guest programs the decoders; the topology has to leave it no choice.
    GuestPrograms = 1,
    /// Describe, do not program: the operating system programs the decoders.
    Describe = 2,
    /// Program and commit, lock nothing.
    Unlocked = 3,
}

/// Whose rules the result has to satisfy beyond the specification's.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_target {
    /// Linux: what its CXL driver refuses is refused.
    Linux = 0,
    /// Nobody's.
    Specification = 1,
}

/// What a failure of one component costs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_on_failure {
    /// Everything.
    Strict = 0,
    /// That component, and what lies below it.
    BestEffort = 1,
}

/// What becomes of devices whose set lost a member, with best effort.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_broken_sets {
    /// Narrower sets, and ranges of their own for the rest.
    Narrower = 0,
    /// Each has a range of its own.
    Flat = 1,
    /// They stay unused.
    Unused = 2,
}

/// Which of several windows that fit is taken.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_prefer {
    /// None: that there are several is an error.
    None = 0,
    /// The one that spreads over the most bridges.
    Widest = 1,
    /// The one that spreads over the fewest.
    Narrowest = 2,
    /// The lowest.
    Lowest = 3,
}

/// Which memory is asked by marks whether it answers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_probe_policy {
    /// All of it: `read32` and `write32` reach the windows past the caches.
    All = 0,
    /// Regions that end below `probe_below`.
    Below = 1,
    /// None.
    Skip = 2,
}

/// How many devices share a region.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_width_kind {
    /// One: every device has ranges of its own.
    Flat = 0,
    /// As many as the topology allows.
    Widest = 1,
    /// As many as `ways` says, at `granularity`.
    Exactly = 2,
}

/// How many devices share a region.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_width {
    /// A `cxl_width_kind`.
    pub kind: u32,
    /// Ways over all levels, for `CXL_WIDTH_KIND_EXACTLY`.
    pub ways: u32,
    /// Granularity in bytes, likewise.
    pub granularity: u32,
    /// 0.
    pub reserved: u32,
}

/// The width of one window's regions.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_window_width {
    /// The window, by its base.
    pub window: u64,
    /// Its width.
    pub width: cxl_width,
}

/// A part of a device's memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_partition {
    /// Lost with power.
    Volatile = 0,
    /// Kept.
    Persistent = 1,
}

/// One region that is asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_request {
    /// The device.
    pub device: cxl_path,
    /// The window, by its base, if `has_window`; else the only one that fits.
    pub window: u64,
    /// Offset into the window, if `has_offset`; else the first free place.
    pub offset: u64,
    /// Bytes, if `has_size`; else all that is left of the partition. 0: none, the device is left
    /// out.
    pub bytes: u64,
    /// Bytes of the partition left out in front.
    pub skip: u64,
    /// A `cxl_partition`.
    pub partition: u8,
    /// Whether `window` counts.
    pub has_window: u8,
    /// Whether `offset` counts.
    pub has_offset: u8,
    /// Whether `bytes` counts.
    pub has_size: u8,
    /// 0.
    pub reserved: u32,
}

/// One region whose members are named.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_set_request {
    /// The devices, in any order.
    pub members: *const cxl_path,
    /// How many, 16 at most.
    pub member_count: u32,
    /// Granularity in bytes, in a window of one way; 0: the window's.
    pub granularity: u32,
    /// The window, by its base, if `has_window`.
    pub window: u64,
    /// Offset into the window, if `has_offset`.
    pub offset: u64,
    /// Bytes, all members together, if `has_size`.
    pub bytes: u64,
    /// Bytes of each member's partition left out in front.
    pub skip: u64,
    /// A `cxl_partition`.
    pub partition: u8,
    /// Whether `window` counts.
    pub has_window: u8,
    /// Whether `offset` counts.
    pub has_offset: u8,
    /// Whether `bytes` counts.
    pub has_size: u8,
    /// 0.
    pub reserved: u32,
}

/// What is not to be touched.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_leave_out_kind {
    /// What lies at `at`.
    Place = 0,
    /// Devices with `vendor` and `device`.
    Device = 1,
    /// The one with `vendor`, `device` and `serial`.
    Serial = 2,
}

/// What is not to be touched, from discovery on.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_leave_out {
    /// Serial number.
    pub serial: u64,
    /// A `cxl_leave_out_kind`.
    pub kind: u32,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// The place.
    pub at: cxl_path,
}

/// Room for ports that are empty: addresses, and a decoder on each level of their way.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_reserve {
    /// Bytes for each port, a multiple of 256 MiB.
    pub bytes: u64,
    /// A port, or a bridge or switch for each port below it that is empty.
    pub at: cxl_path,
    /// A `cxl_partition`.
    pub partition: u8,
    /// 0.
    pub reserved: [u8; 7],
}

/// What the owner of the machine wants. All of it is copied.
///
/// Set `size` to `sizeof(struct cxl_policy)`; zeroes are the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_policy {
    /// Bytes of this struct.
    pub size: u32,
    /// A `cxl_path_policy`.
    pub path: u32,
    /// A `cxl_target`.
    pub target: u32,
    /// A `cxl_on_failure`.
    pub on_failure: u32,
    /// A `cxl_broken_sets`.
    pub broken_sets: u32,
    /// A `cxl_prefer`.
    pub prefer: u32,
    /// A `cxl_probe_policy`.
    pub probe: u32,
    /// 1: set CONFIG_LOCK in each device once its memory is enabled.
    pub config_lock: u8,
    /// 1: commit and lock the spare decoders at size 0. Linux gives up on a port that has one.
    pub burn_spares: u8,
    /// 1: enable CXL.cache on Type 2 devices.
    pub enable_cache: u8,
    /// 1: map what is left of a set's larger members in narrower sets.
    pub map_leftovers: u8,
    /// For `CXL_PROBE_POLICY_BELOW`.
    pub probe_below: u64,
    /// How many devices share a region, in windows that `widths` does not name.
    pub width: cxl_width,
    /// 1: with best effort, lock with the first commit.
    pub no_trial: u8,
    /// 0.
    pub reserved: [u8; 3],
    /// How many windows have a width of their own.
    pub width_count: u32,
    /// How many regions are asked for.
    pub request_count: u32,
    /// How many sets.
    pub set_count: u32,
    /// How many components are required.
    pub required_count: u32,
    /// How many are left out.
    pub leave_out_count: u32,
    /// Windows with a width of their own.
    pub widths: *const cxl_window_width,
    /// Regions asked for. A device named here gets these and no others.
    pub requests: *const cxl_request,
    /// Sets asked for; their members get nothing else.
    pub sets: *const cxl_set_request,
    /// Components without which nothing is to be brought up, with best effort.
    pub required: *const cxl_path,
    /// What is not to be touched.
    pub leave_out: *const cxl_leave_out,
    /// A hand-off record of before: what can stay where it was stays. Or NULL.
    pub earlier: *const c_void,
    /// Bytes of it.
    pub earlier_size: usize,
    /// Room to be kept for what is plugged in later, which `cxl_add` brings up.
    pub reserve: *const cxl_reserve,
    /// How many entries it has.
    pub reserve_count: usize,
}

// SAFETY: repr(C), of integers, raw pointers and structs of integers.
unsafe impl Sized32 for cxl_policy {
    const FIRST: usize = size_of::<Self>();
}

/// The policy in the workspace.
pub(crate) struct Held {
    /// All but the lists.
    pub(crate) flat: Policy<'static>,
    pub(crate) requests: Slots<'static, Request>,
    pub(crate) sets: Slots<'static, SetRequest>,
    pub(crate) widths: Slots<'static, WindowWidth>,
    pub(crate) required: Slots<'static, Path>,
    pub(crate) leave_out: Slots<'static, LeaveOut>,
    pub(crate) earlier: Slots<'static, EarlierRange>,
    pub(crate) reserve: Slots<'static, Reserve>,
}

// What fills slots before anything lies there: it means nothing.
pub(crate) fn no_path() -> Path {
    Path::default()
}
pub(crate) fn no_request() -> Request {
    Request {
        device: no_path(),
        partition: Partition::Volatile,
        window: None,
        offset: None,
        size: None,
        skip: 0,
    }
}
pub(crate) fn no_set() -> SetRequest {
    SetRequest {
        members: cxl_firmware::heapless::Vec::new(),
        partition: Partition::Volatile,
        window: None,
        offset: None,
        size: None,
        skip: 0,
        granularity: None,
    }
}
pub(crate) const NO_WIDTH: WindowWidth = WindowWidth { window: Hpa(0), width: Width::Flat };
pub(crate) fn no_reserve() -> Reserve {
    Reserve { at: no_path(), partition: Partition::Volatile, size: 0 }
}
pub(crate) const NO_LEAVE_OUT: LeaveOut = LeaveOut::Device { vendor: 0, device: 0, serial: None };

/// The choice with this number.
fn choice<T: Copy>(all: &[T], what: cxl_argument, number: u32, entry: usize) -> Result<T, Failure> {
    let refused = Failure::argument(what, entry, number.into());
    all.get(count(number)).copied().ok_or(refused)
}

// In order of the numbers that C has; the constants below are those of the enums above.
const PATHS: [PathPolicy; 4] =
    [PathPolicy::LockAll, PathPolicy::GuestPrograms, PathPolicy::Describe, PathPolicy::Unlocked];
const TARGETS: [TargetSystem; 2] = [TargetSystem::Linux, TargetSystem::Specification];
const ON_FAILURE: [OnFailure; 2] = [OnFailure::Strict, OnFailure::BestEffort];
const BROKEN_SETS: [BrokenSets; 3] = [BrokenSets::Narrower, BrokenSets::Flat, BrokenSets::Unused];
const PREFER: [Option<Prefer>; 4] =
    [None, Some(Prefer::Widest), Some(Prefer::Narrowest), Some(Prefer::Lowest)];

/// A place of C.
pub(crate) fn path(given: cxl_path, entry: usize) -> Result<Path, Failure> {
    let ports = given.ports.get(..count(given.port_count));
    let refused = Failure::argument(cxl_argument::Path, entry, given.port_count.into());
    ports.and_then(|ports| Path::new(given.uid, ports)).ok_or(refused)
}

/// A place for C.
pub(crate) fn path_for_c(path: &Path) -> cxl_path {
    let mut ports = [0; 16];
    for (slot, port) in ports.iter_mut().zip(path.ports()) {
        *slot = *port;
    }
    cxl_path { uid: path.uid(), port_count: path.ports().len() as u32, ports }
}

fn width(given: cxl_width, entry: usize) -> Result<Width, Failure> {
    reserved(given.reserved, entry)?;
    let named = || interleave(given.ways, given.granularity, entry);
    match given.kind {
        kind if kind == cxl_width_kind::Flat as u32 => Ok(Width::Flat),
        kind if kind == cxl_width_kind::Widest as u32 => Ok(Width::Widest),
        kind if kind == cxl_width_kind::Exactly as u32 => named().map(Width::Exactly),
        kind => Err(Failure::argument(cxl_argument::WidthKind, entry, kind.into())),
    }
}

fn window_width(given: cxl_window_width, entry: usize) -> Result<WindowWidth, Failure> {
    Ok(WindowWidth { window: Hpa(given.window), width: width(given.width, entry)? })
}

fn partition(number: u8, entry: usize) -> Result<Partition, Failure> {
    choice(&Partition::ALL, cxl_argument::Partition, number.into(), entry)
}

fn request(given: cxl_request, entry: usize) -> Result<Request, Failure> {
    reserved(given.reserved, entry)?;
    Ok(Request {
        device: path(given.device, entry)?,
        partition: partition(given.partition, entry)?,
        window: flag(given.has_window, entry)?.then_some(Hpa(given.window)),
        offset: flag(given.has_offset, entry)?.then_some(given.offset),
        size: flag(given.has_size, entry)?.then_some(given.bytes),
        skip: given.skip,
    })
}

/// A set of C.
///
/// # Safety
///
/// The contract of C.
unsafe fn set(given: cxl_set_request, entry: usize) -> Result<SetRequest, Failure> {
    reserved(given.reserved, entry)?;
    // SAFETY: the contract of C.
    let named = unsafe { border::list(given.members, count(given.member_count)) }?;
    let mut set = no_set();
    for member in named {
        let count = || Failure::argument(cxl_argument::Members, entry, named.len() as u64);
        set.members.push(path(*member, entry)?).map_err(|_| count())?;
    }
    let granularity = Granularity::from_bytes(given.granularity.into());
    if given.granularity != 0 && granularity.is_none() {
        let found = given.granularity.into();
        return Err(Failure::argument(cxl_argument::Granularity, entry, found));
    }
    Ok(SetRequest {
        partition: partition(given.partition, entry)?,
        window: flag(given.has_window, entry)?.then_some(Hpa(given.window)),
        offset: flag(given.has_offset, entry)?.then_some(given.offset),
        size: flag(given.has_size, entry)?.then_some(given.bytes),
        skip: given.skip,
        granularity,
        ..set
    })
}

fn leave_out(given: cxl_leave_out, entry: usize) -> Result<LeaveOut, Failure> {
    let cxl_leave_out { serial, kind, vendor, device, at } = given;
    let one = (kind == cxl_leave_out_kind::Serial as u32).then_some(serial);
    match kind {
        kind if kind == cxl_leave_out_kind::Place as u32 => Ok(LeaveOut::At(path(at, entry)?)),
        kind if kind == cxl_leave_out_kind::Device as u32 || one.is_some() => {
            Ok(LeaveOut::Device { vendor, device, serial: one })
        }
        kind => Err(Failure::argument(cxl_argument::LeaveOut, entry, kind.into())),
    }
}

fn reserve(given: cxl_reserve, entry: usize) -> Result<Reserve, Failure> {
    given.reserved.iter().try_for_each(|byte| reserved(*byte, entry))?;
    let (at, partition) = (path(given.at, entry)?, partition(given.partition, entry)?);
    Ok(Reserve { at, partition, size: given.bytes })
}

impl Held {
    /// The default.
    pub(crate) fn clear(&mut self) {
        self.flat = Policy::DEFAULT;
        self.requests.list().clear();
        self.sets.list().clear();
        self.widths.list().clear();
        self.required.list().clear();
        self.leave_out.list().clear();
        self.earlier.list().clear();
        self.reserve.list().clear();
    }

    /// The policy that C says; after a failure it is the default.
    ///
    /// # Safety
    ///
    /// The contract of C.
    pub(crate) unsafe fn set(&mut self, given: *const cxl_policy) -> Result<(), Failure> {
        self.clear();
        // SAFETY: the contract of C.
        let result = unsafe { self.take(given) };
        if result.is_err() {
            self.clear();
        }
        result
    }

    /// # Safety
    ///
    /// The contract of C.
    unsafe fn take(&mut self, given: *const cxl_policy) -> Result<(), Failure> {
        // SAFETY: the contract of C.
        let given = unsafe { border::sized(given) }?;
        given.reserved.iter().try_for_each(|byte| reserved(*byte, 0))?;
        use cxl_argument as of;
        self.flat = Policy {
            path: choice(&PATHS, of::PathPolicy, given.path, 0)?,
            config_lock: flag(given.config_lock, 0)?,
            burn_spares: flag(given.burn_spares, 0)?,
            enable_cache: flag(given.enable_cache, 0)?,
            target: choice(&TARGETS, of::Target, given.target, 0)?,
            width: width(given.width, 0)?,
            prefer: choice(&PREFER, of::Prefer, given.prefer, 0)?,
            map_leftovers: flag(given.map_leftovers, 0)?,
            probe: {
                let below = Probe::Below(Hpa(given.probe_below));
                choice(&[Probe::All, below, Probe::Skip], of::Probe, given.probe, 0)?
            },
            on_failure: choice(&ON_FAILURE, of::OnFailure, given.on_failure, 0)?,
            broken_sets: choice(&BROKEN_SETS, of::BrokenSets, given.broken_sets, 0)?,
            no_trial: flag(given.no_trial, 0)?,
            ..Policy::DEFAULT
        };
        // SAFETY: the contract of C.
        let requests = unsafe { border::list(given.requests, count(given.request_count)) }?;
        // SAFETY: the contract of C.
        let sets = unsafe { border::list(given.sets, count(given.set_count)) }?;
        // SAFETY: the contract of C.
        let widths = unsafe { border::list(given.widths, count(given.width_count)) }?;
        // SAFETY: the contract of C.
        let required = unsafe { border::list(given.required, count(given.required_count)) }?;
        // SAFETY: the contract of C.
        let left_out = unsafe { border::list(given.leave_out, count(given.leave_out_count)) }?;
        // SAFETY: the contract of C.
        let earlier = unsafe { border::list(given.earlier.cast::<u8>(), given.earlier_size) }?;
        // SAFETY: the contract of C.
        let room = unsafe { border::list(given.reserve, given.reserve_count) }?;
        fill(self.requests.list(), requests, of::PolicyCount, request)?;
        fill(self.sets.list(), sets, of::PolicyCount, |given, entry| {
            // SAFETY: the contract of C.
            unsafe { set(given, entry) }
        })?;
        fill(self.widths.list(), widths, of::PolicyCount, window_width)?;
        fill(self.required.list(), required, of::PolicyCount, path)?;
        fill(self.leave_out.list(), left_out, of::PolicyCount, leave_out)?;
        fill(self.reserve.list(), room, of::PolicyCount, reserve)?;
        if !earlier.is_empty() {
            let record = handoff::read(earlier)?;
            let mut ranges = self.earlier.list();
            let room = ranges.room();
            for range in record.ranges() {
                let full = |_| Failure::room(of::PolicyCount, room, record.ranges().count());
                ranges.push(range).map_err(full)?;
            }
        }
        Ok(())
    }

    /// The policy for the phases.
    pub(crate) fn policy(&self) -> Policy<'_> {
        Policy {
            requests: self.requests.items(),
            sets: self.sets.items(),
            windows: self.widths.items(),
            required: self.required.items(),
            leave_out: self.leave_out.items(),
            earlier: self.earlier.items(),
            reserve: self.reserve.items(),
            ..self.flat
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_lies_where_its_number_says() {
        use cxl_broken_sets as Sets;
        assert_eq!(PATHS[cxl_path_policy::LockAll as usize], PathPolicy::LockAll);
        assert_eq!(PATHS[cxl_path_policy::GuestPrograms as usize], PathPolicy::GuestPrograms);
        assert_eq!(PATHS[cxl_path_policy::Describe as usize], PathPolicy::Describe);
        assert_eq!(PATHS[cxl_path_policy::Unlocked as usize], PathPolicy::Unlocked);
        assert_eq!(TARGETS[cxl_target::Specification as usize], TargetSystem::Specification);
        assert_eq!(ON_FAILURE[cxl_on_failure::BestEffort as usize], OnFailure::BestEffort);
        assert_eq!(BROKEN_SETS[Sets::Narrower as usize], BrokenSets::Narrower);
        assert_eq!(BROKEN_SETS[Sets::Flat as usize], BrokenSets::Flat);
        assert_eq!(BROKEN_SETS[Sets::Unused as usize], BrokenSets::Unused);
        assert_eq!(PREFER[cxl_prefer::None as usize], None);
        assert_eq!(PREFER[cxl_prefer::Widest as usize], Some(Prefer::Widest));
        assert_eq!(PREFER[cxl_prefer::Narrowest as usize], Some(Prefer::Narrowest));
        assert_eq!(PREFER[cxl_prefer::Lowest as usize], Some(Prefer::Lowest));
    }
}
