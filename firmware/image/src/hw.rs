//! Registers and memory of the machine, mapped as they are asked for, and the processor's clock.
//!
//! **Invariant**: every access is one load or store, aligned and of 32 bits (of 64 for a register of
//! that width) but where another one was asked for, that the compiler neither drops nor repeats, on a page that is mapped; memory in a window
//! is reached past the caches.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, _rdtsc};
use core::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use cxl_firmware::mmio::{Clock, Mmio};
use cxl_firmware::platform::{BridgeKind, Platform};
use cxl_mmio::Mapped;
use cxl_regs::component::BLOCK_SIZE;
use cxl_regs::{Hpa, Span};
use heapless::Vec;

use crate::vmm::Vmm;
use crate::{paging, port};
use cxl_image::doorbell::{Call, MOST_LISTED};

/// The machine this image runs on.
pub(crate) struct Hardware {
    /// All of it, one to one.
    mapped: Mapped,
    /// Physical address of the top-level page table.
    tables: u64,
    /// The 2 MiB page that was used last; most accesses stay inside it.
    last_page: u64,
    /// Accesses so far.
    pub(crate) count: Count,
    /// Where configuration space is.
    config: Vec<Span, SEGMENTS>,
    /// Where memory is: windows, as far as nothing of the next list is there.
    windows: Vec<Span, WINDOWS>,
    /// Registers of host bridges.
    bridges: Vec<Span, WINDOWS>,
    /// Whose machine it is.
    pub(crate) vmm: Vmm,
    /// Reads of registers are listed but those of configuration space, for a host that need not have seen them.
    lists: bool,
}

/// The list: how many, then where.
#[repr(C)]
struct Listed {
    count: AtomicU64,
    at: [AtomicU64; MOST_LISTED],
}

static LISTED: Listed =
    Listed { count: AtomicU64::new(0), at: [const { AtomicU64::new(0) }; MOST_LISTED] };

/// Accesses, in dwords.
#[derive(Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) reads: u32,
    /// Of these, reads of configuration space.
    pub(crate) config: u32,
    pub(crate) writes: u32,
    /// Reads of memory in a window, which are none of the above.
    pub(crate) memory_reads: u32,
    /// Writes to it, likewise.
    pub(crate) memory_writes: u32,
}

/// Most PCI segments whose configuration space is told from other registers.
const SEGMENTS: usize = 32;
/// Most windows, and most bridges.
const WINDOWS: usize = 64;
/// Bytes of a root complex register block (CXL r3.1 section 9.18.1.2).
const RCRB_SIZE: u64 = 0x2000;

/// A guess that is long enough for every wait: no x86 counter runs faster.
const FASTEST_TICKS: u64 = 10_000;

impl Hardware {
    pub(crate) fn new(tables: u64) -> Self {
        let (config, windows, bridges) = (Vec::new(), Vec::new(), Vec::new());
        let (count, vmm) = (Count::default(), Vmm::Unknown);
        // SAFETY: pages are mapped one to one, those of windows elsewhere past the caches, before an
        // access goes through; it is to registers that discovery found in ECAM, BARs and bridge
        // blocks, or to memory in a CXL window. No Rust object lives in any of them.
        let mapped = unsafe { Mapped::new(0) };
        let lists = false;
        Self { mapped, tables, last_page: u64::MAX, count, config, windows, bridges, vmm, lists }
    }

    /// Lists reads of registers from now on, but of configuration space, where the harness takes them.
    pub(crate) fn list(&mut self) {
        self.lists = self.vmm == Vmm::Harness;
        if self.lists {
            Self::offer();
        }
    }

    /// Lists no more: whoever reads after the hand-off leaves the guest.
    pub(crate) fn list_no_more(&mut self) {
        self.lists = false;
    }

    fn offer() {
        port::call(Call::List { address: core::ptr::from_ref(&LISTED) as u64 });
    }

    /// Lists a read that is to come.
    fn note(&mut self, address: u64) {
        if !self.lists {
            return;
        }
        if LISTED.count.load(Ordering::Relaxed) as usize >= MOST_LISTED {
            Self::offer();
        }
        let count = LISTED.count.load(Ordering::Relaxed);
        let Some(entry) = LISTED.at.get(count as usize) else {
            // Nobody takes them.
            self.lists = false;
            return;
        };
        entry.store(address, Ordering::Relaxed);
        LISTED.count.store(count.wrapping_add(1), Ordering::Relaxed);
        // The read comes behind its entry.
        compiler_fence(Ordering::SeqCst);
    }

    /// Says where configuration space is; reads of it are counted from now on.
    pub(crate) fn set_config(&mut self, config: impl Iterator<Item = Span>) {
        self.config = config.take(SEGMENTS).collect();
    }

    /// Says where memory is: it is counted apart from now on, and reached past the caches, so that
    /// what is read there is what the memory holds.
    pub(crate) fn set_windows(&mut self, platform: &Platform<'_>) {
        let placed = platform.windows.iter().filter_map(|window| platform.span_of(window));
        self.windows = placed.take(WINDOWS).collect();
        let bridges = platform.bridges.iter();
        let bridges = bridges.filter_map(|bridge| {
            let size = match bridge.kind {
                BridgeKind::ComponentRegisters => BLOCK_SIZE.into(),
                BridgeKind::Rcrb => RCRB_SIZE,
            };
            Span::new(bridge.registers, size).ok()
        });
        self.bridges = bridges.take(WINDOWS).collect();
    }

    /// Where an address in a window is reached past the caches; `None` for any other.
    fn memory(&self, address: u64) -> Option<u64> {
        self.windows.iter().find(|span| span.contains(Hpa(address)))?;
        let mut registers = self.config.iter().chain(&self.bridges);
        if registers.any(|span| span.contains(Hpa(address))) {
            return None;
        }
        match paging::map_uncached(self.tables, address) {
            Ok(at) => Some(at),
            Err(paging::OutOfTables) => panic!("out of page tables at {address:#x}"),
        }
    }

    /// The clock.
    pub(crate) fn clock(&self) -> Counter {
        Counter { ticks: ticks_per_microsecond() }
    }

    /// Makes `bytes` bytes at `address` readable and writable.
    pub(crate) fn map(&mut self, address: u64, bytes: u64) {
        let mut page = address >> 21;
        let last = address.saturating_add(bytes.saturating_sub(1)) >> 21;
        while page <= last {
            if page != self.last_page {
                if let Err(paging::OutOfTables) = paging::map(self.tables, page << 21) {
                    panic!("out of page tables at {address:#x}");
                }
                self.last_page = page;
            }
            page += 1;
        }
    }
}

/// One store with operands.
macro_rules! store {
    ($text:literal, $($operand:tt)*) => {
        // SAFETY: a store to registers, on pages that were mapped just before; no Rust object lives
        // there.
        unsafe { asm!($text, $($operand)*, options(nostack, preserves_flags)) }
    };
}

impl Hardware {
    /// One store of 1, 2, 4 or 8 bytes to registers, aligned or not; false for any other.
    pub(crate) fn store(&mut self, address: u64, bytes: u8, value: u64) -> bool {
        self.map(address, u64::from(bytes));
        self.count.writes = self.count.writes.wrapping_add(1);
        let low = value as u32;
        match bytes {
            1 => store!("mov byte ptr [{0}], {1}", in(reg) address, in(reg_byte) value as u8),
            2 => store!("mov word ptr [{0}], {1:x}", in(reg) address, in(reg) value as u16),
            4 => store!("mov dword ptr [{0}], {1:e}", in(reg) address, in(reg) low),
            8 => store!("mov qword ptr [{0}], {1}", in(reg) address, in(reg) value),
            _ => return false,
        }
        true
    }
}

impl Mmio for Hardware {
    fn read(&mut self, address: u64) -> u32 {
        if let Some(at) = self.memory(address) {
            self.count.memory_reads = self.count.memory_reads.wrapping_add(1);
            return self.mapped.read(at);
        }
        self.map(address, 4);
        self.count.reads = self.count.reads.wrapping_add(1);
        let config = self.config.iter().any(|span| span.contains(Hpa(address)));
        self.count.config = self.count.config.wrapping_add(config.into());
        if !config {
            self.note(address);
        }
        self.mapped.read(address)
    }

    fn write(&mut self, address: u64, value: u32) {
        if let Some(at) = self.memory(address) {
            self.count.memory_writes = self.count.memory_writes.wrapping_add(1);
            return self.mapped.write(at, value);
        }
        self.map(address, 4);
        self.count.writes = self.count.writes.wrapping_add(1);
        self.mapped.write(address, value);
    }

    fn write_qword(&mut self, address: u64, value: u64) {
        self.map(address, 8);
        // Registers are counted by dwords.
        self.count.writes = self.count.writes.wrapping_add(2);
        self.mapped.write_qword(address, value);
    }
}

/// The processor's time-stamp counter.
pub(crate) struct Counter {
    ticks: u64,
}

impl Counter {
    /// The counter itself.
    pub(crate) fn ticks() -> u64 {
        // SAFETY: every x86-64 processor has the counter, and CR4.TSD is clear.
        unsafe { _rdtsc() }
    }
}

impl Clock for Counter {
    fn microseconds(&mut self) -> u64 {
        Self::ticks() / self.ticks
    }
}

/// The counter's speed as CPUID tells it (leaf 0x15, or the base frequency of leaf 0x16); where it
/// does not, time seems to pass slower than it does and waits are longer, never shorter.
fn ticks_per_microsecond() -> u64 {
    let highest = __cpuid(0).eax;
    if highest >= 0x15 {
        let leaf = __cpuid(0x15);
        if leaf.eax != 0 && leaf.ebx != 0 && leaf.ecx != 0 {
            let ticks = u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax);
            return (ticks / 1_000_000).max(1);
        }
    }
    if highest >= 0x16 {
        let base = u64::from(__cpuid(0x16).eax & 0xFFFF);
        if base != 0 {
            return base;
        }
    }
    FASTEST_TICKS
}
