//! A scenario as a QEMU command line, and what of it QEMU has no words for.
//!
//! **Invariant**: a scenario becomes a command line only if the machine that QEMU makes of it
//! differs from the scenario's in nothing that the scenario says, but in what [`NOTES`] says of
//! every QEMU and [`Command::notes`] of this one. No property is dropped in silence.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use cxl_firmware::plan;
use cxl_regs::acpi::cedt::Restrictions;
use cxl_regs::{Arithmetic, Coherency, DECODER_UNIT, Size};

use super::offers::Offers;
use super::process::{ADDRESS_BITS, Arch};
use crate::run::{self, DirectRun};
use cxl_model::layout::place_windows;
use cxl_model::machine::Machine;
use cxl_model::scenario::{
    Action, Bridge, BridgeVersion, Device, DeviceKind, FaultKind, Parent, Place, Scenario, Selects,
    WindowSource,
};
use cxl_model::words::counted;

/// Decoders of each QEMU component since 8.2 (`CXL_HDM_DECODER_COUNT` in
/// `include/hw/cxl/cxl_component.h`).
const DECODERS: u8 = 4;
/// Targets of each of their bridges' and switches' decoders.
const TARGET_COUNT: u8 = 8;
/// Label storage that a persistent device has to have.
const LABELS: u64 = 1 << 20;

/// What every QEMU does otherwise than hardware and than the models here, whatever the scenario.
pub const NOTES: [&str; 2] = [
    "QEMU stores Lock On Commit and CONFIG_LOCK and enforces neither: the verifier sees locked \
     decoders, an attack changes them",
    "QEMU makes none of the checks at commit (order, overlap, encodings, targets)",
];

/// What QEMU has no words for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// What it is about: a component's, window's or key's name.
    pub at: String,
    /// What the scenario wants, and what QEMU has instead.
    pub why: Why,
}

/// Why QEMU cannot be it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// A CXL 1.1 host bridge.
    Restricted,
    /// A segment other than 0.
    Segment(u16),
    /// A UID that is not the root bus's number, or no bus that a pxb-cxl can have.
    UidIsBus {
        /// The UID.
        uid: u32,
        /// The root bus.
        bus: u8,
    },
    /// A number of decoders.
    Decoders {
        /// How many the component has.
        want: u8,
        /// Whether QEMU could hide them: a bridge with one port.
        one_port: bool,
    },
    /// A number of targets.
    Targets(u8),
    /// A mode for an attack: its registers are elsewhere there.
    Mode,
    /// The path for back-invalidate, on a QEMU without.
    BackInvalidate,
    /// Back-invalidate without a path for it.
    NoPath,
    /// Routing of CXL.cache.
    CacheId,
    /// HDM decoders in a port.
    PortDecoders,
    /// A switch below a switch.
    SwitchBelowSwitch,
    /// An accelerator.
    Type2,
    /// A coherency other than host-only.
    Coherency,
    /// A device that can select on some bits alone.
    Selects,
    /// A device that cannot do all ways.
    FewerWays,
    /// A device without memory.
    NoMemory,
    /// A device that comes later.
    Absent,
    /// XOR arithmetic.
    Xor,
    /// A place for a window.
    Base(u64),
    /// A size that is not a whole number of units.
    WindowSize(u64),
    /// A window that the scenario's platform finds no place for.
    Unplaced,
    /// A window that passes QEMU's address width.
    TooWide(u64),
    /// Window restrictions that decide the plan.
    Restrictions {
        /// What each of QEMU's windows admits.
        admits: Restrictions,
        /// What would become of the scenario there.
        otherwise: String,
    },
    /// A QoS throttling group.
    Qtg(u16),
    /// A target that no bridge is.
    Target(u32),
    /// Hardware left unassigned.
    Unassigned,
    /// Windows that software programs.
    SizedWindows,
    /// Devices of other hardware.
    HandedOver,
    /// A fault.
    Fault(&'static str),
    /// An event.
    Event(&'static str),
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.why)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Restricted => f.write_str("a CXL 1.1 bridge; QEMU has CXL 2.0 bridges only"),
            Self::Segment(segment) => {
                write!(f, "PCI segment {segment}; QEMU's q35 has segment 0 only")
            }
            Self::UidIsBus { uid, bus } => write!(
                f,
                "UID {uid} with root bus {bus}; QEMU's UID is the root bus, from 1 to 255"
            ),
            Self::Decoders { want: 0, one_port: false } => f.write_str(
                "no decoders; QEMU hides those of a bridge with exactly one root port only",
            ),
            Self::Decoders { want, .. } => {
                write!(f, "{}; QEMU's components have {DECODERS}", counted(want, "decoder"))
            }
            Self::Targets(count) => {
                write!(f, "{} a decoder; QEMU's have {TARGET_COUNT}", counted(count, "target"))
            }
            Self::BackInvalidate => f.write_str(
                "a path for back-invalidate (HDM-DB); this QEMU has no property hdm-db, 11.1 has it",
            ),
            Self::NoPath => f.write_str(
                "back-invalidate below a bridge without a path for it; QEMU's ports have one then",
            ),
            Self::CacheId => f.write_str("routing of CXL.cache by Cache ID"),
            Self::PortDecoders => f.write_str("HDM decoders in a port"),
            Self::SwitchBelowSwitch => {
                f.write_str("a switch below a switch; QEMU routes through one level")
            }
            Self::Type2 => f.write_str("a Type-2 device; QEMU has Type-3 devices only"),
            Self::Coherency => f.write_str(
                "device-coherent memory without back-invalidate (HDM-D); QEMU's memory devices have \
                 host-only (HDM-H), or HDM-DB from 11.1 on",
            ),
            Self::Selects => {
                f.write_str("selects on one group of HPA bits; QEMU's devices select on 14:8")
            }
            Self::FewerWays => {
                f.write_str("cannot do 3, 6, 12 or 16 ways; QEMU's devices do all of them")
            }
            Self::NoMemory => f.write_str("no memory; QEMU wants some in each device"),
            Self::Absent => f.write_str("not plugged in at the start"),
            Self::Xor => f.write_str("XOR arithmetic; QEMU has modulo only"),
            Self::Base(base) => {
                write!(f, "a base ({base:#x}); QEMU places windows behind its memory, in order")
            }
            Self::WindowSize(size) => {
                write!(f, "{}; QEMU's windows have a multiple of 256 MiB", Size(size))
            }
            Self::Unplaced => f.write_str("no place for it; QEMU has one"),
            Self::TooWide(end) => write!(
                f,
                "ends at {end:#x} or above; QEMU's emulated processors have {ADDRESS_BITS} address \
                 bits"
            ),
            Self::Restrictions { admits, ref otherwise } => write!(
                f,
                "restrictions that decide what is mapped; each window of this QEMU admits {}, and \
                 there {otherwise}",
                names(admits)
            ),
            Self::Qtg(qtg) => write!(f, "QTG {qtg}; QEMU's windows have 0"),
            Self::Target(uid) => write!(f, "target UID {uid}, which no bridge has"),
            Self::SizedWindows => f.write_str(
                "windows that software sizes and programs; QEMU's are those of its command line",
            ),
            Self::HandedOver => {
                f.write_str("devices handed over from hardware; QEMU's devices are its own")
            }
            Self::Unassigned => f.write_str(
                "false; SeaBIOS, which runs before an image on QEMU, assigns all hardware",
            ),
            Self::Mode => f.write_str("a mode of the attack; QEMU's registers lie elsewhere"),
            Self::Fault(kind) => write!(f, "the fault {kind}; QEMU's devices have none"),
            Self::Event(action) => write!(f, "{action} while a guest runs"),
        }
    }
}

/// All that QEMU has no words for; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub Vec<Unsupported>);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(Unsupported::to_string).collect();
        write!(f, "QEMU cannot be this machine: {}", parts.join("; "))
    }
}

impl std::error::Error for Refusal {}

/// The arguments that make QEMU the machine of a scenario, without those that say what runs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Groups of arguments that belong together: an option and its value.
    pub groups: Vec<Vec<OsString>>,
    /// Files that are to hold devices' media, with their sizes.
    pub media: Vec<Medium>,
    /// What this QEMU has otherwise than the scenario, without a consequence for the plan.
    pub notes: Vec<String>,
}

/// A file with the memory of one partition of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Medium {
    /// Its device, an index into the scenario's.
    pub device: usize,
    /// Whether it is the persistent partition.
    pub persistent: bool,
    /// The file.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
}

impl Command {
    /// The command line of a scenario for the oldest QEMU that this is for. With `files`, devices'
    /// memory lies in files of that directory.
    pub fn of(scenario: &Scenario, files: Option<&Path>) -> Result<Self, Refusal> {
        Self::on(&Offers::of_the_oldest(), scenario, files)
    }

    /// The same for a QEMU that has said what it has.
    pub fn on(offers: &Offers, scenario: &Scenario, files: Option<&Path>) -> Result<Self, Refusal> {
        let (unsupported, notes) = unsupported(scenario, offers);
        if !unsupported.is_empty() {
            return Err(Refusal(unsupported));
        }
        let mut command = Self { groups: Vec::new(), media: Vec::new(), notes };
        command.machine(offers.arch, scenario);
        for (index, bridge) in scenario.bridges.iter().enumerate() {
            let hdm = if bridge.decoders == 0 { "false" } else { "true" };
            let bus = bridge.bus;
            command.option(
                "-device",
                format!("pxb-cxl,id=hb{index},bus=pcie.0,bus_nr={bus},hdm_for_passthrough={hdm}"),
            );
        }
        // A port before what hangs below it: root ports, switches, their ports, devices.
        let mut slots = 1..;
        for (index, port) in scenario.ports.iter().enumerate() {
            if let Parent::Bridge(bridge) = port.parent {
                let (slot, number) = (slots.next().unwrap_or(0), port.number);
                command.option(
                    "-device",
                    format!(
                        "cxl-rp,id=port{index},bus=hb{bridge},port={number},chassis=0,slot={slot}"
                    ),
                );
            }
        }
        for (index, switch) in scenario.switches.iter().enumerate() {
            let port = switch.port;
            let above = bridge_of(scenario, port);
            // Root ports and downstream ports have flits of 256 bytes unless they are told not to.
            let flit = match above.is_some_and(|bridge| bridge.back_invalidate) {
                true => ",x-256b-flit=on",
                false => "",
            };
            command.option("-device", format!("cxl-upstream,id=sw{index},bus=port{port}{flit}"));
        }
        for (index, port) in scenario.ports.iter().enumerate() {
            if let Parent::Switch(switch) = port.parent {
                let (slot, number) = (slots.next().unwrap_or(0), port.number);
                command.option(
                    "-device",
                    format!(
                        "cxl-downstream,id=port{index},bus=sw{switch},port={number},chassis=0,\
                         slot={slot}"
                    ),
                );
            }
        }
        for (index, device) in scenario.devices.iter().enumerate() {
            command.device(index, device, files);
        }
        Ok(command)
    }

    fn option(&mut self, option: &str, value: impl Into<OsString>) {
        self.groups.push(vec![option.into(), value.into()]);
    }

    fn machine(&mut self, arch: Arch, scenario: &Scenario) {
        let (machine, processor, _) = arch.machine();
        let mut machine = machine.to_owned();
        for (index, window) in scenario.windows.iter().enumerate() {
            for (way, uid) in window.targets.iter().enumerate() {
                let bridge = scenario.bridges.iter().position(|bridge| bridge.uid == *uid);
                let bridge = bridge.unwrap_or_default();
                machine += &format!(",cxl-fmw.{index}.targets.{way}=hb{bridge}");
            }
            let size = window.size >> 20;
            machine += &format!(",cxl-fmw.{index}.size={size}M");
            if window.targets.len() > 1 {
                let granularity = window.interleave.granularity.bytes();
                machine += &format!(",cxl-fmw.{index}.interleave-granularity={granularity}");
            }
        }
        self.option("-M", machine);
        self.option("-cpu", processor);
        let memory = scenario.platform.memory >> 20;
        // QEMU puts the bridges' registers and the windows behind what may be added.
        let devices = scenario.devices.iter().map(|device| device.volatile + device.persistent);
        let most = memory + (devices.sum::<u64>() >> 20);
        self.option("-m", format!("{memory}M,slots=1,maxmem={most}M"));
    }

    fn device(&mut self, index: usize, device: &Device, files: Option<&Path>) {
        let mut properties = String::new();
        let parts = [
            (false, device.volatile, "volatile", "vmem"),
            (true, device.persistent, "persistent", "pmem"),
        ];
        for (persistent, size, kind, id) in parts {
            if size == 0 {
                continue;
            }
            let id = format!("{id}{index}");
            let megabytes = size >> 20;
            let common = format!("id={id},size={megabytes}M,share=on");
            match files {
                None => self.option("-object", format!("memory-backend-ram,{common}")),
                Some(directory) => {
                    let path = directory.join(format!("{id}.raw"));
                    let mut value =
                        OsString::from(format!("memory-backend-file,{common},mem-path="));
                    value.push(escaped(&path));
                    self.option("-object", value);
                    self.media.push(Medium { device: index, persistent, path, size });
                }
            }
            properties += &format!(",{kind}-memdev={id}");
        }
        if device.persistent != 0 {
            let labels = LABELS >> 20;
            self.option("-object", format!("memory-backend-ram,id=lsa{index},size={labels}M"));
            properties += &format!(",lsa=lsa{index}");
        }
        if device.coherency == Coherency::BackInvalidate {
            properties += ",x-256b-flit=on,hdm-db=on";
        }
        let (port, serial) = (device.port, device.serial);
        self.option(
            "-device",
            format!("cxl-type3,id=mem{index},bus=port{port}{properties},sn={serial:#x}"),
        );
    }

    /// What QEMU does otherwise than hardware, and this one otherwise than the scenario.
    pub fn all_notes(&self) -> Vec<String> {
        NOTES.iter().map(|&note| note.to_owned()).chain(self.notes.iter().cloned()).collect()
    }

    /// All arguments in order.
    pub fn arguments(&self) -> Vec<OsString> {
        self.groups.iter().flatten().cloned().collect()
    }
}

/// All of a scenario that QEMU has no words for, and what it has otherwise without a consequence.
fn unsupported(scenario: &Scenario, offers: &Offers) -> (Vec<Unsupported>, Vec<String>) {
    let mut list = Vec::new();
    let mut no = |at: &str, why: Why| list.push(Unsupported { at: at.to_owned(), why });
    if !scenario.platform.assigned {
        no("platform.assigned", Why::Unassigned);
    }
    if scenario.platform.windows != WindowSource::Given {
        no("platform.windows", Why::SizedWindows);
    }
    for (index, bridge) in scenario.bridges.iter().enumerate() {
        let at = &bridge.name;
        if bridge.version == BridgeVersion::Cxl1 {
            no(at, Why::Restricted);
        }
        if bridge.segment != 0 {
            no(at, Why::Segment(bridge.segment));
        }
        if bridge.uid != u32::from(bridge.bus) || bridge.bus == 0 {
            no(at, Why::UidIsBus { uid: bridge.uid, bus: bridge.bus });
        }
        let ports = scenario.ports.iter().filter(|port| port.parent == Parent::Bridge(index));
        let one_port = ports.count() == 1;
        if !(bridge.decoders == DECODERS || bridge.decoders == 0 && one_port) {
            no(at, Why::Decoders { want: bridge.decoders, one_port });
        }
        if bridge.target_count != TARGET_COUNT && bridge.decoders != 0 {
            no(at, Why::Targets(bridge.target_count));
        }
        if bridge.back_invalidate && !offers.back_invalidate {
            no(at, Why::BackInvalidate);
        }
        if bridge.cache_id {
            no(at, Why::CacheId);
        }
    }
    for port in scenario.ports.iter().filter(|port| port.hdm) {
        no(&port.name, Why::PortDecoders);
    }
    for switch in &scenario.switches {
        let above = scenario.ports.get(switch.port).map(|port| port.parent);
        if matches!(above, Some(Parent::Switch(_))) {
            no(&switch.name, Why::SwitchBelowSwitch);
        }
        if switch.decoders != DECODERS {
            no(&switch.name, Why::Decoders { want: switch.decoders, one_port: false });
        }
        if switch.target_count != TARGET_COUNT {
            no(&switch.name, Why::Targets(switch.target_count));
        }
    }
    for device in &scenario.devices {
        self::device(scenario, device, offers, &mut no);
    }
    windows(scenario, &mut no);
    let notes = restrictions(scenario, offers.restrictions, &mut no);
    for fault in &scenario.faults {
        no(scenario.name_of(fault.at), Why::Fault(fault_name(fault.kind)));
    }
    for leak in &scenario.leaks {
        no(scenario.name_of(leak.at), Why::Fault("a lock that leaks"));
    }
    for mode in &scenario.modes {
        no(scenario.name_of(mode.at), Why::Mode);
    }
    for event in &scenario.events {
        let (device, action) = match event.action {
            Action::HotAdd { device } => (Some(device), "hot-add"),
            Action::HotRemove { device } => (Some(device), "hot-remove"),
            Action::Reset { device, .. } => (device, "reset"),
        };
        let at = device.map_or("machine", |device| scenario.name_of(Place::Device(device)));
        no(at, Why::Event(action));
    }
    (list, notes)
}

fn device(scenario: &Scenario, device: &Device, offers: &Offers, no: &mut impl FnMut(&str, Why)) {
    let at = &device.name;
    match device.coherency {
        _ if device.kind == DeviceKind::Type2 => no(at, Why::Type2),
        Coherency::HostOnly => {}
        Coherency::Device => no(at, Why::Coherency),
        Coherency::BackInvalidate if !offers.back_invalidate => no(at, Why::BackInvalidate),
        Coherency::BackInvalidate => {
            let bridge = bridge_of(scenario, device.port);
            if bridge.is_some_and(|bridge| !bridge.back_invalidate) {
                no(at, Why::NoPath);
            }
        }
    }
    if device.decoders != DECODERS {
        no(at, Why::Decoders { want: device.decoders, one_port: false });
    }
    if device.selects != Selects::Both {
        no(at, Why::Selects);
    }
    if !(device.ways_3_6_12 && device.ways_16) {
        no(at, Why::FewerWays);
    }
    if device.volatile == 0 && device.persistent == 0 {
        no(at, Why::NoMemory);
    }
    if !device.present {
        no(at, Why::Absent);
    }
}

fn windows(scenario: &Scenario, no: &mut impl FnMut(&str, Why)) {
    // Behind memory, what may be added, a unit for the bridges' registers, and one for each
    // rounding up; devices' memory counts as what may be added.
    let memory = scenario.platform.memory.max(1 << 32) + (1 << 32);
    let devices = scenario.devices.iter().map(|device| device.volatile + device.persistent);
    let mut end = devices.fold(memory, u64::saturating_add);
    for (window, placed) in scenario.windows.iter().zip(place_windows(scenario)) {
        let at = &window.name;
        if window.arithmetic == Arithmetic::Xor {
            no(at, Why::Xor);
        }
        if window.host.is_some() {
            no(at, Why::HandedOver);
        }
        if let Some(base) = window.base {
            no(at, Why::Base(base.0));
        }
        if window.size == 0 || !window.size.is_multiple_of(DECODER_UNIT) {
            no(at, Why::WindowSize(window.size));
        }
        if placed.is_none() {
            no(at, Why::Unplaced);
        }
        end = end.saturating_add(window.size);
        if end > 1 << ADDRESS_BITS {
            no(at, Why::TooWide(end));
        }
        if window.qtg != 0 {
            no(at, Why::Qtg(window.qtg));
        }
        for uid in &window.targets {
            if !scenario.bridges.iter().any(|bridge| bridge.uid == *uid) {
                no(at, Why::Target(*uid));
            }
        }
    }
}

/// The bridge above a port.
fn bridge_of(scenario: &Scenario, mut port: usize) -> Option<&Bridge> {
    // A switch has one port, so none comes twice.
    for _ in 0..=scenario.switches.len() {
        match scenario.ports.get(port)?.parent {
            Parent::Bridge(bridge) => return scenario.bridges.get(bridge),
            Parent::Switch(switch) => port = scenario.switches.get(switch)?.port,
        }
    }
    None
}

/// What windows admit cannot be chosen on QEMU. Where that makes another plan, it is another machine;
/// where it does not, that is worth a note.
fn restrictions(
    scenario: &Scenario,
    admits: Restrictions,
    no: &mut impl FnMut(&str, Why),
) -> Vec<String> {
    let others = || scenario.windows.iter().filter(|window| window.restrictions != admits);
    if others().next().is_none() {
        return Vec::new();
    }
    let mut theirs = scenario.clone();
    for window in &mut theirs.windows {
        window.restrictions = admits;
    }
    let [here, there] =
        [scenario, &theirs].map(|scenario| run::planned(&mut Machine::new(scenario)));
    if let Some(otherwise) = difference(scenario, &here, &there) {
        let windows: Vec<_> = others().map(|window| window.name.as_str()).collect();
        no(&windows.join(", "), Why::Restrictions { admits, otherwise });
        return Vec::new();
    }
    let mut notes: Vec<(String, Vec<&str>)> = Vec::new();
    for window in others() {
        let (own, all) = (window.restrictions.into_bits(), admits.into_bits());
        let part = |bits| names(Restrictions::from_bits(bits));
        let difference = match (all & !own, own & !all) {
            (more, 0) => format!("admit {} as well", part(more)),
            (0, less) => format!("do not admit {}", part(less)),
            (more, less) => format!("admit {} as well, and not {}", part(more), part(less)),
        };
        match notes.iter_mut().find(|(known, _)| *known == difference) {
            Some((_, windows)) => windows.push(&window.name),
            None => notes.push((difference, vec![&window.name])),
        }
    }
    let note = |(difference, windows): (String, Vec<&str>)| {
        let windows = windows.join(", ");
        format!("{windows}: QEMU's windows {difference}; the plan here is the same with both")
    };
    notes.into_iter().map(note).collect()
}

/// What the library would do otherwise with a machine, if anything.
fn difference(scenario: &Scenario, here: &DirectRun, there: &DirectRun) -> Option<String> {
    let (plan, other) = (&here.room.plan, &there.room.plan);
    match (&here.refusal, &there.refusal) {
        (Some(here), Some(there)) if here == there => return None,
        (Some(_), Some(there)) => {
            return Some(format!("the library would refuse otherwise: {there}"));
        }
        (None, Some(there)) => return Some(format!("the library would refuse: {there}")),
        (Some(here), None) => {
            return Some(format!("the library would map what it refuses here: {here}"));
        }
        (None, None) => {}
    }
    let mut pairs = plan.regions.iter().zip(&other.regions);
    let differ = pairs
        .find(|(region, theirs)| region != theirs || plan.members(region) != other.members(theirs));
    let place = |region: &plan::Region| {
        let windows = scenario.windows.iter().zip(place_windows(scenario));
        let window = { windows }.find(|(_, base)| *base == Some(region.window));
        let name = window.map_or("", |(window, _)| window.name.as_str());
        format!("in {name} at {:#x}, {}", region.span.base().0, region.coherency)
    };
    if let Some((region, theirs)) = differ {
        let size = Size(region.span.size());
        let (here, there) = (place(region), place(theirs));
        let memory = region.partition;
        return Some(format!("{size} of {memory} memory would lie {there}; here {here}"));
    }
    if plan.regions.len() != other.regions.len() || plan.decoders != other.decoders {
        let (here, there) = (plan.regions.len(), counted(other.regions.len(), "region"));
        return Some(format!("the library would make {there}, here {here}"));
    }
    None
}

/// What a window admits, in words.
fn names(restrictions: Restrictions) -> String {
    let all = [
        (restrictions.device_coherent(), "device-coherent"),
        (restrictions.host_only(), "host-only"),
        (restrictions.volatile(), "volatile"),
        (restrictions.persistent(), "persistent"),
        (restrictions.fixed(), "fixed"),
        (restrictions.back_invalidate(), "back-invalidate"),
    ];
    let named: Vec<_> = all.into_iter().filter_map(|(has, name)| has.then_some(name)).collect();
    if named.is_empty() { "nothing".to_owned() } else { named.join(", ") }
}

fn fault_name(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::CommitPolls { .. } => "commit-polls",
        FaultKind::CommitNever { .. } => "commit-never",
        FaultKind::CommitError { .. } => "commit-error",
        FaultKind::DroppedWrite { .. } => "dropped-write",
        FaultKind::StuckBit { .. } => "stuck-bit",
        FaultKind::AllOnesAfter { .. } => "all-ones-after",
        FaultKind::LockNotEnforced { .. } => "lock-not-enforced",
        FaultKind::LockLost { .. } => "lock-lost",
        FaultKind::LeaksInto { .. } => "leaks-into",
        FaultKind::LeaksField { .. } => "leaks-field",
        FaultKind::Unrouted => "unrouted",
        FaultKind::Wraps { .. } => "wraps",
    }
}

/// A path as a value in a QEMU option, where a comma ends a value and two are one.
pub(crate) fn escaped(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = path.as_os_str().as_bytes();
    let doubled = bytes.iter().flat_map(|&byte| {
        let again = (byte == b',').then_some(byte);
        [byte].into_iter().chain(again)
    });
    OsString::from_vec(doubled.collect())
}

/// A word as a POSIX shell reads it back; bytes that are no text are kept by the caller's `OsStr`
/// and shown as U+FFFD here.
pub fn quoted(word: &std::ffi::OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The command as lines for a shell, one option each.
pub fn shell(program: &std::ffi::OsStr, groups: &[Vec<OsString>]) -> String {
    let mut text = quoted(program);
    for group in groups {
        let words: Vec<String> = group.iter().map(|word| quoted(word)).collect();
        text += &format!(" \\\n    {}", words.join(" "));
    }
    text + "\n"
}
