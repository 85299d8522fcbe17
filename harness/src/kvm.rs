//! A small KVM virtual machine: memory slots, a boot state and a run loop.
//!
//! **Invariant**: nothing here knows CXL. It sees ranges of host memory that appear and disappear,
//! and accesses that somebody else answers.

mod boot;
pub mod elf;
mod input;
pub mod instruction;
mod kind;
mod linux;
mod run;
mod slots;

pub use boot::{Boot, BootError, Entry};
pub use input::Input;
pub use kind::{AfterTripleFault, Extension, Kind, Paging, Ring0, emulates_ring_0, kind, patience};
pub use linux::LinuxBoot;
pub use run::{
    Bus, End, Failure, Hint, Limits, Reason, SLEEP_PORT, SLEEP_STATUS_PORT, SOFT_OFF, Signal,
};
pub use slots::{Call, MOST_SLOT_CALLS, Slot, SlotError, Slots};

use kvm_bindings::{
    KVM_CAP_EXIT_ON_EMULATION_FAILURE, Msrs, kvm_debugregs, kvm_enable_cap, kvm_msr_entry,
    kvm_sregs,
};
use kvm_ioctls::{Cap, Kvm, SyncReg, VcpuFd, VmFd};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

/// A virtual machine with one vCPU, RAM and no slots but RAM's.
///
/// Fields go in the order in which they stand: first what has KVM keep the machine, then the memory
/// that it maps.
pub struct Vm {
    vcpu: VcpuFd,
    vm: VmFd,
    /// Slots in use, with the memory behind them. Nobody outside can take them: the machine goes
    /// before the memory that it maps.
    slots: Slots,
    /// The vCPU's registers after reset.
    reset: Reset,
    ram: GuestMemoryMmap,
    address_bits: u8,
    /// The processor has XSAVE.
    xsave: bool,
    /// KVM emulates code at CPL 0 here, as far as anybody can say.
    emulates_ring_0: bool,
    /// Where the vCPU is entered.
    entry: u64,
    /// KVM tells the registers with each exit.
    tells_registers: bool,
    /// The interrupts of the serial ports, if there are interrupt controllers.
    serial_lines: Option<[EventFd; 2]>,
}

/// What an image can change of a vCPU and the next one would find.
struct Reset {
    sregs: kvm_sregs,
    debug: kvm_debugregs,
    /// Model-specific registers, one of KVM's own among them: an image can have KVM write a clock
    /// or its steal time into memory.
    msrs: Vec<kvm_msr_entry>,
}

/// Why there is no virtual machine.
#[derive(Debug)]
pub enum VmError {
    /// `/dev/kvm` does not open.
    Open(kvm_ioctls::Error),
    /// `/dev/kvm` opens, and is something else.
    NotKvm {
        /// What it answers to KVM_GET_API_VERSION.
        version: i32,
    },
    /// A KVM call failed.
    Call {
        /// Its name.
        name: &'static str,
        /// What it said.
        error: kvm_ioctls::Error,
    },
    /// RAM could not be had.
    Memory(String),
    /// A slot could not be set.
    Slot(SlotError),
}

impl std::fmt::Display for VmError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(error) => {
                write!(f, "/dev/kvm does not open ({error}); ")?;
                f.write_str(match error.errno() {
                    libc::ENOENT => {
                        "load the module kvm_intel or kvm_amd, with virtualization switched on in \
                         the machine's set-up"
                    }
                    libc::EACCES | libc::EPERM => {
                        "add yourself to the group that owns it (sudo usermod -aG kvm $USER) and \
                         log in again"
                    }
                    _ => "load the module kvm_intel or kvm_amd, or ask who owns the device",
                })
            }
            Self::NotKvm { version } => write!(
                f,
                "/dev/kvm is no KVM of API version {KVM_API_VERSION} (it says {version}); load the \
                 module kvm_intel or kvm_amd, or give the container the host's device"
            ),
            Self::Call { name, error } => write!(f, "{name} failed: {error}"),
            Self::Memory(error) => write!(f, "no memory for the guest: {error}"),
            Self::Slot(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for VmError {}

/// What every KVM has answered since Linux 2.6.22.
const KVM_API_VERSION: i32 = kvm_bindings::KVM_API_VERSION as i32;
/// The CPUID leaf whose EAX 7:0 is the width of a physical address.
const ADDRESS_SIZES: u32 = 0x8000_0008;
/// The CPUID leaf whose ECX says what the processor can do, and its bit for XSAVE.
const FEATURES: u32 = 1;
const FEATURES_XSAVE: u32 = 1 << 26;
const FEATURES_TSC_DEADLINE: u32 = 1 << 24;
const FEATURES_HYPERVISOR: u32 = 1 << 31;
/// The interrupts of the serial ports.
const SERIAL_INTERRUPTS: [u32; 2] = [4, 3];
/// The CPUID leaf and subleaf whose EAX says which ways of saving there are, and its bit for XSAVEC.
const XSAVE: (u32, u32) = (0xD, 1);
const XSAVE_XSAVEC: u32 = 1 << 1;

/// Whether there is a KVM that makes virtual machines, and why not.
pub fn available() -> Result<(), VmError> {
    // A machine that exists for a moment: another hypervisor may have the processor.
    let kvm = open()?;
    let made = again(|| kvm.create_vm()).map(|_| ());
    made.map_err(|error| VmError::Call { name: "KVM_CREATE_VM", error })
}

/// Whether guests here have XSAVEC. That the host's processor has it says nothing: some hypervisors
/// keep it to themselves.
pub fn offers_xsavec() -> bool {
    let Ok(kvm) = open() else { return false };
    let cpuid = again(|| kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES));
    cpuid.is_ok_and(|cpuid| {
        let mut leaves = cpuid.as_slice().iter();
        leaves.any(|leaf| (leaf.function, leaf.index) == XSAVE && leaf.eax & XSAVE_XSAVEC != 0)
    })
}

fn open() -> Result<Kvm, VmError> {
    let kvm = again(Kvm::new).map_err(VmError::Open)?;
    let version = again(|| match kvm.get_api_version() {
        -1 => Err(kvm_ioctls::Error::last()),
        version => Ok(version),
    });
    match version {
        Ok(KVM_API_VERSION) => Ok(kvm),
        Ok(version) => Err(VmError::NotKvm { version }),
        Err(error) => Err(VmError::Call { name: "KVM_GET_API_VERSION", error }),
    }
}

/// Calls that a signal interrupts are made again, so many times.
const TRIES: usize = 64;

/// Makes a call that is nobody's business to interrupt.
fn again<T>(
    mut call: impl FnMut() -> Result<T, kvm_ioctls::Error>,
) -> Result<T, kvm_ioctls::Error> {
    let mut result = call();
    for _ in 1..TRIES {
        match &result {
            Err(error) if error.errno() == libc::EINTR => result = call(),
            _ => break,
        }
    }
    result
}

impl Reset {
    fn of(kvm: &Kvm, vcpu: &VcpuFd) -> Result<Self, VmError> {
        let call = |name| move |error| VmError::Call { name, error };
        let list = again(|| kvm.get_msr_index_list()).map_err(call("KVM_GET_MSR_INDEX_LIST"))?;
        let entry = |index: &u32| kvm_msr_entry { index: *index, ..Default::default() };
        let mut rest: Vec<_> = list.as_slice().iter().map(entry).collect();
        let mut msrs = Vec::new();
        // KVM stops at one that it lists and this processor has not.
        while let Ok(mut wanted) = Msrs::from_entries(&rest) {
            let read = again(|| vcpu.get_msrs(&mut wanted)).map_err(call("KVM_GET_MSRS"))?;
            msrs.extend(wanted.as_slice().iter().take(read));
            if rest.len() <= read {
                break;
            }
            rest.drain(..=read);
        }
        Ok(Self {
            sregs: again(|| vcpu.get_sregs()).map_err(call("KVM_GET_SREGS"))?,
            debug: again(|| vcpu.get_debug_regs()).map_err(call("KVM_GET_DEBUGREGS"))?,
            msrs,
        })
    }
}

/// What a machine has besides a processor and RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Board {
    /// Nothing.
    Bare,
    /// Interrupt controllers, and a way to switch it off.
    Whole {
        /// The processor says that it is a virtual one.
        tells: bool,
    },
}

impl Vm {
    /// A machine with RAM in these ranges (base, size), whose processor says that physical
    /// addresses have `address_bits` bits, or fewer if the host's have.
    pub fn new(ram: &[(u64, u64)], address_bits: u8) -> Result<Self, VmError> {
        let vm = Self::plain(ram, address_bits, Board::Bare)?;
        Ok(Self { emulates_ring_0: emulates_ring_0(), ..vm })
    }

    /// The same with interrupt controllers, as an operating system wants them, and a way to switch
    /// the machine off. Whether the processor `tells` that it is a virtual one is something that some
    /// systems go by.
    pub fn with_interrupts(
        ram: &[(u64, u64)],
        address_bits: u8,
        tells: bool,
    ) -> Result<Self, VmError> {
        let vm = Self::plain(ram, address_bits, Board::Whole { tells })?;
        Ok(Self { emulates_ring_0: emulates_ring_0(), ..vm })
    }

    /// The machine, whatever kind of KVM this is.
    fn plain(ram: &[(u64, u64)], address_bits: u8, board: Board) -> Result<Self, VmError> {
        let call = |name| move |error| VmError::Call { name, error };
        let kvm = open()?;
        let vm = again(|| kvm.create_vm()).map_err(call("KVM_CREATE_VM"))?;
        // Without it, ordinary KVM turns an instruction it cannot emulate into #UD at CPL 3.
        let cap = kvm_enable_cap {
            cap: KVM_CAP_EXIT_ON_EMULATION_FAILURE,
            args: [1, 0, 0, 0],
            ..Default::default()
        };
        // Before Linux 5.15 there is no such choice; such a guest sees #UD, which ends it by name.
        let has =
            again(|| match vm.check_extension_raw(KVM_CAP_EXIT_ON_EMULATION_FAILURE.into()) {
                ..0 => Err(kvm_ioctls::Error::last()),
                has => Ok(has > 0),
            });
        if has.map_err(call("KVM_CHECK_EXTENSION"))? {
            again(|| vm.enable_cap(&cap)).map_err(call("KVM_CAP_EXIT_ON_EMULATION_FAILURE"))?;
        }
        // Intel needs three pages that no guest uses.
        again(|| vm.set_tss_address(0xFFFB_D000)).map_err(call("KVM_SET_TSS_ADDR"))?;
        let serial_lines = match board {
            Board::Whole { .. } => {
                again(|| vm.create_irq_chip()).map_err(call("KVM_CREATE_IRQCHIP"))?;
                let line = |interrupt| {
                    let line = EventFd::new(libc::EFD_NONBLOCK)
                        .map_err(|error| VmError::Memory(error.to_string()))?;
                    again(|| vm.register_irqfd(&line, interrupt)).map_err(call("KVM_IRQFD"))?;
                    Ok(line)
                };
                let [first, second] = SERIAL_INTERRUPTS;
                Some([line(first)?, line(second)?])
            }
            Board::Bare => None,
        };
        let ranges: Vec<_> =
            ram.iter().map(|&(base, size)| (GuestAddress(base), size as usize)).collect();
        let memory = GuestMemoryMmap::from_ranges(&ranges)
            .map_err(|error| VmError::Memory(error.to_string()))?;
        for region in memory.iter() {
            cxl_model::backing::advise_huge(region);
        }
        let mut vcpu = again(|| vm.create_vcpu(0)).map_err(call("KVM_CREATE_VCPU"))?;
        // Without a call for it: where the guest was, at the last exit before it dies.
        let told = kvm.check_extension_int(Cap::SyncRegs);
        let tells_registers = told & SyncReg::Register as i32 != 0;
        if tells_registers {
            vcpu.set_sync_valid_reg(SyncReg::Register);
        }
        let mut cpuid = again(|| kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES))
            .map_err(call("KVM_GET_SUPPORTED_CPUID"))?;
        let (mut bits, mut xsave) = (address_bits.min(36), false);
        for leaf in cpuid.as_mut_slice() {
            if leaf.function == FEATURES {
                xsave = leaf.ecx & FEATURES_XSAVE != 0;
                // Linux looks for KVM's clock where there is a hypervisor.
                leaf.ecx = match board {
                    Board::Bare => leaf.ecx,
                    Board::Whole { tells: true } => {
                        leaf.ecx | FEATURES_HYPERVISOR | FEATURES_TSC_DEADLINE
                    }
                    Board::Whole { tells: false } => {
                        (leaf.ecx | FEATURES_TSC_DEADLINE) & !FEATURES_HYPERVISOR
                    }
                };
            }
            if leaf.function == ADDRESS_SIZES {
                bits = address_bits.min(leaf.eax as u8);
                leaf.eax = leaf.eax & !0xFF | u32::from(bits);
            }
        }
        again(|| vcpu.set_cpuid2(&cpuid)).map_err(call("KVM_SET_CPUID2"))?;
        let reset = Reset::of(&kvm, &vcpu)?;
        let mut slots = Slots::new(kvm.get_nr_memslots());
        slots.add_ram(&vm, &memory).map_err(VmError::Slot)?;
        Ok(Self {
            slots,
            vcpu,
            vm,
            reset,
            ram: memory,
            address_bits: bits,
            xsave,
            emulates_ring_0: false,
            entry: 0,
            tells_registers,
            serial_lines,
        })
    }

    /// Slots in use.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// How fast the processor's time stamps run, in kHz, as far as KVM says.
    pub fn time_stamps(&self) -> Option<u32> {
        again(|| self.vcpu.get_tsc_khz()).ok()
    }

    /// Guest RAM.
    pub fn ram(&self) -> &GuestMemoryMmap {
        &self.ram
    }

    /// Width of a guest physical address. KVM takes a slot beyond it without a word, and the guest
    /// can never reach it.
    pub fn address_bits(&self) -> u8 {
        self.address_bits
    }

    /// Adds slots and takes them away again; the time of the additions, with no bookkeeping. For
    /// benches: what KVM itself costs.
    pub fn add_bare(&mut self, slots: &[Slot]) -> Result<std::time::Duration, SlotError> {
        self.slots.add_bare(&self.vm, slots)
    }

    /// Makes the guest see exactly these slots besides RAM. Returns the number of ioctls.
    pub fn remap(&mut self, want: &[Slot]) -> Result<usize, SlotError> {
        self.slots.apply(&self.vm, want)
    }
}
