//! Proof that what was committed is whole: every decoder read again, against the plan, and the path of
//! every region, from the registers alone.
//!
//! **Invariant**: only reads. Nothing is taken from the plan but what the registers are compared with.

use cxl_regs::access::Component;
use cxl_regs::hdm::{Control, DecoderImage};
use cxl_regs::{Decoder, Hpa, Route};

use super::commit::slot;
use super::{View, commit};
use crate::admits;
use crate::decoder_registers::DecoderRegisters;
use crate::error::{Code, Error, Numbered, Place};
use crate::mmio::Mmio;
use crate::platform::Platform;

/// The first thing that is wrong.
pub(super) fn verify(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    config_lock: bool,
    view: View<'_>,
) -> Result<(), Error> {
    for (component, number, hdm) in view.components() {
        for index in 0..hdm.decoders {
            let place = view.place(component, number, index);
            let registers = DecoderRegisters::new(hdm.block, index);
            let control = registers.read_control(hw);
            if control.into_bits() == u32::MAX {
                return Err(Code::VERIFY_SILENT.at(place.at).detail(Control::NUMBER));
            }
            let Some(planned) = view.planned(component, number, index) else {
                if control.committed() {
                    return Err(Code::VERIFY_NOT_IN_PLAN.at(place));
                }
                continue;
            };
            let found = registers.read_beside(hw, control);
            if !control.committed() {
                return Err(Code::VERIFY_NOT_COMMITTED.at(place));
            }
            if !control.locked() {
                return Err(unlocked(place, found));
            }
            if let Some((register, expected, found)) = slot(planned)?.difference(found, true) {
                let error = Code::VERIFY_DIFFERS_FROM_PLAN.at(place).detail(register);
                return Err(error.expected(expected).found(found));
            }
        }
    }
    let policy = commit::general(config_lock);
    for (number, port) in (0..).zip(view.ports) {
        let Some(below) = port.device.as_ref() else { continue };
        let Some(registers) = below.registers() else { continue };
        if view.regions_of(number).next().is_none() {
            continue;
        }
        let at = view.path(port);
        let now = registers.read(hw);
        if !now.global.decoder_enable() {
            return Err(Code::VERIFY_DECODERS_DISABLED.at(at));
        }
        if !now.control.mem_enable() {
            return Err(Code::VERIFY_MEMORY_DISABLED.at(at));
        }
        if policy.config_lock && !now.lock.config_lock() {
            return Err(Code::VERIFY_CONFIG_UNLOCKED.at(at));
        }
        path(hw, platform, view, number)?;
    }
    Ok(())
}

/// The way from a window to each part of a device's memory.
fn path(
    hw: &mut impl Mmio,
    platform: &Platform<'_>,
    view: View<'_>,
    number: u16,
) -> Result<(), Error> {
    let Some(port) = view.port(number) else { return Ok(()) };
    let Some((below, hdm)) = port.device.as_ref().and_then(|below| Some((below, below.hdm?)))
    else {
        return Ok(());
    };
    let Some(bridge) = view.bridges.get(usize::from(port.bridge)) else { return Ok(()) };
    let (mut dpa, mut above) = (0u64, Hpa(0));
    for index in 0..hdm.decoders {
        let image = DecoderRegisters::new(hdm.block, index).read(hw);
        if !image.control().committed() {
            continue;
        }
        let place = view.place(Component::Device, number, index);
        let illegal = |place, error| Code::VERIFY_ILLEGAL.at(place).rule(error);
        let decoder = Decoder::decode(&image, Component::Device, hdm.capability)
            .map_err(|error| illegal(place, error))?;
        let span = decoder.span;
        if !image.control().locked() {
            return Err(unlocked(place, image));
        }
        if span.base() < above {
            return Err(Code::VERIFY_OVERLAP.at(place).expected(above).found(span.base()));
        }
        above = span.end();
        // The memory: behind that of the decoder before, in one partition.
        let Route::Skip(skip) = decoder.route else { continue };
        let base = dpa.saturating_add(skip);
        dpa = base.saturating_add(span.size());
        let partition = if base < below.device.volatile {
            crate::topology::Partition::Volatile
        } else {
            crate::topology::Partition::Persistent
        };
        let start = below.device.start(partition);
        let end = start.saturating_add(below.device.capacity(partition));
        if dpa > end {
            return Err(Code::VERIFY_BEYOND_CAPACITY.at(place).expected(end).found(dpa));
        }
        // The window.
        let window = platform
            .windows
            .iter()
            .find(|window| window.span().is_some_and(|whole| whole.contains_span(span)));
        let outside = Code::VERIFY_OUTSIDE_WINDOWS.at(place);
        let window = window.ok_or_else(|| outside.expected(span.base()).found(span.size()))?;
        let base = window.base.unwrap_or_default();
        if *window.targets != [bridge.uid] {
            return Err(Code::VERIFY_NOT_A_TARGET.at(place).expected(bridge.uid).found(base));
        }
        if !admits::partition(window.restrictions, partition) {
            return Err(Code::VERIFY_MEDIA_NOT_ALLOWED.at(place).detail(partition).found(base));
        }
        if !admits::coherency(window.restrictions, decoder.coherency) {
            let error = Code::VERIFY_COHERENCY_NOT_ALLOWED.at(place);
            return Err(error.detail(decoder.coherency).found(base));
        }
        // The bridge.
        let mut claims = 0;
        for index in 0..bridge.hdm.decoders {
            let image = DecoderRegisters::new(bridge.hdm.block, index).read(hw);
            if !image.control().committed() {
                continue;
            }
            let above = view.place(Component::HostBridge, port.bridge, index);
            let found = Decoder::decode(&image, Component::HostBridge, bridge.hdm.capability)
                .map_err(|error| illegal(above, error))?;
            if !found.span.overlaps(span) {
                continue;
            }
            claims += 1;
            if !image.control().locked() {
                return Err(unlocked(above, image));
            }
            if found.span != span {
                let error = Code::VERIFY_RANGE_DIFFERS.at(place).above(above);
                return Err(error.expected(span).found(found.span));
            }
            if found.coherency != decoder.coherency {
                let error = Code::VERIFY_COHERENCY_DIFFERS.at(above);
                return Err(error.expected(decoder.coherency).found(found.coherency));
            }
            let leads = matches!(found.route, Route::Targets(targets)
                if targets.used(found.interleave.ways) == [port.number]);
            if !leads {
                return Err(Code::VERIFY_WRONG_TARGET.at(place).above(above).expected(port.number));
            }
        }
        if claims != 1 {
            let error = Code::VERIFY_NOT_CLAIMED.at(place).above(Place::bridge(bridge.uid));
            return Err(error.expected(span.base()).found(span.size()));
        }
    }
    Ok(())
}

fn unlocked(place: crate::committed::Place, image: DecoderImage) -> Error {
    Code::VERIFY_UNLOCKED_ON_PATH.at(place).found(image.control().into_bits())
}
