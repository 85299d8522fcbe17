//! A run of the library on a machine, straight through function calls: no guest, no KVM.
//!
//! **Invariant**: the library sees the machine through [`cxl_firmware::mmio::Mmio`] and its ACPI
//! tables, exactly as in a guest; the facts of both runs are the same.

use cxl_firmware::bring_up::{self, Extent, Workspace, bring_up, inspect};
use cxl_firmware::discover::discover_as;
use cxl_firmware::mmio::{Clock, Mmio};
use cxl_firmware::plan::plan;
use cxl_firmware::platform::{Platform, Resources, RootBus};
use cxl_firmware::policy::{
    BrokenSets, EarlierRange, LeaveOut, OnFailure, PathPolicy, Policy, Prefer, Probe, Request,
    Reserve, SetRequest, TargetSystem, Width, WindowWidth,
};
use cxl_firmware::topology::{Partition, Path};
use cxl_firmware::windows::{self, Sizing};
use cxl_firmware::{Error, acpi, handoff, tables};
use cxl_regs::acpi::cedt::wire::{CfmwsRecord, ChbsRecord};
use cxl_regs::acpi::{Header, Identity};
use cxl_regs::{Hpa, Span};

use cxl_model::layout::{self, AddressMap, chip_set, memory_map};
use cxl_model::machine::{Machine, PassError, Unpassed, hardware_of};
use cxl_model::scenario::{self, Parent, Place, Scenario, WindowChoice, WindowSource};

/// Room for the largest machine the harness runs: 16 bridges with 16 devices each, all of them
/// behind ports of their own.
pub type Room = Workspace<640, 320, 1280>;

/// An empty room on the heap. Where it is made it is on the stack for a moment, and it is large: no
/// caller shall have it in a frame that stays.
#[inline(never)]
pub fn room() -> Box<Room> {
    Box::new(const { Room::new() })
}
/// Tables of the same machine.
pub type Tables = acpi::Tables<32, 64>;

/// Who made the tables.
pub const IDENTITY: Identity = Identity {
    oem_id: *b"CXLFW ",
    oem_table_id: *b"HARNESS ",
    oem_revision: 1,
    creator_id: *b"CXLF",
    creator_revision: 1,
};

/// What a scenario asks for and the library's policy has no words for. Better refused than dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inexpressible {
    /// A region is asked for in a window that has no base, by which windows are known.
    Unplaced {
        /// The region, counted from 0 in the order of the file.
        region: usize,
        /// The window.
        window: String,
    },
    /// A device cannot be handed over from hardware.
    NotPassed {
        /// The component that it is about.
        at: String,
        /// What it is.
        why: Unpassed,
    },
}

impl Inexpressible {
    /// A number for logs; it never changes its meaning.
    pub fn code(&self) -> u16 {
        match self {
            // 0x0801 was a region of several devices.
            Self::Unplaced { .. } => 0x0802,
            Self::NotPassed { .. } => 0x0803,
        }
    }
}

impl std::fmt::Display for Inexpressible {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unplaced { region, window } => write!(
                f,
                "region {region} asks for window {window}, which has no base: the platform found \
                 no place for it (it did not fit)"
            ),
            Self::NotPassed { at, why } => write!(f, "{at} cannot be handed over: {why}"),
        }
    }
}

/// Why the library did not bring the machine up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The library cannot be asked for it.
    Scenario(Inexpressible),
    /// The library refused, in any of its phases.
    Library(Error),
    /// The library refused what the scenario says of a window.
    Window {
        /// The library's error.
        error: Error,
        /// The same in the scenario's words.
        words: String,
    },
}

impl Refusal {
    /// The library's error, in the words of the scenario where they are to blame.
    fn of(error: Error, scenario: &Scenario) -> Self {
        match in_scenario_words(scenario, &error.to_string()) {
            Some(words) => Self::Window { error, words },
            None => Self::Library(error),
        }
    }

    /// The same of a scenario.
    fn said_of(self, scenario: &Scenario) -> Self {
        match self {
            Self::Library(error) => Self::of(error, scenario),
            other => other,
        }
    }

    /// The phase that refused, in a word.
    pub fn phase(&self) -> &'static str {
        match self {
            Self::Scenario(_) => "scenario",
            Self::Library(error) | Self::Window { error, .. } => error.phase().name(),
        }
    }

    /// The library's number for it, or [`Inexpressible::code`].
    pub fn code(&self) -> u16 {
        match self {
            Self::Scenario(error) => error.code(),
            Self::Library(error) | Self::Window { error, .. } => error.code(),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Scenario(error) => write!(f, "scenario: {error}"),
            Self::Library(error) => write!(f, "{}: {error}", error.phase()),
            Self::Window { error, words } => write!(f, "{}: {words}", error.phase()),
        }
    }
}

impl std::error::Error for Refusal {}

/// What the library says of a record of the CEDT, said of the scenario's window that the record was
/// made of; `None` for anything else. The byte is where the models' table has that window.
pub(crate) fn in_scenario_words(scenario: &Scenario, message: &str) -> Option<String> {
    in_words_of_its_names(scenario, message).or_else(|| in_words_of_its_windows(scenario, message))
}

/// A UID that stands for a name that no bridge has, by that name.
fn in_words_of_its_names(scenario: &Scenario, message: &str) -> Option<String> {
    let (_, behind) = message.split_once("its target ")?;
    let (uid, _) = behind.split_once(" is the UID of no bridge")?;
    let missing = scenario.no_such_bridge(uid.parse().ok()?)?;
    Some(format!("{message}: {missing}"))
}

fn in_words_of_its_windows(scenario: &Scenario, message: &str) -> Option<String> {
    let (byte, problem) = message.strip_prefix("CEDT: byte 0x")?.split_once(": ")?;
    let byte = usize::from_str_radix(byte, 16).ok()?;
    let mut at = size_of::<Header>() + scenario.bridges.len() * size_of::<ChbsRecord>();
    let window = scenario.windows.iter().find(|window| {
        let begin = at;
        at += size_of::<CfmwsRecord>() + window.targets.len() * size_of::<u32>();
        (begin..at).contains(&byte)
    })?;
    let scenario::Window { name, size, .. } = window;
    Some(format!(
        "window {name} of the scenario, of {}: {problem} (in the CEDT made of it: byte {byte:#x})",
        cxl_regs::Size(*size)
    ))
}

/// Bytes for a CEDT; all that [`Tables`] holds makes an eighth of it.
const CEDT_ROOM: usize = 64 << 10;
/// Bytes for a hand-off record of all that [`Room`] holds.
const HANDOFF_ROOM: usize = 256 << 10;

/// What a run left behind besides the machine's registers.
#[derive(Debug)]
pub struct DirectRun {
    /// The library's own view.
    pub room: Box<Room>,
    /// The CEDT it built; empty if it did not come so far.
    pub cedt: Vec<u8>,
    /// The hand-off record; empty after a refusal before anything was found. After a later one it says what is there, and
    /// after a failed commit what became of each decoder.
    pub handoff: Vec<u8>,
    /// Why it stopped.
    pub refusal: Option<Refusal>,
    /// How much is in use, if it did not stop.
    pub extent: Extent,
    /// What was wrong with devices that were handed over; see
    /// [`Machine::passed_wrong`](cxl_model::machine::Machine::passed_wrong).
    pub passed_wrong: Vec<String>,
}

/// The policy that a scenario asks for, with its requests.
pub struct RunRequest {
    requests: Vec<Request>,
    sets: Vec<SetRequest>,
    leave_out: Vec<LeaveOut>,
    reserve: Vec<Reserve>,
    windows: Vec<WindowWidth>,
    policy: scenario::Policy,
    on_failure: OnFailure,
    earlier: Vec<EarlierRange>,
}

impl RunRequest {
    /// The same, with where memory was before.
    pub fn after(self, earlier: Vec<EarlierRange>) -> Self {
        Self { earlier, ..self }
    }

    /// The same, content with what can be brought up.
    pub fn best_effort(self) -> Self {
        Self { on_failure: OnFailure::BestEffort, ..self }
    }

    /// The same, all or nothing.
    pub fn strict(self) -> Self {
        Self { on_failure: OnFailure::Strict, ..self }
    }

    /// The policy of a machine's scenario in the library's words; refuses what they cannot say.
    pub fn of(machine: &Machine) -> Result<Self, Inexpressible> {
        Self::on(machine.scenario(), machine.map())
    }

    /// The same on a machine of other make, where windows lie as the map has them.
    pub fn on(scenario: &Scenario, map: &AddressMap) -> Result<Self, Inexpressible> {
        let (sets, single): (Vec<_>, Vec<_>) =
            scenario.regions.iter().enumerate().partition(|(_, given)| given.devices.len() > 1);
        let requests = single.into_iter();
        let requests = requests.map(|(region, given)| request(scenario, map, region, given));
        let sets = sets.into_iter().map(|(region, given)| set(scenario, map, region, given));
        let left_out = scenario.leave_out.iter().filter_map(|place| path(scenario, *place));
        let reserve = scenario.reserve.iter().filter_map(|reserve| {
            let (at, partition) = (path(scenario, reserve.at)?, partition(reserve.partition));
            Some(Reserve { at, partition, size: reserve.size })
        });
        let placed = scenario.windows.iter().zip(&map.windows);
        let widths = placed.filter_map(|(window, base)| {
            Some(WindowWidth { window: (*base)?, width: width(window.width?) })
        });
        Ok(Self {
            requests: requests.collect::<Result<_, _>>()?,
            sets: sets.collect::<Result<_, _>>()?,
            leave_out: left_out.map(LeaveOut::At).collect(),
            reserve: reserve.collect(),
            windows: widths.collect(),
            policy: scenario.policy,
            on_failure: match scenario.policy.on_failure {
                scenario::OnFailure::Strict => OnFailure::Strict,
                scenario::OnFailure::BestEffort => OnFailure::BestEffort,
            },
            earlier: scenario.earlier.iter().filter_map(earlier_range).collect(),
        })
    }

    /// The policy.
    pub fn policy(&self) -> Policy<'_> {
        Policy {
            path: match self.policy.path {
                scenario::PathPolicy::LockAll => PathPolicy::LockAll,
                scenario::PathPolicy::GuestPrograms => PathPolicy::GuestPrograms,
                scenario::PathPolicy::Describe => PathPolicy::Describe,
                scenario::PathPolicy::Unlocked => PathPolicy::Unlocked,
            },
            config_lock: self.policy.config_lock,
            burn_spares: self.policy.burn_spares,
            enable_cache: self.policy.enable_cache,
            target: match self.policy.target {
                scenario::Target::Linux => TargetSystem::Linux,
                scenario::Target::Specification => TargetSystem::Specification,
            },
            requests: &self.requests,
            sets: &self.sets,
            leave_out: &self.leave_out,
            reserve: &self.reserve,
            width: width(self.policy.interleave),
            windows: &self.windows,
            map_leftovers: self.policy.leftovers,
            probe: if self.policy.probe { Probe::All } else { Probe::Skip },
            prefer: match self.policy.prefer {
                scenario::Prefer::None => None,
                scenario::Prefer::Widest => Some(Prefer::Widest),
                scenario::Prefer::Narrowest => Some(Prefer::Narrowest),
                scenario::Prefer::Lowest => Some(Prefer::Lowest),
            },
            on_failure: self.on_failure,
            earlier: &self.earlier,
            broken_sets: match self.policy.broken_sets {
                scenario::BrokenSets::Narrower => BrokenSets::Narrower,
                scenario::BrokenSets::Flat => BrokenSets::Flat,
                scenario::BrokenSets::Unused => BrokenSets::Unused,
            },
            no_trial: !self.policy.trial,
            ..Policy::DEFAULT
        }
    }
}

fn width(given: scenario::InterleavePolicy) -> Width {
    match given {
        scenario::InterleavePolicy::Flat => Width::Flat,
        scenario::InterleavePolicy::Widest => Width::Widest,
        scenario::InterleavePolicy::Exactly(interleave) => Width::Exactly(interleave),
    }
}

/// One region of the scenario as a request: with [`set`] the only place that turns one into the other.
fn request(
    scenario: &Scenario,
    map: &AddressMap,
    region: usize,
    given: &scenario::Region,
) -> Result<Request, Inexpressible> {
    let device = given.devices.first().map(|device| Place::Device(*device));
    Ok(Request {
        device: device.and_then(|device| path(scenario, device)).unwrap_or_default(),
        partition: partition(given.partition),
        window: window(scenario, map, region, given)?,
        offset: given.offset,
        size: given.size,
        skip: given.skip,
    })
}

/// The same for a region that names several members. Of more than there can be in a set, the first are
/// too many already.
fn set(
    scenario: &Scenario,
    map: &AddressMap,
    region: usize,
    given: &scenario::Region,
) -> Result<SetRequest, Inexpressible> {
    let members = given.devices.iter();
    let members = members.filter_map(|device| path(scenario, Place::Device(*device)));
    Ok(SetRequest {
        members: members.take(16).collect(),
        partition: partition(given.partition),
        window: window(scenario, map, region, given)?,
        offset: given.offset,
        size: given.size,
        skip: given.skip,
        granularity: given.granularity,
    })
}

fn partition(given: scenario::Partition) -> Partition {
    match given {
        scenario::Partition::Volatile => Partition::Volatile,
        scenario::Partition::Persistent => Partition::Persistent,
    }
}

fn window(
    scenario: &Scenario,
    map: &AddressMap,
    region: usize,
    given: &scenario::Region,
) -> Result<Option<Hpa>, Inexpressible> {
    Ok(match given.window {
        Some(WindowChoice::Named(index)) => Some(placed(scenario, map, region, index)?),
        Some(WindowChoice::At(base)) => Some(base),
        None => None,
    })
}

/// Where the window lies that a region asks for.
fn placed(
    scenario: &Scenario,
    map: &AddressMap,
    region: usize,
    index: usize,
) -> Result<Hpa, Inexpressible> {
    let base = map.windows.get(index).copied().flatten();
    let name = || scenario.windows.get(index).map_or_else(String::new, |w| w.name.clone());
    base.ok_or_else(|| Inexpressible::Unplaced { region, window: name() })
}

/// Where memory is by a hand-off record, for [`Scenario::earlier`] of the next run.
pub fn earlier(record: &[u8]) -> Result<Vec<scenario::Earlier>, Error> {
    let ranges = handoff::read(record)?.ranges();
    let earlier = ranges.map(|range| scenario::Earlier {
        uid: range.device.uid(),
        ports: range.device.ports().to_vec(),
        partition: match range.partition {
            Partition::Volatile => scenario::Partition::Volatile,
            Partition::Persistent => scenario::Partition::Persistent,
        },
        span: range.span,
        interleave: range.interleave,
    });
    Ok(earlier.collect())
}

fn earlier_range(given: &scenario::Earlier) -> Option<EarlierRange> {
    let scenario::Earlier { uid, ref ports, span, interleave, .. } = *given;
    let device = Path::new(uid, ports)?;
    Some(EarlierRange { device, partition: partition(given.partition), span, interleave })
}

/// A component's place by port numbers, as the library calls it; `None` for one that lies deeper
/// than the library goes.
pub fn path(scenario: &Scenario, place: Place) -> Option<Path> {
    let mut ports = Vec::new();
    let mut port = match place {
        Place::Bridge(bridge) => return Path::new(scenario.bridges.get(bridge)?.uid, &[]),
        Place::Port(port) => port,
        Place::Switch(switch) => scenario.switches.get(switch)?.port,
        Place::Device(device) => scenario.devices.get(device)?.port,
    };
    // A port has one parent and a switch one port, so no switch can come twice.
    for _ in 0..=scenario.switches.len() {
        let at = scenario.ports.get(port)?;
        ports.push(at.number);
        match at.parent {
            Parent::Switch(switch) => port = scenario.switches.get(switch)?.port,
            Parent::Bridge(bridge) => {
                ports.reverse();
                return Path::new(scenario.bridges.get(bridge)?.uid, &ports);
            }
        }
    }
    None
}

/// What the platform tells firmware beside the tables: the root buses that it may know.
pub fn roots(scenario: &Scenario) -> Vec<(u32, RootBus)> {
    let known = scenario.bridges.iter().filter(|bridge| bridge.bus_known);
    known.map(|bridge| (bridge.uid, RootBus { segment: bridge.segment, bus: bridge.bus })).collect()
}

/// Where the tables lie in a guest.
pub const TABLES_BASE: u64 = layout::TABLES;

/// Runs the library on a machine, as its scenario's policy says.
pub fn direct(machine: &mut Machine) -> DirectRun {
    let (wanted, tables) = match ask(machine) {
        Ok(asked) => asked,
        Err(refusal) => return DirectRun { refusal: Some(refusal), ..DirectRun::new() },
    };
    let occupied = occupied(machine.map());
    let platform = Platform { occupied: &occupied, ..tables.platform() };
    let mut clock = machine.clock();
    let done = on(machine, &mut clock, &platform, &wanted);
    let refusal = done.refusal.map(|refusal| refusal.said_of(machine.scenario()));
    DirectRun { passed_wrong: machine.passed_wrong(), refusal, ..done }
}

/// Runs the library on any hardware.
pub fn on(
    hw: &mut impl Mmio,
    clock: &mut impl Clock,
    platform: &Platform<'_>,
    wanted: &RunRequest,
) -> DirectRun {
    let (mut done, policy) = (DirectRun::new(), wanted.policy());
    let mut buffer = vec![0; CEDT_ROOM];
    let result = bring_up(hw, clock, platform, &policy, &mut *done.room).and_then(|extent| {
        done.extent = extent;
        let room = &mut *done.room;
        bring_up::describe(hw, clock, platform, &policy, room, extent, IDENTITY, &mut buffer)
    });
    match result {
        Ok((cedt, extent)) => (done.cedt, done.extent) = (cedt.to_vec(), extent),
        Err(error) => done.refusal = Some(Refusal::Library(error)),
    }
    done.record(hw, platform);
    done
}

/// Has the library bring up what was plugged in since, on a machine that it brought up before.
pub fn add(machine: &mut Machine) -> DirectRun {
    let (wanted, tables) = match ask(machine) {
        Ok(asked) => asked,
        Err(refusal) => return DirectRun { refusal: Some(refusal), ..DirectRun::new() },
    };
    let occupied = occupied(machine.map());
    let platform = Platform { occupied: &occupied, ..tables.platform() };
    let (mut clock, mut done) = (machine.clock(), DirectRun::new());
    match bring_up::add(machine, &mut clock, &platform, &wanted.policy(), &mut *done.room) {
        Ok(extent) => done.extent = extent,
        Err(error) => done.refusal = Some(Refusal::Library(error)),
    }
    done.describe(machine, &platform);
    done
}

/// What has to be done before a machine's firmware runs: windows that software sizes are programmed, and
/// devices that are handed over from hardware are there.
pub fn prepare(machine: &mut Machine) -> Result<(), Refusal> {
    size_windows(machine)?;
    hand_over(machine)
}

/// Where devices are handed over from hardware and are not yet: has the library bring hardware up, as
/// the host's firmware does, and puts shadows between it and the machine.
fn hand_over(machine: &mut Machine) -> Result<(), Refusal> {
    let hardware = hardware_of(machine.scenario()).filter(|_| machine.hardware().is_none());
    let Some(mut hardware) = hardware.map(|hardware| Machine::new(&hardware)) else {
        return Ok(());
    };
    if let Some(refusal) = direct(&mut hardware).refusal {
        return Err(refusal);
    }
    machine.pass_through(hardware).map_err(|PassError { at, why }| {
        let at = at.map_or_else(|| "hardware".to_owned(), |at| machine.name(at).to_owned());
        Refusal::Scenario(Inexpressible::NotPassed { at, why })
    })
}

/// Where the scenario leaves windows to software and there are none yet: has the library size and place
/// them, and programs the root complex, as firmware does before anything else. None of its accesses
/// counts as one of the run that follows.
fn size_windows(machine: &mut Machine) -> Result<(), Refusal> {
    let scenario = machine.scenario().clone();
    let WindowSource::Sized { across } = scenario.platform.windows else { return Ok(()) };
    if !scenario.windows.is_empty() {
        return Ok(());
    }
    let wanted = RunRequest::of(machine).map_err(Refusal::Scenario)?;
    let tables = platform(machine).map_err(|error| Refusal::of(error, machine.scenario()))?;
    let occupied = occupied(machine.map());
    let platform = Platform { occupied: &occupied, ..tables.platform() };
    let mut clock = machine.clock();
    let mut room = room();
    let topology = &mut room.topology;
    discover_as(machine, &mut clock, &platform, &wanted.policy(), &mut *topology)
        .map_err(Refusal::Library)?;
    let free = layout::window_space(&scenario);
    let sizing = Sizing { free: free.as_slice(), across };
    let mut windows = tables.windows.clone();
    windows::place(&platform, &*topology, &sizing, &mut windows).map_err(Refusal::Library)?;
    let named = windows.into_iter().enumerate().map(|(number, window)| scenario::Window {
        name: format!("window{number}"),
        targets: window.targets.to_vec(),
        size: window.size,
        base: window.base,
        host: None,
        interleave: window.interleave,
        width: None,
        arithmetic: window.arithmetic,
        xor_maps: window.xor_maps.to_vec(),
        restrictions: window.restrictions,
        qtg: window.qtg,
    });
    machine.program_windows(named.collect());
    let recorder = machine.recorder_mut();
    recorder.clear();
    let (_, _) = (recorder.take(), recorder.take_walks());
    Ok(())
}

/// What is asked of the library, and of which platform.
fn ask(machine: &mut Machine) -> Result<(RunRequest, Tables), Refusal> {
    prepare(machine)?;
    let wanted = RunRequest::of(machine).map_err(Refusal::Scenario)?;
    Ok((wanted, platform(machine).map_err(|error| Refusal::of(error, machine.scenario()))?))
}

/// Plans without touching a decoder: discovery and the plan alone.
pub fn dry(machine: &mut Machine) -> DirectRun {
    dry_as(machine, |wanted| wanted)
}

/// What the policy plans for a machine that does as its model does. With best effort that is known only once
/// all has been tried: what has no place, or fails, is planned around.
pub fn planned(machine: &mut Machine) -> DirectRun {
    match machine.scenario().policy.on_failure {
        scenario::OnFailure::Strict => dry(machine),
        scenario::OnFailure::BestEffort => direct(machine),
    }
}

/// The same as [`dry`], where memory was somewhere before.
pub fn dry_after(machine: &mut Machine, earlier: Vec<EarlierRange>) -> DirectRun {
    dry_as(machine, |wanted| wanted.after(earlier))
}

fn dry_as(machine: &mut Machine, change: impl FnOnce(RunRequest) -> RunRequest) -> DirectRun {
    let mut done = DirectRun::new();
    let (wanted, tables) = match ask(machine) {
        Ok((wanted, tables)) => (change(wanted), tables),
        Err(refusal) => return DirectRun { refusal: Some(refusal), ..done },
    };
    let occupied = occupied(machine.map());
    let platform = Platform { occupied: &occupied, ..tables.platform() };
    let mut clock = machine.clock();
    let Room { topology, plan: room, .. } = &mut *done.room;
    let policy = wanted.policy();
    let result = discover_as(machine, &mut clock, &platform, &policy, &mut *topology)
        .and_then(|()| plan(&platform, &*topology, &policy, room));
    done.refusal = result.err().map(|error| Refusal::of(error, machine.scenario()));
    done
}

/// Verifies what is there, whoever programmed it: every decoder on every path has to be locked. No
/// table or record is made of it.
pub fn require_locked(machine: &mut Machine) -> DirectRun {
    let mut done = DirectRun::new();
    let policy = Policy {
        path: PathPolicy::LockAll,
        // What the decoders say counts here, not what one target system can take.
        target: TargetSystem::Specification,
        config_lock: false,
        ..Policy::default()
    };
    let mut clock = machine.clock();
    let result = platform(machine)
        .map_err(|error| Refusal::of(error, machine.scenario()))
        .and_then(|tables| {
            inspect(machine, &mut clock, &tables.platform(), &policy, &mut *done.room)
                .map_err(Refusal::Library)
        });
    done.refusal = result.err();
    done
}

/// The platform as its ACPI tables tell it. Of a machine whose BIOS left everything unassigned, also
/// the memory below each bridge that may be handed out (its `_CRS`).
pub fn platform(machine: &Machine) -> Result<Tables, Error> {
    let (scenario, map) = (machine.scenario(), machine.map());
    let bytes = cxl_model::acpi::Tables::new(scenario, map, TABLES_BASE);
    let mut tables = Tables::from_acpi(
        bytes.table(&bytes.mcfg),
        bytes.table(&bytes.cedt),
        scenario.platform.physical_bits,
        &roots(scenario),
    )?;
    if !scenario.platform.assigned {
        let resources = scenario
            .bridges
            .iter()
            .zip(&map.bridges)
            .map(|(bridge, place)| Resources { uid: bridge.uid, span: place.bars });
        // One for each bridge, which the tables had room for.
        tables.resources.extend(resources);
    }
    Ok(tables)
}

/// What no window may reach into: RAM as the memory map has it, which is how a guest knows it, and
/// the chip set.
pub(crate) fn occupied(map: &AddressMap) -> Vec<Span> {
    let memory = memory_map(map.ram.iter().copied()).into_iter();
    let usable = memory.filter_map(|(span, usable)| usable.then_some(span));
    usable.chain([chip_set()]).collect()
}

impl DirectRun {
    fn new() -> Self {
        Self {
            room: room(),
            cedt: Vec::new(),
            handoff: Vec::new(),
            refusal: None,
            extent: Extent::Whole,
            passed_wrong: Vec::new(),
        }
    }

    /// The table of what was committed, and the hand-off record. There is no table for a machine
    /// that is not whole; the record then says how far it came.
    fn describe(&mut self, hw: &mut impl Mmio, platform: &Platform<'_>) {
        let Room { topology, committed, .. } = &*self.room;
        if self.refusal.is_none() {
            let mut buffer = vec![0; CEDT_ROOM];
            let cedt = tables::cedt(platform, topology, committed, IDENTITY, &mut buffer);
            let checked = cedt.and_then(|cedt| {
                tables::cross_check_hardware(hw, cedt, topology, committed)?;
                Ok(cedt.to_vec())
            });
            match checked {
                Ok(cedt) => self.cedt = cedt,
                Err(error) => self.refusal = Some(Refusal::Library(error)),
            }
        }
        self.record(hw, platform);
    }

    /// The hand-off record.
    fn record(&mut self, hw: &mut impl Mmio, platform: &Platform<'_>) {
        let room = &*self.room;
        let Room { topology, .. } = room;
        // A refusal before anything was found. Where all is left out by request, the record says so.
        if topology.nodes.is_empty() && self.refusal.is_some() {
            return;
        }
        let mut buffer = vec![0; HANDOFF_ROOM];
        match handoff::write(hw, &room.contents(platform.ecam, None), &mut buffer) {
            Ok(record) => self.handoff = record.to_vec(),
            Err(error) => self.refusal = self.refusal.take().or(Some(Refusal::Library(error))),
        }
    }
}
