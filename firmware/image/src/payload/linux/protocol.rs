//! The Linux boot protocol for x86-64: the kernel file's setup header, and the page of parameters
//! that the kernel is entered with (Linux `Documentation/arch/x86/boot.rst` and `zero-page.rst`).
//!
//! **Invariant**: offsets are checked at compile time, and a [`Kernel`] has passed every check that
//! can be made before its bytes are moved.

use core::fmt;
use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The setup header: what the kernel's file says of itself, and what a boot loader tells it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct SetupHeader {
    pub(crate) setup_sectors: u8,
    root_flags: U16,
    /// Length of the protected-mode code, in 16-byte units.
    pub(crate) paragraphs: U32,
    ram_size: U16,
    video_mode: U16,
    root_device: U16,
    pub(crate) boot_flag: U16,
    /// A short jump over the header: its second byte says where the header ends.
    jump: u8,
    jump_offset: u8,
    pub(crate) magic: U32,
    pub(crate) version: U16,
    realmode_switch: U32,
    start_system: U16,
    kernel_version: U16,
    pub(crate) loader: u8,
    pub(crate) load_flags: u8,
    setup_move_size: U16,
    code32_start: U32,
    pub(crate) ramdisk_image: U32,
    pub(crate) ramdisk_size: U32,
    bootsect: U32,
    heap_end: U16,
    extended_loader: U16,
    pub(crate) command_line: U32,
    pub(crate) ramdisk_max: U32,
    pub(crate) alignment: U32,
    pub(crate) relocatable: u8,
    min_alignment: u8,
    pub(crate) xload_flags: U16,
    pub(crate) command_line_max: U32,
    subarchitecture: U32,
    subarchitecture_data: U64,
    payload_offset: U32,
    payload_length: U32,
    setup_data: U64,
    pub(crate) preferred: U64,
    pub(crate) init_size: U32,
    handover: U32,
    kernel_info: U32,
}

/// Where the setup header starts, in the file and in the page.
pub(crate) const HEADER_AT: usize = 0x1F1;

/// One range of the memory map.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(crate) struct E820Entry {
    pub(crate) base: U64,
    pub(crate) size: U64,
    pub(crate) kind: U32,
}

/// Ranges that the page has room for.
pub(crate) const MAX_E820: usize = 128;

/// The page of parameters.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct BootParams {
    before_rsdp: [u8; 0x70],
    /// Physical address of the RSDP.
    pub(crate) rsdp: U64,
    before_ramdisk: [u8; 0x48],
    pub(crate) ramdisk_image_high: U32,
    pub(crate) ramdisk_size_high: U32,
    pub(crate) command_line_high: U32,
    before_entries: [u8; 0x11C],
    pub(crate) e820_entries: u8,
    before_header: [u8; 8],
    pub(crate) header: SetupHeader,
    behind_header: [u8; 0x2D0 - HEADER_AT - size_of::<SetupHeader>()],
    pub(crate) e820: [E820Entry; MAX_E820],
    rest: [u8; 0x330],
}

const _: () = {
    assert!(HEADER_AT + offset_of!(SetupHeader, boot_flag) == 0x1FE);
    assert!(HEADER_AT + offset_of!(SetupHeader, magic) == 0x202);
    assert!(HEADER_AT + offset_of!(SetupHeader, version) == 0x206);
    assert!(HEADER_AT + offset_of!(SetupHeader, loader) == 0x210);
    assert!(HEADER_AT + offset_of!(SetupHeader, ramdisk_image) == 0x218);
    assert!(HEADER_AT + offset_of!(SetupHeader, command_line) == 0x228);
    assert!(HEADER_AT + offset_of!(SetupHeader, alignment) == 0x230);
    assert!(HEADER_AT + offset_of!(SetupHeader, xload_flags) == 0x236);
    assert!(HEADER_AT + offset_of!(SetupHeader, command_line_max) == 0x238);
    assert!(HEADER_AT + offset_of!(SetupHeader, preferred) == 0x258);
    assert!(HEADER_AT + offset_of!(SetupHeader, init_size) == 0x260);
    assert!(offset_of!(BootParams, rsdp) == 0x70);
    assert!(offset_of!(BootParams, ramdisk_image_high) == 0xC0);
    assert!(offset_of!(BootParams, ramdisk_size_high) == 0xC4);
    assert!(offset_of!(BootParams, command_line_high) == 0xC8);
    assert!(offset_of!(BootParams, e820_entries) == 0x1E8);
    assert!(offset_of!(BootParams, header) == HEADER_AT);
    assert!(offset_of!(BootParams, e820) == 0x2D0);
    assert!(size_of::<BootParams>() == 4096);
};

/// The least that has to be read of a file to judge it.
pub(crate) const PROBE: usize = 0x400;

const BOOT_FLAG: u16 = 0xAA55;
const MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
/// 2.12: the first with `xload_flags`, which say whether there is a 64-bit entry.
const LEAST_VERSION: u16 = 0x020C;
const XLF_KERNEL_64: u16 = 1;
const XLF_ABOVE_4G: u16 = 1 << 1;
/// The 64-bit entry, behind the start of the loaded code.
const ENTRY_64: u64 = 0x200;
/// "Loader unknown": nobody has given this one a number.
const LOADER: u8 = 0xFF;

/// Why a file is no kernel that can be booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KernelError {
    /// Too short to hold a setup header.
    TooShort { size: u64 },
    /// One of the two signatures is not there.
    Magic { offset: usize, expected: u32, found: u32 },
    /// Older than boot protocol 2.12.
    TooOld { version: u16 },
    /// No 64-bit entry: a 32-bit kernel.
    Not64Bit { flags: u16 },
    /// The file ends before the code that the header announces.
    CutOff { need: u64, size: u64 },
    /// A size or alignment that cannot be meant.
    Nonsense { field: &'static str, value: u64 },
    /// The command line is longer than this kernel takes.
    LineTooLong { length: usize, most: u32 },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooShort { size } => {
                write!(f, "the kernel has {size} bytes, too few for a setup header: give a bzImage")
            }
            Self::Magic { offset, expected, found } => write!(
                f,
                "the kernel's signature at {offset:#x} is {found:#x}, a bzImage has {expected:#x}"
            ),
            Self::TooOld { version } => write!(
                f,
                "the kernel speaks boot protocol {}.{:02}, at least {}.{:02} is needed",
                version >> 8,
                version & 0xFF,
                LEAST_VERSION >> 8,
                LEAST_VERSION & 0xFF
            ),
            Self::Not64Bit { flags } => write!(
                f,
                "the kernel has no 64-bit entry (xloadflags {flags:#x}): give one for x86-64"
            ),
            Self::CutOff { need, size } => write!(
                f,
                "the kernel's header announces {need} bytes, the file has {size}: it is cut off"
            ),
            Self::Nonsense { field, value } => {
                write!(f, "the kernel's {field} is {value:#x}, which cannot be meant")
            }
            Self::LineTooLong { length, most } => {
                write!(f, "the command line has {length} bytes, this kernel takes at most {most}")
            }
        }
    }
}

/// A kernel file that can be booted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    header: SetupHeader,
    /// Where the code starts in the file, and its length.
    pub(crate) code_at: u32,
    pub(crate) code_size: u64,
}

impl Kernel {
    /// Judges a file by its first [`PROBE`] bytes and its size.
    pub(crate) fn read(start: &[u8], size: u64) -> Result<Self, KernelError> {
        let short = KernelError::TooShort { size };
        let bytes = start.get(HEADER_AT..).ok_or(short)?;
        let (header, _) = SetupHeader::read_from_prefix(bytes).map_err(|_| short)?;
        if size < (HEADER_AT + size_of::<SetupHeader>()) as u64 {
            return Err(short);
        }
        let signatures = [
            (0x1FE, u32::from(BOOT_FLAG), u32::from(header.boot_flag.get())),
            (0x202, MAGIC, header.magic.get()),
        ];
        for (offset, expected, found) in signatures {
            if expected != found {
                return Err(KernelError::Magic { offset, expected, found });
            }
        }
        let version = header.version.get();
        if version < LEAST_VERSION {
            return Err(KernelError::TooOld { version });
        }
        let flags = header.xload_flags.get();
        if flags & XLF_KERNEL_64 == 0 {
            return Err(KernelError::Not64Bit { flags });
        }
        // "If the field contains 0, the real value is 4."
        let sectors = if header.setup_sectors == 0 { 4 } else { header.setup_sectors };
        let code_at = (u32::from(sectors) + 1) * 512;
        let need = u64::from(code_at) + u64::from(header.paragraphs.get()) * 16;
        // The last paragraph may be a part of one.
        if header.paragraphs.get() == 0 || size + 15 < need {
            return Err(KernelError::CutOff { need, size });
        }
        let kernel = Self { header, code_at, code_size: size - u64::from(code_at) };
        let (init_size, alignment) = (kernel.init_size(), kernel.alignment());
        if init_size < kernel.code_size {
            return Err(KernelError::Nonsense { field: "init_size", value: init_size });
        }
        if !alignment.is_power_of_two() {
            return Err(KernelError::Nonsense { field: "alignment", value: alignment });
        }
        if kernel.preferred().checked_add(init_size).is_none() {
            let value = kernel.preferred();
            return Err(KernelError::Nonsense { field: "preferred address", value });
        }
        Ok(kernel)
    }

    /// Where the kernel would like to run.
    pub(crate) fn preferred(&self) -> u64 {
        self.header.preferred.get()
    }

    /// Whether it runs elsewhere too.
    pub(crate) fn relocatable(&self) -> bool {
        self.header.relocatable != 0
    }

    /// What its place must be a multiple of.
    pub(crate) fn alignment(&self) -> u64 {
        u64::from(self.header.alignment.get())
    }

    /// Bytes from its place on that it uses before it reads the memory map.
    pub(crate) fn init_size(&self) -> u64 {
        u64::from(self.header.init_size.get())
    }

    /// The first address above all that an initrd may have.
    pub(crate) fn initrd_below(&self) -> u64 {
        if self.header.xload_flags.get() & XLF_ABOVE_4G != 0 {
            return u64::MAX;
        }
        u64::from(self.header.ramdisk_max.get()) + 1
    }

    /// Fills the page: everything in it that this loader does not set is zero, as the protocol
    /// asks.
    pub(crate) fn fill(&self, page: &mut BootParams, told: &Told<'_>) -> Result<(), KernelError> {
        let most = self.header.command_line_max.get();
        if told.line_length > most as usize {
            return Err(KernelError::LineTooLong { length: told.line_length, most });
        }
        page.as_mut_bytes().fill(0);
        page.header = self.header;
        page.header.loader = LOADER;
        let (low, high) = split(told.line);
        (page.header.command_line, page.command_line_high) = (low, high);
        let (base, size) = told.initrd.unwrap_or((0, 0));
        (page.header.ramdisk_image, page.ramdisk_image_high) = split(base);
        (page.header.ramdisk_size, page.ramdisk_size_high) = split(size);
        page.rsdp = told.rsdp.into();
        for (to, from) in page.e820.iter_mut().zip(told.map) {
            *to = *from;
        }
        page.e820_entries = told.map.len().min(MAX_E820) as u8;
        Ok(())
    }

    /// Where it is entered, once its code lies at `place`.
    pub(crate) fn entry(&self, place: u64) -> u64 {
        place + ENTRY_64
    }
}

fn split(value: u64) -> (U32, U32) {
    ((value as u32).into(), ((value >> 32) as u32).into())
}

/// What the kernel is told.
pub(crate) struct Told<'a> {
    /// Physical address of the command line, which ends with a NUL, and its length without that.
    pub(crate) line: u64,
    pub(crate) line_length: usize,
    /// Base and size.
    pub(crate) initrd: Option<(u64, u64)>,
    pub(crate) rsdp: u64,
    pub(crate) map: &'a [E820Entry],
}
