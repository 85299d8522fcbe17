//! What came of it: components, regions, decoders, windows, errors; one at a time, by number.
//!
//! **Invariant**: what is told was read from hardware, but for windows and notes. A list ends with
//! `CXL_STATUS_END`; reading it changes nothing.

use core::ffi::c_char;

use cxl_firmware::committed::{self, Fate, Probed};
use cxl_firmware::error::{Code, Error, Phase, Place};
use cxl_firmware::outcome::{ComponentKind, Outcome};
use cxl_firmware::plan::Note;
use cxl_firmware::tables::MemoryKind;
use cxl_firmware::topology::{Partition, Tree};
use cxl_regs::access::Component;
use cxl_regs::{Coherency, Route};

use crate::border::{self, Sized32, put_sized, zeroed};
use crate::hardware::Machine;
use crate::line::Line;
use crate::platform::{cxl_window, window_for_c};
use crate::policy::{cxl_path, path_for_c};
use crate::status::{Failure, cxl_argument, cxl_error, cxl_status};
use crate::workspace::{Body, counted, cxl_workspace, entry, with};

/// What a component is. The numbers are those of the hand-off record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_component_kind {
    /// A memory device.
    Device = 0,
    /// A host bridge.
    HostBridge = 1,
    /// A switch's upstream port.
    UpstreamPort = 2,
    /// A root port.
    RootPort = 3,
    /// A switch's downstream port.
    DownstreamPort = 4,
    /// Nobody came to know.
    Unknown = 255,
}

/// What became of a component. The numbers are those of the hand-off record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_outcome {
    /// A region leads through it, or to it.
    InUse = 0,
    /// The policy left it out.
    LeftOut = 1,
    /// It failed, or what it cannot do without did.
    Broken = 2,
    /// It is of CXL, and has no CXL.mem that could be used.
    NotMem = 3,
    /// Nothing is wrong, and no region needs it.
    Unused = 4,
}

/// A component and what became of it. Set `size` to `sizeof(struct cxl_component)`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_component {
    /// Bytes of this struct.
    pub size: u32,
    /// A `cxl_component_kind`.
    pub kind: u32,
    /// A `cxl_outcome`.
    pub outcome: u32,
    /// 1: `path` is its place; 0: it became no part of the topology, and `error` has the place.
    pub has_path: u8,
    /// 1: `segment`, `bus` and `device_function` are its PCI function.
    pub has_function: u8,
    /// PCI segment group.
    pub segment: u16,
    /// Bus number.
    pub bus: u8,
    /// Bits 7:3 the device, 2:0 the function.
    pub device_function: u8,
    /// Decoders that it has.
    pub decoder_count: u16,
    /// Where it is.
    pub path: cxl_path,
    /// Bytes of a device's volatile memory.
    pub volatile_bytes: u64,
    /// Bytes of a device's persistent memory.
    pub persistent_bytes: u64,
    /// Why it is not in use, where something says so; else `code` is 0.
    pub error: cxl_error,
}

// SAFETY: repr(C), of integers and structs and arrays of integers.
unsafe impl Sized32 for cxl_component {
    const FIRST: usize = size_of::<Self>();
}

/// What a region's memory was asked.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_probed {
    /// Nothing.
    No = 0,
    /// It was only read, as it is persistent.
    Read = 1,
    /// It held marks at both ends of every way.
    Held = 2,
}

/// Who keeps memory coherent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_coherency {
    /// The host (HDM-H).
    HostOnly = 0,
    /// The device (HDM-D).
    Device = 1,
    /// The device, by back-invalidate (HDM-DB).
    BackInvalidate = 2,
}

/// A range of host addresses that leads to memory, on every path and to every member. Set `size` to
/// `sizeof(struct cxl_region)`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_region {
    /// Bytes of this struct.
    pub size: u32,
    /// Ways of the whole set.
    pub ways: u32,
    /// Base of the window it lies in.
    pub window: u64,
    /// First address.
    pub base: u64,
    /// Bytes.
    pub bytes: u64,
    /// Granularity in bytes.
    pub granularity: u32,
    /// What the memory map of the next stage shall call it: E820 type 0xefffffff (soft reserved,
    /// EFI_MEMORY_SP) or 2 (reserved).
    pub e820: u32,
    /// A `cxl_partition`.
    pub partition: u8,
    /// A `cxl_coherency`.
    pub coherency: u8,
    /// 1: every decoder on every path is locked.
    pub locked: u8,
    /// A `cxl_probed`.
    pub probed: u8,
    /// 0.
    pub reserved: u32,
}

// SAFETY: repr(C), of integers.
unsafe impl Sized32 for cxl_region {
    const FIRST: usize = size_of::<Self>();
}

/// What became of a decoder. The numbers are those of the hand-off record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_fate {
    /// Not written to.
    Untouched = 0,
    /// Written to, and reads as it did before.
    RolledBack = 1,
    /// Cannot be put back, and serves nothing.
    Stranded = 2,
    /// Committed as it should be.
    Done = 3,
}

/// A decoder as the hardware has it. Set `size` to `sizeof(struct cxl_decoder)`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_decoder {
    /// Bytes of this struct.
    pub size: u32,
    /// A `cxl_component_kind`: device, host bridge or upstream port.
    pub kind: u32,
    /// Where its component is.
    pub path: cxl_path,
    /// Its number in the component.
    pub index: u8,
    /// A `cxl_fate`.
    pub fate: u8,
    /// 1: the hardware says that it is in use.
    pub committed: u8,
    /// 1: it is frozen until a conventional reset.
    pub locked: u8,
    /// 1: the following say what it claims; 0: it claims nothing, or breaks a rule.
    pub has_meaning: u8,
    /// A `cxl_coherency`.
    pub coherency: u8,
    /// 0.
    pub reserved: u16,
    /// First host address.
    pub base: u64,
    /// Bytes of host addresses.
    pub bytes: u64,
    /// Bytes of a device's own memory that are left out in front.
    pub skip: u64,
    /// Ways: of a device's the whole set's, of a port's its own.
    pub ways: u32,
    /// Granularity in bytes.
    pub granularity: u32,
    /// Its seven registers as last read, in order of offset, and 0.
    pub registers: [u32; 8],
}

// SAFETY: repr(C), of integers and structs and arrays of integers.
unsafe impl Sized32 for cxl_decoder {
    const FIRST: usize = size_of::<Self>();
}

/// A list of errors.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_error_list {
    /// What discovery passed over, or lost.
    Remarks = 0,
    /// What the owner should know of the plan: `code` is a note's number, `place` a device, window or
    /// range, `found` bytes. The log has it in words.
    Notes = 1,
    /// What the verifier found wrong, or worth knowing.
    Findings = 2,
    /// Memory that did not answer.
    Probe = 3,
}

/// How many components there are in the list of outcomes: all that was found.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_component_count(workspace: *mut cxl_workspace) -> u32 {
    // SAFETY: the contract of C.
    unsafe { counted(workspace, |body| body.outcomes.items().len()) }
}

/// The component with this number, counted from 0: those of the topology, each behind the one above
/// it, then what became no part of it. After `cxl_restore` those of the record, in its order.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_component_at(
    workspace: *mut cxl_workspace,
    index: u32,
    component: *mut cxl_component,
) -> cxl_status {
    let work = |body: &mut Body| {
        let found = entry(body.outcomes.items(), index)?;
        let mut given: cxl_component = zeroed();
        given.kind = kind(found.kind);
        given.outcome = match found.outcome {
            Outcome::InUse => cxl_outcome::InUse,
            Outcome::LeftOut(_) => cxl_outcome::LeftOut,
            Outcome::Broken(_) => cxl_outcome::Broken,
            Outcome::NotMem(_) => cxl_outcome::NotMem,
            Outcome::Unused => cxl_outcome::Unused,
        } as u32;
        given.error = match found.outcome.error() {
            Some(error) => (*error).into(),
            None => cxl_error { place: found.at.numbers(), ..cxl_error::default() },
        };
        let tree = Tree(body.room.nodes.items());
        let node = tree.iter().nth(index as usize).filter(|_| !body.restored);
        if let Some((id, node)) = node {
            given.has_path = 1;
            given.path = path_for_c(&tree.path(id));
            given.decoder_count = node.hdm.map_or(0, |hdm| hdm.decoders.into());
            if let Some(function) = node.function {
                given.has_function = 1;
                given.segment = function.segment;
                given.bus = function.bdf.bus();
                given.device_function = function.bdf.device() << 3 | function.bdf.function();
            }
            if let Some(device) = node.device() {
                given.volatile_bytes = device.volatile;
                given.persistent_bytes = device.persistent;
            }
        }
        // SAFETY: the contract of C.
        unsafe { put_sized(component, given) }?;
        Ok(cxl_status::Ok)
    };
    // SAFETY: the contract of C.
    unsafe { with(workspace, work) }
}

fn kind(kind: Option<ComponentKind>) -> u32 {
    (match kind {
        Some(ComponentKind::Device) => cxl_component_kind::Device,
        Some(ComponentKind::HostBridge) => cxl_component_kind::HostBridge,
        Some(ComponentKind::UpstreamPort) => cxl_component_kind::UpstreamPort,
        Some(ComponentKind::RootPort) => cxl_component_kind::RootPort,
        Some(ComponentKind::DownstreamPort) => cxl_component_kind::DownstreamPort,
        None => cxl_component_kind::Unknown,
    }) as u32
}

/// How many regions are whole.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_region_count(workspace: *mut cxl_workspace) -> u32 {
    // SAFETY: the contract of C.
    unsafe { counted(workspace, |body| body.room.committed_regions.items().len()) }
}

/// The region with this number, by ascending address.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_region_at(
    workspace: *mut cxl_workspace,
    index: u32,
    region: *mut cxl_region,
) -> cxl_status {
    let work = |body: &mut Body| {
        let found = entry(body.room.committed_regions.items(), index)?;
        let given = cxl_region {
            window: found.window.0,
            base: found.span.base().0,
            bytes: found.span.size(),
            ways: found.interleave.ways.count(),
            granularity: found.interleave.granularity.bytes() as u32,
            e820: match found.partition {
                Partition::Volatile => MemoryKind::SoftReserved.e820(),
                Partition::Persistent => MemoryKind::Reserved.e820(),
            },
            partition: found.partition as u8,
            coherency: coherency(found.coherency),
            locked: found.locked.into(),
            probed: match found.probed {
                Probed::No => cxl_probed::No,
                Probed::Read => cxl_probed::Read,
                Probed::Held => cxl_probed::Held,
            } as u8,
            ..zeroed()
        };
        // SAFETY: the contract of C.
        unsafe { put_sized(region, given) }?;
        Ok(cxl_status::Ok)
    };
    // SAFETY: the contract of C.
    unsafe { with(workspace, work) }
}

fn coherency(found: Coherency) -> u8 {
    (match found {
        Coherency::HostOnly => cxl_coherency::HostOnly,
        Coherency::Device => cxl_coherency::Device,
        Coherency::BackInvalidate => cxl_coherency::BackInvalidate,
    }) as u8
}

/// How many decoders are in use, or had something done to them.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_decoder_count(workspace: *mut cxl_workspace) -> u32 {
    // SAFETY: the contract of C.
    unsafe { counted(workspace, |body| body.room.decoders.items().len()) }
}

/// The decoder with this number; those of one component stand by number.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_decoder_at(
    workspace: *mut cxl_workspace,
    index: u32,
    decoder: *mut cxl_decoder,
) -> cxl_status {
    let work = |body: &mut Body| {
        let found = entry(body.room.decoders.items(), index)?;
        let tree = Tree(body.room.nodes.items());
        let place = committed::Place::of(tree, found.node, found.index);
        let mut given: cxl_decoder = zeroed();
        given.kind = match place.component {
            Component::Device => cxl_component_kind::Device,
            Component::HostBridge => cxl_component_kind::HostBridge,
            Component::UpstreamPort => cxl_component_kind::UpstreamPort,
        } as u32;
        given.path = path_for_c(&place.at);
        given.index = found.index;
        given.fate = match found.fate {
            Fate::RolledBack => cxl_fate::RolledBack,
            Fate::Stranded => cxl_fate::Stranded,
            Fate::Done => cxl_fate::Done,
            _ => cxl_fate::Untouched,
        } as u8;
        given.committed = found.committed().into();
        given.locked = found.locked().into();
        if let Some(decoder) = found.decoder {
            given.has_meaning = 1;
            given.coherency = coherency(decoder.coherency);
            given.base = decoder.span.base().0;
            given.bytes = decoder.span.size();
            given.ways = decoder.interleave.ways.count();
            given.granularity = decoder.interleave.granularity.bytes() as u32;
            if let Route::Skip(skip) = decoder.route {
                given.skip = skip;
            }
        }
        given.registers = found.image.to_dwords();
        // SAFETY: the contract of C.
        unsafe { put_sized(decoder, given) }?;
        Ok(cxl_status::Ok)
    };
    // SAFETY: the contract of C.
    unsafe { with(workspace, work) }
}

/// The platform's window with this number: as it was given, read from the CEDT, or sized.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_window_at(
    workspace: *mut cxl_workspace,
    index: u32,
    window: *mut cxl_window,
) -> cxl_status {
    let work = |body: &mut Body| {
        let found = entry(body.platform.windows.items(), index)?;
        // SAFETY: the contract of C.
        unsafe { border::put(window, window_for_c(found)) }?;
        Ok(cxl_status::Ok)
    };
    // SAFETY: the contract of C.
    unsafe { with(workspace, work) }
}

/// A note as an error has its numbers.
fn of_note(note: &Note, tree: Tree<'_>) -> cxl_error {
    let (at, found): (Place, u64) = match *note {
        Note::PassThrough { uid } => (Place::bridge(uid), 0),
        Note::Unused { device, size, .. } => (tree.path(device).into(), size),
        Note::GuestPrograms { device }
        | Note::SystemPrograms { device }
        | Note::Empty { device }
        | Note::BackInvalidateGap { device, .. }
        | Note::BackInvalidateWindow { device, .. } => (tree.path(device).into(), 0),
        Note::NoSuchDevice { at } => (at.into(), 0),
        Note::WindowTooSmall { window, size, .. } => (Place::window(window), size),
        Note::Reserved { at, span, .. } => (at.into(), span.size()),
        Note::NoSuchPort { at } | Note::NoEmptyPort { at } => (at.into(), 0),
        Note::SetWithoutPlace { at, members, .. } => (at.into(), members.into()),
        Note::NotKept { span, .. } => (Place::range(span), span.size()),
        _ => (Place::NOWHERE, 0),
    };
    cxl_error { code: note.code(), place: at.numbers(), found, ..cxl_error::default() }
}

/// An entry of a list of errors.
fn listed(body: &Body, list: u32, index: u32) -> Result<cxl_error, Failure> {
    use cxl_error_list as of;
    let errors = match list {
        list if list == of::Remarks as u32 => body.room.rest.remarks().list(),
        list if list == of::Findings as u32 => body.room.findings.items(),
        list if list == of::Probe as u32 => body.room.rest.probe().list(),
        list if list == of::Notes as u32 => {
            let tree = Tree(body.room.nodes.items());
            return Ok(of_note(entry(body.room.notes.items(), index)?, tree));
        }
        list => return Err(Failure::argument(cxl_argument::ErrorList, 0, list.into())),
    };
    Ok((*entry(errors, index)?).into())
}

/// The entry with this number of a list, a `cxl_error_list`.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_error_at(
    workspace: *mut cxl_workspace,
    list: u32,
    index: u32,
    error: *mut cxl_error,
) -> cxl_status {
    let work = |body: &mut Body| {
        let found = listed(body, list, index)?;
        // SAFETY: the contract of C.
        unsafe { border::put(error, found) }?;
        Ok(cxl_status::Ok)
    };
    // SAFETY: the contract of C.
    unsafe { with(workspace, work) }
}

/// Why the last function on the workspace failed; all 0 if it did not, or where its status says all.
/// Functions that count, and lists that end, leave it as it is.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_last_error(
    workspace: *mut cxl_workspace,
    error: *mut cxl_error,
) -> cxl_status {
    let mut put = cxl_status::Ok;
    let work = |body: &mut Body| {
        // SAFETY: the contract of C.
        if let Err(failure) = unsafe { border::put(error, body.error) } {
            put = failure.parts().0;
        }
        // Keeps it.
        Err(cxl_status::End.into())
    };
    // SAFETY: the contract of C.
    match unsafe { with(workspace, work) } {
        cxl_status::End => put,
        status => status,
    }
}

/// An error in words, with a 0 behind, cut to what fits; `need` becomes what all of it needs. It may
/// be NULL. Without the library's sentences it is the numbers.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_error_text(
    error: *const cxl_error,
    text: *mut c_char,
    size: usize,
    need: *mut usize,
) -> cxl_status {
    // SAFETY: the contract of C.
    match unsafe { error_text(error, text, size, need) } {
        Ok(status) => status,
        Err(failure) => failure.parts().0,
    }
}

/// # Safety
///
/// The contract of C.
unsafe fn error_text(
    error: *const cxl_error,
    text: *mut c_char,
    size: usize,
    need: *mut usize,
) -> Result<cxl_status, Failure> {
    // SAFETY: the contract of C.
    let error = unsafe { border::object(error) }?;
    // SAFETY: the contract of C.
    let buffer = unsafe { border::buffer(text.cast(), size) }?;
    let mut line = Line::new(buffer);
    say(&mut line, error);
    let length = line.need();
    if !need.is_null() {
        // SAFETY: the contract of C.
        unsafe { border::put(need, length) }?;
    }
    Ok(if length > size { cxl_status::Short } else { cxl_status::Ok })
}

/// The phase of an error's number in a word; "argument" for 0.
#[unsafe(no_mangle)]
pub extern "C" fn cxl_phase_name(code: u16) -> *const c_char {
    let name = match Code::new(code).map(Code::phase) {
        None => c"argument",
        Some(Phase::Platform) => c"platform",
        Some(Phase::Discover) => c"discover",
        Some(Phase::Plan) => c"plan",
        Some(Phase::Commit) => c"commit",
        Some(Phase::Verify) => c"verify",
        Some(Phase::Tables) => c"tables",
        Some(Phase::Handoff) => c"handoff",
        Some(Phase::Probe) => c"probe",
        Some(Phase::Restore) => c"restore",
        Some(_) => c"unknown",
    };
    name.as_ptr()
}

/// An error in words, or in numbers.
pub(crate) fn say(line: &mut Line<'_>, error: &cxl_error) {
    match error.library() {
        None => {
            line.text("argument ").number(error.detail.into());
            line.text(", entry ").number(error.place[2].into());
            line.text(": expected ").hex(error.expected).text(", found ").hex(error.found);
        }
        #[cfg(feature = "sentences")]
        Some(error) => {
            let _ = core::fmt::Write::write_fmt(line, format_args!("{error}"));
            line.text(" (").hex(error.code().into()).text(")");
        }
        #[cfg(not(feature = "sentences"))]
        Some(error) => {
            let [first, second, third] = error.at.numbers();
            line.text("error ").hex(error.code().into()).text(" at ").hex(first.into());
            line.text(".").hex(second.into()).text(".").hex(third.into());
            line.text(": expected ").hex(error.expected).text(", found ").hex(error.found);
            line.text(", detail ").hex(error.detail.into());
        }
    }
}

/// Tells the log how far a phase came, and everything that it remarked.
pub(crate) fn log(body: &Body, machine: &Machine<'_>, name: &str, error: Option<Error>) {
    let room = &body.room;
    machine.log(|line| {
        let counts = [
            (room.nodes.items().len(), " components, "),
            (room.planned.items().len(), " decoders planned, "),
            (room.decoders.items().len(), " read, "),
            (room.committed_regions.items().len(), " regions whole"),
        ];
        line.text(name).text(": ");
        for (number, what) in counts {
            line.number(number as u64).text(what);
        }
    });
    let remarks = room.rest.remarks().list().iter();
    let all = remarks.chain(room.findings.items()).chain(room.rest.probe().list());
    for error in all.copied().chain(error) {
        machine.log(|line| {
            line.text(name).text(": ");
            say(line, &error.into());
        });
    }
    let tree = Tree(room.nodes.items());
    for note in room.notes.items() {
        machine.log(|line| {
            line.text(name).text(": ");
            #[cfg(feature = "sentences")]
            let _ = core::fmt::Write::write_fmt(line, format_args!("{}", note.text(tree)));
            #[cfg(not(feature = "sentences"))]
            say(line, &of_note(note, tree));
        });
    }
}
