//! The JSON form of HDM decoders.
//!
//! **Invariant**: base, size and skip are what a decoder compares and adds; bits that are not part
//! of them show in `raw` alone.

use cxl_regs::hdm::{Capability, GlobalControl};
use cxl_regs::text::{DecoderText, Evidence, HdmText};
use cxl_regs::{Component, DecodeError, Targets, Ways};
use schemars::JsonSchema;
use serde::Serialize;

use super::{dword, granularity, hex, object, ways};

/// An HDM Decoder Capability Structure.
pub(super) fn hdm(text: &HdmText<'_>) -> impl JsonSchema + Serialize + use<> {
    let (component, evidence) = text.component();
    object! {
        component: match (component, evidence) {
            (Component::Device, _) => "device",
            (Component::HostBridge, Evidence::Field(_)) => "port",
            (Component::HostBridge, _) => "host-bridge",
            (Component::UpstreamPort, _) => "upstream-port",
        },
        component_from: match evidence {
            Evidence::Given => "given".to_owned(),
            Evidence::Field(name) => format!("field {name}"),
            Evidence::Assumed => "assumed".to_owned(),
        },
        capability: capability(text.capability()),
        global_control: global_control(text.global_control()),
        problem: text.problem().map(|problem| problem.to_string()),
        decoders: text.decoders().map(decoder).collect::<Vec<_>>(),
    }
}

fn capability(register: Capability) -> impl JsonSchema + Serialize {
    object! {
        raw: dword(register.into_bits()),
        decoders: register.decoders(),
        targets: register.target_count(),
        interleave_11_8: register.interleave_11_8(),
        interleave_14_12: register.interleave_14_12(),
        poison_on_error: register.poison_on_error(),
        ways_3_6_12: register.ways_3_6_12(),
        ways_16: register.ways_16(),
        uio: register.uio(),
        uio_decoders: register.uio_decoders(),
        mem_data_nxm: register.mem_data_nxm(),
        coherency_models: register.coherency_models(),
    }
}

fn global_control(register: GlobalControl) -> impl JsonSchema + Serialize {
    object! {
        raw: dword(register.into_bits()),
        decoder_enable: register.decoder_enable(),
        poison_on_error: register.poison_on_error(),
    }
}

/// One decoder.
pub fn decoder(decoder: DecoderText) -> impl JsonSchema + Serialize {
    let (image, control) = (decoder.image, decoder.image.control());
    let routes = decoder.component.routes();
    let targets = Targets(image.targets());
    let used = Ways::decode(control.ways()).map_or(&targets.0[..], |ways| targets.used(ways));
    let problem = match decoder.decoded {
        // Legal to commit, and what a decoder that nobody set up looks like.
        Err(DecodeError::ZeroSize { .. }) | Ok(_) => None,
        Err(error) => Some(error.to_string()),
    };
    let order = decoder.order.map(|error| error.to_string());
    object! {
        index: decoder.index,
        base: hex(image.base()),
        size: hex(image.size()),
        ways: ways(control.ways()),
        granularity: granularity(control.granularity().into()),
        coherency: match (control.host_only(), control.back_invalidate()) {
            (true, false) => Some("hdm-h"),
            (false, false) => Some("hdm-d"),
            (false, true) => Some("hdm-db"),
            (true, true) => None,
        },
        targets: routes.then(|| used.to_vec()),
        skip: (!routes).then(|| hex(image.skip())),
        dpa: decoder
            .dpa
            .and_then(Result::ok)
            .map(|range| object! { base: hex(range.base().0), size: hex(range.size()) }),
        committed: control.committed(),
        locked: control.locked(),
        lock_on_commit: control.lock_on_commit(),
        commit: control.commit(),
        error_not_committed: control.error_not_committed(),
        uio: control.uio(),
        uio_ways: control.uio().then(|| ways(control.uio_ways())).flatten(),
        uio_granularity: control
            .uio()
            .then(|| granularity(control.uio_granularity().into()))
            .flatten(),
        set_position: control.set_position(),
        problems: problem.into_iter().chain(order).collect::<Vec<_>>(),
        raw: image.to_dwords().map(dword).to_vec(),
    }
}
