//! The guest programs its own decoders, as an operating system's driver would: what the policy
//! `guest-programs` leaves to it.
//!
//! **Invariant**: only the device's registers are written; whoever chose that policy proved that
//! the bridge above forwards everything to the one device.

use cxl_firmware::DecoderRegisters;
use cxl_firmware::config;
use cxl_firmware::platform::Platform;
use cxl_firmware::topology::{Device, Hdm, NodeId, Partition};
use cxl_regs::dvsec::device::{Control, DeviceDvsec};
use cxl_regs::hdm::GlobalControl;
use cxl_regs::{Coherency, Component, Decoder, Interleave, Route, Span};

use super::Checks;
use super::memory::{MARK, load, nothing, store};
use super::path::commit;
use crate::Room;
use crate::hw::Hardware;
use crate::vmm::Vmm;

pub(super) fn program(
    hw: &mut Hardware,
    room: &Room,
    platform: &Platform<'_>,
    checks: &mut Checks,
) {
    let tree = room.topology.tree();
    for (id, device) in tree.devices() {
        let Some(hdm) = tree.get(id).and_then(|node| node.hdm) else { continue };
        match place(platform, room, id, device) {
            Some(span) => one(hw, hdm, device, span, checks),
            None => checks.refuse(format_args!("{}: no window for it alone", tree.path(id))),
        }
    }
}

/// The start of the window that leads to the device's bridge and nowhere else.
fn place(platform: &Platform<'_>, room: &Room, id: NodeId, device: &Device) -> Option<Span> {
    let (_, uid) = room.topology.tree().bridge(id)?;
    let window = platform.windows.iter().find(|window| window.targets.as_slice() == [uid])?;
    Span::new(window.base?, device.capacity(Partition::Volatile).min(window.size)).ok()
}

fn one(hw: &mut Hardware, hdm: Hdm, device: &Device, span: Span, checks: &mut Checks) {
    let decoder = Decoder {
        span,
        interleave: Interleave::NONE,
        coherency: Coherency::HostOnly,
        uio: None,
        set_position: 0,
        route: Route::Skip(0),
    };
    let image = match decoder.encode(Component::Device, hdm.capability) {
        Ok(image) => image,
        Err(error) => return checks.refuse(format_args!("{error}")),
    };
    let base = span.base().0;
    if hw.vmm == Vmm::Unknown {
        store(hw, base, MARK);
    }
    nothing(hw, base, format_args!("{base:#x} before"), checks);
    let registers = DecoderRegisters::new(hdm.block, 0);
    registers.write(hw, image);
    let committed = commit(hw, registers, image.control());
    checks.equal(format_args!("decoder 0 committed"), 1, committed.into());
    let global: GlobalControl = hdm.block.read(hw);
    hdm.block.write(hw, global.with_decoder_enable(true));
    let control: Control = device.dvsec.read(hw);
    config::write(hw, device.dvsec, DeviceDvsec::REGISTERS, control.with_mem_enable(true));
    for address in [base, span.end().0 - 8] {
        store(hw, address, !address);
        checks.equal(format_args!("{address:#x}"), !address, load(hw, address));
    }
    if hw.vmm == Vmm::Unknown {
        store(hw, span.end().0, MARK);
    }
    nothing(hw, span.end().0, format_args!("behind {span}"), checks);
}
