//! The lock-down attack, judged from outside: what each write of
//! [`cxl_attack`] changed, and whether it may have.
//!
//! The [`Judge`] sees the machine between any two writes. It takes the attacker's word for the
//! state that a component is in, and for nothing else: which dword a write reaches, what was locked
//! and what has changed are read from the machine.
//!
//! **Invariant**: after every single write all registers of all components are compared; what is
//! locked may not change in any bit, and no locked range may lead to other bytes.

mod grid;
mod named;
mod ranges;
mod report;
mod rules;
mod shadow;

pub use cxl_attack::Event;
use cxl_attack::{
    Locks, Mode, NamedMode, Skipped, State, Stores, Trigger, Watch, Witness, attack_in,
};
use cxl_regs::mmio::Mmio;

use crate::run::{self, DirectRun};
use cxl_model::machine::Machine;
use cxl_model::scenario::{Parent, Place};
use ranges::{Astray, Effects, Fate, Followed, Home, Points, WatchedRange};
use rules::Rule;
use shadow::{At, Block, Change, Shadow};

pub use grid::{Cell, Class, Grid, Row};
pub use report::{Availability, Detail, Found, Integrity, LeftOut, Report, StateReport};
pub(crate) use report::{hold, ways};

/// Attacks a machine that [`run::direct`] has brought up. What is left of it afterwards is good for
/// a reset.
pub fn direct(machine: &mut Machine, done: &DirectRun) -> Report {
    direct_until(machine, done, &mut |_, _| {}, &|| false)
}

/// As [`direct`], and tells of each state and component before it is attacked. There are
/// [`steps`] of them at most. Once `stop` says so nothing more is tried.
pub fn direct_until(
    machine: &mut Machine,
    done: &DirectRun,
    tell: &mut dyn FnMut(&str, &str),
    stop: &dyn Fn() -> bool,
) -> Report {
    attacked(machine, done, None::<&mut Locks<0>>, &|_| stop(), tell)
}

/// As [`direct`], and no further than the first thing that gives way.
pub fn first_breach(machine: &mut Machine, done: &DirectRun) -> Report {
    let broken = |report: &Report| !report.integrity.breaches.is_empty();
    attacked(machine, done, None::<&mut Locks<0>>, &broken, &mut |_, _| {})
}

/// As [`direct`], with the library's own witness looking on from inside, as the image has it on
/// machines that nobody sees from outside.
pub fn watched<const N: usize>(
    machine: &mut Machine,
    done: &DirectRun,
    locks: &mut Locks<N>,
) -> Report {
    attacked(machine, done, Some(locks), &|_| false, &mut |_, _| {})
}

fn attacked<const N: usize>(
    machine: &mut Machine,
    done: &DirectRun,
    locks: Option<&mut Locks<N>>,
    enough: &dyn Fn(&Report) -> bool,
    tell: &mut dyn FnMut(&str, &str),
) -> Report {
    let judge = Judge::new(machine);
    let mut clock = machine.clock();
    // A platform that could not be read has an empty topology: nothing will be attacked.
    let tables = run::platform(machine);
    let ecam = tables.as_ref().map(|tables| tables.platform().ecam).unwrap_or_default();
    let tree = done.room.topology.tree();
    let modes = modes(machine);
    let mut judged = Judged { machine, judge, enough, tell };
    match locks {
        Some(locks) => {
            let mut watch = Watch::new(&mut judged, ecam, tree, locks);
            attack_in(&mut watch, &mut clock, ecam, tree, &modes);
        }
        None => attack_in(&mut judged, &mut clock, ecam, tree, &modes),
    }
    let Judged { machine, judge, .. } = judged;
    judge.finish(machine)
}

/// What is to be attacked now, if an event says that: a state, and the component that is in it.
pub fn entered(machine: &Machine, event: Event) -> Option<(&'static str, &str)> {
    let Event::Enter { state, address } = event else { return None };
    Some((grid::name_of(state), place_at(machine, address).map_or("", |at| machine.name(at))))
}

/// The modes that a machine's scenario names and its registers have.
pub fn modes(machine: &Machine) -> Vec<NamedMode> {
    named::all(machine).into_iter().flatten().collect()
}

/// The most that [`direct_until`] tells of.
pub fn steps(machine: &Machine) -> usize {
    // Whole values and modes come after all states.
    (State::ALL.len() + 2) * machine.places().len()
}

/// A machine whose every write the judge looks at.
struct Judged<'a> {
    machine: &'a mut Machine,
    judge: Judge,
    /// Whether nothing more is to be tried, by what has come of it so far.
    enough: &'a dyn Fn(&Report) -> bool,
    tell: &'a mut dyn FnMut(&str, &str),
}

impl Mmio for Judged<'_> {
    fn read(&mut self, address: u64) -> u32 {
        self.machine.read(address)
    }

    fn write(&mut self, address: u64, value: u32) {
        self.judge.before_write(self.machine, address, &value.to_le_bytes());
        self.machine.write(address, value);
    }
}

impl Stores for Judged<'_> {
    fn store(&mut self, address: u64, bytes: u8, value: u64) -> bool {
        let value = value.to_le_bytes();
        let Some(bytes) = value.get(..usize::from(bytes)) else { return false };
        self.judge.before_write(self.machine, address, bytes);
        self.machine.write_bytes(address, bytes);
        true
    }
}

impl Witness for Judged<'_> {
    fn enough(&mut self) -> bool {
        let enough = (self.enough)(&self.judge.report);
        self.judge.cut |= enough;
        enough
    }

    fn hear(&mut self, event: Event) {
        if let Some((state, component)) = entered(self.machine, event) {
            (self.tell)(state, component);
        }
        self.judge.hear(self.machine, event);
    }
}

/// What the writes that come now mean.
#[derive(Debug)]
enum Phase {
    /// A state is prepared or put back.
    Between,
    /// Stores of any width and value come, at what locks freeze.
    Patterns { struck: Option<Struck> },
    /// Bits of a dword are flipped.
    Sweep { address: u64, at: At, rest: u32, step: Step },
    /// Something was started; all that it changed so far, and which of that was locked.
    Trigger { trigger: Trigger, address: u64, pulled: bool, changes: Vec<Change>, locked: Vec<At> },
}

/// How far the flip of one bit has come.
#[derive(Debug)]
enum Step {
    /// Nothing is written.
    Ready,
    /// The bit is written.
    Flipped { bits: u32 },
    /// The rest is written back.
    PutBack(Box<Flip>),
}

/// A store that is not judged yet.
#[derive(Clone, Copy, Debug)]
struct Struck {
    at: At,
    /// The dword's part of it.
    value: u32,
    bytes: u8,
    aligned: bool,
}

/// What a locked dword gave way to, and how that was told.
#[derive(Clone, Debug)]
struct Gave {
    at: At,
    /// The circumstances, in words; empty for none.
    when: String,
    bytes: u8,
    text: String,
}

/// Where addresses led, and what has come since that may have changed it.
#[derive(Debug, Default)]
struct Course {
    followed: Followed,
    /// What registers say otherwise.
    said: Vec<Change>,
    /// The locked dwords that stores have reached.
    struck: Vec<At>,
}

impl Course {
    /// As it is now.
    fn of(machine: &Machine, points: &Points) -> Self {
        Self { followed: Followed::of(machine, points), ..Self::default() }
    }

    fn strike(&mut self, reached: &[At]) {
        for at in reached {
            if !self.struck.contains(at) {
                self.struck.push(*at);
            }
        }
    }
}

/// Of these that are kept: more than any machine has locked dwords under any circumstances that matter.
const MOST_STRAYED: usize = 1 << 12;

/// Locked dwords that decode followed though they read as before, and how that was told.
#[derive(Debug)]
struct Strayed {
    at: Vec<At>,
    /// The circumstances, in words; empty for none.
    when: String,
    fate: Fate,
    /// Component, register and decoder.
    name: Name,
    /// The cause, as it was told, and with what comes of it.
    cause: String,
    text: String,
}

/// A flip and what came of it.
#[derive(Debug)]
struct Flip {
    rule: Rule,
    bits: u32,
    changes: Vec<Change>,
    class: Class,
    /// Something gave way, as opposed to something that failed to happen.
    breach: bool,
    /// What it has to do with the registers.
    text: String,
    /// What it has to do with locked ranges.
    effect: Option<String>,
    /// The same, and whether it could not be taken back.
    effects: Effects,
}

impl Flip {
    fn consequence(&self) -> String {
        match &self.effect {
            Some(effect) => format!("{}; {effect}", self.text),
            None => self.text.clone(),
        }
    }
}

/// What became of locked ranges.
struct Harm {
    /// A sealed range leads elsewhere.
    breach: bool,
    words: String,
    effects: Effects,
}

/// Judges an attack, write by write.
///
/// In a direct run it is called by function; in a guest the VMM calls [`Judge::hear`] for each
/// doorbell and [`Judge::before_write`] for each write before the machine takes it.
#[derive(Debug)]
pub struct Judge {
    shadow: Shadow,
    ranges: Vec<WatchedRange>,
    /// The ranges have to be looked for again before the next sweep.
    stale: bool,
    /// What writes that are no tries have done to the ranges.
    fate: Fate,
    state: State,
    place: Option<Place>,
    /// The registers as the state found them, to be compared once it has been put back.
    entry: Vec<Change>,
    phase: Phase,
    /// The mode that the attacker is in, in words; empty for none.
    mode: String,
    /// What is followed: addresses in the ranges and right beside them, and the borders of locked decoders.
    points: Points,
    home: Home,
    /// What came since stores at locked dwords were last judged.
    course: Course,
    /// What came since a mode was entered in which addresses may lead elsewhere by right; `None`
    /// in no such mode.
    outer: Option<Course>,
    /// What gave way so far.
    gave: Vec<Gave>,
    /// What decode alone gave way to so far.
    strayed: Vec<Strayed>,
    /// Whose decoder is being put over the ranges, and the fate of each of them before.
    over: Option<(Place, Vec<Fate>)>,
    /// Components with an unlocked decoder that a bit puts over a range, and what that does.
    overlaps: Vec<(String, String)>,
    /// The named mode that is being entered: its dword, what that held before, and its bits.
    entering: Option<(At, u32, u32)>,
    /// The modes of the scenario that were entered, by their place in it.
    entered: Vec<usize>,
    /// The components that answered when it began. What is tried at one that has stopped is neither held
    /// nor anything else.
    answering: Vec<Place>,
    /// The attacker was told that it is enough.
    cut: bool,
    /// The last that was heard of the attacker is that it is done.
    done: bool,
    report: Report,
}

impl Judge {
    /// A judge of this machine as it is now.
    pub fn new(machine: &Machine) -> Self {
        let mut home = Home::default();
        let ranges = ranges::locked(machine, &home);
        let points = Points::of(machine, &ranges);
        home.learn(machine, &points);
        Self {
            shadow: Shadow::of(machine),
            report: Report::new(&ranges),
            ranges,
            points,
            home,
            stale: false,
            fate: Fate::Same,
            state: State::NeverCommitted,
            place: None,
            entry: Vec::new(),
            phase: Phase::Between,
            mode: String::new(),
            course: Course::default(),
            outer: None,
            gave: Vec::new(),
            strayed: Vec::new(),
            over: None,
            overlaps: Vec::new(),
            entering: None,
            entered: Vec::new(),
            answering: machine.places().into_iter().filter(|p| machine.answers(*p)).collect(),
            cut: false,
            done: false,
        }
    }

    /// The report, once the attack is over. Of one that was cut off it says so: what was not tried has
    /// shown nothing.
    pub fn finish(mut self, machine: &Machine) -> Report {
        self.look(machine);
        let integrity = &mut self.report.integrity;
        integrity.silent = self
            .answering
            .iter()
            .filter(|place| there(machine, **place) && !machine.answers(**place))
            .map(|place| machine.name(*place).to_owned())
            .collect();
        integrity.complete = self.done && !self.cut && integrity.silent.is_empty();
        integrity.holds &= integrity.complete;
        integrity.begun = (self.report.states.len(), steps(machine));
        for (index, mode) in machine.scenario().modes.iter().enumerate() {
            if !self.entered.contains(&index) {
                self.report.not_tried.push(named::words(machine, mode));
            }
        }
        // What has been shown by a decoder over the ranges needs no bits to show it.
        self.overlaps.retain(|(component, _)| !self.report.opened(component, OVERLAP));
        for (component, effect) in std::mem::take(&mut self.overlaps) {
            self.report.opens(&component, OVERLAP, CLAIMED_TWICE, Some(effect));
        }
        self.report.close();
        self.report
    }

    /// Hears what comes next.
    pub fn hear(&mut self, machine: &Machine, event: Event) {
        self.look(machine);
        self.done = event == Event::Done;
        match event {
            Event::Enter { state, address } => {
                self.phase = Phase::Between;
                (self.state, self.place) = (state, place_at(machine, address));
                self.entry.clear();
                self.find_ranges(machine);
                if let Some(place) = self.place {
                    self.report.state(state, machine.name(place));
                }
            }
            Event::Skip { state, address, reason } => {
                self.phase = Phase::Between;
                if let Some(place) = place_at(machine, address) {
                    self.report.state(state, machine.name(place)).skip(why(reason));
                }
            }
            Event::Sweep { address, rest } => {
                if self.stale {
                    self.find_ranges(machine);
                }
                let at = At::of(machine, address);
                self.course.struck.clear();
                if let Some(at) = at.filter(|at| rules::covered(&self.shadow, *at)) {
                    self.course = Course::of(machine, &self.points);
                    self.course.strike(&[at]);
                }
                self.phase = match at {
                    Some(at) => Phase::Sweep { address, at, rest, step: Step::Ready },
                    None => Phase::Between,
                };
            }
            Event::Trigger { trigger, address } => {
                let (pulled, changes, locked) = (false, Vec::new(), Vec::new());
                self.phase = Phase::Trigger { trigger, address, pulled, changes, locked };
            }
            Event::Settled => {
                let phase = std::mem::replace(&mut self.phase, Phase::Between);
                if let Phase::Trigger { trigger, address, pulled: true, changes, locked } = phase {
                    self.judge_trigger(machine, (trigger, address), &changes, &locked);
                }
                self.stale = true;
            }
            Event::PutBack => {
                let left = std::mem::take(&mut self.entry);
                self.judge_left(machine, left);
                self.phase = Phase::Between;
            }
            Event::Patterns { .. } => {
                self.enter_named(machine);
                // In a mode nothing may be where it is without: ranges are those from before it.
                if self.outer.is_none() && self.stale {
                    self.find_ranges(machine);
                }
                self.judge_overlap(machine);
                self.course = Course::of(machine, &self.points);
                self.phase = Phase::Patterns { struck: None };
            }
            Event::Mode { mode, address, bits } => {
                self.phase = Phase::Between;
                let named = At::of(machine, address).filter(|_| mode == Mode::Named);
                self.entering = named.map(|at| (at, self.shadow.dword(at), bits));
                if let Some(mut outer) = self.outer.take() {
                    self.judge_course(machine, &mut outer);
                }
                self.mode = self.mode_words(machine, mode, address, bits);
                self.report.mode = grid::column_of(mode);
                if !matches!(mode, Mode::Plain | Mode::Relocked) {
                    if self.stale {
                        self.find_ranges(machine);
                    }
                    self.outer = Some(Course::of(machine, &self.points));
                }
                let over = At::of(machine, address).filter(|_| mode == Mode::Overlapped);
                self.over = over.map(|at| (at.place, ranges::fates(machine, &self.ranges)));
                self.stale |= mode == Mode::Relocked;
            }
            Event::Swept => {
                self.phase = Phase::Between;
                if !self.course.struck.is_empty() {
                    self.judge_decode(machine);
                }
            }
            Event::Done => self.phase = Phase::Between,
        }
    }

    /// Notes which modes of the scenario a register is in by now: several may be of its bits, and what
    /// they hold says which.
    fn enter_named(&mut self, machine: &Machine) {
        let Some((at, before, bits)) = self.entering.take() else { return };
        let now = self.shadow.dword(at);
        for (index, mode) in named::all(machine).into_iter().enumerate() {
            let Some(mode) = mode else { continue };
            let wanted = mode.value.unwrap_or(!before);
            let its = At::of(machine, mode.address) == Some(at) && mode.bits == bits;
            if its && (now ^ wanted) & bits == 0 {
                self.entered.push(index);
                if let Some(mode) = machine.scenario().modes.get(index) {
                    self.mode = named::words(machine, mode);
                }
            }
        }
    }

    /// Looks for the ranges that locks protect now.
    fn find_ranges(&mut self, machine: &Machine) {
        self.ranges = ranges::locked(machine, &self.home);
        self.points = Points::of(machine, &self.ranges);
        self.home.learn(machine, &self.points);
        (self.stale, self.fate) = (false, Fate::Same);
    }

    /// Looks at the machine before it takes a write.
    pub fn before_write(&mut self, machine: &Machine, written: u64, bytes: &[u8]) {
        self.look(machine);
        if matches!(self.phase, Phase::Patterns { .. }) {
            self.before_strike(machine, written, bytes);
            return;
        }
        let dword = bytes.try_into().map(u32::from_le_bytes);
        match &mut self.phase {
            Phase::Sweep { address, rest, step, .. } if *address == written => match dword {
                Ok(value) if value != *rest => *step = Step::Flipped { bits: value ^ *rest },
                _ => {}
            },
            Phase::Trigger { address, pulled, .. } if *address == written => *pulled = true,
            _ => {}
        }
    }

    /// Looks at a store of some width and value before it is made. Where it reaches other dwords
    /// than the one before, decode is judged first: what has gone astray is then charged to the
    /// dwords that it followed, and not to the last ones of the batch.
    fn before_strike(&mut self, machine: &Machine, written: u64, bytes: &[u8]) {
        let reached: Vec<At> = dwords(written, bytes)
            .filter_map(|dword| At::of(machine, dword))
            .filter(|at| rules::covered(&self.shadow, *at))
            .collect();
        let before = &self.course.struck;
        let others = !before.is_empty() && !reached.is_empty() && *before != reached;
        // Modes are many, and of what gives way in one alone it is enough to know the decoder.
        if others && self.outer.is_none() {
            self.judge_decode(machine);
        }
        self.course.strike(&reached);
        if let Some(outer) = &mut self.outer {
            outer.strike(&reached);
        }
        let struck = struck_at(machine, &self.shadow, written, bytes);
        self.phase = Phase::Patterns { struck };
    }

    /// Judges what the last write has changed.
    fn look(&mut self, machine: &Machine) {
        let changes = self.shadow.changes(machine);
        match &mut self.phase {
            Phase::Sweep { at, step, .. } => {
                let at = *at;
                match std::mem::replace(step, Step::Ready) {
                    Step::Ready => self.judge_quiet(machine, &changes),
                    Step::Flipped { bits } => {
                        let mut flip = self.judge_flip(machine, at, bits, &changes);
                        if flip.breach && rules::covered(&self.shadow, at) {
                            let (bytes, several) = (4, "");
                            let text = self.gives(at, bytes, several, &flip.text);
                            flip.text = text;
                        }
                        if let Phase::Sweep { step, .. } = &mut self.phase {
                            *step = Step::PutBack(Box::new(flip));
                        }
                    }
                    Step::PutBack(flip) => self.judge_put_back(machine, at, *flip, &changes),
                }
            }
            Phase::Patterns { struck } => match struck.take() {
                Some(struck) => self.judge_struck(machine, struck, &changes),
                None => self.judge_quiet(machine, &changes),
            },
            Phase::Trigger { changes: so_far, locked, .. } => {
                let covered = changes.iter().filter(|c| rules::covered(&self.shadow, c.at));
                locked.extend(covered.map(|change| change.at));
                merge(so_far, &changes);
            }
            Phase::Between => self.judge_quiet(machine, &changes),
        }
        if !changes.is_empty() {
            merge(&mut self.course.said, &changes);
            if let Some(outer) = &mut self.outer {
                merge(&mut outer.said, &changes);
            }
            merge(&mut self.entry, &changes);
            self.entry.retain(|change| change.old != change.new);
            self.shadow.apply(&changes);
        }
    }

    /// Writes that are no tries: what is locked stays all the same.
    fn judge_quiet(&mut self, machine: &Machine, changes: &[Change]) {
        let locked: Vec<Change> =
            changes.iter().filter(|c| rules::covered(&self.shadow, c.at)).copied().collect();
        if !locked.is_empty() {
            self.breach(machine, &locked, "is locked, and changes with a write elsewhere");
        }
        if changes.iter().any(|change| self.decodes(change)) {
            (self.fate, _) = ranges::fate(machine, &self.ranges);
        }
    }

    /// A store of some width and value: what a lock covers stays, and nothing beside it moves.
    fn judge_struck(&mut self, machine: &Machine, struck: Struck, changes: &[Change]) {
        let written = |at: At| {
            let near = at.offset.abs_diff(struck.at.offset) < 8;
            near && at.place == struck.at.place && at.block == struck.at.block
        };
        let (locked, open): (Vec<Change>, Vec<Change>) =
            changes.iter().partition(|change| rules::covered(&self.shadow, change.at));
        let moved: Vec<&Change> = open.iter().filter(|c| !written(c.at)).collect();
        if locked.is_empty() && moved.is_empty() {
            if !machine.answers(struck.at.place) {
                return;
            }
            let name = name(machine, struck.at, u32::MAX);
            self.report.tried(self.state, &name, Class::Held, u32::MAX, "");
            return;
        }
        let harm = self.harm(machine, changes);
        let (harm, effects) = match harm {
            Some(Harm { words, effects, .. }) => (format!("; {words}"), effects),
            None => (String::new(), Effects::default()),
        };
        for change in locked {
            let own = self.shadow.dword(change.at);
            let beside = if change.at == struck.at { "" } else { ", written beside it" };
            let as_what = match struck {
                _ if !self.mode.is_empty() => "",
                Struck { bytes: 4, aligned: true, value: u32::MAX, .. } => "as all-ones",
                Struck { bytes: 4, aligned: true, value: 0, .. } => "as 0",
                Struck { bytes: 4, aligned: true, value, .. }
                    if (value ^ own).count_ones() > 1 && change.at == struck.at =>
                {
                    "with several bits at once"
                }
                Struck { aligned: false, .. } => "across dwords or words",
                _ => "",
            };
            let text = format!("is locked, and follows the write{beside}");
            let text = self.gives(change.at, struck.bytes, as_what, &text);
            let bits = match change.old ^ change.new {
                // The status follows Commit, and is named where it alone gives way.
                bits if change.at.decoder().is_some_and(|(_, within)| within == 0x10)
                    && bits & !STATUS != 0 =>
                {
                    bits & !STATUS
                }
                bits => bits,
            };
            let name = name(machine, change.at, bits);
            let told = format!("{text}{harm}");
            self.report.tried(self.state, &name, Class::Changed, bits, &told);
            self.report.breach(&name, &text, &effects);
        }
        if !moved.is_empty() {
            let name = name(machine, struck.at, u32::MAX);
            let text = format!("a store to it changes {}", self.names(machine, &moved));
            let told = format!("{text}{harm}");
            self.report.tried(self.state, &name, Class::Changed, u32::MAX, &told);
            self.report.breach(&name, &text, &effects);
        }
        if changes.iter().any(|change| self.decodes(change)) {
            self.stale |= changes.iter().any(|change| rules::covered(&self.shadow, change.at));
        }
    }

    /// In words what a locked dword gave way to: the plainest that was seen of it so far.
    fn gives(&mut self, at: At, bytes: u8, as_what: &str, plain: &str) -> String {
        let when = self.circumstances();
        let known = self.gave.iter().find(|gave| {
            let circumstances = gave.when.is_empty() || gave.when == when;
            gave.at == at && circumstances && (gave.bytes == 4 || gave.bytes == bytes)
        });
        if let Some(known) = known {
            return known.text.clone();
        }
        let width = match bytes {
            4 => "",
            1 => " to stores of 1 byte",
            2 => " to stores of 2 bytes",
            _ => " to stores of 8 bytes",
        };
        let space =
            |words: &str| if words.is_empty() { String::new() } else { format!(" {words}") };
        let text = match (width, when.as_str()) {
            ("", "") => format!("{plain}{}", space(as_what)),
            _ => format!("is locked, and opens{width}{}{}", space(as_what), space(&when)),
        };
        self.gave.push(Gave { at, when, bytes, text: text.clone() });
        text
    }

    /// What is otherwise than firmware left it, in words.
    fn circumstances(&self) -> String {
        if !self.mode.is_empty() {
            return self.mode.clone();
        }
        let words = match self.state {
            State::LockSet => "while a spare decoder has Lock On Commit set",
            State::CommitRefused => "while a spare decoder's commit is refused",
            State::CommittedUnlocked => "while another decoder is committed without a lock",
            State::AfterCxlReset => "after CXL Reset",
            State::AfterFlr => "after Function Level Reset",
            State::AfterConventionalReset => "after a conventional reset",
            State::NeverCommitted | State::CommittedLocked => "",
        };
        words.to_owned()
    }

    /// A mode in words; empty for none.
    fn mode_words(&self, machine: &Machine, mode: Mode, address: u64, bits: u32) -> String {
        match mode {
            Mode::Plain => String::new(),
            Mode::Field => {
                let Some(at) = At::of(machine, address) else { return "in a mode".to_owned() };
                let state = if self.shadow.dword(at) & bits == 0 { "on" } else { "off" };
                let field = field_name(machine, at, bits);
                format!("while {field} of {} is {state}", machine.name(at.place))
            }
            // What it is to hold shows once it holds it.
            Mode::Named => format!("while {bits:#x} of {address:#x} is otherwise"),
            Mode::BarMoved => "while its BAR is moved".to_owned(),
            Mode::Committing => "while another decoder is being committed".to_owned(),
            Mode::Overlapped => "while another decoder is committed over the range".to_owned(),
            Mode::Vendor => "after writes to mailbox and vendor registers".to_owned(),
            Mode::Relocked => "once locked again after a conventional reset".to_owned(),
        }
    }

    /// Whether addresses still lead where they led when that was last judged.
    fn judge_decode(&mut self, machine: &Machine) {
        let mut course = std::mem::take(&mut self.course);
        self.judge_course(machine, &mut course);
        self.course = course;
    }

    /// Whether addresses still lead where they led, where no register says otherwise. What has gone
    /// astray is charged once: from now on it is held against where it leads now.
    fn judge_course(&mut self, machine: &Machine, course: &mut Course) {
        let moved = course.followed.moved(machine);
        let said = std::mem::take(&mut course.said);
        let struck = std::mem::take(&mut course.struck);
        let says = said.iter().any(|change| change.old != change.new && self.decodes(change));
        if moved.is_empty() || says {
            return;
        }
        if let Some(astray) = ranges::astray(machine, &self.ranges, &self.home, &moved) {
            self.charge(machine, &struck, &astray);
        }
    }

    /// Charges what has gone astray to the stores before it: to a dword among them of which that is
    /// known, told anew only where it is worse or under other circumstances than it was.
    fn charge(&mut self, machine: &Machine, struck: &[At], astray: &Astray) {
        let when = self.circumstances();
        let known = |known: &Strayed| {
            let circumstances = known.when.is_empty() || known.when == when;
            circumstances && known.at.iter().any(|at| struck.contains(at))
        };
        let told = |strayed: &Strayed| known(strayed) && strayed.fate >= astray.fate;
        let index = match self.strayed.iter().position(told) {
            Some(index) => index,
            None => {
                let before = self.strayed.iter().find(|strayed| known(strayed));
                let also = if when.is_empty() { String::new() } else { format!(", {when}") };
                let plain = "reads as locked, and decode follows writes all the same";
                let mut effects = astray.effects.clone();
                let (at, name, cause) = match before {
                    Some(Strayed { at, name, cause, when: known, .. }) => {
                        // It is worse here than where it was seen first.
                        for (_, worse) in effects.ranges.values_mut().filter(|_| *known != when) {
                            worse.clone_from(&when);
                        }
                        (at.clone(), name.clone(), cause.clone())
                    }
                    None => {
                        let Some(name) = self.culprit(machine, struck) else { return };
                        (struck.to_vec(), name, format!("{plain}{also}"))
                    }
                };
                let text = format!("{plain}{also}{}", astray.effects);
                self.report.breach(&name, &cause, &effects);
                self.report.tried(self.state, &name, Class::Changed, u32::MAX, &text);
                if self.strayed.len() < MOST_STRAYED {
                    self.strayed.push(Strayed { at, when, fate: astray.fate, name, cause, text });
                }
                return;
            }
        };
        let only = match struck {
            [only] => Some((*only, name(machine, *only, u32::MAX))),
            _ => None,
        };
        let Some(strayed) = self.strayed.get_mut(index) else { return };
        // Seen with stores to several dwords, and now with those to one of them alone: it is that one.
        if let (Some((only, name)), true) = (only, strayed.at.len() > 1) {
            self.report.is_of(&strayed.name, &strayed.cause, &name);
            (strayed.at, strayed.name) = (vec![only], name);
        }
        self.report.tried(self.state, &strayed.name, Class::Changed, u32::MAX, &strayed.text);
    }

    /// What the stores were made to that led decode astray, as far as that is known.
    fn culprit(&self, machine: &Machine, struck: &[At]) -> Option<Name> {
        let part = |at: &At| (at.place, at.block, at.decoder().map(|(index, _)| index));
        match struck {
            [only] => Some(name(machine, *only, u32::MAX)),
            [first, others @ ..] if others.iter().all(|at| part(at) == part(first)) => {
                let (component, register) =
                    (machine.name(first.place).to_owned(), "what is locked".to_owned());
                Some(Name { component, register, decoder: part(first).2 })
            }
            _ => {
                let component = machine.name(self.place?).to_owned();
                let register = "what is locked on its path".to_owned();
                Some(Name { component, register, decoder: None })
            }
        }
    }

    /// Whether a decoder that is committed over the ranges by now, without a lock, takes them away:
    /// whatever their addresses are.
    fn judge_overlap(&mut self, machine: &Machine) {
        let Some((place, before)) = self.over.take() else { return };
        let now = ranges::fates(machine, &self.ranges);
        let each = self.ranges.iter().zip(before.into_iter().zip(now));
        let worse: Vec<(&WatchedRange, Fate)> = each
            .filter(|(_, (before, now))| now > before)
            .map(|(range, (_, now))| (range, now))
            .collect();
        let Some(worst) = worse.iter().map(|(_, fate)| *fate).max() else { return };
        let hit = worse.iter().filter(|(_, fate)| *fate == worst).map(|(range, _)| *range);
        let effect = format!("{} {}", ranges::list(hit), ranges::words(worst));
        self.report.opens(machine.name(place), OVERLAP, CLAIMED_TWICE, Some(effect));
    }

    fn judge_flip(&self, machine: &Machine, at: At, bits: u32, changes: &[Change]) -> Flip {
        let rule = rules::rule(&self.shadow, at, bits.trailing_zeros());
        let (own, others): (Vec<&Change>, Vec<&Change>) =
            changes.iter().partition(|change| change.at == at);
        let moved = own.first().map_or(0, |change| change.old ^ change.new);
        let now = self.shadow.dword(at) ^ moved;
        let locked = rules::covered(&self.shadow, at);
        let (mut class, mut text) = match (rule, moved) {
            (Rule::Held | Rule::May(_) | Rule::Caching(_), 0) => (Class::Held, String::new()),
            (Rule::Held, moved) if locked => {
                let more = if moved == bits { "" } else { ", and other bits with it" };
                (Class::Changed, format!("is locked, and follows the write{more}"))
            }
            (Rule::Held, _) => (Class::Changed, "is read-only, and changes".to_owned()),
            (Rule::Flips(text) | Rule::May(text) | Rule::Sticks(text), moved) if moved == bits => {
                (Class::Allowed, text.to_owned())
            }
            (Rule::Caching(text), moved) if moved & !CACHE_INVALID == bits => {
                (Class::Allowed, text.to_owned())
            }
            (Rule::Commit(text) | Rule::Burns(text), moved)
                if moved & bits != 0 && moved & !(bits | STATUS) == 0 && commits(now) =>
            {
                (Class::Allowed, text.to_owned())
            }
            (_, 0) => (Class::Changed, "is not locked, and does not take the write".to_owned()),
            (_, _) => (Class::Changed, "does not do what it has to".to_owned()),
        };
        let mut breach = class == Class::Changed && rule == Rule::Held;
        if !others.is_empty() {
            (class, breach) = (Class::Changed, true);
            text = format!("a write to it changes {}", self.names(machine, &others));
        }
        let harm = self.harm(machine, changes);
        if harm.as_ref().is_some_and(|harm| harm.breach) {
            (class, breach) = (Class::Changed, true);
        }
        let (effect, effects) = harm.map(|harm| (harm.words, harm.effects)).unzip();
        let effects = effects.unwrap_or_default();
        Flip { rule, bits, changes: changes.to_vec(), class, breach, text, effect, effects }
    }

    fn judge_put_back(&mut self, machine: &Machine, at: At, mut flip: Flip, changes: &[Change]) {
        let mut net = std::mem::take(&mut flip.changes);
        // What does not answer cannot be put back either.
        if !machine.answers(at.place) {
            self.stale = true;
            if !flip.breach {
                return;
            }
            net.clear();
        }
        merge(&mut net, changes);
        net.retain(|change| change.old != change.new);
        let stays = match flip.rule {
            Rule::Sticks(_) => true,
            Rule::Burns(_) => net.iter().all(|c| c.at == at && rules::locked(c.new)),
            _ => false,
        };
        if !net.is_empty() && !stays {
            (flip.class, flip.breach) = (Class::Changed, true);
            let names = self.names(machine, &net.iter().collect::<Vec<_>>());
            let left = format!("does not go back: {names}");
            match flip.text.is_empty() {
                true => flip.text = left,
                false => flip.effects.others.push(left),
            }
            self.stale = true;
        } else if !net.is_empty() {
            flip.text += "; stays so until a conventional reset";
            self.stale = true;
        }
        let name = name(machine, at, flip.bits);
        let consequence = flip.consequence();
        self.report.tried(self.state, &name, flip.class, flip.bits, &consequence);
        if flip.class == Class::Changed && !flip.breach {
            self.report.fell_short(self.state, &name);
        }
        if flip.breach {
            self.report.breach(&name, &flip.text, &flip.effects);
        }
        if flip.class != Class::Allowed {
            return;
        }
        match name.decoder {
            // A decoder that takes writes is no part of a locked range. It can get in the way of
            // one by claiming the same addresses, and nothing else. Whether a single bit does that
            // depends on the addresses, so it counts only where no decoder was put over the ranges.
            Some(_) => {
                let known = self.overlaps.iter().any(|(known, _)| *known == name.component);
                let effect = flip.effect.filter(|_| !known);
                self.overlaps.extend(effect.map(|effect| (name.component.clone(), effect)));
            }
            None if flip.effect.is_some() => {
                self.report.opens(&name.component, &name.register, &flip.text, flip.effect);
            }
            None => {}
        }
        // Of devices that were handed over no spare decoder commits.
        let commits = matches!(flip.rule, Rule::Commit(_)) && machine.hardware().is_none();
        let spare = self.state == State::NeverCommitted && commits;
        if let Some(first) = name.decoder.filter(|n| spare && self.free_below(at.place, *n) == 0) {
            let count = self.shadow.decoders(at.place).saturating_sub(first);
            let which = format!("{count} of them, from decoder {first} on");
            self.report.opens(
                &name.component,
                "spare decoders",
                "a range can be added",
                Some(which),
            );
        }
    }

    /// Decoders below one that are not committed.
    fn free_below(&self, place: Place, decoder: u8) -> usize {
        (0..decoder).filter(|n| self.shadow.control(place, *n) >> 10 & 1 == 0).count()
    }

    /// What a state has left behind. Where that is known to have given way it is a consequence of it.
    fn judge_left(&mut self, machine: &Machine, left: Vec<Change>) {
        let stays = "does not go back to what it was";
        // Nobody could put back what does not answer.
        let left = left.into_iter().filter(|change| machine.answers(change.at.place));
        let (known, new): (Vec<Change>, Vec<Change>) =
            left.partition(|change| self.gave.iter().any(|gave| gave.at == change.at));
        for change in known {
            let bits = change.old ^ change.new;
            let name = name(machine, change.at, bits);
            self.report.tried(self.state, &name, Class::Changed, bits, stays);
            let effects = Effects { others: vec![stays.to_owned()], ..Effects::default() };
            if let Some(gave) = self.gave.iter().find(|gave| gave.at == change.at) {
                self.report.breach(&name, &gave.text, &effects);
            }
        }
        if !new.is_empty() {
            self.breach(machine, &new, stays);
        }
    }

    /// Changes without a try of their own.
    fn breach(&mut self, machine: &Machine, changes: &[Change], text: &str) {
        let effects = self.harm(machine, changes).map(|harm| harm.effects).unwrap_or_default();
        let told = format!("{text}{effects}");
        for change in changes {
            let bits = change.old ^ change.new;
            let name = name(machine, change.at, bits);
            self.report.tried(self.state, &name, Class::Changed, bits, &told);
            self.report.breach(&name, text, &effects);
        }
    }

    /// What the changes do to the locked ranges, if anything.
    fn harm(&self, machine: &Machine, changes: &[Change]) -> Option<Harm> {
        let matters = changes.iter().any(|change| self.decodes(change));
        let (fate, hit) = ranges::fate(machine, if matters { &self.ranges } else { &[] });
        let words = format!("{} {}", ranges::list(hit.iter().copied()), ranges::words(fate));
        let breach = fate == Fate::Elsewhere && hit.iter().any(|range| range.open.is_empty());
        let effects = Effects::of(hit, fate);
        (fate > self.fate).then_some(Harm { breach, words, effects })
    }

    /// Whether a register has a say in where addresses lead. A decoder that is and was out of use
    /// has none.
    fn decodes(&self, change: &Change) -> bool {
        let place = change.at.place;
        match change.at.block {
            Block::Hdm => match change.at.decoder() {
                Some((_, 0x10)) => (change.old | change.new) >> 10 & 1 != 0,
                Some((index, _)) => self.shadow.control(place, index) >> 10 & 1 != 0,
                None => true,
            },
            Block::Config => true,
            Block::Component | Block::Device => false,
        }
    }

    fn judge_trigger(
        &mut self,
        machine: &Machine,
        (trigger, address): (Trigger, u64),
        changes: &[Change],
        locked: &[At],
    ) {
        let Some(at) = At::of(machine, address) else { return };
        let name = Name { register: label(trigger).to_owned(), ..name(machine, at, 0) };
        let net: Vec<Change> = changes.iter().filter(|c| c.old != c.new).copied().collect();
        let illegal: Vec<&Change> =
            net.iter().filter(|c| !self.may_change(machine, trigger, at, c, locked)).collect();
        if illegal.is_empty() && !machine.answers(at.place) {
            return;
        }
        let harm = self.harm(machine, &net);
        let elsewhere = harm.as_ref().is_some_and(|harm| harm.breach);
        let done = happened(machine, trigger, at.place);
        let text = if !illegal.is_empty() {
            format!("changes {}", self.names(machine, &illegal))
        } else if !done {
            "does not do what it has to".to_owned()
        } else {
            effect(machine, trigger).to_owned()
        };
        let (effect, effects) = harm.map(|harm| (harm.words, harm.effects)).unzip();
        let consequence = match &effect {
            Some(effect) => format!("{text}; {effect}"),
            None => text.clone(),
        };
        let held = trigger == Trigger::MaskedBusReset && illegal.is_empty();
        let fell_short = illegal.is_empty() && !elsewhere && !done;
        let class = if !illegal.is_empty() || elsewhere {
            self.report.breach(&name, &text, &effects.unwrap_or_default());
            Class::Changed
        } else if !done {
            Class::Changed
        } else if held {
            Class::Held
        } else {
            self.report.opens(&name.component, &name.register, &text, effect);
            Class::Allowed
        };
        self.report.tried(self.state, &name, class, 0, &consequence);
        if fell_short {
            self.report.fell_short(self.state, &name);
        }
    }

    /// What a reset may reach (CXL r3.1 section 9.7 and 8.1.3.4; PCIe Base 6.x section 6.6).
    /// `locked` are the dwords that a lock covered when they changed.
    fn may_change(
        &self,
        machine: &Machine,
        trigger: Trigger,
        at: At,
        change: &Change,
        locked: &[At],
    ) -> bool {
        let own = change.at.place == at.place;
        let device_dvsec = self.shadow.dvsec(at.place).is_some_and(|dvsec| {
            change.at.block == Block::Config && (dvsec..dvsec + 0x3C).contains(&change.at.offset)
        });
        match trigger {
            Trigger::WriteBack => {
                change.at == at && (change.old ^ change.new) & !CACHE_INVALID == 0
            }
            Trigger::CxlReset => {
                let config = change.at.block == Block::Config;
                own && (!config || device_dvsec) && !locked.contains(&change.at)
            }
            Trigger::Flr => {
                own && matches!(change.at.block, Block::Config | Block::Device) && !device_dvsec
            }
            Trigger::MaskedBusReset => {
                change.at == at && (change.old ^ change.new) == SECONDARY_BUS_RESET
            }
            Trigger::BusReset => {
                own && change.at.block == Block::Config || below(machine, at.place, change.at.place)
            }
        }
    }

    /// Registers by name, for people.
    fn names(&self, machine: &Machine, changes: &[&Change]) -> String {
        let mut names: Vec<String> = Vec::new();
        for change in changes {
            let bits = change.old ^ change.new;
            let Name { component, register, decoder } = name(machine, change.at, bits);
            let decoder = decoder.map_or(String::new(), |n| format!(" of decoder {n}"));
            let name = format!("{component} {register}{decoder}");
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(", ")
    }
}

/// What [`Availability`] calls an unlocked decoder in the way of a locked range.
const OVERLAP: &str = "unlocked decoder";
const CLAIMED_TWICE: &str = "one committed without a lock can be put over a locked range, and what \
                             two decoders claim is mapped by neither";
/// Status2, beside Control2: Cache Invalid.
const CACHE_INVALID: u32 = 1 << 16;
/// Control of a decoder: Committed and Error Not Committed.
const STATUS: u32 = 1 << 10 | 1 << 11;
/// Bridge Control, in the upper half of its dword.
const SECONDARY_BUS_RESET: u32 = 1 << 22;

/// Whether Commit and the status bits of a decoder's Control fit together: a commit has come to one
/// end, and without Commit there is none.
fn commits(control: u32) -> bool {
    matches!((control >> 9 & 1, control >> 10 & 3), (1, 1 | 2) | (0, 0))
}

/// Adds changes to older ones: a dword keeps its oldest value and gets its newest.
fn merge(older: &mut Vec<Change>, newer: &[Change]) {
    for change in newer {
        match older.iter_mut().find(|old| old.at == change.at) {
            Some(old) => old.new = change.new,
            None => older.push(*change),
        }
    }
}

/// A register by name.
#[derive(Clone, Debug)]
struct Name {
    component: String,
    register: String,
    decoder: Option<u8>,
}

/// The register that the lowest of `bits` of a dword belongs to.
fn name(machine: &Machine, At { place, block, offset }: At, bits: u32) -> Name {
    let byte = offset + (bits.trailing_zeros() % 32 / 8) as u16;
    let found = match block {
        Block::Config => machine.function(place).and_then(|function| function.register_at(byte)),
        Block::Hdm => machine
            .component(place)
            .and_then(|block| block.hdm()?.place(offset))
            .map(|at| cxl_model::device::Name { register: at.spec.name, decoder: at.decoder }),
        Block::Component | Block::Device => None,
    };
    let space = match block {
        Block::Config => "configuration space",
        Block::Hdm => "HDM decoder structure",
        Block::Component => "component registers",
        Block::Device => "device registers",
    };
    let decoder = At { place, block, offset }.decoder().map(|(index, _)| index);
    let register =
        found.map_or_else(|| format!("{space} +{offset:#05x}"), |name| name.register.to_owned());
    Name { component: machine.name(place).to_owned(), register, decoder }
}

/// The addresses of the dwords that a store reaches.
fn dwords(address: u64, bytes: &[u8]) -> impl Iterator<Item = u64> {
    (address & !3..address.saturating_add(bytes.len() as u64)).step_by(4)
}

/// The store of some bytes, as far as it lies in the first dword that it reaches.
fn struck_at(machine: &Machine, shadow: &Shadow, address: u64, bytes: &[u8]) -> Option<Struck> {
    let dwords = dwords(address, bytes);
    let mut reached = dwords.filter_map(|dword| Some((dword, At::of(machine, dword)?)));
    let first = reached.next()?;
    let (dword, at) = match rules::covered(shadow, first.1) {
        true => first,
        false => reached.find(|(_, at)| rules::covered(shadow, *at)).unwrap_or(first),
    };
    let mut value = shadow.dword(at).to_le_bytes();
    for (byte, at) in bytes.iter().zip(address..) {
        let place = at.checked_sub(dword).and_then(|at| value.get_mut(at as usize));
        if let Some(place) = place {
            *place = *byte;
        }
    }
    let aligned = address.is_multiple_of(bytes.len().max(1) as u64);
    let value = u32::from_le_bytes(value);
    Some(Struck { at, value, bytes: bytes.len() as u8, aligned })
}

/// What a table calls the field with these bits of a dword.
fn field_name(machine: &Machine, At { place, block, offset }: At, bits: u32) -> String {
    let specs = match block {
        Block::Config => machine.function(place).map(|f| f.specs(offset)).unwrap_or_default(),
        Block::Hdm => {
            let hdm = machine.component(place).and_then(|block| block.hdm());
            hdm.and_then(|hdm| hdm.place(offset)).map(|at| vec![*at.spec]).unwrap_or_default()
        }
        Block::Component | Block::Device => Vec::new(),
    };
    let field = specs.iter().find_map(|spec| {
        let shift = 8 * (u32::from(spec.offset) & 3);
        spec.fields.iter().find(|field| field.mask() << shift == bits)
    });
    field.map_or_else(|| format!("{bits:#x} of {offset:#x}"), |field| field.name.to_owned())
}

/// The component that an address of its registers belongs to.
fn place_at(machine: &Machine, address: u64) -> Option<Place> {
    At::of(machine, address).map(|at| at.place)
}

/// Whether a component is plugged in.
fn there(machine: &Machine, place: Place) -> bool {
    match place {
        Place::Device(device) => machine.present(device),
        Place::Bridge(_) | Place::Switch(_) | Place::Port(_) => true,
    }
}

/// Whether a component hangs below a port, at any depth.
fn below(machine: &Machine, port: Place, place: Place) -> bool {
    let scenario = machine.scenario();
    let mut place = place;
    for _ in 0..=scenario.ports.len() + scenario.switches.len() {
        let above = match place {
            Place::Device(index) => scenario.devices.get(index).map(|d| Place::Port(d.port)),
            Place::Switch(index) => scenario.switches.get(index).map(|s| Place::Port(s.port)),
            Place::Port(index) => scenario.ports.get(index).map(|port| match port.parent {
                Parent::Bridge(bridge) => Place::Bridge(bridge),
                Parent::Switch(switch) => Place::Switch(switch),
            }),
            Place::Bridge(_) => None,
        };
        match above {
            Some(above) if above == port => return true,
            Some(above) => place = above,
            None => return false,
        }
    }
    false
}

/// Whether what a trigger has to do has been done, as far as registers show it.
fn happened(machine: &Machine, trigger: Trigger, place: Place) -> bool {
    let devices = (0..machine.scenario().devices.len()).filter(|device| machine.present(*device));
    // Devices that were handed over come back as they were.
    let clean = |place| {
        let hdm = machine.component(place).and_then(|block| block.hdm());
        hdm.is_none_or(|hdm| hdm.as_preset())
    };
    match trigger {
        Trigger::WriteBack | Trigger::Flr | Trigger::MaskedBusReset => true,
        Trigger::CxlReset => {
            machine.component(place).and_then(|block| block.hdm()).is_none_or(|hdm| {
                let unlocked = hdm.images().filter(|image| !rules::locked(image.control));
                let global = if machine.hardware().is_some() { 2 } else { 0 };
                hdm.global().into_bits() == global && { unlocked }.all(|image| image.control == 0)
            })
        }
        Trigger::BusReset => {
            devices.map(Place::Device).filter(|d| below(machine, place, *d)).all(clean)
        }
    }
}

fn label(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::WriteBack => "Initiate Cache Write Back and Invalidation",
        Trigger::CxlReset => "Initiate CXL Reset",
        Trigger::Flr => "Initiate Function Level Reset",
        Trigger::MaskedBusReset => "Secondary Bus Reset, masked",
        Trigger::BusReset => "Secondary Bus Reset, unmasked",
    }
}

fn effect(machine: &Machine, trigger: Trigger) -> &'static str {
    let handed_over = machine.hardware().is_some();
    match trigger {
        Trigger::CxlReset if handed_over => "puts back HDM Decoder Enable; locked decoders stay",
        Trigger::BusReset if handed_over => {
            "puts back what was handed over: decoders committed and locked, enables and ranges"
        }
        Trigger::WriteBack => "empties the cache",
        Trigger::CxlReset => "clears HDM Decoder Enable and unlocked decoders; locked ones stay",
        Trigger::Flr => "clears BARs and Command; decoders and CXL enables stay",
        Trigger::MaskedBusReset => "does nothing",
        Trigger::BusReset => "clears decoders and opens the locks of all that is below",
    }
}

fn why(reason: Skipped) -> &'static str {
    match reason {
        Skipped::NoDecoders => "no decoders",
        Skipped::NoSpare => "no spare decoder",
        Skipped::NotRefused => "accepts a commit that it has to refuse",
        Skipped::NotCommitted => "a spare decoder does not commit",
        Skipped::NothingLocked => "no decoder is locked",
        Skipped::NoSuchReset => "no such reset",
        Skipped::OutOfReach => "configuration space is out of reach",
    }
}
