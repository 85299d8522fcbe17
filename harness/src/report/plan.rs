//! The plan of a dry run: what would be written where, and why there.
//!
//! **Invariant**: made from discovery and the pure plan alone, and no decoder has been written when this is
//! printed; but with best effort what a machine loses shows only where it is tried, so there a copy is
//! brought up, and what was lost of it is told as a boot tells it.

use std::fmt::{self, Display, Formatter};

use cxl_firmware::plan::{self, Purpose, Refused, Unfit};
use cxl_firmware::platform;
use cxl_firmware::topology::NodeId;
use cxl_regs::{Coherency, Interleave, Route, Size, Ways};
use schemars::JsonSchema;
use serde::Serialize;

use super::lines::{fact, heading};
use super::opinion::{name, remarks, wants_memory, words};
use super::topology::{self, Window, coherency};
use super::{Refusal, Report, Verdict, address, maybe_address};
use crate::run::{self, DirectRun, Room, RunRequest, Tables};
use cxl_model::machine::Machine;
use cxl_model::scenario::{OnFailure, PathPolicy, Scenario};
use cxl_model::words::on_one_line;

/// A dry run's output.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct PlanReport {
    /// Whether there is a plan; `failed` where something was to be in it and is not.
    pub result: Verdict,
    /// The scenario.
    pub scenario: String,
    /// What it is about.
    pub description: String,
    /// Why there is none.
    pub refusal: Option<Refusal>,
    /// Where it is for want of a place: what spoke against each window.
    pub refused: Vec<NotTaken>,
    /// With best effort: what a boot would lose and why, each a failure of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
    /// What leads to memory, by ascending address.
    pub regions: Vec<PlannedRegion>,
    /// What is written, in order of commit.
    pub decoders: Vec<PlannedDecoder>,
    /// What the owner should know.
    pub notes: Vec<String>,
    /// The windows, where they are all that there is: whoever programs decides what goes where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
}

/// A range of addresses and the devices behind it.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct PlannedRegion {
    /// Name of the window.
    pub window: String,
    /// Why this one.
    pub reason: String,
    /// What spoke against each other window, in the planner's words.
    pub refused: Vec<NotTaken>,
    /// First address.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub hpa: u64,
    /// Bytes.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub size: u64,
    /// `volatile` or `persistent`.
    pub memory: String,
    /// Who keeps it coherent.
    #[serde(serialize_with = "short")]
    #[schemars(with = "String")]
    pub coherency: Coherency,
    /// Devices that share it in turn.
    pub ways: u32,
    /// Bytes of a turn; `null` if there is only one device.
    pub granularity: Option<u64>,
    /// Why they are that many.
    pub chosen: String,
    /// The devices in order of position.
    pub members: Vec<PlannedMember>,
}

/// A window that was not taken.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct NotTaken {
    /// Name of the window.
    pub window: String,
    /// What spoke against it.
    pub why: String,
}

/// A device's part of a region.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct PlannedMember {
    /// Name of the device.
    pub device: String,
    /// The device's own address of the first byte.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub dpa: u64,
    /// Bytes of this device.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub size: u64,
}

/// One decoder.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct PlannedDecoder {
    /// Name of the component.
    pub component: String,
    /// Its number there.
    pub index: u8,
    /// The region it is for; `None` for a spare one that is locked at size 0.
    pub region: Option<u16>,
    /// First address it claims.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub base: u64,
    /// Bytes it claims.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub size: u64,
    /// Ways.
    pub ways: u32,
    /// Granularity in bytes.
    pub granularity: u64,
    /// Port numbers of a bridge's or switch's decoder, way 0 first.
    pub targets: Option<Vec<u8>>,
    /// Bytes of device memory that a device's decoder leaves out.
    #[serde(serialize_with = "maybe_address")]
    #[schemars(with = "Option<String>")]
    pub skip: Option<u64>,
}

/// What is said of a plan without regions where somebody wanted memory.
const NOTHING: &str = "no region is planned: the machine has no CXL memory to map";

fn short<S: serde::Serializer>(value: &Coherency, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(coherency(*value))
}

impl PlanReport {
    /// What a boot of this scenario's machine would do.
    pub fn new(scenario: &Scenario) -> Self {
        let mut machine = Machine::new(scenario);
        let done = run::planned(&mut machine);
        if scenario.policy.on_failure == OnFailure::Strict {
            return Self::of(&machine, &done);
        }
        let facts = Report::of_direct(&machine, &done).facts;
        let mut report = Self::of(&machine, &done);
        // What was in use before the last plan, which is of what came beside it.
        for region in done.room.committed.regions.iter() {
            let is_it = |planned: &PlannedRegion| planned.hpa == region.span.base().0;
            if !report.regions.iter().any(is_it) {
                report.notes.push(format!(
                    "{} at {} stays from the plan before a lock was lost",
                    Size(region.span.size()),
                    region.span.base()
                ));
            }
        }
        report.result = facts.result;
        report.lost = facts.failures();
        let is_told = |note: &String| report.lost.iter().any(|lost| lost.ends_with(note.as_str()));
        report.notes.retain(|note| note != NOTHING && !is_told(note));
        report
    }

    /// The plan that a dry run of this machine made.
    pub fn of(machine: &Machine, done: &DirectRun) -> Self {
        let scenario = machine.scenario();
        let Room { topology: found, plan, .. } = &*done.room;
        let platform = run::platform(machine);
        let platform = platform.as_ref().ok().map(Tables::platform);
        let tables = platform.map_or(&[][..], |platform| platform.windows);
        let names = Names { machine, room: &done.room, tables };
        let wanted = RunRequest::of(machine).ok();
        let policy = wanted.as_ref().map(RunRequest::policy);
        let refusal = done.refusal.as_ref().map(Refusal::from);
        let notes = plan.notes.iter().map(|note| words(machine.scenario(), found.tree(), note));
        let nothing = refusal.is_none() && plan.regions.is_empty() && wants_memory(machine, None);
        let nothing_said = nothing.then(|| NOTHING.to_owned());
        let regions = plan.regions.iter().enumerate().map(|(index, region)| {
            let asked = platform.as_ref().zip(policy.as_ref());
            let refused = asked.map_or_else(Vec::new, |(platform, policy)| {
                plan.refused(platform, found, policy, index).collect()
            });
            names.region(region, &refused)
        });
        Self {
            result: match (&refusal, nothing) {
                (Some(_), _) => Verdict::Refused,
                (None, true) => Verdict::Failed,
                (None, false) => Verdict::Ok,
            },
            scenario: scenario.name.clone(),
            description: scenario.description.clone(),
            lost: Vec::new(),
            regions: regions.collect(),
            decoders: plan.decoders.iter().map(|decoder| names.decoder(decoder)).collect(),
            notes: nothing_said.into_iter().chain(remarks(&found.remarks)).chain(notes).collect(),
            refused: names.refused(plan.refusals.list()),
            windows: match scenario.policy.path {
                PathPolicy::Describe => topology::windows(scenario, machine.map()),
                _ => Vec::new(),
            },
            refusal,
        }
    }
}

/// The names that the scenario has for what the plan points at.
struct Names<'a> {
    machine: &'a Machine,
    room: &'a Room,
    /// The windows as the firmware had them.
    tables: &'a [platform::Window],
}

impl Names<'_> {
    fn node(&self, id: NodeId) -> String {
        name(self.machine.scenario(), self.room.topology.tree(), id)
    }

    fn bridge(&self, uid: u32) -> String {
        let mut bridges = self.machine.scenario().bridges.iter();
        let bridge = bridges.find(|bridge| bridge.uid == uid);
        bridge.map_or_else(|| format!("UID {uid}"), |bridge| bridge.name.clone())
    }

    /// The windows of a list of the planner's by their names in the scenario.
    fn refused(&self, refused: &[Refused]) -> Vec<NotTaken> {
        let given = &self.machine.scenario().windows;
        let placed = given.iter().zip(&self.machine.map().windows);
        // Those without a base can be told apart by their order alone.
        let mut unplaced = placed.clone().filter(|(_, base)| base.is_none());
        let named = refused.iter().map(|refused| {
            let window = match refused.window {
                None => unplaced.next(),
                Some(at) => placed.clone().find(|(_, base)| **base == Some(at)),
            };
            let window = window.map_or_else(|| "?".to_owned(), |(window, _)| window.name.clone());
            NotTaken { window, why: self.why(refused) }
        });
        named.collect()
    }

    /// What spoke against a window, bridges by their names.
    fn why(&self, refused: &Refused) -> String {
        let window = self.tables.iter().find(|window| window.base == refused.window);
        match (refused.why, window) {
            (Unfit::NotATarget { .. }, Some(window)) => {
                let targets = window.targets.iter().map(|&uid| self.bridge(uid));
                format!("leads to {}", targets.collect::<Vec<_>>().join(", "))
            }
            (why, _) => why.to_string(),
        }
    }

    fn region(&self, region: &plan::Region, refused: &[Refused]) -> PlannedRegion {
        let windows = self.machine.scenario().windows.iter().zip(&self.machine.map().windows);
        let window = windows.clone().find(|(_, base)| **base == Some(region.window));
        let members = self.room.plan.members(region);
        let set = region.levels.device().unwrap_or(Interleave::NONE);
        let refused = self.refused(refused);
        let why: Vec<String> =
            refused.iter().map(|NotTaken { window, why }| format!("{window} {why}")).collect();
        PlannedRegion {
            ways: set.ways.count(),
            granularity: (set.ways != Ways::One).then(|| set.granularity.bytes()),
            chosen: region.reason.to_string(),
            window: window.map_or("?", |(window, _)| &window.name).to_owned(),
            reason: match why.len() {
                0 => "the only one there is".to_owned(),
                _ => format!("because {}", why.join("; ")),
            },
            refused,
            hpa: region.span.base().0,
            size: region.span.size(),
            memory: region.partition.to_string(),
            coherency: region.coherency,
            members: members
                .iter()
                .map(|member| PlannedMember {
                    device: self.node(member.device),
                    dpa: member.dpa.base().0,
                    size: member.dpa.size(),
                })
                .collect(),
        }
    }

    fn decoder(&self, planned: &plan::PlannedDecoder) -> PlannedDecoder {
        let component = self.node(planned.node);
        let index = planned.index;
        match planned.purpose {
            Purpose::Burn { base } => PlannedDecoder {
                component,
                index,
                region: None,
                base: base.0,
                size: 0,
                ways: Ways::One.count(),
                granularity: Interleave::NONE.granularity.bytes(),
                targets: None,
                skip: None,
            },
            Purpose::Region { region, decoder } => {
                let Interleave { ways, granularity } = decoder.interleave;
                let (targets, skip) = match decoder.route {
                    Route::Targets(targets) => (Some(targets.used(ways).to_vec()), None),
                    Route::Skip(skip) => (None, Some(skip)),
                };
                PlannedDecoder {
                    component,
                    index,
                    region: Some(region),
                    base: decoder.span.base().0,
                    size: decoder.span.size(),
                    ways: ways.count(),
                    granularity: granularity.bytes(),
                    targets,
                    skip,
                }
            }
        }
    }
}

impl Display for PlanReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let result = match self.result {
            Verdict::Ok => "planned",
            Verdict::Refused => "refused",
            Verdict::Failed if self.regions.is_empty() => "nothing planned",
            Verdict::Failed => "planned WITHOUT WHAT IS LOST",
        };
        writeln!(f, "scenario {}: {result}, no decoder has been written", self.scenario)?;
        if !self.description.is_empty() {
            fact(f, "about", on_one_line(&self.description))?;
        }
        if let Some(Refusal { phase, code, message }) = &self.refusal {
            fact(f, "refusal", format_args!("{message} ({phase}, {code:#06x})"))?;
            let mut refused = self.refused.iter();
            return refused.try_for_each(|NotTaken { window, why }| {
                fact(f, "  window", format_args!("{window} {why}"))
            });
        }
        for lost in &self.lost {
            fact(f, "failure", lost)?;
        }
        for note in &self.notes {
            fact(f, "note", note)?;
        }
        if !self.windows.is_empty() {
            heading(f, "windows: where the operating system may put memory")?;
        }
        self.windows.iter().try_for_each(|window| window.line(f))?;
        if !self.regions.is_empty() {
            heading(
                f,
                "regions: what goes where, and why not elsewhere (DPA: a device's own address)",
            )?;
        }
        for (index, region) in self.regions.iter().enumerate() {
            region.lines(f, index)?;
        }
        if !self.decoders.is_empty() {
            heading(f, "decoders to write, in order of commit: a path opens from its end")?;
        }
        self.decoders.iter().try_for_each(|decoder| decoder.line(f))
    }
}

impl Window {
    fn line(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ways = match self.ways {
            1 => String::new(),
            ways => format!(", {ways}-way at {}", Size(self.granularity)),
        };
        let (size, bridges) = (Size(self.size), self.targets.join(", "));
        let admits = self.restrictions.join(", ");
        let base = self.base.map_or("no place".to_owned(), |base| format!("{base:#018x}"));
        let what = format!("{base:<18}  {size}{ways}, to {bridges}; admits {admits}");
        fact(f, &self.window, what)
    }
}

impl PlannedRegion {
    fn lines(&self, f: &mut Formatter<'_>, index: usize) -> fmt::Result {
        let size = Size(self.size);
        let what = format!("{:#018x}  {size}, {}, {}", self.hpa, self.memory, self.coherency);
        fact(f, format_args!("region {index}"), what)?;
        if let Some(granularity) = self.granularity {
            let (ways, granularity) = (self.ways, Size(granularity));
            let what = format!("{ways}-way at {granularity}: {}", self.chosen);
            fact(f, "  interleave", what)?;
        }
        for (position, member) in self.members.iter().enumerate() {
            let (from, size) = (member.dpa, Size(member.size));
            let label = format!("  position {position}");
            fact(f, label, format_args!("{}, {size} from DPA {from:#x}", member.device))?;
        }
        fact(f, "  window", format_args!("{}, {}", self.window, self.reason))
    }
}

impl PlannedDecoder {
    fn line(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let label = format!("{} decoder {}", self.component, self.index);
        let Some(region) = self.region else {
            return fact(f, label, format_args!("{:#018x}  size 0: locked, unused", self.base));
        };
        let ways = match self.ways {
            1 => String::new(),
            ways => format!(", {ways}-way at {}", Size(self.granularity)),
        };
        let leads = match (&self.targets, self.skip) {
            (Some(ports), _) => {
                let ports: Vec<String> = ports.iter().map(|port| format!("port {port}")).collect();
                format!(", to {}", ports.join(", "))
            }
            (None, Some(0) | None) => String::new(),
            (None, Some(skip)) => format!(", skips {} of DPA", Size(skip)),
        };
        let size = Size(self.size);
        fact(f, label, format_args!("{:#018x}  {size}{ways}{leads}, region {region}", self.base))
    }
}
