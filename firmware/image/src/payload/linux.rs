//! The hand-over to Linux: a bzImage is put into memory, told what the firmware found and made, and
//! entered by the 64-bit boot protocol.
//!
//! The kernel, its initrd and its command line come from QEMU's fw_cfg (`opt/org.cxl-firmware/…`)
//! or from the modules of the PVH start-info; see `options` for the command line.
//!
//! **Invariant**: until the jump nothing that the machine was found with has changed but RAM that
//! the map calls free; the jump is the last thing that happens, or an error is.

mod map;
mod protocol;

use core::arch::asm;
use core::{fmt, slice};

use cxl_firmware::committed::Committed;
use cxl_firmware::handoff::TableLocation;
use cxl_firmware::policy::Policy;
use cxl_regs::acpi::header::AppendError;
use cxl_regs::acpi::rsdp::RsdpError;
use cxl_regs::acpi::rsdt::{self, Kind, RootError, RootTable};
use cxl_regs::acpi::srat::{self, Entry, MemoryAffinity, Srat};
use cxl_regs::acpi::{Header, NoRoom, Rsdp, TableError};
use heapless::Vec;
use zerocopy::{FromZeros, IntoBytes};

use crate::fw_cfg::{File, FwCfg, FwCfgError};
use crate::hw::Hardware;
use crate::paging::Pages;
use crate::start_info::StartInfo;
use crate::{IDENTITY, Room, say, tables};
use map::{Map, MapFull, Range};
use protocol::{BootParams, Kernel, KernelError, PROBE, Told};

/// The names of the three files in fw_cfg.
const KERNEL: &str = "opt/org.cxl-firmware/kernel";
const INITRD: &str = "opt/org.cxl-firmware/initrd";
const LINE: &str = "opt/org.cxl-firmware/cmdline";

/// Longest command line for the kernel; Linux's own limit on x86 is 2048.
const LINE_ROOM: usize = 4096;

/// Room for the tables that are made here, one behind the other: root pointer, root table, SRAT.
const RSDP_ROOM: usize = 64;
const XSDT_ROOM: usize = 0x1000 - RSDP_ROOM;
const SRAT_ROOM: usize = 0x7000;
/// Tables that a root table may list.
const MAX_TABLES: usize = 96;

/// The tables. They stay.
static mut ACPI: Pages<{ RSDP_ROOM + XSDT_ROOM + SRAT_ROOM }> =
    Pages([0; RSDP_ROOM + XSDT_ROOM + SRAT_ROOM]);
static mut PARAMS: Pages<4096> = Pages([0; 4096]);
static mut LINE_BUFFER: Pages<LINE_ROOM> = Pages([0; LINE_ROOM]);

unsafe extern "C" {
    /// The image's first byte, and the first behind its last: from the linker script.
    static image_start: u8;
    static image_end: u8;
}

/// What the rest of the image hands to this.
pub(crate) struct Next<'a> {
    pub(crate) info: &'a StartInfo,
    /// Privilege level.
    pub(crate) ring: u32,
    /// The image's command line, behind ` -- `.
    pub(crate) line: Option<&'a str>,
    /// What was asked of the library.
    pub(crate) policy: &'a Policy<'a>,
    /// The hand-off record.
    pub(crate) record: &'a [u8],
    /// The CEDT that was made.
    pub(crate) cedt: Option<TableLocation>,
    /// Memory of the image that has to stay as it is, and what the map calls it.
    pub(crate) kept: [(Range, u32); 2],
    /// Scratch for tables that are read.
    pub(crate) buffer: &'a mut [u8],
}

/// The hand-off record and the installed table, as ranges of the memory map.
pub(crate) fn kept(record: &[u8], table: &[u8]) -> [(Range, u32); 2] {
    let range = |bytes: &[u8]| Range::new(bytes.as_ptr() as u64, bytes.len() as u64);
    [(range(record), map::RESERVED), (range(table), map::ACPI)]
}

/// Why Linux was not started.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LinuxError {
    Ring(u32),
    NoKernel,
    NoMemoryMap,
    FwCfg(FwCfgError),
    Kernel(KernelError),
    LineTooLong(usize),
    Overlap { need: u64, at: u64 },
    NoRoom { what: &'static str, need: u64 },
    MapFull,
    Rsdp { address: u64, error: RsdpError },
    Table { address: u64, error: TableError },
    Root(RootError),
    TableRoom(NoRoom),
    TooManyTables,
}

impl fmt::Display for LinuxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(ring) => write!(
                f,
                "Linux needs privilege level 0 and this runs at {ring}: leave out the word ring3"
            ),
            Self::NoKernel => {
                write!(f, "no kernel: give one as fw_cfg file {KERNEL}, or as the first PVH module")
            }
            Self::NoMemoryMap => f.write_str("the PVH start-info has no memory map"),
            Self::FwCfg(error) => error.fmt(f),
            Self::Kernel(error) => error.fmt(f),
            Self::LineTooLong(length) => write!(
                f,
                "the kernel's command line has {length} bytes, there is room for {}",
                LINE_ROOM - 1
            ),
            Self::Overlap { need, at } => write!(
                f,
                "the kernel cannot be moved, and of the {need:#x} bytes it needs at {at:#x} some \
                 are not free RAM, or the image or its modules are there"
            ),
            Self::NoRoom { what, need } => {
                write!(f, "no {need:#x} bytes of free RAM for the {what}: give the machine more")
            }
            Self::MapFull => write!(
                f,
                "the memory map has more than {} ranges, which the parameters have no room for",
                protocol::MAX_E820
            ),
            Self::Rsdp { address, error } => write!(f, "RSDP at {address:#x}: {error}"),
            Self::Table { address, error } => write!(f, "table at {address:#x}: {error}"),
            Self::Root(error) => write!(f, "XSDT: {error}"),
            Self::TableRoom(error) => write!(f, "ACPI tables: {error}"),
            Self::TooManyTables => {
                write!(f, "the root table lists more than {MAX_TABLES} tables")
            }
        }
    }
}

impl From<FwCfgError> for LinuxError {
    fn from(error: FwCfgError) -> Self {
        Self::FwCfg(error)
    }
}

impl From<KernelError> for LinuxError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

impl From<MapFull> for LinuxError {
    fn from(MapFull: MapFull) -> Self {
        Self::MapFull
    }
}

/// Bytes that the VMM offers.
#[derive(Clone, Copy)]
enum Source {
    File(File),
    Memory(Range),
}

impl Source {
    fn size(self) -> u64 {
        match self {
            Self::File(file) => file.size.into(),
            Self::Memory(range) => range.end - range.start,
        }
    }

    /// Copies bytes from `offset` on to `to`, which is free RAM and mapped.
    fn read(
        self,
        device: Option<&mut FwCfg>,
        hw: &mut Hardware,
        offset: u32,
        to: &mut [u8],
    ) -> Result<(), LinuxError> {
        match (self, device) {
            (Self::File(file), Some(device)) => Ok(device.read(file, offset, to)?),
            (Self::File(_), None) => Err(LinuxError::NoKernel),
            (Self::Memory(range), _) => {
                let from = range.start + u64::from(offset);
                hw.map(from, to.len() as u64);
                // SAFETY: a module of the start-info, which is RAM, mapped now, and cut out of what
                // anything else is placed in.
                to.copy_from_slice(unsafe { crate::start_info::bytes(from, to.len()) });
                Ok(())
            }
        }
    }
}

/// Physical memory to write to.
///
/// # Safety
/// RAM that the map calls free and that nothing else has been placed in.
unsafe fn memory(hw: &mut Hardware, address: u64, size: u64) -> &'static mut [u8] {
    hw.map(address, size);
    // SAFETY: the caller's promise; it is mapped now, and x86-64 addresses fit.
    unsafe { slice::from_raw_parts_mut(address as *mut u8, size as usize) }
}

/// Enters Linux. Returns only if that cannot be done.
pub(crate) fn boot(hw: &mut Hardware, room: &Room, next: &mut Next<'_>) -> LinuxError {
    match prepare(hw, &room.committed, next) {
        // SAFETY: `prepare` has put the kernel where it says and filled the page.
        Ok((entry, params)) => unsafe { jump(entry, params) },
        Err(error) => error,
    }
}

/// Puts everything in its place; the entry and the address of the parameters.
fn prepare<const D: usize>(
    hw: &mut Hardware,
    committed: &Committed<D>,
    next: &mut Next<'_>,
) -> Result<(u64, u64), LinuxError> {
    if next.ring != 0 {
        return Err(LinuxError::Ring(next.ring));
    }
    let (params, line_buffer) = (&raw mut PARAMS, &raw mut LINE_BUFFER);
    // SAFETY: this function runs once, and nothing else names the static.
    let Pages(params) = unsafe { &mut *params };
    // SAFETY: as above.
    let Pages(line_buffer) = unsafe { &mut *line_buffer };

    let mut device = FwCfg::find(hw.clock());
    let (mut kernel, mut initrd, mut line) = (None, None, None);
    if let Some(device) = &mut device {
        kernel = device.file(KERNEL)?;
        initrd = device.file(INITRD)?;
        line = device.file(LINE)?;
    }
    let mut modules = next.info.modules.iter();
    let mut module =
        || modules.next().map(|module| (*module, Range::new(module.base, module.size)));
    let first = if kernel.is_some() { None } else { module() };
    let kernel = match (kernel, first) {
        (Some(file), _) => Source::File(file),
        (None, Some((_, range))) => Source::Memory(range),
        (None, None) => return Err(LinuxError::NoKernel),
    };
    let initrd = match initrd {
        Some(file) => Some(Source::File(file)),
        None => module().map(|(_, range)| Source::Memory(range)),
    };

    // The command line.
    let length = match (line, next.line, first) {
        (Some(file), ..) => {
            let length = file.size as usize;
            let to = line_buffer.get_mut(..length).filter(|_| length < LINE_ROOM);
            let to = to.ok_or(LinuxError::LineTooLong(length))?;
            Source::File(file).read(device.as_mut(), hw, 0, to)?;
            // A file made with an editor ends with a newline.
            to.trim_ascii_end().len()
        }
        (None, Some(line), _) => {
            let to = line_buffer.get_mut(..line.len()).filter(|_| line.len() < LINE_ROOM);
            let to = to.ok_or(LinuxError::LineTooLong(line.len()))?;
            to.copy_from_slice(line.as_bytes());
            line.len()
        }
        (None, None, Some((module, _))) if module.command_line != 0 => {
            hw.map(module.command_line, LINE_ROOM as u64);
            // SAFETY: a NUL-terminated string in RAM, mapped now, and RAM goes on behind it.
            let text = unsafe { crate::start_info::bytes(module.command_line, LINE_ROOM) };
            let length = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
            let to = line_buffer.get_mut(..length).filter(|_| length < LINE_ROOM);
            let to = to.ok_or(LinuxError::LineTooLong(length))?;
            to.copy_from_slice(text.get(..length).unwrap_or_default());
            length
        }
        _ => 0,
    };
    line_buffer.get_mut(length..).unwrap_or_default().fill(0);

    // The kernel, judged by its start.
    let mut probe = [0; PROBE];
    let part = PROBE.min(kernel.size() as usize);
    kernel.read(device.as_mut(), hw, 0, probe.get_mut(..part).unwrap_or_default())?;
    let judged = Kernel::read(probe.get(..part).unwrap_or_default(), kernel.size())?;

    // The map that was found, and what is taken in it until the jump.
    if next.info.memory.is_empty() {
        return Err(LinuxError::NoMemoryMap);
    }
    let given = next.info.memory.iter();
    let given = given.map(|entry| (Range::new(entry.base, entry.size), entry.kind));
    let mut map = Map::new(given)?;
    let image =
        Range { start: (&raw const image_start) as u64, end: (&raw const image_end) as u64 };
    let mut taken = Vec::<Range, 8>::new();
    // Real-mode memory holds what the VMM handed over, and the kernel wants some of it.
    let below_1m = Range::new(0, 1 << 20);
    let lists = [below_1m, image].into_iter();
    let lists = lists.chain(next.info.modules.iter().map(|one| Range::new(one.base, one.size)));
    for range in lists {
        taken.push(range).map_err(|_| LinuxError::MapFull)?;
    }

    // The kernel's place: the one it prefers, if that is free.
    let (need, at) = (judged.init_size(), judged.preferred());
    let place = if judged.relocatable() {
        let place = map.lowest(need, judged.alignment(), at, &taken);
        place.ok_or(LinuxError::NoRoom { what: "kernel", need })?
    } else {
        let place = map.lowest(need, 1, at, &taken).filter(|place| *place == at);
        place.ok_or(LinuxError::Overlap { need, at })?
    };
    taken.push(Range::new(place, need)).map_err(|_| LinuxError::MapFull)?;
    // SAFETY: free RAM by the map, and clear of everything that is taken.
    let code = unsafe { memory(hw, place, need) };
    let code = code.get_mut(..judged.code_size as usize).unwrap_or_default();
    kernel.read(device.as_mut(), hw, judged.code_at, code)?;

    // The initrd's: as high as it may be, out of the kernel's way. A module stays where it is if
    // the kernel can reach it.
    let initrd = match initrd {
        None => None,
        Some(Source::Memory(range)) if range.end <= judged.initrd_below() => {
            Some((range.start, range.end - range.start))
        }
        Some(source) => {
            let need = source.size();
            let below = judged.initrd_below().min(1 << 32);
            let place = map.highest(need, 4096, below, &taken);
            let place = place.ok_or(LinuxError::NoRoom { what: "initrd", need })?;
            // SAFETY: as above.
            let to = unsafe { memory(hw, place, need) };
            source.read(device.as_mut(), hw, 0, to)?;
            Some((place, need))
        }
    };

    // Tables of our own, and a map that says what stays and what was made.
    let (rsdp, whole) = acpi(hw, committed, next)?;
    map.set(whole, map::ACPI)?;
    for (range, kind) in next.kept {
        map.set(range, kind)?;
    }
    for range in committed.memory_map() {
        let span = Range::new(range.span.base().0, range.span.size());
        map.set(span, range.kind.e820())?;
    }
    let entries = map.entries();
    let params_at = params.as_ptr() as u64;
    let mut page = BootParams::new_zeroed();
    let line = line_buffer.as_ptr() as u64;
    let told = Told { line, line_length: length, initrd, rsdp, map: &entries };
    judged.fill(&mut page, &told)?;
    params.copy_from_slice(page.as_bytes());
    say(format_args!(
        "linux: {} bytes at {place:#x}, initrd of {} bytes, {} ranges of memory, RSDP at {rsdp:#x}",
        judged.code_size,
        initrd.map_or(0, |(_, size)| size),
        entries.len(),
    ));
    Ok((judged.entry(place), params_at))
}

/// A revision 2 RSDP with an XSDT that lists what the platform's root table lists, but our CEDT and
/// our SRAT. Nothing that was there is written to. Its address, and the memory that all of it takes.
fn acpi<const D: usize>(
    hw: &mut Hardware,
    committed: &Committed<D>,
    next: &mut Next<'_>,
) -> Result<(u64, Range), LinuxError> {
    let acpi = &raw mut ACPI;
    // SAFETY: called once, and nothing else names the static.
    let Pages(bytes) = unsafe { &mut *acpi };
    let whole = Range::new(bytes.as_ptr() as u64, bytes.len() as u64);
    let (rsdp_at, rest) = bytes.split_at_mut(RSDP_ROOM);
    let (xsdt_at, srat_at) = rest.split_at_mut(XSDT_ROOM);

    let address = next.info.rsdp;
    let mut found = [0; Rsdp::MAX_LEN];
    tables::read(hw, address, &mut found);
    let found = Rsdp::read(&found).map_err(|error| LinuxError::Rsdp { address, error })?;
    let (kind, root) = match found.xsdt.filter(|xsdt| *xsdt != 0) {
        Some(xsdt) => (Kind::Xsdt, xsdt),
        None => (Kind::Rsdt, found.rsdt.into()),
    };
    let list = table(hw, root, next.buffer)?;
    let list =
        RootTable::read(kind, list).map_err(|error| LinuxError::Table { address: root, error })?;
    let mut entries = Vec::<u64, MAX_TABLES>::new();
    let (mut cedt, mut srat) = (None, None);
    for (index, address) in list.addresses().enumerate() {
        entries.push(address).map_err(|_| LinuxError::TooManyTables)?;
        let mut signature = [0; 4];
        tables::read(hw, address, &mut signature);
        match &signature {
            b"CEDT" => cedt = Some(index),
            b"SRAT" => srat = Some(index),
            _ => {}
        }
    }
    if let Some(made) = next.cedt {
        match cedt.and_then(|index| entries.get_mut(index)) {
            Some(entry) => *entry = made.address,
            None => entries.push(made.address).map_err(|_| LinuxError::TooManyTables)?,
        }
    }
    // Without a table of the platform's there is none: one that has our ranges alone would leave
    // all other memory without a node, and Linux then disregards it.
    if let Some(entry) = srat.and_then(|index| entries.get_mut(index)) {
        let old = table(hw, *entry, srat_at)?.len();
        let bad = |error| LinuxError::Table { address: *entry, error };
        let mut added = Vec::<MemoryAffinity, D>::new();
        {
            let old = Srat::read(srat_at.get(..old).unwrap_or_default()).map_err(bad)?;
            for range in committed.affinities(first_free_domain(&old)) {
                // A range that the platform has described already keeps its domain.
                let known = old.entries().any(|entry| {
                    matches!(entry, Ok(Entry::Memory(known)) if known.span.overlaps(range.span))
                });
                if !known {
                    // As many as there are regions at most, and as much room.
                    let _ = added.push(range);
                }
            }
        }
        for range in &added {
            srat::append(range, srat_at).map_err(|error| match error {
                AppendError::Table(error) => bad(error),
                AppendError::NoRoom(error) => LinuxError::TableRoom(error),
            })?;
        }
        *entry = srat_at.as_ptr() as u64;
    }
    let xsdt = rsdt::write(Kind::Xsdt, IDENTITY, &entries, xsdt_at).map_err(LinuxError::Root)?;
    let xsdt = Some(xsdt.as_ptr() as u64);
    let rsdp = Rsdp { oem_id: found.oem_id, rsdt: found.rsdt, xsdt };
    let rsdp = rsdp.write(rsdp_at).map_err(LinuxError::TableRoom)?;
    Ok((rsdp.as_ptr() as u64, whole))
}

/// Copies the table at an address to the start of `buffer`, and returns exactly it.
fn table<'b>(
    hw: &mut Hardware,
    address: u64,
    buffer: &'b mut [u8],
) -> Result<&'b mut [u8], LinuxError> {
    let mut header = Header::new_zeroed();
    tables::read(hw, address, header.as_mut_bytes());
    let (need, have) = (header.length.get() as usize, buffer.len());
    let bytes = buffer.get_mut(..need).ok_or(LinuxError::TableRoom(NoRoom { need, have }))?;
    tables::read(hw, address, bytes);
    Ok(bytes)
}

/// A proximity domain above all that the table names, of memory, processors or initiators
/// (ACPI 6.5, sections 5.2.16.1, 5.2.16.3 and 5.2.16.6).
fn first_free_domain(srat: &Srat<'_>) -> u32 {
    let domain = |entry: Entry<'_>| match entry {
        Entry::Memory(memory) => Some(memory.domain),
        // A local APIC has its domain in two parts.
        Entry::Other { kind: 0, bytes } => {
            let [a, b, c] = *bytes.get(9..12)?.first_chunk()?;
            Some(u32::from_le_bytes([*bytes.get(2)?, a, b, c]))
        }
        Entry::Other { kind: 2 | 5, bytes } => {
            Some(u32::from_le_bytes(*bytes.get(4..8)?.first_chunk()?))
        }
        _ => None,
    };
    let named = srat.entries().filter_map(Result::ok).filter_map(domain);
    named.max().map_or(0, |highest| highest.wrapping_add(1))
}

/// What the 64-bit entry is promised: a flat code segment 0x10 and a flat data segment 0x18.
#[repr(C, align(16))]
struct Segments([u64; 4]);

static SEGMENTS: Segments = Segments([0, 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF]);

/// What `lgdt` reads.
#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Enters the kernel.
///
/// # Safety
/// `entry` is the 64-bit entry of a kernel in memory, `params` its page; both are identity mapped,
/// and this runs at privilege level 0.
unsafe fn jump(entry: u64, params: u64) -> ! {
    let limit = (size_of::<Segments>() - 1) as u16;
    let pointer = Pointer { limit, base: (&raw const SEGMENTS) as u64 };
    // SAFETY: the caller's promise; the segments are flat, as those in use are.
    unsafe {
        asm!(
            "cli",
            "cld",
            "lgdt [{pointer}]",
            "mov ds, {data:x}",
            "mov es, {data:x}",
            "mov ss, {data:x}",
            "xor {data:e}, {data:e}",
            "mov fs, {data:x}",
            "mov gs, {data:x}",
            "push 0x10",
            "push {entry}",
            "retfq",
            pointer = in(reg) &raw const pointer,
            data = in(reg) 0x18_u64,
            entry = in(reg) entry,
            in("rsi") params,
            options(noreturn)
        )
    }
}
