//! A machine as a KVM guest sees it: registers answered by the models, committed memory mirrored
//! into memory slots.
//!
//! **Invariant**: the slots follow from the machine's registers alone; see [`mirror`].

pub mod boot;
pub mod mirror;

use cxl_firmware::doorbell::{Call, Message};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::FromBytes;

use crate::kvm::{Bus, Signal, Slot};
use crate::machine::{Changes, Machine};
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

/// A machine on the other side of a vCPU's exits.
pub struct Guest<'a> {
    /// The machine.
    pub machine: &'a mut Machine,
    /// What is mirrored, and why the rest is not.
    pub mirror: Mirror,
    /// Slots of plain memory behind BARs.
    pub bar_slots: Vec<Slot>,
    /// Bounds of the mirror.
    pub limits: Limits,
    /// What the guest printed.
    pub console: Vec<u8>,
    /// Calls through the doorbell, in order.
    pub calls: Vec<Call>,
    /// Exits.
    pub counts: Counts,
    /// Exits until the firmware handed over.
    pub at_handoff: Option<Counts>,
    on_console: fn(&[u8]),
}

impl<'a> Guest<'a> {
    /// A guest of this machine; `on_console` sees what the guest prints as it comes.
    pub fn new(machine: &'a mut Machine, limits: Limits, on_console: fn(&[u8])) -> Self {
        Self {
            machine,
            mirror: Mirror::default(),
            bar_slots: Vec::new(),
            limits,
            console: Vec::new(),
            calls: Vec::new(),
            counts: Counts::default(),
            at_handoff: None,
            on_console,
        }
    }
}

impl Bus for Guest<'_> {
    fn read(&mut self, address: u64, data: &mut [u8]) {
        self.counts.reads += 1;
        self.counts.window += u64::from(self.machine.in_window(address));
        self.machine.read_bytes(address, data);
    }

    fn write(&mut self, address: u64, data: &[u8]) {
        self.counts.writes += 1;
        self.counts.window += u64::from(self.machine.in_window(address));
        self.machine.write_bytes(address, data);
    }

    fn slots(&mut self) -> Option<Vec<Slot>> {
        let changes = self.machine.take_changes();
        if changes == Changes::default() {
            return None;
        }
        if changes.remap {
            self.mirror = Mirror::of(self.machine, &self.limits);
        }
        self.bar_slots = mirror::bar_slots(self.machine, &self.limits, self.mirror.slots.len());
        Some(self.mirror.slots.iter().chain(&self.bar_slots).cloned().collect())
    }

    fn console(&mut self, bytes: &[u8]) {
        self.console.extend_from_slice(bytes);
        (self.on_console)(bytes);
    }

    fn doorbell(&mut self, value: u32, memory: &GuestMemoryMmap) -> Signal {
        let mut bytes = [0; size_of::<Message>()];
        if memory.read_slice(&mut bytes, GuestAddress(value.into())).is_err() {
            return Signal::Continue;
        }
        let Some(call) = Message::read_from_bytes(&bytes).ok().as_ref().and_then(Call::decode)
        else {
            return Signal::Continue;
        };
        self.calls.push(call);
        match call {
            Call::ExpectInternalError { resume } => Signal::ExpectInternalError { resume },
            Call::HandOff { .. } => {
                self.at_handoff = Some(self.counts);
                Signal::Continue
            }
            Call::Count { .. } | Call::Check { .. } => Signal::Continue,
        }
    }
}
