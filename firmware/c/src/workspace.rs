//! The workspace: all that the library keeps, in memory that C lends.
//!
//! **Invariant**: how much memory is needed and what lies where is said once, in [`lay_out`]; no list
//! overlaps another. The workspace is reached by one function at a time: a callback that comes back
//! finds it busy.

use core::cell::{Cell, UnsafeCell};
use core::mem::align_of;
use core::ptr;
use core::slice;

use cxl_firmware::acpi::MAX_UNREADABLE;
use cxl_firmware::bring_up::{BorrowedWorkspace, Rest, WorkspaceMut};
use cxl_firmware::commit::Receipt;
use cxl_firmware::error::Code;
use cxl_firmware::list::{Empty, Slots};
use cxl_firmware::outcome::{ComponentOutcome, Extent, outcomes};
use cxl_firmware::policy::{EarlierRange, Policy};
use cxl_firmware::topology::Tree;
use cxl_regs::{Hpa, Span};

use crate::border::{self, Sized32};
use crate::platform::{self, count};
use crate::policy;
use crate::status::{Failure, cxl_argument, cxl_error, cxl_status};

/// Alignment of a workspace's memory in bytes.
pub const CXL_WORKSPACE_ALIGN: usize = 16;

/// How large a machine the workspace has room for. What is 0, but for bridges and devices, follows
/// from these two.
///
/// Set `size` to `sizeof(struct cxl_limits)`. One more of anything than fits is an error that says so,
/// by `CXL_STATUS_ROOM` or by a number of the library.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_limits {
    /// Bytes of this struct.
    pub size: u32,
    /// Host bridges.
    pub bridges: u32,
    /// Memory devices.
    pub devices: u32,
    /// Root ports, and upstream and downstream ports of switches: 4 for each bridge and 3 for each
    /// device.
    pub ports: u32,
    /// Windows: 2 for each bridge and 4 more.
    pub windows: u32,
    /// Regions: 2 for each device.
    pub regions: u32,
    /// Decoders in use, over all components: 3 for each region. With `burn_spares` all that there
    /// are.
    pub decoders: u32,
    /// Configuration regions, and ranges of each list of `cxl_platform`: 16.
    pub ranges: u32,
    /// Entries of each list of `cxl_policy`: as many as devices, and 4 more.
    pub policy_entries: u32,
}

// SAFETY: repr(C), of integers.
unsafe impl Sized32 for cxl_limits {
    const FIRST: usize = size_of::<Self>();
}

/// How many of each there is room for.
#[derive(Clone, Copy)]
struct Counts {
    bridges: usize,
    nodes: usize,
    windows: usize,
    regions: usize,
    decoders: usize,
    ranges: usize,
    policy_entries: usize,
}

/// What the verifier's list holds.
const FINDINGS: usize = 64;
/// Remarks that may become outcomes, as many as discovery keeps.
const REMARKS: usize = 24;
/// The most of anything.
const MOST: u64 = u16::MAX as u64;

impl Counts {
    fn of(limits: &cxl_limits) -> Result<Self, Failure> {
        let cxl_limits { bridges, devices, .. } = *limits;
        let (b, d) = (u64::from(bridges), u64::from(devices));
        let or = |given: u32, derived: u64| if given == 0 { derived } else { given.into() };
        let ports = or(limits.ports, 4 * b + 3 * d);
        let regions = or(limits.regions, 2 * d);
        let decoders = or(limits.decoders, 3 * regions);
        let wanted = [
            b,
            b + d + ports,
            or(limits.windows, 2 * b + 4),
            regions,
            decoders,
            or(limits.ranges, 16),
            or(limits.policy_entries, d + 4),
        ];
        if let Some(entry) = wanted.iter().position(|number| *number > MOST) {
            let found = wanted.get(entry).copied().unwrap_or(0);
            return Err(Failure::argument(cxl_argument::Limits, entry, found));
        }
        let [bridges, nodes, windows, regions, decoders, ranges, policy_entries] =
            wanted.map(|number| number as usize);
        Ok(Self { bridges, nodes, windows, regions, decoders, ranges, policy_entries })
    }
}

/// Memory that is dealt out from its start, or only counted.
struct Memory {
    /// Where it starts; `None`: it is only counted.
    base: Option<*mut u8>,
    used: Option<usize>,
}

impl Memory {
    /// Where `count` values of a type lie next, as an offset.
    fn take<T>(&mut self, count: usize) -> Option<usize> {
        const { assert!(align_of::<T>() <= CXL_WORKSPACE_ALIGN) };
        let at = self.used?.checked_next_multiple_of(align_of::<T>());
        self.used = at.and_then(|at| at.checked_add(size_of::<T>().checked_mul(count)?));
        at
    }

    /// A list with room for `count` values, each filled first.
    fn slots<T>(&mut self, count: usize, empty: impl Fn() -> T) -> Slots<'static, T> {
        let at = self.take::<T>(count);
        let (Some(base), Some(at), Some(_)) = (self.base, at, self.used) else {
            return Slots::new(&mut []);
        };
        let first = base.wrapping_add(at).cast::<T>();
        for number in 0..count {
            // SAFETY: `lay_out` was counted before with the same numbers, and the memory is as large:
            // this lies in it, aligned by `take` as the base is aligned for all.
            unsafe { first.wrapping_add(number).write(empty()) };
        }
        // SAFETY: all of them were just written; no other list has these bytes, and nobody else has
        // the memory from now on (the contract of C), which is what 'static means here.
        Slots::new(unsafe { slice::from_raw_parts_mut(first, count) })
    }
}

/// How far the work has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// A workspace.
    Empty,
    /// A platform.
    Platform,
    /// A topology.
    Discovered,
    /// A plan.
    Planned,
    /// Decoders that were programmed, or looked at.
    Committed,
}

/// What was done to the machine, beside what the library keeps.
#[derive(Default)]
pub(crate) struct Done {
    /// What can be undone.
    pub(crate) receipt: Option<Receipt>,
    /// How much is in use of what was brought up; `None`: nothing was.
    pub(crate) extent: Option<Extent>,
}

/// What a workspace holds.
pub(crate) struct Body {
    pub(crate) platform: platform::Held,
    pub(crate) policy: policy::Held,
    pub(crate) room: BorrowedWorkspace<'static>,
    pub(crate) outcomes: Slots<'static, ComponentOutcome>,
    /// Whether `outcomes` are those of a restore.
    pub(crate) restored: bool,
    pub(crate) done: Done,
    pub(crate) stage: Stage,
    pub(crate) error: cxl_error,
}

/// All that the library keeps, in memory that the caller lends. Opaque.
pub struct cxl_workspace {
    /// [`MAGIC`] in one that was made.
    magic: u64,
    /// Where it was made.
    this: *const cxl_workspace,
    busy: Cell<bool>,
    body: UnsafeCell<Body>,
}

/// "CXL work", by which a workspace is known from memory that holds something else.
const MAGIC: u64 = u64::from_le_bytes(*b"CXL work");

/// Everything in its place.
fn lay_out(memory: &mut Memory, counts: Counts) -> Body {
    memory.take::<cxl_workspace>(1);
    let Counts { bridges, nodes, windows, regions, decoders, ranges, policy_entries } = counts;
    Body {
        platform: platform::Held {
            ecam: memory.slots(ranges, || platform::NO_ECAM),
            bridges: memory.slots(bridges, || platform::NO_BRIDGE),
            windows: memory.slots(windows, platform::no_window),
            resources: memory.slots(ranges, || platform::NO_RESOURCES),
            occupied: memory.slots(ranges, || Span::<Hpa>::ORIGIN),
            unreadable: memory.slots(MAX_UNREADABLE, || Code::PLATFORM_RECORD.error()),
            roots: memory.slots(bridges, || platform::NO_ROOT),
            address_bits: 0,
        },
        policy: policy::Held {
            flat: Policy::DEFAULT,
            requests: memory.slots(policy_entries, policy::no_request),
            sets: memory.slots(policy_entries, policy::no_set),
            widths: memory.slots(policy_entries, || policy::NO_WIDTH),
            required: memory.slots(policy_entries, policy::no_path),
            leave_out: memory.slots(policy_entries, || policy::NO_LEAVE_OUT),
            earlier: memory.slots(decoders, || EarlierRange::EMPTY),
            reserve: memory.slots(policy_entries, policy::no_reserve),
        },
        room: BorrowedWorkspace {
            nodes: memory.slots(nodes, || Empty::EMPTY),
            links: memory.slots(nodes, || Empty::EMPTY),
            uses: memory.slots(nodes, || Empty::EMPTY),
            order: memory.slots(nodes, || Empty::EMPTY),
            regions: memory.slots(regions, || Empty::EMPTY),
            placed: memory.slots(regions, || Empty::EMPTY),
            members: memory.slots(decoders, || Empty::EMPTY),
            planned: memory.slots(decoders, || Empty::EMPTY),
            notes: memory.slots(decoders, || Empty::EMPTY),
            decoders: memory.slots(decoders, || Empty::EMPTY),
            devices: memory.slots(decoders, || Empty::EMPTY),
            committed_regions: memory.slots(decoders, || Empty::EMPTY),
            decoders_before: memory.slots(decoders, || Empty::EMPTY),
            devices_before: memory.slots(decoders, || Empty::EMPTY),
            links_before: memory.slots(decoders, || Empty::EMPTY),
            ways_before: memory.slots(decoders, || Empty::EMPTY),
            failed: memory.slots(decoders, || Empty::EMPTY),
            findings: memory.slots(FINDINGS, || Empty::EMPTY),
            rest: Rest::default(),
        },
        outcomes: memory.slots(nodes.saturating_add(REMARKS), || Empty::EMPTY),
        restored: false,
        done: Done::default(),
        stage: Stage::Empty,
        error: cxl_error::default(),
    }
}

impl Body {
    /// Refuses what comes too early.
    pub(crate) fn needs(&self, stage: Stage) -> Result<(), Failure> {
        if self.stage < stage { Err(cxl_status::Order.into()) } else { Ok(()) }
    }

    /// Makes the outcomes anew, of what is known now.
    pub(crate) fn refresh(&mut self) {
        self.restored = false;
        let work = WorkspaceMut::from(&mut self.room);
        let tree = Tree(&work.topology.nodes);
        let mut list = self.outcomes.list();
        list.clear();
        // As many as there are nodes and remarks, so there is room.
        for outcome in outcomes(tree, work.topology.remarks, work.committed.view()) {
            let _ = list.push(outcome);
        }
    }
}

/// Bytes that `limits` need.
fn need(limits: &cxl_limits) -> Result<(Counts, usize), Failure> {
    let counts = Counts::of(limits)?;
    let mut memory = Memory { base: None, used: Some(0) };
    lay_out(&mut memory, counts);
    let used = memory.used.filter(|used| isize::try_from(*used).is_ok());
    let bytes = used.and_then(|used| used.checked_next_multiple_of(CXL_WORKSPACE_ALIGN));
    let bytes = bytes.ok_or(Failure::argument(cxl_argument::Limits, 0, 0))?;
    Ok((counts, bytes))
}

/// How many bytes a workspace needs that has room for so large a machine; 0 if `limits` is NULL, or
/// means nothing.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_workspace_size(limits: *const cxl_limits) -> usize {
    // SAFETY: the contract of C.
    let limits = unsafe { border::sized(limits) };
    limits.and_then(|limits| need(&limits)).map_or(0, |(_, bytes)| bytes)
}

/// Makes a workspace in `size` bytes of memory, which is the library's from now on and may be used
/// otherwise once no function gets the workspace any more. Nothing is to be freed.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_workspace_init(
    memory: *mut core::ffi::c_void,
    size: usize,
    limits: *const cxl_limits,
    workspace: *mut *mut cxl_workspace,
) -> cxl_status {
    // SAFETY: the contract of C.
    match unsafe { init(memory.cast(), size, limits, workspace) } {
        Ok(()) => cxl_status::Ok,
        Err(failure) => failure.parts().0,
    }
}

/// # Safety
///
/// The contract of C.
unsafe fn init(
    memory: *mut u8,
    size: usize,
    limits: *const cxl_limits,
    workspace: *mut *mut cxl_workspace,
) -> Result<(), Failure> {
    // SAFETY: the contract of C.
    unsafe { border::put(workspace, ptr::null_mut()) }?;
    // SAFETY: the contract of C.
    let limits = unsafe { border::sized(limits) }?;
    let (counts, bytes) = need(&limits)?;
    if memory.is_null() {
        return Err(cxl_status::Null.into());
    }
    if !memory.addr().is_multiple_of(CXL_WORKSPACE_ALIGN) {
        return Err(cxl_status::Unaligned.into());
    }
    if size < bytes {
        return Err(cxl_status::Short.into());
    }
    let mut dealt = Memory { base: Some(memory), used: Some(0) };
    let body = UnsafeCell::new(lay_out(&mut dealt, counts));
    let made = memory.cast::<cxl_workspace>();
    let value = cxl_workspace { magic: MAGIC, this: made, busy: Cell::new(false), body };
    // SAFETY: the first bytes of the memory, which `lay_out` leaves for this and which are aligned.
    unsafe { made.write(value) };
    // SAFETY: the contract of C.
    unsafe { border::put(workspace, made) }
}

/// Does something with a workspace, and keeps why it failed.
///
/// # Safety
///
/// The contract of C.
pub(crate) unsafe fn with(
    workspace: *mut cxl_workspace,
    work: impl FnOnce(&mut Body) -> Result<cxl_status, Failure>,
) -> cxl_status {
    // SAFETY: the contract of C.
    let held = match unsafe { border::object(workspace) } {
        Ok(held) => held,
        Err(failure) => return failure.parts().0,
    };
    if held.magic != MAGIC || !ptr::eq(held.this, workspace) {
        return cxl_status::Workspace;
    }
    if held.busy.replace(true) {
        return cxl_status::Busy;
    }
    // SAFETY: `busy` says that no other reference to it is there: it was false, and is false again
    // only when this one is gone.
    let body = unsafe { &mut *held.body.get() };
    let (status, error) = match work(body) {
        Ok(status) => (status, None),
        Err(failure) => {
            let (status, error) = failure.parts();
            (status, Some(error))
        }
    };
    // A list that ended is no news.
    if status != cxl_status::End {
        body.error = error.unwrap_or_default();
    }
    held.busy.set(false);
    status
}

/// How many of something there are, by a workspace; 0 if it is none.
///
/// # Safety
///
/// The contract of C.
pub(crate) unsafe fn counted(
    workspace: *mut cxl_workspace,
    count_: impl FnOnce(&mut Body) -> usize,
) -> u32 {
    let mut found = 0;
    // SAFETY: the contract of C.
    unsafe {
        with(workspace, |body| {
            found = count_(body);
            // Keeps the error of before.
            Err(cxl_status::End.into())
        })
    };
    u32::try_from(found).unwrap_or(u32::MAX)
}

/// The entry with this number; the end of the list if there is none.
pub(crate) fn entry<T>(list: &[T], index: u32) -> Result<&T, Failure> {
    list.get(count(index)).ok_or(cxl_status::End.into())
}
