//! How Linux starts: a bzImage by the 64-bit boot protocol, with an initrd, a command line and ACPI
//! tables, on a machine with interrupt controllers (Linux, Documentation/arch/x86/boot.rst).
//!
//! **Invariant**: what is built here lies below 1 MiB and is reserved in the memory map that Linux is
//! handed; kernel and initrd do not meet, and nothing is loaded that does not fit.

use std::io::Cursor;

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment};
use linux_loader::cmdline::Cmdline;
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::bzimage::BzImage;
use linux_loader::loader::{KernelLoader, load_cmdline};
use vm_memory::{Address, ByteValued, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::Vm;
use super::boot::{BootError, COMMAND_LINE, COMMAND_LINE_SIZE, GDT, PAGE_TABLES, segment};

/// What to boot.
pub struct LinuxBoot<'a> {
    /// A bzImage.
    pub kernel: &'a [u8],
    /// An initrd; empty for none.
    pub initrd: &'a [u8],
    /// The command line.
    pub command_line: &'a str,
    /// ACPI tables: address and bytes.
    pub acpi: &'a [(u64, Vec<u8>)],
    /// Where the RSDP is.
    pub rsdp: u64,
    /// The memory map: first address, size, and whether it is RAM that Linux may use.
    pub map: &'a [(u64, u64, bool)],
}

/// The page that Linux is handed, where PVH images have their start-info.
const ZERO_PAGE: u64 = 0x9000;
/// Where the kernel is loaded; it goes to its own place from there.
const KERNEL: u64 = 0x10_0000;
/// The entry of 64-bit code, from the start of the kernel.
const ENTRY: u64 = 0x200;
/// What the protocol calls `__BOOT_CS` and `__BOOT_DS`.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
/// The oldest protocol that has an entry of 64-bit code and the address of the RSDP (Linux 5.1).
const PROTOCOL: u16 = 0x020E;
/// The bit of `xloadflags` for a 64-bit entry.
const KERNEL_64: u16 = 1;
/// A loader without a number of its own.
const LOADER: u8 = 0xFF;
const PAGE: u64 = 4096;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

impl Vm {
    /// Puts Linux and all it is handed into memory, and the vCPU at its entry.
    pub fn boot_linux(&mut self, boot: &LinuxBoot<'_>) -> Result<(), BootError> {
        let refused = |why: &str| BootError::Linux(why.to_owned());
        let mut kernel = Cursor::new(boot.kernel);
        let loaded = BzImage::load(
            self.ram(),
            Some(GuestAddress(KERNEL)),
            &mut kernel,
            Some(GuestAddress(KERNEL)),
        )
        .map_err(|error| BootError::Linux(format!("expected a bzImage: {error}")))?;
        let header = loaded.setup_header.ok_or_else(|| refused("expected a bzImage"))?;
        let (version, flags) = (header.version, header.xloadflags);
        if version < PROTOCOL || flags & KERNEL_64 == 0 {
            return Err(BootError::Linux(format!(
                "expected a 64-bit kernel of boot protocol {PROTOCOL:#x} or later (Linux 5.1), found \
                 protocol {version:#x}"
            )));
        }
        let initrd = self.load_initrd(boot.initrd, &header, loaded.kernel_end)?;
        for (address, table) in boot.acpi {
            self.put(*address, table)?;
        }
        let text = |error: &dyn std::fmt::Display| BootError::CommandLine(error.to_string());
        let mut line = Cmdline::new(COMMAND_LINE_SIZE).map_err(|error| text(&error))?;
        if !boot.command_line.is_empty() {
            line.insert_str(boot.command_line).map_err(|error| text(&error))?;
        }
        load_cmdline(self.ram(), GuestAddress(COMMAND_LINE), &line)
            .map_err(|error| text(&error))?;

        let mut page = boot_params { hdr: header, ..Default::default() };
        page.hdr.type_of_loader = LOADER;
        page.hdr.cmd_line_ptr = COMMAND_LINE as u32;
        page.hdr.ramdisk_image = initrd as u32;
        page.hdr.ramdisk_size = boot.initrd.len() as u32;
        page.acpi_rsdp_addr = boot.rsdp;
        let room = page.e820_table.len();
        if boot.map.len() > room {
            return Err(refused(&format!("expected at most {room} ranges of memory")));
        }
        let mut entries = [boot_e820_entry::default(); 128];
        for (entry, &(addr, size, usable)) in entries.iter_mut().zip(boot.map) {
            let kind = if usable { E820_RAM } else { E820_RESERVED };
            *entry = boot_e820_entry { addr, size, r#type: kind };
        }
        page.e820_table = entries;
        page.e820_entries = boot.map.len() as u8;
        self.put(ZERO_PAGE, page.as_slice())?;
        self.enter_linux(loaded.kernel_load.raw_value() + ENTRY)
    }

    /// As high as kernel and RAM allow; its address.
    fn load_initrd(
        &self,
        initrd: &[u8],
        header: &setup_header,
        kernel_end: u64,
    ) -> Result<u64, BootError> {
        if initrd.is_empty() {
            return Ok(0);
        }
        // What the kernel takes while it unpacks itself, where it goes by itself.
        let (own, takes) = (header.pref_address, u64::from(header.init_size));
        let taken = kernel_end.max(own.saturating_add(takes));
        let low = self.ram().iter().find(|region| region.start_addr().raw_value() == 0);
        let low = low.map_or(0, |region| region.len());
        let most = low.min(u64::from(header.initrd_addr_max).saturating_add(1));
        let size = initrd.len() as u64;
        let at = most.checked_sub(size).map_or(0, |at| at / PAGE * PAGE);
        if at < taken {
            return Err(BootError::Linux(format!(
                "expected room for an initrd of {} MiB between the kernel, which takes memory up to \
                 {taken:#x}, and {most:#x}; give the machine more memory: `memory` in [platform]",
                size >> 20
            )));
        }
        self.put(at, initrd)?;
        Ok(at)
    }

    /// 64-bit mode at CPL 0, the first 4 GiB mapped, interrupts off.
    fn enter_linux(&mut self, entry: u64) -> Result<(), BootError> {
        const CODE0: u64 = 0x00AF_9B00_0000_FFFF;
        const DATA0: u64 = 0x00CF_9300_0000_FFFF;
        for (index, descriptor) in [0, 0, CODE0, DATA0].iter().enumerate() {
            self.put(GDT + 8 * index as u64, &u64::to_le_bytes(*descriptor))?;
        }
        self.map_low(0)?;
        let mut sregs = self.reset.sregs;
        sregs.cs = segment(CODE, 0xB, 0, true);
        for register in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss]
        {
            *register = segment(DATA, 0x3, 0, false);
        }
        sregs.tr = kvm_segment { limit: 0x67, type_: 0xB, present: 1, ..Default::default() };
        sregs.gdt = kvm_dtable { base: GDT, limit: 4 * 8 - 1, ..Default::default() };
        sregs.idt = kvm_dtable::default();
        sregs.cr0 = 0x8005_0033;
        sregs.cr3 = PAGE_TABLES;
        // PAE alone: Linux switches on what it wants.
        sregs.cr4 = 0x20;
        sregs.efer = 0x500;
        self.set_state(
            &sregs,
            &kvm_regs { rip: entry, rsi: ZERO_PAGE, rflags: 2, ..Default::default() },
        )
    }
}
