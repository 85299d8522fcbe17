//! Configuration space that our image reads without leaving the guest: for each function that
//! answers, a page of memory that is mapped read-only. Writes leave the guest as ever.
//!
//! The library counts its accesses either way; see [`Guest::hand_over`](super::Guest).
//!
//! **Invariant**: whenever the guest runs, each page holds what the model would answer now. A
//! function whose answers depend on how often it was asked has no page, and none has one while
//! accesses are recorded.

use cxl_regs::config::CONFIG_SIZE;

use crate::backing::Backing;
use crate::kvm::Slot;
use crate::machine::{Machine, PAGE};
use crate::scenario::Place;

// A function's configuration space is a page of the processor's: what is mapped is its alone.
const _: () = assert!(CONFIG_SIZE as u64 == PAGE);

/// A function's page.
#[derive(Debug)]
struct Page {
    place: Place,
    address: u64,
    /// Where in the memory.
    offset: u64,
    /// What the function's count of changes was when the page was filled.
    version: Option<u64>,
}

/// The pages of all functions that have one.
#[derive(Debug)]
pub struct ConfigPages {
    memory: Backing,
    pages: Vec<Page>,
}

impl ConfigPages {
    /// None yet, and room for one of every function.
    pub fn new(machine: &Machine) -> Self {
        let room = machine.places().len() as u64 * PAGE;
        Self { memory: Backing::new(room), pages: Vec::new() }
    }

    /// Finds out anew which functions answer, and where; as many of them as there are slots for.
    pub fn relocate(&mut self, machine: &Machine, most: usize) {
        let found = if machine.recorder().keeps() { Vec::new() } else { machine.functions() };
        let steady = found.into_iter().filter(|(_, place)| !machine.counts_reads_of(*place));
        let placed = steady.take(most).zip((0..).step_by(PAGE as usize));
        let page = |((address, place), offset)| Page { place, address, offset, version: None };
        self.pages = placed.map(page).collect();
    }

    /// Fills the pages of functions that have changed.
    pub fn refresh(&mut self, machine: &Machine) {
        for page in &mut self.pages {
            let Some(function) = machine.function(page.place) else { continue };
            let version = Some(function.version());
            if page.version != version {
                let dwords = (0..CONFIG_SIZE).step_by(4).map(|at| function.read(at).to_le_bytes());
                let bytes: Vec<u8> = dwords.flatten().collect();
                // There is room for a page of every function.
                let filled = self.memory.write(page.offset, &bytes);
                page.version = version.filter(|_| filled);
            }
        }
    }

    /// The slots; none that could not be filled.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        let memory = self.memory.region();
        self.pages.iter().filter(|page| page.version.is_some()).filter_map(move |page| {
            let (base, size, offset) = (page.address, PAGE, page.offset);
            Some(Slot { base, size, memory: memory?.clone(), offset, read_only: true })
        })
    }
}
