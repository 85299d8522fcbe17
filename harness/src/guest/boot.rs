//! Boots an image on a machine in a KVM guest and brings home what it left.
//!
//! **Invariant**: nothing of the guest is trusted. The hand-off record and the CEDT are bytes out
//! of guest memory, to be compared with the machine's registers by whoever reports them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use cxl_firmware::doorbell::{Call, Status};
use cxl_firmware::policy::{PathPolicy, Request, TargetSystem, Width};
use cxl_regs::Interleave;

use super::engine::Ended;
use super::mirror::{self, Mirror};
use super::{Announced, Counted, Counts, Guest, Handed, Happened, LastAccess, Mark};
use crate::acpi::Tables;
use crate::attack;
use crate::kvm::{Boot, BootError, Call as SlotCall, End, Entry, Limits, SlotError, Vm, VmError};
use crate::layout::AddressMap;
use crate::machine::Machine;
use crate::report::Report;
use crate::run::{self, Done, Inexpressible, Refusal, TABLES_BASE, Wanted, roots};
use crate::scenario::{Event, Scenario};
use crate::trace::Traffic;

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

/// How to boot.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// Somebody else's PVH image; `None` is ours.
    pub image: Option<&'a [u8]>,
    /// The payload of our image.
    pub payload: &'a str,
    /// The whole command line; `None` is made from the scenario.
    pub command_line: Option<String>,
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
    /// Sees the console as it is written.
    pub on_console: fn(&[u8]),
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            image: None,
            payload: "none",
            command_line: None,
            lock_by: LockBy::Image,
            until_port: None,
            then: None,
            timeout: Duration::from_secs(30),
            mirror: true,
            address_bits: u8::MAX,
            budget: None,
            interrupted: Arc::default(),
            on_console: |_| {},
        }
    }
}

/// Why there was no run.
#[derive(Debug)]
pub enum GuestError {
    /// The library, run by the host or asked what to do, refused: the guest never starts.
    Refused(Refusal),
    /// There is no virtual machine.
    Vm(VmError),
    /// The image does not boot.
    Boot(BootError),
    /// The slots of the start cannot be set.
    Slots(SlotError),
}

impl std::fmt::Display for GuestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "the guest does not start: {refusal}"),
            Self::Vm(error) => error.fmt(f),
            Self::Boot(error) => error.fmt(f),
            Self::Slots(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for GuestError {}

/// What a run left behind besides the machine's registers.
#[derive(Debug)]
pub struct GuestRun {
    /// How the image ended.
    pub end: End,
    /// How our image ended that ran afterwards, if it did. What was said through the doorbell is
    /// all its own then: record, table, checks, marks, attack. Console and counts are of both.
    pub then: Option<End>,
    /// What the library did for the host before the first instruction, if it was to.
    pub host: Option<HostRun>,
    /// Events of the scenario that were due, in order.
    pub happened: Vec<Happened>,
    /// Those that were not: the guest did not count so far.
    pub pending: Vec<Event>,
    /// Transfers of the DMA engine that have ended, in order.
    pub transfers: Vec<Ended>,
    /// The last access that exited.
    pub last_access: Option<LastAccess>,
    /// The hand-off record out of guest memory; empty if none was announced.
    pub handoff: Vec<u8>,
    /// The CEDT that the record names; empty if none.
    pub cedt: Vec<u8>,
    /// The library's error number; 0 for none, `None` if the image said nothing.
    pub code: Option<u16>,
    /// Accesses that the library counted.
    pub library: Option<Counted>,
    /// Exits until the hand-off.
    pub at_handoff: Option<Counts>,
    /// Memory slots at the hand-off: first address and bytes.
    pub slots_at_handoff: Vec<(u64, u64)>,
    /// The report of the machine as it was at the hand-off, or in the end where there was none.
    pub report: Report,
    /// Whether the first image was somebody else's.
    pub foreign: bool,
    /// Exits.
    pub counts: Counts,
    /// Everything the guest printed.
    pub console: Vec<u8>,
    /// Doorbell calls.
    pub calls: Vec<Call>,
    /// Internal errors that the image announced.
    pub announced: Vec<Announced>,
    /// Counters at the payload's marks.
    pub marks: Vec<Mark>,
    /// What the `attack` payload came to.
    pub attack: Option<attack::Report>,
    /// What was mirrored in the end.
    pub mirror: Mirror,
    /// Every change of slots.
    pub slot_log: Vec<SlotCall>,
    /// How many of these came before the hand-off.
    pub slot_calls_at_handoff: usize,
    /// From the creation of the virtual machine to the first instruction.
    pub setup: Duration,
    /// From the creation of the virtual machine to the hand-off; `None` if there was none.
    pub to_handoff: Option<Duration>,
    /// From the first instruction to the end.
    pub run: Duration,
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
    /// It did not end by itself, or in a way that our image never does; see [`GuestRun::end`].
    NoStatus,
}

/// A run of the library by the host, before the guest's.
#[derive(Debug)]
pub struct HostRun {
    /// What it left behind.
    pub done: Done,
    /// Its accesses; the machine's own count starts again with the guest.
    pub traffic: Traffic,
}

impl HostRun {
    fn of(machine: &mut Machine) -> Result<Self, GuestError> {
        let mut done = run::direct(machine);
        if let Some(refusal) = done.refusal.take() {
            return Err(GuestError::Refused(refusal));
        }
        let traffic = machine.traffic().clone();
        machine.recorder_mut().clear();
        Ok(Self { done, traffic })
    }
}

/// Boots an image on the machine and runs it to its end.
pub fn boot(machine: &mut Machine, options: &Options<'_>) -> Result<GuestRun, GuestError> {
    let start = Instant::now();
    let host = match options.lock_by {
        LockBy::Image => None,
        LockBy::Vmm => Some(HostRun::of(machine)?),
    };
    let scenario = machine.scenario().clone();
    let tables = Tables::new(&scenario, machine.map(), TABLES_BASE);
    let ram: Vec<_> = machine.map().ram.iter().map(|span| (span.base().0, span.size())).collect();
    let bits = scenario.platform.physical_bits.min(options.address_bits);
    let mut vm = Vm::new(&ram, bits).map_err(GuestError::Vm)?;
    let line =
        match (&options.command_line, command_line(&scenario, machine.map(), options.payload)) {
            (Some(line), _) => line.clone(),
            (None, Ok(line)) => line,
            // Somebody else's image was asked for nothing.
            (None, Err(_)) if options.image.is_some() => String::new(),
            (None, Err(error)) => return Err(GuestError::Refused(Refusal::Scenario(error))),
        };
    let acpi = [(tables.base, tables.bytes)];
    let rsdp = tables.base;
    vm.boot(&Boot {
        image: options.image.unwrap_or(IMAGE),
        entry: if options.image.is_some() { Entry::Pvh } else { Entry::Ring3 },
        command_line: &line,
        acpi: &acpi,
        rsdp,
    })
    .map_err(GuestError::Boot)?;
    let afterwards = options.then.map(|payload| {
        let line = command_line(&scenario, machine.map(), payload).unwrap_or_default();
        // Whatever the scenario is content with, the question here is what is locked.
        format!("{line} as-found path=lock-all")
    });
    let limits = mirror::Limits {
        enabled: options.mirror,
        bytes: options.budget.unwrap_or_else(free_memory),
        slots: vm.slots.available(),
        address_bits: vm.address_bits(),
    };
    let mut guest = Guest::new(machine, vm.ram().clone(), limits, options.on_console);
    guest.foreign = options.image.is_some();
    // The machine may have been programmed before the guest's first instruction.
    vm.follow(&mut guest).map_err(GuestError::Slots)?;
    let setup = start.elapsed();
    let mut limits = Limits {
        timeout: options.timeout,
        until_port: options.until_port,
        interrupted: Arc::clone(&options.interrupted),
    };
    let end = vm.run(&mut guest, &limits);
    let mut then = None;
    let ended = matches!(end, End::Exit(_) | End::Port(_) | End::Halt | End::TimedOut { .. });
    if let Some(line) = afterwards.filter(|_| ended) {
        vm.clear().map_err(GuestError::Boot)?;
        guest.begin_again();
        let ours =
            Boot { image: IMAGE, entry: Entry::Ring3, command_line: &line, acpi: &acpi, rsdp };
        vm.boot(&ours).map_err(GuestError::Boot)?;
        limits.until_port = None;
        then = Some(vm.run(&mut guest, &limits));
    }
    let run = start.elapsed() - setup;
    // A range that traps may do so for another reason by now: registers of a decoder that is not
    // committed move no slot, and nobody looked again.
    guest.mirror = Mirror::of(guest.machine, &guest.limits);
    let judge = guest.judge.take();
    let handed = guest.handed.take();
    let code = handed.as_ref().map(|handed| handed.code);
    let library = handed.as_ref().map(|handed| handed.library);
    let at_handoff = handed.as_ref().map(|handed| handed.counts);
    let to_handoff = handed.as_ref().map(|handed| handed.at - start);
    let slot_calls_at_handoff = handed.as_ref().map_or(0, |handed| handed.slot_calls);
    let (handoff, cedt, slots_at_handoff, report) = match handed {
        Some(Handed { record, cedt, slots, report, .. }) => (record, cedt, slots, report),
        // Where nothing was handed over the registers speak.
        None => {
            let ended = matches!(then.as_ref().unwrap_or(&end), End::Exit(_));
            (Vec::new(), Vec::new(), Vec::new(), guest.report_of_registers(ended))
        }
    };
    let home = GuestRun {
        attack: judge.map(|judge| judge.finish(guest.machine)),
        end,
        then,
        host,
        foreign: guest.foreign,
        happened: guest.happened,
        pending: guest.events.collect(),
        transfers: guest.engine.map(|engine| engine.ended).unwrap_or_default(),
        last_access: guest.last_access,
        code,
        library,
        at_handoff,
        handoff,
        cedt,
        slots_at_handoff,
        report,
        counts: guest.counts,
        console: guest.console,
        calls: guest.calls,
        announced: guest.announced,
        marks: guest.marks,
        mirror: guest.mirror,
        slot_log: vm.slots.log().to_vec(),
        slot_calls_at_handoff,
        to_handoff,
        setup,
        run,
    };
    Ok(home)
}

impl GuestRun {
    /// What the run came to, if it was our image's that ran last.
    pub fn verdict(&self) -> Verdict {
        let End::Exit(code) = *self.then.as_ref().unwrap_or(&self.end) else {
            return Verdict::NoStatus;
        };
        let failed = |call: &Call| matches!(call, Call::Check { passed: false, .. });
        match Status::decode(code) {
            Some(Status::Success) if self.calls.iter().any(failed) => Verdict::Contradicted,
            Some(Status::Success) if self.announced.iter().any(|a| !a.happened) => {
                Verdict::Contradicted
            }
            Some(Status::Success) => Verdict::Good,
            Some(Status::Refused) => Verdict::Refused,
            Some(Status::Panic) => Verdict::Panicked,
            None => Verdict::NoStatus,
        }
    }
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

    let wanted = Wanted::on(scenario, map)?;
    let policy = wanted.policy();
    let mut line = String::from(match policy.path {
        PathPolicy::LockAll => "path=lock-all",
        PathPolicy::GuestPrograms => "path=guest-programs",
        PathPolicy::Unlocked => "path=unlocked",
    });
    for (word, on) in [
        ("config-lock", policy.config_lock),
        ("burn-spares", policy.burn_spares),
        ("enable-cache", policy.enable_cache),
        ("leftovers", policy.map_leftovers),
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
        let _ = write!(line, " window={:#x}:{}", named.window, width(named.width));
    }
    for (uid, root) in roots(scenario) {
        let _ = write!(line, " bus={uid:x}:{:x}:{:x}", root.segment, root.bus);
    }
    for &Request { device, partition, window, offset, size, skip } in policy.requests {
        let ports: Vec<_> = device.ports().iter().map(u8::to_string).collect();
        let _ = write!(line, " region={}/{},{partition}", device.uid(), ports.join("."));
        let skip = (skip != 0).then_some(skip);
        let places = [("window", window), ("offset", offset), ("size", size), ("skip", skip)];
        for (key, value) in places {
            if let Some(value) = value {
                let _ = write!(line, ",{key}={value:#x}");
            }
        }
    }
    let bits = scenario.platform.physical_bits;
    let _ = write!(line, " address-bits={bits} payload={payload}");
    Ok(line)
}
