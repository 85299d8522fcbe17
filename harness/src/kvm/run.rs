//! The run loop: exits are answered by a [`Bus`], and every way a run can end is a value.
//!
//! **Invariant**: a run ends. The guest's own end, a failure, the time limit and Ctrl-C all come
//! back from [`Vm::run`]; nothing panics and nothing waits for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cxl_image::doorbell::{EXIT_PORT, PORT as DOORBELL_PORT};
use kvm_bindings::{
    KVM_INTERNAL_ERROR_DELIVERY_EV, KVM_INTERNAL_ERROR_EMULATION,
    KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES, kvm_msi, kvm_vcpu_events,
};
use kvm_ioctls::VcpuExit;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use super::boot::{FAULT_PORT, STUBS};
use super::instruction;
use super::{Input, Slot, SlotError, Slots, Vm, again};
use cxl_model::backing;

/// What answers a guest's accesses.
pub trait Bus {
    /// A read that no slot covers; `data` comes filled with ones.
    fn read(&mut self, address: u64, data: &mut [u8]);
    /// A write that no slot covers.
    fn write(&mut self, address: u64, data: &[u8]);
    /// The slots the guest should see now; `None` if nothing can have changed since the last call.
    fn slots(&mut self) -> Option<Vec<Slot>>;
    /// Bytes for the console, which is the first serial port.
    fn console(&mut self, bytes: &[u8]);
    /// Bytes of the second serial port, which only a machine with interrupt controllers has.
    fn facts(&mut self, _bytes: &[u8]) {}
    /// The guest rang the doorbell with this value, while KVM had these slots besides RAM's.
    fn doorbell(&mut self, value: u32, slots: &Slots);
    /// Does a bounded part of what devices have to do by themselves; whether there is more.
    fn work(&mut self) -> bool {
        false
    }
    /// What devices signal to the processor, in order.
    fn signals(&mut self) -> Vec<Signal> {
        Vec::new()
    }
    /// KVM could not go on. Where the guest does, if that was meant to happen; else `None`, and the
    /// run ends.
    fn internal_error(&mut self, suberror: u32) -> Option<u64>;
}

/// What a device tells the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// An interrupt by a message.
    Message {
        /// Its address.
        address: u64,
        /// Its data.
        data: u32,
    },
    /// The level of an interrupt line.
    Line {
        /// Which.
        number: u32,
        /// Whether it is asserted.
        high: bool,
    },
}

/// How long a run may take, and who else may end it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Time limit.
    pub timeout: Duration,
    /// A write to this port ends the run.
    pub until_port: Option<u16>,
    /// Set by Ctrl-C.
    pub interrupted: Arc<AtomicBool>,
    /// What the guest reads at its first serial port, once it asks to be interrupted by it.
    pub input: Option<Arc<Input>>,
}

/// A century: beyond any time limit that is meant.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest wrote this to the exit port.
    Exit(u8),
    /// The guest wrote to the port that was to end the run.
    Port(u16),
    /// The guest halted with nothing to wake it.
    Halt,
    /// The guest switched the machine off.
    PoweredOff,
    /// The guest reset a machine that has interrupt controllers, by a triple fault as there is no other
    /// way, or died of one.
    Reset,
    /// The guest cannot go on.
    Failed(Failure),
    /// The time limit passed.
    TimedOut {
        /// Where the guest was.
        rip: u64,
        /// The bytes there, as far as they can be read.
        instruction: Vec<u8>,
        /// What is special about the place, if that is why.
        hint: Option<Hint>,
    },
    /// Ctrl-C, or another signal to end.
    Interrupted,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "it wrote {status:#04x} to the exit port"),
            Self::Port(port) => write!(f, "it wrote to port {port:#x}"),
            Self::Halt => f.write_str("it halted"),
            Self::PoweredOff => f.write_str("it switched the machine off"),
            Self::Reset => f.write_str("it reset the machine (after a panic, for one)"),
            Self::Failed(failure) => failure.fmt(f),
            Self::TimedOut { rip, instruction, hint } => {
                write!(f, "its time was up at rip {rip:#x}, {}", Instruction(instruction))?;
                hint.map_or(Ok(()), |hint| write!(f, "; {hint}"))
            }
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// The bytes of an instruction in words.
struct Instruction<'a>(&'a [u8]);

impl std::fmt::Display for Instruction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("where no instruction can be read");
        }
        f.write_str("instruction")?;
        self.0.iter().try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}

/// Why a guest cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What KVM or the fault handler said.
    pub reason: Reason,
    /// Instruction pointer.
    pub rip: u64,
    /// The bytes there, as far as they can be read.
    pub instruction: Vec<u8>,
    /// The privilege level it ran at, as far as the code segment tells.
    pub ring: u8,
    /// What is special about the instruction or its place, if that is why.
    pub hint: Option<Hint>,
}

/// A failure that has a well-known cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// An instruction at CPL 0, on a host whose KVM emulates CPL 0; its family, if it is one that
    /// emulators seldom know.
    EmulatedRing0(Option<instruction::Family>),
    /// The page tables start at this address, where no memory is: the processor cannot walk them, and
    /// KVM cannot do it for it.
    PageTables(u64),
    /// The instruction lies at this address, where no memory is: it cannot be fetched.
    Code(u64),
    /// KVM says that an event is being delivered, and has none.
    NoEvent,
}

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = match self {
            Self::EmulatedRing0(family) => family,
            Self::PageTables(at) => {
                return write!(
                    f,
                    "its page tables start at {at:#x}, where no memory is mapped: no processor walks \
                     tables whose every access traps, and KVM does not do it for one"
                );
            }
            Self::Code(at) => {
                return write!(
                    f,
                    "the instruction lies at {at:#x}, where no memory is mapped: it cannot be fetched"
                );
            }
            Self::NoEvent => {
                return f.write_str(
                    "this KVM has no interrupt or exception that it would have to deliver again, so the \
                     guest has done nothing wrong: QEMU's emulation of AMD-V leaves behind what it has \
                     delivered, marked as not valid, and the KVM of Linux 6.15 and later does not look \
                     at the mark. Run it in a machine whose kernel is older: `cxl-harness nested \
                     --kernel FILE`, or NESTED_KERNEL=FILE",
                );
            }
        };
        f.write_str("this is ")?;
        match family {
            Some(family) => family.fmt(f)?,
            None => f.write_str("an instruction")?,
        }
        write!(
            f,
            " at CPL 0. This host's KVM emulates CPL 0, as its processor shows neither VT-x nor \
             AMD-V, and its emulator does not know the instruction. Run that code at CPL 3 (our image \
             does, if its command line says ring3), on a host with VT-x or AMD-V, or inside \
             `cxl-harness nested`"
        )
    }
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// KVM_EXIT_INTERNAL_ERROR: suberror 1 is an instruction its emulator does not know.
    InternalError {
        /// Which kind.
        suberror: u32,
    },
    /// An exception that the guest had no handler for.
    Fault {
        /// Its vector.
        vector: u8,
        /// The address it was about; page faults only.
        address: Option<u64>,
    },
    /// A triple fault.
    TripleFault {
        /// KVM has reset the processor since, as it does with AMD-V: where the guest was is lost,
        /// and the place of the failure is that of the last exit, or the entry.
        reset: bool,
    },
    /// The vCPU's state is not one the processor can run.
    FailEntry {
        /// The hardware's reason.
        code: u64,
    },
    /// An exit this VMM does not know.
    Unknown {
        /// As the library names it.
        exit: String,
    },
    /// A slot could not be set.
    Slot(String),
    /// A file behind its memory did not take a store.
    Storage,
    /// KVM_RUN itself failed.
    Run(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.reason {
            Reason::InternalError { suberror: 1 } => write!(
                f,
                "KVM internal error, suberror 1: an instruction that KVM had to emulate and could \
                 not"
            )?,
            Reason::InternalError { suberror: 3 } => write!(
                f,
                "KVM internal error, suberror 3: an access that traps while it delivers an interrupt or \
                 an exception"
            )?,
            Reason::InternalError { suberror } => {
                write!(f, "KVM internal error, suberror {suberror}")?;
            }
            Reason::Fault { vector, address: Some(address) } => {
                write!(f, "exception {vector} at address {address:#x}")?;
            }
            Reason::Fault { vector, address: None } => write!(f, "exception {vector}")?,
            Reason::TripleFault { reset: false } => f.write_str("triple fault")?,
            Reason::TripleFault { reset: true } => {
                let instruction = Instruction(&self.instruction);
                return write!(
                    f,
                    "triple fault, upon which this KVM resets the processor, so that nobody knows \
                     where it was; the last that was seen of it was at rip {:#x}, {instruction}",
                    self.rip
                );
            }
            Reason::FailEntry { code } => write!(f, "the processor refused to enter: {code:#x}")?,
            Reason::Unknown { exit } => write!(f, "unknown exit {exit}")?,
            Reason::Slot(error) | Reason::Run(error) => f.write_str(error)?,
            Reason::Storage => f.write_str(
                "the disk did not take what was stored to a file behind the guest's memory (SIGBUS)",
            )?,
        }
        let instruction = Instruction(&self.instruction);
        write!(f, ", rip {:#x}, ring {}, {instruction}", self.rip, self.ring)?;
        self.hint.map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// The serial ports.
const SERIAL: [std::ops::RangeInclusive<u16>; 2] = [0x3F8..=0x3FF, 0x2F8..=0x2FF];

/// The code segment's base and the instruction pointer after reset.
const RESET_VECTOR: (u64, u64) = (0xFFFF_0000, 0xFFF0);
const CR0_PE: u64 = 1;
const CR0_PG: u64 = 1 << 31;
const EFER_LMA: u64 = 1 << 10;

/// The serial port's interrupt; without interrupt controllers it leads nowhere.
struct Line(Option<EventFd>);

impl Trigger for Line {
    type E = std::io::Error;

    fn trigger(&self) -> Result<(), Self::E> {
        self.0.as_ref().map_or(Ok(()), |line| line.write(1))
    }
}

/// Where a machine with interrupt controllers is switched off: the registers that the tables name.
pub const SLEEP_PORT: u16 = 0x600;
/// Reads 0: it wakes from nothing.
pub const SLEEP_STATUS_PORT: u16 = 0x601;
/// What is written to switch off: SLP_EN, with SLP_TYP 5 (ACPI 6.5 section 4.8.3.7).
pub const SOFT_OFF: u8 = 5;
const SLEEP_ENABLE: u8 = 1 << 5;

/// What answers at I/O ports, as after reset.
struct Ports {
    /// A write here ends the run.
    until: Option<u16>,
    /// Each a 16550A: what is sent while it is set up, or in loopback, is no output.
    serial: Vec<Serial<Line, NoEvents, Vec<u8>>>,
    /// The machine has registers for power.
    power: bool,
}

impl Ports {
    /// Which serial port has a port, and which register of it that is.
    fn serial_at(&self, port: u16) -> Option<(usize, u8)> {
        let which =
            SERIAL.iter().take(self.serial.len()).position(|ports| ports.contains(&port))?;
        Some((which, (port - SERIAL.get(which)?.start()) as u8))
    }

    /// Hands to the first serial port what it has room for, once its driver has asked to be interrupted
    /// by what arrives: one that starts throws away what there is.
    fn hand(&mut self, input: &Input) {
        let Some(serial) = self.serial.first_mut() else { return };
        let divisor = serial.read(LINE_CONTROL) & DIVISOR_LATCH != 0;
        let looped = serial.read(MODEM_CONTROL) & LOOPBACK != 0;
        // With the divisor's latch its place is another register's.
        let listens = !divisor && serial.read(INTERRUPT_ENABLE) & RECEIVED != 0;
        if listens && !looped && serial.fifo_capacity() > 0 {
            // Of what there is room for, in a port that is not looped, nothing is left.
            let _ = serial.enqueue_raw_bytes(&input.take(serial.fifo_capacity()));
        }
    }
}

/// Registers of a 16550A, and bits of them.
const INTERRUPT_ENABLE: u8 = 1;
const RECEIVED: u8 = 1 << 0;
const LINE_CONTROL: u8 = 3;
const DIVISOR_LATCH: u8 = 1 << 7;
const MODEM_CONTROL: u8 = 4;
const LOOPBACK: u8 = 1 << 4;

/// What an exit asks of the loop; the vCPU's borrow has ended by then.
enum Next {
    Go,
    Remap,
    Doorbell(u32),
    /// A write to the port of our handlers, of the number of a gate.
    Fault(u8),
    Internal,
    Shutdown,
    End(End),
    Fail(Reason),
}

impl Vm {
    /// Runs the guest until something ends it.
    pub fn run(&mut self, bus: &mut impl Bus, limits: &Limits) -> End {
        // A limit that no clock can express is none that anybody waits for.
        let start = Instant::now();
        let deadline = start.checked_add(limits.timeout).unwrap_or(start + LONGEST);
        let lost = backing::lost_pages();
        let input = limits.input.as_ref();
        let kicker = match Kicker::new(deadline, Arc::clone(&limits.interrupted), lost, input) {
            Ok(kicker) => kicker,
            // Without it nothing could end a guest that never exits.
            Err(error) => {
                let words = format!("no thread to keep the time limit: {error}");
                return self.fail(Reason::Run(words));
            }
        };
        let serial = match &self.serial_lines {
            Some(lines) => lines.iter().map(|line| line.try_clone().ok()).collect(),
            None => vec![None],
        };
        let serial = serial.into_iter().map(|line| Serial::new(Line(line), Vec::new())).collect();
        let power = self.serial_lines.is_some();
        let mut ports = Ports { until: limits.until_port, serial, power };
        // Where the guest was when it was seen last.
        let mut seen = self.entry;
        loop {
            let next = match self.vcpu.run() {
                Ok(exit) => answer(exit, bus, &mut ports),
                Err(error) if error.errno() == libc::EINTR => Next::Go,
                Err(error) if error.errno() == libc::EAGAIN => Next::Go,
                Err(error) => Next::Fail(Reason::Run(format!("KVM_RUN failed: {error}"))),
            };
            if self.tells_registers && !matches!(next, Next::Shutdown) {
                seen = self.vcpu.sync_regs().regs.rip;
            }
            match next {
                Next::Go => {}
                Next::Remap => {
                    if let Err(error) = self.follow(bus) {
                        return self.fail(Reason::Slot(error.to_string()));
                    }
                }
                Next::Doorbell(value) => {
                    bus.doorbell(value, &self.slots);
                    if let Err(error) = self.follow(bus) {
                        return self.fail(Reason::Slot(error.to_string()));
                    }
                }
                Next::Fault(gate) => {
                    if let Some(end) = self.fault(gate) {
                        return end;
                    }
                }
                Next::Shutdown if ports.power => return End::Reset,
                Next::Shutdown => return self.shut_down(seen),
                Next::Internal => {
                    // SAFETY: the exit reason says that this member of the union is the one in use.
                    let suberror =
                        unsafe { self.vcpu.get_kvm_run().__bindgen_anon_1.internal.suberror };
                    match bus.internal_error(suberror) {
                        Some(resume) => {
                            if let Err(error) = self.go_to(resume) {
                                return self.fail(Reason::Run(error));
                            }
                        }
                        None => return self.internal_error(suberror),
                    }
                }
                Next::End(end) => return end,
                Next::Fail(reason) => return self.fail(reason),
            }
            if let Some(input) = input.filter(|input| !input.is_empty()) {
                ports.hand(input);
            }
            // What devices do takes as long as it takes, so somebody looks at the clock in between.
            loop {
                let more = bus.work();
                for signal in bus.signals() {
                    self.signal(signal);
                }
                if backing::lost_pages() > lost {
                    return self.fail(Reason::Storage);
                }
                if kicker.interrupted() {
                    return End::Interrupted;
                }
                if Instant::now() >= deadline {
                    let rip = self.vcpu.get_regs().map_or(0, |regs| regs.rip);
                    let (instruction, hint) = (self.instruction_at(rip), self.out_of_memory(rip));
                    return End::TimedOut { rip, instruction, hint };
                }
                if !more {
                    break;
                }
            }
        }
    }

    /// Passes on what a device signals. A machine without interrupt controllers has nobody to hear it,
    /// and a message that leads to no processor is the guest's own choice: neither is a failure.
    fn signal(&self, signal: Signal) {
        if self.serial_lines.is_none() {
            return;
        }
        let _ = match signal {
            Signal::Message { address, data } => again(|| {
                let (address_lo, address_hi) = (address as u32, (address >> 32) as u32);
                self.vm.signal_msi(kvm_msi { address_lo, address_hi, data, ..Default::default() })
            })
            .map(|_| ()),
            Signal::Line { number, high } => again(|| self.vm.set_irq_line(number, high)),
        };
    }

    /// Makes the slots what the bus says they are.
    pub fn follow(&mut self, bus: &mut impl Bus) -> Result<(), SlotError> {
        bus.slots().map_or(Ok(()), |slots| self.remap(&slots).map(|_| ()))
    }

    fn go_to(&mut self, rip: u64) -> Result<(), String> {
        let failed = |name| move |error| format!("{name} failed: {error}");
        let mut regs = again(|| self.vcpu.get_regs()).map_err(failed("KVM_GET_REGS"))?;
        regs.rip = rip;
        again(|| self.vcpu.set_regs(&regs)).map_err(failed("KVM_SET_REGS"))
    }

    /// One of our handlers ran at CPL 0: the guest's own instruction pointer and code segment are on
    /// the stack, above the error code where there is one. `None` if somebody else wrote to the port.
    fn fault(&mut self, gate: u8) -> Option<End> {
        let regs = self.vcpu.get_regs().ok().filter(|regs| STUBS.contains(&regs.rip))?;
        let sregs = self.vcpu.get_sregs().ok()?;
        // In 64-bit mode gates are twice as long, and so is what lies on the stack.
        let long = sregs.efer & EFER_LMA != 0;
        let vector = if long { gate / 2 } else { gate };
        let has_code = matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30);
        // A guest that jumps to a handler may have any stack.
        let word = |index: u64| {
            let index = index + u64::from(has_code);
            let at = |size| GuestAddress(regs.rsp.saturating_add(index * size));
            if long {
                self.ram.read_obj::<u64>(at(8)).unwrap_or(0)
            } else {
                self.ram.read_obj::<u32>(at(4)).unwrap_or(0).into()
            }
        };
        let (rip, ring) = (word(0), word(1) as u8 & 3);
        let address = (vector == 14).then_some(sregs.cr2);
        Some(self.failure_at(Reason::Fault { vector, address }, rip, ring))
    }

    /// A triple fault. KVM may have reset the processor since; then all that is known is where it
    /// was seen last.
    fn shut_down(&mut self, seen: u64) -> End {
        let regs = self.vcpu.get_regs().unwrap_or_default();
        let sregs = self.vcpu.get_sregs().unwrap_or_default();
        let reset = regs.rip == RESET_VECTOR.1
            && sregs.cs.base == RESET_VECTOR.0
            && sregs.cr0 & CR0_PE == 0;
        let rip = if reset { seen } else { regs.rip };
        let reason = Reason::TripleFault { reset };
        self.failure_at(reason, rip, if reset { 0 } else { sregs.ss.dpl })
    }

    fn fail(&mut self, reason: Reason) -> End {
        let rip = self.vcpu.get_regs().map_or(0, |regs| regs.rip);
        let ring = self.vcpu.get_sregs().map_or(0, |sregs| sregs.ss.dpl);
        self.failure_at(reason, rip, ring)
    }

    /// KVM cannot go on.
    fn internal_error(&mut self, suberror: u32) -> End {
        let emulation = suberror == KVM_INTERNAL_ERROR_EMULATION;
        let refused = if emulation { self.refused_instruction() } else { None };
        let mut end = self.fail(Reason::InternalError { suberror });
        if let End::Failed(failure) = &mut end {
            if let Some(refused) = refused
                && failure.instruction.is_empty()
            {
                failure.instruction = refused;
            }
            let delivery = suberror == KVM_INTERNAL_ERROR_DELIVERY_EV;
            let events = self.vcpu.get_vcpu_events().ok().filter(|_| delivery);
            if events.is_some_and(|events| !is_delivered(&events)) {
                failure.hint = Some(Hint::NoEvent);
            }
        }
        end
    }

    /// The bytes at an instruction pointer; none if they do not lie in RAM.
    fn instruction_at(&self, rip: u64) -> Vec<u8> {
        let mut instruction = vec![0; 15];
        let physical = self.vcpu.translate_gva(rip).ok().filter(|found| found.valid != 0);
        let read = physical.map(|found| GuestAddress(found.physical_address));
        let read = read.and_then(|at| self.ram.read(&mut instruction, at).ok()).unwrap_or(0);
        instruction.truncate(read);
        instruction
    }

    /// The bytes that KVM says it could not emulate, if it says so: it may have fetched them from
    /// where we do not.
    fn refused_instruction(&mut self) -> Option<Vec<u8>> {
        const BYTES: u64 = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES as u64;
        // SAFETY: the caller has seen the exit reason of which this is the record; all of it is plain
        // numbers.
        let said = unsafe { self.vcpu.get_kvm_run().__bindgen_anon_1.emulation_failure };
        if said.ndata < 1 || said.flags & BYTES == 0 {
            return None;
        }
        // SAFETY: the flag says that this member of the union is the one in use.
        let found = unsafe { said.__bindgen_anon_1.__bindgen_anon_1 };
        found.insn_bytes.get(..usize::from(found.insn_size)).map(<[u8]>::to_vec)
    }

    /// Page tables, or an instruction, where neither RAM nor any other slot is.
    fn out_of_memory(&self, rip: u64) -> Option<Hint> {
        const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
        let memory = |address: u64| {
            let mut slots = self.slots.mapped();
            self.ram.find_region(GuestAddress(address)).is_some()
                || slots.any(|slot| (slot.base..slot.base + slot.size).contains(&address))
        };
        let sregs = self.vcpu.get_sregs().ok().filter(|sregs| sregs.cr0 & CR0_PG != 0)?;
        let tables = sregs.cr3 & ADDRESS;
        if !memory(tables) {
            return Some(Hint::PageTables(tables));
        }
        let code = self.vcpu.translate_gva(rip).ok().filter(|found| found.valid != 0)?;
        (!memory(code.physical_address)).then_some(Hint::Code(code.physical_address))
    }

    fn failure_at(&self, reason: Reason, rip: u64, ring: u8) -> End {
        let instruction = self.instruction_at(rip);
        let long = self.vcpu.get_sregs().is_ok_and(|sregs| sregs.cs.l != 0);
        let emulated = matches!(reason, Reason::InternalError { suberror: 1 })
            && ring == 0
            // A jump to where nothing is fails in the same way everywhere.
            && !instruction.is_empty()
            && self.emulates_ring_0;
        let ring_0 = || Hint::EmulatedRing0(instruction::family(&instruction, long));
        let hint = self.out_of_memory(rip).or_else(|| emulated.then(ring_0));
        End::Failed(Failure { reason, rip, instruction, ring, hint })
    }
}

/// Whether an event's delivery has begun: KVM keeps one that was cut short, to begin again.
fn is_delivered(events: &kvm_vcpu_events) -> bool {
    let kvm_vcpu_events { exception, interrupt, nmi, .. } = events;
    [exception.injected, interrupt.injected, interrupt.soft, nmi.injected].iter().any(|it| *it != 0)
}

fn answer(exit: VcpuExit<'_>, bus: &mut impl Bus, ports: &mut Ports) -> Next {
    match exit {
        VcpuExit::MmioRead(address, data) => {
            data.fill(0xFF);
            bus.read(address, data);
            // A read can change what is mapped too: a commit may come to an end while it is polled.
            Next::Remap
        }
        VcpuExit::MmioWrite(address, data) => {
            bus.write(address, data);
            Next::Remap
        }
        VcpuExit::IoOut(port, data) => match (port, data) {
            (port, _) if Some(port) == ports.until => Next::End(End::Port(port)),
            (SLEEP_PORT, [value, ..]) if ports.power => match *value {
                value if value == SLEEP_ENABLE | SOFT_OFF << 2 => Next::End(End::PoweredOff),
                _ => Next::Go,
            },
            (EXIT_PORT, [status, ..]) => Next::End(End::Exit(*status)),
            (FAULT_PORT, [gate, ..]) => Next::Fault(*gate),
            (DOORBELL_PORT, &[a, b, c, d]) => Next::Doorbell(u32::from_le_bytes([a, b, c, d])),
            (port, data) => {
                if let Some((which, register)) = ports.serial_at(port)
                    && let Some(serial) = ports.serial.get_mut(which)
                {
                    for byte in data {
                        // Neither an interrupt that leads nowhere nor a vector can fail.
                        let _ = serial.write(register, *byte);
                    }
                    let sent = serial.writer_mut();
                    match which {
                        _ if sent.is_empty() => {}
                        0 => bus.console(sent),
                        _ => bus.facts(sent),
                    }
                    sent.clear();
                }
                Next::Go
            }
        },
        VcpuExit::IoIn(port, data) => {
            // What is not there reads all-ones.
            data.fill(if ports.power && port == SLEEP_STATUS_PORT { 0 } else { 0xFF });
            if let Some((which, register)) = ports.serial_at(port)
                && let Some(serial) = ports.serial.get_mut(which)
            {
                data.iter_mut().for_each(|byte| *byte = serial.read(register));
            }
            Next::Go
        }
        VcpuExit::Hlt => Next::End(End::Halt),
        VcpuExit::Shutdown => Next::Shutdown,
        VcpuExit::InternalError => Next::Internal,
        VcpuExit::FailEntry(code, _) => Next::Fail(Reason::FailEntry { code }),
        VcpuExit::Intr => Next::Go,
        other => Next::Fail(Reason::Unknown { exit: format!("{other:?}") }),
    }
}

/// Makes KVM_RUN return when time is up or Ctrl-C was pressed, and while bytes wait for the guest: a
/// thread that signals the vCPU's.
struct Kicker {
    done: Arc<AtomicBool>,
    interrupted: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

extern "C" fn ignore_signal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

impl Kicker {
    /// Ends the wait for the guest at the deadline, at Ctrl-C, and once more than `lost` pages are.
    fn new(
        deadline: Instant,
        interrupted: Arc<AtomicBool>,
        lost: u64,
        input: Option<&Arc<Input>>,
    ) -> std::io::Result<Self> {
        let signal = vmm_sys_util::signal::SIGRTMIN();
        // An empty handler: the signal only has to interrupt the system call.
        let _ = vmm_sys_util::signal::register_signal_handler(signal, ignore_signal);
        let done = Arc::new(AtomicBool::new(false));
        // SAFETY: no arguments, cannot fail.
        let target = unsafe { libc::pthread_self() };
        let (stop, ctrl_c) = (Arc::clone(&done), Arc::clone(&interrupted));
        let input = input.map(Arc::clone);
        let thread =
            std::thread::Builder::new().name("time limit".to_owned()).spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    std::thread::park_timeout(Duration::from_millis(10));
                    let over = Instant::now() >= deadline
                        || ctrl_c.load(Ordering::Acquire)
                        || backing::lost_pages() > lost;
                    let waits = input.as_ref().is_some_and(|input| !input.is_empty());
                    if over || waits {
                        if stop.load(Ordering::Acquire) {
                            break;
                        }
                        // SAFETY: `Kicker::drop` joins this thread on the target thread, so the target
                        // is alive.
                        unsafe { libc::pthread_kill(target, signal) };
                    }
                }
            })?;
        Ok(Self { done, interrupted, thread: Some(thread) })
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }
}

impl Drop for Kicker {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_that_was_cut_short_is_one_and_what_waits_is_none() {
        let mut events = kvm_vcpu_events::default();
        assert!(!is_delivered(&events));
        // They come behind whatever runs now.
        (events.nmi.pending, events.interrupt.nr, events.exception.nr) = (1, 0xEC, 14);
        assert!(!is_delivered(&events));
        for set in [
            (|events| events.exception.injected = 1) as fn(&mut kvm_vcpu_events),
            |events| events.interrupt.injected = 1,
            |events| events.interrupt.soft = 1,
            |events| events.nmi.injected = 1,
        ] {
            let mut events = kvm_vcpu_events::default();
            set(&mut events);
            assert!(is_delivered(&events));
        }
    }
}
