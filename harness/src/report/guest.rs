//! What a run in a KVM guest adds to a report: how the guest ended, what happened while it ran, what
//! KVM was told, and what it took.
//!
//! **Invariant**: a guest that did not end as it should is a failure of the report, with the place
//! where it was and the last register that it reached; what was announced or expected is none.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use cxl_image::doorbell::{Call, Figure};
use cxl_regs::Size;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::findings::{LOST, MOST_CHARACTERS};
use super::last::{LastState, SlotRange};
use super::lines::fact;
use super::{Facts, Finding, Refusal, Report, RunRecord, Verdict, Witness, address, microseconds};
use crate::guest::boot::{GuestRun, ImageRun, Verdict as Outcome};
use crate::guest::{Counted, Counts, GuestHandoff, Speaker, payload};
use crate::kvm::{self, Call as SlotCall, End, Kind};
use crate::timing;
use crate::vigil::{Level, Moment};
use crate::virtio::{Done, Trouble};
use cxl_model::kept::Kept;
use cxl_model::machine::{Machine, PlugText};
use cxl_model::mapping::{self, Reach};
use cxl_model::scenario::{Action, PathPolicy, Place};
use cxl_model::words::counted;

/// What a run in a KVM guest took, and what happened in it.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct GuestMeasured {
    /// Which kind of KVM it ran on.
    pub kvm: Kvm,
    /// From nothing to the first instruction, in microseconds.
    #[serde(rename = "setup_us", serialize_with = "microseconds")]
    #[schemars(with = "u64")]
    pub setup: Duration,
    /// From nothing to the hand-off, in microseconds.
    #[serde(rename = "handoff_us", serialize_with = "maybe_microseconds")]
    #[schemars(with = "Option<u64>")]
    pub handoff: Option<Duration>,
    /// Exits until the hand-off, or in all where nothing was handed over.
    pub exits: u64,
    /// Reads until then that left no exit, by the image's own count.
    pub without_exit: u64,
    /// Memory slots at the hand-off, or in the end.
    pub slots: Vec<SlotRange>,
    /// Direct ranges without a slot, and why.
    pub unmirrored: Vec<NoSlot>,
    /// What an access to CXL memory costs.
    pub cost: Option<Cost>,
    /// How the guest ended.
    #[serde(serialize_with = "words")]
    #[schemars(with = "String")]
    pub end: End,
    /// How our image ended that ran afterwards, if it did.
    #[serde(serialize_with = "maybe_words")]
    #[schemars(with = "Option<String>")]
    pub then: Option<End>,
    /// The last access that exited.
    pub last_access: Option<String>,
    /// Checks of our payload: how many passed, and how many did not.
    pub checks: Checks,
    /// What somebody else's image said of itself through the doorbell. Nobody has checked it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub its_words: Option<ItsWords>,
    /// Internal errors of KVM that a payload announced.
    pub internal_errors: Vec<InternalError>,
    /// Events of the scenario, in order.
    pub events: Vec<EventLine>,
    /// DMA transfers that have ended, in order.
    pub transfers: Vec<TransferLine>,
    /// The disk of a Linux, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskLine>,
    /// Slots of CXL memory that came or went after the hand-off, with what KVM was told.
    pub slot_calls: Vec<String>,
    /// Entries of the last three lists that were left out: a guest can cause them without end.
    pub left_out: LeftOut,
    /// What the guest printed; the last lines.
    pub console: Vec<String>,
    /// What it printed is worth reading: it is somebody else's, or did not end as ours does.
    #[serde(skip)]
    telling: bool,
}

/// The kind of KVM, or why nobody can say.
#[derive(Clone, Debug, JsonSchema, Serialize)]
#[serde(untagged)]
pub enum Kvm {
    /// As it was seen.
    Seen(Kind),
    /// It could not be seen.
    Unknown {
        /// Why not.
        unknown: String,
    },
}

impl Display for Kvm {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seen(kind) => kind.fmt(f),
            Self::Unknown { unknown } => write!(f, "which kind is not known: {unknown}"),
        }
    }
}

/// Entries that lists of a guest's doings do not have; the first ones are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct LeftOut {
    /// Of `internal_errors`.
    pub internal_errors: u64,
    /// Of `transfers`.
    pub transfers: u64,
    /// Of `slot_calls`.
    pub slot_calls: u64,
}

/// Entries of a list that a report has, and lines of it that its text shows.
const MOST: usize = 128;
const SHOWN: usize = 16;

/// A direct range that is reached one access at a time all the same.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct NoSlot {
    /// First address.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub hpa: u64,
    /// Bytes.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub size: u64,
    /// Why.
    pub reason: String,
}

/// What an image that is not ours said of itself. Nothing is concluded from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct ItsWords {
    /// Times that it handed over; the first one is the moment that counts.
    pub hand_offs: u64,
    /// The error number it handed over with.
    pub code: Option<u16>,
    /// Checks that it says passed.
    pub passed: usize,
    /// Checks that it says failed.
    pub failed: usize,
    /// Events of an attack that it says it made.
    pub attack_events: u64,
}

/// What the payload's checks came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Checks {
    /// Those that passed.
    pub passed: usize,
    /// Those that did not.
    pub failed: usize,
}

/// An internal error that a payload announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct InternalError {
    /// Whether KVM gave up as announced.
    pub happened: bool,
    /// Where the guest went on.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub resume: u64,
    /// Ranges that were mirrored at that time.
    pub slots: usize,
}

/// An event of the scenario.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
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
    /// The device that came.
    #[serde(skip)]
    came: Option<usize>,
}

/// A DMA transfer.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
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

/// A disk, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct DiskLine {
    /// Its bytes.
    pub size: u64,
    /// Requests that were done.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Requests that ended with an error.
    pub failed: u64,
    /// Requests that were in flight at one time, at most.
    pub together: usize,
    /// Bytes from and to guest RAM.
    pub ram: u64,
    /// Bytes from and to CXL memory, through host pointers.
    pub direct: u64,
    /// Bytes from and to CXL memory that were decoded.
    pub bounced: u64,
    /// What went wrong, the first ones.
    pub troubles: Vec<String>,
    /// How many more of them there were.
    pub more_troubles: u64,
    /// Those of the host, which are failures.
    #[serde(skip)]
    hosts: Vec<String>,
}

impl DiskLine {
    fn of(size: u64, done: &Done) -> Self {
        let words = |trouble: &Trouble| trouble.to_string();
        let troubles = &done.troubles;
        Self {
            size,
            reads: done.reads,
            writes: done.writes,
            flushes: done.flushes,
            failed: done.failed,
            together: done.together,
            ram: done.streamed.ram,
            direct: done.streamed.direct,
            bounced: done.streamed.bounced,
            troubles: troubles.iter().map(words).collect(),
            more_troubles: troubles.more(),
            hosts: troubles.iter().filter(|trouble| trouble.is_the_hosts()).map(words).collect(),
        }
    }
}

impl Display for DiskLine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { reads, writes, flushes, failed, together, ram, direct, bounced, .. } = self;
        write!(
            f,
            "{}: {}, {}, {flushes} flush{}, {failed} failed, at most {together} in flight; {} in RAM, \
             {direct} in CXL memory direct, {bounced} bounced",
            Size(self.size),
            counted(reads, "read"),
            counted(writes, "write"),
            if *flushes == 1 { "" } else { "es" },
            counted(ram, "byte"),
        )
    }
}

/// What an access costs in the guest, in nanoseconds; medians of a few pairs.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize)]
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

/// Lines of the console that a report has, those that its text shows, and columns of one.
const CONSOLE_LINES: usize = 400;
const CONSOLE_SHOWN: usize = 20;
const CONSOLE_COLUMNS: usize = 200;
/// Bytes of the console that a report has: in JSON a character may take twice its bytes.
const CONSOLE_BYTES: usize = 24 << 10;
/// Slot calls that a report has.
const MOST_CALLS: usize = 512;

impl GuestMeasured {
    pub(super) fn of(machine: &Machine, run: &GuestRun) -> Self {
        let handed = run.first.handed.as_ref();
        let counts = handed.map_or(run.counts, |handed| handed.counts);
        let slots = handed.map_or(&run.last_state().slots, |handed| &handed.then.slots);
        let unmirrored = run.mirror.unmirrored.iter().filter_map(|(index, why)| {
            let mapping = run.mirror.mappings.get(*index)?;
            let (hpa, size) = (mapping.hpa.0, mapping.size);
            Some(NoSlot { hpa, size, reason: why.to_string() })
        });
        let said = &run.last().said;
        let internal_errors = said.announced.iter().take(MOST).map(|announced| InternalError {
            happened: announced.happened,
            resume: announced.resume,
            slots: announced.slots,
        });
        let transfers = run.transfers.iter().take(MOST).map(|ended| TransferLine {
            channel: ended.channel,
            direct: ended.moved.direct,
            bounced: ended.moved.bounced,
            together: ended.together,
            error: ended.error.map(|error| error.to_string()),
        });
        let calls = slot_calls(run);
        let left_out = LeftOut {
            internal_errors: said.announced.total().saturating_sub(MOST as u64),
            transfers: run.transfers.total().saturating_sub(MOST as u64),
            slot_calls: calls.more(),
        };
        let ours = run.last().speaker == Speaker::Ours;
        let checks = if ours { checks(run.last()) } else { Checks::default() };
        let kvm = match kvm::kind() {
            Ok(kind) => Kvm::Seen(kind),
            Err(unknown) => Kvm::Unknown { unknown },
        };
        Self {
            kvm,
            setup: run.setup,
            handoff: run.to_handoff(),
            exits: counts.reads + counts.writes,
            without_exit: counts.listed
                + run.first.handed.as_ref().map_or(0, |handed| handed.unseen),
            slots: slots.memory.iter().map(|&(hpa, size)| SlotRange { hpa, size }).collect(),
            unmirrored: unmirrored.collect(),
            cost: if ours { Cost::of(&said.calls) } else { None },
            end: run.first.end.clone(),
            then: run.second.as_ref().map(|second| second.end.clone()),
            last_access: run.last_access.map(|access| access.words(machine)),
            checks,
            its_words: run.foreign().then(|| ItsWords::of(&run.first)),
            internal_errors: internal_errors.collect(),
            events: events(machine, run),
            transfers: transfers.collect(),
            disk: run.disk.as_ref().map(|(size, done)| DiskLine::of(*size, done)),
            slot_calls: calls.into_iter().collect(),
            left_out,
            console: console(&run.console),
            telling: run.foreign()
                || !matches!(run.last().verdict(), Outcome::Good | Outcome::Refused),
        }
    }

    /// What is wrong with how the guest went, in sentences.
    fn failures(&self, run: &GuestRun, facts: &Facts) -> Vec<Told> {
        let refused = facts.result == Verdict::Refused;
        // Each loss is told by the record, with its error; the image's last line is one of them.
        let told = facts.findings.iter().any(Finding::is_loss);
        let mut failures: Vec<Told> = Vec::new();
        let image = run.last();
        let place = |what: &dyn Display| match &self.last_access {
            Some(access) => format!("{what}; the last access that left the guest: {access}"),
            None => format!("{what}; no access ever left the guest"),
        };
        // Our image's last words are `end:` and its status, and what it did and found; one before says why.
        let why = |line: &&String| {
            let routine = [
                "end: ",
                "unused: ",
                "note: ",
                "handoff: ",
                "table: ",
                "probe: ",
                "verifier: ",
                LOST,
            ];
            !routine.iter().any(|topic| line.starts_with(topic))
        };
        let mut words = self.console.iter().filter(why);
        let said = words.next_back();
        let last = |otherwise: &str| said.map_or(otherwise, String::as_str).to_owned();
        // What came after it, as the next payload's lines, is no reason.
        let complaint = self.console.iter().rfind(|line| line.starts_with("payload: "));
        match (&image.end, image.verdict()) {
            (End::Failed(failure), _) => {
                failures.push(Told::named("the guest could not go on", place(failure)));
            }
            (end @ End::TimedOut { .. }, _) => {
                let limit = run.limit;
                let message = place(&format_args!(
                    "the guest did not end by itself within {limit:?} (--timeout): {end}"
                ));
                failures.push(Told::named("the guest did not end by itself in time", message));
            }
            (End::Interrupted, _) => {
                let message = place(&"interrupted: this is the report so far");
                failures.push(Told::named("interrupted", message));
            }
            (end, outcome) if image.speaker == Speaker::Theirs => {
                failures.extend(theirs(end, outcome).map(Told::from));
            }
            (_, Outcome::Good) => {}
            (_, Outcome::Refused) if self.checks.failed > 0 => {
                let line = last("it does not say which");
                let message = format!("a payload's check failed: {line}");
                failures.push(Told::named("a payload's check failed", message));
            }
            // Whatever it took that for: it had nothing before it.
            (_, Outcome::Refused) if complaint.is_some() && vain_for(image) => {
                let message =
                    format!("{} had nothing to check: no memory is mapped", image.payload);
                failures.push(message.into());
            }
            (_, Outcome::Refused) if run.second.is_some() => {
                // The verifier's findings are told, not refused: the first of this run.
                let ran = self
                    .console
                    .iter()
                    .rev()
                    .take_while(|line| !line.starts_with("cxl firmware at ring "));
                let found = ran.filter_map(|line| line.strip_prefix("found: ")).last();
                let refused = || refusal(&run.console, 0).map(|refusal| refusal.message);
                let why = found.map(str::to_owned).or_else(refused);
                let why = why.unwrap_or_else(|| last("it does not say why"));
                let message = format!("our image, run afterwards, refused: {why}");
                failures.push(Told::named("our image, run afterwards, refused", message));
            }
            (_, Outcome::Refused) if refused => {}
            (_, Outcome::Refused) if told && complaint.is_none() => {}
            (_, Outcome::Refused) => {
                let why = complaint.cloned().unwrap_or_else(|| last("it does not say why"));
                failures
                    .push(Told::named("the image gave up", format!("the image gave up: {why}")));
            }
            (_, Outcome::Panicked) => {
                // The place is in the line before the message.
                let place = words.next_back().filter(|line| line.starts_with("panicked at "));
                let place = place.map(|line| format!("{line} ")).unwrap_or_default();
                let what = last("it does not say where");
                let message = format!("the image panicked: {place}{what}");
                failures.push(Told::named("the image panicked", message));
            }
            (_, Outcome::Contradicted) => {
                let message = "the image says that all is well, its checks do not".to_owned();
                failures.push(message.into());
            }
            (end, Outcome::NoStatus) => {
                let message = place(&format_args!("no end of our image: {end}"));
                failures.push(Told::named("no end of our image", message));
            }
        }
        // The first of two images has said its last word before the second one came.
        if run.second.is_some() {
            failures.extend(theirs(&run.first.end, run.first.verdict()).map(Told::from));
        }
        let made = self.checks.passed + self.checks.failed;
        if made == 0 && image.speaker == Speaker::Ours && payload::checks(&image.payload) {
            let list = &image.payload;
            if matches!(image.verdict(), Outcome::Good) {
                failures.push(format!("{list} had nothing to check: no memory is mapped").into());
            }
        }
        let disk = self.disk.iter().flat_map(|disk| disk.hosts.iter().cloned());
        failures.extend(disk.map(Told::from));
        let vain = image.said.announced.iter().filter(|error| !error.happened).count();
        if vain > 0 {
            let errors = counted(vain, "announced internal error");
            failures.push(format!("{errors} of KVM never came").into());
        }
        for event in &self.events {
            let EventLine { at, action, .. } = event;
            match &event.error {
                _ if event.slots.is_none() => {
                    let message = format!(
                        "event at count {at}: {action} never came: the guest did not count so far \
                         (the payload count does)"
                    );
                    failures.push(message.into());
                }
                Some(error) if !event.to_be_refused => {
                    failures.push(format!("event at count {at}: {action}: {error}").into());
                }
                None if event.to_be_refused => {
                    let what = "was to be refused and was not";
                    failures.push(format!("event at count {at}: {action} {what}").into());
                }
                _ => {}
            }
        }
        failures
    }
}

/// Whether our image was to check memory, and no register leads to any.
fn vain_for(image: &ImageRun) -> bool {
    let mapped = || {
        let mappings = mapping::mappings(&image.left.machine.fabric());
        mappings.iter().any(|mapping| matches!(mapping.how, Reach::Direct(_)))
    };
    image.speaker == Speaker::Ours && payload::finds_memory(&image.payload) && !mapped()
}

/// What is wrong, in a sentence.
struct Told {
    /// What it is called where the sentence has what a guest said, or where it was.
    name: Option<&'static str>,
    message: String,
}

impl Told {
    fn named(name: &'static str, message: String) -> Self {
        Self { name: Some(name), message }
    }
}

impl From<String> for Told {
    fn from(message: String) -> Self {
        Self { name: None, message }
    }
}

/// What is wrong with the end of an image that keeps to no protocol of ours. Statuses of failure
/// that it shares with ours are believed, as nobody says of himself without cause that he panicked.
fn theirs(end: &End, outcome: Outcome) -> Option<String> {
    match (end, outcome) {
        (End::Exit(code), Outcome::Refused) => {
            Some(format!("the image ended with status {code:#04x}: refused"))
        }
        (End::Exit(code), Outcome::Panicked) => {
            Some(format!("the image ended with status {code:#04x}: a panic"))
        }
        (End::Reset, _) => Some(format!("it did not end by itself: {end}")),
        _ => None,
    }
}

fn checks(image: &ImageRun) -> Checks {
    let passed = |wanted: bool| {
        let of = |call: &&Call| matches!(call, Call::Check { passed, .. } if *passed == wanted);
        image.said.calls.iter().filter(of).count()
    };
    Checks { passed: passed(true), failed: passed(false) }
}

impl ItsWords {
    fn of(image: &ImageRun) -> Self {
        let Checks { passed, failed } = checks(image);
        let (hand_offs, attack_events) = (image.said.hand_offs, image.said.attack_events);
        let code = image.handed.as_ref().map(|handed| handed.code);
        Self { hand_offs, code, passed, failed, attack_events }
    }
}

impl Report {
    /// The report of a guest run.
    pub fn of_guest(machine: &Machine, run: &GuestRun) -> Self {
        let guest = GuestMeasured::of(machine, run);
        let (GuestRun { first, watched, .. }, last) = (run, run.last_state());
        let foreign = run.foreign();
        let (then, moment) = match &first.handed {
            Some(handed) => (&handed.then, Moment::HandOff),
            None => (&first.left, Moment::End),
        };
        let code = first.handed.as_ref().map_or(0, |handed| handed.code);
        let refusal = refusal(&run.console, code)
            .map(|refusal| if foreign { refusal } else { refusal.said_of(machine.scenario()) })
            .filter(|_| !foreign || first.handed.as_ref().is_some_and(|handed| handed.code != 0));
        let own;
        let traffic = match &first.handed {
            Some(handed) => &handed.traffic,
            None => {
                own = machine.traffic().clone();
                &own
            }
        };
        let bytes = |of: fn(&GuestHandoff) -> &Vec<u8>| {
            first.handed.as_ref().map_or(&[][..], |handed| of(handed).as_slice())
        };
        let left = RunRecord {
            handoff: bytes(|handed| &handed.record),
            cedt: bytes(|handed| &handed.cedt),
            refusal: refusal.as_ref(),
            traffic,
            foreign,
            unfinished: first.handed.is_none() && !matches!(run.last().end, End::Exit(_)),
            asked: run.asked.as_ref(),
        };
        let mut report = Self::at(&then.machine, &left, moment);
        let facts = &mut report.facts;
        if let Some(handed) = &first.handed {
            facts.counted(first, handed);
            facts.mapped(handed);
        }
        for Told { name, message } in guest.failures(run, facts) {
            facts.fail(Finding::failure(Witness::Vmm, Moment::End, message).named(name));
        }
        if let Some(host) = &run.host {
            facts.lost_by(&host.done.handoff);
        }
        facts.newcomers(&last.machine, &guest.events);
        facts.handed_over(machine, &run.passed_wrong);
        let stopped = run.attack.is_some();
        let moment = if stopped { Moment::BeforeAttack } else { Moment::End };
        facts.last = LastState::since(then, last, &moment);
        // An attack asks what is locked: what is not counts, whoever asked for no locks.
        if stopped && foreign {
            facts.violated(&watched.against(Level::Locked, false));
        }
        for (message, until) in &watched.mended {
            let what = format!("no longer true: {message}, until {until}");
            facts.fail(Finding::note(Witness::Registers, Moment::HandOff, what));
        }
        if watched.anything && !(stopped && foreign) {
            for violation in &watched.later {
                let found = Finding { failure: false, ..Finding::from(violation) };
                facts.fail(found);
            }
        }
        for name in &watched.silent {
            let message = format!(
                "{name} has stopped answering since the hand-off: its registers read as all-ones"
            );
            facts.fail(Finding::failure(Witness::Registers, Moment::End, message));
        }
        if let Some(attack) = &run.attack {
            report.facts.set_attack(attack.clone());
        }
        report.measured = Some(super::Measured { run: run.run, guest: Some(guest) });
        report
    }
}

impl Facts {
    /// Holds the library's count of its accesses against the exits.
    fn counted(&mut self, image: &ImageRun, handed: &GuestHandoff) {
        let GuestHandoff { library, counts, unseen, .. } = handed;
        if image.speaker == Speaker::Theirs {
            return;
        }
        let Counts { reads, config, writes, window, window_writes, paired, listed } = *counts;
        let (memory_reads, memory_writes) = (window - window_writes, window_writes);
        // The library counts dwords.
        let delivered = Counted {
            reads: reads + listed - memory_reads,
            config,
            writes: writes + paired - memory_writes,
            memory_reads,
            memory_writes,
        };
        self.counted_in_windows(handed, delivered);
        let Counted { memory_reads, memory_writes, .. } = *library;
        let expected = Counted {
            reads: delivered.reads + unseen,
            config: config + unseen,
            memory_reads,
            memory_writes,
            ..delivered
        };
        if *library != expected {
            let message = format!(
                "the library counted {}, {} of them of configuration space, and {}; KVM delivered {}, \
                 {} and {}",
                counted(library.reads, "read"),
                library.config,
                counted(library.writes, "write"),
                delivered.reads,
                delivered.config,
                delivered.writes
            );
            self.fail(Finding::failure(Witness::Kvm, Moment::HandOff, message));
        }
    }

    /// Holds the library's count of its accesses to memory against the exits: all of them exit where
    /// nothing is mirrored, none where everything is, and never more than were made.
    fn counted_in_windows(&mut self, handed: &GuestHandoff, delivered: Counted) {
        let of = |counted: Counted| (counted.memory_reads, counted.memory_writes);
        let (made, came) = (of(handed.library), of(delivered));
        // After a refusal what was mirrored meanwhile may be gone.
        let settled = self.refusal.is_none();
        let slots = &handed.then.slots;
        let right = match () {
            // What was there for a time, and given up, took some of them.
            () if !slots.mirrors || settled && slots.memory.is_empty() && slots.calls == 0 => {
                came == made
            }
            // What was lost may never have been mirrored, and was asked all the same.
            () if settled
                && slots.without.is_empty()
                && !slots.memory.is_empty()
                && !self.findings.iter().any(Finding::is_loss) =>
            {
                came == (0, 0)
            }
            () => came.0 <= made.0 && came.1 <= made.1,
        };
        if !right {
            let message = format!(
                "the library counted {} of memory in windows and {}; KVM delivered {} and {}",
                counted(made.0, "read"),
                counted(made.1, "write"),
                came.0,
                came.1
            );
            self.fail(Finding::failure(Witness::Kvm, Moment::HandOff, message));
        }
    }

    /// Holds what KVM was told against what the registers ask for, and both against what the
    /// firmware says that it made: a slot lies in a region, and a region has a slot or a reason.
    fn mapped(&mut self, handed: &GuestHandoff) {
        let slots = &handed.then.slots;
        let mut failures: Vec<(Witness, String)> =
            handed.astray.iter().map(|astray| (Witness::Memory, astray.clone())).collect();
        if slots.told != slots.asked {
            let (told, asked) = (&slots.told, &slots.asked);
            let words = format!("KVM maps {told:x?}, the registers ask for {asked:x?}");
            failures.push((Witness::Kvm, words));
        }
        let meets = |hpa: u64, size: u64, base: u64, length: u64| {
            hpa < base.saturating_add(length) && base < hpa.saturating_add(size)
        };
        let checked = !self.foreign && self.refusal.is_none();
        for &(base, size) in slots.memory.iter().filter(|_| checked) {
            let inside = self.regions.iter().any(|region| {
                region.hpa <= base && base + size <= region.hpa.saturating_add(region.size)
            });
            if !inside {
                let words = format!("the slot at {base:#x} lies in no region that was recorded");
                failures.push((Witness::Kvm, words));
            }
        }
        for region in self.regions.iter().filter(|_| checked) {
            let (hpa, size) = (region.hpa, region.size);
            let mut places = slots.memory.iter().chain(&slots.without);
            if !places.any(|&(base, length)| meets(hpa, size, base, length)) {
                let words = format!("the region at {hpa:#x} has no slot, and no reason for it");
                failures.push((Witness::Kvm, words));
            }
        }
        for (witness, words) in failures {
            self.fail(Finding::failure(witness, Moment::HandOff, words));
        }
    }

    /// Devices that came while the guest ran, on a machine whose paths are all to be locked.
    fn newcomers(&mut self, machine: &Machine, events: &[EventLine]) {
        if self.foreign || machine.scenario().policy.path != PathPolicy::LockAll {
            return;
        }
        let protection = crate::locks::Protection::of(machine);
        for event in events.iter().filter(|event| event.result == "done") {
            let Some(device) = event.came else { continue };
            let place = Place::Device(device);
            let locked = protection.locked.iter().any(|at| at.place == place);
            if machine.present(device) && !locked {
                let message = format!(
                    "{} came at count {} and no decoder of it is locked, on a machine of path 1: \
                     nothing there keeps the guest from programming it",
                    machine.name(place),
                    event.at
                );
                self.fail(Finding::note(Witness::Registers, Moment::End, message));
            }
        }
    }
}

/// The refusal that the guest printed last: `refused: PHASE: WORDS`.
fn refusal(console: &[u8], code: u16) -> Option<Refusal> {
    let text = String::from_utf8_lossy(console);
    let words = text.lines().rev().find_map(|line| line.strip_prefix("refused: "));
    if words.is_none() && code == 0 {
        return None;
    }
    // It says what may stand there, which may be long.
    let words = cut(words.unwrap_or("image: it does not say why"), MOST_CHARACTERS);
    let (phase, message) = words.split_once(": ").unwrap_or(("image", &words));
    Some(Refusal { phase: phase.to_owned(), code, message: message.to_owned() })
}

fn events(machine: &Machine, run: &GuestRun) -> Vec<EventLine> {
    let came = |action| match action {
        Action::HotAdd { device } => Some(device),
        Action::HotRemove { .. } | Action::Reset { .. } => None,
    };
    let happened = run.happened.iter().map(|happened| EventLine {
        at: happened.event.at,
        action: machine.words(happened.event.action),
        result: if happened.result.is_ok() { "done" } else { "refused" },
        error: happened.result.err().map(|error| PlugText(machine, error).to_string()),
        slots: Some(happened.slots),
        to_be_refused: happened.event.refused,
        came: came(happened.event.action),
    });
    let pending = run.pending.iter().map(|event| EventLine {
        at: event.at,
        action: machine.words(event.action),
        result: "not due",
        error: None,
        slots: None,
        to_be_refused: event.refused,
        came: None,
    });
    happened.chain(pending).collect()
}

/// What KVM was told about CXL memory since the hand-off.
fn slot_calls(run: &GuestRun) -> Kept<String, MOST_CALLS> {
    // Pages of plain memory behind BARs come and go with their BARs; windows lie apart from them.
    let memory = |base: u64| {
        run.mirror
            .mappings
            .iter()
            .any(|mapping| mapping.hpa.0 <= base && base - mapping.hpa.0 < mapping.size)
    };
    // Without a hand-off all of them are of interest.
    let before = run.first.handed.as_ref().map_or(0, |handed| handed.then.slots.calls);
    let calls = run.slot_log.iter().skip(before);
    let words = calls.filter_map(|call| match *call {
        SlotCall::Add { base, size } if memory(base) => {
            Some(format!("{base:#018x}  {} added", Size(size)))
        }
        SlotCall::Remove { base } if memory(base) => Some(format!("{base:#018x}  removed")),
        _ => None,
    });
    let mut kept: Kept<String, MOST_CALLS> = words.collect();
    // What the log does not have may be of CXL memory or not.
    kept.pass(run.slot_log.more());
    kept
}

/// A line of a console that may hold anything: its first columns, without controls.
fn shown(line: &str) -> String {
    cut(line, CONSOLE_COLUMNS)
}

fn cut(line: &str, most: usize) -> String {
    let clean = line.trim_end().chars().map(|c| if c.is_control() { '.' } else { c });
    clean.take(most).collect()
}

/// The last lines of a console.
fn console(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let mut room = CONSOLE_BYTES;
    let lines = text.lines().rev().take(CONSOLE_LINES).map(shown).take_while(|line| {
        // An empty one takes its place in the list.
        room = room.saturating_sub(line.len().max(16));
        room > 0
    });
    let mut lines: Vec<String> = lines.collect();
    lines.reverse();
    lines
}

impl Display for GuestMeasured {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        fact(f, "kvm", &self.kvm)?;
        // Our image's own statuses are told in words; whatever else one means is for whoever made it to say.
        if self.then.is_some() || self.its_words.is_some() || !matches!(self.end, End::Exit(_)) {
            fact(f, "end", &self.end)?;
        }
        if let Some(then) = &self.then {
            fact(f, "then, our image", then)?;
        }
        match self.handoff {
            Some(time) => {
                let (exits, ms) = (counted(self.exits, "exit"), time.as_secs_f64() * 1e3);
                let without = match self.without_exit {
                    0 => String::new(),
                    reads => format!("; {} left none", counted(reads, "read")),
                };
                fact(f, "firmware", format_args!("done after {ms:.1} ms and {exits}{without}"))?;
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
        let hidden = lines.len().saturating_sub(CONSOLE_SHOWN);
        for (index, line) in lines.iter().skip(hidden).enumerate() {
            fact(f, if index == 0 { "console" } else { "" }, line)?;
        }
        if hidden > 0 {
            fact(f, "", format_args!("({} before these in --json)", counted(hidden, "line")))?;
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
        if let Some(words) = self.its_words.filter(|words| *words != ItsWords::default()) {
            let ItsWords { hand_offs, code, passed, failed, attack_events } = words;
            let mut said = Vec::new();
            if hand_offs > 0 {
                let code = code.unwrap_or(0);
                let times = match hand_offs {
                    1 => "once".to_owned(),
                    times => format!("{times} times"),
                };
                said.push(format!("\"handed over\" {times}, first with code {code:#06x}"));
            }
            if passed + failed > 0 {
                let passed = counted(passed, "check");
                said.push(format!("{passed} \"passed\", {failed} \"failed\""));
            }
            if attack_events > 0 {
                said.push(format!("{} of an \"attack\"", counted(attack_events, "event")));
            }
            let said = said.join("; ");
            fact(f, "its own words", format_args!("{said} (nobody has checked them)"))?;
        }
        for InternalError { happened, resume, slots } in self.internal_errors.iter().take(SHOWN) {
            let what = if *happened { "came as announced" } else { "was announced and never came" };
            fact(
                f,
                "internal error",
                format_args!(
                    "KVM exit 17, suberror 1 {what}, with {} mirrored; the guest goes on at \
                     {resume:#x}",
                    counted(slots, "range")
                ),
            )?;
        }
        let more = self.internal_errors.len().saturating_sub(SHOWN) as u64;
        more_of(f, more + self.left_out.internal_errors)?;
        for EventLine { at, action, result, error, slots, .. } in &self.events {
            let why = error.as_ref().map(|error| format!(", {error}")).unwrap_or_default();
            let then = slots.map(|slots| format!("; mirrored ranges: {slots}")).unwrap_or_default();
            fact(f, "event", format_args!("at count {at}, {action}: {result}{why}{then}"))?;
        }
        for line in self.transfers.iter().take(SHOWN) {
            let TransferLine { channel, direct, bounced, together, error } = line;
            let error = error.as_ref().map(|error| format!("; {error}")).unwrap_or_default();
            fact(
                f,
                "DMA",
                format_args!(
                    "channel {channel}, {together} in flight: {} direct, {bounced} bounced{error}",
                    counted(direct, "byte")
                ),
            )?;
        }
        let more = self.transfers.len().saturating_sub(SHOWN) as u64 + self.left_out.transfers;
        more_of(f, more)?;
        if let Some(disk) = &self.disk {
            fact(f, "disk", disk)?;
            for trouble in disk.troubles.iter().take(SHOWN) {
                fact(f, "disk", trouble)?;
            }
            let left = disk.troubles.len().saturating_sub(SHOWN) as u64;
            more_of(f, left + disk.more_troubles)?;
        }
        // A few tell what happened; hundreds are an attack's or a test's, and tell nothing one by one.
        let LeftOut { slot_calls: more, .. } = self.left_out;
        let calls = self.slot_calls.len() as u64 + more;
        if calls > SHOWN as u64 {
            let which = if more > 0 { "the first ones" } else { "one by one" };
            let text = format_args!("{calls} slots added or removed ({which} in --json)");
            return fact(f, "slots, later", text);
        }
        self.slot_calls.iter().try_for_each(|call| fact(f, "slot, later", call))
    }
}

/// How much of a list is not shown.
fn more_of(f: &mut Formatter<'_>, more: u64) -> fmt::Result {
    if more == 0 { Ok(()) } else { fact(f, "", format_args!("and {more} more")) }
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
        let ticks = timing::ticks_per_nanosecond();
        let lines = f64::from(16u32 << 20) / 64.0;
        let mirrored = timing::median(pairs(Figure::Sweep).map(|(a, _)| a).collect());
        let ram = timing::median(pairs(Figure::Sweep).map(|(_, b)| b).collect());
        let ratio = timing::median(pairs(Figure::Sweep).map(|(a, b)| a / b).collect());
        let trapped = timing::median(pairs(Figure::Trapped).map(|(a, _)| a).collect());
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
