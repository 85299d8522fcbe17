//! Registers that our image reads without leaving the guest: pages of memory that are mapped read-only.
//! Of each function that answers there is one of configuration space; and, as long as the image lists
//! what it reads there ([`Listed`]), of each component one of its CXL.cache and CXL.mem registers, and of
//! each mailbox. Writes leave the guest as ever.
//!
//! The library counts its accesses either way; see [`Guest::hand_over`](super::Guest).
//!
//! **Invariant**: whenever the guest runs, each page holds what the model would answer now. What answers
//! by how often or when it was asked has no page, and nothing has one while accesses are recorded.

use std::collections::BTreeMap;

use cxl_image::doorbell::MOST_LISTED;
use cxl_regs::config::CONFIG_SIZE;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::kvm::Slot;
use cxl_model::backing::Backing;
use cxl_model::machine::{Machine, PAGE};
use cxl_model::scenario::Place;
use cxl_model::trace::Target;

// A function's configuration space is a page of the processor's: what is mapped is its alone.
const _: () = assert!(CONFIG_SIZE as u64 == PAGE);

/// What a page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shown {
    /// The configuration space of a function.
    Config(Place),
    /// The registers behind a component's capability array.
    Component(Place),
    /// The registers of the device with this number.
    Device(usize),
}

impl Shown {
    /// A number that is another one after every change; `None` for what is not there.
    fn version(self, machine: &Machine) -> Option<u64> {
        match self {
            Self::Config(place) => machine.function(place).map(|function| function.version()),
            Self::Component(place) => machine.component(place).map(|block| block.changes()),
            Self::Device(device) => {
                machine.endpoint(device)?.mailbox.as_ref().map(|mailbox| mailbox.version())
            }
        }
    }

    /// The dwords that are not 0 for ever, each with its offset.
    fn dwords(self, machine: &Machine) -> Vec<(u16, u32)> {
        match self {
            Self::Config(place) => machine.function(place).map_or_else(Vec::new, |function| {
                (0..CONFIG_SIZE).step_by(4).map(|at| (at, function.read(at))).collect()
            }),
            Self::Component(place) => {
                machine.component(place).map_or_else(Vec::new, |block| block.dwords().collect())
            }
            Self::Device(device) => {
                let mailbox = machine.endpoint(device).and_then(|it| it.mailbox.as_ref());
                mailbox.map_or_else(Vec::new, |mailbox| {
                    let bytes = mailbox.bytes().len().min(PAGE as usize) as u16;
                    (0..bytes).step_by(4).map(|at| (at, mailbox.read(at))).collect()
                })
            }
        }
    }
}

/// One page, where it is now.
#[derive(Debug)]
struct Page {
    shown: Shown,
    address: u64,
    /// Where in the memory: whatever its address, what it shows keeps its page.
    offset: u64,
}

/// The pages of all that have one.
#[derive(Debug)]
pub struct RegisterPages {
    memory: Backing,
    /// Where in the memory the page of each is, and its version when the page was filled.
    filled: BTreeMap<Shown, (u64, Option<u64>)>,
    pages: Vec<Page>,
}

impl RegisterPages {
    /// None yet, and room for all there can be.
    pub fn new(machine: &Machine) -> Self {
        let of = |place| {
            let device = if let Place::Device(device) = place { Some(device) } else { None };
            let shown = [Shown::Config(place), Shown::Component(place)];
            shown.into_iter().chain(device.map(Shown::Device))
        };
        let shown = machine.places().into_iter().flat_map(of);
        let offsets = (0..).step_by(PAGE as usize).map(|offset| (offset, None));
        let filled: BTreeMap<_, _> = shown.zip(offsets).collect();
        let memory = Backing::new(filled.len() as u64 * PAGE);
        Self { memory, filled, pages: Vec::new() }
    }

    /// Finds out anew what answers, and where; beside configuration space only if reads are `listed`.
    pub fn relocate(&mut self, machine: &Machine, listed: bool) {
        let mut found = Vec::new();
        if !machine.recorder().keeps() {
            let functions = machine.functions().into_iter();
            let steady = functions.filter(|(_, place)| !machine.counts_reads_of(*place));
            found.extend(steady.map(|(address, place)| (address, Shown::Config(place))));
            let others = if listed { machine.register_pages() } else { Vec::new() };
            found.extend(others.into_iter().filter_map(|(address, target)| match target {
                Target::Component { place, .. } => Some((address, Shown::Component(place))),
                Target::DeviceRegisters { device, .. } => Some((address, Shown::Device(device))),
                _ => None,
            }));
        }
        let page = |(address, shown)| {
            let (offset, _) = *self.filled.get(&shown)?;
            Some(Page { shown, address, offset })
        };
        self.pages = found.into_iter().filter_map(page).collect();
    }

    /// Fills the pages of what has changed.
    pub fn refresh(&mut self, machine: &Machine) {
        for page in &self.pages {
            let Some((_, filled)) = self.filled.get_mut(&page.shown) else { continue };
            let version = page.shown.version(machine);
            if *filled != version {
                let mut dwords = page.shown.dwords(machine).into_iter();
                // There is room for a page of each, if there is any.
                let all = dwords.all(|(at, dword)| {
                    self.memory.write(page.offset + u64::from(at), &dword.to_le_bytes())
                });
                *filled = version.filter(|_| all);
            }
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty() || self.memory.size() == 0
    }

    /// Whether a register that is listed is read without an exit, when there are slots for `room` pages.
    pub fn shows_listed(&self, address: u64, room: usize) -> bool {
        self.pages.iter().take(room).any(|page| {
            let inside = address.checked_sub(page.address).is_some_and(|within| within < PAGE);
            inside && !matches!(page.shown, Shown::Config(_))
        })
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

/// Where our image lists the addresses of registers that it reads, which nobody else may have seen:
/// their number, then as many, of eight bytes each.
///
/// The image notes each one before it reads there, and as dwords, which is all that its code reads
/// registers by; of what was read otherwise nothing would be known. A run with `--trace` sees the same
/// image make the same accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// First byte, in RAM.
    pub address: u64,
}

impl Listed {
    /// Takes what is listed, and empties the list. A number that cannot be is taken for none.
    pub fn take(self, ram: &GuestMemoryMmap) -> Vec<u64> {
        let start = GuestAddress(self.address);
        let count = ram.read_obj::<u64>(start).unwrap_or(0);
        if count == 0 || count > MOST_LISTED as u64 {
            return Vec::new();
        }
        let mut bytes = vec![0; 8 * count as usize];
        let listed = start.0.checked_add(8).map(GuestAddress);
        let read = listed.is_some_and(|at| ram.read_slice(&mut bytes, at).is_ok());
        if !read || ram.write_obj(0_u64, start).is_err() {
            return Vec::new();
        }
        let entries = bytes.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok());
        entries.map(u64::from_le_bytes).collect()
    }
}
