//! What C gets wrong and a function can see: null pointers, memory that is not aligned or too short,
//! structs of other versions, values that mean nothing, calls out of order and out of callbacks. Each
//! is a status, and nothing is written outside of what C gave.
//!
//! **Invariant**: needs no machine: nothing answers any address here.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "calls as C makes them")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "calls as C makes them")]

use std::alloc::{Layout, alloc_zeroed};
use std::ffi::{CStr, c_char, c_void};
use std::mem::zeroed;
use std::ptr::{self, null, null_mut};

use cxl_firmware_c::*;

unsafe extern "C" fn nothing(_: *mut c_void, _: u64) -> u32 {
    u32::MAX
}

unsafe extern "C" fn swallow(_: *mut c_void, _: u64, _: u32) {}

unsafe extern "C" fn now(_: *mut c_void) -> u64 {
    0
}

/// A struct of C as a caller clears it.
fn cleared<T>() -> T {
    // SAFETY: called for structs of the header alone, of which zeroes are a value: numbers, pointers
    // and callbacks that may be null.
    unsafe { zeroed() }
}

fn hardware() -> cxl_hardware {
    cxl_hardware {
        size: size_of::<cxl_hardware>() as u32,
        read32: Some(nothing),
        write32: Some(swallow),
        microseconds: Some(now),
        ..cleared()
    }
}

fn limits() -> cxl_limits {
    let size = size_of::<cxl_limits>() as u32;
    cxl_limits { size, bridges: 2, devices: 2, ..cleared() }
}

fn platform() -> cxl_platform {
    let size = size_of::<cxl_platform>() as u32;
    cxl_platform { size, address_bits: 46, ..cleared() }
}

fn policy() -> cxl_policy {
    cxl_policy { size: size_of::<cxl_policy>() as u32, ..cleared() }
}

fn window() -> cxl_window {
    cxl_window {
        base: 0x10_0000_0000,
        size: 1 << 30,
        ways: 1,
        granularity: 256,
        restrictions: CXL_WINDOW_HOST_ONLY | CXL_WINDOW_VOLATILE,
        target_count: 1,
        ..cleared()
    }
}

/// Memory for a workspace, with bytes around it that nobody may touch.
struct Memory {
    all: *mut u8,
    size: usize,
}

const AROUND: usize = 64;

impl Memory {
    fn new(size: usize) -> Self {
        let layout = Layout::from_size_align(size + 2 * AROUND, CXL_WORKSPACE_ALIGN).unwrap();
        // SAFETY: the layout has a size, which is not 0.
        let all = unsafe { alloc_zeroed(layout) };
        unsafe { all.write_bytes(0xA5, size + 2 * AROUND) };
        Self { all, size }
    }

    fn start(&self) -> *mut c_void {
        self.all.wrapping_add(AROUND).cast()
    }

    fn is_whole(&self) -> bool {
        let before = unsafe { std::slice::from_raw_parts(self.all, AROUND) };
        let behind = self.all.wrapping_add(AROUND + self.size);
        let behind = unsafe { std::slice::from_raw_parts(behind, AROUND) };
        before.iter().chain(behind).all(|byte| *byte == 0xA5)
    }
}

fn workspace() -> (*mut cxl_workspace, Memory) {
    let memory = Memory::new(unsafe { cxl_workspace_size(&limits()) });
    let mut work = null_mut();
    let status = unsafe { cxl_workspace_init(memory.start(), memory.size, &limits(), &mut work) };
    assert_eq!(status, cxl_status::Ok);
    (work, memory)
}

fn last(work: *mut cxl_workspace) -> cxl_error {
    let mut error = cxl_error::default();
    assert_eq!(unsafe { cxl_last_error(work, &mut error) }, cxl_status::Ok);
    error
}

#[test]
fn memory_for_a_workspace_is_as_large_as_asked_for_and_nothing_beside_it_is_touched() {
    let need = unsafe { cxl_workspace_size(&limits()) };
    assert!(need > 1000 && need % CXL_WORKSPACE_ALIGN == 0, "{need}");
    let memory = Memory::new(need);
    let mut work = ptr::dangling_mut();
    let mut init = |at: *mut c_void, size, limits: *const cxl_limits| {
        let status = unsafe { cxl_workspace_init(at, size, limits, &mut work) };
        assert_eq!(status == cxl_status::Ok, !work.is_null(), "{status:?}");
        status
    };
    assert_eq!(init(memory.start(), need - 1, &limits()), cxl_status::Short);
    assert_eq!(init(memory.start().wrapping_byte_add(8), need, &limits()), cxl_status::Unaligned);
    assert_eq!(init(null_mut(), need, &limits()), cxl_status::Null);
    assert_eq!(init(memory.start(), need, null()), cxl_status::Null);
    let many = cxl_limits { devices: 65_536, ..limits() };
    assert_eq!(init(memory.start(), need, &many), cxl_status::Argument);
    assert_eq!(unsafe { cxl_workspace_size(&many) }, 0);
    assert_eq!(unsafe { cxl_workspace_size(null()) }, 0);
    assert_eq!(init(memory.start(), need, &limits()), cxl_status::Ok);
    let none = unsafe { cxl_workspace_init(memory.start(), need, &limits(), null_mut()) };
    assert_eq!(none, cxl_status::Null);
    assert!(memory.is_whole());
    // It grows with each of them.
    for larger in [
        cxl_limits { bridges: 3, ..limits() },
        cxl_limits { devices: 3, ..limits() },
        cxl_limits { ports: 40, ..limits() },
        cxl_limits { windows: 40, ..limits() },
        cxl_limits { regions: 40, ..limits() },
        cxl_limits { decoders: 400, ..limits() },
        cxl_limits { ranges: 40, ..limits() },
        cxl_limits { policy_entries: 40, ..limits() },
    ] {
        assert!(unsafe { cxl_workspace_size(&larger) } > need, "{larger:?}");
    }
}

#[test]
#[cfg(target_pointer_width = "64")]
fn the_readme_says_how_much_memory_is_needed() {
    let readme = include_str!("../README.md");
    let (_, table) = readme.split_once("| bridges | devices | bytes |\n|---|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let rows = rows.map(|row| row.split('|').filter_map(|cell| cell.trim().parse().ok()).collect());
    let rows: Vec<Vec<usize>> = rows.collect();
    assert!(rows.len() > 3);
    let needed = rows.iter().map(|row| {
        let [bridges, devices, _] = row[..] else { panic!("{row:?}") };
        let limits = cxl_limits { bridges: bridges as u32, devices: devices as u32, ..limits() };
        vec![bridges, devices, unsafe { cxl_workspace_size(&limits) }]
    });
    assert_eq!(rows, needed.collect::<Vec<_>>());
}

#[test]
fn what_is_no_workspace_is_refused() {
    let (work, memory) = workspace();
    let mut error = cxl_error::default();
    assert_eq!(unsafe { cxl_last_error(null_mut(), &mut error) }, cxl_status::Null);
    let odd = work.wrapping_byte_add(1);
    assert_eq!(unsafe { cxl_last_error(odd, &mut error) }, cxl_status::Unaligned);
    assert_eq!(unsafe { cxl_component_count(null_mut()) }, 0);
    // A copy lies where it was not made, and has lists that are the other's.
    let copy = Memory::new(memory.size);
    unsafe {
        ptr::copy_nonoverlapping(memory.start().cast::<u8>(), copy.start().cast(), copy.size)
    };
    let moved = copy.start().cast::<cxl_workspace>();
    assert_eq!(unsafe { cxl_last_error(moved, &mut error) }, cxl_status::Workspace);
    let zeroes = Memory::new(memory.size);
    unsafe { zeroes.start().cast::<u8>().write_bytes(0, zeroes.size) };
    let empty = zeroes.start().cast();
    assert_eq!(unsafe { cxl_set_policy(empty, &policy()) }, cxl_status::Workspace);
}

/// Calls a function with each of its pointers null in turn.
macro_rules! nulls {
    ($work:expr, $($function:ident($($argument:expr),*);)*) => {
        $(assert_eq!(
            unsafe { $function($work, $($argument),*) },
            cxl_status::Null,
            concat!(stringify!($function), "(", stringify!($($argument),*), ")")
        );)*
    };
}

#[test]
fn null_pointers_are_a_status() {
    let (work, memory) = workspace();
    let hw = hardware();
    assert_eq!(unsafe { cxl_set_platform(work, &platform()) }, cxl_status::Ok);
    nulls!(work,
        cxl_discover(null());
        cxl_plan(null());
        cxl_commit(null());
        cxl_verify(null());
        cxl_probe(null());
        cxl_undo(null());
        cxl_bring_up(null());
        cxl_inspect(null());
        cxl_set_policy(null());
        cxl_last_error(null_mut());
        cxl_restore(&hw, null(), 100, 0);
        cxl_restore(null(), [0u8; 8].as_ptr().cast(), 8, 0);
        cxl_find_table(&hw, 0, null(), null_mut(), 0, &mut 0);
        cxl_find_table(&hw, 0, c"MCFG".as_ptr(), null_mut(), 0, null_mut());
        cxl_find_table(&hw, 0, c"MCFG".as_ptr(), null_mut(), 4, &mut 0);
        cxl_find_table(null(), 0, c"MCFG".as_ptr(), null_mut(), 0, &mut 0);
    );
    for (name, hw) in [
        ("read32", cxl_hardware { read32: None, ..hardware() }),
        ("write32", cxl_hardware { write32: None, ..hardware() }),
        ("microseconds", cxl_hardware { microseconds: None, ..hardware() }),
    ] {
        assert_eq!(unsafe { cxl_discover(work, &hw) }, cxl_status::Null, "{name}");
    }
    // Discovered: nothing, as there is no bridge.
    assert_eq!(unsafe { cxl_discover(work, &hw) }, cxl_status::Ok);
    let by = unsafe { zeroed::<cxl_identity>() };
    nulls!(work,
        cxl_write_cedt(null(), null_mut(), 0, &mut 0);
        cxl_write_cedt(&by, null_mut(), 0, null_mut());
        cxl_write_cedt(&by, null_mut(), 100, &mut 0);
        cxl_write_srat(null(), 0, null_mut(), 0, &mut 0);
        cxl_write_srat(&by, 0, null_mut(), 0, null_mut());
        cxl_write_handoff(null(), 0, 0, null_mut(), 0, &mut 0);
        cxl_write_handoff(&hw, 0, 0, null_mut(), 0, null_mut());
        cxl_check_cedt(&hw, null(), 100);
        cxl_check_cedt(null(), [0u8; 8].as_ptr().cast(), 8);
        cxl_size_windows(null(), 1, 0);
        cxl_set_platform(null());
    );
    // A list that has entries, and is nowhere.
    let lost = [
        cxl_platform { ecam_count: 1, ..platform() },
        cxl_platform { bridge_count: 1, ..platform() },
        cxl_platform { window_count: 1, ..platform() },
        cxl_platform { mcfg_size: 1, ..platform() },
        cxl_platform { cedt_size: 1, ..platform() },
        cxl_platform { root_count: 1, ..platform() },
        cxl_platform { resource_count: 1, ..platform() },
        cxl_platform { occupied_count: 1, ..platform() },
        // One table without the other.
        cxl_platform { mcfg_size: 8, mcfg: [0u8; 8].as_ptr(), ..platform() },
    ];
    for lost in lost {
        assert_eq!(unsafe { cxl_set_platform(work, &lost) }, cxl_status::Null, "{lost:?}");
    }
    let lost = [
        cxl_policy { width_count: 1, ..policy() },
        cxl_policy { request_count: 1, ..policy() },
        cxl_policy { set_count: 1, ..policy() },
        cxl_policy { required_count: 1, ..policy() },
        cxl_policy { leave_out_count: 1, ..policy() },
        cxl_policy { earlier_size: 1, ..policy() },
        cxl_policy { reserve_count: 1, ..policy() },
    ];
    for lost in lost {
        assert_eq!(unsafe { cxl_set_policy(work, &lost) }, cxl_status::Null, "{lost:?}");
    }
    let status = unsafe { cxl_error_text(null(), null_mut(), 0, null_mut()) };
    assert_eq!(status, cxl_status::Null);
    assert!(memory.is_whole());
}

#[test]
fn structs_of_other_versions_are_taken_as_far_as_they_are_known() {
    #[repr(C)]
    struct Newer {
        known: cxl_policy,
        unknown: u64,
    }
    let (work, _memory) = workspace();
    let size = |bytes: usize| bytes as u32;
    let newer = |unknown| Newer {
        known: cxl_policy { size: size(size_of::<Newer>()), ..policy() },
        unknown,
    };
    let set = |policy: *const cxl_policy| unsafe { cxl_set_policy(work, policy) };
    let (same, other) = (newer(0), newer(1));
    assert_eq!(set(ptr::from_ref(&same).cast()), cxl_status::Ok);
    assert_eq!(set(ptr::from_ref(&other).cast()), cxl_status::Size);
    for wrong in [0, 3, size(size_of::<cxl_policy>()) - 1] {
        assert_eq!(set(&cxl_policy { size: wrong, ..policy() }), cxl_status::Size, "{wrong}");
    }
}

#[test]
fn values_that_mean_nothing_are_refused_by_argument_entry_and_value() {
    let (work, _memory) = workspace();
    let says = |status, argument: cxl_argument, entry: u32, found: u64, what: &str| {
        let error = last(work);
        assert_eq!(status, cxl_status::Argument, "{what}");
        assert_eq!((error.code, error.detail), (0, argument as u16), "{what}");
        assert_eq!((error.place[2], error.found), (entry, found), "{what}");
    };
    let three = |change: &dyn Fn(&mut cxl_window)| {
        let mut windows = [window(), window(), window()];
        change(&mut windows[2]);
        let windows = cxl_platform { windows: windows.as_ptr(), window_count: 3, ..platform() };
        unsafe { cxl_set_platform(work, &windows) }
    };
    use cxl_argument as of;
    assert_eq!(three(&|_| ()), cxl_status::Ok);
    says(three(&|w| w.ways = 5), of::Ways, 2, 5, "ways");
    says(three(&|w| w.granularity = 300), of::Granularity, 2, 300, "granularity");
    says(three(&|w| w.arithmetic = 2), of::Arithmetic, 2, 2, "arithmetic");
    says(three(&|w| w.target_count = 17), of::Targets, 2, 17, "targets");
    says(three(&|w| w.xor_map_count = 5), of::XorMaps, 2, 5, "maps");
    says(three(&|w| w.reserved = 1), of::Reserved, 2, 1, "reserved");

    let with = |bridge: cxl_bridge| {
        let platform = cxl_platform { bridges: &bridge, bridge_count: 1, ..platform() };
        unsafe { cxl_set_platform(work, &platform) }
    };
    let bridge: cxl_bridge = unsafe { zeroed() };
    assert_eq!(with(bridge), cxl_status::Ok);
    says(with(cxl_bridge { kind: 2, ..bridge }), of::BridgeKind, 0, 2, "kind");
    says(with(cxl_bridge { has_root: 2, ..bridge }), of::Flag, 0, 2, "has_root");
    let with = |ecam: cxl_ecam| {
        let platform = cxl_platform { ecam: &ecam, ecam_count: 1, ..platform() };
        unsafe { cxl_set_platform(work, &platform) }
    };
    let ecam = cxl_ecam { first_bus: 8, last_bus: 7, ..cleared() };
    says(with(ecam), of::EcamBuses, 0, 8, "buses");
    let range = cxl_range { base: 1 << 32, size: 0 };
    let occupied = cxl_platform { occupied: &range, occupied_count: 1, ..platform() };
    let status = unsafe { cxl_set_platform(work, &occupied) };
    says(status, of::Range, 0, 1 << 32, "a range of no bytes");
    let tables = [0u8; 64];
    let both = cxl_platform {
        mcfg: tables.as_ptr(),
        cedt: tables.as_ptr(),
        mcfg_size: 64,
        cedt_size: 64,
        ecam: &cxl_ecam { last_bus: 8, ..ecam },
        ecam_count: 1,
        ..platform()
    };
    says(unsafe { cxl_set_platform(work, &both) }, of::TablesAndValues, 0, 1, "both");

    let set = |policy: cxl_policy| unsafe { cxl_set_policy(work, &policy) };
    says(set(cxl_policy { path: 4, ..policy() }), of::PathPolicy, 0, 4, "path");
    says(set(cxl_policy { target: 2, ..policy() }), of::Target, 0, 2, "target");
    says(set(cxl_policy { on_failure: 2, ..policy() }), of::OnFailure, 0, 2, "on_failure");
    says(set(cxl_policy { broken_sets: 3, ..policy() }), of::BrokenSets, 0, 3, "broken_sets");
    says(set(cxl_policy { prefer: 4, ..policy() }), of::Prefer, 0, 4, "prefer");
    says(set(cxl_policy { probe: 3, ..policy() }), of::Probe, 0, 3, "probe");
    says(set(cxl_policy { config_lock: 2, ..policy() }), of::Flag, 0, 2, "config_lock");
    says(set(cxl_policy { reserved: [0, 0, 9], ..policy() }), of::Reserved, 0, 9, "reserved");
    let width = cxl_width { kind: 3, ways: 0, granularity: 0, reserved: 0 };
    says(set(cxl_policy { width, ..policy() }), of::WidthKind, 0, 3, "width");
    let exactly = cxl_width { kind: 2, ways: 2, ..width };
    says(set(cxl_policy { width: exactly, ..policy() }), of::Granularity, 0, 0, "granularity");
    let far = cxl_path { uid: 0, port_count: 17, ports: [0; 16] };
    let required = cxl_policy { required: &far, required_count: 1, ..policy() };
    says(set(required), of::Path, 0, 17, "path");
    let request = cxl_request { partition: 2, ..cleared() };
    let requests = cxl_policy { requests: &request, request_count: 1, ..policy() };
    says(set(requests), of::Partition, 0, 2, "partition");
    let seventeen = [cxl_path::default(); 17];
    let members = cxl_set_request { members: seventeen.as_ptr(), member_count: 17, ..cleared() };
    says(set(cxl_policy { sets: &members, set_count: 1, ..policy() }), of::Members, 0, 17, "set");
    let leave_out = cxl_leave_out { kind: 3, ..cleared() };
    let left_out = cxl_policy { leave_out: &leave_out, leave_out_count: 1, ..policy() };
    says(set(left_out), of::LeaveOut, 0, 3, "leave_out");
    let reserve = cxl_reserve { partition: 2, ..cleared() };
    let room = cxl_policy { reserve: &reserve, reserve_count: 1, ..policy() };
    says(set(room), of::Partition, 0, 2, "reserve");
    let mut error = cxl_error::default();
    let status = unsafe { cxl_error_at(work, 4, 0, &mut error) };
    says(status, of::ErrorList, 0, 4, "which list");

    // More than there is room for: 2 bridges.
    let three = [bridge; 3];
    let many = cxl_platform { bridges: three.as_ptr(), bridge_count: 3, ..platform() };
    assert_eq!(unsafe { cxl_set_platform(work, &many) }, cxl_status::Room);
    let error = last(work);
    assert_eq!((error.detail, error.expected, error.found), (of::BridgeCount as u16, 2, 3));
    // And a platform that was refused is none.
    assert_eq!(unsafe { cxl_discover(work, &hardware()) }, cxl_status::Order);
    // An argument in words, too.
    let mut text = [0 as c_char; 128];
    let status = unsafe { cxl_error_text(&error, text.as_mut_ptr(), text.len(), null_mut()) };
    assert_eq!(status, cxl_status::Ok);
    let text = unsafe { CStr::from_ptr(text.as_ptr()) }.to_str().unwrap();
    assert_eq!(text, "argument 25, entry 0: expected 0x2, found 0x3");
}

#[test]
fn a_callback_that_comes_back_finds_the_workspace_busy() {
    struct Back {
        work: *mut cxl_workspace,
        found: Vec<cxl_status>,
    }
    unsafe extern "C" fn back(context: *mut c_void, _: *const c_char) {
        let back = unsafe { &mut *context.cast::<Back>() };
        let mut error = cxl_error::default();
        back.found.push(unsafe { cxl_last_error(back.work, &mut error) });
        back.found.push(unsafe { cxl_set_policy(back.work, &policy()) });
    }
    let (work, _memory) = workspace();
    let mut context = Back { work, found: vec![] };
    let hw =
        cxl_hardware { context: ptr::from_mut(&mut context).cast(), log: Some(back), ..hardware() };
    assert_eq!(unsafe { cxl_set_platform(work, &platform()) }, cxl_status::Ok);
    assert_eq!(unsafe { cxl_discover(work, &hw) }, cxl_status::Ok);
    assert_eq!(context.found, [cxl_status::Busy; 2]);
    // And free again afterwards.
    assert_eq!(unsafe { cxl_set_policy(work, &policy()) }, cxl_status::Ok);
}

#[test]
fn a_refusal_of_the_library_keeps_its_number_until_the_next_call() {
    let (work, _memory) = workspace();
    let tables = [0u8; 64];
    let broken = cxl_platform {
        mcfg: tables.as_ptr(),
        cedt: tables.as_ptr(),
        mcfg_size: 64,
        cedt_size: 64,
        ..platform()
    };
    assert_eq!(unsafe { cxl_set_platform(work, &broken) }, cxl_status::Refused);
    // PLATFORM_CEDT: the signature is none.
    assert_eq!(last(work).code, 0x0107);
    let mut error = cxl_error::default();
    assert_eq!(unsafe { cxl_error_at(work, 0, 0, &mut error) }, cxl_status::End);
    assert_eq!(unsafe { cxl_region_count(work) }, 0);
    assert_eq!(last(work).code, 0x0107, "counting, and lists that end, are no news");
    assert_eq!(unsafe { cxl_set_platform(work, &platform()) }, cxl_status::Ok);
    assert_eq!(last(work), cxl_error::default());
}

#[test]
fn a_table_that_is_too_long_for_the_buffer_says_how_long_it_is() {
    /// An RSDP of revision 0 at 0x1000, its RSDT at 0x2000 with one entry, an MCFG at 0x3000.
    unsafe extern "C" fn read(context: *mut c_void, address: u64) -> u32 {
        let memory = unsafe { &*context.cast::<Vec<u8>>() };
        let at = address as usize;
        memory.get(at..at + 4).map_or(u32::MAX, |b| u32::from_le_bytes(b.try_into().unwrap()))
    }
    fn mend(bytes: &mut [u8], at: usize) {
        let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        bytes[at] = bytes[at].wrapping_sub(sum);
    }
    let mut memory = vec![0u8; 0x4000];
    memory[0x1000..0x1008].copy_from_slice(b"RSD PTR ");
    memory[0x1010..0x1014].copy_from_slice(&0x2000u32.to_le_bytes());
    mend(&mut memory[0x1000..0x1014], 8);
    memory[0x2000..0x2004].copy_from_slice(b"RSDT");
    memory[0x2004..0x2008].copy_from_slice(&40u32.to_le_bytes());
    memory[0x2008] = 1;
    memory[0x2024..0x2028].copy_from_slice(&0x3000u32.to_le_bytes());
    mend(&mut memory[0x2000..0x2028], 9);
    memory[0x3000..0x3004].copy_from_slice(b"MCFG");
    memory[0x3004..0x3008].copy_from_slice(&60u32.to_le_bytes());
    memory[0x3008] = 1;
    mend(&mut memory[0x3000..0x303C], 9);
    let (work, _memory) = workspace();
    let hw = cxl_hardware {
        context: ptr::from_mut(&mut memory).cast(),
        read32: Some(read),
        ..hardware()
    };
    let (mut buffer, mut length) = ([0xA5u8; 64], 0);
    let mut find = |signature: &CStr, size| {
        let at = buffer.as_mut_ptr().cast();
        let signature = signature.as_ptr();
        let status = unsafe { cxl_find_table(work, &hw, 0x1000, signature, at, size, &mut length) };
        (status, length)
    };
    assert_eq!(find(c"MCFG", 59), (cxl_status::Short, 60));
    assert_eq!(find(c"MCFG", 0), (cxl_status::Short, 40), "the root table comes first");
    assert_eq!(find(c"CEDT", 64), (cxl_status::Refused, 0));
    assert_eq!(last(work).code, 0x0103);
    assert_eq!(find(c"MCFG", 60), (cxl_status::Ok, 60));
    assert_eq!(buffer[..60], memory[0x3000..0x303C]);
    assert_eq!(buffer[60..], [0; 4], "cleared by an earlier call, and not written to by this one");
}
