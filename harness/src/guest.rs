//! A machine as a KVM guest sees it: registers answered by the models, committed memory mirrored
//! into memory slots.
//!
//! **Invariant**: the slots follow from the machine's registers alone; see [`mirror`]. Whatever the
//! guest does for however long, what is kept of it is bounded: the first [`MOST_CALLS`] calls,
//! announcements and marks, the last two MiB of the console, [`MOST_FACTS`] of facts, one hand-off with at most 1 MiB of record
//! and as much of table, the events that the scenario has, and what [`engine`], [`Slots`] and [`Vigil`]
//! keep.

pub mod boot;
pub mod engine;
pub(crate) mod footprint;
pub mod pages;
pub mod payload;
pub mod platform;
mod witness;

use std::time::Instant;

use cxl_firmware::handoff;
use cxl_image::doorbell::{Call, EMPTY_HANDLER, Message};
use cxl_regs::Hpa;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use zerocopy::FromBytes;

use crate::attack::{self, Judge};
use crate::dma::Memory;
use crate::kvm::{Bus, Signal, Slot, Slots};
use crate::mirror::{self, Limits, Mirror};
use crate::vigil::{Moment, Vigil};
use crate::virtio::Disk;
use cxl_model::backing;
use cxl_model::kept::Kept;
use cxl_model::machine::{Changes, Machine, PlugError};
use cxl_model::scenario::Event;
use cxl_model::trace::{Direction, Target, Traffic};
use engine::Engine;
use pages::{Listed, RegisterPages};

/// What the guest did that no register shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accesses that exited, reads and writes.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Of these, accesses to a CXL memory window.
    pub window: u64,
    /// Of these, writes.
    pub window_writes: u64,
    /// Of the reads, those of configuration space.
    pub config: u64,
    /// Of the writes, those of 64-bit registers: the library and the machine count two dwords.
    pub paired: u64,
    /// Reads that left no exit, as our image lists them: of registers, but not configuration space.
    pub listed: u64,
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
    /// Reads of memory in a window, which are no register accesses.
    pub memory_reads: u64,
    /// Writes to it.
    pub memory_writes: u64,
}

/// What the firmware handed over, and the machine at that moment.
#[derive(Debug)]
pub struct GuestHandoff {
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
    /// Reads of configuration space that left no exit: nobody but the library knows how many.
    pub unseen: u64,
    /// Register accesses until then, those that left no exit included.
    pub traffic: Traffic,
    /// When it was.
    pub at: Instant,
    /// The machine as it was then, registers alone.
    pub then: Snapshot,
    /// Bytes that the guest reaches at an address and the device has at another, in words.
    pub astray: Vec<String>,
}

/// Memory slots at one moment: first address and bytes of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotState {
    /// Slots of CXL memory.
    pub memory: Vec<(u64, u64)>,
    /// Whether anything is mirrored at all.
    pub mirrors: bool,
    /// Direct ranges without a slot.
    pub without: Vec<(u64, u64)>,
    /// What the registers ask KVM for besides RAM, in order of address.
    pub asked: Vec<(u64, u64)>,
    /// What KVM was told.
    pub told: Vec<(u64, u64)>,
    /// Calls to KVM until then.
    pub calls: usize,
}

/// Who speaks through the doorbell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speaker {
    /// The image that comes with the harness, as booted by it.
    #[default]
    Ours,
    /// Somebody else's: what it says is quoted, and nothing is concluded from it.
    Theirs,
}

/// What an image said through the doorbell.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Its calls in order, but those of an attack.
    pub calls: Kept<Call, MOST_CALLS>,
    /// Internal errors that it announced, in order.
    pub announced: Kept<Announced, MOST_CALLS>,
    /// Counters at its marks, in order.
    pub marks: Kept<Mark, MOST_CALLS>,
    /// Events of an attack that nobody asked it for: words, and nothing more.
    pub attack_events: u64,
    /// Times that it handed over; the first one counts.
    pub hand_offs: u64,
}

/// A machine on the other side of a vCPU's exits.
pub struct Guest<'a> {
    /// The machine.
    pub machine: &'a mut Machine,
    /// What is mirrored, and why the rest is not.
    pub mirror: Mirror,
    /// Slots of plain memory behind BARs.
    pub bar_slots: Vec<Slot>,
    /// Registers that are read without an exit.
    pages: RegisterPages,
    /// Where our image lists the registers that it reads, until it hands over.
    listed: Option<Listed>,
    /// The pages are to be found anew, whatever the machine says.
    turned: bool,
    /// Bounds of the mirror.
    pub limits: Limits,
    /// What the guest printed.
    pub console: Vec<u8>,
    /// What came out of the second serial port: the first bytes, [`MOST_FACTS`] at most.
    pub facts: Vec<u8>,
    /// When its first byte came.
    pub first_fact: Option<Instant>,
    /// What the image that runs now said.
    pub said: Said,
    /// Who that is.
    pub speaker: Speaker,
    /// Every access of the image is to be seen, those of configuration space too.
    pub sees_all: bool,
    /// Once it has handed over, somebody else's Linux runs in its place, whose word is nobody's.
    pub hands_on: bool,
    /// Its payload attacks: its events are announcements of a sweep.
    pub attacks: bool,
    /// Exits.
    pub counts: Counts,
    /// What the firmware handed over, and the machine's state then.
    pub handed: Option<GuestHandoff>,
    /// The last access that exited.
    pub last_access: Option<LastAccess>,
    /// Events of the scenario that were due, in order.
    pub happened: Vec<Happened>,
    /// The DMA engine, if the machine has a place for it.
    pub engine: Option<Engine>,
    /// The disk, if the machine has one.
    pub disk: Option<Disk>,
    /// Looks at the locks from the hand-off on.
    pub vigil: Vigil,
    /// The machine as the attack found it, once there is one.
    pub before_attack: Option<Box<Snapshot>>,
    ram: GuestMemoryMmap,
    events: std::vec::IntoIter<Event>,
    /// The last call announced an internal error.
    expecting: bool,
    /// The judge of an attack, once there is one.
    pub judge: Option<Judge>,
    on_console: fn(&[u8]),
    /// Sees how far an attack is: a state, and the component that is to be in it.
    pub on_attack: fn(&str, &str),
    /// Events of an attack are announcements whoever runs.
    pub attacked: bool,
    /// The machine at the first marks of somebody else's system, each with the mark's number.
    pub kept: Vec<(u64, Snapshot)>,
}

/// Marks of somebody else's system at which the machine is kept.
const MOST_KEPT: usize = 64;

/// A machine at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Its registers.
    pub machine: Machine,
    /// What of its memory was mapped.
    pub slots: SlotState,
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
            disk: None,
            pages: RegisterPages::new(machine),
            listed: None,
            turned: false,
            ram,
            events: machine.scenario().events.clone().into_iter(),
            machine,
            mirror: Mirror::default(),
            bar_slots: Vec::new(),
            limits,
            console: Vec::new(),
            facts: Vec::new(),
            first_fact: None,
            said: Said::default(),
            speaker: Speaker::default(),
            sees_all: false,
            hands_on: false,
            attacks: false,
            counts: Counts::default(),
            handed: None,
            vigil: Vigil::default(),
            before_attack: None,
            expecting: false,
            judge: None,
            on_console,
            on_attack: |_, _| {},
            attacked: false,
            kept: Vec::new(),
        }
    }

    /// Counts an access; whether it may reach a register.
    fn count(&mut self, direction: Direction, address: u64, length: usize) -> bool {
        match direction {
            Direction::Read => self.counts.reads += 1,
            Direction::Write => self.counts.writes += 1,
        }
        let window = self.machine.target(address) == Some(Target::Window);
        self.counts.window += u64::from(window);
        self.counts.window_writes += u64::from(window && direction == Direction::Write);
        let pair = direction == Direction::Write && length == 8 && !window;
        self.counts.paired += u64::from(pair);
        let mut ecam = self.machine.map().ecam.iter();
        let config = direction == Direction::Read && ecam.any(|(_, at)| at.contains(Hpa(address)));
        self.counts.config += u64::from(config);
        self.last_access = Some(LastAccess { direction, address, length });
        !window
    }

    /// Our image lists what it reads here from now on, or no more.
    fn list(&mut self, listed: Option<Listed>) {
        self.turned |= self.listed != listed;
        self.listed = listed;
    }

    /// Slots that are left for pages of registers: memory has the first choice.
    fn room_for_pages(&self) -> usize {
        self.limits.slots.saturating_sub(self.mirror.slots.len() + self.bar_slots.len())
    }

    /// Has the machine answer, and count, what was read from pages since the last exit. What is
    /// listed and has no page exits by itself.
    fn catch_up(&mut self) {
        let Some(listed) = self.listed else { return };
        for address in listed.take(&self.ram) {
            if self.pages.shows_listed(address, self.room_for_pages()) {
                self.counts.listed += 1;
                self.machine.read_bytes(address, &mut [0; 4]);
            }
        }
    }

    /// Does what is due by the guest's own count.
    fn advance(&mut self, count: u64) {
        while let Some(event) = self.events.as_slice().first().filter(|event| event.at <= count) {
            let event = *event;
            let result = self.machine.act(event.action);
            let slots = Mirror::of(self.machine, &self.limits).slots.len();
            self.happened.push(Happened { count, event, result, slots });
            self.events.next();
            let (vigil, machine) = (&mut self.vigil, &*self.machine);
            vigil.look(machine, || {
                Moment::After(format!("{} at count {count}", machine.words(event.action)))
            });
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

    /// The disk, if an address is its own.
    fn disk_at(&mut self, address: u64) -> Option<&mut Disk> {
        let claims = self.disk.as_ref().is_some_and(|disk| disk.claims(address));
        let disk = self.disk.as_mut().filter(|_| claims)?;
        self.machine.target(address).is_none().then_some(disk)
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
    /// not its own any more. Returns what the first one said and handed over.
    pub fn begin_again(&mut self, speaker: Speaker, attacks: bool) -> (Said, Option<GuestHandoff>) {
        (self.speaker, self.attacks) = (speaker, attacks);
        self.expecting = false;
        self.judge = None;
        self.list(None);
        if let Some(engine) = &mut self.engine {
            engine.stop();
        }
        (std::mem::take(&mut self.said), self.handed.take())
    }

    /// The events that were not due.
    pub fn pending(&self) -> Vec<Event> {
        self.events.as_slice().to_vec()
    }

    /// Keeps what the firmware left, while the machine is as it left it.
    fn hand_over(
        &mut self,
        (address, length): (u64, u64),
        library: Counted,
        code: u16,
        kvm: &Slots,
    ) {
        self.said.hand_offs += 1;
        if self.handed.is_some() {
            return;
        }
        let at = Instant::now();
        let record = copy(&self.ram, address, length);
        let table = handoff::read(&record).ok().and_then(|record| record.cedt);
        let cedt = table.map(|at| copy(&self.ram, at.address, at.size.into())).unwrap_or_default();
        let unseen = self.unseen(library);
        let mut traffic = self.machine.traffic().clone();
        traffic.all.reads += unseen;
        // From here on whoever reads component registers leaves the guest.
        self.list(None);
        self.vigil.hand_off(self.machine, Moment::HandOff);
        let counts = self.counts;
        let astray = witness::astray(self.machine, &self.mirror.slots);
        let then = self.snapshot(kvm);
        self.handed = Some(GuestHandoff {
            record,
            cedt,
            code,
            library,
            counts,
            unseen,
            traffic,
            at,
            then,
            astray,
        });
    }

    /// Reads of configuration space that left no exit: nobody but the library knows how many.
    fn unseen(&self, library: Counted) -> u64 {
        let most = if self.pages.is_empty() { 0 } else { library.config };
        most.saturating_sub(self.counts.config)
    }

    /// The machine as it is now.
    pub fn snapshot(&self, kvm: &Slots) -> Snapshot {
        Snapshot { machine: self.machine.frozen(), slots: self.slot_state(kvm) }
    }

    /// What KVM was told, what the registers ask for, and what of memory that is.
    fn slot_state(&self, kvm: &Slots) -> SlotState {
        let range = |slot: &Slot| (slot.base, slot.size);
        let mut asked: Vec<_> = self.all_slots().iter().map(range).collect();
        asked.sort_unstable();
        let without = self.mirror.unmirrored.iter().filter_map(|(index, _)| {
            self.mirror.mappings.get(*index).map(|mapping| (mapping.hpa.0, mapping.size))
        });
        SlotState {
            memory: self.mirror.slots.iter().map(range).collect(),
            mirrors: self.limits.enabled,
            without: without.collect(),
            asked,
            told: kvm.mapped().map(range).collect(),
            calls: kvm.log().total() as usize,
        }
    }

    /// What the guest is to see besides RAM; memory has the first choice of slots.
    fn all_slots(&self) -> Vec<Slot> {
        let memory = self.mirror.slots.iter().chain(&self.bar_slots);
        memory.cloned().chain(self.pages.slots().take(self.room_for_pages())).collect()
    }

    /// Looks at the locks after an access.
    fn watch(&mut self) {
        let Self { vigil, machine, last_access, counts, .. } = self;
        vigil.look(machine, || {
            let access = last_access.map(|access| access.words(machine));
            let access = access.unwrap_or_else(|| "an access".to_owned());
            Moment::After(format!("a {access}, exit {}", counts.reads + counts.writes))
        });
    }

    /// An event of our own attack. Before the first one the machine is kept as it is.
    fn attack(&mut self, event: attack::Event, kvm: &Slots) {
        if self.judge.is_none() {
            self.vigil.stop(self.machine);
            self.before_attack = Some(Box::new(self.snapshot(kvm)));
        }
        if let Some((state, component)) = attack::entered(self.machine, event) {
            (self.on_attack)(state, component);
        }
        let judge = self.judge.get_or_insert_with(|| Judge::new(self.machine));
        judge.hear(self.machine, event);
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

/// Bytes of the second serial port that are kept: ten times what a Linux says of sixteen devices.
pub const MOST_FACTS: usize = 4 << 20;
/// Bytes of console output that are kept, the last ones.
const MOST_CONSOLE: usize = 1 << 20;
/// Calls that are kept, the first ones: more than any payload of ours makes.
pub const MOST_CALLS: usize = 1 << 16;

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
        self.catch_up();
        let registers = self.count(Direction::Read, address, data.len());
        if let Some(disk) = self.disk_at(address) {
            disk.read(address, data);
            return;
        }
        match self.engine_at(address) {
            Some(engine) => engine.read(address, data),
            None => self.machine.read_bytes(address, data),
        }
        self.transfer();
        if registers {
            self.watch();
        }
    }

    fn write(&mut self, address: u64, data: &[u8]) {
        self.catch_up();
        let registers = self.count(Direction::Write, address, data.len());
        if let Some(judge) = &mut self.judge {
            judge.before_write(self.machine, address, data);
        }
        if let Some(disk) = self.disk_at(address) {
            disk.write(address, data);
            return;
        }
        match self.engine_at(address) {
            Some(engine) => engine.write(address, data),
            None => self.machine.write_bytes(address, data),
        }
        self.transfer();
        if registers {
            self.watch();
        }
    }

    fn slots(&mut self) -> Option<Vec<Slot>> {
        let changes = self.machine.take_changes();
        let turned = std::mem::take(&mut self.turned);
        let changed = changes != Changes::default() || turned;
        if changes.remap {
            self.mirror = Mirror::follow(self.machine, &self.limits);
        }
        if changed {
            let used = self.mirror.slots.len();
            self.bar_slots = mirror::bar_slots(self.machine, &self.limits, used);
        }
        // Of somebody else's image every access is to be seen.
        if (changes.relocate || turned) && self.limits.enabled && !self.sees_all {
            self.pages.relocate(self.machine, self.listed.is_some());
        }
        self.pages.refresh(self.machine);
        changed.then(|| self.all_slots())
    }

    fn work(&mut self) -> bool {
        let Some(disk) = &mut self.disk else { return false };
        disk.work(&mut Memory {
            ram: &self.ram,
            machine: self.machine,
            mirror: &self.mirror,
            bar_slots: &self.bar_slots,
        })
    }

    fn signals(&mut self) -> Vec<Signal> {
        self.disk.as_mut().map(Disk::signals).unwrap_or_default()
    }

    fn console(&mut self, bytes: &[u8]) {
        self.console.extend_from_slice(bytes);
        if self.console.len() > 2 * MOST_CONSOLE {
            self.console.drain(..self.console.len() - MOST_CONSOLE);
        }
        (self.on_console)(bytes);
    }

    fn facts(&mut self, bytes: &[u8]) {
        self.first_fact.get_or_insert_with(Instant::now);
        let room = MOST_FACTS.saturating_sub(self.facts.len());
        self.facts.extend(bytes.iter().take(room));
    }

    fn doorbell(&mut self, value: u32, slots: &Slots) {
        self.catch_up();
        let mut bytes = [0; size_of::<Message>()];
        if self.ram.read_slice(&mut bytes, GuestAddress(value.into())).is_err() {
            return;
        }
        let Some(call) = Message::read_from_bytes(&bytes).ok().as_ref().and_then(Call::decode)
        else {
            return;
        };
        self.expecting = false;
        let ours = self.speaker == Speaker::Ours;
        let gone = self.hands_on && self.handed.is_some();
        match call {
            Call::Count { value } if gone => {
                self.advance(value);
                return;
            }
            _ if gone => return,
            // An attack announces every bit: the judge keeps count of it, if it was to be one.
            Call::Attack(event) => {
                if (ours || self.attacked) && self.attacks {
                    self.attack(event, slots);
                } else {
                    self.said.attack_events += 1;
                }
                return;
            }
            Call::ExpectInternalError { resume } => {
                if ours {
                    let slots = self.mirror.slots.len();
                    let announced = Announced { resume, happened: false, slots };
                    // One that nobody keeps would be mistaken for the last that was.
                    self.expecting = self.said.announced.push(announced);
                }
            }
            Call::Count { value } => self.advance(value),
            Call::Forget { a, b, length } => {
                for base in [a, b].into_iter().filter(|_| ours) {
                    self.forget(base, length);
                }
            }
            Call::Pair { .. } => {}
            Call::HandOff {
                address,
                length,
                reads,
                config,
                writes,
                memory_reads,
                memory_writes,
                code,
            } => {
                let library = Counted { reads, config, writes, memory_reads, memory_writes };
                self.hand_over((address, length), library, code as u16, slots);
            }
            Call::Mark { id } => {
                if !ours && self.kept.len() < MOST_KEPT {
                    self.kept.push((id, self.snapshot(slots)));
                }
                let (counts, slots) = (self.counts, self.mirror.slots.len());
                self.said.marks.push(Mark { id, counts, slots });
            }
            Call::List { address } => {
                if ours && self.handed.is_none() && !self.sees_all {
                    self.list(Some(Listed { address }));
                }
                return;
            }
            Call::Check { .. } => {}
        }
        self.said.calls.push(call);
    }

    fn internal_error(&mut self, suberror: u32) -> Option<u64> {
        if !std::mem::take(&mut self.expecting) || suberror != EMULATION {
            return None;
        }
        let announced = self.said.announced.last_mut()?;
        announced.happened = true;
        Some(announced.resume)
    }
}
