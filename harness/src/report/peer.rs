//! What is to say of a run on somebody else's devices: whose they are, and two results that QEMU
//! tells apart, what the verifier read and what became of the locks under attack.
//!
//! **Invariant**: the verifier's result never follows from the attack's, nor the other way round.

use std::collections::BTreeMap;
use std::fmt::{self, Formatter};

use schemars::JsonSchema;
use serde::Serialize;

use super::lines::{fact, heading};
use super::{Facts, Finding, Verdict, Witness};
use crate::vigil::Moment;
use cxl_model::words::counted;

/// A run on QEMU.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Peer {
    /// Its version.
    pub qemu: String,
    /// What it does otherwise than hardware, whatever the scenario.
    pub notes: Vec<String>,
    /// What the verifier read from outside.
    pub verifier: Verifier,
    /// The attack, if there was one.
    pub attack: Option<LockAttack>,
}

/// The verifier's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Verifier {
    /// It looked, and every path is whole, equal to the plan and to the table.
    pub passed: bool,
    /// Committed decoders.
    pub committed: usize,
    /// Those of them with Lock On Commit.
    pub locked: usize,
}

/// What became of locked registers under attack.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct LockAttack {
    /// Something is locked, and nothing of it changed.
    pub held: bool,
    /// Bits of locked registers.
    pub bits: u32,
    /// Those of them that a write changed.
    pub changed: u32,
    /// Where.
    pub fields: Vec<Field>,
    /// What came of the attack from outside, in the words that the image has for its own, but for
    /// the fields.
    pub outside: Vec<String>,
    /// What the image says of the same attack, which it makes and judges from inside; empty if it
    /// did not.
    pub inside: Vec<String>,
}

/// A locked field that changed.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Field {
    /// Name of its component.
    pub component: String,
    /// Its decoder; `None` = the Device DVSEC.
    pub decoder: Option<u8>,
    /// The register.
    pub register: &'static str,
    /// The bits.
    pub bits: String,
}

impl Verifier {
    /// From what a report has, before an attack.
    pub(crate) fn of(facts: &Facts) -> Self {
        let control = |decoder: &&super::Decoder| decoder.text.image.control();
        let of_verifier =
            |finding: &Finding| finding.failure && finding.witness == Witness::Verifier;
        let committed = facts.decoders.iter().filter(|decoder| control(decoder).committed());
        Self {
            // A look that failed has no findings either.
            passed: facts.result == Verdict::Ok && !facts.findings.iter().any(of_verifier),
            committed: committed.clone().count(),
            locked: committed.filter(|decoder| control(decoder).locked()).count(),
        }
    }
}

impl Facts {
    /// A failure that was seen on devices that are not ours, or in what the image says of them.
    pub(crate) fn fail_of_peer(&mut self, message: impl Into<String>) {
        self.fail(Finding::failure(Witness::Peer, Moment::End, message));
    }
}

impl Peer {
    /// The two results.
    pub(super) fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let qemu = &self.qemu;
        heading(
            f,
            format_args!(
                "results on QEMU {qemu}: what its registers say, and what its locks are worth"
            ),
        )?;
        let Verifier { passed, committed, locked } = self.verifier;
        let verdict = if passed { "ok" } else { "FAILED" };
        match (passed, committed) {
            (false, 0) => fact(f, "verifier", "nothing to verify: no decoder is committed")?,
            (true, 0) => fact(f, "verifier", "ok: no decoder is committed, and none was to be")?,
            _ => fact(
                f,
                "verifier",
                format_args!(
                    "{verdict}: {locked} of {} locked",
                    counted(committed, "committed decoder")
                ),
            )?,
        }
        match &self.attack {
            None => fact(f, "attack", "not made; --attack makes it")?,
            Some(attack) => {
                let LockAttack { held, bits, changed, .. } = attack;
                let verdict = if *held { "held" } else { "NOT HELD" };
                let how = match bits {
                    0 => "nothing is locked, so nothing held".to_owned(),
                    _ => {
                        let bits = counted(bits, "locked bit");
                        format!("{verdict}: {changed} of {bits} changed when written")
                    }
                };
                fact(f, "attack", how)?;
                // Most components give way alike; say it once.
                let mut alike = BTreeMap::<_, Vec<String>>::new();
                for field in &attack.fields {
                    let decoder = field.decoder.map(|decoder| format!(" decoder {decoder}"));
                    let owner = format!("{}{}", field.component, decoder.unwrap_or_default());
                    alike.entry((field.register, &field.bits)).or_default().push(owner);
                }
                for ((register, bits), owners) in alike {
                    fact(f, "", format_args!("{register}, bits {bits}: {}", owners.join(", ")))?;
                }
                let sides = [("from outside", &attack.outside), ("from inside", &attack.inside)];
                for (label, lines) in sides {
                    for (index, line) in lines.iter().enumerate() {
                        fact(f, if index == 0 { label } else { "" }, line)?;
                    }
                }
            }
        }
        for note in &self.notes {
            fact(f, "note", note)?;
        }
        Ok(())
    }
}
