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
//! found. After it, [`CommittedMut`] says of each decoder what became of it.

pub(crate) mod back_invalidate;
pub(crate) mod lock;
pub(crate) mod planned_registers;

use cxl_regs::Coherency;
use cxl_regs::hdm::{Control, DecoderImage};

use planned_registers::Slot;

use crate::committed::{
    CommittedDecoder, CommittedDevice, CommittedMut, CommittedRegion, DecoderBefore, DeviceBefore,
    Fate, Place, Probed,
};
use crate::decoder_registers::{DecoderRegisters, Mismatch};
use crate::device_registers::DeviceRegisters;
use crate::error::{self, Code, Error, Failed, Fault, Numbered};
use crate::mmio::{Clock, Mmio};
use crate::plan::{PlanRef, PlannedDecoder, Purpose, Region};
use crate::platform::claims;
use crate::policy::Policy;
use crate::topology::{NodeId, Tree};
use crate::wait::{TimedOut, poll};

/// How long a decoder may take to commit, in microseconds (CXL r3.1 section 8.2.4.20.12).
pub const COMMIT_TIMEOUT: u64 = 10_000;

/// How often a decoder is looked at that is to give up its commit, where nobody has a clock.
const CLEAR_READS: u32 = 100;

/// What a commit did, until somebody decides whether it stays: see [`Receipt::keep`] and [`undo`].
#[must_use = "what was committed stays, or is undone"]
#[derive(Debug, PartialEq, Eq)]
pub struct Receipt {
    written: usize,
}

impl Receipt {
    /// How many decoders were written to; none where all of them were as planned already.
    pub fn written(&self) -> usize {
        self.written
    }

    /// What was committed stays.
    pub fn keep(self) {}
}

/// Programs, commits and, by policy, locks every decoder of a plan.
///
/// On an error all that can be put back is; `committed` says of each decoder what became of it, and
/// regions whose whole path was locked by then stay in use. Running it again on its own work writes
/// nothing.
pub fn commit<'a>(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    topology: impl Into<Tree<'a>>,
    plan: impl Into<PlanRef<'a>>,
    policy: &Policy<'_>,
    committed: impl Into<CommittedMut<'a>>,
) -> Result<Receipt, Error> {
    let (tree, plan) = (topology.into(), plan.into());
    let job = Job { tree, plan, policy, beside: false, how: How::Whole };
    commit_all(hw, clock, job, &mut committed.into())
}

/// The same for a plan of what came later ([`plan_beside`](crate::plan::plan_beside)): decoders that are
/// committed and that the plan does not name are left alone. `committed` has those of the plan only.
pub fn commit_beside<'a>(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    topology: impl Into<Tree<'a>>,
    plan: impl Into<PlanRef<'a>>,
    policy: &Policy<'_>,
    committed: impl Into<CommittedMut<'a>>,
) -> Result<Receipt, Error> {
    let (tree, plan) = (topology.into(), plan.into());
    let job = Job { tree, plan, policy, beside: true, how: How::Whole };
    commit_all(hw, clock, job, &mut committed.into())
}

// Compiled once, whatever the lists lie in.
#[inline(never)]
pub(crate) fn commit_all(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    job: Job<'_>,
    committed: &mut CommittedMut<'_>,
) -> Result<Receipt, Error> {
    committed.clear();
    *committed.unread = true;
    let (mut written, mut fault) = (0, Fault::NONE);
    let found = survey(hw, job, committed, &mut fault);
    // A plan of nothing looks at nothing.
    *committed.unread = found.is_err() || job.plan.decoders.is_empty();
    let result = match found {
        Ok(InitialState::AsPlanned) => Ok(()),
        Ok(InitialState::Free) => {
            let result = run(hw, clock, job, committed, &mut written, &mut fault);
            if result.is_err() {
                roll_back(hw, job, committed, written);
            }
            result
        }
        Err(failed) => Err(failed),
    };
    record_devices(hw, job, committed);
    record_regions(job.plan, committed);
    forget_silent(committed);
    fault.told(result).map(|()| Receipt { written })
}

/// Puts back what a commit has written and no lock holds; `committed` says what became of it.
///
/// Of the regions that it lists, as the commit left them or as a verifier found them since, those
/// that are locked stay in use.
pub fn undo<'a>(
    hw: &mut impl Mmio,
    topology: impl Into<Tree<'a>>,
    plan: impl Into<PlanRef<'a>>,
    policy: &Policy<'_>,
    committed: impl Into<CommittedMut<'a>>,
    receipt: Receipt,
) {
    let (tree, plan) = (topology.into(), plan.into());
    let job = Job { tree, plan, policy, beside: false, how: How::Whole };
    if receipt.written > 0 {
        reject(hw, job, &mut committed.into());
    }
}

/// What does not change during a run.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) tree: Tree<'a>,
    pub(crate) plan: PlanRef<'a>,
    pub(crate) policy: &'a Policy<'a>,
    /// Whether lower decoders of a component, and components that the plan has nothing of, may be in use.
    pub(crate) beside: bool,
    /// How far it goes.
    pub(crate) how: How,
}

/// How far a commit goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// To the end, as the policy wants it.
    Whole,
    /// To the end without locks, which are made afterwards: each decoder is asked whether it takes its own.
    Tried,
    /// Every register is written, and nothing is committed: [`lock::lock_all`] does that.
    Programmed,
}

impl Job<'_> {
    /// Whether a decoder that the plan does not name may be in use.
    fn may_be_in_use(self, node: NodeId, index: u8) -> bool {
        let first = self.plan.decoders_of(node).next();
        self.beside && first.is_none_or(|first| index < first.index)
    }

    fn slot(self, planned: &PlannedDecoder, fault: &mut Fault) -> Result<Slot, Failed> {
        Slot::new(self.tree, planned, self.policy, fault)
    }

    fn device(self, device: &DeviceBefore) -> Option<DeviceRegisters> {
        DeviceRegisters::of(self.tree, device.node)
    }

    /// Fails where a device's register did not keep what was written.
    fn kept(
        self,
        node: NodeId,
        result: Result<(), Mismatch>,
        fault: &mut Fault,
    ) -> Result<(), Failed> {
        let Err(mismatch) = result else { return Ok(()) };
        Err(differs(Code::COMMIT_DEVICE_NOT_KEPT, self.tree.path(node).into(), mismatch, fault))
    }
}

/// A register that is not as it should be.
#[cold]
#[inline(never)]
pub(crate) fn differs(
    code: Code,
    at: error::Place,
    (register, expected, found): Mismatch,
    fault: &mut Fault,
) -> Failed {
    fault.at(code, at).detail(register).expected(expected).found(found).into()
}

enum InitialState {
    /// Nothing is committed.
    Free,
    /// Everything is committed as planned, and nothing else.
    AsPlanned,
}

/// Reads what is there; refuses what somebody else put there.
fn survey(
    hw: &mut impl Mmio,
    job: Job<'_>,
    committed: &mut CommittedMut<'_>,
    fault: &mut Fault,
) -> Result<InitialState, Failed> {
    let CommittedMut { decoders, devices, regions, decoders_before, devices_before, .. } =
        committed;
    let most = [decoders.room(), devices.room(), regions.room(), decoders_before.room()];
    let have = most.into_iter().fold(devices_before.room(), usize::min);
    let need = job.plan.decoders.len();
    if need > have {
        let at = error::Place::NOWHERE;
        return fault.at(Code::COMMIT_CAPACITY, at).expected(need).found(have).into();
    }
    let mut in_use = 0usize;
    for planned in job.plan.decoders {
        let slot = job.slot(planned, fault)?;
        let image = slot.registers.read(hw);
        settled(slot.place, image.control(), fault)?;
        in_use += usize::from(image.control().committed());
        let PlannedDecoder { node, index, .. } = *planned;
        let entry = CommittedDecoder::new(job.tree, node, index, image, Fate::Untouched);
        let _ = committed.decoders.push(entry);
        let _ = committed.decoders_before.push(DecoderBefore(image));
    }
    let mut foreign = None;
    for (node, hdm) in job.tree.sound().filter_map(|(id, node)| Some((id, node.hdm?))) {
        if job.plan.decoders.is_empty() {
            break;
        }
        for index in 0..hdm.decoders {
            let planned = job.plan.decoders_of(node).any(|planned| planned.index == index);
            if planned || hdm.is_lost(index) {
                continue;
            }
            let registers = DecoderRegisters::new(hdm.block, index);
            let control = registers.read_control(hw);
            let place = Place::of(job.tree, node, index).into();
            settled(place, control, fault)?;
            let theirs = control.committed() && !job.may_be_in_use(node, index);
            if theirs && foreign.is_none() {
                let image = registers.read_beside(hw, control);
                let (base, size) = (image.base(), image.size());
                foreign = Some(Code::COMMIT_FOREIGN_DECODER.at(place).expected(base).found(size));
            }
        }
        if job.plan.decoders_of(node).next().is_none() {
            continue;
        }
        if let Some(registers) = DeviceRegisters::of(job.tree, node) {
            let before = registers.read(hw);
            if let Some(register) = before.silent() {
                let at = job.tree.path(node);
                return fault.at(Code::COMMIT_SILENT, at).detail(register).into();
            }
            let before = DeviceBefore { node, image: before, enabled: false };
            // One for each device with a decoder in the plan, so there is room.
            let _ = committed.devices_before.push(before);
        }
    }
    if in_use > 0 {
        as_planned(job, committed, fault)?;
    }
    if let Some(foreign) = foreign {
        return Err(fault.keep(foreign));
    }
    for device in &committed.devices_before {
        let Some(registers) = job.device(device) else { continue };
        let before = &device.image;
        if in_use == 0 {
            if let Some((_, expected, found)) = registers.frozen(before, job.policy.enable_cache) {
                let at = job.tree.path(device.node);
                let fault = fault.at(Code::COMMIT_CONFIG_LOCKED, at);
                return fault.expected(expected).found(found).into();
            }
        } else if let Some(mismatch) = registers.difference(before, job.policy) {
            let at = job.tree.path(registers.node).into();
            return Err(differs(Code::COMMIT_FOREIGN_ENABLES, at, mismatch, fault));
        }
    }
    if in_use == 0 {
        return Ok(if job.plan.decoders.is_empty() {
            InitialState::AsPlanned
        } else {
            InitialState::Free
        });
    }
    for entry in &mut committed.decoders {
        entry.fate = Fate::Done;
    }
    Ok(InitialState::AsPlanned)
}

/// Refuses a decoder that does not answer, or that somebody's commit left unsettled.
#[inline(never)]
pub(crate) fn settled(
    place: error::Place,
    control: Control,
    fault: &mut Fault,
) -> Result<(), Failed> {
    let found = control.into_bits();
    if found == u32::MAX {
        return silent(place, fault);
    }
    if !control.committed() && (control.commit() || control.error_not_committed()) {
        return fault.at(Code::COMMIT_UNSETTLED, place).found(found).into();
    }
    Ok(())
}

/// Refuses a component of which a decoder does not answer.
fn silent(place: error::Place, fault: &mut Fault) -> Result<(), Failed> {
    let at = place.of_component();
    fault.at(Code::COMMIT_SILENT, at).detail(Control::NUMBER).into()
}

/// Whether all planned decoders are committed as planned, given that at least one is.
fn as_planned(job: Job<'_>, committed: &CommittedMut<'_>, fault: &mut Fault) -> Result<(), Failed> {
    for (planned, entry) in job.plan.decoders.iter().zip(&*committed.decoders) {
        let slot = job.slot(planned, fault)?;
        let place = slot.place;
        if !entry.committed() {
            return fault.at(Code::COMMIT_FOREIGN_PART, place).into();
        }
        if let Some(mismatch) = slot.difference(entry.image, true) {
            return Err(differs(Code::COMMIT_FOREIGN_CONTENTS, place, mismatch, fault));
        }
    }
    Ok(())
}

/// Steps 2 to 4. `written` counts the decoders of the plan that were written to, or begun to be.
fn run(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    job: Job<'_>,
    committed: &mut CommittedMut<'_>,
    written: &mut usize,
    fault: &mut Fault,
) -> Result<(), Failed> {
    let Job { tree, plan, policy, .. } = job;
    for device in &committed.devices_before {
        if let Some(registers) = job.device(device) {
            job.kept(device.node, registers.quiesce(hw, &device.image), fault)?;
        }
    }
    for (index, planned) in plan.decoders.iter().enumerate() {
        let Some(entry) = committed.decoders.get_mut(index) else { break };
        *written += 1;
        let slot = job.slot(planned, fault)?;
        // What does not take its lock is found before anything is locked. One that is set already has to
        // let itself be cleared.
        let asks = job.how == How::Tried && !entry.image.control().lock_on_commit();
        entry.image = if asks { slot.with_lock() } else { slot }.program(hw, fault)?;
        let node = planned.node;
        if plan.decoders.get(index + 1).is_some_and(|next| next.node == node) {
            continue;
        }
        let device = committed.devices_before.iter().find(|device| device.node == node);
        if let Some((device, registers)) = device.and_then(|d| Some((d, job.device(d)?))) {
            let mut images = [DecoderImage::default(); 2];
            let own = committed.decoders.iter().filter(|entry| entry.node == node);
            for (image, entry) in images.iter_mut().zip(own) {
                *image = entry.image;
            }
            job.kept(node, registers.mirror(hw, &device.image, &images), fault)?;
        }
    }
    for device in &committed.devices_before {
        let node = device.node;
        if cfg!(feature = "back-invalidate") && plan.decoders_of(node).any(needs_back_invalidate) {
            back_invalidate::enable(hw, clock, tree, node, &mut committed.links_before, fault)?;
        }
    }
    if job.how == How::Programmed {
        return Ok(());
    }
    let mut next = plan.decoders.iter().skip(1);
    for (planned, entry) in plan.decoders.iter().zip(&mut *committed.decoders) {
        let control = commit_one(hw, clock, &job.slot(planned, fault)?, fault)?;
        entry.image = entry.image.with_control(control);
        if next.next().is_some_and(|next| next.node == planned.node) {
            continue;
        }
        let device = committed.devices_before.iter_mut().find(|device| device.node == planned.node);
        if let Some(device) = device
            && let Some(registers) = job.device(device)
        {
            job.kept(
                planned.node,
                registers.enable(hw, &device.image, policy.enable_cache),
                fault,
            )?;
            device.enabled = true;
        }
    }
    if policy.config_lock {
        for device in &committed.devices_before {
            if let Some(registers) = job.device(device) {
                job.kept(device.node, registers.lock(hw), fault)?;
            }
        }
    }
    for (planned, entry) in plan.decoders.iter().zip(&mut *committed.decoders) {
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
#[inline(never)]
pub(crate) fn commit_one(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    slot: &Slot,
    fault: &mut Fault,
) -> Result<Control, Failed> {
    let (place, wanted) = (slot.place, slot.image.control().with_commit(true));
    slot.registers.write_control(hw, wanted);
    let settled = |dword| Control::from_bits(dword).settled();
    let address = slot.registers.control_address();
    let (found, result) = poll(hw, clock, COMMIT_TIMEOUT, address, settled);
    if let Err(TimedOut { polls, microseconds }) = result {
        let fault = fault.at(Code::COMMIT_TIMEOUT, place).expected(microseconds);
        return fault.found((found, polls)).into();
    }
    let control = Control::from_bits(found);
    if found == u32::MAX {
        silent(place, fault)?;
    }
    if control.error_not_committed() {
        return fault.at(Code::COMMIT_REFUSED, place).found(found).into();
    }
    match slot.difference(slot.image.with_control(control), true) {
        None => Ok(control),
        Some((_, expected, _)) => {
            let fault = fault.at(Code::COMMIT_COMMITTED_OTHERWISE, place);
            fault.expected(expected).found(found).into()
        }
    }
}

/// Puts back what can be put back, and says of each decoder what became of it.
fn roll_back(hw: &mut impl Mmio, job: Job<'_>, committed: &mut CommittedMut<'_>, written: usize) {
    let plan = job.plan;
    for (index, planned) in plan.decoders.iter().enumerate() {
        let whole = match planned.purpose {
            Purpose::Region { region, .. } => is_whole(plan, committed, region),
            // A spare decoder that is locked at size 0 is all it was to be.
            Purpose::Burn { .. } => {
                committed.decoders.get(index).is_some_and(|entry| entry.locked())
            }
        };
        if let Some(entry) = committed.decoders.get_mut(index).filter(|_| whole) {
            entry.fate = Fate::Done;
        }
    }
    put_back(hw, job, committed, written);
}

/// Puts back what no lock holds of a run that came to its end and failed its check. Of the regions
/// that the check found, those that are locked stay.
#[inline(never)]
fn reject(hw: &mut impl Mmio, job: Job<'_>, committed: &mut CommittedMut<'_>) {
    let Job { tree, plan, .. } = job;
    let CommittedMut { decoders, devices, regions, .. } = committed;
    regions.retain(|region| region.locked);
    decoders.clear();
    devices.clear();
    for planned in plan.decoders {
        let PlannedDecoder { node, index, purpose } = *planned;
        // The run had all of them, in this order.
        let Ok(slot) = job.slot(planned, &mut { Fault::NONE }) else { break };
        let image = slot.registers.read(hw);
        let mut entry = CommittedDecoder::new(tree, node, index, image, Fate::Done);
        let leads = |decoder| regions.iter().any(|region| claims(decoder, region.span));
        let stays = match purpose {
            Purpose::Region { .. } => entry.active().is_some_and(leads),
            Purpose::Burn { .. } => image.size() == 0,
        };
        if !stays || !entry.locked() {
            entry.fate = Fate::Untouched;
        }
        let _ = decoders.push(entry);
    }
    put_back(hw, job, committed, plan.decoders.len());
    record_devices(hw, job, committed);
    forget_silent(committed);
}

/// Puts back the first `written` decoders of the plan, but those that are done, and what belongs to
/// devices that then serve nothing; the last step first.
fn put_back(hw: &mut impl Mmio, job: Job<'_>, committed: &mut CommittedMut<'_>, written: usize) {
    let Job { tree, plan, .. } = job;
    let serves = |decoders: &[CommittedDecoder], node: NodeId| {
        plan.decoders.iter().zip(decoders).any(|(planned, entry)| {
            planned.node == node
                && entry.fate == Fate::Done
                && matches!(planned.purpose, Purpose::Region { .. })
        })
    };
    let CommittedMut { decoders, devices_before, decoders_before, links_before, .. } = committed;
    for device in devices_before.iter().rev().filter(|device| !serves(decoders, device.node)) {
        if let Some(registers) = job.device(device) {
            registers.restore_enables(hw, &device.image);
        }
    }
    let entries = plan.decoders.iter().zip(&*decoders_before).enumerate();
    for (index, (planned, DecoderBefore(before))) in { entries }.take(written).rev() {
        let Some(entry) = decoders.get_mut(index) else { continue };
        let Ok(slot) = job.slot(planned, &mut { Fault::NONE }) else { continue };
        let PlannedDecoder { node, index: number, .. } = *planned;
        let mut fate = entry.fate;
        if fate != Fate::Done {
            entry.image = take_back(hw, slot.registers, *before);
            fate = if entry.image == *before { Fate::RolledBack } else { Fate::Stranded };
        }
        *entry = CommittedDecoder::new(tree, node, number, entry.image, fate);
    }
    for device in devices_before.iter().rev().filter(|device| !serves(decoders, device.node)) {
        if let Some(registers) = job.device(device) {
            registers.restore_ranges(hw, &device.image);
        }
    }
    let in_use = |node: NodeId| {
        devices_before.iter().any(|device| {
            serves(decoders, device.node)
                && tree.upwards(device.node).any(|(above, _)| above == node)
        })
    };
    for (node, control) in
        links_before.iter().rev().flat_map(|links| links.0.into_iter().rev()).flatten()
    {
        if cfg!(feature = "back-invalidate") && !in_use(node) {
            back_invalidate::restore(hw, tree, node, control);
        }
    }
}

/// Whether every decoder of a region is locked in place and its devices are on. An entry's image
/// says locked only once the commit was read back.
fn is_whole(plan: PlanRef<'_>, committed: &CommittedMut<'_>, region: u16) -> bool {
    let both = plan.decoders.iter().zip(&*committed.decoders);
    { both }.filter(|(planned, _)| belongs(planned, region)).all(|(planned, entry)| {
        let mut devices = committed.devices_before.iter();
        let off = devices.any(|device| device.node == planned.node && !device.enabled);
        entry.locked() && !off
    })
}

fn belongs(planned: &PlannedDecoder, wanted: u16) -> bool {
    matches!(planned.purpose, Purpose::Region { region, .. } if region == wanted)
}

/// Puts a decoder back as far as it lets itself, and reads what it holds then. Nothing is written to one that
/// stays committed: what it claims is what it claimed.
pub(crate) fn take_back(
    hw: &mut impl Mmio,
    registers: DecoderRegisters,
    before: DecoderImage,
) -> DecoderImage {
    let control = registers.read_control(hw);
    if control.locked() {
        return registers.read_beside(hw, control);
    }
    // Other fields may change only once Commit is 0. That clears Error Not Committed as well, and
    // is the best that can be done about a commit that never ends.
    registers.write_control(hw, control.with_commit(false).with_committed(false));
    for _ in 0..CLEAR_READS {
        if !registers.read_control(hw).committed() {
            registers.write(hw, before);
            break;
        }
    }
    registers.read(hw)
}

/// Forgets what is all-ones: of a component that does not answer nobody knows what its decoders hold.
#[inline(never)]
fn forget_silent(committed: &mut CommittedMut<'_>) {
    let before = committed.decoders.len();
    committed.decoders.retain(|entry| entry.image.control != u32::MAX);
    *committed.unread |= committed.decoders.len() != before;
}

/// What the devices hold now.
fn record_devices(hw: &mut impl Mmio, job: Job<'_>, committed: &mut CommittedMut<'_>) {
    for device in &committed.devices_before {
        // One that does not answer has no enables that anybody knows of.
        if let Some(Ok(now)) = job.device(device).map(|it| CommittedDevice::read(hw, it)) {
            // One for each device with a decoder, so there is room.
            let _ = committed.devices.push(now);
        }
    }
}

/// The regions of the plan that are whole, as the hardware has them.
fn record_regions(plan: PlanRef<'_>, committed: &mut CommittedMut<'_>) {
    for (number, region) in plan.regions.iter().enumerate() {
        if let Some(region) = whole_region(plan, committed, number as u16, region) {
            committed.add_region(region);
        }
    }
}

fn whole_region(
    plan: PlanRef<'_>,
    committed: &CommittedMut<'_>,
    number: u16,
    region: &Region,
) -> Option<CommittedRegion> {
    let both = plan.decoders.iter().zip(&*committed.decoders);
    let mut entries =
        { both }.filter(|(planned, _)| belongs(planned, number)).map(|(_, entry)| entry);
    // Devices come first in a plan.
    let first = entries.clone().next()?.active()?;
    let locked = entries.clone().all(CommittedDecoder::locked);
    entries.all(|entry| entry.active().is_some()).then_some(CommittedRegion {
        window: region.window,
        span: region.reached,
        interleave: first.interleave,
        coherency: first.coherency,
        partition: region.partition,
        locked,
        probed: Probed::No,
    })
}
