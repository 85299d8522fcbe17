//! Proof that what is committed is whole: every decoder on every path, from device to window.
//!
//! [`verify`] needs no plan: it reads a machine that this library or other firmware programmed and
//! judges the decoders against each other, the devices and the windows. [`verify_plan`] also holds
//! them against a plan.
//!
//! **Invariant**: only reads, and each register of a component once. What is found wrong is data;
//! the whole list, not the first.

mod finding;
pub(crate) mod paths;

use cxl_regs::hdm::Control;
use cxl_regs::{Coherency, Decoder, Span, Ways};

pub use finding::{Findings, FindingsMut, Tally};
use paths::{Decoders, WindowView};

use crate::commit::back_invalidate;
use crate::commit::planned_registers::Slot;
use crate::committed::{CommittedDecoder, CommittedDevice, CommittedMut, Fate, Place};
use crate::decoder_registers::DecoderRegisters;
use crate::device_registers::DeviceRegisters;
use crate::error::{Code, Fault, Numbered};
use crate::list;
use crate::mmio::Mmio;
use crate::plan::PlanRef;
use crate::platform::{Platform, Window, claims, holds};
use crate::policy::{Demands, PathPolicy, Policy};
use crate::topology::{NodeId, Partition, Tree};

/// Reads every committed decoder of a machine and judges all paths.
///
/// `demands` may be a whole [`Policy`]. `committed` is filled with what is in use and with the
/// regions that are whole. What no decoder leads to is worth knowing too.
pub fn verify<'a>(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    topology: impl Into<Tree<'a>>,
    demands: impl Into<Demands>,
    committed: impl Into<CommittedMut<'a>>,
    findings: impl Into<FindingsMut<'a>>,
) {
    let (tree, mut committed, mut findings) = (topology.into(), committed.into(), findings.into());
    let demands = demands.into();
    judge(hw, platform, tree, demands, &mut committed, &mut findings);
    // Where there is a plan, its notes say what is unused, and why.
    let decoders =
        Decoders { tree, list: &committed.decoders, locks: demands.path, target: demands.target };
    for (id, node) in tree.sound() {
        let Some(device) = node.device() else { continue };
        for partition in Partition::ALL {
            let used = decoders.used(id, partition);
            let size = device.capacity(partition).saturating_sub(used);
            if size != 0 {
                findings.add(Code::VERIFY_UNUSED.at(tree.path(id)).detail(partition).found(size));
            }
        }
    }
}

// Compiled once, whatever the lists lie in.
#[inline(never)]
fn judge(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    tree: Tree<'_>,
    demands: Demands,
    committed: &mut CommittedMut<'_>,
    findings: &mut FindingsMut<'_>,
) {
    findings.clear();
    read(hw, tree, committed, findings);
    let mut report = |finding| findings.add(finding);
    for device in &*committed.devices {
        let at = tree.path(device.node);
        if !device.decoder_enable {
            report(Code::VERIFY_DECODERS_DISABLED.at(at));
        }
        if !device.mem_enable {
            report(Code::VERIFY_MEMORY_DISABLED.at(at));
        }
        if demands.config_lock && !device.config_lock {
            report(Code::VERIFY_CONFIG_UNLOCKED.at(at));
        }
        let back_invalidate = committed.decoders.iter().any(|entry| {
            let coherency = entry.active().map(|decoder| decoder.coherency);
            entry.node == device.node && coherency == Some(Coherency::BackInvalidate)
        });
        if back_invalidate && let Some(gap) = back_invalidate::gap(hw, tree, device.node) {
            report(Code::VERIFY_BACK_INVALIDATE_BLOCKED.at(at).above(tree.path(gap)));
        }
    }
    let decoders =
        Decoders { tree, list: &committed.decoders, locks: demands.path, target: demands.target };
    decoders.components(&mut report);
    let CommittedMut { devices, regions, .. } = committed;
    for (at, (_, decoder)) in decoders.device_claims().enumerate() {
        let span = decoder.span;
        if decoders.device_claims().take(at).any(|(_, earlier)| earlier.span == span) {
            continue;
        }
        let ways = decoder.interleave.ways;
        let window = platform.windows.iter().find_map(|window| view(window, span, ways));
        if let Some(region) = decoders.region(span, window, &mut report) {
            // One for each device decoder at most, so there is room.
            let _ = regions.push(region);
        }
    }
    let on = |span: Span| {
        decoders.device_claims().filter(|(_, decoder)| claims(decoder, span)).all(|(entry, _)| {
            let mut devices = devices.iter();
            devices.any(|d| d.node == entry.node && d.decoder_enable && d.mem_enable)
        })
    };
    regions.retain(|region| on(region.span));
    list::sort_by_key(regions, |region| region.span.base());
}

/// The same judgement, and every decoder of the plan committed as planned, and no other one.
pub fn verify_plan<'a>(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    topology: impl Into<Tree<'a>>,
    plan: impl Into<PlanRef<'a>>,
    policy: &Policy<'_>,
    committed: impl Into<CommittedMut<'a>>,
    findings: impl Into<FindingsMut<'a>>,
) {
    let (tree, plan) = (topology.into(), plan.into());
    judge_plan(hw, platform, tree, plan, policy, &mut committed.into(), &mut findings.into());
}

// Compiled once, whatever the lists lie in.
#[inline(never)]
fn judge_plan(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    tree: Tree<'_>,
    plan: PlanRef<'_>,
    policy: &Policy<'_>,
    committed: &mut CommittedMut<'_>,
    findings: &mut FindingsMut<'_>,
) {
    judge(hw, platform, tree, policy.into(), committed, findings);
    for planned in plan.decoders {
        let place = Place::of(tree, planned.node, planned.index);
        let mut entries = committed.decoders.iter();
        let entry =
            entries.find(|entry| (entry.node, entry.index) == (planned.node, planned.index));
        let (Some(entry), Ok(slot)) =
            (entry, Slot::new(tree, planned, policy, &mut { Fault::NONE }))
        else {
            findings.add(Code::VERIFY_NOT_COMMITTED.at(place));
            continue;
        };
        if let Some((register, expected, found)) = slot.difference(entry.image, true) {
            findings.add(
                Code::VERIFY_DIFFERS_FROM_PLAN
                    .at(place)
                    .detail(register)
                    .expected(expected)
                    .found(found),
            );
        }
    }
    if matches!(policy.path, PathPolicy::GuestPrograms | PathPolicy::Describe) {
        return;
    }
    let decoders =
        Decoders { tree, list: &committed.decoders, locks: policy.path, target: policy.target };
    for entry in &*committed.decoders {
        let planned = plan.decoders_of(entry.node).any(|planned| planned.index == entry.index);
        let lost = entry.fate == Fate::Stranded || decoders.leads_to_lost(entry);
        if !planned && !lost {
            findings.add(Code::VERIFY_NOT_IN_PLAN.at(Place::of(tree, entry.node, entry.index)));
        }
    }
}

/// The window, if it has the whole of a range that is interleaved so many ways.
pub(crate) fn view(window: &Window, span: Span, ways: Ways) -> Option<WindowView<'_>> {
    let whole = window.span()?;
    holds(whole, span, ways).then_some(WindowView {
        span: whole,
        interleave: window.interleave,
        restrictions: window.restrictions,
        targets: &window.targets,
    })
}

/// Reads every component with decoders.
#[inline(never)]
fn read(
    hw: &mut impl Mmio,
    tree: Tree<'_>,
    committed: &mut CommittedMut<'_>,
    findings: &mut FindingsMut<'_>,
) {
    committed.clear_accepted();
    for (id, node) in tree.sound() {
        let (Some(component), Some(hdm)) = (node.component(), node.hdm) else { continue };
        let at = tree.path(id);
        let mut in_use = false;
        for index in 0..hdm.decoders {
            let registers = DecoderRegisters::new(hdm.block, index);
            let control = registers.read_control(hw);
            if control.into_bits() == u32::MAX {
                findings.add(Code::VERIFY_SILENT.at(at).detail(Control::NUMBER));
                *committed.unread = true;
                break;
            }
            if !control.committed() {
                continue;
            }
            in_use = true;
            let image = registers.read_beside(hw, control);
            let lost = hdm.is_lost(index);
            if image.size() != 0
                && !lost
                && let Err(error) = Decoder::decode(&image, component, hdm.capability)
            {
                findings.add(Code::VERIFY_ILLEGAL.at(Place::of(tree, id, index)).rule(error));
            }
            let fate = if lost { Fate::Stranded } else { Fate::Done };
            let entry = CommittedDecoder::new(tree, id, index, image, fate);
            if committed.decoders.push(entry).is_err() {
                *committed.unread = true;
                findings.add(Code::VERIFY_CAPACITY.error().expected(committed.decoders.room()));
            }
        }
        if in_use {
            read_device(hw, tree, id, committed, findings);
        }
    }
}

fn read_device(
    hw: &mut impl Mmio,
    tree: Tree<'_>,
    id: NodeId,
    committed: &mut CommittedMut<'_>,
    findings: &mut FindingsMut<'_>,
) {
    let Some(registers) = DeviceRegisters::of(tree, id) else { return };
    let now = match CommittedDevice::read(hw, registers) {
        Ok(now) => now,
        Err(register) => {
            findings.add(Code::VERIFY_SILENT.at(tree.path(id)).detail(register));
            *committed.unread = true;
            return;
        }
    };
    if committed.devices.push(now).is_err() {
        findings.add(Code::VERIFY_CAPACITY.error().expected(committed.devices.room()));
    }
}
