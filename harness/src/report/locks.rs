//! What the locks of a machine protect, as a report has it, and whether that is what was asked for.
//!
//! **Invariant**: all of it follows from registers (see [`crate::locks`]); what a firmware says of
//! its locks is not asked.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;

use super::findings::Finding;
use super::{Facts, Runner};
use crate::attack::Found;
use crate::locks::{Protection, View};
use crate::vigil::{CutOff, Level, Moment, Violation, Watched, violations};
use cxl_model::words::counted;

/// What the locks protect at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Locks {
    /// Decoders in use: committed, or with a commit under way.
    pub in_use: usize,
    /// Those of them with a lock in force.
    pub in_force: usize,
    /// Ranges that are locked on a whole path.
    pub ranges: usize,
    /// Every decoder in use is locked, and each path is whole.
    pub locked: bool,
    /// Locked, and no range register or enable can lead a locked range elsewhere.
    pub sealed: bool,
    /// Why it is not locked.
    pub not_locked: Vec<String>,
    /// Why it is not sealed, beside that.
    pub not_sealed: Vec<String>,
}

impl Locks {
    pub(super) fn of(machine: &dyn View) -> Self {
        let found = Protection::of(machine);
        let all = violations(machine, &found, &Moment::HandOff);
        let of = |level: Level| {
            let wanted = all.iter().filter(|violation| violation.level == level);
            wanted.map(|violation| violation.message.clone()).collect()
        };
        Self {
            in_use: found.in_use.len(),
            in_force: found.locked.len(),
            ranges: found.ranges.len(),
            locked: found.is_locked(),
            sealed: found.is_sealed(),
            not_locked: of(Level::Locked),
            not_sealed: of(Level::Sealed),
        }
    }

    /// One word for all of it.
    pub fn word(&self) -> &'static str {
        match (self.sealed, self.locked, self.in_force) {
            (true, ..) => "sealed",
            (_, true, _) => "locked, not sealed",
            (_, _, 0) => "nothing is locked",
            _ => "not locked",
        }
    }
}

/// What has to be true of the locks, or the run is a bad one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Which word.
    pub level: Level,
    /// Only the hand-off counts.
    pub at_handoff_only: bool,
}

impl FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, when) = text.split_once('@').map_or((text, None), |(w, t)| (w, Some(t)));
        let level = match word {
            "locked" => Level::Locked,
            "sealed" => Level::Sealed,
            _ => return Err("expected locked, sealed, locked@handoff or sealed@handoff".to_owned()),
        };
        match when {
            None => Ok(Self { level, at_handoff_only: false }),
            Some("handoff") => Ok(Self { level, at_handoff_only: true }),
            Some(other) => Err(format!("expected {word}@handoff, found {word}@{other}")),
        }
    }
}

impl Display for Requirement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { level, at_handoff_only } = self;
        write!(f, "{level}{}", if *at_handoff_only { "@handoff" } else { "" })
    }
}

impl Facts {
    /// Demands something of the locks, at the hand-off and at every moment after it.
    pub fn require(&mut self, requirement: Requirement, watched: &Watched) {
        let Requirement { level, at_handoff_only } = requirement;
        let against = watched.against(level, at_handoff_only);
        let [locked, sealed] = watched.more;
        let more = match (at_handoff_only, level) {
            (true, _) => 0,
            (false, Level::Locked) => locked,
            (false, Level::Sealed) => locked + sealed,
        };
        // What is demanded for good is not so if an attack got through.
        let attack = self.attack.as_ref().filter(|_| !at_handoff_only);
        let broken = attack.is_some_and(|attack| attack.integrity.found() == Found::Broken);
        // The verifier's look at the hand-off has the last word about that.
        let lost = self.locks.as_ref().is_some_and(|locks| match level {
            Level::Locked => !locks.locked,
            Level::Sealed => !locks.sealed,
        });
        let so = against.is_empty() && more == 0 && !broken && !lost;
        let unseen = if so { self.unseen(at_handoff_only, watched) } else { Vec::new() };
        let not_known = (!unseen.is_empty()).then(|| unseen.join("; "));
        if let Some(why) = &not_known {
            let message = format!("{why}; whether it is {requirement} is not known");
            self.fail(Finding::failure(super::Witness::Vmm, Moment::End, message));
        }
        let met = so && not_known.is_none();
        self.required = Some(Required { what: requirement.to_string(), met, not_known });
        self.violated(&against);
        if more > 0 {
            let more = format!("{} of {requirement} came later", counted(more, "more violation"));
            self.fail(Finding::failure(super::Witness::Registers, Moment::End, more));
        }
    }

    /// What keeps anybody from saying that a demand is met: a demand of what comes later is not met by what
    /// did not happen, or could not be looked at.
    fn unseen(&self, at_handoff_only: bool, watched: &Watched) -> Vec<String> {
        let mut why = Vec::new();
        if let Some(CutOff { how, before_hand_off }) = &watched.cut_off {
            match before_hand_off {
                true => why.push(format!("{how} before anything was handed over")),
                false if at_handoff_only => {}
                false => why.push(how.clone()),
            }
        }
        if at_handoff_only {
            return why;
        }
        let not_done = self.not_done().join(", ");
        if !not_done.is_empty() {
            why.push(format!("{not_done} not done: it takes a guest"));
        }
        if watched.pending > 0 {
            why.push("the scenario's events did not all come".to_owned());
        }
        why.extend(watched.silent.iter().map(|name| format!("{name} has stopped answering")));
        if let Some(attack) = &self.attack {
            match attack.integrity.complete {
                false => why.push(attack.cut_off()),
                true => why.extend(attack.not_tried.iter().map(|mode| format!("not tried {mode}"))),
            }
        }
        why
    }

    /// Without a demand: a lock that does not hold, though no reset opened it, is a failure all the same.
    pub fn undemanded(&mut self, watched: &Watched) {
        let gave_way = watched.later.iter().filter(|violation| violation.gave_way);
        self.violated(&gave_way.collect::<Vec<_>>());
    }

    /// What was asked for and takes a guest, where there was none.
    pub fn not_done(&self) -> &[String] {
        match &self.ran {
            Some(Runner::Models { left_out, .. }) => left_out,
            _ => &[],
        }
    }

    /// Adds violations that are no findings yet.
    pub(super) fn violated(&mut self, violations: &[&Violation]) {
        for violation in violations {
            let found = Finding::from(*violation);
            // What was a note is a failure now.
            self.findings.retain(|known| {
                known.failure || (&known.message, &known.moment) != (&found.message, &found.moment)
            });
            let known = |known: &Finding| {
                known.counts() && (&known.message, &known.moment) == (&found.message, &found.moment)
            };
            if !self.findings.iter().any(known) {
                self.fail(found);
            }
        }
    }
}

/// A demand, and whether it was met.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Required {
    /// The words of the demand.
    pub what: String,
    /// Whether it was met at every moment that counts.
    pub met: bool,
    /// Why nobody can say: not all that was to be done was done, or seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_known: Option<String>,
}
