//! A trace in words: one access a line, with the register's name and the fields that are set.
//!
//! **Invariant**: the names come from the access-class tables of `cxl-regs`; nothing here knows a
//! register.

use std::fmt::{self, Display, Formatter};

use cxl_regs::Component;
use cxl_regs::access::{Class, Features, Spec};

use super::Machine;
use crate::mapping::{ReasonText, StepsText};
use crate::scenario::Place;
use crate::trace::{Access, Direction, Walked};

/// Prints accesses of a machine.
#[derive(Clone, Copy)]
pub struct TraceText<'m>(pub &'m Machine, pub &'m [Access]);

impl Display for TraceText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(machine, accesses) = *self;
        writeln!(f, "trace of {} register accesses", accesses.len())?;
        let names = machine.places().into_iter().map(|place| machine.name(place).len());
        let width = names.max().unwrap_or(0);
        for access in accesses {
            let Access { sequence, direction, address, place, value, .. } = access;
            let arrow = match direction {
                Direction::Read => "read  ->",
                Direction::Write => "write <-",
            };
            let name = place.map_or("nobody", |place| machine.name(place));
            write!(f, "  {sequence:<6}{address:#010x}  {name:<width$}  {arrow} {value:#010x}")?;
            writeln!(f, "  {}", access.meaning(machine))?;
        }
        Ok(())
    }
}

/// Prints the walks of accesses to windows.
#[derive(Clone, Copy)]
pub struct WalksText<'m>(pub &'m Machine, pub &'m [Walked]);

impl Display for WalksText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(machine, walked) = *self;
        let fabric = machine.fabric();
        writeln!(f, "trace of {} accesses to windows, decoded one by one", walked.len())?;
        for Walked { before, direction, hpa, length, parts } in walked {
            write!(f, "  before {before:<6}{direction:<5}  {hpa}  {length} bytes")?;
            for (run, way) in parts {
                // Most accesses have one part, and need not be told how long it is.
                if parts.len() > 1 {
                    write!(f, "\n    {run} bytes")?;
                }
                match way {
                    Ok(path) => write!(f, "  {}", StepsText(&fabric, path))?,
                    Err(reason) => write!(f, "  nowhere: {}", ReasonText(&fabric, *reason))?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Access {
    /// The register's name, and the fields that are not 0.
    pub fn meaning(&self, machine: &Machine) -> String {
        let specs = self.target.map(|target| machine.registers(target)).unwrap_or_default();
        let component = match self.place {
            Some(Place::Bridge(_)) => Component::HostBridge,
            Some(Place::Port(_) | Place::Switch(_)) => Component::UpstreamPort,
            Some(Place::Device(_)) | None => Component::Device,
        };
        let decoder = match self.name.and_then(|name| name.decoder) {
            Some(index) => format!("decoder {index} "),
            None => String::new(),
        };
        let number = match self.target.and_then(|target| machine.array_entry(target)) {
            Some(0) | None => String::new(),
            Some(entry) => format!(" {entry}"),
        };
        let silent = self.value == u32::MAX && self.direction == Direction::Read;
        let words = specs.iter().map(|spec| {
            let fields =
                if silent { " all-ones".to_owned() } else { set(spec, component, self.value) };
            format!("{decoder}{}{number}{fields}", spec.name)
        });
        let words: Vec<String> = words.collect();
        if words.is_empty() {
            return machine.no_register(self.target, self.address).to_string();
        }
        words.join("; ")
    }
}

/// The fields of one register that are set in its dword; flags by name, numbers with their value.
fn set(spec: &Spec, component: Component, dword: u32) -> String {
    let raw = dword >> (8 * (spec.offset & 3));
    let there = spec.fields.iter().filter(|field| {
        field.rule(component).class(Features::ALL) != Class::Reserved && field.get(raw) != 0
    });
    let words: Vec<String> = there
        .map(|field| match field.bits {
            1 => field.name.to_owned(),
            _ => format!("{} {:#x}", field.name, field.get(raw)),
        })
        .collect();
    // A field that is the whole register says no more than the value does.
    let whole = matches!(spec.fields, [only] if only.bits == 8 * spec.bytes);
    if words.is_empty() || whole { String::new() } else { format!(": {}", words.join(", ")) }
}
