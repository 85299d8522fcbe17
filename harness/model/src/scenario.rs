//! A scenario: the machine, the policy and the misfortunes of one run, as plain text (TOML).
//!
//! Two layers. `document` is what serde reads: names, optional keys, spans. [`Scenario`] is what
//! the rest of the harness sees: every default filled in, every name resolved to an index.
//!
//! **Invariant**: a [`Scenario`] describes a machine that can be built: every reference leads
//! somewhere, every tree is a tree, and every number fits the register that has to say it. What a
//! machine *can* be but firmware must refuse (a window that nobody decodes, a window too small, a
//! target that does not exist) stays expressible.

mod builtin;
mod document;
mod error;
mod faults;
mod leaks;
mod modes;
mod names;
mod resolve;
mod values;

use std::collections::BTreeMap;
use std::fmt;

use cxl_regs::acpi::cedt::Restrictions;
use cxl_regs::{Arithmetic, Coherency, Granularity, Hpa, Interleave, Span};
use serde::Deserialize;

pub use crate::fabric::Parent;

pub use builtin::{Builtin, builtin, builtins};
pub use error::{Problem, ScenarioError};
pub use leaks::{Leak, LeakBy, LeakValue, LeakWhen, VENDOR_MEMORY};
pub use modes::AttackMode;
pub use values::Bytes;

/// PCI segments there is room for.
pub const SEGMENTS: u16 = 2;
/// Ports on one bus: PCI has 32 devices.
pub const SLOTS: usize = 32;

/// The number of bytes that a text says, with or without a unit: `256MiB`, `0x10000000`, `4096`.
pub fn bytes(text: &str) -> Option<u64> {
    Bytes::parse(text).map(|bytes| bytes.0)
}

/// One run's input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// The name it was found by: a built-in's name or a file's path.
    pub name: String,
    /// One line for lists.
    pub description: String,
    /// What is not CXL.
    pub platform: Platform,
    /// Host bridges in file order.
    pub bridges: Vec<Bridge>,
    /// Root ports and switches' downstream ports in file order.
    pub ports: Vec<Port>,
    /// Switches in file order.
    pub switches: Vec<Switch>,
    /// Devices in file order.
    pub devices: Vec<Device>,
    /// Fixed memory windows in file order.
    pub windows: Vec<Window>,
    /// How the firmware shall run.
    pub policy: Policy,
    /// Components that the firmware is not to touch.
    pub leave_out: Vec<Place>,
    /// Room that the firmware is to keep for devices that come later.
    pub reserve: Vec<Reserve>,
    /// Where memory was before: no file says it, but whoever has a record of an earlier run.
    pub earlier: Vec<Earlier>,
    /// What to map where; devices without a region follow the policy's default.
    pub regions: Vec<Region>,
    /// What is broken.
    pub faults: Vec<Fault>,
    /// Locks that let something through.
    pub leaks: Vec<Leak>,
    /// Modes of an attack on the locks, besides its own.
    pub modes: Vec<AttackMode>,
    /// What happens while a guest runs, in order of time.
    pub events: Vec<Event>,
    /// UIDs that no bridge has, by the names that windows call them.
    pub nobodies: BTreeMap<u32, String>,
    /// What whoever wrote the text may have meant otherwise, each with its place in it.
    pub remarks: Vec<String>,
}

impl Scenario {
    /// The built-in scenario of this name.
    pub fn built_in(name: &str) -> Option<Self> {
        builtin(name).and_then(|builtin| Self::parse(builtin.text, builtin.name).ok())
    }

    /// A component's name; empty for one that it does not have.
    pub fn name_of(&self, place: Place) -> &str {
        let name = match place {
            Place::Bridge(index) => self.bridges.get(index).map(|bridge| &bridge.name),
            Place::Port(index) => self.ports.get(index).map(|port| &port.name),
            Place::Switch(index) => self.switches.get(index).map(|switch| &switch.name),
            Place::Device(index) => self.devices.get(index).map(|device| &device.name),
        };
        name.map_or("", String::as_str)
    }

    /// Who is called by a name that no bridge has, where such a UID is in a table.
    pub fn no_such_bridge(&self, uid: u32) -> Option<String> {
        let names: Vec<_> = self.bridges.iter().map(|bridge| bridge.name.clone()).collect();
        self.nobodies.get(&uid).map(|name| resolve::no_such_bridge(name, &names))
    }

    /// How many buses a bridge needs: its own, one below each port, one inside each switch.
    pub fn buses_of(&self, bridge: usize) -> usize {
        let below = |port: usize| self.bridge_above(port) == Some(bridge);
        let ports = (0..self.ports.len()).filter(|&port| below(port)).count();
        1 + ports + self.switches.iter().filter(|switch| below(switch.port)).count()
    }

    /// The bridge that a port finally hangs below.
    fn bridge_above(&self, mut port: usize) -> Option<usize> {
        for _ in 0..=self.switches.len() {
            match self.ports.get(port)?.parent {
                Parent::Bridge(bridge) => return Some(bridge),
                Parent::Switch(switch) => port = self.switches.get(switch)?.port,
            }
        }
        None
    }

    /// The scenario that the text describes. `name` is what errors call the file.
    pub fn parse(text: &str, name: &str) -> Result<Self, ScenarioError> {
        resolve::scenario(text, name)
    }
}

/// The machine around the CXL hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Width of a physical address.
    pub physical_bits: u8,
    /// Guest RAM in bytes.
    pub memory: u64,
    /// Where RAM begins, all of it, if it does not begin at 0; then there is room for a window there, and
    /// no guest can be started.
    pub memory_base: Option<Hpa>,
    /// The board's firmware has given out bus numbers, windows and BARs already.
    pub assigned: bool,
    /// Decoders make every check that hardware may make; otherwise each commit succeeds at once.
    pub strict: bool,
    /// Where the windows come from.
    pub windows: WindowSource,
}

/// Where a machine's windows come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WindowSource {
    /// They are fixed, and [`Scenario::windows`] has them.
    #[default]
    Given,
    /// Software programs the root complex: it sizes and places them by what it finds, also over several
    /// bridges at a granularity if there is one. See
    /// [`Machine::program_windows`](crate::machine::Machine::program_windows).
    Sized {
        /// The granularity of those over several bridges.
        across: Option<Granularity>,
    },
}

/// A host bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// ACPI `_UID`, what CHBS and CFMWS call it.
    pub uid: u32,
    /// PCI segment.
    pub segment: u16,
    /// Root bus.
    pub bus: u8,
    /// HDM decoders; 0 = no HDM capability.
    pub decoders: u8,
    /// Ports that one decoder can list: 1, 2, 4 or 8.
    pub target_count: u8,
    /// Generation.
    pub version: BridgeVersion,
    /// Has a path for back-invalidate.
    pub back_invalidate: bool,
    /// Can route CXL.cache by Cache ID.
    pub cache_id: bool,
    /// Firmware is told which root bus belongs to the UID.
    pub bus_known: bool,
}

/// The generation of a host bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum BridgeVersion {
    /// CXL 1.1: a restricted host (RCH), found by its RCRB.
    #[serde(rename = "1.1")]
    Cxl1,
    /// CXL 2.0 or later.
    #[default]
    #[serde(rename = "2.0")]
    Cxl2,
}

/// A root port or a switch's downstream port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Whose port it is.
    pub parent: Parent,
    /// PCIe Port Number (Link Capabilities bits 31:24): what target lists hold.
    pub number: u8,
    /// Its component registers have HDM decoders, which mean nothing there and have to be ignored.
    pub hdm: bool,
}

/// A switch; its downstream ports are [`Port`]s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Its name.
    pub name: String,
    /// The port it hangs below, an index into [`Scenario::ports`].
    pub port: usize,
    /// HDM decoders of its upstream port.
    pub decoders: u8,
    /// Ports that one decoder can list: 1, 2, 4 or 8.
    pub target_count: u8,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The port it hangs below, an index into [`Scenario::ports`].
    pub port: usize,
    /// What it is.
    pub kind: DeviceKind,
    /// Volatile bytes, at DPA 0; a multiple of 256 MiB.
    pub volatile: u64,
    /// Persistent bytes, behind the volatile ones; a multiple of 256 MiB.
    pub persistent: u64,
    /// The coherency its memory has.
    pub coherency: Coherency,
    /// HDM decoders.
    pub decoders: u8,
    /// HPA bits it can select on.
    pub selects: Selects,
    /// Can do 3, 6 and 12 ways.
    pub ways_3_6_12: bool,
    /// Can do 16 ways.
    pub ways_16: bool,
    /// Serial number.
    pub serial: u64,
    /// Plugged in when the machine starts; otherwise an event adds it.
    pub present: bool,
}

/// What an endpoint is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// An accelerator with memory: CXL.cache and CXL.mem.
    Type2,
    /// A memory expander: CXL.mem only.
    #[default]
    Type3,
}

/// The HPA bits that a device's decoders can select on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Selects {
    /// Bits 11:8 only.
    #[serde(rename = "11:8")]
    Low,
    /// Bits 14:12 only.
    #[serde(rename = "14:12")]
    High,
    /// Both groups.
    #[default]
    #[serde(rename = "14:8")]
    Both,
}

/// A range of host addresses that the platform hands to host bridges (CFMWS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its name.
    pub name: String,
    /// Bridge UIDs, way 0 first. A name that no bridge has became a UID that no bridge has.
    pub targets: Vec<u32>,
    /// Bytes.
    pub size: u64,
    /// Where it lies; `None` = [`place_windows`](crate::layout::place_windows) decides.
    pub base: Option<Hpa>,
    /// Where hardware has it, if the machine is one that devices are handed over to; then all windows
    /// have it. See [`hardware_of`](crate::machine::hardware_of).
    pub host: Option<Hpa>,
    /// As many ways as targets, at HBIG.
    pub interleave: Interleave,
    /// What devices without a region get here; `None` = what the policy says.
    pub width: Option<InterleavePolicy>,
    /// How an address picks a target.
    pub arithmetic: Arithmetic,
    /// Maps of the XOR arithmetic (CXIMS).
    pub xor_maps: Vec<u64>,
    /// What may live in it.
    pub restrictions: Restrictions,
    /// QTG ID.
    pub qtg: u16,
}

/// How the firmware shall run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Who programs the decoders, and whether they are locked.
    pub path: PathPolicy,
    /// Set CONFIG_LOCK in the Device DVSEC at the end.
    pub config_lock: bool,
    /// Commit and lock spare decoders at size 0.
    pub burn_spares: bool,
    /// Whose rules a plan has to please.
    pub target: Target,
    /// Enable CXL.cache on devices that have it.
    pub enable_cache: bool,
    /// What devices without a region get, in windows that do not say themselves.
    pub interleave: InterleavePolicy,
    /// Sets of what is left of devices that are larger than the smallest of their set.
    pub leftovers: bool,
    /// Ask the memory itself whether it answers before it is described.
    pub probe: bool,
    /// Which of several windows that fit a device gets.
    pub prefer: Prefer,
    /// What a component that fails costs.
    pub on_failure: OnFailure,
    /// With best effort: what becomes of the rest of a set that loses a member.
    pub broken_sets: BrokenSets,
    /// With best effort: all is committed without locks first.
    pub trial: bool,
}

/// Which of several windows that fit a device gets, where none is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prefer {
    /// None: it is refused.
    #[default]
    None,
    /// The one over the most bridges that it can be in a set of.
    Widest,
    /// The one over the fewest.
    Narrowest,
    /// The lowest.
    Lowest,
}

/// What becomes of the rest of a set that loses a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BrokenSets {
    /// Smaller sets, then ranges of their own.
    #[default]
    Narrower,
    /// Ranges of their own.
    Flat,
    /// Nothing.
    Unused,
}

/// What a component that fails costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// All of the machine's memory.
    #[default]
    Strict,
    /// Itself, and what is below it.
    BestEffort,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            path: PathPolicy::LockAll,
            config_lock: true,
            burn_spares: false,
            target: Target::Linux,
            enable_cache: false,
            interleave: InterleavePolicy::Flat,
            leftovers: false,
            probe: true,
            prefer: Prefer::None,
            on_failure: OnFailure::Strict,
            broken_sets: BrokenSets::Narrower,
            trial: true,
        }
    }
}

/// Who programs the decoders, and whether they are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathPolicy {
    /// Path 1: firmware programs the whole path and locks all of it.
    LockAll,
    /// Path 2: firmware checks that the topology is simple; the guest programs.
    GuestPrograms,
    /// Firmware programs nothing and describes the machine; the operating system programs.
    Describe,
    /// Firmware programs the whole path and locks nothing.
    Unlocked,
}

/// Whose rules a plan has to please.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Only what Linux accepts.
    Linux,
    /// All that the specification allows.
    Specification,
}

/// What devices without a region get: in a file `"flat"`, `"widest"` or such as `"4-way at 1KiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterleavePolicy {
    /// Each device its own range.
    Flat,
    /// Sets as wide as windows and topology allow.
    Widest,
    /// Sets of these ways, over all levels, at this granularity.
    Exactly(Interleave),
}

impl fmt::Display for InterleavePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flat => f.write_str("flat"),
            Self::Widest => f.write_str("widest"),
            Self::Exactly(interleave) => interleave.fmt(f),
        }
    }
}

/// An explicit request: this much of these devices, there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Members, indices into [`Scenario::devices`]; never empty. Which has which position the hardware
    /// says.
    pub devices: Vec<usize>,
    /// Which partition of each.
    pub partition: Partition,
    /// Which window; `None` = the plan decides by topology.
    pub window: Option<WindowChoice>,
    /// Offset in the window; `None` = the plan decides.
    pub offset: Option<u64>,
    /// Bytes of host address space, all members together; `None` = all that is left.
    pub size: Option<u64>,
    /// Bytes of each device's memory left out in front.
    pub skip: u64,
    /// Granularity of a set in a window over one bridge; `None` = the window's.
    pub granularity: Option<Granularity>,
}

/// Room that the firmware is to keep for a device that may be plugged in later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// A port, or a bridge or switch for each empty port below it.
    pub at: Place,
    /// Kind of memory.
    pub partition: Partition,
    /// Bytes for each port.
    pub size: u64,
}

/// A device's part in a region of an earlier run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// UID of the device's bridge.
    pub uid: u32,
    /// Port numbers on the way, root port first.
    pub ports: Vec<u8>,
    /// Kind of memory.
    pub partition: Partition,
    /// The region's host addresses.
    pub span: Span,
    /// The region's interleave.
    pub interleave: Interleave,
}

/// A device's partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Partition {
    /// Forgets without power.
    #[default]
    Volatile,
    /// Does not.
    Persistent,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Volatile => "volatile",
            Self::Persistent => "persistent",
        })
    }
}

/// How a region names its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowChoice {
    /// By name: an index into [`Scenario::windows`].
    Named(usize),
    /// By address: the window with this base, if there is one.
    At(Hpa),
}

/// Something broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub at: Place,
    /// What.
    pub kind: FaultKind,
}

/// A component with registers: an index into the scenario's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A host bridge.
    Bridge(usize),
    /// A root port or downstream port.
    Port(usize),
    /// A switch's upstream port.
    Switch(usize),
    /// A device.
    Device(usize),
}

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A commit of the decoder takes this many reads of Control to finish.
    CommitPolls {
        /// The decoder.
        decoder: u8,
        /// Reads that still see it unfinished.
        polls: u32,
    },
    /// A commit of the decoder never finishes.
    CommitNever {
        /// The decoder.
        decoder: u8,
    },
    /// Every commit of the decoder ends in Error Not Committed.
    CommitError {
        /// The decoder.
        decoder: u8,
    },
    /// Writes to the register are lost once `after` of them have arrived.
    DroppedWrite {
        /// The register.
        register: RegisterAt,
        /// Writes that still work.
        after: u32,
    },
    /// These bits of the register never change.
    StuckBit {
        /// The register.
        register: RegisterAt,
        /// The bits.
        bits: u32,
    },
    /// Every register reads all-ones once this many accesses have arrived.
    AllOnesAfter {
        /// Accesses that still work.
        accesses: u32,
    },
    /// The decoder stores Lock On Commit and ignores it.
    LockNotEnforced {
        /// The decoder.
        decoder: u8,
    },
    /// Lock On Commit of the committed decoder becomes 0, and locks nothing any more, once Control
    /// was read this many times.
    LockLost {
        /// The decoder.
        decoder: u8,
        /// Reads that still see it.
        reads: u32,
    },
    /// A write to these bits of a decoder's register changes them in another decoder too, locked or
    /// not.
    LeaksInto {
        /// The decoder that is written.
        decoder: u8,
        /// The register, in both.
        register: DecoderRegister,
        /// The bits.
        bits: u32,
        /// The decoder that changes with it.
        into: u8,
    },
    /// Whatever the decoders say, no access to memory gets past the component.
    Unrouted,
    /// The device has less memory than it says: these bits of its own addresses mean nothing.
    Wraps {
        /// The bits.
        bits: u32,
    },
    /// These bits of the register stay writable although they are locked.
    LeaksField {
        /// The register.
        register: RegisterAt,
        /// The bits.
        bits: u32,
    },
}

/// A register that a fault can sit in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterAt {
    /// A dword of an HDM decoder.
    Decoder {
        /// The decoder.
        decoder: u8,
        /// The dword.
        register: DecoderRegister,
    },
    /// HDM Decoder Global Control.
    GlobalControl,
    /// The Device DVSEC's dword at this offset from its header.
    Dvsec {
        /// The offset, a multiple of 4.
        offset: u16,
    },
}

/// The dwords of one HDM decoder that hold something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecoderRegister {
    /// Base Low.
    BaseLow,
    /// Base High.
    BaseHigh,
    /// Size Low.
    SizeLow,
    /// Size High.
    SizeHigh,
    /// Control.
    Control,
    /// Target List Low or DPA Skip Low.
    RouteLow,
    /// Target List High or DPA Skip High.
    RouteHigh,
}

/// Something that happens while a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When: the guest's own count.
    pub at: u64,
    /// What.
    pub action: Action,
    /// The machine is to refuse it; a run in which it does not is not as it should be.
    pub refused: bool,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The device is plugged in.
    HotAdd {
        /// An index into [`Scenario::devices`].
        device: usize,
    },
    /// The device is pulled out.
    HotRemove {
        /// An index into [`Scenario::devices`].
        device: usize,
    },
    /// A reset; `device` is `None` for a reset of the whole machine.
    Reset {
        /// The kind of reset.
        kind: ResetKind,
        /// An index into [`Scenario::devices`].
        device: Option<usize>,
    },
}

/// A kind of reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResetKind {
    /// Power taken away.
    Cold,
    /// Conventional, power kept.
    Warm,
    /// Conventional, in band (secondary bus reset).
    Hot,
    /// CXL Reset of one device.
    Cxl,
    /// Function level reset of one device.
    Flr,
}

impl fmt::Display for ResetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cold => "cold reset",
            Self::Warm => "warm reset",
            Self::Hot => "hot reset",
            Self::Cxl => "CXL Reset",
            Self::Flr => "function level reset",
        })
    }
}
