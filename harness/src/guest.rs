//! A machine as a KVM guest sees it: registers answered by the models, committed memory mirrored
//! into memory slots.
//!
//! **Invariant**: the slots follow from the machine's registers alone; see [`mirror`].

pub mod boot;
pub mod mirror;

use cxl_firmware::doorbell::{Call, EMPTY_HANDLER, Message};
use cxl_firmware::handoff;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use zerocopy::FromBytes;

use crate::attack::Judge;
use crate::backing;
use crate::kvm::{Bus, Slot};
use crate::machine::Machine;
use crate::report::{Left, Refusal, Report};
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
}

/// An internal error of KVM that the guest announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Where it wanted to go on.
    pub resume: u64,
    /// Whether it happened.
    pub happened: bool,
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

/// What the firmware handed over.
#[derive(Debug)]
pub struct Handed {
    /// The hand-off record out of guest memory; empty if there is none.
    pub record: Vec<u8>,
    /// The CEDT that the record names; empty if none.
    pub cedt: Vec<u8>,
    /// The library's error number; 0 for none.
    pub code: u16,
    /// Accesses that the library counted: reads, writes.
    pub library: (u64, u64),
    /// Exits until then.
    pub counts: Counts,
    /// The report of the machine as it was then: payloads may leave another one behind.
    pub report: Report,
}

/// A machine on the other side of a vCPU's exits.
pub struct Guest<'a> {
    /// The machine.
    pub machine: &'a mut Machine,
    /// What is mirrored, and why the rest is not.
    pub mirror: Mirror,
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
    /// Internal errors that were announced, in order.
    pub announced: Vec<Announced>,
    /// Counters at the payload's marks, in order.
    pub marks: Vec<Mark>,
    /// The last call announced an internal error.
    expecting: bool,
    /// The judge of an attack, once there is one.
    pub judge: Option<Judge>,
    on_console: fn(&[u8]),
}

impl<'a> Guest<'a> {
    /// A guest of this machine; `on_console` sees what the guest prints as it comes.
    pub fn new(machine: &'a mut Machine, limits: Limits, on_console: fn(&[u8])) -> Self {
        Self {
            machine,
            mirror: Mirror::default(),
            limits,
            console: Vec::new(),
            calls: Vec::new(),
            counts: Counts::default(),
            handed: None,
            announced: Vec::new(),
            marks: Vec::new(),
            expecting: false,
            judge: None,
            on_console,
        }
    }
}

impl Guest<'_> {
    /// Brings home what the firmware left, while the machine is as it left it.
    fn hand_over(
        &mut self,
        memory: &GuestMemoryMmap,
        address: u64,
        length: u64,
        library: (u64, u64),
        code: u16,
    ) {
        let record = copy(memory, address, length);
        let table = handoff::read(&record).ok().and_then(|record| record.cedt);
        let cedt = table.map(|at| copy(memory, at.address, at.size.into())).unwrap_or_default();
        let traffic = self.machine.traffic().clone();
        let refusal = refusal(&self.console, code);
        let left =
            Left { handoff: &record, cedt: &cedt, refusal: refusal.as_ref(), traffic: &traffic };
        let mut report = Report::of(self.machine, &left);
        if library != (traffic.all.reads, traffic.all.writes) {
            let (reads, writes) = library;
            report.facts.fail(format!(
                "the library counted {reads} reads and {writes} writes, KVM delivered {} and {}",
                traffic.all.reads, traffic.all.writes
            ));
        }
        let counts = self.counts;
        self.handed = Some(Handed { record, cedt, code, library, counts, report });
    }

    /// Takes the pages of a range away: RAM, or what is mirrored there.
    fn forget(&self, memory: &GuestMemoryMmap, base: u64, length: u64) {
        let slots = self.mirror.slots.iter();
        let slot = slots.filter(|slot| slot.base <= base && base < slot.base + slot.size).next();
        match slot {
            Some(slot) => {
                let offset = slot.offset + (base - slot.base);
                backing::forget(&slot.memory, offset, length);
            }
            None => {
                for region in memory.iter() {
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
        self.counts.reads += 1;
        self.counts.window += u64::from(self.machine.in_window(address));
        self.machine.read_bytes(address, data);
    }

    fn write(&mut self, address: u64, data: &[u8]) {
        self.counts.writes += 1;
        self.counts.window += u64::from(self.machine.in_window(address));
        if let Some(judge) = &mut self.judge
            && let Ok(dword) = data.try_into()
        {
            judge.before_write(self.machine, address, u32::from_le_bytes(dword));
        }
        self.machine.write_bytes(address, data);
    }

    fn slots(&mut self) -> Option<Vec<Slot>> {
        if !self.machine.take_changes().remap {
            return None;
        }
        self.mirror = Mirror::of(self.machine, &self.limits);
        Some(self.mirror.slots.clone())
    }

    fn console(&mut self, bytes: &[u8]) {
        self.console.extend_from_slice(bytes);
        (self.on_console)(bytes);
    }

    fn doorbell(&mut self, value: u32, memory: &GuestMemoryMmap) {
        let mut bytes = [0; size_of::<Message>()];
        if memory.read_slice(&mut bytes, GuestAddress(value.into())).is_err() {
            return;
        }
        let Some(call) = Message::read_from_bytes(&bytes).ok().as_ref().and_then(Call::decode)
        else {
            return;
        };
        // An attack announces every bit: the judge keeps count of it.
        if !matches!(call, Call::Attack(_)) {
            self.calls.push(call);
        }
        self.expecting = false;
        match call {
            Call::ExpectInternalError { resume } => {
                self.announced.push(Announced { resume, happened: false });
                self.expecting = true;
            }
            Call::Forget { a, b, length } => {
                for base in [a, b] {
                    self.forget(memory, base, length);
                }
            }
            Call::Attack(event) => {
                let judge = self.judge.get_or_insert_with(|| Judge::new(self.machine));
                judge.hear(self.machine, event);
            }
            Call::Pair { .. } => {}
            Call::HandOff { address, length, reads, writes, code } => {
                let accesses = (reads, writes);
                self.hand_over(memory, address, length, accesses, code as u16);
            }
            Call::Mark { id } => {
                let (counts, slots) = (self.counts, self.mirror.slots.len());
                self.marks.push(Mark { id, counts, slots });
            }
            Call::Count { .. } | Call::Check { .. } => {}
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
