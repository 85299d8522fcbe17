//! Modes of an attack that a scenario names: a register that holds something else while all that locks
//! freeze is tried once more. The attack has each enable of the tables as a mode by itself; this is for
//! what it does not vary: a wider field, a value, two fields of one register at once.
//!
//! **Invariant**: a mode names a register, and a field of it, that its component's kind has, and a value
//! that fits.

use cxl_regs::access::Spec;

use super::leaks::registers;
use super::names::{Names, Result, Source};
use super::{Place, Problem, document};

/// A register otherwise than firmware left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttackMode {
    /// Whose.
    pub at: Place,
    /// Its name.
    pub register: String,
    /// A field of it; `None`: all of the register.
    pub field: Option<String>,
    /// What it holds then; `None`: its bits turned round.
    pub value: Option<u32>,
}

/// The most of them.
const MOST: usize = 16;

/// The modes of a document.
pub(super) fn modes(
    source: &Source<'_>,
    names: &Names,
    given: &[document::Mode],
    assigned: bool,
) -> Result<Vec<AttackMode>> {
    if let Some(more) = given.get(MOST) {
        return source.out_of_range(more.at.span(), "mode", "at most 16 of them", given.len());
    }
    if let (Some(first), false) = (given.first(), assigned) {
        let because = "nothing has an address before firmware assigns it".to_owned();
        let problem = Problem::UselessKey { key: "mode", because };
        return Err(source.error(first.at.span(), problem));
    }
    given.iter().map(|given| given.mode(source, names)).collect()
}

impl document::Mode {
    fn mode(&self, source: &Source<'_>, names: &Names) -> Result<AttackMode> {
        let at = names.component(source, &self.at)?;
        let wanted = self.register.get_ref();
        let named = |spec: &&Spec| spec.name == wanted;
        let Some(spec) = registers(at).find(named) else {
            let expected = "a register of the component, by its name in the specification";
            return source.out_of_range(self.register.span(), "register", expected, wanted);
        };
        let mut bits = 8 * u32::from(spec.bytes);
        if let Some(field) = &self.field {
            let wanted = field.get_ref();
            let Some(found) = spec.fields.iter().find(|field| field.name == wanted) else {
                let expected = "a field of the register, by its name in the specification";
                return source.out_of_range(field.span(), "field", expected, wanted);
            };
            bits = found.bits.into();
        }
        let value = match &self.value {
            None => None,
            Some(value) if value.get_ref().0.checked_shr(bits).unwrap_or(0) == 0 => {
                Some(value.get_ref().0 as u32)
            }
            Some(value) => {
                let found = format!("{:#x}", value.get_ref().0);
                let expected = "no more bits than the register or field has";
                return source.out_of_range(value.span(), "value", expected, found);
            }
        };
        let field = self.field.as_ref().map(|field| field.get_ref().clone());
        Ok(AttackMode { at, register: wanted.clone(), field, value })
    }
}
