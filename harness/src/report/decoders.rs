//! The decoders as the firmware recorded them, held against the machine's registers.
//!
//! **Invariant**: a decoder is called by its component's name in the scenario. What the record says
//! is reported as it says it; where the machine says something else, that is a failure by name.

use cxl_firmware::committed::Probed;
use cxl_firmware::committed::{Fate, Place as Recorded};
use cxl_firmware::handoff::{self, Handoff};
use cxl_regs::hdm::{DECODER_SPECS, DecoderImage};
use cxl_regs::{DecoderText, HdmText, Size};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

use super::findings::Findings;
use super::topology::coherency;
use super::{Member, Region, RunRecord, Witness};
use crate::run;
use cxl_model::dump::facts;
use cxl_model::fabric::Fabric;
use cxl_model::image;
use cxl_model::layout::AddressMap;
use cxl_model::mapping::{self, Reach, ReasonText};
use cxl_model::scenario::{Place, Scenario};

/// One decoder.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Decoder {
    /// Name of its component.
    pub component: String,
    /// The registers and what they say; in JSON the keys of `cxl-harness decode`.
    #[serde(flatten, serialize_with = "as_dump")]
    #[schemars(schema_with = "registers_schema")]
    pub text: DecoderText,
    /// What became of it, if the firmware recorded it.
    #[serde(serialize_with = "in_words")]
    #[schemars(with = "Option<String>")]
    pub fate: Option<Fate>,
}

fn registers_schema(generator: &mut SchemaGenerator) -> Schema {
    facts::schema_of(generator, facts::decoder)
}

fn as_dump<S: Serializer>(text: &DecoderText, serializer: S) -> Result<S::Ok, S::Error> {
    facts::decoder(*text).serialize(serializer)
}

fn in_words<S: Serializer>(fate: &Option<Fate>, serializer: S) -> Result<S::Ok, S::Error> {
    fate.map(|fate| fate.to_string()).serialize(serializer)
}

/// The hand-off record, if there is one that can be read.
pub(super) fn record<'a>(left: &RunRecord<'a>, findings: &mut Findings) -> Option<Handoff<'a>> {
    if left.handoff.is_empty() {
        if left.refusal.is_none() && !left.foreign && !left.unfinished {
            findings.fail(
                Witness::Record,
                "the firmware is done and left no hand-off record".to_owned(),
            );
        }
        return None;
    }
    match handoff::read(left.handoff) {
        Ok(record) => Some(record),
        Err(error) => {
            findings.fail(Witness::Record, format!("hand-off record: {error}"));
            None
        }
    }
}

/// The component that the firmware means.
fn component(scenario: &Scenario, recorded: &Recorded) -> Option<Place> {
    use cxl_regs::Component;
    let places: Vec<Place> = match recorded.component {
        Component::HostBridge => (0..scenario.bridges.len()).map(Place::Bridge).collect(),
        Component::UpstreamPort => (0..scenario.switches.len()).map(Place::Switch).collect(),
        Component::Device => (0..scenario.devices.len()).map(Place::Device).collect(),
    };
    places.into_iter().find(|&place| run::path(scenario, place) == Some(recorded.at))
}

/// One decoder of the record, by name.
struct Entry<'s> {
    component: &'s str,
    index: u8,
    image: DecoderImage,
    fate: Fate,
}

/// Every decoder in use or recorded, bridges first, by number within a component.
pub(super) fn decoders(
    scenario: &Scenario,
    fabric: &Fabric,
    record: Option<&Handoff<'_>>,
    findings: &mut Findings,
) -> Vec<Decoder> {
    let mut entries = Vec::new();
    for decoder in record.iter().flat_map(|record| record.decoders()) {
        match component(scenario, &decoder.place) {
            Some(place) => entries.push(Entry {
                component: scenario.name_of(place),
                index: decoder.place.index,
                image: decoder.image,
                fate: decoder.fate,
            }),
            None => findings.fail(
                Witness::Record,
                format!("the record has {}, which this machine does not have", decoder.place),
            ),
        }
    }
    let mut list = Vec::new();
    for (name, component, hdm) in image::components(fabric) {
        let mut recorded = hdm.clone();
        for (index, image) in (0..=u8::MAX).zip(&mut recorded.decoders) {
            let entry =
                entries.iter().find(|entry| (entry.component, entry.index) == (name, index));
            match entry {
                Some(entry) => {
                    differences(entry, image, findings);
                    // The eighth dword is reserved and not recorded.
                    *image = DecoderImage { reserved: image.reserved, ..entry.image };
                }
                None if record.is_some() && image.control().committed() => findings.fail(
                    Witness::Record,
                    format!("{name} decoder {index} is committed, and the record does not have it"),
                ),
                None => {}
            }
        }
        for text in HdmText::new(&recorded.bytes(), Some(component)).decoders() {
            let entry =
                entries.iter().find(|entry| (entry.component, entry.index) == (name, text.index));
            if entry.is_some() || !text.unused() {
                let fate = entry.map(|entry| entry.fate);
                list.push(Decoder { component: name.to_owned(), text, fate });
            }
        }
    }
    for Entry { component, index, .. } in &entries {
        if !list.iter().any(|d| d.component == *component && d.text.index == *index) {
            findings.fail(
                Witness::Record,
                format!("the record has {component} decoder {index}, which it lacks"),
            );
        }
    }
    list
}

/// Compares the seven registers of a recorded decoder with the machine's.
fn differences(entry: &Entry<'_>, machine: &DecoderImage, findings: &mut Findings) {
    let Entry { component, index, image, .. } = entry;
    let both = image.to_dwords().into_iter().zip(machine.to_dwords());
    for ((recorded, found), spec) in both.zip(&DECODER_SPECS) {
        if recorded != found {
            findings.fail(Witness::Record, format!(
                "{component} decoder {index}: {} is {found:#010x}, the record has {recorded:#010x}",
                spec.name
            ));
        }
    }
}

/// Regions that are taken from a record: as many as the library has [`Room`](run::Room) for here.
const MOST_REGIONS: usize = 320;

/// The regions of the record, with the devices that the registers lead to.
pub(super) fn regions(
    map: &AddressMap,
    fabric: &Fabric,
    record: Option<&Handoff<'_>>,
    mappings: &[mapping::Mapping],
) -> Vec<Region> {
    let regions = record.iter().flat_map(|record| record.regions()).take(MOST_REGIONS);
    let region = |region: cxl_firmware::committed::CommittedRegion| {
        let base = region.span.base();
        let window = map.windows.iter().position(|window| *window == Some(region.window));
        let window = window.and_then(|window| fabric.windows.get(window));
        let at = mappings.iter().find(|m| m.span().is_some_and(|span| span.contains(base)));
        Region {
            window: window.map_or_else(String::new, |window| window.name.clone()),
            hpa: base.0,
            size: region.span.size(),
            ways: region.interleave.ways.count(),
            granularity: region.interleave.granularity.bytes(),
            coherency: coherency(region.coherency),
            memory: region.partition.to_string(),
            locked: region.locked,
            probed: probed(region.probed),
            members: match at.map(|mapping| &mapping.how) {
                Some(Reach::Direct(direct)) => Member::of(fabric, direct, base),
                _ => Vec::new(),
            },
        }
    };
    regions.map(region).collect()
}

/// What was asked of a region's memory, in a word.
fn probed(probed: Probed) -> &'static str {
    match probed {
        Probed::Held => "held",
        Probed::Read => "read",
        Probed::No => "no",
    }
}

/// Whether the mapping, which knows nothing of the firmware, finds memory behind every region.
pub(super) fn regions_lead_to_memory(
    fabric: &Fabric,
    regions: &[Region],
    mappings: &[mapping::Mapping],
    findings: &mut Findings,
) {
    for region in regions {
        let end = region.hpa.saturating_add(region.size);
        for mapping in mappings {
            let inside =
                mapping.span().is_some_and(|span| span.base().0 < end && region.hpa < span.end().0);
            if let (true, Reach::Trapped { reason }) = (inside, &mapping.how) {
                findings.fail(
                    Witness::Registers,
                    format!(
                        "the region of {} at {:#x} leads nowhere: {}",
                        Size(region.size),
                        region.hpa,
                        ReasonText(fabric, *reason)
                    ),
                );
            }
        }
    }
}
