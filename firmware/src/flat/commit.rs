//! The flat plan into hardware: program, read back, commit with lock, enable; or put everything back.
//!
//! **Invariant**: the same registers are written as by [`mod@crate::commit`], in its order: devices, then
//! bridges. Until the first decoder is locked, a failure leaves every register as it was found.

use cxl_regs::access::Component;

use super::{Planned, Policy, Region, View, WorkspaceMut};
use crate::commit::planned_registers::Slot;
use crate::commit::{commit_one, settled, take_back};
use crate::committed::DecoderBefore;
use crate::decoder_registers::{DecoderRegisters, Mismatch};
use crate::device_registers::DeviceRegisters;
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
    survey(hw, policy, work)?;
    let mut written = 0;
    let result = run(hw, clock, policy, work, &mut written);
    if result.is_err() {
        put_back(hw, work, written);
    }
    result
}

/// The general policy that says the same of a device's enables.
pub(super) fn general(config_lock: bool) -> policy::Policy<'static> {
    policy::Policy { config_lock, ..policy::Policy::DEFAULT }
}

/// Every decoder of the plan in order of commit: of which component, and which.
fn planned(view: View<'_>) -> impl Iterator<Item = (Component, u16, u8)> {
    let devices = 0..view.ports.len() as u16;
    let bridges = 0..view.bridges.len() as u16;
    let of_devices = devices.flat_map(move |number| {
        let count = view.regions_of(number).count() as u8;
        (0..count).map(move |index| (Component::Device, number, index))
    });
    of_devices.chain(bridges.flat_map(move |number| {
        let count = view.regions_behind(number).count() as u8;
        (0..count).map(move |index| (Component::HostBridge, number, index))
    }))
}

/// A planned decoder: where it is, and what its registers shall hold.
pub(super) fn slot(planned: Planned<'_>) -> Result<Slot, Error> {
    let place = planned.place;
    let image = planned.image().map_err(|error| Code::COMMIT_ILLEGAL.at(place).rule(error))?;
    Ok(Slot::recorded(place, DecoderRegisters::new(planned.hdm.block, place.index), image))
}

fn slot_of(
    view: View<'_>,
    (component, number, index): (Component, u16, u8),
) -> Result<Slot, Error> {
    let missing = || Code::COMMIT_NO_SUCH_DECODER.at(view.place(component, number, index));
    slot(view.planned(component, number, index).ok_or_else(missing)?)
}

/// Where what a decoder held before is kept.
fn before<'a>(
    work: &'a mut WorkspaceMut<'_>,
    (component, number, index): (Component, u16, u8),
) -> Option<&'a mut DecoderBefore> {
    let view = work.view();
    let base = view.planned(component, number, index)?.region.span.base();
    let region: &mut Region = work.regions.iter_mut().find(|region| region.span.base() == base)?;
    let [device, bridge] = &mut region.before;
    Some(if component == Component::Device { device } else { bridge })
}

/// The devices that have a region.
fn devices(view: View<'_>) -> impl Iterator<Item = (u16, Path, DeviceRegisters)> {
    view.ports.iter().zip(0..).filter_map(move |(port, number)| {
        let _ = view.regions_of(number).next()?;
        Some((number, view.path(port), port.device.as_ref()?.registers()?))
    })
}

/// The error that a device's register did not keep what was written.
fn not_kept(at: Path) -> impl Fn(Mismatch) -> Error {
    move |(register, expected, found)| {
        let error = Code::COMMIT_DEVICE_NOT_KEPT.at(at).detail(register);
        error.expected(expected).found(found)
    }
}

/// Reads what is there, to be put back; discovery has seen that nothing is committed.
fn survey(hw: &mut impl Mmio, policy: &Policy, work: &mut WorkspaceMut<'_>) -> Result<(), Error> {
    for next in 0.. {
        let decoder = planned(work.view()).nth(next);
        let Some(decoder) = decoder else { break };
        let slot = slot_of(work.view(), decoder)?;
        let image = slot.registers.read(hw);
        settled(slot.place, image.control())?;
        if let Some(before) = before(work, decoder) {
            *before = DecoderBefore(image);
        }
    }
    let policy = general(policy.config_lock);
    for number in 0..work.ports.len() as u16 {
        let found = devices(work.view()).find(|(other, ..)| *other == number);
        let Some((_, path, registers)) = found else { continue };
        let image = registers.read(hw);
        if let Some(register) = image.silent() {
            return Err(Code::COMMIT_SILENT.at(path).detail(register));
        }
        if let Some((_, expected, found)) = registers.frozen(&image, &policy) {
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
    policy: &Policy,
    work: &WorkspaceMut<'_>,
    written: &mut usize,
) -> Result<(), Error> {
    let (view, policy) = (work.view(), general(policy.config_lock));
    let image = |number: u16| {
        let below = view.port(number).and_then(|port| port.device.as_ref());
        below.map(|below| below.before).unwrap_or(crate::list::Empty::EMPTY)
    };
    for (number, path, registers) in devices(view) {
        registers.quiesce(hw, &image(number)).map_err(not_kept(path))?;
    }
    let is_last = |(component, number, index): (Component, u16, u8)| {
        view.planned(component, number, index + 1).is_none()
    };
    let switch = |(component, number, _): (Component, u16, u8)| {
        let mut found = devices(view).filter(move |_| component == Component::Device);
        found.find(|(other, ..)| *other == number)
    };
    for decoder in planned(view) {
        *written += 1;
        slot_of(view, decoder)?.program(hw)?;
        if let (true, Some((number, path, registers))) = (is_last(decoder), switch(decoder)) {
            let all = planned(view).filter(|(component, other, _)| {
                (*component, *other) == (Component::Device, number)
            });
            let images = all.filter_map(|decoder| Some(slot_of(view, decoder).ok()?.image));
            registers.mirror(hw, &image(number), images).map_err(not_kept(path))?;
        }
    }
    for decoder in planned(view) {
        commit_one(hw, clock, &slot_of(view, decoder)?)?;
        if let (true, Some((number, path, registers))) = (is_last(decoder), switch(decoder)) {
            registers.enable(hw, &image(number), &policy).map_err(not_kept(path))?;
        }
    }
    if policy.config_lock {
        for (_, path, registers) in devices(view) {
            registers.lock(hw).map_err(not_kept(path))?;
        }
    }
    Ok(())
}

/// Puts back the first `written` decoders of the plan, and the devices; the last step first. A region
/// whose whole path is locked stays as it is, and so does its device; nothing else that is locked can be
/// helped.
pub(super) fn put_back(hw: &mut impl Mmio, work: &WorkspaceMut<'_>, written: usize) {
    let view = work.view();
    let image = |number: u16| Some(view.port(number)?.device.as_ref()?.before);
    for (number, _, registers) in devices(view) {
        if let (false, Some(before)) = (serves(hw, view, number), image(number)) {
            registers.restore_enables(hw, &before);
        }
    }
    let count = planned(view).count().min(written);
    for at in (0..count).rev() {
        let Some(decoder) = planned(view).nth(at) else { continue };
        let (component, number, index) = decoder;
        let Some(Planned { region, .. }) = view.planned(component, number, index) else { continue };
        let [device, bridge] = region.before;
        let DecoderBefore(before) = if component == Component::Device { device } else { bridge };
        if let (Ok(slot), false) = (slot_of(view, decoder), is_locked(hw, view, region)) {
            take_back(hw, &slot, before);
        }
    }
    for (number, _, registers) in devices(view) {
        if let (false, Some(before)) = (serves(hw, view, number), image(number)) {
            registers.restore_ranges(hw, &before);
        }
    }
}

/// Whether a device has a region whose whole path is locked.
fn serves(hw: &mut impl Mmio, view: View<'_>, number: u16) -> bool {
    view.regions_of(number).any(|region| is_locked(hw, view, region))
}

/// Whether both decoders of a region are locked in place.
fn is_locked(hw: &mut impl Mmio, view: View<'_>, wanted: &Region) -> bool {
    let mut of_region = planned(view).filter(|&(component, number, index)| {
        let found = view.planned(component, number, index);
        found.is_some_and(|found| found.region.span == wanted.span)
    });
    of_region.all(|decoder| {
        slot_of(view, decoder).is_ok_and(|slot| {
            let control = slot.registers.read_control(hw);
            control.locked() && control.into_bits() != u32::MAX
        })
    })
}
