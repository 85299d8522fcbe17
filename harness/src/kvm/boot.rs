//! How a guest starts: the image in memory, start-info, tables, and the vCPU's first state.
//!
//! **Invariant**: everything built here lies below 1 MiB and in the memory map it hands over as
//! reserved, so an image at 1 MiB or above can trust the map.

use std::ops::Range;

use cxl_regs::{Hpa, Span};
use kvm_bindings::{
    Msrs, kvm_dtable, kvm_fpu, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};
use linux_loader::cmdline::Cmdline;
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use linux_loader::loader::load_cmdline;
use vm_memory::{Address, ByteValued, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::elf::{self, ImageError};
use super::{Vm, again};
use cxl_model::backing;
use cxl_model::layout::{FREE, memory_map};

/// How the image is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// 64-bit mode at CPL 3, at the ELF entry point: RDI is the start-info, RSI the top-level page
    /// table. Code runs natively there on every host, SSE included.
    Ring3,
    /// 32-bit protected mode at CPL 0, at the entry point of the PVH note: EBX is the start-info.
    Pvh,
}

/// What to boot.
pub struct Boot<'a> {
    /// An ELF image.
    pub image: &'a [u8],
    /// How to enter it.
    pub entry: Entry,
    /// Its command line.
    pub command_line: &'a str,
    /// ACPI tables: address and bytes, and the address of the RSDP.
    pub acpi: &'a [(u64, Vec<u8>)],
    /// Where the RSDP is.
    pub rsdp: u64,
    /// What is handed to it besides, at the end of low RAM: of a Linux kernel and initrd.
    pub modules: &'a [&'a [u8]],
    /// The memory map, if it is another than RAM: first address, size, and whether it is RAM.
    pub map: Option<&'a [(u64, u64, bool)]>,
}

/// Why the guest cannot start.
#[derive(Debug)]
pub enum BootError {
    /// The image is no ELF file that can be loaded.
    Image(ImageError),
    /// The image has no PVH note, so nobody knows how to enter it.
    NoPvhNote,
    /// The command line is too long, or holds a NUL.
    CommandLine(String),
    /// The kernel or its initrd cannot be loaded.
    Linux(String),
    /// Something does not fit guest memory.
    Memory(String),
    /// A KVM call failed.
    Call {
        /// Its name.
        name: &'static str,
        /// What it said.
        error: kvm_ioctls::Error,
    },
}

impl std::fmt::Display for BootError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Image(error) => write!(f, "the image cannot be loaded: {error}"),
            Self::NoPvhNote => f.write_str(
                "the image has no PVH entry: an ELF note named \"Xen\" of type 18 in a PT_NOTE \
                 segment (a linker script has to keep it: KEEP(*(.note.Xen)))",
            ),
            Self::CommandLine(error) => write!(f, "command line: {error}"),
            Self::Linux(error) => write!(f, "Linux cannot be loaded: {error}"),
            Self::Memory(error) => write!(f, "guest memory: {error}"),
            Self::Call { name, error } => write!(f, "{name} failed: {error}"),
        }
    }
}

impl std::error::Error for BootError {}

// Where things lie below 1 MiB.
pub(super) const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
const FAULT_STUBS: u64 = 0x3000;
const TSS: u64 = 0x4000;
const FAULT_STACK: u64 = 0x8000;
const START_INFO: u64 = 0x9000;
const MODULES: u64 = 0x9040;
const MEMORY_MAP: u64 = 0x9100;
pub(super) const COMMAND_LINE: u64 = 0xA000;
pub(super) const COMMAND_LINE_SIZE: usize = 0x1000;
pub(super) const PAGE_TABLES: u64 = 0x10000;

/// Vectors that have a handler of ours.
const VECTORS: u64 = 32;
const DOUBLE_FAULT: u64 = 8;
/// Bytes from one handler to the next.
pub(super) const STUB_SIZE: u64 = 8;
/// Where our handlers are: an exit from there is theirs.
pub(super) const STUBS: Range<u64> = FAULT_STUBS..FAULT_STUBS + 2 * VECTORS * STUB_SIZE;

/// The port that a handler writes the number of its gate to.
pub(super) const FAULT_PORT: u16 = 0xF6;

/// PAE, OSFXSR, OSXMMEXCPT.
const CR4: u64 = 0x620;
const CR4_OSXSAVE: u64 = 1 << 18;
/// x87 and SSE state: what every processor with XSAVE has.
const XCR0: u64 = 0b11;

/// The bit of a page table's entry that lets CPL 3 through.
const USER: u64 = 1 << 2;

const PVH_MAGIC: u32 = 0x336E_C578;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

impl Vm {
    /// Puts the image and all it is handed into memory, and the vCPU at its entry.
    pub fn boot(&mut self, boot: &Boot<'_>) -> Result<(), BootError> {
        let ram = self.ram().iter();
        let own = memory_map(
            ram.filter_map(|r| Span::new(Hpa(r.start_addr().raw_value()), r.len()).ok()),
        );
        let own = own.into_iter().map(|(span, usable)| (span.base().0, span.size(), usable));
        let map = boot.map.map_or_else(|| own.collect(), <[_]>::to_vec);
        let modules = self.load_modules(boot.modules)?;
        let free = self.room_for_an_image(boot.acpi, &modules);
        let image = elf::read(boot.image, &free).map_err(BootError::Image)?;
        for (address, bytes) in &image.segments {
            self.put(*address, bytes)?;
        }
        for (address, table) in boot.acpi {
            self.put(*address, table)?;
        }
        self.start_info(boot, &map, &modules)?;
        self.fault_handlers(boot.entry)?;
        match boot.entry {
            Entry::Ring3 => self.enter_ring3(image.entry),
            Entry::Pvh => self.enter_pvh(image.pvh.ok_or(BootError::NoPvhNote)?),
        }
    }

    /// RAM but for what the guest is handed in it. A linker puts the file's headers into the page
    /// before the code, so an image at 1 MiB may well start below, where nothing lies either.
    fn room_for_an_image(
        &self,
        tables: &[(u64, Vec<u8>)],
        modules: &[Range<u64>],
    ) -> Vec<Range<u64>> {
        let tables = tables.iter().map(|(base, bytes)| *base..base + bytes.len() as u64);
        let tables = tables.chain(modules.iter().cloned());
        let ram = self
            .ram()
            .iter()
            .map(|region| region.start_addr().raw_value()..region.last_addr().raw_value() + 1);
        std::iter::once(0..FREE).chain(tables).fold(ram.collect(), |room: Vec<Range<u64>>, kept| {
            let beside = |range: Range<u64>| {
                [range.start..range.end.min(kept.start), range.start.max(kept.end)..range.end]
            };
            room.into_iter().flat_map(beside).filter(|range| !range.is_empty()).collect()
        })
    }

    /// Puts modules at the end of low RAM, the first one last; where each is.
    fn load_modules(&self, modules: &[&[u8]]) -> Result<Vec<Range<u64>>, BootError> {
        const PAGE: u64 = 4096;
        let low = self.ram().iter().find(|region| region.start_addr().raw_value() == 0);
        let mut end = low.map_or(0, |region| region.len());
        let mut places = Vec::new();
        for module in modules {
            let size = module.len() as u64;
            let at = end.checked_sub(size).map(|at| at / PAGE * PAGE).filter(|at| *at >= FREE);
            let at = at.ok_or_else(|| {
                BootError::Memory(format!(
                    "expected room for {} MiB of kernel and initrd; give the machine more memory: \
                     `memory` in [platform]",
                    size >> 20
                ))
            })?;
            self.put(at, module)?;
            places.push(at..at + size);
            end = at;
        }
        Ok(places)
    }

    /// Makes RAM and vCPU as they were before the first image ran; slots stay as they are.
    pub fn clear(&mut self) -> Result<(), BootError> {
        // KVM finishes the access that the last exit was for at the next entry, so there has to be
        // one before the registers change (KVM API, section 5, `immediate_exit`).
        let call = |name| move |error| BootError::Call { name, error };
        self.vcpu.set_kvm_immediate_exit(1);
        match self.vcpu.run() {
            // It was one that ends at once.
            Err(error) if error.errno() != libc::EINTR => return Err(call("KVM_RUN")(error)),
            _ => {}
        }
        self.vcpu.set_kvm_immediate_exit(0);
        for region in self.ram().iter() {
            backing::forget(region, 0, region.len());
        }
        let fpu = kvm_fpu { fcw: 0x37F, mxcsr: 0x1F80, ..Default::default() };
        again(|| self.vcpu.set_fpu(&fpu)).map_err(call("KVM_SET_FPU"))?;
        again(|| self.vcpu.set_debug_regs(&self.reset.debug)).map_err(call("KVM_SET_DEBUGREGS"))?;
        for msr in &self.reset.msrs {
            // One that KVM does not take has not been written before either.
            if let Ok(msr) = Msrs::from_entries(&[*msr]) {
                again(|| self.vcpu.set_msrs(&msr)).map_err(call("KVM_SET_MSRS"))?;
            }
        }
        let events = kvm_vcpu_events::default();
        again(|| self.vcpu.set_vcpu_events(&events)).map_err(call("KVM_SET_VCPU_EVENTS"))
    }

    pub(super) fn put(&self, address: u64, bytes: &[u8]) -> Result<(), BootError> {
        self.ram()
            .write_slice(bytes, GuestAddress(address))
            .map_err(|error| BootError::Memory(error.to_string()))
    }

    fn start_info(
        &self,
        boot: &Boot<'_>,
        map: &[(u64, u64, bool)],
        modules: &[Range<u64>],
    ) -> Result<(), BootError> {
        let text = |error: &dyn std::fmt::Display| BootError::CommandLine(error.to_string());
        let mut line = Cmdline::new(COMMAND_LINE_SIZE).map_err(|error| text(&error))?;
        if !boot.command_line.is_empty() {
            line.insert_str(boot.command_line).map_err(|error| text(&error))?;
        }
        load_cmdline(self.ram(), GuestAddress(COMMAND_LINE), &line)
            .map_err(|error| text(&error))?;

        const MOST_MODULES: u64 = (MEMORY_MAP - MODULES) / size_of::<hvm_modlist_entry>() as u64;
        const MOST_RANGES: u64 =
            (COMMAND_LINE - MEMORY_MAP) / size_of::<hvm_memmap_table_entry>() as u64;
        if map.len() as u64 > MOST_RANGES || modules.len() as u64 > MOST_MODULES {
            return Err(BootError::Memory(format!(
                "expected at most {MOST_RANGES} ranges of memory and {MOST_MODULES} modules"
            )));
        }
        for (index, module) in modules.iter().enumerate() {
            let entry = hvm_modlist_entry {
                paddr: module.start,
                size: module.end - module.start,
                ..Default::default()
            };
            let size = size_of::<hvm_modlist_entry>();
            self.put(MODULES + (index * size) as u64, entry.as_slice())?;
        }
        for (index, &(addr, size, usable)) in map.iter().enumerate() {
            let entry = hvm_memmap_table_entry {
                addr,
                size,
                type_: if usable { E820_RAM } else { E820_RESERVED },
                reserved: 0,
            };
            let size = size_of::<hvm_memmap_table_entry>();
            self.put(MEMORY_MAP + (index * size) as u64, entry.as_slice())?;
        }
        let info = hvm_start_info {
            magic: PVH_MAGIC,
            version: 1,
            cmdline_paddr: COMMAND_LINE,
            rsdp_paddr: boot.rsdp,
            memmap_paddr: MEMORY_MAP,
            memmap_entries: map.len() as u32,
            nr_modules: modules.len() as u32,
            modlist_paddr: if modules.is_empty() { 0 } else { MODULES },
            ..Default::default()
        };
        self.put(START_INFO, info.as_slice())
    }

    /// 64-bit mode at CPL 3: descriptors, a TSS whose I/O bitmap allows every port, page tables
    /// for the first 4 GiB, and fault handlers that tell the host what happened.
    fn enter_ring3(&mut self, entry: u64) -> Result<(), BootError> {
        const CODE0: u64 = 0x00AF_9B00_0000_FFFF;
        const DATA0: u64 = 0x00CF_9300_0000_FFFF;
        const DATA3: u64 = 0x00CF_F300_0000_FFFF;
        const CODE3: u64 = 0x00AF_FB00_0000_FFFF;
        const TSS_LIMIT: u64 = 0x2068;
        let tss = TSS_LIMIT | (TSS & 0xFF_FFFF) << 16 | 0x8B << 40;
        for (index, descriptor) in [0, CODE0, DATA0, DATA3, CODE3, tss, 0].iter().enumerate() {
            self.put(GDT + 8 * index as u64, &u64::to_le_bytes(*descriptor))?;
        }
        // The TSS: RSP0 is there; the bitmap's offset, a bitmap of zeroes, and its last byte of ones.
        self.put(TSS + 0x66, &0x68u16.to_le_bytes())?;
        self.put(TSS + TSS_LIMIT, &[0xFF])?;
        self.map_low(USER)?;
        let mut sregs = self.reset.sregs;
        let code = segment(0x23, 0xB, 3, true);
        let data = segment(0x1B, 0x3, 3, false);
        sregs.cs = code;
        for register in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss]
        {
            *register = data;
        }
        sregs.tr = kvm_segment {
            base: TSS,
            limit: TSS_LIMIT as u32,
            selector: 0x28,
            type_: 0xB,
            present: 1,
            ..Default::default()
        };
        sregs.gdt = kvm_dtable { base: GDT, limit: 7 * 8 - 1, ..Default::default() };
        sregs.idt = idt();
        sregs.cr0 = 0x8005_0033;
        sregs.cr3 = PAGE_TABLES;
        sregs.cr4 = if self.xsave { CR4 | CR4_OSXSAVE } else { CR4 };
        sregs.efer = 0xD01;
        self.set_state(
            &sregs,
            // IOPL 3 as well: ordinary KVM honours it.
            &kvm_regs {
                rip: entry,
                rdi: START_INFO,
                rsi: PAGE_TABLES,
                rflags: 0x3002,
                ..Default::default()
            },
        )?;
        if self.xsave {
            let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
            // XCR0 comes first and there is no other.
            xcrs.xcrs[0].value = XCR0;
            let call = |error| BootError::Call { name: "KVM_SET_XCRS", error };
            again(|| self.vcpu.set_xcrs(&xcrs)).map_err(call)?;
        }
        Ok(())
    }

    /// Page tables for the first 4 GiB, writable, with more bits.
    pub(super) fn map_low(&self, more: u64) -> Result<(), BootError> {
        const PRESENT: u64 = 0b11;
        const LARGE: u64 = 1 << 7;
        let bits = PRESENT | more;
        self.put(PAGE_TABLES, &((PAGE_TABLES + 0x1000) | bits).to_le_bytes())?;
        for gib in 0..4u64 {
            let directory = PAGE_TABLES + 0x2000 + 0x1000 * gib;
            self.put(PAGE_TABLES + 0x1000 + 8 * gib, &(directory | bits).to_le_bytes())?;
            for page in 0..512u64 {
                let address = gib << 30 | page << 21;
                self.put(directory + 8 * page, &(address | LARGE | bits).to_le_bytes())?;
            }
        }
        Ok(())
    }

    /// Handlers that tell the host what happened, for as long as an image has none of its own. KVM
    /// does not say on every host where a guest was that died of a triple fault, so it is not to come
    /// to that.
    ///
    /// One table is for both modes that an image comes through. Its gates have 16 bytes in 64-bit
    /// mode and 8 before, and the upper half of a gate of 16 is zero here; so each gate of 8 at an
    /// even number is one of 16 as well, and those of 8 at odd numbers are none: their exception
    /// becomes a double fault, which has one. The handler says which gate it was, and the mode says
    /// which vector that is. Handlers are the same bytes in both modes. A gate leads to the segment
    /// that most images have their code in, the first; that of the double fault, which follows where
    /// there is none, to the second.
    fn fault_handlers(&self, entry: Entry) -> Result<(), BootError> {
        for gate in (0..2 * VECTORS).step_by(2) {
            // mov al, gate; out FAULT_PORT, al; hlt
            let stub = [0xB0, gate as u8, 0xE6, FAULT_PORT as u8, 0xF4];
            let at = FAULT_STUBS + STUB_SIZE * gate;
            self.put(at, &stub)?;
            let double = gate == DOUBLE_FAULT || gate == 2 * DOUBLE_FAULT;
            let second = double && entry == Entry::Pvh;
            let selector = if second { 0x10 } else { 0x08 };
            // An interrupt gate to CPL 0 that CPL 3 may take, on the first stack of the table.
            let gate_to = at & 0xFFFF | selector << 16 | 0xEE01 << 32 | (at >> 16 & 0xFFFF) << 48;
            self.put(IDT + 8 * gate, &gate_to.to_le_bytes())?;
        }
        // The TSS: RSP0 and IST1.
        self.put(TSS + 4, &FAULT_STACK.to_le_bytes())?;
        self.put(TSS + 0x24, &FAULT_STACK.to_le_bytes())
    }

    /// Code of our own at CPL 0 in 32-bit mode, and nothing else.
    pub(super) fn enter_bare(&mut self, entry: u32, code: &[u8]) -> Result<(), BootError> {
        self.put(entry.into(), code)?;
        self.enter_pvh(entry.into())
    }

    /// The state that the PVH boot protocol names. It leaves the tables of descriptors, the task
    /// register and the stack open; ours are such that our handlers work.
    fn enter_pvh(&mut self, entry: u64) -> Result<(), BootError> {
        const CODE: u64 = 0x00CF_9B00_0000_FFFF;
        const DATA: u64 = 0x00CF_9300_0000_FFFF;
        for (index, descriptor) in [0, CODE, CODE, DATA].iter().enumerate() {
            self.put(GDT + 8 * index as u64, &u64::to_le_bytes(*descriptor))?;
        }
        let mut sregs = self.reset.sregs;
        sregs.gdt = kvm_dtable { base: GDT, limit: 4 * 8 - 1, ..Default::default() };
        sregs.idt = idt();
        let flat = |selector, type_| kvm_segment { db: 1, ..segment(selector, type_, 0, false) };
        sregs.cs = flat(0x08, 0xB);
        for register in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss]
        {
            *register = flat(0x18, 0x3);
        }
        sregs.tr =
            kvm_segment { base: TSS, limit: 0x67, type_: 0xB, present: 1, ..Default::default() };
        sregs.cr0 = 0x11;
        sregs.cr4 = 0;
        sregs.efer = 0;
        self.set_state(
            &sregs,
            &kvm_regs {
                rip: entry,
                rbx: START_INFO,
                rsp: FAULT_STACK,
                rflags: 2,
                ..Default::default()
            },
        )
    }

    pub(super) fn set_state(
        &mut self,
        sregs: &kvm_sregs,
        regs: &kvm_regs,
    ) -> Result<(), BootError> {
        self.entry = regs.rip;
        let call = |name| move |error| BootError::Call { name, error };
        again(|| self.vcpu.set_sregs(sregs)).map_err(call("KVM_SET_SREGS"))?;
        again(|| self.vcpu.set_regs(regs)).map_err(call("KVM_SET_REGS"))
    }
}

/// The table of our handlers.
fn idt() -> kvm_dtable {
    kvm_dtable { base: IDT, limit: (16 * VECTORS - 1) as u16, ..Default::default() }
}

/// A flat code or data segment.
pub(super) fn segment(selector: u16, type_: u8, dpl: u8, long: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xFFFF_FFFF,
        selector,
        type_,
        present: 1,
        dpl,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    }
}
