//! A recording: what each verb of the library read of a machine, so that it can run again where no machine
//! is. `harness/tests/stack.rs` makes it on the models, and the program `stack` replays it.
//!
//! It is a row of words of 32 bits, little-endian; what has 64 bits is two of them, the lower first. The
//! number of cases comes first, then each case:
//!
//! - bytes of MCFG and CEDT, each as their number and a word for every byte;
//! - the width of addresses, the number of root buses, then of each its UID, segment and bus;
//! - the number of ranges to assign from, then of each the bridge's UID, its base and size;
//! - which of [`policy`]'s;
//! - the number of verbs, then of each its number in [`Verb::ALL`], what became of it, the number of reads
//!   and of each its address and value, the number of times and these.
//!
//! **Invariant**: what was never read is all-ones, as on a bus where nothing answers.

use cxl_firmware::acpi::Tables;
use cxl_firmware::bring_up::{Workspace, bring_up, inspect};
use cxl_firmware::commit::commit;
use cxl_firmware::discover::discover;
use cxl_firmware::error::Error;
use cxl_firmware::list::{Empty, Slots};
use cxl_firmware::mmio::{Clock, Mmio};
use cxl_firmware::outcome::{ComponentOutcome, Extent};
use cxl_firmware::plan::plan;
use cxl_firmware::platform::{Platform, Resources, RootBus, Window};
use cxl_firmware::policy::{OnFailure, Policy, Prefer, Probe, TargetSystem, Width};
use cxl_firmware::probe::probe;
use cxl_firmware::restore::{Pci, restore};
use cxl_firmware::verify::verify_plan;
use cxl_firmware::windows::{self, Sizing};
use cxl_firmware::{flat, handoff, heapless, tables};
use cxl_regs::acpi::Identity;
use cxl_regs::{Hpa, Span};

/// Who makes the tables.
pub const IDENTITY: Identity = Identity {
    oem_id: *b"CXLFW ",
    oem_table_id: *b"STACK   ",
    oem_revision: 1,
    creator_id: *b"CXLF",
    creator_revision: 1,
};

/// What is measured, in the order in which it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each has its name below")]
pub enum Verb {
    FlatBringUp,
    FlatCedt,
    FlatHandOff,
    FromAcpi,
    BringUp,
    Discover,
    Plan,
    Commit,
    VerifyPlan,
    Probe,
    Cedt,
    CrossCheckHardware,
    CrossCheck,
    Srat,
    HandOff,
    Inspect,
    Windows,
    Restore,
}

impl Verb {
    /// All of them; a recording has each as its place here.
    pub const ALL: [Self; 18] = [
        Self::FlatBringUp,
        Self::FlatCedt,
        Self::FlatHandOff,
        Self::FromAcpi,
        Self::BringUp,
        Self::Discover,
        Self::Plan,
        Self::Commit,
        Self::VerifyPlan,
        Self::Probe,
        Self::Cedt,
        Self::CrossCheckHardware,
        Self::CrossCheck,
        Self::Srat,
        Self::HandOff,
        Self::Inspect,
        Self::Windows,
        Self::Restore,
    ];

    /// As users write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FlatBringUp => "flat::bring_up",
            Self::FlatCedt => "flat::cedt",
            Self::FlatHandOff => "flat::hand_off",
            Self::FromAcpi => "Tables::<32, 64>::from_acpi",
            Self::BringUp => "bring_up",
            Self::Discover => "discover",
            Self::Plan => "plan",
            Self::Commit => "commit",
            Self::VerifyPlan => "verify_plan",
            Self::Probe => "probe",
            Self::Cedt => "tables::cedt",
            Self::CrossCheckHardware => "tables::cross_check_hardware",
            Self::CrossCheck => "tables::cross_check",
            Self::Srat => "tables::srat",
            Self::HandOff => "handoff::write",
            Self::Inspect => "inspect",
            Self::Windows => "windows::place",
            Self::Restore => "restore",
        }
    }
}

/// How many policies there are.
pub const POLICIES: u32 = 4;

/// The policies that every machine is brought up with, from the least to the most; what the typical profile
/// lacks is in the last two alone.
#[must_use]
pub fn policy(number: u32) -> Policy<'static> {
    let least = Policy { probe: Probe::Skip, ..Policy::DEFAULT };
    let typical = Policy {
        config_lock: true,
        width: Width::Widest,
        map_leftovers: true,
        prefer: Some(Prefer::Widest),
        on_failure: OnFailure::BestEffort,
        ..least
    };
    let most = Policy { enable_cache: true, probe: Probe::All, ..typical };
    match number {
        0 => least,
        1 => typical,
        2 => most,
        _ => Policy { burn_spares: true, target: TargetSystem::Specification, ..most },
    }
}

/// What a verb came to: the number of its error with the highest bit, or what else there is to compare.
fn outcome(result: Result<u32, Error>) -> u32 {
    result.unwrap_or_else(|error| FAILED | u32::from(error.code()))
}

/// The bit of an outcome that says that the verb refused.
pub const FAILED: u32 = 1 << 31;

/// Of bytes to compare: FNV-1a, without the highest bit.
fn sum(bytes: &[u8]) -> u32 {
    let sum = |sum: u32, byte: &u8| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811C_9DC5, sum) & !FAILED
}

/// One that verbs are run on, and looks at them.
pub trait Runner {
    /// Registers and memory.
    type Hardware: Mmio;
    /// The time there.
    type Time: Clock;

    /// Whether this verb is wanted.
    fn wants(verb: Verb) -> bool;
    /// From here on the machine is one that nobody has touched.
    fn begin(&mut self);
    /// The machine has lost what it loses with its power.
    fn reset(&mut self);
    /// Runs a verb, whose outcome this is; none if nothing more is to be run.
    fn run(
        &mut self,
        verb: Verb,
        job: &mut dyn FnMut(&mut Self::Hardware, &mut Self::Time) -> u32,
    ) -> Option<u32>;
}

/// A machine by its tables.
pub struct Described<'a> {
    /// Its MCFG.
    pub mcfg: &'a [u8],
    /// Its CEDT.
    pub cedt: &'a [u8],
    /// Width of its addresses in bits.
    pub address_bits: u8,
    /// The root buses that are known, by bridge.
    pub roots: &'a [(u32, RootBus)],
    /// What may be assigned.
    pub resources: &'a [Resources],
}

/// Where verbs put what they make, none of it on a stack.
pub struct Room {
    work: Workspace<640, 320, 1280>,
    flat: flat::Workspace<4, 8, 16>,
    table: [u8; 64 << 10],
    record: [u8; 256 << 10],
    windows: heapless::Vec<Window, 64>,
    outcomes: [ComponentOutcome; 640],
}

impl Room {
    /// With nothing in it.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "for a static: far too large to be handed over")]
    pub const fn new() -> Self {
        Self {
            work: Workspace::new(),
            flat: flat::Workspace::new(),
            table: [0; 64 << 10],
            record: [0; 256 << 10],
            windows: heapless::Vec::new(),
            outcomes: [ComponentOutcome::EMPTY; 640],
        }
    }
}

/// Runs all verbs, each as far as there is something to run it on.
pub fn run<R: Runner>(
    runner: &mut R,
    machine: &Described<'_>,
    policy: &Policy<'_>,
    room: &mut Room,
) -> Option<()> {
    let Described { mcfg, cedt, address_bits, roots, .. } = *machine;
    let read = || Tables::<32, 64>::from_acpi(mcfg, cedt, address_bits, roots);
    if R::wants(Verb::FromAcpi) {
        runner.run(Verb::FromAcpi, &mut |_, _| {
            outcome(read().map(|tables| tables.windows.len() as u32))
        })?;
    }
    let mut tables = read().ok()?;
    let _ = tables.resources.extend_from_slice(machine.resources);
    let platform = &tables.platform();
    if R::wants(Verb::FlatBringUp) {
        // What it refuses is the general path's.
        let _ = run_flat(runner, platform, policy, room);
    }
    if R::wants(Verb::BringUp) {
        run_general(runner, machine, platform, policy, room)
    } else {
        Some(())
    }
}

fn run_flat<R: Runner>(
    runner: &mut R,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    room: &mut Room,
) -> Option<()> {
    let Room { flat: work, table, record, .. } = room;
    let policy = flat::Policy { config_lock: policy.config_lock, assume_volatile: true };
    runner.begin();
    let result = runner.run(Verb::FlatBringUp, &mut |hw, clock| {
        outcome(flat::bring_up(hw, clock, platform, &policy, &mut *work).map(|()| 0))
    })?;
    if result & FAILED != 0 {
        return None;
    }
    runner.run(Verb::FlatCedt, &mut |hw, _| {
        outcome(flat::cedt(hw, platform, &mut *work, IDENTITY, table).map(|table| sum(table)))
    })?;
    runner.run(Verb::FlatHandOff, &mut |hw, _| {
        let record = flat::hand_off(hw, platform, &mut *work, None, record);
        outcome(record.map(|record| sum(record)))
    })?;
    Some(())
}

fn run_general<R: Runner>(
    runner: &mut R,
    machine: &Described<'_>,
    platform: &Platform<'_>,
    policy: &Policy<'_>,
    room: &mut Room,
) -> Option<()> {
    let Room { work, table, record, windows: made, outcomes, .. } = room;
    runner.begin();
    runner.run(Verb::BringUp, &mut |hw, clock| {
        outcome(bring_up(hw, clock, platform, policy, &mut *work).map(|extent| match extent {
            Extent::Whole => 0,
            Extent::Less { lost } => u32::from(lost),
        }))
    })?;

    let Workspace { topology, plan: planned, committed, findings, probe: errors } = &mut *work;
    runner.begin();
    if R::wants(Verb::Discover) {
        runner.run(Verb::Discover, &mut |hw, clock| {
            outcome(discover(hw, clock, platform, &mut *topology).map(|()| 0))
        })?;
        let result = runner.run(Verb::Plan, &mut |_, _| {
            outcome(plan(platform, &*topology, policy, &mut *planned).map(|()| 0))
        })?;
        if result & FAILED != 0 {
            return None;
        }
        runner.run(Verb::Commit, &mut |hw, clock| {
            let result = commit(hw, clock, &*topology, &*planned, policy, &mut *committed);
            outcome(result.map(|_| 0))
        })?;
        runner.run(Verb::VerifyPlan, &mut |hw, _| {
            let (topology, planned) = (&*topology, &*planned);
            verify_plan(hw, platform, topology, planned, policy, &mut *committed, &mut *findings);
            0
        })?;
        if R::wants(Verb::Probe) {
            runner.run(Verb::Probe, &mut |hw, _| {
                outcome(
                    probe(hw, platform, &*topology, policy.probe, &mut *committed, errors)
                        .map(|()| 0),
                )
            })?;
        }
    }

    let mut length = 0;
    runner.run(Verb::Cedt, &mut |_, _| {
        let cedt = tables::cedt_as(platform, &*topology, &*committed, policy, IDENTITY, table);
        outcome(cedt.map(|cedt| {
            length = cedt.len();
            sum(cedt)
        }))
    })?;
    runner.run(Verb::CrossCheckHardware, &mut |hw, _| {
        let cedt = &table[..length];
        outcome(tables::cross_check_hardware(hw, cedt, &*topology, &*committed).map(|()| 0))
    })?;
    if R::wants(Verb::CrossCheck) {
        runner.run(Verb::CrossCheck, &mut |_, _| {
            outcome(tables::cross_check(machine.cedt, &*topology, &*committed).map(|()| 0))
        })?;
        runner.run(Verb::Srat, &mut |_, _| {
            outcome(tables::srat(&*committed, IDENTITY, 1, table).map(|srat| sum(srat)))
        })?;
    }

    let contents = handoff::Contents {
        ecam: platform.ecam,
        topology: topology.tree(),
        remarks: &topology.remarks,
        committed: committed.view(),
        cedt: None,
    };
    let mut length = 0;
    let result = runner.run(Verb::HandOff, &mut |hw, _| {
        outcome(handoff::write(hw, &contents, record).map(|record| {
            length = record.len();
            sum(record)
        }))
    })?;
    if R::wants(Verb::Inspect) {
        runner.run(Verb::Inspect, &mut |hw, clock| {
            outcome(inspect(hw, clock, platform, policy, &mut *work).map(|()| 0))
        })?;
        let free = [Span::new(Hpa(1 << 45), 1 << 45).ok()?];
        let sizing = Sizing { free: &free, across: None };
        made.clear();
        runner.run(Verb::Windows, &mut |_, _| {
            let result = windows::place(platform, &work.topology, &sizing, &mut *made);
            outcome(result.map(|()| made.len() as u32))
        })?;
    }
    if result & FAILED != 0 {
        return None;
    }

    runner.reset();
    runner.run(Verb::Restore, &mut |hw, clock| {
        let mut outcomes = Slots::new(outcomes);
        let extent = handoff::read(&record[..length]).and_then(|record| {
            restore(hw, clock, platform.ecam, &record, Pci::Library, outcomes.list())
        });
        outcome(extent.map(|extent| match extent {
            Extent::Whole => 0,
            Extent::Less { lost } => u32::from(lost),
        }))
    })?;
    Some(())
}

/// What is left of a recording.
#[derive(Clone, Copy)]
pub struct Words<'a>(pub &'a [u32]);

impl<'a> Words<'a> {
    /// The next word.
    pub fn word(&mut self) -> u32 {
        let Some((word, rest)) = self.0.split_first() else { return u32::MAX };
        self.0 = rest;
        u32::from_le(*word)
    }

    /// The next two, as one number.
    pub fn long(&mut self) -> u64 {
        u64::from(self.word()) | u64::from(self.word()) << 32
    }

    /// As many words as the next one says, if there are so many: of how many words each item has.
    pub fn list(&mut self, words: usize) -> Self {
        let length = (self.word() as usize).saturating_mul(words).min(self.0.len());
        let (list, rest) = self.0.split_at(length);
        self.0 = rest;
        Self(list)
    }

    /// A list of bytes, as far as there is room.
    pub fn bytes<'b>(&mut self, room: &'b mut [u8]) -> &'b [u8] {
        let mut list = self.list(1);
        let length = list.0.len().min(room.len());
        let bytes = &mut room[..length];
        bytes.fill_with(|| list.word() as u8);
        bytes
    }
}

/// A machine of which only this is known: what was read at each address, one value after the other. The last
/// one stays: a program that has less of the library may read more often.
pub struct Registers<'a> {
    reads: Words<'a>,
    /// Of each read, by a bit, whether its value was given.
    given: [u32; READS / 32],
    /// All in front of this one were given.
    first: usize,
}

/// The most reads that a verb may have.
const READS: usize = 64 << 10;

impl<'a> Registers<'a> {
    /// Of which nothing is known.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "as of `Room`")]
    pub const fn new() -> Self {
        Self { reads: Words(&[]), given: [0; READS / 32], first: 0 }
    }

    /// From the reads of one verb, of which not all are kept if they are too many.
    pub fn start(&mut self, reads: Words<'a>) {
        self.reads = reads;
        self.given.fill(0);
        self.first = 0;
    }
}

impl Mmio for Registers<'_> {
    fn read(&mut self, address: u64) -> u32 {
        let all = self.reads.0.as_chunks::<3>().0;
        let here = |read: &[u32; 3]| Words(read).long() == address;
        let given = |number: usize, given: &[u32]| {
            given.get(number / 32).is_none_or(|bits| bits >> (number % 32) & 1 != 0)
        };
        let next = (self.first..all.len())
            .find(|&number| all.get(number).is_some_and(here) && !given(number, &self.given));
        let found = match next {
            Some(next) => {
                if let Some(bits) = self.given.get_mut(next / 32) {
                    *bits |= 1 << (next % 32);
                }
                while given(self.first, &self.given) && self.first < all.len() {
                    self.first += 1;
                }
                all.get(next)
            }
            None => all.iter().rfind(|read| here(read)),
        };
        found.map_or(u32::MAX, |&[.., value]| u32::from_le(value))
    }

    fn write(&mut self, _: u64, _: u32) {}
}

/// Times that were read, in this order.
pub struct Times<'a>(pub Words<'a>);

impl Clock for Times<'_> {
    fn microseconds(&mut self) -> u64 {
        self.0.long()
    }
}
