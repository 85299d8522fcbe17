//! What Linux is to have: the regions of the library's plan for the very machine that QEMU makes,
//! with every decoder on their paths; and whether the image says that it committed just that.
//!
//! **Invariant**: the plan is made here from the scenario and from where QEMU has its windows;
//! nothing that the image printed goes into it, so the two can be held against each other.

use cxl_firmware::committed::{CommittedRegion, Fate, Place};
use cxl_firmware::handoff::{self, Handoff, HandoffDecoder};
use cxl_firmware::plan::Purpose;
use cxl_firmware::topology::{NodeId, Partition, Path, Tree};
use cxl_regs::{Component, Decoder, Dpa, Interleave, Route, Size, Span};

use crate::console::Collected;
use crate::report::Report;
use crate::run::{self, Refusal};
use cxl_model::machine::Machine;
use cxl_model::scenario::{self, OnFailure, PathPolicy, Scenario};

/// What is planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// By ascending address.
    pub regions: Vec<Region>,
    /// What has none although nobody left it out, in sentences: best effort goes on without.
    pub lost: Vec<String>,
}

/// A planned region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Base of its window.
    pub window: u64,
    /// The host addresses.
    pub span: Span,
    /// The whole set's interleave.
    pub interleave: Interleave,
    /// Kind of memory.
    pub partition: Partition,
    /// Whether every decoder on every path is to be locked.
    pub locked: bool,
    /// Its devices in order of position.
    pub members: Vec<Member>,
    /// Every decoder on every path.
    pub decoders: Vec<(Place, Decoder)>,
}

/// A device's share of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where the device is.
    pub device: Path,
    /// Its own addresses.
    pub dpa: Span<Dpa>,
}

impl Planned {
    /// The library's plan for this scenario, whose windows have the places that QEMU gave them.
    pub fn of(scenario: &Scenario) -> Result<Self, Refusal> {
        let mut machine = Machine::new(scenario);
        let done = run::planned(&mut machine);
        if let Some(refusal) = done.refusal {
            return Err(refusal);
        }
        let lost = match scenario.policy.on_failure {
            OnFailure::Strict => Vec::new(),
            OnFailure::BestEffort => Report::of_direct(&machine, &done).facts.failures(),
        };
        let (plan, tree) = (&done.room.plan, done.room.topology.tree());
        let regions = (0..).zip(&plan.regions).map(|(index, region)| {
            let decoders = plan.decoders.iter().filter_map(|planned| match planned.purpose {
                Purpose::Region { region, decoder } if region == index => {
                    Some((place(tree, planned.node, planned.index), decoder))
                }
                _ => None,
            });
            let decoders: Vec<_> = decoders.collect();
            let of_device = decoders.iter().find(|(place, _)| place.component == Component::Device);
            Region {
                window: region.window.0,
                span: region.span,
                interleave: of_device.map_or(Interleave::NONE, |(_, decoder)| decoder.interleave),
                partition: region.partition,
                locked: scenario.policy.path == PathPolicy::LockAll,
                members: plan
                    .members(region)
                    .iter()
                    .map(|member| Member { device: tree.path(member.device), dpa: member.dpa })
                    .collect(),
                decoders,
            }
        });
        Ok(Self { regions: regions.collect(), lost })
    }

    /// What the image's record has otherwise than the plan: the region that it is about, and what.
    pub(crate) fn against(
        &self,
        said: &Collected,
        scenario: &Scenario,
    ) -> Vec<(Option<usize>, String)> {
        let Some(section) = &said.handoff else {
            return vec![(None, "the image handed no record over".to_owned())];
        };
        let record = match handoff::read(&section.bytes) {
            Ok(record) => record,
            Err(error) => return vec![(None, format!("the image's record: {error}"))],
        };
        let mut gaps = Vec::new();
        for (index, region) in self.regions.iter().enumerate() {
            let found = region.against(&record, scenario);
            gaps.extend(found.into_iter().map(|gap| (Some(index), gap)));
        }
        let more = record
            .regions()
            .filter(|committed| !self.regions.iter().any(|region| region.span == committed.span));
        gaps.extend(more.map(|CommittedRegion { span, .. }| {
            let (size, base) = (Size(span.size()), span.base().0);
            (None, format!("the image committed {size} at {base:#x}, which is not planned"))
        }));
        gaps
    }
}

/// The place of a node's decoder.
fn place(tree: Tree<'_>, node: NodeId, index: u8) -> Place {
    let component = tree.get(node).and_then(|node| node.component());
    Place { at: tree.path(node), component: component.unwrap_or(Component::Device), index }
}

impl Region {
    /// What the record has otherwise.
    fn against(&self, record: &Handoff<'_>, scenario: &Scenario) -> Vec<String> {
        let Some(committed) = record.regions().find(|committed| committed.span == self.span) else {
            return vec!["the image did not commit it".to_owned()];
        };
        let mut gaps = Vec::new();
        let (planned, found) = (set(self.interleave), set(committed.interleave));
        if planned != found {
            gaps.push(format!("the image committed it {found}, {planned} is planned"));
        }
        if committed.partition != self.partition {
            let (found, planned) = (committed.partition, self.partition);
            gaps.push(format!("the image committed it as {found} memory, {planned} is planned"));
        }
        if committed.locked != self.locked {
            let word = |locked| if locked { "locked" } else { "not locked" };
            let (found, planned) = (word(committed.locked), word(self.locked));
            gaps.push(format!("the image left its paths {found}, {planned} is asked for"));
        }
        for (place, decoder) in &self.decoders {
            let name = decoder_name(scenario, place);
            match record.decoders().find(|found| found.place == *place) {
                None => gaps.push(format!("the image committed no {name}")),
                Some(found) => {
                    let wrong = otherwise(place, decoder, &found);
                    gaps.extend(wrong.map(|wrong| format!("the image committed {name} {wrong}")));
                }
            }
        }
        gaps
    }
}

/// What the registers of a record say otherwise than the plan, in words that follow the decoder's
/// name.
fn otherwise(place: &Place, planned: &Decoder, found: &HandoffDecoder) -> Option<String> {
    let (image, control) = (&found.image, found.image.control());
    if found.fate != Fate::Done || !control.committed() {
        return Some(format!("not: it is {}", found.fate));
    }
    let span = planned.span;
    if (image.raw_base(), image.raw_size()) != (span.base().0, span.size()) {
        let (base, size) = (image.raw_base(), Size(image.raw_size()));
        return Some(format!("with {size} at {base:#x}"));
    }
    let Interleave { ways, granularity } = planned.interleave;
    if control.ways() != ways.encode()
        || ways.count() > 1 && control.granularity() != granularity.encode()
    {
        let (ways, granularity) = (control.ways(), control.granularity());
        return Some(format!(
            "with IW {ways} and IG {granularity}, not {}",
            set(planned.interleave)
        ));
    }
    match planned.route {
        Route::Skip(skip) if image.raw_route() != skip => {
            let found = image.raw_route();
            Some(format!("with a DPA skip of {found:#x}, {skip:#x} is planned"))
        }
        Route::Targets(targets) if place.component != Component::Device => {
            let planned = targets.used(ways);
            let found = image.targets();
            let found = found.get(..planned.len()).unwrap_or_default();
            (found != planned).then(|| format!("to ports {found:?}, {planned:?} are planned"))
        }
        Route::Skip(_) | Route::Targets(_) => None,
    }
}

/// An interleave in words.
pub(crate) fn set(interleave: Interleave) -> String {
    match interleave.ways.count() {
        1 => "1-way".to_owned(),
        ways => format!("{ways}-way at {}", Size(interleave.granularity.bytes())),
    }
}

/// A decoder by its component's name in the scenario.
pub(crate) fn decoder_name(scenario: &Scenario, place: &Place) -> String {
    use scenario::Place as Named;
    let places: Vec<Named> = match place.component {
        Component::HostBridge => (0..scenario.bridges.len()).map(Named::Bridge).collect(),
        Component::UpstreamPort => (0..scenario.switches.len()).map(Named::Switch).collect(),
        Component::Device => (0..scenario.devices.len()).map(Named::Device).collect(),
    };
    let found = places.into_iter().find(|&named| run::path(scenario, named) == Some(place.at));
    found.map_or_else(
        || place.to_string(),
        |named| format!("{} decoder {}", scenario.name_of(named), place.index),
    )
}

/// A device by its name in the scenario.
pub(crate) fn device_name(scenario: &Scenario, path: &Path) -> String {
    let found = (0..scenario.devices.len())
        .map(scenario::Place::Device)
        .find(|&named| run::path(scenario, named).as_ref() == Some(path));
    found.map_or_else(|| path.to_string(), |named| scenario.name_of(named).to_owned())
}
