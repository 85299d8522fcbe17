//! A machine as a KVM guest sees it: registers answered by the models, committed memory mirrored
//! into memory slots.
//!
//! **Invariant**: the slots follow from the machine's registers alone; see [`mirror`].

pub mod boot;
pub mod config;
pub mod engine;
pub mod mirror;

use std::time::Instant;

use cxl_firmware::doorbell::{Call, EMPTY_HANDLER, Message};
use cxl_firmware::handoff;
use cxl_regs::Hpa;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use zerocopy::FromBytes;

use crate::attack::Judge;
use crate::backing;
use crate::dma::Memory;
use crate::kvm::{Bus, Slot, Slots};
use crate::machine::{Changes, Machine, PlugError, Target};
use crate::report::{Left, Refusal, Report};
use crate::scenario::Event;
use crate::trace::Direction;
use config::ConfigPages;
use engine::Engine;
use mirror::{Limits, Mirror};

/// What the guest did that no register shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accesses that exited, reads and writes.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Of these, accesses to a CXL memory window.
    pub window: u64,
    /// Of the reads, those of configuration space.
    pub config: u64,
    /// Of the writes, those of 64-bit registers: the library and the machine count two dwords.
    pub paired: u64,
}

/// An access that exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastAccess {
    /// Which way it went.
    pub direction: Direction,
    /// Where.
    pub address: u64,
    /// Bytes.
    pub length: usize,
}

/// An event of the scenario that was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Happened {
    /// The guest's count by then.
    pub count: u64,
    /// What was to happen.
    pub event: Event,
    /// Whether it did; if not, nothing has changed, and the guest goes on either way.
    pub result: Result<(), PlugError>,
    /// Ranges that the registers let be mirrored afterwards.
    pub slots: usize,
}

/// An internal error of KVM that the guest announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Where it wanted to go on.
    pub resume: u64,
    /// Whether it happened.
    pub happened: bool,
    /// Ranges that were mirrored then.
    pub slots: usize,
}

/// The counters at a place that a payload marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The payload's number for it.
    pub id: u64,
    /// Exits until then.
    pub counts: Counts,
    /// Slots that were mirrored then.
    pub slots: usize,
}

/// The upper byte of the library's error numbers for the verifier's findings.
const VERIFY_PHASE: u16 = 0x05;

/// The suberror of an instruction that KVM's emulator does not know (KVM_INTERNAL_ERROR_EMULATION).
const EMULATION: u32 = 1;

/// Accesses that the library counted, in dwords.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Reads.
    pub reads: u64,
    /// Of these, reads of configuration space.
    pub config: u64,
    /// Writes.
    pub writes: u64,
}

/// What the firmware handed over.
#[derive(Debug)]
pub struct Handed {
    /// The hand-off record out of guest memory; empty if there is none.
    pub record: Vec<u8>,
    /// The CEDT that the record names; empty if none.
    pub cedt: Vec<u8>,
    /// The library's error number; 0 for none.
    pub code: u16,
    /// Accesses that the library counted.
    pub library: Counted,
    /// Exits until then.
    pub counts: Counts,
    /// Memory slots as they were then: first address and bytes.
    pub slots: Vec<(u64, u64)>,
    /// Calls to KVM until then.
    pub slot_calls: usize,
    /// When it was; the report is made afterwards.
    pub at: Instant,
    /// The report of the machine as it was then: payloads may leave another one behind.
    pub report: Report,
}

/// A machine on the other side of a vCPU's exits.
pub struct Guest<'a> {
    /// The machine.
    pub machine: &'a mut Machine,
    /// What is mirrored, and why the rest is not.
    pub mirror: Mirror,
    /// Slots of plain memory behind BARs.
    pub bar_slots: Vec<Slot>,
    /// Configuration space that is read without an exit.
    config: ConfigPages,
    /// Bounds of the mirror.
    pub limits: Limits,
    /// What the guest printed.
    pub console: Vec<u8>,
    /// Calls through the doorbell, in order.
    pub calls: Vec<Call>,
    /// Exits.
    pub counts: Counts,
    /// What the firmware handed over, and the machine's state then.
    pub handed: Option<Handed>,
    /// The last of them.
    pub last_access: Option<LastAccess>,
    /// Events of the scenario that were due, in order.
    pub happened: Vec<Happened>,
    /// The DMA engine, if the machine has a place for it.
    pub engine: Option<Engine>,
    ram: GuestMemoryMmap,
    events: std::vec::IntoIter<Event>,
    /// Internal errors that were announced, in order.
    pub announced: Vec<Announced>,
    /// Counters at the payload's marks, in order.
    pub marks: Vec<Mark>,
    /// The last call announced an internal error.
    expecting: bool,
    /// Somebody else's image ran first.
    pub foreign: bool,
    /// The judge of an attack, once there is one.
    pub judge: Option<Judge>,
    on_console: fn(&[u8]),
}

impl LastAccess {
    /// The access in words, with the register's name.
    pub fn words(&self, machine: &Machine) -> String {
        let Self { direction, address, length } = *self;
        let target = machine.target(address);
        let place = target.and_then(Target::place).map(|place| machine.name(place));
        let specs = target.map(|target| machine.registers(target)).unwrap_or_default();
        let names: Vec<_> = specs.iter().map(|spec| spec.name).collect();
        let what = match (target, place) {
            (Some(Target::Window), _) => "a CXL window".to_owned(),
            (_, Some(place)) if names.is_empty() => place.to_owned(),
            (_, Some(place)) => format!("{place}, {}", names.join("; ")),
            _ => "nothing answers there".to_owned(),
        };
        format!("{direction} of {length} bytes at {address:#x} ({what})")
    }
}

impl<'a> Guest<'a> {
    /// A guest of this machine with this RAM; `on_console` sees what the guest prints as it comes.
    pub fn new(
        machine: &'a mut Machine,
        ram: GuestMemoryMmap,
        limits: Limits,
        on_console: fn(&[u8]),
    ) -> Self {
        Self {
            happened: Vec::new(),
            last_access: None,
            engine: Engine::of(machine),
            config: ConfigPages::new(machine),
            ram,
            events: machine.scenario().events.clone().into_iter(),
            machine,
            mirror: Mirror::default(),
            bar_slots: Vec::new(),
            limits,
            console: Vec::new(),
            calls: Vec::new(),
            counts: Counts::default(),
            handed: None,
            announced: Vec::new(),
            marks: Vec::new(),
            expecting: false,
            foreign: false,
            judge: None,
            on_console,
        }
    }

    fn count(&mut self, direction: Direction, address: u64, length: usize) {
        match direction {
            Direction::Read => self.counts.reads += 1,
            Direction::Write => self.counts.writes += 1,
        }
        let window = self.machine.target(address) == Some(Target::Window);
        self.counts.window += u64::from(window);
        let pair = direction == Direction::Write && length == 8 && !window;
        self.counts.paired += u64::from(pair);
        let mut ecam = self.machine.map().ecam.iter();
        let config = direction == Direction::Read && ecam.any(|(_, at)| at.contains(Hpa(address)));
        self.counts.config += u64::from(config);
        self.last_access = Some(LastAccess { direction, address, length });
    }

    /// Does what is due by the guest's own count.
    fn advance(&mut self, count: u64) {
        while let Some(event) = self.events.as_slice().first().filter(|event| event.at <= count) {
            let event = *event;
            let result = self.machine.act(event.action);
            let slots = Mirror::of(self.machine, &self.limits).slots.len();
            self.happened.push(Happened { count, event, result, slots });
            self.events.next();
        }
    }

    /// Lets running transfers move on.
    fn transfer(&mut self) {
        if let Some(engine) = &mut self.engine {
            engine.step(&mut Memory {
                ram: &self.ram,
                machine: self.machine,
                mirror: &self.mirror,
                bar_slots: &self.bar_slots,
            });
        }
    }

    /// The engine, if an address is its own.
    fn engine_at(&mut self, address: u64) -> Option<&mut Engine> {
        let claims = self.engine.as_ref().is_some_and(|engine| engine.claims(address));
        let engine = self.engine.as_mut().filter(|_| claims)?;
        self.machine.target(address).is_none().then_some(engine)
    }
}

impl Guest<'_> {
    /// Another image is to run on the machine as it is: what the first one said through the
    /// doorbell is not the second one's word, and no transfer of its goes on in memory that is
    /// not its own any more.
    pub fn begin_again(&mut self) {
        self.calls.clear();
        self.announced.clear();
        self.marks.clear();
        self.expecting = false;
        self.handed = None;
        self.judge = None;
        if let Some(engine) = &mut self.engine {
            engine.stop();
        }
    }

    /// Brings home what the firmware left, while the machine is as it left it.
    fn hand_over(
        &mut self,
        (address, length): (u64, u64),
        library: Counted,
        code: u16,
        kvm: &Slots,
    ) {
        let at = Instant::now();
        let record = copy(&self.ram, address, length);
        let table = handoff::read(&record).ok().and_then(|record| record.cedt);
        let cedt = table.map(|at| copy(&self.ram, at.address, at.size.into())).unwrap_or_default();
        let mut traffic = self.machine.traffic().clone();
        traffic.all.reads += self.unseen(library);
        // Whether another's decoders are locked is asked with `--require locked`, and what else the
        // verifier says the report finds out for itself.
        let judged = self.foreign && code >> 8 == VERIFY_PHASE;
        let refusal = if judged { None } else { refusal(&self.console, code) };
        let left = Left {
            handoff: &record,
            cedt: &cedt,
            refusal: refusal.as_ref(),
            traffic: &traffic,
            foreign: self.foreign,
            unfinished: false,
        };
        let mut report = Report::of(self.machine, &left);
        let counts = self.counts;
        if !self.foreign {
            self.compare_counts(&mut report, library);
        }
        self.compare_slots(&mut report, kvm);
        let slots = self.mirror.slots.iter().map(|slot| (slot.base, slot.size)).collect();
        let slot_calls = kvm.log().len();
        self.handed =
            Some(Handed { record, cedt, code, library, counts, slots, slot_calls, at, report });
    }

    /// Reads of configuration space that left no exit: nobody but the library knows how many.
    fn unseen(&self, library: Counted) -> u64 {
        let most = if self.config.is_empty() { 0 } else { library.config };
        most.saturating_sub(self.counts.config)
    }

    /// Holds the library's count of its accesses against the exits.
    fn compare_counts(&self, report: &mut Report, library: Counted) {
        let Counts { reads, config, writes, paired, .. } = self.counts;
        // The library counts dwords.
        let delivered = Counted { reads, config, writes: writes + paired };
        let unseen = self.unseen(library);
        let expected = Counted { reads: reads + unseen, config: config + unseen, ..delivered };
        if library != expected {
            report.facts.fail(format!(
                "the library counted {} reads, {} of them of configuration space, and {} writes; \
                 KVM delivered {}, {} and {}",
                library.reads,
                library.config,
                library.writes,
                delivered.reads,
                delivered.config,
                delivered.writes
            ));
        }
    }

    /// Holds what KVM was told against what the registers ask for, and both against what the
    /// firmware says that it made: a slot lies in a region, and a region has a slot or a reason.
    fn compare_slots(&self, report: &mut Report, kvm: &Slots) {
        let told: Vec<_> = kvm.mapped().map(|slot| (slot.base, slot.size)).collect();
        let mut asked: Vec<_> =
            self.all_slots().into_iter().map(|slot| (slot.base, slot.size)).collect();
        asked.sort_unstable();
        if told != asked {
            let words = format!("KVM maps {told:x?}, the registers ask for {asked:x?}");
            report.facts.fail(words);
        }
        if self.foreign || report.facts.refusal.is_some() {
            return;
        }
        let meets = |hpa: u64, size: u64, base: u64, length: u64| {
            hpa < base.saturating_add(length) && base < hpa.saturating_add(size)
        };
        let mut failures = Vec::new();
        for slot in &self.mirror.slots {
            let inside = report.facts.regions.iter().any(|region| {
                region.hpa <= slot.base
                    && slot.base + slot.size <= region.hpa.saturating_add(region.size)
            });
            if !inside {
                let at = slot.base;
                failures.push(format!("the slot at {at:#x} lies in no region that was recorded"));
            }
        }
        for region in &report.facts.regions {
            let (hpa, size) = (region.hpa, region.size);
            let mut slots = self.mirror.slots.iter();
            let slot = slots.any(|slot| meets(hpa, size, slot.base, slot.size));
            let mut others = self.mirror.unmirrored.iter();
            let reason = others.any(|(index, _)| {
                let mapping = self.mirror.mappings.get(*index);
                mapping.is_some_and(|mapping| meets(hpa, size, mapping.hpa.0, mapping.size))
            });
            if !slot && !reason {
                failures.push(format!("the region at {hpa:#x} has no slot, and no reason for it"));
            }
        }
        failures.into_iter().for_each(|failure| report.facts.fail(failure));
    }

    /// What the guest is to see besides RAM; memory has the first choice of slots.
    fn all_slots(&self) -> Vec<Slot> {
        let memory = self.mirror.slots.iter().chain(&self.bar_slots);
        let left = self.limits.slots.saturating_sub(memory.clone().count());
        memory.cloned().chain(self.config.slots().take(left)).collect()
    }

    /// The report of a machine as it is now, without a word of whoever programmed it; `ended` says
    /// whether that is by its own choice.
    fn report_of_registers(&mut self, ended: bool) -> Report {
        let traffic = self.machine.traffic().clone();
        let refusal = if self.foreign { None } else { refusal(&self.console, 0) };
        let left = Left {
            handoff: &[],
            cedt: &[],
            refusal: refusal.as_ref(),
            traffic: &traffic,
            foreign: self.foreign,
            unfinished: !ended,
        };
        Report::of(self.machine, &left)
    }

    /// Takes the pages of a range away: RAM, or what is mirrored there.
    fn forget(&self, base: u64, length: u64) {
        let mut slots = self.mirror.slots.iter();
        let slot = slots.find(|slot| slot.base <= base && base < slot.base + slot.size);
        match slot {
            Some(slot) => {
                let offset = slot.offset + (base - slot.base);
                backing::forget(&slot.memory, offset, length);
            }
            None => {
                for region in self.ram.iter() {
                    let start = region.start_addr().0;
                    if let Some(offset) = base.checked_sub(start)
                        && offset < region.len()
                    {
                        backing::forget(region, offset, length);
                    }
                }
            }
        }
    }
}

/// The refusal that the guest printed last: `refused: PHASE: WORDS`.
fn refusal(console: &[u8], code: u16) -> Option<Refusal> {
    let text = String::from_utf8_lossy(console);
    let words = text.lines().rev().find_map(|line| line.strip_prefix("refused: "))?;
    let (phase, message) = words.split_once(": ").unwrap_or(("image", words));
    Some(Refusal { phase: phase.to_owned(), code, message: message.to_owned() })
}

/// Bytes of console output that are kept, the last ones.
const MOST_CONSOLE: usize = 1 << 20;
/// Calls that are kept, the first ones: more than any payload of ours makes.
const MOST_CALLS: usize = 1 << 20;

/// Bytes of guest memory; none if they do not all lie in RAM, or are more than anything we expect.
fn copy(memory: &GuestMemoryMmap, address: u64, length: u64) -> Vec<u8> {
    const MOST: u64 = 1 << 20;
    let mut bytes = vec![0; length.min(MOST) as usize];
    match memory.read_slice(&mut bytes, GuestAddress(address)) {
        Ok(()) if length <= MOST => bytes,
        _ => Vec::new(),
    }
}

impl Bus for Guest<'_> {
    fn read(&mut self, address: u64, data: &mut [u8]) {
        if address == EMPTY_HANDLER {
            return;
        }
        self.count(Direction::Read, address, data.len());
        match self.engine_at(address) {
            Some(engine) => engine.read(address, data),
            None => self.machine.read_bytes(address, data),
        }
        self.transfer();
    }

    fn write(&mut self, address: u64, data: &[u8]) {
        self.count(Direction::Write, address, data.len());
        if let Some(judge) = &mut self.judge
            && let Ok(dword) = data.try_into()
        {
            judge.before_write(self.machine, address, u32::from_le_bytes(dword));
        }
        match self.engine_at(address) {
            Some(engine) => engine.write(address, data),
            None => self.machine.write_bytes(address, data),
        }
        self.transfer();
    }

    fn slots(&mut self) -> Option<Vec<Slot>> {
        let changes = self.machine.take_changes();
        let changed = changes != Changes::default();
        if changes.remap {
            self.mirror = Mirror::follow(self.machine, &self.limits);
        }
        if changed {
            let used = self.mirror.slots.len();
            self.bar_slots = mirror::bar_slots(self.machine, &self.limits, used);
        }
        // Of somebody else's image every access is to be seen.
        if changes.relocate && self.limits.enabled && !self.foreign {
            self.config.relocate(self.machine);
        }
        self.config.refresh(self.machine);
        changed.then(|| self.all_slots())
    }

    fn console(&mut self, bytes: &[u8]) {
        self.console.extend_from_slice(bytes);
        if self.console.len() > 2 * MOST_CONSOLE {
            self.console.drain(..self.console.len() - MOST_CONSOLE);
        }
        (self.on_console)(bytes);
    }

    fn doorbell(&mut self, value: u32, slots: &Slots) {
        let mut bytes = [0; size_of::<Message>()];
        if self.ram.read_slice(&mut bytes, GuestAddress(value.into())).is_err() {
            return;
        }
        let Some(call) = Message::read_from_bytes(&bytes).ok().as_ref().and_then(Call::decode)
        else {
            return;
        };
        // An attack announces every bit: the judge keeps count of it.
        if !matches!(call, Call::Attack(_)) && self.calls.len() < MOST_CALLS {
            self.calls.push(call);
        }
        self.expecting = false;
        match call {
            Call::ExpectInternalError { resume } => {
                if self.announced.len() < MOST_CALLS {
                    let slots = self.mirror.slots.len();
                    self.announced.push(Announced { resume, happened: false, slots });
                    self.expecting = true;
                }
            }
            Call::Count { value } => self.advance(value),
            Call::Forget { a, b, length } => {
                for base in [a, b] {
                    self.forget(base, length);
                }
            }
            Call::Attack(event) => {
                let judge = self.judge.get_or_insert_with(|| Judge::new(self.machine));
                judge.hear(self.machine, event);
            }
            Call::Pair { .. } => {}
            Call::HandOff { address, length, reads, config, writes, code } => {
                let library = Counted { reads, config, writes };
                self.hand_over((address, length), library, code as u16, slots);
            }
            Call::Mark { id } => {
                let (counts, slots) = (self.counts, self.mirror.slots.len());
                if self.marks.len() < MOST_CALLS {
                    self.marks.push(Mark { id, counts, slots });
                }
            }
            Call::Check { .. } => {}
        }
    }

    fn internal_error(&mut self, suberror: u32) -> Option<u64> {
        if !std::mem::take(&mut self.expecting) || suberror != EMULATION {
            return None;
        }
        let announced = self.announced.last_mut()?;
        announced.happened = true;
        Some(announced.resume)
    }
}
