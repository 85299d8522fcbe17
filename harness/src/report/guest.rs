//! What a run in a KVM guest adds to a report: how the guest ended, what happened while it ran, what
//! KVM was told, and what it took.
//!
//! **Invariant**: a guest that did not end as it should is a failure of the report, with the place
//! where it was and the last register that it reached; what was announced or expected is none.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use cxl_firmware::doorbell::{Call, Figure};
use cxl_regs::Size;
use serde::{Serialize, Serializer};

use super::text::fact;
use super::{Report, Verdict, address, microseconds};
use crate::bench;
use crate::guest::boot::{GuestRun, Verdict as Outcome};
use crate::kvm::{Call as SlotCall, End};
use crate::machine::{Machine, PlugError};
use crate::scenario::{Action, Place};

/// What a run in a KVM guest took, and what happened in it.
#[derive(Clone, Debug, Serialize)]
pub struct GuestMeasured {
    /// From nothing to the first instruction, in microseconds.
    #[serde(rename = "setup_us", serialize_with = "microseconds")]
    pub setup: Duration,
    /// From nothing to the hand-off, in microseconds.
    #[serde(rename = "handoff_us", serialize_with = "maybe_microseconds")]
    pub handoff: Option<Duration>,
    /// Exits until the hand-off, or in all where nothing was handed over.
    pub exits: u64,
    /// Memory slots at the hand-off, or in the end.
    pub slots: Vec<SlotRange>,
    /// Direct ranges without a slot, and why.
    pub unmirrored: Vec<NoSlot>,
    /// What an access to CXL memory costs.
    pub cost: Option<Cost>,
    /// How the guest ended.
    #[serde(serialize_with = "words")]
    pub end: End,
    /// How our image ended that ran afterwards, if it did.
    #[serde(serialize_with = "maybe_words")]
    pub then: Option<End>,
    /// The last access that exited.
    pub last_access: Option<String>,
    /// Checks of the payload: how many passed, and how many did not.
    pub checks: Checks,
    /// Internal errors of KVM that a payload announced.
    pub internal_errors: Vec<InternalError>,
    /// Events of the scenario, in order.
    pub events: Vec<EventLine>,
    /// DMA transfers that have ended, in order.
    pub transfers: Vec<TransferLine>,
    /// Slots of CXL memory that came or went after the hand-off, with what KVM was told.
    pub slot_calls: Vec<String>,
    /// What the guest printed; the last lines.
    pub console: Vec<String>,
    /// What it printed is worth reading: it is somebody else's, or did not end as ours does.
    #[serde(skip)]
    telling: bool,
}

/// A memory slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SlotRange {
    /// First address.
    #[serde(serialize_with = "address")]
    pub hpa: u64,
    /// Bytes.
    #[serde(serialize_with = "address")]
    pub size: u64,
}

/// A direct range that is reached one access at a time all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NoSlot {
    /// First address.
    #[serde(serialize_with = "address")]
    pub hpa: u64,
    /// Bytes.
    #[serde(serialize_with = "address")]
    pub size: u64,
    /// Why.
    pub reason: String,
}

/// What the payload's checks came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checks {
    /// Those that passed.
    pub passed: usize,
    /// Those that did not.
    pub failed: usize,
}

/// An internal error that a payload announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct InternalError {
    /// Whether KVM gave up as announced.
    pub happened: bool,
    /// Where the guest went on.
    #[serde(serialize_with = "address")]
    pub resume: u64,
    /// Ranges that were mirrored at that time.
    pub slots: usize,
}

/// An event of the scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventLine {
    /// The guest's count that it was due at.
    pub at: u64,
    /// What was to happen.
    pub action: String,
    /// `done`, `refused`, or `not due` if the guest never counted that far.
    pub result: &'static str,
    /// Why it was refused.
    pub error: Option<String>,
    /// Ranges mirrored afterwards.
    pub slots: Option<usize>,
    /// Whether the scenario says that it is to be refused.
    pub to_be_refused: bool,
}

impl EventLine {
    fn surprising(&self) -> bool {
        matches!((self.result, self.to_be_refused), ("refused", false) | ("done", true))
    }
}

/// A DMA transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TransferLine {
    /// The engine's channel.
    pub channel: usize,
    /// Bytes that went through host pointers.
    pub direct: u64,
    /// Bytes that were decoded access by access.
    pub bounced: u64,
    /// Transfers that were in flight together with it, itself included.
    pub together: usize,
    /// Why it ended early.
    pub error: Option<String>,
}

/// What an access costs in the guest, in nanoseconds; medians of a few pairs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// Where no decoder leads, as everywhere before a commit.
    pub trapped: f64,
    /// A cache line of a committed range.
    pub mirrored: f64,
    /// A cache line of plain guest RAM.
    pub ram: f64,
    /// Committed range over plain RAM, pair by pair.
    pub ratio: f64,
}

/// Lines of the console that a report shows, and columns of one.
const CONSOLE_LINES: usize = 20;
const CONSOLE_COLUMNS: usize = 200;
/// Slot calls that a report shows.
const SLOT_CALLS: usize = 16;

impl GuestMeasured {
    pub(super) fn of(machine: &Machine, run: &GuestRun) -> Self {
        let handed = run.at_handoff.is_some();
        let counts = run.at_handoff.unwrap_or(run.counts);
        let now = || run.mirror.slots.iter().map(|slot| (slot.base, slot.size)).collect();
        let slots: Vec<_> = if handed { run.slots_at_handoff.clone() } else { now() };
        let unmirrored = run.mirror.unmirrored.iter().filter_map(|(index, why)| {
            let mapping = run.mirror.mappings.get(*index)?;
            let (hpa, size) = (mapping.hpa.0, mapping.size);
            Some(NoSlot { hpa, size, reason: why.to_string() })
        });
        let internal_errors = run.announced.iter().map(|announced| InternalError {
            happened: announced.happened,
            resume: announced.resume,
            slots: announced.slots,
        });
        let transfers = run.transfers.iter().map(|ended| TransferLine {
            channel: ended.channel,
            direct: ended.moved.direct,
            bounced: ended.moved.bounced,
            together: ended.together,
            error: ended.error.map(|error| error.to_string()),
        });
        let passed = |wanted: bool| {
            let of = |call: &&Call| matches!(call, Call::Check { passed, .. } if *passed == wanted);
            run.calls.iter().filter(of).count()
        };
        Self {
            setup: run.setup,
            handoff: run.to_handoff,
            exits: counts.reads + counts.writes,
            slots: slots.into_iter().map(|(hpa, size)| SlotRange { hpa, size }).collect(),
            unmirrored: unmirrored.collect(),
            cost: Cost::of(&run.calls),
            end: run.end.clone(),
            then: run.then.clone(),
            last_access: run.last_access.map(|access| access.words(machine)),
            checks: Checks { passed: passed(true), failed: passed(false) },
            internal_errors: internal_errors.collect(),
            events: events(machine, run),
            transfers: transfers.collect(),
            slot_calls: if handed { slot_calls(run) } else { Vec::new() },
            console: console(&run.console),
            telling: run.foreign || !matches!(run.verdict(), Outcome::Good | Outcome::Refused),
        }
    }

    /// What is wrong with how the guest went, in sentences.
    pub(super) fn failures(&self, run: &GuestRun, refused: bool) -> Vec<String> {
        let mut failures = Vec::new();
        let end = run.then.as_ref().unwrap_or(&run.end);
        let place = |what: &dyn Display| match &self.last_access {
            Some(access) => format!("{what}; the last access that left the guest: {access}"),
            None => format!("{what}; no access ever left the guest"),
        };
        // Our image's last word is `end:` and its status; the one before says why.
        let mut words = self.console.iter().filter(|line| !line.starts_with("end: "));
        let said = words.next_back();
        let last = |otherwise: &str| said.map_or(otherwise, String::as_str).to_owned();
        // Somebody else's image keeps to no protocol of ours: any end of its own will do.
        let theirs = run.foreign && run.then.is_none() && run.code.is_none();
        match (end, run.verdict()) {
            (End::Failed(failure), _) => failures.push(place(failure)),
            (End::TimedOut { .. }, _) => {
                failures.push(place(&format_args!("the guest did not end by itself: {end}")));
            }
            (End::Interrupted, _) => {
                failures.push(place(&"Ctrl-C: this is the report so far"));
            }
            _ if theirs => {}
            (_, Outcome::Good) => {}
            (_, Outcome::Refused) if self.checks.failed > 0 => {
                let line = last("it does not say which");
                failures.push(format!("a payload's check failed: {line}"));
            }
            (_, Outcome::Refused) if refused || run.foreign => {}
            (_, Outcome::Refused) => {
                failures.push(format!("the image gave up: {}", last("it does not say why")));
            }
            (_, Outcome::Panicked) => {
                // The place is in the line before the message.
                let place = words.next_back().filter(|line| line.starts_with("panicked at "));
                let place = place.map(|line| format!("{line} ")).unwrap_or_default();
                let what = last("it does not say where");
                failures.push(format!("the image panicked: {place}{what}"));
            }
            (_, Outcome::Contradicted) => {
                failures.push("the image says that all is well, its checks do not".to_owned());
            }
            (end, Outcome::NoStatus) => {
                failures.push(place(&format_args!("no end of our image: {end}")));
            }
        }
        let vain = self.internal_errors.iter().filter(|error| !error.happened).count();
        if vain > 0 {
            failures.push(format!("{vain} internal errors of KVM were announced and never came"));
        }
        for event in self.events.iter().filter(|event| event.surprising()) {
            let EventLine { at, action, .. } = event;
            failures.push(match &event.error {
                Some(error) => format!("event at count {at}: {action}: {error}"),
                None => format!("event at count {at}: {action} was to be refused and was not"),
            });
        }
        failures
    }
}

impl Report {
    /// The report of a guest run.
    pub fn of_guest(machine: &Machine, run: GuestRun) -> Self {
        let guest = GuestMeasured::of(machine, &run);
        let refused = run.report.facts.result == Verdict::Refused;
        let failures = guest.failures(&run, refused);
        let GuestRun { mut report, attack, run, .. } = run;
        failures.into_iter().for_each(|failure| report.facts.fail(failure));
        if let Some(attack) = attack {
            report.facts.set_attack(attack);
        }
        report.measured = Some(super::Measured { run, guest: Some(guest) });
        report
    }
}

fn events(machine: &Machine, run: &GuestRun) -> Vec<EventLine> {
    let device = |device| machine.name(Place::Device(device)).to_owned();
    let words = |action: Action| match action {
        Action::HotAdd { device: index } => format!("hot-add of {}", device(index)),
        Action::HotRemove { device: index } => format!("hot-remove of {}", device(index)),
        Action::Reset { device: Some(index), kind } => format!("{kind} of {}", device(index)),
        Action::Reset { device: None, kind } => format!("{kind} of the machine"),
    };
    let happened = run.happened.iter().map(|happened| EventLine {
        at: happened.event.at,
        action: words(happened.event.action),
        result: if happened.result.is_ok() { "done" } else { "refused" },
        error: happened.result.err().map(|error| plug_error(machine, error)),
        slots: Some(happened.slots),
        to_be_refused: happened.event.refused,
    });
    let pending = run.pending.iter().map(|event| EventLine {
        at: event.at,
        action: words(event.action),
        result: "not due",
        error: None,
        slots: None,
        to_be_refused: event.refused,
    });
    happened.chain(pending).collect()
}

/// Why nothing came or went, with the names of the scenario.
fn plug_error(machine: &Machine, error: PlugError) -> String {
    let device = |device| machine.name(Place::Device(device));
    match error {
        PlugError::Present { device: index } => format!("{} is plugged in already", device(index)),
        PlugError::Absent { device: index } => format!("{} is not plugged in", device(index)),
        PlugError::PortTaken { port, by } => {
            let port = machine.name(Place::Port(port));
            format!("{port} is taken by {}", machine.name(by))
        }
        error @ PlugError::NoSuchDevice { .. } => error.to_string(),
    }
}

/// What KVM was told about CXL memory since the hand-off.
fn slot_calls(run: &GuestRun) -> Vec<String> {
    // Pages of plain memory behind BARs come and go with their BARs; windows lie apart from them.
    let memory = |base: u64| {
        run.mirror
            .mappings
            .iter()
            .any(|mapping| mapping.hpa.0 <= base && base - mapping.hpa.0 < mapping.size)
    };
    let calls = run.slot_log.iter().skip(run.slot_calls_at_handoff);
    let words = calls.filter_map(|call| match *call {
        SlotCall::Add { base, size } if memory(base) => {
            Some(format!("{base:#018x}  {} added", Size(size)))
        }
        SlotCall::Remove { base } if memory(base) => Some(format!("{base:#018x}  removed")),
        _ => None,
    });
    words.collect()
}

/// The last lines of a console that may hold anything.
fn console(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let shown = |line: &str| {
        let clean = line.chars().map(|c| if c.is_control() { '.' } else { c });
        clean.take(CONSOLE_COLUMNS).collect::<String>()
    };
    let mut lines: Vec<String> =
        text.lines().rev().take(CONSOLE_LINES).map(|line| shown(line.trim_end())).collect();
    lines.reverse();
    lines
}

impl Display for GuestMeasured {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.then.is_some() || !matches!(self.end, End::Exit(_)) {
            fact(f, "end", &self.end)?;
        }
        if let Some(then) = &self.then {
            fact(f, "then, our image", then)?;
        }
        match self.handoff {
            Some(time) => {
                let (exits, ms) = (self.exits, time.as_secs_f64() * 1e3);
                fact(f, "firmware", format_args!("done after {ms:.1} ms and {exits} exits"))?;
            }
            None => fact(f, "exits", self.exits)?,
        }
        for slot in &self.slots {
            let (hpa, size) = (slot.hpa, Size(slot.size));
            fact(f, "slot", format_args!("{hpa:#018x}  {size} of guest memory, at RAM speed"))?;
        }
        for NoSlot { hpa, size, reason } in &self.unmirrored {
            fact(f, "no slot", format_args!("{hpa:#018x}  {}, trapped: {reason}", Size(*size)))?;
        }
        if let Some(cost) = self.cost {
            let (trapped, times) = (cost.trapped, cost.trapped / cost.mirrored);
            let before = format!("{trapped:.0} ns an access before a commit: each one traps");
            fact(f, "cost", before)?;
            let (mirrored, ratio) = (cost.mirrored, cost.ratio);
            let after = format!(
                "{mirrored:.2} ns a cache line after it, {times:.0} times less; {ratio:.2} of \
                 plain guest RAM"
            );
            fact(f, "", after)?;
        }
        self.happenings(f)?;
        let lines = if self.telling { self.console.as_slice() } else { &[] };
        for (index, line) in lines.iter().enumerate() {
            fact(f, if index == 0 { "console" } else { "" }, line)?;
        }
        Ok(())
    }
}

impl GuestMeasured {
    /// What happened while the guest ran, as far as anything did.
    fn happenings(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Checks { passed, failed } = self.checks;
        if passed + failed > 0 {
            fact(f, "payload checks", format_args!("{passed} passed, {failed} failed"))?;
        }
        for InternalError { happened, resume, slots } in &self.internal_errors {
            let what = if *happened { "came as announced" } else { "was announced and never came" };
            fact(
                f,
                "internal error",
                format_args!(
                    "KVM exit 17, suberror 1 {what}, with {slots} ranges mirrored; the guest goes \
                     on at {resume:#x}"
                ),
            )?;
        }
        for EventLine { at, action, result, error, slots, .. } in &self.events {
            let why = error.as_ref().map(|error| format!(", {error}")).unwrap_or_default();
            let then = slots.map(|slots| format!("; mirrored ranges: {slots}")).unwrap_or_default();
            fact(f, "event", format_args!("at count {at}, {action}: {result}{why}{then}"))?;
        }
        for line in &self.transfers {
            let TransferLine { channel, direct, bounced, together, error } = line;
            let error = error.as_ref().map(|error| format!("; {error}")).unwrap_or_default();
            fact(
                f,
                "DMA",
                format_args!(
                    "channel {channel}, {together} in flight: {direct} bytes direct, {bounced} \
                     bounced{error}"
                ),
            )?;
        }
        // A few tell what happened; hundreds are an attack's or a test's, and tell nothing one by one.
        let calls = self.slot_calls.len();
        if calls > SLOT_CALLS {
            let text = format_args!("{calls} slots added or removed (one by one in --json)");
            return fact(f, "slots, later", text);
        }
        self.slot_calls.iter().try_for_each(|call| fact(f, "slot, later", call))
    }
}

impl Cost {
    /// The medians of what the `cost` or `bench` payload measured.
    fn of(calls: &[Call]) -> Option<Self> {
        let pairs = |wanted| {
            calls.iter().filter_map(move |call| match *call {
                Call::Pair { figure, a, b } if figure == wanted => Some((a as f64, b as f64)),
                _ => None,
            })
        };
        pairs(Figure::Sweep).next()?;
        let ticks = bench::ticks_per_nanosecond();
        let lines = f64::from(16u32 << 20) / 64.0;
        let mirrored = bench::median(pairs(Figure::Sweep).map(|(a, _)| a).collect());
        let ram = bench::median(pairs(Figure::Sweep).map(|(_, b)| b).collect());
        let ratio = bench::median(pairs(Figure::Sweep).map(|(a, b)| a / b).collect());
        let trapped = bench::median(pairs(Figure::Trapped).map(|(a, _)| a).collect());
        (ratio > 0.0).then(|| Self {
            trapped: trapped / ticks / 64.0,
            mirrored: mirrored / ticks / lines,
            ram: ram / ticks / lines,
            ratio,
        })
    }
}

fn maybe_microseconds<S: Serializer>(
    value: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)).serialize(serializer)
}

fn words<S: Serializer>(value: &End, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

fn maybe_words<S: Serializer>(value: &Option<End>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(|end| end.to_string()).serialize(serializer)
}
