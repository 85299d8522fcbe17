//! Proof that what was committed is whole: every decoder read again, against the plan, and the path of
//! every region, from the registers alone.
//!
//! **Invariant**: only reads. Nothing is taken from the plan but what the registers are compared with.

use cxl_regs::access::Component;
use cxl_regs::hdm::Control;
use cxl_regs::{Decoder, Hpa, Route};

use super::commit::{self, slot};
use super::{Bridge, Port, View};
use crate::admits;
use crate::committed;
use crate::decoder_registers::DecoderRegisters;
use crate::error::{Code, Failed, Fault, Numbered, Place};
use crate::mmio::Mmio;
use crate::platform::Platform;
use crate::topology::{Hdm, Partition};

/// Finds the first thing that is wrong.
#[inline(never)]
pub(super) fn verify(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    config_lock: bool,
    view: View<'_>,
    fault: &mut Fault,
) -> Result<(), Failed> {
    for at in 0..view.components() {
        let Some((component, number, hdm)) = view.component_with_decoders(at) else { continue };
        for index in 0..hdm.decoders {
            let place = view.place(component, number, index);
            let registers = DecoderRegisters::new(hdm.block, index);
            let control = registers.read_control(hw);
            if control.into_bits() == u32::MAX {
                return fault.at(Code::VERIFY_SILENT, &place.at).detail(Control::NUMBER).into();
            }
            let planned = &view.planned(at, index);
            let Some(planned) = planned else {
                if control.committed() {
                    return fault.at(Code::VERIFY_NOT_IN_PLAN, place).into();
                }
                continue;
            };
            let found = registers.read_beside(hw, control);
            if !control.committed() {
                return fault.at(Code::VERIFY_NOT_COMMITTED, place).into();
            }
            locked(place, control, fault)?;
            let Ok(slot) = &slot(planned, fault) else { return Err(Failed) };
            if let Some((register, expected, found)) = slot.difference(found, true) {
                let fault = fault.at(Code::VERIFY_DIFFERS_FROM_PLAN, place).detail(register);
                return fault.expected(expected).found(found).into();
            }
        }
    }
    for number in 0..view.ports.len() as u16 {
        device(hw, platform, config_lock, view, number, fault)?;
    }
    Ok(())
}

/// Whether the device below a port is switched on, if it has a region, and what its decoders lead to.
fn device(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    config_lock: bool,
    view: View<'_>,
    number: u16,
    fault: &mut Fault,
) -> Result<(), Failed> {
    let Some((registers, _, port)) = &commit::device(view, number) else { return Ok(()) };
    let now = registers.read(hw);
    let wrong = if !now.global.decoder_enable() {
        Code::VERIFY_DECODERS_DISABLED
    } else if !now.control.mem_enable() {
        Code::VERIFY_MEMORY_DISABLED
    } else if config_lock && !now.lock.config_lock() {
        Code::VERIFY_CONFIG_UNLOCKED
    } else {
        return path(hw, platform, view, number, port, fault);
    };
    fault.at(wrong, &view.path(number)).into()
}

fn locked(place: committed::Place, control: Control, fault: &mut Fault) -> Result<(), Failed> {
    if control.locked() {
        return Ok(());
    }
    fault.at(Code::VERIFY_UNLOCKED_ON_PATH, place).found(control.into_bits()).into()
}

/// A decoder in use: what it holds and what that means.
#[inline(never)]
fn in_use(
    hw: &mut impl Mmio,
    hdm: &Hdm,
    place: committed::Place,
    fault: &mut Fault,
) -> Result<Option<(Control, Decoder)>, Failed> {
    let image = DecoderRegisters::new(hdm.block, place.index).read(hw);
    let control = image.control();
    if !control.committed() {
        return Ok(None);
    }
    match Decoder::decode(&image, place.component, hdm.capability) {
        Ok(decoder) => Ok(Some((control, decoder))),
        Err(error) => fault.at(Code::VERIFY_ILLEGAL, place).rule(error).into(),
    }
}

/// The way from a window to each part of a device's memory.
#[inline(never)]
fn path(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    view: View<'_>,
    number: u16,
    port: &Port,
    fault: &mut Fault,
) -> Result<(), Failed> {
    let Some(below) = &port.device else { return Ok(()) };
    let Some(hdm) = &below.hdm else { return Ok(()) };
    let Some(bridge) = view.bridges.get(usize::from(port.bridge)) else { return Ok(()) };
    let (mut dpa, mut above) = (0u64, Hpa(0));
    for index in 0..hdm.decoders {
        let place = view.place(Component::Device, number, index);
        let Ok(in_use) = &in_use(hw, hdm, place, fault) else { return Err(Failed) };
        let Some((control, decoder)) = in_use else { continue };
        let span = decoder.span;
        locked(place, *control, fault)?;
        if span.base() < above {
            let fault = fault.at(Code::VERIFY_OVERLAP, place).expected(above);
            return fault.found(span.base()).into();
        }
        above = span.end();
        // The memory: behind that of the decoder before, in one partition.
        let Route::Skip(skip) = decoder.route else { continue };
        let base = dpa.saturating_add(skip);
        dpa = base.saturating_add(span.size());
        let volatile = base < below.device.volatile;
        let partition = if volatile { Partition::Volatile } else { Partition::Persistent };
        let start = below.device.start(partition);
        let end = start.saturating_add(below.device.capacity(partition));
        if dpa > end {
            let fault = fault.at(Code::VERIFY_BEYOND_CAPACITY, place).expected(end);
            return fault.found(dpa).into();
        }
        // The window.
        let mut windows = platform.windows.iter();
        let found = windows.find_map(|window| {
            let whole = window.span().filter(|whole| whole.contains_span(span))?;
            Some((window, whole.base()))
        });
        let Some((window, base)) = found else {
            let fault = fault.at(Code::VERIFY_OUTSIDE_WINDOWS, place).expected(span.base());
            return fault.found(span.size()).into();
        };
        if *window.targets != [bridge.uid] {
            let fault = fault.at(Code::VERIFY_NOT_A_TARGET, place).expected(bridge.uid);
            return fault.found(base).into();
        }
        if !admits::partition(window.restrictions, partition) {
            let fault = fault.at(Code::VERIFY_MEDIA_NOT_ALLOWED, place).detail(partition);
            return fault.found(base).into();
        }
        if !admits::coherency(window.restrictions, decoder.coherency) {
            let fault = fault.at(Code::VERIFY_COHERENCY_NOT_ALLOWED, place);
            return fault.detail(decoder.coherency).found(base).into();
        }
        leads(hw, view, port, bridge, place, decoder, fault)?;
    }
    Ok(())
}

/// Whether exactly one decoder of the bridge leads to a device's decoder.
fn leads(
    hw: &mut impl Mmio,
    view: View<'_>,
    port: &Port,
    bridge: &Bridge,
    place: committed::Place,
    decoder: &Decoder,
    fault: &mut Fault,
) -> Result<(), Failed> {
    let span = decoder.span;
    let mut claims = 0;
    for index in 0..bridge.hdm.decoders {
        let above = view.place(Component::HostBridge, port.bridge, index);
        let Ok(in_use) = &in_use(hw, &bridge.hdm, above, fault) else { return Err(Failed) };
        let Some((control, found)) = in_use else { continue };
        if !found.span.overlaps(span) {
            continue;
        }
        claims += 1;
        locked(above, *control, fault)?;
        if found.span != span {
            let fault = fault.at(Code::VERIFY_RANGE_DIFFERS, place).above(above);
            return fault.expected(span).found(found.span).into();
        }
        if found.coherency != decoder.coherency {
            let fault = fault.at(Code::VERIFY_COHERENCY_DIFFERS, above);
            return fault.expected(decoder.coherency).found(found.coherency).into();
        }
        let leads = matches!(&found.route, Route::Targets(targets)
            if targets.used(found.interleave.ways) == [port.number]);
        if !leads {
            let fault = fault.at(Code::VERIFY_WRONG_TARGET, place).above(above);
            return fault.expected(port.number).into();
        }
    }
    if claims != 1 {
        let fault = fault.at(Code::VERIFY_NOT_CLAIMED, place).above(Place::bridge(bridge.uid));
        return fault.expected(span.base()).found(span.size()).into();
    }
    Ok(())
}
