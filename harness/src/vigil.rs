//! Whether what was locked at the hand-off is so at every later moment, and in the end.
//!
//! The registers are looked at after everything that can change one: a guest's write, a read that
//! ends a commit, an event. What the firmware handed over is the measure. A decoder that becomes
//! usable without a lock, or a locked address that comes to lead elsewhere, is a violation at once. A
//! lock that is lost (a reset clears it) is one unless everything is locked again in the end, and
//! nothing was committed without a lock meanwhile.
//!
//! **Invariant**: what is kept is bounded, whatever a guest does for however long; the first
//! violations are kept, the rest are counted.

use std::fmt::{self, Display, Formatter};

use cxl_regs::hdm::DecoderImage;

use crate::device::component::ComponentBlock;
use crate::locks::{At, LockedRange, Protection, Unlocked, Unsealed, Words};
use crate::machine::{Landing, Machine};
use crate::scenario::Place;

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
    /// Half of a path is locked, which no policy asks for.
    pub mixed: bool,
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
    /// Later ones that were not kept.
    pub more: usize,
    /// What was wrong for a while, and is not any more: what, and until when.
    pub mended: Vec<(String, Moment)>,
    /// Something was locked at the hand-off, so that later moments could take it away.
    pub anything: bool,
}

/// Looks at a machine's locks from moment to moment.
#[derive(Debug, Default)]
pub struct Vigil {
    registers: Vec<u32>,
    /// What the locks protected when the firmware handed over.
    measure: Option<Protection>,
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
        self.measure = Some(found);
    }

    /// Looks at the machine after something that may have changed it.
    pub fn look(&mut self, machine: &Machine, moment: impl FnOnce() -> Moment) {
        if self.over || self.measure.is_none() {
            return;
        }
        let now = registers(machine);
        if now != self.registers {
            self.registers = now;
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
        self.watched
    }

    /// What was not mended by now is not mended.
    fn close(&mut self, machine: &Machine, moment: Moment) {
        if self.over {
            return;
        }
        self.hand_off(machine, moment.clone());
        self.look(machine, || moment);
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
        if self.watched.later.len() < MOST {
            self.watched.later.push(violation);
        } else {
            self.watched.more += 1;
        }
    }

    fn judge(&mut self, machine: &Machine, moment: &Moment) {
        let Some(measure) = self.measure.take() else { return };
        let now = Protection::of(machine);
        let locked = |message| Violation {
            moment: moment.clone(),
            level: Level::Locked,
            mixed: false,
            message,
        };
        let mut open = Vec::new();
        for found in violations(machine, &now, moment) {
            if self.watched.at_handoff.iter().any(|known| known.message == found.message) {
                continue;
            }
            open.push(found);
        }
        let lost = measure.locked.iter().filter(|at| !now.locked.contains(at));
        open.extend(lost.map(|at| locked(format!("{} lost its lock", Words(machine, at)))));
        let mut at_once: Vec<Violation> = Vec::new();
        at_once.extend(now.unlocked.iter().filter_map(|why| {
            let committed = match why {
                Unlocked::Committed(_) => true,
                Unlocked::UnderWay(at) => !lock_is_set(machine, *at),
                _ => false,
            };
            committed.then(|| locked(Words(machine, why).to_string()))
        }));
        for range in &measure.ranges {
            match led_astray(machine, range) {
                Some((hpa, Some(now))) => at_once.push(locked(format!(
                    "the locked range at {range} leads elsewhere: {hpa:#x} to {} DPA {:#x}",
                    machine.name(Place::Device(now.device)),
                    now.dpa.0
                ))),
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
                let Violation { moment: then, message, .. } = before;
                self.watched.mended.push((format!("{message}, {then}"), moment.clone()));
            }
        }
        at_once.into_iter().for_each(|violation| self.keep(violation));
        self.measure = Some(measure);
    }
}

impl Watched {
    /// What contradicts a word: at the hand-off, and later unless only the hand-off counts.
    pub fn against(&self, level: Level, at_handoff_only: bool) -> Vec<&Violation> {
        let later = self.later.iter().filter(|_| !at_handoff_only);
        self.at_handoff.iter().chain(later).filter(|violation| violation.level <= level).collect()
    }
}

/// What is wrong with locks now, in words. A mixed path is told by its open decoder already where
/// that is committed.
pub(crate) fn violations(machine: &Machine, found: &Protection, moment: &Moment) -> Vec<Violation> {
    let violation =
        |level, mixed, message| Violation { moment: moment.clone(), level, mixed, message };
    let unlocked = found.unlocked.iter().map(|why: &Unlocked| {
        let mixed = matches!(why, Unlocked::Mixed { .. });
        violation(Level::Locked, mixed, Words(machine, why).to_string())
    });
    let unsealed = found
        .unsealed
        .iter()
        .map(|why: &Unsealed| violation(Level::Sealed, false, Words(machine, why).to_string()));
    unlocked.chain(unsealed).collect()
}

fn lock_is_set(machine: &Machine, At { place, index }: At) -> bool {
    let hdm = machine.component(place).and_then(ComponentBlock::hdm);
    let image: Option<DecoderImage> = hdm.and_then(|hdm| hdm.images().nth(index.into()));
    image.is_some_and(|image| image.control().lock_on_commit())
}

/// The first address of a range that does not lead where it led.
fn led_astray(machine: &Machine, range: &LockedRange) -> Option<(u64, Option<Landing>)> {
    let now = range.leads.iter().map(|(hpa, before)| (*hpa, *before, machine.resolve(*hpa)));
    let mut astray = now.filter(|(_, before, now)| before != now).map(|(hpa, _, now)| (hpa, now));
    // One that leads to other bytes is worse than any that leads nowhere.
    let first = astray.next()?;
    Some(first).into_iter().chain(astray).find(|(_, now)| now.is_some()).or(Some(first))
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
