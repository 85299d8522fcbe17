//! Devices that were handed over from hardware: their ranges by both addresses.
//!
//! **Invariant**: nothing of it is the library's word; it is what the registers of both machines say.

use std::fmt::{self, Formatter};

use cxl_model::machine::Machine;
use cxl_model::scenario::Place;
use cxl_regs::Size;
use schemars::JsonSchema;
use serde::Serialize;

use super::lines::{fact, heading, seen_by};
use super::{Finding, Moment, Witness, address};

/// A range of a device that was handed over.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Passed {
    /// The device.
    pub device: String,
    /// Its decoder.
    pub decoder: u8,
    /// Where the guest has it.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub hpa: u64,
    /// Where hardware has it.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub host: u64,
    /// Bytes.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub size: u64,
    /// The device's own address.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub dpa: u64,
}

/// What a machine's devices were handed over with.
pub(super) fn ranges(machine: &Machine) -> Vec<Passed> {
    let ranges = machine.hardware().map_or(&[][..], |hardware| hardware.ranges());
    let passed = ranges.iter().map(|(device, moved)| Passed {
        device: machine.name(Place::Device(*device)).to_owned(),
        decoder: moved.decoder,
        hpa: moved.guest.base().0,
        host: moved.host.base().0,
        size: moved.guest.size(),
        dpa: moved.dpa.base().0,
    });
    passed.collect()
}

/// What is wrong with them, as failures.
pub(super) fn failures(wrong: &[String]) -> impl Iterator<Item = Finding> {
    let wrong = wrong.iter().cloned();
    wrong.map(|message| Finding::failure(Witness::Registers, Moment::End, message))
}

/// The section of a report.
pub(super) fn section(f: &mut Formatter<'_>, passed: &[Passed]) -> fmt::Result {
    if passed.is_empty() {
        return Ok(());
    }
    heading(f, "handed over: what hardware has at addresses of its own")?;
    seen_by(f, "the host, in the registers of both machines")?;
    for Passed { device, decoder, hpa, host, size, dpa } in passed {
        let size = Size(*size);
        let label = format!("{device} decoder {decoder}");
        let what = format!("{hpa:#018x}  {size}, DPA {dpa:#x}; {host:#018x} in hardware");
        fact(f, label, what)?;
    }
    Ok(())
}
