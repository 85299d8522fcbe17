//! Modes that a scenario names, as the attacker takes them.
//!
//! **Invariant**: where a register is says the machine; one that this machine does not have has no
//! address, and the attack is not whole then.

use cxl_attack::NamedMode;
use cxl_firmware::config::acted_on_at;
use cxl_model::machine::Machine;
use cxl_model::scenario::AttackMode;
use cxl_regs::access::Spec;
use cxl_regs::component::BLOCK_SIZE;

/// The modes that a machine's scenario names, in its order; `None` for one without an address.
pub(super) fn all(machine: &Machine) -> Vec<Option<NamedMode>> {
    machine.scenario().modes.iter().map(|mode| named(machine, mode)).collect()
}

/// A mode in words.
pub(super) fn words(machine: &Machine, mode: &AttackMode) -> String {
    let AttackMode { at, register, field, value } = mode;
    let what = field.as_ref().unwrap_or(register);
    let holds = match value {
        Some(value) => format!("holds {value:#x}"),
        None => "is turned round".to_owned(),
    };
    format!("while {what} of {} {holds}", machine.name(*at))
}

fn named(machine: &Machine, mode: &AttackMode) -> Option<NamedMode> {
    let (base, spec, siblings) = place(machine, mode)?;
    let shift = 8 * (u32::from(spec.offset) & 3);
    let (mask, low) = match &mode.field {
        Some(name) => {
            let field = spec.fields.iter().find(|field| field.name == name)?;
            (field.mask(), u32::from(field.offset))
        }
        None => (u32::MAX >> (32 - 8 * u32::from(spec.bytes)), 0),
    };
    Some(NamedMode {
        address: base + u64::from(spec.offset & !3),
        bits: mask << shift,
        value: mode.value.map(|value| value << low << shift),
        acted_on: acted_on_at(&siblings, spec.offset & !3) & !(mask << shift),
    })
}

/// The register: the base that its offset counts from, itself, and those in its dword.
fn place(machine: &Machine, mode: &AttackMode) -> Option<(u64, Spec, Vec<Spec>)> {
    let wanted = |spec: &Spec| spec.name == mode.register;
    if let (Some(config), Some(function)) = (machine.config_of(mode.at), machine.function(mode.at))
    {
        for offset in (0..0x1000).step_by(4) {
            let specs = function.specs(offset);
            if let Some(spec) = specs.iter().find(|spec| wanted(spec)) {
                return Some((config, *spec, specs));
            }
        }
    }
    let (block, component) = (machine.registers_of(mode.at)?, machine.component(mode.at)?);
    let hdm = component.hdm()?;
    (0..BLOCK_SIZE).step_by(4).find_map(|at| {
        let place = hdm.place(component.hdm_offset(at)?)?;
        let spec = Some(*place.spec).filter(wanted)?;
        let base = block + u64::from(at) - u64::from(spec.offset & !3);
        Some((base, spec, vec![spec]))
    })
}
