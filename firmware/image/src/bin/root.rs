//! What root can do to CXL from inside a Linux, as a program that needs no library there: the lock-down
//! attack, and words to whoever runs the machine.
//!
//! ```text
//! root attack mem      the attack, all of it through /dev/mem (the kernel wants iomem=relaxed)
//! root attack sysfs    configuration space through `config`, BARs through `resourceN`; host bridges,
//!                      which are no PCI functions, and BARs where they are moved to, through /dev/mem
//! root count N         the guest's own count is N: what the machine's owner has planned for it happens
//! root mark N          a place that is to be remembered
//! ```
//!
//! It judges nothing: every write is announced through the doorbell, and whoever watches the machine from
//! outside says what became of it. Exit code 0 says that all of it was done.
//!
//! **Invariant**: the attack is the image's; nothing is allocated, and every table has a size.

#![no_std]
#![no_main]

#[path = "../memory.rs"]
mod memory;

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::ptr;

use cxl_attack::{Event, Stores, Witness};
use cxl_firmware::acpi::Tables;
use cxl_firmware::discover::discover;
use cxl_firmware::mmio::{Clock, Mmio};
use cxl_firmware::platform::Ecam;
use cxl_image::Room;
use cxl_image::doorbell::{Call, Message, PORT};
use heapless::{String, Vec};
use zerocopy::IntoBytes;

// The stack as the kernel leaves it has the count of words on top, and the words above.
global_asm!(
    ".globl _start",
    "_start:",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    main = sym main,
);

/// System calls of x86-64 Linux by number.
mod number {
    pub(super) const READ: u64 = 0;
    pub(super) const WRITE: u64 = 1;
    pub(super) const OPEN: u64 = 2;
    pub(super) const CLOSE: u64 = 3;
    pub(super) const MMAP: u64 = 9;
    pub(super) const MUNMAP: u64 = 11;
    pub(super) const PREAD: u64 = 17;
    pub(super) const PWRITE: u64 = 18;
    pub(super) const IOPL: u64 = 172;
    pub(super) const GETDENTS: u64 = 217;
    pub(super) const CLOCK: u64 = 228;
    pub(super) const EXIT: u64 = 231;
}

/// A system call; what it gives back, or its error's number.
fn call(number: u64, [a, b, c, d, e, f]: [u64; 6]) -> Result<u64, u64> {
    let result: i64;
    // SAFETY: each caller passes pointers to memory of its own that is as long as it says; the kernel
    // changes no other, and `mmap` only where nothing is.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c,
             in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _,
             options(nostack));
    }
    if (-4095..0).contains(&result) { Err(result.unsigned_abs()) } else { Ok(result as u64) }
}

fn exit(code: u64) -> ! {
    loop {
        let _ = call(number::EXIT, [code, 0, 0, 0, 0, 0]);
    }
}

/// Standard error.
struct Complaints;

impl Write for Complaints {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let (at, length) = (text.as_ptr() as u64, text.len() as u64);
        call(number::WRITE, [2, at, length, 0, 0, 0]).map(|_| ()).map_err(|_| fmt::Error)
    }
}

/// Says why, and ends.
fn refuse(text: fmt::Arguments<'_>) -> ! {
    let _ = writeln!(Complaints, "root: {text}");
    exit(1)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Complaints, "root: {info}");
    exit(134)
}

/// An open file. It stays open: there are few, and the program ends.
#[derive(Clone, Copy)]
struct File(u64);

impl File {
    /// Opens a path; `writable` for both ways, past the caches.
    fn open(path: &str, writable: bool) -> Result<Self, u64> {
        const BOTH_WAYS: u64 = 2;
        const SYNC: u64 = 0o4_010_000;
        let mut name: String<96> = String::new();
        // A path that is too long is none that is there.
        if name.push_str(path).and_then(|()| name.push('\0')).is_err() {
            return Err(36);
        }
        let flags = if writable { BOTH_WAYS | SYNC } else { 0 };
        call(number::OPEN, [name.as_ptr() as u64, flags, 0, 0, 0, 0]).map(Self)
    }

    fn read_at(self, offset: u64, bytes: &mut [u8]) -> Result<usize, u64> {
        let (at, length) = (bytes.as_mut_ptr() as u64, bytes.len() as u64);
        call(number::PREAD, [self.0, at, length, offset, 0, 0]).map(|count| count as usize)
    }

    fn write_at(self, offset: u64, bytes: &[u8]) -> Result<usize, u64> {
        let (at, length) = (bytes.as_ptr() as u64, bytes.len() as u64);
        call(number::PWRITE, [self.0, at, length, offset, 0, 0]).map(|count| count as usize)
    }

    /// Everything in it, as much as has room.
    fn read_all(self, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let (at, length) = (rest.as_mut_ptr() as u64, rest.len() as u64);
            match call(number::READ, [self.0, at, length, 0, 0, 0]) {
                Ok(0) | Err(_) => break,
                Ok(count) => done += count as usize,
            }
        }
        done
    }

    fn close(self) {
        let _ = call(number::CLOSE, [self.0, 0, 0, 0, 0, 0]);
    }

    /// Maps a part of it for reading and writing, shared.
    fn map(self, offset: u64, length: u64) -> Result<*mut u8, u64> {
        const READ_WRITE: u64 = 3;
        const SHARED: u64 = 1;
        let arguments = [0, length, READ_WRITE, SHARED, self.0, offset];
        call(number::MMAP, arguments).map(|at| at as *mut u8)
    }
}

/// A page of its own, as a message has to lie in one.
#[repr(C, align(4096))]
struct Page([u8; 4096]);

static mut MESSAGE: Page = Page([0; 4096]);

/// The doorbell: a message's physical address, written to a port.
struct Doorbell {
    pages: File,
}

impl Doorbell {
    fn new() -> Self {
        if let Err(error) = call(number::IOPL, [3, 0, 0, 0, 0, 0]) {
            refuse(format_args!("iopl: error {error}; this is for root"));
        }
        match File::open("/proc/self/pagemap", false) {
            Ok(pages) => Self { pages },
            Err(error) => refuse(format_args!("/proc/self/pagemap: error {error}")),
        }
    }

    fn ring(&self, what: Call) {
        let page = &raw mut MESSAGE;
        let message: Message = what.encode();
        let bytes = message.as_bytes();
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: a message is shorter than its page, and nothing else names the static.
            unsafe { ptr::write_volatile((page as *mut u8).wrapping_add(index), *byte) };
        }
        // The page is there since it was written; where, Linux may change at any time.
        let mut entry = [0; 8];
        let read = self.pages.read_at(page as u64 / 4096 * 8, &mut entry);
        let frame = u64::from_le_bytes(entry) & ((1 << 55) - 1);
        let Some(address) = u32::try_from(frame << 12).ok().filter(|at| read.is_ok() && *at != 0)
        else {
            refuse(format_args!(
                "the doorbell takes an address below 4 GiB, found {:#x}",
                frame << 12
            ));
        };
        // SAFETY: nothing but the doorbell listens at this port; `iopl` has opened it.
        unsafe { asm!("out dx, eax", in("dx") PORT, in("eax") address, options(nostack)) }
    }
}

/// Pages of /dev/mem that are mapped at a time.
const PAGES: usize = 512;
/// BARs and functions that are reached through sysfs.
const FUNCTIONS: usize = 64;

/// A BAR that is mapped.
#[derive(Clone, Copy)]
struct Mapped {
    first: u64,
    bytes: u64,
    at: *mut u8,
}

/// The machine's registers.
struct Hardware {
    memory: File,
    pages: [(u64, *mut u8); PAGES],
    /// Where configuration space is, if it is reached through files.
    config: Vec<Ecam, 8>,
    files: Vec<(u64, File), FUNCTIONS>,
    bars: Vec<Mapped, FUNCTIONS>,
    doorbell: Doorbell,
}

/// Where an address is.
enum At {
    Memory(*mut u8),
    File(File, u64),
    Nowhere,
}

impl Hardware {
    fn new() -> Self {
        let memory = match File::open("/dev/mem", true) {
            Ok(file) => file,
            Err(error) => refuse(format_args!("/dev/mem: error {error}; this is for root")),
        };
        let pages = [(u64::MAX, ptr::null_mut()); PAGES];
        let (config, files, bars) = (Vec::new(), Vec::new(), Vec::new());
        Self { memory, pages, config, files, bars, doorbell: Doorbell::new() }
    }

    /// A page of physical memory.
    fn page(&mut self, page: u64) -> *mut u8 {
        let Some(slot) = self.pages.get_mut(page as usize % PAGES) else { return ptr::null_mut() };
        if slot.0 != page {
            if !slot.1.is_null() {
                let _ = call(number::MUNMAP, [slot.1 as u64, 4096, 0, 0, 0, 0]);
            }
            *slot = match self.memory.map(page << 12, 4096) {
                Ok(at) => (page, at),
                Err(error) => refuse(format_args!(
                    "/dev/mem at {:#x}: error {error}; a kernel that keeps registers from it wants \
                     iomem=relaxed on its command line",
                    page << 12
                )),
            };
        }
        slot.1
    }

    fn at(&mut self, address: u64) -> At {
        let ecam = self.config.iter().find_map(|ecam| {
            let offset = address.checked_sub(ecam.base.0)?;
            let buses = u64::from(ecam.first_bus)..=u64::from(ecam.last_bus);
            let bus = offset >> 20;
            buses.contains(&bus).then_some((ecam.segment, bus, offset))
        });
        if let Some((segment, bus, offset)) = ecam {
            let function = u64::from(segment) << 16 | bus << 8 | offset >> 12 & 0xFF;
            return match self.function(function) {
                Some(file) => At::File(file, offset & 0xFFF),
                None => At::Nowhere,
            };
        }
        let bar = self
            .bars
            .iter()
            .find(|bar| address.checked_sub(bar.first).is_some_and(|offset| offset < bar.bytes));
        if let Some(bar) = bar {
            return At::Memory(bar.at.wrapping_add((address - bar.first) as usize));
        }
        At::Memory(self.page(address >> 12).wrapping_add((address & 0xFFF) as usize))
    }

    /// The `config` of a function; none of one that Linux does not have.
    fn function(&mut self, function: u64) -> Option<File> {
        if let Some((_, file)) = self.files.iter().find(|(known, _)| *known == function) {
            return Some(*file);
        }
        let mut path: String<96> = String::new();
        let [segment, bus] = [function >> 16, function >> 8 & 0xFF];
        let [slot, number] = [function >> 3 & 0x1F, function & 7];
        let name =
            format_args!("/sys/bus/pci/devices/{segment:04x}:{bus:02x}:{slot:02x}.{number}/config");
        path.write_fmt(name).ok()?;
        let file = File::open(&path, true).ok()?;
        if self.files.push((function, file)).is_err() {
            refuse(format_args!("more than {FUNCTIONS} functions"));
        }
        Some(file)
    }

    /// From now on functions are reached through files, and their BARs too.
    fn through_files(&mut self, ecam: &[Ecam]) {
        self.config = ecam.iter().take(8).copied().collect();
        let folder = match File::open("/sys/bus/pci/devices", false) {
            Ok(folder) => folder,
            Err(error) => refuse(format_args!("/sys/bus/pci/devices: error {error}")),
        };
        let mut entries = [0; 4096];
        loop {
            let (at, length) = (entries.as_mut_ptr() as u64, entries.len() as u64);
            let Ok(count) = call(number::GETDENTS, [folder.0, at, length, 0, 0, 0]) else { break };
            if count == 0 {
                break;
            }
            // Each entry: number, offset, its own length at 16, a type, the name at 19.
            let mut rest = entries.get(..count as usize).unwrap_or_default();
            while let Some(length) = rest.get(16..18).and_then(|bytes| bytes.try_into().ok()) {
                let length = usize::from(u16::from_le_bytes(length));
                let name = rest.get(19..length).unwrap_or_default();
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                self.bars_of(str::from_utf8(name).unwrap_or_default());
                rest = rest.get(length.max(1)..).unwrap_or_default();
            }
        }
    }

    fn bars_of(&mut self, name: &str) {
        let mut path: String<96> = String::new();
        if name.starts_with('.') || write!(path, "/sys/bus/pci/devices/{name}/resource").is_err() {
            return;
        }
        let Ok(file) = File::open(&path, false) else { return };
        let mut text = [0; 2048];
        let length = file.read_all(&mut text);
        file.close();
        let text = str::from_utf8(text.get(..length).unwrap_or_default()).unwrap_or_default();
        // A line each: first, last, flags.
        for (index, line) in text.lines().take(6).enumerate() {
            let mut numbers = line
                .split(' ')
                .map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap_or(0));
            let (first, last) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            let mut path: String<96> = String::new();
            if last <= first || write!(path, "/sys/bus/pci/devices/{name}/resource{index}").is_err()
            {
                continue;
            }
            let bytes = last - first + 1;
            // What Linux does not lend is reached through /dev/mem.
            let Ok(at) = File::open(&path, true).and_then(|file| file.map(0, bytes)) else {
                continue;
            };
            if self.bars.push(Mapped { first, bytes, at }).is_err() {
                refuse(format_args!("more than {FUNCTIONS} BARs"));
            }
        }
    }
}

/// One store with operands.
macro_rules! store {
    ($text:literal, $($operand:tt)*) => {
        // SAFETY: a store to registers that are mapped; no Rust object lives there. What a store does to
        // the machine is what this program is for.
        unsafe { asm!($text, $($operand)*, options(nostack, preserves_flags)) }
    };
}

impl Mmio for Hardware {
    fn read(&mut self, address: u64) -> u32 {
        match self.at(address) {
            // SAFETY: an aligned dword of registers, mapped just before.
            At::Memory(at) => unsafe { ptr::read_volatile(at.cast::<u32>()) },
            At::File(file, offset) => {
                let mut bytes = [0xFF; 4];
                match file.read_at(offset, &mut bytes) {
                    Ok(4) => u32::from_le_bytes(bytes),
                    _ => u32::MAX,
                }
            }
            At::Nowhere => u32::MAX,
        }
    }

    fn write(&mut self, address: u64, value: u32) {
        self.store(address, 4, value.into());
    }

    fn write_qword(&mut self, address: u64, value: u64) {
        self.store(address, 8, value);
    }
}

impl Stores for Hardware {
    fn store(&mut self, address: u64, bytes: u8, value: u64) -> bool {
        let low = value as u32;
        match self.at(address) {
            At::Memory(at) if (address & 0xFFF) + u64::from(bytes) <= 4096 => match bytes {
                1 => store!("mov byte ptr [{0}], {1}", in(reg) at, in(reg_byte) value as u8),
                2 => store!("mov word ptr [{0}], {1:x}", in(reg) at, in(reg) value as u16),
                4 => store!("mov dword ptr [{0}], {1:e}", in(reg) at, in(reg) low),
                8 => store!("mov qword ptr [{0}], {1}", in(reg) at, in(reg) value),
                _ => return false,
            },
            At::File(file, offset) => {
                // What is not aligned Linux takes apart; whoever watches sees each part.
                let value = value.to_le_bytes();
                let _ = file.write_at(offset, value.get(..bytes.into()).unwrap_or_default());
            }
            At::Memory(_) | At::Nowhere => return false,
        }
        true
    }
}

impl Witness for Hardware {
    fn hear(&mut self, event: Event) {
        self.doorbell.ring(Call::Attack(event));
    }
}

/// Linux's own clock.
struct Monotonic;

impl Clock for Monotonic {
    fn microseconds(&mut self) -> u64 {
        let mut time = [0u64; 2];
        let _ = call(number::CLOCK, [1, time.as_mut_ptr() as u64, 0, 0, 0, 0]);
        time[0].wrapping_mul(1_000_000).wrapping_add(time[1] / 1000)
    }
}

static mut ROOM: Room = Room::new();
static mut TABLES: [Page; 9] = [const { Page([0; 4096]) }; 9];

fn table<'b>(name: &str, bytes: &'b mut [u8]) -> &'b [u8] {
    match File::open(name, false) {
        Ok(file) => {
            let length = file.read_all(bytes);
            file.close();
            bytes.get(..length).unwrap_or_default()
        }
        Err(error) => refuse(format_args!("{name}: error {error}")),
    }
}

/// Attacks everything that is found.
fn attack(sysfs: bool) {
    let (tables, room) = (&raw mut TABLES, &raw mut ROOM);
    // SAFETY: the program has one thread, which comes here once; nothing else names the static.
    let tables = unsafe { &mut *tables };
    // SAFETY: as above.
    let room = unsafe { &mut *room };
    let [Page(first), rest @ ..] = tables;
    let mcfg = table("/sys/firmware/acpi/tables/MCFG", first);
    // SAFETY: pages of bytes lie one behind the other.
    let second = unsafe {
        core::slice::from_raw_parts_mut(rest.as_mut_ptr().cast::<u8>(), size_of_val(rest))
    };
    let cedt = table("/sys/firmware/acpi/tables/CEDT", second);
    let bits = core::arch::x86_64::__cpuid(0x8000_0008).eax as u8;
    let found = match Tables::<32, 64>::from_acpi(mcfg, cedt, bits, &[]) {
        Ok(found) => found,
        Err(error) => refuse(format_args!("platform: {error}")),
    };
    let platform = found.platform();
    let (mut hw, mut clock) = (Hardware::new(), Monotonic);
    if sysfs {
        hw.through_files(platform.ecam);
    }
    if let Err(error) = discover(&mut hw, &mut clock, &platform, &mut room.topology) {
        refuse(format_args!("discover: {error}"));
    }
    let tree = room.topology.tree();
    cxl_attack::attack(&mut hw, &mut clock, platform.ecam, tree);
}

/// What `CStr` is made with.
///
/// # Safety
/// As C's: a text that ends with a zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let rest: usize;
    // SAFETY: the scan stops at the zero that the caller promises; the direction flag is clear by the
    // ABI.
    unsafe {
        asm!("repne scasb", in("al") 0u8, inout("rcx") usize::MAX => rest,
             inout("rdi") text => _, options(readonly, nostack));
    }
    usize::MAX - rest - 1
}

/// The words of the command line.
fn words(stack: *const u64) -> Vec<&'static str, 4> {
    let mut words = Vec::new();
    // SAFETY: the kernel puts the count there, as many pointers to texts that end with a zero, and
    // leaves them alone.
    let count = unsafe { *stack };
    for index in 1..=count.min(4) as usize {
        let at = stack.wrapping_add(index);
        // SAFETY: as above.
        let text = unsafe { *at } as *const core::ffi::c_char;
        // SAFETY: as above.
        let text = unsafe { core::ffi::CStr::from_ptr(text) };
        let _ = words.push(text.to_str().unwrap_or_default());
    }
    words
}

extern "C" fn main(stack: *const u64) -> ! {
    let words = words(stack);
    let number = |word: &str| match word.parse() {
        Ok(number) => number,
        Err(_) => refuse(format_args!("expected a number, found \"{word}\"")),
    };
    match words.get(1..).unwrap_or_default() {
        ["attack", "mem"] => attack(false),
        ["attack", "sysfs"] => attack(true),
        ["count", count] => Doorbell::new().ring(Call::Count { value: number(count) }),
        ["mark", id] => Doorbell::new().ring(Call::Mark { id: number(id) }),
        _ => refuse(format_args!("expected attack mem, attack sysfs, count N or mark N")),
    }
    exit(0)
}
