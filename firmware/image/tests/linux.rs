//! The pure half of the image's hand-over to Linux: which kernel files are taken, what the page of
//! parameters says, and where things go in memory.
//!
//! **Invariant**: offsets are typed by hand from the boot protocol, and read from bytes.

#[path = "../src/payload/linux/map.rs"]
#[allow(dead_code, reason = "the image uses the rest")]
mod map;
#[path = "../src/payload/linux/protocol.rs"]
#[allow(dead_code, reason = "the image uses the rest")]
mod protocol;

use map::{ACPI, Map, MapFull, RAM, RESERVED, Range};
use protocol::{BootParams, E820Entry, Kernel, KernelError, MAX_E820, PROBE, Told};
use zerocopy::{FromZeros, IntoBytes};

/// A bzImage's start as a 6.12 kernel has it: 2.15, 39 sectors, 16 MiB preferred, 56 MiB needed.
fn header() -> Vec<u8> {
    let mut bytes = vec![0xA5; PROBE];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0x1F1, &[39]);
    put(0x1F4, &0x1000_u32.to_le_bytes());
    put(0x1FE, &[0x55, 0xAA]);
    put(0x202, b"HdrS");
    put(0x206, &[0x0F, 0x02]);
    put(0x22C, &0x7FFF_FFFF_u32.to_le_bytes());
    put(0x230, &0x20_0000_u32.to_le_bytes());
    put(0x234, &[1]);
    put(0x236, &[0x7F, 0]);
    put(0x238, &2047_u32.to_le_bytes());
    put(0x258, &0x100_0000_u64.to_le_bytes());
    put(0x260, &0x380_0000_u32.to_le_bytes());
    bytes
}

/// 40 sectors of setup and 64 KiB of code.
const SIZE: u64 = 40 * 512 + 0x1_0000;

fn changed(at: usize, value: &[u8]) -> Result<(), KernelError> {
    let mut bytes = header();
    bytes[at..at + value.len()].copy_from_slice(value);
    Kernel::read(&bytes, SIZE).map(|_| ())
}

#[test]
fn a_kernel_is_read_as_the_protocol_has_it() {
    let kernel = Kernel::read(&header(), SIZE).expect("a kernel");
    assert_eq!((kernel.code_at, kernel.code_size), (20480, 0x1_0000));
    assert_eq!((kernel.preferred(), kernel.init_size()), (0x100_0000, 0x380_0000));
    assert_eq!((kernel.alignment(), kernel.relocatable()), (0x20_0000, true));
    assert_eq!(kernel.initrd_below(), u64::MAX, "it says that it takes one above 4 GiB");
    assert_eq!(kernel.entry(0x140_0000), 0x140_0200);
}

#[test]
fn what_cannot_be_booted_is_refused_by_name() {
    let magic = |offset, expected, found| Err(KernelError::Magic { offset, expected, found });
    for (at, value, want) in [
        (0x1FE, &[0x55, 0xAB][..], magic(0x1FE, 0xAA55, 0xAB55)),
        (0x202, b"\x7fELF", magic(0x202, 0x5372_6448, 0x464C_457F)),
        (0x206, &[0x0B, 0x02], Err(KernelError::TooOld { version: 0x020B })),
        (0x236, &[0x7E, 0], Err(KernelError::Not64Bit { flags: 0x7E })),
        (0x1F4, &[1, 0x10, 0, 0], Err(KernelError::CutOff { need: SIZE + 16, size: SIZE })),
        (0x1F4, &[0, 0, 0, 0], Err(KernelError::CutOff { need: 20480, size: SIZE })),
        (0x260, &[0; 4], Err(KernelError::Nonsense { field: "init_size", value: 0 })),
        (
            0x230,
            &[0, 0, 0x30, 0],
            Err(KernelError::Nonsense { field: "alignment", value: 0x30_0000 }),
        ),
        (0x230, &[0; 4], Err(KernelError::Nonsense { field: "alignment", value: 0 })),
        (
            0x258,
            &[0xFF; 8],
            Err(KernelError::Nonsense { field: "preferred address", value: u64::MAX }),
        ),
    ] {
        assert_eq!(changed(at, value), want, "{at:#x}");
    }
    let short = |size: usize| Kernel::read(&header()[..size], size as u64).map(|_| ());
    for size in [0, 0x1F0, 0x26B] {
        assert_eq!(short(size), Err(KernelError::TooShort { size: size as u64 }));
    }
    // "If the field contains 0, the real value is 4"; the last paragraph may be a part of one.
    let mut bytes = header();
    bytes[0x1F1] = 0;
    let kernel = Kernel::read(&bytes, 5 * 512 + 0xFFF1).expect("a kernel");
    assert_eq!((kernel.code_at, kernel.code_size), (2560, 0xFFF1));
}

#[test]
fn the_page_says_what_the_kernel_is_told_and_nothing_else() {
    let kernel = Kernel::read(&header(), SIZE).expect("a kernel");
    let mut page = BootParams::new_zeroed();
    page.as_mut_bytes().fill(0xA5);
    let entry = |base: u64, size: u64, kind: u32| E820Entry {
        base: base.into(),
        size: size.into(),
        kind: kind.into(),
    };
    let map = [entry(0, 0x9_FC00, 1), entry(0x3_D000_0000, 0x1000_0000, 0xEFFF_FFFF)];
    let told = Told {
        line: 0x2_0000_1000,
        line_length: 2047,
        initrd: Some((0x1_3000_0000, 0x1234)),
        rsdp: 0x129_4000,
        map: &map,
    };
    assert_eq!(kernel.fill(&mut page, &told), Ok(()));
    let bytes = page.as_bytes();
    let dword = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
    let qword = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
    assert_eq!(qword(0x70), 0x129_4000, "acpi_rsdp_addr");
    assert_eq!((dword(0x218), dword(0xC0)), (0x3000_0000, 1), "ramdisk_image");
    assert_eq!((dword(0x21C), dword(0xC4)), (0x1234, 0), "ramdisk_size");
    assert_eq!((dword(0x228), dword(0xC8)), (0x1000, 2), "cmd_line_ptr");
    assert_eq!(bytes[0x210], 0xFF, "type_of_loader");
    assert_eq!(bytes[0x1E8], 2, "e820_entries");
    assert_eq!((qword(0x2D0), qword(0x2D8), dword(0x2E0)), (0, 0x9_FC00, 1));
    assert_eq!((qword(0x2E4), qword(0x2EC)), (0x3_D000_0000, 0x1000_0000));
    assert_eq!(dword(0x2F4), 0xEFFF_FFFF);
    assert_eq!(dword(0x202), 0x5372_6448, "the header is the kernel's own");
    // Nothing of what was there: Linux takes anything that is not zero for a value.
    let told = [0x70..0x78, 0xC0..0xCC, 0x1E8..0x1E9, 0x1F1..0x26C, 0x2D0..0x2F8];
    let silent = (0..4096).filter(|at| !told.iter().any(|range| range.contains(at)));
    for at in silent {
        assert_eq!(bytes[at], 0, "{at:#x}");
    }

    let long = Told { line: 0, line_length: 2048, initrd: None, rsdp: 0, map: &[] };
    let most = 2047;
    assert_eq!(kernel.fill(&mut page, &long), Err(KernelError::LineTooLong { length: 2048, most }));
}

/// A range of a map: first address, first behind, kind.
type Entry = (u64, u64, u32);

fn map(given: &[Entry]) -> Map {
    let given = given.iter().map(|&(start, end, kind)| (Range { start, end }, kind));
    Map::new(given).unwrap_or_else(|MapFull| panic!("it has room"))
}

fn list(map: &Map) -> Vec<Entry> {
    let entry = |entry: &E820Entry| {
        (entry.base.get(), entry.base.get() + entry.size.get(), entry.kind.get())
    };
    map.entries().iter().map(entry).collect()
}

#[test]
fn a_range_is_set_over_whatever_was_there() {
    let cases: [((u64, u64), &[Entry]); 8] = [
        ((20, 30), &[(10, 20, RAM), (20, 30, ACPI), (30, 50, RAM), (60, 90, RAM)]),
        ((10, 50), &[(10, 50, ACPI), (60, 90, RAM)]),
        ((0, 100), &[(0, 100, ACPI)]),
        ((40, 70), &[(10, 40, RAM), (40, 70, ACPI), (70, 90, RAM)]),
        ((50, 60), &[(10, 50, RAM), (50, 60, ACPI), (60, 90, RAM)]),
        ((95, 99), &[(10, 50, RAM), (60, 90, RAM), (95, 99, ACPI)]),
        ((0, 10), &[(0, 10, ACPI), (10, 50, RAM), (60, 90, RAM)]),
        ((30, 30), &[(10, 50, RAM), (60, 90, RAM)]),
    ];
    for (range, want) in cases {
        let mut map = map(&[(60, 90, RAM), (10, 50, RAM)]);
        assert_eq!(map.set(Range { start: range.0, end: range.1 }, ACPI), Ok(()));
        assert_eq!(list(&map), want, "{range:?}");
    }
    // Whatever comes first: RAM is never laid over something else.
    let both = map(&[(20, 30, RESERVED), (0, 100, RAM)]);
    assert_eq!(list(&both), [(0, 20, RAM), (20, 30, RESERVED), (30, 100, RAM)]);
}

#[test]
fn a_map_that_has_no_room_says_so() {
    let many = (0..MAX_E820 as u64).map(|n| (Range { start: n * 10, end: n * 10 + 5 }, RAM));
    let mut map = Map::new(many.clone()).unwrap_or_else(|MapFull| panic!("it just fits"));
    assert_eq!(map.set(Range { start: 1, end: 2 }, ACPI), Err(MapFull));
    assert_eq!(map.set(Range { start: 0, end: 5 }, ACPI), Ok(()));
    let one_more = many.chain([(Range { start: 9_000_000, end: 9_000_001 }, RESERVED)]);
    assert_eq!(Map::new(one_more).map(|_| ()), Err(MapFull));
}

#[test]
fn places_are_ram_and_clear_of_what_is_taken() {
    let map = map(&[(0, 0x1000, RAM), (0x1000, 0x2000, RESERVED), (0x2000, 0x9000, RAM)]);
    let taken = [Range { start: 0x2800, end: 0x3010 }, Range { start: 0x3F00, end: 0x4001 }];
    for (size, alignment, from, want) in [
        (0x800, 0x10, 0, Some(0)),
        (0x1000, 0x1000, 0, Some(0)),
        (0x1001, 0x10, 0, Some(0x4010)),
        (0x800, 0x10, 1, Some(0x10)),
        (0x800, 0x1000, 0x1000, Some(0x2000)),
        (0xF00, 0x10, 0x2000, Some(0x4010)),
        (0xEF0, 0x10, 0x2000, Some(0x3010)),
        (0x4FF0, 0x10, 0, Some(0x4010)),
        (0x4FF1, 0x10, 0, None),
        (1, 0x1_0000, 1, None),
        (u64::MAX, 1, 0, None),
        (1, 0x1000, u64::MAX, None),
    ] {
        assert_eq!(map.lowest(size, alignment, from, &taken), want, "{size:#x} from {from:#x}");
    }
    for (size, below, want) in [
        (0x800, u64::MAX, Some(0x8800)),
        (0x4FFF, u64::MAX, Some(0x4001)),
        (0x5000, u64::MAX, None),
        (0x800, 0x4800, Some(0x3700)),
        (0x801, 0x3800, Some(0x7FF)),
        (0x100, 0x2000, Some(0xF00)),
        (0x100, 0x100, Some(0)),
        (0x100, 0xFF, None),
    ] {
        assert_eq!(map.highest(size, 1, below, &taken), want, "{size:#x} below {below:#x}");
    }
}
