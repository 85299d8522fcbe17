//! The memory map of a run as an SVG picture.
//!
//! **Invariant**: it is made of the registers, as the text's picture is, and says how the run ended; of
//! a refusal it says why.

use std::fmt::{self, Display, Formatter};

use super::{Facts, Verdict};
use crate::attack::Found;
use crate::svg::{Map, Panel};

/// The memory map of a run as an SVG document.
#[derive(Clone, Copy, Debug)]
pub struct Svg<'a>(pub &'a Facts);

impl Display for Svg<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.map().fmt(f)
    }
}

impl Facts {
    /// The memory map, ready to be drawn.
    pub fn map(&self) -> Map<'_> {
        let result = match self.result {
            Verdict::Ok => "ok",
            Verdict::Refused => "refused",
            Verdict::Failed => "FAILED",
        };
        let mut lead = vec![self.description.clone()];
        lead.extend(self.refusal.as_ref().map(|refusal| {
            let (phase, code) = (&refusal.phase, refusal.code);
            format!("Refused: {} ({phase}, {code:#06x})", refusal.message)
        }));
        if self.result == Verdict::Failed {
            lead.extend(self.failures().first().map(|failure| format!("Failed: {failure}")));
        }
        lead.retain(|words| !words.is_empty());
        // Where the machine is another in the end, that is a map of its own below.
        let last = self.last.as_ref().filter(|last| last.mappings != self.mappings);
        let first = Panel {
            fabric: &self.seen.fabric,
            mappings: &self.seen.mappings,
            ram: &self.seen.ram,
            moment: last.map(|_| "at the hand-off".to_owned()),
        };
        let mut panels = vec![first];
        panels.extend(last.map(|last| Panel {
            fabric: &last.seen.fabric,
            mappings: &last.seen.mappings,
            ram: &self.seen.ram,
            moment: Some(last.moment.clone()),
        }));
        Map {
            title: format!("Memory map of {}: {result}", self.scenario),
            lead,
            panels,
            foot: self.worth(),
        }
    }

    /// What the locks were found to be worth, and what is no longer so in the end.
    fn worth(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let attack = self.attack.as_ref().map(|attack| match attack.integrity.found() {
            Found::Holds(_) => "; under attack they held",
            Found::Nothing => "; the attack found nothing to hold",
            Found::NotKnown => "; the attack did not end, so that nobody knows what they are worth",
            Found::Broken => "; UNDER ATTACK THEY GAVE WAY",
        });
        if let Some(locks) = &self.locks {
            let attack = attack.unwrap_or_default();
            lines.push(format!("Locks of this run: {}{attack}.", locks.word()));
        }
        if let Some(last) = &self.last {
            let word = last.locks.word();
            lines.push(format!(
                "At the hand-off. {} it is otherwise: {word}.",
                capital(&last.moment)
            ));
        }
        lines
    }
}

fn capital(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
