//! The machine in the end, or as an attack found it, where that is not what the firmware handed over.
//!
//! **Invariant**: it is made of registers and slots alone, as the state at the hand-off is, and is
//! left out only if nothing of it differs.

use schemars::JsonSchema;
use serde::Serialize;

use super::findings::Findings;
use super::locks::Locks;
use super::{Decoder, Mapping, Seen, address, decoders};
use crate::guest::Snapshot;
use crate::vigil::Moment;
use cxl_model::machine::Machine;
use cxl_model::mapping;

/// A memory slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct SlotRange {
    /// First address.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub hpa: u64,
    /// Bytes.
    #[serde(serialize_with = "address")]
    #[schemars(with = "String")]
    pub size: u64,
}

/// A machine at a later moment than the hand-off.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct LastState {
    /// Which moment.
    pub moment: String,
    /// What the locks protect.
    pub locks: Locks,
    /// Decoders in use, by their registers.
    pub decoders: Vec<Decoder>,
    /// What the registers say of the windows.
    pub mappings: Vec<Mapping>,
    /// Slots of CXL memory.
    pub slots: Vec<SlotRange>,
    /// The registers, and what pictures show besides.
    #[serde(skip)]
    pub seen: Seen,
    /// Lines of these that are other than they were.
    #[serde(skip)]
    pub(super) changed: Changed,
}

/// Which parts are other than at the hand-off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) decoders: bool,
    pub(super) mappings: bool,
    pub(super) slots: bool,
    pub(super) locks: bool,
}

impl LastState {
    /// What has changed from one moment to another; `None` if nothing has.
    pub(super) fn since(then: &Snapshot, now: &Snapshot, moment: &Moment) -> Option<Self> {
        let (before, after) = (parts(&then.machine), parts(&now.machine));
        let slots = |at: &Snapshot| -> Vec<SlotRange> {
            at.slots.memory.iter().map(|&(hpa, size)| SlotRange { hpa, size }).collect()
        };
        let images = |decoders: &[Decoder]| -> Vec<_> {
            let image = |d: &Decoder| (d.component.clone(), d.text.index, d.text.image.to_dwords());
            decoders.iter().map(image).collect()
        };
        let changed = Changed {
            decoders: images(&before.0) != images(&after.0),
            mappings: before.1 != after.1,
            slots: slots(then) != slots(now),
            locks: before.2 != after.2,
        };
        let (decoders, mappings, locks) = after;
        (changed != Changed::default()).then(|| Self {
            moment: moment.to_string(),
            locks,
            decoders,
            mappings,
            slots: slots(now),
            seen: {
                let mut seen = Seen::of(now.machine.fabric());
                seen.sealed_by(&now.machine);
                seen
            },
            changed,
        })
    }
}

fn parts(machine: &Machine) -> (Vec<Decoder>, Vec<Mapping>, Locks) {
    let fabric = machine.fabric();
    let mut unheard = Findings::at(Moment::End);
    let decoders = decoders::decoders(machine.scenario(), &fabric, None, &mut unheard);
    let mappings = mapping::mappings(&fabric);
    let mappings = mappings.iter().map(|mapping| Mapping::of(&fabric, mapping)).collect();
    (decoders, mappings, Locks::of(machine))
}
