//! What the attack has shown, as data and in words.
//!
//! **Invariant**: `tried` is the sum of `held`, `allowed` and `changed`, of the report and of each
//! state; details name everything that was not simply held.

use cxl_model::words::counted;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

use cxl_attack::State;
use schemars::JsonSchema;
use serde::Serialize;

use super::Name;
use super::grid::{Class, Grid, MOST, name_of};
use super::ranges::{self, Effects, WatchedRange};

/// The report of an attack.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Report {
    /// Writes that tried something.
    pub tried: u64,
    /// Of these, those that changed nothing.
    pub held: u64,
    /// Those that the rules let through.
    pub allowed: u64,
    /// Those that they do not, and those that did not do what they have to.
    pub changed: u64,
    /// The latter alone.
    #[serde(skip)]
    pub fell_short: u64,
    /// Each state of each component.
    pub states: Vec<StateReport>,
    /// Everything that was not held; bits with the same outcome together. In JSON, where register,
    /// bits and consequence are the same, states, components and decoders are lists.
    #[serde(serialize_with = "alike")]
    #[schemars(with = "Vec<Alike<'static>>")]
    pub details: Vec<Detail>,
    /// Whether locked ranges can be made to lead elsewhere.
    pub integrity: Integrity,
    /// What an attacker can still switch off or add.
    pub availability: Vec<Availability>,
    /// Modes that the scenario names and nothing was tried in.
    pub not_tried: Vec<String>,
    /// What came of the tries at each register, held ones too.
    pub grid: Grid,
    /// The mode that something is tried in, as a column of the grid; `None` for none.
    #[serde(skip)]
    pub(super) mode: Option<&'static str>,
    /// What the breaches are made of, in their order.
    #[serde(skip)]
    told: Vec<Told>,
    /// What there was more of than is listed.
    pub left_out: LeftOut,
}

/// How many entries are not in a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct LeftOut {
    /// Of details, as JSON and text have them.
    pub details: usize,
    /// Of breaches.
    pub breaches: usize,
    /// Of availability.
    pub availability: usize,
}

/// One state of one component.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct StateReport {
    /// The state.
    pub name: &'static str,
    /// The component.
    pub component: String,
    /// Tries in it.
    pub tried: u64,
    /// Held ones.
    pub held: u64,
    /// Allowed ones.
    pub allowed: u64,
    /// Breaches, and what had to happen and did not.
    pub changed: u64,
    /// The latter alone.
    #[serde(skip)]
    pub fell_short: u64,
    /// Why it was left out.
    pub skipped: Option<&'static str>,
}

impl StateReport {
    pub(super) fn skip(&mut self, reason: &'static str) {
        self.skipped = Some(reason);
    }
}

/// Tries with one outcome.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Detail {
    /// The state.
    pub state: &'static str,
    /// The component.
    pub component: String,
    /// The register, or what was started.
    pub register: String,
    /// The decoder it belongs to.
    pub decoder: Option<u8>,
    /// The bits that were flipped; none for what was started.
    #[serde(serialize_with = "hex")]
    #[schemars(with = "String")]
    pub bits: u32,
    /// What came of it.
    pub class: Class,
    /// The consequence, in words.
    pub consequence: String,
}

/// The first verdict.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Integrity {
    /// No lock gave way, no locked range led elsewhere, and the attack came to its end. Of one that was cut
    /// off before anything gave way this is `false` and `breaches` is empty.
    pub holds: bool,
    /// The attack came to its end, and every component answered until then.
    pub complete: bool,
    /// Components that did not.
    #[serde(skip)]
    pub silent: Vec<String>,
    /// States of components that were begun with, and how many there are at most.
    #[serde(skip)]
    pub begun: (usize, usize),
    /// Ranges with all decoders on the path locked, and CONFIG_LOCK set in their devices.
    pub ranges: usize,
    /// Ranges with all decoders locked that are open all the same, and why.
    pub open: Vec<String>,
    /// What gave way.
    pub breaches: Vec<String>,
}

/// What the first verdict comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Something gave way, whatever else would have been tried.
    Broken,
    /// No range is sealed.
    Nothing,
    /// Nothing gave way by the time that the attack was cut off.
    NotKnown,
    /// None of so many ranges was made to lead elsewhere.
    Holds(usize),
}

impl Integrity {
    /// The verdict.
    pub fn found(&self) -> Found {
        match (self.breaches.is_empty(), self.ranges, self.complete) {
            (false, ..) => Found::Broken,
            (true, 0, _) => Found::Nothing,
            (true, _, false) => Found::NotKnown,
            (true, ranges, true) => Found::Holds(ranges),
        }
    }
}

/// A part of the second verdict.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Availability {
    /// The component.
    pub component: String,
    /// The register, what was started, or what is left over.
    pub register: String,
    /// What an attacker gets from it.
    pub consequence: String,
    /// What that can do to locked ranges.
    pub effects: Vec<String>,
}

fn hex<S: serde::Serializer>(bits: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{bits:#010x}"))
}

impl Report {
    /// An empty one of a machine with these ranges.
    pub(super) fn new(ranges: &[WatchedRange]) -> Self {
        let (sealed, open): (Vec<&WatchedRange>, Vec<&WatchedRange>) =
            ranges.iter().partition(|range| range.open.is_empty());
        let open = open.into_iter().map(|range| {
            let (list, reasons) = (ranges::list([range]), range.open.join("; "));
            format!("{list}: {reasons}")
        });
        Self {
            tried: 0,
            held: 0,
            allowed: 0,
            changed: 0,
            fell_short: 0,
            states: Vec::new(),
            details: Vec::new(),
            integrity: Integrity {
                holds: true,
                complete: true,
                silent: Vec::new(),
                begun: (0, 0),
                ranges: sealed.len(),
                open: open.collect(),
                breaches: Vec::new(),
            },
            availability: Vec::new(),
            not_tried: Vec::new(),
            grid: Grid::default(),
            mode: None,
            told: Vec::new(),
            left_out: LeftOut::default(),
        }
    }

    /// Whether nothing changed that must not, there was something to hold, and all was tried to the end.
    pub fn held(&self) -> bool {
        self.changed == 0
            && self.integrity.ranges > 0
            && self.integrity.complete
            && self.not_tried.is_empty()
    }

    /// That the attack was cut off, and where, or by what stopped answering.
    pub fn cut_off(&self) -> String {
        if !self.integrity.silent.is_empty() {
            return format!(
                "{} stopped answering while it was attacked, and what was tried there from then on has \
                 shown nothing",
                self.integrity.silent.join(", ")
            );
        }
        let (begun, most) = self.integrity.begun;
        format!(
            "the attack did not end: {begun} of at most {most} states of components were begun, {} tried",
            counted(self.tried, "write")
        )
    }

    /// The line of a state and component.
    pub(super) fn state(&mut self, state: State, component: &str) -> &mut StateReport {
        let name = name_of(state);
        let known = self.states.iter().position(|s| s.name == name && s.component == component);
        let index = known.unwrap_or_else(|| {
            let component = component.to_owned();
            let (tried, held, allowed, changed) = (0, 0, 0, 0);
            let skipped = None;
            self.states.push(StateReport {
                name,
                component,
                tried,
                held,
                allowed,
                changed,
                fell_short: 0,
                skipped,
            });
            self.states.len() - 1
        });
        &mut self.states[index]
    }

    /// Counts a try.
    pub(super) fn tried(
        &mut self,
        state: State,
        register: &Name,
        class: Class,
        bits: u32,
        consequence: &str,
    ) {
        self.grid.tried(self.mode.unwrap_or_else(|| name_of(state)), register, class);
        let line = self.state(state, &register.component);
        line.tried += 1;
        match class {
            Class::Held => line.held += 1,
            Class::Allowed => line.allowed += 1,
            Class::Changed => line.changed += 1,
        }
        if class == Class::Held {
            return;
        }
        let state = name_of(state);
        let same = self.details.iter_mut().rev().find(|detail| {
            detail.class == class
                && detail.decoder == register.decoder
                && detail.state == state
                && detail.component == register.component
                && detail.register == register.register
                && detail.consequence == consequence
        });
        match same {
            Some(detail) => detail.bits |= bits,
            None => self.details.push(Detail {
                state,
                component: register.component.clone(),
                register: register.register.clone(),
                decoder: register.decoder,
                bits,
                class,
                consequence: consequence.to_owned(),
            }),
        }
    }

    /// Of what was just counted as changed: nothing gave way, but what had to happen did not.
    pub(super) fn fell_short(&mut self, state: State, register: &Name) {
        self.state(state, &register.component).fell_short += 1;
    }

    /// What there was of writes that got through, and of others that did not do what they have to.
    pub(crate) fn wrong(&self) -> Vec<String> {
        wrong(self.changed, self.fell_short, |count| counted(count, "write"))
    }

    /// Those that got through.
    pub fn through(&self) -> u64 {
        self.changed.saturating_sub(self.fell_short)
    }

    /// Behind the count of those: how many did not do what they have to, where there are any.
    pub fn and_short(&self) -> String {
        match self.fell_short {
            0 => String::new(),
            short => format!(", {short} did not do what the rules have them do"),
        }
    }

    /// Notes what an attacker can do, and to which ranges.
    pub(super) fn opens(
        &mut self,
        component: &str,
        register: &str,
        consequence: &str,
        effect: Option<String>,
    ) {
        let known = self.availability.iter_mut().find(|known| {
            known.component == component
                && known.register == register
                && known.consequence == consequence
        });
        match known {
            Some(known) => {
                let new = effect.filter(|effect| !known.effects.contains(effect));
                known.effects.extend(new);
            }
            None => self.availability.push(Availability {
                component: component.to_owned(),
                register: register.to_owned(),
                consequence: consequence.to_owned(),
                effects: effect.into_iter().collect(),
            }),
        }
    }

    /// Whether that is noted of a component.
    pub(super) fn opened(&self, component: &str, register: &str) -> bool {
        let mut noted = self.availability.iter();
        noted.any(|known| known.component == component && known.register == register)
    }

    /// Notes what gave way, and to what: one breach, whatever comes of it in however many tries.
    pub(super) fn breach(&mut self, register: &Name, cause: &str, effects: &Effects) {
        self.gave_way(register.gave(cause), effects);
    }

    fn gave_way(&mut self, cause: String, effects: &Effects) {
        self.integrity.holds = false;
        let known = self.told.iter().position(|told| told.cause == cause);
        let index = known.unwrap_or(self.told.len());
        match self.told.get_mut(index) {
            Some(told) => told.effects.add(effects),
            None => self.told.push(Told { cause, effects: effects.clone() }),
        }
        let text = self.told.get(index).map(ToString::to_string).unwrap_or_default();
        match self.integrity.breaches.get_mut(index) {
            Some(breach) => *breach = text,
            None => self.integrity.breaches.push(text),
        }
    }

    /// What was told of several registers is one's alone.
    pub(super) fn is_of(&mut self, several: &Name, cause: &str, only: &Name) {
        let (several, only) = (several.gave(cause), only.gave(cause));
        let Some(index) = self.told.iter().position(|told| told.cause == several) else { return };
        let Told { effects, .. } = self.told.remove(index);
        if index < self.integrity.breaches.len() {
            self.integrity.breaches.remove(index);
        }
        self.gave_way(only, &effects);
    }

    /// Adds the states up and puts them into the order of a decoder's life.
    pub(super) fn close(&mut self) {
        let sum = |count: fn(&StateReport) -> u64| self.states.iter().map(count).sum();
        self.tried = sum(|state| state.tried);
        self.held = sum(|state| state.held);
        self.allowed = sum(|state| state.allowed);
        self.changed = sum(|state| state.changed);
        self.fell_short = sum(|state| state.fell_short);
        let order = State::ALL.map(name_of);
        self.states.sort_by_key(|line| order.iter().position(|name| *name == line.name));
        self.grid.close();
        self.left_out = LeftOut {
            details: Alike::of(&self.details).len().saturating_sub(MOST),
            breaches: shortened(&mut self.integrity.breaches),
            availability: shortened(&mut self.availability),
        };
    }
}

impl StateReport {
    /// What there was of writes that got through, and of others that did not do what they have to.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let tried = counted(self.tried, "write");
        wrong(self.changed, self.fell_short, |count| format!("{count} of {tried}"))
    }
}

fn wrong(changed: u64, fell_short: u64, words: impl Fn(u64) -> String) -> Vec<String> {
    let through = changed.saturating_sub(fell_short);
    let kinds = [
        (through, "changed what must not change"),
        (fell_short, "did not do what the rules have them do"),
    ];
    let kinds = kinds.into_iter().filter(|(count, _)| *count > 0);
    kinds.map(|(count, what)| format!("{} {what}", words(count))).collect()
}

impl Name {
    /// A breach's words.
    fn gave(&self, cause: &str) -> String {
        let decoder = self.decoder.map_or(String::new(), |n| format!(" of decoder {n}"));
        format!("{} {}{decoder} {cause}", self.component, self.register)
    }
}

/// A breach.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    /// What gave way, and to what.
    cause: String,
    effects: Effects,
}

impl Display for Told {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.cause, self.effects)
    }
}

/// Leaves a list its first entries; how many it had more.
fn shortened<T>(list: &mut Vec<T>) -> usize {
    let more = list.len().saturating_sub(MOST);
    list.truncate(MOST);
    more
}

/// Bits as ranges, highest first: `31:28, 9`.
struct Bits(u32);

impl Display for Bits {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut left = self.0;
        let mut separator = "";
        while left != 0 {
            let high = 31 - left.leading_zeros();
            let run = (left << (31 - high)).leading_ones();
            let low = high + 1 - run;
            match run {
                1 => write!(f, "{separator}{high}")?,
                _ => write!(f, "{separator}{high}:{low}")?,
            }
            left &= (1 << low) - 1;
            separator = ", ";
        }
        Ok(())
    }
}

/// `0 to 3, 5`.
fn runs(numbers: &BTreeSet<u8>) -> String {
    let mut list: Vec<(u8, u8)> = Vec::new();
    for &number in numbers {
        match list.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => list.push((number, number)),
        }
    }
    let words = list.iter().map(|&(first, last)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// Details with one outcome.
#[derive(JsonSchema, Serialize)]
struct Alike<'r> {
    register: &'r str,
    #[serde(serialize_with = "hex")]
    #[schemars(with = "String")]
    bits: u32,
    class: Class,
    consequence: &'r str,
    states: Vec<&'r str>,
    components: Vec<&'r str>,
    decoders: BTreeSet<u8>,
}

impl<'r> Alike<'r> {
    /// What has one outcome together, breaches first, then by register.
    fn of(details: &'r [Detail]) -> Vec<Self> {
        let mut list: Vec<Self> = Vec::new();
        let mut known = BTreeMap::new();
        for Detail { state, component, register, decoder, bits, class, consequence } in details {
            let index = *known.entry((register, bits, class, consequence)).or_insert(list.len());
            if index == list.len() {
                list.push(Self {
                    register,
                    bits: *bits,
                    class: *class,
                    consequence,
                    states: Vec::new(),
                    components: Vec::new(),
                    decoders: BTreeSet::new(),
                });
            }
            let Some(alike) = list.get_mut(index) else { continue };
            for (list, name) in
                [(&mut alike.states, *state), (&mut alike.components, component.as_str())]
            {
                if !list.contains(&name) {
                    list.push(name);
                }
            }
            alike.decoders.extend(decoder);
        }
        list.sort_by_key(|alike| (alike.class != Class::Changed, alike.register));
        list
    }
}

fn alike<S: serde::Serializer>(details: &[Detail], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(Alike::of(details).into_iter().take(MOST))
}

impl Display for Report {
    /// Verdicts first, then what gave way, then what is open, then every write that was let
    /// through: the same register, bits and outcome in one line, whatever the component and state.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Integrity { open: unsealed, breaches, .. } = &self.integrity;
        writeln!(f, "attack")?;
        writeln!(f, "  {:<18}{}", "tried", self.tried)?;
        writeln!(f, "  {:<18}{}", "held", self.held)?;
        writeln!(f, "  {:<18}{}", "allowed", self.allowed)?;
        writeln!(f, "  {:<18}{}", "changed", self.changed)?;
        let verdict = match self.integrity.found() {
            Found::Nothing => "nothing to hold: no range is sealed".to_owned(),
            Found::NotKnown => format!("not known: {}", self.cut_off()),
            Found::Holds(1) => "holds: 1 locked range never led elsewhere".to_owned(),
            Found::Holds(ranges) => format!("holds: {ranges} locked ranges never led elsewhere"),
            Found::Broken => {
                let count = breaches.len() + self.left_out.breaches;
                format!("BROKEN: {}, listed below", ways(count))
            }
        };
        writeln!(f, "  {:<18}{verdict}", "integrity")?;
        for range in unsealed {
            writeln!(f, "  {:<18}{range}", "not sealed")?;
        }
        for mode in &self.not_tried {
            writeln!(f, "  {:<18}{mode}: it could not be entered", "NOT TRIED")?;
        }
        let open = self.availability.len() + self.left_out.availability;
        let ways = ways(open);
        writeln!(f, "  {:<18}{ways} to switch off or add, listed below", "availability")?;
        self.fmt_states(f)?;
        if !breaches.is_empty() {
            writeln!(f, "broken integrity")?;
            for breach in breaches {
                writeln!(f, "  {breach}")?;
            }
            more(f, self.left_out.breaches)?;
        }
        if open != 0 {
            writeln!(f, "open availability")?;
            for Availability { component, register, consequence, effects } in &self.availability {
                writeln!(f, "  {component:<17} {register}: {consequence}")?;
                for effect in effects {
                    writeln!(f, "  {:<20}{effect}", "")?;
                }
            }
            more(f, self.left_out.availability)?;
        }
        self.fmt_details(f)
    }
}

impl Report {
    fn fmt_states(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "states")?;
        for name in State::ALL.map(name_of) {
            let lines = || self.states.iter().filter(|line| line.name == name);
            let sum = |count: fn(&StateReport) -> u64| lines().map(count).sum::<u64>();
            writeln!(
                f,
                "  {name:<26}tried {:>6}, held {:>6}, allowed {:>5}, changed {:>4}",
                sum(|s| s.tried),
                sum(|s| s.held),
                sum(|s| s.allowed),
                sum(|s| s.changed)
            )?;
            let mut skipped: Vec<(&str, Vec<&str>)> = Vec::new();
            for line in lines() {
                let Some(reason) = line.skipped else { continue };
                match skipped.iter_mut().find(|(known, _)| *known == reason) {
                    Some((_, components)) => components.push(&line.component),
                    None => skipped.push((reason, vec![&line.component])),
                }
            }
            for (reason, components) in skipped {
                writeln!(f, "    skipped, {reason}: {}", components.join(", "))?;
            }
        }
        Ok(())
    }

    fn fmt_details(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut last = (None, "");
        for alike in Alike::of(&self.details).iter().take(MOST) {
            let Alike { register, bits, class, consequence, components, decoders, .. } = alike;
            if last.0 != Some(*class) {
                writeln!(f, "{}", if *class == Class::Changed { "changed" } else { "allowed" })?;
                last = (Some(*class), "");
            }
            if *register != last.1 {
                writeln!(f, "  {register}")?;
                last.1 = register;
            }
            let bits = if *bits == 0 { String::new() } else { format!("bits {}: ", Bits(*bits)) };
            let decoders = match decoders.len() {
                0 => String::new(),
                _ => format!(", decoders {}", runs(decoders)),
            };
            writeln!(f, "    {bits}{consequence} ({}{decoders})", components.join(", "))?;
        }
        more(f, self.left_out.details)
    }
}

/// A number of ways in words.
pub(crate) fn ways(count: usize) -> String {
    counted(count, "way")
}

/// That so many ranges hold, in words.
pub(crate) fn hold(ranges: usize) -> String {
    match ranges {
        1 => "the one sealed range could not be made to lead elsewhere".to_owned(),
        _ => format!("none of {ranges} sealed ranges could be made to lead elsewhere"),
    }
}

/// How many entries a list had more.
fn more(f: &mut Formatter<'_>, left_out: usize) -> fmt::Result {
    if left_out == 0 { Ok(()) } else { writeln!(f, "  and {left_out} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_is_one() {
        let mut report = Report::new(&[]);
        let register = Name {
            component: "mem0".to_owned(),
            register: "HDM Decoder Base Low".to_owned(),
            decoder: Some(0),
        };
        report.breach(&register, "gives way", &Effects::default());
        report.opens("mem0", "a register", "is open", None);
        report.close();
        let text = report.to_string();
        assert!(text.contains("BROKEN: 1 way, listed below\n"), "{text}");
        assert!(text.contains("  1 way to switch off or add, listed below\n"), "{text}");
    }

    /// Far more of everything than there is on any machine that holds: what matters is first, and
    /// what is left out is counted.
    #[test]
    fn a_report_has_an_end() {
        let mut report = Report::new(&[]);
        for number in 0..2000 {
            let name = |component: &str| Name {
                component: component.to_owned(),
                decoder: Some((number % 16) as u8),
                register: format!("HDM Decoder Target List/DPA Skip High {number}"),
            };
            let state = State::CommittedLocked;
            report.tried(state, &name("mem0"), Class::Allowed, 1, "what it leads to");
            report.tried(state, &name("mem1"), Class::Allowed, 1, "what it leads to");
            report.tried(state, &name("hb0"), Class::Changed, 2, "gives way");
            report.breach(&name("hb0"), "gives way", &Effects::default());
            report.opens("mem0", &format!("register {number}"), "is open", None);
        }
        report.close();
        let LeftOut { details, breaches, availability } = report.left_out;
        assert_eq!((details, breaches, availability), (4000 - MOST, 2000 - MOST, 2000 - MOST));
        let text = report.to_string();
        assert_eq!(text.matches("\n  and 1744 more\n").count(), 2, "{text}");
        assert!(
            text.contains("BROKEN: 2000 ways") && text.ends_with("\n  and 3744 more\n"),
            "{text}"
        );
        let json = serde_json::to_string_pretty(&report).expect("plain structs");
        assert!(json.len().max(text.len()) < 200 << 10, "{} and {}", json.len(), text.len());
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let list = json["details"].as_array().expect("a list");
        assert!(list.len() == MOST && list.iter().all(|entry| entry["class"] == "changed"));
    }
}
