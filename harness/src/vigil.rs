//! Whether what was locked at the hand-off is so at every later moment, and in the end.
//!
//! The registers, and where locked memory leads, are looked at after everything that can change one: a guest's
//! write, a read that ends a commit, an event. What the firmware handed over is the measure. A decoder that becomes
//! usable without a lock, or a locked address that comes to lead elsewhere, is a violation at once. A
//! lock that is lost (a reset clears it) is one unless everything is locked again in the end, and
//! nothing was committed without a lock meanwhile.
//!
//! **Invariant**: what is kept is bounded, whatever a guest does for however long; the first
//! violations are kept, the rest are counted.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};

use cxl_regs::hdm::DecoderImage;

use crate::locks::{At, LockedRange, Protection, Unlocked, Unsealed, View, Words, decoders, edges};
use cxl_model::device::component::ComponentBlock;
use cxl_model::machine::{Landing, Machine};
use cxl_model::scenario::Place;

/// When something was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the guest's first instruction, once the host had locked everything.
    BeforeStart,
    /// When the firmware handed over, or ended without a word.
    HandOff,
    /// After something that a guest or an event did.
    After(String),
    /// Before our own attack, which changes what it likes.
    BeforeAttack,
    /// In the end.
    End,
}

impl Display for Moment {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::BeforeStart => f.write_str("before the guest's first instruction"),
            Self::HandOff => f.write_str("at the hand-off"),
            Self::After(what) => write!(f, "after {what}"),
            Self::BeforeAttack => f.write_str("before the attack"),
            Self::End => f.write_str("in the end"),
        }
    }
}

/// What is asked of locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every decoder in use is locked, and each path is whole.
    Locked,
    /// And no range register or enable can lead a locked range elsewhere.
    Sealed,
}

impl Display for Level {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Locked => "locked",
            Self::Sealed => "sealed",
        })
    }
}

/// Something that keeps a machine from being locked or sealed, at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When it was seen first.
    pub moment: Moment,
    /// The word that it contradicts; what contradicts `locked` contradicts `sealed` too.
    pub level: Level,
    /// Half of a path is locked, which no policy asks for: the decoder that is, and the one that is not, if
    /// there is one.
    pub mixed: Option<(At, Option<At>)>,
    /// A lock did not hold, and no reset had opened it.
    pub gave_way: bool,
    /// What it is.
    pub message: String,
}

/// What was seen of the locks from the hand-off to the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// What was wrong at the hand-off already.
    pub at_handoff: Vec<Violation>,
    /// What was wrong later, in order.
    pub later: Vec<Violation>,
    /// Later ones that were not kept, against `locked` and against `sealed` alone.
    pub more: [usize; 2],
    /// What was wrong for a while, and is not any more: what, and until when.
    pub mended: Vec<(String, Moment)>,
    /// Something was locked at the hand-off, so that later moments could take it away.
    pub anything: bool,
    /// Components that answered at the hand-off, and did not in the end: what their registers are said to
    /// hold is what the models keep, and nobody could read it.
    pub silent: Vec<String>,
    /// The run did not come to its end.
    pub cut_off: Option<CutOff>,
    /// Events of the scenario that never came.
    pub pending: usize,
}

/// A run that was ended from outside, or died: what would have come later was not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutOff {
    /// How, in words.
    pub how: String,
    /// Nothing had been handed over by then.
    pub before_hand_off: bool,
}

/// Looks at a machine's locks from moment to moment.
#[derive(Debug, Default)]
pub struct Vigil {
    registers: Vec<u32>,
    /// Where the borders of locked ranges led when they were looked at last: decode may move and no register
    /// show it.
    leads: Vec<Option<Landing>>,
    /// What the locks protected when the firmware handed over, and the machine then.
    measure: Option<(Protection, Machine)>,
    /// Locked decoders that a reset has cleared, and that are not locked again yet.
    cleared: BTreeSet<At>,
    /// What is wrong and may still be mended, with the moment it was seen first.
    open: Vec<Violation>,
    /// The attack has begun: nothing is judged any more.
    over: bool,
    watched: Watched,
}

/// Violations that are kept.
const MOST: usize = 16;

impl Vigil {
    /// The firmware hands over: what is locked now has to stay so. The first time counts.
    pub fn hand_off(&mut self, machine: &Machine, moment: Moment) {
        if self.measure.is_some() || self.over {
            return;
        }
        let found = Protection::of(machine);
        self.watched.at_handoff = violations(machine, &found, &moment);
        self.watched.anything = !found.locked.is_empty();
        self.registers = registers(machine);
        self.leads = leads(machine, &found);
        self.measure = Some((found, machine.frozen()));
    }

    /// Whether the firmware has handed over.
    pub fn has_begun(&self) -> bool {
        self.measure.is_some()
    }

    /// Looks at the machine after something that may have changed it.
    pub fn look(&mut self, machine: &Machine, moment: impl FnOnce() -> Moment) {
        if self.over {
            return;
        }
        let Some((measure, _)) = &self.measure else { return };
        let (registers, leads) = (registers(machine), leads(machine, measure));
        if registers != self.registers || leads != self.leads {
            (self.registers, self.leads) = (registers, leads);
            self.judge(machine, &moment());
        }
    }

    /// Our own attack begins: what it does has rules of its own.
    pub fn stop(&mut self, machine: &Machine) {
        self.close(machine, Moment::BeforeAttack);
        self.over = true;
    }

    /// What was seen, at the end of the run.
    pub fn finish(mut self, machine: &Machine) -> Watched {
        self.close(machine, Moment::End);
        // An attack does much by right; to silence a component is not among it.
        if let Some((_, then)) = &self.measure {
            self.watched.silent = fallen_silent(then, machine);
        }
        self.watched
    }

    /// What was not mended by now is not mended.
    fn close(&mut self, machine: &Machine, moment: Moment) {
        if self.over {
            return;
        }
        self.hand_off(machine, moment.clone());
        // Whatever moved or did not: the last word is about how things are.
        self.judge(machine, &moment);
        for violation in std::mem::take(&mut self.open) {
            self.keep(violation);
        }
    }

    fn keep(&mut self, violation: Violation) {
        let known = |known: &Violation| {
            (known.level, &known.message) == (violation.level, &violation.message)
        };
        if self.watched.later.iter().any(known) {
            return;
        }
        let kept = self.watched.later.iter().filter(|known| known.level == violation.level);
        if kept.count() < MOST {
            self.watched.later.push(violation);
        } else {
            let [locked, sealed] = &mut self.watched.more;
            let more = if violation.level == Level::Locked { locked } else { sealed };
            *more += 1;
        }
    }

    fn judge(&mut self, machine: &Machine, moment: &Moment) {
        let Some((measure, then)) = self.measure.take() else { return };
        let now = Protection::of(machine);
        let locked = |message| Violation {
            moment: moment.clone(),
            level: Level::Locked,
            mixed: None,
            gave_way: false,
            message,
        };
        let gave_way = |message| Violation { gave_way: true, ..locked(message) };
        let mut open = Vec::new();
        for found in violations(machine, &now, moment) {
            if self.watched.at_handoff.iter().any(|known| known.message == found.message) {
                continue;
            }
            open.push(found);
        }
        let mut at_once: Vec<Violation> = Vec::new();
        for at in &measure.locked {
            let (before, after) = (dwords(&then, *at), dwords(machine, *at));
            if after.is_none_or(|dwords| dwords.iter().all(|dword| *dword == 0)) {
                self.cleared.insert(*at);
            }
            let name = Words(machine, at);
            match (now.locked.contains(at), self.cleared.contains(at)) {
                (true, _) if before == after => {
                    self.cleared.remove(at);
                }
                (true, false) => at_once.push(gave_way(format!("{name} is locked, and changed"))),
                (true, true) => {
                    at_once.push(locked(format!("{name} is locked again, otherwise than it was")));
                }
                (false, true) => open.push(locked(format!("{name} lost its lock"))),
                // No reset has opened it.
                (false, false) => {
                    at_once.push(gave_way(format!("{name} gave way: it lost its lock")))
                }
            }
        }
        at_once.extend(now.unlocked.iter().filter_map(|why| {
            let committed = match why {
                Unlocked::Committed(_) => true,
                Unlocked::UnderWay(at) => !lock_is_set(machine, *at),
                _ => false,
            };
            committed.then(|| locked(Words(machine, why).to_string()))
        }));
        for range in &measure.ranges {
            match led_astray(&then, machine, range) {
                Some((hpa, Some(now))) => at_once.push(Violation {
                    gave_way: self.cleared.is_empty(),
                    ..locked(format!(
                        "the locked range at {range} leads elsewhere: {hpa:#x} to {} DPA {:#x}",
                        machine.name(Place::Device(now.device)),
                        now.dpa.0
                    ))
                }),
                Some((hpa, None)) => open.push(locked(format!(
                    "the locked range at {range} no longer leads to memory at {hpa:#x}"
                ))),
                None => {}
            }
        }
        at_once.retain(|found| {
            !self.watched.at_handoff.iter().any(|known| known.message == found.message)
        });
        open.retain(|found| !at_once.iter().any(|known| known.message == found.message));
        // What was open before keeps the moment at which it was seen first.
        for violation in &mut open {
            let before = self.open.iter().find(|known| known.message == violation.message);
            if let Some(before) = before {
                violation.moment = before.moment.clone();
            }
        }
        for before in std::mem::replace(&mut self.open, open) {
            let still = self.open.iter().chain(&at_once).any(|v| v.message == before.message);
            if !still && self.watched.mended.len() < MOST {
                let Violation { moment: seen, message, .. } = before;
                self.watched.mended.push((format!("{message}, seen {seen}"), moment.clone()));
            }
        }
        at_once.into_iter().for_each(|violation| self.keep(violation));
        self.measure = Some((measure, then));
    }
}

impl Watched {
    /// What contradicts a word: at the hand-off, and later unless only the hand-off counts.
    pub fn against(&self, level: Level, at_handoff_only: bool) -> Vec<&Violation> {
        let later = self.later.iter().filter(|_| !at_handoff_only);
        self.at_handoff.iter().chain(later).filter(|violation| violation.level <= level).collect()
    }
}

/// What is wrong with locks now, in words.
pub(crate) fn violations(
    machine: &dyn View,
    found: &Protection,
    moment: &Moment,
) -> Vec<Violation> {
    let violation = |level, mixed, message| Violation {
        moment: moment.clone(),
        level,
        mixed,
        gave_way: false,
        message,
    };
    let unlocked = found.unlocked.iter().map(|why: &Unlocked| {
        let mixed = match *why {
            Unlocked::Mixed { locked, open, index } => {
                Some((locked, index.map(|index| At { place: open, index })))
            }
            _ => None,
        };
        violation(Level::Locked, mixed, Words(machine, why).to_string())
    });
    let unsealed = found
        .unsealed
        .iter()
        .map(|why: &Unsealed| violation(Level::Sealed, None, Words(machine, why).to_string()));
    unlocked.chain(unsealed).collect()
}

/// The components that answered then, are still there, and do not answer any more.
pub(crate) fn fallen_silent(then: &Machine, machine: &Machine) -> Vec<String> {
    let there = |place: &Place| match place {
        Place::Device(device) => machine.present(*device),
        Place::Bridge(_) | Place::Switch(_) | Place::Port(_) => true,
    };
    let silent = |place: &Place| then.answers(*place) && !machine.answers(*place);
    let places = machine.places().into_iter().filter(there).filter(silent);
    places.map(|place| machine.name(place).to_owned()).collect()
}

fn lock_is_set(machine: &Machine, At { place, index }: At) -> bool {
    let hdm = machine.component(place).and_then(ComponentBlock::hdm);
    let image: Option<DecoderImage> = hdm.and_then(|hdm| hdm.images().nth(index.into()));
    image.is_some_and(|image| image.control().lock_on_commit())
}

/// The first address of a range that does not lead where it led: at every border that there was then
/// or is now.
fn led_astray(
    then: &Machine,
    machine: &Machine,
    range: &LockedRange,
) -> Option<(u64, Option<Landing>)> {
    let mut addresses: BTreeSet<u64> = range.leads.iter().map(|(hpa, _)| *hpa).collect();
    addresses.extend(edges(machine, range.span));
    let leads = addresses.into_iter().map(|hpa| (hpa, then.lands(hpa), machine.lands(hpa)));
    let mut astray = leads.filter(|(_, before, now)| before != now).map(|(hpa, _, now)| (hpa, now));
    // One that leads to other bytes is worse than any that leads nowhere.
    let first = astray.next()?;
    Some(first).into_iter().chain(astray).find(|(_, now)| now.is_some()).or(Some(first))
}

/// The dwords of a decoder; `None` if its component is not there.
fn dwords(machine: &Machine, At { place, index }: At) -> Option<[u32; DecoderImage::DWORDS]> {
    let decoders = decoders(machine, place);
    let image = decoders.into_iter().find(|(number, _)| *number == index);
    image.map(|(_, image)| image.to_dwords())
}

/// Where the borders of locked ranges lead.
fn leads(machine: &Machine, measure: &Protection) -> Vec<Option<Landing>> {
    let borders = measure.ranges.iter().flat_map(|range| &range.leads);
    borders.map(|(hpa, _)| machine.lands(*hpa)).collect()
}

/// Every register that has to do with locks: of bridges, switches and devices that are plugged in.
fn registers(machine: &Machine) -> Vec<u32> {
    let mut all = Vec::new();
    for place in machine.places() {
        if let Place::Device(device) = place {
            all.push(machine.present(device).into());
        }
        if let Some(hdm) = machine.component(place).and_then(ComponentBlock::hdm) {
            all.push(hdm.global().into_bits());
            all.extend(hdm.images().flat_map(DecoderImage::to_dwords));
        }
        let function = machine.function(place);
        if let Some((function, at)) = function.and_then(|f| Some((f, f.device_dvsec()?))) {
            // Control to the end of the second range.
            all.extend((0x0C..0x38).step_by(4).map(|offset| function.read(at + offset)));
        }
    }
    all
}
