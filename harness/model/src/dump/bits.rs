//! Registers that hold other bits in one dump than in another, with their fields.
//!
//! **Invariant**: every dword that differs is told of: bits that no field has as well, and dwords that
//! no table names by their offset. A CEDT has records and no registers, and none here.

use cxl_regs::Component;
use cxl_regs::access::{Class, Field, Spec};
use cxl_regs::block::{self, Row};
use cxl_regs::component::{Capabilities, CapabilityId};
use cxl_regs::config::{self, BridgeHeader, EndpointHeader, PcieCapability};
use cxl_regs::dvsec::Dvsecs;
use cxl_regs::hdm::{DECODER_SPECS, GLOBAL_SPECS, decoder_offset};
use cxl_regs::text::HdmText;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::facts::hex;
use super::{Dump, Kind, Section, absent, range};

/// A register that differs.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct RegisterDiff {
    /// What it is part of: a function, a structure, a decoder.
    pub place: String,
    /// Its name; of a dword that no table names, its offset in the dump.
    pub register: String,
    /// Its offset in the dump, or in the function's configuration space.
    #[serde(serialize_with = "offset")]
    #[schemars(with = "String")]
    pub offset: u32,
    /// Its width in bytes.
    pub bytes: u8,
    /// What it held; nothing where the dump does not reach as far.
    #[serde(serialize_with = "raw")]
    #[schemars(with = "Option<String>")]
    pub old: Option<u32>,
    /// What it holds.
    #[serde(serialize_with = "raw")]
    #[schemars(with = "Option<String>")]
    pub new: Option<u32>,
    /// Its fields that differ.
    pub fields: Vec<FieldDiff>,
}

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct FieldDiff {
    /// The specification's name; `no field` for bits that no field has.
    pub field: &'static str,
    /// Its highest and its lowest bit.
    pub bits: [u8; 2],
    /// Its value before.
    #[serde(serialize_with = "raw")]
    #[schemars(with = "Option<String>")]
    pub old: Option<u32>,
    /// Its value now.
    #[serde(serialize_with = "raw")]
    #[schemars(with = "Option<String>")]
    pub new: Option<u32>,
}

fn offset<S: Serializer>(value: &u32, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&hex(*value))
}

fn raw<S: Serializer>(value: &Option<u32>, to: S) -> Result<S::Ok, S::Error> {
    value.map(hex).serialize(to)
}

impl RegisterDiff {
    /// The register of a table, with what it held and holds. Of a component's the fields are those that
    /// such a component has.
    pub fn new(
        place: &str,
        spec: &Spec,
        component: Option<Component>,
        [old, new]: [Option<u32>; 2],
    ) -> Self {
        let there = |field: &&Field| {
            component.is_none_or(|component| field.rule(component).class != Class::Reserved)
        };
        let differs = |[high, low]: [u8; 2], field: &'static str| {
            let part = |value: u32| (value & (u32::MAX >> (31 - high))) >> low;
            let [old, new] = [old, new].map(|side| side.map(part));
            (old != new).then_some(FieldDiff { field, bits: [high, low], old, new })
        };
        let mut left = old.unwrap_or(0) ^ new.unwrap_or(0);
        let mut fields = Vec::new();
        for field in spec.fields.iter().filter(there) {
            let bits = [field.offset + field.bits - 1, field.offset];
            fields.extend(differs(bits, name_of(field)));
            left &= !field.mask();
        }
        if left != 0 {
            let bits = [31 - left.leading_zeros() as u8, left.trailing_zeros() as u8];
            fields.extend(differs(bits, "no field"));
        }
        let (place, register) = (place.to_owned(), spec.name.to_owned());
        let (offset, bytes) = (spec.offset.into(), spec.bytes);
        Self { place, register, offset, bytes, old, new, fields }
    }

    /// The bits that differ.
    pub fn moved(&self) -> u32 {
        self.old.unwrap_or(0) ^ self.new.unwrap_or(0)
    }
}

/// A field that is all of its register has its register's name already.
fn name_of(field: &Field) -> &'static str {
    if field.name.starts_with('[') { "value" } else { field.name }
}

/// A register at a place of a dump.
struct Named {
    place: String,
    spec: Spec,
    component: Option<Component>,
    at: u32,
}

/// What differs between two dumps of one kind.
pub(super) fn diff(old: &Dump, new: &Dump) -> Vec<RegisterDiff> {
    if old.kind == Kind::Cedt {
        return Vec::new();
    }
    let mut found = Vec::new();
    for section in &new.sections {
        let before = old.sections.iter().find(|before| before.address == section.address);
        // Functions that came or went are told of as a whole.
        if let Some(before) = before {
            sections(new, before, section, &mut found);
        }
    }
    found
}

fn sections(dump: &Dump, old: &Section, new: &Section, found: &mut Vec<RegisterDiff>) {
    let prefix = new.address.as_ref().map(|address| format!("{address} ")).unwrap_or_default();
    let named = named(dump, new);
    let length = old.bytes.len().max(new.bytes.len());
    for at in (0..length).step_by(4) {
        let dword = |bytes: &[u8]| {
            let bytes = bytes.get(at..)?;
            let part: [u8; 4] = std::array::from_fn(|byte| bytes.get(byte).copied().unwrap_or(0));
            (!bytes.is_empty()).then(|| u32::from_le_bytes(part))
        };
        let (before, after) = (dword(&old.bytes), dword(&new.bytes));
        if before == after {
            continue;
        }
        let at = at as u32;
        let mut told = 0;
        for Named { place, spec, component, at: own } in named.iter().filter(|n| n.at & !3 == at) {
            let mask = u32::MAX >> (32 - 8 * u32::from(spec.bytes.clamp(1, 4)));
            let shift = 8 * (own & 3);
            let part = |value: u32| value >> shift & mask;
            told |= mask << shift;
            if before.map(part) != after.map(part) {
                let place = format!("{prefix}{place}");
                let values = [before.map(part), after.map(part)];
                let moved = RegisterDiff::new(&place, spec, *component, values);
                found.push(RegisterDiff { offset: *own, ..moved });
            }
        }
        if (before.unwrap_or(0) ^ after.unwrap_or(0)) & !told != 0
            || before.is_none()
            || after.is_none()
        {
            let spec = Spec { name: "", offset: 0, bytes: 4, fields: &[] };
            let unnamed = RegisterDiff::new(prefix.trim_end(), &spec, None, [before, after]);
            found.push(RegisterDiff { register: format!("+{at:#x}"), offset: at, ..unnamed });
        }
    }
}

/// The registers that tables name, in a section of a dump.
fn named(dump: &Dump, section: &Section) -> Vec<Named> {
    let bytes = section.bytes.as_slice();
    let mut list = Vec::new();
    match dump.kind {
        Kind::Hdm => hdm(bytes, dump, 0, &mut list),
        Kind::Component | Kind::Cachemem => {
            let start = if dump.kind == Kind::Component { range::start() as u32 } else { 0 };
            let range = dump.range(bytes).bytes;
            let Ok(capabilities) = Capabilities::new(block::image(range)) else { return list };
            for found in capabilities.flatten() {
                let hdm_kind =
                    matches!(found.id, CapabilityId::HdmDecoder | CapabilityId::ExtendedHdmDecoder);
                if let (true, Some(part)) = (hdm_kind, range.get(usize::from(found.pointer)..)) {
                    hdm(part, dump, start + u32::from(found.pointer), &mut list);
                }
            }
        }
        Kind::Config if !absent(bytes) => config(bytes, &mut list),
        Kind::Config | Kind::Cedt => {}
    }
    list
}

fn hdm(bytes: &[u8], dump: &Dump, start: u32, list: &mut Vec<Named>) {
    let text = HdmText::new(bytes, dump.component);
    let component = Some(text.component().0);
    let mut add = |place: String, base: u32, spec: Spec| {
        list.push(Named { place, spec, component, at: base + u32::from(spec.offset) });
    };
    GLOBAL_SPECS.into_iter().for_each(|spec| add("HDM decoders".to_owned(), start, spec));
    for decoder in text.decoders() {
        let base = start + u32::from(decoder_offset(decoder.index));
        for spec in DECODER_SPECS {
            add(format!("decoder {}", decoder.index), base, spec);
        }
    }
}

fn config(bytes: &[u8], list: &mut Vec<Named>) {
    let reader = block::image(bytes);
    let mut rows = |place: &str, start: u16, rows: &[Row]| {
        list.extend(rows.iter().map(|row| Named {
            place: place.to_owned(),
            spec: row.spec,
            component: None,
            at: u32::from(start) + u32::from(row.spec.offset),
        }));
    };
    match EndpointHeader::read(&reader, 0).header_type.layout() {
        1 => rows("header", 0, &BridgeHeader::read(&reader, 0).rows()),
        _ => rows("header", 0, &EndpointHeader::read(&reader, 0).rows()),
    }
    if bytes.len() >= usize::from(config::CONVENTIONAL_SIZE) {
        for found in config::Capabilities::new(&reader).flatten() {
            if found.id == config::CapabilityId::PciExpress {
                let pcie = PcieCapability::read(&reader, found.offset);
                rows(&found.id.to_string(), found.offset, &pcie.rows());
            }
        }
    }
    if bytes.len() > usize::from(config::CONVENTIONAL_SIZE) {
        for found in Dvsecs::new(&reader).flatten() {
            let place = format!("DVSEC {}", found.id);
            let found_rows: Vec<Row> = found.rows(&reader).collect();
            rows(&place, found.offset, &found_rows);
        }
    }
}
