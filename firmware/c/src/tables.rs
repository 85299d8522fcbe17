//! ACPI tables, the hand-off record and the way back from it.
//!
//! **Invariant**: a buffer gets a whole table or record, or a status; too short a one is told how much
//! is enough.

use core::ffi::{c_char, c_void};

use cxl_firmware::acpi::find_table;
use cxl_firmware::bring_up::{WorkspaceMut, describe};
use cxl_firmware::error::Code;
use cxl_firmware::handoff::{self, Contents, TableLocation};
use cxl_firmware::mmio::Mmio;
use cxl_firmware::platform::Platform;
use cxl_firmware::restore::{self, Pci};
use cxl_firmware::tables;
use cxl_firmware::topology::Tree;
use cxl_regs::Granularity;
use cxl_regs::acpi::{Header, Identity};

use crate::border;
use crate::hardware::{Machine, cxl_hardware};
use crate::phases::{Parts, Phase, status_of};
use crate::platform::count;
use crate::status::{Failure, cxl_argument, cxl_status};
use crate::workspace::{Body, Stage, cxl_workspace, with};

/// Who made a table: the fields of its header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cxl_identity {
    /// OEM ID, filled with blanks.
    pub oem_id: [c_char; 6],
    /// OEM table ID, likewise.
    pub oem_table_id: [c_char; 8],
    /// 0.
    pub reserved: u16,
    /// OEM revision.
    pub oem_revision: u32,
    /// Creator ID.
    pub creator_id: [c_char; 4],
    /// Creator revision.
    pub creator_revision: u32,
}

/// Who restores what PCI needs: bus numbers, windows, BARs, Command.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum cxl_pci {
    /// The library, from the record.
    Library = 0,
    /// Somebody has, to what is recorded.
    Done = 1,
}

/// # Safety
///
/// The contract of C.
unsafe fn identity(given: *const cxl_identity) -> Result<Identity, Failure> {
    // SAFETY: the contract of C.
    let given = unsafe { border::object(given) }?;
    Ok(Identity {
        oem_id: given.oem_id.map(|c| c as u8),
        oem_table_id: given.oem_table_id.map(|c| c as u8),
        oem_revision: given.oem_revision,
        creator_id: given.creator_id.map(|c| c as u8),
        creator_revision: given.creator_revision,
    })
}

/// Writes bytes into a buffer of C, by a function that gives back how many there are.
///
/// # Safety
///
/// The contract of C.
unsafe fn write(
    buffer: *mut c_void,
    size: usize,
    length: *mut usize,
    enough: usize,
    make: impl FnOnce(&mut [u8]) -> Result<usize, Failure>,
) -> Result<cxl_status, Failure> {
    // SAFETY: the contract of C.
    unsafe { border::put(length, enough) }?;
    // SAFETY: the contract of C.
    let bytes = unsafe { border::buffer(buffer.cast(), size) }?;
    match make(bytes) {
        Ok(made) => {
            // SAFETY: the contract of C.
            unsafe { border::put(length, made) }?;
            Ok(cxl_status::Ok)
        }
        Err(Failure::Library(error))
            if matches!(error.code, Code::TABLES_NO_ROOM | Code::HANDOFF_NO_ROOM) =>
        {
            if error.code == Code::HANDOFF_NO_ROOM {
                let need = usize::try_from(error.expected).unwrap_or(usize::MAX);
                // SAFETY: the contract of C.
                unsafe { border::put(length, need) }?;
            }
            Err(cxl_status::Short.into())
        }
        Err(failure) => Err(failure),
    }
}

// Bytes of the records of a CEDT (CXL r3.1 section 9.18.1): the largest that each can be.
const CHBS: usize = 32;
const CFMWS: usize = 36 + 4 * 16;
const CXIMS: usize = 8 + 8 * 4;
/// Bytes of an SRAT before its records, and of a memory affinity (ACPI 6.5 section 5.2.16).
const SRAT: usize = size_of::<Header>() + 12;
const AFFINITY: usize = 40;

/// Bytes that the CEDT of a platform has at most.
fn enough(platform: &Platform<'_>) -> usize {
    size_of::<Header>()
        + CHBS * platform.bridges.len()
        + CFMWS * platform.windows.len()
        + CXIMS * Granularity::ALL.len()
}

/// Writes the CEDT of what the hardware accepted, with checksum. `length` becomes its bytes, or where
/// the buffer is too short, what is enough. With a policy that is content with the rest, windows and bridges
/// that make no sense are left out; with any other they are refused.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_write_cedt(
    workspace: *mut cxl_workspace,
    made_by: *const cxl_identity,
    buffer: *mut c_void,
    size: usize,
    length: *mut usize,
) -> cxl_status {
    let work = |body: &mut Body| {
        body.needs(Stage::Discovered)?;
        // SAFETY: the contract of C.
        let identity = unsafe { identity(made_by) }?;
        let (platform, policy) = (body.platform.platform(), body.policy.policy());
        let enough = enough(&platform);
        let work = WorkspaceMut::from(&mut body.room);
        let (tree, committed) = (Tree(&work.topology.nodes), work.committed.view());
        // SAFETY: the contract of C.
        unsafe {
            write(buffer, size, length, enough, |bytes| {
                let made = tables::cedt_as(&platform, tree, committed, &policy, identity, bytes)?;
                Ok(made.len())
            })
        }
    };
    // SAFETY: the contract of C.
    unsafe { with(workspace, work) }
}

/// Holds a CEDT, whoever wrote it, against the decoders, which are read once more. To be called before
/// anybody relies on the table.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_check_cedt(
    workspace: *mut cxl_workspace,
    hardware: *const cxl_hardware,
    cedt: *const c_void,
    size: usize,
) -> cxl_status {
    let work = |body: &mut Body| {
        // SAFETY: the contract of C.
        let machine = unsafe { Machine::of(hardware) }?;
        body.needs(Stage::Discovered)?;
        if cedt.is_null() {
            return Err(cxl_status::Null.into());
        }
        // SAFETY: the contract of C.
        let cedt = unsafe { border::list(cedt.cast::<u8>(), size) }?;
        let mut machine = machine.with_ecam(body.platform.platform().ecam);
        let work = WorkspaceMut::from(&mut body.room);
        let (tree, committed) = (Tree(&work.topology.nodes), work.committed.view());
        tables::cross_check_hardware(&mut machine, cedt, tree, committed)?;
        Ok(cxl_status::Ok)
    };
    // SAFETY: the contract of C.
    unsafe { with(workspace, work) }
}

/// Writes the CEDT of what `cxl_bring_up` or `cxl_add` left, and holds it against the decoders, which are
/// read once more. With `CXL_ON_FAILURE_BEST_EFFORT` what changed meanwhile, or went away, costs itself
/// here too: the machine is brought up once more, which takes what is locked as it is, the table is made
/// of what that finds, and the result is `CXL_STATUS_LESS`. So nobody may use the memory yet; ask for
/// components, regions, SRAT and record afterwards. `length` is as with `cxl_write_cedt`.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_describe(
    workspace: *mut cxl_workspace,
    hardware: *const cxl_hardware,
    made_by: *const cxl_identity,
    buffer: *mut c_void,
    size: usize,
    length: *mut usize,
) -> cxl_status {
    // Too short a buffer changes nothing; nor does a difference that costs everything.
    let reached = Stage::Committed;
    let phase = Phase { name: "describe", needs: reached, reached, failed: reached };
    let work = |body: &mut Body| {
        // Only after these it is known what was wanted.
        let before = body.done.extent.ok_or(cxl_status::Order)?;
        // SAFETY: the contract of C.
        let identity = unsafe { identity(made_by) }?;
        let (mut extent, enough) = (before, enough(&body.platform.platform()));
        let make = |bytes: &mut [u8]| {
            let mut made = 0;
            let work = |parts: Parts<'_>| {
                let Parts { mut machine, platform, policy, work, done, .. } = parts;
                let (clock, hw) = (&mut { machine }, &mut machine);
                let (cedt, now) =
                    describe(hw, clock, &platform, &policy, work, before, identity, bytes)?;
                (made, done.extent) = (cedt.len(), Some(now));
                Ok(now)
            };
            // SAFETY: the contract of C.
            extent = unsafe { phase.run(body, hardware, work) }?;
            Ok(made)
        };
        // SAFETY: the contract of C.
        unsafe { write(buffer, size, length, enough, make) }?;
        Ok(status_of(extent))
    };
    // SAFETY: the contract of C.
    unsafe { with(workspace, work) }
}

/// Writes an SRAT with the regions alone, each in a proximity domain of its own from `first_domain` on.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_write_srat(
    workspace: *mut cxl_workspace,
    made_by: *const cxl_identity,
    first_domain: u32,
    buffer: *mut c_void,
    size: usize,
    length: *mut usize,
) -> cxl_status {
    let work = |body: &mut Body| {
        body.needs(Stage::Discovered)?;
        // SAFETY: the contract of C.
        let identity = unsafe { identity(made_by) }?;
        let work = WorkspaceMut::from(&mut body.room);
        let committed = work.committed.view();
        let enough = SRAT + AFFINITY * committed.regions.len();
        // SAFETY: the contract of C.
        unsafe {
            write(buffer, size, length, enough, |bytes| {
                Ok(tables::srat(committed, identity, first_domain, bytes)?.len())
            })
        }
    };
    // SAFETY: the contract of C.
    unsafe { with(workspace, work) }
}

/// Writes the hand-off record for the next stage and for `cxl_restore`. `cedt` is the physical address
/// of the table, 0: none. After a bring-up that failed it says what is there and what became of it.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_write_handoff(
    workspace: *mut cxl_workspace,
    hardware: *const cxl_hardware,
    cedt: u64,
    cedt_size: u32,
    buffer: *mut c_void,
    size: usize,
    length: *mut usize,
) -> cxl_status {
    let work = |body: &mut Body| {
        // SAFETY: the contract of C.
        let machine = unsafe { Machine::of(hardware) }?;
        body.needs(Stage::Discovered)?;
        let ecam = body.platform.platform().ecam;
        let mut machine = machine.with_ecam(ecam);
        let work = WorkspaceMut::from(&mut body.room);
        let contents = Contents {
            ecam,
            topology: Tree(&work.topology.nodes),
            remarks: work.topology.remarks,
            committed: work.committed.view(),
            cedt: (cedt != 0).then_some(TableLocation { address: cedt, size: cedt_size }),
        };
        // SAFETY: the contract of C.
        unsafe {
            write(buffer, size, length, 0, |bytes| {
                Ok(handoff::write(&mut machine, &contents, bytes)?.len())
            })
        }
    };
    // SAFETY: the contract of C.
    unsafe { with(workspace, work) }
}

/// Puts a machine back as a hand-off record has it, after S3 or a reset; plans nothing. Of the platform
/// only the configuration regions are used. What is lost is an outcome of its component, and the result
/// `CXL_STATUS_LESS`. `pci` is a `cxl_pci`.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_restore(
    workspace: *mut cxl_workspace,
    hardware: *const cxl_hardware,
    record: *const c_void,
    size: usize,
    pci: u32,
) -> cxl_status {
    let work = |body: &mut Body| {
        // SAFETY: the contract of C.
        let machine = unsafe { Machine::of(hardware) }?;
        body.needs(Stage::Platform)?;
        let pci = match pci {
            pci if pci == cxl_pci::Library as u32 => Pci::Library,
            pci if pci == cxl_pci::Done as u32 => Pci::Done,
            pci => return Err(Failure::argument(cxl_argument::Pci, 0, pci.into())),
        };
        if record.is_null() {
            return Err(cxl_status::Null.into());
        }
        // SAFETY: the contract of C.
        let record = unsafe { border::list(record.cast::<u8>(), size) }?;
        body.stage = Stage::Platform;
        body.restored = true;
        body.outcomes.list().clear();
        let ecam = body.platform.platform().ecam;
        let (mut machine, mut clock) = (machine.with_ecam(ecam), machine);
        let record = handoff::read(record)?;
        let outcomes = body.outcomes.list();
        let done = restore::restore(&mut machine, &mut clock, ecam, &record, pci, outcomes)?;
        Ok(status_of(done))
    };
    // SAFETY: the contract of C.
    unsafe { with(workspace, work) }
}

/// Copies the ACPI table with a signature into a buffer, from the RSDP on, and checks it. Memory is
/// read by `read32`. The buffer holds the root table first, so it has to be as large as that too;
/// `length` becomes the table's bytes, or what the one that did not fit has. `signature` leads to 4
/// bytes.
///
/// # Safety
///
/// The contract of C, at the top of `border.rs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cxl_find_table(
    workspace: *mut cxl_workspace,
    hardware: *const cxl_hardware,
    rsdp: u64,
    signature: *const c_char,
    buffer: *mut c_void,
    size: usize,
    length: *mut usize,
) -> cxl_status {
    let work = |_: &mut Body| {
        // SAFETY: the contract of C.
        let mut machine = unsafe { Machine::of(hardware) }?;
        // SAFETY: the contract of C.
        let signature = *unsafe { border::object(signature.cast::<[u8; 4]>()) }?;
        // SAFETY: the contract of C.
        unsafe { border::put(length, 0) }?;
        // SAFETY: the contract of C.
        let bytes = unsafe { border::buffer(buffer.cast(), size) }?;
        let mut read = |address: u64, bytes: &mut [u8]| {
            let mut dword = (u64::MAX, [0; 4]);
            for (at, byte) in (address..).zip(bytes) {
                if dword.0 != at & !3 {
                    dword = (at & !3, machine.read(at & !3).to_le_bytes());
                }
                let [a, b, c, d] = dword.1;
                *byte = match at & 3 {
                    0 => a,
                    1 => b,
                    2 => c,
                    _ => d,
                };
            }
        };
        let found = find_table(&mut read, rsdp, signature, bytes).map(<[u8]>::len);
        let (told, result) = match found {
            Ok(bytes) => (bytes, Ok(cxl_status::Ok)),
            Err(error) if error.code == Code::PLATFORM_TABLE_TOO_LARGE => {
                (count(error.expected as u32), Err(cxl_status::Short.into()))
            }
            Err(error) => (0, Err(error.into())),
        };
        // SAFETY: the contract of C.
        unsafe { border::put(length, told) }?;
        result
    };
    // SAFETY: the contract of C.
    unsafe { with(workspace, work) }
}
