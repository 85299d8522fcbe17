//! Boots an image on a machine in a KVM guest and brings home what it left.
//!
//! **Invariant**: nothing of the guest is trusted. The hand-off record and the CEDT are bytes out
//! of guest memory, to be compared with the machine's registers by whoever reports them.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use cxl_firmware::policy::{
    BrokenSets, EarlierRange, LeaveOut, OnFailure, PathPolicy, Prefer, Probe, Request, Reserve,
    SetRequest, TargetSystem, Width,
};
use cxl_firmware::topology::Path;
use cxl_image::doorbell::{Call, Status};
use cxl_image::words::Words;
use cxl_regs::{Granularity, Interleave};

use super::engine::{Ended, MOST_ENDED};
use super::platform::{self, Extras, RootBus};
use super::{Counts, Guest, GuestHandoff, Happened, LastAccess, Said, Snapshot, Speaker};
use super::{footprint, payload};
use crate::attack;
use crate::kvm::{
    Boot, BootError, Call as SlotCall, End, Entry, Input, Limits, LinuxBoot, MOST_SLOT_CALLS,
    SlotError, Vm, VmError,
};
use crate::mirror::{self, Mirror};
use crate::run::{self, DirectRun, Inexpressible, Refusal, RunRequest, TABLES_BASE, roots};
use crate::vigil::{CutOff, Moment, Watched};
use crate::virtio::{Disk, Done};
use cxl_model::acpi::Tables;
use cxl_model::kept::Kept;
use cxl_model::layout::{AddressMap, memory_map};
use cxl_model::machine::Machine;
use cxl_model::scenario::{Event, Scenario};
use cxl_model::trace::Traffic;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

/// The image that comes with the harness.
pub static IMAGE: &[u8] = include_bytes!(env!("CXL_IMAGE"));

/// Who programs and locks the decoders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockBy {
    /// The image, from inside the guest.
    #[default]
    Image,
    /// The host, before the guest's first instruction; our image then finds it done and verifies
    /// it.
    Vmm,
}

/// A Linux to boot.
#[derive(Clone, Copy, Debug)]
pub struct Linux<'a> {
    /// A bzImage.
    pub kernel: &'a [u8],
    /// Its initrd; empty for none.
    pub initrd: &'a [u8],
    /// The processor does not say that it is a virtual one. Linux writes back and invalidates caches
    /// only on hardware, and makes no CXL region where it cannot.
    pub hidden: bool,
    /// Our image boots first, does what the scenario asks, publishes its tables, and hands over.
    pub behind_image: bool,
}

/// How to boot.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// A PVH image; `None` is ours. One whose bytes are ours is known again.
    pub image: Option<&'a [u8]>,
    /// Linux instead of an image.
    pub linux: Option<Linux<'a>>,
    /// What is behind that Linux's disk; its size is a number of sectors.
    pub disk: Option<&'a File>,
    /// That image keeps the protocol of ours: what it says through the doorbell counts.
    pub trusted: bool,
    /// The payload of our image.
    pub payload: &'a str,
    /// The whole command line; `None` is made from the scenario for our image, and is empty for
    /// somebody else's.
    pub command_line: Option<String>,
    /// Words that are added to it.
    pub append: Option<&'a str>,
    /// Who programs and locks.
    pub lock_by: LockBy,
    /// A write to this port ends the image's run, beside the exit port.
    pub until_port: Option<u16>,
    /// What our image does once the image has ended by itself or by the time limit: this payload,
    /// on the machine as the image has left it.
    pub then: Option<&'a str>,
    /// Time limit of each image.
    pub timeout: Duration,
    /// Whether committed memory is mirrored into slots.
    pub mirror: bool,
    /// The most bits that a guest's address may have, besides what scenario and host allow: many
    /// desktops stop at 39.
    pub address_bits: u8,
    /// Bytes that may be mirrored; `None` is what the host has free.
    pub budget: Option<u64>,
    /// Set by Ctrl-C.
    pub interrupted: Arc<AtomicBool>,
    /// What Linux reads at its serial console.
    pub input: Option<Arc<Input>>,
    /// Sees the console as it is written.
    pub on_console: fn(&[u8]),
    /// Sees how far an attack is: a state, and the component that is to be in it. There are
    /// [`attack::steps`] of them at most.
    pub on_attack: fn(&str, &str),
    /// Whoever runs attacks the locks, and announces it as our image does: it is judged, whoever it is.
    pub attacked: bool,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            image: None,
            linux: None,
            disk: None,
            trusted: false,
            payload: payload::NONE,
            command_line: None,
            append: None,
            lock_by: LockBy::Image,
            until_port: None,
            then: None,
            timeout: Duration::from_secs(30),
            mirror: true,
            address_bits: u8::MAX,
            budget: None,
            interrupted: Arc::default(),
            input: None,
            on_console: |_| {},
            on_attack: |_, _| {},
            attacked: false,
        }
    }
}

/// Why there was no run.
#[derive(Debug)]
pub enum GuestError {
    /// The library cannot be asked for what the scenario wants: the guest never starts.
    Refused(Refusal),
    /// The library, run by the host before the guest, refused: the guest never starts.
    Host(Box<DirectRun>),
    /// Our image has no payload of this name.
    Payload(String),
    /// There is no virtual machine.
    Vm(VmError),
    /// The image does not boot.
    Boot(BootError),
    /// The slots of the start cannot be set.
    Slots(SlotError),
    /// There can be no disk of this file.
    Disk(io::Error),
    /// There is no bus for the disk: host bridges have them all.
    NoBus,
}

impl std::fmt::Display for GuestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "the guest does not start: {refusal}"),
            Self::Host(done) => {
                f.write_str("the guest does not start: ")?;
                done.refusal.as_ref().map_or(Ok(()), |refusal| refusal.fmt(f))
            }
            Self::Payload(name) => write!(f, "there is no payload \"{name}\""),
            Self::Vm(error) => error.fmt(f),
            Self::Boot(error) => error.fmt(f),
            Self::Slots(error) => error.fmt(f),
            Self::Disk(error) => write!(f, "the disk: {error}"),
            Self::NoBus => f.write_str(
                "the disk: no bus number is left for it, as host bridges have all 256 of each segment",
            ),
        }
    }
}

impl std::error::Error for GuestError {}

/// One image's run.
#[derive(Debug)]
pub struct ImageRun {
    /// Whose it is.
    pub speaker: Speaker,
    /// How it ended.
    pub end: End,
    /// What it said through the doorbell.
    pub said: Said,
    /// What it handed over, and the machine at that moment; `None` if it never said so.
    pub handed: Option<GuestHandoff>,
    /// The machine as it was when it ended.
    pub left: Snapshot,
    /// The payload that it was asked for, if it is ours.
    pub payload: String,
    /// It was to hand over to a Linux, whose end is the run's.
    pub hands_on: bool,
}

/// What a run left behind besides the machine's registers.
#[derive(Debug)]
pub struct GuestRun {
    /// The image that was booted.
    pub first: ImageRun,
    /// What that was asked for on its command line, if it is ours.
    pub asked: Option<Words>,
    /// Our image that ran afterwards, if it did.
    pub second: Option<ImageRun>,
    /// What the library did for the host before the first instruction, if it was to.
    pub host: Option<HostRun>,
    /// Events of the scenario that were due, in order.
    pub happened: Vec<Happened>,
    /// Those that were not: the guest did not count so far.
    pub pending: Vec<Event>,
    /// Transfers of the DMA engine that have ended, in order.
    pub transfers: Kept<Ended, MOST_ENDED>,
    /// From the beginning to its first byte: a Linux of ours has come to its /init then.
    pub first_fact: Option<Duration>,
    /// Bytes of memory that this program had in the end beside the guest's, as far as anybody can say.
    pub beside: Option<u64>,
    /// The disk: its size, and what it did.
    pub disk: Option<(u64, Done)>,
    /// The last access that exited.
    pub last_access: Option<LastAccess>,
    /// Exits.
    pub counts: Counts,
    /// Everything that was printed.
    pub console: Vec<u8>,
    /// What came out of the second serial port.
    pub facts: Vec<u8>,
    /// How long the guest was given to come to its end.
    pub limit: Duration,
    /// What the `attack` payload came to.
    pub attack: Option<attack::Report>,
    /// What was seen of the locks from the hand-off to the end, or to the attack.
    pub watched: Watched,
    /// The machine as the attack found it, if there was one.
    pub before_attack: Option<Box<Snapshot>>,
    /// What was wrong with devices that were handed over, in the end.
    pub passed_wrong: Vec<String>,
    /// What was mirrored in the end.
    pub mirror: Mirror,
    /// Every change of slots.
    pub slot_log: Kept<SlotCall, MOST_SLOT_CALLS>,
    /// When the virtual machine was begun.
    pub start: Instant,
    /// From then to the first instruction.
    pub setup: Duration,
    /// From the first instruction to the end.
    pub run: Duration,
    /// The machine at the first marks of somebody else's system, each with the mark's number.
    pub kept: Vec<(u64, Snapshot)>,
}

/// What a run of our image came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The image says so, and so does everything it reported.
    Good,
    /// The library refused, or a check of the payload failed; the console says what.
    Refused,
    /// The image panicked; the console says where.
    Panicked,
    /// The image says that all is well, and reported a failed check or announced an internal error
    /// that did not happen.
    Contradicted,
    /// It did not end by itself, or in a way that our image never does; see [`ImageRun::end`].
    NoStatus,
}

/// A run of the library by the host, before the guest's.
#[derive(Debug)]
pub struct HostRun {
    /// What it left behind.
    pub done: DirectRun,
    /// Its accesses; the machine's own count starts again with the guest.
    pub traffic: Traffic,
}

impl HostRun {
    fn of(machine: &mut Machine) -> Result<Self, GuestError> {
        let done = run::direct(machine);
        if done.refusal.is_some() {
            return Err(GuestError::Host(Box::new(done)));
        }
        let traffic = machine.traffic().clone();
        machine.recorder_mut().clear();
        Ok(Self { done, traffic })
    }
}

/// The command line of the image that is booted. The image that comes with the harness is known
/// again when it is given as a file: it gets the scenario's words, and is told to leave CPL 0 where
/// the host would emulate it. Any other image has words of its own.
fn first_line(
    scenario: &Scenario,
    map: &AddressMap,
    options: &Options<'_>,
    address_bits: u8,
) -> Result<String, GuestError> {
    let own = |payload| {
        let line = command_line(scenario, map, payload)
            .map_err(|error| GuestError::Refused(Refusal::Scenario(error)))?;
        // CPUID at CPL 3 may be the host's.
        Ok::<_, GuestError>(match address_bits < scenario.platform.physical_bits {
            true => format!("probe-bits={address_bits} {line}"),
            false => line,
        })
    };
    let behind = options.linux.is_some_and(|linux| linux.behind_image);
    let line = match (options.image, &options.command_line) {
        (_, line) if behind => {
            let line = line.as_deref().unwrap_or(LINUX_LINE);
            format!("{} -- {line}", own(HAND_OVER)?)
        }
        (_, Some(line)) => line.clone(),
        (None, None) if options.linux.is_some() => LINUX_LINE.to_owned(),
        (None, None) => own(options.payload)?,
        (Some(image), None) if image == IMAGE => {
            let ring = if crate::kvm::emulates_ring_0() { " ring3" } else { "" };
            format!("{}{ring}", own(options.payload)?)
        }
        (Some(_), None) => String::new(),
    };
    Ok(match options.append {
        Some(more) => format!("{line} {more}").trim_start().to_owned(),
        None => line,
    })
}

/// Boots an image on the machine and runs it to its end.
pub fn boot(machine: &mut Machine, options: &Options<'_>) -> Result<GuestRun, GuestError> {
    for list in [Some(options.payload), options.then].into_iter().flatten() {
        if let Some(name) = payload::unknown(list) {
            return Err(GuestError::Payload(name.to_owned()));
        }
    }
    let start = Instant::now();
    // Windows and hardware are the board's, whoever programs the decoders.
    run::prepare(machine).map_err(GuestError::Refused)?;
    let host = match options.lock_by {
        LockBy::Image => None,
        LockBy::Vmm => Some(HostRun::of(machine)?),
    };
    let scenario = machine.scenario().clone();
    let tables = Tables::new(&scenario, machine.map(), TABLES_BASE);
    let ram: Vec<_> = machine.map().ram.iter().map(|span| (span.base().0, span.size())).collect();
    let bits = scenario.platform.physical_bits.min(options.address_bits);
    let mut vm = match options.linux {
        Some(linux) => Vm::with_interrupts(&ram, bits, !linux.hidden),
        None => Vm::new(&ram, bits),
    }
    .map_err(GuestError::Vm)?;
    let line = first_line(&scenario, machine.map(), options, vm.address_bits())?;
    // Without KVM's clock there is nothing on the machine to measure the processor's by.
    let line = match options.linux.filter(|linux| linux.hidden).and_then(|_| vm.time_stamps()) {
        Some(rate) => format!("{line} tsc_early_khz={rate}"),
        None => line,
    };
    let rsdp = tables.base;
    let behind = options.linux.is_some_and(|linux| linux.behind_image);
    let root = match options.disk {
        Some(_) => Some(RootBus::free(&scenario, machine.map()).ok_or(GuestError::NoBus)?),
        None => None,
    };
    let disk = match options.disk.zip(root) {
        Some((file, root)) => {
            let file = file.try_clone().map_err(GuestError::Disk)?;
            Some(Disk::new(file, root.config, root.bars).map_err(GuestError::Disk)?)
        }
        None => None,
    };
    let acpi = match options.linux {
        Some(_) => {
            let made = host.as_ref().map(|host| host.done.cedt.as_slice());
            let cedt = made.filter(|cedt| !cedt.is_empty());
            let extras = Extras { cedt, disk: root, firmware_first: behind };
            [(rsdp, platform::tables(&scenario, machine.map(), rsdp, &extras))]
        }
        None => [(rsdp, tables.bytes)],
    };
    let map = linux_memory(machine.map());
    let files = options.linux.map_or([&[][..]; 2], |linux| [linux.kernel, linux.initrd]);
    let modules: Vec<_> = files.into_iter().filter(|file| !file.is_empty()).collect();
    match options.linux {
        Some(_) if behind => vm.boot(&Boot {
            image: IMAGE,
            entry: Entry::Pvh,
            command_line: &line,
            acpi: &acpi,
            rsdp,
            modules: &modules,
            map: Some(&map),
        }),
        Some(Linux { kernel, initrd, .. }) => vm.boot_linux(&LinuxBoot {
            kernel,
            initrd,
            command_line: &line,
            acpi: &acpi,
            rsdp,
            map: &map,
        }),
        None => vm.boot(&Boot {
            image: options.image.unwrap_or(IMAGE),
            entry: if options.image.is_some() { Entry::Pvh } else { Entry::Ring3 },
            command_line: &line,
            acpi: &acpi,
            rsdp,
            modules: &[],
            map: None,
        }),
    }
    .map_err(GuestError::Boot)?;
    let afterwards = match options.then {
        None => None,
        Some(payload) => {
            let line = command_line(&scenario, machine.map(), payload).or_else(|_| {
                // What the scenario asks for was asked of the first image, in no words of ours.
                let plain = Scenario { regions: Vec::new(), ..scenario.clone() };
                command_line(&plain, machine.map(), payload)
            });
            let line = line.map_err(|error| GuestError::Refused(Refusal::Scenario(error)))?;
            // Whatever the scenario is content with: an attack asks what is locked, and anything
            // else is to look at what is there.
            let path = if payload::attacks(payload) { "lock-all" } else { "unlocked" };
            Some((payload, format!("{line} as-found path={path}")))
        }
    };
    let limits = mirror::Limits {
        enabled: options.mirror,
        bytes: options.budget.unwrap_or_else(free_memory),
        slots: vm.slots().available(),
        address_bits: vm.address_bits(),
    };
    let mut guest = Guest::new(machine, vm.ram().clone(), limits, options.on_console);
    guest.on_attack = options.on_attack;
    let foreign =
        options.linux.is_some() && !behind || options.image.is_some_and(|image| image != IMAGE);
    let theirs = foreign && !options.trusted;
    guest.speaker = if theirs { Speaker::Theirs } else { Speaker::Ours };
    guest.sees_all = options.image.is_some();
    // Its bus is of no root bus that Linux is told of.
    guest.engine = guest.engine.take().filter(|_| options.linux.is_none());
    guest.disk = disk;
    // The words of somebody else's image are its own.
    let own = !foreign && !behind;
    guest.hands_on = behind;
    let mut asked = if own { payload::of_line(&line) } else { payload::NONE }.to_owned();
    guest.attacks = payload::attacks(&asked) || options.attacked;
    guest.attacked = options.attacked;
    if host.is_some() {
        guest.vigil.hand_off(guest.machine, Moment::BeforeStart);
    }
    // The machine may have been programmed before the guest's first instruction.
    vm.follow(&mut guest).map_err(GuestError::Slots)?;
    let setup = start.elapsed();
    let mut limits = Limits {
        timeout: options.timeout,
        until_port: options.until_port,
        interrupted: Arc::clone(&options.interrupted),
        input: options.input.clone(),
    };
    let mut end = vm.run(&mut guest, &limits);
    let handed_over = guest.vigil.has_begun();
    // An image that never said so has handed over by its end.
    guest.vigil.hand_off(guest.machine, Moment::HandOff);
    let mut first = None;
    let ended = matches!(end, End::Exit(_) | End::Port(_) | End::Halt | End::TimedOut { .. });
    if let Some((payload, line)) = afterwards.filter(|_| ended) {
        vm.clear().map_err(GuestError::Boot)?;
        let left = guest.snapshot(vm.slots());
        let attacks = payload::attacks(payload);
        let (speaker, (said, handed)) = (guest.speaker, guest.begin_again(Speaker::Ours, attacks));
        let ours = Boot {
            image: IMAGE,
            entry: Entry::Ring3,
            command_line: &line,
            acpi: &acpi,
            rsdp,
            modules: &[],
            map: None,
        };
        vm.boot(&ours).map_err(GuestError::Boot)?;
        limits.until_port = None;
        let then = vm.run(&mut guest, &limits);
        let end = std::mem::replace(&mut end, then);
        let payload = std::mem::replace(&mut asked, payload.to_owned());
        first = Some(ImageRun { speaker, end, said, handed, left, payload, hands_on: behind });
    }
    let cut_off = cut_off(&end).map(|how| CutOff {
        how: how.to_owned(),
        // One that may come to no end of its own has handed over by the other's beginning.
        before_hand_off: !handed_over && first.is_none(),
    });
    let run = start.elapsed() - setup;
    let region = |start: *mut u8, size: u64| start as u64..start as u64 + size;
    let guests = vm.ram().iter().map(|ram| region(ram.as_ptr(), ram.len()));
    let slots = guest.mirror.slots.iter().chain(&guest.bar_slots);
    let slots = slots.map(|slot| region(slot.memory.as_ptr(), slot.memory.size() as u64));
    let beside = footprint::beside(&guests.chain(slots).collect::<Vec<_>>());
    // A range that traps may do so for another reason by now: registers of a decoder that is not
    // committed move no slot, and nobody looked again.
    guest.mirror = Mirror::of(guest.machine, &guest.limits);
    let left = guest.snapshot(vm.slots());
    let before_attack = guest.before_attack.take();
    let judge = guest.judge.take();
    let pending = guest.pending();
    let Guest { machine, speaker, said, handed, .. } = guest;
    let passed_wrong = machine.passed_wrong();
    let hands_on = behind && first.is_none();
    let now = ImageRun { speaker, end, said, handed, left, payload: asked, hands_on };
    let (first, second) = match first {
        Some(first) => (first, Some(now)),
        None => (now, None),
    };
    Ok(GuestRun {
        limit: options.timeout,
        asked: (!foreign).then(|| Words::of_line(&line)),
        attack: judge.map(|judge| judge.finish(machine)),
        first,
        second,
        host,
        passed_wrong,
        watched: Watched { cut_off, pending: pending.len(), ..guest.vigil.finish(machine) },
        happened: guest.happened,
        pending,
        transfers: guest.engine.map(|engine| engine.ended).unwrap_or_default(),
        first_fact: guest.first_fact.map(|at| at - start),
        beside,
        disk: guest.disk.as_ref().map(|disk| (disk.size(), disk.done().clone())),
        last_access: guest.last_access,
        counts: guest.counts,
        console: guest.console,
        facts: guest.facts,
        before_attack,
        mirror: guest.mirror,
        slot_log: vm.slots().log().clone(),
        start,
        setup,
        run,
        kept: guest.kept,
    })
}

/// What ended a run before its own end, if anything.
fn cut_off(end: &End) -> Option<&'static str> {
    match end {
        End::TimedOut { .. } => Some("the time limit ended the run"),
        End::Interrupted => Some("the run was interrupted"),
        End::Failed(_) => Some("the guest could not go on"),
        End::Reset => Some("the guest died, or reset the machine"),
        End::Exit(_) | End::Port(_) | End::Halt | End::PoweredOff => None,
    }
}

impl ImageRun {
    /// The library's error number; 0 for none, `None` if the image handed nothing over.
    pub fn code(&self) -> Option<u16> {
        self.handed.as_ref().map(|handed| handed.code)
    }

    /// The hand-off record out of guest memory; empty if there is none.
    pub fn record(&self) -> &[u8] {
        self.handed.as_ref().map_or(&[], |handed| &handed.record)
    }

    /// The CEDT that the record names; empty if none.
    pub fn cedt(&self) -> &[u8] {
        self.handed.as_ref().map_or(&[], |handed| &handed.cedt)
    }

    /// What the run came to, if the image is ours.
    pub fn verdict(&self) -> Verdict {
        let code = match self.end {
            End::Exit(code) => code,
            // The Linux behind it came to its end; what was before that is judged as ever.
            End::PoweredOff if self.hands_on && self.code() == Some(0) => Status::Success.code(),
            _ => return Verdict::NoStatus,
        };
        let failed = |call: &Call| matches!(call, Call::Check { passed: false, .. });
        let vain = self.said.announced.iter().any(|announced| !announced.happened);
        match Status::decode(code) {
            Some(Status::Success) if vain || self.said.calls.iter().any(failed) => {
                Verdict::Contradicted
            }
            Some(Status::Success) => Verdict::Good,
            Some(Status::Refused) => Verdict::Refused,
            Some(Status::Panic) => Verdict::Panicked,
            None => Verdict::NoStatus,
        }
    }
}

impl GuestRun {
    /// The image that ran last.
    pub fn last(&self) -> &ImageRun {
        self.second.as_ref().unwrap_or(&self.first)
    }

    /// The machine in the end, or as the attack found it.
    pub fn last_state(&self) -> &Snapshot {
        self.before_attack.as_deref().unwrap_or(&self.last().left)
    }

    /// Whether somebody else's image was booted.
    pub fn foreign(&self) -> bool {
        self.first.speaker == Speaker::Theirs
    }

    /// From the beginning to the hand-off of the image that was booted.
    pub fn to_handoff(&self) -> Option<Duration> {
        self.first.handed.as_ref().map(|handed| handed.at - self.start)
    }
}

/// The payload that hands over.
const HAND_OVER: &str = "linux";

/// What Linux is told besides what is asked for: where its console is, and that a panic ends it, by a
/// triple fault, as there is no other reset.
pub const LINUX_LINE: &str = "console=ttyS0 panic=-1 reboot=t";

/// The memory map for Linux: RAM, what it is started with, and configuration space, which Linux uses
/// only where it is reserved.
fn linux_memory(map: &AddressMap) -> Vec<(u64, u64, bool)> {
    let ram = memory_map(map.ram.iter().copied());
    let ecam = map.ecam.iter().map(|(_, span)| (*span, false));
    let mut all: Vec<_> = ram.into_iter().chain(ecam).collect();
    all.sort_by_key(|(span, _)| span.base());
    all.into_iter().map(|(span, usable)| (span.base().0, span.size(), usable)).collect()
}

/// Memory that the host can spare: half of what is available.
fn free_memory() -> u64 {
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
        line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    });
    available.map_or(u64::MAX, |kib| kib << 9)
}

/// The command line that makes our image do what the scenario says; refuses what the library cannot
/// be asked for.
pub fn command_line(
    scenario: &Scenario,
    map: &AddressMap,
    payload: &str,
) -> Result<String, Inexpressible> {
    use std::fmt::Write;

    let wanted = RunRequest::on(scenario, map)?;
    let policy = wanted.policy();
    let mut line = String::from(match policy.path {
        PathPolicy::LockAll => "path=lock-all",
        PathPolicy::GuestPrograms => "path=guest-programs",
        PathPolicy::Describe => "path=describe",
        PathPolicy::Unlocked => "path=unlocked",
    });
    for (word, on) in [
        ("config-lock", policy.config_lock),
        ("burn-spares", policy.burn_spares),
        ("enable-cache", policy.enable_cache),
        ("leftovers", policy.map_leftovers),
        ("strict", policy.on_failure == OnFailure::Strict),
        ("no-trial", policy.no_trial),
        ("broken-sets=flat", policy.broken_sets == BrokenSets::Flat),
        ("broken-sets=unused", policy.broken_sets == BrokenSets::Unused),
        ("prefer=widest", policy.prefer == Some(Prefer::Widest)),
        ("prefer=narrowest", policy.prefer == Some(Prefer::Narrowest)),
        ("prefer=lowest", policy.prefer == Some(Prefer::Lowest)),
        ("no-probe", policy.probe == Probe::Skip),
        ("target=specification", policy.target == TargetSystem::Specification),
    ] {
        if on {
            let _ = write!(line, " {word}");
        }
    }
    let width = |width| match width {
        Width::Flat => "flat".to_owned(),
        Width::Widest => "widest".to_owned(),
        Width::Exactly(Interleave { ways, granularity }) => {
            format!("{ways}x{}", granularity.bytes())
        }
    };
    if policy.width != Width::Flat {
        let _ = write!(line, " width={}", width(policy.width));
    }
    for named in policy.windows {
        let _ = write!(line, " window={}:{}", named.window, width(named.width));
    }
    for (uid, root) in roots(scenario) {
        let _ = write!(line, " bus={uid:x}:{:x}:{:x}", root.segment, root.bus);
    }
    let place = |path: &Path| {
        let ports: Vec<_> = path.ports().iter().map(u8::to_string).collect();
        format!("{}/{}", path.uid(), ports.join("."))
    };
    for left_out in policy.leave_out {
        if let LeaveOut::At(path) = left_out {
            let _ = write!(line, " leave-out={}", place(path).trim_end_matches('/'));
        }
    }
    for &Reserve { at, partition, size } in policy.reserve {
        let at = place(&at);
        let _ = write!(line, " reserve={},{partition},{size:#x}", at.trim_end_matches('/'));
    }
    for EarlierRange { device, partition, span, interleave } in policy.earlier {
        let (base, size) = (span.base(), span.size());
        let Interleave { ways, granularity } = interleave;
        let _ = write!(line, " earlier={},{partition},{base},{size:#x},", place(device));
        let _ = write!(line, "{ways}x{}", granularity.bytes());
    }
    let single = policy.requests.iter().map(|request| {
        let &Request { device, partition, window, offset, size, skip } = request;
        (place(&device), partition, window, offset, size, skip, None)
    });
    let sets = policy.sets.iter().map(|set| {
        let &SetRequest { ref members, partition, window, offset, size, skip, granularity } = set;
        let members = members.iter().map(place).collect::<Vec<_>>().join("+");
        (members, partition, window, offset, size, skip, granularity)
    });
    for (members, partition, window, offset, size, skip, granularity) in single.chain(sets) {
        let _ = write!(line, " region={members},{partition}");
        let places = [
            ("window", window.map(|base| base.0)),
            ("offset", offset),
            ("size", size),
            ("skip", (skip != 0).then_some(skip)),
            ("granularity", granularity.map(Granularity::bytes)),
        ];
        for (key, value) in places {
            if let Some(value) = value {
                let _ = write!(line, ",{key}={value:#x}");
            }
        }
    }
    if payload::attacks(payload) && !scenario.modes.is_empty() {
        for mode in attack::modes(&Machine::new(scenario)) {
            let (address, bits, acted_on) = (mode.address, mode.bits, mode.acted_on);
            let value = mode.value.map_or("turned".to_owned(), |value| format!("{value:x}"));
            let _ = write!(line, " mode={address:x}:{bits:x}:{value}:{acted_on:x}");
        }
    }
    let bits = scenario.platform.physical_bits;
    let _ = write!(line, " address-bits={bits} payload={payload}");
    Ok(line)
}
