//! Configuration space that our image reads without leaving the guest: for each function that
//! answers, a page of memory that is mapped read-only. Writes leave the guest as ever.
//!
//! The library counts its accesses either way; see [`Guest::hand_over`](super::Guest).
//!
//! **Invariant**: whenever the guest runs, each page holds what the model would answer now. A
//! function whose answers depend on how often it was asked has no page, and none has one while
//! accesses are recorded.

use std::collections::BTreeMap;

use cxl_regs::config::CONFIG_SIZE;

use crate::kvm::Slot;
use cxl_model::backing::Backing;
use cxl_model::machine::{Machine, PAGE};
use cxl_model::scenario::Place;

// A function's configuration space is a page of the processor's: what is mapped is its alone.
const _: () = assert!(CONFIG_SIZE as u64 == PAGE);

/// A function's page.
#[derive(Debug)]
struct Page {
    place: Place,
    address: u64,
    /// Where in the memory: whatever its address, a function keeps its page.
    offset: u64,
}

/// The pages of all functions that have one.
#[derive(Debug)]
pub struct ConfigPages {
    memory: Backing,
    /// Where the page of each function is in the memory, and what the function's count of changes
    /// was when the page was filled.
    filled: BTreeMap<Place, (u64, Option<u64>)>,
    pages: Vec<Page>,
}

impl ConfigPages {
    /// None yet, and room for one of every function.
    pub fn new(machine: &Machine) -> Self {
        let offsets = (0..).step_by(PAGE as usize).map(|offset| (offset, None));
        let filled: BTreeMap<_, _> = machine.places().into_iter().zip(offsets).collect();
        let memory = Backing::new(filled.len() as u64 * PAGE);
        Self { memory, filled, pages: Vec::new() }
    }

    /// Finds out anew which functions answer, and where.
    pub fn relocate(&mut self, machine: &Machine) {
        let found = if machine.recorder().keeps() { Vec::new() } else { machine.functions() };
        let steady = found.into_iter().filter(|(_, place)| !machine.counts_reads_of(*place));
        let page = |(address, place)| {
            let (offset, _) = *self.filled.get(&place)?;
            Some(Page { place, address, offset })
        };
        self.pages = steady.filter_map(page).collect();
    }

    /// Fills the pages of functions that have changed.
    pub fn refresh(&mut self, machine: &Machine) {
        for page in &self.pages {
            let filled = self.filled.get_mut(&page.place).map(|(_, version)| version);
            let Some((function, filled)) = machine.function(page.place).zip(filled) else {
                continue;
            };
            let version = Some(function.version());
            if *filled != version {
                let dwords = (0..CONFIG_SIZE).step_by(4).map(|at| function.read(at).to_le_bytes());
                let bytes: Vec<u8> = dwords.flatten().collect();
                // There is room for a page of every function, if there is any.
                *filled = version.filter(|_| self.memory.write(page.offset, &bytes));
            }
        }
    }

    /// Whether any function has one.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty() || self.memory.size() == 0
    }

    /// The slots.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        let memory = self.memory.region();
        self.pages.iter().filter_map(move |page| {
            let (base, size, offset) = (page.address, PAGE, page.offset);
            Some(Slot { base, size, memory: memory?.clone(), offset, read_only: true })
        })
    }
}
