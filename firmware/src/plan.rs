//! The plan: which decoder of which component will claim which range. Plain data, made before any
//! register is written.
//!
//! **Invariant**: a plan that was made breaks no rule of the specification and none of the target
//! system's; what would is an [`Error`] that carries the numbers. The same platform, topology
//! and policy give the same plan in whatever order they are listed.

mod beside;
mod check;
mod describe;
mod earlier;
mod error;
mod fit;
mod input;
mod node_use;
mod place;
mod regions;
mod replay;
mod reserve;
mod sets;
mod text;

use cxl_regs::access::Component;
use cxl_regs::{Coherency, Decoder, Dpa, Hpa, Interleave, Levels, Route, Span, Targets, Ways};
use heapless::Vec;

use error::Count;
pub use fit::{Refusals, Refused, Unfit};
use input::{PlanInput, SetNowhere};
pub use node_use::NodeUse;
use node_use::{left, used_mut};
pub use place::Placed;
pub use text::PlanText;

use crate::built::{self, Feature};
use crate::codes::codes;
use crate::coherency;
use crate::committed::CommittedRef;
use crate::error::{Code, Error, Fact, Place};
use crate::list::{self, Empty, List};
use crate::platform::{Platform, Window};
use crate::policy::{OnFailure, PathPolicy, Policy, TargetSystem, Width};
use crate::topology::{Node, NodeId, NodeKind, Partition, Path, Tree};
use crate::window_check;

/// A range of host addresses and the set of devices behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Base of the window it lies in.
    pub window: Hpa,
    /// The host addresses, all ways of it.
    pub span: Span,
    /// Interleave of every level of the path.
    pub levels: Levels,
    /// Who keeps it coherent.
    pub coherency: Coherency,
    /// Kind of memory.
    pub partition: Partition,
    /// Why it has as many members as it has.
    pub reason: Reason,
    /// Place of its members in [`Plan::members`]: as many as the levels have ways.
    pub(crate) first_member: u16,
    pub(crate) member_count: u16,
    /// How it came to its window, whether its place there was asked for, and how many regions were
    /// placed before: what [`Plan::refused`] needs beside the rest.
    by: fit::By,
    fixed: bool,
    order: u16,
    /// The part of the host addresses that its window has: all, but in a window at 0 that ends at a hole.
    pub(crate) reached: Span,
    /// Whether its memory answered in a trial; see [`OnFailure::BestEffort`](crate::policy::OnFailure).
    pub(crate) answered: bool,
    /// Whether it was lost since the plan was made.
    lost: bool,
}

impl Empty for Region {
    const EMPTY: Self = Self {
        window: Hpa(0),
        span: Span::<Hpa>::ORIGIN,
        levels: Levels {
            root: Interleave::NONE,
            bridge: Interleave::NONE,
            switch: Interleave::NONE,
        },
        coherency: Coherency::HostOnly,
        partition: Partition::Volatile,
        reason: Reason::Flat,
        first_member: 0,
        member_count: 0,
        by: fit::By::Fit,
        fixed: false,
        order: 0,
        reached: Span::<Hpa>::ORIGIN,
        answered: false,
        lost: false,
    };
}

/// Why a region has as many members as it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// One device, as nothing else was asked for.
    Flat,
    /// One device, by a request.
    Requested,
    /// A request names its members.
    Members,
    /// The policy names ways and granularity.
    Named,
    /// As wide as possible.
    Widest {
        /// The next wider set, and what stood against it.
        refused: Option<(Ways, Error)>,
    },
}

/// One device's share of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The device.
    pub device: NodeId,
    /// Its own addresses.
    pub dpa: Span<Dpa>,
}

impl Empty for Member {
    const EMPTY: Self = Self { device: NodeId(0), dpa: Span::<Dpa>::ORIGIN };
}

/// What a decoder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It carries a region.
    Region {
        /// Index into [`Plan::regions`].
        region: u16,
        /// What to program.
        decoder: Decoder,
    },
    /// A spare one, committed and locked at size 0 so that nobody can use it.
    Burn {
        /// Base to program: the end of the decoder before, so that order checks hold.
        base: Hpa,
    },
}

/// One decoder of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedDecoder {
    /// The component.
    pub node: NodeId,
    /// Decoder number in the component.
    pub index: u8,
    /// What it is for.
    pub purpose: Purpose,
}

impl Empty for PlannedDecoder {
    const EMPTY: Self = Self { node: NodeId(0), index: 0, purpose: Purpose::Burn { base: Hpa(0) } };
}

/// Something the owner should know although nothing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// A bridge without decoders forwards everything to its only port: there is nothing to program
    /// or lock. Linux does not assemble regions behind it ("failed to find decoder mapping").
    PassThrough {
        /// The bridge's UID.
        uid: u32,
    },
    /// Memory that no region covers.
    Unused {
        /// The device.
        device: NodeId,
        /// Which part of its memory.
        partition: Partition,
        /// Bytes.
        size: u64,
        /// Why it is left.
        why: Why,
    },
    /// Path 2: the guest programs this device's decoders.
    GuestPrograms {
        /// The device.
        device: NodeId,
    },
    /// The operating system programs this device's decoders: its memory has a window.
    SystemPrograms {
        /// The device.
        device: NodeId,
    },
    /// A device that has no memory to map: neither partition has a byte.
    Empty {
        /// The device.
        device: NodeId,
    },
    /// The policy asks for memory of a device, and there is none at its place: lost, where the rest may
    /// go on without it.
    NoSuchDevice {
        /// The place.
        at: Path,
    },
    /// A window that has less than 256 MiB for each of its ways: nothing can lie in it, and no table
    /// has it.
    WindowTooSmall {
        /// Its base.
        window: Hpa,
        /// Its bytes.
        size: u64,
        /// Its ways.
        ways: Ways,
    },
    /// An accelerator that can do back-invalidate (HDM-DB) is mapped without, as a component on
    /// its path cannot.
    BackInvalidateGap {
        /// The device.
        device: NodeId,
        /// The component that has no BI structure.
        at: NodeId,
        /// What its memory is instead.
        coherency: Coherency,
    },
    /// An accelerator that can do back-invalidate (HDM-DB) is mapped without, as its window does
    /// not admit it.
    BackInvalidateWindow {
        /// The device.
        device: NodeId,
        /// Base of the window.
        window: Hpa,
        /// What its memory is instead.
        coherency: Coherency,
    },
    /// A region that was there before and could not stay as it was: a member is gone, is elsewhere or has
    /// another size, its interleave is another one, no window has the place any more, or the policy wants
    /// it otherwise.
    NotKept {
        /// The device; of several the first by place.
        device: Path,
        /// Its host addresses.
        span: Span,
        /// Kind of memory. What was in persistent memory is not where it was.
        partition: Partition,
    },
    /// Room for a device that may be plugged in later: see
    /// [`Policy::reserve`](crate::policy::Policy::reserve).
    Reserved {
        /// The port that is empty.
        at: Path,
        /// Which part of its memory.
        partition: Partition,
        /// Where it may lie. Which port is filled first gets the lowest such place.
        span: Span,
    },
    /// With best effort, a set whose members the policy names has no place: lost, and its members go on as
    /// those of a set that lost one ([`BrokenSets`](crate::policy::BrokenSets)).
    SetWithoutPlace {
        /// The first of its members by place.
        at: Path,
        /// How many members it has.
        members: u8,
        /// The [`Error`]'s number.
        code: u16,
    },
    /// The policy keeps room for a port, and there is none at its place, where the rest may go on without
    /// it.
    NoSuchPort {
        /// The place.
        at: Path,
    },
    /// The policy keeps room for ports, and none of them is empty: what was to come is there, or it was
    /// asked for at a device.
    NoEmptyPort {
        /// The place.
        at: Path,
    },
}

impl Empty for Note {
    const EMPTY: Self = Self::PassThrough { uid: 0 };
}

codes! {
    Note {
        PassThrough = 0x0380,
        Unused = 0x0381,
        GuestPrograms = 0x0382,
        Empty = 0x0383,
        BackInvalidateGap = 0x0384,
        BackInvalidateWindow = 0x0385,
        NotKept = 0x0386,
        SystemPrograms = 0x0387,
        NoSuchDevice = 0x0388,
        WindowTooSmall = 0x0389,
        Reserved = 0x038A,
        NoSuchPort = 0x038B,
        NoEmptyPort = 0x038C,
        SetWithoutPlace = 0x038D,
    }
}

/// Why memory is in no region. What no window holds, or no decoder is left for, is no such memory:
/// then there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The policy asks for ranges of the device, and for nothing of this.
    NotAsked,
    /// A set ends where its smallest member does, and the policy does not map what is left over.
    SetEnds,
    /// A further set of its window has too few members.
    TooFewMembers {
        /// The bridge below which they are missing.
        uid: u32,
        /// Ports with such memory that a set needs there.
        need: u8,
        /// Ports that have some left.
        have: u8,
    },
    /// A further set of its window met another refusal.
    NoSet {
        /// The [`Error`]'s number.
        code: u16,
    },
    /// With best effort: a decoder that it needs failed, or no set that it could be in can be made.
    Failed,
    /// With best effort, of a device that has other memory: it has no place.
    Refused {
        /// The [`Error`]'s number.
        code: u16,
    },
}

/// The decoders of the whole path for every region.
///
/// `N` nodes of the topology; `R` regions; `D` members and `D` decoders and `D` notes. About 80 bytes
/// a node, 270 a region and 100 for each of `D`: keep it in a static or pass it by reference.
#[derive(Clone, Debug, Default)]
pub struct Plan<const N: usize, const R: usize, const D: usize> {
    /// Regions by ascending address.
    pub regions: Vec<Region, R>,
    /// Members of all regions; see [`Plan::members`].
    pub(crate) members: Vec<Member, D>,
    /// Decoders in order of commit: devices, then switches from the bottom up, then host bridges;
    /// within a component by number.
    pub decoders: Vec<PlannedDecoder, D>,
    /// What the owner should know.
    pub notes: Vec<Note, D>,
    /// Where there is no plan because a region has no place: what spoke against each window.
    pub refusals: Refusals,
    // What planning itself needs.
    uses: Vec<NodeUse, N>,
    order: Vec<NodeId, N>,
    placed: Vec<Placed, R>,
}

impl<const N: usize, const R: usize, const D: usize> Plan<N, R, D> {
    /// An empty one.
    pub const fn new() -> Self {
        Self {
            regions: Vec::new(),
            members: Vec::new(),
            decoders: Vec::new(),
            notes: Vec::new(),
            refusals: Refusals::new(),
            uses: Vec::new(),
            order: Vec::new(),
            placed: Vec::new(),
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        PlanMut::from(self).clear();
    }

    /// The plan, whatever it lies in.
    pub fn view(&self) -> PlanRef<'_> {
        let Self { regions, members, decoders, notes, refusals, .. } = self;
        PlanRef { regions, members, decoders, notes, refusals }
    }

    /// [`PlanRef::members`].
    pub fn members(&self, region: &Region) -> &[Member] {
        self.view().members(region)
    }

    /// [`PlanRef::decoders_of`].
    pub fn decoders_of(&self, node: NodeId) -> impl Iterator<Item = &PlannedDecoder> {
        self.view().decoders_of(node)
    }

    /// [`PlanRef::text`].
    pub fn text<'a>(&'a self, tree: Tree<'a>) -> PlanText<'a> {
        self.view().text(tree)
    }

    /// [`PlanRef::refused`].
    pub fn refused<'a>(
        &'a self,
        platform: &'a Platform<'a>,
        topology: impl Into<Tree<'a>>,
        policy: &'a Policy<'a>,
        region: usize,
    ) -> impl Iterator<Item = Refused> + 'a {
        self.view().refused(platform, topology, policy, region)
    }
}

/// A plan to be read, in memory of any size.
#[derive(Clone, Copy, Debug)]
pub struct PlanRef<'a> {
    /// Regions by ascending address.
    pub regions: &'a [Region],
    /// Members of all regions; see [`PlanRef::members`].
    members: &'a [Member],
    /// Decoders in order of commit.
    pub decoders: &'a [PlannedDecoder],
    /// What the owner should know.
    pub notes: &'a [Note],
    /// What spoke against each window, where there is no plan.
    pub refusals: &'a Refusals,
}

impl<'a> PlanRef<'a> {
    /// The members of a region in order of position.
    pub fn members(self, region: &Region) -> &'a [Member] {
        let first = usize::from(region.first_member);
        self.members.get(first..first + usize::from(region.member_count)).unwrap_or(&[])
    }

    /// The decoders of one component, by number.
    pub fn decoders_of(self, node: NodeId) -> impl Iterator<Item = &'a PlannedDecoder> {
        self.decoders.iter().filter(move |decoder| decoder.node == node)
    }
}

impl<'a, const N: usize, const R: usize, const D: usize> From<&'a Plan<N, R, D>> for PlanRef<'a> {
    fn from(plan: &'a Plan<N, R, D>) -> Self {
        plan.view()
    }
}

/// A plan to be made, in memory of any size.
#[derive(Debug)]
pub struct PlanMut<'a> {
    /// See [`Plan::regions`].
    pub regions: List<'a, Region>,
    /// As many as there are decoders at most.
    pub members: List<'a, Member>,
    /// See [`Plan::decoders`].
    pub decoders: List<'a, PlannedDecoder>,
    /// See [`Plan::notes`].
    pub notes: List<'a, Note>,
    /// See [`Plan::refusals`].
    pub refusals: &'a mut Refusals,
    /// As many as the topology has nodes; means nothing to anybody but [`plan`].
    pub uses: List<'a, NodeUse>,
    /// As many as the topology has nodes; means nothing to anybody but [`plan`].
    pub order: List<'a, NodeId>,
    /// As many as there are regions; means nothing to anybody but [`plan`].
    pub placed: List<'a, Placed>,
}

impl PlanMut<'_> {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.notes.clear();
        self.regions.clear();
        self.members.clear();
        self.decoders.clear();
        self.refusals.clear();
        self.uses.clear();
    }

    /// Forgets everything but what spoke against the windows, and notes about what is in use.
    #[inline(never)]
    fn forget_plan(&mut self, tree: Tree<'_>, committed: CommittedRef<'_>) {
        self.regions.clear();
        self.members.clear();
        self.decoders.clear();
        self.notes.retain(|note| beside::is_of_what_stays(tree, committed, note));
    }

    /// The plan as it is.
    pub fn view(&self) -> PlanRef<'_> {
        let Self { regions, members, decoders, notes, refusals, .. } = self;
        PlanRef { regions, members, decoders, notes, refusals }
    }

    /// The same plan for a shorter time.
    pub fn reborrow(&mut self) -> PlanMut<'_> {
        let Self { regions, members, decoders, notes, refusals, uses, order, placed } = self;
        PlanMut {
            regions: regions.reborrow(),
            members: members.reborrow(),
            decoders: decoders.reborrow(),
            notes: notes.reborrow(),
            refusals,
            uses: uses.reborrow(),
            order: order.reborrow(),
            placed: placed.reborrow(),
        }
    }
}

impl<'a> From<&'a mut PlanMut<'_>> for PlanMut<'a> {
    fn from(plan: &'a mut PlanMut<'_>) -> Self {
        plan.reborrow()
    }
}

impl<'a> From<&'a PlanMut<'_>> for PlanRef<'a> {
    fn from(plan: &'a PlanMut<'_>) -> Self {
        plan.view()
    }
}

impl<'a, const N: usize, const R: usize, const D: usize> From<&'a mut Plan<N, R, D>>
    for PlanMut<'a>
{
    fn from(plan: &'a mut Plan<N, R, D>) -> Self {
        let Plan { regions, members, decoders, notes, refusals, uses, order, placed } = plan;
        Self {
            regions: regions.into(),
            members: members.into(),
            decoders: decoders.into(),
            notes: notes.into(),
            refusals,
            uses: uses.into(),
            order: order.into(),
            placed: placed.into(),
        }
    }
}

/// Decides where everything goes, or says why it cannot; touches no hardware.
///
/// On an error the plan is left empty but for [`Plan::refusals`].
pub fn plan<'a>(
    platform: &Platform<'_>,
    topology: impl Into<Tree<'a>>,
    policy: &Policy<'_>,
    plan: impl Into<PlanMut<'a>>,
) -> Result<(), Error> {
    let nothing = CommittedRef { decoders: &[], devices: &[], regions: &[], unread: false };
    plan_beside(platform, topology, policy, nothing, plan)
}

/// The same for what came later, beside what is in use already: devices that have no committed decoder.
/// Nothing else is planned, and of what is there nothing moves.
///
/// `committed` is what [`verify`](crate::verify::verify) read; the plan is to be committed by
/// [`commit_beside`](crate::commit::commit_beside).
pub fn plan_beside<'a, 'c>(
    platform: &Platform<'_>,
    topology: impl Into<Tree<'a>>,
    policy: &Policy<'_>,
    committed: impl Into<CommittedRef<'c>>,
    plan: impl Into<PlanMut<'a>>,
) -> Result<(), Error> {
    let mut plan = plan.into();
    plan.clear();
    plan_again(platform, topology.into(), policy, committed.into(), plan)
}

/// The same where an earlier plan has notes: those about what is in use by now stay.
pub(crate) fn plan_again(
    platform: &Platform<'_>,
    tree: Tree<'_>,
    policy: &Policy<'_>,
    committed: CommittedRef<'_>,
    mut plan: PlanMut<'_>,
) -> Result<(), Error> {
    plan.uses.clear();
    let mut nowhere = Vec::new();
    loop {
        plan.forget_plan(tree, committed);
        plan.refusals.clear();
        match fill(platform, tree, policy, committed, plan.reborrow(), &mut nowhere) {
            Ok(Filled::Whole) => return Ok(()),
            // It withholds a partition of a device each time, or a set.
            Ok(Filled::Again) => {}
            Err(error) => {
                plan.forget_plan(tree, committed);
                return Err(error);
            }
        }
    }
}

/// How filling a plan ended well.
enum Filled {
    /// With a plan.
    Whole,
    /// A set, or a part of one, cannot be used, and was withheld: without it there may be another set.
    Again,
}

/// The lists that make a plan.
struct Lists<'a> {
    regions: List<'a, Region>,
    members: List<'a, Member>,
    decoders: List<'a, PlannedDecoder>,
    notes: List<'a, Note>,
}

impl<'a> PlanRef<'a> {
    /// Whether a decoder is for a region that is lost.
    pub(crate) fn serves_lost(self, planned: &PlannedDecoder) -> bool {
        is_for_lost(self.regions, planned)
    }
}

fn is_for_lost(regions: &[Region], planned: &PlannedDecoder) -> bool {
    let Purpose::Region { region, .. } = planned.purpose else { return false };
    regions.get(usize::from(region)).is_some_and(|region| region.lost)
}

impl PlanMut<'_> {
    /// Notes which regions are lost: they have a member with a fault, or a decoder that is.
    pub(crate) fn mark_lost(&mut self, tree: Tree<'_>) {
        let Self { regions, members, decoders, .. } = self;
        for (number, region) in regions.iter_mut().enumerate() {
            let own = members.iter().skip(region.first_member.into());
            let mut own = own.take(region.member_count.into());
            let of_it = |planned: &&PlannedDecoder| matches!(planned.purpose, Purpose::Region { region, .. } if usize::from(region) == number);
            region.lost |= own.any(|member| tree.fault(member.device).is_some())
                || decoders.iter().filter(of_it).any(|one| tree.is_lost(one.node, one.index));
        }
    }

    /// Takes out every region that is lost, and all decoders of what has a fault. Decoders from `open`
    /// on are not locked: what is left of them moves down, so that they can be committed in order, and
    /// a device's leave out what those before them led to. Gives where the open ones start now.
    pub(crate) fn drop_lost(&mut self, tree: Tree<'_>, open: usize) -> usize {
        let Self { regions, decoders, .. } = self;
        let stays = |planned: &PlannedDecoder| {
            !is_for_lost(regions, planned) && tree.fault(planned.node).is_none()
        };
        let start = decoders.iter().take(open).filter(|planned| stays(planned)).count();
        let (mut node, mut gone, mut left_out) = (None, 0, 0u64);
        for planned in decoders.iter_mut().skip(open) {
            if node != Some(planned.node) {
                (node, gone, left_out) = (Some(planned.node), 0, 0);
            }
            let stays = stays(planned);
            planned.index -= gone;
            gone += u8::from(!stays);
            let Purpose::Region { decoder, .. } = &mut planned.purpose else { continue };
            let Route::Skip(skip) = &mut decoder.route else { continue };
            *skip = skip.saturating_add(left_out);
            left_out = if stays { 0 } else { skip.saturating_add(decoder.share()) };
        }
        decoders.retain(stays);
        for planned in decoders.iter_mut() {
            if let Purpose::Region { region, .. } = &mut planned.purpose {
                let before = regions.iter().take(usize::from(*region));
                *region -= before.filter(|before| before.lost).count() as u16;
            }
        }
        regions.retain(|region| !region.lost);
        start
    }
}

/// What a noun ends in behind a number.
fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Adds an item, or says what there is no room for. Items are numbered with 16 bits.
fn add<T>(list: &mut List<'_, T>, item: T, what: Count) -> Result<(), Error> {
    let have = list.room().min(usize::from(u16::MAX));
    let full = what.exceeded(have);
    if list.len() >= have {
        return Err(full);
    }
    list.push(item).map_err(|_| full)
}

// Compiled once, whatever the plan lies in.
#[inline(never)]
fn fill(
    platform: &Platform<'_>,
    tree: Tree<'_>,
    policy: &Policy<'_>,
    committed: CommittedRef<'_>,
    plan: PlanMut<'_>,
    nowhere: &mut Vec<SetNowhere, 8>,
) -> Result<Filled, Error> {
    let PlanMut { regions, members, decoders, notes, refusals, .. } = plan;
    let PlanMut { uses: mut used, mut order, mut placed, .. } = plan;
    let plan = &mut Lists { regions, members, decoders, notes };
    built::plans(platform, policy)?;
    window_check::windows(platform, policy.on_failure)?;
    check::widths(platform, policy)?;
    if policy.burn_spares && policy.target == TargetSystem::Linux {
        return Err(Code::PLAN_LINUX_REFUSES_BURNED_DECODERS.error());
    }
    if policy.burn_spares && policy.path != PathPolicy::LockAll {
        return Err(Code::PLAN_BURN_WITHOUT_LOCK.error());
    }
    if used.is_empty() {
        for _ in tree.0 {
            add(&mut used, NodeUse::EMPTY, Count::Nodes)?;
        }
    }
    used.iter_mut().for_each(NodeUse::restart);
    let used = &mut *used;
    check::tree(tree, used)?;
    check::commit_order(tree, used, &mut order)?;
    let beside = cfg!(any(feature = "hot-plug", feature = "degrade"));
    let beside = beside && !committed.decoders.is_empty();
    if beside {
        beside::decoders(tree, committed, used);
        order.retain(|id| !beside::is_in_use(tree, *id, used));
    }
    let devices = order.partition_point(|id| tree.get(*id).is_some_and(|n| n.device().is_some()));
    let devices = order.get(..devices).unwrap_or(&[]);
    let sound = |device: &NodeId| tree.fault(*device).is_none();
    for device in devices.iter().copied().filter(sound) {
        if Partition::ALL.into_iter().all(|partition| left(tree, device, partition, used) == 0) {
            note(plan, Note::Empty { device })?;
        }
    }
    let small = platform.windows.iter().filter(|window| !window.has_share());
    for Window { base, size, interleave, .. } in small {
        let (window, size, ways) = (base.unwrap_or_default(), *size, interleave.ways);
        note(plan, Note::WindowTooSmall { window, size, ways })?;
    }
    let given = PlanInput { platform, tree, policy, devices, nowhere };
    match policy.path {
        PathPolicy::GuestPrograms => {
            return guest_programs(&given, used, plan).map(|()| Filled::Whole);
        }
        PathPolicy::Describe if cfg!(not(feature = "describe")) => {
            return Err(Feature::Describe.not_built(Place::default()));
        }
        PathPolicy::Describe => {
            return describe::windows(&given, used, refusals, plan).map(|()| Filled::Whole);
        }
        PathPolicy::LockAll | PathPolicy::Unlocked => {}
    }
    let asked = policy.requests.iter().map(|request| &request.device);
    for &at in asked.chain(policy.sets.iter().flat_map(|set| &set.members)) {
        // Else it is refused below.
        if tree.device_at(&at).is_none() && policy.on_failure == OnFailure::BestEffort {
            note(plan, Note::NoSuchDevice { at })?;
        }
    }
    placed.clear();
    if beside {
        beside::addresses(committed, &mut placed)?;
    }
    let mut layout = place::Layout { regions: placed, refusals, nowhere: None };
    let withheld = |used: &[NodeUse]| used.iter().map(NodeUse::count_withheld).sum::<usize>();
    let before = withheld(used);
    match regions::place_all(&given, used, &mut layout) {
        Err(_) if withheld(used) > before => return Ok(Filled::Again),
        Err(error) => {
            let set = layout.nowhere.ok_or(error)?;
            return nowhere.push(set).map(|()| Filled::Again).map_err(|_| error);
        }
        Ok(()) => {}
    }
    for &(number, code) in &*nowhere {
        let set = policy.sets.get(usize::from(number));
        if let Some((set, at)) = set.and_then(|set| Some((set, *set.members.iter().min()?))) {
            let (members, code) = (set.members.len() as u8, code.number());
            note(plan, Note::SetWithoutPlace { at, members, code })?;
        }
    }
    if cfg!(feature = "earlier") {
        earlier::note_moved(tree, policy.earlier, &layout.regions, committed, plan)?;
    }
    for (at, region) in layout.regions.iter().enumerate() {
        if region.members.is_empty() {
            continue;
        }
        let Some((device, why)) = lacks_place(tree, policy, region, used) else {
            add_region(tree, region, used, plan)?;
            continue;
        };
        // What one region lacks costs nothing else of a device.
        let partition = region.region.partition;
        let is_set = region.members.len() > 1 && region.region.reason != Reason::Members;
        let same =
            |other: &Placed| other.region.partition == partition && other.members.contains(&device);
        let before = layout.regions.iter().take(at).any(same);
        if is_set
            && !before
            && let Some(used) = used_mut(used, device)
        {
            used.withhold(partition, why);
            return Ok(Filled::Again);
        }
        for &device in &region.members {
            let size = region.region.span.size().checked_div(region.members.len() as u64);
            let size = size.unwrap_or(0);
            note(plan, Note::Unused { device, partition, size, why })?;
        }
    }
    for (device, node) in tree.sound() {
        for partition in Partition::ALL {
            let withheld = used.get(usize::from(device.0)).and_then(|u| u.withheld(partition));
            if let (Some(found), Some(why)) = (node.device(), withheld) {
                let size = found.capacity(partition);
                note(plan, Note::Unused { device, partition, size, why })?;
            }
        }
    }
    if cfg!(feature = "hot-plug") {
        reserve::keep(&given, used, &mut layout, plan)?;
    }
    let placed = &*layout.regions;
    if policy.burn_spares {
        burn_spares(tree, &order, used, plan)?;
    }
    list::sort_by_key(&mut plan.decoders, |decoder| {
        (used.get(usize::from(decoder.node.0)).map_or(0, |used| used.rank), decoder.index)
    });
    // Where no request leaves anything out, which is nearly everywhere, this is nothing to look at.
    let first = placed.iter().position(|region| region.skip != 0).unwrap_or(placed.len());
    let skipping = placed.get(first..).unwrap_or(&[]);
    let mut last = [None; 2];
    for device in devices.iter().copied().filter(sound) {
        for (partition, last) in Partition::ALL.into_iter().zip(&mut last) {
            let left_out = skipping
                .iter()
                .filter(|p| p.region.partition == partition && p.members.contains(&device))
                .fold(0u64, |sum, placed| sum.saturating_add(placed.skip));
            let size = left(tree, device, partition, used).saturating_add(left_out);
            if size > 0 {
                let why = why_unused(&given, device, partition, used, last);
                note(plan, Note::Unused { device, partition, size, why })?;
            }
        }
    }
    Ok(Filled::Whole)
}

/// The member of a region that has others already, and for which one of its components has no decoder
/// left, or itself no device addresses: they ascend with the decoder's number, and so with host addresses.
fn lacks_place(
    tree: Tree<'_>,
    policy: &Policy<'_>,
    placed: &Placed,
    used: &[NodeUse],
) -> Option<(NodeId, Why)> {
    if cfg!(not(feature = "degrade")) || policy.on_failure != OnFailure::BestEffort {
        return None;
    }
    let next = |id: NodeId| used.get(usize::from(id.0)).map_or(0, |used| used.next);
    let exhausted = Why::Refused { code: Code::PLAN_DECODERS_EXHAUSTED.number() };
    let lacks = |(id, node): (NodeId, &Node)| {
        let hdm = node.hdm.filter(|hdm| node.component().is_some() && next(id) >= hdm.decoders)?;
        Some(if hdm.is_cut() { Why::Failed } else { exhausted })
    };
    let is_behind = |id: NodeId| {
        let partition = placed.region.partition;
        let device = tree.get(id).and_then(|node| node.device());
        let end =
            device.map(|device| device.start(partition).saturating_add(device.capacity(partition)));
        used.get(usize::from(id.0)).is_some_and(|used| end.is_some_and(|end| used.dpa_end > end))
    };
    let order = Why::Refused { code: Code::PLAN_DPA_ORDER.number() };
    let mut members = placed.members.iter().copied().filter(|id| next(*id) > 0);
    members.find_map(|id| {
        let why = tree.upwards(id).find_map(lacks);
        Some((id, why.or_else(|| is_behind(id).then_some(order))?))
    })
}

/// Why a device has memory that is in no region. What was found for the device before is kept in
/// `last`: it holds for all of a window, and asking costs as much as forming a set.
fn why_unused(
    given: &PlanInput<'_>,
    device: NodeId,
    partition: Partition,
    used: &[NodeUse],
    last: &mut Option<(node_use::Sharing, Why)>,
) -> Why {
    let path = given.tree.path(device);
    let policy = given.policy;
    let mut sets = policy.sets.iter().filter(|set| set.members.contains(&path));
    if policy.requests.iter().any(|request| request.device == path) || sets.clone().next().is_some()
    {
        let of_broken = sets.any(|set| set.partition == partition && given.is_broken(set));
        return if of_broken { Why::Failed } else { Why::NotAsked };
    }
    if cfg!(not(feature = "interleave")) {
        return Why::SetEnds;
    }
    let Some(former) = sets::awaited(given, device, partition, used) else { return Why::SetEnds };
    let sharing = used.get(usize::from(device.0)).and_then(|used| used.sharing(partition));
    if let Some((before, why)) = *last
        && sharing == Some(before)
    {
        return why;
    }
    // No set was formed since the one that failed, so it fails as it did then.
    let why = match former.further(used).err() {
        Some(error) if error.code == Code::PLAN_TOO_FEW_MEMBERS => {
            let (have, uid) = <(u8, u32)>::unpack(error.found).unwrap_or_default();
            Why::TooFewMembers { uid, need: error.expected as u8, have }
        }
        error => Why::NoSet { code: error.map_or(0, |error| error.code()) },
    };
    *last = sharing.map(|sharing| (sharing, why));
    why
}

fn note(plan: &mut Lists<'_>, note: Note) -> Result<(), Error> {
    if plan.notes.contains(&note) {
        return Ok(());
    }
    add(&mut plan.notes, note, Count::Notes)
}

/// Whether the node is a bridge without decoders and with one port: it forwards everything there.
fn is_pass_through(tree: Tree<'_>, id: NodeId, used: &[NodeUse]) -> bool {
    tree.get(id)
        .is_some_and(|node| matches!(node.kind, NodeKind::HostBridge { .. }) && node.hdm.is_none())
        && used.get(usize::from(id.0)).is_some_and(|used| used.children == 1)
}

/// Nothing is asked for that would have to be programmed: somebody else does that.
fn asks_for_nothing(policy: &Policy<'_>) -> Result<(), Error> {
    let asked = policy.requests.iter().map(|request| &request.device);
    let asked = asked.chain(policy.sets.iter().flat_map(|set| &set.members));
    if let Some(device) = asked.chain(policy.reserve.iter().map(|reserve| &reserve.at)).min() {
        return Err(Code::PLAN_REQUEST_TO_GUEST.at(device));
    }
    if policy.width != Width::Flat || !policy.windows.is_empty() {
        return Err(Code::PLAN_WIDTH_TO_GUEST.error());
    }
    Ok(())
}

/// Path 2: nothing is planned; the topology must leave the guest no way to go wrong.
fn guest_programs(
    given: &PlanInput<'_>,
    used: &[NodeUse],
    plan: &mut Lists<'_>,
) -> Result<(), Error> {
    let PlanInput { platform, tree, policy, devices, .. } = *given;
    asks_for_nothing(policy)?;
    for &device in devices {
        let path = tree.path(device);
        for (id, node) in tree.upwards(device) {
            match node.kind {
                NodeKind::UpstreamPort => return Err(Code::PLAN_SWITCH_IN_PATH.at(path)),
                NodeKind::HostBridge { uid } => {
                    let ports = used.get(usize::from(id.0)).map_or(0, |used| used.children);
                    if ports != 1 {
                        return Err(Code::PLAN_MULTIPLE_PORTS
                            .at(Place::bridge(uid))
                            .expected(1u16)
                            .found(ports));
                    }
                    if let Some(hdm) = node.hdm {
                        let decoders = hdm.decoders;
                        return Err(Code::PLAN_BRIDGE_NOT_PASS_THROUGH
                            .at(Place::bridge(uid))
                            .found(decoders));
                    }
                }
                _ => {}
            }
        }
        let interleaved = platform.windows.iter().filter(|window| {
            window.targets.contains(&path.uid()) && window.interleave.ways != Ways::One
        });
        if let Some((window, ways)) = interleaved.map(|w| (w.base, w.interleave.ways)).min() {
            return Err(Code::PLAN_INTERLEAVED
                .at(path)
                .detail(ways)
                .found(window.unwrap_or_default()));
        }
        note(plan, Note::GuestPrograms { device })?;
    }
    Ok(())
}

/// Gives a placed region its DPA and its decoders on every level. Regions come by ascending
/// address, so decoders are numbered in the order that hardware demands.
fn add_region(
    tree: Tree<'_>,
    placed: &Placed,
    used: &mut [NodeUse],
    plan: &mut Lists<'_>,
) -> Result<(), Error> {
    let region = plan.regions.len() as u16;
    let span = placed.region.span;
    let interleave = placed.region.levels.device();
    let interleave = interleave
        .map_err(|error| Code::PLAN_COMPOSE.at(Place::window(placed.region.window)).rule(error))?;
    let share = span.size() / u64::from(interleave.ways.count());
    let first_member = plan.members.len() as u16;
    for (position, &device) in placed.members.iter().enumerate() {
        let dpa = take_dpa(tree, device, placed, share, used)?;
        add(&mut plan.members, Member { device, dpa: dpa.span }, Count::Decoders)?;
        let decoder = Decoder {
            span,
            interleave,
            coherency: placed.region.coherency,
            uio: None,
            set_position: match placed.region.coherency {
                Coherency::BackInvalidate => position as u8,
                Coherency::HostOnly | Coherency::Device => 0,
            },
            route: Route::Skip(dpa.skip),
        };
        push(tree, device, device, region, decoder, used, plan)?;
        if placed.region.coherency != Coherency::BackInvalidate {
            without_back_invalidate(tree, device, placed, plan)?;
        }
    }
    for &device in &placed.members {
        for (id, node) in tree.upwards(device) {
            let routes = node.component().is_some_and(Component::routes);
            let done = used.get(usize::from(id.0)).is_some_and(|u| u.last_region == region + 1);
            if !routes || done {
                continue;
            }
            if is_pass_through(tree, id, used) {
                if let NodeKind::HostBridge { uid } = node.kind {
                    note(plan, Note::PassThrough { uid })?;
                }
                continue;
            }
            let decoder = Decoder {
                span,
                interleave: level(placed.region.levels, node.kind),
                coherency: placed.region.coherency,
                uio: None,
                set_position: 0,
                route: Route::Targets(targets(tree, id, node.kind, placed)),
            };
            push(tree, device, id, region, decoder, used, plan)?;
        }
    }
    let member_count = placed.members.len() as u16;
    let region = Region { first_member, member_count, ..placed.region };
    add(&mut plan.regions, region, Count::Regions)
}

/// Notes it where a device could do back-invalidate and its region does not.
fn without_back_invalidate(
    tree: Tree<'_>,
    device: NodeId,
    placed: &Placed,
    plan: &mut Lists<'_>,
) -> Result<(), Error> {
    let capable = tree.get(device).is_some_and(|node| node.back_invalidate.is_some());
    if !capable {
        return Ok(());
    }
    let coherency::CoherencyModels { back_invalidate, gap, .. } = coherency::models(tree, device)?;
    let coherency = placed.region.coherency;
    match gap {
        _ if !back_invalidate => Ok(()),
        Some(at) => note(plan, Note::BackInvalidateGap { device, at, coherency }),
        None => {
            let window = placed.region.window;
            note(plan, Note::BackInvalidateWindow { device, window, coherency })
        }
    }
}

struct Taken {
    span: Span<Dpa>,
    skip: u64,
}

/// The next piece of a partition behind what the region leaves out, and the skip that leads to it:
/// from the end of the decoder before, whichever partition that is in (CXL r3.1 section
/// 8.2.4.20.13).
fn take_dpa(
    tree: Tree<'_>,
    id: NodeId,
    placed: &Placed,
    share: u64,
    used: &mut [NodeUse],
) -> Result<Taken, Error> {
    let path = tree.path(id);
    let partition = placed.region.partition;
    let (start, capacity) = tree
        .get(id)
        .and_then(|node| node.device())
        .map_or((0, 0), |device| (device.start(partition), device.capacity(partition)));
    let too_large =
        Code::PLAN_REQUEST_TOO_LARGE.at(path).detail(partition).expected(share).found(capacity);
    let used = used_mut(used, id).ok_or(too_large)?;
    let partition_end = start.saturating_add(capacity);
    if used.dpa_end > partition_end {
        let (lower, higher) = (used.hpa_base, placed.region.span.base());
        return Err(Code::PLAN_DPA_ORDER.at(path).expected(higher).found(lower));
    }
    let base = used.dpa_end.max(start).saturating_add(placed.skip);
    let skip = base.saturating_sub(used.dpa_end);
    let span = Span::new(Dpa(base), share).map_err(|_| too_large)?;
    if span.end().0 > partition_end {
        return Err(too_large);
    }
    used.dpa_end = span.end().0;
    Ok(Taken { span, skip })
}

/// The interleave of the level that a routing component belongs to.
fn level(levels: Levels, kind: NodeKind) -> Interleave {
    match kind {
        NodeKind::HostBridge { .. } => levels.bridge,
        _ => levels.switch,
    }
}

/// The ports that a component's ways lead to.
fn targets(tree: Tree<'_>, at: NodeId, kind: NodeKind, placed: &Placed) -> Targets {
    let mut targets = Targets::default();
    for (position, &member) in placed.members.iter().enumerate() {
        let [_, bridge, switch] = sets::levels_at(placed.region.levels, position as u32);
        let way = if matches!(kind, NodeKind::HostBridge { .. }) { bridge } else { switch };
        let mut port = 0;
        for (id, node) in tree.upwards(member) {
            if id == at {
                if let Some(slot) = targets.0.get_mut(way as usize) {
                    *slot = port;
                }
                break;
            }
            port = node.port;
        }
    }
    targets
}

/// Takes the next decoder of a component, once the component has agreed to what it is to hold.
fn push(
    tree: Tree<'_>,
    device: NodeId,
    node: NodeId,
    region: u16,
    decoder: Decoder,
    used: &mut [NodeUse],
    plan: &mut Lists<'_>,
) -> Result<(), Error> {
    let (device, at) = (tree.path(device), tree.path(node));
    let back_invalidate = decoder.coherency == Coherency::BackInvalidate;
    if cfg!(not(feature = "back-invalidate")) && back_invalidate {
        return Err(Feature::BackInvalidate.not_built(device));
    }
    let (component, hdm) = tree
        .get(node)
        .and_then(|node| Some((node.component()?, node.hdm?)))
        .ok_or_else(|| Code::PLAN_NO_DECODERS.at(device).above(at))?;
    decoder
        .encode(component, hdm.capability)
        .map_err(|error| Code::PLAN_DECODER.at(at).rule(error))?;
    let have = hdm.decoders;
    let used = used_mut(used, node).ok_or_else(|| Code::PLAN_NO_DECODERS.at(device).above(at))?;
    let index = used.next;
    if index >= have {
        return Err(Code::PLAN_DECODERS_EXHAUSTED.at(device).above(at).found(have));
    }
    used.next = index + 1;
    used.last_region = region + 1;
    used.hpa_base = decoder.span.base();
    used.hpa_end = decoder.span.end();
    let purpose = Purpose::Region { region, decoder };
    add(&mut plan.decoders, PlannedDecoder { node, index, purpose }, Count::Decoders)
}

/// Every decoder that carries nothing, on every component.
fn burn_spares(
    tree: Tree<'_>,
    order: &[NodeId],
    used: &[NodeUse],
    plan: &mut Lists<'_>,
) -> Result<(), Error> {
    for &node in order.iter().filter(|node| tree.fault(**node).is_none()) {
        let Some(hdm) = tree.get(node).and_then(|node| node.hdm) else { continue };
        let Some(used) = used.get(usize::from(node.0)) else { continue };
        for index in used.next..hdm.decoders {
            let purpose = Purpose::Burn { base: used.hpa_end };
            add(&mut plan.decoders, PlannedDecoder { node, index, purpose }, Count::Decoders)?;
        }
    }
    Ok(())
}
