//! The plan into hardware: program, read back, commit with lock, enable; or put everything back.
//!
//! The order is that of CXL r3.1 section 8.2.4.20.12, component by component from the devices up,
//! so that a path opens only when all of it is there:
//!
//! 1. Read every decoder there is. If all is as planned, that is the end. If anything else is
//!    committed, it is somebody's: refuse.
//! 2. Write every register of every planned decoder, Commit still 0, and read it back. Mirror bases
//!    into the range registers. Set up back-invalidate.
//! 3. Commit, each decoder with one write of Control and reads only until it settles. After a
//!    device's last decoder, switch the device on.
//! 4. Set CONFIG_LOCK, if the policy asks for it.
//!
//! A decoder takes 7 writes and 7 reads to program and verify while all can be undone, then 1 write
//! and, on hardware that commits at once, 1 read to commit: 8 writes and 8 reads. Control is
//! written twice because a type bit that the device hardwires, or an IG or IW bit that sticks,
//! would otherwise be found only behind the lock. Step 1 costs 7 reads for each planned decoder and
//! one for each spare one: they are what a failure puts back.
//!
//! **Invariant**: until the first decoder is locked, a failure leaves every register as it was
//! found. After it, [`Committed`] says of each decoder what became of it.

mod error;

use cxl_regs::Coherency;
use cxl_regs::access::Register;
use cxl_regs::hdm::{Control, DecoderImage};
use heapless::Vec;

pub use error::CommitError;

use crate::back_invalidate;
use crate::committed::{
    Committed, CommittedDecoder, CommittedDevice, CommittedRegion, Fate, Place, Probed,
};
use crate::mmio::{Clock, Mmio};
use crate::plan::{Plan, PlannedDecoder, Purpose, Region};
use crate::policy::Policy;
use crate::program::{DecoderRegisters, DeviceImage, DeviceRegisters, Slot};
use crate::topology::{NodeId, Topology, Tree};
use crate::wait::{TimedOut, wait};

/// How long a decoder may take to commit, in microseconds (CXL r3.1 section 8.2.4.20.12).
pub const COMMIT_TIMEOUT: u64 = 10_000;

/// Programs, commits and, by policy, locks every decoder of a plan.
///
/// On an error `committed` says of each decoder what became of it; regions whose whole path was
/// locked by then stay in use. Running it again on its own work writes nothing.
///
/// Needs about 2 KiB of stack, 90 bytes for each of `D` and 8 for each of `N`.
pub fn commit<const N: usize, const R: usize, const D: usize>(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    topology: &Topology<N>,
    plan: &Plan<R, D>,
    policy: &Policy<'_>,
    committed: &mut Committed<D>,
) -> Result<(), CommitError> {
    commit_checked(hw, clock, topology, plan, policy, committed, |_, _| true)
}

/// [`commit`] with a check of its result, which may fill `committed` anew. Where the check fails,
/// what this run has written and no lock holds is put back, and `committed` says what became of it.
// Large locals: they shall not lie on the stack of a caller that runs other phases too.
#[inline(never)]
pub(crate) fn commit_checked<M: Mmio, const N: usize, const R: usize, const D: usize>(
    hw: &mut M,
    clock: &mut impl Clock,
    topology: &Topology<N>,
    plan: &Plan<R, D>,
    policy: &Policy<'_>,
    committed: &mut Committed<D>,
    check: impl FnOnce(&mut M, &mut Committed<D>) -> bool,
) -> Result<(), CommitError> {
    committed.clear();
    committed.unread = true;
    let job = Job { tree: topology.tree(), plan, policy };
    let mut undo = Undo::<N, D>::new();
    let mut written = 0;
    let found = survey(hw, job, committed, &mut undo);
    // A plan of nothing looks at nothing.
    committed.unread = found.is_err() || plan.decoders.is_empty();
    let result = match found {
        Ok(Found::AsPlanned) => Ok(()),
        Ok(Found::Free) => {
            let result = run(hw, clock, job, committed, &mut undo, &mut written);
            if result.is_err() {
                roll_back(hw, job, committed, &undo, written);
            }
            result
        }
        Err(error) => Err(error),
    };
    record_devices(hw, committed, &undo);
    record_regions(plan, committed);
    if result.is_ok() && !check(hw, committed) && written > 0 {
        reject(hw, job, committed, &undo);
        record_devices(hw, committed, &undo);
    }
    result
}

/// What does not change during a run.
struct Job<'a, const R: usize, const D: usize> {
    tree: Tree<'a>,
    plan: &'a Plan<R, D>,
    policy: &'a Policy<'a>,
}

impl<const R: usize, const D: usize> Clone for Job<'_, R, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<const R: usize, const D: usize> Copy for Job<'_, R, D> {}

impl<'a, const R: usize, const D: usize> Job<'a, R, D> {
    fn slot(self, planned: &PlannedDecoder) -> Result<Slot, CommitError> {
        Slot::new(self.tree, planned, self.policy)
    }
}

/// A device's registers outside its decoders.
struct DeviceUndo {
    registers: DeviceRegisters,
    before: DeviceImage,
    enabled: bool,
}

/// What the hardware held before.
struct Undo<const N: usize, const D: usize> {
    /// In order of the plan.
    decoders: Vec<DecoderImage, D>,
    devices: Vec<DeviceUndo, D>,
    links: back_invalidate::Before<N>,
}

impl<const N: usize, const D: usize> Undo<N, D> {
    fn new() -> Self {
        Self { decoders: Vec::new(), devices: Vec::new(), links: Vec::new() }
    }
}

enum Found {
    /// Nothing is committed.
    Free,
    /// Everything is committed as planned, and nothing else.
    AsPlanned,
}

/// Reads what is there; refuses what somebody else put there.
fn survey<const N: usize, const R: usize, const D: usize>(
    hw: &mut impl Mmio,
    job: Job<'_, R, D>,
    committed: &mut Committed<D>,
    undo: &mut Undo<N, D>,
) -> Result<Found, CommitError> {
    let mut in_use = 0usize;
    for planned in &job.plan.decoders {
        let slot = job.slot(planned)?;
        let image = slot.registers.read(hw);
        settled(slot.place, image.control())?;
        in_use += usize::from(image.control().committed());
        // As many as the plan has decoders, and as much room.
        let _ = undo.decoders.push(image);
        let PlannedDecoder { node, index, .. } = *planned;
        let entry = CommittedDecoder::new(job.tree, node, index, image, Fate::Untouched);
        let _ = committed.decoders.push(entry);
    }
    let mut foreign = None;
    for (node, hdm) in job.tree.iter().filter_map(|(id, node)| Some((id, node.hdm?))) {
        if job.plan.decoders.is_empty() {
            break;
        }
        for index in 0..hdm.decoders {
            if job.plan.decoders_of(node).any(|planned| planned.index == index) {
                continue;
            }
            let registers = DecoderRegisters::new(hdm.block, index);
            let control = registers.read_control(hw);
            let place = Place::of(job.tree, node, index);
            settled(place, control)?;
            if control.committed() && foreign.is_none() {
                let image = registers.read_beside(hw, control);
                let (base, size) = (image.base(), image.size());
                foreign = Some(CommitError::ForeignDecoder { place, base, size });
            }
        }
        if job.plan.decoders_of(node).next().is_none() {
            continue;
        }
        if let Some(registers) = DeviceRegisters::of(job.tree, node) {
            let before = registers.read(hw);
            if let Some(register) = before.silent() {
                return Err(CommitError::Silent { at: job.tree.path(node), register });
            }
            let _ = undo.devices.push(DeviceUndo { registers, before, enabled: false });
        }
    }
    if in_use > 0 {
        as_planned(job, committed)?;
    }
    if let Some(foreign) = foreign {
        return Err(foreign);
    }
    for device in &undo.devices {
        let DeviceUndo { registers, before, .. } = device;
        if in_use == 0 {
            registers.check_lock(job.tree, before, job.policy)?;
        } else if let Some((register, expected, found)) = registers.difference(before, job.policy) {
            let at = job.tree.path(registers.node);
            return Err(CommitError::ForeignEnables { at, register, expected, found });
        }
    }
    if in_use == 0 {
        return Ok(if job.plan.decoders.is_empty() { Found::AsPlanned } else { Found::Free });
    }
    for entry in &mut committed.decoders {
        entry.fate = Fate::Done;
    }
    Ok(Found::AsPlanned)
}

/// Refuses a decoder that does not answer, or that somebody's commit left unsettled.
fn settled(place: Place, control: Control) -> Result<(), CommitError> {
    if control.into_bits() == u32::MAX {
        return Err(CommitError::Silent { at: place.at, register: Control::SPEC.name });
    }
    if !control.committed() && (control.commit() || control.error_not_committed()) {
        return Err(CommitError::Unsettled { place, control: control.into_bits() });
    }
    Ok(())
}

/// Whether all planned decoders are committed as planned, given that at least one is.
fn as_planned<const R: usize, const D: usize>(
    job: Job<'_, R, D>,
    committed: &Committed<D>,
) -> Result<(), CommitError> {
    for (planned, entry) in job.plan.decoders.iter().zip(&committed.decoders) {
        let slot = job.slot(planned)?;
        let place = slot.place;
        if !entry.committed() {
            return Err(CommitError::ForeignPart { place });
        }
        if let Some((register, expected, found)) = slot.difference(entry.image, true) {
            return Err(CommitError::ForeignContents { place, register, expected, found });
        }
    }
    Ok(())
}

/// Steps 2 to 4. `written` counts the decoders of the plan that were written to, or begun to be.
fn run<const N: usize, const R: usize, const D: usize>(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    job: Job<'_, R, D>,
    committed: &mut Committed<D>,
    undo: &mut Undo<N, D>,
    written: &mut usize,
) -> Result<(), CommitError> {
    let Job { tree, plan, policy } = job;
    for device in &undo.devices {
        device.registers.quiesce(hw, tree, &device.before)?;
    }
    for (index, planned) in plan.decoders.iter().enumerate() {
        let Some(entry) = committed.decoders.get_mut(index) else { break };
        *written += 1;
        entry.image = job.slot(planned)?.program(hw)?;
        let node = planned.node;
        if plan.decoders.get(index + 1).is_some_and(|next| next.node == node) {
            continue;
        }
        if let Some(device) = undo.devices.iter().find(|device| device.registers.node == node) {
            let images = committed.decoders.iter().filter(|entry| entry.node == node);
            device.registers.mirror(hw, tree, &device.before, images.map(|entry| entry.image))?;
        }
    }
    for device in &undo.devices {
        let node = device.registers.node;
        if plan.decoders_of(node).any(needs_back_invalidate) {
            back_invalidate::enable(hw, clock, tree, node, &mut undo.links)?;
        }
    }
    let mut next = plan.decoders.iter().skip(1);
    for (planned, entry) in plan.decoders.iter().zip(&mut committed.decoders) {
        let control = commit_one(hw, clock, &job.slot(planned)?)?;
        entry.image = entry.image.with_control(control);
        if next.next().is_some_and(|next| next.node == planned.node) {
            continue;
        }
        let device = undo.devices.iter_mut().find(|device| device.registers.node == planned.node);
        if let Some(DeviceUndo { registers, before, enabled }) = device {
            registers.enable(hw, tree, before, policy)?;
            *enabled = true;
        }
    }
    if policy.config_lock {
        for device in &undo.devices {
            device.registers.lock(hw, tree)?;
        }
    }
    for (planned, entry) in plan.decoders.iter().zip(&mut committed.decoders) {
        let PlannedDecoder { node, index, .. } = *planned;
        *entry = CommittedDecoder::new(tree, node, index, entry.image, Fate::Done);
    }
    Ok(())
}

fn needs_back_invalidate(planned: &PlannedDecoder) -> bool {
    matches!(
        planned.purpose,
        Purpose::Region { decoder, .. } if decoder.coherency == Coherency::BackInvalidate
    )
}

/// Commits a programmed decoder: one write, then only reads.
fn commit_one(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    slot: &Slot,
) -> Result<Control, CommitError> {
    let (place, wanted) = (slot.place, slot.image.control().with_commit(true));
    slot.registers.write_control(hw, wanted);
    let mut control = Control::new();
    wait(clock, COMMIT_TIMEOUT, || {
        control = slot.registers.read_control(hw);
        control.settled().then_some(())
    })
    .map_err(|TimedOut { polls, microseconds }| CommitError::Timeout {
        place,
        control: control.into_bits(),
        polls,
        microseconds,
    })?;
    let found = control.into_bits();
    if found == u32::MAX {
        return Err(CommitError::Silent { at: place.at, register: Control::SPEC.name });
    }
    if control.error_not_committed() {
        return Err(CommitError::Refused { place, control: found });
    }
    match slot.difference(slot.image.with_control(control), true) {
        None => Ok(control),
        Some((_, expected, _)) => Err(CommitError::CommittedOtherwise { place, expected, found }),
    }
}

/// Puts back what can be put back, and says of each decoder what became of it.
fn roll_back<const N: usize, const R: usize, const D: usize>(
    hw: &mut impl Mmio,
    job: Job<'_, R, D>,
    committed: &mut Committed<D>,
    undo: &Undo<N, D>,
    written: usize,
) {
    let plan = job.plan;
    for (index, planned) in plan.decoders.iter().enumerate() {
        let whole = match planned.purpose {
            Purpose::Region { region, .. } => is_whole(plan, committed, undo, region),
            // A spare decoder that is locked at size 0 is all it was to be.
            Purpose::Burn { .. } => {
                committed.decoders.get(index).is_some_and(|entry| entry.locked())
            }
        };
        if let Some(entry) = committed.decoders.get_mut(index).filter(|_| whole) {
            entry.fate = Fate::Done;
        }
    }
    put_back(hw, job, committed, undo, written);
}

/// Puts back what no lock holds of a run that came to its end and failed its check. Of the regions
/// that the check found, those that are locked stay.
fn reject<const N: usize, const R: usize, const D: usize>(
    hw: &mut impl Mmio,
    job: Job<'_, R, D>,
    committed: &mut Committed<D>,
    undo: &Undo<N, D>,
) {
    let Job { tree, plan, .. } = job;
    let Committed { decoders, devices, regions, .. } = committed;
    regions.retain(|region| region.locked);
    decoders.clear();
    devices.clear();
    for planned in &plan.decoders {
        let PlannedDecoder { node, index, purpose } = *planned;
        // The run had all of them, in this order.
        let Ok(slot) = job.slot(planned) else { break };
        let image = slot.registers.read(hw);
        let mut entry = CommittedDecoder::new(tree, node, index, image, Fate::Done);
        let leads = |span| regions.iter().any(|region| region.span == span);
        let stays = match purpose {
            Purpose::Region { .. } => entry.active().is_some_and(|decoder| leads(decoder.span)),
            Purpose::Burn { .. } => image.size() == 0,
        };
        if !stays || !entry.locked() {
            entry.fate = Fate::Untouched;
        }
        let _ = decoders.push(entry);
    }
    put_back(hw, job, committed, undo, plan.decoders.len());
}

/// Puts back the first `written` decoders of the plan, but those that are done, and what belongs to
/// devices that then serve nothing; the last step first.
fn put_back<const N: usize, const R: usize, const D: usize>(
    hw: &mut impl Mmio,
    job: Job<'_, R, D>,
    committed: &mut Committed<D>,
    undo: &Undo<N, D>,
    written: usize,
) {
    let Job { tree, plan, .. } = job;
    let serves = |committed: &Committed<D>, node: NodeId| {
        let both = plan.decoders.iter().zip(&committed.decoders);
        { both }.any(|(planned, entry)| {
            planned.node == node
                && entry.fate == Fate::Done
                && matches!(planned.purpose, Purpose::Region { .. })
        })
    };
    for device in undo.devices.iter().rev() {
        if !serves(committed, device.registers.node) {
            device.registers.restore_enables(hw, &device.before);
        }
    }
    let entries = plan.decoders.iter().zip(&undo.decoders).enumerate();
    for (index, (planned, before)) in { entries }.take(written).rev() {
        let Some(entry) = committed.decoders.get_mut(index) else { continue };
        let Ok(slot) = job.slot(planned) else { continue };
        let PlannedDecoder { node, index: number, .. } = *planned;
        let mut fate = entry.fate;
        if fate != Fate::Done {
            entry.image = take_back(hw, &slot, *before);
            fate = if entry.image == *before { Fate::RolledBack } else { Fate::Stranded };
        }
        *entry = CommittedDecoder::new(tree, node, number, entry.image, fate);
    }
    for device in undo.devices.iter().rev() {
        if !serves(committed, device.registers.node) {
            device.registers.restore_ranges(hw, &device.before);
        }
    }
    let in_use = |node: NodeId| {
        undo.devices.iter().map(|device| device.registers.node).any(|device| {
            serves(committed, device) && tree.upwards(device).any(|(above, _)| above == node)
        })
    };
    for &(node, control) in undo.links.iter().rev() {
        if !in_use(node) {
            back_invalidate::restore(hw, tree, node, control);
        }
    }
}

/// Whether every decoder of a region is locked in place and its devices are on. An entry's image
/// says locked only once the commit was read back.
fn is_whole<const N: usize, const R: usize, const D: usize>(
    plan: &Plan<R, D>,
    committed: &Committed<D>,
    undo: &Undo<N, D>,
    region: u16,
) -> bool {
    let both = plan.decoders.iter().zip(&committed.decoders);
    { both }.filter(|(planned, _)| belongs(planned, region)).all(|(planned, entry)| {
        let mut devices = undo.devices.iter();
        let off = devices.any(|device| device.registers.node == planned.node && !device.enabled);
        entry.locked() && !off
    })
}

fn belongs(planned: &PlannedDecoder, wanted: u16) -> bool {
    matches!(planned.purpose, Purpose::Region { region, .. } if region == wanted)
}

/// Puts a decoder back as far as it lets itself, and reads what it holds then.
fn take_back(hw: &mut impl Mmio, slot: &Slot, before: DecoderImage) -> DecoderImage {
    let control = slot.registers.read_control(hw);
    if control.locked() {
        return slot.registers.read_beside(hw, control);
    }
    // Other fields may change only once Commit is 0. That clears Error Not Committed as well, and
    // is the best that can be done about a commit that never ends.
    slot.registers.write_control(hw, control.with_commit(false));
    slot.registers.write(hw, before);
    slot.registers.read(hw)
}

/// What the devices hold now.
fn record_devices<const N: usize, const D: usize>(
    hw: &mut impl Mmio,
    committed: &mut Committed<D>,
    undo: &Undo<N, D>,
) {
    for device in &undo.devices {
        // One for each device with a decoder, so there is room.
        let _ = committed.devices.push(CommittedDevice::read(hw, device.registers));
    }
}

/// The regions of the plan that are whole, as the hardware has them.
fn record_regions<const R: usize, const D: usize>(plan: &Plan<R, D>, committed: &mut Committed<D>) {
    for (number, region) in plan.regions.iter().enumerate() {
        if let Some(region) = whole_region(plan, committed, number as u16, region) {
            committed.add_region(region);
        }
    }
}

fn whole_region<const R: usize, const D: usize>(
    plan: &Plan<R, D>,
    committed: &Committed<D>,
    number: u16,
    region: &Region,
) -> Option<CommittedRegion> {
    let both = plan.decoders.iter().zip(&committed.decoders);
    let mut entries =
        { both }.filter(|(planned, _)| belongs(planned, number)).map(|(_, entry)| entry);
    // Devices come first in a plan.
    let first = entries.clone().next()?.active()?;
    let locked = entries.clone().all(CommittedDecoder::locked);
    entries.all(|entry| entry.active().is_some()).then_some(CommittedRegion {
        window: region.window,
        span: first.span,
        interleave: first.interleave,
        coherency: first.coherency,
        partition: region.partition,
        locked,
        probed: Probed::No,
    })
}
