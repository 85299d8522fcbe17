//! `cxl.efi`: brings CXL memory up under UEFI, and starts what comes next.
//!
//! **Invariant**: what it knows of the machine comes from the firmware's tables and protocols and from
//! the devices; the text file beside it chooses the policy. No table is replaced and no memory given
//! before everything is verified, and the firmware's table is copied before it is taken out.

#![no_std]
#![no_main]

extern crate alloc;

mod acpi;
mod files;
mod hw;
mod log;
mod space;

use alloc::vec;
use core::fmt::Write;
use core::ptr;

use cxl_firmware::Error;
use cxl_firmware::bring_up::{self, Extent, bring_up};
use cxl_firmware::handoff::{self, TableLocation};
use cxl_firmware::platform::{BridgeKind, Ecam, Platform};
use cxl_image::{Room, dump, report};
use cxl_regs::acpi::Identity;
use cxl_regs::component::BLOCK_SIZE;
use cxl_regs::{Hpa, Span};
use cxl_uefi::settings::Settings;
use cxl_uefi::{given, roots};
use uefi::prelude::*;
use uefi::{Guid, guid};

use hw::{Hardware, Stalls};
use log::Log;
use space::Space;

/// Where the operating system finds the hand-off record.
const RECORD: Guid = guid!("5a3c1e0b-6a41-4df4-9e07-63786c2d6677");
/// Room for the record, and for the tables.
const RECORD_ROOM: usize = 0x4_0000;
const TABLE_ROOM: usize = 0x1_0000;
/// Bytes of a root complex register block (CXL r3.1 section 9.18.1.2).
const RCRB_SIZE: u64 = 0x2000;

const IDENTITY: Identity = Identity {
    oem_id: *b"CXLFW ",
    oem_table_id: *b"UEFI    ",
    oem_revision: 1,
    creator_id: *b"CXLF",
    creator_revision: 1,
};

static mut ROOM: Room = Room::new();

/// A line of the log.
macro_rules! say {
    ($log:expr, $($text:tt)*) => { let _ = writeln!($log, $($text)*); };
}

#[entry]
fn main() -> Status {
    let mut log = Log;
    let (text, place) = files::settings();
    let settings = match Settings::parse(&text) {
        Ok(settings) => settings,
        Err(error) => {
            say!(log, "refused: {place}: {error}");
            return Status::INVALID_PARAMETER;
        }
    };
    if !settings.quiet {
        say!(log, "cxl firmware under UEFI, policy of {place}");
    }
    let whole = match start(&mut log, &settings) {
        Ok(Extent::Whole) => true,
        Ok(_) => false,
        Err(Refused::Library(error)) => {
            say!(log, "refused: {}: {error}", error.phase());
            false
        }
        Err(Refused::Firmware(what, status)) => {
            say!(log, "refused: {what}: the firmware says {status}");
            false
        }
        Err(Refused::Range(span, what, status)) => {
            say!(log, "refused: {span}: {what}: the firmware says {status}");
            false
        }
    };
    if let Some(next) = settings.next {
        if !settings.quiet {
            say!(log, "next: {next}");
        }
        if let Err((what, status)) = files::start(next, settings.initrd, settings.line) {
            say!(log, "refused: next={next}: {what}: the firmware says {status}");
            say!(log, "end: refused");
            return status;
        }
    }
    if whole { Status::SUCCESS } else { Status::ABORTED }
}

/// Why CXL memory is not up.
pub(crate) enum Refused {
    /// The library, in its own words.
    Library(Error),
    /// The firmware, which was asked for this.
    Firmware(&'static str, Status),
    /// The firmware, which was asked for this of a range.
    Range(Span, &'static str, Status),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

/// Everything up to the record.
fn start(log: &mut Log, settings: &Settings<'_>) -> Result<Extent, Refused> {
    let room = &raw mut ROOM;
    // SAFETY: this function runs once, on one processor; nothing else names the static.
    let room = unsafe { &mut *room };
    let rsdp = acpi::rsdp().ok_or(Refused::Firmware("an RSDP", Status::NOT_FOUND))?;
    // The firmware's own driver numbers buses and places BARs where nobody has yet.
    let bridges = acpi::root_bridges()?;
    let mut space = Space::new()?;
    let words = &settings.words;
    let roots = roots::roots(&words.roots, bridges)
        .ok_or(Refused::Firmware("at most 32 PCI root bridges", Status::OUT_OF_RESOURCES))?;
    let reached = words.address_bits.unwrap_or(space.address_bits());
    let (mut mcfg, mut table) = (vec![0; TABLE_ROOM], vec![0; TABLE_ROOM]);
    let tables = acpi::platform(rsdp, &roots, reached, &mut mcfg, &mut table)?;
    let platform = tables.platform();
    if !settings.quiet {
        report::platform(log, &platform);
    }
    let policy = words.policy(space.address_bits());
    reach(&mut space, &platform)?;

    // SAFETY: `reach` had the firmware map all that the library asks for, BARs are mapped by the
    // firmware's own driver for the root bridges, and no Rust object lives in any of it.
    let mut hw = unsafe { Hardware::new(windows(&platform)) };
    let mut clock = Stalls::default();
    let mut result = bring_up(&mut hw, &mut clock, &platform, &policy, &mut *room);
    let mut described = None;
    if let Ok(extent) = result {
        let mut bytes = vec![0; TABLE_ROOM];
        let room = &mut *room;
        let made = bring_up::describe(
            &mut hw, &mut clock, &platform, &policy, room, extent, IDENTITY, &mut bytes,
        );
        // Without a table nothing is up.
        result = made.map(|(_, extent)| extent);
        if let Ok((made, _)) = made {
            let (address, size) = acpi::replace(made)?;
            described = Some(TableLocation { address, size });
        }
    }
    let extent = result.ok();
    space.leave()?;
    for span in given::ranges(extent, policy.path, &room.committed.regions) {
        // What the map does not take is in the table all the same, and that is enough for Linux.
        match space.give(span) {
            Ok(()) if settings.quiet => {}
            Ok(()) => {
                say!(log, "memory map: {span}, specific-purpose");
            }
            Err(status) => {
                say!(log, "memory map: {span} is not in it: the firmware says {status}");
            }
        }
    }
    let contents = room.contents(platform.ecam, described);
    let record = handoff::write(&mut hw, &contents, acpi::lasting(RECORD_ROOM)?)?;
    // SAFETY: runtime services data, never freed and never written again.
    unsafe { boot::install_configuration_table(&RECORD, ptr::from_ref(record).cast()) }
        .map_err(|error| Refused::Firmware("a configuration table", error.status()))?;
    if let Err(error) = result {
        report::fates(log, room);
        report::unanswered(log, room, error);
    } else if !settings.quiet {
        report::result(log, room);
        report::verifier(log, room);
        report::probed(log, room, policy.probe, false);
        report::handed(log, record, described);
        report::unused(log, room);
    }
    if settings.dump {
        let table = described.map(acpi::at);
        dump::all(log, &mut hw, room.topology.tree(), record, table);
    }
    report::lost(log, room);
    Ok(result?)
}

/// Has the firmware map all registers that tables name, and the windows past the caches.
fn reach(space: &mut Space, platform: &Platform<'_>) -> Result<(), Refused> {
    let bridges = platform.bridges.iter().filter_map(|bridge| {
        let size = match bridge.kind {
            BridgeKind::ComponentRegisters => BLOCK_SIZE.into(),
            BridgeKind::Rcrb => RCRB_SIZE,
        };
        Span::new(bridge.registers, size).ok()
    });
    for span in platform.ecam.iter().filter_map(Ecam::span).chain(bridges) {
        space.registers(span)?;
    }
    windows(platform).try_for_each(|span| space.window(span))
}

/// The windows; what a hole shortens at 0 is memory of the machine, too, and reachable as that is.
fn windows<'p>(platform: &'p Platform<'_>) -> impl Iterator<Item = Span> + 'p {
    let placed = platform.windows.iter().filter_map(|window| platform.span_of(window));
    placed.filter(|span| span.base() != Hpa(0))
}
