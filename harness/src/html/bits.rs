//! Registers bit by bit: what they held, what they hold, and which bits moved.
//!
//! **Invariant**: each register that differs is shown whole, with every bit of both sides.

use std::collections::BTreeMap;

use maud::{Markup, html};

use cxl_model::dump::RegisterDiff;
use cxl_model::fabric::{Fabric, HdmImage};
use cxl_regs::Component;
use cxl_regs::access::{Register, Spec};
use cxl_regs::dvsec::device::{Capability, Control};
use cxl_regs::hdm::{DECODER_SPECS, DecoderImage, GLOBAL_SPECS};

/// Registers of a page; a dump of something else altogether differs in every one.
const MOST: usize = 400;

/// The registers that differ from one moment of a machine to another.
pub(super) fn between(old: &Fabric, new: &Fabric) -> Vec<RegisterDiff> {
    let mut moved = Vec::new();
    let mut hdm = |name: &str, component, old: Option<&HdmImage>, new: Option<&HdmImage>| {
        let (Some(old), Some(new)) = (old, new) else { return };
        let pairs = [(old.capability, new.capability), (old.global_control, new.global_control)];
        for (spec, (old, new)) in GLOBAL_SPECS.iter().zip(pairs) {
            push(&mut moved, name, spec, component, old, new);
        }
        for (index, (old, new)) in old.decoders.iter().zip(&new.decoders).enumerate() {
            let place = format!("{name} decoder {index}");
            let [old, new] = [old, new].map(|image: &DecoderImage| image.to_dwords());
            for (spec, (old, new)) in DECODER_SPECS.iter().zip(old.into_iter().zip(new)) {
                push(&mut moved, &place, spec, component, old, new);
            }
        }
    };
    for (old, new) in old.bridges.iter().zip(&new.bridges) {
        hdm(&new.name, Component::HostBridge, old.hdm.as_ref(), new.hdm.as_ref());
    }
    for (old, new) in old.switches.iter().zip(&new.switches) {
        hdm(&new.name, Component::UpstreamPort, old.hdm.as_ref(), new.hdm.as_ref());
    }
    for (old, new) in old.devices.iter().zip(&new.devices) {
        hdm(&new.name, Component::Device, old.hdm.as_ref(), new.hdm.as_ref());
    }
    for (old, new) in old.devices.iter().zip(&new.devices) {
        let (Some(before), Some(after)) = (old.dvsec, new.dvsec) else { continue };
        let place = format!("{} Device DVSEC", new.name);
        let halves = [
            (Capability::SPEC, before.capability >> 16, after.capability >> 16),
            (Control::SPEC, before.control & 0xFFFF, after.control & 0xFFFF),
        ];
        for (spec, old, new) in halves {
            push(&mut moved, &place, &spec, Component::Device, old, new);
        }
    }
    moved
}

fn push(
    list: &mut Vec<RegisterDiff>,
    place: &str,
    spec: &Spec,
    component: Component,
    old: u32,
    new: u32,
) {
    if old != new {
        list.push(RegisterDiff::new(place, spec, Some(component), [Some(old), Some(new)]));
    }
}

/// The registers, by place; `None` if nothing differs.
pub(super) fn section(what: &str, moved: &[RegisterDiff]) -> Option<Markup> {
    if moved.is_empty() {
        return None;
    }
    let mut places: Vec<(&str, Vec<&RegisterDiff>)> = Vec::new();
    let mut known = BTreeMap::new();
    for register in moved.iter().take(MOST) {
        let at = *known.entry(register.place.as_str()).or_insert(places.len());
        if at == places.len() {
            places.push((&register.place, Vec::new()));
        }
        if let Some((_, list)) = places.get_mut(at) {
            list.push(register);
        }
    }
    // What a reader came for is open; of a large machine the first part is.
    let open = |index: usize| places.len() <= 4 || index == 0;
    Some(html! {
        p { (what) " Bits that moved are underlined and set off; bit 31 comes first." }
        @for (index, (place, registers)) in places.iter().enumerate() {
            details.registers open[open(index)] {
                summary {
                    strong { @if place.is_empty() { "Registers" } @else { (place) } }
                    " " (registers.len()) @if registers.len() == 1 { " register" } @else { " registers" }
                }
                @for register in registers { (shown(register)) }
            }
        }
        @if moved.len() > MOST { p { "and " (moved.len() - MOST) " more registers" } }
    })
}

fn shown(register: &RegisterDiff) -> Markup {
    let RegisterDiff { place, register: name, offset, bytes, old, new, fields, .. } = register;
    let bits = 8 * u32::from(*bytes);
    html! {
        div.register {
            h3 { @if !place.is_empty() { (place) " " } (name) " " span.at { "at " (format!("{offset:#x}")) } }
            (side("before", *old, register.moved(), bits))
            (side("after", *new, register.moved(), bits))
            @if !fields.is_empty() {
                ul.fields {
                    @for field in fields {
                        @let [high, low] = field.bits;
                        li {
                            (field.field) " "
                            span.at { @if high == low { "bit " (low) } @else { "bits " (high) ":" (low) } }
                            " " code { (value(field.old)) } " → " code { (value(field.new)) }
                        }
                    }
                }
            }
        }
    }
}

fn value(value: Option<u32>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| format!("{value:#x}"))
}

/// All bits of one side, in groups of four.
fn side(label: &str, value: Option<u32>, moved: u32, bits: u32) -> Markup {
    let Some(value) = value else {
        return html! { p.bits { b { (label) } " the dump ends before it" } };
    };
    let digits = bits as usize / 4 + 2;
    let groups = (0..bits / 4).rev().map(|group| {
        let shift = 4 * group;
        html! {
            span.nibble {
                @for bit in (shift..shift + 4).rev() {
                    @let one = value >> bit & 1;
                    @if moved >> bit & 1 != 0 { mark { (one) } } @else { (one) }
                }
            }
        }
    });
    html! {
        p.bits {
            b { (label) } " " code { (format!("{value:#0digits$x}")) } " "
            span.word aria-hidden="true" { @for group in groups { (group) } }
        }
    }
}
