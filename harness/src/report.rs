//! The report of a run: what the firmware found, decided and left, as facts that people read, that
//! programs read, and that snapshots hold.
//!
//! **Invariant**: [`Facts`] follow from the scenario, the registers of the machine and the bytes
//! that the firmware left behind, and from nothing else: a direct run and a guest run of one
//! scenario have the same. What varies from run to run is [`Measured`].

mod cedt;
mod decoders;
mod guest;
mod opinion;
mod peer;
mod picture;
mod plan;
mod svg;
mod text;
mod topology;

use std::time::Duration;

use serde::{Serialize, Serializer};

use cxl_firmware::acpi::PlatformError;
use cxl_firmware::mmio::{Clock, Mmio};

use crate::attack;
use crate::dump::facts::hex;
use crate::fabric::Fabric;
use crate::kvm::End;
use crate::layout::AddressMap;
use crate::machine::Machine;
use crate::mapping::{self, How, ReasonText};
use crate::run::{self, Done, Tables};
use crate::scenario::Scenario;
use crate::trace::{self, Count};

pub use cedt::Cedt;
pub use decoders::Decoder;
pub use guest::{
    Checks, Cost, EventLine, GuestMeasured, InternalError, NoSlot, SlotRange, TransferLine,
};
pub use peer::{Field, LockAttack, Peer, Verifier};
pub use plan::PlanReport;
pub use svg::Svg;
pub use topology::{Component, Kind, Policy, Window};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The phase, in a word.
    pub phase: String,
    /// The stable number of the error.
    #[serde(serialize_with = "code")]
    pub code: u16,
    /// One sentence.
    pub message: String,
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
pub struct Left<'a> {
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
}

/// A machine of any make, as a report wants it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// What it is called and what was asked for.
    pub scenario: &'a Scenario,
    /// Where its RAM and windows are.
    pub map: &'a AddressMap,
    /// Its registers.
    pub fabric: &'a Fabric,
    /// The platform as its tables tell it.
    pub platform: &'a Result<Tables, PlatformError>,
}

/// A finding of the verifier, which looks at the machine again after the firmware is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The stable number of the finding.
    #[serde(serialize_with = "code")]
    pub code: u16,
    /// Whether it is a failure, or just worth knowing.
    pub failure: bool,
    /// One sentence.
    pub message: String,
}

/// A range of addresses that leads to memory on every path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Region {
    /// Name of its window.
    pub window: String,
    /// First address.
    #[serde(serialize_with = "address")]
    pub hpa: u64,
    /// Bytes.
    #[serde(serialize_with = "address")]
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
    /// The devices behind it in order of position; empty if the registers do not lead there.
    pub members: Vec<Member>,
}

/// A device's part of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Name of the device.
    pub device: String,
    /// Its decoder.
    pub decoder: u8,
    /// The device's own address of the first byte.
    #[serde(serialize_with = "address")]
    pub dpa: u64,
    /// The kind of memory there; `None` if the range is not within one.
    pub memory: Option<&'static str>,
}

/// A range of a window, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mapping {
    /// Name of the window.
    pub window: String,
    /// First address; 0 if the window has no place.
    #[serde(serialize_with = "address")]
    pub hpa: u64,
    /// Bytes.
    #[serde(serialize_with = "address")]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Stages {
    /// Before anything was written to it.
    pub found: Count,
    /// Up to the write that sets Commit.
    pub program: Count,
    /// That write, and the reads up to the one that shows how the commit ended.
    pub commit: Count,
    /// Everything after it.
    pub after: Count,
}

/// What is true of every run of a scenario.
#[derive(Debug, Serialize)]
pub struct Facts {
    /// How it ended.
    pub result: Verdict,
    /// The scenario.
    pub scenario: String,
    /// What it is about.
    pub description: String,
    /// Somebody else's image programmed the machine.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
    /// Why the firmware stopped.
    pub refusal: Option<Refusal>,
    /// What the checks of the harness hold against a run that the firmware was content with.
    pub failures: Vec<String>,
    /// What was asked for.
    pub policy: Policy,
    /// The machine, parents before children.
    pub topology: Vec<Component>,
    /// Its windows.
    pub windows: Vec<Window>,
    /// RAM: base and size.
    #[serde(skip)]
    ram: Vec<(u64, u64)>,
    /// Decoders in use, and those that the firmware had to do with; spare ones are left out.
    pub decoders: Vec<Decoder>,
    /// What the firmware says that it made.
    pub regions: Vec<Region>,
    /// What the registers say.
    pub mappings: Vec<Mapping>,
    /// The table for the operating system.
    pub cedt: Option<Cedt>,
    /// What the verifier says.
    pub findings: Vec<Finding>,
    /// What the owner should know although nothing is wrong.
    pub notes: Vec<String>,
    /// The library's accesses to registers.
    pub traffic: Traffic,
    /// The attack on the locks, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attack: Option<attack::Report>,
    /// What there is to say of devices that are not ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
}

/// What varies from run to run.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// How long the firmware ran, in microseconds.
    #[serde(rename = "run_us", serialize_with = "microseconds")]
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
#[derive(Debug, Serialize)]
pub struct Report {
    /// What every run has alike.
    #[serde(flatten)]
    pub facts: Facts,
    /// What this one took.
    pub measured: Option<Measured>,
}

impl Facts {
    /// Adds the attack on the locks; a breach is a failure.
    pub fn set_attack(&mut self, report: attack::Report) {
        if report.changed > 0 {
            self.fail(format!("the attack changed what it must not, {} times", report.changed));
        }
        self.attack = Some(report);
    }

    /// Demands that every decoder in use is locked.
    pub fn require_locked(&mut self) {
        let control = |decoder: &Decoder| decoder.text.image.control();
        let open = |decoder: &&Decoder| control(decoder).committed() && !control(decoder).locked();
        let open: Vec<String> = self
            .decoders
            .iter()
            .filter(open)
            .map(|decoder| format!("{} decoder {}", decoder.component, decoder.text.index))
            .collect();
        for decoder in open {
            self.fail(format!("{decoder} is committed and not locked (UnlockedOnPath)"));
        }
        if !self.decoders.iter().any(|decoder| control(decoder).committed()) {
            self.fail("no decoder is committed, so none is locked".to_owned());
        }
    }

    /// Adds what a check holds against a run.
    pub(crate) fn fail(&mut self, failure: String) {
        self.failures.push(failure);
        if self.result == Verdict::Ok {
            self.result = Verdict::Failed;
        }
    }
}

impl Report {
    /// The report of a run that left a machine in this state.
    ///
    /// The verifier of the library goes over the machine once more; what it reads is not counted.
    pub fn of(machine: &mut Machine, left: &Left<'_>) -> Self {
        let (scenario, map) = (machine.scenario().clone(), machine.map().clone());
        let (fabric, platform) = (machine.fabric(), run::platform(machine));
        let seen = Seen { scenario: &scenario, map: &map, fabric: &fabric, platform: &platform };
        let mut clock = machine.clock();
        let counted = std::mem::take(machine.recorder_mut());
        let report = Self::seen(&seen, machine, &mut clock, left);
        *machine.recorder_mut() = counted;
        report
    }

    /// The same of any machine; the verifier reaches it through `hw`.
    pub fn seen(
        seen: &Seen<'_>,
        hw: &mut impl Mmio,
        clock: &mut impl Clock,
        left: &Left<'_>,
    ) -> Self {
        let Seen { scenario, map, fabric, .. } = *seen;
        let mut failures = Vec::new();
        let record = decoders::record(left, &mut failures);
        let decoders = decoders::decoders(scenario, fabric, record.as_ref(), &mut failures);
        let mappings = mapping::mappings(fabric);
        let regions = decoders::regions(map, fabric, record.as_ref(), &mappings);
        let opinion = opinion::of(seen, hw, clock, left, &mut failures);
        decoders::regions_lead_to_memory(fabric, &regions, &mappings, &mut failures);
        let facts = Facts {
            result: match (left.refusal, failures.is_empty()) {
                (Some(_), _) => Verdict::Refused,
                (None, true) => Verdict::Ok,
                (None, false) => Verdict::Failed,
            },
            scenario: scenario.name.clone(),
            description: scenario.description.clone(),
            foreign: left.foreign,
            refusal: left.refusal.cloned(),
            failures,
            policy: Policy::of(&scenario.policy),
            topology: topology::components(scenario),
            windows: topology::windows(scenario, map),
            ram: map.ram.iter().map(|span| (span.base().0, span.size())).collect(),
            decoders,
            regions,
            mappings: mappings.iter().map(|mapping| Mapping::of(fabric, mapping)).collect(),
            cedt: Cedt::of(scenario, left.cedt),
            findings: opinion.findings,
            notes: opinion.notes,
            traffic: Traffic::of(scenario, left.traffic),
            attack: None,
            peer: None,
        };
        Self { facts, measured: None }
    }

    /// The report of a direct run.
    pub fn of_direct(machine: &mut Machine, done: &Done) -> Self {
        let refusal = done.refusal.as_ref().map(Refusal::from);
        let traffic = machine.traffic().clone();
        let Done { handoff, cedt, .. } = done;
        Self::of(
            machine,
            &Left {
                handoff,
                cedt,
                refusal: refusal.as_ref(),
                traffic: &traffic,
                foreign: false,
                unfinished: false,
            },
        )
    }
}

impl Mapping {
    fn of(fabric: &Fabric, mapping: &mapping::Mapping) -> Self {
        let window = fabric.windows.get(mapping.window);
        let members = match &mapping.how {
            How::Direct(direct) => Member::of(fabric, direct, mapping.hpa),
            How::Trapped { .. } => Vec::new(),
        };
        let (direct, reason) = match &mapping.how {
            How::Direct(direct) => (Some(direct.interleave()), None),
            How::Trapped { reason } => (None, Some(*reason)),
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
            let &trace::DecoderCount { found, program, commit, after, .. } = count;
            DecoderTraffic {
                component: scenario.name_of(place).to_owned(),
                index,
                reads: count.all().reads,
                writes: count.all().writes,
                stages: Stages { found, program, commit, after },
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

fn address<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex(*value))
}

fn code<S: Serializer>(value: &u16, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{value:#06x}"))
}

fn microseconds<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(value.as_micros()).unwrap_or(u64::MAX))
}
