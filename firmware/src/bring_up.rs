//! The whole job in one call: discover, plan, commit, verify, probe. Or the two ends of it, for a machine
//! that somebody else programmed.
//!
//! **Invariant**: each phase's result is plain data in the caller's [`Workspace`], and a phase runs
//! only on what the one before has proved.

mod best_effort;

use crate::built;
use crate::commit::{How, Job, commit_all, undo};
use crate::committed::{
    Committed, CommittedDecoder, CommittedDevice, CommittedMut, CommittedRegion, DecoderBefore,
    DeviceBefore, LinksBefore, WayBefore,
};
use crate::discover::{Remarks, discover, discover_as};
use crate::error::{Code, Error, Numbered, Place};
use crate::handoff::{Contents, TableLocation};
use crate::list::Slots;
use crate::mmio::{Clock, Mmio};
pub use crate::outcome::Extent;
use crate::outcome::{ComponentOutcome, outcomes};
use crate::plan::{
    Member, NodeUse, Note, Placed, Plan, PlanMut, PlanRef, PlannedDecoder, Refusals, Region, plan,
    plan_beside,
};
use crate::platform::{Ecam, Platform};
use crate::policy::{Demands, OnFailure, Policy};
use crate::probe::{ProbeErrors, probe, probe_only};
use crate::tables;
use crate::topology::{Link, Node, NodeId, Topology, TopologyMut, Tree};
use crate::verify::{Findings, FindingsMut, Tally, verify, verify_plan};
use crate::window_check;
use cxl_regs::acpi::Identity;
use cxl_regs::hdm::Control;

/// Room for a machine: `N` nodes, `R` regions, `D` decoders.
///
/// Keep it in a static: it is far too large for a boot stack. See each part for its size.
#[derive(Debug, Default)]
pub struct Workspace<const N: usize, const R: usize, const D: usize> {
    /// What exists.
    pub topology: Topology<N>,
    /// What is wanted.
    pub plan: Plan<N, R, D>,
    /// What the hardware accepted.
    pub committed: Committed<D>,
    /// What the verifier found wrong; empty after success.
    pub findings: Findings<64>,
    /// What memory did that it must not; empty after success, or where none was probed.
    pub probe: ProbeErrors,
}

impl<const N: usize, const R: usize, const D: usize> Workspace<N, R, D> {
    /// An empty one.
    pub const fn new() -> Self {
        Self {
            topology: Topology::new(),
            plan: Plan::new(),
            committed: Committed::new(),
            findings: Findings::new(),
            probe: ProbeErrors::new(),
        }
    }

    /// What the hand-off record is made from; `cedt` is where the table of it lies.
    pub fn contents<'a>(&'a self, ecam: &'a [Ecam], cedt: Option<TableLocation>) -> Contents<'a> {
        Contents {
            ecam,
            topology: self.topology.tree(),
            remarks: &self.topology.remarks,
            committed: self.committed.view(),
            cedt,
        }
    }

    /// What became of each component.
    pub fn outcomes(&self) -> impl Iterator<Item = ComponentOutcome> + '_ {
        outcomes(&self.topology, &self.topology.remarks, &self.committed)
    }
}

/// A [`Workspace`] in memory of any size.
#[derive(Debug)]
pub struct WorkspaceMut<'a> {
    /// See [`Workspace::topology`].
    pub topology: TopologyMut<'a>,
    /// See [`Workspace::plan`].
    pub plan: PlanMut<'a>,
    /// See [`Workspace::committed`].
    pub committed: CommittedMut<'a>,
    /// See [`Workspace::findings`].
    pub findings: FindingsMut<'a>,
    /// See [`Workspace::probe`].
    pub probe: &'a mut ProbeErrors,
}

impl WorkspaceMut<'_> {
    /// The same for a shorter time.
    fn reborrow(&mut self) -> WorkspaceMut<'_> {
        let Self { topology, plan, committed, findings, probe } = self;
        WorkspaceMut {
            topology: topology.reborrow(),
            plan: plan.reborrow(),
            committed: committed.reborrow(),
            findings: findings.reborrow(),
            probe,
        }
    }

    /// Forgets an earlier run.
    fn clear(&mut self) {
        self.topology.clear();
        self.plan.clear();
        self.committed.clear();
        // Until somebody has looked.
        *self.committed.unread = true;
        self.findings.clear();
        self.probe.clear();
    }
}

impl<'a, const N: usize, const R: usize, const D: usize> From<&'a mut Workspace<N, R, D>>
    for WorkspaceMut<'a>
{
    fn from(work: &'a mut Workspace<N, R, D>) -> Self {
        let Workspace { topology, plan, committed, findings, probe } = work;
        Self {
            topology: topology.into(),
            plan: plan.into(),
            committed: committed.into(),
            findings: findings.into(),
            probe,
        }
    }
}

/// A workspace in memory of a size known at run time.
///
/// Lists that stand together below have room for as many items each: those of the topology's nodes,
/// of the plan's regions, and of decoders.
#[derive(Debug)]
#[allow(missing_docs, reason = "each is the list of its name in the parts of WorkspaceMut")]
pub struct BorrowedWorkspace<'m> {
    pub nodes: Slots<'m, Node>,
    pub links: Slots<'m, Link>,
    pub uses: Slots<'m, NodeUse>,
    pub order: Slots<'m, NodeId>,

    pub regions: Slots<'m, Region>,
    pub placed: Slots<'m, Placed>,

    pub members: Slots<'m, Member>,
    pub planned: Slots<'m, PlannedDecoder>,
    pub notes: Slots<'m, Note>,
    pub decoders: Slots<'m, CommittedDecoder>,
    pub devices: Slots<'m, CommittedDevice>,
    pub committed_regions: Slots<'m, CommittedRegion>,
    pub decoders_before: Slots<'m, DecoderBefore>,
    pub devices_before: Slots<'m, DeviceBefore>,
    pub links_before: Slots<'m, LinksBefore>,
    pub ways_before: Slots<'m, WayBefore>,
    pub failed: Slots<'m, bool>,

    pub findings: Slots<'m, Error>,
    /// What is not a list.
    pub rest: Rest,
}

/// What a workspace has that is not a list of the caller's.
#[derive(Debug, Default)]
pub struct Rest {
    remarks: Remarks,
    refusals: Refusals,
    unread: bool,
    tally: Tally,
    probe: ProbeErrors,
}

impl Rest {
    /// What discovery remarked.
    pub fn remarks(&self) -> &Remarks {
        &self.remarks
    }

    /// What memory did that it must not.
    pub fn probe(&self) -> &ProbeErrors {
        &self.probe
    }
}

impl<'a> From<&'a mut BorrowedWorkspace<'_>> for WorkspaceMut<'a> {
    fn from(work: &'a mut BorrowedWorkspace<'_>) -> Self {
        let Rest { remarks, refusals, unread, tally, probe } = &mut work.rest;
        Self {
            topology: TopologyMut { nodes: work.nodes.list(), links: work.links.list(), remarks },
            plan: PlanMut {
                regions: work.regions.list(),
                members: work.members.list(),
                decoders: work.planned.list(),
                notes: work.notes.list(),
                refusals,
                uses: work.uses.list(),
                order: work.order.list(),
                placed: work.placed.list(),
            },
            committed: CommittedMut {
                decoders: work.decoders.list(),
                devices: work.devices.list(),
                regions: work.committed_regions.list(),
                unread,
                decoders_before: work.decoders_before.list(),
                devices_before: work.devices_before.list(),
                links_before: work.links_before.list(),
                ways_before: work.ways_before.list(),
                failed: work.failed.list(),
            },
            findings: FindingsMut { list: work.findings.list(), tally },
            probe,
        }
    }
}

/// Brings up all CXL memory of a platform as the policy says.
///
/// Strict, nothing is written to a decoder unless there is a plan for the whole machine. On an error
/// the workspace says how far it came and what became of each decoder; what can still be put back is,
/// also where the verifier is not content, or where memory does not answer.
///
/// With [`OnFailure::BestEffort`] an error costs the component that it is about: see [`Extent`]. The
/// same is done without locks first, and locked once all of it is found good.
pub fn bring_up<'a>(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    work: impl Into<WorkspaceMut<'a>>,
) -> Result<Extent, Error> {
    run(hw, clock, platform, policy, Scope::All, work.into())
}

/// Brings up what came later, beside what is in use: each device that has no committed decoder. Nothing
/// that is committed is written to, and of the regions that are there none moves; they are verified, and
/// have to be as the policy wants them.
///
/// Discovery looks at the whole machine, so nobody else may use configuration space and mailboxes
/// meanwhile. Memory of regions that were there is not probed. Where there is no room above what the
/// device's bridge leads to already, or no decoder left, as they are locked or burned, that is an error by
/// name, or with [`OnFailure::BestEffort`] what the device is lost to. [`Policy::reserve`] keeps room
/// beforehand, and for the ports that are still empty it does here too.
///
/// Afterwards the workspace has the whole machine: [`CommittedMut`] what was there and what came, the plan
/// what came.
pub fn add<'a>(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    work: impl Into<WorkspaceMut<'a>>,
) -> Result<Extent, Error> {
    if cfg!(not(feature = "hot-plug")) {
        return Err(built::Feature::HotPlug.not_built(Place::default()));
    }
    run(hw, clock, platform, policy, Scope::Later, work.into())
}

/// How often the registers may have changed when a table is held against them.
const LOOKS: u8 = 3;

/// The CEDT of what [`bring_up`] left, held against the registers once more, and how much is in use.
///
/// With [`OnFailure::BestEffort`], a component that changed since it was verified, or went away, costs itself
/// here too: the machine is brought up once more, which takes what is locked as it is, and the table is made
/// of what that finds. So nobody may use the memory yet; and it changes the workspace, so make whatever else
/// says what is in use afterwards. Without locks a plan without that component may have other addresses for
/// its neighbours, which are in use at theirs then, and lost.
#[allow(
    clippy::too_many_arguments,
    reason = "those of bring_up, its result, and those of the table"
)]
pub fn describe<'a, 'b>(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    work: impl Into<WorkspaceMut<'a>>,
    extent: Extent,
    identity: Identity,
    buffer: &'b mut [u8],
) -> Result<(&'b [u8], Extent), Error> {
    let (mut work, mut extent, mut looks) = (work.into(), extent, LOOKS);
    let length = loop {
        let (tree, committed) = (Tree(&work.topology.nodes), work.committed.view());
        let cedt = tables::cedt_as(platform, tree, committed, policy, identity, &mut *buffer)?;
        let Err(error) = tables::cross_check_hardware(hw, cedt, tree, committed) else {
            break cedt.len();
        };
        let changed = [Code::TABLES_CHANGED, Code::TABLES_DEVICE_CHANGED, Code::TABLES_SILENT];
        let again = cfg!(feature = "degrade") && policy.on_failure == OnFailure::BestEffort;
        if !again || looks == 0 || !changed.contains(&error.code) {
            return Err(error);
        }
        looks -= 1;
        extent = run(hw, clock, platform, policy, Scope::All, work.reborrow())?;
    };
    Ok((buffer.get(..length).unwrap_or(&[]), extent))
}

/// What is brought up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The whole machine.
    All,
    /// What has no committed decoder.
    Later,
}

impl Scope {
    /// Whether it is what came later; what a build cannot reach is not linked.
    fn is_later(self) -> bool {
        cfg!(feature = "hot-plug") && self == Self::Later
    }

    /// What is to be committed, and how far.
    fn job<'a>(
        self,
        tree: Tree<'a>,
        plan: PlanRef<'a>,
        policy: &'a Policy<'a>,
        how: How,
    ) -> Job<'a> {
        Job { tree, plan, policy, beside: self.is_later(), how }
    }
}

// Compiled once, whatever the workspace is.
#[inline(never)]
fn run(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    scope: Scope,
    mut work: WorkspaceMut<'_>,
) -> Result<Extent, Error> {
    work.clear();
    let policy = &policy.effective();
    built::brings_up(policy)?;
    // Where something else answers in a window, nothing below may be read as if it were there.
    window_check::windows(platform, policy.on_failure)?;
    match policy.on_failure {
        OnFailure::BestEffort if cfg!(not(feature = "degrade")) => {
            Err(built::Feature::Degrade.not_built(Place::default()))
        }
        OnFailure::Strict => {
            strict(hw, clock, platform, policy, scope, work).map(|()| Extent::Whole)
        }
        OnFailure::BestEffort => best_effort::run(hw, clock, platform, policy, scope, work),
    }
}

/// Holds registers against a plan that was committed, and asks memory; gives what memory answered.
fn check(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    tree: Tree<'_>,
    wanted: PlanRef<'_>,
    policy: &Policy<'_>,
    scope: Scope,
    (committed, findings, errors): (&mut CommittedMut<'_>, &mut FindingsMut<'_>, &mut ProbeErrors),
) -> Result<(), Error> {
    if scope.is_later() {
        verify(hw, platform, tree, policy, &mut *committed, &mut *findings);
    } else {
        verify_plan(hw, platform, tree, wanted, policy, &mut *committed, &mut *findings);
    }
    // Also where the verifier is not content. What was there before is others' memory by now.
    let only = scope.is_later().then_some(wanted.regions);
    probe_only(hw, platform, tree, policy.probe, only, committed.reborrow(), errors)
}

// Compiled once, whatever the workspace is.
#[inline(never)]
fn strict(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    scope: Scope,
    work: WorkspaceMut<'_>,
) -> Result<(), Error> {
    let WorkspaceMut { mut topology, plan: mut wanted, mut committed, mut findings, probe: errors } =
        work;
    discover_as(hw, clock, platform, policy, topology.reborrow())?;
    let tree = Tree(&topology.nodes);
    if scope.is_later() {
        verify(hw, platform, tree, policy, &mut committed, &mut findings);
        judge(&findings)?;
        plan_beside(platform, tree, policy, committed.view(), wanted.reborrow())?;
    } else {
        plan(platform, tree, policy, wanted.reborrow())?;
    }
    let wanted = wanted.view();
    let job = scope.job(tree, wanted, policy, How::Whole);
    let receipt = match commit_all(hw, clock, job, &mut committed) {
        Ok(receipt) => receipt,
        Err(error) => {
            // What is whole and locked stays in use, if it answers.
            let _ = probe(hw, platform, tree, policy.probe, &mut committed, errors);
            note_silent(hw, &mut topology.nodes, &committed);
            return Err(error);
        }
    };
    let seen = (&mut committed, &mut findings, errors);
    let probed = check(hw, platform, tree, wanted, policy, scope, seen);
    if findings.passed() && probed.is_ok() {
        receipt.keep();
    } else {
        undo(hw, tree, wanted, policy, &mut committed, receipt);
        note_silent(hw, &mut topology.nodes, &committed);
    }
    judge(&findings)?;
    probed
}

/// After a failure: of what does not answer any more nothing is in the list of decoders, and its fault
/// says why.
#[inline(never)]
fn note_silent(hw: &mut impl Mmio, nodes: &mut [Node], committed: &CommittedMut<'_>) {
    for at in (0..nodes.len()).filter(|_| *committed.unread) {
        let (tree, id) = (Tree(nodes), NodeId(at as u16));
        if !best_effort::is_silent(hw, tree, id) {
            continue;
        }
        let error = Code::COMMIT_SILENT.at(tree.path(id)).detail(Control::NUMBER);
        if let Some(node) = nodes.get_mut(at) {
            node.fault = Some(error);
        }
    }
}

/// Finds what is there and verifies it, whoever programmed it; writes to no decoder.
///
/// `demands` may be a whole [`Policy`]. The plan stays empty.
pub fn inspect<'a>(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    demands: impl Into<Demands>,
    work: impl Into<WorkspaceMut<'a>>,
) -> Result<(), Error> {
    let mut work = work.into();
    work.clear();
    let WorkspaceMut { mut topology, committed, mut findings, .. } = work;
    discover(hw, clock, platform, topology.reborrow())?;
    verify(hw, platform, Tree(&topology.nodes), demands, committed, findings.reborrow());
    judge(&findings)
}

fn judge(findings: &FindingsMut<'_>) -> Result<(), Error> {
    let failure = findings.list.iter().find(|finding| finding.is_failure());
    failure.map_or(Ok(()), |finding| Err(*finding))
}
