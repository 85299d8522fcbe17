//! What is broken, by scenario: faults put into the models, and those that sit between software
//! and the models.
//!
//! **Invariant**: a fault touches nothing but the component and register that the scenario names, or
//! the way to memory past that component.

use cxl_regs::access::Register;
use cxl_regs::hdm::{DECODER_SPECS, GlobalControl, decoder_offset};

use crate::device::config::Function;
use crate::device::hdm::{CommitTime, HdmBlock};
use crate::scenario::{DecoderRegister, Fault, FaultKind, Place, RegisterAt};

/// Writes that a register loses, once `left` of them have come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dropped {
    at: Place,
    register: Where,
    left: u32,
}

/// A component that answers all-ones, once `left` accesses have been served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dying {
    at: Place,
    left: u32,
}

/// A dword, by the structure it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// Offset in the HDM decoder structure.
    Hdm(u16),
    /// Offset in the Device DVSEC.
    Dvsec(u16),
}

impl From<RegisterAt> for Where {
    fn from(register: RegisterAt) -> Self {
        match register {
            RegisterAt::GlobalControl => Self::Hdm(GlobalControl::SPEC.offset),
            RegisterAt::Dvsec { offset } => Self::Dvsec(offset),
            RegisterAt::Decoder { decoder, register } => {
                let dword = match register {
                    DecoderRegister::BaseLow => 0,
                    DecoderRegister::BaseHigh => 1,
                    DecoderRegister::SizeLow => 2,
                    DecoderRegister::SizeHigh => 3,
                    DecoderRegister::Control => 4,
                    DecoderRegister::RouteLow => 5,
                    DecoderRegister::RouteHigh => 6,
                };
                let [within, ..] = DECODER_SPECS.map(|spec| spec.offset);
                Self::Hdm(decoder_offset(decoder) + within + 4 * dword)
            }
        }
    }
}

/// The faults between software and the models.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    dropped: Vec<Dropped>,
    dying: Vec<Dying>,
    unrouted: Vec<Place>,
    /// Devices, and the bits of their addresses that mean nothing.
    wraps: Vec<(Place, u64)>,
}

impl Faults {
    /// Those of a scenario that no model carries in itself.
    pub fn new(faults: &[Fault]) -> Self {
        let mut all = Self::default();
        for &Fault { at, kind } in faults {
            match kind {
                FaultKind::DroppedWrite { register, after } => {
                    all.dropped.push(Dropped { at, register: register.into(), left: after });
                }
                FaultKind::AllOnesAfter { accesses } => {
                    all.dying.push(Dying { at, left: accesses });
                }
                FaultKind::Unrouted => all.unrouted.push(at),
                FaultKind::Wraps { bits } => all.wraps.push((at, bits.into())),
                _ => {}
            }
        }
        all
    }

    /// Whether accesses to memory get past a component.
    pub fn routes(&self, place: Place) -> bool {
        !self.unrouted.contains(&place)
    }

    /// Where a device's address really leads in it.
    pub fn wrap(&self, place: Place, dpa: u64) -> u64 {
        let wraps = self.wraps.iter().filter(|(at, _)| *at == place);
        wraps.fold(dpa, |dpa, (_, bits)| dpa & !bits)
    }

    /// Whether some of a device's addresses lead to the same place.
    pub fn wraps(&self, place: Place) -> bool {
        self.wraps.iter().any(|(at, _)| *at == place)
    }

    /// Whether it matters how often a component is accessed.
    pub fn counts(&self, place: Place) -> bool {
        self.dying.iter().any(|dying| dying.at == place)
    }

    /// Counts an access to a component; whether the component still answers.
    pub fn answers(&mut self, place: Place) -> bool {
        let mut answers = true;
        for dying in self.dying.iter_mut().filter(|dying| dying.at == place) {
            answers &= dying.left > 0;
            dying.left = dying.left.saturating_sub(1);
        }
        answers
    }

    /// Whether a component does not answer any more.
    pub fn is_dead(&self, place: Place) -> bool {
        self.dying.iter().any(|dying| dying.at == place && dying.left == 0)
    }

    /// Counts a write to a register; whether it is lost.
    pub fn drops(&mut self, place: Place, register: Where) -> bool {
        let mut lost = false;
        let hit = |dropped: &&mut Dropped| dropped.at == place && dropped.register == register;
        for dropped in self.dropped.iter_mut().filter(hit) {
            lost |= dropped.left == 0;
            dropped.left = dropped.left.saturating_sub(1);
        }
        lost
    }
}

/// Puts one fault into the models of its component; those between software and models are not
/// theirs.
pub fn inject(kind: FaultKind, hdm: Option<&mut HdmBlock>, function: Option<&mut Function>) {
    let dword = match kind {
        FaultKind::StuckBit { register, .. } | FaultKind::LeaksField { register, .. } => {
            Some(Where::from(register))
        }
        FaultKind::LeaksInto { decoder, register, .. } => {
            Some(Where::from(RegisterAt::Decoder { decoder, register }))
        }
        _ => None,
    };
    if let (Some(Where::Dvsec(offset)), Some(function)) = (dword, function)
        && let Some(dvsec) = function.device_dvsec()
    {
        let at = dvsec.wrapping_add(offset);
        match kind {
            FaultKind::StuckBit { bits, .. } => function.registers_mut().stick(at, bits),
            FaultKind::LeaksField { bits, .. } => function.registers_mut().leak(at, bits),
            _ => {}
        }
        return;
    }
    let Some(hdm) = hdm else { return };
    match (kind, dword) {
        (FaultKind::CommitPolls { decoder, polls }, _) => {
            hdm.set_commit_time(Some(decoder), CommitTime::Polls(polls));
        }
        (FaultKind::CommitNever { decoder }, _) => {
            hdm.set_commit_time(Some(decoder), CommitTime::Never);
        }
        (FaultKind::CommitError { decoder }, _) => hdm.refuse_commits(Some(decoder)),
        (FaultKind::LockNotEnforced { decoder }, _) => hdm.ignore_lock(Some(decoder)),
        (FaultKind::LockLost { decoder, reads }, _) => hdm.lose_lock(Some(decoder), reads),
        (FaultKind::StuckBit { bits, .. }, Some(Where::Hdm(at))) => hdm.stick(at, bits),
        (FaultKind::LeaksField { bits, .. }, Some(Where::Hdm(at))) => hdm.leak(at, bits),
        (FaultKind::LeaksInto { bits, into, .. }, Some(Where::Hdm(at))) => {
            hdm.leak_into(at, bits, into);
        }
        _ => {}
    }
}
