//! The bare-metal image: the library as firmware, then one payload.
//!
//! **Invariant**: what it knows of the machine comes from ACPI and from the devices; the command
//! line chooses the policy and the payload.

#![no_std]
#![no_main]

mod fw_cfg;
mod hw;
mod memory;
mod options;
mod paging;
mod payload;
mod port;
mod power;
mod start;
mod start_info;
mod tables;
mod vmm;

use core::fmt::Write;
use core::panic::PanicInfo;

use cxl_firmware::bring_up::{self, Extent, bring_up, inspect};
use cxl_firmware::error::Phase;
use cxl_firmware::handoff::{self, TableLocation};
use cxl_firmware::mmio::Mmio;
use cxl_firmware::platform::{Ecam, Platform};
use cxl_firmware::policy::{OnFailure, Policy};
pub(crate) use cxl_image::Room;
use cxl_image::doorbell::{Call, EMPTY_HANDLER, Status};
use cxl_image::{dump, report};
use cxl_regs::acpi::{Identity, Rsdp};

use hw::{Count, Hardware};
use options::Options;
use paging::Pages;
use payload::linux::{Next, kept};
use port::Console;
use start_info::{LINE_ROOM, MOST_RANGES, StartInfo};
use vmm::Vmm;

static mut ROOM: Room = Room::new();
/// Scratch for tables that are read.
static mut BUFFER: Pages<0x1_1000> = Pages([0; 0x1_1000]);
/// The CEDT that is installed, and the hand-off record: they stay for the next stage.
static mut CEDT: Pages<0x4000> = Pages([0; 0x4000]);
static mut RECORD: Pages<0x4_0000> = Pages([0; 0x4_0000]);

const IDENTITY: Identity = Identity {
    oem_id: *b"CXLFW ",
    oem_table_id: *b"HARNESS ",
    oem_revision: 1,
    creator_id: *b"CXLF",
    creator_revision: 1,
};

/// Where both entries end. `start_info` is a PVH start-info, `tables` the top-level page table,
/// `ring` the privilege level the code runs at.
extern "C" fn main(start_info: u64, tables: u64, ring: u32) -> ! {
    power::at_ring(ring);
    let info = handed_over(start_info);
    let options = asked_for(&info);
    let mut hw = Hardware::new(tables);
    if let Some(count) = options.exits {
        bare_exits(&mut hw, count);
    }
    let (room, buffer, table, record) =
        (&raw mut ROOM, &raw mut BUFFER, &raw mut CEDT, &raw mut RECORD);
    // SAFETY: one vCPU runs this function once; nothing else names these statics.
    let room = unsafe { &mut *room };
    // SAFETY: as above.
    let Pages(buffer) = unsafe { &mut *buffer };
    // SAFETY: as above.
    let Pages(table) = unsafe { &mut *table };
    // SAFETY: as above.
    let Pages(record) = unsafe { &mut *record };
    let kept = kept(record, table);
    if !options.quiet {
        say(format_args!("cxl firmware at ring {ring}"));
    }
    let mut rsdp = [0; Rsdp::MAX_LEN];
    tables::read(&mut hw, info.rsdp, &mut rsdp);
    hw.vmm = Vmm::of(&rsdp, fw_cfg::is_there);
    let bits = options.words.address_bits;
    let found = match tables::platform(&mut hw, info.rsdp, &options.words.roots, bits, buffer) {
        Ok(found) => found,
        Err(error) => refuse(format_args!("platform: {error}"), nothing(error.code())),
    };
    let occupied = tables::occupied(&info.memory);
    let platform = Platform { occupied: &occupied, ..found.platform() };
    hw.set_config(platform.ecam.iter().filter_map(Ecam::span));
    hw.set_windows(&platform);
    hw.list();
    power::prepare(&mut hw, info.rsdp, buffer);
    let policy = options.words.policy(tables::address_bits());

    let mut clock = hw.clock();
    let mut result = if options.as_found {
        inspect(&mut hw, &mut clock, &platform, &policy, &mut *room).map(|()| Extent::Whole)
    } else {
        bring_up(&mut hw, &mut clock, &platform, &policy, &mut *room)
    };
    let code = result.map_or_else(|error| error.code(), |_| 0);
    let described = result.ok().map(|extent| {
        // What is only looked at is not brought up again.
        let strict = Policy { on_failure: OnFailure::Strict, ..policy };
        let policy = if options.as_found { &strict } else { &policy };
        let room = &mut *room;
        bring_up::describe(&mut hw, &mut clock, &platform, policy, room, extent, IDENTITY, table)
    });
    // Without a table nothing is up.
    if let Some(described) = described {
        result = described.map(|(_, extent)| extent);
    }
    let installed = described.and_then(Result::ok).map(|(bytes, _)| bytes);
    let location = installed
        .map(|bytes| TableLocation { address: bytes.as_ptr() as u64, size: bytes.len() as u32 });
    let tree = room.topology.tree();
    let contents = room.contents(platform.ecam, location);
    let record = match handoff::write(&mut hw, &contents, record) {
        Ok(bytes) => &*bytes,
        Err(error) => refuse(format_args!("handoff: {error}"), handed(&[], hw.count, error.code())),
    };
    hw.list_no_more();
    let counted = hw.count;
    let handed = |code| handed(record, counted, code);
    // What somebody else left is told, not refused: the payload is here to look at it.
    let judged = result.is_err_and(|error| error.phase() == Phase::Verify);
    let told = options.as_found && judged;
    if let (Err(error), false) = (result, told) {
        if !options.quiet {
            report::platform(&mut Console, &platform);
        }
        report::fates(&mut Console, room);
        report::unanswered(&mut Console, room, error);
        refuse(format_args!("{}: {error}", error.phase()), handed(error.code()));
    }
    if let Some(TableLocation { address, .. }) = location
        && tables::install(&mut hw, info.rsdp, address, buffer).is_none()
    {
        refuse(format_args!("tables: no root table to put the CEDT into"), handed(0));
    }
    port::call(handed(code));
    if !options.quiet {
        report::platform(&mut Console, &platform);
        report::result(&mut Console, room);
        report::verifier(&mut Console, room);
        report::probed(&mut Console, room, policy.probe, options.as_found);
        report::handed(&mut Console, record, location);
        report::unused(&mut Console, room);
    }
    if options.dump {
        dump::all(&mut Console, &mut hw, tree, record, installed);
    }
    let mut next = Next {
        info: &info,
        ring,
        line: options.next_line,
        policy: &policy,
        record,
        cedt: location,
        kept,
        buffer,
    };
    let passed =
        payload::run((options.payload, &options.modes), &mut hw, room, &platform, &mut next);
    // What is in use was handed on, and what was lost is no success.
    report::lost(&mut Console, room);
    let whole = result.is_ok_and(|extent| extent == Extent::Whole);
    let status = if passed && whole { Status::Success } else { Status::Refused };
    if !options.quiet {
        say(format_args!("end: {}", status.name()));
    }
    finish(status)
}

/// The start-info, if all of it can be used.
fn handed_over(start_info: u64) -> StartInfo {
    // SAFETY: the VMM passed a start-info, as the PVH boot protocol says.
    let Some(info) = (unsafe { StartInfo::read(start_info) }) else {
        refuse(format_args!("no PVH start-info at {start_info:#x}"), nothing(0));
    };
    let found = info.ranges;
    if found > MOST_RANGES {
        refuse(
            format_args!("memory map: expected at most {MOST_RANGES} ranges, found {found}"),
            nothing(0),
        );
    }
    info
}

/// What the command line asks for.
fn asked_for(info: &StartInfo) -> Options<'_> {
    let Some(line) = &info.command_line else {
        refuse(
            format_args!("command line: expected text of at most {LINE_ROOM} bytes, found other"),
            nothing(0),
        );
    };
    match Options::parse(line) {
        Ok(options) => options,
        Err(bad) => refuse(format_args!("command line: {bad}"), nothing(0)),
    }
}

/// Leaves the guest this often and does nothing else: what starting and leaving cost by themselves.
fn bare_exits(hw: &mut Hardware, count: u64) -> ! {
    for _ in 0..count {
        core::hint::black_box(hw.read(EMPTY_HANDLER));
    }
    finish(Status::Success)
}

/// A line on the console.
pub(crate) fn say(text: core::fmt::Arguments<'_>) {
    let _ = writeln!(Console, "{text}");
}

/// The message that hands a record over.
fn handed(record: &[u8], counted: Count, code: u16) -> Call {
    Call::HandOff {
        address: record.as_ptr() as u64,
        length: record.len() as u64,
        reads: counted.reads.into(),
        config: counted.config.into(),
        writes: counted.writes.into(),
        memory_reads: counted.memory_reads.into(),
        memory_writes: counted.memory_writes.into(),
        code: code.into(),
    }
}

/// A hand-off of nothing, before the first access.
fn nothing(code: u16) -> Call {
    handed(&[], Count::default(), code)
}

/// Says why, hands over what there is, and ends the run.
fn refuse(text: core::fmt::Arguments<'_>, handed: Call) -> ! {
    say(format_args!("refused: {text}"));
    port::call(handed);
    say(format_args!("end: {}", Status::Refused.name()));
    finish(Status::Refused)
}

/// Ends the run by the exit device, or where there is none by switching the machine off.
fn finish(status: Status) -> ! {
    port::exit(status);
    power::end()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say(format_args!("{info}"));
    say(format_args!("end: {}", Status::Panic.name()));
    finish(Status::Panic)
}
