//! The machine as Linux comes to see it: its objects as plain data, which the steps of
//! [`linux`](super::linux), [`table`](super::table) and [`region`](super::region) fill in turn.
//!
//! **Invariant**: numbers and indices are Linux's; nothing here decides anything.

use cxl_regs::acpi::cedt::Restrictions;

use super::Finding;
pub(super) use super::codes::{granularity, granularity_code, ways, ways_code};
use super::input::Input;
use super::kernel::Linux;

/// A range of addresses, both ends included; empty if the end is the address before the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressRange {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl AddressRange {
    pub(super) fn of(base: u64, size: u64) -> Self {
        Self { start: base, end: base.wrapping_add(size).wrapping_sub(1) }
    }

    pub(super) fn length(self) -> u64 {
        self.end.wrapping_sub(self.start).wrapping_add(1)
    }

    pub(super) fn is_empty(self) -> bool {
        self.end < self.start
    }

    pub(super) fn contains(self, other: Self) -> bool {
        self.start <= other.start && self.end >= other.end
    }

    /// Whether they share addresses and neither holds the other.
    pub(super) fn overlaps_in_part(self, other: Self) -> bool {
        let share = self.start <= other.end && other.start <= self.end;
        share && !self.contains(other) && !other.contains(self)
    }
}

impl std::fmt::Display for AddressRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start, self.end)
    }
}

/// What became of a host bridge in the table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Host {
    /// It has a CHBS.
    pub(super) known: bool,
    /// It is a CXL 1.1 host.
    pub(super) restricted: bool,
    /// Its port, an index into [`System::ports`].
    pub(super) port: Option<usize>,
}

/// A window.
#[derive(Clone, Debug)]
pub(super) struct Root {
    pub(super) id: usize,
    /// Its place in the table.
    pub(super) window: usize,
    pub(super) range: AddressRange,
    pub(super) ways: u64,
    pub(super) granularity: u64,
    /// Bridges, way 0 first; `None` where nobody said which there are.
    pub(super) targets: Vec<Option<usize>>,
    pub(super) restrictions: Restrictions,
    /// The number that its next region gets.
    pub(super) next_region: usize,
}

/// Whose port it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bridge(usize),
    Switch(usize),
    /// A device, and the number of its memory device.
    Endpoint(usize, usize),
}

/// A port, as Linux has it.
#[derive(Clone, Debug)]
pub(super) struct PortState {
    pub(super) kind: Kind,
    pub(super) id: usize,
    /// The port above; `None` = the root.
    pub(super) parent: Option<usize>,
    /// The downstream port above, an index into [`Input::ports`]; none above a bridge.
    pub(super) dport: Option<usize>,
    /// The host bridge at the top.
    pub(super) bridge: usize,
    /// Nobody knows its registers.
    pub(super) unknown: bool,
    pub(super) pass_through: bool,
    pub(super) decoders: Vec<Decoder>,
    pub(super) target_count: u64,
    pub(super) selectors: u64,
    pub(super) ways: u64,
    pub(super) regions: Vec<RegionRef>,
}

/// Volatile or persistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Ram,
    Pmem,
}

/// A decoder, as Linux has it.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    pub(super) range: AddressRange,
    pub(super) ways: u64,
    pub(super) granularity: u64,
    pub(super) enabled: bool,
    pub(super) locked: bool,
    pub(super) host_only: bool,
    /// Downstream ports, indices into [`Input::ports`].
    pub(super) targets: Vec<Option<usize>>,
    /// Device memory; `None` if it is not known.
    pub(super) dpa: Option<AddressRange>,
    pub(super) mode: Option<Mode>,
}

/// The machine as Linux comes to see it.
pub(super) struct System<'i> {
    pub(super) input: &'i Input,
    pub(super) linux: Linux,
    pub(super) findings: Vec<Finding>,
    pub(super) hosts: Vec<Host>,
    pub(super) roots: Vec<Root>,
    pub(super) ports: Vec<PortState>,
    pub(super) regions: Vec<Region>,
    pub(super) next_region: usize,
    pub(super) switches: Vec<Option<Option<usize>>>,
    pub(super) memory_devices: usize,
}

/// A region.
#[derive(Clone, Debug)]
pub(super) struct Region {
    pub(super) id: usize,
    /// Its window, an index into [`System::roots`].
    pub(super) root: usize,
    pub(super) range: AddressRange,
    pub(super) ways: u64,
    pub(super) granularity: u64,
    pub(super) mode: Option<Mode>,
    pub(super) host_only: bool,
    pub(super) members: Vec<Member>,
    /// Assembled, or given up.
    pub(super) done: Option<bool>,
    /// Nobody knows all of its path.
    pub(super) unknown: bool,
    pub(super) locked: bool,
}

/// A member of a region: an endpoint's decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// An index into [`System::ports`].
    pub(super) port: usize,
    pub(super) decoder: usize,
    pub(super) position: u64,
}

/// A region's place in a port.
#[derive(Clone, Debug)]
pub(super) struct RegionRef {
    pub(super) region: usize,
    pub(super) decoder: usize,
    pub(super) targets: u64,
    pub(super) targets_set: u64,
    /// The members below, each with the port between, if there is one.
    pub(super) endpoints: Vec<(Member, Option<usize>)>,
}
