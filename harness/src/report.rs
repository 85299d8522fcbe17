//! The report of a run: what the firmware found, decided and left, as facts that people read, that
//! programs read, and that snapshots hold.
//!
//! **Invariant**: [`Facts`] follow from the scenario, the registers of the machine and the bytes
//! that the firmware left behind, and from nothing else: a direct run and a guest run of one
//! scenario have the same. What varies from run to run is [`Measured`].

mod cedt;
mod decoders;
mod findings;
mod guest;
mod last;
mod lines;
mod locks;
mod opinion;
mod passed;
mod peer;
mod picture;
mod plan;
mod seen;
mod svg;
mod text;
mod topology;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use cxl_firmware::Error;
use cxl_firmware::committed::Fate;
use cxl_firmware::handoff;
use cxl_firmware::mmio::{Clock, Mmio};
use cxl_image::words::Words;

use crate::attack;
use crate::kvm::End;
use crate::locks::Protection;
use crate::run::{self, DirectRun, Tables};
use crate::vigil::{self, Moment};
use cxl_model::device::hdm::Misuse;
use cxl_model::dump::facts::hex;
use cxl_model::fabric::Fabric;
use cxl_model::layout::AddressMap;
use cxl_model::machine::Machine;
use cxl_model::mapping::{self, Reach, ReasonText};
use cxl_model::scenario::Scenario;
use cxl_model::trace::{self, Count};
use cxl_model::words::counted;
use findings::Findings;

pub use cedt::Cedt;
pub use decoders::Decoder;
pub use findings::{Finding, Witness};
pub use guest::{Checks, Cost, EventLine, GuestMeasured, InternalError, NoSlot, TransferLine};
pub use last::{LastState, SlotRange};
pub(crate) use lines::fact;
pub use locks::{Locks, Required, Requirement};
pub(crate) use opinion::name;
pub use passed::Passed;
pub use peer::{Field, LockAttack, Peer, Verifier};
pub use plan::PlanReport;
pub use seen::{Loss, Seen, Stop, StopAt};
pub use svg::Svg;
pub use topology::{Component, Kind, Policy, Window};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The firmware did what was asked, and every check agrees.
    Ok,
    /// The firmware refused.
    Refused,
    /// The firmware was content, and a check is not.
    Failed,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
        })
    }
}

/// Why the firmware stopped, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Refusal {
    /// The phase, in a word.
    pub phase: String,
    /// The stable number of the error.
    #[serde(serialize_with = "code")]
    #[schemars(with = "String")]
    pub code: u16,
    /// One sentence.
    pub message: String,
}

impl Refusal {
    /// The same in the words of the scenario, where they are to blame.
    pub(crate) fn said_of(mut self, scenario: &Scenario) -> Self {
        if let Some(words) = run::in_scenario_words(scenario, &self.message) {
            self.message = words;
        }
        self
    }
}

impl From<&run::Refusal> for Refusal {
    fn from(refusal: &run::Refusal) -> Self {
        let message = refusal.to_string();
        let phase = refusal.phase().to_owned();
        // Its words start with the phase, which is said already.
        let message = message.strip_prefix(&format!("{phase}: ")).unwrap_or(&message).to_owned();
        Self { phase, code: refusal.code(), message }
    }
}

/// What a run left behind besides registers; a guest's lies in its memory.
#[derive(Clone, Copy, Debug)]
pub struct RunRecord<'a> {
    /// The hand-off record; empty if there is none.
    pub handoff: &'a [u8],
    /// The CEDT; empty if there is none.
    pub cedt: &'a [u8],
    /// Why the firmware stopped.
    pub refusal: Option<&'a Refusal>,
    /// The library's register accesses, and nobody else's.
    pub traffic: &'a trace::Traffic,
    /// Somebody else's firmware ran, which leaves no record.
    pub foreign: bool,
    /// The firmware was stopped on its way: what it has not done yet is no failure of its own.
    pub unfinished: bool,
    /// What it was asked for, where it has a command line; else what the scenario says.
    pub asked: Option<&'a Words>,
}

/// A machine of any make, as a report wants it.
#[derive(Clone, Copy, Debug)]
pub struct MachineView<'a> {
    /// What it is called and what was asked for.
    pub scenario: &'a Scenario,
    /// Where its RAM and windows are.
    pub map: &'a AddressMap,
    /// Its registers.
    pub fabric: &'a Fabric,
    /// The platform as its tables tell it.
    pub platform: &'a Result<Tables, Error>,
}

/// A range of addresses that leads to memory on every path.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Region {
    /// Name of its window.
    pub window: String,
    /// First address.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub hpa: u64,
    /// Bytes.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub size: u64,
    /// Devices that share it.
    pub ways: u32,
    /// Bytes that go to one of them before it is the next one's turn.
    pub granularity: u64,
    /// Who keeps it coherent.
    pub coherency: &'static str,
    /// `volatile` or `persistent`.
    pub memory: String,
    /// Every decoder on every path is locked.
    pub locked: bool,
    /// What the firmware asked of the memory itself: `held` its marks, `read` only, or `no`thing.
    pub probed: &'static str,
    /// The devices behind it in order of position; empty if the registers do not lead there.
    pub members: Vec<Member>,
}

/// A device's part of a range.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Member {
    /// Name of the device.
    pub device: String,
    /// Its decoder.
    pub decoder: u8,
    /// The device's own address of the first byte.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub dpa: u64,
    /// The kind of memory there; `None` if the range is not within one.
    pub memory: Option<&'static str>,
}

/// A range of a window, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Mapping {
    /// Name of the window.
    pub window: String,
    /// First address; 0 if the window has no place.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub hpa: u64,
    /// Bytes.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub size: u64,
    /// `direct`: every byte is a byte of one device. `trapped`: each access has to be looked at.
    pub how: &'static str,
    /// The first condition for `direct` that does not hold, as a name that does not change.
    pub reason: Option<&'static str>,
    /// The same as a sentence.
    pub message: Option<String>,
    /// Ways of a direct range.
    pub ways: Option<u32>,
    /// Granularity of a direct range.
    pub granularity: Option<u64>,
    /// The devices behind a direct range in order of position.
    pub members: Vec<Member>,
}

/// Reads and writes.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Traffic {
    /// All reads of registers.
    pub reads: u64,
    /// All writes.
    pub writes: u64,
    /// Accesses of a wrong width or alignment, which reached nothing.
    pub dropped: u64,
    /// Those of HDM decoders.
    pub decoders: Vec<DecoderTraffic>,
}

/// Reads and writes of one decoder.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct DecoderTraffic {
    /// Name of the component.
    pub component: String,
    /// Its decoder.
    pub index: u8,
    /// Reads of its seven registers.
    pub reads: u64,
    /// Writes to them.
    pub writes: u64,
    /// The same, by what the decoder had been through when they came.
    pub stages: Stages,
}

/// The traffic of one decoder, in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema, Serialize)]
pub struct Stages {
    /// Before anything was written to it.
    pub found: Count,
    /// Up to the write that sets Commit.
    pub program: Count,
    /// That write, and the reads up to the one that shows how the commit ended.
    pub commit: Count,
    /// Taking it back to make it again with the lock.
    pub lock: Count,
    /// Everything after it.
    pub after: Count,
}

/// What the firmware ran in.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(tag = "ran", rename_all = "kebab-case")]
pub enum Runner {
    /// A KVM guest.
    Guest,
    /// The device models, by function calls in this process.
    Models {
        /// Why not a guest.
        #[serde(rename = "ran_why")]
        why: String,
        /// What was asked for and takes a guest.
        #[serde(rename = "left_out")]
        left_out: Vec<String>,
    },
}

/// What is true of every run of a scenario.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Facts {
    /// How it ended.
    pub result: Verdict,
    /// The scenario.
    pub scenario: String,
    /// What it is about.
    pub description: String,
    /// What the firmware ran in, where somebody asked for a guest or could have.
    #[serde(flatten)]
    pub ran: Option<Runner>,
    /// Somebody else's image programmed the machine.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
    /// Why the firmware stopped.
    pub refusal: Option<Refusal>,
    /// What was demanded of the locks, and whether it was met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<Required>,
    /// What was asked for.
    pub policy: Policy,
    /// The machine, parents before children.
    pub topology: Vec<Component>,
    /// Its windows.
    pub windows: Vec<Window>,
    /// The registers at the hand-off, and what pictures show besides.
    #[serde(skip)]
    pub seen: Seen,
    /// Decoders in use, and those that the firmware had to do with; spare ones are left out.
    pub decoders: Vec<Decoder>,
    /// What the firmware says that it made.
    pub regions: Vec<Region>,
    /// What the registers say.
    pub mappings: Vec<Mapping>,
    /// The table for the operating system.
    pub cedt: Option<Cedt>,
    /// What the locks protect, by the models' registers; `None` for devices that are not ours.
    pub locks: Option<Locks>,
    /// Everything that was seen, by whom and when; failures among it.
    pub findings: Vec<Finding>,
    /// The library's accesses to registers.
    pub traffic: Traffic,
    /// The attack on the locks, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attack: Option<attack::Report>,
    /// The machine in the end, or as the attack found it, where it is not as it was handed over.
    #[serde(rename = "final", skip_serializing_if = "Option::is_none")]
    pub last: Option<LastState>,
    /// The command that tells every write of the attack.
    #[serde(skip)]
    pub repeat: Option<String>,
    /// What there is to say of devices that are not ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
    /// Devices that were handed over from hardware.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<Passed>,
}

/// What varies from run to run.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Measured {
    /// How long the firmware ran, in microseconds.
    #[serde(rename = "run_us", serialize_with = "microseconds")]
    #[schemars(with = "u64")]
    pub run: Duration,
    /// What a guest adds.
    pub guest: Option<GuestMeasured>,
}

impl Measured {
    /// Whether Ctrl-C ended the run.
    pub fn interrupted(&self) -> bool {
        let ended = |guest: &GuestMeasured| {
            guest.end == End::Interrupted || guest.then == Some(End::Interrupted)
        };
        self.guest.as_ref().is_some_and(ended)
    }
}

/// A run's output.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Report {
    /// What every run has alike.
    #[serde(flatten, serialize_with = "with_failures")]
    #[schemars(with = "Shown<'static>")]
    pub facts: Facts,
    /// What this one took.
    pub measured: Option<Measured>,
}

impl Facts {
    /// Adds the attack on the locks. A breach is a failure, and so is an attack that had no locked
    /// range to lead elsewhere, or that was cut off: nothing was shown to hold.
    pub fn set_attack(&mut self, report: attack::Report) {
        let mut fail = |message: String| {
            self.fail(Finding::failure(Witness::Attack, Moment::End, message));
        };
        for wrong in report.wrong() {
            fail(format!("of the attack {wrong}"));
        }
        if report.integrity.ranges == 0 {
            fail(match report.integrity.open.len() {
                0 => "the attack had nothing to hold: no range is locked".to_owned(),
                _ => "the attack had nothing to hold: no locked range is sealed".to_owned(),
            });
        }
        if !report.integrity.complete {
            fail(report.cut_off());
        }
        // What an attack that was cut off had not come to is told by where it ended.
        for mode in report.not_tried.iter().filter(|_| report.integrity.complete) {
            fail(format!("the attack did not come to be {mode}"));
        }
        self.attack = Some(report);
    }

    /// Adds what is wrong with the files that persistent memory is kept in.
    pub fn unsaved(&mut self, troubles: &[String]) {
        for trouble in troubles {
            self.fail(Finding::failure(Witness::Memory, Moment::End, trouble.clone()));
        }
    }

    /// Adds devices that were handed over from hardware, and what is wrong with them.
    fn handed_over(&mut self, machine: &Machine, wrong: &[String]) {
        self.passed = passed::ranges(machine);
        passed::failures(wrong).for_each(|finding| self.fail(finding));
    }

    /// What makes the run a bad one, in sentences.
    pub fn failures(&self) -> Vec<String> {
        let counting = self.findings.iter().filter(|finding| finding.counts());
        counting.map(Finding::sentence).collect()
    }

    /// Whether all that makes the run a bad one is what the firmware had to give up.
    pub fn only_lost(&self) -> bool {
        self.findings.iter().filter(|finding| finding.counts()).all(Finding::is_loss)
    }

    /// Adds what firmware had to give up by a record that is another than the one that was looked at.
    fn lost_by(&mut self, record: &[u8]) {
        let Ok(record) = handoff::read(record) else { return };
        let mut found = Findings::at(Moment::BeforeStart);
        found.lost(&record);
        for loss in found.list {
            if !self.findings.iter().any(|known| known.message == loss.message) {
                self.fail(loss);
            }
        }
    }

    /// Adds what was seen, and lets a failure count.
    pub(crate) fn fail(&mut self, found: Finding) {
        if found.counts() && self.result == Verdict::Ok {
            self.result = Verdict::Failed;
        }
        findings::add(&mut self.findings, found);
    }
}

impl Report {
    /// The report of a run that left a machine in this state.
    ///
    /// The verifier of the library goes over a copy of the machine once more, which is counted
    /// nowhere and changes nothing.
    pub fn of(machine: &Machine, left: &RunRecord<'_>) -> Self {
        Self::at(machine, left, Moment::HandOff)
    }

    /// The same of a machine at another moment than the hand-off.
    pub(super) fn at(machine: &Machine, left: &RunRecord<'_>, moment: Moment) -> Self {
        let (scenario, map) = (machine.scenario(), machine.map());
        let (fabric, platform) = (machine.fabric(), run::platform(machine));
        let seen = MachineView { scenario, map, fabric: &fabric, platform: &platform };
        let mut copy = machine.frozen();
        let mut clock = copy.clock();
        let mut report = Self::seen_at(&seen, &mut copy, &mut clock, left, moment.clone());
        // What the verifier found may be what its look did: a lock that goes when it is read is none.
        let locks = Locks::of(&copy);
        let facts = &mut report.facts;
        for message in opinion::decode(machine, &facts.regions) {
            facts.fail(Finding::failure(Witness::Memory, moment.clone(), message));
        }
        for violation in vigil::violations(machine, &Protection::of(machine), &moment) {
            if let Some((locked, open)) = violation.mixed {
                // Of what a loss left behind that says all.
                let follows = facts.findings.iter().any(Finding::is_loss)
                    && [Some(locked), open].into_iter().flatten().any(|at| {
                        let name = machine.name(at.place);
                        let mut known = facts.decoders.iter();
                        known.any(|it| {
                            (it.component.as_str(), it.text.index) == (name, at.index)
                                && it.fate == Some(Fate::Stranded)
                        })
                    });
                let moot = left.refusal.is_some() || left.unfinished && !left.foreign || follows;
                facts.fail(Finding { moot, ..Finding::from(&violation) });
            }
        }
        for (place, misuse) in machine.misuse() {
            let Misuse { changed_while_committed, written_during_commit } = misuse;
            let parts = [
                (changed_while_committed, "committed and not locked, changed"),
                (written_during_commit, "written to while a commit was under way"),
            ];
            let parts = parts.iter().filter(|(times, _)| *times > 0);
            let parts = parts.map(|(times, what)| format!("{what} ({})", counted(times, "time")));
            let message = format!(
                "decoders of {}: {}; the specification leaves undefined what comes of it",
                machine.name(place),
                parts.collect::<Vec<_>>().join(", ")
            );
            facts.fail(Finding::note(Witness::Registers, moment.clone(), message));
        }
        let asked = opinion::wants_memory(machine, left.asked);
        let done = left.refusal.is_none() && !left.foreign && !left.unfinished;
        if asked && done && facts.regions.is_empty() {
            let message = "no region was made: the machine has no CXL memory to map";
            facts.fail(Finding::failure(Witness::Registers, moment, message));
        }
        facts.seen.sealed_by(&copy);
        facts.locks = Some(locks);
        report
    }

    /// The report of any machine; the verifier reaches it through `hw`.
    pub fn seen(
        seen: &MachineView<'_>,
        hw: &mut impl Mmio,
        clock: &mut impl Clock,
        left: &RunRecord<'_>,
    ) -> Self {
        Self::seen_at(seen, hw, clock, left, Moment::HandOff)
    }

    fn seen_at(
        seen: &MachineView<'_>,
        hw: &mut impl Mmio,
        clock: &mut impl Clock,
        left: &RunRecord<'_>,
        moment: Moment,
    ) -> Self {
        let MachineView { scenario, map, fabric, .. } = *seen;
        let mut findings = Findings::at(moment);
        let record = decoders::record(left, &mut findings);
        // Of somebody else's firmware the registers are shown, not its word for them.
        let shown = if left.foreign { None } else { record.as_ref() };
        let mut decoders = decoders::decoders(scenario, fabric, record.as_ref(), &mut findings);
        if left.foreign && record.is_some() {
            decoders = decoders::decoders(scenario, fabric, None, &mut Findings::at(Moment::End));
        }
        let mappings = mapping::mappings(fabric);
        let regions = decoders::regions(map, fabric, shown, &mappings);
        // What follows from a loss is told after it.
        if let (Some(record), None) = (shown, left.refusal) {
            findings.lost(record);
        }
        opinion::of(seen, hw, clock, left, shown, &mut findings);
        decoders::regions_lead_to_memory(fabric, &regions, &mappings, &mut findings);
        let mut picture = Seen::of(fabric.clone());
        picture.ram = map.ram.iter().map(|span| (span.base().0, span.size())).collect();
        picture.recorded(scenario, shown);
        if let Some(refusal) = left.refusal {
            picture.stopped(scenario, map, &refusal.message);
            // Nothing came to be needed.
            picture.lost.retain(|_, loss| *loss != Loss::Unused);
        }
        picture.decided(&decoders);
        let findings = findings.list;
        let failed = findings.iter().any(Finding::counts);
        let facts = Facts {
            result: match (left.refusal, failed) {
                (Some(_), _) => Verdict::Refused,
                (None, false) => Verdict::Ok,
                (None, true) => Verdict::Failed,
            },
            scenario: scenario.name.clone(),
            description: scenario.description.clone(),
            ran: None,
            repeat: None,
            foreign: left.foreign,
            refusal: left.refusal.cloned(),
            required: None,
            policy: Policy::of(&scenario.policy),
            topology: topology::components(scenario),
            windows: topology::windows(scenario, map),
            seen: picture,
            decoders,
            regions,
            mappings: mappings.iter().map(|mapping| Mapping::of(fabric, mapping)).collect(),
            cedt: Cedt::of(scenario, left.cedt),
            locks: None,
            findings,
            traffic: Traffic::of(scenario, left.traffic),
            attack: None,
            last: None,
            peer: None,
            passed: Vec::new(),
        };
        Self { facts, measured: None }
    }

    /// The report of a direct run.
    pub fn of_direct(machine: &Machine, done: &DirectRun) -> Self {
        let refusal = done.refusal.as_ref().map(Refusal::from);
        let DirectRun { handoff, cedt, .. } = done;
        let left = RunRecord {
            handoff,
            cedt,
            refusal: refusal.as_ref(),
            traffic: machine.traffic(),
            foreign: false,
            unfinished: false,
            asked: None,
        };
        let mut report = Self::of(machine, &left);
        report.facts.handed_over(machine, &done.passed_wrong);
        report
    }
}

impl Mapping {
    fn of(fabric: &Fabric, mapping: &mapping::Mapping) -> Self {
        let window = fabric.windows.get(mapping.window);
        let members = match &mapping.how {
            Reach::Direct(direct) => Member::of(fabric, direct, mapping.hpa),
            Reach::Trapped { .. } => Vec::new(),
        };
        let (direct, reason) = match &mapping.how {
            Reach::Direct(direct) => (Some(direct.interleave()), None),
            Reach::Trapped { reason } => (None, Some(*reason)),
        };
        Self {
            window: window.map(|window| window.name.clone()).unwrap_or_default(),
            hpa: mapping.hpa.0,
            size: mapping.size,
            how: if direct.is_some() { "direct" } else { "trapped" },
            reason: reason.map(mapping::Reason::name),
            message: reason.map(|reason| ReasonText(fabric, reason).to_string()),
            ways: direct.map(|direct| direct.ways.count()),
            granularity: direct.map(|direct| direct.granularity.bytes()),
            members,
        }
    }
}

impl Member {
    /// The members of a direct range; `hpa` is its first address.
    fn of(fabric: &Fabric, direct: &mapping::Direct, hpa: cxl_regs::Hpa) -> Vec<Self> {
        let set = direct.interleave();
        let offset = set.dpa_offset(hpa.0.saturating_sub(direct.base.0));
        let member = |member: &mapping::Member| {
            let device = fabric.devices.get(member.device);
            let dpa = member.dpa.0.saturating_add(offset);
            Self {
                device: device.map(|device| device.name.clone()).unwrap_or_default(),
                decoder: member.decoder,
                dpa,
                memory: device.map(|device| match dpa < device.volatile {
                    true => "volatile",
                    false => "persistent",
                }),
            }
        };
        direct.members.iter().map(member).collect()
    }
}

impl Traffic {
    fn of(scenario: &Scenario, traffic: &trace::Traffic) -> Self {
        let decoders = traffic.decoders.iter().map(|(&(place, index), count)| {
            let &trace::DecoderCount { found, program, commit, lock, .. } = count;
            let after = count.after();
            DecoderTraffic {
                component: scenario.name_of(place).to_owned(),
                index,
                reads: count.all().reads,
                writes: count.all().writes,
                stages: Stages { found, program, commit, lock, after },
            }
        });
        Self {
            reads: traffic.all.reads,
            writes: traffic.all.writes,
            dropped: traffic.ragged,
            decoders: decoders.collect(),
        }
    }
}

pub(crate) fn address<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex(*value))
}

pub(crate) fn maybe_address<S: Serializer>(
    value: &Option<u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.map(hex).serialize(serializer)
}

fn code<S: Serializer>(value: &u16, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{value:#06x}"))
}

fn microseconds<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(value.as_micros()).unwrap_or(u64::MAX))
}

/// The facts, and the failures among the findings as a list of sentences.
#[derive(JsonSchema, Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    facts: &'a Facts,
    failures: Vec<String>,
    notes: Vec<String>,
}

fn with_failures<S: Serializer>(facts: &Facts, to: S) -> Result<S::Ok, S::Error> {
    let notes = facts.findings.iter().filter(|finding| !finding.failure);
    let notes = notes.map(Finding::sentence).collect();
    Shown { facts, failures: facts.failures(), notes }.serialize(to)
}
