//! The flat plan into hardware: program, read back, commit with lock, enable; or put everything back.
//!
//! **Invariant**: the same registers are written as by [`mod@crate::commit`], in its order: devices, then
//! bridges. Until the first decoder is locked, a failure leaves every register as it was found.

use cxl_regs::access::Component;
use cxl_regs::hdm::DecoderImage;

use super::{Planned, Policy, Region, View, WorkspaceMut};
use crate::commit::planned_registers::Slot;
use crate::commit::{commit_one, settled, take_back};
use crate::committed::{DecoderBefore, Place};
use crate::decoder_registers::{DecoderRegisters, Mismatch};
use crate::device_registers::{DeviceImage, DeviceRegisters};
use crate::error::{Code, Error};
use crate::mmio::{Clock, Mmio};
use crate::policy;
use crate::topology::Path;

/// Programs, commits and locks every decoder of the plan.
pub(super) fn commit(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    policy: &Policy,
    work: &mut WorkspaceMut<'_>,
) -> Result<(), Error> {
    let policy = &general(policy.config_lock);
    survey(hw, policy, work)?;
    let mut written = 0;
    let result = run(hw, clock, policy, work.view(), &mut written);
    if result.is_err() {
        put_back(hw, work.view(), written);
    }
    result
}

/// The general policy that says the same of a device's enables.
pub(super) fn general(config_lock: bool) -> policy::Policy<'static> {
    policy::Policy { config_lock, ..policy::Policy::DEFAULT }
}

/// A planned decoder: where it is, and what its registers shall hold.
#[inline(never)]
pub(super) fn slot(planned: Planned<'_>) -> Result<Slot, Error> {
    let place = planned.place;
    let image = planned.image().map_err(|error| Code::COMMIT_ILLEGAL.at(place).rule(error))?;
    Ok(Slot::recorded(place, DecoderRegisters::new(planned.hdm.block, place.index), image))
}

/// The registers of the device below a port, what they held before, and its place, if it has a region.
#[inline(never)]
fn device(view: View<'_>, number: u16) -> Option<(DeviceRegisters, DeviceImage, Path)> {
    let _ = view.regions_of(number).next()?;
    let port = view.port(number)?;
    let below = port.device.as_ref()?;
    Some((below.registers()?, below.before, view.path(port)))
}

/// The error that a device's register did not keep what was written.
#[cold]
#[inline(never)]
fn not_kept(at: Path, (register, expected, found): Mismatch) -> Error {
    Code::COMMIT_DEVICE_NOT_KEPT.at(at).detail(register).expected(expected).found(found)
}

/// Reads what is there, to be put back; discovery has seen that nothing is committed.
fn survey(
    hw: &mut impl Mmio,
    policy: &policy::Policy<'_>,
    work: &mut WorkspaceMut<'_>,
) -> Result<(), Error> {
    let mut nth = 0;
    while let Some(planned) = work.view().nth(nth) {
        let slot = slot(planned)?;
        let image = slot.registers.read(hw);
        settled(slot.place, image.control())?;
        let base = planned.region.span.base();
        for region in work.regions.iter_mut().filter(|region| region.span.base() == base) {
            let [device, bridge] = &mut region.before;
            let of_device = slot.place.component == Component::Device;
            *if of_device { device } else { bridge } = DecoderBefore(image);
        }
        nth += 1;
    }
    for number in 0..work.ports.len() as u16 {
        let Some((registers, _, path)) = device(work.view(), number) else { continue };
        let image = registers.read(hw);
        if let Some(register) = image.silent() {
            return Err(Code::COMMIT_SILENT.at(path).detail(register));
        }
        if let Some((_, expected, found)) = registers.frozen(&image, policy) {
            return Err(Code::COMMIT_CONFIG_LOCKED.at(path).expected(expected).found(found));
        }
        let port = work.ports.get_mut(usize::from(number));
        if let Some(below) = port.and_then(|port| port.device.as_mut()) {
            below.before = image;
        }
    }
    Ok(())
}

/// `written` counts the decoders of the plan that were written to, or begun to be.
fn run(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    policy: &policy::Policy<'_>,
    view: View<'_>,
    written: &mut usize,
) -> Result<(), Error> {
    let ports = view.ports.len() as u16;
    for number in 0..ports {
        if let Some((registers, before, path)) = device(view, number) {
            registers.quiesce(hw, &before).map_err(|found| not_kept(path, found))?;
        }
    }
    for commits in [false, true] {
        let mut nth = 0;
        // What the decoders of the device that is at it are to hold: one for each kind of memory.
        let mut images = [DecoderImage::default(); 2];
        while let Some(planned) = view.nth(nth) {
            nth += 1;
            let slot = slot(planned)?;
            if commits {
                commit_one(hw, clock, &slot)?;
            } else {
                *written = nth;
                slot.program(hw)?;
            }
            let Place { component, index, .. } = planned.place;
            if let Some(image) = images.get_mut(usize::from(index)) {
                *image = slot.image;
            }
            let next = view.nth(nth).map(|next| (next.place.component, next.number));
            if component != Component::Device || next == Some((component, planned.number)) {
                continue;
            }
            if let Some((registers, before, path)) = device(view, planned.number) {
                let done = if commits {
                    registers.enable(hw, &before, policy)
                } else {
                    let images = images.into_iter().take(usize::from(index) + 1);
                    registers.mirror(hw, &before, images)
                };
                done.map_err(|found| not_kept(path, found))?;
            }
        }
    }
    for number in (0..ports).filter(|_| policy.config_lock) {
        if let Some((registers, _, path)) = device(view, number) {
            registers.lock(hw).map_err(|found| not_kept(path, found))?;
        }
    }
    Ok(())
}

/// Puts back the first `written` decoders of the plan, and the devices; the last step first. A region
/// whose whole path is locked stays as it is, and so does its device; nothing else that is locked can be
/// helped.
#[inline(never)]
pub(super) fn put_back(hw: &mut impl Mmio, view: View<'_>, written: usize) {
    let ports = view.ports.len() as u16;
    for number in 0..ports {
        if let Some((registers, before, _)) = device(view, number)
            && !serves(hw, view, number)
        {
            registers.restore_enables(hw, &before);
        }
    }
    let count = 2 * view.regions.len();
    for nth in (0..count.min(written)).rev() {
        let Some(planned) = view.nth(nth) else { continue };
        let [device, bridge] = planned.region.before;
        let of_device = planned.place.component == Component::Device;
        let DecoderBefore(before) = if of_device { device } else { bridge };
        if let (Ok(slot), false) = (slot(planned), is_locked(hw, view, planned.region)) {
            take_back(hw, &slot, before);
        }
    }
    for number in 0..ports {
        if let Some((registers, before, _)) = device(view, number)
            && !serves(hw, view, number)
        {
            registers.restore_ranges(hw, &before);
        }
    }
}

/// Whether a device has a region whose whole path is locked.
fn serves(hw: &mut impl Mmio, view: View<'_>, number: u16) -> bool {
    view.regions_of(number).any(|region| is_locked(hw, view, region))
}

/// Whether both decoders of a region are locked in place.
#[inline(never)]
fn is_locked(hw: &mut impl Mmio, view: View<'_>, wanted: &Region) -> bool {
    let mut nth = 0;
    while let Some(planned) = view.nth(nth) {
        nth += 1;
        if planned.region.span != wanted.span {
            continue;
        }
        let registers = DecoderRegisters::new(planned.hdm.block, planned.place.index);
        let control = registers.read_control(hw);
        if !control.locked() || control.into_bits() == u32::MAX {
            return false;
        }
    }
    true
}
