//! What a build has: the crate's features, and the refusal of what needs one that is not there.
//!
//! A feature is asked for where its code is called, by `cfg!`: everything is compiled in every build, and
//! what a build cannot reach is not linked.
//!
//! **Invariant**: what a policy or platform asks for and this build does not do is refused by name, before
//! anything is written.

use cxl_regs::Arithmetic;

use crate::error::{Code, Error, Place};
use crate::platform::Platform;
use crate::policy::{OnFailure, PathPolicy, Policy, Probe, Width};

/// A feature of this crate, by its detail in the error.
#[derive(Clone, Copy)]
pub(crate) enum Feature {
    // Of discovery.
    Mailbox,
    Assign,
    // Of the plan and all behind it.
    Degrade,
    Interleave,
    Xor,
    BackInvalidate,
    Probe,
    Describe,
    Earlier,
    HotPlug,
}

impl Feature {
    /// The refusal of what needs it.
    pub(crate) fn not_built(self, at: impl Into<Place>) -> Error {
        let (code, detail) = match self {
            Self::Mailbox => (Code::DISCOVER_NOT_BUILT, 0u8),
            Self::Assign => (Code::DISCOVER_NOT_BUILT, 1),
            other => (Code::PLAN_NOT_BUILT, other as u8 - Self::Degrade as u8),
        };
        code.at(at).detail(detail)
    }
}

/// Whether a bring-up as the policy wants it is in this build.
pub(crate) fn brings_up(policy: &Policy<'_>) -> Result<(), Error> {
    let asked = [
        (cfg!(feature = "degrade"), policy.on_failure == OnFailure::BestEffort, Feature::Degrade),
        (cfg!(feature = "probe"), policy.probe != Probe::Skip, Feature::Probe),
        (cfg!(feature = "describe"), policy.path == PathPolicy::Describe, Feature::Describe),
    ];
    refuse(&asked, Place::default())
}

/// Whether a plan as the policy wants it, of these windows, is in this build.
pub(crate) fn plans(platform: &Platform<'_>, policy: &Policy<'_>) -> Result<(), Error> {
    let sets = !policy.sets.is_empty() || policy.width != Width::Flat;
    let widths = policy.windows.iter().any(|named| named.width != Width::Flat);
    let asked = [
        (cfg!(feature = "interleave"), sets || widths, Feature::Interleave),
        (cfg!(feature = "earlier"), !policy.earlier.is_empty(), Feature::Earlier),
        (cfg!(feature = "hot-plug"), !policy.reserve.is_empty(), Feature::HotPlug),
    ];
    refuse(&asked, Place::default())?;
    let mut windows = platform.windows.iter();
    let xor = windows.find(|window| window.arithmetic == Arithmetic::Xor);
    let at = xor.map_or(Place::default(), |window| Place::window(window.base));
    refuse(&[(cfg!(feature = "xor"), xor.is_some(), Feature::Xor)], at)
}

fn refuse(asked: &[(bool, bool, Feature)], at: Place) -> Result<(), Error> {
    let missing = asked.iter().find(|(built, asked, _)| !built && *asked);
    missing.map_or(Ok(()), |(.., feature)| Err(feature.not_built(at)))
}
