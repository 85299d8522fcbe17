//! The flat plan into hardware: program, read back, commit with lock, enable; or put everything back.
//!
//! **Invariant**: the same registers are written as by [`mod@crate::commit`], in its order: devices, then
//! bridges. Until the first decoder is locked, a failure leaves every register as it was found.

use cxl_regs::access::Component;
use cxl_regs::hdm::DecoderImage;

use super::{Planned, Port, Region, View, WorkspaceMut};
use crate::commit::planned_registers::Slot;
use crate::commit::{commit_one, settled, take_back};
use crate::committed::DecoderBefore;
use crate::decoder_registers::DecoderRegisters;
use crate::device_registers::{DeviceImage, DeviceRegisters};
use crate::error::{Code, Failed, Fault};
use crate::mmio::{Clock, Mmio};
use crate::policy;

/// A planned decoder: where it is, and what its registers shall hold.
#[inline(never)]
pub(super) fn slot(planned: &Planned<'_>, fault: &mut Fault) -> Result<Slot, Failed> {
    let place = planned.place;
    match planned.image() {
        Ok(image) => {
            let registers = DecoderRegisters::new(planned.hdm.block, place.index);
            Ok(Slot::recorded(place.into(), registers, image).with_lock())
        }
        Err(error) => fault.at(Code::COMMIT_ILLEGAL, place).rule(error).into(),
    }
}

/// The registers of the device below a port, and what they held before, if it has a region.
#[inline(never)]
pub(super) fn device(
    view: View<'_>,
    number: u16,
) -> Option<(DeviceRegisters, &DeviceImage, &Port)> {
    if !view.has_region(Component::Device, number) {
        return None;
    }
    let port = view.port(number)?;
    let below = port.device.as_ref()?;
    Some((below.registers()?, &below.before, port))
}

/// Reads what is there, to be put back; discovery has seen that nothing is committed.
#[inline(never)]
pub(super) fn survey(
    hw: &mut impl Mmio,
    work: &mut WorkspaceMut<'_>,
    fault: &mut Fault,
) -> Result<(), Failed> {
    let mut nth = 0;
    while let Some(planned) = &work.view().nth(nth) {
        let place = &planned.place;
        let image = DecoderRegisters::new(planned.hdm.block, place.index).read(hw);
        settled((*place).into(), image.control(), fault)?;
        let base = planned.region.span.base();
        for region in work.regions.iter_mut().filter(|region| region.span.base() == base) {
            let [device, bridge] = &mut region.before;
            let of_device = place.component == Component::Device;
            *if of_device { device } else { bridge } = DecoderBefore(image);
        }
        nth += 1;
    }
    for number in 0..work.ports.len() as u16 {
        let view = work.view();
        let Some((registers, ..)) = &device(view, number) else { continue };
        let path = view.path(number);
        let image = registers.read(hw);
        if let Some(register) = image.silent() {
            return fault.at(Code::COMMIT_SILENT, &path).detail(register).into();
        }
        if let Some((_, expected, found)) =
            registers.frozen(&image, policy::Policy::DEFAULT.enable_cache)
        {
            let fault = fault.at(Code::COMMIT_CONFIG_LOCKED, &path);
            return fault.expected(expected).found(found).into();
        }
        let port = work.ports.get_mut(usize::from(number));
        if let Some(below) = port.and_then(|port| port.device.as_mut()) {
            below.before = image;
        }
    }
    Ok(())
}

/// What is done to a device's registers outside of its decoders, in this order.
#[derive(Clone, Copy)]
enum Step {
    Quiesce,
    Mirror,
    Enable,
    Lock,
}

/// Does a step to the device below a port, if it has a region.
#[inline(never)]
fn device_step(
    hw: &mut impl Mmio,
    view: View<'_>,
    number: u16,
    step: Step,
    fault: &mut Fault,
) -> Result<(), Failed> {
    let Some((registers, before, _)) = &device(view, number) else { return Ok(()) };
    let done = match step {
        Step::Quiesce => registers.quiesce(hw, before),
        Step::Mirror => {
            // One for each kind of memory; the plan has seen that each can be encoded.
            let mut images = [DecoderImage::default(); 2];
            for (index, image) in (0..).zip(&mut images) {
                if let Some(planned) = &view.planned(number.into(), index) {
                    *image = planned.image().unwrap_or_default();
                }
            }
            registers.mirror(hw, before, &images)
        }
        Step::Enable => registers.enable(hw, before, policy::Policy::DEFAULT.enable_cache),
        Step::Lock => registers.lock(hw),
    };
    let Err((register, expected, found)) = done else { return Ok(()) };
    let fault = fault.at(Code::COMMIT_DEVICE_NOT_KEPT, &view.path(number)).detail(register);
    fault.expected(expected).found(found).into()
}

/// Programs, commits and locks every decoder of the plan. `written` counts those that were written to, or begun
/// to be.
pub(super) fn commit(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    config_lock: bool,
    view: View<'_>,
    written: &mut usize,
    fault: &mut Fault,
) -> Result<(), Failed> {
    let ports = view.ports.len() as u16;
    for number in 0..ports {
        device_step(hw, view, number, Step::Quiesce, fault)?;
    }
    decoders(hw, clock, view, false, written, fault)?;
    decoders(hw, clock, view, true, written, fault)?;
    for number in (0..ports).filter(|_| config_lock) {
        device_step(hw, view, number, Step::Lock, fault)?;
    }
    Ok(())
}

/// Programs every decoder of the plan, or commits them all; then what their device needs.
#[inline(never)]
fn decoders(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    view: View<'_>,
    commits: bool,
    written: &mut usize,
    fault: &mut Fault,
) -> Result<(), Failed> {
    let mut nth = 0;
    while let Some(planned) = &view.nth(nth) {
        nth += 1;
        let Ok(slot) = &slot(planned, fault) else { return Err(Failed) };
        if commits {
            commit_one(hw, clock, slot, fault)?;
        } else {
            *written = nth;
            slot.program(hw, fault)?;
        }
        let number = planned.number;
        let own = (Component::Device, number);
        let next = view.nth(nth).map(|next| (next.place.component, next.number));
        if planned.place.component == Component::Device && next != Some(own) {
            let step = if commits { Step::Enable } else { Step::Mirror };
            device_step(hw, view, number, step, fault)?;
        }
    }
    Ok(())
}

/// Puts back the first `written` decoders of the plan, and the devices; the last step first. A region
/// whose whole path is locked stays as it is, and so does its device; nothing else that is locked can be
/// helped.
#[inline(never)]
pub(super) fn put_back(hw: &mut impl Mmio, view: View<'_>, written: usize) {
    devices_back(hw, view, DeviceRegisters::restore_enables);
    let count = 2 * view.regions.len();
    for nth in (0..count.min(written)).rev() {
        let Some(planned) = &view.nth(nth) else { continue };
        let [device, bridge] = &planned.region.before;
        let of_device = planned.place.component == Component::Device;
        let DecoderBefore(before) = if of_device { device } else { bridge };
        let slot = &slot(planned, &mut { Fault::none() });
        if let (Ok(slot), false) = (slot, is_locked(hw, view, planned.region)) {
            take_back(hw, slot.registers, *before);
        }
    }
    devices_back(hw, view, DeviceRegisters::restore_ranges);
}

/// Puts something back of each device that serves nothing.
#[inline(never)]
fn devices_back<M: Mmio>(
    hw: &mut M,
    view: View<'_>,
    back: fn(DeviceRegisters, &mut M, &DeviceImage),
) {
    for number in 0..view.ports.len() as u16 {
        if let Some((registers, before, _)) = &device(view, number)
            && !serves(hw, view, number)
        {
            back(*registers, hw, before);
        }
    }
}

/// Whether a device has a region whose whole path is locked.
fn serves(hw: &mut impl Mmio, view: View<'_>, number: u16) -> bool {
    view.regions.iter().any(|region| region.port == number && is_locked(hw, view, region))
}

/// Whether both decoders of a region are locked in place.
#[inline(never)]
fn is_locked(hw: &mut impl Mmio, view: View<'_>, wanted: &Region) -> bool {
    let mut nth = 0;
    while let Some(planned) = &view.nth(nth) {
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
