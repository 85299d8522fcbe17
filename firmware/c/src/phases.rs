//! The phases, one function each, and all of them in one call.
//!
//! **Invariant**: a phase runs only on what the one before made; after a phase failed, those behind it
//! are refused.

use cxl_firmware::bring_up::{Extent, WorkspaceMut, add, bring_up, inspect};
use cxl_firmware::commit::{commit, undo};
use cxl_firmware::discover::discover_as;
use cxl_firmware::error::Error;
use cxl_firmware::plan::plan;
use cxl_firmware::platform::Platform;
use cxl_firmware::policy::{PathPolicy, Policy, Probe};
use cxl_firmware::probe::probe;
use cxl_firmware::topology::Tree;
use cxl_firmware::verify::{verify, verify_plan};
use cxl_firmware::windows::{self, Sizing};
use cxl_regs::{Granularity, Hpa, Span};

use crate::border;
use crate::hardware::{Machine, cxl_hardware};
use crate::platform::{self, count, cxl_platform, cxl_range, span};
use crate::policy::cxl_policy;
use crate::results;
use crate::status::{Failure, cxl_argument, cxl_status};
use crate::workspace::{Body, Done, Stage, cxl_workspace, with};

/// Ranges that `cxl_size_windows` takes.
const MOST_FREE: usize = 16;

/// Says what the platform is, and forgets everything else but the policy.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_set_platform(
    workspace: *mut cxl_workspace,
    platform: *const cxl_platform,
) -> cxl_status {
    let work = |body: &mut Body| {
        body.stage = Stage::Empty;
        body.done = Done::default();
        // SAFETY: the contract of C.
        unsafe { body.platform.set(platform) }?;
        body.stage = Stage::Platform;
        Ok(cxl_status::Ok)
    };
    // SAFETY: the contract of C.
    unsafe { with(workspace, work) }
}

/// Says what is wanted. Without it, and after it failed, it is the default: everything in the one
/// window that fits, flat, locked, probed, or nothing.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_set_policy(
    workspace: *mut cxl_workspace,
    policy: *const cxl_policy,
) -> cxl_status {
    let work = |body: &mut Body| {
        // What was planned by another policy counts no more.
        body.stage = body.stage.min(Stage::Discovered);
        body.done = Done::default();
        // SAFETY: the contract of C.
        unsafe { body.policy.set(policy) }?;
        Ok(cxl_status::Ok)
    };
    // SAFETY: the contract of C.
    unsafe { with(workspace, work) }
}

/// A phase: what it needs, and how far the work has come after it.
#[derive(Clone, Copy)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    pub(crate) needs: Stage,
    pub(crate) reached: Stage,
    /// After a failure.
    pub(crate) failed: Stage,
}

/// What a phase works on.
pub(crate) struct Parts<'a> {
    pub(crate) machine: Machine<'a>,
    pub(crate) platform: Platform<'a>,
    pub(crate) policy: Policy<'a>,
    pub(crate) work: WorkspaceMut<'a>,
    pub(crate) done: &'a mut Done,
    planned: bool,
}

impl Phase {
    /// Runs it on the machine, and tells the log what came of it.
    ///
    /// # Safety
    ///
    /// The contract of C.
    pub(crate) unsafe fn run(
        self,
        body: &mut Body,
        hardware: *const cxl_hardware,
        work: impl FnOnce(Parts<'_>) -> Result<Extent, Error>,
    ) -> Result<Extent, Failure> {
        // SAFETY: the contract of C.
        let machine = unsafe { Machine::of(hardware) }?;
        body.needs(self.needs)?;
        let platform = body.platform.platform();
        let result = work(Parts {
            machine: machine.with_ecam(platform.ecam),
            platform,
            policy: body.policy.policy(),
            work: (&mut body.room).into(),
            done: &mut body.done,
            planned: body.stage >= Stage::Planned,
        });
        body.stage = if result.is_ok() { self.reached } else { self.failed };
        body.refresh();
        results::log(body, &machine, self.name, result.err());
        Ok(result?)
    }
}

/// How much is in use, as a status.
pub(crate) fn status_of(extent: Extent) -> cxl_status {
    match extent {
        Extent::Whole => cxl_status::Ok,
        Extent::Less { .. } => cxl_status::Less,
    }
}

/// Runs a phase.
///
/// # Safety
///
/// The contract of C.
unsafe fn run(
    workspace: *mut cxl_workspace,
    hardware: *const cxl_hardware,
    phase: Phase,
    work: impl FnOnce(Parts<'_>) -> Result<Extent, Error>,
) -> cxl_status {
    // SAFETY: the contract of C.
    let work = |body: &mut Body| unsafe { phase.run(body, hardware, work) }.map(status_of);
    // SAFETY: the contract of C.
    unsafe { with(workspace, work) }
}

/// Finds what is there below the platform's bridges. Writes only what lets it look, or assigns.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_discover(
    workspace: *mut cxl_workspace,
    hardware: *const cxl_hardware,
) -> cxl_status {
    let phase = Phase {
        name: "discover",
        needs: Stage::Platform,
        reached: Stage::Discovered,
        failed: Stage::Platform,
    };
    let work = |parts: Parts<'_>| {
        let Parts { mut machine, platform, policy, work, done, .. } = parts;
        *done = Done::default();
        let WorkspaceMut { topology, mut plan, mut committed, mut findings, probe } = work;
        plan.clear();
        committed.clear();
        // Until somebody has looked.
        *committed.unread = true;
        findings.clear();
        probe.clear();
        let mut clock = machine;
        discover_as(&mut machine, &mut clock, &platform, &policy, topology)?;
        Ok(Extent::Whole)
    };
    // SAFETY: the contract of C.
    unsafe { run(workspace, hardware, phase, work) }
}

/// Sizes windows by what was discovered and places them in `free`, for a root complex that software
/// programs: one for each bridge, and with `across`, a granularity in bytes, one over several bridges
/// for each kind of memory. 0: none of those. The platform must have no windows yet; `cxl_window_at`
/// gives them afterwards.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_size_windows(
    workspace: *mut cxl_workspace,
    free: *const cxl_range,
    free_count: u32,
    across: u32,
) -> cxl_status {
    let work = |body: &mut Body| {
        body.needs(Stage::Discovered)?;
        // SAFETY: the contract of C.
        let free = unsafe { border::list(free, count(free_count)) }?;
        let granularity = Granularity::from_bytes(across.into());
        if across != 0 && granularity.is_none() {
            return Err(Failure::argument(cxl_argument::Granularity, 0, across.into()));
        }
        let had = body.platform.windows.items().len();
        if had != 0 {
            return Err(Failure::argument(cxl_argument::WindowCount, 0, had as u64));
        }
        let mut spans = [Span::<Hpa>::ORIGIN; MOST_FREE];
        let room = spans.get_mut(..free.len());
        let spans = room.ok_or(Failure::room(cxl_argument::RangeCount, MOST_FREE, free.len()))?;
        for (entry, (place, range)) in spans.iter_mut().zip(free).enumerate() {
            *place = span(*range, entry)?;
        }
        let held = &mut body.platform;
        let platform::Held { ecam, bridges, windows, resources, occupied, unreadable, .. } = held;
        let bare = Platform {
            ecam: ecam.items(),
            bridges: bridges.items(),
            windows: &[],
            address_bits: held.address_bits,
            resources: resources.items(),
            occupied: occupied.items(),
            unreadable: unreadable.items(),
        };
        let tree = Tree(body.room.nodes.items());
        let sizing = Sizing { free: spans, across: granularity };
        windows::place(&bare, tree, &sizing, windows.list())?;
        Ok(cxl_status::Ok)
    };
    // SAFETY: the contract of C.
    unsafe { with(workspace, work) }
}

/// Plans which decoder will claim which range. No register is touched.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_plan(
    workspace: *mut cxl_workspace,
    hardware: *const cxl_hardware,
) -> cxl_status {
    let phase = Phase {
        name: "plan",
        needs: Stage::Discovered,
        reached: Stage::Planned,
        failed: Stage::Discovered,
    };
    let work = |parts: Parts<'_>| {
        *parts.done = Done::default();
        let tree = Tree(&parts.work.topology.nodes);
        plan(&parts.platform, tree, &parts.policy, parts.work.plan)?;
        Ok(Extent::Whole)
    };
    // SAFETY: the contract of C.
    unsafe { run(workspace, hardware, phase, work) }
}

/// Programs, commits and, by policy, locks every decoder of the plan, or puts back what can be.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_commit(
    workspace: *mut cxl_workspace,
    hardware: *const cxl_hardware,
) -> cxl_status {
    let phase = Phase {
        name: "commit",
        needs: Stage::Planned,
        reached: Stage::Committed,
        failed: Stage::Planned,
    };
    let work = |parts: Parts<'_>| {
        let Parts { mut machine, policy, mut work, done, .. } = parts;
        let (tree, mut clock) = (Tree(&work.topology.nodes), machine);
        let wanted = work.plan.view();
        let committed = &mut work.committed;
        let receipt = commit(&mut machine, &mut clock, tree, wanted, &policy, committed)?;
        // One that wrote nothing undoes nothing; an earlier one still can.
        if done.receipt.is_none() || receipt.written() > 0 {
            done.receipt = Some(receipt);
        } else {
            receipt.keep();
        }
        Ok(Extent::Whole)
    };
    // SAFETY: the contract of C.
    unsafe { run(workspace, hardware, phase, work) }
}

/// Proves that what is committed is whole: against the plan if there is one, else by itself. Only
/// reads.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_verify(
    workspace: *mut cxl_workspace,
    hardware: *const cxl_hardware,
) -> cxl_status {
    let phase = Phase {
        name: "verify",
        needs: Stage::Discovered,
        reached: Stage::Committed,
        failed: Stage::Committed,
    };
    let work = |parts: Parts<'_>| {
        let Parts { mut machine, platform, policy, mut work, planned, .. } = parts;
        let tree = Tree(&work.topology.nodes);
        let (committed, mut findings) = (&mut work.committed, work.findings);
        if planned {
            let plan = work.plan.view();
            let found = findings.reborrow();
            verify_plan(&mut machine, &platform, tree, plan, &policy, committed, found);
        } else {
            verify(&mut machine, &platform, tree, &policy, committed, findings.reborrow());
        }
        let failure = findings.list.iter().find(|finding| finding.is_failure());
        failure.map_or(Ok(Extent::Whole), |finding| Err(*finding))
    };
    // SAFETY: the contract of C.
    unsafe { run(workspace, hardware, phase, work) }
}

/// Asks memory whether it answers, and gives it its contents back. Nobody else may use it meanwhile.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_probe(
    workspace: *mut cxl_workspace,
    hardware: *const cxl_hardware,
) -> cxl_status {
    let phase = Phase {
        name: "probe",
        needs: Stage::Committed,
        reached: Stage::Committed,
        failed: Stage::Committed,
    };
    let work = |parts: Parts<'_>| {
        let Parts { mut machine, platform, policy, mut work, .. } = parts;
        let tree = Tree(&work.topology.nodes);
        let wanted = match policy.path {
            PathPolicy::Describe => Probe::Skip,
            _ => policy.probe,
        };
        probe(&mut machine, &platform, tree, wanted, &mut work.committed, work.probe)?;
        Ok(Extent::Whole)
    };
    // SAFETY: the contract of C.
    unsafe { run(workspace, hardware, phase, work) }
}

/// Puts back what `cxl_commit` has written and no lock holds.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_undo(
    workspace: *mut cxl_workspace,
    hardware: *const cxl_hardware,
) -> cxl_status {
    let phase = Phase {
        name: "undo",
        needs: Stage::Committed,
        reached: Stage::Committed,
        failed: Stage::Committed,
    };
    let work = |parts: Parts<'_>| {
        let Parts { mut machine, policy, mut work, done, .. } = parts;
        if let Some(receipt) = done.receipt.take() {
            let tree = Tree(&work.topology.nodes);
            undo(&mut machine, tree, work.plan.view(), &policy, &mut work.committed, receipt);
        }
        Ok(Extent::Whole)
    };
    // SAFETY: the contract of C.
    unsafe { run(workspace, hardware, phase, work) }
}

/// Discover, plan, commit, verify and probe in one call; what can be is put back where one fails. With
/// `CXL_ON_FAILURE_BEST_EFFORT` the result may be `CXL_STATUS_LESS`.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_bring_up(
    workspace: *mut cxl_workspace,
    hardware: *const cxl_hardware,
) -> cxl_status {
    let phase = Phase {
        name: "bring up",
        needs: Stage::Platform,
        reached: Stage::Committed,
        // The record says what became of each decoder.
        failed: Stage::Discovered,
    };
    let work = |parts: Parts<'_>| {
        let Parts { mut machine, platform, policy, work, done, .. } = parts;
        *done = Done::default();
        let mut clock = machine;
        let extent = bring_up(&mut machine, &mut clock, &platform, &policy, work)?;
        done.extent = Some(extent);
        Ok(extent)
    };
    // SAFETY: the contract of C.
    unsafe { run(workspace, hardware, phase, work) }
}

/// Brings up what was plugged in later, beside what is in use: each device that has no committed
/// decoder. Nothing that is committed is written to, nothing of what is there moves, and whatever fails of
/// what came costs nothing that is there; components, regions and tables are those of the whole machine
/// afterwards. Room is kept beforehand by `cxl_policy.reserve`, and for the ports that are still empty it
/// is here too.
///
/// The whole machine is looked at: nobody else may use configuration space and mailboxes meanwhile.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_add(
    workspace: *mut cxl_workspace,
    hardware: *const cxl_hardware,
) -> cxl_status {
    let phase = Phase {
        name: "add",
        needs: Stage::Platform,
        reached: Stage::Committed,
        failed: Stage::Discovered,
    };
    let work = |parts: Parts<'_>| {
        let Parts { mut machine, platform, policy, work, done, .. } = parts;
        *done = Done::default();
        let mut clock = machine;
        let extent = add(&mut machine, &mut clock, &platform, &policy, work)?;
        done.extent = Some(extent);
        Ok(extent)
    };
    // SAFETY: the contract of C.
    unsafe { run(workspace, hardware, phase, work) }
}

/// Finds what is there and verifies it, whoever programmed it; writes to no decoder.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_inspect(
    workspace: *mut cxl_workspace,
    hardware: *const cxl_hardware,
) -> cxl_status {
    let phase = Phase {
        name: "inspect",
        needs: Stage::Platform,
        reached: Stage::Committed,
        failed: Stage::Discovered,
    };
    let work = |parts: Parts<'_>| {
        let Parts { mut machine, platform, policy, work, done, .. } = parts;
        *done = Done::default();
        let mut clock = machine;
        inspect(&mut machine, &mut clock, &platform, &policy, work)?;
        Ok(Extent::Whole)
    };
    // SAFETY: the contract of C.
    unsafe { run(workspace, hardware, phase, work) }
}
